//! The stock of one SKU at one location: what is there, who has a claim on it, what can be sold.
//!
//! [`Ledger`] holds one position. Its physical side ([`Ledger::movement`], [`Ledger::snapshot`]) is
//! a function of the *set* of facts heard, whatever their order; its claims side
//! ([`Ledger::command`], [`Ledger::expire`]) makes decisions that depend on what came first, so each
//! is made once, written into a [`Journal`] and remembered. [`Network`] sums what locations can
//! promise to a channel.
//!
//! A position's state is one header of bounded size and sub-entries on a [`Shelf`], each written
//! once: what a commit writes does not grow with the position's history.
//!
//! What is absent: Avro, Kafka, clocks. Rules: merging of movements and snapshots in `position`,
//! grants and their ends in `commands` and `booking`, the formulas of availability in `availability`.

mod agenda;
mod availability;
mod booking;
mod claims;
mod commands;
use super::encoding;
mod identities;
mod ledger;
mod movement;
mod network;
mod policy;
mod position;
mod quality;
mod recorded;
mod shelf;
mod told;

pub use availability::{Level, Offered, Terms};
pub use claims::{Action, AtRisk, Cause, Claim, ClaimStatus, Command, Decision, Mode, Verdict};
pub use ledger::{Journal, Ledger, Place, Resolved, Waited};
pub use movement::{Effect, StockState};
pub use network::{Network, Offer, PUBLISH_INTERVAL, Publication, Published};
pub use policy::{Allocation, Oversell, Policy};
pub use position::{Applied, Moved, Movement, Rebased, Refusal, Snapshot};
pub use quality::gs1_check_digit_holds;
pub use recorded::{Recorded, Ruling};
pub use shelf::{MemoryShelf, Shelf, Slot};
pub use told::{adopt_entry, canonical, tell_entry};

use std::time::Duration;

/// How long a fact's identity is remembered, by the time at which facts were recorded. A fact that
/// comes later than that can be neither known as a duplicate nor applied.
pub const HORIZON: Duration = Duration::from_secs(72 * 3_600);
