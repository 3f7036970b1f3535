//! What a way in can be told. The comments of these types are its documentation.

use crate::config::Secret;
use schemars::JsonSchema;
use serde::Deserialize;

/// Where deliveries are taken, and by which secrets they are known.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Address to take deliveries at: `host:port`. It speaks plain HTTP: put what ends TLS before
    /// it, and have that pass the body on as it is.
    pub listen: String,
    /// Path that deliveries are sent to.
    #[serde(default = "path")]
    pub path: String,
    /// Secrets that senders sign with, by reference, each of at least 16 characters: one, or two
    /// while one replaces the other.
    pub secrets: Vec<Secret>,
    /// Keys that encrypt what is kept of deliveries, by reference, each of at least 16 characters:
    /// the first encrypts, all of them decrypt. Keep a replaced one for the thirty days that dead
    /// letters live.
    pub inbox_keys: Vec<Secret>,
    /// A delivery signed longer ago than this, or as far in the future, is refused, in seconds;
    /// only where the signature covers a time.
    #[serde(default = "window_s")]
    pub window_s: u64,
    /// Largest body, in bytes; at most 1,500,000.
    #[serde(default = "body_bytes_max")]
    pub body_bytes_max: usize,
}

/// How deliveries are signed and named. Signatures are HMAC-SHA256 (RFC 2104) over the exact bytes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signing {
    /// Header that holds the signature, as in `X-Signature`.
    pub header: String,
    /// What else stands in that header: `plain`, the signature alone, or several with blanks between
    /// them; or `pairs`, as in `t=1700000000,v1=5257a8…`, where `t` is the time.
    #[serde(default)]
    pub form: Form,
    /// What stands before the signature, as in `sha256=` or `v1,`; of `pairs`, the name before `=`,
    /// without which it is `v1`.
    #[serde(default)]
    pub prefix: Option<String>,
    /// How the signature is written: `hex` or `base64`.
    #[serde(default)]
    pub encoding: Encoding,
    /// What is signed, as in `{timestamp}.{body}`; `{id}` is the delivery's name.
    #[serde(default = "signed")]
    pub signed: String,
    /// Header that holds the time of signing: seconds or milliseconds since 1970, or RFC 3339.
    #[serde(default)]
    pub timestamp_header: Option<String>,
    /// Where the delivery's name is found, by which it is known when it is sent again. Take it from
    /// what is signed where you can: who can change it can have an old delivery taken for a new one.
    /// Without it, deliveries with one body are one.
    #[serde(default)]
    pub delivery_id: Option<DeliveryId>,
    /// Secrets are the base64 of the key, with or without `whsec_` before it.
    #[serde(default)]
    pub base64_secrets: bool,
}

/// Where a delivery's name is found.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeliveryId {
    /// Header that holds it.
    #[serde(default)]
    pub header: Option<String>,
    /// Path into the body, as in `/event/id`.
    #[serde(default)]
    pub pointer: Option<String>,
}

/// What stands in the header of the signature.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The signature, or several with blanks between them.
    #[default]
    Plain,
    /// Names and values, among them the time `t`.
    Pairs,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Two hexadecimal digits for each byte.
    #[default]
    Hex,
    /// Base64 with padding (RFC 4648 §4).
    Base64,
}

impl Signing {
    /// As Stripe signs: `Stripe-Signature: t=…,v1=…` over `{timestamp}.{body}`, the event's id in the
    /// body.
    pub fn stripe() -> Signing {
        Signing {
            header: "stripe-signature".into(),
            form: Form::Pairs,
            prefix: None,
            encoding: Encoding::Hex,
            signed: "{timestamp}.{body}".into(),
            timestamp_header: None,
            delivery_id: Some(DeliveryId {
                header: None,
                pointer: Some("/id".into()),
            }),
            base64_secrets: false,
        }
    }

    /// By the Standard Webhooks specification 1.0: `webhook-signature: v1,…` over
    /// `{id}.{timestamp}.{body}`.
    pub fn standard_webhooks() -> Signing {
        Signing {
            header: "webhook-signature".into(),
            form: Form::Plain,
            prefix: Some("v1,".into()),
            encoding: Encoding::Base64,
            signed: "{id}.{timestamp}.{body}".into(),
            timestamp_header: Some("webhook-timestamp".into()),
            delivery_id: Some(DeliveryId {
                header: Some("webhook-id".into()),
                pointer: None,
            }),
            base64_secrets: true,
        }
    }
}

fn path() -> String {
    "/".to_owned()
}
fn window_s() -> u64 {
    300
}
fn body_bytes_max() -> usize {
    1_000_000
}
fn signed() -> String {
    "{body}".to_owned()
}
