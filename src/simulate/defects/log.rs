//! Defects at the log's port.

use super::super::watched::Watched;
use super::Defect;
use crate::contract::topic;
use crate::demo::systems::open;
use crate::log::{
    Admin, Assignment, Consumer, GroupGeneration, GroupSpec, Isolation, Log, LogError, Offset,
    Offsets, Outgoing, Producer, ProducerSpec, Reader, TopicPartition, Wanted,
};
use crate::pipeline::{Headers, Record};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Changelog records taken in where state is used before all of it is there.
const HALF: usize = 10;
/// How much too new kept state is taken for.
const TOO_NEW: i64 = 4;

/// The log, used wrongly.
pub(super) struct Flawed {
    inner: Arc<dyn Log>,
    defect: Defect,
    handed: Handed,
    admin: Watched,
}

impl Flawed {
    pub fn new(inner: Arc<dyn Log>, defect: Defect) -> Self {
        let admin = Watched::new(inner.clone(), move |admin, partition| {
            let (first, end) = admin.watermarks(partition)?;
            match defect {
                Defect::CheckpointTooNew => Ok((first, end + TOO_NEW)),
                _ => Ok((first, end)),
            }
        });
        Flawed {
            inner,
            defect,
            handed: Handed::default(),
            admin,
        }
    }
}

/// What was handed out last of each partition.
type Handed = Arc<Mutex<Offsets>>;

fn is_changelog(topic: &str) -> bool {
    topic.starts_with("retail.rt.") && topic.ends_with(".state.v1")
}

impl Log for Flawed {
    fn consumer(&self, spec: &GroupSpec) -> Result<Box<dyn Consumer>, LogError> {
        let mut spec = spec.clone();
        if self.defect == Defect::ReadUncommitted {
            spec.isolation = Isolation::ReadUncommitted;
        }
        Ok(Box::new(FlawedConsumer {
            inner: self.inner.consumer(&spec)?,
            defect: self.defect,
            handed: self.handed.clone(),
        }))
    }
    fn reader(
        &self,
        from: &[(TopicPartition, Offset)],
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        let (mut from, mut isolation) = (from.to_vec(), isolation);
        match self.defect {
            Defect::RestoreUncommitted => isolation = Isolation::ReadUncommitted,
            Defect::SkipsDifference => {
                for (at, offset) in &mut from {
                    let first = self.inner.admin().watermarks(at)?.0;
                    if is_changelog(&at.topic) && *offset != Offset::At(first) {
                        *offset = Offset::End;
                    }
                }
            }
            _ => {}
        }
        let half = self.defect == Defect::HalfRestored
            && from.iter().all(|(at, _)| is_changelog(&at.topic));
        let inner = self.inner.reader(&from, isolation)?;
        Ok(match half {
            true => Box::new(HalfReader { inner, left: HALF }),
            false => inner,
        })
    }
    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>, LogError> {
        Ok(Box::new(FlawedProducer {
            inner: self.inner.producer(spec)?,
            log: self.inner.clone(),
            spec: spec.clone(),
            defect: self.defect,
            count: 0,
            handed: self.handed.clone(),
            kept: Vec::new(),
            aborted: false,
            expelled: false,
        }))
    }
    fn admin(&self) -> &dyn Admin {
        &self.admin
    }
    fn address(&self) -> &str {
        self.inner.address()
    }
    fn id(&self) -> &str {
        self.inner.id()
    }
}

struct FlawedConsumer {
    inner: Box<dyn Consumer>,
    defect: Defect,
    handed: Handed,
}

impl Consumer for FlawedConsumer {
    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        into: &mut Vec<Record>,
    ) -> Result<Vec<Assignment>, LogError> {
        let before = into.len();
        let changes = self.inner.poll(max, wait, into)?;
        for record in &into[before..] {
            let origin = &record.origin;
            let at = TopicPartition::new(origin.topic.clone(), origin.partition);
            open(&self.handed).insert(at, origin.offset + 1);
        }
        if self.defect == Defect::Reversed {
            into[before..].reverse();
        }
        Ok(changes)
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
        match self.defect {
            Defect::NoSeek => Ok(()),
            _ => self.inner.seek(partition, offset),
        }
    }
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.pause(partitions)
    }
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.resume(partitions)
    }
    fn committed(&self, partitions: &[TopicPartition]) -> Result<Offsets, LogError> {
        let mut offsets = self.inner.committed(partitions)?;
        if self.defect == Defect::OldOffsets {
            offsets.values_mut().for_each(|o| *o = (*o - 1).max(0));
        }
        Ok(offsets)
    }
    fn commit(&mut self, offsets: &Offsets) -> Result<(), LogError> {
        self.inner.commit(offsets)
    }
    fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), LogError> {
        self.inner.watermarks(partition)
    }
}

/// Says that all was read after the first few records.
struct HalfReader {
    inner: Box<dyn Reader>,
    left: usize,
}

impl Reader for HalfReader {
    fn poll_where(
        &mut self,
        max: usize,
        wait: Duration,
        wanted: &Wanted,
        into: &mut Vec<Record>,
    ) -> Result<usize, LogError> {
        let read = self
            .inner
            .poll_where(max.min(self.left), wait, wanted, into)?;
        self.left -= read;
        Ok(read)
    }
    fn caught_up(&self) -> bool {
        true
    }
    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.position(partition)
    }
}

/// A record that is written later.
struct Kept {
    topic: String,
    partition: Option<i32>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Headers,
    timestamp_ms: i64,
}

impl Kept {
    fn of(record: &Outgoing<'_>) -> Kept {
        Kept {
            topic: record.topic.to_owned(),
            partition: record.partition,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.clone(),
            timestamp_ms: record.timestamp_ms,
        }
    }
}

struct FlawedProducer {
    inner: Box<dyn Producer>,
    log: Arc<dyn Log>,
    spec: ProducerSpec,
    defect: Defect,
    count: u64,
    handed: Handed,
    /// Records of the open transaction that are written later, or perhaps again.
    kept: Vec<Kept>,
    /// The transaction is taken for aborted.
    aborted: bool,
    /// The group has gone on without this member, which goes on as well.
    expelled: bool,
}

impl FlawedProducer {
    /// Every so many of what it is asked about.
    fn every(&mut self, number: u64) -> bool {
        self.count += 1;
        self.count.is_multiple_of(number)
    }

    /// A transaction of its own, with offsets alone.
    fn offsets_alone(
        &self,
        offsets: &Offsets,
        generation: &GroupGeneration,
    ) -> Result<(), LogError> {
        let id = self.spec.transactional_id.clone().unwrap_or_default();
        let mut alone = self.log.producer(&ProducerSpec {
            transactional_id: Some(format!("{id}-alone")),
            ..self.spec.clone()
        })?;
        alone.begin()?;
        alone.send_offsets(offsets, generation)?;
        alone.commit()
    }

    /// Writes what was kept in a transaction of its own, without offsets.
    fn write_kept(&mut self) -> Result<(), LogError> {
        let kept = std::mem::take(&mut self.kept);
        if kept.is_empty() {
            return Ok(());
        }
        self.inner.begin()?;
        for record in &kept {
            self.inner.send(Outgoing {
                topic: &record.topic,
                partition: record.partition,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &record.headers,
                timestamp_ms: record.timestamp_ms,
            })?;
        }
        self.inner.commit()
    }
}

impl Producer for FlawedProducer {
    fn begin(&mut self) -> Result<(), LogError> {
        self.kept.clear();
        self.inner.begin()
    }
    fn send(&mut self, record: Outgoing<'_>) -> Result<(), LogError> {
        let of_runtime = record.topic.starts_with("retail.rt.");
        let booked = record.topic == topic::OPS_DISPOSITION;
        let output = !of_runtime && !booked && record.topic != topic::OPS_HEARTBEAT;
        let lost = match self.defect {
            Defect::DropsDisposition => booked && self.every(9),
            Defect::LosesTombstones => record.value.is_none(),
            Defect::ForgetsChangelog => is_changelog(record.topic) && self.every(9),
            Defect::LosesOutputs => output && self.every(9),
            Defect::CursorLater if record.topic == topic::SOURCE_CURSOR => {
                self.kept.push(Kept::of(&record));
                true
            }
            Defect::ZombieCommits | Defect::AbortCommits => {
                self.kept.push(Kept::of(&record));
                false
            }
            _ => false,
        };
        if lost {
            return Ok(());
        }
        let keyed = output && record.partition.is_none();
        let astray = self.defect == Defect::WrongPartition && keyed && self.every(9);
        match self.defect {
            Defect::OutputsAtOnce if output => {
                let mut plain = self.log.producer(&ProducerSpec::default())?;
                plain.send(record)
            }
            Defect::WrongPartition if astray => {
                let elsewhere = Outgoing {
                    partition: Some(0),
                    ..record
                };
                self.inner.send(elsewhere)
            }
            _ => self.inner.send(record),
        }
    }
    fn poll(&mut self, wait: Duration) {
        self.inner.poll(wait);
    }
    fn send_offsets(
        &mut self,
        offsets: &Offsets,
        generation: &GroupGeneration,
    ) -> Result<(), LogError> {
        match self.defect {
            Defect::OffsetsFirst => self.offsets_alone(offsets, generation),
            Defect::ZombieCommits => match self.inner.send_offsets(offsets, generation) {
                Err(LogError::Abort(_)) => {
                    self.inner.abort()?;
                    self.expelled = true;
                    Ok(())
                }
                other => other,
            },
            Defect::PastGap => {
                let (mut past, read) = (offsets.clone(), open(&self.handed).clone());
                for (at, offset) in &mut past {
                    *offset = read.get(at).copied().unwrap_or_default().max(*offset);
                }
                self.inner.send_offsets(&past, generation)
            }
            _ => self.inner.send_offsets(offsets, generation),
        }
    }
    fn commit(&mut self) -> Result<(), LogError> {
        if std::mem::take(&mut self.expelled) {
            return self.write_kept();
        }
        let committed = self.inner.commit();
        match (self.defect, committed) {
            (Defect::TrustsCommit, Err(LogError::Fatal(_))) => {
                self.inner = self.log.producer(&self.spec)?;
                Ok(())
            }
            (Defect::UnknownIsAborted, Err(LogError::Fatal(why))) => {
                self.inner = self.log.producer(&self.spec)?;
                self.aborted = true;
                Err(LogError::Abort(why))
            }
            (Defect::CursorLater, Ok(())) => self.write_kept(),
            (_, committed) => committed,
        }
    }
    fn abort(&mut self) -> Result<(), LogError> {
        if std::mem::take(&mut self.aborted) {
            return Ok(());
        }
        self.inner.abort()?;
        match self.defect {
            Defect::AbortCommits => self.write_kept(),
            _ => Ok(()),
        }
    }
    fn flush(&mut self) -> Result<(), LogError> {
        self.inner.flush()
    }
}
