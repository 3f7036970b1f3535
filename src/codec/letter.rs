//! Records within letters: as they were, at the place where they stood.

use crate::contract::event::{Blob, DeadLetter, EventRef, Text};
use crate::domain::Timestamp;
use crate::pipeline::{Headers, Origin, REDRIVES_HEADER, Record};
use std::sync::Arc;

/// A letter that holds `record`, and says nothing else yet.
pub fn letter_of(record: &Record) -> DeadLetter {
    let origin = &record.origin;
    let value = record.value.as_deref();
    let headers = record.headers.iter();
    let redrives = record.headers.text(REDRIVES_HEADER);
    DeadLetter {
        original: Some(EventRef {
            topic: Text::from(&*origin.topic),
            partition: origin.partition,
            offset: origin.offset,
            event_id: None,
        }),
        original_timestamp: Timestamp::from_millis(record.timestamp_ms),
        key: record.key.as_deref().map(Blob::from),
        value: value.map(Blob::from),
        headers: headers
            .map(|(name, value)| (Text::from(name), Blob::from(value.unwrap_or_default())))
            .collect(),
        schema_id: value
            .filter(|v| v.len() >= 5 && v[0] == 0)
            .map(|v| i32::from_be_bytes([v[1], v[2], v[3], v[4]])),
        traceparent: record.headers.text("traceparent").map(Text::from),
        redrive_count: redrives
            .and_then(|count| count.parse().ok())
            .unwrap_or_default(),
        ..DeadLetter::default()
    }
}

/// The record in a letter, at its place; `None` when it never was one.
pub fn original(letter: &DeadLetter) -> Option<Record> {
    let original = letter.original.as_ref()?;
    let headers = letter.headers.iter();
    let headers: Headers = headers
        .map(|(name, value)| (name.as_str(), Some(&*value.0)))
        .collect();
    Some(Record {
        origin: Origin {
            topic: Arc::from(&*original.topic),
            partition: original.partition,
            offset: original.offset,
        },
        timestamp_ms: letter.original_timestamp.as_millis(),
        key: letter.key.as_ref().map(|k| k.0.clone()),
        value: letter.value.as_ref().map(|v| v.0.clone()),
        headers,
    })
}
