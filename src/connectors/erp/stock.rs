//! Stock moves and counts of an ERP, in the order in which they are read.
//!
//! All moves are read once by id, from the first one on: what lies in a place is the sum of its done
//! moves, so the base needs no other opening. From then on the table is followed by stamps.
//!
//! Beyond the overlap, open moves are looked up by id as well, a few at a time when nothing else
//! happens: so a move that was done in a longer transaction, or within the stamp that it was read
//! with, is found, and one that was deleted is let go. Moves that could not be told are tried again in
//! the same way.

use super::moves::Move;
use super::told::{Phase, ToTell, Told};
use super::window::{Table, Window};
use super::{Row, bookmark, kept};
use crate::pipeline::{Cursor, Fault, SourceBatch, SourceOrigin, SourceRecord, SourceReject};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Open moves looked up at a time.
const LOOKED_UP_MAX: usize = 200;
/// Idle polls between two times.
const LOOK_UP_POLLS: u32 = 20;
/// Idle polls between two looks for counts.
const COUNT_POLLS: u32 = 4;

/// The table of an ERP's stock moves.
#[async_trait::async_trait]
pub trait Moves: Table {
    /// What is remembered of counts.
    type Counts: Default + Serialize + DeserializeOwned + Send;

    /// Name of the table.
    fn model(&self) -> &'static str;
    /// How far a move has got.
    fn phase(&self, row: &Row) -> Phase;
    /// When the transaction that created it began.
    fn created_at(&self, row: &Row) -> i64;
    /// The next rows by id, at most [`Table::limit`].
    async fn page(&self, after: i64) -> Result<Vec<Row>, Fault>;
    /// What each row is; `None` for one that is no concern of ours.
    async fn interpret(&self, rows: &[&Row]) -> Result<Vec<Option<Result<Move, Fault>>>, Fault>;
    /// What is remembered of counts at the beginning.
    async fn begin_counts(&self) -> Result<Self::Counts, Fault>;
    /// Takes notice of rows that were told after the first reading.
    fn notice(&self, rows: &[&Row], counts: &mut Self::Counts);
    /// Whether counts wait to be compared.
    fn wait(counts: &Self::Counts) -> bool;
    /// Compares stock after a count with what the moves say. The quantities that the ERP reports are
    /// those of this very moment, so there is nothing to tell when a move has come in between, which
    /// `moves` tells. Gives what there is to tell, and whether there is more.
    async fn compare(
        &self,
        counts: &mut Self::Counts,
        moves: &Window,
        as_of: i64,
    ) -> Result<(Vec<SourceRecord>, bool), Fault>;
}

/// Where reading goes on.
#[derive(Default, Deserialize, Serialize)]
struct Bookmark<C> {
    /// While moves are read by id: the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_reading: Option<i64>,
    moves: Window,
    told: Told,
    counts: C,
}

/// Reads stock.
pub struct Stock<M> {
    instance: String,
    moves: M,
    /// Where looking up open moves goes on.
    looked_up: i64,
    /// Polls in a row that found no move.
    idle_polls: u32,
}

impl<M: Moves> Stock<M> {
    /// The reader of `moves` for the connector `instance`.
    pub fn new(instance: &str, moves: M) -> Self {
        Stock {
            instance: instance.to_owned(),
            moves,
            looked_up: 0,
            idle_polls: 0,
        }
    }

    /// What is new since `cursor`.
    ///
    /// # Errors
    /// As the calls. Cancel-safe: nothing is remembered but by the cursor.
    pub async fn poll(&mut self, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let (mut mark, sequence) = match cursor {
            Some(c) => (bookmark(&self.instance, &c.bookmark)?, c.sequence),
            None => (self.begin().await?, 1),
        };
        let mut batch = SourceBatch::default();
        let mut position = sequence;
        let overlap_us = self.moves.overlap_us();
        if let Some(after) = mark.first_reading {
            let page = self.moves.page(after).await?;
            batch.more = page.len() >= self.moves.limit();
            let last = page.last().map(|row| self.moves.mark(row).1);
            mark.first_reading = last.filter(|_| batch.more);
            for row in &page {
                mark.moves.note(self.moves.mark(row));
            }
            self.take_in(&page, true, &mut mark, &mut position, &mut batch)
                .await?;
            batch.more |= mark.first_reading.is_none();
            forget_absent(&mut mark, overlap_us);
        } else {
            let found = mark.moves.poll(&self.moves).await?;
            self.take_in(&found.rows, false, &mut mark, &mut position, &mut batch)
                .await?;
            batch.more = !found.drained;
            if found.drained {
                forget_absent(&mut mark, overlap_us);
            }
            if found.drained && found.rows.is_empty() {
                self.when_idle(&mut mark, &mut position, &mut batch).await?;
            } else {
                self.idle_polls = 0;
            }
        }
        mark.told.check(&self.instance)?;
        batch.cursor = Cursor {
            bookmark: kept(&mark)?,
            sequence: position,
        };
        Ok(batch)
    }

    /// Stamps are taken before the first reading: what changes during it is read again after it.
    async fn begin(&self) -> Result<Bookmark<M::Counts>, Fault> {
        Ok(Bookmark {
            first_reading: Some(0),
            moves: Window::begin(&self.moves).await?,
            told: Told::default(),
            counts: self.moves.begin_counts().await?,
        })
    }

    async fn when_idle(
        &mut self,
        mark: &mut Bookmark<M::Counts>,
        position: &mut i64,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        if self.idle_polls.is_multiple_of(LOOK_UP_POLLS) {
            self.look_up(mark, position, batch).await?;
        }
        if self.idle_polls.is_multiple_of(COUNT_POLLS) || M::wait(&mark.counts) {
            let as_of = *position - 1;
            let compared = self
                .moves
                .compare(&mut mark.counts, &mark.moves, as_of)
                .await?;
            batch.records.extend(compared.0);
            batch.more |= compared.1;
        }
        self.idle_polls = self.idle_polls.wrapping_add(1);
        Ok(())
    }

    /// Tells what rows of moves mean, and remembers that it was told.
    async fn take_in(
        &mut self,
        rows: &[Row],
        first: bool,
        mark: &mut Bookmark<M::Counts>,
        position: &mut i64,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        let (mut told, mut what) = (Vec::new(), Vec::new());
        for row in rows {
            let (_, id) = self.moves.mark(row);
            let (created_at, phase) = (self.moves.created_at(row), self.moves.phase(row));
            match mark.told.settle(id, created_at, phase) {
                ToTell::Nothing => {}
                to_tell => {
                    told.push(row);
                    what.push(to_tell);
                }
            }
        }
        if told.is_empty() {
            return Ok(());
        }
        let read = self.moves.interpret(&told).await?;
        if !first {
            self.moves.notice(&told, &mut mark.counts);
        }
        for ((row, what), moved) in told.into_iter().zip(what).zip(read) {
            let (_, id) = self.moves.mark(row);
            match moved {
                None => {}
                Some(Ok(moved)) => {
                    mark.told.rejected.remove(id);
                    batch.records.extend(match what {
                        ToTell::Cancelled => moved.corrections(&self.instance, position),
                        _ => moved.events(&self.instance, position),
                    });
                }
                // It was dead-lettered when it was read first.
                Some(Err(_)) if mark.told.rejected.contains(id) => {}
                Some(Err(fault)) => {
                    mark.told.rejected.insert(id);
                    batch.rejects.push(SourceReject {
                        origin: SourceOrigin {
                            container: self.moves.model().into(),
                            item: id.to_string(),
                        },
                        raw: Bytes::from(Value::Object(row.clone()).to_string()),
                        fault,
                    });
                }
            }
        }
        Ok(())
    }

    /// Looks up the next few open or rejected moves by id.
    async fn look_up(
        &mut self,
        mark: &mut Bookmark<M::Counts>,
        position: &mut i64,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        let open = mark.told.open.above(self.looked_up);
        let mut wanted: Vec<i64> = open.take(LOOKED_UP_MAX).collect();
        wanted.extend(mark.told.rejected.above(0).take(LOOKED_UP_MAX));
        self.looked_up = match wanted.len() < LOOKED_UP_MAX {
            true => 0,
            false => wanted[LOOKED_UP_MAX - 1],
        };
        if wanted.is_empty() {
            return Ok(());
        }
        let rows = self.moves.read(&wanted).await?;
        for id in &wanted {
            if !rows.iter().any(|row| self.moves.mark(row).1 == *id) {
                mark.told.open.remove(*id);
                mark.told.rejected.remove(*id);
            }
        }
        self.take_in(&rows, false, mark, position, batch).await
    }
}

/// An id is taken before its neighbour's row is there, and both transactions end within the overlap.
fn forget_absent<C>(mark: &mut Bookmark<C>, overlap_us: i64) {
    let over = mark
        .moves
        .high()
        .0
        .saturating_sub(overlap_us.saturating_mul(2));
    mark.told.forget_absent(over);
}
