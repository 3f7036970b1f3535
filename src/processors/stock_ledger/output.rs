//! From results to events.

use super::position::Position;
use super::{DESCRIPTOR, damaged};
use crate::contract::event::{
    BusinessException, ChannelLevel, Confidence, ErrorClass, EventMeta, ExceptionStatus,
    Origin as FactOrigin, PositionKind, ReservationAction, ReservationDecision, ReservationEvent,
    ReservationMode, ReservationStatus, Severity, StockLevel, StockSnapshot, Text,
};
use crate::contract::topic;
use crate::domain::stock::{Action, Cause, ClaimStatus, Decision, Level, Mode, Offered};
use crate::domain::{Decimal, Timestamp, compound_key, event_id, exception_id};
use crate::pipeline::{Context, Fault};
use crate::processors::shelf::StateShelf;
use uuid::Uuid;

const SOURCE: &str = "crossdock/stock-ledger";
/// Claims named when stock no longer covers them.
const AT_RISK_MAX: usize = 20;

/// What an exception says, beyond where it is.
#[derive(Default)]
struct Case {
    code: &'static str,
    /// What tells this case from others of its code at the position; empty when there is but one.
    cause_key: String,
    version: i64,
    severity: Severity,
    status: ExceptionStatus,
    expected: String,
    actual: String,
    delta: Decimal,
    order: Option<Text>,
    channel: Option<Text>,
    promise: Option<Timestamp>,
    orders_affected: i32,
    actions: &'static [&'static str],
}

impl Position<'_> {
    pub(super) fn emit_level(&mut self, level: &Level, context: &mut Context<'_>) {
        let version = self.ledger.next_level_version();
        let channels = self.ledger.offered_channels();
        let event = StockLevel {
            meta: self.meta("StockLevel", &numbered(&[self.key], version), version, None),
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
            ats_by_channel: channels.map(|c| (c.clone(), self.ledger.ats(c))).collect(),
            overcommitted: level.overcommitted,
            as_of: level.as_of,
            confidence: confidence(level),
        };
        context.emit(topic::STOCK_LEVEL, self.key, event);
    }

    pub(super) fn emit_offer(
        &mut self,
        channel: &Text,
        offered: Option<Offered>,
        level: &Level,
        context: &mut Context<'_>,
    ) {
        let version = self.ledger.offer_version();
        let active = offered.is_some();
        let offered = offered.unwrap_or_default();
        let record_id = numbered(&[self.key, channel], version);
        let event = ChannelLevel {
            meta: self.meta("ChannelLevel", &record_id, version, None),
            sku: self.sku.clone(),
            channel_id: channel.clone(),
            location_id: self.location.clone(),
            level_version: self.ledger.level_version(),
            offer_version: version,
            ats: offered.ats,
            backorderable: offered.backorderable,
            buffer: offered.buffer,
            active,
            as_of: level.as_of,
            confidence: confidence(level),
        };
        let key = compound_key(&[&self.sku, channel]);
        context.emit(topic::STOCK_LEDGER_CHANNEL_LEVEL, key, event);
    }

    /// Emits a decision twice: at the ledger's key for replay, at the order's for whoever asked.
    pub(super) fn emit_decision(
        &mut self,
        d: &Decision,
        cause: Option<&EventMeta>,
        context: &mut Context<'_>,
    ) {
        let claim = &d.claim;
        let id = Uuid::from_u128(d.id);
        let status = status_of(claim.status);
        let mode = match claim.mode {
            Mode::Forced => ReservationMode::Forced,
            Mode::Strict => ReservationMode::Strict,
        };
        let record_id = numbered(&[self.key], d.sequence);
        let decision = ReservationDecision {
            meta: self.meta("ReservationDecision", &record_id, d.sequence, cause),
            reservation_id: id,
            ledger_sequence: d.sequence,
            action: match d.cause {
                Cause::Command(Action::Hold) => ReservationAction::Hold,
                Cause::Command(Action::Confirm) => ReservationAction::Confirm,
                Cause::Command(Action::Release) => ReservationAction::Release,
                Cause::Command(Action::Reassign) => ReservationAction::Reassign,
                Cause::Consume | Cause::Expire | Cause::Promote => ReservationAction::Unknown,
            },
            mode,
            status,
            sku: self.sku.clone(),
            location_id: self.location.clone(),
            channel_id: claim.channel.clone(),
            order_id: claim.order.clone(),
            qty_requested: claim.requested,
            qty_held: d.granted,
            qty_backordered: claim.backordered,
            ats_before: d.ats_before,
            sellable_before: d.sellable_before,
            reserved_before: d.reserved_before,
            level_version: self.ledger.level_version(),
        };
        context.emit(topic::RESERVATION_DECISION, self.key, decision);
        if claim.order.is_empty() {
            return;
        }
        let record_id = format!("{id}#{}", claim.version);
        let event = ReservationEvent {
            meta: self.meta("ReservationEvent", &record_id, claim.version, cause),
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
            level_version: self.ledger.level_version(),
            expires_at: claim.expires_at,
            reason: reason_of(d.cause).map(Text::from),
            ledger_sequence: d.sequence,
        };
        context.emit(topic::RESERVATION_EVENT, claim.order.clone(), event);
        if d.oversold.is_positive() {
            let case = Case {
                code: "OVERSOLD",
                cause_key: id.to_string(),
                version: d.sequence,
                severity: Severity::High,
                expected: "sold within stock".into(),
                actual: format!("{} beyond stock for order {}", d.oversold, claim.order),
                delta: d.oversold,
                order: Some(claim.order.clone()),
                channel: Some(claim.channel.clone()),
                promise: claim.promise_at,
                orders_affected: 1,
                actions: &["re-source", "backorder", "notify"],
                ..Case::default()
            };
            self.emit_case(case, context);
        }
    }

    /// Raises and closes what follows from the level as a whole. How much claims exceed the stock is
    /// told whenever it changes: other orders are at risk then.
    pub(super) fn raise_changes(
        &mut self,
        level: &Level,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let before = self.before.unwrap_or_default();
        let version = self.ledger.level_version();
        let (was, is) = (before.overcommitted, level.overcommitted);
        if is.is_positive() && is != was {
            let shelf = StateShelf::new(self.key, context.state());
            let at_risk = self.ledger.at_risk(AT_RISK_MAX, &shelf);
            let at_risk = at_risk.map_err(|refusal| damaged(self.key, refusal))?;
            let orders: Vec<String> = at_risk
                .iter()
                .map(|risk| format!("{} ({})", risk.claim.order, risk.short))
                .collect();
            let case = Case {
                code: "OVERCOMMITTED",
                version,
                severity: Severity::High,
                expected: "claims within stock".into(),
                actual: format!(
                    "claims exceed stock by {is}; orders at risk: {}",
                    orders.join(", ")
                ),
                delta: is,
                promise: at_risk.first().and_then(|risk| risk.claim.promise_at),
                orders_affected: at_risk.len() as i32,
                actions: &["re-source", "backorder", "notify"],
                ..Case::default()
            };
            self.emit_case(case, context);
        } else if was.is_positive() && !is.is_positive() {
            let case = Case {
                code: "OVERCOMMITTED",
                version,
                severity: Severity::High,
                status: ExceptionStatus::Resolved,
                expected: "claims within stock".into(),
                actual: "claims within stock".into(),
                ..Case::default()
            };
            self.emit_case(case, context);
        }
        let (was, is) = (before.totals.sellable, level.totals.sellable);
        if was.is_negative() != is.is_negative() {
            let case = Case {
                code: "NEGATIVE_ON_HAND",
                version,
                severity: Severity::Medium,
                status: match is.is_negative() {
                    true => ExceptionStatus::Open,
                    false => ExceptionStatus::Resolved,
                },
                expected: "sellable 0 or more".into(),
                actual: format!("sellable {is}"),
                delta: is,
                actions: &["count"],
                ..Case::default()
            };
            self.emit_case(case, context);
        }
        Ok(())
    }

    /// A snapshot says something else than the movements before it. When it was taken in, the level
    /// has followed it already.
    pub(super) fn raise_drift(
        &mut self,
        drift: Decimal,
        e: &StockSnapshot,
        followed: bool,
        context: &mut Context<'_>,
    ) {
        let case = Case {
            code: "STOCK_DRIFT",
            version: self.newest.0,
            severity: Severity::Low,
            status: match followed {
                true => ExceptionStatus::AutoHealing,
                false => ExceptionStatus::Open,
            },
            expected: format!("sellable {}", e.sellable - drift),
            actual: format!(
                "sellable {} as of {}:{}",
                e.sellable, e.as_of_epoch, e.as_of_position
            ),
            delta: drift,
            actions: &["count"],
            ..Case::default()
        };
        self.emit_case(case, context);
    }

    fn emit_case(&self, case: Case, context: &mut Context<'_>) {
        let id = exception_id(case.code, self.key, &case.cause_key);
        let status = match case.status {
            ExceptionStatus::Unknown => ExceptionStatus::Open,
            status => status,
        };
        let record_id = format!("{id}#{}", case.version);
        let event = BusinessException {
            meta: self.meta("BusinessException", &record_id, case.version, None),
            exception_id: id,
            exception_version: case.version,
            code: case.code.into(),
            error_class: ErrorClass::Contradiction,
            severity: case.severity,
            status,
            processor: DESCRIPTOR.name.into(),
            order_id: case.order,
            sku: Some(self.sku.clone()),
            location_id: Some(self.location.clone()),
            channel_id: case.channel,
            customer_promise_at: case.promise,
            expected: Some(case.expected.into()),
            actual: Some(case.actual.into()),
            delta: Some(case.delta),
            suggested_actions: case.actions.iter().map(|a| Text::from(*a)).collect(),
            evidence: self.cause.iter().cloned().collect(),
            orders_affected: case.orders_affected,
            occurrences: 1,
            first_seen_at: self.newest,
            last_seen_at: self.newest,
            cause_key: case.cause_key.into(),
            healed_by: self
                .cause_id()
                .filter(|_| status == ExceptionStatus::Resolved),
            ..BusinessException::default()
        };
        let key = compact_str::format_compact!("{id}");
        context.emit(topic::OPS_EXCEPTION, key, event);
    }

    fn cause_id(&self) -> Option<Uuid> {
        self.cause.as_ref().and_then(|cause| cause.event_id)
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
            correlation_id: cause.map_or_else(|| self.key.into(), |m| m.correlation_id.clone()),
            causation_id: cause.map(|m| m.event_id).or(self.cause_id()),
            origin: FactOrigin::Source,
            ..EventMeta::default()
        }
    }
}

/// What has several versions, and which: `part|part#version`.
fn numbered(parts: &[&str], version: i64) -> Text {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(version);
    let length = parts.iter().map(|p| p.len() + 1).sum::<usize>() + digits.len();
    let mut name = Text::with_capacity(length);
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            name.push('|');
        }
        name.push_str(part);
    }
    name.push('#');
    name.push_str(digits);
    name
}

fn confidence(level: &Level) -> Confidence {
    match (level.stale, level.complete) {
        (true, _) => Confidence::Stale,
        (false, true) => Confidence::High,
        (false, false) => Confidence::Degraded,
    }
}

fn reason_of(cause: Cause) -> Option<&'static str> {
    match cause {
        Cause::Command(Action::Reassign) => Some("reassigned to another location"),
        Cause::Command(_) => None,
        Cause::Consume => Some("goods left"),
        Cause::Expire => Some("its time was over"),
        Cause::Promote => Some("stock became free"),
    }
}

fn status_of(status: ClaimStatus) -> ReservationStatus {
    match status {
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
