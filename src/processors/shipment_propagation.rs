//! `shipment-propagation`: what the channel that sold an order must know of its fulfilments.
//!
//! Reports of nodes and carriers come in, in any order; one record for each order goes out that holds
//! all its fulfilments, so that a newer one replaces an older one that has not been sent. What a
//! customer must be told stands in it as milestones. How fast a channel is called is its sink's
//! business. The rules are in [`crate::domain::order::Shipments`].

use super::checks::{self, damaged, quality, unknown};
use super::statuses::{domain_status, wire_status};
use crate::contract::event::{
    Event, EventMeta, Fulfilment, Milestone as WireMilestone, MilestoneKind, NodeType,
    OrderEventType, Origin, Outcome, Package, PositionKind, ShipmentEvent,
    ShipmentLine as WireLine, ShipmentState, Text,
};
use crate::contract::topic;
use crate::domain::order::{Milestone, News, Parcel, Report, Said, ShipmentLine, Shipments};
use crate::domain::{Position, Timestamp, event_id};
use crate::pipeline::{Context, Fault, Inbound, Processor, ProcessorDescriptor};

/// What `shipment-propagation` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "shipment-propagation",
    purpose: "tells the channel of an order where its fulfilments stand",
    inputs: &[topic::ORDER_LIFECYCLE, topic::SHIPMENT_EVENT],
    tables: &[],
    outputs: &[topic::SHIPMENT_STATE],
};

const SOURCE: &str = "crossdock/shipment-propagation";

/// The processor.
#[derive(Default)]
pub struct ShipmentPropagation {
    bytes: Vec<u8>,
}

impl ShipmentPropagation {
    /// Without state of its own.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Processor for ShipmentPropagation {
    fn descriptor(&self) -> &'static ProcessorDescriptor {
        &DESCRIPTOR
    }

    fn process(
        &mut self,
        key: &str,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut shipments = match context.state().get(key.as_bytes()) {
            Some(bytes) => Shipments::from_state(bytes).map_err(|e| damaged(key, e))?,
            None => Shipments::default(),
        };
        let before = shipments.clone();
        let mut cause = None;
        for (index, i) in inbound.iter().enumerate() {
            match take_in(key, &i.event, &mut shipments) {
                Err(fault) => context.reject(index, fault),
                Ok(News::TooMuch) => {
                    let message = format!(
                        "order {key} has more fulfilments, lines and parcels than any order"
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
        if shipments == before {
            return Ok(());
        }
        if shipments.told().is_some() {
            let version = shipments.next_version();
            if let Some(state) = state(key, version, &shipments, cause) {
                context.emit(topic::SHIPMENT_STATE, key, state);
            }
        }
        let due = shipments.set_due(context.now());
        context.set_timer(key, Some(due));
        shipments.to_state(&mut self.bytes);
        context.state().put(key.as_bytes(), &self.bytes);
        Ok(())
    }

    /// Nothing has been heard of the order's fulfilments for so long that they are forgotten.
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

    fn restored_timer(&self, key: &[u8], value: &[u8]) -> Option<(Text, Timestamp)> {
        let due = Shipments::timer_of(value).ok()??;
        Some((std::str::from_utf8(key).ok()?.into(), due))
    }
}

fn take_in(key: &str, event: &Event, shipments: &mut Shipments) -> Result<News, Fault> {
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
    match event {
        Event::OrderEvent(e) if e.r#type == OrderEventType::Placed => match &e.order {
            Some(o) => {
                Ok(shipments.ordered(said, o.channel_id.clone(), o.channel_order_id.clone()))
            }
            None => Err(quality("PLACED needs the order itself")),
        },
        Event::ShipmentEvent(e) => {
            let at = meta.occurred_at;
            Ok(shipments.report(said, e.shipment_id.clone(), report(e)?, at))
        }
        // Everything else that is said of an order is of no account to its parcels.
        _ => Ok(News::New),
    }
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

fn state(
    key: &str,
    version: i64,
    shipments: &Shipments,
    cause: Option<&EventMeta>,
) -> Option<ShipmentState> {
    let (channel, number, fulfilments) = shipments.told()?;
    let meta = EventMeta {
        event_id: event_id(SOURCE, 0, &format!("{key}#{version}"), "", "ShipmentState"),
        event_type: "ShipmentState".into(),
        source: SOURCE.into(),
        source_position: version,
        position_kind: PositionKind::Version,
        occurred_at: cause.map(|m| m.occurred_at).unwrap_or_default(),
        tenant_id: "default".into(),
        correlation_id: cause.map_or_else(|| key.into(), |m| m.correlation_id.clone()),
        causation_id: cause.map(|m| m.event_id),
        origin: Origin::Source,
        ..EventMeta::default()
    };
    Some(ShipmentState {
        meta,
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
