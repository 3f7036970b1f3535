//! From results to events.

use super::{DESCRIPTOR, Work};
use crate::contract::event::{
    BusinessException, ErrorClass, EventMeta, ExceptionStatus, LineQty, LineState, Money,
    OrderEvent, OrderEventType, OrderState, OrderStatus, Origin as FactOrigin, PositionKind,
    Severity, Text,
};
use crate::contract::topic;
use crate::domain::order::{Bucket, Decision, OrderStatus as Status, Turn, View, Weight};
use crate::domain::{event_id, exception_id};
use crate::pipeline::Context;
use uuid::Uuid;

pub(super) const SOURCE: &str = "crossdock/order-lifecycle";

impl Work<'_> {
    pub(super) fn emit_state(&mut self, view: &View, context: &mut Context<'_>) {
        let version = self.order.next_state_version();
        let record_id = format!("{}#{version}", self.key);
        let open = self.order.open_cases();
        let event = OrderState {
            meta: self.meta("OrderState", &record_id, version, context),
            order_id: self.key.into(),
            state_version: version,
            status: status_of(view.status),
            closed: view.closed,
            channel_id: view.channel.clone(),
            channel_order_id: view.channel_order.clone(),
            placed_at: view.placed_at,
            currency: view.currency.clone(),
            grand_total: view.grand_total,
            lines: view.lines.iter().map(line_of).collect(),
            authorised: view.authorised,
            captured: view.captured,
            charged_back: view.charged_back,
            refunded: view.refunded,
            refund_in_flight: view.refund_in_flight,
            invoiced: view.invoiced,
            credited: view.credited,
            erp_order_ids: self.order.erp_orders().into_iter().cloned().collect(),
            earliest_promise: view.promise,
            source_versions: self.order.source_versions(),
            open_exceptions: open
                .map(|(code, cause)| self.case_id(code, cause).to_string().into())
                .collect(),
        };
        context.emit(topic::ORDER_STATE, self.key, event);
    }

    /// A decision goes where the request came from, so that every reader of the order hears of it,
    /// this one included: read again from the log, it stands as it was made.
    pub(super) fn emit_decision(
        &self,
        decision: &Decision,
        cause: &OrderEvent,
        context: &mut Context<'_>,
    ) {
        let request = Uuid::from_u128(decision.request);
        let reason = match (decision.granted.is_empty(), decision.partial) {
            (true, _) => "too late: all of it was picked or has left",
            (false, true) => "too late for some of it, which was picked or has left",
            (false, false) => "granted",
        };
        let event = OrderEvent {
            meta: EventMeta {
                event_id: event_id(SOURCE, 0, &request.to_string(), "", "OrderEvent"),
                causation_id: Some(request),
                occurred_at: cause.meta.occurred_at,
                correlation_id: cause.meta.correlation_id.clone(),
                ..self.meta("OrderEvent", "", decision.version, context)
            },
            order_id: self.key.into(),
            r#type: OrderEventType::CancelDecided,
            entity_version: decision.version,
            affected: decision
                .granted
                .iter()
                .map(|(line, qty)| LineQty {
                    line_id: line.clone(),
                    qty: *qty,
                })
                .collect(),
            request_id: Some(request),
            reason: Some(reason.into()),
            ..OrderEvent::default()
        };
        context.emit(topic::ORDER_LIFECYCLE, self.key, event);
    }

    pub(super) fn emit_turn(&self, turn: Turn, view: Option<&View>, context: &mut Context<'_>) {
        let id = self.case_id(&turn.code, &turn.cause);
        let status = match &turn.contradiction {
            None => ExceptionStatus::Resolved,
            Some(_) if turn.again => ExceptionStatus::Regressed,
            Some(_) => ExceptionStatus::Open,
        };
        let class = match &*turn.code {
            "ILLEGAL_TRANSITION" => ErrorClass::IllegalTransition,
            "UNKNOWN_LINE" | "ORPHAN" => ErrorClass::UnknownReference,
            _ => ErrorClass::Contradiction,
        };
        let value = view.map(|v| Money {
            amount: v.grand_total,
            currency: v.currency.clone(),
        });
        let record_id = format!("{id}#{}", turn.version);
        let mut event = BusinessException {
            meta: self.meta("BusinessException", &record_id, turn.version, context),
            exception_id: id,
            exception_version: turn.version,
            code: turn.code,
            error_class: class,
            status,
            processor: DESCRIPTOR.name.into(),
            order_id: Some(self.key.into()),
            channel_id: view.map(|v| v.channel.clone()),
            order_value: value,
            customer_promise_at: view.and_then(|v| v.promise),
            evidence: self.cause.iter().cloned().collect(),
            orders_affected: 1,
            occurrences: turn.version,
            first_seen_at: turn.first_seen,
            last_seen_at: context.now(),
            cause_key: turn.cause,
            ..BusinessException::default()
        };
        match turn.contradiction {
            Some(found) => {
                event.severity = match found.weight {
                    Weight::Medium => Severity::Medium,
                    Weight::High => Severity::High,
                    Weight::Critical => Severity::Critical,
                };
                event.expected = Some(found.expected.into());
                event.actual = Some(found.actual.into());
                event.delta = Some(found.delta);
                event.suggested_actions = found.actions.iter().map(|a| Text::from(*a)).collect();
            }
            None => {
                event.severity = Severity::Info;
                event.healed_by = self.cause.as_ref().and_then(|cause| cause.event_id);
            }
        }
        context.emit(topic::OPS_EXCEPTION, id.to_string(), event);
    }

    fn case_id(&self, code: &str, cause: &str) -> Uuid {
        exception_id(code, self.key, cause)
    }

    fn meta(
        &self,
        event_type: &str,
        record_id: &str,
        position: i64,
        context: &Context<'_>,
    ) -> EventMeta {
        EventMeta {
            event_id: event_id(SOURCE, 0, record_id, "", event_type),
            event_type: event_type.into(),
            source: SOURCE.into(),
            source_position: position,
            position_kind: PositionKind::Version,
            // What follows from no fact but from time passing is of now.
            occurred_at: match self.cause {
                Some(_) => self.newest,
                None => context.now(),
            },
            tenant_id: "default".into(),
            correlation_id: self.correlation.clone().unwrap_or_else(|| self.key.into()),
            causation_id: self.cause.as_ref().and_then(|cause| cause.event_id),
            origin: FactOrigin::Source,
            ..EventMeta::default()
        }
    }
}

fn line_of(line: &crate::domain::order::LineState) -> LineState {
    LineState {
        line_id: line.id.clone(),
        sku: line.sku.clone(),
        ordered: line.ordered,
        open: line.buckets.of(Bucket::Open),
        reserved: line.buckets.of(Bucket::Reserved),
        backordered: line.buckets.of(Bucket::Backordered),
        released: line.buckets.of(Bucket::Released),
        picked: line.buckets.of(Bucket::Picked),
        shipped: line.buckets.of(Bucket::Shipped),
        delivered: line.buckets.of(Bucket::Delivered),
        cancelled: line.buckets.of(Bucket::Cancelled),
        returned: line.returned,
        refunded_qty: line.refunded,
    }
}

fn status_of(status: Status) -> OrderStatus {
    match status {
        Status::Conflict => OrderStatus::Conflict,
        Status::Rejected => OrderStatus::Rejected,
        Status::OnHold => OrderStatus::OnHold,
        Status::Cancelled => OrderStatus::Cancelled,
        Status::Returned => OrderStatus::Returned,
        Status::PartiallyReturned => OrderStatus::PartiallyReturned,
        Status::Completed => OrderStatus::Completed,
        Status::ReadyForPickup => OrderStatus::ReadyForPickup,
        Status::Shipped => OrderStatus::Shipped,
        Status::PartiallyShipped => OrderStatus::PartiallyShipped,
        Status::InFulfilment => OrderStatus::InFulfilment,
        Status::Backordered => OrderStatus::Backordered,
        Status::Accepted => OrderStatus::Accepted,
        Status::Placed => OrderStatus::Placed,
    }
}
