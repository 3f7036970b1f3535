//! Decisions on the claims of a position that were made before, followed where its records are read again.
//!
//! A claim changes only as the record says: what is granted or refused is what was granted or refused
//! then, whatever lies there now, and a change of which the record says that another came first is not
//! made. Of a claim of which the record says nothing, everything is decided anew.

use super::claims::{Action, Cause, ClaimStatus};
use super::ledger::Ledger;
use crate::domain::{Decimal, Timestamp};
use std::collections::BTreeMap;

/// A decision as it was recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ruling {
    /// The command that led to it; none where goods left, time was over, or stock became free.
    pub action: Option<Action>,
    /// The claim's state after it.
    pub status: ClaimStatus,
    /// Units of stock granted by it.
    pub granted: Decimal,
    /// Number of the decision in the position's ledger.
    pub sequence: i64,
    /// When it was made.
    pub at: Timestamp,
}

/// The decisions on each claim of a position, by its versions: the first is that of version 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recorded {
    claims: BTreeMap<u128, Vec<Ruling>>,
}

/// What the record says of a change.
pub(super) enum Word {
    /// Nothing is known of the claim.
    Silent,
    /// It was made, like this.
    Made(Ruling),
    /// It was not made: something else came first, or nothing came of it.
    NotMade,
}

impl Recorded {
    /// Adds a decision on the claim `id`; they come in the order in which they were made.
    pub fn add(&mut self, id: u128, ruling: Ruling) {
        self.claims.entry(id).or_default().push(ruling);
    }
}

impl Ruling {
    fn is_of(&self, cause: Cause) -> bool {
        match (self.action, cause) {
            (Some(action), Cause::Command(command)) => action == command,
            (None, Cause::Expire) => self.status == ClaimStatus::Expired,
            (None, Cause::Promote) => self.granted.is_positive(),
            (None, Cause::Consume) => {
                self.status != ClaimStatus::Expired && !self.granted.is_positive()
            }
            _ => false,
        }
    }
}

impl Ledger {
    /// What the record says of the change of claim `id` after `version`, for this cause.
    pub(super) fn word(&self, id: u128, version: i64, cause: Cause) -> Word {
        let Some(rulings) = self.recorded.as_ref().and_then(|r| r.claims.get(&id)) else {
            return Word::Silent;
        };
        let next = usize::try_from(version).ok().and_then(|v| rulings.get(v));
        match next {
            Some(ruling) if ruling.is_of(cause) => Word::Made(*ruling),
            _ => Word::NotMade,
        }
    }

    /// Whether the record says that this change was not made.
    pub(super) fn was_not_made(&self, id: u128, version: i64, cause: Cause) -> bool {
        matches!(self.word(id, version, cause), Word::NotMade)
    }
}
