//! Whether one version of a schema can read what another wrote: every value, not just some.
//!
//! The rules are Avro's schema resolution, made stricter where a reader would get a value that is
//! not the one written (DOMAIN.md §2, "Evolution"):
//! - a logical type is part of the meaning and never changes: neither a decimal's scale or
//!   precision nor the unit of a time;
//! - a new symbol is readable only where the reader's enum *type* has a default; a default of the
//!   field does not help, and checkers that answer "partially" let it through;
//! - aliases do not count: not every reader honours them, and one that does not would lose the
//!   field's value without a word;
//! - named types are compared wherever they are used, also where only their name stands.

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, RecordSchema, UuidSchema};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// Reads a schema that anybody may have written.
///
/// # Errors
/// In words, when it is no Avro schema; also for sizes that apache-avro 0.22 panics on instead.
pub fn parse(schema: &Value) -> Result<Schema, String> {
    check_sizes(schema)?;
    Schema::parse(schema).map_err(|e| e.to_string())
}

fn check_sizes(value: &Value) -> Result<(), String> {
    match value {
        Value::Array(all) => all.iter().try_for_each(check_sizes),
        Value::Object(object) => object.iter().try_for_each(|(key, value)| {
            if key == "default" {
                return Ok(());
            }
            if matches!(key.as_str(), "size" | "precision" | "scale")
                && value.as_i64().is_none_or(|n| n < 0)
            {
                return Err(format!("{key} {value} is not a whole number from 0"));
            }
            check_sizes(value)
        }),
        _ => Ok(()),
    }
}

/// What keeps `reader` from reading every value that `writer` writes, each with the path to it;
/// empty when nothing does.
pub fn breaks(writer: &Schema, reader: &Schema) -> Vec<String> {
    let (mut writer_names, mut reader_names) = (HashMap::new(), HashMap::new());
    collect_names(writer, &mut writer_names);
    collect_names(reader, &mut reader_names);
    let mut judge = Judge {
        writer_names,
        reader_names,
        seen: HashSet::new(),
    };
    let mut found = Vec::new();
    judge.compare(writer, reader, "", &mut found);
    found
}

struct Judge<'a> {
    writer_names: HashMap<&'a Name, &'a Schema>,
    reader_names: HashMap<&'a Name, &'a Schema>,
    /// Pairs of named types that were or are being compared: what broke in them is told once, and
    /// recursive types end.
    seen: HashSet<(&'a Name, &'a Name)>,
}

impl<'a> Judge<'a> {
    fn compare(
        &mut self,
        writer: &'a Schema,
        reader: &'a Schema,
        path: &str,
        found: &mut Vec<String>,
    ) {
        let writer = definition(&self.writer_names, writer);
        let reader = definition(&self.reader_names, reader);
        match (writer, reader) {
            (Schema::Union(writer), _) => {
                for branch in writer.variants() {
                    self.compare(branch, reader, path, found);
                }
                return;
            }
            (_, Schema::Union(reader)) => {
                return self.compare_with_branches(writer, reader.variants(), path, found);
            }
            _ => {}
        }
        if let (Some(written), Some(read)) = (writer.name(), reader.name()) {
            if written.name() != read.name() {
                found.push(at(
                    path,
                    format!(
                        "{} cannot be read as {}",
                        describe(writer),
                        describe(reader)
                    ),
                ));
                return;
            }
            if !self.seen.insert((written, read)) {
                return;
            }
        }
        if meaning(writer) != meaning(reader) {
            found.push(at(
                path,
                format!(
                    "{} cannot be read as {}: a logical type, its precision, scale and unit never change",
                    describe(writer),
                    describe(reader)
                ),
            ));
            return;
        }
        match (writer, reader) {
            (Schema::Record(writer), Schema::Record(reader)) => {
                self.compare_fields(writer, reader, path, found);
            }
            (Schema::Array(writer), Schema::Array(reader)) => {
                self.compare(&writer.items, &reader.items, &format!("{path}[]"), found);
            }
            (Schema::Map(writer), Schema::Map(reader)) => {
                self.compare(&writer.types, &reader.types, &format!("{path}{{}}"), found);
            }
            (Schema::Enum(writer), Schema::Enum(reader)) => {
                let unknown: Vec<&str> = writer
                    .symbols
                    .iter()
                    .filter(|s| !reader.symbols.contains(s))
                    .map(String::as_str)
                    .collect();
                if !unknown.is_empty() && reader.default.is_none() {
                    found.push(at(
                        path,
                        format!(
                            "the reader's enum {} lacks {} and has no default of its own (a default of the field does not count)",
                            reader.name.name(),
                            unknown.join(", ")
                        ),
                    ));
                }
            }
            _ if fits(writer, reader) => {}
            _ => found.push(at(
                path,
                format!(
                    "{} cannot be read as {}",
                    describe(writer),
                    describe(reader)
                ),
            )),
        }
    }

    /// A written value must be readable by some branch; what breaks in the branch that comes
    /// nearest is told.
    fn compare_with_branches(
        &mut self,
        writer: &'a Schema,
        branches: &'a [Schema],
        path: &str,
        found: &mut Vec<String>,
    ) {
        let seen = self.seen.clone();
        let mut nearest: Option<Vec<String>> = None;
        for branch in branches {
            self.seen.clone_from(&seen);
            let mut breaks = Vec::new();
            self.compare(writer, branch, path, &mut breaks);
            if breaks.is_empty() {
                return;
            }
            let branch = definition(&self.reader_names, branch);
            if std::mem::discriminant(branch) == std::mem::discriminant(writer) {
                nearest = Some(breaks);
            }
        }
        match nearest {
            Some(breaks) => found.extend(breaks),
            None => found.push(at(
                path,
                format!(
                    "{} is none of the reader's union: {}",
                    describe(writer),
                    branches.iter().map(describe).collect::<Vec<_>>().join(", ")
                ),
            )),
        }
    }

    fn compare_fields(
        &mut self,
        writer: &'a RecordSchema,
        reader: &'a RecordSchema,
        path: &str,
        found: &mut Vec<String>,
    ) {
        for field in &reader.fields {
            let inner = match path {
                "" => field.name.clone(),
                path => format!("{path}.{}", field.name),
            };
            match writer.fields.iter().find(|w| w.name == field.name) {
                Some(written) => self.compare(&written.schema, &field.schema, &inner, found),
                None if field.default.is_some() => {}
                None => found.push(at(
                    &inner,
                    "the writer lacks the field and the reader has no default for it".into(),
                )),
            }
        }
    }
}

fn at(path: &str, what: String) -> String {
    if path.is_empty() {
        what
    } else {
        format!("{path}: {what}")
    }
}

fn collect_names<'a>(schema: &'a Schema, into: &mut HashMap<&'a Name, &'a Schema>) {
    if let (Some(name), false) = (schema.name(), matches!(schema, Schema::Ref { .. })) {
        into.insert(name, schema);
    }
    match schema {
        Schema::Record(record) => {
            for field in &record.fields {
                collect_names(&field.schema, into);
            }
        }
        Schema::Array(array) => collect_names(&array.items, into),
        Schema::Map(map) => collect_names(&map.types, into),
        Schema::Union(union) => union.variants().iter().for_each(|v| collect_names(v, into)),
        _ => {}
    }
}

fn definition<'a>(names: &HashMap<&'a Name, &'a Schema>, schema: &'a Schema) -> &'a Schema {
    match schema {
        Schema::Ref { name } => names.get(name).copied().unwrap_or(schema),
        schema => schema,
    }
}

/// The logical type, with what belongs to its meaning; empty for plain types.
fn meaning(schema: &Schema) -> String {
    match schema {
        Schema::Decimal(decimal) => format!("decimal({},{})", decimal.precision, decimal.scale),
        Schema::BigDecimal => "big-decimal".into(),
        Schema::Uuid(_) => "uuid".into(),
        Schema::Date => "date".into(),
        Schema::TimeMillis => "time-millis".into(),
        Schema::TimeMicros => "time-micros".into(),
        Schema::TimestampMillis => "timestamp-millis".into(),
        Schema::TimestampMicros => "timestamp-micros".into(),
        Schema::TimestampNanos => "timestamp-nanos".into(),
        Schema::LocalTimestampMillis => "local-timestamp-millis".into(),
        Schema::LocalTimestampMicros => "local-timestamp-micros".into(),
        Schema::LocalTimestampNanos => "local-timestamp-nanos".into(),
        Schema::Duration(_) => "duration".into(),
        _ => String::new(),
    }
}

/// Whether values of one unnamed or fixed type can be read as another, logical types being equal.
/// Of Avro's promotions, bytes to string is missing: not all bytes are text.
fn fits(writer: &Schema, reader: &Schema) -> bool {
    use Schema as S;
    match (writer, reader) {
        (S::Int, S::Long | S::Float | S::Double)
        | (S::Long, S::Float | S::Double)
        | (S::Float, S::Double)
        | (S::String, S::Bytes) => true,
        (S::Fixed(a), S::Fixed(b)) | (S::Duration(a), S::Duration(b)) => a.size == b.size,
        (S::Decimal(a), S::Decimal(b)) => match (&a.inner, &b.inner) {
            (InnerDecimalSchema::Bytes, InnerDecimalSchema::Bytes) => true,
            (InnerDecimalSchema::Fixed(a), InnerDecimalSchema::Fixed(b)) => a.size == b.size,
            _ => false,
        },
        (S::Uuid(a), S::Uuid(b)) => match (a, b) {
            (UuidSchema::Fixed(a), UuidSchema::Fixed(b)) => a.size == b.size,
            _ => std::mem::discriminant(a) == std::mem::discriminant(b),
        },
        (S::Record(_) | S::Array(_) | S::Map(_) | S::Enum(_) | S::Union(_) | S::Ref { .. }, _) => {
            false
        }
        (writer, reader) => std::mem::discriminant(writer) == std::mem::discriminant(reader),
    }
}

fn describe(schema: &Schema) -> String {
    let logical = meaning(schema);
    if !logical.is_empty() {
        return logical;
    }
    let kind = match schema {
        Schema::Null => "null",
        Schema::Boolean => "boolean",
        Schema::Int => "int",
        Schema::Long => "long",
        Schema::Float => "float",
        Schema::Double => "double",
        Schema::Bytes => "bytes",
        Schema::String => "string",
        Schema::Array(_) => "array",
        Schema::Map(_) => "map",
        Schema::Union(_) => "union",
        Schema::Record(_) => "record",
        Schema::Enum(_) => "enum",
        Schema::Fixed(_) => "fixed",
        _ => "type",
    };
    match schema.name() {
        Some(name) => format!("{kind} {}", name.name()),
        None => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(writer: &str, reader: &str) -> Vec<String> {
        let parse = |s: &str| Schema::parse_str(s).unwrap_or_else(|e| panic!("{s}: {e}"));
        breaks(&parse(writer), &parse(reader))
    }

    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"R","namespace":"n","fields":[{fields}]}}"#)
    }

    fn field(name: &str, kind: &str, more: &str) -> String {
        format!(r#"{{"name":"{name}","type":{kind}{more}}}"#)
    }

    #[test]
    fn fields_with_defaults_come_and_go() {
        let one = record(&field("a", r#""int""#, ""));
        let two = record(&format!(
            "{},{}",
            field("a", r#""int""#, ""),
            field("b", r#"["null","string"]"#, r#","default":null"#)
        ));
        assert_eq!(judge(&one, &two), [""; 0]);
        assert_eq!(judge(&two, &one), [""; 0]);
        let three = record(&format!(
            "{},{}",
            field("a", r#""int""#, ""),
            field("b", r#""string""#, "")
        ));
        assert_eq!(
            judge(&one, &three),
            ["b: the writer lacks the field and the reader has no default for it"]
        );
    }

    #[test]
    fn a_new_symbol_needs_a_default_of_the_enum_itself() {
        let of = |symbols: &str, own: &str, of_field: &str| {
            let kind = format!(r#"{{"type":"enum","name":"E","symbols":[{symbols}]{own}}}"#);
            record(&field("e", &kind, of_field))
        };
        let own = r#","default":"A""#;
        let old = of(r#""A","B""#, own, "");
        let new = of(r#""A","B","C""#, own, "");
        assert_eq!(judge(&new, &old), [""; 0]);
        assert_eq!(judge(&old, &new), [""; 0]);
        let old = of(r#""A","B""#, "", own);
        let new = of(r#""A","B","C""#, "", own);
        let found = judge(&new, &old);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("e: the reader's enum E lacks C"),
            "{found:?}"
        );
        // The checker of the library calls this partially compatible, and decoding then fails.
        assert_eq!(judge(&old, &new), [""; 0]);
    }

    #[test]
    fn a_decimal_keeps_its_scale_and_a_time_its_unit() {
        let decimal = |scale: u8| {
            format!(r#"{{"type":"bytes","logicalType":"decimal","precision":18,"scale":{scale}}}"#)
        };
        assert_eq!(judge(&decimal(4), &decimal(4)), [""; 0]);
        assert!(judge(&decimal(4), &decimal(2))[0].contains("decimal(18,4)"));
        assert!(!judge(&decimal(4), r#""bytes""#).is_empty());
        assert!(!judge(r#""bytes""#, &decimal(4)).is_empty());
        let time = |unit: &str| format!(r#"{{"type":"long","logicalType":"timestamp-{unit}"}}"#);
        assert_eq!(judge(&time("micros"), &time("micros")), [""; 0]);
        assert!(!judge(&time("micros"), &time("millis")).is_empty());
        assert!(!judge(&time("micros"), r#""long""#).is_empty());
        let nullable = |scale| format!(r#"["null",{}]"#, decimal(scale));
        assert!(judge(&nullable(4), &nullable(2))[0].contains("decimal(18,2)"));
    }

    #[test]
    fn a_type_that_stands_only_by_name_is_compared_where_it_is_used() {
        let inner = |scale: u8| {
            format!(
                r#"{{"type":"record","name":"I","fields":[{}]}}"#,
                field(
                    "q",
                    &format!(
                        r#"{{"type":"bytes","logicalType":"decimal","precision":9,"scale":{scale}}}"#
                    ),
                    ""
                )
            )
        };
        // The writer defines I in a field that the reader does not have.
        let writer = record(&format!(
            "{},{}",
            field("gone", &inner(4), ""),
            field("kept", r#""I""#, "")
        ));
        let reader = record(&field("kept", &inner(2), ""));
        assert!(judge(&writer, &reader)[0].starts_with("kept.q: decimal(9,4)"));
        let reader = record(&field("kept", &inner(4), ""));
        assert_eq!(judge(&writer, &reader), [""; 0]);
    }

    #[test]
    fn recursive_types_end() {
        let list = |more: &str| {
            format!(
                r#"{{"type":"record","name":"L","fields":[{{"name":"next","type":["null","L"],"default":null}}{more}]}}"#
            )
        };
        assert_eq!(judge(&list(""), &list("")), [""; 0]);
        let with = list(r#",{"name":"x","type":"int"}"#);
        assert_eq!(judge(&list(""), &with).len(), 1);
    }

    #[test]
    fn unions_need_a_branch_for_everything_written() {
        assert_eq!(judge(r#""int""#, r#"["null","long"]"#), [""; 0]);
        assert_eq!(
            judge(r#"["null","int"]"#, r#""int""#),
            ["null cannot be read as int"]
        );
        assert_eq!(
            judge(r#"["null","string"]"#, r#"["null","int"]"#),
            ["string is none of the reader's union: null, int"]
        );
    }

    #[test]
    fn promotions_go_one_way() {
        assert_eq!(judge(r#""int""#, r#""long""#), [""; 0]);
        assert!(!judge(r#""long""#, r#""int""#).is_empty());
        assert!(!judge(r#""bytes""#, r#""string""#).is_empty());
    }
}
