//! What several subcommands are told alike: which log, which registry, which connectors.

use super::shared;
use crate::codec::Codec;
use crate::config::Configuration;
use crate::connectors;
use crate::customers::LogVault;
use crate::demo::Cluster;
use crate::log::Log;
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::kafka::{KafkaLog, KafkaSettings};
use crate::log::scoped::Scoped;
use crate::pipeline::{Connector, Vault};
use crate::registry::{ClientSettings, EmbeddedRegistry, Registry, RegistryClient};
use crate::topics::Readers;
use anyhow::{Context, bail};
use std::path::PathBuf;
use std::sync::Arc;

/// Which log.
#[derive(clap::Args, Clone, Debug)]
pub struct Bootstrap {
    /// Kafka's bootstrap address, such as `127.0.0.1:9092`.
    #[arg(long, env = "CROSSDOCK_BOOTSTRAP", value_name = "ADDRESS")]
    pub bootstrap: Option<String>,
    /// Configuration file: connectors, the registry, and how to reach a Kafka that asks for
    /// encryption or a password.
    #[arg(long, env = "CROSSDOCK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What the names of this deployment's topics, groups and transactions begin with, such as
    /// `shop-de.`: several deployments can share a cluster.
    #[arg(long, env = "CROSSDOCK_PREFIX", value_name = "PREFIX")]
    pub prefix: Option<String>,
}

impl Bootstrap {
    /// The configuration; an empty one where no file is named.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn configuration(&self) -> anyhow::Result<Configuration> {
        shared::configuration(self.config.as_deref())
    }

    /// Whether a log is named, here or in the configuration.
    pub fn names_log(&self, configuration: &Configuration) -> bool {
        let configured = configuration.log.as_ref().map(|l| &l.bootstrap);
        let named = self.bootstrap.as_ref().or(configured);
        named.is_some_and(|address| !address.is_empty())
    }
}

/// Which registry.
#[derive(clap::Args, Clone, Debug)]
pub struct RegistryUrl {
    /// Base URL of a schema registry with Confluent's API; without one the registry is kept in
    /// the log. Credentials come from CROSSDOCK_REGISTRY_USER and CROSSDOCK_REGISTRY_PASSWORD, or
    /// from CROSSDOCK_REGISTRY_TOKEN.
    #[arg(long, env = "CROSSDOCK_REGISTRY", value_name = "URL")]
    pub registry: Option<String>,
}

/// Which connectors have topics of their own.
#[derive(clap::Args, Clone, Debug)]
pub struct Connectors {
    /// A connector's instance name, and its kind where that is another: `shop-de=vendure`. Can be
    /// given several times; by default those of the configuration or, without one, each kind under
    /// its own name.
    #[arg(long = "connector", value_name = "NAME[=KIND]")]
    pub connectors: Vec<String>,
}

impl Connectors {
    /// Every processor, and these connectors.
    ///
    /// # Errors
    /// Names a kind that there is not, and those that there are.
    pub fn readers(&self, configuration: &Configuration) -> anyhow::Result<Readers> {
        let mut readers = Readers::processors();
        let configured = configuration.connectors.iter();
        let mut all: Vec<(&str, &str)> = match self.connectors.is_empty() {
            true => configured.map(|c| (&*c.name, &*c.kind)).collect(),
            false => {
                let given = self.connectors.iter();
                given.map(|g| g.split_once('=').unwrap_or((g, g))).collect()
            }
        };
        if all.is_empty() {
            all = connectors::ALL.iter().map(|k| (k.kind, k.kind)).collect();
        }
        for (instance, kind) in all {
            let Some(descriptor) = connectors::find(kind) else {
                let kinds: Vec<&str> = connectors::ALL.iter().map(|k| k.kind).collect();
                bail!(
                    "there is no connector of kind '{kind}'; write --connector NAME=KIND with one of {}",
                    kinds.join(", ")
                );
            };
            readers = readers.with_connector(instance, descriptor);
        }
        Ok(readers)
    }
}

/// The log that `bootstrap` names, or else the configuration; its other settings hold for both.
///
/// # Errors
/// When none is named, or it cannot be reached.
pub fn configured_log(
    bootstrap: &Bootstrap,
    configuration: &Configuration,
) -> anyhow::Result<Arc<dyn Log>> {
    let settings = log_settings(bootstrap, configuration)?;
    scoped(
        Arc::new(KafkaLog::connect(settings)?),
        bootstrap.prefix.as_deref(),
    )
}

fn log_settings(
    bootstrap: &Bootstrap,
    configuration: &Configuration,
) -> anyhow::Result<KafkaSettings> {
    let configured = configuration.log.clone();
    let mut settings = configured.unwrap_or_else(|| KafkaSettings::plain(""));
    if let Some(address) = &bootstrap.bootstrap {
        settings.bootstrap.clone_from(address);
    }
    if settings.bootstrap.is_empty() {
        bail!(
            "no Kafka is named; write --bootstrap ADDRESS, set CROSSDOCK_BOOTSTRAP, or give `log: bootstrap` in the configuration"
        );
    }
    Ok(settings)
}

/// The part of a log under a prefix, or all of it where there is none.
///
/// # Errors
/// When Kafka would not take the prefix.
pub fn scoped(log: Arc<dyn Log>, prefix: Option<&str>) -> anyhow::Result<Arc<dyn Log>> {
    Ok(match prefix {
        Some(prefix) => Arc::new(Scoped::new(log, prefix)?),
        None => log,
    })
}

/// A part of a cluster for a run of the demo or of a scenario, with the registry at a URL or in its log.
///
/// # Errors
/// When no Kafka answers there, or the registry's URL is none.
pub fn cluster(address: &str, prefix: &str, registry: Option<&str>) -> anyhow::Result<Cluster> {
    let log = KafkaLog::connect(KafkaSettings::plain(address)).context(
        "a Kafka is needed there: start one (docker compose up -d, or landscape/kafka.sh up), or leave --kafka out for the log in this process",
    )?;
    let registry = registry.map(client).transpose()?;
    Ok(Cluster {
        log: scoped(Arc::new(log), Some(prefix))?,
        registry,
    })
}

/// A prefix that no run before had.
pub fn new_prefix(of: &str) -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    format!("crossdock-{of}-{now}.")
}

/// A log in this process's memory.
pub fn memory() -> Arc<dyn Log> {
    Arc::new(EmbeddedLog::new(Options::system()))
}

/// The registry at the URL that is given, or else the one in the log.
///
/// # Errors
/// When neither is named, or it cannot be reached.
pub fn registry(url: &RegistryUrl, bootstrap: &Bootstrap) -> anyhow::Result<Arc<dyn Registry>> {
    let configuration = bootstrap.configuration()?;
    let has_log = bootstrap.names_log(&configuration);
    match url.registry.as_ref().or(configuration.registry.as_ref()) {
        Some(url) => client(url),
        None if has_log => in_log(configured_log(bootstrap, &configuration)?),
        None => bail!(
            "no schema registry is named; write --registry URL (or CROSSDOCK_REGISTRY), or --bootstrap ADDRESS (or CROSSDOCK_BOOTSTRAP) for the one in the log"
        ),
    }
}

/// The registry at the URL that is given, or else in the configuration, or else in this log.
///
/// # Errors
/// When it cannot be reached.
pub fn configured_registry(
    url: &RegistryUrl,
    configuration: &Configuration,
    log: &Arc<dyn Log>,
) -> anyhow::Result<Arc<dyn Registry>> {
    match url.registry.as_ref().or(configuration.registry.as_ref()) {
        Some(url) => client(url),
        None => in_log(log.clone()),
    }
}

/// The registry at a URL.
///
/// # Errors
/// When the URL or the credentials of the environment are not such.
pub fn client(url: &str) -> anyhow::Result<Arc<dyn Registry>> {
    Ok(Arc::new(RegistryClient::new(
        &ClientSettings::from_environment(url),
    )?))
}

fn in_log(log: Arc<dyn Log>) -> anyhow::Result<Arc<dyn Registry>> {
    Ok(Arc::new(
        EmbeddedRegistry::open(log).context("the registry in the log")?,
    ))
}

/// Hands the vault to those of these connectors, by name, that know who customers are.
///
/// # Errors
/// When there is one and the configuration names no keys, or they are wrong.
pub fn entrust<'a>(
    connectors: impl Iterator<Item = (&'a str, &'a Arc<dyn Connector>)>,
    configuration: &Configuration,
    log: &Arc<dyn Log>,
    codec: &Arc<Codec>,
) -> anyhow::Result<()> {
    let knowing: Vec<_> = connectors
        .filter(|(_, connector)| connector.knows_customers())
        .collect();
    let Some((first, _)) = knowing.first() else {
        return Ok(());
    };
    let Some(settings) = &configuration.customers else {
        bail!(
            "connector {first} is to know who customers are, and no key is named to encrypt that with; write `customers: {{keys: [\"${{env:NAME}}\"]}}` into the configuration, or set its `customers` to false"
        );
    };
    let vault = LogVault::new(log.clone(), codec.clone(), &settings.keys);
    let vault: Arc<dyn Vault> = match vault {
        Ok(vault) => Arc::new(vault),
        Err(wrong) => bail!("{}", wrong.join("; ")),
    };
    for (_, connector) in knowing {
        connector.entrust(vault.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Groups, lint};

    fn settings(bootstrap: Option<&str>, text: &str) -> anyhow::Result<KafkaSettings> {
        let configuration = lint::read("crossdock.yaml", text, &shared::kinds());
        let bootstrap = Bootstrap {
            bootstrap: bootstrap.map(str::to_owned),
            config: None,
            prefix: None,
        };
        log_settings(&bootstrap, &configuration.expect("no mistake"))
    }

    #[test]
    fn the_address_of_the_command_line_wins_and_the_configuration_says_the_rest() {
        let text = "log: {groups: server, extra: {client.rack: a}}";
        let without = settings(Some("here:9092"), text).expect("the command line names it");
        assert_eq!(without.bootstrap, "here:9092");
        assert_eq!(without.groups, Groups::Server);
        assert_eq!(without.extra["client.rack"], "a");
        let with = "log: {bootstrap: 'there:9092'}";
        let told = |given| settings(given, with).expect("named").bootstrap;
        assert_eq!(told(Some("here:9092")), "here:9092");
        assert_eq!(told(None), "there:9092");
        let plain = settings(Some("here:9092"), "").expect("the command line names it");
        assert_eq!(plain.bootstrap, "here:9092");
    }

    #[test]
    fn a_log_that_nobody_names_is_told_with_the_ways_to_name_it() {
        for text in ["", "log: {groups: server}"] {
            let error = settings(None, text).expect_err("none is named").to_string();
            for way in ["--bootstrap", "CROSSDOCK_BOOTSTRAP", "log: bootstrap"] {
                assert!(error.contains(way), "{text}: {error}");
            }
        }
    }
}
