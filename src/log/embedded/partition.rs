//! One partition: records by offset, open transactions, compaction.

use super::super::Isolation;
use crate::pipeline::{Headers, Origin, Record};
use bytes::{BufMut, Bytes, BytesMut};
use rustc_hash::FxBuildHasher;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Records are copied into buffers of this size; the first ones are smaller, for most partitions hold
/// little.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNK_BYTES_FIRST: usize = 2 << 10;
/// A compacted partition is compacted when it has grown by this much and doubled.
const COMPACT_BYTES_MIN: usize = 2 << 20;
/// How long a tombstone stays in a compacted partition, as Kafka's `delete.retention.ms`.
const TOMBSTONE_KEPT: Duration = Duration::from_secs(86_400);

pub(super) struct Partition {
    topic: Arc<str>,
    number: i32,
    entries: VecDeque<Entry>,
    first: i64,
    end: i64,
    /// Open transactions and their first offset here.
    open: BTreeMap<u64, i64>,
    bytes: usize,
    bytes_after_compaction: usize,
    chunk: BytesMut,
    /// Size of the next chunk.
    chunk_bytes: usize,
}

struct Entry {
    offset: i64,
    timestamp_ms: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Headers,
    /// Number of the transaction; 0 for none.
    transaction: u64,
    aborted: bool,
    appended: Duration,
}

impl Partition {
    pub fn new(topic: Arc<str>, number: i32) -> Self {
        Partition {
            topic,
            number,
            entries: VecDeque::new(),
            first: 0,
            end: 0,
            open: BTreeMap::new(),
            bytes: 0,
            bytes_after_compaction: 0,
            chunk: BytesMut::new(),
            chunk_bytes: CHUNK_BYTES_FIRST,
        }
    }

    /// First offset kept.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// High watermark: the offset that the next record gets.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// Up to where a reader of this isolation may read: for committed reads the first offset of the
    /// oldest open transaction.
    pub fn stable_end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.end,
            Isolation::ReadCommitted => self.open.values().copied().min().unwrap_or(self.end),
        }
    }

    /// Whether a transaction has written here and has not ended.
    pub fn is_open(&self, transaction: u64) -> bool {
        self.open.contains_key(&transaction)
    }

    pub fn append(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &Headers,
        timestamp_ms: i64,
        transaction: u64,
        now: Duration,
    ) -> i64 {
        let packed = headers.packed();
        let size = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + packed.len();
        if self.chunk.capacity() < size {
            self.chunk = BytesMut::with_capacity(size.max(self.chunk_bytes));
            self.chunk_bytes = (4 * self.chunk_bytes).min(CHUNK_BYTES);
        }
        self.chunk.put_slice(key.unwrap_or_default());
        self.chunk.put_slice(value.unwrap_or_default());
        self.chunk.put_slice(packed);
        let whole = self.chunk.split().freeze();
        let (key_end, value_end) = {
            let k = key.map_or(0, <[u8]>::len);
            (k, k + value.map_or(0, <[u8]>::len))
        };
        let offset = self.end;
        self.entries.push_back(Entry {
            offset,
            timestamp_ms,
            key: key.map(|_| whole.slice(..key_end)),
            value: value.map(|_| whole.slice(key_end..value_end)),
            headers: Headers::from_packed(whole.slice(value_end..)),
            transaction,
            aborted: false,
            appended: now,
        });
        self.end += 1;
        self.bytes += size;
        if transaction != 0 {
            self.open.entry(transaction).or_insert(offset);
        }
        offset
    }

    /// Ends a transaction that began here at `first`; its marker takes an offset, as in Kafka.
    pub fn end_transaction(&mut self, transaction: u64, first: i64, commit: bool) {
        self.open.remove(&transaction);
        self.end += 1;
        if !commit {
            let from = self.index_of(first);
            for entry in self
                .entries
                .range_mut(from..)
                .filter(|e| e.transaction == transaction)
            {
                entry.aborted = true;
            }
        }
    }

    /// Appends at most `max` records from `from` on to `into`; returns the offset to go on from.
    pub fn read(&self, from: i64, max: usize, isolation: Isolation, into: &mut Vec<Record>) -> i64 {
        let end = self.stable_end(isolation);
        let mut left = max;
        for entry in self.entries.range(self.index_of(from)..) {
            if entry.offset >= end {
                break;
            }
            if left == 0 {
                return entry.offset;
            }
            if entry.aborted && isolation == Isolation::ReadCommitted {
                continue;
            }
            left -= 1;
            into.push(Record {
                origin: Origin {
                    topic: self.topic.clone(),
                    partition: self.number,
                    offset: entry.offset,
                },
                timestamp_ms: entry.timestamp_ms,
                key: entry.key.clone(),
                value: entry.value.clone(),
                headers: entry.headers.clone(),
            });
        }
        end.max(from)
    }

    /// Offset of the first record written at this time or later; the end where there is none.
    pub fn offset_at(&self, timestamp_ms: i64) -> i64 {
        let found = self.entries.iter().find(|e| e.timestamp_ms >= timestamp_ms);
        found.map_or(self.end, |e| e.offset)
    }

    fn index_of(&self, offset: i64) -> usize {
        // Without gaps the index follows from the offset.
        let Some(front) = self.entries.front() else {
            return 0;
        };
        let guess = usize::try_from(offset - front.offset).unwrap_or(0);
        if self.entries.get(guess).is_some_and(|e| e.offset == offset) {
            return guess;
        }
        self.entries.partition_point(|e| e.offset < offset)
    }

    /// Drops the oldest committed records until at most `max` bytes are kept.
    pub fn drop_beyond(&mut self, max: usize) {
        let stable = self.stable_end(Isolation::ReadCommitted);
        while self.bytes > max && self.entries.front().is_some_and(|e| e.offset < stable) {
            if let Some(dropped) = self.entries.pop_front() {
                self.bytes -= dropped.size();
                self.first = dropped.offset + 1;
            }
        }
    }

    pub fn compact_when_grown(&mut self, now: Duration) {
        if self.bytes > COMPACT_BYTES_MIN + 2 * self.bytes_after_compaction {
            self.compact(now);
        }
    }

    /// Keeps the last committed record of each key, and what is not committed yet.
    pub fn compact(&mut self, now: Duration) {
        let stable = self.stable_end(Isolation::ReadCommitted);
        let mut replaced = HashSet::with_hasher(FxBuildHasher);
        let mut kept: Vec<bool> = (self.entries.iter().rev())
            .map(|e| {
                e.offset >= stable
                    || (!e.aborted
                        && e.key.as_deref().is_none_or(|key| replaced.insert(key))
                        && (e.value.is_some() || now.saturating_sub(e.appended) < TOMBSTONE_KEPT))
            })
            .collect();
        drop(replaced);
        // What stays is copied, so that the chunks of what goes are freed.
        let mut chunk = BytesMut::new();
        self.bytes = 0;
        self.entries.retain_mut(|entry| {
            let stays = kept.pop().unwrap_or(true);
            if stays {
                self.bytes += entry.size();
                entry.move_to(&mut chunk);
            }
            stays
        });
        self.entries.shrink_to(2 * self.entries.len());
        self.bytes_after_compaction = self.bytes;
    }
}

impl Entry {
    fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len)
            + self.value.as_ref().map_or(0, Bytes::len)
            + self.headers.packed().len()
    }

    /// Copies the bytes into a chunk, which is a new one when they do not fit.
    fn move_to(&mut self, chunk: &mut BytesMut) {
        let size = self.size();
        if chunk.capacity() < size {
            *chunk = BytesMut::with_capacity(size.max(CHUNK_BYTES));
        }
        let mut copy = |bytes: &[u8]| {
            chunk.put_slice(bytes);
            chunk.split().freeze()
        };
        self.key = self.key.as_deref().map(&mut copy);
        self.value = self.value.as_deref().map(&mut copy);
        self.headers = Headers::from_packed(copy(self.headers.packed()));
    }
}
