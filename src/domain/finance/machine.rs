//! The life of a refund, as data (DOMAIN.md §4).

use crate::domain::encoding::stored_enum;

/// Where a refund stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefundStatus {
    /// Asked for; it waits for facts or is about to be decided.
    #[default]
    Requested,
    /// Decided: the money is owed.
    Approved,
    /// The provider has been told to pay, with the key of the attempt.
    Submitted,
    /// The provider may or may not have paid: the same attempt is asked about, never another opened.
    OutcomeUnknown,
    /// Paid.
    Completed,
    /// The attempt has definitely not paid.
    Failed,
    /// Decided against.
    Rejected,
    /// Paid, and the money has come back.
    Reversed,
}
stored_enum!(RefundStatus [
    Requested, Approved, Submitted, OutcomeUnknown, Completed, Failed, Rejected, Reversed
]);

impl RefundStatus {
    /// Whether its money is gone or may be on its way.
    pub const fn is_in_flight(self) -> bool {
        matches!(
            self,
            RefundStatus::Approved
                | RefundStatus::Submitted
                | RefundStatus::OutcomeUnknown
                | RefundStatus::Failed
        )
    }
    /// Whether it was decided in favour and its money is not back.
    pub const fn is_granted(self) -> bool {
        self.is_in_flight() || matches!(self, RefundStatus::Completed)
    }
}

/// What moves a refund on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefundMove {
    /// What it needs is there.
    Approve,
    /// What it needs never came, or it breaks a rule.
    Reject,
    /// The provider is told to pay.
    Submit,
    /// The provider, or whoever called it, cannot say.
    Doubt,
    /// The provider has paid.
    Complete,
    /// The provider has definitely not paid.
    Fail,
    /// A further attempt is opened.
    Reopen,
    /// What was paid has come back.
    Reverse,
}

/// Every legal move: from where, by what, to where. What is not here is illegal.
///
/// An answer may come before its submission is known to have been made, or twice; the gate settles
/// those as duplicates before it asks for a move.
pub const TRANSITIONS: &[(RefundStatus, RefundMove, RefundStatus)] = {
    use RefundMove as On;
    use RefundStatus as S;
    &[
        (S::Requested, On::Approve, S::Approved),
        (S::Requested, On::Reject, S::Rejected),
        (S::Approved, On::Submit, S::Submitted),
        (S::Submitted, On::Doubt, S::OutcomeUnknown),
        (S::Submitted, On::Complete, S::Completed),
        (S::Submitted, On::Fail, S::Failed),
        (S::OutcomeUnknown, On::Complete, S::Completed),
        (S::OutcomeUnknown, On::Fail, S::Failed),
        (S::Failed, On::Reopen, S::Approved),
        (S::Completed, On::Reverse, S::Reversed),
    ]
};

/// A move that a refund cannot make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{on:?} is no move of a refund that is {from:?}")]
pub struct Illegal {
    /// Where the refund stands.
    pub from: RefundStatus,
    /// What was asked of it.
    pub on: RefundMove,
}

impl RefundStatus {
    /// Where `on` leads from here.
    ///
    /// # Errors
    /// When it leads nowhere.
    pub fn after(self, on: RefundMove) -> Result<RefundStatus, Illegal> {
        let legal = TRANSITIONS.iter().find(|t| (t.0, t.1) == (self, on));
        legal.map(|t| t.2).ok_or(Illegal { from: self, on })
    }
}
