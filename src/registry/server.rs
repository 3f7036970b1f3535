//! The embedded registry over HTTP: Confluent's REST API, as far as producers, consumers and
//! `crossdock schemas register` use it.
//!
//! What it deliberately lacks: deleting (a schema that records were written with stays readable),
//! modes, contexts, schema references, and types other than Avro. Each answers with Confluent's
//! error body and says so.

use super::{EmbeddedRegistry, Level, Registered, Registry, RegistryError, Version};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The longest request body.
pub const BODY_BYTES_MAX: usize = 1 << 20;

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

type Shared = State<Arc<EmbeddedRegistry>>;
type Parameters = Query<HashMap<String, String>>;
type Parts<T> = Result<Path<T>, PathRejection>;
type Body = Result<Bytes, BytesRejection>;

/// The routes of the API.
pub fn router(registry: Arc<EmbeddedRegistry>) -> Router {
    Router::new()
        .route("/", get(|| async { answer(&json!({})) }))
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(lookup).delete(refuse_delete))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route(
            "/subjects/{subject}/versions/{version}",
            get(version).delete(refuse_delete),
        )
        .route(
            "/subjects/{subject}/versions/{version}/schema",
            get(version_schema),
        )
        .route("/schemas/types", get(|| async { answer(&json!(["AVRO"])) }))
        .route("/schemas/ids/{id}", get(by_id))
        .route("/schemas/ids/{id}/schema", get(by_id_schema))
        .route("/schemas/ids/{id}/subjects", get(id_subjects))
        .route("/schemas/ids/{id}/versions", get(id_versions))
        .route(
            "/compatibility/subjects/{subject}/versions",
            post(compatibility_with_all),
        )
        .route(
            "/compatibility/subjects/{subject}/versions/{version}",
            post(compatibility),
        )
        .route("/config", get(global_level).put(set_global_level))
        .route(
            "/config/{subject}",
            get(level).put(set_level).delete(refuse_delete),
        )
        .route(
            "/mode",
            get(|| async { answer(&json!({"mode": "READWRITE"})) }),
        )
        .fallback(|| async { refusal(404, "there is no such resource".into()) })
        .method_not_allowed_fallback(|| async {
            refusal(405, "the resource does not take this method".into())
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(registry)
}

/// Serves the API until `until` ends, then finishes the requests under way.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    listener: tokio::net::TcpListener,
    registry: Arc<EmbeddedRegistry>,
    until: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(registry))
        .with_graceful_shutdown(until)
        .await
}

/// A registry served on a thread of its own, until it is dropped.
pub struct ServedRegistry {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl ServedRegistry {
    /// Serves `registry` on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn start(registry: Arc<EmbeddedRegistry>, address: SocketAddr) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("registry-server".into())
            .spawn(move || {
                let served = runtime.block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    let until = async {
                        // An error means that the sender is gone, which ends serving as well.
                        let _ = stopped.await;
                    };
                    // Kept-alive connections must not hold up the end.
                    tokio::select! {
                        served = axum::serve(listener, router(registry)).into_future() => served,
                        () = until => Ok(()),
                    }
                });
                if let Err(error) = served {
                    tracing::error!(%error, "the schema registry stopped serving");
                }
                runtime.shutdown_background();
            })?;
        Ok(ServedRegistry {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Base URL for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for ServedRegistry {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The receiver is gone when serving has ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // Its panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// Body of requests that carry a schema.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaBody {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Value>,
}

#[derive(Deserialize)]
struct LevelBody {
    compatibility: String,
}

async fn subjects(State(registry): Shared, Query(parameters): Parameters) -> Response {
    run(registry, move |r| {
        let mut subjects = r.subjects()?;
        if let Some(prefix) = parameters.get("subjectPrefix") {
            subjects.retain(|s| s.starts_with(prefix.as_str()));
        }
        Ok(json!(subjects))
    })
    .await
}

async fn versions(State(registry): Shared, subject: Parts<String>) -> Response {
    run(registry, move |r| Ok(json!(r.versions(&part(subject)?)?))).await
}

async fn version(State(registry): Shared, parts: Parts<(String, String)>) -> Response {
    run(registry, move |r| Ok(whole(&at(r, parts)?))).await
}

async fn version_schema(State(registry): Shared, parts: Parts<(String, String)>) -> Response {
    run_text(registry, move |r| Ok(at(r, parts)?.schema)).await
}

fn at(
    registry: &EmbeddedRegistry,
    parts: Parts<(String, String)>,
) -> Result<Registered, RegistryError> {
    let (subject, version) = part(parts)?;
    registry.version(&subject, Version::parse(&version)?)
}

async fn lookup(State(registry): Shared, subject: Parts<String>, body: Body) -> Response {
    run(registry, move |r| {
        let schema = schema_of(body)?;
        Ok(whole(&r.lookup(&part(subject)?, &schema)?))
    })
    .await
}

async fn register(State(registry): Shared, subject: Parts<String>, body: Body) -> Response {
    run(registry, move |r| {
        let schema = schema_of(body)?;
        Ok(json!({"id": r.register(&part(subject)?, &schema)?}))
    })
    .await
}

async fn by_id(State(registry): Shared, id: Parts<String>) -> Response {
    run(registry, move |r| {
        Ok(json!({"schema": r.by_id(schema_id(id)?)?}))
    })
    .await
}

async fn by_id_schema(State(registry): Shared, id: Parts<String>) -> Response {
    run_text(registry, move |r| r.by_id(schema_id(id)?)).await
}

async fn id_subjects(State(registry): Shared, id: Parts<String>) -> Response {
    run(registry, move |r| {
        let mut subjects: Vec<String> = r
            .places(schema_id(id)?)?
            .into_iter()
            .map(|(subject, _)| subject)
            .collect();
        subjects.dedup();
        Ok(json!(subjects))
    })
    .await
}

async fn id_versions(State(registry): Shared, id: Parts<String>) -> Response {
    run(registry, move |r| {
        let places = r.places(schema_id(id)?)?;
        Ok(places
            .into_iter()
            .map(|(subject, version)| json!({"subject": subject, "version": version}))
            .collect())
    })
    .await
}

async fn compatibility_with_all(
    State(registry): Shared,
    subject: Parts<String>,
    Query(parameters): Parameters,
    body: Body,
) -> Response {
    run(registry, move |r| {
        let schema = schema_of(body)?;
        let objections = r.objections(&part(subject)?, &schema)?;
        Ok(verdict(&objections, &parameters))
    })
    .await
}

async fn compatibility(
    State(registry): Shared,
    parts: Parts<(String, String)>,
    Query(parameters): Parameters,
    body: Body,
) -> Response {
    run(registry, move |r| {
        let (subject, version) = part(parts)?;
        let version = Version::parse(&version)?;
        let objections = r.objections_to(&subject, version, &schema_of(body)?)?;
        Ok(verdict(&objections, &parameters))
    })
    .await
}

async fn global_level(State(registry): Shared) -> Response {
    run(registry, |r| {
        Ok(json!({"compatibilityLevel": r.global_level()?}))
    })
    .await
}

async fn set_global_level(State(registry): Shared, body: Body) -> Response {
    run(registry, move |r| {
        let level = level_of(body)?;
        r.set_global_level(level)?;
        Ok(json!({"compatibility": level}))
    })
    .await
}

async fn level(
    State(registry): Shared,
    subject: Parts<String>,
    Query(parameters): Parameters,
) -> Response {
    run(registry, move |r| {
        let subject = part(subject)?;
        let level = match r.own_level(&subject)? {
            Some(level) => level,
            None if flag(&parameters, "defaultToGlobal") => r.global_level()?,
            None => return Err(RegistryError::NoLevel(subject)),
        };
        Ok(json!({"compatibilityLevel": level}))
    })
    .await
}

async fn set_level(State(registry): Shared, subject: Parts<String>, body: Body) -> Response {
    run(registry, move |r| {
        let level = level_of(body)?;
        r.set_level(&part(subject)?, level)?;
        Ok(json!({"compatibility": level}))
    })
    .await
}

async fn refuse_delete() -> Response {
    refusal(
        405,
        "nothing is deleted here: records written with a schema must stay readable".into(),
    )
}

fn whole(registered: &Registered) -> Value {
    json!({
        "subject": registered.subject,
        "version": registered.version,
        "id": registered.id,
        "schema": registered.schema,
    })
}

fn verdict(objections: &[String], parameters: &HashMap<String, String>) -> Value {
    let mut verdict = json!({"is_compatible": objections.is_empty()});
    if flag(parameters, "verbose") {
        verdict["messages"] = json!(objections);
    }
    verdict
}

fn flag(parameters: &HashMap<String, String>, name: &str) -> bool {
    parameters.get(name).is_some_and(|v| v == "true")
}

fn part<T>(parts: Parts<T>) -> Result<T, RegistryError> {
    parts
        .map(|Path(part)| part)
        .map_err(|e| RegistryError::Refused {
            code: 400,
            message: e.body_text(),
        })
}

fn schema_id(id: Parts<String>) -> Result<u32, RegistryError> {
    let text = part(id)?;
    text.parse()
        .map_err(|_| RegistryError::NoSuchSchema(format!(": '{text}' is not an id")))
}

fn schema_of(body: Body) -> Result<String, RegistryError> {
    let body: SchemaBody = parsed(body)?;
    match body.schema_type.as_deref() {
        None | Some("AVRO") => {}
        Some(other) => {
            return Err(RegistryError::InvalidSchema(format!(
                "schemas of type {other} are not taken: only AVRO is"
            )));
        }
    }
    if !body.references.is_empty() {
        return Err(RegistryError::InvalidSchema(
            "schema references are not taken: send the schema whole".into(),
        ));
    }
    Ok(body.schema)
}

fn level_of(body: Body) -> Result<Level, RegistryError> {
    parsed::<LevelBody>(body)?.compatibility.parse()
}

fn parsed<T: DeserializeOwned>(body: Body) -> Result<T, RegistryError> {
    let bytes = body.map_err(|e| RegistryError::Refused {
        code: u32::from(e.status().as_u16()),
        message: if e.status() == StatusCode::PAYLOAD_TOO_LARGE {
            format!("the body is larger than {BODY_BYTES_MAX} bytes")
        } else {
            e.body_text()
        },
    })?;
    serde_json::from_slice(&bytes).map_err(|e| RegistryError::Refused {
        code: 422,
        message: format!("the body is not the JSON that is expected here: {e}"),
    })
}

/// Runs what may block on the log aside, and answers with JSON.
async fn run<F>(registry: Arc<EmbeddedRegistry>, work: F) -> Response
where
    F: FnOnce(&EmbeddedRegistry) -> Result<Value, RegistryError> + Send + 'static,
{
    aside(registry, move |r| work(r).map(|value| answer(&value))).await
}

/// As [`run`], but answers with a schema's bare text.
async fn run_text<F>(registry: Arc<EmbeddedRegistry>, work: F) -> Response
where
    F: FnOnce(&EmbeddedRegistry) -> Result<String, RegistryError> + Send + 'static,
{
    let reply = |text| ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response();
    aside(registry, move |r| work(r).map(reply)).await
}

async fn aside<F>(registry: Arc<EmbeddedRegistry>, work: F) -> Response
where
    F: FnOnce(&EmbeddedRegistry) -> Result<Response, RegistryError> + Send + 'static,
{
    match tokio::task::spawn_blocking(move || work(&registry)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => refusal(error.code(), error.to_string()),
        Err(_) => refusal(
            500,
            "a defect of the registry; its log has the details".into(),
        ),
    }
}

fn answer(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], value.to_string()).into_response()
}

fn refusal(code: u32, message: String) -> Response {
    let leading = if code > 999 { code / 100 } else { code };
    let status = u16::try_from(leading)
        .ok()
        .and_then(|s| StatusCode::from_u16(s).ok())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = answer(&json!({"error_code": code, "message": message}));
    *response.status_mut() = status;
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        // The rest of the body is never read: the connection can take no other request.
        let close = header::HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}
