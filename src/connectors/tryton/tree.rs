//! What a location of Tryton is: a place where stock lies, or the other side of a movement.

use super::client::{Client, Row, Search};
use super::settings::{LocationSettings, Settings};
use super::{configuration, rows};
use crate::contract::event::{StockState, Text};
use crate::domain::Timestamp;
use crate::pipeline::Fault;
use serde_json::json;
use std::collections::HashMap;

/// Rows read in one call.
const PAGE_ROWS: usize = 1_000;
/// Deeper trees are taken as a mistake.
const DEPTH_MAX: usize = 50;

pub(super) const MODEL: &str = "stock.location";
pub(super) const FIELDS: &[&str] = &[
    "name",
    "code",
    "type",
    "parent",
    "active",
    "last_modified_at",
    "address.country.code",
];

/// Where goods are, before or after a move.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
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
        /// Tryton's type of the location.
        kind: Text,
    },
}

/// All locations.
pub(super) struct Tree {
    nodes: HashMap<i64, Node>,
    newest: Option<Timestamp>,
    settings: Settings,
}

struct Node {
    name: String,
    code: Option<String>,
    kind: String,
    parent: Option<i64>,
}

impl Node {
    /// What settings call it.
    fn label(&self) -> &str {
        self.code.as_deref().unwrap_or(&self.name)
    }
}

impl Tree {
    /// Reads all locations.
    ///
    /// # Errors
    /// As the calls; a halt when two warehouses cannot be told apart.
    pub async fn load(client: &Client) -> Result<Tree, Fault> {
        let mut tree = Tree {
            nodes: HashMap::new(),
            newest: None,
            settings: client.settings.clone(),
        };
        let mut after = 0;
        loop {
            let page = client.search(Search {
                model: MODEL,
                domain: json!([["id", ">", after]]),
                order: json!([["id", "ASC"]]),
                limit: PAGE_ROWS,
                fields: FIELDS,
            });
            let page = page.await?;
            for row in &page {
                after = rows::id(row);
                tree.newest = tree.newest.max(rows::modified_at(row));
                tree.nodes.insert(after, node(row));
            }
            if page.len() < PAGE_ROWS {
                break;
            }
        }
        tree.check()?;
        Ok(tree)
    }

    /// Whether no location was written since.
    pub async fn is_current(&self, client: &Client) -> Result<bool, Fault> {
        let newest = client.search(Search {
            model: MODEL,
            domain: json!([]),
            order: json!([["last_modified_at", "DESC"], ["id", "DESC"]]),
            limit: 1,
            fields: &["last_modified_at"],
        });
        let newest = newest.await?.first().and_then(rows::modified_at);
        let count = client.count(MODEL, json!([])).await?;
        Ok(newest == self.newest && count == self.nodes.len() as i64)
    }

    /// What a location is. `Err` says why that cannot be known.
    pub fn place(&self, id: i64) -> Result<Place, String> {
        let node = self
            .nodes
            .get(&id)
            .ok_or_else(|| format!("there is no location {id}"))?;
        let outside = |state| {
            Ok(Place::Outside {
                state,
                kind: node.kind.as_str().into(),
            })
        };
        match &*node.kind {
            "storage" => match self.owner(id)? {
                Some(owner) => Ok(Place::Stock {
                    location: self.location_id(owner),
                    state: self.state(id)?,
                }),
                None => Ok(Place::Transit),
            },
            // Components leave to production and come back as goods, as from a supplier.
            "supplier" | "production" | "drop" => outside(StockState::Supplier),
            "customer" | "rental" => outside(StockState::Customer),
            "lost_found" => outside(StockState::Loss),
            other => Err(format!(
                "location {id} ({}) is of type {other}, where no stock can be",
                node.label()
            )),
        }
    }

    /// The warehouse, or the listed storage location, that a storage location belongs to.
    fn owner(&self, id: i64) -> Result<Option<i64>, String> {
        let mut listed = None;
        for (id, node) in self.upwards(id)? {
            if node.kind == "warehouse" {
                return Ok(Some(id));
            }
            if node.kind == "storage" && self.settings.locations.contains_key(node.label()) {
                listed = Some(id);
            }
        }
        Ok(listed)
    }

    /// The warehouse or location that owns stock, by the id of its row; what it is in events.
    pub fn owned(&self, id: i64) -> Option<(Text, LocationSettings)> {
        let node = self.nodes.get(&id)?;
        let listed = self.settings.locations.get(node.label());
        let owns =
            node.kind == "warehouse" || (node.kind == "storage" && self.owner(id) == Ok(Some(id)));
        owns.then(|| (self.location_id(id), listed.cloned().unwrap_or_default()))
    }

    /// The row whose stock is that of the location `location`.
    pub fn row_of(&self, location: &str) -> Option<i64> {
        let mut found = self.nodes.keys().copied();
        found.find(|id| self.owned(*id).is_some_and(|(l, _)| l == location))
    }

    /// Storage locations below a row, and itself, whose goods are sellable.
    pub fn sellable_below(&self, owner: i64) -> Vec<i64> {
        let mut found: Vec<i64> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.kind == "storage")
            .map(|(id, _)| *id)
            .filter(|id| {
                self.owner(*id) == Ok(Some(owner)) && self.state(*id) == Ok(StockState::Sellable)
            })
            .collect();
        found.sort_unstable();
        found
    }

    fn location_id(&self, owner: i64) -> Text {
        let label = self.nodes.get(&owner).map_or("", Node::label);
        let listed = self.settings.locations.get(label);
        listed.and_then(|l| l.id.as_deref()).unwrap_or(label).into()
    }

    fn state(&self, id: i64) -> Result<StockState, String> {
        for (_, node) in self.upwards(id)? {
            let is = |labels: &[String]| labels.iter().any(|l| l == node.label());
            if is(&self.settings.damaged) {
                return Ok(StockState::Damaged);
            }
            if is(&self.settings.held) {
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
                    "stock.location {other} and {id} of Tryton are both called {location}; give them different codes there, or different ids in `locations`"
                )));
            }
        }
        Ok(())
    }

    /// For people: what was found; `Err` when a name in the settings means nothing.
    pub fn describe(&self) -> Result<String, Fault> {
        let known = |label: &String| self.nodes.values().any(|n| n.label() == label);
        let named = self.settings.locations.keys();
        let named = named
            .chain(&self.settings.damaged)
            .chain(&self.settings.held);
        let unknown: Vec<&str> = named.filter(|l| !known(l)).map(String::as_str).collect();
        if !unknown.is_empty() {
            return Err(configuration(format!(
                "Tryton has no location with code or name {}; mend `locations`, `damaged` or `held`",
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

fn node(row: &Row) -> Node {
    let text = |field| rows::text(row, field).map(str::to_owned);
    Node {
        name: text("name").unwrap_or_default(),
        code: text("code"),
        kind: text("type").unwrap_or_default(),
        parent: rows::integer(row, "parent"),
    }
}
