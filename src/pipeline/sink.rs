//! Sinks: from the log into a system.

use super::{Fault, Inbound, SourceRecord};
use crate::contract::event::{SinkOutcome, Text};

/// How a target recognises a call that it has seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// Writing the same absolute value again changes nothing.
    AbsoluteValue,
    /// An object is found again by a natural key before it is created.
    NaturalKey,
    /// The target stores an idempotency key with the answer.
    Key,
}

impl Idempotency {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Idempotency::AbsoluteValue => "absolute values",
            Idempotency::NaturalKey => "natural key, looked up before create",
            Idempotency::Key => "idempotency key",
        }
    }
}

/// What a sink can do; declared by the connector and shown to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How repeated calls are kept to one effect.
    pub idempotency: Idempotency,
    /// Whether the target compares before it sets.
    pub compare_and_set: bool,
    /// Most records in one call; 1 when the API takes one at a time.
    pub batch_records_max: usize,
    /// Most calls at a time.
    pub calls_max: usize,
}

/// What was last sent for a key, from the sink's receipts.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Sent {
    /// Version of the event that was sent.
    pub version: i64,
    /// Id of the object in the target.
    pub external_id: Option<String>,
    /// Digest of what was sent, to send only what changed. `None` as well when a call since then
    /// may have had its effect without an answer: then the target may hold something else.
    pub digest: Option<String>,
}

/// A record to be written to the target.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The record's key.
    pub key: Text,
    /// The record.
    pub inbound: Inbound,
    /// What was last sent for the key; `None` when nothing is known.
    pub sent: Option<Sent>,
    /// 1 for the first try.
    pub attempt: u32,
    /// An earlier call for this record may have had its effect, be it of an instance that is no more: look
    /// it up before anything is done.
    pub in_doubt: bool,
}

/// The target's answer to a delivery that needs no further try.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack {
    /// ACKED, DUPLICATE_ACKED or STALE_SKIPPED.
    pub outcome: SinkOutcome,
    /// Version now known to be in the target.
    pub version: i64,
    /// Id of the object in the target.
    pub external_id: Option<String>,
    /// Digest of what was sent, given back as [`Sent::digest`] next time.
    pub digest: Option<String>,
    /// HTTP status or the like.
    pub status: Option<i32>,
}

impl Ack {
    /// That there is nothing to write any more of a person who was erased.
    pub fn erased(version: i64) -> Self {
        Ack {
            outcome: SinkOutcome::StaleSkipped,
            version,
            external_id: None,
            digest: Some(Ack::ERASED.to_owned()),
            status: None,
        }
    }

    /// The digest of what is left of a person who was erased: nothing.
    pub const ERASED: &'static str = "erased";
}

/// What a record may ask for: all that a sink's topics hold of an order, given to it once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The order.
    pub order: Text,
    /// Its name: the same for the same asking, so that what comes twice is done once.
    pub name: String,
    /// Which try it is.
    pub attempt: i64,
    /// Who asks.
    pub asked_by: Text,
    /// Why.
    pub reason: Option<Text>,
    /// The key under which the audit tells what came of it.
    pub told_under: Text,
}

/// Writes records into a system.
///
/// The runtime keeps the order of each key of a topic (a key has at most one delivery under way, of
/// whichever topic), lets a newer record of a whole-state topic replace an older one that waits, and
/// stores a receipt for the key of the topic with the input offset once [`Sink::write`] has answered. A crash between call and receipt makes the same
/// delivery come again: the effect must be the same as that of one.
#[async_trait::async_trait]
pub trait Sink: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;
    /// Writes `batch` (distinct keys, at most `batch_records_max`). One result for each delivery,
    /// in order; a fault says for itself whether to try again, to dead-letter or to stop.
    ///
    /// Cancelling may leave calls done whose answer nobody saw.
    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>>;
    /// Whether a record is this sink's business at all. One that is not is settled without a call:
    /// its effect here is none.
    fn wants(&self, _inbound: &Inbound) -> bool {
        true
    }
    /// What it means for others that the target has refused a record for good: facts, written in the
    /// transaction that passes the record. A record whose refusal is told so has had its effect and is
    /// settled as applied; one of which there is nothing to tell is dead-lettered.
    fn refused(&self, _inbound: &Inbound, _fault: &Fault) -> Vec<SourceRecord> {
        Vec::new()
    }
    /// Whether a call for this record must be known of before it is made, because one that is made twice
    /// cannot be taken back: a refund, a cancellation. A receipt says INTENT first; whoever finds it without
    /// an answer gives the record out [in doubt](Delivery::in_doubt).
    fn is_meant_first(&self, _inbound: &Inbound) -> bool {
        false
    }
    /// What it means for others that a call may or may not have had its effect: facts, told once the target
    /// was asked again in vain. The record is tried until it has answered.
    fn doubted(&self, _inbound: &Inbound) -> Vec<SourceRecord> {
        Vec::new()
    }
    /// Whether [`Sink::write`] looks at the target for what this record would bring about before it changes
    /// anything there, and makes every such change under [`rehearsal::hold`](super::rehearsal::hold). Then a
    /// [rehearsal](super::rehearsal::rehearsed) of it tells what the record would change; where this is
    /// `false`, nobody can tell but by receipts.
    fn looks_first(&self, _inbound: &Inbound) -> bool {
        false
    }
    /// What a record asks for that is not one call: a replay. Whoever runs the sink carries it out
    /// ([`carrying_out`](crate::replay::carrying_out)); [`Sink::write`] is not given the record.
    fn replays(&self, _inbound: &Inbound) -> Option<Replay> {
        None
    }
    /// How urgent a delivery is among those waiting; smaller goes first. Stock-outs, for example.
    fn urgency(&self, _inbound: &Inbound) -> u8 {
        1
    }
}
