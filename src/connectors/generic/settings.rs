//! What a connector of any HTTP system can be told. The comments of these types are its
//! documentation.

use crate::config::Secret;
use crate::connectors::mapping::FieldSource;
use crate::connectors::webhook::{Signing, Webhook};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Settings of a connector of any HTTP system.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where deliveries are taken.
    #[serde(default)]
    pub webhook: Option<Webhook>,
    /// How deliveries are signed and named.
    #[serde(default)]
    pub signature: Option<Signing>,
    /// What deliveries tell. Each delivery is held against all of these; one that none fits is
    /// dead-lettered, unless `ignore` fits it.
    #[serde(default)]
    pub events: Vec<EventMapping>,
    /// Deliveries that tell nothing: those that fit any of these.
    #[serde(default)]
    pub ignore: Vec<BTreeMap<String, Vec<String>>>,
    /// The system whose facts these are, where several connectors read one. Without it, the
    /// connector's own name.
    #[serde(default)]
    pub source: Option<String>,
    /// What stands before the decimal places of a number that is written as text: `.` or `,`.
    #[serde(default = "point")]
    pub decimal_mark: char,
    /// How times are written, as in `strptime`: `%Y-%m-%d %H:%M:%S`. Without it, RFC 3339.
    #[serde(default)]
    pub time_format: Option<String>,
    /// Time zone of times that name none, as in `Europe/London`.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// Base URL that requests go to.
    #[serde(default)]
    pub url: Option<String>,
    /// What is sent. A record goes out as the first of these that fits it; one that none fits is not
    /// this system's business.
    #[serde(default)]
    pub requests: Vec<Request>,
    /// Bearer token of requests, by reference.
    #[serde(default)]
    pub bearer: Option<Secret>,
    /// Headers of requests whose values are secrets, by reference, as in `X-Api-Key`.
    #[serde(default)]
    pub secret_headers: BTreeMap<String, Secret>,
    /// Header that carries each request's idempotency key, which repeats with it; the system must keep
    /// to one effect for a key, or take the whole state as `PUT` does.
    #[serde(default = "idempotency_header")]
    pub idempotency_header: String,
    /// Path that `connectors check` reads to see whether the system answers.
    #[serde(default)]
    pub check_path: Option<String>,
    /// Longest wait for an answer, in milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

/// How a delivery becomes events of one contract.
///
/// Values are found by `column`: a path into the body, such as `/order/number`; `@x-topic` is a header.
/// Within `each`, paths begin at the element, and `$/order/number` at the body.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventMapping {
    /// Topic that the events go to, as in `retail.shipment.event.v1`; its contract says which fields
    /// there are and what each must be.
    pub topic: String,
    /// Only deliveries that have one of these values at each of these paths, as in
    /// `/type: [shipped, delivered]`.
    #[serde(default)]
    pub when: BTreeMap<String, Vec<String>>,
    /// Path of a list that has one event for each element.
    #[serde(default)]
    pub each: Option<String>,
    /// Paths whose values name the fact, also when it is delivered again: the object and its version.
    pub identity: Vec<String>,
    /// When it happened.
    pub time: FieldSource,
    /// The order, by its channel and its number there: makes `orderId`.
    #[serde(default)]
    pub order: Option<OrderSource>,
    /// Fields of the contract by their names; those within others by path, as in `amount.currency`.
    /// A field that is a UUID and is given otherwise becomes one that is always the same.
    #[serde(default)]
    pub fields: BTreeMap<String, FieldSource>,
    /// Lists of the contract by their names, as in `lines`.
    #[serde(default)]
    pub lists: BTreeMap<String, ListMapping>,
}

/// Where an order is found.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderSource {
    /// Its channel, as in `channelId` of orders.
    pub channel: FieldSource,
    /// Its number there.
    pub number: FieldSource,
}

/// How a list of the body becomes a list of the contract.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListMapping {
    /// Path of the list in the body.
    pub each: String,
    /// Fields of an element by their names; paths begin at the element, `$/` at the body.
    pub fields: BTreeMap<String, FieldSource>,
}

/// How a record becomes a request.
///
/// In templates `{/lines/0/sku}` is a value of the event, as JSON names its fields, and `{key}` the
/// record's key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Topic whose records are sent.
    pub topic: String,
    /// Only records whose events have one of these values at each of these paths, as in
    /// `/status: [SHIPPED]`.
    #[serde(default)]
    pub when: BTreeMap<String, Vec<String>>,
    /// `POST`, `PUT`, `PATCH` or `DELETE`.
    #[serde(default = "post")]
    pub method: String,
    /// Path, as in `/orders/{/orderId}`; values are percent-encoded.
    pub path: String,
    /// Body: JSON in which a text that is one `{…}` is the value itself, and one that holds several is
    /// filled in. Without it, the whole event.
    #[serde(default)]
    pub body: Option<serde_json::Value>,
    /// Further headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Path of the object's id in the answer, for receipts.
    #[serde(default)]
    pub answer_id: Option<String>,
}

fn point() -> char {
    '.'
}
fn utc() -> String {
    "UTC".to_owned()
}
fn post() -> String {
    "POST".to_owned()
}
fn idempotency_header() -> String {
    "Idempotency-Key".to_owned()
}
fn timeout_ms() -> u64 {
    30_000
}
