//! `reservation-saga`: sees to it that the lines of an order get their stock.
//!
//! An order that is placed asks stock-ledger for claims, by line; what is refused or not found is
//! sourced elsewhere, accepted without stock or asked to be cancelled; what is paid or accepted is
//! made firm; what is cancelled, rejected or found to be missing is given back. When claims run out is
//! stock-ledger's to decide and to record. The rules are in [`crate::domain::order::Saga`].

use super::checks::{self, quality, unknown};
use super::emitter::Emitter;
use super::keyed::{Call, Fate, Heard, Keyed, Rules};
use crate::contract::event::{
    ChannelStatus, ChannelType, DeliveryMethod, Event, EventMeta, LineQty, OrderEvent,
    OrderEventType, OrderSnapshot, PaymentKind, ReservationAction, ReservationCommand,
    ReservationEvent, ReservationMode, ReservationStatus, ShipmentEvent, ShipmentStatus, Text,
};
use crate::contract::topic;
use crate::domain::order::{Answer, Held, Plan, Quantities, Saga, Said, Step, Want};
use crate::domain::{Decimal, Position, compound_key};
use crate::pipeline::{Code, Context, Fault, ProcessorDescriptor, Stage};
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

const NOTHING: Heard = Heard::Nothing("is of no account to claims");

/// The processor.
pub type ReservationSaga = Keyed<Claiming>;

/// Its rules.
#[derive(Default)]
pub struct Claiming {
    /// Locations that serve each channel, best first.
    channels: BTreeMap<Text, Vec<Text>>,
}

impl Claiming {
    /// Takes in one record.
    fn take_in(&self, key: &str, event: &Event, saga: &mut Saga) -> Result<Heard, Fault> {
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
            Event::PaymentEvent(e) => match e.kind {
                PaymentKind::Unknown => Err(unknown("kind")),
                PaymentKind::Authorised | PaymentKind::Captured => Ok(Heard::Taken(saga.paid())),
                _ => Ok(NOTHING),
            },
            Event::ShipmentEvent(e) => shipment(e, saga),
            other => Err(checks::no_use(DESCRIPTOR.name, other)),
        }
    }

    fn order(&self, e: &OrderEvent, saga: &mut Saga) -> Result<Heard, Fault> {
        let said = said(&e.meta, e.entity_version);
        let plan = || e.order.as_ref().map(|o| self.plan(o)).transpose();
        let needed =
            || plan()?.ok_or_else(|| quality(format!("{} needs the order itself", e.r#type)));
        Ok(Heard::Taken(match e.r#type {
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
            | OrderEventType::Closed => return Ok(NOTHING),
        }))
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
}

impl Rules for Claiming {
    const DESCRIPTOR: &'static ProcessorDescriptor = &DESCRIPTOR;
    const SOURCE: &'static str = "crossdock/reservation-saga";
    type Known = Saga;
    type Gathered = ();

    fn take(
        &self,
        index: usize,
        saga: &mut Saga,
        _: &mut (),
        call: &mut Call<'_, '_>,
    ) -> Result<Heard, Fault> {
        self.take_in(call.key, &call.inbound[index].event, saga)
    }

    fn finish(&self, saga: &mut Saga, (): (), call: &mut Call<'_, '_>) -> Result<Fate, Fault> {
        if call.is_timer() {
            // Nothing has happened to the order for so long that it is forgotten.
            return Ok(Fate::Forgotten);
        }
        let channel = saga.plan().map(|plan| plan.channel.clone());
        let locations = self.locations(&channel.unwrap_or_default());
        let emitter = call.emitter_as_of_cause();
        for step in saga.advance(call.key, locations, call.now()) {
            emit(step, &emitter, call.context);
        }
        saga.set_due(call.now());
        Ok(Fate::Kept)
    }

    /// Orders that have their claims keep them; the next that is asked for goes by the new list.
    fn table(&mut self, key: &str, event: Option<&Event>) {
        match event {
            Some(Event::Channel(channel)) if channel.status != ChannelStatus::Inactive => {
                let locations = channel.eligible_locations.clone();
                self.channels.insert(key.into(), locations);
            }
            _ => {
                self.channels.remove(key);
            }
        }
    }
}

fn reservation(e: &ReservationEvent, saga: &mut Saga) -> Result<Heard, Fault> {
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
    let id = e.reservation_id.as_u128();
    Ok(Heard::Taken(saga.answered(said, id, told)))
}

fn shipment(e: &ShipmentEvent, saga: &mut Saga) -> Result<Heard, Fault> {
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
    let said = said(&e.meta, e.shipment_version);
    Ok(Heard::Taken(saga.missed(
        said,
        e.shipment_id.clone(),
        missed,
    )))
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

fn emit(step: Step, emitter: &Emitter<'_>, context: &mut Context<'_>) {
    let key = emitter.entity;
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
                ..command(id, &claim, ReservationAction::Hold, emitter)
            };
            send(command, context);
        }
        Step::Confirm(id, claim) => {
            send(
                command(id, &claim, ReservationAction::Confirm, emitter),
                context,
            );
        }
        Step::Release(id, claim) => {
            send(
                command(id, &claim, ReservationAction::Release, emitter),
                context,
            );
        }
        Step::Cancel {
            version,
            units,
            reason,
        } => {
            let event = OrderEvent {
                meta: emitter.meta("OrderEvent", &format!("{key}#{version}"), version),
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
    id: u128,
    claim: &Held,
    action: ReservationAction,
    emitter: &Emitter<'_>,
) -> ReservationCommand {
    let id = Uuid::from_u128(id);
    ReservationCommand {
        meta: emitter.meta("ReservationCommand", &format!("{id}|{action}"), 1),
        reservation_id: id,
        action,
        mode: match claim.forced {
            true => ReservationMode::Forced,
            false => ReservationMode::Strict,
        },
        order_id: emitter.entity.into(),
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
