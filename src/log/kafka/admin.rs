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
use rdkafka::topic_partition_list::{Offset as RdOffset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a topic that was just made is looked for.
const TOPIC_WAIT: Duration = Duration::from_millis(20);
/// Length of a UUID in text.
const UUID_CHARS: usize = 36;
/// Complaints taken in at a time.
const EVENTS_MAX: usize = 100;

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

    /// A topic is known to the controller before it is to the brokers.
    fn wait_for_topic(&self, topic: &TopicSpec) -> Result<(), LogError> {
        let deadline = Instant::now() + CALL_TIME_MAX;
        loop {
            let metadata = self
                .probe
                .fetch_metadata(Some(&topic.name), CALL_TIME_MAX)
                .map_err(|e| self.error(Some(&topic.name), &e))?;
            let known = metadata.topics().iter().any(|t| {
                t.name() == topic.name
                    && !t.partitions().is_empty()
                    && t.partitions().iter().all(|p| p.leader() >= 0)
            });
            if known {
                return Ok(());
            }
            if Instant::now() > deadline {
                let words = format!("topic {} was created, and no broker serves it", topic.name);
                return Err(LogError::TimedOut(words));
            }
            std::thread::sleep(TOPIC_WAIT);
        }
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
    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        let metadata = self
            .probe
            .fetch_metadata(None, CALL_TIME_MAX)
            .map_err(|e| self.error(None, &e))?;
        let own = || {
            metadata
                .topics()
                .iter()
                .filter(|t| !t.name().starts_with("__"))
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

    fn create(&self, topic: &TopicSpec) -> Result<(), LogError> {
        let mut new = NewTopic::new(
            &topic.name,
            topic.partitions,
            TopicReplication::Fixed(topic.replication),
        );
        for (name, value) in &topic.settings {
            new = new.set(name, value);
        }
        let options = AdminOptions::new()
            .request_timeout(Some(CALL_TIME_MAX))
            .operation_timeout(Some(CALL_TIME_MAX));
        let made = block_on(self.admin.create_topics([&new], &options))
            .map_err(|e| self.error(Some(&topic.name), &e))?;
        match made.into_iter().next() {
            Some(Err((name, code))) => {
                if code == RDKafkaErrorCode::TopicAlreadyExists {
                    self.wait_for_topic(topic)?;
                }
                Err(LogError::Other(format!(
                    "topic {name} was not created: {code}"
                )))
            }
            _ => self.wait_for_topic(topic),
        }
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
        let found =
            self.probe
                .fetch_watermarks(&partition.topic, partition.partition, CALL_TIME_MAX);
        found.map_err(|e| self.error(Some(&partition.topic), &e))
    }

    fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<i64, LogError> {
        let failed = |e: KafkaError| self.error(Some(&partition.topic), &e);
        let mut asked = TopicPartitionList::new();
        asked
            .add_partition_offset(
                &partition.topic,
                partition.partition,
                RdOffset::Offset(timestamp_ms),
            )
            .map_err(failed)?;
        let found = self
            .probe
            .offsets_for_times(asked, CALL_TIME_MAX)
            .map_err(failed)?;
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
