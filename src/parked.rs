//! What is parked in sinks and processors, as their park topics tell it: which keys, since when, why, what waits behind, and
//! when each is tried next.
//!
//! Entries are read once from beginning to end, and of each only what a list shows is kept; the records
//! themselves are kept of one key alone.

use crate::codec::{self, Codec};
use crate::contract::event::{DeadLetter, Event, Text};
use crate::contract::{Catalogue, parked_place};
use crate::dlq::{self, Letters};
use crate::domain::Timestamp;
use crate::log::Log;
use crate::log::scan::{Stretch, scan};
use crate::pipeline::{Fault, Origin, REDRIVEN_FROM_HEADER, Record, Verdict};
use crate::runtime::parking::is_dead;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};

/// A deployment's parked keys.
pub struct ParkedKeys<'a> {
    /// The log.
    pub log: &'a dyn Log,
    /// Reads its records.
    pub codec: &'a Codec,
    /// The topics.
    pub catalogue: &'a Catalogue,
}

/// Which parked keys. Nothing chosen: every one.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only in this sink.
    pub sink: Option<String>,
    /// Only of records of this topic.
    pub topic: Option<String>,
    /// Only this key.
    pub key: Option<String>,
    /// Only held up with this code.
    pub code: Option<String>,
}

/// A key that is held up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParkedKey {
    /// The sink, or the processor, that cannot go on with it.
    pub sink: String,
    /// The topic that the records stand in.
    pub topic: String,
    /// The key.
    pub key: String,
    /// Since when.
    pub since: Timestamp,
    /// Why, as a code.
    pub code: String,
    /// Why, in words.
    pub message: String,
    /// How often its first record was tried.
    pub attempts: i32,
    /// When it is tried next; `None` while it waits for what becomes of a dead letter, and in a processor,
    /// which goes on when what it waits for has come.
    pub next_attempt_at: Option<Timestamp>,
    /// Whether its first record was dead-lettered.
    pub dead_lettered: bool,
    /// The letter that holds it up; `None` where it is no longer there, or none does.
    pub letter: Option<String>,
    /// Place of the record that holds it up.
    pub record: String,
    /// Records that wait behind it.
    pub behind: usize,
}

impl ParkedKey {
    /// Whether it waits for a dead letter to be redriven or discarded.
    pub fn waits_for_letter(&self) -> bool {
        self.dead_lettered
    }

    /// Where the record stands that holds it up.
    pub fn place(&self) -> Option<Origin> {
        dlq::place(&self.record).ok()
    }
}

/// A record in the line of a key.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Its place.
    pub record: String,
    /// When it was written there.
    pub written_at: Timestamp,
    /// What it says; `None` where it was dead-lettered or cannot be read.
    pub event: Option<Value>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// What is kept of an entry.
struct Entry {
    since: Timestamp,
    code: Text,
    message: Text,
    attempts: i32,
    next_at: Option<Timestamp>,
    is_dead: bool,
    is_redriven: bool,
    place: Text,
}

impl Entry {
    fn of(letter: &DeadLetter) -> Entry {
        let place = letter.original.as_ref().map_or_else(Text::default, |o| {
            compact_str::format_compact!("{}[{}]@{}", o.topic, o.partition, o.offset)
        });
        Entry {
            since: letter.first_failed_at,
            code: letter.code.clone(),
            message: letter.message.clone(),
            attempts: letter.attempts,
            next_at: letter.next_retry_at,
            is_dead: is_dead(letter),
            is_redriven: letter.headers.contains_key(REDRIVEN_FROM_HEADER),
            place,
        }
    }
}

/// A sink, a topic and a key in it.
type Place = (String, Text, Text);

impl ParkedKeys<'_> {
    /// Hands what stands in the park topics of the sinks that `filter` wants to `visit`, tombstones too, those
    /// of a partition in order.
    fn visit(
        &self,
        filter: &Filter,
        mut visit: impl FnMut(Place, i64, &Record) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        for found in self.log.admin().topics()? {
            let sink = self.catalogue.reader_of_park_topic(&found.name);
            let wanted = |sink: &&str| filter.sink.as_deref().is_none_or(|wanted| wanted == *sink);
            let Some(sink) = sink.filter(wanted) else {
                continue;
            };
            let stretches = Stretch::whole(&found.name, found.partitions);
            scan(self.log, &stretches, |record| {
                let park_key = record.key.as_deref().map(std::str::from_utf8);
                let place = park_key.and_then(Result::ok).and_then(parked_place);
                let Some((topic, key, offset)) = place else {
                    return Ok(());
                };
                let is_wanted = filter.topic.as_deref().is_none_or(|wanted| wanted == topic)
                    && filter.key.as_deref().is_none_or(|wanted| wanted == key);
                if !is_wanted {
                    return Ok(());
                }
                visit((sink.to_owned(), topic.into(), key.into()), offset, record)
            })?;
        }
        Ok(())
    }

    fn letter(&self, record: &Record) -> Result<Option<DeadLetter>, Fault> {
        match self.codec.decode(record) {
            Ok(Event::DeadLetter(letter)) => Ok(Some(letter)),
            Ok(_) => Ok(None),
            Err(fault) if fault.verdict == Verdict::Reject => {
                tracing::error!(record = %record.origin, cause = fault.message, "a parked record cannot be read");
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    /// The parked keys that `filter` wants, those that are held up longest first.
    ///
    /// # Errors
    /// When the log or the registry does not answer.
    pub fn list(&self, filter: &Filter) -> Result<Vec<ParkedKey>, Fault> {
        let mut lines: BTreeMap<Place, BTreeMap<i64, Entry>> = BTreeMap::new();
        self.visit(filter, |place, offset, record| {
            let line = lines.entry(place.clone()).or_default();
            if record.value.is_none() {
                line.remove(&offset);
                if line.is_empty() {
                    lines.remove(&place);
                }
            } else if let Some(letter) = self.letter(record)? {
                line.insert(offset, Entry::of(&letter));
            }
            Ok(())
        })?;
        let mut keys: Vec<ParkedKey> = lines
            .into_iter()
            .filter_map(|((sink, topic, key), line)| {
                // A record that was redriven goes before what waited for it.
                let first = line.values().find(|e| e.is_redriven);
                let first = first.or_else(|| line.values().next())?;
                Some(ParkedKey {
                    sink,
                    topic: topic.into(),
                    key: key.into(),
                    since: first.since,
                    code: first.code.to_string(),
                    message: first.message.to_string(),
                    attempts: first.attempts,
                    next_attempt_at: first.next_at,
                    dead_lettered: first.is_dead,
                    letter: None,
                    record: first.place.to_string(),
                    behind: line.len() - 1,
                })
            })
            .filter(|key| filter.code.as_deref().is_none_or(|code| code == key.code))
            .collect();
        keys.sort_by(|a, b| (a.since, &a.sink, &a.key).cmp(&(b.since, &b.sink, &b.key)));
        self.find_letters(&mut keys)?;
        Ok(keys)
    }

    /// Finds the letters of keys that are held up by one.
    fn find_letters(&self, keys: &mut [ParkedKey]) -> Result<(), Fault> {
        let mut places: BTreeMap<String, HashSet<Origin>> = BTreeMap::new();
        for key in keys.iter().filter(|key| key.dead_lettered) {
            let places = places.entry(key.sink.clone()).or_default();
            places.extend(key.place());
        }
        let letters = Letters {
            log: self.log,
            codec: self.codec,
            catalogue: self.catalogue,
            application: "",
        };
        for (sink, places) in places {
            let holders = dlq::holders(&letters, &sink, &places)?;
            for key in keys
                .iter_mut()
                .filter(|key| key.sink == sink && key.dead_lettered)
            {
                let holder = key.place().and_then(|place| holders.get(&place));
                key.letter = holder.map(|holder| holder.letter.to_string());
            }
        }
        Ok(())
    }

    /// The line of a parked key: its records in order.
    ///
    /// # Errors
    /// As [`ParkedKeys::list`].
    pub fn line(&self, key: &ParkedKey) -> Result<Vec<Waiting>, Fault> {
        let filter = Filter {
            sink: Some(key.sink.clone()),
            topic: Some(key.topic.clone()),
            key: Some(key.key.clone()),
            code: None,
        };
        let mut line: BTreeMap<i64, DeadLetter> = BTreeMap::new();
        self.visit(&filter, |_, offset, record| {
            if record.value.is_none() {
                line.remove(&offset);
            } else if let Some(letter) = self.letter(record)? {
                line.insert(offset, letter);
            }
            Ok(())
        })?;
        let mut letters: Vec<DeadLetter> = line.into_values().collect();
        letters.sort_by_key(|l| !l.headers.contains_key(REDRIVEN_FROM_HEADER));
        let waiting = letters.iter().filter_map(|letter| {
            let record = codec::original(letter)?;
            let read = match is_dead(letter) {
                true => None,
                false => Some(self.codec.decode(&record)),
            };
            let (event, unreadable) = match read {
                Some(Ok(event)) => (serde_json::to_value(&event).ok(), None),
                Some(Err(fault)) => (None, Some(fault.to_string())),
                None => (None, None),
            };
            Some(Waiting {
                record: record.origin.to_string(),
                written_at: letter.original_timestamp,
                event,
                unreadable,
            })
        });
        Ok(waiting.collect())
    }
}
