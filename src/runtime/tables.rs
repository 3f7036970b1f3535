//! Reference data that every task reads whole and follows: locations, channels.

use crate::codec::Codec;
use crate::log::{Isolation, Log, LogError, Offset, Reader, TopicPartition};
use crate::pipeline::{Fault, Processor, Record, Verdict};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Follows the table topics of a processor.
#[derive(Default)]
pub(super) struct Tables {
    reader: Option<Box<dyn Reader>>,
    /// Read, and not taken in.
    waiting: VecDeque<Record>,
    /// Entities must be looked at again for what was taken in so far.
    revisit: bool,
    scratch: Vec<Record>,
}

impl Tables {
    /// Opens the tables at their beginning.
    pub fn open(log: &Arc<dyn Log>, topics: &[&str]) -> Result<Self, LogError> {
        if topics.is_empty() {
            return Ok(Tables::default());
        }
        let mut from = Vec::new();
        for topic in topics {
            let Some(partitions) = log.admin().partitions(topic)? else {
                let topic = (*topic).to_owned();
                return Err(LogError::UnknownTopic { topic });
            };
            let all = (0..partitions).map(|p| TopicPartition::new(*topic, p));
            from.extend(all.map(|p| (p, Offset::Beginning)));
        }
        let reader = log.reader(&from, Isolation::ReadCommitted)?;
        Ok(Tables {
            reader: Some(reader),
            ..Tables::default()
        })
    }

    /// Whether everything that stood in the tables when they were opened has been taken in.
    pub fn caught_up(&self) -> bool {
        self.waiting.is_empty() && self.reader.as_ref().is_none_or(|r| r.caught_up())
    }

    /// Hands what is new to the processor. Returns whether entities must be looked at again.
    ///
    /// A record that can never be decoded is logged and left out: a table is reference data written by
    /// a connector, whose own reader dead-letters it.
    ///
    /// # Errors
    /// When the log does not answer, or the registry for a schema that is not known yet. Nothing is
    /// lost: what could not be taken in waits for the next call.
    pub fn follow(
        &mut self,
        processor: &mut dyn Processor,
        codec: &Codec,
        wait: Duration,
    ) -> Result<bool, Fault> {
        let Some(reader) = &mut self.reader else {
            return Ok(false);
        };
        if self.waiting.is_empty() {
            reader.poll(10_000, wait, &mut self.scratch)?;
            self.waiting.extend(self.scratch.drain(..));
        }
        while let Some(record) = self.waiting.front() {
            let topic = &record.origin.topic;
            let key = record.key.as_deref().map(std::str::from_utf8);
            match (key, &record.value) {
                (Some(Ok(key)), None) => self.revisit |= processor.table(topic, key, None),
                (Some(Ok(key)), Some(_)) => match codec.decode(record) {
                    Ok(event) => self.revisit |= processor.table(topic, key, Some(&event)),
                    Err(fault) if fault.verdict == Verdict::Reject => {
                        tracing::warn!(record = %record.origin, %fault, "table record left out")
                    }
                    Err(fault) => return Err(fault),
                },
                _ => {
                    tracing::warn!(record = %record.origin, "table record without a readable key left out")
                }
            }
            self.waiting.pop_front();
        }
        Ok(std::mem::take(&mut self.revisit))
    }
}
