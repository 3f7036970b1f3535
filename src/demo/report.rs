//! What a demo has to say at the end.

use super::invariants::{Verdicts, WORDING};
use crate::pipeline::SourceReject;
use crate::verify::Ledger;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// The outcome of a demo.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Facts and commands read from the systems.
    pub events: u64,
    /// The books.
    pub ledger: Ledger,
    /// The invariants.
    pub invariants: Verdicts,
    /// What of the data was not taken.
    pub left_out: LeftOut,
    /// How long it took. Not part of [`Report::json`], which repeats itself for a seed.
    pub took: Duration,
}

/// Lines of the data that tell no sale that could be read. Each is a dead letter of the tills.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How many.
    pub lines: u64,
    /// Where the first of them stand, and what is wrong with each.
    pub first: Vec<String>,
}

impl LeftOut {
    const TOLD_MAX: usize = 3;

    /// Counts one more.
    pub(super) fn note(&mut self, reject: &SourceReject) {
        self.lines += 1;
        if self.first.len() < Self::TOLD_MAX {
            let origin = &reject.origin;
            self.first.push(format!(
                "{}, {}: {}",
                origin.container, origin.item, reject.fault.message
            ));
        }
    }
}

impl Report {
    /// Whether the books balance and every invariant holds.
    pub fn is_good(&self) -> bool {
        self.ledger.balances() && self.invariants.all_hold()
    }

    /// One JSON object: `events`, `ledger`, `invariants`, `left_out` (lines of the data).
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "seed": self.seed,
            "events": self.events,
            "ledger": self.ledger,
            "invariants": self.invariants,
            "left_out": self.left_out.lines,
        })
    }
}

/// Reads one number of the books.
type Count = fn(&Ledger) -> i64;

/// The rows of the books, from what there was to what became of it.
const ROWS: [(&str, Count); 9] = [
    ("produced", |l| l.produced),
    ("applied", |l| l.applied),
    ("duplicate", |l| l.duplicate),
    ("superseded", |l| l.superseded),
    ("compensated", |l| l.compensated),
    ("buffered", |l| l.buffered),
    ("parked", |l| l.parked),
    ("dead-lettered", |l| l.dead_lettered),
    ("in flight", |l| l.in_flight),
];
/// The first of the rows of what is not over yet, or went wrong: whose it is matters there.
const FIRST_OPEN: usize = 5;

/// Who has how much of a row.
fn shares(ledger: &Ledger, count: Count) -> String {
    let readers = ledger.readers.iter().filter(|(_, l)| count(l) != 0);
    let shares: Vec<String> = readers
        .map(|(name, l)| format!("{name} {}", count(l)))
        .collect();
    if shares.is_empty() {
        return String::new();
    }
    format!("   {}", shares.join(", "))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let l = &self.ledger;
        writeln!(
            f,
            "{} events in {:.1} s, seed {}\n",
            self.events,
            self.took.as_secs_f64(),
            self.seed
        )?;
        writeln!(f, "Ledger: every record, for each of its readers")?;
        for (index, (name, count)) in ROWS.into_iter().enumerate() {
            let sign = ["", "=", "+"][index.min(2)];
            write!(f, "  {sign:1} {name:<14} {:>9}", count(l))?;
            if index >= FIRST_OPEN {
                f.write_str(&shares(l, count))?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "  {}\n",
            if l.balances() {
                "balanced"
            } else {
                "DOES NOT BALANCE"
            }
        )?;
        for fault in l.faults.iter().take(5) {
            writeln!(f, "    {fault}")?;
        }
        if self.left_out.lines > 0 {
            writeln!(
                f,
                "Left out of the data, each a dead letter of the tills: {} line{}",
                self.left_out.lines,
                if self.left_out.lines == 1 { "" } else { "s" }
            )?;
            for line in &self.left_out.first {
                writeln!(f, "  {line}")?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "Invariants, judged from the log and the storefronts' own books"
        )?;
        for (number, words) in WORDING {
            let verdict = self
                .invariants
                .0
                .get(&number)
                .map_or("not judged", String::as_str);
            let mark = if verdict == "ok" { "ok  " } else { "FAIL" };
            let mut line = format!("  {mark} {number:>2}  {words}");
            if verdict != "ok" {
                let _ = write!(line, ": {verdict}");
            }
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}
