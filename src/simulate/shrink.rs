//! From a run that fails to the shortest story: parts of the plan are left out for as long as what is
//! left still breaks the same rule.

use super::defects::Defect;
use super::plan::Plan;
use super::{Outcome, play};
use crate::pipeline::Fault;

/// Runs that are tried at most.
const TRIES_MAX: usize = 300;

/// The shortest story.
pub struct Story {
    /// What is broken at its end.
    pub outcome: Outcome,
    /// What happened, with simulated time.
    pub lines: Vec<String>,
    /// Deeds and faults that are left, and that there were.
    pub left: (usize, usize),
    /// The same at first.
    pub planned: (usize, usize),
    /// Runs it took.
    pub tries: usize,
}

/// Finds it. A plan that breaks nothing is told as it is.
pub(super) fn shortest(plan: &Plan, defect: Option<Defect>) -> Result<Story, Fault> {
    let planned = (plan.deeds.len(), plan.faults.len());
    let mut tries = 1;
    let (first, _) = play(plan.clone(), defect, false)?;
    let mut best = plan.clone();
    if let Some((rule, _)) = first.broken.first() {
        // What breaks another rule may be another story.
        let mut fails = |plan: &Plan| -> Result<bool, Fault> {
            tries += 1;
            let (outcome, _) = play(plan.clone(), defect, false)?;
            Ok(outcome.broken.iter().any(|(r, _)| r == rule))
        };
        // Faults first: each run is quicker for those that are gone.
        for _ in 0..2 {
            best = fewer(best, |p| &mut p.faults, &mut fails)?;
            best = fewer(best, |p| &mut p.deeds, &mut fails)?;
        }
        for simpler in [one_instance, right_clocks, told_once, without_checkpoints] {
            let mut less = best.clone();
            simpler(&mut less);
            if fails(&less)? {
                best = less;
            }
        }
    }
    let (outcome, lines) = play(best.clone(), defect, true)?;
    Ok(Story {
        outcome,
        lines,
        left: (best.deeds.len(), best.faults.len()),
        planned,
        tries,
    })
}

fn one_instance(plan: &mut Plan) {
    plan.slots = 1;
}

fn right_clocks(plan: &mut Plan) {
    plan.skew_ms = 0;
}

fn told_once(plan: &mut Plan) {
    plan.twice = 0.0;
}

fn without_checkpoints(plan: &mut Plan) {
    plan.checkpoints = false;
}

/// Leaves out entries of one list, larger parts first, while the rest still fails.
fn fewer<T: Clone>(
    mut best: Plan,
    list: impl Fn(&mut Plan) -> &mut Vec<T>,
    fails: &mut impl FnMut(&Plan) -> Result<bool, Fault>,
) -> Result<Plan, Fault> {
    let mut size = list(&mut best).len();
    let mut tried = 0;
    while size > 0 {
        let mut from = 0;
        while from < list(&mut best).len() && tried < TRIES_MAX {
            let mut less = best.clone();
            let entries = list(&mut less);
            let to = (from + size).min(entries.len());
            entries.drain(from..to);
            tried += 1;
            match fails(&less)? {
                true => best = less,
                false => from += size,
            }
        }
        size /= 2;
    }
    Ok(best)
}
