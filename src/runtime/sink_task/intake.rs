//! What a sink reads: assignment, receipts, records into the queue.
//!
//! Changes of assignment are noted; what they call for is done by [`SinkTask::align`], which looks at
//! what is missing and can be called again after a fault at any point of it.

use super::super::lane::Lane;
use super::super::lane::REPLACED;
use super::super::parking::{BEHIND, Parked};
use super::super::partition::{Kept, Partition};
use super::super::queue::{CLASSES, Doubt, Waiting};
use super::{DEAD_MAX, PARKED_RECORDS_MAX, POLL_RECORDS, SETTLED_MAX, SinkTask};
use crate::contract::event::{Outcome, Text};
use crate::contract::receipt_key;
use crate::log::{Assignment, TopicPartition};
use crate::pipeline::{Code, Fault, Inbound, REDRIVEN_FROM_HEADER, Record, Stage, Verdict};
use std::collections::BTreeSet;
use std::time::Duration;

impl SinkTask {
    /// Does a bounded part of what is missing before every owned partition can be read. Gives
    /// receipts read and to be read, while there are any.
    pub(super) fn align(&mut self) -> Result<Option<(u64, u64)>, Fault> {
        if self.unsettled {
            self.producer = Some(self.log.producer(&self.producer_spec())?);
            self.unsettled = false;
        }
        self.open_lanes()?;
        self.share_target()?;
        if self.astray {
            for (partition, lane) in &self.lanes {
                self.consumer.seek(partition, lane.read_to)?;
            }
            self.astray = false;
        }
        let now = self.clock.now();
        let mut progress = None;
        let mut stopped = None;
        for (partition, lane) in &mut self.lanes {
            if let Some((read, total)) = lane.restore_progress() {
                let (r, t) = progress.unwrap_or((0, 0));
                progress = Some((r + read, t + total));
                let wait = Duration::from_millis(5);
                let topic = &self.park_topic;
                if lane.take_in(&self.codec, topic, wait, &mut self.scratch, now)?
                    && !self.held_back[lane.kind.class]
                    && let Err(error) = self.consumer.resume(std::slice::from_ref(partition))
                {
                    stopped = Some((partition.clone(), error));
                    break;
                }
            }
        }
        if let Some((partition, error)) = stopped {
            // Opened again, and resumed then: nobody looks at a lane that is whole.
            if let Some(lane) = self.lanes.remove(&partition) {
                self.queue.forget(lane.epoch);
            }
            self.awaiting.insert(partition);
            return Err(error.into());
        }
        Ok(progress)
    }

    /// Takes as much of the target's budget, and of the probes, as this member has of the partitions.
    fn share_target(&mut self) -> Result<(), Fault> {
        let owned = self.lanes.len() + self.awaiting.len();
        if self.shared == owned {
            return Ok(());
        }
        let topics = self.log.admin().topics()?;
        let read = topics.iter().filter(|t| self.queue.reads(&t.name));
        let all: i32 = read.map(|t| t.partitions).sum();
        let share = owned as f64 / f64::from(all.max(1));
        self.target.owns(share, self.clock.now());
        self.shared = owned;
        Ok(())
    }

    /// Finds out where the group stands in newly owned partitions, and begins to read their
    /// receipts.
    fn open_lanes(&mut self) -> Result<(), Fault> {
        if self.awaiting.is_empty() {
            return Ok(());
        }
        let partitions: Vec<TopicPartition> = self.awaiting.iter().cloned().collect();
        let committed = self.consumer.committed(&partitions)?;
        for partition in partitions {
            let from = match committed.get(&partition) {
                Some(offset) => *offset,
                None => self.consumer.watermarks(&partition)?.0,
            };
            let number = partition.partition;
            let changelog = TopicPartition::new(self.receipts_topic.as_str(), number);
            let parked = TopicPartition::new(self.park_topic.clone(), number);
            let (log, now) = (self.log.as_ref(), self.clock.now());
            // Both are keyed by the topic and what follows.
            let prefix = receipt_key(&partition.topic, "");
            let receipts = Partition::restoring(log, changelog, Kept::Nowhere, now)?;
            let receipts = receipts.only(prefix.clone());
            let (first, end) = log.admin().watermarks(&parked)?;
            let parked = match first == end {
                true => Err(end),
                false => Ok(Partition::restoring(log, parked, Kept::Nowhere, now)?.only(prefix)),
            };
            self.consumer.pause(std::slice::from_ref(&partition))?;
            self.consumer.seek(&partition, from)?;
            let epoch = self.queue.next_epoch();
            self.awaiting.remove(&partition);
            let kind = self.queue.kind(&partition.topic);
            let lane = Lane::new(&partition.topic, kind, receipts, parked, from, epoch);
            self.lanes.insert(partition, lane);
        }
        Ok(())
    }

    pub(super) fn read(&mut self) -> Result<usize, Fault> {
        self.hold_back()?;
        let room = self.room();
        let mut records = std::mem::take(&mut self.scratch);
        records.clear();
        let polled = self.consumer.poll(room, Duration::ZERO, &mut records);
        match polled {
            Ok(changes) => changes.into_iter().for_each(|change| self.note(change)),
            Err(error) => {
                self.astray = true;
                return Err(error.into());
            }
        }
        let count = records.len();
        let mut first: Option<Fault> = None;
        let mut waiting: BTreeSet<TopicPartition> = BTreeSet::new();
        for record in records.drain(..) {
            let partition = TopicPartition {
                topic: record.origin.topic.clone(),
                partition: record.origin.partition,
            };
            // Behind a record that cannot be taken in now its partition waits, and only that.
            if waiting.contains(&partition) {
                continue;
            }
            if let Err(fault) = self.take(&partition, record) {
                self.astray = true;
                first.get_or_insert(fault);
                waiting.insert(partition);
            }
        }
        self.scratch = records;
        first.map_or(Ok(count), Err)
    }

    /// How many records may be read now.
    fn room(&self) -> usize {
        let held: usize = self.lanes.values().map(|l| l.settled.len()).sum();
        let dead: usize = self.lanes.values().map(|l| l.dead.len()).sum();
        let parked = self.parked();
        // What comes from a place that is not the lanes' would be taken for what follows. A target that is
        // down needs no more than something to probe it with.
        if self.astray
            || parked.bytes >= self.settings.parked_bytes_max
            || (self.target.is_down() && self.queue.has_fresh())
        {
            return 0;
        }
        self.settings
            .queue_records_max
            .saturating_sub(self.waiting())
            .min(SETTLED_MAX.saturating_sub(held))
            .min(DEAD_MAX.saturating_sub(dead))
            .min(PARKED_RECORDS_MAX.saturating_sub(parked.records))
            .min(POLL_RECORDS)
    }

    /// Keeps the classes of service to their parts of what may wait, so that a flood of a lower one leaves
    /// room for a higher one: reads no more of a class that has filled its part, until half of it is gone.
    fn hold_back(&mut self) -> Result<(), Fault> {
        let mut waiting = [0; CLASSES];
        for lane in self.lanes.values() {
            waiting[lane.kind.class] += lane.open.len();
        }
        for (class, waiting) in waiting.into_iter().enumerate().skip(1) {
            let part = self.settings.queue_records_max * (CLASSES - class) / CLASSES;
            let holds = match self.held_back[class] {
                true => waiting > part / 2,
                false => waiting >= part.max(1),
            };
            if holds == self.held_back[class] {
                continue;
            }
            let lanes = self.lanes.iter();
            let of_class = lanes.filter(|(_, l)| l.kind.class == class && l.ready());
            let partitions: Vec<TopicPartition> = of_class.map(|(p, _)| p.clone()).collect();
            match holds {
                true => self.consumer.pause(&partitions)?,
                false => self.consumer.resume(&partitions)?,
            }
            self.held_back[class] = holds;
        }
        Ok(())
    }

    /// Takes note of a change of assignment.
    fn note(&mut self, change: Assignment) {
        match change {
            Assignment::Gained(gained) => {
                tracing::info!(sink = self.name, count = gained.len(), "partitions gained");
                self.pause(&gained);
                self.awaiting.extend(gained);
            }
            Assignment::Revoked(gone) | Assignment::Lost(gone) => {
                tracing::info!(sink = self.name, count = gone.len(), "partitions given up");
                for partition in gone {
                    self.awaiting.remove(&partition);
                    if let Some(lane) = self.lanes.remove(&partition) {
                        self.queue.forget(lane.epoch);
                    }
                }
            }
        }
    }

    /// What a partition without a lane gives is dropped, and read again once it has one.
    pub(super) fn pause(&mut self, partitions: &[TopicPartition]) {
        if let Err(error) = self.consumer.pause(partitions) {
            tracing::warn!(sink = self.name, %error, "partitions not paused");
        }
    }

    fn take(&mut self, partition: &TopicPartition, record: Record) -> Result<(), Fault> {
        let Some(lane) = self.lanes.get_mut(partition) else {
            return Ok(());
        };
        let offset = record.origin.offset;
        if !lane.ready() {
            self.astray = true;
            return Ok(());
        }
        if offset < lane.read_to {
            return Ok(());
        }
        let key = match record.key.as_deref().map(std::str::from_utf8) {
            None | Some(Ok("")) => {
                let words =
                    "the record has no key; the producer must set the key of its topic's family";
                let fault = Fault::reject(Stage::Decode, Code::NullKey, words);
                return self.refuse(partition, None, record, fault);
            }
            Some(Err(_)) => {
                let fault = Fault::reject(Stage::Decode, Code::WrongKey, "the key is not UTF-8");
                return self.refuse(partition, None, record, fault);
            }
            Some(Ok(key)) => Text::from(key),
        };
        let decoded = self
            .outbox
            .check_input(&record)
            .and_then(|()| self.codec.decode(&record));
        let event = match decoded {
            Ok(event) => event,
            Err(fault) if fault.verdict == Verdict::Reject => {
                return self.refuse(partition, Some(&key), record, fault);
            }
            Err(fault) => return Err(fault),
        };
        lane.read_to = offset + 1;
        let inbound = Inbound { record, event };
        // A record that is redriven goes before what waits for it, whatever the sink makes of it.
        let letters = self.outbox.dead_letter_topic();
        let is_redriven = inbound.record.headers.text(REDRIVEN_FROM_HEADER);
        let is_redriven = is_redriven.is_some_and(|from| from.starts_with(letters));
        let now = self.clock.now();
        if is_redriven && lane.parking.replace_dead(&key, &inbound.record, now) {
            lane.settle(&inbound.record, Outcome::Parked, Some(BEHIND));
            return Ok(());
        }
        if !self.sink.wants(&inbound) {
            lane.settle(&inbound.record, Outcome::Applied, None);
            return Ok(());
        }
        if lane.parking.holds(&key) {
            let parked = Parked::behind(&inbound.record, now);
            lane.park(&key, parked, BEHIND, now);
            return Ok(());
        }
        lane.open.insert(offset, inbound.record.timestamp_ms);
        let urgency = self.sink.urgency(&inbound);
        let waiting = Waiting {
            partition: partition.clone(),
            epoch: lane.epoch,
            inbound,
            attempt: 0,
            since: now,
            doubt: Doubt::None,
        };
        if let Some(older) = self.queue.push(key, waiting, urgency)
            && let Some(lane) = self.lanes.get_mut(&older.partition)
        {
            lane.settle(&older.inbound.record, Outcome::Superseded, Some(REPLACED));
        }
        Ok(())
    }

    /// Dead-letters a record that can never be taken in.
    fn refuse(
        &mut self,
        partition: &TopicPartition,
        key: Option<&Text>,
        record: Record,
        fault: Fault,
    ) -> Result<(), Fault> {
        tracing::warn!(sink = self.name, record = %record.origin, code = %fault.code, cause = fault.message, "record dead-lettered");
        self.telemetry.fault(&self.name, fault.code);
        if let Some(lane) = self.lanes.get_mut(partition) {
            lane.read_to = record.origin.offset + 1;
            lane.bury(key, &record, fault, 1, self.clock.now());
        }
        Ok(())
    }
}
