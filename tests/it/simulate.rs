//! Days that go wrong, each from a seed, and judges that share nothing with what they judge.

use crossdock::simulate::{self, Defect, Options, Trade};
use std::sync::Mutex;

fn options(trade: Trade) -> Options {
    Options {
        hours: 1.0,
        trade: Some(trade),
        defect: None,
    }
}

/// Runs seeds on two threads; panics with the shortest story of the first that breaks a rule.
fn hold(trade: Trade, seeds: u64) {
    let run = |parity: u64| {
        for seed in (0..seeds).filter(|s| s % 2 == parity) {
            let outcome = simulate::run(seed, &options(trade)).expect("a run");
            if !outcome.broken.is_empty() {
                let story = simulate::explain(seed, &options(trade)).expect("a story");
                panic!(
                    "seed {seed} of {trade:?}: {:?}\n{}",
                    outcome.broken,
                    story.lines.join("\n")
                );
            }
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| run(1));
        run(0);
        other.join().expect("the other half");
    });
}

#[test]
fn stock_agrees_whatever_goes_wrong() {
    hold(Trade::Stock, 12);
}

#[test]
fn orders_and_their_money_agree_whatever_goes_wrong() {
    hold(Trade::Orders, 12);
}

#[test]
fn the_same_seed_gives_the_same_run_byte_for_byte() {
    for (trade, seed) in [(Trade::Stock, 5), (Trade::Stock, 28), (Trade::Orders, 2)] {
        let run = || {
            let outcome = simulate::run(seed, &options(trade)).expect("a run");
            serde_json::to_string(&outcome).expect("JSON")
        };
        assert_eq!(run(), run(), "seed {seed}");
    }
}

/// Defects that show early; `crossdock simulate --defects` sows all.
const SHOWN: [&str; 9] = [
    "offsets-first",
    "outputs-at-once",
    "read-uncommitted",
    "no-seek",
    "trusts-commit",
    "restore-uncommitted",
    "trusts-digest",
    "drops-disposition",
    "forgets-changelog",
];

/// Judges that find nothing prove nothing.
#[test]
fn sown_defects_are_found() {
    let hidden: Mutex<Vec<&str>> = Mutex::default();
    let seek = |names: &[&'static str]| {
        for name in names {
            let found = (1..=40).any(|seed| {
                let options = Options {
                    hours: 1.0,
                    trade: None,
                    defect: Defect::named(name),
                };
                let outcome = simulate::run(seed, &options).expect("a run");
                !outcome.broken.is_empty()
            });
            if !found {
                hidden.lock().expect("whole").push(name);
            }
        }
    };
    let (one, other) = SHOWN.split_at(SHOWN.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| seek(one));
        seek(other);
    });
    let hidden = hidden.into_inner().expect("whole");
    assert!(hidden.is_empty(), "not found: {hidden:?}");
}

/// A seed that fails is told as a story that somebody reads: what had to be done, and what had to go wrong.
#[test]
fn a_seed_that_fails_is_told_as_its_shortest_story() {
    // One that needs a fault, and one that needs nothing but trade.
    for name in ["trusts-commit", "loses-outputs"] {
        let options = Options {
            hours: 1.0,
            trade: Some(Trade::Stock),
            defect: Defect::named(name),
        };
        let fails = |seed: &u64| {
            let outcome = simulate::run(*seed, &options).expect("a run");
            !outcome.broken.is_empty()
        };
        let seed = (1..=60).find(fails).expect("a seed that finds it");
        let story = simulate::explain(seed, &options).expect("a story");
        let told = format!("{name}, seed {seed}:\n{}", story.lines.join("\n"));
        let (deeds, faults) = story.left;
        assert!(!story.outcome.broken.is_empty(), "{told}");
        assert!(
            deeds * 4 <= story.planned.0,
            "{deeds} deeds are left of {told}"
        );
        assert!(faults <= 4, "{faults} faults are left of {told}");
        assert!(
            story.lines.len() <= 400,
            "{} lines: {told}",
            story.lines.len()
        );
    }
}
