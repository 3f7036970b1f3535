//! Finding the records of a subject: one partition of each topic where there is a key.

use super::Sources;
use crate::contract::event::Text;
use crate::contract::receipt_key;
use crate::log::scan::{Stretch, scan};
use crate::log::{Offset, TopicPartition, partition_for};
use crate::pipeline::{Fault, Record};
use memchr::memmem::Finder;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// A topic, and what is looked for in it.
pub(super) struct Wanted {
    pub topic: Arc<str>,
    /// `None` wants records of every key.
    key: Option<Text>,
    /// The key by whose partition the record is found.
    place: Option<Text>,
    /// Only records whose value holds this text somewhere.
    mentions: Option<Text>,
}

impl Wanted {
    pub fn keyed(topic: &str, key: &str) -> Self {
        Wanted {
            topic: topic.into(),
            key: Some(key.into()),
            place: Some(key.into()),
            mentions: None,
        }
    }
    /// Receipts of what was sent of `key` of `input`; they lie in the partition of the key.
    pub fn receipts(topic: &str, input: &str, key: &str) -> Self {
        Wanted {
            key: Some(receipt_key(input, key)),
            ..Wanted::keyed(topic, key)
        }
    }
    pub fn mentioning(topic: &str, text: &str) -> Self {
        Wanted {
            topic: topic.into(),
            key: None,
            place: None,
            mentions: Some(text.into()),
        }
    }
    /// The one partition in which its key is; `None` where it has no key or there is no such topic.
    fn partition(&self, existing: &BTreeMap<String, i32>) -> Option<TopicPartition> {
        let partitions = existing.get(&*self.topic).filter(|count| **count > 0)?;
        Some(TopicPartition {
            topic: self.topic.clone(),
            partition: partition_for(self.place.as_ref()?.as_bytes(), *partitions),
        })
    }
    /// As before, and only records whose value holds this text; the same for every key of a topic.
    pub fn and_mentions(mut self, text: &str) -> Self {
        self.mentions = Some(text.into());
        self
    }
}

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    /// Records: by topic in the order wanted, by offset within a partition.
    pub records: Vec<Record>,
    /// Records read to find them.
    pub records_read: u64,
    /// Topics of which only the latest records were kept, and how many were not.
    pub left_out: Vec<(Arc<str>, usize)>,
    /// Partitions whose first records are gone, and where they begin now.
    pub cut_off: Vec<(TopicPartition, i64)>,
}

/// Gathers what is wanted, at most `records_max` (the latest) of each topic. Topics that do not exist
/// hold nothing.
///
/// # Errors
/// When the log does not answer.
pub(super) fn search(
    sources: &Sources<'_>,
    existing: &BTreeMap<String, i32>,
    wanted: &[Wanted],
) -> Result<Found, Fault> {
    let keep = sources.records_max.max(1);
    let stretches = stretches(existing, wanted);
    let mut kept: HashMap<Arc<str>, (VecDeque<Record>, usize)> = HashMap::new();
    let records_read = scan(sources.log, &stretches, |record| {
        let (records, left_out) = kept.entry(record.origin.topic.clone()).or_default();
        if records.len() == keep {
            records.pop_front();
            *left_out += 1;
        }
        records.push_back(record.detached());
        Ok::<(), Fault>(())
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
    }
    let keyed = wanted.iter().filter_map(|w| w.partition(existing));
    for partition in keyed.collect::<BTreeSet<_>>() {
        let (first, _) = sources.log.admin().watermarks(&partition)?;
        if first > 0 {
            found.cut_off.push((partition, first));
        }
    }
    Ok(found)
}

/// The partitions in which the wanted keys are, and every partition of topics wanted whole.
fn stretches(existing: &BTreeMap<String, i32>, wanted: &[Wanted]) -> Vec<Stretch> {
    let mut all: Vec<Stretch> = Vec::new();
    let mut keyed: BTreeMap<TopicPartition, Vec<&Wanted>> = BTreeMap::new();
    for w in wanted {
        match w.partition(existing) {
            Some(partition) => keyed.entry(partition).or_default().push(w),
            None => {
                let partitions = existing.get(&*w.topic).copied().unwrap_or_default();
                let whole = Stretch::whole(&w.topic, partitions).into_iter();
                all.extend(whole.map(|s| Stretch {
                    wanted: w.mentions.as_deref().map(mentions),
                    ..s
                }));
            }
        }
    }
    for (at, wanted) in keyed {
        let keys = wanted.iter().filter_map(|w| w.key.as_ref());
        let keys: HashSet<Vec<u8>> = keys.map(|k| k.as_bytes().to_vec()).collect();
        let of_keys = Stretch::of_keys(at, Offset::Beginning, keys);
        let text = wanted.iter().find_map(|w| w.mentions.as_deref());
        all.push(match (text.map(mentions), &of_keys.wanted) {
            (Some(text), Some(key)) => {
                let key = key.clone();
                let both = move |k: Option<&[u8]>, v: Option<&[u8]>| key(k, v) && text(k, v);
                Stretch {
                    wanted: Some(Arc::new(both)),
                    ..of_keys
                }
            }
            _ => of_keys,
        });
    }
    all
}

/// Wants records whose value holds this text.
fn mentions(text: &str) -> Arc<crate::log::Wanted> {
    let finder = Finder::new(text.as_bytes()).into_owned();
    Arc::new(move |_: Option<&[u8]>, value: Option<&[u8]>| {
        value.is_some_and(|v| finder.find(v).is_some())
    })
}
