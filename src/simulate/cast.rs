//! Who takes part: processors, systems and their connectors.

use super::baskets::Baskets;
use crate::contract::event::{NodeType, Text};
use crate::demo::ground;
use crate::demo::systems::{Desk, Estate, Plan as Systems, Shared, System, Terms, open};
use crate::demo::traders::{CORNER, Invoice, Market, SHOP, Sold, THIRD_PARTY};
use crate::domain::Decimal;
use crate::pipeline::Clock;
use crate::processors::{self, Registered};
use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// The channel, and the two locations, where only stock is traded.
pub(super) const WEB: &str = "web";
pub(super) const NODES: [&str; 2] = ["dc", "store"];
/// SKUs of that trade.
pub(super) const SKUS: usize = 5;
/// The connector that tells of channels and locations.
const REFERENCE: &str = "reference";

/// What is traded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trade {
    /// Stock: movements, counts, reservations, what a storefront shows.
    Stock,
    /// Orders and their money as well, through all that deals with them.
    Orders,
}

/// What an instance does.
#[derive(Clone, Copy)]
pub(super) enum Duty {
    Processes(&'static Registered),
    /// Tells a system, by its place.
    Tells(usize),
    /// Reads a system.
    Reads(usize),
    /// Reads the configuration.
    Refers,
}

/// A reader or writer of the log, of which there are instances.
#[derive(Clone)]
pub(super) struct Role {
    pub name: String,
    pub duty: Duty,
}

impl Trade {
    /// By the seed: the smaller trade is the quicker.
    pub(super) fn of(seed: u64) -> Trade {
        match seed % 3 {
            2 => Trade::Orders,
            _ => Trade::Stock,
        }
    }

    /// The systems by the names of their connectors, and whether each is told anything.
    pub(super) fn systems(self) -> Vec<(String, bool)> {
        let named = |kind: &str, name: &str| format!("{kind}-{name}");
        match self {
            Trade::Stock => vec![
                (named("storefront", WEB), true),
                (named("node", NODES[0]), false),
                (named("node", NODES[1]), false),
                ("baskets".into(), true),
            ],
            Trade::Orders => vec![
                (named("storefront", SHOP), true),
                (named("node", THIRD_PARTY), true),
                (named("node", CORNER), true),
                ("orders".into(), true),
                ("psp".into(), true),
                ("service".into(), false),
            ],
        }
    }

    pub(super) fn roles(self) -> Vec<Role> {
        let mut roles: Vec<Role> = self
            .processors()
            .into_iter()
            .map(|p| Role {
                name: p.descriptor.name.to_owned(),
                duty: Duty::Processes(p),
            })
            .collect();
        roles.push(Role {
            name: REFERENCE.to_owned(),
            duty: Duty::Refers,
        });
        for (number, (name, hears)) in self.systems().into_iter().enumerate() {
            if hears {
                roles.push(Role {
                    name: name.clone(),
                    duty: Duty::Tells(number),
                });
            }
            roles.push(Role {
                name,
                duty: Duty::Reads(number),
            });
        }
        roles
    }

    pub(super) fn processors(self) -> Vec<&'static Registered> {
        match self {
            Trade::Stock => {
                let of_stock = ["stock-ledger", "ats-aggregate"].iter();
                of_stock.filter_map(|name| processors::find(name)).collect()
            }
            Trade::Orders => ground::taking_part().collect(),
        }
    }

    /// Settings of the connector that tells of channels and locations.
    pub(super) fn reference(self) -> serde_json::Value {
        match self {
            Trade::Stock => json!({
                "locations": {NODES[0]: {"kind": "dc"}, NODES[1]: {"kind": "store"}},
                "channels": {WEB: {"locations": NODES, "buffer": "1"}},
                "policies": [{"sku": "S0", "location": NODES[0], "safety_stock": "2"}],
            }),
            Trade::Orders => json!({
                "locations": {THIRD_PARTY: {"kind": "third_party"}, CORNER: {"kind": "store"}},
                "channels": {SHOP: {"locations": [THIRD_PARTY, CORNER]}},
            }),
        }
    }
}

/// The systems, and whoever acts in them.
pub(super) struct Cast {
    pub estate: Estate,
    pub baskets: Shared<Baskets>,
    pub market: Mutex<Market>,
    /// As [`Trade::systems`].
    pub systems: Vec<Shared<dyn System>>,
}

impl Cast {
    pub fn new(trade: Trade, seed: u64, clock: Arc<dyn Clock>) -> Cast {
        let market = Market::of(invoices(seed), seed);
        let systems = match trade {
            Trade::Stock => Systems {
                fronts: vec![WEB.into()],
                nodes: vec![
                    (NODES[0].into(), NodeType::Dc),
                    (NODES[1].into(), NodeType::Store),
                ],
                terms: Terms::default(),
            },
            Trade::Orders => market.plan(),
        };
        let estate = Estate::build(&systems, &clock);
        let baskets = Arc::new(Mutex::new(Baskets::new(Desk::new("baskets", clock))));
        let mut all: Vec<Shared<dyn System>> = Vec::new();
        for (name, _) in trade.systems() {
            let (kind, of) = name.split_once('-').unwrap_or((&name, ""));
            match (kind, estate.fronts.get(of), estate.nodes.get(of)) {
                ("storefront", Some(front), _) => all.push(front.clone()),
                ("node", _, Some(node)) => all.push(node.clone()),
                ("orders", _, _) => all.push(estate.erp.clone()),
                ("psp", _, _) => all.push(estate.psp.clone()),
                ("service", _, _) => all.push(estate.service.clone()),
                _ => all.push(baskets.clone()),
            }
        }
        Cast {
            estate,
            baskets,
            market: Mutex::new(market),
            systems: all,
        }
    }

    /// What has been written down in all: grows as long as something happens outside.
    pub fn entries(&self) -> usize {
        let all = self.systems.iter();
        all.map(|s| open(s).desk().ledger().len()).sum()
    }
}

/// Sales of a few SKUs; what becomes of each follows from its number.
fn invoices(seed: u64) -> VecDeque<(usize, Invoice)> {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x6d61_726b_6574);
    let first = random.random_range(0..30);
    let invoice = |n: usize| {
        let number = first + n;
        let mut skus: Vec<usize> = (0..6).collect();
        skus.shuffle(&mut random);
        let lines = skus.into_iter().take(random.random_range(1..4)).map(|sku| {
            let units = random.random_range(1..5);
            let back = if random.random_bool(0.3) {
                random.random_range(1..=units)
            } else {
                0
            };
            Sold {
                sku: sku_of(sku).into(),
                quantity: Decimal::from(units),
                price: Decimal::from_units(random.random_range(100..4_000) * 100),
                returned: Decimal::from(back),
            }
        });
        let lines = lines.collect();
        let number_text = format!("{}", 1_000 + number);
        (
            number,
            Invoice {
                number: number_text,
                lines,
            },
        )
    };
    let count = 5 + (seed as usize / 3) % 5;
    (0..count).map(invoice).collect()
}

pub(super) fn sku_of(sku: usize) -> Text {
    compact_str::format_compact!("S{sku}")
}
