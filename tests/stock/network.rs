//! What is published for a channel, and when.

use crate::{at, units};
use crossdock::domain::stock::*;
use crossdock::domain::{Decimal, Timestamp};
use rand::prelude::*;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

fn offer(version: i64, ats: i32) -> Offer {
    Offer {
        version,
        ats: units(ats),
        active: true,
        complete: true,
        ..Offer::default()
    }
}

/// Takes an offer where there are so few that no shelf is needed.
fn take(network: &mut Network, location: &str, offer: Offer) -> Ordering {
    let mut shelf = MemoryShelf::default();
    let order = network.offer(location, offer, &mut shelf);
    assert!(shelf.slots.is_empty());
    order.expect("taken")
}

fn after(millis: u64) -> Timestamp {
    at(0).plus(Duration::from_millis(millis))
}

fn kept(network: &Network) -> Network {
    let mut bytes = Vec::new();
    network.to_state(&mut bytes);
    assert_eq!(Network::due_of(&bytes), Ok(network.due()));
    let read = Network::from_state(&bytes).expect("read back");
    assert_eq!(&read, network);
    read
}

#[test]
fn the_buffer_comes_off_once_and_inactive_locations_do_not_count() {
    let mut network = Network::default();
    let buffered = |version, ats, buffer| Offer {
        buffer: units(buffer),
        ..offer(version, ats)
    };
    take(&mut network, "dc", buffered(1, 10, 2));
    take(&mut network, "store", buffered(1, 5, 3));
    take(
        &mut network,
        "closed",
        Offer {
            active: false,
            backorderable: true,
            ..buffered(1, 50, 9)
        },
    );
    let network = kept(&network);
    let published = network.availability(None);
    assert_eq!(published.ats, units(12), "10 + 5 - 3");
    assert!(!published.backorderable);
    assert_eq!(network.availability(Some(units(5))).ats, units(10));
}

#[test]
fn older_offers_are_superseded_and_repeated_ones_known() {
    let mut network = Network::default();
    assert_eq!(take(&mut network, "dc", offer(5, 3)), Ordering::Greater);
    assert_eq!(take(&mut network, "dc", offer(5, 3)), Ordering::Equal);
    assert_eq!(take(&mut network, "dc", offer(4, 9)), Ordering::Less);
    assert_eq!(take(&mut network, "store", offer(1, 1)), Ordering::Greater);
    assert_eq!(network.availability(None).ats, units(4));
}

#[test]
fn the_first_change_at_once_then_one_in_fifty_milliseconds_but_nothing_never_waits() {
    let mut network = Network::default();
    take(&mut network, "dc", offer(1, 10));
    let first = network.publish(None, after(0)).expect("the first");
    assert_eq!(
        (first.version, first.now.ats, first.before),
        (1, units(10), None)
    );
    assert_eq!(network.publish(None, after(60)), None, "nothing changed");

    take(&mut network, "dc", offer(2, 9));
    assert!(
        network.publish(None, after(100)).is_some(),
        "long quiet: at once"
    );
    take(&mut network, "dc", offer(3, 8));
    assert_eq!(network.publish(None, after(120)), None);
    assert_eq!(network.due(), Some(after(150)));
    let mut network = kept(&network);

    take(&mut network, "dc", offer(4, 0));
    let out = network.publish(None, after(130)).expect("sold out");
    assert_eq!((out.version, out.now.ats), (3, Decimal::ZERO));
    assert_eq!(
        out.before.map(|b| b.ats),
        Some(units(9)),
        "8 was never said"
    );
    assert_eq!(network.due(), None);
    take(&mut network, "dc", offer(5, 2));
    assert!(network.publish(None, after(131)).is_some(), "back in stock");

    take(&mut network, "dc", offer(6, 3));
    assert_eq!(network.publish(None, after(132)), None);
    take(&mut network, "dc", offer(7, 2));
    assert_eq!(
        network.publish(None, after(140)),
        None,
        "as before: nothing to say"
    );
    assert_eq!(network.due(), None);
    take(&mut network, "dc", offer(8, 4));
    assert_eq!(network.publish(None, after(141)), None);
    let due = network.due().expect("a time");
    assert_eq!(
        network.publish(None, due).map(|p| p.now.ats),
        Some(units(4))
    );
}

#[test]
fn the_offers_of_many_locations_are_spread_so_that_each_costs_little() {
    let (mut network, mut shelf) = (Network::default(), MemoryShelf::default());
    let mut random = StdRng::seed_from_u64(11);
    let mut expected: BTreeMap<String, Offer> = BTreeMap::new();
    let (mut written_max, mut bytes) = (0, Vec::new());
    for step in 0..20_000 {
        let location = format!("store-{}", random.random_range(0..2_000));
        let offer = Offer {
            buffer: units(random.random_range(0..3)),
            active: random.random_bool(0.9),
            backorderable: random.random_bool(0.001),
            complete: random.random_bool(0.999),
            as_of: after(step),
            ..offer(random.random_range(1..40), random.random_range(0..9))
        };
        shelf.bytes_written = 0;
        let order = network.offer(&location, offer, &mut shelf).expect("taken");
        let known = expected.get(&location).map(|o| o.version);
        assert_eq!(
            order,
            known.map_or(Ordering::Greater, |v| offer.version.cmp(&v))
        );
        if order.is_gt() {
            expected.insert(location, offer);
        }
        network.to_state(&mut bytes);
        if step > 1_000 {
            written_max = written_max.max(bytes.len() + shelf.bytes_written);
        }
        network = kept(&network);
        if step % 97 == 0 {
            let active = || expected.values().filter(|o| o.active);
            let sum: Decimal = active().map(|o| o.ats).sum();
            let buffer = active().map(|o| o.buffer).max().unwrap_or_default();
            let published = network.availability(None);
            assert_eq!(published.ats, (sum - buffer).or_zero(), "step {step}");
            assert_eq!(published.backorderable, active().any(|o| o.backorderable));
            assert_eq!(published.complete, active().all(|o| o.complete));
        }
    }
    assert!(written_max < 2_500, "{written_max} bytes for one offer");
}
