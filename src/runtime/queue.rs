//! What waits in a sink: one line for each key of each topic, the most urgent first.
//!
//! Records of one key that come from several topics (an order's fulfilments and its refunds) wait for
//! each other only while a call for the key is under way: what one topic's record waits for may be what
//! another's brings.

use crate::contract::event::Text;
use crate::domain::Timestamp;
use crate::log::TopicPartition;
use crate::pipeline::Inbound;
use rustc_hash::FxBuildHasher;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// A record that waits to be written.
#[derive(Clone)]
pub(super) struct Waiting {
    pub partition: TopicPartition,
    /// Which ownership of the partition it was read under.
    pub epoch: u64,
    pub inbound: Inbound,
    /// Tries so far.
    pub attempt: u32,
    /// When it was read.
    pub since: Timestamp,
}

/// A topic and a key in it.
type Place = (Arc<str>, Text);

/// Keys with their lines.
pub(super) struct Queue {
    /// Topics whose records hold the whole state: a newer one replaces one that waits.
    whole_state: Vec<Arc<str>>,
    lines: HashMap<Place, Line, FxBuildHasher>,
    /// Lines that may go now, by urgency and then age.
    ready: BTreeMap<(u8, u64), Place>,
    /// Lines that wait for a time.
    delayed: BTreeMap<(Timestamp, u64), Place>,
    /// Keys with a call under way, whatever the topic.
    called: HashSet<Text, FxBuildHasher>,
    ticket: u64,
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
    pub fn new(whole_state: Vec<Arc<str>>) -> Self {
        Queue {
            whole_state,
            lines: HashMap::default(),
            ready: BTreeMap::new(),
            delayed: BTreeMap::new(),
            called: HashSet::default(),
            ticket: 0,
        }
    }

    /// A number that no record in the queue carries as its epoch.
    pub fn next_epoch(&mut self) -> u64 {
        self.ticket += 1;
        self.ticket
    }

    /// Puts a record at the end of its key's line. Returns the one that it replaces, if any.
    pub fn push(&mut self, key: Text, waiting: Waiting, urgency: u8) -> Option<Waiting> {
        let whole_state = self.whole_state.contains(&waiting.partition.topic);
        let place = (waiting.partition.topic.clone(), key);
        let line = self.lines.entry(place.clone()).or_default();
        let mut replaced = None;
        if whole_state && let Some((older, _)) = line.waiting.pop_back() {
            // A delayed key keeps its wait: the target was unwell for the key, not for the record.
            line.waiting.push_back((
                Waiting {
                    attempt: older.attempt,
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

    /// Takes the most urgent key's next record; the key is busy until [`Queue::done`].
    pub fn pop(&mut self) -> Option<(Text, Waiting)> {
        let mut ready = self.ready.iter();
        let (at, _) = ready.find(|(_, (_, key))| !self.called.contains(key))?;
        let at = *at;
        let place = self.ready.remove(&at)?;
        let line = self.lines.get_mut(&place)?;
        line.place = None;
        let (waiting, _) = line.waiting.pop_front()?;
        line.busy = true;
        self.called.insert(place.1.clone());
        Some((place.1, waiting))
    }

    /// The call for `key` of a topic is over. Returns whether a newer whole state waits.
    pub fn done(&mut self, topic: &Arc<str>, key: &Text, epoch: u64) -> bool {
        self.called.remove(key);
        let whole_state = self.whole_state.contains(topic);
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
        let place = (waiting.partition.topic.clone(), key);
        let line = self.lines.entry(place.clone()).or_default();
        if let Some(at) = line.place.take() {
            self.ready.remove(&at);
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
            let Some(line) = self.lines.get_mut(&key) else {
                continue;
            };
            if let Some(place) = line.place.take() {
                self.ready.remove(&place);
            }
            if let Some(until) = line.until.take() {
                self.delayed.remove(&until);
                line.busy = false;
            }
            if line.waiting.is_empty() && !line.busy {
                self.lines.remove(&key);
            } else {
                self.place(&key);
            }
        }
    }

    fn place(&mut self, key: &Place) {
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
                self.ready.remove(&place);
            }
            None => {}
        }
        self.ticket += 1;
        line.place = Some((urgency, self.ticket));
        self.ready.insert((urgency, self.ticket), key.clone());
    }
}
