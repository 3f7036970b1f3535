//! A shop that has lost what it was told, on a real Kafka: the binary says what is missing there and gives
//! it to the running sink once more, and nothing else.

use crate::facts::{SESSION, change, codec, quiet_readers, send_raw};
use crate::kafka::Kafka;
use crate::worker::{Worker, run, succeed};
use crossdock::contract::topic;
use crossdock::log::Log;
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use crossdock::pipeline::{Fake, FakeOptions};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const CONNECTORS: [&str; 4] = ["--connector", "reference", "--connector", "shop=vendure"];

/// An empty shop.
fn opened(runtime: &tokio::runtime::Runtime) -> Box<dyn Fake> {
    let options = FakeOptions {
        skus: vec!["A".into(), "B".into()],
        locations: vec![],
        seed: 1,
    };
    let make = crossdock::connectors::find("vendure").and_then(|d| d.fake);
    let shop = make.expect("a stand-in")(options);
    runtime.block_on(shop).expect("started")
}

fn configure(path: &Path, shop: &dyn Fake) {
    let configuration = json!({"connectors": [
        {"name": "reference", "kind": "reference", "settings": {
            "locations": {"dc": {"kind": "store"}},
            "channels": {"web": {"locations": ["dc"], "unit": "1"}}}},
        {"name": "shop", "kind": "vendure", "settings": shop.settings()},
    ]});
    std::fs::write(path, configuration.to_string()).expect("written");
}

#[test]
fn a_shop_that_was_set_back_gets_what_it_lacks_and_nothing_else() {
    let Some(kafka) = Kafka::find(1) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let shop = opened(&runtime);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.yaml");
    configure(&path, shop.as_ref());
    let config = path.display().to_string();
    let prepare = |what: &[&str]| succeed(&kafka.bootstrap, &[what, &CONNECTORS[..]].concat());
    prepare(&["topics", "apply", "--tier", "S", "--replication", "1"]);
    prepare(&["schemas", "register"]);
    let log: Arc<dyn Log> =
        Arc::new(KafkaLog::connect(KafkaSettings::plain(&kafka.bootstrap)).expect("connected"));
    let codec = codec(&log);
    let start = |instance: &str, names: &[&str]| {
        let options = ["--config", &config, "--session-timeout-ms", SESSION];
        let arguments = [&["run"][..], names, &options[..]].concat();
        Worker::start(&kafka.bootstrap, folder.path(), instance, &arguments)
    };
    let middle = start("middle", &["reference", "stock-ledger", "ats-aggregate"]);
    let sink = start("sink", &["shop"]);
    for (position, (sku, quantity)) in [("A", -5), ("B", -7)].into_iter().enumerate() {
        let fact = change(sku, "dc", position as i64 + 1, quantity);
        let mut value = Vec::new();
        codec
            .encode(topic::STOCK_CHANGE, &fact.into(), &mut value)
            .expect("encoded");
        let key = format!("{sku}|dc");
        send_raw(
            &log,
            topic::STOCK_CHANGE,
            Some(key.as_bytes()),
            Some(&value),
        );
    }
    let readers = ["stock-ledger", "ats-aggregate", "shop"];
    quiet_readers(&kafka, &readers, &[], Duration::from_secs(120));
    let shown = |shop: &dyn Fake, sku: &str| shop.books().get(sku).and_then(Value::as_i64);
    assert_eq!(shown(shop.as_ref(), "A"), Some(5));
    assert_eq!(shown(shop.as_ref(), "B"), Some(7));

    let lines = |more: &[&str]| -> Vec<Value> {
        let asked = ["replay", "--to", "shop", "--config", &config, "--json"];
        let output = run(&kafka.bootstrap, &[&asked[..], more].concat());
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{more:?}: {words}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        println!("{more:?}\n{text}");
        let all = text.lines();
        all.map(|l| serde_json::from_str(l).expect("JSON"))
            .collect()
    };
    let report = |lines: Vec<Value>| lines.last().expect("a line")["report"].clone();
    let found = report(lines(&["--sku", "A", "--dry-run"]));
    assert_eq!(
        (&found["differ"], &found["unchanged"]),
        (&json!(0), &json!(1))
    );

    // Another shop in its place, as after a restore of an old one.
    assert_eq!(sink.terminate(), Some(0), "an orderly end");
    let restored = opened(&runtime);
    configure(&path, restored.as_ref());
    let sink = start("sink", &["shop"]);
    let found = report(lines(&["--sku", "A", "--dry-run"]));
    assert_eq!((&found["differ"], &found["sent"]), (&json!(1), &json!(0)));
    assert_ne!(shown(restored.as_ref(), "A"), Some(5), "only looked at");
    let told = report(lines(&["--sku", "A", "--actor", "ann"]));
    assert_eq!((&told["sent"], &told["done"]), (&json!(1), &json!(1)));
    assert_eq!(shown(restored.as_ref(), "A"), Some(5));
    assert_ne!(
        shown(restored.as_ref(), "B"),
        Some(7),
        "nobody asked for it"
    );

    let told = report(lines(&["--since", "2026-01-01"]));
    assert_eq!((&told["sent"], &told["done"]), (&json!(1), &json!(1)));
    assert_eq!(shown(restored.as_ref(), "B"), Some(7));
    assert_eq!(restored.calls_taken(), 2, "{:?}", restored.calls());
    succeed(&kafka.bootstrap, &["verify"]);
    let refused = run(
        &kafka.bootstrap,
        &["replay", "--to", "till", "--config", &config, "--sku", "A"],
    );
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(words.contains("till is no connector"), "{words}");
    for worker in [middle, sink] {
        assert_eq!(worker.terminate(), Some(0), "an orderly end");
    }
}
