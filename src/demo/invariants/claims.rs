//! Invariants 4 and 5, and the part of 12 that concerns claims: recorded decisions replayed.

use super::Judged;
use super::books::{At, Books, Change, Place, Position};
use super::levels::offered;
use crate::contract::event::{
    ReservationAction, ReservationDecision, ReservationEvent, ReservationMode, ReservationStatus,
    Text,
};
use crate::contract::topic;
use crate::domain::{Decimal, Timestamp, compound_key};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// What the claims of a position come to.
#[derive(Default)]
pub(super) struct Claimed {
    pub by_channel: BTreeMap<Text, Decimal>,
    pub backordered: Decimal,
}

/// A claim as the decisions so far leave it.
struct Claim {
    channel: Text,
    active: Decimal,
    backordered: Decimal,
}

/// A position's decisions in their order, with what each left of its claim.
struct Replay<'a> {
    key: Text,
    events: BTreeMap<i64, &'a At<ReservationEvent>>,
    claims: BTreeMap<Uuid, Claim>,
}

fn is_over(status: ReservationStatus) -> bool {
    matches!(
        status,
        ReservationStatus::Rejected
            | ReservationStatus::Consumed
            | ReservationStatus::Released
            | ReservationStatus::Expired
    )
}

/// What a claim binds.
fn active(e: &ReservationEvent) -> Decimal {
    match is_over(e.status) {
        true => Decimal::ZERO,
        false => e.qty_held - e.qty_consumed,
    }
}

impl<'a> Replay<'a> {
    fn new(books: &'a Books, position: &Position) -> Self {
        let first = position.decisions.first();
        let key = first.map(|d| compound_key(&[&d.event.sku, &d.event.location_id]));
        let mut events = BTreeMap::new();
        for d in &position.decisions {
            let of_claim = books.reservations.get(&d.event.reservation_id);
            let told = of_claim.into_iter().flatten().find(|e| {
                e.event.ledger_sequence == d.event.ledger_sequence
                    && e.event.sku == d.event.sku
                    && e.event.location_id == d.event.location_id
            });
            if let Some(told) = told {
                events.insert(d.event.ledger_sequence, told);
            }
        }
        Replay {
            key: key.unwrap_or_default(),
            events,
            claims: BTreeMap::new(),
        }
    }

    fn by_channel(&self) -> BTreeMap<Text, Decimal> {
        let mut sums: BTreeMap<Text, Decimal> = BTreeMap::new();
        for claim in self.claims.values().filter(|c| !c.active.is_zero()) {
            *sums.entry(claim.channel.clone()).or_default() += claim.active;
        }
        sums
    }

    /// Takes a decision over. One that nobody was told of, for want of an order, says itself what it
    /// granted.
    fn take(&mut self, d: &ReservationDecision) {
        let claim = match self.events.get(&d.ledger_sequence) {
            Some(told) => Claim {
                channel: told.event.channel_id.clone(),
                active: active(&told.event),
                backordered: told.event.qty_backordered,
            },
            None => {
                let before = self.claims.get(&d.reservation_id);
                let before = before.map_or(Decimal::ZERO, |c| c.active);
                let active = match is_over(d.status) {
                    true => Decimal::ZERO,
                    false => before + d.qty_held,
                };
                Claim {
                    channel: d.channel_id.clone(),
                    active,
                    backordered: d.qty_backordered,
                }
            }
        };
        self.claims.insert(d.reservation_id, claim);
    }
}

/// What all decisions of a position leave.
pub(super) fn claimed(books: &Books, position: &Position) -> Claimed {
    let mut replay = Replay::new(books, position);
    for d in &position.decisions {
        replay.take(&d.event);
    }
    Claimed {
        by_channel: replay.by_channel(),
        backordered: replay.claims.values().map(|c| c.backordered).sum(),
    }
}

/// Invariant 4: along each position's decisions, what was available is computed anew from the claims
/// that the decisions before left, and nothing strict was granted beyond it.
pub(super) fn grants(books: &Books, skew: Duration) -> Judged {
    for position in books.positions.values() {
        let mut replay = Replay::new(books, position);
        for At { origin, event: d } in &position.decisions {
            let key = &replay.key;
            let claimed = replay.by_channel();
            let reserved: Decimal = claimed.values().copied().sum();
            if d.reserved_before != reserved {
                return Err(format!(
                    "{key}: the decision took {} as claimed, the decisions before it leave {reserved}: {origin}",
                    d.reserved_before
                ));
            }
            let (least, most) = sellable_before(books, position, d, skew);
            if d.sellable_before < least || d.sellable_before > most {
                return Err(format!(
                    "{key}: the decision took {} as sellable, the facts until then give {least} to {most}: {origin}",
                    d.sellable_before
                ));
            }
            let policies = position.policies.iter().map(Some).chain([None]);
            let ats = |policy| offered(d.sellable_before, &claimed, policy, &d.channel_id);
            let mut possible = policies.map(ats);
            if !possible.any(|ats| ats == d.ats_before) {
                return Err(format!(
                    "{key}: the decision took {} as available to {}, {} was: {origin}",
                    d.ats_before,
                    d.channel_id,
                    ats(position.policy())
                ));
            }
            if d.mode == ReservationMode::Strict && d.qty_held > d.ats_before {
                return Err(format!(
                    "{key}: reservation {} was granted {} where {} was available: {origin}",
                    d.reservation_id, d.qty_held, d.ats_before
                ));
            }
            replay.take(d);
        }
    }
    Ok(())
}

/// Between what and what the sellable stock can have been at a decision: the level that it names,
/// and the facts that were taken in since, in whatever order they came and however old they were;
/// clocks may be `skew` apart.
fn sellable_before(
    books: &Books,
    position: &Position,
    d: &ReservationDecision,
    skew: Duration,
) -> (Decimal, Decimal) {
    let version = usize::try_from(d.level_version).unwrap_or_default();
    let level = version.checked_sub(1).and_then(|v| position.history.get(v));
    let (base, since) = level.copied().unwrap_or_default();
    let (since, until) = (since.minus(skew), d.meta.recorded_at.plus(skew));
    let within = |topic: &str, place: Place, recorded_at: Timestamp| {
        let at = books
            .outcomes
            .taken_in(topic, place.partition, place.offset);
        at.unwrap_or(recorded_at).max(recorded_at) >= since && recorded_at <= until
    };
    let (mut least, mut most) = (base, base);
    let widen = |c: &Change, least: &mut Decimal, most: &mut Decimal| {
        *least += c.buckets[0].min(Decimal::ZERO);
        *most += c.buckets[0].max(Decimal::ZERO);
    };
    for c in position.changes.values() {
        if within(topic::STOCK_CHANGE, c.place, c.recorded_at) {
            widen(c, &mut least, &mut most);
        }
    }
    for s in &position.snapshots {
        if !within(topic::STOCK_SNAPSHOT, s.place, s.recorded_at) {
            continue;
        }
        let stated = s.stated[0].unwrap_or_default();
        let (mut low, mut high) = (stated, stated);
        let later = position.changes.values().filter(|c| c.position > s.as_of);
        later.for_each(|c| widen(c, &mut low, &mut high));
        (least, most) = (least.min(low), most.max(high));
    }
    (least, most)
}

/// Invariant 5: each claim's quantities add up, nothing ends without a cause or outlives its end, and
/// what the levels call reserved is what the claims bind.
pub(super) fn balance(books: &Books, end: Timestamp) -> Judged {
    let mut shipped: BTreeMap<Uuid, Decimal> = BTreeMap::new();
    for position in books.positions.values() {
        for c in position.changes.values() {
            let dead = (c.place.partition, c.place.offset);
            if let Some((id, quantity)) = c.consumes
                && !books.outcomes.is_dead(topic::STOCK_CHANGE, dead.0, dead.1)
            {
                *shipped.entry(id).or_default() += quantity;
            }
        }
    }
    for (id, events) in &books.reservations {
        let gone = shipped.get(id).copied().unwrap_or_default();
        claim_adds_up(books, *id, events, gone, end)?;
    }
    reserved_is_bound(books)
}

fn claim_adds_up(
    books: &Books,
    id: Uuid,
    events: &[At<ReservationEvent>],
    shipped: Decimal,
    end: Timestamp,
) -> Judged {
    let Some(At {
        origin,
        event: last,
    }) = events.last()
    else {
        return Ok(());
    };
    let fails = |what: String, origin| Err(format!("reservation {id} {what}: {origin}"));
    for pair in events.windows(2) {
        let [before, after] = pair else { continue };
        if is_over(before.event.status) {
            let what = format!("was {} and is {}", before.event.status, after.event.status);
            return fails(what, &after.origin);
        }
        if after.event.qty_consumed < before.event.qty_consumed {
            return fails("has consumed less than before".into(), &after.origin);
        }
    }
    let unused = last.qty_held - last.qty_consumed;
    let given_back = matches!(
        last.status,
        ReservationStatus::Released | ReservationStatus::Expired
    );
    if unused.is_negative() || (is_over(last.status) && !given_back && !unused.is_zero()) {
        let what = format!(
            "is {} with {} held and {} consumed",
            last.status, last.qty_held, last.qty_consumed
        );
        return fails(what, origin);
    }
    let due = match is_over(last.status) && last.status != ReservationStatus::Consumed {
        // Goods that left after its end were not its own.
        true => last.qty_consumed.min(shipped),
        false => shipped.min(last.qty_requested),
    };
    if last.qty_consumed != due {
        let what = format!("has consumed {}, {shipped} left for it", last.qty_consumed);
        return fails(what, origin);
    }
    let commands = books.commands.get(&id);
    let asked = |wanted: &[ReservationAction]| {
        let mut all = commands.into_iter().flatten();
        all.any(|c| wanted.contains(&c.event.action))
    };
    let expires = commands
        .into_iter()
        .flatten()
        .find_map(|c| c.event.expires_at);
    match last.status {
        ReservationStatus::Released
            if !asked(&[ReservationAction::Release, ReservationAction::Reassign]) =>
        {
            fails("is released, and nobody asked for it".into(), origin)
        }
        ReservationStatus::Expired if expires.is_none_or(|at| last.meta.recorded_at < at) => {
            fails("expired before its time".into(), origin)
        }
        ReservationStatus::Held if expires.is_some_and(|at| at <= end) => {
            fails("is held beyond its time".into(), origin)
        }
        _ => Ok(()),
    }
}

fn reserved_is_bound(books: &Books) -> Judged {
    let mut bound: BTreeMap<Text, Decimal> = BTreeMap::new();
    for events in books.reservations.values() {
        if let Some(At { event: e, .. }) = events.last() {
            *bound
                .entry(compound_key(&[&e.sku, &e.location_id]))
                .or_default() += active(e);
        }
    }
    for (key, position) in &books.positions {
        let claims = bound.get(key).copied().unwrap_or_default();
        if let Some(At { origin, event }) = &position.level
            && event.reserved != claims
        {
            return Err(format!(
                "{key}: the claims bind {claims}, the level says {} are reserved: {origin}",
                event.reserved
            ));
        }
    }
    Ok(())
}

/// The part of invariant 12 that concerns claims: whoever asked was told what was decided.
pub(super) fn replayed(books: &Books) -> Judged {
    for position in books.positions.values() {
        let replay = Replay::new(books, position);
        for At { origin, event: d } in &position.decisions {
            if d.order_id.is_empty() {
                continue;
            }
            let Some(told) = replay.events.get(&d.ledger_sequence) else {
                return Err(format!(
                    "{}: decision {} was not told to its order: {origin}",
                    replay.key, d.ledger_sequence
                ));
            };
            let e = &told.event;
            let same = (e.status, e.mode, &e.channel_id, &e.order_id)
                == (d.status, d.mode, &d.channel_id, &d.order_id)
                && (e.qty_requested, e.qty_backordered, e.ats_before)
                    == (d.qty_requested, d.qty_backordered, d.ats_before)
                && e.qty_held >= d.qty_held;
            if !same {
                return Err(format!(
                    "reservation {}: what was decided ({}) is not what its order was told ({}): {}",
                    d.reservation_id, origin, e.status, told.origin
                ));
            }
        }
    }
    for events in books.reservations.values() {
        for At { origin, event: e } in events {
            let key = compound_key(&[&e.sku, &e.location_id]);
            let decided = books.positions.get(&key).is_some_and(|p| {
                let mut all = p.decisions.iter();
                all.any(|d| {
                    d.event.ledger_sequence == e.ledger_sequence
                        && d.event.reservation_id == e.reservation_id
                })
            });
            if !decided {
                return Err(format!(
                    "reservation {}: told without a decision: {origin}",
                    e.reservation_id
                ));
            }
        }
    }
    Ok(())
}
