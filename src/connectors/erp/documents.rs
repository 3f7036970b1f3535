//! Documents of an ERP as facts of the orders that they belong to.

use super::events::{bad, object_meta};
use super::moves::OfOrder;
use super::places::Place;
use crate::contract::event::{
    Disposition, NodeType, OrderEvent, OrderEventType, Package, ReturnEvent, ReturnLine,
    ReturnMethod, ReturnStatus, ShipmentEvent, ShipmentLine, ShipmentStatus, StockState, Text,
};
use crate::contract::topic;
use crate::domain::{Decimal, Timestamp, return_id};
use crate::pipeline::{Code, Fault, SourceRecord};
use std::collections::BTreeMap;

/// A document as its row tells it.
pub struct Document<'a> {
    /// The connector's name.
    pub instance: &'a str,
    /// The ERP's own name of it.
    pub record_id: &'a str,
    /// When it was written.
    pub at: Timestamp,
    /// Its version in the order of reading.
    pub version: i64,
}

impl Document<'_> {
    /// The name that it has in events.
    pub fn id(&self) -> Text {
        compact_str::format_compact!("{}/{}", self.instance, self.record_id)
    }

    /// Whether the ERP has accepted an order: what its sale says.
    pub fn decision(
        &self,
        order: &str,
        kind: OrderEventType,
        number: Option<&str>,
    ) -> SourceRecord {
        let event = OrderEvent {
            meta: object_meta(
                self.instance,
                "OrderEvent",
                self.record_id,
                order,
                self.at,
                self.version,
            ),
            order_id: order.into(),
            r#type: kind,
            entity_version: self.version,
            erp_order_id: Some(number.unwrap_or(self.record_id).into()),
            ..OrderEvent::default()
        };
        SourceRecord {
            topic: topic::ORDER_LIFECYCLE,
            key: order.into(),
            event: event.into(),
        }
    }

    /// A shipment to a customer, once for each order that is in it.
    pub fn shipment(&self, shipment: &Shipment<'_>) -> Vec<SourceRecord> {
        use ShipmentStatus as S;
        let mut lines: BTreeMap<&Text, BTreeMap<&Text, ShipmentLine>> = BTreeMap::new();
        for part in &shipment.parts {
            let line = lines.entry(&part.of.order).or_default();
            let line = line.entry(&part.of.line).or_insert_with(|| ShipmentLine {
                line_id: part.of.line.clone(),
                sku: part.sku.clone(),
                ..ShipmentLine::default()
            });
            line.allocated += part.quantity;
            if matches!(shipment.status, S::Picked | S::Packed | S::Shipped) {
                line.picked += part.quantity;
            }
            if shipment.status == S::Shipped {
                line.shipped += part.quantity;
            }
        }
        let packages: Vec<Package> = shipment
            .tracking
            .map(|tracking| Package {
                package_id: shipment.number.into(),
                tracking_number: Some(tracking.into()),
                ..Package::default()
            })
            .into_iter()
            .collect();
        let records = lines.into_iter().map(|(order, lines)| {
            let event = ShipmentEvent {
                meta: object_meta(
                    self.instance,
                    "ShipmentEvent",
                    self.record_id,
                    order,
                    self.at,
                    self.version,
                ),
                order_id: order.clone(),
                shipment_id: self.id(),
                shipment_version: self.version,
                node_id: shipment.node.clone(),
                node_type: shipment.node_type,
                status: shipment.status,
                lines: lines.into_values().collect(),
                packages: packages.clone(),
                ..ShipmentEvent::default()
            };
            SourceRecord {
                topic: topic::SHIPMENT_EVENT,
                key: order.clone(),
                event: event.into(),
            }
        });
        records.collect()
    }

    /// Goods that come back, once for each order that is in them.
    pub fn returned(&self, returned: &Return) -> Vec<SourceRecord> {
        let mut lines: BTreeMap<&Text, Vec<ReturnLine>> = BTreeMap::new();
        for part in &returned.parts {
            let here = match part.is_here {
                true => part.quantity,
                false => Decimal::ZERO,
            };
            lines.entry(&part.of.order).or_default().push(ReturnLine {
                return_line_id: part.name.clone(),
                order_line_id: part.of.line.clone(),
                sku: part.sku.clone(),
                requested: part.quantity,
                received: here,
                accepted: match returned.status {
                    ReturnStatus::Inspected => here,
                    _ => Decimal::ZERO,
                },
                disposition: part.disposition,
                ..ReturnLine::default()
            });
        }
        let records = lines.into_iter().map(|(order, lines)| {
            let event = ReturnEvent {
                meta: object_meta(
                    self.instance,
                    "ReturnEvent",
                    self.record_id,
                    order,
                    self.at,
                    self.version,
                ),
                order_id: order.clone(),
                return_id: return_name(order, self.instance, self.record_id),
                return_version: self.version,
                status: returned.status,
                method: returned.method,
                return_location_id: Some(returned.location.clone()),
                lines,
                ..ReturnEvent::default()
            };
            SourceRecord {
                topic: topic::RETURN_EVENT,
                key: order.clone(),
                event: event.into(),
            }
        });
        records.collect()
    }
}

/// The id of a return that was opened in the ERP.
pub fn return_name(order: &str, instance: &str, record_id: &str) -> Text {
    compact_str::format_compact!("{}", return_id(order, instance, record_id))
}

/// Goods that come back.
pub struct Return {
    /// How far it is.
    pub status: ReturnStatus,
    /// How they come.
    pub method: ReturnMethod,
    /// Where they come to.
    pub location: Text,
    /// What comes.
    pub parts: Vec<ReturnPart>,
}

/// Goods of an order that come back.
pub struct ReturnPart {
    /// Whose they were.
    pub of: OfOrder,
    /// The ERP's name of the line.
    pub name: Text,
    /// What they are.
    pub sku: Text,
    /// How much of it.
    pub quantity: Decimal,
    /// Whether they have come.
    pub is_here: bool,
    /// What becomes of them.
    pub disposition: Disposition,
}

/// What becomes of goods that came back and were put there.
pub fn disposition(put: Option<&Place>) -> Disposition {
    match put {
        Some(Place::Stock { state, .. }) if *state == StockState::Damaged => Disposition::Damaged,
        Some(Place::Outside { .. }) => Disposition::Dispose,
        _ => Disposition::Restock,
    }
}

/// A shipment to customers.
pub struct Shipment<'a> {
    /// What people call it.
    pub number: &'a str,
    /// How far it is.
    pub status: ShipmentStatus,
    /// Where it leaves from.
    pub node: Text,
    /// What that is.
    pub node_type: NodeType,
    /// The carrier's number of it.
    pub tracking: Option<&'a str>,
    /// What is in it.
    pub parts: Vec<ShipmentPart>,
}

/// Goods of an order in a shipment.
pub struct ShipmentPart {
    /// Whose they are.
    pub of: OfOrder,
    /// What they are.
    pub sku: Text,
    /// How much of it.
    pub quantity: Decimal,
}

/// A document whose state means nothing here.
pub fn unknown_state(record_id: &str, state: &str) -> Fault {
    let message = format!("{record_id} is {state:?}, which means nothing here");
    bad(Code::UnknownSymbol, message)
}
