//! The event-log port: what Crossdock needs of Kafka, as traits.
//!
//! `kafka` is production, `embedded` the same semantics in one process. One conformance
//! suite (`tests/conformance`) runs against both; what differs between them is a defect.
//!
//! The port is synchronous and never owns a schedule: whoever holds a [`Consumer`] polls it, and
//! a rebalance reaches its holder as an [`Assignment`] event from that same poll, never from
//! another thread.

pub mod embedded;
pub mod kafka;
pub mod scan;
pub mod scoped;

use crate::pipeline::{Headers, Record};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A topic and one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// The partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        TopicPartition {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// A place in a partition to start reading from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offset {
    /// The first record still kept.
    Beginning,
    /// Behind the last record.
    End,
    /// This very offset.
    At(i64),
}

/// Whether records of open and aborted transactions are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Only what is committed. Every reader of Crossdock uses this.
    ReadCommitted,
    /// Everything, for tools that look at transactions themselves.
    ReadUncommitted,
}

/// Which protocol a consumer group uses to share partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupProtocol {
    /// Classic protocol, range assignor: the only one that gives a member equal partition numbers
    /// of several topics, so joins use it.
    Range,
    /// Classic protocol, cooperative-sticky assignor: for readers of one topic.
    CooperativeSticky,
    /// KIP-848, assigned by the broker with its `range` assignor.
    Server,
}

/// How to join a consumer group.
#[derive(Clone, Debug)]
pub struct GroupSpec {
    /// Group id.
    pub group: String,
    /// Static member id (`group.instance.id`): a member that stops and returns within the session
    /// timeout keeps its partitions. `None` joins as a dynamic member.
    pub member: Option<String>,
    /// Topics to subscribe to.
    pub topics: Vec<Arc<str>>,
    /// Assignment protocol.
    pub protocol: GroupProtocol,
    /// Without a heartbeat for this long the member is dead (ignored under
    /// [`GroupProtocol::Server`], where the broker decides).
    pub session_timeout: Duration,
    /// Without a poll for this long the member is expelled.
    pub max_poll_interval: Duration,
    /// Isolation of the reads.
    pub isolation: Isolation,
}

/// How to make a producer.
#[derive(Clone, Debug)]
pub struct ProducerSpec {
    /// Transactional id; `None` makes an idempotent producer without transactions.
    pub transactional_id: Option<String>,
    /// The broker aborts a transaction that is open for longer.
    pub transaction_timeout: Duration,
    /// How long the producer may wait to fill a batch; zero for the lowest latency.
    pub linger: Duration,
}

impl Default for ProducerSpec {
    fn default() -> Self {
        ProducerSpec {
            transactional_id: None,
            transaction_timeout: Duration::from_secs(10),
            linger: Duration::ZERO,
        }
    }
}

/// A change of what a group member owns, told by [`Consumer::poll`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// These partitions are the member's from now on. Reading starts at the group's committed
    /// offset (the beginning where there is none) unless the holder seeks.
    Gained(Vec<TopicPartition>),
    /// These are the member's no longer. Offsets for them must not be committed any more: a batch
    /// that holds records of them is dropped, and its transaction aborted.
    Revoked(Vec<TopicPartition>),
    /// As `Revoked`, but somebody else may own them already: the member was expelled.
    Lost(Vec<TopicPartition>),
}

/// The group's generation at one moment: an opaque token. Take it when the first record of a batch
/// is read and commit the batch with that one, so that a batch never commits under a generation
/// that began after it was read (this is what keeps an old owner's work out).
#[derive(Clone)]
pub struct GroupGeneration(pub(crate) Arc<dyn std::any::Any + Send + Sync>);

impl fmt::Debug for GroupGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupGeneration")
    }
}

/// A record to be written. Borrowed: the producer copies what it keeps.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Partition; `None` lets the key decide (murmur2, as the Java client does).
    pub partition: Option<i32>,
    /// Key bytes.
    pub key: Option<&'a [u8]>,
    /// Value bytes; `None` writes a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers.
    pub headers: &'a Headers,
    /// Record timestamp in milliseconds since the epoch: the time of ingest.
    pub timestamp_ms: i64,
}

/// Offsets to commit: for each partition the offset of the next record to read.
pub type Offsets = BTreeMap<TopicPartition, i64>;

/// What went wrong in the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The broker cannot be reached.
    #[error(
        "cannot reach the log at {address}: {cause}; start it, or name another with --bootstrap"
    )]
    Unreachable {
        /// Bootstrap address.
        address: String,
        /// The client's words.
        cause: String,
    },
    /// The broker refused the credentials.
    #[error(
        "the log at {address} refused the credentials: {cause}; correct user, password and rights under `log: sasl:` of the configuration"
    )]
    Unauthorised {
        /// Bootstrap address.
        address: String,
        /// The client's words.
        cause: String,
    },
    /// The topic does not exist.
    #[error("topic {topic} does not exist; create it with `crossdock topics apply`")]
    UnknownTopic {
        /// Topic name.
        topic: String,
    },
    /// The record is larger than the client or the topic allows; nothing was written of it.
    #[error("a record of {bytes} bytes for {topic} is larger than {}", allowed(.limit))]
    Oversize {
        /// Topic name.
        topic: String,
        /// Size of key, value and headers.
        bytes: usize,
        /// The limit, where it is known: a broker does not tell.
        limit: Option<usize>,
    },
    /// The producer's queue is full: [`Producer::poll`] and send again.
    #[error("the producer's queue is full")]
    QueueFull,
    /// The transaction must be aborted; the producer stays usable after [`Producer::abort`].
    #[error("the transaction must be aborted: {0}")]
    Abort(String),
    /// A newer producer with the same transactional id, or a newer group generation, exists: this
    /// one is a zombie. Drop the producer; partitions may be somebody else's by now.
    #[error("fenced by a newer instance: {0}")]
    Fenced(String),
    /// The state of the producer is unknown (a timeout, a fatal error). Drop it, make a new one
    /// with the same id, and read positions from the committed offsets; never retry on this one.
    /// Of a consumer: it is of no more use and must be made anew.
    #[error("the client can no longer be used: {0}")]
    Fatal(String),
    /// Another consumer with the same static member id has taken this one's place, and this one gets
    /// nothing any more. After an outage the other may be this one itself: a request that was under
    /// way when it joined again.
    #[error("another instance of the same name runs: {0}")]
    Replaced(String),
    /// The operation did not finish in time and had no effect.
    #[error("timed out: {0}")]
    TimedOut(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

fn allowed(limit: &Option<usize>) -> String {
    match limit {
        Some(limit) => format!("the {limit} allowed"),
        None => "its max.message.bytes".to_owned(),
    }
}

/// A connection to a cluster (or to the embedded log): makes consumers, producers and readers.
pub trait Log: Send + Sync {
    /// Joins a consumer group. Nothing is owned until [`Consumer::poll`] says so.
    fn consumer(&self, spec: &GroupSpec) -> Result<Box<dyn Consumer>, LogError>;
    /// A reader of explicit partitions without a group: for restoring state, reference data and
    /// tools.
    fn reader(
        &self,
        from: &[(TopicPartition, Offset)],
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError>;
    /// A producer. With a transactional id this registers it, waits until an earlier
    /// transaction of the id has ended, and fences the producer that had it.
    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>, LogError>;
    /// Administration of topics.
    fn admin(&self) -> &dyn Admin;
    /// Where this log is, for messages: a bootstrap address or `embedded`.
    fn address(&self) -> &str;
    /// What tells this log from every other, also from a later one at the same address: Kafka's
    /// cluster id. What was kept locally of one log must not be used with another.
    fn id(&self) -> &str;
    /// What has become of calls that were given up because they did not come back in time. A log
    /// whose calls keep to their time has none.
    fn given_up(&self) -> GivenUp {
        GivenUp::default()
    }
}

/// Calls that did not come back in time and were given up, each with its producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// Since the connection was made.
    pub ever: u64,
    /// Of these, the ones that still hang: a thread and a client each.
    pub hanging: u64,
}

/// A member of a consumer group.
///
/// All methods are called by the one holder; a call may take as long as `wait` says and a little
/// more while the group rebalances. Dropping a consumer leaves the group, except a static member,
/// whose partitions wait for its return until the session timeout.
pub trait Consumer: Send {
    /// Appends at most `max` records to `into`, waiting at most `wait` for the first. Returns the
    /// changes of assignment that happened; records that were appended in the same call are all
    /// of partitions owned after those changes.
    ///
    /// # Errors
    /// No record is skipped: what was read before the error is handed out first, and the next call
    /// tells the error. [`LogError::Unreachable`] when no broker answers, [`LogError::Replaced`]
    /// when another member has this one's id.
    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        into: &mut Vec<Record>,
    ) -> Result<Vec<Assignment>, LogError>;
    /// The group's present generation.
    fn generation(&self) -> Result<GroupGeneration, LogError>;
    /// Whether the member takes part in the group's present generation, be it without a partition.
    /// False while the group forms or this member has been expelled.
    fn is_joined(&self) -> bool;
    /// Partitions owned now, sorted.
    fn owned(&self) -> Vec<TopicPartition>;
    /// The next poll of this owned partition begins at `offset`; records fetched ahead are dropped.
    fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), LogError>;
    /// Stops handing out records of these partitions; the position stays.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;
    /// Undoes [`Consumer::pause`].
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;
    /// The group's committed offsets of these partitions; absent where there is none.
    fn committed(&self, partitions: &[TopicPartition]) -> Result<Offsets, LogError>;
    /// Commits offsets outside of a transaction, and waits for the answer.
    fn commit(&mut self, offsets: &Offsets) -> Result<(), LogError>;
    /// First kept offset and end (the offset after the last record that an isolated read can see;
    /// the last stable offset for a partition with open transactions).
    fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), LogError>;
}

/// Whether a record is wanted, by its key and its value.
pub type Wanted = dyn Fn(Option<&[u8]>, Option<&[u8]>) -> bool + Send + Sync;

/// A reader of explicit partitions.
pub trait Reader: Send {
    /// Appends at most `max` records to `into`, waiting at most `wait` for the first. An error is
    /// told only after every record read before it has been handed out.
    fn poll(&mut self, max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<(), LogError> {
        self.poll_where(max, wait, &|_, _| true, into).map(drop)
    }
    /// As [`Reader::poll`], but passes over records that are not `wanted`, without copying them.
    /// Returns how many were read, those passed over included; `max` bounds these.
    fn poll_where(
        &mut self,
        max: usize,
        wait: Duration,
        wanted: &Wanted,
        into: &mut Vec<Record>,
    ) -> Result<usize, LogError>;
    /// Whether every partition has been read to where the log ended (high watermark, open
    /// transactions included) when the reader was opened. True also when the last records are
    /// transaction markers or aborted.
    fn caught_up(&self) -> bool;
    /// The next offset to be read of `partition`.
    fn position(&self, partition: &TopicPartition) -> Option<i64>;
}

/// A producer. Without a transactional id the transaction methods fail with [`LogError::Other`].
pub trait Producer: Send {
    /// Begins a transaction.
    fn begin(&mut self) -> Result<(), LogError>;
    /// Queues a record. Delivery errors surface in [`Producer::commit`] or [`Producer::flush`].
    fn send(&mut self, record: Outgoing<'_>) -> Result<(), LogError>;
    /// Serves delivery reports without waiting; frees room after [`LogError::QueueFull`] when
    /// given a `wait`.
    fn poll(&mut self, wait: Duration);
    /// Adds the consumer's offsets to the transaction, under the generation of its group.
    fn send_offsets(
        &mut self,
        offsets: &Offsets,
        generation: &GroupGeneration,
    ) -> Result<(), LogError>;
    /// Ends the transaction: everything in it becomes visible at once, or nothing does.
    fn commit(&mut self) -> Result<(), LogError>;
    /// Ends the transaction without effect.
    fn abort(&mut self) -> Result<(), LogError>;
    /// Waits until every queued record is acknowledged (outside of transactions).
    fn flush(&mut self) -> Result<(), LogError>;
}

/// What a topic should be or is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Topic name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Copies of each partition.
    pub replication: i32,
    /// Settings by Kafka's names (`cleanup.policy`, `retention.ms`, `max.message.bytes`, …).
    pub settings: BTreeMap<String, String>,
}

/// Administration of topics and groups.
pub trait Admin: Send + Sync {
    /// The topics whose names begin with `prefix`, with the settings that differ from the broker's
    /// defaults.
    fn topics_under(&self, prefix: &str) -> Result<Vec<TopicSpec>, LogError>;
    /// Every topic that exists.
    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        self.topics_under("")
    }
    /// Partitions of a topic; `None` where there is no such topic.
    fn partitions(&self, topic: &str) -> Result<Option<i32>, LogError>;
    /// Creates topics, which can be used when this returns: many at once cost little more than one.
    /// An existing topic of one of the names is an error, and so is a name that stands there twice;
    /// others of the topics may have been created then.
    fn create_all(&self, topics: &[TopicSpec]) -> Result<(), LogError>;
    /// Creates one topic, as [`Admin::create_all`].
    fn create(&self, topic: &TopicSpec) -> Result<(), LogError> {
        self.create_all(std::slice::from_ref(topic))
    }
    /// Sets the given settings of an existing topic; others stay.
    fn alter(&self, topic: &str, settings: &BTreeMap<String, String>) -> Result<(), LogError>;
    /// First kept offset and high watermark of a partition.
    fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), LogError>;
    /// The offset of the first record that was written at this time or later, in milliseconds since
    /// the epoch; the partition's end where there is none.
    fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<i64, LogError>;
    /// Committed offsets of a group, whoever its members are.
    fn group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Offsets, LogError>;
    /// Whether `group` has a static member with this id. One that is dead is a member until its
    /// session has run out.
    fn has_member(&self, group: &str, member: &str) -> Result<bool, LogError>;
    /// Number of brokers that are up.
    fn brokers(&self) -> Result<usize, LogError>;
}

/// The partition of `key` among `partitions`: murmur2 with the sign bit cleared, as Kafka's Java
/// client and librdkafka's `murmur2_random` compute it.
pub fn partition_for(key: &[u8], partitions: i32) -> i32 {
    ((murmur2(key) & 0x7fff_ffff) % partitions.max(1) as u32) as i32
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate().rev() {
            h ^= u32::from(*byte) << (8 * index);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_gives_the_values_of_kafkas_own_test() {
        // org.apache.kafka.common.utils.UtilsTest.testMurmur2
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }
}
