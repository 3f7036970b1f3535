//! Invariants 2 and 3, and the part of 12 that concerns levels and availability: the facts folded
//! anew.

use super::Judged;
use super::books::{At, BUCKETS, Books, Position, Snapshot};
use super::claims::{self, Claimed};
use crate::contract::event::{
    AvailabilityChanged, ChannelStatus, Confidence, EventMeta, OversellPolicy, StockLevel,
    StockPolicy, Text,
};
use crate::contract::topic;
use crate::domain::{Decimal, Timestamp, compound_key, split_key};
use serde::Serialize;
use std::collections::BTreeMap;

/// What the facts of a position come to.
pub(super) struct Folded {
    pub buckets: [Decimal; BUCKETS],
    /// Latest business time of any fact.
    as_of: Timestamp,
    /// Whether facts of an epoch wait for its snapshot.
    waits: bool,
}

/// The quantity of the newest snapshot that states a bucket, plus every distinct movement after it.
pub(super) fn fold(books: &Books, position: &Position) -> Folded {
    let dead = |topic, place: super::books::Place| {
        books.outcomes.is_dead(topic, place.partition, place.offset)
    };
    let snapshots: Vec<&Snapshot> = position
        .snapshots
        .iter()
        .filter(|s| !dead(topic::STOCK_SNAPSHOT, s.place))
        .collect();
    let changes = || {
        let all = position.changes.values();
        all.filter(|c| !dead(topic::STOCK_CHANGE, c.place))
    };
    let newest = |bucket: usize| {
        let stating = snapshots.iter().filter(|s| s.stated[bucket].is_some());
        stating.max_by_key(|s| (s.as_of, s.recorded_at, s.id))
    };
    let epoch = match newest(0) {
        Some(base) => Some(base.as_of.0),
        None => changes().map(|c| c.position.0).min(),
    };
    let trusted = |position: (i32, i64)| epoch.is_some_and(|epoch| position.0 <= epoch);
    let buckets = std::array::from_fn(|bucket| {
        let base = newest(bucket);
        let after = |position: (i32, i64)| base.is_none_or(|base| position > base.as_of);
        let counted = changes().filter(|c| trusted(c.position) && after(c.position));
        let later: Decimal = counted.map(|c| c.buckets[bucket]).sum();
        base.and_then(|b| b.stated[bucket]).unwrap_or_default() + later
    });
    let times = changes().map(|c| c.occurred_at);
    Folded {
        buckets,
        as_of: times
            .chain(snapshots.iter().map(|s| s.occurred_at))
            .max()
            .unwrap_or_default(),
        waits: changes().any(|c| !trusted(c.position)),
    }
}

impl Position {
    /// The policy that counts.
    pub(super) fn policy(&self) -> Option<&StockPolicy> {
        self.policies.iter().max_by_key(|p| p.policy_version)
    }

    /// A fact of the position, to be named.
    fn any_fact(&self) -> String {
        let change = self.changes.values().next();
        let change = change.map(|c| c.place.in_topic(topic::STOCK_CHANGE).to_string());
        let snapshot = self.snapshots.first();
        let snapshot = || snapshot.map(|s| s.place.in_topic(topic::STOCK_SNAPSHOT).to_string());
        change.or_else(snapshot).unwrap_or_default()
    }
}

/// Invariant 2.
pub(super) fn conservation(books: &Books) -> Judged {
    for (key, position) in &books.positions {
        let folded = fold(books, position);
        let Some(At { origin, event }) = &position.level else {
            return Err(format!("{key} has no level: {}", position.any_fact()));
        };
        let levels = [event.sellable, event.damaged, event.quality_hold];
        let names = ["sellable", "damaged", "held for quality"];
        for ((name, level), fact) in names.iter().zip(levels).zip(folded.buckets) {
            if level != fact {
                return Err(format!(
                    "{key}: the facts give {fact} {name}, the level says {level}: {origin}"
                ));
            }
        }
    }
    Ok(())
}

/// Invariant 3.
pub(super) fn transfers(books: &Books) -> Judged {
    let mut on_the_way: BTreeMap<&Text, Decimal> = BTreeMap::new();
    for (id, t) in &books.transfers {
        let place = t.last.map(|p| p.in_topic(topic::STOCK_CHANGE).to_string());
        let place = place.unwrap_or_default();
        let rest = t.left - t.arrived - t.lost;
        if t.left != t.announced || rest.is_negative() {
            return Err(format!(
                "{id}: {} left, {} were announced, {} arrived, {} were lost: {place}",
                t.left, t.announced, t.arrived, t.lost
            ));
        }
        *on_the_way.entry(&t.destination).or_default() += rest;
    }
    for (key, rest) in on_the_way {
        let Some(position) = books.positions.get(key) else {
            continue;
        };
        // Where the source itself says what is on the way, that counts.
        if position.snapshots.iter().any(|s| s.stated[3].is_some()) {
            continue;
        }
        if let Some(At { origin, event }) = &position.level
            && event.in_transit_in != rest
        {
            return Err(format!(
                "{key}: {rest} are on the way, the level says {}: {origin}",
                event.in_transit_in
            ));
        }
    }
    Ok(())
}

/// What a position offers to a channel, claims of each channel given.
pub(super) fn offered(
    sellable: Decimal,
    claimed: &BTreeMap<Text, Decimal>,
    policy: Option<&StockPolicy>,
    channel: &str,
) -> Decimal {
    let of = |channel: &str| claimed.get(channel).copied().unwrap_or_default();
    let safety = policy.map_or(Decimal::ZERO, |p| p.safety_stock);
    let reserved: Decimal = claimed.values().copied().sum();
    let pool = sellable - reserved - safety;
    let allocations = policy.map_or(&[][..], |p| &p.allocations);
    let mut available = pool;
    for a in allocations.iter().filter(|a| a.channel_id != channel) {
        available -= (a.hard_qty.unwrap_or_default() - of(&a.channel_id)).or_zero();
    }
    let own = allocations.iter().find(|a| a.channel_id == channel);
    if let Some(percent) = own.and_then(|a| a.share_pct) {
        let share = (sellable - safety).or_zero().percent(percent);
        available = available.min(share - of(channel));
    }
    available.or_zero()
}

/// The part of invariant 12 that concerns levels.
pub(super) fn levels(books: &Books) -> Judged {
    for (key, position) in &books.positions {
        let Some(At { origin, event }) = &position.level else {
            return Err(format!("{key} has no level: {}", position.any_fact()));
        };
        let rebuilt = level(books, key, position);
        let live = StockLevel {
            meta: EventMeta::default(),
            level_version: 0,
            ..event.clone()
        };
        compare(key, &rebuilt, &live, &origin.to_string())?;
    }
    Ok(())
}

fn level(books: &Books, key: &str, position: &Position) -> StockLevel {
    let parts = split_key(key);
    let part = |n: usize| Text::from(parts.get(n).map_or("", String::as_str));
    let folded = fold(books, position);
    let Claimed {
        by_channel,
        backordered,
    } = claims::claimed(books, position);
    let [sellable, damaged, quality_hold, incoming] = folded.buckets;
    let policy = position.policy();
    let safety_stock = policy.map_or(Decimal::ZERO, |p| p.safety_stock);
    let reserved: Decimal = by_channel.values().copied().sum();
    let served = books.served(&part(1));
    // A channel that the table does not know is offered what a policy allocates to it.
    let allocated = policy.map_or(&[][..], |p| &p.allocations).iter();
    let unknown = allocated
        .map(|a| &a.channel_id)
        .filter(|c| !books.channels.contains_key(*c));
    let channels = served.iter().map(|c| &c.channel_id).chain(unknown);
    StockLevel {
        sku: part(0),
        location_id: part(1),
        sellable,
        damaged,
        quality_hold,
        in_transit_in: incoming.or_zero(),
        reserved,
        backordered,
        safety_stock,
        ats: (sellable - reserved - safety_stock).or_zero(),
        ats_by_channel: channels
            .map(|c| (c.clone(), offered(sellable, &by_channel, policy, c)))
            .collect(),
        overcommitted: (reserved - sellable.or_zero()).or_zero(),
        as_of: folded.as_of,
        confidence: confidence(!folded.waits),
        ..StockLevel::default()
    }
}

impl Books {
    /// The channels that a location serves.
    fn served(&self, location: &str) -> Vec<&crate::contract::event::Channel> {
        let serves = |c: &&crate::contract::event::Channel| {
            c.status != ChannelStatus::Inactive
                && c.eligible_locations.iter().any(|l| l == location)
        };
        self.channels.values().filter(serves).collect()
    }
}

fn confidence(complete: bool) -> Confidence {
    match complete {
        true => Confidence::High,
        false => Confidence::Degraded,
    }
}

/// What the locations of a channel can promise together.
#[derive(Default)]
struct Promise {
    sum: Decimal,
    buffer: Decimal,
    unit: Option<Decimal>,
    backorderable: bool,
    waits: bool,
}

/// The part of invariant 12 that concerns availability. When it was true and what was said before
/// are histories, not state: they depend on what was published when.
pub(super) fn availability(books: &Books) -> Judged {
    let mut promises: BTreeMap<Text, Promise> = BTreeMap::new();
    for (key, position) in &books.positions {
        let parts = split_key(key);
        let [sku, location] = parts.as_slice() else {
            continue;
        };
        let folded = fold(books, position);
        let claimed = claims::claimed(books, position);
        let policy = position.policy();
        for channel in books.served(location) {
            let id = &channel.channel_id;
            let ats = offered(folded.buckets[0], &claimed.by_channel, policy, id);
            let allocation =
                policy.and_then(|p| p.allocations.iter().find(|a| a.channel_id == *id));
            let buffer = allocation.and_then(|a| a.buffer);
            let promise = promises.entry(compound_key(&[sku, id])).or_default();
            promise.unit = channel.unit;
            promise.sum += channel.unit.map_or(ats, |unit| ats.floor_to(unit));
            promise.buffer = promise.buffer.max(buffer.unwrap_or(channel.default_buffer));
            promise.backorderable |= policy.is_some_and(|p| match p.oversell {
                OversellPolicy::Allow => true,
                OversellPolicy::BackorderToLimit => {
                    p.backorder_limit.unwrap_or_default() > claimed.backordered
                }
                _ => false,
            });
            promise.waits |= folded.waits;
        }
    }
    for (key, promise) in promises {
        let parts = split_key(&key);
        let part = |n: usize| Text::from(parts.get(n).map_or("", String::as_str));
        let ats = (promise.sum - promise.buffer).or_zero();
        let rebuilt = AvailabilityChanged {
            sku: part(0),
            channel_id: part(1),
            scope: "NETWORK".into(),
            ats: promise.unit.map_or(ats, |unit| ats.floor_to(unit)),
            backorderable: promise.backorderable,
            confidence: confidence(!promise.waits),
            ..AvailabilityChanged::default()
        };
        let Some(At { origin, event }) = books.availability.get(&key) else {
            let position = books
                .positions
                .keys()
                .find(|k| k.starts_with(parts[0].as_str()));
            let fact = position.and_then(|k| Some(books.positions.get(k)?.any_fact()));
            return Err(format!(
                "{key}: {ats} could be promised, and nothing is published: {}",
                fact.unwrap_or_default()
            ));
        };
        let live = AvailabilityChanged {
            meta: EventMeta::default(),
            ats_version: 0,
            previous_ats: None,
            as_of: Timestamp::default(),
            ..event.clone()
        };
        compare(&key, &rebuilt, &live, &origin.to_string())?;
    }
    Ok(())
}

/// Compares field by field and names the first that differs.
fn compare<T: Serialize + PartialEq>(key: &str, rebuilt: &T, live: &T, place: &str) -> Judged {
    if rebuilt == live {
        return Ok(());
    }
    let fields = |value: &T| serde_json::to_value(value).unwrap_or_default();
    let (rebuilt, live) = (fields(rebuilt), fields(live));
    let names = live.as_object().into_iter().flat_map(|o| o.keys());
    let differing = names.into_iter().find(|name| rebuilt[*name] != live[*name]);
    let name = differing.map_or("?", String::as_str);
    Err(format!(
        "{key}: rebuilding gives {name} {}, live is {}: {place}",
        rebuilt[name], live[name]
    ))
}
