//! What there is in the landscape: the log, the systems, the tasks. How they are driven is in `day`.

use super::clock::FIRST_DAY;
use super::crew::Crew;
use super::ground::{self, Ground, setup};
use super::invariants::{self, Around, Shown};
use super::systems::{CANARY, Estate};
use super::traders::{
    CHANNELS, CORNER, DEPOT, Erp, Heard, Market, SHOP, STORES, Shared, Shoppers, Steady, Street,
    Survey, THIRD_PARTY, Tills, WAREHOUSE, best_sellers, survey,
};
use super::{LeftOut, Options, Report, SLICE};
use crate::connectors;
use crate::contract::event::Event;
use crate::contract::topic;
use crate::pipeline::{Clock, Connector, Fake, FakeOptions, Fault, Source, SystemClock};
use crate::topics::Readers;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long before now a run on a cluster begins.
const DAYS_BEFORE: Duration = Duration::from_secs(10 * 86_400);
/// SKUs that the ERP keeps, and shoppers want: those that sell best.
const SKUS_WANTED: usize = 60;
/// SKUs of these of which some is kept back.
const SKUS_SCARCE: usize = 12;
const SOURCES: [&str; 4] = ["reference", "erp", "tills", "shoppers"];

/// A storefront.
pub(super) struct Shop {
    pub name: &'static str,
    pub channel: &'static str,
    pub fake: Box<dyn Fake>,
}

/// Everything that takes part.
pub(super) struct Landscape {
    pub crew: Crew,
    pub street: Shared,
    pub shops: Vec<Shop>,
    /// Who takes part in orders, and what happens to them.
    pub estate: Estate,
    pub market: Market,
    pub erp: Arc<dyn Fake>,
    left_out: LeftOut,
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

impl Landscape {
    pub async fn start(options: &Options) -> Result<Self, Fault> {
        let (path, kept) = data_file(options)?;
        let (survey, left_out) = surveyed(&path).await?;
        let shops = open_shops(&survey, options.seed).await?;
        let skus = best_sellers(&survey, SKUS_WANTED);
        let erp = FakeOptions {
            skus: skus.clone(),
            locations: vec![WAREHOUSE.to_owned(), DEPOT.to_owned()],
            seed: options.seed,
        };
        let erp: Arc<dyn Fake> = Arc::from(stand_in("tryton", erp).await?);
        let start = match &options.cluster {
            // Days pass before it ends, and a broker takes no records of the future.
            Some(_) => SystemClock.now().minus(DAYS_BEFORE),
            None => FIRST_DAY,
        };
        let market = Market::new(&path, options.seed)?;
        let plan = market.plan();
        let mut readers = readers(&shops);
        plan.add_to(&mut readers);
        let place = Ground::prepare(options.cluster.as_ref(), &readers, i32::MAX, start)?;
        let clock = place.clock.clone();
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
        let ear = Box::new(move |event: &Event| heard.hear(event));
        let mut crew = Crew::new(&place, settles(&shops), ear)?;
        for (name, source) in SOURCES.iter().zip(sources) {
            let source = Box::new(Steady::new(source));
            crew.sources.push(place.source(name, source)?);
        }
        let estate = Estate::join(&plan, &place, &mut crew)?;
        for processor in ground::taking_part() {
            crew.processors.push(place.processor((processor.make)())?);
        }
        for shop in &shops {
            let sink = build(shop.name, shop.name, shop.settings())?
                .sink()
                .ok_or_else(|| setup(format!("{} has no sink", shop.name)))?;
            crew.sinks
                .push(place.sink(shop.name, &[topic::STOCK_ATS], sink)?);
        }
        Ok(Landscape {
            crew,
            street,
            shops,
            estate,
            market,
            erp,
            left_out,
            started: std::time::Instant::now(),
            _data: kept,
        })
    }

    /// What the systems around say.
    pub fn around(&self) -> Result<Around<'_>, Fault> {
        Ok(Around {
            systems: self.estate.entries(),
            faults: self.market.faults(),
            sinks: self.crew.sinks_settle(),
            leak: self.crew.find(CANARY.as_bytes())?,
            skew: Duration::ZERO,
        })
    }

    /// Writes the ledgers of the systems into a folder, as JSON lines.
    pub fn write_ledgers(&self, folder: &Path) -> Result<(), Fault> {
        let broken = |path: &Path, e: std::io::Error| {
            setup(format!("{} cannot be written", path.display())).caused_by(e)
        };
        std::fs::create_dir_all(folder).map_err(|e| broken(folder, e))?;
        let mut all = self.estate.lines();
        all.push(("faults".to_owned(), self.market.told().to_vec()));
        for (name, lines) in all {
            let path = folder.join(format!("{name}.jsonl"));
            let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(&path, lines).map_err(|e| broken(&path, e))?;
        }
        Ok(())
    }

    /// Facts and commands that the systems have told.
    pub fn events(&self) -> u64 {
        self.crew.told
    }

    /// Balances the books and judges the invariants.
    pub fn report(self, options: &Options) -> Result<Report, Fault> {
        let ledger = self.crew.ledger()?;
        let mut shown: Vec<Shown> = self.shops.iter().map(Shop::shown).collect();
        shown.extend(self.estate.shown());
        let around = self.around()?;
        let invariants =
            invariants::judge(&self.crew.books, &ledger, &shown, &around, self.crew.now());
        Ok(Report {
            seed: options.seed,
            events: self.events(),
            ledger,
            invariants,
            left_out: self.left_out,
            took: self.started.elapsed(),
        })
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

/// Who settles which topic.
fn settles(shops: &[Shop]) -> Vec<(String, String)> {
    let shops = shops.iter();
    let sinks = shops.map(|s| (s.name.to_owned(), topic::STOCK_ATS.to_owned()));
    ground::settles().into_iter().chain(sinks).collect()
}

fn readers(shops: &[Shop]) -> Readers {
    let mut readers = ground::readers();
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
        "locations": {
            STORES[0]: {"kind": "store"}, STORES[1]: {"kind": "store"},
            THIRD_PARTY: {"kind": "third_party"}, CORNER: {"kind": "store"},
        },
        "channels": {
            CHANNELS[0]: channel(STORES[0], "2"), CHANNELS[1]: channel(STORES[1], "1"),
            SHOP: {"locations": [THIRD_PARTY, CORNER]},
        },
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
    // Nobody writes on.
    settings["last_line_after_s"] = 0.into();
    build("file", name, settings)
}

fn source_of(connector: &dyn Connector) -> Result<Box<dyn Source>, Fault> {
    connector
        .source()
        .ok_or_else(|| setup("a connector of the demo has no source"))
}

/// What the data holds, read once.
async fn surveyed(path: &Path) -> Result<(Survey, LeftOut), Fault> {
    let source = source_of(file_connector("tills", path)?.as_ref());
    const TAKEN: &str = "--data takes the UCI \"Online Retail\" file as CSV, plain or gzip, with the columns InvoiceNo, StockCode, Quantity, InvoiceDate and Country";
    let read = survey(source?.as_mut()).await;
    let (survey, left_out) = read.map_err(|fault| setup(format!("{}; {TAKEN}", fault.message)))?;
    if survey.is_empty() {
        let why = left_out.first.first().map(|l| format!(" ({l})"));
        return Err(setup(format!(
            "{} holds no sales{}; {TAKEN}",
            path.display(),
            why.unwrap_or_default()
        )));
    }
    Ok((survey, left_out))
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
