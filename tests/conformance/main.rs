//! One suite for both logs: what differs between the embedded log and Kafka is a defect.

#[path = "../support/kafka.rs"]
mod kafka;
mod suite;

use crossdock::log::Log;
use crossdock::log::embedded::{EmbeddedLog, Options};
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use std::sync::Arc;

#[test]
fn the_embedded_log_conforms() {
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::new(Options::system()));
    suite::run(&log, "embedded");
}

#[test]
fn kafka_conforms() {
    let Some(kafka) = kafka::Kafka::find(1) else {
        return;
    };
    let log: Arc<dyn Log> =
        Arc::new(KafkaLog::connect(KafkaSettings::plain(&kafka.bootstrap)).expect("connected"));
    suite::run(&log, "kafka");
}

#[test]
fn a_kafka_that_is_not_there_is_told_so_with_its_address() {
    let error = KafkaLog::connect(KafkaSettings::plain("127.0.0.1:1"))
        .err()
        .expect("nobody listens");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}
