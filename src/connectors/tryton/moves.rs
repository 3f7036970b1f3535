//! Rows of Tryton's stock moves as moves of goods.

use super::client::Row;
use super::map::unit_code;
use super::rows;
use crate::connectors::erp::{Move, Place, bad};
use crate::pipeline::{Code, Fault};

/// Fields of a stock move that are read.
pub(super) const MOVE_FIELDS: &[&str] = &[
    "product",
    "product.code",
    "product.default_uom.symbol",
    "from_location",
    "to_location",
    "internal_quantity",
    "state",
    "effective_date",
    "company",
    "origin",
    "shipment",
    "create_date",
    "last_modified_at",
];

/// Fields of an internal shipment that are read.
pub(super) const SHIPMENT_FIELDS: &[&str] = &["number", "from_location", "to_location"];
pub(super) const INTERNAL_SHIPMENT: &str = "stock.shipment.internal";

/// A move of goods as its row tells it.
///
/// # Errors
/// A reject that names field and value.
pub(super) fn read(row: &Row, place: impl Fn(i64) -> Result<Place, String>) -> Result<Move, Fault> {
    let id = rows::id(row);
    let product = rows::related(row, "product");
    let Some(sku) = product.and_then(|p| rows::text(p, "code")) else {
        let product = rows::integer(row, "product").unwrap_or_default();
        return Err(bad(
            Code::UnknownReference,
            format!(
                "product {product} of stock.move {id} has no code; give it one, and the move is read again"
            ),
        ));
    };
    let location = |field: &str| {
        let found = rows::integer(row, field).ok_or_else(|| format!("{field} is missing"));
        found
            .and_then(&place)
            .map_err(|why| bad(Code::UnknownReference, format!("stock.move {id}: {why}")))
    };
    let quantity = row
        .get("internal_quantity")
        .unwrap_or(&serde_json::Value::Null);
    let unit = product.and_then(|p| rows::related(p, "default_uom"));
    let origin = rows::text(row, "origin").map(str::to_owned);
    Ok(Move {
        record_id: format!("stock.move,{id}"),
        sku: sku.into(),
        quantity: rows::quantity(quantity).ok_or_else(|| {
            bad(
                Code::DataQuality,
                format!("internal_quantity of stock.move {id} is {quantity}, not a number of at most four decimal places"),
            )
        })?,
        unit: unit.and_then(|u| rows::text(u, "symbol")).map_or("EA".into(), unit_code),
        from: location("from_location")?,
        to: location("to_location")?,
        at: rows::modified_at(row).ok_or_else(|| {
            bad(Code::DataQuality, format!("last_modified_at of stock.move {id} is no time"))
        })?,
        date: row.get("effective_date").and_then(rows::date),
        shipment: rows::text(row, "shipment").map(str::to_owned),
        counted: origin.as_deref().is_some_and(|o| o.starts_with("stock.inventory")),
        origin,
        destination: None,
        order: None,
        system: "tryton",
    })
}
