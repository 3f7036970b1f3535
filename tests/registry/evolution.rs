//! What the registry lets in, the codec reads: a newer writer's schema against this build's.

use crate::support::{log, open};
use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use crossdock::codec::Codec;
use crossdock::contract::event::{ChannelAllocation, Event, OversellPolicy, StockPolicy, Text};
use crossdock::contract::{Catalogue, Contract, topic};
use crossdock::domain::Decimal;
use crossdock::pipeline::{Code, Headers, Origin, Record};
use crossdock::registry::{EmbeddedRegistry, Registry, RegistryError};
use serde_json::{Value as Json, json};
use std::sync::Arc;

const SUBJECT: &str = "retail.stock.policy.v1-value";

fn policy() -> StockPolicy {
    StockPolicy {
        sku: Text::from("SKU-1"),
        location_id: Text::from("L1"),
        safety_stock: "2.5".parse::<Decimal>().expect("a decimal"),
        allocations: vec![ChannelAllocation {
            channel_id: Text::from("web"),
            hard_qty: Some("-0.0001".parse::<Decimal>().expect("a decimal")),
            ..ChannelAllocation::default()
        }],
        oversell: OversellPolicy::Block,
        ..StockPolicy::default()
    }
}

fn compiled() -> Json {
    serde_json::from_str(StockPolicy::SCHEMA).expect("the compiled schema")
}

fn field(schema: &Json, name: &str) -> usize {
    let fields = schema["fields"].as_array().expect("fields");
    fields
        .iter()
        .position(|f| f["name"] == name)
        .expect("the field")
}

/// `policy` as a writer with `schema` would frame it, after `change`.
fn written(id: u32, schema: &Json, change: impl FnOnce(&mut Vec<(String, Value)>)) -> Record {
    let mut bytes = Vec::new();
    policy().encode(&mut bytes);
    let ours = Schema::parse_str(StockPolicy::SCHEMA).expect("the compiled schema");
    let value = GenericDatumReader::builder(&ours)
        .build()
        .and_then(|r| r.read_value(&mut bytes.as_slice()))
        .expect("reads");
    let Value::Record(mut fields) = value else {
        panic!("a record")
    };
    change(&mut fields);
    let theirs = Schema::parse(schema).expect("a schema");
    let body = GenericDatumWriter::builder(&theirs)
        .build()
        .and_then(|w| w.write_value_to_vec(Value::Record(fields)))
        .expect("writes");
    let mut framed = vec![0];
    framed.extend(id.to_be_bytes());
    framed.extend(body);
    Record {
        origin: Origin {
            topic: topic::STOCK_POLICY.into(),
            partition: 0,
            offset: 0,
        },
        timestamp_ms: 0,
        key: Some("SKU-1|L1".into()),
        value: Some(framed.into()),
        headers: Headers::default(),
    }
}

fn registry_and_codec() -> (Arc<EmbeddedRegistry>, Codec) {
    let registry = open(&log());
    registry
        .register(SUBJECT, StockPolicy::SCHEMA)
        .expect("registers");
    let codec = Codec::new(Arc::clone(&registry) as _, Catalogue::compiled());
    (registry, codec)
}

#[test]
fn a_new_symbol_is_unknown_and_a_new_field_is_passed_over() {
    let (registry, codec) = registry_and_codec();
    let mut next = compiled();
    let oversell = field(&next, "oversell");
    let symbols = next["fields"][oversell]["type"]["symbols"]
        .as_array_mut()
        .expect("symbols");
    symbols.push(json!("PREORDER"));
    let last = symbols.len() as u32 - 1;
    next["fields"]
        .as_array_mut()
        .expect("fields")
        .push(json!({"name": "note", "type": "string", "default": ""}));
    let id = registry
        .register(SUBJECT, &next.to_string())
        .expect("is compatible");
    let record = written(id, &next, |fields| {
        fields[oversell].1 = Value::Enum(last, "PREORDER".into());
        fields.push(("note".into(), Value::String("soon".into())));
    });
    let expected = StockPolicy {
        oversell: OversellPolicy::Unknown,
        ..policy()
    };
    match codec.decode(&record) {
        Ok(Event::StockPolicy(found)) => assert_eq!(found, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_type_may_be_defined_at_another_place_than_before() {
    let (registry, codec) = registry_and_codec();
    let mut next = compiled();
    let allocations = field(&next, "allocations");
    let definition = next["fields"][allocations]["type"]["items"].take();
    next["fields"][allocations]["type"]["items"] = json!("retail.stock.v1.ChannelAllocation");
    let fallback = json!({"name": "fallback", "type": ["null", definition], "default": null});
    next["fields"]
        .as_array_mut()
        .expect("fields")
        .insert(allocations, fallback);
    let id = registry
        .register(SUBJECT, &next.to_string())
        .expect("is compatible");
    let record = written(id, &next, |fields| {
        let none = Value::Union(0, Box::new(Value::Null));
        fields.insert(allocations, ("fallback".into(), none));
    });
    match codec.decode(&record) {
        Ok(Event::StockPolicy(found)) => assert_eq!(found, policy()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_scale_is_refused_by_the_registry_and_by_the_codec() {
    let (registry, codec) = registry_and_codec();
    let mut next = compiled();
    let safety = field(&next, "safetyStock");
    next["fields"][safety]["type"]["scale"] = json!(2);
    let text = next.to_string();
    assert!(matches!(
        registry.register(SUBJECT, &text),
        Err(RegistryError::Incompatible { .. })
    ));
    // Somebody registered it elsewhere.
    let id = registry.register("elsewhere", &text).expect("registers");
    let record = written(id, &compiled(), |_| {});
    let fault = codec.decode(&record).expect_err("cannot be read");
    assert_eq!(fault.code, Code::IncompatibleSchema);
    assert!(fault.message.contains("decimal(18,2)"), "{}", fault.message);
}
