//! One partition's keys and values, with an undo log for the transaction under way.

use crate::pipeline::State;
use hashbrown::hash_table::Entry as Slot;
use hashbrown::{HashSet, HashTable};
use rustc_hash::FxBuildHasher;
use std::hash::BuildHasher;

/// The state of one partition. Writes take effect at once; [`Shard::rollback_to`] takes them back,
/// [`Shard::commit`] keeps them.
#[derive(Default)]
pub struct Shard {
    entries: HashTable<Entry>,
    /// What each write of the transaction replaced, oldest first.
    undo: Vec<Before>,
    bytes: usize,
}

/// Key and value in one piece of memory: the key's length, the key, the value. State is mostly small
/// entries, and a piece of memory costs as much as some of their values.
struct Entry(Box<[u8]>);

/// What was there before a write.
enum Before {
    Something(Entry),
    /// Nothing, under this key.
    Nothing(Box<[u8]>),
}

const LENGTH_BYTES: usize = size_of::<u32>();

impl Entry {
    fn new(key: &[u8], value: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(LENGTH_BYTES + key.len() + value.len());
        bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        Entry(bytes.into_boxed_slice())
    }

    fn split(&self) -> (&[u8], &[u8]) {
        match self.0.split_first_chunk::<LENGTH_BYTES>() {
            Some((length, rest)) => rest.split_at(u32::from_le_bytes(*length) as usize),
            None => (&[], &[]),
        }
    }

    fn key(&self) -> &[u8] {
        self.split().0
    }

    /// Bytes of key and value.
    fn size(&self) -> usize {
        self.0.len() - LENGTH_BYTES
    }
}

fn hash(key: &[u8]) -> u64 {
    FxBuildHasher.hash_one(key)
}

impl Shard {
    /// An empty shard.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of keys and values, without the overhead of the map.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes room for `additional` keys, so that a restore does not grow the map step by step.
    pub fn reserve(&mut self, additional: usize) {
        self.entries.reserve(additional, |e| hash(e.key()));
    }

    /// Sets or (with `None`) removes an entry outside of any transaction: for restoring.
    pub fn load(&mut self, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.insert(Entry::new(key, value)),
            None => self.remove(key),
        };
    }

    /// A point that [`Shard::rollback_to`] can return to.
    pub fn savepoint(&self) -> usize {
        self.undo.len()
    }

    /// Takes back every write since `savepoint`; zero takes back the whole transaction.
    pub fn rollback_to(&mut self, savepoint: usize) {
        while self.undo.len() > savepoint {
            match self.undo.pop() {
                Some(Before::Something(entry)) => self.insert(entry),
                Some(Before::Nothing(key)) => self.remove(&key),
                None => return,
            };
        }
    }

    /// Keeps the writes of the transaction.
    pub fn commit(&mut self) {
        self.undo.clear();
        self.undo.shrink_to(1 << 16);
    }

    /// Calls `each` once for every key written in this transaction, with its present value
    /// (`None` when it is gone), in order of first writing. Keys that were made and removed again
    /// within the transaction are left out.
    pub fn changes<E>(
        &self,
        mut each: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut seen: HashSet<&[u8], FxBuildHasher> =
            HashSet::with_capacity_and_hasher(self.undo.len(), FxBuildHasher);
        for before in &self.undo {
            let (key, was_there) = match before {
                Before::Something(entry) => (entry.key(), true),
                Before::Nothing(key) => (&**key, false),
            };
            if seen.insert(key) {
                let now = self.get(key);
                if now.is_some() || was_there {
                    each(key, now)?;
                }
            }
        }
        Ok(())
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(Entry::split)
    }

    /// Puts an entry in place of the one of its key, if there is one, and returns that.
    fn insert(&mut self, entry: Entry) -> Option<Entry> {
        self.bytes += entry.size();
        let key = entry.key();
        let slot = self
            .entries
            .entry(hash(key), |e| e.key() == key, |e| hash(e.key()));
        match slot {
            Slot::Occupied(mut slot) => {
                let before = std::mem::replace(slot.get_mut(), entry);
                self.bytes -= before.size();
                Some(before)
            }
            Slot::Vacant(slot) => {
                slot.insert(entry);
                None
            }
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let found = self.entries.find_entry(hash(key), |e| e.key() == key);
        let (before, _) = found.ok()?.remove();
        self.bytes -= before.size();
        Some(before)
    }
}

impl State for Shard {
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let found = self.entries.find(hash(key), |e| e.key() == key);
        found.map(|entry| entry.split().1)
    }
    fn put(&mut self, key: &[u8], value: &[u8]) {
        let before = self.insert(Entry::new(key, value));
        self.undo.push(match before {
            Some(entry) => Before::Something(entry),
            None => Before::Nothing(key.into()),
        });
    }
    fn delete(&mut self, key: &[u8]) {
        if let Some(before) = self.remove(key) {
            self.undo.push(Before::Something(before));
        }
    }
    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) {
        let mut found: Vec<_> = self.iter().filter(|(k, _)| k.starts_with(prefix)).collect();
        found.sort_unstable();
        for (key, value) in found {
            visit(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn content(shard: &Shard) -> BTreeMap<Vec<u8>, Vec<u8>> {
        shard
            .iter()
            .map(|(k, v)| (k.to_vec(), v.to_vec()))
            .collect()
    }

    fn apply(shard: &mut Shard, writes: &[(u8, Option<u8>)]) {
        for (key, value) in writes {
            match value {
                Some(value) => shard.put(&[*key], &[*value]),
                None => shard.delete(&[*key]),
            }
        }
    }

    proptest! {
        #[test]
        fn rollback_restores_and_changes_rebuild(
            first in prop::collection::vec((0u8..6, prop::option::of(any::<u8>())), 0..20),
            second in prop::collection::vec((0u8..6, prop::option::of(any::<u8>())), 0..20),
        ) {
            let mut shard = Shard::new();
            apply(&mut shard, &first);
            shard.commit();
            let before = content(&shard);
            let bytes = shard.bytes();
            apply(&mut shard, &second);
            let after = content(&shard);

            // A replica that applies the changes alone becomes equal.
            let mut replica = before.clone();
            let mut keys = Vec::new();
            shard.changes(|key, value| {
                keys.push(key.to_vec());
                match value {
                    Some(value) => replica.insert(key.to_vec(), value.to_vec()),
                    None => replica.remove(key),
                };
                Ok::<(), ()>(())
            }).expect("no error");
            prop_assert_eq!(&replica, &after);
            let count = keys.len();
            keys.sort();
            keys.dedup();
            prop_assert_eq!(keys.len(), count, "a key is written once");

            shard.rollback_to(0);
            prop_assert_eq!(content(&shard), before);
            prop_assert_eq!(shard.bytes(), bytes);
        }
    }

    #[test]
    fn a_savepoint_takes_back_only_what_came_after_it() {
        let mut shard = Shard::new();
        shard.put(b"a", b"1");
        let savepoint = shard.savepoint();
        shard.put(b"a", b"2");
        shard.put(b"b", b"1");
        shard.rollback_to(savepoint);
        assert_eq!((shard.get(b"a"), shard.get(b"b")), (Some(&b"1"[..]), None));
    }
}
