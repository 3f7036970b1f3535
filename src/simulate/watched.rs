//! What is asked of a log apart from records, with one question in between: where partitions begin and end.

use crate::log::{Admin, Log, LogError, Offsets, TopicPartition, TopicSpec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// First offset and end of a partition.
type Ends = Result<(i64, i64), LogError>;
/// How it is asked for.
type Ask = dyn Fn(&dyn Admin, &TopicPartition) -> Ends + Send + Sync;

/// The administration of `inner`, whose answer to [`Admin::watermarks`] is asked for through `ends`.
pub(super) struct Watched {
    inner: Arc<dyn Log>,
    ends: Box<Ask>,
}

impl Watched {
    pub fn new(
        inner: Arc<dyn Log>,
        ends: impl Fn(&dyn Admin, &TopicPartition) -> Ends + Send + Sync + 'static,
    ) -> Self {
        let ends = Box::new(ends);
        Watched { inner, ends }
    }
}

impl Admin for Watched {
    fn topics_under(&self, prefix: &str) -> Result<Vec<TopicSpec>, LogError> {
        self.inner.admin().topics_under(prefix)
    }
    fn partitions(&self, topic: &str) -> Result<Option<i32>, LogError> {
        self.inner.admin().partitions(topic)
    }
    fn create_all(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        self.inner.admin().create_all(topics)
    }
    fn alter(&self, topic: &str, settings: &BTreeMap<String, String>) -> Result<(), LogError> {
        self.inner.admin().alter(topic, settings)
    }
    fn watermarks(&self, partition: &TopicPartition) -> Ends {
        (self.ends)(self.inner.admin(), partition)
    }
    fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<i64, LogError> {
        self.inner.admin().offset_at(partition, timestamp_ms)
    }
    fn group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Offsets, LogError> {
        self.inner.admin().group_offsets(group, partitions)
    }
    fn has_member(&self, group: &str, member: &str) -> Result<bool, LogError> {
        self.inner.admin().has_member(group, member)
    }
    fn brokers(&self) -> Result<usize, LogError> {
        self.inner.admin().brokers()
    }
}
