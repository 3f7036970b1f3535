//! How versions of one thing become one, whatever order they come in.

use crate::domain::encoding::{Read, Reader, Stored};
use compact_str::CompactString as Text;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Facts of one kind that one key may have. More are no order's; they are refused.
pub const FACTS_MAX: usize = 1_000;

/// What became of a fact that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is news.
    Applied,
    /// It was known.
    Duplicate,
    /// Something newer is known.
    Superseded,
    /// More of this kind is known of the key than anything real has.
    TooMany,
}

#[derive(Clone, Debug, PartialEq)]
struct Version<F> {
    version: i64,
    id: u128,
    fact: F,
}

impl<F: Stored> Stored for Version<F> {
    fn store(&self, out: &mut Vec<u8>) {
        self.version.store(out);
        self.id.store(out);
        self.fact.store(out);
    }
    fn read(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(Version {
            version: i64::read(reader)?,
            id: u128::read(reader)?,
            fact: F::read(reader)?,
        })
    }
    fn tell(&self) -> Value {
        json!({"version": self.version, "fact": self.fact.tell()})
    }
    fn adopt(&mut self, other: &Self) {
        self.fact.adopt(&other.fact);
    }
}

/// Facts of one kind by the natural identity of what they are about, the newest version of each: a
/// set that is the same whatever the order in which its facts came, and however often.
#[derive(Clone, Debug, PartialEq)]
pub struct Latest<F> {
    known: BTreeMap<Text, Version<F>>,
}

impl<F> Default for Latest<F> {
    fn default() -> Self {
        Latest {
            known: BTreeMap::new(),
        }
    }
}

impl<F: Stored> Stored for Latest<F> {
    fn store(&self, out: &mut Vec<u8>) {
        self.known.store(out);
    }
    fn read(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(Latest {
            known: BTreeMap::read(reader)?,
        })
    }
    fn tell(&self) -> Value {
        self.known.tell()
    }
    fn adopt(&mut self, other: &Self) {
        self.known.adopt(&other.known);
    }
}

impl<F: PartialEq> Latest<F> {
    /// Takes in `version` of `key`, told by the event `id`. Two events that give one version different
    /// content are told apart by their ids, so that every order of arrival ends the same.
    pub fn take(&mut self, key: &str, version: i64, id: u128, fact: F) -> Taken {
        let fresh = Version { version, id, fact };
        let Some(known) = self.known.get_mut(key) else {
            if self.known.len() >= FACTS_MAX {
                return Taken::TooMany;
            }
            self.known.insert(key.into(), fresh);
            return Taken::Applied;
        };
        if known.id == id || (known.version == version && known.fact == fresh.fact) {
            // Of two ids for one thing the larger stays, whichever came first.
            known.id = known.id.max(id);
            return Taken::Duplicate;
        }
        if (known.version, known.id) > (version, id) {
            return Taken::Superseded;
        }
        *known = fresh;
        Taken::Applied
    }
}

impl<F> Latest<F> {
    /// The newest version under `key`.
    pub fn get(&self, key: &str) -> Option<&F> {
        self.known.get(key).map(|v| &v.fact)
    }
    /// All, in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Text, &F)> {
        self.known.iter().map(|(key, v)| (key, &v.fact))
    }
    /// The facts alone.
    pub fn facts(&self) -> impl Iterator<Item = &F> {
        self.known.values().map(|v| &v.fact)
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}
