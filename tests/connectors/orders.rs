//! Orders of storefronts: what their sources tell and their sinks do, on the stand-ins.

use super::inbox::MemoryInbox;
use super::sources::{Reader, act, small};
use super::{build, fake};
use crossdock::connectors;
use crossdock::contract::event::{
    Event, Fulfilment, LineState, Milestone, MilestoneKind, Money, OrderEventType, OrderState,
    OrderStatus, Package, PaymentKind, RefundEvent, RefundStatus, ShipmentLine, ShipmentState,
    SinkOutcome,
};
use crossdock::contract::topic;
use crossdock::domain::{Decimal, Timestamp, order_id};
use crossdock::pipeline::{
    Ack, Clock as _, Code, ConnectorDescriptor, Delivery, Fake, FakeFault, Fault, Headers, Inbound,
    Origin, Record, Sink, SourceRecord, SystemClock, Verdict,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Every storefront: it tells of orders and takes availability.
fn storefronts() -> Vec<&'static ConnectorDescriptor> {
    let all = connectors::ALL.iter().copied();
    let found = all.filter(|d| {
        d.emits.contains(&topic::ORDER_LIFECYCLE) && d.accepts.contains(&topic::STOCK_ATS)
    });
    let found: Vec<_> = found.collect();
    assert!(found.len() >= 2, "{} storefronts", found.len());
    found
}

fn decimal(text: &str) -> Decimal {
    text.parse().expect("a number")
}

/// A word for each event: what happened, and how much of what.
fn told(record: &SourceRecord) -> String {
    match &record.event {
        Event::OrderEvent(e) => {
            let lines = e.affected.iter().map(|l| l.qty.to_string());
            let lines = lines.collect::<Vec<_>>().join("+");
            let total = e.order.as_ref().map(|o| o.grand_total.to_string());
            format!("{} {}{lines}", e.r#type, total.unwrap_or_default())
        }
        Event::PaymentEvent(e) => format!("{} {}", e.kind.symbol(), e.amount.amount),
        Event::RefundRequest(e) => format!("ISSUED {}", e.amount.amount),
        other => panic!("{} of a storefront", other.contract()),
    }
}

fn of_order(records: &[&SourceRecord], number: &Value) -> Vec<String> {
    let number = number.as_str().expect("a number");
    let key = order_id("default", "web", number).to_string();
    let mut words: Vec<String> = records
        .iter()
        .filter(|r| *r.key == *key)
        .map(|r| told(r))
        .collect();
    words.sort();
    words
}

fn ids(records: &[&SourceRecord]) -> BTreeSet<String> {
    records
        .iter()
        .map(|r| format!("{} {} {:?}", r.topic, r.key, r.event))
        .collect()
}

/// A day in a shop: an order for each thing that can become of one.
fn trade(fake: &dyn Fake) -> Vec<Value> {
    // All of them share a stamp.
    act(fake, json!({"freeze": true}));
    let place = |captured| {
        act(
            fake,
            json!({"place": {"S00": 3, "S01": 1}, "captured": captured}),
        )
    };
    let orders: Vec<Value> = [true, false, true, true, false].map(place).to_vec();
    act(fake, json!({"freeze": false}));
    act(fake, json!({"capture": orders[1]}));
    act(fake, json!({"refund": orders[2], "amount": "1.25"}));
    act(
        fake,
        json!({"take_out": orders[3], "sku": "S00", "quantity": 2}),
    );
    act(fake, json!({"cancel_order": orders[4]}));
    orders
}

#[tokio::test]
async fn what_happens_to_an_order_in_the_shop_is_told_once_in_the_words_of_retail() {
    for descriptor in storefronts() {
        let (fake, settings) = small(descriptor).await;
        let mut reader = Reader::new(descriptor, settings);
        reader.drain().await;
        let orders = trade(fake.as_ref());
        reader.drain().await;
        let records = reader.records();
        // 3 × 5.03 + 1 × 5.04, shipping 5.00, 20 % on all of it.
        let total = "30.16";
        let placed = format!("PLACED {total}");
        let paid = [format!("AUTHORISED {total}"), format!("CAPTURED {total}")];
        let expected = |more: &[&str]| {
            let mut all = vec![placed.clone()];
            all.extend(paid.clone());
            all.extend(more.iter().map(|m| (*m).to_owned()));
            all.sort();
            all
        };
        let kind = descriptor.kind;
        let unique = |number| {
            let mut words = of_order(&records, number);
            words.dedup();
            words
        };
        assert_eq!(unique(&orders[0]), expected(&[]), "{kind}");
        assert_eq!(unique(&orders[1]), expected(&[]), "{kind}");
        let refunded = ["REFUNDED 1.25", "ISSUED 1.25"];
        assert_eq!(unique(&orders[2]), expected(&refunded), "{kind}");
        assert_eq!(
            unique(&orders[3]),
            expected(&["CANCEL_DECIDED 2"]),
            "{kind}"
        );
        let cancelled = unique(&orders[4]);
        assert!(
            cancelled.contains(&"CANCEL_DECIDED 3+1".to_owned()),
            "{kind}: {cancelled:?}"
        );
        for record in &records {
            assert!(
                descriptor.emits.contains(&record.topic),
                "{kind}: {}",
                record.topic
            );
            let said = format!("{:?}", record.event);
            assert!(!said.contains('@'), "{kind}: a person is named: {said}");
        }
        // Fulfilments of people move the order, and say nothing new about it.
        let before = reader.records().len();
        reader.drain().await;
        assert_eq!(reader.records().len(), before, "{kind}");

        // Whoever reads it all again, later, tells the same facts of the same identity.
        let mut again = Reader::new(descriptor, fake.settings());
        again.drain().await;
        assert_eq!(ids(&again.records()), ids(&reader.records()), "{kind}");
    }
}

#[tokio::test]
async fn a_crash_or_a_fault_in_mid_poll_loses_no_order() {
    for descriptor in storefronts() {
        let (fake, settings) = small(descriptor).await;
        trade(fake.as_ref());
        let mut whole = Reader::new(descriptor, settings.clone());
        whole.drain().await;
        let mut crashing = Reader::new(descriptor, settings.clone());
        for shard in crashing.shards() {
            for _ in 0..5 {
                crashing.poll(&shard, true).await.expect("polled");
                crashing.poll(&shard, false).await.expect("polled");
            }
        }
        crashing.drain().await;
        assert_eq!(
            ids(&crashing.records()),
            ids(&whole.records()),
            "{}",
            descriptor.kind
        );
        act(fake.as_ref(), json!({"reads_fail": true}));
        let wait = Duration::from_secs(3);
        for fault in [
            FakeFault::Status(500, None),
            FakeFault::Status(429, Some(wait)),
            FakeFault::Cut,
            FakeFault::AppliedThenCut,
            FakeFault::Garbage,
        ] {
            let mut reader = Reader::new(descriptor, settings.clone());
            for shard in reader.shards() {
                for before in 0..3 {
                    let slow = vec![FakeFault::Slow(Duration::ZERO); before];
                    fake.inject(slow.into_iter().chain([fault.clone()]).collect());
                    let mut seen = None;
                    for _ in 0..100 {
                        if let Err(fault) = reader.poll(&shard, false).await {
                            seen = Some(fault.verdict);
                            break;
                        }
                    }
                    let retry = matches!(seen, Some(Verdict::Retry { .. }));
                    assert!(retry, "{}: {fault:?}: {seen:?}", descriptor.kind);
                }
            }
            reader.drain().await;
            assert_eq!(
                ids(&reader.records()),
                ids(&whole.records()),
                "{}: {fault:?}",
                descriptor.kind
            );
        }
    }
}

#[tokio::test]
async fn orders_from_before_the_beginning_and_payments_that_others_tell_are_left_out() {
    for descriptor in storefronts() {
        let (fake, mut settings) = small(descriptor).await;
        trade(fake.as_ref());
        settings["orders"] = json!({"since": "2030-01-01T00:00:00Z"});
        let mut reader = Reader::new(descriptor, settings.clone());
        reader.drain().await;
        assert_eq!(reader.records().len(), 0, "{}", descriptor.kind);
        settings["orders"] = json!({"provider_tells": ["card", "pp_card"]});
        let mut reader = Reader::new(descriptor, settings.clone());
        reader.drain().await;
        let records = reader.records();
        assert!(records.iter().any(|r| r.topic == topic::ORDER_LIFECYCLE));
        assert!(
            records.iter().all(|r| r.topic == topic::ORDER_LIFECYCLE),
            "{}",
            descriptor.kind
        );
        settings["orders"] = json!({"since": "yesterday"});
        let refused = (descriptor.build)("x", settings).err().expect("refused");
        assert!(refused.message.contains("orders.since"), "{refused}");
    }
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

/// Signs a delivery by the Standard Webhooks specification and sends it; gives the answer's status.
async fn deliver(url: &str, secret: &str, id: &str, body: &str) -> u16 {
    use base64::Engine as _;
    use hmac::{KeyInit as _, Mac as _};
    let key = base64::engine::general_purpose::STANDARD
        .decode(secret)
        .expect("base64");
    let at = SystemClock.now().as_millis() / 1_000;
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key).expect("a key");
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    let request = reqwest::Client::new()
        .post(url)
        .header("webhook-id", id)
        .header("webhook-timestamp", at)
        .header("webhook-signature", format!("v1,{signature}"));
    let answer = request.body(body.to_owned()).send().await;
    answer.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn an_order_that_a_webhook_names_is_told_at_once_and_by_the_list_no_second_time() {
    const SECRET: &str = "c2VjcmV0IG9mIHRoZSBzaG9wIHRoYXQgc2VuZHM=";
    for descriptor in storefronts() {
        let (fake, mut settings) = small(descriptor).await;
        let secret = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(secret.path(), SECRET).expect("written");
        let reference = format!("${{file:{}}}", secret.path().display());
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let listen = port.local_addr().expect("bound").to_string();
        drop(port);
        settings["webhook"] =
            json!({"listen": listen, "secrets": [reference], "inbox_keys": [reference]});
        assert!(
            descriptor.inbox,
            "{} keeps deliveries nowhere",
            descriptor.kind
        );
        let connector = build(descriptor, settings);
        let inbox = Arc::new(MemoryInbox::default());
        let mut source = connector.source().expect("a source");
        source.open(inbox.clone()).expect("it listens");
        let shard = source.shards().remove(0);
        let first = source.poll(&shard, None).await.expect("polled").cursor;

        let number = act(
            fake.as_ref(),
            json!({"place": {"S00": 1}, "captured": true}),
        );
        let id = act(fake.as_ref(), json!({"show": number}))["id"].clone();
        let body = match descriptor.kind {
            "vendure" => json!({"type": "OrderPlacedEvent", "order": {"id": id}}),
            _ => json!({"name": "order.placed", "data": {"id": id}}),
        };
        let url = format!("http://{listen}/");
        let forged = deliver(
            &url,
            "d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmc=",
            "m0",
            &body.to_string(),
        )
        .await;
        assert_eq!(
            (forged, inbox.kept().len()),
            (401, 0),
            "{}",
            descriptor.kind
        );
        for (name, kept) in [("m1", 1), ("m1", 2), ("m2", 3)] {
            let status = deliver(&url, SECRET, name, &body.to_string()).await;
            assert_eq!(status, 200, "{}", descriptor.kind);
            assert!(inbox.kept().len() <= kept, "durable before it is answered");
        }
        assert!(!inbox.kept().is_empty(), "{}", descriptor.kind);
        source.woken().await;
        let batch = source.poll(&shard, Some(&first)).await.expect("polled");
        let words: Vec<String> = batch.records.iter().map(told).collect();
        let placed = words.iter().filter(|w| w.starts_with("PLACED")).count();
        assert_eq!(placed, 1, "{}: {words:?}", descriptor.kind);
        // Whoever goes on from there tells nothing twice; whoever has to begin again tells the same.
        let after = source
            .poll(&shard, Some(&batch.cursor))
            .await
            .expect("polled");
        assert_eq!(after.records, [], "{}", descriptor.kind);
        let mut other = connector.source().expect("a source");
        drop(source);
        other.open(inbox).expect("it listens");
        let again = other.poll(&shard, Some(&first)).await.expect("polled");
        assert_eq!(again.records, batch.records, "{}", descriptor.kind);
    }
}
