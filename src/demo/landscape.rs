//! What there is in the landscape: the log, the systems, the tasks. How they are driven is in `day`.

use super::clock::{DrivenClock, FIRST_DAY};
use super::invariants::{self, Books, Shown};
use super::tally::{Counted, Tally};
use super::traders::{
    CHANNELS, DEPOT, Erp, Heard, STORES, Shared, Shoppers, Steady, Street, Survey, Tills,
    WAREHOUSE, best_sellers, survey,
};
use super::{Cluster, Options, Report, SLICE};
use crate::codec::Codec;
use crate::connectors;
use crate::contract::{Catalogue, Tier, topic};
use crate::log::embedded::{self, EmbeddedLog};
use crate::log::{Isolation, Log, Offset, Reader, TopicPartition};
use crate::pipeline::{
    Clock, Code, Connector, Fake, FakeOptions, Fault, Source, Stage, SystemClock,
};
use crate::registry::{self, EmbeddedRegistry, Registry, register};
use crate::runtime::{ProcessorTask, SinkTask, SourceTask, TaskSettings};
use crate::telemetry::Telemetry;
use crate::topics::{self, Plan, Readers};
use crate::{processors, verify};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is kept of a compacted topic at least: the judges read every version.
const COMPACTION_LAG: Duration = Duration::from_secs(86_400);
/// SKUs that the ERP keeps, and shoppers want: those that sell best.
const SKUS_WANTED: usize = 60;
/// SKUs of these of which some is kept back.
const SKUS_SCARCE: usize = 12;
/// What the systems tell.
const TOLD: [&str; 7] = [
    topic::STOCK_CHANGE,
    topic::STOCK_SNAPSHOT,
    topic::STOCK_POLICY,
    topic::RESERVATION_COMMAND,
    topic::LOCATION_CHANGE,
    topic::CHANNEL_CHANGE,
    topic::PRODUCT_CHANGE,
];
/// What moves stock; nothing else happens here.
const PROCESSORS: [&str; 2] = ["stock-ledger", "ats-aggregate"];
const SOURCES: [&str; 4] = ["reference", "erp", "tills", "shoppers"];

/// A storefront.
pub(super) struct Shop {
    pub name: &'static str,
    pub channel: &'static str,
    pub fake: Box<dyn Fake>,
}

/// Everything that takes part.
pub(super) struct Landscape {
    pub clock: Arc<DrivenClock>,
    /// Real time that a round takes at least: none where nothing else takes any.
    pub pace: Option<Duration>,
    pub tally: Tally,
    pub telemetry: Arc<Telemetry>,
    pub codec: Arc<Codec>,
    pub street: Shared,
    pub heard: Heard,
    pub books: Books,
    /// Reads what is judged as it is written.
    pub reader: Box<dyn Reader>,
    pub sources: Vec<SourceTask>,
    pub processors: Vec<ProcessorTask>,
    pub sinks: Vec<SinkTask>,
    pub shops: Vec<Shop>,
    pub erp: Arc<dyn Fake>,
    log: Arc<dyn Log>,
    started: std::time::Instant,
    _data: Option<OwnFile>,
}

/// A file that goes when the demo ends.
struct OwnFile(PathBuf);

impl Drop for OwnFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What every task is given.
struct Ports {
    log: Arc<dyn Log>,
    clock: Arc<DrivenClock>,
    codec: Arc<Codec>,
    telemetry: Arc<Telemetry>,
}

impl Landscape {
    pub async fn start(options: &Options) -> Result<Self, Fault> {
        let (path, kept) = data_file(options)?;
        let survey = surveyed(&path).await?;
        let catalogue = Catalogue::compiled();
        let (clock, log, registry) = ground(options.cluster.as_ref())?;
        let shops = open_shops(&survey, options.seed).await?;
        let skus = best_sellers(&survey, SKUS_WANTED);
        let erp = FakeOptions {
            skus: skus.clone(),
            locations: vec![WAREHOUSE.to_owned(), DEPOT.to_owned()],
            seed: options.seed,
        };
        let erp: Arc<dyn Fake> = Arc::from(stand_in("tryton", erp).await?);
        let readers = readers(&shops);
        lay_out(log.as_ref(), registry.as_ref(), &readers)?;

        let tally = Tally::default();
        let ports = Ports {
            log: Arc::new(Counted {
                inner: log.clone(),
                tally: tally.clone(),
            }),
            clock: clock.clone(),
            codec: Arc::new(Codec::new(registry::schemas(registry), catalogue)),
            telemetry: Arc::new(Telemetry::new()),
        };
        let street: Shared = Arc::new(Mutex::new(Street::default()));
        let heard = Heard::default();
        let people = Erp::new(
            source_of(build("tryton", "erp", stock_only(erp.settings()))?.as_ref())?,
            erp.clone(),
            options.seed,
            skus.clone(),
            clock.clone(),
            street.clone(),
        );
        let tills = Tills::new(
            source_of(file_connector("tills", &path)?.as_ref())?,
            options.seed,
            survey,
            clock.clone(),
        );
        let reference = build("reference", "reference", reference(&skus))?;
        let shoppers = Shoppers {
            seed: options.seed,
            skus: skus.clone(),
            clock: clock.clone(),
            street: street.clone(),
            heard: heard.clone(),
            wishes: BTreeMap::new(),
        };
        let sources: [Box<dyn Source>; 4] = [
            source_of(reference.as_ref())?,
            Box::new(people),
            Box::new(tills),
            Box::new(shoppers),
        ];
        let sources = SOURCES.iter().zip(sources).map(|(name, source)| {
            let source = Box::new(Steady::new(source));
            ports.source(name, source)
        });
        let processors = taking_part().map(|p| ports.processor((p.make)()));
        let sinks = shops.iter().map(|shop| {
            let sink = build(shop.name, shop.name, shop.settings())?
                .sink()
                .ok_or_else(|| setup(format!("{} has no sink", shop.name)))?;
            ports.sink(shop.name, sink)
        });
        Ok(Landscape {
            pace: options.cluster.as_ref().map(|_| super::day::ROUND),
            sources: sources.collect::<Result<_, _>>()?,
            processors: processors.collect::<Result<_, _>>()?,
            sinks: sinks.collect::<Result<_, _>>()?,
            reader: reader(log.as_ref())?,
            books: Books::default(),
            telemetry: ports.telemetry,
            codec: ports.codec,
            clock,
            tally,
            street,
            heard,
            shops,
            erp,
            log,
            started: std::time::Instant::now(),
            _data: kept,
        })
    }

    /// Facts and commands that the systems have told.
    pub fn events(&self) -> u64 {
        self.tally.written(TOLD)
    }

    /// Who settles which topic.
    pub fn settles(&self) -> Vec<(String, String)> {
        let processors = taking_part().flat_map(|p| {
            let inputs = p.descriptor.inputs.iter();
            inputs.map(|t| (p.descriptor.name.to_owned(), (*t).to_owned()))
        });
        let shops = self.shops.iter();
        let sinks = shops.map(|s| (s.name.to_owned(), topic::STOCK_ATS.to_owned()));
        processors.chain(sinks).collect()
    }

    /// The books as `crossdock verify` finds them.
    pub fn ledger(&self) -> Result<verify::Ledger, Fault> {
        verify::ledger(
            &self.log,
            &self.codec,
            Catalogue::compiled(),
            &TaskSettings::new("", 0).application,
            &self.settles(),
        )
    }

    /// Balances the books and judges the invariants.
    pub fn report(self, options: &Options) -> Result<Report, Fault> {
        let ledger = self.ledger()?;
        let shown: Vec<Shown> = self.shops.iter().map(Shop::shown).collect();
        let invariants = invariants::judge(&self.books, &ledger, &shown, self.clock.now());
        Ok(Report {
            seed: options.seed,
            events: self.events(),
            ledger,
            invariants,
            took: self.started.elapsed(),
        })
    }

    /// Everything that is judged, as the log has it: for tests that change it.
    #[cfg(test)]
    pub fn records(&self) -> Result<Vec<crate::pipeline::Record>, Fault> {
        let mut all = Vec::new();
        for topic in invariants::TOPICS {
            verify::read_topic(self.log.as_ref(), topic, |record| all.push(record.clone()))?;
        }
        Ok(all)
    }
}

impl Shop {
    fn settings(&self) -> serde_json::Value {
        let mut settings = self.fake.settings();
        settings["channel"] = self.channel.into();
        settings
    }

    /// What its customers see.
    pub fn shown(&self) -> Shown {
        let books = self.fake.books();
        let quantities = books.as_object().into_iter().flatten();
        Shown {
            name: self.name.to_owned(),
            channel: self.channel.to_owned(),
            quantities: quantities
                .map(|(sku, quantity)| (sku.clone(), quantity.as_i64().unwrap_or_default()))
                .collect(),
        }
    }
}

impl Ports {
    fn settings() -> TaskSettings {
        TaskSettings {
            static_membership: false,
            calls_max: 1,
            ..TaskSettings::new("demo", 0)
        }
    }

    fn source(&self, name: &str, source: Box<dyn Source>) -> Result<SourceTask, Fault> {
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

    fn processor(
        &self,
        processor: Box<dyn crate::pipeline::Processor>,
    ) -> Result<ProcessorTask, Fault> {
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

    fn sink(&self, name: &str, sink: Arc<dyn crate::pipeline::Sink>) -> Result<SinkTask, Fault> {
        SinkTask::new(
            name,
            &[topic::STOCK_ATS],
            sink,
            self.log.clone(),
            self.clock.clone(),
            self.codec.clone(),
            Catalogue::compiled(),
            self.telemetry.clone(),
            Self::settings(),
        )
    }
}

/// What a landscape stands on.
type Ground = (Arc<DrivenClock>, Arc<dyn Log>, Arc<dyn Registry>);

/// The clock, the log and the registry: of this process, or of a cluster that holds nothing yet.
fn ground(cluster: Option<&Cluster>) -> Result<Ground, Fault> {
    let in_log = |log: &Arc<dyn Log>| {
        let opened = EmbeddedRegistry::open(log.clone());
        opened.map_err(|e| setup("the schema registry in the log cannot be opened").caused_by(e))
    };
    let Some(cluster) = cluster else {
        let clock = Arc::new(DrivenClock::new(FIRST_DAY));
        let time = clock.clone();
        let now: embedded::Now =
            Arc::new(move || Duration::from_micros(u64::try_from(time.now().0).unwrap_or(0)));
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::new(embedded::Options {
            now,
            ..embedded::Options::system()
        }));
        let registry = Arc::new(in_log(&log)?);
        return Ok((clock, log, registry));
    };
    let log = cluster.log.clone();
    if let Some(topic) = log.admin().topics()?.first() {
        return Err(setup(format!(
            "the demo needs topics of its own, and {} at {} is there already; give it another --prefix, or none for one that is new",
            topic.name,
            log.address()
        )));
    }
    let registry = match &cluster.registry {
        Some(registry) => registry.clone(),
        None => Arc::new(in_log(&log)?),
    };
    let clock = Arc::new(DrivenClock::new(SystemClock.now()));
    Ok((clock, log, registry))
}

/// Creates the topics and registers the schemas, as `topics apply` and `schemas register` do.
fn lay_out(log: &dyn Log, registry: &dyn Registry, readers: &Readers) -> Result<(), Fault> {
    let catalogue = Catalogue::compiled();
    let mut wanted = topics::wanted(catalogue, Tier::S, readers);
    for topic in &mut wanted {
        let lag = COMPACTION_LAG.as_millis().to_string();
        topic.settings.insert("min.compaction.lag.ms".into(), lag);
    }
    Plan::make(log, wanted, None)?.apply(log)?;
    register::all(registry, &topics::subjects(catalogue, readers)).map_err(|e| {
        let address = registry.address().to_owned();
        setup(format!("the contracts cannot be registered at {address}")).caused_by(e)
    })
}

fn taking_part() -> impl Iterator<Item = &'static processors::Registered> {
    let all = processors::ALL.iter();
    all.filter(|p| PROCESSORS.contains(&p.descriptor.name))
}

fn readers(shops: &[Shop]) -> Readers {
    let mut readers = Readers::processors();
    readers
        .processors
        .retain(|(name, _)| PROCESSORS.contains(&name.as_str()));
    let sinks = shops.iter();
    readers
        .sinks
        .extend(sinks.map(|s| (s.name.to_owned(), topic::STOCK_ATS.to_owned())));
    let sources = SOURCES.iter();
    readers
        .sources
        .extend(sources.map(|s| ((*s).to_owned(), topic::STOCK_CHANGE.to_owned())));
    readers
}

fn reader(log: &dyn Log) -> Result<Box<dyn Reader>, Fault> {
    let catalogue = Catalogue::compiled();
    let partitions = invariants::TOPICS.into_iter().flat_map(|topic| {
        let count = catalogue.partitions(topic, Tier::S).unwrap_or(1);
        (0..count).map(move |p| (TopicPartition::new(topic, p), Offset::Beginning))
    });
    let from: Vec<_> = partitions.collect();
    Ok(log.reader(&from, Isolation::ReadCommitted)?)
}

async fn open_shops(survey: &Survey, seed: u64) -> Result<Vec<Shop>, Fault> {
    let skus: BTreeSet<&String> = survey.keys().map(|(sku, _)| sku).collect();
    let mut shops = Vec::new();
    for (name, channel) in ["vendure", "medusa"].into_iter().zip(CHANNELS) {
        let options = FakeOptions {
            skus: skus.iter().map(|s| (*s).clone()).collect(),
            locations: Vec::new(),
            seed,
        };
        shops.push(Shop {
            name,
            channel,
            fake: stand_in(name, options).await?,
        });
    }
    Ok(shops)
}

/// The demo's ERP keeps stock, and nobody's orders.
fn stock_only(mut settings: serde_json::Value) -> serde_json::Value {
    if let Some(settings) = settings.as_object_mut() {
        settings.remove("channels");
    }
    settings
}

async fn stand_in(kind: &str, options: FakeOptions) -> Result<Box<dyn Fake>, Fault> {
    let start = connectors::find(kind)
        .and_then(|descriptor| descriptor.fake)
        .ok_or_else(|| setup(format!("{kind} has no stand-in")))?;
    start(options).await.map_err(|e| {
        let what = format!("the stand-in of {kind} cannot serve on the loopback interface");
        setup(what).caused_by(e)
    })
}

/// What no system of the landscape tells of: which locations serve a channel, and what is kept back.
fn reference(skus: &[String]) -> serde_json::Value {
    let channel = |store: &str, buffer: &str| json!({"locations": [WAREHOUSE, DEPOT, store], "buffer": buffer, "unit": "1"});
    let scarce = skus.iter().take(SKUS_SCARCE);
    let policies = scarce.map(|sku| {
        json!({"sku": sku, "location": WAREHOUSE, "safety_stock": "2", "kept_for": {CHANNELS[1]: "3"}})
    });
    json!({
        "locations": {STORES[0]: {"kind": "store"}, STORES[1]: {"kind": "store"}},
        "channels": {CHANNELS[0]: channel(STORES[0], "2"), CHANNELS[1]: channel(STORES[1], "1")},
        "policies": policies.collect::<Vec<_>>(),
    })
}

fn build(
    kind: &str,
    instance: &str,
    settings: serde_json::Value,
) -> Result<Arc<dyn Connector>, Fault> {
    let descriptor = connectors::find(kind).ok_or_else(|| setup(format!("no connector {kind}")))?;
    (descriptor.build)(instance, settings)
}

fn file_connector(name: &str, path: &Path) -> Result<Arc<dyn Connector>, Fault> {
    let text = include_str!("../../config/online-retail.yaml");
    let mut example: serde_json::Value =
        serde_norway::from_str(text).map_err(|e| setup(e.to_string()))?;
    let mut settings = example["connectors"][0]["settings"].take();
    settings["path"] = path.display().to_string().into();
    build("file", name, settings)
}

fn source_of(connector: &dyn Connector) -> Result<Box<dyn Source>, Fault> {
    connector
        .source()
        .ok_or_else(|| setup("a connector of the demo has no source"))
}

/// What the data holds, read once.
async fn surveyed(path: &Path) -> Result<Survey, Fault> {
    let source = source_of(file_connector("tills", path)?.as_ref());
    const TAKEN: &str = "--data takes the UCI \"Online Retail\" file as CSV, plain or gzip, with the columns InvoiceNo, StockCode, Quantity, InvoiceDate and Country";
    let read = survey(source?.as_mut()).await;
    let survey = read.map_err(|fault| setup(format!("{}; {TAKEN}", fault.message)))?;
    if survey.is_empty() {
        return Err(setup(format!("{} holds no sales; {TAKEN}", path.display())));
    }
    Ok(survey)
}

/// The sales to read: the given file, or the slice that is compiled in, in a file of its own.
fn data_file(options: &Options) -> Result<(PathBuf, Option<OwnFile>), Fault> {
    if let Some(path) = &options.data {
        let unreadable = |why: String| {
            setup(format!(
                "{} cannot be read: {why}; give another file with --data, or leave it out for the sales that ship with Crossdock",
                path.display()
            ))
        };
        let file = std::fs::File::open(path).map_err(|e| unreadable(e.to_string()))?;
        let metadata = file.metadata().map_err(|e| unreadable(e.to_string()))?;
        if metadata.is_dir() {
            return Err(unreadable("it is a folder".into()));
        }
        return Ok((path.clone(), None));
    }
    let path = std::env::temp_dir().join(format!("crossdock-demo-{}.csv.gz", std::process::id()));
    std::fs::write(&path, SLICE)
        .map_err(|e| setup(format!("{} cannot be written", path.display())).caused_by(e))?;
    Ok((path.clone(), Some(OwnFile(path))))
}

pub(super) fn setup(message: impl Into<String>) -> Fault {
    Fault::halt(Stage::Read, Code::Configuration, message)
}
