//! A run repeats itself, and other seeds bring other runs.

use super::{Cluster, Observer, Options, Picture, Report, SLICE, run};
use crate::contract::Catalogue;
use crate::log::embedded::{self, EmbeddedLog};
use crate::log::{Log, TopicPartition};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Nobody watches.
pub(super) struct Blind;

impl Observer for Blind {
    fn round(&mut self, _picture: &Picture) {}
}

/// The first sales of the slice, in a file of `folder`.
pub(super) fn few_sales(folder: &Path) -> PathBuf {
    let mut text = String::new();
    flate2::read::GzDecoder::new(SLICE)
        .take(1 << 20)
        .read_to_string(&mut text)
        .expect("the slice is text");
    let path = folder.join("sales.csv");
    let mut file = std::fs::File::create(&path).expect("a file");
    for line in text.lines().take(4_000) {
        writeln!(file, "{line}").expect("written");
    }
    path
}

pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

fn of_seed(seed: u64, data: &Path) -> Report {
    let options = Options {
        seed,
        data: Some(data.to_owned()),
        ledgers: None,
        cluster: None,
    };
    block_on(run(&options, &mut Blind)).expect("a run")
}

#[test]
fn a_seed_gives_the_same_events_ledger_and_verdicts_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = few_sales(folder.path());
    let (first, again, other) = (of_seed(3, &data), of_seed(3, &data), of_seed(4, &data));
    assert!(first.is_good(), "seed 3: {first}");
    assert!(other.is_good(), "seed 4: {other}");
    assert_eq!(first.json(), again.json(), "seed 3");
    assert_ne!(first.json()["ledger"], other.json()["ledger"]);
    assert_ne!(first.events, other.events);
}

#[test]
fn the_report_is_one_object_with_the_books_and_a_verdict_each() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = of_seed(5, &few_sales(folder.path())).json();
    let ledger = &report["ledger"];
    let count = |name: &str| ledger[name].as_i64().expect(name);
    let outcomes = [
        "applied",
        "duplicate",
        "superseded",
        "compensated",
        "buffered",
        "parked",
        "dead_lettered",
        "in_flight",
    ];
    let accounted: i64 = outcomes.into_iter().map(count).sum();
    assert_eq!(count("produced"), accounted);
    // What the landscape promises to show does happen.
    for shown in ["applied", "duplicate", "superseded"] {
        assert!(count(shown) > 0, "{shown}: {report}");
    }
    assert!(report["events"].as_u64() > Some(4_000), "{report}");
    for number in 1..=16 {
        assert_eq!(report["invariants"][number.to_string()], "ok", "{report}");
    }
    assert_eq!(report["invariants"].as_object().map(|o| o.len()), Some(16));
}

#[test]
fn a_line_that_cannot_be_read_is_told_and_dead_lettered_and_the_last_needs_no_line_break() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = few_sales(folder.path());
    let text = std::fs::read_to_string(&path).expect("the sales");
    let mut lines: Vec<&str> = text.lines().take(1_001).collect();
    let broken = lines[1].replacen(",6,", ",many,", 1);
    assert_ne!(broken, lines[1], "the first sale is of six pieces");
    lines[1] = &broken;
    std::fs::write(&path, lines.join("\n")).expect("written");
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::new(embedded::Options::system()));
    let options = Options {
        seed: 6,
        data: Some(path),
        ledgers: None,
        cluster: Some(Cluster {
            log: log.clone(),
            registry: None,
        }),
    };
    let report = block_on(run(&options, &mut Blind)).expect("a run");
    assert!(report.is_good(), "{report}");
    assert_eq!(report.json()["left_out"], 1);
    let words = report.to_string();
    assert!(
        words.contains("line 2") && words.contains("many"),
        "{words}"
    );
    let letters = Catalogue::compiled().dead_letter_topic("tills");
    let topics = log.admin().topics().expect("topics");
    let found = topics.iter().find(|t| t.name == letters).expect("a topic");
    let ends = (0..found.partitions).map(|p| {
        let at = TopicPartition::new(letters.as_str(), p);
        log.admin().watermarks(&at).expect("watermarks").1
    });
    assert!(ends.sum::<i64>() > 0, "nothing stands in {letters}");
}
