//! The load: stock changes whose keys are Zipf-distributed over a retailer's positions.

use crossdock::contract::event::{
    Channel, ChannelStatus, EventMeta, Origin, PositionKind, StockChanged, StockReason, StockState,
};
use crossdock::domain::{Decimal, Timestamp, compound_key};
use rand::prelude::*;
use uuid::Uuid;

/// SKUs.
pub const SKUS: u64 = 50_000;
/// Locations; every SKU is at each.
pub const LOCATIONS: u64 = 20;
/// The channel that all locations serve.
pub const CHANNEL: &str = "web";

/// Draws positions: rank r with a probability proportional to 1/r.
pub struct Positions {
    random: SmallRng,
    skus: u64,
}

impl Positions {
    /// Over `skus` SKUs, the same for the same seed.
    pub fn new(skus: u64, seed: u64) -> Self {
        Positions {
            random: SmallRng::seed_from_u64(seed),
            skus,
        }
    }

    /// The next SKU and location.
    pub fn draw(&mut self) -> (u64, u64) {
        let count = self.skus * LOCATIONS;
        let rank = (count as f64).powf(self.random.random::<f64>()) as u64 - 1;
        // Neighbours in rank are no neighbours in name: a multiplier without a common factor.
        let spread = rank * 2_654_435_761 % count;
        (spread / LOCATIONS, spread % LOCATIONS)
    }
}

/// Name of a SKU.
pub fn sku(number: u64) -> String {
    format!("SKU-{number:05}")
}

/// Name of a location.
pub fn location(number: u64) -> String {
    format!("L-{number:02}")
}

/// The fact number `number` of the source: one piece more at a position.
pub fn receipt(number: u64, at: (u64, u64), time: Timestamp) -> (String, StockChanged) {
    let (sku, location) = (sku(at.0), location(at.1));
    let key = compound_key(&[&sku, &location]).into();
    let event = StockChanged {
        meta: EventMeta {
            event_id: id(number),
            event_type: "StockChanged".into(),
            source: "wms".into(),
            source_position: number as i64 + 1,
            position_kind: PositionKind::Sequence,
            occurred_at: time,
            recorded_at: time,
            tenant_id: "default".into(),
            correlation_id: compact_str::format_compact!("m{number}"),
            origin: Origin::Source,
            ..EventMeta::default()
        },
        movement_id: compact_str::format_compact!("m{number}"),
        sku: sku.into(),
        location_id: location.into(),
        from_state: StockState::Supplier,
        to_state: StockState::Sellable,
        qty: Decimal::ONE,
        uom: "EA".into(),
        reason: StockReason::Receipt,
        ..StockChanged::default()
    };
    (key, event)
}

/// The channel, served by all locations.
pub fn channel() -> Channel {
    Channel {
        meta: EventMeta {
            event_id: id(u64::MAX),
            event_type: "Channel".into(),
            source: "bench".into(),
            position_kind: PositionKind::Version,
            tenant_id: "default".into(),
            origin: Origin::Source,
            ..EventMeta::default()
        },
        channel_id: CHANNEL.into(),
        channel_version: 1,
        name: CHANNEL.into(),
        status: ChannelStatus::Active,
        eligible_locations: (0..LOCATIONS).map(|l| location(l).into()).collect(),
        unit: Some(Decimal::ONE),
        default_buffer: Decimal::ZERO,
    }
}

/// An id as a version 5 uuid would look: without order.
fn id(number: u64) -> Uuid {
    let mut random = SmallRng::seed_from_u64(number);
    uuid::Builder::from_sha1_bytes(random.random()).into_uuid()
}
