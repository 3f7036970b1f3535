//! Readers of explicit partitions, and when they have caught up.
//!
//! librdkafka tells of a partition's end by partition number alone, so each topic has a client of
//! its own. The end counts only once the log is known to be stable up to where it ended when the
//! reader was opened: an end that was reached in front of an open transaction is none.

use super::super::{Admin, Isolation, LogError, Offset, Reader, TopicPartition, Wanted};
use super::admin::KafkaAdmin;
use super::consumer::Gathered;
use super::{CALL_TIME_MAX, KafkaSettings, forward, forward_error, log_error};
use crate::pipeline::Record;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset as RdOffset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        forward_error(&error, reason);
    }
}

impl ConsumerContext for Quiet {}

struct Place {
    next: i64,
    end: i64,
    /// The log is stable up to `end`.
    stable: bool,
    reached: bool,
}

struct Topic {
    name: Arc<str>,
    /// Made when the topic is read: of one with nothing in it there may be no need.
    consumer: Option<BaseConsumer<Quiet>>,
    places: BTreeMap<i32, Place>,
}

pub(super) struct KafkaReader {
    address: String,
    config: ClientConfig,
    topics: Vec<Topic>,
    /// Met after records of the same poll, which were handed out first.
    untold: Option<LogError>,
}

impl KafkaReader {
    pub fn open(
        settings: &KafkaSettings,
        admin: &KafkaAdmin,
        from: &[(TopicPartition, Offset)],
        isolation: Isolation,
    ) -> Result<Self, LogError> {
        let mut config = settings.reading(isolation);
        config
            .set("group.id", "crossdock.reader")
            .set("enable.partition.eof", "true");
        let config = settings.with_extra(config);
        let mut topics: Vec<Topic> = Vec::new();
        for (at, offset) in from {
            let (first, end) = admin.watermarks(at)?;
            let next = match offset {
                Offset::Beginning => first,
                Offset::End => end,
                Offset::At(offset) => (*offset).max(first),
            };
            let index = match topics.iter().position(|t| t.name == at.topic) {
                Some(index) => index,
                None => {
                    topics.push(Topic {
                        name: at.topic.clone(),
                        consumer: None,
                        places: BTreeMap::new(),
                    });
                    topics.len() - 1
                }
            };
            topics[index].places.insert(
                at.partition,
                Place {
                    next,
                    end,
                    stable: false,
                    reached: next >= end,
                },
            );
        }
        let mut reader = KafkaReader {
            address: settings.bootstrap.clone(),
            config,
            topics,
            untold: None,
        };
        for topic in &mut reader.topics {
            if topic.places.values().any(|p| !p.reached) {
                topic
                    .connect(&reader.config)
                    .map_err(|e| log_error(&reader.address, Some(&topic.name), &e))?;
            }
        }
        Ok(reader)
    }
}

impl Topic {
    /// Begins to read.
    fn connect(&mut self, config: &ClientConfig) -> Result<(), KafkaError> {
        if self.consumer.is_some() {
            return Ok(());
        }
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet)?;
        self.stabilise(&consumer)?;
        let mut list = TopicPartitionList::new();
        for (partition, place) in &self.places {
            // An element just added always takes an offset.
            let _ = list.add_partition_offset(&self.name, *partition, RdOffset::Offset(place.next));
        }
        consumer.assign(&list)?;
        self.consumer = Some(consumer);
        Ok(())
    }

    /// Looks whether the log has become stable up to the end. Returns the partitions that have.
    fn stabilise(&mut self, consumer: &BaseConsumer<Quiet>) -> Result<Vec<i32>, KafkaError> {
        let mut now_stable = Vec::new();
        for (partition, place) in self.places.iter_mut().filter(|(_, p)| !p.stable) {
            let (_, stable_end) =
                consumer.fetch_watermarks(&self.name, *partition, CALL_TIME_MAX)?;
            if stable_end >= place.end {
                place.stable = true;
                now_stable.push(*partition);
            }
        }
        Ok(now_stable)
    }
}

impl Reader for KafkaReader {
    fn poll_where(
        &mut self,
        max: usize,
        wait: Duration,
        wanted: &Wanted,
        into: &mut Vec<Record>,
    ) -> Result<usize, LogError> {
        if let Some(error) = self.untold.take() {
            return Err(error);
        }
        let mut read = 0;
        let share = wait / self.topics.len().max(1) as u32;
        for topic in &mut self.topics {
            let name = topic.name.clone();
            let error = |e: &KafkaError| log_error(&self.address, Some(&name), e);
            topic.connect(&self.config).map_err(|e| error(&e))?;
            let Some(consumer) = topic.consumer.take() else {
                continue;
            };
            let stabilised = match topic.places.values().any(|p| !p.stable) {
                true => topic.stabilise(&consumer),
                false => Ok(Vec::new()),
            };
            let consumer = topic.consumer.insert(consumer);
            for partition in stabilised.map_err(|e| error(&e))? {
                // An end reported before does not count: ask for it anew.
                let next = RdOffset::Offset(topic.places[&partition].next);
                let sought = consumer.seek(&topic.name, partition, next, CALL_TIME_MAX);
                sought.map_err(|e| error(&e))?;
            }
            let mut gathered = Gathered::new(into);
            let mut names = vec![topic.name.clone()];
            let mut wait = share;
            let mut of_topic = 0;
            while of_topic < max {
                match consumer.poll(wait) {
                    None => break,
                    Some(Ok(message)) => {
                        if let Some(place) = topic.places.get_mut(&message.partition()) {
                            place.next = message.offset() + 1;
                        }
                        of_topic += 1;
                        if wanted(message.key(), message.payload()) {
                            gathered.add(&mut names, &message);
                        }
                    }
                    Some(Err(KafkaError::PartitionEOF(partition))) => {
                        if let Some(place) = topic.places.get_mut(&partition).filter(|p| p.stable) {
                            place.reached = true;
                            place.next = place.next.max(place.end);
                        }
                        if topic.places.values().all(|p| p.reached) {
                            break;
                        }
                        continue;
                    }
                    Some(Err(e)) => match error(&e) {
                        LogError::Unreachable { .. } | LogError::TimedOut(_) => break,
                        other => {
                            self.untold = Some(other);
                            break;
                        }
                    },
                }
                wait = Duration::ZERO;
            }
            gathered.finish();
            read += of_topic;
        }
        match self.untold.take_if(|_| read == 0) {
            Some(error) => Err(error),
            None => Ok(read),
        }
    }

    fn caught_up(&self) -> bool {
        self.topics
            .iter()
            .flat_map(|t| t.places.values())
            .all(|p| p.reached || p.next >= p.end)
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        let topic = self.topics.iter().find(|t| t.name == partition.topic)?;
        topic.places.get(&partition.partition).map(|p| p.next)
    }
}
