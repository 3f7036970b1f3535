//! The open claims of a position, by when they expire and in which order they get stock.
//!
//! A few stand in the header; more are spilled into runs on the shelf, like the remembered facts.
//! A run may hold claims that are over by now: each claim's own entry is what counts, and runs are
//! cleaned when they are read for other reasons.

use super::encoding::{Corrupt, Read, Reader, VERSION, Write};
use super::shelf::{Shelf, Slot};
use crate::domain::Timestamp;

/// Open claims in the header at most.
const INLINE_MAX: usize = 16;
/// Runs of one size at most.
const FANOUT: usize = 4;
/// Open claims in a run at most.
const RUN_MAX: usize = 1_024;
/// Runs cleaned at a time.
const CLEANED_MAX: usize = 16;

/// An open claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub id: u128,
    /// When it expires, if it can.
    pub due: Option<Timestamp>,
    /// What was promised to the customer; the end of time when nothing was.
    pub promise: Timestamp,
    /// Age: number of the decision that opened it.
    pub sequence: i64,
}

/// What the header says of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    number: u32,
    count: u32,
    /// Not later than the earliest expiry in it.
    due: Option<Timestamp>,
}

/// All open claims.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Agenda {
    inline: Vec<Item>,
    runs: Vec<Run>,
    next_run: u32,
    /// Claims that are open, whatever the runs hold.
    open: u32,
}

impl Agenda {
    /// These open claims, all at hand; what stands on the shelf of `self` is taken away.
    pub(super) fn gathered(&self, inline: Vec<Item>, shelf: &mut dyn Shelf) -> Agenda {
        for run in &self.runs {
            shelf.delete(Slot::Agenda(run.number));
        }
        Agenda {
            open: inline.len() as u32,
            inline,
            ..Agenda::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inline.is_empty() && self.runs.is_empty()
    }

    /// Opens a claim.
    pub(super) fn open(&mut self, item: Item) {
        self.open += 1;
        self.inline.push(item);
    }

    /// Changes when an open claim expires.
    pub(super) fn set_due(&mut self, item: Item) {
        match self.inline.iter_mut().find(|i| i.id == item.id) {
            Some(known) => known.due = item.due,
            // In a run: a time that has become void is found so when it comes, a new one is added.
            None if item.due.is_some() => self.inline.push(item),
            None => {}
        }
    }

    /// Closes a claim.
    pub(super) fn close(&mut self, id: u128) {
        self.open = self.open.saturating_sub(1);
        self.inline.retain(|i| i.id != id);
    }

    /// Not later than the earliest expiry.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let inline = self.inline.iter().filter_map(|i| i.due);
        inline.chain(self.runs.iter().filter_map(|r| r.due)).min()
    }

    /// Ids of the claims that may expire at `now`, earliest first; about `limit` at most. Those
    /// that turn out not to are not named again.
    pub(super) fn take_due(
        &mut self,
        now: Timestamp,
        limit: usize,
        shelf: &dyn Shelf,
    ) -> Read<Vec<u128>> {
        let is_due = |i: &Item| i.due.is_some_and(|due| due <= now);
        let mut due: Vec<Item> = Vec::new();
        for item in self.inline.iter_mut().filter(|i| is_due(i)).take(limit) {
            due.push(*item);
            item.due = None;
        }
        for run in self
            .runs
            .iter_mut()
            .filter(|r| r.due.is_some_and(|d| d <= now))
        {
            if due.len() >= limit {
                break;
            }
            let items = items(run.number, shelf)?;
            due.extend(items.iter().filter(|i| is_due(i)));
            run.due = items
                .iter()
                .filter(|i| !is_due(i))
                .filter_map(|i| i.due)
                .min();
        }
        due.sort_by_key(|i| (i.due, i.sequence));
        Ok(due.into_iter().map(|i| i.id).collect())
    }

    /// All claims that may be open, by promise and age.
    pub(super) fn by_promise(&self, shelf: &dyn Shelf) -> Read<Vec<Item>> {
        let mut all = self.inline.clone();
        for run in &self.runs {
            all.extend(items(run.number, shelf)?);
        }
        all.sort_by_key(|i| (i.promise, i.sequence, i.id));
        all.dedup_by_key(|i| i.id);
        Ok(all)
    }

    /// Brings the header back to its size, and the runs to that of what is open. `is_open` knows
    /// which claims still are.
    pub(super) fn tidy(
        &mut self,
        shelf: &mut dyn Shelf,
        is_open: impl Fn(&dyn Shelf, u128) -> Read<bool>,
    ) -> Read<()> {
        if self.inline.len() > INLINE_MAX {
            let inline = std::mem::take(&mut self.inline);
            self.spill(inline, shelf);
            let mut limit = INLINE_MAX;
            while limit < RUN_MAX {
                let of_size = |r: &Run| {
                    let count = r.count as usize;
                    count <= limit && (limit == INLINE_MAX || count > limit / FANOUT)
                };
                if self.runs.iter().filter(|r| of_size(r)).count() >= FANOUT {
                    let merged = self.runs.extract_if(.., |r| of_size(r)).collect();
                    self.rewrite(merged, shelf, &is_open)?;
                }
                limit *= FANOUT;
            }
        }
        // The oldest runs hold the most claims that are over.
        for _ in 0..CLEANED_MAX {
            let kept: usize = self.runs.iter().map(|r| r.count as usize).sum();
            if kept <= 2 * self.open as usize + INLINE_MAX * FANOUT {
                break;
            }
            let oldest = self.runs.remove(0);
            self.rewrite(vec![oldest], shelf, &is_open)?;
        }
        if self.runs.is_empty() {
            self.next_run = 0;
        }
        Ok(())
    }

    fn rewrite(
        &mut self,
        runs: Vec<Run>,
        shelf: &mut dyn Shelf,
        is_open: impl Fn(&dyn Shelf, u128) -> Read<bool>,
    ) -> Read<()> {
        let mut rest = Vec::new();
        for run in runs {
            for item in items(run.number, shelf)? {
                if is_open(shelf, item.id)? {
                    rest.push(item);
                }
            }
            shelf.delete(Slot::Agenda(run.number));
        }
        self.spill(rest, shelf);
        Ok(())
    }

    fn spill(&mut self, mut spilled: Vec<Item>, shelf: &mut dyn Shelf) {
        let mut bytes = Vec::new();
        spilled.sort_by_key(|i| (i.due.unwrap_or(Timestamp(i64::MAX)), i.sequence));
        for chunk in spilled.chunks(RUN_MAX) {
            let run = Run {
                number: self.next_run,
                count: chunk.len() as u32,
                due: chunk.iter().filter_map(|i| i.due).min(),
            };
            self.next_run = self.next_run.wrapping_add(1);
            bytes.clear();
            bytes.byte(VERSION);
            write_items(chunk, &mut bytes);
            shelf.put(Slot::Agenda(run.number), &bytes);
            self.runs.push(run);
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_items(&self.inline, out);
        out.unsigned(self.runs.len() as u64);
        out.unsigned(u64::from(self.next_run));
        out.unsigned(u64::from(self.open));
        for run in &self.runs {
            out.unsigned(u64::from(run.number));
            out.unsigned(u64::from(run.count));
            out.optional(run.due, |out, due| out.time(due));
        }
    }

    pub(super) fn read(input: &mut Reader<'_>) -> Read<Self> {
        let mut agenda = Agenda {
            inline: read_items(input)?,
            ..Agenda::default()
        };
        let count = input.count()?;
        agenda.next_run = input.number()?;
        agenda.open = input.number()?;
        for _ in 0..count {
            agenda.runs.push(Run {
                number: input.number()?,
                count: input.number()?,
                due: input.optional(Reader::time)?,
            });
        }
        Ok(agenda)
    }
}

fn items(number: u32, shelf: &dyn Shelf) -> Read<Vec<Item>> {
    let mut input = Reader::new(shelf.get(Slot::Agenda(number)).ok_or(Corrupt)?)?;
    let items = read_items(&mut input)?;
    input.end()?;
    Ok(items)
}

fn write_items(items: &[Item], out: &mut Vec<u8>) {
    out.unsigned(items.len() as u64);
    for item in items {
        out.id(item.id);
        out.signed(item.sequence);
        // Most promises are the times at which the holds expire.
        match item.due {
            Some(due) if due == item.promise => out.byte(2),
            due => out.byte(u8::from(due.is_some())),
        }
        if let Some(due) = item.due {
            out.time(due);
        }
        if item.due != Some(item.promise) {
            out.time(item.promise);
        }
    }
}

fn read_items(input: &mut Reader<'_>) -> Read<Vec<Item>> {
    let count = input.count()?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        let (id, sequence) = (input.id()?, input.signed()?);
        let form = input.byte()?;
        let due = match form {
            0 => None,
            1 | 2 => Some(input.time()?),
            _ => return Err(Corrupt),
        };
        let promise = match due {
            Some(due) if form == 2 => due,
            _ => input.time()?,
        };
        items.push(Item {
            id,
            due,
            promise,
            sequence,
        });
    }
    Ok(items)
}
