//! Where a position, or a network of them, keeps what does not fit into its header.

use std::collections::BTreeMap;

/// The name of a sub-entry of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// A run of remembered facts.
    Identities(u32),
    /// A run of open claims.
    Agenda(u32),
    /// A claim, by reservation id.
    Claim(u128),
    /// A page of locations' offers.
    Offers(u32),
}

impl Slot {
    /// Appends the slot's name to `key`: a zero byte, a letter, a number in big-endian form.
    pub fn append_to(self, key: &mut Vec<u8>) {
        match self {
            Slot::Identities(number) => {
                key.extend_from_slice(b"\0d");
                key.extend_from_slice(&number.to_be_bytes());
            }
            Slot::Agenda(number) => {
                key.extend_from_slice(b"\0o");
                key.extend_from_slice(&number.to_be_bytes());
            }
            Slot::Offers(number) => {
                key.extend_from_slice(b"\0l");
                key.extend_from_slice(&number.to_be_bytes());
            }
            Slot::Claim(id) => {
                key.extend_from_slice(b"\0r");
                key.extend_from_slice(&id.to_be_bytes());
            }
        }
    }
}

/// The sub-entries of one position. Writes are seen at once.
pub trait Shelf {
    /// The bytes in `slot`.
    fn get(&self, slot: Slot) -> Option<&[u8]>;
    /// Writes `slot`.
    fn put(&mut self, slot: Slot, bytes: &[u8]);
    /// Empties `slot`.
    fn delete(&mut self, slot: Slot);
}

/// A shelf in memory that counts what is written to it: for tests, benches and what-if questions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryShelf {
    /// What is kept.
    pub slots: BTreeMap<Slot, Vec<u8>>,
    /// Bytes written since the count was last reset.
    pub bytes_written: usize,
}

impl Shelf for MemoryShelf {
    fn get(&self, slot: Slot) -> Option<&[u8]> {
        self.slots.get(&slot).map(Vec::as_slice)
    }
    fn put(&mut self, slot: Slot, bytes: &[u8]) {
        self.bytes_written += bytes.len();
        self.slots.insert(slot, bytes.to_vec());
    }
    fn delete(&mut self, slot: Slot) {
        self.slots.remove(&slot);
    }
}
