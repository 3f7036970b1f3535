//! What an Odoo connector is told: where the server is, what its locations are here, whose orders it
//! keeps.

use crate::config::Secret;
use crate::connectors::erp::{LocationSettings, PaymentSettings, configuration};
use crate::pipeline::Fault;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Settings of an Odoo connector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Base URL of the server.
    pub url: String,
    /// Name of the database, where the server has several.
    pub database: Option<String>,
    /// API key of the user to work as, by reference: `${env:NAME}` or `${file:PATH}`. The user's company is
    /// the one that is read. Without `channels` it needs the right to read stock and products, and none to
    /// change anything but what other settings say; with them also to read and write sales, contacts,
    /// deliveries and invoices.
    pub api_key: Secret,
    /// What Odoo's warehouses are here, by short name (code). A warehouse that is not listed is a
    /// distribution centre under its own code. An internal location outside of every warehouse, by its
    /// full name such as `Depot/Shelf`, is on the way between two of them, unless it is listed.
    #[serde(default)]
    pub locations: BTreeMap<String, LocationSettings>,
    /// Full names of locations whose goods are damaged, with all below them, such as `WH/Stock/Damaged`.
    #[serde(default)]
    pub damaged: Vec<String>,
    /// Full names of locations whose goods are held for quality, with all below them.
    #[serde(default)]
    pub held: Vec<String>,
    /// Whether stock here is set right, by counts, where another system decides what there is and this
    /// one says something else in two of its own counts. Needs the right to count.
    #[serde(default)]
    pub correct_stock: bool,
    /// Whether the contacts that orders of `channels` are sold to get the names, addresses, e-mails and
    /// phones of their customers, and lose them when a customer is erased. Needs `customers.keys` of the
    /// configuration.
    #[serde(default)]
    pub customers: bool,
    /// The channels whose orders this ERP keeps, by channel id. None: it is read for stock only.
    /// Needs the applications Sales and Inventory, with `stock_delivery` for tracking numbers.
    #[serde(default)]
    pub channels: BTreeMap<String, ChannelSettings>,
    /// Tax codes of order lines, and the names that these taxes have in Odoo. A line without a code
    /// takes the customer taxes of its product, or none where its tax is 0. Taxes that are included in
    /// prices do not fit: prices are written without tax.
    #[serde(default)]
    pub taxes: BTreeMap<String, String>,
    /// Types of order charges, such as `SHIPPING`, and the internal references of the products that stand
    /// for them in Odoo.
    #[serde(default)]
    pub charges: BTreeMap<String, String>,
    /// Whether the ERP accepts an order at once: its sale is confirmed. Off: it stays a quotation that
    /// was sent until somebody confirms it.
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
    /// Whether the minimum of a replenishment rule is stock that must not be promised. Off, because in
    /// most shops it only says when to buy.
    #[serde(default)]
    pub order_points_are_safety_stock: bool,
    /// The tills whose receipts are told as orders, by the name of their point of sale in Odoo. Needs
    /// the application Point of Sale.
    #[serde(default)]
    pub tills: BTreeMap<String, TillSettings>,
    /// Payment methods of tills, and what their providers are called here. A method that is not listed
    /// is its own provider, cash among them.
    #[serde(default)]
    pub providers: BTreeMap<String, String>,
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

/// A channel whose orders are kept in Odoo.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelSettings {
    /// Warehouse that delivers what is not picked up, as it is called here.
    pub warehouse: String,
    /// What stands before a customer's id in the reference of its contact, where ids of several
    /// channels could be the same.
    #[serde(default)]
    pub customer_prefix: String,
    /// Reference of the contact that buys what is ordered without a customer's id.
    pub walk_in_customer: Option<String>,
}

/// A point of sale.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TillSettings {
    /// The channel that its receipts are orders of.
    pub channel: String,
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
        Ok(())
    }

    /// Whether another system ships at this location.
    pub(super) fn ships_elsewhere(&self, location: &str) -> bool {
        let mut listed = self.locations.iter();
        listed.any(|(code, l)| l.ships_elsewhere && l.id.as_ref().unwrap_or(code) == location)
    }
}
