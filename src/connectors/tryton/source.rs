//! The parts of Tryton that are read independently.

use super::client::Client;
use super::listing::Sales;
use super::objects::{KeptObjects, Kind};
use super::stock::TrytonMoves;
use crate::connectors::erp::{ErpSource, Listing, Objects, Part, Stock};
use std::sync::Arc;
use std::time::Duration;

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
    let source = ErpSource::new(Stock::new(instance, moves), parts.collect());
    source.listing(listing(instance, client))
}

fn listing(instance: &str, client: &Arc<Client>) -> Option<Listing> {
    let settings = &client.settings;
    let wanted = settings.list_hours > 0 && !settings.channels.is_empty();
    wanted.then(|| Listing {
        instance: instance.to_owned(),
        every: Duration::from_secs(3_600) * settings.list_hours,
        lag: Duration::from_micros(settings.overlap_us().unsigned_abs()),
        orders: Box::new(Sales(client.clone())),
    })
}
