//! What a sink knows of its target's health, and how many calls it may have.
//!
//! A circuit: when several keys in a row are not answered, and nobody is for a second, the target is down. Calls stop, and one at a time
//! probes it, further apart each time; the first that is answered closes the circuit, and the number of
//! calls at a time grows again with the answers. Each member of the group probes as much less often as its part
//! of the partitions is of all, so that a target is not asked more often the more there are. What the target asks for (`Retry-After`) holds for all
//! calls. A budget: calls a second, of which each member of the group has the part that its partitions are
//! of all, so that nobody needs to be asked.
//!
//! What is absent: no clock. Time is given.

use super::backoff::Backoff;
use crate::contract::event::Text;
use crate::domain::Timestamp;
use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;
use std::time::Duration;

/// Keys in a row that fail before the target counts as down. One that fails alone is the key's affair.
const DOWN_AFTER_KEYS: usize = 3;
/// And so long must nobody be answered: where many keys fail for their own reasons, others still are.
const DOWN_AFTER: Duration = Duration::from_secs(1);

/// Longest wait between two probes of one member.
const PROBE_WAIT_MAX: Duration = Duration::from_secs(5 * 60);

/// Calls that a target allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Calls a second, of the whole group.
    pub calls_per_second: f64,
    /// Calls that may be made at once after a rest.
    pub burst: f64,
}

/// A target, as one sink task sees it.
pub(super) struct Target {
    /// Tells the probes of instances apart.
    name: String,
    calls_max: usize,
    /// Calls at a time that are allowed now.
    allowed: usize,
    /// Keys that have failed since the last answer.
    failing: HashSet<Text, FxBuildHasher>,
    /// When the first of them did.
    failing_since: Timestamp,
    /// Probes that have failed, while the circuit is open.
    probes: Option<u32>,
    /// Nothing is called before.
    not_before: Timestamp,
    answered_at: Option<Timestamp>,
    backoff: Backoff,
    /// The part of all partitions that is this member's.
    share: f64,
    purse: Option<Purse>,
}

/// What is left of a budget.
struct Purse {
    budget: Budget,
    /// The part of the budget that is this member's.
    share: f64,
    calls: f64,
    at: Timestamp,
}

impl Target {
    pub fn new(name: String, calls_max: usize, budget: Option<Budget>, now: Timestamp) -> Self {
        let calls_max = calls_max.max(1);
        let purse = budget.map(|budget| Purse {
            budget,
            share: 0.0,
            calls: 0.0,
            at: now,
        });
        Target {
            name,
            calls_max,
            allowed: calls_max,
            failing: HashSet::default(),
            failing_since: now,
            probes: None,
            not_before: Timestamp::default(),
            answered_at: None,
            backoff: Backoff::default(),
            share: 1.0,
            purse,
        }
    }

    /// Whether the target is down.
    pub fn is_down(&self) -> bool {
        self.probes.is_some()
    }

    /// Whether the target has answered a call since `since`.
    pub fn has_answered_since(&self, since: Timestamp) -> bool {
        self.answered_at.is_some_and(|at| at >= since)
    }

    /// How many more calls may be made now, with `under_way` of them made.
    pub fn room(&mut self, under_way: usize, now: Timestamp) -> usize {
        if now < self.not_before {
            return 0;
        }
        let room = self.allowed.saturating_sub(under_way);
        match &mut self.purse {
            Some(purse) => room.min(purse.fill(now) as usize),
            None => room,
        }
    }

    /// A call is made.
    pub fn called(&mut self) {
        self.spent(1);
    }

    /// What was called took this many requests more than it was counted for.
    pub fn spent(&mut self, calls: u32) {
        if let Some(purse) = &mut self.purse {
            purse.calls -= f64::from(calls);
        }
    }

    /// This member owns so much of all partitions.
    pub fn owns(&mut self, share: f64, now: Timestamp) {
        self.share = share;
        if let Some(purse) = &mut self.purse {
            purse.fill(now);
            purse.share = share;
        }
    }

    /// When a call may be made; nothing when one may be made at once.
    pub fn free_at(&mut self, now: Timestamp) -> Option<Timestamp> {
        if now < self.not_before {
            return Some(self.not_before);
        }
        let purse = self.purse.as_mut()?;
        let missing = 1.0 - purse.fill(now);
        let rate = purse.rate();
        (missing > 0.0 && rate > 0.0).then(|| now.plus(Duration::from_secs_f64(missing / rate)))
    }

    /// The target has answered a call, be it with a refusal. Tells whether it was down.
    pub fn answered(&mut self, now: Timestamp) -> bool {
        let was_down = self.probes.take().is_some();
        self.allowed = match was_down {
            true => 1,
            false => (self.allowed + 1).min(self.calls_max),
        };
        if was_down {
            self.not_before = now;
        }
        self.failing.clear();
        self.answered_at = Some(now);
        was_down
    }

    /// A call for `key` was not answered, or not as it should be. Tells whether the target counts as down
    /// from now on.
    pub fn failed(&mut self, key: &Text, now: Timestamp) -> bool {
        if let Some(probes) = &mut self.probes {
            // Calls that were under way when the circuit opened tell nothing more.
            if now >= self.not_before {
                *probes += 1;
                let tries = *probes + 3;
                self.not_before = now.plus(self.probe_wait(tries));
            }
            return false;
        }
        if self.failing.is_empty() {
            self.failing_since = now;
        }
        if self.failing.len() < DOWN_AFTER_KEYS {
            self.failing.insert(key.clone());
        }
        if self.failing.len() < DOWN_AFTER_KEYS || now.since(self.failing_since) < DOWN_AFTER {
            return false;
        }
        self.probes = Some(0);
        self.allowed = 1;
        self.not_before = self.not_before.max(now.plus(self.probe_wait(3)));
        true
    }

    /// A group of N probes about as often as one of them would alone.
    fn probe_wait(&self, tries: u32) -> Duration {
        let alone = self.backoff.wait(self.name.as_bytes(), tries);
        alone
            .div_f64(self.share.clamp(0.01, 1.0))
            .min(PROBE_WAIT_MAX)
    }

    /// The target asks for fewer calls: none before `until`, and then fewer at a time.
    pub fn throttled(&mut self, until: Timestamp) {
        self.not_before = self.not_before.max(until);
        self.allowed = (self.allowed / 2).max(1);
    }

    /// No call can succeed until somebody mends something; looks again at `until`.
    pub fn halted(&mut self, until: Timestamp) {
        self.not_before = until;
        self.allowed = 1;
    }
}

impl Purse {
    fn rate(&self) -> f64 {
        self.budget.calls_per_second * self.share
    }

    fn fill(&mut self, now: Timestamp) -> f64 {
        let burst = (self.budget.burst * self.share).max(1.0);
        let earned = self.rate() * now.since(self.at).as_secs_f64();
        self.calls = (self.calls + earned).min(burst);
        self.at = now.max(self.at);
        self.calls.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + ms)
    }

    fn target(budget: Option<Budget>) -> Target {
        Target::new("shop/one".into(), 8, budget, at(0))
    }

    #[test]
    fn a_key_that_fails_alone_says_nothing_of_the_target() {
        let mut target = target(None);
        for _ in 0..100 {
            assert!(!target.failed(&"a".into(), at(0)));
        }
        assert!(!target.is_down());
        assert_eq!(target.room(0, at(0)), 8);
    }

    #[test]
    fn a_target_that_is_down_is_probed_by_one_call_and_comes_back_step_by_step() {
        let mut target = target(None);
        let opened = ["a", "b", "c"].map(|key| target.failed(&key.into(), at(-1_000)));
        assert_eq!(opened, [false; 3], "others may be answered");
        assert_eq!(
            ["a", "b"].map(|key| target.failed(&key.into(), at(0))),
            [true, false]
        );
        let mut probes = 0;
        for ms in 0..120_000 {
            if target.room(0, at(ms)) > 0 {
                assert_eq!(target.room(0, at(ms)), 1);
                probes += 1;
                target.failed(&"a".into(), at(ms));
            }
        }
        assert!((6..=14).contains(&probes), "{probes} probes in two minutes");
        assert!(target.answered(at(200_000)));
        let mut rooms = Vec::new();
        for _ in 0..9 {
            rooms.push(target.room(0, at(200_000)));
            target.answered(at(200_000));
        }
        assert_eq!(rooms, [1, 2, 3, 4, 5, 6, 7, 8, 8]);
    }

    #[test]
    fn a_group_probes_a_target_that_is_down_no_more_often_than_one_member_would() {
        let probes_of = |count: usize| {
            let mut members: Vec<Target> = (0..count)
                .map(|n| Target::new(format!("shop/{n}"), 8, None, at(0)))
                .collect();
            for member in &mut members {
                member.owns(1.0 / count as f64, at(0));
                for ms in [-1_000, 0] {
                    for key in ["a", "b", "c"] {
                        member.failed(&key.into(), at(ms));
                    }
                }
                assert!(member.is_down());
            }
            let mut probes = 0;
            for tick in 0..180_000 {
                let now = at(10 * tick);
                for member in &mut members {
                    if member.room(0, now) > 0 {
                        probes += 1;
                        member.failed(&"a".into(), now);
                    }
                }
            }
            probes
        };
        let alone = probes_of(1);
        for count in [2, 4, 8] {
            let together = probes_of(count);
            assert!(
                together <= 2 * alone,
                "{count} members probe {together} times, one {alone} times"
            );
        }
    }

    #[test]
    fn a_budget_is_kept_over_any_second_and_shared_by_partitions() {
        let budget = Budget {
            calls_per_second: 10.0,
            burst: 5.0,
        };
        let mut members = [target(Some(budget)), target(Some(budget))];
        members[0].owns(0.75, at(0));
        members[1].owns(0.25, at(0));
        let mut calls = [0, 0];
        for ms in 0..60_000 {
            for (member, calls) in members.iter_mut().zip(&mut calls) {
                while member.room(0, at(ms)) > 0 {
                    member.called();
                    *calls += 1;
                }
            }
        }
        assert!((445..=455).contains(&calls[0]), "{calls:?}");
        assert!((147..=153).contains(&calls[1]), "{calls:?}");
    }
}
