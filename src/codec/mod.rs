//! The wire: Confluent framing around Avro, CloudEvents headers, and decoding of whatever version
//! a record was written with.
//!
//! Decoding has two paths. When the writer's schema is the compiled one, the generated code reads
//! the bytes straight into the struct. Otherwise `resolve.rs` goes by Avro's schema resolution,
//! which is slower and happens only while old data is read or a newer writer is deployed.

mod headers;
mod letter;
mod resolve;

pub use headers::{child_traceparent, headers};
pub use letter::{letter_of, original};

use crate::contract::Catalogue;
use crate::contract::event::{Contract, DecodeError, DecodeErrorKind, Event, SinkReceipt};
use crate::pipeline::{Code, Fault, Record, Stage};
use hashbrown::HashMap;
use resolve::Resolver;
use rustc_hash::FxBuildHasher;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// First byte of every framed value.
const MAGIC: u8 = 0;
/// Magic byte and schema id.
const FRAME_BYTES: usize = 5;

/// Where schemas are looked up: a registry.
///
/// Calls may block for a bounded time. They happen once for each id and topic, not for each record.
pub trait SchemaSource: Send + Sync {
    /// The schema with this id.
    fn schema(&self, id: u32) -> Result<String, SchemaError>;
    /// The id under which `schema` stands in `subject`. Never registers anything.
    fn id(&self, subject: &str, schema: &str) -> Result<u32, SchemaError>;
    /// The command that registers what is missing, for messages.
    fn register_command(&self) -> String {
        "crossdock schemas register".to_owned()
    }
}

/// Why a schema was not found.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The registry answered that it has none.
    #[error("the registry has no such schema or subject")]
    NotFound,
    /// The registry refused the credentials.
    #[error("the registry refused the credentials: {0}")]
    Unauthorised(String),
    /// The registry did not answer.
    #[error("the registry did not answer: {0}")]
    Unavailable(String),
}

/// The subject of a topic's values, by Confluent's TopicNameStrategy.
pub fn subject(topic: &str) -> String {
    format!("{topic}-value")
}

/// Encodes and decodes the events of a deployment. Shared by all tasks of a process.
pub struct Codec {
    schemas: Arc<dyn SchemaSource>,
    catalogue: Catalogue,
    known: RwLock<Known>,
    ids: RwLock<HashMap<Box<str>, u32, FxBuildHasher>>,
}

/// What has been found out for decoding. One lock for both: it is taken once for each record.
#[derive(Default)]
struct Known {
    plans: HashMap<u32, Plan, FxBuildHasher>,
    /// Contracts by topic; `None` for a topic that is not in the catalogue.
    contracts: HashMap<Arc<str>, Option<Box<str>>, FxBuildHasher>,
}

/// How to decode what was written with one schema id.
struct Plan {
    contract: &'static str,
    /// `None`: the schema is the compiled one.
    resolver: Option<Resolver>,
}

impl Codec {
    /// A codec over a registry.
    pub fn new(schemas: Arc<dyn SchemaSource>, catalogue: &Catalogue) -> Self {
        Codec {
            schemas,
            catalogue: catalogue.clone(),
            known: RwLock::default(),
            ids: RwLock::default(),
        }
    }

    /// Finds the ids of these topics' contracts, so that a missing registration is known before
    /// anything starts.
    ///
    /// # Errors
    /// Names every subject that is missing, and the command that registers it; or says that the
    /// registry does not answer.
    pub fn prepare(&self, topics: &[&str]) -> Result<(), Fault> {
        let mut missing = Vec::new();
        for topic in topics {
            match self.id(topic) {
                Ok(_) => {}
                Err(fault) if fault.code == Code::IncompatibleSchema => {
                    missing.push(subject(topic))
                }
                Err(fault) => return Err(fault),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!(
            "the registry lacks this build's schema in {}; register it with `{}`",
            missing.join(", "),
            self.schemas.register_command()
        );
        Err(Fault::halt(
            Stage::Encode,
            Code::IncompatibleSchema,
            message,
        ))
    }

    /// Reads the event out of a record, by the contract of its topic.
    ///
    /// # Errors
    /// A reject for a value that can never be read, each kind with a code of its own; a retry when
    /// the registry does not answer.
    pub fn decode(&self, record: &Record) -> Result<Event, Fault> {
        let reject = |code, message: String| Fault::reject(Stage::Decode, code, message);
        let value = record.value.as_deref().unwrap_or_default();
        if value.is_empty() {
            return Err(reject(
                Code::EmptyValue,
                "the record has no value; an event was expected".into(),
            ));
        }
        if value[0] != MAGIC {
            let message = format!(
                "the value begins with byte 0x{:02x}, not with 0x00 and a schema id: it is not Confluent-framed Avro",
                value[0]
            );
            return Err(reject(Code::BadMagic, message));
        }
        let Some((frame, mut body)) = value.split_at_checked(FRAME_BYTES) else {
            return Err(reject(
                Code::Truncated,
                format!("{} bytes are too few for a schema id", value.len()),
            ));
        };
        let id = u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]);
        let topic = &record.origin.topic;
        let known = self.known(id, Some(topic))?;
        let (Some(plan), Some(contract)) = (known.plans.get(&id), known.contracts.get(topic))
        else {
            return Err(Fault::halt(Stage::Decode, Code::Bug, "a memo was lost"));
        };
        match contract {
            Some(expected) if **expected == *plan.contract => {}
            Some(expected) => {
                let message = format!(
                    "schema {id} is {}, but {topic} carries {expected}",
                    plan.contract
                );
                return Err(reject(Code::WrongContract, message));
            }
            None => {
                return Err(reject(
                    Code::WrongContract,
                    format!("{topic} is not in topics.yaml"),
                ));
            }
        }
        let resolved;
        if let Some(resolver) = &plan.resolver {
            resolved = resolver
                .resolve(&mut body)
                .map_err(|e| reject(e.code(), format!("schema {id}: {e}")))?;
            if body.is_empty() {
                body = &resolved;
            }
        }
        let event = match Event::decode(plan.contract, &mut body) {
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                return Err(reject(
                    code_of(&error),
                    format!("{} with schema {id}: {error}", plan.contract),
                ));
            }
            None => {
                return Err(Fault::halt(
                    Stage::Decode,
                    Code::Bug,
                    format!("{} is not compiled in", plan.contract),
                ));
            }
        };
        if body.is_empty() {
            Ok(event)
        } else {
            Err(reject(
                Code::TrailingBytes,
                format!("{} bytes are left behind the {}", body.len(), plan.contract),
            ))
        }
    }

    /// Reads a sink's own receipt from its framed value; `None` when it is not one.
    pub fn decode_receipt(&self, value: &[u8]) -> Option<SinkReceipt> {
        let (frame, mut body) = value.split_at_checked(FRAME_BYTES)?;
        let id = u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]);
        let known = self.known(id, None).ok()?;
        let plan = known.plans.get(&id)?;
        let resolved;
        if let Some(resolver) = &plan.resolver {
            resolved = resolver.resolve(&mut body).ok()?;
            body = &resolved;
        }
        SinkReceipt::decode(&mut body).ok()
    }

    /// Appends the framed value of `event` for `topic`.
    ///
    /// # Errors
    /// A halt when the registry does not know the schema, a retry when it does not answer.
    pub fn encode(&self, topic: &str, event: &Event, out: &mut Vec<u8>) -> Result<(), Fault> {
        let id = self.id(topic)?;
        out.push(MAGIC);
        out.extend_from_slice(&id.to_be_bytes());
        event.encode(out);
        Ok(())
    }

    /// What is known, with the plan of `id` and the contract of `topic` found.
    fn known(
        &self,
        id: u32,
        topic: Option<&Arc<str>>,
    ) -> Result<RwLockReadGuard<'_, Known>, Fault> {
        let known = read(&self.known);
        let plan_known = known.plans.contains_key(&id);
        if plan_known && topic.is_none_or(|t| known.contracts.contains_key(t)) {
            return Ok(known);
        }
        drop(known);
        let plan = if plan_known {
            None
        } else {
            Some(self.plan(id)?)
        };
        let mut known = write(&self.known);
        if let Some(plan) = plan {
            known.plans.insert(id, plan);
        }
        if let Some(topic) = topic {
            let contract = self.catalogue.contract(topic).map(Box::from);
            known.contracts.insert(topic.clone(), contract);
        }
        drop(known);
        Ok(read(&self.known))
    }

    fn plan(&self, id: u32) -> Result<Plan, Fault> {
        let schema = self.schemas.schema(id).map_err(|error| match error {
            SchemaError::NotFound => Fault::reject(
                Stage::Decode,
                Code::UnknownSchemaId,
                format!("the registry has no schema with id {id}"),
            ),
            other => registry_fault(Stage::Decode, other),
        })?;
        let (contract, resolver) = resolve::plan(&schema)
            .map_err(|e| Fault::reject(Stage::Decode, e.code(), format!("schema {id}: {e}")))?;
        Ok(Plan { contract, resolver })
    }

    fn id(&self, topic: &str) -> Result<u32, Fault> {
        if let Some(id) = read(&self.ids).get(topic) {
            return Ok(*id);
        }
        let contract = self.catalogue.contract(topic).unwrap_or_default();
        let Some((_, schema)) = Event::CONTRACTS.iter().find(|(name, _)| *name == contract) else {
            return Err(Fault::halt(
                Stage::Encode,
                Code::Bug,
                format!("{topic} has no contract in topics.yaml"),
            ));
        };
        let id = self
            .schemas
            .id(&subject(topic), schema)
            .map_err(|error| match error {
                SchemaError::NotFound => Fault::halt(
                    Stage::Encode,
                    Code::IncompatibleSchema,
                    format!(
                        "the registry lacks this build's schema in {}; register it with `{}`",
                        subject(topic),
                        self.schemas.register_command()
                    ),
                ),
                other => registry_fault(Stage::Encode, other),
            })?;
        write(&self.ids).insert(topic.into(), id);
        Ok(id)
    }
}

fn registry_fault(stage: Stage, error: SchemaError) -> Fault {
    match error {
        SchemaError::Unauthorised(_) => Fault::halt(
            stage,
            Code::Unauthorised,
            "the schema registry refused the credentials; mend `registry:` in the configuration",
        ),
        _ => Fault::retry(
            stage,
            Code::RegistryUnavailable,
            "the schema registry does not answer; start it, or name another with --registry",
        ),
    }
    .caused_by(error)
}

fn code_of(error: &DecodeError) -> Code {
    if error.kind == DecodeErrorKind::Truncated {
        Code::Truncated
    } else {
        Code::Malformed
    }
}

// A panic while a lock is held leaves a memo that is whole: entries are inserted in one call.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
