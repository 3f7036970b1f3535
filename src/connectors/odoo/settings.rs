//! What an Odoo connector is told: where the server is, what its locations are here.

use crate::config::Secret;
use crate::connectors::erp::{LocationSettings, configuration};
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
    /// the one that is read.
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
}
