//! `stock-ledger`: the single writer of stock per (SKU, location).
//!
//! Facts and commands of one position come in, levels, offers, reservation events and decisions go
//! out. The rules are in [`crate::domain::stock`]; `input` turns events into facts and checks them,
//! `output` turns results into events.

mod input;
mod output;
mod shelf;

use crate::contract::event::{
    ChannelStatus, Event, EventMeta, EventRef, Origin as FactOrigin, Outcome, ReservationCommand,
    StockChanged, StockPolicy, StockSnapshot, Text,
};
use crate::contract::topic;
use crate::domain::stock::{
    Applied, Journal, Ledger, Level, Refusal, Resolved, Terms, Verdict, Waited,
};
use crate::domain::{Timestamp, split_key};
use crate::pipeline::{
    Code, Context, Fault, Inbound, Origin, Processor, ProcessorDescriptor, Stage,
};
use shelf::StateShelf;
use std::collections::BTreeMap;

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
    tables: &[topic::CHANNEL_CHANGE],
    outputs: &[
        topic::STOCK_LEVEL,
        topic::STOCK_LEDGER_CHANNEL_LEVEL,
        topic::RESERVATION_EVENT,
        topic::RESERVATION_DECISION,
        topic::STOCK_BY_ORDER,
        topic::OPS_EXCEPTION,
    ],
};

/// Claims named when stock no longer covers them.
const AT_RISK_MAX: usize = 20;

/// The processor.
#[derive(Default)]
pub struct StockLedger {
    /// Channels that a location serves, and what they ask of it.
    served: BTreeMap<Text, BTreeMap<Text, Terms>>,
    /// Every channel of the table with its locations.
    channels: BTreeMap<Text, (Vec<Text>, Terms)>,
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
        let mut position = Position::load(key, std::mem::take(&mut self.journal), context)?;
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
        let mut position = Position::load(key, std::mem::take(&mut self.journal), context)?;
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

    fn table(&mut self, _topic: &str, key: &str, event: Option<&Event>) -> bool {
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
}

impl StockLedger {
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

    /// What has to be told to channels. A channel of which the table knows nothing is offered what
    /// a policy allocates to it.
    fn offers(
        &self,
        position: &mut Position<'_>,
    ) -> Vec<(Text, Option<crate::domain::stock::Offered>)> {
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

/// One position under work.
struct Position<'k> {
    key: &'k str,
    sku: Text,
    location: Text,
    ledger: Ledger,
    /// The level last emitted.
    before: Option<Level>,
    /// The timer that is set.
    timer: Option<Timestamp>,
    journal: Journal,
    /// Record time of the newest record of this call: what follows from records carries it.
    newest: Timestamp,
    /// The newest fact of this call.
    cause: Option<EventRef>,
}

impl<'k> Position<'k> {
    fn load(key: &'k str, mut journal: Journal, context: &mut Context<'_>) -> Result<Self, Fault> {
        let ledger = match context.state().get(key.as_bytes()) {
            Some(bytes) => {
                Ledger::from_state(bytes).map_err(|e| damaged(key, Refusal::Damaged(e)))?
            }
            None => Ledger::default(),
        };
        journal.clear();
        let parts = split_key(key);
        let part = |n: usize| Text::from(parts.get(n).map_or("", String::as_str));
        Ok(Position {
            key,
            sku: part(0),
            location: part(1),
            before: ledger.emitted(),
            timer: ledger.next_expiry(),
            ledger,
            journal,
            newest: Timestamp::default(),
            cause: None,
        })
    }

    fn seek(&mut self, inbound: &[Inbound], context: &mut Context<'_>) -> Result<(), Fault> {
        let ids = inbound.iter().filter_map(|i| match &i.event {
            Event::StockChanged(e) => Some(e.meta.event_id.as_u128()),
            Event::StockSnapshot(e) => Some(e.meta.event_id.as_u128()),
            _ => None,
        });
        let shelf = StateShelf::new(self.key, context.state());
        let sought = self.ledger.seek(ids, &shelf);
        sought.map_err(|refusal| damaged(self.key, refusal))
    }

    fn hear(&mut self, meta: &EventMeta, origin: &Origin) {
        self.newest = self.newest.max(meta.recorded_at);
        self.cause = Some(EventRef {
            topic: Text::from(&*origin.topic),
            partition: origin.partition,
            offset: origin.offset,
            event_id: Some(meta.event_id),
        });
    }

    fn changed(
        &mut self,
        index: usize,
        e: &StockChanged,
        origin: &Origin,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        if let Err(fault) = self
            .check_key(&e.sku, &e.location_id)
            .and_then(|()| input::check_changed(e))
        {
            context.reject(index, fault);
            return Ok(());
        }
        if !self.ledger.is_authority(&e.meta.source) {
            let reason = "for reconciliation only: another source is the authority here";
            context.settle(index, Outcome::Superseded, Some(reason));
            return Ok(());
        }
        self.hear(&e.meta, origin);
        let movement = input::movement(e, origin);
        let (mut shelf, ledger) = (StateShelf::new(self.key, context.state()), &mut self.ledger);
        let moved = match ledger.movement(&movement, &mut shelf, &mut self.journal) {
            Ok(moved) => moved,
            Err(refusal) => return self.refuse(index, refusal, &e.meta, context),
        };
        let reason = match moved.physical {
            Applied::Superseded => Some("a snapshot includes it"),
            Applied::Buffered => Some("waits for the snapshot of its epoch"),
            Applied::Applied | Applied::Duplicate => None,
        };
        context.settle(index, outcome_of(moved.physical), reason);
        if let Some(verdict) = moved.claim {
            let (outcome, reason) = input::claim_effect(verdict);
            context.settle_effect(index, "reservation", outcome, reason);
        }
        if moved.physical != Applied::Duplicate
            && let Some(order) = &e.order_id
        {
            context.emit(topic::STOCK_BY_ORDER, order.clone(), e.clone());
        }
        self.report(Some(&e.meta), context);
        Ok(())
    }

    fn snapshot(
        &mut self,
        index: usize,
        e: &StockSnapshot,
        origin: &Origin,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        if let Err(fault) = self
            .check_key(&e.sku, &e.location_id)
            .and_then(|()| input::check_snapshot(e))
        {
            context.reject(index, fault);
            return Ok(());
        }
        // A snapshot that is only compared makes nobody an authority.
        let compared = e.meta.origin == FactOrigin::Reconciliation;
        let authority = match (compared, self.ledger.authority()) {
            (true, known) => known == Some(&e.meta.source),
            (false, _) => self.ledger.is_authority(&e.meta.source),
        };
        let snapshot = input::snapshot(e);
        let (mut shelf, ledger) = (StateShelf::new(self.key, context.state()), &mut self.ledger);
        let Some(snapshot) = snapshot.filter(|_| authority && !compared) else {
            let drift = match authority {
                true => ledger.compare(input::as_of(e), e.sellable, &shelf),
                // Positions of two sources have no common order: there is nothing to compare with.
                false => Ok(None),
            };
            let drift = drift.map_err(|refusal| damaged(self.key, refusal))?;
            // What is available says nothing about what is there unless claims are known.
            let comparable = input::snapshot(e).is_some();
            if let Some(drift) = drift.filter(|d| comparable && !d.is_zero()) {
                self.hear(&e.meta, origin);
                self.raise_drift(drift, e, false, context);
            }
            context.settle(index, Outcome::Applied, Some("compared only"));
            return Ok(());
        };
        let rebased = match ledger.snapshot(&snapshot, &mut shelf, &mut self.journal) {
            Ok(rebased) => rebased,
            Err(refusal) => return self.refuse(index, refusal, &e.meta, context),
        };
        self.hear(&e.meta, origin);
        let reason = match rebased.outcome {
            Applied::Superseded => Some("a newer snapshot is known"),
            _ => None,
        };
        context.settle(index, outcome_of(rebased.outcome), reason);
        if let Some(drift) = rebased.drift.filter(|d| !d.is_zero()) {
            self.raise_drift(drift, e, true, context);
        }
        self.report(Some(&e.meta), context);
        Ok(())
    }

    fn policy(
        &mut self,
        index: usize,
        e: &StockPolicy,
        origin: &Origin,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let checked = self
            .check_key(&e.sku, &e.location_id)
            .and_then(|()| input::check_policy(e));
        let policy = match checked {
            Ok(policy) => policy,
            Err(fault) => {
                context.reject(index, fault);
                return Ok(());
            }
        };
        self.hear(&e.meta, origin);
        let (mut shelf, ledger) = (StateShelf::new(self.key, context.state()), &mut self.ledger);
        let at = e.meta.recorded_at;
        let outcome = match ledger.set_policy(policy, at, &mut shelf, &mut self.journal) {
            Ok(outcome) => outcome,
            Err(refusal) => return self.refuse(index, refusal, &e.meta, context),
        };
        let reason = match outcome {
            Applied::Superseded => Some("a newer policy is known"),
            _ => None,
        };
        context.settle(index, outcome_of(outcome), reason);
        self.report(Some(&e.meta), context);
        Ok(())
    }

    fn command(
        &mut self,
        index: usize,
        e: &ReservationCommand,
        origin: &Origin,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let checked = self
            .check_key(&e.sku, &e.location_id)
            .and_then(|()| input::check_command(e));
        let action = match checked {
            Ok(action) => action,
            Err(fault) => {
                context.reject(index, fault);
                return Ok(());
            }
        };
        let command = input::command(e, origin);
        let (mut shelf, ledger) = (StateShelf::new(self.key, context.state()), &mut self.ledger);
        let verdict = match ledger.command(action, &command, &mut shelf, &mut self.journal) {
            Ok(verdict) => verdict,
            Err(refusal) => return self.refuse(index, refusal, &e.meta, context),
        };
        self.hear(&e.meta, origin);
        match verdict {
            Verdict::Applied => context.settle(index, Outcome::Applied, None),
            Verdict::Duplicate => context.settle(index, Outcome::Duplicate, None),
            Verdict::Superseded => {
                context.settle(index, Outcome::Superseded, Some("the claim is over"))
            }
            Verdict::Buffered => {
                context.settle(index, Outcome::Buffered, Some("waits for the hold"));
            }
            Verdict::Illegal(status) => {
                let message = format!(
                    "{} of reservation {} is not possible: it is {status:?}",
                    e.action, e.reservation_id
                );
                let fault = Fault::reject(Stage::Process, Code::IllegalTransition, message);
                context.reject(index, fault);
            }
        }
        self.report(Some(&e.meta), context);
        Ok(())
    }

    /// Emits what the journal says and forgets it.
    fn report(&mut self, cause: Option<&EventMeta>, context: &mut Context<'_>) {
        let mut journal = std::mem::take(&mut self.journal);
        for decision in &journal.decisions {
            self.emit_decision(decision, cause, context);
        }
        for resolved in journal.resolved.drain(..) {
            resolve(&resolved, context);
        }
        journal.clear();
        self.journal = journal;
    }

    fn refuse(
        &mut self,
        index: usize,
        refusal: Refusal,
        meta: &EventMeta,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let (code, message) = match refusal {
            Refusal::Damaged(_) => return Err(damaged(self.key, refusal)),
            Refusal::LateBeyondHorizon => (
                Code::LateBeyondHorizon,
                format!(
                    "position {}:{} of {} is older than what the ledger remembers (72 h): whether it had its effect cannot be known; count the stock, then discard this record",
                    meta.source_epoch, meta.source_position, meta.source
                ),
            ),
            Refusal::TooManyWaiting => (
                Code::LateBeyondHorizon,
                format!(
                    "too many movements of epoch {} wait for a snapshot of that epoch; send one, then redrive",
                    meta.source_epoch
                ),
            ),
        };
        context.reject(index, Fault::reject(Stage::Process, code, message));
        Ok(())
    }

    fn check_key(&self, sku: &str, location: &str) -> Result<(), Fault> {
        if *sku == *self.sku && *location == *self.location {
            return Ok(());
        }
        let message = format!(
            "the key is {}, the value is of {}",
            self.key,
            crate::domain::compound_key(&[sku, location])
        );
        Err(Fault::reject(Stage::Validate, Code::WrongKey, message))
    }
}

fn resolve(resolved: &Resolved, context: &mut Context<'_>) {
    let (topic, place) = match resolved.waited {
        Waited::Movement(place) => (topic::STOCK_CHANGE, place),
        Waited::Confirm(place) => (topic::RESERVATION_COMMAND, place),
    };
    let origin = Origin {
        topic: topic.into(),
        partition: place.partition,
        offset: place.offset,
    };
    if let Some(verdict) = resolved.claim {
        let (outcome, _) = input::claim_effect(verdict);
        context.resolve(origin.clone(), "reservation", outcome);
    }
    context.resolve(origin, "", outcome_of(resolved.outcome));
}

fn outcome_of(applied: Applied) -> Outcome {
    match applied {
        Applied::Applied => Outcome::Applied,
        Applied::Duplicate => Outcome::Duplicate,
        Applied::Superseded => Outcome::Superseded,
        Applied::Buffered => Outcome::Buffered,
    }
}

fn damaged(key: &str, refusal: Refusal) -> Fault {
    Fault::halt(
        Stage::Process,
        Code::Bug,
        format!(
            "state of {key} cannot be read; remove the checkpoint and restart to rebuild it from the changelog"
        ),
    )
    .caused_by(refusal)
}
