//! What happens at a time, whoever else is at work.

use crate::contract::event::{Event, Text};
use crate::demo::systems::open;
use crate::domain::Timestamp;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Something that happens.
pub(super) enum Item {
    /// The deed of this number in the plan.
    Deed(usize),
    /// The fault of this number in the plan.
    Fault(usize),
    /// An instance starts again, unless it runs.
    Start(usize),
    /// An instance that was one too many ends.
    End(usize),
    /// A session is over: group and member.
    Expel(String, String),
    /// The registry answers again.
    Registry,
    /// A system answers again.
    Up(usize),
    /// A system tells without delay again.
    Prompt(usize),
    /// A call arrives at a system: topic, key, event.
    Arrive(usize, Text, Text, Box<Event>),
}

/// Items by time, those of one time in the order in which they were added.
#[derive(Default)]
pub(super) struct Agenda(Mutex<Items>);

#[derive(Default)]
struct Items {
    added: u64,
    due: BTreeMap<(Timestamp, u64), Item>,
}

impl Agenda {
    pub fn add(&self, at: Timestamp, item: Item) {
        let mut agenda = open(&self.0);
        agenda.added += 1;
        let number = agenda.added;
        agenda.due.insert((at, number), item);
    }
    pub fn next(&self) -> Option<Timestamp> {
        open(&self.0).due.keys().next().map(|(at, _)| *at)
    }
    /// Takes what is due.
    pub fn take(&self, now: Timestamp) -> Option<Item> {
        let mut agenda = open(&self.0);
        let entry = agenda.due.first_entry().filter(|e| e.key().0 <= now)?;
        Some(entry.remove())
    }
}
