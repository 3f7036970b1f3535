//! The embedded log: Kafka's semantics in one process, for the demo, small trials and tests.
//!
//! It has partitions, consumer groups with rebalances, transactions with isolation and fencing,
//! compaction and retention. It is honest about being a single process: nothing survives it, and a
//! production configuration that names it is refused.
//!
//! It has no threads, no randomness and no time of its own: time comes from the clock given to
//! [`EmbeddedLog::new`], and what is due (a session, a transaction) is looked at whenever somebody
//! calls. A simulator can therefore drive it step by step.

mod client;
mod group;
mod partition;

use super::{
    Admin, Consumer, GroupSpec, Isolation, Log, LogError, Offset, Offsets, Producer, ProducerSpec,
    Reader, TopicPartition, TopicSpec,
};
use group::Group;
use partition::Partition;
use rustc_hash::FxBuildHasher;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Logs made by this process, so that each has an id of its own.
static MADE: AtomicU64 = AtomicU64::new(0);

/// A monotonic clock: time since some fixed moment.
pub type Now = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The log of a process. Clones share it.
#[derive(Clone)]
pub struct EmbeddedLog {
    shared: Arc<Shared>,
}

/// How an embedded log behaves.
#[derive(Clone)]
pub struct Options {
    /// Where time comes from.
    pub now: Now,
    /// A partition of a topic without compaction drops its oldest records beyond this many bytes,
    /// unless the topic sets `retention.bytes`.
    pub partition_bytes_max: usize,
}

impl Options {
    /// The machine's monotonic clock and 256 MiB a partition.
    pub fn system() -> Self {
        let start = Instant::now();
        Options {
            now: Arc::new(move || start.elapsed()),
            partition_bytes_max: 256 << 20,
        }
    }
}

/// Something that goes wrong once, at a later call; for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injected {
    /// The next commit of a transaction has no effect, and its producer can no longer be used.
    CommitLost,
    /// The next commit takes effect, but its answer is lost: the producer can no longer be used.
    CommitAnswerLost,
    /// The next record sent in a transaction fails it.
    Send,
    /// The next poll of a group member fails.
    Poll,
    /// The next question for committed offsets is not answered.
    Committed,
    /// The next transactional producer cannot be made.
    Producer,
    /// The next seek fails.
    Seek,
}

struct Shared {
    id: String,
    inner: Mutex<Inner>,
    arrived: Condvar,
    options: Options,
}

struct Inner {
    topics: HashMap<Arc<str>, Topic, FxBuildHasher>,
    groups: HashMap<String, Group>,
    transactions: HashMap<String, Transactional, FxBuildHasher>,
    next_transaction: u64,
    next_member: u64,
    injected: Vec<Injected>,
}

struct Topic {
    spec: TopicSpec,
    partitions: Vec<Partition>,
    compacted: bool,
    bytes_max: Option<usize>,
    record_bytes_max: usize,
    round_robin: usize,
}

/// What the log knows of a transactional id.
#[derive(Default)]
struct Transactional {
    epoch: u64,
    open: Option<Transaction>,
}

struct Transaction {
    number: u64,
    started: Duration,
    timeout: Duration,
    /// Partitions written, with the first offset of this transaction.
    written: BTreeMap<TopicPartition, i64>,
    offsets: Vec<(String, Offsets)>,
}

impl EmbeddedLog {
    /// An empty log.
    pub fn new(options: Options) -> Self {
        let inner = Inner {
            topics: HashMap::default(),
            groups: HashMap::new(),
            transactions: HashMap::default(),
            next_transaction: 1,
            next_member: 1,
            injected: Vec::new(),
        };
        EmbeddedLog {
            shared: Arc::new(Shared {
                id: format!(
                    "embedded-{}-{}",
                    std::process::id(),
                    MADE.fetch_add(1, Ordering::Relaxed)
                ),
                inner: Mutex::new(inner),
                arrived: Condvar::new(),
                options,
            }),
        }
    }

    /// Makes something go wrong at a later call; several injections wait their turn by kind.
    pub fn inject(&self, injected: Injected) {
        self.shared.lock().injected.push(injected);
    }

    /// Ends the membership of every member of `group` whose id begins with `member`, as a session
    /// timeout would.
    pub fn expire(&self, group: &str, member: &str) {
        let mut inner = self.shared.lock();
        if let Some(group) = inner.groups.get_mut(group) {
            group.expire(member);
        }
        self.shared.arrived.notify_all();
    }

    /// Keeps only the last committed record of each key of `topic`. Done by itself as a compacted
    /// topic grows.
    pub fn compact(&self, topic: &str) {
        let now = (self.shared.options.now)();
        if let Some(topic) = self.shared.lock().topics.get_mut(topic) {
            topic.partitions.iter_mut().for_each(|p| p.compact(now));
        }
    }

    /// Drops what was committed to `topic` so far, as its retention would in time.
    pub fn outlive(&self, topic: &str) {
        if let Some(topic) = self.shared.lock().topics.get_mut(topic) {
            topic.partitions.iter_mut().for_each(|p| p.drop_beyond(0));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.lock_at((self.options.now)())
    }

    fn lock_at(&self, now: Duration) -> MutexGuard<'_, Inner> {
        // A panic in another thread is a test failing; the books below are whole between calls.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.end_overdue(now);
        inner
    }
}

impl Inner {
    fn partition(&mut self, at: &TopicPartition) -> Result<&mut Partition, LogError> {
        let unknown = || LogError::UnknownTopic {
            topic: at.topic.to_string(),
        };
        let topic = self.topics.get_mut(&at.topic).ok_or_else(unknown)?;
        usize::try_from(at.partition)
            .ok()
            .and_then(|p| topic.partitions.get_mut(p))
            .ok_or_else(|| LogError::Other(format!("{at} does not exist")))
    }

    fn take_injected(&mut self, kind: Injected) -> bool {
        match self.injected.iter().position(|i| *i == kind) {
            Some(at) => {
                self.injected.remove(at);
                true
            }
            None => false,
        }
    }

    /// Aborts transactions that have been open for too long, and fences their producers.
    fn end_overdue(&mut self, now: Duration) {
        let overdue = |t: &Transactional| {
            t.open
                .as_ref()
                .is_some_and(|o| now.saturating_sub(o.started) > o.timeout)
        };
        if !self.transactions.values().any(overdue) {
            return;
        }
        let ids: Vec<String> = self
            .transactions
            .iter()
            .filter(|(_, t)| overdue(t))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            self.end_transaction(&id, false);
            if let Some(transactional) = self.transactions.get_mut(&id) {
                transactional.epoch += 1;
            }
        }
    }

    /// Ends the open transaction of `id`, if there is one.
    fn end_transaction(&mut self, id: &str, commit: bool) {
        let Some(open) = self.transactions.get_mut(id).and_then(|t| t.open.take()) else {
            return;
        };
        for (at, first) in open.written {
            if let Ok(partition) = self.partition(&at) {
                partition.end_transaction(open.number, first, commit);
            }
        }
        if commit {
            for (group, offsets) in open.offsets {
                self.groups
                    .entry(group)
                    .or_default()
                    .offsets
                    .extend(offsets);
            }
        }
    }

    /// Ends every open transaction that holds offsets of `group` for one of `partitions`: whoever
    /// asks for the committed offsets owns the partitions now, so the transaction is a dead
    /// member's, and Kafka, too, answers only once it has ended.
    fn settle_offsets(&mut self, group: &str, partitions: &[TopicPartition]) {
        let holds = |t: &Transactional| {
            t.open.as_ref().is_some_and(|o| {
                o.offsets.iter().any(|(g, offsets)| {
                    g == group && partitions.iter().any(|p| offsets.contains_key(p))
                })
            })
        };
        let ids: Vec<String> = self
            .transactions
            .iter()
            .filter(|(_, t)| holds(t))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            self.end_transaction(&id, false);
            if let Some(transactional) = self.transactions.get_mut(&id) {
                transactional.epoch += 1;
            }
        }
    }
}

impl Log for EmbeddedLog {
    fn consumer(&self, spec: &GroupSpec) -> Result<Box<dyn Consumer>, LogError> {
        client::EmbeddedConsumer::join(self.shared.clone(), spec).map(|c| Box::new(c) as _)
    }
    fn reader(
        &self,
        from: &[(TopicPartition, Offset)],
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        client::EmbeddedReader::open(self.shared.clone(), from, isolation).map(|r| Box::new(r) as _)
    }
    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>, LogError> {
        if spec.transactional_id.is_some() && self.shared.lock().take_injected(Injected::Producer) {
            return Err(LogError::TimedOut("injected: no producer".into()));
        }
        Ok(Box::new(client::EmbeddedProducer::new(
            self.shared.clone(),
            spec,
        )))
    }
    fn admin(&self) -> &dyn Admin {
        self
    }
    fn address(&self) -> &str {
        "embedded"
    }
    fn id(&self) -> &str {
        &self.shared.id
    }
}

impl Admin for EmbeddedLog {
    fn topics_under(&self, prefix: &str) -> Result<Vec<TopicSpec>, LogError> {
        let inner = self.shared.lock();
        let found = inner
            .topics
            .iter()
            .filter(|(name, _)| name.starts_with(prefix));
        let mut found: Vec<TopicSpec> = found.map(|(_, topic)| topic.spec.clone()).collect();
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
    fn partitions(&self, topic: &str) -> Result<Option<i32>, LogError> {
        let inner = self.shared.lock();
        Ok(inner.topics.get(topic).map(|t| t.spec.partitions))
    }
    fn create_all(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        let mut inner = self.shared.lock();
        for topic in topics {
            let name: Arc<str> = Arc::from(topic.name.as_str());
            if inner.topics.contains_key(&name) {
                return Err(LogError::Other(format!("topic {name} exists already")));
            }
            let mut made = Topic {
                spec: topic.clone(),
                partitions: (0..topic.partitions.max(1))
                    .map(|number| Partition::new(name.clone(), number))
                    .collect(),
                compacted: false,
                bytes_max: None,
                record_bytes_max: 0,
                round_robin: 0,
            };
            made.apply_settings(&self.shared.options);
            inner.topics.insert(name, made);
        }
        Ok(())
    }
    fn alter(&self, topic: &str, settings: &BTreeMap<String, String>) -> Result<(), LogError> {
        let mut inner = self.shared.lock();
        let unknown = || LogError::UnknownTopic {
            topic: topic.to_owned(),
        };
        let found = inner.topics.get_mut(topic).ok_or_else(unknown)?;
        found.spec.settings.extend(settings.clone());
        found.apply_settings(&self.shared.options);
        Ok(())
    }
    fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), LogError> {
        let mut inner = self.shared.lock();
        let partition = inner.partition(partition)?;
        Ok((partition.first(), partition.end()))
    }
    fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<i64, LogError> {
        let mut inner = self.shared.lock();
        Ok(inner.partition(partition)?.offset_at(timestamp_ms))
    }
    fn group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Offsets, LogError> {
        let inner = self.shared.lock();
        let Some(group) = inner.groups.get(group) else {
            return Ok(Offsets::new());
        };
        Ok(partitions
            .iter()
            .filter_map(|p| Some((p.clone(), *group.offsets.get(p)?)))
            .collect())
    }
    fn has_member(&self, group: &str, member: &str) -> Result<bool, LogError> {
        let inner = self.shared.lock();
        Ok(inner.groups.get(group).is_some_and(|g| g.has(member)))
    }
    fn brokers(&self) -> Result<usize, LogError> {
        Ok(1)
    }
}

impl Topic {
    fn apply_settings(&mut self, options: &Options) {
        let setting = |name: &str| self.spec.settings.get(name);
        let number = |name: &str| setting(name).and_then(|v| v.parse::<usize>().ok());
        self.compacted = setting("cleanup.policy").is_some_and(|v| v.contains("compact"));
        self.record_bytes_max = number("max.message.bytes").unwrap_or(1 << 20);
        let bytes = number("retention.bytes").unwrap_or(options.partition_bytes_max);
        self.bytes_max = (!self.compacted).then_some(bytes);
    }

    /// Drops or compacts what is over the limits.
    fn tidy(&mut self, partition: usize, now: Duration) {
        let partition = &mut self.partitions[partition];
        match self.bytes_max {
            Some(max) => partition.drop_beyond(max),
            None => partition.compact_when_grown(now),
        }
    }
}
