//! Whether the systems that repeat the stock of a position say what its authority says.
//!
//! The authority's level is known with what it was by event time, in slots of five minutes for a day. A
//! mirror's count is of a cut of its own clock: what changed around the cut, within the skew of clocks,
//! the mirror may have seen or not, and what came late may have happened at any time. So what a mirror
//! may say is a range. A count outside of it by more than the tolerance is a breach; two counts in a row
//! are a drift, and the mirror (never the authority) is corrected.

use super::{CLOCK_SKEW, PATIENCE, Repairs};
use crate::domain::cases::{CaseChange, Cases, Finding, Severity};
use crate::domain::encoding::{kept, stored};
use crate::domain::{Decimal, Taken, Timestamp};
use compact_str::CompactString as Text;
use std::collections::BTreeMap;
use std::time::Duration;

/// One slot of the authority's history: as wide as clocks may differ.
const SLOT_MICROS: i64 = CLOCK_SKEW.as_micros() as i64;
/// How far back a count can be brought to the level of now.
const HISTORY: Duration = Duration::from_secs(24 * 3_600);
/// The same where no mirror is known yet: its first counts are hardly older.
const HISTORY_ALONE: Duration = Duration::from_secs(3_600);
/// Counts kept of each mirror.
const COUNTS_MAX: usize = 4;
/// Mirrors of one position. More are no retailer's.
const MIRRORS_MAX: usize = 50;
/// Share of what is expected that a mirror may differ by, in percent; at least one unit.
const TOLERANCE_PERCENT: f64 = 2.0;
/// A mirror that is off by more is not corrected by itself: somebody looks first.
pub(super) const CORRECTED_MAX: Decimal = Decimal::from_units(100 * Decimal::ONE.units());
/// When all that a count may have seen is known here: facts are late, and its clock may be ahead.
const SETTLED: Duration = PATIENCE
    .saturating_add(CLOCK_SKEW)
    .saturating_add(CLOCK_SKEW);
/// Least time between hearing of a count and judging it: in a replay the level is on its way.
const GRACE: Duration = Duration::from_secs(60);

/// What the authority's side says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Level {
    /// Counts what was told of it.
    pub version: i64,
    /// Units that could be sold.
    pub sellable: Decimal,
    /// When the newest fact in it happened.
    pub as_of: Timestamp,
    /// Whether nothing is known to be missing from it.
    pub complete: bool,
}
stored!(Level {
    version,
    sellable,
    as_of,
    complete
});

/// What a mirror says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    /// Its event.
    pub id: u128,
    /// Its place in the mirror's order: epoch, position.
    pub place: (i32, i64),
    /// When it was so.
    pub cut: Timestamp,
    /// Units there, claims added back.
    pub sellable: Decimal,
    /// Claims that the mirror takes off what it shows.
    pub claims: Decimal,
}
stored!(Count {
    id,
    place,
    cut,
    sellable,
    claims
});

/// A count, and from when it is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Heard {
    count: Count,
    judged_from: Timestamp,
}
stored!(Heard {
    count,
    judged_from: told
});

/// What the level changed by in a slot: dated by its facts, or late, so that nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Slot {
    gain: Decimal,
    loss: Decimal,
    late_gain: Decimal,
    late_loss: Decimal,
}
stored!(Slot {
    gain,
    loss,
    late_gain,
    late_loss
});

/// A mirror to be set, if it still says what it said.
#[derive(Clone, Debug, PartialEq)]
pub struct StockRepair {
    /// The mirror's source.
    pub source: Text,
    /// What it shows.
    pub shows: Decimal,
    /// What it should show.
    pub should: Decimal,
    /// The number of the try.
    pub attempt: u32,
}

/// One position: the authority's level, and what each mirror says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mirrors {
    // First, so that it is read without the rest.
    due: Option<Timestamp>,
    heard_at: Timestamp,
    level: Option<Level>,
    /// From when the history is whole.
    since: Timestamp,
    slots: BTreeMap<i64, Slot>,
    counts: BTreeMap<Text, Vec<Heard>>,
    corrected: BTreeMap<Text, Timestamp>,
    repairs: Repairs,
    cases: Cases,
}
kept!(Mirrors {
    due,
    heard_at,
    level,
    since: told,
    slots,
    counts,
    corrected: told,
    repairs,
    cases
});

/// How a count compares.
struct Verdict {
    /// What should be there: the nearest to what is.
    expected: Decimal,
    /// Beyond the range and the tolerance; zero where it agrees.
    drift: Decimal,
}

impl Mirrors {
    /// The level has changed.
    pub fn level(&mut self, level: Level) -> Taken {
        let before = match self.level {
            None => {
                self.since = level.as_of;
                self.level = Some(level);
                return Taken::Applied;
            }
            Some(known) if known.version == level.version => return Taken::Duplicate,
            Some(known) if known.version > level.version => return Taken::Superseded,
            Some(known) => known,
        };
        self.level = Some(level);
        let change = level.sellable - before.sellable;
        let slot = self.slots.entry(slot(level.as_of)).or_default();
        let (gain, loss) = match level.as_of > before.as_of {
            true => (&mut slot.gain, &mut slot.loss),
            false => (&mut slot.late_gain, &mut slot.late_loss),
        };
        *gain += change.or_zero();
        *loss += (-change).or_zero();
        let oldest = level.as_of.minus(match self.counts.is_empty() {
            true => HISTORY_ALONE,
            false => HISTORY,
        });
        if self.since < oldest {
            self.since = oldest;
            let first = crate::domain::recon::mirror::slot(oldest);
            self.slots.retain(|at, _| *at >= first);
        }
        Taken::Applied
    }

    /// A mirror tells what it has, heard at `now`.
    pub fn count(&mut self, source: &str, count: Count, now: Timestamp) -> Taken {
        if !self.counts.contains_key(source) && self.counts.len() >= MIRRORS_MAX {
            return Taken::TooMany;
        }
        let known = self.counts.entry(source.into()).or_default();
        let place = |c: &Count| (c.place, c.id);
        if known.iter().any(|heard| heard.count.id == count.id) {
            return Taken::Duplicate;
        }
        let at = known.partition_point(|heard| place(&heard.count) < place(&count));
        if at == 0 && known.len() == COUNTS_MAX {
            return Taken::Superseded;
        }
        let judged_from = count.cut.plus(SETTLED).max(now.plus(GRACE));
        known.insert(at, Heard { count, judged_from });
        if known.len() > COUNTS_MAX {
            known.remove(0);
        }
        Taken::Applied
    }

    /// Mirrors to be set right, and what became of the cases. Sets the next timer.
    pub fn settle(&mut self, now: Timestamp) -> (Vec<StockRepair>, Vec<CaseChange>) {
        let sources: Vec<Text> = self.counts.keys().cloned().collect();
        let (mut findings, mut wanted) = (Vec::new(), Vec::new());
        for source in sources {
            let Some((count, verdict)) = self.drift(&source, now) else {
                self.corrected.remove(&source);
                continue;
            };
            let large = verdict.drift > CORRECTED_MAX || -verdict.drift > CORRECTED_MAX;
            findings.push(finding(&source, &count, &verdict, large));
            // A count from before a correction says nothing about it.
            let answered = self.corrected.get(&source).is_none_or(|at| count.cut > *at);
            if !large && answered {
                wanted.push((source, count));
            }
        }
        let drifting = |source: &str| findings.iter().any(|f| f.cause == source);
        self.repairs.forget(drifting);
        let mut repairs = Vec::new();
        for (source, count) in &wanted {
            let Some(level) = self.level else { continue };
            if let Some(attempt) = self.repairs.again(source, now) {
                self.corrected.insert(source.clone(), now);
                repairs.push(StockRepair {
                    source: source.clone(),
                    shows: count.sellable - count.claims,
                    should: level.sellable - count.claims,
                    attempt,
                });
            }
        }
        for finding in &mut findings {
            let tried = self.repairs.tried(&finding.cause);
            if tried > 0 {
                finding.actual += &format!("; corrected {tried} times");
            }
        }
        let changes = self.cases.follow(findings, now);
        let judging = self
            .counts
            .values()
            .flatten()
            .map(|heard| heard.judged_from);
        let trying = wanted.iter().filter_map(|(s, _)| self.repairs.next(s));
        self.due = judging.chain(trying).filter(|at| *at > now).min();
        (repairs, changes)
    }

    /// The newest count of a mirror that breaches after the one before it did too.
    fn drift(&self, source: &str, now: Timestamp) -> Option<(Count, Verdict)> {
        let judged = self.counts.get(source)?.iter().rev();
        let mut judged = judged
            .filter(|heard| heard.judged_from <= now)
            .filter_map(|heard| Some((heard.count, self.verdict(&heard.count)?)));
        let (last, before) = (judged.next()?, judged.next()?);
        (!last.1.drift.is_zero() && !before.1.drift.is_zero()).then_some(last)
    }

    /// How a count compares, at its cut; nothing where the level cannot be brought there.
    fn verdict(&self, count: &Count) -> Option<Verdict> {
        let level = self.level.filter(|level| level.complete)?;
        if count.cut < self.since {
            return None;
        }
        let cut = slot(count.cut);
        let mut at = level.sellable;
        let (mut gains, mut losses) = (Decimal::ZERO, Decimal::ZERO);
        for (when, slot) in self.slots.range(cut - 1..) {
            if *when > cut + 1 {
                at -= slot.gain - slot.loss;
            } else {
                gains += slot.gain;
                losses += slot.loss;
            }
            gains += slot.late_gain;
            losses += slot.late_loss;
        }
        let expected = count.sellable.max(at - gains).min(at + losses);
        let share = Decimal::from_units(expected.units().abs()).percent(TOLERANCE_PERCENT);
        let off = count.sellable - expected;
        let within = Decimal::from_units(off.units().abs()) <= share.max(Decimal::ONE);
        Some(Verdict {
            expected,
            drift: if within { Decimal::ZERO } else { off },
        })
    }
}

fn slot(at: Timestamp) -> i64 {
    at.0.div_euclid(SLOT_MICROS)
}

fn finding(source: &Text, count: &Count, verdict: &Verdict, large: bool) -> Finding {
    Finding {
        code: "STOCK_DRIFT",
        cause: source.clone(),
        severity: match large {
            true => Severity::High,
            false => Severity::Medium,
        },
        patience: Duration::ZERO,
        expected: format!("{source} at {}: {}", count.cut, verdict.expected),
        actual: format!("{} in two counts", count.sellable),
        delta: Some(verdict.drift),
        at_risk: None,
        actions: match large {
            true => &["count", "correct the mirror"],
            false => &["wait for the correction", "count"],
        },
    }
}
