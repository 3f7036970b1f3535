//! Changing what a dead letter holds.

use super::Letter;
use crate::codec::Codec;
use crate::contract::Catalogue;
use crate::contract::event::Event;
use crate::pipeline::{Fault, Record, Verdict};
use bytes::Bytes;
use serde_json::Value;

/// What is to be changed.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Fields of the event by their path, as `lines.0.qty`, with their new values.
    pub fields: Vec<(String, String)>,
    /// The whole event, in place of the one that is there.
    pub event: Option<Value>,
    /// The key, in place of the one that is there.
    pub key: Option<String>,
}

/// A record that was changed, and what was changed in it, before and after.
#[derive(Clone, Debug)]
pub struct Mended {
    /// The record.
    pub record: Record,
    /// What was there.
    pub before: String,
    /// What is there now.
    pub after: String,
}

/// The letter's record with a change made to it.
///
/// # Errors
/// The inner one in words: what of the change does not fit the contract. The outer one when the registry
/// does not answer.
pub fn mended(
    letter: &Letter,
    change: &Change,
    codec: &Codec,
    catalogue: &Catalogue,
) -> Result<Result<Mended, String>, Fault> {
    let Some(mut record) = letter.record() else {
        let place = super::original(&letter.dead);
        return Ok(Err(format!(
            "it never was a record: mend it where it was found, {place}"
        )));
    };
    let topic = record.origin.topic.clone();
    if catalogue.is_compacted(&topic) {
        return Ok(Err(format!(
            "{topic} holds states, which only their processor writes; mend the facts that they follow from"
        )));
    }
    let Some(contract) = catalogue.contract(&topic).map(str::to_owned) else {
        return Ok(Err(format!("{topic} is not in topics.yaml")));
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut value = match &change.event {
        Some(event) => {
            after.push("event".to_owned());
            event.clone()
        }
        None if change.fields.is_empty() => Value::Null,
        None => match codec.decode(&record) {
            Ok(event) => match serde_json::to_value(&event) {
                Ok(value) => value,
                Err(error) => return Ok(Err(error.to_string())),
            },
            Err(fault) if fault.verdict == Verdict::Reject => {
                return Ok(Err(format!(
                    "it cannot be read, so no field of it can be set ({}); give the whole event with --event FILE",
                    fault.message
                )));
            }
            Err(fault) => return Err(fault),
        },
    };
    for (path, new) in &change.fields {
        match set(&mut value, path, new) {
            Ok(old) => {
                before.push(format!("{path}={old}"));
                after.push(format!("{path}={new}"));
            }
            Err(why) => return Ok(Err(why)),
        }
    }
    if !value.is_null() {
        let event = match Event::from_json(&contract, value) {
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                return Ok(Err(format!("it is no {contract} any more: {error}")));
            }
            None => return Ok(Err(format!("this build does not know {contract}"))),
        };
        let mut bytes = Vec::new();
        codec.encode(&topic, &event, &mut bytes)?;
        record.value = Some(Bytes::from(bytes));
    }
    if let Some(key) = &change.key {
        before.push(format!("key={}", letter.key()));
        after.push(format!("key={key}"));
        record.key = Some(Bytes::copy_from_slice(key.as_bytes()));
    }
    Ok(Ok(Mended {
        record,
        before: before.join(", "),
        after: after.join(", "),
    }))
}

/// Sets a field by its path; gives what it held.
fn set(value: &mut Value, path: &str, new: &str) -> Result<String, String> {
    let mut at = value;
    for part in path.split('.') {
        let found = match at {
            Value::Array(items) => part.parse::<usize>().ok().and_then(|i| items.get_mut(i)),
            Value::Object(fields) => {
                let names: Vec<String> = fields.keys().cloned().collect();
                match fields.get_mut(part) {
                    Some(field) => Some(field),
                    None => {
                        return Err(format!(
                            "there is no field {part} in {path}; there are {}",
                            names.join(", ")
                        ));
                    }
                }
            }
            _ => None,
        };
        at = found.ok_or_else(|| format!("{path} leads to nothing at {part}"))?;
    }
    let old = at.to_string();
    *at = match &*at {
        Value::String(_) => Value::String(new.to_owned()),
        // What is absent may be a text or anything else.
        _ => serde_json::from_str(new).unwrap_or_else(|_| Value::String(new.to_owned())),
    };
    Ok(old)
}
