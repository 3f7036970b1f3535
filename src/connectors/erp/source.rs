//! The parts of an ERP that are read independently: its stock, and its objects by kind.

use super::listing::{LISTING, Listing};
use super::objects::{Kept, Objects};
use super::stock::{Moves, Stock};
use crate::pipeline::{Code, Cursor, Fault, Source, SourceBatch, Stage};

const STOCK: &str = "stock";

/// Objects of one kind, and how they are read.
pub struct Part<K> {
    /// Name of the shard.
    pub shard: &'static str,
    /// Polls that are passed over while nothing changes, for each that is made: what is sold matters
    /// within a second, what it is called within a few.
    pub rest: u32,
    /// What is read.
    pub objects: Objects<K>,
    /// Polls in a row that found nothing.
    idle_polls: u32,
}

impl<K> Part<K> {
    /// A part that rests for `rest` polls while nothing changes.
    pub fn new(shard: &'static str, rest: u32, objects: Objects<K>) -> Self {
        Part {
            shard,
            rest,
            objects,
            idle_polls: 0,
        }
    }
}

/// Reads an ERP.
pub struct ErpSource<M, K> {
    stock: Stock<M>,
    parts: Vec<Part<K>>,
    listing: Option<Listing>,
}

impl<M, K> ErpSource<M, K> {
    /// The source of these.
    pub fn new(stock: Stock<M>, parts: Vec<Part<K>>) -> Self {
        ErpSource {
            stock,
            parts,
            listing: None,
        }
    }

    /// With lists of the orders that it has, where it is to tell them.
    #[must_use]
    pub fn listing(mut self, listing: Option<Listing>) -> Self {
        self.listing = listing;
        self
    }
}

#[async_trait::async_trait]
impl<M: Moves, K: Kept> Source for ErpSource<M, K> {
    fn shards(&self) -> Vec<String> {
        let parts = self.parts.iter().map(|part| part.shard);
        let listing = self.listing.as_ref().map(|_| LISTING);
        let all = parts.chain([STOCK]).chain(listing);
        all.map(str::to_owned).collect()
    }

    async fn poll(&mut self, shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        if shard == STOCK {
            return self.stock.poll(cursor).await;
        }
        if let Some(listing) = self.listing.as_ref().filter(|_| shard == LISTING) {
            return listing.poll(cursor).await;
        }
        let Some(part) = self.parts.iter_mut().find(|p| p.shard == shard) else {
            let message = format!("there is no part {shard}");
            return Err(Fault::halt(Stage::Read, Code::Bug, message));
        };
        if let Some(cursor) = cursor
            && !part.idle_polls.is_multiple_of(part.rest)
        {
            part.idle_polls = part.idle_polls.wrapping_add(1);
            return Ok(SourceBatch {
                cursor: cursor.clone(),
                ..SourceBatch::default()
            });
        }
        let batch = part.objects.poll(cursor).await?;
        part.idle_polls = match batch.more || !batch.records.is_empty() {
            true => 0,
            false => part.idle_polls.wrapping_add(1),
        };
        Ok(batch)
    }
}
