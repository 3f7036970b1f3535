//! One suite for both logs: what differs between the embedded log and Kafka is a defect.

mod coordinators;
#[path = "../support/kafka.rs"]
mod kafka;
#[path = "../support/proxy.rs"]
#[allow(dead_code, reason = "it does more than is needed here")]
mod proxy;
mod secure;
mod suite;

use crossdock::log::Log;
use crossdock::log::embedded::{EmbeddedLog, Injected, Options};
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use crossdock::log::scoped::Scoped;
use std::sync::Arc;

#[test]
fn the_embedded_log_conforms() {
    let embedded = EmbeddedLog::new(Options::system());
    let log: Arc<dyn Log> = Arc::new(embedded.clone());
    suite::run(&log, "embedded");
    let answer_lost = || embedded.inject(Injected::CommitAnswerLost);
    let happened = suite::an_unanswered_commit(&log, "answer", &answer_lost, &|| {});
    assert!(happened, "only the answer was lost");
    let lost = || embedded.inject(Injected::CommitLost);
    let happened = suite::an_unanswered_commit(&log, "call", &lost, &|| {});
    assert!(!happened, "the call itself was lost");
}

#[test]
fn a_part_of_a_log_under_a_prefix_conforms() {
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::new(Options::system()));
    let part: Arc<dyn Log> = Arc::new(Scoped::new(log.clone(), "shop-de.").expect("a prefix"));
    suite::run(&part, "under a prefix");
    let names: Vec<String> = log
        .admin()
        .topics()
        .expect("topics")
        .into_iter()
        .map(|t| t.name)
        .collect();
    assert!(!names.is_empty() && names.iter().all(|n| n.starts_with("shop-de.")));
    // Another part sees none of it.
    let other = Scoped::new(log.clone(), "shop-fr.").expect("a prefix");
    assert!(other.admin().topics().expect("topics").is_empty());
    assert!(Scoped::new(log, "shop de").is_err());
}

#[test]
fn kafka_conforms() {
    // Retention is looked at more often than anybody else would want.
    let often = "log.retention.check.interval.ms=1000 log.initial.task.delay.ms=1000";
    let Some(kafka) = kafka::Kafka::with_properties(often) else {
        return;
    };
    let log: Arc<dyn Log> =
        Arc::new(KafkaLog::connect(KafkaSettings::plain(&kafka.bootstrap)).expect("connected"));
    suite::run(&log, "kafka");
    suite::server_assigned_groups(&log);
    if kafka.is_own() {
        let stop = || kafka.control(&["stop", "1"]);
        let go_on = || kafka.control(&["cont", "1"]);
        let happened = suite::an_unanswered_commit(&log, "kafka", &stop, &go_on);
        println!("kafka: the unanswered commit took effect: {happened}");
    }
}

#[test]
fn a_kafka_that_is_not_there_is_told_so_with_its_address() {
    let error = KafkaLog::connect(KafkaSettings::plain("127.0.0.1:1"))
        .err()
        .expect("nobody listens");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}
