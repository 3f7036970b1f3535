//! Finding the records of a key: one partition of each topic is read, keys are compared as bytes.

use super::partition_of;
use crate::contract::event::Text;
use crate::contract::receipt_key;
use crate::log::{Isolation, Log, Offset, TopicPartition};
use crate::pipeline::{Fault, Record};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Records taken from the log at a time.
const POLL_RECORDS: usize = 10_000;

/// A topic, and the key that is looked for in it.
pub(super) struct Wanted {
    pub topic: Arc<str>,
    /// `None` wants every record of the topic.
    key: Option<Text>,
    /// The key by whose partition the record is found.
    partition_key: Text,
}

impl Wanted {
    pub fn keyed(topic: &str, key: &str) -> Self {
        Wanted {
            topic: topic.into(),
            key: Some(key.into()),
            partition_key: key.into(),
        }
    }
    /// Receipts of what was sent of `key` of `input`; they lie in the partition of the key.
    pub fn receipts(topic: &str, input: &str, key: &str) -> Self {
        Wanted {
            topic: topic.into(),
            key: Some(receipt_key(input, key)),
            partition_key: key.into(),
        }
    }
    pub fn whole(topic: &str) -> Self {
        Wanted {
            topic: topic.into(),
            key: None,
            partition_key: Text::default(),
        }
    }
}

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    /// Records of the keys: by topic in the order wanted, by offset within a topic.
    pub records: Vec<Record>,
    /// Records read to find them.
    pub records_read: u64,
    /// Topics of which only the latest records were kept, and how many were not.
    pub left_out: Vec<(Arc<str>, usize)>,
    /// Partitions whose first records are gone, and where they begin now.
    pub cut_off: Vec<(TopicPartition, i64)>,
}

/// Gathers the records of the wanted keys, at most `records_max` (the latest) of each topic. Topics
/// that do not exist hold nothing.
///
/// # Errors
/// When the log does not answer.
pub(super) fn search(
    log: &dyn Log,
    existing: &BTreeMap<String, i32>,
    wanted: &[Wanted],
    records_max: usize,
) -> Result<Found, Fault> {
    let mut kept: HashMap<Arc<str>, (VecDeque<Record>, usize)> = HashMap::new();
    let records_read = each(log, existing, wanted, |record| {
        let (records, left_out) = kept.entry(record.origin.topic.clone()).or_default();
        if records.len() == records_max.max(1) {
            records.pop_front();
            *left_out += 1;
        }
        records.push_back(record.detached());
    })?;
    let mut found = Found {
        records_read,
        ..Found::default()
    };
    for w in wanted {
        if let Some((records, left_out)) = kept.remove(&w.topic) {
            found.records.extend(records);
            if left_out > 0 {
                found.left_out.push((w.topic.clone(), left_out));
            }
        }
        let partitions = existing.get(&*w.topic).copied().unwrap_or_default();
        if w.key.is_some() && partitions > 0 {
            let partition = TopicPartition {
                topic: w.topic.clone(),
                partition: partition_of(&w.partition_key, partitions),
            };
            let (first, _) = log.admin().watermarks(&partition)?;
            if first > 0 {
                found.cut_off.push((partition, first));
            }
        }
    }
    Ok(found)
}

/// Hands every record of the wanted keys to `visit`, in the order of offsets within a partition.
/// Returns how many records were read.
///
/// # Errors
/// When the log does not answer.
pub(super) fn each(
    log: &dyn Log,
    existing: &BTreeMap<String, i32>,
    wanted: &[Wanted],
    mut visit: impl FnMut(&Record),
) -> Result<u64, Fault> {
    let mut from: BTreeSet<TopicPartition> = BTreeSet::new();
    for w in wanted {
        let partitions = existing.get(&*w.topic).copied().unwrap_or_default();
        let numbers = match &w.key {
            Some(_) if partitions > 0 => {
                let number = partition_of(&w.partition_key, partitions);
                number..number + 1
            }
            _ => 0..partitions,
        };
        for partition in numbers {
            let partition = TopicPartition {
                topic: w.topic.clone(),
                partition,
            };
            from.insert(partition);
        }
    }
    if from.is_empty() {
        return Ok(0);
    }
    let begin: Vec<_> = from
        .iter()
        .map(|p| (p.clone(), Offset::Beginning))
        .collect();
    let mut reader = log.reader(&begin, Isolation::ReadCommitted)?;
    let mut read = 0;
    let mut records = Vec::new();
    while !reader.caught_up() {
        reader.poll(POLL_RECORDS, Duration::from_millis(100), &mut records)?;
        read += records.len() as u64;
        for record in records.drain(..) {
            let keys = wanted.iter().filter(|w| w.topic == record.origin.topic);
            let is_wanted = |w: &Wanted| match &w.key {
                Some(key) => record.key.as_deref() == Some(key.as_bytes()),
                None => true,
            };
            if keys.into_iter().any(is_wanted) {
                visit(&record);
            }
        }
    }
    Ok(read)
}
