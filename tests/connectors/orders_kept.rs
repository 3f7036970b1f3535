//! What the sinks of storefronts do to orders, on the stand-ins.

use super::orders::{storefronts, told};
use super::sources::{Reader, act};
use super::{build, fake};
use crossdock::contract::event::{
    Event, Fulfilment, LineState, Milestone, MilestoneKind, Money, OrderEventType, OrderState,
    OrderStatus, Package, PaymentKind, RefundEvent, RefundStatus, ShipmentLine, ShipmentState,
    SinkOutcome,
};
use crossdock::contract::topic;
use crossdock::domain::{Decimal, Timestamp};
use crossdock::pipeline::{
    Ack, Code, Delivery, Fake, FakeFault, Fault, Headers, Inbound, Origin, Record, Sink, Verdict,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

fn decimal(text: &str) -> Decimal {
    text.parse().expect("a number")
}

/// A storefront with a captured order of 3 A and 1 B.
struct Shop {
    kind: &'static str,
    sink: Arc<dyn Sink>,
    fake: Box<dyn Fake>,
    reader: Reader,
    number: Value,
    /// Lines of A and B.
    lines: [String; 2],
    /// The capture, as it was told.
    capture: crossdock::contract::event::PaymentEvent,
}

impl Shop {
    async fn all() -> Vec<Shop> {
        let mut shops = Vec::new();
        for descriptor in storefronts() {
            let fake = fake(descriptor).await.expect("a stand-in");
            let sink = build(descriptor, fake.settings()).sink().expect("a sink");
            let number = act(
                fake.as_ref(),
                json!({"place": {"A": 3, "B": 1}, "captured": true}),
            );
            let mut reader = Reader::new(descriptor, fake.settings());
            reader.drain().await;
            let capture = reader.records().into_iter().find_map(|r| match &r.event {
                Event::PaymentEvent(e) if e.kind == PaymentKind::Captured => Some(e.clone()),
                _ => None,
            });
            let lines = {
                let shown = act(fake.as_ref(), json!({"show": number}));
                ["A", "B"].map(|sku| {
                    let mut lines = shown["lines"].as_array().expect("lines").iter();
                    let line = lines.find(|l| l["sku"] == sku).expect("the line");
                    line["line"].as_str().expect("an id").to_owned()
                })
            };
            shops.push(Shop {
                kind: descriptor.kind,
                sink,
                number,
                lines,
                reader,
                capture: capture.expect("captured"),
                fake,
            });
        }
        shops
    }

    fn show(&self) -> Value {
        act(self.fake.as_ref(), json!({"show": self.number}))
    }

    async fn write(&self, event: impl Into<Event>) -> Result<Ack, Fault> {
        let event = event.into();
        let topic = match &event {
            Event::ShipmentState(_) => topic::SHIPMENT_STATE,
            Event::OrderState(_) => topic::ORDER_STATE,
            _ => topic::REFUND_EVENT,
        };
        let record = Record {
            origin: Origin {
                topic: topic.into(),
                partition: 0,
                offset: 1,
            },
            timestamp_ms: 0,
            key: Some(b"o".to_vec().into()),
            value: None,
            headers: Headers::default(),
        };
        let inbound = Inbound { record, event };
        assert!(self.sink.wants(&inbound), "{}: not wanted", self.kind);
        let delivery = Delivery {
            key: "o".into(),
            inbound,
            sent: None,
            attempt: 1,
            in_doubt: false,
        };
        self.sink.write(&[delivery]).await.remove(0)
    }

    fn number(&self) -> &str {
        self.number.as_str().expect("a number")
    }

    fn shipments(&self, version: i64, shipped: i32, kinds: &[MilestoneKind]) -> ShipmentState {
        let line = ShipmentLine {
            line_id: self.lines[0].as_str().into(),
            sku: "A".into(),
            shipped: Decimal::from(shipped),
            ..ShipmentLine::default()
        };
        let milestone = |kind: &MilestoneKind| Milestone {
            kind: *kind,
            reached_at: Timestamp(1),
        };
        let fulfilment = Fulfilment {
            shipment_id: "ship-1".into(),
            node_id: "dc".into(),
            lines: vec![line],
            packages: vec![Package {
                package_id: "p".into(),
                carrier: Some("DHL".into()),
                tracking_number: Some("JJD-1".into()),
                ..Package::default()
            }],
            milestones: kinds.iter().map(milestone).collect(),
            ..Fulfilment::default()
        };
        ShipmentState {
            channel_id: "web".into(),
            channel_order_id: self.number().into(),
            state_version: version,
            fulfilments: vec![fulfilment],
            ..ShipmentState::default()
        }
    }

    fn state(&self, version: i64, cancelled: [i32; 2]) -> OrderState {
        let line = |(id, cancelled): (&String, i32)| LineState {
            line_id: id.as_str().into(),
            cancelled: Decimal::from(cancelled),
            ..LineState::default()
        };
        OrderState {
            order_id: "o".into(),
            channel_id: "web".into(),
            channel_order_id: self.number().into(),
            state_version: version,
            lines: self.lines.iter().zip(cancelled).map(line).collect(),
            ..OrderState::default()
        }
    }

    fn refund(&self, attempt: i32, amount: &str) -> RefundEvent {
        RefundEvent {
            refund_id: uuid::Uuid::from_u128(7),
            status: RefundStatus::Submitted,
            attempt,
            refund_version: i64::from(attempt) + 1,
            amount: Money {
                amount: decimal(amount),
                currency: "EUR".into(),
            },
            psp: Some(self.capture.psp.clone()),
            capture_references: vec![self.capture.psp_reference.clone()],
            reason: Some("return".into()),
            ..RefundEvent::default()
        }
    }
}

#[tokio::test]
async fn a_shipment_is_shown_once_with_its_tracking_however_often_it_is_told() {
    use MilestoneKind::{Delivered, Shipped};
    for shop in Shop::all().await {
        let shown = |shop: &Shop| shop.show()["shipments"].clone();
        for (round, outcome) in [SinkOutcome::Acked, SinkOutcome::DuplicateAcked]
            .iter()
            .enumerate()
        {
            let ack = shop
                .write(shop.shipments(1, 2, &[Shipped]))
                .await
                .expect("taken");
            assert_eq!(ack.outcome, *outcome, "{} round {round}", shop.kind);
            let parcel = json!({"state": "SHIPPED", "tracking": "JJD-1", "lines": [{"line": shop.lines[0], "quantity": 2}]});
            assert_eq!(shown(&shop), json!([parcel]), "{}", shop.kind);
        }
        // The same fulfilment ships one more, and is delivered.
        let more = shop
            .write(shop.shipments(2, 3, &[Shipped, Delivered]))
            .await;
        assert!(more.is_ok(), "{}: {more:?}", shop.kind);
        let parcels = shown(&shop);
        let quantities: Vec<i64> = parcels
            .as_array()
            .expect("parcels")
            .iter()
            .map(|p| p["lines"][0]["quantity"].as_i64().expect("units"))
            .collect();
        assert_eq!(quantities, [2, 1], "{}", shop.kind);
        assert!(
            parcels
                .as_array()
                .expect("parcels")
                .iter()
                .all(|p| p["state"] == "DELIVERED"),
            "{}: {parcels}",
            shop.kind
        );
        // More than was ordered is refused for good.
        let too_much = shop.write(shop.shipments(3, 9, &[Shipped])).await;
        assert_eq!(
            too_much.expect_err("refused").verdict,
            Verdict::Reject,
            "{}",
            shop.kind
        );
    }
}

#[tokio::test]
async fn what_is_cancelled_is_cancelled_in_the_shop_once_and_not_told_back() {
    for mut shop in Shop::all().await {
        for outcome in [SinkOutcome::Acked, SinkOutcome::DuplicateAcked] {
            let ack = shop.write(shop.state(4, [1, 0])).await.expect("taken");
            assert_eq!(ack.outcome, outcome, "{}", shop.kind);
            assert_eq!(shop.show()["lines"][0]["cancelled"], 1, "{}", shop.kind);
        }
        // A person there cancels another: that is told, and is not cancelled twice.
        act(
            shop.fake.as_ref(),
            json!({"take_out": shop.number, "sku": "A", "quantity": 1}),
        );
        let ack = shop.write(shop.state(5, [2, 0])).await.expect("taken");
        assert_eq!(ack.outcome, SinkOutcome::DuplicateAcked, "{}", shop.kind);
        shop.reader.drain().await;
        let records = shop.reader.records();
        let cancelled: BTreeSet<String> = records
            .iter()
            .filter(|r| matches!(&r.event, Event::OrderEvent(e) if e.r#type == OrderEventType::CancelDecided))
            .map(|r| told(r))
            .collect();
        assert_eq!(
            cancelled,
            BTreeSet::from(["CANCEL_DECIDED 1".to_owned()]),
            "{}",
            shop.kind
        );
    }
    for shop in Shop::all().await {
        // The ERP will not have it.
        let rejected = OrderState {
            status: OrderStatus::Rejected,
            ..shop.state(2, [0, 0])
        };
        for _ in 0..2 {
            shop.write(rejected.clone()).await.expect("taken");
            assert_eq!(shop.show()["cancelled"], true, "{}", shop.kind);
        }
    }
}

#[tokio::test]
async fn a_refund_is_paid_once_and_its_outcome_told_under_its_key() {
    for mut shop in Shop::all().await {
        let cases = [
            FakeFault::AppliedThenCut,
            FakeFault::Cut,
            FakeFault::Status(503, None),
            FakeFault::Garbage,
        ];
        for (attempt, fault) in (1..).zip(cases) {
            shop.fake.inject(vec![fault.clone()]);
            let first = shop
                .write(shop.refund(attempt, "1.5"))
                .await
                .expect_err("no answer");
            assert!(
                matches!(first.verdict, Verdict::Retry { .. }),
                "{}: {first}",
                shop.kind
            );
            for _ in 0..3 {
                let again = shop.write(shop.refund(attempt, "1.5")).await;
                assert!(again.is_ok(), "{} after {fault:?}: {again:?}", shop.kind);
            }
            let refunds = shop.show()["refunds"].as_array().expect("refunds").len();
            assert_eq!(refunds, attempt as usize, "{} after {fault:?}", shop.kind);
        }
        shop.reader.drain().await;
        let records = shop.reader.records();
        let keys: BTreeSet<String> = records
            .iter()
            .filter_map(|r| match &r.event {
                Event::PaymentEvent(e) if e.kind == PaymentKind::Refunded => {
                    assert_eq!(e.amount.amount, decimal("1.5"), "{}", shop.kind);
                    Some(e.refund_key.as_ref().expect("its key").to_string())
                }
                Event::RefundRequest(e) => panic!("{}: told as paid unasked: {e:?}", shop.kind),
                _ => None,
            })
            .collect();
        assert_eq!(keys.len(), 4, "{}: {keys:?}", shop.kind);
        // All of the rest goes back, to the last part of a cent; then nothing more.
        let rest = shop.capture.amount.amount - decimal("6");
        let all = shop.write(shop.refund(9, &rest.to_string())).await;
        assert!(all.is_ok(), "{}: {all:?}", shop.kind);
        let more = shop.write(shop.refund(10, "1")).await.expect_err("refused");
        assert_eq!(
            (more.verdict, more.code),
            (Verdict::Reject, Code::Refused),
            "{}",
            shop.kind
        );
    }
}

#[tokio::test]
async fn an_order_that_the_shop_does_not_have_stops_no_other() {
    for shop in Shop::all().await {
        let mut unknown = shop.shipments(1, 1, &[MilestoneKind::Shipped]);
        unknown.channel_order_id = "NO-SUCH-ORDER".into();
        let fault = shop.write(unknown).await.expect_err("unknown");
        assert_eq!(
            (fault.verdict, fault.code),
            (Verdict::Reject, Code::UnknownReference),
            "{}",
            shop.kind
        );
        assert!(fault.message.contains("NO-SUCH-ORDER"), "{fault}");
        let mut line = shop.shipments(1, 1, &[MilestoneKind::Shipped]);
        line.fulfilments[0].lines[0].line_id = "no-such-line".into();
        let fault = shop.write(line).await.expect_err("unknown");
        assert!(fault.message.contains("no-such-line"), "{fault}");
        let mut payment = shop.refund(1, "1");
        payment.capture_references = vec!["no-such-payment".into()];
        let fault = shop.write(payment).await.expect_err("unknown");
        assert_eq!(fault.code, Code::UnknownReference, "{}: {fault}", shop.kind);
    }
}
