//! Consume-transform-produce loops through rebalances: what a right one keeps, what a wrong one loses.

use super::{Case, RECORDS, ends, own, send, take, text};
use crossdock::log::{Assignment, Consumer, GroupProtocol, Log, Offsets, Producer, TopicPartition};
use crossdock::pipeline::Record;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Runs loops that come and go in the middle of batches until all input is committed; gives the
/// outputs.
pub(super) fn through_rebalances(case: &Case<'_>, protocol: GroupProtocol) -> Vec<usize> {
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

pub(super) fn each_record_counts_once_through_rebalances(case: &Case<'_>) {
    let outputs = through_rebalances(case, GroupProtocol::Range);
    assert_eq!(outputs, (0..RECORDS).collect::<Vec<_>>());
}

pub(super) fn each_record_counts_once_in_a_cooperative_group(case: &Case<'_>) {
    let outputs = through_rebalances(case, GroupProtocol::CooperativeSticky);
    assert_eq!(outputs, (0..RECORDS).collect::<Vec<_>>());
}

/// What a loop does that asks for the generation when it commits: its batch, read before a
/// rebalance, commits under the generation after it, and the new owner does the work again.
pub(super) fn a_loop_that_ignores_rebalances_is_found_out(case: &Case<'_>) {
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
pub(super) fn a_loop_that_forgets_what_it_committed_is_found_out(case: &Case<'_>) {
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
