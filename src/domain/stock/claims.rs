//! Claims on a position: reservations, the decisions on them, and their ends.
//!
//! Grants depend on what came first, so each is decided once and remembered; asking again changes
//! nothing. A strict hold is granted only out of what is available to its channel; a forced one,
//! sold elsewhere already, is never refused, and what stock does not cover is backordered. Stock
//! that becomes free goes to backorders before anybody else, by promise, then by age.
//!
//! A claim that is released or consumed before its hold was heard of leaves a tombstone: a late hold
//! finds that it is over, or claims only what has not left already.

use super::agenda::Item;
use super::encoding::{Corrupt, Read, Reader, VERSION, Write};
use super::identities::{Entry, seconds};
use super::ledger::{Journal, Ledger, Place, Resolved, Waited};
use super::position::{Applied, Refusal};
use super::shelf::{Shelf, Slot};
use crate::domain::{Decimal, Timestamp};
use compact_str::CompactString as Text;

/// Holds that expire in one call at most; the timer comes again for the rest.
const EXPIRED_MAX: usize = 512;

/// What a command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A claim.
    Hold,
    /// That a hold no longer expires.
    Confirm,
    /// An end of the claim.
    Release,
    /// An end of the claim here, for it moves to another position: the release half of a
    /// reassignment. The hold half is a command at the other position, linked by its cause.
    Reassign,
}

/// Whether a claim may be refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Granted only out of what is available.
    #[default]
    Strict,
    /// Sold already elsewhere: never refused.
    Forced,
}

/// State of a claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ClaimStatus {
    #[default]
    Held,
    Confirmed,
    Rejected,
    Backordered,
    PartiallyConsumed,
    Consumed,
    Released,
    Expired,
}

impl ClaimStatus {
    /// Every state, in the order in which they are kept.
    pub const ALL: &'static [ClaimStatus] = &[
        ClaimStatus::Held,
        ClaimStatus::Confirmed,
        ClaimStatus::Rejected,
        ClaimStatus::Backordered,
        ClaimStatus::PartiallyConsumed,
        ClaimStatus::Consumed,
        ClaimStatus::Released,
        ClaimStatus::Expired,
    ];

    /// Whether the claim is over for good.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            ClaimStatus::Rejected
                | ClaimStatus::Consumed
                | ClaimStatus::Released
                | ClaimStatus::Expired
        )
    }
}

/// A claim on a position. What was held is either consumed, or still bound, or was given back when
/// the claim ended: `held = consumed + active` while it is open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claim {
    /// Order.
    pub order: Text,
    /// Order line.
    pub line: Text,
    /// Channel.
    pub channel: Text,
    /// Whether it could have been refused.
    pub mode: Mode,
    /// State.
    pub status: ClaimStatus,
    /// Asked for; zero for a tombstone.
    pub requested: Decimal,
    /// Granted out of stock, over all decisions.
    pub held: Decimal,
    /// Taken out of stock.
    pub consumed: Decimal,
    /// Accepted without stock and still owed.
    pub backordered: Decimal,
    /// When the hold ends by itself; gone once confirmed.
    pub expires_at: Option<Timestamp>,
    /// What was promised to the customer.
    pub promise_at: Option<Timestamp>,
    /// Whether it was confirmed, also while partly consumed or backordered.
    pub confirmed: bool,
    /// Counts the changes of this claim.
    pub version: i64,
    /// Number of the decision that granted or refused it: its age.
    pub opened: i64,
    /// Record time of the last change.
    pub changed_at: Timestamp,
}

impl Claim {
    /// Units of stock that it binds.
    pub fn active(&self) -> Decimal {
        if self.status.is_terminal() {
            Decimal::ZERO
        } else {
            (self.held - self.consumed).or_zero()
        }
    }

    /// The state that the quantities of an open claim stand for.
    fn settle(&mut self) {
        self.status = if self.consumed.is_positive() {
            if self.consumed >= self.held && self.backordered.is_zero() {
                ClaimStatus::Consumed
            } else {
                ClaimStatus::PartiallyConsumed
            }
        } else if self.held.is_zero() && self.backordered.is_positive() {
            ClaimStatus::Backordered
        } else if self.confirmed {
            ClaimStatus::Confirmed
        } else {
            ClaimStatus::Held
        };
    }

    fn confirm(&mut self) {
        self.confirmed = true;
        self.expires_at = None;
        self.settle();
    }

    /// When it expires: only as long as it is a mere hold.
    fn due(&self) -> Option<Timestamp> {
        self.expires_at.filter(|_| self.status == ClaimStatus::Held)
    }

    fn item(&self, id: u128) -> Item {
        Item {
            id,
            due: self.due(),
            promise: self.promise_at.unwrap_or(Timestamp(i64::MAX)),
            sequence: self.opened,
        }
    }
}

/// A request about a claim.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Command {
    /// Reservation id.
    pub id: u128,
    /// Order.
    pub order: Text,
    /// Order line.
    pub line: Text,
    /// Channel.
    pub channel: Text,
    /// Whether a hold may be refused.
    pub mode: Mode,
    /// Units to hold.
    pub quantity: Decimal,
    /// When a hold ends by itself.
    pub expires_at: Option<Timestamp>,
    /// What was promised to the customer; where nothing was, the expiry stands for it.
    pub promise_at: Option<Timestamp>,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Where its record stands, to be named when it has to wait.
    pub place: Place,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took effect; the journal tells how, unless it only left a tombstone.
    Applied,
    /// It had its effect before. The claim as it is can be read with [`Ledger::claim`].
    Duplicate,
    /// The claim was over already.
    Superseded,
    /// It waits for the hold.
    Buffered,
    /// The claim is in a state in which this cannot be asked.
    Illegal(ClaimStatus),
}

/// What led to a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A command.
    Command(Action),
    /// Goods left.
    Consume,
    /// Its time was over.
    Expire,
    /// Stock became free.
    Promote,
}

/// A claim after a change, and what the decision went by.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Reservation id.
    pub id: u128,
    /// What led to it.
    pub cause: Cause,
    /// The claim as it is now.
    pub claim: Claim,
    /// Number of the decision in the position's ledger.
    pub sequence: i64,
    /// Units of stock granted by this decision. Of a strict claim, never more than `ats_before`.
    pub granted: Decimal,
    /// Available to the channel before.
    pub ats_before: Decimal,
    /// Sellable before.
    pub sellable_before: Decimal,
    /// Claimed before.
    pub reserved_before: Decimal,
    /// Units sold beyond stock by this decision.
    pub oversold: Decimal,
}

/// A claim that the stock no longer covers.
#[derive(Clone, Debug, PartialEq)]
pub struct AtRisk {
    /// Reservation id.
    pub id: u128,
    /// The claim.
    pub claim: Claim,
    /// Units without cover.
    pub short: Decimal,
}

/// What is known of a reservation.
#[derive(Clone, Debug, PartialEq)]
enum Known {
    /// Heard of, but not its hold.
    Early(Early),
    Claim(Box<Claim>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Early {
    /// Left already.
    consumed: Decimal,
    /// The confirmation that waits for the hold.
    confirm: Option<Place>,
    changed_at: Timestamp,
}

/// What a decision goes by.
struct Basis {
    ats: Decimal,
    sellable: Decimal,
    reserved: Decimal,
}

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
        let granted = match command.mode {
            Mode::Forced => wanted.min(self.free().or_zero()),
            Mode::Strict if basis.ats >= wanted => wanted,
            Mode::Strict => Decimal::ZERO,
        };
        claim.held += granted;
        let mut oversold = Decimal::ZERO;
        if granted == wanted {
            claim.settle();
        } else if command.mode == Mode::Forced
            || self.policy().may_backorder(self.backordered, wanted)
        {
            claim.backordered = wanted - granted;
            claim.settle();
            if command.mode == Mode::Forced {
                oversold = claim.backordered;
            }
        } else {
            claim.status = ClaimStatus::Rejected;
        }
        if early.confirm.is_some() && !claim.status.is_terminal() {
            claim.confirm();
        }
        if let Some(place) = early.confirm {
            let outcome = if claim.confirmed {
                Applied::Applied
            } else {
                Applied::Superseded
            };
            journal.resolved.push(Resolved {
                waited: Waited::Confirm(place),
                outcome,
                claim: None,
            });
        }
        let cause = Cause::Command(Action::Hold);
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
            ClaimStatus::Consumed | ClaimStatus::Released => return Verdict::Superseded,
            ClaimStatus::Expired | ClaimStatus::Rejected => {
                return Verdict::Illegal(before.status);
            }
            _ => {}
        }
        let mut claim = before.clone();
        claim.confirm();
        let cause = Cause::Command(Action::Confirm);
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
        for id in self.agenda.take_due(now, EXPIRED_MAX, shelf)? {
            let Some(Known::Claim(before)) = load(id, shelf)? else {
                continue;
            };
            if before.due().is_some_and(|due| due <= now) {
                let expired = Claim {
                    status: ClaimStatus::Expired,
                    backordered: Decimal::ZERO,
                    ..(*before).clone()
                };
                self.change(id, Cause::Expire, *before, expired, now, shelf, journal);
            }
        }
        self.promote(now, shelf, journal)
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
        if !self.backordered.is_positive() || !self.free().is_positive() {
            return Ok(());
        }
        for item in self.agenda.by_promise(shelf)? {
            if !self.backordered.is_positive() || !self.free().is_positive() {
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
            let granted = before.backordered.min(available);
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

    fn basis(&self, channel: &str) -> Basis {
        Basis {
            ats: self.ats(channel),
            sellable: self.totals.sellable,
            reserved: self.reserved(),
        }
    }

    fn decision(
        &self,
        id: u128,
        cause: Cause,
        claim: Claim,
        granted: Decimal,
        oversold: Decimal,
        basis: Basis,
    ) -> Decision {
        Decision {
            id,
            cause,
            claim,
            sequence: self.sequence + 1,
            granted,
            ats_before: basis.ats,
            sellable_before: basis.sellable,
            reserved_before: basis.reserved,
            oversold,
        }
    }

    /// Books a change that grants nothing.
    #[allow(clippy::too_many_arguments, reason = "the parts of one decision")]
    fn change(
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

    fn book(
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
        self.sequence = decision.sequence;
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

    fn remember_early(&mut self, id: u128, early: Early, shelf: &mut dyn Shelf) {
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

/// Whether a claim is open, from its own entry.
pub(super) fn is_open(shelf: &dyn Shelf, id: u128) -> Read<bool> {
    Ok(match load(id, shelf)? {
        Some(Known::Claim(claim)) => !claim.status.is_terminal(),
        _ => false,
    })
}

fn put(id: u128, known: &Known, shelf: &mut dyn Shelf) {
    let mut out = Vec::with_capacity(128);
    out.byte(VERSION);
    match known {
        Known::Early(early) => {
            out.byte(0);
            out.quantity(early.consumed);
            out.optional(early.confirm, |out, place| place.write(out));
            out.time(early.changed_at);
        }
        Known::Claim(claim) => {
            out.byte(1);
            out.text(&claim.order);
            out.text(&claim.line);
            out.text(&claim.channel);
            out.byte(claim.mode as u8);
            out.byte(claim.status as u8);
            for quantity in [
                claim.requested,
                claim.held,
                claim.consumed,
                claim.backordered,
            ] {
                out.quantity(quantity);
            }
            out.optional(claim.expires_at, |out, at| out.time(at));
            out.optional(claim.promise_at, |out, at| out.time(at));
            out.byte(u8::from(claim.confirmed));
            out.signed(claim.version);
            out.signed(claim.opened);
            out.time(claim.changed_at);
        }
    }
    shelf.put(Slot::Claim(id), &out);
}

fn load(id: u128, shelf: &dyn Shelf) -> Read<Option<Known>> {
    let Some(bytes) = shelf.get(Slot::Claim(id)) else {
        return Ok(None);
    };
    let mut input = Reader::new(bytes)?;
    let input = &mut input;
    let known = match input.byte()? {
        0 => Known::Early(Early {
            consumed: input.quantity()?,
            confirm: input.optional(Place::read)?,
            changed_at: input.time()?,
        }),
        1 => Known::Claim(Box::new(Claim {
            order: input.text()?,
            line: input.text()?,
            channel: input.text()?,
            mode: input.one_of(&[Mode::Strict, Mode::Forced])?,
            status: input.one_of(ClaimStatus::ALL)?,
            requested: input.quantity()?,
            held: input.quantity()?,
            consumed: input.quantity()?,
            backordered: input.quantity()?,
            expires_at: input.optional(Reader::time)?,
            promise_at: input.optional(Reader::time)?,
            confirmed: input.one_of(&[false, true])?,
            version: input.signed()?,
            opened: input.signed()?,
            changed_at: input.time()?,
        })),
        _ => return Err(Corrupt),
    };
    input.end()?;
    Ok(Some(known))
}
