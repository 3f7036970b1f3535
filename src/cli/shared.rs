//! What several subcommands need: the log output, the configuration, the codec.

use crate::codec::{Codec, SchemaSource};
use crate::config::Configuration;
use crate::connectors;
use crate::contract::Catalogue;
use crate::pipeline::Connector;
use crate::registry::Registry;
use anyhow::{Context, bail};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use tracing_subscriber::EnvFilter;

/// Sends log output to standard error: for people on a terminal, as JSON otherwise. `RUST_LOG`
/// overrides `level`.
pub fn log_output(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second call finds the output set, which is as good.
    let _ = match std::io::stderr().is_terminal() {
        true => builder.compact().try_init(),
        false => builder.json().try_init(),
    };
}

/// Reads a configuration file; without one, an empty configuration.
pub fn configuration(path: Option<&Path>) -> anyhow::Result<Configuration> {
    match path {
        None => Ok(Configuration::default()),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{} cannot be read", path.display()))?;
            Configuration::parse(&text)
                .map_err(|mistakes| anyhow::anyhow!("{}: {mistakes}", path.display()))
        }
    }
}

/// The codec over a registry.
pub fn codec(registry: Arc<dyn Registry>) -> Arc<Codec> {
    struct Source(Arc<dyn Registry>);
    impl SchemaSource for Source {
        fn schema(&self, id: u32) -> Result<String, crate::codec::SchemaError> {
            self.0.schema(id)
        }
        fn id(&self, subject: &str, schema: &str) -> Result<u32, crate::codec::SchemaError> {
            self.0.id(subject, schema)
        }
    }
    Arc::new(Codec::new(
        Arc::new(Source(registry)),
        Catalogue::compiled(),
    ))
}

/// Builds a configured connector, after its settings were held against its schema.
pub fn build(entry: &crate::config::ConnectorEntry) -> anyhow::Result<Arc<dyn Connector>> {
    let known: Vec<&str> = connectors::ALL.iter().map(|d| d.kind).collect();
    let Some(descriptor) = connectors::find(&entry.kind) else {
        bail!(
            "connector {}: there is no kind {:?}; there are {}",
            entry.name,
            entry.kind,
            known.join(", ")
        );
    };
    (descriptor.build)(&entry.name, entry.settings.clone())
        .with_context(|| format!("connector {}", entry.name))
}
