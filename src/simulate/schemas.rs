//! A registry that knows every compiled contract, and does not answer while it is down.

use crate::codec::{SchemaError, SchemaSource};
use crate::contract::event::Event;
use std::sync::atomic::{AtomicBool, Ordering};

/// Knows every compiled contract under its place in the list.
#[derive(Default)]
pub struct Schemas(pub AtomicBool);

impl Schemas {
    fn answers(&self) -> Result<(), SchemaError> {
        match self.0.load(Ordering::SeqCst) {
            true => Err(SchemaError::Unavailable("it is down".into())),
            false => Ok(()),
        }
    }
}

impl SchemaSource for Schemas {
    fn schema(&self, id: u32) -> Result<String, SchemaError> {
        self.answers()?;
        let known = Event::CONTRACTS.get(id as usize);
        known
            .map(|(_, schema)| (*schema).to_owned())
            .ok_or(SchemaError::NotFound)
    }
    fn id(&self, _subject: &str, schema: &str) -> Result<u32, SchemaError> {
        self.answers()?;
        let found = Event::CONTRACTS.iter().position(|(_, s)| *s == schema);
        found.map(|i| i as u32).ok_or(SchemaError::NotFound)
    }
}
