//! A sink task: many keys at once, each key in order, offsets committed up to the gap-free point.
//!
//! A record is read, waits behind its key, is written to the target, and is settled. A key of several
//! topics has a line in each, and one call at a time. Receipts of
//! what was sent are written in the next transaction; the outcome of a record is written in the
//! transaction that commits its offset, which is when everything before it is settled too.

mod commit;
mod intake;

use super::Progress;
use super::accounts::Accounts;
use super::backoff::Backoff;
use super::lane::Lane;
use super::outbox::Outbox;
use super::queue::{Queue, Waiting};
use super::settings::{Membership, TaskSettings};
use crate::codec::Codec;
use crate::contract::Catalogue;
use crate::contract::event::{Outcome, SinkOutcome};
use crate::domain::Timestamp;
use crate::log::{Consumer, GroupProtocol, GroupSpec, Isolation, Log, Producer, TopicPartition};
use crate::pipeline::{Ack, Clock, Code, Delivery, Fault, Record, Sink, Stage, Verdict};
use crate::telemetry::Telemetry;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Records taken from the log by one step.
const POLL_RECORDS: usize = 1_000;
/// Records settled behind one that is not, at most: what a stuck key may hold in memory.
const SETTLED_MAX: usize = 200_000;
/// Of these, dead letters, which keep their records.
const DEAD_MAX: usize = 5_000;
/// How often the end looks whether calls have been answered.
const CLOSE_WAIT: Duration = Duration::from_millis(20);
/// How long a record waits for another of its key that has to reach the target first (DOMAIN.md §4,
/// child before parent).
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Failures in a row after which the target counts as unwell and only one call probes it.
const UNWELL_AFTER: u32 = 3;

/// Drives the sink of one connector instance.
pub struct SinkTask {
    name: String,
    sink: Arc<dyn Sink>,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    codec: Arc<Codec>,
    telemetry: Arc<Telemetry>,
    settings: TaskSettings,
    receipts_topic: String,
    consumer: Box<dyn Consumer>,
    producer: Option<Box<dyn Producer>>,
    outbox: Outbox,
    accounts: Accounts,
    backoff: Backoff,
    lanes: BTreeMap<TopicPartition, Lane>,
    /// Owned partitions that have no lane yet.
    awaiting: BTreeSet<TopicPartition>,
    /// The consumer may be past what the lanes have taken in.
    astray: bool,
    /// A transaction's end is not known: only a new producer settles it, and only the log tells.
    unsettled: bool,
    /// The event age last told.
    age: Duration,
    queue: Queue,
    calls: FuturesUnordered<BoxFuture<'static, Finished>>,
    target: Target,
    committed_at: Timestamp,
    scratch: Vec<Record>,
}

/// What is known of the target's health.
#[derive(Default)]
struct Target {
    failures: u32,
    not_before: Timestamp,
}

struct Finished {
    /// Each with the partition, the ownership and the time of its reading.
    deliveries: Vec<((TopicPartition, u64, Timestamp), Delivery)>,
    results: Vec<Result<Ack, Fault>>,
}

impl SinkTask {
    /// Joins the group of the connector instance `name`, which reads `topics`.
    ///
    /// # Errors
    /// When the log cannot be reached.
    #[allow(
        clippy::too_many_arguments,
        reason = "the ports that a task is made of"
    )]
    pub fn new(
        name: &str,
        topics: &[&str],
        sink: Arc<dyn Sink>,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        codec: Arc<Codec>,
        catalogue: &Catalogue,
        telemetry: Arc<Telemetry>,
        settings: TaskSettings,
    ) -> Result<Self, Fault> {
        let protocol = if topics.len() == 1 {
            GroupProtocol::CooperativeSticky
        } else {
            settings.protocol
        };
        let consumer = log.consumer(&GroupSpec {
            group: settings.group(name),
            member: settings.member(name),
            topics: topics.iter().map(|t| Arc::from(*t)).collect(),
            protocol,
            session_timeout: settings.session_timeout,
            max_poll_interval: Duration::from_secs(300),
            isolation: Isolation::ReadCommitted,
        })?;
        telemetry.declare_task(&settings.label(name));
        let whole_state = topics.iter().filter(|t| catalogue.is_compacted(t));
        let whole_state = whole_state.map(|t| Arc::from(*t)).collect();
        Ok(SinkTask {
            outbox: Outbox::new(codec.clone(), catalogue, name),
            receipts_topic: catalogue.receipt_topic(name),
            name: name.to_owned(),
            sink,
            log,
            clock,
            codec,
            telemetry,
            settings,
            consumer,
            producer: None,
            accounts: Accounts::default(),
            backoff: Backoff::default(),
            lanes: BTreeMap::new(),
            awaiting: BTreeSet::new(),
            astray: false,
            unsettled: false,
            age: Duration::ZERO,
            queue: Queue::new(whole_state),
            calls: FuturesUnordered::new(),
            target: Target::default(),
            committed_at: Timestamp::default(),
            scratch: Vec::new(),
        })
    }

    /// Its place in its group.
    pub fn membership(&self) -> Membership {
        self.settings.membership(&self.log, &self.name)
    }

    /// Name of the connector instance.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Records read and not settled.
    pub fn waiting(&self) -> usize {
        self.lanes.values().map(|l| l.open.len()).sum()
    }

    /// When the oldest of them was written.
    pub fn oldest_waiting(&self) -> Option<Timestamp> {
        let oldest = self.lanes.values().filter_map(Lane::oldest_ms).min();
        oldest.map(Timestamp::from_millis)
    }

    /// Reads, writes to the target and commits, a bounded piece of each; waits at most `wait` for
    /// calls under way or new records.
    ///
    /// Not to be dropped half-way: calls under way would be made again.
    ///
    /// # Errors
    /// A retry: the log is unwell. A halt: the target or the configuration must be mended by
    /// somebody; records wait.
    pub async fn step(&mut self, wait: Duration) -> Result<Progress, Fault> {
        // What one part meets does not keep the others from going on.
        let mut first: Option<Fault> = None;
        let mut keep = |fault: Fault| {
            first.get_or_insert(fault);
        };
        let restoring = self.align().unwrap_or_else(|fault| {
            keep(fault);
            None
        });
        let read = self.read().unwrap_or_else(|fault| {
            keep(fault);
            0
        });
        let now = self.clock.now();
        self.queue.wake(now);
        self.dispatch(now);
        let mut finished = Vec::new();
        if !self.calls.is_empty() {
            let clock = self.clock.clone();
            tokio::select! {
                biased;
                done = self.calls.next() => finished.extend(done),
                () = clock.sleep(wait) => {}
            }
            while let Some(Some(done)) = futures::FutureExt::now_or_never(self.calls.next()) {
                finished.push(done);
            }
        } else if read == 0 && restoring.is_none() {
            let wake = self.queue.next_wake();
            self.clock
                .sleep(wait.min(wake.map_or(wait, |at| at.since(now))))
                .await;
        }
        let mut count = read;
        for done in finished {
            count += self.finish(done).unwrap_or_else(|fault| {
                keep(fault);
                0
            });
        }
        if let Err(fault) = self.commit_when_due() {
            keep(fault);
        }
        self.tell_age(None);
        if let Some(fault) = first {
            return Err(fault);
        }
        Ok(match restoring {
            Some((read, total)) => Progress::Restoring { read, total },
            None if self.lanes.is_empty() && self.consumer.is_joined() => Progress::Unassigned,
            None if self.lanes.is_empty() => Progress::Joining,
            None if count > 0 || !self.calls.is_empty() => Progress::Worked(count),
            None => Progress::Idle {
                until: self
                    .queue
                    .next_wake()
                    .map(|at| at.max(self.target.not_before)),
            },
        })
    }

    /// Whether calls are under way.
    pub fn is_calling(&self) -> bool {
        !self.calls.is_empty()
    }

    /// As [`SinkTask::step`] without reading more: for the end, when calls under way are awaited.
    ///
    /// # Errors
    /// As [`SinkTask::step`].
    pub async fn finish_calls(&mut self, wait: Duration) -> Result<(), Fault> {
        if !self.calls.is_empty() {
            let clock = self.clock.clone();
            tokio::select! {
                biased;
                done = self.calls.next() => if let Some(done) = done {
                    self.finish(done)?;
                },
                () = clock.sleep(wait) => {}
            }
        }
        self.commit_when_due()
    }

    /// Ends the task: calls under way are given `limit` to be answered, and what is known is
    /// committed. What waits in the queue is left to whoever reads the partitions next.
    pub async fn close(mut self, limit: Duration) {
        let began = self.clock.now();
        while self.is_calling() && self.clock.now().since(began) < limit {
            if let Err(fault) = self.finish_calls(CLOSE_WAIT).await {
                tracing::warn!(sink = self.name, %fault, "while ending");
            }
        }
        self.calls.clear();
        if let Err(fault) = self.commit_when_due() {
            tracing::warn!(sink = self.name, %fault, "outcomes not committed; the next owner does the work again");
        }
    }

    /// Whether everything read has been settled and committed.
    pub fn is_quiet(&self) -> bool {
        self.awaiting.is_empty() && self.lanes.values().all(Lane::is_quiet)
    }

    /// How long the oldest record has waited: of those not settled, or of those just committed.
    fn tell_age(&mut self, committed_ms: Option<i64>) {
        let open = self.lanes.values().filter_map(Lane::oldest_ms);
        let oldest = open.chain(committed_ms).min();
        let age = oldest.map_or(Duration::ZERO, |ms| {
            self.clock.now().since(Timestamp::from_millis(ms))
        });
        if age != self.age && (committed_ms.is_some() || oldest.is_some() || self.calls.is_empty())
        {
            self.age = age;
            self.telemetry
                .event_age(&self.settings.label(&self.name), age);
        }
    }

    fn dispatch(&mut self, now: Timestamp) {
        let capabilities = self.sink.capabilities();
        let unwell = self.target.failures >= UNWELL_AFTER;
        if now < self.target.not_before {
            return;
        }
        let calls_max = if unwell {
            1
        } else {
            capabilities.calls_max.min(self.settings.calls_max)
        };
        while self.calls.len() < calls_max {
            let mut deliveries = Vec::new();
            while deliveries.len() < capabilities.batch_records_max.max(1) {
                let Some((key, waiting)) = self.queue.pop() else {
                    break;
                };
                let Some(lane) = self.lanes.get_mut(&waiting.partition) else {
                    continue;
                };
                let sent = lane.last_sent(&self.codec, &key);
                let delivery = Delivery {
                    key,
                    inbound: waiting.inbound,
                    sent,
                    attempt: waiting.attempt + 1,
                };
                let read = (waiting.partition, waiting.epoch, waiting.since);
                deliveries.push((read, delivery));
            }
            if deliveries.is_empty() {
                return;
            }
            let sink = self.sink.clone();
            self.calls.push(Box::pin(async move {
                let batch: Vec<Delivery> = deliveries.iter().map(|(_, d)| d.clone()).collect();
                let results = sink.write(&batch).await;
                Finished {
                    deliveries,
                    results,
                }
            }));
        }
    }

    fn finish(&mut self, finished: Finished) -> Result<usize, Fault> {
        let now = self.clock.now();
        let count = finished.deliveries.len();
        if finished.results.len() != count {
            let message = format!(
                "{} answered {} results for {count} records",
                self.name,
                finished.results.len()
            );
            return Err(Fault::halt(Stage::Write, Code::Bug, message));
        }
        let mut halted = None;
        for (((partition, epoch, since), delivery), result) in
            finished.deliveries.into_iter().zip(finished.results)
        {
            let newer = self.queue.done(&partition.topic, &delivery.key, epoch);
            let Some(lane) = self.lanes.get_mut(&partition).filter(|l| l.epoch == epoch) else {
                continue;
            };
            let key = delivery.key.clone();
            let attempt = delivery.attempt;
            let waiting = Waiting {
                partition: partition.clone(),
                epoch,
                inbound: delivery.inbound,
                attempt,
                since,
            };
            match result {
                Ok(ack) => {
                    self.target = Target::default();
                    lane.answered(&self.outbox, &self.name, &key, &waiting, &ack, now);
                    let outcome = match ack.outcome {
                        SinkOutcome::StaleSkipped => Outcome::Superseded,
                        SinkOutcome::DuplicateAcked => Outcome::Duplicate,
                        _ => Outcome::Applied,
                    };
                    self.settle(&waiting, outcome, None);
                }
                Err(fault) => {
                    self.telemetry.fault(&self.name, fault.code);
                    match fault.verdict {
                        Verdict::Retry { .. }
                            if fault.code == Code::TooEarly && now.since(since) >= PATIENCE =>
                        {
                            tracing::warn!(sink = self.name, key = %key, code = %fault.code, cause = fault.message, "record dead-lettered: what it waits for has not come");
                            lane.bury(waiting.inbound.record, fault, attempt);
                        }
                        Verdict::Reject => {
                            self.target = Target::default();
                            let facts = self.sink.refused(&waiting.inbound, &fault);
                            if facts.is_empty() {
                                tracing::warn!(sink = self.name, key = %key, code = %fault.code, cause = fault.message, "record dead-lettered");
                                lane.bury(waiting.inbound.record, fault, attempt);
                            } else {
                                tracing::warn!(sink = self.name, key = %key, code = %fault.code, cause = fault.message, "refused, which is told");
                                lane.refused(&waiting.inbound.record, fault.code.as_str(), facts);
                            }
                        }
                        Verdict::Retry { after } => {
                            // What comes too early says nothing about the target's health.
                            match fault.code {
                                Code::TooEarly => self.target = Target::default(),
                                _ => self.target.failures += 1,
                            }
                            let wait =
                                after.unwrap_or_else(|| self.backoff.wait(key.as_bytes(), attempt));
                            tracing::info!(sink = self.name, key = %key, attempt, wait_ms = wait.as_millis() as u64, code = %fault.code, cause = fault.message, "will try again");
                            if self.target.failures >= UNWELL_AFTER || after.is_some() {
                                self.target.not_before = self.target.not_before.max(now.plus(wait));
                            }
                            if newer {
                                self.settle(
                                    &waiting,
                                    Outcome::Superseded,
                                    Some("a newer record of the key replaced it"),
                                );
                            } else {
                                let urgency = self.sink.urgency(&waiting.inbound);
                                self.queue.delay(key, waiting, now.plus(wait), urgency);
                            }
                        }
                        Verdict::Halt => {
                            let urgency = self.sink.urgency(&waiting.inbound);
                            let wait = self.backoff.longest;
                            self.target.not_before = now.plus(wait);
                            self.queue.delay(key, waiting, now.plus(wait), urgency);
                            halted = Some(fault);
                        }
                    }
                }
            }
        }
        halted.map_or(Ok(count), Err)
    }

    fn settle(&mut self, waiting: &Waiting, outcome: Outcome, reason: Option<&'static str>) {
        if let Some(lane) = self
            .lanes
            .get_mut(&waiting.partition)
            .filter(|l| l.epoch == waiting.epoch)
        {
            lane.settle(&waiting.inbound.record, outcome, reason);
        }
    }
}
