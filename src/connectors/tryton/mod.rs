//! Tryton, an ERP with warehouses and tills. Its source reads stock movements, counts, products, prices,
//! locations and order points, and of the orders that it keeps acceptance, shipments, returns and
//! invoices. Its sink makes orders into sales, and takes what happened to them elsewhere.
//!
//! `client` talks JSON-RPC. Reading: `moves`, `map`, `documents` and `invoices` turn rows into events, `tree` says
//! what a location is, `stock` and `objects` follow the tables with what ERPs share in `connectors/erp`, `listing` lists the orders,
//! `source` puts them behind [`Source`]. Writing: `sales` takes orders, `lines`
//! are their lines, `references` what their names are here, `dispatches`, `give_back` and `money` take
//! shipments, returns and payments, `corrections` sets stock right, `cancellations` takes sales back, `duplicates` one that is there twice, `customers` says
//! who parties are, `sink` puts them behind [`Sink`]. `fake` is the stand-in.
//!
//! Facts about the API are of Tryton 8.2, each seen against a running server:
//! - `last_modified_at` is the start of the transaction in microseconds. All rows of one transaction
//!   share it, and a row can appear behind newer ones: pages go by (stamp, id), and the stamps of the
//!   last [`Settings::overlap_s`] seconds are counted again in every poll.
//! - A done move never changes what it moved, but its stamp moves when its cost or price is set
//!   afterwards: whether a move was told already is known by its id, never by its stamp.
//! - A count changes stock by moves to and from Lost and Found; no product and no location moves a
//!   stamp for it.
//! - A sale is unique by web shop and web id, its only key that the database keeps: the same reference
//!   twice makes two sales. A party is unique by its code.
//! - A sale costs the rounded sum of quantity × price without tax, and each tax is rounded once for
//!   the document; prices have four places.
//! - A shipment that leaves something out is done, and another is made for the rest.
//! - Tables have no index on their stamp: where they are large, give `stock_move`, `sale_sale`,
//!   `stock_shipment_out`, `account_invoice` and `product_product` one on `coalesce(write_date, create_date)`.
//! - Rows that are deleted leave nothing. A done move cannot be deleted. A product, location or
//!   order point that is deleted is not noticed.
//! - A storage location that is put below another warehouse takes its stock along without a move,
//!   and a move dated in the future counts here at once, in the ERP's reports only then. Neither is
//!   told; the comparison after the next count names the difference.

mod cancellations;
mod client;
mod corrections;
mod customers;
mod dispatches;
mod documents;
mod duplicates;
mod fake;
mod give_back;
mod invoices;
mod lines;
mod listing;
mod map;
mod money;
mod moves;
mod objects;
mod references;
mod rows;
mod sales;
mod settings;
mod sink;
mod source;
mod stock;
mod table;
mod tree;

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
    compare_and_set: true,
    batch_records_max: 1,
    calls_max: 4,
};

/// What the connector is.
pub const DESCRIPTOR: ConnectorDescriptor = ConnectorDescriptor {
    kind: "tryton",
    purpose: "reads stock movements, counts and products of a Tryton ERP, and keeps orders there",
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
        Ok(Arc::new(Tryton {
            instance: instance.to_owned(),
            client: Arc::new(Client::new(instance, settings)?),
            vault: OnceLock::new(),
        }))
    },
    fake: Some(|options| Box::pin(async move { fake::start(&options) })),
};

struct Tryton {
    instance: String,
    client: Arc<Client>,
    vault: OnceLock<Arc<dyn Vault>>,
}

#[async_trait::async_trait]
impl Connector for Tryton {
    fn source(&self) -> Option<Box<dyn Source>> {
        Some(Box::new(source::open(&self.instance, &self.client)))
    }
    /// Where no channel is named there are no orders to take, and stock is corrected only if asked for.
    fn sink(&self) -> Option<Arc<dyn Sink>> {
        let client = self.client.clone();
        (!client.settings.channels.is_empty() || client.settings.correct_stock).then(|| {
            Arc::new(sink::TrytonSink::new(
                &self.instance,
                client,
                self.vault.get().cloned(),
            )) as Arc<dyn Sink>
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
        let mut checks = vec![
            ok("log in", client.describe_login().await),
            ok(
                "locations",
                tree::load(client).await.and_then(|(t, _)| t.describe()),
            ),
            ok("read stock moves", stock::check(client).await),
            ok(
                "read products",
                objects::check(client, objects::Kind::Products).await,
            ),
        ];
        for (kind, what) in [
            (objects::Kind::OrderPoints, "read order points"),
            (objects::Kind::Prices, "read prices"),
            (objects::Kind::Sales, "read sales"),
            (objects::Kind::Shipments, "read shipments"),
            (objects::Kind::Returns, "read returns"),
            (objects::Kind::Invoices, "read invoices"),
        ] {
            if kind.is_read(&client.settings) {
                checks.push(ok(what, objects::check(client, kind).await));
            }
        }
        for (channel, settings) in &client.settings.channels {
            let found = references::shop(client, channel, settings).await;
            let what = format!("take orders of {channel}");
            checks.push(ok(&what, found.map(|s| format!("web shop {}", s.id))));
        }
        checks
    }
}
