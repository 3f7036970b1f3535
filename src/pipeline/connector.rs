//! Connectors: a system's source and sink, its configuration, and a stand-in to test against.

use super::{Capabilities, Fault, Sink, Source, Vault};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// How far a connector has been tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Against the real system, in the tests of this project.
    RealSystem,
    /// Against a stand-in that validates calls by the vendor's published contract.
    Contract,
    /// Against a stand-in written from documentation.
    Documentation,
}

impl Evidence {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Evidence::RealSystem => "tested against the real system",
            Evidence::Contract => "tested against the vendor's published contract",
            Evidence::Documentation => "tested against a stand-in written from documentation",
        }
    }
}

/// Builds a connector with this instance name from settings.
pub type BuildConnector = fn(&str, serde_json::Value) -> Result<Arc<dyn Connector>, Fault>;

/// Starts a stand-in.
pub type StartFake = fn(FakeOptions) -> BoxFuture<'static, std::io::Result<Box<dyn Fake>>>;

/// What a kind of connector is. One constant for each folder under `connectors/`.
pub struct ConnectorDescriptor {
    /// Kind, as in `kind:` of a configuration: `tryton`, `vendure`, `file`.
    pub kind: &'static str,
    /// One sentence for people.
    pub purpose: &'static str,
    /// Topics that its source writes.
    pub emits: &'static [&'static str],
    /// Whether its source takes deliveries over HTTP, kept in an [`Inbox`](super::Inbox).
    pub inbox: bool,
    /// Topics that its sink reads.
    pub accepts: &'static [&'static str],
    /// What its sink can do.
    pub sink: Option<Capabilities>,
    /// How far it has been tried.
    pub evidence: Evidence,
    /// JSON schema of its settings; the doc comments of the settings struct are the documentation.
    pub settings: fn() -> schemars::Schema,
    /// Builds a connector named `instance` from settings that satisfy the schema.
    pub build: BuildConnector,
    /// Starts a stand-in of the system over real HTTP (or in a folder) on loopback, and the
    /// settings with which a connector reaches it. `None` where the system is the file system.
    pub fake: Option<StartFake>,
}

/// One thing that a connector needs to do its job, tried against the live system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was tried, for example `read stock locations`.
    pub what: String,
    /// `Err` holds cause and remedy.
    pub result: Result<String, String>,
}

/// A configured connector.
#[async_trait::async_trait]
pub trait Connector: Send + Sync {
    /// A new source, where the kind has one.
    fn source(&self) -> Option<Box<dyn Source>>;
    /// The sink, where the kind has one.
    fn sink(&self) -> Option<Arc<dyn Sink>>;
    /// Whether its settings say that it tells or takes who customers are. Such a one is handed a vault
    /// before its source and sink are made.
    fn knows_customers(&self) -> bool {
        false
    }
    /// Hands it the vault.
    fn entrust(&self, _vault: Arc<dyn Vault>) {}
    /// Tries, without changing anything, what the connector needs of the live system.
    async fn check(&self) -> Vec<Check>;
}

/// How a stand-in begins.
#[derive(Clone, Debug, Default)]
pub struct FakeOptions {
    /// SKUs it knows.
    pub skus: Vec<String>,
    /// Stock locations it knows.
    pub locations: Vec<String>,
    /// Seed of whatever it chooses.
    pub seed: u64,
}

/// A fault to be shown by a stand-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FakeFault {
    /// Answers with this status, and `Retry-After` when given.
    Status(u16, Option<Duration>),
    /// Applies the call, then closes the connection without an answer.
    AppliedThenCut,
    /// Closes the connection without applying the call.
    Cut,
    /// Applies the call and answers only after this long.
    Slow(Duration),
    /// Answers 200 with a body that is not what the API promises.
    Garbage,
    /// Refuses the credentials.
    Unauthorised,
}

/// A call that a stand-in has seen.
#[derive(Clone, Debug, PartialEq)]
pub struct FakeCall {
    /// When it came.
    pub at: std::time::Instant,
    /// HTTP method and path.
    pub operation: String,
    /// Whether it had its effect.
    pub applied: bool,
    /// Body, as JSON where it was JSON.
    pub body: serde_json::Value,
}

/// A stateful stand-in of a system over real HTTP. Dropping it closes its socket.
pub trait Fake: Send + Sync {
    /// Base URL.
    fn url(&self) -> String;
    /// Settings with which a connector of the kind reaches it.
    fn settings(&self) -> serde_json::Value;
    /// Shows these faults on the next calls that change something (on a system that is only read:
    /// on the next calls that read), one each, in order.
    fn inject(&self, faults: Vec<FakeFault>);
    /// Refuses (`true`) all calls as a system that is down does, or serves again.
    fn set_down(&self, down: bool);
    /// Serves again, and takes back the faults that no call has met.
    fn heal(&self);
    /// The calls that changed or would have changed something, in order; of very many the latest.
    fn calls(&self) -> Vec<FakeCall>;
    /// How many such calls there were.
    fn calls_taken(&self) -> u64 {
        self.calls().len() as u64
    }
    /// What the system holds, as its own books would show it: for oracles.
    fn books(&self) -> serde_json::Value;
    /// Makes something happen in the system as its own users would (kind-specific, as JSON).
    /// `Err` says why the stand-in cannot.
    fn act(&self, action: &serde_json::Value) -> Result<serde_json::Value, String>;
}
