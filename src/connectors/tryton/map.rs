//! From Tryton's rows to events.

use super::client::Row;
use super::tree::Place;
use super::{LocationKind, LocationSettings, rows};
use crate::contract::event::{
    EventMeta, Location, LocationKind as WireKind, Origin, OversellPolicy, PositionKind,
    ProductChanged, ProductStatus, SnapshotBasis, StockChanged, StockPolicy, StockReason,
    StockSnapshot, StockState, Text,
};
use crate::contract::topic;
use crate::domain::stock::gs1_check_digit_holds;
use crate::domain::{Decimal, Timestamp, compound_key, event_id};
use crate::pipeline::{Code, Fault, SourceRecord, Stage};

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

/// A move of goods as its row tells it.
pub(super) struct Move {
    id: i64,
    sku: Text,
    quantity: Decimal,
    unit: Text,
    from: Place,
    to: Place,
    at: Timestamp,
    date: Option<crate::domain::Date>,
    origin: Option<String>,
    shipment: Option<String>,
    /// Where goods that are on the way go, when the shipment tells.
    pub destination: Option<Place>,
}

/// A change at one position: one leg of a move.
struct Leg {
    name: &'static str,
    location: Text,
    from: StockState,
    to: StockState,
    reason: StockReason,
}

impl Move {
    /// # Errors
    /// A reject that names field and value.
    pub fn read(row: &Row, place: impl Fn(i64) -> Result<Place, String>) -> Result<Move, Fault> {
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
        Ok(Move {
            id,
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
            origin: rows::text(row, "origin").map(str::to_owned),
            shipment: rows::text(row, "shipment").map(str::to_owned),
            destination: None,
        })
    }

    /// The facts that it is, in order; `position` gives each its place.
    pub fn events(&self, instance: &str, position: &mut i64) -> Vec<SourceRecord> {
        let legs = self.legs();
        legs.iter()
            .map(|leg| self.event(instance, leg, None, position))
            .collect()
    }

    /// The facts that take back what [`Move::events`] told: a done move was cancelled.
    pub fn corrections(&self, instance: &str, position: &mut i64) -> Vec<SourceRecord> {
        let mut records = Vec::new();
        for leg in self.legs() {
            for (name, from, to) in inverse(&leg) {
                let correction = Leg {
                    name,
                    from,
                    to,
                    location: leg.location.clone(),
                    reason: StockReason::ReconCorrection,
                };
                records.push(self.event(instance, &correction, Some(leg.name), position));
            }
        }
        records
    }

    fn legs(&self) -> Vec<Leg> {
        use StockReason as R;
        use StockState as S;
        if !self.quantity.is_positive() {
            // Tryton keeps moves of nothing where a shipment was short.
            return Vec::new();
        }
        let leg = |name, location: &Text, from, to, reason| Leg {
            name,
            location: location.clone(),
            from,
            to,
            reason,
        };
        let announced = |at: &Text| leg("announced", at, S::Supplier, S::InTransit, R::TransferIn);
        match (&self.from, &self.to) {
            (
                Place::Stock { location, state },
                Place::Stock {
                    location: other,
                    state: after,
                },
            ) => {
                if location != other {
                    vec![
                        leg("out", location, *state, S::InTransit, R::TransferOut),
                        announced(other),
                        leg("in", other, S::InTransit, *after, R::TransferIn),
                    ]
                } else if state != after {
                    let reason = match after {
                        S::Damaged => R::Damage,
                        S::QualityHold => R::QcHold,
                        _ => R::QcRelease,
                    };
                    vec![leg("", location, *state, *after, reason)]
                } else {
                    Vec::new()
                }
            }
            (Place::Stock { location, state }, Place::Transit) => {
                let mut legs = vec![leg("out", location, *state, S::InTransit, R::TransferOut)];
                if let Some(Place::Stock { location, .. }) = &self.destination {
                    legs.push(announced(location));
                }
                legs
            }
            (Place::Transit, Place::Stock { location, state }) => {
                let arrives = leg("in", location, S::InTransit, *state, R::TransferIn);
                match &self.destination {
                    Some(Place::Stock { location: to, .. }) if to == location => vec![arrives],
                    _ => vec![announced(location), arrives],
                }
            }
            (Place::Transit, Place::Outside { state, .. }) => match &self.destination {
                Some(Place::Stock { location, .. }) => {
                    vec![leg("lost", location, S::InTransit, *state, R::Shrink)]
                }
                _ => Vec::new(),
            },
            (Place::Stock { location, state }, Place::Outside { state: to, kind }) => {
                vec![leg("", location, *state, *to, self.reason_out(*to, kind))]
            }
            (Place::Outside { state: from, .. }, Place::Stock { location, state }) => {
                let reason = match from {
                    S::Customer => R::Return,
                    S::Loss => R::CountAdjustment,
                    _ => R::Receipt,
                };
                vec![leg("", location, *from, *state, reason)]
            }
            _ => Vec::new(),
        }
    }

    fn reason_out(&self, to: StockState, kind: &str) -> StockReason {
        let from_count = self
            .origin
            .as_deref()
            .is_some_and(|o| o.starts_with("stock.inventory"));
        match (to, kind) {
            (StockState::Loss, _) if from_count => StockReason::CountAdjustment,
            (StockState::Loss, _) => StockReason::Shrink,
            (StockState::Customer, _) if self.shipment.is_some() => StockReason::Shipment,
            (StockState::Customer, _) => StockReason::Sale,
            // Components of production; the contract has no word of its own for them.
            (_, "production") => StockReason::Unknown,
            _ => StockReason::Return,
        }
    }

    fn event(
        &self,
        instance: &str,
        leg: &Leg,
        corrects: Option<&str>,
        position: &mut i64,
    ) -> SourceRecord {
        let record_id = format!("stock.move,{}", self.id);
        let told = |leg: &str| event_id(instance, 0, &record_id, leg, "StockChanged");
        let id = match corrects {
            Some(leg_before) => told(&format!("{leg_before}/{}", leg.name)),
            None => told(leg.name),
        };
        // The two halves of a transfer that is on the way for a while are different moves.
        let on_the_way = self.from == Place::Transit || self.to == Place::Transit;
        let movement_id = match &self.shipment {
            Some(shipment) if on_the_way => format!("{shipment}/{}", self.sku),
            _ => record_id.clone(),
        };
        let mut event = StockChanged {
            meta: EventMeta {
                business_date: self.date,
                corrects_event_id: corrects.map(told),
                ..meta(instance, "StockChanged", id, *position, self.at)
            },
            movement_id: movement_id.as_str().into(),
            sku: self.sku.clone(),
            location_id: leg.location.clone(),
            from_state: leg.from,
            to_state: leg.to,
            qty: self.quantity,
            uom: self.unit.clone(),
            reason: leg.reason,
            document_ref: self
                .shipment
                .as_deref()
                .or(self.origin.as_deref())
                .map(Text::from),
            ..StockChanged::default()
        };
        event.meta.correlation_id = match &event.document_ref {
            Some(document) => document.clone(),
            None => record_id.as_str().into(),
        };
        for side in [&self.from, &self.to] {
            if let Place::Outside { kind, .. } = side {
                event
                    .meta
                    .ext
                    .insert("tryton.locationType".into(), kind.clone());
            }
        }
        *position += 1;
        SourceRecord {
            topic: topic::STOCK_CHANGE,
            key: compound_key(&[&self.sku, &leg.location]),
            event: event.into(),
        }
    }
}

/// What undoes a leg. Goods that left for another location never count as on the way *here*, so
/// what undoes that brings them back from outside.
fn inverse(leg: &Leg) -> Vec<(&'static str, StockState, StockState)> {
    use StockState as S;
    match (leg.from, leg.to) {
        (from, S::InTransit) if from != S::Supplier => vec![("cancelled", S::Supplier, from)],
        (S::InTransit, to) if leg.name == "in" => vec![
            ("cancelled", to, S::Supplier),
            ("announced-again", S::Supplier, S::InTransit),
        ],
        (from, to) => vec![("cancelled", to, from)],
    }
}

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
        meta: object_meta(instance, "Location", &record_id, row, version),
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
        meta: object_meta(instance, "StockPolicy", &record_id, row, version),
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
fn unit_code(symbol: &str) -> Text {
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
fn object_meta(instance: &str, kind: &str, record_id: &str, row: &Row, version: i64) -> EventMeta {
    let id = event_id(instance, 0, &format!("{record_id}@{version}"), "", kind);
    let at = rows::modified_at(row).unwrap_or_default();
    EventMeta {
        position_kind: PositionKind::Version,
        correlation_id: record_id.into(),
        ..meta(instance, kind, id, version, at)
    }
}

fn meta(instance: &str, kind: &str, id: uuid::Uuid, position: i64, at: Timestamp) -> EventMeta {
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

fn bad(code: Code, message: String) -> Fault {
    Fault::reject(Stage::Decode, code, message)
}
