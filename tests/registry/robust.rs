//! Schemas that nobody would write: judged or refused, never a panic, and never let in where
//! apache-avro's own checker sees a break.

use crate::support::{log, open};
use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use crossdock::contract::compatibility::breaks;
use crossdock::contract::event::Event;
use crossdock::contract::lint::{Source, Sources, lint};
use crossdock::registry::{Registry, RegistryError};
use proptest::prelude::*;
use serde_json::{Value, json};

/// One edit somewhere in a schema.
#[derive(Clone, Debug)]
enum Edit {
    Remove(prop::sample::Index),
    Replace(prop::sample::Index, Value),
    /// Puts a copy of one part in another's place.
    Copy(prop::sample::Index, prop::sample::Index),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let values = prop::sample::select(vec![
        json!(null),
        json!(""),
        json!("string"),
        json!("int"),
        json!("UNKNOWN"),
        json!("EventMeta"),
        json!(-1),
        json!(1.5e300),
        json!([]),
        json!({}),
        json!(["null", "null"]),
        json!([["int"]]),
        json!({"type": "record", "name": "X", "fields": [{"name": "x", "type": "X"}]}),
        json!({"type": "fixed", "name": "F", "size": u64::MAX}),
        json!({"type": "bytes", "logicalType": "decimal", "precision": 0, "scale": 9}),
        json!({"type": {"type": {"type": "enum"}}}),
    ]);
    let index = any::<prop::sample::Index>;
    let edit = prop_oneof![
        index().prop_map(Edit::Remove),
        (index(), values).prop_map(|(at, value)| Edit::Replace(at, value)),
        (index(), index()).prop_map(|(from, to)| Edit::Copy(from, to)),
    ];
    prop::collection::vec(edit, 1..4)
}

fn pointers(value: &Value, at: &str, into: &mut Vec<String>) {
    into.push(at.to_owned());
    match value {
        Value::Array(all) => {
            for (index, value) in all.iter().enumerate() {
                pointers(value, &format!("{at}/{index}"), into);
            }
        }
        Value::Object(all) => {
            for (key, value) in all {
                pointers(value, &format!("{at}/{key}"), into);
            }
        }
        _ => {}
    }
}

fn edited(schema: &str, edits: &[Edit]) -> Value {
    let mut schema: Value = serde_json::from_str(schema).expect("a compiled schema");
    for edit in edits {
        let mut all = Vec::new();
        pointers(&schema, "", &mut all);
        let pick = |index: &prop::sample::Index| index.get(&all).clone();
        match edit {
            Edit::Remove(at) => {
                let at = pick(at);
                let Some((outer, key)) = at.rsplit_once('/') else {
                    continue;
                };
                match schema.pointer_mut(outer) {
                    Some(Value::Object(object)) => {
                        object.remove(key);
                    }
                    Some(Value::Array(array)) => {
                        array.remove(key.parse().expect("an index"));
                    }
                    _ => {}
                }
            }
            Edit::Replace(at, value) => {
                if let Some(place) = schema.pointer_mut(&pick(at)) {
                    *place = value.clone();
                }
            }
            Edit::Copy(from, to) => {
                let copy = schema.pointer(&pick(from)).cloned();
                if let (Some(place), Some(copy)) = (schema.pointer_mut(&pick(to)), copy) {
                    *place = copy;
                }
            }
        }
    }
    schema
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn edited_contracts_are_judged_or_refused(
        contract in prop::sample::select(Event::CONTRACTS.to_vec()),
        edits in edits(),
    ) {
        let (_, schema) = contract;
        let next = edited(schema, &edits);
        let registry = open(&log());
        prop_assert_eq!(registry.register("s", schema), Ok(1));
        match registry.register("s", &next.to_string()) {
            Ok(_) => {
                let (old, new) = (Schema::parse_str(schema), Schema::parse(&next));
                let (Ok(old), Ok(new)) = (old, new) else {
                    return Err(TestCaseError::fail("what is no schema was registered"));
                };
                prop_assert!(breaks(&old, &new).is_empty() && breaks(&new, &old).is_empty());
                for (writer, reader) in [(&old, &new), (&new, &old)] {
                    let theirs = SchemaCompatibility::can_read(writer, reader);
                    prop_assert!(
                        matches!(theirs, Ok(Compatibility::Full)) || moved(&theirs),
                        "{:?}", theirs
                    );
                }
            }
            Err(RegistryError::InvalidSchema(_) | RegistryError::Incompatible { .. }) => {}
            Err(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
        let file = |path: &str, text: String| Source { path: path.into(), text };
        lint(
            &Sources {
                schemas: vec![file("schemas/x/X.v1.avsc", next.to_string())],
                topics: file("topics.yaml", next.to_string()),
                lock: file("schemas/published.lock", next.to_string()),
            },
            &[],
        );
    }

    #[test]
    fn any_text_is_refused_in_words(text in ".{0,200}") {
        let registry = open(&log());
        if let Err(error) = registry.register("s", &text) {
            prop_assert!(!error.to_string().is_empty());
        }
        let file = |path: &str| Source { path: path.into(), text: text.clone() };
        let sources = Sources {
            schemas: vec![file("schemas/x/X.v1.avsc")],
            topics: file("topics.yaml"),
            lock: file("schemas/published.lock"),
        };
        prop_assert!(!lint(&sources, &[]).is_empty());
    }
}

/// The library's checker takes a type that is named in one schema where the other defines it for
/// another kind of type.
fn moved(theirs: &Result<Compatibility, apache_avro::error::CompatibilityError>) -> bool {
    theirs
        .as_ref()
        .is_err_and(|e| e.to_string().contains("Ref"))
}
