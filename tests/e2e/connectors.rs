//! Source and sink processes are killed in the middle of their work: every line of the file becomes
//! one record, and the storefront shows what was published.

use crate::facts::{SESSION, codec, count, last_values, quiet_readers};
use crate::kafka::Kafka;
use crate::worker::{POLL, Worker, succeed};
use crossdock::contract::event::Event;
use crossdock::contract::topic;
use crossdock::domain::Decimal;
use crossdock::log::Log;
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use crossdock::pipeline::FakeOptions;
use rand::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SKUS: usize = 60;
const WAVES: usize = 8;
const LINES: usize = 400;

#[test]
fn sources_and_sinks_that_are_killed_lose_no_line_and_no_call() {
    let Some(kafka) = Kafka::find(1) else { return };
    let mut random = StdRng::seed_from_u64(3);
    let skus: Vec<String> = (0..SKUS).map(|n| format!("SKU-{n}")).collect();
    let options = FakeOptions {
        skus: skus.clone(),
        locations: vec![],
        seed: 1,
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let make = crossdock::connectors::find("vendure").and_then(|d| d.fake);
    let shop = runtime
        .block_on(make.expect("a stand-in")(options))
        .expect("started");
    let folder = tempfile::tempdir().expect("a folder");
    let files = folder.path().join("journal");
    std::fs::create_dir(&files).expect("a folder");
    let configuration = json!({"connectors": [
        {"name": "reference", "kind": "reference", "settings": {
            "locations": {"dc": {"kind": "store"}},
            "channels": {"web": {"locations": ["dc"], "unit": "1"}}}},
        {"name": "tills", "kind": "file", "settings": {
            "path": files, "format": "csv",
            "fields": {
                "sku": {"column": "sku"},
                "location": {"column": "location"},
                "quantity": {"column": "quantity"},
                "time": {"column": "time"},
                "document": {"column": "document"}},
            "time_format": "%Y-%m-%d %H:%M:%S", "time_zone": "UTC"}},
        {"name": "shop", "kind": "vendure", "settings": shop.settings()},
    ]});
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, configuration.to_string()).expect("written");
    let config = path.display().to_string();
    let of_connectors = [
        "--connector",
        "reference",
        "--connector",
        "tills=file",
        "--connector",
        "shop=vendure",
    ];
    succeed(
        &kafka.bootstrap,
        &[
            &["topics", "apply", "--tier", "S", "--replication", "1"][..],
            &of_connectors[..],
        ]
        .concat(),
    );
    succeed(
        &kafka.bootstrap,
        &[&["schemas", "register"][..], &of_connectors[..]].concat(),
    );
    let log: Arc<dyn Log> =
        Arc::new(KafkaLog::connect(KafkaSettings::plain(&kafka.bootstrap)).expect("connected"));
    let start = |instance: &str, names: &[&str]| {
        let options = ["--config", &config, "--session-timeout-ms", SESSION];
        let arguments = [&["run"][..], names, &options[..]].concat();
        Worker::start(&kafka.bootstrap, folder.path(), instance, &arguments)
    };
    let middle = start("middle", &["reference", "stock-ledger", "ats-aggregate"]);
    let mut source = start("source", &["tills"]);
    let mut sink = start("sink", &["shop"]);
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    let mut last_calls = 0;
    for wave in 0..WAVES {
        let mut lines = String::from("sku,location,quantity,time,document\n");
        for line in 0..LINES {
            let sku = skus.choose(&mut random).expect("a SKU");
            // A return puts units back, so most of what happens here fills the shelves.
            let quantity: i64 = random.random_range(-9..3);
            if quantity != 0 {
                *expected.entry(sku.clone()).or_default() -= quantity;
                lines += &format!("{sku},dc,{quantity},2026-01-01 10:00:00,{wave}-{line}\n");
            }
        }
        // A file appears whole, as an export that is moved into place does.
        let unfinished = folder.path().join("unfinished");
        std::fs::write(&unfinished, lines).expect("written");
        std::fs::rename(&unfinished, files.join(format!("{wave:03}.csv"))).expect("moved");
        if wave == 4 {
            shop.set_down(true);
        }
        if wave == 6 {
            shop.set_down(false);
        }
        // In the middle of calls, while the shop is up; in the middle of lines.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !(4..6).contains(&wave) && shop.calls().len() == last_calls {
            assert!(
                Instant::now() < deadline,
                "the shop hears nothing: {}",
                sink.logged()
            );
            std::thread::sleep(POLL);
        }
        sink.kill();
        source.kill();
        last_calls = shop.calls().len();
        source = start("source", &["tills"]);
        sink = start("sink", &["shop"]);
    }
    let lines: i64 = count(
        &log,
        topic::STOCK_CHANGE,
        Duration::from_secs(60),
        &expected,
    );
    quiet_readers(
        &kafka,
        &["stock-ledger", "ats-aggregate", "shop"],
        &[],
        Duration::from_secs(120),
    );
    println!("{lines} lines, {} calls", shop.calls().len());
    println!("{}", succeed(&kafka.bootstrap, &["verify"]));
    let codec = codec(&log);
    let books = shop.books();
    let mut published = 0;
    for (key, record) in last_values(log.as_ref(), topic::STOCK_ATS) {
        let Ok(Event::AvailabilityChanged(last)) = codec.decode(&record) else {
            panic!("not availability: {key}")
        };
        let shown = books.get(&*last.sku).and_then(Value::as_i64);
        assert_eq!(
            shown.map(|n| Decimal::from(n as i32)),
            Some(last.ats),
            "{key}"
        );
        let on_hand = expected[&*last.sku].max(0) as i32;
        assert_eq!(last.ats, Decimal::from(on_hand), "{key}");
        published += 1;
    }
    assert!(published > SKUS / 2, "{published} published");
    for worker in [middle, source, sink] {
        assert_eq!(worker.terminate(), Some(0), "an orderly end");
    }
}
