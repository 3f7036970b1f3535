//! Whatever the order in which facts come, how often, and how late: the same state in the end.

use crate::units::Retailer;
use crate::*;
use rand::prelude::*;

/// A few dozen things that happen to one order.
fn history(random: &mut StdRng) -> Retailer {
    let mut retailer = Retailer::new(random);
    for _ in 0..random.random_range(5..60) {
        retailer.happen(random);
    }
    retailer
}

/// Sends facts in batches of a few.
fn send(order: &mut Driven, facts: &[Event], random: &mut StdRng) {
    let mut rest = facts;
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(random.random_range(1..=rest.len().min(7)));
        order.send(batch.to_vec());
        rest = after;
    }
}

/// Nothing is left open: no exception, no record without its end.
fn at_rest(order: &mut Driven, seed: u64) {
    order.pass(Duration::from_secs(16 * 60));
    // What a node did not find and nobody else supplies is rightly named.
    let open: Vec<String> = order
        .open()
        .into_iter()
        .filter(|c| c != "SHORT_PICK")
        .collect();
    assert_eq!(open, [""; 0], "seed {seed}");
    let waits = |o: &&Outcome| matches!(o, Outcome::Buffered | Outcome::Parked);
    let waiting = order.outcomes.iter().filter(waits).count();
    let ended = order
        .resolutions
        .iter()
        .filter(|r| r.outcome != Outcome::Parked)
        .count();
    assert_eq!(waiting, ended, "seed {seed}: what waited has ended");
    assert!(order.codes.is_empty(), "seed {seed}: {:?}", order.codes);
    order.check();
}

#[test]
fn facts_in_any_order_and_twice_give_what_can_be_counted() {
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let retailer = history(&mut random);
        let mut in_turn = Driven::new();
        send(&mut in_turn, &retailer.told, &mut random);
        retailer.judge(in_turn.last(), seed);

        let mut facts = retailer.told.clone();
        let again = facts
            .sample(&mut random, facts.len() / 2)
            .cloned()
            .collect::<Vec<_>>();
        facts.extend(again);
        facts.shuffle(&mut random);
        let mut shuffled = Driven::new();
        send(&mut shuffled, &facts, &mut random);
        retailer.judge(shuffled.last(), seed);
        assert_eq!(shuffled.outcomes.len(), facts.len(), "seed {seed}");
        at_rest(&mut shuffled, seed);
        at_rest(&mut in_turn, seed);

        // A replay of everything changes nothing.
        let states = shuffled.states.len();
        shuffled.outcomes.clear();
        shuffled.send(retailer.told.clone());
        assert_eq!(shuffled.states.len(), states, "seed {seed}");
        let known = |o: &Outcome| matches!(o, Outcome::Duplicate | Outcome::Superseded);
        assert!(shuffled.outcomes.iter().all(known), "seed {seed}");
    }
}

#[test]
fn facts_that_come_late_are_named_until_they_are_there() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let retailer = history(&mut random);
        let mut facts = retailer.told.clone();
        facts.shuffle(&mut random);
        let mut order = Driven::new();
        for fact in facts {
            order.send(vec![fact]);
            // Some come within the horizon of disorder, some far beyond.
            order.pass(Duration::from_secs(random.random_range(0..40) * 60));
            let named = [
                "ORPHAN",
                "RETURN_EXCEEDS_SHIPPED",
                "ILLEGAL_TRANSITION",
                "SHIPPED_AFTER_CANCEL",
                "OVER_SHIPPED",
                "SHORT_PICK",
            ];
            assert!(
                order
                    .open()
                    .iter()
                    .all(|code| named.contains(&code.as_str())),
                "seed {seed}: {:?}",
                order.open()
            );
        }
        retailer.judge(order.last(), seed);
        at_rest(&mut order, seed);
    }
}

#[test]
fn two_facts_of_one_version_are_a_conflict_and_the_same_one_counts_whatever_comes_first() {
    let version = |record: &str, picked| {
        let Event::ShipmentEvent(mut e) =
            shipment("S", 2, ShipmentStatus::Picked, "1", [3, picked, 0, 0])
        else {
            panic!("a shipment")
        };
        e.meta = meta("ShipmentEvent", "wms", record, 2);
        Event::from(e)
    };
    let (one, other) = (version("x", 1), version("y", 3));
    let mut ends = Vec::new();
    for facts in [[one.clone(), other.clone()], [other, one]] {
        let mut order = Driven::new();
        order.send(vec![placed(&[("1", 3)])]);
        facts.into_iter().for_each(|fact| order.send(vec![fact]));
        order.pass(Duration::from_secs(16 * 60));
        assert_eq!(order.open(), ["VERSION_CONFLICT"]);
        ends.push(order.last().lines.clone());
        order.send(vec![shipment(
            "S",
            3,
            ShipmentStatus::Picked,
            "1",
            [3, 3, 0, 0],
        )]);
        assert_eq!(order.open(), [""; 0], "a newer version settles it");
    }
    assert_eq!(ends[0], ends[1]);
}

#[test]
fn a_numbering_that_begins_anew_is_newer() {
    let mut order = Driven::new();
    order.send(vec![
        placed(&[("1", 3)]),
        shipment("S", 70, ShipmentStatus::Picked, "1", [3, 3, 0, 0]),
    ]);
    let Event::ShipmentEvent(mut e) = shipment("S", 1, ShipmentStatus::Shipped, "1", [3, 3, 3, 0])
    else {
        panic!("a shipment")
    };
    e.meta.source_epoch = 1;
    order.send(vec![e.into()]);
    assert_eq!(order.last().lines[0].shipped, q(3));
    assert_eq!(order.last().source_versions.get("shipment:S@1"), Some(&1));
}
