//! What a landscape stands on: a log, a registry, a clock, and the tasks that run there.

use super::Cluster;
use super::clock::DrivenClock;
use super::invariants;
use super::prompt::Prompt;
use super::tally::Tally;
use crate::codec::Codec;
use crate::config::Secret;
use crate::contract::{Catalogue, Tier};
use crate::customers::LogVault;
use crate::domain::Timestamp;
use crate::log::embedded::{self, EmbeddedLog};
use crate::log::{Isolation, Log, Offset, Reader, TopicPartition};
use crate::pipeline::{Clock, Code, Fault, Processor, Sink, Source, Stage};
use crate::processors;
use crate::registry::{self, EmbeddedRegistry, Registry, register};
use crate::replay;
use crate::runtime::{ProcessorTask, SinkTask, SourceTask, TaskSettings};
use crate::telemetry::Telemetry;
use crate::topics::{self, Plan, Readers};
use std::sync::Arc;
use std::time::Duration;

/// What is kept of a compacted topic at least: the judges read every version.
const COMPACTION_LAG: Duration = Duration::from_secs(86_400 * 1_000);

/// What moves stock, orders and money, and what finds orders that a system lacks. What compares mirrors of the
/// stock and ranks what does not agree has nothing to do here: the judges do so.
const PROCESSORS: [&str; 12] = [
    "stock-ledger",
    "ats-aggregate",
    "reservation-saga",
    "order-lifecycle",
    "shipment-propagation",
    "refund-gate",
    "return-refund-recon",
    "ledger",
    "settlement-match",
    "settlement-recon",
    "manifest-split",
    "order-recon",
];

/// The processors that take part.
pub(crate) fn taking_part() -> impl Iterator<Item = &'static processors::Registered> {
    let all = processors::ALL.iter();
    all.filter(|p| PROCESSORS.contains(&p.descriptor.name))
}

/// The same as readers of the log; nobody else yet.
pub(super) fn readers() -> Readers {
    let mut readers = Readers::processors();
    readers
        .processors
        .retain(|(name, _)| PROCESSORS.contains(&name.as_str()));
    readers
}

/// Which of them settles which topic.
pub(super) fn settles() -> Vec<(String, String)> {
    let all = taking_part().flat_map(|p| {
        let inputs = p.descriptor.inputs.iter();
        inputs.map(|t| (p.descriptor.name.to_owned(), (*t).to_owned()))
    });
    all.collect()
}

/// What every task is given.
pub(super) struct Ground {
    /// As it is.
    pub bare: Arc<dyn Log>,
    /// As the tasks have it: what they write is counted, and none of it overlooked.
    pub log: Arc<dyn Log>,
    pub clock: Arc<DrivenClock>,
    pub codec: Arc<Codec>,
    pub telemetry: Arc<Telemetry>,
    pub tally: Tally,
    /// Real time to wait after a fault: none where nothing takes any.
    pub pace: Option<Duration>,
}

impl Ground {
    /// Of this process, or of a cluster that holds nothing yet; with topics, of at most so many
    /// partitions, and contracts for `readers`. The clock begins at `start`.
    pub fn prepare(
        cluster: Option<&Cluster>,
        readers: &Readers,
        partitions_max: i32,
        start: Timestamp,
    ) -> Result<Ground, Fault> {
        let (clock, bare) = ground(cluster, start)?;
        lay_out(bare.as_ref(), readers, partitions_max)?;
        let registry = registered(&bare, cluster, readers)?;
        let tally = Tally::of(bare.as_ref())?;
        let log: Arc<dyn Log> = Arc::new(Prompt {
            inner: bare.clone(),
            tally: tally.clone(),
            is_distant: cluster.is_some(),
        });
        Ok(Ground {
            bare,
            log,
            clock,
            codec: Arc::new(Codec::new(
                registry::schemas(registry),
                Catalogue::compiled(),
            )),
            telemetry: Arc::new(Telemetry::new()),
            tally,
            pace: cluster.map(|_| super::day::ROUND),
        })
    }

    fn settings() -> TaskSettings {
        TaskSettings {
            static_membership: false,
            calls_max: 1,
            ..TaskSettings::new("demo", 0)
        }
    }

    /// The application that the tasks belong to.
    pub fn application() -> String {
        Self::settings().application
    }

    pub fn source(&self, name: &str, source: Box<dyn Source>) -> Result<SourceTask, Fault> {
        SourceTask::new(
            name,
            source,
            self.log.clone(),
            self.clock.clone(),
            self.codec.clone(),
            Catalogue::compiled(),
            self.telemetry.clone(),
            Self::settings(),
        )
    }

    pub fn processor(&self, processor: Box<dyn Processor>) -> Result<ProcessorTask, Fault> {
        ProcessorTask::new(
            processor,
            self.log.clone(),
            self.clock.clone(),
            self.codec.clone(),
            Catalogue::compiled(),
            self.telemetry.clone(),
            Self::settings(),
        )
    }

    pub fn sink(
        &self,
        name: &str,
        topics: &[&str],
        sink: Arc<dyn Sink>,
    ) -> Result<SinkTask, Fault> {
        let target = replay::Target {
            log: self.log.clone(),
            codec: self.codec.clone(),
            catalogue: Catalogue::compiled(),
            application: Self::application(),
            name: name.to_owned(),
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
            sink,
            writer: "replay".to_owned(),
        };
        SinkTask::new(
            name,
            topics,
            replay::carrying_out(target, self.clock.clone()),
            self.log.clone(),
            self.clock.clone(),
            self.codec.clone(),
            Catalogue::compiled(),
            self.telemetry.clone(),
            Self::settings(),
        )
    }

    /// Where it is kept who customers are, under a key that is nobody's secret.
    pub fn vault(&self) -> Result<LogVault, Fault> {
        let keys = [Secret::of("a key for demonstrations")];
        LogVault::new(self.bare.clone(), self.codec.clone(), &keys)
            .map_err(|wrong| setup(wrong.join("; ")))
    }

    /// Reads what is judged as it is written.
    pub fn reader(&self) -> Result<Box<dyn Reader>, Fault> {
        reader(self.log.as_ref())
    }
}

/// The clock and the log: of this process, or of a cluster that holds nothing yet.
fn ground(
    cluster: Option<&Cluster>,
    start: Timestamp,
) -> Result<(Arc<DrivenClock>, Arc<dyn Log>), Fault> {
    let clock = Arc::new(DrivenClock::new(start));
    let Some(cluster) = cluster else {
        let time = clock.clone();
        let now: embedded::Now =
            Arc::new(move || Duration::from_micros(u64::try_from(time.now().0).unwrap_or(0)));
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::new(embedded::Options {
            now,
            ..embedded::Options::system()
        }));
        return Ok((clock, log));
    };
    let log = cluster.log.clone();
    if let Some(topic) = log.admin().topics()?.first() {
        return Err(setup(format!(
            "the demo needs topics of its own, and {} at {} is there already; give it another --prefix, or none for one that is new",
            topic.name,
            log.address()
        )));
    }
    Ok((clock, log))
}

/// Creates the topics, as `topics apply` does.
fn lay_out(log: &dyn Log, readers: &Readers, partitions_max: i32) -> Result<(), Fault> {
    let mut wanted = topics::wanted(Catalogue::compiled(), Tier::S, readers);
    for topic in &mut wanted {
        topic.partitions = topic.partitions.min(partitions_max);
        let lag = COMPACTION_LAG.as_millis().to_string();
        topic.settings.insert("min.compaction.lag.ms".into(), lag);
        topic.settings.remove("max.compaction.lag.ms");
        // Simulated months may pass.
        topic.settings.insert("retention.ms".into(), "-1".into());
    }
    Ok(Plan::make(log, wanted, None)?.apply(log)?)
}

/// The registry with the schemas that `readers` need, as `schemas register` leaves it.
fn registered(
    log: &Arc<dyn Log>,
    cluster: Option<&Cluster>,
    readers: &Readers,
) -> Result<Arc<dyn Registry>, Fault> {
    let registry =
        match cluster.and_then(|c| c.registry.clone()) {
            Some(registry) => registry,
            None => Arc::new(EmbeddedRegistry::open(log.clone()).map_err(|e| {
                setup("the schema registry in the log cannot be opened").caused_by(e)
            })?),
        };
    let subjects = topics::subjects(Catalogue::compiled(), readers);
    register::all(registry.as_ref(), &subjects).map_err(|e| {
        let address = registry.address().to_owned();
        setup(format!("the contracts cannot be registered at {address}")).caused_by(e)
    })?;
    Ok(registry)
}

fn reader(log: &dyn Log) -> Result<Box<dyn Reader>, Fault> {
    let mut from = Vec::new();
    for topic in invariants::TOPICS {
        let count = log.admin().partitions(topic)?.unwrap_or_default();
        let all = (0..count).map(|p| TopicPartition::new(topic, p));
        from.extend(all.map(|p| (p, Offset::Beginning)));
    }
    Ok(log.reader(&from, Isolation::ReadCommitted)?)
}

pub(crate) fn setup(message: impl Into<String>) -> Fault {
    Fault::halt(Stage::Read, Code::Configuration, message)
}
