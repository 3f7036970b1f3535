//! Merging of movements and snapshots into physical quantities.
//!
//! What is on hand is a function of the set of facts heard, for each bucket:
//! the quantity of the newest snapshot that states the bucket (zero without one), plus every
//! movement after it whose epoch is trusted. Trusted is the epoch of the newest snapshot; without
//! any snapshot, the earliest epoch heard of, which opens at zero, for a till may never send one.
//! Movements of later epochs wait for their epoch's snapshot.

use super::claims::Verdict;
use super::encoding::Corrupt;
use super::identities::{Entry, IDENTITIES_MAX, Kind, Run, Waiting, seconds};
use super::ledger::{Journal, Ledger, Place, Resolved, Waited};
use super::movement::Effect;
use super::shelf::Shelf;
use crate::domain::{Decimal, Position, Timestamp};

/// Movements that may wait for a snapshot at one position.
pub(super) const WAITING_MAX: u32 = IDENTITIES_MAX as u32 / 4;

/// A movement of goods at this position.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Movement {
    /// The fact's id.
    pub id: u128,
    /// Its place in the authority's order.
    pub position: Position,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// What it changes.
    pub effect: Effect,
    /// The claim for which goods left, and how many.
    pub consumes: Option<(u128, Decimal)>,
    /// Where its record stands, to be named when it had to wait.
    pub place: Place,
}

/// What the authority says it has, as of a position.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The fact's id.
    pub id: u128,
    /// All movements up to here are in it.
    pub as_of: Position,
    /// When it was true.
    pub occurred_at: Timestamp,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Quantity sellable, commitments included.
    pub sellable: Decimal,
    /// Damaged; `None` says nothing.
    pub damaged: Option<Decimal>,
    /// Held for quality; `None` says nothing.
    pub held: Option<Decimal>,
    /// Announced and on the way; `None` says nothing.
    pub incoming: Option<Decimal>,
}

/// How a fact ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It took effect.
    Applied,
    /// It was known.
    Duplicate,
    /// A newer truth includes it already.
    Superseded,
    /// It waits for another fact.
    Buffered,
}

/// How a movement ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// Its effect on the goods.
    pub physical: Applied,
    /// Its effect on the claim that it consumes; `None` when it has none, or waits with the goods.
    pub claim: Option<Verdict>,
}

/// How a snapshot ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rebased {
    /// Its outcome.
    pub outcome: Applied,
    /// What it says beyond what was predicted for its position; `None` when there was no base to
    /// predict from.
    pub drift: Option<Decimal>,
}

/// Why a record cannot be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is older than what is remembered: whether it had its effect before cannot be known.
    #[error("older than what the ledger remembers")]
    LateBeyondHorizon,
    /// Too many movements wait for the snapshot of their epoch.
    #[error("too many movements wait for the snapshot of their epoch")]
    TooManyWaiting,
    /// State bytes cannot be read: a defect.
    #[error(transparent)]
    Damaged(#[from] Corrupt),
}

/// The order of snapshots. Two with one position should say the same; where they do not, the later
/// recorded one counts, whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub as_of: Position,
    pub recorded_at: Timestamp,
    pub id: u128,
}

/// What a new base changes besides the quantities.
struct Change {
    drift: Option<Decimal>,
    /// Movements that wait no longer, in the authority's order.
    resolved: Vec<(Position, Waiting, Applied)>,
}

impl Ledger {
    /// Takes in a movement of goods. A movement that a snapshot includes already changes no
    /// quantity but still consumes its claim: otherwise the claim would bind stock for ever.
    ///
    /// # Errors
    /// When it is beyond the horizon, or too many wait for their epoch. Nothing has changed then.
    pub fn movement(
        &mut self,
        movement: &Movement,
        shelf: &mut dyn Shelf,
        journal: &mut Journal,
    ) -> Result<Moved, Refusal> {
        let ended = |physical| Moved {
            physical,
            claim: None,
        };
        if self.identities.contains(movement.id, shelf)? {
            return Ok(ended(Applied::Duplicate));
        }
        let position = movement.position;
        if self.folded_through.is_some_and(|folded| position <= folded) {
            return Err(Refusal::LateBeyondHorizon);
        }
        let waits = self
            .trusted_epoch()
            .is_some_and(|trusted| position.epoch > trusted);
        if waits && self.waiting >= WAITING_MAX {
            return Err(Refusal::TooManyWaiting);
        }
        if self.bases[0].is_none() {
            self.open(position.epoch, shelf)?;
        }
        self.identities.push(Entry {
            id: movement.id,
            kind: Kind::Movement,
            recorded_s: seconds(movement.recorded_at),
            position,
            effect: movement.effect,
            waiting: waits.then(|| {
                Box::new(Waiting {
                    place: movement.place,
                    consumes: movement.consumes,
                })
            }),
        });
        self.hear(movement.recorded_at);
        self.as_of = self.as_of.max(movement.occurred_at);
        if waits {
            // The claim waits too: while the goods that left are not booked, it stands for them.
            self.waiting += 1;
            return Ok(ended(Applied::Buffered));
        }
        let (counted, physical) = self.counted(position, movement.effect);
        self.totals += counted;
        let claim = match movement.consumes {
            Some((claim, quantity)) => {
                Some(self.consume(claim, quantity, movement.recorded_at, shelf, journal)?)
            }
            None => None,
        };
        self.promote(movement.recorded_at, shelf, journal)?;
        Ok(Moved { physical, claim })
    }

    /// Takes in what the authority says it has. See the module for how it merges with movements.
    ///
    /// # Errors
    /// When movements after its position have been forgotten, so that they cannot be added to it
    /// any more. Nothing has changed then.
    pub fn snapshot(
        &mut self,
        snapshot: &Snapshot,
        shelf: &mut dyn Shelf,
        journal: &mut Journal,
    ) -> Result<Rebased, Refusal> {
        let ended = |outcome| Rebased {
            outcome,
            drift: None,
        };
        if self.identities.contains(snapshot.id, shelf)? {
            return Ok(ended(Applied::Duplicate));
        }
        let rank = Rank {
            as_of: snapshot.as_of,
            recorded_at: snapshot.recorded_at,
            id: snapshot.id,
        };
        let stated = [
            Some(snapshot.sellable),
            snapshot.damaged,
            snapshot.held,
            snapshot.incoming,
        ];
        let newer = |bucket: usize| {
            stated[bucket].is_some() && self.bases[bucket].is_none_or(|base| rank > base)
        };
        let mut wins = std::array::from_fn(newer);
        if self
            .folded_through
            .is_some_and(|folded| rank.as_of < folded)
        {
            if wins[0] {
                return Err(Refusal::LateBeyondHorizon);
            }
            wins = [false; Effect::BUCKETS];
        }
        self.identities
            .push(Entry::snapshot(snapshot.id, snapshot.recorded_at));
        self.hear(snapshot.recorded_at);
        self.as_of = self.as_of.max(snapshot.occurred_at);
        if wins == [false; Effect::BUCKETS] {
            return Ok(ended(Applied::Superseded));
        }
        let Change { drift, resolved } = self.rebase(rank, stated, wins, shelf)?;
        for (_, waiting, outcome) in resolved {
            let claim = match waiting.consumes {
                Some((claim, quantity)) => {
                    Some(self.consume(claim, quantity, snapshot.recorded_at, shelf, journal)?)
                }
                None => None,
            };
            journal.resolved.push(Resolved {
                waited: Waited::Movement(waiting.place),
                outcome,
                claim,
            });
        }
        self.promote(snapshot.recorded_at, shelf, journal)?;
        Ok(Rebased {
            outcome: Applied::Applied,
            drift,
        })
    }

    /// What the authority says beyond what is predicted for `as_of`, without taking it in. `None`
    /// when there is nothing to compare with.
    ///
    /// # Errors
    /// When state is damaged.
    pub fn compare(
        &self,
        as_of: Position,
        sellable: Decimal,
        shelf: &dyn Shelf,
    ) -> Result<Option<Decimal>, Refusal> {
        let comparable = self.trusted_epoch() == Some(as_of.epoch)
            && self.folded_through.is_none_or(|folded| as_of >= folded)
            && self.bases[0].is_none_or(|base| as_of >= base.as_of);
        if !comparable {
            return Ok(None);
        }
        let mut later = Decimal::ZERO;
        self.identities.visit(
            shelf,
            |run| run.span.is_some_and(|(_, last)| last > as_of),
            |entry| {
                if entry.is_movement()
                    && entry.position > as_of
                    && entry.position.epoch == as_of.epoch
                {
                    later += entry.effect.sellable;
                }
            },
        )?;
        Ok(Some(sellable - (self.totals.sellable - later)))
    }

    /// Physical quantities now.
    pub fn totals(&self) -> Effect {
        self.totals
    }

    /// Whether movements wait for a snapshot, so that what is on hand is not certain.
    pub fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// The part of an effect that no snapshot includes, and what that makes of the movement.
    fn counted(&self, position: Position, effect: Effect) -> (Effect, Applied) {
        let mut counted = effect.buckets();
        for (quantity, base) in counted.iter_mut().zip(&self.bases) {
            if base.is_some_and(|base| position <= base.as_of) {
                *quantity = Decimal::ZERO;
            }
        }
        let counted = Effect::from_buckets(counted);
        let later = self.bases[0].is_none_or(|base| position > base.as_of);
        if later || counted != Effect::default() {
            (counted, Applied::Applied)
        } else {
            (counted, Applied::Superseded)
        }
    }

    /// Without a base, the earliest epoch heard of is the one that counts. Should an earlier one be
    /// heard of late, those that counted wait for a snapshot like any later epoch.
    fn open(&mut self, epoch: i32, shelf: &dyn Shelf) -> Result<(), Refusal> {
        match self.opening {
            Some(opening) if epoch >= opening => return Ok(()),
            Some(_) => {
                let mut waiting = 0;
                self.identities.visit(
                    shelf,
                    |_| true,
                    |e| waiting += u32::from(e.is_movement()),
                )?;
                self.waiting = waiting;
                self.totals = Effect::default();
            }
            None => {}
        }
        self.opening = Some(epoch);
        Ok(())
    }

    fn rebase(
        &mut self,
        rank: Rank,
        stated: [Option<Decimal>; Effect::BUCKETS],
        wins: [bool; Effect::BUCKETS],
        shelf: &dyn Shelf,
    ) -> Result<Change, Refusal> {
        let before = self.trusted_epoch().unwrap_or(i32::MIN);
        let after = if wins[0] { rank.as_of.epoch } else { before };
        let old = self.bases;
        let new: [Option<Rank>; Effect::BUCKETS] =
            std::array::from_fn(|b| if wins[b] { Some(rank) } else { old[b] });
        let past = |bases: &[Option<Rank>], bucket: usize, position| {
            bases[bucket].is_none_or(|base: Rank| position > base.as_of)
        };
        let mut totals = self.totals.buckets();
        let mut predicted = totals[0];
        for (bucket, total) in totals.iter_mut().enumerate() {
            if let Some(quantity) = stated[bucket].filter(|_| wins[bucket]) {
                *total = quantity;
            }
        }
        let (mut waiting, mut resolved) = (0, Vec::new());
        let touched = |run: &Run| {
            run.may_wait(before.min(after)) || run.span.is_some_and(|(_, last)| last > rank.as_of)
        };
        self.identities.visit(shelf, touched, |entry| {
            if !entry.is_movement() {
                return;
            }
            let was_trusted = entry.position.epoch <= before;
            let is_trusted = entry.position.epoch <= after;
            let mut counts_now = false;
            for (bucket, quantity) in entry.effect.buckets().into_iter().enumerate() {
                let counted = was_trusted && past(&old, bucket, entry.position);
                let counts = is_trusted && past(&new, bucket, entry.position);
                counts_now |= counts && (bucket == 0 || !quantity.is_zero());
                if wins[bucket] {
                    if counts {
                        totals[bucket] += quantity;
                    }
                } else if counts && !counted {
                    totals[bucket] += quantity;
                } else if counted && !counts {
                    totals[bucket] -= quantity;
                }
            }
            if entry.position > rank.as_of {
                if was_trusted && past(&old, 0, entry.position) {
                    predicted -= entry.effect.sellable;
                }
            } else if !was_trusted && is_trusted {
                predicted += entry.effect.sellable;
            }
            waiting += u32::from(!is_trusted);
            if let Some(wait) = entry
                .waiting
                .as_deref()
                .filter(|_| is_trusted && !was_trusted)
            {
                let outcome = if counts_now {
                    Applied::Applied
                } else {
                    Applied::Superseded
                };
                resolved.push((entry.position, *wait, outcome));
            }
        })?;
        self.totals = Effect::from_buckets(totals);
        self.bases = new;
        self.waiting = waiting;
        // Claims are consumed in the authority's order, however their movements came.
        resolved.sort_by_key(|(position, wait, _)| (*position, wait.place));
        let drift = match (stated[0].filter(|_| wins[0]), old[0]) {
            (Some(quantity), Some(_)) => Some(quantity - predicted),
            _ => None,
        };
        Ok(Change { drift, resolved })
    }
}
