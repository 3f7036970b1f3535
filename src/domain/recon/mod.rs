//! Whether systems agree: stock by [`Mirrors`], orders by [`Agreement`], and whether what a system lists
//! is the whole list by [`Manifests`] and what it leaves out by [`Coverage`], whether it is heard of at all by [`Feed`].
//!
//! What each system says is kept as a set; what does not agree is derived from the set, so a fact that
//! comes late closes what its absence had opened. Only the tries to put something right depend on what
//! came first: [`Repairs`] remembers them. Sides are brought to one cut before they are compared; where
//! that is not possible nothing is concluded. Rules: DOMAIN.md §5.

mod coverage;
mod feed;
mod manifest;
mod mirror;
mod order;
mod repairs;

pub use coverage::Coverage;
pub use feed::{Feed, FeedChange, STALE_AFTER};
pub use manifest::{Chunk, Manifests};
pub use mirror::{Count, Level, Mirrors, StockRepair};
pub use order::{Agreement, Entry, KnownOrder, OrderRepair, Phase, Role, Told};
pub use repairs::{ATTEMPTS_MAX, COOLDOWN, Repairs};

use std::time::Duration;

/// How long facts may overtake each other before what they say of a cut is compared.
pub const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How much clocks of two systems may differ.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
