//! For which time a system's lists are whole, and what follows for what they leave out.

use super::PATIENCE;
use crate::domain::Timestamp;
use crate::domain::encoding::stored;

/// Times without a gap that are remembered of one system; older ones say nothing any more.
const SPANS_MAX: usize = 24;

/// The whole lists of one system, as far back as they follow each other without a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// What happened after this moment is in one of the lists.
    pub since: Timestamp,
    /// Where the window of the newest begins.
    pub last_since: Timestamp,
    /// Where it ends.
    pub until: Timestamp,
}
stored!(Coverage {
    since,
    last_since,
    until
});

impl Coverage {
    /// Whether a thing is known not to be there: the system said at `told_at` that it had it, nothing of it
    /// happened after `changed_at`, and the lists that must name it do not. `listed` are the ends of those
    /// that do. A thing that changed while the last list was read stands in the next one, so a list judges
    /// only what has been quiet for a while before its end.
    pub fn lacks(
        &self,
        told_at: Timestamp,
        changed_at: Timestamp,
        mut listed: impl Iterator<Item = Timestamp>,
    ) -> bool {
        let judges = self.since <= told_at && told_at.max(changed_at).plus(PATIENCE) <= self.until;
        // A list that goes back to the beginning names all that is there; others what changed in their time.
        let needed = match self.last_since <= told_at {
            true => self.until,
            false => told_at,
        };
        judges && !listed.any(|until| until >= needed)
    }
}

/// Times for which lists were whole, merged where they meet.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spans {
    known: Vec<(Timestamp, Timestamp)>,
    last: (Timestamp, Timestamp),
}
stored!(Spans { known, last });

impl Spans {
    /// A list of this window is whole. In which order lists become whole does not matter.
    pub(super) fn add(&mut self, since: Timestamp, until: Timestamp) {
        if until > self.last.1 || (until == self.last.1 && since < self.last.0) {
            self.last = (since, until);
        }
        self.known.push((since, until));
        self.known.sort();
        let mut merged: Vec<(Timestamp, Timestamp)> = Vec::new();
        for (since, until) in self.known.drain(..) {
            match merged.last_mut() {
                Some(before) if since <= before.1 => before.1 = before.1.max(until),
                _ => merged.push((since, until)),
            }
        }
        merged.drain(..merged.len().saturating_sub(SPANS_MAX));
        self.known = merged;
    }

    /// What the newest list and those before it cover; nothing before the first.
    pub(super) fn coverage(&self) -> Option<Coverage> {
        let (since, until) = *self.known.last()?;
        let (last_since, _) = self.last;
        Some(Coverage {
            since,
            last_since,
            until,
        })
    }
}
