//! All systems around Crossdock, and how they take part.

use super::{
    Desk, Entry, Erp, Listener, Node, Psp, Service, Shared, Storefront, System, Teller, Terms, open,
};
use crate::contract::event::{NodeType, Text};
use crate::contract::topic;
use crate::demo::crew::Crew;
use crate::demo::ground::Ground;
use crate::demo::invariants::Shown;
use crate::domain::{Decimal, Timestamp};
use crate::pipeline::{Clock, Fault, Vault};
use crate::topics::Readers;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The systems.
pub(crate) struct Estate {
    /// By channel.
    pub fronts: BTreeMap<Text, Shared<Storefront>>,
    /// By location.
    pub nodes: BTreeMap<Text, Shared<Node>>,
    pub erp: Shared<Erp>,
    pub psp: Shared<Psp>,
    pub service: Shared<Service>,
}

/// Which systems there are.
pub(crate) struct Plan {
    /// Channels.
    pub fronts: Vec<Text>,
    /// Locations and what they are.
    pub nodes: Vec<(Text, NodeType)>,
    pub terms: Terms,
}

impl Plan {
    /// Adds the systems to those that read and write.
    pub fn add_to(&self, readers: &mut Readers) {
        let fronts = self.fronts.iter().map(|c| named("storefront", c));
        let nodes = self.nodes.iter().map(|(l, _)| named("node", l));
        let others = ["orders", "psp", "service"].map(Text::from);
        for name in fronts.chain(nodes).chain(others) {
            let topic = topic::ORDER_LIFECYCLE.to_owned();
            if name != "service" {
                readers.sinks.push((name.to_string(), topic.clone()));
            }
            readers.sources.push((name.to_string(), topic));
        }
    }
}

fn named(kind: &str, name: &str) -> Text {
    compact_str::format_compact!("{kind}-{name}")
}

fn shared<S>(system: S) -> Shared<S> {
    Arc::new(Mutex::new(system))
}

impl Estate {
    /// Builds the systems; `clock` is theirs.
    pub fn build(plan: &Plan, clock: &Arc<dyn Clock>) -> Estate {
        let desk = |name: Text| Desk::new(name, clock.clone());
        let fronts = plan.fronts.iter().map(|channel| {
            let desk = desk(named("storefront", channel));
            (
                channel.clone(),
                shared(Storefront::new(desk, channel.clone())),
            )
        });
        let nodes = plan.nodes.iter().map(|(location, kind)| {
            let desk = desk(named("node", location));
            (
                location.clone(),
                shared(Node::new(desk, location.clone(), *kind)),
            )
        });
        Estate {
            fronts: fronts.collect(),
            nodes: nodes.collect(),
            erp: shared(Erp::new(desk("erp".into()), plan.terms.clone())),
            psp: shared(Psp::new(desk("psp".into()))),
            service: shared(Service::new(desk("service".into()))),
        }
    }

    /// Builds the systems and lets them take part.
    pub(in crate::demo) fn join(
        plan: &Plan,
        ground: &Ground,
        crew: &mut Crew,
    ) -> Result<Estate, Fault> {
        let clock: Arc<dyn Clock> = ground.clock.clone();
        let estate = Estate::build(plan, &clock);
        let vault: Arc<dyn Vault> = Arc::new(ground.vault()?);
        estate.each_desk(|desk| desk.set_vault(vault.clone()));
        // Money may be taken before the order is heard of.
        take_part(ground, crew, "psp", &estate.psp)?;
        for (channel, front) in &estate.fronts {
            take_part(ground, crew, &named("storefront", channel), front)?;
        }
        take_part(ground, crew, "orders", &estate.erp)?;
        for (location, node) in &estate.nodes {
            take_part(ground, crew, &named("node", location), node)?;
        }
        take_part(ground, crew, "service", &estate.service)?;
        Ok(estate)
    }

    /// Does something at every desk.
    pub fn each_desk(&self, mut deed: impl FnMut(&mut Desk)) {
        self.fronts.values().for_each(|s| deed(open(s).desk_mut()));
        self.nodes.values().for_each(|s| deed(open(s).desk_mut()));
        deed(open(&self.erp).desk_mut());
        deed(open(&self.psp).desk_mut());
        deed(open(&self.service).desk_mut());
    }

    /// When some system tells next of what it has kept back.
    pub fn next_due(&self) -> Option<Timestamp> {
        let mut next = None;
        self.each_desk(|desk| next = next.into_iter().chain(desk.next_due()).min());
        next
    }

    /// The ledger of each system.
    pub fn entries(&self) -> Vec<(String, Vec<Entry>)> {
        let mut all = Vec::new();
        self.each_desk(|desk| all.push((desk.name().to_string(), desk.ledger().to_vec())));
        all
    }

    /// The same as JSON lines.
    pub fn lines(&self) -> Vec<(String, Vec<Value>)> {
        let mut all = Vec::new();
        self.each_desk(|desk| all.push((desk.name().to_string(), desk.lines().collect())));
        all
    }

    /// What the storefronts show.
    pub fn shown(&self) -> Vec<Shown> {
        let shown = self.fronts.values().map(|front| {
            let front = open(front);
            let whole = |q: &Decimal| q.units() / Decimal::ONE.units();
            let quantities = front.shown().iter();
            Shown {
                name: front.desk().name().to_string(),
                channel: front.channel().to_string(),
                quantities: quantities
                    .map(|(sku, q)| (sku.to_string(), whole(q)))
                    .collect(),
            }
        });
        shown.collect()
    }
}

/// A system takes part: its source, and its sink where it hears anything.
fn take_part<S: System>(
    ground: &Ground,
    crew: &mut Crew,
    name: &str,
    system: &Shared<S>,
) -> Result<(), Fault> {
    let topics = open(system).listens();
    let teller = Box::new(Teller(system.clone()));
    crew.sources.push(ground.source(name, teller)?);
    if !topics.is_empty() {
        let listener = Arc::new(Listener(system.clone()));
        crew.sinks.push(ground.sink(name, topics, listener)?);
        let settles = topics.iter().map(|t| (name.to_owned(), (*t).to_owned()));
        crew.settles.extend(settles);
    }
    Ok(())
}
