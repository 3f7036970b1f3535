//! Money that a provider took or gave back, as entries of the ledger.
//!
//! An entry is imported under an external id that is its fact's, so it is there once; then it is posted, and
//! what it settles of the order's invoices and credit notes is matched with it.

use super::client::{Change, Client, Search};
use super::{rows, sales};
use crate::connectors::erp::{Booking, PaymentSettings, Row, configuration, reject};
use crate::domain::natural_id;
use crate::pipeline::{Ack, Code, Fault, Stage};
use serde_json::json;

pub(super) const ENTRY: &str = "account.move";
const ENTRY_LINE: &str = "account.move.line";

/// Books it once.
///
/// # Errors
/// `TOO_EARLY` while the order is not there; a reject that names the payment.
pub(super) async fn book(
    client: &Client,
    settings: &PaymentSettings,
    booking: &Booking<'_>,
) -> Result<Ack, Fault> {
    let who = &booking.who;
    booking.check("Odoo", &client.user().await?.currency)?;
    let Some(sale) = sales::find(client, booking.order).await? else {
        return Err(sales::too_early(who));
    };
    let mut changed = false;
    let entry = match find(client, booking).await? {
        Some(entry) => entry,
        None => {
            changed = true;
            let made = make(client, settings, booking, &sale).await?;
            match (find(client, booking).await?, made) {
                (Some(entry), _) => entry,
                (None, made) => return Err(not_made(who, made)),
            }
        }
    };
    if rows::text(&entry, "state") == Some("draft") {
        post(client, rows::id(&entry), who).await?;
        changed = true;
    }
    changed |= settle(client, rows::id(&entry), &sale).await?;
    Ok(booking.ack(changed, format!("{ENTRY},{}", rows::id(&entry))))
}

/// Posts an entry, an invoice or a credit note that is a draft.
///
/// # Errors
/// As the calls; a reject when Odoo will not have it.
pub(super) async fn post(client: &Client, id: i64, who: &str) -> Result<(), Fault> {
    let posted = client.change(ENTRY, "action_post", json!({"ids": [id]}));
    if let Change::Refused(why) = posted.await? {
        let now = client.all(ENTRY, "id", json!([id]), &["state"]).await?;
        if now.first().and_then(|row| rows::text(row, "state")) != Some("posted") {
            let message = format!(
                "{who}: Odoo refused to post {ENTRY} {id}: {why}; mend it there, then redrive"
            );
            return Err(reject(Code::Refused, message));
        }
    }
    Ok(())
}

/// That an import left nothing.
pub(super) fn not_made(who: &str, made: Change) -> Fault {
    match made {
        Change::Refused(why) => {
            let message = format!("{who}: Odoo refused it: {why}; mend it, then redrive");
            reject(Code::Refused, message)
        }
        Change::Done(_) => {
            let message = format!("{who}: Odoo made it and does not show it");
            Fault::retry(Stage::Write, Code::OutcomeUnknown, message)
        }
    }
}

async fn find(client: &Client, booking: &Booking<'_>) -> Result<Option<Row>, Fault> {
    let company = client.user().await?.company;
    let found = client.search(Search {
        model: ENTRY,
        domain: json!([
            ["ref", "=", booking.key],
            ["move_type", "=", "entry"],
            ["company_id", "=", company]
        ]),
        order: "id",
        limit: 1,
        fields: &["state"],
    });
    Ok(found.await?.into_iter().next())
}

async fn make(
    client: &Client,
    settings: &PaymentSettings,
    booking: &Booking<'_>,
    sale: &Row,
) -> Result<Change, Fault> {
    let journal = coded(client, "account.journal", "journal", &settings.journal).await?;
    let (model, of) = ("account.account", &settings.clearing_account);
    let clearing = coded(client, model, "clearing_account", of).await?;
    let of = &settings.receivable_account;
    let receivable = coded(client, model, "receivable_account", of).await?;
    let amount = booking.amount.amount.to_f64();
    let line = |account: i64, debit: bool| {
        let (debit, credit) = if debit { (amount, 0.0) } else { (0.0, amount) };
        vec![
            ("account_id", json!(account)),
            ("partner_id", json!(rows::link(sale, "partner_id"))),
            ("name", json!(booking.key)),
            ("debit", json!(debit)),
            ("credit", json!(credit)),
        ]
    };
    let lines = [
        line(clearing, booking.comes_in),
        line(receivable, !booking.comes_in),
    ];
    let values = [
        ("move_type", json!("entry")),
        ("journal_id", json!(journal)),
        ("date", json!(rows::day_text(booking.at))),
        ("ref", json!(booking.key)),
    ];
    let key = format!("money_{}", natural_id(&["money", &booking.key]).simple());
    client
        .make(ENTRY, &key, &values, Some(("line_ids", &lines)))
        .await
}

/// The row of the company with this code.
///
/// # Errors
/// A halt when there is none: no payment can be booked.
async fn coded(client: &Client, model: &str, setting: &str, code: &str) -> Result<i64, Fault> {
    let company = client.user().await?.company;
    // An account can be of several companies.
    let of = match model {
        "account.account" => "company_ids",
        _ => "company_id",
    };
    let found = client.search(Search {
        model,
        domain: json!([["code", "=", code], [of, "in", [company]]]),
        order: "id",
        limit: 1,
        fields: &["code"],
    });
    found.await?.first().map(rows::id).ok_or_else(|| {
        configuration(format!(
            "Odoo has no {model} with code {code}; mend `payments.{setting}`"
        ))
    })
}

/// Matches what the entry leaves open with what is open of the order's invoices and credit notes. That
/// somebody else has done so, or that nothing fits, is no fault: people can match it by hand.
async fn settle(client: &Client, entry: i64, sale: &Row) -> Result<bool, Fault> {
    let mut moves = rows::links(sale, "invoice_ids");
    moves.push(entry);
    let fields = ["move_id", "account_id", "amount_residual"];
    let found = client.search(Search {
        model: ENTRY_LINE,
        domain: json!([
            ["move_id", "in", moves],
            ["parent_state", "=", "posted"],
            ["account_id.account_type", "=", "asset_receivable"],
            ["reconciled", "=", false]
        ]),
        order: "id",
        limit: crate::connectors::erp::LISTED_ROWS,
        fields: &fields,
    });
    let found = found.await?;
    let open = |row: &Row| rows::decimal(row, "amount_residual").unwrap_or_default();
    let Some(own) = found
        .iter()
        .find(|l| rows::link(l, "move_id") == Some(entry))
    else {
        return Ok(false);
    };
    let others = found.iter().filter(|line| {
        rows::link(line, "account_id") == rows::link(own, "account_id")
            && open(line).is_negative() != open(own).is_negative()
    });
    let others: Vec<i64> = others.map(rows::id).collect();
    if others.is_empty() {
        return Ok(false);
    }
    let ids: Vec<i64> = others.into_iter().chain([rows::id(own)]).collect();
    let matched = client.change(ENTRY_LINE, "reconcile", json!({"ids": ids}));
    Ok(matches!(matched.await?, Change::Done(_)))
}
