//! Contracts: event types generated from `schemas/`, the topic catalogue of `topics.yaml`, and the
//! rules by which both may change.
//!
//! Schemas are the source: [`event`] and [`topic`] are written by the build, never by hand.

mod catalogue;
pub mod compatibility;
pub mod lint;
pub mod wire;

pub use catalogue::{
    Catalogue, Class, OnReject, PhysicalTopic, ReaderOf, Retention, SINKS, Status, Tier, Topic,
    park_key, parked_place, receipt_key,
};

/// Event types, generated from `schemas/`.
pub mod event {
    pub use super::Contract;
    use super::wire;
    pub use super::wire::{Blob, DecodeError, DecodeErrorKind, Rate};
    use crate::domain::{Date, Decimal, Timestamp};
    use std::collections::BTreeMap;
    use uuid::Uuid;

    /// Text of a contract; short ones are held without allocation.
    pub type Text = compact_str::CompactString;

    include!(concat!(env!("OUT_DIR"), "/event.rs"));
}

/// Names of the fixed topics, generated from `topics.yaml`.
pub mod topic {
    include!(concat!(env!("OUT_DIR"), "/topic.rs"));
}

/// A type generated from a contract.
pub trait Contract: Sized {
    /// Full name of the record: namespace and name.
    const NAME: &'static str;
    /// Version of the compiled schema.
    const VERSION: u32;
    /// The compiled schema, self-contained JSON.
    const SCHEMA: &'static str;
    /// Appends the Avro binary form.
    fn encode(&self, out: &mut Vec<u8>);
    /// Takes one value, written with the compiled schema, off the front of `input`.
    ///
    /// # Errors
    /// When the bytes are not a value of the schema.
    fn decode(input: &mut &[u8]) -> Result<Self, event::DecodeError>;
    /// What every event begins with.
    fn meta(&self) -> &event::EventMeta;
}
