//! Administration of topics and groups.

use super::super::{Admin, Isolation, LogError, Offsets, TopicPartition, TopicSpec};
use super::consumer::{list_of, offsets_of};
use super::{CALL_TIME_MAX, KafkaSettings, log_error};
use futures::executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::collections::BTreeMap;

pub(super) struct KafkaAdmin {
    settings: KafkaSettings,
    admin: AdminClient<DefaultClientContext>,
    /// Reads metadata and high watermarks, open transactions included.
    probe: BaseConsumer,
}

impl KafkaAdmin {
    pub fn connect(settings: &KafkaSettings) -> Result<Self, LogError> {
        let failed = |e: &KafkaError| log_error(&settings.bootstrap, None, e);
        let admin = settings
            .with_extra(settings.client())
            .create()
            .map_err(|e| failed(&e))?;
        let mut config = settings.reading(Isolation::ReadUncommitted);
        config.set("group.id", "crossdock.admin");
        let probe: BaseConsumer = settings
            .with_extra(config)
            .create()
            .map_err(|e| failed(&e))?;
        let made = KafkaAdmin {
            settings: settings.clone(),
            admin,
            probe,
        };
        made.brokers().map_err(|error| match error {
            LogError::TimedOut(cause) | LogError::Other(cause) => LogError::Unreachable {
                address: settings.bootstrap.clone(),
                cause,
            },
            other => other,
        })?;
        Ok(made)
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
            Some(Err((name, code))) => Err(LogError::Other(format!(
                "topic {name} was not created: {code}"
            ))),
            _ => Ok(()),
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
            _ => Ok(()),
        }
    }

    fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), LogError> {
        let found =
            self.probe
                .fetch_watermarks(&partition.topic, partition.partition, CALL_TIME_MAX);
        found.map_err(|e| self.error(Some(&partition.topic), &e))
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
