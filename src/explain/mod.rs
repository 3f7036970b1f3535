//! Why a number or an order is what it is: everything in the log that made it so, in order, in retail
//! words.
//!
//! Nothing is kept for this: the answer is read from the topics alone. How it is found:
//!
//! - A key lives in one partition of each topic of its family, so only those partitions are read, all
//!   at the same time ([`crate::log::scan`]). Keys are compared as bytes where the log hands records
//!   out; only those of the key are copied and decoded.
//! - What leads on to other keys is followed by what the records say: from an order's claims to the
//!   positions that decided on them, from its payments to the settlements that name them, and from
//!   these to the payout's postings.
//! - What a record meant for its readers comes from their dispositions (read from the time of the
//!   oldest record of the answer on) and dead letters; what a system was told, from the receipts of its
//!   sink. Exceptions are keyed by case: their topic is read whole, and what does not name the subject
//!   is passed over undecoded.
//!
//! What retention or compaction has removed cannot be told; the answer says from where on it knows.

mod order;
mod search;
mod stock;
mod story;
mod words;

pub use order::{LineNow, OrderAnswer, OrderNow, OrderQuestion, order};
pub use stock::{Now, StockAnswer, StockQuestion, Sum, Told, stock};
pub use story::{Entry, Verdict};

use crate::codec::Codec;
use crate::contract::event::{BusinessException, Event, ExceptionStatus, Outcome, Text};
use crate::contract::{Catalogue, topic};
use crate::domain::compound_key;
use crate::log::scan::{Stretch, scan};
use crate::log::{Log, LogError, Offset, Offsets, TopicPartition, partition_for};
use crate::pipeline::{Fault, Origin, Record};
use crate::processors;
use crate::runtime::group_id;
use search::Wanted;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Whoever settles a record may run on a clock that is behind the writer's by this much.
const CLOCK_SKEW_MAX_MS: i64 = 300_000;

/// Where to look, and how much to tell.
pub struct Sources<'a> {
    /// The log.
    pub log: &'a dyn Log,
    /// Decodes its records.
    pub codec: &'a Codec,
    /// The topics.
    pub catalogue: &'a Catalogue,
    /// First part of the group ids of the deployment.
    pub application: &'a str,
    /// Most records told of each topic; the latest are kept.
    pub records_max: usize,
}

/// An answer in the making.
struct Inquiry<'a> {
    sources: &'a Sources<'a>,
    /// Partitions of the topics that there are.
    existing: BTreeMap<String, i32>,
    gaps: BTreeSet<String>,
    records_read: u64,
    /// Open cases by id, in words.
    cases: BTreeMap<String, String>,
}

/// How records ended, by reader, where that is known.
type Outcomes = HashMap<Origin, Vec<Verdict>>;

impl<'a> Inquiry<'a> {
    fn new(sources: &'a Sources<'a>) -> Result<Self, Fault> {
        let topics = sources.log.admin().topics()?.into_iter();
        Ok(Inquiry {
            sources,
            existing: topics.map(|t| (t.name, t.partitions)).collect(),
            gaps: BTreeSet::new(),
            records_read: 0,
            cases: BTreeMap::new(),
        })
    }

    /// Gathers what is wanted from those topics that exist; notes what is not there any more.
    fn search(&mut self, wanted: &[Wanted]) -> Result<Vec<Record>, Fault> {
        let found = search::search(self.sources, &self.existing, wanted)?;
        self.records_read += found.records_read;
        for (topic, left_out) in &found.left_out {
            self.gaps
                .insert(format!("{left_out} older records of {topic} are not shown"));
        }
        for (partition, first) in &found.cut_off {
            self.gaps.insert(format!(
                "{partition}: records before offset {first} are past their retention"
            ));
        }
        Ok(found.records)
    }

    /// The record in words, or why there are none.
    fn decode(&self, record: &Record) -> Result<Event, Box<Entry>> {
        let decoded = self.sources.codec.decode(record);
        decoded.map_err(|fault| Box::new(Entry::unreadable(record, &fault)))
    }

    /// Existing topics that `reader_of` finds a reader for.
    fn topics_of_readers(&self, reader_of: impl Fn(&str) -> Option<&str>) -> Vec<&str> {
        let names = self.existing.keys().map(String::as_str);
        names.filter(|t| reader_of(t).is_some()).collect()
    }

    /// What these readers said of these records: their words on those that they did not simply apply,
    /// and APPLIED for all others that their groups have passed.
    fn outcomes(&mut self, readers: &[&str], records: &[Record]) -> Result<Outcomes, Fault> {
        let mut read: Vec<(&str, Vec<TopicPartition>)> = Vec::new();
        for reader in readers {
            let inputs = processors::find(reader).map_or(&[][..], |p| p.descriptor.inputs);
            let of_reader = records
                .iter()
                .filter(|r| inputs.contains(&&*r.origin.topic))
                .map(|r| TopicPartition {
                    topic: r.origin.topic.clone(),
                    partition: r.origin.partition,
                });
            let partitions: BTreeSet<TopicPartition> = of_reader.collect();
            if !partitions.is_empty() {
                read.push((reader, partitions.into_iter().collect()));
            }
        }
        let mut outcomes = Outcomes::new();
        let mut heard = false;
        let mut keys: Vec<Text> = Vec::new();
        for ((reader, partitions), passed) in read.iter().zip(self.passed(&read)) {
            let passed = passed?;
            heard |= !passed.is_empty();
            for record in records {
                let place = TopicPartition {
                    topic: record.origin.topic.clone(),
                    partition: record.origin.partition,
                };
                if passed
                    .get(&place)
                    .is_some_and(|to| record.origin.offset < *to)
                {
                    let verdicts = outcomes.entry(record.origin.clone()).or_default();
                    verdicts.push(Verdict {
                        reader: (*reader).to_owned(),
                        outcome: Outcome::Applied,
                        reason: None,
                    });
                }
            }
            keys.extend(
                partitions
                    .iter()
                    .map(|p| compound_key(&[*reader, &p.topic, &p.partition.to_string()])),
            );
        }
        if !heard && let Some((reader, _)) = read.first() {
            let group = group_id(self.sources.application, reader);
            self.gaps.insert(format!(
                "how records ended: no group such as {group} has read any of them; where the deployment has another name, give it with --application"
            ));
        }
        let oldest = records.iter().map(|r| r.timestamp_ms).min();
        if let (Some(oldest), false) = (oldest, keys.is_empty()) {
            self.hear_dispositions(&keys, oldest - CLOCK_SKEW_MAX_MS, &mut outcomes)?;
        }
        Ok(outcomes)
    }

    /// How far each group has come. Each asks its coordinator: all at once.
    fn passed(&self, read: &[(&str, Vec<TopicPartition>)]) -> Vec<Result<Offsets, LogError>> {
        let admin = self.sources.log.admin();
        std::thread::scope(|scope| {
            let asked = read.iter().map(|(reader, partitions)| {
                let group = group_id(self.sources.application, reader);
                scope.spawn(move || admin.group_offsets(&group, partitions))
            });
            let asked: Vec<_> = asked.collect();
            let lost = || LogError::Other("asking for a group's offsets ended unexpectedly".into());
            let answer = asked
                .into_iter()
                .map(|a| a.join().unwrap_or_else(|_| Err(lost())));
            answer.collect()
        })
    }

    /// Takes in what was said under these keys since then.
    fn hear_dispositions(
        &mut self,
        keys: &[Text],
        since_ms: i64,
        outcomes: &mut Outcomes,
    ) -> Result<(), Fault> {
        let Some(partitions) = self.existing.get(topic::OPS_DISPOSITION) else {
            return Ok(());
        };
        let mut by_partition: BTreeMap<i32, HashSet<Vec<u8>>> = BTreeMap::new();
        for key in keys {
            let number = partition_for(key.as_bytes(), *partitions);
            let keys = by_partition.entry(number).or_default();
            keys.insert(key.as_bytes().to_vec());
        }
        let mut stretches = Vec::new();
        for (number, keys) in by_partition {
            let at = TopicPartition::new(topic::OPS_DISPOSITION, number);
            let from = self.sources.log.admin().offset_at(&at, since_ms)?;
            stretches.push(Stretch::of_keys(at, Offset::At(from), keys));
        }
        let codec = self.sources.codec;
        self.records_read += scan(self.sources.log, &stretches, |record| {
            let Ok(Event::DispositionRecord(said)) = codec.decode(record) else {
                return Ok::<(), Fault>(());
            };
            let topic: Arc<str> = Arc::from(&*said.topic);
            for other in said.others.into_iter().filter(|o| o.effect.is_empty()) {
                let origin = Origin {
                    topic: topic.clone(),
                    partition: said.partition,
                    offset: other.offset,
                };
                let verdicts = outcomes.get_mut(&origin).map(Vec::as_mut_slice);
                let of_reader = verdicts.unwrap_or_default().iter_mut();
                for verdict in of_reader.filter(|v| *v.reader == *said.reader) {
                    verdict.outcome = other.outcome;
                    verdict.reason = other.reason.as_ref().map(ToString::to_string);
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Takes in an exception: whether it is open.
    fn case(&mut self, case: &BusinessException) {
        let id = case.exception_id.to_string();
        let is_open = matches!(
            case.status,
            ExceptionStatus::Open
                | ExceptionStatus::AutoHealing
                | ExceptionStatus::Assigned
                | ExceptionStatus::Escalating
                | ExceptionStatus::Regressed
        );
        if !is_open {
            self.cases.remove(&id);
            return;
        }
        let words = format!(
            "{}: expected {}, found {}",
            case.code,
            case.expected.as_deref().unwrap_or("?"),
            case.actual.as_deref().unwrap_or("?")
        );
        self.cases.insert(id, words);
    }
}

/// Gives each entry its outcomes, with what the dead letters among `letters` say of the reasons.
fn settle(story: &mut [Entry], mut outcomes: Outcomes, letters: &HashMap<(Origin, Text), String>) {
    for entry in story {
        let origin = Origin {
            topic: Arc::from(entry.topic.as_str()),
            partition: entry.partition,
            offset: entry.offset,
        };
        entry.outcomes = outcomes.remove(&origin).unwrap_or_default();
        for verdict in &mut entry.outcomes {
            let letter = (origin.clone(), Text::from(verdict.reader.as_str()));
            if let Some(why) = letters.get(&letter)
                && verdict.outcome == Outcome::DeadLettered
            {
                verdict.reason = Some(why.clone());
            }
        }
    }
}

/// What a dead letter says, by the record and the reader that it is about.
fn letter(event: &Event) -> Option<((Origin, Text), String)> {
    let Event::DeadLetter(letter) = event else {
        return None;
    };
    let original = letter.original.as_ref()?;
    let origin = Origin {
        topic: Arc::from(&*original.topic),
        partition: original.partition,
        offset: original.offset,
    };
    let words = format!("{}: {}", letter.code, letter.message);
    Some(((origin, letter.processor.clone()), words))
}
