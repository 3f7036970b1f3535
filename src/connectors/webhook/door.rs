//! The door: a listener that takes deliveries in, and answers when they are durable.
//!
//! It runs on a thread of its own, for a source's thread waits for the log. What waits to be kept goes
//! to the log together. Everything is bounded: connections, bytes, time, and what waits.

use super::ingress::pack;
use super::signature::{Headers, Refused, Verifier};
use crate::config::seal::Seal;
use crate::contract::event::Text;
use crate::pipeline::{Clock, Fault, Inbox, RawDelivery};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

/// Connections at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// Deliveries that wait to be kept; further ones are asked to come again.
const WAITING_MAX: usize = 1_000;
/// Deliveries kept together.
const TOGETHER_MAX: usize = 200;
/// Names that the door itself remembers, so that what is repeated at once is not kept again.
const NAMES_MAX: usize = 10_000;
/// A request's head must have come by then.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
/// A request's body must have come by then.
const BODY_TIME_MAX: Duration = Duration::from_secs(15);
/// Senders commonly wait five seconds; what is not durable by then is asked for again.
const KEEP_TIME_MAX: Duration = Duration::from_millis(4_500);
/// Bytes of a body that is too large that are read, and thrown away, so that its sender gets to read
/// the answer.
const DISCARDED_BYTES_MAX: u64 = 64 << 20;
/// Seconds after which a sender is asked to come again.
const RETRY_AFTER: &str = "2";
/// Headers that hold credentials and are not kept.
const CREDENTIALS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

/// What a delivery must be like.
pub struct Expected {
    /// The connector instance.
    pub instance: String,
    /// Path that deliveries are sent to.
    pub path: String,
    /// Largest body.
    pub body_bytes_max: usize,
    /// Signature, time and name.
    pub verifier: Verifier,
    /// Encrypts what is kept.
    pub seal: Seal,
    /// Says when a delivery came.
    pub clock: Arc<dyn Clock>,
}

impl Expected {
    /// Judges a delivery, and seals it.
    pub fn accept(&self, mut headers: Headers, body: &[u8]) -> Result<RawDelivery, Refused> {
        let received_at = self.clock.now();
        self.verifier.verify(&headers, body, received_at)?;
        let json = serde_json::from_slice(body).map_err(|e| {
            Refused::Malformed(format!("the body is not JSON that can be read: {e}"))
        })?;
        let id = self.verifier.id(&headers, body, &json)?;
        headers.retain(|name, _| !CREDENTIALS.contains(&name.as_str()));
        let content = pack(&self.path, &headers, body);
        let sealed = self.seal.seal(&id, &content);
        let sealed = sealed.ok_or_else(|| Refused::Malformed("it cannot be sealed".to_owned()))?;
        Ok(RawDelivery {
            id: id.into(),
            received_at,
            sealed: sealed.into(),
        })
    }
}

/// An open door. Dropping it closes it; deliveries that wait are not answered.
pub struct Door {
    address: SocketAddr,
    kept: Arc<Notify>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    expected: Arc<Expected>,
    names: Mutex<Names>,
    waiting: mpsc::Sender<Waiting>,
}

struct Waiting {
    delivery: RawDelivery,
    answer: oneshot::Sender<Result<(), ()>>,
}

impl Door {
    /// Listens at `listen` and keeps in `inbox` what comes.
    ///
    /// # Errors
    /// When the address cannot be listened at, or no thread be started.
    pub fn open(listen: &str, expected: Arc<Expected>, inbox: Arc<dyn Inbox>) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()?;
        let kept = Arc::new(Notify::new());
        let (waiting, queue) = mpsc::channel(WAITING_MAX);
        let (stop, stopped) = oneshot::channel();
        let instance = expected.instance.clone();
        let shared = Arc::new(Shared {
            expected,
            names: Mutex::default(),
            waiting,
        });
        let notify = kept.clone();
        let thread = std::thread::Builder::new()
            .name(format!("{instance}.webhook"))
            .spawn(move || {
                runtime.block_on(async move {
                    match TcpListener::from_std(listener) {
                        Ok(listener) => tokio::select! {
                            () = serve(listener, shared.clone()) => {}
                            () = keep(queue, inbox, &shared, &notify) => {}
                            _ = stopped => {}
                        },
                        Err(error) => tracing::error!(%error, "no deliveries are taken"),
                    }
                });
                // A call of the log that is under way is not waited for.
                runtime.shutdown_background();
            })?;
        Ok(Door {
            address,
            kept,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends when something was kept since it ended last. Cancel-safe.
    pub async fn woken(&self) {
        self.kept.notified().await;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The names of the latest deliveries that are durable.
#[derive(Default)]
struct Names {
    set: HashSet<Text>,
    order: VecDeque<Text>,
}

impl Names {
    fn add(&mut self, name: &Text) {
        if !self.set.insert(name.clone()) {
            return;
        }
        self.order.push_back(name.clone());
        if self.order.len() > NAMES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }
}

/// Keeps what waits, together, and says so to those who wait.
async fn keep(
    mut queue: mpsc::Receiver<Waiting>,
    inbox: Arc<dyn Inbox>,
    shared: &Shared,
    kept: &Notify,
) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, TOGETHER_MAX).await > 0 {
        let deliveries: Vec<RawDelivery> = waiting.iter().map(|w| w.delivery.clone()).collect();
        let inbox = inbox.clone();
        let result = tokio::task::spawn_blocking(move || inbox.keep(&deliveries)).await;
        let result = match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(fault)) => {
                warn(shared, &fault, waiting.len());
                Err(())
            }
            Err(error) => {
                tracing::error!(source = shared.expected.instance, %error, "deliveries could not be kept");
                Err(())
            }
        };
        for Waiting { delivery, answer } in waiting.drain(..) {
            if result.is_ok() {
                lock(&shared.names).add(&delivery.id);
            }
            // Whoever waited may have gone.
            let _ = answer.send(result);
        }
        if result.is_ok() {
            kept.notify_one();
        }
    }
}

fn warn(shared: &Shared, fault: &Fault, count: usize) {
    let cause = fault.to_string();
    tracing::warn!(
        source = shared.expected.instance,
        count,
        cause,
        "deliveries could not be kept; their senders are asked to send them again"
    );
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many open files, for example: it passes when connections end.
                tracing::warn!(source = shared.expected.instance, %error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let shared = shared.clone();
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(handle(&shared, request).await) }
            });
            // An error here is a sender that went away, or was too slow.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME_MAX)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(permit);
        });
    }
}

async fn handle(shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let expected = &shared.expected;
    if head.uri.path() != expected.path {
        return answer(StatusCode::NOT_FOUND, "there is nothing here");
    }
    if head.method != Method::POST {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "send deliveries with POST");
    }
    let asks_first = head.headers.contains_key(header::EXPECT);
    let body = match tokio::time::timeout(
        BODY_TIME_MAX,
        read(body, expected.body_bytes_max, asks_first),
    )
    .await
    {
        Ok(Ok(body)) => body,
        Ok(Err(answer)) => return answer,
        Err(_) => return closing(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    };
    let headers: Headers = head
        .headers
        .iter()
        .map(|(n, v)| (n.to_string(), v.to_str().unwrap_or_default().to_owned()))
        .collect();
    let delivery = match expected.accept(headers, &body) {
        Ok(delivery) => delivery,
        Err(Refused::Unverified(cause)) => {
            tracing::warn!(
                source = expected.instance,
                cause,
                "a delivery was not verified"
            );
            return answer(
                StatusCode::UNAUTHORIZED,
                "the signature does not verify, or its time is past",
            );
        }
        Err(Refused::Malformed(cause)) => {
            tracing::warn!(
                source = expected.instance,
                cause,
                "a delivery cannot be worked on"
            );
            return answer(StatusCode::BAD_REQUEST, &cause);
        }
    };
    if lock(&shared.names).set.contains(&delivery.id) {
        return answer(StatusCode::OK, "known");
    }
    let (sender, result) = oneshot::channel();
    let waiting = Waiting {
        delivery,
        answer: sender,
    };
    if shared.waiting.try_send(waiting).is_err() {
        return again("too many deliveries wait");
    }
    match tokio::time::timeout(KEEP_TIME_MAX, result).await {
        Ok(Ok(Ok(()))) => answer(StatusCode::OK, "kept"),
        _ => again("it could not be made durable now"),
    }
}

/// The body; or the answer to one that is too large or broken off.
async fn read(
    mut body: Incoming,
    bytes_max: usize,
    asks_first: bool,
) -> Result<Bytes, Response<Full<Bytes>>> {
    let too_large = || {
        let words = format!("the body is larger than {bytes_max} bytes");
        closing(StatusCode::PAYLOAD_TOO_LARGE, &words)
    };
    let announced = body.size_hint().lower();
    let mut is_too_large = announced > bytes_max as u64;
    // A sender that asks first has not sent it yet; one that announces too much to read through is
    // cut off.
    if is_too_large && (asks_first || announced > DISCARDED_BYTES_MAX) {
        return Err(too_large());
    }
    let (mut bytes, mut seen) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| closing(StatusCode::BAD_REQUEST, "the body broke off"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        seen += data.len() as u64;
        is_too_large |= seen > bytes_max as u64;
        if is_too_large {
            bytes = Vec::new();
            if seen > DISCARDED_BYTES_MAX {
                break;
            }
        } else {
            bytes.extend_from_slice(&data);
        }
    }
    match is_too_large {
        true => Err(too_large()),
        false => Ok(bytes.into()),
    }
}

fn answer(status: StatusCode, words: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({"message": words}).to_string();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// An answer to a request that was not read to its end: the connection can take no other.
fn closing(status: StatusCode, words: &str) -> Response<Full<Bytes>> {
    let mut response = answer(status, words);
    let close = header::HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

fn again(words: &str) -> Response<Full<Bytes>> {
    let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, words);
    let after = header::HeaderValue::from_static(RETRY_AFTER);
    response.headers_mut().insert(header::RETRY_AFTER, after);
    response
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
