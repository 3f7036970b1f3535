//! What a sink calls: the most urgent of what waits, within what the target allows.

use super::super::parking::Parked;
use super::super::queue::{Doubt, Waiting};
use super::SinkTask;
use crate::contract::event::{Outcome, SinkOutcome, Text};
use crate::domain::Timestamp;
use crate::log::TopicPartition;
use crate::pipeline::{Ack, Delivery, Fault, Inbound, Verdict, requests};

/// Of the calls at a time, this part may be tries of parked keys.
const PARKED_PART: usize = 4;

/// Calls that have come to an end.
pub(super) struct Finished {
    pub deliveries: Vec<(Read, Delivery)>,
    pub results: Vec<Result<Ack, Fault>>,
    /// Requests that it took.
    pub requests: u32,
}

/// What is known of a delivery besides what its sink is told.
pub(super) struct Read {
    pub partition: TopicPartition,
    /// Which ownership of the partition it was read under.
    pub epoch: u64,
    /// When it first failed, or else was read.
    pub since: Timestamp,
    /// Whether an earlier call may have had its effect.
    pub doubt: Doubt,
    /// Whether a receipt says that the call is meant.
    is_meant: bool,
}

impl SinkTask {
    /// Brings parked keys whose time has come to where what waits is taken from.
    pub(super) fn wake_parked(&mut self, now: Timestamp) {
        if self.parked_rest() {
            return;
        }
        let calls_max = self
            .sink
            .capabilities()
            .calls_max
            .min(self.settings.calls_max);
        let trying: usize = self.lanes.values().map(|l| l.parking.trying()).sum();
        let part = match self.target.is_down() {
            true => 1,
            false => (calls_max / PARKED_PART).max(1),
        };
        let room = part.saturating_sub(trying);
        for _ in 0..room {
            let lanes = self.lanes.iter();
            let first = lanes.filter_map(|(p, l)| Some((l.parking.next_due()?, p)));
            let Some((_, partition)) = first.min().filter(|(at, _)| *at <= now) else {
                return;
            };
            let partition = partition.clone();
            let lane = self.lanes.get(&partition);
            if let Some(key) = lane.and_then(|l| l.parking.first_due()) {
                self.wake_key(&partition, &key, now);
            }
        }
    }

    /// Whether parked keys are left alone: a target that is down is probed by what waits, and only where
    /// nothing does, by one of them.
    pub(super) fn parked_rest(&self) -> bool {
        self.target.is_down() && (self.queue.is_waiting() || self.queue.next_wake().is_some())
    }

    fn wake_key(&mut self, partition: &TopicPartition, key: &Text, now: Timestamp) {
        let Some(lane) = self.lanes.get_mut(partition) else {
            return;
        };
        // What is replayed may come while a call for a later record is under way, whose end decides whether it
        // is sent at all.
        let first = lane.parking.first(key);
        let is_replayed = first.is_some_and(|p| p.record.is_replayed());
        if (is_replayed && self.queue.is_called(key)) || lane.is_overtaken(&self.codec, key) {
            lane.parking.put_off(key, now.plus(self.backoff.first));
            return;
        }
        let Some(Parked {
            record,
            since,
            attempts,
            ..
        }) = lane.parking.try_first(key).cloned()
        else {
            return;
        };
        let event = match self.codec.decode(&record) {
            Ok(event) => event,
            Err(fault) if fault.verdict == Verdict::Reject => {
                tracing::warn!(sink = self.name, key = %key, code = %fault.code, cause = fault.message, "record dead-lettered");
                self.telemetry.fault(&self.name, fault.code);
                lane.parking.ended(key, now);
                lane.bury(Some(key), &record, fault, attempts, now);
                return;
            }
            Err(fault) => {
                let wait = self.backoff.longest;
                tracing::info!(sink = self.name, key = %key, %fault, "parked key put off");
                lane.parking.put_off(key, now.plus(wait));
                return;
            }
        };
        let is_newer_known = || {
            let called_for = lane.called_for(&self.codec, key);
            called_for > Some(record.origin.offset) || lane.parking.has_newer(key)
        };
        if is_replayed && lane.kind.whole_state && is_newer_known() {
            tracing::info!(sink = self.name, key = %key, record = %record.origin, "not replayed: a newer state of the key was sent, or waits");
            lane.parking.ended(key, now);
            return;
        }
        let inbound = Inbound { record, event };
        // An edit may have made it somebody else's.
        if !self.sink.wants(&inbound) {
            lane.parking.ended(key, now);
            lane.conclude(&inbound.record, Outcome::Applied, None);
            return;
        }
        let urgency = self.sink.urgency(&inbound);
        let waiting = Waiting {
            partition: partition.clone(),
            epoch: lane.epoch,
            inbound,
            attempt: attempts,
            since,
            // What is replayed has been told of.
            doubt: match is_replayed {
                true => Doubt::Told,
                false => Doubt::None,
            },
        };
        // Nothing else of the key waits there: what came later stands in the line.
        let replaced = self.queue.push(key.clone(), waiting, urgency);
        debug_assert!(replaced.is_none(), "{key} is parked and waits as well");
    }

    /// Makes as many calls as the target allows. Those that must be known of are written down first.
    pub(super) fn dispatch(&mut self, now: Timestamp) -> Result<(), Fault> {
        let records_max = self.sink.capabilities().batch_records_max.max(1);
        let mut meant = Vec::new();
        while self.target.room(self.calls.len() + meant.len(), now) > 0 {
            let deliveries = self.batch(records_max);
            if deliveries.is_empty() {
                break;
            }
            self.target.called();
            match deliveries.iter().all(|(read, _)| read.is_meant) {
                true => self.call(deliveries),
                false => meant.push(deliveries),
            }
        }
        if meant.is_empty() {
            return Ok(());
        }
        let written = self.mean(&mut meant, now);
        for deliveries in meant {
            match written {
                Ok(()) => self.call(deliveries),
                Err(_) => self.put_back(deliveries, now),
            }
        }
        written
    }

    /// The most urgent that wait, at most one call's.
    fn batch(&mut self, records_max: usize) -> Vec<(Read, Delivery)> {
        let mut deliveries = Vec::new();
        while deliveries.len() < records_max {
            let next = match self.target.is_down() {
                true => self.queue.pop_fresh(),
                false => self.queue.pop(),
            };
            let Some((key, waiting)) = next else {
                break;
            };
            let Some(lane) = self.lanes.get_mut(&waiting.partition) else {
                self.queue
                    .done(&waiting.partition.topic, &key, waiting.epoch);
                continue;
            };
            let offset = waiting.inbound.record.origin.offset;
            let is_parked = lane.parking.tried(&key, offset).is_some();
            let last = lane.last_sent(&self.codec, &key);
            let is_meant = last.written.is_some_and(|w| w.tells_of(offset, is_parked))
                || !self.sink.is_meant_first(&waiting.inbound);
            let doubt = match (waiting.doubt, last.seen) {
                (Doubt::None, Some(seen)) if seen.tells_of(offset, is_parked) => seen.doubt(offset),
                (doubt, _) => doubt,
            };
            // What is replayed is looked for at the target, whatever was sent.
            let sent = last.sent.filter(|_| !waiting.inbound.record.is_replayed());
            let delivery = Delivery {
                key,
                inbound: waiting.inbound,
                sent,
                attempt: waiting.attempt + 1,
                in_doubt: doubt != Doubt::None,
            };
            let read = Read {
                partition: waiting.partition,
                epoch: waiting.epoch,
                since: waiting.since,
                doubt,
                is_meant,
            };
            deliveries.push((read, delivery));
        }
        deliveries
    }

    fn call(&mut self, deliveries: Vec<(Read, Delivery)>) {
        let sink = self.sink.clone();
        self.calls.push(Box::pin(async move {
            let batch: Vec<Delivery> = deliveries.iter().map(|(_, d)| d.clone()).collect();
            let (results, requests) = requests::counted(sink.write(&batch)).await;
            Finished {
                deliveries,
                results,
                requests,
            }
        }));
    }

    /// Writes down that these calls are meant, in a transaction of its own: whoever comes next knows that
    /// they may have been made.
    fn mean(&mut self, calls: &mut [Vec<(Read, Delivery)>], now: Timestamp) -> Result<(), Fault> {
        for (read, delivery) in calls.iter_mut().flatten().filter(|(r, _)| !r.is_meant) {
            if let Some(lane) = self.lanes.get_mut(&read.partition) {
                let waiting = Waiting::of(read, delivery);
                let sent = delivery.sent.as_ref();
                let intent = SinkOutcome::Intent;
                lane.meant(
                    &self.outbox,
                    &self.name,
                    &waiting,
                    &delivery.key,
                    sent,
                    intent,
                    now,
                );
            }
            read.is_meant = true;
        }
        self.commit(now)
    }

    fn put_back(&mut self, deliveries: Vec<(Read, Delivery)>, now: Timestamp) {
        for (read, delivery) in deliveries {
            let waiting = Waiting {
                attempt: delivery.attempt - 1,
                ..Waiting::of(&read, &delivery)
            };
            self.queue
                .done(&read.partition.topic, &delivery.key, read.epoch);
            if self
                .lanes
                .get(&read.partition)
                .is_some_and(|l| l.epoch == read.epoch)
            {
                let urgency = self.sink.urgency(&waiting.inbound);
                let until = now.plus(self.backoff.first);
                self.queue.delay(delivery.key, waiting, until, urgency);
            }
        }
    }
}

impl Waiting {
    /// What was given out, as it waited.
    pub(super) fn of(read: &Read, delivery: &Delivery) -> Waiting {
        Waiting {
            partition: read.partition.clone(),
            epoch: read.epoch,
            inbound: delivery.inbound.clone(),
            attempt: delivery.attempt,
            since: read.since,
            doubt: read.doubt,
        }
    }
}
