//! What does not agree, since when, and what has to be told of it.
//!
//! Most disagreements come of facts that overtook each other and go away by themselves: a finding says
//! how long it is given, and becomes a case only when it is still there then. One case for each code
//! and cause of an entity: what happens to it later updates it.

use crate::domain::encoding::{stored, stored_enum};
use crate::domain::money::Money;
use crate::domain::{Decimal, Timestamp};
use compact_str::CompactString as Text;
use std::collections::BTreeMap;
use std::time::Duration;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It mends itself, or nobody outside notices.
    Low,
    /// A process is late.
    Medium,
    /// Money or goods are missing, or were not sent.
    High,
    /// Money or goods may have been sent twice, or wrongly.
    Critical,
}

/// One thing that does not agree now.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Its code, as in DOMAIN.md §5.
    pub code: &'static str,
    /// What tells it from others of its code within the entity: a return, a refund, an account.
    pub cause: Text,
    /// How bad it is.
    pub severity: Severity,
    /// How long it may go away by itself before it is a case.
    pub patience: Duration,
    /// What should be.
    pub expected: String,
    /// What is.
    pub actual: String,
    /// Actual less expected, where both are amounts.
    pub delta: Option<Decimal>,
    /// Money that may be lost.
    pub at_risk: Option<Money>,
    /// What somebody could do first.
    pub actions: &'static [&'static str],
}

/// What became of a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaseStatus {
    /// It is open: new, or what it says has changed.
    #[default]
    Open,
    /// It is open again.
    Regressed,
    /// It has gone away.
    Resolved,
}
stored_enum!(CaseStatus [Open, Regressed, Resolved]);

/// A case as it is remembered.
#[derive(Clone, Debug, Default, PartialEq)]
struct Case {
    /// Counts what was told of it; 0 while it may still go away by itself.
    version: i64,
    status: CaseStatus,
    first_seen: Timestamp,
    /// When it becomes a case, while it is none.
    due: Option<Timestamp>,
    actual: Text,
}
stored!(Case {
    version: told,
    status,
    first_seen: told,
    due: told,
    actual
});

impl Case {
    fn is_open(&self) -> bool {
        self.version > 0 && self.status != CaseStatus::Resolved
    }
}

impl CaseChange {
    /// Whether it was no open case before and is one now.
    pub fn is_opened(&self) -> bool {
        self.finding.is_some() && (self.version == 1 || self.status == CaseStatus::Regressed)
    }
}

/// Something to be told about a case.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseChange {
    /// Code of the finding.
    pub code: Text,
    /// Its cause.
    pub cause: Text,
    /// Counts what was told about the case, from 1.
    pub version: i64,
    /// What became of it.
    pub status: CaseStatus,
    /// When it was first found.
    pub first_seen: Timestamp,
    /// What does not agree; `None` when it does again.
    pub finding: Option<Finding>,
}

/// Every case that an entity had, by code and cause.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cases {
    known: BTreeMap<(Text, Text), Case>,
}
stored!(Cases { known });

impl Cases {
    /// Takes `findings` as all that does not agree now, and gives what has to be told: cases that are
    /// new, say something else, have come back or are gone. Of two findings of one code and cause the
    /// last stands.
    pub fn follow(&mut self, findings: Vec<Finding>, now: Timestamp) -> Vec<CaseChange> {
        let mut changes = Vec::new();
        if findings.is_empty() && self.known.is_empty() {
            return changes;
        }
        let mut present: BTreeMap<(Text, Text), Finding> = BTreeMap::new();
        for finding in findings {
            present.insert((finding.code.into(), finding.cause.clone()), finding);
        }
        for (key, case) in &mut self.known {
            if present.contains_key(key) {
                continue;
            }
            case.due = None;
            if case.is_open() {
                case.version += 1;
                case.status = CaseStatus::Resolved;
                changes.push(change(key, case, None));
            }
        }
        self.known
            .retain(|key, case| case.version > 0 || present.contains_key(key));
        for (key, finding) in present {
            let case = self.known.entry(key.clone()).or_insert_with(|| Case {
                first_seen: now,
                ..Case::default()
            });
            if case.is_open() {
                if case.actual == finding.actual {
                    continue;
                }
                case.status = CaseStatus::Open;
            } else {
                let due = *case.due.get_or_insert(now.plus(finding.patience));
                if !finding.patience.is_zero() && now < due {
                    continue;
                }
                if case.version > 0 {
                    case.status = CaseStatus::Regressed;
                }
            }
            case.due = None;
            case.version += 1;
            case.actual = finding.actual.as_str().into();
            changes.push(change(&key, case, Some(finding)));
        }
        changes
    }

    /// When the next finding that is given time becomes a case.
    pub fn due(&self) -> Option<Timestamp> {
        self.known.values().filter_map(|case| case.due).min()
    }

    /// Codes and causes of the cases that are open.
    pub fn open(&self) -> impl Iterator<Item = (&str, &str)> {
        self.known
            .iter()
            .filter(|(_, case)| case.is_open())
            .map(|((code, cause), _)| (code.as_str(), cause.as_str()))
    }
}

fn change(key: &(Text, Text), case: &Case, finding: Option<Finding>) -> CaseChange {
    CaseChange {
        code: key.0.clone(),
        cause: key.1.clone(),
        version: case.version,
        status: case.status,
        first_seen: case.first_seen,
        finding,
    }
}
