//! The queue of cases by the binary on Kafka: listed by rank, taken, acted on, closed by a late fact.

use crate::facts::{codec, now_ms, prepare};
use crate::kafka::Kafka;
use crate::worker::{POLL, Worker, run, succeed};
use crossdock::codec::Codec;
use crossdock::contract::event::*;
use crossdock::contract::topic;
use crossdock::domain::{Decimal, Timestamp, event_id, exception_id};
use crossdock::log::{Log, Outgoing, ProducerSpec};
use crossdock::pipeline::Headers;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn send(log: &Arc<dyn Log>, codec: &Codec, topic: &str, key: &str, event: Event) {
    let mut value = Vec::new();
    codec.encode(topic, &event, &mut value).expect("encoded");
    let mut producer = log.producer(&ProducerSpec::default()).expect("a producer");
    let record = Outgoing {
        topic,
        partition: None,
        key: Some(key.as_bytes()),
        value: Some(&value),
        headers: &Headers::default(),
        timestamp_ms: now_ms(),
    };
    producer.send(record).expect("sent");
    producer.flush().expect("acknowledged");
}

fn meta(event_type: &str, record: &str) -> EventMeta {
    let now = Timestamp::from_millis(now_ms());
    EventMeta {
        event_id: event_id("test", 0, record, "", event_type),
        event_type: event_type.into(),
        source: "test".into(),
        occurred_at: now,
        recorded_at: now,
        tenant_id: "default".into(),
        correlation_id: record.into(),
        ..EventMeta::default()
    }
}

fn raised(order: &str, version: i64, status: ExceptionStatus) -> (String, Event) {
    let id = exception_id("MISSING_IN_ERP", order, "");
    let event = BusinessException {
        meta: meta("BusinessException", &format!("{id}#{version}")),
        exception_id: id,
        exception_version: version,
        code: "MISSING_IN_ERP".into(),
        severity: Severity::High,
        status,
        processor: "order-recon".into(),
        order_id: Some(order.into()),
        suggested_actions: vec!["replay".into()],
        occurrences: version,
        ..BusinessException::default()
    };
    (id.to_string(), event.into())
}

fn state(order: &str, euros: i64) -> Event {
    OrderState {
        meta: meta("OrderState", order),
        order_id: order.into(),
        state_version: 1,
        status: OrderStatus::Placed,
        channel_id: "web".into(),
        currency: "EUR".into(),
        grand_total: Decimal::from_units(euros * 10_000),
        ..OrderState::default()
    }
    .into()
}

/// Lists until `done` says so of the rows.
fn listed(kafka: &Kafka, done: impl Fn(&[serde_json::Value]) -> bool) -> Vec<serde_json::Value> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = succeed(&kafka.bootstrap, &["exceptions", "list", "--json"]);
        let rows = text.lines().map(|l| serde_json::from_str(l).expect("JSON"));
        let rows: Vec<serde_json::Value> = rows.collect();
        if done(&rows) {
            return rows;
        }
        assert!(Instant::now() < deadline, "{rows:?}");
        std::thread::sleep(POLL);
    }
}

#[test]
fn cases_are_listed_by_rank_worked_and_closed_by_the_late_fact() {
    let Some(kafka) = Kafka::find(1) else { return };
    let log = prepare(&kafka);
    let codec = codec(&log);
    for (order, euros) in [("small", 20), ("large", 900)] {
        let (id, event) = raised(order, 1, ExceptionStatus::Open);
        send(&log, &codec, topic::OPS_EXCEPTION, &id, event);
        send(&log, &codec, topic::ORDER_STATE, order, state(order, euros));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = ["run", "exception-context", "exception-enricher"];
    let mut worker = Worker::start(&kafka.bootstrap, folder.path(), "one", &arguments);
    worker.wait_for("/health/ready", 200);
    let rows = listed(&kafka, |rows| {
        rows.len() == 2 && rows.iter().all(|r| r["rank"].as_f64() > Some(10.0))
    });
    assert_eq!(rows[0]["rank"], 900.0 * 4.0);
    assert_eq!(rows[0]["case"]["orderId"], "large");
    assert_eq!(rows[1]["rank"], 20.0 * 4.0);

    let id = rows[0]["case"]["exceptionId"]
        .as_str()
        .expect("an id")
        .to_owned();
    let short = &id[..8];
    let said = succeed(
        &kafka.bootstrap,
        &["exceptions", "assign", short, "--as", "ann"],
    );
    assert!(said.contains("DONE"), "{said}");
    let said = succeed(
        &kafka.bootstrap,
        &["exceptions", "act", short, "replay", "--as", "ann"],
    );
    assert!(said.contains("DONE"), "{said}");
    let shown = succeed(&kafka.bootstrap, &["exceptions", "show", short]);
    for words in [
        "MISSING_IN_ERP",
        "assigned to  ann",
        "900 EUR",
        "ACT by ann: DONE (replay)",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let refused = run(
        &kafka.bootstrap,
        &["exceptions", "act", short, "dance", "--as", "ann"],
    );
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && words.contains("suggests: replay"),
        "{words}"
    );
    let other = rows[1]["case"]["exceptionId"].as_str().expect("an id");
    let resolve = [
        "exceptions",
        "resolve",
        other,
        "--reason",
        "entered by hand",
        "--as",
        "bob",
    ];
    assert!(succeed(&kafka.bootstrap, &resolve).contains("DONE"));
    let again = run(&kafka.bootstrap, &resolve);
    let words = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(
        !again.status.success() && words.contains("REFUSED"),
        "{words}"
    );

    let (key, event) = raised("large", 2, ExceptionStatus::Resolved);
    send(&log, &codec, topic::OPS_EXCEPTION, &key, event);
    listed(&kafka, <[_]>::is_empty);
    assert_eq!(worker.terminate(), Some(0), "an orderly end");
}
