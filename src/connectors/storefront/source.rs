//! Orders out of a storefront.

use super::window::Window;
use super::{Head, List, ReadOrder, Storefront, Way, order};
use crate::pipeline::{
    Code, Cursor, Fault, Source, SourceBatch, SourceOrigin, SourceReject, Stage,
};
use serde::Deserialize as _;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Orders read and told in one poll.
const ORDERS_READ: usize = 50;
/// Polls that a list read again and again rests after each page.
const REST_POLLS: u32 = 20;

/// The source of a storefront.
pub struct StorefrontSource<S> {
    shop: Arc<S>,
    /// Polls since the last page, by list.
    rested: HashMap<&'static str, u32>,
}

impl<S: Storefront> StorefrontSource<S> {
    pub fn new(shop: Arc<S>) -> Self {
        StorefrontSource {
            shop,
            rested: HashMap::new(),
        }
    }

    async fn read(&self, list: &List, mut window: Window) -> Result<(SourceBatch, Window), Fault> {
        let terms = self.shop.terms();
        let (from, skip) = window.place();
        let page = self.shop.heads(list, from.max(terms.since), skip).await?;
        let fresh = match list.way {
            Way::Changes => window.fresh(&page, ORDERS_READ),
            Way::Again => page.iter().take(ORDERS_READ).collect(),
        };
        let mut batch = SourceBatch::default();
        self.tell(list, &fresh, &mut window, &mut batch).await?;
        match list.way {
            Way::Again => window.turn(&page, fresh.len(), terms.refund_horizon),
            Way::Changes => {
                batch.more = fresh.len() == ORDERS_READ || window.advance(&page, terms.overlap);
            }
        }
        Ok((batch, window))
    }

    async fn tell(
        &self,
        list: &List,
        fresh: &[&Head],
        window: &mut Window,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        if fresh.is_empty() {
            return Ok(());
        }
        let ids: BTreeSet<&str> = fresh.iter().map(|h| h.order.as_str()).collect();
        let ids: Vec<&str> = ids.into_iter().filter(|id| !id.is_empty()).collect();
        let read = match ids.is_empty() {
            true => Vec::new(),
            false => self.shop.orders(&ids).await?,
        };
        let read: HashMap<&str, &ReadOrder> = read.iter().map(|r| (r.id.as_str(), r)).collect();
        for head in fresh {
            let Some(read) = read.get(head.order.as_str()) else {
                // Deleted meanwhile, or nothing was ordered.
                window.note(head, String::new());
                continue;
            };
            let said = match &read.order {
                Ok(Some(found)) if found.placed_at >= self.shop.terms().since => {
                    let mut records = order::events(self.shop.terms(), found);
                    records.retain(|r| (list.tells)(&r.event));
                    let said = order::digest(&records);
                    if window.said(&head.id) != Some(&said) {
                        batch.records.append(&mut records);
                    }
                    said
                }
                // A basket, or of a time that is not told.
                Ok(_) => String::new(),
                Err(fault) => {
                    let said = format!("refused: {}", fault.code);
                    if window.said(&head.id) != Some(&said) && list.way == Way::Changes {
                        batch.rejects.push(reject(list, read, fault));
                    }
                    said
                }
            };
            if list.way == Way::Changes || !batch.records.is_empty() {
                window.note(head, said);
            }
        }
        Ok(())
    }
}

fn reject(list: &List, read: &ReadOrder, fault: &Fault) -> SourceReject {
    SourceReject {
        origin: SourceOrigin {
            container: list.name.into(),
            item: read.id.clone(),
        },
        raw: read.raw.clone(),
        fault: super::availability::repeated(fault),
    }
}

#[async_trait::async_trait]
impl<S: Storefront> Source for StorefrontSource<S> {
    fn shards(&self) -> Vec<String> {
        let lists = self.shop.lists().iter();
        lists.map(|l| l.name.to_owned()).collect()
    }

    async fn poll(&mut self, shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let Some(list) = self.shop.lists().iter().find(|l| l.name == shard) else {
            let message = format!("a storefront has no part {shard}");
            return Err(Fault::halt(Stage::Read, Code::Bug, message));
        };
        let window = match cursor {
            None => Window::default(),
            Some(cursor) => Window::deserialize(&cursor.bookmark).map_err(|e| {
                let message = format!(
                    "the bookmark of {} cannot be read: it was written by another kind of connector or a later version; give the connector another name to read from the beginning",
                    self.shop.terms().instance
                );
                Fault::halt(Stage::Read, Code::Configuration, message).caused_by(e)
            })?,
        };
        let rested = self.rested.entry(list.name).or_default();
        if let (Way::Again, Some(cursor)) = (list.way, cursor)
            && *rested < REST_POLLS
        {
            *rested += 1;
            return Ok(SourceBatch {
                cursor: cursor.clone(),
                ..SourceBatch::default()
            });
        }
        *rested = 0;
        let (mut batch, window) = self.read(list, window).await?;
        batch.cursor = Cursor {
            bookmark: serde_json::to_value(&window).map_err(|e| {
                Fault::halt(Stage::Read, Code::Bug, "a bookmark cannot be written").caused_by(e)
            })?,
            sequence: cursor.map_or(1, |c| c.sequence),
        };
        Ok(batch)
    }
}
