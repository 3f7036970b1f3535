//! The oracle, `tests/oracle/*.py`, judges what the processors make of a small retailer's facts, and is
//! shown to be able to judge otherwise: what came out is spoilt in one way after another, and each
//! defect is caught by the invariant that must catch it.

#[path = "../support/oracle.rs"]
mod oracle;
#[path = "../it/world.rs"]
#[allow(dead_code, reason = "it does more than these tests need")]
mod world;

use crossdock::contract::event::Event;
use crossdock::log::Admin;
use crossdock::pipeline::Record;
use crossdock::processors;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use world::World;

#[test]
fn the_invariants_hold_and_each_defect_is_caught_by_the_one_that_must() {
    let Some(mut asked) = oracle::command() else {
        return;
    };
    let own = tempfile::tempdir().expect("a folder");
    // Where to keep what was judged, to look at it.
    let kept = std::env::var_os("CROSSDOCK_ORACLE_KEEP").map(PathBuf::from);
    let folder = kept.unwrap_or_else(|| own.path().to_owned());
    let [ledgers, dump, schemas] =
        ["ledgers", "dump.jsonl", "schemas.jsonl"].map(|name| folder.join(name));
    std::fs::write(&schemas, registry().join("\n")).expect("written");
    asked.arg("facts").arg("--schemas").arg(&schemas);
    asked.arg("--ledgers").arg(&ledgers);
    trade(&oracle::said(asked), &dump);
    for command in ["judge", "defects"] {
        let mut asked = oracle::command().expect("as before");
        asked.arg(command).arg("--dump").arg(&dump);
        asked.arg("--ledgers").arg(&ledgers);
        println!("{}", oracle::said(asked));
    }
}

/// The compiled contracts as records of a registry's topic.
fn registry() -> Vec<String> {
    let contracts = Event::CONTRACTS.iter().enumerate();
    contracts
        .map(|(id, (_, schema))| json!({"id": id, "schema": schema}).to_string())
        .collect()
}

/// Every processor deals with each wave of the facts, and with what only time brings; then what is in
/// the log is written to `dump`.
fn trade(facts: &str, dump: &Path) {
    let world = World::new();
    let mut tasks: Vec<_> = processors::ALL
        .iter()
        .map(|p| world.task(p.descriptor.name, "one"))
        .collect();
    let mut settle = |world: &World| world.settle(&mut tasks.iter_mut().collect::<Vec<_>>());
    settle(&world);
    for wave in oracle::waves(facts) {
        world.clock.0.fetch_max(wave.at, Ordering::SeqCst);
        for fact in wave.facts {
            world.send_raw(&fact.topic, Some(fact.key.as_bytes()), Some(&fact.value));
        }
        settle(&world);
    }
    save(&world, dump);
}

fn save(world: &World, path: &Path) {
    let mut text = String::new();
    for (offset, line) in registry().iter().enumerate() {
        let record = json!({"topic": "retail.rt.registry.v1", "partition": 0, "offset": offset, "key": null, "value": hex(line.as_bytes())});
        let _ = writeln!(text, "{record}");
    }
    for topic in world.log.topics().expect("topics") {
        for record in world.records(&topic.name) {
            let _ = writeln!(text, "{}", line(&record));
        }
    }
    std::fs::write(path, text).expect("written");
}

fn line(record: &Record) -> Value {
    json!({
        "topic": record.origin.topic.as_ref(),
        "partition": record.origin.partition,
        "offset": record.origin.offset,
        "key": record.key.as_deref().map(hex),
        "value": record.value.as_deref().map(hex),
    })
}

fn hex(data: &[u8]) -> String {
    data.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
