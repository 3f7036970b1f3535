//! What was rebuilt beside what the changelog holds, key by key.

use super::inputs::Beat;
use super::rerun::Rerun;
use super::{Subject, entity};
use crate::domain::Timestamp;
use crate::log::scan::{Stretch, scan};
use crate::log::{Offset, Offsets};
use crate::pipeline::{Context, Fault, Output, Processor, State as _};
use crate::state::Shard;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Wrong {
    /// It should be there, and is not.
    Missing,
    /// It should not be there.
    Extra,
    /// It says something else than it should.
    Different,
}

/// An entry that is not as it should be.
#[derive(Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its key in the changelog.
    pub key: Vec<u8>,
    /// What it should be; `None` where it should not be there.
    pub expected: Option<Vec<u8>>,
    /// What the changelog holds; `None` where it is missing.
    pub actual: Option<Vec<u8>>,
    /// What differs, by field, where the entry can be read: expected and actual.
    pub fields: Vec<(String, Value, Value)>,
}

impl Difference {
    /// The key of the records that the entry is about.
    pub fn entity(&self) -> String {
        String::from_utf8_lossy(entity(&self.key)).into_owned()
    }

    /// Which entry of its key it is; empty for the key's own.
    pub fn part(&self) -> String {
        let rest = self.key.get(entity(&self.key).len() + 1..);
        match rest.unwrap_or_default() {
            [b'r', id @ ..] if id.len() == 16 => {
                let id = id.try_into().map(u128::from_be_bytes);
                format!(
                    "reservation {}",
                    uuid::Uuid::from_u128(id.unwrap_or_default())
                )
            }
            rest => match std::str::from_utf8(rest) {
                Ok(text) if !text.contains(char::is_control) => text.to_owned(),
                _ => format!("index {}", rest.escape_ascii()),
            },
        }
    }

    /// What is wrong.
    pub fn wrong(&self) -> Wrong {
        match (&self.expected, &self.actual) {
            (Some(_), None) => Wrong::Missing,
            (None, Some(_)) => Wrong::Extra,
            _ => Wrong::Different,
        }
    }
}

impl std::fmt::Debug for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (entity, part) = (self.entity(), self.part());
        write!(f, "{entity} {part}: {:?} {:?}", self.wrong(), self.fields)
    }
}

/// How the state of one partition compares.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Partition number.
    pub partition: i32,
    /// Records that the processor was run on.
    pub records: u64,
    /// Of these, records whose transaction is not known any more: each was taken for one of its own.
    pub without_transaction: u64,
    /// Entries that agree.
    pub equal: u64,
    /// Entries that do not.
    pub different: u64,
    /// Keys that changed while they were looked at, and were not compared.
    pub moving: u64,
    /// The first of the entries that do not agree, by key.
    #[serde(skip)]
    pub examples: Vec<Difference>,
}

/// Both states of a partition.
pub(super) struct Both {
    number: i32,
    rerun: Rerun,
    live: Live,
    moving: BTreeSet<Vec<u8>>,
}

impl Subject<'_> {
    /// Rebuilds the state of one partition and compares it; of what differs, the first `examples` are kept.
    /// Holds both states in memory. Ask [`Subject::refusal`] before.
    ///
    /// # Errors
    /// When the log or the registry does not answer, or the processor fails.
    pub fn compare(&self, number: i32, examples: usize) -> Result<Comparison, Fault> {
        let mut both = self.rebuild(number, &mut || Ok(()))?;
        both.compare(examples, &mut |_| Ok(()))
    }

    /// Rebuilds the state of one partition, and reads the running one.
    pub(super) fn rebuild(&self, number: i32, beat: &mut Beat<'_>) -> Result<Both, Fault> {
        // Asked for in this order: whatever a transaction that is not in the cut has done to the changelog
        // stands behind `known_to`, or its records before `later`.
        let (_, known_to) = self.log.admin().watermarks(&self.changelog(number))?;
        let cut = self.committed(number)?;
        let live = self.live(number, known_to, beat)?;
        let later = self.committed(number)?;
        let mut moving = live.moving.clone();
        self.read_between(number, &cut, &later, &mut moving)?;
        let rerun = Rerun::new(self, number, &cut, live.at, beat)?;
        Ok(Both {
            number,
            rerun,
            live,
            moving,
        })
    }

    /// The changelog of a partition as it stands.
    fn live(&self, number: i32, known_to: i64, beat: &mut Beat<'_>) -> Result<Live, Fault> {
        let mut live = Live::default();
        let stretch = Stretch {
            at: self.changelog(number),
            from: Offset::Beginning,
            wanted: None,
        };
        let mut count = 0u32;
        scan(self.log, &[stretch], |record| {
            count = count.wrapping_add(1);
            if count.is_multiple_of(10_000) {
                beat()?;
            }
            let Some(key) = record.key.as_deref() else {
                return Ok(());
            };
            live.at = live.at.max(Timestamp::from_millis(record.timestamp_ms));
            if record.origin.offset >= known_to {
                live.moving.insert(entity(key).to_vec());
            }
            live.shard.load(key, record.value.as_deref());
            Ok::<(), Fault>(())
        })?;
        // Somewhere in the millisecond.
        live.at.0 += 999;
        Ok(live)
    }

    /// Keys of the records that the group has read meanwhile.
    fn read_between(
        &self,
        number: i32,
        from: &Offsets,
        to: &Offsets,
        keys: &mut BTreeSet<Vec<u8>>,
    ) -> Result<(), Fault> {
        let moved = self.inputs(number).filter(|at| from.get(at) != to.get(at));
        let stretches: Vec<Stretch> = moved
            .map(|at| Stretch {
                from: Offset::At(from.get(&at).copied().unwrap_or(0)),
                at,
                wanted: None,
            })
            .collect();
        scan(self.log, &stretches, |record| {
            keys.extend(record.key.as_deref().map(<[u8]>::to_vec));
            Ok::<(), Fault>(())
        })?;
        Ok(())
    }
}

/// A changelog that was read.
#[derive(Default)]
struct Live {
    shard: Shard,
    /// Keys of which something was written while it was read.
    moving: BTreeSet<Vec<u8>>,
    /// When the last of it was written.
    at: Timestamp,
}

impl Both {
    /// Compares key by key, in their order. `each` is given what has to be written to put right what does
    /// not agree.
    pub fn compare(
        &mut self,
        examples: usize,
        each: &mut dyn FnMut(&Difference) -> Result<(), Fault>,
    ) -> Result<Comparison, Fault> {
        let mut comparison = Comparison {
            partition: self.number,
            records: self.rerun.records,
            without_transaction: self.rerun.without_transaction,
            moving: self.moving.len() as u64,
            ..Comparison::default()
        };
        let (expected, actual) = (&self.rerun.shard, &self.live.shard);
        let mut keys: Vec<&[u8]> = expected.iter().map(|(key, _)| key).collect();
        let extra = actual.iter().map(|(key, _)| key);
        keys.extend(extra.filter(|key| expected.get(key).is_none()));
        keys.sort_unstable();
        let processor = &mut self.rerun.processor;
        for keys in keys.chunk_by(|a, b| entity(a) == entity(b)) {
            if keys
                .first()
                .is_some_and(|k| self.moving.contains(entity(k)))
            {
                continue;
            }
            let differs = |key: &&&[u8]| expected.get(key) != actual.get(key);
            let differing = keys.iter().filter(differs).count();
            if differing == 0
                || say_the_same(processor.as_mut(), keys, expected, actual, self.live.at)
            {
                comparison.equal += keys.len() as u64;
                continue;
            }
            for key in keys {
                let Some(difference) = difference(processor.as_ref(), key, expected, actual) else {
                    comparison.equal += 1;
                    continue;
                };
                comparison.different += 1;
                each(&difference)?;
                if comparison.examples.len() < examples {
                    comparison.examples.push(difference);
                }
            }
        }
        Ok(comparison)
    }
}

/// An entry beside what it should be; `None` where it is that, but for what depends on the run.
fn difference(
    processor: &dyn Processor,
    key: &[u8],
    expected: &Shard,
    actual: &Shard,
) -> Option<Difference> {
    let (rebuilt, actual) = (expected.get(key), actual.get(key));
    let expected = match (rebuilt, actual) {
        (Some(rebuilt), Some(actual)) => processor
            .adopt(key, rebuilt, actual)
            .or_else(|| Some(rebuilt.to_vec())),
        (rebuilt, _) => rebuilt.map(<[u8]>::to_vec),
    };
    if expected.as_deref() == actual {
        return None;
    }
    let told = |value: Option<&[u8]>| value.and_then(|v| processor.describe(key, v));
    let mut fields = Vec::new();
    if let (Some(expected), Some(actual)) = (told(expected.as_deref()), told(actual)) {
        compare_fields("", &expected, &actual, &mut fields);
    }
    Some(Difference {
        key: key.to_vec(),
        expected,
        actual: actual.map(<[u8]>::to_vec),
        fields,
    })
}

fn compare_fields(
    path: &str,
    expected: &Value,
    actual: &Value,
    into: &mut Vec<(String, Value, Value)>,
) {
    let (Value::Object(e), Value::Object(a)) = (expected, actual) else {
        if expected != actual {
            into.push((path.to_owned(), expected.clone(), actual.clone()));
        }
        return;
    };
    let names: BTreeSet<&String> = e.keys().chain(a.keys()).collect();
    for name in names {
        let path = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        let of = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned();
        let (e, a) = (of(e).unwrap_or(Value::Null), of(a).unwrap_or(Value::Null));
        compare_fields(&path, &e, &a, into);
    }
}

/// Whether both states of a key say the same once somebody has looked at them at the same time: a table
/// that has changed, and time that has passed, reach a key when it is looked at.
fn say_the_same(
    processor: &mut dyn Processor,
    keys: &[&[u8]],
    expected: &Shard,
    actual: &Shard,
    now: Timestamp,
) -> bool {
    let mut looked_at = |shard: &Shard| {
        let mut copy = Shard::new();
        for key in keys {
            copy.load(key, shard.get(key));
        }
        let has_tables = !processor.descriptor().tables.is_empty();
        let key = keys.first().map(|key| entity(key)).unwrap_or_default();
        if let (true, Ok(key)) = (has_tables && !copy.is_empty(), std::str::from_utf8(key)) {
            let mut output = Output::default();
            let mut context = Context::new(&mut copy, &mut output, now);
            // What cannot be read does not say the same as what can.
            processor.process(key, &[], &mut context).ok()?;
        }
        if let Ok(key) = std::str::from_utf8(key) {
            processor.canonical(key, &mut copy);
        }
        Some(copy)
    };
    let (Some(expected), Some(actual)) = (looked_at(expected), looked_at(actual)) else {
        return false;
    };
    let all: BTreeSet<&[u8]> = expected
        .iter()
        .chain(actual.iter())
        .map(|(k, _)| k)
        .collect();
    all.iter()
        .all(|key| difference(processor, key, &expected, &actual).is_none())
}
