//! One dead letter, whole.

use super::history::{Done, History};
use super::judge::{Judge, Refusal};
use super::{Filter, Letter, Letters, Line, Listed};
use crate::contract::event::DeadLetter;
use crate::log::scan::{Stretch, scan};
use crate::log::{Offset, TopicPartition};
use crate::pipeline::{Clock, Fault, Origin, SystemClock};
use serde::Serialize;
use serde_json::Value;
use std::collections::HashSet;

/// A dead letter with all that is known about it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// In short.
    #[serde(flatten)]
    pub line: Line,
    /// The kind of fault.
    pub class: String,
    /// Version of the reader.
    pub reader_version: String,
    /// Trace of the record.
    pub traceparent: Option<String>,
    /// The record's headers in order, names and values; bytes that are no text in hexadecimal, and a null as such.
    pub headers: Vec<(String, Option<String>)>,
    /// Id of its schema.
    pub schema_id: Option<i32>,
    /// The event; `None` when it cannot be read.
    pub event: Option<Value>,
    /// Why it cannot be read.
    pub unreadable: Option<String>,
    /// The original key in hexadecimal.
    pub key_bytes: Option<String>,
    /// The original value in hexadecimal.
    pub value_bytes: Option<String>,
    /// What a source could not read, where it is text.
    pub source_text: Option<String>,
    /// Records of its key that stand behind it in the topic that it came from.
    pub records_behind: u64,
    /// Dead letters of its key that are open and stand behind it.
    pub letters_behind: Vec<String>,
    /// Why a redrive of it would be refused; `None` when it would be done.
    pub redrive_refused: Option<Refusal>,
}

/// Shows a dead letter; `None` when there is none at that place.
///
/// # Errors
/// When the log or the registry does not answer.
pub fn show(
    letters: &Letters<'_>,
    at: &Origin,
    redrives_max: i32,
) -> Result<Option<(Letter, Shown)>, Fault> {
    let filter = Filter {
        at: Some(at.clone()),
        done: true,
        ..Filter::default()
    };
    let mut found: Option<(Letter, Line, Option<Done>)> = None;
    letters.list(&filter, |listed: &Listed<'_>| {
        found = Some((listed.letter.clone(), listed.line(), listed.done.cloned()));
        Ok::<(), Fault>(())
    })?;
    let Some((letter, line, _)) = found else {
        return Ok(None);
    };
    let dead = &letter.dead;
    let decoded = letter.record().map(|r| letters.codec.decode(&r));
    let (event, unreadable) = match decoded {
        Some(Ok(event)) => (serde_json::to_value(&event).ok(), None),
        Some(Err(fault)) => (None, Some(format!("{}: {}", fault.code, fault.message))),
        None => (None, Some("it never was a record".to_owned())),
    };
    let judged = Judge::new(letters, redrives_max).redriven(&letter, SystemClock.now())?;
    let shown = Shown {
        class: dead.error_class.symbol().to_owned(),
        reader_version: dead.processor_version.to_string(),
        traceparent: dead.traceparent.as_ref().map(ToString::to_string),
        headers: letter.record().map_or_else(Vec::new, |record| {
            let headers = record.headers.iter();
            headers
                .map(|(name, value)| (name.to_owned(), value.map(text_or_hex)))
                .collect()
        }),
        schema_id: dead.schema_id,
        event,
        unreadable,
        key_bytes: dead.key.as_ref().map(|k| hex(&k.0)),
        value_bytes: dead.value.as_ref().map(|v| hex(&v.0)),
        source_text: source_text(dead),
        records_behind: records_behind(letters, &letter)?,
        letters_behind: letters_behind(letters, &letter)?,
        redrive_refused: judged.err(),
        line,
    };
    Ok(Some((letter, shown)))
}

fn source_text(dead: &DeadLetter) -> Option<String> {
    let found = dead.value.as_ref().filter(|_| dead.original.is_none())?;
    std::str::from_utf8(&found.0).ok().map(str::to_owned)
}

fn records_behind(letters: &Letters<'_>, letter: &Letter) -> Result<u64, Fault> {
    let (Some(original), Some(key)) = (&letter.dead.original, &letter.dead.key) else {
        return Ok(0);
    };
    let topics = letters.log.admin().topics()?;
    if !topics.iter().any(|t| t.name == *original.topic) {
        return Ok(0);
    }
    let stretch = Stretch::of_keys(
        TopicPartition::new(&*original.topic, original.partition),
        Offset::At(original.offset + 1),
        HashSet::from([key.0.to_vec()]),
    );
    let mut count = 0;
    scan(letters.log, &[stretch], |_| {
        count += 1;
        Ok::<(), Fault>(())
    })?;
    Ok(count)
}

fn letters_behind(letters: &Letters<'_>, letter: &Letter) -> Result<Vec<String>, Fault> {
    let Some(key) = &letter.dead.key else {
        return Ok(Vec::new());
    };
    let at = TopicPartition {
        topic: letter.at.topic.clone(),
        partition: letter.at.partition,
    };
    let history = History::read(letters, &at)?;
    let stretch = Stretch {
        at,
        from: Offset::At(letter.at.offset + 1),
        wanted: None,
    };
    let mut behind = Vec::new();
    scan(letters.log, &[stretch], |record| {
        let same = record.key.as_deref() == Some(&key.0[..]);
        if same && history.of(record.origin.offset).is_none() && behind.len() < BEHIND_MAX {
            behind.push(record.origin.to_string());
        }
        Ok::<(), Fault>(())
    })?;
    Ok(behind)
}

/// Letters named behind another, at most.
const BEHIND_MAX: usize = 20;

fn text_or_hex(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", hex(bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
