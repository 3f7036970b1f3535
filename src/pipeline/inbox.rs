//! Inboxes: where a connector keeps what was delivered to it before it answers.

use super::{Fault, SourceReject};
use crate::contract::event::Text;
use crate::domain::Timestamp;
use bytes::Bytes;

/// A delivery as it is kept: opaque but for its name and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawDelivery {
    /// The sender's name for it; the same when it is sent again. At most 255 bytes.
    pub id: Text,
    /// When it came.
    pub received_at: Timestamp,
    /// What came, encrypted with the connector's key.
    pub sealed: Bytes,
}

/// A part of an inbox, read in the order of arrival.
#[derive(Debug, Default)]
pub struct InboxPage {
    /// Positions, from 0, and what stands there.
    pub deliveries: Vec<(i64, RawDelivery)>,
    /// What stands there and cannot be read.
    pub unreadable: Vec<SourceReject>,
    /// Where to read on.
    pub next: i64,
    /// Whether there was more when it was read.
    pub more: bool,
}

/// The deliveries to one connector, in the log. Every instance of the connector may keep, the one
/// that owns the source's shard reads.
///
/// Calls block, for as long as the log takes at most.
pub trait Inbox: Send + Sync {
    /// Keeps deliveries, in this order. They are durable when it returns.
    ///
    /// # Errors
    /// All of them, some or none may have been kept; keeping them again may keep them twice.
    fn keep(&self, deliveries: &[RawDelivery]) -> Result<(), Fault>;
    /// At most about `max` deliveries from `position` on. What has gone by age is passed over.
    ///
    /// # Errors
    /// When the log does not answer; the position is still good.
    fn read(&self, position: i64, max: usize) -> Result<InboxPage, Fault>;
}
