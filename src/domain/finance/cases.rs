//! What does not agree, and since when.

use crate::domain::encoding::{stored, stored_enum};
use crate::domain::money::Money;
use crate::domain::{Decimal, Timestamp};
use compact_str::CompactString as Text;
use std::collections::BTreeMap;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A process is late.
    Medium,
    /// Money is missing or was not sent.
    High,
    /// Money may have been sent twice.
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
    version: i64,
    status: CaseStatus,
    first_seen: Timestamp,
    actual: Text,
}
stored!(Case {
    version,
    status,
    first_seen,
    actual
});

/// Something to be told about a case.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseChange {
    /// Code of the finding.
    pub code: Text,
    /// Its cause.
    pub cause: Text,
    /// Counts what was told about the case.
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
        let mut present: BTreeMap<(Text, Text), Finding> = BTreeMap::new();
        for finding in findings {
            present.insert((finding.code.into(), finding.cause.clone()), finding);
        }
        let mut changes = Vec::new();
        for (key, case) in &mut self.known {
            if case.status == CaseStatus::Resolved || present.contains_key(key) {
                continue;
            }
            case.version += 1;
            case.status = CaseStatus::Resolved;
            changes.push(change(key, case, None));
        }
        for (key, finding) in present {
            let case = self.known.entry(key.clone()).or_insert_with(|| Case {
                first_seen: now,
                ..Case::default()
            });
            let again = case.status == CaseStatus::Resolved;
            if case.version > 0 && !again && case.actual == finding.actual {
                continue;
            }
            case.version += 1;
            if again {
                case.status = CaseStatus::Regressed;
            }
            case.actual = finding.actual.as_str().into();
            changes.push(change(&key, case, Some(finding)));
        }
        changes
    }

    /// Codes and causes of the cases that are open.
    pub fn open(&self) -> impl Iterator<Item = (&str, &str)> {
        let open = |case: &Case| case.status != CaseStatus::Resolved;
        self.known
            .iter()
            .filter(move |(_, case)| open(case))
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
