//! Any system that can send and take JSON over HTTP: a WMS, a 3PL, a POS, tax or customer service.
//!
//! What is delivered as signed webhooks becomes events by a mapping that the configuration declares,
//! typed by the contracts themselves; records of the declared topics become requests by templates.
//! What it deliberately lacks: loops, conditions and arithmetic. A system that needs them deserves a
//! connector of its own.
//!
//! `settings` is the documentation, `event` makes events of JSON, `source` reads the inbox, `sink` sends.

mod event;
mod settings;
mod sink;
mod source;

use crate::connectors::webhook::Ingress;
use crate::contract::topic;
use crate::pipeline::{
    Capabilities, Check, Code, Connector, ConnectorDescriptor, Evidence, Fault, Idempotency, Sink,
    Source, Stage,
};
use event::Mappings;
use settings::Settings;
use std::sync::Arc;

/// Topics that events can be written to.
const EMITS: &[&str] = &[
    topic::STOCK_CHANGE,
    topic::STOCK_SNAPSHOT,
    topic::ORDER_LIFECYCLE,
    topic::PAYMENT_EVENT,
    topic::SHIPMENT_EVENT,
    topic::RETURN_EVENT,
    topic::REFUND_REQUEST,
    topic::INVOICE_EVENT,
    topic::SETTLEMENT_EVENT,
    topic::SETTLEMENT_PAYOUT,
];
/// Topics whose records can be sent.
const ACCEPTS: &[&str] = &[
    topic::ORDER_LIFECYCLE,
    topic::ORDER_STATE,
    topic::SHIPMENT_STATE,
    topic::RETURN_EVENT,
    topic::REFUND_EVENT,
    topic::STOCK_ATS,
    topic::PRODUCT_CHANGE,
    topic::PRICE_CHANGE,
    topic::RECON_CORRECTION,
];

/// What the connector is.
pub const DESCRIPTOR: ConnectorDescriptor = ConnectorDescriptor {
    kind: "http",
    purpose: "joins a system that sends signed webhooks or takes JSON, by declared mappings",
    emits: EMITS,
    inbox: true,
    accepts: ACCEPTS,
    sink: Some(CAPABILITIES),
    evidence: Evidence::Documentation,
    settings: || schemars::schema_for!(Settings),
    build: |instance, settings| {
        let settings: Settings = super::settings(instance, settings)?;
        let generic = Generic {
            mappings: Arc::new(Mappings::new(instance, &settings)?),
            sender: Arc::new(sink::Sender::new(instance, &settings)?),
            instance: instance.to_owned(),
            settings,
        };
        generic.ingress()?;
        Ok(Arc::new(generic))
    },
    fake: None,
};

const CAPABILITIES: Capabilities = Capabilities {
    idempotency: Idempotency::Key,
    compare_and_set: false,
    batch_records_max: 1,
    calls_max: 8,
};

struct Generic {
    instance: String,
    settings: Settings,
    mappings: Arc<Mappings>,
    sender: Arc<sink::Sender>,
}

impl Generic {
    /// The way in, where one is declared.
    fn ingress(&self) -> Result<Option<Ingress>, Fault> {
        let wrong = |why: &str| {
            let message = format!("settings of {}: {why}", self.instance);
            Err(Fault::halt(Stage::Read, Code::Configuration, message))
        };
        match (&self.settings.webhook, &self.settings.signature) {
            (Some(webhook), Some(signing)) if !self.settings.events.is_empty() => {
                Ingress::new(&self.instance, webhook, signing).map(Some)
            }
            (Some(_), Some(_)) => wrong("webhook has no events; declare them"),
            (Some(_), None) => wrong("webhook needs signature"),
            (None, _) if !self.settings.events.is_empty() => wrong("events need webhook"),
            (None, _) if self.settings.requests.is_empty() => {
                wrong("declare webhook, signature and events, or url and requests")
            }
            (None, _) => Ok(None),
        }
    }
}

#[async_trait::async_trait]
impl Connector for Generic {
    fn source(&self) -> Option<Box<dyn Source>> {
        match self.ingress() {
            Ok(ingress) => Some(Box::new(source::GenericSource::new(
                &self.instance,
                self.mappings.clone(),
                ingress?,
            ))),
            Err(fault) => {
                // The settings were checked when the connector was built.
                tracing::error!(%fault, "the source cannot be made");
                None
            }
        }
    }
    fn sink(&self) -> Option<Arc<dyn Sink>> {
        if self.settings.requests.is_empty() {
            return None;
        }
        Some(Arc::new(sink::GenericSink::new(self.sender.clone())))
    }
    async fn check(&self) -> Vec<Check> {
        let mut checks = vec![Check {
            what: "understand the declared mappings".into(),
            result: Ok(format!(
                "{} events, {} requests",
                self.settings.events.len(),
                self.settings.requests.len()
            )),
        }];
        if let Some(path) = &self.settings.check_path {
            let result = self.sender.reach(path).await;
            checks.push(Check {
                what: format!("read {path}"),
                result: result.map_err(|f| f.message),
            });
        }
        checks
    }
}
