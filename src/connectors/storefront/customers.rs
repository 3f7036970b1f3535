//! Who a storefront's customers are, sealed before it is told.

use super::Terms;
use crate::contract::event::{
    CustomerChanged, CustomerStatus, EventMeta, Origin, PositionKind, Text,
};
use crate::contract::topic;
use crate::domain::{Timestamp, compound_key, event_id};
use crate::pipeline::{Fault, Person, SourceRecord, Vault};

/// Name of the list, and of its shard.
pub const LIST: &str = "customers";

/// A customer as it was read.
#[derive(Clone, Debug)]
pub struct ShopCustomer {
    /// The storefront's id.
    pub id: String,
    /// When it changed last; its version.
    pub changed_at: Timestamp,
    pub person: Person,
}

/// The event of a customer; `None` of one who was erased.
///
/// # Errors
/// As [`Vault::seal`].
pub fn event(
    terms: &Terms,
    customer: &ShopCustomer,
    vault: &dyn Vault,
) -> Result<Option<SourceRecord>, Fault> {
    let record_id = format!("customer,{}@{}", customer.id, customer.changed_at.0);
    let country = customer.person.address.as_ref().map(|a| &a.country);
    let mut event = CustomerChanged {
        meta: EventMeta {
            event_id: event_id(&terms.instance, 0, &record_id, "", "CustomerChanged"),
            event_type: "CustomerChanged".into(),
            source: terms.instance.as_str().into(),
            source_position: customer.changed_at.0,
            position_kind: PositionKind::TimestampMicros,
            occurred_at: customer.changed_at,
            tenant_id: "default".into(),
            correlation_id: record_id.into(),
            origin: Origin::Source,
            ..EventMeta::default()
        },
        channel_id: terms.channel.as_str().into(),
        customer_id: customer.id.as_str().into(),
        customer_version: customer.changed_at.0,
        status: CustomerStatus::Active,
        country: country.filter(|c| !c.is_empty()).map(|c| Text::from(&**c)),
        ..CustomerChanged::default()
    };
    let sealed = vault.seal(&customer.person, &mut event)?;
    Ok(sealed.then(|| SourceRecord {
        topic: topic::CUSTOMER_CHANGE,
        key: compound_key(&[&terms.channel, &customer.id]),
        event: event.into(),
    }))
}

/// A fault without what the storefront said, which may name a person.
pub fn wordless(fault: Fault) -> Fault {
    Fault {
        message: format!(
            "customers cannot be read: {}; what the shop answered is left out, for it may name a person",
            fault.code
        ),
        source: None,
        ..fault
    }
}

/// A text of an API that says something.
pub fn said(text: &serde_json::Value) -> Option<String> {
    let text = text.as_str().map(str::trim).filter(|t| !t.is_empty());
    text.map(str::to_owned)
}
