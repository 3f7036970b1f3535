//! Vendure, a storefront: its sink sets stock so that customers see the published availability.
//!
//! Facts about the API are of Vendure 3.7.3, each seen against a running shop: one call of
//! `updateProductVariants` is one transaction, absolute and repeatable; what a shop can sell is
//! `stockOnHand − stockAllocated`, summed over the stock locations of its channel, so availability A is
//! written as A + allocated at one location, and the others of the channel are kept empty.

mod client;
mod fake;
mod sink;

use crate::config::Secret;
use crate::contract::topic;
use crate::pipeline::{
    Capabilities, Check, Connector, ConnectorDescriptor, Evidence, Fault, Idempotency, Sink, Source,
};
use client::Client;
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;

/// What the connector is.
pub const DESCRIPTOR: ConnectorDescriptor = ConnectorDescriptor {
    kind: "vendure",
    purpose: "shows availability in a Vendure shop",
    emits: &[],
    inbox: false,
    accepts: &[topic::STOCK_ATS],
    sink: Some(CAPABILITIES),
    evidence: Evidence::RealSystem,
    settings: || schemars::schema_for!(Settings),
    build: |instance, settings| {
        let settings: Settings = super::settings(instance, settings)?;
        Ok(Arc::new(Vendure {
            client: Arc::new(Client::new(instance, settings)?),
        }))
    },
    fake: Some(|options| Box::pin(async move { fake::start(&options) })),
};

const CAPABILITIES: Capabilities = Capabilities {
    idempotency: Idempotency::AbsoluteValue,
    compare_and_set: false,
    batch_records_max: 100,
    calls_max: 2,
};

/// Settings of a Vendure connector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Base URL of the server, without `/admin-api`.
    pub url: String,
    /// Administrator to log in as; needs the rights to update the catalogue and to read stock locations.
    pub username: String,
    /// Password, by reference: `${env:NAME}` or `${file:PATH}`.
    pub password: Secret,
    /// Channel whose availability the shop shows, as in `channelId` of availability events.
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
    /// Longest wait for an answer, in milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

fn timeout_ms() -> u64 {
    30_000
}

struct Vendure {
    client: Arc<Client>,
}

#[async_trait::async_trait]
impl Connector for Vendure {
    fn source(&self) -> Option<Box<dyn Source>> {
        None
    }
    fn sink(&self) -> Option<Arc<dyn Sink>> {
        Some(Arc::new(sink::VendureSink::new(self.client.clone())))
    }
    async fn check(&self) -> Vec<Check> {
        let words = |result: Result<String, Fault>| result.map_err(|f| f.to_string());
        let places = self.client.places().await;
        vec![
            Check {
                what: format!(
                    "log in and find the stock location {:?}, and no other than those of `empty_locations`",
                    self.client.settings.location
                ),
                result: words(places.map(|p| format!("id {}", p.location))),
            },
            Check {
                what: "read product variants".into(),
                result: words(self.client.variants(&[]).await.map(|_| "allowed".into())),
            },
            Check {
                what: "set stock".into(),
                result: words(self.client.may_update().await.map(|()| "allowed".into())),
            },
        ]
    }
}
