//! A storefront sends webhooks to a process that is killed between them, and some it never sends: what was
//! answered is kept, every order is told once, and what was not announced is found and said.

use crate::facts::{SESSION, codec};
use crate::kafka::Kafka;
use crate::worker::{POLL, Worker, succeed};
use crossdock::contract::event::{Event, ExceptionStatus, OrderEventType};
use crossdock::contract::topic;
use crossdock::domain::order_id;
use crossdock::log::Log;
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use crossdock::pipeline::{Clock as _, FakeOptions, SystemClock};
use crossdock::verify::read_topic;
use rand::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SECRET: &str = "c2VjcmV0IG9mIHRoZSBzaG9wIHRoYXQgc2VuZHM=";
const INBOX: &str = "retail.rt.shop.inbox.v1";
const WAVES: usize = 6;
const ORDERS: usize = 12;

/// Signs a delivery by the Standard Webhooks specification and sends it; gives the answer's status, or
/// nothing when there was none.
fn deliver(url: &str, id: &str, body: &str) -> Option<u16> {
    use base64::Engine as _;
    use hmac::{KeyInit as _, Mac as _};
    let base64 = base64::engine::general_purpose::STANDARD;
    let key = base64.decode(SECRET).expect("base64");
    let at = SystemClock.now().as_millis() / 1_000;
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key).expect("a key");
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    let signature = base64.encode(mac.finalize().into_bytes());
    let request = reqwest::blocking::Client::new()
        .post(url)
        .timeout(Duration::from_secs(20))
        .header("webhook-id", id)
        .header("webhook-timestamp", at)
        .header("webhook-signature", format!("v1,{signature}"))
        .body(body.to_owned());
    request.send().ok().map(|answer| answer.status().as_u16())
}

/// Sends it again until it is answered, as senders of webhooks do.
fn insist(url: &str, id: &str, body: &str, worker: &Worker) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while deliver(url, id, body) != Some(200) {
        assert!(Instant::now() < deadline, "{id}: {}", worker.logged());
        std::thread::sleep(POLL);
    }
}

/// The events of a topic.
fn events(log: &Arc<dyn Log>, topic: &str) -> Vec<Event> {
    let codec = codec(log);
    let mut events = Vec::new();
    read_topic(log.as_ref(), topic, |record| {
        events.push(codec.decode(record).expect("an event"));
    })
    .expect("read");
    events
}

/// How often each order was told to be placed.
fn placed(log: &Arc<dyn Log>) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for event in events(log, topic::ORDER_LIFECYCLE) {
        if let Event::OrderEvent(e) = event
            && e.r#type == OrderEventType::Placed
        {
            *told.entry(e.order_id.to_string()).or_default() += 1;
        }
    }
    told
}

fn wait_until(what: &str, worker: &Worker, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(180);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: {}", worker.logged());
        std::thread::sleep(POLL * 4);
    }
}

#[test]
fn what_was_answered_is_kept_through_kills_and_what_was_not_sent_is_found() {
    let Some(kafka) = Kafka::find(1) else { return };
    let mut random = StdRng::seed_from_u64(11);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let make = crossdock::connectors::find("vendure").and_then(|d| d.fake);
    let options = FakeOptions {
        skus: vec!["A".into()],
        ..FakeOptions::default()
    };
    let started = runtime.block_on(make.expect("a stand-in")(options));
    let shop = started.expect("started");
    let act = |action: Value| shop.act(&action).expect("done");
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, SECRET).expect("written");
    let reference = format!("${{file:{}}}", secret.display());
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = port.local_addr().expect("bound").to_string();
    drop(port);
    let mut settings = shop.settings();
    settings["webhook"] =
        json!({"listen": listen, "secrets": [reference], "inbox_keys": [reference]});
    let configuration =
        json!({"connectors": [{"name": "shop", "kind": "vendure", "settings": settings}]});
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, configuration.to_string()).expect("written");
    let config = path.display().to_string();
    let of_shop = ["--connector", "shop=vendure"];
    let apply = ["topics", "apply", "--tier", "S", "--replication", "1"];
    succeed(&kafka.bootstrap, &[&apply[..], &of_shop].concat());
    succeed(
        &kafka.bootstrap,
        &[&["schemas", "register"][..], &of_shop].concat(),
    );
    let log: Arc<dyn Log> =
        Arc::new(KafkaLog::connect(KafkaSettings::plain(&kafka.bootstrap)).expect("connected"));
    let start = || {
        let arguments = [
            "run",
            "shop",
            "--config",
            &config,
            "--session-timeout-ms",
            SESSION,
        ];
        Worker::start(&kafka.bootstrap, folder.path(), "one", &arguments)
    };
    let place = || {
        let number = act(json!({"place": {"A": 1}, "captured": true}));
        let id = act(json!({"show": number}))["id"].clone();
        let order = order_id("default", "web", number.as_str().expect("a number"));
        let body = json!({"type": "OrderPlacedEvent", "order": {"id": id}});
        (order.to_string(), body.to_string())
    };
    let mut worker = start();
    // What was there before the first delivery is told by the list.
    let (first, _) = place();
    wait_until("the list is read", &worker, || {
        placed(&log).contains_key(&first)
    });
    let url = format!("http://{listen}/");
    let mut expected = BTreeSet::from([first]);
    let (mut answered, mut silent) = (BTreeSet::new(), 0);
    for wave in 0..WAVES {
        let kill_after = random.random_range(0..ORDERS);
        for number in 0..ORDERS {
            let (order, body) = place();
            expected.insert(order);
            // One order of each wave is never announced.
            if number == ORDERS / 2 {
                silent += 1;
                continue;
            }
            let id = format!("{wave}-{number}");
            for _ in 0..random.random_range(1..3) {
                insist(&url, &id, &body, &worker);
            }
            answered.insert(id);
            if number == kill_after {
                worker.kill();
                worker = start();
            }
        }
    }
    wait_until("every order is told", &worker, || {
        let told = placed(&log);
        expected.iter().all(|order| told.contains_key(order))
    });
    let told = placed(&log);
    let twice: Vec<_> = told.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "told more than once: {twice:?}");
    assert_eq!(told.into_keys().collect::<BTreeSet<_>>(), expected);
    // Whatever was answered stands in the inbox, and nothing readable with it.
    let mut kept = BTreeSet::new();
    for event in events(&log, INBOX) {
        let Event::Delivery(delivery) = event else {
            panic!("no delivery: {event:?}")
        };
        kept.insert(delivery.delivery_id.to_string());
    }
    assert!(kept.is_superset(&answered), "kept {kept:?} of {answered:?}");
    wait_until("the gap is said", &worker, || {
        events(&log, topic::OPS_EXCEPTION).iter().any(|event| {
            let Event::BusinessException(e) = event else {
                return false;
            };
            *e.code == *"WEBHOOK_GAP"
                && e.status == ExceptionStatus::Open
                && e.occurrences == silent
        })
    });
    assert_eq!(worker.terminate(), Some(0), "an orderly end");
}
