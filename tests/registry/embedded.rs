//! What the embedded registry promises beyond the API.

use crate::support::{log, open, record};
use crossdock::codec::{Codec, SchemaSource};
use crossdock::contract::{Catalogue, Contract, event, topic};
use crossdock::log::embedded::Injected;
use crossdock::log::{Log, TopicPartition, TopicSpec};
use crossdock::registry::{EmbeddedRegistry, Level, Registry, RegistryError, TOPIC, Version};
use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};

#[test]
fn everything_is_read_back_from_the_topic() {
    let log = log();
    let first = open(&log);
    let one = record("R", &["a:int"]);
    let two = record("R", &["a:int", "b:int=0"]);
    let id_of_one = first.register("s", &one).expect("registers");
    let id_of_two = first.register("s", &two).expect("registers");
    first.register("t", &two).expect("registers");
    first.set_level("t", Level::Backward).expect("sets");
    first.set_global_level(Level::Full).expect("sets");
    log.compact(TOPIC);

    let second = open(&log);
    assert_eq!(second.subjects(), Ok(vec!["s".to_owned(), "t".to_owned()]));
    assert_eq!(second.versions("s"), Ok(vec![1, 2]));
    assert_eq!(second.by_id(id_of_one), Ok(one));
    let latest = second.version("s", Version::Latest).expect("is there");
    assert_eq!((latest.id, latest.version), (id_of_two, 2));
    assert_eq!(second.level("t"), Ok(Level::Backward));
    assert_eq!(second.level("s"), Ok(Level::Full));
    assert_eq!(second.register("s", &two), Ok(id_of_two));
}

#[test]
fn layout_makes_no_new_version() {
    let registry = open(&log());
    let id = registry
        .register("s", r#"{"type":"record","name":"n.R","fields":[]}"#)
        .expect("registers");
    let same = r#"{ "name": "R", "namespace": "n", "fields": [], "type": "record" }"#;
    assert_eq!(registry.register("s", same), Ok(id));
    assert_eq!(registry.versions("s"), Ok(vec![1]));
    assert_eq!(registry.lookup("s", same).map(|r| r.id), Ok(id));
}

#[test]
fn instances_on_one_log_never_hand_out_the_same_id() {
    const INSTANCES: usize = 4;
    const SCHEMAS: usize = 25;
    let log = log();
    let start = Barrier::new(INSTANCES);
    let given: Vec<(String, u32)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..INSTANCES)
            .map(|instance| {
                let (log, start) = (&log, &start);
                scope.spawn(move || {
                    let registry = open(log);
                    start.wait();
                    (0..SCHEMAS)
                        .map(|number| {
                            let schema = record(&format!("R{instance}_{number}"), &["a:int"]);
                            // Losing to the others too often is an answer, not an id.
                            loop {
                                match registry.register(&format!("s{number}_{instance}"), &schema) {
                                    Ok(id) => break (schema, id),
                                    Err(RegistryError::Unavailable { .. }) => {}
                                    Err(error) => panic!("{error}"),
                                }
                            }
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        handles
            .into_iter()
            .flat_map(|h| h.join().expect("no panic"))
            .collect()
    });
    let by_id: BTreeMap<u32, &String> = given.iter().map(|(s, id)| (*id, s)).collect();
    assert_eq!(by_id.len(), INSTANCES * SCHEMAS);
    let ids: Vec<u32> = by_id.keys().copied().collect();
    let expected: Vec<u32> = (1..=(INSTANCES * SCHEMAS) as u32).collect();
    assert_eq!(ids, expected);
    let another = open(&log);
    for (id, schema) in by_id {
        assert_eq!(another.by_id(id).as_ref(), Ok(schema));
    }
}

#[test]
fn the_same_schema_raced_by_instances_gets_one_id_and_one_version() {
    let log = log();
    let instances = [open(&log), open(&log), open(&log)];
    let start = Barrier::new(instances.len());
    let schema = record("R", &["a:int"]);
    let ids: Vec<u32> = std::thread::scope(|scope| {
        let handles: Vec<_> = instances
            .iter()
            .map(|registry| {
                let (start, schema) = (&start, &schema);
                scope.spawn(move || {
                    start.wait();
                    registry.register("s", schema).expect("registers")
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|h| h.join().expect("no panic"))
            .collect()
    });
    assert_eq!(ids, [1, 1, 1]);
    assert_eq!(instances[0].versions("s"), Ok(vec![1]));
}

#[test]
fn an_instance_sees_what_another_wrote() {
    let log = log();
    let (one, two) = (open(&log), open(&log));
    let schema = record("R", &["a:int"]);
    let id = one.register("s", &schema).expect("registers");
    assert_eq!(two.by_id(id), Ok(schema.clone()));
    assert_eq!(two.register("s", &schema), Ok(id));
    let next = record("R", &["a:int", "b:int=0"]);
    let id = two.register("s", &next).expect("registers");
    assert_eq!(
        one.lookup("s", &next).map(|r| (r.id, r.version)),
        Ok((id, 2))
    );
    let worse = record("R", &["c:int"]);
    assert!(matches!(
        one.register("s", &worse),
        Err(RegistryError::Incompatible { .. })
    ));
}

#[test]
fn a_commit_whose_answer_was_lost_leaves_one_version() {
    let schema = record("R", &["a:int"]);
    for lost in [
        Injected::CommitLost,
        Injected::CommitAnswerLost,
        Injected::Send,
    ] {
        let log = log();
        let registry = open(&log);
        log.inject(lost);
        assert_eq!(registry.register("s", &schema), Ok(1), "{lost:?}");
        assert_eq!(registry.versions("s"), Ok(vec![1]), "{lost:?}");
    }
}

#[test]
fn what_is_not_a_registrys_is_passed_over() {
    let log = log();
    let registry = open(&log);
    let mut producer = log.producer(&Default::default()).expect("a producer");
    for (key, value) in [
        ("x", Some("y")),
        (r#"{"keytype":"NOOP","magic":0}"#, None),
        (
            r#"{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}"#,
            Some("{}"),
        ),
        (
            r#"{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}"#,
            None,
        ),
    ] {
        let record = crossdock::log::Outgoing {
            topic: TOPIC,
            partition: Some(0),
            key: Some(key.as_bytes()),
            value: value.map(str::as_bytes),
            headers: &Default::default(),
            timestamp_ms: 0,
        };
        producer.send(record).expect("sends");
    }
    producer.flush().expect("flushes");
    assert_eq!(registry.subjects(), Ok(vec![]));
    assert_eq!(registry.register("s", r#""int""#), Ok(1));
}

#[test]
fn a_topic_that_cannot_be_a_registrys_is_refused() {
    let log = log();
    let topic = TopicSpec {
        name: TOPIC.into(),
        partitions: 3,
        replication: 1,
        settings: BTreeMap::new(),
    };
    log.admin().create(&topic).expect("creates");
    let error = EmbeddedRegistry::open(Arc::new(log)).err();
    let text = error.map(|e| e.to_string()).unwrap_or_default();
    assert!(text.contains("3 partitions"), "{text}");
}

#[test]
fn the_topic_is_created_compacted_with_one_partition() {
    let log = log();
    open(&log);
    let topics = log.admin().topics().expect("answers");
    let topic = topics.iter().find(|t| t.name == TOPIC).expect("is there");
    assert_eq!(topic.partitions, 1);
    assert_eq!(topic.settings["cleanup.policy"], "compact");
    let at = TopicPartition::new(TOPIC, 0);
    assert_eq!(log.admin().watermarks(&at).expect("answers"), (0, 0));
}

#[test]
fn the_codec_works_on_it() {
    let registry = open(&log());
    let catalogue = Catalogue::compiled();
    let codec = Codec::new(registry.clone(), catalogue);
    let missing = codec.prepare(&[topic::STOCK_CHANGE]).err();
    let text = missing.map(|e| e.to_string()).unwrap_or_default();
    assert!(text.contains("crossdock schemas register"), "{text}");
    let schema = event::StockChanged::SCHEMA;
    let id = registry
        .register("retail.stock.change.v1-value", schema)
        .expect("registers");
    assert!(codec.prepare(&[topic::STOCK_CHANGE]).is_ok());
    let source: &dyn SchemaSource = &*registry;
    assert_eq!(source.schema(id).ok().as_deref(), Some(schema));
}

#[test]
fn many_are_registered_at_once_or_none_of_them() {
    let log = log();
    let registry = open(&log);
    let (one, two) = (record("One", &["a:int"]), record("Two", &["a:int"]));
    let all = [("s", &*one), ("t", &*two), ("u", &*one)];
    let ids = registry.register_all(&all).expect("registered");
    assert_eq!(
        (ids[0], ids.len()),
        (ids[2], 3),
        "one id for one schema: {ids:?}"
    );
    assert_ne!(ids[0], ids[1]);
    // The second would break what the first of the same call has just laid down.
    let broken = record("One", &["a:string"]);
    let refused = registry.register_all(&[("v", &one), ("v", &broken)]);
    assert!(
        matches!(refused, Err(RegistryError::Incompatible { .. })),
        "{refused:?}"
    );
    let again = open(&log);
    assert_eq!(again.subjects().expect("subjects"), ["s", "t", "u"]);
}
