//! The parts of Tryton that are read independently.

use super::client::Client;
use super::objects::{KeptObjects, Kind};
use super::stock::TrytonMoves;
use crate::connectors::erp::{ErpSource, Objects, Part, Stock};
use std::sync::Arc;

/// Polls that are passed over while nothing changes, for each that is made.
const fn rest(kind: Kind) -> u32 {
    match kind {
        // A customer waits for it.
        Kind::Sales | Kind::Shipments => 1,
        Kind::Products | Kind::Prices | Kind::Returns | Kind::Invoices => 4,
        Kind::Locations | Kind::OrderPoints => 20,
    }
}

pub(super) fn open(instance: &str, client: &Arc<Client>) -> ErpSource<TrytonMoves, KeptObjects> {
    let kinds = Kind::ALL.iter().copied();
    let parts = kinds.filter(|kind| kind.is_read(&client.settings));
    let parts = parts.map(|kind| {
        let objects = KeptObjects::new(kind, instance, client.clone());
        Part::new(kind.shard(), rest(kind), Objects::new(instance, objects))
    });
    let moves = TrytonMoves::new(instance, client.clone());
    ErpSource::new(Stock::new(instance, moves), parts.collect())
}
