//! Who customers are: the keys of persons in the log, and their erasure.
//!
//! Each person has a key, kept in `retail.customer.key.v1` encrypted with a configured one. To erase a
//! person is to destroy the key: whatever was sealed with it is noise from then on, in every topic, copy
//! and backup that has not the key itself; the broker drops the key's old record within a day
//! (`compaction_hours_max`).
//!
//! **Nobody comes back.** A record without a key marks who was erased. Two processes can make keys for one
//! person at a time: all of them count, and all of them go. Whoever makes a key looks for the mark *after*
//! the key is durable, and whoever erases looks for keys *after* the mark is: so one of both sees the other,
//! whatever the interleaving. What a process that died in between has left is swept by whoever reads next.

mod vault;

pub use vault::{Forgotten, LogVault};

use crate::codec::Codec;
use crate::contract::event::{
    Audit, CustomerChanged, CustomerStatus, EventMeta, Origin, PositionKind, Text,
};
use crate::contract::topic;
use crate::domain::{Timestamp, compound_key, event_id};
use crate::log::{Log, ProducerSpec};
use crate::pipeline::Fault;
use std::sync::Arc;

const SOURCE: &str = "crossdock/customers";

/// Who erases, whom, and why.
#[derive(Clone, Debug)]
pub struct Erasure {
    /// Whose customer it is.
    pub channel: String,
    /// The channel's name of the customer.
    pub customer: String,
    /// Who asks for it.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
}

/// Erases a person: destroys its keys, tells systems to forget it, and audits that. Done again it destroys
/// what has come since (which is nothing), and tells and audits again.
///
/// # Errors
/// When the log or the registry does not answer; doing it again goes on.
pub fn erase(
    log: &Arc<dyn Log>,
    codec: &Arc<Codec>,
    erasure: &Erasure,
    now: Timestamp,
) -> Result<Forgotten, Fault> {
    codec.prepare(&[
        topic::CUSTOMER_KEY,
        topic::CUSTOMER_CHANGE,
        topic::OPS_AUDIT,
    ])?;
    let Erasure {
        channel, customer, ..
    } = erasure;
    let forgotten =
        LogVault::without_keys(log.clone(), codec.clone()).forget(channel, customer, now)?;
    let key = compound_key(&[channel, customer]);
    let changed = CustomerChanged {
        meta: meta("CustomerChanged", &format!("{key}#erased@{}", now.0), now),
        channel_id: channel.as_str().into(),
        customer_id: customer.as_str().into(),
        // Above every version that a source gives, which are times too.
        customer_version: now.0,
        status: CustomerStatus::Erased,
        ..CustomerChanged::default()
    };
    let destroyed = format!("{} keys destroyed", forgotten.keys);
    let audit = Audit {
        meta: meta("Audit", &format!("{key}#erase@{}", now.0), now),
        actor: erasure.actor.as_str().into(),
        action: "ERASE".into(),
        target: compact_str::format_compact!("customer {key}"),
        reason: erasure.reason.as_deref().map(Text::from),
        before: None,
        after: Some(destroyed.into()),
        outcome: "DONE".into(),
    };
    let mut producer = log.producer(&ProducerSpec::default())?;
    for (topic, event) in [
        (topic::CUSTOMER_CHANGE, changed.into()),
        (topic::OPS_AUDIT, audit.into()),
    ] {
        vault::send(producer.as_mut(), codec, topic, &key, &event, now)?;
    }
    producer.flush()?;
    Ok(forgotten)
}

fn meta(event_type: &str, record_id: &str, now: Timestamp) -> EventMeta {
    EventMeta {
        event_id: event_id(SOURCE, 0, record_id, "", event_type),
        event_type: event_type.into(),
        source: SOURCE.into(),
        source_position: now.0,
        position_kind: PositionKind::TimestampMicros,
        occurred_at: now,
        recorded_at: now,
        tenant_id: "default".into(),
        correlation_id: record_id.into(),
        origin: Origin::Manual,
        ..EventMeta::default()
    }
}
