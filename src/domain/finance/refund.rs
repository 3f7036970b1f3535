//! A refund, and what is asked and answered about it.

use super::facts::Allocation;
use super::machine::{Illegal, RefundMove, RefundStatus};
use crate::domain::Timestamp;
use crate::domain::encoding::stored;
use crate::domain::money::Money;
use compact_str::CompactString as Text;
use std::time::Duration;

/// Attempts of one refund. After the last a person decides.
pub(super) const ATTEMPTS_MAX: u32 = 4;
/// Wait before the second attempt; doubles with each.
const RETRY_DELAY: Duration = Duration::from_secs(15 * 60);

/// A refund: what was asked for, and how far it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Refund {
    /// Where it stands.
    pub status: RefundStatus,
    /// Counts its changes.
    pub version: i64,
    /// The attempt under way, from 1; 0 before the first, and when none is ours.
    pub attempt: u32,
    /// How much.
    pub money: Money,
    /// The payment that it is taken from.
    pub payment: Option<Text>,
    /// `psp|pspReference` of the provider's refund, once known.
    pub reference: Option<Text>,
    /// The return that it is for.
    pub return_id: Option<Text>,
    /// For what.
    pub allocations: Vec<Allocation>,
    /// Why it was asked for; after a rejection or failure, why that.
    pub reason: Option<Text>,
    /// Whether it was paid by others before anyone asked here: recorded, never sent to a provider.
    pub issued: bool,
    /// The refund that a provider has paid as well, where this is a payment that nobody asked for.
    pub twin: Option<u128>,
    /// When it was asked for or heard of.
    pub asked_at: Timestamp,
    /// When it came to where it stands.
    pub since: Timestamp,
    /// Until when it waits: for what it needs, or before its next attempt.
    pub until: Option<Timestamp>,
    /// Version of the newest answer to the attempt.
    pub(super) answered: i64,
    /// The record that waits to be decided: partition and offset in the topic of requests.
    pub(super) waiting: Option<(i32, i64)>,
}
stored!(Refund {
    status,
    version,
    attempt,
    money,
    payment,
    reference,
    return_id,
    allocations,
    reason,
    issued,
    twin,
    asked_at,
    since: told,
    until: told,
    answered,
    waiting
});

/// Somebody asks for money to go back, or tells that it has gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The refund's id.
    pub refund: u128,
    /// The return that it is for.
    pub return_id: Option<Text>,
    /// The payment that it is to be taken from, where that matters.
    pub payment: Option<Text>,
    /// How much.
    pub money: Money,
    /// For what.
    pub allocations: Vec<Allocation>,
    /// Why.
    pub reason: Option<Text>,
    /// `psp|pspReference` of the provider's refund, where it is known.
    pub reference: Option<Text>,
    /// Whether it was paid already.
    pub issued: bool,
    /// When it was asked for.
    pub at: Timestamp,
    /// Partition and offset of the record.
    pub place: (i32, i64),
}

/// What a provider says about a refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum AnswerKind {
    Completed,
    Failed,
    Unknown,
    Reversed,
}

/// What a provider, or whoever called it, says about a refund.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What happened.
    pub kind: AnswerKind,
    /// Refund and attempt of the key that it was called with; `None` when it was not called by us.
    pub key: Option<(u128, u32)>,
    /// `psp|pspReference` of the provider's refund.
    pub reference: Text,
    /// The payment that it was taken from.
    pub payment: Text,
    /// How much.
    pub money: Money,
    /// The provider's version of its refund.
    pub version: i64,
    /// The id that a refund gets which nobody here knows.
    pub fresh: u128,
    /// When it happened.
    pub at: Timestamp,
}

/// A refund that has moved, as it was right after.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its id.
    pub id: u128,
    /// What it became.
    pub refund: Refund,
}

impl Refund {
    /// Makes a move.
    pub(super) fn go(&mut self, on: RefundMove, at: Timestamp) -> Result<(), Illegal> {
        self.status = self.status.after(on)?;
        self.version += 1;
        self.since = at;
        self.until = None;
        match on {
            RefundMove::Submit => {
                self.attempt += 1;
                self.answered = 0;
            }
            RefundMove::Fail if self.attempt < ATTEMPTS_MAX => {
                let wait = RETRY_DELAY * 2u32.saturating_pow(self.attempt.saturating_sub(1));
                self.until = Some(at.plus(wait));
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether it was paid by others and nobody has said what for.
    pub(super) fn is_unexplained(&self) -> bool {
        self.issued && self.allocations.is_empty()
    }
}
