//! Stock on a real Kafka against the least that any program could do there:
//! `cargo bench --bench throughput`.
//!
//! Three programs take turns on the same input, each in a process of its own: a bare rdkafka loop
//! that copies each record to one output in transactions and waits for its commits; `crossdock run
//! stock-ledger`, which decides and publishes levels and offers and keeps its state; and
//! `stock-ledger` with `ats-aggregate` beside it. Records count as done when the consumer group has
//! committed them.

mod support;

use crossdock::contract::topic;
use crossdock::state::{Shard, checkpoint};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::bare;
use support::kafka::{Deployment, Watch};
use support::process::{Running, crossdock, resident_mib, usage, wait_until};
use support::{announce, median, scaled};

const PARTITIONS: i32 = 4;
const CHANGES: usize = 3_000_000;
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(900);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bare", bootstrap, group, threads] => {
            let threads = threads.parse().expect("a number");
            bare::run(bootstrap, group, threads, &[topic::STOCK_CHANGE]);
        }
        ["state", folder] => state(Path::new(folder)),
        ["only", threads, rounds] => compare(
            &[threads.parse().expect("a number")],
            rounds.parse().expect("a number"),
        ),
        _ => compare(&[1, 2], ROUNDS),
    }
}

/// One program's run over the whole input.
struct Run {
    records_a_second: f64,
    cpu_micros: f64,
    broker_micros: f64,
    resident_mib_max: f64,
}

fn compare(threads: &[usize], rounds: usize) {
    announce("stock-ledger on a real Kafka against a bare loop that copies");
    let folder = tempfile::tempdir().expect("a folder");
    let deployment = Deployment::new(PARTITIONS, &[], folder.path());
    bare::make_output(&deployment, PARTITIONS);
    let (started, count) = (Instant::now(), scaled(CHANGES));
    let bytes = deployment.load(count);
    println!(
        "{count} changes of {bytes} bytes, written in {:.1} s, over {} positions by Zipf",
        started.elapsed().as_secs_f64(),
        support::load::SKUS * support::load::LOCATIONS
    );
    println!(
        "{:38} {:>9} {:>7} {:>9} {:>11} {:>9}",
        "", "records/s", "× bare", "CPU µs", "broker µs", "peak MiB"
    );
    for &threads in threads {
        let mut bares = Vec::new();
        let mut ledgers = Vec::new();
        let mut both = Vec::new();
        for round in 0..rounds {
            let group = format!("bare-{threads}-{round}");
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            let bootstrap = &deployment.kafka.bootstrap;
            command.args(["bare", bootstrap, &group, &threads.to_string()]);
            bares.push(measure(&deployment, &mut command, &group, count, None));
            let name = format!("l{threads}{round}");
            ledgers.push(product(
                &deployment,
                folder.path(),
                &name,
                threads,
                count,
                false,
            ));
            let name = format!("b{threads}{round}");
            both.push(product(
                &deployment,
                folder.path(),
                &name,
                threads,
                count,
                true,
            ));
        }
        let unit = median(&bares.iter().map(|r| r.records_a_second).collect::<Vec<_>>());
        report(&format!("bare loop, {threads} threads"), &bares, unit);
        report(&format!("stock-ledger, {threads} tasks"), &ledgers, unit);
        report(
            &format!("stock-ledger + ats-aggregate, {threads} tasks each"),
            &both,
            unit,
        );
    }
    let last =
        folder
            .path()
            .join("state")
            .join(format!("l{}{}", threads[threads.len() - 1], rounds - 1));
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    Running::start(command.arg("state").arg(last)).wait();
}

fn report(name: &str, runs: &[Run], unit: f64) {
    let of = |f: fn(&Run) -> f64| median(&runs.iter().map(f).collect::<Vec<_>>());
    println!(
        "{name:38} {:9.0} {:7.2} {:9.2} {:11.2} {:9.0}",
        of(|r| r.records_a_second),
        of(|r| r.records_a_second) / unit,
        of(|r| r.cpu_micros),
        of(|r| r.broker_micros),
        of(|r| r.resident_mib_max)
    );
}

fn product(
    deployment: &Deployment,
    folder: &Path,
    application: &str,
    tasks: usize,
    count: usize,
    with_availability: bool,
) -> Run {
    deployment.reset();
    let mut command = crossdock(&deployment.kafka.bootstrap, folder);
    command.args(["run", "stock-ledger"]);
    if with_availability {
        command.arg("ats-aggregate");
    }
    command.args(["--application", application, "--instance", application]);
    command.args(["--tasks", &tasks.to_string(), "--state"]);
    command.arg(folder.join("state"));
    let ledger = format!("{application}.stock-ledger");
    let after = with_availability.then(|| format!("{application}.ats-aggregate"));
    measure(deployment, &mut command, &ledger, count, after.as_deref())
}

/// Runs a program until its group has committed all of the input, and `after` all of what came of
/// it. Measured is from the first commit that is seen.
fn measure(
    deployment: &Deployment,
    command: &mut Command,
    group: &str,
    count: usize,
    after: Option<&str>,
) -> Run {
    let bootstrap = &deployment.kafka.bootstrap;
    let watch = Watch::new(bootstrap, group, topic::STOCK_CHANGE, PARTITIONS);
    let offers = topic::STOCK_LEDGER_CHANNEL_LEVEL;
    let aggregate = after.map(|group| Watch::new(bootstrap, group, offers, PARTITIONS));
    let mut running = Running::start(command);
    let broker = || deployment.kafka.broker().map(usage).unwrap_or_default().cpu;
    let mut first = 0;
    wait_until("the first commit", PATIENCE, || {
        running.must_run();
        first = watch.committed();
        first > 0
    });
    let (started, cpu, broker_cpu) = (Instant::now(), running.usage().cpu, broker());
    wait_until("all of the input", PATIENCE, || {
        running.must_run();
        watch.committed() == count as i64
    });
    if let Some(aggregate) = aggregate {
        // Behind the last record of each partition stands the marker of its transaction.
        let end = deployment.end(offers) - i64::from(PARTITIONS);
        wait_until("all of the offers", PATIENCE, || {
            aggregate.committed() >= end
        });
    }
    let (elapsed, used) = (started.elapsed().as_secs_f64(), running.usage());
    let records = (count as i64 - first) as f64;
    let broker_cpu = broker().saturating_sub(broker_cpu);
    running.stop();
    Run {
        records_a_second: records / elapsed,
        cpu_micros: (used.cpu - cpu).as_secs_f64() * 1e6 / records,
        broker_micros: broker_cpu.as_secs_f64() * 1e6 / records,
        resident_mib_max: used.resident_mib_max,
    }
}

/// Says how large the state is that a run of stock-ledger left in its checkpoints, and the memory
/// that it takes.
fn state(folder: &Path) {
    let before = resident_mib();
    let shards: Vec<Shard> = (0..PARTITIONS)
        .map(|p| checkpoint::path(folder, "stock-ledger", p))
        .map(|path| checkpoint::read(&path).expect("a checkpoint").0)
        .collect();
    println!(
        "state of stock-ledger: {} keys, {:.1} MiB of keys and values, {:.1} MiB in memory",
        shards.iter().map(Shard::len).sum::<usize>(),
        shards.iter().map(Shard::bytes).sum::<usize>() as f64 / f64::from(1 << 20),
        resident_mib() - before
    );
}
