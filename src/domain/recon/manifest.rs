//! Whether a list of what a system has is the whole list.
//!
//! A manifest comes in chunks, in any order. From what stands in it much follows; from what does not,
//! only when all of it has come: then for which time a system's lists are whole is told.

use super::PATIENCE;
use super::coverage::{Coverage, Spans};
use crate::domain::cases::{CaseChange, Cases, Finding, Severity};
use crate::domain::encoding::{kept, stored};
use crate::domain::{Decimal, FACTS_MAX, Taken, Timestamp};
use compact_str::CompactString as Text;
use std::collections::BTreeMap;
use std::time::Duration;

/// Manifests remembered of one system and kind of thing.
const MANIFESTS_MAX: usize = 24;
/// How long one that is not whole is remembered: as long as its chunks are.
const INCOMPLETE_KEPT: Duration = Duration::from_secs(14 * 24 * 3_600);

/// A part of a manifest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chunk {
    /// The manifest.
    pub manifest: Text,
    /// Its beginning in time, which is not in it, and its end, which is.
    pub window: (Timestamp, Timestamp),
    /// Which of its parts, from 0, and how many it has.
    pub part: (u32, u32),
    /// Entries here, and their amounts' sum.
    pub sums: (i64, Decimal),
    /// Entries of the whole manifest, and their amounts' sum where it is told.
    pub totals: (i64, Option<Decimal>),
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    since: Timestamp,
    until: Timestamp,
    heard_at: Timestamp,
    parts: u32,
    total: i64,
    total_amount: Option<Decimal>,
    seen: BTreeMap<u32, (i64, Decimal)>,
}
stored!(Seen {
    since,
    until,
    heard_at: told,
    parts,
    total,
    total_amount,
    seen
});

/// The manifests of one system for one kind of thing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifests {
    // First, so that it is read without the rest.
    due: Option<Timestamp>,
    heard_at: Timestamp,
    known: BTreeMap<Text, Seen>,
    spans: Spans,
    coverages: i64,
    cases: Cases,
}
kept!(Manifests as 2 {
    due,
    heard_at,
    known,
    spans,
    coverages,
    cases
});

impl Manifests {
    /// A part has come, heard at `now`.
    pub fn chunk(&mut self, chunk: Chunk, now: Timestamp) -> Taken {
        if chunk.part.1 as usize > FACTS_MAX {
            return Taken::TooMany;
        }
        let known = self.known.entry(chunk.manifest).or_insert_with(|| Seen {
            heard_at: now,
            ..Seen::default()
        });
        if known.seen.contains_key(&chunk.part.0) {
            return Taken::Duplicate;
        }
        known.seen.insert(chunk.part.0, chunk.sums);
        // Chunks that differ in what they say of the whole: the largest counts, whichever came first.
        known.since = known.since.max(chunk.window.0);
        known.until = known.until.max(chunk.window.1);
        known.parts = known.parts.max(chunk.part.1);
        known.total = known.total.max(chunk.totals.0);
        known.total_amount = known.total_amount.max(chunk.totals.1);
        Taken::Applied
    }

    /// What became of the cases, and the number of the news and for which time the lists are whole, where that
    /// is news. Sets the next timer.
    pub fn settle(&mut self, now: Timestamp) -> (Vec<CaseChange>, Option<(i64, Coverage)>) {
        let covered = self.spans.coverage();
        let mut whole: Vec<(Timestamp, Text)> = Vec::new();
        let mut findings = Vec::new();
        self.known.retain(|name, seen| match seen.lack() {
            None => {
                whole.push((seen.until, name.clone()));
                true
            }
            Some(lack) if now < seen.heard_at.plus(INCOMPLETE_KEPT) => {
                findings.push(finding(name, seen, lack));
                true
            }
            Some(_) => false,
        });
        for (_, name) in &whole {
            if let Some(seen) = self.known.get(name) {
                self.spans.add(seen.since, seen.until);
            }
        }
        whole.sort();
        let surplus = whole.len().saturating_sub(MANIFESTS_MAX);
        for (_, name) in whole.drain(..surplus) {
            self.known.remove(&name);
        }
        let changes = self.cases.follow(findings, now);
        let incomplete = self.known.values().filter(|seen| seen.lack().is_some());
        let ends = incomplete.map(|seen| seen.heard_at.plus(INCOMPLETE_KEPT));
        self.due = self.cases.due().into_iter().chain(ends).min();
        let coverage = self.spans.coverage().filter(|now| Some(*now) != covered);
        self.coverages += i64::from(coverage.is_some());
        (changes, coverage.map(|of| (self.coverages, of)))
    }
}

impl Seen {
    /// What is missing of it.
    fn lack(&self) -> Option<String> {
        let (here, parts) = (self.seen.len(), self.parts as usize);
        if here < parts {
            return Some(format!("{here} of {parts} chunks"));
        }
        let count: i64 = self.seen.values().map(|(count, _)| count).sum();
        if count != self.total {
            return Some(format!("{count} entries"));
        }
        let amount: Decimal = self.seen.values().map(|(_, amount)| *amount).sum();
        let told = self.total_amount.filter(|told| *told != amount);
        told.map(|_| format!("amounts of {amount} in all"))
    }
}

fn finding(name: &Text, seen: &Seen, lack: String) -> Finding {
    let amount = seen.total_amount.map(|a| format!(", {a} in all"));
    Finding {
        code: "MANIFEST_INCOMPLETE",
        cause: name.clone(),
        severity: Severity::Medium,
        patience: PATIENCE,
        expected: format!(
            "{} chunks, {} entries{}",
            seen.parts,
            seen.total,
            amount.unwrap_or_default()
        ),
        actual: lack,
        delta: None,
        at_risk: None,
        actions: &["read the list again from its source"],
    }
}
