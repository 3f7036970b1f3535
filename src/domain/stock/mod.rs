//! The stock of one SKU at one location: what is there, who has a claim on it, what can be sold.
//!
//! [`Ledger`] holds one position and applies facts and commands to it. The physical side is
//! independent of the order in which facts arrive ([`ledger`](Ledger::delta)); the claims side
//! ([`Ledger::hold`] and its kin) makes decisions that are made once and remembered.
//! [`Network`] sums what locations can promise to a channel.
//!
//! Rules and their sources: positions and as-of snapshots, claims, availability (domain
//! specification §4 and §5). What is absent: Avro, Kafka, time other than the facts' own.

mod claims;
mod encoding;
mod ledger;
mod network;

pub use claims::{Claim, ClaimStatus, Command, Decision, Mode, Verdict};
pub use encoding::Corrupt;
pub use ledger::{
    Applied, Delta, Effect, Entry, EntryKind, Ledger, Level, Refusal, Shelf, Snapshot,
};
pub use network::{Network, Offer};

use super::{Decimal, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a fact's identity is remembered, by the time at which facts were recorded. A fact that
/// comes later than that can be neither known as a duplicate nor applied.
pub const HORIZON: Duration = Duration::from_secs(72 * 3_600);

/// What a policy says when stock does not suffice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oversell {
    /// Refuse.
    #[default]
    Block,
    /// Accept without stock while backorders stay within the limit.
    BackorderToLimit,
    /// Accept without stock.
    Allow,
}

/// A channel's part in a location's stock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocation {
    /// Units kept for the channel.
    pub hard: Option<Decimal>,
    /// Most of the stock that the channel may take, in percent; `None` is no cap.
    pub share_percent: Option<f64>,
    /// Cushion against the channel's delay, subtracted when availability is published.
    pub buffer: Option<Decimal>,
}

/// The rules that hold at one position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Version; older ones are superseded.
    pub version: i64,
    /// Units that are never promised.
    pub safety: Decimal,
    /// Parts of the channels.
    pub allocations: BTreeMap<compact_str::CompactString, Allocation>,
    /// What to do when stock does not suffice.
    pub oversell: Oversell,
    /// Most backordered units under [`Oversell::BackorderToLimit`].
    pub backorder_limit: Option<Decimal>,
}

/// The latest of two times.
pub(super) fn later(a: Timestamp, b: Timestamp) -> Timestamp {
    a.max(b)
}
