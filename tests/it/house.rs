//! The rules of the house: imports point one way, and the runtime owns no time.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src")
            .join(folder),
    ];
    while let Some(path) = folders.pop() {
        if path.is_dir() {
            folders.extend(
                fs::read_dir(&path)
                    .expect("folder")
                    .map(|e| e.expect("entry").path()),
            );
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("file");
            // What stands in a test module may look anywhere.
            let code = text
                .split("#[cfg(test)]")
                .next()
                .unwrap_or_default()
                .to_owned();
            found.push((path, code));
        }
    }
    assert!(
        !found.is_empty(),
        "src/{folder} has no files: the rule watches nothing"
    );
    found
}

fn modules_used(code: &str) -> Vec<&str> {
    let uses = code.split("crate::").skip(1);
    let mut names: Vec<&str> = uses
        .map(|rest| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap_or_default()
        })
        .collect();
    // `use crate::{a, b::c}`
    for group in code.split("use crate::{").skip(1) {
        let inside = group.split('}').next().unwrap_or_default();
        names.extend(
            inside
                .split(',')
                .map(|part| part.trim().split("::").next().unwrap_or_default()),
        );
    }
    names.retain(|n| !n.is_empty());
    names
}

#[test]
fn imports_point_one_way() {
    // What each part may name, itself included.
    let rules: &[(&str, &[&str])] = &[
        ("domain", &["domain"]),
        ("contract", &["domain", "contract"]),
        ("pipeline", &["domain", "contract", "pipeline"]),
        ("config", &["config", "log", "domain"]),
        ("codec", &["domain", "contract", "pipeline", "codec"]),
        ("log", &["pipeline", "log", "config"]),
        ("state", &["domain", "pipeline", "state"]),
        (
            "runtime",
            &[
                "domain",
                "contract",
                "pipeline",
                "codec",
                "log",
                "state",
                "telemetry",
                "runtime",
            ],
        ),
        (
            "processors",
            &["domain", "contract", "pipeline", "processors"],
        ),
        (
            "connectors",
            &["domain", "contract", "pipeline", "config", "connectors"],
        ),
    ];
    let mut wrong = Vec::new();
    for (part, allowed) in rules {
        for (path, code) in sources(part) {
            for module in modules_used(&code) {
                if !allowed.contains(&module) {
                    wrong.push(format!("{}: {part} must not name {module}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_kafka_adapter_names_rdkafka() {
    for (path, code) in sources("") {
        let adapter = path.components().any(|c| c.as_os_str() == "kafka");
        assert!(
            adapter || !code.contains("rdkafka::"),
            "{} names rdkafka",
            path.display()
        );
    }
}

#[test]
fn runtime_and_processors_own_no_time_threads_or_chance() {
    let forbidden = [
        "SystemTime",
        "Instant::",
        "thread::",
        "rand::",
        "RandomState",
        "HashMap::new()",
        "SystemClock",
    ];
    for part in ["runtime", "processors", "domain"] {
        for (path, code) in sources(part) {
            if path.ends_with("runtime/service.rs") {
                continue;
            }
            for name in forbidden {
                assert!(!code.contains(name), "{} names {name}", path.display());
            }
        }
    }
}
