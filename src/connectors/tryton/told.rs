//! What was told of stock, and what there is to tell: the bookmark of the moves.
//!
//! A done move is told once, although its stamp moves again and again. What was told is known by id:
//! everything up to a frontier, but for moves that are still open, ids that were not there yet, and
//! moves that could not be told.

use super::client::Row;
use super::ids::Ids;
use super::window::Window;
use super::{configuration, rows};
use crate::pipeline::Fault;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Ranges of ids of all kinds in a bookmark: it must fit into one record.
const RANGES_MAX: usize = 60_000;

/// Where reading goes on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Bookmark {
    /// While moves are read by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_reading: Option<FirstReading>,
    pub moves: Window,
    /// Highest id of a move that was seen.
    frontier: i64,
    /// Moves up to the frontier that are planned and not done.
    pub open: Ids,
    /// Ids up to the frontier that were not there, by when their neighbour was created: they are of
    /// transactions that have not ended, or of rows that never came to be.
    absent: BTreeMap<i64, Ids>,
    /// Cancelled moves that look as if they had been done.
    cancelled: Ids,
    /// Done moves that could not be told.
    pub rejected: Ids,
    pub counts: Window,
    /// Counts to be compared, by id, with when they were confirmed.
    pub waiting: BTreeMap<i64, i64>,
    /// Lines of the first waiting count up to this id are done.
    pub after_line: i64,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct FirstReading {
    pub after: i64,
}

/// What there is to do about a move.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Told {
    Nothing,
    Done,
    Cancelled,
}

impl Bookmark {
    /// The beginning: the tables as they are before the first reading.
    pub fn begin(moves: Window, counts: Window) -> Self {
        Bookmark {
            first_reading: Some(FirstReading::default()),
            moves,
            counts,
            ..Bookmark::default()
        }
    }

    /// What a row of a move asks for, given what was told before; remembers that it is told now.
    pub fn settle(&mut self, row: &Row) -> Told {
        let id = rows::id(row);
        let was_told = id <= self.frontier && !self.was_open(id);
        if id > self.frontier {
            let neighbour = row
                .get("create_date")
                .and_then(rows::stamp)
                .unwrap_or_default();
            let between = self.absent.entry(neighbour.0).or_default();
            between.insert_range(self.frontier + 1, id - 1);
            if between.is_empty() {
                self.absent.remove(&neighbour.0);
            }
            self.frontier = id;
        }
        match rows::text(row, "state") {
            Some("done") if was_told && !self.rejected.contains(id) => Told::Nothing,
            Some("done") => Told::Done,
            Some("cancelled") => {
                // The date is set when a move is done; a draft can have one too.
                let seems_done = row.get("effective_date").is_some_and(|d| !d.is_null());
                let again = self.cancelled.contains(id);
                if seems_done {
                    self.cancelled.insert(id);
                }
                let never_told = self.rejected.remove(id);
                match was_told && seems_done && !again && !never_told {
                    true => Told::Cancelled,
                    false => Told::Nothing,
                }
            }
            _ => {
                self.open.insert(id);
                Told::Nothing
            }
        }
    }

    /// Takes `id` out of what is open or was absent. Returns whether it was there.
    fn was_open(&mut self, id: i64) -> bool {
        let mut found = self.open.remove(id);
        for ids in self.absent.values_mut() {
            found |= ids.remove(id);
        }
        self.absent.retain(|_, ids| !ids.is_empty());
        found
    }

    /// Lets go of absent ids that can appear no more. An id is taken before its neighbour's row is
    /// there, and both transactions end within the overlap.
    pub fn forget_absent(&mut self, overlap_us: i64) {
        let over = self
            .moves
            .high()
            .0
            .saturating_sub(overlap_us.saturating_mul(2));
        self.absent = self.absent.split_off(&over);
    }

    /// # Errors
    /// A halt when there is too much to remember.
    pub fn check(&self, instance: &str) -> Result<(), Fault> {
        let absent: usize = self.absent.values().map(Ids::ranges).sum();
        let ranges = self.open.ranges() + self.cancelled.ranges() + self.rejected.ranges() + absent;
        if ranges <= RANGES_MAX {
            return Ok(());
        }
        Err(configuration(format!(
            "{instance} has {} open, {} rejected and {} unseen moves in Tryton, more than a bookmark holds; cancel or delete planned moves that will never be done",
            self.open.count(),
            self.rejected.count(),
            self.absent.values().map(Ids::count).sum::<i64>()
        )))
    }
}
