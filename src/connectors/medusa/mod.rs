//! Medusa, a storefront: its source tells orders, payments, refunds and cancellations; its sink sets
//! inventory levels so that customers see the published availability, shows what was sent, cancels and
//! refunds.
//!
//! `client` talks, `orders` translates, `acts` does what is done to orders, `catalogue` to
//! products, `shop` puts both behind
//! [`Storefront`](super::storefront::Storefront), `fake` is the stand-in.
//!
//! Facts about the API are of Medusa 2.21.2, each seen against a running shop:
//! - A batch of location levels is one transaction, absolute and repeatable; what a shop can sell is
//!   `stocked_quantity − reserved_quantity`, summed over the stock locations of the sales channel, so
//!   availability A is written as A + reserved at one location, and the others are kept empty.
//! - A fulfilment, an edit, a refund and a cancellation are each a new version of their order and move
//!   its `updated_at`; a capture moves only its payment's. Version 1 can still be read.
//! - Lines that an edit sets to 0 are gone from the order. An edit of an order whose payment is not
//!   captured gives the payment up. One edit of an order can be open at a time.
//! - The prices that are sent with a variant replace all it has: those that stay are sent with their ids.
//!   Whether prices are with tax is a preference of the currency. Only a whole product can be withdrawn.
//! - `refund` made twice pays twice; it refuses more than was captured. A shipment or delivery that was
//!   made is refused when made again.

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
    kind: "medusa",
    purpose: "reads orders, payments and refunds of a Medusa shop, and shows availability and shipments in it",
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
        Ok(Arc::new(Medusa {
            shop: Arc::new(Shop { client, terms }),
            vault: OnceLock::new(),
        }))
    },
    fake: Some(|options| Box::pin(async move { fake::start(&options) })),
};

/// Settings of a Medusa connector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Base URL of the server, without `/admin`.
    pub url: String,
    /// Secret API key (`sk_…`), by reference: `${env:NAME}` or `${file:PATH}`.
    pub api_key: Secret,
    /// Channel of the shop, as in `channelId` of events: of its orders, and of the availability it shows.
    pub channel: String,
    /// Name of the Medusa stock location to write to, from which shipments are shown to leave.
    pub location: String,
    /// Names of all other stock locations of the sales channel. Customers see the sum of all, so these
    /// are set to nothing.
    #[serde(default)]
    pub empty_locations: Vec<String>,
    /// Name of the Medusa sales channel whose customers see the availability, and whose orders are told;
    /// the shop's default where none is given.
    #[serde(default)]
    pub sales_channel: Option<String>,
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

fn timeout_ms() -> u64 {
    30_000
}

struct Medusa {
    shop: Arc<Shop>,
    vault: OnceLock<Arc<dyn Vault>>,
}

#[async_trait::async_trait]
impl Connector for Medusa {
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
        let client = &self.shop.client;
        let places = client.places().await;
        let location = format!(
            "find the stock location {:?} with the API key, and no other than those of `empty_locations`",
            client.settings.location
        );
        let mut checks = vec![
            words(&location, places.map(|p| format!("id {}", p.location))),
            words(
                "read inventory items",
                client.items(&["-"]).await.map(|_| "allowed".into()),
            ),
        ];
        for list in self.shop.lists() {
            let rows = self.shop.heads(list, Timestamp(i64::MAX / 64), 0).await;
            let what = format!("read {}", list.name);
            checks.push(words(&what, rows.map(|_| "allowed".into())));
        }
        checks
    }
}
