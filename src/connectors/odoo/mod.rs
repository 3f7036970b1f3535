//! Odoo, an ERP with warehouses and tills. Its source reads stock movements, counts, products, prices and
//! locations.
//!
//! `client` talks JSON-2, `table` says how its tables are followed, `tree` what a location is, `stock` and
//! `objects` turn rows into events with what ERPs share in `connectors/erp`. `fake` is the stand-in.
//!
//! Facts about the API are of Odoo 19, each seen against a running server:
//! - `write_date` is the start of the transaction, read and compared in whole seconds although rows sort
//!   by microseconds. All rows of one transaction share it, a row can appear behind newer ones, and one that is
//!   written twice within a second does not show it.
//! - What changes stock is a done move *line*. It stays done; a quantity that somebody corrects in it
//!   afterwards is not told, and the comparison after the next count names the difference.
//! - A count makes a line of a move that `is_inventory`, of no quantity where it found what was
//!   expected. Quants (`stock.quant`) of one product and place can be several rows: they add up. They can
//!   drift from the sum of the lines when written side by side.
//! - A stock change moves no stamp of the product or location.
//! - A field that does not exist is answered with status 500: not every 500 is worth another try.
//! - What is empty is `false`; a related row is `[id, name]`.
//! - Rows that are deleted leave nothing. A done line cannot be deleted. A product or location that is
//!   deleted is not noticed.
//! - Tables have no index on `write_date`: where they are large, give `stock_move_line` and `product_product`
//!   one.

mod client;
mod fake;
mod objects;
mod rows;
mod settings;
mod stock;
mod table;
mod tree;

use crate::connectors::erp::{ErpSource, Objects, Part, Stock};
use crate::contract::topic;
use crate::pipeline::{Check, Connector, ConnectorDescriptor, Evidence, Fault, Sink, Source};
use client::Client;
use settings::Settings;
use std::sync::Arc;

/// What the connector is.
pub const DESCRIPTOR: ConnectorDescriptor = ConnectorDescriptor {
    kind: "odoo",
    purpose: "reads stock movements, counts, products and prices of an Odoo ERP",
    emits: &[
        topic::STOCK_CHANGE,
        topic::STOCK_SNAPSHOT,
        topic::PRODUCT_CHANGE,
        topic::LOCATION_CHANGE,
        topic::PRICE_CHANGE,
    ],
    inbox: false,
    accepts: &[],
    sink: None,
    evidence: Evidence::Documentation,
    settings: || schemars::schema_for!(Settings),
    build: |instance, settings| {
        let settings: Settings = super::settings(instance, settings)?;
        settings.check(instance)?;
        Ok(Arc::new(Odoo {
            instance: instance.to_owned(),
            client: Arc::new(Client::new(instance, settings)?),
        }))
    },
    fake: Some(|options| Box::pin(async move { fake::start(&options) })),
};

struct Odoo {
    instance: String,
    client: Arc<Client>,
}

#[async_trait::async_trait]
impl Connector for Odoo {
    fn source(&self) -> Option<Box<dyn Source>> {
        let (instance, client) = (&self.instance, &self.client);
        let rest = |kind| match kind {
            objects::Kind::Products | objects::Kind::Prices => 4,
            objects::Kind::Locations => 20,
        };
        let parts = objects::Kind::ALL.iter().map(|kind| {
            let kept = objects::KeptObjects::new(*kind, instance, client.clone());
            Part::new(kind.shard(), rest(*kind), Objects::new(instance, kept))
        });
        let moves = stock::OdooMoves::new(instance, client.clone());
        let stock = Stock::new(instance, moves);
        Some(Box::new(ErpSource::new(stock, parts.collect())))
    }

    fn sink(&self) -> Option<Arc<dyn Sink>> {
        None
    }

    async fn check(&self) -> Vec<Check> {
        let ok = |what: &str, result: Result<String, Fault>| Check {
            what: what.into(),
            result: result.map_err(|f| f.to_string()),
        };
        let client = &self.client;
        let user = client.user().await;
        let places = tree::Places::load(client).await;
        let mut checks = vec![
            ok(
                "log in",
                user.map(|u| format!("company {}", u.company_name)),
            ),
            ok("locations", places.and_then(|p| p.tree.describe())),
            ok("read stock moves", stock::check(client).await),
        ];
        for (kind, what) in [
            (objects::Kind::Products, "read products"),
            (objects::Kind::Prices, "read prices"),
        ] {
            checks.push(ok(what, objects::check(client, kind).await));
        }
        checks
    }
}
