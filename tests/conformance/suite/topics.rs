//! Topics: how they are made and changed, and what they drop.

use super::{Case, WAIT, now_ms, text};
use crossdock::log::{Outgoing, TopicPartition, TopicSpec};
use crossdock::pipeline::Headers;
use rand::SeedableRng;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Every key's last value stays, tombstones among them, and what they replaced goes.
pub(super) fn compaction_keeps_the_last_value_of_each_key(case: &Case<'_>) {
    let name = format!("{}-compacted", case.name);
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("segment.ms", "200"),
        ("segment.bytes", "1048576"),
        ("delete.retention.ms", "86400000"),
    ];
    case.log
        .admin()
        .create(&TopicSpec {
            name: name.clone(),
            partitions: 1,
            replication: 1,
            settings: settings.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        })
        .expect("created");
    const KEYS: usize = 50;
    let mut producer = case.transactional("p");
    let mut expected: BTreeMap<String, Option<String>> = BTreeMap::new();
    let headers = Headers::default();
    for (round, commit) in [(0, true), (1, true), (2, false), (3, true)] {
        producer.begin().expect("begun");
        for key in 0..KEYS {
            let name_of_key = format!("key-{key}");
            // A fifth of the keys end as tombstones.
            let value = (round < 3 || key % 5 > 0).then(|| format!("{key} in round {round}"));
            producer
                .send(Outgoing {
                    topic: &name,
                    partition: Some(0),
                    key: Some(name_of_key.as_bytes()),
                    value: value.as_deref().map(str::as_bytes),
                    headers: &headers,
                    timestamp_ms: now_ms(),
                })
                .expect("sent");
            if commit {
                expected.insert(name_of_key, value);
            }
        }
        producer.flush().expect("flushed");
        if commit {
            producer.commit()
        } else {
            producer.abort()
        }
        .expect("ended");
    }
    // A little traffic: what was written last is not compacted.
    let mut filler = vec![0; 100_000];
    rand::Rng::fill_bytes(&mut rand::rngs::StdRng::seed_from_u64(2), &mut filler);
    let mut traffic = case.plain();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        traffic
            .send(Outgoing {
                topic: &name,
                partition: Some(0),
                key: Some(b"filler"),
                value: Some(&filler),
                headers: &headers,
                timestamp_ms: now_ms(),
            })
            .expect("sent");
        traffic.flush().expect("flushed");
        let records = case.read(&name);
        let of_keys = || {
            records
                .iter()
                .filter(|r| r.key.as_deref() != Some(b"filler"))
        };
        let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
        for record in of_keys() {
            let value = record.value.as_deref().map(|v| text(Some(v)));
            found.insert(text(record.key.as_deref()), value);
        }
        assert_eq!(found, expected, "the last value of each key, at any time");
        if of_keys().count() == KEYS {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{} records are left",
            of_keys().count()
        );
    }
}

pub(super) fn a_topic_with_a_limit_drops_its_oldest_records(case: &Case<'_>) {
    const LIMIT: usize = 2 << 20;
    let name = format!("{}-limited", case.name);
    let settings = [
        ("retention.bytes", LIMIT.to_string()),
        ("segment.bytes", "1048576".into()),
    ];
    case.log
        .admin()
        .create(&TopicSpec {
            name: name.clone(),
            partitions: 1,
            replication: 1,
            settings: settings.map(|(k, v)| (k.to_owned(), v)).into(),
        })
        .expect("created");
    let mut noise = vec![0; 60_000];
    rand::Rng::fill_bytes(&mut rand::rngs::StdRng::seed_from_u64(3), &mut noise);
    let at = TopicPartition::new(name.as_str(), 0);
    let mut producer = case.plain();
    let headers = Headers::default();
    for n in 0..200u64 {
        let record = Outgoing {
            topic: &name,
            partition: Some(0),
            key: Some(&n.to_be_bytes()),
            value: Some(&noise),
            headers: &headers,
            timestamp_ms: now_ms(),
        };
        producer.send(record).expect("sent");
        producer.flush().expect("flushed");
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (first, end) = case.log.admin().watermarks(&at).expect("watermarks");
        assert_eq!(end, 200, "no offset is used twice");
        let kept = (end - first) as usize * noise.len();
        // A log may drop whole segments only, and keeps the one being written.
        if kept <= LIMIT + (2 << 20) {
            let records = case.read(&name);
            // More may have been dropped meanwhile.
            assert!(records.first().is_some_and(|r| r.origin.offset >= first));
            assert_eq!(records.last().map(|r| r.origin.offset), Some(199));
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{kept} bytes are kept, {LIMIT} are allowed"
        );
        std::thread::sleep(WAIT);
    }
}

pub(super) fn topics_are_made_changed_and_told(case: &Case<'_>) {
    let name = case.topic("t", 3);
    let settings =
        |retention: &str| BTreeMap::from([("retention.ms".to_owned(), retention.to_owned())]);
    case.log
        .admin()
        .alter(&name, &settings("60000"))
        .expect("altered");
    let kept = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
    case.log.admin().alter(&name, &kept).expect("altered");
    let topics = case.log.admin().topics().expect("topics");
    let found = topics.iter().find(|t| t.name == name).expect("told of");
    assert_eq!((found.partitions, found.replication), (3, 1));
    assert_eq!(
        found.settings.get("retention.ms").map(String::as_str),
        Some("60000"),
        "other settings stay"
    );
    assert!(case.log.admin().create(found).is_err(), "made twice");
}
