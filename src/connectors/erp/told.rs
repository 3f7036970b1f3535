//! What was told of stock, and what there is to tell: the bookmark of the moves.
//!
//! A done move is told once, although its stamp moves again and again. What was told is known by id:
//! everything up to a frontier, but for moves that are still open, ids that were not there yet, and
//! moves that could not be told.

use super::configuration;
use super::ids::Ids;
use crate::pipeline::Fault;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Ranges of ids of all kinds in a bookmark: it must fit into one record.
const RANGES_MAX: usize = 60_000;

/// How far a move has got.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// Planned.
    Open,
    /// It has moved what it says.
    Done,
    /// It moves nothing.
    Cancelled {
        /// Whether it looks as if it had been done before.
        seems_done: bool,
    },
}

/// Which moves were told.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Told {
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
}

/// What there is to do about a move.
#[derive(Clone, Copy, PartialEq)]
pub enum ToTell {
    Nothing,
    Done,
    Cancelled,
}

impl Told {
    /// What a move asks for, given what was told before; remembers that it is told now.
    pub fn settle(&mut self, id: i64, created_at: i64, phase: Phase) -> ToTell {
        let was_told = id <= self.frontier && !self.was_open(id);
        if id > self.frontier {
            let between = self.absent.entry(created_at).or_default();
            between.insert_range(self.frontier + 1, id - 1);
            if between.is_empty() {
                self.absent.remove(&created_at);
            }
            self.frontier = id;
        }
        match phase {
            Phase::Done if was_told && !self.rejected.contains(id) => ToTell::Nothing,
            Phase::Done => ToTell::Done,
            Phase::Cancelled { seems_done } => {
                let again = self.cancelled.contains(id);
                if seems_done {
                    self.cancelled.insert(id);
                }
                let never_told = self.rejected.remove(id);
                match was_told && seems_done && !again && !never_told {
                    true => ToTell::Cancelled,
                    false => ToTell::Nothing,
                }
            }
            Phase::Open => {
                self.open.insert(id);
                ToTell::Nothing
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

    /// Lets go of absent ids that can appear no more: those whose neighbour was created before `over`.
    pub fn forget_absent(&mut self, over: i64) {
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
            "the ERP that {instance} reads has {} open, {} rejected and {} unseen moves, more than a bookmark holds; cancel or delete planned moves that will never be done",
            self.open.count(),
            self.rejected.count(),
            self.absent.values().map(Ids::count).sum::<i64>()
        )))
    }
}
