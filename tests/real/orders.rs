//! Orders of the storefronts themselves: told, joined, shipped, cancelled and refunded, with the calls
//! cut that matter most.

use crate::proxy::{Cut, Proxy};
use crate::support::Shop;
use crate::systems::{Systems, url};
use crate::trade::{Trade, key};
use crate::world::SINK;
use crossdock::connectors;
use crossdock::contract::event::{Event, OrderEventType, OrderStatus, PaymentKind, RefundStatus};
use crossdock::contract::topic;
use crossdock::domain::{Decimal, Timestamp};
use crossdock::pipeline::{Clock as _, SystemClock};
use std::time::Duration;

/// Prices 6.20 and 6.25 without tax.
const SKUS: [&str; 2] = ["SKU-0120", "SKU-0125"];

/// A storefront with an order of a customer, and everybody around it.
struct Order {
    trade: Trade,
    proxy: Proxy,
    runtime: tokio::runtime::Runtime,
    number: String,
    id: String,
}

impl Order {
    fn place(shop: &Shop) -> Order {
        let descriptor = connectors::find(shop.kind).expect("the connector");
        let proxy = Proxy::start(&url(shop.kind));
        let mut settings = shop.settings(&proxy.url(), "web");
        let now = SystemClock.now();
        let since = Timestamp(now.0 - 1_000_000);
        settings["orders"] = serde_json::json!({"since": since.to_string()});
        let connector = (descriptor.build)(SINK, settings).expect("built");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        // Stamps of what is still to come must not be of the future.
        let later = now.plus(Duration::from_secs(3_600));
        let trade = {
            let _inside = runtime.enter();
            Trade::open(descriptor, connector.as_ref(), &SKUS, later)
        };
        let number = shop.buy(&[(SKUS[0], 3), (SKUS[1], 1)]);
        let id = key(&number);
        let mut order = Order {
            trade,
            proxy,
            runtime,
            number,
            id,
        };
        order.settle(shop);
        order
    }

    /// Lets everybody work; nothing may be beyond them.
    fn settle(&mut self, shop: &Shop) {
        self.runtime.block_on(self.trade.settle());
        let letters = self.trade.dead_letters();
        assert!(letters.is_empty(), "{}: {letters:#?}", shop.kind);
    }
}

fn decimal(text: &str) -> Decimal {
    text.parse().expect("a number")
}

#[test]
fn an_order_and_its_payment_are_on_the_log_and_its_shipment_is_shown_once() {
    let Some(systems) = Systems::find() else {
        return;
    };
    for shop in Shop::all(&systems) {
        let mut order = Order::place(&shop);
        let kind = shop.kind;
        // 3 × 6.20 + 6.25 + 5.00 for shipping, and 20 % on all of it.
        let total = decimal("35.82");
        let placed = order.trade.world.events(topic::ORDER_LIFECYCLE);
        let placed = placed.iter().find_map(|e| match e {
            Event::OrderEvent(e)
                if *e.order_id == *order.id && e.r#type == OrderEventType::Placed =>
            {
                e.order.clone()
            }
            _ => None,
        });
        let placed = placed.unwrap_or_else(|| panic!("{kind}: not told"));
        assert_eq!(placed.grand_total, total, "{kind}");
        assert_eq!(placed.charges.len(), 1, "{kind}");
        let captured = order.trade.world.events(topic::PAYMENT_EVENT);
        let captured: Vec<Decimal> = captured
            .iter()
            .filter_map(|e| match e {
                Event::PaymentEvent(e)
                    if *e.order_id == *order.id && e.kind == PaymentKind::Captured =>
                {
                    Some(e.amount.amount)
                }
                _ => None,
            })
            .collect();
        assert!(
            captured.iter().all(|c| *c == total) && !captured.is_empty(),
            "{kind}: {captured:?}"
        );
        let state = order.trade.state(&order.id);
        assert_eq!(
            (state.grand_total, state.captured),
            (total, total),
            "{kind}"
        );
        let reserved: Decimal = state.lines.iter().map(|l| l.reserved).sum();
        assert_eq!(reserved, Decimal::from(4), "{kind}: {state:?}");

        let [(a, _), (b, _)] = SKUS.map(|sku| shop.line(&order.number, sku));
        let lines = [(a.as_str(), SKUS[0], 3), (b.as_str(), SKUS[1], 1)];
        order.proxy.cut(&[Cut::After]);
        order.trade.ship(&order.id, "ship-1", &lines, "JJD-42");
        order.settle(&shop);
        let parcel = ("Shipped".to_owned(), "JJD-42".to_owned());
        assert_eq!(shop.parcels(&order.number), [parcel], "{kind}");
        assert_eq!(
            order.trade.state(&order.id).status,
            OrderStatus::Shipped,
            "{kind}"
        );
    }
}

#[test]
fn a_refund_reaches_the_customer_once_although_it_is_asked_for_again_and_its_answer_lost() {
    let Some(systems) = Systems::find() else {
        return;
    };
    for shop in Shop::all(&systems) {
        let mut order = Order::place(&shop);
        let kind = shop.kind;
        let (line, _) = shop.line(&order.number, SKUS[0]);
        order.proxy.cut(&[Cut::After]);
        let (net, tax) = (decimal("6.20"), decimal("1.24"));
        order.trade.give_back(&order.id, &line, SKUS[0], net, tax);
        order.settle(&shop);
        assert_eq!(shop.refunds(&order.number), ["7.44"], "{kind}");
        shop.pay_refunds(&order.number);
        order.settle(&shop);
        assert_eq!(shop.refunds(&order.number), ["7.44"], "{kind}");
        let refunds = order.trade.refunds(&order.id);
        let last = refunds
            .iter()
            .max_by_key(|r| r.refund_version)
            .expect("a refund");
        assert_eq!(last.status, RefundStatus::Completed, "{kind}: {refunds:?}");
        assert!(
            refunds
                .iter()
                .all(|r| r.refund_id == last.refund_id && !r.issued_elsewhere)
        );
        assert_eq!(
            order.trade.state(&order.id).refunded,
            decimal("7.44"),
            "{kind}"
        );
    }
}

#[test]
fn a_unit_that_is_cancelled_in_the_shop_or_elsewhere_is_cancelled_once_in_both() {
    let Some(systems) = Systems::find() else {
        return;
    };
    for shop in Shop::all(&systems) {
        let mut order = Order::place(&shop);
        let kind = shop.kind;
        let (line, _) = shop.line(&order.number, SKUS[0]);
        let cancelled = |order: &Order| -> Decimal {
            let state = order.trade.state(&order.id);
            state.lines.iter().map(|l| l.cancelled).sum()
        };
        shop.take_out(&order.number, SKUS[0]);
        order.settle(&shop);
        assert_eq!(cancelled(&order), Decimal::ONE, "{kind}");
        order.trade.ask_to_cancel(&order.id, &line);
        order.settle(&shop);
        assert_eq!(cancelled(&order), Decimal::from(2), "{kind}");
        assert_eq!(shop.line(&order.number, SKUS[0]).1, 1, "{kind}");
    }
}

#[test]
fn what_a_shop_announces_is_verified_durable_and_told() {
    const SECRET: &str = "c2VjcmV0IG9mIHRoZSBzaG9wIHRoYXQgc2VuZHM=";
    let Some(systems) = Systems::find() else {
        return;
    };
    for shop in Shop::all(&systems) {
        let kind = shop.kind;
        let secret = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(secret.path(), SECRET).expect("written");
        let reference = format!("${{file:{}}}", secret.path().display());
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let listen = port.local_addr().expect("bound").to_string();
        drop(port);
        let since = Timestamp(SystemClock.now().0 - 1_000_000);
        let mut settings = shop.settings(&url(kind), "web");
        settings["orders"] = serde_json::json!({"since": since.to_string()});
        settings["webhook"] = serde_json::json!({"listen": listen, "secrets": [reference], "inbox_keys": [reference]});
        let descriptor = connectors::find(kind).expect("the connector");
        let connector = (descriptor.build)(SINK, settings).expect("built");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let _inside = runtime.enter();
        let inbox = std::sync::Arc::new(crate::inbox::MemoryInbox::default());
        let mut source = connector.source().expect("a source");
        source.open(inbox.clone()).expect("it listens");
        let shard = source.shards().remove(0);

        systems.stop(kind);
        let address = format!("http://{listen}/");
        systems.start_with(
            kind,
            &[("WEBHOOK_URL", &address), ("WEBHOOK_SECRET", SECRET)],
        );
        let order = key(&shop.buy(&[(SKUS[0], 1)]));
        runtime.block_on(source.woken());
        assert!(!inbox.kept().is_empty(), "{kind}: nothing was kept");
        let (mut cursor, mut told) = (None, false);
        while !told {
            let batch = runtime.block_on(source.poll(&shard, cursor.as_ref()));
            let batch = batch.unwrap_or_else(|f| panic!("{kind}: {f}"));
            assert!(batch.rejects.is_empty(), "{kind}: {:?}", batch.rejects);
            told = batch.records.iter().any(|r| *r.key == *order);
            cursor = Some(batch.cursor);
        }
        systems.stop(kind);
        systems.start(kind);
    }
}
