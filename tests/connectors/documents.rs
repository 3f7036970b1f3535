//! What an ERP that keeps orders tells of them, tried on each connector that has such a source and a
//! stand-in: people accept, pick, ship, bill, take back and credit, and every step is told under the
//! order's id and the channel's names of its lines.

use super::sales::{delivery, id_of, keeps_orders, placed};
use super::sources::{Reader, act};
use super::{build, fake};
use crossdock::connectors;
use crossdock::contract::event::{
    Event, InvoiceEvent, InvoiceKind, InvoiceStatus, OrderEvent, OrderEventType, RefundRequest,
    ReturnEvent, ReturnStatus, ShipmentEvent, ShipmentStatus, StockChanged, StockReason,
};
use crossdock::contract::topic;
use crossdock::domain::Decimal;
use crossdock::pipeline::{ConnectorDescriptor, Fake, Sink, SourceRecord};
use serde_json::{Value, json};
use std::sync::Arc;

struct Desk {
    fake: Box<dyn Fake>,
    sink: Arc<dyn Sink>,
    reader: Reader,
    kind: &'static str,
}

impl Desk {
    async fn order(&self, number: &str) {
        let lines = [("A", "2", "10", "4", "24"), ("B", "1", "5", "1", "6")];
        let order = placed(number, &lines);
        let delivery = delivery(topic::ORDER_LIFECYCLE, &order.order_id, order.clone());
        let taken = self.sink.write(&[delivery]).await.remove(0);
        taken.expect("taken");
    }

    /// What is told of an order since so many polls.
    async fn told<T>(&mut self, number: &str, of: fn(&Event) -> Option<&T>) -> Vec<T>
    where
        T: Clone,
    {
        let from = self.reader.polls.len();
        self.reader.drain().await;
        let polls = self.reader.polls[from..].iter();
        let records = polls.flat_map(|(_, _, batch)| {
            assert!(batch.rejects.is_empty(), "{:?}", batch.rejects);
            &batch.records
        });
        let own = |r: &&SourceRecord| r.key == id_of(number);
        records
            .filter(own)
            .filter_map(|r| of(&r.event).cloned())
            .collect()
    }

    fn act(&self, action: Value) -> Value {
        act(self.fake.as_ref(), action)
    }
}

fn order(e: &Event) -> Option<&OrderEvent> {
    match e {
        Event::OrderEvent(e) => Some(e),
        _ => None,
    }
}
fn shipment(e: &Event) -> Option<&ShipmentEvent> {
    match e {
        Event::ShipmentEvent(e) => Some(e),
        _ => None,
    }
}
fn returned(e: &Event) -> Option<&ReturnEvent> {
    match e {
        Event::ReturnEvent(e) => Some(e),
        _ => None,
    }
}
fn invoice(e: &Event) -> Option<&InvoiceEvent> {
    match e {
        Event::InvoiceEvent(e) => Some(e),
        _ => None,
    }
}

fn d(text: &str) -> Decimal {
    text.parse().expect("a number")
}

/// Runs `test` on every ERP that keeps orders and tells of `what`.
async fn each_desk<F: AsyncFn(Desk)>(what: &str, test: F) {
    let mut tested = 0;
    let all = connectors::ALL.iter().copied();
    for descriptor in all.filter(|d| keeps_orders(d) && d.emits.contains(&what)) {
        let descriptor: &'static ConnectorDescriptor = descriptor;
        let fake = fake(descriptor).await.expect("a stand-in");
        let mut settings = fake.settings();
        settings["confirm_orders"] = false.into();
        if descriptor.emits.contains(&topic::REFUND_REQUEST) {
            settings["credit_notes_request_refunds"] = true.into();
        }
        let desk = Desk {
            sink: build(descriptor, settings.clone()).sink().expect("a sink"),
            reader: Reader::new(descriptor, settings),
            fake,
            kind: descriptor.kind,
        };
        test(desk).await;
        tested += 1;
    }
    assert!(tested >= 2, "{tested} sources were tested");
}

#[tokio::test]
async fn acceptance_is_told_when_people_accept() {
    each_desk(topic::ORDER_LIFECYCLE, async |mut desk| {
        desk.order("W-1").await;
        assert_eq!(desk.told("W-1", order).await, [], "{}", desk.kind);
        desk.act(json!({"press": id_of("W-1"), "button": "confirm"}));
        let told = desk.told("W-1", order).await;
        let last = told.last().expect("told");
        assert_eq!(last.r#type, OrderEventType::Accepted, "{}", desk.kind);
        assert!(last.erp_order_id.is_some(), "{}", desk.kind);

        desk.order("W-2").await;
        desk.act(json!({"press": id_of("W-2"), "button": "cancel"}));
        let told = desk.told("W-2", order).await;
        let last = told.last().expect("told");
        assert_eq!(last.r#type, OrderEventType::Rejected, "{}", desk.kind);
    })
    .await;
}

#[tokio::test]
async fn a_shipment_is_told_with_its_lines_place_and_tracking() {
    each_desk(topic::SHIPMENT_EVENT, async |mut desk| {
        desk.order("W-1").await;
        desk.act(json!({"press": id_of("W-1"), "button": "confirm"}));
        let told = desk.told("W-1", shipment).await;
        let released = told.last().expect("told");
        assert_eq!(released.status, ShipmentStatus::Released, "{}", desk.kind);
        let steps = [
            ("assign_force", ShipmentStatus::Acknowledged),
            ("pick", ShipmentStatus::Picked),
            ("pack", ShipmentStatus::Packed),
            ("do", ShipmentStatus::Shipped),
        ];
        let mut version = released.shipment_version;
        for (button, status) in steps {
            desk.act(json!({"fulfil": id_of("W-1"), "buttons": [button], "reference": "TRACK-7"}));
            let told = desk.told("W-1", shipment).await;
            let last = told.last().expect("told");
            assert_eq!(
                (last.status, &last.shipment_id),
                (status, &released.shipment_id),
                "{}",
                desk.kind
            );
            assert!(last.shipment_version > version, "{}", desk.kind);
            version = last.shipment_version;
            let lines: Vec<_> = last
                .lines
                .iter()
                .map(|l| (&*l.line_id, &*l.sku, l.allocated, l.shipped))
                .collect();
            let gone = |q: &str| {
                if status == ShipmentStatus::Shipped {
                    d(q)
                } else {
                    Decimal::ZERO
                }
            };
            let expected = [("1", "A", d("2"), gone("2")), ("2", "B", d("1"), gone("1"))];
            assert_eq!(lines, expected, "{}", desk.kind);
            let tracking = last.packages[0].tracking_number.as_deref();
            assert_eq!(tracking, Some("TRACK-7"), "{}", desk.kind);
            assert!(!last.node_id.is_empty(), "{}", desk.kind);
        }
        let moves: Vec<StockChanged> = desk
            .reader
            .records()
            .into_iter()
            .filter_map(|r| match &r.event {
                Event::StockChanged(e) if e.reason == StockReason::Shipment => Some(e.clone()),
                _ => None,
            })
            .collect();
        let of: Vec<_> = moves
            .iter()
            .map(|e| {
                (
                    e.order_id.as_deref().map(str::to_owned),
                    e.order_line_id.as_deref(),
                )
            })
            .collect();
        let id = Some(id_of("W-1"));
        assert_eq!(
            of,
            [(id.clone(), Some("1")), (id, Some("2"))],
            "{}: goods name their order",
            desk.kind
        );
    })
    .await;
}

#[tokio::test]
async fn invoices_returns_and_credit_notes_are_told() {
    each_desk(topic::INVOICE_EVENT, async |mut desk| {
        desk.order("W-1").await;
        let id = id_of("W-1");
        desk.act(json!({"press": id, "button": "confirm"}));
        let buttons = ["assign_force", "pick", "pack", "do"];
        desk.act(json!({"fulfil": id, "buttons": buttons}));
        assert_eq!(desk.told("W-1", invoice).await, [], "{}: a draft is none", desk.kind);
        desk.act(json!({"bill": id}));
        let told = desk.told("W-1", invoice).await;
        let bill = told.last().expect("told");
        assert_eq!(
            (bill.kind, bill.status, bill.net.amount, bill.tax, bill.gross),
            (InvoiceKind::Invoice, InvoiceStatus::Posted, d("25"), d("5"), d("30")),
            "{}",
            desk.kind
        );
        let lines: Vec<_> = bill
            .lines
            .iter()
            .map(|l| (l.order_line_id.as_deref(), l.qty, l.net, l.tax))
            .collect();
        let expected = [(Some("1"), d("2"), d("20"), d("4")), (Some("2"), d("1"), d("5"), d("1"))];
        assert_eq!(lines, expected, "{}", desk.kind);

        let back = desk.act(json!({"return_of": id, "line": "1", "quantity": 1}));
        let back = &back[0];
        let told = desk.told("W-1", returned).await;
        let opened = told.last().expect("told").clone();
        assert_eq!(opened.status, ReturnStatus::Approved, "{}", desk.kind);
        for (button, status, accepted) in [
            ("receive", ReturnStatus::Received, "0"),
            ("do", ReturnStatus::Inspected, "1"),
        ] {
            desk.act(json!({"take_back": back, "buttons": [button]}));
            let told = desk.told("W-1", returned).await;
            let last = told.last().expect("told");
            assert_eq!((last.status, &last.return_id), (status, &opened.return_id), "{}", desk.kind);
            let line = &last.lines[0];
            assert_eq!(
                (&*line.order_line_id, line.requested, line.received, line.accepted),
                ("1", d("1"), d("1"), d(accepted)),
                "{}",
                desk.kind
            );
        }
        desk.act(json!({"bill": back}));
        let told = desk.told("W-1", invoice).await;
        let credit = told.last().expect("told");
        assert_eq!(
            (credit.kind, credit.net.amount, credit.tax, credit.gross),
            (InvoiceKind::CreditNote, d("10"), d("2"), d("12")),
            "{}",
            desk.kind
        );
        assert_eq!(credit.return_id.as_deref(), Some(&*opened.return_id), "{}", desk.kind);
        assert_eq!(credit.lines[0].order_line_id.as_deref(), Some("1"), "{}", desk.kind);
        let requests: Vec<RefundRequest> = desk
            .reader
            .records()
            .into_iter()
            .filter_map(|r| match &r.event {
                Event::RefundRequest(e) => Some(e.clone()),
                _ => None,
            })
            .collect();
        let asked = requests.first().expect("asked");
        assert!(requests.iter().all(|r| r == asked), "{}: {requests:?}", desk.kind);
        assert_eq!(
            (asked.amount.amount, asked.return_id.as_deref()),
            (d("12"), Some(&*opened.return_id)),
            "{}",
            desk.kind
        );
        let of: Vec<_> = asked
            .allocations
            .iter()
            .map(|a| (a.order_line_id.as_deref(), a.qty, a.net, a.tax))
            .collect();
        assert_eq!(of, [(Some("1"), d("1"), d("10"), d("2"))], "{}", desk.kind);
        let restocked = desk.reader.records().into_iter().any(|r| {
            matches!(&r.event, Event::StockChanged(e)
                if e.reason == StockReason::Return && e.return_id.as_deref() == Some(&*opened.return_id)
                    && e.order_id.as_deref() == Some(&*id))
        });
        assert!(restocked, "{}: goods name their return", desk.kind);

        // Without goods: people credit the invoice itself.
        desk.act(json!({"credit": id}));
        let told = desk.told("W-1", invoice).await;
        let credit = told.last().expect("told");
        assert_eq!((credit.kind, credit.gross), (InvoiceKind::CreditNote, d("30")), "{}", desk.kind);
        assert_eq!(credit.original_invoice_id, Some(bill.invoice_id.clone()), "{}", desk.kind);
        assert_eq!(credit.return_id, None, "{}", desk.kind);
    })
    .await;
}

#[tokio::test]
async fn what_the_sink_did_for_the_channel_is_not_told_back() {
    each_desk(topic::ORDER_LIFECYCLE, async |mut desk| {
        use crossdock::contract::event::LineQty;
        desk.order("W-1").await;
        let mut cancelled = super::sales::event("W-1", OrderEventType::CancelDecided, None);
        cancelled.affected = [("1", "2"), ("2", "1")]
            .map(|(line, qty)| LineQty {
                line_id: line.into(),
                qty: d(qty),
            })
            .to_vec();
        let delivery = delivery(
            topic::ORDER_LIFECYCLE,
            &cancelled.order_id,
            cancelled.clone(),
        );
        desk.sink.write(&[delivery]).await.remove(0).expect("taken");
        assert_eq!(desk.told("W-1", order).await, [], "{}", desk.kind);
    })
    .await;
}
