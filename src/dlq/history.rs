//! What was done about dead letters, as the audit topic tells it.

use super::Letters;
use crate::contract::event::{Audit, Event, Text};
use crate::contract::topic;
use crate::domain::{Timestamp, compound_key};
use crate::log::scan::{Stretch, scan};
use crate::log::{LogError, Offset, TopicPartition, partition_for};
use crate::pipeline::Fault;
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// What can be done about a dead letter. Each ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Deed {
    /// Its record was sent once more.
    Redriven,
    /// Nothing will come of it.
    Discarded,
    /// A letter that was mended stands in its place.
    Edited,
}

impl Deed {
    pub(super) const fn action(self) -> &'static str {
        match self {
            Deed::Redriven => "dlq.redrive",
            Deed::Discarded => "dlq.discard",
            Deed::Edited => "dlq.edit",
        }
    }

    fn from_action(action: &str) -> Option<Deed> {
        let all = [Deed::Redriven, Deed::Discarded, Deed::Edited];
        all.into_iter().find(|deed| deed.action() == action)
    }

    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Deed::Redriven => "redriven",
            Deed::Discarded => "discarded",
            Deed::Edited => "edited",
        }
    }
}

/// A deed, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Done {
    /// What was done.
    pub deed: Deed,
    /// By whom.
    pub by: Text,
    /// When.
    pub at: Timestamp,
}

/// Letters of one partition that are done, by offset. Some tens of bytes for each.
#[derive(Debug, Default)]
pub struct History(HashMap<i64, Done>);

impl History {
    /// Reads what was done about the letters of a partition.
    ///
    /// # Errors
    /// When the log or the registry does not answer, or there is no audit topic.
    pub fn read(letters: &Letters<'_>, partition: &TopicPartition) -> Result<History, Fault> {
        let topics = letters.log.admin().topics()?;
        let audit = topics.iter().find(|t| t.name == topic::OPS_AUDIT);
        let partitions = audit.map(|t| t.partitions);
        let partitions = partitions.ok_or_else(|| LogError::UnknownTopic {
            topic: topic::OPS_AUDIT.to_owned(),
        })?;
        let key = key(partition);
        let number = partition_for(key.as_bytes(), partitions);
        let stretch = Stretch::of_keys(
            TopicPartition::new(topic::OPS_AUDIT, number),
            Offset::Beginning,
            HashSet::from([key.as_bytes().to_vec()]),
        );
        let mut done = HashMap::new();
        scan(letters.log, &[stretch], |record| {
            let Event::Audit(audit) = letters.codec.decode(record)? else {
                return Ok(());
            };
            if let Some((offset, deed)) = told(&audit) {
                done.insert(offset, deed);
            }
            Ok::<(), Fault>(())
        })?;
        Ok(History(done))
    }

    /// What was done about the letter at this offset.
    pub fn of(&self, offset: i64) -> Option<&Done> {
        self.0.get(&offset)
    }
}

/// The key under which deeds about a partition of dead letters stand: one partition of the audit topic
/// holds them all, in order.
pub(super) fn key(partition: &TopicPartition) -> Text {
    compound_key(&[&partition.topic, &partition.partition.to_string()])
}

fn told(audit: &Audit) -> Option<(i64, Done)> {
    let deed = Deed::from_action(&audit.action)?;
    let (_, offset) = audit.target.rsplit_once('@')?;
    let done = Done {
        deed,
        by: audit.actor.clone(),
        at: audit.meta.occurred_at,
    };
    Some((offset.parse().ok()?, done))
}
