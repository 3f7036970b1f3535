//! A client of any registry that speaks Confluent's REST API, over HTTP.
//!
//! Calls are schema_registry_converter's, and reqwest's own where that has none. They run on a
//! thread and runtime of the client's own, so a caller may block for an answer from any thread: on
//! one of an async runtime, too, nothing it waits for depends on that runtime.

mod settings;

pub use settings::{Authorisation, ClientSettings};

use super::normal;
use super::{Level, Registered, Registry, RegistryError, Version};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::Method;
use schema_registry_converter::async_impl::schema_registry::{self as converter, SrSettings};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, RawRegisteredSchema, SrCall};
use serde::Deserialize;
use serde_json::{Value, json};
use settings::{authorise, base_url, http_builder};
use std::error::Error;
use std::future::Future;
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What an answer may take beyond the time limit of its calls, before the client gives it up.
const ANSWER_GRACE: Duration = Duration::from_secs(1);
/// Versions that are compared when a registry does not find a schema's text.
const LAYOUTS_MAX: usize = 32;
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// What must not stand in a path segment as it is.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// A client. Share it by `Arc`; dropping it ends its thread.
pub struct RegistryClient {
    address: String,
    calls: SrSettings,
    http: reqwest::Client,
    urls: Vec<String>,
    authorisation: Authorisation,
    /// Bound of one call, all URLs together.
    answer_time_max: Duration,
    runtime: tokio::runtime::Handle,
    /// Dropped to end the thread.
    _stop: oneshot::Sender<()>,
}

impl RegistryClient {
    /// A client by these settings; connects at the first call.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] when the settings cannot work: a URL that is none, a certificate
    /// that cannot be read.
    pub fn new(settings: &ClientSettings) -> Result<Self, RegistryError> {
        let unusable = |message: String| RegistryError::Refused { code: 0, message };
        let urls = settings
            .urls
            .iter()
            .map(|url| base_url(url))
            .collect::<Result<Vec<_>, _>>()
            .map_err(unusable)?;
        let Some((first, others)) = urls.split_first() else {
            return Err(unusable("no URL of a schema registry is given".into()));
        };
        let mut builder = SrSettings::new_builder(first.clone());
        for url in others {
            builder.add_url(url.clone());
        }
        authorise(&mut builder, &settings.authorisation);
        builder.set_timeout(settings.timeout);
        let calls = builder
            .build_with(http_builder(settings).map_err(unusable)?)
            .map_err(|e| unusable(e.to_string()))?;
        let http = http_builder(settings)
            .and_then(|b| b.timeout(settings.timeout).build().map_err(|e| chain(&e)))
            .map_err(unusable)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| unusable(e.to_string()))?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("registry-client".into())
            .spawn(move || {
                // An error is the sender's end: the client was dropped.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_background();
            })
            .map_err(|e| unusable(e.to_string()))?;
        Ok(RegistryClient {
            address: urls.join(", "),
            calls,
            http,
            authorisation: settings.authorisation.clone(),
            answer_time_max: settings.timeout * urls.len() as u32 + ANSWER_GRACE,
            urls,
            runtime: handle,
            _stop: stop,
        })
    }

    /// Waits for `work`, which runs on the client's own thread.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
        subject: &str,
    ) -> Result<T, RegistryError> {
        let (tell, told) = mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            // Nobody listens any more when the answer comes after its time.
            let _ = tell.send(work.await);
        });
        match told.recv_timeout(self.answer_time_max) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(self.explain(failure, subject)),
            Err(_) => Err(RegistryError::Unavailable {
                address: self.address.clone(),
                cause: format!("no answer within {:?}", self.answer_time_max),
            }),
        }
    }

    fn explain(&self, failure: Failure, subject: &str) -> RegistryError {
        let address = self.address.clone();
        match failure {
            Failure::Connection(cause) => RegistryError::Unavailable { address, cause },
            Failure::Answer {
                status: 401 | 403,
                message,
                ..
            } => RegistryError::Unauthorised {
                address,
                cause: message,
            },
            Failure::Answer {
                status: status @ (408 | 429 | 500..=599),
                message,
                ..
            } => RegistryError::Unavailable {
                address,
                cause: format!("status {status}: {message}"),
            },
            Failure::Answer {
                status,
                code,
                message,
            } => {
                let code = if code == 0 { u32::from(status) } else { code };
                RegistryError::from_code(code, message, subject)
            }
        }
    }

    /// A call that schema_registry_converter makes.
    fn call(&self, call: Call, subject: &str) -> Result<RawRegisteredSchema, RegistryError> {
        let calls = self.calls.clone();
        let work = async move {
            let call = match &call {
                Call::Id(id) => SrCall::GetById(*id),
                Call::Latest(subject) => SrCall::GetLatest(subject),
                Call::Version(subject, version) => {
                    SrCall::GetBySubjectAndVersion(subject, *version)
                }
                Call::Lookup(subject, body) => SrCall::PostForVersion(subject, body),
                Call::Register(subject, body) => SrCall::PostNew(subject, body),
            };
            converter::perform_sr_call(&calls, call)
                .await
                .map_err(Failure::from)
        };
        self.wait(work, subject)
    }

    /// A call that schema_registry_converter lacks.
    fn request(
        &self,
        method: Method,
        path: String,
        body: Option<Value>,
        subject: &str,
    ) -> Result<Value, RegistryError> {
        let requests: Vec<_> = self
            .urls
            .iter()
            .map(|url| {
                let mut request = self.http.request(method.clone(), format!("{url}{path}"));
                request = match &self.authorisation {
                    Authorisation::None => request,
                    Authorisation::Basic { user, password } => {
                        request.basic_auth(user, Some(password.reveal()))
                    }
                    Authorisation::Bearer(token) => request.bearer_auth(token.reveal()),
                };
                request = request.header(reqwest::header::ACCEPT, CONTENT_TYPE);
                match &body {
                    None => request,
                    Some(body) => request
                        .header(reqwest::header::CONTENT_TYPE, CONTENT_TYPE)
                        .body(body.to_string()),
                }
            })
            .collect();
        let work = async move {
            let mut last = Failure::Connection("no URL".into());
            for request in requests {
                match send(request).await {
                    Ok(answer) => return Ok(answer),
                    // Another instance may be well.
                    Err(failure @ Failure::Connection(_)) => last = failure,
                    Err(failure) => return Err(failure),
                }
            }
            Err(last)
        };
        self.wait(work, subject)
    }

    /// The newest version of `subject` that is the same schema as `schema`.
    fn in_another_layout(
        &self,
        subject: &str,
        schema: &str,
    ) -> Result<Option<Registered>, RegistryError> {
        let wanted = normal::parse(schema)?.form;
        let versions = self.versions(subject)?;
        for number in versions.into_iter().rev().take(LAYOUTS_MAX) {
            let found = self.version(subject, Version::Number(number))?;
            if normal::parse(&found.schema).is_ok_and(|n| n.form == wanted) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn registered(
        &self,
        raw: RawRegisteredSchema,
        subject: &str,
    ) -> Result<Registered, RegistryError> {
        match (raw.id, raw.version, raw.schema) {
            (Some(id), Some(version), Some(schema)) => Ok(Registered {
                subject: subject.to_owned(),
                version,
                id,
                schema,
            }),
            _ => Err(self.odd("an answer without id, version or schema")),
        }
    }

    fn odd(&self, what: &str) -> RegistryError {
        RegistryError::Unavailable {
            address: self.address.clone(),
            cause: format!("{what}: is this the base URL of a schema registry?"),
        }
    }
}

impl Registry for RegistryClient {
    fn address(&self) -> &str {
        &self.address
    }
    fn options(&self) -> String {
        format!("--registry {}", self.urls[0])
    }
    fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        let calls = self.calls.clone();
        let work = async move {
            converter::get_all_subjects(&calls)
                .await
                .map_err(Failure::from)
        };
        let mut subjects = self.wait(work, "")?;
        subjects.sort_unstable();
        Ok(subjects)
    }
    fn versions(&self, subject: &str) -> Result<Vec<u32>, RegistryError> {
        let (calls, encoded) = (self.calls.clone(), segment(subject));
        let work = async move {
            converter::get_all_versions(&calls, encoded)
                .await
                .map_err(Failure::from)
        };
        let mut versions = self.wait(work, subject)?;
        versions.sort_unstable();
        Ok(versions)
    }
    fn version(&self, subject: &str, version: Version) -> Result<Registered, RegistryError> {
        let call = match version {
            Version::Latest => Call::Latest(segment(subject)),
            Version::Number(number) => Call::Version(segment(subject), number),
        };
        let raw = self.call(call, subject).map_err(|error| match error {
            RegistryError::NoSuchVersion { subject, .. } => RegistryError::NoSuchVersion {
                subject,
                version: version.to_string(),
            },
            error => error,
        })?;
        self.registered(raw, subject)
    }
    fn by_id(&self, id: u32) -> Result<String, RegistryError> {
        let raw = self.call(Call::Id(id), "").map_err(|error| match error {
            RegistryError::NoSuchSchema(_) => RegistryError::NoSuchSchema(format!(": id {id}")),
            error => error,
        })?;
        raw.schema
            .ok_or_else(|| self.odd("an answer without a schema"))
    }
    fn lookup(&self, subject: &str, schema: &str) -> Result<Registered, RegistryError> {
        let found = self.call(Call::Lookup(segment(subject), body(schema)), subject);
        let raw = match found {
            Ok(raw) => raw,
            // Some registries compare texts: the schema may stand there in another layout.
            Err(error @ RegistryError::NoSuchSchema(_)) => {
                let same = self.in_another_layout(subject, schema)?;
                return same.ok_or(error);
            }
            Err(error) => return Err(error),
        };
        match (raw.id, raw.version) {
            (Some(id), Some(version)) => Ok(Registered {
                subject: subject.to_owned(),
                version,
                id,
                schema: raw.schema.unwrap_or_else(|| schema.to_owned()),
            }),
            _ => Err(self.odd("an answer without id or version")),
        }
    }
    fn objections(&self, subject: &str, schema: &str) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct Verdict {
            is_compatible: bool,
            #[serde(default)]
            messages: Vec<String>,
            /// Apicurio's name for it.
            reason: Option<String>,
        }
        let path = format!(
            "/compatibility/subjects/{}/versions?verbose=true",
            segment(subject)
        );
        let body = Some(json!({"schema": schema, "schemaType": "AVRO"}));
        let answer = match self.request(Method::POST, path, body, subject) {
            Ok(answer) => answer,
            // Nothing stands against the first version of a subject.
            Err(RegistryError::NoSuchSubject(_) | RegistryError::NoSuchVersion { .. }) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let verdict: Verdict = serde_json::from_value(answer)
            .map_err(|_| self.odd("an answer that is no verdict on compatibility"))?;
        if verdict.is_compatible {
            return Ok(Vec::new());
        }
        let mut reasons = verdict.messages;
        reasons.extend(verdict.reason);
        if reasons.is_empty() {
            reasons.push("the registry calls it incompatible and gives no reason".into());
        }
        Ok(reasons)
    }
    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let raw = self.call(Call::Register(segment(subject), body(schema)), subject)?;
        raw.id.ok_or_else(|| self.odd("an answer without id"))
    }
    fn level(&self, subject: &str) -> Result<Level, RegistryError> {
        let get = |path: String| self.request(Method::GET, path, None, subject);
        let answer = match get(format!("/config/{}", segment(subject))) {
            // Some registries name the missing level by the plain status.
            Err(RegistryError::NoLevel(_) | RegistryError::NoSuchSubject(_))
            | Err(RegistryError::Refused { code: 404, .. }) => get("/config".into())?,
            answer => answer?,
        };
        answer["compatibilityLevel"]
            .as_str()
            .ok_or_else(|| self.odd("an answer without a compatibility level"))?
            .parse()
    }
    fn set_level(&self, subject: &str, level: Level) -> Result<(), RegistryError> {
        let path = format!("/config/{}", segment(subject));
        let body = Some(json!({"compatibility": level}));
        self.request(Method::PUT, path, body, subject).map(drop)
    }
}

/// Calls of schema_registry_converter, owned so that they can move to the client's thread.
enum Call {
    Id(u32),
    Latest(String),
    Version(String, u32),
    Lookup(String, String),
    Register(String, String),
}

/// Why a call brought no result.
enum Failure {
    Connection(String),
    Answer {
        status: u16,
        code: u32,
        message: String,
    },
}

impl From<SRCError> for Failure {
    fn from(error: SRCError) -> Self {
        // The status stands only in the text: "… failed with status 404 Not Found".
        let status = error
            .error
            .rsplit_once("status ")
            .and_then(|(_, rest)| rest.get(..3)?.parse().ok());
        let Some(status) = status else {
            let cause = error.source().map_or_else(|| error.error.clone(), chain);
            return Failure::Connection(cause);
        };
        let (code, message) = match error.source().and_then(|s| s.downcast_ref::<RawError>()) {
            Some(raw) => (raw.error_code, raw.message.clone()),
            None => (0, String::new()),
        };
        Failure::Answer {
            status,
            code,
            message,
        }
    }
}

async fn send(request: reqwest::RequestBuilder) -> Result<Value, Failure> {
    let answer = request
        .send()
        .await
        .map_err(|e| Failure::Connection(chain(&e)))?;
    let status = answer.status();
    let text = answer
        .text()
        .await
        .map_err(|e| Failure::Connection(chain(&e)))?;
    let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    if status.is_success() {
        return Ok(value);
    }
    Err(Failure::Answer {
        status: status.as_u16(),
        code: value["error_code"]
            .as_u64()
            .and_then(|c| c.try_into().ok())
            .unwrap_or(0),
        message: value["message"]
            .as_str()
            .unwrap_or("the answer has no message")
            .to_owned(),
    })
}

fn body(schema: &str) -> String {
    json!({"schema": schema, "schemaType": "AVRO"}).to_string()
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// An error with what is beneath it: reqwest tells the cause of a failed connection only there.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut beneath = error.source();
    while let Some(error) = beneath {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        beneath = error.source();
    }
    text
}
