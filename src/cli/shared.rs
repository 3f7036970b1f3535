//! What several subcommands need: the log output, the configuration, the codec.

use crate::codec::Codec;
use crate::config::{Configuration, ConnectorEntry, lint};
use crate::connectors;
use crate::contract::Catalogue;
use crate::domain::Timestamp;
use crate::pipeline::{Connector, ConnectorDescriptor};
use crate::registry::{Registry, schemas};
use anyhow::{Context, bail};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use tracing_subscriber::EnvFilter;

/// What commands log that answer once and end. The Kafka client's own complaints are left out: what
/// matters of them is in the command's error, once and with its remedy.
pub const ONE_SHOT: &str = "error,librdkafka=off,rdkafka=off";

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

/// The kinds of connectors, as a lint of configurations needs them.
pub fn kinds() -> lint::Kinds<'static> {
    lint::Kinds {
        names: connectors::ALL.iter().map(|d| d.kind).collect(),
        settings: &|kind| connectors::find(kind).map(|d| (d.settings)()),
    }
}

/// Reads a configuration file; without one, an empty configuration.
pub fn configuration(path: Option<&Path>) -> anyhow::Result<Configuration> {
    match path {
        None => Ok(Configuration::default()),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{} cannot be read", path.display()))?;
            lint::read(&path.display().to_string(), &text, &kinds()).map_err(|found| {
                let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
                anyhow::anyhow!("the configuration is wrong:\n{}", lines.join("\n"))
            })
        }
    }
}

/// Reads a day (`2026-11-26`, its beginning in UTC) or a time (`2026-11-26T10:00:00Z`).
///
/// # Errors
/// In words, when it is neither.
pub fn time(text: &str) -> Result<Timestamp, String> {
    let moment = text.parse::<jiff::Timestamp>().or_else(|_| {
        let day = text.parse::<jiff::civil::Date>()?;
        let midnight = day.at(0, 0, 0, 0);
        jiff::tz::Offset::UTC.to_timestamp(midnight)
    });
    match moment {
        Ok(moment) => Ok(Timestamp(moment.as_microsecond())),
        Err(_) => {
            Err("write a day such as 2026-11-26, or a time such as 2026-11-26T10:00:00Z".into())
        }
    }
}

/// The user of this process, for audits.
pub fn user() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    user.unwrap_or_else(|_| "unknown".to_owned())
}

/// The codec over a registry.
pub fn codec(registry: Arc<dyn Registry>) -> Arc<Codec> {
    Arc::new(Codec::new(schemas(registry), Catalogue::compiled()))
}

/// Builds a configured connector, after its settings were held against its schema.
pub fn build(
    entry: &ConnectorEntry,
) -> anyhow::Result<(&'static ConnectorDescriptor, Arc<dyn Connector>)> {
    let known: Vec<&str> = connectors::ALL.iter().map(|d| d.kind).collect();
    let Some(descriptor) = connectors::find(&entry.kind) else {
        bail!(
            "connector {}: there is no kind {:?}; there are {}",
            entry.name,
            entry.kind,
            known.join(", ")
        );
    };
    let connector = (descriptor.build)(&entry.name, entry.settings.clone())
        .with_context(|| format!("connector {}", entry.name))?;
    Ok((descriptor, connector))
}

/// Waits until this process is told to stop: SIGTERM, or Ctrl-C on a terminal.
///
/// # Errors
/// When signals cannot be heard.
pub async fn told_to_stop() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_without_mistake() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let mut read = 0;
        for entry in std::fs::read_dir(folder).expect("the folder of examples") {
            let path = entry.expect("an example").path();
            configuration(Some(&path)).unwrap_or_else(|e| panic!("{e:#}"));
            read += 1;
        }
        assert!(read >= 2, "{read} examples");
    }

    #[test]
    fn mistakes_are_told_with_the_file_they_stand_in() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("crossdock.yaml");
        let text = "connectors:\n  - name: tills\n    kind: file\n    settings: {path: a.csv, format: cvs, fields: {skus: {column: a}}}\n";
        std::fs::write(&path, text).expect("written");
        let error = configuration(Some(&path))
            .expect_err("mistakes")
            .to_string();
        assert!(error.contains("crossdock.yaml:4: connectors.0.settings.format: cvs is none of the words that can stand here; write csv"), "{error}");
        assert!(
            error
                .contains("connectors.0.settings.fields.skus: there is no setting skus; write sku"),
            "{error}"
        );
    }
}
