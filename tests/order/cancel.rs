//! Cancellations: decided once, in turn, and never against goods that have left.

use crate::*;

fn asked(n: i64, lines: &[(&str, i32)]) -> Event {
    OrderEvent {
        affected: lines
            .iter()
            .map(|(line, units)| LineQty {
                line_id: (*line).into(),
                qty: q(*units),
            })
            .collect(),
        ..says("shop", OrderEventType::CancelRequested, n)
    }
    .into()
}

fn granted(decision: &OrderEvent) -> Vec<(&str, Decimal)> {
    decision
        .affected
        .iter()
        .map(|a| (&*a.line_id, a.qty))
        .collect()
}

#[test]
fn a_part_is_cancelled_and_the_rest_goes_on() {
    let mut order = Driven::new();
    order.send(vec![placed(&[("1", 5)]), held(1, "1", 5, 1)]);
    order.send(vec![asked(2, &[("1", 2)])]);
    assert_eq!(granted(&order.decisions[0]), [("1", q(2))]);
    let line = &order.last().lines[0];
    assert_eq!((line.cancelled, line.reserved), (q(2), q(3)));
    order.send(vec![asked(3, &[])]);
    assert_eq!(
        granted(&order.decisions[1]),
        [("1", q(3))],
        "everything means what is left"
    );
    assert_eq!(order.last().status, OrderStatus::Cancelled);
    order.check();
}

#[test]
fn requests_are_decided_in_turn_each_against_what_the_others_left() {
    let mut order = Driven::new();
    order.send(vec![
        placed(&[("1", 5)]),
        asked(2, &[("1", 4)]),
        asked(3, &[("1", 4)]),
        asked(4, &[("1", 4)]),
    ]);
    let all: Decimal = order
        .decisions
        .iter()
        .flat_map(|d| &d.affected)
        .map(|a| a.qty)
        .sum();
    assert_eq!(all, q(5));
    let versions: Vec<_> = order.decisions.iter().map(|d| d.entity_version).collect();
    assert_eq!(versions, [1, 2, 3]);
    order.check();
}

#[test]
fn what_is_picked_or_gone_is_not_cancelled() {
    let mut order = Driven::new();
    order.send(vec![
        placed(&[("1", 4)]),
        shipment("S", 1, ShipmentStatus::Picked, "1", [3, 2, 1, 0]),
        asked(2, &[("1", 4)]),
    ]);
    assert_eq!(
        granted(&order.decisions[0]),
        [("1", q(2))],
        "one open, one released"
    );
    order.send(vec![asked(3, &[("1", 1)])]);
    assert!(order.decisions[1].affected.is_empty());
    assert!(
        order.decisions[1]
            .reason
            .as_deref()
            .is_some_and(|r| r.contains("too late"))
    );
    order.check();
}

#[test]
fn a_request_asked_twice_or_before_its_order_is_decided_once() {
    let mut order = Driven::new();
    order.send(vec![asked(2, &[("1", 1)])]);
    assert_eq!(order.outcomes, [Outcome::Buffered]);
    order.send(vec![placed(&[("1", 2)])]);
    order.send(vec![asked(2, &[("1", 1)])]);
    assert_eq!(order.outcomes.last(), Some(&Outcome::Duplicate));
    assert_eq!(order.decisions.len(), 1);
    assert_eq!(order.last().lines[0].cancelled, q(1));
    assert_eq!(
        order.decisions[0].request_id,
        order.decisions[0].meta.causation_id
    );
}

#[test]
fn a_recorded_decision_stands_whatever_is_known_when_it_is_read_again() {
    let mut live = Driven::new();
    live.send(vec![placed(&[("1", 2)]), asked(2, &[("1", 2)])]);
    let recorded = Event::from(live.decisions[0].clone());
    // Read from the beginning, the shipment that came later in truth comes first.
    let mut again = Driven::new();
    again.send(vec![
        placed(&[("1", 2)]),
        shipment("S", 1, ShipmentStatus::Shipped, "1", [2, 2, 2, 0]),
    ]);
    again.send(vec![recorded.clone(), asked(2, &[("1", 2)])]);
    assert!(again.decisions.is_empty(), "it is not decided anew");
    live.send(vec![shipment(
        "S",
        1,
        ShipmentStatus::Shipped,
        "1",
        [2, 2, 2, 0],
    )]);
    assert_eq!(live.last().lines, again.last().lines);
    assert_eq!(live.last().status, again.last().status);
}

#[test]
fn goods_that_leave_after_a_cancellation_have_left() {
    let mut order = Driven::new();
    order.send(vec![placed(&[("1", 3)]), asked(2, &[])]);
    assert_eq!(order.last().status, OrderStatus::Cancelled);
    order.send(vec![shipment(
        "S",
        1,
        ShipmentStatus::Shipped,
        "1",
        [3, 3, 2, 0],
    )]);
    let state = order.last();
    assert_eq!(state.status, OrderStatus::Conflict);
    assert_eq!(
        (state.lines[0].shipped, state.lines[0].cancelled),
        (q(2), q(1))
    );
    assert_eq!(
        order.open(),
        ["SHIPPED_AFTER_CANCEL"],
        "at once: a parcel can be intercepted now"
    );
    assert_eq!(order.cases[0].severity, Severity::Critical);
    assert_eq!(order.cases[0].delta, Some(q(2)));
    order.send(vec![returned(1, "1", 2, 2)]);
    assert_eq!(order.open(), [""; 0], "the goods are back");
    order.check();
}
