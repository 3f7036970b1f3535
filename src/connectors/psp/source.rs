//! Reads what became of customers' money: webhooks at once, and the list of events behind them.
//!
//! The list is complete up to a time (`until`), `lag_s` behind now. A webhook about something newer is
//! told and remembered until the list has come that far; one about something older was told by the
//! list. What the list has and no webhook told of is a gap: it is told, and counted in the log. So
//! each event is told once, whichever way it comes first.

use super::client::{Client, Slice, integer, text};
use super::map::{EVENT_TYPES, Names, Paid};
use super::payouts::Payouts;
use crate::connectors::webhook::{Ingress, Signing};
use crate::contract::topic;
use crate::pipeline::{
    Clock, Code, Cursor, Fault, Inbox, Source, SourceBatch, SourceOrigin, SourceRecord,
    SourceReject, Stage, SystemClock, Verdict,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

/// Shard of events.
const EVENTS: &str = "events";
/// Shard of settlements.
const PAYOUTS: &str = "payouts";
/// The list of events goes back this far.
const LISTED_S: i64 = 30 * 86_400;
/// Longest part of the list that is read at once, in seconds.
const SLICE_S: i64 = 86_400;
/// Webhooks in one batch.
const WEBHOOKS_MAX: usize = 100;
/// Payments whose order is remembered.
const KNOWN_MAX: usize = 10_000;

/// How far events were read.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Bookmark {
    /// Position in the inbox.
    inbox: i64,
    /// The list was read up to here, in seconds.
    until: i64,
    /// Events newer than that which webhooks told of, with their times.
    heard: BTreeMap<String, i64>,
}

/// The source.
pub struct PspSource {
    client: Arc<Client>,
    clock: Arc<dyn Clock>,
    ingress: Option<Ingress>,
    payouts: Payouts,
    /// Whom charges are of.
    known: HashMap<String, Paid>,
    /// Seconds of the list read at once: fewer while it has too many events.
    slice_s: i64,
}

impl PspSource {
    /// # Errors
    /// As [`Ingress::new`].
    pub fn new(client: Arc<Client>) -> Result<Self, Fault> {
        let ingress = match &client.settings.webhook {
            Some(webhook) => Some(Ingress::new(&client.instance, webhook, &Signing::stripe())?),
            None => None,
        };
        Ok(PspSource {
            payouts: Payouts::new(client.clone()),
            client,
            clock: Arc::new(SystemClock),
            ingress,
            known: HashMap::new(),
            slice_s: SLICE_S,
        })
    }

    async fn poll_events(&mut self, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let now = self.clock.now().0 / 1_000_000;
        let mut bookmark: Bookmark = bookmark(&self.client, cursor)?.unwrap_or(Bookmark {
            until: begin(&self.client, now - LISTED_S),
            ..Bookmark::default()
        });
        let mut batch = SourceBatch::default();
        batch.cursor.sequence = cursor.map_or(1, |c| c.sequence);
        self.take_webhooks(&mut bookmark, &mut batch).await?;
        if !batch.more {
            self.read_list(now, &mut bookmark, &mut batch).await?;
        }
        batch.cursor.bookmark = to_json(&bookmark)?;
        Ok(batch)
    }

    async fn take_webhooks(
        &mut self,
        bookmark: &mut Bookmark,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        let Some(ingress) = &mut self.ingress else {
            return Ok(());
        };
        let taken = ingress.take(bookmark.inbox, WEBHOOKS_MAX)?;
        (bookmark.inbox, batch.more) = (taken.next, taken.more);
        batch.rejects.extend(taken.rejects);
        for delivery in taken.deliveries {
            let told = match delivery.json() {
                Ok(event) => self.webhook(&event, bookmark, batch).await,
                Err(fault) => Err(fault),
            };
            match told {
                Err(fault) if fault.verdict == Verdict::Reject => {
                    batch.rejects.push(delivery.reject(fault));
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn webhook(
        &mut self,
        event: &Value,
        bookmark: &mut Bookmark,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        let (id, created) = (text(event, "id")?, integer(event, "created")?);
        let is_ours = EVENT_TYPES.contains(&text(event, "type")?);
        if !is_ours || created <= bookmark.until || bookmark.heard.contains_key(id) {
            return Ok(());
        }
        // Heard also when it is rejected: the list would be rejected alike.
        bookmark.heard.insert(id.to_owned(), created);
        self.tell(event, batch).await
    }

    async fn read_list(
        &mut self,
        now: i64,
        bookmark: &mut Bookmark,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        let settings = &self.client.settings;
        let settled = now - (settings.lag_s.max(1) as i64);
        if settled - bookmark.until < settings.poll_s as i64 || settled <= bookmark.until {
            return Ok(());
        }
        let to = settled.min(bookmark.until + self.slice_s);
        let kinds = EVENT_TYPES.map(|t| ("types[]".to_owned(), t.to_owned()));
        let slice = self
            .client
            .slice("/v1/events", bookmark.until, to, &kinds)
            .await?;
        let Slice::Whole(mut events) = slice else {
            if self.slice_s == 1 {
                let message = format!(
                    "{}: the second after {} has more events than can be read",
                    self.client.instance, bookmark.until
                );
                return Err(Fault::halt(Stage::Read, Code::Oversize, message));
            }
            self.slice_s = (self.slice_s / 2).max(1);
            batch.more = true;
            return Ok(());
        };
        self.slice_s = (self.slice_s * 2).min(SLICE_S);
        events.reverse();
        let mut missed = 0;
        for event in &events {
            let is_heard = event["id"]
                .as_str()
                .is_some_and(|id| bookmark.heard.contains_key(id));
            if is_heard {
                continue;
            }
            missed += 1;
            match self.tell(event, batch).await {
                Err(fault) if fault.verdict == Verdict::Reject => {
                    batch.rejects.push(SourceReject {
                        origin: SourceOrigin {
                            container: "/v1/events".into(),
                            item: event["id"].as_str().unwrap_or_default().to_owned(),
                        },
                        raw: event.to_string().into(),
                        fault,
                    });
                }
                other => other?,
            }
        }
        if missed > 0 && self.ingress.is_some() {
            tracing::warn!(
                source = self.client.instance,
                missed,
                from = bookmark.until,
                to,
                "the list has events that no webhook told of"
            );
        }
        bookmark.until = to;
        bookmark.heard.retain(|_, created| *created > to);
        batch.more |= to < settled;
        Ok(())
    }

    /// Adds the movements of an event to the batch.
    async fn tell(&mut self, event: &Value, batch: &mut SourceBatch) -> Result<(), Fault> {
        let paid = self.paid(&event["data"]["object"]).await?;
        for mut movement in names(&self.client).movements(event, &paid)? {
            movement.meta.source_position = batch.cursor.sequence;
            batch.cursor.sequence += 1;
            batch.records.push(SourceRecord {
                topic: topic::PAYMENT_EVENT,
                key: movement.order_id.clone(),
                event: movement.into(),
            });
        }
        Ok(())
    }

    /// Whom the money is of: a refund or a dispute is asked for its charge.
    async fn paid(&mut self, object: &Value) -> Result<Paid, Fault> {
        if object["charge"].is_null() {
            return names(&self.client).paid(object);
        }
        let charge = text(object, "charge")?;
        if let Some(known) = self.known.get(charge) {
            return Ok(known.clone());
        }
        let path = format!("/v1/charges/{charge}");
        let found = self.client.get(&path, &[]).await?;
        let paid = names(&self.client).paid(&found)?;
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(charge.to_owned(), paid.clone());
        Ok(paid)
    }
}

#[async_trait::async_trait]
impl Source for PspSource {
    fn shards(&self) -> Vec<String> {
        vec![EVENTS.to_owned(), PAYOUTS.to_owned()]
    }

    fn open(&mut self, inbox: Arc<dyn Inbox>) -> Result<(), Fault> {
        match &mut self.ingress {
            Some(ingress) => ingress.open(inbox),
            None => Ok(()),
        }
    }

    fn address(&self) -> Option<SocketAddr> {
        self.ingress.as_ref()?.address()
    }

    async fn woken(&mut self) {
        match &self.ingress {
            Some(ingress) => ingress.woken().await,
            None => std::future::pending().await,
        }
    }

    async fn poll(&mut self, shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        match shard {
            PAYOUTS => {
                let now = self.clock.now().0 / 1_000_000;
                self.payouts.poll(now, cursor).await
            }
            _ => self.poll_events(cursor).await,
        }
    }
}

/// How things are named in events.
pub(super) fn names(client: &Client) -> Names<'_> {
    let settings = &client.settings;
    Names {
        instance: &client.instance,
        psp: &settings.name,
        channel: &settings.channel,
        channel_metadata: settings.channel_metadata.as_deref(),
        order_metadata: &settings.order_metadata,
    }
}

/// The time before which nothing is read, in seconds: configured, or `otherwise`.
pub(super) fn begin(client: &Client, otherwise: i64) -> i64 {
    let since = client.since_s;
    since.map_or(otherwise, |since| since.max(otherwise))
}

/// The bookmark in a cursor.
///
/// # Errors
/// When it is another's.
pub(super) fn bookmark<B: serde::de::DeserializeOwned>(
    client: &Client,
    cursor: Option<&Cursor>,
) -> Result<Option<B>, Fault> {
    let Some(cursor) = cursor else {
        return Ok(None);
    };
    let read = serde_json::from_value(cursor.bookmark.clone());
    read.map(Some).map_err(|e| {
        let message = format!("the bookmark of {} is not its own", client.instance);
        Fault::halt(Stage::Read, Code::Bug, message).caused_by(e)
    })
}

pub(super) fn to_json<B: Serialize>(bookmark: &B) -> Result<Value, Fault> {
    serde_json::to_value(bookmark)
        .map_err(|e| Fault::halt(Stage::Read, Code::Bug, "a bookmark is not JSON").caused_by(e))
}
