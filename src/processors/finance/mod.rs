//! What the processors of an order's money have in common: from events to facts and back.

pub(super) mod cases;
pub(super) mod facts;
pub(super) mod postings;

use crate::contract::event::{EventMeta, Origin as FactOrigin, Outcome, PositionKind};
use crate::domain::finance::Taken;
use crate::domain::{Timestamp, event_id};
use crate::pipeline::{Context, Fault};
use crate::processors::checks::quality;

/// Who emits, and because of what.
pub(super) struct Emitter<'a> {
    /// Name of the processor.
    pub processor: &'static str,
    /// The source that its events name.
    pub source: &'static str,
    /// What it is about: the key.
    pub entity: &'a str,
    /// The newest fact of this call, if there was one.
    pub cause: Option<&'a EventMeta>,
    /// When it happened, else now.
    pub at: Timestamp,
}

impl Emitter<'_> {
    /// The beginning of an event that is version `position` of `record_id`.
    pub(super) fn meta(&self, event_type: &str, record_id: &str, position: i64) -> EventMeta {
        EventMeta {
            event_id: event_id(self.source, 0, record_id, "", event_type),
            event_type: event_type.into(),
            source: self.source.into(),
            source_position: position,
            position_kind: PositionKind::Version,
            occurred_at: self.at,
            tenant_id: "default".into(),
            correlation_id: self
                .cause
                .map_or_else(|| self.entity.into(), |m| m.correlation_id.clone()),
            causation_id: self.cause.map(|m| m.event_id),
            origin: FactOrigin::Source,
            ..EventMeta::default()
        }
    }
}

/// How a fact's record ends; an order with too many facts refuses it.
pub(super) fn settle(index: usize, taken: Taken, context: &mut Context<'_>) {
    match outcome(taken) {
        Ok((outcome, reason)) => context.settle(index, outcome, reason),
        Err(fault) => context.reject(index, fault),
    }
}

/// The outcome of a fact.
fn outcome(taken: Taken) -> Result<(Outcome, Option<&'static str>), Fault> {
    Ok(match taken {
        Taken::Applied => (Outcome::Applied, None),
        Taken::Duplicate => (Outcome::Duplicate, None),
        Taken::Superseded => (Outcome::Superseded, Some("something newer is known")),
        Taken::TooMany => {
            let most = crate::domain::finance::FACTS_MAX;
            return Err(quality(format!(
                "the order has {most} facts of this kind, more than any order has; check the orderId that its source sends"
            )));
        }
    })
}

/// Writes `bytes` as the state of `key` where they differ, and the timer where it does.
pub(super) fn keep(
    key: &str,
    bytes: &[u8],
    timer: (Option<Timestamp>, Option<Timestamp>),
    context: &mut Context<'_>,
) {
    let (before, after) = timer;
    if before != after {
        context.set_timer(key, after);
    }
    if context.state().get(key.as_bytes()) != Some(bytes) {
        context.state().put(key.as_bytes(), bytes);
    }
}

/// Forgets an order that is over for good.
pub(super) fn forget(key: &str, context: &mut Context<'_>) {
    context.state().delete(key.as_bytes());
    context.set_timer(key, None);
}
