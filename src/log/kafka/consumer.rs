//! Members of consumer groups.

use super::super::{
    Assignment, Consumer, GroupGeneration, GroupProtocol, GroupSpec, LogError, Offsets,
    TopicPartition,
};
use super::{CALL_TIME_MAX, KafkaSettings, PROBE_INTERVAL, forward, forward_error, log_error};
use crate::config::Groups;
use crate::pipeline::{Headers, Origin, Record, pack_header};
use bytes::{Bytes, BytesMut};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers as _, Message};
use rdkafka::topic_partition_list::{Offset as RdOffset, TopicPartitionList};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Collects what rebalances do until the poll under way returns.
#[derive(Default)]
struct GroupContext {
    changes: Mutex<Vec<Assignment>>,
    joined: AtomicBool,
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        forward_error(&error, reason);
    }
}

impl ConsumerContext for GroupContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(_) => self.joined.store(true, Ordering::SeqCst),
            // Who keeps some partitions of a cooperative group stays in it.
            Rebalance::Revoke(_) | Rebalance::Error(_) => {
                self.joined.store(false, Ordering::SeqCst);
            }
        }
        let change = match rebalance {
            Rebalance::Assign(list) if list.count() > 0 => Assignment::Gained(partitions_of(list)),
            Rebalance::Revoke(list) if list.count() > 0 && consumer.assignment_lost() => {
                Assignment::Lost(partitions_of(list))
            }
            Rebalance::Revoke(list) if list.count() > 0 => Assignment::Revoked(partitions_of(list)),
            Rebalance::Error(error) => {
                tracing::warn!(%error, "a rebalance failed");
                return;
            }
            _ => return,
        };
        self.changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(change);
    }
}

pub(super) struct KafkaConsumer {
    consumer: BaseConsumer<GroupContext>,
    address: String,
    topics: Vec<Arc<str>>,
    owned: Vec<TopicPartition>,
    /// Met after records of the same poll, which were handed out first.
    untold: Option<LogError>,
    /// Set while no broker is heard of: when to ask again.
    probe_at: Option<Instant>,
}

impl KafkaConsumer {
    pub fn join(settings: &KafkaSettings, spec: &GroupSpec) -> Result<Self, LogError> {
        let mut config = settings.reading(spec.isolation);
        config.set("group.id", &spec.group).set(
            "max.poll.interval.ms",
            spec.max_poll_interval.as_millis().to_string(),
        );
        if let Some(member) = &spec.member {
            config.set("group.instance.id", member);
        }
        let protocol = match settings.groups {
            Groups::Classic => spec.protocol,
            Groups::Server => GroupProtocol::Server,
        };
        match protocol {
            GroupProtocol::Server => {
                config
                    .set("group.protocol", "consumer")
                    .set("group.remote.assignor", "range");
            }
            classic => {
                let strategy = if classic == GroupProtocol::Range {
                    "range"
                } else {
                    "cooperative-sticky"
                };
                let session = spec.session_timeout.as_millis();
                config
                    .set("partition.assignment.strategy", strategy)
                    .set("session.timeout.ms", session.to_string())
                    .set("heartbeat.interval.ms", (session / 4).max(100).to_string());
            }
        }
        let failed = |e: KafkaError| log_error(&settings.bootstrap, None, &e);
        let consumer: BaseConsumer<GroupContext> = settings
            .with_extra(config)
            .create_with_context(GroupContext::default())
            .map_err(failed)?;
        let names: Vec<&str> = spec.topics.iter().map(|t| &**t).collect();
        consumer.subscribe(&names).map_err(failed)?;
        Ok(KafkaConsumer {
            consumer,
            address: settings.bootstrap.clone(),
            topics: spec.topics.clone(),
            owned: Vec::new(),
            untold: None,
            probe_at: None,
        })
    }

    /// A client tells a fatal error once, and then nothing any more.
    fn check_fatal(&self) -> Result<(), LogError> {
        use RDKafkaErrorCode as E;
        match self.consumer.client().fatal_error() {
            None => Ok(()),
            Some((E::FencedInstanceId | E::UnreleasedInstanceId, words)) => {
                Err(LogError::Replaced(words))
            }
            Some((_, words)) => Err(LogError::Fatal(words)),
        }
    }

    /// Says so when no broker answers. The client reconnects by itself and tells of an outage, but
    /// not of its end.
    fn probe(&mut self, heard: bool) -> Result<(), LogError> {
        if heard {
            self.probe_at = None;
        }
        if self.probe_at.is_none_or(|at| Instant::now() < at) {
            return Ok(());
        }
        let topic = self.topics.first().map(|t| &**t);
        let answer = self.consumer.fetch_metadata(topic, PROBE_INTERVAL);
        self.probe_at = answer.is_err().then(|| Instant::now() + PROBE_INTERVAL);
        match answer {
            Ok(_) => Ok(()),
            Err(error) => Err(LogError::Unreachable {
                address: self.address.clone(),
                cause: error.to_string(),
            }),
        }
    }

    fn changes(&mut self) -> Vec<Assignment> {
        let changes = std::mem::take(
            &mut *self
                .consumer
                .context()
                .changes
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for change in &changes {
            match change {
                Assignment::Gained(gained) => self.owned.extend(gained.iter().cloned()),
                Assignment::Revoked(gone) | Assignment::Lost(gone) => {
                    self.owned.retain(|p| !gone.contains(p))
                }
            }
        }
        if !changes.is_empty() {
            self.owned.sort();
            self.owned.dedup();
        }
        changes
    }

    /// What an error means. Of a client that has had a fatal error every call fails in some way, or is not
    /// answered: then that error is the cause.
    fn error(&self, error: &KafkaError) -> LogError {
        if let Err(fatal) = self.check_fatal() {
            return fatal;
        }
        log_error(&self.address, self.topics.first().map(|t| &**t), error)
    }
}

impl Consumer for KafkaConsumer {
    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        into: &mut Vec<Record>,
    ) -> Result<Vec<Assignment>, LogError> {
        if let Some(error) = self.untold.take() {
            return Err(error);
        }
        let mut gathered = Gathered::new(into);
        let mut changes = Vec::new();
        let mut wait = wait;
        let mut heard = false;
        // A poll without room still keeps the member alive and tells of rebalances.
        let rounds = max.max(1);
        for _ in 0..rounds {
            let polled = self.consumer.poll(wait);
            let more = match polled {
                None => false,
                Some(Ok(message)) if max > 0 => {
                    heard = true;
                    gathered.add(&mut self.topics, &message);
                    true
                }
                Some(Ok(message)) => {
                    let at = TopicPartition::new(message.topic(), message.partition());
                    let offset = message.offset();
                    drop(message);
                    self.seek(&at, offset)?;
                    false
                }
                Some(Err(error)) => {
                    match self.error(&error) {
                        LogError::Unreachable { .. } | LogError::TimedOut(_) => {
                            self.probe_at.get_or_insert_with(Instant::now);
                        }
                        other => self.untold = Some(other),
                    }
                    false
                }
            };
            let fresh = self.changes();
            if !fresh.is_empty() {
                changes.extend(fresh);
                gathered.keep_owned(&self.owned);
            }
            if !more {
                break;
            }
            wait = Duration::ZERO;
        }
        if gathered.is_empty() && changes.is_empty() {
            if let Some(error) = self.untold.take() {
                return Err(error);
            }
            self.check_fatal()?;
            self.probe(heard)?;
        } else {
            self.probe_at = None;
        }
        gathered.finish();
        Ok(changes)
    }

    fn generation(&self) -> Result<GroupGeneration, LogError> {
        match self.consumer.group_metadata() {
            Some(metadata) => Ok(GroupGeneration(Arc::new(metadata))),
            None => Err(LogError::Other("the consumer has no group".into())),
        }
    }

    fn is_joined(&self) -> bool {
        !self.owned.is_empty() || self.consumer.context().joined.load(Ordering::SeqCst)
    }

    fn owned(&self) -> Vec<TopicPartition> {
        self.owned.clone()
    }

    fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), LogError> {
        // Right after an assignment the partition's fetcher may not run yet, and a seek is refused
        // until it does. A client with a fatal error never gets there.
        let deadline = Instant::now() + CALL_TIME_MAX;
        loop {
            let sought = self.consumer.seek(
                &partition.topic,
                partition.partition,
                RdOffset::Offset(offset),
                CALL_TIME_MAX,
            );
            match sought {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline || self.check_fatal().is_err() => {
                    return Err(self.error(&error));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.consumer
            .pause(&list_of(partitions))
            .map_err(|e| self.error(&e))
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.consumer
            .resume(&list_of(partitions))
            .map_err(|e| self.error(&e))
    }

    fn committed(&self, partitions: &[TopicPartition]) -> Result<Offsets, LogError> {
        let found = self
            .consumer
            .committed_offsets(list_of(partitions), CALL_TIME_MAX)
            .map_err(|e| self.error(&e))?;
        Ok(offsets_of(&found))
    }

    fn commit(&mut self, offsets: &Offsets) -> Result<(), LogError> {
        self.consumer
            .commit(&offset_list(offsets), CommitMode::Sync)
            .map_err(|e| self.error(&e))
    }

    fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), LogError> {
        self.consumer
            .fetch_watermarks(&partition.topic, partition.partition, CALL_TIME_MAX)
            .map_err(|e| self.error(&e))
    }
}

/// Bytes of records that share a buffer: small enough to be given back to where the next one is
/// taken from, not to the system.
const BUFFER_BYTES: usize = 256 << 10;

/// Records copied out of librdkafka's buffers into some of our own, appended to a list.
pub(super) struct Gathered<'a> {
    into: &'a mut Vec<Record>,
    before: usize,
    buffer: BytesMut,
    /// The newest records, whose bytes are in `buffer`.
    open: Vec<Raw>,
}

struct Raw {
    origin: Origin,
    timestamp_ms: i64,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Range<usize>,
}

impl<'a> Gathered<'a> {
    pub fn new(into: &'a mut Vec<Record>) -> Self {
        Gathered {
            before: into.len(),
            into,
            buffer: BytesMut::new(),
            open: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.into.len() - self.before + self.open.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn add<M: Message>(&mut self, topics: &mut Vec<Arc<str>>, message: &M) {
        let bytes = message.key().map_or(0, <[u8]>::len) + message.payload().map_or(0, <[u8]>::len);
        if self.buffer.len() + bytes > BUFFER_BYTES {
            self.close();
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(BUFFER_BYTES.max(bytes));
        }
        let name = message.topic();
        let topic = match topics.iter().find(|t| ***t == *name) {
            Some(topic) => topic.clone(),
            None => {
                topics.push(Arc::from(name));
                Arc::from(name)
            }
        };
        let buffer = &mut self.buffer;
        let mut copy = |bytes: &[u8]| {
            let from = buffer.len();
            buffer.extend_from_slice(bytes);
            from..buffer.len()
        };
        let key = message.key().map(&mut copy);
        let value = message.payload().map(&mut copy);
        let from = buffer.len();
        for header in message.headers().into_iter().flat_map(|h| h.iter()) {
            pack_header(buffer, header.key, header.value);
        }
        self.open.push(Raw {
            origin: Origin {
                topic,
                partition: message.partition(),
                offset: message.offset(),
            },
            timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
            key,
            value,
            headers: from..buffer.len(),
        });
    }

    /// What was read before a rebalance of a partition that it took away is somebody else's now.
    fn keep_owned(&mut self, owned: &[TopicPartition]) {
        self.close();
        let foreign = |record: &mut Record| {
            let origin = &record.origin;
            !owned
                .iter()
                .any(|p| p.partition == origin.partition && p.topic == origin.topic)
        };
        self.into.extract_if(self.before.., foreign).for_each(drop);
    }

    /// Hands over the records of the open buffer.
    fn close(&mut self) {
        let whole: Bytes = std::mem::take(&mut self.buffer).freeze();
        self.into.extend(self.open.drain(..).map(|raw| Record {
            origin: raw.origin,
            timestamp_ms: raw.timestamp_ms,
            key: raw.key.map(|r| whole.slice(r)),
            value: raw.value.map(|r| whole.slice(r)),
            headers: Headers::from_packed(whole.slice(raw.headers)),
        }));
    }

    /// Hands over what is left.
    pub fn finish(mut self) {
        self.close();
    }
}

pub(super) fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let mut found: Vec<_> = list
        .elements()
        .iter()
        .map(|e| TopicPartition::new(e.topic(), e.partition()))
        .collect();
    found.sort();
    found
}

pub(super) fn list_of(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for p in partitions {
        list.add_partition(&p.topic, p.partition);
    }
    list
}

pub(super) fn offset_list(offsets: &Offsets) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (p, offset) in offsets {
        // An element just added always takes an offset.
        let _ = list.add_partition_offset(&p.topic, p.partition, RdOffset::Offset(*offset));
    }
    list
}

pub(super) fn offsets_of(list: &TopicPartitionList) -> Offsets {
    let known = |e: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match e.offset() {
        RdOffset::Offset(offset) => Some((TopicPartition::new(e.topic(), e.partition()), offset)),
        _ => None,
    };
    list.elements().into_iter().filter_map(known).collect()
}
