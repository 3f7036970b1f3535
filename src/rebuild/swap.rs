//! Writing what was rebuilt behind what the changelog holds, as the owner of the partitions.
//!
//! It is done as a member of the group that owns the partition, under the group's generation and in one
//! transaction for each partition: an instance that takes the partition over meanwhile takes the right away,
//! the broker refuses the commit, and nothing of it was done. What is swapped is compared once more by its
//! owner, for whom nothing moves; the offsets of the group stay what they are, so no record is lost or read
//! twice. A run that is killed has done whole partitions or nothing.

use super::compare::{Comparison, Difference};
use super::{Refusal, Subject};
use crate::contract::event::{Audit, Text};
use crate::contract::topic;
use crate::desk;
use crate::dlq::Actor;
use crate::domain::{Timestamp, compound_key};
use crate::log::{
    Consumer, GroupProtocol, GroupSpec, Isolation, LogError, Offsets, Outgoing, Producer,
    ProducerSpec, TopicPartition,
};
use crate::pipeline::{Fault, Headers};
use serde::Serialize;
use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

const SOURCE: &str = "crossdock/rebuild";
/// What the audit says was done.
const ACTION: &str = "rebuild.swap";
/// A transaction that is open for longer is aborted by the broker.
const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(120);
const LINGER: Duration = Duration::from_millis(5);
/// Keys that an audit record names.
const NAMED_KEYS: usize = 20;
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(300);
/// One wait for partitions.
const JOIN_WAIT: Duration = Duration::from_millis(100);

/// What was done about one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Swapped {
    /// Partition number.
    pub partition: i32,
    /// Entries that were put right.
    pub entries: u64,
}

/// Takes the place of the group's members in these partitions, compares again, and puts right what differs.
/// `rounds` bounds the waits, of a tenth of a second each, for the partitions. Each partition is told of
/// when it is done.
///
/// # Errors
/// When the log or the registry does not answer; partitions that were told of are done. Within: why it
/// cannot be done, above all that instances run, or that one has started meanwhile.
#[allow(
    clippy::too_many_arguments,
    reason = "each says something of its own about one run"
)]
pub fn swap(
    subject: &Subject<'_>,
    numbers: &[i32],
    actor: &Actor,
    now: &dyn Fn() -> Timestamp,
    rounds: u32,
    examples: usize,
    told: &mut dyn FnMut(&Comparison, &Swapped),
) -> Result<Result<(), Refusal>, Fault> {
    let inputs = subject.processor.descriptor.inputs.iter();
    let mut consumer = subject.log.consumer(&GroupSpec {
        group: subject.group(),
        member: None,
        topics: inputs.map(|topic| Arc::from(*topic)).collect(),
        protocol: GroupProtocol::Range,
        session_timeout: SESSION_TIMEOUT,
        max_poll_interval: POLL_INTERVAL_MAX,
        isolation: Isolation::ReadCommitted,
    })?;
    let wanted: Vec<TopicPartition> = numbers.iter().flat_map(|n| subject.inputs(*n)).collect();
    if let Err(refusal) = join(consumer.as_mut(), &wanted, subject.name(), rounds)? {
        return Ok(Err(refusal));
    }
    let mut producer = subject.log.producer(&ProducerSpec {
        transactional_id: Some(format!(
            "{}-{}-rebuild",
            subject.application,
            subject.name()
        )),
        transaction_timeout: TRANSACTION_TIME_MAX,
        linger: LINGER,
    })?;
    for number in numbers {
        let mut owner = Owner {
            subject,
            consumer: consumer.as_mut(),
            producer: producer.as_mut(),
        };
        match owner.swap(*number, actor, now, examples) {
            Ok((comparison, swapped)) => told(&comparison, &swapped),
            Err(fault) if is_taken_over(&fault) || stay(consumer.as_mut()).is_err() => {
                return Ok(Err(Refusal(format!(
                    "partition {number} was not swapped: an instance of {} has started meanwhile and owns it ({}). What was told is done; stop the instances and swap again",
                    subject.name(),
                    fault.message
                ))));
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(Ok(()))
}

/// Whether a fault says that somebody else has the partitions.
fn is_taken_over(fault: &Fault) -> bool {
    let cause = fault.source.as_ref();
    let cause = cause.and_then(|c| c.downcast_ref::<LogError>());
    matches!(cause, Some(LogError::Fenced(_)))
}

/// Waits until the wanted partitions are this member's, and reads nothing of them.
fn join(
    consumer: &mut dyn Consumer,
    wanted: &[TopicPartition],
    name: &str,
    rounds: u32,
) -> Result<Result<(), Refusal>, Fault> {
    let missing = |owned: &[TopicPartition]| {
        let missing = wanted.iter().filter(|p| !owned.contains(p));
        missing.cloned().collect::<Vec<_>>()
    };
    for _ in 0..rounds {
        let owned = consumer.owned();
        consumer.pause(&owned)?;
        if missing(&owned).is_empty() {
            return Ok(Ok(()));
        }
        consumer.poll(1, JOIN_WAIT, &mut Vec::new())?;
    }
    let others = missing(&consumer.owned());
    let numbers: BTreeSet<String> = others.iter().map(|p| p.partition.to_string()).collect();
    let numbers = numbers.into_iter().collect::<Vec<_>>().join(", ");
    Ok(Err(Refusal(format!(
        "nothing was swapped: instances of {name} run and own its partitions {numbers}. Stop them for as long as the swap takes (a moment more than the comparison took), swap, and start them again; what comes meanwhile waits in its topics. One that was killed counts as running until its session is over, {SESSION_TIMEOUT:?}"
    ))))
}

/// A group member that owns the partitions.
struct Owner<'a> {
    subject: &'a Subject<'a>,
    consumer: &'a mut dyn Consumer,
    producer: &'a mut dyn Producer,
}

impl Owner<'_> {
    fn swap(
        &mut self,
        number: i32,
        actor: &Actor,
        now: &dyn Fn() -> Timestamp,
        examples: usize,
    ) -> Result<(Comparison, Swapped), Fault> {
        // Whoever joins from here on takes the generation away, and the commit fails.
        let generation = self.consumer.generation()?;
        let offsets = self.positions(number)?;
        let consumer = &mut *self.consumer;
        let mut both = self.subject.rebuild(number, &mut || stay(consumer))?;
        let at = now();
        let (changelog, producer) = (self.subject.changelog(number), &mut *self.producer);
        let (mut entries, mut named) = (0, BTreeSet::new());
        let compared = both.compare(examples, &mut |difference| {
            if entries == 0 {
                producer.begin()?;
            }
            entries += 1;
            if named.len() <= NAMED_KEYS {
                named.insert(difference.entity());
            }
            write(producer, &changelog, difference, at)
        });
        let swapped = Swapped {
            partition: number,
            entries,
        };
        if entries == 0 {
            return Ok((compared?, swapped));
        }
        let committed = compared.and_then(|comparison| {
            self.audit(&changelog, entries, &named, actor, at)?;
            self.producer.flush()?;
            stay(self.consumer)?;
            self.producer.send_offsets(&offsets, &generation)?;
            self.producer.commit()?;
            Ok(comparison)
        });
        if committed.is_err() {
            // The next producer settles what cannot be aborted.
            let _ = self.producer.abort();
        }
        Ok((committed?, swapped))
    }

    /// Where the group stands, which stays so.
    fn positions(&self, number: i32) -> Result<Offsets, Fault> {
        let inputs: Vec<TopicPartition> = self.subject.inputs(number).collect();
        let mut offsets = self.consumer.committed(&inputs)?;
        for at in inputs {
            if let Entry::Vacant(missing) = offsets.entry(at) {
                let (first, _) = self.subject.log.admin().watermarks(missing.key())?;
                missing.insert(first);
            }
        }
        Ok(offsets)
    }

    fn audit(
        &mut self,
        changelog: &TopicPartition,
        entries: u64,
        named: &BTreeSet<String>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let more = if named.len() > NAMED_KEYS {
            ", …"
        } else {
            ""
        };
        let keys: Vec<&str> = named.iter().take(NAMED_KEYS).map(String::as_str).collect();
        let place = changelog.to_string();
        let record = Audit {
            meta: desk::meta(SOURCE, "Audit", &format!("{place}#{ACTION}@{}", now.0), now),
            actor: actor.name.as_str().into(),
            action: ACTION.into(),
            target: place.as_str().into(),
            reason: actor.reason.as_deref().map(Text::from),
            before: None,
            after: Some(
                format!("{entries} entries put right, of {}{more}", keys.join(", ")).into(),
            ),
            outcome: "DONE".into(),
        };
        let key = compound_key(&["rebuild", self.subject.name()]);
        let to = (topic::OPS_AUDIT, None);
        desk::send_event(
            self.subject.codec,
            self.producer,
            to,
            &key,
            &record.into(),
            now,
        )
    }
}

/// Stays a member of the group, or says that the group went on without it.
fn stay(consumer: &mut dyn Consumer) -> Result<(), Fault> {
    let changes = consumer.poll(0, Duration::ZERO, &mut Vec::new())?;
    if changes.is_empty() {
        return Ok(());
    }
    Err(LogError::Fenced("the group has shared its partitions out anew".into()).into())
}

fn write(
    producer: &mut dyn Producer,
    changelog: &TopicPartition,
    difference: &Difference,
    now: Timestamp,
) -> Result<(), Fault> {
    desk::send(
        producer,
        Outgoing {
            topic: &changelog.topic,
            partition: Some(changelog.partition),
            key: Some(&difference.key),
            value: difference.expected.as_deref(),
            headers: &Headers::default(),
            timestamp_ms: now.as_millis(),
        },
    )
}
