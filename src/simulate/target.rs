//! The way between Crossdock and a system: calls take their time, fail, get lost, arrive twice or after
//! their caller has given up; reads of a source take long or fail.

use super::agenda::{Agenda, Item};
use super::story::Story;
use super::time::Time;
use crate::contract::event::{Event, SinkOutcome, Text};
use crate::contract::topic;
use crate::demo::systems::{Shared, System, Teller, open};
use crate::domain::Timestamp;
use crate::pipeline::{
    Ack, Capabilities, Code, Cursor, Delivery, Fault, Idempotency, Inbound, Origin, Sink, Source,
    SourceBatch, SourceRecord, Stage, Verdict,
};
use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use uuid::Uuid;

/// Calls at a time.
const CALLS_MAX: usize = 4;
/// Facts that may be told again.
const RECENT_MAX: usize = 40;
/// A caller gives up after this.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a system answers a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Answer {
    /// 429: nothing is done, and the caller is to wait.
    Throttled(Duration),
    /// 500: nothing is done.
    Error,
    /// The connection drops before the call arrives.
    Dropped,
    /// It is done, and the connection drops.
    Cut,
    /// It is done, and the answer takes long.
    Slow(Duration),
    /// The call arrives twice.
    Twice,
    /// The call arrives once its caller has given up.
    Late(Duration),
}

impl Answer {
    pub fn any(random: &mut ChaCha8Rng) -> Answer {
        let seconds = Duration::from_secs(random.random_range(1..40));
        match random.random_range(0..10) {
            0 => Answer::Throttled(seconds),
            1..3 => Answer::Error,
            3 => Answer::Dropped,
            4..7 => Answer::Cut,
            7 => Answer::Slow(seconds),
            8 => Answer::Twice,
            _ => Answer::Late(seconds),
        }
    }
}

/// The way to a system, shared by all instances.
pub(super) struct Wire {
    pub name: Text,
    /// Its place among the systems.
    pub number: usize,
    pub system: Shared<dyn System>,
    pub time: Arc<Time>,
    pub agenda: Arc<Agenda>,
    pub story: Arc<Story>,
    pub seed: u64,
    pub state: Mutex<OnWire>,
}

/// What is under way, and what was seen.
#[derive(Default)]
pub(super) struct OnWire {
    calls: u64,
    pub answers: VecDeque<Answer>,
    /// Reads that take so long, and whether they fail.
    pub reads: VecDeque<(Duration, bool)>,
    /// Whole states: the newest version that the system has.
    newest: BTreeMap<(Text, Text), i64>,
    /// What the system holds of each key that is told it as an absolute value.
    held: BTreeMap<(Text, Text), String>,
    /// Until when it fails at the calls of a key, the first that comes.
    pub stubborn: Option<(Timestamp, Option<Text>)>,
    /// How many of the last facts are told once more.
    pub repeats: usize,
    recent: VecDeque<SourceRecord>,
    /// What was told, by its place in the order of telling.
    pub told: BTreeMap<i64, Told>,
    /// What was told once more, and how often at most.
    pub again: BTreeMap<Told, usize>,
    /// Where what the system was called for stands in the log.
    pub heard: BTreeSet<(Text, i32, i64)>,
    /// What must not be, and the rule that it breaks.
    pub wrong: Option<(&'static str, String)>,
}

/// Topic and identity of a fact.
pub(super) type Told = (&'static str, Uuid);

/// A key of a system has one call at a time.
pub(super) const ONE_CALL: &str = "a key has one call at a time";
/// A call is left out only where it would change nothing.
pub(super) const KNOWN: &str = "what is not sent is there already";

/// The version of an event that holds a whole state.
fn version_of(event: &Event) -> Option<i64> {
    match event {
        Event::AvailabilityChanged(e) => Some(e.ats_version),
        Event::OrderState(e) => Some(e.state_version),
        Event::ShipmentState(e) => Some(e.state_version),
        _ => None,
    }
}

impl Wire {
    /// The call arrives. Of whole states the system keeps the newer.
    pub fn arrive(&self, topic: &str, key: &str, event: &Event) {
        if let Some(version) = version_of(event) {
            let mut state = open(&self.state);
            let newest = state.newest.entry((topic.into(), key.into())).or_default();
            if version < *newest {
                return;
            }
            *newest = version;
            if let Some(digest) = digest(event) {
                state.held.insert((topic.into(), key.into()), digest);
            }
        }
        open(&self.system).hear(event);
    }

    /// Whether it fails at this key now.
    fn is_stubborn(&self, key: &Text) -> bool {
        let mut state = open(&self.state);
        let Some((until, of)) = &mut state.stubborn else {
            return false;
        };
        let ends = *until <= self.time.now();
        let hit = !ends && of.get_or_insert_with(|| key.clone()) == key;
        if ends {
            state.stubborn = None;
        }
        hit
    }

    fn next_call(&self) -> (Duration, Duration, Option<Answer>) {
        let mut state = open(&self.state);
        state.calls += 1;
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ state.calls.rotate_left(40));
        let mut way = || Duration::from_millis(random.random_range(1..80));
        (way(), way(), state.answers.pop_front())
    }
}

/// One instance's sink for a system.
pub(super) struct Caller {
    pub wire: Arc<Wire>,
    pub instance: String,
    pub under_way: Mutex<BTreeSet<Text>>,
}

impl Caller {
    async fn call(&self, delivery: &Delivery) -> Result<Ack, Fault> {
        let wire = &self.wire;
        let (inbound, key) = (&delivery.inbound, &delivery.key);
        let topic = &*inbound.record.origin.topic;
        let digest = digest(&inbound.event);
        let known = delivery.sent.as_ref().and_then(|s| s.digest.as_ref());
        let ack = |outcome| Ack {
            outcome,
            version: version_of(&inbound.event).unwrap_or_default(),
            external_id: None,
            digest: digest.clone(),
            status: Some(200),
        };
        if known.is_some() && known == digest.as_ref() {
            self.check_held(topic, delivery);
            return Ok(ack(SinkOutcome::DuplicateAcked));
        }
        let retry = |code, after, words: &str| {
            let mut fault = Fault::retry(Stage::Write, code, format!("{} {words}", wire.name));
            fault.verdict = Verdict::Retry { after };
            Err(fault)
        };
        let (there, back, answer) = wire.next_call();
        if let Some(answer) = answer {
            wire.story.tell(wire.time.now(), || {
                format!("{} answers {} with {answer:?}", wire.name, self.instance)
            });
        }
        wire.time.after(there).await;
        if wire.is_stubborn(key) {
            return retry(
                Code::Unavailable,
                None,
                "answered 500, as ever for this key",
            );
        }
        match answer {
            Some(Answer::Throttled(wait)) => {
                return retry(Code::Throttled, Some(wait), "asks for fewer calls");
            }
            Some(Answer::Error) => return retry(Code::Unavailable, None, "answered 500"),
            Some(Answer::Dropped) => return retry(Code::OutcomeUnknown, None, "did not answer"),
            Some(Answer::Late(wait)) => {
                let item = Item::Arrive(
                    wire.number,
                    topic.into(),
                    key.clone(),
                    Box::new(inbound.event.clone()),
                );
                wire.agenda.add(wire.time.now().plus(PATIENCE + wait), item);
                self.note(&inbound.record.origin);
                wire.time.after(PATIENCE).await;
                return retry(Code::OutcomeUnknown, None, "did not answer in time");
            }
            _ => {}
        }
        if open(&wire.system).desk().is_down() {
            return retry(Code::Unavailable, None, "does not answer");
        }
        self.note(&inbound.record.origin);
        wire.arrive(topic, key, &inbound.event);
        match answer {
            Some(Answer::Twice) => wire.arrive(topic, key, &inbound.event),
            Some(Answer::Slow(wait)) => wire.time.after(wait).await,
            _ => {}
        }
        wire.time.after(back).await;
        match answer {
            Some(Answer::Cut) => retry(
                Code::OutcomeUnknown,
                None,
                "took the call and did not answer",
            ),
            _ => Ok(ack(SinkOutcome::Acked)),
        }
    }

    /// The call is left out, for the runtime says that the system has this value.
    fn check_held(&self, topic: &str, delivery: &Delivery) {
        let mut state = open(&self.wire.state);
        let key = (Text::from(topic), delivery.key.clone());
        let digest = digest(&delivery.inbound.event);
        if state.held.get(&key) != digest.as_ref() {
            let origin = &delivery.inbound.record.origin;
            let wrong = format!(
                "{} leaves {origin} out, {} has {:?}",
                self.instance,
                self.wire.name,
                state.held.get(&key)
            );
            state.wrong.get_or_insert((KNOWN, wrong));
        }
    }

    fn note(&self, origin: &Origin) {
        let place = (Text::from(&*origin.topic), origin.partition, origin.offset);
        open(&self.wire.state).heard.insert(place);
    }
}

/// What a system that is told absolute values holds after the call.
pub(super) fn digest(event: &Event) -> Option<String> {
    match event {
        Event::AvailabilityChanged(e) => Some(e.ats.to_string()),
        _ => None,
    }
}

#[async_trait::async_trait]
impl Sink for Caller {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            idempotency: Idempotency::NaturalKey,
            compare_and_set: true,
            batch_records_max: 1,
            calls_max: CALLS_MAX,
        }
    }

    fn wants(&self, inbound: &Inbound) -> bool {
        open(&self.wire.system).cares(&inbound.event)
    }

    fn is_meant_first(&self, inbound: &Inbound) -> bool {
        matches!(inbound.event, Event::RefundEvent(_))
    }

    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        let mut results = Vec::new();
        for delivery in batch {
            if !open(&self.under_way).insert(delivery.key.clone()) {
                let wrong = format!(
                    "{} makes two calls for {} at a time",
                    self.instance, delivery.key
                );
                open(&self.wire.state)
                    .wrong
                    .get_or_insert((ONE_CALL, wrong));
            }
            results.push(self.call(delivery).await);
            open(&self.under_way).remove(&delivery.key);
        }
        results
    }
}

/// One instance's source of a system.
pub(super) struct Reader {
    pub wire: Arc<Wire>,
    pub teller: Teller<dyn System>,
}

impl Reader {
    /// Notes what is told from this place on, and tells the last facts again where that is due.
    fn note(&self, from: i64, batch: &mut SourceBatch) {
        let behind = from < open(&self.wire.system).desk().first();
        let mut state = open(&self.wire.state);
        // Whoever asks for what was acknowledged long ago is a zombie, and gets what follows instead.
        if !behind {
            let places = (from..).zip(&batch.records);
            state
                .told
                .extend(places.map(|(place, record)| (place, told(record))));
        }
        let fresh = std::mem::take(&mut batch.records);
        let repeats = std::mem::take(&mut state.repeats);
        let first = state.recent.len().saturating_sub(repeats);
        let repeated: Vec<SourceRecord> = state.recent.range(first..).cloned().collect();
        for record in &repeated {
            *state.again.entry(told(record)).or_default() += 1;
        }
        state.recent.extend(fresh.iter().cloned());
        let beyond = state.recent.len().saturating_sub(RECENT_MAX);
        state.recent.drain(..beyond);
        drop(state);
        batch.records = repeated;
        batch.records.extend(fresh);
    }
}

fn told(record: &SourceRecord) -> Told {
    (record.topic, record.event.meta().event_id)
}

#[async_trait::async_trait]
impl Source for Reader {
    async fn poll(&mut self, shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let slow = open(&self.wire.state).reads.pop_front();
        let mut batch = self.teller.poll(shard, cursor).await;
        if let Ok(batch) = &mut batch {
            self.note(cursor.map_or(1, |c| c.sequence), batch);
        }
        if let Some((takes, fails)) = slow {
            self.wire.time.after(takes).await;
            if fails {
                let words = format!("{} does not answer", self.wire.name);
                return Err(Fault::retry(Stage::Read, Code::Unavailable, words));
            }
        }
        batch
    }

    async fn committed(&mut self, shard: &str, cursor: &Cursor) -> Result<(), Fault> {
        self.teller.committed(shard, cursor).await
    }
}

/// Topics that a system hears of in this trade.
pub(super) fn topics_of(system: &dyn System, stock_only: bool) -> Vec<&'static str> {
    let of_stock = [topic::STOCK_ATS, topic::RESERVATION_EVENT];
    let all = system.listens().iter().copied();
    all.filter(|t| !stock_only || of_stock.contains(t))
        .collect()
}
