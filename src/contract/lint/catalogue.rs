//! Rules for `topics.yaml`.

use super::lines::Lines;
use super::schemas::Contract;
use super::{Finding, PII, Reporter, Source, pii_rank};
use crate::contract::SINKS;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

const TOPIC_KEYS: [&str; 9] = [
    "name",
    "contract",
    "status",
    "family",
    "cleanup",
    "retention",
    "owner",
    "class",
    "pii",
];
const READER_KINDS: [&str; 5] = ["dead_letter", "inbox", "park", "receipt", "state"];

/// Judges the catalogue against the contracts that there are.
pub(super) fn lint(
    source: &Source,
    contracts: &BTreeMap<String, Contract>,
    readers: &[&str],
    found: &mut Vec<Finding>,
) {
    let catalogue: Value = match serde_norway::from_str(&source.text) {
        Ok(catalogue) => catalogue,
        Err(error) => {
            found.push(Finding {
                file: source.path.clone(),
                line: error.location().map_or(1, |l| l.line()),
                field: String::new(),
                cause: format!("it is not YAML: {error}"),
                remedy: "mend the syntax".into(),
            });
            return;
        }
    };
    let mut linter = Linter {
        report: Reporter {
            file: &source.path,
            lines: Lines::new(&source.text),
            found,
        },
        contracts,
        readers,
    };
    let Some(top) = linter.object(&catalogue, "") else {
        return;
    };
    let keys = ["defaults", "families", "topics", "per_reader"];
    linter.keys(top, "", &keys, &[]);
    linter.defaults(&catalogue["defaults"]);
    let families = linter.families(&catalogue["families"]);
    linter.topics(&catalogue["topics"], &families);
    linter.per_reader(&catalogue["per_reader"]);
}

struct Linter<'a> {
    report: Reporter<'a>,
    contracts: &'a BTreeMap<String, Contract>,
    readers: &'a [&'a str],
}

impl Linter<'_> {
    fn object<'v>(&mut self, value: &'v Value, path: &str) -> Option<&'v Map<String, Value>> {
        let object = value.as_object();
        if object.is_none() {
            self.report.at(
                path,
                "keys with values are expected here",
                "write key: value",
            );
        }
        object
    }

    fn keys(
        &mut self,
        object: &Map<String, Value>,
        path: &str,
        required: &[&str],
        optional: &[&str],
    ) {
        for key in object.keys() {
            if !required.contains(&key.as_str()) && !optional.contains(&key.as_str()) {
                let known = [required, optional].concat().join(", ");
                self.report.at(
                    &join(path, key),
                    format!("{key} is unknown here"),
                    format!("remove it, or write one of {known}"),
                );
            }
        }
        for key in required.iter().filter(|k| !object.contains_key(**k)) {
            self.report
                .at(path, format!("{key} is missing"), format!("add {key}:"));
        }
    }

    /// The text under `key`, which must be one of `allowed`.
    fn one_of(&mut self, object: &Map<String, Value>, path: &str, key: &str, allowed: &[&str]) {
        let Some(value) = object.get(key) else {
            return;
        };
        if !value.as_str().is_some_and(|v| allowed.contains(&v)) {
            self.report.at(
                &join(path, key),
                format!("{value} is not a {key}"),
                format!("write one of {}", allowed.join(", ")),
            );
        }
    }

    fn defaults(&mut self, value: &Value) {
        let Some(object) = self.object(value, "defaults") else {
            return;
        };
        self.keys(object, "defaults", &["max_message_bytes"], &[]);
        if object
            .get("max_message_bytes")
            .is_some_and(|v| v.as_u64().is_none_or(|n| n == 0))
        {
            self.report.at(
                "defaults.max_message_bytes",
                "it is not a number of bytes",
                "write a number above zero",
            );
        }
    }

    /// Names of the families.
    fn families(&mut self, value: &Value) -> BTreeSet<String> {
        let Some(families) = self.object(value, "families") else {
            return BTreeSet::new();
        };
        for (name, family) in families {
            let path = join("families", name);
            let Some(object) = self.object(family, &path) else {
                continue;
            };
            self.keys(object, &path, &["key", "partitions"], &[]);
            let key = object
                .get("key")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let is_template = key
                .split('|')
                .all(|part| part.len() > 2 && part.starts_with('{') && part.ends_with('}'));
            if !is_template {
                self.report.at(
                    &join(&path, "key"),
                    "it is no template of a key",
                    "write field names in braces, joined by |: \"{sku}|{locationId}\"",
                );
            }
            let path = join(&path, "partitions");
            let Some(partitions) = object.get("partitions").and_then(|p| self.object(p, &path))
            else {
                continue;
            };
            self.keys(partitions, &path, &["S", "M", "L"], &[]);
            for (tier, count) in partitions {
                if !count.as_u64().is_some_and(|n| (1..=10_000).contains(&n)) {
                    self.report.at(
                        &join(&path, tier),
                        format!("{count} is not a number of partitions"),
                        "write a number from 1",
                    );
                }
            }
        }
        families.keys().cloned().collect()
    }

    fn topics(&mut self, value: &Value, families: &BTreeSet<String>) {
        let Some(topics) = value.as_array() else {
            self.report.at(
                "topics",
                "a list is expected here",
                "write - name: … for each topic",
            );
            return;
        };
        let mut names = BTreeSet::new();
        for (index, topic) in topics.iter().enumerate() {
            let path = format!("topics.{index}");
            let Some(object) = self.object(topic, &path) else {
                continue;
            };
            self.keys(
                object,
                &path,
                &[&TOPIC_KEYS[..], &["readers"]].concat(),
                &["compaction_hours_max"],
            );
            let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
            let name = text("name");
            if !names.insert(name) {
                self.report.at(
                    &join(&path, "name"),
                    format!("{name} stands twice"),
                    "keep one of them",
                );
            }
            self.name(name, &join(&path, "name"));
            self.kept(object, &path);
            if object.contains_key("family") && !families.contains(text("family")) {
                self.report.at(
                    &join(&path, "family"),
                    format!("there is no family {}", text("family")),
                    "add it to families:, or write one that is there",
                );
            }
            self.one_of(object, &path, "class", &["P0", "P1", "P2", "P3"]);
            self.one_of(object, &path, "pii", &PII);
            let contract = self.contract(object, &path);
            if let (Some(contract), Some(rank)) = (contract, pii_rank(text("pii")))
                && rank < contract
            {
                self.report.at(
                    &join(&path, "pii"),
                    format!("the contract has personal data tagged {}", PII[contract]),
                    format!("write pii: {}", PII[contract]),
                );
            }
            self.read_by(object.get("readers"), &join(&path, "readers"));
        }
    }

    fn name(&mut self, name: &str, path: &str) {
        let is_versioned = name
            .rsplit_once(".v")
            .is_some_and(|(_, v)| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()));
        let is_plain = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'));
        if !name.starts_with("retail.") || !is_versioned || !is_plain {
            self.report.at(
                path,
                format!("{name:?} is no name of a topic"),
                "write retail.<domain>.<fact>.v<N> in lower case",
            );
        }
    }

    /// Status, cleanup and retention.
    fn kept(&mut self, object: &Map<String, Value>, path: &str) {
        self.one_of(object, path, "status", &["draft", "published"]);
        self.one_of(
            object,
            path,
            "cleanup",
            &["delete", "compact", "compact,delete"],
        );
        let Some(retention) = object.get("retention") else {
            return;
        };
        let text = retention.as_str().unwrap_or_default();
        let is_days = text
            .strip_suffix('d')
            .is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n > 0));
        let at = join(path, "retention");
        if !is_days && text != "forever" {
            self.report.at(
                &at,
                format!("{retention} is no retention"),
                "write a number of days such as 7d, or forever",
            );
        } else if object.get("cleanup").is_some_and(|c| c == "compact") && is_days {
            self.report.at(
                &at,
                "a compacted topic deletes nothing by age",
                "write forever, or cleanup: \"compact,delete\"",
            );
        }
    }

    /// Rank of the contract's highest tag of personal data.
    fn contract(&mut self, object: &Map<String, Value>, path: &str) -> Option<usize> {
        let name = object.get("contract")?.as_str().unwrap_or_default();
        let contract = self.contracts.get(name).map(|c| c.pii);
        if contract.is_none() {
            self.report.at(
                &join(path, "contract"),
                format!("no schema defines {name:?}"),
                "add its file under schemas/, or write the full name of one that is there",
            );
        }
        contract
    }

    fn read_by(&mut self, readers: Option<&Value>, path: &str) {
        let Some(readers) = readers else {
            return;
        };
        let Some(all) = readers.as_array() else {
            self.report.at(
                path,
                "a list is expected here",
                "write [], or a list of readers",
            );
            return;
        };
        for (index, reader) in all.iter().enumerate() {
            let path = join(path, &index.to_string());
            let Some(object) = self.object(reader, &path) else {
                continue;
            };
            self.keys(object, &path, &["reader", "on_reject"], &[]);
            self.one_of(object, &path, "on_reject", &["continue", "block_key"]);
            let known = [self.readers, &[SINKS]].concat();
            self.one_of(object, &path, "reader", &known);
        }
    }

    fn per_reader(&mut self, value: &Value) {
        let Some(kinds) = self.object(value, "per_reader") else {
            return;
        };
        self.keys(kinds, "per_reader", &READER_KINDS, &[]);
        for (kind, topic) in kinds {
            let path = join("per_reader", kind);
            let Some(object) = self.object(topic, &path) else {
                continue;
            };
            let required = ["name", "status", "cleanup", "retention", "size_factor"];
            self.keys(object, &path, &required, &["contract"]);
            self.kept(object, &path);
            self.contract(object, &path);
            let name = object
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if name.matches("{reader}").count() == 1 {
                self.name(&name.replace("{reader}", "reader"), &join(&path, "name"));
            } else {
                self.report.at(
                    &join(&path, "name"),
                    "the reader's name must stand in it once",
                    "write {reader} where it belongs",
                );
            }
            if object
                .get("size_factor")
                .is_some_and(|v| v.as_u64().is_none_or(|n| n == 0))
            {
                self.report.at(
                    &join(&path, "size_factor"),
                    "it is not a factor",
                    "write a number from 1",
                );
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
