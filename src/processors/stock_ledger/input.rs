//! From events to facts and commands: checks of data quality, then translation.

use crate::contract::event::{
    Outcome, OversellPolicy, PositionKind, ReservationAction, ReservationCommand,
    ReservationDecision, ReservationMode, ReservationStatus, SnapshotBasis, StockChanged,
    StockPolicy, StockReason, StockSnapshot, StockState as WireState,
};
use crate::domain::order::ATTEMPTS_MAX;
use crate::domain::stock::{
    Action, Allocation, ClaimStatus, Command, Effect, Mode, Movement, Oversell, Place, Policy,
    Ruling, Snapshot, StockState, Verdict, gs1_check_digit_holds,
};
use crate::domain::{Decimal, Position, reservation_id};
use crate::pipeline::{Fault, Origin};
use crate::processors::checks::{CLOCK_SKEW_MAX, check_times, quality, unknown};

/// Largest quantity of one fact; keeps sums far from the end of numbers.
const QUANTITY_MAX: i64 = 10_000_000_000 * 10_000;

pub(super) fn movement(e: &StockChanged, origin: &Origin) -> Movement {
    // Checked before: neither is UNKNOWN.
    let from = state_of(e.from_state).unwrap_or(StockState::Loss);
    let to = state_of(e.to_state).unwrap_or(StockState::Loss);
    let leaves = from == StockState::Sellable;
    Movement {
        id: e.meta.event_id.as_u128(),
        position: position(e),
        occurred_at: e.meta.occurred_at,
        recorded_at: e.meta.recorded_at,
        effect: Effect::of(from, to, e.qty),
        consumes: e
            .reservation_id
            .filter(|_| leaves)
            .map(|id| (id.as_u128(), e.qty)),
        place: place(origin),
    }
}

/// The claims that goods may leave for when a movement names its order and no claim: systems outside
/// know of orders, not of claims. Reservations have natural ids, so they can be looked for.
pub(super) fn claims_of(e: &StockChanged) -> impl Iterator<Item = u128> {
    let of_customer = e.from_state == WireState::Sellable && e.to_state == WireState::Customer;
    let named = e.order_id.as_ref().zip(e.order_line_id.as_ref());
    let named = named.filter(|_| of_customer && e.reservation_id.is_none());
    named.into_iter().flat_map(move |(order, line)| {
        (1..=ATTEMPTS_MAX)
            .map(move |attempt| reservation_id(order, line, &e.location_id, attempt).as_u128())
    })
}

/// Where a movement stands in its source's order. Where positions are clock readings, a sale at a
/// till may be stamped before a count that did not see it: within the skew of clocks it is taken as
/// not counted, which promises too little rather than too much until the next count.
fn position(e: &StockChanged) -> Position {
    let sale = e.reason == StockReason::Sale && e.from_state == WireState::Sellable;
    let skew = match e.meta.position_kind {
        PositionKind::TimestampMicros if sale => CLOCK_SKEW_MAX.as_micros() as i64,
        _ => 0,
    };
    Position {
        epoch: e.meta.source_epoch,
        sequence: e.meta.source_position.saturating_add(skew),
    }
}

/// The snapshot in terms of what is there. What the source calls available becomes that by adding
/// back the claims that it knew; without them there is no telling.
pub(super) fn snapshot(e: &StockSnapshot) -> Option<Snapshot> {
    let claims = match e.basis {
        SnapshotBasis::AvailableNet => e.source_reserved?,
        _ => Decimal::ZERO,
    };
    Some(Snapshot {
        id: e.meta.event_id.as_u128(),
        as_of: Position {
            epoch: e.as_of_epoch,
            sequence: e.as_of_position,
        },
        occurred_at: e.as_of,
        recorded_at: e.meta.recorded_at,
        sellable: e.sellable + claims,
        damaged: e.damaged,
        held: e.quality_hold,
        incoming: e.in_transit_in,
    })
}

pub(super) fn command(e: &ReservationCommand, origin: &Origin) -> Command {
    Command {
        id: e.reservation_id.as_u128(),
        order: e.order_id.clone(),
        line: e.order_line_id.clone(),
        channel: e.channel_id.clone(),
        mode: match e.mode {
            ReservationMode::Forced => Mode::Forced,
            _ => Mode::Strict,
        },
        quantity: e.qty,
        expires_at: e.expires_at,
        promise_at: e.promise_at,
        recorded_at: e.meta.recorded_at,
        place: place(origin),
    }
}

/// A decision as it was recorded, and the claim that it is of; `None` where this build does not know its
/// words.
pub(super) fn ruling(e: &ReservationDecision) -> Option<(u128, Ruling)> {
    let ruling = Ruling {
        action: match e.action {
            ReservationAction::Hold => Some(Action::Hold),
            ReservationAction::Confirm => Some(Action::Confirm),
            ReservationAction::Release => Some(Action::Release),
            ReservationAction::Reassign => Some(Action::Reassign),
            ReservationAction::Unknown => None,
        },
        status: match e.status {
            ReservationStatus::Unknown => return None,
            ReservationStatus::Held => ClaimStatus::Held,
            ReservationStatus::Confirmed => ClaimStatus::Confirmed,
            ReservationStatus::Rejected => ClaimStatus::Rejected,
            ReservationStatus::Backordered => ClaimStatus::Backordered,
            ReservationStatus::PartiallyConsumed => ClaimStatus::PartiallyConsumed,
            ReservationStatus::Consumed => ClaimStatus::Consumed,
            ReservationStatus::Released => ClaimStatus::Released,
            ReservationStatus::Expired => ClaimStatus::Expired,
        },
        granted: e.qty_held,
        sequence: e.ledger_sequence,
        at: e.meta.recorded_at,
    };
    Some((e.reservation_id.as_u128(), ruling))
}

/// How a movement's effect on a claim is booked.
pub(super) fn claim_effect(verdict: Verdict) -> (Outcome, Option<&'static str>) {
    match verdict {
        Verdict::Applied => (Outcome::Applied, None),
        _ => (Outcome::Superseded, Some("the claim is over")),
    }
}

fn place(origin: &Origin) -> Place {
    Place {
        partition: origin.partition,
        offset: origin.offset,
    }
}

fn state_of(state: WireState) -> Option<StockState> {
    Some(match state {
        WireState::Unknown => return None,
        WireState::Sellable => StockState::Sellable,
        WireState::Damaged => StockState::Damaged,
        WireState::QualityHold => StockState::QualityHold,
        WireState::InTransit => StockState::InTransit,
        WireState::Supplier => StockState::Supplier,
        WireState::Customer => StockState::Customer,
        WireState::Loss => StockState::Loss,
    })
}

pub(super) fn check_changed(e: &StockChanged) -> Result<(), Fault> {
    if e.from_state == WireState::Unknown {
        return Err(unknown("fromState"));
    }
    if e.to_state == WireState::Unknown {
        return Err(unknown("toState"));
    }
    if !e.qty.is_positive() {
        return Err(quality(format!(
            "qty is {}, but must be more than 0; direction is fromState to toState",
            e.qty
        )));
    }
    if e.from_state == e.to_state {
        return Err(quality(format!(
            "fromState and toState are both {}",
            e.from_state
        )));
    }
    let codes = [
        ("gtin", &e.gtin, &[8, 12, 13, 14][..]),
        ("gln", &e.gln, &[13][..]),
    ];
    for (name, code, lengths) in codes {
        if let Some(code) = code
            && !(lengths.contains(&code.len()) && gs1_check_digit_holds(code))
        {
            return Err(quality(format!(
                "the length or check digit of {name} {code} does not hold"
            )));
        }
    }
    check_quantity("qty", e.qty)?;
    check_times(&e.meta)
}

pub(super) fn check_snapshot(e: &StockSnapshot) -> Result<(), Fault> {
    if e.basis == SnapshotBasis::Unknown {
        return Err(unknown("basis"));
    }
    check_quantity("sellable", e.sellable)?;
    let others = [
        ("damaged", e.damaged),
        ("qualityHold", e.quality_hold),
        ("inTransitIn", e.in_transit_in),
        ("sourceReserved", e.source_reserved),
    ];
    for (name, quantity) in others {
        if let Some(quantity) = quantity {
            check_not_negative(name, quantity)?;
            check_quantity(name, quantity)?;
        }
    }
    check_times(&e.meta)
}

pub(super) fn check_policy(e: &StockPolicy) -> Result<Policy, Fault> {
    let oversell = match e.oversell {
        OversellPolicy::Unknown => return Err(unknown("oversell")),
        OversellPolicy::Block => Oversell::Block,
        OversellPolicy::BackorderToLimit => Oversell::BackorderToLimit,
        OversellPolicy::Allow => Oversell::Allow,
    };
    check_not_negative("safetyStock", e.safety_stock)?;
    check_quantity("safetyStock", e.safety_stock)?;
    check_not_negative("backorderLimit", e.backorder_limit.unwrap_or_default())?;
    let mut allocations: Vec<Allocation> = Vec::with_capacity(e.allocations.len());
    for a in &e.allocations {
        if a.share_pct.is_some_and(|p| !(0.0..=100.0).contains(&p)) {
            return Err(quality(format!(
                "sharePct of {} is not between 0 and 100",
                a.channel_id
            )));
        }
        check_not_negative("hardQty", a.hard_qty.unwrap_or_default())?;
        check_quantity("hardQty", a.hard_qty.unwrap_or_default())?;
        check_not_negative("buffer", a.buffer.unwrap_or_default())?;
        if allocations
            .iter()
            .any(|known| known.channel == a.channel_id)
        {
            return Err(quality(format!(
                "two allocations are of channel {}",
                a.channel_id
            )));
        }
        allocations.push(Allocation {
            channel: a.channel_id.clone(),
            hard: a.hard_qty,
            share_percent: a.share_pct,
            buffer: a.buffer,
        });
    }
    check_times(&e.meta)?;
    Ok(Policy {
        version: e.policy_version,
        safety: e.safety_stock,
        allocations,
        oversell,
        backorder_limit: e.backorder_limit,
    })
}

pub(super) fn check_command(e: &ReservationCommand) -> Result<Action, Fault> {
    let action = match e.action {
        ReservationAction::Unknown => return Err(unknown("action")),
        ReservationAction::Hold => Action::Hold,
        ReservationAction::Confirm => Action::Confirm,
        ReservationAction::Release => Action::Release,
        ReservationAction::Reassign => Action::Reassign,
    };
    if action == Action::Hold {
        if e.mode == ReservationMode::Unknown {
            return Err(unknown("mode"));
        }
        if !e.qty.is_positive() {
            return Err(quality(format!(
                "qty of a hold is {}, but must be more than 0",
                e.qty
            )));
        }
        if e.order_id.is_empty() {
            return Err(quality("a hold needs an orderId"));
        }
    }
    check_quantity("qty", e.qty)?;
    check_times(&e.meta)?;
    Ok(action)
}

fn check_quantity(name: &str, quantity: Decimal) -> Result<(), Fault> {
    if quantity.units().abs() > QUANTITY_MAX {
        return Err(quality(format!("{name} {quantity} is beyond any stock")));
    }
    Ok(())
}

fn check_not_negative(name: &str, quantity: Decimal) -> Result<(), Fault> {
    if quantity.is_negative() {
        return Err(quality(format!("{name} {quantity} is less than 0")));
    }
    Ok(())
}
