//! The cases. Each has topics and groups of its own, so that one log serves them all.

mod loops;
mod members;
mod records;
mod topics;
mod transactions;

use crossdock::log::{
    Consumer, GroupProtocol, GroupSpec, Isolation, Log, Offset, Offsets, Outgoing, Producer,
    ProducerSpec, TopicPartition, TopicSpec,
};
use crossdock::pipeline::{Headers, Record};
pub use loops::server_assigned_groups;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
pub use transactions::an_unanswered_commit;

const PATIENCE: Duration = Duration::from_secs(30);
const WAIT: Duration = Duration::from_millis(100);
/// Records that go through loops that come and go.
const RECORDS: usize = 3_000;

struct Case<'a> {
    log: &'a Arc<dyn Log>,
    name: String,
}

pub fn run(log: &Arc<dyn Log>, which: &str) {
    static RUN: AtomicU32 = AtomicU32::new(0);
    type Run = fn(&Case<'_>);
    let cases: &[(&str, Run)] = &[
        ("order", records::order_holds_for_each_key),
        (
            "isolation",
            transactions::nothing_open_or_aborted_is_visible,
        ),
        (
            "atomic",
            transactions::offsets_and_outputs_commit_together_or_not_at_all,
        ),
        ("fencing", transactions::a_newer_producer_fences_the_old),
        (
            "generation",
            transactions::a_batch_of_an_older_generation_cannot_commit,
        ),
        (
            "abandoned",
            transactions::an_abandoned_transaction_ends_when_its_id_returns,
        ),
        (
            "rebalance",
            loops::each_record_counts_once_through_rebalances,
        ),
        (
            "cooperative",
            loops::each_record_counts_once_in_a_cooperative_group,
        ),
        ("naive", loops::a_loop_that_ignores_rebalances_is_found_out),
        (
            "redo",
            loops::a_loop_that_forgets_what_it_committed_is_found_out,
        ),
        ("seek", records::seek_and_pause_do_what_they_say),
        (
            "contents",
            records::keys_headers_tombstones_and_times_survive,
        ),
        ("oversize", records::a_record_that_is_too_large_is_refused),
        (
            "caught-up",
            records::a_reader_catches_up_over_markers_and_aborts,
        ),
        ("static", members::a_static_member_returns_to_its_partitions),
        (
            "replaced",
            members::a_static_member_that_is_replaced_is_told,
        ),
        (
            "spare",
            members::a_member_without_partitions_knows_that_it_has_joined,
        ),
        (
            "compaction",
            topics::compaction_keeps_the_last_value_of_each_key,
        ),
        (
            "retention",
            topics::a_topic_with_a_limit_drops_its_oldest_records,
        ),
        ("admin", topics::topics_are_made_changed_and_told),
    ];
    for (name, case) in cases {
        let run = RUN.fetch_add(1, Ordering::SeqCst);
        let started = Instant::now();
        case(&Case {
            log,
            name: format!("{name}-{}-{run}", std::process::id()),
        });
        println!("{which}: {name} ok in {:?}", started.elapsed());
    }
}

impl Case<'_> {
    fn topic(&self, suffix: &str, partitions: i32) -> String {
        let name = format!("{}-{suffix}", self.name);
        self.log
            .admin()
            .create(&TopicSpec {
                name: name.clone(),
                partitions,
                replication: 1,
                settings: BTreeMap::new(),
            })
            .expect("created");
        name
    }

    fn consumer(
        &self,
        topics: &[&str],
        member: Option<&str>,
        protocol: GroupProtocol,
    ) -> Box<dyn Consumer> {
        let spec = GroupSpec {
            group: self.name.clone(),
            member: member.map(str::to_owned),
            topics: topics.iter().map(|t| Arc::from(*t)).collect(),
            protocol,
            session_timeout: Duration::from_secs(6),
            max_poll_interval: Duration::from_secs(60),
            isolation: Isolation::ReadCommitted,
        };
        self.log.consumer(&spec).expect("joined")
    }

    fn transactional(&self, id: &str) -> Box<dyn Producer> {
        let spec = ProducerSpec {
            transactional_id: Some(format!("{}-{id}", self.name)),
            ..ProducerSpec::default()
        };
        self.log.producer(&spec).expect("a producer")
    }

    fn plain(&self) -> Box<dyn Producer> {
        self.log
            .producer(&ProducerSpec::default())
            .expect("a producer")
    }

    fn fill(&self, topic: &str, count: usize) {
        let mut producer = self.plain();
        for n in 0..count {
            send(
                producer.as_mut(),
                topic,
                &format!("key-{}", n % 7),
                &n.to_string(),
            );
        }
        producer.flush().expect("flushed");
    }

    fn values(&self, topic: &str) -> Vec<String> {
        self.read(topic)
            .iter()
            .map(|r| text(r.value.as_deref()))
            .collect()
    }

    fn read(&self, topic: &str) -> Vec<Record> {
        let topics = self.log.admin().topics().expect("topics");
        let partitions = topics
            .iter()
            .find(|t| t.name == topic)
            .expect("the topic")
            .partitions;
        let from: Vec<_> = (0..partitions)
            .map(|p| (TopicPartition::new(topic, p), Offset::Beginning))
            .collect();
        let mut reader = self
            .log
            .reader(&from, Isolation::ReadCommitted)
            .expect("a reader");
        let mut records = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while !reader.caught_up() {
            assert!(
                Instant::now() < deadline,
                "{topic} was never read to its end"
            );
            reader.poll(10_000, WAIT, &mut records).expect("read");
        }
        records
    }
}

/// What is older than a topic keeps is dropped.
fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_millis() as i64
}

fn send(producer: &mut dyn Producer, topic: &str, key: &str, value: &str) {
    let headers = Headers::default();
    let record = Outgoing {
        topic,
        partition: None,
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        headers: &headers,
        timestamp_ms: now_ms(),
    };
    producer.send(record).expect("sent");
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

/// Polls until `count` records are there.
fn take(consumer: &mut dyn Consumer, count: usize) -> Vec<Record> {
    let mut records = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while records.len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} records came",
            records.len()
        );
        consumer
            .poll(count - records.len(), WAIT, &mut records)
            .expect("polled");
    }
    records
}

/// Polls until the consumer owns `count` partitions.
fn own(consumers: &mut [&mut Box<dyn Consumer>], counts: &[usize]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        for consumer in consumers.iter_mut() {
            consumer
                .poll(0, Duration::from_millis(20), &mut Vec::new())
                .expect("polled");
        }
        if consumers
            .iter()
            .zip(counts)
            .all(|(c, n)| c.owned().len() == *n)
        {
            return;
        }
        let owned: Vec<usize> = consumers.iter().map(|c| c.owned().len()).collect();
        assert!(
            Instant::now() < deadline,
            "partitions owned: {owned:?}, expected {counts:?}"
        );
    }
}

fn ends(records: &[Record]) -> Offsets {
    let mut ends = Offsets::new();
    for r in records {
        let at = TopicPartition {
            topic: r.origin.topic.clone(),
            partition: r.origin.partition,
        };
        let end = ends.entry(at).or_default();
        *end = (*end).max(r.origin.offset + 1);
    }
    ends
}
