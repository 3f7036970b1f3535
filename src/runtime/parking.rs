//! Keys of one partition that cannot go on, each with a line of its own.
//!
//! The first record of a line is the one that failed; later records of the key queue behind it. All of them
//! are settled as PARKED, so that offsets commit past them, and stand in the sink's park topic, under the
//! transaction that passes them: whoever gets the partition next finds them there, and goes on with each
//! line in order. What has ended leaves a tombstone.
//!
//! A record that was dead-lettered holds its key up in the same way, where the catalogue says so: its place
//! stands first in the line, without the record, until the letter is redriven or discarded.
//!
//! What is absent: no call, no time, no log. The task says what happened and writes what changed.

use crate::contract::event::{DeadLetter, Text};
use crate::contract::park_key;
use crate::domain::Timestamp;
use crate::pipeline::{Fault, REDRIVEN_FROM_HEADER, Record};
use rustc_hash::FxBuildHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Code of a record that waits for another of its key.
pub(super) const BEHIND: &str = "BEHIND";

/// Parked keys of one partition of one topic.
pub(super) struct Parking {
    topic: Arc<str>,
    /// A newer record of the topic holds all that an older one does.
    whole_state: bool,
    lines: HashMap<Text, Line, FxBuildHasher>,
    /// Keys by the time of their next try.
    due: BTreeSet<(Timestamp, Text)>,
    /// Records that do not stand in the park topic as they are, by offset, with their keys.
    unsaved: BTreeMap<i64, Text>,
    /// Keys in the park topic whose records have ended.
    gone: Vec<Text>,
    /// Keys that a call is under way for, or about to be.
    trying: usize,
    size: Size,
}

/// How much is parked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Keys that are held up.
    pub keys: usize,
    /// Records that wait.
    pub records: usize,
    /// What these take.
    pub bytes: usize,
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, other: Size) {
        self.keys += other.keys;
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Parked>,
    until: Timestamp,
    /// Its time among those that are due.
    placed: Option<Timestamp>,
    /// A call for the first is under way.
    trying: bool,
}

/// A record in a line.
#[derive(Clone)]
pub(super) struct Parked {
    pub record: Record,
    /// When it first failed, or came to stand in line.
    pub since: Timestamp,
    /// Tries so far; 0 of one that waits behind another.
    pub attempts: u32,
    pub code: Text,
    pub message: Text,
    /// It was dead-lettered: its place alone is kept.
    pub is_dead: bool,
    /// Some form of it stands in the park topic.
    stored: bool,
}

impl Parked {
    /// The record of a failed call.
    pub fn failed(record: &Record, since: Timestamp, fault: &Fault, attempts: u32) -> Parked {
        Parked {
            record: record.detached(),
            since,
            attempts,
            code: fault.code.as_str().into(),
            message: fault.message.as_str().into(),
            is_dead: false,
            stored: false,
        }
    }

    /// A record that waits for one before it.
    pub fn behind(record: &Record, since: Timestamp) -> Parked {
        Parked {
            record: record.detached(),
            since,
            attempts: 0,
            code: BEHIND.into(),
            message: "waits for an earlier record of its key".into(),
            is_dead: false,
            stored: false,
        }
    }

    /// The place of a record that was dead-lettered.
    pub fn dead(record: &Record, now: Timestamp, fault: &Fault, attempts: u32) -> Parked {
        // One that was redriven and is refused again keeps its place before what waits.
        let redriven = record.headers.text(REDRIVEN_FROM_HEADER);
        let kept = redriven.map(|from| (REDRIVEN_FROM_HEADER, Some(from.as_bytes())));
        let place = Record {
            value: None,
            headers: kept.into_iter().collect(),
            ..record.clone()
        };
        Parked {
            is_dead: true,
            ..Parked::failed(&place, now, fault, attempts.max(1))
        }
    }

    /// As it was written to the park topic: with its key, unless it is none.
    pub fn restored(letter: DeadLetter) -> Option<(Text, Parked, Option<Timestamp>)> {
        let record = crate::codec::original(&letter)?;
        let key = Text::from(std::str::from_utf8(record.key.as_deref()?).ok()?);
        let parked = Parked {
            is_dead: is_dead(&letter),
            record,
            since: letter.first_failed_at,
            attempts: u32::try_from(letter.attempts).unwrap_or(0),
            code: letter.code,
            message: letter.message,
            stored: true,
        };
        Some((key, parked, letter.next_retry_at))
    }

    fn offset(&self) -> i64 {
        self.record.origin.offset
    }

    fn bytes(&self) -> usize {
        let record = &self.record;
        let of = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
        of(&record.key) + of(&record.value) + record.headers.packed().len() + self.message.len()
    }

    /// Whether it was dead-lettered and sent again.
    pub fn is_redriven(&self) -> bool {
        self.record.headers.text(REDRIVEN_FROM_HEADER).is_some()
    }

    /// Redriven records take the place of the one that was dead-lettered, before what waited for it.
    fn order(&self) -> (bool, i64) {
        (!self.is_redriven(), self.offset())
    }
}

/// Whether an entry of a park topic is the place of a record that was dead-lettered: it has failed, and will
/// not be tried again.
pub fn is_dead(letter: &DeadLetter) -> bool {
    letter.attempts > 0 && letter.next_retry_at.is_none()
}

/// A record that is to be written to the park topic.
pub(super) struct Entry<'a> {
    pub park_key: Text,
    pub parked: &'a Parked,
    /// When it is tried next; nothing of one that waits behind another or was dead-lettered.
    pub next_at: Option<Timestamp>,
    /// Records of its key that wait behind it.
    pub behind: usize,
}

impl Parking {
    pub fn new(topic: Arc<str>, whole_state: bool) -> Self {
        Parking {
            topic,
            whole_state,
            lines: HashMap::default(),
            due: BTreeSet::new(),
            unsaved: BTreeMap::new(),
            gone: Vec::new(),
            trying: 0,
            size: Size::default(),
        }
    }

    /// Takes back what the park topic holds.
    pub fn restore(&mut self, letters: impl Iterator<Item = DeadLetter>) {
        let mut next: HashMap<Text, Timestamp, FxBuildHasher> = HashMap::default();
        for (key, parked, next_at) in letters.filter_map(Parked::restored) {
            if let Some(at) = next_at {
                next.insert(key.clone(), at);
            }
            self.count(&parked, true);
            let line = self.lines.entry(key).or_default();
            line.waiting.push_back(parked);
        }
        let keys: Vec<Text> = self.lines.keys().cloned().collect();
        for key in keys {
            let until = next.get(&key).copied().unwrap_or_default();
            if let Some(line) = self.lines.get_mut(&key) {
                let waiting = line.waiting.make_contiguous();
                waiting.sort_by_key(Parked::order);
                line.until = until;
            }
            self.set_due(&key);
        }
    }

    pub fn size(&self) -> Size {
        Size {
            keys: self.lines.len(),
            ..self.size
        }
    }

    /// Keys that a call is under way for, or about to be.
    pub fn trying(&self) -> usize {
        self.trying
    }

    /// Whether later records of `key` must stand in its line.
    pub fn holds(&self, key: &Text) -> bool {
        !self.lines.is_empty() && self.lines.contains_key(key)
    }

    /// Puts a record in its place in the line of its key, not to be tried before `until` if it is the first
    /// there. Returns those that it replaces: of a topic of states, all that no call is under way for.
    pub fn put(&mut self, key: &Text, parked: Parked, until: Timestamp) -> Vec<Parked> {
        self.count(&parked, true);
        self.unsaved.insert(parked.offset(), key.clone());
        let mut parked = parked;
        if parked.is_dead {
            // It was parked before: its entry becomes its place, and is not taken out.
            let name = park_key(&self.topic, key, parked.offset());
            let before = self.gone.len();
            self.gone.retain(|gone| *gone != name);
            parked.stored |= self.gone.len() < before;
        }
        let line = self.lines.entry(key.clone()).or_default();
        let is_new = line.waiting.is_empty();
        let later = |p: &&Parked| p.order() > parked.order();
        let at = line.waiting.len() - line.waiting.iter().rev().take_while(later).count();
        // Of a topic of states only the newest goes on, and one that a call is under way for.
        let keeps = usize::from(line.trying);
        let replaces = self.whole_state && at == line.waiting.len();
        let replaced: Vec<Parked> = match replaces && line.waiting.len() > keeps {
            true => line.waiting.drain(keeps..).collect(),
            false => Vec::new(),
        };
        // Nothing goes before one that a call is under way for.
        let at = at.max(keeps).min(line.waiting.len());
        if at == 0
            && let Some(older) = replaced.last()
        {
            // The target was unwell for the key, not for the record.
            (parked.since, parked.attempts) = (older.since, older.attempts);
            (parked.code, parked.message) = (older.code.clone(), older.message.clone());
        }
        line.waiting.insert(at, parked);
        if is_new || (at == 0 && replaced.is_empty()) {
            line.until = until;
        }
        for gone in &replaced {
            self.count(gone, false);
            self.forget(key, gone);
        }
        self.set_due(key);
        replaced
    }

    /// Puts a record that is given to the sink once more into the line of its key, to be tried at once if it
    /// is the first there; it stands in the park topic already. Returns what it replaces; `None` when it
    /// stands in the line.
    pub fn put_replayed(
        &mut self,
        key: &Text,
        parked: Parked,
        now: Timestamp,
    ) -> Option<Vec<Parked>> {
        let offset = parked.offset();
        let line = self.lines.get(key);
        if line.is_some_and(|l| l.waiting.iter().any(|p| p.offset() == offset)) {
            return None;
        }
        // It was asked for again before its end was written down.
        let name = park_key(&self.topic, key, offset);
        self.gone.retain(|gone| *gone != name);
        let replaced = self.put(key, parked, now);
        self.unsaved.remove(&offset);
        Some(replaced)
    }

    /// Takes an entry that is nobody's out of the park topic.
    pub fn strike(&mut self, key: &Text, offset: i64) {
        self.gone.push(park_key(&self.topic, key, offset));
    }

    /// The first dead letter that holds up `key` is sent again as `record`, which takes its place, at once
    /// where nothing stands before it: letters of a key are redriven in its order. `false` when nothing is
    /// held up by a dead letter.
    pub fn replace_dead(&mut self, key: &Text, record: &Record, now: Timestamp) -> bool {
        let mut parked = Parked::behind(record, now);
        parked.message = "redriven, and not tried yet".into();
        let Some(line) = self.lines.get_mut(key) else {
            return false;
        };
        let Some(at) = line.waiting.iter().position(|p| p.is_dead) else {
            return false;
        };
        let dead = std::mem::replace(&mut line.waiting[at], parked.clone());
        if at == 0 {
            line.until = now;
        }
        self.count(&dead, false);
        self.forget(key, &dead);
        self.count(&parked, true);
        self.unsaved.insert(parked.offset(), key.clone());
        self.set_due(key);
        true
    }

    /// A tombstone stands in the park topic for the entry of `key` at `offset`. Where that is the place of a
    /// dead letter, nothing will come of it: the key goes on, and `true` is told. Where a record still waits
    /// there, which was asked for again while it ended, it is written anew.
    pub fn release(&mut self, key: &Text, offset: i64, now: Timestamp) -> bool {
        let Some(line) = self.lines.get_mut(key) else {
            return false;
        };
        let found = line.waiting.iter();
        let found = found.enumerate().find(|(_, p)| p.offset() == offset);
        let Some((at, is_dead)) = found.map(|(at, p)| (at, p.is_dead)) else {
            return false;
        };
        if !is_dead {
            self.unsaved.insert(offset, key.clone());
            return false;
        }
        let Some(mut dead) = line.waiting.remove(at) else {
            return false;
        };
        if at == 0 {
            line.until = now;
        }
        // Its tombstone stands in the topic already.
        dead.stored = false;
        self.count(&dead, false);
        self.forget(key, &dead);
        self.set_due(key);
        true
    }

    /// The first of the line of `key`.
    pub fn first(&self, key: &Text) -> Option<&Parked> {
        self.lines.get(key)?.waiting.front()
    }

    /// The key that is to be tried next.
    pub fn first_due(&self) -> Option<Text> {
        self.due.first().map(|(_, key)| key.clone())
    }

    /// When the next key is to be tried.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the first of the line of `key` for a try. It stays in the line until [`Parking::ended`].
    pub fn try_first(&mut self, key: &Text) -> Option<&Parked> {
        self.set_trying(key, true);
        self.set_due(key);
        self.lines.get(key)?.waiting.front()
    }

    /// The record of `key` at `offset` that a call is under way for.
    pub fn tried(&self, key: &Text, offset: i64) -> Option<&Parked> {
        let line = self.lines.get(key).filter(|l| l.trying)?;
        line.waiting.front().filter(|p| p.offset() == offset)
    }

    /// Whether a newer state stands behind the first of the line.
    pub fn has_newer(&self, key: &Text) -> bool {
        self.whole_state && self.lines.get(key).is_some_and(|l| l.waiting.len() > 1)
    }

    /// The call for the first of the line failed: it is tried again at `until`.
    pub fn failed(&mut self, key: &Text, fault: &Fault, attempts: u32, until: Timestamp) {
        self.set_trying(key, false);
        let Some(line) = self.lines.get_mut(key) else {
            return;
        };
        line.until = until;
        if let Some(first) = line.waiting.front_mut() {
            first.attempts = attempts;
            first.code = fault.code.as_str().into();
            first.message = fault.message.as_str().into();
            self.unsaved.insert(first.offset(), key.clone());
        }
        self.set_due(key);
    }

    /// The try could not be made: it is made at `until`.
    pub fn put_off(&mut self, key: &Text, until: Timestamp) {
        self.set_trying(key, false);
        if let Some(line) = self.lines.get_mut(key) {
            line.until = until;
        }
        self.set_due(key);
    }

    /// The first of the line has ended. What is behind it goes on at once.
    pub fn ended(&mut self, key: &Text, now: Timestamp) {
        self.set_trying(key, false);
        let Some(line) = self.lines.get_mut(key) else {
            return;
        };
        line.until = now;
        if let Some(first) = line.waiting.pop_front() {
            self.count(&first, false);
            self.forget(key, &first);
        }
        self.set_due(key);
    }

    /// What `key` waits for may have come: it is tried at once.
    pub fn wake(&mut self, key: &Text, now: Timestamp) {
        if let Some(line) = self.lines.get_mut(key) {
            line.until = line.until.min(now);
            self.set_due(key);
        }
    }

    /// Whether something is to be written once everything below `point` is passed.
    pub fn has_news(&self, point: i64) -> bool {
        !self.gone.is_empty() || self.unsaved.range(..point).next().is_some()
    }

    /// What is to be written of the records below `point`.
    pub fn unsaved(&self, point: i64) -> impl Iterator<Item = Entry<'_>> {
        self.unsaved.range(..point).filter_map(|(offset, key)| {
            let line = self.lines.get(key)?;
            let mut waiting = line.waiting.iter().enumerate();
            let (at, parked) = waiting.find(|(_, p)| p.offset() == *offset)?;
            let is_tried = at == 0 && !parked.is_dead;
            Some(Entry {
                park_key: park_key(&self.topic, key, *offset),
                parked,
                next_at: is_tried.then_some(line.until),
                behind: line.waiting.len() - at - 1,
            })
        })
    }

    /// Keys of the park topic that are to get a tombstone.
    pub fn gone(&self) -> &[Text] {
        &self.gone
    }

    /// What was to be written of the records below `point` is in the log.
    pub fn committed(&mut self, point: i64) {
        self.gone.clear();
        let later = self.unsaved.split_off(&point);
        for (offset, key) in std::mem::replace(&mut self.unsaved, later) {
            let line = self.lines.get_mut(&key);
            let mut waiting = line.into_iter().flat_map(|l| l.waiting.iter_mut());
            if let Some(parked) = waiting.find(|p| p.offset() == offset) {
                parked.stored = true;
            }
        }
    }

    fn set_trying(&mut self, key: &Text, trying: bool) {
        if let Some(line) = self.lines.get_mut(key)
            && line.trying != trying
        {
            line.trying = trying;
            match trying {
                true => self.trying += 1,
                false => self.trying -= 1,
            }
        }
    }

    fn forget(&mut self, key: &Text, parked: &Parked) {
        self.unsaved.remove(&parked.offset());
        if parked.stored {
            self.gone.push(park_key(&self.topic, key, parked.offset()));
        }
    }

    fn count(&mut self, parked: &Parked, comes: bool) {
        // The place of a dead letter is no record.
        let count = usize::from(!parked.is_dead);
        if comes {
            self.size.records += count;
            self.size.bytes += parked.bytes();
        } else {
            self.size.records -= count;
            self.size.bytes = self.size.bytes.saturating_sub(parked.bytes());
        }
    }

    /// Puts the key where it belongs by its first record; drops a line that is empty.
    fn set_due(&mut self, key: &Text) {
        let Some(line) = self.lines.get_mut(key) else {
            return;
        };
        let waits = line.waiting.front().is_some_and(|p| !p.is_dead) && !line.trying;
        let place = waits.then_some(line.until);
        if line.placed != place {
            if let Some(placed) = std::mem::replace(&mut line.placed, place) {
                self.due.remove(&(placed, key.clone()));
            }
            if let Some(at) = place {
                self.due.insert((at, key.clone()));
            }
        }
        if line.waiting.is_empty() {
            self.lines.remove(key);
        }
    }
}
