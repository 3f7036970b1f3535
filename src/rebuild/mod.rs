//! A processor's state, rebuilt from the log beside the running one, compared with it, and put in its place.
//!
//! The processor is run again over what its group has read, in the transactions in which it was read: the
//! dispositions say which records each took and when, so timers fire in between as they did (`rerun`). What
//! it decided, and what depends on what came first, is not decided anew: it stands in the log and is followed
//! (`Processor::recall`, or an input of its own). What comes out is compared with the changelog, key by key,
//! at one cut (`compare`): the offsets that the group had committed. The running instances notice nothing;
//! keys that they work on meanwhile are left out and counted.
//!
//! Two states that differ only in counts of what was told, and in when, say the same: those depend on how
//! records were gathered into transactions, which the log remembers for a while only.
//!
//! To swap is to write what differs behind what the changelog holds (`swap`): whoever owns the partition
//! next reads it there, with a checkpoint or without.
//!
//! What is absent: a state of which inputs are past their retention cannot be rebuilt, and is not. Of records
//! of one transaction that stand in different topics, the times at which they were written say which came
//! first. What the rebuild would tell the world is not told: whoever looks at a key next tells what follows.

mod compare;
mod inputs;
mod rerun;
mod swap;

pub use compare::{Comparison, Difference, Wrong};
pub use swap::{Swapped, swap};

use crate::codec::Codec;
use crate::contract::Catalogue;
use crate::log::{Log, LogError, Offsets, TopicPartition};
use crate::pipeline::Fault;
use crate::processors::Registered;
use crate::runtime::group_id;

/// Differences that a comparison keeps, unless it is told otherwise; all are counted.
pub const EXAMPLES_MAX: usize = 20;

/// Why a state cannot be rebuilt or swapped: cause and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// A processor of a deployment.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The log.
    pub log: &'a dyn Log,
    /// Reads and writes its records.
    pub codec: &'a Codec,
    /// The topics.
    pub catalogue: &'a Catalogue,
    /// First part of the group ids of the deployment.
    pub application: &'a str,
    /// The processor.
    pub processor: &'static Registered,
}

/// The part of a state key that is the record's.
fn entity(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == 0).next().unwrap_or_default()
}

impl<'a> Subject<'a> {
    fn name(&self) -> &'static str {
        self.processor.descriptor.name
    }

    fn group(&self) -> String {
        group_id(self.application, self.name())
    }

    fn changelog(&self, number: i32) -> TopicPartition {
        TopicPartition::new(self.catalogue.state_topic(self.name()), number)
    }

    fn inputs(&self, number: i32) -> impl Iterator<Item = TopicPartition> + use<'a> {
        let inputs = self.processor.descriptor.inputs.iter();
        inputs.map(move |topic| TopicPartition::new(*topic, number))
    }

    /// Partitions of the state.
    ///
    /// # Errors
    /// When the log does not answer, or has no such topic.
    pub fn partitions(&self) -> Result<i32, Fault> {
        let topic = self.catalogue.state_topic(self.name());
        let found = self.log.admin().partitions(&topic)?;
        Ok(found.ok_or(LogError::UnknownTopic { topic })?)
    }

    /// Up to where the group has committed each input.
    fn committed(&self, number: i32) -> Result<Offsets, Fault> {
        let inputs: Vec<TopicPartition> = self.inputs(number).collect();
        Ok(self.log.admin().group_offsets(&self.group(), &inputs)?)
    }

    /// Why the state of a partition cannot be rebuilt: what led to it is not all there any more. Costs
    /// nothing to ask beforehand.
    ///
    /// # Errors
    /// When the log does not answer.
    pub fn refusal(&self, number: i32) -> Result<Option<Refusal>, Fault> {
        let committed = self.committed(number)?;
        let record = (self.processor.make)().record();
        let record = record.map(|topic| (TopicPartition::new(topic, number), "has decided"));
        let read = self.inputs(number).filter_map(|at| {
            let is_read = committed.get(&at).is_some_and(|to| *to > 0);
            is_read.then_some((at, "has read"))
        });
        for (at, did) in read.chain(record) {
            let (first, _) = self.log.admin().watermarks(&at)?;
            if first == 0 {
                continue;
            }
            let topic = &at.topic;
            return Ok(Some(Refusal(format!(
                "partition {number} cannot be rebuilt: {at} begins at offset {first}, and what {} {did} before that is past the retention of {topic}, but not what came of it: a state without it would be another. The changelog of the partition stays as it is. Keep {topic} for longer (`retention.ms`) for the next time; what is wrong with one key is told by `crossdock explain`, and set right by its source: a count, or its object sent again",
                self.name()
            ))));
        }
        Ok(None)
    }
}
