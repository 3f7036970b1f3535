//! Judges a configuration against the schemas of its settings: every mistake at once, each with
//! file, line, field, cause and remedy.

use super::schema::{View, kind_in_words};
use super::{Configuration, Secret};
use crate::contract::lint::{Finding, Lines};
use serde_json::Value;
use std::collections::BTreeSet;

/// What is known of the kinds of connectors: the names, and the schema of a kind's settings.
pub struct Kinds<'a> {
    /// Every kind.
    pub names: Vec<&'a str>,
    /// The schema of a kind's settings.
    pub settings: &'a dyn Fn(&str) -> Option<schemars::Schema>,
}

/// Reads a configuration. `file` is its name for people.
///
/// # Errors
/// Every mistake, by line. None repeats a value that could be a secret.
pub fn read(file: &str, text: &str, kinds: &Kinds<'_>) -> Result<Configuration, Vec<Finding>> {
    let finding = |line, field: &str, cause: String, remedy: &str| Finding {
        file: file.to_owned(),
        line,
        field: field.to_owned(),
        cause,
        remedy: remedy.to_owned(),
    };
    let value: Value = match serde_norway::from_str::<Option<Value>>(text) {
        Ok(value) => value.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
        Err(error) => {
            let line = error.location().map_or(1, |l| l.line());
            let cause = format!("it is not YAML: {error}");
            return Err(vec![finding(line, "", cause, "mend the syntax")]);
        }
    };
    let mut linter = Linter {
        file,
        lines: Lines::new(text),
        found: Vec::new(),
    };
    let schema = schemars::schema_for!(Configuration).to_value();
    linter.value(View::root(&schema), &value, "");
    for name in value["log"]["extra"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(n, _)| n)
    {
        if ["password", "secret", "oauthbearer.config", "jaas"]
            .iter()
            .any(|s| name.contains(s))
        {
            let cause = "a secret would stand here itself";
            let remedy =
                "write sasl: {password: …} or tls: {key_password: …} under log, by reference";
            linter.say(&format!("log.extra.{name}"), cause, remedy);
        }
    }
    let mut names = BTreeSet::new();
    let connectors = value["connectors"].as_array().into_iter().flatten();
    for (index, entry) in connectors.enumerate() {
        let path = format!("connectors.{index}");
        let (name, kind) = (entry["name"].as_str(), entry["kind"].as_str());
        if let Some(name) = name.filter(|name| !names.insert(*name)) {
            let cause = format!("two connectors are named {name}");
            linter.say(
                &format!("{path}.name"),
                cause,
                "give each a name of its own",
            );
        }
        let Some(kind) = kind else { continue };
        match (kinds.settings)(kind) {
            Some(schema) => {
                let schema = schema.to_value();
                let settings = &entry["settings"];
                linter.value(View::root(&schema), settings, &format!("{path}.settings"));
            }
            None => {
                let cause = format!("there is no kind {kind}");
                let remedy = one_of(kind, &kinds.names);
                linter.say(&format!("{path}.kind"), cause, remedy);
            }
        }
    }
    if linter.found.is_empty() {
        match serde_json::from_value(value) {
            Ok(configuration) => return Ok(configuration),
            Err(error) => linter.say("", error.to_string(), "correct it"),
        }
    }
    linter.found.sort();
    Err(linter.found)
}

struct Linter<'a> {
    file: &'a str,
    lines: Lines,
    found: Vec<Finding>,
}

impl Linter<'_> {
    fn say(&mut self, field: &str, cause: impl Into<String>, remedy: impl Into<String>) {
        self.found.push(Finding {
            file: self.file.to_owned(),
            line: self.lines.of(field),
            field: field.to_owned(),
            cause: cause.into(),
            remedy: remedy.into(),
        });
    }

    fn value(&mut self, schema: View<'_>, value: &Value, path: &str) {
        let kind = schema.kind();
        let fits = match value {
            Value::Null => schema.is_optional() || kind.is_empty(),
            Value::String(_) => kind == "string",
            Value::Bool(_) => kind == "boolean",
            Value::Number(n) => kind == "number" || kind == "integer" && !n.is_f64(),
            Value::Array(_) => kind == "array",
            Value::Object(_) => kind == "object",
        };
        if !fits && !kind.is_empty() {
            // The value is not repeated: it may be a secret in the wrong place.
            let cause = format!(
                "{} is expected here, and {} stands here",
                kind_in_words(kind),
                kind_in_words(kind_of(value))
            );
            let remedy = match (kind, value) {
                ("string", Value::Number(_) | Value::Bool(_)) => "put it in quotes".to_owned(),
                ("string", _) if !schema.words().is_empty() => {
                    format!("write one of {}", schema.words().join(", "))
                }
                ("object", _) => format!("write {}", names_of(schema)),
                // An element of a map or list may have none.
                _ => match schema.documentation() {
                    none if none.is_empty() => format!("write a {}", kind_in_words(kind)),
                    documentation => documentation,
                },
            };
            return self.say(path, cause, remedy);
        }
        match value {
            Value::String(text) => self.text(schema, text, path),
            Value::Number(number) => {
                let least = schema.minimum().unwrap_or(f64::MIN);
                if number.as_f64().is_some_and(|n| n < least) {
                    let cause = format!("{number} is less than {least}");
                    self.say(path, cause, format!("write {least} or more"));
                }
            }
            Value::Array(all) => {
                for (index, value) in all.iter().enumerate() {
                    if let Some(element) = schema.element() {
                        self.value(element, value, &inner(path, &index.to_string()));
                    }
                }
            }
            Value::Object(all) => self.object(schema, all, path),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn text(&mut self, schema: View<'_>, text: &str, path: &str) {
        let words = schema.words();
        if !words.is_empty() && !words.contains(&text) {
            let cause = format!("{text} is none of the words that can stand here");
            return self.say(path, cause, one_of(text, &words));
        }
        if schema.pattern() == Some(Secret::PATTERN) && !Secret::is_reference(text) {
            let cause = "a secret stands here itself";
            self.say(
                path,
                cause,
                "write ${env:NAME} or ${file:PATH} in its place",
            );
        }
    }

    fn object(&mut self, schema: View<'_>, all: &serde_json::Map<String, Value>, path: &str) {
        let known: Vec<(&str, View<'_>)> = schema.settings().collect();
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        for (name, value) in all {
            let setting = known.iter().find(|(known, _)| known == name);
            let within = inner(path, name);
            match (setting, schema.value()) {
                (Some((_, setting)), _) => self.value(*setting, value, &within),
                (None, Some(free)) => self.value(free, value, &within),
                (None, None) if schema.kind().is_empty() => {}
                (None, None) => {
                    let cause = format!("there is no setting {name}");
                    self.say(&within, cause, one_of(name, &names));
                }
            }
        }
        for (name, setting) in known {
            if schema.requires(name) && !all.contains_key(name) {
                let remedy = format!("give it: {}", setting.documentation());
                self.say(path, format!("{name} is missing"), remedy);
            }
        }
    }
}

fn inner(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn names_of(schema: View<'_>) -> String {
    let names: Vec<&str> = schema.settings().map(|(name, _)| name).collect();
    match names.is_empty() {
        true => "key: value".to_owned(),
        false => format!("key: value with the keys {}", names.join(", ")),
    }
}

/// Names the word that was probably meant, else all of them.
fn one_of(word: &str, words: &[&str]) -> String {
    let close = words
        .iter()
        .map(|known| (strsim::osa_distance(word, known), *known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min();
    match close {
        Some((_, meant)) => format!("write {meant}"),
        None => format!("write one of {}", words.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Shop {
        /// Base URL.
        url: String,
        /// Password.
        password: Secret,
        /// How the shop counts.
        #[serde(default)]
        counting: Option<Counting>,
        /// Calls at a time.
        #[serde(default)]
        calls: u32,
    }

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Counting {
        /// In pieces.
        Pieces,
        /// In boxes.
        Boxes,
    }

    fn mistakes(text: &str) -> Vec<String> {
        let kinds = Kinds {
            names: vec!["shop"],
            settings: &|kind| (kind == "shop").then(|| schemars::schema_for!(Shop)),
        };
        match read("crossdock.yaml", text, &kinds) {
            Ok(_) => Vec::new(),
            Err(found) => found.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_place_cause_and_remedy() {
        let text = "log:\n  bootsrap: here:9092\nlisten: 9000\ntypo: 1\nconnectors:\n  - name: a\n    kind: shop\n    settings:\n      password: hunter2\n      counting: boxs\n      calls: -1\n  - name: a\n    kind: shopp\n    settings: {}\n  - kind: file\n    name: b\n";
        assert_eq!(
            mistakes(text),
            [
                "crossdock.yaml:2: log.bootsrap: there is no setting bootsrap; write bootstrap",
                "crossdock.yaml:3: listen: text is expected here, and whole number stands here; put it in quotes",
                "crossdock.yaml:4: typo: there is no setting typo; write one of connectors, customers, instance, listen, log, registry, state, tasks",
                "crossdock.yaml:9: connectors.0.settings: url is missing; give it: Base URL.",
                "crossdock.yaml:9: connectors.0.settings.password: a secret stands here itself; write ${env:NAME} or ${file:PATH} in its place",
                "crossdock.yaml:10: connectors.0.settings.counting: boxs is none of the words that can stand here; write boxes",
                "crossdock.yaml:11: connectors.0.settings.calls: -1 is less than 0; write 0 or more",
                "crossdock.yaml:12: connectors.1.name: two connectors are named a; give each a name of its own",
                "crossdock.yaml:13: connectors.1.kind: there is no kind shopp; write shop",
                "crossdock.yaml:15: connectors.2: settings is missing; give it: Settings of the kind; `crossdock connectors describe KIND` lists them.",
                "crossdock.yaml:15: connectors.2.kind: there is no kind file; write one of shop",
            ]
        );
    }

    #[test]
    fn what_has_no_documentation_of_its_own_has_a_remedy_all_the_same() {
        assert_eq!(
            mistakes("log: {bootstrap: b, extra: {client.rack: }}"),
            [
                "crossdock.yaml:1: log.extra.client.rack: text is expected here, and nothing stands here; write a text"
            ]
        );
    }

    #[test]
    fn what_is_no_yaml_is_said_with_its_line() {
        let found = mistakes("log:\n  bootstrap: [\n");
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("crossdock.yaml:3: it is not YAML"),
            "{}",
            found[0]
        );
    }

    #[test]
    fn an_empty_file_and_one_without_mistake_are_read() {
        assert_eq!(mistakes(""), Vec::<String>::new());
        let text = "log: {bootstrap: here:9092}\nconnectors:\n  - {name: a, kind: shop, settings: {url: u, password: '${env:NOT_SET}', counting: boxes}}\n";
        assert_eq!(mistakes(text), Vec::<String>::new());
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_repeated() {
        for text in [
            "connectors: [{name: a, kind: shop, settings: {url: {hunter2: 1}, password: 1}}]",
            "connectors: [{name: a, kind: shop, settings: {url: u, password: [hunter2]}}]",
            "connectors: [{name: a, kind: shop, settings: {url: u, password: hunter2}}]",
            "log: {bootstrap: b, extra: {sasl.password: hunter2}}",
            "log: {bootstrap: b, sasl: {mechanism: PLAIN, username: u, password: hunter2}}",
        ] {
            let found = mistakes(text).join("\n");
            assert!(!found.is_empty() && !found.contains("hunter2"), "{found}");
        }
    }
}
