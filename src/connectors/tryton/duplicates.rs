//! Cancels a sale that is there once too often.
//!
//! It is found by its number and the order's id together, so a number that means another sale here cancels
//! nothing. What has left stays: somebody has to look at that.

use super::cancellations::{cancel, stop_shipments};
use super::client::{Change, Client, Search};
use super::references::busy;
use super::rows;
use super::sales::{FIELDS, SALE, STEPS_MAX, stamp};
use crate::connectors::erp::reject;
use crate::contract::event::{Correction, CorrectionKind, SinkOutcome};
use crate::pipeline::{Ack, Code, Fault};
use serde_json::json;

/// Whether a correction may be about a sale of this Tryton: where no list told of it, nobody knows whose it is.
pub(super) fn wants(client: &Client, instance: &str, e: &Correction) -> bool {
    e.kind == CorrectionKind::CancelDuplicate
        && !client.settings.channels.is_empty()
        && (e.target.is_empty() || *e.target == *instance)
}

/// Cancels the sale.
///
/// # Errors
/// As the calls; a reject when goods or invoices of it are out already.
pub(super) async fn take(client: &Client, e: &Correction) -> Result<Ack, Fault> {
    let (Some(order), Some(number)) = (&e.order_id, &e.external_id) else {
        let message = format!("correction {} names no order or no sale", e.correction_id);
        return Err(reject(Code::DataQuality, message));
    };
    let who = format!("sale {number} of order {order}, which is one too many");
    let (company, _) = client.company().await?;
    let mut changed = false;
    for _ in 0..STEPS_MAX {
        let found = client.search(Search {
            model: SALE,
            domain: json!([
                ["number", "=", number],
                ["web_id", "=", order],
                ["company", "=", company],
            ]),
            order: json!([["id", "ASC"]]),
            limit: 1,
            fields: FIELDS,
        });
        let found = found.await?;
        let Some(sale) = found.first() else {
            return Ok(ack(e, SinkOutcome::StaleSkipped));
        };
        let id = json!([rows::id(sale)]);
        let made = match rows::text(sale, "state").unwrap_or_default() {
            "cancelled" if changed => return Ok(ack(e, SinkOutcome::Acked)),
            "cancelled" => return Ok(ack(e, SinkOutcome::DuplicateAcked)),
            "draft" | "quotation" => cancel(client, sale).await?,
            "confirmed" => {
                client
                    .change(SALE, "draft", vec![id], stamp(SALE, sale))
                    .await?
            }
            _ => {
                return Ok(match stop_shipments(client, sale, &who).await? {
                    true => ack(e, SinkOutcome::Acked),
                    false => ack(e, SinkOutcome::DuplicateAcked),
                });
            }
        };
        match made {
            Change::Done(_) => changed = true,
            Change::Conflict => {}
            Change::Refused(why) => {
                let message =
                    format!("{who}: Tryton refused to cancel it: {why}; cancel it there by hand");
                return Err(reject(Code::Refused, message));
            }
        }
    }
    Err(busy(&who))
}

fn ack(e: &Correction, outcome: SinkOutcome) -> Ack {
    Ack {
        outcome,
        version: i64::from(e.attempt),
        external_id: e.external_id.as_ref().map(ToString::to_string),
        digest: None,
        status: None,
    }
}
