//! One partition's keys and values, with an undo log for the transaction under way.

use crate::pipeline::State;
use hashbrown::{HashMap, HashSet};
use rustc_hash::FxBuildHasher;

type Bytes = Box<[u8]>;

/// The state of one partition. Writes take effect at once; [`Shard::rollback_to`] takes them back,
/// [`Shard::commit`] keeps them.
#[derive(Default)]
pub struct Shard {
    entries: HashMap<Bytes, Bytes, FxBuildHasher>,
    /// What each write of the transaction replaced, oldest first.
    undo: Vec<(Bytes, Option<Bytes>)>,
    bytes: usize,
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
        self.entries.reserve(additional);
    }

    /// Sets or (with `None`) removes an entry outside of any transaction: for restoring.
    pub fn load(&mut self, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.replace(key.into(), Some(value.into())),
            None => self.replace(key.into(), None),
        };
    }

    /// A point that [`Shard::rollback_to`] can return to.
    pub fn savepoint(&self) -> usize {
        self.undo.len()
    }

    /// Takes back every write since `savepoint`; zero takes back the whole transaction.
    pub fn rollback_to(&mut self, savepoint: usize) {
        while self.undo.len() > savepoint {
            if let Some((key, before)) = self.undo.pop() {
                self.replace(key, before);
            }
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
        for (key, before) in &self.undo {
            if seen.insert(key) {
                let now = self.entries.get(key).map(|v| &**v);
                if now.is_some() || before.is_some() {
                    each(key, now)?;
                }
            }
        }
        Ok(())
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|(k, v)| (&**k, &**v))
    }

    fn replace(&mut self, key: Bytes, value: Option<Bytes>) -> Option<Bytes> {
        let key_bytes = key.len();
        let before = match value {
            Some(value) => {
                self.bytes += value.len() + key_bytes;
                self.entries.insert(key, value)
            }
            None => self.entries.remove(&key),
        };
        if let Some(before) = &before {
            self.bytes -= before.len() + key_bytes;
        }
        before
    }
}

impl State for Shard {
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.entries.get(key).map(|v| &**v)
    }
    fn put(&mut self, key: &[u8], value: &[u8]) {
        let before = self.replace(key.into(), Some(value.into()));
        self.undo.push((key.into(), before));
    }
    fn delete(&mut self, key: &[u8]) {
        if let Some(before) = self.replace(key.into(), None) {
            self.undo.push((key.into(), Some(before)));
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
