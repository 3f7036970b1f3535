//! Reads what payouts are made of: each line, and a control row when the last one was read.
//!
//! A payout waits until the provider has reconciled it; then its balance transactions no longer
//! change. They are read a page at a time, so a payout may have any number of them.

use super::client::{Client, Slice, integer, text};
use super::source::{begin, bookmark, names, to_json};
use crate::pipeline::{
    Code, Cursor, Fault, SourceBatch, SourceOrigin, SourceRecord, SourceReject, Stage, Verdict,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// Payouts of more than this long ago are not looked for unless `since` says so, in seconds.
const LISTED_S: i64 = 30 * 86_400;
/// Longest part of the list of payouts that is read at once, in seconds.
const SLICE_S: i64 = 30 * 86_400;

/// How far settlements were read.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Bookmark {
    /// Payouts were listed up to here, in seconds.
    until: i64,
    /// Payouts that are not reconciled yet, or were not read yet.
    open: Vec<String>,
    /// The payout that is being read.
    reading: Option<Reading>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Reading {
    payout: String,
    /// The last balance transaction that was read.
    after: Option<String>,
    /// Lines told so far.
    lines: usize,
}

/// Reads payouts.
pub struct Payouts {
    client: Arc<Client>,
    /// When nothing new was found last, in seconds.
    idle_at: Option<i64>,
}

impl Payouts {
    /// The payouts of an account.
    pub fn new(client: Arc<Client>) -> Self {
        Payouts {
            client,
            idle_at: None,
        }
    }

    /// Reads on from `cursor`, at `now` in seconds.
    ///
    /// # Errors
    /// As [`crate::pipeline::Source::poll`].
    pub async fn poll(&mut self, now: i64, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let mut bookmark: Bookmark = bookmark(&self.client, cursor)?.unwrap_or(Bookmark {
            until: begin(&self.client, now - LISTED_S),
            ..Bookmark::default()
        });
        let before = bookmark.clone();
        let mut batch = SourceBatch::default();
        batch.cursor.sequence = cursor.map_or(1, |c| c.sequence);
        let waits = self
            .idle_at
            .is_some_and(|at| now - at < self.client.settings.poll_s as i64);
        if bookmark.reading.is_some() {
            self.read_page(&mut bookmark, &mut batch).await?;
        } else if !waits {
            self.list(now, &mut bookmark).await?;
            self.choose(&mut bookmark, &mut batch).await?;
        }
        batch.more = bookmark.reading.is_some() || bookmark.until - before.until >= SLICE_S;
        if bookmark == before && !waits {
            self.idle_at = Some(now);
        }
        batch.cursor.bookmark = to_json(&bookmark)?;
        Ok(batch)
    }

    /// Adds the payouts that were made since.
    async fn list(&self, now: i64, bookmark: &mut Bookmark) -> Result<(), Fault> {
        let settled = now - (self.client.settings.lag_s.max(1) as i64);
        if settled <= bookmark.until {
            return Ok(());
        }
        let to = settled.min(bookmark.until + SLICE_S);
        let slice = self.client.slice("/v1/payouts", bookmark.until, to, &[]);
        let Slice::Whole(payouts) = slice.await? else {
            let message = format!("{} lists too many payouts", self.client.instance);
            return Err(Fault::halt(Stage::Read, Code::Oversize, message));
        };
        for payout in payouts.iter().rev() {
            bookmark.open.push(text(payout, "id")?.to_owned());
        }
        bookmark.until = to;
        Ok(())
    }

    /// Begins to read the first payout that is complete, and drops those that never will be.
    async fn choose(&self, bookmark: &mut Bookmark, batch: &mut SourceBatch) -> Result<(), Fault> {
        let mut at = 0;
        while at < bookmark.open.len() {
            let payout = self.payout(&bookmark.open[at]).await?;
            match judge(&payout) {
                State::Complete => {
                    bookmark.reading = Some(Reading {
                        payout: bookmark.open.remove(at),
                        after: None,
                        lines: 0,
                    });
                    return Ok(());
                }
                State::Waits => at += 1,
                State::Void => {
                    bookmark.open.remove(at);
                }
                State::Untold => {
                    let id = bookmark.open.remove(at);
                    let message = format!(
                        "payout {id} was made by hand: the provider does not tell what it is made of; book it by hand, or have payouts made automatically"
                    );
                    batch.rejects.push(SourceReject {
                        origin: SourceOrigin {
                            container: "/v1/payouts".into(),
                            item: id,
                        },
                        raw: payout.to_string().into(),
                        fault: Fault::reject(Stage::Read, Code::DataQuality, message),
                    });
                }
            }
        }
        Ok(())
    }

    async fn payout(&self, id: &str) -> Result<Value, Fault> {
        self.client.get(&format!("/v1/payouts/{id}"), &[]).await
    }

    async fn read_page(
        &self,
        bookmark: &mut Bookmark,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        let Some(mut reading) = bookmark.reading.take() else {
            return Ok(());
        };
        let mut query = vec![
            ("payout".to_owned(), reading.payout.clone()),
            (
                "limit".to_owned(),
                self.client.settings.page_rows.to_string(),
            ),
            ("expand[]".to_owned(), "data.source".to_owned()),
        ];
        if let Some(after) = &reading.after {
            query.push(("starting_after".to_owned(), after.clone()));
        }
        let page = self.client.get("/v1/balance_transactions", &query).await?;
        let Some(transactions) = page["data"].as_array() else {
            let message = format!("{} answered with no list", self.client.instance);
            return Err(Fault::retry(Stage::Read, Code::Unavailable, message));
        };
        for transaction in transactions {
            reading.after = Some(text(transaction, "id")?.to_owned());
            // The payout itself, which balances the others.
            if transaction["type"] == "payout" {
                continue;
            }
            reading.lines += 1;
            let paid = names(&self.client).paid(&transaction["source"]).ok();
            let line = names(&self.client).line(&reading.payout, transaction, paid.as_ref());
            match line {
                Ok(record) => push(record, batch),
                Err(fault) if fault.verdict == Verdict::Reject => {
                    batch.rejects.push(SourceReject {
                        origin: SourceOrigin {
                            container: format!("payout {}", reading.payout),
                            item: text(transaction, "id")?.to_owned(),
                        },
                        raw: transaction.to_string().into(),
                        fault,
                    });
                }
                Err(fault) => return Err(fault),
            }
        }
        if page["has_more"] == true && !transactions.is_empty() {
            bookmark.reading = Some(reading);
            return Ok(());
        }
        let payout = self.payout(&reading.payout).await?;
        push(names(&self.client).control(&payout, reading.lines)?, batch);
        Ok(())
    }
}

fn push(mut record: SourceRecord, batch: &mut SourceBatch) {
    record.event.meta_mut().source_position = batch.cursor.sequence;
    batch.cursor.sequence += 1;
    batch.records.push(record);
}

enum State {
    Complete,
    Waits,
    /// No money will come of it.
    Void,
    /// Its lines are not told.
    Untold,
}

fn judge(payout: &Value) -> State {
    match (
        payout["status"].as_str(),
        payout["reconciliation_status"].as_str(),
        integer(payout, "amount"),
    ) {
        (Some("failed" | "canceled"), ..) => State::Void,
        (_, Some("completed"), Ok(_)) => State::Complete,
        (_, Some("not_applicable"), _) => State::Untold,
        _ => State::Waits,
    }
}
