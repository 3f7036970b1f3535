//! A source task: polls a connector's source and writes what it read, with the cursor, in one
//! transaction.
//!
//! Which instance reads which shard follows from the assignment of the cursor topic: a shard
//! belongs to whoever owns the partition of its cursor. The transaction carries that group's
//! generation, so an instance that lost the shard cannot write any more.

use super::Progress;
use super::outbox::{Failed, Outbox};
use super::settings::TaskSettings;
use crate::codec::Codec;
use crate::contract::event::{Cursor as CursorEvent, Event, Text};
use crate::contract::{Catalogue, topic};
use crate::domain::{Timestamp, compound_key};
use crate::log::{
    Assignment, Consumer, GroupSpec, Isolation, Log, Offset, Offsets, Producer, ProducerSpec,
    TopicPartition, partition_for,
};
use crate::pipeline::{Clock, Code, Cursor, Fault, Source, SourceBatch, Stage};
use crate::telemetry::Telemetry;
use std::collections::BTreeMap;
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
    /// Owned cursor partitions, with the position behind their last record.
    owned: BTreeMap<TopicPartition, i64>,
    cursors: BTreeMap<Text, Cursor>,
    turn: usize,
}

impl SourceTask {
    /// Joins the group that shares the shards of the connector instance `name`.
    ///
    /// # Errors
    /// When the log cannot be reached or the cursor topic is missing.
    #[allow(
        clippy::too_many_arguments,
        reason = "the ports that a task is made of"
    )]
    pub fn new(
        name: &str,
        source: Box<dyn Source>,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        codec: Arc<Codec>,
        catalogue: &Catalogue,
        telemetry: Arc<Telemetry>,
        settings: TaskSettings,
    ) -> Result<Self, Fault> {
        let topics = log.admin().topics()?;
        let cursors = topics.iter().find(|t| t.name == topic::SOURCE_CURSOR);
        let Some(cursors) = cursors else {
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
        Ok(SourceTask {
            outbox: Outbox::new(codec.clone(), catalogue, name),
            partitions: cursors.partitions,
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
            turn: 0,
        })
    }

    /// Name of the connector instance.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Polls the next shard once and writes what it brought. [`Progress::Idle`] when no shard had
    /// more to read.
    ///
    /// Cancel-safe up to the write; dropping the future during the write loses nothing that the
    /// next poll from the durable cursor does not bring again.
    ///
    /// # Errors
    /// A retry: the source or the log is unwell, call again after a pause. A halt: somebody must
    /// mend something.
    pub async fn step(&mut self) -> Result<Progress, Fault> {
        self.follow_group()?;
        let shards: Vec<String> = self
            .source
            .shards()
            .into_iter()
            .filter(|s| self.owns(s))
            .collect();
        if shards.is_empty() {
            return Ok(Progress::Unassigned);
        }
        let mut worked = 0;
        let mut more = false;
        for _ in 0..shards.len() {
            self.turn = (self.turn + 1) % shards.len();
            let shard = &shards[self.turn];
            let key = self.cursor_key(shard);
            let batch = self.source.poll(shard, self.cursors.get(&key)).await?;
            more |= batch.more;
            let count = batch.records.len() + batch.rejects.len();
            let moved = self.cursors.get(&key) != Some(&batch.cursor);
            if count > 0 || moved {
                self.write(shard, &key, &batch)?;
                self.source.committed(shard, &batch.cursor).await?;
                self.cursors.insert(key, batch.cursor);
            }
            worked += count;
        }
        Ok(if worked > 0 || more {
            Progress::Worked(worked)
        } else {
            Progress::Idle { until: None }
        })
    }

    fn follow_group(&mut self) -> Result<(), Fault> {
        // The records of the cursor topic are read by a reader of their own; the group only says
        // who owns what.
        let changes = self.consumer.poll(0, Duration::ZERO, &mut Vec::new())?;
        for change in changes {
            match change {
                Assignment::Gained(gained) => {
                    self.consumer.pause(&gained)?;
                    for partition in gained {
                        self.read_cursors(&partition)?;
                    }
                }
                Assignment::Revoked(gone) | Assignment::Lost(gone) => {
                    for partition in gone {
                        self.owned.remove(&partition);
                        let number = partition.partition;
                        let count = self.partitions;
                        self.cursors
                            .retain(|key, _| partition_for(key.as_bytes(), count) != number);
                    }
                }
            }
        }
        Ok(())
    }

    fn read_cursors(&mut self, partition: &TopicPartition) -> Result<(), Fault> {
        let mut reader = self.log.reader(
            &[(partition.clone(), Offset::Beginning)],
            Isolation::ReadCommitted,
        )?;
        let prefix = compound_key(&[&self.name, ""]);
        let mut records = Vec::new();
        while !reader.caught_up() {
            reader.poll(10_000, Duration::from_millis(100), &mut records)?;
            for record in records.drain(..) {
                let Some(Ok(key)) = record.key.as_deref().map(std::str::from_utf8) else {
                    continue;
                };
                if !key.starts_with(&*prefix) {
                    continue;
                }
                if let Event::Cursor(stored) = self.codec.decode(&record)? {
                    let bookmark = serde_json::from_str(&stored.bookmark).map_err(|e| {
                        Fault::halt(
                            Stage::Read,
                            Code::Bug,
                            format!("the cursor {key} at {} is not JSON", record.origin),
                        )
                        .caused_by(e)
                    })?;
                    self.cursors.insert(
                        key.into(),
                        Cursor {
                            bookmark,
                            sequence: stored.sequence,
                        },
                    );
                }
            }
        }
        let position = reader.position(partition).unwrap_or_default();
        self.owned.insert(partition.clone(), position);
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

    fn write(&mut self, shard: &str, key: &Text, batch: &SourceBatch) -> Result<(), Fault> {
        let started = self.clock.now();
        let generation = self.consumer.generation()?;
        let mut producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.log.producer(&ProducerSpec {
                transactional_id: Some(
                    self.settings
                        .transactional_id(&format!("{}.source", self.name), 'a'),
                ),
                transaction_timeout: self.settings.transaction_timeout,
                linger: Duration::ZERO,
            })?,
        };
        let result = self.write_with(producer.as_mut(), &generation, shard, key, batch, started);
        match result {
            Ok(()) => {
                self.producer = Some(producer);
                let count = batch.records.len();
                self.telemetry.committed(
                    &self.name,
                    count,
                    self.clock.now().since(started),
                    Duration::ZERO,
                );
                Ok(())
            }
            Err(failed) => {
                if failed.producer_usable && producer.abort().is_ok() {
                    self.producer = Some(producer);
                } else {
                    // Whether the transaction ended is not known: the log tells, once a new producer
                    // has settled it. Cursors are read again with the partitions.
                    drop(producer);
                    let partitions: Vec<TopicPartition> = self.owned.keys().cloned().collect();
                    self.producer = Some(
                        self.log.producer(&ProducerSpec {
                            transactional_id: Some(
                                self.settings
                                    .transactional_id(&format!("{}.source", self.name), 'a'),
                            ),
                            transaction_timeout: self.settings.transaction_timeout,
                            linger: Duration::ZERO,
                        })?,
                    );
                    for partition in partitions {
                        self.read_cursors(&partition)?;
                    }
                }
                Err(failed.fault)
            }
        }
    }

    fn write_with(
        &mut self,
        producer: &mut dyn Producer,
        generation: &crate::log::GroupGeneration,
        shard: &str,
        key: &Text,
        batch: &SourceBatch,
        now: Timestamp,
    ) -> Result<(), Failed> {
        producer.begin()?;
        for record in &batch.records {
            self.outbox
                .send_stamped(producer, record.topic, &record.key, &record.event, now)?;
        }
        for reject in &batch.rejects {
            tracing::warn!(source = self.name, container = reject.origin.container, item = reject.origin.item, code = %reject.fault.code, cause = reject.fault.message, "left out and dead-lettered");
            self.telemetry.fault(&self.name, reject.fault.code);
            self.outbox.dead_letter_of_source(producer, reject, now)?;
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
        let partition = self.cursor_partition(key);
        let position = self.owned.get(&partition).copied().unwrap_or_default();
        producer.send_offsets(&Offsets::from([(partition, position)]), generation)?;
        producer.commit()?;
        Ok(())
    }
}
