//! What a demo has to say at the end.

use super::invariants::{Verdicts, WORDING};
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
    /// How long it took. Not part of [`Report::json`], which repeats itself for a seed.
    pub took: Duration,
}

impl Report {
    /// Whether the books balance and every invariant holds.
    pub fn is_good(&self) -> bool {
        self.ledger.balances() && self.invariants.all_hold()
    }

    /// One JSON object: `events`, `ledger`, `invariants`.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "seed": self.seed,
            "events": self.events,
            "ledger": self.ledger,
            "invariants": self.invariants,
        })
    }
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
        let rows = [
            ("produced", l.produced),
            ("applied", l.applied),
            ("duplicate", l.duplicate),
            ("superseded", l.superseded),
            ("compensated", l.compensated),
            ("buffered", l.buffered),
            ("parked", l.parked),
            ("dead-lettered", l.dead_lettered),
            ("in flight", l.in_flight),
        ];
        for (index, (name, count)) in rows.into_iter().enumerate() {
            let sign = ["", "=", "+"][index.min(2)];
            writeln!(f, "  {sign:1} {name:<14} {count:>9}")?;
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
