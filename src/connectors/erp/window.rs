//! Following a table by its rows' stamps, although rows appear late.
//!
//! A stamp is the start of the transaction that wrote the row, so a row can appear behind rows that
//! were read before. New rows are read from the newest one on; besides, the rows of the last seconds
//! are counted in every poll, and when they are not as many as are known, they are listed and what is
//! unknown is read.

use super::Row;
use super::ids::Ids;
use crate::domain::Timestamp;
use crate::pipeline::Fault;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Ranges of ids that are remembered at most. Beyond them the oldest stamps are let go, and a
/// transaction that is as old and still open then brings its rows unseen: the bookmark must fit into
/// one record.
const RANGES_MAX: usize = 4_000;

/// What is remembered of a table's newest rows.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Window {
    /// Stamp of the newest row read, in microseconds.
    high: i64,
    /// Its id.
    high_id: i64,
    /// Rows before this are not looked at again.
    floor: i64,
    /// Rows read, by stamp, from `floor` on.
    known: BTreeMap<i64, Ids>,
}

/// Stamp, in microseconds, and id of a row.
pub type Mark = (i64, i64);

/// Rows in short.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tally {
    /// How many there are.
    pub rows: i64,
    /// The sum of their ids, where the ERP reckons it: it shows that one row came while another was
    /// deleted.
    pub ids: Option<i64>,
}

/// A table that is followed.
#[async_trait::async_trait]
pub trait Table: Send + Sync {
    /// Rows that a poll takes at most.
    fn limit(&self) -> usize;
    /// For how long after its stamp a row may still appear, in microseconds.
    fn overlap_us(&self) -> i64;
    /// Stamp and id of a row.
    fn mark(&self, row: &Row) -> Mark;
    /// The row with the highest stamp.
    async fn newest(&self) -> Result<Option<Mark>, Fault>;
    /// Rows behind `high`, by stamp, at most `limit`. Where stamps are coarse, others of the same stamp
    /// may be left out: they are found by their number.
    async fn newer(&self, high: Mark, limit: usize) -> Result<Vec<Row>, Fault>;
    /// Which rows have a stamp from `from` to `to`.
    async fn tally(&self, from: i64, to: i64) -> Result<Tally, Fault>;
    /// All of these.
    async fn list(&self, from: i64, to: i64) -> Result<Vec<Mark>, Fault>;
    /// Rows by id, those that are there, in the order of their stamps.
    async fn read(&self, ids: &[i64]) -> Result<Vec<Row>, Fault>;
}

/// What a poll of a table found.
pub struct Found {
    /// Rows that are new or have changed.
    pub rows: Vec<Row>,
    /// Whether there is nothing more at present.
    pub drained: bool,
}

impl Window {
    /// Begins at the newest row that there is: what is there now is for the caller to read.
    pub async fn begin(table: &(impl Table + ?Sized)) -> Result<Window, Fault> {
        let mut window = Window::default();
        if let Some((stamp, id)) = table.newest().await? {
            window.high = stamp;
            window.high_id = id;
            window.floor = window.high - table.overlap_us();
            for (stamp, id) in table.list(window.floor, window.high).await? {
                window.known.entry(stamp).or_default().insert(id);
            }
            window.advance(window.floor);
        }
        Ok(window)
    }

    /// Stamp of the newest row read.
    pub fn high(&self) -> Timestamp {
        Timestamp(self.high)
    }

    /// Rows before this are not looked at again.
    pub fn floor(&self) -> i64 {
        self.floor
    }

    /// Remembers a row that was read.
    pub fn note(&mut self, (stamp, id): Mark) {
        if stamp >= self.floor {
            self.known.entry(stamp).or_default().insert(id);
        }
    }

    /// Reads rows that are new, have changed or appeared late, and remembers them.
    pub async fn poll(&mut self, table: &(impl Table + ?Sized)) -> Result<Found, Fault> {
        let high = (self.high, self.high_id);
        let mut rows = table.newer(high, table.limit()).await?;
        let full = rows.len() >= table.limit();
        if let Some(last) = rows.last() {
            (self.high, self.high_id) = table.mark(last);
        }
        let marks: Vec<Mark> = rows.iter().map(|row| table.mark(row)).collect();
        self.forget(&marks);
        for mark in marks {
            self.note(mark);
        }
        let mut drained = !full;
        if !full {
            let late = self.late(table, self.floor).await?;
            drained = late.is_none_or(|(late, all)| {
                rows.extend(late);
                all
            });
        }
        if drained {
            // What appears from now on is of transactions that had not ended now.
            self.advance(self.high - table.overlap_us());
        }
        Ok(Found { rows, drained })
    }

    /// Whether all rows are as they were at the last poll.
    pub async fn is_current(&self, table: &(impl Table + ?Sized)) -> Result<bool, Fault> {
        let newer = table.newer((self.high, self.high_id), 1).await?;
        Ok(newer.is_empty() && self.counts(table, self.floor).await?)
    }

    async fn counts(&self, table: &(impl Table + ?Sized), floor: i64) -> Result<bool, Fault> {
        let known = || self.known.range(floor..).map(|(_, ids)| ids);
        let tally = table.tally(floor, self.high).await?;
        let same = tally.rows == known().map(Ids::count).sum::<i64>();
        Ok(same
            && tally
                .ids
                .is_none_or(|sum| sum == known().map(Ids::sum).sum::<i64>()))
    }

    /// Rows from `floor` on that are not known, and whether that is all of them; `None` when all are
    /// known.
    async fn late(
        &mut self,
        table: &(impl Table + ?Sized),
        floor: i64,
    ) -> Result<Option<(Vec<Row>, bool)>, Fault> {
        if self.counts(table, floor).await? {
            return Ok(None);
        }
        let listed = table.list(floor, self.high).await?;
        let is_known = |(stamp, id): &Mark| {
            let known = self.known.get(stamp);
            known.is_some_and(|ids| ids.contains(*id))
        };
        let unknown: Vec<Mark> = listed.iter().filter(|r| !is_known(r)).copied().collect();
        // The next poll finds the others, for they stay unknown.
        let taken = &unknown[..unknown.len().min(table.limit())];
        let all = taken.len() == unknown.len();
        let ids: Vec<i64> = taken.iter().map(|(_, id)| *id).collect();
        let read = match ids.is_empty() {
            true => Vec::new(),
            false => table.read(&ids).await?,
        };
        if all {
            // Rows that have gone from here have a newer stamp, or were deleted.
            let high = self.high;
            self.known
                .retain(|stamp, _| *stamp < floor || *stamp > high);
        }
        for (stamp, id) in if all { &listed } else { taken } {
            self.known.entry(*stamp).or_default().insert(*id);
        }
        Ok(Some((read, all)))
    }

    /// Rows that were written again stand under their new stamp only.
    fn forget(&mut self, rows: &[Mark]) {
        let again: BTreeSet<i64> = rows.iter().map(|(_, id)| *id).collect();
        for ids in self.known.values_mut() {
            let gone: Vec<i64> = match ids.count() as usize > again.len() {
                true => again
                    .iter()
                    .copied()
                    .filter(|id| ids.contains(*id))
                    .collect(),
                false => ids.above(0).filter(|id| again.contains(id)).collect(),
            };
            for id in gone {
                ids.remove(id);
            }
        }
        self.known.retain(|_, ids| !ids.is_empty());
    }

    fn advance(&mut self, floor: i64) {
        self.floor = self.floor.max(floor);
        self.known = self.known.split_off(&self.floor);
        let mut ranges: usize = self.known.values().map(Ids::ranges).sum();
        while ranges > RANGES_MAX
            && let Some((stamp, ids)) = self.known.pop_first()
        {
            ranges -= ids.ranges();
            self.floor = stamp + 1;
        }
    }
}
