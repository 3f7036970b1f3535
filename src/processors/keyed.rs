//! The loop that processors share whose knowledge of a key is one value: read what is known of it, take
//! each record in and settle it, follow up once, keep what is known now.
//!
//! What remains for a processor is what a record means ([`Rules::take`]) and what follows from all that
//! is known ([`Rules::finish`]).

use super::checks::{damaged, quality};
use super::emitter::Emitter;
use crate::contract::event::{Event, Outcome, Text};
use crate::domain::{FACTS_MAX, Kept, Stored, Taken, Timestamp, adopt_state, tell_state};
use crate::pipeline::{Context, Fault, Inbound, Processor, ProcessorDescriptor, Verdict};

/// What a processor does that others do not.
pub trait Rules: Default + Send {
    /// What it is.
    const DESCRIPTOR: &'static ProcessorDescriptor;
    /// The source that its events name.
    const SOURCE: &'static str;
    /// What it knows of a key.
    type Known: Kept;
    /// What one call gathers on the way to [`Rules::finish`].
    type Gathered: Default;

    /// Takes the record `index` in and says what became of it.
    ///
    /// # Errors
    /// When the record can never be taken in; or, as a `Halt`, when nothing can.
    fn take(
        &self,
        index: usize,
        known: &mut Self::Known,
        gathered: &mut Self::Gathered,
        call: &mut Call<'_, '_>,
    ) -> Result<Heard, Fault>;

    /// Says what follows from what is known now, and sets the next timer in it. Called when there was
    /// news, and when the timer has fired.
    ///
    /// # Errors
    /// As [`Processor::process`].
    fn finish(
        &self,
        known: &mut Self::Known,
        gathered: Self::Gathered,
        call: &mut Call<'_, '_>,
    ) -> Result<Fate, Fault>;

    /// As [`Processor::record`].
    const RECORD: Option<&'static str> = None;

    /// As [`Processor::recall`].
    fn recall(&mut self, _key: &str, _event: &Event) {}

    /// As [`Processor::describe`], of an entry beside that of its key.
    fn describe_part(_value: &[u8]) -> Option<serde_json::Value> {
        None
    }

    /// As [`Processor::adopt`], of an entry beside that of its key.
    fn adopt_part(_own: &[u8], _other: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// As [`Processor::table`], for tables of which no known key has to be looked at again.
    fn table(&mut self, _key: &str, _event: Option<&Event>) {}
}

/// What became of a record.
pub enum Heard {
    /// As said.
    Taken(Taken),
    /// It says nothing here, for this reason, and is settled.
    Nothing(&'static str),
    /// It is news that [`Rules::finish`] settles.
    Later,
}

/// What becomes of what is known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is kept.
    Kept,
    /// It is over for good.
    Forgotten,
}

/// One call: a key with its records, or its timer.
pub struct Call<'c, 'a> {
    /// The key.
    pub key: &'c str,
    /// Its records; none when a timer has fired.
    pub inbound: &'c [Inbound],
    /// Whether something has to be followed up.
    pub news: bool,
    /// The hands.
    pub context: &'c mut Context<'a>,
    cause: Option<&'c Inbound>,
    processor: &'static str,
    source: &'static str,
}

impl<'c> Call<'c, '_> {
    /// The runtime's time.
    pub fn now(&self) -> Timestamp {
        self.context.now()
    }
    /// Whether there was no record: time has passed.
    pub fn is_timer(&self) -> bool {
        self.inbound.is_empty()
    }
    /// The record that was news last.
    pub fn cause(&self) -> Option<&'c Inbound> {
        self.cause
    }
    /// As [`Call::emitter`], as of the time at which the cause happened.
    pub fn emitter_as_of_cause(&self) -> Emitter<'c> {
        let cause = self.cause.map(|cause| cause.event.meta().occurred_at);
        Emitter {
            at: cause.unwrap_or(self.now()),
            ..self.emitter()
        }
    }
    /// By which events of this call are told, as of now.
    pub fn emitter(&self) -> Emitter<'c> {
        Emitter {
            processor: self.processor,
            source: self.source,
            entity: self.key,
            cause: self.cause,
            at: self.now(),
        }
    }
}

/// A processor by these rules.
#[derive(Default)]
pub struct Keyed<R> {
    rules: R,
    bytes: Vec<u8>,
}

impl<R: Rules> Keyed<R> {
    /// Without any key; state brings them.
    pub fn new() -> Self {
        Keyed {
            rules: R::default(),
            bytes: Vec::new(),
        }
    }

    fn finish(
        &mut self,
        mut known: R::Known,
        gathered: R::Gathered,
        timer: Option<Timestamp>,
        mut call: Call<'_, '_>,
    ) -> Result<(), Fault> {
        let fate = self.rules.finish(&mut known, gathered, &mut call)?;
        let (key, context) = (call.key, call.context);
        if fate == Fate::Forgotten {
            context.state().delete(key.as_bytes());
            context.set_timer(key, None);
            return Ok(());
        }
        if known.due() != timer {
            context.set_timer(key, known.due());
        }
        known.to_state(&mut self.bytes);
        if context.state().get(key.as_bytes()) != Some(&self.bytes) {
            context.state().put(key.as_bytes(), &self.bytes);
        }
        Ok(())
    }
}

fn call<'c, 'a, R: Rules>(
    key: &'c str,
    inbound: &'c [Inbound],
    context: &'c mut Context<'a>,
) -> Call<'c, 'a> {
    Call {
        key,
        inbound,
        news: false,
        context,
        cause: None,
        processor: R::DESCRIPTOR.name,
        source: R::SOURCE,
    }
}

impl<R: Rules> Processor for Keyed<R> {
    fn descriptor(&self) -> &'static ProcessorDescriptor {
        R::DESCRIPTOR
    }

    fn process(
        &mut self,
        key: &str,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut known = load::<R::Known>(key, context)?;
        let (timer, mut gathered) = (known.due(), R::Gathered::default());
        let mut call = call::<R>(key, inbound, context);
        for (index, record) in inbound.iter().enumerate() {
            let heard = self.rules.take(index, &mut known, &mut gathered, &mut call);
            let (outcome, reason) = match heard {
                Ok(Heard::Later) => {
                    (call.news, call.cause) = (true, Some(record));
                    continue;
                }
                Ok(Heard::Nothing(reason)) => (Outcome::Applied, Some(reason)),
                Ok(Heard::Taken(Taken::Applied)) => {
                    (call.news, call.cause) = (true, Some(record));
                    (Outcome::Applied, None)
                }
                Ok(Heard::Taken(Taken::Duplicate)) => (Outcome::Duplicate, None),
                Ok(Heard::Taken(Taken::Superseded)) => {
                    (Outcome::Superseded, Some("something newer is known"))
                }
                Ok(Heard::Taken(Taken::TooMany)) => {
                    call.context.reject(index, too_many(key));
                    continue;
                }
                Err(fault) if matches!(fault.verdict, Verdict::Halt) => return Err(fault),
                Err(fault) => {
                    call.context.reject(index, fault);
                    continue;
                }
            };
            call.context.settle(index, outcome, reason);
        }
        if call.news {
            known.heard(call.now());
            self.finish(known, gathered, timer, call)?;
        }
        Ok(())
    }

    fn timer(
        &mut self,
        key: &str,
        _due: Timestamp,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let known = load::<R::Known>(key, context)?;
        // It has fired: whatever follows sets it again.
        context.set_timer(key, None);
        let call = call::<R>(key, &[], context);
        self.finish(known, R::Gathered::default(), None, call)
    }

    fn table(&mut self, _topic: &str, key: &str, event: Option<&Event>) -> bool {
        self.rules.table(key, event);
        false
    }

    fn restored_timer(&self, key: &[u8], value: &[u8]) -> Option<(Text, Timestamp)> {
        if !self.is_entity(key) {
            return None;
        }
        let due = R::Known::due_of(value).ok()??;
        Some((std::str::from_utf8(key).ok()?.into(), due))
    }

    fn record(&self) -> Option<&'static str> {
        R::RECORD
    }

    fn recall(&mut self, key: &str, event: &Event) {
        self.rules.recall(key, event);
    }

    fn describe(&self, key: &[u8], value: &[u8]) -> Option<serde_json::Value> {
        match self.is_entity(key) {
            true => tell_state::<R::Known>(value),
            false => R::describe_part(value),
        }
    }

    fn adopt(&self, key: &[u8], own: &[u8], other: &[u8]) -> Option<Vec<u8>> {
        match self.is_entity(key) {
            true => adopt_state::<R::Known>(own, other),
            false => R::adopt_part(own, other),
        }
    }
}

/// What is known of `key`.
///
/// # Errors
/// A `Halt` when its state is not what this build wrote.
pub(super) fn load<K: Kept>(key: &str, context: &mut Context<'_>) -> Result<K, Fault> {
    match context.state().get(key.as_bytes()) {
        Some(bytes) => K::from_state(bytes).map_err(|e| damaged(key, e)),
        None => Ok(K::default()),
    }
}

fn too_many(key: &str) -> Fault {
    quality(format!(
        "{FACTS_MAX} things of this kind are known of {key}, more than anything real has; check the key that its source sends"
    ))
}
