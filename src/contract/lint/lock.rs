//! Rules for `schemas/published.lock`: what was published stays as it is.
//!
//! A line is a contract's full name, its version and a digest of the schema file.

use super::{Finding, Reporter, Source, lines::Lines};
use crate::domain::NAMESPACE;
use serde_json::Value;
use std::collections::BTreeSet;
use uuid::Uuid;

/// The digest of a schema file.
pub fn digest(text: &str) -> String {
    Uuid::new_v5(&NAMESPACE, text.as_bytes()).to_string()
}

/// Holds the schemas against the lock, and the lock against what the catalogue says is published.
pub(super) fn lint(lock: &Source, schemas: &[Source], topics: &Source, found: &mut Vec<Finding>) {
    let mut held = BTreeSet::new();
    for (index, line) in lock.text.lines().enumerate() {
        let mut at = |file: &str, line: usize, cause: String, remedy: &str| {
            found.push(Finding {
                file: file.to_owned(),
                line,
                field: String::new(),
                cause,
                remedy: remedy.to_owned(),
            });
        };
        let parts: Vec<&str> = line.split_whitespace().collect();
        let &[name, version, published] = parts.as_slice() else {
            let cause = format!("{line:?} is no line of the lock");
            at(
                &lock.path,
                index + 1,
                cause,
                "restore it: NAME VERSION DIGEST",
            );
            continue;
        };
        held.insert(name.to_owned());
        let short = name.rsplit('.').next().unwrap_or(name);
        let file = format!("/{short}.{version}.avsc");
        match schemas.iter().find(|s| s.path.ends_with(&file)) {
            None => at(
                &lock.path,
                index + 1,
                format!("{name} {version} is published, and its file is gone"),
                "bring it back: records of it stay in the log",
            ),
            Some(schema) if digest(&schema.text) != published => at(
                &schema.path,
                1,
                format!("{name} {version} is published and has changed"),
                "take the change back, and write it into a file of the next version",
            ),
            Some(_) => {}
        }
    }
    let Ok(catalogue) = serde_norway::from_str::<Value>(&topics.text) else {
        return;
    };
    let mut report = Reporter {
        file: &topics.path,
        lines: Lines::new(&topics.text),
        found,
    };
    let listed = catalogue["topics"].as_array().into_iter().flatten();
    let listed = listed
        .enumerate()
        .map(|(n, topic)| (format!("topics.{n}"), topic));
    let per_reader = catalogue["per_reader"].as_object().into_iter().flatten();
    let per_reader = per_reader.map(|(kind, topic)| (format!("per_reader.{kind}"), topic));
    for (path, topic) in listed.chain(per_reader) {
        let Some(name) = topic["contract"].as_str() else {
            continue;
        };
        if topic["status"] != "published" || !held.insert(name.to_owned()) {
            continue;
        }
        let short = name.rsplit('.').next().unwrap_or(name);
        let file = format!("/{short}.v1.avsc");
        if let Some(schema) = schemas.iter().find(|s| s.path.ends_with(&file)) {
            report.at(
                &format!("{path}.status"),
                format!("{name} is published, and {} does not hold it", lock.path),
                format!("add the line {name} v1 {}", digest(&schema.text)),
            );
        }
    }
}
