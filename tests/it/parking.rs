//! Keys that cannot go on: each parks alone, is kept over restarts and rebalances, goes on in order, and
//! everybody can see it.

use crate::door::{Door, Says, send_level, send_refund, settings, visit};
use crate::stock::settled;
use crate::world::{FAULTS, SINK, World};
use crossdock::contract::event::*;
use crossdock::contract::{Catalogue, topic};
use crossdock::dlq::{self, Actor, Letters, Limits};
use crossdock::log::Log;
use crossdock::parked::{Filter, ParkedKey, ParkedKeys};
use crossdock::pipeline::Clock;
use crossdock::runtime::{Progress, SinkTask};
use crossdock::verify::{self, Ledger};
use futures::executor::block_on;
use rand::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const DEAD: &str = "retail.rt.shop.dlq.v1";
const PARK: &str = "retail.rt.shop.park.v1";
const REFUNDS: &[&str] = &[topic::REFUND_EVENT];

fn keys(world: &World) -> Vec<ParkedKey> {
    let parked = ParkedKeys {
        log: &world.log,
        codec: &world.codec,
        catalogue: Catalogue::compiled(),
    };
    parked.list(&Filter::default()).expect("a list")
}

fn books(world: &World, topics: &[&str]) -> Ledger {
    let log: Arc<dyn Log> = world.port();
    let readers: Vec<(String, String)> = topics
        .iter()
        .map(|t| (SINK.to_owned(), (*t).to_owned()))
        .collect();
    let catalogue = Catalogue::compiled();
    let books = verify::ledger(&log, &world.codec, catalogue, "crossdock", &readers);
    let books = books.expect("books");
    assert!(books.balances(), "{books:?}");
    books
}

/// Steps all tasks for so long by the clock.
fn run(world: &World, tasks: &mut [SinkTask], time: Duration, step: Duration) {
    let until = world.clock.now().plus(time);
    while world.clock.now() < until {
        world.advance(step);
        for task in tasks.iter_mut() {
            let _ = block_on(task.step(Duration::ZERO));
        }
    }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_key_that_fails_parks_alone_and_goes_on_in_order_on_another_instance() {
    let world = World::new();
    let bad = |(_, key, _): &crate::door::Known| match &**key {
        "order-7" => Says::Away,
        _ => Says::Yes,
    };
    let door = Arc::new(Door::new(&world, bad));
    let mut tasks = vec![visit(&world, &door, REFUNDS, settings("one"))];
    for version in 1..=3 {
        for order in 0..100 {
            send_refund(&world, &format!("order-{order}"), version);
        }
        run(&world, &mut tasks, 30 * 1_000 * MS, 50 * MS);
    }
    let done = door.by_key(topic::REFUND_EVENT);
    assert_eq!(done.len(), 99, "all other keys flow");
    assert!(done.values().all(|versions| *versions == [1, 2, 3]));
    let ledger = books(&world, REFUNDS);
    let counts = (ledger.applied, ledger.parked, ledger.in_flight);
    assert_eq!(counts, (297, 3, 0), "offsets commit past what is parked");
    assert_eq!(tasks[0].parked_keys(), 1);
    let parked = keys(&world);
    assert_eq!(parked.len(), 1, "{parked:?}");
    let key = &parked[0];
    assert_eq!(
        (&*key.key, &*key.code, key.behind),
        ("order-7", "UNAVAILABLE", 2)
    );
    assert!(
        key.attempts >= 5 && key.message.contains("cannot be reached"),
        "{key:?}"
    );
    assert!(key.next_attempt_at.expect("a time") > key.since, "{key:?}");
    let text = world.telemetry.render();
    for series in [
        "crossdock_parked_keys{task=\"shop/0\"} 1",
        "crossdock_parked_records{task=\"shop/0\"} 3",
    ] {
        assert!(text.contains(series), "{text}");
    }
    // Original bytes are kept: another instance finds them and goes on.
    drop(tasks);
    door.now_says(|_| Says::Yes);
    let mut tasks = vec![visit(&world, &door, REFUNDS, settings("two"))];
    send_refund(&world, "order-7", 4);
    run(&world, &mut tasks, 700 * 1_000 * MS, 500 * MS);
    let done = door.by_key(topic::REFUND_EVENT);
    assert_eq!(done["order-7"], [1, 2, 3, 4]);
    assert_eq!(keys(&world), []);
    let ledger = books(&world, REFUNDS);
    let counts = (ledger.applied, ledger.parked, ledger.in_flight);
    assert_eq!(counts, (301, 0, 0));
    let attempts = door.calls();
    let of_key = attempts
        .iter()
        .filter(|c| &*c.of.1 == "order-7" && c.of.2 == 1);
    let last = of_key.map(|c| c.attempt).max();
    assert!(last > Some(5), "tries are counted over restarts: {last:?}");
}

#[test]
fn a_newer_state_takes_the_place_of_a_parked_one() {
    let world = World::new();
    let bad = |(_, key, _): &crate::door::Known| match &**key {
        "A|web" => Says::Away,
        _ => Says::Yes,
    };
    let door = Arc::new(Door::new(&world, bad));
    let topics = &[topic::STOCK_ATS];
    let mut tasks = vec![visit(&world, &door, topics, settings("one"))];
    for version in 1..=20 {
        send_level(&world, "A", version);
        send_level(&world, "B", version);
        run(&world, &mut tasks, 5 * 1_000 * MS, 50 * MS);
    }
    let parked = keys(&world);
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0].behind, 0, "only the newest waits: {parked:?}");
    assert_eq!(books(&world, topics).parked, 1);
    door.now_says(|_| Says::Yes);
    run(&world, &mut tasks, 400 * 1_000 * MS, 200 * MS);
    assert_eq!(door.by_key(topic::STOCK_ATS)["A|web"], [20]);
    let ledger = books(&world, topics);
    assert_eq!((ledger.superseded, ledger.applied), (19, 21));
}

#[test]
fn whatever_fails_at_whatever_moment_parked_keys_go_on_in_order_and_once() {
    let mut parked = 0;
    for seed in 0..60 {
        let world = World::new();
        let mut random = StdRng::seed_from_u64(seed);
        let bad: Arc<Mutex<BTreeSet<Text>>> = Arc::default();
        let (sick, mut dice) = (bad.clone(), StdRng::seed_from_u64(seed + 1_000));
        let mut door = Door::new(&world, move |(_, key, _)| {
            match sick.lock().expect("whole").contains(key) {
                true if dice.random_bool(0.1) => Says::Lost,
                true => Says::Away,
                false if dice.random_bool(0.03) => Says::Cut,
                false => Says::Yes,
            }
        });
        door.is_careful = seed % 2 == 0;
        let door = Arc::new(door);
        let topics = &[topic::STOCK_ATS, topic::REFUND_EVENT];
        let start = |slot: usize| visit(&world, &door, topics, settings(&format!("slot-{slot}")));
        let mut tasks = vec![start(0)];
        let (mut next, mut sent) = (1, 0);
        let mut last: BTreeMap<String, i64> = BTreeMap::new();
        for round in 0..14 {
            for _ in 0..random.random_range(2..30) {
                let name = format!("K{}", random.random_range(0..12));
                let version = last.entry(name.clone()).or_default();
                *version += 1;
                send_refund(&world, &name, *version);
                send_level(&world, &name, *version);
                sent += 2;
            }
            let name = format!("K{}", random.random_range(0..12));
            let mut sick = bad.lock().expect("whole");
            if random.random_bool(0.6) {
                sick.extend([Text::from(name.as_str()), format!("{name}|web").into()]);
            } else if round % 3 == 2 {
                sick.clear();
            }
            drop(sick);
            for _ in 0..random.random_range(5..60) {
                match random.random_range(0..22) {
                    0..4 => world
                        .log
                        .inject(*FAULTS.choose(&mut random).expect("a fault")),
                    4 => {
                        let down = random.random_bool(0.4);
                        world.registry.0.store(down, Ordering::SeqCst);
                    }
                    5 => world.log.expire("crossdock.shop", "member-"),
                    6 => world.advance(Duration::from_secs(31)),
                    7 if tasks.len() < 3 => {
                        tasks.push(start(next));
                        next += 1;
                    }
                    8 => {
                        let chosen = random.random_range(0..tasks.len());
                        drop(tasks.swap_remove(chosen));
                        if tasks.is_empty() {
                            tasks.push(start(next));
                            next += 1;
                        }
                    }
                    9 if tasks.len() > 1 => {
                        let chosen = random.random_range(0..tasks.len());
                        block_on(tasks.swap_remove(chosen).close(Duration::from_secs(5)));
                    }
                    10..14 => world.advance(Duration::from_millis(400)),
                    _ => {}
                }
                let chosen = random.random_range(0..tasks.len());
                let _ = block_on(tasks[chosen].step(Duration::ZERO));
            }
        }
        world.registry.0.store(false, Ordering::SeqCst);
        door.now_says(|_| Says::Yes);
        let mut rounds = 0;
        for _ in 0..20_000 {
            world.advance(Duration::from_millis(200));
            let mut quiet = true;
            for task in &mut tasks {
                let progress = block_on(task.step(Duration::ZERO));
                let rests = matches!(progress, Ok(Progress::Idle { .. } | Progress::Unassigned));
                quiet &= rests && task.is_quiet() && task.parked_keys() == 0 && !task.is_calling();
            }
            rounds = if quiet { rounds + 1 } else { 0 };
            if rounds == 5 {
                break;
            }
        }
        assert_eq!(rounds, 5, "seed {seed}: it never came to rest");
        assert_eq!(keys(&world), [], "seed {seed}");
        assert!(world.events(DEAD).is_empty(), "seed {seed}");
        let (refunds, levels) = (
            door.by_key(topic::REFUND_EVENT),
            door.by_key(topic::STOCK_ATS),
        );
        for (name, version) in &last {
            let all: Vec<i64> = (1..=*version).collect();
            assert_eq!(refunds[&**name], all, "seed {seed}: {name}");
            let shown = &levels[&*format!("{name}|web")];
            assert!(shown.is_sorted(), "seed {seed}: {name}: {shown:?}");
            assert_eq!(shown.last(), Some(version), "seed {seed}: {name}");
        }
        let (count, outcomes) = settled(&world, SINK);
        assert_eq!(count, sent, "seed {seed}: every record is settled once");
        assert_eq!(outcomes.get(&Outcome::Parked), None, "seed {seed}");
        books(&world, topics);
        parked += world.records(PARK).len();
    }
    assert!(
        parked > 1_000,
        "{parked} records of parked keys were written"
    );
}

fn letters(world: &World) -> Letters<'_> {
    Letters {
        log: &world.log,
        codec: &world.codec,
        catalogue: Catalogue::compiled(),
        application: "crossdock",
    }
}

fn limits() -> Limits<'static> {
    Limits {
        records_per_second: None,
        redrives_max: 3,
        dry_run: false,
        stop: &|| false,
    }
}

#[test]
fn a_dead_letter_holds_its_key_up_until_it_is_redriven_or_discarded() {
    for discards in [false, true] {
        let world = World::new();
        let bad = |(_, key, version): &crate::door::Known| match (&**key, version) {
            ("order-7", 1) => Says::Never,
            _ => Says::Yes,
        };
        let door = Arc::new(Door::new(&world, bad));
        let mut tasks = vec![visit(&world, &door, REFUNDS, settings("one"))];
        for version in 1..=3 {
            for order in 0..20 {
                send_refund(&world, &format!("order-{order}"), version);
            }
        }
        run(&world, &mut tasks, 60 * 1_000 * MS, 100 * MS);
        assert_eq!(door.by_key(topic::REFUND_EVENT).len(), 19);
        let parked = keys(&world);
        assert_eq!(parked.len(), 1, "{parked:?}");
        assert!(parked[0].waits_for_letter(), "{parked:?}");
        assert_eq!((&*parked[0].code, parked[0].behind), ("REFUSED", 2));
        let ledger = books(&world, REFUNDS);
        assert_eq!((ledger.dead_lettered, ledger.parked), (1, 2));
        // Another instance holds the key up just so.
        drop(tasks);
        let mut tasks = vec![visit(&world, &door, REFUNDS, settings("two"))];
        run(&world, &mut tasks, 60 * 1_000 * MS, 100 * MS);
        assert_eq!(door.by_key(topic::REFUND_EVENT).len(), 19);
        door.now_says(|_| Says::Yes);
        let actor = Actor {
            name: "ann".into(),
            reason: Some("it was paid by hand".into()),
        };
        let filter = dlq::Filter::default();
        let run_it = if discards { dlq::discard } else { dlq::redrive };
        let report = run_it(&letters(&world), &filter, &actor, limits(), &mut |_| Ok(()));
        assert_eq!(report.expect("a run").done, 1);
        run(&world, &mut tasks, 60 * 1_000 * MS, 100 * MS);
        let expected: &[i64] = if discards { &[2, 3] } else { &[1, 2, 3] };
        assert_eq!(door.by_key(topic::REFUND_EVENT)["order-7"], expected);
        assert_eq!(keys(&world), []);
        assert_eq!(books(&world, REFUNDS).parked, 0);
    }
}

#[test]
fn what_waits_behind_a_redriven_record_is_in_no_doubt_and_is_meant_before_it_is_called() {
    let world = World::new();
    let mut door = Door::new(&world, |(_, key, version)| match (&**key, version) {
        ("order-7", 1) => Says::Never,
        _ => Says::Yes,
    });
    door.is_careful = true;
    let door = Arc::new(door);
    let mut tasks = vec![visit(&world, &door, REFUNDS, settings("one"))];
    for version in 1..=3 {
        send_refund(&world, "order-7", version);
    }
    run(&world, &mut tasks, 10 * 1_000 * MS, 100 * MS);
    assert!(keys(&world)[0].waits_for_letter());
    door.now_says(|_| Says::Yes);
    let (called, filter) = (door.calls().len(), dlq::Filter::default());
    let report = dlq::redrive(&letters(&world), &filter, &ann(), limits(), &mut |_| Ok(()));
    assert_eq!(report.expect("a run").done, 1);
    run(&world, &mut tasks, 10 * 1_000 * MS, 100 * MS);
    assert_eq!(door.by_key(topic::REFUND_EVENT)["order-7"], [1, 2, 3]);
    let calls = &door.calls()[called..];
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|call| !call.in_doubt), "{calls:?}");
    let receipts = world.events("retail.rt.shop.receipt.v1");
    let meant = receipts
        .iter()
        .filter(|e| matches!(e, Event::SinkReceipt(r) if r.outcome == SinkOutcome::Intent));
    assert_eq!(meant.count(), 4, "each call, the refused one too");
    assert_eq!(books(&world, REFUNDS).parked, 0);
}

fn ann() -> Actor {
    Actor {
        name: "ann".into(),
        reason: Some("it was paid by hand".into()),
    }
}

#[test]
fn a_key_is_let_go_by_hand_also_when_its_dead_letter_has_expired() {
    for expires in [false, true] {
        let world = World::new();
        let bad = |(_, key, version): &crate::door::Known| match (&**key, version) {
            ("order-7", 1) => Says::Never,
            _ => Says::Yes,
        };
        let door = Arc::new(Door::new(&world, bad));
        let mut tasks = vec![visit(&world, &door, REFUNDS, settings("one"))];
        for version in 1..=3 {
            send_refund(&world, "order-7", version);
        }
        run(&world, &mut tasks, 10 * 1_000 * MS, 100 * MS);
        if expires {
            world.log.outlive(DEAD);
        }
        let key = keys(&world).remove(0);
        assert!(key.waits_for_letter());
        assert_eq!(key.letter.is_none(), expires, "{key:?}");
        let place = key.place().expect("a place");
        let release = |dry_run| {
            let all = letters(&world);
            dlq::release(&all, SINK, "order-7", &place, &ann(), dry_run).expect("answered")
        };
        let before = world.events(topic::OPS_AUDIT).len();
        assert_eq!(release(true).expect("would be").is_some(), !expires);
        run(&world, &mut tasks, 10 * 1_000 * MS, 100 * MS);
        assert_eq!(keys(&world), [key], "a dry run does nothing");
        assert_eq!(release(false).expect("released").is_some(), !expires);
        run(&world, &mut tasks, 10 * 1_000 * MS, 100 * MS);
        assert_eq!(door.by_key(topic::REFUND_EVENT)["order-7"], [2, 3]);
        assert_eq!(keys(&world), []);
        let audits = world.events(topic::OPS_AUDIT).split_off(before);
        let told: Vec<(&str, &str)> = audits
            .iter()
            .map(|e| match e {
                Event::Audit(audit) => (&*audit.action, &*audit.actor),
                other => panic!("{}", other.contract()),
            })
            .collect();
        let released = ("parked.release", "ann");
        match expires {
            true => assert_eq!(told, [released]),
            false => assert_eq!(told, [("dlq.discard", "ann"), released]),
        }
        assert_eq!(books(&world, REFUNDS).parked, 0);
    }
}

#[test]
fn a_key_whose_letter_was_redriven_is_not_let_go_past_it() {
    let world = World::new();
    let door = Arc::new(Door::new(&world, |_| Says::Never));
    let mut tasks = vec![visit(&world, &door, REFUNDS, settings("one"))];
    send_refund(&world, "order-7", 1);
    send_refund(&world, "order-7", 2);
    run(&world, &mut tasks, 10 * 1_000 * MS, 100 * MS);
    let place = keys(&world)[0].place().expect("a place");
    let filter = dlq::Filter::default();
    let report = dlq::redrive(&letters(&world), &filter, &ann(), limits(), &mut |_| Ok(()));
    assert_eq!(report.expect("a run").done, 1);
    let all = letters(&world);
    let released = dlq::release(&all, SINK, "order-7", &place, &ann(), false);
    let refusal = released.expect("answered").expect_err("it is in hand");
    assert_eq!(refusal.code, "REDRIVEN");
    assert!(refusal.why.contains("ann has redriven"), "{}", refusal.why);
}

#[test]
fn a_record_that_was_parked_or_redriven_and_is_refused_still_holds_its_key_up() {
    let world = World::new();
    let says = |answer: fn() -> Says| {
        move |(_, key, version): &crate::door::Known| match (&**key, version) {
            ("order-7", 1) => answer(),
            _ => Says::Yes,
        }
    };
    let door = Arc::new(Door::new(&world, says(|| Says::Away)));
    let mut tasks = vec![visit(&world, &door, REFUNDS, settings("one"))];
    for version in 1..=3 {
        for order in 0..20 {
            send_refund(&world, &format!("order-{order}"), version);
        }
    }
    run(&world, &mut tasks, 60 * 1_000 * MS, 100 * MS);
    assert!(!keys(&world)[0].waits_for_letter(), "it is parked");
    let actor = Actor {
        name: "ann".into(),
        reason: None,
    };
    let filter = dlq::Filter::default();
    for round in 0..3 {
        door.now_says(says(|| Says::Never));
        run(&world, &mut tasks, 600 * 1_000 * MS, 100 * MS);
        // Neither this instance nor the next lets it go.
        tasks = vec![visit(&world, &door, REFUNDS, settings(&format!("{round}")))];
        run(&world, &mut tasks, 60 * 1_000 * MS, 100 * MS);
        let parked = keys(&world);
        assert!(parked[0].waits_for_letter(), "round {round}: {parked:?}");
        assert_eq!(parked[0].behind, 2, "round {round}");
        assert!(!door.by_key(topic::REFUND_EVENT).contains_key("order-7"));
        if round == 2 {
            door.now_says(|_| Says::Yes);
        }
        let report = dlq::redrive(&letters(&world), &filter, &actor, limits(), &mut |_| Ok(()));
        assert_eq!(report.expect("a run").done, 1, "round {round}");
    }
    run(&world, &mut tasks, 60 * 1_000 * MS, 100 * MS);
    assert_eq!(door.by_key(topic::REFUND_EVENT)["order-7"], [1, 2, 3]);
    assert_eq!(keys(&world), []);
    assert_eq!(books(&world, REFUNDS).parked, 0);
}

#[test]
fn ten_thousand_parked_keys_leave_everybody_else_their_calls() {
    let world = World::new();
    let bad = |(_, key, _): &crate::door::Known| match key.starts_with("bad") {
        true => Says::Away,
        false => Says::Yes,
    };
    let door = Arc::new(Door::new(&world, bad));
    let mut tasks = vec![visit(&world, &door, REFUNDS, settings("one"))];
    for order in 0..10_000 {
        send_refund(&world, &format!("bad-{order}"), 1);
        if order % 5 == 0 {
            send_refund(&world, &format!("good-{order}"), 1);
        }
    }
    // As long as good keys are answered, bad ones are told from a target that is down.
    let mut version = 1;
    while tasks[0].parked_keys() < 10_000 {
        version += 1;
        for order in 0..20 {
            send_refund(&world, &format!("well-{order}"), version);
        }
        run(&world, &mut tasks, 1_000 * MS, 10 * MS);
        assert!(version < 2_000, "{} are parked", tasks[0].parked_keys());
    }
    assert_eq!(books(&world, REFUNDS).parked, 10_000);
    // New records do not wait for them.
    let before = door.calls().len();
    for order in 0..1_000 {
        send_refund(&world, &format!("new-{order}"), 1);
    }
    let began = world.clock.now();
    let new_done = || door.count(|(_, key, _)| key.starts_with("new"));
    while new_done() < 1_000 {
        run(&world, &mut tasks, MS, MS);
        assert!(world.clock.now().since(began) < Duration::from_secs(5));
    }
    let spent = door.calls().len() - before;
    assert!(
        spent <= 1_500,
        "{spent} calls for 1,000 records: parked keys have a part"
    );
    // Somebody else takes them over.
    drop(tasks);
    let mut tasks = vec![visit(&world, &door, REFUNDS, settings("two"))];
    run(&world, &mut tasks, 1_000 * MS, 100 * MS);
    assert_eq!(tasks[0].parked_keys(), 10_000);
    door.now_says(|_| Says::Yes);
    run(&world, &mut tasks, 400 * 1_000 * MS, 50 * MS);
    assert_eq!(tasks[0].parked_keys(), 0);
    assert_eq!(books(&world, REFUNDS).parked, 0);
    let left = world.records(PARK);
    let mut live: BTreeMap<_, bool> = BTreeMap::new();
    for record in left {
        live.insert(record.key.clone(), record.value.is_some());
    }
    assert!(
        live.values().all(|is_live| !is_live),
        "nothing is left behind"
    );
}
