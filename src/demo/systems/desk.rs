//! What every system has: an outbox that its source reads, a ledger, and ears.

use crate::contract::event::{Event, EventMeta, SinkOutcome, Text};
use crate::demo::facts;
use crate::domain::Timestamp;
use crate::pipeline::{
    Ack, Capabilities, Clock, Code, Cursor, Delivery, Fault, Idempotency, Inbound, Replay, Sink,
    Source, SourceBatch, SourceRecord, Stage, Vault, rehearsal,
};
use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::{Shared, open};

/// Records told in one poll.
const POLL_RECORDS: usize = 500;
/// Records that may change places.
const WINDOW: usize = 12;

/// A line of a ledger.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub at: Timestamp,
    pub kind: &'static str,
    pub fields: Map<String, Value>,
}

impl Entry {
    /// A field as text; empty where there is none.
    pub fn text(&self, field: &str) -> &str {
        self.fields
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// How a system's messages go wrong on their way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tricks {
    pub seed: u64,
    /// Share of the records that come twice.
    pub twice: f64,
}

/// What a system has on its desk.
pub(crate) struct Desk {
    name: Text,
    clock: Arc<dyn Clock>,
    /// Number of the first record in the outbox, from 1.
    first: i64,
    outbox: VecDeque<SourceRecord>,
    /// Records that are told only from a time on.
    held: Vec<(Timestamp, SourceRecord)>,
    ledger: Vec<Entry>,
    down: bool,
    /// How its messages go wrong.
    tricks: Option<Tricks>,
    /// How late it tells.
    delay: Duration,
    /// Answers to be lost after their effect, from now on.
    cuts: u32,
    /// By which it tells and reads who customers are.
    vault: Option<Arc<dyn Vault>>,
}

impl Desk {
    pub fn new(name: impl Into<Text>, clock: Arc<dyn Clock>) -> Self {
        Desk {
            name: name.into(),
            clock,
            first: 1,
            outbox: VecDeque::new(),
            held: Vec::new(),
            ledger: Vec::new(),
            down: false,
            tricks: None,
            delay: Duration::ZERO,
            cuts: 0,
            vault: None,
        }
    }

    /// Gives it what seals who customers are; without it nothing is told of them.
    pub fn set_vault(&mut self, vault: Arc<dyn Vault>) {
        self.vault = Some(vault);
    }
    pub fn vault(&self) -> Option<&dyn Vault> {
        self.vault.as_deref()
    }

    pub fn name(&self) -> &Text {
        &self.name
    }
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
    /// Whether it answers nobody and tells nothing.
    pub fn set_down(&mut self, down: bool) {
        self.down = down;
    }
    pub fn is_down(&self) -> bool {
        self.down
    }
    /// Its messages go wrong like this from now on.
    pub fn play(&mut self, tricks: Option<Tricks>) {
        self.tricks = tricks;
    }
    /// What it tells from now on is told only so much later.
    pub fn set_delay(&mut self, delay: Duration) {
        self.delay = delay;
    }
    /// Whether it has anything to tell that was not taken yet.
    pub fn has_news(&self) -> bool {
        !self.outbox.is_empty()
    }
    /// Number of the first record that it still has.
    pub fn first(&self) -> i64 {
        self.first
    }
    /// When it tells next of what it has kept back.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.held.iter().map(|(at, _)| *at).min()
    }
    /// The next answers get lost after the call had its effect.
    pub fn cut(&mut self, answers: u32) {
        self.cuts += answers;
    }
    pub fn ledger(&self) -> &[Entry] {
        &self.ledger
    }

    /// Writes an effect down.
    pub fn write(&mut self, kind: &'static str, fields: Value) {
        let Value::Object(mut fields) = fields else {
            return;
        };
        fields.retain(|_, value| !value.is_null());
        self.ledger.push(Entry {
            at: self.now(),
            kind,
            fields,
        });
    }

    /// The ledger as JSON lines.
    pub fn lines(&self) -> impl Iterator<Item = Value> + '_ {
        self.ledger.iter().map(|entry| {
            let mut line =
                json!({"time": micros(entry.at), "system": self.name.as_str(), "kind": entry.kind});
            if let Some(line) = line.as_object_mut() {
                line.extend(entry.fields.clone());
            }
            line
        })
    }

    /// The beginning of a fact of this system; `record` is its own name for it.
    pub fn meta(&self, event_type: &str, record: &str, version: i64) -> EventMeta {
        facts::meta(event_type, &self.name, record, "", version, self.now())
    }

    /// Tells a fact.
    pub fn tell(&mut self, topic: &'static str, key: impl Into<Text>, event: impl Into<Event>) {
        let record = SourceRecord {
            topic,
            key: key.into(),
            event: event.into(),
        };
        match self.delay.is_zero() {
            true => self.outbox.push_back(record),
            false => self.held.push((self.now().plus(self.delay), record)),
        }
    }

    fn release(&mut self) {
        let now = self.now();
        let (due, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.held = held;
        let due: Vec<(Timestamp, SourceRecord)> = due;
        self.outbox
            .extend(due.into_iter().map(|(_, record)| record));
    }
}

/// RFC 3339 with six decimal places, always.
fn micros(at: Timestamp) -> String {
    match jiff::Timestamp::from_microsecond(at.0) {
        Ok(time) => format!("{time:.6}"),
        Err(_) => at.to_string(),
    }
}

/// A system around Crossdock.
pub(crate) trait System: Send + 'static {
    fn desk(&self) -> &Desk;
    fn desk_mut(&mut self) -> &mut Desk;
    /// Topics that its sink reads.
    fn listens(&self) -> &'static [&'static str] {
        &[]
    }
    /// Whether it has any business with an event.
    fn cares(&self, _event: &Event) -> bool {
        true
    }
    /// Whether hearing an event would change anything; `None` where it cannot tell.
    fn lacks(&self, _event: &Event) -> Option<bool> {
        None
    }
    /// What an event asks to be told again.
    fn replays(&self, _event: &Event) -> Option<Replay> {
        None
    }
    /// Hears an event; the same may come again.
    fn hear(&mut self, _event: &Event) {}
}

/// The source of a system.
pub(crate) struct Teller<S: System + ?Sized>(pub Shared<S>);

#[async_trait::async_trait]
impl<S: System + ?Sized> Source for Teller<S> {
    async fn poll(&mut self, _shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let mut system = open(&self.0);
        let desk = system.desk_mut();
        let from = cursor.map_or(1, |c| c.sequence);
        desk.release();
        let mut records = Vec::new();
        if !desk.down {
            let skip = usize::try_from(from - desk.first).unwrap_or(0);
            records.extend(desk.outbox.iter().skip(skip).take(POLL_RECORDS).cloned());
        }
        let sequence = from + records.len() as i64;
        let more = !desk.down && sequence < desk.first + desk.outbox.len() as i64;
        if let Some(tricks) = desk.tricks {
            let position = (from as u64).rotate_left(32);
            let mut random = ChaCha8Rng::seed_from_u64(tricks.seed ^ position);
            let twice = records.iter().filter(|_| random.random_bool(tricks.twice));
            let twice: Vec<SourceRecord> = twice.cloned().collect();
            records.extend(twice);
            for window in records.chunks_mut(WINDOW) {
                window.shuffle(&mut random);
            }
        }
        Ok(SourceBatch {
            records,
            cursor: Cursor {
                bookmark: Value::Null,
                sequence,
            },
            more,
            ..SourceBatch::default()
        })
    }

    async fn committed(&mut self, _shard: &str, cursor: &Cursor) -> Result<(), Fault> {
        let mut system = open(&self.0);
        let desk = system.desk_mut();
        while desk.first < cursor.sequence && desk.outbox.pop_front().is_some() {
            desk.first += 1;
        }
        Ok(())
    }
}

/// The sink of a system.
pub(crate) struct Listener<S: System>(pub Shared<S>);

#[async_trait::async_trait]
impl<S: System> Sink for Listener<S> {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            idempotency: Idempotency::NaturalKey,
            compare_and_set: false,
            batch_records_max: 1,
            calls_max: 1,
        }
    }

    fn wants(&self, inbound: &Inbound) -> bool {
        open(&self.0).cares(&inbound.event)
    }

    fn looks_first(&self, inbound: &Inbound) -> bool {
        open(&self.0).lacks(&inbound.event).is_some()
    }

    fn replays(&self, inbound: &Inbound) -> Option<Replay> {
        open(&self.0).replays(&inbound.event)
    }

    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        let mut system = open(&self.0);
        let heard = batch.iter().map(|d| answer(&mut *system, &d.inbound.event));
        heard.collect()
    }
}

/// Lets a system hear an event, and gives its answer.
fn answer(system: &mut impl System, event: &Event) -> Result<Ack, Fault> {
    let unwell =
        |name: &str, code, what| Err(Fault::retry(Stage::Write, code, format!("{name} {what}")));
    if system.desk().down {
        return unwell(system.desk().name(), Code::Unavailable, "does not answer");
    }
    if rehearsal::is_under_way() {
        if system.lacks(event) != Some(false) {
            rehearsal::hold(|| format!("{} hears it", system.desk().name()))?;
        }
        return Ok(taken(event));
    }
    system.hear(event);
    let desk = system.desk_mut();
    if desk.cuts > 0 {
        desk.cuts -= 1;
        return unwell(
            desk.name(),
            Code::OutcomeUnknown,
            "took the call and did not answer",
        );
    }
    Ok(taken(event))
}

fn taken(event: &Event) -> Ack {
    Ack {
        outcome: SinkOutcome::Acked,
        version: event.meta().source_position,
        external_id: None,
        digest: None,
        status: None,
    }
}
