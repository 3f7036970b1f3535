//! From the ERP's documents to what customers of two storefronts see, through instances of the binary
//! on Kafka. What has to be seen is computed from what the ERP itself says it has.

use crate::erp::{Erp, STORE, WAREHOUSE};
use crate::kafka::Kafka;
use crate::stock::{configure, quiet, receipts};
use crate::support::{Shop, skus};
use crate::systems::{Systems, url};
use crate::worker::{Worker, succeed};
use crossdock::log::Log;
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(240);

/// What customers of each shop may buy: the web shop sells what is in the warehouse and in the store,
/// the app what is in the store. What one of them has sold too much is not taken from the other.
fn expected(erp: &Erp) -> [BTreeMap<String, i64>; 2] {
    let (warehouse, store) = (erp.on_hand(WAREHOUSE), erp.on_hand(STORE));
    let sum = |sku: &String, units: &i64| (sku.clone(), (*units).max(0) + store[sku].max(0));
    let web = warehouse
        .iter()
        .map(|(sku, units)| sum(sku, units))
        .collect();
    let app = store
        .iter()
        .map(|(sku, units)| (sku.clone(), (*units).max(0)))
        .collect();
    [web, app]
}

/// Waits until customers of the shop see what they may buy.
fn agrees(shop: &Shop, skus: &[String], wanted: &BTreeMap<String, i64>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = shop.shown(skus);
        let differ: Vec<String> = wanted
            .iter()
            .filter(|(sku, units)| shown[*sku] != **units)
            .map(|(sku, units)| format!("{sku}: {} instead of {units}", shown[sku]))
            .collect();
        if differ.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{}: {} products differ: {}",
            shop.kind,
            differ.len(),
            differ[..differ.len().min(20)].join(", ")
        );
    }
}

#[test]
fn storefronts_show_what_the_erp_has_through_trade_and_outages() {
    let Some(systems) = Systems::find() else {
        return;
    };
    let Some(kafka) = Kafka::find(1) else { return };
    let erp = Erp::log_in(&systems);
    let [vendure, medusa] = Shop::all(&systems);
    let folder = tempfile::tempdir().expect("a folder");
    let configuration = configure(
        folder.path(),
        &[
            ("erp", "tryton", erp.settings()),
            (
                "reference",
                "reference",
                json!({"channels": {
                    "web": {"locations": ["WH", "STORE"]},
                    "app": {"locations": ["STORE"]},
                }}),
            ),
            ("web", "vendure", vendure.settings(&url("vendure"), "web")),
            ("app", "medusa", medusa.settings(&url("medusa"), "app")),
        ],
    );
    let connectors = ["erp=tryton", "reference", "web=vendure", "app=medusa"];
    let connectors = connectors.map(|c| ["--connector", c]).concat();
    let prepare = |command: &[&str]| succeed(&kafka.bootstrap, &[command, &connectors].concat());
    prepare(&["topics", "apply", "--replication", "1"]);
    prepare(&["schemas", "register"]);
    let start = |instance: &str, names: &[&str]| {
        let arguments = [&["run"], names, &["--config", &configuration]].concat();
        Worker::start(&kafka.bootstrap, folder.path(), instance, &arguments)
    };
    let workers = [
        start("sources", &["erp", "reference"]),
        start("processors", &["stock-ledger", "ats-aggregate"]),
        start("web", &["web"]),
        start("app", &["app"]),
    ];
    let all = skus(0..300);

    // The opening stock.
    let [web, app] = expected(&erp);
    agrees(&vendure, &all, &web);
    agrees(&medusa, &all, &app);

    // A day's trade.
    erp.sell(WAREHOUSE, &all[1], 3);
    erp.receive(WAREHOUSE, &all[2], 40);
    erp.transfer(WAREHOUSE, STORE, &all[3], 6);
    erp.count(STORE, &all[4], 2);
    erp.take_back(WAREHOUSE, &all[1], 1);
    erp.ring_up(&all[5], 2);
    // Sold out everywhere.
    erp.count(WAREHOUSE, &all[6], 0);
    erp.count(STORE, &all[6], 0);
    let [web, app] = expected(&erp);
    assert_eq!(
        (web[&all[6]], app[&all[4]], app[&all[6]]),
        (0, 2, 0),
        "the ERP's own books"
    );
    agrees(&vendure, &all, &web);
    agrees(&medusa, &all, &app);

    // One storefront is away while trade goes on.
    systems.stop("medusa");
    erp.transfer(WAREHOUSE, STORE, &all[7], 5);
    erp.receive(STORE, &all[6], 9);
    erp.ring_up(&all[8], 1);
    erp.count(STORE, &all[9], 0);
    let [web, app] = expected(&erp);
    agrees(&vendure, &all, &web);
    systems.start("medusa");
    agrees(&medusa, &all, &app);

    for reader in ["stock-ledger", "ats-aggregate", "web", "app"] {
        let books = quiet(&kafka, reader, PATIENCE);
        assert_eq!(
            (&books["dead_lettered"], &books["parked"]),
            (&json!(0), &json!(0)),
            "{reader}: {books}"
        );
    }
    println!("{}", succeed(&kafka.bootstrap, &["verify"]));
    let log: Arc<dyn Log> =
        Arc::new(KafkaLog::connect(KafkaSettings::plain(&kafka.bootstrap)).expect("connected"));
    for (sink, wanted) in [("web", &web), ("app", &app)] {
        let receipts = receipts(&log, sink);
        for (sku, units) in wanted {
            assert_eq!(
                receipts.get(sku).map(|(_, sent, _)| sent),
                Some(units),
                "{sink} {sku}"
            );
        }
    }
    for worker in workers {
        assert_eq!(worker.terminate(), Some(0), "an orderly end");
    }
}
