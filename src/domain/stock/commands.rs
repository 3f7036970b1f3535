//! Carrying out commands on claims, and what goods that leave do to them.

use super::claims::{
    Action, Cause, Claim, ClaimStatus, Command, Early, Known, Mode, Verdict, load,
};
use super::identities::seconds;
use super::ledger::{Journal, Ledger, Resolved, Waited};
use super::position::{Applied, Refusal};
use super::recorded::Word;
use super::shelf::Shelf;
use crate::domain::{Decimal, Timestamp};

impl Ledger {
    /// Carries out a command.
    ///
    /// # Errors
    /// When nothing is known of the reservation and the command is older than what is remembered:
    /// the claim may have been over long ago. Nothing has changed then.
    pub fn command(
        &mut self,
        action: Action,
        command: &Command,
        shelf: &mut dyn Shelf,
        journal: &mut Journal,
    ) -> Result<Verdict, Refusal> {
        let known = load(command.id, shelf)?;
        let forgotten = |folded_s| seconds(command.recorded_at) <= folded_s;
        if known.is_none() && self.claims_folded_s.is_some_and(forgotten) {
            return Err(Refusal::LateBeyondHorizon);
        }
        self.hear(command.recorded_at);
        let verdict = match action {
            Action::Hold => self.hold(command, known, shelf, journal),
            Action::Confirm => self.confirm(command, known, shelf, journal),
            Action::Release | Action::Reassign => {
                self.release(action, command, known, shelf, journal)
            }
        };
        self.promote(command.recorded_at, shelf, journal)?;
        Ok(verdict)
    }

    /// What is known of a claim.
    ///
    /// # Errors
    /// When state is damaged.
    pub fn claim(&self, id: u128, shelf: &dyn Shelf) -> Result<Option<Claim>, Refusal> {
        Ok(match load(id, shelf)? {
            Some(Known::Claim(claim)) => Some(*claim),
            _ => None,
        })
    }

    fn hold(
        &mut self,
        command: &Command,
        known: Option<Known>,
        shelf: &mut dyn Shelf,
        journal: &mut Journal,
    ) -> Verdict {
        let early = match known {
            None => Early::default(),
            Some(Known::Early(early)) => early,
            Some(Known::Claim(claim)) if claim.requested.is_zero() => return Verdict::Superseded,
            Some(Known::Claim(_)) => return Verdict::Duplicate,
        };
        let cause = Cause::Command(Action::Hold);
        let ruling = match self.word(command.id, 0, cause) {
            Word::Silent => None,
            Word::Made(ruling) => Some(ruling),
            Word::NotMade => return Verdict::Superseded,
        };
        let gone = early.consumed.min(command.quantity);
        let wanted = command.quantity - gone;
        let basis = self.basis(&command.channel);
        let mut claim = Claim {
            order: command.order.clone(),
            line: command.line.clone(),
            channel: command.channel.clone(),
            mode: command.mode,
            requested: command.quantity,
            held: gone,
            consumed: gone,
            expires_at: command.expires_at,
            promise_at: command.promise_at.or(command.expires_at),
            ..Claim::default()
        };
        let granted = match (ruling, command.mode) {
            (Some(ruling), _) => ruling.granted,
            (None, Mode::Forced) => wanted.min(self.free().or_zero()),
            (None, Mode::Strict) if basis.ats >= wanted => wanted,
            (None, Mode::Strict) => Decimal::ZERO,
        };
        claim.held += granted;
        let may_wait = match ruling {
            Some(ruling) => ruling.status != ClaimStatus::Rejected,
            None => {
                command.mode == Mode::Forced
                    || self.policy().may_backorder(self.backordered, wanted)
            }
        };
        let mut oversold = Decimal::ZERO;
        if granted == wanted {
            claim.settle();
        } else if may_wait {
            claim.backordered = wanted - granted;
            claim.settle();
            if command.mode == Mode::Forced {
                oversold = claim.backordered;
            }
        } else {
            claim.status = ClaimStatus::Rejected;
        }
        if let Some(place) = early.confirm {
            let outcome = if claim.status.is_terminal() {
                // Its outcome is settled; should it come again, that is known.
                claim.confirmed = true;
                Applied::Superseded
            } else {
                claim.confirm();
                Applied::Applied
            };
            journal.resolved.push(Resolved {
                waited: Waited::Confirm(place),
                outcome,
                claim: None,
            });
        }
        let decision = self.decision(command.id, cause, claim, granted, oversold, basis);
        self.book(decision, None, command.recorded_at, shelf, journal);
        Verdict::Applied
    }

    fn confirm(
        &mut self,
        command: &Command,
        known: Option<Known>,
        shelf: &mut dyn Shelf,
        journal: &mut Journal,
    ) -> Verdict {
        let before = match known {
            Some(Known::Claim(claim)) => *claim,
            Some(Known::Early(early)) if early.confirm.is_some() => return Verdict::Duplicate,
            early => {
                let consumed = match early {
                    Some(Known::Early(early)) => early.consumed,
                    _ => Decimal::ZERO,
                };
                let early = Early {
                    consumed,
                    confirm: Some(command.place),
                    changed_at: command.recorded_at,
                };
                self.remember_early(command.id, early, shelf);
                return Verdict::Buffered;
            }
        };
        match before.status {
            _ if before.confirmed => return Verdict::Duplicate,
            // Time, a refusal or a release was quicker. Whoever asked has been told so by the decision, and
            // may ask for a new claim: one that was given back is never bound again by itself.
            status if status.is_terminal() => return Verdict::Superseded,
            _ => {}
        }
        let cause = Cause::Command(Action::Confirm);
        if self.was_not_made(command.id, before.version, cause) {
            return Verdict::Superseded;
        }
        let mut claim = before.clone();
        claim.confirm();
        self.change(
            command.id,
            cause,
            before,
            claim,
            command.recorded_at,
            shelf,
            journal,
        );
        Verdict::Applied
    }

    fn release(
        &mut self,
        action: Action,
        command: &Command,
        known: Option<Known>,
        shelf: &mut dyn Shelf,
        journal: &mut Journal,
    ) -> Verdict {
        let cause = Cause::Command(action);
        let early = match known {
            Some(Known::Claim(claim)) => {
                return match claim.status {
                    ClaimStatus::Released => Verdict::Duplicate,
                    status if status.is_terminal() => Verdict::Superseded,
                    _ if self.was_not_made(command.id, claim.version, cause) => Verdict::Superseded,
                    _ => {
                        let released = Claim {
                            status: ClaimStatus::Released,
                            backordered: Decimal::ZERO,
                            ..(*claim).clone()
                        };
                        let at = command.recorded_at;
                        self.change(command.id, cause, *claim, released, at, shelf, journal);
                        Verdict::Applied
                    }
                };
            }
            Some(Known::Early(early)) => early,
            None => Early::default(),
        };
        if self.was_not_made(command.id, 0, cause) {
            return Verdict::Superseded;
        }
        if let Some(place) = early.confirm {
            journal.resolved.push(Resolved {
                waited: Waited::Confirm(place),
                outcome: Applied::Superseded,
                claim: None,
            });
        }
        let tombstone = Claim {
            order: command.order.clone(),
            line: command.line.clone(),
            channel: command.channel.clone(),
            mode: command.mode,
            status: ClaimStatus::Released,
            held: early.consumed,
            consumed: early.consumed,
            ..Claim::default()
        };
        let (none, basis) = (Decimal::ZERO, self.basis(&command.channel));
        let decision = self.decision(command.id, cause, tombstone, none, none, basis);
        self.book(decision, None, command.recorded_at, shelf, journal);
        Verdict::Applied
    }

    /// Which of these claims goods leave for, of which only the order is known: the first that is open
    /// here, else one that was, else the first, for its hold may not have been heard of.
    ///
    /// # Errors
    /// When the state is not what was written.
    pub fn claim_among(
        &self,
        candidates: impl Iterator<Item = u128>,
        shelf: &dyn Shelf,
    ) -> Result<Option<u128>, Refusal> {
        let (mut first, mut over) = (None, None);
        for id in candidates {
            match load(id, shelf)? {
                Some(Known::Claim(claim)) if claim.status.is_terminal() => {
                    over = over.or(Some(id));
                }
                Some(_) => return Ok(Some(id)),
                None => first = first.or(Some(id)),
            }
        }
        Ok(over.or(first))
    }

    /// Goods left for a claim. Physical wins: they are gone whatever the claim's state; a claim that
    /// is over stays over.
    pub(super) fn consume(
        &mut self,
        id: u128,
        quantity: Decimal,
        recorded_at: Timestamp,
        shelf: &mut dyn Shelf,
        journal: &mut Journal,
    ) -> Result<Verdict, Refusal> {
        let before = match load(id, shelf)? {
            Some(Known::Claim(claim)) if claim.status.is_terminal() => {
                return Ok(Verdict::Superseded);
            }
            Some(Known::Claim(claim)) => *claim,
            early => {
                let mut early = match early {
                    Some(Known::Early(early)) => early,
                    _ => Early::default(),
                };
                early.consumed += quantity;
                early.changed_at = recorded_at;
                self.remember_early(id, early, shelf);
                return Ok(Verdict::Applied);
            }
        };
        if self.was_not_made(id, before.version, Cause::Consume) {
            return Ok(Verdict::Superseded);
        }
        let mut claim = before.clone();
        let held = quantity.min(claim.active());
        // Beyond what was held, goods come off what was accepted without stock: it is no longer owed.
        let owed = (quantity - held).min(claim.backordered);
        claim.held += owed;
        claim.backordered -= owed;
        claim.consumed += held + owed;
        claim.settle();
        self.change(
            id,
            Cause::Consume,
            before,
            claim,
            recorded_at,
            shelf,
            journal,
        );
        Ok(Verdict::Applied)
    }
}
