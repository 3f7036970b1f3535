//! Sales that are taken back: of an order that is cancelled, the part of one, and one that is there once too
//! often.
//!
//! Odoo makes a delivery smaller when the line of its sale is, so a part is cancelled by one write of the sale's
//! lines. Which decisions it has taken the lines say themselves, in their descriptions: written with the
//! quantity, so that no decision counts twice. What has left or is invoiced stays: somebody has to look at that.

use super::client::{Change, Client, Search};
use super::documents::{self, CANCELLED, PICKING, SALE, SALE_LINE};
use super::rows;
use super::sales::{FIELDS, ack, busy, find, press, too_early};
use crate::connectors::erp::{Row, affected, covers, reject};
use crate::contract::event::{Correction, CorrectionKind, OrderEvent, SinkOutcome};
use crate::domain::Decimal;
use crate::pipeline::{Ack, Code, Fault};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A line of a sale.
struct Sold {
    id: i64,
    /// The channel's name of it.
    line: String,
    description: String,
    quantity: Decimal,
    /// What one costs, and its discount in percent, as Odoo has them.
    price: [Value; 2],
    /// How much of it customers have or were invoiced: what is the most.
    gone: Decimal,
}

/// Takes a decision that an order, or a part of it, is cancelled.
///
/// # Errors
/// A reject when the ERP's own people have to do it: goods have left, or are invoiced.
pub(super) async fn take(client: &Client, event: &OrderEvent) -> Result<Ack, Fault> {
    let who = format!("order {}", event.order_id);
    let affected = affected(event);
    let Some(sale) = find(client, &event.order_id).await? else {
        return Err(too_early(&who));
    };
    if affected.is_empty() || rows::text(&sale, "state") == Some("cancel") {
        return Ok(ack(event, &sale, false));
    }
    let sold = sold(client, &sale).await?;
    let id = event.meta.event_id.simple().to_string();
    let mark = format!("cancelled ({})", id.get(..12).unwrap_or(&id));
    if sold.iter().any(|s| s.description.contains(&mark)) {
        return Ok(ack(event, &sale, false));
    }
    let mut sums: BTreeMap<String, Decimal> = BTreeMap::new();
    for line in sold.iter().filter(|s| s.quantity.is_positive()) {
        *sums.entry(line.line.clone()).or_default() += line.quantity;
    }
    if !covers(&sums, &affected) {
        take_part(client, &sale, (sold, affected), &mark, &who).await?;
        return Ok(ack(event, &sale, true));
    }
    let after = stop(client, &event.order_id, &sale, &who).await?;
    match rows::text(&after, "state") {
        Some("cancel") => Ok(ack(event, &after, true)),
        _ => Err(busy(&who)),
    }
}

/// Takes some units out of the lines of a sale.
async fn take_part(
    client: &Client,
    sale: &Row,
    (sold, affected): (Vec<Sold>, BTreeMap<&str, Decimal>),
    mark: &str,
    who: &str,
) -> Result<(), Fault> {
    let number = rows::text(sale, "name").unwrap_or_default();
    let mut left = affected;
    let mut commands = Vec::new();
    for line in &sold {
        let Some(wanted) = left.get_mut(&*line.line) else {
            continue;
        };
        let taken = (*wanted).min(line.quantity - line.gone);
        if !taken.is_positive() {
            continue;
        }
        *wanted -= taken;
        let says = format!("{taken} {mark}");
        let name = documents::noted(&line.description, &says);
        // Odoo reckons prices anew with the quantity, unless they are written with it.
        let [price, discount] = &line.price;
        let values = json!({
            "product_uom_qty": (line.quantity - taken).to_f64(), "name": name,
            "price_unit": price, "discount": discount,
        });
        commands.push(json!([1, line.id, values]));
    }
    if let Some((line, units)) = left.iter().find(|(_, units)| units.is_positive()) {
        let message = format!(
            "{who}: {units} of line {line} are cancelled, but of sale {number} so much has been delivered or invoiced; take it back in Odoo by hand"
        );
        return Err(reject(Code::IllegalTransition, message));
    }
    let arguments = json!({"ids": [rows::id(sale)], "vals": {"order_line": commands}});
    match client.change(SALE, "write", arguments).await? {
        Change::Done(_) => Ok(()),
        Change::Refused(why) => {
            let message = format!(
                "{who}: Odoo refused to take a part out of sale {number}: {why}; change it there by hand"
            );
            Err(reject(Code::Refused, message))
        }
    }
}

/// Whether a correction may be about a sale of this Odoo: where no list told of it, nobody knows whose it is.
pub(super) fn wants_duplicate(client: &Client, instance: &str, e: &Correction) -> bool {
    e.kind == CorrectionKind::CancelDuplicate
        && !client.settings.channels.is_empty()
        && (e.target.is_empty() || *e.target == *instance)
}

/// Cancels a sale that is one too many. It is found by its number and the order's id together, so a number that
/// means another sale here cancels nothing.
///
/// # Errors
/// As the calls; a reject when goods or invoices of it are out already.
pub(super) async fn take_duplicate(client: &Client, e: &Correction) -> Result<Ack, Fault> {
    let (Some(order), Some(number)) = (&e.order_id, &e.external_id) else {
        let message = format!("correction {} names no order or no sale", e.correction_id);
        return Err(reject(Code::DataQuality, message));
    };
    let who = format!("sale {number} of order {order}, which is one too many,");
    let company = client.user().await?.company;
    let found = client.search(Search {
        model: SALE,
        domain: json!([
            ["name", "=", number],
            ["origin", "in", [order, format!("{order}{CANCELLED}")]],
            ["company_id", "=", company]
        ]),
        order: "id",
        limit: 1,
        fields: FIELDS,
    });
    let found = found.await?;
    let outcome = match found.first() {
        None => SinkOutcome::StaleSkipped,
        Some(sale) if rows::text(sale, "state") == Some("cancel") => SinkOutcome::DuplicateAcked,
        Some(sale) => match rows::text(&stop(client, order, sale, &who).await?, "state") {
            Some("cancel") => SinkOutcome::Acked,
            _ => return Err(busy(&who)),
        },
    };
    Ok(Ack {
        outcome,
        version: i64::from(e.attempt),
        external_id: Some(number.to_string()),
        digest: None,
        status: None,
    })
}

/// Cancels a sale of which nothing has left. Marked first: its end is no news for the order. Gives the sale as
/// it is then.
async fn stop(client: &Client, order_id: &str, sale: &Row, who: &str) -> Result<Row, Fault> {
    let number = rows::text(sale, "name").unwrap_or_default();
    // Odoo itself would cancel a sale whose goods have left.
    for (model, field, over) in [
        (PICKING, "picking_ids", "done"),
        ("account.move", "invoice_ids", "posted"),
    ] {
        let ids = rows::links(sale, field);
        let found = client.all(model, "id", json!(ids), &["name", "state"]);
        for row in found.await? {
            if rows::text(&row, "state") == Some(over) {
                let name = rows::text(&row, "name").unwrap_or_default();
                let message = format!(
                    "{who} is cancelled, but {name} of sale {number} is {over}; take it back in Odoo by hand"
                );
                return Err(reject(Code::IllegalTransition, message));
            }
        }
    }
    let origin = format!("{order_id}{CANCELLED}");
    let arguments = json!({"ids": [rows::id(sale)], "vals": {"origin": origin}});
    if let Change::Refused(why) = client.change(SALE, "write", arguments).await? {
        let message = format!("{who}: Odoo refused to write sale {number}: {why}");
        return Err(reject(Code::Refused, message));
    }
    press(client, sale, "action_cancel", who).await
}

/// What a sale has of the lines of its order; the line that has the most of one first.
async fn sold(client: &Client, sale: &Row) -> Result<Vec<Sold>, Fault> {
    let fields = [
        "name",
        "product_uom_qty",
        "price_unit",
        "discount",
        "qty_delivered",
        "qty_invoiced",
    ];
    let lines = client.all(SALE_LINE, "order_id", json!([rows::id(sale)]), &fields);
    let lines = lines.await?;
    let sold = |row: &Row| {
        let number = |field: &str| rows::decimal(row, field).unwrap_or_default();
        Some(Sold {
            id: rows::id(row),
            line: documents::line_name(row)?.to_owned(),
            description: rows::text(row, "name").unwrap_or_default().to_owned(),
            quantity: number("product_uom_qty"),
            price: ["price_unit", "discount"].map(|f| row.get(f).cloned().unwrap_or_default()),
            gone: number("qty_delivered").max(number("qty_invoiced")),
        })
    };
    let mut sold: Vec<Sold> = lines.iter().filter_map(sold).collect();
    sold.sort_by_key(|s| std::cmp::Reverse(s.quantity));
    Ok(sold)
}
