//! Odoo's tables as they are followed.
//!
//! `write_date` is read, and compared, in whole seconds, while rows sort by its microseconds: rows of one
//! second that were left out of a page are found by their number, and listed by id.

use super::client::{Client, Search};
use super::rows;
use crate::connectors::erp::{LISTED_ROWS, Mark, Row, Table, Tally};
use crate::pipeline::Fault;
use serde_json::{Value, json};

/// A table that is followed.
#[derive(Clone, Copy)]
pub(super) struct Stamped<'a> {
    pub client: &'a Client,
    pub model: &'a str,
    /// Fields of each row; `write_date` among them.
    pub fields: &'a [&'a str],
}

pub(super) fn between(from: i64, to: i64) -> Vec<Value> {
    vec![
        json!(["write_date", ">=", rows::stamp_text(from)]),
        json!(["write_date", "<=", rows::stamp_text(to)]),
    ]
}

#[async_trait::async_trait]
impl Table for Stamped<'_> {
    fn limit(&self) -> usize {
        self.client.settings.page_rows as usize
    }

    fn overlap_us(&self) -> i64 {
        i64::from(self.client.settings.overlap_s) * 1_000_000
    }

    fn mark(&self, row: &Row) -> Mark {
        (rows::written_at(row).unwrap_or_default().0, rows::id(row))
    }

    async fn newest(&self) -> Result<Option<Mark>, Fault> {
        let newest = self.client.search(Search {
            model: self.model,
            domain: json!([]),
            order: "write_date desc, id desc",
            limit: 1,
            fields: &["write_date"],
        });
        Ok(newest.await?.first().map(|row| self.mark(row)))
    }

    async fn newer(&self, (stamp, _): Mark, limit: usize) -> Result<Vec<Row>, Fault> {
        let newer = Search {
            model: self.model,
            domain: json!([["write_date", ">", rows::stamp_text(stamp)]]),
            order: "write_date, id",
            limit,
            fields: self.fields,
        };
        self.client.search(newer).await
    }

    async fn tally(&self, from: i64, to: i64) -> Result<Tally, Fault> {
        self.client
            .tally(self.model, json!(between(from, to)))
            .await
    }

    async fn list(&self, from: i64, to: i64) -> Result<Vec<Mark>, Fault> {
        let mut listed: Vec<Mark> = Vec::new();
        loop {
            let mut domain = between(from, to);
            domain.push(json!(["id", ">", listed.last().map_or(0, |(_, id)| *id)]));
            let page = self.client.search(Search {
                model: self.model,
                domain: json!(domain),
                order: "id",
                limit: LISTED_ROWS,
                fields: &["write_date"],
            });
            let page = page.await?;
            listed.extend(page.iter().map(|row| self.mark(row)));
            if page.len() < LISTED_ROWS {
                return Ok(listed);
            }
        }
    }

    async fn read(&self, ids: &[i64]) -> Result<Vec<Row>, Fault> {
        let search = Search {
            model: self.model,
            domain: json!([["id", "in", ids]]),
            order: "write_date, id",
            limit: ids.len(),
            fields: self.fields,
        };
        self.client.search(search).await
    }
}
