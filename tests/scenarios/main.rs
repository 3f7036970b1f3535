//! Every scenario of this folder, on the log in this process and on a real Kafka. How one is written is
//! told in README.md.

#[path = "../support/kafka.rs"]
mod kafka;
#[path = "../support/oracle.rs"]
mod oracle;

use crossdock::demo::Cluster;
use crossdock::demo::scenario;
use crossdock::log::Log;
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use crossdock::log::scoped::Scoped;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// On Kafka every so-manieth story is played, for all of them take minutes there; those that
/// `CROSSDOCK_TEST_SCENARIO` chooses (an empty one: all) are played each.
const ON_KAFKA_EVERY: usize = 3;
/// Stories played at a time on Kafka, where most of the time is spent waiting.
const ON_KAFKA_AT_A_TIME: usize = 2;

/// Names and texts of the scenarios: of those that `CROSSDOCK_TEST_SCENARIO` is a part of the name of.
fn scenarios() -> Vec<(String, String)> {
    let wanted = std::env::var("CROSSDOCK_TEST_SCENARIO").unwrap_or_default();
    let files = std::fs::read_dir(folder()).expect("the folder");
    let mut found: Vec<(String, String)> = files
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .map(|path| {
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, std::fs::read_to_string(&path).expect("readable"))
        })
        .filter(|(name, _)| name.contains(&wanted))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no scenario is named like {wanted}");
    found
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

#[test]
fn every_scenario_goes_as_it_is_written() {
    let all = scenarios();
    let failed: Vec<String> = std::thread::scope(|scope| {
        let halves: Vec<_> = all.chunks(all.len().div_ceil(2)).collect();
        let played = halves.into_iter().map(|half| {
            scope.spawn(move || {
                let play = |(name, text): &(String, String)| {
                    block_on(scenario::play(name, text, None))
                        .err()
                        .map(|e| e.to_string())
                };
                half.iter().filter_map(play).collect::<Vec<_>>()
            })
        });
        let played: Vec<_> = played.collect();
        played
            .into_iter()
            .flat_map(|p| p.join().expect("no panic"))
            .collect()
    });
    assert!(failed.is_empty(), "\n{}", failed.join("\n\n"));
}

#[test]
fn scenarios_go_as_they_are_written_on_kafka() {
    let Some(kafka) = kafka::Kafka::find(1) else {
        return;
    };
    let has_judge = oracle::command().is_some();
    let log: Arc<dyn Log> =
        Arc::new(KafkaLog::connect(KafkaSettings::plain(&kafka.bootstrap)).expect("a connection"));
    let every = match std::env::var_os("CROSSDOCK_TEST_SCENARIO") {
        Some(_) => 1,
        None => ON_KAFKA_EVERY,
    };
    let all: Vec<_> = scenarios().into_iter().step_by(every).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failed = Vec::new();
        while let Some((name, text)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let story = name.trim_end_matches(".yaml");
            let prefix = format!("scenario-{}-{story}.", std::process::id());
            let cluster = Cluster {
                log: Arc::new(Scoped::new(log.clone(), &prefix).expect("a prefix")),
                registry: None,
            };
            match block_on(scenario::play(name, text, Some(&cluster))) {
                Err(why) => failed.push(why.to_string()),
                Ok(played) if has_judge => {
                    let judged = judged(&kafka.bootstrap, &prefix, &played.ledgers);
                    failed.extend(judged.into_iter().map(|why| format!("{name}: {why}")));
                }
                Ok(_) => {}
            }
        }
        failed
    };
    let failed: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..ON_KAFKA_AT_A_TIME).map(|_| scope.spawn(work)).collect();
        let each = workers.into_iter();
        each.flat_map(|w| w.join().expect("no panic")).collect()
    });
    assert!(failed.is_empty(), "\n{}", failed.join("\n\n"));
}

/// What the oracle holds against a story that was played, from its topics and the systems' books.
fn judged(bootstrap: &str, prefix: &str, ledgers: &[(String, String)]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    for (system, lines) in ledgers {
        let path = folder.path().join(format!("{system}.jsonl"));
        std::fs::write(path, lines).expect("written");
    }
    let mut judge = oracle::command().expect("it was there");
    judge.args([
        "judge",
        "--json",
        "--bootstrap",
        bootstrap,
        "--prefix",
        prefix,
    ]);
    let output = judge.arg("--ledgers").arg(folder.path()).output();
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let Ok(verdicts) = serde_json::from_str::<serde_json::Value>(&said) else {
        return vec![String::from_utf8_lossy(&output.stderr).into_owned()];
    };
    let all = verdicts["invariants"].as_array().expect("a list").iter();
    assert_eq!(all.len(), 16, "{said}");
    let violated = all.filter(|v| v["verdict"] == "violated");
    violated.map(ToString::to_string).collect()
}

#[test]
fn mistakes_are_told_with_file_line_and_what_is_allowed() {
    let text = std::fs::read_to_string(folder().join("broken.txt")).expect("readable");
    let told: Vec<String> = scenario::mistakes("broken.txt", &text)
        .iter()
        .map(ToString::to_string)
        .collect();
    let wanted = [
        (
            "broken.txt:3",
            "there is no location Cellar; there is Store",
        ),
        ("broken.txt:8", "there is no SKU CUP-1; there is MUG-1"),
        ("broken.txt:9", "9.905 EUR"),
        ("broken.txt:10", "there is no order B; there is A"),
        (
            "broken.txt:11",
            "there is no status BOUGHT; there is PLACED",
        ),
        ("broken.txt:12", "units cannot be eaten; they can be open"),
        ("broken.txt:13", "the nearest is"),
        ("broken.txt:14", "write it as 30 seconds, 15 minutes"),
    ];
    for (place, words) in wanted {
        let found = told
            .iter()
            .any(|t| t.starts_with(place) && t.contains(words));
        assert!(found, "{place} {words}:\n{}", told.join("\n"));
    }
    assert_eq!(told.len(), wanted.len(), "{}", told.join("\n"));
    let misnamed = scenario::mistakes("x.yaml", "scenario: a\nstok: {}\n");
    let told = misnamed[0].to_string();
    assert!(told.contains("stok") && told.contains("stock"), "{told}");
}

#[test]
fn what_is_not_so_is_told_with_the_step_that_expects_it() {
    let text = "scenario: a\nlocations: {Store: store}\nchannels: {online: [Store]}\n\
                stock: {MUG-1: {Store: 1}}\nsteps:\n  - customer orders 1 of MUG-1 at 1 EUR in online as A\n  - expect A is COMPLETED\n";
    let played = block_on(scenario::play("wrong.yaml", text, None));
    let told = played.err().expect("it is not so").to_string();
    assert!(
        told.starts_with("wrong.yaml:7: expect A is COMPLETED")
            && told.contains("A is IN_FULFILMENT"),
        "{told}"
    );
}

#[test]
fn the_readme_has_every_sentence() {
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("readable");
    for (form, means) in scenario::vocabulary() {
        let line = format!("| `{form}` | {means} |");
        assert!(readme.contains(&line), "README.md lacks: {line}");
    }
    let told = readme.matches("| `").count();
    assert_eq!(
        told,
        scenario::vocabulary().len(),
        "it tells of sentences that there are not"
    );
}
