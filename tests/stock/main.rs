//! The rules of stock, through their public face: facts, claims, availability, and their bounds.

mod availability;
mod bounds;
mod claims;
mod facts;
mod network;
mod processor;
mod random_claims;
mod vectors;

use crossdock::domain::stock::*;
use crossdock::domain::{Decimal, Position, Timestamp};

/// Noon of the day on which all tests take place, in seconds.
pub(crate) const NOON_S: i64 = 1_700_000_000;

/// A position with its shelf, kept and read back whenever the test says so.
#[derive(Clone, Default)]
pub(crate) struct Store {
    pub(crate) ledger: Ledger,
    pub(crate) shelf: MemoryShelf,
    pub(crate) journal: Journal,
    pub(crate) header: Vec<u8>,
}

impl Store {
    /// Writes the position and reads it back, as a commit and a restart would.
    pub(crate) fn commit(&mut self) {
        self.ledger
            .store(&mut self.shelf, &mut self.journal, &mut self.header)
            .expect("stored");
        let read = Ledger::from_state(&self.header).expect("read back");
        assert_eq!(read, self.ledger, "what is read is what was written");
        assert_eq!(
            Ledger::timer_of(&self.header).expect("a header"),
            read.next_expiry()
        );
        self.ledger = read;
    }

    pub(crate) fn movement(&mut self, movement: &Movement) -> Result<Moved, Refusal> {
        self.ledger
            .movement(movement, &mut self.shelf, &mut self.journal)
    }

    pub(crate) fn snapshot(&mut self, snapshot: &Snapshot) -> Result<Rebased, Refusal> {
        self.ledger
            .snapshot(snapshot, &mut self.shelf, &mut self.journal)
    }

    pub(crate) fn command(&mut self, action: Action, command: &Command) -> Verdict {
        self.ledger
            .command(action, command, &mut self.shelf, &mut self.journal)
            .expect("not late")
    }

    pub(crate) fn policy(&mut self, policy: Policy) -> Applied {
        self.ledger
            .set_policy(policy, at(0), &mut self.shelf, &mut self.journal)
            .expect("set")
    }

    pub(crate) fn expire(&mut self, now: Timestamp) {
        self.ledger
            .expire(now, &mut self.shelf, &mut self.journal)
            .expect("expired");
    }

    /// Stock appears without further ado.
    pub(crate) fn receive(&mut self, sequence: i64, quantity: i32) {
        let moved = self.movement(&received(sequence, quantity)).expect("moved");
        assert_eq!(moved.physical, Applied::Applied);
    }

    pub(crate) fn claim(&self, id: u128) -> Claim {
        let claim = self.ledger.claim(id, &self.shelf).expect("readable");
        claim.expect("a claim")
    }

    pub(crate) fn sellable(&self) -> Decimal {
        self.ledger.totals().sellable
    }
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp((NOON_S + seconds) * 1_000_000)
}

pub(crate) fn position(epoch: i32, sequence: i64) -> Position {
    Position { epoch, sequence }
}

pub(crate) fn units(quantity: i32) -> Decimal {
    Decimal::from(quantity)
}

/// A movement of `quantity` in (or out, when negative) at `sequence` of epoch 0.
pub(crate) fn received(sequence: i64, quantity: i32) -> Movement {
    Movement {
        id: sequence as u128,
        position: position(0, sequence),
        occurred_at: at(sequence),
        recorded_at: at(sequence),
        effect: Effect {
            sellable: units(quantity),
            ..Effect::default()
        },
        ..Movement::default()
    }
}

/// Goods that leave for a claim.
pub(crate) fn shipped(sequence: i64, quantity: i32, claim: u128) -> Movement {
    Movement {
        consumes: Some((claim, units(quantity))),
        ..received(sequence, -quantity)
    }
}

pub(crate) fn counted(sequence: i64, quantity: i32) -> Snapshot {
    Snapshot {
        id: (1 << 64) + sequence as u128,
        as_of: position(0, sequence),
        occurred_at: at(sequence),
        recorded_at: at(sequence),
        sellable: units(quantity),
        ..Snapshot::default()
    }
}

/// A strict hold for the channel `web`.
pub(crate) fn hold(id: u128, quantity: i32) -> Command {
    Command {
        id,
        order: format!("o{id}").into(),
        line: "1".into(),
        channel: "web".into(),
        quantity: units(quantity),
        recorded_at: at(0),
        ..Command::default()
    }
}

pub(crate) fn forced(id: u128, quantity: i32) -> Command {
    Command {
        mode: Mode::Forced,
        ..hold(id, quantity)
    }
}
