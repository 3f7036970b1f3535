//! A deployment on the embedded log whose time and schedule belong to the test.

use crossdock::codec::Codec;
use crossdock::contract::event::{Event, EventMeta, Origin, PositionKind};
use crossdock::contract::{Catalogue, Tier, topic};
use crossdock::domain::{Timestamp, event_id};
use crossdock::log::embedded::{EmbeddedLog, Injected, Options};
use crossdock::log::{
    Admin, Isolation, Log, Offset, Outgoing, ProducerSpec, TopicPartition, TopicSpec,
};
use crossdock::pipeline::{Clock, Headers, Record};
use crossdock::processors;
use crossdock::runtime::{ProcessorTask, Progress, TaskSettings};
use crossdock::simulate::Schemas;
use crossdock::telemetry::Telemetry;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

/// A clock that moves when the test says so, and whom to wake when it has.
pub struct TestClock(pub AtomicI64, Mutex<Vec<Waker>>);

impl TestClock {
    /// Waits until it is `at`, without moving the clock.
    pub async fn reached(&self, at: Timestamp) {
        std::future::poll_fn(|context| match self.now() >= at {
            true => Poll::Ready(()),
            false => {
                let mut waiting = self.1.lock().expect("whole");
                waiting.push(context.waker().clone());
                Poll::Pending
            }
        })
        .await;
    }
}

#[async_trait::async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
    async fn sleep(&self, wait: Duration) {
        self.0.fetch_add(wait.as_micros() as i64, Ordering::SeqCst);
    }
}

/// Everything that a log can be made to do wrong once.
pub const FAULTS: [Injected; 7] = [
    Injected::CommitLost,
    Injected::CommitAnswerLost,
    Injected::Send,
    Injected::Poll,
    Injected::Committed,
    Injected::Producer,
    Injected::Seek,
];

/// The sink and the source of these tests.
pub const SINK: &str = "shop";
pub const SOURCE: &str = "till";

pub struct World {
    pub log: EmbeddedLog,
    pub registry: Arc<Schemas>,
    pub clock: Arc<TestClock>,
    pub codec: Arc<Codec>,
    pub telemetry: Arc<Telemetry>,
}

impl World {
    pub fn new() -> World {
        let clock = Arc::new(TestClock(
            AtomicI64::new(1_700_000_000_000_000),
            Mutex::default(),
        ));
        let time = clock.clone();
        let now = Arc::new(move || Duration::from_micros(time.0.load(Ordering::SeqCst) as u64));
        let log = EmbeddedLog::new(Options {
            now,
            ..Options::system()
        });
        let catalogue = Catalogue::compiled();
        let processors: Vec<(&str, &str)> = processors::ALL
            .iter()
            .map(|p| (p.descriptor.name, p.descriptor.inputs[0]))
            .collect();
        let sinks = [(SINK, topic::STOCK_ATS)];
        let sources = [(SOURCE, topic::STOCK_CHANGE)];
        let topics = catalogue.physical(Tier::S, &processors, &sinks);
        let of_sources = catalogue.physical_of_sources(Tier::S, &sources);
        for topic in topics.into_iter().chain(of_sources) {
            let spec = TopicSpec {
                name: topic.name,
                partitions: topic.partitions,
                replication: 1,
                settings: topic.settings,
            };
            log.create(&spec).expect("a new topic");
        }
        let codec = Arc::new(Codec::new(Arc::new(Schemas::default()), catalogue));
        World {
            log,
            clock,
            codec,
            telemetry: Arc::new(Telemetry::new()),
            registry: Arc::default(),
        }
    }

    /// The log as a port.
    pub fn port(&self) -> Arc<dyn Log> {
        Arc::new(self.log.clone())
    }

    /// A codec that has looked nothing up yet, as of a process that has just started.
    pub fn cold_codec(&self) -> Arc<Codec> {
        Arc::new(Codec::new(self.registry.clone(), Catalogue::compiled()))
    }

    /// As [`World::task`], with checkpoints in `folder` and a codec of its own.
    pub fn task_in(&self, processor: &str, slot: &str, folder: &Path) -> ProcessorTask {
        let made = (processors::find(processor).expect("a processor").make)();
        let mut settings = TaskSettings::new(slot, 0);
        settings.static_membership = false;
        settings.state_folder = Some(folder.join(slot));
        settings.checkpoint_interval = Duration::from_millis(500);
        ProcessorTask::new(
            made,
            self.port(),
            self.clock.clone(),
            self.cold_codec(),
            Catalogue::compiled(),
            self.telemetry.clone(),
            settings,
        )
        .expect("a task")
    }

    pub fn advance(&self, by: Duration) {
        self.clock
            .0
            .fetch_add(by.as_micros() as i64, Ordering::SeqCst);
        for waiting in std::mem::take(&mut *self.clock.1.lock().expect("whole")) {
            waiting.wake();
        }
    }

    pub fn task(&self, processor: &str, slot: &str) -> ProcessorTask {
        let made = (processors::find(processor).expect("a processor").make)();
        let mut settings = TaskSettings::new(slot, 0);
        settings.static_membership = false;
        ProcessorTask::new(
            made,
            self.port(),
            self.clock.clone(),
            self.codec.clone(),
            Catalogue::compiled(),
            self.telemetry.clone(),
            settings,
        )
        .expect("a task")
    }

    /// Steps the tasks in turn until none has had anything to do for a few rounds: while a group
    /// forms, a round may pass in which every member only waits for the others.
    pub fn settle(&self, tasks: &mut [&mut ProcessorTask]) {
        let mut quiet = 0;
        for _ in 0..100_000 {
            let mut busy = false;
            for task in tasks.iter_mut() {
                // No two steps are of one moment.
                self.advance(Duration::from_micros(1));
                match task.step(Duration::ZERO) {
                    Ok(Progress::Idle { until: None }) => {}
                    Ok(Progress::Unassigned) => {}
                    // What waits for hours or days is at rest.
                    Ok(Progress::Idle { until: Some(due) })
                        if due > self.clock.now().plus(Duration::from_secs(1)) => {}
                    Ok(Progress::Idle { until: Some(_) }) => {
                        self.advance(Duration::from_millis(10));
                        busy = true;
                    }
                    Ok(_) => busy = true,
                    Err(fault) => panic!("{}: {fault}", task.name()),
                }
            }
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet == 3 {
                return;
            }
        }
        panic!("the tasks never came to rest");
    }

    pub fn send(&self, topic: &str, key: &str, event: impl Into<Event>) {
        let mut value = Vec::new();
        self.codec
            .encode(topic, &event.into(), &mut value)
            .expect("encoded");
        self.send_raw(topic, Some(key.as_bytes()), Some(&value));
    }

    pub fn send_raw(&self, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.append(topic, None, key, value);
    }

    pub fn send_to(&self, topic: &str, partition: i32, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.append(topic, Some(partition), key, value);
    }

    fn append(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) {
        let mut producer = self
            .log
            .producer(&ProducerSpec::default())
            .expect("a producer");
        let headers = Headers::default();
        let timestamp_ms = self.clock.now().as_millis();
        producer
            .send(Outgoing {
                topic,
                partition,
                key,
                value,
                headers: &headers,
                timestamp_ms,
            })
            .expect("sent");
    }

    /// Every committed record of a topic.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        let topics = self.log.topics().expect("topics");
        let found = topics.iter().find(|t| t.name == topic).expect("the topic");
        let from: Vec<_> = (0..found.partitions)
            .map(|p| (TopicPartition::new(topic, p), Offset::Beginning))
            .collect();
        let mut reader = self
            .log
            .reader(&from, Isolation::ReadCommitted)
            .expect("a reader");
        let mut records = Vec::new();
        while !reader.caught_up() {
            let before = records.len();
            reader
                .poll(10_000, Duration::ZERO, &mut records)
                .expect("read");
            if records.len() == before {
                // What a transaction that nobody ends holds back comes when its time is over.
                self.advance(Duration::from_millis(100));
            }
        }
        records
    }

    pub fn events(&self, topic: &str) -> Vec<Event> {
        self.records(topic)
            .iter()
            .map(|r| self.codec.decode(r).expect("decoded"))
            .collect()
    }
}

/// The beginning of a fact of source `source` at `position`.
pub fn meta(event_type: &str, source: &str, record: &str, position: i64) -> EventMeta {
    EventMeta {
        event_id: event_id(source, 0, record, "", event_type),
        event_type: event_type.into(),
        source: source.into(),
        source_position: position,
        position_kind: PositionKind::Sequence,
        occurred_at: Timestamp(1_700_000_000_000_000 + position * 1_000_000),
        recorded_at: Timestamp(1_700_000_000_000_000 + position * 1_000_000),
        tenant_id: "default".into(),
        correlation_id: record.into(),
        origin: Origin::Source,
        ..EventMeta::default()
    }
}
