//! A sink task: many keys at once, each key in order, offsets committed up to the gap-free point.
//!
//! A record is read, waits behind its key, is written to the target, and is settled. Receipts of
//! what was sent are written in the next transaction; the outcome of a record is written in the
//! transaction that commits its offset, which is when everything before it is settled too.

use super::Progress;
use super::accounts::Accounts;
use super::backoff::Backoff;
use super::outbox::{Failed, Outbox};
use super::partition::Partition;
use super::queue::{Queue, Waiting};
use super::settings::TaskSettings;
use crate::codec::Codec;
use crate::contract::Catalogue;
use crate::contract::event::{EventRef, Outcome, SinkOutcome, SinkReceipt, Text};
use crate::domain::Timestamp;
use crate::log::{
    Assignment, Consumer, GroupProtocol, GroupSpec, Isolation, Log, Offsets, Producer,
    ProducerSpec, TopicPartition,
};
use crate::pipeline::{
    Ack, Clock, Code, Delivery, Fault, Inbound, Record, Sent, Sink, Stage, State, Verdict,
};
use crate::telemetry::Telemetry;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Records taken from the log by one step.
const POLL_RECORDS: usize = 1_000;
/// Failures in a row after which the target counts as unwell and only one call probes it.
const UNWELL_AFTER: u32 = 3;

/// Drives the sink of one connector instance.
pub struct SinkTask {
    name: String,
    sink: Arc<dyn Sink>,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    codec: Arc<Codec>,
    telemetry: Arc<Telemetry>,
    settings: TaskSettings,
    receipts_topic: String,
    consumer: Box<dyn Consumer>,
    producer: Option<Box<dyn Producer>>,
    outbox: Outbox,
    accounts: Accounts,
    backoff: Backoff,
    lanes: BTreeMap<TopicPartition, Lane>,
    queue: Queue,
    calls: FuturesUnordered<BoxFuture<'static, Finished>>,
    target: Target,
    committed_at: Timestamp,
    scratch: Vec<Record>,
}

/// One input partition: its receipts and what has been read of it and not committed.
struct Lane {
    receipts: Partition,
    /// Read, not settled.
    open: BTreeSet<i64>,
    /// Settled, not committed.
    settled: BTreeMap<i64, (Outcome, Option<&'static str>)>,
    read_to: i64,
    committed_to: i64,
    /// Receipts and dead letters to write in the next transaction.
    receipts_due: Vec<SinkReceipt>,
    dead: Vec<(Inbound, Fault, u32)>,
    undecodable: Vec<(Record, Fault)>,
    epoch: u64,
    /// Keys whose last receipt tells what the target holds: the last call for them was answered,
    /// under this ownership. After anything else the target may hold what no receipt tells of.
    certain: HashSet<Text, FxBuildHasher>,
}

/// What is known of the target's health.
#[derive(Default)]
struct Target {
    failures: u32,
    not_before: Timestamp,
}

struct Finished {
    deliveries: Vec<(TopicPartition, u64, Delivery)>,
    results: Vec<Result<Ack, Fault>>,
}

impl SinkTask {
    /// Joins the group of the connector instance `name`, which reads `topics`.
    ///
    /// # Errors
    /// When the log cannot be reached.
    #[allow(
        clippy::too_many_arguments,
        reason = "the ports that a task is made of"
    )]
    pub fn new(
        name: &str,
        topics: &[&str],
        sink: Arc<dyn Sink>,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        codec: Arc<Codec>,
        catalogue: &Catalogue,
        telemetry: Arc<Telemetry>,
        settings: TaskSettings,
    ) -> Result<Self, Fault> {
        let protocol = if topics.len() == 1 {
            GroupProtocol::CooperativeSticky
        } else {
            settings.protocol
        };
        let consumer = log.consumer(&GroupSpec {
            group: settings.group(name),
            member: settings.member(name),
            topics: topics.iter().map(|t| Arc::from(*t)).collect(),
            protocol,
            session_timeout: settings.session_timeout,
            max_poll_interval: Duration::from_secs(300),
            isolation: Isolation::ReadCommitted,
        })?;
        let whole_state = topics.iter().all(|t| catalogue.is_compacted(t));
        Ok(SinkTask {
            outbox: Outbox::new(codec.clone(), catalogue, name),
            receipts_topic: catalogue.receipt_topic(name),
            name: name.to_owned(),
            sink,
            log,
            clock,
            codec,
            telemetry,
            settings,
            consumer,
            producer: None,
            accounts: Accounts::default(),
            backoff: Backoff::default(),
            lanes: BTreeMap::new(),
            queue: Queue::new(whole_state),
            calls: FuturesUnordered::new(),
            target: Target::default(),
            committed_at: Timestamp::default(),
            scratch: Vec::new(),
        })
    }

    /// Name of the connector instance.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Records read and not settled.
    pub fn waiting(&self) -> usize {
        self.lanes.values().map(|l| l.open.len()).sum()
    }

    /// Reads, writes to the target and commits, a bounded piece of each; waits at most `wait` for
    /// calls under way or new records.
    ///
    /// Not to be dropped half-way: calls under way would be made again.
    ///
    /// # Errors
    /// A retry: the log is unwell. A halt: the target or the configuration must be mended by
    /// somebody; records wait.
    pub async fn step(&mut self, wait: Duration) -> Result<Progress, Fault> {
        let restoring = self.restore()?;
        let read = self.read()?;
        let now = self.clock.now();
        self.queue.wake(now);
        self.dispatch(now);
        let mut finished = 0;
        if read == 0 && self.calls.is_empty() && restoring.is_none() {
            self.clock
                .sleep(wait.min(self.queue.next_wake().map_or(wait, |at| at.since(now))))
                .await;
        } else if !self.calls.is_empty() {
            let clock = self.clock.clone();
            tokio::select! {
                biased;
                done = self.calls.next() => if let Some(done) = done {
                    finished += self.finish(done)?;
                },
                () = clock.sleep(wait) => {}
            }
            while let Some(Some(done)) = futures::FutureExt::now_or_never(self.calls.next()) {
                finished += self.finish(done)?;
            }
        }
        self.commit_when_due()?;
        Ok(match restoring {
            Some((read, total)) => Progress::Restoring { read, total },
            None if self.lanes.is_empty() => Progress::Unassigned,
            None if read + finished > 0 || !self.calls.is_empty() => {
                Progress::Worked(read + finished)
            }
            None => Progress::Idle {
                until: self
                    .queue
                    .next_wake()
                    .map(|at| at.max(self.target.not_before)),
            },
        })
    }

    /// Whether calls are under way.
    pub fn is_calling(&self) -> bool {
        !self.calls.is_empty()
    }

    /// As [`SinkTask::step`] without reading more: for the end, when calls under way are awaited.
    ///
    /// # Errors
    /// As [`SinkTask::step`].
    pub async fn finish_calls(&mut self, wait: Duration) -> Result<(), Fault> {
        if !self.calls.is_empty() {
            let clock = self.clock.clone();
            tokio::select! {
                biased;
                done = self.calls.next() => if let Some(done) = done {
                    self.finish(done)?;
                },
                () = clock.sleep(wait) => {}
            }
        }
        self.commit_when_due()
    }

    /// Whether everything read has been settled and committed.
    pub fn is_quiet(&self) -> bool {
        self.lanes
            .values()
            .all(|l| l.receipts.ready() && l.read_to == l.committed_to && l.receipts_due.is_empty())
    }

    fn restore(&mut self) -> Result<Option<(u64, u64)>, Fault> {
        let mut progress = None;
        let mut ready = Vec::new();
        for (partition, lane) in &mut self.lanes {
            if let Some((read, total)) = lane.receipts.restore_progress() {
                let (r, t) = progress.unwrap_or((0, 0));
                progress = Some((r + read, t + total));
                if lane
                    .receipts
                    .take_in(Duration::from_millis(5), &mut self.scratch)?
                {
                    ready.push(partition.clone());
                }
            }
        }
        self.consumer.resume(&ready)?;
        Ok(progress)
    }

    fn read(&mut self) -> Result<usize, Fault> {
        let room = self
            .settings
            .queue_records_max
            .saturating_sub(self.waiting())
            .min(POLL_RECORDS);
        let mut records = std::mem::take(&mut self.scratch);
        records.clear();
        let changes = self.consumer.poll(room, Duration::ZERO, &mut records)?;
        for change in changes {
            self.assign(change)?;
        }
        let count = records.len();
        for record in records.drain(..) {
            self.take(record)?;
        }
        self.scratch = records;
        Ok(count)
    }

    fn assign(&mut self, change: Assignment) -> Result<(), Fault> {
        match change {
            Assignment::Gained(gained) => {
                tracing::info!(sink = self.name, count = gained.len(), "partitions gained");
                self.consumer.pause(&gained)?;
                let committed = self.consumer.committed(&gained)?;
                for partition in gained {
                    let from = match committed.get(&partition) {
                        Some(offset) => *offset,
                        None => self.consumer.watermarks(&partition)?.0,
                    };
                    let receipts = Partition::restoring(
                        &self.log,
                        &self.settings,
                        &self.name,
                        &self.receipts_topic,
                        partition.partition,
                        None,
                    )?;
                    let epoch = self.queue.next_epoch();
                    let lane = Lane {
                        receipts,
                        open: BTreeSet::new(),
                        settled: BTreeMap::new(),
                        read_to: from,
                        committed_to: from,
                        receipts_due: Vec::new(),
                        dead: Vec::new(),
                        undecodable: Vec::new(),
                        epoch,
                        certain: HashSet::default(),
                    };
                    self.lanes.insert(partition, lane);
                }
            }
            Assignment::Revoked(gone) | Assignment::Lost(gone) => {
                tracing::info!(sink = self.name, count = gone.len(), "partitions given up");
                for partition in gone {
                    if let Some(lane) = self.lanes.remove(&partition) {
                        self.queue.forget(lane.epoch);
                    }
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, record: Record) -> Result<(), Fault> {
        let partition = TopicPartition {
            topic: record.origin.topic.clone(),
            partition: record.origin.partition,
        };
        let Some(lane) = self.lanes.get_mut(&partition) else {
            return Ok(());
        };
        let offset = record.origin.offset;
        if !lane.receipts.ready() {
            return Ok(self.consumer.seek(&partition, offset.min(lane.read_to))?);
        }
        if offset < lane.read_to {
            return Ok(());
        }
        lane.read_to = offset + 1;
        let key = match record.key.as_deref().map(std::str::from_utf8) {
            Some(Ok(key)) if !key.is_empty() => Text::from(key),
            _ => {
                let fault = Fault::reject(
                    Stage::Decode,
                    Code::NullKey,
                    "the record has no readable key",
                );
                lane.settled
                    .insert(offset, (Outcome::DeadLettered, Some(fault.code.as_str())));
                lane.undecodable.push((record, fault));
                return Ok(());
            }
        };
        match self.codec.decode(&record) {
            Ok(event) => {
                let inbound = Inbound { record, event };
                if !self.sink.wants(&inbound) {
                    lane.settled.insert(offset, (Outcome::Applied, None));
                    return Ok(());
                }
                lane.open.insert(offset);
                let urgency = self.sink.urgency(&inbound);
                let waiting = Waiting {
                    partition: partition.clone(),
                    epoch: lane.epoch,
                    inbound,
                    attempt: 0,
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
            Err(fault) if fault.verdict == Verdict::Reject => {
                lane.settled
                    .insert(offset, (Outcome::DeadLettered, Some(fault.code.as_str())));
                lane.undecodable.push((record, fault));
                Ok(())
            }
            Err(fault) => {
                lane.read_to = offset;
                self.consumer.seek(&partition, offset)?;
                Err(fault)
            }
        }
    }

    fn dispatch(&mut self, now: Timestamp) {
        let capabilities = self.sink.capabilities();
        let unwell = self.target.failures >= UNWELL_AFTER;
        if now < self.target.not_before {
            return;
        }
        let calls_max = if unwell {
            1
        } else {
            capabilities.calls_max.min(self.settings.calls_max)
        };
        while self.calls.len() < calls_max {
            let mut deliveries = Vec::new();
            while deliveries.len() < capabilities.batch_records_max.max(1) {
                let Some((key, waiting)) = self.queue.pop() else {
                    break;
                };
                let Some(lane) = self.lanes.get_mut(&waiting.partition) else {
                    continue;
                };
                let known = lane.receipts.shard.get(key.as_bytes());
                let mut sent = known.and_then(|bytes| receipt(&self.codec, bytes));
                if !lane.certain.remove(&key)
                    && let Some(sent) = &mut sent
                {
                    sent.digest = None;
                }
                let delivery = Delivery {
                    key,
                    inbound: waiting.inbound,
                    sent,
                    attempt: waiting.attempt + 1,
                };
                deliveries.push((waiting.partition, waiting.epoch, delivery));
            }
            if deliveries.is_empty() {
                return;
            }
            let sink = self.sink.clone();
            self.calls.push(Box::pin(async move {
                let batch: Vec<Delivery> = deliveries.iter().map(|(_, _, d)| d.clone()).collect();
                let results = sink.write(&batch).await;
                Finished {
                    deliveries,
                    results,
                }
            }));
        }
    }

    fn finish(&mut self, finished: Finished) -> Result<usize, Fault> {
        let now = self.clock.now();
        let count = finished.deliveries.len();
        if finished.results.len() != count {
            let message = format!(
                "{} answered {} results for {count} records",
                self.name,
                finished.results.len()
            );
            return Err(Fault::halt(Stage::Write, Code::Bug, message));
        }
        let mut halted = None;
        for ((partition, epoch, delivery), result) in
            finished.deliveries.into_iter().zip(finished.results)
        {
            let newer = self.queue.done(&delivery.key, epoch);
            let Some(lane) = self.lanes.get_mut(&partition).filter(|l| l.epoch == epoch) else {
                continue;
            };
            let key = delivery.key.clone();
            let attempt = delivery.attempt;
            let waiting = Waiting {
                partition: partition.clone(),
                epoch,
                inbound: delivery.inbound,
                attempt,
            };
            match result {
                Ok(ack) => {
                    self.target = Target::default();
                    lane.certain.insert(key.clone());
                    lane.receipts_due.push(receipt_of(
                        &self.outbox,
                        &self.name,
                        &key,
                        &waiting,
                        &ack,
                        now,
                    ));
                    let outcome = match ack.outcome {
                        SinkOutcome::StaleSkipped => Outcome::Superseded,
                        SinkOutcome::DuplicateAcked => Outcome::Duplicate,
                        _ => Outcome::Applied,
                    };
                    self.settle(&waiting, outcome, None);
                }
                Err(fault) => {
                    self.telemetry.fault(&self.name, fault.code);
                    match fault.verdict {
                        Verdict::Reject => {
                            tracing::warn!(sink = self.name, key = %key, code = %fault.code, cause = fault.message, "record dead-lettered");
                            self.target = Target::default();
                            lane.dead.push((waiting.inbound.clone(), fault, attempt));
                            self.settle(
                                &waiting,
                                Outcome::DeadLettered,
                                Some("refused by the target"),
                            );
                        }
                        Verdict::Retry { after } => {
                            self.target.failures += 1;
                            let wait =
                                after.unwrap_or_else(|| self.backoff.wait(key.as_bytes(), attempt));
                            tracing::info!(sink = self.name, key = %key, attempt, wait_ms = wait.as_millis() as u64, code = %fault.code, cause = fault.message, "will try again");
                            if self.target.failures >= UNWELL_AFTER || after.is_some() {
                                self.target.not_before = self.target.not_before.max(now.plus(wait));
                            }
                            if newer {
                                self.settle(
                                    &waiting,
                                    Outcome::Superseded,
                                    Some("a newer record of the key replaced it"),
                                );
                            } else {
                                let urgency = self.sink.urgency(&waiting.inbound);
                                self.queue.delay(key, waiting, now.plus(wait), urgency);
                            }
                        }
                        Verdict::Halt => {
                            let urgency = self.sink.urgency(&waiting.inbound);
                            let wait = self.backoff.longest;
                            self.target.not_before = now.plus(wait);
                            self.queue.delay(key, waiting, now.plus(wait), urgency);
                            halted = Some(fault);
                        }
                    }
                }
            }
        }
        halted.map_or(Ok(count), Err)
    }

    fn settle(&mut self, waiting: &Waiting, outcome: Outcome, reason: Option<&'static str>) {
        if let Some(lane) = self
            .lanes
            .get_mut(&waiting.partition)
            .filter(|l| l.epoch == waiting.epoch)
        {
            let offset = waiting.inbound.record.origin.offset;
            lane.open.remove(&offset);
            lane.settled.insert(offset, (outcome, reason));
        }
    }

    fn commit_when_due(&mut self) -> Result<(), Fault> {
        let now = self.clock.now();
        let something = self
            .lanes
            .values()
            .any(|l| l.commit_point() > l.committed_to || !l.receipts_due.is_empty());
        let busy = !self.calls.is_empty();
        if !something
            || (busy
                && now.since(self.committed_at) < self.settings.commit_interval_max
                && now >= self.committed_at)
        {
            return Ok(());
        }
        self.committed_at = now;
        let spec = ProducerSpec {
            transactional_id: Some(self.settings.transactional_id(&self.name, 'a')),
            transaction_timeout: self.settings.transaction_timeout,
            linger: Duration::ZERO,
        };
        let mut producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.log.producer(&spec)?,
        };
        match self.commit_with(producer.as_mut(), now) {
            Ok(()) => self.producer = Some(producer),
            Err(failed) => {
                self.accounts.clear();
                let usable = failed.producer_usable && producer.abort().is_ok();
                for lane in self.lanes.values_mut() {
                    lane.receipts.shard.rollback_to(0);
                }
                if usable {
                    self.producer = Some(producer);
                } else {
                    drop(producer);
                    self.start_over(&spec)?;
                }
                return Err(failed.fault);
            }
        }
        Ok(())
    }

    /// After a transaction whose end is unknown: forget everything that is not in the log.
    fn start_over(&mut self, spec: &ProducerSpec) -> Result<(), Fault> {
        self.producer = Some(self.log.producer(spec)?);
        let partitions: Vec<TopicPartition> = self.lanes.keys().cloned().collect();
        self.assign(Assignment::Lost(partitions.clone()))?;
        self.assign(Assignment::Gained(partitions.clone()))?;
        for partition in partitions {
            let from = self.lanes[&partition].read_to;
            self.consumer.seek(&partition, from)?;
        }
        Ok(())
    }

    fn commit_with(&mut self, producer: &mut dyn Producer, now: Timestamp) -> Result<(), Failed> {
        let generation = self.consumer.generation()?;
        producer.begin()?;
        let mut offsets = Offsets::new();
        for (partition, lane) in &mut self.lanes {
            let point = lane.commit_point();
            for receipt in &lane.receipts_due {
                let mut value = Vec::new();
                let key = receipt.entity_key.clone();
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
            for (offset, (outcome, reason)) in lane.settled.range(..point) {
                let origin = crate::pipeline::Origin {
                    topic: partition.topic.clone(),
                    partition: partition.partition,
                    offset: *offset,
                };
                self.accounts.settle(&origin, *outcome, *reason);
            }
            let below = |record: &Record| record.origin.offset < point;
            for (record, fault) in lane.undecodable.iter().filter(|(r, _)| below(r)) {
                self.outbox.dead_letter(producer, record, fault, 1, now)?;
            }
            for (inbound, fault, attempts) in lane.dead.iter().filter(|(i, _, _)| below(&i.record))
            {
                self.outbox
                    .dead_letter(producer, &inbound.record, fault, *attempts as i32, now)?;
            }
            if point > lane.committed_to {
                offsets.insert(partition.clone(), point);
            } else if !lane.receipts_due.is_empty() {
                offsets.insert(partition.clone(), lane.committed_to);
            }
        }
        let mut settled = 0;
        self.accounts.each_outcome(|outcome, count| {
            settled += count as usize;
            self.telemetry.outcomes(&self.name, outcome, count);
        });
        self.accounts
            .write(&self.name, &mut self.outbox, producer, now)?;
        producer.flush()?;
        producer.send_offsets(&offsets, &generation)?;
        producer.commit()?;
        for (partition, lane) in &mut self.lanes {
            lane.receipts.shard.commit();
            lane.receipts_due.clear();
            if let Some(point) = offsets.get(partition) {
                lane.settled = lane.settled.split_off(point);
                lane.undecodable.retain(|(r, _)| r.origin.offset >= *point);
                lane.dead
                    .retain(|(i, _, _)| i.record.origin.offset >= *point);
                lane.committed_to = *point;
            }
        }
        self.telemetry.committed(
            &self.name,
            settled,
            self.clock.now().since(now),
            Duration::ZERO,
        );
        Ok(())
    }
}

impl Lane {
    /// Everything below this offset is settled.
    fn commit_point(&self) -> i64 {
        self.open.first().copied().unwrap_or(self.read_to)
    }
}

/// The last receipt of a key, from its bytes in the receipts topic.
fn receipt(codec: &Codec, bytes: &[u8]) -> Option<Sent> {
    let receipt = codec.decode_receipt(bytes)?;
    Some(Sent {
        version: receipt.sent_version,
        external_id: receipt.external_id.map(Into::into),
        digest: receipt.request_hash.map(Into::into),
    })
}

fn receipt_of(
    outbox: &Outbox,
    sink: &str,
    key: &Text,
    waiting: &Waiting,
    ack: &Ack,
    now: Timestamp,
) -> SinkReceipt {
    let origin = &waiting.inbound.record.origin;
    let event = waiting.inbound.event.meta();
    SinkReceipt {
        meta: outbox.meta("SinkReceipt", &origin.to_string(), origin.offset, now),
        sink: sink.into(),
        entity_key: key.clone(),
        operation: Text::from(&*origin.topic),
        idempotency_key: compact_str::format_compact!("{}", event.event_id),
        outcome: ack.outcome,
        external_id: ack.external_id.as_deref().map(Text::from),
        sent_version: ack.version,
        request_hash: ack.digest.as_deref().map(Text::from),
        status_code: ack.status,
        attempt: waiting.attempt as i32,
        source_event: EventRef {
            topic: Text::from(&*origin.topic),
            partition: origin.partition,
            offset: origin.offset,
            event_id: Some(event.event_id),
        },
        latency_micros: Some(now.0.saturating_sub(event.recorded_at.0)),
        ..SinkReceipt::default()
    }
}
