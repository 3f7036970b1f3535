//! Administration of topics and groups.

use super::super::{Admin, Isolation, LogError, Offsets, TopicPartition, TopicSpec};
use super::consumer::{list_of, offsets_of};
use super::{CALL_TIME_MAX, KafkaSettings, PROBE_INTERVAL, forward, forward_error, log_error};
use futures::executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::topic_partition_list::{Offset as RdOffset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a topic that was just made is looked for.
const TOPIC_WAIT: Duration = Duration::from_millis(20);
/// Of many topics at once, each may take so much longer.
const TOPIC_TIME_MAX: Duration = Duration::from_millis(500);
/// Partitions created by one call: a controller does each whole, and no more than 10,000.
const PARTITIONS_AT_ONCE: i32 = 2_000;
/// Length of a UUID in text.
const UUID_CHARS: usize = 36;
/// Complaints taken in at a time.
const EVENTS_MAX: usize = 100;

/// How long the creation of so many topics at once may take: brokers of a small or busy machine make a hundred
/// in more time than any other call may take.
fn time_for(topics: usize) -> Duration {
    CALL_TIME_MAX + TOPIC_TIME_MAX * topics as u32
}

pub(super) struct KafkaAdmin {
    settings: KafkaSettings,
    admin: AdminClient<DefaultClientContext>,
    /// Reads metadata and high watermarks, open transactions included.
    probe: BaseConsumer<Complaints>,
    cluster_id: String,
}

/// Remembers why a broker could not be talked to: a call that got no answer does not tell.
#[derive(Default)]
struct Complaints(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl ClientContext for Complaints {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode as E;
        let code = error.rdkafka_error_code();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match code {
            // What follows a refusal says less than it.
            Some(code @ (E::Authentication | E::SaslAuthenticationFailed | E::SSL)) => {
                *last = Some((code, reason.to_owned()));
            }
            Some(code) => {
                last.get_or_insert_with(|| (code, reason.to_owned()));
            }
            None => forward_error(&error, reason),
        }
    }
}

impl ConsumerContext for Complaints {}

impl KafkaAdmin {
    pub fn connect(settings: &KafkaSettings) -> Result<Self, LogError> {
        let failed = |e: &KafkaError| log_error(&settings.bootstrap, None, e);
        let admin = settings
            .with_extra(settings.client())
            .create()
            .map_err(|e| failed(&e))?;
        let mut config = settings.reading(Isolation::ReadUncommitted);
        config.set("group.id", "crossdock.admin");
        let probe: BaseConsumer<Complaints> = settings
            .with_extra(config)
            .create_with_context(Complaints::default())
            .map_err(|e| failed(&e))?;
        let mut made = KafkaAdmin {
            settings: settings.clone(),
            admin,
            probe,
            cluster_id: String::new(),
        };
        made.wait_for_a_broker()?;
        let id = made.probe.client().fetch_cluster_id(CALL_TIME_MAX);
        made.cluster_id = id.ok_or_else(|| {
            LogError::TimedOut("the broker did not say which cluster it belongs to".into())
        })?;
        Ok(made)
    }

    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Waits until a broker answers; not longer than it takes to know that none will.
    fn wait_for_a_broker(&self) -> Result<(), LogError> {
        use RDKafkaErrorCode as E;
        let address = self.settings.bootstrap.clone();
        let deadline = Instant::now() + CALL_TIME_MAX;
        loop {
            let Err(error) = self.probe.fetch_metadata(None, PROBE_INTERVAL) else {
                return Ok(());
            };
            self.take_events();
            let complaint = self.complaint();
            match complaint {
                Some((E::Authentication | E::SaslAuthenticationFailed, cause)) => {
                    return Err(LogError::Unauthorised { address, cause });
                }
                _ if Instant::now() < deadline => {}
                Some((_, cause)) => return Err(LogError::Unreachable { address, cause }),
                None => {
                    let cause = error.to_string();
                    return Err(LogError::Unreachable { address, cause });
                }
            }
        }
    }

    fn create_at_once(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        let new = topics.iter().map(|topic| {
            let copies = TopicReplication::Fixed(topic.replication);
            let new = NewTopic::new(&topic.name, topic.partitions, copies);
            let settings = topic.settings.iter();
            settings.fold(new, |new, (name, value)| new.set(name, value))
        });
        let new: Vec<NewTopic<'_>> = new.collect();
        let limit = time_for(topics.len());
        let options = AdminOptions::new()
            .request_timeout(Some(limit))
            .operation_timeout(Some(limit));
        let made = block_on(self.admin.create_topics(&new, &options));
        let made = made.map_err(|e| self.error(topics.first().map(|t| &*t.name), &e))?;
        let mut names: BTreeSet<&str> = topics.iter().map(|t| &*t.name).collect();
        let mut refused = None;
        for result in &made {
            if let Err((name, code)) = result {
                if *code != RDKafkaErrorCode::TopicAlreadyExists {
                    names.remove(name.as_str());
                }
                refused.get_or_insert_with(|| format!("topic {name} was not created: {code}"));
            }
        }
        self.wait_for_topics(names)?;
        refused.map_or(Ok(()), |words| Err(LogError::Other(words)))
    }

    /// A topic is known to the controller before it is to the brokers, and told of before it is served.
    fn wait_for_topics(&self, mut names: BTreeSet<&str>) -> Result<(), LogError> {
        let deadline = Instant::now() + time_for(names.len());
        loop {
            // Of one topic the answer is short, of many a single one is.
            let one = names.first().copied().filter(|_| names.len() == 1);
            let metadata = self
                .probe
                .fetch_metadata(one, CALL_TIME_MAX)
                .map_err(|e| self.error(one, &e))?;
            for topic in metadata.topics() {
                if names.contains(topic.name()) && self.is_served(topic)? {
                    names.remove(topic.name());
                }
            }
            let Some(missing) = names.first() else {
                return Ok(());
            };
            if Instant::now() > deadline {
                let words = format!("topic {missing} was created, and no broker serves it");
                return Err(LogError::TimedOut(words));
            }
            std::thread::sleep(TOPIC_WAIT);
        }
    }

    /// Asks the leaders of a topic. A broker that has just come back says for a moment that it knows none of
    /// its topics, and the client believes that for minutes: unless it is made to ask for the topic itself.
    fn ask_about<T>(
        &self,
        topic: &str,
        ask: impl Fn() -> Result<T, KafkaError>,
    ) -> Result<T, LogError> {
        let asked = || ask().map_err(|e| self.error(Some(topic), &e));
        match asked() {
            Err(LogError::UnknownTopic { .. }) if self.partitions(topic)?.is_some() => asked(),
            answer => answer,
        }
    }

    /// Whether every partition of a topic has a leader that answers as such.
    fn is_served(&self, topic: &MetadataTopic) -> Result<bool, LogError> {
        use RDKafkaErrorCode as E;
        for partition in topic.partitions() {
            if partition.leader() < 0 {
                return Ok(false);
            }
            let asked = self
                .probe
                .fetch_watermarks(topic.name(), partition.id(), CALL_TIME_MAX);
            match asked.as_ref().map_err(|e| (e, e.rdkafka_error_code())) {
                Ok(_) => {}
                Err((
                    _,
                    Some(
                        E::NotLeaderForPartition
                        | E::LeaderNotAvailable
                        | E::UnknownTopic
                        | E::UnknownPartition
                        | E::UnknownTopicOrPartition,
                    ),
                )) => return Ok(false),
                Err((error, _)) => return Err(self.error(Some(topic.name()), error)),
            }
        }
        Ok(!topic.partitions().is_empty())
    }

    /// Settings are known to the controller before they are to the brokers; a next change that did
    /// not see them would undo them.
    fn wait_for_settings(
        &self,
        topic: &str,
        settings: &BTreeMap<String, String>,
    ) -> Result<(), LogError> {
        let deadline = Instant::now() + CALL_TIME_MAX;
        loop {
            let all = self.dynamic_settings(&[topic])?;
            let found = all.get(topic);
            if settings
                .iter()
                .all(|(name, value)| found.is_some_and(|f| f.get(name) == Some(value)))
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                let words =
                    format!("settings of topic {topic} were changed, and no broker tells them");
                return Err(LogError::TimedOut(words));
            }
            std::thread::sleep(TOPIC_WAIT);
        }
    }

    /// Complaints are events, which wait until somebody takes them, behind lines of the client's log:
    /// a poll that took one of those finds nothing to return either.
    fn take_events(&self) {
        for _ in 0..EVENTS_MAX {
            drop(self.probe.poll(Duration::ZERO));
        }
    }

    fn complaint(&self) -> Option<(RDKafkaErrorCode, String)> {
        let complaints = &self.probe.context().0;
        complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn error(&self, topic: Option<&str>, error: &KafkaError) -> LogError {
        log_error(&self.settings.bootstrap, topic, error)
    }

    fn dynamic_settings(
        &self,
        topics: &[&str],
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, LogError> {
        let resources: Vec<_> = topics.iter().map(|t| ResourceSpecifier::Topic(t)).collect();
        let options = AdminOptions::new().request_timeout(Some(CALL_TIME_MAX));
        let described = block_on(self.admin.describe_configs(&resources, &options))
            .map_err(|e| self.error(None, &e))?;
        let mut all = BTreeMap::new();
        for (topic, resource) in topics.iter().zip(described) {
            let resource =
                resource.map_err(|code| self.error(Some(topic), &KafkaError::AdminOp(code)))?;
            let dynamic = resource
                .entries
                .into_iter()
                .filter(|e| e.source == ConfigSource::DynamicTopic);
            let settings = dynamic.filter_map(|e| Some((e.name, e.value?))).collect();
            all.insert((*topic).to_owned(), settings);
        }
        Ok(all)
    }
}

impl Admin for KafkaAdmin {
    fn topics_under(&self, prefix: &str) -> Result<Vec<TopicSpec>, LogError> {
        let metadata = self
            .probe
            .fetch_metadata(None, CALL_TIME_MAX)
            .map_err(|e| self.error(None, &e))?;
        let own = || {
            metadata
                .topics()
                .iter()
                .filter(|t| !t.name().starts_with("__") && t.name().starts_with(prefix))
        };
        let names: Vec<&str> = own().map(|t| t.name()).collect();
        let mut settings = if names.is_empty() {
            BTreeMap::new()
        } else {
            self.dynamic_settings(&names)?
        };
        Ok(own()
            .map(|t| TopicSpec {
                name: t.name().to_owned(),
                partitions: t.partitions().len() as i32,
                replication: t
                    .partitions()
                    .first()
                    .map_or(0, |p| p.replicas().len() as i32),
                settings: settings.remove(t.name()).unwrap_or_default(),
            })
            .collect())
    }

    fn partitions(&self, topic: &str) -> Result<Option<i32>, LogError> {
        let metadata = self
            .probe
            .fetch_metadata(Some(topic), CALL_TIME_MAX)
            .map_err(|e| self.error(Some(topic), &e))?;
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        let partitions = found.map(|t| t.partitions().len() as i32);
        Ok(partitions.filter(|count| *count > 0))
    }

    fn create_all(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        let mut rest = topics;
        while !rest.is_empty() {
            let mut partitions = 0;
            let fits = rest.iter().take_while(|topic| {
                partitions += topic.partitions;
                partitions <= PARTITIONS_AT_ONCE
            });
            let count = fits.count().max(1);
            let (now, later) = rest.split_at(count);
            self.create_at_once(now)?;
            rest = later;
        }
        Ok(())
    }

    fn alter(&self, topic: &str, settings: &BTreeMap<String, String>) -> Result<(), LogError> {
        // The call replaces all settings of a topic: the others are given again.
        let mut all = self
            .dynamic_settings(&[topic])?
            .remove(topic)
            .unwrap_or_default();
        all.extend(settings.clone());
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (name, value) in &all {
            change = change.set(name, value);
        }
        let options = AdminOptions::new().request_timeout(Some(CALL_TIME_MAX));
        let altered = block_on(self.admin.alter_configs([&change], &options))
            .map_err(|e| self.error(Some(topic), &e))?;
        match altered.into_iter().next() {
            Some(Err((_, code))) => Err(LogError::Other(format!(
                "settings of topic {topic} were not changed: {code}"
            ))),
            _ => self.wait_for_settings(topic, settings),
        }
    }

    fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), LogError> {
        self.take_events();
        self.ask_about(&partition.topic, || {
            self.probe
                .fetch_watermarks(&partition.topic, partition.partition, CALL_TIME_MAX)
        })
    }

    fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<i64, LogError> {
        let found = self.ask_about(&partition.topic, || {
            let mut asked = TopicPartitionList::new();
            asked.add_partition_offset(
                &partition.topic,
                partition.partition,
                RdOffset::Offset(timestamp_ms),
            )?;
            self.probe.offsets_for_times(asked, CALL_TIME_MAX)
        })?;
        match found.elements().first().map(|e| e.offset()) {
            Some(RdOffset::Offset(offset)) => Ok(offset),
            _ => Ok(self.watermarks(partition)?.1),
        }
    }

    fn group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Offsets, LogError> {
        let mut config = self.settings.reading(Isolation::ReadCommitted);
        config.set("group.id", group);
        let asking: BaseConsumer = self
            .settings
            .with_extra(config)
            .create()
            .map_err(|e| self.error(None, &e))?;
        let found = asking
            .committed_offsets(list_of(partitions), CALL_TIME_MAX)
            .map_err(|e| self.error(None, &e))?;
        Ok(offsets_of(&found))
    }

    fn has_member(&self, group: &str, member: &str) -> Result<bool, LogError> {
        let list = self
            .probe
            .client()
            .fetch_group_list(Some(group), CALL_TIME_MAX)
            .map_err(|e| self.error(None, &e))?;
        // The coordinator names a static member by its id, a dash and a UUID.
        let is_member = |id: &str| {
            id.strip_prefix(member)
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|uuid| uuid.len() == UUID_CHARS)
        };
        let mut members = list.groups().iter().flat_map(|g| g.members());
        Ok(members.any(|m| is_member(m.id())))
    }

    fn brokers(&self) -> Result<usize, LogError> {
        let metadata = self
            .probe
            .fetch_metadata(None, CALL_TIME_MAX)
            .map_err(|e| match e.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut,
                ) => LogError::Unreachable {
                    address: self.settings.bootstrap.clone(),
                    cause: e.to_string(),
                },
                _ => self.error(None, &e),
            })?;
        Ok(metadata.brokers().len())
    }
}
