//! Sub-entries of a key in a processor's state.

use crate::domain::stock::{Shelf, Slot};
use crate::pipeline::State;
use std::cell::RefCell;

/// The shelf of one key: sub-keys behind its own.
pub(super) struct StateShelf<'a> {
    key: &'a str,
    state: &'a mut dyn State,
    /// Room for the names of slots; most records need none.
    name: RefCell<Vec<u8>>,
}

impl<'a> StateShelf<'a> {
    pub(super) fn new(key: &'a str, state: &'a mut dyn State) -> Self {
        StateShelf {
            key,
            state,
            name: RefCell::default(),
        }
    }
}

fn set_name(name: &mut Vec<u8>, key: &str, slot: Slot) {
    name.clear();
    name.extend_from_slice(key.as_bytes());
    slot.append_to(name);
}

impl Shelf for StateShelf<'_> {
    fn get(&self, slot: Slot) -> Option<&[u8]> {
        let mut name = self.name.borrow_mut();
        set_name(&mut name, self.key, slot);
        self.state.get(&name)
    }
    fn put(&mut self, slot: Slot, bytes: &[u8]) {
        let name = self.name.get_mut();
        set_name(name, self.key, slot);
        self.state.put(name, bytes);
    }
    fn delete(&mut self, slot: Slot) {
        let name = self.name.get_mut();
        set_name(name, self.key, slot);
        self.state.delete(name);
    }
}
