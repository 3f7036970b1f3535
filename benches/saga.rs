//! Orders that get their stock on a real Kafka: `cargo bench --bench saga`.
//!
//! `crossdock run stock-ledger reservation-saga order-lifecycle` in one process, with stock on hand. Then
//! 20,000 orders of two lines come in at once, each taken by its ERP and paid; an order is done when a
//! claim of each of its lines is firm. What goes round is PLACED, a command to hold, a decision, a command
//! to confirm, and a decision again. Wanted are 500 orders a second on two cores, the broker included.

mod support;

use crossdock::contract::event::{Event, PaymentKind, ReservationStatus, StockChanged};
use crossdock::contract::topic;
use crossdock::domain::Decimal;
use crossdock::log::{Isolation, Offset, TopicPartition};
use crossdock::pipeline::{Clock, Record, SystemClock};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use support::kafka::{Deployment, Watch};
use support::orders::{LINES, accepted, paid, placed, sku};
use support::process::{Running, crossdock, usage, wait_until};
use support::{announce, load, scaled};

const PARTITIONS: i32 = 4;
const ORDERS: usize = 20_000;
const PATIENCE: Duration = Duration::from_secs(600);
/// Orders a second that are wanted.
const WANTED: f64 = 500.0;
/// Units of each SKU at the one location that has any.
const UNITS: i32 = 100_000;

fn main() {
    announce("orders from PLACED to accepted with firm claims");
    let folder = tempfile::tempdir().expect("a folder");
    let deployment = Deployment::new(PARTITIONS, &[], folder.path());
    let orders = scaled(ORDERS).max(1) as u64;
    let receipts = stock(&deployment, orders);
    let mut command = crossdock(&deployment.kafka.bootstrap, folder.path());
    command.args(["run", "stock-ledger", "reservation-saga", "order-lifecycle"]);
    command.args(["--application", "bench", "--instance", "bench", "--state"]);
    command.arg(folder.path().join("state"));
    let mut running = Running::start(&mut command);
    let bootstrap = &deployment.kafka.bootstrap;
    let ledger = Watch::new(
        bootstrap,
        "bench.stock-ledger",
        topic::STOCK_CHANGE,
        PARTITIONS,
    );
    wait_until("the stock on hand", PATIENCE, || {
        running.must_run();
        ledger.committed() >= receipts as i64
    });
    let broker = || deployment.kafka.broker().map(usage).unwrap_or_default().cpu;
    let (started, cpu, broker_cpu) = (Instant::now(), running.usage().cpu, broker());
    write(&deployment, orders);
    let written = started.elapsed();
    let firm = follow(&deployment, orders * LINES, || {
        running.must_run();
    });
    let (elapsed, used) = (started.elapsed().as_secs_f64(), running.usage());
    let each = |time: Duration| time.as_secs_f64() * 1e6 / orders as f64;
    println!(
        "{orders} orders with {firm} firm claims in {elapsed:.1} s (written in {:.1} s): {:.0} orders/s, {WANTED:.0} are wanted",
        written.as_secs_f64(),
        orders as f64 / elapsed
    );
    println!(
        "for each order {:.0} µs of CPU, of the broker {:.0} µs; {:.0} MiB at most",
        each(used.cpu.saturating_sub(cpu)),
        each(broker().saturating_sub(broker_cpu)),
        used.resident_mib_max
    );
    running.stop();
}

/// Puts every SKU that is ordered on the shelf. Returns how many facts that takes.
fn stock(deployment: &Deployment, orders: u64) -> usize {
    let lines = (0..orders).flat_map(|order| (0..LINES).map(move |line| sku(order, line)));
    let skus: BTreeSet<String> = lines.collect();
    let now = SystemClock.now();
    let mut producer = deployment.producer();
    for (number, sku) in skus.iter().enumerate() {
        let (_, event) = load::receipt(number as u64, (0, 0), now);
        let event = StockChanged {
            sku: sku.as_str().into(),
            qty: Decimal::from(UNITS),
            ..event
        };
        let key = format!("{sku}|{}", event.location_id);
        let event = event.into();
        deployment.send(producer.as_mut(), topic::STOCK_CHANGE, &key, &event);
    }
    producer.flush().expect("flushed");
    skus.len()
}

fn write(deployment: &Deployment, orders: u64) {
    let mut producer = deployment.producer();
    for number in 0..orders {
        let now = SystemClock.now();
        for told in [
            placed(number, now),
            accepted(number, now),
            paid(number, PaymentKind::Captured, now),
        ] {
            deployment.send(producer.as_mut(), told.topic, &told.key, &told.event);
        }
    }
    producer.flush().expect("flushed");
}

/// Reads what is decided on claims until so many are firm.
fn follow(deployment: &Deployment, wanted: u64, mut look: impl FnMut()) -> u64 {
    let partitions = (0..PARTITIONS).map(|p| TopicPartition::new(topic::RESERVATION_EVENT, p));
    let from: Vec<_> = partitions.map(|p| (p, Offset::Beginning)).collect();
    let reader = deployment.log.reader(&from, Isolation::ReadCommitted);
    let mut reader = reader.expect("a reader");
    let mut firm = BTreeSet::new();
    let mut records: Vec<Record> = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while (firm.len() as u64) < wanted {
        assert!(
            Instant::now() < deadline,
            "{} of {wanted} claims are firm after {PATIENCE:?}",
            firm.len()
        );
        look();
        reader
            .poll(10_000, Duration::from_millis(50), &mut records)
            .expect("read");
        for record in records.drain(..) {
            let event = deployment.codec.decode(&record).expect("an event");
            if let Event::ReservationEvent(e) = event
                && e.status == ReservationStatus::Confirmed
            {
                firm.insert(e.reservation_id);
            }
        }
    }
    firm.len() as u64
}
