//! Tryton's JSON-RPC: one endpoint, a session token from a login. Only methods that change nothing
//! are called.

use super::{Settings, configuration};
use crate::connectors::http;
use crate::pipeline::{Code, Fault, Stage, Verdict};
use base64::Engine as _;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::sync::Mutex;

/// A row as Tryton answers it, by field. A field of a related row, `product.code`, stands in an
/// object under `product.`.
pub(super) type Row = Map<String, Value>;

/// Talks to one database.
pub(super) struct Client {
    pub settings: Settings,
    name: String,
    http: reqwest::Client,
    session: Mutex<Option<Session>>,
}

#[derive(Clone)]
struct Session {
    authorization: String,
    /// The user's preferences, which Tryton expects with every call.
    context: Map<String, Value>,
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

    async fn call(
        &self,
        model: &str,
        method: &str,
        params: Vec<Value>,
        context: Value,
    ) -> Result<Value, Fault> {
        let mut stale = None;
        loop {
            let session = self.session(stale.as_deref()).await?;
            let mut all = session.context.clone();
            all.extend(context.as_object().cloned().unwrap_or_default());
            let mut params = params.clone();
            params.push(Value::Object(all));
            let method = format!("model.{model}.{method}");
            let answer = self
                .rpc(&method, Value::Array(params), Some(&session.authorization))
                .await;
            match answer {
                Err(fault) if fault.code == Code::Unauthorised && stale.is_none() => {
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
        let answer = self.rpc("common.db.login", login, None).await;
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
        let preferences = self
            .rpc(
                "model.res.user.get_preferences",
                json!([true, {}]),
                Some(&authorization),
            )
            .await?;
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
    ) -> Result<Value, Fault> {
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
        let answer = http::read(&self.name, request).await;
        let mut body = answer.map_err(|fault| self.refused(method, fault))?.body;
        if let Some(error) = body.get("error").filter(|e| !e.is_null()) {
            return Err(self.error(method, error));
        }
        match body.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(self.unexpected(method, &body)),
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
    /// not exist, `UserError` with its message for what is not allowed, other exceptions for what
    /// went wrong in the server.
    fn error(&self, method: &str, error: &Value) -> Fault {
        let kind = error[0].as_str().unwrap_or_default();
        if kind.starts_with('\'') {
            return configuration(format!(
                "{} knows no {kind} ({method}): it is of another version, or a module is not activated",
                self.name
            ));
        }
        if kind == "UserError" {
            let why = http::quote(error[1][0].as_str().unwrap_or_default().as_bytes());
            let message = format!(
                "{} refused {method}: {why}; give the user the right",
                self.name
            );
            return Fault::halt(Stage::Read, Code::Unauthorised, message);
        }
        // What follows the name is a traceback, which may hold anything.
        let message = format!(
            "{} failed in {method}: {}",
            self.name,
            http::quote(kind.as_bytes())
        );
        Fault::retry(Stage::Read, Code::Unavailable, message)
    }
}
