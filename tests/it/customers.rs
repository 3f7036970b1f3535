//! Who customers are: sealed with a key for each, from a storefront into an ERP; and gone for good once the
//! key is destroyed.

use super::world::World;
use crossdock::config::Secret;
use crossdock::connectors;
use crossdock::contract::event::{CustomerChanged, CustomerStatus, Event, Outcome};
use crossdock::contract::{Catalogue, topic};
use crossdock::customers::{Erasure, LogVault, erase};
use crossdock::domain::Timestamp;
use crossdock::log::Log;
use crossdock::pipeline::{
    Address, Code, Connector, Fake, FakeOptions, Person, Record, Vault as _, Verdict,
};
use crossdock::runtime::{Progress, SinkTask, SourceTask, TaskSettings};
use rand::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const KEY: &str = "the master key of this year";
const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const CANARY: &str = "canary";

fn vault(world: &World, keys: &[&str]) -> LogVault {
    let keys: Vec<Secret> = keys.iter().map(|k| Secret::of(*k)).collect();
    let log: Arc<dyn Log> = Arc::new(world.log.clone());
    LogVault::new(log, world.cold_codec(), &keys).unwrap_or_else(|e| panic!("{e:?}"))
}

fn person(n: u64) -> Person {
    Person {
        email: Some(format!("{CANARY}-{n}@example.org")),
        given_name: Some(format!("{CANARY}{n}")),
        address: Some(Address {
            street: format!("{CANARY} street {n}"),
            country: "DE".into(),
            ..Address::default()
        }),
        ..Person::default()
    }
}

fn event(customer: &str) -> CustomerChanged {
    CustomerChanged {
        channel_id: "web".into(),
        customer_id: customer.into(),
        customer_version: 1,
        status: CustomerStatus::Active,
        ..CustomerChanged::default()
    }
}

fn erasure(customer: &str) -> Erasure {
    Erasure {
        channel: "web".into(),
        customer: customer.into(),
        actor: "anna".into(),
        reason: Some("asked for".into()),
    }
}

/// Every record of every topic.
fn everything(world: &World) -> Vec<Record> {
    let log: Arc<dyn Log> = Arc::new(world.log.clone());
    let topics = log.admin().topics().expect("listed");
    topics.iter().flat_map(|t| world.records(&t.name)).collect()
}

fn leaks(world: &World) -> bool {
    let has = |bytes: &[u8]| bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes());
    everything(world).iter().any(|record| {
        let parts = [record.key.as_deref(), record.value.as_deref()];
        let headers = record.headers.iter().filter_map(|(_, value)| value);
        parts.into_iter().flatten().chain(headers).any(has)
    })
}

#[test]
fn a_person_is_read_by_whoever_has_the_keys_and_by_nobody_after_the_erasure() {
    let world = World::new();
    let ours = vault(&world, &[KEY]);
    let (mut one, mut two) = (event("1"), event("2"));
    assert!(ours.seal(&person(1), &mut one).expect("sealed"));
    assert!(ours.seal(&person(2), &mut two).expect("sealed"));
    let mut again = event("1");
    assert!(ours.seal(&person(1), &mut again).expect("sealed"));
    assert_eq!(one, again, "told again it is the same fact");
    assert_ne!(one.key_id, two.key_id);

    // Another process, after the master key was replaced.
    let theirs = vault(&world, &["the master key of next year", KEY]);
    assert_eq!(theirs.open(&one).expect("opened"), Some(person(1)));
    let mut swapped = two.clone();
    swapped.email = one.email.clone();
    let refused = theirs.open(&swapped).expect_err("another's data");
    assert_eq!(refused.code, Code::Malformed);
    let stranger = vault(&world, &["a key that opens nothing"]);
    let refused = stranger.open(&one).expect_err("no key");
    assert_eq!(refused.verdict, Verdict::Halt, "{refused}");

    let log: Arc<dyn Log> = Arc::new(world.log.clone());
    let done = erase(&log, &world.cold_codec(), &erasure("1"), NOW).expect("erased");
    assert_eq!((done.keys, done.before), (1, false));
    for vault in [&ours, &theirs] {
        assert_eq!(vault.open(&one).expect("settled"), None);
        assert!(!vault.seal(&person(1), &mut event("1")).expect("settled"));
        assert_eq!(vault.open(&two).expect("a neighbour"), Some(person(2)));
    }
    let done = erase(&log, &world.cold_codec(), &erasure("1"), NOW).expect("erased");
    assert_eq!((done.keys, done.before), (0, true));
    let audits = world.events(topic::OPS_AUDIT);
    assert!(
        audits
            .iter()
            .any(|e| matches!(e, Event::Audit(a) if a.actor == "anna" && a.action == "ERASE"))
    );
    assert!(!leaks(&world));
}

/// Vaults of several processes seal and one erases, in whatever order their threads happen to go: no key of the person is left, and nothing of it is readable by anybody.
#[test]
fn whoever_makes_a_key_while_the_person_is_erased_no_key_is_left() {
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let world = World::new();
        let log: Arc<dyn Log> = Arc::new(world.log.clone());
        let vaults: Vec<Arc<LogVault>> = (0..3).map(|_| Arc::new(vault(&world, &[KEY]))).collect();
        let mut threads = Vec::new();
        for vault in &vaults {
            let vault = vault.clone();
            let waits = random.random_range(0..400u32);
            threads.push(std::thread::spawn(move || {
                // Chance alone orders the threads; this only widens it.
                (0..waits).for_each(|_| std::thread::yield_now());
                let mut sealed = event("1");
                vault
                    .seal(&person(1), &mut sealed)
                    .map(|told| (told, sealed))
            }));
        }
        let waits = random.random_range(0..400u32);
        (0..waits).for_each(|_| std::thread::yield_now());
        erase(&log, &world.cold_codec(), &erasure("1"), NOW).expect("erased");
        for thread in threads {
            let (told, sealed) = thread.join().expect("whole").expect("settled");
            if told {
                let left = vaults[0].open(&sealed).expect("settled");
                assert_eq!(left, None, "seed {seed}");
            }
        }
        // Whoever reads next sweeps; then the newest record of every key has no key in it.
        let _ = vaults[1]
            .seal(&person(1), &mut event("1"))
            .expect("settled");
        let mut newest = std::collections::BTreeMap::new();
        for event in world.events(topic::CUSTOMER_KEY) {
            if let Event::CustomerKey(key) = event {
                newest.insert(key.key_id.clone(), key.wrapped.is_some());
            }
        }
        assert!(newest.values().all(|live| !live), "seed {seed}: {newest:?}");
    }
}

struct Flow {
    world: World,
    shop: Box<dyn Fake>,
    erp: Box<dyn Fake>,
    source: SourceTask,
    sink: SinkTask,
}

async fn stand_in(kind: &str) -> (Box<dyn Fake>, Value) {
    let start = connectors::find(kind)
        .expect("a kind")
        .fake
        .expect("a stand-in");
    let fake = start(FakeOptions {
        skus: vec!["A".to_owned()],
        ..FakeOptions::default()
    });
    let fake = fake.await.expect("started");
    let mut settings = fake.settings();
    settings["customers"] = json!(true);
    (fake, settings)
}

impl Flow {
    async fn between(shop_kind: &str) -> Flow {
        let world = World::new();
        let (shop, shop_settings) = stand_in(shop_kind).await;
        let (erp, erp_settings) = stand_in("tryton").await;
        let vault = Arc::new(vault(&world, &[KEY]));
        let made = |kind: &str, name: &str, settings: Value| -> Arc<dyn Connector> {
            let descriptor = connectors::find(kind).expect("a kind");
            let connector = (descriptor.build)(name, settings).expect("built");
            assert!(connector.knows_customers());
            connector.entrust(vault.clone());
            connector
        };
        let settings = || {
            let mut settings = TaskSettings::new("slot-0", 0);
            settings.static_membership = false;
            settings
        };
        let source = SourceTask::new(
            super::world::SOURCE,
            made(shop_kind, super::world::SOURCE, shop_settings)
                .source()
                .expect("a source"),
            world.port(),
            world.clock.clone(),
            world.cold_codec(),
            Catalogue::compiled(),
            world.telemetry.clone(),
            settings(),
        );
        let sink = SinkTask::new(
            super::world::SINK,
            connectors::find("tryton").expect("a kind").accepts,
            made("tryton", super::world::SINK, erp_settings)
                .sink()
                .expect("a sink"),
            world.port(),
            world.clock.clone(),
            world.cold_codec(),
            Catalogue::compiled(),
            world.telemetry.clone(),
            settings(),
        );
        Flow {
            source: source.expect("a source task"),
            sink: sink.expect("a sink task"),
            world,
            shop,
            erp,
        }
    }

    fn registers(&self, id: &str, family: &str) {
        let act = json!({"customer": id, "given": CANARY, "family": family, "street": format!("{CANARY} 1"),
            "email": format!("{CANARY}@example.org"), "phone": "+49 30 1234", "city": "Berlin"});
        self.shop.act(&act).expect("registered");
    }

    /// The shop tells what it has to tell.
    async fn tell(&mut self) {
        for _ in 0..60 {
            self.world.advance(Duration::from_millis(100));
            let _ = self.source.step().await.expect("read");
        }
    }

    /// Both work until neither has anything to do.
    async fn settle(&mut self) {
        self.tell().await;
        let mut quiet = 0;
        let patience = std::time::Instant::now() + Duration::from_secs(60);
        while std::time::Instant::now() < patience {
            // A call under way takes the time of the machine, not of the clock.
            if self.sink.is_calling() {
                tokio::task::yield_now().await;
            } else {
                self.world.advance(Duration::from_millis(100));
            }
            let sent = self.sink.step(Duration::ZERO).await.expect("written");
            let busy = matches!(sent, Progress::Worked(n) if n > 0) || !self.sink.is_quiet();
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet == 60 {
                return;
            }
        }
        panic!("the sink never rests");
    }

    fn party(&self, id: &str) -> Value {
        self.erp.act(&json!({"party": id})).expect("looked at")
    }
}

#[tokio::test]
async fn customers_of_a_shop_become_parties_and_are_forgotten_when_they_are_erased() {
    for kind in ["vendure", "medusa"] {
        let mut flow = Flow::between(kind).await;
        flow.registers("7", "Miller");
        flow.registers("8", "Smith");
        flow.settle().await;
        let party = flow.party("7");
        assert_eq!(party["name"], format!("{CANARY} Miller"), "{kind}");
        assert_eq!(party["city"], "Berlin", "{kind}");
        assert_eq!(
            party["contacts"].as_array().map(Vec::len),
            Some(2),
            "{kind}"
        );
        flow.registers("7", "Jones");
        flow.settle().await;
        assert_eq!(flow.party("7")["name"], format!("{CANARY} Jones"), "{kind}");
        let calls = flow.erp.calls_taken();
        flow.settle().await;
        assert_eq!(
            flow.erp.calls_taken(),
            calls,
            "{kind}: nothing new, and a call was made"
        );

        // Told once more, and erased before the ERP hears of it.
        flow.registers("7", "Young");
        flow.tell().await;
        let log: Arc<dyn Log> = Arc::new(flow.world.log.clone());
        erase(&log, &flow.world.cold_codec(), &erasure("7"), NOW).expect("erased");
        flow.settle().await;
        let party = flow.party("7");
        assert_eq!(party["name"], "7", "{kind}");
        assert_eq!(
            (&party["street"], &party["city"]),
            (&Value::Null, &Value::Null),
            "{kind}"
        );
        assert_eq!(party["contacts"], json!([]), "{kind}");
        assert_eq!(
            flow.party("8")["name"],
            format!("{CANARY} Smith"),
            "{kind}: a neighbour"
        );

        // The shop still has the account: nobody tells of it again.
        flow.registers("7", "Back");
        flow.settle().await;
        assert_eq!(flow.party("7")["name"], "7", "{kind}");
        assert!(!leaks(&flow.world), "{kind}: readable in the log");
        let log: Arc<dyn Log> = Arc::new(flow.world.log.clone());
        let topics = log.admin().topics().expect("listed");
        let letters = topics.iter().filter(|t| t.name.ends_with(".dlq.v1"));
        let dead: Vec<Event> = letters.flat_map(|t| flow.world.events(&t.name)).collect();
        assert!(dead.is_empty(), "{kind}: {dead:?}");
    }
}

/// What came to be unreadable before it was written is settled by name and blocks nobody.
#[tokio::test]
async fn a_record_of_an_erased_person_is_superseded_by_name() {
    let mut flow = Flow::between("vendure").await;
    flow.registers("7", "Miller");
    flow.registers("8", "Smith");
    flow.tell().await;
    let log: Arc<dyn Log> = Arc::new(flow.world.log.clone());
    // Only the key goes: what tells the systems is still on its way.
    LogVault::without_keys(log, flow.world.cold_codec())
        .forget("web", "7", NOW)
        .expect("forgotten");
    flow.settle().await;
    assert_eq!(flow.party("7"), Value::Null);
    assert_eq!(flow.party("8")["name"], format!("{CANARY} Smith"));
    let named = flow
        .world
        .events(topic::OPS_DISPOSITION)
        .into_iter()
        .any(|e| match e {
            Event::DispositionRecord(d) => {
                format!("{d:?}").contains("the person was erased")
                    && format!("{d:?}").contains(&format!("{:?}", Outcome::Superseded))
            }
            _ => false,
        });
    assert!(named, "the outcome has no name");
}
