//! Instances of `stock-ledger` are killed in the middle of their work, and nothing is lost or done
//! twice.

use crate::facts::{SESSION, judge, prepare, quiet, send_changes};
use crate::kafka::Kafka;
use crate::worker::{Worker, run, succeed};
use rand::prelude::*;
use std::time::Duration;

#[test]
fn kills_hand_overs_and_broker_pauses_lose_and_repeat_nothing() {
    const DISTINCT: i64 = 200_000;
    let seed: u64 = std::env::var("CROSSDOCK_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(20_261_124);
    let Some(kafka) = Kafka::find(1) else { return };
    let log = prepare(&kafka);
    let folder = tempfile::tempdir().expect("a folder");
    let start = |instance: &str| {
        Worker::start(
            &kafka.bootstrap,
            folder.path(),
            instance,
            &["run", "stock-ledger", "--session-timeout-ms", SESSION],
        )
    };
    let mut workers = vec![start("one"), start("two")];
    let mut kills = 0;
    let mut third: Option<Worker> = None;
    send_changes(&log, DISTINCT, seed, |wave, random| {
        let victim = random.random_range(0..2);
        let name = ["one", "two"][victim];
        workers[victim].kill();
        kills += 1;
        workers[victim] = start(name);
        match wave {
            3 => third = Some(start("three")),
            // An instance stands still in the middle of its work for so long that it is expelled,
            // and goes on as if nothing had happened.
            4 => third.iter().for_each(|w| w.signal("STOP")),
            7 => third.iter().for_each(|w| w.signal("CONT")),
            8 => {
                let code = third.take().map(Worker::terminate);
                assert_eq!(code, Some(Some(0)), "an orderly end");
            }
            // The broker stands still for longer than a session lasts.
            5 if kafka.is_own() => {
                kafka.control(&["stop", "1"]);
                std::thread::sleep(Duration::from_secs(4));
                kafka.control(&["cont", "1"]);
            }
            _ => {}
        }
    });
    assert!(kills >= 10, "seed {seed}: {kills} kills");
    quiet(&kafka, Duration::from_secs(180));
    judge(&kafka, DISTINCT, seed);
    for worker in workers {
        assert_eq!(worker.terminate(), Some(0), "an orderly end");
    }
}

#[test]
fn a_broker_that_is_killed_and_returns_is_waited_for() {
    const DISTINCT: i64 = 20_000;
    let Some(kafka) = Kafka::find(1).filter(Kafka::is_own) else {
        return;
    };
    let log = prepare(&kafka);
    let folder = tempfile::tempdir().expect("a folder");
    let mut worker = Worker::start(
        &kafka.bootstrap,
        folder.path(),
        "one",
        &["run", "stock-ledger", "--session-timeout-ms", SESSION],
    );
    send_changes(&log, DISTINCT, 7, |wave, _| {
        if wave == 4 {
            kafka.control(&["kill", "1"]);
            // Health tells the truth, and not that a restart would help.
            worker.wait_for("/health/ready", 503);
            worker.wait_for("/health/live", 200);
            kafka.control(&["restart", "1"]);
            worker.wait_for("/health/ready", 200);
        }
    });
    quiet(&kafka, Duration::from_secs(120));
    judge(&kafka, DISTINCT, 7);
    // Told to end while no broker answers, it does not wait for one.
    kafka.control(&["kill", "1"]);
    worker.wait_for("/health/ready", 503);
    worker.signal("TERM");
    let code = worker.wait(Duration::from_secs(10));
    assert_eq!(code, Some(0), "an orderly end");
}

#[test]
fn what_is_missing_is_named_with_the_command_that_mends_it() {
    let Some(kafka) = Kafka::find(1) else { return };
    let said = |arguments: &[&str]| {
        let output = run(&kafka.bootstrap, arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let words = said(&["run", "stock-ledger"]);
    assert!(words.contains("topics apply"), "{words}");
    succeed(&kafka.bootstrap, &["topics", "apply", "--replication", "1"]);
    let words = said(&["run", "stock-ledger"]);
    assert!(words.contains("schemas register"), "{words}");
    let words = said(&["run", "stock-leger"]);
    assert!(words.contains("stock-ledger"), "{words}");
    let output = run("127.0.0.1:1", &["verify"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && words.contains("127.0.0.1:1"),
        "{words}"
    );
}
