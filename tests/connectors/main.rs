//! One suite that every connector passes.

mod catalogue;
mod corrections;
mod customers;
mod documents;
mod elsewhere;
mod erps;
mod generic;
#[path = "../support/inbox.rs"]
mod inbox;
mod lists;
mod odoo;
mod orders;
mod orders_kept;
mod psp;
mod reports;
mod sales;
mod sources;
mod tryton;
mod webhook;

use crossdock::connectors;
use crossdock::contract::event::{AvailabilityChanged, Event, EventMeta, SinkOutcome};
use crossdock::contract::topic;
use crossdock::domain::Decimal;
use crossdock::pipeline::{
    Code, Connector, ConnectorDescriptor, Delivery, Fake, FakeFault, FakeOptions, Headers, Inbound,
    Origin, Record, Sent, Sink, Verdict,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const SKUS: [&str; 4] = ["A", "B", "C", "D"];

async fn fake(descriptor: &ConnectorDescriptor) -> Option<Box<dyn Fake>> {
    let start = descriptor.fake?;
    let options = FakeOptions {
        skus: SKUS.map(str::to_owned).to_vec(),
        ..FakeOptions::default()
    };
    Some(start(options).await.expect("the stand-in starts"))
}

fn build(descriptor: &ConnectorDescriptor, settings: Value) -> Arc<dyn Connector> {
    (descriptor.build)("under-test", settings).expect("built")
}

fn delivery(sku: &str, quantity: i32, version: i64, sent: Option<Sent>) -> Delivery {
    let event = AvailabilityChanged {
        meta: EventMeta {
            event_type: "AvailabilityChanged".into(),
            ..EventMeta::default()
        },
        sku: sku.into(),
        channel_id: "web".into(),
        ats_version: version,
        ats: Decimal::from(quantity),
        ..AvailabilityChanged::default()
    };
    let record = Record {
        origin: Origin {
            topic: topic::STOCK_ATS.into(),
            partition: 0,
            offset: version,
        },
        timestamp_ms: 0,
        key: Some(format!("{sku}|web").into_bytes().into()),
        value: None,
        headers: Headers::default(),
    };
    let inbound = Inbound {
        record,
        event: Event::AvailabilityChanged(event),
    };
    Delivery {
        key: format!("{sku}|web").into(),
        inbound,
        sent,
        attempt: 1,
        in_doubt: false,
    }
}

fn shown(fake: &dyn Fake, sku: &str) -> Option<i64> {
    fake.books()[sku].as_i64()
}

fn sinks() -> impl Iterator<Item = &'static ConnectorDescriptor> {
    let all = connectors::ALL.iter().copied();
    // What the kind `http` sends stands in its configuration: `generic` tries it.
    let own = all.filter(|d| d.kind != "http");
    own.filter(|d| d.accepts.contains(&topic::STOCK_ATS))
}

/// Runs `test` on the sink of every connector that has one and a stand-in.
async fn each_sink<F: AsyncFn(&'static str, Arc<dyn Sink>, &dyn Fake)>(test: F) {
    let mut tested = 0;
    for descriptor in sinks() {
        let fake = fake(descriptor)
            .await
            .unwrap_or_else(|| panic!("{} has a sink and no stand-in", descriptor.kind));
        let sink = build(descriptor, fake.settings()).sink().expect("a sink");
        test(descriptor.kind, sink, fake.as_ref()).await;
        tested += 1;
    }
    assert!(tested >= 2, "{tested} sinks tested");
}

#[test]
fn every_setting_is_documented_and_unknown_ones_are_refused() {
    for d in connectors::ALL {
        let schema = (d.settings)().to_value();
        let fields = schema["properties"].as_object().expect("settings");
        for (name, field) in fields {
            let documented = field["description"].as_str().is_some_and(|t| t.len() > 5);
            assert!(documented, "{}: {name} has no documentation", d.kind);
        }
        assert_eq!(
            schema["additionalProperties"], false,
            "{}: unknown settings are taken",
            d.kind
        );
        let mut settings = serde_json::Map::new();
        settings.insert("no_such_setting".into(), 1.into());
        let refused = (d.build)("x", Value::Object(settings))
            .err()
            .expect("refused");
        assert_eq!(
            (refused.verdict, refused.code),
            (Verdict::Halt, Code::Configuration),
            "{}",
            d.kind
        );
        assert!(
            !d.purpose.is_empty() && (!d.emits.is_empty() || !d.accepts.is_empty()),
            "{}",
            d.kind
        );
    }
}

#[tokio::test]
async fn literal_secrets_are_refused_and_not_repeated() {
    let mut tried = 0;
    for d in connectors::ALL {
        let Some(fake) = fake(d).await else {
            continue;
        };
        let schema = (d.settings)().to_value();
        for (name, field) in schema["properties"].as_object().expect("settings") {
            if field["$ref"]
                .as_str()
                .is_some_and(|r| r.ends_with("Secret"))
                || field["allOf"][0]["$ref"]
                    .as_str()
                    .is_some_and(|r| r.ends_with("Secret"))
            {
                tried += 1;
                let mut settings = fake.settings();
                settings[name] = "canary-secret".into();
                let refused = (d.build)("x", settings).err().expect("refused").to_string();
                assert!(
                    refused.contains("${env:NAME}") && !refused.contains("canary-secret"),
                    "{}: {refused}",
                    d.kind
                );
            }
        }
    }
    assert!(tried >= 2, "{tried} secrets tried");
}

#[tokio::test]
async fn check_tells_what_works_and_what_does_not() {
    for d in connectors::ALL {
        let Some(fake) = fake(d).await else { continue };
        let checks = build(d, fake.settings()).check().await;
        assert!(
            !checks.is_empty() && checks.iter().all(|c| c.result.is_ok()),
            "{}: {checks:?}",
            d.kind
        );
        fake.set_down(true);
        let checks = build(d, fake.settings()).check().await;
        assert!(
            checks.iter().any(|c| c.result.is_err()),
            "{}: a system that is down passes",
            d.kind
        );
        let url = fake.url();
        let connector = build(d, fake.settings());
        drop(fake);
        let checks = connector.check().await;
        let said = checks.iter().find_map(|c| c.result.as_ref().err());
        let said = said.unwrap_or_else(|| panic!("{}: a system that is gone passes", d.kind));
        assert!(
            said.contains(&url) && said.contains("start it, or mend `url`"),
            "{}: {said}",
            d.kind
        );
    }
}

#[tokio::test]
async fn a_quantity_reaches_the_books_once_however_often_it_is_sent() {
    each_sink(async |kind, sink, fake| {
        for _ in 0..3 {
            let results = sink
                .write(&[delivery("A", 7, 1, None), delivery("B", 0, 1, None)])
                .await;
            assert!(
                results
                    .iter()
                    .all(|r| r.as_ref().is_ok_and(|a| a.outcome == SinkOutcome::Acked)),
                "{kind}: {results:?}"
            );
        }
        assert_eq!(
            (shown(fake, "A"), shown(fake, "B")),
            (Some(7), Some(0)),
            "{kind}"
        );
    })
    .await;
}

#[tokio::test]
async fn what_was_sent_or_is_older_is_not_sent_again() {
    each_sink(async |kind, sink, fake| {
        let first = sink
            .write(&[delivery("A", 7, 5, None)])
            .await
            .remove(0)
            .expect("taken");
        let sent = Sent {
            version: first.version,
            external_id: first.external_id,
            digest: first.digest,
        };
        let calls = fake.calls().len();
        let older = sink
            .write(&[delivery("A", 9, 4, Some(sent.clone()))])
            .await
            .remove(0)
            .expect("settled");
        assert_eq!(older.outcome, SinkOutcome::StaleSkipped, "{kind}");
        let equal = sink
            .write(&[delivery("A", 7, 6, Some(sent))])
            .await
            .remove(0)
            .expect("settled");
        assert_eq!(equal.outcome, SinkOutcome::DuplicateAcked, "{kind}");
        assert_eq!(
            (fake.calls().len(), shown(fake, "A")),
            (calls, Some(7)),
            "{kind}: a call was made"
        );
    })
    .await;
}

#[tokio::test]
async fn a_quantity_that_the_shop_has_changed_is_sent_again() {
    each_sink(async |kind, sink, fake| {
        let first = sink.write(&[delivery("A", 7, 1, None)]).await.remove(0);
        let first = first.expect("taken");
        let sent = Sent {
            version: first.version,
            external_id: first.external_id,
            digest: first.digest,
        };
        fake.act(&json!({"hold": "A", "quantity": 1}))
            .expect("held");
        assert_eq!(shown(fake, "A"), Some(6), "{kind}: the shop sold one");
        let again = sink.write(&[delivery("A", 7, 2, Some(sent))]).await;
        assert_eq!(
            again[0].as_ref().map(|a| a.outcome).ok(),
            Some(SinkOutcome::Acked),
            "{kind}: {again:?}"
        );
        assert_eq!(shown(fake, "A"), Some(7), "{kind}");
    })
    .await;
}

#[tokio::test]
async fn customers_see_no_stock_beside_what_is_published() {
    for descriptor in sinks() {
        let start = descriptor.fake.expect("a stand-in");
        let fake = start(FakeOptions {
            skus: SKUS.map(str::to_owned).to_vec(),
            locations: ["Warehouse", "Store"].map(str::to_owned).to_vec(),
            ..FakeOptions::default()
        });
        let fake = fake.await.expect("the stand-in starts");
        let kind = descriptor.kind;
        fake.act(&json!({"stock": "A", "location": "Store", "quantity": 20}))
            .expect("stocked");
        let settings = fake.settings();
        let sink = build(descriptor, settings.clone()).sink().expect("a sink");
        let taken = sink.write(&[delivery("A", 5, 1, None)]).await.remove(0);
        assert!(taken.is_ok(), "{kind}: {taken:?}");
        assert_eq!(shown(fake.as_ref(), "A"), Some(5), "{kind}");

        // A location that customers see and nobody named stops everything before a wrong number shows.
        let calls = fake.calls().len();
        let mut unnamed = settings.clone();
        unnamed["empty_locations"] = json!([]);
        let mut unknown = settings;
        unknown["empty_locations"] = json!(["Store", "Attic"]);
        for (settings, cause) in [(unnamed, "Store"), (unknown, "Attic")] {
            let connector = build(descriptor, settings);
            let sink = connector.sink().expect("a sink");
            let fault = sink.write(&[delivery("B", 5, 1, None)]).await.remove(0);
            let fault = fault.expect_err("halted");
            assert_eq!(
                (fault.verdict, fault.code),
                (Verdict::Halt, Code::Configuration)
            );
            let checks = connector.check().await;
            for said in [
                fault.message,
                checks[0].result.clone().expect_err("it fails"),
            ] {
                assert!(
                    said.contains(cause) && said.contains("`empty_locations`"),
                    "{kind}: {said}"
                );
            }
        }
        assert_eq!(fake.calls().len(), calls, "{kind}: a call was made");
    }
}

#[tokio::test]
async fn a_product_whose_stock_the_shop_does_not_count_is_named() {
    each_sink(async |kind, sink, fake| {
        fake.act(&json!({"untrack": "B"})).expect("untracked");
        let batch = ["A", "B", "C"].map(|sku| delivery(sku, 5, 1, None));
        let results = sink.write(&batch).await;
        assert!(results[0].is_ok() && results[2].is_ok(), "{kind}");
        let fault = results[1].as_ref().expect_err("refused");
        assert_eq!(fault.verdict, Verdict::Reject, "{kind}");
        assert!(fault.message.contains("any quantity"), "{kind}: {fault}");
    })
    .await;
}

#[tokio::test]
async fn a_session_that_ended_is_renewed() {
    each_sink(async |kind, sink, fake| {
        for version in 1..4 {
            let quantity = 10 * version as i32;
            let taken = sink.write(&[delivery("A", quantity, version, None)]).await;
            assert!(taken[0].is_ok(), "{kind}: {taken:?}");
            assert_eq!(shown(fake, "A"), Some(i64::from(quantity)), "{kind}");
            fake.act(&json!({"end_sessions": true})).expect("ended");
        }
    })
    .await;
}

#[tokio::test]
async fn one_bad_record_does_not_touch_its_neighbours() {
    each_sink(async |kind, sink, fake| {
        let results = sink
            .write(&[
                delivery("A", 1, 1, None),
                delivery("no such sku", 2, 1, None),
                delivery("C", 3, 1, None),
            ])
            .await;
        let verdicts: Vec<_> = results
            .iter()
            .map(|r| r.as_ref().err().map(|f| f.verdict))
            .collect();
        assert_eq!(verdicts, [None, Some(Verdict::Reject), None], "{kind}");
        assert_eq!(
            (shown(fake, "A"), shown(fake, "C")),
            (Some(1), Some(3)),
            "{kind}"
        );
    })
    .await;
}

#[tokio::test]
async fn every_fault_has_its_verdict_and_leaves_one_effect() {
    each_sink(async |kind, sink, fake| {
        let wait = Duration::from_secs(3);
        let cases = [
            (FakeFault::Status(500, None), Verdict::Retry { after: None }),
            (
                FakeFault::Status(429, Some(wait)),
                Verdict::Retry { after: Some(wait) },
            ),
            (
                FakeFault::Status(503, Some(wait)),
                Verdict::Retry { after: Some(wait) },
            ),
            (FakeFault::Cut, Verdict::Retry { after: None }),
            (FakeFault::AppliedThenCut, Verdict::Retry { after: None }),
            (FakeFault::Garbage, Verdict::Retry { after: None }),
            (FakeFault::Status(400, None), Verdict::Reject),
        ];
        for (version, (fault, verdict)) in cases.into_iter().enumerate() {
            let (version, quantity) = (version as i64 + 1, version as i32 + 10);
            fake.inject(vec![fault.clone()]);
            let result = sink
                .write(&[delivery("A", quantity, version, None)])
                .await
                .remove(0);
            assert_eq!(
                result.err().map(|f| f.verdict),
                Some(verdict),
                "{kind}: {fault:?}"
            );
            let again = sink
                .write(&[delivery("A", quantity, version, None)])
                .await
                .remove(0);
            assert!(again.is_ok(), "{kind} after {fault:?}: {again:?}");
            assert_eq!(
                shown(fake, "A"),
                Some(i64::from(quantity)),
                "{kind} after {fault:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_system_that_is_down_is_waited_for() {
    each_sink(async |kind, sink, fake| {
        fake.set_down(true);
        let fault = sink
            .write(&[delivery("A", 1, 1, None)])
            .await
            .remove(0)
            .expect_err("down");
        assert!(
            matches!(fault.verdict, Verdict::Retry { .. }),
            "{kind}: {fault}"
        );
        fake.set_down(false);
        assert!(
            sink.write(&[delivery("A", 1, 1, None)])
                .await
                .remove(0)
                .is_ok(),
            "{kind}"
        );
    })
    .await;
}

#[tokio::test]
async fn stock_that_the_shop_itself_holds_for_orders_is_left_to_it() {
    each_sink(async |kind, sink, fake| {
        // Nothing can be held where there is no stock yet.
        let first = sink.write(&[delivery("A", 9, 1, None)]).await.remove(0);
        assert!(first.is_ok(), "{kind}: {first:?}");
        fake.act(&json!({"hold": "A", "quantity": 2}))
            .expect("held");
        sink.write(&[delivery("A", 5, 2, None)])
            .await
            .remove(0)
            .expect("taken");
        assert_eq!(
            shown(fake, "A"),
            Some(5),
            "{kind}: what customers can buy is what is available"
        );
    })
    .await;
}
