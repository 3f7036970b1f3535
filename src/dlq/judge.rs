//! Whether a record would fare better than it did: judged before it is sent once more.
//!
//! What depends on the record alone is found out by asking: the codec, and the processor itself, on an
//! empty state of its own. What depends on what the processor knows (an unknown reference, an illegal
//! step) or on a system only the next try can tell.

use super::{Letter, Letters};
use crate::contract::SINKS;
use crate::contract::event::Event;
use crate::domain::Timestamp;
use crate::log::scan::{Stretch, scan};
use crate::log::{Offset, TopicPartition};
use crate::pipeline::{Code, Context, Fault, Inbound, Output, Record, Verdict};
use crate::processors;
use crate::state::Shard;
use serde::Serialize;
use std::collections::HashMap;

/// Code of a refusal: a newer state stands behind the letter's.
pub(super) const SUPERSEDED: &str = "SUPERSEDED";

/// Why a letter is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// A code.
    pub code: &'static str,
    /// Cause and remedy.
    pub why: String,
}

impl Refusal {
    fn new(code: &'static str, why: impl Into<String>) -> Refusal {
        Refusal {
            code,
            why: why.into(),
        }
    }
}

/// Judges the letters of one run.
pub struct Judge<'a> {
    letters: &'a Letters<'a>,
    /// Redrives of one record, at most.
    redrives_max: i32,
    /// Of partitions of state topics: the last offset of each key, by a digest of it.
    newest: HashMap<TopicPartition, HashMap<u64, i64>>,
}

impl<'a> Judge<'a> {
    /// With a limit to the redrives of one record.
    pub fn new(letters: &'a Letters<'a>, redrives_max: i32) -> Judge<'a> {
        Judge {
            letters,
            redrives_max,
            newest: HashMap::new(),
        }
    }

    /// The record that a redrive of this letter sends, or why there is none.
    ///
    /// # Errors
    /// When the log or the registry does not answer.
    pub fn redriven(
        &mut self,
        letter: &Letter,
        now: Timestamp,
    ) -> Result<Result<Record, Refusal>, Fault> {
        let dead = &letter.dead;
        let Some(record) = letter.record() else {
            return Ok(Err(Refusal::new(
                "FROM_SOURCE",
                format!(
                    "it never was a record: mend it where it was found, {}, and the source reads it again; then discard this letter",
                    super::original(dead)
                ),
            )));
        };
        if dead.redrive_count >= self.redrives_max {
            let count = dead.redrive_count;
            return Ok(Err(Refusal::new(
                "LOOP",
                format!(
                    "it has come back from {count} redrives; mend its cause, then allow more with --redrives-max, or discard it"
                ),
            )));
        }
        if dead.code == Code::Oversize.as_str() && record.value.is_none() {
            return Ok(Err(Refusal::new(
                Code::Oversize.as_str(),
                "the record is too large for its topic and was left there; its producer must send less",
            )));
        }
        if let Err(refusal) = self.reads(&dead.processor, &record, now)? {
            return Ok(Err(refusal));
        }
        if self.is_overtaken(&record)? {
            return Ok(Err(Refusal::new(
                SUPERSEDED,
                "a newer state of its key stands in the topic; to send this one again would undo it; discard the letter",
            )));
        }
        Ok(Ok(record))
    }

    /// Whether `reader` could take this record in, as far as that depends on the record.
    ///
    /// # Errors
    /// As [`Judge::redriven`].
    pub fn reads(
        &self,
        reader: &str,
        record: &Record,
        now: Timestamp,
    ) -> Result<Result<(), Refusal>, Fault> {
        let key = match record.key.as_deref().map(std::str::from_utf8) {
            Some(Ok(key)) if !key.is_empty() => key.to_owned(),
            Some(Err(_)) => return Ok(Err(fails(Code::WrongKey, "the key is not UTF-8"))),
            _ => return Ok(Err(fails(Code::NullKey, "the record has no key"))),
        };
        let event = match self.letters.codec.decode(record) {
            Ok(event) => event,
            Err(fault) if fault.code == Code::UnknownSchemaId => {
                return Ok(Err(Refusal::new(
                    Code::UnknownSchemaId.as_str(),
                    format!(
                        "{}; bring the schema back into the registry under that id, or discard the letter",
                        fault.message
                    ),
                )));
            }
            Err(fault) if fault.verdict == Verdict::Reject => {
                return Ok(Err(fails(fault.code, &fault.message)));
            }
            Err(fault) => return Err(fault),
        };
        Ok(match rejection(reader, &key, record, event, now) {
            Some(fault) if is_of_the_record(fault.code) => Err(fails(fault.code, &fault.message)),
            _ => Ok(()),
        })
    }

    /// Whether a rejected record of this letter's reader holds up later ones of its key.
    pub fn blocks_key(&self, letter: &Letter) -> bool {
        let is_sink = processors::find(&letter.dead.processor).is_none();
        let reader = if is_sink {
            SINKS
        } else {
            &letter.dead.processor
        };
        let original = letter.dead.original.as_ref();
        original.is_some_and(|o| self.letters.catalogue.blocks_key(&o.topic, reader))
    }

    /// Of a topic of states only the newest of a key may be sent again.
    fn is_overtaken(&mut self, record: &Record) -> Result<bool, Fault> {
        let origin = &record.origin;
        if !self.letters.catalogue.is_compacted(&origin.topic) {
            return Ok(false);
        }
        let at = TopicPartition {
            topic: origin.topic.clone(),
            partition: origin.partition,
        };
        if !self.newest.contains_key(&at) {
            let stretch = Stretch {
                at: at.clone(),
                from: Offset::Beginning,
                wanted: None,
            };
            let mut newest = HashMap::new();
            scan(self.letters.log, &[stretch], |r| {
                newest.insert(digest(r.key.as_deref()), r.origin.offset);
                Ok::<(), Fault>(())
            })?;
            self.newest.insert(at.clone(), newest);
        }
        let newest = self
            .newest
            .get(&at)
            .and_then(|n| n.get(&digest(record.key.as_deref())));
        Ok(newest.is_some_and(|offset| *offset > origin.offset))
    }
}

/// A key in eight bytes.
pub(super) fn digest(key: Option<&[u8]>) -> u64 {
    use std::hash::Hasher;
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(key.unwrap_or_default());
    hasher.finish()
}

fn fails(code: Code, message: &str) -> Refusal {
    Refusal::new(
        code.as_str(),
        format!(
            "it would fail as before: {message}; mend it with `crossdock dlq edit`, or discard it"
        ),
    )
}

/// Codes that depend on nothing but the record.
fn is_of_the_record(code: Code) -> bool {
    matches!(
        code,
        Code::NullKey
            | Code::WrongKey
            | Code::DataQuality
            | Code::UnknownSymbol
            | Code::WrongContract
            | Code::Malformed
            | Code::Oversize
    )
}

/// With which fault the processor rejects the record when it knows nothing else; `None` when it takes it,
/// and for sinks.
fn rejection(
    reader: &str,
    key: &str,
    record: &Record,
    event: Event,
    now: Timestamp,
) -> Option<Fault> {
    let registered = processors::find(reader)?;
    if !registered
        .descriptor
        .inputs
        .contains(&&*record.origin.topic)
    {
        return None;
    }
    let mut processor = (registered.make)();
    let (mut shard, mut output) = (Shard::new(), Output::default());
    let inbound = [Inbound {
        record: record.clone(),
        event,
    }];
    let mut context = Context::new(&mut shard, &mut output, now);
    // A defect of the processor is not the record's.
    processor.process(key, &inbound, &mut context).ok()?;
    output.rejections.into_iter().next().map(|(_, fault)| fault)
}
