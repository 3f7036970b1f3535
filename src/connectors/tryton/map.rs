//! From Tryton's counts, products, locations and order points to events.

use super::client::Row;
use super::rows;
use super::settings::{LocationKind, LocationSettings};
use crate::contract::event::{
    EventMeta, Location, LocationKind as WireKind, Money, Origin, OversellPolicy, PositionKind,
    PriceChanged, ProductChanged, ProductStatus, SnapshotBasis, StockPolicy, StockSnapshot, Text,
};
use crate::contract::topic;
use crate::domain::stock::gs1_check_digit_holds;
use crate::domain::{Decimal, Timestamp, compound_key, event_id};
use crate::pipeline::{Code, Fault, SourceRecord, Stage};

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

/// Stock as the ERP reports it after a count: for comparison only, for its place among the moves is
/// the connector's own.
pub(super) struct Count<'a> {
    pub line: i64,
    pub sku: &'a str,
    pub location: &'a str,
    pub quantity: Decimal,
    pub at: Timestamp,
    /// All moves up to here are in it.
    pub as_of: i64,
}

pub(super) fn snapshot(instance: &str, count: &Count<'_>) -> SourceRecord {
    let record_id = format!("stock.inventory.line,{}", count.line);
    let id = event_id(instance, 0, &record_id, "", "StockSnapshot");
    let event = StockSnapshot {
        meta: EventMeta {
            origin: Origin::Reconciliation,
            ..meta(instance, "StockSnapshot", id, count.as_of, count.at)
        },
        snapshot_id: record_id.as_str().into(),
        sku: count.sku.into(),
        location_id: count.location.into(),
        basis: SnapshotBasis::OnHand,
        sellable: count.quantity,
        as_of_position: count.as_of,
        as_of: count.at,
        ..StockSnapshot::default()
    };
    SourceRecord {
        topic: topic::STOCK_SNAPSHOT,
        key: compound_key(&[count.sku, count.location]),
        event: event.into(),
    }
}

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
    let event = ProductChanged {
        meta: object_meta(
            instance,
            "ProductChanged",
            &format!("product.product,{id}"),
            "",
            row,
            version,
        ),
        sku: sku.into(),
        product_version: version,
        gtins,
        title: name
            .map(|n| (language.into(), n.into()))
            .into_iter()
            .collect(),
        status: match active {
            true => ProductStatus::Active,
            false => ProductStatus::Discontinued,
        },
        uom: unit.map_or("EA".into(), unit_code),
        stock_tracked: template.is_none_or(|t| {
            rows::text(t, "type") != Some("service") && flag(t, "consumable") != Some(true)
        }),
        ..ProductChanged::default()
    };
    Ok(SourceRecord {
        topic: topic::PRODUCT_CHANGE,
        key: sku.into(),
        event: event.into(),
    })
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
    let event = PriceChanged {
        meta: object_meta(instance, "PriceChanged", &record_id, "", row, version),
        sku: sku.into(),
        price_list_id: instance.into(),
        price_version: version,
        price: Money {
            amount,
            currency: currency.into(),
        },
        tax_inclusive: false,
        effective_from: rows::modified_at(row).unwrap_or_default(),
        ..PriceChanged::default()
    };
    Ok(Some(SourceRecord {
        topic: topic::PRICE_CHANGE,
        key: compound_key(&[sku, instance]),
        event: event.into(),
    }))
}

/// Whether a text is a GTIN.
pub(super) fn is_gtin(code: &str) -> bool {
    matches!(code.len(), 8 | 12 | 13 | 14) && gs1_check_digit_holds(code)
}

pub(super) fn location(
    instance: &str,
    row: &Row,
    (id, settings): (Text, LocationSettings),
    version: i64,
) -> SourceRecord {
    let record_id = format!("stock.location,{}", rows::id(row));
    let address = rows::related(row, "address");
    let country = address.and_then(|a| rows::related(a, "country"));
    let event = Location {
        meta: object_meta(instance, "Location", &record_id, "", row, version),
        location_id: id.clone(),
        location_version: version,
        name: rows::text(row, "name").unwrap_or(&id).into(),
        kind: match settings.kind {
            LocationKind::Dc => WireKind::Dc,
            LocationKind::Store => WireKind::Store,
            LocationKind::Dropship => WireKind::Dropship,
            LocationKind::ThirdParty => WireKind::ThirdParty,
        },
        country: country.and_then(|c| rows::text(c, "code")).map(Text::from),
        stock_tracked: true,
        ..Location::default()
    };
    SourceRecord {
        topic: topic::LOCATION_CHANGE,
        key: id,
        event: event.into(),
    }
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
    let event = StockPolicy {
        meta: object_meta(instance, "StockPolicy", &record_id, "", row, version),
        sku: sku.into(),
        location_id: location.into(),
        policy_version: version,
        safety_stock: minimum.or_zero(),
        oversell: OversellPolicy::Block,
        ..StockPolicy::default()
    };
    Ok(SourceRecord {
        topic: topic::STOCK_POLICY,
        key: compound_key(&[sku, location]),
        event: event.into(),
    })
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

/// The version stands for the state of an object that was read: Tryton numbers none.
/// `leg` tells apart the facts that one object is, such as the orders in a shipment.
pub(super) fn object_meta(
    instance: &str,
    kind: &str,
    record_id: &str,
    leg: &str,
    row: &Row,
    version: i64,
) -> EventMeta {
    let id = event_id(instance, 0, &format!("{record_id}@{version}"), leg, kind);
    let at = rows::modified_at(row).unwrap_or_default();
    EventMeta {
        position_kind: PositionKind::Version,
        correlation_id: record_id.into(),
        ..meta(instance, kind, id, version, at)
    }
}

pub(super) fn meta(
    instance: &str,
    kind: &str,
    id: uuid::Uuid,
    position: i64,
    at: Timestamp,
) -> EventMeta {
    EventMeta {
        event_id: id,
        event_type: kind.into(),
        source: instance.into(),
        source_position: position,
        position_kind: PositionKind::Sequence,
        occurred_at: at,
        tenant_id: "default".into(),
        correlation_id: id.to_string().into(),
        origin: Origin::Source,
        ..EventMeta::default()
    }
}

pub(super) fn bad(code: Code, message: String) -> Fault {
    Fault::reject(Stage::Decode, code, message)
}
