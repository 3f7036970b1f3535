//! Every contract, against apache-avro: the generated codec and the library must agree on each value.

mod allocations;
mod golden;
mod values;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use crossdock::codec::{Codec, SchemaError, SchemaSource};
use crossdock::contract::event::Event;
use crossdock::contract::{Catalogue, topic};
use crossdock::pipeline::{Code, Headers, Origin, Record};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;

fn schema(text: &str) -> Schema {
    Schema::parse_str(text).expect("a schema")
}

fn write(schema: &Schema, value: Value) -> Vec<u8> {
    GenericDatumWriter::builder(schema)
        .build()
        .expect("a writer")
        .write_value_to_vec(value)
        .expect("written")
}

fn read(schema: &Schema, mut bytes: &[u8]) -> Value {
    let value = GenericDatumReader::builder(schema)
        .build()
        .expect("a reader")
        .read_value(&mut bytes)
        .expect("read");
    assert!(bytes.is_empty(), "{} bytes are left", bytes.len());
    value
}

#[test]
fn both_codecs_agree_on_every_contract() {
    for (name, text) in Event::CONTRACTS {
        let schema = schema(text);
        for seed in 0..200 {
            let value = values::value(&schema, &mut StdRng::seed_from_u64(seed), 0);
            let theirs = write(&schema, value);
            let decoded = Event::decode(name, &mut &theirs[..])
                .expect("compiled in")
                .unwrap_or_else(|e| panic!("{name} seed {seed}: {e}"));
            let mut ours = Vec::new();
            decoded.encode(&mut ours);
            assert_eq!(
                read(&schema, &ours),
                read(&schema, &theirs),
                "{name} seed {seed}: values"
            );
            if !values::has_wide_map(&read(&schema, &theirs)) {
                assert_eq!(ours, theirs, "{name} seed {seed}: bytes");
            }
        }
    }
}

#[test]
fn cut_and_random_bytes_are_errors_and_never_panics() {
    for (name, text) in Event::CONTRACTS {
        let schema = schema(text);
        let whole = write(
            &schema,
            values::value(&schema, &mut StdRng::seed_from_u64(1), 0),
        );
        for cut in 0..whole.len() {
            assert!(
                Event::decode(name, &mut &whole[..cut])
                    .expect("compiled in")
                    .is_err(),
                "{name} cut at {cut}"
            );
        }
        let mut random = StdRng::seed_from_u64(2);
        for _ in 0..2_000 {
            let mut bytes = whole.clone();
            for _ in 0..rand::Rng::next_u32(&mut random) % 8 + 1 {
                let at = rand::Rng::next_u64(&mut random) as usize % bytes.len();
                bytes[at] = rand::Rng::next_u32(&mut random) as u8;
            }
            let _ = Event::decode(name, &mut &bytes[..]);
        }
    }
}

/// A registry that holds one schema under id 1.
struct Only(String);

impl SchemaSource for Only {
    fn schema(&self, id: u32) -> Result<String, SchemaError> {
        if id == 1 {
            Ok(self.0.clone())
        } else {
            Err(SchemaError::NotFound)
        }
    }
    fn id(&self, _: &str, _: &str) -> Result<u32, SchemaError> {
        Ok(1)
    }
}

fn record(value: Vec<u8>) -> Record {
    let framed = [&[0, 0, 0, 0, 1][..], &value].concat();
    Record {
        origin: Origin {
            topic: Arc::from(topic::STOCK_CHANGE),
            partition: 0,
            offset: 0,
        },
        timestamp_ms: 0,
        key: None,
        value: Some(framed.into()),
        headers: Headers::default(),
    }
}

fn stock_change() -> serde_json::Value {
    let (_, text) = Event::CONTRACTS
        .iter()
        .find(|(n, _)| n.ends_with(".StockChanged"))
        .expect("compiled in");
    serde_json::from_str(text).expect("JSON")
}

/// Decodes what a writer with a changed schema wrote.
fn through(
    change: impl Fn(&mut serde_json::Value),
    edit: impl Fn(&mut Vec<(String, Value)>),
) -> Result<Event, Code> {
    let mut json = stock_change();
    change(&mut json);
    let text = json.to_string();
    let schema = schema(&text);
    let Value::Record(mut fields) = values::value(&schema, &mut StdRng::seed_from_u64(3), 0) else {
        panic!("a record")
    };
    edit(&mut fields);
    let codec = Codec::new(Arc::new(Only(text)), Catalogue::compiled());
    codec
        .decode(&record(write(&schema, Value::Record(fields))))
        .map_err(|f| f.code)
}

fn fields(json: &mut serde_json::Value) -> &mut Vec<serde_json::Value> {
    json["fields"].as_array_mut().expect("fields")
}

#[test]
fn writers_of_other_versions_are_understood() {
    let same = through(|_| {}, |_| {}).expect("the same schema");
    let added = through(
        |j| {
            fields(j).push(
                serde_json::json!({"name": "later", "type": ["null", "string"], "default": null}),
            )
        },
        |_| {},
    );
    assert!(
        matches!(added, Ok(Event::StockChanged(_))),
        "an added field: {added:?}"
    );
    let removed = through(|j| fields(j).retain(|f| f["name"] != "documentRef"), |_| {});
    let Ok(Event::StockChanged(removed)) = removed else {
        panic!("a removed field: {removed:?}")
    };
    assert_eq!(removed.document_ref, None);
    let Event::StockChanged(same) = same else {
        panic!("not a stock change")
    };
    assert_eq!(removed.qty, same.qty, "decimals survive resolution");

    let symbol = |j: &mut serde_json::Value| {
        let field = fields(j)
            .iter_mut()
            .find(|f| f["name"] == "reason")
            .expect("reason");
        field["type"]["symbols"]
            .as_array_mut()
            .expect("symbols")
            .push("TELEPORT".into());
    };
    let teleported = through(symbol, |fields| {
        let reason = fields
            .iter_mut()
            .find(|(n, _)| n == "reason")
            .expect("reason");
        reason.1 = Value::Enum(14, "TELEPORT".into());
    });
    let Ok(Event::StockChanged(teleported)) = teleported else {
        panic!("a new symbol: {teleported:?}")
    };
    assert_eq!(
        teleported.reason,
        crossdock::contract::event::StockReason::Unknown
    );
}

#[test]
fn writers_that_mean_something_else_are_refused() {
    let rescaled = through(
        |j| {
            fields(j)
                .iter_mut()
                .find(|f| f["name"] == "qty")
                .expect("qty")["type"]["scale"] = 2.into()
        },
        |_| {},
    );
    assert_eq!(
        rescaled.err(),
        Some(Code::IncompatibleSchema),
        "another scale"
    );
    for kind in ["bytes", "int", "boolean"] {
        let retyped = through(
            |j| {
                fields(j)
                    .iter_mut()
                    .find(|f| f["name"] == "sku")
                    .expect("sku")["type"] = kind.into()
            },
            |_| {},
        );
        assert_eq!(
            retyped.err(),
            Some(Code::IncompatibleSchema),
            "a text that was {kind}"
        );
    }
    let renamed = through(|j| j["name"] = "StockMoved".into(), |_| {});
    assert_eq!(renamed.err(), Some(Code::WrongContract));
}

#[test]
fn a_whole_number_may_have_been_narrower() {
    let narrow = |j: &mut serde_json::Value| {
        let position = fields(&mut fields(j)[0]["type"])
            .iter_mut()
            .find(|f| f["name"] == "sourcePosition")
            .expect("sourcePosition");
        position["type"] = "int".into();
    };
    let found = through(narrow, |fields| {
        let Value::Record(meta) = &mut fields[0].1 else {
            panic!("meta")
        };
        let position = meta.iter_mut().find(|(n, _)| n == "sourcePosition");
        position.expect("sourcePosition").1 = Value::Int(-7);
    });
    match found {
        Ok(Event::StockChanged(event)) => assert_eq!(event.meta.source_position, -7),
        other => panic!("{other:?}"),
    }
}

/// The schema as a later version may be: each enum knows one symbol more, each record has one field
/// more, before all others.
fn evolve(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Array(branches) => branches.iter_mut().for_each(evolve),
        serde_json::Value::Object(object) => {
            if let Some(symbols) = object.get_mut("symbols").and_then(|s| s.as_array_mut()) {
                symbols.push("LATER".into());
            }
            for key in ["type", "items", "values"] {
                if let Some(inner) = object.get_mut(key) {
                    evolve(inner);
                }
            }
            if let Some(fields) = object.get_mut("fields").and_then(|f| f.as_array_mut()) {
                fields.iter_mut().for_each(evolve);
                let later = serde_json::json!({"name": "later", "type": "string", "default": ""});
                fields.insert(0, later);
            }
        }
        _ => {}
    }
}

/// What a reader of today makes of a later version's value.
fn as_of_today(value: Value) -> Value {
    match value {
        Value::Record(fields) => {
            let known = fields.into_iter().filter(|(name, _)| name != "later");
            Value::Record(known.map(|(n, v)| (n, as_of_today(v))).collect())
        }
        Value::Enum(_, symbol) if symbol == "LATER" => Value::Enum(0, "UNKNOWN".into()),
        Value::Array(all) => Value::Array(all.into_iter().map(as_of_today).collect()),
        Value::Map(all) => Value::Map(all.into_iter().map(|(k, v)| (k, as_of_today(v))).collect()),
        Value::Union(branch, value) => Value::Union(branch, Box::new(as_of_today(*value))),
        other => other,
    }
}

#[test]
fn a_later_version_of_every_contract_is_understood() {
    let catalogue = Catalogue::compiled();
    let mut tested = 0;
    for (name, text) in Event::CONTRACTS {
        let Some(topic) = catalogue.topics().iter().find(|t| t.contract == *name) else {
            continue;
        };
        let today = schema(text);
        let mut later: serde_json::Value = serde_json::from_str(text).expect("JSON");
        evolve(&mut later);
        let later_text = later.to_string();
        let later = schema(&later_text);
        let codec = Codec::new(Arc::new(Only(later_text)), catalogue);
        for seed in 0..50 {
            let value = values::value(&later, &mut StdRng::seed_from_u64(seed), 0);
            let expected = write(&today, as_of_today(value.clone()));
            let expected = Event::decode(name, &mut &expected[..]).expect("compiled in");
            let mut record = record(write(&later, value));
            record.origin.topic = Arc::from(topic.name.as_str());
            let found = codec
                .decode(&record)
                .unwrap_or_else(|f| panic!("{name} seed {seed}: {f}"));
            assert_eq!(Ok(found), expected, "{name} seed {seed}");
        }
        tested += 1;
    }
    assert!(tested >= 30, "{tested} contracts");
}
