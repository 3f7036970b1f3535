//! Small constructors for the facts that the demo's systems tell.

use crate::contract::event::{
    EventMeta, Origin, PositionKind, ReservationAction, ReservationCommand, ReservationMode,
    SnapshotBasis, StockSnapshot, Text,
};
use crate::contract::topic;
use crate::domain::{Decimal, Timestamp, compound_key, event_id};
use crate::pipeline::SourceRecord;
use uuid::Uuid;

pub(crate) fn meta(
    event_type: &str,
    source: &str,
    record: &str,
    leg: &str,
    position: i64,
    at: Timestamp,
) -> EventMeta {
    EventMeta {
        event_id: event_id(source, 0, record, leg, event_type),
        event_type: event_type.into(),
        source: source.into(),
        source_position: position,
        position_kind: PositionKind::Sequence,
        occurred_at: at,
        tenant_id: "default".into(),
        correlation_id: record.into(),
        origin: Origin::Source,
        ..EventMeta::default()
    }
}

pub(crate) fn snapshot(
    source: &str,
    sku: &str,
    location: &str,
    quantity: i64,
    as_of: i64,
    at: Timestamp,
) -> SourceRecord {
    let record = format!("snapshot/{sku}/{location}/{as_of}");
    let event = StockSnapshot {
        meta: meta("StockSnapshot", source, &record, "", as_of, at),
        snapshot_id: record.into(),
        sku: sku.into(),
        location_id: location.into(),
        basis: SnapshotBasis::OnHand,
        sellable: whole(quantity),
        as_of_position: as_of,
        as_of: at,
        ..StockSnapshot::default()
    };
    SourceRecord {
        topic: topic::STOCK_SNAPSHOT,
        key: compound_key(&[sku, location]),
        event: event.into(),
    }
}

/// What a shopper wants of a reservation.
#[derive(Clone)]
pub(crate) struct Wish {
    pub reservation: Uuid,
    pub order: Text,
    pub sku: Text,
    pub channel: &'static str,
    pub quantity: i64,
    pub expires_at: Timestamp,
}

pub(crate) fn command(
    wish: &Wish,
    action: ReservationAction,
    location: &str,
    position: i64,
    at: Timestamp,
) -> SourceRecord {
    let record = format!("{}/{action}", wish.order);
    let event = ReservationCommand {
        meta: meta("ReservationCommand", "shoppers", &record, "", position, at),
        reservation_id: wish.reservation,
        action,
        mode: ReservationMode::Strict,
        order_id: wish.order.clone(),
        order_line_id: "1".into(),
        sku: wish.sku.clone(),
        location_id: location.into(),
        channel_id: wish.channel.into(),
        qty: whole(wish.quantity),
        expires_at: (action == ReservationAction::Hold).then_some(wish.expires_at),
        promise_at: None,
        reason: None,
    };
    SourceRecord {
        topic: topic::RESERVATION_COMMAND,
        key: compound_key(&[&wish.sku, location]),
        event: event.into(),
    }
}

pub(crate) fn whole(quantity: i64) -> Decimal {
    Decimal::from_units(quantity.saturating_mul(Decimal::ONE.units()))
}
