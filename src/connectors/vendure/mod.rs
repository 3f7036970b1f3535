//! Vendure, a storefront: its source tells orders, payments, refunds and cancellations; its sink sets
//! stock so that customers see the published availability, shows what was sent, cancels and refunds.
//!
//! `client` talks, `orders` translates, `acts` does what is done to orders, `catalogue` to
//! products, `shop` puts both behind
//! [`Storefront`](super::storefront::Storefront), `fake` is the stand-in.
//!
//! Facts about the API are of Vendure 3.7.3, each seen against a running shop:
//! - One call of `updateProductVariants` is one transaction, absolute and repeatable; what a shop can
//!   sell is `stockOnHand − stockAllocated`, summed over the stock locations of its channel, so
//!   availability A is written as A + allocated at one location, and the others of the channel are kept
//!   empty.
//! - A payment, a fulfilment and a cancellation move `updatedAt` of their order, in whole seconds on
//!   SQLite; a refund and its settlement do not, and there is no list of refunds.
//! - A cancelled line has quantity 0 and keeps `orderPlacedQuantity`; what was cancelled when, and what
//!   became of payments and refunds, stands in the order's history.
//! - `refundOrder` made twice pays twice; a payment method without refunds leaves a refund `Pending`
//!   until somebody says that it was paid.
//! - A fulfilment's tracking code cannot be changed.
//! - Setting a variant's price in one currency leaves those in others; whether prices are with tax is a
//!   matter of the channel.

mod acts;
mod catalogue;
mod client;
mod customers;
mod fake;
mod orders;
mod shop;

use super::storefront::{
    self, CatalogueSettings, OrderSettings, Storefront, StorefrontSink, StorefrontSource, Terms,
};
use super::webhook::Webhook;
use crate::config::Secret;
use crate::domain::Timestamp;
use crate::pipeline::{
    Check, Connector, ConnectorDescriptor, Evidence, Fault, Sink, Source, Vault,
};
use client::Client;
use schemars::JsonSchema;
use serde::Deserialize;
use shop::Shop;
use std::sync::{Arc, OnceLock};

/// What the connector is.
pub const DESCRIPTOR: ConnectorDescriptor = ConnectorDescriptor {
    kind: "vendure",
    purpose: "reads orders, payments and refunds of a Vendure shop, and shows availability and shipments in it",
    emits: storefront::EMITS,
    inbox: true,
    accepts: storefront::ACCEPTS,
    sink: Some(storefront::CAPABILITIES),
    evidence: Evidence::RealSystem,
    settings: || schemars::schema_for!(Settings),
    build: |instance, settings| {
        let settings: Settings = super::settings(instance, settings)?;
        let terms = Terms::new(
            instance,
            &settings.channel,
            &settings.orders,
            &settings.catalogue,
            settings.customers,
        )?;
        let client = Client::new(instance, settings)?;
        storefront::way_in(instance, client.settings.webhook.as_ref())?;
        Ok(Arc::new(Vendure {
            shop: Arc::new(Shop { client, terms }),
            vault: OnceLock::new(),
        }))
    },
    fake: Some(|options| Box::pin(async move { fake::start(&options) })),
};

/// Settings of a Vendure connector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Base URL of the server, without `/admin-api`.
    pub url: String,
    /// Administrator to log in as; needs the rights to update the catalogue, to read stock
    /// locations, and to read and update orders.
    pub username: String,
    /// Password, by reference: `${env:NAME}` or `${file:PATH}`.
    pub password: Secret,
    /// Channel of the shop, as in `channelId` of events: of its orders, and of the availability it shows.
    pub channel: String,
    /// Name of the Vendure stock location to write to.
    pub location: String,
    /// Names of all other stock locations of the shop's channel. Customers see the sum of all, so
    /// these are set to nothing.
    #[serde(default)]
    pub empty_locations: Vec<String>,
    /// Token of the Vendure channel whose customers see it; the default channel where none is given.
    #[serde(default)]
    pub channel_token: Option<String>,
    /// Decimal places of the shop's amounts, as its money strategy keeps them.
    #[serde(default = "money_places")]
    pub money_places: u32,
    /// Code of the fulfilment handler that is told of shipments; it must take `method` and
    /// `trackingCode`.
    #[serde(default = "fulfilment_handler")]
    pub fulfilment_handler: String,
    /// Orders and payments.
    #[serde(default)]
    pub orders: OrderSettings,
    /// Whether it is told who the shop's customers are: name, e-mail, phone and address, encrypted with
    /// a key for each. Needs `customers.keys` of the configuration.
    #[serde(default)]
    pub customers: bool,
    /// Products and prices.
    #[serde(default)]
    pub catalogue: CatalogueSettings,
    /// Where the shop's webhooks are taken, signed by the Standard Webhooks specification, their secrets
    /// in base64. Without it, orders are found by asking alone.
    #[serde(default)]
    pub webhook: Option<Webhook>,
    /// Longest wait for an answer, in milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

fn money_places() -> u32 {
    2
}
fn fulfilment_handler() -> String {
    "manual-fulfillment".to_owned()
}
fn timeout_ms() -> u64 {
    30_000
}

struct Vendure {
    shop: Arc<Shop>,
    vault: OnceLock<Arc<dyn Vault>>,
}

#[async_trait::async_trait]
impl Connector for Vendure {
    fn source(&self) -> Option<Box<dyn Source>> {
        let shop = &self.shop;
        // The settings were judged when the connector was built.
        let way_in =
            storefront::way_in(&shop.terms.instance, shop.client.settings.webhook.as_ref());
        let ingress = way_in.unwrap_or_default();
        Some(Box::new(StorefrontSource::new(
            shop.clone(),
            ingress,
            self.vault.get().cloned(),
        )))
    }
    fn sink(&self) -> Option<Arc<dyn Sink>> {
        Some(Arc::new(StorefrontSink::new(self.shop.clone())))
    }
    fn knows_customers(&self) -> bool {
        self.shop.terms.customers
    }
    fn entrust(&self, vault: Arc<dyn Vault>) {
        // The first stays: a connector is handed one.
        let _ = self.vault.set(vault);
    }
    async fn check(&self) -> Vec<Check> {
        let words = |what: &str, result: Result<String, Fault>| Check {
            what: what.into(),
            result: result.map_err(|f| f.message),
        };
        let allowed = |result: Result<(), Fault>| result.map(|()| "allowed".to_owned());
        let client = &self.shop.client;
        let places = client.places().await;
        let location = format!(
            "log in and find the stock location {:?}, and no other than those of `empty_locations`",
            client.settings.location
        );
        let variants = client.variants(&[]).await.map(|_| ());
        let stock = client.may("set stock", ["UpdateCatalog", "UpdateProduct"]);
        let stock = stock.await;
        let list = &self.shop.lists()[0];
        let orders = self.shop.heads(list, Timestamp(i64::MAX / 64), 0).await;
        let update = client.may("change orders", ["UpdateOrder", "SuperAdmin"]);
        let update = update.await;
        vec![
            words(&location, places.map(|p| format!("id {}", p.location))),
            words("read product variants", allowed(variants)),
            words("set stock", allowed(stock)),
            words("read orders", allowed(orders.map(|_| ()))),
            words("change orders", allowed(update)),
        ]
    }
}
