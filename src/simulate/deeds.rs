//! What somebody outside does, when it is his time.

use super::cast::{NODES, Trade, WEB, sku_of};
use super::plan::{Deed, Then};
use super::world::World;
use crate::contract::topic;
use crate::demo::facts::{Wish, whole};
use crate::demo::systems::{Node, System, Tricks, open};
use crate::domain::{Decimal, compound_key, natural_id};
use crate::log::{Outgoing, ProducerSpec};
use crate::pipeline::Headers;
use std::sync::MutexGuard;
use std::time::Duration;

/// A node by its number.
fn node(world: &World, number: usize) -> Option<MutexGuard<'_, Node>> {
    let mut all = world.cast.estate.nodes.values();
    all.nth(number).map(|n| open(n))
}

/// Does it.
pub(super) fn act(world: &World, deed: &Deed) {
    match deed {
        Deed::Receive {
            node: at,
            sku,
            units,
        } => {
            if let Some(mut node) = node(world, *at) {
                node.receive(&sku_of(*sku), Decimal::from(*units));
            }
        }
        Deed::Sell {
            node: at,
            sku,
            units,
        } => {
            if let Some(mut node) = node(world, *at) {
                node.sell(&sku_of(*sku), Decimal::from(*units));
            }
        }
        Deed::Count { node: at, sku, off } => {
            if let Some(mut node) = node(world, *at) {
                let sku = sku_of(*sku);
                // A node gives each movement a position, and a count that of the last one: counts that
                // differ must have something between them.
                node.sell(&sku, Decimal::ONE);
                let there = node.shelf().get(&sku).copied().unwrap_or_default();
                node.count(&sku, (there + Decimal::from(*off)).or_zero());
            }
        }
        Deed::Basket {
            node,
            sku,
            units,
            hold,
            then,
        } => hold_goods(world, (*node, *sku, *units), *hold, *then),
        Deed::HandOut => hand_out(world),
        Deed::Junk { sku } => write_junk(world, &sku_of(*sku)),
        Deed::Round(round) => open(&world.cast.market).work(&world.cast.estate, *round),
    }
}

fn hold_goods(world: &World, (node, sku, units): (usize, usize, i32), hold: Duration, then: Then) {
    let mut baskets = open(&world.cast.baskets);
    let now = baskets.desk().now();
    let order = compact_str::format_compact!("basket-{}-{node}-{sku}", now.0);
    let location = NODES[node % NODES.len()];
    let wish = Wish {
        reservation: natural_id(&[&order, "1", location, "1"]),
        order,
        sku: sku_of(sku),
        channel: WEB,
        quantity: i64::from(units),
        expires_at: now.plus(hold),
    };
    baskets.hold(wish, location, then);
}

/// A record without a schema, and its place.
fn write_junk(world: &World, sku: &str) {
    let (topic, key) = (topic::STOCK_CHANGE, compound_key(&[sku, NODES[0]]));
    let headers = Headers::default();
    let written = world.bare.producer(&ProducerSpec::default());
    let written = written.and_then(|mut producer| {
        producer.send(Outgoing {
            topic,
            partition: None,
            key: Some(key.as_bytes()),
            value: Some(b"junk"),
            headers: &headers,
            timestamp_ms: world.time.now().as_millis(),
        })
    });
    if written.is_ok() {
        world.readable(&[topic.to_owned()].into());
    }
}

/// What is confirmed leaves the shelf.
pub(super) fn hand_out(world: &World) {
    for (reservation, sku, location, units) in open(&world.cast.baskets).take_ready() {
        if let Some(node) = world.cast.estate.nodes.get(location) {
            open(node).hand_out(&sku, whole(units), reservation);
        }
    }
}

/// Every node receives one of each SKU.
pub(super) fn receive_everywhere(world: &World) {
    for node in world.cast.estate.nodes.values() {
        for sku in 0..super::cast::SKUS {
            open(node).receive(&sku_of(sku), Decimal::ONE);
        }
    }
}

/// Before anything else: stock is counted, and messages go their odd ways.
pub(super) fn open_shop(world: &World) {
    let estate = &world.cast.estate;
    match world.plan.trade {
        Trade::Orders => open(&world.cast.market).open(estate),
        Trade::Stock => {
            for (number, node) in estate.nodes.values().enumerate() {
                for sku in 0..super::cast::SKUS {
                    open(node).count(&sku_of(sku), Decimal::from((3 + sku + number) as i32));
                }
            }
        }
    }
    let tricks = Tricks {
        seed: world.plan.seed,
        twice: world.plan.twice,
    };
    let tricks = (world.plan.twice > 0.0).then_some(tricks);
    for system in &world.cast.systems {
        open(system).desk_mut().play(tricks);
    }
}
