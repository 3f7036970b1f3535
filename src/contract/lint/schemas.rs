//! Rules for schema files (DOMAIN.md §2).

use super::lines::Lines;
use super::{Finding, Reporter, Source, pii_rank};
use crate::contract::compatibility;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What a schema declares, for the rules of the catalogue.
pub(super) struct Contract {
    /// Rank of the highest tag of personal data in any version.
    pub pii: usize,
}

/// A file that could be read.
struct Version<'a> {
    source: &'a Source,
    number: u32,
    schema: apache_avro::Schema,
}

const EVENT_META: &str = "retail.common.v1.EventMeta";

/// Judges every file, and gives the contracts by full name.
pub(super) fn lint(sources: &[Source], found: &mut Vec<Finding>) -> BTreeMap<String, Contract> {
    let mut contracts: BTreeMap<String, Contract> = BTreeMap::new();
    let mut versions: BTreeMap<String, Vec<Version<'_>>> = BTreeMap::new();
    // Shape of each named type, and where it was seen first.
    let mut types: BTreeMap<String, (Value, String)> = BTreeMap::new();
    for source in sources {
        let schema: Value = match serde_json::from_str(&source.text) {
            Ok(schema) => schema,
            Err(error) => {
                found.push(Finding {
                    file: source.path.clone(),
                    line: error.line().max(1),
                    field: String::new(),
                    cause: format!("it is not JSON: {error}"),
                    remedy: "mend the syntax".into(),
                });
                continue;
            }
        };
        let mut file = File {
            report: Reporter {
                file: &source.path,
                lines: Lines::new(&source.text),
                found,
            },
            types: &mut types,
            pii: 0,
        };
        let number = file.name_and_place(&schema);
        file.first_field(&schema);
        file.walk(&schema, "", "");
        let pii = file.pii;
        let name = full_name(&schema, "");
        match compatibility::parse(&schema) {
            Ok(schema) => {
                let contract = contracts.entry(name.clone()).or_insert(Contract { pii });
                contract.pii = contract.pii.max(pii);
                versions
                    .entry(name)
                    .or_default()
                    .extend(number.map(|number| Version {
                        source,
                        number,
                        schema,
                    }));
            }
            Err(error) => file.report.at(
                "",
                format!("it is not an Avro schema: {error}"),
                "follow https://avro.apache.org/docs/1.12.0/specification",
            ),
        }
    }
    for all in versions.values_mut() {
        all.sort_by_key(|v| v.number);
        follow_one_another(all, found);
    }
    contracts
}

/// Versions are counted from 1 without gaps, and each reads each.
fn follow_one_another(versions: &[Version<'_>], found: &mut Vec<Finding>) {
    let mut finding = |version: &Version<'_>, cause: String, remedy: &str| {
        found.push(Finding {
            file: version.source.path.clone(),
            line: 1,
            field: String::new(),
            cause,
            remedy: remedy.to_owned(),
        });
    };
    for (index, new) in versions.iter().enumerate() {
        let expected = index as u32 + 1;
        if new.number != expected {
            finding(
                new,
                format!("version {expected} is missing or stands twice"),
                "number the versions of a contract from 1 without gaps",
            );
        }
        for old in &versions[..index] {
            let cannot = |reader: u32, writer: u32, what: &String| {
                format!("version {reader} cannot read what version {writer} wrote: {what}")
            };
            let breaks = compatibility::breaks(&old.schema, &new.schema);
            let forward = compatibility::breaks(&new.schema, &old.schema);
            let all = breaks
                .iter()
                .map(|b| cannot(new.number, old.number, b))
                .chain(forward.iter().map(|b| cannot(old.number, new.number, b)));
            for cause in all {
                finding(
                    new,
                    cause,
                    "add fields with defaults and symbols to enums only, or make a new contract with a topic of its own",
                );
            }
        }
    }
}

struct File<'a> {
    report: Reporter<'a>,
    types: &'a mut BTreeMap<String, (Value, String)>,
    pii: usize,
}

impl File<'_> {
    /// `schemas/<domain>/<Name>.v<N>.avsc` holds the record `<Name>`. Gives N.
    fn name_and_place(&mut self, schema: &Value) -> Option<u32> {
        let file = self.report.file.rsplit('/').next().unwrap_or_default();
        let parts = file
            .strip_suffix(".avsc")
            .and_then(|stem| stem.rsplit_once(".v"))
            .and_then(|(name, number)| Some((name.to_owned(), number.parse::<u32>().ok()?)));
        let Some((name, number)) = parts else {
            self.report.at(
                "",
                format!("{file} names no contract and version"),
                "name the file <Name>.v<N>.avsc",
            );
            return None;
        };
        if schema["type"] != "record" {
            self.report.at(
                "type",
                "a contract is a record",
                "write \"type\": \"record\"",
            );
        }
        if schema["name"] != name.as_str() {
            self.report.at(
                "name",
                format!("the record is named {}, the file {name}", schema["name"]),
                "give both one name",
            );
        }
        if !schema["namespace"]
            .as_str()
            .is_some_and(|n| n.starts_with("retail."))
        {
            self.report.at(
                "namespace",
                "the namespace is missing or not in retail.*",
                "write the domain's, such as retail.stock.v1",
            );
        }
        Some(number)
    }

    fn first_field(&mut self, schema: &Value) {
        let first = &schema["fields"][0];
        let kind = match &first["type"] {
            Value::String(name) => name.clone(),
            definition => full_name(definition, ""),
        };
        if first["name"] != "meta" || kind != EVENT_META {
            self.report.at(
                "fields.0",
                "a contract begins with what every event begins with",
                format!("make {EVENT_META} the first field, named meta"),
            );
        }
    }

    fn walk(&mut self, schema: &Value, path: &str, namespace: &str) {
        let inner = |key: &str| match path {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        match schema {
            Value::String(name) if name == "float" => self.report.at(
                path,
                "float holds seven digits",
                "use double for measures, bytes with decimal(18,4) for money and quantities",
            ),
            Value::Array(branches) => {
                for (index, branch) in branches.iter().enumerate() {
                    self.walk(branch, &inner(&index.to_string()), namespace);
                }
            }
            Value::Object(object) => {
                let name = full_name(schema, namespace);
                let inside = name.rsplit_once('.').map_or(namespace, |(n, _)| n);
                self.keys(
                    object,
                    path,
                    &[
                        "type",
                        "name",
                        "namespace",
                        "doc",
                        "fields",
                        "symbols",
                        "default",
                        "items",
                        "values",
                        "size",
                        "logicalType",
                        "precision",
                        "scale",
                    ],
                );
                match object.get("type").and_then(Value::as_str) {
                    Some("record") => {
                        self.same_everywhere(&name, schema, path);
                        let fields = object.get("fields").and_then(Value::as_array);
                        for (index, field) in fields.into_iter().flatten().enumerate() {
                            self.field(field, &inner(&format!("fields.{index}")), inside);
                        }
                    }
                    Some("enum") => {
                        self.same_everywhere(&name, schema, path);
                        if schema["symbols"][0] != "UNKNOWN" || schema["default"] != "UNKNOWN" {
                            self.report.at(
                                path,
                                format!("{name} cannot be extended: old readers would fail on a new symbol"),
                                "put UNKNOWN first and write \"default\": \"UNKNOWN\" in the enum itself",
                            );
                        }
                    }
                    Some("array") => self.walk(&schema["items"], &inner("items"), namespace),
                    Some("map") => self.walk(&schema["values"], &inner("values"), namespace),
                    Some(kind) => self.plain(kind, object, path),
                    None => self.walk(&schema["type"], &inner("type"), namespace),
                }
            }
            _ => {}
        }
    }

    fn field(&mut self, field: &Value, path: &str, namespace: &str) {
        let Value::Object(object) = field else {
            return;
        };
        self.keys(
            object,
            path,
            &["name", "type", "default", "doc", "pii", "confluent:tags"],
        );
        if let Value::Array(branches) = &field["type"] {
            let is_optional = branches.len() == 2 && branches[0] == "null";
            if !is_optional || object.get("default") != Some(&Value::Null) {
                self.report.at(
                    path,
                    "a union says only that a value may be missing",
                    "write [\"null\", T] with default null",
                );
            }
        }
        if let Some(tag) = object.get("pii") {
            match tag.as_str().and_then(pii_rank).filter(|rank| *rank > 0) {
                Some(rank) => self.pii = self.pii.max(rank),
                None => self.report.at(
                    &format!("{path}.pii"),
                    format!("{tag} is no tag of personal data"),
                    "write DIRECT, INDIRECT or FINANCIAL",
                ),
            }
            let expected = format!("PII_{}", tag.as_str().unwrap_or_default());
            if field["confluent:tags"][0] != expected.as_str() {
                self.report.at(
                    &format!("{path}.confluent:tags"),
                    "the tag for Confluent's tools differs from pii",
                    format!("write \"confluent:tags\": [{expected:?}]"),
                );
            }
        }
        self.walk(&field["type"], &format!("{path}.type"), namespace);
    }

    fn plain(&mut self, kind: &str, object: &Map<String, Value>, path: &str) {
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let number = |key: &str| object.get(key).and_then(Value::as_u64);
        let is_known = match (kind, text("logicalType")) {
            (_, None) => true,
            ("bytes", Some("decimal")) => {
                number("precision") == Some(18) && matches!(number("scale"), Some(4 | 8))
            }
            ("long", Some("timestamp-micros"))
            | ("int", Some("date"))
            | ("string", Some("uuid")) => true,
            _ => false,
        };
        if !is_known {
            self.report.at(
                path,
                "no Rust type stands for this logical type",
                "use bytes with decimal(18,4) or, for rates, (18,8); long with timestamp-micros; int with date; string with uuid",
            );
        }
        if kind == "float" {
            self.walk(&Value::from("float"), path, "");
        }
    }

    fn keys(&mut self, object: &Map<String, Value>, path: &str, known: &[&str]) {
        for key in object.keys().filter(|k| !known.contains(&k.as_str())) {
            let at = match path {
                "" => key.clone(),
                path => format!("{path}.{key}"),
            };
            let remedy = match key.as_str() {
                "aliases" => {
                    "remove it: not every reader honours aliases; add a field beside the old one"
                        .to_owned()
                }
                _ => format!("remove it, or write one of {}", known.join(", ")),
            };
            self.report
                .at(&at, format!("{key} is unknown here"), remedy);
        }
    }

    /// A type that stands in several files becomes one Rust type.
    fn same_everywhere(&mut self, name: &str, schema: &Value, path: &str) {
        let shape = shape(schema, true);
        let file = self.report.file.to_owned();
        match self.types.get(name) {
            None => {
                self.types.insert(name.to_owned(), (shape, file));
            }
            // Another version of the same contract may have more fields.
            Some((_, first)) if stem(first) == stem(&file) => {}
            Some((known, first)) if *known != shape => {
                let cause = format!("{name} is defined otherwise in {first}");
                self.report
                    .at(path, cause, "make both definitions the same, or rename one");
            }
            Some(_) => {}
        }
    }
}

/// Path of a file without its version.
fn stem(path: &str) -> &str {
    path.strip_suffix(".avsc")
        .and_then(|p| p.rsplit_once(".v"))
        .map_or(path, |(stem, _)| stem)
}

fn full_name(schema: &Value, namespace: &str) -> String {
    let name = schema["name"].as_str().unwrap_or_default();
    let own = schema["namespace"].as_str().unwrap_or(namespace);
    if name.contains('.') || own.is_empty() {
        name.to_owned()
    } else {
        format!("{own}.{name}")
    }
}

/// A definition without documentation, and with short names in place of the definitions inside it:
/// a type may be spelled out in one file and named in another.
fn shape(schema: &Value, is_top: bool) -> Value {
    match schema {
        Value::String(name) => name.rsplit('.').next().unwrap_or(name).into(),
        Value::Object(object) => {
            let is_named = object.contains_key("name")
                && object
                    .get("type")
                    .is_some_and(|t| t == "record" || t == "enum");
            if is_named && !is_top {
                return object["name"].clone();
            }
            object
                .iter()
                .filter(|(key, _)| !matches!(key.as_str(), "doc" | "namespace"))
                .map(|(key, value)| {
                    let is_type = matches!(key.as_str(), "type" | "items" | "values" | "fields");
                    let value = if is_type {
                        shape(value, false)
                    } else {
                        value.clone()
                    };
                    (key.clone(), value)
                })
                .collect()
        }
        Value::Array(all) => all.iter().map(|v| shape(v, false)).collect(),
        other => other.clone(),
    }
}
