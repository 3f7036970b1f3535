//! Sources: from a system into the log.

use super::{Fault, Inbox};
use crate::contract::event::{Event, Text};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;

/// How far a source has read: opaque to the runtime, stored in one transaction with the records
/// that were read up to it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Cursor {
    /// The source's own bookmark, as JSON: stamps, ids, byte offsets.
    pub bookmark: serde_json::Value,
    /// The next durable ingest sequence: the position of the next fact of a system that has no
    /// commit-ordered positions of its own. Begins at 1.
    pub sequence: i64,
}

/// An event that a source has read.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceRecord {
    /// Topic to write it to.
    pub topic: &'static str,
    /// Record key.
    pub key: Text,
    /// The event, its `meta` complete but for `recorded_at`, which the runtime stamps.
    pub event: Event,
}

/// Where a source found something: for dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SourceOrigin {
    /// File, table or endpoint.
    pub container: String,
    /// Line, row id or object id in it.
    pub item: String,
}

/// Something that a source has read and could not turn into an event.
#[derive(Debug)]
pub struct SourceReject {
    /// Where it was found.
    pub origin: SourceOrigin,
    /// The original bytes.
    pub raw: Bytes,
    /// Why.
    pub fault: Fault,
}

/// What one poll of a source brought.
#[derive(Debug, Default)]
pub struct SourceBatch {
    /// Events in the order of the source.
    pub records: Vec<SourceRecord>,
    /// What could not be read.
    pub rejects: Vec<SourceReject>,
    /// Where to go on after this batch.
    pub cursor: Cursor,
    /// Whether there is more to read at once.
    pub more: bool,
}

/// Reads facts out of a system.
///
/// The life of a source: the runtime asks for its [`Source::shards`]; for each shard that this
/// process owns it polls with the shard's durable cursor, writes records, rejects and the new cursor
/// in one transaction, and then calls [`Source::committed`]. After a crash it polls again from the
/// last durable cursor: everything read since is read again and must become the same events, with
/// the same ids.
#[async_trait::async_trait]
pub trait Source: Send {
    /// The source name that its facts carry, where that is not the connector instance's.
    fn source_name(&self) -> Option<&str> {
        None
    }

    /// The parts that can be read independently, possibly by different processes; stable names.
    fn shards(&self) -> Vec<String> {
        vec!["main".to_owned()]
    }
    /// Called once, before anything else, on every instance of the connector, also on those that
    /// own no shard. A source that takes deliveries begins to: whatever it has kept in `inbox` is
    /// read by the instance that owns the shard, from the position in its cursor on. Sources of
    /// other kinds leave the inbox alone.
    ///
    /// # Errors
    /// When it cannot take deliveries, its address being taken for example; a new source is made
    /// and opened later.
    fn open(&mut self, _inbox: Arc<dyn Inbox>) -> Result<(), Fault> {
        Ok(())
    }
    /// Where it takes deliveries, once it is open.
    fn address(&self) -> Option<SocketAddr> {
        None
    }
    /// Ends when there is something to read sooner than it would be looked for anyhow. Cancel-safe.
    async fn woken(&mut self) {
        std::future::pending().await
    }
    /// Reads what comes after `cursor` (`None`: from the beginning), at most a batch of bounded
    /// size, without waiting for more to happen.
    ///
    /// Cancel-safe: dropping the future loses nothing, since only a durable cursor moves the source
    /// on. Must not change the system that it reads.
    async fn poll(&mut self, shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault>;
    /// Told that everything up to `cursor` is durable: the place for acknowledgements to the other
    /// side. May be called again for the same cursor.
    async fn committed(&mut self, _shard: &str, _cursor: &Cursor) -> Result<(), Fault> {
        Ok(())
    }
}
