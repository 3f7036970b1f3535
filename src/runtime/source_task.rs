//! A source task: polls a connector's source and writes what it read, with the cursor, in one
//! transaction.
//!
//! Which instance reads which shard follows from the assignment of the cursor topic: a shard
//! belongs to whoever owns the partition of its cursor. The transaction carries that group's
//! generation, so an instance that lost the shard cannot write any more.
//!
//! What a rebalance or a failed transaction calls for is noted and then done by steps, which can
//! fail and be called again: a cursor is used only after it was read under the present ownership
//! and with every transaction of this task settled.

use super::Progress;
use super::inbox::LogInbox;
use super::outbox::{Failed, Outbox};
use super::settings::{Membership, TaskSettings};
use crate::codec::Codec;
use crate::contract::event::{
    Cursor as CursorEvent, Event, EventMeta, Origin, PositionKind, SourceHeartbeat, Text,
};
use crate::contract::{Catalogue, topic};
use crate::domain::{Timestamp, compound_key, event_id};
use crate::log::{
    Assignment, Consumer, GroupGeneration, GroupSpec, Isolation, Log, Offset, Offsets, Producer,
    ProducerSpec, Reader, TopicPartition, partition_for,
};
use crate::pipeline::{
    Clock, Code, Cursor, Fault, Record, Source, SourceBatch, SourceOrigin, SourceRecord,
    SourceReject, Stage, Verdict,
};
use crate::telemetry::{Committed, Telemetry};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Drives one source of one connector instance.
pub struct SourceTask {
    name: String,
    source: Box<dyn Source>,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    codec: Arc<Codec>,
    telemetry: Arc<Telemetry>,
    settings: TaskSettings,
    consumer: Box<dyn Consumer>,
    producer: Option<Box<dyn Producer>>,
    outbox: Outbox,
    partitions: i32,
    owned: BTreeMap<TopicPartition, Cursors>,
    cursors: BTreeMap<Text, Cursor>,
    /// Shards whose source has been told that its cursor is durable.
    acknowledged: BTreeSet<Text>,
    /// A transaction's end is not known: only a new producer settles it, and only the log tells.
    unsettled: bool,
    turn: usize,
    /// When each shard was last said to be heard of.
    beats: BTreeMap<Text, Timestamp>,
}

/// The cursors of one owned partition of the cursor topic.
enum Cursors {
    Unread,
    Reading(Box<dyn Reader>),
    /// Known, up to this position.
    Known(i64),
}

/// How often a source that can be read is said to be heard of.
const BEAT_INTERVAL: Duration = Duration::from_secs(60);
/// How long a step waits for cursors.
const READ_WAIT: Duration = Duration::from_millis(50);

impl SourceTask {
    /// Joins the group that shares the shards of the connector instance `name`.
    ///
    /// # Errors
    /// When the log cannot be reached, the cursor topic is missing, or the source cannot be opened.
    #[allow(
        clippy::too_many_arguments,
        reason = "the ports that a task is made of"
    )]
    pub fn new(
        name: &str,
        mut source: Box<dyn Source>,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        codec: Arc<Codec>,
        catalogue: &Catalogue,
        telemetry: Arc<Telemetry>,
        settings: TaskSettings,
    ) -> Result<Self, Fault> {
        let Some(partitions) = log.admin().partitions(topic::SOURCE_CURSOR)? else {
            return Err(crate::log::LogError::UnknownTopic {
                topic: topic::SOURCE_CURSOR.into(),
            }
            .into());
        };
        let reader = format!("{name}.source");
        let consumer = log.consumer(&GroupSpec {
            group: settings.group(&reader),
            member: settings.member(&reader),
            topics: vec![Arc::from(topic::SOURCE_CURSOR)],
            protocol: settings.protocol,
            session_timeout: settings.session_timeout,
            max_poll_interval: Duration::from_secs(300),
            isolation: Isolation::ReadCommitted,
        })?;
        telemetry.declare_task(&settings.label(&reader));
        let inbox = LogInbox::new(name, log.clone(), clock.clone(), codec.clone(), catalogue);
        source.open(Arc::new(inbox))?;
        Ok(SourceTask {
            outbox: Outbox::new(codec.clone(), catalogue, name),
            partitions,
            name: name.to_owned(),
            source,
            log,
            clock,
            codec,
            telemetry,
            settings,
            consumer,
            producer: None,
            owned: BTreeMap::new(),
            cursors: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            unsettled: false,
            turn: 0,
            beats: BTreeMap::new(),
        })
    }

    /// Its place in its group.
    pub fn membership(&self) -> Membership {
        self.settings
            .membership(&self.log, &format!("{}.source", self.name))
    }

    /// Name of the connector instance.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends when the source has something sooner than it would be polled anyhow. Cancel-safe.
    pub async fn woken(&mut self) {
        self.source.woken().await;
    }

    /// Follows the group without polling the source. Returns whether every shard is this task's, and
    /// how far each was read is known.
    ///
    /// # Errors
    /// As [`SourceTask::step`].
    pub fn follow(&mut self) -> Result<bool, Fault> {
        self.follow_group()?;
        let known = self.read_cursors()?;
        Ok(known && self.source.shards().iter().all(|s| self.owns(s)))
    }

    /// Polls the next shards once each and writes what they brought. [`Progress::Idle`] when no
    /// shard had more to read.
    ///
    /// Cancel-safe: dropping the future loses nothing that the next poll from the durable cursor
    /// does not bring again.
    ///
    /// # Errors
    /// A retry: the source or the log is unwell, call again after a pause. A halt: somebody must
    /// mend something.
    pub async fn step(&mut self) -> Result<Progress, Fault> {
        self.follow_group()?;
        if self.unsettled {
            self.settle()?;
        }
        if !self.read_cursors()? {
            return Ok(Progress::Restoring { read: 0, total: 1 });
        }
        let shards: Vec<String> = self
            .source
            .shards()
            .into_iter()
            .filter(|s| self.owns(s))
            .collect();
        if shards.is_empty() {
            return Ok(if self.consumer.is_joined() {
                Progress::Unassigned
            } else {
                Progress::Joining
            });
        }
        let mut worked = 0;
        let mut more = false;
        for _ in 0..shards.len() {
            self.turn = (self.turn + 1) % shards.len();
            let shard = &shards[self.turn];
            let key = self.cursor_key(shard);
            self.acknowledge(shard, &key).await?;
            let generation = self.consumer.generation()?;
            let polled = self.source.poll(shard, self.cursors.get(&key)).await;
            let mut batch = polled.map_err(Fault::of_source)?;
            more |= batch.more;
            let count = batch.records.len() + batch.rejects.len();
            let moved = self.cursors.get(&key) != Some(&batch.cursor);
            let now = self.clock.now();
            let beat = self.beats.get(&key).map(|at| at.plus(BEAT_INTERVAL));
            let beats = beat.is_none_or(|due| due <= now);
            if beats {
                let beat = self.heartbeat(shard, &batch, now);
                batch.records.push(beat);
            }
            if count > 0 || moved || beats {
                self.write(shard, &key, &batch, &generation)?;
                if beats {
                    self.beats.insert(key.clone(), now);
                }
                self.acknowledged.remove(&key);
                self.cursors.insert(key.clone(), batch.cursor);
                self.acknowledge(shard, &key).await?;
            }
            worked += count;
        }
        Ok(if worked > 0 || more {
            Progress::Worked(worked)
        } else {
            Progress::Idle { until: None }
        })
    }

    /// Says that the source has answered: whoever relies on its facts knows that silence means none.
    fn heartbeat(&self, shard: &str, batch: &SourceBatch, now: Timestamp) -> SourceRecord {
        let source = self.source.source_name().unwrap_or(&self.name);
        let newest = batch.records.iter().map(|r| r.event.meta().occurred_at);
        let record_id = format!("{shard}@{}", now.0);
        let event = SourceHeartbeat {
            meta: EventMeta {
                event_id: event_id(source, 0, &record_id, "", "SourceHeartbeat"),
                event_type: "SourceHeartbeat".into(),
                source: source.into(),
                source_position: batch.cursor.sequence,
                position_kind: PositionKind::Sequence,
                occurred_at: now,
                tenant_id: "default".into(),
                correlation_id: record_id.into(),
                origin: Origin::Source,
                ..EventMeta::default()
            },
            entity_type: "source".into(),
            scope: shard.into(),
            watermark_position: batch.cursor.sequence,
            // What is still to be read may be older than now.
            watermark_at: match batch.more {
                true => newest.max().unwrap_or(now),
                false => now,
            },
            emitted_since_last: batch.records.len() as i64,
        };
        SourceRecord {
            topic: topic::OPS_HEARTBEAT,
            key: compound_key(&[source, shard]),
            event: event.into(),
        }
    }

    /// Tells the source that its cursor is durable, until it has heard: after a fault or a restart
    /// again.
    async fn acknowledge(&mut self, shard: &str, key: &Text) -> Result<(), Fault> {
        if self.acknowledged.contains(key) {
            return Ok(());
        }
        if let Some(cursor) = self.cursors.get(key) {
            self.source.committed(shard, cursor).await?;
            self.acknowledged.insert(key.clone());
        }
        Ok(())
    }

    fn follow_group(&mut self) -> Result<(), Fault> {
        // The records of the cursor topic are read by a reader of their own; the group only says
        // who owns what.
        let changes = self.consumer.poll(0, Duration::ZERO, &mut Vec::new())?;
        for change in changes {
            match change {
                Assignment::Gained(gained) => {
                    tracing::info!(
                        source = self.name,
                        count = gained.len(),
                        "cursor partitions gained"
                    );
                    let paused = self.consumer.pause(&gained);
                    let unread = gained.into_iter().map(|p| (p, Cursors::Unread));
                    self.owned.extend(unread);
                    paused?;
                }
                Assignment::Revoked(gone) | Assignment::Lost(gone) => {
                    tracing::info!(
                        source = self.name,
                        count = gone.len(),
                        "cursor partitions given up"
                    );
                    for partition in gone {
                        self.owned.remove(&partition);
                        self.forget(&partition);
                    }
                }
            }
        }
        Ok(())
    }

    fn forget(&mut self, partition: &TopicPartition) {
        let count = self.partitions;
        let elsewhere = |key: &Text| partition_for(key.as_bytes(), count) != partition.partition;
        self.cursors.retain(|key, _| elsewhere(key));
        self.acknowledged.retain(elsewhere);
    }

    /// After a transaction whose end is unknown: a new producer fences the old and settles what it
    /// left; then the cursors are read back from the log, which alone knows.
    fn settle(&mut self) -> Result<(), Fault> {
        self.producer = None;
        self.producer = Some(self.log.producer(&self.producer_spec())?);
        let partitions: Vec<TopicPartition> = self.owned.keys().cloned().collect();
        for partition in &partitions {
            self.forget(partition);
        }
        for cursors in self.owned.values_mut() {
            *cursors = Cursors::Unread;
        }
        self.unsettled = false;
        Ok(())
    }

    /// Reads a part of the cursors that are not known yet. Returns whether all are.
    fn read_cursors(&mut self) -> Result<bool, Fault> {
        let unknown: Vec<TopicPartition> = self
            .owned
            .iter()
            .filter(|(_, c)| !matches!(c, Cursors::Known(_)))
            .map(|(p, _)| p.clone())
            .collect();
        let prefix = compound_key(&[&self.name, ""]);
        let mut records = Vec::new();
        let mut all = true;
        for partition in unknown {
            let mut reader = match self.owned.insert(partition.clone(), Cursors::Unread) {
                Some(Cursors::Reading(reader)) => reader,
                _ => self.log.reader(
                    &[(partition.clone(), Offset::Beginning)],
                    Isolation::ReadCommitted,
                )?,
            };
            if !reader.caught_up() {
                reader.poll(10_000, READ_WAIT, &mut records)?;
            }
            for record in records.drain(..) {
                self.take_cursor(&prefix, &record)?;
            }
            let known = reader.caught_up();
            all &= known;
            let cursors = if known {
                Cursors::Known(reader.position(&partition).unwrap_or_default())
            } else {
                Cursors::Reading(reader)
            };
            self.owned.insert(partition, cursors);
        }
        Ok(all)
    }

    fn take_cursor(&mut self, prefix: &str, record: &Record) -> Result<(), Fault> {
        let Some(Ok(key)) = record.key.as_deref().map(std::str::from_utf8) else {
            return Ok(());
        };
        if !key.starts_with(prefix) {
            return Ok(());
        }
        if record.value.is_none() {
            // An operator's way to have a shard read from its beginning.
            self.cursors.remove(key);
            return Ok(());
        }
        let unreadable = |words: &str| {
            let message = format!(
                "the cursor {key} at {} cannot be read: {words}; write a good one, or a record without a value to read the shard from its beginning",
                record.origin
            );
            Fault::halt(Stage::Read, Code::Malformed, message)
        };
        let stored = match self.codec.decode(record) {
            Ok(Event::Cursor(stored)) => stored,
            Ok(other) => return Err(unreadable(other.contract())),
            Err(fault) if fault.verdict == Verdict::Reject => {
                return Err(unreadable(&fault.message));
            }
            Err(fault) => return Err(fault),
        };
        let bookmark = serde_json::from_str(&stored.bookmark)
            .map_err(|e| unreadable("its bookmark is not JSON").caused_by(e))?;
        let cursor = Cursor {
            bookmark,
            sequence: stored.sequence,
        };
        self.cursors.insert(key.into(), cursor);
        Ok(())
    }

    fn owns(&self, shard: &str) -> bool {
        self.owned
            .contains_key(&self.cursor_partition(&self.cursor_key(shard)))
    }

    fn cursor_key(&self, shard: &str) -> Text {
        compound_key(&[&self.name, shard])
    }

    fn cursor_partition(&self, key: &str) -> TopicPartition {
        TopicPartition::new(
            topic::SOURCE_CURSOR,
            partition_for(key.as_bytes(), self.partitions),
        )
    }

    fn producer_spec(&self) -> ProducerSpec {
        ProducerSpec {
            transactional_id: Some(
                self.settings
                    .transactional_id(&format!("{}.source", self.name), 'a'),
            ),
            transaction_timeout: self.settings.transaction_timeout,
            linger: Duration::ZERO,
        }
    }

    fn write(
        &mut self,
        shard: &str,
        key: &Text,
        batch: &SourceBatch,
        generation: &GroupGeneration,
    ) -> Result<(), Fault> {
        let started = self.clock.now();
        let mut producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.log.producer(&self.producer_spec())?,
        };
        match self.write_with(producer.as_mut(), generation, shard, key, batch, started) {
            Ok(()) => {
                self.producer = Some(producer);
                let committed = Committed {
                    records: batch.records.len() as u64,
                    outcomes: BTreeMap::new(),
                    took: self.clock.now().since(started),
                };
                self.telemetry.committed(&self.name, &committed);
                for reject in &batch.rejects {
                    self.telemetry.fault(&self.name, reject.fault.code);
                }
                Ok(())
            }
            Err(failed) if failed.producer_usable && producer.abort().is_ok() => {
                self.producer = Some(producer);
                Err(failed.fault)
            }
            Err(failed) => {
                self.unsettled = true;
                Err(failed.fault)
            }
        }
    }

    fn write_with(
        &mut self,
        producer: &mut dyn Producer,
        generation: &GroupGeneration,
        shard: &str,
        key: &Text,
        batch: &SourceBatch,
        now: Timestamp,
    ) -> Result<(), Failed> {
        let partition = self.cursor_partition(key);
        let Some(Cursors::Known(position)) = self.owned.get(&partition) else {
            let message = format!("{partition} has been given up");
            return Err(Fault::retry(Stage::Commit, Code::Log, message).into());
        };
        let offsets = Offsets::from([(partition, *position)]);
        producer.begin()?;
        for record in &batch.records {
            let sent =
                self.outbox
                    .send_stamped(producer, record.topic, &record.key, &record.event, now);
            match sent {
                Err(failed) if failed.fault.verdict == Verdict::Reject => {
                    // What cannot be written must not hold up what comes after it.
                    let mut raw = Vec::new();
                    record.event.encode(&mut raw);
                    let reject = SourceReject {
                        origin: SourceOrigin {
                            container: record.topic.to_owned(),
                            item: record.event.meta().event_id.to_string(),
                        },
                        raw: raw.into(),
                        fault: failed.fault,
                    };
                    self.reject(producer, &reject, now)?;
                }
                other => other?,
            }
        }
        for reject in &batch.rejects {
            self.reject(producer, reject, now)?;
        }
        let cursor = CursorEvent {
            meta: self.outbox.meta("Cursor", key, batch.cursor.sequence, now),
            connector: self.name.as_str().into(),
            shard: shard.into(),
            bookmark: batch.cursor.bookmark.to_string().into(),
            sequence: batch.cursor.sequence,
            records: batch.records.len() as i64,
        };
        self.outbox.send(
            producer,
            topic::SOURCE_CURSOR,
            key,
            &cursor.into(),
            None,
            now,
        )?;
        producer.flush()?;
        producer.send_offsets(&offsets, generation)?;
        producer.commit()?;
        Ok(())
    }

    fn reject(
        &mut self,
        producer: &mut dyn Producer,
        reject: &SourceReject,
        now: Timestamp,
    ) -> Result<(), Failed> {
        tracing::warn!(source = self.name, container = reject.origin.container, item = reject.origin.item, code = %reject.fault.code, cause = reject.fault.message, "left out and dead-lettered");
        self.outbox.dead_letter_of_source(producer, reject, now)
    }
}
