//! Configuration: what a deployment says about itself, and secrets by reference.

mod secret;

pub use secret::Secret;

use crate::log::kafka::KafkaSettings;
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
    /// Connectors by name.
    #[serde(default)]
    pub connectors: Vec<ConnectorEntry>,
    /// Tasks of each processor in this process; 1 where none is given.
    pub tasks: Option<u32>,
}

/// A configured connector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectorEntry {
    /// Name of the instance, used in groups, topics and events.
    pub name: String,
    /// Kind, as `crossdock connectors list` names it.
    pub kind: String,
    /// Settings of the kind; `crossdock connectors describe KIND` lists them.
    pub settings: serde_json::Value,
}

impl Configuration {
    /// Reads a configuration.
    ///
    /// # Errors
    /// What is wrong, with line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        let configuration: Configuration =
            serde_norway::from_str(text).map_err(|e| e.to_string())?;
        let mut names: Vec<&str> = configuration
            .connectors
            .iter()
            .map(|c| c.name.as_str())
            .collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!(
                "two connectors are named {}; give each a name of its own",
                pair[0]
            )),
            None => Ok(configuration),
        }
    }
}
