//! Published contracts are frozen: their schemas by digest, their bytes by example.
//!
//! With `CROSSDOCK_GOLDEN=write` what is missing is written; what is there is never written again.

use crate::{schema, values, write};
use crossdock::contract::event::Event;
use crossdock::contract::lint::digest;
use crossdock::contract::{Catalogue, Status};
use crossdock::{connectors, processors};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn published() -> Vec<(&'static str, &'static str)> {
    let catalogue = Catalogue::compiled();
    let mut names: BTreeSet<&str> = catalogue
        .topics()
        .iter()
        .filter(|t| t.status == Status::Published)
        .map(|t| t.contract.as_str())
        .collect();
    // The topics of each reader are published with it.
    names.extend([
        "retail.ops.v1.DeadLetter",
        "retail.ops.v1.Delivery",
        "retail.ops.v1.SinkReceipt",
    ]);
    Event::CONTRACTS
        .iter()
        .copied()
        .filter(|(name, _)| names.contains(name))
        .collect()
}

fn file(name: &str, ending: &str) -> PathBuf {
    let short = name.rsplit('.').next().expect("a name");
    let folders =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")).expect("schemas");
    let mut folders = folders.map(|e| e.expect("entry").path());
    let folder = folders
        .find(|f| f.join(format!("{short}.v1.avsc")).is_file())
        .expect("the schema's folder");
    folder.join(format!("{short}.v1.{ending}"))
}

fn held(path: &Path, make: impl FnOnce() -> String) -> String {
    if !path.exists() && std::env::var("CROSSDOCK_GOLDEN").is_ok_and(|v| v == "write") {
        fs::write(path, make()).expect("written");
    }
    fs::read_to_string(path).unwrap_or_else(|e| {
        panic!(
            "{}: {e}; CROSSDOCK_GOLDEN=write makes it for a contract that is published now",
            path.display()
        )
    })
}

#[test]
fn golden_bytes_decode_for_ever() {
    let mut seen = 0;
    for (name, text) in published() {
        let schema = schema(text);
        let seed = (0..)
            .find(|s| {
                !values::has_wide_map(&values::value(&schema, &mut StdRng::seed_from_u64(*s), 0))
            })
            .expect("a seed");
        let sample = || {
            write(
                &schema,
                values::value(&schema, &mut StdRng::seed_from_u64(seed), 0),
            )
        };
        let hex = held(&file(name, "golden"), || {
            sample()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<String>()
                + "\n"
        });
        let bytes: Vec<u8> = (0..hex.trim().len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex"))
            .collect();
        let event = Event::decode(name, &mut &bytes[..])
            .expect("compiled in")
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let json = serde_json::to_string_pretty(&event).expect("JSON") + "\n";
        assert_eq!(
            json,
            held(&file(name, "golden.json"), || json.clone()),
            "{name}: the golden bytes mean something else"
        );
        seen += 1;
    }
    assert!(seen >= 17, "{seen} published contracts");
}

#[test]
fn a_published_schema_never_changes() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/published.lock");
    let lines = || {
        published()
            .iter()
            .map(|(name, text)| format!("{name} v1 {}\n", digest(text)))
            .collect::<String>()
    };
    let held = held(&lock, lines);
    for line in held.lines() {
        assert!(
            lines().contains(line),
            "{line}: the schema has changed or is no longer published; add a new version instead"
        );
    }
    assert_eq!(
        held.lines().count(),
        published().len(),
        "a contract was published: add its line to schemas/published.lock"
    );
}

#[test]
fn what_processors_and_connectors_read_and_write_is_published() {
    let catalogue = Catalogue::compiled();
    let of_processors = processors::ALL.iter().flat_map(|p| {
        let d = p.descriptor;
        [d.inputs, d.tables, d.outputs].concat()
    });
    let of_connectors = connectors::ALL
        .iter()
        .flat_map(|c| [c.emits, c.accepts].concat());
    let used: BTreeSet<&str> = of_processors.chain(of_connectors).collect();
    let mut seen = 0;
    for topic in catalogue.topics() {
        if used.contains(topic.name.as_str()) {
            assert_eq!(
                topic.status,
                Status::Published,
                "{}: a schema that is no more than a draft is not registered",
                topic.name
            );
            seen += 1;
        }
    }
    assert!(seen >= 30, "{seen} topics of {}", used.len());
}
