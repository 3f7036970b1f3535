//! Dead letters on a real Kafka, worked off with the binary as an operator does: shown, refused,
//! mended, redriven once, accounted for; and the books of the deployment balance afterwards.

use crate::facts::{SESSION, change, codec, now_ms, prepare, quiet, send_raw};
use crate::kafka::Kafka;
use crate::worker::{Worker, crossdock, run, succeed};
use crossdock::contract::event::{Blob, DeadLetter, EventRef};
use crossdock::contract::topic;
use crossdock::domain::{Decimal, Timestamp};
use crossdock::log::{Log, Outgoing, ProducerSpec};
use crossdock::pipeline::Headers;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::time::Duration;

const DEAD: &str = "retail.rt.stock-ledger.dlq.v1";

#[test]
fn an_operator_mends_and_redrives_dead_letters() {
    let Some(kafka) = Kafka::find(1) else {
        return;
    };
    let log = prepare(&kafka);
    let codec = codec(&log);
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = ["run", "stock-ledger", "--session-timeout-ms", SESSION];
    let worker = Worker::start(&kafka.bootstrap, folder.path(), "one", &arguments);
    for position in 1..=3 {
        let mut fact = change("A", "dc", position, 1);
        if position < 3 {
            fact.qty = Decimal::from(-1);
        }
        let mut value = Vec::new();
        codec
            .encode(topic::STOCK_CHANGE, &fact.into(), &mut value)
            .expect("encoded");
        send_raw(&log, topic::STOCK_CHANGE, Some(b"A|dc"), Some(&value));
    }
    quiet(&kafka, Duration::from_secs(60));

    let lines = |text: &str| -> Vec<Value> {
        let all = text.lines();
        all.map(|l| serde_json::from_str(l).expect("JSON"))
            .collect()
    };
    let list = |more: &[&str]| {
        let asked = [
            &["dlq", "list", "--json", "--topic", "stock-ledger"][..],
            more,
        ]
        .concat();
        lines(&succeed(&kafka.bootstrap, &asked))
    };
    let found = list(&["--code", "DATA_QUALITY", "--key", "A|dc"]);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0]["context"]["sku"], "A");
    let places: Vec<&str> = found
        .iter()
        .map(|l| l["letter"].as_str().expect("a place"))
        .collect();
    assert!(places[0].starts_with(DEAD), "{places:?}");
    assert!(list(&["--code", "OVERSIZE"]).is_empty());

    // As they are they would fail again, and an edit that is as bad is refused.
    let refused = run(&kafka.bootstrap, &["dlq", "redrive", "--all", "--json"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert_eq!(lines(&said)[2]["report"]["refused"], 2, "{said}");
    let edit = |place: &str, quantity: &str| {
        let set = format!("qty={quantity}");
        let why = ["--reason", "the sign was wrong", "--actor", "ann"];
        let arguments = [&["dlq", "edit", place, "--set", &set][..], &why].concat();
        run(&kafka.bootstrap, &arguments)
    };
    let bad = edit(places[0], "-7");
    let said = String::from_utf8_lossy(&bad.stderr);
    assert_eq!(bad.status.code(), Some(1));
    assert!(said.contains("the edit is refused: DATA_QUALITY"), "{said}");
    for place in &places {
        let good = edit(place, "1");
        assert!(
            good.status.success(),
            "{}",
            String::from_utf8_lossy(&good.stderr)
        );
    }
    let redrive = [
        "dlq",
        "redrive",
        "--topic",
        "stock-ledger",
        "--json",
        "--actor",
        "ann",
    ];
    let dry = lines(&succeed(
        &kafka.bootstrap,
        &[&redrive[..], &["--dry-run"]].concat(),
    ));
    assert_eq!(dry.len(), 3, "two letters and the report");
    assert_eq!(list(&[]).len(), 2, "a dry run does nothing");
    succeed(&kafka.bootstrap, &redrive);
    assert!(list(&[]).is_empty());
    let again = run(&kafka.bootstrap, &["dlq", "redrive", places[0]]);
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(said.contains("DONE: ann has edited it"), "{said}");

    quiet(&kafka, Duration::from_secs(60));
    let books: Value =
        serde_json::from_str(&succeed(&kafka.bootstrap, &["verify", "--json"])).expect("the books");
    let ledger = &books["readers"]["stock-ledger"];
    let counts =
        ["produced", "applied", "compensated", "dead_lettered"].map(|n| ledger[n].as_i64());
    assert_eq!(counts, [Some(5), Some(3), Some(2), Some(0)], "{ledger}");
    let shown = succeed(&kafka.bootstrap, &["explain", "stock", "A", "dc"]);
    assert!(shown.contains("COMPENSATED for stock-ledger"), "{shown}");
    assert_eq!(worker.terminate(), Some(0), "an orderly end");
}

/// Letters of a bad day.
const MANY: i64 = 100_000;
/// Of each letter, what makes all of them together too large to be held.
const PADDING_BYTES: usize = 3_000;
/// What a command may take while it goes through them, all that the client of the log buffers included.
const MEMORY_MIB_MAX: u64 = 256;

/// Runs a command to its end, with what it says in `said`; gives the most memory that it took, in MiB.
fn peak_mib(kafka: &Kafka, said: &std::path::Path, arguments: &[&str]) -> u64 {
    let file = File::create(said).expect("a file");
    let mut child = crossdock(&kafka.bootstrap)
        .args(arguments)
        .stdout(file)
        .spawn()
        .expect("the binary runs");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
        peak = peak.max(kib.unwrap_or(0u64) / 1_024);
        if let Some(ended) = child.try_wait().expect("a child") {
            assert!(ended.success(), "{arguments:?}: {ended}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn write_many(log: &Arc<dyn Log>) {
    let codec = codec(log);
    let spec = ProducerSpec {
        linger: Duration::from_millis(5),
        ..ProducerSpec::default()
    };
    let mut producer = log.producer(&spec).expect("a producer");
    let mut value = Vec::new();
    let padding = Blob::from(&[b'x'; PADDING_BYTES][..]);
    for number in 0..MANY {
        let fact = change(&format!("SKU-{}", number % 1_000), "dc", number + 1, 1);
        value.clear();
        let encoded = codec.encode(topic::STOCK_CHANGE, &fact.into(), &mut value);
        encoded.expect("encoded");
        let key = format!("SKU-{}|dc", number % 1_000);
        let letter = DeadLetter {
            original: Some(EventRef {
                topic: topic::STOCK_CHANGE.into(),
                partition: 0,
                offset: 1_000_000 + number,
                event_id: None,
            }),
            original_timestamp: Timestamp(1),
            key: Some(Blob::from(key.as_bytes())),
            value: Some(Blob::from(&value[..])),
            headers: [("padding".into(), padding.clone())].into(),
            processor: "stock-ledger".into(),
            code: "UNAVAILABLE".into(),
            ..DeadLetter::default()
        };
        value.clear();
        codec
            .encode(DEAD, &letter.into(), &mut value)
            .expect("encoded");
        let record = Outgoing {
            topic: DEAD,
            partition: None,
            key: Some(key.as_bytes()),
            value: Some(&value),
            headers: &Headers::default(),
            timestamp_ms: now_ms(),
        };
        while producer.send(record).is_err() {
            producer.poll(Duration::from_millis(10));
        }
    }
    producer.flush().expect("flushed");
}

#[test]
fn a_hundred_thousand_dead_letters_are_listed_and_redriven_in_little_memory() {
    let Some(kafka) = Kafka::find(1) else {
        return;
    };
    let log = prepare(&kafka);
    write_many(&log);
    let folder = tempfile::tempdir().expect("a folder");
    let said = folder.path().join("said");
    let lines = || {
        BufReader::new(File::open(&said).expect("said"))
            .lines()
            .count() as i64
    };
    let list = ["dlq", "list", "--json", "--topic", "stock-ledger"];
    let redrive = [
        "dlq",
        "redrive",
        "--topic",
        "stock-ledger",
        "--rate",
        "0",
        "--json",
    ];
    let listed = peak_mib(&kafka, &said, &list);
    assert_eq!(lines(), MANY);
    let redriven = peak_mib(&kafka, &said, &redrive);
    assert_eq!(lines(), MANY + 1, "and a report");
    let after = peak_mib(&kafka, &said, &list);
    assert_eq!(lines(), 0, "every one is done");
    println!(
        "{MANY} dead letters of {PADDING_BYTES} bytes: list {listed} MiB, redrive {redriven} MiB, list when they are done {after} MiB"
    );
    for peak in [listed, redriven, after] {
        assert!(peak > 0 && peak < MEMORY_MIB_MAX, "{peak} MiB");
    }
}
