//! `return-refund-recon`: each return agrees, or has exactly one open exception.

use super::*;
use crossdock::processors::ReturnRefundRecon;
use rand::prelude::*;

/// A return of one unit of line 1 and the unit of line 2, and all that answers to it.
fn complete() -> Vec<Event> {
    vec![
        order_placed().into(),
        returned("ret", 1, &[("1", 1), ("2", 1)]).into(),
        paid(
            "r",
            Some("ret"),
            vec![item("1", 1, 5_950, 950), item("2", 1, 3_000, 479)],
        )
        .into(),
        moved("ret", "1", 1).into(),
        moved("ret", "2", 1).into(),
        credit("n", "ret", 8_950, 1_429).into(),
    ]
}

fn judged(facts: Vec<Event>) -> Driven<ReturnRefundRecon> {
    let mut recon = of_order(ReturnRefundRecon::new());
    facts.into_iter().for_each(|fact| recon.send(vec![fact]));
    recon.pass(HOUR * 73);
    recon
}

#[test]
fn a_return_that_is_refunded_restocked_and_credited_agrees() {
    let recon = judged(complete());
    assert!(recon.open().is_empty(), "{:?}", recon.open());
    assert!(recon.said.is_empty());
}

/// What each missing or wrong fact is called.
fn defects() -> Vec<(&'static str, Vec<Event>)> {
    let without = |index: usize| {
        let mut facts = complete();
        facts.remove(index);
        facts
    };
    let with = |more: Event| {
        let mut facts = complete();
        facts.push(more);
        facts
    };
    let instead = |index: usize, other: Event| {
        let mut facts = complete();
        facts[index] = other;
        facts
    };
    vec![
        ("ORPHAN", without(0)),
        ("REFUND_WITHOUT_RETURN", without(1)),
        ("RETURN_WITHOUT_REFUND", without(2)),
        ("NOT_RESTOCKED", without(3)),
        ("CREDIT_NOTE_MISSING", without(5)),
        (
            "TAX_MISMATCH",
            instead(5, credit("n", "ret", 8_950, 1_000).into()),
        ),
        (
            "DUPLICATE_REFUND",
            with(paid("again", Some("ret"), vec![item("1", 1, 5_950, 950)]).into()),
        ),
        (
            "DUPLICATE_REFUND",
            with(paid("again", None, vec![item("1", 1, 5_950, 950)]).into()),
        ),
        (
            "REFUND_WITHOUT_RETURN",
            with(paid("other", None, vec![item("3", 1, 1_000, 0)]).into()),
        ),
        (
            "RETURN_WITHOUT_REFUND",
            instead(
                2,
                paid("r", Some("ret"), vec![item("1", 1, 5_950, 950)]).into(),
            ),
        ),
        (
            "REFUND_WITHOUT_RETURN",
            instead(
                2,
                paid(
                    "r",
                    Some("ret"),
                    vec![item("1", 2, 11_900, 1_900), item("2", 1, 3_000, 479)],
                )
                .into(),
            ),
        ),
    ]
}

#[test]
fn each_defect_has_one_exception_after_the_horizon_and_none_before() {
    for (code, facts) in defects() {
        let mut recon = of_order(ReturnRefundRecon::new());
        facts.into_iter().for_each(|fact| recon.send(vec![fact]));
        recon.pass(HOUR * 71);
        assert!(recon.said.is_empty(), "{code} before the horizon");
        recon.pass(HOUR * 2);
        assert_eq!(recon.codes(), [code]);
    }
}

#[test]
fn an_exception_goes_away_when_the_late_fact_comes() {
    for missing in [0, 1, 2, 3, 5] {
        let mut facts = complete();
        let late = facts.remove(missing);
        let mut recon = judged(facts);
        assert_eq!(recon.open().len(), 1);
        recon.send(vec![late]);
        // Without its return a refund is judged anew, and the return itself only after its horizon.
        recon.pass(HOUR * 73);
        assert!(
            recon.open().is_empty(),
            "fact {missing}: {:?}",
            recon.open()
        );
        let Some(Event::BusinessException(last)) = recon.said.last() else {
            panic!("an exception")
        };
        assert_eq!(last.status, ExceptionStatus::Resolved);
        assert!(last.healed_by.is_some());
    }
}

#[test]
fn goods_that_are_kept_goodwill_and_cancellations_need_no_return_on_the_shelf() {
    let mut kept = returned("ret", 1, &[("2", 1)]);
    kept.method = ReturnMethod::NoReturn;
    kept.lines[0].disposition = Disposition::Keep;
    let mut goodwill = paid("sorry", None, vec![item("1", 0, 500, 0)]);
    goodwill.allocations[0].r#type = RefundType::Appeasement;
    let mut cancelled = paid("cancelled", None, vec![item("3", 1, 1_000, 0)]);
    cancelled.allocations[0].r#type = RefundType::Cancellation;
    let recon = judged(vec![
        order_placed().into(),
        kept.into(),
        paid("r", None, vec![item("2", 1, 3_000, 479)]).into(),
        credit("n", "ret", 3_000, 479).into(),
        goodwill.into(),
        cancelled.into(),
    ]);
    assert!(recon.open().is_empty(), "{:?}", recon.open());
}

#[test]
fn a_fee_that_is_kept_back_is_no_missing_refund() {
    let fee = RefundAllocation {
        order_line_id: None,
        r#type: RefundType::Fee,
        ..item("2", 0, -500, -80)
    };
    let recon = judged(vec![
        order_placed().into(),
        returned("ret", 1, &[("2", 1)]).into(),
        paid("r", Some("ret"), vec![item("2", 1, 3_000, 479), fee]).into(),
        moved("ret", "2", 1).into(),
        credit("n", "ret", 2_500, 399).into(),
    ]);
    assert!(recon.open().is_empty(), "{:?}", recon.open());
}

#[test]
fn a_refund_that_nobody_explained_answers_to_the_return_of_its_amount() {
    let mut unexplained = paid("psp", None, vec![item("2", 1, 3_000, 0)]);
    unexplained.allocations.clear();
    let recon = judged(vec![
        order_placed().into(),
        returned("ret", 1, &[("2", 1)]).into(),
        unexplained.into(),
        moved("ret", "2", 1).into(),
        credit("n", "ret", 3_000, 479).into(),
    ]);
    assert!(recon.open().is_empty(), "{:?}", recon.open());
}

#[test]
fn an_order_whose_totals_do_not_add_is_refused() {
    let mut recon = of_order(ReturnRefundRecon::new());
    let mut broken = order_placed();
    if let Some(order) = &mut broken.order {
        order.grand_total = cents(15_950);
    }
    recon.one(broken);
    let mut broken = order_placed();
    if let Some(order) = &mut broken.order {
        order.lines[1].line_total = cents(2_000);
    }
    recon.one(broken);
    assert_eq!(recon.refused, [Code::DataQuality; 2]);
}

#[test]
fn any_order_repetition_and_lateness_ends_in_the_same_cases() {
    let worlds = defects();
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let (code, facts) = &worlds[random.random_range(0..worlds.len())];
        let mut facts = facts.clone();
        // Older versions of what is known.
        facts.push(returned("ret", 0, &[("1", 0), ("2", 0)]).into());
        let early = refund(
            "r",
            1,
            RefundStatus::Requested,
            vec![item("1", 1, 5_950, 950)],
        );
        if *code != "RETURN_WITHOUT_REFUND" {
            facts.push(early.into());
        }
        if *code == "REFUND_WITHOUT_RETURN" || *code == "ORPHAN" {
            facts.retain(|f| !matches!(f, Event::ReturnEvent(e) if e.return_version == 0));
        }
        let again: Vec<Event> = facts
            .sample(&mut random, facts.len() / 2)
            .cloned()
            .collect();
        facts.extend(again);
        facts.shuffle(&mut random);
        let mut recon = of_order(ReturnRefundRecon::new());
        while !facts.is_empty() {
            let size = random.random_range(1..=facts.len().min(4));
            recon.send(facts.drain(..size).collect());
            // Some come within the horizon, some long after it.
            recon.pass(HOUR * random.random_range(0..40));
        }
        recon.pass(HOUR * 100);
        assert_eq!(recon.codes(), [*code], "seed {seed}");
    }
}
