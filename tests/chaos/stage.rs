//! Everything that takes part: three brokers with a proxy before each, a schema registry, a storefront,
//! and a dozen places for processes of the binary under test.

use crate::facts::codec;
use crate::kafka::Kafka;
use crate::oracle;
use crate::plan::Kind;
use crate::proxy::Network;
use crate::worker::{POLL, Worker, crossdock, succeed};
use crossdock::log::Log;
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use crossdock::pipeline::{Fake, FakeOptions};
use crossdock::processors;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub const BROKERS: usize = 3;
/// SKUs of the storefront.
pub const SKUS: usize = 40;
pub const TILL: &str = "till-1";
pub const HUB: &str = "third-hub";
pub const SECRET: &str = "a secret of the tests";
/// Sessions of the workers.
pub const SESSION_MS: u64 = 3_000;
/// Who does not ask for records for so long is expelled: longer than the log may take to answer (ten
/// seconds), because whoever waits for that is not dead.
pub const POLL_INTERVAL_MAX: Duration = Duration::from_secs(20);
/// A dead broker is noticed after its session; transactions of the dead end soon. Threads and indices are those
/// of a small machine: a killed broker goes through all of its indices when it returns.
const BROKER_PROPERTIES: &str = "group.consumer.session.timeout.ms=3000 broker.session.timeout.ms=3000 \
    broker.heartbeat.interval.ms=500 controller.quorum.election.timeout.ms=600 controller.quorum.fetch.timeout.ms=1500 \
    replica.lag.time.max.ms=5000 num.io.threads=4 num.network.threads=2 log.index.size.max.bytes=262144";
/// A run lasts so much longer, at most, until each kind of fault was made.
const EXTRA_TIME_MAX: Duration = Duration::from_secs(180);
/// What must come about while faults are being made does so within this time.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// Room of a worker's state folder that can be full.
const DISK_BYTES: &str = "16m";

/// How the members of a group share partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    Range,
    Cooperative,
    Server,
}

/// What the instances of a kind run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `stock-ledger`.
    Ledger,
    /// `ats-aggregate`, which reads one topic.
    Availability,
    /// All other processors.
    Orders,
    /// Files in, the storefront out.
    Edge,
    /// Webhooks in.
    Hooks,
}

/// A place for an instance.
pub struct Slot {
    pub name: &'static str,
    pub part: Part,
    /// Whether it runs apart from storms.
    pub is_regular: bool,
    pub worker: Option<Worker>,
    /// Whether it should run.
    pub is_wanted: bool,
}

const SLOTS: [(&str, Part, bool); 13] = [
    ("ledger-1", Part::Ledger, true),
    ("ledger-2", Part::Ledger, true),
    ("ledger-3", Part::Ledger, false),
    ("ledger-4", Part::Ledger, false),
    ("ats-1", Part::Availability, true),
    ("ats-2", Part::Availability, true),
    ("ats-3", Part::Availability, false),
    ("ats-4", Part::Availability, false),
    ("orders-1", Part::Orders, true),
    ("orders-2", Part::Orders, true),
    ("edge-1", Part::Edge, true),
    ("edge-2", Part::Edge, true),
    ("hooks", Part::Hooks, true),
];

pub struct Stage {
    pub seed: u64,
    pub kafka: Kafka,
    pub network: Network,
    /// The brokers without a proxy between: for what is sent and judged.
    pub log: Arc<dyn Log>,
    pub shop: Box<dyn Fake>,
    pub slots: Vec<Mutex<Slot>>,
    /// Where webhooks are taken.
    pub hooks: String,
    pub sent: Mutex<Sent>,
    folder: tempfile::TempDir,
    /// Whether the workers' state lies on a disk of its own that can be filled.
    has_disk: bool,
    registry: Mutex<Registry>,
    sharing: Mutex<(Sharing, Sharing)>,
    /// Kinds of faults that the run must make.
    chosen: Vec<Kind>,
    counts: Mutex<BTreeMap<Kind, u64>>,
    /// Kinds that cannot be made here, and why.
    impossible: Mutex<BTreeMap<Kind, &'static str>>,
    story: Mutex<String>,
    /// Instances that ended by themselves and were started again, and the last words of each.
    restarts: Mutex<Vec<String>>,
    began: Instant,
    end: OnceLock<Instant>,
    failed: Arc<AtomicBool>,
    pub is_loaded: AtomicBool,
    runtime: tokio::runtime::Runtime,
}

/// What was sent, and what must come of it.
#[derive(Default)]
pub struct Sent {
    /// Different changes of stock that were written to their topic, not told by a system.
    pub changes: i64,
    /// Units that the storefront must show, by location and SKU.
    pub units: BTreeMap<(&'static str, String), i64>,
    pub lines: u64,
    /// Webhooks that were taken, and movements that different ones of them told.
    pub deliveries: u64,
    pub moves: u64,
    pub repeated: u64,
    pub orders: usize,
    pub waves: usize,
}

struct Registry {
    child: Option<Child>,
    port: u16,
}

impl Stage {
    /// Starts everything. `None` where it cannot be; a line says why.
    pub fn start(seed: u64, chosen: Vec<Kind>) -> Option<Stage> {
        oracle::command()?;
        let network = Network::new(BROKERS);
        let ports: Vec<u16> = network.proxies.iter().map(|p| p.port).collect();
        let kafka = Kafka::behind_proxies(&ports, BROKER_PROPERTIES)?;
        network.lead_to(&kafka.behind());
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let options = FakeOptions {
            skus: (0..SKUS).map(sku).collect(),
            locations: vec![],
            seed,
        };
        let make = crossdock::connectors::find("vendure").and_then(|d| d.fake);
        let shop = runtime.block_on(make.expect("a stand-in")(options));
        let folder = tempfile::tempdir().expect("a folder");
        let hooks = format!("127.0.0.1:{}", free_port());
        let shop = shop.expect("started");
        configure(folder.path(), &hooks, shop.as_ref());
        let config = folder.path().join("range.yaml").display().to_string();
        let options = ["--config", &config];
        let to = &kafka.bootstrap;
        succeed(
            to,
            &[&["topics", "apply", "--tier", "S"][..], &options].concat(),
        );
        succeed(to, &[&["schemas", "register"][..], &options].concat());
        let log: Arc<dyn Log> =
            Arc::new(KafkaLog::connect(KafkaSettings::plain(to.clone())).expect("connected"));
        let slots = SLOTS.map(|(name, part, is_regular)| {
            Mutex::new(Slot {
                name,
                part,
                is_regular,
                worker: None,
                is_wanted: false,
            })
        });
        let mut stage = Stage {
            seed,
            kafka,
            network,
            log,
            shop,
            slots: slots.into(),
            hooks,
            sent: Mutex::default(),
            folder,
            has_disk: false,
            registry: Mutex::new(Registry {
                child: None,
                port: free_port(),
            }),
            sharing: Mutex::new((Sharing::Range, Sharing::Cooperative)),
            chosen,
            counts: Mutex::default(),
            impossible: Mutex::default(),
            story: Mutex::default(),
            restarts: Mutex::default(),
            began: Instant::now(),
            end: OnceLock::new(),
            failed: Arc::default(),
            is_loaded: AtomicBool::new(false),
            runtime,
        };
        stage.has_disk = stage.mount();
        // Told to stop, it gives everything back first.
        let failed = stage.failed.clone();
        stage.runtime.spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                failed.store(true, Ordering::SeqCst);
            }
        });
        stage.start_registry();
        for slot in stage.slots.iter().filter(|s| lock(s).is_regular) {
            stage.run(&mut lock(slot));
        }
        for slot in stage.slots.iter().filter(|s| lock(s).is_regular) {
            stage.wait_ready(slot);
        }
        Some(stage)
    }

    /// From now on, and until `end`, faults are made.
    pub fn begin(&self, end: Instant) {
        self.end.get_or_init(|| end);
        self.tell("everything works");
    }

    /// Whether the time of faults is over and each kind has been made, or something has failed.
    pub fn is_over(&self) -> bool {
        let late = self
            .end
            .get()
            .map(|e| Instant::now().checked_duration_since(*e));
        match late.flatten() {
            Some(late) => late >= EXTRA_TIME_MAX || self.has_failed() || self.missing().is_empty(),
            None => self.has_failed(),
        }
    }

    /// Kinds that could be made and were not yet.
    pub fn missing(&self) -> Vec<Kind> {
        let (counts, impossible) = (lock(&self.counts), lock(&self.impossible));
        let is_open = |k: &&Kind| !counts.contains_key(k) && !impossible.contains_key(k);
        self.chosen.iter().filter(is_open).copied().collect()
    }

    pub fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.network.open();
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Waits for what must come about; `false` where the run has failed elsewhere meanwhile.
    ///
    /// # Panics
    /// When it does not come about in time; `what` says what was waited for.
    pub fn wait(&self, what: &str, mut is_so: impl FnMut() -> bool) -> bool {
        self.wait_out(what, || match is_so() {
            true => vec![],
            false => vec!["it is not so".to_owned()],
        })
    }

    /// As [`Stage::wait`], until nothing is left.
    ///
    /// # Panics
    /// When something is left for too long; the message says what.
    pub fn wait_out(&self, what: &str, mut left: impl FnMut() -> Vec<String>) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = left();
            if left.is_empty() {
                return true;
            }
            if self.has_failed() {
                return false;
            }
            assert!(
                Instant::now() < deadline,
                "in vain: {what}: {}",
                left.join("; ")
            );
            self.restart_ended();
            std::thread::sleep(POLL);
        }
    }

    /// Passes the time of the plan: how long a fault lasts, or a hand rests. Ends with the run.
    pub fn pass(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.is_over() {
            std::thread::sleep(POLL.min(until.saturating_duration_since(Instant::now())));
        }
    }

    // --- workers

    pub fn slots_of(&self, part: Part) -> Vec<&Mutex<Slot>> {
        self.slots.iter().filter(|s| lock(s).part == part).collect()
    }

    /// Starts the instance of a slot.
    pub fn run(&self, slot: &mut Slot) {
        let (ledger, availability) = *lock(&self.sharing);
        let sharing = match slot.part {
            Part::Ledger => ledger,
            Part::Availability => availability,
            _ => Sharing::Range,
        };
        let config = self.folder.path().join(match sharing {
            Sharing::Range => "range.yaml",
            Sharing::Cooperative => "cooperative.yaml",
            Sharing::Server => "server.yaml",
        });
        let config = config.display().to_string();
        let registry = format!("http://127.0.0.1:{}", lock(&self.registry).port);
        let session = SESSION_MS.to_string();
        let options = ["--config", &config, "--registry", &registry];
        let session = ["--session-timeout-ms", &session];
        let arguments = [&["run"][..], &names(slot.part), &options, &session].concat();
        slot.worker = Some(Worker::start_in(
            &self.network.bootstrap(),
            self.folder.path(),
            &format!("state-{}", slot.name),
            slot.name,
            &arguments,
        ));
        slot.is_wanted = true;
    }

    /// Waits until the instance of a slot says that it is ready.
    pub fn wait_ready(&self, slot: &Mutex<Slot>) {
        let name = lock(slot).name;
        self.wait_out(&format!("{name} is ready"), || {
            let slot = lock(slot);
            if !slot.is_wanted {
                return vec![];
            }
            match slot.worker.as_ref().and_then(|w| w.get("/health/ready")) {
                Some((200, _)) => vec![],
                Some((_, said)) => vec![format!("it says {:?}", said.trim_end())],
                None => vec!["it does not answer".to_owned()],
            }
        });
    }

    /// Ends the instance of a slot in good order.
    pub fn end(&self, slot: &mut Slot) {
        slot.is_wanted = false;
        if let Some(mut worker) = slot.worker.take()
            && worker.ended().is_none()
        {
            worker.signal("TERM");
            let code = worker.wait(PATIENCE);
            let name = slot.name;
            assert_eq!(
                code,
                Some(0),
                "{name}, told to end: {}",
                tail(&worker.logged())
            );
        }
    }

    /// Starts again, as a supervisor does, what ends by itself: one that finds no broker when it
    /// begins, for example. What ends by a defect is one.
    pub fn keep_running(&self) {
        while !self.is_over() {
            self.restart_ended();
            std::thread::sleep(POLL);
        }
    }

    fn restart_ended(&self) {
        for slot in &self.slots {
            // Whoever has it is about to do something to it.
            let Ok(mut slot) = slot.try_lock() else {
                continue;
            };
            let Some(code) = slot.worker.as_mut().and_then(Worker::ended) else {
                continue;
            };
            let words = slot.worker.take().map(|w| tail(&w.logged()));
            let words = words.unwrap_or_default();
            assert!(
                code == Some(1),
                "{} ended with {code:?}: {words}",
                slot.name
            );
            lock(&self.restarts).push(format!("{}: {words}", slot.name));
            self.tell(&format!("{} has ended by itself", slot.name));
            if slot.is_wanted {
                self.run(&mut slot);
            }
        }
    }

    pub fn set_sharing(&self, part: Part, to: Sharing) {
        let mut sharing = lock(&self.sharing);
        match part {
            Part::Ledger => sharing.0 = to,
            _ => sharing.1 = to,
        }
    }

    // --- what they need

    pub fn start_registry(&self) {
        let mut registry = lock(&self.registry);
        let listen = format!("127.0.0.1:{}", registry.port);
        let child = crossdock(&self.kafka.bootstrap)
            .args(["registry", "serve", "--listen", &listen])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        registry.child = Some(child.expect("the binary runs"));
    }

    /// Whether the registry serves; one that found no broker is started again.
    pub fn has_registry(&self) -> bool {
        let (port, has_ended) = {
            let registry = &mut *lock(&self.registry);
            let ended = registry.child.as_mut().map(|c| c.try_wait());
            (registry.port, matches!(ended, Some(Ok(Some(_)))))
        };
        if has_ended {
            self.start_registry();
        }
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    }

    pub fn kill_registry(&self) {
        if let Some(mut child) = lock(&self.registry).child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Gives the ledger's first instance a disk of its own, small enough to be filled, where that is
    /// allowed.
    fn mount(&self) -> bool {
        let folder = self.disk();
        std::fs::create_dir_all(&folder).expect("a folder");
        let size = format!("size={DISK_BYTES}");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &size, "crossdock-chaos"])
            .arg(folder);
        let mounted = mount.stderr(Stdio::null()).status();
        mounted.is_ok_and(|s| s.success())
    }

    /// Where the instance keeps its state whose disk can be filled.
    fn disk(&self) -> PathBuf {
        self.folder.path().join(format!("state-{}", SLOTS[0].0))
    }

    /// Leaves no room on that disk; gives what takes it. `None` where it is not a disk of its own.
    pub fn fill_disk(&self) -> Option<PathBuf> {
        let path = self.disk().join("filler");
        if self.has_disk {
            // Until it is full.
            let mut from = std::fs::File::open("/dev/zero").expect("zeros");
            let mut to = std::fs::File::create(&path).expect("a file");
            let filled = std::io::copy(&mut from, &mut to);
            assert!(filled.is_err(), "a disk without end");
        }
        self.has_disk.then_some(path)
    }

    /// Where the tills put what they sold.
    pub fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    // --- what is told

    /// What a hand does goes into the story.
    pub fn tell(&self, what: &str) {
        let at = self.began.elapsed().as_secs_f64();
        let line = format!("{at:8.1} s  {what}\n");
        let path = self.folder.path().join("story");
        let mut story = lock(&self.story);
        story.push_str(&line);
        // To look on while it comes about.
        let _ = std::fs::write(path, story.as_bytes());
    }

    pub fn count(&self, kind: Kind) {
        *lock(&self.counts).entry(kind).or_default() += 1;
    }

    /// A kind cannot be made here.
    pub fn give_up(&self, kind: Kind, why: &'static str) {
        self.tell(&format!("{} cannot be made: {why}", kind.name()));
        lock(&self.impossible).insert(kind, why);
    }

    /// Kinds that were not made, and why.
    pub fn not_made(&self) -> Vec<String> {
        let impossible = lock(&self.impossible).clone();
        let no_time = self.missing().into_iter().map(|k| (k, "there was no time"));
        impossible
            .into_iter()
            .chain(no_time)
            .map(|(kind, why)| format!("{}: {why}", kind.name()))
            .collect()
    }

    pub fn story(&self) -> String {
        lock(&self.story).clone()
    }

    pub fn report(&self) -> String {
        let mut text = String::from("faults\n");
        for (kind, count) in lock(&self.counts).iter() {
            let _ = writeln!(text, "  {:<20} {count:>6}", kind.name());
        }
        for words in self.not_made() {
            let _ = writeln!(text, "  not made: {words}");
        }
        let ends: u64 = self.network.proxies.iter().map(|p| p.ends()).sum();
        let sent = lock(&self.sent);
        let _ = writeln!(
            text,
            "sent: {} changes of stock, {} lines of tills, {} webhooks of which {} again, {} orders in {} waves; \
             {ends} transactions ended; {} calls to the storefront",
            sent.changes,
            sent.lines,
            sent.deliveries,
            sent.repeated,
            sent.orders,
            sent.waves,
            self.shop.calls_taken(),
        );
        for words in lock(&self.restarts).iter() {
            let _ = writeln!(text, "ended by itself, started again: {words}");
        }
        text
    }

    /// Keeps the folder with the workers' and the brokers' logs, and says where it is.
    pub fn keep(mut self) -> PathBuf {
        self.clear();
        if let Err(error) = self.kafka.keep_logs(self.folder.path()) {
            println!("the brokers' logs cannot be kept: {error}");
        }
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// Ends the workers and gives the disk back.
    fn clear(&mut self) {
        for slot in &self.slots {
            lock(slot).worker = None;
        }
        self.kill_registry();
        if std::mem::take(&mut self.has_disk) {
            let _ = Command::new("umount").arg(self.disk()).status();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear();
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn sku(number: usize) -> String {
    format!("P-{number}")
}

/// What instances of a part run.
fn names(part: Part) -> Vec<&'static str> {
    match part {
        Part::Ledger => vec!["stock-ledger"],
        Part::Availability => vec!["ats-aggregate"],
        Part::Orders => {
            let all = processors::ALL.iter().map(|p| p.descriptor.name);
            all.filter(|n| !["stock-ledger", "ats-aggregate"].contains(n))
                .collect()
        }
        Part::Edge => vec!["reference", "tills", "shop"],
        Part::Hooks => vec!["third"],
    }
}

/// The last lines of a log that warn or worse.
fn tail(log: &str) -> String {
    let bad =
        |line: &&str| line.contains("ERROR") || line.contains("rror") || line.contains("panic");
    let lines: Vec<&str> = log.lines().filter(bad).collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

/// A port below those that outgoing connections are given: whoever is down keeps it.
fn free_port() -> u16 {
    let first = 10_000 + (std::process::id() as u16 % 2_000) * 10;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = lock(&NEXT);
    let found = (first + *next..32_000).find(is_free).expect("a free port");
    *next = found - first + 1;
    found
}

/// The configurations of the workers, one for each way of sharing.
fn configure(folder: &Path, hooks: &str, shop: &dyn Fake) {
    let secret = folder.join("secret");
    std::fs::write(&secret, SECRET).expect("written");
    let secret = format!("${{file:{}}}", secret.display());
    let journal = folder.join("journal");
    std::fs::create_dir(&journal).expect("a folder");
    let mut settings = shop.settings();
    settings["channel"] = "shop".into();
    let by_kind =
        |kind: &str, of: [(&str, &str); 2]| json!({"column": kind, "map": BTreeMap::from(of)});
    let connectors = json!([
        {"name": "reference", "kind": "reference", "settings": {
            "locations": {TILL: {"kind": "store"}, HUB: {"kind": "dc"}},
            "channels": {"shop": {"locations": [TILL, HUB], "unit": "1"}}}},
        {"name": "tills", "kind": "file", "settings": {
            "path": journal, "format": "csv",
            "fields": {
                "sku": {"column": "sku"}, "location": {"constant": TILL},
                "quantity": {"column": "quantity"}, "time": {"column": "time"},
                "document": {"column": "document"}},
            "time_format": "%Y-%m-%d %H:%M:%S", "time_zone": "UTC"}},
        {"name": "shop", "kind": "vendure", "settings": settings},
        {"name": "third", "kind": "http", "settings": {
            "webhook": {"listen": hooks, "path": "/third", "secrets": [secret], "inbox_keys": [secret]},
            "signature": {"header": "x-signature", "delivery_id": {"pointer": "/message"}},
            "events": [{
                "topic": "retail.stock.change.v1",
                "each": "/moves",
                "identity": ["/number"],
                "time": {"column": "$/at"},
                "fields": {
                    "movementId": {"column": "/number"}, "sku": {"column": "/article"},
                    "locationId": {"constant": HUB}, "qty": {"column": "/quantity"},
                    "fromState": by_kind("/kind", [("in", "SUPPLIER"), ("broken", "SELLABLE")]),
                    "toState": by_kind("/kind", [("in", "SELLABLE"), ("broken", "DAMAGED")]),
                    "reason": by_kind("/kind", [("in", "RECEIPT"), ("broken", "DAMAGE")])}}]}},
    ]);
    let (poll, session) = (
        POLL_INTERVAL_MAX.as_millis().to_string(),
        SESSION_MS.to_string(),
    );
    // Forty readers that find nothing ask each broker less often, so that the machine has time for faults.
    let patient = ("fetch.wait.max.ms", "300");
    // These hold for readers without a group too.
    let timely = [
        patient,
        ("max.poll.interval.ms", poll.as_str()),
        ("session.timeout.ms", session.as_str()),
    ];
    let cooperative = [("partition.assignment.strategy", "cooperative-sticky")];
    for (name, groups, extra) in [
        ("range", "classic", timely.to_vec()),
        (
            "cooperative",
            "classic",
            [&timely[..], &cooperative].concat(),
        ),
        ("server", "server", vec![patient]),
    ] {
        let extra: BTreeMap<&str, &str> = extra.into_iter().collect();
        let log = json!({"bootstrap": "127.0.0.1:1", "groups": groups, "extra": extra});
        let all = json!({"log": log, "connectors": connectors});
        std::fs::write(folder.join(format!("{name}.yaml")), all.to_string()).expect("written");
    }
}

/// The codec of what is sent.
pub fn sender_codec(stage: &Stage) -> crossdock::codec::Codec {
    codec(&stage.log)
}
