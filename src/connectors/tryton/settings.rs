//! What a Tryton connector is told: where the server is, what its locations are here, whose orders it
//! keeps.

use crate::config::Secret;
use crate::connectors::erp::{LocationSettings, PaymentSettings, configuration};
use crate::pipeline::Fault;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Settings of a Tryton connector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Base URL of the server, without the database.
    pub url: String,
    /// Name of the database.
    pub database: String,
    /// User to log in as. Its company is the one that is read. Without `channels` it needs the right
    /// to read stock and products, and none to change anything but what other settings say; with them also to read and write
    /// sales, parties, shipments and invoices.
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
    /// Whether stock here is set right, by counts, where another system decides what there is and this
    /// one says something else in two of its own counts. Needs the right to make and confirm counts.
    #[serde(default)]
    pub correct_stock: bool,
    /// Whether the parties that orders of `channels` are sold to get the names, addresses, e-mails and
    /// phones of their customers, and lose them when a customer is erased. Needs `customers.keys` of the
    /// configuration.
    #[serde(default)]
    pub customers: bool,
    /// The channels whose orders this ERP keeps, by channel id. None: it is read for stock only.
    /// Needs the modules `sale` and `web_shop`.
    #[serde(default)]
    pub channels: BTreeMap<String, ChannelSettings>,
    /// Tax codes of order lines, and the names that these taxes have in Tryton. A line without a code
    /// takes the customer taxes of its product, or none where its tax is 0.
    #[serde(default)]
    pub taxes: BTreeMap<String, String>,
    /// Types of order charges, such as `SHIPPING`, and the codes of the products that stand for them
    /// in Tryton.
    #[serde(default)]
    pub charges: BTreeMap<String, String>,
    /// Whether the ERP accepts an order at once: its sale is confirmed. Off: it stays a quotation
    /// until somebody confirms it.
    #[serde(default = "yes")]
    pub confirm_orders: bool,
    /// Whether the credit note of a return that was received elsewhere is posted at once. Off: it is a
    /// draft until somebody posts it.
    #[serde(default)]
    pub post_credit_notes: bool,
    /// Whether a credit note that is posted asks for its amount to be paid back: off where the ERP pays
    /// back itself, or where the channel does unasked.
    #[serde(default)]
    pub credit_notes_request_refunds: bool,
    /// Where the money is booked that a provider took or gave back. Without it, it is not booked here.
    #[serde(default)]
    pub payments: Option<PaymentSettings>,
    /// Every so many hours the orders of `channels` that changed since are listed, so that what one system
    /// has and another has not is found; 0 for never.
    #[serde(default = "list_hours")]
    pub list_hours: u32,
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

/// A channel whose orders are kept in Tryton.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelSettings {
    /// Name of the web shop that stands for it in Tryton. Its sales are unique by their web id, which
    /// is the order's id: so no order is ever there twice.
    pub shop: String,
    /// Location that delivers what is not picked up, as it is called here; without it, the one
    /// warehouse that the web shop has in Tryton.
    pub warehouse: Option<String>,
    /// What stands before a customer's id in the code of its party, where ids of several channels
    /// could be the same.
    #[serde(default)]
    pub party_prefix: String,
    /// Code of the party that buys what is ordered without a customer's id. Not the shop's guest
    /// party, in whose name Tryton confirms nothing.
    pub walk_in_party: Option<String>,
}

fn yes() -> bool {
    true
}
fn list_hours() -> u32 {
    24
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
    pub(super) fn check(&self, instance: &str) -> Result<(), Fault> {
        if !(10..=1_000).contains(&self.page_rows) {
            return Err(configuration(format!(
                "settings of {instance}: page_rows is {}, but must be between 10 and 1000",
                self.page_rows
            )));
        }
        let mut shops = BTreeMap::new();
        for (channel, settings) in &self.channels {
            if let Some(other) = shops.insert(&settings.shop, channel) {
                return Err(configuration(format!(
                    "settings of {instance}: channels {other} and {channel} are both the web shop {:?}; give each its own",
                    settings.shop
                )));
            }
        }
        Ok(())
    }

    /// Whether another system ships at this location.
    pub(super) fn ships_elsewhere(&self, location: &str) -> bool {
        let mut listed = self.locations.iter();
        listed.any(|(code, l)| l.ships_elsewhere && l.id.as_ref().unwrap_or(code) == location)
    }

    pub(super) fn overlap_us(&self) -> i64 {
        i64::from(self.overlap_s) * 1_000_000
    }
}
