//! Decoding by Avro's schema resolution, with apache-avro.
//!
//! Resolution runs on schemas without logical types: apache-avro 0.22 refuses decimals that are
//! shorter than their precision when it resolves. The resolved value is written again with the
//! compiled schema, in which a decimal's bytes are the same, and the generated code reads that.
//! Whether a writer's schema can be read at all is judged on the whole schemas, by the rules by
//! which it was let into the registry ([`compatibility`]).

use crate::contract::compatibility;
use crate::contract::event::Event;
use crate::pipeline::Code;
use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde_json::Value;

/// Turns bytes of one writer's schema into bytes of the compiled schema.
pub(super) struct Resolver {
    writer: Schema,
    reader: Schema,
}

/// Why bytes or a schema cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("it is not an Avro schema: {0}")]
    NotASchema(String),
    #[error("it is of the record {0}, which this build has no contract for")]
    UnknownContract(String),
    #[error("this build cannot read every value of it: {0}")]
    Incompatible(String),
    #[error("{0}")]
    Malformed(String),
}

impl ResolveError {
    pub fn code(&self) -> Code {
        match self {
            ResolveError::NotASchema(_) | ResolveError::Incompatible(_) => Code::IncompatibleSchema,
            ResolveError::UnknownContract(_) => Code::WrongContract,
            ResolveError::Malformed(_) => Code::Malformed,
        }
    }
}

/// How values written with `schema` are read: the contract, and a resolver unless the schema is the
/// compiled one.
pub(super) fn plan(schema: &str) -> Result<(&'static str, Option<Resolver>), ResolveError> {
    let writer: Value =
        serde_json::from_str(schema).map_err(|e| ResolveError::NotASchema(e.to_string()))?;
    let name = full_name(&writer);
    let known = Event::CONTRACTS
        .iter()
        .find(|(contract, _)| *contract == name);
    let Some((contract, compiled)) = known else {
        return Err(ResolveError::UnknownContract(name));
    };
    let reader: Value =
        serde_json::from_str(compiled).map_err(|e| ResolveError::NotASchema(e.to_string()))?;
    if essence(&writer, "") == essence(&reader, "") {
        return Ok((contract, None));
    }
    let breaks = compatibility::breaks(&parse(&writer)?, &parse(&reader)?);
    if !breaks.is_empty() {
        return Err(ResolveError::Incompatible(breaks.join("; ")));
    }
    let (writer, reader) = (
        parse(&without_logical_types(&writer))?,
        parse(&without_logical_types(&reader))?,
    );
    Ok((contract, Some(Resolver { writer, reader })))
}

impl Resolver {
    /// Takes one value off the front of `input` and gives it as bytes of the compiled schema.
    pub fn resolve(&self, input: &mut &[u8]) -> Result<Vec<u8>, ResolveError> {
        let malformed = |e: apache_avro::Error| ResolveError::Malformed(e.to_string());
        let reader = GenericDatumReader::builder(&self.writer)
            .reader_schema(&self.reader)
            .build();
        let value = reader
            .and_then(|r| r.read_value(input))
            .map_err(malformed)?;
        let writer = GenericDatumWriter::builder(&self.reader).build();
        writer
            .and_then(|w| w.write_value_to_vec(value))
            .map_err(malformed)
    }
}

fn parse(schema: &Value) -> Result<Schema, ResolveError> {
    compatibility::parse(schema).map_err(ResolveError::NotASchema)
}

fn full_name(schema: &Value) -> String {
    match (schema["namespace"].as_str(), schema["name"].as_str()) {
        (Some(namespace), Some(name)) if !name.contains('.') => format!("{namespace}.{name}"),
        (_, name) => name.unwrap_or("?").to_owned(),
    }
}

/// What of a schema decides how bytes are read, in one form: names in full, primitive types as
/// strings, no documentation. Logical types stay: they are part of what a value means.
pub(super) fn essence(schema: &Value, namespace: &str) -> Value {
    const PRIMITIVES: [&str; 8] = [
        "null", "boolean", "int", "long", "float", "double", "bytes", "string",
    ];
    match schema {
        Value::String(name) if PRIMITIVES.contains(&name.as_str()) || name.contains('.') => {
            schema.clone()
        }
        Value::String(name) if namespace.is_empty() => Value::String(name.clone()),
        Value::String(name) => Value::String(format!("{namespace}.{name}")),
        Value::Array(branches) => branches.iter().map(|b| essence(b, namespace)).collect(),
        Value::Object(object) => {
            let kind = object.get("type").cloned().unwrap_or_default();
            let name = object.get("name").and_then(Value::as_str);
            let space = object
                .get("namespace")
                .and_then(Value::as_str)
                .unwrap_or(namespace);
            let mut out = serde_json::Map::new();
            if let Some(name) = name {
                let full = if name.contains('.') || space.is_empty() {
                    name.to_owned()
                } else {
                    format!("{space}.{name}")
                };
                out.insert("name".into(), full.into());
            }
            let inner = out
                .get("name")
                .and_then(Value::as_str)
                .and_then(|n| n.rsplit_once('.'))
                .map_or("", |(s, _)| s)
                .to_owned();
            let inner = if name.is_some() {
                inner.as_str()
            } else {
                namespace
            };
            for key in ["symbols", "logicalType", "precision", "scale", "size"] {
                if let Some(value) = object.get(key) {
                    out.insert(key.into(), value.clone());
                }
            }
            for key in ["items", "values"] {
                if let Some(value) = object.get(key) {
                    out.insert(key.into(), essence(value, inner));
                }
            }
            if let Some(Value::Array(fields)) = object.get("fields") {
                let fields = fields.iter().map(
                    |f| serde_json::json!({"name": f["name"], "type": essence(&f["type"], inner)}),
                );
                out.insert("fields".into(), fields.collect());
            }
            if out.is_empty() {
                return essence(&kind, namespace);
            }
            out.insert(
                "type".into(),
                if kind.is_string() {
                    kind
                } else {
                    essence(&kind, inner)
                },
            );
            Value::Object(out)
        }
        other => other.clone(),
    }
}

fn without_logical_types(schema: &Value) -> Value {
    match schema {
        Value::Object(object) => object
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "logicalType" | "precision" | "scale"))
            .map(|(key, value)| {
                let is_type = matches!(key.as_str(), "type" | "items" | "values" | "fields");
                (
                    key.clone(),
                    if is_type {
                        without_logical_types(value)
                    } else {
                        value.clone()
                    },
                )
            })
            .collect(),
        Value::Array(all) => all.iter().map(without_logical_types).collect(),
        other => other.clone(),
    }
}
