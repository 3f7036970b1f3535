//! A schema registry that cannot be reached, at the start and later: what needs it waits, health
//! tells, and everything goes on by itself.

use crate::facts::{SESSION, change, quiet_readers, send_raw};
use crate::kafka::Kafka;
use crate::registry::RealRegistry;
use crate::worker::{Worker, succeed};
use crossdock::codec::Codec;
use crossdock::contract::event::Event;
use crossdock::contract::{Catalogue, topic};
use crossdock::log::Log;
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use crossdock::registry::{ClientSettings, Registry, RegistryClient};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The road to a server, which can be closed: then connections are cut, and new ones too.
struct Road {
    address: String,
    open: Arc<AtomicBool>,
}

impl Road {
    fn to(server: String) -> Road {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let open = Arc::new(AtomicBool::new(false));
        let passable = open.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if !passable.load(Ordering::SeqCst) {
                    continue;
                }
                if let Ok(there) = TcpStream::connect(&server) {
                    for (from, to) in [
                        (stream.try_clone(), there.try_clone()),
                        (there.try_clone(), stream.try_clone()),
                    ] {
                        let (Ok(from), Ok(to)) = (from, to) else {
                            continue;
                        };
                        let passable = passable.clone();
                        std::thread::spawn(move || carry(from, to, &passable));
                    }
                }
            }
        });
        Road { address, open }
    }

    fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, open: &AtomicBool) {
    let mut buffer = [0; 16_384];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !open.load(Ordering::SeqCst) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_registry_that_is_away_at_the_start_and_later_is_waited_for() {
    let Some(kafka) = Kafka::find(1) else { return };
    let Some(registry) = RealRegistry::find() else {
        return;
    };
    succeed(
        &kafka.bootstrap,
        &["topics", "apply", "--tier", "S", "--replication", "1"],
    );
    succeed(
        &kafka.bootstrap,
        &["schemas", "register", "--registry", &registry.url],
    );
    let log: Arc<dyn Log> =
        Arc::new(KafkaLog::connect(KafkaSettings::plain(&kafka.bootstrap)).expect("connected"));
    let direct = RegistryClient::new(&ClientSettings::new(&registry.url)).expect("a client");
    let (server, path) = registry
        .url
        .trim_start_matches("http://")
        .split_once('/')
        .expect("a path");
    let road = Road::to(server.to_owned());
    let by_road = format!("http://{}/{path}", road.address);
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = [
        "run",
        "stock-ledger",
        "--registry",
        &by_road,
        "--session-timeout-ms",
        SESSION,
    ];
    let mut worker = Worker::start(&kafka.bootstrap, folder.path(), "one", &arguments);

    // Away at the start.
    let words = worker.wait_for("/health/ready", 503);
    assert!(
        words.contains("registry") || words.contains("starting"),
        "{words}"
    );
    worker.wait_for("/health/live", 200);
    let compiled = Codec::new(Arc::new(direct), Catalogue::compiled());
    let fact = |position| {
        let mut value = Vec::new();
        let event: Event = change("A", "dc", position, -1).into();
        compiled
            .encode(topic::STOCK_CHANGE, &event, &mut value)
            .expect("encoded");
        value
    };
    send_raw(&log, topic::STOCK_CHANGE, Some(b"A|dc"), Some(&fact(1)));
    road.set_open(true);
    worker.wait_for("/health/ready", 200);
    let options = ["--registry", registry.url.as_str()];
    quiet_readers(&kafka, &["stock-ledger"], &options, Duration::from_secs(60));

    // Away when a writer has begun to use a later version of the contract.
    road.set_open(false);
    let direct = RegistryClient::new(&ClientSettings::new(&registry.url)).expect("a client");
    let (_, schema) = Event::CONTRACTS
        .iter()
        .find(|(name, _)| Some(*name) == Catalogue::compiled().contract(topic::STOCK_CHANGE))
        .expect("a contract");
    let mut later: serde_json::Value = serde_json::from_str(schema).expect("JSON");
    let added = serde_json::json!({"name": "later", "type": ["null", "string"], "default": null});
    later["fields"].as_array_mut().expect("fields").push(added);
    let subject = crossdock::codec::subject(topic::STOCK_CHANGE);
    let id = direct
        .register(&subject, &later.to_string())
        .expect("registered");
    let mut value = fact(2);
    value[1..5].copy_from_slice(&id.to_be_bytes());
    value.push(0);
    send_raw(&log, topic::STOCK_CHANGE, Some(b"A|dc"), Some(&value));
    let words = worker.wait_for("/health/ready", 503);
    assert!(words.contains("registry does not answer"), "{words}");
    worker.wait_for("/health/live", 200);
    send_raw(&log, topic::STOCK_CHANGE, Some(b"A|dc"), Some(&fact(3)));
    road.set_open(true);
    worker.wait_for("/health/ready", 200);
    quiet_readers(&kafka, &["stock-ledger"], &options, Duration::from_secs(60));
    let verdict = succeed(&kafka.bootstrap, &["verify", "--registry", &registry.url]);
    println!("{verdict}");
    let row = verdict
        .lines()
        .find(|l| l.starts_with("stock-ledger"))
        .expect("a row");
    let numbers: Vec<&str> = row.split_whitespace().skip(1).collect();
    assert_eq!(numbers[..2], ["3", "3"], "produced and applied: {verdict}");
    assert_eq!(worker.terminate(), Some(0), "an orderly end");
}
