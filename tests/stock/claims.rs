//! Claims, case by case.

use crate::{Store, at, counted, forced, hold, received, shipped, units};
use crossdock::domain::Decimal;
use crossdock::domain::stock::*;

fn stocked(quantity: i32) -> Store {
    let mut store = Store::default();
    store.receive(1, quantity);
    store
}

fn selling(oversell: Oversell, limit: Option<i32>) -> Policy {
    Policy {
        version: 1,
        oversell,
        backorder_limit: limit.map(units),
        ..Policy::default()
    }
}

fn last(store: &Store) -> &Decision {
    store.journal.decisions.last().expect("a decision")
}

#[test]
fn a_strict_hold_is_granted_whole_out_of_what_is_available_or_refused() {
    let mut store = stocked(5);
    assert_eq!(store.command(Action::Hold, &hold(1, 5)), Verdict::Applied);
    let decision = last(&store).clone();
    assert_eq!(decision.claim.status, ClaimStatus::Held);
    assert_eq!(
        (decision.granted, decision.ats_before),
        (units(5), units(5))
    );
    assert_eq!(decision.sequence, 1);
    store.command(Action::Hold, &hold(2, 1));
    assert_eq!(last(&store).claim.status, ClaimStatus::Rejected);
    assert_eq!(last(&store).granted, Decimal::ZERO);
    assert_eq!(
        (last(&store).ats_before, last(&store).reserved_before),
        (units(0), units(5))
    );
    assert_eq!(store.ledger.reserved(), units(5));
}

#[test]
fn a_hold_that_is_asked_again_changes_nothing_and_keeps_its_decision() {
    let mut store = stocked(3);
    store.command(Action::Hold, &hold(1, 2));
    store.command(Action::Hold, &hold(2, 2));
    store.commit();
    let before = store.clone();
    // By now the second one could be granted: its refusal stands.
    store.receive(2, 10);
    let decisions = store.journal.decisions.len();
    for id in [1, 2] {
        assert_eq!(
            store.command(Action::Hold, &hold(id, 2)),
            Verdict::Duplicate
        );
        assert_eq!(store.claim(id), before.claim(id));
    }
    assert_eq!(store.journal.decisions.len(), decisions);
}

#[test]
fn a_forced_hold_is_never_refused_and_says_what_is_missing() {
    let mut store = stocked(3);
    store.policy(Policy {
        safety: units(1),
        ..selling(Oversell::Block, None)
    });
    store.command(Action::Hold, &forced(1, 5));
    let decision = last(&store).clone();
    assert_eq!(decision.claim.status, ClaimStatus::Held);
    assert_eq!(
        decision.claim.held,
        units(3),
        "safety stock is there for this"
    );
    assert_eq!(decision.claim.backordered, units(2));
    assert_eq!(decision.oversold, units(2));
    store.command(Action::Hold, &forced(2, 1));
    assert_eq!(last(&store).claim.status, ClaimStatus::Backordered);
    assert_eq!(store.ledger.backordered(), units(3));
}

#[test]
fn policies_decide_what_is_accepted_without_stock() {
    for (oversell, limit, expected) in [
        (
            Oversell::Block,
            Some(10),
            [ClaimStatus::Rejected, ClaimStatus::Rejected],
        ),
        (
            Oversell::BackorderToLimit,
            Some(5),
            [ClaimStatus::Backordered, ClaimStatus::Rejected],
        ),
        (
            Oversell::BackorderToLimit,
            Some(6),
            [ClaimStatus::Backordered, ClaimStatus::Backordered],
        ),
        (
            Oversell::BackorderToLimit,
            None,
            [ClaimStatus::Rejected, ClaimStatus::Rejected],
        ),
        (
            Oversell::Allow,
            None,
            [ClaimStatus::Backordered, ClaimStatus::Backordered],
        ),
    ] {
        let mut store = stocked(2);
        store.policy(selling(oversell, limit));
        let statuses = [1, 2].map(|id| {
            store.command(Action::Hold, &hold(id, 3));
            last(&store).claim.status
        });
        assert_eq!(statuses, expected, "{oversell:?} {limit:?}");
        assert_eq!(
            store.ledger.reserved(),
            Decimal::ZERO,
            "whole or not at all"
        );
        assert_eq!(
            last(&store).oversold,
            Decimal::ZERO,
            "the policy allowed it"
        );
    }
    let mut store = stocked(0);
    store.policy(selling(Oversell::BackorderToLimit, Some(1)));
    assert!(store.ledger.is_backorderable());
    store.command(Action::Hold, &hold(1, 1));
    assert!(!store.ledger.is_backorderable(), "the limit is reached");
}

#[test]
fn new_stock_goes_to_backorders_by_promise_then_by_age() {
    let mut store = stocked(0);
    store.policy(selling(Oversell::Allow, None));
    let promised = |id, quantity, promise: Option<i64>| Command {
        promise_at: promise.map(at),
        ..hold(id, quantity)
    };
    store.command(Action::Hold, &promised(1, 2, None));
    store.command(Action::Hold, &promised(2, 2, Some(500)));
    store.command(Action::Hold, &promised(3, 3, Some(100)));
    store.command(Action::Hold, &promised(4, 2, Some(500)));
    // The expiry of a hold stands for a promise that nobody made.
    let expiring = Command {
        expires_at: Some(at(50)),
        ..hold(5, 1)
    };
    store.command(Action::Hold, &expiring);
    store.commit();
    let mut promoted = Vec::new();
    for (sequence, quantity) in [(10, 1), (11, 2), (12, 1), (13, 2), (14, 9)] {
        store.journal.clear();
        store.receive(sequence, quantity);
        store.commit();
        let granted = store.journal.decisions.iter().map(|d| (d.id, d.cause));
        promoted.push(granted.collect::<Vec<_>>());
    }
    let by = |id| (id, Cause::Promote);
    assert_eq!(
        promoted,
        [
            vec![by(5)],
            // Three units short for the most urgent: whole or not at all, so the next in line.
            vec![by(2)],
            vec![],
            vec![by(3)],
            vec![by(4), by(1)],
        ]
    );
    assert_eq!(store.ledger.backordered(), Decimal::ZERO);
    assert_eq!(store.ledger.reserved(), units(10));
}

#[test]
fn forced_claims_take_what_comes_bit_by_bit() {
    let mut store = stocked(1);
    store.command(Action::Hold, &forced(1, 4));
    store.receive(2, 2);
    let claim = store.claim(1);
    assert_eq!((claim.held, claim.backordered), (units(3), units(1)));
    store.command(Action::Hold, &hold(2, 1));
    assert_eq!(
        store.claim(2).status,
        ClaimStatus::Rejected,
        "nothing is left over"
    );
    store.receive(3, 2);
    assert_eq!(store.claim(1).backordered, Decimal::ZERO);
    assert_eq!(store.ledger.ats("web"), units(1));
}

#[test]
fn stock_freed_by_a_release_goes_to_backorders_before_the_next_hold() {
    let mut store = stocked(2);
    store.policy(selling(Oversell::Allow, None));
    store.command(Action::Hold, &hold(1, 2));
    store.command(Action::Hold, &hold(2, 2));
    store.command(Action::Release, &hold(1, 0));
    store.command(Action::Hold, &hold(3, 1));
    assert_eq!(store.claim(2).status, ClaimStatus::Held);
    assert_eq!(store.claim(3).status, ClaimStatus::Backordered);
}

#[test]
fn a_confirmation_stops_the_expiry_and_waits_for_its_hold() {
    let mut store = stocked(5);
    let expiring = |id| Command {
        expires_at: Some(at(900)),
        place: Place {
            partition: 2,
            offset: 33,
        },
        ..hold(id, 1)
    };
    store.command(Action::Hold, &expiring(1));
    store.command(Action::Hold, &expiring(2));
    store.command(Action::Confirm, &hold(2, 0));
    assert_eq!(
        store.command(Action::Confirm, &hold(2, 0)),
        Verdict::Duplicate
    );
    // The confirmation of 3 comes first.
    assert_eq!(
        store.command(Action::Confirm, &expiring(3)),
        Verdict::Buffered
    );
    assert_eq!(
        store.command(Action::Confirm, &expiring(3)),
        Verdict::Duplicate
    );
    store.commit();
    store.command(Action::Hold, &expiring(3));
    assert_eq!(store.claim(3).status, ClaimStatus::Confirmed);
    let resolved = &store.journal.resolved;
    assert_eq!(resolved.len(), 1);
    assert_eq!(resolved[0].outcome, Applied::Applied);
    assert_eq!(
        resolved[0].waited,
        Waited::Confirm(Place {
            partition: 2,
            offset: 33
        })
    );
    assert_eq!(store.ledger.next_expiry(), Some(at(900)));
    store.expire(at(899));
    assert_eq!(store.claim(1).status, ClaimStatus::Held);
    store.expire(at(900));
    store.commit();
    let statuses = [1, 2, 3].map(|id| store.claim(id).status);
    let (confirmed, expired) = (ClaimStatus::Confirmed, ClaimStatus::Expired);
    assert_eq!(statuses, [expired, confirmed, confirmed]);
    assert_eq!(last(&store).cause, Cause::Expire);
    assert_eq!(store.ledger.reserved(), units(2));
    assert_eq!(store.ledger.next_expiry(), None);
    assert_eq!(
        store.command(Action::Confirm, &hold(1, 0)),
        Verdict::Superseded
    );
}

#[test]
fn a_release_before_its_hold_leaves_a_tombstone() {
    let mut store = stocked(5);
    assert_eq!(
        store.command(Action::Release, &hold(1, 0)),
        Verdict::Applied
    );
    store.commit();
    for _ in 0..2 {
        assert_eq!(
            store.command(Action::Hold, &hold(1, 2)),
            Verdict::Superseded
        );
    }
    assert_eq!(
        store.command(Action::Release, &hold(1, 0)),
        Verdict::Duplicate
    );
    assert_eq!(store.ledger.reserved(), Decimal::ZERO);
    // With a confirmation that had waited as well.
    assert_eq!(
        store.command(Action::Confirm, &hold(2, 0)),
        Verdict::Buffered
    );
    store.command(Action::Release, &hold(2, 0));
    assert_eq!(store.journal.resolved[0].outcome, Applied::Superseded);
}

#[test]
fn goods_that_left_before_their_hold_are_not_claimed_again() {
    for (left, wanted, status, active) in [
        (2, 5, ClaimStatus::PartiallyConsumed, 3),
        (5, 5, ClaimStatus::Consumed, 0),
        (7, 5, ClaimStatus::Consumed, 0),
    ] {
        let mut store = stocked(20);
        let moved = store.movement(&shipped(2, 1, 9)).expect("moved");
        assert_eq!(moved.claim, Some(Verdict::Applied));
        store.movement(&shipped(3, left - 1, 9)).expect("moved");
        store.commit();
        assert!(store.journal.decisions.is_empty());
        store.command(Action::Hold, &hold(9, wanted));
        let claim = store.claim(9);
        assert_eq!((claim.status, claim.active()), (status, units(active)));
        assert_eq!(last(&store).granted, units(active));
        assert_eq!(claim.held, claim.consumed + claim.active());
        assert_eq!(store.ledger.reserved(), units(active));
        assert_eq!(store.sellable(), units(20 - left));
    }
}

#[test]
fn a_confirmation_after_early_goods_still_waits_for_the_hold() {
    let mut store = stocked(20);
    store.movement(&shipped(2, 1, 9)).expect("moved");
    assert_eq!(
        store.command(Action::Confirm, &hold(9, 0)),
        Verdict::Buffered
    );
    let expiring = Command {
        expires_at: Some(at(10)),
        ..hold(9, 3)
    };
    store.command(Action::Hold, &expiring);
    assert!(store.claim(9).confirmed);
    assert_eq!(store.ledger.next_expiry(), None);
}

/// A confirmation that overtakes its hold is over once the hold is refused. Delivered twice, it must not
/// look like one that somebody asks for on a refused claim: it would end among the dead letters.
#[test]
fn an_early_confirmation_of_a_refused_hold_is_known_when_it_comes_again() {
    let mut store = stocked(1);
    assert_eq!(
        store.command(Action::Confirm, &hold(1, 0)),
        Verdict::Buffered
    );
    store.command(Action::Hold, &hold(1, 5));
    assert_eq!(store.claim(1).status, ClaimStatus::Rejected);
    assert_eq!(
        store.journal.resolved.last().map(|r| r.outcome),
        Some(Applied::Superseded)
    );
    assert_eq!(
        store.command(Action::Confirm, &hold(1, 0)),
        Verdict::Duplicate
    );
    // Nobody had confirmed this one.
    store.command(Action::Hold, &hold(2, 5));
    assert_eq!(
        store.command(Action::Confirm, &hold(2, 0)),
        Verdict::Superseded
    );
}

#[test]
fn parts_are_consumed_and_the_rest_released() {
    let mut store = stocked(10);
    store.command(Action::Hold, &hold(1, 5));
    store.movement(&shipped(2, 2, 1)).expect("moved");
    assert_eq!(store.claim(1).status, ClaimStatus::PartiallyConsumed);
    assert_eq!(store.ledger.reserved(), units(3));
    store.command(Action::Release, &hold(1, 0));
    let claim = store.claim(1);
    assert_eq!(claim.status, ClaimStatus::Released);
    assert_eq!((claim.held, claim.consumed), (units(5), units(2)));
    assert_eq!(store.ledger.reserved(), Decimal::ZERO);
    assert_eq!(store.ledger.ats("web"), units(8));
    // More goods for it: they are gone, the claim stays as it is.
    let moved = store.movement(&shipped(3, 1, 1)).expect("moved");
    assert_eq!(moved.claim, Some(Verdict::Superseded));
    assert_eq!(store.sellable(), units(7));
    assert_eq!(store.claim(1).consumed, units(2));
}

#[test]
fn physical_wins_over_claims_that_are_over_or_never_had_stock() {
    // Expired: goods leave although somebody else holds them by now.
    let mut store = stocked(3);
    let expiring = Command {
        expires_at: Some(at(5)),
        ..hold(1, 3)
    };
    store.command(Action::Hold, &expiring);
    store.expire(at(5));
    store.command(Action::Hold, &hold(2, 3));
    let moved = store.movement(&shipped(2, 3, 1)).expect("moved");
    assert_eq!(
        (moved.physical, moved.claim),
        (Applied::Applied, Some(Verdict::Superseded))
    );
    assert_eq!(store.ledger.level().overcommitted, units(3));
    let risk = store.ledger.at_risk(10, &store.shelf).expect("readable");
    assert_eq!(risk.len(), 1);
    assert_eq!((risk[0].id, risk[0].short), (2, units(3)));

    // Rejected.
    let mut store = stocked(1);
    store.command(Action::Hold, &hold(1, 3));
    let moved = store.movement(&shipped(2, 3, 1)).expect("moved");
    assert_eq!(moved.claim, Some(Verdict::Superseded));
    assert_eq!(store.sellable(), units(-2));

    // Backordered: what left is no longer owed.
    let mut store = stocked(0);
    store.policy(selling(Oversell::Allow, None));
    store.command(Action::Hold, &hold(1, 3));
    store.movement(&shipped(2, 2, 1)).expect("moved");
    let claim = store.claim(1);
    assert_eq!(claim.status, ClaimStatus::PartiallyConsumed);
    assert_eq!((claim.backordered, claim.consumed), (units(1), units(2)));
    assert_eq!(store.ledger.backordered(), units(1));
    store.movement(&shipped(3, 1, 1)).expect("moved");
    assert_eq!(store.claim(1).status, ClaimStatus::Consumed);
    assert_eq!(store.ledger.backordered(), Decimal::ZERO);
}

#[test]
fn claims_at_risk_are_the_least_urgent_ones() {
    let mut store = stocked(6);
    for (id, promise) in [(1, 300), (2, 100), (3, 200)] {
        let promised = Command {
            promise_at: Some(at(promise)),
            ..hold(id, 2)
        };
        store.command(Action::Hold, &promised);
    }
    store.snapshot(&counted(5, 3)).expect("taken in");
    let risk = store.ledger.at_risk(10, &store.shelf).expect("readable");
    let risk: Vec<_> = risk.iter().map(|r| (r.id, r.short)).collect();
    assert_eq!(risk, [(3, units(1)), (1, units(2))]);
}

#[test]
fn backorders_do_not_expire_but_what_they_are_granted_does() {
    let mut store = stocked(0);
    store.policy(selling(Oversell::Allow, None));
    let expiring = Command {
        expires_at: Some(at(60)),
        ..hold(1, 2)
    };
    store.command(Action::Hold, &expiring);
    assert_eq!(store.ledger.next_expiry(), None);
    store.expire(at(100));
    assert_eq!(store.claim(1).status, ClaimStatus::Backordered);
    store.receive(2, 2);
    assert_eq!(store.claim(1).status, ClaimStatus::Held);
    assert_eq!(store.ledger.next_expiry(), Some(at(60)));
    store.expire(at(100));
    assert_eq!(store.claim(1).status, ClaimStatus::Expired);
    assert_eq!(store.ledger.reserved(), Decimal::ZERO);
}

#[test]
fn a_reassignment_ends_the_claim_here() {
    let mut store = stocked(2);
    store.command(Action::Hold, &hold(1, 2));
    assert_eq!(
        store.command(Action::Reassign, &hold(1, 0)),
        Verdict::Applied
    );
    assert_eq!(last(&store).cause, Cause::Command(Action::Reassign));
    assert_eq!(last(&store).claim.status, ClaimStatus::Released);
    assert_eq!(store.ledger.ats("web"), units(2));
}

#[test]
fn what_is_over_is_forgotten_after_the_horizon_and_late_commands_are_refused() {
    const DAY: i64 = 86_400;
    let mut store = stocked(100);
    for id in 0..30 {
        store.command(Action::Hold, &hold(id, 1));
        store.command(Action::Release, &hold(id, 0));
    }
    let waiting = Command {
        place: Place {
            partition: 0,
            offset: 77,
        },
        ..hold(500, 1)
    };
    assert_eq!(store.command(Action::Confirm, &waiting), Verdict::Buffered);
    store.commit();
    assert!(store.shelf.slots.len() > 30);
    let mut late = received(2, 1);
    late.recorded_at = at(3 * DAY + 60);
    store.movement(&late).expect("moved");
    store.journal.clear();
    store.commit();
    assert!(
        store.shelf.slots.is_empty(),
        "{:?}",
        store.shelf.slots.keys()
    );
    assert_eq!(
        store.journal.resolved,
        [Resolved {
            waited: Waited::Confirm(waiting.place),
            outcome: Applied::Superseded,
            claim: None
        }],
        "its hold never came"
    );
    let again = store.ledger.command(
        Action::Hold,
        &hold(3, 1),
        &mut store.shelf,
        &mut store.journal,
    );
    assert_eq!(again, Err(Refusal::LateBeyondHorizon));
    let new = Command {
        recorded_at: at(3 * DAY + 61),
        ..hold(900, 1)
    };
    assert_eq!(store.command(Action::Hold, &new), Verdict::Applied);
}
