//! `stock-ledger` on the embedded log, on one thread: `cargo bench --bench embedded`.
//!
//! The log holds all changes before the clock starts; then the task is stepped until it has nothing
//! left to do. Levels, offers, state and dispositions are written as on Kafka.

mod support;

use crossdock::codec::{Codec, SchemaError, SchemaSource};
use crossdock::contract::event::Event;
use crossdock::contract::{Catalogue, Tier, topic};
use crossdock::domain::Timestamp;
use crossdock::log::embedded::{EmbeddedLog, Options};
use crossdock::log::{Admin, Log, Outgoing, Producer, ProducerSpec, TopicSpec};
use crossdock::pipeline::{Clock, Headers, SystemClock};
use crossdock::processors;
use crossdock::runtime::{ProcessorTask, Progress, TaskSettings};
use crossdock::telemetry::Telemetry;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::load::{self, Positions};
use support::process::thread_cpu;
use support::{announce, median, scaled};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CHANGES: usize = 1_000_000;
const ROUNDS: usize = 3;
const PARTITIONS: i32 = 4;

/// Knows every compiled contract under its place in the list.
struct Compiled;

impl SchemaSource for Compiled {
    fn schema(&self, id: u32) -> Result<String, SchemaError> {
        let known = Event::CONTRACTS.get(id as usize);
        known
            .map(|(_, schema)| (*schema).to_owned())
            .ok_or(SchemaError::NotFound)
    }
    fn id(&self, _subject: &str, schema: &str) -> Result<u32, SchemaError> {
        let found = Event::CONTRACTS.iter().position(|(_, s)| *s == schema);
        found.map(|i| i as u32).ok_or(SchemaError::NotFound)
    }
}

fn main() {
    announce("stock-ledger on the embedded log, one thread");
    let count = scaled(CHANGES);
    println!("{:>9} {:>14} {:>9}", "records/s", "records/CPU s", "CPU µs");
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let (elapsed, cpu) = run(count);
        let count = count as f64;
        rates.push(count / cpu);
        println!(
            "{:9.0} {:14.0} {:9.2}",
            count / elapsed,
            count / cpu,
            cpu * 1e6 / count
        );
    }
    println!(
        "median {:.0} records for each second of one core",
        median(&rates)
    );
}

/// Wall and CPU seconds of one run over `count` changes.
fn run(count: usize) -> (f64, f64) {
    let log = EmbeddedLog::new(Options::system());
    let codec = Arc::new(Codec::new(Arc::new(Compiled), Catalogue::compiled()));
    let readers: Vec<(&str, &str)> = processors::ALL
        .iter()
        .map(|p| (p.descriptor.name, p.descriptor.inputs[0]))
        .collect();
    for topic in Catalogue::compiled().physical(Tier::S, &readers, &[]) {
        let spec = TopicSpec {
            name: topic.name,
            partitions: if topic.partitions == 1 { 1 } else { PARTITIONS },
            replication: 1,
            settings: topic.settings,
        };
        log.create(&spec).expect("a new topic");
    }
    let mut producer = log.producer(&ProducerSpec::default()).expect("a producer");
    let mut send = |topic: &str, key: &str, event: Event| {
        send(producer.as_mut(), &codec, topic, key, &event);
    };
    send(topic::CHANNEL_CHANGE, load::CHANNEL, load::channel().into());
    let mut positions = Positions::new(load::SKUS, 1);
    let start = SystemClock.now();
    for number in 0..count as u64 {
        let time = Timestamp(start.0 + number as i64);
        let (key, event) = load::receipt(number, positions.draw(), time);
        send(topic::STOCK_CHANGE, &key, event.into());
    }
    let ledger = processors::find("stock-ledger").expect("a processor");
    let shared: Arc<dyn Log> = Arc::new(log);
    let mut task = ProcessorTask::new(
        (ledger.make)(),
        shared,
        Arc::new(SystemClock),
        codec,
        Catalogue::compiled(),
        Arc::new(Telemetry::new()),
        TaskSettings::new("bench", 0),
    )
    .expect("a task");
    let (started, cpu, mut done) = (Instant::now(), thread_cpu(), 0);
    while done < count {
        if let Progress::Worked(worked) = task.step(Duration::ZERO).expect("a step") {
            done += worked;
        }
    }
    let used = thread_cpu() - cpu;
    (started.elapsed().as_secs_f64(), used.as_secs_f64())
}

fn send(producer: &mut dyn Producer, codec: &Codec, topic: &str, key: &str, event: &Event) {
    let mut value = Vec::new();
    codec.encode(topic, event, &mut value).expect("encoded");
    let sent = producer.send(Outgoing {
        topic,
        partition: None,
        key: Some(key.as_bytes()),
        value: Some(&value),
        headers: &Headers::default(),
        timestamp_ms: SystemClock.now().as_millis(),
    });
    sent.expect("sent");
}
