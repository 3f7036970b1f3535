//! Counts what is written: a log that knows how many records of each topic were committed.
//!
//! Whoever drives a landscape asks it whether a task has read all there is. On Kafka the end of a
//! partition does not tell, for the markers of transactions take offsets too.

use crate::log::{
    Admin, Consumer, GroupGeneration, GroupSpec, Isolation, Log, LogError, Offset, Offsets,
    Outgoing, Producer, ProducerSpec, Reader, TopicPartition,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

type Counts = BTreeMap<String, u64>;

/// Records committed through one log, by topic.
#[derive(Clone, Default)]
pub(super) struct Tally(Arc<Mutex<Counts>>);

impl Tally {
    /// Records of these topics, together.
    pub fn written<'a>(&self, topics: impl IntoIterator<Item = &'a str>) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |topic: &str| counts.get(topic).copied().unwrap_or_default();
        topics.into_iter().map(count).sum()
    }

    /// Records of every topic.
    pub fn total(&self) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.values().sum()
    }

    fn add(&self, committed: &Counts) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, count) in committed {
            *counts.entry(topic.clone()).or_default() += count;
        }
    }
}

/// A log whose transactions are counted.
pub(super) struct Counted {
    pub inner: Arc<dyn Log>,
    pub tally: Tally,
}

impl Log for Counted {
    fn consumer(&self, spec: &GroupSpec) -> Result<Box<dyn Consumer>, LogError> {
        self.inner.consumer(spec)
    }
    fn reader(
        &self,
        from: &[(TopicPartition, Offset)],
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        self.inner.reader(from, isolation)
    }
    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>, LogError> {
        Ok(Box::new(CountedProducer {
            inner: self.inner.producer(spec)?,
            open: Counts::new(),
            tally: self.tally.clone(),
        }))
    }
    fn admin(&self) -> &dyn Admin {
        self.inner.admin()
    }
    fn address(&self) -> &str {
        self.inner.address()
    }
    fn id(&self) -> &str {
        self.inner.id()
    }
}

struct CountedProducer {
    inner: Box<dyn Producer>,
    /// Records of the open transaction.
    open: Counts,
    tally: Tally,
}

impl Producer for CountedProducer {
    fn begin(&mut self) -> Result<(), LogError> {
        self.open.clear();
        self.inner.begin()
    }
    fn send(&mut self, record: Outgoing<'_>) -> Result<(), LogError> {
        self.inner.send(record)?;
        match self.open.get_mut(record.topic) {
            Some(count) => *count += 1,
            None => {
                self.open.insert(record.topic.to_owned(), 1);
            }
        }
        Ok(())
    }
    fn poll(&mut self, wait: Duration) {
        self.inner.poll(wait);
    }
    fn send_offsets(
        &mut self,
        offsets: &Offsets,
        generation: &GroupGeneration,
    ) -> Result<(), LogError> {
        self.inner.send_offsets(offsets, generation)
    }
    fn commit(&mut self) -> Result<(), LogError> {
        self.inner.commit()?;
        self.tally.add(&self.open);
        Ok(())
    }
    fn abort(&mut self) -> Result<(), LogError> {
        self.inner.abort()
    }
    fn flush(&mut self) -> Result<(), LogError> {
        self.inner.flush()
    }
}
