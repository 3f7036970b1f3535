//! One input partition of a sink: what has been read of it and not committed, what is parked, and the
//! receipts of what was sent.

use super::outbox::Outbox;
use super::parking::{Parked, Parking};
use super::partition::Partition;
use super::queue::{Doubt, Kind, Waiting};
use crate::codec::Codec;
use crate::contract::event::{
    DeadLetter, Event, EventRef, Outcome, SinkOutcome, SinkReceipt, Text,
};
use crate::contract::receipt_key;
use crate::domain::Timestamp;
use crate::pipeline::{
    Ack, Fault, Headers, Origin, REPLAY_HEADER, Record, Sent, SourceRecord, State, Verdict,
};
use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use rustc_hash::FxBuildHasher;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Longest key that a dead letter holds up.
const PLACED_KEY_BYTES_MAX: usize = 64 << 10;
/// Why a state was passed over.
pub(super) const REPLACED: &str = "a newer record of the key replaced it";

pub(super) struct Lane {
    /// The input topic.
    topic: Arc<str>,
    /// What its topic is.
    pub kind: Kind,
    /// Receipts of that topic, by [`receipt_key`].
    pub receipts: Partition,
    /// Keys that cannot go on.
    pub parking: Parking,
    /// The park topic's partition, while it is read back.
    parked: Option<Partition>,
    /// Everything below this offset of the park topic is known.
    pub parked_to: i64,
    /// Outcomes of records that were parked and passed in an earlier transaction.
    pub later: Vec<(Origin, Outcome, Option<&'static str>)>,
    /// Read, not settled: offsets with the log's time.
    pub open: BTreeMap<i64, i64>,
    /// Settled, not committed.
    pub settled: BTreeMap<i64, Settled>,
    pub read_to: i64,
    pub committed_to: i64,
    /// Receipts to write in the next transaction.
    pub receipts_due: Vec<SinkReceipt>,
    /// Places of the latest of each key among these.
    latest_due: HashMap<Text, usize, FxBuildHasher>,
    /// Records to be dead-lettered in the transaction that passes them.
    pub dead: Vec<(Record, Fault, u32)>,
    /// Facts to be told in the next transaction.
    pub facts_due: Vec<SourceRecord>,
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
    /// A lane that begins at `from`; `parked` is what is to be read of the park topic, or its end where
    /// there is nothing.
    pub fn new(
        topic: &Arc<str>,
        kind: Kind,
        receipts: Partition,
        parked: Result<Partition, i64>,
        from: i64,
        epoch: u64,
    ) -> Self {
        Lane {
            topic: topic.clone(),
            kind,
            receipts,
            parking: Parking::new(topic.clone(), kind.whole_state),
            parked_to: parked.as_ref().err().copied().unwrap_or(0),
            parked: parked.ok(),
            later: Vec::new(),
            open: BTreeMap::new(),
            settled: BTreeMap::new(),
            read_to: from,
            committed_to: from,
            receipts_due: Vec::new(),
            latest_due: HashMap::default(),
            dead: Vec::new(),
            facts_due: Vec::new(),
            facts: BTreeMap::new(),
            epoch,
            certain: HashSet::default(),
        }
    }

    /// Whether receipts and parked records are known.
    pub fn ready(&self) -> bool {
        self.receipts.ready() && self.parked.is_none()
    }

    /// Records of both topics read and to be read; nothing when ready.
    pub fn restore_progress(&self) -> Option<(u64, u64)> {
        if self.ready() {
            return None;
        }
        let parked = self.parked.as_ref().and_then(Partition::restore_progress);
        let both = [self.receipts.restore_progress(), parked];
        let add = |(a, b): (u64, u64), (c, d): (u64, u64)| (a + c, b + d);
        Some(both.into_iter().flatten().fold((0, 0), add))
    }

    /// Reads a bounded part of receipts and parked records. Tells whether all are known now.
    pub fn take_in(
        &mut self,
        codec: &Codec,
        park_topic: &Arc<str>,
        wait: Duration,
        scratch: &mut Vec<Record>,
        now: Timestamp,
    ) -> Result<bool, Fault> {
        let known = self.receipts.take_in(wait, scratch, now)?;
        let Some(parked) = &mut self.parked else {
            return Ok(known);
        };
        if !parked.take_in(wait, scratch, now)? {
            return Ok(false);
        }
        let (mut letters, mut strays) = (Vec::new(), Vec::new());
        for (key, value) in parked.shard.iter() {
            match codec.decode(&held(park_topic, key, value)) {
                Ok(Event::DeadLetter(letter)) if !comes_by_itself(&letter, self.committed_to) => {
                    letters.push(letter);
                }
                Ok(Event::DeadLetter(letter)) => strays.extend(place_of(&letter)),
                Err(fault) if fault.verdict != Verdict::Reject => return Err(fault),
                other => {
                    let cause = other.err();
                    tracing::error!(key = %String::from_utf8_lossy(key), ?cause, "a parked record cannot be read and stays where it is");
                }
            }
        }
        self.parked_to = parked.confirmed();
        self.parked = None;
        self.parking.restore(letters.into_iter());
        for (key, offset) in strays {
            self.parking.strike(&key, offset);
        }
        Ok(known)
    }

    /// Everything below this offset is settled.
    pub fn commit_point(&self) -> i64 {
        self.open.keys().next().copied().unwrap_or(self.read_to)
    }

    /// Whether there is something to commit.
    pub fn has_news(&self) -> bool {
        let point = self.commit_point();
        point > self.committed_to
            || !self.receipts_due.is_empty()
            || !self.later.is_empty()
            || !self.facts_due.is_empty()
            || self.parking.has_news(point)
    }

    /// Whether everything read has been settled and committed.
    pub fn is_quiet(&self) -> bool {
        self.ready() && self.read_to == self.committed_to && !self.has_news()
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

    /// Settles a record, be it one that was parked and passed before. One that is replayed has been settled.
    pub fn conclude(&mut self, record: &Record, outcome: Outcome, reason: Option<&'static str>) {
        if record.is_replayed() {
            return;
        }
        if record.origin.offset >= self.committed_to {
            self.settle(record, outcome, reason);
        } else {
            self.later.push((record.origin.clone(), outcome, reason));
        }
    }

    /// Settles a record that can never succeed, and holds its key up where the catalogue says so. One that is
    /// replayed holds nothing up: what follows it was sent long ago.
    pub fn bury(
        &mut self,
        key: Option<&Text>,
        record: &Record,
        fault: Fault,
        attempts: u32,
        now: Timestamp,
    ) {
        self.conclude(record, Outcome::DeadLettered, Some(fault.code.as_str()));
        // The place of a key without measure would itself be too large to be written.
        let is_placed = |key: &&Text| {
            let fits = key.len() <= PLACED_KEY_BYTES_MAX;
            self.kind.blocks_key && fits && !record.is_replayed()
        };
        if let Some(key) = key.filter(is_placed) {
            let place = Parked::dead(record, now, &fault, attempts);
            self.parking.put(key, place, now);
        }
        self.dead.push((record.detached(), fault, attempts));
    }

    /// Settles a record that the target has refused, which these facts tell.
    pub fn refused(&mut self, record: &Record, code: &'static str, facts: Vec<SourceRecord>) {
        self.conclude(record, Outcome::Applied, Some(code));
        self.tell(record, facts);
    }

    /// Tells facts in the transaction that passes the record.
    pub fn tell(&mut self, record: &Record, facts: Vec<SourceRecord>) {
        let offset = record.origin.offset;
        self.facts.entry(offset).or_default().extend(facts);
    }

    /// Takes in a record that is given to the sink once more. Returns its key; nothing where it stands in the
    /// line, or the sink has yet to come to it.
    pub fn replay(&mut self, letter: DeadLetter, now: Timestamp) -> Option<Text> {
        if comes_by_itself(&letter, self.committed_to) {
            let (key, offset) = place_of(&letter)?;
            self.parking.strike(&key, offset);
            return None;
        }
        let (key, parked, _) = Parked::restored(letter)?;
        for older in self.parking.put_replayed(&key, parked, now)? {
            self.conclude(&older.record, Outcome::Superseded, Some(REPLACED));
        }
        Some(key)
    }

    /// Offset of the last record of `key` that was called for, or meant to be.
    pub fn called_for(&self, codec: &Codec, key: &Text) -> Option<i64> {
        let (latest, _) = self.latest(codec, key);
        latest.map(|receipt| receipt.source_event.offset)
    }

    /// Puts a record in its place in the line of its key.
    pub fn park(&mut self, key: &Text, parked: Parked, reason: &'static str, until: Timestamp) {
        if parked.record.origin.offset >= self.committed_to {
            self.settle(&parked.record, Outcome::Parked, Some(reason));
        }
        for older in self.parking.put(key, parked, until) {
            self.conclude(&older.record, Outcome::Superseded, Some(REPLACED));
        }
    }

    /// The latest receipt of a key, and what the latest that stands in the log tells of.
    fn latest(&self, codec: &Codec, key: &Text) -> (Option<SinkReceipt>, Option<Seen>) {
        let name = receipt_key(&self.topic, key);
        let stored = self.receipts.shard.get(name.as_bytes());
        let stored = stored.and_then(|value| codec.decode_receipt(value));
        let written = stored.as_ref().map(Seen::of);
        let due = self.latest_due.get(key);
        let due = due.and_then(|at| self.receipts_due.get(*at)).cloned();
        (due.or(stored), written)
    }

    /// Whether a record that was redriven to a place before the first of this line was called for and is not
    /// committed: read once more, it must find its own receipt, and not one of what stood behind it.
    pub fn is_overtaken(&self, codec: &Codec, key: &Text) -> bool {
        let (latest, _) = self.latest(codec, key);
        let first = self.parking.first(key).map(|p| p.record.origin.offset);
        let seen = latest.as_ref().map(Seen::of).filter(|seen| seen.ahead);
        seen.is_some_and(|s| Some(s.offset) > first && s.offset >= self.committed_to)
    }

    /// What was last sent for `key`; its digest only when nothing can have been sent since.
    pub fn last_sent(&mut self, codec: &Codec, key: &Text) -> Last {
        let certain = self.certain.remove(key);
        let (receipt, written) = self.latest(codec, key);
        let seen = receipt.as_ref().map(Seen::of);
        let Some(receipt) = receipt else {
            return Last::default();
        };
        // The receipt of a first call that was only meant knows of nothing that was sent.
        let sent = (receipt.sent_version != UNSENT).then(|| Sent {
            version: receipt.sent_version,
            external_id: receipt.external_id.map(Into::into),
            digest: receipt.request_hash.filter(|_| certain).map(Into::into),
        });
        Last {
            sent,
            seen,
            written,
        }
    }

    /// A call is meant, was refused, or its outcome is not known: what was known to be sent before stays
    /// known.
    #[allow(
        clippy::too_many_arguments,
        reason = "each says something of its own about one receipt"
    )]
    pub fn meant(
        &mut self,
        outbox: &Outbox,
        sink: &str,
        waiting: &Waiting,
        key: &Text,
        sent: Option<&Sent>,
        outcome: SinkOutcome,
        now: Timestamp,
    ) {
        let ack = Ack {
            outcome,
            version: sent.map_or(UNSENT, |s| s.version),
            external_id: sent.and_then(|s| s.external_id.clone()),
            digest: None,
            status: None,
        };
        let receipt = receipt_of(outbox, sink, key, waiting, &ack, now);
        self.owe(outbox.codec(), receipt);
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
        let receipt = receipt_of(outbox, sink, key, waiting, ack, now);
        if self.owe(outbox.codec(), receipt) {
            self.certain.insert(key.clone());
        }
    }

    /// Has a receipt written, unless one tells already of a later record of the key: then this record
    /// has come again, and that the later one was called for must not be forgotten.
    fn owe(&mut self, codec: &Codec, mut receipt: SinkReceipt) -> bool {
        let (latest, _) = self.latest(codec, &receipt.entity_key);
        let offset = receipt.source_event.offset;
        let parked = self.parking.tried(&receipt.entity_key, offset);
        let is_parked = parked.is_some();
        if parked.is_some_and(Parked::is_redriven) {
            receipt.meta.ext.insert(AHEAD.into(), "true".into());
        }
        let latest = latest.as_ref().map(Seen::of);
        if latest.is_some_and(|l| l.offset > offset && l.tells_of(offset, is_parked)) {
            return false;
        }
        let place = self.receipts_due.len();
        self.latest_due.insert(receipt.entity_key.clone(), place);
        self.receipts_due.push(receipt);
        true
    }

    /// A transaction has committed everything below `point` and the receipts due.
    pub fn committed(&mut self, point: Option<i64>) {
        self.receipts.shard.commit();
        self.receipts_due.clear();
        self.latest_due.clear();
        self.later.clear();
        self.facts_due.clear();
        if let Some(point) = point {
            self.parking.committed(point);
            self.settled = self.settled.split_off(&point);
            self.dead.retain(|(r, _, _)| r.origin.offset >= point);
            self.facts = self.facts.split_off(&point);
            self.committed_to = point;
        }
    }
}

/// Version in the receipt of a call that was meant while nothing was known to be sent.
const UNSENT: i64 = i64::MIN;

/// Of receipts: the record was redriven to a place before others of its key, whatever their offsets.
const AHEAD: &str = "redrivenAhead";

/// What the receipts tell of a key.
#[derive(Default)]
pub(super) struct Last {
    /// What was last sent.
    pub sent: Option<Sent>,
    /// The last record of the key that was called for, or meant to be.
    pub seen: Option<Seen>,
    /// As `seen`, by what stands in the log: what was to be written, and was not, nobody else knows of.
    pub written: Option<Seen>,
}

/// The record that a receipt tells of.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    offset: i64,
    /// It was redriven to a place before others.
    ahead: bool,
    outcome: SinkOutcome,
}

impl Seen {
    fn of(receipt: &SinkReceipt) -> Seen {
        Seen {
            offset: receipt.source_event.offset,
            ahead: receipt.meta.ext.contains_key(AHEAD),
            outcome: receipt.outcome,
        }
    }

    /// Whether it tells that the record at `offset` was called for before. Records of a key go in order: one
    /// that comes again with no higher offset may have had its effect. But what was redriven went before what
    /// is parked behind it.
    pub fn tells_of(&self, offset: i64, is_parked: bool) -> bool {
        self.offset == offset || self.offset > offset && !(self.ahead && is_parked)
    }

    /// How far it is in doubt whether the record at `offset`, of which it tells, had its effect.
    pub fn doubt(&self, offset: i64) -> Doubt {
        match self.outcome {
            SinkOutcome::OutcomeUnknown if self.offset == offset => Doubt::Untold,
            _ => Doubt::Possible,
        }
    }
}

/// Whether it is a replay of a record that the sink has yet to come to.
fn comes_by_itself(letter: &DeadLetter, committed_to: i64) -> bool {
    let offset = letter.original.as_ref().map(|o| o.offset);
    letter.headers.contains_key(REPLAY_HEADER) && offset.is_none_or(|o| o >= committed_to)
}

/// Key and offset of the record in a letter.
fn place_of(letter: &DeadLetter) -> Option<(Text, i64)> {
    let key = std::str::from_utf8(&letter.key.as_ref()?.0).ok()?;
    Some((Text::from(key), letter.original.as_ref()?.offset))
}

/// An entry of the park topic, as it was read.
fn held(topic: &Arc<str>, key: &[u8], value: &[u8]) -> Record {
    Record {
        origin: Origin {
            topic: topic.clone(),
            partition: 0,
            offset: 0,
        },
        timestamp_ms: 0,
        key: Some(Bytes::copy_from_slice(key)),
        value: Some(Bytes::copy_from_slice(value)),
        headers: Headers::default(),
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
