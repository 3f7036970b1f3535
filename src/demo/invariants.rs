//! The invariants that can be judged of the demo, each from the log and the storefronts' own books
//! by code that shares nothing with the reducers: no rule of `domain::stock` is used here.

use super::landscape::Shop;
use crate::codec::Codec;
use crate::contract::event::{
    Event, ReservationDecision, ReservationEvent, ReservationMode, ReservationStatus, StockLevel,
    StockReason, StockState, Text,
};
use crate::contract::topic;
use crate::domain::Decimal;
use crate::log::Log;
use crate::pipeline::Fault;
use crate::verify::{Ledger, read_topic};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Number of each invariant → `ok`, or why it does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Verdicts(pub BTreeMap<u32, String>);

/// What each invariant says, for people.
pub(super) const WORDING: [(u32, &str); 8] = [
    (1, "every record has one outcome, and nothing is buffered"),
    (2, "stock equals an independent fold of the facts"),
    (3, "what left on transfers arrived or is on the way"),
    (4, "no strict grant beyond what was available"),
    (5, "held = consumed + released + expired + active"),
    (7, "versions rise by one"),
    (12, "recorded decisions replayed give the live claims"),
    (13, "storefronts show what is published"),
];

impl Verdicts {
    /// Whether all hold.
    pub fn all_hold(&self) -> bool {
        self.0.values().all(|v| v == "ok")
    }
}

/// Everything that was written, decoded.
#[derive(Default)]
struct Written {
    levels: BTreeMap<String, Vec<StockLevel>>,
    published: BTreeMap<String, Vec<(i64, Decimal)>>,
    reservations: BTreeMap<uuid::Uuid, Vec<ReservationEvent>>,
    decisions: BTreeMap<String, Vec<ReservationDecision>>,
    /// Distinct facts by key: position and change of the sellable stock.
    changes: BTreeMap<String, BTreeMap<uuid::Uuid, (i64, Decimal)>>,
    /// Latest snapshot by key: position and quantity.
    snapshots: BTreeMap<String, (i64, Decimal)>,
    /// By movement: left, announced, arrived.
    transfers: BTreeMap<Text, (Decimal, Decimal, Decimal)>,
}

pub(super) fn judge(
    log: &Arc<dyn Log>,
    codec: &Codec,
    ledger: &Ledger,
    shops: &[Shop],
) -> Result<Verdicts, Fault> {
    let written = read(log, codec)?;
    let judged = [
        (1, outcomes(ledger)),
        (2, conservation(&written)),
        (3, transfers(&written)),
        (4, grants(&written)),
        (5, claims(&written)),
        (7, versions(&written)),
        (12, replay(&written)),
        (13, storefronts(&written, shops)),
    ];
    let verdict = |r: Result<(), String>| r.map_or_else(|why| why, |()| "ok".to_owned());
    Ok(Verdicts(
        judged
            .into_iter()
            .map(|(number, result)| (number, verdict(result)))
            .collect(),
    ))
}

fn read(log: &Arc<dyn Log>, codec: &Codec) -> Result<Written, Fault> {
    let mut w = Written::default();
    let mut seen_transfers: BTreeSet<uuid::Uuid> = BTreeSet::new();
    let topics = [
        topic::STOCK_CHANGE,
        topic::STOCK_SNAPSHOT,
        topic::STOCK_LEVEL,
        topic::STOCK_ATS,
        topic::RESERVATION_EVENT,
        topic::RESERVATION_DECISION,
    ];
    for topic in topics {
        let mut broken = None;
        read_topic(log.as_ref(), topic, |record| {
            let key =
                String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
            match codec.decode(record) {
                Ok(Event::StockChanged(e)) => {
                    let mut change = Decimal::ZERO;
                    if e.from_state == StockState::Sellable {
                        change -= e.qty;
                    }
                    if e.to_state == StockState::Sellable {
                        change += e.qty;
                    }
                    w.changes
                        .entry(key)
                        .or_default()
                        .insert(e.meta.event_id, (e.meta.source_position, change));
                    if matches!(e.reason, StockReason::TransferIn | StockReason::TransferOut)
                        && seen_transfers.insert(e.meta.event_id)
                    {
                        let t = w.transfers.entry(e.movement_id.clone()).or_default();
                        match (e.from_state, e.to_state) {
                            (StockState::Sellable, StockState::InTransit) => t.0 += e.qty,
                            (StockState::Supplier, StockState::InTransit) => t.1 += e.qty,
                            _ => t.2 += e.qty,
                        }
                    }
                }
                Ok(Event::StockSnapshot(e)) => {
                    let latest = w
                        .snapshots
                        .entry(key)
                        .or_insert((e.as_of_position, e.sellable));
                    if e.as_of_position > latest.0 {
                        *latest = (e.as_of_position, e.sellable);
                    }
                }
                Ok(Event::StockLevel(e)) => w.levels.entry(key).or_default().push(e),
                Ok(Event::AvailabilityChanged(e)) => w
                    .published
                    .entry(key)
                    .or_default()
                    .push((e.ats_version, e.ats)),
                Ok(Event::ReservationEvent(e)) => {
                    w.reservations.entry(e.reservation_id).or_default().push(e)
                }
                Ok(Event::ReservationDecision(e)) => w.decisions.entry(key).or_default().push(e),
                Ok(_) => {}
                Err(fault) => broken = Some(fault),
            }
        })?;
        if let Some(fault) = broken {
            return Err(fault);
        }
    }
    w.reservations
        .values_mut()
        .for_each(|events| events.sort_by_key(|e| e.reservation_version));
    w.decisions
        .values_mut()
        .for_each(|decisions| decisions.sort_by_key(|d| d.ledger_sequence));
    Ok(w)
}

fn outcomes(ledger: &Ledger) -> Result<(), String> {
    if !ledger.balances() {
        return Err(ledger
            .faults
            .first()
            .cloned()
            .unwrap_or_else(|| "the ledger does not balance".into()));
    }
    match ledger.buffered + ledger.in_flight {
        0 => Ok(()),
        open => Err(format!("{open} records are buffered or in flight at rest")),
    }
}

fn conservation(w: &Written) -> Result<(), String> {
    let keys: BTreeSet<&String> = w.changes.keys().chain(w.snapshots.keys()).collect();
    for key in keys {
        let (as_of, base) = w
            .snapshots
            .get(key)
            .copied()
            .unwrap_or((i64::MIN, Decimal::ZERO));
        let later = w
            .changes
            .get(key)
            .into_iter()
            .flat_map(|c| c.values())
            .filter(|(position, _)| *position > as_of);
        let folded = base + later.map(|(_, change)| *change).sum::<Decimal>();
        let level = w
            .levels
            .get(key)
            .and_then(|l| l.last())
            .map_or(Decimal::ZERO, |l| l.sellable);
        if folded != level {
            return Err(format!(
                "{key}: the facts give {folded}, the level says {level}"
            ));
        }
    }
    Ok(())
}

fn transfers(w: &Written) -> Result<(), String> {
    match w
        .transfers
        .iter()
        .find(|(_, (left, announced, arrived))| left != arrived || announced != arrived)
    {
        None => Ok(()),
        Some((id, (left, announced, arrived))) => Err(format!(
            "{id}: {left} left, {announced} were announced, {arrived} arrived"
        )),
    }
}

fn grants(w: &Written) -> Result<(), String> {
    for (key, decisions) in &w.decisions {
        let mut first = BTreeSet::new();
        for d in decisions.iter().filter(|d| first.insert(d.reservation_id)) {
            let available = (d.sellable_before - d.reserved_before).or_zero();
            if d.mode == ReservationMode::Strict
                && d.status == ReservationStatus::Held
                && (d.qty_held > d.ats_before || d.ats_before > available)
            {
                return Err(format!(
                    "{key}: reservation {} holds {} where {} was available",
                    d.reservation_id, d.qty_held, d.ats_before
                ));
            }
        }
    }
    Ok(())
}

fn active(status: ReservationStatus, held: Decimal, consumed: Decimal) -> Decimal {
    match status {
        ReservationStatus::Held
        | ReservationStatus::Confirmed
        | ReservationStatus::PartiallyConsumed => held - consumed,
        _ => Decimal::ZERO,
    }
}

fn claims(w: &Written) -> Result<(), String> {
    let (mut held, mut consumed, mut ended, mut open) =
        (Decimal::ZERO, Decimal::ZERO, Decimal::ZERO, Decimal::ZERO);
    for events in w.reservations.values() {
        let Some(last) = events.last() else { continue };
        held += last.qty_held;
        consumed += last.qty_consumed;
        match last.status {
            ReservationStatus::Released | ReservationStatus::Expired => {
                ended += last.qty_held - last.qty_consumed
            }
            status => open += active(status, last.qty_held, last.qty_consumed),
        }
    }
    if held == consumed + ended + open {
        Ok(())
    } else {
        Err(format!(
            "held {held}, but consumed {consumed} + released and expired {ended} + active {open}"
        ))
    }
}

fn versions(w: &Written) -> Result<(), String> {
    for (key, levels) in &w.levels {
        if levels
            .iter()
            .enumerate()
            .any(|(i, l)| l.level_version != i as i64 + 1)
        {
            return Err(format!("{key}: level versions do not rise by one"));
        }
    }
    for (key, published) in &w.published {
        if published
            .iter()
            .enumerate()
            .any(|(i, (version, _))| *version != i as i64 + 1)
        {
            return Err(format!("{key}: availability versions do not rise by one"));
        }
    }
    for (id, events) in &w.reservations {
        if events
            .windows(2)
            .any(|e| e[1].reservation_version != e[0].reservation_version + 1)
        {
            return Err(format!("reservation {id}: versions do not rise by one"));
        }
    }
    Ok(())
}

/// Replays each position's decisions in their order: the claims that follow must be those that each
/// decision was based on, and at the end those of the live level.
fn replay(w: &Written) -> Result<(), String> {
    let mut by_sequence: BTreeMap<(String, i64), &ReservationEvent> = BTreeMap::new();
    for event in w.reservations.values().flatten() {
        let key = crate::domain::compound_key(&[&event.sku, &event.location_id]).to_string();
        by_sequence.insert((key, event.ledger_sequence), event);
    }
    for (key, decisions) in &w.decisions {
        let mut claims: BTreeMap<uuid::Uuid, Decimal> = BTreeMap::new();
        for (index, d) in decisions.iter().enumerate() {
            if d.ledger_sequence != index as i64 + 1 {
                return Err(format!("{key}: decision {} is missing", index + 1));
            }
            let claimed: Decimal = claims.values().copied().sum();
            if claimed != d.reserved_before {
                return Err(format!(
                    "{key}: decision {} was based on {} claimed, replay gives {claimed}",
                    d.ledger_sequence, d.reserved_before
                ));
            }
            if let Some(e) = by_sequence.get(&(key.clone(), d.ledger_sequence)) {
                claims.insert(
                    d.reservation_id,
                    active(e.status, e.qty_held, e.qty_consumed),
                );
            }
        }
        let claimed: Decimal = claims.values().copied().sum();
        let live = w
            .levels
            .get(key)
            .and_then(|l| l.last())
            .map_or(Decimal::ZERO, |l| l.reserved);
        if claimed != live {
            return Err(format!(
                "{key}: replay gives {claimed} claimed, the level says {live}"
            ));
        }
    }
    Ok(())
}

fn storefronts(w: &Written, shops: &[Shop]) -> Result<(), String> {
    for shop in shops {
        let books = shop.fake.books();
        for (key, published) in &w.published {
            let parts = crate::domain::split_key(key);
            let [sku, channel] = parts.as_slice() else {
                return Err(format!("{key} is not of a SKU and a channel"));
            };
            let Some((_, ats)) = published.last().filter(|_| channel == shop.channel) else {
                continue;
            };
            let shown = books[sku].as_i64().unwrap_or(0);
            if super::facts::whole(shown) != *ats {
                return Err(format!(
                    "{} shows {shown} of {sku}, {ats} is published",
                    shop.name
                ));
            }
        }
    }
    Ok(())
}
