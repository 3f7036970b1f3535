//! Orders and stock together on the embedded log: `reservation-saga`, `stock-ledger` and
//! `order-lifecycle`, with a log that does wrong whatever it can.

use crate::world::{FAULTS, World, meta};
use crossdock::contract::event::*;
use crossdock::contract::topic;
use crossdock::domain::{Decimal, compound_key, order_id};
use crossdock::pipeline::Clock;
use crossdock::runtime::{ProcessorTask, Progress};
use rand::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

fn q(units: i32) -> Decimal {
    Decimal::from(units)
}

pub(crate) fn id(number: i64) -> Text {
    order_id("default", "web", &number.to_string())
        .to_string()
        .into()
}

pub(crate) fn stocked(world: &World, sku: &str, location: &str, units: i32) {
    let fact = StockChanged {
        meta: meta("StockChanged", "wms", &format!("in/{sku}/{location}"), 1),
        movement_id: "in".into(),
        sku: sku.into(),
        location_id: location.into(),
        from_state: StockState::Supplier,
        to_state: StockState::Sellable,
        qty: q(units),
        reason: StockReason::Receipt,
        ..StockChanged::default()
    };
    world.send(topic::STOCK_CHANGE, &compound_key(&[sku, location]), fact);
}

pub(crate) fn web(world: &World) {
    let channel = Channel {
        meta: meta("Channel", "config", "web", 1),
        channel_id: "web".into(),
        channel_version: 1,
        status: ChannelStatus::Active,
        eligible_locations: vec!["dc".into(), "store".into()],
        ..Channel::default()
    };
    world.send(topic::CHANNEL_CHANGE, "web", channel);
}

fn says(number: i64, source: &str, kind: OrderEventType, version: i64) -> OrderEvent {
    OrderEvent {
        meta: meta("OrderEvent", source, &format!("{number}/{kind}"), version),
        order_id: id(number),
        r#type: kind,
        entity_version: version,
        ..OrderEvent::default()
    }
}

pub(crate) fn placed(number: i64, lines: &[(&str, i32)]) -> OrderEvent {
    let line = |(n, (sku, units)): (usize, &(&str, i32))| OrderLine {
        line_id: format!("{}", n + 1).into(),
        sku: (*sku).into(),
        qty: q(*units),
        unit_price: q(10),
        line_total: q(10 * units),
        delivery_group_id: "g".into(),
        ..OrderLine::default()
    };
    let order = OrderSnapshot {
        channel_id: "web".into(),
        channel_type: ChannelType::Web,
        channel_order_id: number.to_string().into(),
        currency: "EUR".into(),
        prices_include_tax: true,
        lines: lines.iter().enumerate().map(line).collect(),
        delivery_groups: vec![DeliveryGroup {
            group_id: "g".into(),
            method: DeliveryMethod::ShipToHome,
            ..DeliveryGroup::default()
        }],
        grand_total: lines.iter().map(|(_, units)| q(10 * units)).sum(),
        ..OrderSnapshot::default()
    };
    OrderEvent {
        order: Some(order),
        ..says(number, "shop", OrderEventType::Placed, 1)
    }
}

/// What each reservation was last told to be, of one order.
fn reservations(world: &World, order: &str) -> BTreeMap<uuid::Uuid, ReservationEvent> {
    let mut newest: BTreeMap<uuid::Uuid, ReservationEvent> = BTreeMap::new();
    for event in world.events(topic::RESERVATION_EVENT) {
        let Event::ReservationEvent(e) = event else {
            panic!("not a reservation")
        };
        if *e.order_id == *order {
            newest.insert(e.reservation_id, e);
        }
    }
    newest
}

fn states(world: &World) -> BTreeMap<Text, Vec<OrderState>> {
    let mut states: BTreeMap<Text, Vec<OrderState>> = BTreeMap::new();
    for event in world.events(topic::ORDER_STATE) {
        let Event::OrderState(e) = event else {
            panic!("not a state")
        };
        states.entry(e.order_id.clone()).or_default().push(e);
    }
    states
}

fn level(world: &World, sku: &str, location: &str) -> StockLevel {
    let of_key = |e: Event| match e {
        Event::StockLevel(e) if *e.sku == *sku && *e.location_id == *location => Some(e),
        _ => None,
    };
    let levels = world
        .events(topic::STOCK_LEVEL)
        .into_iter()
        .filter_map(of_key);
    levels.max_by_key(|l| l.level_version).expect("a level")
}

/// Goods of a claim leave: the node tells the order, and stock tells the ledger.
fn shipped(world: &World, number: i64, version: i64, claim: &ReservationEvent) {
    let units = claim.qty_held - claim.qty_consumed;
    let record = format!("{number}/{}", claim.reservation_id);
    let shipment = ShipmentEvent {
        meta: meta("ShipmentEvent", "wms", &record, version),
        order_id: id(number),
        shipment_id: record.as_str().into(),
        shipment_version: version,
        node_id: claim.location_id.clone(),
        status: ShipmentStatus::Shipped,
        lines: vec![ShipmentLine {
            line_id: claim.order_line_id.clone(),
            sku: claim.sku.clone(),
            allocated: units,
            picked: units,
            shipped: units,
            reservation_id: Some(claim.reservation_id),
            ..ShipmentLine::default()
        }],
        ..ShipmentEvent::default()
    };
    world.send(topic::SHIPMENT_EVENT, &id(number), shipment);
    let movement = StockChanged {
        meta: meta(
            "StockChanged",
            "wms",
            &format!("out/{record}"),
            100 + number,
        ),
        movement_id: record.as_str().into(),
        sku: claim.sku.clone(),
        location_id: claim.location_id.clone(),
        from_state: StockState::Sellable,
        to_state: StockState::Customer,
        qty: units,
        reason: StockReason::Shipment,
        order_id: Some(id(number)),
        order_line_id: Some(claim.order_line_id.clone()),
        reservation_id: Some(claim.reservation_id),
        ..StockChanged::default()
    };
    let key = compound_key(&[&claim.sku, &claim.location_id]);
    world.send(topic::STOCK_CHANGE, &key, movement);
}

struct Tasks([ProcessorTask; 3]);

impl Tasks {
    fn new(world: &World) -> Tasks {
        Tasks(["stock-ledger", "reservation-saga", "order-lifecycle"].map(|p| world.task(p, "one")))
    }
    /// Steps the tasks in turn until none has anything to do. A step that meets a fault reports it; the
    /// next ones go on by themselves.
    fn settle(&mut self, world: &World) {
        let mut quiet = 0;
        for _ in 0..100_000 {
            let mut busy = false;
            for task in &mut self.0 {
                busy |= match task.step(Duration::ZERO) {
                    Ok(Progress::Idle { until: None } | Progress::Unassigned) => false,
                    // What waits for hours is at rest.
                    Ok(Progress::Idle { until: Some(due) }) => {
                        world.advance(Duration::from_millis(10));
                        due.since(world.clock.now()) < Duration::from_secs(1)
                    }
                    Ok(_) | Err(_) => true,
                };
            }
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet == 3 {
                // What a lost producer has left open holds readers up until it is over.
                world.advance(Duration::from_secs(11));
                return;
            }
        }
        panic!("the tasks never came to rest");
    }
}

#[test]
fn an_order_claims_stock_is_accepted_and_takes_its_goods_out() {
    let world = World::new();
    web(&world);
    stocked(&world, "A", "dc", 5);
    let mut tasks = Tasks::new(&world);
    tasks.settle(&world);
    world.send(topic::ORDER_LIFECYCLE, &id(1), placed(1, &[("A", 2)]));
    tasks.settle(&world);
    let order = id(1);
    assert_eq!(
        states(&world)[&order].last().expect("a state").lines[0].reserved,
        q(2)
    );
    assert_eq!(level(&world, "A", "dc").reserved, q(2));
    world.send(
        topic::ORDER_LIFECYCLE,
        &order,
        says(1, "erp", OrderEventType::Accepted, 1),
    );
    tasks.settle(&world);
    let claims = reservations(&world, &order);
    let claim = claims.values().next().expect("a claim");
    assert_eq!(
        (claims.len(), claim.status),
        (1, ReservationStatus::Confirmed)
    );
    assert_eq!(claim.expires_at, None, "a confirmed claim does not run out");
    shipped(&world, 1, 1, claim);
    tasks.settle(&world);
    let state = states(&world)[&order].last().cloned().expect("a state");
    assert_eq!(
        (state.status, state.lines[0].shipped),
        (OrderStatus::Shipped, q(2))
    );
    let claim = reservations(&world, &order)
        .into_values()
        .next()
        .expect("a claim");
    assert_eq!(
        (claim.status, claim.qty_consumed),
        (ReservationStatus::Consumed, q(2))
    );
    let level = level(&world, "A", "dc");
    assert_eq!((level.sellable, level.reserved), (q(3), q(0)));
    assert!(world.events(topic::OPS_EXCEPTION).is_empty());
}

#[test]
fn what_one_location_does_not_have_is_claimed_at_the_next_and_else_cancelled() {
    let world = World::new();
    web(&world);
    stocked(&world, "A", "dc", 1);
    stocked(&world, "A", "store", 3);
    let mut tasks = Tasks::new(&world);
    tasks.settle(&world);
    world.send(topic::ORDER_LIFECYCLE, &id(1), placed(1, &[("A", 2)]));
    world.send(
        topic::ORDER_LIFECYCLE,
        &id(2),
        placed(2, &[("A", 9), ("A", 1)]),
    );
    tasks.settle(&world);
    let state = |n| states(&world)[&id(n)].last().cloned().expect("a state");
    assert_eq!(state(1).lines[0].reserved, q(2));
    assert_eq!(level(&world, "A", "store").reserved, q(2));
    let second = state(2);
    assert_eq!(
        (second.lines[0].cancelled, second.lines[1].reserved),
        (q(9), q(1))
    );
    // The customer cancels: stock is free again.
    world.send(
        topic::ORDER_LIFECYCLE,
        &id(1),
        says(1, "shop", OrderEventType::CancelRequested, 2),
    );
    tasks.settle(&world);
    assert_eq!(state(1).status, OrderStatus::Cancelled);
    assert_eq!(level(&world, "A", "store").reserved, q(0));
}

#[test]
fn invariants_hold_whatever_the_log_does_wrong() {
    for seed in 0..40 {
        let world = World::new();
        let mut random = StdRng::seed_from_u64(seed);
        web(&world);
        for sku in ["A", "B", "C"] {
            for location in ["dc", "store"] {
                stocked(&world, sku, location, random.random_range(1..8));
            }
        }
        let mut tasks = Tasks::new(&world);
        tasks.settle(&world);
        let orders = 12;
        for number in 1..=orders {
            let lines: Vec<(&str, i32)> = (0..random.random_range(1..3))
                .map(|_| {
                    (
                        ["A", "B", "C"][random.random_range(0..3)],
                        random.random_range(1..4),
                    )
                })
                .collect();
            let mut told = vec![placed(number, &lines)];
            told.push(says(number, "erp", OrderEventType::Accepted, 1));
            if random.random_bool(0.3) {
                told.push(says(number, "shop", OrderEventType::CancelRequested, 2));
            }
            told.extend(told.clone());
            told.shuffle(&mut random);
            for event in told {
                world.send(topic::ORDER_LIFECYCLE, &id(number), event);
                disturb(&world, &mut tasks, &mut random);
            }
        }
        tasks.settle(&world);
        for number in 1..=orders {
            for claim in reservations(&world, &id(number)).into_values() {
                if claim.status == ReservationStatus::Confirmed && random.random_bool(0.7) {
                    shipped(&world, number, 1, &claim);
                    disturb(&world, &mut tasks, &mut random);
                }
            }
        }
        tasks.settle(&world);
        judge(&world, orders, seed);
    }
}

/// A fault is set in the way of whatever task comes upon it, and the tasks go some steps in turn.
fn disturb(world: &World, tasks: &mut Tasks, random: &mut StdRng) {
    if random.random_bool(0.5) {
        world
            .log
            .inject(FAULTS[random.random_range(0..FAULTS.len())]);
    }
    for _ in 0..random.random_range(0..6) {
        let task = &mut tasks.0[random.random_range(0..3)];
        // A step that meets a fault reports it; the next ones go on by themselves.
        let _: Result<Progress, _> = task.step(Duration::ZERO);
    }
}

fn judge(world: &World, orders: i64, seed: u64) {
    let states = states(world);
    assert_eq!(
        states.len() as i64,
        orders,
        "seed {seed}: every order has a state"
    );
    for (order, history) in &states {
        for (n, state) in history.iter().enumerate() {
            assert_eq!(state.state_version, n as i64 + 1, "seed {seed}: {order}");
            for l in &state.lines {
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
                assert_eq!(
                    buckets.into_iter().sum::<Decimal>(),
                    l.ordered,
                    "seed {seed}: {order}"
                );
            }
        }
        for pair in history.windows(2) {
            for (object, version) in &pair[0].source_versions {
                assert!(
                    pair[1].source_versions[object] >= *version,
                    "seed {seed}: {object}"
                );
            }
        }
        let last = history.last().expect("a state");
        let active: Decimal = reservations(world, order)
            .values()
            .filter(|r| {
                use ReservationStatus::*;
                matches!(r.status, Held | Confirmed | PartiallyConsumed | Backordered)
            })
            .map(|r| r.qty_held - r.qty_consumed)
            .sum();
        let reserved: Decimal = last.lines.iter().map(|l| l.reserved).sum();
        assert_eq!(
            active, reserved,
            "seed {seed}: {order} and the ledger agree"
        );
        if last.status == OrderStatus::Cancelled || last.status == OrderStatus::Shipped {
            assert!(
                active.is_zero(),
                "seed {seed}: {order} is over and claims {active}"
            );
        }
        let open: Decimal = last.lines.iter().map(|l| l.open + l.backordered).sum();
        assert!(
            open.is_zero(),
            "seed {seed}: {order} is neither claimed nor cancelled: {last:?}"
        );
    }
    let mut claimed: BTreeMap<Text, Decimal> = BTreeMap::new();
    for order in states.keys() {
        for r in reservations(world, order).into_values() {
            use ReservationStatus::*;
            if matches!(r.status, Held | Confirmed | PartiallyConsumed) {
                let key = compound_key(&[&r.sku, &r.location_id]);
                *claimed.entry(key).or_default() += r.qty_held - r.qty_consumed;
            }
        }
    }
    for sku in ["A", "B", "C"] {
        for location in ["dc", "store"] {
            let key = compound_key(&[sku, location]);
            let level = level(world, sku, location);
            let expected = claimed.get(&key).copied().unwrap_or_default();
            assert_eq!(level.reserved, expected, "seed {seed}: {key}");
            assert!(!level.sellable.is_negative(), "seed {seed}: {key}");
        }
    }
}
