//! Tryton's tables as they are followed: by (stamp, id), which sorts to the microsecond.

use super::client::{Client, Row, Search};
use super::rows;
use crate::connectors::erp::{LISTED_ROWS, Mark, Table, Tally};
use crate::domain::Timestamp;
use crate::pipeline::Fault;
use serde_json::{Value, json};

/// A table that is followed.
#[derive(Clone, Copy)]
pub(super) struct Stamped<'a> {
    pub client: &'a Client,
    pub model: &'a str,
    /// Fields of each row; `last_modified_at` among them.
    pub fields: &'a [&'a str],
}

fn by_stamp() -> Value {
    json!([["last_modified_at", "ASC"], ["id", "ASC"]])
}

#[async_trait::async_trait]
impl Table for Stamped<'_> {
    fn limit(&self) -> usize {
        self.client.settings.page_rows as usize
    }

    fn overlap_us(&self) -> i64 {
        self.client.settings.overlap_us()
    }

    fn mark(&self, row: &Row) -> Mark {
        (rows::modified_at(row).unwrap_or_default().0, rows::id(row))
    }

    async fn newest(&self) -> Result<Option<Mark>, Fault> {
        let newest = self.client.search(Search {
            model: self.model,
            domain: json!([]),
            order: json!([["last_modified_at", "DESC"], ["id", "DESC"]]),
            limit: 1,
            fields: &["last_modified_at"],
        });
        Ok(newest.await?.first().map(|row| self.mark(row)))
    }

    async fn newer(&self, (stamp, id): Mark, limit: usize) -> Result<Vec<Row>, Fault> {
        let high = rows::stamp_value(Timestamp(stamp));
        let newer = Search {
            model: self.model,
            domain: json!([
                "OR",
                [["last_modified_at", ">", high]],
                [["last_modified_at", "=", high], ["id", ">", id]],
            ]),
            order: by_stamp(),
            limit,
            fields: self.fields,
        };
        self.client.search(newer).await
    }

    async fn tally(&self, from: i64, to: i64) -> Result<Tally, Fault> {
        let domain = json!([
            ["last_modified_at", ">=", rows::stamp_value(Timestamp(from))],
            ["last_modified_at", "<=", rows::stamp_value(Timestamp(to))],
        ]);
        Ok(Tally {
            rows: self.client.count(self.model, domain).await?,
            ids: None,
        })
    }

    async fn list(&self, from: i64, to: i64) -> Result<Vec<Mark>, Fault> {
        let mut listed: Vec<Mark> = Vec::new();
        let (mut stamp, mut id) = (from, 0);
        loop {
            let after = rows::stamp_value(Timestamp(stamp));
            let page = self.client.search(Search {
                model: self.model,
                domain: json!([
                    ["last_modified_at", "<=", rows::stamp_value(Timestamp(to))],
                    [
                        "OR",
                        [["last_modified_at", ">", after]],
                        [["last_modified_at", "=", after], ["id", ">", id]]
                    ],
                ]),
                order: by_stamp(),
                limit: LISTED_ROWS,
                fields: &["last_modified_at"],
            });
            let page = page.await?;
            listed.extend(page.iter().map(|row| self.mark(row)));
            match listed.last().filter(|_| page.len() >= LISTED_ROWS) {
                Some(last) => (stamp, id) = *last,
                None => return Ok(listed),
            }
        }
    }

    async fn read(&self, ids: &[i64]) -> Result<Vec<Row>, Fault> {
        let search = Search {
            model: self.model,
            domain: json!([["id", "in", ids]]),
            order: by_stamp(),
            limit: ids.len(),
            fields: self.fields,
        };
        self.client.search(search).await
    }
}
