//! Sales, shipments and returns as facts of the orders that they belong to; `invoices` goes on.
//!
//! A document is told as a whole whenever it changes, under the order's id. Which order that is, its
//! lines say: a sale that a channel's order became has the order's id as web id, and a line of it the
//! channel's name of the line as its note. A return is a sale whose origin is that sale; a credit note's
//! lines come from those of the invoice. What belongs to no order of a channel is not told.

use super::client::{Client, Row, Search};
use super::sales::{CANCELLED, SALE};
use super::{give_back, rows, tree};
use crate::connectors::erp::{
    self, Document, LISTED_ROWS, Place, Return, ReturnPart, Shipment, ShipmentPart, Told, Tree,
    bad, unknown_state,
};
use crate::contract::event::{
    NodeType, OrderEventType, ReturnMethod, ReturnStatus, ShipmentStatus, Text,
};
use crate::domain::Decimal;
use crate::pipeline::{Code, Fault, SourceRecord};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};

pub(super) const SHIPMENT: &str = "stock.shipment.out";
pub(super) const RETURN: &str = "stock.shipment.out.return";
const MOVE: &str = "stock.move";
pub(super) const SALE_LINE: &str = "sale.line";

pub(super) const SALE_FIELDS: &[&str] = &[
    "number",
    "state",
    "web_id",
    "origin",
    "description",
    "company",
    "last_modified_at",
];
pub(super) const SHIPMENT_FIELDS: &[&str] = &[
    "number",
    "reference",
    "state",
    "warehouse",
    "company",
    "last_modified_at",
];
pub(super) const RETURN_FIELDS: &[&str] = &[
    "number",
    "state",
    "warehouse",
    "company",
    "last_modified_at",
];
const MOVE_FIELDS: &[&str] = &[
    "shipment",
    "origin",
    "state",
    "product.code",
    "internal_quantity",
    "to_location",
];

/// Where a document's line belongs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OfOrder {
    pub order: Text,
    /// The channel's name of the line.
    pub line: Text,
    /// The sale that takes goods back, when it is one: its id.
    pub back: Option<i64>,
    /// The return that it was made for elsewhere.
    pub told_by: Option<Text>,
}

impl OfOrder {
    /// What a move of `shipment` is of.
    pub fn of_goods(&self, instance: &str, shipment: Option<&str>) -> erp::OfOrder {
        let by = || {
            self.back?;
            self.told_by.clone().or_else(|| {
                let (model, id) = shipment.and_then(rows::reference)?;
                (model == RETURN).then(|| return_name(&self.order, instance, id))
            })
        };
        erp::OfOrder {
            order: self.order.clone(),
            line: self.line.clone(),
            returned_by: by(),
        }
    }
}

/// What a document of a page needs besides its row.
pub(super) struct Page<'a> {
    pub client: &'a Client,
    pub instance: &'a str,
    pub company: i64,
}

impl Page<'_> {
    pub fn own<'r>(&self, found: &'r [Row]) -> impl Iterator<Item = &'r Row> {
        let company = self.company;
        found
            .iter()
            .filter(move |row| rows::integer(row, "company") == Some(company))
    }

    /// Sales: whether the ERP has accepted the order.
    pub fn sales<'r>(&self, found: &'r [Row], next: &mut impl FnMut() -> i64) -> Told<'r> {
        let mut told = Vec::new();
        for row in self.own(found) {
            let version = next();
            // A sale that takes goods back is no order.
            let order = rows::text(row, "web_id").filter(|_| rows::text(row, "origin").is_none());
            let kind = match rows::text(row, "state") {
                Some("confirmed" | "processing" | "done") => OrderEventType::Accepted,
                Some("cancelled") if rows::text(row, "description") != Some(CANCELLED) => {
                    OrderEventType::Rejected
                }
                _ => continue,
            };
            let Some(order) = order else { continue };
            let id = rows::id(row);
            let number = rows::text(row, "number");
            let record_id = format!("{SALE},{id}");
            let document = self.document(row, &record_id, version);
            told.push((row, Ok(vec![document.decision(order, kind, number)])));
        }
        told
    }

    /// Shipments to customers, once for each order that is in them.
    pub async fn shipments<'r>(
        &self,
        found: &'r [Row],
        next: &mut impl FnMut() -> i64,
    ) -> Result<Told<'r>, Fault> {
        let own: Vec<&Row> = self.own(found).collect();
        let moves = self.moves(SHIPMENT, &own).await?;
        let orders = self.orders_of(moves.values().flatten()).await?;
        let (tree, _) = tree::load(self.client).await?;
        let mut told = Vec::new();
        for row in own {
            let version = next();
            let none = Vec::new();
            let moves = moves.get(&rows::id(row)).unwrap_or(&none);
            told.push((row, self.shipment(row, moves, &orders, &tree, version)));
        }
        Ok(told)
    }

    fn shipment(
        &self,
        row: &Row,
        moves: &[Row],
        orders: &HashMap<i64, OfOrder>,
        tree: &Tree,
        version: i64,
    ) -> Result<Vec<SourceRecord>, Fault> {
        let id = rows::id(row);
        let status = match rows::text(row, "state").unwrap_or_default() {
            "draft" | "waiting" => ShipmentStatus::Released,
            "assigned" => ShipmentStatus::Acknowledged,
            "picked" => ShipmentStatus::Picked,
            "packed" => ShipmentStatus::Packed,
            // Done is that the goods have left; whether they arrived the carrier knows.
            "shipped" | "done" => ShipmentStatus::Shipped,
            "cancelled" => ShipmentStatus::Cancelled,
            other => {
                return Err(unknown_state(&format!("{SHIPMENT} {id}"), other));
            }
        };
        let mut parts = Vec::new();
        for moved in moves {
            let Some(of) = origin(moved, SALE_LINE).and_then(|id| orders.get(&id)) else {
                continue;
            };
            let (sku, quantity) = goods(moved)?;
            let given_up = rows::text(moved, "state") == Some("cancelled");
            if given_up && status != ShipmentStatus::Cancelled {
                continue;
            }
            let of = of.of_goods(self.instance, None);
            parts.push(ShipmentPart { of, sku, quantity });
        }
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let (node, node_type) = self.node(row, tree)?;
        if self.client.settings.ships_elsewhere(&node) {
            return Ok(Vec::new());
        }
        let record_id = format!("{SHIPMENT},{id}");
        let shipment = Shipment {
            number: rows::text(row, "number").unwrap_or(&record_id),
            status,
            node,
            node_type,
            tracking: rows::text(row, "reference"),
            parts,
        };
        Ok(self.document(row, &record_id, version).shipment(&shipment))
    }

    pub fn document<'d>(&'d self, row: &Row, record_id: &'d str, version: i64) -> Document<'d> {
        Document {
            instance: self.instance,
            record_id,
            at: rows::modified_at(row).unwrap_or_default(),
            version,
        }
    }

    pub fn own_id(&self, record_id: &str) -> Text {
        compact_str::format_compact!("{}/{record_id}", self.instance)
    }

    fn node(&self, row: &Row, tree: &Tree) -> Result<(Text, NodeType), Fault> {
        let warehouse = rows::integer(row, "warehouse");
        let owned = warehouse.and_then(|id| tree.owned(id));
        let (node, settings) = owned.ok_or_else(|| {
            let message = format!(
                "the warehouse of shipment {} is none that stock is kept in; mend `locations`",
                rows::id(row)
            );
            bad(Code::UnknownReference, message)
        })?;
        Ok((node, settings.kind.node()))
    }

    /// Goods that come back, as the warehouse receives them and puts them on the shelf.
    pub async fn returns<'r>(
        &self,
        found: &'r [Row],
        next: &mut impl FnMut() -> i64,
    ) -> Result<Told<'r>, Fault> {
        let own: Vec<&Row> = self.own(found).collect();
        let moves = self.moves(RETURN, &own).await?;
        let orders = self.orders_of(moves.values().flatten()).await?;
        let (tree, _) = tree::load(self.client).await?;
        let mut told = Vec::new();
        for row in own {
            let version = next();
            let none = Vec::new();
            let moves = moves.get(&rows::id(row)).unwrap_or(&none);
            told.push((row, self.returned(row, moves, &orders, &tree, version)));
        }
        Ok(told)
    }

    fn returned(
        &self,
        row: &Row,
        moves: &[Row],
        orders: &HashMap<i64, OfOrder>,
        tree: &Tree,
        version: i64,
    ) -> Result<Vec<SourceRecord>, Fault> {
        let id = rows::id(row);
        let status = match rows::text(row, "state").unwrap_or_default() {
            "draft" => ReturnStatus::Approved,
            "received" => ReturnStatus::Received,
            "done" => ReturnStatus::Inspected,
            "cancelled" => ReturnStatus::Cancelled,
            other => {
                return Err(unknown_state(&format!("{RETURN} {id}"), other));
            }
        };
        // Where what came in went from there.
        let mut put: HashMap<i64, Place> = HashMap::new();
        for moved in moves {
            let to = rows::integer(moved, "to_location");
            if let (Some(incoming), Some(to)) = (origin(moved, MOVE), to)
                && let Ok(place) = tree.place(to)
            {
                put.insert(incoming, place);
            }
        }
        let mut parts = Vec::new();
        for moved in moves {
            let Some(of) = origin(moved, SALE_LINE).and_then(|id| orders.get(&id)) else {
                continue;
            };
            // What was opened elsewhere is told there.
            if of.told_by.is_some() {
                continue;
            }
            let (sku, quantity) = goods(moved)?;
            parts.push(ReturnPart {
                of: of.of_goods(self.instance, None),
                name: compact_str::format_compact!("{}", rows::id(moved)),
                sku,
                quantity,
                is_here: rows::text(moved, "state") == Some("done"),
                disposition: erp::disposition(put.get(&rows::id(moved))),
            });
        }
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let (node, _) = self.node(row, tree)?;
        let record_id = format!("{RETURN},{id}");
        let returned = Return {
            status,
            method: ReturnMethod::Unknown,
            location: node,
            parts,
        };
        Ok(self.document(row, &record_id, version).returned(&returned))
    }

    /// Moves of shipments, by the id of the shipment.
    async fn moves(&self, model: &str, found: &[&Row]) -> Result<HashMap<i64, Vec<Row>>, Fault> {
        let names: Vec<String> = found
            .iter()
            .map(|row| format!("{model},{}", rows::id(row)))
            .collect();
        let mut moves: HashMap<i64, Vec<Row>> = HashMap::new();
        for row in self
            .all(MOVE, "shipment", json!(names), MOVE_FIELDS)
            .await?
        {
            let shipment = rows::text(&row, "shipment").and_then(rows::reference);
            if let Some((_, id)) = shipment {
                moves.entry(id).or_default().push(row);
            }
        }
        Ok(moves)
    }

    /// All rows whose `field` is among `values`.
    pub async fn all(
        &self,
        model: &str,
        field: &str,
        values: Value,
        fields: &[&str],
    ) -> Result<Vec<Row>, Fault> {
        let mut found: Vec<Row> = Vec::new();
        if values.as_array().is_none_or(Vec::is_empty) {
            return Ok(found);
        }
        loop {
            let after = found.last().map(rows::id).unwrap_or_default();
            let page = self.client.search(Search {
                model,
                domain: json!([[field, "in", values], ["id", ">", after]]),
                order: json!([["id", "ASC"]]),
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
    }

    async fn orders_of<'r>(
        &self,
        moves: impl Iterator<Item = &'r Row>,
    ) -> Result<HashMap<i64, OfOrder>, Fault> {
        let lines: BTreeSet<i64> = moves.filter_map(|m| origin(m, SALE_LINE)).collect();
        orders_of(self.client, &lines).await
    }
}

pub(super) fn return_name(order: &str, instance: &str, shipment: i64) -> Text {
    erp::return_name(order, instance, &format!("{RETURN},{shipment}"))
}

pub(super) fn origin(row: &Row, model: &str) -> Option<i64> {
    let (of, id) = rows::text(row, "origin").and_then(rows::reference)?;
    (of == model).then_some(id)
}

/// SKU and quantity of a move.
fn goods(moved: &Row) -> Result<(Text, Decimal), Fault> {
    let id = rows::id(moved);
    let sku = rows::related(moved, "product").and_then(|p| rows::text(p, "code"));
    let sku = sku.ok_or_else(|| {
        let message = format!("the product of stock.move {id} has no code; give it one");
        bad(Code::UnknownReference, message)
    })?;
    let quantity = moved.get("internal_quantity").and_then(rows::quantity);
    let quantity = quantity.ok_or_else(|| {
        let message = format!("internal_quantity of stock.move {id} is no quantity");
        bad(Code::DataQuality, message)
    })?;
    Ok((sku.into(), quantity))
}

/// The orders that lines of sales belong to, by the line's id; none for those of no channel's order.
///
/// # Errors
/// As the calls.
pub(super) async fn orders_of(
    client: &Client,
    lines: &BTreeSet<i64>,
) -> Result<HashMap<i64, OfOrder>, Fault> {
    let page = Page {
        client,
        instance: "",
        company: 0,
    };
    let fields = ["note", "sale.web_id", "sale.origin"];
    let found = page.all(SALE_LINE, "id", json!(lines), &fields).await?;
    let sale_of = |row: &Row| rows::related(row, "sale").cloned();
    // A sale that takes goods back names the sale that they were sold by.
    let back = |sale: &Row| {
        let (model, id) = rows::text(sale, "origin").and_then(rows::reference)?;
        (model == SALE).then_some(id)
    };
    let sold: BTreeSet<i64> = found
        .iter()
        .filter_map(sale_of)
        .filter_map(|s| back(&s))
        .collect();
    let sold = page.all(SALE, "id", json!(sold), &["web_id"]).await?;
    let sold: HashMap<i64, Text> = sold
        .iter()
        .filter_map(|row| Some((rows::id(row), rows::text(row, "web_id")?.into())))
        .collect();
    let mut orders = HashMap::new();
    for row in &found {
        let Some(sale) = sale_of(row) else { continue };
        let web_id = rows::text(&sale, "web_id").map(Text::from);
        let of = match back(&sale) {
            Some(origin) => sold.get(&origin).map(|order| OfOrder {
                order: order.clone(),
                line: Text::default(),
                back: Some(rows::id(&sale)),
                told_by: web_id.map(|id| give_back::return_of(&id).into()),
            }),
            None => web_id.map(|order| OfOrder {
                order,
                line: Text::default(),
                back: None,
                told_by: None,
            }),
        };
        if let Some(of) = of {
            let line = rows::text(row, "note").unwrap_or_default().into();
            orders.insert(rows::id(row), OfOrder { line, ..of });
        }
    }
    Ok(orders)
}
