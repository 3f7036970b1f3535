//! The vocabulary of the platform: what flows ([`Record`]), who makes it flow ([`Source`],
//! [`Processor`], [`Sink`]), what they may remember ([`State`]), and how things go wrong
//! ([`Fault`]). Nothing here does I/O.
//!
//! A connector brings a [`Source`], a [`Sink`] or both ([`Connector`]); the runtime drives them and
//! is the only one that matches on a [`Verdict`].

mod clock;
mod connector;
mod fault;
mod inbox;
mod processor;
mod record;
pub mod rehearsal;
pub mod requests;
mod sink;
mod source;
mod vault;

pub use clock::{Clock, SystemClock};
pub use connector::{
    BuildConnector, Check, Connector, ConnectorDescriptor, Evidence, Fake, FakeCall, FakeFault,
    FakeOptions, StartFake,
};
pub use fault::{Code, Fault, Stage, Verdict};
pub use inbox::{Inbox, InboxPage, RawDelivery};
pub use processor::{
    Context, Emission, Inbound, Output, Processor, ProcessorDescriptor, Resolution, Settlement,
    State,
};
pub(crate) use record::pack_header;
pub use record::{
    Headers, HeadersBuilder, Origin, REDRIVEN_FROM_HEADER, REDRIVES_HEADER, REPLAY_HEADER, Record,
};
pub use sink::{Ack, Capabilities, Delivery, Idempotency, Replay, Sent, Sink};
pub use source::{Cursor, Source, SourceBatch, SourceOrigin, SourceRecord, SourceReject};
pub use vault::{Address, Person, Vault};
