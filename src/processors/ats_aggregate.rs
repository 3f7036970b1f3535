//! `ats-aggregate`: what all eligible locations together can promise to each channel.
//!
//! The first change is published at once, then at most one a key in [`PUBLISH_INTERVAL`]; a change
//! between nothing and something never waits.

use crate::contract::event::{
    AvailabilityChanged, ChannelStatus, Confidence, Event, EventMeta, Origin, Outcome,
    PositionKind, Text,
};
use crate::contract::topic;
use crate::domain::stock::{Network, Offer};
use crate::domain::{Decimal, Timestamp, event_id, split_key};
use crate::pipeline::{Code, Context, Fault, Inbound, Processor, ProcessorDescriptor, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// What `ats-aggregate` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "ats-aggregate",
    purpose: "sums what locations can promise and publishes availability per channel",
    inputs: &[topic::STOCK_LEDGER_CHANNEL_LEVEL],
    tables: &[topic::CHANNEL_CHANGE],
    outputs: &[topic::STOCK_ATS],
};

/// Least time between two publications of a key, except to and from zero.
pub const PUBLISH_INTERVAL: Duration = Duration::from_millis(50);
const SOURCE: &str = "crossdock/ats-aggregate";

/// The processor.
#[derive(Default)]
pub struct AtsAggregate {
    channels: BTreeMap<Text, Channel>,
    bytes: Vec<u8>,
}

#[derive(Clone, PartialEq)]
struct Channel {
    locations: BTreeSet<Text>,
    unit: Option<Decimal>,
    buffer: Decimal,
}

impl AtsAggregate {
    /// Without any channel; tables bring them.
    pub fn new() -> Self {
        Self::default()
    }

    fn finish(
        &mut self,
        key: &str,
        mut network: Network,
        cause: Option<&EventMeta>,
        context: &mut Context<'_>,
    ) {
        let parts = split_key(key);
        let channel_id = parts.get(1).map_or("", String::as_str);
        let channel = self.channels.get(channel_id);
        let eligible = |location: &str| channel.is_none_or(|c| c.locations.contains(location));
        let unit = channel.and_then(|c| c.unit);
        let buffer = channel.map_or(Decimal::ZERO, |c| c.buffer);
        let (ats, backorderable) = network.availability(eligible, unit, buffer);
        let before = network.published;
        if before == Some((ats, backorderable)) {
            network.due = None;
        } else {
            let earliest = network.published_at.plus(PUBLISH_INTERVAL);
            let crosses_zero = before.is_none_or(|(b, backorder)| {
                b.is_zero() != ats.is_zero() || backorder != backorderable
            });
            if crosses_zero || context.now() >= earliest {
                network.version += 1;
                let event = AvailabilityChanged {
                    meta: meta(key, network.version, cause),
                    sku: parts.first().map_or("", String::as_str).into(),
                    channel_id: channel_id.into(),
                    scope: "NETWORK".into(),
                    ats_version: network.version,
                    ats,
                    previous_ats: before.map(|(b, _)| b),
                    backorderable,
                    next_receipt_at: None,
                    as_of: cause.map_or(network.published_at, |m| m.occurred_at),
                    confidence: Confidence::High,
                };
                context.emit(topic::STOCK_ATS, key, event);
                network.published = Some((ats, backorderable));
                network.published_at = context.now();
                network.due = None;
            } else {
                network.due = Some(earliest);
            }
        }
        context.set_timer(key, network.due);
        network.to_state(&mut self.bytes);
        context.state().put(key.as_bytes(), &self.bytes);
    }
}

impl Processor for AtsAggregate {
    fn descriptor(&self) -> &'static ProcessorDescriptor {
        &DESCRIPTOR
    }

    fn process(
        &mut self,
        key: &str,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut network = load(key, context)?;
        let mut cause = None;
        for (index, i) in inbound.iter().enumerate() {
            let Event::ChannelLevel(e) = &i.event else {
                context.reject(
                    index,
                    Fault::reject(
                        Stage::Process,
                        Code::WrongContract,
                        format!("ats-aggregate has no use for {}", i.event.contract()),
                    ),
                );
                continue;
            };
            if crate::domain::compound_key(&[&e.sku, &e.channel_id]) != key {
                let message = format!(
                    "the key is {key}, the value is of {}|{}",
                    e.sku, e.channel_id
                );
                context.reject(
                    index,
                    Fault::reject(Stage::Validate, Code::WrongKey, message),
                );
                continue;
            }
            let offer = Offer {
                version: e.offer_version,
                ats: e.ats,
                buffer: e.buffer,
                backorderable: e.backorderable,
                active: e.active,
            };
            if network.offer(&e.location_id, offer) {
                cause = Some(&e.meta);
                context.settle(index, Outcome::Applied, None);
            } else {
                context.settle(
                    index,
                    Outcome::Superseded,
                    Some("a newer level of the location is known"),
                );
            }
        }
        self.finish(key, network, cause, context);
        Ok(())
    }

    fn timer(
        &mut self,
        key: &str,
        _due: Timestamp,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let network = load(key, context)?;
        self.finish(key, network, None, context);
        Ok(())
    }

    fn table(&mut self, _topic: &str, key: &str, event: Option<&Event>) -> bool {
        let after = match event {
            Some(Event::Channel(c)) => Some(Channel {
                locations: match c.status {
                    ChannelStatus::Inactive => BTreeSet::new(),
                    _ => c.eligible_locations.iter().cloned().collect(),
                },
                unit: c.unit,
                buffer: c.default_buffer,
            }),
            _ => None,
        };
        let before = match after.clone() {
            Some(channel) => self.channels.insert(key.into(), channel),
            None => self.channels.remove(key),
        };
        before != after
    }

    fn restored_timer(&self, key: &[u8], value: &[u8]) -> Option<(Text, Timestamp)> {
        let due = Network::from_state(value).ok()?.due?;
        Some((std::str::from_utf8(key).ok()?.into(), due))
    }
}

fn load(key: &str, context: &mut Context<'_>) -> Result<Network, Fault> {
    match context.state().get(key.as_bytes()) {
        None => Ok(Network::default()),
        Some(bytes) => Network::from_state(bytes).map_err(|e| {
            Fault::halt(
                Stage::Process,
                Code::Bug,
                format!("state of {key} cannot be read"),
            )
            .caused_by(e)
        }),
    }
}

fn meta(key: &str, version: i64, cause: Option<&EventMeta>) -> EventMeta {
    EventMeta {
        event_id: event_id(
            SOURCE,
            0,
            &format!("{key}#{version}"),
            "",
            "AvailabilityChanged",
        ),
        event_type: "AvailabilityChanged".into(),
        source: SOURCE.into(),
        source_position: version,
        position_kind: PositionKind::Version,
        occurred_at: cause.map_or_else(Timestamp::default, |m| m.occurred_at),
        tenant_id: "default".into(),
        correlation_id: cause.map_or_else(|| key.into(), |m| m.correlation_id.clone()),
        causation_id: cause.map(|m| m.event_id).filter(|id| *id != Uuid::nil()),
        origin: Origin::Source,
        ..EventMeta::default()
    }
}
