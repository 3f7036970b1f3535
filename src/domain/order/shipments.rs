//! The fulfilments of an order as its channel must know them.
//!
//! Of each fulfilment the newest version counts. What a customer must be told (ready, sent, delivered,
//! cancelled) is kept as milestones: a status that a newer one has overtaken, on its way or on arrival,
//! is not lost.

use super::facts::{Said, ShipmentLine};
use super::machine::ShipmentStatus;
use crate::domain::encoding::{kept, stored, stored_enum};
use crate::domain::{Taken, Timestamp};
use compact_str::CompactString as Text;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the fulfilments of an order are remembered after the last change.
pub const SHIPMENTS_RETENTION: Duration = Duration::from_secs(120 * 86_400);
/// Fulfilments that one order may have.
const FULFILMENTS_MAX: usize = 500;
/// Lines and parcels that the fulfilments of one order may have.
const WEIGHT_MAX: usize = 5_000;

/// What a customer must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Milestone {
    ReadyForPickup,
    Shipped,
    Delivered,
    Cancelled,
}

/// The milestones that a status tells of, those before it included.
pub const MILESTONES: &[(ShipmentStatus, &[Milestone])] = {
    use Milestone::*;
    &[
        (ShipmentStatus::ReadyForPickup, &[ReadyForPickup]),
        (ShipmentStatus::Collected, &[ReadyForPickup, Delivered]),
        (ShipmentStatus::Shipped, &[Shipped]),
        (ShipmentStatus::InTransit, &[Shipped]),
        (ShipmentStatus::OutForDelivery, &[Shipped]),
        (ShipmentStatus::Delivered, &[Shipped, Delivered]),
        (ShipmentStatus::DeliveryFailed, &[Shipped]),
        (ShipmentStatus::ReturnedToSender, &[Shipped]),
        (ShipmentStatus::Cancelled, &[Cancelled]),
    ]
};

/// A parcel.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Parcel {
    pub id: Text,
    pub sscc: Option<Text>,
    pub carrier: Option<Text>,
    pub tracking_number: Option<Text>,
    pub tracking_url: Option<Text>,
}

/// What a node or carrier says of a fulfilment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Where it stands.
    pub status: ShipmentStatus,
    /// Who does the work.
    pub node: Text,
    /// Symbol of the kind of node.
    pub node_type: Text,
    /// Lines with their SKUs.
    pub lines: Vec<(Text, ShipmentLine)>,
    /// Parcels.
    pub parcels: Vec<Parcel>,
    /// When it is expected to arrive.
    pub estimated_at: Option<Timestamp>,
    /// Why it stands where it stands.
    pub reason: Option<Text>,
}

/// A fulfilment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fulfilment {
    /// Who said it last.
    pub said: Said,
    /// The newest report.
    pub report: Report,
    /// Milestones and when each was reached.
    pub milestones: BTreeMap<Milestone, Timestamp>,
}

/// All fulfilments of an order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shipments {
    due: Option<Timestamp>,
    /// Channel and number of the order there.
    order: Option<(Said, (Text, Text))>,
    fulfilments: BTreeMap<Text, Fulfilment>,
    version: i64,
}

stored_enum!(Milestone [ReadyForPickup, Shipped, Delivered, Cancelled]);
stored!(Parcel {
    id,
    sscc,
    carrier,
    tracking_number,
    tracking_url
});
stored!(Report {
    status,
    node,
    node_type,
    lines,
    parcels,
    estimated_at,
    reason
});
stored!(Fulfilment {
    said,
    report,
    milestones
});
kept!(Shipments {
    due,
    order,
    fulfilments,
    version: told
});

impl Shipments {
    /// The order is known: where it was sold, and its number there.
    pub fn ordered(&mut self, said: Said, channel: Text, number: Text) -> Taken {
        let taken = match &self.order {
            None => Taken::Applied,
            Some((known, _)) if said.at > known.at => Taken::Applied,
            Some((known, _)) if said.at == known.at => Taken::Duplicate,
            Some(_) => Taken::Superseded,
        };
        if taken == Taken::Applied {
            self.order = Some((said, (channel, number)));
        }
        taken
    }

    /// A fulfilment is reported on. An old report that tells of a milestone is news for that.
    pub fn report(&mut self, said: Said, id: Text, report: Report, at: Timestamp) -> Taken {
        let weight: usize = self.fulfilments.values().map(Fulfilment::weight).sum();
        let fresh = !self.fulfilments.contains_key(&id);
        if (fresh && self.fulfilments.len() >= FULFILMENTS_MAX)
            || weight + report.lines.len() + report.parcels.len() > WEIGHT_MAX
        {
            return Taken::TooMany;
        }
        let known = self.fulfilments.entry(id).or_default();
        let before = known.milestones.clone();
        let told = MILESTONES
            .iter()
            .find(|(status, _)| *status == report.status);
        for milestone in told.into_iter().flat_map(|(_, told)| told.iter()) {
            let reached = known.milestones.entry(*milestone).or_insert(at);
            *reached = at.min(*reached);
        }
        if fresh || said > known.said {
            let taken = match fresh || said.at > known.said.at {
                true => Taken::Applied,
                // Two reports of one version: the same one counts whatever comes first.
                false => Taken::Superseded,
            };
            (known.said, known.report) = (said, report);
            return taken;
        }
        match (known.milestones != before, said == known.said) {
            (true, _) => Taken::Applied,
            (false, true) => Taken::Duplicate,
            (false, false) => Taken::Superseded,
        }
    }

    /// What the channel must know, as soon as there is a channel and something to know: channel,
    /// number of the order there, fulfilments by id.
    pub fn told(&self) -> Option<(&Text, &Text, &BTreeMap<Text, Fulfilment>)> {
        let (_, (channel, number)) = self.order.as_ref()?;
        (!self.fulfilments.is_empty()).then_some((channel, number, &self.fulfilments))
    }

    /// Counts a state that is emitted.
    pub fn next_version(&mut self) -> i64 {
        self.version += 1;
        self.version
    }

    /// Sets when they may be forgotten, and returns it.
    pub fn set_due(&mut self, now: Timestamp) -> Timestamp {
        let due = now.plus(SHIPMENTS_RETENTION);
        self.due = Some(due);
        due
    }
}

impl Fulfilment {
    fn weight(&self) -> usize {
        self.report.lines.len() + self.report.parcels.len()
    }
}
