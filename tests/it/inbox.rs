//! A connector's inbox on the embedded log, with everything that goes wrong between a delivery and
//! its answer.

use crate::world::{FAULTS, SOURCE, World};
use crossdock::contract::Catalogue;
use crossdock::domain::Timestamp;
use crossdock::log::{Admin, TopicSpec};
use crossdock::pipeline::{Inbox, RawDelivery, Verdict};
use crossdock::runtime::LogInbox;
use rand::prelude::*;
use std::sync::atomic::Ordering;

fn inbox(world: &World) -> LogInbox {
    let catalogue = Catalogue::compiled();
    LogInbox::new(
        SOURCE,
        world.port(),
        world.clock.clone(),
        world.cold_codec(),
        catalogue,
    )
}

fn world() -> World {
    let world = World::new();
    for topic in Catalogue::compiled().physical_of_inboxes(&[SOURCE]) {
        let spec = TopicSpec {
            name: topic.name,
            partitions: topic.partitions,
            replication: 1,
            settings: topic.settings,
        };
        world.log.create(&spec).expect("a new topic");
    }
    world
}

fn delivery(number: usize) -> RawDelivery {
    RawDelivery {
        id: format!("d{number}").into(),
        received_at: Timestamp(number as i64),
        sealed: vec![number as u8; 10].into(),
    }
}

fn read(inbox: &LogInbox, from: i64) -> (Vec<(i64, RawDelivery)>, i64) {
    let (mut found, mut next) = (Vec::new(), from);
    loop {
        let page = inbox.read(next, 7).expect("read");
        assert!(page.unreadable.is_empty());
        let is_end = page.deliveries.is_empty();
        found.extend(page.deliveries);
        next = page.next;
        if is_end {
            return (found, next);
        }
    }
}

#[test]
fn what_was_said_to_be_kept_is_there_in_order_whatever_failed() {
    for seed in 0..40 {
        let world = world();
        let mut random = StdRng::seed_from_u64(seed);
        let mut keeper = inbox(&world);
        let reader = inbox(&world);
        let mut kept = Vec::new();
        for number in 0..120 {
            match random.random_range(0..8) {
                0 => world
                    .log
                    .inject(*FAULTS.choose(&mut random).expect("a fault")),
                1 => {
                    let down = random.random_bool(0.3);
                    world.registry.0.store(down, Ordering::SeqCst);
                }
                2 => keeper = inbox(&world),
                // Whatever fails while reading, the position stays good.
                3 => drop(reader.read(random.random_range(0..=kept.len() as i64), 5)),
                _ => {}
            }
            if keeper.keep(&[delivery(number)]).is_ok() {
                kept.push(delivery(number));
            }
        }
        world.registry.0.store(false, Ordering::SeqCst);
        let (found, end) = loop {
            // A fault may still be left from before.
            if reader.read(0, 1).is_ok() {
                break read(&reader, 0);
            }
        };
        let mut place = found.iter();
        for expected in &kept {
            let is_there = place.any(|(_, d)| d == expected);
            assert!(
                is_there,
                "seed {seed}: {} was kept and is lost",
                expected.id
            );
        }
        for _ in 0..5 {
            let from = random.random_range(0..=end);
            let expected = found.iter().filter(|(at, _)| *at >= from).cloned();
            let expected: Vec<_> = expected.collect();
            assert_eq!(
                read(&reader, from),
                (expected, end),
                "seed {seed} from {from}"
            );
        }
    }
}

#[test]
fn a_position_that_the_inbox_never_had_is_told_and_not_passed_over() {
    let world = world();
    let inbox = inbox(&world);
    inbox.keep(&[delivery(0), delivery(1)]).expect("kept");
    let fault = inbox.read(7, 10).expect_err("halted");
    assert_eq!(fault.verdict, Verdict::Halt);
    assert!(fault.message.contains("cursor topic"), "{fault}");
    assert_eq!(inbox.read(2, 10).expect("read").next, 2);
}

#[test]
fn an_inbox_whose_topic_is_missing_says_how_it_is_made() {
    let world = World::new();
    let fault = inbox(&world).keep(&[delivery(0)]).expect_err("halted");
    assert!(fault.message.contains("crossdock topics apply"), "{fault}");
}
