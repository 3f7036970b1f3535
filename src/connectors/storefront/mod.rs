//! What the storefronts' connectors share: which events an order makes, how a list of orders is
//! followed, and what a sink sends where.
//!
//! A storefront's own folder talks to it and translates; it does so behind [`Storefront`].

mod availability;
mod catalogue;
mod customers;
mod deliveries;
mod listing;
mod order;
mod sink;
mod source;
mod window;

pub use availability::Publish;
pub use catalogue::{CatalogueSettings, is_for_sale, is_plain, not_one, other_tax};
pub use customers::{ShopCustomer, said};
pub use order::{Cancellation, Charge, Content, Line, Movement, ShopOrder, mark, marked};
pub use sink::StorefrontSink;
pub use source::StorefrontSource;
pub use window::{Head, LISTED_ROWS};

use crate::connectors::webhook::{Ingress, Signing, Webhook};
use crate::contract::event::{
    Event, OrderState, PaymentKind, PriceChanged, ProductChanged, RefundEvent, ShipmentState,
    SinkOutcome,
};
use crate::contract::topic;
use crate::domain::Timestamp;
use crate::pipeline::{Ack, Capabilities, Fault, Idempotency};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Topics that a storefront's source writes.
pub const EMITS: &[&str] = &[
    topic::ORDER_LIFECYCLE,
    topic::PAYMENT_EVENT,
    topic::REFUND_REQUEST,
    topic::OPS_EXCEPTION,
    topic::CUSTOMER_CHANGE,
    topic::RECON_MANIFEST,
];
/// Topics that its sink reads.
pub const ACCEPTS: &[&str] = &[
    topic::STOCK_ATS,
    topic::ORDER_STATE,
    topic::SHIPMENT_STATE,
    topic::REFUND_EVENT,
    topic::PRICE_CHANGE,
    topic::PRODUCT_CHANGE,
];
/// What its sink can do. What is not an absolute value is looked up before it is done.
pub const CAPABILITIES: Capabilities = Capabilities {
    idempotency: Idempotency::NaturalKey,
    compare_and_set: false,
    batch_records_max: 100,
    calls_max: 2,
};

/// Settings of orders and payments.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OrderSettings {
    /// Orders placed before this time (RFC 3339) are not told; without it all are.
    pub since: Option<String>,
    /// For how many seconds after its stamp an order may still appear: longer than the shop's longest
    /// transaction.
    pub overlap_s: u32,
    /// For how many days after an order was placed refunds are looked for that moved no stamp.
    pub refund_days: u32,
    /// Shipping methods by which customers pick up in a store: the shop's code of the method, and the
    /// location.
    pub pickup_methods: BTreeMap<String, String>,
    /// Payment methods (the shop's codes) whose payments are told by a connector of the provider: the
    /// shop's view of them is not told, and refunds are not asked for here.
    pub provider_tells: Vec<String>,
    /// Every so many hours the orders that changed since are listed, so that what one system has and
    /// another has not is found; 0 for never.
    pub list_hours: u32,
}

impl Default for OrderSettings {
    fn default() -> Self {
        OrderSettings {
            since: None,
            overlap_s: 60,
            refund_days: 120,
            pickup_methods: BTreeMap::new(),
            provider_tells: Vec::new(),
            list_hours: 24,
        }
    }
}

/// The way in for a storefront's webhooks, where it is to have one. They are signed by the Standard
/// Webhooks specification.
///
/// # Errors
/// All that is wrong with the settings.
pub fn way_in(instance: &str, webhook: Option<&Webhook>) -> Result<Option<Ingress>, Fault> {
    let ingress = |w| Ingress::new(instance, w, &Signing::standard_webhooks());
    webhook.map(ingress).transpose()
}

/// What a storefront is to Crossdock.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Name of the connector instance.
    pub instance: String,
    /// Channel of its orders and its availability.
    pub channel: String,
    pub since: Timestamp,
    pub overlap: Duration,
    pub refund_horizon: Duration,
    pub pickup_methods: BTreeMap<String, String>,
    /// Time from one list of its orders to the next; `None` for no lists.
    pub list_every: Option<Duration>,
    /// What it is told of products.
    pub catalogue: CatalogueSettings,
    /// Whether it tells who its customers are.
    pub customers: bool,
    provider_tells: Vec<String>,
}

impl Terms {
    /// # Errors
    /// A halt when a setting cannot be read.
    pub fn new(
        instance: &str,
        channel: &str,
        settings: &OrderSettings,
        catalogue: &CatalogueSettings,
        customers: bool,
    ) -> Result<Self, Fault> {
        let since = settings.since.as_deref().map(|text| {
            text.parse::<jiff::Timestamp>().map_err(|e| {
                let message = format!(
                    "settings of {instance}: orders.since is {text:?}, but must be a time such as 2026-11-26T00:00:00Z"
                );
                Fault::halt(
                    crate::pipeline::Stage::Read,
                    crate::pipeline::Code::Configuration,
                    message,
                )
                .caused_by(e)
            })
        });
        let day = Duration::from_secs(86_400);
        Ok(Terms {
            instance: instance.to_owned(),
            channel: channel.to_owned(),
            since: since
                .transpose()?
                .map_or(Timestamp(0), |t| Timestamp(t.as_microsecond())),
            overlap: Duration::from_secs(settings.overlap_s.into()),
            refund_horizon: day * settings.refund_days,
            pickup_methods: settings.pickup_methods.clone(),
            list_every: (settings.list_hours > 0).then(|| day / 24 * settings.list_hours),
            catalogue: catalogue.clone(),
            customers,
            provider_tells: settings.provider_tells.clone(),
        })
    }

    /// Whether payments of this method are this storefront's to tell of and to refund.
    pub fn tells_payments_of(&self, method: &str) -> bool {
        !self.provider_tells.iter().any(|m| m == method)
    }

    /// The name under which the storefront stands as the provider of a payment method.
    pub fn psp(&self, method: &str) -> String {
        format!("{}/{method}", self.channel)
    }

    /// The payment method that a provider's name stands for, if it is one of this storefront.
    pub fn method_of<'a>(&self, psp: &'a str) -> Option<&'a str> {
        let method = psp.strip_prefix(&*self.channel)?.strip_prefix('/')?;
        self.tells_payments_of(method).then_some(method)
    }
}

/// An order as it was read.
pub struct ReadOrder {
    /// The storefront's id.
    pub id: String,
    /// Its bytes.
    pub raw: Bytes,
    /// What it says; `None` when nothing was ordered yet.
    pub order: Result<Option<ShopOrder>, Fault>,
}

/// What a call of the sink came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Id of the object in the storefront.
    pub external_id: Option<String>,
    /// Whether something had to be done, or all of it was found.
    pub changed: bool,
}

impl Done {
    /// All of it was there.
    pub fn found(external_id: Option<String>) -> Self {
        Done {
            external_id,
            changed: false,
        }
    }
    /// It was done now.
    pub fn now(external_id: Option<String>) -> Self {
        Done {
            external_id,
            changed: true,
        }
    }

    fn ack(self, version: i64) -> Ack {
        Ack {
            outcome: match self.changed {
                true => SinkOutcome::Acked,
                false => SinkOutcome::DuplicateAcked,
            },
            version,
            external_id: self.external_id,
            digest: None,
            status: None,
        }
    }
}

/// A storefront: reading its orders, and changing it.
///
/// Whatever changes it looks for what it is about to do first, by a natural key, so that a call made
/// again has one effect, and a call without an answer is looked up.
#[async_trait::async_trait]
pub trait Storefront: Send + Sync + 'static {
    /// What it is to Crossdock.
    fn terms(&self) -> &Terms;
    /// The lists that are followed.
    fn lists(&self) -> &'static [List];
    /// Rows of a list with a stamp not before `from`, by stamp and then id, at most [`LISTED_ROWS`]
    /// after the first `skip`.
    async fn heads(&self, list: &List, from: Timestamp, skip: usize) -> Result<Vec<Head>, Fault>;
    /// The id of the order that a webhook's body is about.
    async fn announced(&self, body: &serde_json::Value) -> Result<Option<String>, Fault>;
    /// Rows of the list of customers, as [`Storefront::heads`]; `order` of a row is its id.
    async fn customer_heads(&self, from: Timestamp, skip: usize) -> Result<Vec<Head>, Fault>;
    /// The customers with these ids. One that is gone is absent.
    async fn customers(&self, ids: &[&str]) -> Result<Vec<ShopCustomer>, Fault>;
    /// The orders with these ids. One that is gone is absent.
    async fn orders(&self, ids: &[&str]) -> Result<Vec<ReadOrder>, Fault>;

    /// Sets what customers can buy; writes what became of each into `results`.
    async fn publish(
        &self,
        publish: &[Publish],
        results: &mut [Option<Result<Ack, Fault>>],
    ) -> Result<(), Fault>;
    /// Shows customers what was sent, with tracking.
    async fn fulfil(&self, state: &ShipmentState) -> Result<Done, Fault>;
    /// Cancels the units that are cancelled, or all of an order that was rejected.
    async fn cancel(&self, state: &OrderState) -> Result<Done, Fault>;
    /// Pays a refund of `method` back under `key`, or finds that it was paid.
    async fn refund(&self, refund: &RefundEvent, method: &str, key: &str) -> Result<Done, Fault>;
    /// Shows what a piece costs, a price that [`is_plain`] and of the shop's list.
    async fn price(&self, price: &PriceChanged) -> Result<Done, Fault>;
    /// Shows what a product is called, and sells it or not.
    async fn product(&self, product: &ProductChanged, for_sale: bool) -> Result<Done, Fault>;
}

/// A list of a storefront that is followed by stamps.
pub struct List {
    /// Name of the shard.
    pub name: &'static str,
    /// How it is followed.
    pub way: Way,
    /// Which events of an order it tells.
    pub tells: fn(&Event) -> bool,
}

/// How a list is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Stamps move with every change of a row.
    Changes,
    /// Stamps do not move with what is looked for: the rows of the last days are read again and again.
    Again,
}

/// Everything.
pub fn is_told(_: &Event) -> bool {
    true
}

/// What money did.
pub fn is_of_money(event: &Event) -> bool {
    matches!(event, Event::PaymentEvent(_) | Event::RefundRequest(_))
}

/// What became of refunds.
pub fn is_refund(event: &Event) -> bool {
    match event {
        Event::RefundRequest(_) => true,
        Event::PaymentEvent(e) => matches!(
            e.kind,
            PaymentKind::Refunded | PaymentKind::RefundFailed | PaymentKind::RefundReversed
        ),
        _ => false,
    }
}
