//! What waits in vain for its order lies on the park topic as it was, whatever the log does wrong, and
//! leaves it when the order comes.

use crate::order::{id, placed};
use crate::world::{FAULTS, World, meta};
use crossdock::codec;
use crossdock::contract::event::*;
use crossdock::contract::{park_key, topic};
use crossdock::domain::Decimal;
use crossdock::pipeline::Record;
use crossdock::runtime::ProcessorTask;
use rand::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const PARKED: &str = "retail.rt.order-lifecycle.park.v1";
const MINUTE: Duration = Duration::from_secs(60);

fn pay(world: &World, number: i64, version: i64) {
    let record = format!("{number}/{version}");
    let payment = PaymentEvent {
        meta: meta("PaymentEvent", "psp", &record, version),
        order_id: id(number),
        payment_id: record.as_str().into(),
        payment_version: 1,
        kind: PaymentKind::Captured,
        amount: Money {
            amount: Decimal::from(5),
            currency: "EUR".into(),
        },
        psp: "psp".into(),
        psp_reference: record.as_str().into(),
        ..PaymentEvent::default()
    };
    world.send(topic::PAYMENT_EVENT, &id(number), payment);
}

/// The newest of each key of the park topic.
fn parked(world: &World) -> BTreeMap<String, Option<Record>> {
    let newest =
        world.records(PARKED).into_iter().map(|record| {
            let key = String::from_utf8(record.key.clone().expect("a key").to_vec()).expect("text");
            let letter = record.value.is_some().then(|| {
                match world.codec.decode(&record).expect("a letter") {
                    Event::DeadLetter(letter) => codec::original(&letter).expect("a record"),
                    other => panic!("{} on the park topic", other.contract()),
                }
            });
            (key, letter)
        });
    newest.collect()
}

/// Steps until nothing is left to do; what fails once is tried again.
fn work(world: &World, task: &mut ProcessorTask) {
    for _ in 0..200 {
        if task.step(Duration::ZERO).is_err() {
            world.advance(Duration::from_millis(500));
        }
    }
    world.settle(&mut [task]);
}

#[test]
fn what_waits_in_vain_is_parked_as_it_was_and_leaves_when_its_order_comes() {
    for seed in 0..40u64 {
        let mut random = SmallRng::seed_from_u64(seed);
        let world = World::new();
        let mut task = world.task("order-lifecycle", "one");
        let mut harm = |world: &World| {
            if random.random_bool(0.7) {
                world
                    .log
                    .inject(FAULTS[random.random_range(0..FAULTS.len())]);
            }
        };
        work(&world, &mut task);
        for number in 0..6 {
            pay(&world, number, 1);
        }
        harm(&world);
        work(&world, &mut task);
        assert!(parked(&world).is_empty(), "seed {seed}: parked too early");
        // Order 5 comes in time: what waited for it was never parked.
        world.send(topic::ORDER_LIFECYCLE, &id(5), placed(5, &[("MUG", 1)]));
        work(&world, &mut task);
        world.advance(16 * MINUTE);
        harm(&world);
        work(&world, &mut task);
        // One that comes now is parked at once.
        pay(&world, 0, 2);
        harm(&world);
        work(&world, &mut task);
        let told = world.records(topic::PAYMENT_EVENT);
        let wanted = told
            .iter()
            .filter(|r| r.key.as_deref() != Some(id(5).as_bytes()));
        let key_of = |r: &Record| {
            let key = String::from_utf8_lossy(r.key.as_deref().expect("a key"));
            park_key(&r.origin.topic, &key, r.origin.offset).to_string()
        };
        let there = parked(&world);
        assert_eq!(there.len(), 6, "seed {seed}");
        for record in wanted {
            let letter = there.get(&key_of(record)).cloned().flatten();
            let letter =
                letter.unwrap_or_else(|| panic!("seed {seed}: {} is not parked", record.origin));
            assert_eq!(letter.origin, record.origin, "seed {seed}");
            assert_eq!(
                (letter.key, letter.value),
                (record.key.clone(), record.value.clone())
            );
            assert_eq!(letter.timestamp_ms, record.timestamp_ms, "seed {seed}");
        }
        for number in 0..5 {
            world.send(
                topic::ORDER_LIFECYCLE,
                &id(number),
                placed(number, &[("MUG", 1)]),
            );
        }
        harm(&world);
        work(&world, &mut task);
        let left = parked(&world);
        assert_eq!(left.len(), 6, "seed {seed}");
        assert!(
            left.values().all(Option::is_none),
            "seed {seed}: still parked"
        );
    }
}
