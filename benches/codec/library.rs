//! The two contracts as somebody writes them by hand for apache-avro's serde path.

use compact_str::CompactString as Text;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

/// Ten-thousandths in an `i64`, written as the shortest two's complement.
#[derive(Clone, Copy)]
pub struct Decimal(i64);

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.to_be_bytes();
        let fill = if self.0 < 0 { 0xff } else { 0 };
        let mut skip = 0;
        while skip < 7 && bytes[skip] == fill && (bytes[skip + 1] ^ fill) & 0x80 == 0 {
            skip += 1;
        }
        serializer.serialize_bytes(&bytes[skip..])
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Decimal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("at most eight bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Decimal, E> {
                if bytes.len() > 8 {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
                let sign = if negative { -1 } else { 0 };
                let value = bytes.iter().fold(sign, |v: i64, b| v << 8 | i64::from(*b));
                Ok(Decimal(value))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

macro_rules! symbols {
    ($name:ident: $($variant:ident)*) => {
        #[derive(Clone, Copy, Serialize, Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        pub enum $name { $($variant),* }
    };
}

symbols!(PositionKind: Unknown Lsn Sequence Version TimestampMicros);
symbols!(Origin: Unknown Source Snapshot Replay Reconciliation Manual);
symbols!(StockState: Unknown Sellable Damaged QualityHold InTransit Supplier Customer Loss);
symbols!(StockReason: Unknown Sale Shipment Return Receipt TransferOut TransferIn CountAdjustment
    Shrink Damage QcHold QcRelease ReconCorrection InitialLoad);
symbols!(OrderEventType: Unknown Placed Amended CancelRequested CancelDecided Accepted Rejected
    Held HoldReleased Closed);
symbols!(ChannelType: Unknown Web App Marketplace Pos CallCentre Social B2b);
symbols!(DeliveryMethod: Unknown ShipToHome PickupInStore Curbside ShipToStore CarryOut Digital);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventMeta {
    event_id: Uuid,
    event_type: Text,
    source: Text,
    source_epoch: i32,
    source_position: i64,
    position_kind: PositionKind,
    occurred_at: i64,
    recorded_at: i64,
    business_date: Option<i32>,
    tenant_id: Text,
    correlation_id: Text,
    causation_id: Option<Uuid>,
    corrects_event_id: Option<Uuid>,
    origin: Origin,
    ext: BTreeMap<Text, Text>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Money {
    amount: Decimal,
    currency: Text,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StockChanged {
    meta: EventMeta,
    movement_id: Text,
    sku: Text,
    gtin: Option<Text>,
    location_id: Text,
    gln: Option<Text>,
    from_state: StockState,
    to_state: StockState,
    qty: Decimal,
    uom: Text,
    reason: StockReason,
    order_id: Option<Text>,
    order_line_id: Option<Text>,
    reservation_id: Option<Uuid>,
    return_id: Option<Text>,
    document_ref: Option<Text>,
    lot: Option<Text>,
    serials: Vec<Text>,
    unit_cost: Option<Money>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderLine {
    line_id: Text,
    sku: Text,
    qty: Decimal,
    uom: Text,
    unit_price: Decimal,
    discount: Decimal,
    tax: Decimal,
    tax_code: Option<Text>,
    line_total: Decimal,
    delivery_group_id: Text,
    backorder_allowed: bool,
    price_version: Option<i64>,
    bundle_parent_line_id: Option<Text>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderCharge {
    charge_id: Text,
    r#type: Text,
    net: Decimal,
    tax: Decimal,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryGroup {
    group_id: Text,
    method: DeliveryMethod,
    pickup_location_id: Option<Text>,
    address_token: Option<Text>,
    promise_by: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderSnapshot {
    channel_id: Text,
    channel_type: ChannelType,
    channel_order_id: Text,
    channel_order_version: i64,
    placed_at: i64,
    customer_id: Option<Text>,
    currency: Text,
    prices_include_tax: bool,
    ship_complete: bool,
    lines: Vec<OrderLine>,
    charges: Vec<OrderCharge>,
    delivery_groups: Vec<DeliveryGroup>,
    subtotal: Decimal,
    discount_total: Decimal,
    charge_total: Decimal,
    tax_total: Decimal,
    grand_total: Decimal,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LineQty {
    line_id: Text,
    qty: Decimal,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderEvent {
    meta: EventMeta,
    order_id: Text,
    r#type: OrderEventType,
    entity_version: i64,
    erp_order_id: Option<Text>,
    order: Option<OrderSnapshot>,
    affected: Vec<LineQty>,
    request_id: Option<Uuid>,
    reason: Option<Text>,
    actor: Option<Text>,
}
