//! Products and prices in every storefront's stand-in.

use super::orders::storefronts;
use super::{build, fake};
use crossdock::contract::event::{
    Event, EventMeta, Money, PriceChanged, ProductChanged, ProductStatus, SinkOutcome,
};
use crossdock::contract::topic;
use crossdock::domain::{Decimal, Timestamp};
use crossdock::pipeline::{
    Ack, Code, Delivery, Fake, FakeFault, Fault, Headers, Inbound, Origin, Record, Sent, Sink,
    Verdict,
};
use serde_json::{Value, json};
use std::sync::Arc;

const NOW: Timestamp = Timestamp(1_790_000_000_000_000);

fn delivery(topic: &str, key: &str, event: impl Into<Event>, sent: Option<Sent>) -> Delivery {
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
    let event = event.into();
    Delivery {
        key: key.into(),
        inbound: Inbound { record, event },
        sent,
        attempt: 1,
        in_doubt: false,
    }
}

fn price(sku: &str, amount: &str, version: i64) -> PriceChanged {
    PriceChanged {
        meta: EventMeta {
            occurred_at: NOW,
            ..EventMeta::default()
        },
        sku: sku.into(),
        price_list_id: "list".into(),
        price_version: version,
        price: Money {
            amount: amount.parse().expect("an amount"),
            currency: "EUR".into(),
        },
        effective_from: NOW,
        ..PriceChanged::default()
    }
}

fn product(sku: &str, title: &str, status: ProductStatus, version: i64) -> ProductChanged {
    ProductChanged {
        sku: sku.into(),
        product_version: version,
        title: [("en".into(), title.into())].into_iter().collect(),
        status,
        ..ProductChanged::default()
    }
}

async fn write_price(
    sink: &Arc<dyn Sink>,
    event: PriceChanged,
    sent: Option<Sent>,
) -> Result<Ack, Fault> {
    let key = format!("{}|list", event.sku);
    let delivery = delivery(topic::PRICE_CHANGE, &key, event, sent);
    sink.write(&[delivery]).await.remove(0)
}

async fn write_product(sink: &Arc<dyn Sink>, event: ProductChanged) -> Result<Ack, Fault> {
    let key = event.sku.to_string();
    let delivery = delivery(topic::PRODUCT_CHANGE, &key, event, None);
    sink.write(&[delivery]).await.remove(0)
}

fn shown(fake: &dyn Fake, sku: &str) -> Value {
    fake.act(&json!({"product": sku})).expect("known")
}

fn ended(result: &Result<Ack, Fault>) -> String {
    match result {
        Ok(ack) => format!("{:?}", ack.outcome),
        Err(fault) => fault.code.to_string(),
    }
}

async fn each<F: AsyncFn(&'static str, Arc<dyn Sink>, &dyn Fake)>(test: F) {
    for descriptor in storefronts() {
        let fake = fake(descriptor).await.expect("a stand-in");
        let sink = build(descriptor, fake.settings()).sink().expect("a sink");
        test(descriptor.kind, sink, fake.as_ref()).await;
    }
}

#[tokio::test]
async fn a_price_is_shown_once_and_only_if_it_is_another() {
    each(async |kind, sink, fake| {
        let first = write_price(&sink, price("A", "7.25", 2), None).await;
        assert_eq!(ended(&first), "Acked", "{kind}");
        assert_eq!(shown(fake, "A")["price"], "7.25", "{kind}");
        let calls = fake.calls_taken();
        let again = write_price(&sink, price("A", "7.25", 3), None).await;
        assert_eq!(ended(&again), "DuplicateAcked", "{kind}");
        let sent = Some(Sent {
            version: 3,
            ..Sent::default()
        });
        let older = write_price(&sink, price("A", "6", 1), sent).await;
        assert_eq!(ended(&older), "StaleSkipped", "{kind}");
        assert_eq!(fake.calls_taken(), calls, "{kind}: a call was made");
        assert_eq!(shown(fake, "B")["price"], "5.04", "{kind}: a neighbour");
    })
    .await;
}

#[tokio::test]
async fn a_price_whose_answer_is_lost_is_not_set_twice() {
    each(async |kind, sink, fake| {
        fake.inject(vec![FakeFault::AppliedThenCut]);
        let cut = write_price(&sink, price("A", "7.25", 1), None).await;
        let fault = cut.expect_err("no answer");
        assert!(matches!(fault.verdict, Verdict::Retry { .. }), "{kind}");
        let calls = fake.calls_taken();
        let again = write_price(&sink, price("A", "7.25", 1), None).await;
        assert_eq!(ended(&again), "DuplicateAcked", "{kind}");
        assert_eq!(fake.calls_taken(), calls, "{kind}");
    })
    .await;
}

#[tokio::test]
async fn what_a_shop_cannot_show_is_refused_by_name_and_changes_nothing() {
    each(async |kind, sink, fake| {
        let with = |change: fn(&mut PriceChanged)| {
            let mut event = price("A", "7.25", 1);
            change(&mut event);
            event
        };
        let cases = [
            (with(|e| e.tax_inclusive = true), "without; set the shop"),
            (with(|e| e.promotion_id = Some("sale".into())), "promotion"),
            (with(|e| e.min_qty = Some(Decimal::from(10))), "quantity"),
            (with(|e| e.effective_to = Some(NOW)), "ends"),
            (
                with(|e| e.effective_from = Timestamp(NOW.0 * 2)),
                "begins later",
            ),
            (
                with(|e| e.sku = "UNKNOWN".into()),
                "UNKNOWN; create it there",
            ),
        ];
        for (event, named) in cases {
            let refused = write_price(&sink, event, None).await.expect_err(named);
            assert_eq!(refused.verdict, Verdict::Reject, "{kind}: {refused}");
            assert!(refused.message.contains(named), "{kind}: {refused}");
        }
        let event = product("UNKNOWN", "x", ProductStatus::Active, 1);
        let refused = write_product(&sink, event).await.expect_err("no such SKU");
        assert_eq!(refused.code, Code::UnknownReference, "{kind}");
        assert_eq!(shown(fake, "A")["price"], "5.03", "{kind}");
        assert_eq!(fake.calls_taken(), 0, "{kind}");
    })
    .await;
}

#[tokio::test]
async fn a_product_is_called_and_sold_as_it_is_told() {
    each(async |kind, sink, fake| {
        use ProductStatus::{Active, Discontinued, Recalled};
        for (title, status, for_sale) in [
            ("Mug", Active, true),
            ("Mug", Discontinued, false),
            ("Red mug", Active, true),
            ("Red mug", Recalled, false),
        ] {
            for expected in [SinkOutcome::Acked, SinkOutcome::DuplicateAcked] {
                let done = write_product(&sink, product("A", title, status, 1)).await;
                assert_eq!(done.map(|a| a.outcome).ok(), Some(expected), "{kind}");
                let now = shown(fake, "A");
                assert_eq!(
                    (&now["title"], &now["for_sale"]),
                    (&json!(title), &json!(for_sale)),
                    "{kind}"
                );
            }
        }
        assert_eq!(shown(fake, "B")["for_sale"], true, "{kind}: a neighbour");
    })
    .await;
}

#[tokio::test]
async fn a_shop_that_keeps_its_own_prices_and_names_is_left_alone() {
    for descriptor in storefronts() {
        let fake = fake(descriptor).await.expect("a stand-in");
        let wants = |settings: Value, inbound: &Inbound| {
            let sink = build(descriptor, settings).sink().expect("a sink");
            sink.wants(inbound)
        };
        let price = delivery(topic::PRICE_CHANGE, "A|list", price("A", "1", 1), None);
        let event = product("A", "Mug", ProductStatus::Active, 1);
        let product = delivery(topic::PRODUCT_CHANGE, "A", event, None);
        for (catalogue, takes_price, takes_product) in [
            (json!({}), false, false),
            (json!({"price_list": "another"}), false, false),
            (json!({"price_list": "list"}), true, false),
            (json!({"products": true}), false, true),
        ] {
            let mut settings = fake.settings();
            settings["catalogue"] = catalogue;
            assert_eq!(wants(settings.clone(), &price.inbound), takes_price);
            assert_eq!(wants(settings, &product.inbound), takes_product);
        }
    }
}
