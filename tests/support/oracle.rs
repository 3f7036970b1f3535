//! The oracle of `tests/oracle`: a Python program that judges what Crossdock did.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The oracle, ready for its arguments. `None`, with a line that says why, where its Python packages
/// are absent; never `None` in continuous integration.
pub fn command() -> Option<Command> {
    let python = python();
    let works = Command::new(&python)
        .args(["-c", "import fastavro, confluent_kafka, yaml"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !works {
        let why = format!(
            "no Python with the oracle's packages at {}: ./test makes one, CROSSDOCK_ORACLE_PYTHON names another",
            python.display()
        );
        assert!(!std::env::var("CI").is_ok_and(|v| v == "true"), "{why}");
        println!("SKIPPED: {why}");
        return None;
    }
    let mut command = Command::new(python);
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Some(command)
}

/// The interpreter that the environment names, else the one that `./test` makes.
fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("CROSSDOCK_ORACLE_PYTHON") {
        return python.into();
    }
    let cache = std::env::var_os("CROSSDOCK_CACHE").map(PathBuf::from);
    let home =
        |under: &str, folder: &str| Some(PathBuf::from(std::env::var_os(under)?).join(folder));
    cache
        .or_else(|| home("XDG_CACHE_HOME", "crossdock"))
        .or_else(|| home("HOME", ".cache/crossdock"))
        .unwrap_or_default()
        .join("oracle/bin/python")
}

/// What a command of the oracle said; it must succeed.
#[allow(
    dead_code,
    reason = "not every test binary plays the oracle's retailer"
)]
pub fn said(mut command: Command) -> String {
    let output = command.output().expect("the oracle runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    said
}

/// A fact of the retailer that the oracle plays.
#[allow(
    dead_code,
    reason = "not every test binary plays the oracle's retailer"
)]
pub struct Told {
    pub topic: String,
    pub key: String,
    pub value: Vec<u8>,
}

/// A wave of facts.
#[allow(
    dead_code,
    reason = "not every test binary plays the oracle's retailer"
)]
pub struct Wave {
    /// Its time of business, in microseconds.
    #[allow(dead_code, reason = "on a real Kafka time passes by itself")]
    pub at: i64,
    pub facts: Vec<Told>,
}

/// The waves that `facts` printed.
#[allow(
    dead_code,
    reason = "not every test binary plays the oracle's retailer"
)]
pub fn waves(said: &str) -> Vec<Wave> {
    let mut waves: Vec<Wave> = Vec::new();
    for line in said.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        if let Some(at) = line["at"].as_i64() {
            let facts = Vec::new();
            waves.push(Wave { at, facts });
            continue;
        }
        let text = |name: &str| line[name].as_str().expect("a text").to_owned();
        let fact = Told {
            topic: text("topic"),
            key: text("key"),
            value: bytes(&text("value")),
        };
        waves.last_mut().expect("a wave").facts.push(fact);
    }
    waves
}

fn bytes(text: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(pair).collect()
}
