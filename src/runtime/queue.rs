//! What waits in a sink: one line for each key of each topic, by class of service, the most urgent first.
//!
//! A lower class yields to a higher one, and never starves: each that waits has a floor, a part of the calls
//! that is its own whatever waits above it.
//!
//! Records of one key that come from several topics (an order's fulfilments and its refunds) wait for
//! each other only while a call for the key is under way: what one topic's record waits for may be what
//! another's brings.

use crate::contract::Class;
use crate::contract::event::Text;
use crate::domain::Timestamp;
use crate::log::TopicPartition;
use crate::pipeline::Inbound;
use rustc_hash::FxBuildHasher;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Of a hundred calls, those that each class may have while a higher one waits.
const FLOORS: [u32; CLASSES] = [0, 20, 10, 5];
/// Classes of service, P0 to P3.
pub(super) const CLASSES: usize = 4;
/// Lines that are looked at for one that was not tried yet.
const LOOKED_AT_MAX: usize = 64;

/// A record that waits to be written.
#[derive(Clone)]
pub(super) struct Waiting {
    pub partition: TopicPartition,
    /// Which ownership of the partition it was read under.
    pub epoch: u64,
    pub inbound: Inbound,
    /// Tries so far.
    pub attempt: u32,
    /// When it first failed, or else was read.
    pub since: Timestamp,
    pub doubt: Doubt,
}

/// Whether an earlier call for a record may have had its effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Certainly not.
    #[default]
    None,
    /// It was meant, or even answered, and comes again: the target is asked first.
    Possible,
    /// A call ended without anybody knowing, and nobody was told.
    Untold,
    /// It may, and others know.
    Told,
}

/// A topic and a key in it.
type Place = (Arc<str>, Text);

/// Keys with their lines.
pub(super) struct Queue {
    topics: HashMap<Arc<str>, Kind, FxBuildHasher>,
    lines: HashMap<Place, Line, FxBuildHasher>,
    /// Lines that may go now, by class, urgency and then age.
    ready: [BTreeMap<(u8, u64), Place>; CLASSES],
    /// Hundredths of calls that classes have saved up while higher ones went.
    saved: [u32; CLASSES],
    /// Lines that wait for a time.
    delayed: BTreeMap<(Timestamp, u64), Place>,
    /// Keys with a call under way, whatever the topic.
    called: HashSet<Text, FxBuildHasher>,
    ticket: u64,
}

/// What a topic is to a sink.
#[derive(Clone, Copy, Default)]
pub(super) struct Kind {
    /// Class of service, from 0.
    pub class: usize,
    /// Its records hold the whole state: a newer one replaces one that waits.
    pub whole_state: bool,
    /// A record that was rejected holds up later ones of its key.
    pub blocks_key: bool,
}

impl Kind {
    /// Place of a class of service.
    pub fn place(class: Class) -> usize {
        match class {
            Class::P0 => 0,
            Class::P1 => 1,
            Class::P2 => 2,
            Class::P3 => 3,
        }
    }
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<(Waiting, u8)>,
    /// A call for the key is under way, or the key waits for a time.
    busy: bool,
    place: Option<(u8, u64)>,
    until: Option<(Timestamp, u64)>,
}

impl Queue {
    pub fn new(topics: HashMap<Arc<str>, Kind, FxBuildHasher>) -> Self {
        Queue {
            topics,
            lines: HashMap::default(),
            ready: Default::default(),
            saved: [0; CLASSES],
            delayed: BTreeMap::new(),
            called: HashSet::default(),
            ticket: 0,
        }
    }

    /// Whether the sink reads a topic.
    pub fn reads(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// What a topic is.
    pub fn kind(&self, topic: &str) -> Kind {
        self.topics.get(topic).copied().unwrap_or_default()
    }

    /// A number that no record in the queue carries as its epoch.
    pub fn next_epoch(&mut self) -> u64 {
        self.ticket += 1;
        self.ticket
    }

    /// Puts a record at the end of its key's line. Returns the one that it replaces, if any.
    pub fn push(&mut self, key: Text, waiting: Waiting, urgency: u8) -> Option<Waiting> {
        let whole_state = self.kind(&waiting.partition.topic).whole_state;
        let place = (waiting.partition.topic.clone(), key);
        let line = self.lines.entry(place.clone()).or_default();
        let mut replaced = None;
        if whole_state && let Some((older, _)) = line.waiting.pop_back() {
            // A delayed key keeps its wait: the target was unwell for the key, not for the record.
            line.waiting.push_back((
                Waiting {
                    attempt: older.attempt,
                    since: older.since,
                    ..waiting
                },
                urgency,
            ));
            replaced = Some(older);
        } else {
            line.waiting.push_back((waiting, urgency));
        }
        self.place(&place);
        replaced
    }

    /// As [`Queue::pop`], of keys that were not tried yet, where there are any: they tell more about the
    /// target than those that have failed.
    pub fn pop_fresh(&mut self) -> Option<(Text, Waiting)> {
        let is_fresh = |place: &&Place| {
            let first = self.lines.get(*place).and_then(|l| l.waiting.front());
            first.is_some_and(|(w, _)| w.attempt == 0) && !self.called.contains(&place.1)
        };
        let fresh = self.ready.iter().flat_map(BTreeMap::values).find(is_fresh);
        match fresh.cloned() {
            Some(place) => self.take(&place),
            None => self.pop(),
        }
    }

    /// Takes the most urgent key's next record; the key is busy until [`Queue::done`].
    pub fn pop(&mut self) -> Option<(Text, Waiting)> {
        let candidates: [Option<(u8, u64)>; CLASSES] = std::array::from_fn(|class| {
            let mut ready = self.ready[class].iter();
            let found = ready.find(|(_, (_, key))| !self.called.contains(key));
            found.map(|(at, _)| *at)
        });
        let class = self.turn(&candidates)?;
        let place = self.ready[class].get(&candidates[class]?)?.clone();
        self.take(&place)
    }

    fn take(&mut self, place: &Place) -> Option<(Text, Waiting)> {
        let class = self.kind(&place.0).class;
        let line = self.lines.get_mut(place)?;
        if let Some(at) = line.place.take() {
            self.ready[class].remove(&at);
        }
        let (waiting, _) = line.waiting.pop_front()?;
        line.busy = true;
        self.called.insert(place.1.clone());
        Some((place.1.clone(), waiting))
    }

    /// Whose turn it is among the classes that have a candidate: the highest, unless a lower one has saved
    /// up a call of its own.
    fn turn(&mut self, candidates: &[Option<(u8, u64)>; CLASSES]) -> Option<usize> {
        let highest = candidates.iter().position(Option::is_some)?;
        let below = || (highest + 1..CLASSES).filter(|class| candidates[*class].is_some());
        if let Some(class) = below().rev().find(|class| self.saved[*class] >= 100) {
            self.saved[class] -= 100;
            return Some(class);
        }
        for class in below() {
            self.saved[class] += FLOORS[class];
        }
        Some(highest)
    }

    /// Whether a line may go.
    pub fn is_waiting(&self) -> bool {
        self.ready.iter().any(|ready| !ready.is_empty())
    }

    /// Whether a line may go that no call was made for yet: one that can tell whether the target is well.
    pub fn has_fresh(&self) -> bool {
        let ready = self.ready.iter().flat_map(BTreeMap::values);
        ready.take(LOOKED_AT_MAX).any(|place| {
            let line = self.lines.get(place);
            let first = line.and_then(|l| l.waiting.front());
            first.is_some_and(|(w, _)| w.attempt == 0)
        })
    }

    /// Whether a call for `key` is under way, whatever the topic.
    pub fn is_called(&self, key: &Text) -> bool {
        self.called.contains(key)
    }

    /// Takes what waits of `key` in a topic, in order. No call may be under way for it.
    pub fn take_line(&mut self, topic: &Arc<str>, key: &Text) -> Vec<Waiting> {
        let place = (topic.clone(), key.clone());
        let Some(mut line) = self.lines.remove(&place) else {
            return Vec::new();
        };
        self.unplace(topic, &mut line);
        line.waiting.into_iter().map(|(w, _)| w).collect()
    }

    fn unplace(&mut self, topic: &str, line: &mut Line) {
        if let Some(at) = line.place.take() {
            self.ready[self.kind(topic).class].remove(&at);
        }
        if let Some(at) = line.until.take() {
            self.delayed.remove(&at);
            line.busy = false;
        }
    }

    /// The call for `key` of a topic is over. Returns whether a newer whole state waits.
    pub fn done(&mut self, topic: &Arc<str>, key: &Text, epoch: u64) -> bool {
        self.called.remove(key);
        let whole_state = self.kind(topic).whole_state;
        let place = (topic.clone(), key.clone());
        let Some(line) = self.lines.get_mut(&place) else {
            return false;
        };
        line.busy = false;
        let newer = whole_state && line.waiting.back().is_some_and(|(w, _)| w.epoch == epoch);
        if line.waiting.is_empty() {
            self.lines.remove(&place);
        } else {
            self.place(&place);
        }
        newer
    }

    /// Puts a record back at the head of its line, not to be taken before `until`.
    pub fn delay(&mut self, key: Text, waiting: Waiting, until: Timestamp, urgency: u8) {
        self.ticket += 1;
        let ticket = self.ticket;
        let class = self.kind(&waiting.partition.topic).class;
        let place = (waiting.partition.topic.clone(), key);
        let line = self.lines.entry(place.clone()).or_default();
        if let Some(at) = line.place.take() {
            self.ready[class].remove(&at);
        }
        line.waiting.push_front((waiting, urgency));
        line.busy = true;
        line.until = Some((until, ticket));
        self.delayed.insert((until, ticket), place);
    }

    /// Lets go the keys whose time has come.
    pub fn wake(&mut self, now: Timestamp) {
        while let Some(entry) = self.delayed.first_entry().filter(|e| e.key().0 <= now) {
            let key = entry.remove();
            if let Some(line) = self.lines.get_mut(&key) {
                line.busy = false;
                line.until = None;
            }
            self.place(&key);
        }
    }

    /// When the next delayed key may go.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.delayed.keys().next().map(|(at, _)| *at)
    }

    /// Drops what was read under an ownership that has ended. A key with a call under way stays busy
    /// until the call is over: a later call must not overtake it.
    pub fn forget(&mut self, epoch: u64) {
        let touched: Vec<Place> = self
            .lines
            .iter_mut()
            .filter_map(|(key, line)| {
                let before = line.waiting.len();
                line.waiting.retain(|(w, _)| w.epoch != epoch);
                (line.waiting.len() < before).then(|| key.clone())
            })
            .collect();
        for key in touched {
            let Some(mut line) = self.lines.remove(&key) else {
                continue;
            };
            self.unplace(&key.0, &mut line);
            if !line.waiting.is_empty() || line.busy {
                self.lines.insert(key.clone(), line);
                self.place(&key);
            }
        }
    }

    fn place(&mut self, key: &Place) {
        let class = self.kind(&key.0).class;
        let Some(line) = self.lines.get_mut(key) else {
            return;
        };
        if line.busy {
            return;
        }
        let Some(urgency) = line.waiting.front().map(|(_, urgency)| *urgency) else {
            return;
        };
        match line.place {
            Some((placed, _)) if placed == urgency => return,
            Some(place) => {
                self.ready[class].remove(&place);
            }
            None => {}
        }
        self.ticket += 1;
        line.place = Some((urgency, self.ticket));
        self.ready[class].insert((urgency, self.ticket), key.clone());
    }
}
