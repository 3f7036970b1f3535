//! Keys that wait for what becomes of a dead letter: `crossdock dlq discard` takes the letter's place out of
//! the park topic, which is how the sink hears of it, wherever it runs.
//!
//! The topic is followed only while such keys are owned.

use super::SinkTask;
use crate::contract::event::Text;
use crate::contract::parked_place;
use crate::domain::Timestamp;
use crate::log::{Isolation, Offset, Reader, TopicPartition};
use crate::pipeline::Fault;
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
    /// Lets go keys whose dead letter was discarded.
    pub(super) fn follow_releases(&mut self, now: Timestamp) -> Result<(), Fault> {
        let held = self.lanes.values().any(|l| l.parking.has_dead());
        if !held {
            self.releases = Releases::default();
            return Ok(());
        }
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
        for record in records.iter().filter(|r| r.value.is_none()) {
            let key = record.key.as_deref().map(std::str::from_utf8);
            let Some((topic, key, offset)) = key.and_then(Result::ok).and_then(parked_place) else {
                continue;
            };
            let input = TopicPartition::new(topic, record.origin.partition);
            let lane = self.lanes.get_mut(&input);
            if lane.is_some_and(|l| l.parking.release(&Text::from(key), offset, now)) {
                tracing::info!(
                    sink = self.name,
                    key,
                    "key goes on: its dead letter was discarded"
                );
            }
        }
        for lane in self.lanes.iter_mut() {
            let (input, lane) = lane;
            let parked = TopicPartition::new(self.park_topic.clone(), input.partition);
            if let Some(position) = reader.position(&parked) {
                lane.parked_to = position;
            }
        }
        Ok(())
    }

    /// Reads the partitions in which the places of dead letters stand, from where they are known.
    fn follow_lanes(&mut self) -> Result<(), Fault> {
        let held = self.lanes.iter().filter(|(_, l)| l.parking.has_dead());
        let mut from: Vec<(TopicPartition, Offset)> = Vec::new();
        for (input, lane) in held {
            let parked = TopicPartition::new(self.park_topic.clone(), input.partition);
            let found = from.iter_mut().find(|(p, _)| *p == parked);
            match (found, lane.parked_to) {
                (Some((_, Offset::At(first))), at) => *first = (*first).min(at),
                (_, at) => from.push((parked, Offset::At(at))),
            }
        }
        from.sort_by(|(a, _), (b, _)| a.cmp(b));
        let follows: Vec<TopicPartition> = from.iter().map(|(p, _)| p.clone()).collect();
        if self.releases.follows != follows || self.releases.reader.is_none() {
            self.releases.reader = Some(self.log.reader(&from, Isolation::ReadCommitted)?);
            self.releases.follows = follows;
        }
        Ok(())
    }
}
