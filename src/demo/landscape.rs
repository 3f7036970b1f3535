//! The landscape and its driver: which task steps when, and when what goes wrong.

use super::clock::DrivenClock;
use super::traders::{
    CHANNELS, Shared, Shoppers, Street, Tills, Warehouse, best_sellers, street, survey,
};
use super::{Options, Report, SLICE, invariants};
use crate::codec::Codec;
use crate::connectors;
use crate::contract::event::{Event, ReservationStatus};
use crate::contract::{Catalogue, Tier, topic};
use crate::log::embedded::{self, EmbeddedLog};
use crate::log::{Isolation, Log, Offset, Reader, TopicPartition};
use crate::pipeline::{Clock, Code, Connector, Fake, FakeOptions, Fault, Source, Stage};
use crate::registry::{EmbeddedRegistry, Registry};
use crate::runtime::{ProcessorTask, Progress, SinkTask, SourceTask, TaskSettings};
use crate::telemetry::Telemetry;
use crate::topics::{self, Readers};
use crate::{codec, processors, verify};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Time that passes between two rounds.
const ROUND: Duration = Duration::from_millis(250);
/// Steps after which a task that never rests is a defect.
const STEPS_MAX: usize = 1_000_000;

/// Where a demo stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sales are read.
    Trading,
    /// One storefront does not answer.
    Outage,
    /// The day is over; what is under way ends.
    Draining,
}

/// What an observer sees after each round.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Where the demo stands.
    pub phase: Phase,
    /// Facts and commands read from the systems.
    pub events: u64,
    /// Stock levels written.
    pub levels: u64,
    /// Availabilities published.
    pub published: u64,
    /// Calls that storefronts have taken.
    pub calls: u64,
    /// Records that wait for a storefront.
    pub waiting: u64,
}

/// Watches a demo.
pub trait Observer {
    /// Called after each round.
    fn round(&mut self, picture: &Picture);
}

pub(super) struct Shop {
    pub name: &'static str,
    pub channel: &'static str,
    pub fake: Box<dyn Fake>,
}

pub(super) struct Landscape {
    pub log: Arc<dyn Log>,
    pub codec: Arc<Codec>,
    clock: Arc<DrivenClock>,
    street: Shared,
    granted: Arc<Mutex<VecDeque<(uuid::Uuid, ReservationStatus)>>>,
    reservations: Box<dyn Reader>,
    sources: Vec<SourceTask>,
    processors: Vec<ProcessorTask>,
    sinks: Vec<SinkTask>,
    pub shops: Vec<Shop>,
    events: u64,
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
        let clock = Arc::new(DrivenClock::new());
        let time = clock.clone();
        let now: embedded::Now =
            Arc::new(move || Duration::from_micros(u64::try_from(time.now().0).unwrap_or(0)));
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::new(embedded::Options {
            now,
            ..embedded::Options::system()
        }));
        let catalogue = Catalogue::compiled();
        let (path, kept) = data_file(options)?;
        let file = |name: &str| file_connector(name, &path);
        let survey = survey(source_of(file("tills")?.as_ref())?.as_mut()).await?;
        if survey.is_empty() {
            return Err(setup(format!(
                "{} holds no sales that the mapping of the demo understands",
                path.display()
            )));
        }
        let skus = best_sellers(&survey, 60);
        let all: std::collections::BTreeSet<String> =
            survey.keys().map(|(sku, _)| sku.clone()).collect();

        let mut shops = Vec::new();
        for (kind, channel) in ["vendure", "medusa"].into_iter().zip(CHANNELS) {
            let descriptor =
                connectors::find(kind).ok_or_else(|| setup(format!("no connector {kind}")))?;
            let start = descriptor
                .fake
                .ok_or_else(|| setup(format!("{kind} has no stand-in")))?;
            let fake = start(FakeOptions {
                skus: all.iter().cloned().collect(),
                locations: Vec::new(),
                seed: options.seed,
            });
            let fake = fake
                .await
                .map_err(|e| setup(format!("the stand-in of {kind} cannot start: {e}")))?;
            shops.push(Shop {
                name: kind,
                channel,
                fake,
            });
        }
        let readers = Readers {
            processors: processors::ALL
                .iter()
                .map(|p| {
                    (
                        p.descriptor.name.to_owned(),
                        p.descriptor.inputs[0].to_owned(),
                    )
                })
                .collect(),
            sinks: shops
                .iter()
                .map(|s| (s.name.to_owned(), topic::STOCK_ATS.to_owned()))
                .collect(),
            sources: ["tills", "warehouse", "shoppers"]
                .map(|s| (s.to_owned(), topic::STOCK_CHANGE.to_owned()))
                .to_vec(),
        };
        topics::ensure(log.as_ref(), catalogue, Tier::S, Some(1), &readers)?;
        let registry = EmbeddedRegistry::open(log.clone()).map_err(|e| setup(e.to_string()))?;
        for t in catalogue.physical(
            Tier::S,
            &as_pairs(&readers.processors),
            &as_pairs(&readers.sinks),
        ) {
            register(&registry, &t.name, t.contract.as_deref())?;
        }
        for source in &readers.sources {
            register(
                &registry,
                &catalogue.dead_letter_topic(&source.0),
                Some("retail.ops.v1.DeadLetter"),
            )?;
        }
        let codec = Arc::new(Codec::new(Arc::new(registry), catalogue));
        let telemetry = Arc::new(Telemetry::new());
        let settings = || TaskSettings {
            static_membership: false,
            calls_max: 1,
            ..TaskSettings::new("demo", 0)
        };

        let shared: Shared = Arc::new(Mutex::new(Street::default()));
        let granted = Arc::new(Mutex::new(VecDeque::new()));
        let polls = (survey.values().sum::<i64>().max(1) as usize / 8_000).clamp(8, 30);
        let made: Vec<(&str, Box<dyn Source>)> = vec![
            (
                "warehouse",
                Box::new(Warehouse {
                    seed: options.seed,
                    skus: skus.clone(),
                    clock: clock.clone(),
                    street: shared.clone(),
                }),
            ),
            (
                "tills",
                Box::new(Tills {
                    inner: source_of(file("tills")?.as_ref())?,
                    seed: options.seed,
                    survey,
                    clock: clock.clone(),
                    street: shared.clone(),
                    own_books: BTreeMap::new(),
                    polls: 0,
                    snapshot_at: polls,
                }),
            ),
            (
                "shoppers",
                Box::new(Shoppers {
                    seed: options.seed,
                    skus,
                    clock: clock.clone(),
                    street: shared.clone(),
                    granted: granted.clone(),
                    wishes: BTreeMap::new(),
                }),
            ),
        ];
        let mut sources = Vec::new();
        for (name, source) in made {
            sources.push(SourceTask::new(
                name,
                source,
                log.clone(),
                clock.clone(),
                codec.clone(),
                catalogue,
                telemetry.clone(),
                settings(),
            )?);
        }
        let mut tasks = Vec::new();
        for p in processors::ALL {
            tasks.push(ProcessorTask::new(
                (p.make)(),
                log.clone(),
                clock.clone(),
                codec.clone(),
                catalogue,
                telemetry.clone(),
                settings(),
            )?);
        }
        let mut sinks = Vec::new();
        for shop in &shops {
            let sink = build(shop.name, shop.name, shop_settings(shop))?
                .sink()
                .ok_or_else(|| setup(format!("{} has no sink", shop.name)))?;
            sinks.push(SinkTask::new(
                shop.name,
                &[topic::STOCK_ATS],
                sink,
                log.clone(),
                clock.clone(),
                codec.clone(),
                catalogue,
                telemetry.clone(),
                settings(),
            )?);
        }
        let partitions = catalogue
            .partitions(topic::RESERVATION_EVENT, Tier::S)
            .unwrap_or(1);
        let from: Vec<_> = (0..partitions)
            .map(|p| {
                (
                    TopicPartition::new(topic::RESERVATION_EVENT, p),
                    Offset::Beginning,
                )
            })
            .collect();
        let reservations = log.reader(&from, Isolation::ReadCommitted)?;
        Ok(Landscape {
            log,
            codec,
            clock,
            street: shared,
            granted,
            reservations,
            sources,
            processors: tasks,
            sinks,
            shops,
            events: 0,
            started: std::time::Instant::now(),
            _data: kept,
        })
    }

    /// Trades until every sale has been read. The second storefront does not answer for a while.
    pub async fn trade(&mut self, observer: &mut dyn Observer) -> Result<(), Fault> {
        for round in 0..STEPS_MAX {
            let outage = (12..24).contains(&round);
            self.shops[1].fake.set_down(outage);
            let more = self.round(round % 7 == 3).await?;
            observer.round(&self.picture(if outage {
                Phase::Outage
            } else {
                Phase::Trading
            }));
            if !more && round >= 30 {
                return Ok(());
            }
        }
        Err(setup("the sales never end".into()))
    }

    /// Lets what is under way come to its end.
    pub async fn drain(&mut self, observer: &mut dyn Observer) -> Result<(), Fault> {
        street(&self.street).closing = true;
        self.shops[1].fake.set_down(false);
        let mut quiet = 0;
        for _ in 0..2_000 {
            let before = self.events;
            self.round(false).await?;
            observer.round(&self.picture(Phase::Draining));
            let busy = self.events != before || self.sinks.iter().any(|s| !s.is_quiet());
            quiet = if busy { 0 } else { quiet + 1 };
            // Holds last two seconds: longer than that without anything new is the end.
            if quiet > 16 {
                return Ok(());
            }
        }
        Err(setup("the landscape never came to rest".into()))
    }

    /// One round: the systems tell, the processors work, the storefronts hear. Returns whether the
    /// tills have more to tell.
    async fn round(&mut self, flaky: bool) -> Result<bool, Fault> {
        self.clock.advance(ROUND);
        self.hear_of_reservations()?;
        let mut more = false;
        for source in &mut self.sources {
            // The first step of a source finds its group forming.
            for _ in 0..4 {
                match source.step().await? {
                    Progress::Worked(count) => {
                        self.events += count as u64;
                        more |= source.name() == "tills" && count > 0;
                        break;
                    }
                    Progress::Unassigned => {}
                    _ => break,
                }
            }
        }
        if flaky {
            use crate::pipeline::FakeFault::{AppliedThenCut, Garbage, Status};
            self.shops[0]
                .fake
                .inject(vec![AppliedThenCut, Status(503, None), Garbage]);
        }
        for _ in 0..3 {
            for task in &mut self.processors {
                run_to_rest(task)?;
            }
        }
        for sink in &mut self.sinks {
            for step in 0..STEPS_MAX {
                match sink.step(Duration::ZERO).await {
                    Ok(Progress::Idle { .. }) if step > 3 => break,
                    Ok(_) => {}
                    Err(fault) => return Err(fault),
                }
                // How long an answer takes must not decide what is read meanwhile.
                while sink.is_calling() {
                    sink.finish_calls(Duration::ZERO).await?;
                }
            }
        }
        Ok(more)
    }

    fn hear_of_reservations(&mut self) -> Result<(), Fault> {
        let mut records = Vec::new();
        self.reservations
            .poll(100_000, Duration::ZERO, &mut records)?;
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        for record in &records {
            if let Event::ReservationEvent(e) = self.codec.decode(record)? {
                granted.push_back((e.reservation_id, e.status));
            }
        }
        Ok(())
    }

    fn picture(&self, phase: Phase) -> Picture {
        let written = |topic: &str| -> u64 {
            let partitions = Catalogue::compiled()
                .partitions(topic, Tier::S)
                .unwrap_or(1);
            let end = |p| {
                self.log
                    .admin()
                    .watermarks(&TopicPartition::new(topic, p))
                    .map_or(0, |(_, end)| end)
            };
            (0..partitions).map(end).sum::<i64>().unsigned_abs()
        };
        Picture {
            phase,
            events: self.events,
            levels: written(topic::STOCK_LEVEL),
            published: written(topic::STOCK_ATS),
            calls: self.shops.iter().map(|s| s.fake.calls().len() as u64).sum(),
            waiting: self.sinks.iter().map(|s| s.waiting() as u64).sum(),
        }
    }

    /// Balances the books and judges the invariants.
    pub fn report(self, options: &Options) -> Result<Report, Fault> {
        let catalogue = Catalogue::compiled();
        let mut readers: Vec<(String, String)> = Vec::new();
        for p in processors::ALL {
            readers.extend(
                p.descriptor
                    .inputs
                    .iter()
                    .map(|t| (p.descriptor.name.to_owned(), (*t).to_owned())),
            );
        }
        readers.extend(
            self.shops
                .iter()
                .map(|s| (s.name.to_owned(), topic::STOCK_ATS.to_owned())),
        );
        let ledger = verify::ledger(&self.log, &self.codec, catalogue, "crossdock", &readers)?;
        let invariants = invariants::judge(&self.log, &self.codec, &ledger, &self.shops)?;
        Ok(Report {
            seed: options.seed,
            events: self.events,
            ledger,
            invariants,
            took: self.started.elapsed(),
        })
    }
}

fn run_to_rest(task: &mut ProcessorTask) -> Result<(), Fault> {
    for step in 0..STEPS_MAX {
        match task.step(Duration::ZERO)? {
            Progress::Idle { .. } => return Ok(()),
            Progress::Unassigned if step > 3 => return Ok(()),
            _ => {}
        }
    }
    Err(setup(format!("{} never came to rest", task.name())))
}

fn register(registry: &EmbeddedRegistry, topic: &str, contract: Option<&str>) -> Result<(), Fault> {
    let Some((_, schema)) = Event::CONTRACTS
        .iter()
        .find(|(name, _)| Some(*name) == contract)
    else {
        return Ok(());
    };
    registry
        .register(&codec::subject(topic), schema)
        .map(|_| ())
        .map_err(|e| setup(e.to_string()))
}

fn as_pairs(owned: &[(String, String)]) -> Vec<(&str, &str)> {
    owned
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect()
}

fn build(
    kind: &str,
    instance: &str,
    settings: serde_json::Value,
) -> Result<Arc<dyn Connector>, Fault> {
    let descriptor = connectors::find(kind).ok_or_else(|| setup(format!("no connector {kind}")))?;
    (descriptor.build)(instance, settings)
}

fn shop_settings(shop: &Shop) -> serde_json::Value {
    let mut settings = shop.fake.settings();
    settings["channel"] = shop.channel.into();
    settings
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
        .ok_or_else(|| setup("the file connector has no source".into()))
}

/// The sales to read: the given file, or the slice that is compiled in, in a file of its own.
fn data_file(options: &Options) -> Result<(PathBuf, Option<OwnFile>), Fault> {
    if let Some(path) = &options.data {
        return match std::fs::metadata(path) {
            Ok(_) => Ok((path.clone(), None)),
            Err(error) => Err(setup(format!("{} cannot be read: {error}", path.display()))),
        };
    }
    let path = std::env::temp_dir().join(format!("crossdock-demo-{}.csv.gz", std::process::id()));
    std::fs::write(&path, SLICE)
        .map_err(|e| setup(format!("{} cannot be written: {e}", path.display())))?;
    Ok((path.clone(), Some(OwnFile(path))))
}

fn setup(message: String) -> Fault {
    Fault::halt(Stage::Read, Code::Configuration, message)
}
