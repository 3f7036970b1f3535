//! Counts what is written, by partition.
//!
//! On Kafka the end of a partition does not tell how many records stand in it, for the markers of
//! transactions take offsets too.

use crate::log::{Log, LogError, Outgoing, TopicPartition, partition_for};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Records by topic and partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts(BTreeMap<String, Vec<u64>>);

impl Counts {
    fn at(&mut self, topic: &str, partition: i32) -> &mut u64 {
        let all = self.0.entry(topic.to_owned()).or_default();
        let index = usize::try_from(partition).unwrap_or(0);
        if all.len() <= index {
            all.resize(index + 1, 0);
        }
        &mut all[index]
    }
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Records committed through one log.
#[derive(Clone, Default)]
pub(super) struct Tally {
    counts: Arc<Mutex<Counts>>,
    /// Partitions of each topic: where a key goes.
    partitions: Arc<BTreeMap<String, i32>>,
}

impl Tally {
    /// Of the topics that a log has now; others are taken to have one partition.
    pub fn of(log: &dyn Log) -> Result<Tally, LogError> {
        let topics = log.admin().topics()?.into_iter();
        Ok(Tally {
            counts: Arc::default(),
            partitions: Arc::new(topics.map(|t| (t.name, t.partitions)).collect()),
        })
    }

    /// Records of these topics, together.
    pub fn written<'a>(&self, topics: impl IntoIterator<Item = &'a str>) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let all = topics.into_iter().filter_map(|topic| counts.0.get(topic));
        all.flatten().sum()
    }

    /// Records of every topic.
    pub fn total(&self) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.0.values().flatten().sum()
    }

    /// Records of a partition.
    pub fn at(&self, partition: &TopicPartition) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_topic = counts.0.get(&*partition.topic);
        let index = usize::try_from(partition.partition).unwrap_or(0);
        of_topic
            .and_then(|all| all.get(index))
            .copied()
            .unwrap_or(0)
    }

    /// Counts a record that is not committed yet.
    pub fn note(&self, record: &Outgoing<'_>, open: &mut Counts) {
        let count = self.partitions.get(record.topic).copied().unwrap_or(1);
        let by_key = || partition_for(record.key.unwrap_or_default(), count);
        *open.at(record.topic, record.partition.unwrap_or_else(by_key)) += 1;
    }

    /// What was counted has been committed.
    pub fn add(&self, committed: &Counts) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, all) in &committed.0 {
            for (partition, count) in (0..).zip(all) {
                *counts.at(topic, partition) += count;
            }
        }
    }
}
