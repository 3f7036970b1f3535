//! One position: buckets, the identities of recent facts, and availability.
//!
//! Running totals are kept, so a delta costs the same whatever the history. The identities of the
//! deltas within the [`HORIZON`](super::HORIZON) are kept beside them: to know duplicates, and to
//! rebase when a snapshot arrives. Few of them stand in the position itself; the others are spilled
//! into segments on a [`Shelf`], written once and dropped when they fold.

use super::claims::Claim;
use super::{HORIZON, Policy, later};
use crate::domain::{Decimal, Position, Timestamp};
use compact_str::CompactString as Text;
use std::collections::{BTreeMap, BTreeSet};

/// Identities in the position itself; more are spilled.
const INLINE_MAX: usize = 16;
/// Small segments that are merged into one large one.
const SMALL_MAX: usize = 16;
/// Large segments; with more, the oldest folds before its time.
const LARGE_MAX: usize = 256;

/// Quantities by state of the goods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Physical, undamaged, not held.
    pub sellable: Decimal,
    /// Damaged.
    pub damaged: Decimal,
    /// Held for quality.
    pub held: Decimal,
    /// Announced and on the way here.
    pub incoming: Decimal,
}

impl std::ops::AddAssign for Effect {
    fn add_assign(&mut self, other: Effect) {
        self.sellable += other.sellable;
        self.damaged += other.damaged;
        self.held += other.held;
        self.incoming += other.incoming;
    }
}

/// A movement of goods at this position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delta {
    /// The fact's id.
    pub id: u128,
    /// Its place in the authority's order.
    pub position: Position,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// What it changes.
    pub effect: Effect,
}

/// What the authority says it has, as of a position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Snapshot {
    /// The fact's id.
    pub id: u128,
    /// All movements up to here are in it.
    pub as_of: Position,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Quantity sellable, commitments included.
    pub sellable: Decimal,
    /// Other quantities; `None` leaves them as they are.
    pub damaged: Option<Decimal>,
    /// Held for quality.
    pub held: Option<Decimal>,
    /// Announced and on the way.
    pub incoming: Option<Decimal>,
}

/// How a fact ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It changed the position.
    Applied,
    /// It was known.
    Duplicate,
    /// A newer truth includes it already.
    Superseded,
    /// It belongs to an epoch whose snapshot has not come yet.
    Buffered,
}

/// Why a fact cannot be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is older than what is remembered: whether it was applied before cannot be known.
    LateBeyondHorizon,
    /// Too many facts wait for the snapshot of their epoch.
    TooManyBuffered,
}

/// What an identity stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A delta that counts in the totals.
    Counted,
    /// A delta that a snapshot includes.
    Included,
    /// A delta that waits for its epoch's snapshot.
    Waiting,
    /// A finished claim, kept until it can no longer be asked for.
    Claim,
}

/// A remembered fact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// Id of the fact or claim.
    pub id: u128,
    /// Place in the authority's order.
    pub position: Position,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Its effect, for rebasing.
    pub effect: Effect,
    /// What it stands for.
    pub kind: EntryKind,
}

/// A spilled run of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub number: u32,
    pub lowest: Position,
    pub highest: Position,
    pub newest: Timestamp,
    pub count: u32,
}

/// Where spilled entries and claims are kept.
pub trait Shelf {
    /// The entries of a segment; empty when there is none.
    fn segment(&self, number: u32) -> Vec<Entry>;
    /// Writes a segment.
    fn put_segment(&mut self, number: u32, entries: &[Entry]);
    /// Removes a segment.
    fn drop_segment(&mut self, number: u32);
    /// A claim.
    fn claim(&self, id: u128) -> Option<Claim>;
    /// Writes a claim.
    fn put_claim(&mut self, claim: &Claim);
    /// Removes a claim.
    fn drop_claim(&mut self, id: u128);
}

/// The stock of one SKU at one location.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// The source whose facts count; others are for reconciliation only.
    pub authority: Option<Text>,
    /// Rules of this position.
    pub policy: Policy,
    /// Version of the level last emitted.
    pub level_version: i64,
    /// Version of the offers last emitted.
    pub offer_version: i64,
    /// Number of the last decision.
    pub sequence: i64,
    /// What was last emitted of the level.
    pub emitted: Option<Level>,
    /// What was last emitted for each channel.
    pub offered: BTreeMap<Text, Decimal>,
    /// Latest business time of a fact that counted.
    pub as_of: Timestamp,
    pub(super) totals: Effect,
    pub(super) base: Option<(Position, u128)>,
    pub(super) folded_through: Option<Position>,
    pub(super) newest: Timestamp,
    pub(super) inline: Vec<Entry>,
    pub(super) segments: Vec<Segment>,
    pub(super) next_segment: u32,
    pub(super) waiting: u32,
    /// Claimed units by channel.
    pub(super) active: BTreeMap<Text, Decimal>,
    pub(super) backordered: Decimal,
    /// Backordered claims: promise, then age.
    pub(super) backorders: BTreeSet<(Timestamp, i64, u128)>,
    /// Claims that expire.
    pub(super) expiring: BTreeSet<(Timestamp, u128)>,
    /// Whether OVERCOMMITTED has been raised and not resolved.
    pub overcommitted_raised: bool,
}

/// A position as others see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Physical quantities.
    pub totals: Effect,
    /// Claimed.
    pub reserved: Decimal,
    /// Accepted without stock.
    pub backordered: Decimal,
    /// Never promised.
    pub safety: Decimal,
    /// Available to sell over all channels.
    pub ats: Decimal,
    /// Claims beyond the physical stock.
    pub overcommitted: Decimal,
}

impl Ledger {
    /// Applies a movement. Its reservation effect, if any, is the caller's to apply whenever the
    /// result is not [`Applied::Duplicate`]: a snapshot that includes the goods does not end claims.
    ///
    /// # Errors
    /// When the fact is beyond the horizon, or too many wait for their epoch.
    pub fn delta(&mut self, delta: &Delta, shelf: &mut dyn Shelf) -> Result<Applied, Refusal> {
        if self.knows(delta.id, delta.position, shelf) {
            return Ok(Applied::Duplicate);
        }
        if self
            .folded_through
            .is_some_and(|through| delta.position <= through)
        {
            return Err(Refusal::LateBeyondHorizon);
        }
        let epoch = self.base.map_or(0, |(position, _)| position.epoch);
        let (kind, applied) = if delta.position.epoch > epoch {
            if self.waiting >= 1_024 {
                return Err(Refusal::TooManyBuffered);
            }
            self.waiting += 1;
            (EntryKind::Waiting, Applied::Buffered)
        } else if self.base.is_some_and(|(base, _)| delta.position <= base) {
            (EntryKind::Included, Applied::Superseded)
        } else {
            self.totals += delta.effect;
            (EntryKind::Counted, Applied::Applied)
        };
        let entry = Entry {
            id: delta.id,
            position: delta.position,
            recorded_at: delta.recorded_at,
            effect: delta.effect,
            kind,
        };
        self.remember(entry, shelf);
        Ok(applied)
    }

    /// Takes a snapshot as the new base. Returns how it ended, and what differed from what was
    /// predicted for its position.
    ///
    /// # Errors
    /// When movements after its position have folded, so that they cannot be added to it any more.
    pub fn snapshot(
        &mut self,
        snapshot: &Snapshot,
        shelf: &mut dyn Shelf,
    ) -> Result<(Applied, Decimal), Refusal> {
        if let Some((base, id)) = self.base
            && snapshot.as_of <= base
        {
            return Ok((
                if id == snapshot.id {
                    Applied::Duplicate
                } else {
                    Applied::Superseded
                },
                Decimal::ZERO,
            ));
        }
        if self
            .folded_through
            .is_some_and(|through| snapshot.as_of < through)
        {
            return Err(Refusal::LateBeyondHorizon);
        }
        let (mut after, mut after_counted) = (Effect::default(), Effect::default());
        let mut waiting = 0;
        self.rewrite(shelf, |entry| {
            if entry.kind == EntryKind::Claim {
                return;
            }
            let counted = entry.kind == EntryKind::Counted;
            entry.kind = if entry.position <= snapshot.as_of {
                EntryKind::Included
            } else {
                if counted {
                    after_counted += entry.effect;
                }
                if entry.position.epoch > snapshot.as_of.epoch {
                    waiting += 1;
                    EntryKind::Waiting
                } else {
                    after += entry.effect;
                    EntryKind::Counted
                }
            };
        });
        let predicted = self.totals.sellable - after_counted.sellable;
        self.totals = Effect {
            sellable: snapshot.sellable + after.sellable,
            damaged: snapshot
                .damaged
                .map_or(self.totals.damaged, |q| q + after.damaged),
            held: snapshot.held.map_or(self.totals.held, |q| q + after.held),
            incoming: snapshot
                .incoming
                .map_or(self.totals.incoming, |q| q + after.incoming),
        };
        self.waiting = waiting;
        self.base = Some((snapshot.as_of, snapshot.id));
        self.newest = later(self.newest, snapshot.recorded_at);
        Ok((Applied::Applied, snapshot.sellable - predicted))
    }

    /// What the position would have predicted for a snapshot that is only to be compared.
    pub fn drift(&self, snapshot: &Snapshot, shelf: &dyn Shelf) -> Decimal {
        let mut after = Decimal::ZERO;
        self.each(shelf, |entry| {
            if entry.kind == EntryKind::Counted && entry.position > snapshot.as_of {
                after += entry.effect.sellable;
            }
        });
        snapshot.sellable - (self.totals.sellable - after)
    }

    /// Physical quantities now.
    pub fn totals(&self) -> Effect {
        self.totals
    }

    /// Facts remembered, in the position and on the shelf.
    pub fn remembered(&self) -> usize {
        self.inline.len()
            + self
                .segments
                .iter()
                .map(|s| s.count as usize)
                .sum::<usize>()
    }

    /// Claimed units, over all channels.
    pub fn reserved(&self) -> Decimal {
        self.active.values().copied().sum()
    }

    /// The level as it is now.
    pub fn level(&self) -> Level {
        let reserved = self.reserved();
        let free = self.totals.sellable - reserved;
        Level {
            totals: Effect {
                incoming: self.totals.incoming.or_zero(),
                ..self.totals
            },
            reserved,
            backordered: self.backordered,
            safety: self.policy.safety,
            ats: (free - self.policy.safety).or_zero(),
            overcommitted: (reserved - self.totals.sellable.or_zero()).or_zero(),
        }
    }

    /// Available to sell to `channel` at this position; what STRICT grants go by.
    pub fn ats(&self, channel: &str) -> Decimal {
        let claimed = |c: &str| self.active.get(c).copied().unwrap_or_default();
        let unused = |c: &str, hard: Decimal| (hard - claimed(c)).or_zero();
        let allocation = self.policy.allocations.get(channel);
        let kept: Decimal = self
            .policy
            .allocations
            .iter()
            .filter_map(|(c, a)| Some(unused(c, a.hard?)))
            .sum();
        let own = allocation
            .and_then(|a| a.hard)
            .map_or(Decimal::ZERO, |hard| unused(channel, hard));
        let pool = self.totals.sellable - self.reserved() - self.policy.safety - kept;
        let mut ats = pool + own;
        if let Some(percent) = allocation.and_then(|a| a.share_percent) {
            ats = ats.min(
                (self.totals.sellable - self.policy.safety)
                    .or_zero()
                    .percent(percent)
                    - claimed(channel),
            );
        }
        ats.or_zero()
    }

    /// Takes a newer policy. Returns whether it was newer.
    pub fn set_policy(&mut self, policy: Policy) -> bool {
        let newer = policy.version > self.policy.version;
        if newer {
            self.policy = policy;
        }
        newer
    }

    /// Whether a fact is remembered. Only segments whose positions could hold it are looked into.
    fn knows(&self, id: u128, position: Position, shelf: &dyn Shelf) -> bool {
        self.inline.iter().any(|e| e.id == id)
            || self
                .segments
                .iter()
                .filter(|s| (s.lowest..=s.highest).contains(&position))
                .any(|s| shelf.segment(s.number).iter().any(|e| e.id == id))
    }

    /// Adds an entry, spills what is too much for the position, folds what is beyond the horizon.
    pub(super) fn remember(&mut self, entry: Entry, shelf: &mut dyn Shelf) {
        self.newest = later(self.newest, entry.recorded_at);
        self.inline.push(entry);
        let horizon = self.newest.minus(HORIZON);
        while self.segments.first().is_some_and(|s| s.newest < horizon) || self.large() > LARGE_MAX
        {
            self.fold_oldest(shelf);
        }
        if self.inline.len() < INLINE_MAX {
            return;
        }
        // Entries beyond the horizon fold without being spilled first.
        let spilled = std::mem::take(&mut self.inline);
        let (old, young): (Vec<Entry>, Vec<Entry>) = spilled.into_iter().partition(|e| {
            e.recorded_at < horizon && e.kind != EntryKind::Waiting && self.segments.is_empty()
        });
        self.fold(&old, shelf);
        if young.len() < INLINE_MAX {
            self.inline = young;
            return;
        }
        self.spill(&young, shelf);
        if self.segments.len() - self.large() >= SMALL_MAX {
            let small = self.segments.split_off(self.large());
            let merged: Vec<Entry> = small.iter().flat_map(|s| shelf.segment(s.number)).collect();
            small.iter().for_each(|s| shelf.drop_segment(s.number));
            self.spill(&merged, shelf);
        }
    }

    /// Large segments come before small ones: they hold older entries.
    fn large(&self) -> usize {
        self.segments
            .iter()
            .filter(|s| s.count as usize > INLINE_MAX)
            .count()
    }

    fn spill(&mut self, entries: &[Entry], shelf: &mut dyn Shelf) {
        let number = self.next_segment;
        self.next_segment += 1;
        let positions = || {
            entries
                .iter()
                .filter(|e| e.kind != EntryKind::Claim)
                .map(|e| e.position)
        };
        let segment = Segment {
            number,
            lowest: positions().min().unwrap_or_default(),
            highest: positions().max().unwrap_or_default(),
            newest: entries
                .iter()
                .map(|e| e.recorded_at)
                .max()
                .unwrap_or_default(),
            count: entries.len() as u32,
        };
        shelf.put_segment(number, entries);
        self.segments.push(segment);
    }

    fn fold_oldest(&mut self, shelf: &mut dyn Shelf) {
        let oldest = self.segments.remove(0);
        let entries = shelf.segment(oldest.number);
        shelf.drop_segment(oldest.number);
        self.fold(&entries, shelf);
    }

    /// Forgets entries: their effect stays in the totals, their identities go.
    fn fold(&mut self, entries: &[Entry], shelf: &mut dyn Shelf) {
        for entry in entries {
            match entry.kind {
                EntryKind::Claim => shelf.drop_claim(entry.id),
                // A fact that waits for its epoch's snapshot is never forgotten.
                EntryKind::Waiting => self.inline.push(*entry),
                EntryKind::Counted | EntryKind::Included => {
                    self.folded_through = self.folded_through.max(Some(entry.position))
                }
            }
        }
    }

    fn each(&self, shelf: &dyn Shelf, mut each: impl FnMut(&Entry)) {
        self.inline.iter().for_each(&mut each);
        for segment in &self.segments {
            shelf.segment(segment.number).iter().for_each(&mut each);
        }
    }

    fn rewrite(&mut self, shelf: &mut dyn Shelf, mut change: impl FnMut(&mut Entry)) {
        self.inline.iter_mut().for_each(&mut change);
        for segment in &self.segments {
            let before = shelf.segment(segment.number);
            let mut after = before.clone();
            after.iter_mut().for_each(&mut change);
            if after != before {
                shelf.put_segment(segment.number, &after);
            }
        }
    }
}
