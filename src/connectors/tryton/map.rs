//! From Tryton's products, prices, locations and order points to events.

use super::client::Row;
use super::rows;
use crate::connectors::erp::{self, LocationSettings, bad};
use crate::contract::event::{EventMeta, Text};
use crate::domain::Decimal;
use crate::pipeline::{Code, Fault, SourceRecord};

/// Fields of a product that are read.
pub(super) const PRODUCT_FIELDS: &[&str] = &[
    "code",
    "active",
    "template.name",
    "template.active",
    "template.type",
    "template.consumable",
    "default_uom.symbol",
    "last_modified_at",
];

/// Fields of an order point that are read.
pub(super) const ORDER_POINT_FIELDS: &[&str] = &[
    "product.code",
    "type",
    "warehouse_location",
    "storage_location",
    "min_quantity",
    "last_modified_at",
];

/// A product and its identifiers.
///
/// # Errors
/// A reject when it has no code.
pub(super) fn product(
    instance: &str,
    language: &str,
    row: &Row,
    gtins: Vec<Text>,
    version: i64,
) -> Result<SourceRecord, Fault> {
    let id = rows::id(row);
    let sku = rows::text(row, "code").ok_or_else(|| {
        let message = format!("product {id} has no code, and so no SKU; give it one");
        bad(Code::UnknownReference, message)
    })?;
    let template = rows::related(row, "template");
    let flag = |row: &Row, field: &str| row.get(field).and_then(serde_json::Value::as_bool);
    let active = flag(row, "active").unwrap_or(true)
        && template.and_then(|t| flag(t, "active")).unwrap_or(true);
    let unit = rows::related(row, "default_uom").and_then(|u| rows::text(u, "symbol"));
    let name = template.and_then(|t| rows::text(t, "name"));
    let record_id = format!("product.product,{id}");
    Ok(erp::product(erp::Product {
        meta: object_meta(instance, "ProductChanged", &record_id, "", row, version),
        sku,
        gtins,
        title: name.map(|n| (language.into(), n.into())),
        active,
        unit: unit.map_or("EA".into(), unit_code),
        stock_tracked: template.is_none_or(|t| {
            rows::text(t, "type") != Some("service") && flag(t, "consumable") != Some(true)
        }),
    }))
}

/// Fields of a product that tell its price.
pub(super) const PRICE_FIELDS: &[&str] = &["code", "list_price_used", "last_modified_at"];

/// The list price of a product, which is without tax; `None` where it has none.
///
/// # Errors
/// A reject when it has no code.
pub(super) fn price(
    instance: &str,
    currency: &str,
    row: &Row,
    version: i64,
) -> Result<Option<SourceRecord>, Fault> {
    let id = rows::id(row);
    let Some(amount) = row.get("list_price_used").and_then(rows::amount) else {
        return Ok(None);
    };
    let sku = rows::text(row, "code").ok_or_else(|| {
        let message = format!("product {id} has a price and no code; give it one");
        bad(Code::UnknownReference, message)
    })?;
    let record_id = format!("product.product,{id}");
    let price = erp::Price {
        meta: object_meta(instance, "PriceChanged", &record_id, "", row, version),
        sku,
        amount,
        currency,
        tax_inclusive: false,
    };
    Ok(Some(erp::price(instance, price)))
}

pub(super) fn location(
    instance: &str,
    row: &Row,
    owned: (Text, LocationSettings),
    version: i64,
) -> SourceRecord {
    let record_id = format!("stock.location,{}", rows::id(row));
    let address = rows::related(row, "address");
    let country = address.and_then(|a| rows::related(a, "country"));
    let country = country.and_then(|c| rows::text(c, "code")).map(Text::from);
    let meta = object_meta(instance, "Location", &record_id, "", row, version);
    erp::location(meta, owned, rows::text(row, "name"), country)
}

/// The minimum of an order point as stock that is never promised.
///
/// # Errors
/// A reject that names what is missing.
pub(super) fn policy(
    instance: &str,
    row: &Row,
    location: &str,
    version: i64,
) -> Result<SourceRecord, Fault> {
    let id = rows::id(row);
    let missing = |what: &str| {
        let message = format!("{what} of stock.order_point {id} is missing or no quantity");
        bad(Code::DataQuality, message)
    };
    let product = rows::related(row, "product");
    let sku = product
        .and_then(|p| rows::text(p, "code"))
        .ok_or_else(|| missing("product.code"))?;
    let minimum = match row.get("min_quantity").filter(|q| !q.is_null()) {
        None => Decimal::ZERO,
        Some(quantity) => rows::quantity(quantity).ok_or_else(|| missing("min_quantity"))?,
    };
    let record_id = format!("stock.order_point,{id}");
    let meta = object_meta(instance, "StockPolicy", &record_id, "", row, version);
    Ok(erp::policy(meta, sku, location, minimum))
}

/// UN/ECE Recommendation 20 codes of common units; another unit keeps its symbol.
pub(super) fn unit_code(symbol: &str) -> Text {
    match symbol {
        "u" => "EA",
        "kg" => "KGM",
        "g" => "GRM",
        "l" | "L" => "LTR",
        "m" => "MTR",
        "cm" => "CMT",
        "m²" => "MTK",
        "m³" => "MTQ",
        "h" => "HUR",
        "d" => "DAY",
        other => other,
    }
    .into()
}

/// The meta of an object's state, as [`erp::object_meta`] has it.
pub(super) fn object_meta(
    instance: &str,
    kind: &str,
    record_id: &str,
    leg: &str,
    row: &Row,
    version: i64,
) -> EventMeta {
    let at = rows::modified_at(row).unwrap_or_default();
    erp::object_meta(instance, kind, record_id, leg, at, version)
}
