//! `reservation-saga`: sees to it that the lines of an order get their stock.
//!
//! An order that is placed asks stock-ledger for claims, by line; what is refused or not found is
//! sourced elsewhere, accepted without stock or asked to be cancelled; what is paid or accepted is
//! made firm; what is cancelled, rejected or found to be missing is given back. When claims run out is
//! stock-ledger's to decide and to record. The rules are in [`crate::domain::order::Saga`].

use super::checks::{self, damaged, quality, unknown};
use crate::contract::event::{
    ChannelStatus, ChannelType, DeliveryMethod, Event, EventMeta, LineQty, OrderEvent,
    OrderEventType, OrderSnapshot, Origin, Outcome, PaymentKind, PositionKind, ReservationAction,
    ReservationCommand, ReservationEvent, ReservationMode, ReservationStatus, ShipmentEvent,
    ShipmentStatus, Text,
};
use crate::contract::topic;
use crate::domain::order::{Answer, Held, News, Plan, Quantities, Saga, Said, Step, Want};
use crate::domain::{Decimal, Position, Timestamp, compound_key, event_id};
use crate::pipeline::{Code, Context, Fault, Inbound, Processor, ProcessorDescriptor, Stage};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What `reservation-saga` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "reservation-saga",
    purpose: "claims stock for orders, sources it elsewhere when it is not there, and gives it back",
    inputs: &[
        topic::ORDER_LIFECYCLE,
        topic::RESERVATION_EVENT,
        topic::PAYMENT_EVENT,
        topic::SHIPMENT_EVENT,
    ],
    tables: &[topic::CHANNEL_CHANGE],
    outputs: &[topic::RESERVATION_COMMAND, topic::ORDER_LIFECYCLE],
};

const SOURCE: &str = "crossdock/reservation-saga";

/// The processor.
#[derive(Default)]
pub struct ReservationSaga {
    /// Locations that serve each channel, best first.
    channels: BTreeMap<Text, Vec<Text>>,
    bytes: Vec<u8>,
}

impl ReservationSaga {
    /// Without any channel; tables bring them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one record; says how new it is.
    fn take_in(&self, key: &str, event: &Event, saga: &mut Saga) -> Result<News, Fault> {
        let order = match event {
            Event::OrderEvent(e) => &e.order_id,
            Event::ReservationEvent(e) => &e.order_id,
            Event::PaymentEvent(e) => &e.order_id,
            Event::ShipmentEvent(e) => &e.order_id,
            other => return Err(checks::no_use(DESCRIPTOR.name, other)),
        };
        checks::check_key(key, order)?;
        checks::check_times(event.meta())?;
        match event {
            Event::OrderEvent(e) => self.order(e, saga),
            Event::ReservationEvent(e) => reservation(e, saga),
            Event::PaymentEvent(e) => Ok(match e.kind {
                PaymentKind::Unknown => return Err(unknown("kind")),
                PaymentKind::Authorised | PaymentKind::Captured => saga.paid(),
                _ => News::New,
            }),
            Event::ShipmentEvent(e) => shipment(e, saga),
            other => Err(checks::no_use(DESCRIPTOR.name, other)),
        }
    }

    fn order(&self, e: &OrderEvent, saga: &mut Saga) -> Result<News, Fault> {
        let said = said(&e.meta, e.entity_version);
        let plan = || e.order.as_ref().map(|o| self.plan(o)).transpose();
        let needed =
            || plan()?.ok_or_else(|| quality(format!("{} needs the order itself", e.r#type)));
        Ok(match e.r#type {
            OrderEventType::Unknown => return Err(unknown("type")),
            OrderEventType::Placed => saga.placed(said, needed()?, false),
            OrderEventType::Amended => saga.placed(said, needed()?, e.erp_order_id.is_some()),
            OrderEventType::Accepted => {
                if let Some(plan) = plan()? {
                    saga.placed(said, plan, true);
                }
                saga.judged(said, true)
            }
            OrderEventType::Rejected => saga.judged(said, false),
            OrderEventType::CancelDecided => {
                let decision = e.request_id.unwrap_or(e.meta.event_id).as_u128();
                let units = e.affected.iter().map(|a| (a.line_id.clone(), a.qty));
                saga.cancelled(decision, units.collect())
            }
            OrderEventType::CancelRequested
            | OrderEventType::Held
            | OrderEventType::HoldReleased
            | OrderEventType::Closed => News::New,
        })
    }

    fn plan(&self, o: &OrderSnapshot) -> Result<Plan, Fault> {
        let mut wants = Vec::with_capacity(o.lines.len());
        for line in &o.lines {
            let group = o
                .delivery_groups
                .iter()
                .find(|g| g.group_id == line.delivery_group_id);
            let method = group.map(|g| g.method).unwrap_or_default();
            let location = match method {
                // Gone with the customer already, or nothing that lies in a warehouse.
                DeliveryMethod::CarryOut | DeliveryMethod::Digital => continue,
                DeliveryMethod::PickupInStore | DeliveryMethod::Curbside => {
                    let location = group.and_then(|g| g.pickup_location_id.clone());
                    Some(location.ok_or_else(|| {
                        quality(format!(
                            "line {} is to be picked up, but not where",
                            line.line_id
                        ))
                    })?)
                }
                _ => None,
            };
            if location.is_none() && self.locations(&o.channel_id).is_empty() {
                let message = format!(
                    "no location serves channel {}; send its reference data, then redrive",
                    o.channel_id
                );
                return Err(Fault::reject(
                    Stage::Validate,
                    Code::UnknownReference,
                    message,
                ));
            }
            if !line.qty.is_positive() {
                return Err(quality(format!(
                    "qty of line {} is {}",
                    line.line_id, line.qty
                )));
            }
            wants.push(Want {
                line: line.line_id.clone(),
                sku: line.sku.clone(),
                quantity: line.qty,
                location,
                may_wait: line.backorder_allowed,
                promise: group.and_then(|g| g.promise_by),
            });
        }
        Ok(Plan {
            channel: o.channel_id.clone(),
            forced: matches!(o.channel_type, ChannelType::Marketplace | ChannelType::Pos),
            complete: o.ship_complete,
            wants,
        })
    }

    fn locations(&self, channel: &str) -> &[Text] {
        self.channels.get(channel).map_or(&[], Vec::as_slice)
    }

    /// Takes the steps that are due and writes the order back.
    fn finish(
        &mut self,
        key: &str,
        mut saga: Saga,
        cause: Option<&EventMeta>,
        context: &mut Context<'_>,
    ) {
        let channel = saga
            .plan()
            .map(|plan| plan.channel.clone())
            .unwrap_or_default();
        let now = context.now();
        for step in saga.advance(key, self.locations(&channel), now) {
            emit(key, step, cause, context);
        }
        let before = saga.due();
        let due = saga.set_due(now);
        if due != before {
            context.set_timer(key, due);
        }
        saga.to_state(&mut self.bytes);
        if context.state().get(key.as_bytes()) != Some(&self.bytes) {
            context.state().put(key.as_bytes(), &self.bytes);
        }
    }
}

impl Processor for ReservationSaga {
    fn descriptor(&self) -> &'static ProcessorDescriptor {
        &DESCRIPTOR
    }

    fn process(
        &mut self,
        key: &str,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut saga = load(key, context)?;
        let mut cause = None;
        for (index, i) in inbound.iter().enumerate() {
            match self.take_in(key, &i.event, &mut saga) {
                Err(fault) => context.reject(index, fault),
                Ok(News::TooMuch) => {
                    let message = format!(
                        "order {key} has more claims, fulfilments or cancellations than any order"
                    );
                    context.reject(index, quality(message));
                }
                Ok(News::New) => {
                    cause = Some(i.event.meta());
                    context.settle(index, Outcome::Applied, None);
                }
                Ok(News::Known) => context.settle(index, Outcome::Duplicate, None),
                Ok(News::Old) => {
                    context.settle(index, Outcome::Superseded, Some("a newer version is known"));
                }
            }
        }
        self.finish(key, saga, cause, context);
        Ok(())
    }

    /// Nothing has happened to the order for so long that it is forgotten.
    fn timer(
        &mut self,
        key: &str,
        _due: Timestamp,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        context.state().delete(key.as_bytes());
        context.set_timer(key, None);
        Ok(())
    }

    fn table(&mut self, _topic: &str, key: &str, event: Option<&Event>) -> bool {
        let locations = match event {
            Some(Event::Channel(channel)) if channel.status != ChannelStatus::Inactive => {
                Some(channel.eligible_locations.clone())
            }
            _ => None,
        };
        // Orders that have their claims keep them; the next that is asked for goes by the new list.
        match locations {
            Some(locations) => self.channels.insert(key.into(), locations),
            None => self.channels.remove(key),
        };
        false
    }

    fn restored_timer(&self, key: &[u8], value: &[u8]) -> Option<(Text, Timestamp)> {
        let due = Saga::timer_of(value).ok()??;
        Some((std::str::from_utf8(key).ok()?.into(), due))
    }
}

fn load(key: &str, context: &mut Context<'_>) -> Result<Saga, Fault> {
    match context.state().get(key.as_bytes()) {
        Some(bytes) => Saga::from_state(bytes).map_err(|e| damaged(key, e)),
        None => Ok(Saga::default()),
    }
}

fn reservation(e: &ReservationEvent, saga: &mut Saga) -> Result<News, Fault> {
    let answer = match e.status {
        ReservationStatus::Unknown => return Err(unknown("status")),
        ReservationStatus::Rejected => Answer::Refused,
        ReservationStatus::Expired => Answer::Expired,
        ReservationStatus::Released | ReservationStatus::Consumed => Answer::Over,
        ReservationStatus::Held
        | ReservationStatus::Confirmed
        | ReservationStatus::Backordered
        | ReservationStatus::PartiallyConsumed => Answer::Granted,
    };
    let told = Held {
        line: e.order_line_id.clone(),
        sku: e.sku.clone(),
        location: e.location_id.clone(),
        channel: e.channel_id.clone(),
        quantity: e.qty_requested,
        consumed: e.qty_consumed,
        answer,
        forced: e.mode == ReservationMode::Forced,
        firm: e.status == ReservationStatus::Confirmed,
        ..Held::default()
    };
    let said = said(&e.meta, e.reservation_version);
    Ok(saga.answered(said, e.reservation_id.as_u128(), told))
}

fn shipment(e: &ShipmentEvent, saga: &mut Saga) -> Result<News, Fault> {
    if e.status == ShipmentStatus::Unknown {
        return Err(unknown("status"));
    }
    let missed = e.lines.iter().filter_map(|line| {
        let units = match e.status {
            ShipmentStatus::Cancelled => line.allocated - line.shipped.max(line.delivered),
            _ => line.short + line.cancelled,
        };
        Some((line.reservation_id?.as_u128(), units.or_zero()))
    });
    let missed: Vec<(u128, Decimal)> = missed.filter(|(_, units)| units.is_positive()).collect();
    Ok(saga.missed(
        said(&e.meta, e.shipment_version),
        e.shipment_id.clone(),
        missed,
    ))
}

fn said(meta: &EventMeta, version: i64) -> Said {
    Said {
        at: Position {
            epoch: meta.source_epoch,
            sequence: version,
        },
        event: meta.event_id.as_u128(),
    }
}

fn emit(key: &str, step: Step, cause: Option<&EventMeta>, context: &mut Context<'_>) {
    match step {
        Step::Hold {
            id,
            claim,
            expires_at,
            promise,
        } => {
            let command = ReservationCommand {
                expires_at,
                promise_at: promise,
                ..command(key, id, &claim, ReservationAction::Hold, cause)
            };
            send(command, context);
        }
        Step::Confirm(id, claim) => {
            send(
                command(key, id, &claim, ReservationAction::Confirm, cause),
                context,
            );
        }
        Step::Release(id, claim) => {
            send(
                command(key, id, &claim, ReservationAction::Release, cause),
                context,
            );
        }
        Step::Cancel {
            version,
            units,
            reason,
        } => {
            let event = OrderEvent {
                meta: meta(
                    "OrderEvent",
                    &format!("{key}#{version}"),
                    version,
                    cause,
                    key,
                ),
                order_id: key.into(),
                r#type: OrderEventType::CancelRequested,
                entity_version: version,
                affected: affected(units),
                reason: Some(reason.into()),
                ..OrderEvent::default()
            };
            context.emit(topic::ORDER_LIFECYCLE, key, event);
        }
    }
}

fn affected(units: Quantities) -> Vec<LineQty> {
    let of = |(line_id, qty)| LineQty { line_id, qty };
    units.into_iter().map(of).collect()
}

fn command(
    order: &str,
    id: u128,
    claim: &Held,
    action: ReservationAction,
    cause: Option<&EventMeta>,
) -> ReservationCommand {
    let id = Uuid::from_u128(id);
    ReservationCommand {
        meta: meta(
            "ReservationCommand",
            &format!("{id}|{action}"),
            1,
            cause,
            order,
        ),
        reservation_id: id,
        action,
        mode: match claim.forced {
            true => ReservationMode::Forced,
            false => ReservationMode::Strict,
        },
        order_id: order.into(),
        order_line_id: claim.line.clone(),
        sku: claim.sku.clone(),
        location_id: claim.location.clone(),
        channel_id: claim.channel.clone(),
        qty: claim.quantity,
        ..ReservationCommand::default()
    }
}

fn send(command: ReservationCommand, context: &mut Context<'_>) {
    let key = compound_key(&[&command.sku, &command.location_id]);
    context.emit(topic::RESERVATION_COMMAND, key, command);
}

fn meta(
    event_type: &str,
    record_id: &str,
    position: i64,
    cause: Option<&EventMeta>,
    order: &str,
) -> EventMeta {
    EventMeta {
        event_id: event_id(SOURCE, 0, record_id, "", event_type),
        event_type: event_type.into(),
        source: SOURCE.into(),
        source_position: position,
        position_kind: PositionKind::Version,
        occurred_at: cause.map(|m| m.occurred_at).unwrap_or_default(),
        tenant_id: "default".into(),
        correlation_id: cause.map_or_else(|| order.into(), |m| m.correlation_id.clone()),
        causation_id: cause.map(|m| m.event_id),
        origin: Origin::Source,
        ..EventMeta::default()
    }
}
