//! Configuration: what a deployment says about itself, and secrets by reference.

mod kafka;
pub mod lint;
pub mod schema;
pub mod seal;
mod secret;

pub use kafka::{Groups, KafkaSettings, Sasl, Tls};
pub use secret::Secret;

use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// A configuration file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// Kafka.
    pub log: Option<KafkaSettings>,
    /// URL of a schema registry with Confluent's API.
    pub registry: Option<String>,
    /// Name of this instance: stable over restarts, unique among those that run.
    pub instance: Option<String>,
    /// Address for metrics and health: `host:port`.
    pub listen: Option<String>,
    /// Folder for checkpoints.
    pub state: Option<PathBuf>,
    /// Personal data of customers.
    pub customers: Option<CustomerSettings>,
    /// Connectors by name.
    #[serde(default)]
    pub connectors: Vec<ConnectorEntry>,
    /// Tasks of each processor in this process; 1 where none is given.
    pub tasks: Option<u32>,
}

/// How personal data is kept.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomerSettings {
    /// Keys that encrypt the keys of persons, by reference: `${env:NAME}` or `${file:PATH}`. The first
    /// encrypts, all decrypt, so that one can be replaced: put the new one first and keep the old.
    pub keys: Vec<Secret>,
}

/// A configured connector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectorEntry {
    /// Name of the instance, used in groups, topics and events.
    pub name: String,
    /// Kind, as `crossdock connectors list` names it.
    pub kind: String,
    /// Calls that the system allows to its sink, of all instances together. Without it only what the system
    /// itself asks for is kept.
    pub budget: Option<CallBudget>,
    /// Settings of the kind; `crossdock connectors describe KIND` lists them.
    pub settings: serde_json::Value,
}

/// How many requests a sink may send to its system.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallBudget {
    /// Requests a second. Each instance takes the part that its partitions are of all.
    #[schemars(range(min = 0.001))]
    pub calls_per_second: f64,
    /// Requests at once after a rest; those of one second where nothing is given.
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
}
