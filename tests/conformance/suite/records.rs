//! What is in a record and how it is read.

use super::{Case, PATIENCE, WAIT, now_ms, send, take, text};
use crossdock::log::{GroupProtocol, Isolation, Offset, Outgoing, TopicPartition, TopicSpec};
use crossdock::pipeline::Headers;
use rand::SeedableRng;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(super) fn order_holds_for_each_key(case: &Case<'_>) {
    let topic = case.topic("in", 4);
    case.fill(&topic, 2_000);
    let mut consumer = case.consumer(&[&topic], None, GroupProtocol::Range);
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for record in take(consumer.as_mut(), 2_000) {
        let n: usize = text(record.value.as_deref()).parse().expect("a number");
        if let Some(before) = last.insert(text(record.key.as_deref()), n) {
            assert!(before < n, "{before} came before {n}");
        }
        let expected = crossdock::log::partition_for(record.key.as_deref().expect("a key"), 4);
        assert_eq!(
            record.origin.partition, expected,
            "the key decides the partition by murmur2"
        );
    }
}

pub(super) fn seek_and_pause_do_what_they_say(case: &Case<'_>) {
    let topic = case.topic("in", 1);
    case.fill(&topic, 20);
    let at = TopicPartition::new(topic.as_str(), 0);
    let mut consumer = case.consumer(&[&topic], None, GroupProtocol::Range);
    take(consumer.as_mut(), 20);
    consumer.seek(&at, 15).expect("sought");
    let again = take(consumer.as_mut(), 5);
    assert_eq!(
        again.iter().map(|r| r.origin.offset).collect::<Vec<_>>(),
        (15..20).collect::<Vec<_>>()
    );
    consumer.pause(std::slice::from_ref(&at)).expect("paused");
    consumer.seek(&at, 0).expect("sought");
    let mut seen = Vec::new();
    consumer
        .poll(10, Duration::from_millis(300), &mut seen)
        .expect("polled");
    assert!(seen.is_empty(), "a paused partition gave {seen:?}");
    consumer.resume(std::slice::from_ref(&at)).expect("resumed");
    assert_eq!(take(consumer.as_mut(), 1)[0].origin.offset, 0);
}

pub(super) fn keys_headers_tombstones_and_times_survive(case: &Case<'_>) {
    let topic = case.topic("in", 1);
    let at = now_ms() - 1_234;
    let mut producer = case.plain();
    let pairs: [(&str, Option<&[u8]>); 3] = [("a", Some(b"1")), ("b", None), ("a", Some(b""))];
    let headers: Headers = pairs.into_iter().collect();
    let none = Headers::default();
    for (key, value, headers) in [
        (Some(&b"k"[..]), None, &headers),
        (None, Some(&b"v"[..]), &none),
        (Some(b"k"), Some(b""), &none),
    ] {
        producer
            .send(Outgoing {
                topic: &topic,
                partition: Some(0),
                key,
                value,
                headers,
                timestamp_ms: at,
            })
            .expect("sent");
    }
    producer.flush().expect("flushed");
    let records = case.read(&topic);
    assert_eq!(records[0].value, None, "a tombstone");
    assert_eq!(records[0].headers.iter().collect::<Vec<_>>(), pairs);
    assert_eq!(records[0].timestamp_ms, at);
    assert_eq!(records[1].key, None);
    assert_eq!(
        records[2].value.as_deref(),
        Some(&b""[..]),
        "an empty value is no tombstone"
    );
}

pub(super) fn a_record_that_is_too_large_is_refused(case: &Case<'_>) {
    let name = format!("{}-small", case.name);
    let settings = BTreeMap::from([("max.message.bytes".to_owned(), "20000".to_owned())]);
    case.log
        .admin()
        .create(&TopicSpec {
            name: name.clone(),
            partitions: 1,
            replication: 1,
            settings,
        })
        .expect("created");
    // What cannot be compressed: the limit counts bytes as they are sent.
    let mut noise = vec![0; 60_000];
    rand::Rng::fill_bytes(&mut rand::rngs::StdRng::seed_from_u64(1), &mut noise);
    let mut producer = case.transactional("p");
    producer.begin().expect("begun");
    let headers = Headers::default();
    let record = Outgoing {
        topic: &name,
        partition: None,
        key: Some(b"k"),
        value: Some(&noise),
        headers: &headers,
        timestamp_ms: now_ms(),
    };
    let refused = producer
        .send(record)
        .and_then(|()| producer.flush())
        .and_then(|()| producer.commit());
    assert!(refused.is_err(), "too large, and taken");
    let _ = producer.abort();
    assert!(case.values(&name).is_empty());
}

pub(super) fn a_reader_catches_up_over_markers_and_aborts(case: &Case<'_>) {
    let topic = case.topic("out", 1);
    assert!(
        case.values(&topic).is_empty(),
        "an empty topic is read at once"
    );
    let mut producer = case.transactional("p");
    for (value, commit) in [("kept", true), ("dropped", false)] {
        producer.begin().expect("begun");
        send(producer.as_mut(), &topic, "k", value);
        producer.flush().expect("flushed");
        if commit {
            producer.commit()
        } else {
            producer.abort()
        }
        .expect("ended");
    }
    let at = TopicPartition::new(topic.as_str(), 0);
    assert_eq!(case.values(&topic), ["kept"]);
    let (_, end) = case.log.admin().watermarks(&at).expect("watermarks");
    assert_eq!(end, 4, "two records and two markers");
    let mut reader = case
        .log
        .reader(&[(at.clone(), Offset::Beginning)], Isolation::ReadCommitted)
        .expect("a reader");
    let deadline = Instant::now() + PATIENCE;
    while !reader.caught_up() {
        assert!(Instant::now() < deadline);
        reader.poll(10, WAIT, &mut Vec::new()).expect("read");
    }
    assert_eq!(reader.position(&at), Some(4), "behind the last marker");
}
