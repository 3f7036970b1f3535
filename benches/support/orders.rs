//! Orders of a web shop, and what the systems around say of them.

use super::load;
use crossdock::contract::event::*;
use crossdock::contract::topic;
use crossdock::domain::{Decimal, Timestamp, event_id, order_id};

/// Lines of an order, of one unit each.
pub const LINES: u64 = 2;
/// What a unit costs.
const PRICE: i32 = 10;

/// A record to be written.
pub struct Told {
    pub topic: &'static str,
    pub key: String,
    pub event: Event,
}

/// The id of order `number`.
pub fn id(number: u64) -> String {
    order_id("default", load::CHANNEL, &number.to_string()).to_string()
}

fn meta(event_type: &str, source: &str, record: &str, version: i64, at: Timestamp) -> EventMeta {
    EventMeta {
        event_id: event_id(source, 0, &format!("{record}#{version}"), "", event_type),
        event_type: event_type.into(),
        source: source.into(),
        source_position: version,
        position_kind: PositionKind::Version,
        occurred_at: at,
        recorded_at: at,
        tenant_id: "default".into(),
        correlation_id: record.into(),
        origin: Origin::Source,
        ..EventMeta::default()
    }
}

/// The SKU of a line: one of those that the load knows.
pub fn sku(number: u64, line: u64) -> String {
    load::sku((number * LINES + line) * 7_919 % load::SKUS)
}

fn total() -> Decimal {
    Decimal::from(PRICE * LINES as i32)
}

/// A customer orders a unit of each of [`LINES`] SKUs.
pub fn placed(number: u64, at: Timestamp) -> Told {
    let line = |line: u64| OrderLine {
        line_id: line.to_string().into(),
        sku: sku(number, line).into(),
        qty: Decimal::ONE,
        uom: "EA".into(),
        unit_price: Decimal::from(PRICE),
        line_total: Decimal::from(PRICE),
        delivery_group_id: "g".into(),
        ..OrderLine::default()
    };
    let order = OrderSnapshot {
        channel_id: load::CHANNEL.into(),
        channel_type: ChannelType::Web,
        channel_order_id: number.to_string().into(),
        placed_at: at,
        currency: "EUR".into(),
        prices_include_tax: true,
        lines: (0..LINES).map(line).collect(),
        delivery_groups: vec![DeliveryGroup {
            group_id: "g".into(),
            method: DeliveryMethod::ShipToHome,
            ..DeliveryGroup::default()
        }],
        grand_total: total(),
        ..OrderSnapshot::default()
    };
    says(number, "shop", OrderEventType::Placed, Some(order), at)
}

/// The ERP takes the order.
pub fn accepted(number: u64, at: Timestamp) -> Told {
    says(number, "erp", OrderEventType::Accepted, None, at)
}

fn says(
    number: u64,
    source: &str,
    kind: OrderEventType,
    order: Option<OrderSnapshot>,
    at: Timestamp,
) -> Told {
    let key = id(number);
    let event = OrderEvent {
        meta: meta("OrderEvent", source, &format!("{key}/{kind}"), 1, at),
        order_id: key.as_str().into(),
        r#type: kind,
        entity_version: 1,
        erp_order_id: (source == "erp").then(|| compact_str::format_compact!("SO-{number}")),
        order,
        ..OrderEvent::default()
    };
    Told {
        topic: topic::ORDER_LIFECYCLE,
        key,
        event: event.into(),
    }
}

/// Money of the order moves: all of it.
pub fn paid(number: u64, kind: PaymentKind, at: Timestamp) -> Told {
    let key = id(number);
    let event = PaymentEvent {
        meta: meta("PaymentEvent", "psp", &format!("{key}/{kind}"), 1, at),
        order_id: key.as_str().into(),
        payment_id: compact_str::format_compact!("pay-{number}"),
        payment_version: 1,
        kind,
        amount: Money {
            amount: total(),
            currency: "EUR".into(),
        },
        psp: "psp".into(),
        psp_reference: compact_str::format_compact!("{kind}-{number}"),
        ..PaymentEvent::default()
    };
    Told {
        topic: topic::PAYMENT_EVENT,
        key,
        event: event.into(),
    }
}

/// The one fulfilment of the order is in its `version`th step: released, picked, shipped.
pub fn fulfilled(number: u64, version: i64, at: Timestamp) -> Told {
    let key = id(number);
    let done = |from: i64| match version >= from {
        true => Decimal::ONE,
        false => Decimal::ZERO,
    };
    let line = |line: u64| ShipmentLine {
        line_id: line.to_string().into(),
        sku: sku(number, line).into(),
        allocated: done(1),
        picked: done(2),
        shipped: done(3),
        ..ShipmentLine::default()
    };
    let steps = [
        ShipmentStatus::Released,
        ShipmentStatus::Picked,
        ShipmentStatus::Shipped,
    ];
    let event = ShipmentEvent {
        meta: meta("ShipmentEvent", "wms", &format!("{key}/1"), version, at),
        order_id: key.as_str().into(),
        shipment_id: compact_str::format_compact!("sh-{number}"),
        shipment_version: version,
        node_id: load::location(0).into(),
        node_type: NodeType::Dc,
        status: steps[(version - 1) as usize],
        lines: (0..LINES).map(line).collect(),
        ..ShipmentEvent::default()
    };
    Told {
        topic: topic::SHIPMENT_EVENT,
        key,
        event: event.into(),
    }
}
