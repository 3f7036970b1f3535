//! What others write into the park topic, which is how a sink hears of it, wherever it runs.
//!
//! `crossdock dlq discard` takes the place of a dead letter out: its key goes on. `crossdock replay` puts
//! records in: each takes its place in the line of its key, so whoever owns the key sends it, within the
//! target's budget, and what comes meanwhile waits behind it. What the sink writes there itself is passed
//! over.

use super::super::lane::Lane;
use super::SinkTask;
use crate::contract::event::{Event, Text};
use crate::contract::parked_place;
use crate::domain::Timestamp;
use crate::log::{Isolation, Offset, Reader, TopicPartition};
use crate::pipeline::{Fault, Verdict};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often is looked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Records looked at at a time.
const LOOK_RECORDS: usize = 1_000;

/// How far the park topic is followed.
#[derive(Default)]
pub(super) struct Releases {
    reader: Option<Box<dyn Reader>>,
    /// Partitions that the reader follows.
    follows: Vec<TopicPartition>,
    looked_at: Timestamp,
}

impl SinkTask {
    /// Lets go keys whose dead letter was discarded, and takes in what is replayed.
    pub(super) fn follow_releases(&mut self, now: Timestamp) -> Result<(), Fault> {
        let rests = now.since(self.releases.looked_at) < LOOK_INTERVAL;
        if rests && now >= self.releases.looked_at {
            return Ok(());
        }
        self.releases.looked_at = now;
        self.follow_lanes()?;
        let Some(reader) = &mut self.releases.reader else {
            return Ok(());
        };
        let mut records = Vec::new();
        reader.poll(LOOK_RECORDS, Duration::ZERO, &mut records)?;
        if records.len() >= LOOK_RECORDS {
            // There is more.
            self.releases.looked_at = Timestamp::default();
        }
        for record in records {
            let is_of_others = record.value.is_none() || record.is_replayed();
            let key = record.key.as_deref().map(std::str::from_utf8);
            let Some((topic, key, offset)) = key.and_then(Result::ok).and_then(parked_place) else {
                continue;
            };
            let input = TopicPartition::new(topic, record.origin.partition);
            // What a lane was restored from tells it nothing new.
            let is_new = |lane: &&mut Lane| lane.ready() && record.origin.offset >= lane.parked_to;
            let lane = self.lanes.get_mut(&input).filter(is_new);
            let Some(lane) = lane.filter(|_| is_of_others) else {
                continue;
            };
            if record.value.is_some() {
                let taken = match self.codec.decode(&record) {
                    Ok(Event::DeadLetter(letter)) => lane.replay(letter, now),
                    Err(fault) if fault.verdict != Verdict::Reject => {
                        // It is read again.
                        self.releases = Releases::default();
                        return Err(fault);
                    }
                    other => {
                        let cause = other.err();
                        tracing::error!(record = %record.origin, ?cause, "what is to be replayed cannot be read and stays where it is");
                        None
                    }
                };
                if let Some(key) = taken {
                    self.queue_up(&key, &input, now);
                }
            } else if lane.parking.release(&Text::from(key), offset, now) {
                tracing::info!(
                    sink = self.name,
                    key,
                    "key goes on: its dead letter was discarded"
                );
            }
        }
        let Some(reader) = &self.releases.reader else {
            return Ok(());
        };
        for (input, lane) in self.lanes.iter_mut().filter(|(_, l)| l.ready()) {
            let parked = TopicPartition::new(self.park_topic.clone(), input.partition);
            if let Some(position) = reader.position(&parked) {
                lane.parked_to = position;
            }
        }
        Ok(())
    }

    /// Reads the partitions of the lanes, from where each is known.
    fn follow_lanes(&mut self) -> Result<(), Fault> {
        let ready = self.lanes.iter().filter(|(_, l)| l.ready());
        let mut known: BTreeMap<i32, i64> = BTreeMap::new();
        for (input, lane) in ready {
            let first = known.entry(input.partition).or_insert(lane.parked_to);
            *first = (*first).min(lane.parked_to);
        }
        let parked = |number| TopicPartition::new(self.park_topic.clone(), number);
        let known = known.into_iter();
        let from: Vec<(TopicPartition, Offset)> = known
            .map(|(number, at)| (parked(number), Offset::At(at)))
            .collect();
        let follows: Vec<TopicPartition> = from.iter().map(|(p, _)| p.clone()).collect();
        if follows.is_empty() {
            self.releases.reader = None;
            self.releases.follows = follows;
            return Ok(());
        }
        // A lane that has come to a partition which is followed already knows less of it than the others.
        let is_behind = |reader: &dyn Reader| {
            let mut from = from.iter();
            from.any(|(p, at)| reader.position(p).is_some_and(|to| *at != Offset::At(to)))
        };
        let reader = self.releases.reader.as_deref();
        if self.releases.follows != follows || reader.is_none_or(is_behind) {
            self.releases.reader = Some(self.log.reader(&from, Isolation::ReadCommitted)?);
            self.releases.follows = follows;
        }
        Ok(())
    }
}
