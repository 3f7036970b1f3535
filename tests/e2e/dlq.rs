//! Dead letters on a real Kafka, worked off with the binary as an operator does: shown, refused,
//! mended, redriven once, accounted for; and the books of the deployment balance afterwards.

use crate::facts::{SESSION, change, codec, prepare, quiet, send_raw};
use crate::kafka::Kafka;
use crate::worker::{Worker, run, succeed};
use crossdock::contract::topic;
use crossdock::domain::Decimal;
use serde_json::Value;
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
