//! Orders joined with their payments and fulfilments on a real Kafka, against the least that any program
//! could do there: `cargo bench --bench orders`.
//!
//! Seven facts of each of 100,000 orders, every one of them late by up to 15 minutes, so that three in
//! ten of what follows an order come before it. A bare rdkafka loop that copies each record
//! in transactions and `crossdock run order-lifecycle` take turns on the same input. No order ends, so
//! the most memory that the program took is that of 100,000 open orders: at most 400 MiB is wanted. Each round
//! is told as it ends, then the middle of all; `cargo bench --bench orders -- 1` measures with one task only.

mod support;

use crossdock::contract::event::PaymentKind;
use crossdock::contract::topic;
use crossdock::domain::Timestamp;
use crossdock::pipeline::{Clock, SystemClock};
use rand::prelude::*;
use std::process::Command;
use std::time::{Duration, Instant};
use support::kafka::{Deployment, Watch};
use support::orders::{Told, accepted, fulfilled, paid, placed};
use support::process::{Running, crossdock, usage, wait_until};
use support::{announce, bare, median, scaled};

const PARTITIONS: i32 = 4;
const ORDERS: usize = 100_000;
const ROUNDS: usize = 3;
const TOPICS: [&str; 3] = [
    topic::ORDER_LIFECYCLE,
    topic::PAYMENT_EVENT,
    topic::SHIPMENT_EVENT,
];
/// Orders come in for so long, and what is said of one follows a minute apart.
const SPAN: Duration = Duration::from_secs(2 * 3_600);
const STEP: Duration = Duration::from_secs(60);
const LATE_MAX: Duration = Duration::from_secs(15 * 60);
const FACTS: usize = 7;
const PATIENCE: Duration = Duration::from_secs(900);
/// Memory that 100,000 open orders may take.
const MIB_WANTED: f64 = 400.0;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bare", bootstrap, group, threads] => {
            let threads = threads.parse().expect("a number");
            bare::run(bootstrap, group, threads, &TOPICS);
        }
        ref others => {
            let tasks = others.iter().filter_map(|a| a.parse().ok());
            let tasks: Vec<usize> = tasks.collect();
            compare(if tasks.is_empty() { &[1, 2] } else { &tasks });
        }
    }
}

/// One program's run over the whole input.
#[derive(Clone, Copy)]
struct Run {
    events_a_second: f64,
    cpu_micros: f64,
    broker_micros: f64,
    resident_mib_max: f64,
}

fn compare(threads: &[usize]) {
    announce("orders joined with payments and fulfilments, against a bare loop that copies");
    let folder = tempfile::tempdir().expect("a folder");
    let deployment = Deployment::new(PARTITIONS, &[], folder.path());
    bare::make_output(&deployment, PARTITIONS);
    let (started, orders) = (Instant::now(), scaled(ORDERS));
    let (count, early) = load(&deployment, orders);
    println!(
        "{count} facts of {orders} orders, written in {:.1} s; {:.0} % of those that follow an order come before it",
        started.elapsed().as_secs_f64(),
        early * 100.0
    );
    println!(
        "{:38} {:>9} {:>7} {:>9} {:>11} {:>9}",
        "", "events/s", "× bare", "CPU µs", "broker µs", "peak MiB"
    );
    let bootstrap = &deployment.kafka.bootstrap;
    for &threads in threads {
        let (mut bares, mut joins) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let group = format!("bare-{threads}-{round}");
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.args(["bare", bootstrap, &group, &threads.to_string()]);
            let run = measure(&deployment, &mut command, &group, count);
            let unit = run.events_a_second;
            report(&format!("round {round}: bare loop"), &[run], unit);
            bares.push(run);
            let name = format!("j{threads}{round}");
            let mut command = crossdock(bootstrap, folder.path());
            command.args(["run", "order-lifecycle", "--tasks", &threads.to_string()]);
            command.args(["--application", &name, "--instance", &name, "--state"]);
            command.arg(folder.path().join("state"));
            deployment.reset_except(&TOPICS);
            let group = format!("{name}.order-lifecycle");
            let run = measure(&deployment, &mut command, &group, count);
            report(&format!("round {round}: order-lifecycle"), &[run], unit);
            joins.push(run);
        }
        let unit = median(&bares.iter().map(|r| r.events_a_second).collect::<Vec<_>>());
        report(&format!("bare loop, {threads} threads"), &bares, unit);
        report(&format!("order-lifecycle, {threads} tasks"), &joins, unit);
        let most = joins.iter().map(|r| r.resident_mib_max);
        let most = most.fold(0.0, f64::max);
        println!(
            "{orders} open orders: {most:.0} MiB at most; {MIB_WANTED:.0} are wanted for {ORDERS}"
        );
    }
}

fn report(name: &str, runs: &[Run], unit: f64) {
    let of = |f: fn(&Run) -> f64| median(&runs.iter().map(f).collect::<Vec<_>>());
    println!(
        "{name:38} {:9.0} {:7.2} {:9.2} {:11.2} {:9.0}",
        of(|r| r.events_a_second),
        of(|r| r.events_a_second) / unit,
        of(|r| r.cpu_micros),
        of(|r| r.broker_micros),
        of(|r| r.resident_mib_max)
    );
}

/// Writes everything in the order of its arrival. Returns how many facts, and which part of those that
/// follow an order come before it.
fn load(deployment: &Deployment, orders: usize) -> (usize, f64) {
    let mut random = SmallRng::seed_from_u64(1);
    let begin = SystemClock
        .now()
        .minus(SPAN + STEP * FACTS as u32 + LATE_MAX);
    let mut arrivals: Vec<(Timestamp, u64, u32)> = Vec::with_capacity(orders * FACTS);
    let (mut followers, mut early) = (0u64, 0u64);
    for number in 0..orders {
        let ordered = begin.plus(SPAN.mul_f64(number as f64 / orders as f64));
        let mut known_at = Timestamp::default();
        for step in 0..FACTS as u32 {
            let late = LATE_MAX.mul_f64(random.random::<f64>());
            let at = ordered.plus(STEP * step + late);
            match step {
                0 => known_at = at,
                _ => {
                    followers += 1;
                    early += u64::from(at < known_at);
                }
            }
            arrivals.push((at, number as u64, step));
        }
    }
    arrivals.sort_unstable();
    let mut producer = deployment.producer();
    for (_, number, step) in &arrivals {
        let ordered = begin.plus(SPAN.mul_f64(*number as f64 / orders as f64));
        let told = fact(*number, *step, ordered.plus(STEP * *step));
        deployment.send(producer.as_mut(), told.topic, &told.key, &told.event);
    }
    producer.flush().expect("flushed");
    (arrivals.len(), early as f64 / followers.max(1) as f64)
}

fn fact(number: u64, step: u32, at: Timestamp) -> Told {
    match step {
        0 => placed(number, at),
        1 => paid(number, PaymentKind::Authorised, at),
        2 => accepted(number, at),
        3 => paid(number, PaymentKind::Captured, at),
        step => fulfilled(number, i64::from(step) - 3, at),
    }
}

/// Runs a program until its group has committed all of the input. Measured is from the first commit
/// that is seen.
fn measure(deployment: &Deployment, command: &mut Command, group: &str, count: usize) -> Run {
    let bootstrap = &deployment.kafka.bootstrap;
    let watches = TOPICS.map(|topic| Watch::new(bootstrap, group, topic, PARTITIONS));
    let committed = || watches.iter().map(Watch::committed).sum::<i64>();
    let mut running = Running::start(command);
    let broker = || deployment.kafka.broker().map(usage).unwrap_or_default().cpu;
    let mut first = 0;
    wait_until("the first commit", PATIENCE, || {
        running.must_run();
        first = committed();
        first > 0
    });
    let (started, cpu, broker_cpu) = (Instant::now(), running.usage().cpu, broker());
    wait_until("all of the input", PATIENCE, || {
        running.must_run();
        committed() >= count as i64
    });
    let (elapsed, used) = (started.elapsed().as_secs_f64(), running.usage());
    let events = match count as i64 - first {
        // A small input is committed at once: there is nothing to measure.
        ..=0 => f64::NAN,
        events => events as f64,
    };
    let broker_cpu = broker().saturating_sub(broker_cpu);
    running.stop();
    Run {
        events_a_second: events / elapsed,
        cpu_micros: (used.cpu - cpu).as_secs_f64() * 1e6 / events,
        broker_micros: broker_cpu.as_secs_f64() * 1e6 / events,
        resident_mib_max: used.resident_mib_max,
    }
}
