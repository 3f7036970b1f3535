//! From a real shop to a real ERP and back, through the binary on Kafka: what a customer orders and pays in
//! the shop becomes a sale, is sent there and its tracking shown in the shop; a unit is taken back and
//! credited there, and paid back in the shop.

use crate::erp::Erp;
use crate::kafka::Kafka;
use crate::life::{PATIENCE, Watch};
use crate::sales::{SHOP, id_of};
use crate::stock::{configure, quiet};
use crate::support::Shop;
use crate::systems::{Systems, url};
use crate::worker::{Worker, succeed};
use crossdock::contract::event::{Event, OrderStatus, RefundStatus, ShipmentStatus};
use crossdock::contract::topic;
use crossdock::domain::Timestamp;
use crossdock::pipeline::{Clock as _, SystemClock};
use serde_json::json;
use std::time::Instant;

/// Prices 6.20 and 6.25 without tax, in the shop's currency.
const SKUS: [&str; 2] = ["SKU-0120", "SKU-0125"];

/// Waits until the shop shows it.
fn shows<T: PartialEq + std::fmt::Debug>(wanted: &T, shown: impl Fn() -> T) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = shown();
        if now == *wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{now:?} instead of {wanted:?}");
    }
}

#[test]
fn what_a_customer_orders_is_sold_sent_taken_back_and_paid_back() {
    let Some(systems) = Systems::find() else {
        return;
    };
    let Some(kafka) = Kafka::find(1) else { return };
    let erp = Erp::log_in(&systems);
    erp.web_shop(SHOP);
    erp.sells_abroad();
    let [shop, _] = Shop::all(&systems);
    let folder = tempfile::tempdir().expect("a folder");
    let mut to_erp = erp.settings();
    to_erp["channels"] = json!({"web": {"shop": SHOP, "party_prefix": "shop-"}});
    to_erp["charges"] = json!({"SHIPPING": "DELIVERY"});
    to_erp["credit_notes_request_refunds"] = true.into();
    let mut to_shop = shop.settings(&url("vendure"), "web");
    let since = Timestamp(SystemClock.now().0 - 1_000_000);
    to_shop["orders"] = json!({"since": since.to_string()});
    let channels = json!({"channels": {"web": {"locations": ["WH"]}}});
    let configuration = configure(
        folder.path(),
        &[
            ("erp", "tryton", to_erp),
            ("web", "vendure", to_shop),
            ("channels", "reference", channels),
        ],
    );
    let connectors = ["erp=tryton", "web=vendure", "channels=reference"];
    let connectors = connectors.map(|c| ["--connector", c]).concat();
    let prepare = |command: &[&str]| succeed(&kafka.bootstrap, &[command, &connectors].concat());
    prepare(&["topics", "apply", "--replication", "1"]);
    prepare(&["schemas", "register"]);
    let start = |instance: &str, names: &[&str]| {
        let arguments = [&["run"], names, &["--config", &configuration]].concat();
        Worker::start(&kafka.bootstrap, folder.path(), instance, &arguments)
    };
    let workers = [
        start("systems", &["erp", "web", "channels"]),
        start(
            "processors",
            &[
                "stock-ledger",
                "ats-aggregate",
                "order-lifecycle",
                "reservation-saga",
                "shipment-propagation",
                "refund-gate",
                "return-refund-recon",
                "ledger",
            ],
        ),
    ];
    let watch = Watch::open(&kafka);
    watch.stock(&SKUS);

    let number = shop.buy(&[(SKUS[0], 2), (SKUS[1], 1)]);
    let id = id_of(&number);
    watch.until("released", topic::SHIPMENT_EVENT, &id, |e| match e {
        Event::ShipmentEvent(e) => (e.status == ShipmentStatus::Released).then_some(()),
        _ => None,
    });
    // 2 × 6.20 + 6.25 + 5.00 for delivery, and 20 % on all of it.
    assert_eq!(erp.of_sale(&id, "total_amount")["decimal"], "28.38");
    assert_eq!(erp.of_sale(&id, "reference"), json!(number));

    erp.fulfil(&id, "1Z-SHOP");
    let parcel = ("Shipped".to_owned(), "1Z-SHOP".to_owned());
    shows(&vec![parcel], || shop.parcels(&number));
    watch.status(&id, OrderStatus::Shipped);

    erp.bill(&id);
    erp.take_back_of(&id, 1);
    shows(&vec!["7.44".to_owned()], || shop.refunds(&number));
    shop.pay_refunds(&number);
    watch.until("paid back", topic::REFUND_EVENT, &id, |e| match e {
        Event::RefundEvent(e) => (e.status == RefundStatus::Completed).then_some(()),
        _ => None,
    });
    watch.status(&id, OrderStatus::PartiallyReturned);
    let books = |e: &Event| match e {
        Event::OrderState(e) => {
            let texts = [e.captured, e.invoiced, e.credited, e.refunded].map(|m| m.to_string());
            (texts[3] != "0").then_some(texts)
        }
        _ => None,
    };
    let books = watch.until("booked", topic::ORDER_STATE, &id, books);
    assert_eq!(books, ["28.38", "28.38", "7.44", "7.44"]);

    assert_eq!(erp.sales_of(&id).len(), 1, "one sale");
    assert_eq!(shop.refunds(&number), ["7.44"], "paid back once");
    for reader in [
        "erp",
        "web",
        "order-lifecycle",
        "refund-gate",
        "stock-ledger",
    ] {
        let books = quiet(&kafka, reader, PATIENCE);
        assert_eq!(books["dead_lettered"], json!(0), "{reader}: {books}");
    }
    for worker in workers {
        assert_eq!(worker.terminate(), Some(0), "an orderly end");
    }
}
