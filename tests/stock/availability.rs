//! The formulas of availability, as tables.

use crate::{Store, at, hold, units};
use crossdock::domain::Decimal;
use crossdock::domain::stock::*;

fn allocation(channel: &str, hard: Option<i32>, share_percent: Option<f64>) -> Allocation {
    Allocation {
        channel: channel.into(),
        hard: hard.map(units),
        share_percent,
        buffer: None,
    }
}

fn policy(safety: i32, allocations: Vec<Allocation>) -> Policy {
    Policy {
        version: 1,
        safety: units(safety),
        allocations,
        ..Policy::default()
    }
}

/// Stock, policy, claims by channel, then what each channel can sell.
type Row<'a> = (
    &'a str,
    i32,
    Policy,
    &'a [(&'a str, i32)],
    &'a [(&'a str, i32)],
);

#[test]
fn what_each_channel_can_sell() {
    let rows: Vec<Row<'_>> = vec![
        (
            "no policy",
            10,
            Policy::default(),
            &[("web", 3)],
            &[("web", 7), ("shop", 7)],
        ),
        (
            "safety",
            10,
            policy(4, vec![]),
            &[("web", 3)],
            &[("web", 3)],
        ),
        (
            "safety beyond stock",
            3,
            policy(4, vec![]),
            &[],
            &[("web", 0)],
        ),
        (
            "a hard quota is kept for its channel",
            10,
            policy(0, vec![allocation("web", Some(4), None)]),
            &[],
            &[("web", 10), ("shop", 6)],
        ),
        (
            "claims of its channel use the quota up",
            10,
            policy(0, vec![allocation("web", Some(4), None)]),
            &[("web", 3)],
            &[("web", 7), ("shop", 6)],
        ),
        (
            "beyond the quota they draw on the pool",
            10,
            policy(0, vec![allocation("web", Some(4), None)]),
            &[("web", 6)],
            &[("web", 4), ("shop", 4)],
        ),
        (
            "two quotas and safety",
            10,
            policy(
                1,
                vec![
                    allocation("web", Some(4), None),
                    allocation("app", Some(3), None),
                ],
            ),
            &[("shop", 2)],
            &[("web", 4), ("app", 3), ("shop", 0)],
        ),
        (
            "a share caps, of stock less safety",
            12,
            policy(2, vec![allocation("web", None, Some(50.0))]),
            &[],
            &[("web", 5), ("shop", 10)],
        ),
        (
            "what the channel has claimed counts against its share",
            12,
            policy(2, vec![allocation("web", None, Some(50.0))]),
            &[("web", 4)],
            &[("web", 1), ("shop", 6)],
        ),
        (
            "a share of nothing",
            12,
            policy(0, vec![allocation("web", None, Some(0.0))]),
            &[],
            &[("web", 0), ("shop", 12)],
        ),
        (
            "a share of all is no cap",
            12,
            policy(0, vec![allocation("web", None, Some(100.0))]),
            &[("shop", 5)],
            &[("web", 7)],
        ),
        (
            "quota and share together",
            20,
            policy(
                0,
                vec![
                    allocation("web", Some(8), Some(25.0)),
                    allocation("app", Some(6), None),
                ],
            ),
            &[("web", 2)],
            &[("web", 3), ("app", 12), ("shop", 6)],
        ),
        (
            "stock below the quotas",
            5,
            policy(
                0,
                vec![
                    allocation("web", Some(4), None),
                    allocation("app", Some(3), None),
                ],
            ),
            &[],
            &[("web", 2), ("app", 1), ("shop", 0)],
        ),
    ];
    for (name, stock, policy, claims, expected) in rows {
        let mut store = Store::default();
        store.receive(1, stock);
        if policy.version > 0 {
            assert_eq!(store.policy(policy), Applied::Applied, "{name}");
        }
        for (id, (channel, quantity)) in claims.iter().enumerate() {
            let command = Command {
                channel: (*channel).into(),
                mode: Mode::Forced,
                ..hold(id as u128, *quantity)
            };
            store.command(Action::Hold, &command);
        }
        store.commit();
        for (channel, ats) in expected {
            assert_eq!(store.ledger.ats(channel), units(*ats), "{name}: {channel}");
        }
    }
}

#[test]
fn shares_keep_what_is_not_whole_and_offers_round_down_to_the_unit() {
    let mut store = Store::default();
    store.receive(1, 10);
    let mut allocation = allocation("web", None, Some(33.3));
    allocation.buffer = Some(units(2));
    store.policy(policy(0, vec![allocation]));
    assert_eq!(store.ledger.ats("web").to_string(), "3.33");
    let web = "web".into();
    let mut terms = Terms {
        unit: Some(Decimal::ONE),
        buffer: units(5),
    };
    let offers = store.ledger.offer([(&web, &terms)].into_iter());
    let offered = Offered {
        ats: units(3),
        buffer: units(2),
        backorderable: false,
        complete: true,
    };
    assert_eq!(
        offers,
        [(web.clone(), Some(offered))],
        "the policy's buffer wins"
    );
    assert_eq!(store.ledger.offer_version(), 1);
    store.commit();
    assert_eq!(store.ledger.offer([(&web, &terms)].into_iter()), []);
    assert_eq!(
        store.ledger.offer_version(),
        1,
        "nothing new, no new version"
    );
    terms.unit = None;
    let offers = store.ledger.offer([(&web, &terms)].into_iter());
    assert_eq!(offers[0].1.map(|o| o.ats.to_string()), Some("3.33".into()));
    assert_eq!(store.ledger.offer(std::iter::empty()), [(web, None)]);
    assert_eq!(store.ledger.offer_version(), 3);
}

#[test]
fn a_level_tells_shortage_and_what_is_certain() {
    let mut store = Store::default();
    store.receive(1, 5);
    store.policy(policy(1, vec![]));
    store.command(Action::Hold, &crate::hold(1, 4));
    store.receive(2, -3);
    let level = store.ledger.level();
    assert_eq!(level.overcommitted, units(2));
    assert_eq!(level.ats, Decimal::ZERO);
    assert_eq!(level.safety, units(1));
    assert_eq!(level.as_of, at(2));
    store.receive(3, -4);
    let level = store.ledger.level();
    assert_eq!(level.totals.sellable, units(-2));
    assert_eq!(
        level.overcommitted,
        units(4),
        "no more than what is claimed"
    );
}

#[test]
fn the_newest_policy_holds_whatever_the_order() {
    let with = |version, safety| Policy {
        version,
        ..policy(safety, vec![])
    };
    let mut store = Store::default();
    assert_eq!(
        store.policy(with(0, 1)),
        Applied::Applied,
        "the first one may be version 0"
    );
    assert_eq!(store.policy(with(3, 3)), Applied::Applied);
    assert_eq!(store.policy(with(3, 3)), Applied::Duplicate);
    assert_eq!(store.policy(with(2, 9)), Applied::Superseded);
    store.commit();
    assert_eq!(store.ledger.policy().safety, units(3));
}
