//! Odoo's locations as the tree that they are: a warehouse is the view location that it names.

use super::client::{Client, Search};
use super::rows;
use crate::connectors::erp::{Kind, LISTED_ROWS, Node, Row, Tree};
use crate::contract::event::StockState;
use crate::domain::Timestamp;
use crate::pipeline::Fault;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};

pub(super) const LOCATION: &str = "stock.location";
pub(super) const WAREHOUSE: &str = "stock.warehouse";
pub(super) const LOCATION_FIELDS: &[&str] = &[
    "name",
    "complete_name",
    "usage",
    "location_id",
    "write_date",
];
const WAREHOUSE_FIELDS: &[&str] = &[
    "name",
    "code",
    "view_location_id",
    "lot_stock_id",
    "in_type_id",
    "partner_id",
    "write_date",
];

/// A warehouse.
#[derive(Clone, Debug)]
pub(super) struct Warehouse {
    pub id: i64,
    pub name: String,
    pub partner: Option<i64>,
    /// Where it stores.
    pub stock: i64,
    /// The type of its receipts.
    pub receipts: i64,
}

/// All locations, and the warehouses by their view location.
pub(super) struct Places {
    pub tree: Tree,
    pub warehouses: BTreeMap<i64, Warehouse>,
    /// Where goods are that customers have; the first one.
    pub customers: Option<i64>,
    /// Highest stamps of both tables, and how many rows they have.
    state: State,
}

type State = [(Option<Timestamp>, i64); 2];

impl Places {
    /// Reads all locations.
    ///
    /// # Errors
    /// As the calls; a halt when two warehouses cannot be told apart.
    pub async fn load(client: &Client) -> Result<Places, Fault> {
        // Before the rows, so that what changes meanwhile shows.
        let state = state(client).await?;
        let rows_of = async |model, fields| -> Result<Vec<Row>, Fault> {
            let mut found: Vec<Row> = Vec::new();
            loop {
                let after = found.last().map_or(0, rows::id);
                let page = client.search(Search {
                    model,
                    domain: json!([["id", ">", after]]),
                    order: "id",
                    limit: LISTED_ROWS,
                    fields,
                });
                let page = page.await?;
                let full = page.len() >= LISTED_ROWS;
                found.extend(page);
                if !full {
                    return Ok(found);
                }
            }
        };
        let mut warehouses = BTreeMap::new();
        let mut codes: HashMap<i64, String> = HashMap::new();
        for row in rows_of(WAREHOUSE, WAREHOUSE_FIELDS).await? {
            let Some(view) = rows::link(&row, "view_location_id") else {
                continue;
            };
            let text = |field| rows::text(&row, field).unwrap_or_default().to_owned();
            codes.insert(view, text("code"));
            let warehouse = Warehouse {
                id: rows::id(&row),
                name: text("name"),
                partner: rows::link(&row, "partner_id"),
                stock: rows::link(&row, "lot_stock_id").unwrap_or_default(),
                receipts: rows::link(&row, "in_type_id").unwrap_or_default(),
            };
            warehouses.insert(view, warehouse);
        }
        let nodes = rows_of(LOCATION, LOCATION_FIELDS).await?;
        let is_customers = |row: &&Row| rows::text(row, "usage") == Some("customer");
        let customers = nodes.iter().find(is_customers).map(rows::id);
        let nodes = nodes.iter().map(|row| {
            let id = rows::id(row);
            (id, node(row, codes.remove(&id)))
        });
        let nodes = nodes.collect();
        let s = &client.settings;
        Ok(Places {
            tree: Tree::new("Odoo", nodes, &s.locations, &s.damaged, &s.held)?,
            warehouses,
            customers,
            state,
        })
    }

    /// The warehouse that is this location in events.
    pub fn warehouse_of(&self, location: &str) -> Option<&Warehouse> {
        self.warehouses.get(&self.tree.row_of(location)?)
    }

    /// The warehouse with this id, and its view location.
    pub fn warehouse(&self, id: i64) -> Option<(i64, &Warehouse)> {
        let mut all = self.warehouses.iter();
        all.find(|(_, w)| w.id == id).map(|(view, w)| (*view, w))
    }

    /// Whether no location was written since, as far as whole seconds tell.
    pub async fn is_current(&self, client: &Client) -> Result<bool, Fault> {
        Ok(state(client).await? == self.state)
    }
}

async fn state(client: &Client) -> Result<State, Fault> {
    let mut state = State::default();
    for (at, model) in [LOCATION, WAREHOUSE].into_iter().enumerate() {
        let newest = client.search(Search {
            model,
            domain: json!([]),
            order: "write_date desc, id desc",
            limit: 1,
            fields: &["write_date"],
        });
        let newest = newest.await?.first().and_then(rows::written_at);
        state[at] = (newest, client.count(model, json!([])).await?);
    }
    Ok(state)
}

fn node(row: &Row, warehouse: Option<String>) -> Node {
    let type_name = rows::text(row, "usage").unwrap_or_default();
    let kind = match type_name {
        _ if warehouse.is_some() => Kind::Warehouse,
        "internal" => Kind::Storage,
        "transit" => Kind::Transit,
        // Components leave to production and come back as goods, as from a supplier.
        "supplier" | "production" => Kind::Outside(StockState::Supplier),
        "customer" => Kind::Outside(StockState::Customer),
        // Where counts and what is scrapped go.
        "inventory" => Kind::Outside(StockState::Loss),
        _ => Kind::Nowhere,
    };
    let name = rows::text(row, "complete_name").unwrap_or_default();
    Node {
        label: warehouse.unwrap_or_else(|| name.to_owned()),
        kind,
        type_name: type_name.to_owned(),
        parent: rows::link(row, "location_id"),
    }
}
