//! A log that counts what is written through it, and gives all of that to whoever reads.
//!
//! A broker hands out a record some time after its transaction has committed. Whoever drives tasks by
//! hand must not take the next step before: *nothing came* would mean *nothing is there*, and what a
//! task hears after the step would depend on how fast the broker is. So a poll here comes back empty
//! only once everything that was committed has been handed out, as on the log in this process.
//!
//! That needs a log that nobody else writes to and that throws nothing away.

use super::tally::{Counts, Tally};
use crate::log::{
    Admin, Assignment, Consumer, GivenUp, GroupGeneration, GroupSpec, Isolation, Log, LogError,
    Offset, Offsets, Outgoing, Producer, ProducerSpec, Reader, TopicPartition, Wanted,
};
use crate::pipeline::Record;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for records that are on their way from a broker.
const PATIENCE: Duration = Duration::from_secs(30);
/// Wait for them at a time.
const WAIT: Duration = Duration::from_millis(10);

/// A log whose transactions are counted, and whose readers miss nothing.
pub(super) struct Prompt {
    pub inner: Arc<dyn Log>,
    pub tally: Tally,
    /// Whether what has been committed may still be on its way.
    pub is_distant: bool,
}

impl Log for Prompt {
    fn consumer(&self, spec: &GroupSpec) -> Result<Box<dyn Consumer>, LogError> {
        let inner = self.inner.consumer(spec)?;
        if !self.is_distant {
            return Ok(inner);
        }
        Ok(Box::new(PromptConsumer {
            inner,
            group: spec.group.clone(),
            tally: self.tally.clone(),
            places: BTreeMap::new(),
            paused: BTreeSet::new(),
        }))
    }
    fn reader(
        &self,
        from: &[(TopicPartition, Offset)],
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        let inner = self.inner.reader(from, isolation)?;
        // Of what begins elsewhere it is not known how much there is.
        let is_whole = from.iter().all(|(_, at)| *at == Offset::Beginning);
        if !self.is_distant || !is_whole {
            return Ok(inner);
        }
        Ok(Box::new(PromptReader {
            inner,
            partitions: from.iter().map(|(p, _)| p.clone()).collect(),
            tally: self.tally.clone(),
            read: 0,
        }))
    }
    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>, LogError> {
        Ok(Box::new(CountedProducer {
            inner: self.inner.producer(spec)?,
            open: Counts::default(),
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
    fn given_up(&self) -> GivenUp {
        self.inner.given_up()
    }
}

struct PromptConsumer {
    inner: Box<dyn Consumer>,
    group: String,
    tally: Tally,
    places: BTreeMap<TopicPartition, Place>,
    paused: BTreeSet<TopicPartition>,
}

/// How far a partition has been handed out.
#[derive(Default)]
struct Place {
    /// Different records.
    count: u64,
    /// The offset behind the last of them.
    next: i64,
    /// Handed out again from an earlier offset on, and not yet up to `next`.
    again: bool,
}

impl PromptConsumer {
    fn note(&mut self, records: &[Record]) {
        for record in records {
            let at = TopicPartition {
                topic: record.origin.topic.clone(),
                partition: record.origin.partition,
            };
            let place = self.places.entry(at).or_default();
            let next = record.origin.offset + 1;
            if next > place.next {
                place.count += 1;
                place.next = next;
            }
            place.again &= next < place.next;
        }
    }

    /// What was handed out from this offset on comes again.
    fn goes_back(&mut self, partition: &TopicPartition, offset: i64) {
        if let Some(place) = self.places.get_mut(partition) {
            place.again |= offset < place.next;
        }
    }

    fn take_in(&mut self, changes: &[Assignment]) -> Result<(), LogError> {
        for change in changes {
            let Assignment::Gained(gained) = change else {
                continue;
            };
            self.paused.retain(|p| !gained.contains(p));
            let known = gained.iter().filter(|p| self.places.contains_key(p));
            let known: Vec<TopicPartition> = known.cloned().collect();
            if known.is_empty() {
                continue;
            }
            let committed = self.inner.committed(&known)?;
            for partition in &known {
                let from = committed.get(partition).copied().unwrap_or(0);
                self.goes_back(partition, from);
            }
        }
        Ok(())
    }

    /// An owned partition of which something committed has not been handed out.
    fn missing(&self) -> Option<TopicPartition> {
        let owned = self.inner.owned().into_iter();
        let mut running = owned.filter(|p| !self.paused.contains(p));
        running.find(|partition| match self.places.get(partition) {
            Some(place) => place.again || place.count < self.tally.at(partition),
            None => self.tally.at(partition) > 0,
        })
    }
}

impl Consumer for PromptConsumer {
    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        into: &mut Vec<Record>,
    ) -> Result<Vec<Assignment>, LogError> {
        let (before, began) = (into.len(), Instant::now());
        let mut wait = wait;
        loop {
            let changes = self.inner.poll(max, wait, into)?;
            self.note(&into[before..]);
            self.take_in(&changes)?;
            if max == 0 || into.len() > before || !changes.is_empty() {
                return Ok(changes);
            }
            let Some(missing) = self.missing() else {
                return Ok(changes);
            };
            if began.elapsed() > PATIENCE {
                return Err(LogError::TimedOut(format!(
                    "group {} has waited {} s for a record of {missing} that is committed; look at the brokers' log",
                    self.group,
                    PATIENCE.as_secs()
                )));
            }
            wait = WAIT;
        }
    }
    fn generation(&self) -> Result<GroupGeneration, LogError> {
        self.inner.generation()
    }
    fn is_joined(&self) -> bool {
        self.inner.is_joined()
    }
    fn owned(&self) -> Vec<TopicPartition> {
        self.inner.owned()
    }
    fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), LogError> {
        self.inner.seek(partition, offset)?;
        self.goes_back(partition, offset);
        Ok(())
    }
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.pause(partitions)?;
        self.paused.extend(partitions.iter().cloned());
        Ok(())
    }
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.resume(partitions)?;
        self.paused.retain(|p| !partitions.contains(p));
        Ok(())
    }
    fn committed(&self, partitions: &[TopicPartition]) -> Result<Offsets, LogError> {
        self.inner.committed(partitions)
    }
    fn commit(&mut self, offsets: &Offsets) -> Result<(), LogError> {
        self.inner.commit(offsets)
    }
    fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), LogError> {
        self.inner.watermarks(partition)
    }
}

struct PromptReader {
    inner: Box<dyn Reader>,
    partitions: Vec<TopicPartition>,
    tally: Tally,
    read: u64,
}

impl Reader for PromptReader {
    fn poll_where(
        &mut self,
        max: usize,
        wait: Duration,
        wanted: &Wanted,
        into: &mut Vec<Record>,
    ) -> Result<usize, LogError> {
        let began = Instant::now();
        let mut wait = wait;
        loop {
            let read = self.inner.poll_where(max, wait, wanted, into)?;
            self.read += read as u64;
            let committed: u64 = self.partitions.iter().map(|p| self.tally.at(p)).sum();
            if read > 0 || max == 0 || self.read >= committed {
                return Ok(read);
            }
            if began.elapsed() > PATIENCE {
                return Err(LogError::TimedOut(format!(
                    "{} of {committed} committed records could be read within {} s; look at the brokers' log",
                    self.read,
                    PATIENCE.as_secs()
                )));
            }
            wait = WAIT;
        }
    }
    fn caught_up(&self) -> bool {
        self.inner.caught_up()
    }
    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.position(partition)
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
        self.tally.note(&record, &mut self.open);
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
