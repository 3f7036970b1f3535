//! What an operator's command writes into the log: events in the transaction of its deed.

use crate::codec::{self, Codec};
use crate::contract::event::{Event, EventMeta, Origin, PositionKind};
use crate::domain::{Timestamp, event_id};
use crate::log::{LogError, Outgoing, Producer};
use crate::pipeline::Fault;
use std::time::Duration;

/// Tries to hand over a record while the producer's queue is full.
const SEND_TRIES: u32 = 30_000;
const SEND_WAIT: Duration = Duration::from_millis(1);

/// The beginning of an event that `source`, a command, writes about `record_id`.
pub(crate) fn meta(source: &str, event_type: &str, record_id: &str, now: Timestamp) -> EventMeta {
    EventMeta {
        event_id: event_id(source, 0, record_id, "", event_type),
        event_type: event_type.into(),
        source: source.into(),
        source_position: now.0,
        position_kind: PositionKind::TimestampMicros,
        occurred_at: now,
        recorded_at: now,
        tenant_id: "default".into(),
        correlation_id: record_id.into(),
        origin: Origin::Manual,
        ..EventMeta::default()
    }
}

/// Sends an event to a topic, to this partition of it or to that of its key.
///
/// # Errors
/// When it cannot be encoded, or the log takes nothing for half a minute.
pub(crate) fn send_event(
    codec: &Codec,
    producer: &mut dyn Producer,
    (topic, partition): (&str, Option<i32>),
    key: &str,
    event: &Event,
    now: Timestamp,
) -> Result<(), Fault> {
    let mut value = Vec::new();
    codec.encode(topic, event, &mut value)?;
    let headers = codec::headers(topic, event, key, None);
    send(
        producer,
        Outgoing {
            topic,
            partition,
            key: Some(key.as_bytes()),
            value: Some(&value),
            headers: &headers,
            timestamp_ms: now.as_millis(),
        },
    )
}

/// A run that another has taken over from must say so, not that something is broken: `another` is what has
/// begun, for people. Every other fault stays as it is.
pub(crate) fn told_apart(fault: Fault, another: &str) -> Fault {
    let cause = fault.source.as_ref();
    match cause.and_then(|c| c.downcast_ref::<LogError>()) {
        Some(fenced @ LogError::Fenced(_)) => Fault {
            message: format!(
                "{another} has begun and goes on in place of this one ({fenced}); what was told is done"
            ),
            source: None,
            ..fault
        },
        _ => fault,
    }
}

/// Sends a record, waiting for room.
///
/// # Errors
/// When the log takes nothing for half a minute.
pub(crate) fn send(producer: &mut dyn Producer, record: Outgoing<'_>) -> Result<(), Fault> {
    for _ in 0..SEND_TRIES {
        match producer.send(record) {
            Err(LogError::QueueFull) => producer.poll(SEND_WAIT),
            other => return Ok(other?),
        }
    }
    let topic = record.topic;
    Err(LogError::TimedOut(format!("no room to send to {topic}")).into())
}
