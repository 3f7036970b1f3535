//! Invariants 6, 7 (its part of orders), 8 and 10: orders in the log, in the storefronts and in the ERP.

use super::books::{At, Books};
use super::{Around, Entry, Judged};
use crate::contract::event::{
    LineState, OrderEvent, OrderEventType, OrderSnapshot, OrderState, Text,
};
use crate::domain::Decimal;
use crate::pipeline::Origin;
use std::collections::{BTreeMap, BTreeSet};

/// What was read of orders.
#[derive(Default)]
pub(super) struct Orders {
    /// As placed.
    pub placed: BTreeMap<Text, At<OrderSnapshot>>,
    /// The ERP's names for orders that it took.
    accepted: BTreeMap<Text, Vec<At<Option<Text>>>>,
    /// The newest state.
    pub states: BTreeMap<Text, At<OrderState>>,
    uneven: Option<String>,
    fallen: Option<String>,
}

impl Orders {
    pub fn said(&mut self, e: OrderEvent, origin: Origin) {
        match (e.r#type, e.order) {
            (OrderEventType::Placed, Some(order)) => {
                self.placed.entry(e.order_id).or_insert(At {
                    origin,
                    event: order,
                });
            }
            (OrderEventType::Accepted, _) => {
                let known = self.accepted.entry(e.order_id).or_default();
                if !known.iter().any(|a| a.event == e.erp_order_id) {
                    known.push(At {
                        origin,
                        event: e.erp_order_id,
                    });
                }
            }
            _ => {}
        }
    }

    /// Takes in a version of an order's state; gives the version before.
    pub fn state(&mut self, e: OrderState, origin: Origin) -> Option<i64> {
        if let Some(line) = e.lines.iter().find(|l| sum(l) != l.ordered) {
            self.uneven.get_or_insert_with(|| {
                format!(
                    "order {} line {}: {} were ordered, its buckets hold {}: {origin}",
                    e.order_id,
                    line.line_id,
                    line.ordered,
                    sum(line)
                )
            });
        }
        let known = self.states.get(&e.order_id);
        let before = known.map(|s| s.event.state_version);
        let fallen = known
            .into_iter()
            .flat_map(|s| &s.event.source_versions)
            .find(|(of, version)| e.source_versions.get(*of).is_none_or(|now| now < *version));
        if let Some((of, version)) = fallen {
            self.fallen.get_or_insert_with(|| {
                format!(
                    "order {}: {of} was known in version {version} before: {origin}",
                    e.order_id
                )
            });
        }
        self.states
            .insert(e.order_id.clone(), At { origin, event: e });
        before
    }

    /// The part of invariant 7 that concerns the versions of sources.
    pub fn sources(&self) -> Judged {
        self.fallen.clone().map_or(Ok(()), Err)
    }
}

fn sum(l: &LineState) -> Decimal {
    let buckets = [
        l.open,
        l.reserved,
        l.backordered,
        l.released,
        l.picked,
        l.shipped,
        l.delivered,
        l.cancelled,
    ];
    buckets.into_iter().sum()
}

/// Invariant 6.
pub(super) fn buckets(books: &Books) -> Judged {
    books.orders.uneven.clone().map_or(Ok(()), Err)
}

/// Invariant 8.
pub(super) fn in_erp(books: &Books, around: &Around<'_>) -> Judged {
    let of = |e: &Entry| (e.text("order").to_owned(), e.text("id").to_owned());
    let lost: BTreeSet<_> = around.of("erp", "order-lost").map(of).collect();
    let mut sales = lost.clone();
    let mut live: BTreeMap<String, String> = BTreeMap::new();
    for sale in around.of("erp", "order") {
        let (order, id) = of(sale);
        if !books.orders.placed.contains_key(order.as_str()) {
            return Err(format!(
                "the ERP has {id} for order {order}, which nobody has placed"
            ));
        }
        if lost.contains(&(order.clone(), id.clone())) {
            continue;
        }
        sales.insert((order.clone(), id.clone()));
        if let Some(other) = live.insert(order.clone(), id.clone()) {
            return Err(format!("the ERP has {other} and {id} for order {order}"));
        }
    }
    for (order, names) in &books.orders.accepted {
        let known = live.get(order.as_str()).map(String::as_str);
        for At { origin, event: id } in names {
            let id = id.as_deref().unwrap_or("nothing");
            let is_there = sales.contains(&(order.to_string(), id.to_owned()));
            if known.is_none() || !is_there {
                return Err(format!(
                    "order {order} is accepted as {id}, the ERP has {}: {origin}",
                    known.unwrap_or("nothing")
                ));
            }
        }
    }
    Ok(())
}

/// Invariant 10. What nobody can take in is in a
/// dead letter, not in a state.
pub(super) fn in_state(books: &Books, around: &Around<'_>) -> Judged {
    for (shop, order) in around
        .everywhere("order")
        .filter(|(s, _)| s.starts_with("storefront-"))
    {
        let id = order.text("order");
        let refused = books
            .orders
            .placed
            .get(id)
            .is_some_and(|At { origin, .. }| {
                let Origin {
                    topic,
                    partition,
                    offset,
                } = origin;
                books
                    .outcomes
                    .is_dead_for("order-lifecycle", topic, *partition, *offset)
            });
        if !books.orders.states.contains_key(id) && !refused {
            return Err(format!(
                "{shop} has order {} ({id}), and there is no state of it",
                order.text("number")
            ));
        }
    }
    Ok(())
}
