//! The cases. Each has topics and groups of its own, so that one log serves them all.

use crossdock::log::{
    Assignment, Consumer, GroupGeneration, GroupProtocol, GroupSpec, Isolation, Log, LogError,
    Offset, Offsets, Outgoing, Producer, ProducerSpec, TopicPartition, TopicSpec,
};
use crossdock::pipeline::{Headers, Record};
use rand::SeedableRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

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
        ("order", order_holds_for_each_key),
        ("isolation", nothing_open_or_aborted_is_visible),
        ("atomic", offsets_and_outputs_commit_together_or_not_at_all),
        ("fencing", a_newer_producer_fences_the_old),
        ("generation", a_batch_of_an_older_generation_cannot_commit),
        (
            "abandoned",
            an_abandoned_transaction_ends_when_its_id_returns,
        ),
        ("rebalance", each_record_counts_once_through_rebalances),
        (
            "cooperative",
            each_record_counts_once_in_a_cooperative_group,
        ),
        ("naive", a_loop_that_ignores_rebalances_is_found_out),
        ("redo", a_loop_that_forgets_what_it_committed_is_found_out),
        ("seek", seek_and_pause_do_what_they_say),
        ("contents", keys_headers_tombstones_and_times_survive),
        ("oversize", a_record_that_is_too_large_is_refused),
        ("caught-up", a_reader_catches_up_over_markers_and_aborts),
        ("static", a_static_member_returns_to_its_partitions),
        ("replaced", a_static_member_that_is_replaced_is_told),
        (
            "spare",
            a_member_without_partitions_knows_that_it_has_joined,
        ),
        ("compaction", compaction_keeps_the_last_value_of_each_key),
        ("retention", a_topic_with_a_limit_drops_its_oldest_records),
        ("admin", topics_are_made_changed_and_told),
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

/// What only a cluster with the protocol of KIP-848 can show.
pub fn server_assigned_groups(log: &Arc<dyn Log>) {
    let started = Instant::now();
    let case = Case {
        log,
        name: format!("server-{}", std::process::id()),
    };
    let outputs = through_rebalances(&case, GroupProtocol::Server);
    assert_eq!(outputs, (0..RECORDS).collect::<Vec<_>>());
    println!("kafka: KIP-848 group ok in {:?}", started.elapsed());
}

/// A commit that gets no answer, because `disturb` was called before it; `mend` ends the disturbance.
///
/// Whether it took effect only the log knows, once a new producer with the same id has settled it.
/// The old producer must refuse everything: a call that the broker still acts on could touch its
/// next transaction.
pub fn an_unanswered_commit(
    log: &Arc<dyn Log>,
    name: &str,
    disturb: &dyn Fn(),
    mend: &dyn Fn(),
) -> bool {
    let case = Case {
        log,
        name: format!("unanswered-{name}-{}", std::process::id()),
    };
    let (input, output) = (case.topic("in", 1), case.topic("out", 1));
    case.fill(&input, 10);
    let at = TopicPartition::new(input.as_str(), 0);
    let mut consumer = case.consumer(&[&input], None, GroupProtocol::Range);
    let records = take(consumer.as_mut(), 10);
    let generation = consumer.generation().expect("a generation");
    let write =
        |producer: &mut dyn Producer, generation: &GroupGeneration| -> Result<(), LogError> {
            producer.begin()?;
            records
                .iter()
                .for_each(|r| send(producer, &output, "k", &text(r.value.as_deref())));
            producer.flush()?;
            producer.send_offsets(&ends(&records), generation)
        };
    let mut producer = case.transactional("p");
    write(producer.as_mut(), &generation).expect("written");
    disturb();
    let unanswered = producer.commit();
    assert!(
        matches!(unanswered, Err(LogError::Fatal(_))),
        "{unanswered:?}"
    );
    let retried = [producer.commit(), producer.abort(), producer.begin()];
    assert!(
        retried
            .iter()
            .all(|r| matches!(r, Err(LogError::Fatal(_) | LogError::Fenced(_)))),
        "the producer lets a commit be tried again: {retried:?}"
    );
    mend();
    drop(producer);
    let mut producer = case.transactional("p");
    let committed = consumer
        .committed(std::slice::from_ref(&at))
        .expect("committed");
    let happened = committed.get(&at) == Some(&10);
    if !happened {
        assert_eq!(committed.get(&at), None, "all of it or nothing");
        // The member may have to join again first.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let _ = consumer.poll(0, WAIT, &mut Vec::new());
            let generation = consumer.generation().expect("a generation");
            let done = write(producer.as_mut(), &generation).and_then(|()| producer.commit());
            let Err(error) = done else { break };
            assert!(Instant::now() < deadline, "{error}");
            if producer.abort().is_err() {
                producer = case.transactional("p");
            }
        }
    }
    assert_eq!(case.values(&output).len(), 10, "each record once");
    happened
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

fn order_holds_for_each_key(case: &Case<'_>) {
    let topic = case.topic("in", 4);
    case.fill(&topic, 2_000);
    let mut consumer = case.consumer(&[&topic], None, GroupProtocol::Range);
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for record in take(consumer.as_mut(), 2_000) {
        let n: usize = text(record.value.as_deref()).parse().expect("a number");
        if let Some(before) = last.insert(text(record.key.as_deref()), n) {
            assert!(before < n, "{before} came before {n}");
        }
        let expected = crossdock::log::partition_for(record.key.as_deref().expect("a key"), 4);
        assert_eq!(
            record.origin.partition, expected,
            "the key decides the partition by murmur2"
        );
    }
}

fn nothing_open_or_aborted_is_visible(case: &Case<'_>) {
    let topic = case.topic("out", 1);
    let mut one = case.transactional("one");
    let mut two = case.transactional("two");
    one.begin().expect("begun");
    send(one.as_mut(), &topic, "k", "open");
    one.flush().expect("flushed");
    two.begin().expect("begun");
    send(two.as_mut(), &topic, "k", "committed behind an open one");
    two.commit().expect("committed");
    let mut consumer = case.consumer(&[&topic], None, GroupProtocol::Range);
    let mut seen = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline && consumer.owned().is_empty() {
        consumer.poll(10, WAIT, &mut seen).expect("polled");
    }
    consumer.poll(10, WAIT, &mut seen).expect("polled");
    assert!(
        seen.is_empty(),
        "records at or behind an open transaction: {seen:?}"
    );
    one.abort().expect("aborted");
    let seen = take(consumer.as_mut(), 1);
    assert_eq!(
        text(seen[0].value.as_deref()),
        "committed behind an open one"
    );
    assert_eq!(case.values(&topic), ["committed behind an open one"]);
}

fn offsets_and_outputs_commit_together_or_not_at_all(case: &Case<'_>) {
    let (input, output) = (case.topic("in", 1), case.topic("out", 1));
    case.fill(&input, 10);
    let at = TopicPartition::new(input.as_str(), 0);
    let mut consumer = case.consumer(&[&input], None, GroupProtocol::Range);
    let records = take(consumer.as_mut(), 10);
    let generation = consumer.generation().expect("a generation");
    let mut producer = case.transactional("p");
    for (commit, expected) in [(false, None), (true, Some(10))] {
        producer.begin().expect("begun");
        records
            .iter()
            .for_each(|r| send(producer.as_mut(), &output, "k", &text(r.value.as_deref())));
        producer.flush().expect("flushed");
        producer
            .send_offsets(&ends(&records), &generation)
            .expect("offsets");
        if commit {
            producer.commit()
        } else {
            producer.abort()
        }
        .expect("ended");
        let committed = consumer
            .committed(std::slice::from_ref(&at))
            .expect("committed");
        assert_eq!(committed.get(&at).copied(), expected);
        assert_eq!(case.values(&output).len(), expected.map_or(0, |_| 10));
    }
    let told = case
        .log
        .admin()
        .group_offsets(&case.name, std::slice::from_ref(&at))
        .expect("told");
    assert_eq!(told.get(&at), Some(&10));
}

fn a_newer_producer_fences_the_old(case: &Case<'_>) {
    let topic = case.topic("out", 1);
    let mut old = case.transactional("same");
    old.begin().expect("begun");
    send(old.as_mut(), &topic, "k", "zombie");
    let _ = old.flush();
    let mut new = case.transactional("same");
    assert!(old.commit().is_err(), "the old producer committed");
    new.begin().expect("begun");
    send(new.as_mut(), &topic, "k", "new");
    new.commit().expect("committed");
    assert_eq!(case.values(&topic), ["new"]);
}

fn a_batch_of_an_older_generation_cannot_commit(case: &Case<'_>) {
    let (input, output) = (case.topic("in", 2), case.topic("out", 1));
    case.fill(&input, 40);
    let mut one = case.consumer(&[&input], None, GroupProtocol::Range);
    let records = take(one.as_mut(), 40);
    let generation = one.generation().expect("a generation");
    let mut two = case.consumer(&[&input], None, GroupProtocol::Range);
    own(&mut [&mut one, &mut two], &[1, 1]);
    let mut producer = case.transactional("p");
    producer.begin().expect("begun");
    send(producer.as_mut(), &output, "k", "stale");
    producer.flush().expect("flushed");
    let result = producer
        .send_offsets(&ends(&records), &generation)
        .and_then(|()| producer.commit());
    assert!(
        matches!(
            result,
            Err(LogError::Abort(_) | LogError::Fenced(_) | LogError::Fatal(_))
        ),
        "{result:?}"
    );
    let _ = producer.abort();
    drop(producer);
    drop(case.transactional("p"));
    assert!(case.values(&output).is_empty());
}

fn an_abandoned_transaction_ends_when_its_id_returns(case: &Case<'_>) {
    let topic = case.topic("out", 1);
    let mut abandoned = case.transactional("p");
    abandoned.begin().expect("begun");
    send(abandoned.as_mut(), &topic, "k", "abandoned");
    abandoned.flush().expect("flushed");
    std::mem::forget(abandoned);
    let mut successor = case.transactional("p");
    successor.begin().expect("begun");
    send(successor.as_mut(), &topic, "k", "next");
    successor.commit().expect("committed");
    assert_eq!(case.values(&topic), ["next"]);
}

/// A consume-transform-produce loop that is right about rebalances.
struct Loop<'a> {
    case: &'a Case<'a>,
    consumer: Box<dyn Consumer>,
    producer: Option<Box<dyn Producer>>,
    id: String,
    held: Vec<Record>,
    generation: Option<crossdock::log::GroupGeneration>,
}

impl<'a> Loop<'a> {
    fn new(case: &'a Case<'a>, input: &str, id: usize, protocol: GroupProtocol) -> Self {
        let consumer = case.consumer(&[input], None, protocol);
        Loop {
            case,
            consumer,
            producer: None,
            id: format!("loop-{id}"),
            held: Vec::new(),
            generation: None,
        }
    }

    /// Reads a little; commits what it holds when there is enough of it.
    fn step(&mut self, output: &str, commit: bool) {
        let mut fresh = Vec::new();
        let changes = self
            .consumer
            .poll(50, Duration::from_millis(5), &mut fresh)
            .expect("polled");
        let changed = changes.iter().any(|c| !matches!(c, Assignment::Gained(_)));
        if changed {
            let dropped = std::mem::take(&mut self.held);
            self.seek_back(&dropped);
            self.generation = None;
        }
        if self.generation.is_none() && !fresh.is_empty() {
            self.generation = Some(self.consumer.generation().expect("a generation"));
        }
        self.held.append(&mut fresh);
        if !commit || self.held.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.held);
        let taken = self.generation.take();
        let Some(generation) = taken else { return };
        let mut producer = self
            .producer
            .take()
            .unwrap_or_else(|| self.case.transactional(&self.id));
        producer.begin().expect("begun");
        batch
            .iter()
            .for_each(|r| send(producer.as_mut(), output, "k", &text(r.value.as_deref())));
        let result = producer
            .flush()
            .and_then(|()| producer.send_offsets(&ends(&batch), &generation))
            .and_then(|()| producer.commit());
        match result {
            Ok(()) => self.producer = Some(producer),
            Err(_) => {
                if producer.abort().is_ok() {
                    self.producer = Some(producer);
                }
                self.seek_back(&batch);
            }
        }
    }

    fn seek_back(&mut self, records: &[Record]) {
        let owned = self.consumer.owned();
        let mut starts = Offsets::new();
        for r in records {
            let at = TopicPartition {
                topic: r.origin.topic.clone(),
                partition: r.origin.partition,
            };
            let start = starts.entry(at).or_insert(r.origin.offset);
            *start = (*start).min(r.origin.offset);
        }
        for (at, offset) in starts.into_iter().filter(|(at, _)| owned.contains(at)) {
            self.consumer.seek(&at, offset).expect("sought");
        }
    }
}

/// Runs loops that come and go in the middle of batches until all input is committed; gives the
/// outputs.
fn through_rebalances(case: &Case<'_>, protocol: GroupProtocol) -> Vec<usize> {
    let (input, output) = (case.topic("in", 6), case.topic("out", 1));
    case.fill(&input, RECORDS);
    let partitions: Vec<_> = (0..6)
        .map(|p| TopicPartition::new(input.as_str(), p))
        .collect();
    let total: i64 = partitions
        .iter()
        .map(|p| case.log.admin().watermarks(p).expect("watermarks").1)
        .sum();
    let mut loops = vec![Loop::new(case, &input, 0, protocol)];
    let deadline = Instant::now() + Duration::from_secs(90);
    for round in 1usize.. {
        if round.is_multiple_of(25) && round < 250 {
            if loops.len() < 3 {
                loops.push(Loop::new(case, &input, round, protocol));
            } else {
                loops.remove(0);
            }
        }
        for (index, l) in loops.iter_mut().enumerate() {
            l.step(&output, (round + index).is_multiple_of(4));
        }
        if round > 250 && round.is_multiple_of(10) {
            let committed = case
                .log
                .admin()
                .group_offsets(&case.name, &partitions)
                .expect("offsets");
            if committed.values().sum::<i64>() == total {
                break;
            }
        }
        assert!(
            Instant::now() < deadline,
            "the input was never committed whole"
        );
    }
    drop(loops);
    let mut outputs: Vec<usize> = case
        .values(&output)
        .iter()
        .map(|v| v.parse().expect("a number"))
        .collect();
    outputs.sort_unstable();
    outputs
}

fn each_record_counts_once_through_rebalances(case: &Case<'_>) {
    let outputs = through_rebalances(case, GroupProtocol::Range);
    assert_eq!(outputs, (0..RECORDS).collect::<Vec<_>>());
}

fn each_record_counts_once_in_a_cooperative_group(case: &Case<'_>) {
    let outputs = through_rebalances(case, GroupProtocol::CooperativeSticky);
    assert_eq!(outputs, (0..RECORDS).collect::<Vec<_>>());
}

/// What a loop does that asks for the generation when it commits: its batch, read before a
/// rebalance, commits under the generation after it, and the new owner does the work again.
fn a_loop_that_ignores_rebalances_is_found_out(case: &Case<'_>) {
    let (input, output) = (case.topic("in", 2), case.topic("out", 1));
    case.fill(&input, 40);
    let mut naive = case.consumer(&[&input], None, GroupProtocol::Range);
    let batch = take(naive.as_mut(), 40);
    let mut other = case.consumer(&[&input], None, GroupProtocol::Range);
    // The newcomer's partition begins at the committed offset: none.
    own(&mut [&mut naive, &mut other], &[1, 1]);
    let moved = other.owned()[0].clone();
    let theirs = batch
        .iter()
        .filter(|r| r.origin.partition == moved.partition)
        .count();
    let mut producer = case.transactional("naive");
    producer.begin().expect("begun");
    batch
        .iter()
        .for_each(|r| send(producer.as_mut(), &output, "k", &text(r.value.as_deref())));
    producer.flush().expect("flushed");
    let generation = naive.generation().expect("a generation");
    producer
        .send_offsets(&ends(&batch), &generation)
        .expect("the present generation is accepted");
    producer.commit().expect("committed");
    other.seek(&moved, 0).expect("sought");
    let again = take(other.as_mut(), theirs);
    let mut producer = case.transactional("other");
    producer.begin().expect("begun");
    again
        .iter()
        .for_each(|r| send(producer.as_mut(), &output, "k", &text(r.value.as_deref())));
    producer.flush().expect("flushed");
    producer
        .send_offsets(&ends(&again), &other.generation().expect("a generation"))
        .expect("offsets");
    producer.commit().expect("committed");
    assert_eq!(
        case.values(&output).len(),
        40 + theirs,
        "the suite would not notice a loop that ignores rebalances"
    );
}

/// What a loop does that, after a commit whose answer it did not see, does the work again without
/// asking the log.
fn a_loop_that_forgets_what_it_committed_is_found_out(case: &Case<'_>) {
    let (input, output) = (case.topic("in", 1), case.topic("out", 1));
    case.fill(&input, 10);
    let mut consumer = case.consumer(&[&input], None, GroupProtocol::Range);
    let records = take(consumer.as_mut(), 10);
    let generation = consumer.generation().expect("a generation");
    for _ in 0..2 {
        let mut producer = case.transactional("naive");
        producer.begin().expect("begun");
        records
            .iter()
            .for_each(|r| send(producer.as_mut(), &output, "k", &text(r.value.as_deref())));
        producer.flush().expect("flushed");
        producer
            .send_offsets(&ends(&records), &generation)
            .expect("the log takes the same offsets twice");
        producer.commit().expect("committed");
    }
    assert_eq!(
        case.values(&output).len(),
        20,
        "the suite would not notice a loop that does its work again"
    );
}

fn seek_and_pause_do_what_they_say(case: &Case<'_>) {
    let topic = case.topic("in", 1);
    case.fill(&topic, 20);
    let at = TopicPartition::new(topic.as_str(), 0);
    let mut consumer = case.consumer(&[&topic], None, GroupProtocol::Range);
    take(consumer.as_mut(), 20);
    consumer.seek(&at, 15).expect("sought");
    let again = take(consumer.as_mut(), 5);
    assert_eq!(
        again.iter().map(|r| r.origin.offset).collect::<Vec<_>>(),
        (15..20).collect::<Vec<_>>()
    );
    consumer.pause(std::slice::from_ref(&at)).expect("paused");
    consumer.seek(&at, 0).expect("sought");
    let mut seen = Vec::new();
    consumer
        .poll(10, Duration::from_millis(300), &mut seen)
        .expect("polled");
    assert!(seen.is_empty(), "a paused partition gave {seen:?}");
    consumer.resume(std::slice::from_ref(&at)).expect("resumed");
    assert_eq!(take(consumer.as_mut(), 1)[0].origin.offset, 0);
}

fn keys_headers_tombstones_and_times_survive(case: &Case<'_>) {
    let topic = case.topic("in", 1);
    let at = now_ms() - 1_234;
    let mut producer = case.plain();
    let pairs: [(&str, Option<&[u8]>); 3] = [("a", Some(b"1")), ("b", None), ("a", Some(b""))];
    let headers: Headers = pairs.into_iter().collect();
    let none = Headers::default();
    for (key, value, headers) in [
        (Some(&b"k"[..]), None, &headers),
        (None, Some(&b"v"[..]), &none),
        (Some(b"k"), Some(b""), &none),
    ] {
        producer
            .send(Outgoing {
                topic: &topic,
                partition: Some(0),
                key,
                value,
                headers,
                timestamp_ms: at,
            })
            .expect("sent");
    }
    producer.flush().expect("flushed");
    let records = case.read(&topic);
    assert_eq!(records[0].value, None, "a tombstone");
    assert_eq!(records[0].headers.iter().collect::<Vec<_>>(), pairs);
    assert_eq!(records[0].timestamp_ms, at);
    assert_eq!(records[1].key, None);
    assert_eq!(
        records[2].value.as_deref(),
        Some(&b""[..]),
        "an empty value is no tombstone"
    );
}

fn a_record_that_is_too_large_is_refused(case: &Case<'_>) {
    let name = format!("{}-small", case.name);
    let settings = BTreeMap::from([("max.message.bytes".to_owned(), "20000".to_owned())]);
    case.log
        .admin()
        .create(&TopicSpec {
            name: name.clone(),
            partitions: 1,
            replication: 1,
            settings,
        })
        .expect("created");
    // What cannot be compressed: the limit counts bytes as they are sent.
    let mut noise = vec![0; 60_000];
    rand::Rng::fill_bytes(&mut rand::rngs::StdRng::seed_from_u64(1), &mut noise);
    let mut producer = case.transactional("p");
    producer.begin().expect("begun");
    let headers = Headers::default();
    let record = Outgoing {
        topic: &name,
        partition: None,
        key: Some(b"k"),
        value: Some(&noise),
        headers: &headers,
        timestamp_ms: now_ms(),
    };
    let refused = producer
        .send(record)
        .and_then(|()| producer.flush())
        .and_then(|()| producer.commit());
    assert!(refused.is_err(), "too large, and taken");
    let _ = producer.abort();
    assert!(case.values(&name).is_empty());
}

fn a_reader_catches_up_over_markers_and_aborts(case: &Case<'_>) {
    let topic = case.topic("out", 1);
    assert!(
        case.values(&topic).is_empty(),
        "an empty topic is read at once"
    );
    let mut producer = case.transactional("p");
    for (value, commit) in [("kept", true), ("dropped", false)] {
        producer.begin().expect("begun");
        send(producer.as_mut(), &topic, "k", value);
        producer.flush().expect("flushed");
        if commit {
            producer.commit()
        } else {
            producer.abort()
        }
        .expect("ended");
    }
    let at = TopicPartition::new(topic.as_str(), 0);
    assert_eq!(case.values(&topic), ["kept"]);
    let (_, end) = case.log.admin().watermarks(&at).expect("watermarks");
    assert_eq!(end, 4, "two records and two markers");
    let mut reader = case
        .log
        .reader(&[(at.clone(), Offset::Beginning)], Isolation::ReadCommitted)
        .expect("a reader");
    let deadline = Instant::now() + PATIENCE;
    while !reader.caught_up() {
        assert!(Instant::now() < deadline);
        reader.poll(10, WAIT, &mut Vec::new()).expect("read");
    }
    assert_eq!(reader.position(&at), Some(4), "behind the last marker");
}

fn a_static_member_returns_to_its_partitions(case: &Case<'_>) {
    let topic = case.topic("in", 4);
    let mut one = case.consumer(&[&topic], Some("one"), GroupProtocol::Range);
    let mut two = case.consumer(&[&topic], Some("two"), GroupProtocol::Range);
    own(&mut [&mut one, &mut two], &[2, 2]);
    let before = two.owned();
    drop(two);
    let mut seen = Vec::new();
    one.poll(0, Duration::from_millis(300), &mut seen)
        .expect("polled");
    assert_eq!(
        one.owned().len(),
        2,
        "the partitions of a static member wait for it"
    );
    let mut two = case.consumer(&[&topic], Some("two"), GroupProtocol::Range);
    own(&mut [&mut one, &mut two], &[2, 2]);
    assert_eq!(two.owned(), before);
}

fn a_static_member_that_is_replaced_is_told(case: &Case<'_>) {
    let topic = case.topic("in", 2);
    let mut former = case.consumer(&[&topic], Some("same"), GroupProtocol::Range);
    own(&mut [&mut former], &[2]);
    let mut present = case.consumer(&[&topic], Some("same"), GroupProtocol::Range);
    let deadline = Instant::now() + PATIENCE;
    let told = loop {
        assert!(
            Instant::now() < deadline,
            "the former member was never told"
        );
        present.poll(0, WAIT, &mut Vec::new()).expect("polled");
        if let Err(error) = former.poll(0, WAIT, &mut Vec::new()) {
            break error;
        }
    };
    assert!(matches!(told, LogError::Replaced(_)), "{told:?}");
    let again = former.poll(0, WAIT, &mut Vec::new());
    assert!(matches!(again, Err(LogError::Replaced(_))), "{again:?}");
    own(&mut [&mut present], &[2]);
}

fn a_member_without_partitions_knows_that_it_has_joined(case: &Case<'_>) {
    let topic = case.topic("in", 1);
    let mut one = case.consumer(&[&topic], None, GroupProtocol::Range);
    assert!(!one.is_joined(), "before the first poll");
    own(&mut [&mut one], &[1]);
    let mut two = case.consumer(&[&topic], None, GroupProtocol::Range);
    let deadline = Instant::now() + PATIENCE;
    loop {
        for consumer in [&mut one, &mut two] {
            consumer
                .poll(0, Duration::from_millis(20), &mut Vec::new())
                .expect("polled");
        }
        if one.is_joined() && two.is_joined() && one.owned().len() + two.owned().len() == 1 {
            return;
        }
        assert!(Instant::now() < deadline, "the group never formed");
    }
}

/// Every key's last value stays, tombstones among them, and what they replaced goes.
fn compaction_keeps_the_last_value_of_each_key(case: &Case<'_>) {
    let name = format!("{}-compacted", case.name);
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("segment.ms", "200"),
        ("segment.bytes", "1048576"),
        ("delete.retention.ms", "86400000"),
    ];
    case.log
        .admin()
        .create(&TopicSpec {
            name: name.clone(),
            partitions: 1,
            replication: 1,
            settings: settings.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        })
        .expect("created");
    const KEYS: usize = 50;
    let mut producer = case.transactional("p");
    let mut expected: BTreeMap<String, Option<String>> = BTreeMap::new();
    let headers = Headers::default();
    for (round, commit) in [(0, true), (1, true), (2, false), (3, true)] {
        producer.begin().expect("begun");
        for key in 0..KEYS {
            let name_of_key = format!("key-{key}");
            // A fifth of the keys end as tombstones.
            let value = (round < 3 || key % 5 > 0).then(|| format!("{key} in round {round}"));
            producer
                .send(Outgoing {
                    topic: &name,
                    partition: Some(0),
                    key: Some(name_of_key.as_bytes()),
                    value: value.as_deref().map(str::as_bytes),
                    headers: &headers,
                    timestamp_ms: now_ms(),
                })
                .expect("sent");
            if commit {
                expected.insert(name_of_key, value);
            }
        }
        producer.flush().expect("flushed");
        if commit {
            producer.commit()
        } else {
            producer.abort()
        }
        .expect("ended");
    }
    // A little traffic: what was written last is not compacted.
    let mut filler = vec![0; 100_000];
    rand::Rng::fill_bytes(&mut rand::rngs::StdRng::seed_from_u64(2), &mut filler);
    let mut traffic = case.plain();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        traffic
            .send(Outgoing {
                topic: &name,
                partition: Some(0),
                key: Some(b"filler"),
                value: Some(&filler),
                headers: &headers,
                timestamp_ms: now_ms(),
            })
            .expect("sent");
        traffic.flush().expect("flushed");
        let records = case.read(&name);
        let of_keys = || {
            records
                .iter()
                .filter(|r| r.key.as_deref() != Some(b"filler"))
        };
        let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
        for record in of_keys() {
            let value = record.value.as_deref().map(|v| text(Some(v)));
            found.insert(text(record.key.as_deref()), value);
        }
        assert_eq!(found, expected, "the last value of each key, at any time");
        if of_keys().count() == KEYS {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{} records are left",
            of_keys().count()
        );
    }
}

fn a_topic_with_a_limit_drops_its_oldest_records(case: &Case<'_>) {
    const LIMIT: usize = 2 << 20;
    let name = format!("{}-limited", case.name);
    let settings = [
        ("retention.bytes", LIMIT.to_string()),
        ("segment.bytes", "1048576".into()),
    ];
    case.log
        .admin()
        .create(&TopicSpec {
            name: name.clone(),
            partitions: 1,
            replication: 1,
            settings: settings.map(|(k, v)| (k.to_owned(), v)).into(),
        })
        .expect("created");
    let mut noise = vec![0; 60_000];
    rand::Rng::fill_bytes(&mut rand::rngs::StdRng::seed_from_u64(3), &mut noise);
    let at = TopicPartition::new(name.as_str(), 0);
    let mut producer = case.plain();
    let headers = Headers::default();
    for n in 0..200u64 {
        let record = Outgoing {
            topic: &name,
            partition: Some(0),
            key: Some(&n.to_be_bytes()),
            value: Some(&noise),
            headers: &headers,
            timestamp_ms: now_ms(),
        };
        producer.send(record).expect("sent");
        producer.flush().expect("flushed");
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (first, end) = case.log.admin().watermarks(&at).expect("watermarks");
        assert_eq!(end, 200, "no offset is used twice");
        let kept = (end - first) as usize * noise.len();
        // A log may drop whole segments only, and keeps the one being written.
        if kept <= LIMIT + (2 << 20) {
            let records = case.read(&name);
            // More may have been dropped meanwhile.
            assert!(records.first().is_some_and(|r| r.origin.offset >= first));
            assert_eq!(records.last().map(|r| r.origin.offset), Some(199));
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{kept} bytes are kept, {LIMIT} are allowed"
        );
        std::thread::sleep(WAIT);
    }
}

fn topics_are_made_changed_and_told(case: &Case<'_>) {
    let name = case.topic("t", 3);
    let settings =
        |retention: &str| BTreeMap::from([("retention.ms".to_owned(), retention.to_owned())]);
    case.log
        .admin()
        .alter(&name, &settings("60000"))
        .expect("altered");
    let kept = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
    case.log.admin().alter(&name, &kept).expect("altered");
    let topics = case.log.admin().topics().expect("topics");
    let found = topics.iter().find(|t| t.name == name).expect("told of");
    assert_eq!((found.partitions, found.replication), (3, 1));
    assert_eq!(
        found.settings.get("retention.ms").map(String::as_str),
        Some("60000"),
        "other settings stay"
    );
    assert!(case.log.admin().create(found).is_err(), "made twice");
}
