//! Claims on a position: reservations, their decisions and their ends.
//!
//! Grants depend on what came first, so each is decided once and remembered; asking again returns
//! what was decided. Releasing or consuming a claim that was never seen leaves a tombstone, so that
//! the late hold finds that it is over.

use super::ledger::{Entry, EntryKind, Ledger, Shelf};
use super::{Effect, Oversell};
use crate::domain::{Decimal, Position, Timestamp};
use compact_str::CompactString as Text;

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
    /// Only asked to be confirmed so far.
    #[default]
    Unseen,
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

/// A claim on a position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claim {
    /// Reservation id.
    pub id: u128,
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
    /// Asked for.
    pub requested: Decimal,
    /// Granted out of stock.
    pub held: Decimal,
    /// Taken out of stock.
    pub consumed: Decimal,
    /// Accepted without stock.
    pub backordered: Decimal,
    /// When a hold ends by itself; gone once confirmed.
    pub expires_at: Option<Timestamp>,
    /// Confirmed, also while partly consumed or backordered.
    pub confirmed: bool,
    /// Counts the events of this claim.
    pub version: i64,
    /// Number of the decision that granted or refused it.
    pub sequence: i64,
    /// What was available to its channel before the decision.
    pub ats_before: Decimal,
    /// Where the confirmation stands that came before the hold: topic, partition and offset.
    pub early_confirm: Option<(Text, i32, i64)>,
}

impl Claim {
    /// Units of stock that it binds.
    pub fn active(&self) -> Decimal {
        match self.status {
            s if s.is_terminal() => Decimal::ZERO,
            ClaimStatus::Unseen => Decimal::ZERO,
            _ => (self.held - self.consumed).or_zero(),
        }
    }
}

/// A request for a claim.
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
    /// Whether it may be refused.
    pub mode: Mode,
    /// Units.
    pub quantity: Decimal,
    /// When a hold ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was recorded.
    pub recorded_at: Timestamp,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It took effect.
    Applied(Box<Decision>),
    /// It had its effect before.
    Duplicate,
    /// The claim is over already.
    Superseded,
    /// It waits for the hold.
    Buffered,
    /// The claim's state does not allow it.
    Illegal(ClaimStatus),
}

/// A claim after a change, and what the decision was based on.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The claim as it is now.
    pub claim: Claim,
    /// Number of the decision in the position's ledger.
    pub sequence: i64,
    /// Available to the channel before.
    pub ats_before: Decimal,
    /// Sellable before.
    pub sellable_before: Decimal,
    /// Claimed before.
    pub reserved_before: Decimal,
    /// The confirmation that had waited for this hold.
    pub confirms: Option<(Text, i32, i64)>,
    /// Units sold beyond stock by this decision.
    pub oversold: Decimal,
}

impl Ledger {
    /// Asks for a claim.
    pub fn hold(&mut self, command: &Command, shelf: &mut dyn Shelf) -> Verdict {
        let before = shelf.claim(command.id);
        let (early_confirm, consumed) = match &before {
            None => (None, Decimal::ZERO),
            Some(c) if c.status == ClaimStatus::Unseen => (c.early_confirm.clone(), Decimal::ZERO),
            // Tombstones carry no request: consumed or released before the hold was seen.
            Some(c) if c.requested.is_zero() && c.status == ClaimStatus::Consumed => {
                (None, c.consumed)
            }
            Some(c) if c.requested.is_zero() && c.status == ClaimStatus::Released => {
                return Verdict::Superseded;
            }
            Some(_) => return Verdict::Duplicate,
        };
        let wanted = (command.quantity - consumed).or_zero();
        let basis = self.basis(&command.channel);
        let mut claim = Claim {
            id: command.id,
            order: command.order.clone(),
            line: command.line.clone(),
            channel: command.channel.clone(),
            mode: command.mode,
            requested: command.quantity,
            consumed,
            expires_at: command.expires_at,
            version: before.as_ref().map_or(0, |c| c.version),
            ats_before: basis.ats,
            ..Claim::default()
        };
        let mut oversold = Decimal::ZERO;
        if wanted.is_zero() {
            (claim.status, claim.held) = (ClaimStatus::Consumed, consumed);
        } else if command.mode == Mode::Forced {
            let free = (basis.sellable - basis.reserved).or_zero();
            claim.held = consumed + wanted.min(free);
            claim.backordered = wanted - wanted.min(free);
            claim.status = if wanted.min(free).is_zero() {
                ClaimStatus::Backordered
            } else {
                ClaimStatus::Held
            };
            oversold = claim.backordered;
        } else if basis.ats >= wanted {
            (claim.status, claim.held) = (ClaimStatus::Held, consumed + wanted);
        } else if self.may_backorder(wanted) {
            (claim.status, claim.held, claim.backordered) =
                (ClaimStatus::Backordered, consumed, wanted);
        } else {
            claim.status = ClaimStatus::Rejected;
        }
        let refused = claim.status == ClaimStatus::Rejected;
        if early_confirm.is_some() && !refused {
            self.confirmed(&mut claim);
        }
        self.decided(
            claim,
            before,
            command.recorded_at,
            basis,
            oversold,
            early_confirm,
            shelf,
        )
    }

    /// Makes a hold firm: it no longer expires.
    pub fn confirm(
        &mut self,
        id: u128,
        recorded_at: Timestamp,
        origin: (Text, i32, i64),
        shelf: &mut dyn Shelf,
    ) -> Verdict {
        let Some(before) = shelf.claim(id) else {
            shelf.put_claim(&Claim {
                id,
                early_confirm: Some(origin),
                ..Claim::default()
            });
            return Verdict::Buffered;
        };
        match before.status {
            ClaimStatus::Unseen => Verdict::Duplicate,
            status
                if status.is_terminal() && !before.confirmed && status != ClaimStatus::Consumed =>
            {
                Verdict::Illegal(status)
            }
            _ if before.confirmed || before.status == ClaimStatus::Consumed => Verdict::Duplicate,
            _ => {
                let mut claim = before.clone();
                self.confirmed(&mut claim);
                let basis = self.basis(&claim.channel);
                self.decided(
                    claim,
                    Some(before),
                    recorded_at,
                    basis,
                    Decimal::ZERO,
                    None,
                    shelf,
                )
            }
        }
    }

    /// Ends a claim, whatever is left of it.
    pub fn release(&mut self, id: u128, recorded_at: Timestamp, shelf: &mut dyn Shelf) -> Verdict {
        let before = shelf.claim(id);
        match &before {
            Some(claim) if claim.status.is_terminal() => Verdict::Duplicate,
            Some(claim) => {
                let claim = Claim {
                    status: ClaimStatus::Released,
                    backordered: Decimal::ZERO,
                    ..claim.clone()
                };
                let basis = self.basis(&claim.channel);
                self.decided(
                    claim,
                    before,
                    recorded_at,
                    basis,
                    Decimal::ZERO,
                    None,
                    shelf,
                )
            }
            None => {
                let claim = Claim {
                    id,
                    status: ClaimStatus::Released,
                    ..Claim::default()
                };
                let basis = self.basis("");
                self.decided(claim, None, recorded_at, basis, Decimal::ZERO, None, shelf)
            }
        }
    }

    /// Goods left for the claim. Physical wins: a claim that is over stays over.
    pub fn consume(
        &mut self,
        id: u128,
        quantity: Decimal,
        recorded_at: Timestamp,
        shelf: &mut dyn Shelf,
    ) -> Verdict {
        let before = shelf.claim(id);
        let claim = match &before {
            Some(claim) if claim.requested.is_zero() && claim.status == ClaimStatus::Consumed => {
                // A second movement before the hold: the tombstone remembers both.
                let claim = Claim {
                    consumed: claim.consumed + quantity,
                    ..claim.clone()
                };
                shelf.put_claim(&claim);
                return Verdict::Superseded;
            }
            Some(claim) if claim.status.is_terminal() => return Verdict::Superseded,
            None => Claim {
                id,
                status: ClaimStatus::Consumed,
                consumed: quantity,
                ..Claim::default()
            },
            Some(claim) if claim.status == ClaimStatus::Unseen => Claim {
                status: ClaimStatus::Consumed,
                consumed: quantity,
                ..claim.clone()
            },
            Some(claim) => {
                let mut claim = claim.clone();
                let from_held = quantity.min(claim.active());
                claim.consumed += from_held;
                // Goods beyond what was held come off what was promised without stock.
                let beyond = (quantity - from_held).min(claim.backordered);
                claim.backordered -= beyond;
                claim.held += beyond;
                claim.consumed += beyond;
                let over = claim.consumed >= claim.held && claim.backordered.is_zero();
                claim.status = if over {
                    ClaimStatus::Consumed
                } else {
                    ClaimStatus::PartiallyConsumed
                };
                claim
            }
        };
        let basis = self.basis(&claim.channel);
        self.decided(
            claim,
            before,
            recorded_at,
            basis,
            Decimal::ZERO,
            None,
            shelf,
        )
    }

    /// Ends the holds whose time is over at `now`.
    pub fn expire(&mut self, now: Timestamp, shelf: &mut dyn Shelf) -> Vec<Decision> {
        let mut decisions = Vec::new();
        while let Some((due, id)) = self
            .expiring
            .first()
            .copied()
            .filter(|(due, _)| *due <= now)
        {
            self.expiring.remove(&(due, id));
            let Some(before) = shelf.claim(id) else {
                continue;
            };
            let claim = Claim {
                status: ClaimStatus::Expired,
                backordered: Decimal::ZERO,
                ..before.clone()
            };
            let basis = self.basis(&claim.channel);
            if let Verdict::Applied(decision) =
                self.decided(claim, Some(before), now, basis, Decimal::ZERO, None, shelf)
            {
                decisions.push(*decision);
            }
        }
        decisions
    }

    /// When the next hold expires.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.expiring.first().map(|(due, _)| *due)
    }

    /// Gives stock that has become free to backordered claims: by promise, then by age. A strict
    /// claim is promoted whole or not at all.
    pub fn promote(&mut self, recorded_at: Timestamp, shelf: &mut dyn Shelf) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for (_, _, id) in self.backorders.clone() {
            let Some(before) = shelf.claim(id) else {
                continue;
            };
            let basis = self.basis(&before.channel);
            let free = match before.mode {
                Mode::Forced => (basis.sellable - basis.reserved).or_zero(),
                Mode::Strict => basis.ats,
            };
            let taken = before.backordered.min(free);
            if taken.is_zero() || (before.mode == Mode::Strict && taken < before.backordered) {
                continue;
            }
            let mut claim = before.clone();
            claim.held += taken;
            claim.backordered -= taken;
            claim.ats_before = basis.ats;
            if claim.status == ClaimStatus::Backordered {
                claim.status = if claim.confirmed {
                    ClaimStatus::Confirmed
                } else {
                    ClaimStatus::Held
                };
            }
            if let Verdict::Applied(decision) = self.decided(
                claim,
                Some(before),
                recorded_at,
                basis,
                Decimal::ZERO,
                None,
                shelf,
            ) {
                decisions.push(*decision);
            }
        }
        decisions
    }

    /// Whether any claim waits for stock.
    pub fn has_backorders(&self) -> bool {
        !self.backorders.is_empty()
    }

    fn confirmed(&self, claim: &mut Claim) {
        claim.confirmed = true;
        claim.expires_at = None;
        if claim.status == ClaimStatus::Held {
            claim.status = ClaimStatus::Confirmed;
        }
    }

    fn may_backorder(&self, wanted: Decimal) -> bool {
        match self.policy.oversell {
            Oversell::Block => false,
            Oversell::Allow => true,
            Oversell::BackorderToLimit => self
                .policy
                .backorder_limit
                .is_none_or(|limit| self.backordered + wanted <= limit),
        }
    }

    fn basis(&self, channel: &str) -> Basis {
        Basis {
            ats: self.ats(channel),
            sellable: self.totals.sellable,
            reserved: self.reserved(),
        }
    }

    /// Books a claim's change in the position's sums and numbers the decision.
    #[allow(
        clippy::too_many_arguments,
        reason = "one place books every change of a claim"
    )]
    fn decided(
        &mut self,
        mut claim: Claim,
        before: Option<Claim>,
        recorded_at: Timestamp,
        basis: Basis,
        oversold: Decimal,
        confirms: Option<(Text, i32, i64)>,
        shelf: &mut dyn Shelf,
    ) -> Verdict {
        self.sequence += 1;
        claim.version += 1;
        let was = before.unwrap_or_default();
        if claim.sequence == 0 {
            claim.sequence = self.sequence;
        }
        let channel = if claim.channel.is_empty() {
            &was.channel
        } else {
            &claim.channel
        };
        let change = claim.active() - was.active();
        if !change.is_zero() {
            let active = self.active.entry(channel.clone()).or_default();
            *active += change;
            if active.is_zero() {
                self.active.remove(&channel.clone());
            }
        }
        self.backordered += claim.backordered - was.backordered;
        let place = |c: &Claim| {
            (
                c.expires_at.unwrap_or(Timestamp(i64::MAX)),
                c.sequence,
                c.id,
            )
        };
        self.backorders.remove(&place(&was));
        if claim.backordered.is_positive() {
            self.backorders.insert(place(&claim));
        }
        if let Some(due) = was.expires_at {
            self.expiring.remove(&(due, was.id));
        }
        let expires = matches!(claim.status, ClaimStatus::Held | ClaimStatus::Backordered);
        if let Some(due) = claim.expires_at.filter(|_| expires) {
            self.expiring.insert((due, claim.id));
        }
        shelf.put_claim(&claim);
        if claim.status.is_terminal() && !was.status.is_terminal() {
            let entry = Entry {
                id: claim.id,
                position: Position::default(),
                recorded_at,
                effect: Effect::default(),
                kind: EntryKind::Claim,
            };
            self.remember(entry, shelf);
        }
        Verdict::Applied(Box::new(Decision {
            claim,
            sequence: self.sequence,
            ats_before: basis.ats,
            sellable_before: basis.sellable,
            reserved_before: basis.reserved,
            confirms,
            oversold,
        }))
    }
}

struct Basis {
    ats: Decimal,
    sellable: Decimal,
    reserved: Decimal,
}
