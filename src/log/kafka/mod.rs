//! Kafka through librdkafka: the only place that names rdkafka.
//!
//! What librdkafka's documentation leaves to the application is decided here: a rebalance reaches
//! the caller as an event of its own poll; a transaction call that times out makes the producer
//! unusable, because the broker may still act on it; the end of a partition is the end of what a
//! committed read can see, with every transaction before it settled.

mod admin;
mod consumer;
mod native;
mod producer;
mod reader;

use super::{
    Admin, Consumer, GivenUp, GroupSpec, Isolation, Log, LogError, Offset, Producer, ProducerSpec,
    Reader, TopicPartition,
};
pub use crate::config::KafkaSettings;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::time::Duration;

/// Longest wait for an answer of the broker to one call.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);
/// A member that has heard of no broker asks for one this often, and waits no longer for the answer.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

impl KafkaSettings {
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", "crossdock")
            .set("reconnect.backoff.max.ms", "2000")
            // A broker that comes back may not know its topics yet, nor who leads them. The client believes it
            // until it asks again: by itself after five minutes.
            .set("topic.metadata.refresh.interval.ms", "10000")
            // A connection on which nothing passes any more is not waited for longer than one call may take.
            .set("socket.timeout.ms", CALL_TIME_MAX.as_millis().to_string())
            .set(
                "socket.connection.setup.timeout.ms",
                CALL_TIME_MAX.as_millis().to_string(),
            )
            .set_log_level(RDKafkaLogLevel::Warning);
        let protocol = match (self.tls.is_some(), self.sasl.is_some()) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            for (name, file) in [
                ("ssl.ca.location", &tls.ca),
                ("ssl.certificate.location", &tls.certificate),
                ("ssl.key.location", &tls.key),
            ] {
                if let Some(file) = file {
                    config.set(name, file.display().to_string());
                }
            }
            if let Some(password) = &tls.key_password {
                config.set("ssl.key.password", password.reveal());
            }
        }
        if let Some(sasl) = &self.sasl {
            config
                .set("sasl.mechanisms", &sasl.mechanism)
                .set("sasl.username", &sasl.username)
                .set("sasl.password", sasl.password.reveal());
        }
        config
    }

    fn with_extra(&self, mut config: ClientConfig) -> ClientConfig {
        for (name, value) in &self.extra {
            config.set(name, value);
        }
        config
    }

    /// Bounded memory for whoever reads; the defaults would fetch a gigabyte ahead.
    fn reading(&self, isolation: Isolation) -> ClientConfig {
        let mut config = self.client();
        config
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", isolation_name(isolation))
            .set("queued.max.messages.kbytes", "4096")
            // A full queue is looked at again after this; the default would leave it empty for long.
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.message.max.bytes", "524288")
            .set("fetch.max.bytes", "4194304");
        config
    }
}

fn isolation_name(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::ReadCommitted => "read_committed",
        Isolation::ReadUncommitted => "read_uncommitted",
    }
}

/// A connection to a Kafka cluster.
pub struct KafkaLog {
    settings: KafkaSettings,
    admin: admin::KafkaAdmin,
    given_up: producer::Calls,
}

impl KafkaLog {
    /// Connects, and waits until a broker answers.
    ///
    /// # Errors
    /// [`LogError::Unreachable`] or [`LogError::Unauthorised`], within ten seconds.
    pub fn connect(settings: KafkaSettings) -> Result<Self, LogError> {
        let admin = admin::KafkaAdmin::connect(&settings)?;
        Ok(KafkaLog {
            settings,
            admin,
            given_up: producer::Calls::default(),
        })
    }
}

impl Log for KafkaLog {
    fn consumer(&self, spec: &GroupSpec) -> Result<Box<dyn Consumer>, LogError> {
        consumer::KafkaConsumer::join(&self.settings, spec).map(|c| Box::new(c) as _)
    }
    fn reader(
        &self,
        from: &[(TopicPartition, Offset)],
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        reader::KafkaReader::open(&self.settings, &self.admin, from, isolation)
            .map(|r| Box::new(r) as _)
    }
    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>, LogError> {
        let calls = self.given_up.clone();
        producer::KafkaProducer::new(&self.settings, spec, calls).map(|p| Box::new(p) as _)
    }
    fn admin(&self) -> &dyn Admin {
        &self.admin
    }
    fn address(&self) -> &str {
        &self.settings.bootstrap
    }
    fn id(&self) -> &str {
        self.admin.cluster_id()
    }
    fn given_up(&self) -> GivenUp {
        self.given_up.so_far()
    }
}

/// What a client's error means outside of transactions.
fn log_error(address: &str, topic: Option<&str>, error: &KafkaError) -> LogError {
    use RDKafkaErrorCode as E;
    let cause = error.to_string();
    let address = address.to_owned();
    match error.rdkafka_error_code() {
        Some(E::FencedInstanceId | E::UnreleasedInstanceId) => LogError::Replaced(cause),
        Some(
            E::Authentication
            | E::SaslAuthenticationFailed
            | E::TopicAuthorizationFailed
            | E::GroupAuthorizationFailed
            | E::ClusterAuthorizationFailed,
        ) => LogError::Unauthorised { address, cause },
        Some(E::BrokerTransportFailure | E::AllBrokersDown | E::Resolve) => {
            LogError::Unreachable { address, cause }
        }
        Some(E::UnknownTopic | E::UnknownTopicOrPartition | E::UnknownPartition) => {
            LogError::UnknownTopic {
                topic: topic.unwrap_or("?").to_owned(),
            }
        }
        Some(E::OperationTimedOut | E::RequestTimedOut) => LogError::TimedOut(cause),
        _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => LogError::Fatal(cause),
        _ => LogError::Other(cause),
    }
}

/// Under which name librdkafka's own words go to the log.
const TARGET: &str = "librdkafka";

/// librdkafka's own words go to the log, except what this code expects and handles.
fn forward(level: RDKafkaLogLevel, facility: &str, message: &str) {
    use RDKafkaLogLevel as L;
    match level {
        L::Emerg | L::Alert | L::Critical | L::Error => {
            tracing::error!(target: TARGET, facility, "{message}")
        }
        L::Warning => tracing::warn!(target: TARGET, facility, "{message}"),
        L::Notice | L::Info => tracing::info!(target: TARGET, facility, "{message}"),
        L::Debug => tracing::debug!(target: TARGET, facility, "{message}"),
    }
}

fn forward_error(error: &KafkaError, reason: &str) {
    if !matches!(error, KafkaError::PartitionEOF(_))
        && error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF)
    {
        tracing::warn!(target: TARGET, %error, reason, "the Kafka client reports");
    }
}
