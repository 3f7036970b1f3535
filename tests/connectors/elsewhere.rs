//! What happened to an order in other systems, brought into an ERP that keeps it: shipments, returns and
//! money; tried on each connector that takes them and has a stand-in.

use super::sales::{delivery, id_of, placed};
use super::{build, fake};
use crossdock::connectors;
use crossdock::contract::event::{
    Disposition, Event, EventMeta, Money, PaymentEvent, PaymentKind, RefundEvent, RefundStatus,
    ReturnEvent, ReturnLine, ReturnStatus, ShipmentEvent, ShipmentLine, ShipmentStatus,
    SinkOutcome,
};
use crossdock::contract::topic;
use crossdock::domain::Decimal;
use crossdock::pipeline::{Ack, Code, Fake, FakeFault, Fault, Sink, Verdict};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn d(text: &str) -> Decimal {
    text.parse().expect("a number")
}

fn meta() -> EventMeta {
    EventMeta {
        source: "elsewhere".into(),
        occurred_at: crossdock::domain::Timestamp(1_790_000_000_000_000),
        ..EventMeta::default()
    }
}

async fn write(
    sink: &dyn Sink,
    topic: &'static str,
    event: impl Into<Event>,
) -> Result<Ack, Fault> {
    let delivery = delivery(topic, "order", event);
    assert!(
        sink.wants(&delivery.inbound),
        "{:?}",
        delivery.inbound.event
    );
    sink.write(&[delivery]).await.remove(0)
}

/// Calls until it is taken; what keeps it from that must be about the moment.
async fn taken(sink: &dyn Sink, topic: &'static str, event: impl Into<Event> + Clone) -> Ack {
    for _ in 0..10 {
        match write(sink, topic, event.clone()).await {
            Ok(ack) => return ack,
            Err(fault) => assert!(matches!(fault.verdict, Verdict::Retry { .. }), "{fault}"),
        }
    }
    panic!("never taken");
}

struct Erp {
    kind: &'static str,
    sink: Arc<dyn Sink>,
    fake: Box<dyn Fake>,
}

impl Erp {
    async fn order(&self, number: &str) {
        let order = placed(
            number,
            &[("A", "4", "10", "8", "48"), ("B", "1", "5", "1", "6")],
        );
        taken(self.sink.as_ref(), topic::ORDER_LIFECYCLE, order).await;
    }

    fn look(&self, action: Value) -> Vec<Value> {
        let found = self.fake.act(&action).expect("shown");
        found.as_array().expect("a list").clone()
    }

    fn units(&self, sku: &str) -> f64 {
        self.fake.books()[sku]["Warehouse"]
            .as_f64()
            .unwrap_or_default()
    }
}

async fn each_erp<F: AsyncFn(Erp)>(test: F) {
    let mut tested = 0;
    let all = connectors::ALL.iter().copied();
    for descriptor in all.filter(|d| d.emits.contains(&topic::INVOICE_EVENT) && d.fake.is_some()) {
        let fake = fake(descriptor).await.expect("a stand-in");
        let mut settings = fake.settings();
        settings["locations"] = json!({"Warehouse": {"ships_elsewhere": true}});
        settings["post_credit_notes"] = true.into();
        let sink = build(descriptor, settings).sink().expect("a sink");
        test(Erp {
            kind: descriptor.kind,
            sink,
            fake,
        })
        .await;
        tested += 1;
    }
    assert!(tested >= 2, "{tested} sinks were tested");
}

fn shipment(number: &str, id: &str, lines: &[(&str, &str)]) -> ShipmentEvent {
    let line = |(line, shipped): &(&str, &str)| ShipmentLine {
        line_id: (*line).into(),
        allocated: d(shipped),
        shipped: d(shipped),
        ..ShipmentLine::default()
    };
    ShipmentEvent {
        meta: meta(),
        order_id: id_of(number).into(),
        shipment_id: id.into(),
        shipment_version: 1,
        node_id: "Warehouse".into(),
        status: ShipmentStatus::Shipped,
        lines: lines.iter().map(line).collect(),
        ..ShipmentEvent::default()
    }
}

fn returned(number: &str, version: i64, accepted: &str) -> ReturnEvent {
    ReturnEvent {
        meta: meta(),
        order_id: id_of(number).into(),
        return_id: format!("return-{number}").into(),
        return_version: version,
        status: ReturnStatus::Inspected,
        lines: vec![ReturnLine {
            return_line_id: "1".into(),
            order_line_id: "1".into(),
            sku: "A".into(),
            requested: d("4"),
            received: d(accepted),
            accepted: d(accepted),
            disposition: Disposition::Restock,
            ..ReturnLine::default()
        }],
        ..ReturnEvent::default()
    }
}

fn captured(number: &str, reference: &str) -> PaymentEvent {
    PaymentEvent {
        meta: meta(),
        order_id: id_of(number).into(),
        kind: PaymentKind::Captured,
        amount: Money {
            amount: d("54"),
            currency: "EUR".into(),
        },
        psp: "psp".into(),
        psp_reference: reference.into(),
        ..PaymentEvent::default()
    }
}

const FAULTS: [FakeFault; 5] = [
    FakeFault::Status(500, None),
    FakeFault::Status(503, None),
    FakeFault::Cut,
    FakeFault::AppliedThenCut,
    FakeFault::Garbage,
];

fn break_call(fake: &dyn Fake, call: usize, fault: &FakeFault) {
    let before = vec![FakeFault::Slow(Duration::ZERO); call];
    fake.inject(before.into_iter().chain([fault.clone()]).collect());
}

#[tokio::test]
async fn goods_that_another_system_sent_leave_once_whatever_fails() {
    each_erp(async |erp| {
        erp.fake.act(&json!({"faults_on": "changes"})).expect("set");
        let mut number = 0;
        for fault in FAULTS {
            for call in 0..7 {
                number += 1;
                let name = format!("W-{number}");
                erp.order(&name).await;
                let before = (erp.units("A"), erp.units("B"));
                // In two parcels: three of the first line, then what is left.
                let first = shipment(&name, "P1", &[("1", "3")]);
                break_call(erp.fake.as_ref(), call, &fault);
                taken(erp.sink.as_ref(), topic::SHIPMENT_EVENT, first.clone()).await;
                let second = shipment(&name, "P2", &[("1", "1"), ("2", "1")]);
                taken(erp.sink.as_ref(), topic::SHIPMENT_EVENT, second.clone()).await;
                for again in [first, second] {
                    let ack = taken(erp.sink.as_ref(), topic::SHIPMENT_EVENT, again).await;
                    assert_eq!(ack.outcome, SinkOutcome::DuplicateAcked, "{}", erp.kind);
                }
                let after = (erp.units("A"), erp.units("B"));
                assert_eq!(
                    after,
                    (before.0 - 4.0, before.1 - 1.0),
                    "{} {fault:?} {call}",
                    erp.kind
                );
                // A fault that no call met is not for the next order.
                erp.order(&format!("{name}-clear")).await;
            }
        }
        let more = shipment("W-1", "P3", &[("1", "1")]);
        let fault = write(erp.sink.as_ref(), topic::SHIPMENT_EVENT, more)
            .await
            .expect_err("nothing is left");
        assert_eq!(
            (fault.verdict, fault.code),
            (Verdict::Reject, Code::UnknownReference),
            "{fault}"
        );
        assert!(fault.message.contains("line 1"), "{fault}");
    })
    .await;
}

#[tokio::test]
async fn a_return_takes_goods_back_once_and_is_credited_once_whatever_fails() {
    each_erp(async |erp| {
        erp.fake.act(&json!({"faults_on": "changes"})).expect("set");
        let mut number = 0;
        for fault in FAULTS {
            for call in 0..6 {
                number += 1;
                let name = format!("W-{number}");
                erp.order(&name).await;
                let id = id_of(&name);
                let buttons = ["assign_force", "pick", "pack", "do"];
                for act in [
                    json!({"fulfil": id, "buttons": buttons}),
                    json!({"bill": id}),
                ] {
                    erp.fake.act(&act).expect("done");
                }
                let before = erp.units("A");
                break_call(erp.fake.as_ref(), call, &fault);
                taken(
                    erp.sink.as_ref(),
                    topic::RETURN_EVENT,
                    returned(&name, 1, "1"),
                )
                .await;
                let again = taken(
                    erp.sink.as_ref(),
                    topic::RETURN_EVENT,
                    returned(&name, 1, "1"),
                )
                .await;
                assert_eq!(again.outcome, SinkOutcome::DuplicateAcked, "{}", erp.kind);
                assert_eq!(
                    erp.units("A"),
                    before + 1.0,
                    "{} {fault:?} {call}",
                    erp.kind
                );
                // More is accepted later.
                taken(
                    erp.sink.as_ref(),
                    topic::RETURN_EVENT,
                    returned(&name, 2, "3"),
                )
                .await;
                assert_eq!(
                    erp.units("A"),
                    before + 3.0,
                    "{} {fault:?} {call}",
                    erp.kind
                );
                let credited = erp.look(json!({"credited": name}));
                assert_eq!(credited, ["12", "24"], "{} {fault:?} {call}", erp.kind);
            }
        }
        let more = write(
            erp.sink.as_ref(),
            topic::RETURN_EVENT,
            returned("W-1", 3, "9"),
        )
        .await;
        let fault = more.expect_err("more than was sold");
        assert_eq!(
            (fault.verdict, fault.code),
            (Verdict::Reject, Code::UnknownReference),
            "{fault}"
        );
        assert!(fault.message.contains("line 1"), "{fault}");
    })
    .await;
}

#[tokio::test]
async fn money_is_booked_once_whatever_fails() {
    each_erp(async |erp| {
        erp.fake.act(&json!({"faults_on": "changes"})).expect("set");
        erp.order("W-1").await;
        let mut booked = 0;
        for fault in FAULTS {
            for call in 0..2 {
                booked += 1;
                let payment = captured("W-1", &format!("ch_{booked}"));
                break_call(erp.fake.as_ref(), call, &fault);
                taken(erp.sink.as_ref(), topic::PAYMENT_EVENT, payment.clone()).await;
                let again = taken(erp.sink.as_ref(), topic::PAYMENT_EVENT, payment).await;
                assert_eq!(again.outcome, SinkOutcome::DuplicateAcked, "{}", erp.kind);
                let entries = erp.look(json!({"entries": true}));
                assert_eq!(
                    entries.len(),
                    booked,
                    "{} {fault:?} {call}: {entries:?}",
                    erp.kind
                );
                assert!(
                    entries.iter().all(|e| e["state"] == "posted"),
                    "{}",
                    erp.kind
                );
            }
        }
        let refund = RefundEvent {
            meta: meta(),
            order_id: id_of("W-1").into(),
            refund_id: uuid::Uuid::from_u128(7),
            status: RefundStatus::Completed,
            amount: Money {
                amount: d("12"),
                currency: "EUR".into(),
            },
            ..RefundEvent::default()
        };
        for _ in 0..2 {
            taken(erp.sink.as_ref(), topic::REFUND_EVENT, refund.clone()).await;
        }
        let entries = erp.look(json!({"entries": true}));
        assert_eq!(entries.len(), booked + 1, "{}", erp.kind);
        let lines = &entries[booked]["lines"][0][1];
        assert_eq!(
            lines[0]["credit"]["decimal"], "12",
            "{}: what the provider owes is less",
            erp.kind
        );
        assert_eq!(lines[1]["debit"]["decimal"], "12", "{}", erp.kind);

        let mut foreign = captured("W-1", "ch_x");
        foreign.amount.currency = "USD".into();
        let fault = write(erp.sink.as_ref(), topic::PAYMENT_EVENT, foreign)
            .await
            .expect_err("refused");
        assert_eq!(
            (fault.verdict, fault.code),
            (Verdict::Reject, Code::UnknownReference),
            "{fault}"
        );
    })
    .await;
}

#[tokio::test]
async fn what_comes_before_its_order_waits_for_it() {
    each_erp(async |erp| {
        let early = |fault: Fault| {
            assert_eq!(
                (fault.verdict, fault.code),
                (Verdict::Retry { after: None }, Code::TooEarly),
                "{}: {fault}",
                erp.kind
            );
        };
        let sink = erp.sink.as_ref();
        let sent = shipment("W-1", "P1", &[("1", "4"), ("2", "1")]);
        early(
            write(sink, topic::PAYMENT_EVENT, captured("W-1", "ch_1"))
                .await
                .expect_err("early"),
        );
        early(
            write(sink, topic::SHIPMENT_EVENT, sent.clone())
                .await
                .expect_err("early"),
        );
        early(
            write(sink, topic::RETURN_EVENT, returned("W-1", 1, "1"))
                .await
                .expect_err("early"),
        );
        erp.order("W-1").await;
        taken(sink, topic::PAYMENT_EVENT, captured("W-1", "ch_1")).await;
        taken(sink, topic::SHIPMENT_EVENT, sent).await;
        taken(sink, topic::RETURN_EVENT, returned("W-1", 1, "1")).await;
    })
    .await;
}
