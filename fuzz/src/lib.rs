//! What the targets share.

use crossdock::codec::{Codec, SchemaError, SchemaSource};
use crossdock::contract::Catalogue;
use crossdock::contract::event::Event;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

/// Schemas of every contract in three versions: as compiled (ids from 1), of a writer that knows one optional
/// field less, and of one that knows one more.
pub struct Versions(Vec<String>);

impl Versions {
    fn new() -> Versions {
        let compiled = Event::CONTRACTS.iter().map(|(_, schema)| *schema);
        let with = |change: fn(&mut Vec<Value>)| {
            compiled.clone().map(move |schema| {
                let mut schema: Value = serde_json::from_str(schema).expect("a compiled schema");
                change(schema["fields"].as_array_mut().expect("a record"));
                schema.to_string()
            })
        };
        let fewer = with(|fields| {
            if let Some(at) = fields.iter().rposition(|f| f.get("default").is_some()) {
                fields.remove(at);
            }
        });
        let more = with(|fields| {
            let of = json!({"type": "map", "values": ["null", "string", {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4}]});
            fields.insert(
                fields.len() / 2,
                json!({"name": "later", "type": of, "default": {}}),
            );
        });
        Versions(
            compiled
                .clone()
                .map(str::to_owned)
                .chain(fewer)
                .chain(more)
                .collect(),
        )
    }
}

impl SchemaSource for Versions {
    fn schema(&self, id: u32) -> Result<String, SchemaError> {
        let at = (id as usize).checked_sub(1);
        at.and_then(|at| self.0.get(at).cloned())
            .ok_or(SchemaError::NotFound)
    }
    fn id(&self, _: &str, schema: &str) -> Result<u32, SchemaError> {
        let at = self.0.iter().position(|s| s == schema);
        at.map(|at| at as u32 + 1).ok_or(SchemaError::NotFound)
    }
}

/// A codec over these schemas.
pub static CODEC: LazyLock<Codec> =
    LazyLock::new(|| Codec::new(Arc::new(Versions::new()), Catalogue::compiled()));

/// Topics with a contract, and the contract's number from 0.
pub static TOPICS: LazyLock<Vec<(Arc<str>, u32)>> = LazyLock::new(|| {
    let catalogue = Catalogue::compiled();
    let names = catalogue.topics().iter().map(|topic| topic.name.as_str());
    let found = names.filter_map(|name| {
        let contract = catalogue.contract(name)?;
        let number = Event::CONTRACTS
            .iter()
            .position(|(known, _)| *known == contract)?;
        Some((Arc::from(name), number as u32))
    });
    found.collect()
});

/// A value that begins with a schema id of the contract with this number, in the version that `version` chooses.
pub fn framed(contract: u32, version: u8, body: &[u8]) -> Vec<u8> {
    let id = contract + 1 + u32::from(version % 3) * Event::CONTRACTS.len() as u32;
    [&[0], &id.to_be_bytes()[..], body].concat()
}

/// The first part of `data` up to a separator, and the rest.
pub fn cut(data: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == separator) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}
