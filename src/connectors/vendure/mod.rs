//! Vendure, a storefront: its sink sets stock so that customers see the published availability.
//!
//! Facts about the API are of Vendure 3.7.3, each seen against a running shop: one call of
//! `updateProductVariants` is one transaction, absolute and repeatable; what a shop can sell is
//! `stockOnHand − stockAllocated`, so availability A is written as A + allocated.

mod client;
mod fake;
mod sink;

use crate::config::Secret;
use crate::contract::topic;
use crate::pipeline::{
    Capabilities, Check, Connector, ConnectorDescriptor, Evidence, Idempotency, Sink, Source,
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
    accepts: &[topic::STOCK_ATS],
    sink: Some(CAPABILITIES),
    evidence: Evidence::Documentation,
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
    /// Administrator to log in as; needs the right to update the catalogue.
    pub username: String,
    /// Password, by reference: `${env:NAME}` or `${file:PATH}`.
    pub password: Secret,
    /// Channel whose availability the shop shows, as in `channelId` of availability events.
    pub channel: String,
    /// Name of the Vendure stock location to write to.
    pub location: String,
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
        let location = self.client.location().await;
        let known = self.client.variants(&[]).await;
        vec![
            Check {
                what: format!(
                    "log in and find the stock location {:?}",
                    self.client.settings.location
                ),
                result: location
                    .map(|id| format!("id {id}"))
                    .map_err(|f| f.to_string()),
            },
            Check {
                what: "read product variants".into(),
                result: known
                    .map(|_| "allowed".to_owned())
                    .map_err(|f| f.to_string()),
            },
        ]
    }
}
