//! How a Kafka cluster is reached.

use super::Secret;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How to reach a cluster.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// Addresses to begin with: `host:port,host:port`. May be left out where `--bootstrap` or
    /// `CROSSDOCK_BOOTSTRAP` names them; what they name wins.
    #[serde(default)]
    pub bootstrap: String,
    /// Encryption, and certificates where the defaults of the system do not do.
    pub tls: Option<Tls>,
    /// Authentication by user and password.
    pub sasl: Option<Sasl>,
    /// Who shares the partitions of a consumer group among its members.
    #[serde(default)]
    pub groups: Groups,
    /// Further settings by librdkafka's names; they come last and win. No secrets: these have their
    /// places under `tls` and `sasl`.
    #[serde(default)]
    pub extra: BTreeMap<String, String>,
}

/// Who shares the partitions of a consumer group among its members.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Groups {
    /// The members themselves, as every Kafka knows it.
    #[default]
    Classic,
    /// The brokers (KIP-848; Kafka 4.0 or later). How long the partitions of a dead instance wait is
    /// theirs to say then: `group.consumer.session.timeout.ms`, 45 seconds where nobody has set it.
    Server,
}

/// Encryption of the connection.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// File with the authorities that sign the brokers' certificates (PEM).
    pub ca: Option<PathBuf>,
    /// File with the client's certificate (PEM).
    pub certificate: Option<PathBuf>,
    /// File with the client's key (PEM).
    pub key: Option<PathBuf>,
    /// Password of that key, by reference: `${env:NAME}` or `${file:PATH}`.
    pub key_password: Option<Secret>,
}

/// Authentication by user and password.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: String,
    /// User.
    pub username: String,
    /// Password, by reference: `${env:NAME}` or `${file:PATH}`.
    pub password: Secret,
}

impl KafkaSettings {
    /// A cluster without encryption or authentication.
    pub fn plain(bootstrap: impl Into<String>) -> Self {
        KafkaSettings {
            bootstrap: bootstrap.into(),
            tls: None,
            sasl: None,
            groups: Groups::Classic,
            extra: BTreeMap::new(),
        }
    }
}
