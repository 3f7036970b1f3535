//! Money that a provider took or gave back, as moves of the ledger.
//!
//! Tryton keeps no key for such moves, so each is described by the natural key of its fact: it is
//! looked for before it is made, made as a draft, and only the first draft of a key is posted. A call that
//! nobody heard the answer of can leave a second draft; that one is deleted and never in the books.

use super::client::{Change, Client, Row, Search};
use super::references::{busy, create};
use super::rows;
use super::sales;
use crate::connectors::erp::{Booking, PaymentSettings, configuration, reject};
use crate::domain::Decimal;
use crate::pipeline::{Ack, Code, Fault};
use serde_json::{Value, json};

const MOVE: &str = "account.move";
const DRAFTS_MAX: usize = 100;

/// Books it once.
///
/// # Errors
/// `TOO_EARLY` while the order is not there; a reject that names the payment.
pub(super) async fn book(
    client: &Client,
    settings: &PaymentSettings,
    booking: &Booking<'_>,
) -> Result<Ack, Fault> {
    let mut found = find(client, booking).await?;
    let mut changed = false;
    if found.is_empty() {
        let values = values(client, settings, booking).await?;
        let made = create(client, MOVE, json!([values]), &booking.who).await;
        // Looked for again: another call may have made one as well.
        found = find(client, booking).await?;
        if found.is_empty() {
            made?;
            return Err(busy(&booking.who));
        }
        changed = true;
    }
    let is_posted = |row: &&Row| rows::text(row, "state") == Some("posted");
    // What is in the books is the one; else the draft that was made first.
    let first = found.iter().find(is_posted).or(found.first());
    let first = first.cloned().unwrap_or_default();
    for other in found.iter().filter(|row| rows::id(row) != rows::id(&first)) {
        if !is_posted(&other) {
            let id = json!([rows::id(other)]);
            changed |= step(client, "delete", id, booking).await?;
        }
    }
    if !is_posted(&&first) {
        let id = json!([rows::id(&first)]);
        changed |= step(client, "post", id, booking).await?;
    }
    Ok(booking.ack(changed, format!("{MOVE},{}", rows::id(&first))))
}

async fn step(
    client: &Client,
    method: &str,
    id: Value,
    booking: &Booking<'_>,
) -> Result<bool, Fault> {
    match client.change(MOVE, method, vec![id], json!({})).await? {
        Change::Done(_) => Ok(true),
        Change::Conflict => Err(busy(&booking.who)),
        Change::Refused(why) => {
            let message = format!(
                "{}: Tryton refused to {method} its move: {why}; mend it there, then redrive",
                booking.who
            );
            Err(reject(Code::Refused, message))
        }
    }
}

/// Moves of this key, the oldest first.
async fn find(client: &Client, booking: &Booking<'_>) -> Result<Vec<Row>, Fault> {
    let (company, _) = client.company().await?;
    client
        .search(Search {
            model: MOVE,
            domain: json!([["description", "=", booking.key], ["company", "=", company]]),
            order: json!([["id", "ASC"]]),
            limit: DRAFTS_MAX,
            fields: &["state"],
        })
        .await
}

async fn values(
    client: &Client,
    settings: &PaymentSettings,
    booking: &Booking<'_>,
) -> Result<Value, Fault> {
    let who = &booking.who;
    booking.check("Tryton", &client.currency().await?)?;
    let Some(sale) = sales::find(client, booking.order).await? else {
        return Err(sales::too_early(who));
    };
    let journal = coded(client, "account.journal", "journal", &settings.journal).await?;
    let clearing = coded(
        client,
        "account.account",
        "clearing_account",
        &settings.clearing_account,
    )
    .await?;
    let receivable = coded(
        client,
        "account.account",
        "receivable_account",
        &settings.receivable_account,
    )
    .await?;
    let line = |account: i64, party: Option<i64>, debit: bool| {
        let (debit, credit) = match debit {
            true => (booking.amount.amount, Decimal::ZERO),
            false => (Decimal::ZERO, booking.amount.amount),
        };
        json!({
            "account": account, "party": party,
            "debit": rows::amount_value(debit), "credit": rows::amount_value(credit),
        })
    };
    let lines = [
        line(clearing, None, booking.comes_in),
        line(receivable, rows::integer(&sale, "party"), !booking.comes_in),
    ];
    Ok(json!({
        "journal": journal, "date": rows::day_value(booking.at), "description": booking.key,
        "lines": [["create", lines]],
    }))
}

/// The row of the company with this code.
///
/// # Errors
/// A halt when there is none: no payment can be booked.
async fn coded(client: &Client, model: &str, setting: &str, code: &str) -> Result<i64, Fault> {
    let found = client.search(Search {
        model,
        domain: json!([["code", "=", code]]),
        order: json!([["id", "ASC"]]),
        limit: 1,
        fields: &["code"],
    });
    found.await?.first().map(rows::id).ok_or_else(|| {
        configuration(format!(
            "Tryton has no {model} with code {code}; mend `payments.{setting}`"
        ))
    })
}
