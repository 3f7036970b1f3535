//! Talks to the API: form-encoded requests, JSON answers, cursors by object id.

use super::Settings;
use crate::connectors::http;
use crate::pipeline::{Code, Fault, Stage, rehearsal};
use serde_json::Value;
use std::time::Duration;

/// Version of the API that the answers are read by.
const API_VERSION: &str = "2026-08-26.dahlia";
/// Pages of a list that are read for one slice of time.
const PAGES_MAX: usize = 50;

/// Query or form parameters.
pub type Parameters = Vec<(String, String)>;

/// A client of one account.
pub struct Client {
    /// Name of the connector instance.
    pub instance: String,
    /// Its settings.
    pub settings: Settings,
    /// The second before what is read begins.
    pub since_s: Option<i64>,
    http: reqwest::Client,
}

/// Everything that a list has between two times.
pub enum Slice {
    /// In the order of the list: the newest first.
    Whole(Vec<Value>),
    /// More than is read at once.
    TooMany,
}

impl Client {
    /// # Errors
    /// All that is wrong with the settings.
    pub fn new(instance: &str, settings: Settings) -> Result<Self, Fault> {
        let mut wrong = Vec::new();
        let since = settings.since.as_deref().map(str::parse::<jiff::Timestamp>);
        let since_s = match since.transpose() {
            Ok(at) => at.map(|at| at.as_second() - 1),
            Err(_) => {
                wrong.push("since must be a time by RFC 3339, as in 2026-11-01T00:00:00Z");
                None
            }
        };
        if !(1..=100).contains(&settings.page_rows) {
            wrong.push("page_rows must be from 1 to 100");
        }
        if !settings.url.starts_with("http://") && !settings.url.starts_with("https://") {
            wrong.push("url must begin with https:// (or http:// for a stand-in)");
        }
        if settings.name.is_empty() || settings.channel.is_empty() {
            wrong.push("name and channel must not be empty");
        }
        if !wrong.is_empty() {
            let message = format!("settings of {instance}: {}", wrong.join("; "));
            return Err(Fault::halt(Stage::Read, Code::Configuration, message));
        }
        Ok(Client {
            instance: instance.to_owned(),
            http: http::client(Duration::from_millis(settings.timeout_ms))?,
            since_s,
            settings,
        })
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.settings.url.trim_end_matches('/'));
        self.http
            .request(method, url)
            .bearer_auth(self.settings.api_key.reveal())
            .header("stripe-version", API_VERSION)
    }

    /// Reads an object or a page of a list.
    pub async fn get(&self, path: &str, query: &[(String, String)]) -> Result<Value, Fault> {
        let request = self.request(reqwest::Method::GET, path).query(query);
        Ok(http::read(&self.instance, request).await?.body)
    }

    /// Makes an object, or changes one, under an idempotency key.
    ///
    /// # Errors
    /// A rejection is the provider's final word on this key; a retry says nothing about the effect.
    /// Cancelling may leave the call done.
    pub async fn post(&self, path: &str, form: &Parameters, key: &str) -> Result<Value, Fault> {
        rehearsal::hold(|| format!("POST {path}"))?;
        let request = self
            .request(reqwest::Method::POST, path)
            .header("idempotency-key", key)
            .form(form);
        let answer = http::raw(&self.instance, request).await?;
        let status = answer.status.as_u16();
        // Another request under the key, or on the object, is under way.
        if status == 409 {
            let message = format!(
                "{} answered 409: {}",
                self.instance,
                http::quote(&answer.bytes)
            );
            return Err(Fault::retry(Stage::Write, Code::OutcomeUnknown, message));
        }
        Ok(answer.judge(&self.instance)?.body)
    }

    /// Every object of a list that was created after `after` up to `until`, in seconds.
    pub async fn slice(
        &self,
        path: &str,
        after: i64,
        until: i64,
        extra: &[(String, String)],
    ) -> Result<Slice, Fault> {
        let mut query = extra.to_vec();
        query.push(("created[gt]".into(), after.to_string()));
        query.push(("created[lte]".into(), until.to_string()));
        self.pages(path, query).await
    }

    /// Every object of a list.
    pub async fn pages(&self, path: &str, mut query: Parameters) -> Result<Slice, Fault> {
        query.push(("limit".into(), self.settings.page_rows.to_string()));
        let mut found: Vec<Value> = Vec::new();
        for _ in 0..PAGES_MAX {
            let mut page_query = query.clone();
            if let Some(last) = found.last() {
                page_query.push(("starting_after".into(), text(last, "id")?.to_owned()));
            }
            let mut page = self.get(path, &page_query).await?;
            let more = page["has_more"].as_bool();
            match (more, page["data"].take()) {
                (Some(more), Value::Array(data)) => {
                    let is_end = !more || data.is_empty();
                    found.extend(data);
                    if is_end {
                        return Ok(Slice::Whole(found));
                    }
                }
                _ => {
                    let message = format!("{} answered {path} with no list", self.instance);
                    return Err(Fault::retry(Stage::Read, Code::Unavailable, message));
                }
            }
        }
        Ok(Slice::TooMany)
    }
}

/// A text that an object must have.
pub fn text<'v>(object: &'v Value, field: &str) -> Result<&'v str, Fault> {
    object[field].as_str().ok_or_else(|| missing(object, field))
}

/// A whole number that an object must have.
pub fn integer(object: &Value, field: &str) -> Result<i64, Fault> {
    object[field].as_i64().ok_or_else(|| missing(object, field))
}

fn missing(object: &Value, field: &str) -> Fault {
    let kind = object["object"].as_str().unwrap_or("object");
    let id = object["id"].as_str().unwrap_or("without id");
    Fault::reject(
        Stage::Read,
        Code::DataQuality,
        format!("{kind} {id} has no {field} of the kind that the API promises"),
    )
}
