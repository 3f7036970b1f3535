//! The records of one transaction, and the keys they belong to.

use crate::log::{GroupGeneration, Offsets, TopicPartition};
use crate::pipeline::Record;
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

/// Records gathered for one transaction, under the group generation of the first.
#[derive(Default)]
pub(super) struct Batch {
    pub records: Vec<Record>,
    pub generation: Option<GroupGeneration>,
}

/// No further record of the key.
const END: u32 = u32::MAX;

/// For each key, in order of first arrival, a chain of the indices of its records.
pub(super) struct Groups<'a> {
    heads: IndexMap<(i32, &'a [u8]), (u32, u32), FxBuildHasher>,
    next: Vec<u32>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Forgets the records, keeping the room for the next.
    pub fn clear(&mut self) {
        self.records.clear();
        self.generation = None;
    }

    /// The lowest offset of each partition: where to seek after an abort.
    pub fn starts(&self) -> Offsets {
        let mut starts = Offsets::new();
        self.each_partition(|partition, first, _| {
            starts.insert(partition, first);
        });
        starts
    }

    /// The offset after the last record of each partition: what to commit.
    pub fn ends(&self) -> Offsets {
        let mut ends = Offsets::new();
        self.each_partition(|partition, _, last| {
            ends.insert(partition, last + 1);
        });
        ends
    }

    fn each_partition(&self, mut each: impl FnMut(TopicPartition, i64, i64)) {
        let mut ranges: Vec<(&Record, i64, i64)> = Vec::new();
        let mut recent = 0;
        for record in &self.records {
            let origin = &record.origin;
            let same = |r: &(&Record, i64, i64)| {
                r.0.origin.partition == origin.partition && r.0.origin.topic == origin.topic
            };
            if !ranges.get(recent).is_some_and(same) {
                recent = ranges.iter().position(same).unwrap_or_else(|| {
                    ranges.push((record, origin.offset, origin.offset));
                    ranges.len() - 1
                });
            }
            let range = &mut ranges[recent];
            range.1 = range.1.min(origin.offset);
            range.2 = range.2.max(origin.offset);
        }
        for (record, first, last) in ranges {
            let origin = &record.origin;
            each(
                TopicPartition {
                    topic: origin.topic.clone(),
                    partition: origin.partition,
                },
                first,
                last,
            );
        }
    }

    /// The records by partition number and key. Records without a key form a group of their own
    /// with the empty key.
    pub fn groups(&self) -> Groups<'_> {
        let mut heads: IndexMap<(i32, &[u8]), (u32, u32), FxBuildHasher> =
            IndexMap::with_capacity_and_hasher(self.records.len() / 2, FxBuildHasher);
        let mut next = vec![END; self.records.len()];
        for (index, record) in self.records.iter().enumerate() {
            let index = index as u32;
            let key = record.key.as_deref().unwrap_or_default();
            heads
                .entry((record.origin.partition, key))
                .and_modify(|(_, tail)| {
                    next[*tail as usize] = index;
                    *tail = index;
                })
                .or_insert((index, index));
        }
        Groups { heads, next }
    }
}

impl<'a> Groups<'a> {
    /// Partition number and key of each group, with the index of its first record.
    pub fn iter(&self) -> impl Iterator<Item = (i32, &'a [u8], u32)> + '_ {
        self.heads
            .iter()
            .map(|((partition, key), (head, _))| (*partition, *key, *head))
    }

    /// The indices of the records of the group that begins at `head`, in order of arrival.
    pub fn members(&self, head: u32) -> impl Iterator<Item = usize> + '_ {
        let mut at = head;
        std::iter::from_fn(move || {
            (at != END).then(|| {
                let index = at as usize;
                at = self.next[index];
                index
            })
        })
    }

    /// Whether `key` of `partition` has records in this batch.
    pub fn contains(&self, partition: i32, key: &[u8]) -> bool {
        self.heads.contains_key(&(partition, key))
    }
}
