//! What every source promises, tried on each connector that has a source and a stand-in.
//!
//! The stand-ins of systems that hold stock understand the same acts: `receive`, `sell`, `return`,
//! `count`, `transfer`, and `begin`, `in`, `commit`, `rollback` for what others do at the same time.

use super::build;
use crossdock::connectors;
use crossdock::contract::event::{Event, StockState};
use crossdock::domain::Decimal;
use crossdock::pipeline::{
    Connector, ConnectorDescriptor, Cursor, Fake, FakeFault, FakeOptions, Inbox, Source,
    SourceBatch, SourceRecord, Verdict,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Polls without anything new after which a source is taken to have read everything.
const IDLE_POLLS: usize = 21;

/// A connector under test, and what it has made durable.
pub struct Reader {
    descriptor: &'static ConnectorDescriptor,
    connector: Arc<dyn Connector>,
    source: Box<dyn Source>,
    inbox: Option<Arc<dyn Inbox>>,
    pub cursors: BTreeMap<String, Cursor>,
    /// Every poll that brought something: shard, cursor before, batch.
    pub polls: Vec<(String, Option<Cursor>, SourceBatch)>,
}

impl Reader {
    pub fn new(descriptor: &'static ConnectorDescriptor, settings: Value) -> Reader {
        let connector = build(descriptor, settings);
        Reader {
            descriptor,
            source: connector.source().expect("a source"),
            connector,
            inbox: None,
            cursors: BTreeMap::new(),
            polls: Vec::new(),
        }
    }

    /// As [`Reader::new`], of a connector that takes deliveries.
    pub fn with_inbox(
        descriptor: &'static ConnectorDescriptor,
        settings: Value,
        inbox: Arc<dyn Inbox>,
    ) -> Reader {
        let mut reader = Reader::new(descriptor, settings);
        reader.inbox = Some(inbox);
        reader.restart();
        reader
    }

    /// As after a restart with other settings.
    pub fn reconfigured(mut self, settings: Value) -> Reader {
        self.connector = build(self.descriptor, settings);
        self.restart();
        self
    }

    /// Where it takes deliveries.
    pub fn address(&self) -> Option<SocketAddr> {
        self.source.address()
    }

    /// As after a crash: a new source that knows the durable cursors.
    pub fn restart(&mut self) {
        self.source = self.connector.source().expect("a source");
        if let Some(inbox) = &self.inbox {
            self.source.open(inbox.clone()).expect("open");
        }
    }

    pub fn shards(&self) -> Vec<String> {
        self.source.shards()
    }

    /// Polls a shard once and makes what it brought durable, unless `crash`.
    pub async fn poll(
        &mut self,
        shard: &str,
        crash: bool,
    ) -> Result<bool, crossdock::pipeline::Fault> {
        let before = self.cursors.get(shard).cloned();
        let batch = self.source.poll(shard, before.as_ref()).await?;
        let news = batch.more
            || !batch.records.is_empty()
            || !batch.rejects.is_empty()
            || before.as_ref() != Some(&batch.cursor);
        if crash {
            self.restart();
            return Ok(true);
        }
        self.source.committed(shard, &batch.cursor).await?;
        self.cursors.insert(shard.to_owned(), batch.cursor.clone());
        self.polls.push((shard.to_owned(), before, batch));
        Ok(news)
    }

    /// Reads until there is nothing more.
    pub async fn drain(&mut self) {
        for shard in self.shards() {
            let mut idle = 0;
            for _ in 0..1_000 {
                match self.poll(&shard, false).await {
                    Ok(true) => idle = 0,
                    Ok(false) => idle += 1,
                    Err(fault) => panic!("{}: {shard}: {fault}", self.descriptor.kind),
                }
                if idle == IDLE_POLLS {
                    break;
                }
            }
            assert_eq!(
                idle, IDLE_POLLS,
                "{}: {shard} never ends",
                self.descriptor.kind
            );
        }
    }

    /// All records so far.
    pub fn records(&self) -> Vec<&SourceRecord> {
        self.polls
            .iter()
            .flat_map(|(_, _, batch)| &batch.records)
            .collect()
    }

    /// Stock by SKU and location, folded from the movements read.
    pub fn stock(&self) -> BTreeMap<String, BTreeMap<String, Decimal>> {
        let (mut stock, mut seen) = (BTreeMap::new(), BTreeSet::new());
        for record in self.records() {
            let Event::StockChanged(e) = &record.event else {
                continue;
            };
            assert!(seen.insert(e.meta.event_id), "told twice: {e:?}");
            let held: &mut Decimal = stock
                .entry(e.sku.to_string())
                .or_insert_with(BTreeMap::new)
                .entry(e.location_id.to_string())
                .or_default();
            *held += [(e.from_state, -1), (e.to_state, 1)]
                .into_iter()
                .filter(|(state, _)| *state == StockState::Sellable)
                .map(|(_, sign)| if sign < 0 { -e.qty } else { e.qty })
                .sum();
        }
        stock
    }

    /// Asserts that what was told is what the system itself reports.
    pub fn agrees_with(&self, fake: &dyn Fake) {
        let read = self.stock();
        let books = fake.books();
        let mut places = BTreeSet::new();
        for (sku, held) in books.as_object().expect("books by SKU") {
            places.extend(
                held.as_object()
                    .expect("by location")
                    .keys()
                    .map(|l| (sku.clone(), l.clone())),
            );
        }
        for (sku, held) in &read {
            places.extend(held.keys().map(|l| (sku.clone(), l.clone())));
        }
        for (sku, location) in places {
            let told = read
                .get(&sku)
                .and_then(|h| h.get(&location))
                .copied()
                .unwrap_or_default();
            let held = books[&sku][&location].as_f64().unwrap_or_default();
            assert_eq!(
                told.to_f64(),
                held,
                "{}: {sku} at {location}",
                self.descriptor.kind
            );
        }
    }
}

/// Stand-in and settings with the smallest pages, so that everything takes many of them.
pub async fn small(descriptor: &'static ConnectorDescriptor) -> (Box<dyn Fake>, Value) {
    let start = descriptor.fake.expect("a stand-in");
    let options = FakeOptions {
        skus: (0..25).map(|i| format!("S{i:02}")).collect(),
        ..FakeOptions::default()
    };
    let fake = start(options).await.expect("the stand-in starts");
    let mut settings = fake.settings();
    if (descriptor.settings)().to_value()["properties"]["page_rows"].is_object() {
        settings["page_rows"] = 10.into();
    }
    (fake, settings)
}

pub fn act(fake: &dyn Fake, action: Value) -> Value {
    fake.act(&action)
        .unwrap_or_else(|why| panic!("{action}: {why}"))
}

/// A day in a shop.
fn trade(fake: &dyn Fake) {
    for i in 0..25 {
        let sku = format!("S{i:02}");
        act(
            fake,
            json!({"receive": sku, "location": "Warehouse", "quantity": 20 + i}),
        );
    }
    for i in 0..15 {
        let (sku, other) = (format!("S{i:02}"), format!("S{:02}", i + 5));
        act(
            fake,
            json!({"transfer": sku, "from": "Warehouse", "to": "Store", "quantity": 3}),
        );
        act(
            fake,
            json!({"sell": sku, "location": "Store", "quantity": 2}),
        );
        act(
            fake,
            json!({"sell": other, "location": "Warehouse", "quantity": 1.5}),
        );
    }
    act(
        fake,
        json!({"return": "S01", "location": "Store", "quantity": 1}),
    );
    act(
        fake,
        json!({"count": "S02", "location": "Store", "quantity": 9}),
    );
    act(
        fake,
        json!({"count": "S03", "location": "Warehouse", "quantity": 4}),
    );
}

/// Runs `test` on every connector that has a source of stock and a stand-in.
async fn each_source<F: AsyncFn(&'static ConnectorDescriptor)>(test: F) {
    let mut tested = 0;
    let sources = connectors::ALL.iter().copied().filter(|d| d.fake.is_some());
    for descriptor in
        sources.filter(|d| d.emits.contains(&crossdock::contract::topic::STOCK_CHANGE))
    {
        test(descriptor).await;
        tested += 1;
    }
    assert!(tested >= 1, "no source was tested");
}

#[tokio::test]
async fn what_is_told_is_what_the_system_itself_reports() {
    each_source(async |descriptor| {
        let (fake, settings) = small(descriptor).await;
        let mut reader = Reader::new(descriptor, settings);
        reader.drain().await;
        trade(fake.as_ref());
        reader.drain().await;
        reader.agrees_with(fake.as_ref());
        trade(fake.as_ref());
        reader.drain().await;
        reader.agrees_with(fake.as_ref());
        for record in reader.records() {
            assert!(
                descriptor.emits.contains(&record.topic),
                "{} writes {}, which it does not declare",
                descriptor.kind,
                record.topic
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_restart_from_any_durable_cursor_tells_the_same_events() {
    each_source(async |descriptor| {
        let (fake, settings) = small(descriptor).await;
        trade(fake.as_ref());
        let mut reader = Reader::new(descriptor, settings.clone());
        reader.drain().await;
        let told =
            |polls: &[(String, Option<Cursor>, SourceBatch)], shard: &str| -> Vec<SourceRecord> {
                let of_shard = polls.iter().filter(|(s, _, _)| s == shard);
                of_shard
                    .flat_map(|(_, _, batch)| batch.records.clone())
                    .collect()
            };
        let mut again = Reader::new(descriptor, settings);
        for (at, (shard, before, _)) in reader.polls.iter().enumerate() {
            again.restart();
            again.cursors.clear();
            again.polls.clear();
            if let Some(cursor) = before {
                again.cursors.insert(shard.clone(), cursor.clone());
            }
            let mut idle = 0;
            while idle < IDLE_POLLS {
                let news = again.poll(shard, false).await.expect("polled");
                idle = if news { 0 } else { idle + 1 };
            }
            assert_eq!(
                told(&again.polls, shard),
                told(&reader.polls[at..], shard),
                "{}: {shard} from {before:?}",
                descriptor.kind
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_fault_in_mid_poll_loses_nothing_and_tells_nothing_twice() {
    each_source(async |descriptor| {
        let (fake, settings) = small(descriptor).await;
        trade(fake.as_ref());
        let mut whole = Reader::new(descriptor, settings);
        whole.drain().await;
        let wait = Duration::from_secs(3);
        let faults = [
            FakeFault::Status(500, None),
            FakeFault::Status(503, Some(wait)),
            FakeFault::Status(429, Some(wait)),
            FakeFault::Cut,
            FakeFault::AppliedThenCut,
            FakeFault::Garbage,
        ];
        for (n, fault) in faults.into_iter().enumerate() {
            let (fake, settings) = small(descriptor).await;
            trade(fake.as_ref());
            let mut reader = Reader::new(descriptor, settings);
            // A list is made once a day, and asks for nothing until the next is due.
            let asked = reader.shards().into_iter().filter(|s| s != "listing");
            for shard in asked {
                // Each call but for some fails once.
                for round in 0..12 {
                    let before = vec![FakeFault::Slow(Duration::ZERO); (round + n) % 5];
                    fake.inject(before.into_iter().chain([fault.clone()]).collect());
                    let mut seen = None;
                    for _ in 0..200 {
                        if let Err(fault) = reader.poll(&shard, false).await {
                            seen = Some(fault);
                            break;
                        }
                    }
                    let after = match fault {
                        FakeFault::Status(503 | 429, after) => after,
                        _ => None,
                    };
                    let seen = seen.map(|fault| fault.verdict);
                    let expected = Some(Verdict::Retry { after });
                    assert_eq!(seen, expected, "{}: {fault:?}", descriptor.kind);
                }
            }
            reader.drain().await;
            let ids = |reader: &Reader| -> BTreeSet<String> {
                let records = reader.records().into_iter();
                records
                    .map(|r| format!("{} {} {:?}", r.topic, r.key, r.event))
                    .collect()
            };
            assert_eq!(ids(&reader), ids(&whole), "{}: {fault:?}", descriptor.kind);
            assert_eq!(
                reader.records().len(),
                whole.records().len(),
                "{}: {fault:?}",
                descriptor.kind
            );
        }
    })
    .await;
}

#[tokio::test]
async fn rows_that_appear_behind_the_cursor_are_found_and_given_up_ones_are_not() {
    each_source(async |descriptor| {
        let (fake, settings) = small(descriptor).await;
        let mut reader = Reader::new(descriptor, settings);
        trade(fake.as_ref());
        act(fake.as_ref(), json!({"begin": "slow"}));
        act(fake.as_ref(), json!({"begin": "given up"}));
        act(
            fake.as_ref(),
            json!({"in": "slow", "sell": "S01", "location": "Store", "quantity": 1}),
        );
        act(
            fake.as_ref(),
            json!({"in": "given up", "sell": "S01", "location": "Store", "quantity": 7}),
        );
        act(
            fake.as_ref(),
            json!({"in": "slow", "receive": "S04", "location": "Warehouse", "quantity": 5}),
        );
        trade(fake.as_ref());
        reader.drain().await;
        reader.agrees_with(fake.as_ref());
        let before = reader.records().len();
        act(fake.as_ref(), json!({"commit": "slow"}));
        act(fake.as_ref(), json!({"rollback": "given up"}));
        reader.restart();
        reader.drain().await;
        assert!(
            reader.records().len() > before,
            "{}: late rows are not found",
            descriptor.kind
        );
        reader.agrees_with(fake.as_ref());
    })
    .await;
}

#[tokio::test]
async fn a_system_that_is_down_is_waited_for_and_wrong_credentials_are_not() {
    each_source(async |descriptor| {
        let (fake, settings) = small(descriptor).await;
        let mut reader = Reader::new(descriptor, settings);
        let shard = reader.shards().remove(0);
        fake.set_down(true);
        let fault = reader.poll(&shard, false).await.expect_err("down");
        assert!(
            matches!(fault.verdict, Verdict::Retry { .. }),
            "{}: {fault}",
            descriptor.kind
        );
        fake.set_down(false);
        fake.inject(vec![FakeFault::Unauthorised; 2]);
        let fault = reader.poll(&shard, false).await.expect_err("refused");
        assert_eq!(fault.verdict, Verdict::Halt, "{}: {fault}", descriptor.kind);
        // The second one, where a refused call was not made again at once.
        if let Err(fault) = reader.poll(&shard, false).await {
            assert_eq!(fault.verdict, Verdict::Halt, "{}: {fault}", descriptor.kind);
        }
        reader.drain().await;
    })
    .await;
}
