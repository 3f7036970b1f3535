//! What every sink of orders promises, tried on each connector that has one and a stand-in.
//!
//! The stand-ins of systems that keep orders understand the same acts: `sales` shows what stands under a
//! channel's number, `press` is a button on an order's sale, and with `faults_on` only calls that change
//! something show faults.

use super::{build, fake};
use crossdock::connectors;
use crossdock::contract::event::{
    DeliveryGroup, DeliveryMethod, Event, EventMeta, LineQty, OrderCharge, OrderEvent,
    OrderEventType, OrderLine, OrderSnapshot, SinkOutcome,
};
use crossdock::contract::topic;
use crossdock::domain::{Decimal, order_id};
use crossdock::pipeline::{
    Ack, Code, ConnectorDescriptor, Delivery, Fake, FakeFault, Fault, Headers, Inbound, Origin,
    Record, Sink, Verdict,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn d(text: &str) -> Decimal {
    text.parse().expect("a number")
}

/// An order of `web`: lines of SKU, quantity, price of one, tax and total.
pub fn placed(number: &str, lines: &[(&str, &str, &str, &str, &str)]) -> OrderEvent {
    let line =
        |(n, (sku, qty, price, tax, total)): (usize, &(&str, &str, &str, &str, &str))| OrderLine {
            line_id: format!("{}", n + 1).into(),
            sku: (*sku).into(),
            qty: d(qty),
            uom: "EA".into(),
            unit_price: d(price),
            tax: d(tax),
            line_total: d(total),
            delivery_group_id: "home".into(),
            ..OrderLine::default()
        };
    let lines: Vec<OrderLine> = lines.iter().enumerate().map(line).collect();
    let sum = |of: fn(&OrderLine) -> Decimal| lines.iter().map(of).sum::<Decimal>();
    let order = OrderSnapshot {
        channel_id: "web".into(),
        channel_order_id: number.into(),
        channel_order_version: 1,
        customer_id: Some("C-7".into()),
        currency: "EUR".into(),
        grand_total: sum(|l| l.line_total),
        tax_total: sum(|l| l.tax),
        delivery_groups: vec![DeliveryGroup {
            group_id: "home".into(),
            method: DeliveryMethod::ShipToHome,
            ..DeliveryGroup::default()
        }],
        lines,
        ..OrderSnapshot::default()
    };
    event(number, OrderEventType::Placed, Some(order))
}

pub fn event(number: &str, kind: OrderEventType, order: Option<OrderSnapshot>) -> OrderEvent {
    OrderEvent {
        meta: EventMeta {
            event_type: "OrderEvent".into(),
            source: "web-shop".into(),
            ..EventMeta::default()
        },
        order_id: id_of(number).into(),
        r#type: kind,
        entity_version: 1,
        order,
        ..OrderEvent::default()
    }
}

pub fn id_of(number: &str) -> String {
    order_id("default", "web", number).to_string()
}

pub fn delivery(topic: &'static str, key: &str, event: impl Into<Event>) -> Delivery {
    let record = Record {
        origin: Origin {
            topic: topic.into(),
            partition: 0,
            offset: 0,
        },
        timestamp_ms: 0,
        key: Some(key.as_bytes().to_vec().into()),
        value: None,
        headers: Headers::default(),
    };
    Delivery {
        key: key.into(),
        inbound: Inbound {
            record,
            event: event.into(),
        },
        sent: None,
        attempt: 1,
        in_doubt: false,
    }
}

async fn write(sink: &dyn Sink, event: &OrderEvent) -> Result<Ack, Fault> {
    let delivery = delivery(topic::ORDER_LIFECYCLE, &event.order_id, event.clone());
    sink.write(&[delivery]).await.remove(0)
}

fn sales(fake: &dyn Fake, number: &str) -> Vec<Value> {
    let found = fake.act(&json!({"sales": number})).expect("sales");
    found.as_array().expect("a list").clone()
}

/// The one sale of an order: state and total.
fn sale(fake: &dyn Fake, number: &str) -> (String, String) {
    let found = sales(fake, number);
    assert_eq!(found.len(), 1, "{number}: {found:?}");
    let sale = &found[0]["sale"];
    (
        sale["state"].as_str().expect("a state").to_owned(),
        sale["total_amount"]["decimal"]
            .as_str()
            .expect("a total")
            .to_owned(),
    )
}

const ONE: &[(&str, &str, &str, &str, &str)] = &[("A", "2", "10", "4", "24")];

/// Whether it takes orders and tells what becomes of them.
pub fn keeps_orders(descriptor: &ConnectorDescriptor) -> bool {
    let topics = [descriptor.accepts, descriptor.emits];
    let has_fake = descriptor.fake.is_some();
    has_fake && topics.iter().all(|t| t.contains(&topic::ORDER_LIFECYCLE))
}

async fn each_sink<F: AsyncFn(&'static ConnectorDescriptor, Arc<dyn Sink>, &dyn Fake)>(test: F) {
    let mut tested = 0;
    let all = connectors::ALL.iter().copied();
    for descriptor in all.filter(|d| keeps_orders(d)) {
        let fake = fake(descriptor).await.expect("a stand-in");
        let sink = build(descriptor, fake.settings()).sink().expect("a sink");
        test(descriptor, sink, fake.as_ref()).await;
        tested += 1;
    }
    assert!(tested >= 2, "{tested} sinks were tested");
}

#[tokio::test]
async fn an_order_becomes_one_sale_however_often_it_is_delivered() {
    each_sink(async |kind, sink, fake| {
        let order = placed("W-1", ONE);
        let first = write(sink.as_ref(), &order).await.expect("taken");
        assert_eq!(first.outcome, SinkOutcome::Acked, "{}", kind.kind);
        for _ in 0..2 {
            let again = write(sink.as_ref(), &order).await.expect("taken");
            assert_eq!(again.outcome, SinkOutcome::DuplicateAcked, "{}", kind.kind);
            assert_eq!(again.external_id, first.external_id, "{}", kind.kind);
        }
        // As another instance after a crash.
        let other = build(kind, fake.settings()).sink().expect("a sink");
        write(other.as_ref(), &order).await.expect("taken");
        assert_eq!(sale(fake, "W-1"), ("processing".into(), "24".into()));
    })
    .await;
}

#[tokio::test]
async fn two_instances_at_once_make_one_sale_and_one_customer() {
    each_sink(async |kind, sink, fake| {
        let other = build(kind, fake.settings()).sink().expect("a sink");
        for round in 0..5 {
            let number = format!("W-{round}");
            let order = placed(&number, ONE);
            let (a, b) = tokio::join!(write(sink.as_ref(), &order), write(other.as_ref(), &order));
            for taken in [a, b] {
                // Who comes too late for a step is told so, and tries again.
                let fault = match taken {
                    Ok(_) => continue,
                    Err(fault) => fault,
                };
                assert!(
                    matches!(fault.verdict, Verdict::Retry { .. }),
                    "{}: {fault}",
                    kind.kind
                );
            }
            write(sink.as_ref(), &order).await.expect("taken");
            assert_eq!(sale(fake, &number), ("processing".into(), "24".into()));
        }
    })
    .await;
}

#[tokio::test]
async fn every_fault_at_every_call_leaves_one_sale() {
    each_sink(async |kind, sink, fake| {
        fake.act(&json!({"faults_on": "changes"})).expect("set");
        let wait = Duration::from_secs(3);
        let faults = [
            (FakeFault::Status(500, None), Verdict::Retry { after: None }),
            (
                FakeFault::Status(503, Some(wait)),
                Verdict::Retry { after: Some(wait) },
            ),
            (
                FakeFault::Status(429, Some(wait)),
                Verdict::Retry { after: Some(wait) },
            ),
            (FakeFault::Cut, Verdict::Retry { after: None }),
            (FakeFault::AppliedThenCut, Verdict::Retry { after: None }),
            (FakeFault::Garbage, Verdict::Retry { after: None }),
        ];
        let mut number = 0;
        let mut first = placed("W-0", ONE);
        if let Some(order) = &mut first.order {
            order.customer_id = Some("C-0".into());
        }
        write(sink.as_ref(), &first).await.expect("taken");
        let calls = fake.calls().len();
        assert!(calls >= 3, "{}: {calls} calls", kind.kind);
        for (fault, verdict) in faults {
            // A new customer each time: the calls are customer, sale, and the steps of the sale.
            for call in 0..calls {
                number += 1;
                let name = format!("W-{number}");
                let mut order = placed(&name, ONE);
                if let Some(order) = &mut order.order {
                    order.customer_id = Some(format!("C-{number}").into());
                }
                let before = vec![FakeFault::Slow(Duration::ZERO); call];
                fake.inject(before.into_iter().chain([fault.clone()]).collect());
                match write(sink.as_ref(), &order).await {
                    Err(failed) => assert_eq!(
                        failed.verdict, verdict,
                        "{} call {call}: {failed}",
                        kind.kind
                    ),
                    // It was looked for at once, and there it was.
                    Ok(_) => assert!(
                        matches!(fault, FakeFault::AppliedThenCut | FakeFault::Garbage),
                        "{} call {call}: {fault:?} was not seen",
                        kind.kind
                    ),
                }
                let taken = write(sink.as_ref(), &order).await;
                assert!(
                    taken.is_ok(),
                    "{} call {call} after {fault:?}: {taken:?}",
                    kind.kind
                );
                assert_eq!(sale(fake, &name), ("processing".into(), "24".into()));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_erp_does_not_know_is_named_with_order_and_line_and_stops_nobody() {
    each_sink(async |kind, sink, fake| {
        let change = |what: fn(&mut OrderSnapshot)| {
            let mut event = placed("W-9", &[ONE[0], ("B", "1", "5", "1", "6")]);
            what(event.order.as_mut().expect("an order"));
            event
        };
        let cases: [(OrderEvent, Code, &[&str]); 8] = [
            (
                change(|o| o.lines[1].sku = "NO-SUCH".into()),
                Code::UnknownReference,
                &["W-9", "line 2", "NO-SUCH"],
            ),
            (
                change(|o| o.currency = "XAU".into()),
                Code::UnknownReference,
                &["W-9", "XAU"],
            ),
            (
                change(|o| o.currency = "USD".into()),
                Code::UnknownReference,
                &["W-9", "USD"],
            ),
            (
                change(|o| o.lines[0].tax_code = Some("LUXURY".into())),
                Code::UnknownReference,
                &["W-9", "line 1", "LUXURY"],
            ),
            (
                change(|o| {
                    o.charges = vec![OrderCharge {
                        charge_id: "c1".into(),
                        r#type: "GIFT_WRAP".into(),
                        net: Decimal::ONE,
                        tax: Decimal::ZERO,
                    }];
                    o.grand_total += Decimal::ONE;
                }),
                Code::UnknownReference,
                &["W-9", "charge c1", "GIFT_WRAP"],
            ),
            (
                change(|o| {
                    o.delivery_groups[0].method = DeliveryMethod::PickupInStore;
                    o.delivery_groups[0].pickup_location_id = Some("MOON".into());
                }),
                Code::UnknownReference,
                &["W-9", "line 1, 2", "MOON"],
            ),
            (
                change(|o| o.grand_total += Decimal::from(5)),
                Code::DataQuality,
                &["W-9", "35"],
            ),
            (
                change(|o| o.lines[1].line_total += Decimal::ONE),
                Code::DataQuality,
                &["W-9", "line 2"],
            ),
        ];
        for (n, (bad, code, words)) in cases.into_iter().enumerate() {
            let fault = write(sink.as_ref(), &bad).await.expect_err("refused");
            assert_eq!(
                (fault.verdict, fault.code),
                (Verdict::Reject, code),
                "{}: {fault}",
                kind.kind
            );
            for word in words {
                assert!(
                    fault.message.contains(word),
                    "{}: {word} in {fault}",
                    kind.kind
                );
            }
            assert_eq!(sales(fake, "W-9"), Vec::<Value>::new(), "{}", kind.kind);
            let good = placed(&format!("G-{n}"), ONE);
            write(sink.as_ref(), &good)
                .await
                .expect("its neighbour is taken");
        }
    })
    .await;
}

#[tokio::test]
async fn prices_with_and_without_tax_make_the_same_sale() {
    each_sink(async |kind, sink, fake| {
        let mut with = placed(
            "IN",
            &[
                ("A", "3", "9.99", "5", "29.97"),
                ("B", "1", "4.99", "0.83", "4.99"),
            ],
        );
        let mut without = placed(
            "EX",
            &[
                ("A", "3", "8.3233", "5", "29.97"),
                ("B", "1", "4.16", "0.83", "4.99"),
            ],
        );
        for (event, inclusive) in [(&mut with, true), (&mut without, false)] {
            let order = event.order.as_mut().expect("an order");
            order.prices_include_tax = inclusive;
            order.charges = vec![OrderCharge {
                charge_id: "c1".into(),
                r#type: "SHIPPING".into(),
                net: d("4.1"),
                tax: d("0.82"),
            }];
            order.grand_total += d("4.92");
            write(sink.as_ref(), event).await.expect("taken");
        }
        let [a, b] = ["IN", "EX"].map(|number| sales(fake, number).remove(0));
        for field in ["untaxed_amount", "tax_amount", "total_amount"] {
            assert_eq!(a["sale"][field], b["sale"][field], "{}: {field}", kind.kind);
        }
        assert_eq!(sale(fake, "IN").1, "39.88", "{}", kind.kind);
        assert_eq!(
            a["lines"].as_array().map(Vec::len),
            Some(3),
            "{}",
            kind.kind
        );
    })
    .await;
}

#[tokio::test]
async fn a_total_that_the_erp_reckons_otherwise_stays_a_draft_and_is_named() {
    each_sink(async |kind, sink, fake| {
        // A tax of 5 % where the ERP has 20 %.
        let order = placed("W-2", &[("A", "2", "10", "1", "21")]);
        let fault = write(sink.as_ref(), &order).await.expect_err("refused");
        assert_eq!(
            (fault.verdict, fault.code),
            (Verdict::Reject, Code::DataQuality),
            "{}",
            kind.kind
        );
        for word in ["W-2", "21", "24"] {
            assert!(fault.message.contains(word), "{}: {fault}", kind.kind);
        }
        assert_eq!(sale(fake, "W-2").0, "draft", "{}", kind.kind);
    })
    .await;
}

#[tokio::test]
async fn an_order_that_people_must_accept_waits_and_can_be_amended_until_then() {
    each_sink(async |kind, sink, fake| {
        drop(sink);
        let mut settings = fake.settings();
        settings["confirm_orders"] = false.into();
        let sink = build(kind, settings).sink().expect("a sink");
        write(sink.as_ref(), &placed("W-3", ONE))
            .await
            .expect("taken");
        assert_eq!(
            sale(fake, "W-3"),
            ("quotation".into(), "24".into()),
            "{}",
            kind.kind
        );

        let mut amended = placed(
            "W-3",
            &[("A", "1", "10", "2", "12"), ("B", "1", "5", "1", "6")],
        );
        amended.r#type = OrderEventType::Amended;
        for _ in 0..2 {
            write(sink.as_ref(), &amended).await.expect("taken");
            assert_eq!(
                sale(fake, "W-3"),
                ("quotation".into(), "18".into()),
                "{}",
                kind.kind
            );
        }
        fake.act(&json!({"press": id_of("W-3"), "button": "confirm"}))
            .expect("confirmed");
        let fault = write(sink.as_ref(), &amended).await.expect_err("too late");
        assert_eq!(
            (fault.verdict, fault.code),
            (Verdict::Reject, Code::IllegalTransition),
            "{}: {fault}",
            kind.kind
        );
        assert_eq!(
            sale(fake, "W-3"),
            ("processing".into(), "18".into()),
            "{}",
            kind.kind
        );
    })
    .await;
}

#[tokio::test]
async fn a_cancellation_stops_what_has_not_left_and_nothing_else() {
    each_sink(async |kind, sink, fake| {
        let cancelled = |number: &str, quantity: &str| {
            let mut event = event(number, OrderEventType::CancelDecided, None);
            event.affected = vec![LineQty {
                line_id: "1".into(),
                qty: d(quantity),
            }];
            event
        };
        let shipments = |number: &str| {
            let sale = sales(fake, number).remove(0);
            sale["sale"]["shipments"].clone()
        };
        write(sink.as_ref(), &placed("W-4", ONE))
            .await
            .expect("taken");
        for _ in 0..2 {
            write(sink.as_ref(), &cancelled("W-4", "2"))
                .await
                .expect("taken");
        }
        assert_ne!(shipments("W-4"), json!([]), "{}", kind.kind);
        let shipped = fake.act(&json!({"fulfil": id_of("W-4"), "buttons": ["assign_force"]}));
        assert!(shipped.is_err(), "{}: the shipment goes on", kind.kind);

        write(sink.as_ref(), &placed("W-5", ONE))
            .await
            .expect("taken");
        let buttons = ["assign_force", "pick", "pack", "do"];
        fake.act(&json!({"fulfil": id_of("W-5"), "buttons": buttons}))
            .expect("shipped");
        let late = write(sink.as_ref(), &cancelled("W-5", "2"))
            .await
            .expect_err("too late");
        assert_eq!(
            (late.verdict, late.code),
            (Verdict::Reject, Code::IllegalTransition),
            "{}: {late}",
            kind.kind
        );
        let nothing = event("W-5", OrderEventType::CancelDecided, None);
        write(sink.as_ref(), &nothing).await.expect("nothing to do");
    })
    .await;
}

/// Writes until no fault that was injected is in the way.
async fn until_taken(sink: &dyn Sink, event: &OrderEvent) {
    for _ in 0..100 {
        match write(sink, event).await {
            Ok(_) => return,
            Err(fault) => assert!(matches!(fault.verdict, Verdict::Retry { .. }), "{fault}"),
        }
    }
    panic!("{} never comes through", event.order_id);
}

/// What a sale has of the line `1` of its order.
fn units(fake: &dyn Fake, number: &str) -> f64 {
    let lines = sales(fake, number).remove(0)["lines"].clone();
    let lines = lines.as_array().cloned().unwrap_or_default();
    let quantity = |line: &Value| {
        line["product_uom_qty"]
            .as_f64()
            .or(line["quantity"].as_f64())
    };
    lines.iter().filter_map(quantity).sum()
}

#[tokio::test]
async fn a_part_that_is_cancelled_leaves_the_sale_once_and_the_rest_goes_on() {
    each_sink(async |kind, sink, fake| {
        // Nobody has processed the sale yet; Odoo takes it also later.
        let is_odoo = kind.kind == "odoo";
        let mut settings = fake.settings();
        settings["confirm_orders"] = is_odoo.into();
        drop(sink);
        let sink = build(kind, settings).sink().expect("a sink");
        let cancelled = |number: &str, quantity: &str, decision: u128| {
            let mut event = event(number, OrderEventType::CancelDecided, None);
            event.meta.event_id = uuid::Uuid::from_u128(decision << 80);
            event.affected = vec![LineQty {
                line_id: "1".into(),
                qty: d(quantity),
            }];
            event
        };
        let lines: &[(&str, &str, &str, &str, &str)] = &[("A", "5", "10", "10", "60")];
        write(sink.as_ref(), &placed("W-7", lines))
            .await
            .expect("taken");
        for (decision, left) in [(1, 4.0), (1, 4.0), (2, 3.0), (1, 3.0), (2, 3.0)] {
            write(sink.as_ref(), &cancelled("W-7", "1", decision))
                .await
                .expect("taken");
            assert_eq!(units(fake, "W-7"), left, "{} {decision}", kind.kind);
        }
        let state = if is_odoo { "processing" } else { "quotation" };
        let rest = (state.to_owned(), "36".to_owned());
        assert_eq!(sale(fake, "W-7"), rest, "{}", kind.kind);
        // Calls that fail before or after their effect.
        let faults = [
            FakeFault::AppliedThenCut,
            FakeFault::Cut,
            FakeFault::Status(503, None),
        ];
        fake.act(&json!({"faults_on": "changes"})).expect("set");
        for (decision, fault) in (3..).zip(faults) {
            let number = format!("W-7{decision}");
            until_taken(sink.as_ref(), &placed(&number, lines)).await;
            for call in 0..4 {
                let before = vec![FakeFault::Slow(Duration::ZERO); call];
                fake.inject(before.into_iter().chain([fault.clone()]).collect());
                // Whether it came through, the next call finds out.
                let _ = write(sink.as_ref(), &cancelled(&number, "2", decision)).await;
            }
            until_taken(sink.as_ref(), &cancelled(&number, "2", decision)).await;
            assert_eq!(units(fake, &number), 3.0, "{} {fault:?}", kind.kind);
            assert_eq!(sale(fake, &number), rest, "{} {fault:?}", kind.kind);
        }
        // What is left of it is all of it.
        until_taken(sink.as_ref(), &cancelled("W-7", "3", 9)).await;
        assert_eq!(sale(fake, "W-7").0, "cancelled", "{}", kind.kind);
    })
    .await;
}

#[tokio::test]
async fn a_part_of_what_has_left_is_not_taken_out_of_its_sale() {
    each_sink(async |kind, sink, fake| {
        write(sink.as_ref(), &placed("W-8", ONE))
            .await
            .expect("taken");
        let buttons = ["assign_force", "pick", "pack", "do"];
        fake.act(&json!({"fulfil": id_of("W-8"), "buttons": buttons}))
            .expect("shipped");
        let mut part = event("W-8", OrderEventType::CancelDecided, None);
        part.affected = vec![LineQty {
            line_id: "1".into(),
            qty: d("1"),
        }];
        let late = write(sink.as_ref(), &part).await.expect_err("too late");
        assert_eq!(late.verdict, Verdict::Reject, "{}: {late}", kind.kind);
        assert!(late.message.contains("line 1"), "{}: {late}", kind.kind);
        assert_eq!(units(fake, "W-8"), 2.0, "{}", kind.kind);
    })
    .await;
}

#[tokio::test]
async fn it_takes_what_is_for_it_and_not_what_it_said_itself() {
    each_sink(async |kind, sink, _fake| {
        let wants = |event: OrderEvent| {
            let key = event.order_id.clone();
            sink.wants(&delivery(topic::ORDER_LIFECYCLE, &key, event).inbound)
        };
        assert!(wants(placed("W-6", ONE)), "{}", kind.kind);
        let mut own = placed("W-6", ONE);
        own.meta.source = "under-test".into();
        assert!(!wants(own), "{}", kind.kind);
        let mut other = placed("W-6", ONE);
        other.order.as_mut().expect("an order").channel_id = "market".into();
        assert!(!wants(other), "{}", kind.kind);
        let accepted = event("W-6", OrderEventType::Accepted, None);
        assert!(!wants(accepted), "{}", kind.kind);
    })
    .await;
}
