//! Retail types and rules, pure: no clock, no I/O, no randomness, nothing of Kafka or Avro.
//!
//! Start with [`stock`] for the merge rules of a position; the other modules are the words they use.

pub mod stock;

mod decimal;
mod identity;
mod time;

pub use decimal::{Decimal, DecimalError};
pub use identity::{NAMESPACE, Position, compound_key, event_id, natural_id, split_key};
pub use time::{Date, Timestamp};
