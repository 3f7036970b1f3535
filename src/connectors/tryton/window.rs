//! Following a table by its rows' stamps, although rows appear late.
//!
//! A stamp is the start of the transaction that wrote the row, so a row can appear behind rows that
//! were read before. New rows are read by (stamp, id) from the newest one on; besides, the rows of
//! the last seconds are counted in every poll, and when they are not as many as are known, they are
//! listed and what is unknown is read.

use super::client::{Client, Row, Search};
use super::ids::Ids;
use super::rows;
use crate::domain::Timestamp;
use crate::pipeline::Fault;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Ranges of ids that are remembered at most. Beyond them the oldest stamps are let go, and a
/// transaction that is as old and still open then brings its rows unseen: the bookmark must fit into
/// one record.
const RANGES_MAX: usize = 4_000;
/// Rows listed in one call.
const LISTED_ROWS: usize = 1_000;

/// What is remembered of a table's newest rows.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Window {
    /// Stamp of the newest row read, in microseconds.
    high: i64,
    /// Its id.
    high_id: i64,
    /// Rows before this are not looked at again.
    floor: i64,
    /// Rows read, by stamp, from `floor` on.
    known: BTreeMap<i64, Ids>,
}

/// A table that is followed.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    pub client: &'a Client,
    pub model: &'a str,
    /// Fields of each row; `last_modified_at` among them.
    pub fields: &'a [&'a str],
    /// Rows that a poll takes at most.
    pub limit: usize,
}

/// What a poll of a table found.
pub(super) struct Found {
    /// Rows that are new or have changed.
    pub rows: Vec<Row>,
    /// Whether there is nothing more at present.
    pub drained: bool,
}

impl Window {
    /// Begins at the newest row that there is: what is there now is for the caller to read.
    pub async fn begin(table: Table<'_>) -> Result<Window, Fault> {
        let newest = Search {
            model: table.model,
            domain: json!([]),
            order: json!([["last_modified_at", "DESC"], ["id", "DESC"]]),
            limit: 1,
            fields: &["last_modified_at"],
        };
        let newest = table.client.search(newest).await?;
        let mut window = Window::default();
        if let Some(row) = newest.first() {
            window.high = rows::modified_at(row).unwrap_or_default().0;
            window.high_id = rows::id(row);
            window.floor = window.high - table.client.settings.overlap_us();
            for (stamp, id) in window.list(table, window.floor).await? {
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

    /// Remembers a row that was read.
    pub fn note(&mut self, row: &Row) {
        let stamp = rows::modified_at(row).unwrap_or_default().0;
        if stamp >= self.floor {
            self.known.entry(stamp).or_default().insert(rows::id(row));
        }
    }

    /// Reads rows that are new, have changed or appeared late, and remembers them.
    pub async fn poll(&mut self, table: Table<'_>) -> Result<Found, Fault> {
        let mut rows = table.client.search(self.newer(table)).await?;
        let full = rows.len() >= table.limit;
        if let Some(last) = rows.last() {
            self.high = rows::modified_at(last).unwrap_or_default().0;
            self.high_id = rows::id(last);
        }
        self.forget(&rows);
        for row in &rows {
            self.note(row);
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
            self.advance(self.high - table.client.settings.overlap_us());
        }
        Ok(Found { rows, drained })
    }

    /// Whether all rows are as they were at the last poll.
    pub async fn is_current(&self, table: Table<'_>) -> Result<bool, Fault> {
        let newer = Search {
            limit: 1,
            ..self.newer(table)
        };
        Ok(table.client.search(newer).await?.is_empty() && self.counts(table, self.floor).await?)
    }

    fn newer<'a>(&self, table: Table<'a>) -> Search<'a> {
        let high = rows::stamp_value(self.high());
        Search {
            model: table.model,
            domain: json!([
                "OR",
                [["last_modified_at", ">", high]],
                [["last_modified_at", "=", high], ["id", ">", self.high_id]],
            ]),
            order: json!([["last_modified_at", "ASC"], ["id", "ASC"]]),
            limit: table.limit,
            fields: table.fields,
        }
    }

    async fn counts(&self, table: Table<'_>, floor: i64) -> Result<bool, Fault> {
        let known: i64 = self.known.range(floor..).map(|(_, ids)| ids.count()).sum();
        let domain = json!([
            [
                "last_modified_at",
                ">=",
                rows::stamp_value(Timestamp(floor))
            ],
            ["last_modified_at", "<=", rows::stamp_value(self.high())],
        ]);
        Ok(table.client.count(table.model, domain).await? == known)
    }

    /// Rows from `floor` on that are not known, and whether that is all of them; `None` when all are
    /// known.
    async fn late(
        &mut self,
        table: Table<'_>,
        floor: i64,
    ) -> Result<Option<(Vec<Row>, bool)>, Fault> {
        if self.counts(table, floor).await? {
            return Ok(None);
        }
        let listed = self.list(table, floor).await?;
        let is_known = |(stamp, id): &(i64, i64)| {
            let known = self.known.get(stamp);
            known.is_some_and(|ids| ids.contains(*id))
        };
        let unknown: Vec<(i64, i64)> = listed.iter().filter(|r| !is_known(r)).copied().collect();
        // The next poll finds the others, for they stay unknown.
        let taken = &unknown[..unknown.len().min(table.limit)];
        let all = taken.len() == unknown.len();
        let ids: Vec<i64> = taken.iter().map(|(_, id)| *id).collect();
        let read = self.read(table, &ids).await?;
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

    /// Stamp and id of all rows from `floor` up to the newest one read, in order.
    async fn list(&self, table: Table<'_>, floor: i64) -> Result<Vec<(i64, i64)>, Fault> {
        let mut listed = Vec::new();
        let (mut stamp, mut id) = (floor, 0);
        loop {
            let after = rows::stamp_value(Timestamp(stamp));
            let page = table.client.search(Search {
                model: table.model,
                domain: json!([
                    ["last_modified_at", "<=", rows::stamp_value(self.high())],
                    [
                        "OR",
                        [["last_modified_at", ">", after]],
                        [["last_modified_at", "=", after], ["id", ">", id]]
                    ],
                ]),
                order: json!([["last_modified_at", "ASC"], ["id", "ASC"]]),
                limit: LISTED_ROWS,
                fields: &["last_modified_at"],
            });
            let page = page.await?;
            let stamps = page
                .iter()
                .map(|r| rows::modified_at(r).unwrap_or_default().0);
            listed.extend(stamps.zip(page.iter().map(rows::id)));
            match listed.last().filter(|_| page.len() >= LISTED_ROWS) {
                Some(last) => (stamp, id) = *last,
                None => return Ok(listed),
            }
        }
    }

    async fn read(&self, table: Table<'_>, ids: &[i64]) -> Result<Vec<Row>, Fault> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let search = Search {
            model: table.model,
            domain: json!([["id", "in", ids]]),
            order: json!([["last_modified_at", "ASC"], ["id", "ASC"]]),
            limit: ids.len(),
            fields: table.fields,
        };
        table.client.search(search).await
    }

    /// Rows that were written again stand under their new stamp only.
    fn forget(&mut self, rows: &[Row]) {
        let again: BTreeSet<i64> = rows.iter().map(rows::id).collect();
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

/// A bookmark of this connector.
///
/// # Errors
/// A halt when it is of something else.
pub(super) fn bookmark<B: serde::de::DeserializeOwned>(
    name: &str,
    value: &Value,
) -> Result<B, Fault> {
    B::deserialize(value).map_err(|e| {
        super::configuration(format!(
            "the bookmark of {name} cannot be read: it was written by another kind of connector or a later version; give the connector another name to read from the beginning"
        ))
        .caused_by(e)
    })
}
