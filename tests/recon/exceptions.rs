//! The cases that operations work.

use super::*;
use crossdock::domain::exception_id;
use crossdock::domain::exceptions::{CASE, CaseMove, CaseState};
use crossdock::pipeline::Code;
use crossdock::processors::{ExceptionContext as Contexts, ExceptionEnricher};
use std::collections::BTreeSet;
use uuid::Uuid;

const ORDER: &str = "7d0b6a52-0000-5000-8000-000000000001";

fn id() -> Uuid {
    exception_id("MISSING_IN_ERP", ORDER, "")
}

fn raised(version: i64, status: ExceptionStatus, severity: Severity) -> Event {
    BusinessException {
        meta: meta(
            "crossdock/order-recon",
            "BusinessException",
            &version.to_string(),
            version,
        ),
        exception_id: id(),
        exception_version: version,
        code: "MISSING_IN_ERP".into(),
        severity,
        status,
        processor: "order-recon".into(),
        order_id: Some(ORDER.into()),
        suggested_actions: vec!["replay".into()],
        occurrences: version,
        first_seen_at: at(0),
        ..BusinessException::default()
    }
    .into()
}

fn context(version: i64, value: i64, promise: Option<i64>) -> Event {
    ExceptionContext {
        meta: meta(
            "crossdock/exception-context",
            "ExceptionContext",
            &version.to_string(),
            version,
        ),
        exception_id: id(),
        order_id: ORDER.into(),
        state_version: version,
        status: "PLACED".into(),
        channel_id: "web".into(),
        order_value: Money {
            amount: units(value),
            currency: "EUR".into(),
        },
        customer_promise_at: promise.map(at),
    }
    .into()
}

fn note(name: &str, action: NoteAction, seen: i64) -> Note {
    Note {
        meta: meta("crossdock/cli", "Note", name, 0),
        exception_id: id(),
        action,
        case_version: seen,
        author: name.into(),
        ..Note::default()
    }
}

fn driven() -> Driven<ExceptionEnricher> {
    Driven::at(ExceptionEnricher::new(), &id().to_string(), at(0))
}

/// The case as it was told last, among what was raised and what was told.
fn case(driven: &Driven<ExceptionEnricher>) -> BusinessException {
    let told = driven.said.iter().rev().find_map(|e| match e {
        Event::BusinessException(e) if *e.meta.source == *"crossdock/exception-enricher" => {
            Some(e.clone())
        }
        _ => None,
    });
    told.expect("a case")
}

fn rank(case: &BusinessException) -> f64 {
    case.rank_factors
        .iter()
        .find(|f| f.name == "rank")
        .expect("a rank")
        .value
}

fn audits(driven: &Driven<ExceptionEnricher>) -> Vec<String> {
    let of = |e: &Event| match e {
        Event::Audit(a) => Some(format!("{} {} {}", a.actor, a.action, a.outcome)),
        _ => None,
    };
    driven.said.iter().filter_map(of).collect()
}

#[test]
fn whatever_the_order_and_repetition_the_case_ends_the_same_with_the_same_rank() {
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let last = random.random_range(1..6);
        let over = random.random_bool(0.3);
        let mut facts: Vec<(i64, Event)> = (1..=last)
            .map(|version| {
                let status = match (version == last && over, random.random_bool(0.2)) {
                    (true, _) => ExceptionStatus::Resolved,
                    (_, true) if version < last => ExceptionStatus::Resolved,
                    _ => ExceptionStatus::Open,
                };
                (0, raised(version, status, Severity::High))
            })
            .collect();
        let contexts = random.random_range(0..4);
        for version in 1..=contexts {
            facts.push((0, context(version, 100 * version, Some(10 * HOUR))));
        }
        let again = facts.clone();
        facts.extend(again.into_iter().filter(|_| random.random_bool(0.5)));
        for (when, _) in &mut facts {
            *when = random.random_range(0..2 * HOUR);
        }
        let mut enricher = driven();
        deliver(&mut enricher, facts);
        enricher.pass(at(3 * HOUR).since(enricher.now));
        let case = case(&enricher);
        let is_over = case.status == ExceptionStatus::Resolved;
        assert_eq!(is_over, over, "seed {seed}: {:?}", case.status);
        assert_eq!(case.occurrences, last, "seed {seed}");
        // The promise is in seven hours: four times as urgent; HIGH counts four.
        let expected = match (over, contexts) {
            (true, _) => 0.0,
            (false, 0) => 4.0,
            (false, n) => 100.0 * n as f64 * 4.0 * 4.0,
        };
        assert!(
            (rank(&case) - expected).abs() < 1e-9,
            "seed {seed}: {}",
            rank(&case)
        );
        let ids: BTreeSet<Uuid> = enricher
            .said
            .iter()
            .filter_map(|e| match e {
                Event::BusinessException(e) => Some(e.exception_id),
                _ => None,
            })
            .collect();
        assert_eq!(ids.len(), 1, "seed {seed}: one case for one cause");
        assert!(enricher.refused.is_empty(), "seed {seed}");
    }
}

#[test]
fn a_case_becomes_more_urgent_as_its_promise_comes_nearer() {
    let mut enricher = driven();
    enricher.one(raised(1, ExceptionStatus::Open, Severity::High));
    enricher.one(context(1, 50, Some(100 * HOUR)));
    let mut ranks = vec![rank(&case(&enricher))];
    for _ in 0..13 {
        enricher.pass(hours(8));
        let now = rank(&case(&enricher));
        if ranks.last() != Some(&now) {
            ranks.push(now);
        }
    }
    assert_eq!(ranks, [200.0, 400.0, 800.0, 1_600.0, 2_000.0]);
}

#[test]
fn operators_take_close_and_reopen_a_case_and_the_late_fact_closes_it_by_itself() {
    let mut enricher = driven();
    enricher.one(raised(1, ExceptionStatus::Open, Severity::High));
    let mut assign = note("ann", NoteAction::Assign, case(&enricher).exception_version);
    assign.assignee = Some("ann".into());
    enricher.one(assign.clone());
    let taken = case(&enricher);
    assert_eq!(taken.status, ExceptionStatus::Assigned);
    assert_eq!(taken.assignee.as_deref(), Some("ann"));
    assert_eq!(enricher.one(assign), Outcome::Duplicate);
    // It recurs: one case, still Ann's.
    enricher.one(raised(2, ExceptionStatus::Open, Severity::Critical));
    assert_eq!(case(&enricher).status, ExceptionStatus::Assigned);
    enricher.one(raised(3, ExceptionStatus::Resolved, Severity::Info));
    let healed = case(&enricher);
    assert_eq!(healed.status, ExceptionStatus::Resolved);
    assert_eq!(healed.severity, Severity::Critical, "what it was, it was");
    enricher.one(raised(4, ExceptionStatus::Open, Severity::High));
    assert_eq!(case(&enricher).status, ExceptionStatus::Regressed);
    let seen = case(&enricher).exception_version;
    enricher.one(note("bob", NoteAction::Resolve, seen));
    assert_eq!(case(&enricher).status, ExceptionStatus::Resolved);
    let seen = case(&enricher).exception_version;
    enricher.one(note("cy", NoteAction::Reopen, seen));
    assert_eq!(case(&enricher).status, ExceptionStatus::Regressed);
    assert_eq!(
        audits(&enricher),
        ["ann ASSIGN DONE", "bob RESOLVE DONE", "cy REOPEN DONE"]
    );
}

#[test]
fn what_heals_by_itself_is_over_when_it_does_not_recur() {
    let mut enricher = driven();
    enricher.one(raised(1, ExceptionStatus::AutoHealing, Severity::Low));
    assert_eq!(case(&enricher).status, ExceptionStatus::AutoHealing);
    enricher.pass(hours(71));
    enricher.one(raised(2, ExceptionStatus::AutoHealing, Severity::Low));
    enricher.pass(hours(71));
    assert_eq!(
        case(&enricher).status,
        ExceptionStatus::AutoHealing,
        "it recurred"
    );
    enricher.pass(hours(2));
    assert_eq!(case(&enricher).status, ExceptionStatus::Resolved);
}

#[test]
fn of_two_operators_on_one_case_the_second_is_told_to_look_again() {
    let mut enricher = driven();
    enricher.one(raised(1, ExceptionStatus::Open, Severity::High));
    let seen = case(&enricher).exception_version;
    enricher.one(note("ann", NoteAction::Resolve, seen));
    let version = case(&enricher).exception_version;
    enricher.one(note("bob", NoteAction::Accept, seen));
    assert_eq!(
        case(&enricher).exception_version,
        version,
        "nothing was done"
    );
    enricher.one(note("cy", NoteAction::Resolve, version));
    let said = audits(&enricher);
    assert_eq!(said[0], "ann RESOLVE DONE");
    assert!(
        said[1].starts_with("bob ACCEPT REFUSED: the case was changed"),
        "{}",
        said[1]
    );
    assert!(
        said[2].contains("REFUSED: Resolve is not possible: the case is Resolved"),
        "{}",
        said[2]
    );
}

#[test]
fn an_action_that_crossdock_can_take_is_taken_and_others_are_recorded() {
    let mut enricher = driven();
    enricher.one(raised(1, ExceptionStatus::Open, Severity::High));
    let mut act = note("ann", NoteAction::Act, 1);
    act.text = Some("replay".into());
    enricher.one(act);
    let mut other = note("bob", NoteAction::Act, case(&enricher).exception_version);
    other.text = Some("accept it by hand".into());
    enricher.one(other);
    let corrections: Vec<&Correction> = enricher
        .said
        .iter()
        .filter_map(|e| match e {
            Event::Correction(c) => Some(c),
            _ => None,
        })
        .collect();
    assert_eq!(corrections.len(), 1);
    assert_eq!(corrections[0].kind, CorrectionKind::ReplayOrder);
    assert_eq!(audits(&enricher), ["ann ACT DONE", "bob ACT DONE"]);
}

#[test]
fn a_note_without_a_case_is_refused_and_the_audit_says_so() {
    let mut enricher = driven();
    assert_eq!(
        enricher.one(note("ann", NoteAction::Resolve, 0)),
        Outcome::Applied
    );
    assert_eq!(
        audits(&enricher),
        ["ann RESOLVE REFUSED: there is no such case"]
    );
    let mut unknown = note("bob", NoteAction::Unknown, 0);
    unknown.text = None;
    enricher.one(unknown);
    assert_eq!(enricher.refused, [Code::UnknownSymbol]);
}

#[test]
fn every_fact_is_legal_in_every_state_and_no_step_stands_twice() {
    use CaseMove::*;
    for state in CaseState::ALL {
        for by in [Raised, Mending, Gone, Note] {
            let found = CASE.iter().filter(|(f, b, _)| f == state && *b == by);
            assert_eq!(found.count(), 1, "{state:?} {by:?}");
        }
    }
    for (index, (from, by, _)) in CASE.iter().enumerate() {
        let twice = CASE[..index].iter().any(|(f, b, _)| f == from && b == by);
        assert!(!twice, "{from:?} {by:?} stands twice");
    }
}

#[test]
fn an_order_tells_its_open_exceptions_whatever_comes_first() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let versions = random.random_range(1..5);
        let mut facts: Vec<(i64, Event)> = (1..=versions)
            .map(|version| {
                let state = OrderState {
                    meta: meta(
                        "crossdock/order-lifecycle",
                        "OrderState",
                        &version.to_string(),
                        version,
                    ),
                    order_id: ORDER.into(),
                    state_version: version,
                    status: OrderStatus::Placed,
                    currency: "EUR".into(),
                    grand_total: units(10 * version),
                    ..OrderState::default()
                };
                (0, state.into())
            })
            .collect();
        facts.push((0, raised(1, ExceptionStatus::Open, Severity::High)));
        let again = facts.clone();
        facts.extend(again);
        for (when, _) in &mut facts {
            *when = random.random_range(0..HOUR);
        }
        let mut contexts = Driven::at(Contexts::new(), ORDER, at(0));
        deliver(&mut contexts, facts);
        let told: Vec<Decimal> = contexts
            .said
            .iter()
            .filter_map(|e| match e {
                Event::ExceptionContext(c) => Some(c.order_value.amount),
                _ => None,
            })
            .collect();
        assert_eq!(told.last(), Some(&units(10 * versions)), "seed {seed}");
        // Once it is over, nobody needs to know.
        contexts.one(raised(2, ExceptionStatus::Resolved, Severity::Info));
        let before = contexts.said.len();
        let Event::OrderState(mut newer) = facts_state(versions + 1) else {
            unreachable!()
        };
        newer.grand_total = units(1);
        contexts.one(newer);
        assert_eq!(contexts.said.len(), before, "seed {seed}");
    }
}

fn facts_state(version: i64) -> Event {
    OrderState {
        meta: meta(
            "crossdock/order-lifecycle",
            "OrderState",
            &version.to_string(),
            version,
        ),
        order_id: ORDER.into(),
        state_version: version,
        status: OrderStatus::Placed,
        currency: "EUR".into(),
        ..OrderState::default()
    }
    .into()
}

fn drift(delta: Option<i64>) -> BusinessException {
    let Event::BusinessException(raised) = raised(1, ExceptionStatus::Open, Severity::Medium)
    else {
        panic!("an exception");
    };
    BusinessException {
        code: "STOCK_DRIFT".into(),
        order_id: None,
        sku: Some("S1".into()),
        delta: delta.map(units),
        ..raised
    }
}

fn price(list: &str, amount: i64, change: impl Fn(&mut PriceChanged)) -> (String, Event) {
    let mut event = PriceChanged {
        sku: "S1".into(),
        price_list_id: list.into(),
        price: Money {
            amount: units(amount),
            currency: "EUR".into(),
        },
        ..PriceChanged::default()
    };
    change(&mut event);
    (format!("S1|{list}"), event.into())
}

/// What a case is about that no order gives a value: as many units as are off, at the highest price
/// that anybody pays for a piece, in whatever order the prices were heard of.
#[test]
fn units_without_an_order_are_at_risk_at_their_price() {
    let now = at(0);
    let plain = |_: &mut PriceChanged| {};
    let prices = [
        price("erp", 4, plain),
        price("shop", 6, plain),
        price("old", 50, |e| e.effective_to = Some(now)),
        price("bulk", 40, |e| e.min_qty = Some(units(10))),
        price("sale", 30, |e| e.promotion_id = Some("x".into())),
    ];
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut prices = prices.to_vec();
        prices.shuffle(&mut random);
        for (delta, at_risk) in [(Some(-7), 42), (Some(7), 42), (None, 6)] {
            let mut driven = driven();
            for (key, price) in &prices {
                driven.table(key, Some(price));
            }
            driven.one(drift(delta));
            let case = case(&driven);
            let value = case.revenue_at_risk.as_ref().map(|m| m.amount);
            assert_eq!(value, Some(units(at_risk)), "seed {seed}");
            assert_eq!(rank(&case), at_risk as f64 * 2.0, "seed {seed}");
        }
    }
    let mut driven = driven();
    for (key, price) in &prices {
        driven.table(key, Some(price));
    }
    for (key, _) in &prices {
        driven.table(key, None);
    }
    driven.one(drift(Some(7)));
    assert_eq!(case(&driven).revenue_at_risk, None, "no price is known");
}
