//! Orders out of a storefront: what it announces, and what its lists show.
//!
//! Webhook and poller are one source: a delivery names an order, which is then read as the list would
//! have it read, and what was told once is not told again. The lists close the gaps that webhooks leave.

use super::deliveries::Announced;
use super::window::Window;
use super::{Head, List, ReadOrder, Storefront, Way, customers, listing, order};
use crate::connectors::webhook::Ingress;
use crate::domain::Timestamp;
use crate::pipeline::{
    Clock as _, Code, Cursor, Fault, Inbox, Source, SourceBatch, SourceOrigin, SourceReject, Stage,
    SystemClock, Vault,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Orders read and told in one poll.
const ORDERS_READ: usize = 50;
/// Polls that a list read again and again rests after each page.
const REST_POLLS: u32 = 20;

/// The source of a storefront.
pub struct StorefrontSource<S> {
    shop: Arc<S>,
    ingress: Option<Ingress>,
    vault: Option<Arc<dyn Vault>>,
    /// Polls since the last page, by list.
    rested: HashMap<&'static str, u32>,
}

/// Where reading goes on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Bookmark {
    window: Window,
    #[serde(default, skip_serializing_if = "Announced::is_nothing")]
    announced: Announced,
}

impl<S: Storefront> StorefrontSource<S> {
    /// With the way in for its webhooks and what seals who customers are, where it has them.
    pub fn new(shop: Arc<S>, ingress: Option<Ingress>, vault: Option<Arc<dyn Vault>>) -> Self {
        StorefrontSource {
            shop,
            ingress,
            vault,
            rested: HashMap::new(),
        }
    }

    /// A page of the list of customers.
    async fn read_customers(
        &self,
        bookmark: &mut Bookmark,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        let terms = self.shop.terms();
        let Some(vault) = &self.vault else {
            let message = format!(
                "{} is to tell who its customers are, and was given no vault to seal that in",
                terms.instance
            );
            return Err(Fault::halt(Stage::Read, Code::Configuration, message));
        };
        let now = SystemClock.now();
        let (from, skip) = bookmark.window.place();
        let page = self.shop.customer_heads(from, skip).await;
        let page = page.map_err(customers::wordless)?;
        let window = &mut bookmark.window;
        let fresh = window.fresh(&page, ORDERS_READ, now);
        let ids: Vec<&str> = fresh.iter().map(|h| h.id.as_str()).collect();
        let found = match ids.is_empty() {
            true => Ok(Vec::new()),
            false => self.shop.customers(&ids).await,
        };
        let found = found.map_err(customers::wordless)?;
        for head in &fresh {
            let customer = found.iter().find(|c| c.id == head.id);
            let told = customer.map(|c| customers::event(terms, c, vault.as_ref()));
            let records: Vec<_> = told.transpose()?.flatten().into_iter().collect();
            let said = order::digest(&records);
            if window.said(&head.id) != Some(&said) {
                batch.records.extend(records);
            }
            window.note(head, said, now);
        }
        batch.more |= fresh.len() == ORDERS_READ || window.advance(&page, terms.overlap);
        Ok(())
    }

    async fn read(
        &self,
        list: &List,
        bookmark: &mut Bookmark,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        let terms = self.shop.terms();
        let now = SystemClock.now();
        let (from, skip) = bookmark.window.place();
        let page = self.shop.heads(list, from.max(terms.since), skip).await?;
        let window = &mut bookmark.window;
        let fresh = match list.way {
            Way::Changes => window.fresh(&page, ORDERS_READ, now),
            Way::Again => page.iter().take(ORDERS_READ).collect(),
        };
        let news = self.tell(list, &fresh, window, batch, now).await?;
        match list.way {
            Way::Again => window.turn(&page, fresh.len(), terms.refund_horizon),
            Way::Changes => {
                let more = fresh.len() == ORDERS_READ || window.advance(&page, terms.overlap);
                batch.more |= more;
                if self.ingress.is_some() && self.is_announced(list) {
                    let announced = &mut bookmark.announced;
                    announced.found(&news, window.high(), !more);
                    batch.records.extend(announced.judge(terms, now));
                }
            }
        }
        Ok(())
    }

    /// The next part of the list of orders, if one is due.
    async fn list(&self, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let now = SystemClock.now();
        let mut bookmark = match cursor {
            None => listing::Bookmark::new(now),
            Some(cursor) => self.bookmark(cursor)?,
        };
        let mut batch = SourceBatch::default();
        listing::read(self.shop.as_ref(), &mut bookmark, now, &mut batch).await?;
        batch.cursor = place(&bookmark, cursor)?;
        Ok(batch)
    }

    fn bookmark<B: serde::de::DeserializeOwned>(&self, cursor: &Cursor) -> Result<B, Fault> {
        B::deserialize(&cursor.bookmark).map_err(|e| {
            let message = format!(
                "the bookmark of {} cannot be read: it was written by another kind of connector or a later version; give the connector another name to read from the beginning",
                self.shop.terms().instance
            );
            Fault::halt(Stage::Read, Code::Configuration, message).caused_by(e)
        })
    }

    /// Whether webhooks announce what this list shows.
    fn is_announced(&self, list: &List) -> bool {
        self.shop
            .lists()
            .first()
            .is_some_and(|first| first.name == list.name)
    }

    /// Tells the orders that deliveries name.
    async fn take(
        &mut self,
        list: &List,
        bookmark: &mut Bookmark,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        let Some(ingress) = &mut self.ingress else {
            return Ok(());
        };
        let taken = ingress.take(bookmark.announced.position, ORDERS_READ)?;
        batch.rejects.extend(taken.rejects);
        batch.more |= taken.more;
        let mut heads = Vec::new();
        for delivery in &taken.deliveries {
            let body = match delivery.json() {
                Ok(body) => body,
                Err(fault) => {
                    batch.rejects.push(delivery.reject(fault));
                    continue;
                }
            };
            // What is not about an order is none of ours.
            if let Some(id) = self.shop.announced(&body).await? {
                bookmark.announced.heard(&id, delivery.received_at);
                heads.push(Head {
                    order: id.clone(),
                    id,
                    // Not its stamp: the list shows the order once more, and finds nothing new.
                    stamp: Timestamp::default(),
                });
            }
        }
        let all: Vec<&Head> = heads.iter().collect();
        let window = &mut bookmark.window;
        self.tell(list, &all, window, batch, SystemClock.now())
            .await?;
        bookmark.announced.position = taken.next;
        Ok(())
    }

    /// Reads these orders and tells what is new of them; gives those of which something was.
    async fn tell<'h>(
        &self,
        list: &List,
        fresh: &[&'h Head],
        window: &mut Window,
        batch: &mut SourceBatch,
        now: Timestamp,
    ) -> Result<Vec<&'h Head>, Fault> {
        let ids: BTreeSet<&str> = fresh.iter().map(|h| h.order.as_str()).collect();
        let ids: Vec<&str> = ids.into_iter().filter(|id| !id.is_empty()).collect();
        let read = match ids.is_empty() {
            true => Vec::new(),
            false => self.shop.orders(&ids).await?,
        };
        let read: HashMap<&str, &ReadOrder> = read.iter().map(|r| (r.id.as_str(), r)).collect();
        let mut news = Vec::new();
        for head in fresh {
            let Some(read) = read.get(head.order.as_str()) else {
                // Deleted meanwhile, or nothing was ordered.
                window.note(head, String::new(), now);
                continue;
            };
            let said = match &read.order {
                Ok(Some(found)) if found.placed_at >= self.shop.terms().since => {
                    let mut records = order::events(self.shop.terms(), found);
                    records.retain(|r| (list.tells)(&r.event));
                    let said = order::digest(&records);
                    if window.said(&head.id) != Some(&said) && !records.is_empty() {
                        batch.records.append(&mut records);
                        news.push(*head);
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
                window.note(head, said, now);
            }
        }
        Ok(news)
    }
}

/// Where reading goes on after a poll from `cursor`.
fn place(bookmark: &impl Serialize, cursor: Option<&Cursor>) -> Result<Cursor, Fault> {
    let bookmark = serde_json::to_value(bookmark).map_err(|e| {
        Fault::halt(Stage::Read, Code::Bug, "a bookmark cannot be written").caused_by(e)
    })?;
    Ok(Cursor {
        bookmark,
        sequence: cursor.map_or(1, |c| c.sequence),
    })
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
        let lists = self.shop.lists().iter().map(|l| l.name);
        let customers = self.shop.terms().customers.then_some(customers::LIST);
        let listing = self.shop.terms().list_every.map(|_| listing::LISTING);
        let all = lists.chain(customers).chain(listing);
        all.map(str::to_owned).collect()
    }

    fn open(&mut self, inbox: Arc<dyn Inbox>) -> Result<(), Fault> {
        match &mut self.ingress {
            Some(ingress) => ingress.open(inbox),
            None => Ok(()),
        }
    }

    async fn woken(&mut self) {
        match &self.ingress {
            Some(ingress) => ingress.woken().await,
            None => std::future::pending().await,
        }
    }

    async fn poll(&mut self, shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let shop = self.shop.clone();
        if shard == listing::LISTING {
            return self.list(cursor).await;
        }
        let list = shop.lists().iter().find(|l| l.name == shard);
        if list.is_none() && (shard != customers::LIST || !shop.terms().customers) {
            let message = format!("a storefront has no part {shard}");
            return Err(Fault::halt(Stage::Read, Code::Bug, message));
        }
        let mut bookmark: Bookmark = match cursor {
            None => Bookmark::default(),
            Some(cursor) => self.bookmark(cursor)?,
        };
        let mut batch = SourceBatch::default();
        if let Some(list) = list {
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
            if self.is_announced(list) {
                self.take(list, &mut bookmark, &mut batch).await?;
            }
            self.read(list, &mut bookmark, &mut batch).await?;
        } else {
            self.read_customers(&mut bookmark, &mut batch).await?;
        }
        batch.cursor = place(&bookmark, cursor)?;
        Ok(batch)
    }
}
