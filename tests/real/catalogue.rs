//! Products and prices in the storefronts themselves: what customers read is what was sent, once.

use crate::shops::{Driven, sent};
use crate::support::{Shop, json_of, skus, text};
use crate::systems::Systems;
use crossdock::contract::event::{
    Event, EventMeta, Money, PriceChanged, ProductChanged, ProductStatus, SinkOutcome,
};
use crossdock::contract::topic;
use crossdock::domain::Timestamp;
use serde_json::json;

const AT: Timestamp = Timestamp(1_790_000_000_000_000);

/// A product as customers see it: name, price of a piece in minor units; `None` when it is not sold.
fn shown(shop: &Shop, sku: &str) -> Option<(String, i64)> {
    let handle = sku.to_lowercase();
    if shop.kind == "vendure" {
        let query = "query($slug:String!){product(slug:$slug){variants{sku name price}}}";
        let answer = shop.graphql("shop-api", query, json!({"slug": handle}));
        let variant = &answer["product"]["variants"][0];
        return (!variant.is_null()).then(|| {
            (
                text(&variant["name"]),
                variant["price"].as_i64().expect("a price"),
            )
        });
    }
    let get = |path: &str, query: &[(&str, &str)]| {
        let request = shop.http.get(format!("{}{path}", shop.url));
        let request = request.header("x-publishable-api-key", shop.publishable_key.trim());
        json_of(request.query(query))
    };
    let regions = get("/store/regions", &[]);
    let region = text(&regions["regions"][0]["id"]);
    let query = [
        ("handle", handle.as_str()),
        ("region_id", &region),
        ("fields", "title,*variants.calculated_price"),
    ];
    let answer = get("/store/products", &query);
    let product = &answer["products"][0];
    let price = &product["variants"][0]["calculated_price"]["calculated_amount"];
    (!product.is_null()).then(|| {
        let price = price.as_f64().expect("a price");
        (text(&product["title"]), (price * 100.0).round() as i64)
    })
}

fn currency(shop: &Shop) -> String {
    match shop.kind {
        "vendure" => {
            let query = "{activeChannel{defaultCurrencyCode}}";
            let answer = shop.graphql("shop-api", query, json!({}));
            text(&answer["activeChannel"]["defaultCurrencyCode"])
        }
        _ => "EUR".to_owned(),
    }
}

fn meta() -> EventMeta {
    EventMeta {
        occurred_at: AT,
        ..EventMeta::default()
    }
}

#[test]
fn customers_read_the_names_and_prices_that_were_sent() {
    let Some(systems) = Systems::find() else {
        return;
    };
    for shop in Shop::all(&systems) {
        let sku = skus(90..91).remove(0);
        let (_, before) = shown(&shop, &sku).expect("it is sold");
        let mut settings = shop.settings(&shop.url, "web");
        settings["catalogue"] = json!({"price_list": "list", "products": true});
        let sink = Driven::with(&shop, settings);
        let currency = currency(&shop);
        let price = |minor: i64, version| {
            let amount = format!("{}.{:02}", minor / 100, minor % 100);
            let event = Event::from(PriceChanged {
                meta: meta(),
                sku: sku.as_str().into(),
                price_list_id: "list".into(),
                price_version: version,
                price: Money {
                    amount: amount.parse().expect("an amount"),
                    currency: currency.as_str().into(),
                },
                effective_from: AT,
                ..PriceChanged::default()
            });
            sent(topic::PRICE_CHANGE, &format!("{sku}|list"), event)
        };
        let product = |name: &str, status, version| {
            let event = Event::from(ProductChanged {
                meta: meta(),
                sku: sku.as_str().into(),
                product_version: version,
                title: [("en".into(), name.into())].into(),
                status,
                ..ProductChanged::default()
            });
            sent(topic::PRODUCT_CHANGE, &sku, event)
        };
        let write = |delivery| {
            let result = sink.write(&[delivery]).remove(0);
            result
                .unwrap_or_else(|f| panic!("{}: {f}", shop.kind))
                .outcome
        };
        let name = "Café mug, 0.3 l “large”";
        for outcome in [SinkOutcome::Acked, SinkOutcome::DuplicateAcked] {
            assert_eq!(write(price(before + 123, 1)), outcome, "{}", shop.kind);
            let named = write(product(name, ProductStatus::Active, 1));
            assert_eq!(named, outcome, "{}", shop.kind);
            let expected = Some((name.to_owned(), before + 123));
            assert_eq!(shown(&shop, &sku), expected, "{}", shop.kind);
        }
        write(product(name, ProductStatus::Discontinued, 2));
        assert_eq!(shown(&shop, &sku), None, "{}", shop.kind);
        write(product(name, ProductStatus::Active, 3));
        write(price(before, 2));
        assert_eq!(
            shown(&shop, &sku),
            Some((name.to_owned(), before)),
            "{}",
            shop.kind
        );
        let unknown = sent(
            topic::PRICE_CHANGE,
            "NO-SUCH|list",
            match price(100, 1).inbound.event {
                Event::PriceChanged(e) => Event::from(PriceChanged {
                    sku: "NO-SUCH".into(),
                    ..e
                }),
                other => panic!("{other:?}"),
            },
        );
        let refused = sink.write(&[unknown]).remove(0).expect_err("no such SKU");
        assert!(refused.message.contains("NO-SUCH"), "{refused}");
    }
}
