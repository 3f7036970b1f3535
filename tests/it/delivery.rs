//! A sink and its target: how it is called when it is well, unwell, asks for less, or leaves in doubt. What is
//! counted here is counted by the clock of the test, exactly.

use crate::door::{
    Call, Door, Known, Says, create_sink, send_level, send_product, send_refund, settings, visit,
    visit_as,
};
use crate::stock::settled;
use crate::world::{SINK, World};
use crossdock::contract::event::*;
use crossdock::contract::topic;
use crossdock::pipeline::Clock;
use crossdock::runtime::{Budget, Progress, SinkTask};
use futures::executor::block_on;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const DEAD: &str = "retail.rt.shop.dlq.v1";
const RECEIPTS: &str = "retail.rt.shop.receipt.v1";

/// Steps until nothing more is done at this moment. The clock stands.
fn work(tasks: &mut [SinkTask]) {
    for _ in 0..200 {
        let mut worked = false;
        for task in tasks.iter_mut() {
            let progress = block_on(task.step(Duration::ZERO));
            worked |= matches!(progress, Ok(Progress::Worked(count)) if count > 0);
            worked |= matches!(progress, Ok(Progress::Restoring { .. } | Progress::Joining));
        }
        if !worked {
            return;
        }
    }
}

/// Works through so much time, in steps of `step`.
fn run(world: &World, tasks: &mut [SinkTask], time: Duration, step: Duration) {
    let until = world.clock.now().plus(time);
    while world.clock.now() < until {
        world.advance(step);
        work(tasks);
    }
}

fn seconds(from: crossdock::domain::Timestamp, calls: &[Call]) -> BTreeMap<u64, usize> {
    let mut by_second = BTreeMap::new();
    for call in calls {
        *by_second.entry(call.at.since(from).as_secs()).or_default() += 1;
    }
    by_second
}

#[test]
fn a_target_that_is_down_is_probed_nothing_is_lost_and_it_comes_back_step_by_step() {
    let world = World::new();
    let door = Arc::new(Door::new(&world, |_| Says::Away));
    *door.takes.lock().expect("whole") = 5 * MS;
    let topics = &[topic::REFUND_EVENT];
    let mut tasks = vec![visit(&world, &door, topics, settings("one"))];
    for order in 0..3_000 {
        send_refund(&world, &format!("order-{order}"), 1);
    }
    run(&world, &mut tasks, 10_000 * MS, 5 * MS);
    let text = world.telemetry.render();
    assert!(
        text.contains("crossdock_target_down{task=\"shop/0\"} 1"),
        "{text}"
    );
    let waiting = tasks[0].waiting();
    for order in 3_000..6_000 {
        send_refund(&world, &format!("order-{order}"), 1);
    }
    let before = door.calls().len();
    run(&world, &mut tasks, 1_790_000 * MS, 100 * MS);
    let probes = door.calls().len() - before;
    assert!(
        (60..=130).contains(&probes),
        "{probes} probes in half an hour"
    );
    assert_eq!(tasks[0].waiting(), waiting, "it has enough to probe with");
    assert_eq!(tasks[0].parked_keys(), 0);
    assert!(world.events(DEAD).is_empty());
    let (count, _) = settled(&world, SINK);
    assert_eq!(count, 0, "nothing is settled while the target is down");
    // It is back. No stampede: the first call alone, then a few, then as many as are allowed.
    door.now_says(|_| Says::Yes);
    let (before, mut at_a_time) = (door.count(|_| true), Vec::new());
    while door.count(|_| true) < 6_000 {
        run(&world, &mut tasks, MS, MS);
        let now = door.under_way.lock().expect("whole").len();
        if now > 0 && (at_a_time.last() != Some(&now)) && at_a_time.len() < 40 {
            at_a_time.push(now);
        }
    }
    assert_eq!(before, 0);
    assert_eq!(at_a_time[..3], [1, 2, 4], "{at_a_time:?}");
    assert_eq!(at_a_time.iter().max(), Some(&8));
    run(&world, &mut tasks, 1_000 * MS, 50 * MS);
    assert_eq!(settled(&world, SINK).0, 6_000);
}

#[test]
fn calls_to_other_targets_are_unchanged_while_one_is_dead() {
    let other_calls = |says: Says| {
        let world = World::new();
        create_sink(&world, "other");
        let shop = Arc::new(Door::new(&world, move |_| says));
        let other = Arc::new(Door::new(&world, |_| Says::Yes));
        for door in [&shop, &other] {
            *door.takes.lock().expect("whole") = 5 * MS;
        }
        let topics = &[topic::STOCK_ATS];
        let mut tasks = vec![
            visit(&world, &shop, topics, settings("one")),
            visit_as("other", &world, &other, topics, settings("one")),
        ];
        run(&world, &mut tasks, 100 * MS, MS);
        let began = world.clock.now();
        for number in 0..2_000 {
            send_level(&world, &format!("S{number}"), 1);
            if number % 4 == 0 {
                run(&world, &mut tasks, MS, MS);
            }
        }
        run(&world, &mut tasks, 3_000 * MS, MS);
        let calls = other.calls();
        let calls = calls.iter().map(|c| (c.at.since(began), c.of.clone()));
        calls.collect::<Vec<_>>()
    };
    let (well, dead) = (other_calls(Says::Yes), other_calls(Says::Away));
    assert_eq!(well.len(), 2_000);
    assert_eq!(well, dead, "each call, and when it was made");
}

#[test]
fn a_wait_that_the_target_asks_for_holds_for_every_call() {
    let world = World::new();
    let mut asked = 0;
    let door = Arc::new(Door::new(&world, move |_| {
        asked += 1;
        match asked % 50 {
            0 => Says::Busy(Duration::from_secs(7)),
            _ => Says::Yes,
        }
    }));
    let topics = &[topic::REFUND_EVENT];
    let mut tasks = vec![visit(&world, &door, topics, settings("one"))];
    for order in 0..400 {
        send_refund(&world, &format!("order-{order}"), 1);
    }
    run(&world, &mut tasks, 120_000 * MS, 10 * MS);
    assert_eq!(door.count(|_| true), 400);
    assert!(world.events(DEAD).is_empty());
    let calls = door.calls();
    let pauses = calls
        .windows(2)
        .filter(|w| w[1].at.since(w[0].at) >= Duration::from_secs(7));
    assert_eq!(
        pauses.count(),
        calls.len() / 50,
        "as long as it asked, each time"
    );
    assert_eq!(tasks[0].parked_keys(), 0, "it is nobody's own affair");
}

#[test]
fn a_budget_is_kept_by_all_instances_together() {
    let world = World::new();
    let door = Arc::new(Door::new(&world, |_| Says::Yes));
    let topics = &[topic::REFUND_EVENT];
    let start = |slot: &str| {
        let mut settings = settings(slot);
        settings.budget = Some(Budget {
            calls_per_second: 60.0,
            burst: 60.0,
        });
        visit(&world, &door, topics, settings)
    };
    let mut tasks = vec![start("one")];
    run(&world, &mut tasks, 200 * MS, 10 * MS);
    for order in 0..20_000 {
        send_refund(&world, &format!("order-{order}"), 1);
    }
    let began = world.clock.now();
    run(&world, &mut tasks, 30_000 * MS, 100 * MS);
    for slot in ["two", "three", "four"] {
        tasks.push(start(slot));
        run(&world, &mut tasks, 30_000 * MS, 100 * MS);
    }
    tasks.truncate(2);
    run(&world, &mut tasks, 60_000 * MS, 100 * MS);
    let by_second = seconds(began, &door.calls());
    let most = by_second.iter().skip(1).map(|(_, count)| *count).max();
    assert!(most <= Some(66), "{by_second:?}");
    let total: usize = by_second.values().sum();
    assert!(
        (180 * 60 * 9 / 10..=181 * 60).contains(&total),
        "{total} calls in 180 s"
    );
}

#[test]
fn urgent_records_go_before_a_tenfold_flood_and_the_flood_goes_on() {
    let world = World::new();
    let door = Arc::new(Door::new(&world, |_| Says::Yes));
    *door.takes.lock().expect("whole") = 5 * MS;
    let topics = &[topic::STOCK_ATS, topic::PRODUCT_CHANGE];
    let mut tasks = vec![visit(&world, &door, topics, settings("one"))];
    run(&world, &mut tasks, 100 * MS, MS);
    for number in 0..30_000 {
        send_product(&world, &format!("P{number}"), 1);
    }
    run(&world, &mut tasks, 200 * MS, MS);
    assert!(
        tasks[0].waiting() <= 6_000,
        "a flood leaves room: {}",
        tasks[0].waiting()
    );
    // Three thousand urgent ones, in the midst of it.
    let before = door.calls().len();
    for number in 0..3_000 {
        send_level(&world, &format!("S{number}"), 1);
    }
    let urgent = |calls: &[Call]| calls.iter().filter(|c| c.of.0 == topic::STOCK_ATS).count();
    while urgent(&door.calls()) < 3_000 {
        run(&world, &mut tasks, MS, MS);
    }
    let calls = &door.calls()[before..];
    let flood = calls.len() - 3_000;
    let part = flood as f64 / calls.len() as f64;
    println!(
        "P0 calls 3000, P3 calls meanwhile {flood}: {:.1} %",
        part * 100.0
    );
    assert!(part <= 0.06, "{flood} of the flood went before the urgent");
    assert!(part >= 0.04, "the flood has its floor: {flood}");
}

#[test]
fn a_target_that_takes_its_time_is_called_as_often_as_allowed_and_keys_keep_their_order() {
    let world = World::new();
    let mut door = Door::new(&world, |_| Says::Yes);
    door.calls_max = 16;
    let door = Arc::new(door);
    *door.takes.lock().expect("whole") = 5 * MS;
    let topics = &[topic::REFUND_EVENT];
    let mut tasks = vec![visit(&world, &door, topics, settings("one"))];
    run(&world, &mut tasks, 100 * MS, MS);
    for version in 1..=20 {
        for order in 0..200 {
            send_refund(&world, &format!("order-{order}"), version);
        }
    }
    let began = world.clock.now();
    let (mut under_way, mut samples) = (0, 0);
    while door.count(|_| true) < 4_000 {
        run(&world, &mut tasks, MS, MS);
        under_way += door.under_way.lock().expect("whole").len();
        samples += 1;
    }
    let took = world.clock.now().since(began);
    let reached = 4_000.0 * 5.0 / took.as_millis() as f64 / 16.0;
    println!(
        "4000 calls of 5 ms in {} ms of 1250: {:.1} % of 16 at a time, {:.1} under way",
        took.as_millis(),
        reached * 100.0,
        f64::from(under_way as u32) / f64::from(samples)
    );
    assert!(reached >= 0.9, "{reached}");
    let all: Vec<i64> = (1..=20).collect();
    assert!(door.by_key(topic::REFUND_EVENT).values().all(|v| *v == all));
}

fn outcomes(world: &World) -> Vec<SinkOutcome> {
    let receipts = world.events(RECEIPTS).into_iter().map(|e| match e {
        Event::SinkReceipt(receipt) => receipt.outcome,
        other => panic!("{}", other.contract()),
    });
    receipts.collect()
}

fn told(world: &World) -> Vec<PaymentKind> {
    let facts = world.events(topic::PAYMENT_EVENT).into_iter();
    let kinds = facts.map(|e| match e {
        Event::PaymentEvent(event) => event.kind,
        other => panic!("{}", other.contract()),
    });
    kinds.collect()
}

/// A door that is called for what cannot be taken back.
fn careful(world: &World, script: impl FnMut(&Known) -> Says + Send + 'static) -> Arc<Door> {
    let mut door = Door::new(world, script);
    (door.is_careful, door.tells_refusals) = (true, true);
    Arc::new(door)
}

#[test]
fn a_call_that_may_have_been_made_is_known_of_and_never_guessed() {
    let world = World::new();
    let mut calls = 0;
    let door = careful(&world, move |_| {
        calls += 1;
        match calls {
            1 => Says::Lost,
            2..9 => Says::Cut,
            _ => Says::Yes,
        }
    });
    let topics = &[topic::REFUND_EVENT];
    let mut tasks = vec![visit(&world, &door, topics, settings("one"))];
    send_refund(&world, "o", 1);
    run(&world, &mut tasks, 2_000 * MS, 20 * MS);
    use SinkOutcome::{DuplicateAcked, Intent, OutcomeUnknown};
    assert_eq!(outcomes(&world), [Intent, OutcomeUnknown]);
    assert_eq!(
        told(&world),
        [PaymentKind::RefundUnknown],
        "told once, not guessed"
    );
    assert_eq!(settled(&world, SINK).0, 0, "it has no outcome yet");
    // Whoever comes next knows of the doubt.
    drop(tasks);
    let asked = door.calls().len();
    let mut tasks = vec![visit(&world, &door, topics, settings("two"))];
    run(&world, &mut tasks, 60_000 * MS, 20 * MS);
    let calls = door.calls();
    assert!(!calls[0].in_doubt, "the first call is in no doubt");
    assert!(calls[1..].iter().all(|c| c.in_doubt), "{calls:?}");
    assert!(calls.len() > asked);
    assert_eq!(door.count(|_| true), 1, "one effect");
    assert_eq!(outcomes(&world).last(), Some(&DuplicateAcked));
    assert_eq!(settled(&world, SINK).0, 1);
    assert!(world.events(DEAD).is_empty());
}

#[test]
fn a_crash_between_intent_and_answer_leaves_the_next_one_in_doubt() {
    let world = World::new();
    let door = careful(&world, |_| Says::Yes);
    *door.takes.lock().expect("whole") = 60_000 * MS;
    let topics = &[topic::REFUND_EVENT];
    let mut tasks = vec![visit(&world, &door, topics, settings("one"))];
    for order in 0..5 {
        send_refund(&world, &format!("o{order}"), 1);
    }
    run(&world, &mut tasks, 100 * MS, 10 * MS);
    assert_eq!(door.calls().len(), 5);
    assert_eq!(
        outcomes(&world),
        [SinkOutcome::Intent; 5],
        "before the call"
    );
    drop(tasks);
    *door.takes.lock().expect("whole") = Duration::ZERO;
    let mut tasks = vec![visit(&world, &door, topics, settings("two"))];
    run(&world, &mut tasks, 60_000 * MS, 100 * MS);
    let calls = door.calls();
    assert!(calls[..5].iter().all(|c| !c.in_doubt));
    assert_eq!(calls.len(), 10);
    assert!(calls[5..].iter().all(|c| c.in_doubt), "{calls:?}");
    // The next record of a key is in no doubt.
    send_refund(&world, "o1", 2);
    run(&world, &mut tasks, 1_000 * MS, 100 * MS);
    assert!(!door.calls()[10].in_doubt);
    assert_eq!(door.count(|_| true), 6);
}

#[test]
fn that_nobody_knows_is_told_only_once_a_call_has_ended_so() {
    let world = World::new();
    let door = careful(&world, |_| Says::Yes);
    *door.takes.lock().expect("whole") = 60_000 * MS;
    let topics = &[topic::REFUND_EVENT];
    let mut tasks = vec![visit(&world, &door, topics, settings("one"))];
    send_refund(&world, "o", 1);
    run(&world, &mut tasks, 100 * MS, 10 * MS);
    drop(tasks);
    *door.takes.lock().expect("whole") = Duration::ZERO;
    // Meant, not known to have been made, and the target is away: it is asked first, and nothing is told.
    door.now_says(|_| Says::Away);
    let mut tasks = vec![visit(&world, &door, topics, settings("two"))];
    run(&world, &mut tasks, 60_000 * MS, 100 * MS);
    let calls = door.calls();
    assert!(calls.len() > 3 && calls[1..].iter().all(|c| c.in_doubt));
    assert_eq!(told(&world), []);
    assert_eq!(outcomes(&world), [SinkOutcome::Intent]);
    door.now_says(|_| Says::Cut);
    run(&world, &mut tasks, 600_000 * MS, 100 * MS);
    assert_eq!(told(&world), [PaymentKind::RefundUnknown]);
    door.now_says(|_| Says::Yes);
    run(&world, &mut tasks, 600_000 * MS, 100 * MS);
    assert_eq!(outcomes(&world).last(), Some(&SinkOutcome::Acked));
    assert_eq!(settled(&world, SINK).0, 1);
}

#[test]
fn a_group_probes_a_target_that_is_down_as_one_instance_would() {
    let world = World::new();
    let door = Arc::new(Door::new(&world, |_| Says::Away));
    *door.takes.lock().expect("whole") = 5 * MS;
    let topics = &[topic::REFUND_EVENT];
    let slots = ["one", "two", "three", "four"];
    let mut tasks: Vec<SinkTask> = slots
        .iter()
        .map(|slot| visit(&world, &door, topics, settings(slot)))
        .collect();
    run(&world, &mut tasks, 5_000 * MS, 50 * MS);
    for order in 0..3_000 {
        send_refund(&world, &format!("order-{order}"), 1);
    }
    run(&world, &mut tasks, 10_000 * MS, 5 * MS);
    let (before, mut together) = (door.calls().len(), 0);
    for _ in 0..18_000 {
        run(&world, &mut tasks, 100 * MS, 100 * MS);
        together = together.max(door.under_way.lock().expect("whole").len());
    }
    let probes = door.calls().len() - before;
    // One instance probes 60 to 130 times.
    assert!(
        (40..=140).contains(&probes),
        "{probes} probes in half an hour"
    );
    assert!(together <= 2, "{together} calls at a time");
    assert_eq!(settled(&world, SINK).0, 0);
    // It is back: whoever asks next goes on, the others soon after.
    door.now_says(|_| Says::Yes);
    run(&world, &mut tasks, 180_000 * MS, 50 * MS);
    assert_eq!(settled(&world, SINK).0, 3_000);
}

#[test]
fn a_refusal_is_told_as_a_fact_and_the_key_goes_on() {
    let world = World::new();
    let door = careful(&world, |(_, _, version)| match version {
        1 => Says::Never,
        _ => Says::Yes,
    });
    let topics = &[topic::REFUND_EVENT];
    let mut tasks = vec![visit(&world, &door, topics, settings("one"))];
    send_refund(&world, "o", 1);
    send_refund(&world, "o", 2);
    run(&world, &mut tasks, 2_000 * MS, 20 * MS);
    assert_eq!(told(&world), [PaymentKind::RefundFailed]);
    use SinkOutcome::{Acked, Intent, Rejected};
    assert_eq!(outcomes(&world), [Intent, Rejected, Intent, Acked]);
    let (count, by_outcome) = settled(&world, SINK);
    assert_eq!((count, by_outcome[&Outcome::Applied]), (2, 2));
    assert!(world.events(DEAD).is_empty());
    assert_eq!(tasks[0].parked_keys(), 0);
}
