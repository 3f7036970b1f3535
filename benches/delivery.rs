//! What delivery costs, on a real Kafka: `cargo bench --bench delivery`.
//!
//! The first part: a sink task, with receipts, outcomes and everything that parking needs, against a bare
//! loop that reads the same records from the same log, makes the same calls, as many at a time and one of a
//! key at a time, and commits offsets. A target in memory takes 5 ms for a call, as one over HTTP does; a
//! second pair has one that takes no time, which shows what the work itself costs. The two take turns;
//! medians, and the median of the pairs' ratios.
//!
//! The second part: how soon urgent records (P0) reach the target while ten times as many of the lowest class
//! (P3) come in at the same time, and while none do. The target takes less than both together bring.

mod support;

use crossdock::contract::event::{
    AvailabilityChanged, Event, EventMeta, ProductChanged, RefundEvent, SinkOutcome, Text,
};
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::{Decimal, Timestamp};
use crossdock::log::{GroupProtocol, GroupSpec, Isolation, Offsets, TopicPartition};
use crossdock::pipeline::{
    Ack, Capabilities, Clock, Delivery, Fault, Idempotency, Inbound, Record, Sink, SystemClock,
};
use crossdock::runtime::service::{self, Job, Service};
use crossdock::runtime::{SinkTask, TaskSettings};
use crossdock::telemetry::Telemetry;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::kafka::Deployment;
use support::process::wait_until;
use support::{announce, median, quantile, scaled};

const PARTITIONS: i32 = 4;
const PAIRS: usize = 5;
const RECORDS: usize = 60_000;
const ORDERS: u64 = 20_000;
/// Calls at a time.
const CALLS_MAX: usize = 64;
const PATIENCE: Duration = Duration::from_secs(600);
/// Urgent records a second; of the flood ten times as many.
const URGENT: usize = 200;
/// Calls at a time of the target in the second part: 1,600 a second, of 2,200 that come in.
const FLOOD_CALLS_MAX: usize = 8;
const SECONDS: usize = 20;
const WARM_UP: Duration = Duration::from_secs(4);

/// A target in memory, and when urgent records reached it.
struct Target {
    takes: Duration,
    calls_max: usize,
    calls: AtomicU64,
    /// Milliseconds from the record's time, of urgent records.
    waits: Mutex<Vec<(Timestamp, f64)>>,
}

impl Target {
    fn new(takes: Duration, calls_max: usize) -> Arc<Target> {
        Arc::new(Target {
            takes,
            calls_max,
            calls: AtomicU64::new(0),
            waits: Mutex::default(),
        })
    }
}

struct Visitor(Arc<Target>);

#[async_trait::async_trait]
impl Sink for Visitor {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            idempotency: Idempotency::AbsoluteValue,
            compare_and_set: false,
            batch_records_max: 1,
            calls_max: self.0.calls_max,
        }
    }

    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        let mut results = Vec::with_capacity(batch.len());
        for delivery in batch {
            let version = match &delivery.inbound.event {
                Event::AvailabilityChanged(e) => {
                    let (at, now) = (e.meta.occurred_at, SystemClock.now());
                    let wait = now.since(at).as_secs_f64() * 1e3;
                    self.0.waits.lock().expect("whole").push((at, wait));
                    e.ats_version
                }
                Event::RefundEvent(e) => e.refund_version,
                _ => 1,
            };
            self.0.calls.fetch_add(1, Ordering::Relaxed);
            if !self.0.takes.is_zero() {
                tokio::time::sleep(self.0.takes).await;
            }
            results.push(Ok(Ack {
                outcome: SinkOutcome::Acked,
                version,
                external_id: None,
                digest: None,
                status: Some(200),
            }));
        }
        results
    }
}

fn main() {
    let names: Vec<String> = (0..2 * PAIRS)
        .map(|n| format!("bench-{n}"))
        .chain((0..2 * PAIRS).map(|n| format!("flood-{n}")))
        .collect();
    let sinks: Vec<&str> = names.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir().expect("a folder");
    announce("what delivery costs, and what a flood does to urgent records");
    let deployment = Deployment::new(PARTITIONS, &sinks, folder.path());
    let count = scaled(RECORDS).max(2_000);
    write_refunds(&deployment, count);
    println!(
        "{:>12} {:>8} {:>14} {:>14} {:>7}",
        "call takes", "records", "bare/s", "sink task/s", "ratio"
    );
    for (round, takes) in [Duration::from_millis(5), Duration::ZERO]
        .into_iter()
        .enumerate()
    {
        let (mut bare, mut task, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..PAIRS {
            let name = &names[round * PAIRS + pair];
            let without = || bare_loop(&deployment, &format!("{name}-bare"), takes, count);
            let with = || sink_task(&deployment, name, takes, count);
            // Whoever goes first changes from pair to pair.
            let (a, b) = match pair % 2 {
                0 => {
                    let a = without();
                    (a, with())
                }
                _ => {
                    let b = with();
                    (without(), b)
                }
            };
            bare.push(a);
            task.push(b);
            ratios.push(b / a);
        }
        println!(
            "{:>9} ms {count:8} {:14.0} {:14.0} {:7.2}",
            takes.as_millis(),
            median(&bare),
            median(&task),
            median(&ratios)
        );
    }
    println!(
        "\n{:>12} {:>10} {:>10} {:>10} {:>10}",
        "P3 records/s", "P0 calls", "p50 ms", "p99 ms", "max ms"
    );
    let (mut alone, mut flooded, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let runs = [false, true].map(|flood| {
            let name = &names[2 * PAIRS + 2 * pair + usize::from(flood)];
            let waits = urgent(&deployment, name, flood);
            println!(
                "{:>12} {:10} {:10.1} {:10.1} {:10.1}",
                if flood { 10 * URGENT } else { 0 },
                waits.len(),
                quantile(&waits, 0.5),
                quantile(&waits, 0.99),
                quantile(&waits, 1.0)
            );
            quantile(&waits, 0.99)
        });
        alone.push(runs[0]);
        flooded.push(runs[1]);
        ratios.push(runs[1] / runs[0]);
    }
    println!(
        "P0 p99, medians: {:.1} ms alone, {:.1} ms with the flood, ratio {:.2}",
        median(&alone),
        median(&flooded),
        median(&ratios)
    );
}

fn meta(event_type: &str, record: &str, position: i64) -> EventMeta {
    let now = SystemClock.now();
    EventMeta {
        event_id: crossdock::domain::event_id("bench", 0, record, "", event_type),
        event_type: event_type.into(),
        source: "bench".into(),
        source_position: position,
        occurred_at: now,
        recorded_at: now,
        tenant_id: "default".into(),
        ..EventMeta::default()
    }
}

fn write_refunds(deployment: &Deployment, count: usize) {
    let mut producer = deployment.producer();
    for number in 0..count as u64 {
        let (order, version) = (
            format!("order-{}", number % ORDERS),
            (number / ORDERS) as i64 + 1,
        );
        let event = RefundEvent {
            meta: meta("RefundEvent", &format!("{order}@{version}"), version),
            order_id: order.as_str().into(),
            refund_version: version,
            ..RefundEvent::default()
        };
        deployment.send(
            producer.as_mut(),
            topic::REFUND_EVENT,
            &order,
            &event.into(),
        );
    }
    producer.flush().expect("flushed");
}

/// A sink task as it is deployed, on a thread of its own.
fn start(
    deployment: &Deployment,
    name: &str,
    topics: &'static [&'static str],
    target: &Arc<Target>,
) -> (Service, Arc<Telemetry>) {
    let telemetry = Arc::new(Telemetry::new());
    telemetry.declare(name);
    let mut service = Service::new(telemetry.clone());
    let mut settings = TaskSettings::new("bench", 0);
    settings.static_membership = false;
    let (log, codec) = (deployment.log.clone(), deployment.codec.clone());
    let (reader, told, target) = (name.to_owned(), telemetry.clone(), target.clone());
    let job = Job {
        label: settings.label(name),
        reader: name,
    };
    let made = service.sink(job, move || {
        SinkTask::new(
            &reader,
            topics,
            Arc::new(Visitor(target.clone())),
            log.clone(),
            service::clock(),
            codec.clone(),
            Catalogue::compiled(),
            told.clone(),
            settings.clone(),
        )
    });
    made.expect("a thread");
    (service, telemetry)
}

/// Records a second, from the first call to the last outcome.
fn sink_task(deployment: &Deployment, name: &str, takes: Duration, count: usize) -> f64 {
    let target = Target::new(takes, CALLS_MAX);
    let (service, telemetry) = start(deployment, name, &[topic::REFUND_EVENT], &target);
    let began = first_call(&target);
    wait_until("everything is settled", PATIENCE, || {
        telemetry.settled(name) >= count as u64
    });
    let took = began.elapsed();
    service.stop().now();
    service.join(Duration::from_secs(20));
    count as f64 / took.as_secs_f64()
}

fn first_call(target: &Target) -> Instant {
    while target.calls.load(Ordering::Relaxed) == 0 {
        std::thread::sleep(Duration::from_micros(200));
    }
    Instant::now()
}

/// What is called next: the first of each key's line.
#[derive(Default)]
struct Lines {
    waiting: VecDeque<Delivery>,
    busy: HashSet<Text>,
}

/// As [`sink_task`], of a loop that only reads, calls and commits.
fn bare_loop(deployment: &Deployment, group: &str, takes: Duration, count: usize) -> f64 {
    let target = Target::new(takes, CALLS_MAX);
    let (log, codec) = (deployment.log.clone(), deployment.codec.clone());
    let mut consumer = log
        .consumer(&GroupSpec {
            group: group.to_owned(),
            member: None,
            topics: vec![Arc::from(topic::REFUND_EVENT)],
            protocol: GroupProtocol::CooperativeSticky,
            session_timeout: Duration::from_secs(10),
            max_poll_interval: Duration::from_secs(300),
            isolation: Isolation::ReadCommitted,
        })
        .expect("a consumer");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let sink = Visitor(target.clone());
        let mut lines = Lines::default();
        let mut calls = FuturesUnordered::new();
        let mut open: BTreeMap<TopicPartition, Open> = BTreeMap::new();
        let mut records: Vec<Record> = Vec::new();
        let (mut done, mut began, mut committed_at) = (0, None, Instant::now());
        while done < count {
            records.clear();
            let room = 2_000usize.saturating_sub(lines.waiting.len());
            consumer
                .poll(room, Duration::ZERO, &mut records)
                .expect("read");
            for record in records.drain(..) {
                let event = codec.decode(&record).expect("decoded");
                let place =
                    TopicPartition::new(record.origin.topic.clone(), record.origin.partition);
                open.entry(place).or_default().read(record.origin.offset);
                let key = std::str::from_utf8(record.key.as_deref().expect("a key"));
                lines.waiting.push_back(Delivery {
                    key: key.expect("text").into(),
                    inbound: Inbound { record, event },
                    sent: None,
                    attempt: 1,
                    in_doubt: false,
                });
            }
            for _ in 0..lines.waiting.len() {
                if calls.len() >= CALLS_MAX {
                    break;
                }
                let Some(delivery) = lines.waiting.pop_front() else {
                    break;
                };
                if !lines.busy.insert(delivery.key.clone()) {
                    lines.waiting.push_back(delivery);
                    continue;
                }
                began.get_or_insert_with(Instant::now);
                let sink = &sink;
                calls.push(async move {
                    let batch = [delivery];
                    let results = sink.write(&batch).await;
                    (batch, results)
                });
            }
            tokio::select! {
                biased;
                Some(([delivery], results)) = calls.next() => {
                    let mut finished = vec![(delivery, results)];
                    while let Some(Some(([delivery], results))) =
                        futures::FutureExt::now_or_never(calls.next())
                    {
                        finished.push((delivery, results));
                    }
                    for (delivery, results) in finished {
                        assert!(results[0].is_ok());
                        lines.busy.remove(&delivery.key);
                        let origin = &delivery.inbound.record.origin;
                        let place = TopicPartition::new(origin.topic.clone(), origin.partition);
                        open.entry(place).or_default().settle(origin.offset);
                        done += 1;
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(2)) => {}
            }
            let due = committed_at.elapsed() >= Duration::from_millis(100) || done == count;
            // Until the group has formed there is nothing to commit.
            if due && !open.is_empty() {
                committed_at = Instant::now();
                let offsets: Offsets = open.iter().map(|(p, o)| (p.clone(), o.point())).collect();
                consumer.commit(&offsets).expect("committed");
            }
        }
        count as f64 / began.expect("a call").elapsed().as_secs_f64()
    })
}

/// Offsets of a partition that are read and not done.
#[derive(Default)]
struct Open {
    open: std::collections::BTreeSet<i64>,
    read_to: i64,
}

impl Open {
    fn read(&mut self, offset: i64) {
        self.open.insert(offset);
        self.read_to = offset + 1;
    }
    fn settle(&mut self, offset: i64) {
        self.open.remove(&offset);
    }
    fn point(&self) -> i64 {
        self.open.first().copied().unwrap_or(self.read_to)
    }
}

/// Milliseconds from writing an urgent record to its call, with or without a flood beside it.
fn urgent(deployment: &Deployment, name: &str, flood: bool) -> Vec<f64> {
    let target = Target::new(Duration::from_millis(5), FLOOD_CALLS_MAX);
    let topics: &[&str] = &[topic::STOCK_ATS, topic::PRODUCT_CHANGE];
    let (service, _) = start(deployment, name, topics, &target);
    let mut producer = deployment.producer();
    // It owns its partitions once it has called for a first record.
    let mut number = 0;
    send_urgent(deployment, producer.as_mut(), name, number);
    producer.flush().expect("flushed");
    first_call(&target);
    let began = Instant::now();
    let from = SystemClock.now().plus(WARM_UP);
    let seconds = scaled(SECONDS).max(8);
    let (urgent_max, mut floods) = (URGENT * seconds, 0);
    while (number as usize) < urgent_max {
        let due = (began.elapsed().as_secs_f64() * URGENT as f64) as u64;
        while number < due {
            number += 1;
            send_urgent(deployment, producer.as_mut(), name, number);
            while flood && floods < 10 * number {
                floods += 1;
                let sku = format!("{name}-{floods}");
                let event = ProductChanged {
                    meta: meta("ProductChanged", &sku, 1),
                    sku: sku.as_str().into(),
                    product_version: 1,
                    ..ProductChanged::default()
                };
                deployment.send(
                    producer.as_mut(),
                    topic::PRODUCT_CHANGE,
                    &sku,
                    &event.into(),
                );
            }
        }
        producer.poll(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(1));
    }
    producer.flush().expect("flushed");
    let of_run = |waits: &[(Timestamp, f64)]| -> Vec<f64> {
        waits
            .iter()
            .filter(|(at, _)| *at >= from)
            .map(|(_, ms)| *ms)
            .collect()
    };
    let expected = (seconds - WARM_UP.as_secs() as usize) * URGENT * 9 / 10;
    wait_until("the urgent ones are called", PATIENCE, || {
        of_run(&target.waits.lock().expect("whole")).len() >= expected
    });
    std::thread::sleep(Duration::from_millis(500));
    service.stop().now();
    service.join(Duration::from_secs(20));
    let waits = target.waits.lock().expect("whole");
    of_run(&waits)
}

fn send_urgent(
    deployment: &Deployment,
    producer: &mut dyn crossdock::log::Producer,
    name: &str,
    number: u64,
) {
    let sku = format!("{name}-{number}");
    let event = AvailabilityChanged {
        meta: meta("AvailabilityChanged", &sku, 1),
        sku: sku.as_str().into(),
        channel_id: "web".into(),
        ats_version: 1,
        ats: Decimal::ONE,
        ..AvailabilityChanged::default()
    };
    deployment.send(
        producer,
        topic::STOCK_ATS,
        &format!("{sku}|web"),
        &event.into(),
    );
}
