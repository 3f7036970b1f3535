//! What the log says, kept as it is read: facts by position, decisions, what was published, and what
//! was booked. Records of one partition come in order; nothing is assumed of the order of others.

use super::Judged;
use super::money::MoneyBooks;
use super::orders::Orders;
use super::outcomes::Outcomes;
use crate::contract::event::{
    AvailabilityChanged, Channel, Event, EventMeta, Origin as FactOrigin, PositionKind,
    ReservationCommand, ReservationDecision, ReservationEvent, SnapshotBasis, StockChanged,
    StockLevel, StockPolicy, StockReason, StockSnapshot, StockState, Text,
};
use crate::contract::topic;
use crate::domain::{Decimal, Timestamp};
use crate::pipeline::{Origin, Record};
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

/// The topics that are read.
pub(crate) const TOPICS: [&str; 25] = [
    topic::STOCK_CHANGE,
    topic::STOCK_SNAPSHOT,
    topic::STOCK_POLICY,
    topic::STOCK_LEVEL,
    topic::STOCK_ATS,
    topic::STOCK_LEDGER_CHANNEL_LEVEL,
    topic::CHANNEL_CHANGE,
    topic::RESERVATION_COMMAND,
    topic::RESERVATION_EVENT,
    topic::RESERVATION_DECISION,
    topic::ORDER_LIFECYCLE,
    topic::ORDER_STATE,
    topic::PAYMENT_EVENT,
    topic::SHIPMENT_EVENT,
    topic::SHIPMENT_STATE,
    topic::RETURN_EVENT,
    topic::REFUND_REQUEST,
    topic::REFUND_EVENT,
    topic::INVOICE_EVENT,
    topic::SETTLEMENT_EVENT,
    topic::SETTLEMENT_PAYOUT,
    topic::LEDGER_POSTING,
    topic::CUSTOMER_CHANGE,
    topic::OPS_EXCEPTION,
    topic::OPS_DISPOSITION,
];

/// Sellable, damaged, held for quality, on the way here.
pub(super) const BUCKETS: usize = 4;

/// An event and its place.
pub(super) struct At<T> {
    pub origin: Origin,
    pub event: T,
}

/// A place in a topic that is known otherwise.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub partition: i32,
    pub offset: i64,
}

impl Place {
    fn of(origin: &Origin) -> Self {
        Place {
            partition: origin.partition,
            offset: origin.offset,
        }
    }
    /// With the topic it is in.
    pub fn in_topic(self, topic: &str) -> impl fmt::Display {
        format!("{topic}[{}]@{}", self.partition, self.offset)
    }
}

/// A movement, as far as it concerns stock.
pub(super) struct Change {
    /// Epoch and position in the source's order.
    pub position: (i32, i64),
    pub buckets: [Decimal; BUCKETS],
    pub recorded_at: Timestamp,
    pub occurred_at: Timestamp,
    /// What left for a reservation.
    pub consumes: Option<(Uuid, Decimal)>,
    pub place: Place,
}

/// What a source says it has.
pub(super) struct Snapshot {
    pub id: Uuid,
    pub as_of: (i32, i64),
    pub recorded_at: Timestamp,
    pub occurred_at: Timestamp,
    pub stated: [Option<Decimal>; BUCKETS],
    pub place: Place,
}

/// One SKU at one location.
#[derive(Default)]
pub(super) struct Position {
    /// Distinct movements.
    pub changes: BTreeMap<Uuid, Change>,
    pub snapshots: Vec<Snapshot>,
    pub policies: Vec<StockPolicy>,
    pub level: Option<At<StockLevel>>,
    /// Sellable and time of each level, in order of the versions.
    pub history: Vec<(Decimal, Timestamp)>,
    pub decisions: Vec<At<ReservationDecision>>,
}

/// A transfer between two locations, by its movement id.
#[derive(Default)]
pub(super) struct Transfer {
    pub left: Decimal,
    pub announced: Decimal,
    pub arrived: Decimal,
    pub lost: Decimal,
    /// Where it goes.
    pub destination: Text,
    pub last: Option<Place>,
}

/// Everything that was read.
#[derive(Default)]
pub(crate) struct Books {
    pub(super) positions: BTreeMap<Text, Position>,
    pub(super) transfers: BTreeMap<Text, Transfer>,
    pub(super) availability: BTreeMap<Text, At<AvailabilityChanged>>,
    pub(super) channels: BTreeMap<Text, Channel>,
    pub(super) commands: BTreeMap<Uuid, Vec<At<ReservationCommand>>>,
    pub(super) reservations: BTreeMap<Uuid, Vec<At<ReservationEvent>>>,
    pub(super) outcomes: Outcomes,
    pub(super) orders: Orders,
    pub(super) money: MoneyBooks,
    /// The first version that does not follow the one before.
    gap: Option<String>,
}

impl Books {
    /// Takes in a record and its event.
    pub fn read(&mut self, record: &Record, event: Event) {
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default());
        let key = Text::from(&*key);
        let origin = record.origin.clone();
        self.outcomes.written(&origin);
        match event {
            Event::StockChanged(e) => self.changed(key, &e, &origin),
            Event::StockSnapshot(e) => self.snapshot(key, &e, &origin),
            Event::StockPolicy(e) => self.position(key).policies.push(e),
            Event::StockLevel(e) => {
                let position = self.positions.entry(key).or_default();
                let before = position.level.as_ref().map(|l| l.event.level_version);
                let history = (e.sellable, e.meta.recorded_at);
                position.history.push(history);
                let version = e.level_version;
                position.level = Some(At {
                    origin: origin.clone(),
                    event: e,
                });
                self.follow("level", before, version, &origin);
            }
            Event::AvailabilityChanged(e) => {
                let before = self.availability.get(&key).map(|a| a.event.ats_version);
                self.follow("availability", before, e.ats_version, &origin);
                self.availability.insert(key, At { origin, event: e });
            }
            Event::Channel(e) => {
                self.channels.insert(key, e);
            }
            Event::ReservationCommand(e) => {
                let commands = self.commands.entry(e.reservation_id).or_default();
                commands.push(At { origin, event: e });
            }
            Event::ReservationEvent(e) => {
                let events = self.reservations.entry(e.reservation_id).or_default();
                let before = events.last().map(|b| b.event.reservation_version);
                let version = e.reservation_version;
                events.push(At {
                    origin: origin.clone(),
                    event: e,
                });
                self.follow("reservation", before, version, &origin);
            }
            Event::ReservationDecision(e) => {
                let decisions = &mut self.positions.entry(key).or_default().decisions;
                let before = decisions.last().map(|d| d.event.ledger_sequence);
                let sequence = e.ledger_sequence;
                decisions.push(At {
                    origin: origin.clone(),
                    event: e,
                });
                self.follow("decision", before, sequence, &origin);
            }
            Event::DispositionRecord(e) => self.outcomes.booked(&e, &origin),
            Event::OrderEvent(e) => self.orders.said(e, origin),
            Event::OrderState(e) => {
                let version = e.state_version;
                let before = self.orders.state(e, origin.clone());
                self.follow("order", before, version, &origin);
            }
            Event::RefundEvent(e) => self.money.refund(e, origin),
            Event::ReturnEvent(e) => self.money.returned(e, origin),
            Event::SettlementEvent(e) => self.money.settled(e, origin),
            Event::BusinessException(e) => self.money.case(e, origin),
            _ => {}
        }
    }

    /// Takes in a record that nobody can read.
    pub fn unreadable(&mut self, record: &Record) {
        self.outcomes.written(&record.origin);
    }

    /// What the newest level of a position calls sellable.
    pub fn sellable(&self, key: &str) -> Option<Decimal> {
        let level = self.positions.get(key)?.level.as_ref()?;
        Some(level.event.sellable)
    }

    /// Invariant 7.
    pub fn versions(&self) -> Judged {
        self.gap.clone().map_or(Ok(()), Err)?;
        self.orders.sources()
    }

    fn follow(&mut self, what: &str, before: Option<i64>, version: i64, origin: &Origin) {
        let due = before.unwrap_or_default() + 1;
        if version != due && self.gap.is_none() {
            self.gap = Some(format!(
                "{what} version {version} where {due} was due: {origin}"
            ));
        }
    }

    fn position(&mut self, key: Text) -> &mut Position {
        self.positions.entry(key).or_default()
    }

    fn changed(&mut self, key: Text, e: &StockChanged, origin: &Origin) {
        if is_compared_only(&e.meta) {
            return;
        }
        let position = self.positions.entry(key.clone()).or_default();
        if position.changes.contains_key(&e.meta.event_id) {
            return;
        }
        let leaves_for = e
            .reservation_id
            .filter(|_| e.from_state == StockState::Sellable);
        let place = Place::of(origin);
        position.changes.insert(
            e.meta.event_id,
            Change {
                position: (e.meta.source_epoch, sequence_of(e)),
                buckets: buckets_of(e),
                recorded_at: e.meta.recorded_at,
                occurred_at: e.meta.occurred_at,
                consumes: leaves_for.map(|id| (id, e.qty)),
                place,
            },
        );
        if matches!(e.reason, StockReason::TransferIn | StockReason::TransferOut) {
            let transfer = self.transfers.entry(e.movement_id.clone()).or_default();
            transfer.last = Some(place);
            match (e.from_state, e.to_state) {
                (StockState::Supplier, StockState::InTransit) => {
                    transfer.announced += e.qty;
                    transfer.destination = key;
                }
                (_, StockState::InTransit) => transfer.left += e.qty,
                (_, StockState::Loss) => transfer.lost += e.qty,
                _ => transfer.arrived += e.qty,
            }
        }
    }

    fn snapshot(&mut self, key: Text, e: &StockSnapshot, origin: &Origin) {
        // What a source calls available tells what is there only with the claims that it knew.
        let claims = match e.basis {
            SnapshotBasis::AvailableNet => e.source_reserved,
            _ => Some(Decimal::ZERO),
        };
        let Some(claims) = claims.filter(|_| !is_compared_only(&e.meta)) else {
            return;
        };
        let snapshot = Snapshot {
            id: e.meta.event_id,
            as_of: (e.as_of_epoch, e.as_of_position),
            recorded_at: e.meta.recorded_at,
            occurred_at: e.as_of,
            stated: [
                Some(e.sellable + claims),
                e.damaged,
                e.quality_hold,
                e.in_transit_in,
            ],
            place: Place::of(origin),
        };
        self.position(key).snapshots.push(snapshot);
    }
}

/// A fact for reconciliation says nothing about what is there.
fn is_compared_only(meta: &EventMeta) -> bool {
    meta.origin == FactOrigin::Reconciliation
}

/// DOMAIN: a sale whose position is a clock reading is taken as not counted by a count within the
/// skew of clocks.
fn sequence_of(e: &StockChanged) -> i64 {
    let sale = e.reason == StockReason::Sale && e.from_state == StockState::Sellable;
    match e.meta.position_kind {
        PositionKind::TimestampMicros if sale => e.meta.source_position + 300_000_000,
        _ => e.meta.source_position,
    }
}

/// What a movement changes where its fact belongs. Goods that leave on a transfer are on their way to
/// somewhere else; only an announcement counts them as on the way here.
fn buckets_of(e: &StockChanged) -> [Decimal; BUCKETS] {
    let bucket = |state| match state {
        StockState::Sellable => Some(0),
        StockState::Damaged => Some(1),
        StockState::QualityHold => Some(2),
        StockState::InTransit => Some(3),
        _ => None,
    };
    let mut buckets = [Decimal::ZERO; BUCKETS];
    if let Some(from) = bucket(e.from_state) {
        buckets[from] -= e.qty;
    }
    let announced = e.from_state == StockState::Supplier;
    match bucket(e.to_state) {
        Some(3) if !announced => {}
        Some(to) => buckets[to] += e.qty,
        None => {}
    }
    buckets
}
