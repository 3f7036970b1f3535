//! Schema registries: a client for any that speaks Confluent's REST API, and an embedded one that
//! keeps its schemas in a compacted topic and serves the same API.
//!
//! [`Registry`] is what both have in common. It is synchronous, because schemas are looked up by
//! tasks that own their thread; every call ends within a bounded time. Nothing here registers a
//! schema while events flow: only `crossdock schemas register` does ([`register`]).

mod client;
mod embedded;
mod level;
mod normal;
pub mod register;
mod server;
mod store;

pub use client::{Authorisation, ClientSettings, RegistryClient};
pub use embedded::{EmbeddedRegistry, TOPIC, topic_spec};
pub use level::Level;
pub use server::{BODY_BYTES_MAX, ServedRegistry, router, serve};

use crate::codec::{SchemaError, SchemaSource};
use std::fmt;
use std::sync::Arc;

/// A schema as it stands in a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Subject, such as `retail.stock.change.v1-value`.
    pub subject: String,
    /// Version within the subject, from 1.
    pub version: u32,
    /// Id under which the schema is known in every subject.
    pub id: u32,
    /// The schema's text.
    pub schema: String,
}

/// One version of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The newest.
    Latest,
    /// This one, from 1.
    Number(u32),
}

impl Version {
    /// Reads `latest`, `-1` (as Confluent's clients may say) or a number from 1.
    ///
    /// # Errors
    /// [`RegistryError::InvalidVersion`] for anything else.
    pub fn parse(text: &str) -> Result<Version, RegistryError> {
        if text == "latest" || text == "-1" {
            return Ok(Version::Latest);
        }
        match text.parse::<u32>() {
            Ok(number) if (1..=i32::MAX as u32).contains(&number) => Ok(Version::Number(number)),
            _ => Err(RegistryError::InvalidVersion(text.to_owned())),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Latest => f.write_str("latest"),
            Version::Number(number) => write!(f, "{number}"),
        }
    }
}

/// What a schema registry can do. Calls may block for a bounded time and may come from any thread,
/// one that belongs to an async runtime included.
pub trait Registry: Send + Sync {
    /// Where the registry is, for messages; holds no secret.
    fn address(&self) -> &str;
    /// The options with which `crossdock schemas register` reaches this registry; empty for one
    /// that only this process has.
    fn options(&self) -> String;
    /// Names of all subjects, sorted.
    ///
    /// # Errors
    /// When the registry cannot answer.
    fn subjects(&self) -> Result<Vec<String>, RegistryError>;
    /// Versions of a subject, ascending.
    ///
    /// # Errors
    /// [`RegistryError::NoSuchSubject`], or when the registry cannot answer.
    fn versions(&self, subject: &str) -> Result<Vec<u32>, RegistryError>;
    /// One version of a subject.
    ///
    /// # Errors
    /// [`RegistryError::NoSuchSubject`], [`RegistryError::NoSuchVersion`], or when the registry
    /// cannot answer.
    fn version(&self, subject: &str, version: Version) -> Result<Registered, RegistryError>;
    /// Text of the schema with this id.
    ///
    /// # Errors
    /// [`RegistryError::NoSuchSchema`], or when the registry cannot answer.
    fn by_id(&self, id: u32) -> Result<String, RegistryError>;
    /// The version under which `schema` stands in `subject`. Registers nothing.
    ///
    /// # Errors
    /// [`RegistryError::NoSuchSubject`], [`RegistryError::NoSuchSchema`],
    /// [`RegistryError::InvalidSchema`], or when the registry cannot answer.
    fn lookup(&self, subject: &str, schema: &str) -> Result<Registered, RegistryError>;
    /// What keeps `schema` from becoming the next version of `subject`, by the subject's level of
    /// compatibility; empty when nothing does, or when there is no such subject yet.
    ///
    /// # Errors
    /// [`RegistryError::InvalidSchema`], or when the registry cannot answer.
    fn objections(&self, subject: &str, schema: &str) -> Result<Vec<String>, RegistryError>;
    /// Makes `schema` the next version of `subject` and gives its id. A schema that stands there
    /// already keeps its version and id.
    ///
    /// # Errors
    /// [`RegistryError::Incompatible`], [`RegistryError::InvalidSchema`], or when the registry
    /// cannot answer; in the last case it may have been registered, and registering it again is
    /// harmless.
    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError>;
    /// As [`Registry::register`] for each of these subjects and schemas, in order. A registry that
    /// can does so at once: then all of them are registered, or none.
    ///
    /// # Errors
    /// As [`Registry::register`], at the first that fails.
    fn register_all(&self, schemas: &[(&str, &str)]) -> Result<Vec<u32>, RegistryError> {
        let each = schemas.iter();
        each.map(|(subject, schema)| self.register(subject, schema))
            .collect()
    }
    /// Level of compatibility of a subject, or the global one where it has none of its own.
    ///
    /// # Errors
    /// When the registry cannot answer.
    fn level(&self, subject: &str) -> Result<Level, RegistryError>;
    /// Sets the level of a subject.
    ///
    /// # Errors
    /// When the registry cannot answer.
    fn set_level(&self, subject: &str, level: Level) -> Result<(), RegistryError>;
}

/// Why a registry did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// There is no such subject.
    #[error("subject '{0}' not found")]
    NoSuchSubject(String),
    /// The subject has no such version.
    #[error("version {version} not found in subject '{subject}'")]
    NoSuchVersion {
        /// The subject.
        subject: String,
        /// The version asked for.
        version: String,
    },
    /// No schema has this id, or the subject does not hold this schema.
    #[error("schema not found{0}")]
    NoSuchSchema(String),
    /// The subject has no level of compatibility of its own.
    #[error("subject '{0}' does not have a compatibility level of its own")]
    NoLevel(String),
    /// It is not an Avro schema that this registry takes.
    #[error("{0}")]
    InvalidSchema(String),
    /// It is not a version.
    #[error("'{0}' is not a version: write latest, or a number from 1")]
    InvalidVersion(String),
    /// It is not a level of compatibility.
    #[error(
        "'{0}' is not a compatibility level: write NONE, BACKWARD, FORWARD, FULL or one of these three with _TRANSITIVE"
    )]
    InvalidLevel(String),
    /// It is not a subject.
    #[error("'{0}' is not a subject: write 1 to 249 characters without control characters")]
    InvalidSubject(String),
    /// The schema breaks the subject's compatibility.
    #[error("the schema is incompatible with subject '{subject}': {}", reasons.join("; "))]
    Incompatible {
        /// The subject.
        subject: String,
        /// Each break, in words.
        reasons: Vec<String>,
    },
    /// The credentials were refused.
    #[error("the schema registry at {address} refused the credentials: {cause}")]
    Unauthorised {
        /// Where the registry is.
        address: String,
        /// Its words.
        cause: String,
    },
    /// No answer, in time or at all; nothing is known about the request's effect.
    #[error("the schema registry at {address} does not answer: {cause}")]
    Unavailable {
        /// Where the registry is.
        address: String,
        /// The client's words.
        cause: String,
    },
    /// Any other refusal.
    #[error("the schema registry refused: {message} (code {code})")]
    Refused {
        /// Confluent's error code.
        code: u32,
        /// The registry's words.
        message: String,
    },
}

impl RegistryError {
    /// The error code of Confluent's REST API; its leading three digits are the HTTP status.
    pub fn code(&self) -> u32 {
        match self {
            RegistryError::NoSuchSubject(_) => 40401,
            RegistryError::NoSuchVersion { .. } => 40402,
            RegistryError::NoSuchSchema(_) => 40403,
            RegistryError::NoLevel(_) => 40408,
            RegistryError::InvalidSchema(_) => 42201,
            RegistryError::InvalidVersion(_) => 42202,
            RegistryError::InvalidLevel(_) => 42203,
            RegistryError::InvalidSubject(_) => 42208,
            RegistryError::Incompatible { .. } => 409,
            RegistryError::Unauthorised { .. } => 401,
            RegistryError::Unavailable { .. } => 50001,
            RegistryError::Refused { code, .. } => *code,
        }
    }

    /// The error that `code` of Confluent's REST API stands for.
    fn from_code(code: u32, message: String, subject: &str) -> RegistryError {
        match code {
            40401 => RegistryError::NoSuchSubject(subject.to_owned()),
            40402 => RegistryError::NoSuchVersion {
                subject: subject.to_owned(),
                version: "asked for".into(),
            },
            40403 => RegistryError::NoSuchSchema(String::new()),
            40408 => RegistryError::NoLevel(subject.to_owned()),
            42201 => RegistryError::InvalidSchema(message),
            42202 => RegistryError::InvalidVersion(message),
            42203 => RegistryError::InvalidLevel(message),
            42208 => RegistryError::InvalidSubject(subject.to_owned()),
            409 | 40900..=40999 => RegistryError::Incompatible {
                subject: subject.to_owned(),
                reasons: vec![message],
            },
            code => RegistryError::Refused { code, message },
        }
    }

    /// Whether the registry answered, and has none of what was asked for.
    pub fn is_not_found(&self) -> bool {
        self.code() / 100 == 404
    }
}

/// A registry as the codec wants it.
pub fn schemas(registry: Arc<dyn Registry>) -> Arc<dyn SchemaSource> {
    struct Source(Arc<dyn Registry>);
    impl SchemaSource for Source {
        fn schema(&self, id: u32) -> Result<String, SchemaError> {
            self.0.schema(id)
        }
        fn id(&self, subject: &str, schema: &str) -> Result<u32, SchemaError> {
            self.0.id(subject, schema)
        }
        fn register_command(&self) -> String {
            self.0.register_command()
        }
    }
    Arc::new(Source(registry))
}

impl<R: Registry + ?Sized> SchemaSource for R {
    fn schema(&self, id: u32) -> Result<String, SchemaError> {
        self.by_id(id).map_err(to_schema_error)
    }
    fn id(&self, subject: &str, schema: &str) -> Result<u32, SchemaError> {
        self.lookup(subject, schema)
            .map(|registered| registered.id)
            .map_err(to_schema_error)
    }
    fn register_command(&self) -> String {
        format!("crossdock schemas register {}", self.options())
            .trim_end()
            .to_owned()
    }
}

fn to_schema_error(error: RegistryError) -> SchemaError {
    match error {
        RegistryError::Unauthorised { address, cause } => {
            SchemaError::Unauthorised(format!("{address}: {cause}"))
        }
        RegistryError::Unavailable { address, cause } => {
            SchemaError::Unavailable(format!("{address}: {cause}"))
        }
        error if error.is_not_found() => SchemaError::NotFound,
        error => SchemaError::Unavailable(error.to_string()),
    }
}
