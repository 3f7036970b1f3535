//! Objects of an ERP whose whole state is told whenever it changes: products, places, prices, documents.
//!
//! The table of the objects and those of their parts are followed; what has changed is read as it is now
//! and told with the next version.
//!
//! Where stamps are coarse, a row that is written twice within one looks as if it had been written
//! once. Such rows are looked at again while a transaction that began within their stamp may still
//! end: often at first, later page by page. What would tell the same again is not told.

use super::window::{Table, Window};
use super::{Ids, Row, bookmark, configuration, kept};
use crate::contract::event::{Event, EventMeta};
use crate::pipeline::{Cursor, Fault, SourceBatch, SourceOrigin, SourceRecord, SourceReject};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};

/// Rows that are remembered to be looked at again.
const RECENT_MAX: usize = 4_000;
/// Idle polls that look at the newest rows again.
const FRESH_POLLS: u32 = 5;
/// Idle polls, after these, for each that looks at a page of the others.
const LOOK_AGAIN_POLLS: u32 = 10;
/// What counts as newest, in microseconds before the newest stamp.
const FRESH_US: i64 = 2_000_000;

/// Told, for each row of a page: its facts, or why it cannot be told.
pub type Told<'a> = Vec<(&'a Row, Result<Vec<SourceRecord>, Fault>)>;

/// The versions of the objects of one kind, in the order of reading.
#[derive(Clone, Copy)]
pub struct Versions(i64);

impl Versions {
    /// The next one.
    pub fn next(&mut self) -> i64 {
        self.0 += 1;
        self.0 - 1
    }
}

/// Objects of one kind.
#[async_trait::async_trait]
pub trait Kept: Send + Sync {
    /// Name of their table.
    fn model(&self) -> &'static str;
    /// Their table, then those of their parts.
    fn tables(&self) -> Vec<Box<dyn Table + '_>>;
    /// Whether two writes of a row can have one stamp.
    fn is_coarse(&self) -> bool;
    /// The objects that rows of a part's table belong to; `part` counts from 0.
    async fn owners(&self, part: usize, rows: &[Row]) -> Result<Vec<i64>, Fault>;
    /// The next objects by id, as many as a page has.
    async fn page(&self, after: i64) -> Result<Vec<Row>, Fault>;
    /// Objects by their ids, no more than a page has.
    async fn read(&self, ids: &[i64]) -> Result<Vec<Row>, Fault>;
    /// What they are.
    async fn tell<'r>(&self, rows: &'r [Row], versions: &mut Versions) -> Result<Told<'r>, Fault>;
}

/// Where reading goes on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Bookmark {
    /// While objects are read by id: the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_reading: Option<i64>,
    /// The objects' table, then those of their parts.
    tables: Vec<Window>,
    /// Objects to be told.
    changed: Ids,
    /// Rows that may have been written again, by id: their stamp, and a hash of what was told.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    recent: BTreeMap<i64, (i64, u32)>,
}

/// Reads objects of one kind.
pub struct Objects<K> {
    instance: String,
    /// What is read.
    pub kept: K,
    /// Looks in a row that found nothing.
    idle: u32,
    /// Where looking again goes on.
    looked_at: i64,
}

impl<K: Kept> Objects<K> {
    /// The reader of `kept` for the connector `instance`.
    pub fn new(instance: &str, kept: K) -> Self {
        Objects {
            instance: instance.to_owned(),
            kept,
            idle: 0,
            looked_at: 0,
        }
    }

    /// What is new since `cursor`.
    ///
    /// # Errors
    /// As the calls. Cancel-safe: nothing is remembered but by the cursor.
    pub async fn poll(&mut self, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let (mut mark, mut versions) = match cursor {
            Some(c) => (
                bookmark::<Bookmark>(&self.instance, &c.bookmark)?,
                Versions(c.sequence),
            ),
            None => (self.begin().await?, Versions(1)),
        };
        let mut batch = SourceBatch::default();
        let found = match mark.first_reading {
            Some(after) => self.first(after, &mut mark, &mut batch).await?,
            None => {
                self.follow(&mut mark, &mut batch).await?;
                self.take_changed(&mut mark).await?
            }
        };
        batch.more |= !mark.changed.is_empty();
        if !found.is_empty() || batch.more {
            self.idle = 0;
            if !found.is_empty() {
                let told = self.kept.tell(&found, &mut versions).await?;
                self.take_in(told, &mut mark, &mut batch);
            }
        } else if self.kept.is_coarse() {
            let again = self.again(&mark).await?;
            let mut later = versions;
            let told = match again.is_empty() {
                true => Vec::new(),
                false => self.kept.tell(&again, &mut later).await?,
            };
            if self.take_in(told, &mut mark, &mut batch) {
                versions = later;
                self.idle = 0;
            }
        }
        self.forget(&mut mark);
        batch.cursor = Cursor {
            bookmark: kept(&mark)?,
            sequence: versions.0,
        };
        Ok(batch)
    }

    /// Stamps are taken before the first reading: what changes during it is read again after it.
    async fn begin(&self) -> Result<Bookmark, Fault> {
        let mut tables = Vec::new();
        for table in self.kept.tables() {
            tables.push(Window::begin(&*table).await?);
        }
        Ok(Bookmark {
            first_reading: Some(0),
            tables,
            ..Bookmark::default()
        })
    }

    async fn first(
        &self,
        after: i64,
        mark: &mut Bookmark,
        batch: &mut SourceBatch,
    ) -> Result<Vec<Row>, Fault> {
        let found = self.kept.page(after).await?;
        let tables = self.kept.tables();
        for (table, window) in tables.iter().zip(&mut mark.tables).take(1) {
            for row in &found {
                window.note(table.mark(row));
            }
            let full = found.len() >= table.limit();
            let last = found.last().map(|row| table.mark(row).1);
            mark.first_reading = last.filter(|_| full);
        }
        batch.more = true;
        Ok(found)
    }

    /// Finds out which objects have changed.
    async fn follow(&self, mark: &mut Bookmark, batch: &mut SourceBatch) -> Result<(), Fault> {
        let tables = self.kept.tables();
        if mark.tables.len() != tables.len() {
            return Err(configuration(format!(
                "the bookmark of {} is of a version that reads other tables; give the connector another name to read from the beginning",
                self.instance
            )));
        }
        for (at, (table, window)) in tables.iter().zip(&mut mark.tables).enumerate() {
            let found = window.poll(&**table).await?;
            batch.more |= !found.drained;
            let owners = match at {
                _ if found.rows.is_empty() => Vec::new(),
                0 => found.rows.iter().map(|row| table.mark(row).1).collect(),
                _ => self.kept.owners(at - 1, &found.rows).await?,
            };
            for id in owners {
                mark.changed.insert(id);
            }
        }
        Ok(())
    }

    async fn take_changed(&self, mark: &mut Bookmark) -> Result<Vec<Row>, Fault> {
        let limit = self.kept.tables().first().map_or(0, |t| t.limit());
        let wanted: Vec<i64> = mark.changed.above(0).take(limit).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.kept.read(&wanted).await?;
        for id in wanted {
            mark.changed.remove(id);
        }
        Ok(found)
    }

    /// Tells what is not known to have been told. Returns whether there was such.
    fn take_in(&self, told: Told<'_>, mark: &mut Bookmark, batch: &mut SourceBatch) -> bool {
        let tables = self.kept.tables();
        let Some(table) = tables.first().filter(|_| !told.is_empty()) else {
            return false;
        };
        let mut news = false;
        for (row, told) in told {
            let (stamp, id) = table.mark(row);
            if self.kept.is_coarse() {
                let digest = digest(row, &told);
                let known = mark.recent.insert(id, (stamp, digest));
                if known.is_some_and(|(_, before)| before == digest) {
                    continue;
                }
            }
            news = true;
            match told {
                Ok(records) => batch.records.extend(records),
                Err(fault) => batch.rejects.push(SourceReject {
                    origin: SourceOrigin {
                        container: self.kept.model().into(),
                        item: id.to_string(),
                    },
                    raw: Bytes::from(Value::Object(row.clone()).to_string()),
                    fault,
                }),
            }
        }
        news
    }

    /// Rows that may have been written again within their stamp.
    async fn again(&mut self, mark: &Bookmark) -> Result<Vec<Row>, Fault> {
        let idle = self.idle;
        self.idle = idle.wrapping_add(1);
        let tables = self.kept.tables();
        let (Some(window), Some(table)) = (mark.tables.first(), tables.first()) else {
            return Ok(Vec::new());
        };
        let limit = table.limit();
        let wanted: Vec<i64> = if idle < FRESH_POLLS {
            let fresh = window.high().0 - FRESH_US;
            let newest = mark.recent.iter().rev();
            let newest = newest.filter(|(_, (stamp, _))| *stamp >= fresh);
            newest.map(|(id, _)| *id).take(limit).collect()
        } else if idle.is_multiple_of(LOOK_AGAIN_POLLS) {
            let next = mark.recent.range(self.looked_at + 1..);
            let next: Vec<i64> = next.map(|(id, _)| *id).take(limit).collect();
            self.looked_at = match next.last() {
                Some(last) if next.len() >= limit => *last,
                _ => 0,
            };
            next
        } else {
            return Ok(Vec::new());
        };
        drop(tables);
        match wanted.is_empty() {
            true => Ok(Vec::new()),
            false => self.kept.read(&wanted).await,
        }
    }

    /// Lets go of rows that nobody writes with their stamp any more.
    fn forget(&self, mark: &mut Bookmark) {
        let floor = mark.tables.first().map_or(0, Window::floor);
        mark.recent.retain(|_, (stamp, _)| *stamp >= floor);
        let over = mark.recent.len().saturating_sub(RECENT_MAX);
        if over > 0 {
            let mut oldest: Vec<(i64, i64)> =
                mark.recent.iter().map(|(id, (s, _))| (*s, *id)).collect();
            oldest.sort_unstable();
            for (_, id) in &oldest[..over] {
                mark.recent.remove(id);
            }
        }
    }
}

/// A hash of what is said, whatever its version.
fn digest(row: &Row, told: &Result<Vec<SourceRecord>, Fault>) -> u32 {
    let mut hasher = rustc_hash::FxHasher::default();
    match told {
        Ok(records) => {
            for record in records {
                record.key.hash(&mut hasher);
                format!("{:?}", unversioned(&record.event)).hash(&mut hasher);
            }
        }
        // Who mends it writes the row, or what it refers to.
        Err(fault) => (&fault.message, row.len()).hash(&mut hasher),
    }
    let hash = hasher.finish();
    (hash ^ (hash >> 32)) as u32
}

/// An event without what tells its version from others of the same content.
fn unversioned(event: &Event) -> Event {
    let mut event = event.clone();
    let kept = |meta: &EventMeta| EventMeta {
        ext: meta.ext.clone(),
        ..EventMeta::default()
    };
    macro_rules! clear {
        ($e:ident, $($version:ident),*) => {{
            $e.meta = kept(&$e.meta);
            $($e.$version = Default::default();)*
        }};
    }
    match &mut event {
        Event::OrderEvent(e) => clear!(e, entity_version),
        Event::ShipmentEvent(e) => clear!(e, shipment_version),
        Event::ReturnEvent(e) => clear!(e, return_version),
        Event::InvoiceEvent(e) => clear!(e, invoice_version),
        Event::RefundRequest(e) => clear!(e,),
        Event::PaymentEvent(e) => clear!(e, payment_version),
        Event::ProductChanged(e) => clear!(e, product_version),
        Event::PriceChanged(e) => clear!(e, price_version, effective_from),
        Event::Location(e) => clear!(e, location_version),
        Event::StockPolicy(e) => clear!(e, policy_version),
        _ => {}
    }
    event
}
