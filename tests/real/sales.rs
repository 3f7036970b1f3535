//! Orders in the real ERP: what the sink makes of them, and what the source tells when people accept,
//! send, bill and take back.

use crate::erp::{Erp, WAREHOUSE};
use crate::proxy::{Cut, Proxy};
use crate::systems::{Systems, url};
use crate::tryton::Reader;
use crossdock::contract::event::{
    DeliveryGroup, DeliveryMethod, Disposition, Event, EventMeta, InvoiceEvent, InvoiceKind,
    InvoiceStatus, LineQty, Money, OrderCharge, OrderEvent, OrderEventType, OrderLine,
    OrderSnapshot, PaymentEvent, PaymentKind, RefundEvent, RefundStatus, ReturnEvent, ReturnLine,
    ReturnStatus, ShipmentEvent, ShipmentLine, ShipmentStatus, SinkOutcome, StockReason,
};
use crossdock::contract::topic;
use crossdock::domain::{Decimal, order_id};
use crossdock::pipeline::{
    Ack, Code, Delivery, Fault, Headers, Inbound, Origin, Record, Sink, Verdict,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub const SHOP: &str = "Crossdock tests";

fn d(text: &str) -> Decimal {
    text.parse().expect("a number")
}

/// Numbers that no run before this one has used.
pub fn numbers() -> impl FnMut() -> String {
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).expect("now");
    let mut count = 0;
    move || {
        count += 1;
        format!("W-{}-{count}", begun.as_micros())
    }
}

fn settings(erp: &Erp, url: &str, confirm: bool) -> Value {
    let mut settings = erp.settings();
    settings["url"] = url.into();
    settings["channels"] = json!({"web": {"shop": SHOP}});
    settings["confirm_orders"] = confirm.into();
    settings
}

/// Two of one product and one of another, tax included: 2 × 11.99 and 1 × 5.
pub fn placed(number: &str, customer: &str) -> OrderEvent {
    let line = |id: &str, sku: &str, qty: &str, price: &str, tax: &str, total: &str| OrderLine {
        line_id: id.into(),
        sku: sku.into(),
        qty: d(qty),
        unit_price: d(price),
        tax: d(tax),
        line_total: d(total),
        delivery_group_id: "home".into(),
        ..OrderLine::default()
    };
    let lines = vec![
        line("a", "SKU-0260", "2", "11.99", "4", "23.98"),
        line("b", "SKU-0261", "1", "5", "0.83", "5"),
    ];
    event(
        number,
        OrderEventType::Placed,
        Some(OrderSnapshot {
            channel_id: "web".into(),
            channel_order_id: number.into(),
            customer_id: Some(customer.into()),
            currency: "USD".into(),
            prices_include_tax: true,
            lines,
            delivery_groups: vec![DeliveryGroup {
                group_id: "home".into(),
                method: DeliveryMethod::ShipToHome,
                ..DeliveryGroup::default()
            }],
            grand_total: d("28.98"),
            ..OrderSnapshot::default()
        }),
    )
}

pub fn event(number: &str, kind: OrderEventType, order: Option<OrderSnapshot>) -> OrderEvent {
    OrderEvent {
        meta: EventMeta {
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

pub fn write(
    reader: &Reader,
    sink: &Arc<dyn Sink>,
    event: &(impl Into<Event> + Clone),
) -> Result<Ack, Fault> {
    let delivery = Delivery {
        key: "order".into(),
        inbound: Inbound {
            record: Record {
                origin: Origin {
                    topic: topic::ORDER_LIFECYCLE.into(),
                    partition: 0,
                    offset: 0,
                },
                timestamp_ms: 0,
                key: None,
                value: None,
                headers: Headers::default(),
            },
            event: event.clone().into(),
        },
        sent: None,
        attempt: 1,
        in_doubt: false,
    };
    assert!(
        sink.wants(&delivery.inbound),
        "{:?}",
        delivery.inbound.event
    );
    let written = reader
        .runtime
        .block_on(async { sink.write(&[delivery]).await });
    written.into_iter().next().expect("an answer")
}

/// What was told of an order since so many records, the newest.
pub fn last<T: Clone>(
    reader: &Reader,
    since: usize,
    number: &str,
    of: impl Fn(&Event) -> Option<&T>,
) -> Option<T> {
    let id = id_of(number);
    let told = reader.records[since..].iter().filter(|r| r.key == id);
    told.filter_map(|r| of(&r.event)).last().cloned()
}

macro_rules! pick {
    ($name:ident) => {
        |e: &Event| match e {
            Event::$name(e) => Some(e),
            _ => None,
        }
    };
}

#[test]
fn an_order_becomes_one_sale_and_what_people_do_with_it_is_told() {
    let Some(systems) = Systems::find() else {
        return;
    };
    let erp = Erp::log_in(&systems);
    erp.web_shop(SHOP);
    let mut next = numbers();
    let number = next();
    let id = id_of(&number);
    let mut reader = Reader::new(settings(&erp, &url("tryton"), false));
    let checks = reader.runtime.block_on(reader.connector.check());
    assert!(checks.iter().all(|c| c.result.is_ok()), "{checks:?}");
    reader.drain();
    let sink = reader.connector.sink().expect("a sink");

    let order = placed(&number, "C001");
    let first = write(&reader, &sink, &order).expect("taken");
    assert_eq!(first.outcome, SinkOutcome::Acked);
    let again = write(&reader, &sink, &order).expect("taken");
    assert_eq!(again.outcome, SinkOutcome::DuplicateAcked);
    assert_eq!(again.external_id, first.external_id);
    assert_eq!(erp.of_sale(&id, "state"), "quotation");
    assert_eq!(erp.of_sale(&id, "reference"), json!(number));
    assert_eq!(erp.of_sale(&id, "total_amount")["decimal"], "28.98");
    assert_eq!(erp.parties("C001"), 1, "the customer was known");

    let told = reader.records.len();
    reader.drain();
    assert_eq!(
        last(&reader, told, &number, pick!(OrderEvent)),
        None,
        "nobody has accepted it"
    );
    erp.press(&id, "confirm");
    reader.drain();
    let accepted: OrderEvent = last(&reader, told, &number, pick!(OrderEvent)).expect("told");
    assert_eq!(accepted.r#type, OrderEventType::Accepted);
    assert_eq!(
        accepted.erp_order_id.as_deref(),
        first.external_id.as_deref()
    );
    let released: ShipmentEvent = last(&reader, told, &number, pick!(ShipmentEvent)).expect("told");
    assert_eq!(released.status, ShipmentStatus::Released);

    let told = reader.records.len();
    erp.fulfil(&id, "1Z-TRACK");
    reader.restart();
    reader.drain();
    let sent: ShipmentEvent = last(&reader, told, &number, pick!(ShipmentEvent)).expect("told");
    assert_eq!(
        (sent.status, &*sent.node_id),
        (ShipmentStatus::Shipped, "WH")
    );
    assert_eq!(sent.shipment_id, released.shipment_id);
    assert_eq!(
        sent.packages[0].tracking_number.as_deref(),
        Some("1Z-TRACK")
    );
    let mut lines: Vec<_> = sent
        .lines
        .iter()
        .map(|l| (&*l.line_id, &*l.sku, l.shipped))
        .collect();
    lines.sort_unstable_by_key(|l| l.0);
    assert_eq!(
        lines,
        [("a", "SKU-0260", d("2")), ("b", "SKU-0261", d("1"))]
    );
    let moved = reader.records[told..].iter().filter(|r| {
        matches!(&r.event, Event::StockChanged(e)
            if e.reason == StockReason::Shipment && e.order_id.as_deref() == Some(&*id))
    });
    assert_eq!(moved.count(), 2, "goods name their order");

    let told = reader.records.len();
    erp.bill(&id);
    reader.drain();
    let bill: InvoiceEvent = last(&reader, told, &number, pick!(InvoiceEvent)).expect("told");
    assert_eq!(
        (
            bill.kind,
            bill.status,
            bill.net.amount,
            bill.tax,
            bill.gross
        ),
        (
            InvoiceKind::Invoice,
            InvoiceStatus::Posted,
            d("24.15"),
            d("4.83"),
            d("28.98")
        )
    );

    let told = reader.records.len();
    erp.take_back_of(&id, 1);
    reader.drain();
    let back: ReturnEvent = last(&reader, told, &number, pick!(ReturnEvent)).expect("told");
    assert_eq!(back.status, ReturnStatus::Inspected);
    assert_eq!(
        (&*back.lines[0].order_line_id, back.lines[0].accepted),
        ("a", d("1"))
    );
    let note: InvoiceEvent = last(&reader, told, &number, pick!(InvoiceEvent)).expect("told");
    assert_eq!(
        (note.kind, note.gross),
        (InvoiceKind::CreditNote, d("11.99"))
    );
    assert_eq!(note.return_id, Some(back.return_id.clone()));
    let shelved = reader.records[told..].iter().any(|r| {
        matches!(&r.event, Event::StockChanged(e)
            if e.return_id == Some(back.return_id.clone()) && e.order_id.as_deref() == Some(&*id))
    });
    assert!(shelved, "goods name their return");
}

#[test]
fn calls_that_nobody_heard_the_answer_of_leave_one_sale() {
    let Some(systems) = Systems::find() else {
        return;
    };
    let erp = Erp::log_in(&systems);
    erp.web_shop(SHOP);
    let mut next = numbers();
    let proxy = Proxy::start(&url("tryton"));
    let reader = Reader::new(settings(&erp, &proxy.url(), true));
    let sink = reader.connector.sink().expect("a sink");
    for cut in [Cut::After, Cut::Before] {
        // Party, sale, quotation, confirmation.
        for call in 0..4 {
            let number = next();
            let order = placed(&number, &format!("N-{number}"));
            let before = vec![Cut::Not; call];
            proxy.cut(&[&before[..], &[cut]].concat());
            match write(&reader, &sink, &order) {
                Err(fault) => {
                    assert!(matches!(fault.verdict, Verdict::Retry { .. }), "{fault}");
                    assert_eq!(fault.code, Code::OutcomeUnknown, "{fault}");
                }
                // It was looked for at once, and there it was.
                Ok(_) => assert!(matches!(cut, Cut::After), "call {call} was not cut"),
            }
            write(&reader, &sink, &order).expect("taken");
            let id = id_of(&number);
            assert_eq!(erp.of_sale(&id, "state"), "processing", "{cut:?} {call}");
            let total = erp.of_sale(&id, "total_amount");
            assert_eq!(total["decimal"], "28.98", "{cut:?} {call}");
            assert_eq!(erp.parties(&format!("N-{number}")), 1, "{cut:?} {call}");
        }
    }
}

#[test]
fn two_instances_at_once_make_one_sale() {
    let Some(systems) = Systems::find() else {
        return;
    };
    let erp = Erp::log_in(&systems);
    erp.web_shop(SHOP);
    let mut next = numbers();
    let numbers: Vec<String> = (0..4).map(|_| next()).collect();
    let settings = settings(&erp, &url("tryton"), true);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let reader = Reader::new(settings.clone());
                let sink = reader.connector.sink().expect("a sink");
                for number in &numbers {
                    let order = placed(number, &format!("N-{number}"));
                    // Who was too late for a step is told so; the runtime comes again.
                    while let Err(fault) = write(&reader, &sink, &order) {
                        assert!(matches!(fault.verdict, Verdict::Retry { .. }), "{fault}");
                    }
                }
            });
        }
    });
    for number in &numbers {
        assert_eq!(erp.of_sale(&id_of(number), "state"), "processing");
        assert_eq!(erp.parties(&format!("N-{number}")), 1);
    }
}

#[test]
fn what_the_erp_does_not_know_is_named_and_its_neighbour_is_taken() {
    let Some(systems) = Systems::find() else {
        return;
    };
    let erp = Erp::log_in(&systems);
    erp.web_shop(SHOP);
    let mut next = numbers();
    let reader = Reader::new(settings(&erp, &url("tryton"), true));
    let sink = reader.connector.sink().expect("a sink");
    let number = next();
    let mut unknown = placed(&number, "C002");
    unknown.order.as_mut().expect("an order").lines[1].sku = "NO-SUCH".into();
    let fault = write(&reader, &sink, &unknown).expect_err("refused");
    assert_eq!(
        (fault.verdict, fault.code),
        (Verdict::Reject, Code::UnknownReference)
    );
    for word in [&*number, "line b", "NO-SUCH"] {
        assert!(fault.message.contains(word), "{fault}");
    }
    let mut elsewhere = placed(&number, "C002");
    elsewhere.order.as_mut().expect("an order").currency = "CHF".into();
    let fault = write(&reader, &sink, &elsewhere).expect_err("refused");
    assert_eq!(fault.code, Code::UnknownReference, "{fault}");
    assert_eq!(erp.sales_of(&id_of(&number)), Vec::<Value>::new());

    let good = next();
    write(&reader, &sink, &placed(&good, "C002")).expect("taken");
    assert_eq!(erp.of_sale(&id_of(&good), "state"), "processing");
    let mut cancelled = event(&good, OrderEventType::CancelDecided, None);
    cancelled.affected = [("a", "2"), ("b", "1")]
        .map(|(line, qty)| LineQty {
            line_id: line.into(),
            qty: d(qty),
        })
        .to_vec();
    for _ in 0..2 {
        write(&reader, &sink, &cancelled).expect("nothing has left");
    }
    assert_eq!(
        erp.of_sale(&id_of(&good), "shipment_state"),
        "exception",
        "for people to close"
    );
}

#[test]
fn an_order_in_another_currency_is_sold_and_billed_in_it() {
    let Some(systems) = Systems::find() else {
        return;
    };
    let erp = Erp::log_in(&systems);
    erp.web_shop(SHOP);
    erp.sells_abroad();
    let mut settings = settings(&erp, &url("tryton"), true);
    settings["charges"] = json!({"SHIPPING": "DELIVERY"});
    let mut reader = Reader::new(settings);
    reader.drain();
    let sink = reader.connector.sink().expect("a sink");
    let number = numbers()();
    let id = id_of(&number);
    let mut abroad = placed(&number, "C005");
    let order = abroad.order.as_mut().expect("an order");
    order.currency = "EUR".into();
    order.charges = vec![OrderCharge {
        charge_id: "1".into(),
        r#type: "SHIPPING".into(),
        net: d("5"),
        tax: d("1"),
    }];
    order.grand_total += d("6");
    write(&reader, &sink, &abroad).expect("taken");
    assert_eq!(erp.of_sale(&id, "total_amount")["decimal"], "34.98");
    let told = reader.records.len();
    erp.bill(&id);
    reader.drain();
    let bill: InvoiceEvent = last(&reader, told, &number, pick!(InvoiceEvent)).expect("told");
    assert_eq!(
        (&*bill.net.currency, bill.net.amount, bill.tax, bill.gross),
        ("EUR", d("29.15"), d("5.83"), d("34.98"))
    );
    let lines: Vec<_> = bill
        .lines
        .iter()
        .map(|l| (l.order_line_id.as_deref(), l.net))
        .collect();
    let expected = [
        (Some("a"), d("19.98")),
        (Some("b"), d("4.17")),
        (None, d("5")),
    ];
    assert_eq!(lines, expected, "a charge is no line of the order");
}

#[test]
fn what_other_systems_did_is_brought_in_once() {
    let Some(systems) = Systems::find() else {
        return;
    };
    let erp = Erp::log_in(&systems);
    erp.web_shop(SHOP);
    let mut next = numbers();
    let mut settings = settings(&erp, &url("tryton"), true);
    settings["locations"] = json!({"WH": {"ships_elsewhere": true}});
    settings["post_credit_notes"] = true.into();
    settings["payments"] =
        json!({"journal": "CASH", "clearing_account": "1.1.1", "receivable_account": "1.2.1"});
    let mut reader = Reader::new(settings);
    reader.drain();
    let sink = reader.connector.sink().expect("a sink");
    let number = next();
    let id = id_of(&number);
    let meta = || EventMeta {
        source: "wms".into(),
        occurred_at: crossdock::domain::Timestamp(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("now")
                .as_micros() as i64,
        ),
        ..EventMeta::default()
    };
    let payment = PaymentEvent {
        meta: meta(),
        order_id: id.as_str().into(),
        kind: PaymentKind::Captured,
        amount: Money {
            amount: d("28.98"),
            currency: "USD".into(),
        },
        psp: "psp".into(),
        psp_reference: number.as_str().into(),
        ..PaymentEvent::default()
    };
    let early = write(&reader, &sink, &payment).expect_err("before its order");
    assert_eq!(early.code, Code::TooEarly, "{early}");
    write(&reader, &sink, &placed(&number, "C003")).expect("taken");
    let outcomes = |event: Event| {
        let taken = |_| write(&reader, &sink, &event).expect("taken").outcome;
        [0, 1].map(taken)
    };
    let once = [SinkOutcome::Acked, SinkOutcome::DuplicateAcked];
    assert_eq!(outcomes(payment.into()), once);

    // The warehouse sends in two parcels.
    let on_hand = || {
        let stock = erp.on_hand(WAREHOUSE);
        (stock["SKU-0260"], stock["SKU-0261"])
    };
    let before = on_hand();
    let parcel = |name: &str, lines: &[(&str, &str)]| ShipmentEvent {
        meta: meta(),
        order_id: id.as_str().into(),
        shipment_id: format!("{number}/{name}").into(),
        shipment_version: 1,
        node_id: "WH".into(),
        status: ShipmentStatus::Shipped,
        lines: lines
            .iter()
            .map(|(line, shipped)| ShipmentLine {
                line_id: (*line).into(),
                allocated: d(shipped),
                shipped: d(shipped),
                ..ShipmentLine::default()
            })
            .collect(),
        ..ShipmentEvent::default()
    };
    assert_eq!(outcomes(parcel("1", &[("a", "1")]).into()), once);
    assert_eq!(on_hand(), (before.0 - 1, before.1));
    assert_eq!(
        outcomes(parcel("2", &[("a", "1"), ("b", "1")]).into()),
        once
    );
    assert_eq!(on_hand(), (before.0 - 2, before.1 - 1));
    assert_eq!(erp.of_sale(&id, "shipment_state"), "sent");

    // A return is received and accepted.
    let returned = ReturnEvent {
        meta: meta(),
        order_id: id.as_str().into(),
        return_id: format!("{number}-R").into(),
        return_version: 1,
        status: ReturnStatus::Inspected,
        lines: vec![ReturnLine {
            return_line_id: "1".into(),
            order_line_id: "a".into(),
            sku: "SKU-0260".into(),
            requested: d("1"),
            received: d("1"),
            accepted: d("1"),
            disposition: Disposition::Restock,
            ..ReturnLine::default()
        }],
        ..ReturnEvent::default()
    };
    assert_eq!(outcomes(returned.into()), once);
    assert_eq!(on_hand(), (before.0 - 1, before.1 - 1));
    let back = format!("{number}-R");
    assert_eq!(erp.of_sale(&back, "total_amount")["decimal"], "-11.99");
    let refund = RefundEvent {
        meta: meta(),
        order_id: id.as_str().into(),
        refund_id: uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, number.as_bytes()),
        status: RefundStatus::Completed,
        amount: Money {
            amount: d("11.99"),
            currency: "USD".into(),
        },
        ..RefundEvent::default()
    };
    assert_eq!(outcomes(refund.into()), once);

    // What was brought in is told as the ERP's documents only where it is the ERP's to tell.
    let told = reader.records.len();
    reader.drain();
    let note: InvoiceEvent = last(&reader, told, &number, pick!(InvoiceEvent)).expect("told");
    assert_eq!(
        (note.kind, note.gross),
        (InvoiceKind::CreditNote, d("11.99"))
    );
    assert_eq!(note.return_id.as_deref(), Some(&*back));
    assert_eq!(last(&reader, told, &number, pick!(ShipmentEvent)), None);
    assert_eq!(last(&reader, told, &number, pick!(ReturnEvent)), None);
}
