//! The tills of a POS estate.

use super::{Survey, random, sellable_change};
use crate::contract::event::Event;
use crate::demo::facts::snapshot;
use crate::domain::Timestamp;
use crate::pipeline::{Clock, Cursor, Fault, Source, SourceBatch, SourceRecord};
use rand::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The file connector's records, some twice, out of order, with a count in between.
pub(in crate::demo) struct Tills {
    inner: Box<dyn Source>,
    seed: u64,
    survey: Survey,
    clock: Arc<dyn Clock>,
    /// Stock as the tills themselves know it.
    own_books: BTreeMap<(String, String), i64>,
    polls: usize,
    /// Poll at which a snapshot of the best sellers is sent in the middle of trading.
    snapshot_at: usize,
}

impl Tills {
    pub fn new(inner: Box<dyn Source>, seed: u64, survey: Survey, clock: Arc<dyn Clock>) -> Self {
        let units = survey.values().sum::<i64>();
        Tills {
            inner,
            seed,
            survey,
            clock,
            own_books: BTreeMap::new(),
            polls: 0,
            snapshot_at: usize::try_from(units / 8_000).unwrap_or(0).clamp(8, 30),
        }
    }

    fn opening(&mut self, now: Timestamp) -> Vec<SourceRecord> {
        let mut records = Vec::new();
        for ((sku, store), sold) in &self.survey {
            // Not always enough: a real shop runs out.
            let opening = (sold * 9 / 10).max(0) + 5;
            self.own_books.insert((sku.clone(), store.clone()), opening);
            records.push(snapshot("tills", sku, store, opening, 0, now));
        }
        records
    }

    fn counts(&self, as_of: i64, now: Timestamp) -> Vec<SourceRecord> {
        let mut best: Vec<_> = self.survey.iter().collect();
        best.sort_by_key(|(key, sold)| (-**sold, (*key).clone()));
        let counted = best.into_iter().take(100).filter_map(|((sku, store), _)| {
            let quantity = *self.own_books.get(&(sku.clone(), store.clone()))?;
            Some(snapshot("tills", sku, store, quantity, as_of, now))
        });
        counted.collect()
    }
}

#[async_trait::async_trait]
impl Source for Tills {
    async fn poll(&mut self, shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let now = self.clock.now();
        let first = cursor.is_none();
        let start = cursor.map_or(1, |c| c.sequence);
        let mut batch = self.inner.poll(shard, cursor).await?;
        let mut random = random(self.seed, 1, start);
        self.polls += 1;
        let opening = if first { self.opening(now) } else { Vec::new() };
        let counts = if self.polls == self.snapshot_at {
            self.counts(start - 1, now)
        } else {
            Vec::new()
        };
        for record in &batch.records {
            if let Event::StockChanged(e) = &record.event {
                *self
                    .own_books
                    .entry((e.sku.to_string(), e.location_id.to_string()))
                    .or_default() += sellable_change(e);
            }
        }
        // The network: some arrive twice, all of them a little out of order.
        let again: Vec<SourceRecord> = batch
            .records
            .iter()
            .filter(|_| random.random_bool(0.03))
            .cloned()
            .collect();
        batch.records.extend(again);
        batch.records.extend(counts);
        for window in batch.records.chunks_mut(40) {
            window.shuffle(&mut random);
        }
        batch.records.splice(0..0, opening);
        Ok(batch)
    }
}
