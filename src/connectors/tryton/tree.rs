//! Tryton's locations as the tree that they are.

use super::client::{Client, Row, Search};
use super::rows;
use crate::connectors::erp::{Kind, LISTED_ROWS, Node, Tree};
use crate::contract::event::StockState;
use crate::domain::Timestamp;
use crate::pipeline::Fault;
use serde_json::json;
use std::collections::HashMap;

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

/// All locations, and the highest stamp among them.
pub(super) type Loaded = (Tree, Option<Timestamp>);

/// Reads all locations.
///
/// # Errors
/// As the calls; a halt when two warehouses cannot be told apart.
pub(super) async fn load(client: &Client) -> Result<Loaded, Fault> {
    let (mut nodes, mut newest, mut after) = (HashMap::new(), None, 0);
    loop {
        let page = client.search(Search {
            model: MODEL,
            domain: json!([["id", ">", after]]),
            order: json!([["id", "ASC"]]),
            limit: LISTED_ROWS,
            fields: FIELDS,
        });
        let page = page.await?;
        for row in &page {
            after = rows::id(row);
            newest = newest.max(rows::modified_at(row));
            nodes.insert(after, node(row));
        }
        if page.len() < LISTED_ROWS {
            break;
        }
    }
    let s = &client.settings;
    let tree = Tree::new("Tryton", nodes, &s.locations, &s.damaged, &s.held)?;
    Ok((tree, newest))
}

/// Whether no location was written since.
pub(super) async fn is_current(client: &Client, (tree, read): &Loaded) -> Result<bool, Fault> {
    let newest = client.search(Search {
        model: MODEL,
        domain: json!([]),
        order: json!([["last_modified_at", "DESC"], ["id", "DESC"]]),
        limit: 1,
        fields: &["last_modified_at"],
    });
    let newest = newest.await?.first().and_then(rows::modified_at);
    let count = client.count(MODEL, json!([])).await?;
    Ok(newest == *read && count == tree.len() as i64)
}

fn node(row: &Row) -> Node {
    let text = |field| rows::text(row, field).map(str::to_owned);
    let type_name = text("type").unwrap_or_default();
    Node {
        label: text("code").or(text("name")).unwrap_or_default(),
        kind: match &*type_name {
            "warehouse" => Kind::Warehouse,
            "storage" => Kind::Storage,
            // Components leave to production and come back as goods, as from a supplier.
            "supplier" | "production" | "drop" => Kind::Outside(StockState::Supplier),
            "customer" | "rental" => Kind::Outside(StockState::Customer),
            "lost_found" => Kind::Outside(StockState::Loss),
            _ => Kind::Nowhere,
        },
        type_name,
        parent: rows::integer(row, "parent"),
    }
}
