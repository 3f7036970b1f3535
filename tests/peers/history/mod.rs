//! A history of transactions through faults, as Jepsen takes it: clients write facts in transactions and
//! take some back, readers look on, processors make levels of what is there, while brokers are killed and
//! stopped, connections are cut, hold still and lose the end of a transaction, and processors are killed.

mod check;

use crate::facts::{SESSION, change, codec, last_values, now_ms, quiet};
use crate::kafka::Kafka;
use crate::proxy::{AtEndTxn, Network, Way};
use crate::worker::{POLL, Worker, succeed};
use check::{Ending, Seen, Transaction, check};
use crossdock::contract::event::Event;
use crossdock::contract::topic;
use crossdock::domain::{Decimal, compound_key};
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use crossdock::log::{
    Isolation, Log, LogError, Offset, Outgoing, Producer, ProducerSpec, TopicPartition,
};
use crossdock::pipeline::{Headers, Record};
use rand::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: usize = 4;
const TRANSACTIONS: usize = 60;
const READERS: usize = 2;
const KEYS: usize = 7;
/// A killed broker goes through all of its indices when it returns.
const BROKER_PROPERTIES: &str = "log.index.size.max.bytes=262144";
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_history_of_transactions_through_faults_has_no_anomaly() {
    let seed: u64 = std::env::var("CROSSDOCK_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(20_261_126);
    let _alone = crate::alone();
    let network = Network::new(3);
    let ports: Vec<u16> = network.proxies.iter().map(|p| p.port).collect();
    let Some(kafka) = Kafka::behind_proxies(&ports, BROKER_PROPERTIES) else {
        return;
    };
    network.lead_to(&kafka.behind());
    succeed(&kafka.bootstrap, &["topics", "apply", "--tier", "S"]);
    succeed(&kafka.bootstrap, &["schemas", "register"]);
    let connect = |to: String| -> Arc<dyn Log> {
        Arc::new(KafkaLog::connect(KafkaSettings::plain(to)).expect("connected"))
    };
    let (direct, by_proxy) = (
        connect(kafka.bootstrap.clone()),
        connect(network.bootstrap()),
    );
    let is_over = AtomicBool::new(false);
    let (transactions, readers) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (log, direct) = (&by_proxy, &direct);
                scope.spawn(move || write(log, direct, client, seed))
            })
            .collect();
        let readers: Vec<_> = (0..READERS)
            .map(|_| scope.spawn(|| look_on(by_proxy.as_ref(), &direct, &is_over)))
            .collect();
        let faults = scope.spawn(|| disturb(&kafka, &network, seed, &is_over));
        let transactions: Vec<_> = clients
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        is_over.store(true, Ordering::SeqCst);
        faults.join().expect("faults are made");
        let readers: Vec<_> = readers
            .into_iter()
            .map(|r| r.join().expect("a reader"))
            .collect();
        let transactions = transactions.into_iter().flat_map(|t| t.expect("a client"));
        (transactions.collect::<Vec<Transaction>>(), readers)
    });
    quiet(&kafka, PATIENCE);
    let mut end = Vec::new();
    let codec = codec(&direct);
    crossdock::verify::read_topic(direct.as_ref(), topic::STOCK_CHANGE, |record| {
        end.push(seen(&codec, record));
    })
    .expect("read");
    let count = |ending| transactions.iter().filter(|t| t.ending == ending).count();
    println!(
        "{} committed, {} taken back, {} unanswered; {} facts are there",
        count(Ending::Committed),
        count(Ending::Aborted),
        count(Ending::Unknown),
        end.len()
    );
    assert!(
        count(Ending::Committed) > 0 && count(Ending::Aborted) > 0,
        "seed {seed}"
    );
    assert_eq!(check(&transactions, &readers, &end), [], "seed {seed}");
    levels_are_those_of(&direct, &end, seed);
    println!("{}", succeed(&kafka.bootstrap, &["verify"]));
}

/// What a client did: transactions of a few facts each, some of which are taken back. After whatever goes
/// wrong it begins with a new producer of the same name, which ends what the one before has left open.
fn write(log: &Arc<dyn Log>, direct: &Arc<dyn Log>, client: usize, seed: u64) -> Vec<Transaction> {
    let mut random = StdRng::seed_from_u64(seed + client as u64);
    let codec = codec(direct);
    let spec = ProducerSpec {
        transactional_id: Some(format!("history-{client}")),
        ..ProducerSpec::default()
    };
    let mut producer: Option<Box<dyn Producer>> = None;
    let mut made: Vec<Transaction> = Vec::new();
    let mut position = 0;
    while made.len() < TRANSACTIONS {
        let deadline = Instant::now() + PATIENCE;
        while producer.is_none() {
            producer = log.producer(&spec).ok();
            assert!(
                Instant::now() < deadline,
                "seed {seed}: client {client} finds no log"
            );
        }
        let producer_now = producer.as_mut().expect("there is one");
        let mut writes = Vec::new();
        let mut values = Vec::new();
        for _ in 0..random.random_range(1..6) {
            position += 1;
            let value = position * CLIENTS as i64 + client as i64;
            let (sku, location) = (format!("H-{}", random.random_range(0..KEYS)), "L");
            let mut bytes = Vec::new();
            codec
                .encode(
                    topic::STOCK_CHANGE,
                    &change(&sku, location, value, -1).into(),
                    &mut bytes,
                )
                .expect("encoded");
            writes.push((compound_key(&[&sku, location]).to_string(), value));
            values.push(bytes);
        }
        let is_taken_back = random.random_bool(0.2);
        let ending = attempt(producer_now.as_mut(), &writes, &values, is_taken_back);
        if !matches!(ending, (_, Ok(()))) {
            producer = None;
        }
        made.push(Transaction {
            client,
            writes,
            ending: ending.0,
        });
    }
    // Whatever is open is ended by the next producer of the name.
    let deadline = Instant::now() + PATIENCE;
    while log.producer(&spec).is_err() {
        assert!(
            Instant::now() < deadline,
            "seed {seed}: client {client} finds no log"
        );
    }
    made
}

/// One transaction, and whether its producer can go on.
fn attempt(
    producer: &mut dyn Producer,
    writes: &[(String, i64)],
    values: &[Vec<u8>],
    is_taken_back: bool,
) -> (Ending, Result<(), LogError>) {
    let headers = Headers::default();
    let written = producer.begin().and_then(|()| {
        for ((key, _), value) in writes.iter().zip(values) {
            producer.send(Outgoing {
                topic: topic::STOCK_CHANGE,
                partition: None,
                key: Some(key.as_bytes()),
                value: Some(value),
                headers: &headers,
                timestamp_ms: now_ms(),
            })?;
        }
        Ok(())
    });
    match written {
        Err(error) => (Ending::Aborted, Err(error)),
        Ok(()) if is_taken_back => (Ending::Aborted, producer.abort()),
        Ok(()) => match producer.commit() {
            Ok(()) => (Ending::Committed, Ok(())),
            Err(error) => (Ending::Unknown, Err(error)),
        },
    }
}

/// What a reader sees while it comes about.
fn look_on(log: &dyn Log, direct: &Arc<dyn Log>, is_over: &AtomicBool) -> Vec<Seen> {
    let codec = codec(direct);
    let count = direct
        .admin()
        .partitions(topic::STOCK_CHANGE)
        .expect("partitions");
    let all: Vec<_> = (0..count.expect("the topic"))
        .map(|p| {
            (
                TopicPartition::new(topic::STOCK_CHANGE, p),
                Offset::Beginning,
            )
        })
        .collect();
    let mut found = Vec::new();
    let mut records = Vec::new();
    let mut reader = None;
    while !is_over.load(Ordering::SeqCst) {
        if reader.is_none() {
            reader = log.reader(&all, Isolation::ReadCommitted).ok();
        }
        let polled = reader
            .as_mut()
            .map(|r| r.poll(100, Duration::from_millis(100), &mut records));
        found.extend(records.drain(..).map(|record| seen(&codec, &record)));
        if matches!(polled, Some(Err(_))) {
            reader = None;
        }
    }
    found
}

fn seen(codec: &crossdock::codec::Codec, record: &Record) -> Seen {
    let Ok(Event::StockChanged(fact)) = codec.decode(record) else {
        panic!("not a change at {}", record.origin)
    };
    Seen {
        partition: record.origin.partition,
        offset: record.origin.offset,
        key: String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned(),
        value: fact.meta.source_position,
    }
}

/// Faults one after the other, until everything is written.
fn disturb(kafka: &Kafka, network: &Network, seed: u64, is_over: &AtomicBool) {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |name: &str| {
        let arguments = ["run", "stock-ledger", "--session-timeout-ms", SESSION];
        Worker::start(&network.bootstrap(), folder.path(), name, &arguments)
    };
    let names = ["one", "two"];
    let mut workers = names.map(start);
    let mut random = StdRng::seed_from_u64(seed);
    let over = || is_over.load(Ordering::SeqCst);
    // The time that a fault lasts.
    let pass = |ms: u64| {
        let until = Instant::now() + Duration::from_millis(ms);
        while Instant::now() < until && !over() {
            std::thread::sleep(POLL);
        }
    };
    while !over() {
        let broker = random.random_range(0..network.proxies.len());
        let (node, proxy) = ((broker + 1).to_string(), &network.proxies[broker]);
        match random.random_range(0..8) {
            0 => {
                kafka.control(&["kill", &node]);
                kafka.control(&["restart", &node]);
            }
            1 => {
                kafka.control(&["stop", &node]);
                pass(2_000);
                kafka.control(&["cont", &node]);
            }
            2 => proxy.cut(),
            3 => {
                proxy.set(Way::HalfOpen);
                pass(random.random_range(500..4_000));
                proxy.set(Way::Open);
            }
            4 => {
                let index = random.random_range(0..workers.len());
                workers[index].kill();
                workers[index] = start(names[index]);
            }
            5 => drop(proxy.arm(AtEndTxn::CutBefore)),
            6 => drop(proxy.arm(AtEndTxn::CutAfter)),
            _ => drop(proxy.arm(AtEndTxn::Late(Duration::from_millis(
                random.random_range(100..4_000),
            )))),
        }
        pass(300);
        // One that found no broker when it began is started again.
        for (worker, name) in workers.iter_mut().zip(names) {
            if worker.ended().is_some() {
                *worker = start(name);
            }
        }
    }
    network.open();
    for (worker, name) in workers.iter_mut().zip(names) {
        if worker.ended().is_some() {
            *worker = start(name);
        }
        worker.wait_for("/health/ready", 200);
    }
    quiet(kafka, PATIENCE);
    for worker in workers {
        assert_eq!(worker.terminate(), Some(0), "an orderly end");
    }
}

/// Each fact brings one unit in.
fn levels_are_those_of(log: &Arc<dyn Log>, end: &[Seen], seed: u64) {
    let mut expected: BTreeMap<String, Decimal> = BTreeMap::new();
    for seen in end {
        *expected.entry(seen.key.clone()).or_default() += Decimal::ONE;
    }
    let codec = codec(log);
    let levels = last_values(log.as_ref(), topic::STOCK_LEVEL);
    let found = levels
        .iter()
        .map(|(key, record)| match codec.decode(record) {
            Ok(Event::StockLevel(level)) => (key.clone(), level.sellable),
            _ => panic!("not a level: {key}"),
        });
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected, "seed {seed}");
}
