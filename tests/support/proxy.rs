//! The network between clients and the brokers of a cluster: what passes can be held up, swallowed and
//! cut. Nothing that passes is changed. Requests and answers pass whole, so that one kind of request can
//! be met on its way: EndTxn, which commits or aborts a transaction.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// Kafka's number of the request that ends a transaction.
const END_TXN: [u8; 2] = 26_i16.to_be_bytes();
/// And of the one by which a transaction tells a group's coordinator of offsets.
const TXN_OFFSET_COMMIT: [u8; 2] = 28_i16.to_be_bytes();
/// Bytes of a request or an answer, at most.
const FRAME_BYTES_MAX: usize = 128 << 20;

/// How the way to a broker is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// Everything passes.
    Open,
    /// Each request and each answer is held up for so long.
    Slow(Duration),
    /// Connections are taken and nothing passes, in either direction. What was swallowed cannot be made
    /// good: such connections are cut when the way opens again.
    HalfOpen,
}

/// What becomes of the next EndTxn to a broker.
pub enum AtEndTxn {
    /// The connection is cut before the broker has it.
    CutBefore,
    /// The broker has it; the connection is cut in the place of the answer.
    CutAfter,
    /// The broker has it so much later.
    Late(Duration),
    /// It is swallowed, with all that follows on its connection.
    Swallowed,
    /// It waits until something is said or nobody can say anything more.
    Held(oneshot::Receiver<()>),
}

struct Armed {
    what: AtEndTxn,
    met: std::sync::mpsc::Sender<()>,
}

#[derive(Clone, Copy)]
struct Weather {
    way: Way,
    /// How often everything was cut.
    cuts: u64,
}

struct Link {
    behind: Mutex<String>,
    weather: watch::Sender<Weather>,
    armed: Mutex<Option<Armed>>,
    ends: AtomicU64,
    offset_commits: AtomicU64,
}

/// The way to one broker.
pub struct Proxy {
    /// Where clients come.
    pub port: u16,
    link: Arc<Link>,
}

/// The ways to all brokers of a cluster.
pub struct Network {
    /// One for each broker, in their order.
    pub proxies: Vec<Proxy>,
    _runtime: tokio::runtime::Runtime,
}

impl Network {
    /// Listens for the clients of so many brokers.
    pub fn new(brokers: usize) -> Network {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let open = |_| {
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
            let listener = listener.expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let weather = watch::Sender::new(Weather {
                way: Way::Open,
                cuts: 0,
            });
            let link = Arc::new(Link {
                behind: Mutex::default(),
                weather,
                armed: Mutex::default(),
                ends: AtomicU64::new(0),
                offset_commits: AtomicU64::new(0),
            });
            runtime.spawn(serve(listener, link.clone()));
            Proxy { port, link }
        };
        Network {
            proxies: (0..brokers).map(open).collect(),
            _runtime: runtime,
        }
    }

    /// Where the brokers listen, in their order.
    pub fn lead_to(&self, addresses: &[String]) {
        for (proxy, address) in self.proxies.iter().zip(addresses) {
            *lock(&proxy.link.behind) = address.clone();
        }
    }

    /// The bootstrap string of clients.
    pub fn bootstrap(&self) -> String {
        let all = self.proxies.iter().map(|p| format!("127.0.0.1:{}", p.port));
        all.collect::<Vec<_>>().join(",")
    }

    /// Everything passes again, and whoever waits at an EndTxn goes on.
    pub fn open(&self) {
        for proxy in &self.proxies {
            proxy.set(Way::Open);
            proxy.disarm();
        }
    }
}

impl Proxy {
    /// Changes the way.
    pub fn set(&self, way: Way) {
        self.link.weather.send_modify(|w| w.way = way);
    }

    /// Cuts every connection. New ones are taken.
    pub fn cut(&self) {
        self.link.weather.send_modify(|w| w.cuts += 1);
    }

    /// Does this to the next EndTxn, and says when it came.
    pub fn arm(&self, what: AtEndTxn) -> std::sync::mpsc::Receiver<()> {
        let (met, meets) = std::sync::mpsc::channel();
        *lock(&self.link.armed) = Some(Armed { what, met });
        meets
    }

    /// The next EndTxn passes.
    pub fn disarm(&self) {
        lock(&self.link.armed).take();
    }

    /// How many EndTxn have come.
    #[allow(dead_code, reason = "for reports")]
    pub fn ends(&self) -> u64 {
        self.link.ends.load(Ordering::Relaxed)
    }

    /// How many times a transaction has told a group's coordinator of offsets.
    #[allow(dead_code, reason = "tells who coordinates a group")]
    pub fn offset_commits(&self) -> u64 {
        self.link.offset_commits.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, link: Arc<Link>) {
    while let Ok((client, _)) = listener.accept().await {
        let link = link.clone();
        tokio::spawn(async move {
            let behind = lock(&link.behind).clone();
            // A broker that is down refuses; so does its proxy.
            let Ok(broker) = TcpStream::connect(behind).await else {
                return;
            };
            let _ = (client.set_nodelay(true), broker.set_nodelay(true));
            let state = Connection::default();
            let (from_client, to_client) = client.into_split();
            let (from_broker, to_broker) = broker.into_split();
            // With either direction the connection ends.
            tokio::select! {
                _ = carry(from_client, to_broker, &link, &state, true) => {}
                _ = carry(from_broker, to_client, &link, &state, false) => {}
            }
        });
    }
}

/// What both directions of a connection know.
#[derive(Default)]
struct Connection {
    /// Something was swallowed.
    is_broken: AtomicBool,
    /// Whatever comes is swallowed, until the client gives up.
    is_dead: AtomicBool,
    /// Ends with the next answer.
    ends_with_answer: AtomicBool,
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    link: &Link,
    state: &Connection,
    is_requests: bool,
) {
    let mut weather = link.weather.subscribe();
    let born = weather.borrow_and_update().cuts;
    let mut frame = Vec::new();
    loop {
        {
            let next = read_frame(&mut from, &mut frame);
            tokio::pin!(next);
            loop {
                tokio::select! {
                    biased;
                    changed = weather.changed() => {
                        let now = *weather.borrow_and_update();
                        let is_broken = state.is_broken.load(Ordering::Relaxed) && now.way != Way::HalfOpen;
                        if changed.is_err() || now.cuts != born || is_broken {
                            return;
                        }
                    }
                    read = &mut next => match read {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                }
            }
        }
        if state.is_dead.load(Ordering::Relaxed) {
            continue;
        }
        let way = weather.borrow().way;
        match way {
            Way::Open => {}
            Way::Slow(time) => tokio::time::sleep(time).await,
            Way::HalfOpen => {
                state.is_broken.store(true, Ordering::Relaxed);
                continue;
            }
        }
        let request = frame.get(4..6).filter(|_| is_requests);
        if request == Some(&TXN_OFFSET_COMMIT[..]) {
            link.offset_commits.fetch_add(1, Ordering::Relaxed);
        }
        if request == Some(&END_TXN[..]) {
            link.ends.fetch_add(1, Ordering::Relaxed);
            let armed = lock(&link.armed).take();
            if let Some(Armed { what, met }) = armed {
                let _ = met.send(());
                match what {
                    AtEndTxn::CutBefore => return,
                    AtEndTxn::CutAfter => state.ends_with_answer.store(true, Ordering::Relaxed),
                    AtEndTxn::Late(time) => tokio::time::sleep(time).await,
                    AtEndTxn::Swallowed => {
                        state.is_dead.store(true, Ordering::Relaxed);
                        continue;
                    }
                    AtEndTxn::Held(until) => drop(until.await),
                }
            }
        } else if !is_requests && state.ends_with_answer.load(Ordering::Relaxed) {
            return;
        }
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

/// A request or an answer with its length before it.
async fn read_frame(
    from: &mut (impl AsyncRead + Unpin),
    frame: &mut Vec<u8>,
) -> std::io::Result<()> {
    frame.resize(4, 0);
    from.read_exact(frame).await?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    frame.resize(4 + length, 0);
    from.read_exact(&mut frame[4..]).await?;
    Ok(())
}
