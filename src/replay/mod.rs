//! Replay: giving records to one sink once more.
//!
//! What is asked for is found in the sink's topics (`find`), held against what its target has
//! (`judge`), and what differs is put into the sink's park topic, each record in the line of its key
//! (`send`). So nobody but the running sink ever writes to the target: the order of each key, the budget of
//! calls, receipts and the look before a call are those of every other record, and no other reader hears of
//! it. A record that is in that topic is sent whatever becomes of this process.
//!
//! What a record would change is found out by doing it: the sink's own code runs against the target up to
//! the first request that would change something ([`rehearsal`](crate::pipeline::rehearsal)). Where a sink
//! does not look before it writes, its receipts say whether the target has taken the record.
//!
//! Who asks for it is an operator (`crossdock replay`), or a record of the log: a correction that says that an
//! ERP has to be told of an order again is carried out by the sink that it is for (`carry`), in the same way.
//!
//! Of a topic of states only the newest of a key is sent. Of facts, all that follows the first of a key that
//! differs is sent too: one of them alone could undo what came later.

mod carry;
mod find;
mod judge;
mod send;

pub use carry::carrying_out;
pub use find::{Found, Gap};
pub use judge::{Judged, Verdict};
pub use send::{Ended, Sender, WAITING_MAX};

use crate::codec::Codec;
use crate::contract::Catalogue;
use crate::contract::event::Text;
use crate::domain::Timestamp;
use crate::log::Log;
use crate::pipeline::{Inbound, Sink};
use std::sync::Arc;

/// Records that one replay looks at, at most.
pub const RECORDS_MAX: usize = 100_000;

/// Where a replay reads and writes, and for whom.
#[derive(Clone)]
pub struct Target {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Reads and writes its records.
    pub codec: Arc<Codec>,
    /// The topics.
    pub catalogue: &'static Catalogue,
    /// First part of the group and transactional ids of the deployment.
    pub application: String,
    /// Name of the connector instance.
    pub name: String,
    /// Topics that its sink reads.
    pub topics: Vec<String>,
    /// Its sink.
    pub sink: Arc<dyn Sink>,
    /// Who puts records into its lines, as the last part of a transactional id: of the same name one at a time.
    pub writer: String,
}

/// What is to be replayed. Everything that is given narrows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Only records of this order.
    pub order: Option<String>,
    /// Only records about this SKU.
    pub sku: Option<String>,
    /// Only records about this stock location.
    pub location: Option<String>,
    /// Only records that were written at this time or later.
    pub since: Option<Timestamp>,
    /// Only records that were written before this time.
    pub until: Option<Timestamp>,
}

impl Ask {
    /// For people.
    pub fn words(&self) -> String {
        let of = |what: &str, name: &Option<String>| name.as_ref().map(|n| format!("{what} {n}"));
        let at = |what: &str, time: Option<Timestamp>| time.map(|t| format!("{what} {t}"));
        let words = [
            of("order", &self.order),
            of("SKU", &self.sku),
            of("location", &self.location),
            at("since", self.since),
            at("until", self.until),
        ];
        words.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Why there is nothing that could be replayed: cause and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// A record that was asked for.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its key.
    pub key: Text,
    /// The record, and what it says; or why it cannot be read.
    pub inbound: Result<Inbound, (crate::pipeline::Record, String)>,
    /// Whether it was written after what was asked for: sent only behind another of its key.
    pub is_later: bool,
}

impl Candidate {
    /// The record.
    pub fn record(&self) -> &crate::pipeline::Record {
        match &self.inbound {
            Ok(inbound) => &inbound.record,
            Err((record, _)) => record,
        }
    }
}
