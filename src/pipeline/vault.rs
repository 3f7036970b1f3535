//! Personal data: who a customer is, and the port behind which it is made readable and unreadable.

use super::Fault;
use crate::contract::event::CustomerChanged;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who a customer is. It is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Person {
    pub email: Option<String>,
    pub phone: Option<String>,
    pub given_name: Option<String>,
    pub family_name: Option<String>,
    pub address: Option<Address>,
    pub tax_id: Option<String>,
}

/// Where a customer lives.
#[derive(Clone, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Address {
    /// Lines, with newlines between them.
    pub street: String,
    pub postal_code: String,
    pub city: String,
    pub region: String,
    /// ISO 3166-1 alpha-2, in capitals.
    pub country: String,
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Person(…)")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(…)")
    }
}

/// Keeps a key for each person. Once the key is destroyed, nothing that was sealed with it can be read
/// by anybody, and nothing more is sealed for the person.
///
/// Calls block, for as long as the log takes at most.
pub trait Vault: Send + Sync {
    /// Puts a person's data into an event, encrypted with the key of `channel_id` and `customer_id`; the
    /// same data makes the same bytes. Gives false when the person was erased: then there is nothing to
    /// tell of it.
    ///
    /// # Errors
    /// A retry when the log does not answer; a halt when there is no configured key.
    fn seal(&self, person: &Person, event: &mut CustomerChanged) -> Result<bool, Fault>;
    /// The person of an event; `None` when it was erased.
    ///
    /// # Errors
    /// As [`Vault::seal`]; a reject when what is in the event was not sealed for it.
    fn open(&self, event: &CustomerChanged) -> Result<Option<Person>, Fault>;
}
