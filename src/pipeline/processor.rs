//! Processors: pure functions from records and state to outputs, outcomes and new state.

use super::{Fault, Origin, Record};
use crate::contract::event::{Event, Outcome, Text};
use crate::domain::Timestamp;

/// A decoded input record.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// The record as it was read: its place, its key, its headers.
    pub record: Record,
    /// Its value. Decoded, of the topic's contract, with a key that is valid UTF-8.
    pub event: Event,
}

/// What a processor is and what it reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct ProcessorDescriptor {
    /// Name, as in `crossdock run NAME` and in the names of its topics.
    pub name: &'static str,
    /// One sentence for people.
    pub purpose: &'static str,
    /// Topics it consumes: co-partitioned, keyed alike, each record settled.
    pub inputs: &'static [&'static str],
    /// Small topics that every task reads whole and follows: reference data, not settled.
    pub tables: &'static [&'static str],
    /// Topics it writes.
    pub outputs: &'static [&'static str],
}

/// A processor's logic: synchronous and deterministic, without clock, I/O or randomness of its own.
///
/// The runtime calls it for one key at a time, at most once for each key in a transaction unless a
/// timer of that key fires in the same one, and commits state, outputs, outcomes and input offsets
/// together or not at all. After an abort the same records come again against the old state; a
/// processor therefore keeps nothing outside of [`State`] but what [`Processor::table`] gave it.
pub trait Processor: Send {
    /// What it is.
    fn descriptor(&self) -> &'static ProcessorDescriptor;

    /// Handles all records of `key` in this transaction, in order of arrival across the inputs.
    /// Every record must be settled: [`Context::settle`] or [`Context::reject`].
    ///
    /// Called with no records when a table changed and the key must be looked at again.
    ///
    /// # Errors
    /// Only for what concerns no single record (a defect, state that cannot be read): nothing of
    /// the transaction is kept.
    fn process(
        &mut self,
        key: &str,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) -> Result<(), Fault>;

    /// Handles a timer of `key` set for `due` that has come due by the runtime's clock.
    ///
    /// # Errors
    /// As [`Processor::process`].
    fn timer(
        &mut self,
        _key: &str,
        _due: Timestamp,
        _context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        Ok(())
    }

    /// Takes in one record of a table (`None`: the key was deleted). Returns whether keys already
    /// in state must be looked at again because of it.
    fn table(&mut self, _topic: &str, _key: &str, _event: Option<&Event>) -> bool {
        false
    }

    /// Reads, from an entry being restored, the timer that its key has: its key and due time.
    /// Timers are not stored apart from the state that they belong to.
    fn restored_timer(&self, _key: &[u8], _value: &[u8]) -> Option<(Text, Timestamp)> {
        None
    }

    /// Whether a state key is that of an entity which [`Processor::process`] should be called for
    /// when a table changes. Sub-entries answer no.
    fn is_entity(&self, state_key: &[u8]) -> bool {
        !state_key.contains(&0)
    }

    /// The topic to which it writes decisions that depend on what came first, under the keys and so in
    /// the partitions of its inputs; `None` where it makes none, or reads its own.
    fn record(&self) -> Option<&'static str> {
        None
    }

    /// Takes in what it once wrote to [`Processor::record`], before the records that led to it are read
    /// again: that is followed then, instead of being decided anew.
    fn recall(&mut self, _key: &str, _event: &Event) {}

    /// What an entry of its state says, for people; `None` where it cannot be read, or is only an index.
    fn describe(&self, _state_key: &[u8], _value: &[u8]) -> Option<serde_json::Value> {
        None
    }

    /// Brings the entries of `key` into a form that two states share which say the same, whatever the order
    /// in which their records came. For comparing only: no state is kept like this.
    fn canonical(&self, _key: &str, _state: &mut dyn State) {}

    /// The entry `own`, with what depends on how records were gathered into transactions, and on the
    /// clock, taken over from `other`: counts of what was told, and when. Two states that are equal then
    /// say the same. `None` where one of them cannot be read, or there is nothing of the kind in it.
    fn adopt(&self, _state_key: &[u8], _own: &[u8], _other: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// A processor's memory: byte keys and values, of one partition. Writes are seen at once and become
/// durable with the transaction.
///
/// Keys begin with the record key; sub-entries append a zero byte and a name.
pub trait State {
    /// The value under `key`.
    fn get(&self, key: &[u8]) -> Option<&[u8]>;
    /// Sets the value under `key`.
    fn put(&mut self, key: &[u8], value: &[u8]);
    /// Removes `key`.
    fn delete(&mut self, key: &[u8]);
    /// Visits the entries whose key begins with `prefix`, in ascending order. Costs a pass over the
    /// whole partition: for tools and rare repairs, not for each record.
    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]));
}

/// A record to be written in this transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Emission {
    /// Topic.
    pub topic: &'static str,
    /// Key.
    pub key: Text,
    /// Value. On a compacted topic the last emission of a key in a transaction is the one written.
    pub event: Event,
}

/// How one effect of one input record ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// Index of the record in the slice given to [`Processor::process`].
    pub index: usize,
    /// Empty for the record's main effect, which counts in the ledger; else the effect's name.
    pub effect: &'static str,
    /// The outcome.
    pub outcome: Outcome,
    /// Why, for outcomes that a person may ask about.
    pub reason: Option<&'static str>,
}

/// The later outcome of a record that was BUFFERED in an earlier transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution {
    /// The record.
    pub origin: Origin,
    /// Its effect, as in [`Settlement`].
    pub effect: &'static str,
    /// The outcome now.
    pub outcome: Outcome,
}

/// What a call of a processor has to say. The runtime drains it after each call.
#[derive(Debug, Default)]
pub struct Output {
    /// Records to write.
    pub emissions: Vec<Emission>,
    /// Outcomes of the records given.
    pub settlements: Vec<Settlement>,
    /// Records that can never succeed, with the reason.
    pub rejections: Vec<(usize, Fault)>,
    /// Outcomes of records buffered before.
    pub resolutions: Vec<Resolution>,
    /// Records that were parked and are no longer.
    pub unparked: Vec<Origin>,
    /// The new timer of a key; `None` clears it. A key has at most one.
    pub timers: Vec<(Text, Option<Timestamp>)>,
}

impl Output {
    /// Forgets what was said, keeping the room for what will be.
    pub fn clear(&mut self) {
        self.emissions.clear();
        self.settlements.clear();
        self.rejections.clear();
        self.resolutions.clear();
        self.unparked.clear();
        self.timers.clear();
    }
}

/// A processor's hands during one call.
pub struct Context<'a> {
    state: &'a mut dyn State,
    output: &'a mut Output,
    now: Timestamp,
}

impl<'a> Context<'a> {
    /// For the runtime and for tests: a context over this state and output at this time.
    pub fn new(state: &'a mut dyn State, output: &'a mut Output, now: Timestamp) -> Self {
        Context { state, output, now }
    }
    /// The state of this partition.
    pub fn state(&mut self) -> &mut dyn State {
        self.state
    }
    /// The runtime's time at this step. For timers and for stamping what is emitted; a decision
    /// about facts takes the time that the facts carry.
    pub fn now(&self) -> Timestamp {
        self.now
    }
    /// Writes `event` to `topic` under `key`. The runtime stamps `meta.recorded_at` with
    /// [`Context::now`] where it is zero.
    pub fn emit(&mut self, topic: &'static str, key: impl Into<Text>, event: impl Into<Event>) {
        self.output.emissions.push(Emission {
            topic,
            key: key.into(),
            event: event.into(),
        });
    }
    /// Says how the main effect of record `index` ended.
    pub fn settle(&mut self, index: usize, outcome: Outcome, reason: Option<&'static str>) {
        self.output.settlements.push(Settlement {
            index,
            effect: "",
            outcome,
            reason,
        });
    }
    /// Says how a further effect of record `index` ended.
    pub fn settle_effect(
        &mut self,
        index: usize,
        effect: &'static str,
        outcome: Outcome,
        reason: Option<&'static str>,
    ) {
        self.output.settlements.push(Settlement {
            index,
            effect,
            outcome,
            reason,
        });
    }
    /// Sends record `index` to the dead-letter topic. Call it before changing state for the record.
    pub fn reject(&mut self, index: usize, fault: Fault) {
        self.output.rejections.push((index, fault));
    }
    /// Says that a record of this key that was parked goes on: it leaves the park topic. How it ended is
    /// said by [`Context::resolve`].
    pub fn unpark(&mut self, origin: Origin) {
        self.output.unparked.push(origin);
    }
    /// Says how a record that was buffered before has ended, or that it is parked now. A record that is
    /// parked, be it at once or later, is kept by the runtime in the park topic as it was.
    pub fn resolve(&mut self, origin: Origin, effect: &'static str, outcome: Outcome) {
        self.output.resolutions.push(Resolution {
            origin,
            effect,
            outcome,
        });
    }
    /// Sets (or with `None` clears) the one timer of `key`. The due time must also stand in the
    /// key's state, where [`Processor::restored_timer`] finds it after a restart.
    pub fn set_timer(&mut self, key: impl Into<Text>, due: Option<Timestamp>) {
        self.output.timers.push((key.into(), due));
    }
}
