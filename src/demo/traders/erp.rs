//! The ERP: people receive, ship, move and count goods in a stand-in of Tryton, and the connector reads
//! over HTTP what they did.

use super::{DEPOT, Shared, WAREHOUSE, random, street};
use crate::contract::event::Event;
use crate::pipeline::{Clock, Code, Cursor, Fake, Fault, Source, SourceBatch, Stage};
use rand::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use uuid::Uuid;

/// The part of the ERP in which goods move.
const STOCK: &str = "stock";
/// Rounds that a transfer is on the way.
const ROUNDS_ON_THE_WAY: u64 = 3;

/// The connector's source, and the people behind it.
pub(in crate::demo) struct Erp {
    inner: Box<dyn Source>,
    fake: Arc<dyn Fake>,
    seed: u64,
    skus: Vec<String>,
    clock: Arc<dyn Clock>,
    street: Shared,
    round: u64,
    /// Whether what people did last was read.
    read: bool,
    /// What left for a reservation, by movement: the order system knows, the ERP does not say.
    parcels: BTreeMap<String, Uuid>,
    /// Open halves of transfers, with the round in which they arrive.
    on_the_way: VecDeque<(u64, Value)>,
}

impl Erp {
    pub fn new(
        inner: Box<dyn Source>,
        fake: Arc<dyn Fake>,
        seed: u64,
        skus: Vec<String>,
        clock: Arc<dyn Clock>,
        street: Shared,
    ) -> Self {
        Erp {
            inner,
            fake,
            seed,
            skus,
            clock,
            street,
            round: 0,
            read: true,
            parcels: BTreeMap::new(),
            on_the_way: VecDeque::new(),
        }
    }

    /// One transaction of the ERP: what people did since the last.
    fn work(&mut self) -> Result<(), Fault> {
        let at = self.clock.now().0;
        self.act(json!({"begin": "round", "at": at}))?;
        if self.round == 0 {
            for (i, sku) in self.skus.clone().into_iter().enumerate() {
                let quantity = 10 + (i * 7) % 40;
                self.act(json!({"receive": sku, "location": WAREHOUSE, "quantity": quantity, "in": "round"}))?;
                self.act(json!({"receive": sku, "location": DEPOT, "quantity": 1 + i % 9, "in": "round"}))?;
            }
        }
        self.ship()?;
        while let Some((_, id)) = self.on_the_way.pop_front_if(|(due, _)| *due <= self.round) {
            self.act(json!({"arrive": id, "in": "round"}))?;
        }
        if !street(&self.street).closing {
            self.trade()?;
        }
        self.act(json!({"commit": "round"}))?;
        self.round += 1;
        Ok(())
    }

    /// Confirmed reservations leave the warehouse.
    fn ship(&mut self) -> Result<(), Fault> {
        let parcels = std::mem::take(&mut street(&self.street).to_ship);
        for (reservation, sku, quantity) in parcels {
            let moves = self.act(json!({"ship": sku.as_str(), "location": WAREHOUSE, "quantity": quantity, "in": "round"}))?;
            for id in moves.as_array().into_iter().flatten() {
                self.parcels.insert(format!("stock.move,{id}"), reservation);
            }
        }
        Ok(())
    }

    fn trade(&mut self) -> Result<(), Fault> {
        let mut random = random(self.seed, 2, self.round as i64);
        let skus = self.skus.clone();
        let pick =
            |random: &mut rand_chacha::ChaCha8Rng| skus[random.random_range(0..skus.len())].clone();
        for _ in 0..random.random_range(0..4) {
            let (sku, quantity) = (pick(&mut random), random.random_range(1..30));
            self.act(
                json!({"receive": sku, "location": WAREHOUSE, "quantity": quantity, "in": "round"}),
            )?;
        }
        if random.random_bool(0.5) {
            let (sku, quantity) = (pick(&mut random), random.random_range(1..5));
            let moves = self.act(json!({"transfer": sku, "from": WAREHOUSE, "to": DEPOT, "quantity": quantity, "in_transit": true, "in": "round"}))?;
            let open = moves.as_array().and_then(|m| m.last()).cloned();
            self.on_the_way
                .extend(open.map(|id| (self.round + ROUNDS_ON_THE_WAY, id)));
        }
        if random.random_bool(0.2) {
            // Somebody counts, and finds something else than the books say.
            let sku = pick(&mut random);
            let known = self.fake.books()[&sku][DEPOT].as_f64().unwrap_or_default();
            let counted = (known + f64::from(random.random_range(-2..3))).max(0.0);
            self.act(json!({"count": sku, "location": DEPOT, "quantity": counted, "in": "round"}))?;
        }
        if random.random_bool(0.2) {
            let sku = pick(&mut random);
            self.act(json!({"scrap": sku, "location": WAREHOUSE, "quantity": 1, "in": "round"}))?;
        }
        Ok(())
    }

    fn act(&self, action: Value) -> Result<Value, Fault> {
        self.fake.act(&action).map_err(|why| {
            let message = format!("the stand-in of the ERP refused {action}: {why}");
            Fault::halt(Stage::Read, Code::Bug, message)
        })
    }
}

#[async_trait::async_trait]
impl Source for Erp {
    fn shards(&self) -> Vec<String> {
        self.inner.shards()
    }

    async fn poll(&mut self, shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        if shard == STOCK && self.read {
            self.work()?;
            self.read = false;
        }
        let mut batch = self.inner.poll(shard, cursor).await?;
        if shard == STOCK {
            self.read = !batch.more;
        }
        for record in &mut batch.records {
            if let Event::StockChanged(e) = &mut record.event {
                e.reservation_id = self.parcels.get(e.movement_id.as_str()).copied();
            }
        }
        // Some of it comes twice.
        let mut random = random(self.seed, 5, batch.cursor.sequence);
        let twice = batch.records.iter().filter(|_| random.random_bool(0.05));
        let twice: Vec<_> = twice.cloned().collect();
        batch.records.extend(twice);
        Ok(batch)
    }

    async fn committed(&mut self, shard: &str, cursor: &Cursor) -> Result<(), Fault> {
        self.inner.committed(shard, cursor).await
    }
}
