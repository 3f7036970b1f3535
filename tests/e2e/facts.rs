//! Stock changes for a deployment under test, and the judgement of what it made of them.

use crate::kafka::Kafka;
use crate::oracle::Told;
use crate::worker::{run, succeed};
use crossdock::codec::Codec;
use crossdock::contract::event::{EventMeta, PositionKind, StockChanged, StockReason, StockState};
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::{Decimal, Timestamp, compound_key, event_id};
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use crossdock::log::{Log, Outgoing, ProducerSpec};
use crossdock::pipeline::Headers;
use crossdock::registry::EmbeddedRegistry;
use rand::prelude::*;
use std::collections::BTreeMap;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How soon a dead instance's partitions move, in milliseconds.
pub const SESSION: &str = "3000";
/// Waves in which changes are sent.
const WAVES: usize = 10;

/// Writes `distinct` changes and a tenth of them twice, out of order, in ten waves; calls `between`
/// after each.
pub fn send_changes(
    log: &Arc<dyn Log>,
    distinct: i64,
    seed: u64,
    mut between: impl FnMut(usize, &mut StdRng),
) {
    let codec = codec(log);
    let mut random = StdRng::seed_from_u64(seed);
    let mut facts: Vec<(i64, u32, u32, i32)> = (1..=distinct)
        .map(|position| {
            let sku = (random.random::<f64>().powi(3) * 2_000.0) as u32;
            (
                position,
                sku,
                random.random_range(0..5),
                random.random_range(1..9) * if random.random_bool(0.5) { 1 } else { -1 },
            )
        })
        .collect();
    facts.extend_from_within(..(distinct / 10) as usize);
    facts.shuffle(&mut random);
    let mut producer = log
        .producer(&ProducerSpec {
            linger: Duration::from_millis(5),
            ..ProducerSpec::default()
        })
        .expect("a producer");
    let headers = Headers::default();
    let mut value = Vec::new();
    // Waves end at random points.
    let mut ends: Vec<usize> = (1..WAVES)
        .map(|_| random.random_range(1..facts.len()))
        .collect();
    ends.extend([0, facts.len()]);
    ends.sort_unstable();
    for (wave, ends) in ends.windows(2).enumerate() {
        let chunk = &facts[ends[0]..ends[1]];
        for (position, sku, location, quantity) in chunk {
            let (sku, location) = (format!("SKU-{sku}"), format!("L{location}"));
            let event = change(&sku, &location, *position, *quantity);
            value.clear();
            codec
                .encode(topic::STOCK_CHANGE, &event.into(), &mut value)
                .expect("encoded");
            let key = compound_key(&[&sku, &location]);
            let record = Outgoing {
                topic: topic::STOCK_CHANGE,
                partition: None,
                key: Some(key.as_bytes()),
                value: Some(&value),
                headers: &headers,
                timestamp_ms: now_ms(),
            };
            while producer.send(record).is_err() {
                producer.poll(Duration::from_millis(10));
            }
        }
        producer.flush().expect("flushed");
        between(wave, &mut random);
    }
}

pub fn change(sku: &str, location: &str, position: i64, quantity: i32) -> StockChanged {
    let at = Timestamp(1_767_225_600_000_000 + position);
    let out = quantity > 0;
    StockChanged {
        meta: EventMeta {
            event_id: event_id("wms", 0, &position.to_string(), "", "StockChanged"),
            event_type: "StockChanged".into(),
            source: "wms".into(),
            source_position: position,
            position_kind: PositionKind::Sequence,
            occurred_at: at,
            recorded_at: at,
            tenant_id: "default".into(),
            correlation_id: "test".into(),
            ..EventMeta::default()
        },
        movement_id: position.to_string().into(),
        sku: sku.into(),
        location_id: location.into(),
        from_state: if out {
            StockState::Sellable
        } else {
            StockState::Supplier
        },
        to_state: if out {
            StockState::Customer
        } else {
            StockState::Sellable
        },
        qty: Decimal::from(quantity.abs()),
        uom: "EA".into(),
        reason: StockReason::Sale,
        ..StockChanged::default()
    }
}

pub fn prepare(kafka: &Kafka) -> Arc<dyn Log> {
    succeed(
        &kafka.bootstrap,
        &["topics", "apply", "--tier", "S", "--replication", "1"],
    );
    succeed(&kafka.bootstrap, &["schemas", "register"]);
    Arc::new(KafkaLog::connect(KafkaSettings::plain(&kafka.bootstrap)).expect("connected"))
}

/// Waits until `crossdock verify` says that nothing is in flight.
pub fn quiet(kafka: &Kafka, patience: Duration) {
    quiet_readers(kafka, &["stock-ledger"], &[], patience);
}

/// As [`quiet`], for these readers, with these further options of `verify`.
pub fn quiet_readers(kafka: &Kafka, readers: &[&str], options: &[&str], patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let output = run(
            &kafka.bootstrap,
            &[&["verify", "--json"][..], options].concat(),
        );
        let books: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let settled = |reader: &&str| {
            let ledger = &books["readers"][*reader];
            ledger["in_flight"] == 0 && ledger["produced"].as_i64() > Some(0)
        };
        if readers.iter().all(settled) {
            assert!(
                output.status.success() || books["faults"].as_array().is_some_and(Vec::is_empty),
                "{books}"
            );
            return;
        }
        assert!(Instant::now() < deadline, "still in flight: {books}");
    }
}

/// The codec of a deployment whose registry is in the log.
pub fn codec(log: &Arc<dyn Log>) -> Codec {
    let registry = EmbeddedRegistry::open(log.clone()).expect("a registry");
    Codec::new(Arc::new(registry), Catalogue::compiled())
}

/// What is older than a topic keeps is dropped.
pub fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_millis() as i64
}

/// Writes one record, and waits until the broker has it.
pub fn send_raw(log: &Arc<dyn Log>, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>) {
    let mut producer = log.producer(&ProducerSpec::default()).expect("a producer");
    let headers = Headers::default();
    let record = Outgoing {
        topic,
        partition: None,
        key,
        value,
        headers: &headers,
        timestamp_ms: now_ms(),
    };
    producer.send(record).expect("sent");
    producer.flush().expect("flushed");
}

/// Writes facts of the oracle's retailer.
pub fn send_told(log: &Arc<dyn Log>, facts: &[Told]) {
    let mut producer = log.producer(&ProducerSpec::default()).expect("a producer");
    let headers = Headers::default();
    for fact in facts {
        let record = Outgoing {
            topic: &fact.topic,
            partition: None,
            key: Some(fact.key.as_bytes()),
            value: Some(&fact.value),
            headers: &headers,
            timestamp_ms: now_ms(),
        };
        producer.send(record).expect("sent");
    }
    producer.flush().expect("flushed");
}

/// Waits until nothing at all is in flight.
pub fn rest(kafka: &Kafka, patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let output = run(&kafka.bootstrap, &["verify", "--json"]);
        let books: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if books["in_flight"] == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "still in flight: {books}");
    }
}

/// The last committed value of each key.
pub fn last_values(log: &dyn Log, topic: &str) -> BTreeMap<String, crossdock::pipeline::Record> {
    let mut last = BTreeMap::new();
    crossdock::verify::read_topic(log, topic, |record| {
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default());
        last.insert(key.into_owned(), record.clone());
    })
    .expect("read");
    last
}

/// Runs the oracle over everything that is in the log. `distinct` different changes were sent. `None`
/// where it cannot run.
pub fn oracle(kafka: &Kafka, distinct: i64) -> Option<Output> {
    let sent = format!("{}={distinct}", topic::STOCK_CHANGE);
    let mut oracle = crate::oracle::command()?;
    oracle.args(["judge", "--bootstrap", &kafka.bootstrap, "--sent", &sent]);
    oracle.args(["--reader", "stock-ledger"]);
    Some(oracle.output().expect("the oracle runs"))
}

/// The oracle finds nothing wrong, and the books balance.
pub fn judge(kafka: &Kafka, distinct: i64, seed: u64) {
    if let Some(output) = oracle(kafka, distinct) {
        let (said, complained) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        println!("oracle: {}", said.trim());
        assert!(output.status.success(), "seed {seed}: {said}{complained}");
    }
    println!("{}", succeed(&kafka.bootstrap, &["verify"]));
}

/// Waits until the levels of the facts in the log are those of the lines; gives the number of facts,
/// each of which must be there once.
pub fn count(
    log: &Arc<dyn Log>,
    topic: &str,
    patience: Duration,
    expected: &BTreeMap<String, i64>,
) -> i64 {
    let codec = codec(log);
    let deadline = Instant::now() + patience;
    loop {
        let mut seen = std::collections::BTreeSet::new();
        let (mut records, mut sums) = (0, BTreeMap::<String, Decimal>::new());
        crossdock::verify::read_topic(log.as_ref(), topic, |record| {
            let Ok(crossdock::contract::event::Event::StockChanged(fact)) = codec.decode(record)
            else {
                panic!("not a change at {}", record.origin)
            };
            records += 1;
            assert!(
                seen.insert(fact.meta.event_id),
                "written twice: {}",
                record.origin
            );
            let sum = sums.entry(fact.sku.to_string()).or_default();
            if fact.from_state == StockState::Sellable {
                *sum -= fact.qty;
            } else {
                *sum += fact.qty;
            }
        })
        .expect("read");
        let wanted: BTreeMap<String, Decimal> = expected
            .iter()
            .map(|(sku, n)| (sku.clone(), Decimal::from(*n as i32)))
            .collect();
        if sums == wanted {
            return records;
        }
        assert!(
            Instant::now() < deadline,
            "{records} facts: {sums:?}, expected {wanted:?}"
        );
    }
}
