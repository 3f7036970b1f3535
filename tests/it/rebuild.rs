//! Rebuilding a state from the log: it is what the running one has, what was tampered with is found, named and
//! put right whole or not at all, and what was decided stays decided.

use crate::order::{id, placed, stocked, web};
use crate::stock::{channel, hold, sale};
use crate::support;
use crate::world::{FAULTS, World};
use crossdock::contract::event::*;
use crossdock::contract::{Catalogue, topic};
use crossdock::dlq::Actor;
use crossdock::domain::Decimal;
use crossdock::log::embedded::Injected;
use crossdock::pipeline::{Clock, Fault};
use crossdock::processors;
use crossdock::rebuild::{self, Comparison, Difference, EXAMPLES_MAX, Refusal, Subject, Wrong};
use crossdock::runtime::ProcessorTask;
use rand::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

const LEDGER: &str = "stock-ledger";
const STATE: &str = "retail.rt.stock-ledger.state.v1";
/// Waits for partitions; the log in this process answers at once.
const ROUNDS: u32 = 3;

fn subject<'w>(world: &'w World, processor: &str) -> Subject<'w> {
    Subject {
        log: &world.log,
        codec: &world.codec,
        catalogue: Catalogue::compiled(),
        application: "crossdock",
        processor: processors::find(processor).expect("a processor"),
    }
}

fn comparisons(world: &World, processor: &str) -> Vec<Comparison> {
    let subject = subject(world, processor);
    let all = 0..subject.partitions().expect("partitions");
    let of = |number| subject.compare(number, EXAMPLES_MAX).expect("compared");
    all.map(of).collect()
}

fn differences(world: &World, processor: &str) -> Vec<Difference> {
    let all = comparisons(world, processor).into_iter();
    all.flat_map(|c| c.examples).collect()
}

/// Every processor that has worked has what the log makes of it.
fn agrees(world: &World, context: &str) {
    for registered in processors::ALL {
        let name = registered.descriptor.name;
        for c in comparisons(world, name) {
            let told = format!("{context}: {name}: {c:?}\n{:#?}", c.examples);
            assert_eq!((c.different, c.moving), (0, 0), "{told}");
        }
    }
}

fn swap(world: &World, processor: &str) -> Result<Result<u64, Refusal>, Fault> {
    swap_meanwhile(world, processor, &|| {})
}

/// As [`swap`]; `meanwhile` happens after a partition was compared and before what differs is written.
fn swap_meanwhile(
    world: &World,
    processor: &str,
    meanwhile: &dyn Fn(),
) -> Result<Result<u64, Refusal>, Fault> {
    let subject = subject(world, processor);
    let numbers: Vec<i32> = (0..subject.partitions()?).collect();
    let actor = Actor {
        name: "ann".into(),
        reason: None,
    };
    let now = || {
        meanwhile();
        world.clock.now()
    };
    let (mut entries, told) = (0, &mut |_: &Comparison, s: &rebuild::Swapped| s.entries);
    let mut told = |c: &Comparison, s: &rebuild::Swapped| entries += told(c, s);
    let done = rebuild::swap(&subject, &numbers, &actor, &now, ROUNDS, 0, &mut told);
    Ok(done?.map(|()| entries))
}

/// Puts `value` in place of the entry under `key`, as nobody should.
fn tamper(world: &World, state: &str, key: &[u8], value: Option<&[u8]>) {
    let records = world.records(state);
    let known = records.iter().find(|r| r.key.as_deref() == Some(key));
    let partition = known.map_or(0, |r| r.origin.partition);
    world.send_to(state, partition, Some(key), value);
}

/// What stands under `key`.
fn entry(world: &World, state: &str, key: &[u8]) -> Vec<u8> {
    let records = world.records(state);
    let mut of_key = records.iter().filter(|r| r.key.as_deref() == Some(key));
    let newest = of_key.next_back().expect("an entry");
    newest.value.as_deref().expect("a value").to_vec()
}

fn level(world: &World, sku: &str) -> Decimal {
    let levels = world.events(topic::STOCK_LEVEL).into_iter();
    let of_sku = levels.filter_map(|event| match event {
        Event::StockLevel(level) if *level.sku == *sku => Some(level.sellable),
        _ => None,
    });
    of_sku.last().expect("a level")
}

/// Sells and claims at random, with a ledger that is stopped and started in between.
fn trade(world: &World, random: &mut impl Rng) -> ProcessorTask {
    world.send(topic::CHANNEL_CHANGE, "web", channel("web", &["dc"]));
    let mut ledger = world.task(LEDGER, "a");
    for round in 0..6 {
        for number in 0..random.random_range(1..40) {
            let sku = format!("S{}", random.random_range(0..5));
            let (at, key) = (round * 100 + number, format!("{sku}|dc"));
            let quantity = random.random_range(-3..3);
            if quantity != 0 {
                let event = sale(&sku, "dc", at, quantity);
                world.send(topic::STOCK_CHANGE, &key, event);
            }
            if random.random_bool(0.3) {
                let mut command = hold(&sku, "dc", &format!("o{at}"), 1, at);
                let soon = Duration::from_secs(random.random_range(1..200));
                command.expires_at = Some(world.clock.now().plus(soon));
                world.send(topic::RESERVATION_COMMAND, &key, command);
            }
            if random.random_bool(0.2) {
                let _ = ledger.step(Duration::ZERO);
                world.advance(Duration::from_millis(random.random_range(1..5_000)));
            }
        }
        if random.random_bool(0.5) {
            drop(ledger);
            world.advance(Duration::from_secs(random.random_range(1..60)));
            ledger = world.task(LEDGER, "a");
        }
        world.settle(&mut [&mut ledger]);
        world.advance(Duration::from_secs(random.random_range(1..100)));
    }
    world.settle(&mut [&mut ledger]);
    ledger
}

/// Changes one entry of the state, takes another away, and adds one. Returns their keys.
fn tamper_at_random(world: &World, random: &mut impl Rng) -> BTreeSet<String> {
    let mut entries = BTreeMap::new();
    for record in world.records(STATE) {
        let key = record.key.expect("a key").to_vec();
        match record.value {
            Some(value) => entries.insert((record.origin.partition, key), value),
            None => entries.remove(&(record.origin.partition, key)),
        };
    }
    let chosen: Vec<_> = entries.into_iter().collect();
    let chosen: Vec<_> = chosen.sample(random, 2).cloned().collect();
    let mut touched = BTreeSet::from(["stray|dc".to_owned()]);
    world.send_to(STATE, 0, Some(b"stray|dc"), Some(b"what nobody wrote"));
    for (index, ((partition, key), value)) in chosen.into_iter().enumerate() {
        let wrong = [&value[..], b"!"].concat();
        let value = (index == 0).then_some(&wrong[..]);
        world.send_to(STATE, partition, Some(&key), value);
        let entity = key.split(|b| *b == 0).next().unwrap_or_default();
        touched.insert(String::from_utf8_lossy(entity).into_owned());
    }
    touched
}

#[test]
fn what_was_tampered_with_is_found_and_put_right_whatever_goes_wrong() {
    for seed in 0..10 {
        let mut random = StdRng::seed_from_u64(seed);
        let world = World::new();
        let ledger = trade(&world, &mut random);
        assert_eq!(differences(&world, LEDGER), [], "seed {seed}: as it runs");
        let touched = tamper_at_random(&world, &mut random);
        let found = differences(&world, LEDGER);
        let found: BTreeSet<String> = found.iter().map(Difference::entity).collect();
        assert_eq!(found, touched, "seed {seed}");
        // While an instance owns the partitions nothing is swapped.
        let before = world.records(STATE).len();
        let why = swap(&world, LEDGER).expect("answered");
        let why = why.expect_err("refused").to_string();
        assert!(why.contains("Stop them"), "{why}");
        assert_eq!(world.records(STATE).len(), before, "seed {seed}");
        drop(ledger);
        let faults = FAULTS.iter().filter(|f| **f != Injected::Seek);
        let fault = faults.choose(&mut random).expect("a fault");
        world.log.inject(*fault);
        let mut swaps = 0;
        while !differences(&world, LEDGER).is_empty() {
            let _ = swap(&world, LEDGER);
            world.advance(Duration::from_secs(121));
            swaps += 1;
            assert!(swaps < 10, "seed {seed}: {fault:?}: never right");
        }
        for audit in world.events(topic::OPS_AUDIT) {
            let Event::Audit(a) = audit else {
                panic!("{audit:?} among the audits")
            };
            assert_eq!((&*a.actor, &*a.action), ("ann", "rebuild.swap"));
        }
        // Whoever comes next goes on from what was put right.
        let mut ledger = world.task(LEDGER, "b");
        world.send(topic::STOCK_CHANGE, "S1|dc", sale("S1", "dc", 9_000, 1));
        world.settle(&mut [&mut ledger]);
        assert_eq!(differences(&world, LEDGER), [], "seed {seed}: afterwards");
    }
}

#[test]
fn a_wrong_missing_and_extra_entry_are_named_in_the_words_of_the_state() {
    let world = World::new();
    let mut ledger = world.task(LEDGER, "a");
    for sku in ["A", "B"] {
        let event = sale(sku, "dc", 1, -7);
        world.send(topic::STOCK_CHANGE, &format!("{sku}|dc"), event);
    }
    world.settle(&mut [&mut ledger]);
    let right = entry(&world, STATE, b"A|dc");
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 2, 3));
    world.settle(&mut [&mut ledger]);
    // As it was before the last sale.
    tamper(&world, STATE, b"A|dc", Some(&right));
    tamper(&world, STATE, b"B|dc", None);
    tamper(&world, STATE, b"C|dc", Some(&right));
    let mut found = differences(&world, LEDGER);
    found.sort_by_key(Difference::entity);
    let named: Vec<(String, Wrong)> = found.iter().map(|d| (d.entity(), d.wrong())).collect();
    assert_eq!(
        named,
        [
            ("A|dc".to_owned(), Wrong::Different),
            ("B|dc".to_owned(), Wrong::Missing),
            ("C|dc".to_owned(), Wrong::Extra),
        ]
    );
    let sellable = found[0]
        .fields
        .iter()
        .find(|(field, ..)| field == "sellable");
    let (_, expected, actual) = sellable.expect("the field that differs");
    assert_eq!((expected.as_str(), actual.as_str()), (Some("4"), Some("7")));
}

#[test]
fn records_that_come_during_a_swap_wait_and_are_worked_on_once_from_the_right_state() {
    let world = World::new();
    let mut ledger = world.task(LEDGER, "a");
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 1, -10));
    world.settle(&mut [&mut ledger]);
    let wrong = entry(&world, STATE, b"A|dc");
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 2, 4));
    world.settle(&mut [&mut ledger]);
    assert_eq!(level(&world, "A"), Decimal::from(6));
    tamper(&world, STATE, b"A|dc", Some(&wrong));
    drop(ledger);
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 3, 1));
    let position = std::cell::Cell::new(4);
    let swapped = swap_meanwhile(&world, LEDGER, &|| {
        let at = position.replace(position.get() + 1);
        world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", at, 1));
    });
    assert_eq!(swapped.expect("answered"), Ok(1));
    let mut ledger = world.task(LEDGER, "a");
    world.settle(&mut [&mut ledger]);
    let meanwhile = position.get() - 4;
    assert_eq!(level(&world, "A"), Decimal::from(5 - meanwhile as i32));
    let (settled, outcomes) = crate::stock::settled(&world, LEDGER);
    assert_eq!(
        (settled, outcomes[&Outcome::Applied]),
        (3 + meanwhile, 3 + meanwhile)
    );
    assert_eq!(differences(&world, LEDGER), []);
}

#[test]
fn an_instance_that_starts_during_a_swap_keeps_it_from_writing() {
    let world = World::new();
    let mut ledger = world.task(LEDGER, "a");
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 1, -10));
    world.settle(&mut [&mut ledger]);
    tamper(&world, STATE, b"A|dc", None);
    drop(ledger);
    let started = std::cell::RefCell::new(None);
    let why = swap_meanwhile(&world, LEDGER, &|| {
        started
            .borrow_mut()
            .get_or_insert_with(|| world.task(LEDGER, "b"));
    });
    let why = why.expect("answered").expect_err("refused").to_string();
    assert!(why.contains("has started meanwhile"), "{why}");
    let found = differences(&world, LEDGER);
    assert_eq!(found.len(), 1, "nothing was written: {found:?}");
    assert!(world.events(topic::OPS_AUDIT).is_empty());
    // The one that has started works.
    let mut ledger = started.into_inner().expect("started");
    world.send(topic::STOCK_CHANGE, "B|dc", sale("B", "dc", 1, -3));
    world.settle(&mut [&mut ledger]);
    assert_eq!(level(&world, "B"), Decimal::from(3));
}

#[test]
fn a_checkpoint_from_before_the_swap_brings_nothing_of_it_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::new();
    let mut ledger = world.task_in(LEDGER, "a", folder.path());
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 1, -10));
    world.send(topic::STOCK_CHANGE, "B|dc", sale("B", "dc", 1, -10));
    world.settle(&mut [&mut ledger]);
    let wrong = entry(&world, STATE, b"A|dc");
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 2, 4));
    world.settle(&mut [&mut ledger]);
    ledger.close();
    tamper(&world, STATE, b"A|dc", Some(&wrong));
    tamper(&world, STATE, b"B|dc", None);
    // An instance takes the wrong entries in, and writes them into its checkpoint.
    let mut ledger = world.task_in(LEDGER, "a", folder.path());
    for _ in 0..20 {
        world.settle(&mut [&mut ledger]);
        world.advance(Duration::from_secs(1));
    }
    ledger.close();
    let kept = folder.path().join("a").join(LEDGER);
    assert!(kept.read_dir().expect("checkpoints").next().is_some());
    assert_eq!(swap(&world, LEDGER).expect("answered"), Ok(2));
    let mut ledger = world.task_in(LEDGER, "a", folder.path());
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 3, 1));
    world.send(topic::STOCK_CHANGE, "B|dc", sale("B", "dc", 2, 1));
    world.settle(&mut [&mut ledger]);
    assert_eq!(level(&world, "A"), Decimal::from(5));
    assert_eq!(level(&world, "B"), Decimal::from(9));
    assert_eq!(differences(&world, LEDGER), []);
}

/// Sends as a source would whose clock is an hour ahead.
fn send_ahead(world: &World, topic: &str, key: &str, event: impl Into<Event>) {
    let hour = Duration::from_secs(3_600).as_micros() as i64;
    world.clock.0.fetch_add(hour, Ordering::SeqCst);
    world.send(topic, key, event);
    world.clock.0.fetch_sub(hour, Ordering::SeqCst);
}

#[test]
fn a_claim_that_was_granted_stays_granted_whatever_stock_the_log_shows_before_it() {
    let world = World::new();
    world.send(topic::CHANNEL_CHANGE, "web", channel("web", &["dc"]));
    let mut ledger = world.task(LEDGER, "a");
    send_ahead(&world, topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 1, -2));
    world.settle(&mut [&mut ledger]);
    for order in ["first", "second"] {
        let command = hold("A", "dc", order, 2, 2);
        world.send(topic::RESERVATION_COMMAND, "A|dc", command);
        world.settle(&mut [&mut ledger]);
    }
    // It is not known any more which records were taken together: by the times of the records, the stock
    // came after the claims.
    world.log.outlive(topic::OPS_DISPOSITION);
    let all = comparisons(&world, LEDGER);
    let unknown: u64 = all.iter().map(|c| c.without_transaction).sum();
    assert_eq!(unknown, 3);
    assert_eq!(differences(&world, LEDGER), []);
    // Without the record of what was decided, it could not be told.
    world.log.outlive(topic::RESERVATION_DECISION);
    let subject = subject(&world, LEDGER);
    let mut all = 0..subject.partitions().expect("partitions");
    let refusal = all.find_map(|n| subject.refusal(n).expect("answered"));
    let why = refusal.expect("refused").to_string();
    assert!(why.contains("has decided before that"), "{why}");
}

#[test]
fn a_refund_that_was_granted_stays_granted_whoever_asked_first() {
    let world = World::new();
    let mut gate = world.task("refund-gate", "a");
    let of = |event: RefundRequest| RefundRequest {
        allocations: vec![RefundAllocation {
            r#type: RefundType::Appeasement,
            order_line_id: None,
            ..event.allocations[0].clone()
        }],
        reason: Some("late".into()),
        ..event
    };
    let capture = support::captured("p", "c", 10_000);
    world.send(topic::PAYMENT_EVENT, support::ORDER, capture);
    world.settle(&mut [&mut gate]);
    let asks = |name| {
        of(support::request(
            name,
            vec![support::item("1", 1, 6_000, 0)],
        ))
    };
    send_ahead(&world, topic::REFUND_REQUEST, support::ORDER, asks("one"));
    world.settle(&mut [&mut gate]);
    world.send(topic::REFUND_REQUEST, support::ORDER, asks("two"));
    world.settle(&mut [&mut gate]);
    let granted = |world: &World| -> Vec<uuid::Uuid> {
        let events = world.events(topic::REFUND_EVENT).into_iter();
        let granted = events.filter_map(|event| match event {
            Event::RefundEvent(e) if e.status == RefundStatus::Approved => Some(e.refund_id),
            _ => None,
        });
        granted.collect()
    };
    assert_eq!(granted(&world).len(), 1, "the capture covers one");
    world.log.outlive(topic::OPS_DISPOSITION);
    assert_eq!(differences(&world, "refund-gate"), []);
}

#[test]
fn of_partitions_past_their_retention_it_is_said_and_the_others_are_rebuilt() {
    let world = World::new();
    let mut ledger = world.task(LEDGER, "a");
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 1, -1));
    world.settle(&mut [&mut ledger]);
    world.log.outlive(topic::STOCK_CHANGE);
    world.send(topic::STOCK_CHANGE, "B|dc", sale("B", "dc", 1, -1));
    world.settle(&mut [&mut ledger]);
    let partition = |sku: &str| {
        let records = world.records(STATE);
        let of_key = |key: &str| {
            records
                .iter()
                .find(|r| r.key.as_deref() == Some(key.as_bytes()))
        };
        of_key(&format!("{sku}|dc"))
            .expect("an entry")
            .origin
            .partition
    };
    assert_ne!(partition("A"), partition("B"), "the keys of this test");
    let subject = subject(&world, LEDGER);
    let refused = subject.refusal(partition("A")).expect("answered");
    let why = refused.expect("refused").to_string();
    assert!(
        why.contains("retail.stock.change.v1[") && why.contains("begins at offset 1"),
        "{why}"
    );
    assert_eq!(subject.refusal(partition("B")).expect("answered"), None);
    let compared = subject.compare(partition("B"), EXAMPLES_MAX);
    assert_eq!(compared.expect("compared").equal, 1);
}

#[test]
fn another_processor_is_named_field_by_field_and_goes_on_from_what_was_put_right() {
    const ORDERS: &str = "retail.rt.order-lifecycle.state.v1";
    let world = World::new();
    let mut orders = world.task("order-lifecycle", "a");
    world.send(topic::ORDER_LIFECYCLE, &id(1), placed(1, &[("A", 2)]));
    world.settle(&mut [&mut orders]);
    let before = entry(&world, ORDERS, id(1).as_bytes());
    let cancel = OrderEvent {
        meta: crate::world::meta("OrderEvent", "shop", "cancel", 2),
        order_id: id(1),
        r#type: OrderEventType::CancelRequested,
        entity_version: 2,
        ..OrderEvent::default()
    };
    world.send(topic::ORDER_LIFECYCLE, &id(1), cancel);
    world.settle(&mut [&mut orders]);
    agrees(&world, "an order that was cancelled");
    tamper(&world, ORDERS, id(1).as_bytes(), Some(&before));
    let found = differences(&world, "order-lifecycle");
    assert_eq!(found.len(), 1, "{found:?}");
    let fields: Vec<&str> = found[0].fields.iter().map(|(f, ..)| f.as_str()).collect();
    assert!(
        fields.iter().any(|f| f.starts_with("cancels")),
        "{fields:?}"
    );
    drop(orders);
    assert_eq!(swap(&world, "order-lifecycle").expect("answered"), Ok(1));
    let mut orders = world.task("order-lifecycle", "a");
    world.settle(&mut [&mut orders]);
    agrees(&world, "put right");
}

#[test]
fn orders_and_their_stock_are_rebuilt_with_instances_that_come_and_go() {
    for seed in 0..5 {
        let mut random = StdRng::seed_from_u64(seed);
        let world = World::new();
        web(&world);
        for sku in ["A", "B"] {
            stocked(&world, sku, "dc", random.random_range(1..8));
            stocked(&world, sku, "store", random.random_range(1..8));
        }
        let names = [
            LEDGER,
            "reservation-saga",
            "order-lifecycle",
            "ats-aggregate",
        ];
        let mut tasks = names.map(|p| world.task(p, "a"));
        for number in 1..=10 {
            let units = random.random_range(1..4);
            let sku = ["A", "B"][random.random_range(0..2)];
            world.send(
                topic::ORDER_LIFECYCLE,
                &id(number),
                placed(number, &[(sku, units)]),
            );
            for task in &mut tasks {
                if random.random_bool(0.5) {
                    let _ = task.step(Duration::ZERO);
                    world.advance(Duration::from_micros(1));
                }
            }
            world.advance(Duration::from_millis(random.random_range(0..90)));
            if random.random_bool(0.2) {
                drop(tasks);
                world.advance(Duration::from_secs(random.random_range(1..30)));
                tasks = names.map(|p| world.task(p, "a"));
            }
        }
        let mut all: Vec<&mut ProcessorTask> = tasks.iter_mut().collect();
        world.settle(&mut all);
        // Holds run out.
        world.advance(Duration::from_secs(3 * 3_600));
        world.settle(&mut all);
        agrees(&world, &format!("seed {seed}"));
    }
}
