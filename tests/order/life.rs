//! Single situations, told in retail words.

use crate::*;

#[test]
fn an_order_goes_its_way() {
    let mut order = Driven::new();
    order.send(vec![placed(&[("1", 2)])]);
    assert_eq!(order.last().status, OrderStatus::Placed);
    assert_eq!(order.last().lines[0].open, q(2));
    order.send(vec![held(1, "1", 2, 1)]);
    assert_eq!(order.last().lines[0].reserved, q(2));
    order.send(vec![accepted(1)]);
    assert_eq!(order.last().status, OrderStatus::Accepted);
    assert_eq!(order.last().erp_order_ids, ["SO-7"]);
    order.send(vec![shipment(
        "S",
        1,
        ShipmentStatus::Released,
        "1",
        [2, 0, 0, 0],
    )]);
    assert_eq!(order.last().status, OrderStatus::InFulfilment);
    order.send(vec![shipment(
        "S",
        2,
        ShipmentStatus::Picked,
        "1",
        [2, 2, 0, 0],
    )]);
    assert_eq!(order.last().lines[0].picked, q(2));
    order.send(vec![shipment(
        "S",
        3,
        ShipmentStatus::Shipped,
        "1",
        [2, 2, 2, 0],
    )]);
    assert_eq!(order.last().status, OrderStatus::Shipped);
    order.send(vec![shipment(
        "S",
        4,
        ShipmentStatus::Delivered,
        "1",
        [2, 2, 2, 0],
    )]);
    assert_eq!(
        order.last().status,
        OrderStatus::Completed,
        "the status speaks for the counter"
    );
    order.send(vec![says("erp", OrderEventType::Closed, 9).into()]);
    order.send(vec![
        returned(1, "1", 2, 2),
        refund(RefundStatus::Completed, 3, "1", 2),
    ]);
    let state = order.last();
    assert_eq!((state.status, state.closed), (OrderStatus::Returned, true));
    assert_eq!((state.refunded, state.lines[0].refunded_qty), (q(20), q(2)));
    order.check();
    assert!(order.cases.is_empty());
}

#[test]
fn a_pick_up_is_ready_collected_and_over() {
    let mut order = Driven::new();
    let pickup = OrderEvent {
        order: Some(snapshot(
            &[("1", 2), ("2", 1)],
            DeliveryMethod::PickupInStore,
        )),
        ..says("shop", OrderEventType::Placed, 1)
    };
    order.send(vec![pickup.into(), held(1, "1", 2, 1), held(2, "2", 1, 1)]);
    order.send(vec![
        shipment("S", 3, ShipmentStatus::ReadyForPickup, "1", [2, 2, 0, 0]),
        shipment("T", 2, ShipmentStatus::Picked, "2", [1, 1, 0, 0]),
    ]);
    assert_eq!(
        order.last().status,
        OrderStatus::InFulfilment,
        "line 2 is not ready yet"
    );
    order.send(vec![shipment(
        "T",
        3,
        ShipmentStatus::ReadyForPickup,
        "2",
        [1, 1, 0, 0],
    )]);
    assert_eq!(order.last().status, OrderStatus::ReadyForPickup);
    order.send(vec![shipment(
        "S",
        4,
        ShipmentStatus::Collected,
        "1",
        [2, 2, 0, 0],
    )]);
    assert_eq!(
        order.last().lines[0].delivered,
        q(2),
        "collected is shipped and delivered"
    );
    assert_eq!(
        order.last().status,
        OrderStatus::ReadyForPickup,
        "line 2 waits still"
    );
    order.send(vec![shipment(
        "T",
        4,
        ShipmentStatus::Cancelled,
        "2",
        [1, 1, 0, 0],
    )]);
    let line = &order.last().lines[1];
    assert_eq!(
        (line.picked, line.delivered),
        (q(0), q(0)),
        "the customer did not come"
    );
    order.check();
    order.pass(Duration::from_secs(3_600));
    assert!(order.cases.is_empty(), "{:?}", order.cases);
}

#[test]
fn what_is_carried_out_is_delivered_when_it_is_paid() {
    let mut order = Driven::new();
    let sale = OrderEvent {
        order: Some(snapshot(&[("1", 3)], DeliveryMethod::CarryOut)),
        ..says("till-4", OrderEventType::Placed, 1)
    };
    order.send(vec![sale.into(), paid(PaymentKind::Captured, 30, 1)]);
    assert_eq!(order.last().status, OrderStatus::Completed);
    assert_eq!(order.last().captured, q(30));
}

#[test]
fn a_lower_counter_with_a_higher_version_is_a_correction() {
    let mut order = Driven::new();
    order.send(vec![
        placed(&[("1", 5)]),
        shipment("S", 1, ShipmentStatus::Shipped, "1", [5, 5, 5, 0]),
    ]);
    order.send(vec![shipment(
        "S",
        2,
        ShipmentStatus::Shipped,
        "1",
        [5, 5, 3, 0],
    )]);
    let line = &order.last().lines[0];
    assert_eq!((line.shipped, line.picked), (q(3), q(2)));
    order.send(vec![shipment(
        "S",
        1,
        ShipmentStatus::Shipped,
        "1",
        [5, 5, 5, 0],
    )]);
    assert_eq!(order.outcomes.last(), Some(&Outcome::Superseded));
    order.pass(Duration::from_secs(3_600));
    assert!(order.cases.is_empty());
    order.check();
}

#[test]
fn what_a_node_does_not_find_is_open_again_while_its_claim_stands() {
    let mut order = Driven::new();
    order.send(vec![placed(&[("1", 3)]), held(1, "1", 3, 1)]);
    let Event::ShipmentEvent(mut short) =
        shipment("S", 2, ShipmentStatus::ShortPicked, "1", [3, 2, 0, 0])
    else {
        panic!("a shipment")
    };
    short.lines[0].short = q(1);
    short.lines[0].reservation_id = Some(uuid::Uuid::from_u128(1));
    order.send(vec![short.into()]);
    let line = &order.last().lines[0];
    assert_eq!((line.picked, line.open, line.reserved), (q(2), q(1), q(0)));
    order.pass(Duration::from_secs(10 * 60));
    assert!(order.open().is_empty(), "another node may have it");
    order.pass(Duration::from_secs(6 * 60));
    assert_eq!(order.open(), ["SHORT_PICK"]);
    order.send(vec![held(2, "1", 1, 1)]);
    assert_eq!(order.open(), [""; 0], "another node has it");
}

#[test]
fn the_erp_has_the_last_word_after_it_accepted() {
    let mut order = Driven::new();
    order.send(vec![placed(&[("1", 2)]), accepted(1)]);
    let amended = |source: &str, version, units, erp: Option<&str>| OrderEvent {
        order: Some(snapshot(&[("1", units)], DeliveryMethod::ShipToHome)),
        erp_order_id: erp.map(Text::from),
        ..says(source, OrderEventType::Amended, version)
    };
    order.send(vec![amended("erp", 3, 4, Some("SO-7")).into()]);
    assert_eq!(order.last().lines[0].ordered, q(4));
    order.send(vec![amended("shop", 2, 9, None).into()]);
    assert_eq!(order.last().lines[0].ordered, q(4));
    order.check();
}

#[test]
fn an_order_on_hold_or_refused_says_so() {
    let mut order = Driven::new();
    order.send(vec![placed(&[("1", 2)])]);
    order.send(vec![says("fraud", OrderEventType::Held, 1).into()]);
    assert_eq!(order.last().status, OrderStatus::OnHold);
    order.send(vec![says("fraud", OrderEventType::HoldReleased, 2).into()]);
    assert_eq!(order.last().status, OrderStatus::Placed);
    order.send(vec![says("fraud", OrderEventType::Held, 1).into()]);
    assert_eq!(
        order.last().status,
        OrderStatus::Placed,
        "an old hold is over"
    );
    order.send(vec![says("erp", OrderEventType::Rejected, 1).into()]);
    assert_eq!(order.last().status, OrderStatus::Rejected);
    order.send(vec![shipment(
        "S",
        1,
        ShipmentStatus::Shipped,
        "1",
        [2, 2, 2, 0],
    )]);
    assert_eq!(order.last().status, OrderStatus::Shipped, "goods decide");
}

#[test]
fn money_is_summed_step_by_step_and_foreign_currency_is_named() {
    let mut order = Driven::new();
    let Event::PaymentEvent(mut foreign) = paid(PaymentKind::Captured, 7, 9) else {
        panic!("a payment")
    };
    foreign.amount.currency = "USD".into();
    order.send(vec![
        paid(PaymentKind::Captured, 5, 3),
        paid(PaymentKind::Authorised, 20, 1),
        paid(PaymentKind::Captured, 12, 2),
        paid(PaymentKind::Captured, 12, 2),
        foreign.into(),
        placed(&[("1", 2)]),
        refund(RefundStatus::OutcomeUnknown, 2, "1", 1),
    ]);
    let state = order.last();
    assert_eq!(
        (state.authorised, state.captured, state.refund_in_flight),
        (q(20), q(17), q(10))
    );
    order.pass(Duration::from_secs(16 * 60));
    assert_eq!(order.open(), ["CURRENCY_MISMATCH"]);
}

#[test]
fn a_payment_without_its_order_waits_then_is_parked_and_goes_on_when_it_comes() {
    let mut order = Driven::new();
    order.send(vec![paid(PaymentKind::Captured, 20, 1)]);
    assert_eq!(order.outcomes, [Outcome::Buffered]);
    order.pass(Duration::from_secs(14 * 60));
    assert!(order.cases.is_empty() && order.states.is_empty());
    order.pass(Duration::from_secs(2 * 60));
    assert_eq!(order.open(), ["ORPHAN"]);
    let told: Vec<_> = order.resolutions.iter().map(|r| r.outcome).collect();
    assert_eq!(told, [Outcome::Parked]);
    order.send(vec![accepted(1)]);
    assert_eq!(order.outcomes.last(), Some(&Outcome::Parked));
    order.send(vec![placed(&[("1", 2)])]);
    assert_eq!(order.open(), [""; 0]);
    assert_eq!(
        (order.last().status, order.last().captured),
        (OrderStatus::Accepted, q(20))
    );
    let told: Vec<_> = order
        .resolutions
        .iter()
        .skip(1)
        .map(|r| r.outcome)
        .collect();
    assert_eq!(told, [Outcome::Applied, Outcome::Applied]);
}

#[test]
fn what_contradicts_is_named_once_and_resolved_when_it_is_over() {
    let mut order = Driven::new();
    order.send(vec![placed(&[("1", 2)])]);
    order.send(vec![returned(1, "1", 2, 2)]);
    order.pass(Duration::from_secs(10 * 60));
    assert!(order.cases.is_empty(), "a shipment may come late");
    order.pass(Duration::from_secs(10 * 60));
    assert_eq!(order.open(), ["RETURN_EXCEEDS_SHIPPED"]);
    assert_eq!(order.last().open_exceptions.len(), 1);
    order.send(vec![
        shipment("S", 3, ShipmentStatus::Shipped, "1", [2, 2, 2, 0]),
        shipment("S", 4, ShipmentStatus::Cancelled, "1", [2, 2, 2, 0]),
        shipment("T", 1, ShipmentStatus::Released, "none", [1, 0, 0, 0]),
    ]);
    assert_eq!(order.open(), [""; 0]);
    order.pass(Duration::from_secs(16 * 60));
    assert_eq!(order.open(), ["ILLEGAL_TRANSITION", "UNKNOWN_LINE"]);
    assert_eq!(order.last().lines[0].shipped, q(2), "what left has left");
    order.check();
}

#[test]
fn an_order_is_forgotten_400_days_after_it_was_final_and_not_before() {
    let day = Duration::from_secs(86_400);
    let mut order = Driven::new();
    order.send(vec![placed(&[("1", 1)])]);
    order.pass(500 * day);
    assert!(!order.is_forgotten(), "an open order is what state is for");
    order.send(vec![shipment(
        "S",
        1,
        ShipmentStatus::Delivered,
        "1",
        [1, 1, 1, 1],
    )]);
    order.pass(300 * day);
    order.send(vec![returned(1, "1", 1, 1)]);
    order.pass(399 * day);
    assert!(!order.is_forgotten());
    order.pass(2 * day);
    assert!(order.is_forgotten());
}

#[test]
fn what_cannot_be_is_rejected_with_its_code_and_touches_nothing() {
    let mut order = Driven::new();
    let with = |change: &dyn Fn(&mut OrderEvent)| {
        let Event::OrderEvent(mut e) = placed(&[("1", 2), ("2", 1)]) else {
            panic!("an order")
        };
        change(&mut e);
        Event::from(e)
    };
    fn lines(e: &mut OrderEvent) -> &mut OrderSnapshot {
        e.order.as_mut().expect("an order")
    }
    let poison = vec![
        (with(&|e| lines(e).grand_total = q(7)), Code::DataQuality),
        (
            with(&|e| lines(e).lines[0].line_total = q(99)),
            Code::DataQuality,
        ),
        (
            with(&|e| lines(e).lines[1].line_id = "1".into()),
            Code::DataQuality,
        ),
        (with(&|e| lines(e).lines[0].qty = q(0)), Code::DataQuality),
        (with(&|e| lines(e).lines.clear()), Code::DataQuality),
        (
            with(&|e| lines(e).currency = "EURO".into()),
            Code::UnknownReference,
        ),
        (with(&|e| e.order = None), Code::DataQuality),
        (
            with(&|e| e.r#type = OrderEventType::Unknown),
            Code::UnknownSymbol,
        ),
        (with(&|e| e.order_id = "another".into()), Code::WrongKey),
        (with(&|e| e.meta.occurred_at = at(9_999)), Code::DataQuality),
        (
            shipment("S", 1, ShipmentStatus::Unknown, "1", [1, 0, 0, 0]),
            Code::UnknownSymbol,
        ),
        (
            shipment("S", 1, ShipmentStatus::Picked, "1", [1, -1, 0, 0]),
            Code::DataQuality,
        ),
        (paid(PaymentKind::Unknown, 1, 1), Code::UnknownSymbol),
        (paid(PaymentKind::Captured, -1, 1), Code::DataQuality),
        (StockLevel::default().into(), Code::WrongContract),
    ];
    let codes: Vec<Code> = poison.iter().map(|(_, code)| *code).collect();
    order.send(poison.into_iter().map(|(event, _)| event).collect());
    assert_eq!(order.codes, codes);
    assert!(order.states.is_empty());
    order.send(vec![placed(&[("1", 2)])]);
    assert_eq!(order.last().status, OrderStatus::Placed);
}

#[test]
fn an_order_that_grows_without_end_is_stopped() {
    let mut order = Driven::new();
    order.send(vec![placed(&[("1", 2)])]);
    for wave in 0..22 {
        let steps = (0..500).map(|n| paid(PaymentKind::Authorised, 0, 500 * wave + n));
        order.send(steps.collect());
    }
    assert!(order.codes.len() > 500, "{}", order.codes.len());
    assert!(order.codes.iter().all(|code| *code == Code::DataQuality));
    assert!(order.state_bytes() < 900_000, "{}", order.state_bytes());
    let mut orphan = Driven::new();
    orphan.send(
        (0..150)
            .map(|n| paid(PaymentKind::Authorised, 1, n))
            .collect(),
    );
    assert_eq!(orphan.codes.len(), 50);
    assert!(
        orphan
            .codes
            .iter()
            .all(|code| *code == Code::UnknownReference)
    );
}
