//! The systems that make things happen: an ERP whose people receive, ship, move and count, tills that
//! replay real sales and misbehave on the way, and shoppers who reserve.
//!
//! What each does follows from the seed, from how far it has told, and from what it heard; never from
//! when it was asked.

mod erp;
mod invoices;
mod market;
mod shoppers;
mod tills;

pub(super) use erp::Erp;
pub(crate) use invoices::{Invoice, Sold};
pub(crate) use market::{CORNER, DEPOT as THIRD_PARTY, Market, SHOP};
pub(super) use shoppers::Shoppers;
pub(super) use tills::Tills;

use super::facts;
use super::report::LeftOut;
use crate::contract::event::{Event, ReservationStatus, StockChanged, StockState, Text};
use crate::pipeline::{Cursor, Fault, Source, SourceBatch, SourceReject};
use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

pub(super) const WAREHOUSE: &str = "dc";
pub(super) const DEPOT: &str = "depot";
pub(super) const STORES: [&str; 2] = ["store-uk", "store-eu"];
pub(super) const CHANNELS: [&str; 2] = ["web", "app"];

/// What the demo's systems tell each other outside of Crossdock.
#[derive(Default)]
pub(super) struct Street {
    /// Confirmed reservations to ship: reservation, SKU, quantity.
    to_ship: VecDeque<(Uuid, Text, i64)>,
    /// Set when the day is over: nothing new begins.
    pub closing: bool,
}

pub(super) type Shared = Arc<Mutex<Street>>;

pub(super) fn street(shared: &Shared) -> MutexGuard<'_, Street> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a shopper is told of a reservation.
struct Word {
    reservation: Uuid,
    order: Text,
    version: i64,
    status: ReservationStatus,
}

/// Words on their way to the shoppers.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Vec<Word>>>);

impl Heard {
    /// Takes note of an event, if it says something to them.
    pub fn hear(&self, event: &Event) {
        if let Event::ReservationEvent(e) = event {
            let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            heard.push(Word {
                reservation: e.reservation_id,
                order: e.order_id.clone(),
                version: e.reservation_version,
                status: e.status,
            });
        }
    }
    /// All of them, in an order that does not depend on how they came.
    fn take(&self) -> Vec<Word> {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut words = std::mem::take(&mut *heard);
        words.sort_by(|a, b| (&a.order, a.version).cmp(&(&b.order, b.version)));
        words
    }
}

/// A system that tells the same again until it has been written down: telling changes it.
pub(super) struct Steady {
    inner: Box<dyn Source>,
    /// By shard: from where on, and what.
    told: BTreeMap<String, (Option<Cursor>, SourceBatch)>,
}

impl Steady {
    pub fn new(inner: Box<dyn Source>) -> Self {
        Steady {
            inner,
            told: BTreeMap::new(),
        }
    }
}

#[async_trait::async_trait]
impl Source for Steady {
    fn shards(&self) -> Vec<String> {
        self.inner.shards()
    }
    async fn poll(&mut self, shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let known = self.told.remove(shard);
        let known = known.filter(|(from, _)| from.as_ref() == cursor);
        let batch = match known {
            Some((_, batch)) => batch,
            None => self.inner.poll(shard, cursor).await?,
        };
        let nothing =
            batch.records.is_empty() && batch.rejects.is_empty() && cursor == Some(&batch.cursor);
        if nothing {
            // It is not written down either: the next time there may be something.
            return Ok(batch);
        }
        let again = again(&batch);
        self.told.insert(shard.to_owned(), (cursor.cloned(), batch));
        Ok(again)
    }
    async fn committed(&mut self, shard: &str, cursor: &Cursor) -> Result<(), Fault> {
        // It may be told of an older one again.
        if self
            .told
            .get(shard)
            .is_some_and(|(_, b)| b.cursor == *cursor)
        {
            self.told.remove(shard);
        }
        self.inner.committed(shard, cursor).await
    }
}

fn again(batch: &SourceBatch) -> SourceBatch {
    let rejects = batch.rejects.iter().map(|r| SourceReject {
        origin: r.origin.clone(),
        raw: r.raw.clone(),
        fault: Fault {
            verdict: r.fault.verdict,
            stage: r.fault.stage,
            code: r.fault.code,
            message: r.fault.message.clone(),
            source: None,
        },
    });
    SourceBatch {
        records: batch.records.clone(),
        rejects: rejects.collect(),
        cursor: batch.cursor.clone(),
        more: batch.more,
    }
}

fn random(seed: u64, salt: u64, position: i64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(
        seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (position as u64).rotate_left(32),
    )
}

/// What the data holds: units sold by SKU and store.
pub(super) type Survey = BTreeMap<(String, String), i64>;

/// Reads all sales once, for opening stock; and what of the data is none.
pub(super) async fn survey(source: &mut dyn Source) -> Result<(Survey, LeftOut), Fault> {
    let (mut survey, mut left_out) = (Survey::new(), LeftOut::default());
    let mut cursor: Option<Cursor> = None;
    loop {
        let batch = source.poll("main", cursor.as_ref()).await?;
        for record in &batch.records {
            if let Event::StockChanged(e) = &record.event {
                *survey
                    .entry((e.sku.to_string(), e.location_id.to_string()))
                    .or_default() -= sellable_change(e);
            }
        }
        batch.rejects.iter().for_each(|r| left_out.note(r));
        if !batch.more {
            return Ok((survey, left_out));
        }
        cursor = Some(batch.cursor);
    }
}

fn sellable_change(e: &StockChanged) -> i64 {
    let quantity = e.qty.units() / facts::whole(1).units();
    match (e.from_state, e.to_state) {
        (StockState::Sellable, _) => -quantity,
        (_, StockState::Sellable) => quantity,
        _ => 0,
    }
}

/// SKUs that sell best, most sold first.
pub(super) fn best_sellers(survey: &Survey, count: usize) -> Vec<String> {
    let mut by_sku: BTreeMap<&str, i64> = BTreeMap::new();
    for ((sku, _), sold) in survey {
        *by_sku.entry(sku).or_default() += sold;
    }
    let mut best: Vec<_> = by_sku.into_iter().collect();
    best.sort_by_key(|(sku, sold)| (-sold, *sku));
    best.into_iter()
        .take(count)
        .map(|(sku, _)| sku.to_owned())
        .collect()
}
