//! What becomes of a record once its call has come to an end.

use super::super::lane::{Lane, REPLACED};
use super::super::parking::{BEHIND, Parked};
use super::super::queue::{Doubt, Waiting};
use super::SinkTask;
use super::calls::Finished;
use crate::contract::event::{Outcome, SinkOutcome, Text};
use crate::domain::Timestamp;
use crate::log::TopicPartition;
use crate::pipeline::{Ack, Code, Fault, Stage, Verdict};

impl SinkTask {
    pub(super) fn finish(&mut self, finished: Finished) -> Result<usize, Fault> {
        let now = self.clock.now();
        let count = finished.deliveries.len();
        self.target.spent(finished.requests.saturating_sub(1));
        self.telemetry.calls(&self.name, finished.requests.max(1));
        if finished.results.len() != count {
            let message = format!(
                "{} answered {} results for {count} records",
                self.name,
                finished.results.len()
            );
            return Err(Fault::halt(Stage::Write, Code::Bug, message));
        }
        let mut halted = None;
        for ((read, delivery), result) in finished.deliveries.into_iter().zip(finished.results) {
            let waiting = Waiting::of(&read, &delivery);
            let newer = self
                .queue
                .done(&waiting.partition.topic, &delivery.key, waiting.epoch);
            let owned = |lane: &&mut Lane| lane.epoch == waiting.epoch;
            if self
                .lanes
                .get_mut(&waiting.partition)
                .filter(owned)
                .is_none()
            {
                continue;
            }
            match result {
                Ok(ack) => self.answered(&delivery.key, &waiting, &ack, now),
                Err(fault) => {
                    self.telemetry.fault(&self.name, fault.code);
                    match fault.verdict {
                        Verdict::Reject => self.rejected(&delivery.key, &waiting, fault, now),
                        Verdict::Retry { .. } => {
                            self.failed(&delivery.key, waiting, &fault, newer, now);
                        }
                        Verdict::Halt => {
                            let until = now.plus(self.backoff.longest);
                            self.target.halted(until);
                            self.again(&delivery.key, waiting, &fault, until);
                            halted = Some(fault);
                        }
                    }
                }
            }
        }
        halted.map_or(Ok(count), Err)
    }

    /// The target has taken the record, or had taken it before.
    fn answered(&mut self, key: &Text, waiting: &Waiting, ack: &Ack, now: Timestamp) {
        self.is_well(now);
        let outcome = match ack.outcome {
            SinkOutcome::StaleSkipped => Outcome::Superseded,
            SinkOutcome::DuplicateAcked => Outcome::Duplicate,
            _ => Outcome::Applied,
        };
        if let Some(lane) = self.lanes.get_mut(&waiting.partition) {
            lane.answered(&self.outbox, &self.name, key, waiting, ack, now);
        }
        let erased = ack.digest.as_deref() == Some(Ack::ERASED);
        let reason = erased.then_some("the person was erased");
        self.conclude(key, waiting, outcome, reason, now);
        // What waits for it under the same key of another topic may go now.
        let here = &waiting.partition;
        for (partition, lane) in &mut self.lanes {
            if partition.partition == here.partition && partition.topic != here.topic {
                lane.parking.wake(key, now);
            }
        }
    }

    /// The target has refused the record for good.
    fn rejected(&mut self, key: &Text, waiting: &Waiting, fault: Fault, now: Timestamp) {
        self.is_well(now);
        // What is replayed has been told of.
        let facts = match waiting.inbound.record.is_replayed() {
            true => Vec::new(),
            false => self.sink.refused(&waiting.inbound, &fault),
        };
        let (code, cause) = (fault.code, fault.message.clone());
        let is_meant_first = self.sink.is_meant_first(&waiting.inbound);
        let Some(lane) = self.lanes.get_mut(&waiting.partition) else {
            return;
        };
        let record = &waiting.inbound.record;
        if is_meant_first {
            let sent = lane.last_sent(&self.codec, key).sent;
            let rejected = SinkOutcome::Rejected;
            lane.meant(
                &self.outbox,
                &self.name,
                waiting,
                key,
                sent.as_ref(),
                rejected,
                now,
            );
        }
        if lane.parking.tried(key, record.origin.offset).is_some() {
            lane.parking.ended(key, now);
        }
        if facts.is_empty() {
            tracing::warn!(sink = self.name, key = %key, %code, cause, "record dead-lettered");
            lane.bury(Some(key), record, fault, waiting.attempt, now);
            self.queue_up(key, &waiting.partition, now);
        } else {
            tracing::warn!(sink = self.name, key = %key, %code, cause, "refused, which is told");
            lane.refused(record, code.as_str(), facts);
        }
    }

    /// The call was not answered, or not now.
    fn failed(&mut self, key: &Text, waiting: Waiting, fault: &Fault, newer: bool, now: Timestamp) {
        let Verdict::Retry { after } = fault.verdict else {
            return;
        };
        let offset = waiting.inbound.record.origin.offset;
        let lane = self.lanes.get(&waiting.partition);
        let is_parked = lane.is_some_and(|l| l.parking.tried(key, offset).is_some());
        let newer = newer || lane.is_some_and(|l| is_parked && l.parking.has_newer(key));
        let mut waiting = waiting;
        if waiting.attempt == 1 {
            waiting.since = now;
        }
        let pace = if is_parked {
            &self.patience
        } else {
            &self.backoff
        };
        let wait = after.unwrap_or_else(|| pace.wait(key.as_bytes(), waiting.attempt));
        let until = now.plus(wait);
        match fault.code {
            // That something else has to come first is an answer.
            Code::TooEarly => self.is_well(now),
            _ if after.is_some() || fault.code == Code::Throttled => self.target.throttled(until),
            // The target is well as far as anybody knows; a parked key says nothing against that.
            _ if is_parked => {}
            _ => {
                if self.target.failed(key, now) {
                    tracing::warn!(sink = self.name, code = %fault.code, cause = fault.message, "the target is down: it is probed, and nothing else is read for it");
                }
            }
        }
        match waiting.doubt {
            Doubt::None | Doubt::Possible if fault.code == Code::OutcomeUnknown => {
                waiting.doubt = Doubt::Untold;
                self.doubt(key, &waiting, now);
            }
            // The target was asked again, and still nobody knows.
            Doubt::Untold => {
                waiting.doubt = Doubt::Told;
                let facts = self.sink.doubted(&waiting.inbound);
                if let Some(lane) = self.lanes.get_mut(&waiting.partition) {
                    lane.facts_due.extend(facts);
                }
            }
            Doubt::None | Doubt::Possible | Doubt::Told => {}
        }
        tracing::info!(sink = self.name, key = %key, attempt = waiting.attempt, wait_ms = wait.as_millis() as u64, code = %fault.code, cause = fault.message, "will try again");
        if newer {
            self.conclude(key, &waiting, Outcome::Superseded, Some(REPLACED), now);
        } else if !is_parked && self.is_the_keys_own(&waiting, fault) {
            self.park(key, &waiting, fault, until, now);
        } else {
            self.again(key, waiting, fault, until);
        }
    }

    /// Whether the fault is the key's affair: it was tried often enough, and others were answered
    /// meanwhile.
    fn is_the_keys_own(&self, waiting: &Waiting, fault: &Fault) -> bool {
        waiting.attempt >= self.settings.tries_in_place_max
            && fault.code != Code::Throttled
            && !self.target.is_down()
            && self.target.has_answered_since(waiting.since)
    }

    /// Writes down that nobody knows whether the call had its effect.
    fn doubt(&mut self, key: &Text, waiting: &Waiting, now: Timestamp) {
        if let Some(lane) = self.lanes.get_mut(&waiting.partition) {
            let sent = lane.last_sent(&self.codec, key).sent;
            let unknown = SinkOutcome::OutcomeUnknown;
            lane.meant(
                &self.outbox,
                &self.name,
                waiting,
                key,
                sent.as_ref(),
                unknown,
                now,
            );
        }
    }

    /// Tries the record again at `until`, where it waited before.
    fn again(&mut self, key: &Text, waiting: Waiting, fault: &Fault, until: Timestamp) {
        let offset = waiting.inbound.record.origin.offset;
        if let Some(lane) = self.lanes.get_mut(&waiting.partition) {
            if lane.parking.tried(key, offset).is_some() {
                lane.parking.failed(key, fault, waiting.attempt, until);
                return;
            }
            // What is replayed came while the call was under way.
            if lane.parking.holds(key) {
                self.park(key, &waiting, fault, until, self.clock.now());
                return;
            }
        }
        let urgency = self.sink.urgency(&waiting.inbound);
        self.queue.delay(key.clone(), waiting, until, urgency);
    }

    /// Parks the key: what waits of it stands in line behind the record.
    fn park(
        &mut self,
        key: &Text,
        waiting: &Waiting,
        fault: &Fault,
        until: Timestamp,
        now: Timestamp,
    ) {
        let record = &waiting.inbound.record;
        tracing::warn!(sink = self.name, key = %key, record = %record.origin, code = %fault.code, cause = fault.message, "key parked: it is tried again by itself, and nothing else waits for it");
        let parked = Parked::failed(record, waiting.since, fault, waiting.attempt);
        if let Some(lane) = self.lanes.get_mut(&waiting.partition) {
            lane.park(key, parked, fault.code.as_str(), until);
        }
        self.queue_up(key, &waiting.partition, now);
    }

    /// Moves what waits of a key behind what is parked of it, where its key is held up.
    pub(super) fn queue_up(&mut self, key: &Text, partition: &TopicPartition, now: Timestamp) {
        let Some(lane) = self.lanes.get_mut(partition) else {
            return;
        };
        if !lane.parking.holds(key) {
            return;
        }
        for later in self.queue.take_line(&partition.topic, key) {
            let record = &later.inbound.record;
            if lane.parking.tried(key, record.origin.offset).is_some() {
                lane.parking.put_off(key, now);
            } else {
                lane.park(key, Parked::behind(record, now), BEHIND, now);
            }
        }
    }

    /// Ends a record, in its line too where it is parked.
    fn conclude(
        &mut self,
        key: &Text,
        waiting: &Waiting,
        outcome: Outcome,
        reason: Option<&'static str>,
        now: Timestamp,
    ) {
        let record = &waiting.inbound.record;
        if let Some(lane) = self.lanes.get_mut(&waiting.partition) {
            if lane.parking.tried(key, record.origin.offset).is_some() {
                lane.parking.ended(key, now);
            }
            lane.conclude(record, outcome, reason);
        }
    }

    fn is_well(&mut self, now: Timestamp) {
        if self.target.answered(now) {
            tracing::info!(sink = self.name, "the target answers again");
        }
    }
}
