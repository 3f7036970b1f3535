//! Contradictions between what is known of an order, and when they become exceptions.
//!
//! Most contradictions come of facts that overtook each other and go away by themselves: they are
//! raised only when they are still there after [`PATIENCE`]. Those that cost money by the minute are
//! raised at once.

use super::book::Order;
use crate::domain::encoding::stored;
use crate::domain::{Decimal, Timestamp};
use compact_str::CompactString as Text;
use std::time::Duration;

/// How long facts may overtake each other before it is an exception.
pub const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Weight {
    Medium,
    High,
    Critical,
}

/// Two things known of the order that cannot both be right.
#[derive(Clone, Debug, PartialEq)]
pub struct Contradiction {
    /// Code of the exception.
    pub code: &'static str,
    /// Which of its kind within the order: a line, or kind and id of an object.
    pub cause: Text,
    /// How bad it is.
    pub weight: Weight,
    /// What should be.
    pub expected: String,
    /// What is.
    pub actual: String,
    /// By how much.
    pub delta: Decimal,
    /// What to do first.
    pub actions: &'static [&'static str],
}

impl Contradiction {
    fn waits(&self) -> bool {
        self.weight != Weight::Critical
    }
}

/// What became of a contradiction that was met before, or is met now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Case {
    /// When it becomes an exception, as long as it is none.
    pub due: Option<Timestamp>,
    pub open: bool,
    /// Counts what was told of it.
    pub version: i64,
    pub delta: Decimal,
    pub first_seen: Timestamp,
}

stored!(Case {
    due,
    open,
    version,
    delta,
    first_seen
});

/// A case to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Code of the exception.
    pub code: Text,
    /// Its cause.
    pub cause: Text,
    /// What it is about; nothing when it is over.
    pub contradiction: Option<Contradiction>,
    /// Counts what was told of the case, from 1.
    pub version: i64,
    /// Whether it had been resolved before and is back.
    pub again: bool,
    /// When it was first met.
    pub first_seen: Timestamp,
}

impl Order {
    /// Compares what contradicts now with what did before, and says what is to be told.
    pub fn watch(&mut self, found: &[Contradiction], now: Timestamp) -> Vec<Turn> {
        let mut turns = Vec::new();
        for contradiction in found {
            let key = (Text::from(contradiction.code), contradiction.cause.clone());
            let case = self.cases.entry(key.clone()).or_default();
            let again = !case.open && case.version > 0;
            if !case.open {
                let fresh = case.due.is_none();
                if fresh {
                    case.first_seen = now;
                    case.due = Some(now.plus(PATIENCE));
                }
                if contradiction.waits() && case.due.is_some_and(|due| now < due) {
                    continue;
                }
            } else if case.delta == contradiction.delta {
                continue;
            }
            case.due = None;
            case.open = true;
            case.delta = contradiction.delta;
            case.version += 1;
            turns.push(Turn {
                code: key.0,
                cause: key.1,
                contradiction: Some(contradiction.clone()),
                version: case.version,
                again,
                first_seen: case.first_seen,
            });
        }
        for ((code, cause), case) in &mut self.cases {
            let still = |c: &Contradiction| *code == c.code && *cause == c.cause;
            if found.iter().any(still) {
                continue;
            }
            case.due = None;
            if case.open {
                case.open = false;
                case.version += 1;
                turns.push(Turn {
                    code: code.clone(),
                    cause: cause.clone(),
                    contradiction: None,
                    version: case.version,
                    again: false,
                    first_seen: case.first_seen,
                });
            }
        }
        self.cases
            .retain(|_, case| case.version > 0 || case.due.is_some());
        turns
    }

    /// Codes of the exceptions that are open, with their causes.
    pub fn open_cases(&self) -> impl Iterator<Item = (&Text, &Text)> {
        let open = self.cases.iter().filter(|(_, case)| case.open);
        open.map(|((code, cause), _)| (code, cause))
    }
}
