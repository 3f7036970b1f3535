//! One input partition of a sink: what has been read of it and not committed, and the receipts of
//! what was sent.

use super::outbox::Outbox;
use super::partition::Partition;
use super::queue::Waiting;
use crate::codec::Codec;
use crate::contract::event::{EventRef, Outcome, SinkReceipt, Text};
use crate::contract::receipt_key;
use crate::domain::Timestamp;
use crate::pipeline::{Ack, Fault, Record, Sent, SourceRecord, State};
use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) struct Lane {
    /// The input topic.
    topic: Arc<str>,
    /// Receipts of that topic, by [`receipt_key`].
    pub receipts: Partition,
    /// Read, not settled: offsets with the log's time.
    pub open: BTreeMap<i64, i64>,
    /// Settled, not committed.
    pub settled: BTreeMap<i64, Settled>,
    pub read_to: i64,
    pub committed_to: i64,
    /// Receipts to write in the next transaction.
    pub receipts_due: Vec<SinkReceipt>,
    /// Records to be dead-lettered in the transaction that passes them.
    pub dead: Vec<(Record, Fault, u32)>,
    /// Facts to be told in the transaction that passes the offset.
    pub facts: BTreeMap<i64, Vec<SourceRecord>>,
    /// Which ownership of the partition this is.
    pub epoch: u64,
    /// Keys whose last receipt tells what the target holds: the last call for them was answered,
    /// under this ownership. After anything else the target may hold what no receipt tells of.
    certain: HashSet<Text, FxBuildHasher>,
}

/// How a record ended.
pub(super) struct Settled {
    pub outcome: Outcome,
    pub reason: Option<&'static str>,
    pub timestamp_ms: i64,
}

impl Lane {
    /// A lane that begins at `from`.
    pub fn new(topic: &Arc<str>, receipts: Partition, from: i64, epoch: u64) -> Self {
        Lane {
            topic: topic.clone(),
            receipts,
            open: BTreeMap::new(),
            settled: BTreeMap::new(),
            read_to: from,
            committed_to: from,
            receipts_due: Vec::new(),
            dead: Vec::new(),
            facts: BTreeMap::new(),
            epoch,
            certain: HashSet::default(),
        }
    }

    /// Everything below this offset is settled.
    pub fn commit_point(&self) -> i64 {
        self.open.keys().next().copied().unwrap_or(self.read_to)
    }

    /// Whether there is something to commit.
    pub fn has_news(&self) -> bool {
        self.commit_point() > self.committed_to || !self.receipts_due.is_empty()
    }

    /// Whether everything read has been settled and committed.
    pub fn is_quiet(&self) -> bool {
        self.receipts.ready() && self.read_to == self.committed_to && self.receipts_due.is_empty()
    }

    /// The log's time of the oldest record that is not settled.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.open.values().next().copied()
    }

    pub fn settle(&mut self, record: &Record, outcome: Outcome, reason: Option<&'static str>) {
        let offset = record.origin.offset;
        self.open.remove(&offset);
        let settled = Settled {
            outcome,
            reason,
            timestamp_ms: record.timestamp_ms,
        };
        self.settled.insert(offset, settled);
    }

    /// Settles a record that can never succeed.
    pub fn bury(&mut self, record: Record, fault: Fault, attempts: u32) {
        self.settle(&record, Outcome::DeadLettered, Some(fault.code.as_str()));
        self.dead.push((record, fault, attempts));
    }

    /// Settles a record that the target has refused, which these facts tell.
    pub fn refused(&mut self, record: &Record, code: &'static str, facts: Vec<SourceRecord>) {
        self.settle(record, Outcome::Applied, Some(code));
        self.facts.insert(record.origin.offset, facts);
    }

    /// What was last sent for `key`; its digest only when nothing can have been sent since.
    pub fn last_sent(&mut self, codec: &Codec, key: &Text) -> Option<Sent> {
        let certain = self.certain.remove(key);
        let name = receipt_key(&self.topic, key);
        let receipt = codec.decode_receipt(self.receipts.shard.get(name.as_bytes())?)?;
        Some(Sent {
            version: receipt.sent_version,
            external_id: receipt.external_id.map(Into::into),
            digest: receipt.request_hash.filter(|_| certain).map(Into::into),
        })
    }

    /// The target answered a call.
    pub fn answered(
        &mut self,
        outbox: &Outbox,
        sink: &str,
        key: &Text,
        waiting: &Waiting,
        ack: &Ack,
        now: Timestamp,
    ) {
        self.certain.insert(key.clone());
        let receipt = receipt_of(outbox, sink, key, waiting, ack, now);
        self.receipts_due.push(receipt);
    }

    /// A transaction has committed everything below `point` and the receipts due.
    pub fn committed(&mut self, point: Option<i64>) {
        self.receipts.shard.commit();
        self.receipts_due.clear();
        if let Some(point) = point {
            self.settled = self.settled.split_off(&point);
            self.dead.retain(|(r, _, _)| r.origin.offset >= point);
            self.facts = self.facts.split_off(&point);
            self.committed_to = point;
        }
    }
}

fn receipt_of(
    outbox: &Outbox,
    sink: &str,
    key: &Text,
    waiting: &Waiting,
    ack: &Ack,
    now: Timestamp,
) -> SinkReceipt {
    let origin = &waiting.inbound.record.origin;
    let event = waiting.inbound.event.meta();
    SinkReceipt {
        meta: outbox.meta("SinkReceipt", &origin.to_string(), origin.offset, now),
        sink: sink.into(),
        entity_key: key.clone(),
        operation: Text::from(&*origin.topic),
        idempotency_key: compact_str::format_compact!("{}", event.event_id),
        outcome: ack.outcome,
        external_id: ack.external_id.as_deref().map(Text::from),
        sent_version: ack.version,
        request_hash: ack.digest.as_deref().map(Text::from),
        status_code: ack.status,
        attempt: waiting.attempt as i32,
        source_event: EventRef {
            topic: Text::from(&*origin.topic),
            partition: origin.partition,
            offset: origin.offset,
            event_id: Some(event.event_id),
        },
        latency_micros: Some(now.0.saturating_sub(event.recorded_at.0)),
        ..SinkReceipt::default()
    }
}
