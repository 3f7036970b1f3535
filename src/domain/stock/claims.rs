//! Claims on a position: reservations, what is asked of them and what was decided.
//!
//! Grants depend on what came first, so each is decided once and remembered; asking again changes
//! nothing. A strict hold is granted only out of what is available to its channel; a forced one,
//! sold elsewhere already, is never refused, and what stock does not cover is backordered. Stock
//! that becomes free goes to backorders before anybody else, by promise, then by age.
//!
//! A claim that is released or consumed before its hold was heard of leaves a tombstone: a late hold
//! finds that it is over, or claims only what has not left already. Commands are carried out in
//! `commands`; sums, expiry, backorders and replay are in `booking`.

use super::agenda::Item;
use super::encoding::{Corrupt, Read, Reader, VERSION, Write};
use super::ledger::Place;
use super::shelf::{Shelf, Slot};
use crate::domain::{Decimal, Timestamp};
use compact_str::CompactString as Text;

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
    pub(super) fn settle(&mut self) {
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

    pub(super) fn confirm(&mut self) {
        self.confirmed = true;
        self.expires_at = None;
        self.settle();
    }

    /// When it expires: only as long as it is a mere hold.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.expires_at.filter(|_| self.status == ClaimStatus::Held)
    }

    pub(super) fn item(&self, id: u128) -> Item {
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
    /// It had its effect before. The claim as it is can be read with `Ledger::claim`.
    Duplicate,
    /// The claim was over already: its last decision, which was told, is the answer.
    Superseded,
    /// It waits for the hold.
    Buffered,
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
pub(super) enum Known {
    /// Heard of, but not its hold.
    Early(Early),
    Claim(Box<Claim>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Early {
    /// Left already.
    pub consumed: Decimal,
    /// The confirmation that waits for the hold.
    pub confirm: Option<Place>,
    pub changed_at: Timestamp,
}

/// Whether a claim is open, from its own entry.
pub(super) fn is_open(shelf: &dyn Shelf, id: u128) -> Read<bool> {
    Ok(match load(id, shelf)? {
        Some(Known::Claim(claim)) => !claim.status.is_terminal(),
        _ => false,
    })
}

pub(super) fn put(id: u128, known: &Known, shelf: &mut dyn Shelf) {
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

pub(super) fn load(id: u128, shelf: &dyn Shelf) -> Read<Option<Known>> {
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
