//! Stock that an ERP repeats after another system is set right in its stand-in: once, and only where it
//! still says what it said.

use super::sources::Reader;
use super::{build, sales};
use crossdock::connectors;
use crossdock::contract::event::{Correction, CorrectionKind, Event, OrderEventType, SinkOutcome};
use crossdock::contract::topic;
use crossdock::domain::Decimal;
use crossdock::pipeline::{
    Ack, Code, Connector, Delivery, Fake, FakeFault, FakeOptions, Fault, Headers, Inbound, Origin,
    Record,
};
use rand::prelude::*;
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

const SKU: &str = "S1";
const PLACE: &str = "Warehouse";

fn correction(shows: i32, should: i32) -> Correction {
    Correction {
        kind: CorrectionKind::SetStock,
        target: "under-test".into(),
        entity_key: format!("{SKU}|{PLACE}").into(),
        sku: Some(SKU.into()),
        location_id: Some(PLACE.into()),
        shows: Some(Decimal::from(shows)),
        should: Some(Decimal::from(should)),
        attempt: 1,
        correction_id: Uuid::from_u128((shows * 1_000 + should) as u128),
        ..Correction::default()
    }
}

fn delivery(event: Correction) -> Delivery {
    let record = Record {
        origin: Origin {
            topic: topic::RECON_CORRECTION.into(),
            partition: 0,
            offset: 1,
        },
        timestamp_ms: 0,
        key: Some(event.entity_key.to_string().into_bytes().into()),
        value: None,
        headers: Headers::default(),
    };
    Delivery {
        key: event.entity_key.clone(),
        inbound: Inbound {
            record,
            event: event.into(),
        },
        sent: None,
        attempt: 1,
        in_doubt: false,
    }
}

/// Connectors that correct stock and have a stand-in.
const KINDS: [&str; 2] = ["tryton", "odoo"];

struct Mirror {
    kind: &'static str,
    fake: Box<dyn Fake>,
    connector: Arc<dyn Connector>,
}

impl Mirror {
    /// An ERP that has this much.
    async fn with(kind: &'static str, units: i32) -> Mirror {
        let descriptor = connectors::find(kind).expect("a connector");
        let options = FakeOptions {
            skus: vec![SKU.to_owned()],
            ..FakeOptions::default()
        };
        let fake = descriptor.fake.expect("a stand-in")(options);
        let fake = fake.await.expect("started");
        let connector = build(descriptor, fake.settings());
        let mirror = Mirror {
            kind,
            fake,
            connector,
        };
        mirror.act("receive", units);
        mirror
            .fake
            .act(&json!({"faults_on": "changes"}))
            .expect("set");
        mirror
    }

    fn act(&self, what: &str, units: i32) {
        let act = json!({what: SKU, "location": PLACE, "quantity": units});
        self.fake.act(&act).expect("done");
    }

    fn has(&self) -> f64 {
        let books = self.fake.books();
        books[SKU][PLACE].as_f64().unwrap_or_default()
    }

    async fn write(&self, event: Correction) -> Result<Ack, Fault> {
        let sink = self.connector.sink().expect("a sink");
        sink.write(&[delivery(event)]).await.remove(0)
    }
}

fn ended(result: &Result<Ack, Fault>) -> String {
    match result {
        Ok(ack) => format!("{:?}", ack.outcome),
        Err(fault) => fault.code.to_string(),
    }
}

#[tokio::test]
async fn a_mirror_is_set_right_once_and_tells_a_count_that_agrees() {
    for kind in KINDS {
        let mirror = Mirror::with(kind, 10).await;
        let descriptor = connectors::find(mirror.kind).expect("a connector");
        let mut reader = Reader::new(descriptor, mirror.fake.settings());
        reader.drain().await;
        let done = mirror.write(correction(10, 13)).await;
        assert_eq!((ended(&done), mirror.has()), ("Acked".into(), 13.0));
        let again = mirror.write(correction(10, 13)).await;
        assert_eq!(
            (ended(&again), mirror.has()),
            ("DuplicateAcked".into(), 13.0)
        );
        // Down again, below what the storage of the warehouse alone would say.
        let down = mirror.write(correction(13, 0)).await;
        assert_eq!((ended(&down), mirror.has()), ("Acked".into(), 0.0));

        reader.drain().await;
        let counted = reader.records();
        let mut counts = counted.iter().filter_map(|r| match &r.event {
            Event::StockSnapshot(e) => Some(e.sellable),
            _ => None,
        });
        assert_eq!(
            counts.next_back(),
            Some(Decimal::ZERO),
            "the case can close"
        );
    }
}

#[tokio::test]
async fn a_mirror_that_says_something_else_by_now_is_left_alone() {
    for kind in KINDS {
        let mirror = Mirror::with(kind, 10).await;
        mirror.act("sell", 1);
        let done = mirror.write(correction(10, 13)).await;
        assert_eq!((ended(&done), mirror.has()), ("StaleSkipped".into(), 9.0));
    }
}

#[tokio::test]
async fn names_that_mean_nothing_are_named() {
    for kind in KINDS {
        let mirror = Mirror::with(kind, 10).await;
        let mut event = correction(10, 13);
        event.sku = Some("NOBODY".into());
        let refused = mirror.write(event).await.expect_err("no such product");
        assert_eq!(refused.code, Code::UnknownReference, "{refused}");
        let mut event = correction(10, 13);
        event.location_id = Some("moon".into());
        let refused = mirror.write(event).await.expect_err("no such location");
        assert!(refused.message.contains("moon"), "{refused}");
        let mut event = correction(10, 13);
        event.should = None;
        let refused = mirror.write(event).await.expect_err("half a correction");
        assert_eq!(refused.code, Code::DataQuality, "{refused}");
        assert_eq!(mirror.has(), 10.0);
    }
}

/// Calls that fail before or after their effect, and sales in between: the effect is one, and no sale
/// is lost in it.
#[tokio::test]
async fn whatever_call_fails_the_difference_is_booked_once() {
    for kind in KINDS {
        for seed in 0..60 {
            let mut random = StdRng::seed_from_u64(seed);
            let mirror = Mirror::with(kind, 20).await;
            let (shows, should) = (20, random.random_range(0..40));
            let mut sold = 0;
            for _ in 0..12 {
                let faults =
                    (0..random.random_range(0..3)).map(|_| match random.random_range(0..3) {
                        0 => FakeFault::Cut,
                        1 => FakeFault::Status(503, None),
                        _ => FakeFault::AppliedThenCut,
                    });
                mirror.fake.inject(faults.collect());
                let result = mirror.write(correction(shows, should)).await;
                mirror.fake.inject(Vec::new());
                match result {
                    Ok(_) => break,
                    Err(fault) => assert!(
                        matches!(fault.verdict, crossdock::pipeline::Verdict::Retry { .. }),
                        "seed {seed}: {fault}"
                    ),
                }
                if sold == 0 && random.random_bool(0.2) {
                    mirror.act("sell", 1);
                    sold = 1;
                }
            }
            let done = mirror.write(correction(shows, should)).await;
            assert!(done.is_ok(), "seed {seed}: {done:?}");
            let has = mirror.has() + f64::from(sold);
            let either = [f64::from(shows), f64::from(should)];
            assert!(either.contains(&has), "seed {seed}: {has} of {either:?}");
            if sold == 0 {
                assert_eq!(has, f64::from(should), "seed {seed}");
            }
        }
    }
}

#[tokio::test]
async fn only_its_own_corrections_are_taken_and_only_if_asked_for() {
    for kind in KINDS {
        let mirror = Mirror::with(kind, 1).await;
        let inbound = |event: Correction| delivery(event).inbound;
        let sink = mirror.connector.sink().expect("a sink");
        assert!(sink.wants(&inbound(correction(1, 2))));
        let mut other = correction(1, 2);
        other.target = "another".into();
        assert!(!sink.wants(&inbound(other)));
        let mut replay = correction(1, 2);
        replay.kind = CorrectionKind::ReplayOrder;
        replay.order_id = Some("order-7".into());
        for (target, is_meant) in [("under-test", true), ("", true), ("another", false)] {
            replay.target = target.into();
            let asked = sink.replays(&inbound(replay.clone()));
            assert_eq!(sink.wants(&inbound(replay.clone())), is_meant, "{target}");
            let order = asked.map(|a| a.order.to_string());
            assert_eq!(order.as_deref(), is_meant.then_some("order-7"), "{target}");
        }
        let descriptor = connectors::find(mirror.kind).expect("a connector");
        let mut settings = mirror.fake.settings();
        settings["correct_stock"] = json!(false);
        let sink = build(descriptor, settings.clone()).sink().expect("a sink");
        assert!(!sink.wants(&inbound(correction(1, 2))));
        settings["channels"] = json!({});
        assert!(build(descriptor, settings.clone()).sink().is_none());
        settings["correct_stock"] = json!(true);
        let sink = build(descriptor, settings).sink().expect("a sink");
        replay.target = "".into();
        assert!(
            !sink.wants(&inbound(replay)),
            "it keeps no orders, so it lacks none"
        );
    }
}

#[tokio::test]
async fn a_sale_that_is_one_too_many_is_cancelled_once_and_the_order_does_not_hear_of_it() {
    for kind in KINDS {
        let descriptor = connectors::find(kind).expect("a connector");
        let start = descriptor.fake.expect("a stand-in");
        let options = FakeOptions {
            skus: vec!["A".into()],
            ..FakeOptions::default()
        };
        let fake = start(options).await.expect("it starts");
        let connector = build(descriptor, fake.settings());
        let sink = connector.sink().expect("a sink");
        let duplicate = |number: &str, external: &str| Correction {
            kind: CorrectionKind::CancelDuplicate,
            target: "under-test".into(),
            entity_key: sales::id_of(number).into(),
            order_id: Some(sales::id_of(number).into()),
            external_id: Some(external.into()),
            attempt: 1,
            ..Correction::default()
        };
        let write = async |event: Correction| sink.write(&[delivery(event)]).await.remove(0);
        let mut numbers = Vec::new();
        for number in ["D-1", "D-2"] {
            let order = sales::placed(number, &[("A", "2", "10", "4", "24")]);
            let order = sales::delivery(topic::ORDER_LIFECYCLE, &order.order_id, order.clone());
            let taken = sink.write(&[order]).await.remove(0).expect("taken");
            numbers.push(taken.external_id.expect("a number"));
        }
        assert!(sink.wants(&delivery(duplicate("D-1", &numbers[0])).inbound));
        let mut other = duplicate("D-1", &numbers[0]);
        other.target = "another".into();
        assert!(!sink.wants(&delivery(other).inbound));
        // The number of another order's sale cancels nothing.
        let none = write(duplicate("D-1", &numbers[1])).await.expect("settled");
        assert_eq!(none.outcome, SinkOutcome::StaleSkipped);
        let done = write(duplicate("D-1", &numbers[0])).await.expect("done");
        assert_eq!(done.outcome, SinkOutcome::Acked);
        let again = write(duplicate("D-1", &numbers[0])).await.expect("settled");
        assert_eq!(again.outcome, SinkOutcome::DuplicateAcked);
        let shipped = json!({"fulfil": sales::id_of("D-2"), "buttons": ["assign_force", "pick", "pack", "do"]});
        fake.act(&shipped).expect("shipped");
        let late = write(duplicate("D-2", &numbers[1]))
            .await
            .expect_err("too late");
        assert_eq!(late.code, Code::IllegalTransition, "{late}");
        let mut reader = Reader::new(descriptor, fake.settings());
        reader.drain().await;
        let rejected = reader.records().into_iter().any(
            |r| matches!(&r.event, Event::OrderEvent(e) if e.r#type == OrderEventType::Rejected),
        );
        assert!(!rejected, "the order itself is not given up");
    }
}
