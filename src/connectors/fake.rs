//! Stand-ins over real HTTP: a stateful API behind a socket, with faults on demand.
//!
//! A stand-in runs on a thread of its own and ends when it is dropped. Its API is a synchronous
//! function from request to answer over the stand-in's books; faults, records of calls and the
//! socket are kept here, once for all.

use crate::pipeline::{FakeCall, FakeFault};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Calls that a stand-in remembers.
const CALLS_MAX: usize = 2_000;
/// Bytes of a request that a stand-in takes.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// A request as a stand-in sees it.
pub struct FakeRequest {
    /// HTTP method.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Query parameters, decoded, in order.
    pub query: Vec<(String, String)>,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body as JSON, a form as an object of texts; null when there is none.
    pub body: Value,
}

/// What a stand-in answers.
pub struct FakeAnswer {
    /// HTTP status.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Value,
}

impl FakeAnswer {
    /// An answer without further headers.
    pub fn new(status: u16, body: Value) -> Self {
        FakeAnswer {
            status,
            headers: Vec::new(),
            body,
        }
    }
}

/// The API of a stand-in over its books.
pub trait FakeApi: Send + 'static {
    /// Whether the request changes the books if it succeeds: such calls are recorded.
    fn changes(&self, request: &FakeRequest) -> bool;
    /// Whether faults are shown on the request: on those that change something and, for a system
    /// that is only read, on others.
    fn fails(&self, request: &FakeRequest) -> bool {
        self.changes(request)
    }
    /// Answers a request.
    fn answer(&mut self, request: &FakeRequest) -> FakeAnswer;
    /// The answer to credentials that are refused.
    fn unauthorised(&self) -> FakeAnswer {
        FakeAnswer::new(401, serde_json::json!({"message": "Unauthorized"}))
    }
}

/// A running stand-in.
pub struct FakeServer<A> {
    shared: Arc<Shared<A>>,
    url: String,
    secret_file: std::path::PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared<A> {
    api: Mutex<A>,
    faults: Mutex<VecDeque<FakeFault>>,
    /// How many there were, and the latest.
    calls: Mutex<(u64, VecDeque<FakeCall>)>,
    down: AtomicBool,
}

impl<A: FakeApi> FakeServer<A> {
    /// Serves `api` on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port can be bound or no thread be started.
    pub fn start(api: A) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let url = format!("http://{address}");
        let secret_file = std::env::temp_dir().join(format!(
            "crossdock-{}-{}.secret",
            std::process::id(),
            address.port()
        ));
        let shared = Arc::new(Shared {
            api: Mutex::new(api),
            faults: Mutex::default(),
            calls: Mutex::default(),
            down: AtomicBool::new(false),
        });
        let (stop, stopped) = oneshot::channel();
        let served = shared.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("stand-in".into())
            .spawn(move || {
                runtime.block_on(async move {
                    if let Ok(listener) = TcpListener::from_std(listener) {
                        tokio::select! {
                            () = serve(listener, served) => {}
                            _ = stopped => {}
                        }
                    }
                });
            })?;
        Ok(FakeServer {
            shared,
            url,
            secret_file,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Base URL.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Puts a secret of the stand-in where a configuration can refer to it, and gives the
    /// reference. The file goes with the stand-in.
    pub fn secret_reference(&self, secret: &str) -> String {
        match std::fs::write(&self.secret_file, secret) {
            Ok(()) => format!("${{file:{}}}", self.secret_file.display()),
            Err(error) => {
                tracing::error!(%error, "the secret of a stand-in cannot be kept");
                String::new()
            }
        }
    }

    /// The books.
    pub fn api(&self) -> MutexGuard<'_, A> {
        lock(&self.shared.api)
    }

    /// Shows these faults on the next calls that can fail.
    pub fn inject(&self, faults: Vec<FakeFault>) {
        lock(&self.shared.faults).extend(faults);
    }

    /// Closes every connection without an answer while down.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
    }

    /// Serves again, and takes back the faults that no call has met.
    pub fn heal(&self) {
        lock(&self.shared.faults).clear();
        self.set_down(false);
    }

    /// The calls that changed or would have changed something; of very many the latest.
    pub fn calls(&self) -> Vec<FakeCall> {
        lock(&self.shared.calls).1.iter().cloned().collect()
    }

    /// How many such calls there were.
    pub fn calls_taken(&self) -> u64 {
        lock(&self.shared.calls).0
    }
}

impl<A> Drop for FakeServer<A> {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.secret_file);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve<A: FakeApi>(listener: TcpListener, shared: Arc<Shared<A>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let service = service_fn(move |request| handle(shared.clone(), request));
            // An error here is the cut connection that a fault asked for, or a client that left.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn handle<A: FakeApi>(
    shared: Arc<Shared<A>>,
    request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    if shared.down.load(Ordering::SeqCst) {
        return Err(cut());
    }
    let request = read(request).await?;
    let at = std::time::Instant::now();
    let (changes, fails) = {
        let api = lock(&shared.api);
        (api.changes(&request), api.fails(&request))
    };
    let fault = if fails {
        lock(&shared.faults).pop_front()
    } else {
        None
    };
    let operation = format!("{} {}", request.method, request.path);
    let record = |applied| {
        if changes {
            let (count, calls) = &mut *lock(&shared.calls);
            *count += 1;
            if calls.len() == CALLS_MAX {
                calls.pop_front();
            }
            calls.push_back(FakeCall {
                at,
                operation: operation.clone(),
                applied,
                body: request.body.clone(),
            });
        }
    };
    match fault {
        Some(FakeFault::Cut) => {
            record(false);
            Err(cut())
        }
        Some(FakeFault::Status(status, wait)) => {
            record(false);
            let mut answer = FakeAnswer::new(status, serde_json::json!({"message": "injected"}));
            answer
                .headers
                .extend(wait.map(|w| ("retry-after", w.as_secs().to_string())));
            respond(answer)
        }
        Some(FakeFault::Unauthorised) => {
            record(false);
            let answer = lock(&shared.api).unauthorised();
            respond(answer)
        }
        other => {
            let answer = lock(&shared.api).answer(&request);
            record(answer.status < 400);
            match other {
                Some(FakeFault::AppliedThenCut) => Err(cut()),
                Some(FakeFault::Garbage) => Ok(Response::new(Full::new(Bytes::from_static(
                    b"<html>bad gateway</html>",
                )))),
                Some(FakeFault::Slow(wait)) => {
                    tokio::time::sleep(wait.min(Duration::from_secs(60))).await;
                    respond(answer)
                }
                _ => respond(answer),
            }
        }
    }
}

async fn read(request: Request<Incoming>) -> io::Result<FakeRequest> {
    let (head, body) = request.into_parts();
    let bytes = Limited::new(body, REQUEST_BYTES_MAX)
        .collect()
        .await
        .map_err(|_| cut())?
        .to_bytes();
    let decode = |text: &str| {
        percent_encoding::percent_decode_str(&text.replace('+', " "))
            .decode_utf8_lossy()
            .into_owned()
    };
    let pairs = |text: &str| -> Vec<(String, String)> {
        text.split('&')
            .filter(|p| !p.is_empty())
            .map(|p| p.split_once('=').unwrap_or((p, "")))
            .map(|(name, value)| (decode(name), decode(value)))
            .collect()
    };
    let content_type = head.headers.get("content-type").map(|v| v.as_bytes());
    let body = match content_type == Some(b"application/x-www-form-urlencoded") {
        true => {
            let fields = pairs(&String::from_utf8_lossy(&bytes));
            let fields = fields.into_iter().map(|(n, v)| (n, Value::from(v)));
            Value::Object(fields.collect())
        }
        false => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    };
    Ok(FakeRequest {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: pairs(head.uri.query().unwrap_or_default()),
        headers: head
            .headers
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_str().unwrap_or_default().to_owned()))
            .collect(),
        body,
    })
}

fn respond(answer: FakeAnswer) -> io::Result<Response<Full<Bytes>>> {
    let mut response = Response::builder()
        .status(answer.status)
        .header("content-type", "application/json");
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response
        .body(Full::new(Bytes::from(answer.body.to_string())))
        .map_err(io::Error::other)
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "cut on demand")
}
