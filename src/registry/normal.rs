//! When two schema texts are the same schema.
//!
//! White space, the order of keys and the way a namespace is written do not matter; everything
//! else does, documentation and defaults included, because a reader of the registry sees them.

use super::RegistryError;
use crate::contract::compatibility;
use apache_avro::Schema;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A schema text that was understood.
pub(super) struct Normal {
    pub schema: Schema,
    /// Equal for texts of the same schema.
    pub form: String,
}

/// Reads a schema.
///
/// # Errors
/// [`RegistryError::InvalidSchema`] with what Avro's rules say against it.
pub(super) fn parse(text: &str) -> Result<Normal, RegistryError> {
    let invalid = |cause: String| RegistryError::InvalidSchema(format!("invalid schema: {cause}"));
    if text.trim().is_empty() {
        return Err(invalid("it is empty".into()));
    }
    let value: Value =
        serde_json::from_str(text).map_err(|e| invalid(format!("it is not JSON: {e}")))?;
    let schema = compatibility::parse(&value).map_err(invalid)?;
    let mut form = String::with_capacity(text.len());
    write_sorted(&normal(&value, ""), &mut form);
    Ok(Normal { schema, form })
}

const PRIMITIVES: [&str; 8] = [
    "null", "boolean", "int", "long", "float", "double", "bytes", "string",
];

fn qualified(name: &str, namespace: &str) -> String {
    if namespace.is_empty() || name.contains('.') {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

/// The schema with names in full, without `namespace`, and primitive types as plain strings.
fn normal(schema: &Value, namespace: &str) -> Value {
    match schema {
        Value::String(name) if PRIMITIVES.contains(&name.as_str()) => schema.clone(),
        Value::String(name) => qualified(name, namespace).into(),
        Value::Array(branches) => branches.iter().map(|b| normal(b, namespace)).collect(),
        Value::Object(object) => normal_object(object, namespace),
        other => other.clone(),
    }
}

fn normal_object(object: &Map<String, Value>, namespace: &str) -> Value {
    let name = object.get("name").and_then(Value::as_str).map(|name| {
        let own = object.get("namespace").and_then(Value::as_str);
        qualified(name, own.unwrap_or(namespace))
    });
    let inner = match &name {
        Some(name) => name.rsplit_once('.').map_or("", |(space, _)| space),
        None => namespace,
    };
    let mut out = Map::new();
    for (key, value) in object {
        let value = match (key.as_str(), value) {
            ("namespace", _) if name.is_some() => continue,
            ("name", value) => name.clone().map_or_else(|| value.clone(), Value::String),
            ("type", Value::String(kind)) if is_kind(kind) => value.clone(),
            ("type" | "items" | "values", value) => normal(value, inner),
            ("fields", Value::Array(fields)) => {
                fields.iter().map(|f| normal_field(f, inner)).collect()
            }
            ("aliases", Value::Array(aliases)) => aliases
                .iter()
                .map(|a| {
                    a.as_str()
                        .map_or_else(|| a.clone(), |a| qualified(a, inner).into())
                })
                .collect(),
            (_, value) => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    match out.remove("type") {
        Some(kind) if out.is_empty() => kind,
        Some(kind) => {
            out.insert("type".into(), kind);
            Value::Object(out)
        }
        None => Value::Object(out),
    }
}

fn is_kind(kind: &str) -> bool {
    matches!(
        kind,
        "record" | "error" | "enum" | "fixed" | "array" | "map"
    ) || PRIMITIVES.contains(&kind)
}

fn normal_field(field: &Value, namespace: &str) -> Value {
    let Value::Object(object) = field else {
        return field.clone();
    };
    object
        .iter()
        .map(|(key, value)| match key.as_str() {
            "type" => (key.clone(), normal(value, namespace)),
            _ => (key.clone(), value.clone()),
        })
        .collect()
}

/// JSON without white space and with sorted keys, whatever order the maps keep.
fn write_sorted(value: &Value, out: &mut String) {
    match value {
        Value::Array(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_sorted(value, out);
            }
            out.push(']');
        }
        Value::Object(object) => {
            out.push('{');
            let sorted: BTreeMap<&String, &Value> = object.iter().collect();
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_sorted(value, out);
            }
            out.push('}');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> String {
        parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).form
    }

    #[test]
    fn layout_and_the_way_of_naming_do_not_matter() {
        let one = form(
            r#"{"type":"record","name":"R","namespace":"a.b","fields":[
                {"name":"x","type":{"type":"enum","name":"E","symbols":["A"]}},
                {"name":"y","type":"E"}, {"name":"z","type":{"type":"string"}}]}"#,
        );
        let two = form(
            r#"{"fields":[{"type":{"symbols":["A"],"name":"a.b.E","type":"enum"},"name":"x"},
                {"name":"y","type":"a.b.E"},{"name":"z","type":"string"}],
                "name":"a.b.R","type":"record"}"#,
        );
        assert_eq!(one, two);
    }

    #[test]
    fn documentation_defaults_and_order_of_fields_matter() {
        let base = r#"{"type":"record","name":"R","fields":[{"name":"x","type":"int"},{"name":"y","type":"int"}]}"#;
        for other in [
            r#"{"type":"record","name":"R","doc":"d","fields":[{"name":"x","type":"int"},{"name":"y","type":"int"}]}"#,
            r#"{"type":"record","name":"R","fields":[{"name":"x","type":"int","default":0},{"name":"y","type":"int"}]}"#,
            r#"{"type":"record","name":"R","fields":[{"name":"y","type":"int"},{"name":"x","type":"int"}]}"#,
        ] {
            assert_ne!(form(base), form(other), "{other}");
        }
    }

    #[test]
    fn what_is_no_schema_is_refused_with_a_reason() {
        for text in [
            "",
            " ",
            "{",
            "null",
            "{}",
            r#""nonsense""#,
            r#"{"type":"record"}"#,
            "[[]]",
            "1",
        ] {
            match parse(text) {
                Err(RegistryError::InvalidSchema(_)) => {}
                Err(other) => panic!("{text}: {other:?}"),
                Ok(normal) => panic!("{text}: {}", normal.form),
            }
        }
    }
}
