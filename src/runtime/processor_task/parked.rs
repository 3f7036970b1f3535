//! What a processor has parked: kept in its park topic with its bytes, until it goes on.
//!
//! A processor that waits for a fact remembers what the waiting records said, not what they were. When
//! it gives up waiting, their bytes are read back from where they stand.

use super::super::outbox::Failed;
use super::ProcessorTask;
use crate::contract::event::Text;
use crate::contract::park_key;
use crate::domain::Timestamp;
use crate::log::{Isolation, LogError, Offset, Producer, TopicPartition};
use crate::pipeline::{Code, Fault, Headers, Origin, Record, Stage};
use std::collections::BTreeMap;
use std::time::Duration;

/// Records read back at a time, and how long for.
const READ_RECORDS: usize = 10_000;
const READ_WAIT: Duration = Duration::from_millis(50);
/// Reads that bring nothing, after which the log is said to be unwell.
const EMPTY_READS_MAX: u32 = 60;

/// What the transaction under way does to the park topic.
#[derive(Default)]
pub(super) struct Parked {
    /// Records that are at hand.
    records: Vec<Record>,
    /// Records that stand in the log, with their keys.
    elsewhere: BTreeMap<Origin, Text>,
    /// Records that go on, with their keys.
    gone: Vec<(Origin, Text)>,
}

impl Parked {
    pub fn add(&mut self, record: &Record) {
        self.records.push(record.clone());
    }
    pub fn add_from_log(&mut self, origin: Origin, key: &str) {
        self.elsewhere.insert(origin, key.into());
    }
    pub fn remove(&mut self, origin: Origin, key: &str) {
        self.gone.push((origin, key.into()));
    }
    pub fn clear(&mut self) {
        self.records.clear();
        self.elsewhere.clear();
        self.gone.clear();
    }
}

impl ProcessorTask {
    /// Writes what is parked now, and takes out what is no longer.
    pub(super) fn write_parked(
        &mut self,
        producer: &mut dyn Producer,
        now: Timestamp,
    ) -> Result<(), Failed> {
        let mut parked = std::mem::take(&mut self.parked);
        let written = self.write_all_parked(&mut parked, producer, now);
        parked.clear();
        self.parked = parked;
        written
    }

    fn write_all_parked(
        &mut self,
        parked: &mut Parked,
        producer: &mut dyn Producer,
        now: Timestamp,
    ) -> Result<(), Failed> {
        // One that came and goes on within the transaction was never parked.
        for (origin, _) in &parked.gone {
            parked.elsewhere.remove(origin);
            parked.records.retain(|r| r.origin != *origin);
        }
        let found = self.read_back(&parked.elsewhere)?;
        let fault = Fault::reject(
            Stage::Process,
            Code::TooEarly,
            "what it belongs to has not come; it goes on by itself once it has",
        );
        for record in parked.records.iter().chain(&found) {
            let origin = &record.origin;
            let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default());
            let key = park_key(&origin.topic, &key, origin.offset);
            let place = (self.park_topic.as_str(), key.as_str());
            self.outbox
                .keep_waiting(producer, place, record, &fault, now)?;
        }
        for (origin, key) in &parked.gone {
            let key = park_key(&origin.topic, key, origin.offset);
            let topic = &self.park_topic;
            self.outbox
                .unpark(producer, topic, origin.partition, &key, now)?;
        }
        Ok(())
    }

    /// Records as they stand in the log. One that retention has removed comes without its bytes: where
    /// it stood and what it said of its key is all that is left.
    fn read_back(&self, places: &BTreeMap<Origin, Text>) -> Result<Vec<Record>, LogError> {
        let mut spans: BTreeMap<TopicPartition, (i64, i64)> = BTreeMap::new();
        for origin in places.keys() {
            let at = TopicPartition {
                topic: origin.topic.clone(),
                partition: origin.partition,
            };
            let span = spans.entry(at).or_insert((origin.offset, origin.offset));
            *span = (span.0.min(origin.offset), span.1.max(origin.offset));
        }
        if spans.is_empty() {
            return Ok(Vec::new());
        }
        let from: Vec<_> = spans
            .iter()
            .map(|(at, (first, _))| (at.clone(), Offset::At(*first)))
            .collect();
        let mut reader = self.log.reader(&from, Isolation::ReadCommitted)?;
        let mut found: BTreeMap<Origin, Record> = BTreeMap::new();
        let (mut read, mut empty) = (Vec::new(), 0);
        while found.len() < places.len() && !reader.caught_up() {
            let mut all = spans.iter();
            if all.all(|(at, (_, last))| reader.position(at).is_some_and(|next| next > *last)) {
                break;
            }
            reader.poll(READ_RECORDS, READ_WAIT, &mut read)?;
            empty = if read.is_empty() { empty + 1 } else { 0 };
            if empty > EMPTY_READS_MAX {
                let words =
                    "records that are to be parked could not be read back; is a broker down?";
                return Err(LogError::TimedOut(words.into()));
            }
            let wanted = read.drain(..).filter(|r| places.contains_key(&r.origin));
            found.extend(wanted.map(|r| (r.origin.clone(), r)));
        }
        let all = places.iter().map(|(origin, key)| {
            found.remove(origin).unwrap_or_else(|| {
                tracing::warn!(record = %origin, "a record to be parked is no longer in the log");
                Record {
                    origin: origin.clone(),
                    timestamp_ms: 0,
                    key: Some(key.as_bytes().to_vec().into()),
                    value: None,
                    headers: Headers::default(),
                }
            })
        });
        Ok(all.collect())
    }
}
