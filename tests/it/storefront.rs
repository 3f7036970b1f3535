//! Storefronts' connectors and the processors that orders pass through, together: what a storefront
//! tells is what they take, and what they decide reaches the storefront.

use crate::trade::{Trade, key};
use crate::world::SINK;
use crossdock::connectors;
use crossdock::contract::event::{OrderStatus, RefundStatus, Text};
use crossdock::domain::{Decimal, Timestamp};
use crossdock::pipeline::{Fake, FakeOptions};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// After everything that the stand-ins stamp.
const NOW: Timestamp = Timestamp(1_790_100_000_000_000);
const KINDS: [&str; 2] = ["vendure", "medusa"];

fn decimal(text: &str) -> Decimal {
    text.parse().expect("a number")
}

/// A storefront's stand-in with a captured order of 3 A and 1 B, and everybody around it.
struct Shop {
    trade: Trade,
    fake: Box<dyn Fake>,
    number: Value,
    order: String,
    /// Lines of A and B.
    lines: [String; 2],
}

impl Shop {
    async fn open(kind: &str) -> Shop {
        let descriptor = connectors::find(kind).expect("the connector");
        let start = descriptor.fake.expect("a stand-in");
        let options = FakeOptions {
            skus: ["A", "B"].map(str::to_owned).to_vec(),
            ..FakeOptions::default()
        };
        let fake = start(options).await.expect("the stand-in starts");
        let connector = (descriptor.build)(SINK, fake.settings()).expect("built");
        let mut trade = Trade::open(descriptor, connector.as_ref(), &["A", "B"], NOW);
        let place = json!({"place": {"A": 3, "B": 1}, "captured": true});
        let number = fake.act(&place).expect("placed");
        trade.settle().await;
        let shown = fake.act(&json!({"show": number})).expect("shown");
        let lines = ["A", "B"].map(|sku| {
            let lines = shown["lines"].as_array().expect("lines");
            let line = lines.iter().find(|l| l["sku"] == sku).expect("the line");
            line["line"].as_str().expect("an id").to_owned()
        });
        let order = key(number.as_str().expect("a number"));
        Shop {
            trade,
            fake,
            number,
            order,
            lines,
        }
    }

    fn act(&self, action: Value) -> Value {
        let done = self.fake.act(&action);
        done.unwrap_or_else(|why| panic!("{action}: {why}"))
    }

    fn show(&self) -> Value {
        self.act(json!({"show": self.number}))
    }
}

#[tokio::test]
async fn an_order_is_joined_reserved_shipped_and_its_tracking_is_back_in_the_shop() {
    for kind in KINDS {
        let mut shop = Shop::open(kind).await;
        assert_eq!(shop.trade.dead_letters(), Vec::<String>::new(), "{kind}");
        let state = shop.trade.state(&shop.order);
        assert_eq!(state.captured, decimal("30.16"), "{kind}");
        assert_eq!(state.grand_total, decimal("30.16"), "{kind}");
        let reserved: Decimal = state.lines.iter().map(|l| l.reserved).sum();
        assert_eq!(reserved, Decimal::from(4), "{kind}: {state:?}");
        assert_eq!(state.open_exceptions, Vec::<Text>::new(), "{kind}");

        let [a, b] = &shop.lines;
        let lines = [(a.as_str(), "A", 3), (b.as_str(), "B", 1)];
        shop.trade.ship(&shop.order, "ship-1", &lines, "JJD-7");
        shop.trade.settle().await;
        assert_eq!(shop.trade.dead_letters(), Vec::<String>::new(), "{kind}");
        let shown = shop.show();
        let parcels = shown["shipments"].as_array().expect("parcels");
        assert_eq!(parcels.len(), 1, "{kind}: {shown}");
        assert_eq!(
            (&parcels[0]["state"], &parcels[0]["tracking"]),
            (&json!("SHIPPED"), &json!("JJD-7")),
            "{kind}"
        );
        let status = shop.trade.state(&shop.order).status;
        assert_eq!(status, OrderStatus::Shipped, "{kind}");
    }
}

#[tokio::test]
async fn a_refund_is_granted_paid_in_the_shop_once_and_known_to_be_paid() {
    for kind in KINDS {
        let mut shop = Shop::open(kind).await;
        let (net, tax) = (decimal("5.03"), decimal("1.01"));
        shop.trade
            .give_back(&shop.order, &shop.lines[0], "A", net, tax);
        shop.trade.settle().await;
        assert_eq!(shop.trade.dead_letters(), Vec::<String>::new(), "{kind}");
        assert_eq!(shop.show()["refunds"], json!(["6.04"]), "{kind}");
        let refunds = shop.trade.refunds(&shop.order);
        let last = refunds
            .iter()
            .max_by_key(|r| r.refund_version)
            .expect("a refund");
        assert_eq!(last.status, RefundStatus::Completed, "{kind}: {refunds:?}");
        assert!(!last.issued_elsewhere, "{kind}");
        let refunded = shop.trade.state(&shop.order).refunded;
        assert_eq!(refunded, decimal("6.04"), "{kind}");

        // Another is paid by people in the shop before anyone asked: it is one refund, and paid.
        shop.act(json!({"refund": shop.number, "amount": "1.25"}));
        shop.trade.settle().await;
        let refunds = shop.trade.refunds(&shop.order);
        let elsewhere = refunds.iter().filter(|r| r.issued_elsewhere);
        let ids: BTreeSet<_> = elsewhere.map(|r| r.refund_id).collect();
        assert_eq!(ids.len(), 1, "{kind}: {refunds:?}");
        assert_eq!(shop.show()["refunds"], json!(["6.04", "1.25"]), "{kind}");
        let refunded = shop.trade.state(&shop.order).refunded;
        assert_eq!(refunded, decimal("7.29"), "{kind}");
        assert_eq!(shop.trade.dead_letters(), Vec::<String>::new(), "{kind}");
    }
}

#[tokio::test]
async fn a_cancellation_is_one_wherever_it_was_made() {
    for kind in KINDS {
        let mut shop = Shop::open(kind).await;
        let cancelled = |shop: &Shop| -> (Decimal, Value) {
            let state = shop.trade.state(&shop.order);
            (
                state.lines.iter().map(|l| l.cancelled).sum(),
                shop.show()["lines"][0]["cancelled"].clone(),
            )
        };
        // Somebody in the shop takes one out.
        shop.act(json!({"take_out": shop.number, "sku": "A", "quantity": 1}));
        shop.trade.settle().await;
        assert_eq!(cancelled(&shop), (Decimal::ONE, json!(1)), "{kind}");
        // Customer service asks for another.
        shop.trade.ask_to_cancel(&shop.order, &shop.lines[0]);
        shop.trade.settle().await;
        assert_eq!(cancelled(&shop), (Decimal::from(2), json!(2)), "{kind}");
        assert_eq!(shop.trade.dead_letters(), Vec::<String>::new(), "{kind}");
    }
}
