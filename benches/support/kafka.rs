//! A real Kafka with a deployment's topics, and clients of the bench's own.

#[path = "../../tests/support/kafka.rs"]
mod cluster;

use super::load::{self, Positions};
use super::process::{crossdock, wait_until};
use crossdock::codec::{self, Codec};
use crossdock::contract::event::Event;
use crossdock::contract::{Catalogue, PhysicalTopic, Tier, topic};
use crossdock::domain::Timestamp;
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use crossdock::log::{Log, LogError, Outgoing, Producer, ProducerSpec, TopicSpec};
use crossdock::pipeline::{Clock, Headers, SystemClock};
use crossdock::processors;
use crossdock::registry::{self, EmbeddedRegistry, Registry as _};
use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use cluster::Kafka;

/// Longest wait for an answer of the broker.
const PATIENCE: Duration = Duration::from_secs(60);

/// The topics of a deployment with all processors and one storefront, on a cluster.
pub struct Deployment {
    pub kafka: Kafka,
    pub log: Arc<dyn Log>,
    pub codec: Arc<Codec>,
    topics: Vec<TopicSpec>,
}

impl Deployment {
    /// Topics with `partitions` partitions, schemas registered, the channel declared.
    ///
    /// # Panics
    /// Where no Kafka can be started: the bench has nothing to say then.
    pub fn new(partitions: i32, sinks: &[&str], folder: &Path) -> Deployment {
        Self::of(partitions, sinks, folder, |_| true)
    }

    /// As [`Deployment::new`], with those topics alone that are wanted by their names.
    ///
    /// # Panics
    /// As [`Deployment::new`].
    pub fn of(
        partitions: i32,
        sinks: &[&str],
        folder: &Path,
        wanted: impl Fn(&str) -> bool,
    ) -> Deployment {
        let kafka = Kafka::find(1).expect("a real Kafka");
        let log: Arc<dyn Log> =
            Arc::new(KafkaLog::connect(KafkaSettings::plain(&kafka.bootstrap)).expect("connected"));
        let readers: Vec<(&str, &str)> = processors::ALL
            .iter()
            .map(|p| (p.descriptor.name, p.descriptor.inputs[0]))
            .collect();
        let inboxes = Catalogue::compiled().physical_of_inboxes(sinks);
        let sinks: Vec<(&str, &str)> = sinks.iter().map(|s| (*s, topic::STOCK_ATS)).collect();
        let physical = Catalogue::compiled().physical(Tier::S, &readers, &sinks);
        let physical: Vec<PhysicalTopic> = physical
            .into_iter()
            .chain(inboxes)
            .filter(|t| wanted(&t.name))
            .collect();
        let contracts: Vec<(String, String)> = physical
            .iter()
            .filter_map(|t| Some((t.name.clone(), t.contract.clone()?)))
            .collect();
        let topics: Vec<TopicSpec> = physical
            .into_iter()
            .map(|t| TopicSpec {
                name: t.name,
                partitions: if t.partitions == 1 { 1 } else { partitions },
                replication: 1,
                settings: t.settings,
            })
            .collect();
        let registry = registry::topic_spec(1);
        let all = [&topics[..], &[registry]].concat();
        log.admin().create_all(&all).expect("new topics");
        let registered = crossdock(&kafka.bootstrap, folder)
            .args(["schemas", "register"])
            .status();
        assert!(registered.is_ok_and(|s| s.success()), "schemas register");
        let registry = EmbeddedRegistry::open(log.clone()).expect("the registry in the log");
        // What sinks that are in no configuration keep for themselves.
        let kept: Vec<(String, &str)> = contracts
            .iter()
            .filter_map(|(topic, contract)| {
                let (_, schema) = Event::CONTRACTS.iter().find(|(name, _)| name == contract)?;
                Some((codec::subject(topic), *schema))
            })
            .collect();
        let kept: Vec<(&str, &str)> = kept.iter().map(|(s, schema)| (&**s, *schema)).collect();
        registry.register_all(&kept).expect("registered");
        let codec = Arc::new(Codec::new(Arc::new(registry), Catalogue::compiled()));
        let deployment = Deployment {
            kafka,
            log,
            codec,
            topics,
        };
        let mut producer = deployment.producer();
        let channel = load::channel().into();
        deployment.send(
            producer.as_mut(),
            topic::CHANNEL_CHANGE,
            load::CHANNEL,
            &channel,
        );
        producer.flush().expect("flushed");
        deployment
    }

    /// A producer for loads, without transactions.
    pub fn producer(&self) -> Box<dyn Producer> {
        let spec = ProducerSpec {
            linger: Duration::from_millis(5),
            ..ProducerSpec::default()
        };
        self.log.producer(&spec).expect("a producer")
    }

    /// Queues an event, waiting for room.
    pub fn send(&self, producer: &mut dyn Producer, topic: &str, key: &str, event: &Event) {
        let mut value = Vec::new();
        self.codec
            .encode(topic, event, &mut value)
            .expect("encoded");
        let record = Outgoing {
            topic,
            partition: None,
            key: Some(key.as_bytes()),
            value: Some(&value),
            headers: &Headers::default(),
            timestamp_ms: SystemClock.now().as_millis(),
        };
        loop {
            match producer.send(record) {
                Ok(()) => return,
                Err(LogError::QueueFull) => producer.poll(Duration::from_millis(5)),
                Err(error) => panic!("{topic}: {error}"),
            }
        }
    }

    /// Writes `count` changes. Returns the bytes of their values.
    pub fn load(&self, count: usize) -> usize {
        let mut producer = self.producer();
        let mut positions = Positions::new(load::SKUS, 1);
        let start = SystemClock.now();
        let mut bytes = 0;
        for number in 0..count as u64 {
            let time = Timestamp(start.0 + number as i64);
            let (key, event) = load::receipt(number, positions.draw(), time);
            let event = event.into();
            if number == 0 {
                let mut value = Vec::new();
                let encoded = self.codec.encode(topic::STOCK_CHANGE, &event, &mut value);
                encoded.expect("encoded");
                bytes = value.len();
            }
            self.send(producer.as_mut(), topic::STOCK_CHANGE, &key, &event);
        }
        producer.flush().expect("flushed");
        bytes
    }

    /// Partitions of a topic of the deployment.
    pub fn partitions(&self, topic: &str) -> i32 {
        let found = self.topics.iter().find(|t| t.name == topic);
        found.map_or(0, |t| t.partitions)
    }

    /// Ends of a topic's partitions, added up.
    pub fn end(&self, topic: &str) -> i64 {
        let at = |p| crossdock::log::TopicPartition::new(topic, p);
        (0..self.partitions(topic))
            .map(|p| self.log.admin().watermarks(&at(p)).expect("watermarks").1)
            .sum()
    }

    /// Empties every topic that processors and sinks write.
    pub fn reset(&self) {
        self.reset_except(&[topic::STOCK_CHANGE]);
    }

    /// Empties every topic but these and that of the channels.
    pub fn reset_except(&self, inputs: &[&str]) {
        let kept = [&[topic::CHANNEL_CHANGE][..], inputs].concat();
        let gone: Vec<&TopicSpec> = self
            .topics
            .iter()
            .filter(|t| !kept.contains(&t.name.as_str()))
            .collect();
        let names: Vec<&str> = gone.iter().map(|t| t.name.as_str()).collect();
        let admin: AdminClient<DefaultClientContext> =
            client(&self.kafka.bootstrap).create().expect("a client");
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        block_on(admin.delete_topics(&names, &options)).expect("deleted");
        for topic in &gone {
            // The name is free a moment after the broker has answered.
            wait_until("a topic is created anew", PATIENCE, || {
                self.log.admin().create(topic).is_ok()
            });
        }
        wait_until("the new topics are told of", PATIENCE, || {
            let there = self.log.admin().topics().expect("topics");
            let is_there = |t: &&TopicSpec| there.iter().any(|other| other.name == t.name);
            gone.iter().all(is_there)
        });
    }
}

/// A client of the bench's own.
pub fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

/// Watches how far a group has come in a topic.
pub struct Watch {
    asking: BaseConsumer,
    topic: String,
    partitions: i32,
}

impl Watch {
    /// Watches `group`.
    pub fn new(bootstrap: &str, group: &str, topic: &str, partitions: i32) -> Watch {
        let asking = client(bootstrap)
            .set("group.id", group)
            .create()
            .expect("a client");
        Watch {
            asking,
            topic: topic.to_owned(),
            partitions,
        }
    }

    /// Records that the group has committed, of all partitions.
    pub fn committed(&self) -> i64 {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.topic, 0, self.partitions - 1);
        let found = self.asking.committed_offsets(list, PATIENCE);
        let found = found.expect("committed offsets");
        let offset = |o| match o {
            Offset::Offset(offset) => offset,
            _ => 0,
        };
        found.elements().iter().map(|e| offset(e.offset())).sum()
    }
}
