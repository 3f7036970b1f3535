//! How a processor's events begin.

use crate::contract::event::{EventMeta, Origin as FactOrigin, PositionKind};
use crate::domain::{Timestamp, event_id};
use crate::pipeline::Inbound;

/// Who emits, about what, and because of what.
pub struct Emitter<'a> {
    /// Name of the processor.
    pub processor: &'static str,
    /// The source that its events name.
    pub source: &'static str,
    /// What it is about: the key.
    pub entity: &'a str,
    /// The record that they follow from; none when time has passed.
    pub cause: Option<&'a Inbound>,
    /// When what they tell came to be so.
    pub at: Timestamp,
}

impl Emitter<'_> {
    /// The beginning of an event that is version `position` of `record_id`.
    pub(super) fn meta(&self, event_type: &str, record_id: &str, position: i64) -> EventMeta {
        let cause = self.cause.map(|inbound| inbound.event.meta());
        EventMeta {
            event_id: event_id(self.source, 0, record_id, "", event_type),
            event_type: event_type.into(),
            source: self.source.into(),
            source_position: position,
            position_kind: PositionKind::Version,
            occurred_at: self.at,
            tenant_id: "default".into(),
            correlation_id: cause.map_or_else(|| self.entity.into(), |m| m.correlation_id.clone()),
            causation_id: cause.map(|m| m.event_id),
            origin: FactOrigin::Source,
            ..EventMeta::default()
        }
    }
}
