//! What a scenario is played on: the systems of its world, every processor, and a clock that moves when
//! the story says so.

use super::file::{Kind, World};
use crate::connectors;
use crate::contract::event::{
    BusinessException, Event, ExceptionStatus, LedgerPosting, NodeType, OrderSnapshot, OrderState,
    StockLevel, Text,
};
use crate::contract::{Catalogue, topic};
use crate::demo::Cluster;
use crate::demo::clock::FIRST_DAY;
use crate::demo::crew::Crew;
use crate::demo::ground::{self, Ground, setup};
use crate::demo::invariants;
use crate::demo::systems::{
    CANARY, Desk, Estate, Node, Plan, Shared, Storefront, System, Terms, id_of, open,
};
use crate::domain::{Decimal, Timestamp, compound_key};
use crate::pipeline::Fault;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What waits for no longer than this is under way: publishing that is coalesced, a call tried again.
const SOON: Duration = Duration::from_secs(1);
/// Time that passes before anything happens.
const OPENING: Duration = Duration::from_secs(10);
/// Time that passes at the end, so that all that is judged late is judged.
const AFTERMATH: Duration = Duration::from_secs(8 * 86_400);
/// Partitions of a topic: enough for keys to be apart, and quick to have on a cluster.
const PARTITIONS_MAX: i32 = 2;
/// The connector that tells of channels and locations.
const REFERENCE: &str = "reference";

/// Something done on the stage.
type Deed = Box<dyn Fn(&mut Stage) -> Result<(), String>>;

/// What a sentence does.
pub(super) enum Act {
    /// Somebody does something; these orders are told of from now on.
    Do(Deed, Vec<Text>),
    /// Time passes.
    Pass(Duration),
    /// Something must be so.
    Expect(Deed),
}

impl Act {
    pub fn orders(&self) -> Vec<Text> {
        match self {
            Act::Do(_, orders) => orders.clone(),
            _ => Vec::new(),
        }
    }
}

/// What the log says, as far as sentences ask.
#[derive(Default)]
pub(super) struct Said {
    pub states: BTreeMap<Text, OrderState>,
    pub levels: BTreeMap<Text, StockLevel>,
    pub postings: Vec<LedgerPosting>,
    /// By id, the newest word.
    pub cases: BTreeMap<uuid::Uuid, BusinessException>,
}

impl Said {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::OrderState(e) => {
                self.states.insert(e.order_id.clone(), e.clone());
            }
            Event::StockLevel(e) => {
                self.levels
                    .insert(compound_key(&[&e.sku, &e.location_id]), e.clone());
            }
            Event::LedgerPosting(e) => self.postings.push(e.clone()),
            Event::BusinessException(e) => {
                self.cases.insert(e.exception_id, e.clone());
            }
            _ => {}
        }
    }
}

/// A return that a customer has begun.
#[derive(Clone, Debug)]
pub(super) struct Back {
    pub id: Text,
    pub units: Vec<(Text, Text, Decimal)>,
    /// Whether the goods are there.
    pub here: bool,
}

/// The stage.
pub(super) struct Stage {
    pub crew: Crew,
    pub world: World,
    pub estate: Estate,
    pub said: Shared<Said>,
    /// Orders by the names that the story gives them.
    pub orders: BTreeMap<Text, OrderSnapshot>,
    pub returns: BTreeMap<Text, Vec<Back>>,
    /// Systems that do not answer, and until when.
    pub down: BTreeMap<Text, Timestamp>,
    /// Counts refunds asked for.
    pub asked: u32,
    /// Exceptions and dead letters that sentences have spoken of.
    pub expected: BTreeSet<(Text, Text)>,
    pub expected_dead: BTreeSet<(Text, Text, Text)>,
}

impl Stage {
    /// Builds the world and opens its shops.
    pub async fn set(world: &World, cluster: Option<&Cluster>) -> Result<Stage, Fault> {
        let nodes = world.locations.iter().map(|(location, kind)| {
            let kind = match kind {
                Kind::Warehouse => NodeType::Dc,
                Kind::Store => NodeType::Store,
                Kind::ThirdParty => NodeType::ThirdParty,
            };
            (location.clone(), kind)
        });
        let plan = Plan {
            fronts: world.sellers(),
            nodes: nodes.collect(),
            terms: Terms {
                skus: world.stock.keys().cloned().collect(),
                currencies: world.currencies.iter().cloned().collect(),
                locations: world.locations.keys().cloned().collect(),
            },
        };
        let mut readers = ground::readers();
        let told = topic::CHANNEL_CHANGE.to_owned();
        readers.sources.push((REFERENCE.to_owned(), told));
        plan.add_to(&mut readers);
        let place = Ground::prepare(cluster, &readers, PARTITIONS_MAX, FIRST_DAY)?;
        let said: Shared<Said> = Shared::default();
        let ear = said.clone();
        let ear = Box::new(move |event: &Event| open(&ear).hear(event));
        let mut crew = Crew::new(&place, ground::settles(), ear)?;
        let reference =
            connectors::find(REFERENCE).ok_or_else(|| setup("no connector reference"))?;
        let reference = (reference.build)(REFERENCE, settings(world))?;
        let reference = reference
            .source()
            .ok_or_else(|| setup("reference has no source"))?;
        crew.sources.push(place.source(REFERENCE, reference)?);
        let mut stage = Stage {
            estate: Estate::join(&plan, &place, &mut crew)?,
            crew,
            world: world.clone(),
            said,
            orders: BTreeMap::new(),
            returns: BTreeMap::new(),
            down: BTreeMap::new(),
            asked: 0,
            expected: BTreeSet::new(),
            expected_dead: BTreeSet::new(),
        };
        for processor in ground::taking_part() {
            let task = place.processor((processor.make)())?;
            stage.crew.processors.push(task);
        }
        stage.crew.gather().await?;
        // Until everybody knows which locations serve which channel.
        stage.pass(OPENING).await?;
        for (sku, locations) in &world.stock {
            for (location, quantity) in locations {
                if let Some(node) = stage.estate.nodes.get(location) {
                    open(node).count(sku, *quantity);
                }
            }
        }
        stage.crew.settle(SOON).await?;
        Ok(stage)
    }

    /// Takes a step, and lets what follows from it come to rest.
    pub async fn take(&mut self, act: &Act) -> Result<(), String> {
        match act {
            Act::Do(deed, _) | Act::Expect(deed) => deed(self)?,
            Act::Pass(time) => return self.pass(*time).await.map_err(|f| f.to_string()),
        }
        self.crew.settle(SOON).await.map_err(|f| f.to_string())
    }

    /// Lets time pass from one thing that is due to the next.
    async fn pass(&mut self, time: Duration) -> Result<(), Fault> {
        let end = self.crew.now().plus(time);
        self.crew.settle(SOON).await?;
        loop {
            let now = self.crew.now();
            let desks = self.estate.next_due();
            let due = self
                .down
                .values()
                .copied()
                .chain(desks)
                .chain(self.crew.next_due());
            let next = due.min().unwrap_or(end).max(now.plus(SOON));
            self.crew.clock.advance_to(next.min(end));
            let back: Vec<Text> = self
                .down
                .iter()
                .filter(|(_, until)| **until <= self.crew.now())
                .map(|(name, _)| name.clone())
                .collect();
            for name in back {
                self.down.remove(&name);
                self.at_desk(&name, |desk| desk.set_down(false));
            }
            self.crew.settle(SOON).await?;
            if self.crew.now() >= end {
                return Ok(());
            }
        }
    }

    /// Does something at the desk of a system, by the name that the story has for it.
    pub fn at_desk<T>(&self, name: &str, deed: impl FnOnce(&mut Desk) -> T) -> Option<T> {
        match name {
            "ERP" => Some(deed(open(&self.estate.erp).desk_mut())),
            "PSP" => Some(deed(open(&self.estate.psp).desk_mut())),
            "service" => Some(deed(open(&self.estate.service).desk_mut())),
            _ => match (self.estate.nodes.get(name), self.estate.fronts.get(name)) {
                (Some(node), _) => Some(deed(open(node).desk_mut())),
                (_, Some(front)) => Some(deed(open(front).desk_mut())),
                _ => None,
            },
        }
    }

    /// The order that the story calls by this name, and its id.
    pub fn order(&self, name: &str) -> Result<(OrderSnapshot, Text), String> {
        let order = self
            .orders
            .get(name)
            .ok_or_else(|| format!("there is no order {name}"))?;
        Ok((order.clone(), id_of(order)))
    }
    pub fn node(&self, location: &str) -> Result<Shared<Node>, String> {
        let node = self.estate.nodes.get(location).cloned();
        node.ok_or_else(|| format!("nobody works at {location}"))
    }
    pub fn front(&self, channel: &str) -> Result<Shared<Storefront>, String> {
        let front = self.estate.fronts.get(channel).cloned();
        front.ok_or_else(|| format!("there is no storefront {channel}"))
    }
    /// The state of an order.
    pub fn state(&self, id: &str) -> Result<OrderState, String> {
        let state = open(&self.said).states.get(id).cloned();
        state.ok_or_else(|| "nothing is known of the order".to_owned())
    }
    /// What the story calls the order with this id; the id itself where it has no name.
    pub fn name_of(&self, id: &str) -> Text {
        let known = self.orders.iter().find(|(_, order)| id_of(order) == id);
        known.map_or_else(|| id.into(), |(name, _)| name.clone())
    }

    /// Dead letters: reader, code, key and message.
    pub fn dead(&self) -> Result<Vec<(Text, Text, Text, String)>, String> {
        let readers: BTreeSet<&String> = self.crew.settles.iter().map(|(r, _)| r).collect();
        let catalogue = Catalogue::compiled();
        let topics = readers
            .into_iter()
            .map(|r| (catalogue.dead_letter_topic(r), r));
        let topics: BTreeMap<String, &String> = topics.collect();
        let records = self.crew.records(topics.keys().map(String::as_str));
        let mut dead = Vec::new();
        for record in records.map_err(|f| f.to_string())? {
            let event = self.crew.codec.decode(&record).map_err(|f| f.to_string())?;
            let reader = topics.get(&*record.origin.topic);
            if let (Event::DeadLetter(e), Some(reader)) = (event, reader) {
                let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default());
                let reader = Text::from(reader.as_str());
                dead.push((
                    reader,
                    e.code.clone(),
                    Text::from(&*key),
                    e.message.to_string(),
                ));
            }
        }
        Ok(dead)
    }

    /// Lets everything come to its end and judges it.
    pub async fn end(&mut self) -> Result<(), String> {
        self.pass(AFTERMATH).await.map_err(|f| f.to_string())?;
        let cases: Vec<BusinessException> = open(&self.said).cases.values().cloned().collect();
        for case in cases
            .iter()
            .filter(|c| c.status != ExceptionStatus::Resolved)
        {
            let of = self.about(case);
            if !self.expected.contains(&(case.code.clone(), of.clone())) {
                return Err(format!(
                    "exception {} for {of} is open, and no sentence expects it: {} is expected, {} is so",
                    case.code,
                    case.expected.as_deref().unwrap_or("?"),
                    case.actual.as_deref().unwrap_or("?")
                ));
            }
        }
        for (reader, code, key, message) in self.dead()? {
            let of = self.name_of(&key);
            if !self
                .expected_dead
                .contains(&(reader.clone(), code.clone(), of.clone()))
            {
                return Err(format!(
                    "{reader} has refused a record of {of} as {code}, and no sentence expects it: {message}"
                ));
            }
        }
        let ledger = self.crew.ledger().map_err(|f| f.to_string())?;
        let shown = self.estate.shown();
        let faults: Vec<invariants::Expected> = self.faults();
        let around = invariants::Around {
            systems: self.estate.entries(),
            sinks: self.crew.sinks_settle(),
            faults: &faults,
            leak: self
                .crew
                .find(CANARY.as_bytes())
                .map_err(|f| f.to_string())?,
            skew: Duration::ZERO,
        };
        let books = &self.crew.books;
        let verdicts = invariants::judge(books, &ledger, &shown, &around, self.crew.now());
        let broken = verdicts.0.iter().filter(|(_, verdict)| *verdict != "ok");
        let broken: Vec<String> = broken
            .map(|(n, why)| format!("invariant {n}: {why}"))
            .collect();
        match broken.is_empty() {
            true => Ok(()),
            false => Err(broken.join("\n    ")),
        }
    }

    /// What the sentences have expected of orders and payouts.
    fn faults(&self) -> Vec<invariants::Expected> {
        let of = |(code, about): &(Text, Text)| {
            let order = match (self.orders.get(about), about.as_str()) {
                (Some(order), _) => id_of(order),
                (None, "payout") => Text::default(),
                _ => return None,
            };
            Some(invariants::Expected {
                code: code.clone(),
                order,
            })
        };
        self.expected.iter().filter_map(of).collect()
    }

    /// What an exception is about, in the words of the story: an order, a SKU at a location, a payout.
    pub fn about(&self, case: &BusinessException) -> Text {
        match (&case.order_id, &case.sku, &case.location_id) {
            (Some(order), _, _) => self.name_of(order),
            (None, Some(sku), Some(location)) => {
                compact_str::format_compact!("{sku} in {location}")
            }
            _ => "payout".into(),
        }
    }

    /// What every system has written down, by its name.
    pub fn ledgers(&self) -> Vec<(String, String)> {
        let lines = self.estate.lines().into_iter();
        let text = lines.map(|(name, lines)| {
            let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            (name, lines.join("\n"))
        });
        text.collect()
    }
}

fn settings(world: &World) -> serde_json::Value {
    let kind = |kind: &Kind| match kind {
        Kind::Warehouse => "dc",
        Kind::Store => "store",
        Kind::ThirdParty => "third_party",
    };
    let locations = world
        .locations
        .iter()
        .map(|(l, k)| (l.to_string(), json!({"kind": kind(k)})));
    let channels = world
        .channels
        .iter()
        .map(|(c, l)| (c.to_string(), json!({"locations": l})));
    json!({
        "locations": locations.collect::<serde_json::Map<_, _>>(),
        "channels": channels.collect::<serde_json::Map<_, _>>(),
    })
}
