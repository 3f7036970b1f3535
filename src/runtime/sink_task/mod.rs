//! A sink task: many keys at once, each key in order, offsets committed up to the gap-free point.
//!
//! A record is read, waits behind its key, is written to the target, and is settled. A key of several
//! topics has a line in each, and one call at a time. Receipts of
//! what was sent are written in the next transaction; the outcome of a record is written in the
//! transaction that commits its offset, which is when everything before it is settled too.
//!
//! A key that fails while the target answers others is parked (`parking`): it is tried again further and
//! further apart, and nothing else waits for it. A target that answers nobody is let alone and probed
//! (`target`); nothing is parked or dead-lettered then.

mod answers;
mod calls;
mod commit;
mod intake;
mod release;

use super::Progress;
use super::accounts::Accounts;
use super::backoff::Backoff;
use super::lane::Lane;
use super::outbox::Outbox;
use super::parking::Size;
use super::queue::{CLASSES, Kind, Queue};
use super::settings::{Membership, TaskSettings};
use super::target::Target;
use crate::codec::Codec;
use crate::contract::{Catalogue, SINKS};
use crate::domain::Timestamp;
use crate::log::{Consumer, GroupProtocol, GroupSpec, Isolation, Log, Producer, TopicPartition};
use crate::pipeline::{Clock, Code, Fault, Record, Sink};
use crate::telemetry::Telemetry;
use calls::Finished;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use release::Releases;
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
/// Longest wait between two tries of a parked key.
const PARKED_WAIT_MAX: Duration = Duration::from_secs(5 * 60);
/// Records parked in a task, at most.
const PARKED_RECORDS_MAX: usize = 200_000;

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
    park_topic: Arc<str>,
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
    /// For parked keys.
    patience: Backoff,
    /// Partitions of these classes are not read for now: enough of them waits.
    held_back: [bool; CLASSES],
    /// Partitions that the present share of the target is for.
    shared: usize,
    releases: Releases,
    /// What was told last: whether the target is down, and what is parked.
    told: (bool, Size),
    committed_at: Timestamp,
    scratch: Vec<Record>,
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
        telemetry.delivery(&settings.label(name), false, 0, 0);
        let kind_of = |topic: &&str| {
            let class = catalogue.topic(topic).map_or(0, |t| Kind::place(t.class));
            let whole_state = catalogue.is_compacted(topic);
            let kind = Kind {
                class,
                whole_state,
                blocks_key: catalogue.blocks_key(topic, SINKS),
            };
            (Arc::from(*topic), kind)
        };
        let kinds = topics.iter().map(kind_of).collect();
        let calls_max = sink.capabilities().calls_max.min(settings.calls_max);
        let (label, now) = (settings.transactional_id(name, 'a'), clock.now());
        Ok(SinkTask {
            park_topic: Arc::from(catalogue.park_topic(name)),
            target: Target::new(label, calls_max, settings.budget, now),
            patience: Backoff {
                longest: PARKED_WAIT_MAX,
                ..Backoff::default()
            },
            held_back: [false; CLASSES],
            shared: 0,
            told: Default::default(),
            releases: Releases::default(),
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
            queue: Queue::new(kinds),
            calls: FuturesUnordered::new(),
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

    /// What is parked.
    fn parked(&self) -> Size {
        let mut all = Size::default();
        for lane in self.lanes.values() {
            all += lane.parking.size();
        }
        all
    }

    /// Keys that are parked, with those that wait for what becomes of a dead letter.
    pub fn parked_keys(&self) -> usize {
        self.parked().keys
    }

    /// Whether the target counts as down: nobody is answered, and it is probed.
    pub fn is_target_down(&self) -> bool {
        self.target.is_down()
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
        // What one part meets does not keep the others from going on. The first is told, but that the
        // member's place is taken comes before it: nothing else ends while that is so.
        let mut first: Option<Fault> = None;
        let mut keep = |fault: Fault| match fault.code {
            Code::NameTaken => first = Some(fault),
            _ => drop(first.get_or_insert(fault)),
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
        if let Err(fault) = self.follow_releases(now) {
            keep(fault);
        }
        self.queue.wake(now);
        self.wake_parked(now);
        if let Err(fault) = self.dispatch(now) {
            keep(fault);
        }
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
            let wake = self.next_wake(now);
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
        self.tell_health();
        if let Some(fault) = first {
            return Err(fault);
        }
        Ok(match restoring {
            Some((read, total)) => Progress::Restoring { read, total },
            None if self.lanes.is_empty() && self.consumer.is_joined() => Progress::Unassigned,
            None if self.lanes.is_empty() => Progress::Joining,
            None if count > 0 || !self.calls.is_empty() => Progress::Worked(count),
            None => Progress::Idle {
                until: self.next_wake(self.clock.now()),
            },
        })
    }

    /// When something can be done that cannot be done now.
    fn next_wake(&mut self, now: Timestamp) -> Option<Timestamp> {
        let rest = self.parked_rest();
        let parked = self.lanes.values().filter(|_| !rest);
        let parked = parked.filter_map(|l| l.parking.next_due());
        let waiting = self.queue.next_wake().into_iter().chain(parked).min();
        let free = self.target.free_at(now);
        match self.queue.is_waiting() {
            true => free.or(waiting),
            false => waiting.map(|at| free.map_or(at, |free| at.max(free))),
        }
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

    /// Tells whether the target is down and what is parked.
    fn tell_health(&mut self) {
        let health = (self.target.is_down(), self.parked());
        if health != self.told {
            self.told = health;
            let label = self.settings.label(&self.name);
            let (is_down, parked) = health;
            self.telemetry
                .delivery(&label, is_down, parked.keys, parked.records);
        }
    }
}
