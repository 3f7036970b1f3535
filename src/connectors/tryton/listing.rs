//! The sales of channels' orders, as a list of the orders that Tryton has.

use super::client::{Client, Row};
use super::rows;
use super::sales::SALE;
use super::table::Stamped;
use crate::connectors::erp::{Mark, OrderList, Table};
use crate::connectors::manifest;
use crate::contract::event::ManifestEntry;
use crate::domain::Timestamp;
use crate::pipeline::Fault;
use std::sync::Arc;

const FIELDS: &[&str] = &[
    "number",
    "state",
    "web_id",
    "origin",
    "total_amount",
    "company",
    "last_modified_at",
];

pub(super) struct Sales(pub Arc<Client>);

#[async_trait::async_trait]
impl OrderList for Sales {
    async fn after(&self, mark: Mark) -> Result<Vec<(Mark, Option<ManifestEntry>)>, Fault> {
        let (company, _) = self.0.company().await?;
        let table = Stamped {
            client: &self.0,
            model: SALE,
            fields: FIELDS,
        };
        let found = table.newer(mark, table.limit()).await?;
        let listed = found.iter().map(|row| {
            let own = rows::integer(row, "company") == Some(company);
            (table.mark(row), own.then(|| entry(row)).flatten())
        });
        Ok(listed.collect())
    }
}

/// What a sale says of its order; nothing of one that takes goods back, or is of no channel.
fn entry(row: &Row) -> Option<ManifestEntry> {
    let order = rows::text(row, "web_id").filter(|_| rows::text(row, "origin").is_none())?;
    let status = match rows::text(row, "state")? {
        "draft" | "quotation" => Some("PLACED"),
        "cancelled" => Some("CANCELLED"),
        // Whether goods have left its shipments say.
        _ => None,
    };
    let id = format!("{SALE},{}", rows::id(row));
    Some(manifest::entry(
        order,
        rows::text(row, "number").unwrap_or(&id),
        rows::modified_at(row).unwrap_or(Timestamp(0)),
        status,
        row.get("total_amount").and_then(rows::amount),
    ))
}
