//! Counts, products, prices and locations of an ERP as events.

use super::places::LocationSettings;
use crate::contract::event::{
    EventMeta, Location, Money, Origin, OversellPolicy, PositionKind, PriceChanged, ProductChanged,
    ProductStatus, SnapshotBasis, StockPolicy, StockSnapshot, Text,
};
use crate::contract::topic;
use crate::domain::stock::gs1_check_digit_holds;
use crate::domain::{Decimal, Timestamp, compound_key, event_id};
use crate::pipeline::{Code, Fault, SourceRecord, Stage};

/// Stock as the ERP reports it after a count: for comparison only, for its place among the moves is
/// the connector's own.
pub struct Count<'a> {
    /// The ERP's own name of what was counted.
    pub record_id: &'a str,
    /// Of what.
    pub sku: &'a str,
    /// Where.
    pub location: &'a str,
    /// How much there is.
    pub quantity: Decimal,
    /// When it was counted.
    pub at: Timestamp,
    /// All moves up to here are in it.
    pub as_of: i64,
}

/// A count as an event.
pub fn snapshot(instance: &str, count: &Count<'_>) -> SourceRecord {
    let id = event_id(instance, 0, count.record_id, "", "StockSnapshot");
    let event = StockSnapshot {
        meta: EventMeta {
            origin: Origin::Reconciliation,
            ..meta(instance, "StockSnapshot", id, count.as_of, count.at)
        },
        snapshot_id: count.record_id.into(),
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

/// A product.
pub struct Product<'a> {
    /// Its meta, by [`object_meta`].
    pub meta: EventMeta,
    /// Its SKU.
    pub sku: &'a str,
    /// What identifies it in trade.
    pub gtins: Vec<Text>,
    /// Name by language.
    pub title: Option<(Text, Text)>,
    /// Whether it is still sold.
    pub active: bool,
    /// UN/ECE code of the unit that stock is counted in.
    pub unit: Text,
    /// Whether its stock is counted.
    pub stock_tracked: bool,
}

/// A product as an event.
pub fn product(product: Product<'_>) -> SourceRecord {
    let event = ProductChanged {
        sku: product.sku.into(),
        product_version: product.meta.source_position,
        meta: product.meta,
        gtins: product.gtins,
        title: product.title.into_iter().collect(),
        status: match product.active {
            true => ProductStatus::Active,
            false => ProductStatus::Discontinued,
        },
        uom: product.unit,
        stock_tracked: product.stock_tracked,
        ..ProductChanged::default()
    };
    SourceRecord {
        topic: topic::PRODUCT_CHANGE,
        key: product.sku.into(),
        event: event.into(),
    }
}

/// The list price of a product.
pub struct Price<'a> {
    /// Its meta, by [`object_meta`].
    pub meta: EventMeta,
    /// Of what.
    pub sku: &'a str,
    /// How much, in the currency.
    pub amount: Decimal,
    /// Of the list.
    pub currency: &'a str,
    /// Whether its taxes are in it.
    pub tax_inclusive: bool,
}

/// A price as an event; the ERP's list is called after the instance.
pub fn price(instance: &str, price: Price<'_>) -> SourceRecord {
    let event = PriceChanged {
        sku: price.sku.into(),
        price_list_id: instance.into(),
        price_version: price.meta.source_position,
        price: Money {
            amount: price.amount,
            currency: price.currency.into(),
        },
        tax_inclusive: price.tax_inclusive,
        effective_from: price.meta.occurred_at,
        meta: price.meta,
        ..PriceChanged::default()
    };
    SourceRecord {
        topic: topic::PRICE_CHANGE,
        key: compound_key(&[price.sku, instance]),
        event: event.into(),
    }
}

/// Whether a text is a GTIN.
pub fn is_gtin(code: &str) -> bool {
    matches!(code.len(), 8 | 12 | 13 | 14) && gs1_check_digit_holds(code)
}

/// A location that owns stock as an event.
pub fn location(
    meta: EventMeta,
    (id, settings): (Text, LocationSettings),
    name: Option<&str>,
    country: Option<Text>,
) -> SourceRecord {
    let event = Location {
        location_id: id.clone(),
        location_version: meta.source_position,
        meta,
        name: name.unwrap_or(&id).into(),
        kind: settings.kind.wire(),
        country,
        stock_tracked: true,
        ..Location::default()
    };
    SourceRecord {
        topic: topic::LOCATION_CHANGE,
        key: id,
        event: event.into(),
    }
}

/// What must be left at a place as stock that is never promised.
pub fn policy(meta: EventMeta, sku: &str, location: &str, minimum: Decimal) -> SourceRecord {
    let event = StockPolicy {
        policy_version: meta.source_position,
        meta,
        sku: sku.into(),
        location_id: location.into(),
        safety_stock: minimum.or_zero(),
        oversell: OversellPolicy::Block,
        ..StockPolicy::default()
    };
    SourceRecord {
        topic: topic::STOCK_POLICY,
        key: compound_key(&[sku, location]),
        event: event.into(),
    }
}

/// The version stands for the state of an object that was read: the ERP numbers none.
/// `leg` tells apart the facts that one object is, such as the orders in a shipment.
pub fn object_meta(
    instance: &str,
    kind: &str,
    record_id: &str,
    leg: &str,
    at: Timestamp,
    version: i64,
) -> EventMeta {
    let id = event_id(instance, 0, &format!("{record_id}@{version}"), leg, kind);
    EventMeta {
        position_kind: PositionKind::Version,
        correlation_id: record_id.into(),
        ..meta(instance, kind, id, version, at)
    }
}

/// The meta of a fact with its place in the order of reading.
pub fn meta(instance: &str, kind: &str, id: uuid::Uuid, position: i64, at: Timestamp) -> EventMeta {
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

/// A row that cannot become an event.
pub fn bad(code: Code, message: String) -> Fault {
    Fault::reject(Stage::Decode, code, message)
}
