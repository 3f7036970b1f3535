//! Tryton, an ERP with warehouses and tills: its source reads stock movements, counts, products,
//! locations and order points.
//!
//! `client` talks JSON-RPC, `moves` and `map` turn rows into events, `tree` says what a location is,
//! `stock` and `objects` follow the tables, `window`, `told` and `ids` are what they remember between
//! polls, `source` puts them behind [`Source`], `fake` is the stand-in.
//!
//! Facts about the API are of Tryton 8.2, each seen against a running server:
//! - `last_modified_at` is the start of the transaction in microseconds. All rows of one transaction
//!   share it, and a row can appear behind newer ones: pages go by (stamp, id), and the stamps of the
//!   last [`Settings::overlap_s`] seconds are counted again in every poll.
//! - A done move never changes what it moved, but its stamp moves when its cost or price is set
//!   afterwards: whether a move was told already is known by its id, never by its stamp.
//! - A count changes stock by moves to and from Lost and Found; no product and no location moves a
//!   stamp for it.
//! - Rows that are deleted leave nothing. A done move cannot be deleted. A product, location or
//!   order point that is deleted is not noticed.
//! - A storage location that is put below another warehouse takes its stock along without a move,
//!   and a move dated in the future counts here at once, in the ERP's reports only then. Neither is
//!   told; the comparison after the next count names the difference.

mod client;
mod fake;
mod ids;
mod map;
mod moves;
mod objects;
mod rows;
mod source;
mod stock;
mod told;
mod tree;
mod window;

use crate::config::Secret;
use crate::contract::topic;
use crate::pipeline::{
    Check, Code, Connector, ConnectorDescriptor, Evidence, Fault, Sink, Source, Stage,
};
use client::Client;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the connector is.
pub const DESCRIPTOR: ConnectorDescriptor = ConnectorDescriptor {
    kind: "tryton",
    purpose: "reads stock movements, counts and products of a Tryton ERP",
    emits: &[
        topic::STOCK_CHANGE,
        topic::STOCK_SNAPSHOT,
        topic::STOCK_POLICY,
        topic::PRODUCT_CHANGE,
        topic::LOCATION_CHANGE,
    ],
    inbox: false,
    accepts: &[],
    sink: None,
    evidence: Evidence::RealSystem,
    settings: || schemars::schema_for!(Settings),
    build: |instance, settings| {
        let settings: Settings = super::settings(instance, settings)?;
        settings.check(instance)?;
        Ok(Arc::new(Tryton {
            instance: instance.to_owned(),
            client: Arc::new(Client::new(instance, settings)?),
        }))
    },
    fake: Some(|options| Box::pin(async move { fake::start(&options) })),
};

/// Settings of a Tryton connector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Base URL of the server, without the database.
    pub url: String,
    /// Name of the database.
    pub database: String,
    /// User to log in as; needs the right to read stock and products, and none to change anything.
    /// Stock of the user's company is read.
    pub username: String,
    /// Password, by reference: `${env:NAME}` or `${file:PATH}`.
    pub password: Secret,
    /// What Tryton's warehouses are here, by code (by name where there is none). A warehouse that is
    /// not listed is a distribution centre under its own code. A storage location outside of every
    /// warehouse is on the way between two of them, unless it is listed.
    #[serde(default)]
    pub locations: BTreeMap<String, LocationSettings>,
    /// Codes (or names) of storage locations whose goods are damaged, with all below them.
    #[serde(default)]
    pub damaged: Vec<String>,
    /// Codes (or names) of storage locations whose goods are held for quality, with all below them.
    #[serde(default)]
    pub held: Vec<String>,
    /// Whether the minimum of an order point is stock that must not be promised. Off, because in
    /// most shops it only says when to buy. Needs the module `stock_supply`.
    #[serde(default)]
    pub order_points_are_safety_stock: bool,
    /// For how many seconds after its start a transaction of the ERP may still bring rows: longer
    /// than the longest one, such as the count of a whole warehouse.
    #[serde(default = "overlap_s")]
    pub overlap_s: u32,
    /// Rows read in one call and written in one transaction, 10 to 1000.
    #[serde(default = "page_rows")]
    pub page_rows: u32,
    /// Longest wait for an answer, in milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

/// What a warehouse is in Crossdock.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocationSettings {
    /// Location id in events; the key where it is not given.
    pub id: Option<String>,
    /// What it is.
    #[serde(default)]
    pub kind: LocationKind,
}

/// What a location is.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum LocationKind {
    #[default]
    Dc,
    Store,
    Dropship,
    ThirdParty,
}

fn overlap_s() -> u32 {
    600
}
fn page_rows() -> u32 {
    500
}
fn timeout_ms() -> u64 {
    60_000
}

impl Settings {
    fn check(&self, instance: &str) -> Result<(), Fault> {
        if !(10..=1_000).contains(&self.page_rows) {
            return Err(configuration(format!(
                "settings of {instance}: page_rows is {}, but must be between 10 and 1000",
                self.page_rows
            )));
        }
        Ok(())
    }

    fn overlap_us(&self) -> i64 {
        i64::from(self.overlap_s) * 1_000_000
    }
}

fn configuration(message: String) -> Fault {
    Fault::halt(Stage::Read, Code::Configuration, message)
}

struct Tryton {
    instance: String,
    client: Arc<Client>,
}

#[async_trait::async_trait]
impl Connector for Tryton {
    fn source(&self) -> Option<Box<dyn Source>> {
        Some(Box::new(source::TrytonSource::new(
            &self.instance,
            self.client.clone(),
        )))
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
        let mut checks = vec![
            ok("log in", client.describe_login().await),
            ok(
                "locations",
                tree::Tree::load(client).await.and_then(|t| t.describe()),
            ),
            ok("read stock moves", stock::check(client).await),
            ok(
                "read products",
                objects::check(client, objects::Kind::Products).await,
            ),
        ];
        if client.settings.order_points_are_safety_stock {
            let found = objects::check(client, objects::Kind::OrderPoints).await;
            checks.push(ok("read order points", found));
        }
        checks
    }
}
