//! `refund-gate`: what is granted, refused, waited for, and taken in as a fact.

use super::*;
use crossdock::domain::finance::{RefundMove, RefundStatus as Status, TRANSITIONS};
use crossdock::processors::RefundGate;

/// The storefront has paid already.
fn issued(
    name: &str,
    allocations: Vec<RefundAllocation>,
    reference: Option<&str>,
) -> RefundRequest {
    RefundRequest {
        already_issued: true,
        psp: reference.map(|_| "psp".into()),
        psp_reference: reference.map(Text::from),
        ..request(name, allocations)
    }
}

/// Status and attempt of each change of a refund, in order.
fn life(said: &[Event], name: &str) -> Vec<(RefundStatus, i32)> {
    let mut version = 0;
    let of_refund = said.iter().filter_map(|e| match e {
        Event::RefundEvent(e) if e.refund_id == id(name) => Some(e),
        _ => None,
    });
    of_refund
        .map(|e| {
            version += 1;
            assert_eq!(e.refund_version, version, "versions count");
            (e.status, e.attempt)
        })
        .collect()
}

const GRANTED: [(RefundStatus, i32); 3] = [
    (RefundStatus::Requested, 0),
    (RefundStatus::Approved, 0),
    (RefundStatus::Submitted, 1),
];

#[test]
fn a_return_that_was_paid_for_and_accepted_is_refunded() {
    let mut gate = of_order(RefundGate::new());
    gate.one(captured("p", "c1", 10_000));
    gate.one(returned("ret", 1, &[("1", 1)]));
    assert_eq!(
        gate.one(request("r", vec![item("1", 1, 3_000, 479)])),
        Outcome::Applied
    );
    assert_eq!(life(&gate.said, "r"), GRANTED);
    gate.one(answer(
        PaymentKind::Refunded,
        Some(("r", 1)),
        "re1",
        3_000,
        1,
    ));
    assert_eq!(
        life(&gate.said, "r").last(),
        Some(&(RefundStatus::Completed, 1))
    );
    let Some(Event::RefundEvent(last)) = gate.said.last() else {
        panic!("a refund")
    };
    assert_eq!(last.psp_reference.as_deref(), Some("re1"));
    assert_eq!(last.payment_id.as_deref(), Some("p"));
    assert_eq!(last.psp.as_deref(), Some("psp"));
    assert_eq!(last.capture_references, ["c1"]);
    assert!(gate.open().is_empty());
}

#[test]
fn a_request_before_its_capture_or_return_waits_and_is_decided_when_they_come() {
    let mut gate = of_order(RefundGate::new());
    let asked = request("r", vec![item("1", 1, 3_000, 0)]);
    assert_eq!(gate.one(asked), Outcome::Buffered);
    gate.one(captured("p", "c1", 2_000));
    gate.one(returned("ret", 1, &[("1", 1)]));
    assert_eq!(life(&gate.said, "r"), GRANTED[..1]);
    assert_eq!(gate.codes(), ["REFUND_EXCEEDS_CAPTURE"], "captured in part");
    gate.one(captured("p", "c2", 2_000));
    assert_eq!(life(&gate.said, "r"), GRANTED);
    assert!(gate.open().is_empty());
    let ends: Vec<_> = gate
        .resolved
        .iter()
        .map(|r| (r.origin.offset, r.outcome))
        .collect();
    assert_eq!(ends, [(1, Outcome::Applied)]);
}

#[test]
fn nothing_waits_for_ever() {
    for (facts, code) in [
        (vec![], "REFUND_WITHOUT_RETURN"),
        (
            vec![returned("ret", 1, &[("1", 1)]).into()],
            "REFUND_EXCEEDS_CAPTURE",
        ),
        (
            vec![captured("p", "c", 9_000).into()],
            "REFUND_WITHOUT_RETURN",
        ),
    ] {
        let mut gate = of_order(RefundGate::new());
        gate.one(request("r", vec![item("1", 1, 3_000, 0)]));
        for fact in facts {
            gate.send(vec![fact]);
        }
        gate.pass(HOUR * 71);
        assert!(gate.resolved.is_empty());
        gate.pass(HOUR * 2);
        assert_eq!(
            life(&gate.said, "r").last(),
            Some(&(RefundStatus::Rejected, 0))
        );
        assert_eq!(gate.codes(), [code]);
        assert_eq!(gate.resolved.len(), 1);
        // Beyond the horizon the decision stands.
        gate.one(captured("p", "late", 9_000));
        gate.one(returned("late", 1, &[("1", 1)]));
        assert_eq!(life(&gate.said, "r").len(), 2);
        assert_eq!(gate.codes(), [code]);
    }
}

#[test]
fn more_than_was_captured_is_never_granted() {
    let mut gate = of_order(RefundGate::new());
    gate.one(captured("p", "c1", 5_000));
    gate.one(returned("ret", 1, &[("1", 3)]));
    gate.one(request("a", vec![item("1", 1, 3_000, 0)]));
    gate.one(request("b", vec![item("1", 1, 3_000, 0)]));
    assert_eq!(life(&gate.said, "a"), GRANTED);
    assert_eq!(life(&gate.said, "b"), GRANTED[..1]);
    assert_eq!(gate.codes(), ["REFUND_EXCEEDS_CAPTURE"]);
    gate.pass(HOUR * 73);
    assert_eq!(
        life(&gate.said, "b").last(),
        Some(&(RefundStatus::Rejected, 0))
    );
}

#[test]
fn a_currency_in_which_nothing_was_paid_is_not_refunded() {
    let mut gate = of_order(RefundGate::new());
    gate.one(captured("p", "c1", 5_000));
    gate.one(payment(
        PaymentKind::Captured,
        "q",
        "c2",
        money(5_000, "SEK"),
    ));
    gate.one(returned("ret", 1, &[("1", 3)]));
    let mut crowns = request("crowns", vec![item("1", 1, 3_000, 0)]);
    crowns.amount.currency = "SEK".into();
    gate.one(crowns);
    let mut dollars = request("dollars", vec![item("1", 1, 3_000, 0)]);
    dollars.amount.currency = "USD".into();
    assert_eq!(gate.one(dollars), Outcome::Buffered);
    assert_eq!(life(&gate.said, "crowns"), GRANTED);
    let paid_from = gate.said.iter().find_map(|e| match e {
        Event::RefundEvent(e) if e.status == RefundStatus::Submitted => e.payment_id.clone(),
        _ => None,
    });
    assert_eq!(paid_from.as_deref(), Some("q"));
}

#[test]
fn goodwill_needs_a_reason() {
    let goodwill = |reason: Option<&str>, name: &str| {
        let mut asked = request(name, vec![item("1", 1, 500, 0)]);
        asked.allocations[0].r#type = RefundType::Appeasement;
        asked.reason = reason.map(Text::from);
        asked
    };
    let mut gate = of_order(RefundGate::new());
    gate.one(captured("p", "c1", 5_000));
    gate.one(goodwill(None, "a"));
    gate.one(goodwill(Some(" "), "b"));
    gate.one(goodwill(Some("arrived late"), "c"));
    assert_eq!(
        life(&gate.said, "a").last(),
        Some(&(RefundStatus::Rejected, 0))
    );
    assert_eq!(
        life(&gate.said, "b").last(),
        Some(&(RefundStatus::Rejected, 0))
    );
    assert_eq!(life(&gate.said, "c"), GRANTED);
    assert_eq!(gate.codes(), ["APPEASEMENT_WITHOUT_REASON"; 2]);
}

#[test]
fn cancelled_units_are_refunded_without_a_return() {
    let mut gate = of_order(RefundGate::new());
    gate.one(captured("p", "c1", 5_000));
    let mut asked = request("r", vec![item("1", 2, 3_000, 0)]);
    asked.allocations[0].r#type = RefundType::Cancellation;
    assert_eq!(gate.one(asked), Outcome::Buffered);
    gate.one(order_state(4, OrderStatus::Placed, &[("1", 1)]));
    assert_eq!(life(&gate.said, "r"), GRANTED[..1]);
    gate.one(order_state(5, OrderStatus::Cancelled, &[("1", 2)]));
    assert_eq!(life(&gate.said, "r"), GRANTED);
}

#[test]
fn a_definite_failure_opens_the_next_attempt_and_doubt_keeps_the_one() {
    let mut gate = of_order(RefundGate::new());
    gate.one(captured("p", "c1", 9_000));
    gate.one(returned("ret", 1, &[("1", 1)]));
    gate.one(request("r", vec![item("1", 1, 3_000, 0)]));
    gate.now = at(100);
    let answered = |kind, attempt, reference: &str, version| {
        let mut event = answer(kind, Some(("r", attempt)), reference, 3_000, version);
        event.meta.occurred_at = at(100);
        event.meta.recorded_at = at(100);
        event
    };
    gate.one(answered(PaymentKind::RefundUnknown, 1, "re1", 1));
    gate.pass(HOUR * 2);
    assert_eq!(
        life(&gate.said, "r").last(),
        Some(&(RefundStatus::OutcomeUnknown, 1))
    );
    gate.one(answered(PaymentKind::RefundFailed, 1, "re1", 2));
    gate.pass(Duration::from_secs(60));
    assert_eq!(
        life(&gate.said, "r")[3..],
        [
            (RefundStatus::OutcomeUnknown, 1),
            (RefundStatus::Failed, 1),
            (RefundStatus::Approved, 1),
            (RefundStatus::Submitted, 2)
        ]
    );
    gate.one(answered(PaymentKind::Refunded, 2, "re2", 1));
    assert_eq!(
        life(&gate.said, "r").last(),
        Some(&(RefundStatus::Completed, 2))
    );
    assert!(gate.open().is_empty());
    // An attempt that was over has paid all the same: that is a second payment.
    let again = answered(PaymentKind::Refunded, 1, "re1", 3);
    gate.one(again.clone());
    assert_eq!(gate.codes(), ["DUPLICATE_REFUND"]);
    let said = gate.said.len();
    assert_eq!(gate.one(again), Outcome::Duplicate);
    assert_eq!(gate.said.len(), said);
}

#[test]
fn after_the_last_attempt_a_person_decides() {
    let mut gate = of_order(RefundGate::new());
    gate.one(captured("p", "c1", 5_000));
    gate.one(returned("ret", 1, &[("1", 1)]));
    gate.one(request("r", vec![item("1", 1, 3_000, 0)]));
    for attempt in 1..=4 {
        let mut failed = answer(
            PaymentKind::RefundFailed,
            Some(("r", attempt)),
            &format!("re{attempt}"),
            3_000,
            1,
        );
        failed.meta.occurred_at = gate.now;
        failed.meta.recorded_at = gate.now;
        gate.one(failed);
        gate.pass(HOUR * 24);
    }
    assert_eq!(
        life(&gate.said, "r").last(),
        Some(&(RefundStatus::Failed, 4))
    );
    assert_eq!(gate.codes(), ["REFUND_FAILED"]);
}

#[test]
fn an_attempt_without_an_answer_is_told_of() {
    let mut gate = of_order(RefundGate::new());
    gate.one(captured("p", "c1", 5_000));
    gate.one(returned("ret", 1, &[("1", 1)]));
    gate.one(request("r", vec![item("1", 1, 3_000, 0)]));
    gate.pass(HOUR * 25);
    assert_eq!(gate.codes(), ["REFUND_OUTCOME_UNKNOWN"]);
    gate.one(answer(
        PaymentKind::Refunded,
        Some(("r", 1)),
        "re1",
        3_000,
        1,
    ));
    assert!(gate.open().is_empty());
}

#[test]
fn what_the_storefront_paid_before_anyone_asked_is_one_refund_and_is_not_paid_again() {
    let told_by_psp = || Event::from(answer(PaymentKind::Refunded, None, "re1", 3_000, 1));
    for reference in [Some("re1"), None] {
        let told_by_shop = || Event::from(issued("shop", vec![item("1", 1, 3_000, 0)], reference));
        for facts in [
            [told_by_psp(), told_by_shop()],
            [told_by_shop(), told_by_psp()],
        ] {
            let mut gate = of_order(RefundGate::new());
            gate.one(captured("p", "c1", 10_000));
            gate.one(returned("ret", 1, &[("1", 1)]));
            facts.into_iter().for_each(|fact| gate.send(vec![fact]));
            assert_eq!(
                gate.one(request("erp", vec![item("1", 1, 3_000, 0)])),
                Outcome::Buffered
            );
            assert_eq!(gate.codes(), ["DUPLICATE_REFUND"]);
            gate.pass(HOUR * 73);
            let refunds: BTreeMap<Uuid, (RefundStatus, bool)> = gate
                .said
                .iter()
                .filter_map(|e| match e {
                    Event::RefundEvent(e) => Some((e.refund_id, (e.status, e.issued_elsewhere))),
                    _ => None,
                })
                .collect();
            let mut ends: Vec<_> = refunds.into_values().collect();
            ends.sort();
            assert_eq!(
                ends,
                [
                    (RefundStatus::Completed, true),
                    (RefundStatus::Rejected, false)
                ]
            );
            let submitted = |e: &&Event| matches!(e, Event::RefundEvent(e) if e.status == RefundStatus::Submitted);
            assert_eq!(gate.said.iter().filter(submitted).count(), 0);
        }
    }
}

#[test]
fn the_storefront_pays_what_was_sent_already() {
    let mut gate = of_order(RefundGate::new());
    gate.one(captured("p", "c1", 10_000));
    gate.one(returned("ret", 1, &[("1", 1)]));
    gate.one(request("r", vec![item("1", 1, 3_000, 0)]));
    gate.one(answer(
        PaymentKind::Refunded,
        Some(("r", 1)),
        "re1",
        3_000,
        1,
    ));
    gate.one(issued("shop", vec![item("1", 1, 3_000, 0)], Some("re9")));
    assert_eq!(gate.codes(), ["DUPLICATE_REFUND"]);
    // The same refund told by the storefront as well is no second one.
    let mut gate = of_order(RefundGate::new());
    gate.one(captured("p", "c1", 10_000));
    gate.one(returned("ret", 1, &[("1", 1)]));
    gate.one(request("r", vec![item("1", 1, 3_000, 0)]));
    gate.one(answer(
        PaymentKind::Refunded,
        Some(("r", 1)),
        "re1",
        3_000,
        1,
    ));
    let echo = issued("shop", vec![item("1", 1, 3_000, 0)], Some("re1"));
    assert_eq!(gate.one(echo), Outcome::Duplicate);
    assert!(gate.open().is_empty());
}

#[test]
fn a_chargeback_after_a_refund_is_told_of() {
    let mut gate = of_order(RefundGate::new());
    gate.one(captured("p", "c1", 5_000));
    gate.one(returned("ret", 1, &[("1", 1)]));
    gate.one(request("r", vec![item("1", 1, 3_000, 0)]));
    gate.one(answer(
        PaymentKind::Refunded,
        Some(("r", 1)),
        "re1",
        3_000,
        1,
    ));
    gate.one(payment(
        PaymentKind::Chargeback,
        "p",
        "cb1",
        money(5_000, "EUR"),
    ));
    assert_eq!(gate.codes(), ["CHARGEBACK_AFTER_REFUND"]);
    gate.one(payment(
        PaymentKind::ChargebackReversed,
        "p",
        "cb1",
        money(5_000, "EUR"),
    ));
    assert!(gate.open().is_empty());
}

#[test]
fn what_came_back_is_told_of_even_before_it_was_known_to_be_paid() {
    for early in [false, true] {
        let mut gate = of_order(RefundGate::new());
        gate.one(captured("p", "c1", 5_000));
        gate.one(returned("ret", 1, &[("1", 1)]));
        gate.one(request("r", vec![item("1", 1, 3_000, 0)]));
        let paid = answer(PaymentKind::Refunded, Some(("r", 1)), "re1", 3_000, 1);
        if !early {
            gate.one(paid.clone());
        }
        gate.one(answer(
            PaymentKind::RefundReversed,
            Some(("r", 1)),
            "re1",
            3_000,
            2,
        ));
        if early {
            assert_eq!(gate.one(paid), Outcome::Superseded);
        }
        assert_eq!(
            life(&gate.said, "r").last(),
            Some(&(RefundStatus::Reversed, 1))
        );
        assert_eq!(gate.codes(), ["REFUND_REVERSED"]);
    }
}

#[test]
fn impossible_and_broken_records_are_refused_by_name() {
    let mut gate = of_order(RefundGate::new());
    gate.one(captured("p", "c1", 5_000));
    gate.one(returned("ret", 1, &[("1", 1)]));
    gate.one(request("r", vec![item("1", 1, 3_000, 0)]));
    gate.one(answer(
        PaymentKind::Refunded,
        Some(("r", 1)),
        "re1",
        3_000,
        1,
    ));
    gate.one(answer(
        PaymentKind::RefundFailed,
        Some(("r", 1)),
        "re1",
        3_000,
        2,
    ));
    let mut unequal = request("x", vec![item("1", 1, 3_000, 0)]);
    unequal.amount.amount = cents(3_001);
    gate.one(unequal);
    gate.one(request("r", vec![item("1", 1, 2_000, 0)]));
    let mut homeless = request("y", vec![item("1", 1, 3_000, 0)]);
    homeless.allocations[0].order_line_id = None;
    gate.one(homeless);
    let mut unknown = request("z", vec![item("1", 1, 3_000, 0)]);
    unknown.allocations[0].r#type = RefundType::Unknown;
    gate.one(unknown);
    let mut key = answer(PaymentKind::Refunded, None, "re7", 3_000, 1);
    key.refund_key = Some("nonsense".into());
    gate.one(key);
    let expected = [
        Code::IllegalTransition,
        Code::DataQuality,
        Code::DataQuality,
        Code::DataQuality,
        Code::UnknownSymbol,
        Code::DataQuality,
    ];
    assert_eq!(gate.refused, expected);
    assert_eq!(
        life(&gate.said, "r").last(),
        Some(&(RefundStatus::Completed, 1))
    );
}

#[test]
fn the_machine_is_the_one_of_the_specification_and_names_what_is_illegal() {
    let legal: BTreeSet<(Status, Status)> = TRANSITIONS.iter().map(|t| (t.0, t.2)).collect();
    let specified = BTreeSet::from([
        (Status::Requested, Status::Approved),
        (Status::Requested, Status::Rejected),
        (Status::Approved, Status::Submitted),
        (Status::Submitted, Status::Completed),
        (Status::Submitted, Status::Failed),
        (Status::Submitted, Status::OutcomeUnknown),
        (Status::OutcomeUnknown, Status::Completed),
        (Status::OutcomeUnknown, Status::Failed),
        (Status::Failed, Status::Approved),
        (Status::Completed, Status::Reversed),
    ]);
    assert_eq!(legal, specified);
    let illegal = Status::Rejected
        .after(RefundMove::Submit)
        .expect_err("illegal");
    assert_eq!(
        illegal.to_string(),
        "Submit is no move of a refund that is Rejected"
    );
}
