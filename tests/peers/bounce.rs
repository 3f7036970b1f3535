//! Kafka Connect's `test_bounce`, for Crossdock: all workers of sources and sinks are restarted one after
//! the other, three rounds in good order and three by `kill -9`, while lines keep coming. No line is lost
//! or told twice, and no effect at the target is had twice.

use crate::facts::{SESSION, count, quiet_readers};
use crate::kafka::Kafka;
use crate::worker::{POLL, Worker, succeed};
use crossdock::contract::topic;
use crossdock::log::Log;
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use crossdock::pipeline::{Fake, FakeOptions};
use rand::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const NODES: [&str; 3] = ["one", "two", "three"];
const ROUNDS: usize = 3;
const SKUS: usize = 40;
const LINES: usize = 40;
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn workers_bounce_and_nothing_is_lost_or_done_twice() {
    let _alone = crate::alone();
    let Some(kafka) = Kafka::find(1) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let options = FakeOptions {
        skus: (0..SKUS).map(|n| format!("SKU-{n}")).collect(),
        ..FakeOptions::default()
    };
    let make = crossdock::connectors::find("vendure").and_then(|d| d.fake);
    let shop = runtime.block_on(make.expect("a stand-in")(options));
    let shop = shop.expect("started");
    let folder = tempfile::tempdir().expect("a folder");
    let config = configure(folder.path(), shop.as_ref());
    let to = &kafka.bootstrap;
    let of_topics = [
        "topics",
        "apply",
        "--tier",
        "S",
        "--replication",
        "1",
        "--config",
    ];
    succeed(to, &[&of_topics[..], &[&config]].concat());
    succeed(to, &["schemas", "register", "--config", &config]);
    let log: Arc<dyn Log> =
        Arc::new(KafkaLog::connect(KafkaSettings::plain(to.clone())).expect("connected"));
    let start = |name: &str| {
        let names = [
            "run",
            "reference",
            "tills",
            "stock-ledger",
            "ats-aggregate",
            "shop",
        ];
        let options = ["--config", &config, "--session-timeout-ms", SESSION];
        Worker::start(to, folder.path(), name, &[&names[..], &options].concat())
    };
    let mut nodes = NODES.map(start);
    nodes
        .iter_mut()
        .for_each(|n| drop(n.wait_for("/health/ready", 200)));
    let is_over = AtomicBool::new(false);
    let expected = std::thread::scope(|scope| {
        let tills = scope.spawn(|| sell(folder.path(), &is_over));
        for is_clean in [true, false] {
            for _ in 0..ROUNDS {
                for (node, name) in nodes.iter_mut().zip(NODES) {
                    let taken = shop.calls_taken();
                    match is_clean {
                        true => {
                            node.signal("TERM");
                            assert_eq!(node.wait(PATIENCE), Some(0), "an orderly end");
                        }
                        false => node.kill(),
                    }
                    *node = start(name);
                    node.wait_for("/health/ready", 200);
                    hear(shop.as_ref(), taken);
                }
            }
            let repeated = repeated(shop.as_ref());
            println!(
                "in good order: {is_clean}; {} calls, {repeated} of them again",
                shop.calls_taken()
            );
            // What was under way when a process was killed is done again, and changes nothing.
            assert!(
                !is_clean || repeated == 0,
                "{repeated} calls had been made before"
            );
        }
        is_over.store(true, Ordering::SeqCst);
        tills.join().expect("the tills close")
    });
    // Each line is one fact, told once: `count` refuses those that stand there twice.
    let lines = count(&log, topic::STOCK_CHANGE, PATIENCE, &expected);
    quiet_readers(
        &kafka,
        &["stock-ledger", "ats-aggregate", "shop"],
        &[],
        PATIENCE,
    );
    println!("{lines} lines\n{}", succeed(to, &["verify"]));
    let books = shop.books();
    for (sku, units) in &expected {
        let shown = books.get(sku).and_then(Value::as_i64);
        assert_eq!(shown, Some((*units).max(0)), "{sku}");
    }
    for node in nodes {
        assert_eq!(node.terminate(), Some(0), "an orderly end");
    }
}

fn configure(folder: &Path, shop: &dyn Fake) -> String {
    let journal = folder.join("journal");
    std::fs::create_dir(&journal).expect("a folder");
    let configuration = json!({"connectors": [
        {"name": "reference", "kind": "reference", "settings": {
            "locations": {"dc": {"kind": "store"}},
            "channels": {"web": {"locations": ["dc"], "unit": "1"}}}},
        {"name": "tills", "kind": "file", "settings": {
            "path": journal, "format": "csv",
            "fields": {
                "sku": {"column": "sku"}, "location": {"constant": "dc"},
                "quantity": {"column": "quantity"}, "time": {"column": "time"},
                "document": {"column": "document"}},
            "time_format": "%Y-%m-%d %H:%M:%S", "time_zone": "UTC"}},
        {"name": "shop", "kind": "vendure", "settings": shop.settings()},
    ]});
    let path = folder.join("config.yaml");
    std::fs::write(&path, configuration.to_string()).expect("written");
    path.display().to_string()
}

/// Files of the tills appear one after the other; gives the units that are there at the end.
fn sell(folder: &Path, is_over: &AtomicBool) -> BTreeMap<String, i64> {
    let mut random = StdRng::seed_from_u64(5);
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    for file in 0.. {
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        let mut lines = String::from("sku,quantity,time,document\n");
        for line in 0..LINES {
            let sku = format!("SKU-{}", random.random_range(0..SKUS));
            let quantity: i64 = random.random_range(-9..0);
            *expected.entry(sku.clone()).or_default() -= quantity;
            lines += &format!("{sku},{quantity},2026-01-01 10:00:00,{file}-{line}\n");
        }
        let unfinished = folder.join("unfinished");
        std::fs::write(&unfinished, lines).expect("written");
        std::fs::rename(&unfinished, folder.join(format!("journal/{file:04}.csv"))).expect("moved");
        std::thread::sleep(POLL * 10); // the pace of the tills
    }
    expected
}

/// Waits until the storefront was called again: the next bounce meets workers at work.
fn hear(shop: &dyn Fake, taken: u64) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while shop.calls_taken() == taken {
        assert!(
            std::time::Instant::now() < deadline,
            "the storefront hears nothing"
        );
        std::thread::sleep(POLL);
    }
}

/// How often the storefront was told of a SKU what it had been told last.
fn repeated(shop: &dyn Fake) -> usize {
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    let mut repeated = 0;
    for call in shop.calls() {
        let told = call.body["variables"]["input"].as_array().cloned();
        for item in told.unwrap_or_default() {
            let (id, what) = (item["id"].to_string(), item.to_string());
            let before = last.insert(id, what.clone());
            repeated += usize::from(before == Some(what));
        }
    }
    repeated
}
