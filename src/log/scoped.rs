//! A part of a log under a prefix: topics, groups and transactions of a deployment of its own.
//!
//! Whoever holds a [`Scoped`] log sees the catalogue's names; on the log beneath each has the prefix,
//! so that several deployments share a cluster and none sees another's records. Errors of the log
//! beneath name what is really there.

use super::{
    Admin, Assignment, Consumer, GivenUp, GroupGeneration, GroupSpec, Isolation, Log, LogError,
    Offset, Offsets, Outgoing, Producer, ProducerSpec, Reader, TopicPartition, TopicSpec, Wanted,
};
use crate::pipeline::Record;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Longest prefix: what Kafka allows for a topic's name less the longest of the catalogue's.
const PREFIX_BYTES_MAX: usize = 100;

/// The part of a log whose names begin with a prefix.
pub struct Scoped {
    inner: Arc<dyn Log>,
    prefix: Arc<str>,
    /// Two deployments on one cluster keep apart what they remember of their logs.
    id: String,
    admin: ScopedAdmin,
}

impl Scoped {
    /// The part of `inner` under `prefix`, such as `shop-de.`.
    ///
    /// # Errors
    /// When Kafka would not take the prefix as a part of a topic's name.
    pub fn new(inner: Arc<dyn Log>, prefix: &str) -> Result<Self, LogError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX || !prefix.chars().all(allowed) {
            return Err(LogError::Other(format!(
                "the prefix {prefix:?} cannot begin a topic's name; write at most {PREFIX_BYTES_MAX} of a-z, A-Z, 0-9, '.', '-' and '_'"
            )));
        }
        let prefix: Arc<str> = Arc::from(prefix);
        let admin = ScopedAdmin {
            inner: inner.clone(),
            names: Names::new(&prefix),
        };
        Ok(Scoped {
            id: format!("{}-{prefix}", inner.id()),
            inner,
            prefix,
            admin,
        })
    }
}

/// Both names of the topics met so far.
#[derive(Clone)]
struct Names {
    prefix: Arc<str>,
    known: Vec<(Arc<str>, Arc<str>)>,
}

impl Names {
    fn new(prefix: &Arc<str>) -> Self {
        Names {
            prefix: prefix.clone(),
            known: Vec::new(),
        }
    }
    fn outer(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
    fn outer_partition(&self, partition: &TopicPartition) -> TopicPartition {
        TopicPartition::new(self.outer(&partition.topic), partition.partition)
    }
    fn outer_partitions(&self, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
        partitions.iter().map(|p| self.outer_partition(p)).collect()
    }
    fn outer_offsets(&self, offsets: &Offsets) -> Offsets {
        let each = offsets.iter();
        each.map(|(p, offset)| (self.outer_partition(p), *offset))
            .collect()
    }
    fn inner(&mut self, name: &Arc<str>) -> Arc<str> {
        if let Some((_, inner)) = self.known.iter().find(|(outer, _)| outer == name) {
            return inner.clone();
        }
        let inner: Arc<str> = Arc::from(name.strip_prefix(&*self.prefix).unwrap_or(name));
        self.known.push((name.clone(), inner.clone()));
        inner
    }
    fn inner_partitions(&mut self, partitions: Vec<TopicPartition>) -> Vec<TopicPartition> {
        let each = partitions.into_iter();
        each.map(|p| TopicPartition {
            topic: self.inner(&p.topic),
            partition: p.partition,
        })
        .collect()
    }
    fn inner_offsets(&self, offsets: Offsets) -> Offsets {
        let mut names = self.clone();
        let each = offsets.into_iter();
        each.map(|(p, offset)| {
            let topic = names.inner(&p.topic);
            (TopicPartition::new(topic, p.partition), offset)
        })
        .collect()
    }
    fn inner_records(&mut self, records: &mut [Record]) {
        for record in records {
            record.origin.topic = self.inner(&record.origin.topic);
        }
    }
}

impl Log for Scoped {
    fn consumer(&self, spec: &GroupSpec) -> Result<Box<dyn Consumer>, LogError> {
        let names = Names::new(&self.prefix);
        let spec = GroupSpec {
            group: names.outer(&spec.group),
            topics: spec
                .topics
                .iter()
                .map(|t| Arc::from(names.outer(t)))
                .collect(),
            ..spec.clone()
        };
        let inner = self.inner.consumer(&spec)?;
        Ok(Box::new(ScopedConsumer { inner, names }))
    }
    fn reader(
        &self,
        from: &[(TopicPartition, Offset)],
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        let names = Names::new(&self.prefix);
        let from: Vec<_> = from
            .iter()
            .map(|(p, offset)| (names.outer_partition(p), *offset))
            .collect();
        let inner = self.inner.reader(&from, isolation)?;
        Ok(Box::new(ScopedReader { inner, names }))
    }
    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>, LogError> {
        let names = Names::new(&self.prefix);
        let transactional_id = spec.transactional_id.as_ref().map(|id| names.outer(id));
        let inner = self.inner.producer(&ProducerSpec {
            transactional_id,
            ..spec.clone()
        })?;
        Ok(Box::new(ScopedProducer { inner, names }))
    }
    fn admin(&self) -> &dyn Admin {
        &self.admin
    }
    fn address(&self) -> &str {
        self.inner.address()
    }
    fn id(&self) -> &str {
        &self.id
    }
    fn given_up(&self) -> GivenUp {
        self.inner.given_up()
    }
}

struct ScopedConsumer {
    inner: Box<dyn Consumer>,
    names: Names,
}

impl Consumer for ScopedConsumer {
    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        into: &mut Vec<Record>,
    ) -> Result<Vec<Assignment>, LogError> {
        let before = into.len();
        let changes = self.inner.poll(max, wait, into)?;
        self.names.inner_records(&mut into[before..]);
        let inner = |change| match change {
            Assignment::Gained(p) => Assignment::Gained(self.names.inner_partitions(p)),
            Assignment::Revoked(p) => Assignment::Revoked(self.names.inner_partitions(p)),
            Assignment::Lost(p) => Assignment::Lost(self.names.inner_partitions(p)),
        };
        Ok(changes.into_iter().map(inner).collect())
    }
    fn generation(&self) -> Result<GroupGeneration, LogError> {
        self.inner.generation()
    }
    fn is_joined(&self) -> bool {
        self.inner.is_joined()
    }
    fn owned(&self) -> Vec<TopicPartition> {
        self.names.clone().inner_partitions(self.inner.owned())
    }
    fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), LogError> {
        self.inner
            .seek(&self.names.outer_partition(partition), offset)
    }
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.pause(&self.names.outer_partitions(partitions))
    }
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.resume(&self.names.outer_partitions(partitions))
    }
    fn committed(&self, partitions: &[TopicPartition]) -> Result<Offsets, LogError> {
        let outer = self.names.outer_partitions(partitions);
        Ok(self.names.inner_offsets(self.inner.committed(&outer)?))
    }
    fn commit(&mut self, offsets: &Offsets) -> Result<(), LogError> {
        self.inner.commit(&self.names.outer_offsets(offsets))
    }
    fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), LogError> {
        self.inner
            .watermarks(&self.names.outer_partition(partition))
    }
}

struct ScopedReader {
    inner: Box<dyn Reader>,
    names: Names,
}

impl Reader for ScopedReader {
    fn poll_where(
        &mut self,
        max: usize,
        wait: Duration,
        wanted: &Wanted,
        into: &mut Vec<Record>,
    ) -> Result<usize, LogError> {
        let before = into.len();
        let read = self.inner.poll_where(max, wait, wanted, into)?;
        self.names.inner_records(&mut into[before..]);
        Ok(read)
    }
    fn caught_up(&self) -> bool {
        self.inner.caught_up()
    }
    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.position(&self.names.outer_partition(partition))
    }
}

struct ScopedProducer {
    inner: Box<dyn Producer>,
    names: Names,
}

impl Producer for ScopedProducer {
    fn begin(&mut self) -> Result<(), LogError> {
        self.inner.begin()
    }
    fn send(&mut self, record: Outgoing<'_>) -> Result<(), LogError> {
        let topic = self.names.outer(record.topic);
        self.inner.send(Outgoing {
            topic: &topic,
            ..record
        })
    }
    fn poll(&mut self, wait: Duration) {
        self.inner.poll(wait);
    }
    fn send_offsets(
        &mut self,
        offsets: &Offsets,
        generation: &GroupGeneration,
    ) -> Result<(), LogError> {
        self.inner
            .send_offsets(&self.names.outer_offsets(offsets), generation)
    }
    fn commit(&mut self) -> Result<(), LogError> {
        self.inner.commit()
    }
    fn abort(&mut self) -> Result<(), LogError> {
        self.inner.abort()
    }
    fn flush(&mut self) -> Result<(), LogError> {
        self.inner.flush()
    }
}

struct ScopedAdmin {
    inner: Arc<dyn Log>,
    names: Names,
}

impl Admin for ScopedAdmin {
    fn topics_under(&self, prefix: &str) -> Result<Vec<TopicSpec>, LogError> {
        let all = self.inner.admin().topics_under(&self.names.outer(prefix))?;
        let own = all.into_iter().filter_map(|topic| {
            let name = topic.name.strip_prefix(&*self.names.prefix)?.to_owned();
            Some(TopicSpec { name, ..topic })
        });
        Ok(own.collect())
    }
    fn partitions(&self, topic: &str) -> Result<Option<i32>, LogError> {
        self.inner.admin().partitions(&self.names.outer(topic))
    }
    fn create_all(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        let outer = topics.iter().map(|topic| TopicSpec {
            name: self.names.outer(&topic.name),
            ..topic.clone()
        });
        let outer: Vec<TopicSpec> = outer.collect();
        self.inner.admin().create_all(&outer)
    }
    fn alter(&self, topic: &str, settings: &BTreeMap<String, String>) -> Result<(), LogError> {
        let topic = self.names.outer(topic);
        self.inner.admin().alter(&topic, settings)
    }
    fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), LogError> {
        let partition = self.names.outer_partition(partition);
        self.inner.admin().watermarks(&partition)
    }
    fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<i64, LogError> {
        let partition = self.names.outer_partition(partition);
        self.inner.admin().offset_at(&partition, timestamp_ms)
    }
    fn group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Offsets, LogError> {
        let outer = self.names.outer_partitions(partitions);
        let group = self.names.outer(group);
        let offsets = self.inner.admin().group_offsets(&group, &outer)?;
        Ok(self.names.inner_offsets(offsets))
    }
    fn brokers(&self) -> Result<usize, LogError> {
        self.inner.admin().brokers()
    }
    fn has_member(&self, group: &str, member: &str) -> Result<bool, LogError> {
        let group = self.names.outer(group);
        self.inner.admin().has_member(&group, member)
    }
}
