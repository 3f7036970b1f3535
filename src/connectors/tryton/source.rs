//! The parts of Tryton that are read independently.

use super::client::Client;
use super::objects::{Kind, Objects};
use super::stock::Stock;
use crate::pipeline::{Code, Cursor, Fault, Source, SourceBatch, Stage};
use std::collections::HashMap;
use std::sync::Arc;

const STOCK: &str = "stock";

/// Polls of objects of a kind that are passed over while nothing changes, for each that is made:
/// what is sold matters within a second, what it is called within a few.
const fn rest(kind: Kind) -> u32 {
    match kind {
        // A customer waits for it.
        Kind::Sales | Kind::Shipments => 1,
        Kind::Products | Kind::Prices | Kind::Returns | Kind::Invoices => 4,
        Kind::Locations | Kind::OrderPoints => 20,
    }
}

pub(super) struct TrytonSource {
    stock: Stock,
    objects: Objects,
    /// What is read beside stock.
    kinds: Vec<Kind>,
    /// Polls in a row that found nothing, by part.
    idle_polls: HashMap<&'static str, u32>,
}

impl TrytonSource {
    pub fn new(instance: &str, client: Arc<Client>) -> Self {
        TrytonSource {
            kinds: Kind::ALL
                .iter()
                .copied()
                .filter(|kind| kind.is_read(&client.settings))
                .collect(),
            stock: Stock::new(instance, client.clone()),
            objects: Objects::new(instance, client),
            idle_polls: HashMap::new(),
        }
    }
}

#[async_trait::async_trait]
impl Source for TrytonSource {
    fn shards(&self) -> Vec<String> {
        let read = self.kinds.iter().copied();
        read.map(Kind::shard)
            .chain([STOCK])
            .map(str::to_owned)
            .collect()
    }

    async fn poll(&mut self, shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        if shard == STOCK {
            return self.stock.poll(cursor).await;
        }
        let Some(kind) = Kind::ALL.iter().copied().find(|k| k.shard() == shard) else {
            let message = format!("Tryton has no part {shard}");
            return Err(Fault::halt(Stage::Read, Code::Bug, message));
        };
        let idle = self.idle_polls.entry(kind.shard()).or_default();
        if let Some(cursor) = cursor
            && !idle.is_multiple_of(rest(kind))
        {
            *idle = idle.wrapping_add(1);
            return Ok(SourceBatch {
                cursor: cursor.clone(),
                ..SourceBatch::default()
            });
        }
        let batch = self.objects.poll(kind, cursor).await?;
        *idle = match batch.more || !batch.records.is_empty() {
            true => 0,
            false => idle.wrapping_add(1),
        };
        Ok(batch)
    }
}
