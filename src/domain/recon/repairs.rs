//! How often something was tried to be put right.

use crate::domain::Timestamp;
use crate::domain::encoding::stored;
use compact_str::CompactString as Text;
use std::collections::BTreeMap;
use std::time::Duration;

/// Tries before a person has to look.
pub const ATTEMPTS_MAX: u32 = 3;
/// Least time between two of them: the first needs time to be seen in what the system says next.
pub const COOLDOWN: Duration = Duration::from_secs(3_600);

#[derive(Clone, Debug, Default, PartialEq)]
struct Attempts {
    count: u32,
    next_at: Timestamp,
}
stored!(Attempts {
    count,
    next_at: told
});

/// Tries by what they are to put right. Each is a decision: it is made once, remembered, and told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Repairs {
    known: BTreeMap<Text, Attempts>,
}
stored!(Repairs { known });

impl Repairs {
    /// Forgets the tries for whatever is right again: `wrong` says what is not.
    pub fn forget(&mut self, wrong: impl Fn(&str) -> bool) {
        self.known.retain(|cause, _| wrong(cause));
    }

    /// Tries again to put `cause` right, unless it was tried a moment ago or often enough. Gives the
    /// number of the try.
    pub fn again(&mut self, cause: &str, now: Timestamp) -> Option<u32> {
        let known = self.known.entry(cause.into()).or_default();
        if known.count >= ATTEMPTS_MAX || now < known.next_at {
            return None;
        }
        known.count += 1;
        known.next_at = now.plus(COOLDOWN);
        Some(known.count)
    }

    /// How often it was tried.
    pub fn tried(&self, cause: &str) -> u32 {
        self.known.get(cause).map_or(0, |known| known.count)
    }

    /// When it may be tried again: never, where it was tried often enough or not yet.
    pub fn next(&self, cause: &str) -> Option<Timestamp> {
        let known = self.known.get(cause)?;
        (known.count < ATTEMPTS_MAX).then_some(known.next_at)
    }
}
