//! Reference data that every task reads whole and follows: locations, channels.

use crate::codec::Codec;
use crate::log::{Isolation, Log, LogError, Offset, Reader, TopicPartition};
use crate::pipeline::{Processor, Record};
use std::sync::Arc;
use std::time::Duration;

/// Follows the table topics of a processor.
pub(super) struct Tables {
    reader: Option<Box<dyn Reader>>,
    scratch: Vec<Record>,
}

impl Tables {
    /// Opens the tables at their beginning.
    pub fn open(log: &Arc<dyn Log>, topics: &[&str]) -> Result<Self, LogError> {
        if topics.is_empty() {
            return Ok(Tables {
                reader: None,
                scratch: Vec::new(),
            });
        }
        let mut from = Vec::new();
        for existing in log
            .admin()
            .topics()?
            .into_iter()
            .filter(|t| topics.contains(&t.name.as_str()))
        {
            for partition in 0..existing.partitions {
                from.push((
                    TopicPartition::new(existing.name.as_str(), partition),
                    Offset::Beginning,
                ));
            }
        }
        if let Some(missing) = topics
            .iter()
            .find(|t| !from.iter().any(|(p, _)| &*p.topic == **t))
        {
            return Err(LogError::UnknownTopic {
                topic: (*missing).to_owned(),
            });
        }
        let reader = log.reader(&from, Isolation::ReadCommitted)?;
        Ok(Tables {
            reader: Some(reader),
            scratch: Vec::new(),
        })
    }

    /// Whether everything that stood in the tables when they were opened has been taken in.
    pub fn caught_up(&self) -> bool {
        self.reader.as_ref().is_none_or(|r| r.caught_up())
    }

    /// Hands what is new to the processor. Returns whether entities must be looked at again.
    ///
    /// A record that cannot be decoded is logged and left out: a table is reference data written by
    /// a connector, whose own reader dead-letters it.
    pub fn follow(
        &mut self,
        processor: &mut dyn Processor,
        codec: &Codec,
        wait: Duration,
    ) -> Result<bool, LogError> {
        let Some(reader) = &mut self.reader else {
            return Ok(false);
        };
        let mut revisit = false;
        reader.poll(10_000, wait, &mut self.scratch)?;
        for record in self.scratch.drain(..) {
            let topic = &record.origin.topic;
            let Some(Ok(key)) = record.key.as_deref().map(std::str::from_utf8) else {
                tracing::warn!(record = %record.origin, "table record without a readable key left out");
                continue;
            };
            if record.value.is_none() {
                revisit |= processor.table(topic, key, None);
                continue;
            }
            match codec.decode(&record) {
                Ok(event) => revisit |= processor.table(topic, key, Some(&event)),
                Err(fault) => {
                    tracing::warn!(record = %record.origin, %fault, "table record left out")
                }
            }
        }
        Ok(revisit)
    }
}
