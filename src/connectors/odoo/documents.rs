//! Sales, deliveries and returns of Odoo as facts of the orders that they belong to; `invoices` and `tills` go on.
//!
//! A sale that a channel's order became has the order's id as its source document, and a line of it the
//! channel's name of the line, behind `#`, as the last line of its description. What belongs to no order
//! of a channel is not told.

use super::client::Client;
use super::tree::Places;
use super::{give_back, rows};
use crate::connectors::erp::{
    self, Document, OfOrder, Place, Return, ReturnPart, Row, Shipment, ShipmentPart, Told,
    Versions, bad, unknown_state,
};
use crate::contract::event::{
    OrderEventType, ReturnMethod, ReturnStatus, ShipmentStatus, StockState, Text,
};
use crate::domain::Decimal;
use crate::pipeline::{Code, Fault, SourceRecord};
use serde_json::json;
use std::collections::{BTreeSet, HashMap};

pub(super) const SALE: &str = "sale.order";
pub(super) const SALE_LINE: &str = "sale.order.line";
pub(super) const PICKING: &str = "stock.picking";
pub(super) const MOVE: &str = "stock.move";
const MOVE_LINE: &str = "stock.move.line";
/// What stands behind the order's id where its channel cancelled it: the source does not tell the
/// channel what it knows.
pub(super) const CANCELLED: &str = " (cancelled in its channel)";

pub(super) const SALE_FIELDS: &[&str] = &["name", "state", "origin", "company_id", "write_date"];
pub(super) const PICKING_FIELDS: &[&str] = &[
    "name",
    "state",
    "origin",
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
    "location_dest_id",
];

/// The description of a line: for people, and with the channel's name of it.
pub(super) fn description(product: &str, line: Option<&str>) -> String {
    match line {
        Some(line) => format!("{product}\n#{line}"),
        None => product.to_owned(),
    }
}

/// The description of a line with a remark, before the channel's name of it.
pub(super) fn noted(description: &str, remark: &str) -> String {
    match description.rsplit_once('\n') {
        Some((text, name)) => format!("{text}\n{remark}\n{name}"),
        None => format!("{remark}\n{description}"),
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
    pub fn own<'r>(&self, found: &'r [Row]) -> impl Iterator<Item = &'r Row> {
        let company = self.company;
        let own = move |row: &&Row| rows::link(row, "company_id") == Some(company);
        found.iter().filter(own)
    }

    pub fn document<'d>(&'d self, row: &Row, record_id: &'d str, version: i64) -> Document<'d> {
        Document {
            instance: self.instance,
            record_id,
            at: rows::written_at(row).unwrap_or_default(),
            version,
        }
    }

    pub fn own_id(&self, record_id: &str) -> Text {
        compact_str::format_compact!("{}/{record_id}", self.instance)
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
        let places = Places::load(self.client).await?;
        let is_delivery = |row: &&Row| {
            rows::text(row, "picking_type_code") == Some("outgoing") && !comes_back(row, &places)
        };
        let own: Vec<&Row> = self.own(found).filter(is_delivery).collect();
        let mut goods = self.goods(&own).await?;
        let told = own.into_iter().map(|row| {
            let version = versions.next();
            let goods = goods.remove(&rows::id(row)).unwrap_or_default();
            (row, self.shipment(row, &goods, &places, version))
        });
        Ok(told.collect())
    }

    /// Goods that customers send back, as the warehouse takes them in.
    pub async fn returns<'r>(
        &self,
        found: &'r [Row],
        versions: &mut Versions,
    ) -> Result<Told<'r>, Fault> {
        let places = Places::load(self.client).await?;
        // What was opened elsewhere is told there.
        let is_return = |row: &&Row| {
            let elsewhere = rows::text(row, "origin").and_then(give_back::return_of);
            comes_back(row, &places) && elsewhere.is_none()
        };
        let own: Vec<&Row> = self.own(found).filter(is_return).collect();
        let mut goods = self.goods(&own).await?;
        let told = own.into_iter().map(|row| {
            let version = versions.next();
            let goods = goods.remove(&rows::id(row)).unwrap_or_default();
            (row, self.returned(row, &goods, &places, version))
        });
        Ok(told.collect())
    }

    /// What is in pickings, of orders of channels.
    async fn goods(&self, pickings: &[&Row]) -> Result<HashMap<i64, Goods>, Fault> {
        let ids: Vec<i64> = pickings.iter().map(|row| rows::id(row)).collect();
        let moves = self.client.all(MOVE, "picking_id", json!(ids), MOVE_FIELDS);
        let moves = moves.await?;
        let ids_of = |field: &str| -> BTreeSet<i64> {
            moves.iter().filter_map(|m| rows::link(m, field)).collect()
        };
        let lines = ids_of("sale_line_id");
        if lines.is_empty() {
            return Ok(HashMap::new());
        }
        let orders = orders_of(self.client, &lines).await?;
        let products = json!(ids_of("product_id"));
        let skus = self
            .client
            .all("product.product", "id", products, &["default_code"]);
        let skus = skus.await?;
        let skus: HashMap<i64, &str> = skus
            .iter()
            .filter_map(|p| Some((rows::id(p), rows::text(p, "default_code")?)))
            .collect();
        let fields = ["picking_id", "result_package_id"];
        let packed = self
            .client
            .all(MOVE_LINE, "picking_id", json!(ids), &fields)
            .await?;
        let mut goods: HashMap<i64, Goods> = HashMap::new();
        for line in packed
            .iter()
            .filter(|l| rows::link(l, "result_package_id").is_none())
        {
            let picking = rows::link(line, "picking_id").unwrap_or_default();
            goods.entry(picking).or_default().is_loose = true;
        }
        for row in moves {
            let picking = rows::link(&row, "picking_id").unwrap_or_default();
            let of = rows::link(&row, "sale_line_id").and_then(|line| orders.get(&line));
            let product = rows::link(&row, "product_id").unwrap_or_default();
            goods.entry(picking).or_default().moves.push(Moved {
                of: of.cloned(),
                sku: skus.get(&product).map(|sku| Text::from(*sku)),
                row,
            });
        }
        Ok(goods)
    }

    fn shipment(
        &self,
        row: &Row,
        goods: &Goods,
        places: &Places,
        version: i64,
    ) -> Result<Vec<SourceRecord>, Fault> {
        let record_id = format!("{PICKING},{}", rows::id(row));
        let picked = goods.moves.iter().all(|m| rows::flag(&m.row, "picked"));
        let status = match rows::text(row, "state").unwrap_or_default() {
            "draft" | "waiting" | "confirmed" => ShipmentStatus::Released,
            "assigned" if picked && !goods.is_loose => ShipmentStatus::Packed,
            "assigned" if picked => ShipmentStatus::Picked,
            "assigned" => ShipmentStatus::Acknowledged,
            // The goods have left; whether they arrived the carrier knows.
            "done" => ShipmentStatus::Shipped,
            "cancel" => ShipmentStatus::Cancelled,
            other => return Err(unknown_state(&record_id, other)),
        };
        let mut parts = Vec::new();
        for (moved, of) in goods.of_orders() {
            let given_up = rows::text(&moved.row, "state") == Some("cancel");
            if !given_up || status == ShipmentStatus::Cancelled {
                let (sku, quantity) = moved.what()?;
                let of = of.clone();
                parts.push(ShipmentPart { of, sku, quantity });
            }
        }
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let place = rows::link(row, "location_id").map(|id| places.tree.place(id));
        let Some(Ok(Place::Stock { location, .. })) = place else {
            let message = format!("{record_id} leaves from no place of ours; mend `locations`");
            return Err(bad(Code::UnknownReference, message));
        };
        if self.client.settings.ships_elsewhere(&location) {
            return Ok(Vec::new());
        }
        let owner = places.tree.row_of(&location);
        let settings = owner.and_then(|id| places.tree.owned(id));
        let settings = settings.map(|(_, settings)| settings).unwrap_or_default();
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

    fn returned(
        &self,
        row: &Row,
        goods: &Goods,
        places: &Places,
        version: i64,
    ) -> Result<Vec<SourceRecord>, Fault> {
        let record_id = format!("{PICKING},{}", rows::id(row));
        let came = goods.moves.iter().all(|m| rows::flag(&m.row, "picked"));
        let status = match rows::text(row, "state").unwrap_or_default() {
            // It lies there, and nobody has said that it is right.
            "assigned" if came => ReturnStatus::Received,
            "draft" | "waiting" | "confirmed" | "assigned" => ReturnStatus::Approved,
            "done" => ReturnStatus::Inspected,
            "cancel" => ReturnStatus::Cancelled,
            other => return Err(unknown_state(&record_id, other)),
        };
        let is_here = matches!(status, ReturnStatus::Received | ReturnStatus::Inspected);
        let (mut parts, mut location) = (Vec::new(), None);
        for (moved, of) in goods.of_orders() {
            let (sku, quantity) = moved.what()?;
            let to = rows::link(&moved.row, "location_dest_id");
            let to = to.and_then(|id| places.tree.place(id).ok());
            if let Some(Place::Stock { location: at, .. }) = &to {
                location.get_or_insert_with(|| at.clone());
            }
            parts.push(ReturnPart {
                of: of.clone(),
                name: compact_str::format_compact!("{}", rows::id(&moved.row)),
                sku,
                quantity,
                is_here: is_here && rows::text(&moved.row, "state") != Some("cancel"),
                disposition: erp::disposition(to.as_ref()),
            });
        }
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let returned = Return {
            status,
            method: ReturnMethod::Unknown,
            location: location.ok_or_else(|| {
                let message = format!("{record_id} comes to no place of ours; mend `locations`");
                bad(Code::UnknownReference, message)
            })?,
            parts,
        };
        Ok(self.document(row, &record_id, version).returned(&returned))
    }
}

/// Whether a picking brings back what customers had.
fn comes_back(picking: &Row, places: &Places) -> bool {
    let from = rows::link(picking, "location_id").and_then(|id| places.tree.place(id).ok());
    matches!(from, Some(Place::Outside { state, .. }) if state == StockState::Customer)
}

/// What is in a picking.
#[derive(Default)]
struct Goods {
    /// Whether something of it is in no parcel.
    is_loose: bool,
    moves: Vec<Moved>,
}

impl Goods {
    fn of_orders(&self) -> impl Iterator<Item = (&Moved, &OfOrder)> {
        let moves = self.moves.iter();
        moves.filter_map(|moved| Some((moved, moved.of.as_ref()?)))
    }
}

/// Goods that move.
struct Moved {
    of: Option<OfOrder>,
    sku: Option<Text>,
    row: Row,
}

impl Moved {
    /// SKU and quantity.
    fn what(&self) -> Result<(Text, Decimal), Fault> {
        let missing = |what: &str| {
            let id = rows::id(&self.row);
            let message = format!("{what} of {MOVE} {id} is missing or no quantity");
            bad(Code::DataQuality, message)
        };
        let sku = self
            .sku
            .clone()
            .ok_or_else(|| missing("internal reference"))?;
        let quantity = rows::decimal(&self.row, "product_qty");
        Ok((sku, quantity.ok_or_else(|| missing("product_qty"))?))
    }
}
