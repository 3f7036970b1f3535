//! Random values of a schema.

use apache_avro::schema::{DecimalSchema, RecordSchema, Schema};
use apache_avro::types::Value;
use apache_avro::{Decimal, Uuid};
use rand::prelude::*;
use std::collections::HashMap;

/// A value of `schema`. Deep ones are small.
pub fn value(schema: &Schema, random: &mut StdRng, depth: u32) -> Value {
    let mut named = HashMap::new();
    collect(schema, &mut named);
    make(schema, &named, random, depth)
}

fn collect<'a>(schema: &'a Schema, named: &mut HashMap<String, &'a Schema>) {
    match schema {
        Schema::Record(RecordSchema { name, fields, .. }) => {
            named.insert(name.fullname(None), schema);
            fields.iter().for_each(|f| collect(&f.schema, named));
        }
        Schema::Enum(e) => {
            named.insert(e.name.fullname(None), schema);
        }
        Schema::Array(a) => collect(&a.items, named),
        Schema::Map(m) => collect(&m.types, named),
        Schema::Union(u) => u.variants().iter().for_each(|v| collect(v, named)),
        _ => {}
    }
}

fn make(
    schema: &Schema,
    named: &HashMap<String, &Schema>,
    random: &mut StdRng,
    depth: u32,
) -> Value {
    let few = |random: &mut StdRng| random.random_range(0..if depth > 3 { 2 } else { 4 });
    match schema {
        Schema::Null => Value::Null,
        Schema::Boolean => Value::Boolean(random.random()),
        Schema::Int => Value::Int(random.random()),
        Schema::Long => Value::Long(random.random::<i64>() >> random.random_range(0..63)),
        Schema::Double => Value::Double(random.random()),
        Schema::Bytes => Value::Bytes(
            (0..random.random_range(0..20))
                .map(|_| random.random())
                .collect(),
        ),
        Schema::String => Value::String(text(random)),
        Schema::Uuid(_) => Value::Uuid(Uuid::from_u128(random.random())),
        Schema::Date => Value::Date(random.random()),
        Schema::TimestampMicros => Value::TimestampMicros(random.random()),
        Schema::Decimal(DecimalSchema { .. }) => {
            let units = random.random_range(-999_999_999_999_999_999i64..=999_999_999_999_999_999)
                >> random.random_range(0..60);
            Value::Decimal(Decimal::from(shortest(units)))
        }
        Schema::Array(a) => Value::Array(
            (0..few(random))
                .map(|_| make(&a.items, named, random, depth + 1))
                .collect(),
        ),
        Schema::Map(m) => Value::Map(
            (0..few(random))
                .map(|_| (text(random), make(&m.types, named, random, depth + 1)))
                .collect(),
        ),
        Schema::Union(u) => {
            let branch = random.random_range(0..u.variants().len());
            Value::Union(
                branch as u32,
                Box::new(make(&u.variants()[branch], named, random, depth + 1)),
            )
        }
        Schema::Enum(e) => {
            let index = random.random_range(0..e.symbols.len());
            Value::Enum(index as u32, e.symbols[index].clone())
        }
        Schema::Record(r) => Value::Record(
            r.fields
                .iter()
                .map(|f| (f.name.clone(), make(&f.schema, named, random, depth + 1)))
                .collect(),
        ),
        Schema::Ref { name } => make(named[&name.fullname(None)], named, random, depth),
        other => panic!("no contract uses {other:?}"),
    }
}

/// Two's complement without leading bytes that only repeat the sign.
fn shortest(units: i64) -> Vec<u8> {
    let bytes = units.to_be_bytes();
    let fill = if units < 0 { 0xff } else { 0 };
    let mut skip = 0;
    while skip < 7 && bytes[skip] == fill && (bytes[skip + 1] ^ fill) & 0x80 == 0 {
        skip += 1;
    }
    bytes[skip..].to_vec()
}

fn text(random: &mut StdRng) -> String {
    const LETTERS: [char; 8] = ['a', 'Z', '7', '|', '%', 'é', '漢', '🛒'];
    (0..random.random_range(0..40))
        .map(|_| LETTERS[random.random_range(0..LETTERS.len())])
        .collect()
}

/// Whether a map somewhere in the value has more than one entry: then its bytes are not unique.
pub fn has_wide_map(value: &Value) -> bool {
    match value {
        Value::Map(m) => m.len() > 1 || m.values().any(has_wide_map),
        Value::Array(a) => a.iter().any(has_wide_map),
        Value::Record(fields) => fields.iter().any(|(_, v)| has_wide_map(v)),
        Value::Union(_, v) => has_wide_map(v),
        _ => false,
    }
}
