//! Instances of `stock-ledger` are killed in the middle of their work, and nothing is lost or done
//! twice.

use crate::kafka::Kafka;
use crate::worker::{Worker, run, succeed};
use crossdock::codec::Codec;
use crossdock::contract::event::{EventMeta, PositionKind, StockChanged, StockReason, StockState};
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::{Decimal, Timestamp, compound_key, event_id};
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use crossdock::log::{Log, Outgoing, ProducerSpec};
use crossdock::pipeline::Headers;
use crossdock::registry::EmbeddedRegistry;
use rand::prelude::*;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SESSION: &str = "3000";

/// Writes `distinct` changes and a tenth of them twice, out of order, in ten waves; calls `between`
/// after each.
fn send_changes(
    log: &Arc<dyn Log>,
    distinct: i64,
    seed: u64,
    mut between: impl FnMut(usize, &mut StdRng),
) {
    let registry = EmbeddedRegistry::open(log.clone()).expect("a registry");
    let codec = Codec::new(Arc::new(registry), Catalogue::compiled());
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
    for (wave, chunk) in facts.chunks(facts.len().div_ceil(10)).enumerate() {
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
                timestamp_ms: 1_767_225_600_000,
            };
            while producer.send(record).is_err() {
                producer.poll(Duration::from_millis(10));
            }
        }
        producer.flush().expect("flushed");
        between(wave, &mut random);
    }
}

fn change(sku: &str, location: &str, position: i64, quantity: i32) -> StockChanged {
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

fn prepare(kafka: &Kafka) -> Arc<dyn Log> {
    succeed(
        &kafka.bootstrap,
        &["topics", "apply", "--tier", "S", "--replication", "1"],
    );
    succeed(&kafka.bootstrap, &["schemas", "register"]);
    Arc::new(KafkaLog::connect(KafkaSettings::plain(&kafka.bootstrap)).expect("connected"))
}

/// Waits until `crossdock verify` says that nothing is in flight.
fn quiet(kafka: &Kafka, patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let output = run(&kafka.bootstrap, &["verify", "--json"]);
        let books: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let ledger = &books["readers"]["stock-ledger"];
        if ledger["in_flight"] == 0 && ledger["produced"].as_i64() > Some(0) {
            assert!(
                output.status.success() || books["faults"].as_array().is_some_and(Vec::is_empty),
                "{books}"
            );
            return;
        }
        assert!(Instant::now() < deadline, "still in flight: {ledger}");
    }
}

fn judge(kafka: &Kafka, distinct: i64, seed: u64) {
    let python = std::env::var("CROSSDOCK_ORACLE_PYTHON").unwrap_or_else(|_| "python3".into());
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/levels.py");
    let output = Command::new(python)
        .arg(oracle)
        .args([&kafka.bootstrap, &distinct.to_string()])
        .output()
        .expect("the oracle runs");
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    println!("oracle: {}", said.trim());
    assert!(output.status.success(), "seed {seed}: {said}{complained}");
    println!("{}", succeed(&kafka.bootstrap, &["verify"]));
}

#[test]
fn kills_hand_overs_and_broker_pauses_lose_and_repeat_nothing() {
    const DISTINCT: i64 = 200_000;
    let seed: u64 = std::env::var("CROSSDOCK_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(20_261_124);
    let Some(kafka) = Kafka::find(1) else { return };
    let log = prepare(&kafka);
    let folder = tempfile::tempdir().expect("a folder");
    let start = |instance: &str| {
        Worker::start(
            &kafka.bootstrap,
            folder.path(),
            instance,
            &["run", "stock-ledger", "--session-timeout-ms", SESSION],
        )
    };
    let mut workers = vec![start("one"), start("two")];
    let mut kills = 0;
    let mut third: Option<Worker> = None;
    send_changes(&log, DISTINCT, seed, |wave, random| {
        let victim = random.random_range(0..2);
        let name = ["one", "two"][victim];
        workers[victim].kill();
        kills += 1;
        workers[victim] = start(name);
        match wave {
            3 => third = Some(start("three")),
            6 => {
                let code = third.take().map(Worker::terminate);
                assert_eq!(code, Some(Some(0)), "an orderly end");
            }
            // The broker stands still for longer than a session lasts.
            5 if kafka.is_own() => {
                kafka.control(&["stop", "1"]);
                std::thread::sleep(Duration::from_secs(4));
                kafka.control(&["cont", "1"]);
            }
            _ => {}
        }
    });
    assert!(kills >= 10, "seed {seed}: {kills} kills");
    quiet(&kafka, Duration::from_secs(180));
    judge(&kafka, DISTINCT, seed);
    for worker in workers {
        assert_eq!(worker.terminate(), Some(0), "an orderly end");
    }
}

#[test]
fn a_broker_that_is_killed_and_returns_is_waited_for() {
    const DISTINCT: i64 = 20_000;
    let Some(kafka) = Kafka::find(1).filter(Kafka::is_own) else {
        return;
    };
    let log = prepare(&kafka);
    let folder = tempfile::tempdir().expect("a folder");
    let worker = Worker::start(
        &kafka.bootstrap,
        folder.path(),
        "one",
        &["run", "stock-ledger", "--session-timeout-ms", SESSION],
    );
    send_changes(&log, DISTINCT, 7, |wave, _| {
        if wave == 4 {
            kafka.control(&["kill", "1"]);
            kafka.control(&["restart", "1"]);
        }
    });
    quiet(&kafka, Duration::from_secs(120));
    judge(&kafka, DISTINCT, 7);
    assert_eq!(worker.terminate(), Some(0), "an orderly end");
}

#[test]
fn what_is_missing_is_named_with_the_command_that_mends_it() {
    let Some(kafka) = Kafka::find(1) else { return };
    let said = |arguments: &[&str]| {
        let output = run(&kafka.bootstrap, arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let words = said(&["run", "stock-ledger"]);
    assert!(words.contains("topics apply"), "{words}");
    succeed(&kafka.bootstrap, &["topics", "apply", "--replication", "1"]);
    let words = said(&["run", "stock-ledger"]);
    assert!(words.contains("schemas register"), "{words}");
    let words = said(&["run", "stock-leger"]);
    assert!(words.contains("stock-ledger"), "{words}");
    let output = run("127.0.0.1:1", &["verify"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && words.contains("127.0.0.1:1"),
        "{words}"
    );
}
