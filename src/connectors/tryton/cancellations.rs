//! Sales that are taken back: of an order that is cancelled, or the part of one.
//!
//! A part can be taken out until Tryton processes the sale: it is put back to draft, its lines are written, and
//! it is brought to where it was to be. Which decisions it has taken its comment says, written with the lines, so
//! that no decision counts twice. What has left stays: somebody has to look at that.

use super::client::{Change, Client, Row, Search};
use super::references::busy;
use super::rows;
use super::sales::{CANCELLED, SALE, STEPS_MAX, ack, find, press, stamp, too_early};
use crate::connectors::erp::{affected, covers, reject};
use crate::contract::event::OrderEvent;
use crate::domain::Decimal;
use crate::pipeline::{Ack, Code, Fault};
use serde_json::json;
use std::collections::BTreeMap;

/// A line of a sale.
struct Sold {
    id: i64,
    /// The channel's name of it.
    line: String,
    quantity: Decimal,
}

/// Takes a decision that an order, or a part of it, is cancelled.
///
/// # Errors
/// A reject when the ERP's own people have to do it: goods are on their way, or a part of what is being processed
/// is cancelled.
pub(super) async fn take(client: &Client, event: &OrderEvent) -> Result<Ack, Fault> {
    let who = format!("order {}", event.order_id);
    let affected = affected(event);
    let mark = format!("(decision {})", event.meta.event_id.simple());
    let mut changed = false;
    for _ in 0..STEPS_MAX {
        let Some(sale) = find(client, &event.order_id).await? else {
            return Err(too_early(&who));
        };
        let state = rows::text(&sale, "state").unwrap_or_default();
        if affected.is_empty() || state == "cancelled" {
            return Ok(ack(event, &sale, changed));
        }
        if rows::text(&sale, "comment").is_some_and(|c| c.contains(&mark)) {
            let step = match state {
                "draft" => "quote",
                "quotation" if client.settings.confirm_orders => "confirm",
                _ => return Ok(ack(event, &sale, changed)),
            };
            press(client, &sale, step, &who).await?;
            changed = true;
            continue;
        }
        let sold = sold(client, &sale).await?;
        let mut sums: BTreeMap<String, Decimal> = BTreeMap::new();
        for line in &sold {
            *sums.entry(line.line.clone()).or_default() += line.quantity;
        }
        let all = covers(&sums, &affected);
        let made = match (state, all) {
            ("draft", false) => take_part(client, &sale, &sold, &affected, &mark).await?,
            ("draft" | "quotation", true) => cancel(client, &sale).await?,
            ("quotation" | "confirmed", _) => {
                let id = json!([rows::id(&sale)]);
                client
                    .change(SALE, "draft", vec![id], stamp(SALE, &sale))
                    .await?
            }
            (_, true) => {
                changed |= stop_shipments(client, &sale, &who).await?;
                return Ok(ack(event, &sale, changed));
            }
            (_, false) => {
                let lines: Vec<&str> = affected.into_keys().collect();
                let message = format!(
                    "{who}: line {} is cancelled, but not all of the order, and sale {} of Tryton is {state} already; change it there by hand",
                    lines.join(", "),
                    rows::text(&sale, "number").unwrap_or_default()
                );
                return Err(reject(Code::Refused, message));
            }
        };
        match made {
            Change::Done(_) => changed = true,
            Change::Conflict => {}
            Change::Refused(why) => {
                let number = rows::text(&sale, "number").unwrap_or_default();
                let message = format!("{who}: Tryton refused to cancel sale {number}: {why}");
                return Err(reject(Code::Refused, message));
            }
        }
    }
    Err(busy(&who))
}

/// Cancels a sale that nobody processes yet. Marked first: its end is no news for the order.
pub(super) async fn cancel(client: &Client, sale: &Row) -> Result<Change, Fault> {
    let id = json!([rows::id(sale)]);
    let params = vec![id.clone(), json!({"description": CANCELLED})];
    match client
        .change(SALE, "write", params, stamp(SALE, sale))
        .await?
    {
        Change::Done(_) => client.change(SALE, "cancel", vec![id], json!({})).await,
        other => Ok(other),
    }
}

/// Takes some units out of the lines of a draft.
async fn take_part(
    client: &Client,
    sale: &Row,
    sold: &[Sold],
    affected: &BTreeMap<&str, Decimal>,
    mark: &str,
) -> Result<Change, Fault> {
    let mut left = affected.clone();
    let mut commands = Vec::new();
    for line in sold {
        let Some(wanted) = left.get_mut(&*line.line) else {
            continue;
        };
        let taken = (*wanted).min(line.quantity);
        *wanted -= taken;
        let rest = line.quantity - taken;
        if rest.is_zero() {
            commands.push(json!(["delete", [line.id]]));
        } else if taken.is_positive() {
            commands.push(json!(["write", [line.id], {"quantity": rest.to_f64()}]));
        }
    }
    let units = affected
        .iter()
        .map(|(line, units)| format!("{units} of line {line}"));
    let note = format!("Cancelled: {} {mark}", units.collect::<Vec<_>>().join(", "));
    let comment = match rows::text(sale, "comment") {
        Some(comment) => format!("{comment}\n{note}"),
        None => note,
    };
    let values = json!({"lines": commands, "comment": comment});
    let params = vec![json!([rows::id(sale)]), values];
    client
        .change(SALE, "write", params, stamp(SALE, sale))
        .await
}

/// What a sale has of the lines of its order; the line that has the most of one first.
async fn sold(client: &Client, sale: &Row) -> Result<Vec<Sold>, Fault> {
    let lines = client.search(Search {
        model: "sale.line",
        domain: json!([["sale", "=", rows::id(sale)], ["type", "=", "line"]]),
        order: json!([["id", "ASC"]]),
        limit: 1_000,
        fields: &["note", "quantity"],
    });
    let lines = lines.await?;
    let sold = |row: &Row| {
        Some(Sold {
            id: rows::id(row),
            line: rows::text(row, "note")?.to_owned(),
            quantity: row.get("quantity").and_then(rows::quantity)?,
        })
    };
    let mut sold: Vec<Sold> = lines.iter().filter_map(sold).collect();
    sold.sort_by_key(|s| std::cmp::Reverse(s.quantity));
    Ok(sold)
}

/// Cancels the shipments and drafts of invoices of a sale that is being processed. What remains open
/// in Tryton is for its people to close: it asks them whether to ship and to invoice again. Tells whether
/// there was something to cancel.
///
/// # Errors
/// As the calls; a reject when some of it is out already.
pub(super) async fn stop_shipments(client: &Client, sale: &Row, who: &str) -> Result<bool, Fault> {
    let mut changed = false;
    for (model, field, over) in [
        ("stock.shipment.out", "shipments", &["shipped", "done"][..]),
        ("account.invoice", "invoices", &["posted", "paid"]),
    ] {
        let ids = rows::integers(sale, field);
        if ids.is_empty() {
            continue;
        }
        let found = client.search(Search {
            model,
            domain: json!([["id", "in", ids], ["state", "!=", "cancelled"]]),
            order: json!([["id", "ASC"]]),
            limit: 1_000,
            fields: &["state", "number", "_timestamp"],
        });
        for row in found.await? {
            let state = rows::text(&row, "state").unwrap_or_default();
            let refuse = |why: &str| {
                let number = rows::text(&row, "number").unwrap_or_default();
                let message = format!(
                    "{who} is cancelled, but {model} {number} of sale {} is {state}{why}; take it back in Tryton by hand",
                    rows::text(sale, "number").unwrap_or_default()
                );
                reject(Code::IllegalTransition, message)
            };
            if over.contains(&state) {
                return Err(refuse(""));
            }
            let params = vec![json!([rows::id(&row)])];
            match client
                .change(model, "cancel", params, stamp(model, &row))
                .await?
            {
                Change::Done(_) => changed = true,
                Change::Conflict => return Err(busy(who)),
                Change::Refused(why) => return Err(refuse(&format!(": {why}"))),
            }
        }
    }
    Ok(changed)
}
