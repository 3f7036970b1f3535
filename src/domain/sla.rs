//! What is to happen to an order within some time, and whether it does (DOMAIN.md §5).
//!
//! A clock starts and stops with the business time of facts, so a fact that comes late is judged by when
//! it happened; alarms go by the time that passes here. The same facts give the same verdict whatever
//! their order: only what was told on the way differs.

use crate::domain::encoding::{kept, stored, stored_enum};
use crate::domain::{FACTS_MAX, Taken, Timestamp};
use compact_str::CompactString as Text;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the clocks of an order are remembered once none runs.
const RETENTION: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Least time between hearing of a start and an alarm: in a replay the stop is on its way.
const GRACE: Duration = Duration::from_secs(60);
/// The share of its time after which a clock is at risk, in percent.
const AT_RISK_PERCENT: u32 = 70;
/// The calendar by which business days are counted: Monday to Friday.
pub const CALENDAR: i64 = 1;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// What is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sla {
    /// From PLACED until the ERP accepts or rejects.
    #[default]
    Acknowledgement,
    /// From the inspection of a return until its refund is submitted.
    RefundSubmission,
    /// From the submission of a refund until it is paid.
    RefundCompletion,
    /// From PLACED until the goods leave, within the customer's promise.
    Promise,
}
stored_enum!(Sla [Acknowledgement, RefundSubmission, RefundCompletion, Promise]);

impl Sla {
    /// Its name, as events have it.
    pub const fn name(self) -> &'static str {
        match self {
            Sla::Acknowledgement => "order-acknowledgement",
            Sla::RefundSubmission => "refund-submission",
            Sla::RefundCompletion => "refund-completion",
            Sla::Promise => "promise",
        }
    }
}

/// How a clock stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum SlaState {
    #[default]
    Started,
    AtRisk,
    Breached,
    /// Stopped in time.
    Met,
    /// Stopped too late.
    Recovered,
    /// There is nothing to wait for any more.
    Cancelled,
}
stored_enum!(SlaState [Started, AtRisk, Breached, Met, Recovered, Cancelled]);

/// One clock: first times, whatever order they came in.
#[derive(Clone, Debug, Default, PartialEq)]
struct Timer {
    heard_at: Option<Timestamp>,
    started: Option<Timestamp>,
    due: Option<Timestamp>,
    stopped: Option<Timestamp>,
    cancelled: Option<Timestamp>,
    told: Option<SlaState>,
    version: i64,
}
stored!(Timer {
    heard_at: told,
    started,
    due,
    stopped,
    cancelled,
    told,
    version: told
});

/// Something to be told of a clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What is measured.
    pub sla: Sla,
    /// Of which return or refund; empty of the order itself.
    pub of: Text,
    /// How it stands.
    pub state: SlaState,
    /// When it started.
    pub started: Timestamp,
    /// Until when it should stop.
    pub due: Timestamp,
    /// When it stopped.
    pub stopped: Option<Timestamp>,
    /// How much of its time is over.
    pub share: f64,
    /// Counts what was told of it, from 1.
    pub version: i64,
}

/// The clocks of one order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Clocks {
    // First, so that it is read without the rest.
    due: Option<Timestamp>,
    heard_at: Timestamp,
    timers: BTreeMap<(Sla, Text), Timer>,
    /// The version of the promise.
    promised: i64,
    cases: crate::domain::cases::Cases,
}
kept!(Clocks {
    due,
    heard_at,
    timers,
    promised,
    cases
});

impl Clocks {
    /// A clock starts at `at`, to stop by `due`; heard at `now`.
    pub fn start(
        &mut self,
        (sla, of): (Sla, &str),
        at: Timestamp,
        due: Timestamp,
        now: Timestamp,
    ) -> Taken {
        self.change(sla, of, |timer| {
            timer.heard_at.get_or_insert(now);
            // The first start counts, and what follows from it.
            if timer.started.is_none_or(|known| at < known) {
                (timer.started, timer.due) = (Some(at), Some(due));
            }
        })
    }

    /// The customer was promised something, as of a version of the order.
    pub fn promise(
        &mut self,
        version: i64,
        at: Timestamp,
        due: Option<Timestamp>,
        now: Timestamp,
    ) -> Taken {
        if version <= self.promised {
            return match version == self.promised {
                true => Taken::Duplicate,
                false => Taken::Superseded,
            };
        }
        self.promised = version;
        let Some(due) = due else {
            return Taken::Applied;
        };
        self.change(Sla::Promise, "", |timer| {
            timer.heard_at.get_or_insert(now);
            (timer.started, timer.due) = (Some(at), Some(due));
        });
        Taken::Applied
    }

    /// What a clock waits for has happened at `at`.
    pub fn stop(&mut self, (sla, of): (Sla, &str), at: Timestamp) -> Taken {
        self.change(sla, of, |timer| {
            timer.stopped = Some(timer.stopped.map_or(at, |known| known.min(at)));
        })
    }

    /// It will not happen, and need not, since `at`.
    pub fn cancel(&mut self, (sla, of): (Sla, &str), at: Timestamp) -> Taken {
        self.change(sla, of, |timer| {
            timer.cancelled = Some(timer.cancelled.map_or(at, |known| known.min(at)));
        })
    }

    fn change(&mut self, sla: Sla, of: &str, change: impl FnOnce(&mut Timer)) -> Taken {
        let key = (sla, Text::from(of));
        if self.timers.len() >= FACTS_MAX && !self.timers.contains_key(&key) {
            return Taken::TooMany;
        }
        let timer = self.timers.entry(key).or_default();
        let before = timer.clone();
        change(timer);
        match *timer == before {
            true => Taken::Duplicate,
            false => Taken::Applied,
        }
    }

    /// What is to be told of clocks. Sets the next timer. `None` when all is over and may be forgotten.
    pub fn settle(&mut self, now: Timestamp) -> Option<Vec<Told>> {
        let forgotten_at = self.heard_at.plus(RETENTION);
        let running = |timer: &Timer| timer.stopped.or(timer.cancelled).is_none();
        if forgotten_at <= now
            && !self
                .timers
                .values()
                .any(|t| t.started.is_some() && running(t))
        {
            return None;
        }
        let (mut told, mut next) = (Vec::new(), Vec::new());
        for ((sla, of), timer) in &mut self.timers {
            let (Some(started), Some(due)) = (timer.started, timer.due) else {
                continue;
            };
            let heard = timer.heard_at.unwrap_or(now).plus(GRACE);
            let risk = started.plus(due.since(started) * AT_RISK_PERCENT / 100);
            let (risk_at, alarm_at) = (risk.max(heard), due.max(heard));
            let state = match (timer.stopped, timer.cancelled) {
                (Some(at), _) if at <= due => SlaState::Met,
                (Some(_), _) => SlaState::Recovered,
                (None, Some(_)) => SlaState::Cancelled,
                (None, None) if now >= alarm_at => SlaState::Breached,
                (None, None) if now >= risk_at => SlaState::AtRisk,
                (None, None) => SlaState::Started,
            };
            if running(timer) {
                next.extend([risk_at, alarm_at].into_iter().filter(|at| *at > now));
            }
            if timer.told == Some(state) {
                continue;
            }
            timer.told = Some(state);
            timer.version += 1;
            let end = timer.stopped.or(timer.cancelled).unwrap_or(now);
            let whole = due.since(started).as_secs_f64().max(1.0);
            told.push(Told {
                sla: *sla,
                of: of.clone(),
                state,
                started,
                due,
                stopped: timer.stopped,
                share: end.since(started).as_secs_f64() / whole,
                version: timer.version,
            });
        }
        self.due = next.into_iter().min().or(Some(forgotten_at.max(now)));
        if self.due == Some(now) {
            // A clock that runs beyond its time keeps the order; it is looked at again tomorrow.
            self.due = Some(now.plus(DAY));
        }
        Some(told)
    }

    /// How the promise stands.
    pub fn promise_state(&self) -> Option<(SlaState, Timestamp)> {
        let timer = self.timers.get(&(Sla::Promise, Text::default()))?;
        Some((timer.told?, timer.due?))
    }

    /// Cases of the order's promise.
    pub fn cases(&mut self) -> &mut crate::domain::cases::Cases {
        &mut self.cases
    }
}

/// The same time of day, `days` business days later.
pub fn business_days_after(at: Timestamp, days: u32) -> Timestamp {
    let (mut at, mut left) = (at, days);
    while left > 0 {
        at = at.plus(DAY);
        // 1970-01-01 was a Thursday; Monday is 0.
        let weekday = (at.0.div_euclid(DAY.as_micros() as i64) + 3).rem_euclid(7);
        left -= u32::from(weekday < 5);
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weekends_do_not_count() {
        // 2026-11-26 is a Thursday.
        let thursday = Timestamp(1_795_687_200_000_000);
        let days = |later: i64| Timestamp(thursday.0 + later * 86_400_000_000);
        assert_eq!(business_days_after(thursday, 1), days(1));
        assert_eq!(business_days_after(thursday, 2), days(4));
        assert_eq!(business_days_after(thursday, 5), days(7));
        assert_eq!(business_days_after(days(2), 1), days(4), "from a Saturday");
    }
}
