//! How much is too much, on a real Kafka: `cargo bench --bench limits [-- PART…]`, with the parts
//! `hot-key`, `letters`, `partitions` and `backlog`.
//!
//! The program runs as it is deployed; what is written, read and measured is outside of it.
//!
//! - `hot-key`: claims at an even pace, first of all keys alike, then 80 % of them on one key. How long the
//!   others, on the same partition, wait for their decisions.
//! - `letters`: `dlq list` and `dlq redrive` over a thousand and a hundred thousand dead letters: time for
//!   each, and peak memory, which must not grow with their number.
//! - `partitions`: a thousand partitions of one process: until it works, and its peak memory.
//! - `backlog`: a million records that wait when it starts: how long they take, and its peak memory.

mod support;

use crossdock::contract::event::{
    Blob, DeadLetter, Event, EventRef, ReservationAction, ReservationCommand, ReservationMode,
    StockChanged,
};
use crossdock::contract::topic;
use crossdock::domain::{Decimal, Timestamp};
use crossdock::log::{Isolation, Offset, TopicPartition, partition_for};
use crossdock::pipeline::{Clock, SystemClock};
use crossdock::processors;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};
use support::kafka::{Deployment, Watch};
use support::process::{Running, Usage, crossdock, usage, wait_until};
use support::{announce, load, median, quantile, scaled};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(900);
const PARTITIONS: i32 = 4;
const PROCESSOR: &str = "stock-ledger";

/// Claims a second.
const CLAIMS: usize = 500;
const CLAIM_SECONDS: usize = 60;
const PAIRS: usize = 3;
/// Keys that are claimed alike.
const KEYS: usize = 2_000;
/// Of ten claims those on the hot key.
const HOT_OF_TEN: usize = 8;
/// What a run begins with does not count.
const WARM_UP: Duration = Duration::from_secs(3);

const LETTERS: [usize; 2] = [1_000, 100_000];
/// Partitions of each of the four topics that the processor reads.
const MANY: i32 = 250;
const BACKLOG: usize = 1_000_000;

fn main() {
    announce("how much is too much");
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let parts: [(&str, fn()); 4] = [
        ("hot-key", hot_key),
        ("letters", letters),
        ("partitions", partitions),
        ("backlog", backlog),
    ];
    for (name, part) in parts {
        if asked.is_empty() || asked.iter().any(|a| a == name) {
            println!("\n{name}");
            part();
        }
    }
}

/// The processor in one process.
fn start(deployment: &Deployment, folder: &Path, more: &[&str]) -> Running {
    let mut command = crossdock(&deployment.kafka.bootstrap, folder);
    command.args(["run", PROCESSOR]).args(more);
    command.args(["--application", "bench", "--instance", "bench", "--state"]);
    command.arg(folder.join("state"));
    Running::start(&mut command)
}

fn group() -> String {
    format!("bench.{PROCESSOR}")
}

/// How far the processor has come in the movements of stock.
fn watch(deployment: &Deployment) -> Watch {
    let bootstrap = &deployment.kafka.bootstrap;
    let partitions = deployment.partitions(topic::STOCK_CHANGE);
    Watch::new(bootstrap, &group(), topic::STOCK_CHANGE, partitions)
}

fn hot_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let deployment = Deployment::new(PARTITIONS, &[], folder.path());
    let mut producer = deployment.producer();
    for number in 0..KEYS as u64 {
        let (key, event) = load::receipt(number, (number, 0), SystemClock.now());
        let event = StockChanged {
            qty: Decimal::from(10_000_000),
            ..event
        };
        deployment.send(producer.as_mut(), topic::STOCK_CHANGE, &key, &event.into());
    }
    producer.flush().expect("flushed");
    let mut running = start(&deployment, folder.path(), &[]);
    let stock = watch(&deployment);
    wait_until("the stock on hand", PATIENCE, || {
        running.must_run();
        stock.committed() >= KEYS as i64
    });
    println!(
        "{:>12} {:>10} {:>10} {:>10} {:>10}",
        "on one key", "cold", "p50 ms", "p99 ms", "max ms"
    );
    let (mut alike, mut hot, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let runs = [0, HOT_OF_TEN].map(|of_ten| {
            let waits = claim(&deployment, &format!("{pair}-{of_ten}"), of_ten);
            let at = |part| quantile(&waits, part);
            println!(
                "{:>10} % {:10} {:10.1} {:10.1} {:10.1}",
                10 * of_ten,
                waits.len(),
                at(0.5),
                at(0.99),
                at(1.0)
            );
            at(0.99)
        });
        alike.push(runs[0]);
        hot.push(runs[1]);
        ratios.push(runs[1] / runs[0]);
    }
    println!(
        "p99 of cold keys, medians: {:.1} ms, {:.1} ms beside the hot key, ratio {:.2}; {:.0} MiB at most",
        median(&alike),
        median(&hot),
        median(&ratios),
        running.usage().resident_mib_max
    );
    running.stop();
}

/// Milliseconds from a claim to its decision, of cold keys on the partition of the hot one.
fn claim(deployment: &Deployment, run: &str, hot_of_ten: usize) -> Vec<f64> {
    let key_of = |sku: usize| format!("{}|{}", load::sku(sku as u64), load::location(0));
    let here = |key: &str| partition_for(key.as_bytes(), PARTITIONS);
    let partition = here(&key_of(0));
    let at = TopicPartition::new(topic::RESERVATION_DECISION, partition);
    let reader = deployment
        .log
        .reader(&[(at, Offset::End)], Isolation::ReadCommitted);
    let mut reader = reader.expect("a reader");
    let mut producer = deployment.producer();
    let (mut sent, mut waits) = (HashMap::new(), Vec::new());
    let mut records = Vec::new();
    let (began, mut number) = (Instant::now(), 0);
    let wanted = CLAIMS * scaled(CLAIM_SECONDS).max(6);
    while number < wanted || !sent.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{} claims wait", sent.len());
        let due = (began.elapsed().as_secs_f64() * CLAIMS as f64) as usize;
        while number < due.min(wanted) {
            number += 1;
            let hot = number % 10 < hot_of_ten;
            let sku = if hot { 0 } else { 1 + number % (KEYS - 1) };
            let key = key_of(sku);
            let command = hold(run, number, sku);
            let counts = !hot && here(&key) == partition && began.elapsed() > WARM_UP;
            if counts {
                sent.insert(command.reservation_id, Instant::now());
            }
            deployment.send(
                producer.as_mut(),
                topic::RESERVATION_COMMAND,
                &key,
                &command.into(),
            );
        }
        producer.poll(Duration::ZERO);
        reader
            .poll(10_000, Duration::from_millis(1), &mut records)
            .expect("read");
        for record in records.drain(..) {
            let event = deployment.codec.decode(&record).expect("an event");
            if let Event::ReservationDecision(e) = event
                && let Some(at) = sent.remove(&e.reservation_id)
            {
                waits.push(at.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    waits
}

fn hold(run: &str, number: usize, sku: usize) -> ReservationCommand {
    let order = format!("order-{run}-{number}");
    let (_, fact) = load::receipt(number as u64, (sku as u64, 0), SystemClock.now());
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, order.as_bytes());
    ReservationCommand {
        meta: crossdock::contract::event::EventMeta {
            event_id: id,
            event_type: "ReservationCommand".into(),
            source: "bench".into(),
            ..fact.meta
        },
        reservation_id: id,
        action: ReservationAction::Hold,
        mode: ReservationMode::Strict,
        order_id: order.as_str().into(),
        order_line_id: "1".into(),
        sku: fact.sku,
        location_id: fact.location_id,
        channel_id: load::CHANNEL.into(),
        qty: Decimal::ONE,
        ..ReservationCommand::default()
    }
}

fn letters() {
    println!(
        "{:>10} {:>10} {:>10} {:>12} {:>10}",
        "letters", "command", "seconds", "µs a letter", "peak MiB"
    );
    for count in LETTERS {
        let count = scaled(count).max(100);
        let folder = tempfile::tempdir().expect("a folder");
        let deployment = Deployment::new(PARTITIONS, &[], folder.path());
        write_letters(&deployment, count);
        let before = deployment.end(topic::STOCK_CHANGE);
        for (name, arguments) in [
            ("list", &["dlq", "list", "--json"][..]),
            (
                "redrive",
                &[
                    "dlq", "redrive", "--all", "--rate", "0", "--json", "--reason", "mended",
                    "--actor", "bench",
                ],
            ),
        ] {
            let mut command = crossdock(&deployment.kafka.bootstrap, folder.path());
            command.args(arguments).args(["--application", "bench"]);
            let (took, peak) = to_its_end(&mut command);
            println!(
                "{count:10} {name:>10} {took:10.1} {:12.0} {peak:10.0}",
                took * 1e6 / count as f64
            );
        }
        let sent = deployment.end(topic::STOCK_CHANGE) - before;
        // Behind the records stand the markers of their transactions.
        assert!(sent >= count as i64, "{sent} of {count} are redriven");
    }
}

/// Dead letters of a fact that was refused for want of something that is there now.
fn write_letters(deployment: &Deployment, count: usize) {
    let mut producer = deployment.producer();
    let mut value = Vec::new();
    let now = SystemClock.now();
    for number in 0..count as u64 {
        let (key, event) = load::receipt(number, (number % KEYS as u64, 0), now);
        let meta = event.meta.clone();
        value.clear();
        let encoded = deployment
            .codec
            .encode(topic::STOCK_CHANGE, &event.into(), &mut value);
        encoded.expect("encoded");
        let letter = DeadLetter {
            meta,
            original: Some(EventRef {
                topic: topic::STOCK_CHANGE.into(),
                partition: 0,
                offset: 1_000_000 + number as i64,
                event_id: None,
            }),
            original_timestamp: Timestamp(1),
            key: Some(Blob::from(key.as_bytes())),
            value: Some(Blob::from(&value[..])),
            processor: PROCESSOR.into(),
            code: "UNAVAILABLE".into(),
            ..DeadLetter::default()
        };
        let topic = format!("retail.rt.{PROCESSOR}.dlq.v1");
        deployment.send(producer.as_mut(), &topic, &key, &letter.into());
    }
    producer.flush().expect("flushed");
}

/// Seconds that a program takes, and its memory at most in MiB.
fn to_its_end(command: &mut std::process::Command) -> (f64, f64) {
    let began = Instant::now();
    let mut running = Running::start(command);
    let mut peak: f64 = 0.0;
    while !running.has_ended() {
        peak = peak.max(running.usage().resident_mib_max);
        assert!(began.elapsed() < PATIENCE, "it takes too long");
        std::thread::sleep(Duration::from_millis(2));
    }
    running.wait();
    (began.elapsed().as_secs_f64(), peak)
}

fn partitions() {
    let folder = tempfile::tempdir().expect("a folder");
    let descriptor = processors::find(PROCESSOR).expect("a processor").descriptor;
    let own = format!(".{PROCESSOR}.");
    let used = [descriptor.inputs, descriptor.tables, descriptor.outputs].concat();
    let wanted =
        |name: &str| used.contains(&name) || name.contains(&own) || name.starts_with("retail.ops.");
    let deployment = Deployment::of(MANY, &[], folder.path(), wanted);
    let assigned: i32 = descriptor
        .inputs
        .iter()
        .map(|t| deployment.partitions(t))
        .sum();
    let count = scaled(100_000).max(5_000);
    deployment.load(count);
    let began = Instant::now();
    let mut running = start(&deployment, folder.path(), &[]);
    let watch = watch(&deployment);
    let first = std::cell::OnceCell::new();
    wait_until("all of the input", PATIENCE, || {
        running.must_run();
        let committed = watch.committed();
        if committed > 0 {
            first.get_or_init(|| began.elapsed().as_secs_f64());
        }
        committed == count as i64
    });
    let used = running.usage();
    println!(
        "{assigned} partitions of one process: works after {:.1} s, {count} records after {:.1} s, {:.0} MiB at most",
        first.get().copied().unwrap_or_default(),
        began.elapsed().as_secs_f64(),
        used.resident_mib_max
    );
    let idle = used.cpu;
    std::thread::sleep(Duration::from_secs(5));
    println!(
        "with nothing to do: {:.2} cores",
        (running.usage().cpu - idle).as_secs_f64() / 5.0
    );
    running.stop();
}

fn backlog() {
    let folder = tempfile::tempdir().expect("a folder");
    let deployment = Deployment::new(PARTITIONS, &[], folder.path());
    let count = scaled(BACKLOG).max(10_000);
    deployment.load(count);
    let began = Instant::now();
    let mut running = start(&deployment, folder.path(), &["ats-aggregate"]);
    let watch = watch(&deployment);
    wait_until("all of the input", PATIENCE, || {
        running.must_run();
        watch.committed() == count as i64
    });
    let took = began.elapsed().as_secs_f64();
    let broker: Usage = deployment.kafka.broker().map(usage).unwrap_or_default();
    println!(
        "{count} records that waited, stock-ledger and ats-aggregate: {took:.1} s, {:.0} MiB at most (512 are allowed), {:.1} s of CPU, of the broker {:.1} s",
        running.usage().resident_mib_max,
        running.usage().cpu.as_secs_f64(),
        broker.cpu.as_secs_f64()
    );
    running.stop();
}
