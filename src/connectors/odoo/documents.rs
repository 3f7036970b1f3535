//! Sales and deliveries of Odoo as facts of the orders that they belong to.
//!
//! A sale that a channel's order became has the order's id as its source document, and a line of it the
//! channel's name of the line, behind `#`, as the last line of its description. What belongs to no order
//! of a channel is not told.

use super::client::Client;
use super::rows;
use super::tree::Places;
use crate::connectors::erp::{
    Document, OfOrder, Place, Row, Shipment, ShipmentPart, Told, Versions, bad, unknown_state,
};
use crate::contract::event::{OrderEventType, ShipmentStatus, Text};
use crate::pipeline::{Code, Fault, SourceRecord};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub(super) const SALE: &str = "sale.order";
pub(super) const SALE_LINE: &str = "sale.order.line";
pub(super) const PICKING: &str = "stock.picking";
const MOVE: &str = "stock.move";
const MOVE_LINE: &str = "stock.move.line";
/// What stands behind the order's id where its channel cancelled it: the source does not tell the
/// channel what it knows.
pub(super) const CANCELLED: &str = " (cancelled in its channel)";

pub(super) const SALE_FIELDS: &[&str] = &["name", "state", "origin", "company_id", "write_date"];
pub(super) const PICKING_FIELDS: &[&str] = &[
    "name",
    "state",
    "picking_type_code",
    "location_id",
    "carrier_tracking_ref",
    "company_id",
    "write_date",
];
const MOVE_FIELDS: &[&str] = &[
    "picking_id",
    "sale_line_id",
    "state",
    "product_id",
    "product_qty",
    "picked",
];

/// The description of a line: for people, and with the channel's name of it.
pub(super) fn description(product: &str, line: Option<&str>) -> String {
    match line {
        Some(line) => format!("{product}\n#{line}"),
        None => product.to_owned(),
    }
}

/// The channel's name of a line.
pub(super) fn line_name(row: &Row) -> Option<&str> {
    rows::text(row, "name")?.lines().last()?.strip_prefix('#')
}

/// The order that a sale is of.
pub(super) fn order_of(sale: &Row) -> Option<&str> {
    let origin = rows::text(sale, "origin")?;
    let id = origin.strip_suffix(CANCELLED).unwrap_or(origin);
    uuid::Uuid::parse_str(id).is_ok().then_some(id)
}

/// The orders that lines of sales belong to, by the line's id; none for those of no channel's order.
///
/// # Errors
/// As the calls.
pub(super) async fn orders_of(
    client: &Client,
    lines: &BTreeSet<i64>,
) -> Result<HashMap<i64, OfOrder>, Fault> {
    let fields = ["order_id", "name"];
    let lines = client.all(SALE_LINE, "id", json!(lines), &fields).await?;
    let sales: BTreeSet<i64> = lines
        .iter()
        .filter_map(|l| rows::link(l, "order_id"))
        .collect();
    let sales = client.all(SALE, "id", json!(sales), &["origin"]).await?;
    let orders: HashMap<i64, Text> = sales
        .iter()
        .filter_map(|sale| Some((rows::id(sale), order_of(sale)?.into())))
        .collect();
    let of = |row: &Row| {
        let order = orders.get(&rows::link(row, "order_id")?)?;
        let of = OfOrder {
            order: order.clone(),
            line: line_name(row).unwrap_or_default().into(),
            returned_by: None,
        };
        Some((rows::id(row), of))
    };
    Ok(lines.iter().filter_map(of).collect())
}

/// A page of documents.
pub(super) struct Page<'a> {
    pub client: &'a Client,
    pub instance: &'a str,
    pub company: i64,
}

impl Page<'_> {
    fn own<'r>(&self, found: &'r [Row]) -> impl Iterator<Item = &'r Row> {
        let company = self.company;
        let own = move |row: &&Row| rows::link(row, "company_id") == Some(company);
        found.iter().filter(own)
    }

    fn document<'d>(&'d self, row: &Row, record_id: &'d str, version: i64) -> Document<'d> {
        Document {
            instance: self.instance,
            record_id,
            at: rows::written_at(row).unwrap_or_default(),
            version,
        }
    }

    /// Sales: whether the ERP has accepted the order.
    pub fn sales<'r>(&self, found: &'r [Row], versions: &mut Versions) -> Told<'r> {
        let mut told = Vec::new();
        for row in self.own(found) {
            let version = versions.next();
            let origin = rows::text(row, "origin").unwrap_or_default();
            let kind = match rows::text(row, "state") {
                Some("sale") => Some(OrderEventType::Accepted),
                Some("cancel") if !origin.ends_with(CANCELLED) => Some(OrderEventType::Rejected),
                _ => None,
            };
            let record_id = format!("{SALE},{}", rows::id(row));
            let document = self.document(row, &record_id, version);
            let record = order_of(row)
                .zip(kind)
                .map(|(order, kind)| document.decision(order, kind, rows::text(row, "name")));
            // Also that there is nothing to tell is remembered: it may change within the stamp.
            told.push((row, Ok(record.into_iter().collect())));
        }
        told
    }

    /// Deliveries to customers. In a warehouse of several steps that is the last one, which is there once
    /// the goods are picked.
    pub async fn shipments<'r>(
        &self,
        found: &'r [Row],
        versions: &mut Versions,
    ) -> Result<Told<'r>, Fault> {
        let is_delivery = |row: &&Row| rows::text(row, "picking_type_code") == Some("outgoing");
        let own: Vec<&Row> = self.own(found).filter(is_delivery).collect();
        let ids: Vec<i64> = own.iter().map(|row| rows::id(row)).collect();
        let moves = self.client.all(MOVE, "picking_id", json!(ids), MOVE_FIELDS);
        let moves = moves.await?;
        let of_moves: BTreeSet<i64> = moves
            .iter()
            .filter_map(|m| rows::link(m, "sale_line_id"))
            .collect();
        if of_moves.is_empty() {
            return Ok(own.into_iter().map(|row| (row, Ok(Vec::new()))).collect());
        }
        let orders = orders_of(self.client, &of_moves).await?;
        let products: BTreeSet<i64> = moves
            .iter()
            .filter_map(|m| rows::link(m, "product_id"))
            .collect();
        let skus = self
            .client
            .all("product.product", "id", json!(products), &["default_code"])
            .await?;
        let skus: HashMap<i64, &str> = skus
            .iter()
            .filter_map(|p| Some((rows::id(p), rows::text(p, "default_code")?)))
            .collect();
        let packed = self
            .client
            .all(
                MOVE_LINE,
                "picking_id",
                json!(ids),
                &["picking_id", "result_package_id"],
            )
            .await?;
        let places = Places::load(self.client).await?;
        let mut by_picking: BTreeMap<i64, Vec<&Row>> = BTreeMap::new();
        for moved in &moves {
            let picking = rows::link(moved, "picking_id").unwrap_or_default();
            by_picking.entry(picking).or_default().push(moved);
        }
        let mut told = Vec::new();
        for row in own {
            let id = rows::id(row);
            let version = versions.next();
            let moves = by_picking.remove(&id).unwrap_or_default();
            let mut lines = packed
                .iter()
                .filter(|l| rows::link(l, "picking_id") == Some(id));
            let goods = Goods {
                is_packed: lines.all(|l| rows::link(l, "result_package_id").is_some()),
                moves,
                orders: &orders,
                skus: &skus,
            };
            told.push((row, self.shipment(row, &goods, &places, version)));
        }
        Ok(told)
    }

    fn shipment(
        &self,
        row: &Row,
        goods: &Goods<'_>,
        places: &Places,
        version: i64,
    ) -> Result<Vec<SourceRecord>, Fault> {
        let record_id = format!("{PICKING},{}", rows::id(row));
        let open = || {
            let mut moves = goods.moves.iter();
            moves.all(|m| rows::flag(m, "picked"))
        };
        let status = match rows::text(row, "state").unwrap_or_default() {
            "draft" | "waiting" | "confirmed" => ShipmentStatus::Released,
            "assigned" if open() && goods.is_packed => ShipmentStatus::Packed,
            "assigned" if open() => ShipmentStatus::Picked,
            "assigned" => ShipmentStatus::Acknowledged,
            // The goods have left; whether they arrived the carrier knows.
            "done" => ShipmentStatus::Shipped,
            "cancel" => ShipmentStatus::Cancelled,
            other => return Err(unknown_state(&record_id, other)),
        };
        let mut parts = Vec::new();
        for moved in &goods.moves {
            let line = rows::link(moved, "sale_line_id");
            let Some(of) = line.and_then(|id| goods.orders.get(&id)) else {
                continue;
            };
            let given_up = rows::text(moved, "state") == Some("cancel");
            if given_up && status != ShipmentStatus::Cancelled {
                continue;
            }
            let product = rows::link(moved, "product_id").unwrap_or_default();
            let missing = |what: &str| {
                let message = format!(
                    "{what} of {MOVE} {} is missing or no quantity",
                    rows::id(moved)
                );
                bad(Code::DataQuality, message)
            };
            let sku = goods.skus.get(&product);
            parts.push(ShipmentPart {
                of: of.clone(),
                sku: (*sku.ok_or_else(|| missing("internal reference"))?).into(),
                quantity: rows::decimal(moved, "product_qty")
                    .ok_or_else(|| missing("product_qty"))?,
            });
        }
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let place = rows::link(row, "location_id").map(|id| places.tree.place(id));
        let Some(Ok(Place::Stock { location, .. })) = place else {
            let message = format!("{record_id} leaves from no place of ours; mend `locations`");
            return Err(bad(Code::UnknownReference, message));
        };
        let owner = places.tree.row_of(&location);
        let settings = owner.and_then(|id| places.tree.owned(id));
        let settings = settings.map(|(_, settings)| settings).unwrap_or_default();
        if settings.ships_elsewhere {
            return Ok(Vec::new());
        }
        let shipment = Shipment {
            number: rows::text(row, "name").unwrap_or(&record_id),
            status,
            node: location,
            node_type: settings.kind.node(),
            tracking: rows::text(row, "carrier_tracking_ref"),
            parts,
        };
        Ok(self.document(row, &record_id, version).shipment(&shipment))
    }
}

/// What is in a delivery.
struct Goods<'a> {
    is_packed: bool,
    moves: Vec<&'a Row>,
    orders: &'a HashMap<i64, OfOrder>,
    skus: &'a HashMap<i64, &'a str>,
}
