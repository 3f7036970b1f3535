//! `stock-ledger`: the single writer of stock per (SKU, location).
//!
//! Facts and commands of one position come in, levels, offers, reservation events and decisions go
//! out. The rules are in [`crate::domain::stock`]; `input` turns events into facts and checks them,
//! `position` takes each through the rules, `output` turns results into events.

mod input;
mod output;
mod position;

use crate::contract::event::{ChannelStatus, Event, FeedState, StockAuthority, Text};
use crate::contract::topic;
use crate::domain::stock::{
    Journal, Ledger, Offered, Recorded, Terms, adopt_entry, canonical, tell_entry,
};
use crate::domain::{Timestamp, key_part};
use crate::pipeline::{
    Code, Context, Fault, Inbound, Processor, ProcessorDescriptor, Stage, State,
};
use crate::processors::checks::damaged;
use crate::processors::shelf::StateShelf;
use position::Position;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What `stock-ledger` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "stock-ledger",
    purpose: "keeps stock and claims of each SKU at each location, and decides reservations",
    inputs: &[
        topic::STOCK_CHANGE,
        topic::STOCK_SNAPSHOT,
        topic::STOCK_POLICY,
        topic::RESERVATION_COMMAND,
    ],
    tables: &[
        topic::CHANNEL_CHANGE,
        topic::STOCK_AUTHORITY,
        topic::OPS_FEED,
    ],
    outputs: &[
        topic::STOCK_LEVEL,
        topic::STOCK_LEDGER_CHANNEL_LEVEL,
        topic::STOCK_LEDGER_MIRROR,
        topic::RESERVATION_EVENT,
        topic::RESERVATION_DECISION,
        topic::STOCK_BY_ORDER,
        topic::OPS_EXCEPTION,
    ],
};

/// The processor.
#[derive(Default)]
pub struct StockLedger {
    /// Channels that a location serves, and what they ask of it.
    served: BTreeMap<Text, BTreeMap<Text, Terms>>,
    /// Every channel of the table with its locations.
    channels: BTreeMap<Text, (Vec<Text>, Terms)>,
    /// Parts of sources that are not heard of, by the source and the part's key.
    silent: BTreeSet<(Text, Text)>,
    /// Locations of which it is declared whose facts count.
    authorities: BTreeMap<Text, Text>,
    /// Decisions that are followed instead of being made anew, by key; none but in a rebuild.
    recorded: BTreeMap<Text, Arc<Recorded>>,
    journal: Journal,
    bytes: Vec<u8>,
}

impl StockLedger {
    /// Without any channel; tables bring them.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Processor for StockLedger {
    fn descriptor(&self) -> &'static ProcessorDescriptor {
        &DESCRIPTOR
    }

    fn process(
        &mut self,
        key: &str,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut position = self.load(key, context)?;
        position.declared = self.authorities.get(&position.location).cloned();
        position
            .ledger
            .set_stale(self.is_silent(position.ledger.authority()));
        if inbound.is_empty() {
            // A table changed: what follows from it is of now.
            position.newest = context.now();
        }
        if inbound.len() > 1 {
            position.seek(inbound, context)?;
        }
        for (index, i) in inbound.iter().enumerate() {
            match &i.event {
                Event::StockChanged(e) => position.changed(index, e, &i.record.origin, context)?,
                Event::StockSnapshot(e) => {
                    position.snapshot(index, e, &i.record.origin, context)?
                }
                Event::StockPolicy(e) => position.policy(index, e, &i.record.origin, context)?,
                Event::ReservationCommand(e) => {
                    position.command(index, e, &i.record.origin, context)?;
                }
                other => context.reject(
                    index,
                    Fault::reject(
                        Stage::Process,
                        Code::WrongContract,
                        format!("stock-ledger has no use for {}", other.contract()),
                    ),
                ),
            }
        }
        self.finish(position, context)
    }

    fn timer(
        &mut self,
        key: &str,
        _due: Timestamp,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut position = self.load(key, context)?;
        let now = context.now();
        position.newest = now;
        let mut shelf = StateShelf::new(key, context.state());
        let expired = position
            .ledger
            .expire(now, &mut shelf, &mut position.journal);
        expired.map_err(|refusal| damaged(key, refusal))?;
        position.report(None, context);
        // It has fired: whatever follows sets it again.
        context.set_timer(key, None);
        position.timer = None;
        self.finish(position, context)
    }

    fn table(&mut self, topic: &str, key: &str, event: Option<&Event>) -> bool {
        if topic == topic::OPS_FEED {
            return self.feed(key, event);
        }
        if topic == topic::STOCK_AUTHORITY {
            // Positions that have an authority keep it: those of two sources have no common order.
            match event {
                Some(Event::StockAuthority(StockAuthority {
                    source: Some(s), ..
                })) => {
                    self.authorities.insert(key.into(), s.clone());
                }
                _ => {
                    self.authorities.remove(key);
                }
            }
            return false;
        }
        let after = match event {
            Some(Event::Channel(channel)) => {
                let terms = Terms {
                    unit: channel.unit,
                    buffer: channel.default_buffer,
                };
                let locations = match channel.status {
                    ChannelStatus::Inactive => Vec::new(),
                    _ => channel.eligible_locations.clone(),
                };
                Some((locations, terms))
            }
            _ => None,
        };
        let before = match after.clone() {
            Some(channel) => self.channels.insert(key.into(), channel),
            None => self.channels.remove(key),
        };
        for location in before.iter().flat_map(|(locations, _)| locations) {
            if let Some(channels) = self.served.get_mut(location) {
                channels.remove(key);
            }
        }
        if let Some((locations, terms)) = &after {
            for location in locations {
                let channels = self.served.entry(location.clone()).or_default();
                channels.insert(key.into(), terms.clone());
            }
        }
        before != after
    }

    fn restored_timer(&self, key: &[u8], value: &[u8]) -> Option<(Text, Timestamp)> {
        if !self.is_entity(key) {
            return None;
        }
        let due = Ledger::timer_of(value).ok()??;
        Some((std::str::from_utf8(key).ok()?.into(), due))
    }

    fn record(&self) -> Option<&'static str> {
        Some(topic::RESERVATION_DECISION)
    }

    fn recall(&mut self, key: &str, event: &Event) {
        if let Event::ReservationDecision(e) = event
            && let Some((id, ruling)) = input::ruling(e)
        {
            let recorded = self.recorded.entry(key.into()).or_default();
            Arc::make_mut(recorded).add(id, ruling);
        }
    }

    fn describe(&self, key: &[u8], value: &[u8]) -> Option<serde_json::Value> {
        tell_entry(suffix(key), value)
    }

    fn canonical(&self, key: &str, state: &mut dyn State) {
        let header = state.get(key.as_bytes()).map(<[u8]>::to_vec);
        let shelf = &mut StateShelf::new(key, state);
        if let Some(header) = header.and_then(|header| canonical(&header, shelf)) {
            state.put(key.as_bytes(), &header);
        }
    }

    fn adopt(&self, key: &[u8], own: &[u8], other: &[u8]) -> Option<Vec<u8>> {
        adopt_entry(suffix(key), own, other)
    }
}

impl StockLedger {
    fn load<'k>(&mut self, key: &'k str, context: &mut Context<'_>) -> Result<Position<'k>, Fault> {
        let mut position = Position::load(key, std::mem::take(&mut self.journal), context)?;
        if !self.recorded.is_empty() {
            position.ledger.follow(self.recorded.get(key).cloned());
        }
        Ok(position)
    }

    /// Emits what changed and writes the position back.
    fn finish(
        &mut self,
        mut position: Position<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let offers = self.offers(&mut position);
        let level = position.ledger.level();
        if position.before != Some(level) || !offers.is_empty() {
            position.emit_level(&level, context);
        }
        for (channel, offered) in offers {
            position.emit_offer(&channel, offered, &level, context);
        }
        position.raise_changes(&level, context)?;
        let mut shelf = StateShelf::new(position.key, context.state());
        let stored = position
            .ledger
            .store(&mut shelf, &mut position.journal, &mut self.bytes);
        stored.map_err(|refusal| damaged(position.key, refusal))?;
        // What was forgotten may have waited.
        position.report(None, context);
        let due = position.ledger.next_expiry();
        if position.timer != due {
            context.set_timer(position.key, due);
        }
        if context.state().get(position.key.as_bytes()) != Some(&self.bytes) {
            context.state().put(position.key.as_bytes(), &self.bytes);
        }
        self.journal = position.journal;
        Ok(())
    }

    /// A source is not heard of any more, or again: positions whose authority it is are looked at.
    fn feed(&mut self, key: &str, event: Option<&Event>) -> bool {
        let source = key_part(key, 0);
        let before = self.is_silent(Some(&source));
        match event {
            Some(Event::FeedStatus(e)) if e.status == FeedState::Stale => {
                self.silent.insert((source.clone(), key.into()));
            }
            _ => {
                self.silent.remove(&(source.clone(), key.into()));
            }
        }
        before != self.is_silent(Some(&source))
    }

    fn is_silent(&self, source: Option<&str>) -> bool {
        !self.silent.is_empty() && self.silent.iter().any(|(s, _)| Some(s.as_str()) == source)
    }

    /// What has to be told to channels. A channel of which the table knows nothing is offered what
    /// a policy allocates to it.
    fn offers(&self, position: &mut Position<'_>) -> Vec<(Text, Option<Offered>)> {
        let terms = Terms::default();
        let unknown: Vec<Text> = position
            .ledger
            .policy()
            .allocations
            .iter()
            .filter(|a| !self.channels.contains_key(&a.channel))
            .map(|a| a.channel.clone())
            .collect();
        let served = self.served.get(&position.location);
        let channels = served.into_iter().flatten();
        position
            .ledger
            .offer(channels.chain(unknown.iter().map(|c| (c, &terms))))
    }
}

/// What follows the position's key in a key of its state.
fn suffix(state_key: &[u8]) -> &[u8] {
    let end = state_key.iter().position(|byte| *byte == 0);
    &state_key[end.unwrap_or(state_key.len())..]
}
