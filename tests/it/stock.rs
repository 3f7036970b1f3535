//! `stock-ledger` and `ats-aggregate` on the embedded log, with everything that goes wrong between
//! two steps.

use crate::world::{FAULTS, World, meta};
use crossdock::contract::event::*;
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::{Decimal, compound_key};
use crossdock::log::Admin;
use crossdock::log::embedded::Injected;
use crossdock::pipeline::Code;
use crossdock::runtime::ProcessorTask;
use rand::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

pub fn sale(sku: &str, location: &str, position: i64, quantity: i32) -> StockChanged {
    StockChanged {
        meta: meta(
            "StockChanged",
            "pos",
            &format!("{sku}/{location}/{position}"),
            position,
        ),
        movement_id: format!("m{position}").into(),
        sku: sku.into(),
        location_id: location.into(),
        from_state: if quantity > 0 {
            StockState::Sellable
        } else {
            StockState::Supplier
        },
        to_state: if quantity > 0 {
            StockState::Customer
        } else {
            StockState::Sellable
        },
        qty: Decimal::from(quantity.abs()),
        reason: StockReason::Sale,
        ..StockChanged::default()
    }
}

pub fn channel(id: &str, locations: &[&str]) -> Channel {
    Channel {
        meta: meta("Channel", "config", id, 1),
        channel_id: id.into(),
        channel_version: 1,
        status: ChannelStatus::Active,
        eligible_locations: locations.iter().map(|l| (*l).into()).collect(),
        ..Channel::default()
    }
}

pub fn hold(
    sku: &str,
    location: &str,
    order: &str,
    quantity: i32,
    position: i64,
) -> ReservationCommand {
    ReservationCommand {
        meta: meta("ReservationCommand", "shop", order, position),
        reservation_id: uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, order.as_bytes()),
        action: ReservationAction::Hold,
        mode: ReservationMode::Strict,
        order_id: order.into(),
        order_line_id: "1".into(),
        sku: sku.into(),
        location_id: location.into(),
        channel_id: "web".into(),
        qty: Decimal::from(quantity),
        ..ReservationCommand::default()
    }
}

fn levels(world: &World) -> BTreeMap<Text, StockLevel> {
    let mut levels = BTreeMap::new();
    for event in world.events(topic::STOCK_LEVEL) {
        let Event::StockLevel(level) = event else {
            panic!("not a level")
        };
        let key = compound_key(&[&level.sku, &level.location_id]);
        if let Some(before) = levels.insert(key, level.clone()) {
            assert_eq!(
                level.level_version,
                before.level_version + 1,
                "versions count emitted records"
            );
        }
    }
    levels
}

/// Counts of settled records over all dispositions, and that no offset is settled twice.
pub fn settled(world: &World, reader: &str) -> (i64, BTreeMap<Outcome, i64>) {
    let (mut count, mut outcomes) = (0, BTreeMap::new());
    // The last word on each record: what waited first ends later.
    let mut others: BTreeMap<(Text, i32, i64), Outcome> = BTreeMap::new();
    let mut ranges: BTreeMap<(Text, i32), Vec<(i64, i64)>> = BTreeMap::new();
    for event in world.events(topic::OPS_DISPOSITION) {
        let Event::DispositionRecord(d) = event else {
            panic!("not a disposition")
        };
        if *d.reader != *reader {
            continue;
        }
        for other in d.others.iter().filter(|o| o.effect.is_empty()) {
            let place = (d.topic.clone(), d.partition, other.offset);
            others.insert(place, other.outcome);
        }
        if d.count == 0 {
            continue;
        }
        count += d.count;
        ranges
            .entry((d.topic, d.partition))
            .or_default()
            .push((d.first_offset, d.last_offset));
    }
    for outcome in others.into_values() {
        *outcomes.entry(outcome).or_default() += 1;
    }
    let told: i64 = outcomes.values().sum();
    *outcomes.entry(Outcome::Applied).or_default() += count - told;
    for (partition, mut ranges) in ranges {
        ranges.sort_unstable();
        assert!(
            ranges.windows(2).all(|w| w[0].1 < w[1].0),
            "{partition:?} is settled twice: {ranges:?}"
        );
    }
    (count, outcomes)
}

#[test]
fn a_sale_changes_level_and_availability() {
    let world = World::new();
    world.send(
        topic::CHANNEL_CHANGE,
        "web",
        channel("web", &["dc", "store"]),
    );
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 1, -10));
    world.send(topic::STOCK_CHANGE, "A|store", sale("A", "store", 1, -5));
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 2, 3));
    let (mut ledger, mut ats) = (
        world.task("stock-ledger", "one"),
        world.task("ats-aggregate", "one"),
    );
    world.settle(&mut [&mut ledger, &mut ats]);
    let levels = levels(&world);
    assert_eq!(levels["A|dc"].sellable, Decimal::from(7));
    assert_eq!(
        levels["A|dc"].level_version, 1,
        "one transaction, one level"
    );
    let Some(Event::AvailabilityChanged(last)) = world.events(topic::STOCK_ATS).pop() else {
        panic!("nothing published")
    };
    assert_eq!(
        (&*last.sku, &*last.channel_id, last.ats),
        ("A", "web", Decimal::from(12))
    );
}

#[test]
fn a_channel_that_comes_later_hears_of_stock_that_is_there() {
    let world = World::new();
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 1, -4));
    let (mut ledger, mut ats) = (
        world.task("stock-ledger", "one"),
        world.task("ats-aggregate", "one"),
    );
    world.settle(&mut [&mut ledger, &mut ats]);
    assert!(world.events(topic::STOCK_ATS).is_empty());
    world.send(topic::CHANNEL_CHANGE, "web", channel("web", &["dc"]));
    world.advance(Duration::from_millis(100));
    world.settle(&mut [&mut ledger, &mut ats]);
    let Some(Event::AvailabilityChanged(last)) = world.events(topic::STOCK_ATS).pop() else {
        panic!("nothing published")
    };
    assert_eq!(last.ats, Decimal::from(4));
}

#[test]
fn a_channel_declared_while_nobody_worked_is_offered_what_there_is() {
    let world = World::new();
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 1, -4));
    let (mut ledger, mut ats) = (
        world.task("stock-ledger", "one"),
        world.task("ats-aggregate", "one"),
    );
    world.settle(&mut [&mut ledger, &mut ats]);
    ledger.close();
    world.send(topic::CHANNEL_CHANGE, "web", channel("web", &["dc"]));
    let mut ledger = world.task("stock-ledger", "one");
    world.settle(&mut [&mut ledger, &mut ats]);
    let Some(Event::AvailabilityChanged(last)) = world.events(topic::STOCK_ATS).pop() else {
        panic!("nothing published")
    };
    assert_eq!(last.ats, Decimal::from(4));
}

#[test]
fn strict_holds_never_exceed_stock_and_repeated_ones_are_known() {
    let world = World::new();
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 1, -5));
    let mut ledger = world.task("stock-ledger", "one");
    world.settle(&mut [&mut ledger]);
    for (n, order) in ["o1", "o2", "o3", "o1"].iter().enumerate() {
        world.send(
            topic::RESERVATION_COMMAND,
            "A|dc",
            hold("A", "dc", order, 2, n as i64),
        );
    }
    world.settle(&mut [&mut ledger]);
    let statuses: Vec<_> = world
        .events(topic::RESERVATION_EVENT)
        .into_iter()
        .map(|e| match e {
            Event::ReservationEvent(e) => (e.order_id.to_string(), e.status),
            _ => panic!("not a reservation"),
        })
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let expected = [
        ("o1", ReservationStatus::Held),
        ("o2", ReservationStatus::Held),
        ("o3", ReservationStatus::Rejected),
    ];
    assert_eq!(statuses, expected.map(|(o, s)| (o.to_owned(), s)));
    assert_eq!(levels(&world)["A|dc"].ats, Decimal::from(1));
    assert_eq!(settled(&world, "stock-ledger").1[&Outcome::Duplicate], 1);
}

/// What was sent, folded by hand: sums of distinct facts.
struct Sent {
    expected: BTreeMap<Text, Decimal>,
    count: i64,
}

/// Sends changes in waves, shuffled and half of them twice, and lets `between` interfere after each.
fn send_waves(
    world: &World,
    seed: u64,
    mut between: impl FnMut(&World, &mut StdRng, usize),
) -> Sent {
    let mut random = StdRng::seed_from_u64(seed);
    let mut facts = Vec::new();
    let mut expected: BTreeMap<Text, Decimal> = BTreeMap::new();
    for position in 1..=400 {
        let (sku, location) = (
            format!("S{}", random.random_range(0..12)),
            ["dc", "store"][random.random_range(0..2)],
        );
        let quantity = random.random_range(1..9) * if random.random_bool(0.5) { 1 } else { -1 };
        let key = compound_key(&[&sku, location]);
        *expected.entry(key.clone()).or_default() -= Decimal::from(quantity);
        facts.push((key, sale(&sku, location, position, quantity)));
    }
    let again: Vec<_> = facts.sample(&mut random, 200).cloned().collect();
    facts.extend(again);
    facts.shuffle(&mut random);
    let count = facts.len() as i64;
    for (wave, chunk) in facts.chunks(40).enumerate() {
        for (key, fact) in chunk {
            world.send(topic::STOCK_CHANGE, key, fact.clone());
        }
        between(world, &mut random, wave);
    }
    Sent { expected, count }
}

fn check(world: &World, sent: &Sent, seed: u64) {
    let found: BTreeMap<Text, Decimal> = levels(world)
        .into_iter()
        .map(|(k, l)| (k, l.sellable))
        .collect();
    assert_eq!(found, sent.expected, "seed {seed}");
    let (count, outcomes) = settled(world, "stock-ledger");
    assert_eq!(count, sent.count, "seed {seed}: every record settled once");
    assert_eq!(
        outcomes[&Outcome::Duplicate],
        sent.count - 400,
        "seed {seed}"
    );
}

#[test]
fn commits_that_fail_before_or_after_their_effect_change_nothing_twice() {
    for seed in 0..100 {
        let world = World::new();
        let mut ledger = world.task("stock-ledger", "one");
        let sent = send_waves(&world, seed, |world, random, _| {
            let fault = [
                Injected::CommitLost,
                Injected::CommitAnswerLost,
                Injected::Send,
            ][random.random_range(0..3)];
            world.log.inject(fault);
            // The step that meets the fault reports it; the next ones go on by themselves.
            while ledger
                .step(Duration::ZERO)
                .is_ok_and(|p| p != crossdock::runtime::Progress::Idle { until: None })
            {
            }
        });
        world.settle(&mut [&mut ledger]);
        check(&world, &sent, seed);
    }
}

#[test]
fn instances_that_come_go_and_die_hand_over_without_loss_or_repetition() {
    for seed in 0..100 {
        let world = World::new();
        let mut tasks = vec![world.task("stock-ledger", "slot-0")];
        let mut next = 1;
        let sent = send_waves(&world, seed, |world, random, _| {
            match random.random_range(0..4) {
                0 => {
                    tasks.push(world.task("stock-ledger", &format!("slot-{next}")));
                    next += 1;
                }
                1 if tasks.len() > 1 => {
                    drop(tasks.swap_remove(random.random_range(0..tasks.len())))
                }
                2 => world.log.expire("crossdock.stock-ledger", "member-"),
                _ => {}
            }
            for _ in 0..random.random_range(0..12) {
                let chosen = random.random_range(0..tasks.len());
                let _ = tasks[chosen].step(Duration::ZERO);
            }
        });
        let mut all: Vec<_> = tasks.iter_mut().collect();
        world.settle(&mut all);
        check(&world, &sent, seed);
    }
}

/// Everything at once: calls of the log that fail, a registry that is away, crashes with and without
/// a transaction under way, instances that are expelled, restarts from checkpoints.
#[test]
fn whatever_fails_at_whatever_moment_nothing_is_lost_or_repeated() {
    for seed in 0..60 {
        let world = World::new();
        let folder = tempfile::tempdir().expect("a folder");
        let start =
            |slot: usize| world.task_in("stock-ledger", &format!("slot-{slot}"), folder.path());
        let mut tasks: Vec<(usize, ProcessorTask)> = vec![(0, start(0)), (1, start(1))];
        let sent = send_waves(&world, seed, |world, random, _| {
            for _ in 0..random.random_range(4..30) {
                match random.random_range(0..12) {
                    0..4 => world.log.inject(*FAULTS.choose(random).expect("a fault")),
                    4 => {
                        let down = random.random_bool(0.4);
                        world.registry.0.store(down, Ordering::SeqCst);
                    }
                    5 => world.log.expire("crossdock.stock-ledger", "member-"),
                    6 => world.advance(Duration::from_millis(700)),
                    _ => {}
                }
                let chosen = random.random_range(0..tasks.len());
                let failed = tasks[chosen].1.step(Duration::ZERO).is_err();
                // A crash, also right after a commit whose end nobody has heard of.
                if random.random_bool(if failed { 0.3 } else { 0.05 }) {
                    let (slot, task) = tasks.swap_remove(chosen);
                    if random.random_bool(0.3) {
                        task.close();
                    }
                    tasks.push((slot, start(slot)));
                }
            }
        });
        world.registry.0.store(false, Ordering::SeqCst);
        for _ in 0..200 {
            // Faults that still wait are met and survived.
            tasks.iter_mut().for_each(|(_, t)| {
                let _ = t.step(Duration::ZERO);
            });
        }
        let mut all: Vec<_> = tasks.iter_mut().map(|(_, t)| t).collect();
        world.settle(&mut all);
        check(&world, &sent, seed);
    }
}

#[test]
fn a_checkpoint_of_another_log_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let sell = |quantity| {
        let world = World::new();
        world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 1, quantity));
        let mut ledger = world.task_in("stock-ledger", "one", folder.path());
        world.settle(&mut [&mut ledger]);
        ledger.close();
        levels(&world)["A|dc"].sellable
    };
    assert_eq!(sell(-5), Decimal::from(5));
    // The broker was set up anew: same address, same topics, same offsets, other facts.
    assert_eq!(sell(-7), Decimal::from(7));
}

#[test]
fn a_checkpoint_that_tombstones_may_have_been_lost_since_is_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::new();
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 1, -5));
    let mut ledger = world.task_in("stock-ledger", "one", folder.path());
    world.settle(&mut [&mut ledger]);
    let keys = ledger.state_size().0;
    ledger.close();
    // What the checkpoint holds is removed from the changelog while the instance is away, and
    // compaction drops the tombstones, as it may after a day.
    let changelog = "retail.rt.stock-ledger.state.v1";
    for record in world.records(changelog) {
        let key = record.key.as_deref();
        world.send_to(changelog, record.origin.partition, key, None);
    }
    world.advance(Duration::from_secs(2 * 86_400));
    world.log.compact(changelog);
    let mut ledger = world.task_in("stock-ledger", "one", folder.path());
    world.settle(&mut [&mut ledger]);
    assert!(keys > 0, "there was something in the checkpoint");
    assert_eq!(ledger.state_size().0, 0, "what was removed has come back");
}

/// A broker judges sizes by what it is sent, which is compressed.
#[test]
fn a_record_too_large_for_its_topic_or_even_for_its_dead_letter_does_not_stop_the_next() {
    let world = World::new();
    let limit = Catalogue::compiled().max_message_bytes(topic::STOCK_CHANGE);
    let settings = BTreeMap::from([("max.message.bytes".to_owned(), "100000000".to_owned())]);
    world
        .log
        .alter(topic::STOCK_CHANGE, &settings)
        .expect("altered");
    let large = vec![b'x'; limit + 1];
    let huge = vec![b'x'; 3 * limit];
    world.send_raw(topic::STOCK_CHANGE, Some(b"A|dc"), Some(&large));
    world.send_raw(topic::STOCK_CHANGE, Some(b"A|dc"), Some(&huge));
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 2, -6));
    let mut ledger = world.task("stock-ledger", "one");
    world.settle(&mut [&mut ledger]);
    let letters: Vec<DeadLetter> = world
        .events("retail.rt.stock-ledger.dlq.v1")
        .into_iter()
        .map(|e| match e {
            Event::DeadLetter(letter) => letter,
            _ => panic!("not a dead letter"),
        })
        .collect();
    assert_eq!(letters.len(), 2);
    assert!(letters.iter().all(|l| *l.code == *"OVERSIZE"));
    assert_eq!(letters[0].value.as_ref().map(|v| v.0.to_vec()), Some(large));
    assert_eq!(letters[1].value, None, "it fits nowhere");
    assert!(letters[1].message.contains("left where it came from"));
    assert_eq!(levels(&world)["A|dc"].sellable, Decimal::from(6));
}

#[test]
fn every_kind_of_poison_becomes_one_dead_letter_and_the_next_record_is_processed() {
    let world = World::new();
    let framed = |event: Event, topic: &str| {
        let mut value = Vec::new();
        world
            .codec
            .encode(topic, &event, &mut value)
            .expect("encoded");
        value
    };
    let good = framed(sale("A", "dc", 1, -1).into(), topic::STOCK_CHANGE);
    let with = |change: &dyn Fn(&mut StockChanged)| {
        let mut fact = sale("A", "dc", 9, -1);
        change(&mut fact);
        framed(fact.into(), topic::STOCK_CHANGE)
    };
    let mut unknown_id = good.clone();
    unknown_id[1..5].copy_from_slice(&999u32.to_be_bytes());
    let mut bad_magic = good.clone();
    bad_magic[0] = 7;
    let trailing = [good.as_slice(), b"x"].concat();
    let foreign = framed(channel("web", &["dc"]).into(), topic::CHANNEL_CHANGE);
    type Poison<'a> = (Option<&'a [u8]>, Option<Vec<u8>>, Code);
    let poison: Vec<Poison<'_>> = vec![
        (Some(b"A|dc"), None, Code::EmptyValue),
        (Some(b"A|dc"), Some(vec![]), Code::EmptyValue),
        (Some(b"A|dc"), Some(bad_magic), Code::BadMagic),
        (Some(b"A|dc"), Some(unknown_id), Code::UnknownSchemaId),
        (
            Some(b"A|dc"),
            Some(good[..good.len() / 2].to_vec()),
            Code::Truncated,
        ),
        (Some(b"A|dc"), Some(vec![0, 0]), Code::Truncated),
        (Some(b"A|dc"), Some(trailing), Code::TrailingBytes),
        (None, Some(good.clone()), Code::NullKey),
        (Some(b"B|dc"), Some(good.clone()), Code::WrongKey),
        (Some(b"\xff"), Some(good.clone()), Code::WrongKey),
        (Some(b"A|dc"), Some(foreign), Code::WrongContract),
        (
            Some(b"A|dc"),
            Some(with(&|f| f.qty = Decimal::ZERO)),
            Code::DataQuality,
        ),
        (
            Some(b"A|dc"),
            Some(with(&|f| f.to_state = f.from_state)),
            Code::DataQuality,
        ),
        (
            Some(b"A|dc"),
            Some(with(&|f| f.gtin = Some("4006381333932".into()))),
            Code::DataQuality,
        ),
        (
            Some(b"A|dc"),
            Some(with(&|f| f.from_state = StockState::Unknown)),
            Code::UnknownSymbol,
        ),
        (
            Some(b"A|dc"),
            Some(with(&|f| f.meta.occurred_at.0 += 3_600_000_000)),
            Code::DataQuality,
        ),
    ];
    let mut ledger = world.task("stock-ledger", "one");
    for (key, value, _) in &poison {
        world.send_raw(topic::STOCK_CHANGE, *key, value.as_deref());
    }
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 2, -6));
    world.settle(&mut [&mut ledger]);
    let letters = world.events("retail.rt.stock-ledger.dlq.v1");
    let mut found: Vec<(Option<Vec<u8>>, String)> = letters
        .into_iter()
        .map(|e| match e {
            Event::DeadLetter(l) => (l.value.map(|v| v.0.to_vec()), l.code.to_string()),
            _ => panic!("not a dead letter"),
        })
        .collect();
    let mut expected: Vec<_> = poison
        .iter()
        .map(|(_, v, code)| (v.clone(), code.as_str().to_owned()))
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "original bytes and codes");
    assert_eq!(
        levels(&world)["A|dc"].sellable,
        Decimal::from(6),
        "the record behind them was processed"
    );
    assert_eq!(
        settled(&world, "stock-ledger").1[&Outcome::DeadLettered],
        poison.len() as i64
    );
}

/// A table was read once: what could not be decoded then, for the registry was away, was never offered.
#[test]
fn a_channel_that_cannot_be_decoded_yet_is_taken_in_once_the_registry_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::new();
    world.send(topic::CHANNEL_CHANGE, "web", channel("web", &["dc"]));
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 1, -4));
    world.registry.0.store(true, Ordering::SeqCst);
    let mut ledger = world.task_in("stock-ledger", "one", folder.path());
    for _ in 0..20 {
        let _ = ledger.step(Duration::ZERO);
    }
    world.registry.0.store(false, Ordering::SeqCst);
    world.settle(&mut [&mut ledger]);
    let offered = &levels(&world)["A|dc"].ats_by_channel;
    assert_eq!(offered.get("web"), Some(&Decimal::from(4)));
}
