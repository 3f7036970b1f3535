//! Whether a delivery is what its sender signed, and when.

use super::settings::{DeliveryId, Encoding, Form, Signing, Webhook};
use crate::domain::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;

/// Shortest secret, in bytes.
const SECRET_BYTES_MIN: usize = 16;
/// Longest name of a delivery that is taken as it is, in bytes.
const ID_BYTES_MAX: usize = 255;
/// Signatures that are tried in one header.
const SIGNATURES_MAX: usize = 8;

/// Headers of a delivery, names in lower case.
pub type Headers = BTreeMap<String, String>;

/// Why a delivery is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not verified; the cause, for this side only.
    Unverified(String),
    /// It is verified, and cannot be worked on.
    Malformed(String),
}

/// Checked expectations.
pub struct Verifier {
    signing: Signing,
    parts: Vec<Part>,
    keys: Vec<Vec<u8>>,
    window: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Body,
    Timestamp,
    Id,
}

impl Verifier {
    /// # Errors
    /// All that is wrong with the settings.
    pub fn new(webhook: &Webhook, signing: &Signing) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        let parts = parts(&signing.signed).unwrap_or_else(|why| {
            wrong.push(why);
            Vec::new()
        });
        if !parts.contains(&Part::Body) && wrong.is_empty() {
            wrong.push("signed leaves the body out; write {body} where it stands".to_owned());
        }
        let has_time = signing.form == Form::Pairs || signing.timestamp_header.is_some();
        if parts.contains(&Part::Timestamp) && !has_time {
            wrong.push("signed names {timestamp}; give timestamp_header".to_owned());
        }
        match &signing.delivery_id {
            Some(id) if id.header.is_some() == id.pointer.is_some() => {
                wrong.push("delivery_id needs one of header and pointer".to_owned());
            }
            Some(DeliveryId {
                pointer: Some(p), ..
            }) if !p.starts_with('/') => {
                wrong.push(format!("delivery_id.pointer {p:?} must begin with /"));
            }
            Some(DeliveryId { header: None, .. }) | None if parts.contains(&Part::Id) => {
                wrong.push("signed names {id}; take delivery_id from a header".to_owned());
            }
            _ => {}
        }
        if !(1..=2).contains(&webhook.secrets.len()) {
            wrong.push("secrets must be one, or two while one replaces the other".to_owned());
        }
        let mut keys = Vec::new();
        for (at, secret) in webhook.secrets.iter().enumerate() {
            match key(secret.reveal(), signing.base64_secrets) {
                Ok(key) => keys.push(key),
                Err(why) => wrong.push(format!("secrets.{at} {why}")),
            }
        }
        match wrong.is_empty() {
            true => Ok(Verifier {
                signing: signing.clone(),
                parts,
                keys,
                window: Duration::from_secs(webhook.window_s),
            }),
            false => Err(wrong),
        }
    }

    /// Whether one of the secrets signed this, and within the window. Every secret and signature is
    /// tried, whichever fits.
    ///
    /// # Errors
    /// [`Refused::Unverified`].
    pub fn verify(&self, headers: &Headers, body: &[u8], now: Timestamp) -> Result<(), Refused> {
        let unverified = |why: &str| Refused::Unverified(why.to_owned());
        let header = headers
            .get(&self.signing.header.to_ascii_lowercase())
            .ok_or_else(|| Refused::Unverified(format!("no header {}", self.signing.header)))?;
        let (signatures, time) = self.signatures(header);
        let time = match &self.signing.timestamp_header {
            Some(name) => headers.get(&name.to_ascii_lowercase()).cloned(),
            None => time,
        };
        let id = self.header_id(headers).unwrap_or_default();
        let mut signed = Vec::with_capacity(body.len() + 64);
        for part in &self.parts {
            match part {
                Part::Text(text) => signed.extend_from_slice(text.as_bytes()),
                Part::Body => signed.extend_from_slice(body),
                Part::Id => signed.extend_from_slice(id.as_bytes()),
                Part::Timestamp => {
                    let time = time.as_ref().ok_or_else(|| unverified("no timestamp"))?;
                    signed.extend_from_slice(time.as_bytes());
                }
            }
        }
        let mut verified = false;
        for key in &self.keys {
            for signature in &signatures {
                verified |= is_signed(key, &signed, signature);
            }
        }
        if !verified {
            return Err(unverified("no secret verifies the signature"));
        }
        if self.parts.contains(&Part::Timestamp) {
            let at = time.as_deref().and_then(instant);
            let at = at.ok_or_else(|| unverified("the timestamp cannot be read"))?;
            let distance = now.0.abs_diff(at.0);
            if u128::from(distance) > self.window.as_micros() {
                let seconds = distance / 1_000_000;
                let why = format!("it was signed {seconds} s away from now, outside the window");
                return Err(Refused::Unverified(why));
            }
        }
        Ok(())
    }

    /// The delivery's name.
    ///
    /// # Errors
    /// [`Refused::Malformed`] where the settings name a place and nothing stands there.
    pub fn id(
        &self,
        headers: &Headers,
        body: &[u8],
        json: &serde_json::Value,
    ) -> Result<String, Refused> {
        let id = match &self.signing.delivery_id {
            None => return Ok(digest(body)),
            Some(DeliveryId {
                pointer: Some(pointer),
                ..
            }) => match json.pointer(pointer) {
                Some(serde_json::Value::String(id)) => Some(id.clone()),
                Some(serde_json::Value::Number(id)) => Some(id.to_string()),
                _ => None,
            },
            Some(_) => self.header_id(headers),
        };
        match id.filter(|id| !id.is_empty()) {
            Some(id) if id.len() > ID_BYTES_MAX => Ok(digest(id.as_bytes())),
            Some(id) => Ok(id),
            None => Err(Refused::Malformed("the delivery has no name".to_owned())),
        }
    }

    fn header_id(&self, headers: &Headers) -> Option<String> {
        let name = self.signing.delivery_id.as_ref()?.header.as_ref()?;
        headers.get(&name.to_ascii_lowercase()).cloned()
    }

    /// The signatures in a header, decoded, and the time beside them.
    fn signatures(&self, header: &str) -> (Vec<Vec<u8>>, Option<String>) {
        let prefix = self.signing.prefix.as_deref();
        let mut time = None;
        let texts: Vec<&str> = match self.signing.form {
            Form::Plain => header
                .split(' ')
                .filter_map(|s| s.strip_prefix(prefix.unwrap_or_default()))
                .collect(),
            Form::Pairs => {
                let pairs = header.split(',').filter_map(|p| p.trim().split_once('='));
                let mut found = Vec::new();
                for (name, value) in pairs {
                    if name == "t" {
                        time = Some(value.to_owned());
                    } else if name == prefix.unwrap_or("v1") {
                        found.push(value);
                    }
                }
                found
            }
        };
        let decode = |text: &&str| match self.signing.encoding {
            Encoding::Hex => from_hex(text),
            Encoding::Base64 => STANDARD.decode(text).ok(),
        };
        let decoded = texts.iter().take(SIGNATURES_MAX).filter_map(decode);
        (decoded.collect(), time)
    }
}

/// HMAC-SHA256 of `message` under `secret`, in hexadecimal: for senders, such as stand-ins.
pub fn sign(secret: &str, message: &[u8]) -> String {
    mac(secret.as_bytes(), message).map_or_else(String::new, |mac| {
        to_hex(mac.finalize().into_bytes().as_slice())
    })
}

/// The digest of some bytes, in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    to_hex(Sha256::digest(bytes).as_slice())
}

/// Compares in constant time (`hmac`'s own comparison).
fn is_signed(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    mac(key, message).is_some_and(|mac| mac.verify_slice(signature).is_ok())
}

/// HMAC takes keys of any length.
fn mac(key: &[u8], message: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(message);
    Some(mac)
}

fn key(secret: &str, is_base64: bool) -> Result<Vec<u8>, String> {
    let key = match is_base64 {
        true => STANDARD
            .decode(secret.strip_prefix("whsec_").unwrap_or(secret))
            .map_err(|_| "is not base64".to_owned())?,
        false => secret.as_bytes().to_vec(),
    };
    if key.len() < SECRET_BYTES_MIN {
        return Err(format!(
            "is shorter than {SECRET_BYTES_MIN} bytes; take a longer one"
        ));
    }
    Ok(key)
}

fn parts(template: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        if at > 0 {
            parts.push(Part::Text(rest[..at].to_owned()));
        }
        let (name, after) = rest[at + 1..]
            .split_once('}')
            .ok_or_else(|| format!("signed {template:?}: a brace is not closed"))?;
        parts.push(match name {
            "body" => Part::Body,
            "timestamp" => Part::Timestamp,
            "id" => Part::Id,
            other => {
                return Err(format!(
                    "signed {template:?}: there is no {{{other}}}; write {{body}}, {{timestamp}} or {{id}}"
                ));
            }
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// Seconds or milliseconds since 1970, or RFC 3339.
fn instant(text: &str) -> Option<Timestamp> {
    /// As seconds this is in the year 5138, as milliseconds in 1973.
    const MILLISECONDS_FROM: i64 = 100_000_000_000;
    match text.parse::<i64>() {
        Ok(n) if n >= MILLISECONDS_FROM => n.checked_mul(1_000).map(Timestamp),
        Ok(n) => n.checked_mul(1_000_000).map(Timestamp),
        Err(_) => {
            let at: jiff::Timestamp = text.parse().ok()?;
            Some(Timestamp(at.as_microsecond()))
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a text in memory does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}
