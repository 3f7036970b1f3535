//! What a sink reads: assignment, receipts, records into the queue.
//!
//! Changes of assignment are noted; what they call for is done by [`SinkTask::align`], which looks at
//! what is missing and can be called again after a fault at any point of it.

use super::super::lane::Lane;
use super::super::partition::{Kept, Partition};
use super::super::queue::Waiting;
use super::{DEAD_MAX, POLL_RECORDS, SETTLED_MAX, SinkTask};
use crate::contract::event::{Outcome, Text};
use crate::contract::receipt_key;
use crate::log::{Assignment, TopicPartition};
use crate::pipeline::{Code, Fault, Inbound, Record, Stage, Verdict};
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
        if self.astray {
            for (partition, lane) in &self.lanes {
                self.consumer.seek(partition, lane.read_to)?;
            }
            self.astray = false;
        }
        let now = self.clock.now();
        let mut progress = None;
        for (partition, lane) in &mut self.lanes {
            if let Some((read, total)) = lane.receipts.restore_progress() {
                let (r, t) = progress.unwrap_or((0, 0));
                progress = Some((r + read, t + total));
                let wait = Duration::from_millis(5);
                if lane.receipts.take_in(wait, &mut self.scratch, now)? {
                    self.consumer.resume(std::slice::from_ref(partition))?;
                }
            }
        }
        Ok(progress)
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
            let changelog = TopicPartition::new(self.receipts_topic.as_str(), partition.partition);
            let log = self.log.as_ref();
            let receipts = Partition::restoring(log, changelog, Kept::Nowhere, self.clock.now())?
                .only(receipt_key(&partition.topic, ""));
            self.consumer.pause(std::slice::from_ref(&partition))?;
            self.consumer.seek(&partition, from)?;
            let epoch = self.queue.next_epoch();
            self.awaiting.remove(&partition);
            let lane = Lane::new(&partition.topic, receipts, from, epoch);
            self.lanes.insert(partition, lane);
        }
        Ok(())
    }

    pub(super) fn read(&mut self) -> Result<usize, Fault> {
        let held: usize = self.lanes.values().map(|l| l.settled.len()).sum();
        let dead: usize = self.lanes.values().map(|l| l.dead.len()).sum();
        let room = self
            .settings
            .queue_records_max
            .saturating_sub(self.waiting())
            .min(SETTLED_MAX.saturating_sub(held))
            .min(DEAD_MAX.saturating_sub(dead))
            .min(POLL_RECORDS);
        // What comes from a place that is not the lanes' would be taken for what follows.
        let room = if self.astray { 0 } else { room };
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
        if !lane.receipts.ready() {
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
                return self.refuse(partition, record, fault);
            }
            Some(Err(_)) => {
                let fault = Fault::reject(Stage::Decode, Code::WrongKey, "the key is not UTF-8");
                return self.refuse(partition, record, fault);
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
                return self.refuse(partition, record, fault);
            }
            Err(fault) => return Err(fault),
        };
        lane.read_to = offset + 1;
        let inbound = Inbound { record, event };
        if !self.sink.wants(&inbound) {
            lane.settle(&inbound.record, Outcome::Applied, None);
            return Ok(());
        }
        lane.open.insert(offset, inbound.record.timestamp_ms);
        let urgency = self.sink.urgency(&inbound);
        let waiting = Waiting {
            partition: partition.clone(),
            epoch: lane.epoch,
            inbound,
            attempt: 0,
            since: self.clock.now(),
        };
        if let Some(older) = self.queue.push(key, waiting, urgency) {
            self.settle(
                &older,
                Outcome::Superseded,
                Some("a newer record of the key replaced it"),
            );
        }
        Ok(())
    }

    /// Dead-letters a record that can never be taken in.
    fn refuse(
        &mut self,
        partition: &TopicPartition,
        record: Record,
        fault: Fault,
    ) -> Result<(), Fault> {
        tracing::warn!(sink = self.name, record = %record.origin, code = %fault.code, cause = fault.message, "record dead-lettered");
        self.telemetry.fault(&self.name, fault.code);
        if let Some(lane) = self.lanes.get_mut(partition) {
            lane.read_to = record.origin.offset + 1;
            lane.bury(record, fault, 1);
        }
        Ok(())
    }
}
