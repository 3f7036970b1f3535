//! A payment provider with Stripe's API: its source tells what became of customers' money and what
//! each payout is made of, its sink pays refunds.
//!
//! API version 2026-08-26. What is relied on, from the vendor's contract and documentation:
//!
//! - An event holds its object as it was then. Webhooks may come late, twice, shuffled or not at all; the
//!   list of events keeps thirty days. So a webhook is a short cut, and the list is read behind it:
//!   `source.rs` says how the two make one source.
//! - A charge is captured once; the balance names it by the charge's id, a refund by the refund's,
//!   a dispute by the dispute's. These ids are `pspReference`, which the lines of payouts carry too.
//! - A request with an idempotency key is answered with what its first one was answered, for at least
//!   a day, errors included; other parameters under the key are refused. What is older is looked up:
//!   each refund carries its key in its metadata.
//! - An automatic payout's balance transactions are complete when its reconciliation is.
//!
//! Amounts are in minor units of ISO 4217, but for ISK and UGX, which the API counts in hundredths.
//!
//! `client` talks, `map` translates, `source` reads events, `payouts` settlements, `sink` pays.

mod client;
mod fake;
mod map;
mod payouts;
mod sink;
mod source;

use crate::config::Secret;
use crate::connectors::webhook::{Ingress, Signing, Webhook};
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
    kind: "psp",
    purpose: "tells of payments and payouts of a provider with Stripe's API, and pays refunds there",
    emits: &[
        topic::PAYMENT_EVENT,
        topic::SETTLEMENT_EVENT,
        topic::SETTLEMENT_PAYOUT,
    ],
    inbox: true,
    accepts: &[topic::REFUND_EVENT],
    sink: Some(CAPABILITIES),
    evidence: Evidence::Documentation,
    settings: || schemars::schema_for!(Settings),
    build: |instance, settings| {
        let settings: Settings = super::settings(instance, settings)?;
        if let Some(webhook) = &settings.webhook {
            Ingress::new(instance, webhook, &Signing::stripe())?;
        }
        Ok(Arc::new(Psp {
            client: Arc::new(Client::new(instance, settings)?),
        }))
    },
    fake: Some(|options| Box::pin(async move { fake::start(&options) })),
};

const CAPABILITIES: Capabilities = Capabilities {
    idempotency: Idempotency::Key,
    compare_and_set: false,
    batch_records_max: 1,
    calls_max: 8,
};

/// Settings of a provider with Stripe's API.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Base URL of the API.
    #[serde(default = "url")]
    pub url: String,
    /// Secret key of the account, by reference; a restricted key needs to read charges, refunds,
    /// disputes, events, payouts and balance transactions, and to write refunds.
    pub api_key: Secret,
    /// Name of the provider in events, as in `psp` of payments and settlements. Connectors of several
    /// accounts need several names.
    #[serde(default = "name")]
    pub name: String,
    /// Sales channel whose orders are paid here, as in `channelId` of orders.
    pub channel: String,
    /// Metadata of a payment that holds the channel, for an account that serves several.
    #[serde(default)]
    pub channel_metadata: Option<String>,
    /// Metadata of a payment that holds the order's number in its channel.
    #[serde(default = "order_metadata")]
    pub order_metadata: String,
    /// Takes webhooks, signed with the endpoint's secret (`whsec_…`). Without it, events are only
    /// read from the list, `lag_s` late.
    #[serde(default)]
    pub webhook: Option<Webhook>,
    /// Reads events and payouts from this time on, RFC 3339; at first the list holds thirty days.
    #[serde(default)]
    pub since: Option<String>,
    /// How long the list of events is given to have an event, in seconds.
    #[serde(default = "lag_s")]
    pub lag_s: u64,
    /// How often the list of events and the payouts are looked at, in seconds.
    #[serde(default = "poll_s")]
    pub poll_s: u64,
    /// Objects in one page of a list, at most 100.
    #[serde(default = "page_rows")]
    pub page_rows: usize,
    /// Longest wait for an answer, in milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

fn url() -> String {
    "https://api.stripe.com".to_owned()
}
fn name() -> String {
    "stripe".to_owned()
}
fn order_metadata() -> String {
    "order_id".to_owned()
}
fn lag_s() -> u64 {
    30
}
fn poll_s() -> u64 {
    10
}
fn page_rows() -> usize {
    100
}
fn timeout_ms() -> u64 {
    30_000
}

struct Psp {
    client: Arc<Client>,
}

#[async_trait::async_trait]
impl Connector for Psp {
    fn source(&self) -> Option<Box<dyn Source>> {
        let client = self.client.clone();
        match source::PspSource::new(client) {
            Ok(source) => Some(Box::new(source)),
            Err(fault) => {
                // The settings were checked when the connector was built.
                tracing::error!(%fault, "the source cannot be made");
                None
            }
        }
    }
    fn sink(&self) -> Option<Arc<dyn Sink>> {
        Some(Arc::new(sink::PspSink::new(self.client.clone())))
    }
    async fn check(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        for (what, path) in [
            ("read charges", "/v1/charges"),
            ("read refunds", "/v1/refunds"),
            ("read events", "/v1/events"),
            ("read payouts", "/v1/payouts"),
            ("read balance transactions", "/v1/balance_transactions"),
        ] {
            let query = [("limit".to_owned(), "1".to_owned())];
            let result = self.client.get(path, &query).await;
            checks.push(Check {
                what: what.into(),
                result: result
                    .map(|_| "allowed".to_owned())
                    .map_err(|f: Fault| f.message),
            });
        }
        checks
    }
}
