//! How soon a question is answered, and how dead letters are worked off: `cargo bench --bench answers`.
//!
//! A million stock changes lie in a real Kafka and have been settled by `crossdock run stock-ledger`.
//! `crossdock explain stock` is asked about the position with the most changes and about one with few, as
//! a process from its start to its end. Then 100,000 dead letters are listed and redriven.

mod support;

use crossdock::contract::event::{Blob, DeadLetter, EventRef};
use crossdock::contract::topic;
use crossdock::domain::Timestamp;
use crossdock::pipeline::{Clock, SystemClock};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};
use support::kafka::{Deployment, Watch};
use support::load::{self, Positions};
use support::process::{Running, Usage, crossdock, wait_until};
use support::{announce, median, scaled};

const PARTITIONS: i32 = 6;
const CHANGES: usize = 1_000_000;
const LETTERS: usize = 100_000;
const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(900);
const DEAD: &str = "retail.rt.stock-ledger.dlq.v1";

fn main() {
    announce("questions to a log, and its dead letters");
    let folder = tempfile::tempdir().expect("a folder");
    let deployment = Deployment::new(PARTITIONS, &["shop"], folder.path());
    let count = scaled(CHANGES);
    deployment.load(count);
    settle(&deployment, count, folder.path());
    let (most, few) = positions(count);
    for (what, (sku, location), changes) in [("most", most.0, most.1), ("few", few.0, few.1)] {
        let (sku, location) = (load::sku(sku), load::location(location));
        let asked = ["explain", "stock", &sku, &location, "--limit", "1000000"];
        let times: Vec<f64> = (0..ROUNDS)
            .map(|_| run(&deployment, folder.path(), &asked).0.as_secs_f64())
            .collect();
        println!(
            "explain stock, {count} changes, the position with {what} ({changes}): median {:.2} s of {times:.2?}",
            median(&times)
        );
    }
    letters(&deployment, folder.path());
}

fn settle(deployment: &Deployment, count: usize, folder: &Path) {
    let bootstrap = &deployment.kafka.bootstrap;
    let watch = Watch::new(
        bootstrap,
        "crossdock.stock-ledger",
        topic::STOCK_CHANGE,
        PARTITIONS,
    );
    let worker = Running::start(
        crossdock(bootstrap, folder)
            .args(["run", "stock-ledger", "--state"])
            .arg(folder.join("state")),
    );
    wait_until("all changes are settled", PATIENCE, || {
        watch.committed() >= count as i64
    });
    worker.stop();
}

/// A position, by SKU and location, and its changes.
type Position = ((u64, u64), usize);

/// The position with the most changes, and one with a handful.
fn positions(count: usize) -> (Position, Position) {
    let mut drawn = Positions::new(load::SKUS, 1);
    let mut all: HashMap<(u64, u64), usize> = HashMap::new();
    for _ in 0..count {
        *all.entry(drawn.draw()).or_default() += 1;
    }
    let most = all.iter().max_by_key(|(_, changes)| **changes);
    let few = all.iter().find(|(_, changes)| **changes == 5).or(most);
    let pair = |found: Option<(&(u64, u64), &usize)>| {
        let (at, changes) = found.expect("a position");
        (*at, *changes)
    };
    (pair(most), pair(few))
}

/// Runs a command to its end; gives how long it took and what it used.
fn run(deployment: &Deployment, folder: &Path, arguments: &[&str]) -> (Duration, Usage) {
    let out = File::create(folder.join("answer")).expect("a file");
    let started = Instant::now();
    let mut running = Running::start(
        crossdock(&deployment.kafka.bootstrap, folder)
            .args(arguments)
            .stdout(out),
    );
    let mut used = Usage::default();
    while !running.has_ended() {
        let now = running.usage();
        if now.resident_mib_max > 0.0 {
            used = now;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    (started.elapsed(), used)
}

fn letters(deployment: &Deployment, folder: &Path) {
    let count = scaled(LETTERS);
    let mut producer = deployment.producer();
    let mut positions = Positions::new(load::SKUS, 2);
    for number in 0..count as u64 {
        let (key, event) = load::receipt(1 << 40 | number, positions.draw(), Timestamp(1));
        let mut value = Vec::new();
        let encoded = deployment
            .codec
            .encode(topic::STOCK_CHANGE, &event.into(), &mut value);
        encoded.expect("encoded");
        let now = SystemClock.now();
        let letter = DeadLetter {
            original: Some(EventRef {
                topic: topic::STOCK_CHANGE.into(),
                offset: number as i64,
                ..EventRef::default()
            }),
            original_timestamp: now,
            key: Some(Blob::from(key.as_bytes())),
            value: Some(Blob::from(&value[..])),
            processor: "stock-ledger".into(),
            code: "UNAVAILABLE".into(),
            message: "made for a bench".into(),
            ..DeadLetter::default()
        };
        deployment.send(producer.as_mut(), DEAD, &key, &letter.into());
    }
    producer.flush().expect("flushed");
    for arguments in [
        &["dlq", "list", "--json"][..],
        &[
            "dlq", "redrive", "--all", "--rate", "0", "--actor", "bench", "--json",
        ],
        &["dlq", "list", "--json"],
    ] {
        let (took, used) = run(deployment, folder, arguments);
        let lines = std::fs::read_to_string(folder.join("answer")).expect("an answer");
        println!(
            "{}: {} lines in {:.1} s, {:.1} s of CPU, {:.0} MiB at most",
            arguments[..2].join(" "),
            lines.lines().count(),
            took.as_secs_f64(),
            used.cpu.as_secs_f64(),
            used.resident_mib_max
        );
    }
}
