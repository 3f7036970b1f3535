//! Lists of the orders that a system has: what connectors tell beside each change, so that what never came
//! is found. A list is read by itself, not from what was told.
//!
//! A list comes in parts, as it is read. How many there are is known with the last: until then each part
//! says that one more comes, and of what parts say of the whole the most counts.

use crate::contract::event::{EventMeta, ManifestEntry, ReconManifest, SystemRole, Text};
use crate::contract::topic;
use crate::domain::{Decimal, Timestamp, compound_key, event_id};
use crate::pipeline::SourceRecord;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// For how long after its stamp a row may still appear, at least.
const LAG: Duration = Duration::from_secs(60);

/// What was told of a list so far.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Parts {
    told: i32,
    entries: i64,
    amount: Decimal,
}

impl Parts {
    /// How many were told.
    pub fn told(&self) -> i32 {
        self.told
    }

    /// The next part of the list `name`, which is of what changed from `since` to the time of `meta`.
    pub fn next(
        &mut self,
        (name, role): (Text, SystemRole),
        (since, meta): (Timestamp, EventMeta),
        entries: Vec<ManifestEntry>,
        is_last: bool,
    ) -> SourceRecord {
        let chunk = self.told;
        self.told += 1;
        self.entries += entries.len() as i64;
        self.amount += entries.iter().filter_map(|e| e.amount).sum::<Decimal>();
        let event = ReconManifest {
            manifest_id: name,
            entity_type: Text::const_new("order"),
            role,
            window_start: since,
            window_end: meta.occurred_at,
            chunk,
            chunks: self.told + i32::from(!is_last),
            entries,
            total_count: self.entries,
            total_amount: is_last.then_some(self.amount),
            meta,
        };
        SourceRecord {
            topic: topic::RECON_MANIFEST,
            key: compound_key(&[&event.meta.source, &event.entity_type]),
            event: event.into(),
        }
    }
}

/// Lists of what changed in one window of time after the other.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Lists {
    /// What changed up to here was listed.
    until: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open: Option<Open>,
}

/// A list that is being read.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Open {
    to: i64,
    parts: Parts,
}

impl Lists {
    /// The first list begins `now`: what is there already is told first.
    pub fn new(now: Timestamp) -> Self {
        Lists {
            until: now.0,
            open: None,
        }
    }

    /// From after when to when is to be listed `now`; nothing until `every` has passed since the last list.
    pub fn window(
        &mut self,
        now: Timestamp,
        every: Duration,
        lag: Duration,
    ) -> Option<(Timestamp, Timestamp)> {
        let to = now.minus(lag.max(LAG));
        if self.open.is_none() {
            if to.since(Timestamp(self.until)) < every {
                return None;
            }
            self.open = Some(Open {
                to: to.0,
                parts: Parts::default(),
            });
        }
        let open = self.open.as_ref()?;
        Some((Timestamp(self.until), Timestamp(open.to)))
    }

    /// The next part of the list that is being read; the last ends it.
    pub fn part(
        &mut self,
        instance: &str,
        role: SystemRole,
        entries: Vec<ManifestEntry>,
        is_last: bool,
    ) -> Option<SourceRecord> {
        let open = self.open.as_mut()?;
        let to = Timestamp(open.to);
        let name = compound_key(&[instance, &to.to_string()]);
        let record_id = compound_key(&[&name, &open.parts.told().to_string()]);
        let meta = EventMeta {
            event_id: event_id(instance, 0, &record_id, "", "ReconManifest"),
            event_type: "ReconManifest".into(),
            source: instance.into(),
            source_position: to.0,
            position_kind: crate::contract::event::PositionKind::TimestampMicros,
            occurred_at: to,
            tenant_id: "default".into(),
            correlation_id: name.clone(),
            origin: crate::contract::event::Origin::Source,
            ..EventMeta::default()
        };
        let since = Timestamp(self.until);
        let record = open
            .parts
            .next((name, role), (since, meta), entries, is_last);
        if is_last {
            self.until = to.0;
            self.open = None;
        }
        Some(record)
    }
}

/// An order as a list has it.
pub fn entry(
    order: &str,
    external: &str,
    changed_at: Timestamp,
    status: Option<&'static str>,
    amount: Option<Decimal>,
) -> ManifestEntry {
    ManifestEntry {
        entity_key: order.into(),
        external_id: Some(external.into()),
        version: changed_at.0,
        status: status.map(Text::from),
        amount,
        ..ManifestEntry::default()
    }
}
