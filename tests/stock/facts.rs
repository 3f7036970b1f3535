//! Movements and snapshots: what is on hand is a function of the set of facts.

use crate::{Store, at, counted, position, received, shipped, units};
use crossdock::domain::stock::*;
use crossdock::domain::{Decimal, Position};
use rand::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Fact {
    Movement(Movement),
    Snapshot(Snapshot),
}

/// Facts in which everything disagrees that can: epochs with and without snapshots, snapshots that
/// state some buckets, two of one position with different quantities.
fn facts(random: &mut StdRng) -> Vec<Fact> {
    let epochs = random.random_range(1..=3);
    let with_snapshots = random.random_bool(0.8);
    let quantity = |random: &mut StdRng| Decimal::from_units(random.random_range(-40_000..90_000));
    (1..=random.random_range(1..60u128))
        .map(|id| {
            let position = position(random.random_range(0..epochs), random.random_range(1..40));
            let recorded_at = at(random.random_range(0..7_200));
            if with_snapshots && random.random_bool(0.15) {
                let mut stated = || random.random_bool(0.5).then(|| quantity(random));
                let (damaged, held, incoming) = (stated(), stated(), stated());
                Fact::Snapshot(Snapshot {
                    id,
                    as_of: position,
                    occurred_at: recorded_at,
                    recorded_at,
                    sellable: quantity(random),
                    damaged,
                    held,
                    incoming,
                })
            } else {
                let mut effect = Effect::default();
                for bucket in [
                    &mut effect.sellable,
                    &mut effect.damaged,
                    &mut effect.held,
                    &mut effect.incoming,
                ] {
                    if random.random_bool(0.4) {
                        *bucket = quantity(random);
                    }
                }
                Fact::Movement(Movement {
                    id,
                    position,
                    occurred_at: recorded_at,
                    recorded_at,
                    effect,
                    consumes: None,
                    place: Place {
                        partition: 3,
                        offset: id as i64,
                    },
                })
            }
        })
        .collect()
}

/// The rule itself, over the whole set at once, bucket by bucket.
fn expected(facts: &[Fact]) -> (Effect, u32) {
    let movements = || {
        facts.iter().filter_map(|f| match f {
            Fact::Movement(m) => Some(m),
            Fact::Snapshot(_) => None,
        })
    };
    let snapshots = || {
        facts.iter().filter_map(|f| match f {
            Fact::Snapshot(s) => Some(s),
            Fact::Movement(_) => None,
        })
    };
    let newest = snapshots().map(|s| s.as_of.epoch).max();
    let trusted = newest
        .or(movements().map(|m| m.position.epoch).min())
        .unwrap_or_default();
    let total = |stated: fn(&Snapshot) -> Option<Decimal>, moved: fn(&Effect) -> Decimal| {
        let base = snapshots()
            .filter_map(|s| Some((s.as_of, s.recorded_at, s.id, stated(s)?)))
            .max();
        let counts = |m: &&Movement| {
            m.position.epoch <= trusted && base.is_none_or(|(as_of, ..)| m.position > as_of)
        };
        let later: Decimal = movements().filter(counts).map(|m| moved(&m.effect)).sum();
        base.map_or(Decimal::ZERO, |(.., quantity)| quantity) + later
    };
    let totals = Effect {
        sellable: total(|s| Some(s.sellable), |e| e.sellable),
        damaged: total(|s| s.damaged, |e| e.damaged),
        held: total(|s| s.held, |e| e.held),
        incoming: total(|s| s.incoming, |e| e.incoming),
    };
    let waiting = movements().filter(|m| m.position.epoch > trusted).count();
    (totals, waiting as u32)
}

#[test]
fn any_permutation_duplication_or_replay_gives_the_same_on_hand() {
    for seed in 0..1_500 {
        let mut random = StdRng::seed_from_u64(seed);
        let facts = facts(&mut random);
        let (totals, waiting) = expected(&facts);
        for _ in 0..3 {
            let mut heard = facts.clone();
            heard.extend(facts.iter().filter(|_| random.random_bool(0.5)).cloned());
            heard.shuffle(&mut random);
            let mut store = Store::default();
            let (mut known, mut open) = (BTreeSet::new(), BTreeSet::new());
            for fact in &heard {
                let (id, outcome) = match fact {
                    Fact::Movement(m) => (m.id, store.movement(m).expect("moved").physical),
                    Fact::Snapshot(s) => (s.id, store.snapshot(s).expect("taken in").outcome),
                };
                let repeated = !known.insert(id);
                assert_eq!(
                    outcome == Applied::Duplicate,
                    repeated,
                    "seed {seed} fact {id}"
                );
                if outcome == Applied::Buffered {
                    open.insert(id as i64);
                }
                for resolved in store.journal.resolved.drain(..) {
                    let Waited::Movement(place) = resolved.waited else {
                        panic!("nothing was confirmed")
                    };
                    assert_ne!(resolved.outcome, Applied::Buffered, "seed {seed}");
                    assert!(open.remove(&place.offset), "seed {seed}: resolved once");
                }
                if random.random_bool(0.2) {
                    store.commit();
                }
            }
            assert_eq!(store.ledger.totals(), totals, "seed {seed}");
            assert_eq!(store.ledger.is_waiting(), waiting > 0, "seed {seed}");
            assert!(open.len() <= waiting as usize, "seed {seed}: {open:?}");
        }
    }
}

#[test]
fn a_movement_that_a_snapshot_includes_still_consumes_its_claim() {
    let mut store = Store::default();
    store.snapshot(&counted(10, 5)).expect("taken in");
    store.command(Action::Hold, &crate::hold(7, 2));
    store.snapshot(&counted(20, 3)).expect("taken in");
    let moved = store.movement(&shipped(15, 2, 7)).expect("moved");
    assert_eq!(moved.physical, Applied::Superseded);
    assert_eq!(moved.claim, Some(Verdict::Applied));
    assert_eq!(store.sellable(), units(3));
    assert_eq!(store.claim(7).status, ClaimStatus::Consumed);
    assert_eq!(store.ledger.reserved(), Decimal::ZERO);
    // Again: neither effect.
    let again = store.movement(&shipped(15, 2, 7)).expect("moved");
    assert_eq!((again.physical, again.claim), (Applied::Duplicate, None));
}

#[test]
fn a_fact_is_known_by_its_id_even_when_its_source_numbers_it_again() {
    let mut store = Store::default();
    for sequence in 1..=100 {
        store.receive(sequence, 1);
        store.commit();
    }
    for sequence in 1..=100 {
        let renumbered = Movement {
            position: position(0, 1_000 + sequence),
            ..received(sequence, 1)
        };
        let moved = store.movement(&renumbered).expect("moved");
        assert_eq!(moved.physical, Applied::Duplicate, "{sequence}");
    }
    assert_eq!(store.sellable(), units(100));
}

#[test]
fn a_snapshot_says_how_far_it_is_from_what_was_predicted() {
    let mut store = Store::default();
    store.receive(1, 10);
    let first = store.snapshot(&counted(1, 9)).expect("taken in");
    assert_eq!(
        first.drift, None,
        "an opening count has nothing to differ from"
    );
    store.receive(2, -3);
    store.receive(3, -1);
    let compared = store.ledger.compare(position(0, 2), units(5), &store.shelf);
    assert_eq!(compared, Ok(Some(units(-1))), "9 - 3 = 6 was predicted");
    assert_eq!(
        store.ledger.compare(position(1, 2), units(5), &store.shelf),
        Ok(None),
        "another epoch has other positions"
    );
    let second = store.snapshot(&counted(2, 7)).expect("taken in");
    assert_eq!(second.drift, Some(units(1)));
    assert_eq!(store.sellable(), units(6), "7 as of 2, then -1");
    let older = store.snapshot(&counted(0, 50)).expect("taken in");
    assert_eq!(older.outcome, Applied::Superseded);
}

#[test]
fn a_new_epoch_waits_for_its_snapshot_and_takes_the_claims_of_its_movements_along() {
    let mut store = Store::default();
    store.snapshot(&counted(5, 10)).expect("taken in");
    store.command(Action::Hold, &crate::hold(7, 4));
    let place = |offset| Place {
        partition: 1,
        offset,
    };
    let mut early = shipped(1, 1, 7);
    (early.id, early.position, early.place) = (901, position(1, 1), place(41));
    let mut late = shipped(9, 3, 7);
    (late.id, late.position, late.place) = (909, position(1, 9), place(42));
    for movement in [&late, &early] {
        let moved = store.movement(movement).expect("moved");
        assert_eq!(moved.physical, Applied::Buffered);
        assert_eq!(moved.claim, None);
    }
    store.commit();
    assert_eq!(store.sellable(), units(10));
    assert_eq!(
        store.ledger.reserved(),
        units(4),
        "the claim stands for the goods"
    );
    assert!(!store.ledger.level().complete);
    let mut snapshot = counted(4, 9);
    snapshot.as_of.epoch = 1;
    store.snapshot(&snapshot).expect("taken in");
    assert_eq!(store.sellable(), units(6), "9 as of 1:4, then -3");
    assert!(store.ledger.level().complete);
    let ended: Vec<_> = store
        .journal
        .resolved
        .iter()
        .map(|r| (r.waited, r.outcome, r.claim))
        .collect();
    assert_eq!(
        ended,
        [
            (
                Waited::Movement(place(41)),
                Applied::Superseded,
                Some(Verdict::Applied)
            ),
            (
                Waited::Movement(place(42)),
                Applied::Applied,
                Some(Verdict::Applied)
            ),
        ]
    );
    assert_eq!(store.claim(7).status, ClaimStatus::Consumed);
    // What comes of the old epoch now is over, what comes of the new one counts.
    let old = store.movement(&received(6, 1)).expect("moved");
    assert_eq!(old.physical, Applied::Superseded);
    let mut new = received(10, 1);
    new.position.epoch = 1;
    assert_eq!(
        store.movement(&new).expect("moved").physical,
        Applied::Applied
    );
}

#[test]
fn a_fact_beyond_the_horizon_is_refused_and_changes_nothing() {
    const DAY: i64 = 86_400;
    let mut store = Store::default();
    for sequence in 1..=40 {
        store.receive(sequence, 1);
    }
    store.commit();
    // Three days and a bit later, the first forty are forgotten.
    let mut now = received(50, 5);
    now.recorded_at = at(3 * DAY + 60);
    store.movement(&now).expect("moved");
    store.commit();
    assert_eq!(store.ledger.remembered(), 1);
    assert_eq!(
        store.sellable(),
        units(45),
        "what is forgotten still counts"
    );
    let before = store.clone();
    for late in [
        received(7, 1),
        Movement {
            id: 777,
            ..received(40, 1)
        },
    ] {
        assert_eq!(store.movement(&late), Err(Refusal::LateBeyondHorizon));
    }
    assert_eq!(
        store.snapshot(&counted(39, 1)),
        Err(Refusal::LateBeyondHorizon),
        "40 cannot be added to it any more"
    );
    assert_eq!(store.ledger, before.ledger);
    store.snapshot(&counted(40, 100)).expect("taken in");
    assert_eq!(store.sellable(), units(105));
    store.receive(41, 1);
}

#[test]
fn goods_on_the_way_are_announced_and_arrive() {
    use StockState::*;
    let q = units(4);
    let table = [
        ((Supplier, InTransit), (0, 0, 0, 4)),
        ((InTransit, Sellable), (4, 0, 0, -4)),
        ((InTransit, QualityHold), (0, 0, 4, -4)),
        ((InTransit, Loss), (0, 0, 0, -4)),
        ((Sellable, InTransit), (-4, 0, 0, 0)),
        ((Damaged, InTransit), (0, -4, 0, 0)),
        ((Sellable, Customer), (-4, 0, 0, 0)),
        ((Customer, Damaged), (0, 4, 0, 0)),
        ((QualityHold, Sellable), (4, 0, -4, 0)),
        ((Loss, Sellable), (4, 0, 0, 0)),
        ((Supplier, Customer), (0, 0, 0, 0)),
    ];
    for ((from, to), (sellable, damaged, held, incoming)) in table {
        let expected = Effect {
            sellable: units(sellable),
            damaged: units(damaged),
            held: units(held),
            incoming: units(incoming),
        };
        assert_eq!(Effect::of(from, to, q), expected, "{from:?} to {to:?}");
    }
}

#[test]
fn the_first_source_is_the_authority() {
    let mut ledger = Ledger::default();
    assert!(ledger.is_authority("wms", None));
    assert!(!ledger.is_authority("erp", None));
    assert!(ledger.is_authority("wms", None));
}

#[test]
fn check_digits_of_gs1() {
    for good in [
        "4006381333931",
        "96385074",
        "036000291452",
        "10614141000415",
    ] {
        assert!(gs1_check_digit_holds(good), "{good}");
    }
    for bad in ["4006381333932", "", "400638133393", "40063813339x1", "0"] {
        assert!(!gs1_check_digit_holds(bad), "{bad}");
    }
}

#[test]
fn positions_order_by_epoch_first() {
    let newer = Position {
        epoch: 1,
        sequence: 0,
    };
    assert!(newer > position(0, i64::MAX));
}
