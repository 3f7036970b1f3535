//! Tryton's JSON-RPC: one endpoint, a session token from a login.
//!
//! Reads can be made again whatever came of them. A change that was not answered may have had its
//! effect; what the server says to one is told apart, for a refusal is about this record, and a
//! conflict about the moment.

use super::settings::Settings;
pub(super) use crate::connectors::erp::Row;
use crate::connectors::erp::configuration;
use crate::connectors::http;
use crate::pipeline::{Code, Fault, Stage, Verdict, rehearsal};
use base64::Engine as _;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Mutex;

/// Talks to one database.
pub(super) struct Client {
    pub settings: Settings,
    name: String,
    http: reqwest::Client,
    session: Mutex<Option<Session>>,
    /// Fields of models, and whether there are such.
    fields: Mutex<BTreeMap<String, bool>>,
}

#[derive(Clone)]
struct Session {
    authorization: String,
    /// The user's preferences, which Tryton expects with every call.
    context: Map<String, Value>,
}

/// What the server made of a change.
#[derive(Debug)]
pub(super) enum Change {
    /// It was made, with this answer.
    Done(Value),
    /// It is not allowed, for this reason; it changed nothing.
    Refused(String),
    /// Somebody else has written the row since it was read; it changed nothing.
    Conflict,
}

/// An error of the application.
enum Trouble {
    Fault(Fault),
    Refused(String),
    Conflict,
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Trouble::Fault(fault)
    }
}

/// What a search asks for.
pub(super) struct Search<'a> {
    pub model: &'a str,
    pub domain: Value,
    pub order: Value,
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
            session: Mutex::default(),
            fields: Mutex::default(),
        })
    }

    /// Rows that match, archived ones included.
    pub async fn search(&self, search: Search<'_>) -> Result<Vec<Row>, Fault> {
        let params = vec![
            search.domain,
            json!(0),
            json!(search.limit),
            search.order,
            json!(search.fields),
        ];
        let archived = json!({"active_test": false});
        let answer = self
            .call(search.model, "search_read", params, archived)
            .await?;
        self.rows(search.model, answer)
    }

    /// How many rows match, archived ones included.
    pub async fn count(&self, model: &str, domain: Value) -> Result<i64, Fault> {
        let archived = json!({"active_test": false});
        let answer = self
            .call(model, "search_count", vec![domain], archived)
            .await?;
        answer
            .as_i64()
            .ok_or_else(|| self.unexpected(model, &answer))
    }

    /// Fields of rows, in a context of their own.
    pub async fn read(
        &self,
        model: &str,
        ids: &[i64],
        fields: &[&str],
        context: Value,
    ) -> Result<Vec<Row>, Fault> {
        let params = vec![json!(ids), json!(fields)];
        let answer = self.call(model, "read", params, context).await?;
        self.rows(model, answer)
    }

    /// Calls a method that changes something.
    ///
    /// # Errors
    /// `OUTCOME_UNKNOWN` when it may have had its effect: look before it is called again.
    pub async fn change(
        &self,
        model: &str,
        method: &str,
        params: Vec<Value>,
        context: Value,
    ) -> Result<Change, Fault> {
        rehearsal::hold(|| format!("{method} {model}"))?;
        match self.send(model, method, params, context, true).await {
            Ok(answer) => Ok(Change::Done(answer)),
            Err(Trouble::Refused(why)) => Ok(Change::Refused(why)),
            Err(Trouble::Conflict) => Ok(Change::Conflict),
            Err(Trouble::Fault(fault)) => Err(fault),
        }
    }

    /// Whether a model has a field, which depends on what modules are activated.
    pub async fn has_field(&self, model: &str, field: &str) -> Result<bool, Fault> {
        let key = format!("{model}.{field}");
        let mut known = self.fields.lock().await;
        if let Some(has) = known.get(&key) {
            return Ok(*has);
        }
        let params = vec![json!([field])];
        let answer = self.call(model, "fields_get", params, json!({})).await?;
        let has = answer.get(field).is_some();
        known.insert(key, has);
        Ok(has)
    }

    /// The user's company and language.
    ///
    /// # Errors
    /// A halt when the user has no company: nothing would be read.
    pub async fn company(&self) -> Result<(i64, String), Fault> {
        let session = self.session(None).await?;
        let company = session.context.get("company").and_then(Value::as_i64);
        let company = company.ok_or_else(|| {
            configuration(format!(
                "user {} of {} has no company; set one in its preferences",
                self.settings.username, self.name
            ))
        })?;
        let language = session.context.get("language").and_then(Value::as_str);
        Ok((company, language.unwrap_or("en").to_owned()))
    }

    /// The company's currency.
    pub async fn currency(&self) -> Result<String, Fault> {
        let (company, _) = self.company().await?;
        let fields = ["currency.code"];
        let found = self
            .read("company.company", &[company], &fields, json!({}))
            .await?;
        let currency = found
            .first()
            .and_then(|row| row.get("currency.")?.get("code"));
        let currency = currency.and_then(Value::as_str).map(str::to_owned);
        currency.ok_or_else(|| self.unexpected("company.company", &Value::Null))
    }

    /// Who we are, for people.
    pub async fn describe_login(&self) -> Result<String, Fault> {
        let (company, _) = self.company().await?;
        let session = self.session(None).await?;
        let name = session.context.get("company.rec_name");
        let name = name.and_then(Value::as_str).map(str::to_owned);
        Ok(format!(
            "company {}",
            name.unwrap_or_else(|| company.to_string())
        ))
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

    /// Calls a method that changes nothing.
    async fn call(
        &self,
        model: &str,
        method: &str,
        params: Vec<Value>,
        context: Value,
    ) -> Result<Value, Fault> {
        let answer = self.send(model, method, params, context, false).await;
        answer.map_err(|trouble| self.halted(&format!("model.{model}.{method}"), trouble))
    }

    /// What is not allowed to a reader is a matter of its rights.
    fn halted(&self, method: &str, trouble: Trouble) -> Fault {
        match trouble {
            Trouble::Fault(fault) => fault,
            Trouble::Refused(why) => {
                let message = format!(
                    "{} refused {method}: {why}; give the user the right",
                    self.name
                );
                Fault::halt(Stage::Read, Code::Unauthorised, message)
            }
            Trouble::Conflict => {
                let message = format!("{} was written to during {method}", self.name);
                Fault::retry(Stage::Read, Code::Unavailable, message)
            }
        }
    }

    async fn send(
        &self,
        model: &str,
        method: &str,
        params: Vec<Value>,
        context: Value,
        changes: bool,
    ) -> Result<Value, Trouble> {
        let mut stale = None;
        loop {
            let session = self.session(stale.as_deref()).await?;
            let mut all = session.context.clone();
            all.extend(context.as_object().cloned().unwrap_or_default());
            let mut params = params.clone();
            params.push(Value::Object(all));
            let method = format!("model.{model}.{method}");
            let answer = self
                .rpc(
                    &method,
                    Value::Array(params),
                    Some(&session.authorization),
                    changes,
                )
                .await;
            match answer {
                Err(Trouble::Fault(fault))
                    if fault.code == Code::Unauthorised && stale.is_none() =>
                {
                    // The session may have ended; a new login tells whether that was all.
                    stale = Some(session.authorization);
                }
                other => return other,
            }
        }
    }

    /// The session; a new one when there is none or it is `stale`.
    async fn session(&self, stale: Option<&str>) -> Result<Session, Fault> {
        let mut kept = self.session.lock().await;
        if let Some(session) = kept.as_ref()
            && stale != Some(&*session.authorization)
        {
            return Ok(session.clone());
        }
        *kept = None;
        let username = &self.settings.username;
        let login = json!([username, {"password": self.settings.password.reveal()}, "en"]);
        let method = "common.db.login";
        let answer = self.rpc(method, login, None, false).await;
        let answer = answer.map_err(|trouble| self.halted(method, trouble));
        let answer = answer.map_err(|fault| match fault.code {
            Code::Unauthorised => Fault {
                message: format!(
                    "{} refused the login of {username}; mend `username` or what `password` refers to",
                    self.name
                ),
                ..fault
            },
            _ => fault,
        })?;
        let (Some(user), Some(token)) = (answer[0].as_i64(), answer[1].as_str()) else {
            return Err(self.unexpected("a login", &Value::Null));
        };
        let credentials = format!("{username}:{user}:{token}");
        let credentials = base64::engine::general_purpose::STANDARD.encode(credentials);
        let authorization = format!("Session {credentials}");
        let method = "model.res.user.get_preferences";
        let preferences = self
            .rpc(method, json!([true, {}]), Some(&authorization), false)
            .await
            .map_err(|trouble| self.halted(method, trouble))?;
        let Value::Object(context) = preferences else {
            return Err(self.unexpected("preferences", &preferences));
        };
        let session = Session {
            authorization,
            context,
        };
        *kept = Some(session.clone());
        Ok(session)
    }

    async fn rpc(
        &self,
        method: &str,
        params: Value,
        authorization: Option<&str>,
        changes: bool,
    ) -> Result<Value, Trouble> {
        let url = format!(
            "{}/{}/rpc/",
            self.settings.url.trim_end_matches('/'),
            self.settings.database
        );
        let mut request = self
            .http
            .post(url)
            .json(&json!({"id": 1, "method": method, "params": params}));
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let answer = match changes {
            true => http::send(&self.name, request).await,
            false => http::read(&self.name, request).await,
        };
        let mut body = answer.map_err(|fault| self.refused(method, fault))?.body;
        if let Some(error) = body.get("error").filter(|e| !e.is_null()) {
            return Err(self.error(method, error));
        }
        match body.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(self.unexpected(method, &body).into()),
        }
    }

    /// A status that says no to the call itself holds for every call like it.
    fn refused(&self, method: &str, fault: Fault) -> Fault {
        let remedy = match fault.code {
            Code::Refused => "mend `url` and `database`",
            Code::Unauthorised => "the user may lack the right to call it",
            _ => return fault,
        };
        Fault {
            verdict: Verdict::Halt,
            message: format!("{method}: {}; {remedy}", fault.message),
            ..fault
        }
    }

    /// Errors of the application (trytond `protocols/jsonrpc.py`): a `KeyError` for a name that does
    /// not exist, `UserError` and `UserWarning` with their message for what is not allowed,
    /// `ConcurrencyException` for a row that was written in between, other exceptions for what went
    /// wrong in the server.
    fn error(&self, method: &str, error: &Value) -> Trouble {
        let kind = error[0].as_str().unwrap_or_default();
        if kind.starts_with('\'') {
            return Trouble::Fault(configuration(format!(
                "{} knows no {kind} ({method}): it is of another version, or a module is not activated",
                self.name
            )));
        }
        let said = |at: usize| {
            let text = error[1][at].as_str().unwrap_or_default();
            http::quote(text.as_bytes())
        };
        match kind {
            "UserError" => Trouble::Refused(said(0)),
            // Its first part is a key of the warning.
            "UserWarning" => Trouble::Refused(said(1)),
            "ConcurrencyException" => Trouble::Conflict,
            // What follows the name is a traceback, which may hold anything.
            _ => {
                let message = format!(
                    "{} failed in {method}: {}",
                    self.name,
                    http::quote(kind.as_bytes())
                );
                Trouble::Fault(Fault::retry(Stage::Read, Code::Unavailable, message))
            }
        }
    }
}
