//! `shipment-propagation`: what the channel that sold an order must know of its fulfilments.
//!
//! Reports of nodes and carriers come in, in any order; one record for each order goes out that holds
//! all its fulfilments, so that a newer one replaces an older one that has not been sent. What a
//! customer must be told stands in it as milestones. How fast a channel is called is its sink's
//! business. The rules are in [`crate::domain::order::Shipments`].

use super::checks::{self, quality, unknown};
use super::emitter::Emitter;
use super::keyed::{Call, Fate, Heard, Keyed, Rules};
use super::statuses::{domain_status, wire_status};
use crate::contract::event::{
    Event, Fulfilment, Milestone as WireMilestone, MilestoneKind, NodeType, OrderEventType,
    Package, ShipmentEvent, ShipmentLine as WireLine, ShipmentState, Text,
};
use crate::contract::topic;
use crate::domain::Position;
use crate::domain::order::{Milestone, Parcel, Report, Said, ShipmentLine, Shipments};
use crate::pipeline::{Fault, ProcessorDescriptor};

/// What `shipment-propagation` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "shipment-propagation",
    purpose: "tells the channel of an order where its fulfilments stand",
    inputs: &[topic::ORDER_LIFECYCLE, topic::SHIPMENT_EVENT],
    tables: &[],
    outputs: &[topic::SHIPMENT_STATE],
};

/// The processor.
pub type ShipmentPropagation = Keyed<Telling>;

/// Its rules.
#[derive(Default)]
pub struct Telling;

impl Rules for Telling {
    const DESCRIPTOR: &'static ProcessorDescriptor = &DESCRIPTOR;
    const SOURCE: &'static str = "crossdock/shipment-propagation";
    type Known = Shipments;
    type Gathered = ();

    fn take(
        &self,
        index: usize,
        shipments: &mut Shipments,
        _: &mut (),
        call: &mut Call<'_, '_>,
    ) -> Result<Heard, Fault> {
        take_in(call.key, &call.inbound[index].event, shipments)
    }

    fn finish(
        &self,
        shipments: &mut Shipments,
        (): (),
        call: &mut Call<'_, '_>,
    ) -> Result<Fate, Fault> {
        if call.is_timer() {
            // Nothing has been heard of the order's fulfilments for so long that they are forgotten.
            return Ok(Fate::Forgotten);
        }
        if shipments.told().is_some() {
            let version = shipments.next_version();
            if let Some(state) = state(version, shipments, &call.emitter_as_of_cause()) {
                call.context.emit(topic::SHIPMENT_STATE, call.key, state);
            }
        }
        shipments.set_due(call.now());
        Ok(Fate::Kept)
    }
}

fn take_in(key: &str, event: &Event, shipments: &mut Shipments) -> Result<Heard, Fault> {
    let (order, version) = match event {
        Event::OrderEvent(e) => (&e.order_id, e.entity_version),
        Event::ShipmentEvent(e) => (&e.order_id, e.shipment_version),
        other => return Err(checks::no_use(DESCRIPTOR.name, other)),
    };
    checks::check_key(key, order)?;
    let meta = event.meta();
    checks::check_times(meta)?;
    let said = Said {
        at: Position {
            epoch: meta.source_epoch,
            sequence: version,
        },
        event: meta.event_id.as_u128(),
    };
    Ok(Heard::Taken(match event {
        Event::OrderEvent(e) if e.r#type == OrderEventType::Placed => match &e.order {
            Some(o) => shipments.ordered(said, o.channel_id.clone(), o.channel_order_id.clone()),
            None => return Err(quality("PLACED needs the order itself")),
        },
        Event::ShipmentEvent(e) => {
            let at = meta.occurred_at;
            shipments.report(said, e.shipment_id.clone(), report(e)?, at)
        }
        _ => return Ok(Heard::Nothing("is of no account to parcels")),
    }))
}

fn report(e: &ShipmentEvent) -> Result<Report, Fault> {
    let Some(status) = domain_status(e.status) else {
        return Err(unknown("status"));
    };
    let line = |l: &WireLine| {
        let line = ShipmentLine {
            line: l.line_id.clone(),
            reservation: l
                .reservation_id
                .map(|id| compact_str::format_compact!("{id}")),
            allocated: l.allocated,
            picked: l.picked,
            short: l.short,
            shipped: l.shipped,
            delivered: l.delivered,
            cancelled: l.cancelled,
        };
        (l.sku.clone(), line)
    };
    let parcel = |p: &Package| Parcel {
        id: p.package_id.clone(),
        sscc: p.sscc.clone(),
        carrier: p.carrier.clone(),
        tracking_number: p.tracking_number.clone(),
        tracking_url: p.tracking_url.clone(),
    };
    Ok(Report {
        status,
        node: e.node_id.clone(),
        node_type: e.node_type.symbol().into(),
        lines: e.lines.iter().map(line).collect(),
        parcels: e.packages.iter().map(parcel).collect(),
        estimated_at: e.estimated_at,
        reason: e.reason.clone(),
    })
}

fn state(version: i64, shipments: &Shipments, emitter: &Emitter<'_>) -> Option<ShipmentState> {
    let (channel, number, fulfilments) = shipments.told()?;
    let key = emitter.entity;
    Some(ShipmentState {
        meta: emitter.meta("ShipmentState", &format!("{key}#{version}"), version),
        order_id: key.into(),
        channel_id: channel.clone(),
        channel_order_id: number.clone(),
        state_version: version,
        fulfilments: fulfilments
            .iter()
            .map(|(id, f)| fulfilment(id, f))
            .collect(),
    })
}

fn fulfilment(id: &Text, f: &crate::domain::order::Fulfilment) -> Fulfilment {
    let line = |(sku, l): &(Text, ShipmentLine)| WireLine {
        line_id: l.line.clone(),
        sku: sku.clone(),
        allocated: l.allocated,
        picked: l.picked,
        short: l.short,
        shipped: l.shipped,
        delivered: l.delivered,
        cancelled: l.cancelled,
        reservation_id: l.reservation.as_deref().and_then(|id| id.parse().ok()),
    };
    let package = |p: &Parcel| Package {
        package_id: p.id.clone(),
        sscc: p.sscc.clone(),
        carrier: p.carrier.clone(),
        tracking_number: p.tracking_number.clone(),
        tracking_url: p.tracking_url.clone(),
    };
    let mut milestones: Vec<WireMilestone> = f
        .milestones
        .iter()
        .map(|(milestone, at)| WireMilestone {
            kind: match milestone {
                Milestone::ReadyForPickup => MilestoneKind::ReadyForPickup,
                Milestone::Shipped => MilestoneKind::Shipped,
                Milestone::Delivered => MilestoneKind::Delivered,
                Milestone::Cancelled => MilestoneKind::Cancelled,
            },
            reached_at: *at,
        })
        .collect();
    milestones.sort_by_key(|m| m.reached_at);
    Fulfilment {
        shipment_id: id.clone(),
        shipment_version: f.said.at.sequence,
        node_id: f.report.node.clone(),
        node_type: NodeType::from_symbol(&f.report.node_type).unwrap_or_default(),
        status: wire_status(f.report.status),
        lines: f.report.lines.iter().map(line).collect(),
        packages: f.report.parcels.iter().map(package).collect(),
        estimated_at: f.report.estimated_at,
        reason: f.report.reason.clone(),
        milestones,
    }
}
