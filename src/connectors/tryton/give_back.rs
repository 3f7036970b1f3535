//! Returns that were received elsewhere, as sales that take goods back.
//!
//! A return of an order becomes a sale with quantities less than zero whose origin is the order's sale and
//! whose web id is the return's id: Tryton makes the shipment that takes the goods in and the credit note
//! from it. What is accepted later, beyond what is there, becomes a further sale whose web id has the
//! version of the return behind a `+`.

use super::client::{Change, Client, Row, Search};
use super::documents::{RETURN, SALE_LINE};
use super::references::{busy, create};
use super::rows;
use super::sales::{self, SALE, stamp};
use crate::connectors::erp::{self, ByLine, reject};
use crate::contract::event::{ReturnEvent, SinkOutcome};
use crate::domain::Decimal;
use crate::pipeline::{Ack, Code, Fault};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ROWS_MAX: usize = 1_000;

/// The return that a web id is of.
pub(super) fn return_of(web_id: &str) -> &str {
    web_id.split_once('+').map_or(web_id, |(id, _)| id)
}

/// Takes what was accepted of a return.
///
/// # Errors
/// `TOO_EARLY` while the order is not there; a reject that names order and line where Tryton has not
/// sold, or has already taken back, what the return says.
pub(super) async fn take(client: &Client, event: &ReturnEvent) -> Result<Ack, Fault> {
    let who = format!("return {} of order {}", event.return_id, event.order_id);
    let Some(sale) = sales::find(client, &event.order_id).await? else {
        return Err(sales::too_early(&who));
    };
    let before = sales_of_return(client, &event.return_id).await?;
    let mut changed = false;
    let missing = missing(client, &before, event, &who).await?;
    if !missing.is_empty() {
        let web_id = match before.is_empty() {
            true => event.return_id.to_string(),
            false => format!("{}+{}", event.return_id, event.return_version),
        };
        make(client, event, &sale, &missing, &web_id, &who).await?;
        changed = true;
    }
    let mut number = None;
    for back in sales_of_return(client, &event.return_id).await? {
        number = rows::text(&back, "number").map(str::to_owned);
        changed |= finish(client, &back, &who).await?;
    }
    Ok(Ack {
        outcome: match changed {
            true => SinkOutcome::Acked,
            false => SinkOutcome::DuplicateAcked,
        },
        version: event.return_version,
        external_id: number,
        digest: None,
        status: None,
    })
}

/// The sales that were made for a return, cancelled ones left out.
async fn sales_of_return(client: &Client, return_id: &str) -> Result<Vec<Row>, Fault> {
    let (company, _) = client.company().await?;
    let further = format!("{return_id}+%");
    client
        .search(Search {
            model: SALE,
            domain: json!([
                ["company", "=", company],
                ["state", "!=", "cancelled"],
                [
                    "OR",
                    [["web_id", "=", return_id]],
                    [["web_id", "like", further]]
                ],
            ]),
            order: json!([["id", "ASC"]]),
            limit: ROWS_MAX,
            fields: &[
                "state",
                "number",
                "shipment_returns",
                "invoices",
                "_timestamp",
            ],
        })
        .await
}

/// What was accepted and is not in these sales.
async fn missing<'a>(
    client: &Client,
    before: &[Row],
    event: &'a ReturnEvent,
    who: &str,
) -> Result<ByLine<'a>, Fault> {
    let mut taken: BTreeMap<String, Decimal> = BTreeMap::new();
    let ids: Vec<i64> = before.iter().map(rows::id).collect();
    if !ids.is_empty() {
        let lines = client.search(Search {
            model: SALE_LINE,
            domain: json!([["sale", "in", ids]]),
            order: json!([["id", "ASC"]]),
            limit: ROWS_MAX,
            fields: &["note", "quantity"],
        });
        for line in lines.await? {
            let name = rows::text(&line, "note").unwrap_or_default();
            let quantity = line.get("quantity").and_then(rows::quantity);
            // Quantities that come back are less than zero.
            *taken.entry(name.to_owned()).or_default() -= quantity.unwrap_or_default();
        }
    }
    erp::not_taken("Tryton", erp::accepted(event), &taken, who)
}

async fn make(
    client: &Client,
    event: &ReturnEvent,
    sale: &Row,
    missing: &ByLine<'_>,
    web_id: &str,
    who: &str,
) -> Result<(), Fault> {
    let copied = [
        "party",
        "invoice_address",
        "shipment_address",
        "warehouse",
        "currency",
        "web_shop",
        "reference",
    ];
    let sold = client.search(Search {
        model: SALE,
        domain: json!([["id", "=", rows::id(sale)]]),
        order: json!([["id", "ASC"]]),
        limit: 1,
        fields: &copied,
    });
    let sold = sold.await?.into_iter().next().unwrap_or_default();
    let lines = client.search(Search {
        model: SALE_LINE,
        domain: json!([["sale", "=", rows::id(sale)], ["type", "=", "line"]]),
        order: json!([["id", "ASC"]]),
        limit: ROWS_MAX,
        fields: &["note", "product", "unit", "unit_price", "quantity", "taxes"],
    });
    let lines = lines.await?;
    let of_line = |line: &Row| {
        let had = line.get("quantity").and_then(rows::quantity);
        had.unwrap_or_default()
    };
    let named = lines.iter().map(|l| (rows::text(l, "note"), of_line(l)));
    let (shares, over) = erp::share_out(missing.clone(), named);
    if let Some(fault) = erp::never_sold("Tryton", missing, &over, who) {
        return Err(fault);
    }
    let mut back: Vec<Value> = Vec::new();
    for (line, units) in lines
        .iter()
        .zip(shares)
        .filter(|(_, units)| units.is_positive())
    {
        back.push(json!({
            "type": "line", "sequence": back.len() + 1, "note": line.get("note"),
            "product": line.get("product"), "unit": line.get("unit"),
            "unit_price": line.get("unit_price"), "quantity": -units.to_f64(),
            "taxes": [["add", line.get("taxes")]],
        }));
    }
    let mut values = json!({
        "web_id": web_id, "origin": format!("{SALE},{}", rows::id(sale)), "lines": [["create", back]],
    });
    for field in copied {
        values[field] = sold.get(field).cloned().unwrap_or_default();
    }
    if client.has_field(SALE, "shipment_cost_method").await? {
        values["shipment_cost_method"] = Value::Null;
    }
    if erp::came_back(event).is_empty() {
        // The customer keeps the goods: nothing is to be waited for.
        values["shipment_method"] = json!("manual");
    }
    match create(client, SALE, json!([values]), who).await {
        Ok(_) => Ok(()),
        // Another call has made it just before.
        Err(fault) => match sales::find(client, web_id).await? {
            Some(_) => Ok(()),
            None => Err(fault),
        },
    }
}

/// Confirms the sale, takes the goods in and, where the settings say so, posts the credit note. Tells
/// whether a step was needed.
async fn finish(client: &Client, back: &Row, who: &str) -> Result<bool, Fault> {
    let id = rows::id(back);
    let mut changed = false;
    // A server with workers of its own leaves it confirmed for a while.
    let steps = [
        ("draft", "quote"),
        ("quotation", "confirm"),
        ("confirmed", "process"),
    ];
    for (from, step) in steps {
        let now = one(client, SALE, id, &["state", "_timestamp"]).await?;
        if rows::text(&now, "state") == Some(from) {
            press(client, SALE, &now, step, who).await?;
            changed = true;
        }
    }
    let now = one(client, SALE, id, &["shipment_returns", "invoices"]).await?;
    for shipment in rows::integers(&now, "shipment_returns") {
        for (from, step) in [("draft", "receive"), ("received", "do")] {
            let now = one(client, RETURN, shipment, &["state", "_timestamp"]).await?;
            if rows::text(&now, "state") == Some(from) {
                press(client, RETURN, &now, step, who).await?;
                changed = true;
            }
        }
    }
    if client.settings.post_credit_notes {
        for invoice in rows::integers(&now, "invoices") {
            let model = "account.invoice";
            let now = one(client, model, invoice, &["state", "_timestamp"]).await?;
            if matches!(rows::text(&now, "state"), Some("draft" | "validated")) {
                press(client, model, &now, "post", who).await?;
                changed = true;
            }
        }
    }
    Ok(changed)
}

async fn one(client: &Client, model: &str, id: i64, fields: &[&str]) -> Result<Row, Fault> {
    let found = client.search(Search {
        model,
        domain: json!([["id", "=", id]]),
        order: json!([["id", "ASC"]]),
        limit: 1,
        fields,
    });
    Ok(found.await?.into_iter().next().unwrap_or_default())
}

/// One step of a document, if it still is where it was seen.
async fn press(
    client: &Client,
    model: &str,
    row: &Row,
    step: &str,
    who: &str,
) -> Result<(), Fault> {
    let id = json!([rows::id(row)]);
    match client
        .change(model, step, vec![id], stamp(model, row))
        .await?
    {
        Change::Done(_) => Ok(()),
        Change::Conflict => Err(busy(who)),
        Change::Refused(why) => {
            let now = one(client, model, rows::id(row), &["state"]).await?;
            if now.get("state") != row.get("state") {
                return Ok(());
            }
            let message = format!(
                "{who}: Tryton refused to {step} {model} {}: {why}; mend it there, then redrive",
                rows::id(row)
            );
            Err(reject(Code::Refused, message))
        }
    }
}
