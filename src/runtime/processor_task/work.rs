//! What happens to the records of one transaction: decoded, handed to the processor key by key, its
//! outputs sent and its outcomes booked.

use super::super::batch::Batch;
use super::super::outbox::Failed;
use super::{Extra, ProcessorTask};
use crate::contract::event::Outcome;
use crate::domain::Timestamp;
use crate::log::Producer;
use crate::pipeline::{Code, Context, Fault, Inbound, Output, Record, Stage, Verdict};

impl ProcessorTask {
    pub(super) fn handle(
        &mut self,
        batch: &Batch,
        producer: &mut dyn Producer,
        extra: &[Extra],
        now: Timestamp,
    ) -> Result<(), Failed> {
        let groups = batch.groups();
        for (number, key, head) in groups.iter() {
            self.decode_group(batch, key, groups.members(head), producer, now)?;
            if let (false, Ok(key)) = (self.group.is_empty(), std::str::from_utf8(key)) {
                self.call(number, key, None, producer, now)?;
            }
        }
        for e in extra {
            // A key with records in this batch has been looked at; its timer, if still set, is
            // handled by the next step.
            if !groups.contains(e.partition, e.key.as_bytes()) {
                self.group.clear();
                self.call(e.partition, &e.key, e.due, producer, now)?;
            }
        }
        self.write_parked(producer, now)
    }

    /// Fills `self.group` with the decoded records of one key; dead-letters those that cannot be.
    fn decode_group(
        &mut self,
        batch: &Batch,
        key: &[u8],
        members: impl Iterator<Item = usize>,
        producer: &mut dyn Producer,
        now: Timestamp,
    ) -> Result<(), Failed> {
        self.group.clear();
        let no_key = match std::str::from_utf8(key) {
            Ok("") => Some((
                Code::NullKey,
                "the record has no key; the producer must set the key of its topic's family",
            )),
            Ok(_) => None,
            Err(_) => Some((Code::WrongKey, "the key is not UTF-8")),
        };
        for index in members {
            let record = &batch.records[index];
            let readable = match no_key {
                Some((code, message)) => Err(Fault::reject(Stage::Decode, code, message)),
                None => self
                    .outbox
                    .check_input(record)
                    .and_then(|()| self.codec.decode(record)),
            };
            match readable {
                Ok(event) => self.group.push(Inbound {
                    record: record.clone(),
                    event,
                }),
                Err(fault) if fault.verdict == Verdict::Reject => {
                    self.dead_letter(record, &fault, producer, now)?
                }
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(())
    }

    /// Calls the processor for one key and writes what it has to say.
    fn call(
        &mut self,
        number: i32,
        key: &str,
        due: Option<Timestamp>,
        producer: &mut dyn Producer,
        now: Timestamp,
    ) -> Result<(), Failed> {
        let Some(partition) = self.holdings.partition_mut(number) else {
            return Ok(());
        };
        let savepoint = partition.shard.savepoint();
        let mut output = std::mem::take(&mut self.output);
        let mut context = Context::new(&mut partition.shard, &mut output, now);
        match due {
            None => self.processor.process(key, &self.group, &mut context)?,
            Some(due) => self.processor.timer(key, due, &mut context)?,
        }
        let trace = self
            .group
            .first()
            .and_then(|i| i.record.headers.text("traceparent"));
        match self.outbox.encode_all(&mut output.emissions, trace, now) {
            Ok(()) => self.outbox.send_encoded(producer, now)?,
            Err(fault) if fault.code == Code::Oversize && !self.group.is_empty() => {
                // The outputs of these records cannot be written, so nothing of them may stay.
                partition.shard.rollback_to(savepoint);
                let group = std::mem::take(&mut self.group);
                for inbound in &group {
                    self.dead_letter(&inbound.record, &fault, producer, now)?;
                }
                output.clear();
                (self.group, self.output) = (group, output);
                return Ok(());
            }
            Err(fault) => return Err(fault.into()),
        }
        self.book(key, &mut output, producer, now)?;
        for (key, due) in output.timers.drain(..) {
            self.staged_timers.push((number, key, due));
        }
        output.clear();
        self.output = output;
        Ok(())
    }

    /// Books the outcome of every record of the group: exactly one each.
    fn book(
        &mut self,
        key: &str,
        output: &mut Output,
        producer: &mut dyn Producer,
        now: Timestamp,
    ) -> Result<(), Failed> {
        self.settled.clear();
        self.settled.resize(self.group.len(), 0u8);
        for s in &output.settlements {
            let Some(inbound) = self.group.get(s.index) else {
                return Err(unsettled(self.name, s.index).into());
            };
            if s.effect.is_empty() {
                self.settled[s.index] += 1;
                self.accounts
                    .settle(&inbound.record.origin, s.outcome, s.reason);
                if s.outcome == Outcome::Parked {
                    self.parked.add(&inbound.record);
                }
            } else if s.outcome != Outcome::Applied {
                self.accounts
                    .note(&inbound.record.origin, s.effect, s.outcome, s.reason);
            }
        }
        for (index, fault) in output.rejections.drain(..) {
            let Some(inbound) = self.group.get(index) else {
                return Err(unsettled(self.name, index).into());
            };
            self.settled[index] += 1;
            let record = inbound.record.clone();
            self.dead_letter(&record, &fault, producer, now)?;
        }
        for r in output.resolutions.drain(..) {
            if r.outcome == Outcome::Parked {
                self.parked.add_from_log(r.origin.clone(), key);
            }
            self.accounts
                .note(&r.origin, r.effect, r.outcome, Some("resolved"));
        }
        for origin in output.unparked.drain(..) {
            self.parked.remove(origin, key);
        }
        match self.settled.iter().position(|count| *count != 1) {
            None => Ok(()),
            Some(index) => Err(unsettled(self.name, index).into()),
        }
    }

    fn dead_letter(
        &mut self,
        record: &Record,
        fault: &Fault,
        producer: &mut dyn Producer,
        now: Timestamp,
    ) -> Result<(), Failed> {
        tracing::warn!(processor = self.name, record = %record.origin, code = %fault.code, cause = fault.message, "record dead-lettered");
        self.accounts.settle(
            &record.origin,
            Outcome::DeadLettered,
            Some(fault.code.as_str()),
        );
        self.rejected.push(fault.code);
        self.outbox
            .dead_letter(producer, record, (fault, 1), false, now)
    }
}

fn unsettled(processor: &str, index: usize) -> Fault {
    Fault::halt(
        Stage::Process,
        Code::Bug,
        format!("{processor} did not settle record {index} of a group exactly once"),
    )
}
