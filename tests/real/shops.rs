//! The sinks against the storefronts themselves: what customers can buy equals what is published.

use crate::proxy::{Cut, Proxy};
use crate::support::{Shop, skus};
use crate::systems::{Systems, url};
use crossdock::connectors;
use crossdock::contract::event::{AvailabilityChanged, Event, SinkOutcome};
use crossdock::contract::topic;
use crossdock::domain::Decimal;
use crossdock::pipeline::{
    Ack, Code, Connector, Delivery, Fault, Headers, Inbound, Origin, Record, Sent, Sink, Verdict,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

/// A sink, and the runtime that drives it.
pub struct Driven {
    sink: Arc<dyn Sink>,
    runtime: tokio::runtime::Runtime,
}

impl Driven {
    fn new(shop: &Shop, url: &str) -> Driven {
        Driven::with(shop, shop.settings(url, "web"))
    }

    /// The sink of a connector with these settings.
    pub fn with(shop: &Shop, settings: Value) -> Driven {
        Driven {
            sink: connector(shop, settings).sink().expect("a sink"),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
        }
    }

    pub fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        self.runtime.block_on(self.sink.write(batch))
    }

    /// Writes, and every record must be taken.
    fn publish(&self, quantities: &BTreeMap<String, i64>, version: i64) -> Vec<Ack> {
        let batch: Vec<Delivery> = quantities
            .iter()
            .map(|(sku, quantity)| delivery(sku, *quantity, version, None))
            .collect();
        let results = self.write(&batch).into_iter();
        results
            .map(|r| r.unwrap_or_else(|f| panic!("{f}")))
            .collect()
    }
}

fn connector(shop: &Shop, settings: Value) -> Arc<dyn Connector> {
    let descriptor = connectors::find(shop.kind).expect("a connector");
    (descriptor.build)("shop", settings).expect("built")
}

fn delivery(sku: &str, quantity: i64, version: i64, sent: Option<Sent>) -> Delivery {
    let event = AvailabilityChanged {
        sku: sku.into(),
        channel_id: "web".into(),
        ats_version: version,
        ats: Decimal::from(i32::try_from(quantity).expect("a small number")),
        ..AvailabilityChanged::default()
    };
    Delivery {
        sent,
        ..self::sent(topic::STOCK_ATS, &format!("{sku}|web"), event.into())
    }
}

/// An event as it is given to a sink for the first time.
pub fn sent(topic: &str, key: &str, event: Event) -> Delivery {
    let record = Record {
        origin: Origin {
            topic: topic.into(),
            partition: 0,
            offset: 1,
        },
        timestamp_ms: 0,
        key: Some(key.to_owned().into_bytes().into()),
        value: None,
        headers: Headers::default(),
    };
    Delivery {
        key: key.into(),
        inbound: Inbound { record, event },
        sent: None,
        attempt: 1,
        in_doubt: false,
    }
}

#[test]
fn customers_see_what_is_published_however_often_it_is_sent() {
    let Some(systems) = Systems::find() else {
        return;
    };
    for shop in Shop::all(&systems) {
        let skus = skus(0..60);
        let proxy = Proxy::start(&url(shop.kind));
        let sink = Driven::new(&shop, &proxy.url());
        // Every product has stock in the store as well, which customers see.
        for (round, factor) in [(1, 7), (2, 11)] {
            let quantities: BTreeMap<String, i64> = skus
                .iter()
                .zip(0..)
                .map(|(sku, i)| (sku.clone(), i * factor % 40))
                .collect();
            for _ in 0..2 {
                let acks = sink.publish(&quantities, round);
                assert!(
                    acks.iter()
                        .all(|a| a.outcome == SinkOutcome::Acked && a.external_id.is_some())
                );
                assert_eq!(shop.shown(&skus), quantities, "{}", shop.kind);
            }
            assert_eq!(
                proxy.writes().len(),
                2,
                "{}: a batch is one call",
                shop.kind
            );
        }
        if shop.kind == "vendure" {
            let shown = shop.shown(&skus[7..8]);
            assert_eq!(
                shop.refuses_beyond(&skus[7]),
                shown[&skus[7]],
                "what the checkout says"
            );
        }
    }
}

#[test]
fn what_the_shop_holds_for_its_own_orders_is_left_to_it() {
    let Some(systems) = Systems::find() else {
        return;
    };
    for shop in Shop::all(&systems) {
        let skus = skus(60..61);
        let proxy = Proxy::start(&url(shop.kind));
        let sink = Driven::new(&shop, &proxy.url());
        let ack = sink
            .publish(&BTreeMap::from([(skus[0].clone(), 9)]), 1)
            .remove(0);
        let sent = Some(Sent {
            version: ack.version,
            external_id: ack.external_id,
            digest: ack.digest,
        });
        assert_eq!(proxy.writes().len(), 1);
        // What the shop shows already is not written again.
        let same = sink
            .write(&[delivery(&skus[0], 9, 2, sent.clone())])
            .remove(0);
        assert_eq!(same.expect("settled").outcome, SinkOutcome::DuplicateAcked);
        assert_eq!(proxy.writes().len(), 0, "{}", shop.kind);

        shop.order(&skus[0], 2);
        assert_eq!(
            shop.shown(&skus)[&skus[0]],
            7,
            "{}: an order holds two",
            shop.kind
        );
        // The same number as before is not what customers see any more.
        let again = sink.write(&[delivery(&skus[0], 9, 3, sent)]).remove(0);
        assert_eq!(
            again.expect("taken").outcome,
            SinkOutcome::Acked,
            "{}",
            shop.kind
        );
        assert_eq!(shop.shown(&skus)[&skus[0]], 9, "{}", shop.kind);
        sink.publish(&BTreeMap::from([(skus[0].clone(), 0)]), 4);
        assert_eq!(shop.shown(&skus)[&skus[0]], 0, "{}", shop.kind);
    }
}

#[test]
fn a_product_that_the_shop_does_not_have_stops_no_other() {
    let Some(systems) = Systems::find() else {
        return;
    };
    for shop in Shop::all(&systems) {
        let skus = skus(61..63);
        let sink = Driven::new(&shop, &url(shop.kind));
        let batch = [&skus[0], "NO-SUCH-SKU", &skus[1]].map(|sku| delivery(sku, 4, 1, None));
        let results = sink.write(&batch);
        let fault = results[1].as_ref().expect_err("refused");
        assert_eq!(
            (fault.verdict, fault.code),
            (Verdict::Reject, Code::UnknownReference)
        );
        assert!(fault.message.contains("NO-SUCH-SKU"), "{fault}");
        assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
        assert!(
            shop.shown(&skus).values().all(|shown| *shown == 4),
            "{}",
            shop.kind
        );
    }
}

#[test]
fn a_call_that_is_cut_is_made_again_and_has_one_effect() {
    let Some(systems) = Systems::find() else {
        return;
    };
    for shop in Shop::all(&systems) {
        let skus = skus(63..66);
        let proxy = Proxy::start(&url(shop.kind));
        let sink = Driven::new(&shop, &proxy.url());
        for (version, cut) in [(1, Cut::Before), (2, Cut::After)] {
            proxy.cut(&[cut]);
            let batch: Vec<Delivery> = skus
                .iter()
                .map(|sku| delivery(sku, 10 * version, version, None))
                .collect();
            for result in sink.write(&batch) {
                let fault = result.expect_err("cut");
                assert_eq!(fault.code, Code::OutcomeUnknown, "{}: {fault}", shop.kind);
                assert!(matches!(fault.verdict, Verdict::Retry { .. }), "{fault}");
            }
            assert!(
                sink.write(&batch).iter().all(Result::is_ok),
                "{}",
                shop.kind
            );
            assert!(
                shop.shown(&skus).values().all(|q| *q == 10 * version),
                "{}",
                shop.kind
            );
            assert_eq!(proxy.writes().len(), 2, "{}", shop.kind);
        }
    }
}

#[test]
fn a_session_that_the_shop_ended_is_renewed() {
    let Some(systems) = Systems::find() else {
        return;
    };
    let [shop, _] = Shop::all(&systems);
    let skus = skus(66..67);
    let proxy = Proxy::start(&url(shop.kind));
    let sink = Driven::new(&shop, &proxy.url());
    for version in 1..4 {
        sink.publish(&BTreeMap::from([(skus[0].clone(), version)]), version);
        assert_eq!(shop.shown(&skus)[&skus[0]], version);
        shop.log_out(&proxy.authorization());
    }
}

/// `crossdock connectors check`: whether it passed, and everything it said.
fn check(settings: &Value, kind: &str) -> (bool, String) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let configuration =
        serde_json::json!({"connectors": [{"name": "shop", "kind": kind, "settings": settings}]});
    std::fs::write(file.path(), configuration.to_string()).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_crossdock"))
        .args(["connectors", "check", "shop", "--config"])
        .arg(file.path())
        .output()
        .expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn check_says_cause_and_remedy() {
    let Some(systems) = Systems::find() else {
        return;
    };
    for shop in Shop::all(&systems) {
        let settings = shop.settings(&url(shop.kind), "web");
        let (passed, said) = check(&settings, shop.kind);
        assert!(passed && !said.contains("FAIL"), "{said}");

        let wrong = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(wrong.path(), "sk_canary-secret").expect("written");
        let (field, remedy) = match shop.kind {
            "vendure" => ("password", "mend `username` or what `password` refers to"),
            _ => (
                "api_key",
                "check the credentials and rights of the connector",
            ),
        };
        let mut bad = settings.clone();
        bad[field] = format!("${{file:{}}}", wrong.path().display()).into();
        let (passed, said) = check(&bad, shop.kind);
        assert!(!passed && said.contains(remedy), "{said}");
        assert!(!said.contains("canary"), "{said}");

        for (field, value, remedy) in [
            ("location", "Attic".into(), "mend `location`"),
            (
                "empty_locations",
                serde_json::json!([]),
                "`empty_locations`",
            ),
            (
                "url",
                "http://127.0.0.1:9".into(),
                "start it, or mend `url`",
            ),
        ] {
            let mut bad = settings.clone();
            bad[field] = value;
            let (passed, said) = check(&bad, shop.kind);
            assert!(!passed && said.contains(remedy), "{field}: {said}");
        }

        systems.stop(shop.kind);
        let (passed, said) = check(&settings, shop.kind);
        systems.start(shop.kind);
        assert!(!passed && said.contains("cannot be reached"), "{said}");
        assert!(said.contains("start it, or mend `url`"), "{said}");
    }
}
