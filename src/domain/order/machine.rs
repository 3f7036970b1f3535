//! The state machines of an order as data: what may follow what, and by which event.
//!
//! Facts arrive late, twice and out of order, and a source may leave steps out. So a machine is asked
//! not whether one step is legal but whether one state can lead to another at all ([`Machine::leads`]).

use crate::domain::encoding::stored_enum;

/// Statuses and the steps between them.
#[derive(Debug)]
pub struct Machine<S: 'static> {
    /// What goes through these statuses.
    pub name: &'static str,
    /// From, to.
    pub steps: &'static [(S, S)],
}

impl<S: Copy + Eq> Machine<S> {
    /// Whether `from` leads to `to`, over as many steps as it takes; every status leads to itself.
    pub fn leads(&self, from: S, to: S) -> bool {
        let mut reached = vec![from];
        let mut next = 0;
        while let Some(at) = reached.get(next).copied() {
            if at == to {
                return true;
            }
            for (_, to) in self.steps.iter().filter(|(from, _)| *from == at) {
                if !reached.contains(to) {
                    reached.push(*to);
                }
            }
            next += 1;
        }
        false
    }
}

/// Where a fulfilment stands at its node or carrier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum ShipmentStatus {
    #[default]
    Released,
    Acknowledged,
    Picked,
    ShortPicked,
    Packed,
    ReadyForPickup,
    Collected,
    Shipped,
    InTransit,
    OutForDelivery,
    Delivered,
    DeliveryFailed,
    ReturnedToSender,
    Cancelled,
}

stored_enum!(ShipmentStatus [
    Released, Acknowledged, Picked, ShortPicked, Packed, ReadyForPickup, Collected, Shipped,
    InTransit, OutForDelivery, Delivered, DeliveryFailed, ReturnedToSender, Cancelled,
]);

/// Fulfilments, sent and picked up alike: cancelled only before goods left the house.
pub const SHIPMENT: Machine<ShipmentStatus> = {
    use ShipmentStatus::*;
    Machine {
        name: "shipment",
        steps: &[
            (Released, Acknowledged),
            (Acknowledged, Picked),
            (Acknowledged, ShortPicked),
            (ShortPicked, Picked),
            (Picked, Packed),
            (ShortPicked, Packed),
            (Picked, ReadyForPickup),
            (ShortPicked, ReadyForPickup),
            (Packed, ReadyForPickup),
            (ReadyForPickup, Collected),
            (Packed, Shipped),
            (Shipped, InTransit),
            (InTransit, OutForDelivery),
            (OutForDelivery, Delivered),
            (OutForDelivery, DeliveryFailed),
            (DeliveryFailed, OutForDelivery),
            (DeliveryFailed, ReturnedToSender),
            (Released, Cancelled),
            (Acknowledged, Cancelled),
            (Picked, Cancelled),
            (ShortPicked, Cancelled),
            (Packed, Cancelled),
            (ReadyForPickup, Cancelled),
        ],
    }
};

/// Where units of an order line are. Every unit is in exactly one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Bucket {
    #[default]
    Open,
    Reserved,
    Backordered,
    Released,
    Picked,
    Shipped,
    Delivered,
    Cancelled,
}

impl Bucket {
    /// Every bucket, in order of an order's life.
    pub const ALL: [Bucket; 8] = [
        Bucket::Open,
        Bucket::Reserved,
        Bucket::Backordered,
        Bucket::Released,
        Bucket::Picked,
        Bucket::Shipped,
        Bucket::Delivered,
        Bucket::Cancelled,
    ];
}

/// One way by which units go from one bucket to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// From.
    pub from: Bucket,
    /// To.
    pub to: Bucket,
    /// The event that moves them.
    pub on: &'static str,
    /// The exception that it raises: the move happens because goods are where they are, not because
    /// it is right.
    pub raises: Option<&'static str>,
}

const fn by(from: Bucket, to: Bucket, on: &'static str) -> Move {
    Move {
        from,
        to,
        on,
        raises: None,
    }
}

/// How the units of an order line move.
pub const LINE: &[Move] = {
    use Bucket::*;
    &[
        by(Open, Reserved, "ReservationEvent.HELD|CONFIRMED"),
        by(Open, Backordered, "ReservationEvent.BACKORDERED"),
        by(Backordered, Reserved, "ReservationEvent.HELD|CONFIRMED"),
        by(Reserved, Open, "ReservationEvent.RELEASED|EXPIRED"),
        by(Reserved, Released, "ShipmentEvent.RELEASED|ACKNOWLEDGED"),
        by(Released, Picked, "ShipmentEvent.picked"),
        by(Released, Open, "ShipmentEvent.short|CANCELLED"),
        by(Picked, Shipped, "ShipmentEvent.shipped"),
        by(Picked, Open, "ShipmentEvent.CANCELLED"),
        by(Shipped, Delivered, "ShipmentEvent.DELIVERED|COLLECTED"),
        by(Open, Cancelled, CANCEL),
        by(Reserved, Cancelled, CANCEL),
        by(Backordered, Cancelled, CANCEL),
        by(Released, Cancelled, CANCEL),
        Move {
            from: Cancelled,
            to: Shipped,
            on: "ShipmentEvent.shipped",
            raises: Some("SHIPPED_AFTER_CANCEL"),
        },
    ]
};

const CANCEL: &str = "OrderEvent.CANCEL_DECIDED";

/// Whether units of `bucket` can still be cancelled.
pub fn can_be_cancelled(bucket: Bucket) -> bool {
    LINE.iter()
        .any(|m| m.from == bucket && m.to == Bucket::Cancelled && m.on == CANCEL)
}

/// Projected status of an order, first match wins. That it was closed is told beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum OrderStatus {
    Conflict,
    Rejected,
    OnHold,
    Cancelled,
    Returned,
    PartiallyReturned,
    Completed,
    ReadyForPickup,
    Shipped,
    PartiallyShipped,
    InFulfilment,
    Backordered,
    Accepted,
    #[default]
    Placed,
}

impl OrderStatus {
    /// Whether nothing more is expected to happen to the order.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            OrderStatus::Rejected
                | OrderStatus::Cancelled
                | OrderStatus::Returned
                | OrderStatus::PartiallyReturned
                | OrderStatus::Completed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goods_that_left_cannot_be_cancelled_and_steps_may_be_left_out() {
        use ShipmentStatus::*;
        for left in [Shipped, InTransit, OutForDelivery, Delivered, Collected] {
            assert!(!SHIPMENT.leads(left, Cancelled), "{left:?}");
            assert!(SHIPMENT.leads(Released, left), "{left:?}");
            assert!(!SHIPMENT.leads(left, Released), "{left:?}");
        }
        assert!(SHIPMENT.leads(DeliveryFailed, Delivered), "tried again");
        assert!(SHIPMENT.leads(Cancelled, Cancelled));
    }

    #[test]
    fn units_can_be_cancelled_until_they_are_picked() {
        let can: Vec<_> = Bucket::ALL
            .into_iter()
            .filter(|b| can_be_cancelled(*b))
            .collect();
        use Bucket::*;
        assert_eq!(can, [Open, Reserved, Backordered, Released]);
    }
}
