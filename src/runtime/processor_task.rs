//! A processor task: a set of co-numbered partitions, their state, a transactional producer.
//!
//! One batch is one transaction. The batch is read under one group generation; outputs, changelog,
//! dispositions and input offsets commit under that generation or not at all.

use super::Progress;
use super::accounts::Accounts;
use super::batch::Batch;
use super::outbox::{Failed, Outbox};
use super::partition::Partition;
use super::settings::TaskSettings;
use super::tables::Tables;
use crate::codec::Codec;
use crate::contract::Catalogue;
use crate::contract::event::{Outcome, Text};
use crate::domain::Timestamp;
use crate::log::{
    Assignment, Consumer, GroupGeneration, GroupSpec, Isolation, Log, Offsets, Producer,
    ProducerSpec, TopicPartition,
};
use crate::pipeline::{
    Clock, Code, Context, Fault, Inbound, Output, Processor, Record, Stage, Verdict,
};
use crate::telemetry::Telemetry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of input that a transaction gathers at most.
const BATCH_BYTES_MAX: usize = 32 << 20;
/// Timers, and entities looked at again, that one step handles at most.
const EXTRA_MAX: usize = 5_000;
/// How often the ends of the changelogs are noted, from which a restart reads on.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(5);
/// How often tables are looked at while there is other work.
const TABLE_INTERVAL: Duration = Duration::from_millis(50);

/// What a task is made of.
pub struct ProcessorTask {
    processor: Box<dyn Processor>,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    codec: Arc<Codec>,
    telemetry: Arc<Telemetry>,
    settings: TaskSettings,
    name: &'static str,
    changelog: String,
    consumer: Box<dyn Consumer>,
    /// Two producers take turns, so that a transaction need not wait for the markers of the last.
    producers: [Option<Box<dyn Producer>>; 2],
    lane: usize,
    owned: BTreeSet<TopicPartition>,
    /// Up to where the group has committed each owned partition.
    positions: Offsets,
    partitions: BTreeMap<i32, Partition>,
    /// State of partitions given up in a rebalance under way, which often brings them back.
    retained: BTreeMap<i32, Partition>,
    tables: Tables,
    tables_followed_at: Option<Timestamp>,
    outbox: Outbox,
    accounts: Accounts,
    batch: Batch,
    output: Output,
    group: Vec<Inbound>,
    settled: Vec<u8>,
    staged_timers: Vec<(i32, Text, Option<Timestamp>)>,
    scratch: Vec<Record>,
}

impl ProcessorTask {
    /// Joins the processor's group. Partitions come, and are restored, in the steps that follow.
    ///
    /// # Errors
    /// When the log cannot be reached or a table topic is missing.
    pub fn new(
        processor: Box<dyn Processor>,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        codec: Arc<Codec>,
        catalogue: &Catalogue,
        telemetry: Arc<Telemetry>,
        settings: TaskSettings,
    ) -> Result<Self, Fault> {
        let descriptor = processor.descriptor();
        let name = descriptor.name;
        let consumer = log.consumer(&GroupSpec {
            group: settings.group(name),
            member: settings.member(name),
            topics: descriptor.inputs.iter().map(|t| Arc::from(*t)).collect(),
            protocol: settings.protocol,
            session_timeout: settings.session_timeout,
            max_poll_interval: Duration::from_secs(300),
            isolation: Isolation::ReadCommitted,
        })?;
        let tables = Tables::open(&log, descriptor.tables)?;
        Ok(ProcessorTask {
            changelog: catalogue.state_topic(name),
            outbox: Outbox::new(codec.clone(), catalogue, name),
            processor,
            log,
            clock,
            codec,
            telemetry,
            settings,
            name,
            consumer,
            producers: [None, None],
            lane: 0,
            owned: BTreeSet::new(),
            positions: Offsets::new(),
            partitions: BTreeMap::new(),
            retained: BTreeMap::new(),
            tables,
            tables_followed_at: None,
            accounts: Accounts::default(),
            batch: Batch::default(),
            output: Output::default(),
            group: Vec::new(),
            settled: Vec::new(),
            staged_timers: Vec::new(),
            scratch: Vec::new(),
        })
    }

    /// Name of the processor.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Partition numbers whose state is whole.
    pub fn partitions(&self) -> Vec<i32> {
        self.partitions
            .iter()
            .filter(|(_, p)| p.ready())
            .map(|(n, _)| *n)
            .collect()
    }

    /// Keys in the state of all partitions, and bytes of keys and values.
    pub fn state_size(&self) -> (usize, usize) {
        self.partitions.values().fold((0, 0), |(keys, bytes), p| {
            (keys + p.shard.len(), bytes + p.shard.bytes())
        })
    }

    /// Does one piece of work: restores a part of the state, or handles one batch and the timers
    /// that are due in one transaction. Waits at most `wait` for records, and not at all while
    /// state is being restored.
    ///
    /// # Errors
    /// A retry: nothing of the step happened, call again after a pause. A halt: the same would
    /// happen again; somebody must mend something.
    pub fn step(&mut self, wait: Duration) -> Result<Progress, Fault> {
        self.follow_tables()?;
        self.restore()?;
        let timer = self
            .partitions
            .values()
            .filter_map(Partition::next_timer)
            .min();
        let pending = self.restore_progress().is_some()
            || self.partitions.values().any(Partition::has_revisits);
        let wait = match timer {
            _ if pending => Duration::ZERO,
            Some(due) => wait.min(due.since(self.clock.now())),
            None => wait,
        };
        self.gather(wait)?;
        let now = self.clock.now();
        let done = match self.transact(now) {
            Ok(done) => done,
            Err(failed) => {
                self.take_back(&failed)?;
                return Err(failed.fault);
            }
        };
        self.checkpoint_when_due(now);
        if done > 0 {
            return Ok(Progress::Worked(done));
        }
        if let Some((read, total)) = self.restore_progress() {
            return Ok(Progress::Restoring { read, total });
        }
        if self.partitions.is_empty() {
            return Ok(Progress::Unassigned);
        }
        let until = self
            .partitions
            .values()
            .filter_map(Partition::next_timer)
            .min();
        Ok(Progress::Idle { until })
    }

    /// Changelog records read and to be read, while any partition is not ready.
    fn restore_progress(&self) -> Option<(u64, u64)> {
        if !self.tables.caught_up() {
            return Some((0, 1));
        }
        let restoring = self
            .partitions
            .values()
            .filter_map(Partition::restore_progress);
        restoring.reduce(|(read, total), (r, t)| (read + r, total + t))
    }

    /// Writes checkpoints and lets go of the group and the producers. A static member's partitions
    /// wait for its return.
    pub fn close(mut self) {
        let now = self.clock.now();
        for (number, partition) in &mut self.partitions {
            partition.checkpoint(&self.settings, self.name, *number, now);
        }
    }

    fn follow_tables(&mut self) -> Result<(), Fault> {
        let now = self.clock.now();
        let starting = !self.tables.caught_up();
        if !starting
            && self
                .tables_followed_at
                .is_some_and(|at| now.since(at) < TABLE_INTERVAL && now >= at)
        {
            return Ok(());
        }
        self.tables_followed_at = Some(now);
        let wait = if starting {
            Duration::from_millis(20)
        } else {
            Duration::ZERO
        };
        let revisit = self
            .tables
            .follow(self.processor.as_mut(), &self.codec, wait)?;
        if revisit {
            for partition in self.partitions.values_mut() {
                partition.revisit_all(self.processor.as_ref());
            }
        }
        Ok(())
    }

    /// Takes in a part of the changelogs. Partitions whose state is whole begin to be read.
    fn restore(&mut self) -> Result<(), Fault> {
        if !self.tables.caught_up() {
            return Ok(());
        }
        let mut ready = Vec::new();
        for (number, partition) in self.partitions.iter_mut().filter(|(_, p)| !p.ready()) {
            let wait = Duration::from_millis(5);
            if partition.restore_step(self.processor.as_ref(), wait, &mut self.scratch)? {
                ready.push(*number);
            }
        }
        if ready.is_empty() {
            return Ok(());
        }
        let partitions: Vec<_> = self
            .owned
            .iter()
            .filter(|p| ready.contains(&p.partition))
            .cloned()
            .collect();
        Ok(self.consumer.resume(&partitions)?)
    }

    /// Reads the records of one transaction.
    fn gather(&mut self, wait: Duration) -> Result<(), Fault> {
        debug_assert!(
            self.batch.is_empty(),
            "a batch is handled before the next is read"
        );
        let started = self.clock.now();
        let (mut bytes, mut wait) = (0, wait);
        loop {
            let room = self
                .settings
                .commit_records_max
                .saturating_sub(self.batch.records.len());
            self.scratch.clear();
            let changes = self.consumer.poll(room, wait, &mut self.scratch)?;
            if !changes.is_empty() {
                // What was read before the change may belong to somebody else by now.
                self.seek_back()?;
                self.assign(changes)?;
                bytes = 0;
            }
            let mut fresh = std::mem::take(&mut self.scratch);
            self.put_back_unready(&mut fresh)?;
            if fresh.is_empty() {
                self.scratch = fresh;
                return Ok(());
            }
            if self.batch.generation.is_none() {
                self.batch.generation = Some(self.consumer.generation()?);
            }
            bytes += fresh.iter().map(size).sum::<usize>();
            self.batch.records.append(&mut fresh);
            self.scratch = fresh;
            let waited = self.clock.now().since(started);
            let full = self.batch.records.len() >= self.settings.commit_records_max
                || bytes >= BATCH_BYTES_MAX;
            if full || waited >= self.settings.commit_interval_max {
                return Ok(());
            }
            wait = Duration::ZERO;
        }
    }

    /// Records of a partition that is still being restored are read again later.
    fn put_back_unready(&mut self, records: &mut Vec<Record>) -> Result<(), Fault> {
        let partitions = &self.partitions;
        let ready = |r: &Record| {
            partitions
                .get(&r.origin.partition)
                .is_some_and(Partition::ready)
        };
        if records.iter().all(ready) {
            return Ok(());
        }
        let early = Batch {
            records: records.extract_if(.., |r| !ready(r)).collect(),
            generation: None,
        };
        for (partition, offset) in early.starts() {
            if self.owned.contains(&partition) {
                self.consumer.seek(&partition, offset)?;
            }
        }
        Ok(())
    }

    fn assign(&mut self, changes: Vec<Assignment>) -> Result<(), Fault> {
        for change in changes {
            match change {
                Assignment::Gained(gained) => {
                    tracing::info!(processor = self.name, partitions = %list(&gained), "partitions gained");
                    self.consumer.pause(&gained)?;
                    self.find_positions(&gained)?;
                    self.owned.extend(gained.iter().cloned());
                    let inputs = self.processor.descriptor().inputs.len();
                    for number in gained.iter().map(|p| p.partition).collect::<BTreeSet<_>>() {
                        let held = self.owned.iter().filter(|p| p.partition == number).count();
                        if held == inputs && !self.partitions.contains_key(&number) {
                            self.begin_restore(number)?;
                        }
                    }
                    self.retained.clear();
                }
                Assignment::Revoked(gone) => {
                    tracing::info!(processor = self.name, partitions = %list(&gone), "partitions given up");
                    for partition in &gone {
                        self.owned.remove(partition);
                        self.positions.remove(partition);
                        if let Some(state) = self.partitions.remove(&partition.partition) {
                            self.retained.insert(partition.partition, state);
                        }
                    }
                }
                Assignment::Lost(gone) => {
                    tracing::warn!(processor = self.name, partitions = %list(&gone), "partitions lost: the group went on without this member");
                    for partition in &gone {
                        self.owned.remove(partition);
                        self.positions.remove(partition);
                        self.partitions.remove(&partition.partition);
                    }
                }
            }
        }
        Ok(())
    }

    /// Restores from what was kept in memory at a hand-over, else from the checkpoint; both go on
    /// with the changelog.
    fn begin_restore(&mut self, number: i32) -> Result<(), Fault> {
        let kept = self.retained.remove(&number).filter(Partition::ready);
        let partition = Partition::restoring(
            &self.log,
            &self.settings,
            self.name,
            &self.changelog,
            number,
            kept,
        )?;
        self.partitions.insert(number, partition);
        Ok(())
    }

    /// Handles the batch, due timers and entities to look at again, in one transaction.
    fn transact(&mut self, now: Timestamp) -> Result<usize, Failed> {
        let extra = self.extra_work(now);
        if self.batch.is_empty() && extra.is_empty() {
            return Ok(0);
        }
        let generation = match self.batch.generation.clone() {
            Some(generation) => generation,
            None => self.consumer.generation()?,
        };
        let lane = self.lane;
        let mut producer = match self.producers[lane].take() {
            Some(producer) => producer,
            None => self.new_producer(lane)?,
        };
        let done = self.fill_and_commit(producer.as_mut(), &generation, &extra, now);
        match &done {
            Ok(_) => {
                self.producers[lane] = Some(producer);
                self.lane = 1 - lane;
            }
            Err(failed) if failed.producer_usable && producer.abort().is_ok() => {
                self.producers[lane] = Some(producer)
            }
            Err(_) => self.producers = [None, None],
        }
        done
    }

    fn fill_and_commit(
        &mut self,
        producer: &mut dyn Producer,
        generation: &GroupGeneration,
        extra: &[Extra],
        now: Timestamp,
    ) -> Result<usize, Failed> {
        let started = self.clock.now();
        producer.begin()?;
        let batch = std::mem::take(&mut self.batch);
        let handled = self.handle(&batch, producer, extra, now);
        self.batch = batch;
        handled?;

        let mut offsets = self.batch.ends();
        for e in extra {
            for (partition, offset) in self
                .positions
                .iter()
                .filter(|(p, _)| p.partition == e.partition)
            {
                offsets.entry(partition.clone()).or_insert(*offset);
            }
        }
        for (number, partition) in &self.partitions {
            self.outbox
                .changelog(producer, &self.changelog, *number, &partition.shard, now)?;
        }
        self.accounts
            .each_outcome(|outcome, count| self.telemetry.outcomes(self.name, outcome, count));
        self.accounts
            .write(self.name, &mut self.outbox, producer, now)?;
        // Everything must stand in the log before the group hears of the offsets: whoever owns the
        // partition next reads the changelog to the end that it finds when it begins.
        producer.flush()?;
        producer.send_offsets(&offsets, generation)?;
        let safe = self.changelog_ends_when_due(now)?;
        producer.commit()?;

        for partition in self.partitions.values_mut() {
            partition.shard.commit();
        }
        for (number, key, due) in self.staged_timers.drain(..) {
            if let Some(partition) = self.partitions.get_mut(&number) {
                partition.set_timer(key, due);
            }
        }
        for (number, offset) in safe {
            if let Some(partition) = self.partitions.get_mut(&number) {
                partition.confirm(offset, now);
            }
        }
        for e in extra.iter().filter(|e| e.due.is_none()) {
            if let Some(partition) = self.partitions.get_mut(&e.partition) {
                partition.revisited(&e.key);
            }
        }
        self.positions.extend(offsets);
        let count = self.batch.records.len();
        let newest = self
            .batch
            .records
            .iter()
            .map(|r| r.timestamp_ms)
            .max()
            .unwrap_or_default();
        let done_at = self.clock.now();
        self.telemetry.committed(
            self.name,
            count,
            done_at.since(started),
            done_at.since(Timestamp::from_millis(newest)),
        );
        self.batch = Batch::default();
        Ok(count + extra.len())
    }

    fn handle(
        &mut self,
        batch: &Batch,
        producer: &mut dyn Producer,
        extra: &[Extra],
        now: Timestamp,
    ) -> Result<(), Failed> {
        let groups = batch.groups();
        for (number, key, head) in groups.iter() {
            self.decode_group(batch, groups.members(head), producer, now)?;
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
        Ok(())
    }

    /// Fills `self.group` with the decoded records of one key; dead-letters those that cannot be.
    fn decode_group(
        &mut self,
        batch: &Batch,
        members: impl Iterator<Item = usize>,
        producer: &mut dyn Producer,
        now: Timestamp,
    ) -> Result<(), Failed> {
        self.group.clear();
        for index in members {
            let record = &batch.records[index];
            let readable = match record.key.as_deref().map(std::str::from_utf8) {
                None | Some(Ok("")) => Err(Fault::reject(
                    Stage::Decode,
                    Code::NullKey,
                    "the record has no key; the producer must set the key of its topic's family",
                )),
                Some(Err(_)) => Err(Fault::reject(
                    Stage::Decode,
                    Code::WrongKey,
                    "the key is not UTF-8",
                )),
                Some(Ok(_)) => self.codec.decode(record),
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
        let Some(partition) = self.partitions.get_mut(&number) else {
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
        self.book(&mut output, producer, now)?;
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
            self.accounts
                .note(&r.origin, r.effect, r.outcome, Some("resolved"));
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
        self.outbox.dead_letter(producer, record, fault, 1, now)
    }

    fn extra_work(&self, now: Timestamp) -> Vec<Extra> {
        let mut extra = Vec::new();
        for (number, partition) in self.partitions.iter().filter(|(_, p)| p.ready()) {
            let timers = partition.due_timers(now, EXTRA_MAX).into_iter();
            extra.extend(timers.map(|(due, key)| Extra {
                partition: *number,
                key,
                due: Some(due),
            }));
            let revisits = partition.revisits(EXTRA_MAX);
            extra.extend(revisits.map(|key| Extra {
                partition: *number,
                key: key.clone(),
                due: None,
            }));
        }
        extra
    }

    fn new_producer(&self, lane: usize) -> Result<Box<dyn Producer>, Failed> {
        let spec = ProducerSpec {
            transactional_id: Some(
                self.settings
                    .transactional_id(self.name, if lane == 0 { 'a' } else { 'b' }),
            ),
            transaction_timeout: self.settings.transaction_timeout,
            linger: Duration::ZERO,
        };
        Ok(self.log.producer(&spec)?)
    }

    /// Ends of the changelogs, now and then. They count once the transaction under way has
    /// committed, for that proves that nobody else owned the partitions when they were asked for.
    fn changelog_ends_when_due(&mut self, now: Timestamp) -> Result<Vec<(i32, i64)>, Failed> {
        let mut ends = Vec::new();
        for (number, partition) in &self.partitions {
            if partition.confirmation_due(now, CONFIRM_INTERVAL) {
                let (_, end) = self
                    .log
                    .admin()
                    .watermarks(&TopicPartition::new(self.changelog.as_str(), *number))?;
                ends.push((*number, end));
            }
        }
        Ok(ends)
    }

    /// Undoes a step that failed: state as before, records to be read again.
    fn take_back(&mut self, failed: &Failed) -> Result<(), Fault> {
        for partition in self.partitions.values_mut() {
            partition.shard.rollback_to(0);
        }
        self.accounts.clear();
        self.staged_timers.clear();
        self.output.clear();
        self.group.clear();
        self.seek_back()?;
        if !failed.producer_usable {
            self.recover()?;
        }
        Ok(())
    }

    /// The partitions of the batch go back to its first records; the batch is forgotten.
    fn seek_back(&mut self) -> Result<(), Fault> {
        for (partition, offset) in std::mem::take(&mut self.batch).starts() {
            if self.owned.contains(&partition) {
                self.consumer.seek(&partition, offset)?;
            }
        }
        Ok(())
    }

    /// After a transaction whose end is unknown: new producers fence the old and settle what they
    /// left; then state and positions are read back from the log, which alone knows.
    fn recover(&mut self) -> Result<(), Fault> {
        tracing::warn!(
            processor = self.name,
            "producer rebuilt; state and positions are read back from the log"
        );
        self.producers = [None, None];
        for lane in 0..2 {
            self.producers[lane] = Some(self.new_producer(lane).map_err(|f| f.fault)?);
        }
        let owned: Vec<_> = self.owned.iter().cloned().collect();
        self.consumer.pause(&owned)?;
        self.find_positions(&owned)?;
        for partition in &owned {
            self.consumer.seek(partition, self.positions[partition])?;
        }
        for (number, partition) in std::mem::take(&mut self.partitions) {
            self.retained.insert(number, partition);
            self.begin_restore(number)?;
        }
        Ok(())
    }

    /// Where the group stands in `partitions`: its committed offset, else the first record kept.
    fn find_positions(&mut self, partitions: &[TopicPartition]) -> Result<(), Fault> {
        let committed = self.consumer.committed(partitions)?;
        for partition in partitions {
            let position = match committed.get(partition) {
                Some(offset) => *offset,
                None => self.consumer.watermarks(partition)?.0,
            };
            self.positions.insert(partition.clone(), position);
        }
        Ok(())
    }

    fn checkpoint_when_due(&mut self, now: Timestamp) {
        for (number, partition) in &mut self.partitions {
            partition.checkpoint_when_due(&self.settings, self.name, *number, now);
        }
    }
}

/// A timer, or (without due time) an entity to look at again.
struct Extra {
    partition: i32,
    key: Text,
    due: Option<Timestamp>,
}

fn unsettled(processor: &str, index: usize) -> Fault {
    Fault::halt(
        Stage::Process,
        Code::Bug,
        format!("{processor} did not settle record {index} of a group exactly once"),
    )
}

fn list(partitions: &[TopicPartition]) -> String {
    partitions
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

fn size(record: &Record) -> usize {
    record.key.as_ref().map_or(0, |k| k.len()) + record.value.as_ref().map_or(0, |v| v.len()) + 64
}
