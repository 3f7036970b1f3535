//! Sends records as the requests that the configuration declares.

use super::settings::{Request, Settings};
use crate::connectors::http;
use crate::connectors::mapping::plain;
use crate::contract::event::SinkOutcome;
use crate::pipeline::{Ack, Capabilities, Code, Delivery, Fault, Inbound, Sink, Stage};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// What is encoded in a path: all but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Makes and sends requests.
pub struct Sender {
    instance: String,
    settings: Settings,
    url: String,
    http: reqwest::Client,
}

impl Sender {
    /// # Errors
    /// All that is wrong with the declared requests.
    pub fn new(instance: &str, settings: &Settings) -> Result<Self, Fault> {
        let mut wrong = Vec::new();
        for (at, request) in settings.requests.iter().enumerate() {
            if !super::ACCEPTS.contains(&request.topic.as_str()) {
                wrong.push(format!(
                    "requests.{at}: topic {:?} cannot be sent; write one of {}",
                    request.topic,
                    super::ACCEPTS.join(", ")
                ));
            }
            if !["POST", "PUT", "PATCH", "DELETE"].contains(&request.method.as_str()) {
                wrong.push(format!(
                    "requests.{at}: method {:?}; write POST, PUT, PATCH or DELETE",
                    request.method
                ));
            }
            if !request.path.starts_with('/') {
                wrong.push(format!("requests.{at}: path must begin with /"));
            }
        }
        let url = settings.url.clone().unwrap_or_default();
        if !settings.requests.is_empty() && !url.starts_with("http") {
            wrong.push("requests need url, as in https://wms.example.org".to_owned());
        }
        if !wrong.is_empty() {
            let message = format!("settings of {instance}: {}", wrong.join("; "));
            return Err(Fault::halt(Stage::Write, Code::Configuration, message));
        }
        Ok(Sender {
            instance: instance.to_owned(),
            url: url.trim_end_matches('/').to_owned(),
            http: http::client(Duration::from_millis(settings.timeout_ms))?,
            settings: settings.clone(),
        })
    }

    fn with_secrets(&self, mut request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        if let Some(token) = &self.settings.bearer {
            request = request.bearer_auth(token.reveal());
        }
        for (name, value) in &self.settings.secret_headers {
            request = request.header(name, value.reveal());
        }
        request
    }

    /// Whether the system answers a read of `path`.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn reach(&self, path: &str) -> Result<String, Fault> {
        let request = self.http.get(format!("{}{path}", self.url));
        let answer = http::read(&self.instance, self.with_secrets(request)).await?;
        Ok(format!("answered {}", answer.status))
    }

    fn request_for<'s>(&'s self, inbound: &Inbound, event: &Value) -> Option<&'s Request> {
        let fits = |request: &&Request| {
            let is_topic = *request.topic == *inbound.record.origin.topic;
            let fits = |(path, values): (&String, &Vec<String>)| {
                let value = event.pointer(path).map(plain);
                value.is_some_and(|v| values.contains(&v))
            };
            is_topic && request.when.iter().all(fits)
        };
        self.settings.requests.iter().find(fits)
    }

    async fn send(&self, delivery: &Delivery) -> Result<Ack, Fault> {
        let event = serde_json::to_value(&delivery.inbound.event).unwrap_or_default();
        let version = delivery.inbound.record.origin.offset;
        let Some(request) = self.request_for(&delivery.inbound, &event) else {
            return Ok(Ack {
                outcome: SinkOutcome::StaleSkipped,
                version,
                external_id: None,
                digest: None,
                status: None,
            });
        };
        let fill = |template: &str, encode: bool| fill(template, &event, &delivery.key, encode);
        let path = fill(&request.path, true)?;
        let body = match &request.body {
            Some(template) => filled(template, &event, &delivery.key)?,
            None => event.clone(),
        };
        let method = Method::from_bytes(request.method.as_bytes()).unwrap_or(Method::POST);
        let key = delivery.inbound.event.meta().event_id.to_string();
        let mut call = self
            .http
            .request(method, format!("{}{path}", self.url))
            .header(&self.settings.idempotency_header, key);
        for (name, template) in &request.headers {
            call = call.header(name, fill(template, false)?);
        }
        let answer = http::send(&self.instance, self.with_secrets(call).json(&body)).await?;
        let id = request.answer_id.as_ref();
        let id = id.and_then(|path| answer.body.pointer(path)).map(plain);
        Ok(Ack {
            outcome: SinkOutcome::Acked,
            version,
            external_id: id,
            digest: None,
            status: Some(i32::from(answer.status)),
        })
    }
}

/// A text with its places filled in.
fn fill(template: &str, event: &Value, key: &str, encode: bool) -> Result<String, Fault> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let Some((place, after)) = after.split_once('}') else {
            return Err(refused(format!(
                "the template {template:?} has a brace that is not closed"
            )));
        };
        let value = match place {
            "key" => key.to_owned(),
            path => event.pointer(path).map(plain).unwrap_or_default(),
        };
        if value.is_empty() && encode {
            return Err(refused(format!("{place} is empty, but the path needs it")));
        }
        match encode {
            true => text.extend(utf8_percent_encode(&value, RESERVED)),
            false => text.push_str(&value),
        }
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

/// JSON with its places filled in.
fn filled(template: &Value, event: &Value, key: &str) -> Result<Value, Fault> {
    Ok(match template {
        Value::String(text) => {
            let place = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
            match place.filter(|p| p.starts_with('/') && !p.contains('{')) {
                Some(path) => event.pointer(path).cloned().unwrap_or_default(),
                None => fill(text, event, key, false)?.into(),
            }
        }
        Value::Array(list) => {
            let each = list.iter().map(|t| filled(t, event, key));
            Value::Array(each.collect::<Result<_, _>>()?)
        }
        Value::Object(object) => {
            let each = object.iter();
            let each = each.map(|(name, t)| Ok((name.clone(), filled(t, event, key)?)));
            Value::Object(each.collect::<Result<Map<_, _>, Fault>>()?)
        }
        other => other.clone(),
    })
}

fn refused(message: String) -> Fault {
    Fault::reject(Stage::Write, Code::DataQuality, message)
}

/// The sink.
pub struct GenericSink {
    sender: Arc<Sender>,
}

impl GenericSink {
    /// Sends by `sender`.
    pub fn new(sender: Arc<Sender>) -> Self {
        GenericSink { sender }
    }
}

#[async_trait::async_trait]
impl Sink for GenericSink {
    fn capabilities(&self) -> Capabilities {
        super::CAPABILITIES
    }
    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        let mut results = Vec::with_capacity(batch.len());
        for delivery in batch {
            results.push(self.sender.send(delivery).await);
        }
        results
    }
    fn wants(&self, inbound: &Inbound) -> bool {
        let event = serde_json::to_value(&inbound.event).unwrap_or_default();
        self.sender.request_for(inbound, &event).is_some()
    }
}
