//! Emits the configuration's reference data once for every change of it.

use super::{Kind, Oversell, Settings};
use crate::contract::event::{
    Channel, ChannelAllocation, ChannelStatus, EventMeta, Location, LocationKind, Origin,
    OversellPolicy, PositionKind, StockAuthority, StockPolicy,
};
use crate::contract::topic;
use crate::domain::{Timestamp, compound_key, event_id};
use crate::pipeline::{Code, Cursor, Fault, Source, SourceBatch, SourceRecord, Stage};
use std::collections::BTreeSet;

pub(super) struct ReferenceSource {
    instance: String,
    settings: Settings,
}

impl ReferenceSource {
    pub fn new(instance: &str, settings: Settings) -> Self {
        ReferenceSource {
            instance: instance.to_owned(),
            settings,
        }
    }

    fn meta(&self, event_type: &str, id: &str, version: i64) -> EventMeta {
        EventMeta {
            event_id: event_id(
                &self.instance,
                0,
                &format!("{id}@{version}"),
                "",
                event_type,
            ),
            event_type: event_type.into(),
            source: self.instance.as_str().into(),
            source_position: version,
            position_kind: PositionKind::Version,
            occurred_at: Timestamp::default(),
            tenant_id: "default".into(),
            correlation_id: id.into(),
            origin: Origin::Source,
            ..EventMeta::default()
        }
    }

    /// Whose stock counts where, and where that is withdrawn.
    fn authorities(&self, before: &Settings, version: i64) -> Vec<SourceRecord> {
        let declared = |settings: &Settings, id: &String| {
            let location = settings.locations.get(id);
            location.and_then(|l| l.stock_authority.clone())
        };
        let ids = before
            .locations
            .keys()
            .chain(self.settings.locations.keys());
        let ids: BTreeSet<&String> = ids.collect();
        let told = ids.into_iter().filter_map(|id| {
            let source = declared(&self.settings, id);
            if source.is_none() && declared(before, id).is_none() {
                return None;
            }
            let event = StockAuthority {
                meta: self.meta("StockAuthority", id, version),
                location_id: id.as_str().into(),
                authority_version: version,
                source: source.as_deref().map(Into::into),
            };
            Some(SourceRecord {
                topic: topic::STOCK_AUTHORITY,
                key: id.as_str().into(),
                event: event.into(),
            })
        });
        told.collect()
    }

    fn records(&self, before: &Settings, version: i64) -> Vec<SourceRecord> {
        let mut records = Vec::new();
        for (id, l) in &self.settings.locations {
            let event = Location {
                meta: self.meta("Location", id, version),
                location_id: id.as_str().into(),
                location_version: version,
                name: l.name.as_deref().unwrap_or(id).into(),
                kind: match l.kind {
                    Kind::Dc => LocationKind::Dc,
                    Kind::Store => LocationKind::Store,
                    Kind::Dropship => LocationKind::Dropship,
                    Kind::ThirdParty => LocationKind::ThirdParty,
                },
                stock_tracked: true,
                ..Location::default()
            };
            records.push(SourceRecord {
                topic: topic::LOCATION_CHANGE,
                key: id.as_str().into(),
                event: event.into(),
            });
        }
        records.extend(self.authorities(before, version));
        let gone = before
            .channels
            .iter()
            .filter(|(id, _)| !self.settings.channels.contains_key(*id));
        let present = self
            .settings
            .channels
            .iter()
            .map(|(id, c)| (id, c, ChannelStatus::Active));
        for (id, c, status) in present.chain(gone.map(|(id, c)| (id, c, ChannelStatus::Inactive))) {
            let event = Channel {
                meta: self.meta("Channel", id, version),
                channel_id: id.as_str().into(),
                channel_version: version,
                name: c.name.as_deref().unwrap_or(id).into(),
                status,
                eligible_locations: c.locations.iter().map(|l| l.as_str().into()).collect(),
                unit: c.unit,
                default_buffer: c.buffer,
            };
            records.push(SourceRecord {
                topic: topic::CHANNEL_CHANGE,
                key: id.as_str().into(),
                event: event.into(),
            });
        }
        for p in &self.settings.policies {
            let key = compound_key(&[&p.sku, &p.location]);
            let event = StockPolicy {
                meta: self.meta("StockPolicy", &key, version),
                sku: p.sku.as_str().into(),
                location_id: p.location.as_str().into(),
                policy_version: version,
                safety_stock: p.safety_stock,
                allocations: p
                    .kept_for
                    .iter()
                    .map(|(channel, q)| ChannelAllocation {
                        channel_id: channel.as_str().into(),
                        hard_qty: Some(*q),
                        ..ChannelAllocation::default()
                    })
                    .collect(),
                oversell: match p.oversell {
                    Oversell::Block => OversellPolicy::Block,
                    Oversell::BackorderToLimit => OversellPolicy::BackorderToLimit,
                    Oversell::Allow => OversellPolicy::Allow,
                },
                backorder_limit: p.backorder_limit,
            };
            records.push(SourceRecord {
                topic: topic::STOCK_POLICY,
                key,
                event: event.into(),
            });
        }
        records
    }
}

#[async_trait::async_trait]
impl Source for ReferenceSource {
    async fn poll(&mut self, _shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let not_json = |e: serde_json::Error| {
            Fault::halt(
                Stage::Read,
                Code::Bug,
                format!("settings of {} are not JSON", self.instance),
            )
            .caused_by(e)
        };
        let now = serde_json::to_value(&self.settings).map_err(not_json)?;
        let cursor = cursor.cloned().unwrap_or(Cursor {
            bookmark: serde_json::Value::Null,
            sequence: 1,
        });
        if cursor.bookmark == now {
            return Ok(SourceBatch {
                cursor,
                ..SourceBatch::default()
            });
        }
        // What an older build wrote may have another form: then everything is simply told again.
        let before: Settings = serde_json::from_value(cursor.bookmark).unwrap_or_default();
        let records = self.records(&before, cursor.sequence);
        Ok(SourceBatch {
            records,
            cursor: Cursor {
                bookmark: now,
                sequence: cursor.sequence + 1,
            },
            ..SourceBatch::default()
        })
    }
}
