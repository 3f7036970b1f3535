//! Records that can never succeed, on a real Kafka: each becomes one dead letter with its own code
//! and its original bytes, and the record behind it is processed.

use crate::facts::{SESSION, change, codec, last_values, prepare, quiet, send_raw};
use crate::kafka::Kafka;
use crate::worker::{Worker, run};
use crossdock::codec::Codec;
use crossdock::contract::event::*;
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::Decimal;
use crossdock::log::{GroupProtocol, GroupSpec, Isolation, Log, Offsets, TopicPartition};
use crossdock::pipeline::Code;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Poison {
    topic: &'static str,
    key: Option<&'static [u8]>,
    value: Option<Vec<u8>>,
    code: Code,
}

fn poison(codec: &Codec) -> Vec<Poison> {
    const KEY: &[u8] = b"A|dc";
    let framed = |topic: &str, event: Event| {
        let mut value = Vec::new();
        codec.encode(topic, &event, &mut value).expect("encoded");
        value
    };
    let fact = || change("A", "dc", 9, 1);
    let good = framed(topic::STOCK_CHANGE, fact().into());
    let mut all = Vec::new();
    let mut add =
        |topic: &'static str, key: Option<&'static [u8]>, value: Option<Vec<u8>>, code: Code| {
            all.push(Poison {
                topic,
                key,
                value,
                code,
            });
        };
    // The frame and the body.
    let changed = |at: usize, bytes: &[u8]| {
        let mut value = good.clone();
        value[at..at + bytes.len()].copy_from_slice(bytes);
        Some(value)
    };
    let change_topic = topic::STOCK_CHANGE;
    add(change_topic, Some(KEY), None, Code::EmptyValue);
    add(change_topic, Some(KEY), Some(vec![]), Code::EmptyValue);
    add(change_topic, Some(KEY), changed(0, &[7]), Code::BadMagic);
    let unknown = changed(1, &999_999u32.to_be_bytes());
    add(change_topic, Some(KEY), unknown, Code::UnknownSchemaId);
    let half = good[..good.len() / 2].to_vec();
    add(change_topic, Some(KEY), Some(half), Code::Truncated);
    add(change_topic, Some(KEY), Some(vec![0, 0]), Code::Truncated);
    let trailing = [good.as_slice(), b"x"].concat();
    add(change_topic, Some(KEY), Some(trailing), Code::TrailingBytes);
    let channel = Channel {
        meta: fact().meta,
        channel_id: "web".into(),
        ..Channel::default()
    };
    let foreign = framed(topic::CHANNEL_CHANGE, channel.into());
    add(change_topic, Some(KEY), Some(foreign), Code::WrongContract);
    // What the broker takes, compressed, and the topic should not hold.
    let limit = Catalogue::compiled().max_message_bytes(change_topic);
    add(
        change_topic,
        Some(KEY),
        Some(vec![b'x'; limit + 1]),
        Code::Oversize,
    );
    // The key.
    add(change_topic, None, Some(good.clone()), Code::NullKey);
    add(
        change_topic,
        Some(b"B|dc"),
        Some(good.clone()),
        Code::WrongKey,
    );
    add(
        change_topic,
        Some(b"\xff\xfe"),
        Some(good.clone()),
        Code::WrongKey,
    );
    // The values, by the rules of the domain.
    let mut fact_with = |code, edit: &dyn Fn(&mut StockChanged)| {
        let mut fact = fact();
        edit(&mut fact);
        add(
            change_topic,
            Some(KEY),
            Some(framed(change_topic, fact.into())),
            code,
        );
    };
    let quality = Code::DataQuality;
    fact_with(quality, &|f| f.qty = Decimal::ZERO);
    fact_with(quality, &|f| f.qty = Decimal::from(-1));
    fact_with(quality, &|f| f.to_state = f.from_state);
    fact_with(quality, &|f| f.gtin = Some("4006381333932".into()));
    fact_with(quality, &|f| f.gln = Some("4012345000001".into()));
    fact_with(quality, &|f| f.meta.occurred_at.0 += 3_600_000_000);
    fact_with(Code::UnknownSymbol, &|f| f.from_state = StockState::Unknown);
    fact_with(Code::UnknownSymbol, &|f| f.to_state = StockState::Unknown);
    let snapshot = StockSnapshot {
        meta: fact().meta,
        snapshot_id: "count".into(),
        sku: "A".into(),
        location_id: "dc".into(),
        basis: SnapshotBasis::OnHand,
        ..StockSnapshot::default()
    };
    let mut count_with = |code, edit: &dyn Fn(&mut StockSnapshot)| {
        let mut count = snapshot.clone();
        edit(&mut count);
        let value = framed(topic::STOCK_SNAPSHOT, count.into());
        add(topic::STOCK_SNAPSHOT, Some(KEY), Some(value), code);
    };
    count_with(Code::UnknownSymbol, &|c| c.basis = SnapshotBasis::Unknown);
    count_with(quality, &|c| c.damaged = Some(Decimal::from(-1)));
    let policy = StockPolicy {
        meta: fact().meta,
        sku: "A".into(),
        location_id: "dc".into(),
        policy_version: 1,
        oversell: OversellPolicy::Block,
        ..StockPolicy::default()
    };
    let mut policy_with = |code, edit: &dyn Fn(&mut StockPolicy)| {
        let mut changed = policy.clone();
        edit(&mut changed);
        let value = framed(topic::STOCK_POLICY, changed.into());
        add(topic::STOCK_POLICY, Some(KEY), Some(value), code);
    };
    policy_with(Code::UnknownSymbol, &|p| {
        p.oversell = OversellPolicy::Unknown
    });
    policy_with(quality, &|p| p.safety_stock = Decimal::from(-1));
    let hold = ReservationCommand {
        meta: fact().meta,
        reservation_id: uuid::Uuid::from_u128(7),
        action: ReservationAction::Hold,
        mode: ReservationMode::Strict,
        order_id: "o1".into(),
        order_line_id: "1".into(),
        sku: "A".into(),
        location_id: "dc".into(),
        channel_id: "web".into(),
        qty: Decimal::ONE,
        ..ReservationCommand::default()
    };
    let mut hold_with = |code, edit: &dyn Fn(&mut ReservationCommand)| {
        let mut changed = hold.clone();
        edit(&mut changed);
        let value = framed(topic::RESERVATION_COMMAND, changed.into());
        add(topic::RESERVATION_COMMAND, Some(KEY), Some(value), code);
    };
    hold_with(Code::UnknownSymbol, &|h| {
        h.action = ReservationAction::Unknown
    });
    hold_with(Code::UnknownSymbol, &|h| h.mode = ReservationMode::Unknown);
    hold_with(quality, &|h| h.qty = Decimal::ZERO);
    all
}

#[test]
fn each_poisoned_record_becomes_one_dead_letter_and_the_next_is_processed() {
    let Some(kafka) = Kafka::find(1) else { return };
    let log = prepare(&kafka);
    let codec = codec(&log);
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = ["run", "stock-ledger", "--session-timeout-ms", SESSION];
    let worker = Worker::start(&kafka.bootstrap, folder.path(), "one", &arguments);
    let poison = poison(&codec);
    let mut good = 0;
    for p in &poison {
        send_raw(&log, p.topic, p.key, p.value.as_deref());
        good += 1;
        let mut value = Vec::new();
        let fact = change("A", "dc", 1_000 + good, -1);
        codec
            .encode(topic::STOCK_CHANGE, &fact.into(), &mut value)
            .expect("encoded");
        send_raw(&log, topic::STOCK_CHANGE, Some(b"A|dc"), Some(&value));
    }
    quiet(&kafka, Duration::from_secs(60));

    /// Key, value and code of a dead letter.
    type Letter = (Option<Vec<u8>>, Option<Vec<u8>>, String);
    let mut found: Vec<Letter> = Vec::new();
    crossdock::verify::read_topic(log.as_ref(), "retail.rt.stock-ledger.dlq.v1", |record| {
        let Ok(Event::DeadLetter(letter)) = codec.decode(record) else {
            panic!("not a dead letter at {}", record.origin)
        };
        found.push((
            letter.key.map(|k| k.0.to_vec()),
            letter.value.map(|v| v.0.to_vec()),
            letter.code.to_string(),
        ));
    })
    .expect("read");
    let mut expected: Vec<_> = poison
        .iter()
        .map(|p| {
            (
                p.key.map(<[u8]>::to_vec),
                p.value.clone(),
                p.code.as_str().to_owned(),
            )
        })
        .collect();
    found.sort();
    expected.sort();
    let codes =
        |all: &[Letter]| -> Vec<String> { all.iter().map(|(_, _, code)| code.clone()).collect() };
    assert_eq!(codes(&found), codes(&expected));
    assert!(
        found == expected,
        "keys and values are those that were sent"
    );
    println!("{} poisoned records, {} codes", poison.len(), {
        let mut codes = codes(&found);
        codes.sort();
        codes.dedup();
        codes.len()
    });
    let levels = last_values(log.as_ref(), topic::STOCK_LEVEL);
    let Ok(Event::StockLevel(level)) = codec.decode(&levels["A|dc"]) else {
        panic!("no level")
    };
    assert_eq!(
        level.sellable,
        Decimal::from(good as i32),
        "every good record counts"
    );
    let metrics = worker.get("/metrics").expect("metrics").1;
    for p in &poison {
        let line = format!(
            "crossdock_faults_total{{code=\"{}\",reader=\"stock-ledger\"}} 0",
            p.code
        );
        assert!(
            !metrics.lines().any(|l| l.trim() == line),
            "{} was not counted",
            p.code
        );
    }
    assert_eq!(worker.terminate(), Some(0), "an orderly end");
    an_offset_committed_past_a_record_is_found_out(&kafka, &log, &codec);
}

/// The books do not balance when somebody skips a record.
fn an_offset_committed_past_a_record_is_found_out(
    kafka: &Kafka,
    log: &Arc<dyn Log>,
    codec: &Codec,
) {
    assert!(
        run(&kafka.bootstrap, &["verify"]).status.success(),
        "balanced before"
    );
    let mut value = Vec::new();
    let fact = change("A", "dc", 5_000, -1);
    codec
        .encode(topic::STOCK_CHANGE, &fact.into(), &mut value)
        .expect("encoded");
    send_raw(log, topic::STOCK_CHANGE, Some(b"A|dc"), Some(&value));
    let spec = GroupSpec {
        group: "crossdock.stock-ledger".into(),
        member: None,
        topics: vec![Arc::from(topic::STOCK_CHANGE)],
        protocol: GroupProtocol::Range,
        session_timeout: Duration::from_secs(6),
        max_poll_interval: Duration::from_secs(60),
        isolation: Isolation::ReadCommitted,
    };
    let mut careless = log.consumer(&spec).expect("joined");
    let partitions = log
        .admin()
        .topics()
        .expect("topics")
        .into_iter()
        .find(|t| t.name == topic::STOCK_CHANGE)
        .expect("the topic")
        .partitions;
    let deadline = Instant::now() + Duration::from_secs(30);
    while careless.owned().len() < partitions as usize {
        assert!(Instant::now() < deadline, "the group never formed");
        careless
            .poll(0, Duration::from_millis(100), &mut Vec::new())
            .expect("polled");
    }
    let ends: Offsets = (0..partitions)
        .map(|p| TopicPartition::new(topic::STOCK_CHANGE, p))
        .map(|p| {
            let end = log.admin().watermarks(&p).expect("watermarks").1;
            (p, end)
        })
        .collect();
    careless.commit(&ends).expect("committed");
    let output = run(&kafka.bootstrap, &["verify"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("was committed without an outcome") && said.contains(topic::STOCK_CHANGE),
        "{said}"
    );
}
