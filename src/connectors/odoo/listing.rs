//! The sales of channels' orders, as a list of the orders that Odoo has.
//!
//! Rows of one second sort by what is not shown, so a second is told whole: where a page ends within one, its
//! rows are read by id.

use super::client::{Client, Search};
use super::documents::{self, SALE};
use super::rows;
use super::table::{Stamped, between};
use crate::connectors::erp::{Listing, Mark, OrderList, Row, Table};
use crate::connectors::manifest;
use crate::contract::event::ManifestEntry;
use crate::domain::Timestamp;
use crate::pipeline::Fault;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const FIELDS: &[&str] = &[
    "name",
    "state",
    "origin",
    "amount_total",
    "company_id",
    "write_date",
];

struct Sales(Arc<Client>);

/// The list of the orders that it has, where it is to tell one.
pub(super) fn open(instance: &str, client: &Arc<Client>) -> Option<Listing> {
    let settings = &client.settings;
    let wanted = settings.list_hours > 0 && !settings.channels.is_empty();
    wanted.then(|| Listing {
        instance: instance.to_owned(),
        every: Duration::from_secs(3_600) * settings.list_hours,
        lag: Duration::from_secs(settings.overlap_s.into()),
        orders: Box::new(Sales(client.clone())),
    })
}

impl Sales {
    /// Rows of one second, by id.
    async fn of_second(&self, (stamp, id): Mark, limit: usize) -> Result<Vec<Row>, Fault> {
        let mut domain = between(stamp, stamp);
        domain.push(json!(["id", ">", id]));
        let search = Search {
            model: SALE,
            domain: json!(domain),
            order: "id",
            limit,
            fields: FIELDS,
        };
        self.0.search(search).await
    }
}

#[async_trait::async_trait]
impl OrderList for Sales {
    async fn after(&self, mark: Mark) -> Result<Vec<(Mark, Option<ManifestEntry>)>, Fault> {
        let company = self.0.user().await?.company;
        let table = Stamped {
            client: &self.0,
            model: SALE,
            fields: FIELDS,
        };
        let limit = table.limit();
        let mut found = self.of_second(mark, limit).await?;
        if found.len() < limit {
            let mut later = table.newer(mark, limit).await?;
            if later.len() >= limit
                && let Some((last, _)) = later.last().map(|row| table.mark(row))
            {
                // There may be more of the last second.
                later.retain(|row| table.mark(row).0 < last);
                if later.is_empty() {
                    later = self.of_second((last, 0), limit).await?;
                }
            }
            found.extend(later);
        }
        let mut listed: Vec<_> = found
            .iter()
            .map(|row| {
                let own = rows::link(row, "company_id") == Some(company);
                (table.mark(row), own.then(|| entry(row)).flatten())
            })
            .collect();
        listed.sort_by_key(|(mark, _)| *mark);
        Ok(listed)
    }
}

/// What a sale says of its order; nothing of one that is of no channel.
fn entry(row: &Row) -> Option<ManifestEntry> {
    let status = match rows::text(row, "state")? {
        "draft" | "sent" => Some("PLACED"),
        "cancel" => Some("CANCELLED"),
        // Whether goods have left its deliveries say.
        _ => None,
    };
    let id = format!("{SALE},{}", rows::id(row));
    Some(manifest::entry(
        documents::order_of(row)?,
        rows::text(row, "name").unwrap_or(&id),
        rows::written_at(row).unwrap_or(Timestamp(0)),
        status,
        rows::decimal(row, "amount_total"),
    ))
}
