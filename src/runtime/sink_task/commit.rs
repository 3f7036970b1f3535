//! What a sink commits: receipts, dead letters, outcomes and offsets, in one transaction.

use super::super::lane::Lane;
use super::super::outbox::Failed;
use super::SinkTask;
use crate::contract::receipt_key;
use crate::domain::Timestamp;
use crate::log::{Offsets, Producer, ProducerSpec, TopicPartition};
use crate::pipeline::{Fault, Origin, Record, State};
use crate::telemetry::Committed;
use std::time::Duration;

impl SinkTask {
    pub(super) fn commit_when_due(&mut self) -> Result<(), Fault> {
        let now = self.clock.now();
        let busy = !self.calls.is_empty();
        let waits = busy
            && now.since(self.committed_at) < self.settings.commit_interval_max
            && now >= self.committed_at;
        match waits {
            true => Ok(()),
            false => self.commit(now),
        }
    }

    /// Commits whatever there is to commit.
    pub(super) fn commit(&mut self, now: Timestamp) -> Result<(), Fault> {
        if self.unsettled || !self.lanes.values().any(Lane::has_news) {
            return Ok(());
        }
        self.committed_at = now;
        let mut producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.log.producer(&self.producer_spec())?,
        };
        match self.commit_with(producer.as_mut(), now) {
            Ok(()) => {
                self.producer = Some(producer);
                Ok(())
            }
            Err(failed) => {
                self.accounts.clear();
                for lane in self.lanes.values_mut() {
                    lane.receipts.shard.rollback_to(0);
                }
                if failed.producer_usable && producer.abort().is_ok() {
                    self.producer = Some(producer);
                } else {
                    self.start_over();
                }
                Err(failed.fault)
            }
        }
    }

    pub(super) fn producer_spec(&self) -> ProducerSpec {
        ProducerSpec {
            transactional_id: Some(self.settings.transactional_id(&self.name, 'a')),
            transaction_timeout: self.settings.transaction_timeout,
            linger: Duration::ZERO,
        }
    }

    /// After a transaction whose end is unknown: forget everything that is not in the log.
    fn start_over(&mut self) {
        tracing::warn!(
            sink = self.name,
            "producer rebuilt; receipts and positions are read back from the log"
        );
        self.unsettled = true;
        let lanes = std::mem::take(&mut self.lanes);
        for lane in lanes.values() {
            self.queue.forget(lane.epoch);
        }
        let partitions: Vec<TopicPartition> = lanes.into_keys().collect();
        self.pause(&partitions);
        self.awaiting.extend(partitions);
    }

    fn commit_with(&mut self, producer: &mut dyn Producer, now: Timestamp) -> Result<(), Failed> {
        let generation = self.consumer.generation()?;
        producer.begin()?;
        let mut offsets = Offsets::new();
        let mut oldest_ms = i64::MAX;
        for (partition, lane) in &mut self.lanes {
            let point = lane.commit_point();
            let news = lane.has_news();
            for receipt in &lane.receipts_due {
                let mut value = Vec::new();
                let key = receipt_key(&partition.topic, &receipt.entity_key);
                let event = receipt.clone().into();
                self.codec
                    .encode(&self.receipts_topic, &event, &mut value)?;
                lane.receipts.shard.put(key.as_bytes(), &value);
                self.outbox.send_to(
                    producer,
                    &self.receipts_topic,
                    Some(partition.partition),
                    &key,
                    &event,
                    None,
                    now,
                )?;
            }
            for (offset, settled) in lane.settled.range(..point) {
                let origin = Origin {
                    topic: partition.topic.clone(),
                    partition: partition.partition,
                    offset: *offset,
                };
                oldest_ms = oldest_ms.min(settled.timestamp_ms);
                self.accounts
                    .settle(&origin, settled.outcome, settled.reason);
            }
            for (origin, outcome, reason) in &lane.later {
                self.accounts.note(origin, "", *outcome, *reason);
            }
            let passed = |r: &Record| r.origin.offset < point;
            for (record, fault, attempts) in lane.dead.iter().filter(|(r, _, _)| passed(r)) {
                let tried = (fault, *attempts as i32);
                let is_held = lane.kind.blocks_key && !record.is_replayed();
                let blocks_key = is_held && record.key.is_some();
                self.outbox
                    .dead_letter(producer, record, tried, blocks_key, now)?;
            }
            for entry in lane.parking.unsaved(point) {
                self.outbox.park(producer, &self.park_topic, &entry, now)?;
            }
            for park_key in lane.parking.gone() {
                let number = partition.partition;
                self.outbox
                    .unpark(producer, &self.park_topic, number, park_key, now)?;
            }
            let facts = lane.facts.range(..point).flat_map(|(_, facts)| facts);
            for fact in facts.chain(&lane.facts_due) {
                self.outbox
                    .send_stamped(producer, fact.topic, &fact.key, &fact.event, now)?;
            }
            if news {
                offsets.insert(partition.clone(), point);
            }
        }
        let outcomes = self.accounts.tally();
        self.accounts
            .write(&self.name, &mut self.outbox, producer, now)?;
        producer.flush()?;
        producer.send_offsets(&offsets, &generation)?;
        producer.commit()?;
        for (partition, lane) in &mut self.lanes {
            lane.committed(offsets.get(partition).copied());
        }
        let committed = Committed {
            records: outcomes.values().sum(),
            outcomes,
            took: self.clock.now().since(now),
        };
        self.telemetry.committed(&self.name, &committed);
        if committed.records > 0 {
            self.tell_age(Some(oldest_ms));
        }
        Ok(())
    }
}
