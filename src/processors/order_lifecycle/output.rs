//! From results to events.

use super::{DESCRIPTOR, Work};
use crate::contract::event::{
    EventMeta, LineQty, LineState, Money, OrderEvent, OrderEventType, OrderState, OrderStatus,
};
use crate::contract::topic;
use crate::domain::order::{Bucket, Decision, OrderStatus as Status, View};
use crate::domain::{event_id, exception_id};
use crate::pipeline::Context;
use crate::processors::cases::About;
use crate::processors::emitter::Emitter;
use uuid::Uuid;

pub(super) const SOURCE: &str = "crossdock/order-lifecycle";

impl Work<'_> {
    pub(super) fn emit_state(&mut self, view: &View, context: &mut Context<'_>) {
        let version = self.order.next_state_version();
        let record_id = format!("{}#{version}", self.key);
        let open = self.order.cases.open();
        let event = OrderState {
            meta: self
                .emitter(context)
                .meta("OrderState", &record_id, version),
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
                .map(|(code, cause)| exception_id(code, self.key, cause).to_string().into())
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
                ..self
                    .emitter(context)
                    .meta("OrderEvent", "", decision.version)
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

    /// What its cases are about.
    pub(super) fn about(&self, view: Option<&View>) -> About {
        About {
            channel: view.map(|v| v.channel.clone()),
            value: view.map(|v| Money {
                amount: v.grand_total,
                currency: v.currency.clone(),
            }),
            promise: view.and_then(|v| v.promise),
            ..About::order(self.key)
        }
    }

    /// What follows from no fact but from time passing is of now.
    pub(super) fn emitter(&self, context: &Context<'_>) -> Emitter<'_> {
        Emitter {
            processor: DESCRIPTOR.name,
            source: SOURCE,
            entity: self.key,
            cause: self.cause,
            at: self.cause.map_or(context.now(), |_| self.newest),
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
