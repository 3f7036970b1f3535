//! `stock-ledger`: the single writer of stock per (SKU, location).
//!
//! Facts and commands of one position come in, levels, reservation events and decisions go out. The
//! rules are in [`crate::domain::stock`]; this file turns events into facts and back.

use crate::contract::event::{
    BusinessException, ChannelLevel, Confidence, ErrorClass, Event, EventMeta, EventRef,
    ExceptionStatus, Origin as FactOrigin, Outcome, OversellPolicy, PositionKind,
    ReservationAction, ReservationCommand, ReservationDecision, ReservationEvent, ReservationMode,
    ReservationStatus, Severity, SnapshotBasis, StockChanged, StockLevel, StockPolicy,
    StockSnapshot, StockState, Text,
};
use crate::contract::topic;
use crate::domain::stock::{
    Allocation, Applied, Claim, ClaimStatus, Command, Decision, Delta, Effect, Entry, Ledger, Mode,
    Oversell, Policy, Refusal, Shelf, Snapshot, Verdict,
};
use crate::domain::{Decimal, Position, Timestamp, compound_key, event_id, natural_id};
use crate::pipeline::{
    Code, Context, Fault, Inbound, Origin, Processor, ProcessorDescriptor, Stage, State,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

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

/// Facts may be stamped this much later than they were recorded: clocks differ.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(300);
/// Largest quantity of one fact; keeps sums far from the end of numbers.
const QUANTITY_MAX: i64 = 10_000_000_000 * 10_000;
const SOURCE: &str = "crossdock/stock-ledger";

/// The processor.
#[derive(Default)]
pub struct StockLedger {
    /// Active channels by location that serves them.
    channels: BTreeMap<Text, BTreeSet<Text>>,
    /// Locations of each channel and its default buffer, to undo an earlier version of it.
    known: BTreeMap<Text, (Vec<Text>, Decimal)>,
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
        let mut position = At::load(key, context)?;
        for (index, i) in inbound.iter().enumerate() {
            match &i.event {
                Event::StockChanged(e) => position.changed(index, e, &i.record.origin, context),
                Event::StockSnapshot(e) => position.snapshot(index, e, context),
                Event::StockPolicy(e) => position.policy(index, e, context),
                Event::ReservationCommand(e) => {
                    position.command(index, e, &i.record.origin, context)
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
        let mut position = At::load(key, context)?;
        let now = context.now();
        let expired = position.with_shelf(context, |ledger, shelf| ledger.expire(now, shelf));
        for decision in expired {
            position.decided(&decision, ReservationAction::Unknown, None, context);
        }
        self.finish(position, context)
    }

    fn table(&mut self, _topic: &str, key: &str, event: Option<&Event>) -> bool {
        let (locations, active, buffer) = match event {
            Some(Event::Channel(c)) => (
                c.eligible_locations.clone(),
                c.status != crate::contract::event::ChannelStatus::Inactive,
                c.default_buffer,
            ),
            _ => (Vec::new(), false, Decimal::ZERO),
        };
        let locations = if active { locations } else { Vec::new() };
        let before = self.known.insert(key.into(), (locations.clone(), buffer));
        for location in before.iter().flat_map(|(locations, _)| locations) {
            if let Some(channels) = self.channels.get_mut(location) {
                channels.remove(key);
            }
        }
        for location in &locations {
            self.channels
                .entry(location.clone())
                .or_default()
                .insert(key.into());
        }
        before.map(|(l, b)| (l, b)) != Some((locations, buffer))
    }

    fn restored_timer(&self, key: &[u8], value: &[u8]) -> Option<(Text, Timestamp)> {
        if !self.is_entity(key) {
            return None;
        }
        let due = Ledger::from_state(value).ok()?.next_expiry()?;
        Some((std::str::from_utf8(key).ok()?.into(), due))
    }
}

impl StockLedger {
    /// Promotes backorders, emits what changed, writes the position back.
    fn finish(&mut self, mut at: At, context: &mut Context<'_>) -> Result<(), Fault> {
        if at.ledger.has_backorders() {
            let recorded_at = at.newest;
            let promoted =
                at.with_shelf(context, |ledger, shelf| ledger.promote(recorded_at, shelf));
            for decision in promoted {
                at.decided(&decision, ReservationAction::Unknown, None, context);
            }
        }
        if at.corrupt {
            return Err(Fault::halt(
                Stage::Process,
                Code::Bug,
                format!(
                    "state of {} is damaged; remove the checkpoint and restart to rebuild it from the changelog",
                    at.key
                ),
            ));
        }
        let level = at.ledger.level();
        if at.ledger.emitted.as_ref() != Some(&level) {
            at.ledger.level_version += 1;
            at.emit_level(&level, context);
            at.raise_overcommitted(context);
            at.ledger.emitted = Some(level);
        }
        self.offer(&mut at, context);
        context.set_timer(at.key.clone(), at.ledger.next_expiry());
        if at.ledger != at.before {
            at.ledger.to_state(&mut self.bytes);
            context.state().put(at.key.as_bytes(), &self.bytes);
        }
        Ok(())
    }

    /// Tells ats-aggregate what each channel can be promised here, where that changed.
    fn offer(&self, at: &mut At, context: &mut Context<'_>) {
        let served = self.channels.get(&at.location);
        let allocated = at
            .ledger
            .policy
            .allocations
            .keys()
            .filter(|c| served.is_none_or(|s| !s.contains(*c)));
        let mut channels: Vec<Text> = served.into_iter().flatten().cloned().collect();
        if served.is_none() {
            channels.extend(allocated.cloned());
        }
        let gone: Vec<Text> = at
            .ledger
            .offered
            .keys()
            .filter(|c| !channels.contains(c))
            .cloned()
            .collect();
        at.ledger.offer_version += 1;
        let unchanged = at.ledger.offer_version - 1;
        let mut changed = !gone.is_empty();
        for channel in &channels {
            let ats = at.ledger.ats(channel);
            if at.ledger.offered.get(channel) != Some(&ats) {
                changed = true;
                at.ledger.offered.insert(channel.clone(), ats);
                at.emit_offer(channel, ats, true, context);
            }
        }
        for channel in gone {
            at.ledger.offered.remove(&channel);
            at.emit_offer(&channel, Decimal::ZERO, false, context);
        }
        if !changed {
            at.ledger.offer_version = unchanged;
        }
    }
}

/// One position under work.
struct At {
    key: Text,
    sku: Text,
    location: Text,
    ledger: Ledger,
    before: Ledger,
    /// Record time of the newest fact of this call: decisions that follow from facts carry it.
    newest: Timestamp,
    cause: Option<Uuid>,
    corrupt: bool,
}

impl At {
    fn load(key: &str, context: &mut Context<'_>) -> Result<At, Fault> {
        let parts = crate::domain::split_key(key);
        let ledger = match context.state().get(key.as_bytes()) {
            Some(bytes) => Ledger::from_state(bytes).map_err(|e| {
                Fault::halt(
                    Stage::Process,
                    Code::Bug,
                    format!("state of {key} cannot be read"),
                )
                .caused_by(e)
            })?,
            None => Ledger::default(),
        };
        let part = |n: usize| Text::from(parts.get(n).map_or("", String::as_str));
        Ok(At {
            key: key.into(),
            sku: part(0),
            location: part(1),
            before: ledger.clone(),
            newest: Timestamp::default(),
            ledger,
            cause: None,
            corrupt: false,
        })
    }

    fn with_shelf<T>(
        &mut self,
        context: &mut Context<'_>,
        work: impl FnOnce(&mut Ledger, &mut dyn Shelf) -> T,
    ) -> T {
        let mut shelf = StateShelf {
            key: &self.key,
            state: context.state(),
            bytes: Vec::new(),
            corrupt: std::cell::Cell::new(false),
        };
        let result = work(&mut self.ledger, &mut shelf);
        self.corrupt |= shelf.corrupt.get();
        result
    }

    fn seen(&mut self, meta: &EventMeta) {
        self.newest = self.newest.max(meta.recorded_at);
        self.cause = Some(meta.event_id);
    }

    fn changed(
        &mut self,
        index: usize,
        e: &StockChanged,
        origin: &Origin,
        context: &mut Context<'_>,
    ) {
        if let Err(fault) = self
            .check_key(&e.sku, &e.location_id)
            .and_then(|()| check_changed(e))
        {
            return context.reject(index, fault);
        }
        self.seen(&e.meta);
        if !self.is_authority(&e.meta) {
            return context.settle(
                index,
                Outcome::Superseded,
                Some("for reconciliation only: another source is the authority here"),
            );
        }
        let delta = Delta {
            id: e.meta.event_id.as_u128(),
            position: position_of(&e.meta),
            recorded_at: e.meta.recorded_at,
            effect: effect_of(e),
        };
        match self.with_shelf(context, |ledger, shelf| ledger.delta(&delta, shelf)) {
            Err(refusal) => return context.reject(index, refused(refusal, &e.meta)),
            Ok(Applied::Duplicate) => return context.settle(index, Outcome::Duplicate, None),
            Ok(Applied::Superseded) => {
                context.settle(index, Outcome::Superseded, Some("a snapshot includes it"))
            }
            Ok(Applied::Buffered) => context.settle(
                index,
                Outcome::Buffered,
                Some("waits for the snapshot of its epoch"),
            ),
            Ok(Applied::Applied) => {
                self.ledger.as_of = self.ledger.as_of.max(e.meta.occurred_at);
                context.settle(index, Outcome::Applied, None);
            }
        }
        if let Some(order) = &e.order_id {
            context.emit(topic::STOCK_BY_ORDER, order.clone(), e.clone());
        }
        if let Some(reservation) = e
            .reservation_id
            .filter(|_| e.from_state == StockState::Sellable)
        {
            let quantity = e.qty;
            let recorded_at = e.meta.recorded_at;
            let verdict = self.with_shelf(context, |l, shelf| {
                l.consume(reservation.as_u128(), quantity, recorded_at, shelf)
            });
            let outcome = match verdict {
                Verdict::Applied(decision) => {
                    self.decided(
                        &decision,
                        ReservationAction::Unknown,
                        Some(&e.meta),
                        context,
                    );
                    Outcome::Applied
                }
                _ => Outcome::Superseded,
            };
            context.settle_effect(index, "reservation", outcome, Some("the claim is over"));
        }
        let _ = origin;
        if self.ledger.totals().sellable.is_negative()
            && !self.before.totals().sellable.is_negative()
        {
            let actual = format!("sellable {}", self.ledger.totals().sellable);
            self.exception(
                "NEGATIVE_ON_HAND",
                Severity::Medium,
                "sellable 0 or more",
                &actual,
                self.ledger.totals().sellable,
                context,
            );
        }
    }

    fn snapshot(&mut self, index: usize, e: &StockSnapshot, context: &mut Context<'_>) {
        if let Err(fault) = self
            .check_key(&e.sku, &e.location_id)
            .and_then(|()| check_snapshot(e))
        {
            return context.reject(index, fault);
        }
        self.seen(&e.meta);
        let net = e.basis == SnapshotBasis::AvailableNet;
        let snapshot = Snapshot {
            id: e.meta.event_id.as_u128(),
            as_of: Position {
                epoch: e.as_of_epoch,
                sequence: e.as_of_position,
            },
            recorded_at: e.meta.recorded_at,
            sellable: e.sellable + e.source_reserved.filter(|_| net).unwrap_or_default(),
            damaged: e.damaged,
            held: e.quality_hold,
            incoming: e.in_transit_in,
        };
        let compare_only = e.meta.origin == FactOrigin::Reconciliation
            || (net && e.source_reserved.is_none())
            || !self.is_authority(&e.meta);
        if compare_only {
            let drift = self.with_shelf(context, |ledger, shelf| ledger.drift(&snapshot, shelf));
            self.raise_drift(drift, &snapshot, context);
            return context.settle(index, Outcome::Applied, Some("compared only"));
        }
        match self.with_shelf(context, |ledger, shelf| ledger.snapshot(&snapshot, shelf)) {
            Err(refusal) => context.reject(index, refused(refusal, &e.meta)),
            Ok((Applied::Duplicate, _)) => context.settle(index, Outcome::Duplicate, None),
            Ok((Applied::Applied, drift)) => {
                self.ledger.as_of = self.ledger.as_of.max(e.as_of);
                if self.before.as_of != Timestamp::default() {
                    self.raise_drift(drift, &snapshot, context);
                }
                context.settle(index, Outcome::Applied, None);
            }
            Ok(_) => context.settle(
                index,
                Outcome::Superseded,
                Some("a newer snapshot is known"),
            ),
        }
    }

    fn policy(&mut self, index: usize, e: &StockPolicy, context: &mut Context<'_>) {
        let checked = self
            .check_key(&e.sku, &e.location_id)
            .and_then(|()| check_policy(e));
        if let Err(fault) = checked {
            return context.reject(index, fault);
        }
        self.seen(&e.meta);
        let allocations = e.allocations.iter().map(|a| {
            (
                a.channel_id.clone(),
                Allocation {
                    hard: a.hard_qty,
                    share_percent: a.share_pct,
                    buffer: a.buffer,
                },
            )
        });
        let policy = Policy {
            version: e.policy_version,
            safety: e.safety_stock,
            allocations: allocations.collect(),
            oversell: match e.oversell {
                OversellPolicy::Allow => Oversell::Allow,
                OversellPolicy::BackorderToLimit => Oversell::BackorderToLimit,
                OversellPolicy::Block | OversellPolicy::Unknown => Oversell::Block,
            },
            backorder_limit: e.backorder_limit,
        };
        let same = policy == self.ledger.policy;
        match self.ledger.set_policy(policy) {
            true => context.settle(index, Outcome::Applied, None),
            false if same => context.settle(index, Outcome::Duplicate, None),
            false => context.settle(index, Outcome::Superseded, Some("a newer policy is known")),
        }
    }

    fn command(
        &mut self,
        index: usize,
        e: &ReservationCommand,
        origin: &Origin,
        context: &mut Context<'_>,
    ) {
        if let Err(fault) = self
            .check_key(&e.sku, &e.location_id)
            .and_then(|()| check_command(e))
        {
            return context.reject(index, fault);
        }
        self.seen(&e.meta);
        let id = e.reservation_id.as_u128();
        let at = e.meta.recorded_at;
        let verdict = match e.action {
            ReservationAction::Hold => {
                let command = Command {
                    id,
                    order: e.order_id.clone(),
                    line: e.order_line_id.clone(),
                    channel: e.channel_id.clone(),
                    mode: if e.mode == ReservationMode::Forced {
                        Mode::Forced
                    } else {
                        Mode::Strict
                    },
                    quantity: e.qty,
                    expires_at: e.expires_at,
                    recorded_at: at,
                };
                self.with_shelf(context, |ledger, shelf| ledger.hold(&command, shelf))
            }
            ReservationAction::Confirm => {
                let place = (Text::from(&*origin.topic), origin.partition, origin.offset);
                self.with_shelf(context, |ledger, shelf| {
                    ledger.confirm(id, at, place, shelf)
                })
            }
            // A reassignment ends the claim here; its hold at the other location is a command there.
            _ => self.with_shelf(context, |ledger, shelf| ledger.release(id, at, shelf)),
        };
        match verdict {
            Verdict::Applied(decision) => {
                self.decided(&decision, e.action, Some(&e.meta), context);
                if let Some((topic, partition, offset)) = &decision.confirms {
                    let place = Origin {
                        topic: topic.as_str().into(),
                        partition: *partition,
                        offset: *offset,
                    };
                    let refused = decision.claim.status == ClaimStatus::Rejected;
                    context.resolve(
                        place,
                        "",
                        if refused {
                            Outcome::Superseded
                        } else {
                            Outcome::Applied
                        },
                    );
                }
                context.settle(index, Outcome::Applied, None);
            }
            Verdict::Duplicate => context.settle(index, Outcome::Duplicate, None),
            Verdict::Superseded => context.settle(
                index,
                Outcome::Superseded,
                Some("the claim was over before it was seen"),
            ),
            Verdict::Buffered => {
                context.settle(index, Outcome::Buffered, Some("waits for the hold"))
            }
            Verdict::Illegal(status) => {
                let message = format!(
                    "{} of reservation {} is not possible: it is {status:?}",
                    e.action, e.reservation_id
                );
                context.reject(
                    index,
                    Fault::reject(Stage::Process, Code::IllegalTransition, message),
                );
            }
        }
    }

    /// Emits a decision twice: at the ledger's key for replay, at the order's for whoever asked.
    fn decided(
        &mut self,
        d: &Decision,
        action: ReservationAction,
        cause: Option<&EventMeta>,
        context: &mut Context<'_>,
    ) {
        let claim = &d.claim;
        let id = Uuid::from_u128(claim.id);
        let status = status_of(claim.status);
        let mode = if claim.mode == Mode::Forced {
            ReservationMode::Forced
        } else {
            ReservationMode::Strict
        };
        let decision = ReservationDecision {
            meta: self.meta(
                "ReservationDecision",
                &format!("{}#{}", self.key, d.sequence),
                d.sequence,
                cause,
            ),
            reservation_id: id,
            ledger_sequence: d.sequence,
            action,
            mode,
            status,
            sku: self.sku.clone(),
            location_id: self.location.clone(),
            channel_id: claim.channel.clone(),
            order_id: claim.order.clone(),
            qty_requested: claim.requested,
            qty_held: claim.held,
            qty_backordered: claim.backordered,
            ats_before: d.ats_before,
            sellable_before: d.sellable_before,
            reserved_before: d.reserved_before,
            level_version: self.ledger.level_version,
        };
        context.emit(topic::RESERVATION_DECISION, self.key.clone(), decision);
        // A tombstone is nobody's reservation yet: there is no order to tell.
        if !claim.order.is_empty() {
            let event = ReservationEvent {
                meta: self.meta(
                    "ReservationEvent",
                    &format!("{id}#{}", claim.version),
                    claim.version,
                    cause,
                ),
                reservation_id: id,
                reservation_version: claim.version,
                status,
                mode,
                order_id: claim.order.clone(),
                order_line_id: claim.line.clone(),
                sku: self.sku.clone(),
                location_id: self.location.clone(),
                channel_id: claim.channel.clone(),
                qty_requested: claim.requested,
                qty_held: claim.held,
                qty_consumed: claim.consumed,
                qty_backordered: claim.backordered,
                ats_before: d.ats_before,
                level_version: self.ledger.level_version,
                expires_at: claim.expires_at,
                reason: None,
                ledger_sequence: d.sequence,
            };
            context.emit(topic::RESERVATION_EVENT, claim.order.clone(), event);
        }
        if d.oversold.is_positive() {
            let actual = format!("{} beyond stock for order {}", d.oversold, claim.order);
            self.exception(
                "OVERSOLD",
                Severity::High,
                "sold within stock",
                &actual,
                d.oversold,
                context,
            );
        }
    }

    fn emit_level(&mut self, level: &crate::domain::stock::Level, context: &mut Context<'_>) {
        let version = self.ledger.level_version;
        let event = StockLevel {
            meta: self.meta(
                "StockLevel",
                &format!("{}#{version}", self.key),
                version,
                None,
            ),
            sku: self.sku.clone(),
            location_id: self.location.clone(),
            level_version: version,
            sellable: level.totals.sellable,
            damaged: level.totals.damaged,
            quality_hold: level.totals.held,
            in_transit_in: level.totals.incoming,
            reserved: level.reserved,
            backordered: level.backordered,
            safety_stock: level.safety,
            ats: level.ats,
            ats_by_channel: self
                .ledger
                .policy
                .allocations
                .keys()
                .map(|c| (c.clone(), self.ledger.ats(c)))
                .collect(),
            overcommitted: level.overcommitted,
            as_of: self.ledger.as_of,
            confidence: Confidence::High,
        };
        context.emit(topic::STOCK_LEVEL, self.key.clone(), event);
    }

    fn emit_offer(&mut self, channel: &str, ats: Decimal, active: bool, context: &mut Context<'_>) {
        let version = self.ledger.offer_version;
        let allocation = self.ledger.policy.allocations.get(channel);
        let event = ChannelLevel {
            meta: self.meta(
                "ChannelLevel",
                &format!("{}|{channel}#{version}", self.key),
                version,
                None,
            ),
            sku: self.sku.clone(),
            channel_id: channel.into(),
            location_id: self.location.clone(),
            level_version: self.ledger.level_version,
            offer_version: version,
            ats,
            backorderable: self.ledger.policy.oversell != Oversell::Block,
            buffer: allocation.and_then(|a| a.buffer).unwrap_or_default(),
            active,
            as_of: self.ledger.as_of,
            confidence: Confidence::High,
        };
        context.emit(
            topic::STOCK_LEDGER_CHANNEL_LEVEL,
            compound_key(&[&self.sku, channel]),
            event,
        );
    }

    fn raise_overcommitted(&mut self, context: &mut Context<'_>) {
        let over = self.ledger.level().overcommitted;
        let raise = over.is_positive();
        if raise && !self.ledger.overcommitted_raised {
            let actual = format!("claims exceed stock by {over}");
            self.exception(
                "OVERCOMMITTED",
                Severity::High,
                "claims within stock",
                &actual,
                over,
                context,
            );
        }
        self.ledger.overcommitted_raised = raise;
    }

    fn raise_drift(&mut self, drift: Decimal, snapshot: &Snapshot, context: &mut Context<'_>) {
        if !drift.is_zero() {
            let expected = format!("sellable {}", snapshot.sellable - drift);
            let actual = format!("sellable {} as of {}", snapshot.sellable, snapshot.as_of);
            self.exception(
                "STOCK_DRIFT",
                Severity::Low,
                &expected,
                &actual,
                drift,
                context,
            );
        }
    }

    fn exception(
        &self,
        code: &str,
        severity: Severity,
        expected: &str,
        actual: &str,
        delta: Decimal,
        context: &mut Context<'_>,
    ) {
        let id = natural_id(&[code, &self.key, ""]);
        let event = BusinessException {
            meta: self.meta(
                "BusinessException",
                &format!("{id}@{}", self.newest.0),
                self.newest.0,
                None,
            ),
            exception_id: id,
            exception_version: self.newest.0,
            code: code.into(),
            error_class: ErrorClass::Contradiction,
            severity,
            status: ExceptionStatus::Open,
            processor: DESCRIPTOR.name.into(),
            sku: Some(self.sku.clone()),
            location_id: Some(self.location.clone()),
            expected: Some(expected.into()),
            actual: Some(actual.into()),
            delta: Some(delta),
            evidence: vec![EventRef {
                topic: topic::STOCK_LEVEL.into(),
                partition: 0,
                offset: self.ledger.level_version,
                event_id: self.cause,
            }],
            orders_affected: 0,
            occurrences: 1,
            first_seen_at: self.newest,
            last_seen_at: self.newest,
            ..BusinessException::default()
        };
        context.emit(
            topic::OPS_EXCEPTION,
            compact_str::format_compact!("{id}"),
            event,
        );
    }

    fn meta(
        &self,
        event_type: &str,
        record_id: &str,
        position: i64,
        cause: Option<&EventMeta>,
    ) -> EventMeta {
        EventMeta {
            event_id: event_id(SOURCE, 0, record_id, "", event_type),
            event_type: event_type.into(),
            source: SOURCE.into(),
            source_position: position,
            position_kind: PositionKind::Version,
            occurred_at: cause.map_or(self.newest, |m| m.occurred_at),
            tenant_id: "default".into(),
            correlation_id: cause.map_or_else(|| self.key.clone(), |m| m.correlation_id.clone()),
            causation_id: cause.map(|m| m.event_id).or(self.cause),
            origin: FactOrigin::Source,
            ..EventMeta::default()
        }
    }

    fn check_key(&self, sku: &str, location: &str) -> Result<(), Fault> {
        if *sku == *self.sku && *location == *self.location {
            return Ok(());
        }
        let message = format!(
            "the key is {}, the value is of {}",
            self.key,
            compound_key(&[sku, location])
        );
        Err(Fault::reject(Stage::Validate, Code::WrongKey, message))
    }

    /// The first source heard at a position is its authority. Facts made for reconciliation never
    /// become one.
    fn is_authority(&mut self, meta: &EventMeta) -> bool {
        match &self.ledger.authority {
            Some(authority) => *authority == meta.source,
            None => {
                self.ledger.authority = Some(meta.source.clone());
                true
            }
        }
    }
}

/// A position's shelf in the processor's state: sub-keys behind a zero byte.
struct StateShelf<'a> {
    key: &'a str,
    state: &'a mut dyn State,
    bytes: Vec<u8>,
    corrupt: std::cell::Cell<bool>,
}

impl StateShelf<'_> {
    fn segment_key(&self, number: u32) -> Vec<u8> {
        [self.key.as_bytes(), b"\0d", &number.to_be_bytes()].concat()
    }
    fn claim_key(&self, id: u128) -> Vec<u8> {
        [self.key.as_bytes(), b"\0r", &id.to_be_bytes()].concat()
    }
    fn intact<T: Default>(&self, read: Result<T, crate::domain::stock::Corrupt>) -> T {
        read.unwrap_or_else(|_| {
            self.corrupt.set(true);
            T::default()
        })
    }
}

impl Shelf for StateShelf<'_> {
    fn segment(&self, number: u32) -> Vec<Entry> {
        let bytes = self.state.get(&self.segment_key(number));
        bytes.map_or_else(Vec::new, |b| self.intact(Entry::segment_from_state(b)))
    }
    fn put_segment(&mut self, number: u32, entries: &[Entry]) {
        Entry::segment_to_state(entries, &mut self.bytes);
        self.state.put(&self.segment_key(number), &self.bytes);
    }
    fn drop_segment(&mut self, number: u32) {
        self.state.delete(&self.segment_key(number));
    }
    fn claim(&self, id: u128) -> Option<Claim> {
        let bytes = self.state.get(&self.claim_key(id))?;
        Some(self.intact(Claim::from_state(bytes)))
    }
    fn put_claim(&mut self, claim: &Claim) {
        claim.to_state(&mut self.bytes);
        self.state.put(&self.claim_key(claim.id), &self.bytes);
    }
    fn drop_claim(&mut self, id: u128) {
        self.state.delete(&self.claim_key(id));
    }
}

/// What a movement changes here. Goods on the way count when they are announced (from a supplier);
/// goods that leave for another location are no longer this one's.
fn effect_of(e: &StockChanged) -> Effect {
    let mut effect = Effect::default();
    let mut add = |state: StockState, quantity: Decimal| match state {
        StockState::Sellable => effect.sellable += quantity,
        StockState::Damaged => effect.damaged += quantity,
        StockState::QualityHold => effect.held += quantity,
        StockState::InTransit => effect.incoming += quantity,
        _ => {}
    };
    add(e.from_state, -e.qty);
    if e.to_state != StockState::InTransit || e.from_state == StockState::Supplier {
        add(e.to_state, e.qty);
    }
    effect
}

fn position_of(meta: &EventMeta) -> Position {
    Position {
        epoch: meta.source_epoch,
        sequence: meta.source_position,
    }
}

fn status_of(status: ClaimStatus) -> ReservationStatus {
    match status {
        ClaimStatus::Unseen => ReservationStatus::Unknown,
        ClaimStatus::Held => ReservationStatus::Held,
        ClaimStatus::Confirmed => ReservationStatus::Confirmed,
        ClaimStatus::Rejected => ReservationStatus::Rejected,
        ClaimStatus::Backordered => ReservationStatus::Backordered,
        ClaimStatus::PartiallyConsumed => ReservationStatus::PartiallyConsumed,
        ClaimStatus::Consumed => ReservationStatus::Consumed,
        ClaimStatus::Released => ReservationStatus::Released,
        ClaimStatus::Expired => ReservationStatus::Expired,
    }
}

fn refused(refusal: Refusal, meta: &EventMeta) -> Fault {
    let message = match refusal {
        Refusal::LateBeyondHorizon => format!(
            "position {} of {} is older than what the ledger remembers (72 h): whether it was applied cannot be known; count the stock, then discard this record",
            position_of(meta),
            meta.source
        ),
        Refusal::TooManyBuffered => format!(
            "too many movements of epoch {} wait for a snapshot of that epoch; send one, then redrive",
            meta.source_epoch
        ),
    };
    Fault::reject(Stage::Process, Code::LateBeyondHorizon, message)
}

fn quality(message: String) -> Fault {
    Fault::reject(Stage::Validate, Code::DataQuality, message)
}

fn unknown(field: &str) -> Fault {
    Fault::reject(
        Stage::Validate,
        Code::UnknownSymbol,
        format!(
            "{field} is UNKNOWN, and what happens depends on it; deploy a build that knows the symbol, then redrive"
        ),
    )
}

fn check_times(meta: &EventMeta) -> Result<(), Fault> {
    if meta.recorded_at != Timestamp::default()
        && meta.occurred_at > meta.recorded_at.plus(CLOCK_SKEW_MAX)
    {
        return Err(quality(format!(
            "occurredAt {} is more than 5 min after recordedAt {}",
            meta.occurred_at, meta.recorded_at
        )));
    }
    Ok(())
}

fn check_quantity(name: &str, quantity: Decimal) -> Result<(), Fault> {
    if quantity.units().abs() > QUANTITY_MAX {
        return Err(quality(format!("{name} {quantity} is beyond any stock")));
    }
    Ok(())
}

fn check_changed(e: &StockChanged) -> Result<(), Fault> {
    if e.from_state == StockState::Unknown {
        return Err(unknown("fromState"));
    }
    if e.to_state == StockState::Unknown {
        return Err(unknown("toState"));
    }
    if !e.qty.is_positive() {
        return Err(quality(format!(
            "qty is {}, but must be more than 0; direction is fromState to toState",
            e.qty
        )));
    }
    if e.from_state == e.to_state {
        return Err(quality(format!(
            "fromState and toState are both {}",
            e.from_state
        )));
    }
    for (name, code) in [("gtin", &e.gtin), ("gln", &e.gln)] {
        if let Some(code) = code.as_ref().filter(|c| !gs1_check_digit_holds(c)) {
            return Err(quality(format!(
                "the check digit of {name} {code} does not hold"
            )));
        }
    }
    check_quantity("qty", e.qty)?;
    check_times(&e.meta)
}

fn check_snapshot(e: &StockSnapshot) -> Result<(), Fault> {
    if e.basis == SnapshotBasis::Unknown {
        return Err(unknown("basis"));
    }
    check_quantity("sellable", e.sellable)?;
    check_times(&e.meta)
}

fn check_policy(e: &StockPolicy) -> Result<(), Fault> {
    if e.safety_stock.is_negative() {
        return Err(quality(format!(
            "safetyStock {} is less than 0",
            e.safety_stock
        )));
    }
    for a in &e.allocations {
        if a.share_pct.is_some_and(|p| !(0.0..=100.0).contains(&p)) {
            return Err(quality(format!(
                "sharePct of {} is not between 0 and 100",
                a.channel_id
            )));
        }
    }
    check_quantity("safetyStock", e.safety_stock)
}

fn check_command(e: &ReservationCommand) -> Result<(), Fault> {
    if e.action == ReservationAction::Unknown {
        return Err(unknown("action"));
    }
    if e.action == ReservationAction::Hold {
        if e.mode == ReservationMode::Unknown {
            return Err(unknown("mode"));
        }
        if !e.qty.is_positive() {
            return Err(quality(format!(
                "qty of a hold is {}, but must be more than 0",
                e.qty
            )));
        }
        if e.order_id.is_empty() {
            return Err(quality("a hold needs an orderId".into()));
        }
    }
    check_quantity("qty", e.qty)
}

/// The GS1 check digit (General Specifications §7.9): weights 3 and 1 from the right.
fn gs1_check_digit_holds(code: &str) -> bool {
    let digits: Option<Vec<u32>> = code.chars().map(|c| c.to_digit(10)).collect();
    digits.is_some_and(|d| {
        matches!(d.len(), 8 | 12 | 13 | 14)
            && d.iter()
                .rev()
                .enumerate()
                .map(|(i, d)| if i % 2 == 1 { d * 3 } else { *d })
                .sum::<u32>()
                % 10
                == 0
    })
}
