//! How soon a storefront hears of a change: `cargo bench --bench latency`.
//!
//! A source commits stock changes at an even pace to a real Kafka. `crossdock run stock-ledger
//! ats-aggregate vendure`, one process, makes levels, availability and calls of them. The storefront is
//! the stand-in of the `vendure` connector, over HTTP. Every change adds one piece, so a call that
//! sets the stock of a SKU to n tells of all its changes up to the nth; the latency of a change is
//! the time from the commit of its record to the arrival of the first such call.

mod support;

use crossdock::connectors;
use crossdock::contract::topic;
use crossdock::log::{Outgoing, ProducerSpec};
use crossdock::pipeline::{Clock, Fake, FakeOptions, Headers, SystemClock};
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};
use support::kafka::Deployment;
use support::load::{self, Positions};
use support::process::{Running, crossdock, usage, wait_until};
use support::{announce, quantile, scaled};

const PARTITIONS: i32 = 4;
/// Changes a second.
const RATES: [usize; 2] = [2_000, 5_000];
const SECONDS: usize = 40;
/// The first seconds, while the broker's code is compiled, do not count.
const WARM_UP: Duration = Duration::from_secs(5);
/// A source writes what it has read this often.
const SOURCE_INTERVAL: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(120);

/// A change that was written: its SKU, how many pieces of it there are then, when it was committed.
struct Change {
    sku: u64,
    pieces: u64,
    committed: Instant,
}

fn main() {
    announce("from the commit of a change to the call of the storefront");
    println!(
        "{:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10} {:>12} {:>10}",
        "changes/s",
        "measured",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "max ms",
        "calls/s",
        "cores ours",
        "cores broker",
        "peak MiB"
    );
    for rate in RATES {
        run(rate);
    }
}

fn run(rate: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let deployment = Deployment::new(PARTITIONS, &["vendure"], folder.path());
    let fake = storefront();
    let running = start(&deployment, fake.as_ref(), folder.path());
    let count = (rate * scaled(SECONDS).max(2 * WARM_UP.as_secs() as usize)) as u64;
    let started = Instant::now();
    let mut changes = Vec::new();
    let at_warm = std::cell::OnceCell::new();
    let costs = || {
        let broker = deployment.kafka.broker().map(usage).unwrap_or_default();
        (Instant::now(), running.usage().cpu, broker.cpu)
    };
    pace(&deployment, rate, count, |sku, pieces, committed| {
        changes.push(Change {
            sku,
            pieces,
            committed,
        });
        if committed - started >= WARM_UP {
            at_warm.get_or_init(&costs);
        }
    });
    let (from, ours, broker) = *at_warm.get_or_init(&costs);
    let (to, ours_after, broker_after) = costs();
    let mut last: HashMap<u64, u64> = HashMap::new();
    for change in &changes {
        last.insert(change.sku, change.pieces);
    }
    wait_until("the storefront hears of everything", PATIENCE, || {
        let books = fake.books();
        last.iter()
            .all(|(sku, pieces)| books[&load::sku(*sku)].as_u64() == Some(*pieces))
    });
    let seconds = (to - from).as_secs_f64();
    let calls = fake.calls();
    let during = calls.iter().filter(|c| (from..to).contains(&c.at)).count();
    let waits = latencies(&changes, &calls, started + WARM_UP);
    println!(
        "{rate:9} {:9} {:8.1} {:8.1} {:8.1} {:8.1} {:8.0} {:10.2} {:12.2} {:10.0}",
        waits.len(),
        quantile(&waits, 0.5),
        quantile(&waits, 0.9),
        quantile(&waits, 0.99),
        quantile(&waits, 1.0),
        during as f64 / seconds,
        (ours_after - ours).as_secs_f64() / seconds,
        (broker_after - broker).as_secs_f64() / seconds,
        running.usage().resident_mib_max
    );
    running.stop();
}

fn storefront() -> Box<dyn Fake> {
    let kind = connectors::find("vendure").expect("a connector");
    let start = kind.fake.expect("a stand-in");
    let options = FakeOptions {
        skus: (0..load::SKUS).map(load::sku).collect(),
        locations: Vec::new(),
        seed: 0,
    };
    futures::executor::block_on(start(options)).expect("a stand-in")
}

/// Starts the process and waits until it has told the storefront of a first change.
fn start(deployment: &Deployment, fake: &dyn Fake, folder: &Path) -> Running {
    let configuration = serde_json::json!({
        "connectors": [{"name": "vendure", "kind": "vendure", "settings": fake.settings()}]
    });
    let file = folder.join("config.yaml");
    std::fs::write(&file, configuration.to_string()).expect("written");
    let mut command = crossdock(&deployment.kafka.bootstrap, folder);
    command.args(["run", "stock-ledger", "ats-aggregate", "vendure"]);
    command.args(["--instance", "bench", "--config"]).arg(file);
    command.arg("--state").arg(folder.join("state"));
    let mut running = Running::start(&mut command);
    let mut producer = deployment.producer();
    let (key, event) = load::receipt(0, (load::SKUS - 1, 0), SystemClock.now());
    deployment.send(producer.as_mut(), topic::STOCK_CHANGE, &key, &event.into());
    producer.flush().expect("flushed");
    wait_until("the first call", PATIENCE, || {
        running.must_run();
        !fake.calls().is_empty()
    });
    running
}

/// Commits `count` changes at `rate` a second, as a source does: in one transaction what has come
/// since the last.
fn pace(
    deployment: &Deployment,
    rate: usize,
    count: u64,
    mut written: impl FnMut(u64, u64, Instant),
) {
    let spec = ProducerSpec {
        transactional_id: Some("bench-source".into()),
        ..ProducerSpec::default()
    };
    let mut producer = deployment.log.producer(&spec).expect("a producer");
    // The last SKU has had a change of its own.
    let mut positions = Positions::new(load::SKUS - 1, 3);
    let mut pieces: HashMap<u64, u64> = HashMap::new();
    let headers = Headers::default();
    let started = Instant::now();
    let (mut number, mut batch, mut value) = (0, Vec::new(), Vec::new());
    while number < count {
        let due = (started.elapsed().as_secs_f64() * rate as f64) as u64;
        let due = due.min(count);
        if due == number {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let began = Instant::now();
        producer.begin().expect("begun");
        while number < due {
            number += 1;
            let at = positions.draw();
            let now = SystemClock.now();
            let (key, event) = load::receipt(number, at, now);
            value.clear();
            deployment
                .codec
                .encode(topic::STOCK_CHANGE, &event.into(), &mut value)
                .expect("encoded");
            let record = Outgoing {
                topic: topic::STOCK_CHANGE,
                partition: None,
                key: Some(key.as_bytes()),
                value: Some(&value),
                headers: &headers,
                timestamp_ms: now.as_millis(),
            };
            producer.send(record).expect("sent");
            let pieces = pieces.entry(at.0).or_default();
            *pieces += 1;
            batch.push((at.0, *pieces));
        }
        producer.flush().expect("flushed");
        producer.commit().expect("committed");
        let committed = Instant::now();
        for (sku, pieces) in batch.drain(..) {
            written(sku, pieces, committed);
        }
        std::thread::sleep(SOURCE_INTERVAL.saturating_sub(began.elapsed()));
    }
}

/// Milliseconds of each change committed after `from`.
fn latencies(
    changes: &[Change],
    calls: &[crossdock::pipeline::FakeCall],
    from: Instant,
) -> Vec<f64> {
    // What the storefront was told of each SKU: pieces and when, both ascending.
    let mut told: HashMap<u64, Vec<(u64, Instant)>> = HashMap::new();
    for call in calls.iter().filter(|c| c.applied) {
        let items = call.body["variables"]["input"].as_array();
        for item in items.into_iter().flatten() {
            let id = item["id"].as_str().and_then(|id| id.parse::<u64>().ok());
            let pieces = item["stockLevels"][0]["stockOnHand"].as_u64();
            if let (Some(id), Some(pieces)) = (id, pieces) {
                told.entry(id - 1).or_default().push((pieces, call.at));
            }
        }
    }
    changes
        .iter()
        .filter(|c| c.committed >= from)
        .map(|change| {
            let told = &told[&change.sku];
            let heard = told.iter().find(|(pieces, _)| *pieces >= change.pieces);
            let (_, at) = heard.expect("the storefront heard of every change");
            at.saturating_duration_since(change.committed).as_secs_f64() * 1e3
        })
        .collect()
}
