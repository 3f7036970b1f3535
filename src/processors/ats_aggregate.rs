//! `ats-aggregate`: what all locations together can promise to each channel.
//!
//! When something is published, and what, is decided by [`Network`]: the first change at once, then
//! at most one a key in 50 ms; a change between nothing and something never waits. Which locations
//! serve a channel is decided by stock-ledger, which takes an offer back when one no longer does.

use super::checks::damaged;
use super::shelf::StateShelf;
use crate::contract::event::{
    AvailabilityChanged, Confidence, Event, EventMeta, Origin, Outcome, PositionKind, Text,
};
use crate::contract::topic;
use crate::domain::stock::{Network, Offer, Publication};
use crate::domain::{Decimal, Timestamp, compound_key, event_id, key_part};
use crate::pipeline::{Code, Context, Fault, Inbound, Processor, ProcessorDescriptor, Stage};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What `ats-aggregate` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "ats-aggregate",
    purpose: "sums what locations can promise and publishes availability per channel",
    inputs: &[topic::STOCK_LEDGER_CHANNEL_LEVEL],
    tables: &[topic::CHANNEL_CHANGE],
    outputs: &[topic::STOCK_ATS],
};

const SOURCE: &str = "crossdock/ats-aggregate";

/// The processor.
#[derive(Default)]
pub struct AtsAggregate {
    /// The unit of each channel that has one.
    units: BTreeMap<Text, Decimal>,
    bytes: Vec<u8>,
}

impl AtsAggregate {
    /// Without any channel; tables bring them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Publishes what is due and writes the state back. `due` is the timer that is set.
    fn finish(
        &mut self,
        key: &str,
        mut network: Network,
        due: Option<Timestamp>,
        cause: Option<&EventMeta>,
        context: &mut Context<'_>,
    ) {
        let channel = key_part(key, 1);
        let unit = self.units.get(&channel).copied();
        if let Some(publication) = network.publish(unit, context.now()) {
            let event = availability(key, key_part(key, 0), channel, &publication, cause);
            context.emit(topic::STOCK_ATS, key, event);
        }
        if network.due() != due {
            context.set_timer(key, network.due());
        }
        network.to_state(&mut self.bytes);
        if context.state().get(key.as_bytes()) != Some(&self.bytes) {
            context.state().put(key.as_bytes(), &self.bytes);
        }
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
        let due = network.due();
        let mut cause = None;
        for (index, i) in inbound.iter().enumerate() {
            let Event::ChannelLevel(e) = &i.event else {
                let message = format!("ats-aggregate has no use for {}", i.event.contract());
                let fault = Fault::reject(Stage::Process, Code::WrongContract, message);
                context.reject(index, fault);
                continue;
            };
            let own_key = compound_key(&[&e.sku, &e.channel_id]);
            if own_key != key {
                let message = format!("the key is {key}, the value is of {own_key}");
                let fault = Fault::reject(Stage::Validate, Code::WrongKey, message);
                context.reject(index, fault);
                continue;
            }
            let offer = Offer {
                version: e.offer_version,
                ats: e.ats,
                buffer: e.buffer,
                backorderable: e.backorderable,
                active: e.active,
                complete: e.confidence == Confidence::High,
                as_of: e.as_of,
            };
            let mut shelf = StateShelf::new(key, context.state());
            let order = network.offer(&e.location_id, offer, &mut shelf);
            match order.map_err(|e| damaged(key, e))? {
                Ordering::Greater => {
                    cause = Some(&e.meta);
                    context.settle(index, Outcome::Applied, None);
                }
                Ordering::Equal => context.settle(index, Outcome::Duplicate, None),
                Ordering::Less => {
                    let reason = "a newer offer of the location is known";
                    context.settle(index, Outcome::Superseded, Some(reason));
                }
            }
        }
        self.finish(key, network, due, cause, context);
        Ok(())
    }

    fn timer(
        &mut self,
        key: &str,
        _due: Timestamp,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let network = load(key, context)?;
        // It has fired: whatever follows sets it again.
        context.set_timer(key, None);
        self.finish(key, network, None, None, context);
        Ok(())
    }

    fn table(&mut self, _topic: &str, key: &str, event: Option<&Event>) -> bool {
        let unit = match event {
            Some(Event::Channel(channel)) => channel.unit,
            _ => None,
        };
        let before = match unit {
            Some(unit) => self.units.insert(key.into(), unit),
            None => self.units.remove(key),
        };
        before != unit
    }

    fn restored_timer(&self, key: &[u8], value: &[u8]) -> Option<(Text, Timestamp)> {
        if !self.is_entity(key) {
            return None;
        }
        let due = Network::due_of(value).ok()??;
        Some((std::str::from_utf8(key).ok()?.into(), due))
    }

    fn describe(&self, key: &[u8], value: &[u8]) -> Option<serde_json::Value> {
        if !self.is_entity(key) {
            return None;
        }
        Some(Network::from_state(value).ok()?.tell())
    }

    fn adopt(&self, key: &[u8], own: &[u8], other: &[u8]) -> Option<Vec<u8>> {
        if !self.is_entity(key) {
            return None;
        }
        let mut own = Network::from_state(own).ok()?;
        own.adopt(&Network::from_state(other).ok()?);
        let mut out = Vec::new();
        own.to_state(&mut out);
        Some(out)
    }
}

fn load(key: &str, context: &mut Context<'_>) -> Result<Network, Fault> {
    let Some(bytes) = context.state().get(key.as_bytes()) else {
        return Ok(Network::default());
    };
    Network::from_state(bytes).map_err(|e| damaged(key, e))
}

fn availability(
    key: &str,
    sku: Text,
    channel: Text,
    publication: &Publication,
    cause: Option<&EventMeta>,
) -> AvailabilityChanged {
    let version = publication.version;
    let meta = EventMeta {
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
        occurred_at: publication.as_of,
        tenant_id: "default".into(),
        correlation_id: cause.map_or_else(|| key.into(), |m| m.correlation_id.clone()),
        causation_id: cause.map(|m| m.event_id),
        origin: Origin::Source,
        ..EventMeta::default()
    };
    AvailabilityChanged {
        meta,
        sku,
        channel_id: channel,
        scope: "NETWORK".into(),
        ats_version: version,
        ats: publication.now.ats,
        previous_ats: publication.before.map(|before| before.ats),
        backorderable: publication.now.backorderable,
        next_receipt_at: None,
        as_of: publication.as_of,
        confidence: match publication.now.complete {
            true => Confidence::High,
            false => Confidence::Degraded,
        },
    }
}
