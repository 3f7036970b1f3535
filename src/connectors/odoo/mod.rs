//! Odoo, an ERP with warehouses and tills. Its source reads stock movements, counts, products, prices,
//! locations and replenishment rules, of the orders that it keeps acceptance, deliveries, returns and invoices, and receipts of tills as
//! orders of their own. Its sink makes orders into sales, and takes what happened to them elsewhere.
//!
//! `client` talks JSON-2, `table` says how its tables are followed, `tree` what a location is, `stock` and
//! `objects` turn rows into events with what ERPs share in `connectors/erp`, `documents` and `invoices` those of
//! orders, `tills` and `receipts` those of tills. `listing` lists the orders. Writing: `sales` takes orders,
//! `references` what their names are here, `cancellations` takes sales back, `dispatches`, `give_back` and `money` are
//! for shipments, returns and payments, `corrections` sets stock right, `customers` says who contacts are. `fake`
//! is the stand-in.
//!
//! Facts about the API are of Odoo 19, each seen against a running server:
//! - `write_date` is the start of the transaction, read and compared in whole seconds although rows sort
//!   by microseconds. All rows of one transaction share it, a row can appear behind newer ones, and one that is
//!   written twice within a second does not show it.
//! - What changes stock is a done move *line*. It stays done; a quantity that somebody corrects in it
//!   afterwards is not told, and the comparison after the next count names the difference.
//! - A count makes a line of a move that `is_inventory`, of no quantity where it found what was
//!   expected. Quants (`stock.quant`) of one product and place can be several rows: they add up. They can
//!   drift from the sum of the lines when written side by side.
//! - A stock change moves no stamp of the product or location.
//! - A field that does not exist is answered with status 500: not every 500 is worth another try.
//! - What is empty is `false`; a related row is `[id, name]`.
//! - Rows that are deleted leave nothing. A done line cannot be deleted. A product or location that is
//!   deleted is not noticed.
//! - The same reference twice makes two sales. An external id is the only key that the database keeps:
//!   what is made by `load` under one is made once: sales, pickings, entries, credit notes, counts.
//! - A picking that leaves something out is done if `skip_backorder` says so, and another is made for the
//!   rest with the same source document.
//! - A line of a confirmed sale that is made smaller makes its delivery smaller, down to what is delivered; its
//!   price is reckoned anew unless it is written with the quantity.
//! - A return that is of a sale's line makes its delivered quantity less; a credit note of it, also a draft, its
//!   invoiced quantity.
//! - A receipt of a till is there as soon as it is paid and its goods have moved; it goes from `paid` to `done`
//!   when its session is closed, and nothing else of it changes.
//! - Tables have no index on `write_date`: where they are large, give `stock_move_line`, `stock_move`,
//!   `stock_picking`, `sale_order` and `product_product` one, and `sale_order` one on `origin`.

mod cancellations;
mod client;
mod corrections;
mod customers;
mod dispatches;
mod documents;
mod fake;
mod give_back;
mod invoices;
mod listing;
mod money;
mod objects;
mod receipts;
mod references;
mod rows;
mod sales;
mod settings;
mod sink;
mod stock;
mod table;
mod tills;
mod tree;

use crate::connectors::erp::{ErpSource, Objects, Part, Stock};
use crate::contract::topic;
use crate::pipeline::{
    Capabilities, Check, Connector, ConnectorDescriptor, Evidence, Fault, Idempotency, Sink,
    Source, Vault,
};
use client::Client;
use settings::Settings;
use std::sync::{Arc, OnceLock};

/// What its sink can do.
const CAPABILITIES: Capabilities = Capabilities {
    idempotency: Idempotency::NaturalKey,
    compare_and_set: false,
    batch_records_max: 1,
    calls_max: 4,
};

/// What the connector is.
pub const DESCRIPTOR: ConnectorDescriptor = ConnectorDescriptor {
    kind: "odoo",
    purpose: "reads stock, products, orders, returns, invoices and till receipts of an Odoo ERP, and keeps orders and their money there",
    emits: &[
        topic::STOCK_CHANGE,
        topic::STOCK_SNAPSHOT,
        topic::STOCK_POLICY,
        topic::PRODUCT_CHANGE,
        topic::LOCATION_CHANGE,
        topic::PRICE_CHANGE,
        topic::ORDER_LIFECYCLE,
        topic::SHIPMENT_EVENT,
        topic::RETURN_EVENT,
        topic::INVOICE_EVENT,
        topic::PAYMENT_EVENT,
        topic::REFUND_REQUEST,
        topic::RECON_MANIFEST,
    ],
    inbox: false,
    accepts: &[
        topic::ORDER_LIFECYCLE,
        topic::PAYMENT_EVENT,
        topic::SHIPMENT_EVENT,
        topic::RETURN_EVENT,
        topic::REFUND_EVENT,
        topic::RECON_CORRECTION,
        topic::CUSTOMER_CHANGE,
    ],
    sink: Some(CAPABILITIES),
    evidence: Evidence::RealSystem,
    settings: || schemars::schema_for!(Settings),
    build: |instance, settings| {
        let settings: Settings = super::settings(instance, settings)?;
        settings.check(instance)?;
        Ok(Arc::new(Odoo {
            instance: instance.to_owned(),
            client: Arc::new(Client::new(instance, settings)?),
            vault: OnceLock::new(),
        }))
    },
    fake: Some(|options| Box::pin(async move { fake::start(&options) })),
};

struct Odoo {
    instance: String,
    client: Arc<Client>,
    vault: OnceLock<Arc<dyn Vault>>,
}

#[async_trait::async_trait]
impl Connector for Odoo {
    fn source(&self) -> Option<Box<dyn Source>> {
        let (instance, client) = (&self.instance, &self.client);
        let kinds = objects::Kind::ALL.iter();
        let kinds = kinds.filter(|kind| kind.is_read(&client.settings));
        let parts = kinds.map(|kind| {
            let kept = objects::KeptObjects::new(*kind, instance, client.clone());
            Part::new(kind.shard(), kind.rest(), Objects::new(instance, kept))
        });
        let moves = stock::OdooMoves::new(instance, client.clone());
        let stock = Stock::new(instance, moves);
        let source = ErpSource::new(stock, parts.collect());
        Some(Box::new(source.listing(listing::open(instance, client))))
    }

    /// Where no channel is named there are no orders to take, and stock is corrected only if asked for.
    fn sink(&self) -> Option<Arc<dyn Sink>> {
        let (instance, client) = (self.instance.clone(), self.client.clone());
        (!client.settings.channels.is_empty() || client.settings.correct_stock).then(|| {
            let vault = self.vault.get().cloned();
            Arc::new(sink::OdooSink {
                instance,
                client,
                vault,
            }) as Arc<dyn Sink>
        })
    }

    fn knows_customers(&self) -> bool {
        self.client.settings.customers
    }

    fn entrust(&self, vault: Arc<dyn Vault>) {
        // The first stays: a connector is handed one.
        let _ = self.vault.set(vault);
    }

    async fn check(&self) -> Vec<Check> {
        let ok = |what: &str, result: Result<String, Fault>| Check {
            what: what.into(),
            result: result.map_err(|f| f.message),
        };
        let client = &self.client;
        let user = client.user().await;
        let places = tree::Places::load(client).await;
        let mut checks = vec![
            ok(
                "log in",
                user.map(|u| format!("company {}", u.company_name)),
            ),
            ok("locations", places.and_then(|p| p.tree.describe())),
            ok("read stock moves", stock::check(client).await),
        ];
        for (kind, what) in [
            (objects::Kind::Products, "read products"),
            (objects::Kind::OrderPoints, "read replenishment rules"),
            (objects::Kind::Prices, "read prices"),
            (objects::Kind::Sales, "read sales"),
            (objects::Kind::Shipments, "read deliveries"),
            (objects::Kind::Returns, "read returns"),
            (objects::Kind::Invoices, "read invoices"),
            (objects::Kind::Receipts, "read receipts of tills"),
        ] {
            if kind.is_read(&client.settings) {
                checks.push(ok(what, objects::check(client, kind).await));
            }
        }
        for (channel, settings) in &client.settings.channels {
            let found = tree::Places::load(client).await.and_then(|places| {
                let found = places.warehouse_of(&settings.warehouse);
                let found = found.map(|w| format!("warehouse {}", w.name));
                found.ok_or_else(|| references::no_warehouse(channel, settings))
            });
            checks.push(ok(&format!("take orders of {channel}"), found));
        }
        checks
    }
}
