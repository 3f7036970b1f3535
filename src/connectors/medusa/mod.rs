//! Medusa, a storefront: its sink sets inventory levels so that customers see the published
//! availability.
//!
//! Facts about the API are of Medusa 2.21.2, each seen against a running shop: a batch of location
//! levels is one transaction, absolute and repeatable; what a shop can sell is
//! `stocked_quantity − reserved_quantity`, summed over the stock locations of the sales channel, so
//! availability A is written as A + reserved at one location, and the others are kept empty.

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
    kind: "medusa",
    purpose: "shows availability in a Medusa shop",
    emits: &[],
    inbox: false,
    accepts: &[topic::STOCK_ATS],
    sink: Some(CAPABILITIES),
    evidence: Evidence::RealSystem,
    settings: || schemars::schema_for!(Settings),
    build: |instance, settings| {
        let settings: Settings = super::settings(instance, settings)?;
        Ok(Arc::new(Medusa {
            client: Arc::new(Client::new(instance, settings)?),
        }))
    },
    fake: Some(|options| Box::pin(async move { fake::start(&options) })),
};

const CAPABILITIES: Capabilities = Capabilities {
    idempotency: Idempotency::AbsoluteValue,
    compare_and_set: false,
    batch_records_max: 200,
    calls_max: 2,
};

/// Settings of a Medusa connector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Base URL of the server, without `/admin`.
    pub url: String,
    /// Secret API key (`sk_…`), by reference: `${env:NAME}` or `${file:PATH}`.
    pub api_key: Secret,
    /// Channel whose availability the shop shows, as in `channelId` of availability events.
    pub channel: String,
    /// Name of the Medusa stock location to write to.
    pub location: String,
    /// Names of all other stock locations of the sales channel. Customers see the sum of all, so these
    /// are set to nothing.
    #[serde(default)]
    pub empty_locations: Vec<String>,
    /// Name of the Medusa sales channel whose customers see it; the shop's default where none is given.
    #[serde(default)]
    pub sales_channel: Option<String>,
    /// Longest wait for an answer, in milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

fn timeout_ms() -> u64 {
    30_000
}

struct Medusa {
    client: Arc<Client>,
}

#[async_trait::async_trait]
impl Connector for Medusa {
    fn source(&self) -> Option<Box<dyn Source>> {
        None
    }
    fn sink(&self) -> Option<Arc<dyn Sink>> {
        Some(Arc::new(sink::MedusaSink::new(self.client.clone())))
    }
    async fn check(&self) -> Vec<Check> {
        let words = |result: Result<String, Fault>| result.map_err(|f| f.to_string());
        let places = self.client.places().await;
        vec![
            Check {
                what: format!(
                    "find the stock location {:?} with the API key, and no other than those of `empty_locations`",
                    self.client.settings.location
                ),
                result: words(places.map(|p| format!("id {}", p.location))),
            },
            Check {
                what: "read inventory items".into(),
                result: words(self.client.items(&["-"]).await.map(|_| "allowed".into())),
            },
        ]
    }
}
