//! The systems that make things happen: tills that replay real sales and misbehave on the way, a
//! warehouse that receives, ships and transfers, and shoppers who reserve.
//!
//! What each does follows from the seed, from how far it has told, and from what it heard; never from
//! when it was asked.

use super::facts::{self, Move, Wish, command, location, movement, snapshot};
use crate::contract::event::{
    Event, LocationKind, ReservationAction, ReservationStatus, StockChanged, StockReason,
    StockState, Text,
};
use crate::domain::{Timestamp, natural_id};
use crate::pipeline::{Clock, Cursor, Fault, Source, SourceBatch, SourceRecord, SourceReject};
use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

pub(super) const WAREHOUSE: &str = "dc";
pub(super) const STORES: [&str; 2] = ["store-uk", "store-eu"];
pub(super) const CHANNELS: [&str; 2] = ["web", "app"];

/// What the demo's systems tell each other outside of Crossdock, as lorries and parcels would.
#[derive(Default)]
pub(super) struct Street {
    /// Transfers on the way: id, SKU, store, quantity.
    transfers: VecDeque<(String, String, &'static str, i64)>,
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
pub(super) struct Word {
    pub reservation: Uuid,
    pub order: Text,
    pub version: i64,
    pub status: ReservationStatus,
}

/// Words on their way to the shoppers.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Vec<Word>>>);

impl Heard {
    pub fn tell(&self, words: Vec<Word>) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.extend(words);
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

/// Reads all sales once, for opening stock.
pub(super) async fn survey(source: &mut dyn Source) -> Result<Survey, Fault> {
    let mut survey = Survey::new();
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
        if !batch.more {
            return Ok(survey);
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

/// Tills: the file connector's records, some twice, out of order, with a count in between.
pub(super) struct Tills {
    inner: Box<dyn Source>,
    seed: u64,
    survey: Survey,
    clock: Arc<dyn Clock>,
    street: Shared,
    /// Stock as the tills themselves know it.
    own_books: BTreeMap<(String, String), i64>,
    polls: usize,
    /// Poll at which a snapshot of the best sellers is sent in the middle of trading.
    snapshot_at: usize,
}

impl Tills {
    pub fn new(
        inner: Box<dyn Source>,
        seed: u64,
        survey: Survey,
        clock: Arc<dyn Clock>,
        street: Shared,
    ) -> Self {
        let units = survey.values().sum::<i64>();
        Tills {
            inner,
            seed,
            survey,
            clock,
            street,
            own_books: BTreeMap::new(),
            polls: 0,
            snapshot_at: usize::try_from(units / 8_000).unwrap_or(0).clamp(8, 30),
        }
    }

    fn opening(&mut self, now: Timestamp) -> Vec<SourceRecord> {
        let mut records: Vec<SourceRecord> = STORES
            .iter()
            .map(|s| location(s, LocationKind::Store, now))
            .collect();
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

        let arrivals = std::mem::take(&mut street(&self.street).transfers);
        for (id, sku, store, quantity) in arrivals {
            let arrival = Move {
                source: "tills",
                record: &id,
                leg: "announced",
                sku: &sku,
                location: store,
                quantity,
                from: StockState::Supplier,
                to: StockState::InTransit,
                reason: StockReason::TransferIn,
                reservation: None,
            };
            for leg in [
                arrival,
                Move {
                    leg: "in",
                    from: StockState::InTransit,
                    to: StockState::Sellable,
                    ..arrival
                },
            ] {
                batch
                    .records
                    .push(movement(leg, batch.cursor.sequence, now));
                batch.cursor.sequence += 1;
            }
        }
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

/// A warehouse: opening stock, receipts, shipments of confirmed reservations, transfers to stores.
pub(super) struct Warehouse {
    pub seed: u64,
    pub skus: Vec<String>,
    pub clock: Arc<dyn Clock>,
    pub street: Shared,
}

#[async_trait::async_trait]
impl Source for Warehouse {
    async fn poll(&mut self, _shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let now = self.clock.now();
        let mut cursor = cursor.cloned().unwrap_or(Cursor {
            bookmark: serde_json::Value::Null,
            sequence: 0,
        });
        let mut records = Vec::new();
        if cursor.sequence == 0 {
            records.push(location(WAREHOUSE, LocationKind::Dc, now));
            let buffers = [2, 1];
            for ((channel, store), buffer) in CHANNELS.iter().zip(STORES).zip(buffers) {
                records.push(facts::channel(channel, &[WAREHOUSE, store], buffer, now));
            }
            records.extend(self.skus.iter().enumerate().map(|(i, sku)| {
                snapshot(
                    "warehouse",
                    sku,
                    WAREHOUSE,
                    10 + (i as i64 * 7) % 40,
                    0,
                    now,
                )
            }));
            cursor.sequence = 1;
        }
        let mut random = random(self.seed, 2, cursor.sequence);
        let mut street = street(&self.street);
        let mut moves: Vec<(
            String,
            String,
            i64,
            StockState,
            StockState,
            StockReason,
            Option<Uuid>,
        )> = Vec::new();
        while let Some((reservation, sku, quantity)) = street.to_ship.pop_front() {
            let id = format!("ship/{reservation}");
            moves.push((
                id,
                sku.to_string(),
                quantity,
                StockState::Sellable,
                StockState::Customer,
                StockReason::Shipment,
                Some(reservation),
            ));
        }
        if !street.closing {
            for n in 0..random.random_range(0..4) {
                let sku = self.skus[random.random_range(0..self.skus.len())].clone();
                let id = format!("receipt/{}/{n}", cursor.sequence);
                moves.push((
                    id,
                    sku,
                    random.random_range(1..30),
                    StockState::Supplier,
                    StockState::Sellable,
                    StockReason::Receipt,
                    None,
                ));
            }
            if random.random_bool(0.5) {
                let sku = self.skus[random.random_range(0..self.skus.len())].clone();
                let (id, quantity) = (
                    format!("transfer/{}", cursor.sequence),
                    random.random_range(1..5),
                );
                street.transfers.push_back((
                    id.clone(),
                    sku.clone(),
                    STORES[random.random_range(0..2)],
                    quantity,
                ));
                moves.push((
                    id,
                    sku,
                    quantity,
                    StockState::Sellable,
                    StockState::InTransit,
                    StockReason::TransferOut,
                    None,
                ));
            }
        }
        drop(street);
        for (id, sku, quantity, from, to, reason, reservation) in moves {
            let leg = if reason == StockReason::TransferOut {
                "out"
            } else {
                ""
            };
            let m = Move {
                source: "warehouse",
                record: &id,
                leg,
                sku: &sku,
                location: WAREHOUSE,
                quantity,
                from,
                to,
                reason,
                reservation,
            };
            records.push(movement(m, cursor.sequence, now));
            cursor.sequence += 1;
        }
        let again: Vec<SourceRecord> = records
            .iter()
            .filter(|_| random.random_bool(0.05))
            .cloned()
            .collect();
        records.extend(again);
        Ok(SourceBatch {
            records,
            cursor,
            ..SourceBatch::default()
        })
    }
}

/// Shoppers of both storefronts: hold, then confirm, release or walk away.
pub(super) struct Shoppers {
    pub seed: u64,
    pub skus: Vec<String>,
    pub clock: Arc<dyn Clock>,
    pub street: Shared,
    /// What became of their holds.
    pub heard: Heard,
    pub wishes: BTreeMap<Uuid, Wish>,
}

#[async_trait::async_trait]
impl Source for Shoppers {
    async fn poll(&mut self, _shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let now = self.clock.now();
        let mut cursor = cursor.cloned().unwrap_or(Cursor {
            bookmark: serde_json::Value::Null,
            sequence: 1,
        });
        let mut random = random(self.seed, 3, cursor.sequence);
        let mut records = Vec::new();
        let mut say = |wish: &Wish, action, sequence: &mut i64| {
            records.push(command(wish, action, WAREHOUSE, *sequence, now));
            *sequence += 1;
        };
        for word in self.heard.take() {
            let id = word.reservation;
            let Some(wish) = self.wishes.get(&id).cloned() else {
                continue;
            };
            match word.status {
                ReservationStatus::Held => match random.random_range(0..10) {
                    0..7 => say(&wish, ReservationAction::Confirm, &mut cursor.sequence),
                    7..9 => say(&wish, ReservationAction::Release, &mut cursor.sequence),
                    _ => {}
                },
                ReservationStatus::Confirmed => {
                    self.wishes.remove(&id);
                    street(&self.street)
                        .to_ship
                        .push_back((id, wish.sku, wish.quantity));
                }
                _ => {
                    self.wishes.remove(&id);
                }
            }
        }
        if !street(&self.street).closing {
            for n in 0..25 {
                let order = format!("order-{}-{n}", cursor.sequence);
                let wish = Wish {
                    reservation: natural_id(&[&order, "1", WAREHOUSE, "1"]),
                    order: order.into(),
                    sku: self.skus[random.random_range(0..self.skus.len())]
                        .as_str()
                        .into(),
                    channel: CHANNELS[random.random_range(0..2)],
                    quantity: random.random_range(1..4),
                    expires_at: now.plus(Duration::from_secs(2)),
                };
                self.wishes.insert(wish.reservation, wish.clone());
                // Now and then the confirmation overtakes the hold on its way.
                if random.random_bool(0.05) {
                    say(&wish, ReservationAction::Confirm, &mut cursor.sequence);
                }
                say(&wish, ReservationAction::Hold, &mut cursor.sequence);
            }
        }
        let again: Vec<SourceRecord> = records
            .iter()
            .filter(|_| random.random_bool(0.05))
            .cloned()
            .collect();
        records.extend(again);
        Ok(SourceBatch {
            records,
            cursor,
            ..SourceBatch::default()
        })
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
