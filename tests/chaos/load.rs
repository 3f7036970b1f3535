//! What is sent while faults are made: changes of stock, the facts of a small retailer's orders, sales of
//! tills, and webhooks of a third party that come twice and in any order.

use crate::facts::{change, now_ms};
use crate::oracle;
use crate::stage::{HUB, SECRET, SKUS, Stage, TILL, lock, sender_codec, sku};
use crossdock::codec::Codec;
use crossdock::connectors::webhook;
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::compound_key;
use crossdock::log::{Outgoing, ProducerSpec};
use crossdock::pipeline::Headers;
use crossdock::processors;
use crossdock::verify;
use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Changes of stock in a burst, and lines of the tills.
const CHANGES: usize = 400;
const LINES: usize = 60;
/// A burst begins so long after the one before has been sent. A soak sends at a tenth of the pace, so that
/// what has to be judged at the end stays small.
const PACE: Duration = Duration::from_millis(1_000);
const BURSTS_MAX_FAST: usize = 1_200;
/// The retailer's orders.
const ORDERS: usize = 40;
/// A wave of its facts is a second of business; all of it is over when it begins.
const PAST: Duration = Duration::from_secs(600);
/// How often the books are asked for: it costs what the workers need.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(300);
/// Webhooks in a burst.
const DELIVERIES: usize = 12;

/// A record to be sent.
struct Fact {
    topic: String,
    key: String,
    value: Vec<u8>,
}

/// Sends until the time is over, the retailer's last wave at least.
pub fn facts(stage: &Stage, codec: &Codec, waves: Vec<oracle::Wave>) {
    let mut random = ChaCha8Rng::seed_from_u64(stage.seed);
    let mut waves = waves.into_iter().peekable();
    let mut told: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut burst = 0;
    let mut position = 0;
    while !stage.has_failed() && (!stage.is_over() || waves.peek().is_some()) {
        let mut facts = changes(codec, &mut random, &mut position);
        let has_wave = waves.peek().is_some();
        for fact in waves.next().into_iter().flat_map(|w| w.facts) {
            if fact.topic == topic::STOCK_CHANGE {
                told.insert(fact.value.clone());
            }
            facts.push(Fact {
                topic: fact.topic,
                key: fact.key,
                value: fact.value,
            });
        }
        send(stage, &facts);
        let lines = sell(stage, &mut random, burst);
        {
            let mut sent = lock(&stage.sent);
            sent.lines += lines;
            sent.changes = position + told.len() as i64;
            sent.waves += usize::from(has_wave);
        }
        burst += 1;
        // The retailer's facts come after processors have dealt with those before them.
        if has_wave {
            let what = "what was sent is dealt with";
            stage.wait_out(what, || among_processors(stage, codec));
        } else {
            stage.pass(if burst < BURSTS_MAX_FAST {
                PACE
            } else {
                PACE * 10
            });
        }
    }
    stage.is_loaded.store(true, Ordering::SeqCst);
}

/// What is in flight among the processors.
pub fn among_processors(stage: &Stage, codec: &Codec) -> Vec<String> {
    std::thread::sleep(BETWEEN_QUESTIONS);
    let of = |p: &processors::Registered| {
        let (name, inputs) = (p.descriptor.name, p.descriptor.inputs);
        inputs
            .iter()
            .map(move |t| (name.to_owned(), (*t).to_owned()))
    };
    let readers: Vec<_> = processors::ALL.iter().flat_map(of).collect();
    let catalogue = Catalogue::compiled();
    match verify::in_flight(&stage.log, codec, catalogue, &readers) {
        Ok(all) => {
            let open = all.into_iter().filter(|(_, count)| *count != 0);
            open.map(|(name, count)| format!("{name} has {count} in flight"))
                .collect()
        }
        Err(fault) => vec![format!("the books cannot be asked for: {fault}")],
    }
}

/// What is in flight anywhere, as the command tells.
pub fn in_flight(stage: &Stage) -> Vec<String> {
    std::thread::sleep(BETWEEN_QUESTIONS);
    let output = crate::worker::run(&stage.kafka.bootstrap, &["verify", "--json"]);
    let books: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let Some(readers) = books["readers"].as_object() else {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return vec![format!("the books cannot be asked for: {said}")];
    };
    readers
        .iter()
        .filter(|(_, ledger)| ledger["in_flight"] != 0)
        .map(|(name, ledger)| format!("{name} has {} in flight", ledger["in_flight"]))
        .collect()
}

/// The facts of the oracle's retailer, and the books of its systems in the folder `ledgers`.
pub fn retailer(stage: &Stage) -> Vec<oracle::Wave> {
    let schemas = schemas(stage, stage.folder());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let begin = (now.expect("after 1970") - PAST).as_micros().to_string();
    let mut asked = oracle::command().expect("it was there");
    asked.arg("facts").arg("--schemas").arg(schemas);
    asked.arg("--ledgers").arg(stage.folder().join("ledgers"));
    let seed = (stage.seed % (1 << 31)).to_string();
    let orders = ORDERS.to_string();
    asked.args([
        "--orders", &orders, "--seed", &seed, "--begin", &begin, "--step", "1000000",
    ]);
    lock(&stage.sent).orders = ORDERS;
    oracle::waves(&oracle::said(asked))
}

/// The records of the registry's topic, a line each.
fn schemas(stage: &Stage, folder: &Path) -> std::path::PathBuf {
    let mut lines = Vec::new();
    let read = verify::read_topic(stage.log.as_ref(), "retail.rt.registry.v1", |record| {
        lines.extend(record.value.as_deref().unwrap_or_default());
        lines.push(b'\n');
    });
    read.expect("read");
    let path = folder.join("schemas.jsonl");
    std::fs::write(&path, lines).expect("written");
    path
}

/// The codec of what is sent, which has looked up in the log what it needs.
pub fn codec(stage: &Stage) -> Codec {
    let codec = sender_codec(stage);
    changes(&codec, &mut ChaCha8Rng::seed_from_u64(stage.seed), &mut 0);
    codec
}

/// Changes of stock, a tenth of them twice, out of order.
fn changes(codec: &Codec, random: &mut ChaCha8Rng, position: &mut i64) -> Vec<Fact> {
    let mut facts: Vec<Fact> = Vec::new();
    let mut again = Vec::new();
    for _ in 0..CHANGES {
        *position += 1;
        let name = format!("SKU-{}", (random.random::<f64>().powi(3) * 500.0) as u32);
        let location = format!("L{}", random.random_range(0..5));
        let quantity = random.random_range(1..9) * if random.random_bool(0.5) { 1 } else { -1 };
        let mut value = Vec::new();
        let event = change(&name, &location, *position, quantity);
        codec
            .encode(topic::STOCK_CHANGE, &event.into(), &mut value)
            .expect("encoded");
        let fact = || Fact {
            topic: topic::STOCK_CHANGE.to_owned(),
            key: compound_key(&[&name, &location]).to_string(),
            value: value.clone(),
        };
        if random.random_bool(0.1) {
            again.push(fact());
        }
        facts.push(fact());
    }
    facts.extend(again);
    facts.shuffle(random);
    facts
}

/// Sends until all of it is acknowledged: again from the beginning when something was not.
fn send(stage: &Stage, facts: &[Fact]) {
    let headers = Headers::default();
    let all = || {
        let mut producer = stage.log.producer(&ProducerSpec::default())?;
        for fact in facts {
            let record = Outgoing {
                topic: &fact.topic,
                partition: None,
                key: Some(fact.key.as_bytes()),
                value: Some(&fact.value),
                headers: &headers,
                timestamp_ms: now_ms(),
            };
            while let Err(error) = producer.send(record) {
                if !matches!(error, crossdock::log::LogError::QueueFull) {
                    return Err(error);
                }
                producer.poll(Duration::from_millis(10));
            }
        }
        producer.flush()
    };
    stage.wait("facts are acknowledged", || all().is_ok());
}

/// A file of the tills appears, whole. Gives the number of its lines.
fn sell(stage: &Stage, random: &mut ChaCha8Rng, burst: usize) -> u64 {
    let mut text = String::from("sku,quantity,time,document\n");
    let mut sold = Vec::new();
    for line in 0..LINES {
        let name = sku(random.random_range(0..SKUS));
        // A return puts units back, so most of what happens here fills the shelves.
        let quantity: i64 = random.random_range(-9..3);
        if quantity != 0 {
            text += &format!("{name},{quantity},2026-01-01 10:00:00,{burst}-{line}\n");
            sold.push((name, -quantity));
        }
    }
    let unfinished = stage.folder().join("unfinished");
    std::fs::write(&unfinished, text).expect("written");
    let name = format!("{burst:06}.csv");
    std::fs::rename(&unfinished, stage.journal().join(name)).expect("moved");
    let mut sent = lock(&stage.sent);
    let count = sold.len() as u64;
    for (name, units) in sold {
        *sent.units.entry((TILL, name)).or_default() += units;
    }
    count
}

/// Webhooks of a third party: in any order, a third of them again, each until it was taken.
pub fn deliveries(stage: &Stage) {
    let mut random = ChaCha8Rng::seed_from_u64(stage.seed);
    random.set_stream(1);
    let client = reqwest::blocking::Client::builder()
        .timeout(Duration::from_secs(5))
        .build()
        .expect("a client");
    let url = format!("http://{}/third", stage.hooks);
    let mut number = 0;
    let mut waiting: Vec<String> = Vec::new();
    let mut taken: Vec<String> = Vec::new();
    while !stage.has_failed() && (!stage.is_over() || !waiting.is_empty()) {
        if !stage.is_over() {
            for _ in 0..DELIVERIES {
                number += 1;
                waiting.push(delivery(stage, &mut random, number));
            }
            // What was taken long ago comes once more, too.
            waiting.extend(taken.sample(&mut random, DELIVERIES / 3).cloned());
            waiting.shuffle(&mut random);
        }
        waiting.retain(|body| {
            let request = client.post(&url).body(body.clone());
            let signature = webhook::sign(SECRET, body.as_bytes());
            let answer = request.header("x-signature", signature).send();
            let is_taken = answer.is_ok_and(|a| a.status().is_success());
            if is_taken {
                taken.push(body.clone());
            }
            !is_taken
        });
        let mut sent = lock(&stage.sent);
        sent.deliveries = taken.len() as u64;
        sent.repeated = sent.deliveries.saturating_sub(number);
        drop(sent);
        stage.pass(PACE);
    }
    assert!(waiting.is_empty() || stage.has_failed());
}

/// A message with one to three movements of goods.
fn delivery(stage: &Stage, random: &mut ChaCha8Rng, number: u64) -> String {
    let mut sent = lock(&stage.sent);
    let moves: Vec<_> = (0..random.random_range(1..4))
        .map(|index| {
            let name = sku(random.random_range(0..SKUS));
            let quantity: i64 = random.random_range(1..6);
            let is_broken = random.random_bool(0.2);
            let units = if is_broken { -1 } else { quantity };
            *sent.units.entry((HUB, name.clone())).or_default() += units;
            sent.moves += 1;
            json!({"number": format!("M{number}-{index}"), "article": name, "quantity": units.abs(),
                "kind": if is_broken { "broken" } else { "in" }})
        })
        .collect();
    json!({"message": format!("D{number}"), "at": "2026-01-01T10:00:00Z", "moves": moves})
        .to_string()
}
