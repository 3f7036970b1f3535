//! Orders of storefronts as their sources tell them, on the stand-ins.

use super::build;
use super::inbox::MemoryInbox;
use super::sources::{Reader, act, small};
use crossdock::connectors;
use crossdock::contract::event::Event;
use crossdock::contract::topic;
use crossdock::domain::order_id;
use crossdock::pipeline::{
    Clock as _, ConnectorDescriptor, Fake, FakeFault, SourceRecord, SystemClock, Verdict,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Every storefront: it tells of orders and takes availability.
pub fn storefronts() -> Vec<&'static ConnectorDescriptor> {
    let all = connectors::ALL.iter().copied();
    let found = all.filter(|d| {
        // The kind `http` could be one, by its configuration; it has no stand-in of its own.
        d.emits.contains(&topic::ORDER_LIFECYCLE)
            && d.accepts.contains(&topic::STOCK_ATS)
            && d.fake.is_some()
    });
    let found: Vec<_> = found.collect();
    assert!(found.len() >= 2, "{} storefronts", found.len());
    found
}

/// A word for each event: what happened, and how much of what.
pub fn told(record: &SourceRecord) -> String {
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
            // Lists are not due yet, so nothing is asked for them.
            let asked = reader.shards().into_iter().filter(|s| s != "listing");
            for shard in asked.collect::<Vec<_>>() {
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
