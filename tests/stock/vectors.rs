//! Agreement with a reference model written in another language, on schedules that it made.

use crate::{Store, counted, hold, received, shipped, units};
use crossdock::domain::stock::*;
use std::collections::BTreeMap;

fn number(text: &str) -> u128 {
    text[1..].parse().expect("a letter and a number")
}

#[test]
fn facts_and_claims_agree_with_the_reference_model() {
    let text = include_str!("../vectors/stock_merge.json");
    let cases: Vec<serde_json::Value> = serde_json::from_str(text).expect("vectors");
    assert!(cases.len() >= 100);
    for case in &cases {
        let seed = &case["seed"];
        let mut store = Store::default();
        for step in case["steps"].as_array().expect("steps") {
            let text = |n: usize| step[n].as_str().expect("text");
            let int = |n: usize| step[n].as_i64().expect("a number");
            match text(0) {
                "s" => {
                    let snapshot = Snapshot {
                        id: (1 << 64) + number(text(2)),
                        ..counted(int(1), int(3) as i32)
                    };
                    store.snapshot(&snapshot).expect("taken in");
                }
                "d" => {
                    let movement = match step[4].as_str() {
                        Some(claim) => shipped(int(1), -int(3) as i32, number(claim)),
                        None => received(int(1), int(3) as i32),
                    };
                    store.movement(&movement).expect("moved");
                }
                _ => {
                    let action = match text(2) {
                        "HOLD" => Action::Hold,
                        _ => Action::Release,
                    };
                    let command = hold(number(text(1)), int(3) as i32);
                    store.command(action, &command);
                }
            }
            store.commit();
        }
        assert_eq!(
            store.sellable(),
            units(case["sellable"].as_i64().expect("a number") as i32),
            "seed {seed}"
        );
        let active: BTreeMap<u128, i32> = case["active"]
            .as_object()
            .expect("claims")
            .iter()
            .map(|(id, q)| (number(id), q.as_i64().expect("a number") as i32))
            .collect();
        let reserved = active.values().map(|q| units(*q)).sum();
        assert_eq!(store.ledger.reserved(), reserved, "seed {seed}");
        for (id, quantity) in active {
            assert_eq!(
                store.claim(id).active(),
                units(quantity),
                "seed {seed} r{id}"
            );
        }
        let grants = store.journal.decisions.iter();
        let grants: Vec<_> = grants
            .filter(|d| d.cause == Cause::Command(Action::Hold))
            .map(|d| (d.id, d.claim.status, d.ats_before, d.claim.requested))
            .collect();
        let expected: Vec<_> = case["decisions"]
            .as_array()
            .expect("decisions")
            .iter()
            .map(|d| {
                let status = match d[1].as_str().expect("a status") {
                    "HELD" => ClaimStatus::Held,
                    "REJECTED" => ClaimStatus::Rejected,
                    _ => ClaimStatus::Consumed,
                };
                let int = |n: usize| units(d[n].as_i64().expect("a number") as i32);
                (
                    number(d[0].as_str().expect("an id")),
                    status,
                    int(2),
                    int(3),
                )
            })
            .collect();
        assert_eq!(grants, expected, "seed {seed}");
    }
}
