//! A JSON schema as it is derived from a settings struct: what a setting is, in words.

use serde_json::Value;

/// A schema, its references resolved.
#[derive(Clone, Copy)]
pub struct View<'s> {
    root: &'s Value,
    /// As it stands at the setting: it holds the documentation.
    at: &'s Value,
    /// What the setting is.
    is: &'s Value,
}

impl<'s> View<'s> {
    /// The whole schema.
    pub fn root(root: &'s Value) -> Self {
        View::of(root, root)
    }

    fn of(root: &'s Value, at: &'s Value) -> Self {
        let mut is = at;
        // Optional settings stand beside null; documented ones may stand behind a reference.
        while let Some(next) = variants(is, "anyOf")
            .find(|v| v["type"] != "null")
            .or_else(|| variants(is, "allOf").next())
            .or_else(|| root.pointer(is["$ref"].as_str()?.strip_prefix('#')?))
        {
            is = next;
        }
        View { root, at, is }
    }

    /// Whether both are settings of one type.
    pub fn is_same(&self, other: &View<'_>) -> bool {
        std::ptr::eq(self.is, other.is)
    }

    /// The documentation, in one line.
    pub fn documentation(&self) -> String {
        let text = self.at["description"]
            .as_str()
            .or(self.is["description"].as_str());
        let words: Vec<&str> = text.unwrap_or_default().split_whitespace().collect();
        words.join(" ")
    }

    /// Its default, when it has one.
    pub fn default(&self) -> Option<&'s Value> {
        self.at.get("default").filter(|d| !d.is_null())
    }

    /// Its settings by name, when it has some.
    pub fn settings(&self) -> impl Iterator<Item = (&'s str, View<'s>)> + use<'s> {
        let root = self.root;
        let all = self.is["properties"].as_object().into_iter().flatten();
        all.map(move |(name, at)| (name.as_str(), View::of(root, at)))
    }

    /// Whether it must have the setting `name`.
    pub fn requires(&self, name: &str) -> bool {
        let all = self.is["required"].as_array().into_iter().flatten();
        all.into_iter().any(|n| n == name)
    }

    /// The words that it may be; empty when it is no choice of words.
    pub fn words(&self) -> Vec<&'s str> {
        let plain = self.is["enum"].as_array().into_iter().flatten();
        let documented = variants(self.is, "oneOf").flat_map(|v| {
            let own = v["enum"].as_array().into_iter().flatten();
            v.get("const").into_iter().chain(own)
        });
        plain.chain(documented).filter_map(Value::as_str).collect()
    }

    /// What the elements of a list are.
    pub fn element(&self) -> Option<View<'s>> {
        let element = self.is.get("items").filter(|i| i.is_object())?;
        Some(View::of(self.root, element))
    }

    /// What the values are when its keys are free.
    pub fn value(&self) -> Option<View<'s>> {
        let value = self.is.get("additionalProperties")?;
        value.is_object().then(|| View::of(self.root, value))
    }

    /// The pattern of a text.
    pub fn pattern(&self) -> Option<&'s str> {
        self.is["pattern"].as_str()
    }

    /// The least that a number may be.
    pub fn minimum(&self) -> Option<f64> {
        self.is["minimum"].as_f64()
    }

    /// Whether it may be null.
    pub fn is_optional(&self) -> bool {
        let nullable = |v: &Value| {
            v["type"]
                .as_array()
                .is_some_and(|t| t.contains(&"null".into()))
        };
        variants(self.at, "anyOf").any(|v| v["type"] == "null") || nullable(self.at)
    }

    /// Its type in JSON schema's words; empty when it may be anything.
    pub fn kind(&self) -> &'s str {
        match &self.is["type"] {
            Value::String(kind) => kind,
            Value::Array(kinds) => {
                let mut kinds = kinds.iter().filter_map(Value::as_str);
                kinds.find(|k| *k != "null").unwrap_or_default()
            }
            _ if !self.words().is_empty() => "string",
            _ => "",
        }
    }

    /// What it is, for people.
    pub fn words_for_kind(&self) -> String {
        let words = self.words();
        if !words.is_empty() {
            return words.join(" | ");
        }
        match (self.kind(), self.element(), self.value()) {
            ("array", Some(element), _) => format!("list of {}", element.words_for_kind()),
            ("object", _, Some(value)) => format!("map to {}", value.words_for_kind()),
            (kind, ..) => kind_in_words(kind).to_owned(),
        }
    }
}

/// A type of JSON, for people.
pub fn kind_in_words(kind: &str) -> &'static str {
    match kind {
        "string" => "text",
        "integer" => "whole number",
        "number" => "number",
        "boolean" => "true or false",
        "array" => "list",
        "object" => "settings",
        "null" => "nothing",
        _ => "anything",
    }
}

fn variants<'s>(schema: &'s Value, of: &str) -> impl Iterator<Item = &'s Value> + use<'s> {
    schema[of].as_array().into_iter().flatten()
}
