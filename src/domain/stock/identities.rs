//! The facts that a position remembers: to know duplicates, and to rebase when a snapshot comes.
//!
//! The newest stand in the position's header; more are spilled into runs on the shelf, sorted by id.
//! Runs are never changed. A few small ones merge into a larger one, so that their number stays
//! small and each fact is rewritten a few times at most; those beyond the horizon are dropped.

use super::encoding::{Corrupt, Read, Reader, VERSION, Write};
use super::ledger::Place;
use super::movement::Effect;
use super::shelf::{Shelf, Slot};
use crate::domain::{Decimal, Position, Timestamp};
use rustc_hash::FxHashSet;

/// Facts in the header at most.
pub(super) const INLINE_MAX: usize = 16;
/// Runs of one size at most.
const FANOUT: usize = 4;
/// Facts in a run at most: about 100 kB.
const RUN_MAX: usize = 4_096;
/// Facts remembered at most; with more, the oldest are forgotten before their time.
pub(super) const IDENTITIES_MAX: usize = 65_536;
/// From here on, the facts at hand are found by hash.
const SCAN_MAX: usize = 64;

/// What an entry stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Movement,
    Snapshot,
    /// A claim that is over, or one not asked for yet: remembered until nothing about it can come.
    Claim,
}

/// A movement whose effect had to wait for its epoch's snapshot when it came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Waiting {
    pub place: Place,
    /// The claim that it consumes, and how much of it.
    pub consumes: Option<(u128, Decimal)>,
}

/// A remembered fact.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub id: u128,
    pub kind: Kind,
    /// In whole seconds, rounded up.
    pub recorded_s: i64,
    pub position: Position,
    pub effect: Effect,
    pub waiting: Option<Box<Waiting>>,
}

impl Entry {
    /// A snapshot that was heard of.
    pub(super) fn snapshot(id: u128, recorded_at: Timestamp) -> Self {
        Self::plain(id, Kind::Snapshot, seconds(recorded_at))
    }
    /// A claim that is over or not asked for yet. Its id is inverted: facts and reservations share
    /// one space of ids here and must not be taken for one another.
    pub(super) fn claim(id: u128, changed_at: Timestamp) -> Self {
        Self::plain(!id, Kind::Claim, seconds(changed_at))
    }
    /// The claim that an entry made by [`Entry::claim`] stands for.
    pub(super) fn claim_id(&self) -> u128 {
        !self.id
    }
    fn plain(id: u128, kind: Kind, recorded_s: i64) -> Self {
        Entry {
            id,
            kind,
            recorded_s,
            position: Position::default(),
            effect: Effect::default(),
            waiting: None,
        }
    }
    pub(super) fn is_movement(&self) -> bool {
        self.kind == Kind::Movement
    }
}

/// Whole seconds, rounded up.
pub(super) fn seconds(time: Timestamp) -> i64 {
    time.0.div_euclid(1_000_000) + i64::from(time.0.rem_euclid(1_000_000) != 0)
}

/// What the header says of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub number: u32,
    pub count: u32,
    pub newest_s: i64,
    /// Least and greatest position of its movements.
    pub span: Option<(Position, Position)>,
}

impl Run {
    /// Whether it may hold movements of epochs after `trusted`.
    pub(super) fn may_wait(&self, trusted: i32) -> bool {
        self.span.is_some_and(|(_, last)| last.epoch > trusted)
    }
    fn only_waits(&self, trusted: i32) -> bool {
        self.span.is_some_and(|(first, _)| first.epoch > trusted)
    }
    fn size_class(&self) -> u32 {
        let mut class = 0;
        let mut limit = INLINE_MAX;
        while (self.count as usize) > limit {
            limit *= FANOUT;
            class += 1;
        }
        class
    }
}

/// All facts that a position remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Identities {
    pub inline: Vec<Entry>,
    pub runs: Vec<Run>,
    pub next_run: u32,
    lookup: Lookup,
}

/// Aids for finding ids within one transaction; no part of what a position is.
#[derive(Clone, Debug, Default)]
struct Lookup {
    /// Ids of `inline`, once there are many.
    inline: FxHashSet<u128>,
    /// Ids that were sought in the runs already, and those of them that were found.
    sought: FxHashSet<u128>,
    found: FxHashSet<u128>,
}

impl PartialEq for Lookup {
    fn eq(&self, _: &Lookup) -> bool {
        true
    }
}

impl Identities {
    /// Number of facts remembered.
    pub(super) fn len(&self) -> usize {
        self.inline.len() + self.runs.iter().map(|r| r.count as usize).sum::<usize>()
    }

    /// Whether a fact is remembered.
    pub(super) fn contains(&self, id: u128, shelf: &dyn Shelf) -> Read<bool> {
        let inline = if self.lookup.inline.is_empty() {
            self.inline.iter().any(|e| e.id == id)
        } else {
            self.lookup.inline.contains(&id)
        };
        if inline || self.runs.is_empty() {
            return Ok(inline);
        }
        if self.lookup.sought.contains(&id) {
            return Ok(self.lookup.found.contains(&id));
        }
        for run in self.runs.iter().rev() {
            if holds(self.bytes(run, shelf)?, id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Seeks many ids in the runs at once, so that [`Identities::contains`] need not look there for
    /// each of them.
    pub(super) fn seek(
        &mut self,
        ids: impl Iterator<Item = u128> + Clone,
        shelf: &dyn Shelf,
    ) -> Read<()> {
        if self.runs.is_empty() {
            return Ok(());
        }
        for run in &self.runs {
            let bytes = self.bytes(run, shelf)?;
            for id in ids.clone() {
                if holds(bytes, id)? {
                    self.lookup.found.insert(id);
                }
            }
        }
        self.lookup.sought.extend(ids);
        Ok(())
    }

    /// Remembers a fact.
    pub(super) fn push(&mut self, entry: Entry) {
        if !self.lookup.inline.is_empty() {
            self.lookup.inline.insert(entry.id);
        } else if self.inline.len() == SCAN_MAX {
            self.lookup.inline = self.inline.iter().map(|e| e.id).collect();
            self.lookup.inline.insert(entry.id);
        }
        self.inline.push(entry);
    }

    /// Visits every fact at hand, and those in the runs that `wanted` picks.
    pub(super) fn visit(
        &self,
        shelf: &dyn Shelf,
        wanted: impl Fn(&Run) -> bool,
        mut each: impl FnMut(&Entry),
    ) -> Read<()> {
        self.inline.iter().for_each(&mut each);
        for run in self.runs.iter().filter(|r| wanted(r)) {
            entries(self.bytes(run, shelf)?)?.iter().for_each(&mut each);
        }
        Ok(())
    }

    /// Brings the header back to its size: spills, merges, and forgets what was recorded before
    /// `horizon_s` or is too much. Movements of epochs after `trusted` are never forgotten.
    /// Returns what was forgotten.
    pub(super) fn tidy(
        &mut self,
        trusted: i32,
        horizon_s: i64,
        shelf: &mut dyn Shelf,
    ) -> Read<Vec<Entry>> {
        let mut forgotten = Vec::new();
        if self.inline.len() > INLINE_MAX {
            self.lookup = Lookup::default();
            let inline = std::mem::take(&mut self.inline);
            let young = part(
                inline,
                |e| e.recorded_s >= horizon_s,
                trusted,
                &mut forgotten,
            );
            if young.len() <= INLINE_MAX {
                self.inline = young;
            } else {
                self.spill(young, shelf);
                self.merge(shelf)?;
            }
        }
        while let Some(index) = self.next_to_forget(trusted, horizon_s) {
            let run = self.runs.remove(index);
            let entries = entries(self.bytes(&run, shelf)?)?;
            shelf.delete(Slot::Identities(run.number));
            let rest = part(entries, |_| false, trusted, &mut forgotten);
            if !rest.is_empty() {
                self.spill(rest, shelf);
            }
        }
        if self.runs.is_empty() {
            self.next_run = 0;
        }
        Ok(forgotten)
    }

    fn next_to_forget(&self, trusted: i32, horizon_s: i64) -> Option<usize> {
        let too_many = self.len() > IDENTITIES_MAX;
        let candidates = self
            .runs
            .iter()
            .enumerate()
            .filter(|(_, run)| !run.only_waits(trusted));
        let (index, oldest) = candidates.min_by_key(|(_, run)| run.newest_s)?;
        (too_many || oldest.newest_s < horizon_s).then_some(index)
    }

    fn spill(&mut self, mut entries: Vec<Entry>, shelf: &mut dyn Shelf) {
        let mut bytes = Vec::with_capacity(RUN_MAX.min(entries.len()) * 26);
        for chunk in entries.chunks_mut(RUN_MAX) {
            chunk.sort_unstable_by_key(|e| e.id);
            let positions = || chunk.iter().filter(|e| e.is_movement()).map(|e| e.position);
            let run = Run {
                number: self.next_run,
                count: chunk.len() as u32,
                newest_s: chunk.iter().map(|e| e.recorded_s).max().unwrap_or_default(),
                span: positions().min().zip(positions().max()),
            };
            self.next_run = self.next_run.wrapping_add(1);
            write_run(chunk, &mut bytes);
            shelf.put(Slot::Identities(run.number), &bytes);
            self.runs.push(run);
        }
    }

    fn merge(&mut self, shelf: &mut dyn Shelf) -> Read<()> {
        let largest = Run {
            number: 0,
            count: RUN_MAX as u32,
            newest_s: 0,
            span: None,
        }
        .size_class();
        for class in 0..largest {
            let of_class = |r: &Run| r.size_class() == class;
            if self.runs.iter().filter(|r| of_class(r)).count() < FANOUT {
                continue;
            }
            let mut merged = Vec::new();
            for run in self.runs.extract_if(.., |r| of_class(r)) {
                let slot = Slot::Identities(run.number);
                merged.extend(entries(shelf.get(slot).ok_or(Corrupt)?)?);
                shelf.delete(slot);
            }
            self.spill(merged, shelf);
        }
        Ok(())
    }

    fn bytes<'a>(&self, run: &Run, shelf: &'a dyn Shelf) -> Read<&'a [u8]> {
        shelf.get(Slot::Identities(run.number)).ok_or(Corrupt)
    }

    /// Writes the header's part.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.unsigned(self.inline.len() as u64);
        let mut before = Chain::default();
        for entry in &self.inline {
            out.id(entry.id);
            before.write(entry, out);
        }
        out.unsigned(self.runs.len() as u64);
        if self.runs.is_empty() {
            return;
        }
        out.unsigned(u64::from(self.next_run));
        for run in &self.runs {
            out.unsigned(u64::from(run.number));
            out.unsigned(u64::from(run.count));
            out.signed(run.newest_s);
            out.optional(run.span, |out, (first, last)| {
                out.position(first);
                out.position(last);
            });
        }
    }

    /// Reads the header's part.
    pub(super) fn read(input: &mut Reader<'_>) -> Read<Self> {
        let count = input.count()?;
        let mut inline = Vec::with_capacity(count + 2);
        let mut before = Chain::default();
        for _ in 0..count {
            let id = input.id()?;
            inline.push(before.read(id, input)?);
        }
        let count = input.count()?;
        let mut identities = Identities {
            inline,
            ..Identities::default()
        };
        if count > 0 {
            identities.next_run = input.number()?;
        }
        for _ in 0..count {
            identities.runs.push(Run {
                number: input.number()?,
                count: input.number()?,
                newest_s: input.signed()?,
                span: input.optional(|input| Ok((input.position()?, input.position()?)))?,
            });
        }
        Ok(identities)
    }
}

/// Keeps entries that `keep` picks or that wait; the others go to `forgotten`.
fn part(
    entries: Vec<Entry>,
    keep: impl Fn(&Entry) -> bool,
    trusted: i32,
    forgotten: &mut Vec<Entry>,
) -> Vec<Entry> {
    let waits = |e: &Entry| e.is_movement() && e.position.epoch > trusted;
    let (kept, old): (Vec<_>, Vec<_>) = entries.into_iter().partition(|e| keep(e) || waits(e));
    forgotten.extend(old);
    kept
}

/// A run: its ids in ascending order, then the other fields in the same order.
fn write_run(entries: &[Entry], out: &mut Vec<u8>) {
    out.clear();
    out.byte(VERSION);
    out.unsigned(entries.len() as u64);
    for entry in entries {
        out.id(entry.id);
    }
    let mut before = Chain::default();
    for entry in entries {
        before.write(entry, out);
    }
}

fn ids<'a>(input: &mut Reader<'a>) -> Read<&'a [[u8; 16]]> {
    let count = input.count()?;
    let bytes = input.fixed(count.checked_mul(16).ok_or(Corrupt)?)?;
    Ok(bytes.as_chunks().0)
}

fn holds(run: &[u8], id: u128) -> Read<bool> {
    let ids = ids(&mut Reader::new(run)?)?;
    Ok(ids.binary_search(&id.to_be_bytes()).is_ok())
}

fn entries(run: &[u8]) -> Read<Vec<Entry>> {
    let mut input = Reader::new(run)?;
    let ids = ids(&mut input)?;
    let mut before = Chain::default();
    let entries = ids
        .iter()
        .map(|id| before.read(u128::from_be_bytes(*id), &mut input))
        .collect();
    input.end()?;
    entries
}

/// What the entry before said: positions and times are kept as differences.
#[derive(Default)]
struct Chain {
    position: Position,
    recorded_s: i64,
}

/// Bits of an entry's first byte; the low two are its kind.
const WAITS: u8 = 0x04;
const EPOCH: u8 = 0x08;
const FIRST_BUCKET: u8 = 0x10;

impl Chain {
    fn write(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        let buckets = entry.effect.buckets();
        let mut head = entry.kind as u8;
        head |= if entry.waiting.is_some() { WAITS } else { 0 };
        head |= if entry.position.epoch != self.position.epoch {
            EPOCH
        } else {
            0
        };
        for (index, quantity) in buckets.iter().enumerate() {
            if !quantity.is_zero() {
                head |= FIRST_BUCKET << index;
            }
        }
        out.byte(head);
        out.signed(entry.recorded_s.wrapping_sub(self.recorded_s));
        self.recorded_s = entry.recorded_s;
        if !entry.is_movement() {
            return;
        }
        if head & EPOCH != 0 {
            out.signed(i64::from(entry.position.epoch));
        }
        out.signed(entry.position.sequence.wrapping_sub(self.position.sequence));
        self.position = entry.position;
        for quantity in buckets.iter().filter(|q| !q.is_zero()) {
            out.quantity(*quantity);
        }
        if let Some(waiting) = &entry.waiting {
            waiting.place.write(out);
            out.optional(waiting.consumes, |out, (claim, quantity)| {
                out.id(claim);
                out.quantity(quantity);
            });
        }
    }

    fn read(&mut self, id: u128, input: &mut Reader<'_>) -> Read<Entry> {
        let head = input.byte()?;
        let kind = match head & 3 {
            0 => Kind::Movement,
            1 => Kind::Snapshot,
            2 => Kind::Claim,
            _ => return Err(Corrupt),
        };
        self.recorded_s = self.recorded_s.wrapping_add(input.signed()?);
        let mut entry = Entry::plain(id, kind, self.recorded_s);
        if kind != Kind::Movement {
            return Ok(entry);
        }
        if head & EPOCH != 0 {
            self.position.epoch = i32::try_from(input.signed()?).map_err(|_| Corrupt)?;
        }
        self.position.sequence = self.position.sequence.wrapping_add(input.signed()?);
        entry.position = self.position;
        let mut buckets = [Decimal::ZERO; Effect::BUCKETS];
        for (index, bucket) in buckets.iter_mut().enumerate() {
            if head & (FIRST_BUCKET << index) != 0 {
                *bucket = input.quantity()?;
            }
        }
        entry.effect = Effect::from_buckets(buckets);
        if head & WAITS != 0 {
            entry.waiting = Some(Box::new(Waiting {
                place: Place::read(input)?,
                consumes: input.optional(|input| Ok((input.id()?, input.quantity()?)))?,
            }));
        }
        Ok(entry)
    }
}
