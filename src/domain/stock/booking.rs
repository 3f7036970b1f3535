//! The books of claims: expiry, backorders, claims at risk, replay, and the sums over all of them.

use super::claims::{AtRisk, Cause, Claim, ClaimStatus, Decision, Early, Known, Mode, load, put};
use super::identities::{Entry, seconds};
use super::ledger::{Journal, Ledger, Resolved, Waited};
use super::position::{Applied, Refusal};
use super::recorded::Word;
use super::shelf::{Shelf, Slot};
use crate::domain::{Decimal, Timestamp};

/// Holds that expire in one call at most; the timer comes again for the rest.
const EXPIRED_MAX: usize = 512;

/// What a decision goes by.
pub(super) struct Basis {
    pub ats: Decimal,
    pub sellable: Decimal,
    pub reserved: Decimal,
}

impl Ledger {
    /// Ends holds whose time is over at `now`, and gives what becomes free to backorders. When more
    /// are due than one call takes, [`Ledger::next_expiry`] is not after `now`.
    ///
    /// # Errors
    /// When state is damaged.
    pub fn expire(
        &mut self,
        now: Timestamp,
        shelf: &mut dyn Shelf,
        journal: &mut Journal,
    ) -> Result<(), Refusal> {
        let mut at = now;
        for id in self.agenda.take_due(now, EXPIRED_MAX, shelf)? {
            let Some(Known::Claim(before)) = load(id, shelf)? else {
                continue;
            };
            match self.word(id, before.version, Cause::Expire) {
                Word::Silent => {}
                Word::Made(ruling) => at = ruling.at,
                Word::NotMade => continue,
            }
            if before.due().is_some_and(|due| due <= now) {
                let expired = Claim {
                    status: ClaimStatus::Expired,
                    backordered: Decimal::ZERO,
                    ..(*before).clone()
                };
                self.change(id, Cause::Expire, *before, expired, at, shelf, journal);
            }
        }
        self.promote(at, shelf, journal)
    }

    /// When to call [`Ledger::expire`] next: not later than the next hold expires.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.agenda.next_due()
    }

    /// Gives stock that is free to backordered claims: by promise, then by age. A forced claim gets
    /// as much as there is; a strict one is granted as at first, whole and out of what is available
    /// to its channel, or waits on.
    pub(super) fn promote(
        &mut self,
        recorded_at: Timestamp,
        shelf: &mut dyn Shelf,
        journal: &mut Journal,
    ) -> Result<(), Refusal> {
        // What the record says was granted, whatever is free.
        let is_free = |l: &Self| l.recorded.is_some() || l.free().is_positive();
        if !self.backordered.is_positive() || !is_free(self) {
            return Ok(());
        }
        for item in self.agenda.by_promise(shelf)? {
            if !self.backordered.is_positive() || !is_free(self) {
                break;
            }
            let Some(Known::Claim(before)) = load(item.id, shelf)? else {
                continue;
            };
            if before.status.is_terminal() || !before.backordered.is_positive() {
                continue;
            }
            let basis = self.basis(&before.channel);
            let available = match before.mode {
                Mode::Forced => self.free(),
                Mode::Strict => basis.ats,
            };
            let granted = match self.word(item.id, before.version, Cause::Promote) {
                Word::Silent => before.backordered.min(available),
                Word::Made(ruling) => before.backordered.min(ruling.granted),
                Word::NotMade => continue,
            };
            let whole = granted == before.backordered;
            if !granted.is_positive() || (before.mode == Mode::Strict && !whole) {
                continue;
            }
            let mut claim = (*before).clone();
            claim.held += granted;
            claim.backordered -= granted;
            claim.settle();
            let none = Decimal::ZERO;
            let decision = self.decision(item.id, Cause::Promote, claim, granted, none, basis);
            self.book(decision, Some(&*before), recorded_at, shelf, journal);
        }
        Ok(())
    }

    /// The claims that the stock does not cover, when it is shared out by promise, then by age:
    /// most urgent first, at most `limit`.
    ///
    /// # Errors
    /// When state is damaged.
    pub fn at_risk(&self, limit: usize, shelf: &dyn Shelf) -> Result<Vec<AtRisk>, Refusal> {
        let mut left = self.totals.sellable.or_zero();
        let mut found = Vec::new();
        for item in self.agenda.by_promise(shelf)? {
            let Some(Known::Claim(claim)) = load(item.id, shelf)? else {
                continue;
            };
            let covered = claim.active().min(left);
            left -= covered;
            let short = claim.active() - covered;
            if short.is_positive() {
                found.push(AtRisk {
                    id: item.id,
                    claim: *claim,
                    short,
                });
                if found.len() == limit {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Takes over a decision that was made and recorded before, instead of making it again.
    /// Decisions are replayed in their sequence.
    ///
    /// # Errors
    /// When state is damaged.
    pub fn replay(&mut self, decision: &Decision, shelf: &mut dyn Shelf) -> Result<(), Refusal> {
        let before = match load(decision.id, shelf)? {
            Some(Known::Claim(claim)) => Some(claim),
            _ => None,
        };
        self.hear(decision.claim.changed_at);
        self.keep(decision, before.as_deref(), shelf);
        Ok(())
    }

    pub(super) fn basis(&self, channel: &str) -> Basis {
        Basis {
            ats: self.ats(channel),
            sellable: self.totals.sellable,
            reserved: self.reserved(),
        }
    }

    pub(super) fn decision(
        &self,
        id: u128,
        cause: Cause,
        claim: Claim,
        granted: Decimal,
        oversold: Decimal,
        basis: Basis,
    ) -> Decision {
        let sequence = match self.word(id, claim.version, cause) {
            Word::Made(ruling) => ruling.sequence,
            Word::Silent | Word::NotMade => self.sequence + 1,
        };
        Decision {
            id,
            cause,
            claim,
            sequence,
            granted,
            ats_before: basis.ats,
            sellable_before: basis.sellable,
            reserved_before: basis.reserved,
            oversold,
        }
    }

    /// Books a change that grants nothing.
    #[allow(clippy::too_many_arguments, reason = "the parts of one decision")]
    pub(super) fn change(
        &mut self,
        id: u128,
        cause: Cause,
        before: Claim,
        claim: Claim,
        recorded_at: Timestamp,
        shelf: &mut dyn Shelf,
        journal: &mut Journal,
    ) {
        let (none, basis) = (Decimal::ZERO, self.basis(&claim.channel));
        let decision = self.decision(id, cause, claim, none, none, basis);
        self.book(decision, Some(&before), recorded_at, shelf, journal);
    }

    pub(super) fn book(
        &mut self,
        mut decision: Decision,
        before: Option<&Claim>,
        recorded_at: Timestamp,
        shelf: &mut dyn Shelf,
        journal: &mut Journal,
    ) {
        let claim = &mut decision.claim;
        claim.version += 1;
        claim.changed_at = recorded_at;
        if before.is_none() {
            claim.opened = decision.sequence;
        }
        self.keep(&decision, before, shelf);
        journal.decisions.push(decision);
    }

    /// Brings sums, agenda and the claim's own entry to what a decision says.
    fn keep(&mut self, decision: &Decision, before: Option<&Claim>, shelf: &mut dyn Shelf) {
        let (id, claim) = (decision.id, &decision.claim);
        self.sequence = self.sequence.max(decision.sequence);
        let was_active = before.map_or(Decimal::ZERO, Claim::active);
        let change = claim.active() - was_active;
        if !change.is_zero() {
            match self.active.iter_mut().find(|(c, _)| *c == claim.channel) {
                Some((_, active)) => *active += change,
                None => self.active.push((claim.channel.clone(), change)),
            }
            self.active.retain(|(_, active)| !active.is_zero());
        }
        self.backordered += claim.backordered - before.map_or(Decimal::ZERO, |c| c.backordered);
        let was_open = before.is_some_and(|c| !c.status.is_terminal());
        match (was_open, !claim.status.is_terminal()) {
            (false, true) => self.agenda.open(claim.item(id)),
            (true, false) => self.agenda.close(id),
            (true, true) if before.and_then(Claim::due) != claim.due() => {
                self.agenda.set_due(claim.item(id));
            }
            _ => {}
        }
        put(id, &Known::Claim(Box::new(claim.clone())), shelf);
        if claim.status.is_terminal() {
            self.identities.push(Entry::claim(id, claim.changed_at));
        }
    }

    pub(super) fn remember_early(&mut self, id: u128, early: Early, shelf: &mut dyn Shelf) {
        put(id, &Known::Early(early), shelf);
        self.identities.push(Entry::claim(id, early.changed_at));
    }

    /// Forgets a claim that is over and was not heard of since `recorded_s`.
    pub(super) fn forget_claim(
        &mut self,
        id: u128,
        recorded_s: i64,
        shelf: &mut dyn Shelf,
        journal: &mut Journal,
    ) -> Result<(), Refusal> {
        let (over, changed_at, confirm) = match load(id, shelf)? {
            None => return Ok(()),
            Some(Known::Early(early)) => (true, early.changed_at, early.confirm),
            Some(Known::Claim(c)) => (c.status.is_terminal(), c.changed_at, None),
        };
        if !over || seconds(changed_at) > recorded_s {
            return Ok(());
        }
        if let Some(place) = confirm {
            // Its hold never came: there was nothing to confirm.
            journal.resolved.push(Resolved {
                waited: Waited::Confirm(place),
                outcome: Applied::Superseded,
                claim: None,
            });
        }
        shelf.delete(Slot::Claim(id));
        Ok(())
    }
}
