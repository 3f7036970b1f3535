use super::*;
use crate::contract::topic;
use crate::log::embedded::{EmbeddedLog, Options};
use std::collections::BTreeMap;

fn log() -> EmbeddedLog {
    EmbeddedLog::new(Options::system())
}

fn readers() -> Readers {
    let mut readers = Readers::processors();
    readers
        .sinks
        .push(("webshop".into(), topic::STOCK_ATS.into()));
    readers
        .sources
        .push(("till".into(), topic::STOCK_CHANGE.into()));
    readers
}

fn plan(log: &EmbeddedLog, tier: Tier) -> Plan {
    let wanted = wanted(Catalogue::compiled(), tier, &readers());
    Plan::make(log, wanted, None).expect("the log answers")
}

fn line<'a>(text: &'a str, topic: &str) -> &'a str {
    text.lines()
        .find(|l| l.split([' ', ':']).nth(1).is_some_and(|name| name == topic))
        .unwrap_or_else(|| panic!("{topic} is not in\n{text}"))
}

#[test]
fn a_new_log_gets_everything_once() {
    let log = log();
    let first = plan(&log, Tier::M);
    assert!(first.is_pending());
    let text = first.to_string();
    assert_eq!(
        line(&text, "retail.stock.change.v1"),
        "+ retail.stock.change.v1 partitions=24 replication=1 cleanup.policy=delete max.message.bytes=1048576 min.insync.replicas=1 retention.ms=604800000"
    );
    // Derived topics have the partitions of their reader's input, dead letters twice the size.
    assert!(line(&text, "retail.rt.stock-ledger.dlq.v1").contains("max.message.bytes=2097152"));
    assert!(line(&text, "retail.rt.till.dlq.v1").contains("partitions=24"));
    for derived in ["stock-ledger.state", "webshop.park", "webshop.receipt"] {
        let line = line(&text, &format!("retail.rt.{derived}.v1")).to_owned();
        assert!(
            line.contains("partitions=24") && line.contains("cleanup.policy=compact"),
            "{line}"
        );
    }
    assert!(line(&text, registry::TOPIC).contains("partitions=1 "));
    line(&text, topic::SOURCE_CURSOR);
    line(&text, topic::OPS_DISPOSITION);

    first.apply(&log).expect("applies");
    let second = plan(&log, Tier::M);
    assert!(!second.is_pending());
    assert!(
        second
            .steps()
            .iter()
            .all(|s| matches!(s, Step::Unchanged(_))),
        "{second}"
    );
}

#[test]
fn a_registry_opened_first_is_as_the_plan_wants_it() {
    let log = log();
    let opened = registry::EmbeddedRegistry::open(std::sync::Arc::new(log.clone()));
    assert!(opened.is_ok());
    let text = plan(&log, Tier::S).to_string();
    assert_eq!(
        line(&text, registry::TOPIC),
        format!("= {}", registry::TOPIC)
    );
}

#[test]
fn nothing_is_shrunk_deleted_or_repartitioned() {
    let log = log();
    let existing = TopicSpec {
        name: topic::STOCK_CHANGE.into(),
        partitions: 6,
        replication: 1,
        settings: [
            ("cleanup.policy", "delete"),
            ("retention.ms", "-1"),
            ("max.message.bytes", "4000000"),
            ("min.insync.replicas", "2"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into(),
    };
    log.admin().create(&existing).expect("creates");
    let other = TopicSpec {
        name: "retail.of-somebody-else.v1".into(),
        partitions: 1,
        replication: 1,
        settings: BTreeMap::new(),
    };
    log.admin().create(&other).expect("creates");
    let made = plan(&log, Tier::L);
    let refused: Vec<String> = made.refusals().map(ToString::to_string).collect();
    assert_eq!(refused.len(), 4, "{refused:#?}");
    for (refusal, part) in refused.iter().zip([
        "has 6 partitions, 96 are wanted",
        "refuse records that are taken now",
        "fewer copies",
        "retention.ms is -1, 604800000 is wanted. That would delete records",
    ]) {
        assert!(refusal.contains(part), "{refusal}");
    }
    made.apply(&log).expect("applies the rest");
    let topics = log.admin().topics().expect("answers");
    assert!(topics.contains(&existing) && topics.contains(&other));
}

#[test]
fn settings_are_widened() {
    let log = log();
    let mut existing = TopicSpec {
        name: topic::STOCK_LEVEL.into(),
        partitions: 6,
        replication: 1,
        settings: [
            ("cleanup.policy", "delete, compact"),
            ("retention.ms", "1000"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into(),
    };
    log.admin().create(&existing).expect("creates");
    let made = plan(&log, Tier::S);
    assert_eq!(made.refusals().count(), 0, "{made}");
    assert_eq!(
        line(&made.to_string(), topic::STOCK_LEVEL),
        "~ retail.stock.level.v1 cleanup.policy: delete, compact -> compact max.message.bytes: (the broker's default) -> 1048576 min.insync.replicas: (the broker's default) -> 1 retention.ms: 1000 -> -1"
    );
    made.apply(&log).expect("applies");
    assert!(!plan(&log, Tier::S).is_pending());
    // Compaction of a topic that was not compacted would lose records.
    existing.name = topic::STOCK_POLICY.into();
    existing.settings = BTreeMap::from([("cleanup.policy".into(), "delete".into())]);
    let log = self::log();
    log.admin().create(&existing).expect("creates");
    let made = plan(&log, Tier::S);
    assert!(
        made.refusals()
            .any(|r| r.to_string().contains("cleanup.policy is delete")),
        "{made}"
    );
}

#[test]
fn copies_follow_the_brokers_unless_told() {
    assert_eq!([0, 1, 2, 3, 9].map(default_replication), [1, 1, 2, 3, 3]);
    assert_eq!([1, 2, 3].map(min_insync_replicas), [1, 2, 2]);
    let log = log();
    let wanted = wanted(Catalogue::compiled(), Tier::S, &Readers::default());
    let made = Plan::make(&log, wanted, Some(3)).expect("answers");
    let text = made.to_string();
    let line = line(&text, topic::STOCK_CHANGE);
    assert!(
        line.contains("replication=3") && line.contains("min.insync.replicas=2"),
        "{line}"
    );
}

#[test]
fn other_copies_of_an_existing_topic_are_refused() {
    let log = log();
    ensure(&log, Catalogue::compiled(), Tier::S, None, &readers()).expect("ensures");
    let again = ensure(&log, Catalogue::compiled(), Tier::S, Some(3), &readers());
    let text = again.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(text.contains("kafka-reassign-partitions"), "{text}");
}

#[test]
fn the_tier_of_a_log_is_seen() {
    let catalogue = Catalogue::compiled();
    for tier in [Tier::S, Tier::M, Tier::L] {
        let log = log();
        ensure(&log, catalogue, tier, None, &readers()).expect("ensures");
        let topics = log.admin().topics().expect("answers");
        assert_eq!(tier_of(&topics, catalogue), Some(tier));
    }
    assert_eq!(tier_of(&[], catalogue), None);
}

#[test]
fn what_a_process_misses_is_told_with_the_command() {
    let log = log();
    let catalogue = Catalogue::compiled();
    let ledger = processors::find("stock-ledger").expect("is registered");
    let needs = needs_of(ledger.descriptor, catalogue);
    let missing = verify(&log, &needs).expect("answers").expect_err("misses");
    let text = missing.to_string();
    assert!(text.contains("retail.rt.stock-ledger.state.v1"), "{text}");
    assert!(text.contains("`crossdock topics apply"), "{text}");
    ensure(&log, catalogue, Tier::S, None, &readers()).expect("ensures");
    assert_eq!(verify(&log, &needs).expect("answers"), Ok(()));
}

#[test]
fn unequal_partition_counts_are_told() {
    let log = log();
    for (name, partitions) in [("a", 6), ("b", 4)] {
        let topic = TopicSpec {
            name: name.into(),
            partitions,
            replication: 1,
            settings: BTreeMap::new(),
        };
        log.admin().create(&topic).expect("creates");
    }
    let needs = [Need::of("a"), Need::like("b", "a"), Need::like("c", "a")];
    let missing = verify(&log, &needs).expect("answers").expect_err("misses");
    assert_eq!(missing.topics, ["c"]);
    let text = missing.to_string();
    assert!(text.contains("b has 4 partitions and a has 6"), "{text}");
}
