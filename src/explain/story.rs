//! The story behind an answer: records of the log, told one by one.

use super::words;
use crate::contract::event::{Event, Outcome};
use crate::domain::{Decimal, Timestamp};
use crate::pipeline::{Fault, Record};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// One record of the log, told.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// When the log took it.
    pub recorded_at: Timestamp,
    /// When it happened, as its source says.
    pub occurred_at: Timestamp,
    /// Who said it.
    pub source: String,
    /// What it says.
    pub words: String,
    /// Its effect on sellable stock; absent where it had none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<Decimal>,
    /// How it ended for the processors that must settle it; without those that have not yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<Verdict>,
    /// Where it stands.
    pub topic: String,
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Order among records of one moment: causes before what comes of them.
    #[serde(skip)]
    pub(super) rank: usize,
}

/// What one reader made of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The processor.
    pub reader: String,
    /// How the record ended for it.
    pub outcome: Outcome,
    /// Why it ended so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.outcome, self.reader)?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

impl Entry {
    pub(super) fn of(record: &Record, event: &Event, rank: usize) -> Self {
        let meta = event.meta();
        Entry {
            occurred_at: meta.occurred_at,
            source: meta.source.to_string(),
            ..Entry::at(record, words::of(event), rank)
        }
    }

    /// A record that says nothing that this build can read.
    pub(super) fn unreadable(record: &Record, fault: &Fault) -> Self {
        let words = format!("cannot be read: {}: {}", fault.code, fault.message);
        Entry::at(record, words, 0)
    }

    fn at(record: &Record, words: String, rank: usize) -> Self {
        let at = Timestamp::from_millis(record.timestamp_ms);
        Entry {
            recorded_at: at,
            occurred_at: at,
            source: String::new(),
            words,
            quantity: None,
            outcomes: Vec::new(),
            topic: record.origin.topic.to_string(),
            partition: record.origin.partition,
            offset: record.origin.offset,
            rank,
        }
    }

    /// How it ended for this processor, where that is known.
    pub fn outcome_for(&self, reader: &str) -> Option<&Verdict> {
        self.outcomes.iter().find(|v| v.reader == reader)
    }
}

/// Puts a story in the order in which it happened in the log.
pub(super) fn order(story: &mut [Entry]) {
    story.sort_by(|a, b| {
        let key = |e: &Entry| (e.recorded_at, e.rank, e.partition, e.offset);
        key(a).cmp(&key(b))
    });
}

/// Writes the story, and what it lacks.
pub(super) fn write(
    story: &[Entry],
    gaps: &BTreeSet<String>,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    if !story.is_empty() {
        writeln!(f, "\nWhat made it so\n")?;
    }
    for e in story {
        let quantity = e
            .quantity
            .map_or_else(String::new, |q| match q.is_positive() {
                true => format!("+{q}"),
                false => q.to_string(),
            });
        let source = match e.source.is_empty() {
            true => "source unknown".to_owned(),
            false => format!("{} at {}", e.source, words::time(e.occurred_at)),
        };
        let at = words::time(e.recorded_at);
        writeln!(f, "{at}  {quantity:>8}  {}", e.words)?;
        let (topic, partition, offset) = (&e.topic, e.partition, e.offset);
        writeln!(f, "{:>36}{source}, {topic}[{partition}]@{offset}", "")?;
        // That a record was simply applied goes without saying.
        let simple = |v: &&Verdict| v.outcome != Outcome::Applied || v.reason.is_some();
        for verdict in e.outcomes.iter().filter(simple) {
            writeln!(f, "{:>36}{verdict}", "")?;
        }
    }
    if !gaps.is_empty() {
        writeln!(f, "\nNot told")?;
    }
    gaps.iter().try_for_each(|gap| writeln!(f, "  {gap}"))
}
