//! `reservation-saga` against a ledger of a few lines, whose answers come late, twice and out of order.

use crate::*;
use crossdock::pipeline::Emission;
use crossdock::processors::ReservationSaga;
use rand::prelude::*;
use std::collections::BTreeSet;

/// The saga with one order's state, and the world around it.
struct Shop {
    saga: ReservationSaga,
    state: Entries,
    now: Timestamp,
    /// Free stock by location.
    free: BTreeMap<String, i32>,
    claims: BTreeMap<uuid::Uuid, Claimed>,
    commands: Vec<ReservationCommand>,
    cancels: Vec<OrderEvent>,
    outcomes: Vec<Outcome>,
    codes: Vec<Code>,
    versions: i64,
}

#[derive(Clone)]
struct Claimed {
    line: Text,
    location: Text,
    mode: ReservationMode,
    units: i32,
    held: i32,
    consumed: i32,
    version: i64,
    status: ReservationStatus,
}

impl Shop {
    fn new(free: &[(&str, i32)]) -> Shop {
        let mut shop = Shop {
            saga: ReservationSaga::new(),
            state: Entries::default(),
            now: at(0),
            free: free.iter().map(|(l, n)| ((*l).to_owned(), *n)).collect(),
            claims: BTreeMap::new(),
            commands: Vec::new(),
            cancels: Vec::new(),
            outcomes: Vec::new(),
            codes: Vec::new(),
            versions: 0,
        };
        let channel = Event::from(Channel {
            channel_id: "web".into(),
            status: ChannelStatus::Active,
            eligible_locations: free.iter().map(|(l, _)| (*l).into()).collect(),
            ..Channel::default()
        });
        shop.saga
            .table(topic::CHANNEL_CHANGE, "web", Some(&channel));
        shop
    }

    fn send(&mut self, events: Vec<Event>) {
        let inbound: Vec<Inbound> = events
            .into_iter()
            .map(|event| Inbound {
                record: Record {
                    origin: Place {
                        topic: "any".into(),
                        partition: 0,
                        offset: 0,
                    },
                    timestamp_ms: 0,
                    key: None,
                    value: None,
                    headers: Headers::default(),
                },
                event,
            })
            .collect();
        let mut output = Output::default();
        let mut context = Context::new(&mut self.state, &mut output, self.now);
        self.saga
            .process(&key(), &inbound, &mut context)
            .expect("processed");
        assert_eq!(
            output.settlements.len() + output.rejections.len(),
            inbound.len()
        );
        self.outcomes
            .extend(output.settlements.iter().map(|s| s.outcome));
        self.codes
            .extend(output.rejections.iter().map(|(_, f)| f.code));
        for Emission { event, .. } in output.emissions {
            match event {
                Event::ReservationCommand(c) => self.commands.push(c),
                Event::OrderEvent(e) => self.cancels.push(e),
                other => panic!("nobody asked for {}", other.contract()),
            }
        }
    }

    /// The ledger carries out a command and answers; nothing when there is nothing to say.
    fn carry_out(&mut self, c: &ReservationCommand) -> Option<Event> {
        let units = (c.qty.units() / 10_000) as i32;
        let free = self.free.entry(c.location_id.to_string()).or_default();
        use ReservationAction::*;
        use ReservationStatus::*;
        match (c.action, self.claims.get_mut(&c.reservation_id)) {
            (Hold, None) => {
                let forced = c.mode == ReservationMode::Forced;
                let granted = *free >= units;
                let held = if granted { units } else { 0 };
                *free -= held;
                self.claims.insert(
                    c.reservation_id,
                    Claimed {
                        line: c.order_line_id.clone(),
                        location: c.location_id.clone(),
                        mode: c.mode,
                        units,
                        held,
                        consumed: 0,
                        version: 1,
                        status: match (granted, forced) {
                            (true, _) => Held,
                            (false, true) => Backordered,
                            (false, false) => Rejected,
                        },
                    },
                );
            }
            (Confirm, Some(claim)) => {
                assert!(
                    !matches!(claim.status, Rejected | Expired),
                    "what is over is not confirmed"
                );
                if claim.status == Held {
                    claim.status = Confirmed;
                }
                claim.version += 1;
            }
            (Release, Some(claim)) if !matches!(claim.status, Released | Rejected | Consumed) => {
                *free += claim.held - claim.consumed;
                claim.held = claim.consumed;
                claim.status = Released;
                claim.version += 1;
            }
            _ => return None,
        }
        Some(self.tell(c.reservation_id))
    }

    fn tell(&self, id: uuid::Uuid) -> Event {
        let claim = &self.claims[&id];
        ReservationEvent {
            meta: meta(
                "ReservationEvent",
                "crossdock/stock-ledger",
                &id.to_string(),
                claim.version,
            ),
            reservation_id: id,
            reservation_version: claim.version,
            status: claim.status,
            mode: claim.mode,
            order_id: key().into(),
            order_line_id: claim.line.clone(),
            sku: format!("SKU-{}", claim.line).into(),
            location_id: claim.location.clone(),
            channel_id: "web".into(),
            qty_requested: q(claim.units),
            qty_held: q(claim.held),
            qty_consumed: q(claim.consumed),
            ..ReservationEvent::default()
        }
        .into()
    }

    /// The order grants what the saga asks to cancel.
    fn decide(&mut self, asked: &OrderEvent, all: &[(&str, i32)]) -> Event {
        self.versions += 1;
        let affected = match asked.affected.is_empty() {
            false => asked.affected.clone(),
            true => {
                let all = all.iter().map(|(line, units)| LineQty {
                    line_id: (*line).into(),
                    qty: q(*units),
                });
                all.collect()
            }
        };
        OrderEvent {
            affected,
            request_id: Some(asked.meta.event_id),
            ..says(
                "crossdock/order-lifecycle",
                OrderEventType::CancelDecided,
                self.versions,
            )
        }
        .into()
    }

    /// Commands and answers go back and forth until nobody has anything to say; some answers come
    /// twice, and old ones again.
    fn settle(&mut self, lines: &[(&str, i32)], random: &mut StdRng) {
        let (mut commands, mut cancels) = (0, 0);
        let mut answers: Vec<Event> = Vec::new();
        let mut old: Vec<Event> = Vec::new();
        while commands < self.commands.len() || cancels < self.cancels.len() || !answers.is_empty()
        {
            while commands < self.commands.len() {
                let command = self.commands[commands].clone();
                answers.extend(self.carry_out(&command));
                commands += 1;
            }
            while cancels < self.cancels.len() {
                let asked = self.cancels[cancels].clone();
                answers.push(self.decide(&asked, lines));
                cancels += 1;
            }
            answers.extend(
                old.choose(random)
                    .cloned()
                    .filter(|_| random.random_bool(0.2)),
            );
            answers.shuffle(random);
            let count = random.random_range(0..=answers.len());
            let batch: Vec<Event> = answers.drain(..count).collect();
            old.extend(batch.iter().cloned());
            if !batch.is_empty() {
                self.send(batch);
            }
        }
    }

    fn active(&self, line: &str) -> i32 {
        use ReservationStatus::*;
        let open =
            |c: &&Claimed| *c.line == *line && matches!(c.status, Held | Confirmed | Backordered);
        self.claims
            .values()
            .filter(open)
            .map(|c| c.units - c.consumed)
            .sum()
    }
}

fn order(lines: &[(&str, i32)], change: impl Fn(&mut OrderSnapshot)) -> Event {
    let mut order = snapshot(lines, DeliveryMethod::ShipToHome);
    change(&mut order);
    OrderEvent {
        order: Some(order),
        ..says("shop", OrderEventType::Placed, 1)
    }
    .into()
}

fn settled(shop: &mut Shop, lines: &[(&str, i32)]) {
    shop.settle(lines, &mut StdRng::seed_from_u64(1));
}

#[test]
fn every_line_is_claimed_or_cancelled_and_nothing_is_claimed_twice() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut stock = || random.random_range(0..7);
        let mut shop = Shop::new(&[("dc", stock()), ("store", stock()), ("hub", stock())]);
        let before: i32 = shop.free.values().sum();
        let lines = [
            ("1", random.random_range(1..5)),
            ("2", random.random_range(1..5)),
        ];
        let complete = random.random_bool(0.3);
        let rejected = random.random_bool(0.2);
        let verdict = match rejected {
            true => Event::from(says("erp", OrderEventType::Rejected, 1)),
            false => accepted(1),
        };
        let mut told = vec![order(&lines, |o| o.ship_complete = complete), verdict];
        told.extend(told.clone());
        told.shuffle(&mut random);
        for event in told {
            shop.send(vec![event]);
            if random.random_bool(0.5) {
                shop.settle(&lines, &mut random);
            }
        }
        shop.settle(&lines, &mut random);
        assert!(shop.codes.is_empty(), "seed {seed}");
        let ids: BTreeSet<_> = shop
            .commands
            .iter()
            .filter(|c| c.action == ReservationAction::Hold)
            .map(|c| c.reservation_id)
            .collect();
        let holds = shop
            .commands
            .iter()
            .filter(|c| c.action == ReservationAction::Hold)
            .count();
        assert_eq!(ids.len(), holds, "seed {seed}: a claim is asked for once");
        let cancelled = |line: &str| match complete {
            true if !shop.cancels.is_empty() => q(5),
            _ => {
                let of_line = shop.cancels.iter().flat_map(|c| &c.affected);
                of_line.filter(|a| *a.line_id == *line).map(|a| a.qty).sum()
            }
        };
        for (line, units) in lines {
            let expected = match rejected {
                true => 0,
                false if cancelled(line).is_positive() => 0,
                false => units,
            };
            assert_eq!(shop.active(line), expected, "seed {seed}: line {line}");
        }
        let bound: i32 = shop.claims.values().map(|c| c.held).sum();
        assert_eq!(
            bound + shop.free.values().sum::<i32>(),
            before,
            "seed {seed}"
        );
        let firm = |c: &Claimed| !matches!(c.status, ReservationStatus::Held);
        assert!(
            rejected || shop.claims.values().all(firm),
            "seed {seed}: accepted is firm"
        );
    }
}

#[test]
fn what_is_not_paid_in_time_is_cancelled_and_what_is_firm_never_runs_out() {
    let lines = [("1", 2)];
    let mut shop = Shop::new(&[("dc", 5)]);
    shop.send(vec![order(&lines, |_| {})]);
    let hold = shop.commands[0].clone();
    assert_eq!(hold.expires_at, Some(at(2 * 3_600)));
    settled(&mut shop, &lines);
    let id = hold.reservation_id;
    shop.claims.get_mut(&id).expect("a claim").status = ReservationStatus::Expired;
    shop.claims.get_mut(&id).expect("a claim").version = 9;
    shop.send(vec![shop.tell(id)]);
    assert_eq!(shop.cancels[0].reason.as_deref(), Some("HOLD_EXPIRED"));
    assert_eq!(shop.commands.len(), 1);

    let mut paid_first = Shop::new(&[("dc", 5)]);
    paid_first.send(vec![
        paid(PaymentKind::Authorised, 20, 1),
        order(&lines, |_| {}),
    ]);
    assert_eq!(paid_first.commands[0].expires_at, None);
    settled(&mut paid_first, &lines);
    let actions: Vec<_> = paid_first.commands.iter().map(|c| c.action).collect();
    assert_eq!(
        actions,
        [ReservationAction::Hold, ReservationAction::Confirm]
    );
}

#[test]
fn a_hold_that_ran_out_while_its_order_became_firm_is_asked_for_again() {
    let lines = [("1", 2)];
    let mut shop = Shop::new(&[("dc", 5)]);
    shop.send(vec![order(&lines, |_| {})]);
    settled(&mut shop, &lines);
    let id = shop.commands[0].reservation_id;
    let claim = shop.claims.get_mut(&id).expect("a claim");
    (claim.status, claim.version) = (ReservationStatus::Expired, 9);
    shop.send(vec![accepted(1)]);
    shop.send(vec![shop.tell(id)]);
    let last = shop.commands.last().expect("a command");
    assert_eq!(
        (last.action, &*last.location_id),
        (ReservationAction::Hold, "dc")
    );
    assert_ne!(last.reservation_id, id);
}

#[test]
fn what_a_node_does_not_find_is_sourced_elsewhere_and_its_claim_given_back() {
    let lines = [("1", 2)];
    let mut shop = Shop::new(&[("dc", 2), ("store", 2)]);
    shop.send(vec![order(&lines, |_| {}), accepted(1)]);
    settled(&mut shop, &lines);
    let first = shop.commands[0].clone();
    let Event::ShipmentEvent(mut short) =
        shipment("S", 2, ShipmentStatus::ShortPicked, "1", [2, 0, 0, 0])
    else {
        panic!("a shipment")
    };
    short.lines[0].short = q(2);
    short.lines[0].reservation_id = Some(first.reservation_id);
    shop.commands.clear();
    shop.send(vec![short.clone().into()]);
    let asked: Vec<_> = shop
        .commands
        .iter()
        .map(|c| (c.action, c.location_id.to_string()))
        .collect();
    let expected = [
        (ReservationAction::Release, "dc".to_owned()),
        (ReservationAction::Hold, "store".to_owned()),
    ];
    assert_eq!(asked, expected);
    shop.send(vec![short.into()]);
    assert_eq!(shop.commands.len(), 2, "heard again, it changes nothing");
}

#[test]
fn a_pick_up_is_claimed_in_its_shop_alone() {
    let lines = [("1", 2)];
    let mut shop = Shop::new(&[("dc", 9), ("store", 1)]);
    let pickup = order(&lines, |o| {
        o.delivery_groups[0].method = DeliveryMethod::PickupInStore;
        o.delivery_groups[0].pickup_location_id = Some("store".into());
    });
    shop.send(vec![pickup]);
    assert_eq!(&*shop.commands[0].location_id, "store");
    assert_eq!(shop.commands[0].mode, ReservationMode::Strict);
    settled(&mut shop, &lines);
    assert_eq!(shop.cancels[0].reason.as_deref(), Some("OUT_OF_STOCK"));
}

#[test]
fn who_may_wait_and_who_bought_on_a_marketplace_is_never_refused() {
    let lines = [("1", 2)];
    let mut patient = Shop::new(&[("dc", 0), ("store", 0)]);
    patient.send(vec![order(&lines, |o| o.lines[0].backorder_allowed = true)]);
    settled(&mut patient, &lines);
    let modes: Vec<_> = patient.commands.iter().map(|c| c.mode).collect();
    use ReservationMode::*;
    assert_eq!(modes, [Strict, Strict, Forced]);
    assert!(patient.cancels.is_empty());

    let mut market = Shop::new(&[("dc", 0), ("store", 0)]);
    market.send(vec![order(&lines, |o| {
        o.channel_type = ChannelType::Marketplace
    })]);
    settled(&mut market, &lines);
    assert_eq!(market.commands.len(), 1);
    assert_eq!(market.commands[0].mode, Forced);
    assert_eq!(market.active("1"), 2);
}

#[test]
fn a_part_that_is_cancelled_is_given_back_once_the_rest_has_left() {
    let lines = [("1", 5)];
    let mut shop = Shop::new(&[("dc", 9)]);
    shop.send(vec![order(&lines, |_| {}), accepted(1)]);
    settled(&mut shop, &lines);
    let id = shop.commands[0].reservation_id;
    shop.commands.clear();
    let cancelled = OrderEvent {
        affected: vec![LineQty {
            line_id: "1".into(),
            qty: q(2),
        }],
        ..says("erp", OrderEventType::CancelDecided, 7)
    };
    shop.send(vec![cancelled.into()]);
    assert!(
        shop.commands.is_empty(),
        "three of the five are still needed"
    );
    let claim = shop.claims.get_mut(&id).expect("a claim");
    (claim.consumed, claim.status, claim.version) = (3, ReservationStatus::PartiallyConsumed, 9);
    shop.send(vec![shop.tell(id)]);
    assert_eq!(shop.commands[0].action, ReservationAction::Release);
}

#[test]
fn what_cannot_be_supplied_as_told_is_rejected() {
    let mut shop = Shop::new(&[("dc", 9)]);
    let nowhere = order(&[("1", 1)], |o| {
        o.delivery_groups[0].method = DeliveryMethod::Curbside
    });
    let unknown = order(&[("1", 1)], |o| o.channel_id = "nobody".into());
    shop.send(vec![nowhere, unknown, StockLevel::default().into()]);
    assert_eq!(
        shop.codes,
        [
            Code::DataQuality,
            Code::UnknownReference,
            Code::WrongContract
        ]
    );
    assert!(shop.commands.is_empty());
}
