//! What is published for a channel, and when.

use crate::{at, units};
use crossdock::domain::stock::*;
use crossdock::domain::{Decimal, Timestamp};
use std::cmp::Ordering;
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
    network.offer("dc", buffered(1, 10, 2));
    network.offer("store", buffered(1, 5, 3));
    network.offer(
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
    assert_eq!(network.offer("dc", offer(5, 3)), Ordering::Greater);
    assert_eq!(network.offer("dc", offer(5, 3)), Ordering::Equal);
    assert_eq!(network.offer("dc", offer(4, 9)), Ordering::Less);
    assert_eq!(network.offer("store", offer(1, 1)), Ordering::Greater);
    assert_eq!(network.availability(None).ats, units(4));
}

#[test]
fn the_first_change_at_once_then_one_in_fifty_milliseconds_but_nothing_never_waits() {
    let mut network = Network::default();
    network.offer("dc", offer(1, 10));
    let first = network.publish(None, after(0)).expect("the first");
    assert_eq!(
        (first.version, first.now.ats, first.before),
        (1, units(10), None)
    );
    assert_eq!(network.publish(None, after(60)), None, "nothing changed");

    network.offer("dc", offer(2, 9));
    assert!(
        network.publish(None, after(100)).is_some(),
        "long quiet: at once"
    );
    network.offer("dc", offer(3, 8));
    assert_eq!(network.publish(None, after(120)), None);
    assert_eq!(network.due(), Some(after(150)));
    let mut network = kept(&network);

    network.offer("dc", offer(4, 0));
    let out = network.publish(None, after(130)).expect("sold out");
    assert_eq!((out.version, out.now.ats), (3, Decimal::ZERO));
    assert_eq!(
        out.before.map(|b| b.ats),
        Some(units(9)),
        "8 was never said"
    );
    assert_eq!(network.due(), None);
    network.offer("dc", offer(5, 2));
    assert!(network.publish(None, after(131)).is_some(), "back in stock");

    network.offer("dc", offer(6, 3));
    assert_eq!(network.publish(None, after(132)), None);
    network.offer("dc", offer(7, 2));
    assert_eq!(
        network.publish(None, after(140)),
        None,
        "as before: nothing to say"
    );
    assert_eq!(network.due(), None);
    network.offer("dc", offer(8, 4));
    assert_eq!(network.publish(None, after(141)), None);
    let due = network.due().expect("a time");
    assert_eq!(
        network.publish(None, due).map(|p| p.now.ats),
        Some(units(4))
    );
}
