//! What a location of an ERP is: a place where stock lies, or the other side of a movement.

use super::configuration;
use crate::contract::event::{LocationKind as WireKind, NodeType, StockState, Text};
use crate::pipeline::Fault;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};

/// Deeper trees are taken as a mistake.
const DEPTH_MAX: usize = 50;

/// What a warehouse is in Crossdock.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocationSettings {
    /// Location id in events; the key where it is not given.
    pub id: Option<String>,
    /// What it is.
    #[serde(default)]
    pub kind: LocationKind,
    /// Whether another system picks and ships here, such as that of a warehouse or of a 3PL: shipments
    /// are then taken from it, and not told from here.
    #[serde(default)]
    pub ships_elsewhere: bool,
}

/// What a location is.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum LocationKind {
    #[default]
    Dc,
    Store,
    Dropship,
    ThirdParty,
}

impl LocationKind {
    /// As it stands in an event of a location.
    pub fn wire(self) -> WireKind {
        match self {
            LocationKind::Dc => WireKind::Dc,
            LocationKind::Store => WireKind::Store,
            LocationKind::Dropship => WireKind::Dropship,
            LocationKind::ThirdParty => WireKind::ThirdParty,
        }
    }

    /// As it stands in an event of a shipment.
    pub fn node(self) -> NodeType {
        match self {
            LocationKind::Dc => NodeType::Dc,
            LocationKind::Store => NodeType::Store,
            LocationKind::Dropship => NodeType::Dropship,
            LocationKind::ThirdParty => NodeType::ThirdParty,
        }
    }
}

/// Where goods are, before or after a move.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// At one of our locations.
    Stock {
        /// Location id in events.
        location: Text,
        /// Sellable, damaged or held.
        state: StockState,
    },
    /// Between two of them.
    Transit,
    /// Not with us: at a supplier, with a customer, lost.
    Outside {
        /// The state that stands for it.
        state: StockState,
        /// The ERP's type of the location.
        kind: Text,
    },
}

/// What an ERP's location is by itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// It owns the stock of all places below it.
    Warehouse,
    /// Goods lie there: with the warehouse above it, on the way where there is none.
    Storage,
    /// Goods there are between two warehouses.
    Transit,
    /// Goods there are not with us.
    Outside(StockState),
    /// No goods can be there.
    Nowhere,
}

/// A location.
pub struct Node {
    /// What settings call it: its code, its name where it has none.
    pub label: String,
    /// What it is.
    pub kind: Kind,
    /// The ERP's type of it.
    pub type_name: String,
    /// The location above it.
    pub parent: Option<i64>,
}

/// All locations, by the ids of their rows.
pub struct Tree {
    /// The ERP, in words for people.
    system: &'static str,
    nodes: HashMap<i64, Node>,
    locations: BTreeMap<String, LocationSettings>,
    damaged: Vec<String>,
    held: Vec<String>,
}

impl Tree {
    /// The tree of `nodes`; settings name what is special.
    ///
    /// # Errors
    /// A halt when two warehouses cannot be told apart.
    pub fn new(
        system: &'static str,
        nodes: HashMap<i64, Node>,
        locations: &BTreeMap<String, LocationSettings>,
        damaged: &[String],
        held: &[String],
    ) -> Result<Tree, Fault> {
        let tree = Tree {
            system,
            nodes,
            locations: locations.clone(),
            damaged: damaged.to_vec(),
            held: held.to_vec(),
        };
        tree.check()?;
        Ok(tree)
    }

    /// How many locations there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// What a location is. `Err` says why that cannot be known.
    pub fn place(&self, id: i64) -> Result<Place, String> {
        let node = self
            .nodes
            .get(&id)
            .ok_or_else(|| format!("there is no location {id}"))?;
        match &node.kind {
            Kind::Storage => match self.owner(id)? {
                Some(owner) => Ok(Place::Stock {
                    location: self.location_id(owner),
                    state: self.state(id)?,
                }),
                None => Ok(Place::Transit),
            },
            Kind::Transit => Ok(Place::Transit),
            Kind::Outside(state) => Ok(Place::Outside {
                state: *state,
                kind: node.type_name.as_str().into(),
            }),
            Kind::Warehouse | Kind::Nowhere => Err(format!(
                "location {id} ({}) is of type {}, where no stock can be",
                node.label, node.type_name
            )),
        }
    }

    /// The warehouse, or the listed storage location, that a storage location belongs to.
    fn owner(&self, id: i64) -> Result<Option<i64>, String> {
        let mut listed = None;
        for (id, node) in self.upwards(id)? {
            if node.kind == Kind::Warehouse {
                return Ok(Some(id));
            }
            if node.kind == Kind::Storage && self.locations.contains_key(&node.label) {
                listed = Some(id);
            }
        }
        Ok(listed)
    }

    /// The warehouse or location that owns stock, by the id of its row; what it is in events.
    pub fn owned(&self, id: i64) -> Option<(Text, LocationSettings)> {
        let node = self.nodes.get(&id)?;
        let listed = self.locations.get(&node.label);
        let owns = node.kind == Kind::Warehouse
            || (node.kind == Kind::Storage && self.owner(id) == Ok(Some(id)));
        owns.then(|| (self.location_id(id), listed.cloned().unwrap_or_default()))
    }

    /// The row whose stock is that of the location `location`.
    pub fn row_of(&self, location: &str) -> Option<i64> {
        let mut found = self.nodes.keys().copied();
        found.find(|id| self.owned(*id).is_some_and(|(l, _)| l == location))
    }

    /// Storage locations below a row, and itself, whose goods are sellable.
    pub fn sellable_below(&self, owner: i64) -> Vec<i64> {
        self.places_below(owner, StockState::Sellable)
    }

    /// Storage locations below a row, and itself, whose goods are in this state.
    pub fn places_below(&self, owner: i64, state: StockState) -> Vec<i64> {
        let storage = self.nodes.iter().filter(|(_, n)| n.kind == Kind::Storage);
        let mut found: Vec<i64> = storage
            .map(|(id, _)| *id)
            .filter(|id| self.owner(*id) == Ok(Some(owner)) && self.state(*id) == Ok(state))
            .collect();
        found.sort_unstable();
        found
    }

    fn location_id(&self, owner: i64) -> Text {
        let label = self.nodes.get(&owner).map_or("", |n| n.label.as_str());
        let listed = self.locations.get(label);
        listed.and_then(|l| l.id.as_deref()).unwrap_or(label).into()
    }

    fn state(&self, id: i64) -> Result<StockState, String> {
        for (_, node) in self.upwards(id)? {
            let is = |labels: &[String]| labels.contains(&node.label);
            if is(&self.damaged) {
                return Ok(StockState::Damaged);
            }
            if is(&self.held) {
                return Ok(StockState::QualityHold);
            }
        }
        Ok(StockState::Sellable)
    }

    /// A location and all above it.
    fn upwards(&self, id: i64) -> Result<Vec<(i64, &Node)>, String> {
        let mut found = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next {
            let Some(node) = self.nodes.get(&id) else {
                return Err(format!("there is no location {id}"));
            };
            if found.len() > DEPTH_MAX {
                return Err(format!("locations above {id} are nested too deeply"));
            }
            found.push((id, node));
            next = node.parent;
        }
        Ok(found)
    }

    fn check(&self) -> Result<(), Fault> {
        let mut seen: HashMap<Text, i64> = HashMap::new();
        for id in self.nodes.keys() {
            let Some((location, _)) = self.owned(*id) else {
                continue;
            };
            if let Some(other) = seen.insert(location.clone(), *id) {
                return Err(configuration(format!(
                    "stock.location {other} and {id} of {} are both called {location}; give them different codes there, or different ids in `locations`",
                    self.system
                )));
            }
        }
        Ok(())
    }

    /// For people: what was found; `Err` when a name in the settings means nothing.
    pub fn describe(&self) -> Result<String, Fault> {
        let known = |label: &String| self.nodes.values().any(|n| n.label == *label);
        let named = self.locations.keys();
        let named = named.chain(&self.damaged).chain(&self.held);
        let unknown: Vec<&str> = named.filter(|l| !known(l)).map(String::as_str).collect();
        if !unknown.is_empty() {
            return Err(configuration(format!(
                "{} has no location with code or name {}; mend `locations`, `damaged` or `held`",
                self.system,
                unknown.join(", ")
            )));
        }
        let mut owned: Vec<Text> = self
            .nodes
            .keys()
            .filter_map(|id| self.owned(*id))
            .map(|(location, _)| location)
            .collect();
        owned.sort_unstable();
        Ok(owned.join(", "))
    }
}
