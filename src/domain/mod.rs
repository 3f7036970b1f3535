//! Retail types and rules, pure: no clock, no I/O, no randomness, nothing of Kafka or Avro.
//!
//! Start with [`stock`] for the merge rules of a position and [`finance`] for the money of an order; the
//! other modules are the words they use.

pub mod cases;
pub mod exceptions;
pub mod finance;
pub mod money;
pub mod order;
pub mod recon;
pub mod sla;
pub mod stock;

mod decimal;
mod encoding;
mod identity;
mod latest;
mod time;

pub use decimal::{Decimal, DecimalError};
pub use encoding::{Corrupt, Kept, Stored, adopt_state, tell_state};
pub use identity::{
    NAMESPACE, Position, compound_key, event_id, exception_id, key_part, natural_id, order_id,
    payment_id, refund_id, reservation_id, return_id, split_key,
};
pub use latest::{FACTS_MAX, Latest, Taken};
pub use time::{Date, Timestamp};
