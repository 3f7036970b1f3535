//! Dead letters: found, judged, mended, sent once more or put aside.
//!
//! A dead letter stays where it is; what was done about it stands in the audit topic, under the letter's
//! topic and partition, and is written in one transaction with the doing. So a letter is redriven once,
//! a run that was interrupted goes on where it ended, and two operators cannot do the same thing twice.
//!
//! A redriven record goes back to the topic that it came from: as a new record with the original key,
//! value and headers, which every reader of that topic settles anew, and which readers that knew it
//! already recognise as a duplicate. The books say of the original that it is COMPENSATED. Letters are
//! read one partition after the other, so those of a key keep their order, and memory holds no more of
//! them than one transaction does.

mod act;
mod history;
mod judge;
mod mend;
mod release;
mod show;

pub use act::{Act, Actor, Limits, Report, discard, edit, redrive};
pub use history::{Deed, Done, History};
pub use judge::{Judge, Refusal};
pub use mend::{Change, Mended, mended};
pub use release::{Holder, holders, release};
pub use show::{Shown, show};

use crate::codec::Codec;
use crate::contract::Catalogue;
use crate::contract::event::{DeadLetter, Event};
use crate::domain::{Timestamp, split_key};
use crate::log::scan::{Stretch, scan};
use crate::log::{Log, LogError, Offset, TopicPartition};
use crate::pipeline::{Fault, Origin, Record};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A deployment's dead letters.
pub struct Letters<'a> {
    /// The log.
    pub log: &'a dyn Log,
    /// Reads and writes its records.
    pub codec: &'a Codec,
    /// The topics.
    pub catalogue: &'a Catalogue,
    /// First part of the transactional ids of the deployment.
    pub application: &'a str,
}

/// A dead letter, and where it stands.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Topic, partition and offset of the letter.
    pub at: Origin,
    /// When it was written.
    pub written_at: Timestamp,
    /// What it says.
    pub dead: DeadLetter,
}

/// Which dead letters. Nothing chosen: every one that is open.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only in this dead-letter topic, of this reader, or of records of this topic.
    pub topic: Option<String>,
    /// Only with this code.
    pub code: Option<String>,
    /// Only with this key.
    pub key: Option<String>,
    /// Only of this order.
    pub order: Option<String>,
    /// Only written at this time or later.
    pub since: Option<Timestamp>,
    /// Only written before this time.
    pub until: Option<Timestamp>,
    /// Only this one.
    pub at: Option<Origin>,
    /// Those that are done, too.
    pub done: bool,
}

/// Reads a place as it is printed: `topic[partition]@offset`.
///
/// # Errors
/// In words, when it is none.
pub fn place(text: &str) -> Result<Origin, String> {
    let parts = || {
        let (topic, rest) = text.split_once('[')?;
        let (partition, offset) = rest.split_once("]@")?;
        Some(Origin {
            topic: Arc::from(topic),
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    };
    parts().ok_or_else(|| {
        format!("{text} is not the place of a dead letter; write it as `crossdock dlq list` does, topic[partition]@offset")
    })
}

impl Letter {
    fn of(record: &Record, event: Event) -> Option<Letter> {
        let Event::DeadLetter(dead) = event else {
            return None;
        };
        Some(Letter {
            at: record.origin.clone(),
            written_at: Timestamp::from_millis(record.timestamp_ms),
            dead,
        })
    }

    /// The record as it was, at its place; `None` when it never was one.
    pub fn record(&self) -> Option<Record> {
        crate::codec::original(&self.dead)
    }

    /// Its key as text.
    pub fn key(&self) -> String {
        let key = self.dead.key.as_ref();
        key.map_or_else(String::new, |k| String::from_utf8_lossy(&k.0).into_owned())
    }

    /// What it is about, in the words of the business: what the event says, or else its key.
    pub fn context(&self, catalogue: &Catalogue, event: Option<&Event>) -> BTreeMap<String, Value> {
        let mut context = BTreeMap::new();
        if let Some(original) = &self.dead.original {
            let names = catalogue.key_parts(&original.topic);
            for (name, part) in names.iter().zip(split_key(&self.key())) {
                context.insert((*name).to_owned(), Value::String(part));
            }
        }
        let Some(Ok(Value::Object(fields))) = event.map(serde_json::to_value) else {
            return context;
        };
        for name in CONTEXT {
            match fields.get(name) {
                None | Some(Value::Null) => {}
                Some(value) => {
                    context.insert(name.to_owned(), value.clone());
                }
            }
        }
        context
    }
}

/// Fields of events that say what a letter is about.
const CONTEXT: [&str; 15] = [
    "orderId",
    "sku",
    "locationId",
    "channelId",
    "reservationId",
    "shipmentId",
    "returnId",
    "refundId",
    "paymentId",
    "invoiceId",
    "payoutId",
    "qty",
    "amount",
    "type",
    "status",
];

impl Filter {
    fn wants_topic(&self, topic: &str, reader: &str) -> bool {
        match (&self.at, &self.topic) {
            (Some(at), _) => *at.topic == *topic,
            // The topic of the records is known by the letters alone.
            (None, Some(name)) => name == topic || name == reader || !name.ends_with(".dlq.v1"),
            (None, None) => true,
        }
    }

    fn wants(&self, letter: &Letter, reader: &str, codec: &Codec) -> bool {
        let dead = &letter.dead;
        let of_topic = |name: &str| {
            let original = dead.original.as_ref().map(|o| &*o.topic);
            name == &*letter.at.topic || name == reader || original == Some(name)
        };
        self.at.as_ref().is_none_or(|at| *at == letter.at)
            && self.topic.as_deref().is_none_or(of_topic)
            && self.code.as_deref().is_none_or(|code| code == &*dead.code)
            && self.key.as_deref().is_none_or(|key| key == letter.key())
            && self.since.is_none_or(|since| letter.written_at >= since)
            && self.until.is_none_or(|until| letter.written_at < until)
            && self
                .order
                .as_deref()
                .is_none_or(|o| is_of_order(letter, o, codec))
    }
}

fn is_of_order(letter: &Letter, order: &str, codec: &Codec) -> bool {
    if letter.key() == order {
        return true;
    }
    let event = letter.record().and_then(|r| codec.decode(&r).ok());
    let fields = event.and_then(|e| serde_json::to_value(&e).ok());
    fields.is_some_and(|f| f.get("orderId").and_then(Value::as_str) == Some(order))
}

/// A dead-letter topic and one of its partitions.
struct Part {
    reader: String,
    at: TopicPartition,
}

impl Letters<'_> {
    fn parts(&self, filter: &Filter) -> Result<Vec<Part>, LogError> {
        let mut parts = Vec::new();
        for topic in self.log.admin().topics()? {
            let reader = self.catalogue.reader_of_dead_letter_topic(&topic.name);
            let Some(reader) = reader.filter(|r| filter.wants_topic(&topic.name, r)) else {
                continue;
            };
            let numbers = (0..topic.partitions)
                .filter(|number| filter.at.as_ref().is_none_or(|at| at.partition == *number));
            parts.extend(numbers.map(|number| Part {
                reader: reader.to_owned(),
                at: TopicPartition::new(topic.name.as_str(), number),
            }));
        }
        parts.sort_by(|a, b| a.at.cmp(&b.at));
        Ok(parts)
    }

    /// Hands the letters of a partition that `filter` wants to `visit`, in order, each with what was
    /// done about it.
    fn visit<E: From<LogError> + From<Fault>>(
        &self,
        part: &Part,
        history: &History,
        filter: &Filter,
        mut visit: impl FnMut(Letter, Option<&Done>) -> Result<(), E>,
    ) -> Result<(), E> {
        let from = match (&filter.at, filter.since) {
            (Some(at), _) => Offset::At(at.offset),
            (None, Some(since)) => {
                Offset::At(self.log.admin().offset_at(&part.at, since.as_millis())?)
            }
            (None, None) => Offset::Beginning,
        };
        let stretch = Stretch {
            at: part.at.clone(),
            from,
            wanted: None,
        };
        scan(self.log, &[stretch], |record| {
            let event = match self.codec.decode(record) {
                Ok(event) => event,
                Err(fault) if fault.verdict == crate::pipeline::Verdict::Reject => {
                    tracing::error!(record = %record.origin, cause = fault.message, "a dead letter cannot be read");
                    return Ok(());
                }
                Err(fault) => return Err(fault.into()),
            };
            let Some(letter) = Letter::of(record, event) else {
                return Ok(());
            };
            let done = history.of(letter.at.offset);
            let shown = done.is_none() || filter.done;
            match shown && filter.wants(&letter, &part.reader, self.codec) {
                true => visit(letter, done),
                false => Ok(()),
            }
        })
        .map(drop)
    }

    /// Hands every letter that `filter` wants to `visit`: by topic and partition, in order.
    ///
    /// # Errors
    /// When the log or the registry does not answer; and what `visit` fails with, which ends it.
    pub fn list<E: From<LogError> + From<Fault>>(
        &self,
        filter: &Filter,
        mut visit: impl FnMut(&Listed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for part in self.parts(filter)? {
            let history = History::read(self, &part.at)?;
            self.visit(&part, &history, filter, |letter, done| {
                let event = letter.record().and_then(|r| self.codec.decode(&r).ok());
                visit(&Listed {
                    context: letter.context(self.catalogue, event.as_ref()),
                    letter: &letter,
                    done,
                })
            })?;
        }
        Ok(())
    }
}

/// A letter in a list.
pub struct Listed<'a> {
    /// The letter.
    pub letter: &'a Letter,
    /// What was done about it; `None` while it is open.
    pub done: Option<&'a Done>,
    /// What it is about.
    pub context: BTreeMap<String, Value>,
}

/// A letter in short.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Its place.
    pub letter: String,
    /// When it was written.
    pub written_at: Timestamp,
    /// Who could not take the record.
    pub reader: String,
    /// The record's place, or where in a source it was found.
    pub original: String,
    /// The record's key.
    pub key: String,
    /// Why, as a code.
    pub code: String,
    /// Why, in words.
    pub message: String,
    /// How often it was tried.
    pub attempts: i32,
    /// How often it has been redriven before.
    pub redrives: i32,
    /// What it is about.
    pub context: BTreeMap<String, Value>,
    /// What was done about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<Done>,
}

impl Listed<'_> {
    /// In short.
    pub fn line(&self) -> Line {
        let dead = &self.letter.dead;
        Line {
            letter: self.letter.at.to_string(),
            written_at: self.letter.written_at,
            reader: dead.processor.to_string(),
            original: original(dead),
            key: self.letter.key(),
            code: dead.code.to_string(),
            message: dead.message.to_string(),
            attempts: dead.attempts,
            redrives: dead.redrive_count,
            context: self.context.clone(),
            done: self.done.cloned(),
        }
    }
}

fn original(dead: &DeadLetter) -> String {
    match (&dead.original, &dead.source_origin) {
        (Some(o), _) => format!("{}[{}]@{}", o.topic, o.partition, o.offset),
        (None, Some(s)) => format!("{} {}:{}", s.system, s.container, s.item),
        (None, None) => "?".to_owned(),
    }
}
