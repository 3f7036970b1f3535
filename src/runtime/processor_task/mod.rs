//! A processor task: a set of co-numbered partitions, their state, a transactional producer.
//!
//! One batch is one transaction. The batch is read under one group generation; outputs, changelog,
//! dispositions and input offsets commit under that generation or not at all.

mod parked;
mod work;

use super::Progress;
use super::accounts::Accounts;
use super::batch::Batch;
use super::holdings::Holdings;
use super::outbox::{Failed, Outbox};
use super::settings::{Membership, TaskSettings};
use super::tables::Tables;
use crate::codec::Codec;
use crate::contract::Catalogue;
use crate::contract::event::Text;
use crate::domain::Timestamp;
use crate::log::{GroupGeneration, GroupSpec, Isolation, Log, LogError, Producer, ProducerSpec};
use crate::pipeline::{Clock, Code, Fault, Inbound, Output, Processor, Record};
use crate::telemetry::{Committed, Telemetry};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of input that a transaction gathers at most.
const BATCH_BYTES_MAX: usize = 32 << 20;
/// Timers, and entities looked at again, that one step handles at most.
const EXTRA_MAX: usize = 5_000;
/// How often the ends of the changelogs are noted, from which a restart reads on.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(5);
/// Fewest records that a batch is cut down to when transactions take too long.
const BATCH_RECORDS_MIN: usize = 100;
/// What a producer waits to fill a request: without it, most of the cost of a record is that of
/// requests with few of them, here and in the broker. A commit waits for nothing to fill.
const LINGER: Duration = Duration::from_millis(20);
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
    label: String,
    holdings: Holdings,
    /// Two producers take turns, so that a transaction need not wait for the markers of the last.
    producers: [Option<Box<dyn Producer>>; 2],
    lane: usize,
    /// A transaction's end is not known: only new producers settle it, and only the log tells.
    unsettled: bool,
    /// Most records in the next batch: fewer when transactions come near their time limit.
    batch_records_max: usize,
    /// The event age last told is not zero.
    aged: bool,
    tables: Tables,
    tables_followed_at: Option<Timestamp>,
    outbox: Outbox,
    accounts: Accounts,
    batch: Batch,
    output: Output,
    group: Vec<Inbound>,
    settled: Vec<u8>,
    staged_timers: Vec<(i32, Text, Option<Timestamp>)>,
    /// Codes of the dead letters of the transaction under way.
    rejected: Vec<Code>,
    park_topic: String,
    parked: parked::Parked,
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
        let changelog = catalogue.state_topic(name);
        let holdings = Holdings::new(
            consumer,
            log.clone(),
            processor.as_ref(),
            changelog,
            &settings,
        );
        let label = settings.label(name);
        telemetry.declare_task(&label);
        Ok(ProcessorTask {
            holdings,
            label,
            unsettled: false,
            batch_records_max: settings.commit_records_max,
            aged: false,
            outbox: Outbox::new(codec.clone(), catalogue, name),
            processor,
            log,
            clock,
            codec,
            telemetry,
            settings,
            name,
            producers: [None, None],
            lane: 0,
            tables,
            tables_followed_at: None,
            accounts: Accounts::default(),
            batch: Batch::default(),
            output: Output::default(),
            group: Vec::new(),
            settled: Vec::new(),
            staged_timers: Vec::new(),
            rejected: Vec::new(),
            park_topic: catalogue.park_topic(name),
            parked: parked::Parked::default(),
            scratch: Vec::new(),
        })
    }

    /// Its place in its group.
    pub fn membership(&self) -> Membership {
        self.settings.membership(&self.log, self.name)
    }

    /// Name of the processor.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Partition numbers whose state is whole.
    pub fn partitions(&self) -> Vec<i32> {
        let ready = self.holdings.iter().filter(|(_, p)| p.ready());
        ready.map(|(number, _)| number).collect()
    }

    /// Keys in the state of all partitions, and bytes of keys and values.
    pub fn state_size(&self) -> (usize, usize) {
        self.holdings.iter().fold((0, 0), |(keys, bytes), (_, p)| {
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
        self.try_step(wait).map_err(|fault| {
            // Whatever the fault, the member stays in its group and hears of rebalances, which
            // would wait for it otherwise.
            self.holdings.go_back();
            let heard = self
                .holdings
                .consumer
                .poll(0, Duration::ZERO, &mut Vec::new());
            match heard {
                Ok(changes) => self.holdings.note(changes),
                Err(error @ (LogError::Replaced(_) | LogError::Fatal(_))) => {
                    return error.into();
                }
                Err(_) => {}
            }
            fault
        })
    }

    fn try_step(&mut self, wait: Duration) -> Result<Progress, Fault> {
        if self.unsettled {
            self.settle()?;
        }
        self.follow_tables()?;
        if self.tables.caught_up() {
            let now = self.clock.now();
            self.holdings
                .align(self.processor.as_ref(), &mut self.scratch, now)?;
        }
        let pending = self.restore_progress().is_some()
            || self.holdings.iter().any(|(_, p)| p.has_revisits());
        let wait = match self.next_timer() {
            _ if pending => Duration::ZERO,
            Some(due) => wait.min(due.since(self.clock.now())),
            None => wait,
        };
        self.gather(wait)?;
        let now = self.clock.now();
        let oldest = self.batch.records.iter().map(|r| r.timestamp_ms).min();
        let done = match self.transact(now) {
            Ok(done) => done,
            Err(failed) => {
                self.tell_age(oldest);
                self.take_back(&failed);
                return Err(failed.fault);
            }
        };
        self.tell_age(oldest);
        self.holdings
            .checkpoint(self.settings.checkpoint_interval, now);
        if done > 0 {
            return Ok(Progress::Worked(done));
        }
        if let Some((read, total)) = self.restore_progress() {
            return Ok(Progress::Restoring { read, total });
        }
        if self.holdings.iter().next().is_none() {
            return Ok(if self.holdings.is_spare() {
                Progress::Unassigned
            } else {
                Progress::Joining
            });
        }
        Ok(Progress::Idle {
            until: self.next_timer(),
        })
    }

    fn next_timer(&self) -> Option<Timestamp> {
        let timers = self.holdings.iter().filter_map(|(_, p)| p.next_timer());
        timers.min()
    }

    /// Tells how old the oldest record of the batch was when it was settled, or is when it cannot be.
    fn tell_age(&mut self, oldest_ms: Option<i64>) {
        if oldest_ms.is_none() && !std::mem::take(&mut self.aged) {
            return;
        }
        let age = oldest_ms.map_or(Duration::ZERO, |ms| {
            self.aged = true;
            self.clock.now().since(Timestamp::from_millis(ms))
        });
        self.telemetry.event_age(&self.label, age);
    }

    /// Changelog records read and to be read, while any partition is not ready.
    fn restore_progress(&self) -> Option<(u64, u64)> {
        if !self.tables.caught_up() {
            return Some((0, 1));
        }
        self.holdings.restore_progress()
    }

    /// Writes checkpoints and lets go of the group and the producers. A static member's partitions
    /// wait for its return.
    pub fn close(mut self) {
        self.holdings.checkpoint(Duration::ZERO, self.clock.now());
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
            for (_, partition) in self.holdings.iter_mut() {
                partition.revisit_all(self.processor.as_ref());
            }
        }
        Ok(())
    }

    /// Reads the records of one transaction. After an error, and after a rebalance, the batch is
    /// empty and everything not committed is read again.
    fn gather(&mut self, wait: Duration) -> Result<(), Fault> {
        let gathered = self.fill_batch(wait);
        if !matches!(gathered, Ok(true)) {
            self.batch.clear();
            self.holdings.go_back();
        }
        gathered?;
        Ok(())
    }

    /// As [`ProcessorTask::gather`]; `false` when a rebalance came in between: what was read before
    /// it may belong to somebody else by now.
    fn fill_batch(&mut self, wait: Duration) -> Result<bool, LogError> {
        let started = self.clock.now();
        let (mut bytes, mut wait) = (0, wait);
        loop {
            let before = self.batch.records.len();
            let room = self.batch_records_max.saturating_sub(before);
            let consumer = &mut self.holdings.consumer;
            let changes = consumer.poll(room, wait, &mut self.batch.records)?;
            if !changes.is_empty() {
                self.holdings.note(changes);
                return Ok(false);
            }
            if self.batch.records.len() == before {
                return Ok(true);
            }
            if self.batch.generation.is_none() {
                self.batch.generation = Some(self.holdings.consumer.generation()?);
            }
            bytes += self.batch.records[before..].iter().map(size).sum::<usize>();
            self.put_back_unready()?;
            let full =
                self.batch.records.len() >= self.batch_records_max || bytes >= BATCH_BYTES_MAX;
            if full || self.clock.now().since(started) >= self.settings.commit_interval_max {
                return Ok(true);
            }
            wait = Duration::ZERO;
        }
    }

    /// Records of a partition that is still being restored are read again later.
    fn put_back_unready(&mut self) -> Result<(), LogError> {
        let holdings = &mut self.holdings;
        if self.batch.records.iter().all(|r| holdings.is_ready(r)) {
            return Ok(());
        }
        let unready = |r: &mut Record| !holdings.is_ready(r);
        let early = Batch {
            records: self.batch.records.extract_if(.., unready).collect(),
            generation: None,
        };
        for (partition, offset) in early.starts() {
            holdings.consumer.seek(&partition, offset)?;
        }
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
            None => self.holdings.consumer.generation()?,
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
            Err(_) => self.unsettled = true,
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
            for (partition, offset) in self.holdings.positions_of(e.partition) {
                offsets.entry(partition.clone()).or_insert(offset);
            }
        }
        for (number, partition) in self.holdings.iter() {
            let changelog = self.holdings.changelog_of(number);
            self.outbox
                .changelog(producer, &changelog, &partition.shard, now)?;
        }
        let outcomes = self.accounts.tally();
        self.accounts
            .write(self.name, &mut self.outbox, producer, now)?;
        // Everything must stand in the log before the group hears of the offsets: whoever owns the
        // partition next reads the changelog to the end that it finds when it begins.
        producer.flush()?;
        producer.send_offsets(&offsets, generation)?;
        let safe = self.changelog_ends_when_due(now)?;
        producer.commit()?;

        for (_, partition) in self.holdings.iter_mut() {
            partition.shard.commit();
        }
        for (number, key, due) in self.staged_timers.drain(..) {
            if let Some(partition) = self.holdings.partition_mut(number) {
                partition.set_timer(key, due);
            }
        }
        for (number, offset) in safe {
            if let Some(partition) = self.holdings.partition_mut(number) {
                partition.confirm(offset, now);
            }
        }
        for e in extra.iter().filter(|e| e.due.is_none()) {
            if let Some(partition) = self.holdings.partition_mut(e.partition) {
                partition.revisited(&e.key);
            }
        }
        self.holdings.committed(offsets);
        let count = self.batch.records.len();
        let took = self.clock.now().since(started);
        let committed = Committed {
            records: count as u64,
            outcomes,
            took,
        };
        self.telemetry.committed(self.name, &committed);
        for code in self.rejected.drain(..) {
            self.telemetry.fault(self.name, code);
        }
        self.adapt(took);
        self.batch.clear();
        Ok(count + extra.len())
    }

    /// A transaction that outlasts its time limit is aborted by the broker, and a batch of the same
    /// size would be as well: the next is smaller. Grows again when there is time to spare.
    fn adapt(&mut self, took: Duration) {
        let limit = self.settings.transaction_timeout;
        if took > limit / 4 {
            self.shrink();
        } else if took < limit / 16 {
            let doubled = self.batch_records_max.saturating_mul(2);
            self.batch_records_max = doubled.min(self.settings.commit_records_max);
        }
    }

    fn shrink(&mut self) {
        let least = BATCH_RECORDS_MIN.min(self.settings.commit_records_max);
        self.batch_records_max = (self.batch_records_max / 2).max(least);
    }

    fn extra_work(&self, now: Timestamp) -> Vec<Extra> {
        let mut extra = Vec::new();
        for (number, partition) in self.holdings.iter().filter(|(_, p)| p.ready()) {
            let timers = partition.due_timers(now, EXTRA_MAX).into_iter();
            extra.extend(timers.map(|(due, key)| Extra {
                partition: number,
                key,
                due: Some(due),
            }));
            let revisits = partition.revisits(EXTRA_MAX);
            extra.extend(revisits.map(|key| Extra {
                partition: number,
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
            linger: LINGER,
        };
        Ok(self.log.producer(&spec)?)
    }

    /// Ends of the changelogs, now and then. They count once the transaction under way has
    /// committed, for that proves that nobody else owned the partitions when they were asked for.
    fn changelog_ends_when_due(&mut self, now: Timestamp) -> Result<Vec<(i32, i64)>, Failed> {
        let mut ends = Vec::new();
        for (number, partition) in self.holdings.iter() {
            if partition.confirmation_due(now, CONFIRM_INTERVAL) {
                let changelog = self.holdings.changelog_of(number);
                let (_, end) = self.log.admin().watermarks(&changelog)?;
                ends.push((number, end));
            }
        }
        Ok(ends)
    }

    /// Undoes a step that failed: state as before, records to be read again.
    fn take_back(&mut self, failed: &Failed) {
        for (_, partition) in self.holdings.iter_mut() {
            partition.shard.rollback_to(0);
        }
        self.accounts.clear();
        self.staged_timers.clear();
        self.rejected.clear();
        self.parked.clear();
        self.output.clear();
        self.group.clear();
        self.batch.clear();
        self.holdings.go_back();
        if !failed.producer_usable {
            self.unsettled = true;
            self.shrink();
        }
    }

    /// After a transaction whose end is unknown: new producers fence the old and settle what they
    /// left; then state and positions are read back from the log, which alone knows.
    fn settle(&mut self) -> Result<(), Fault> {
        self.producers = [None, None];
        for lane in 0..self.producers.len() {
            self.producers[lane] = Some(self.new_producer(lane).map_err(|f| f.fault)?);
        }
        tracing::warn!(
            processor = self.name,
            "producers rebuilt; state and positions are read back from the log"
        );
        self.holdings.forget();
        self.unsettled = false;
        Ok(())
    }
}

/// A timer, or (without due time) an entity to look at again.
struct Extra {
    partition: i32,
    key: Text,
    due: Option<Timestamp>,
}

fn size(record: &Record) -> usize {
    record.key.as_ref().map_or(0, |k| k.len()) + record.value.as_ref().map_or(0, |v| v.len()) + 64
}
