//! Statuses of fulfilments in contracts and in the rules.

use crate::contract::event::ShipmentStatus as Wire;
use crate::domain::order::ShipmentStatus;

/// Both names of each status.
const STATUSES: &[(Wire, ShipmentStatus)] = &[
    (Wire::Released, ShipmentStatus::Released),
    (Wire::Acknowledged, ShipmentStatus::Acknowledged),
    (Wire::Picked, ShipmentStatus::Picked),
    (Wire::ShortPicked, ShipmentStatus::ShortPicked),
    (Wire::Packed, ShipmentStatus::Packed),
    (Wire::ReadyForPickup, ShipmentStatus::ReadyForPickup),
    (Wire::Collected, ShipmentStatus::Collected),
    (Wire::Shipped, ShipmentStatus::Shipped),
    (Wire::InTransit, ShipmentStatus::InTransit),
    (Wire::OutForDelivery, ShipmentStatus::OutForDelivery),
    (Wire::Delivered, ShipmentStatus::Delivered),
    (Wire::DeliveryFailed, ShipmentStatus::DeliveryFailed),
    (Wire::ReturnedToSender, ShipmentStatus::ReturnedToSender),
    (Wire::Cancelled, ShipmentStatus::Cancelled),
];

/// The rules' status; nothing for one that this build does not know.
pub(super) fn domain_status(status: Wire) -> Option<ShipmentStatus> {
    let found = STATUSES.iter().find(|(wire, _)| *wire == status);
    found.map(|(_, status)| *status)
}

/// The contract's status.
pub(super) fn wire_status(status: ShipmentStatus) -> Wire {
    let found = STATUSES.iter().find(|(_, domain)| *domain == status);
    found.map(|(wire, _)| *wire).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_both_names() {
        for status in ShipmentStatus::ALL {
            assert_eq!(domain_status(wire_status(*status)), Some(*status));
        }
        assert_eq!(STATUSES.len() + 1, Wire::ALL.len(), "all but UNKNOWN");
    }
}
