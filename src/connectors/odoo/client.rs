//! Odoo's JSON-2: `POST /json/2/<model>/<method>` with an API key and named arguments. One call is one
//! transaction.
//!
//! Reads can be made again whatever came of them. A change that was not answered may have had its
//! effect; what the server says to one is told apart, for a refusal is about this record.

use super::rows;
use super::settings::Settings;
use crate::connectors::erp::{Row, Tally};
use crate::connectors::http;
use crate::pipeline::{Code, Fault, Stage, Verdict, rehearsal};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Mutex;

/// Values of a row by the names of its fields.
pub(super) type Fields = Vec<(&'static str, Value)>;

/// Talks to one database.
pub(super) struct Client {
    pub settings: Settings,
    name: String,
    http: reqwest::Client,
    /// Who we are, once it was asked for.
    user: Mutex<Option<User>>,
    /// Fields of models, and whether there are such.
    fields: Mutex<BTreeMap<String, bool>>,
}

/// The user that works here.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub company: i64,
    pub company_name: String,
    pub currency: String,
    pub language: String,
}

/// What the server made of a call.
#[derive(Debug)]
pub(super) enum Change {
    /// It was made, with this answer.
    Done(Value),
    /// It is not allowed, for this reason; it changed nothing.
    Refused(String),
}

/// What a search asks for.
#[derive(Clone)]
pub(super) struct Search<'a> {
    pub model: &'a str,
    pub domain: Value,
    pub order: &'a str,
    pub limit: usize,
    pub fields: &'a [&'a str],
}

impl Client {
    pub fn new(instance: &str, settings: Settings) -> Result<Self, Fault> {
        let http = http::client(Duration::from_millis(settings.timeout_ms))?;
        Ok(Client {
            settings,
            name: instance.to_owned(),
            http,
            user: Mutex::default(),
            fields: Mutex::default(),
        })
    }

    /// Rows that match, archived ones included.
    pub async fn search(&self, search: Search<'_>) -> Result<Vec<Row>, Fault> {
        let arguments = json!({
            "domain": search.domain, "fields": search.fields, "order": search.order,
            "limit": search.limit, "context": {"active_test": false},
        });
        let answer = self.ask(search.model, "search_read", arguments).await?;
        self.rows(search.model, answer)
    }

    /// All rows whose `field` is among `values`, by id.
    pub async fn all(
        &self,
        model: &str,
        field: &str,
        values: Value,
        fields: &[&str],
    ) -> Result<Vec<Row>, Fault> {
        let mut found: Vec<Row> = Vec::new();
        if values.as_array().is_none_or(Vec::is_empty) {
            return Ok(found);
        }
        let limit = crate::connectors::erp::LISTED_ROWS;
        loop {
            let after = found.last().map(rows::id).unwrap_or_default();
            let page = self.search(Search {
                model,
                domain: json!([[field, "in", values], ["id", ">", after]]),
                order: "id",
                limit,
                fields,
            });
            let page = page.await?;
            let full = page.len() >= limit;
            found.extend(page);
            if !full {
                return Ok(found);
            }
        }
    }

    /// How many rows match, archived ones included.
    pub async fn count(&self, model: &str, domain: Value) -> Result<i64, Fault> {
        let arguments = json!({"domain": domain, "context": {"active_test": false}});
        let answer = self.ask(model, "search_count", arguments).await?;
        let count = answer.as_i64();
        count.ok_or_else(|| self.unexpected(model, &answer))
    }

    /// Which rows match, in short, archived ones included.
    pub async fn tally(&self, model: &str, domain: Value) -> Result<Tally, Fault> {
        let arguments = json!({
            "domain": domain, "groupby": [], "aggregates": ["__count", "id:sum"],
            "context": {"active_test": false},
        });
        let answer = self.ask(model, "formatted_read_group", arguments).await?;
        let rows = answer[0]["__count"].as_i64();
        Ok(Tally {
            rows: rows.ok_or_else(|| self.unexpected(model, &answer))?,
            // The sum of nothing is `false`.
            ids: Some(answer[0]["id:sum"].as_i64().unwrap_or_default()),
        })
    }

    /// Whether a model has a field, which depends on what applications are installed.
    pub async fn has_field(&self, model: &str, field: &str) -> Result<bool, Fault> {
        let key = format!("{model}.{field}");
        let mut known = self.fields.lock().await;
        if let Some(has) = known.get(&key) {
            return Ok(*has);
        }
        let arguments = json!({"allfields": [field], "attributes": ["type"]});
        let has = match self.call(model, "fields_get", arguments, false).await? {
            Change::Done(answer) => answer.get(field).is_some(),
            Change::Refused(why) => return Err(self.no_right(model, "fields_get", &why)),
        };
        known.insert(key, has);
        Ok(has)
    }

    /// Calls a method that changes something.
    ///
    /// # Errors
    /// `OUTCOME_UNKNOWN` when it may have had its effect: look before it is called again.
    pub async fn change(
        &self,
        model: &str,
        method: &str,
        arguments: Value,
    ) -> Result<Change, Fault> {
        rehearsal::hold(|| format!("{method} {model}"))?;
        self.call(model, method, arguments, true).await
    }

    /// Makes one row, with others that are its lines, under an external id: where that is taken, nothing
    /// is made or changed. Related rows are given by their ids, as a list where there can be several.
    ///
    /// # Errors
    /// As [`Client::change`]; a retry when another call made it at the same time.
    pub async fn make(
        &self,
        model: &str,
        key: &str,
        values: &[(&str, Value)],
        lines: Option<(&str, &[Fields])>,
    ) -> Result<Change, Fault> {
        let (mut names, mut first) = (vec!["id".to_owned()], vec![json!(key)]);
        for (name, value) in values {
            names.push(import_name(name));
            first.push(import_value(value));
        }
        let mut rows = vec![first];
        if let Some((field, lines)) = lines {
            for (name, _) in lines.first().into_iter().flatten() {
                names.push(format!("{field}/{}", import_name(name)));
            }
            for (at, line) in lines.iter().enumerate() {
                if at > 0 {
                    rows.push(vec![json!(""); values.len() + 1]);
                }
                if let Some(row) = rows.last_mut() {
                    row.extend(line.iter().map(|(_, value)| import_value(value)));
                }
            }
        }
        // What has the mark is not written again by what is imported in this mode.
        let mut context = json!({"mode": "update", "noupdate": true, "module": "__crossdock__"});
        if model == super::stock::QUANT {
            // A count of a place; without it, a second row beside the one that is there.
            context["inventory_mode"] = json!(true);
        }
        let arguments = json!({"fields": names, "data": rows, "context": context});
        let answer = match self.change(model, "load", arguments).await? {
            Change::Done(answer) => answer,
            refused => return Ok(refused),
        };
        if answer["ids"].is_array() {
            return Ok(Change::Done(answer["ids"].clone()));
        }
        let said = answer["messages"].as_array().into_iter().flatten();
        let said = said.filter_map(|m| m["message"].as_str());
        let said = said.collect::<Vec<_>>().join("; ");
        let said = http::quote(said.as_bytes());
        // The database let another transaction go first.
        if said.contains("could not serialize") || said.contains("deadlock") {
            let message = format!("{}: others were writing the same rows: {said}", self.name);
            return Err(Fault::retry(Stage::Write, Code::Unavailable, message));
        }
        Ok(Change::Refused(said))
    }

    /// The user that the key belongs to, its company and currency.
    ///
    /// # Errors
    /// A halt when the key is no one's.
    pub async fn user(&self) -> Result<User, Fault> {
        let mut kept = self.user.lock().await;
        if let Some(user) = kept.as_ref() {
            return Ok(user.clone());
        }
        let context = self.ask("res.users", "context_get", json!({})).await?;
        let missing = || self.unexpected("res.users", &context);
        let id = context["uid"].as_i64().ok_or_else(missing)?;
        let read = |model: &'static str, id: i64, fields: &'static [&'static str]| {
            self.search(Search {
                model,
                domain: json!([["id", "=", id]]),
                order: "id",
                limit: 1,
                fields,
            })
        };
        let user = read("res.users", id, &["company_id"]).await?;
        let company = user.first().and_then(|row| rows::link(row, "company_id"));
        let company = company.ok_or_else(missing)?;
        let found = read("res.company", company, &["name", "currency_id"]).await?;
        let row = found.first().ok_or_else(missing)?;
        let user = User {
            company,
            company_name: rows::text(row, "name").unwrap_or_default().to_owned(),
            currency: rows::link_name(row, "currency_id")
                .unwrap_or_default()
                .to_owned(),
            language: context["lang"].as_str().unwrap_or("en_US").to_owned(),
        };
        Ok(kept.insert(user).clone())
    }

    fn rows(&self, model: &str, answer: Value) -> Result<Vec<Row>, Fault> {
        let Value::Array(rows) = answer else {
            return Err(self.unexpected(model, &answer));
        };
        rows.into_iter()
            .map(|row| match row {
                Value::Object(row) => Ok(row),
                other => Err(self.unexpected(model, &other)),
            })
            .collect()
    }

    fn unexpected(&self, model: &str, answer: &Value) -> Fault {
        let message = format!(
            "{} answered for {model}: {}",
            self.name,
            http::quote(answer.to_string().as_bytes())
        );
        Fault::retry(Stage::Read, Code::Unavailable, message)
    }

    fn no_right(&self, model: &str, method: &str, why: &str) -> Fault {
        let message = format!(
            "{} refused {model}/{method}: {why}; give the user of `api_key` the right",
            self.name
        );
        Fault::halt(Stage::Read, Code::Unauthorised, message)
    }

    /// Calls a method that changes nothing.
    async fn ask(&self, model: &str, method: &str, arguments: Value) -> Result<Value, Fault> {
        match self.call(model, method, arguments, false).await? {
            Change::Done(answer) => Ok(answer),
            // What is not allowed to a reader is a matter of its rights.
            Change::Refused(why) => Err(self.no_right(model, method, &why)),
        }
    }

    async fn call(
        &self,
        model: &str,
        method: &str,
        arguments: Value,
        changes: bool,
    ) -> Result<Change, Fault> {
        let url = format!(
            "{}/json/2/{model}/{method}",
            self.settings.url.trim_end_matches('/')
        );
        let mut body = match arguments {
            Value::Object(body) => body,
            _ => Map::new(),
        };
        let mut context = json!({"lang": "en_US", "tz": "UTC"});
        if let (Some(all), Some(Value::Object(more))) =
            (context.as_object_mut(), body.remove("context"))
        {
            all.extend(more);
        }
        body.insert("context".into(), context);
        let key = self.settings.api_key.reveal();
        let mut request = self.http.post(url).bearer_auth(key).json(&body);
        if let Some(database) = &self.settings.database {
            request = request.header("x-odoo-database", database);
        }
        let answer = match changes {
            true => http::raw(&self.name, request).await?,
            // Whatever kept it from an answer, it can be made again.
            false => http::raw(&self.name, request)
                .await
                .map_err(http::as_read)?,
        };
        if let Some(judged) = self.judge(model, method, &answer, changes) {
            return judged;
        }
        let judged = answer.judge(&self.name);
        let judged = match changes {
            true => judged,
            false => judged.map_err(http::as_read),
        };
        Ok(Change::Done(
            judged.map_err(|fault| self.named(fault))?.body,
        ))
    }

    /// What Odoo itself says is wrong (`odoo/http.py`, `serialize_exception`): the exception's name and
    /// message. The body's traceback may hold anything and is not repeated.
    fn judge(
        &self,
        model: &str,
        method: &str,
        answer: &http::RawAnswer,
        changes: bool,
    ) -> Option<Result<Change, Fault>> {
        if answer.status.is_success() {
            return None;
        }
        let body: Value = serde_json::from_slice(&answer.bytes).ok()?;
        let name = body["name"].as_str()?;
        let said = http::quote(body["message"].as_str().unwrap_or_default().as_bytes());
        let kind = name.rsplit('.').next().unwrap_or_default();
        let halt = |code, message| Some(Err(Fault::halt(Stage::Read, code, message)));
        match (answer.status.as_u16(), kind) {
            (401, _) => halt(
                Code::Unauthorised,
                format!(
                    "{} refused the key: {said}; mend what `api_key` refers to",
                    self.name
                ),
            ),
            // The record may be missing, or hidden by a rule.
            (
                _,
                "UserError" | "ValidationError" | "MissingError" | "RedirectWarning"
                | "AccessError",
            ) => Some(Ok(Change::Refused(said))),
            (404, _) => halt(
                Code::Configuration,
                format!(
                    "{} knows no {model}/{method}: {said}; it is of another version, or an application is not installed",
                    self.name
                ),
            ),
            // A name or value that does not exist stays so, although it is answered as a failure of the
            // server.
            (500, "ValueError" | "KeyError" | "AttributeError") if changes => {
                Some(Ok(Change::Refused(said)))
            }
            (500, "ValueError" | "KeyError" | "AttributeError") => halt(
                Code::Configuration,
                format!(
                    "{} failed in {model}/{method}: {said}; it is of another version, or an application is not installed",
                    self.name
                ),
            ),
            (500, _) => {
                let message = format!("{} failed in {model}/{method}: {name}", self.name);
                Some(Err(Fault::retry(Stage::Read, Code::Unavailable, message)))
            }
            _ => None,
        }
    }

    /// A status that says no to the call itself holds for every call like it.
    fn named(&self, fault: Fault) -> Fault {
        let remedy = match fault.code {
            Code::Refused => "mend `url` and `database`",
            Code::Unauthorised => "mend what `api_key` refers to",
            _ => return fault,
        };
        Fault {
            verdict: Verdict::Halt,
            message: format!("{}; {remedy}", fault.message),
            ..fault
        }
    }
}

/// A field of related rows as an import names it, by the ids of the rows.
fn import_name(field: &str) -> String {
    match field.ends_with("_id") || field.ends_with("_ids") {
        true => format!("{field}/.id"),
        false => field.to_owned(),
    }
}

/// A value as an import has it: text.
fn import_value(value: &Value) -> Value {
    match value {
        Value::String(text) => json!(text),
        Value::Null => json!(""),
        Value::Array(ids) => {
            let ids: Vec<String> = ids.iter().map(Value::to_string).collect();
            json!(ids.join(","))
        }
        other => json!(other.to_string()),
    }
}
