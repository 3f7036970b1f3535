//! Transactions: what is open or aborted is not seen, and what belongs together commits together.

use super::{Case, PATIENCE, WAIT, ends, own, send, take, text};
use crossdock::log::{GroupGeneration, GroupProtocol, Log, LogError, Producer, TopicPartition};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

pub(super) fn nothing_open_or_aborted_is_visible(case: &Case<'_>) {
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

pub(super) fn offsets_and_outputs_commit_together_or_not_at_all(case: &Case<'_>) {
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

pub(super) fn a_newer_producer_fences_the_old(case: &Case<'_>) {
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

pub(super) fn a_batch_of_an_older_generation_cannot_commit(case: &Case<'_>) {
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

pub(super) fn an_abandoned_transaction_ends_when_its_id_returns(case: &Case<'_>) {
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
