//! The binary between a real Kafka and real storefronts: published availability arrives, also at one
//! that was away, and the books balance.

use crate::kafka::Kafka;
use crate::proxy::Proxy;
use crate::support::{Shop, skus};
use crate::systems::{Systems, url};
use crate::worker::{Worker, run, succeed};
use crossdock::codec::Codec;
use crossdock::contract::event::{AvailabilityChanged, Event, EventMeta, SinkOutcome};
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::{Decimal, Timestamp, compound_key, event_id};
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use crossdock::log::{Log, Outgoing, Producer, ProducerSpec, TopicPartition};
use crossdock::pipeline::Headers;
use crossdock::registry::EmbeddedRegistry;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is published for a channel, by SKU: units and version.
type Published = BTreeMap<String, (i64, i64)>;

/// Publishes availability as `ats-aggregate` does.
struct Publisher {
    codec: Codec,
    producer: Box<dyn Producer>,
}

impl Publisher {
    fn new(log: &Arc<dyn Log>) -> Publisher {
        let registry = EmbeddedRegistry::open(log.clone()).expect("a registry");
        Publisher {
            codec: Codec::new(Arc::new(registry), Catalogue::compiled()),
            producer: log.producer(&ProducerSpec::default()).expect("a producer"),
        }
    }

    fn publish(&mut self, channel: &str, published: &mut Published, sku: &str, quantity: i64) {
        let version = published.get(sku).map_or(1, |(_, version)| version + 1);
        let previous = published.insert(sku.to_owned(), (quantity, version));
        let units = |q: i64| Decimal::from(i32::try_from(q).expect("a small number"));
        let at = Timestamp(1_767_225_600_000_000 + version);
        let identity = format!("{sku}|{channel}|{version}");
        let event = AvailabilityChanged {
            meta: EventMeta {
                event_id: event_id("test", 0, &identity, "", "AvailabilityChanged"),
                event_type: "AvailabilityChanged".into(),
                source: "test".into(),
                source_position: version,
                occurred_at: at,
                recorded_at: at,
                tenant_id: "default".into(),
                correlation_id: "test".into(),
                ..EventMeta::default()
            },
            sku: sku.into(),
            channel_id: channel.into(),
            ats_version: version,
            ats: units(quantity),
            previous_ats: previous.map(|(q, _)| units(q)),
            ..AvailabilityChanged::default()
        };
        let mut value = Vec::new();
        self.codec
            .encode(topic::STOCK_ATS, &Event::from(event), &mut value)
            .expect("encoded");
        let key = compound_key(&[sku, channel]);
        let record = Outgoing {
            topic: topic::STOCK_ATS,
            partition: None,
            key: Some(key.as_bytes()),
            value: Some(&value),
            headers: &Headers::default(),
            timestamp_ms: 1_767_225_600_000,
        };
        self.producer.send(record).expect("sent");
    }

    fn flush(&mut self) {
        self.producer.flush().expect("flushed");
    }
}

/// Waits until a reader has settled everything, and gives its books.
pub fn quiet(kafka: &Kafka, reader: &str, patience: Duration) -> Value {
    let deadline = Instant::now() + patience;
    loop {
        let output = run(&kafka.bootstrap, &["verify", "--json"]);
        let books: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let ledger = &books["readers"][reader];
        if ledger["in_flight"] == 0 && ledger["produced"].as_i64() > Some(0) {
            return ledger.clone();
        }
        assert!(Instant::now() < deadline, "{reader} is not quiet: {books}");
    }
}

/// Writes a configuration with these connectors.
pub fn configure(folder: &Path, connectors: &[(&str, &str, Value)]) -> String {
    let entry = |(name, kind, settings): &(&str, &str, Value)| json!({"name": name, "kind": kind, "settings": settings});
    let configuration = json!({"connectors": connectors.iter().map(entry).collect::<Vec<_>>()});
    let path = folder.join("crossdock.yaml");
    std::fs::write(&path, configuration.to_string()).expect("written");
    path.display().to_string()
}

fn quantities(published: &Published) -> BTreeMap<String, i64> {
    published
        .iter()
        .map(|(sku, (quantity, _))| (sku.clone(), *quantity))
        .collect()
}

/// The last receipt of each SKU: version, units, and how it ended.
pub fn receipts(log: &Arc<dyn Log>, sink: &str) -> BTreeMap<String, (i64, i64, SinkOutcome)> {
    let catalogue = Catalogue::compiled();
    let registry = EmbeddedRegistry::open(log.clone()).expect("a registry");
    let codec = Codec::new(Arc::new(registry), catalogue);
    let name = catalogue.receipt_topic(sink);
    let topics = log.admin().topics().expect("topics");
    let found = topics
        .iter()
        .find(|t| t.name == name)
        .expect("a topic for receipts");
    let mut last = BTreeMap::new();
    for partition in 0..found.partitions {
        let partition = TopicPartition {
            topic: name.as_str().into(),
            partition,
        };
        for record in crate::support::records(log, &partition) {
            let receipt = codec.decode_receipt(record.value.as_deref().unwrap_or_default());
            let receipt = receipt.expect("a receipt");
            if receipt.outcome == SinkOutcome::OutcomeUnknown {
                // Says that nobody knows, and is followed by one that does.
                continue;
            }
            let units = receipt.request_hash.as_ref().and_then(|d| d.parse().ok());
            let (sku, _) = receipt.entity_key.split_once('|').expect("SKU and channel");
            last.insert(
                sku.to_owned(),
                (receipt.sent_version, units.expect("units"), receipt.outcome),
            );
        }
    }
    last
}

#[test]
fn a_storefront_that_was_away_catches_up_and_the_books_balance() {
    let Some(systems) = Systems::find() else {
        return;
    };
    let Some(kafka) = Kafka::find(1) else { return };
    let shops = Shop::all(&systems);
    let [vendure, medusa] = &shops;
    let proxies = [vendure, medusa].map(|shop| Proxy::start(&url(shop.kind)));
    let folder = tempfile::tempdir().expect("a folder");
    let configuration = configure(
        folder.path(),
        &[
            ("web", "vendure", vendure.settings(&proxies[0].url(), "web")),
            ("app", "medusa", medusa.settings(&proxies[1].url(), "app")),
        ],
    );
    let connectors = ["--connector", "web=vendure", "--connector", "app=medusa"];
    succeed(
        &kafka.bootstrap,
        &[&["topics", "apply", "--replication", "1"][..], &connectors].concat(),
    );
    succeed(
        &kafka.bootstrap,
        &[&["schemas", "register"][..], &connectors].concat(),
    );
    let worker = Worker::start(
        &kafka.bootstrap,
        folder.path(),
        "sinks",
        &["run", "web", "app", "--config", &configuration],
    );
    let log: Arc<dyn Log> =
        Arc::new(KafkaLog::connect(KafkaSettings::plain(&kafka.bootstrap)).expect("connected"));
    let mut publisher = Publisher::new(&log);
    let (mut web, mut app) = (Published::new(), Published::new());
    let patience = Duration::from_secs(120);

    let skus = skus(100..300);
    for (i, sku) in (0..).zip(&skus) {
        publisher.publish("web", &mut web, sku, 3 + i % 41);
        publisher.publish("app", &mut app, sku, 5 + i % 37);
    }
    publisher.flush();
    quiet(&kafka, "web", patience);
    quiet(&kafka, "app", patience);
    assert_eq!(vendure.shown(&skus), quantities(&web));
    assert_eq!(medusa.shown(&skus), quantities(&app));
    assert!(!proxies[0].writes().is_empty() && !proxies[1].writes().is_empty());

    // New versions of the same quantities are no reason to write.
    for sku in &skus {
        let (quantity, _) = web[sku];
        publisher.publish("web", &mut web, sku, quantity);
    }
    publisher.flush();
    let books = quiet(&kafka, "web", patience);
    assert_eq!(proxies[0].writes(), Vec::<String>::new(), "{books}");

    // One storefront is away, the other goes on.
    systems.stop("vendure");
    let sold_out = &skus[190..];
    for (i, sku) in (0..).zip(&skus) {
        let is_sold_out = sold_out.contains(sku);
        publisher.publish(
            "web",
            &mut web,
            sku,
            if is_sold_out { 0 } else { 60 + i % 13 },
        );
        publisher.publish(
            "app",
            &mut app,
            sku,
            if is_sold_out { 0 } else { 80 + i % 17 },
        );
    }
    publisher.flush();
    quiet(&kafka, "app", patience);
    assert_eq!(
        medusa.shown(&skus),
        quantities(&app),
        "while the other is away"
    );
    systems.start("vendure");
    let books = quiet(&kafka, "web", patience);
    assert_eq!(vendure.shown(&skus), quantities(&web), "{books}");
    assert_eq!(books["dead_lettered"], 0, "{books}");

    // What was sold out was told first. A call may have been under way when the shop went.
    let writes = proxies[0].writes();
    let first = writes
        .iter()
        .position(|w| zeroes(w) > 0)
        .expect("stock-outs were written");
    assert!(first <= 1, "stock-outs came only with call {first}");
    assert_eq!(zeroes(&writes[first]), sold_out.len(), "{}", writes[first]);

    for (sink, published) in [("web", &web), ("app", &app)] {
        let receipts = receipts(&log, sink);
        assert_eq!(receipts.len(), published.len(), "{sink}");
        for (sku, (quantity, version)) in published {
            let (sent_version, units, outcome) = receipts[sku];
            assert_eq!(
                (sent_version, units),
                (*version, *quantity),
                "{sink} {sku}: {outcome:?}"
            );
        }
    }
    println!("{}", succeed(&kafka.bootstrap, &["verify"]));
    assert_eq!(worker.terminate(), Some(0), "an orderly end");
}

/// Variants whose stock a call to Vendure sets to nothing.
fn zeroes(body: &str) -> usize {
    let body: Value = serde_json::from_str(body).expect("JSON");
    let input = body["variables"]["input"].as_array().expect("variants");
    let nothing = |v: &&Value| v["stockLevels"][0]["stockOnHand"] == 0;
    input.iter().filter(nothing).count()
}
