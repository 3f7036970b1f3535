//! A small retailer's orders, their stock and their money, through all processors that are killed in the
//! middle of their work; the oracle, which has made the facts too, judges what became of them.

use crate::facts::{SESSION, prepare, quiet_readers, rest, send_told};
use crate::kafka::Kafka;
use crate::oracle;
use crate::worker::Worker;
use crossdock::log::Log;
use crossdock::{processors, verify};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const ORDERS: usize = 90;
/// A wave of facts is a second of business; all of it is over when it begins.
const PAST: Duration = Duration::from_secs(600);

#[test]
fn orders_and_their_money_come_through_kills() {
    let Some(kafka) = Kafka::find(1) else { return };
    let Some(mut asked) = oracle::command() else {
        return;
    };
    let log = prepare(&kafka);
    let folder = tempfile::tempdir().expect("a folder");
    let ledgers = folder.path().join("ledgers");
    let begin = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time")
        - PAST;
    asked.arg("facts").arg("--schemas");
    asked.arg(schemas(log.as_ref(), folder.path()));
    asked.arg("--ledgers").arg(&ledgers).args([
        "--orders",
        &ORDERS.to_string(),
        "--begin",
        &begin.as_micros().to_string(),
        "--step",
        "1000000",
    ]);
    let told = oracle::said(asked);

    let names: Vec<&str> = processors::ALL.iter().map(|p| p.descriptor.name).collect();
    let start = |instance: &str| {
        let arguments = [&["run"][..], &names, &["--session-timeout-ms", SESSION]].concat();
        Worker::start(&kafka.bootstrap, folder.path(), instance, &arguments)
    };
    let mut workers = [start("one"), start("two")];
    let waves = oracle::waves(&told);
    for (number, wave) in waves.iter().enumerate() {
        let (before, after) = wave.facts.split_at(wave.facts.len() / 2);
        send_told(&log, before);
        let victim = number % workers.len();
        workers[victim].kill();
        workers[victim] = start(["one", "two"][victim]);
        send_told(&log, after);
        let told: BTreeSet<&str> = waves[..=number]
            .iter()
            .flat_map(|wave| &wave.facts)
            .map(|fact| fact.topic.as_str())
            .collect();
        // Those that have something to settle by now.
        let busy: Vec<&str> = processors::ALL
            .iter()
            .filter(|p| p.descriptor.inputs.iter().any(|t| told.contains(t)))
            .map(|p| p.descriptor.name)
            .collect();
        quiet_readers(&kafka, &busy, &[], Duration::from_secs(120));
        rest(&kafka, Duration::from_secs(120));
    }
    let mut judge = oracle::command().expect("as before");
    judge.args(["judge", "--bootstrap", &kafka.bootstrap]);
    judge.arg("--ledgers").arg(&ledgers);
    for name in names {
        judge.args(["--reader", name]);
    }
    println!("{}", oracle::said(judge));
    for worker in workers {
        assert_eq!(worker.terminate(), Some(0), "an orderly end");
    }
}

/// The records of the registry's topic, a line each.
fn schemas(log: &dyn Log, folder: &Path) -> PathBuf {
    let mut lines = Vec::new();
    verify::read_topic(log, "retail.rt.registry.v1", |record| {
        lines.extend(record.value.as_deref().unwrap_or_default());
        lines.push(b'\n');
    })
    .expect("read");
    let path = folder.join("schemas.jsonl");
    std::fs::write(&path, lines).expect("written");
    path
}
