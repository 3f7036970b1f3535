//! State of a million keys: its memory, its speed, and the way back after a restart:
//! `cargo bench --bench state`.
//!
//! Memory and speed are of one shard in a process of its own. The way back is that of
//! `crossdock run stock-ledger` on a real Kafka: from the start of the process until it has
//! committed a record of every partition, from the changelog alone and from checkpoints.

mod support;

use crossdock::contract::event::StockChanged;
use crossdock::contract::topic;
use crossdock::domain::Timestamp;
use crossdock::log::{LogError, Outgoing, partition_for};
use crossdock::pipeline::{
    Context, Headers, Inbound, Origin, Output, Processor as _, Record, State as _,
};
use crossdock::processors::StockLedger;
use crossdock::state::{Shard, checkpoint};
use rand::prelude::*;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::kafka::{Deployment, Watch};
use support::load::LOCATIONS;
use support::process::{Running, crossdock, resident_mib, thread_cpu, wait_until};
use support::{announce, scaled};

const KEYS: usize = 1_000_000;
const VALUE_BYTES: usize = 200;
/// Receipts at each position: enough for a state of about as many bytes.
const RECEIPTS: u64 = 8;
const PARTITIONS: i32 = 4;
const CHANGELOG: &str = "retail.rt.stock-ledger.state.v1";
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["shard", folder] => shard(Path::new(folder)),
        ["read", folder] => read(Path::new(folder)),
        _ => all(),
    }
}

fn all() {
    announce("state of a million keys with values of 200 bytes");
    let folder = tempfile::tempdir().expect("a folder");
    for part in ["shard", "read"] {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        Running::start(command.arg(part).arg(folder.path())).wait();
    }
    restarts(folder.path());
}

fn key(number: usize) -> String {
    format!("SKU-{:05}|L-{:02}", number / 20, number % 20)
}

/// A shard filled and used as by transactions of a thousand writes.
fn shard(folder: &Path) {
    const BATCH: usize = 1_000;
    let count = scaled(KEYS);
    let mut random = SmallRng::seed_from_u64(1);
    let mut value = [0u8; VALUE_BYTES];
    let before = resident_mib();
    let mut shard = Shard::new();
    for number in 0..count {
        random.fill_bytes(&mut value);
        shard.put(key(number).as_bytes(), &value);
        if number % BATCH == BATCH - 1 {
            shard.commit();
        }
    }
    shard.commit();
    println!(
        "{count} keys, {:.0} MiB of keys and values: {:.0} MiB in memory",
        shard.bytes() as f64 / f64::from(1 << 20),
        resident_mib() - before
    );
    let keys: Vec<String> = (0..count)
        .map(|_| key(random.random_range(0..count)))
        .collect();
    let timed = |what: &str, work: &mut dyn FnMut()| {
        let started = thread_cpu();
        work();
        let each = (thread_cpu() - started).as_nanos() as f64 / count as f64;
        println!("{what}: {each:.0} ns of CPU each");
    };
    timed("get", &mut || {
        for key in &keys {
            black_box(shard.get(key.as_bytes()));
        }
    });
    timed("get, put and their part of a commit", &mut || {
        for batch in keys.chunks(BATCH) {
            for key in batch {
                black_box(shard.get(key.as_bytes()));
                shard.put(key.as_bytes(), &value);
            }
            let changes = shard.changes(|key, value| {
                black_box((key, value));
                Ok::<(), ()>(())
            });
            changes.expect("changes");
            shard.commit();
        }
    });
    let started = Instant::now();
    let mark = checkpoint::Mark {
        changelog: CHANGELOG.into(),
        offset: 0,
        at: Timestamp::default(),
    };
    checkpoint::write(&folder.join("one"), &shard, &mark).expect("written");
    println!(
        "checkpoint written in {:.2} s",
        started.elapsed().as_secs_f64()
    );
}

fn read(folder: &Path) {
    let (before, started) = (resident_mib(), Instant::now());
    let (shard, _) = checkpoint::read(&folder.join("one")).expect("read");
    println!(
        "checkpoint of {} keys read in {:.2} s: {:.0} MiB in memory",
        shard.len(),
        started.elapsed().as_secs_f64(),
        resident_mib() - before
    );
}

fn restarts(folder: &Path) {
    let deployment = Deployment::new(PARTITIONS, &[], folder);
    let count = scaled(KEYS);
    fill(&deployment, count);
    for tasks in ["1", "2"] {
        for from in ["the changelog", "checkpoints"] {
            restart(&deployment, folder, count, tasks, from);
        }
    }
}

/// Starts the process on the state, stops it again.
fn restart(deployment: &Deployment, folder: &Path, count: usize, tasks: &str, from: &str) {
    let bootstrap = &deployment.kafka.bootstrap;
    let application = format!("state{tasks}");
    let group = format!("{application}.stock-ledger");
    let watch = Watch::new(bootstrap, &group, topic::STOCK_CHANGE, PARTITIONS);
    let before = deployment.end(topic::STOCK_CHANGE);
    one_change_each(deployment, before as u64);
    let mut command = crossdock(bootstrap, folder);
    command.args(["run", "stock-ledger", "--tasks", tasks]);
    command.args(["--application", &application, "--instance", &application]);
    command.arg("--state").arg(folder.join("state"));
    let started = Instant::now();
    let mut running = Running::start(&mut command);
    let end = before + i64::from(PARTITIONS);
    wait_until("the first records", PATIENCE, || {
        running.must_run();
        watch.committed() == end
    });
    let (elapsed, used) = (started.elapsed().as_secs_f64(), running.usage());
    println!(
        "{count} positions back from {from}, {PARTITIONS} partitions, {tasks} tasks: {elapsed:.2} s until it works, {:.2} s of CPU, {:.0} MiB at most",
        used.cpu.as_secs_f64(),
        used.resident_mib_max
    );
    running.stop();
}

/// The changelog as a run would have left it that has heard of a few receipts at each position.
fn fill(deployment: &Deployment, count: usize) {
    let mut producer = deployment.producer();
    let (mut ledger, mut shard) = (StockLedger::new(), Shard::new());
    let mut output = Output::default();
    let time = Timestamp(1_767_225_600_000_000);
    let (mut records, mut bytes) = (0, 0);
    for number in 0..count as u64 {
        let at = (number / LOCATIONS, number % LOCATIONS);
        let receipts: Vec<_> = (0..RECEIPTS)
            .map(|n| support::load::receipt(number * RECEIPTS + n, at, time))
            .collect();
        let key = receipts[0].0.clone();
        let group: Vec<Inbound> = receipts.into_iter().map(inbound).collect();
        let mut context = Context::new(&mut shard, &mut output, time);
        ledger
            .process(&key, &group, &mut context)
            .expect("processed");
        output.clear();
        let written = shard.changes(|state_key, value| {
            records += 1;
            bytes += state_key.len() + value.map_or(0, <[u8]>::len);
            let record = Outgoing {
                topic: CHANGELOG,
                partition: Some(partition_for(key.as_bytes(), PARTITIONS)),
                key: Some(state_key),
                value,
                headers: &Headers::default(),
                timestamp_ms: 0,
            };
            while let Err(error) = producer.send(record) {
                assert!(matches!(error, LogError::QueueFull), "{error}");
                producer.poll(Duration::from_millis(5));
            }
            Ok::<(), ()>(())
        });
        written.expect("written");
        shard = Shard::new();
    }
    producer.flush().expect("flushed");
    println!(
        "changelog of {records} keys for {count} positions, {} bytes each",
        bytes / records
    );
}

fn inbound((key, event): (String, StockChanged)) -> Inbound {
    let record = Record {
        origin: Origin {
            topic: topic::STOCK_CHANGE.into(),
            partition: 0,
            offset: event.meta.source_position,
        },
        timestamp_ms: 0,
        key: Some(key.into_bytes().into()),
        value: None,
        headers: Headers::default(),
    };
    Inbound {
        record,
        event: event.into(),
    }
}

/// One change in each partition, at positions that the state does not hold.
fn one_change_each(deployment: &Deployment, number: u64) {
    let mut producer = deployment.producer();
    let mut wanted: Vec<i32> = (0..PARTITIONS).collect();
    for sku in 60_000.. {
        let time = Timestamp(1_767_225_600_000_000);
        let (key, event) = support::load::receipt(number + sku, (sku, 0), time);
        let partition = partition_for(key.as_bytes(), PARTITIONS);
        let Some(at) = wanted.iter().position(|p| *p == partition) else {
            continue;
        };
        wanted.swap_remove(at);
        deployment.send(producer.as_mut(), topic::STOCK_CHANGE, &key, &event.into());
        if wanted.is_empty() {
            break;
        }
    }
    producer.flush().expect("flushed");
}
