//! Orders into sales.
//!
//! A sale is found again by its web id, which is the order's id and unique in Tryton's database: a call
//! without an answer, a second delivery, two instances at once, all end with one sale. What is there
//! is looked at before every step, so the steps can be repeated from any point.

use super::client::{Change, Client, Row, Search};
use super::lines;
use super::references::{self, busy, create};
use super::rows;
use crate::connectors::erp::{agrees, check_order, named, reject, sale_lines};
use crate::contract::event::{OrderEvent, OrderSnapshot, SinkOutcome};
use crate::domain::Decimal;
use crate::domain::money::Currency;
use crate::pipeline::{Ack, Code, Fault, Stage};
use serde_json::{Map, Value, json};

pub(super) const SALE: &str = "sale.sale";
/// How a sale is described that was cancelled because its channel said so: the source does not tell
/// the channel what it knows.
pub(super) const CANCELLED: &str = "Cancelled in its channel";
/// Times that a step is tried anew because somebody else wrote the sale.
const CONFLICTS_MAX: usize = 4;
/// Steps from a draft to what is wanted, with some to spare.
pub(super) const STEPS_MAX: usize = 8;
pub(super) const FIELDS: &[&str] = &[
    "state",
    "number",
    "total_amount",
    "party",
    "shipments",
    "invoices",
    "comment",
    "_timestamp",
];

/// The sale of an order.
///
/// # Errors
/// As the calls.
pub(super) async fn find(client: &Client, order_id: &str) -> Result<Option<Row>, Fault> {
    let (company, _) = client.company().await?;
    let found = client.search(Search {
        model: SALE,
        domain: json!([["web_id", "=", order_id], ["company", "=", company]]),
        order: json!([["id", "ASC"]]),
        limit: 1,
        fields: FIELDS,
    });
    Ok(found.await?.into_iter().next())
}

/// Takes an order: makes its sale, and brings it as far as the settings say.
///
/// # Errors
/// A reject that names order and line where Tryton cannot take it.
pub(super) async fn place(
    client: &Client,
    event: &OrderEvent,
    order: &OrderSnapshot,
) -> Result<Ack, Fault> {
    let who = named(order, &event.order_id);
    let currency = check_order(order, &who)?;
    let mut changed = false;
    let sale = match find(client, &event.order_id).await? {
        Some(sale) => sale,
        None => {
            changed = true;
            let values = values(client, event, order, currency, &who).await?;
            let made = create(client, SALE, json!([values]), &who).await;
            match (find(client, &event.order_id).await?, made) {
                // Also when it was refused because another call had made it just before.
                (Some(sale), _) => sale,
                (None, Err(fault)) => return Err(fault),
                (None, Ok(id)) => {
                    let message = format!("{who}: Tryton made sale {id} and does not show it");
                    return Err(Fault::retry(Stage::Write, Code::OutcomeUnknown, message));
                }
            }
        }
    };
    let (sale, advanced) = advance(client, order, currency, sale, &who).await?;
    Ok(ack(event, &sale, changed || advanced))
}

pub(super) fn ack(event: &OrderEvent, sale: &Row, changed: bool) -> Ack {
    let number = rows::text(sale, "number").map(str::to_owned);
    Ack {
        outcome: match changed {
            true => SinkOutcome::Acked,
            false => SinkOutcome::DuplicateAcked,
        },
        version: event.entity_version,
        external_id: Some(number.unwrap_or_else(|| format!("{SALE},{}", rows::id(sale)))),
        digest: None,
        status: None,
    }
}

async fn values(
    client: &Client,
    event: &OrderEvent,
    order: &OrderSnapshot,
    currency: Currency,
    who: &str,
) -> Result<Map<String, Value>, Fault> {
    let Some(settings) = client.settings.channels.get(&*order.channel_id) else {
        let message = format!("{who}: channel {} is not in `channels`", order.channel_id);
        return Err(reject(Code::UnknownReference, message));
    };
    let shop = references::shop(client, &order.channel_id, settings).await?;
    let money = references::currency(client, currency.code(), who).await?;
    let names = references::names(client, order).await?;
    let lines = sale_lines(order, currency, &names, lines::PRICE_PLACES, who)?;
    let lines: Vec<Value> = lines.iter().enumerate().map(lines::value).collect();
    let warehouse = references::warehouse(client, order, &shop, settings, who).await?;
    let code = match (&order.customer_id, &settings.walk_in_party) {
        (Some(customer), _) => format!("{}{customer}", settings.party_prefix),
        (None, Some(party)) => party.clone(),
        (None, None) => {
            let message = format!(
                "{who} tells no customer; name the party that buys such orders in `channels.{}.walk_in_party`, then redrive",
                order.channel_id
            );
            return Err(reject(Code::UnknownReference, message));
        }
    };
    // Last: whatever else is wrong with the order leaves no party behind.
    let party = references::party(client, &code, who).await?;
    let mut values = json!({
        "web_shop": shop.id, "web_id": event.order_id, "reference": order.channel_order_id,
        "party": party.id, "invoice_address": party.address, "shipment_address": party.address,
        "warehouse": warehouse, "currency": money,
        "lines": [["create", lines]],
    });
    if client.has_field(SALE, "shipment_cost_method").await? {
        // What delivery costs is among the order's charges.
        values["shipment_cost_method"] = Value::Null;
    }
    Ok(values.as_object().cloned().unwrap_or_default())
}

/// Brings the sale as far as the settings say. Tells whether a step was needed.
async fn advance(
    client: &Client,
    order: &OrderSnapshot,
    currency: Currency,
    mut sale: Row,
    who: &str,
) -> Result<(Row, bool), Fault> {
    let mut stepped = false;
    for _ in 0..STEPS_MAX {
        let step = match rows::text(&sale, "state") {
            Some("draft") => {
                check_total(order, currency, &sale, who)?;
                "quote"
            }
            Some("quotation") if client.settings.confirm_orders => "confirm",
            _ => return Ok((sale, stepped)),
        };
        sale = press(client, &sale, step, who).await?;
        stepped = true;
    }
    Err(busy(who))
}

/// What the ERP reckons must be what the customer was told. Where it is not, the sale stays a draft.
fn check_total(
    order: &OrderSnapshot,
    currency: Currency,
    sale: &Row,
    who: &str,
) -> Result<(), Fault> {
    let total = sale.get("total_amount").and_then(rows::amount);
    let total = total.unwrap_or_default();
    if agrees(order, total, currency) {
        return Ok(());
    }
    let taxes: Decimal = order.lines.iter().map(|l| l.tax).sum();
    let message = format!(
        "{who} costs {} {currency}, {taxes} of it taxes of lines, and Tryton reckons {total}; compare the taxes of the draft sale with those of the channel (`taxes`, taxes of products), delete the draft, then redrive",
        order.grand_total,
    );
    Err(reject(Code::DataQuality, message))
}

/// One step of the sale's workflow, if it still is where it was seen. Gives the sale as it is then.
pub(super) async fn press(
    client: &Client,
    sale: &Row,
    step: &str,
    who: &str,
) -> Result<Row, Fault> {
    let id = rows::id(sale);
    let made = client
        .change(SALE, step, vec![json!([id])], stamp(SALE, sale))
        .await?;
    let after = again(client, id, who).await?;
    match made {
        Change::Refused(why) if after.get("state") == sale.get("state") => {
            let number = rows::text(sale, "number").unwrap_or("without a number");
            let message = format!(
                "{who}: Tryton refused to {step} sale {number} ({id}): {why}; mend it there, then redrive"
            );
            Err(reject(Code::Refused, message))
        }
        // Somebody else was faster; what there is to do follows from what the sale is now.
        _ => Ok(after),
    }
}

/// The context with which a change is refused when somebody else has written the row.
pub(super) fn stamp(model: &str, row: &Row) -> Value {
    let stamp = row.get("_timestamp").cloned().unwrap_or_default();
    json!({"_timestamp": {format!("{model},{}", rows::id(row)): stamp}})
}

/// The sale as it is now.
async fn again(client: &Client, id: i64, who: &str) -> Result<Row, Fault> {
    let found = client.search(Search {
        model: SALE,
        domain: json!([["id", "=", id]]),
        order: json!([["id", "ASC"]]),
        limit: 1,
        fields: FIELDS,
    });
    found.await?.into_iter().next().ok_or_else(|| {
        let message = format!("{who}: its sale in Tryton was deleted meanwhile");
        Fault::retry(Stage::Write, Code::Unavailable, message)
    })
}

/// Takes an amendment of an order that the ERP has not accepted yet: its draft or quotation is
/// written anew.
///
/// # Errors
/// A reject when the sale is beyond that: it is amended in the ERP then.
pub(super) async fn amend(
    client: &Client,
    event: &OrderEvent,
    order: &OrderSnapshot,
) -> Result<Ack, Fault> {
    let who = named(order, &event.order_id);
    let currency = check_order(order, &who)?;
    for _ in 0..CONFLICTS_MAX {
        let Some(sale) = find(client, &event.order_id).await? else {
            return place(client, event, order).await;
        };
        match rows::text(&sale, "state") {
            Some("draft") => {}
            Some("quotation") => {
                press(client, &sale, "draft", &who).await?;
                continue;
            }
            other => {
                let message = format!(
                    "{who}: sale {} of Tryton is {} already, so the amendment has to be made there",
                    rows::text(&sale, "number").unwrap_or_default(),
                    other.unwrap_or_default()
                );
                return Err(reject(Code::IllegalTransition, message));
            }
        }
        let mut values = values(client, event, order, currency, &who).await?;
        let old = client.search(Search {
            model: "sale.line",
            domain: json!([["sale", "=", rows::id(&sale)]]),
            order: json!([["id", "ASC"]]),
            limit: 1_000,
            fields: &["sequence"],
        });
        let old: Vec<i64> = old.await?.iter().map(rows::id).collect();
        if let Some(Value::Array(lines)) = values.get_mut("lines") {
            lines.insert(0, json!(["delete", old]));
        }
        let params = vec![json!([rows::id(&sale)]), Value::Object(values)];
        match client
            .change(SALE, "write", params, stamp(SALE, &sale))
            .await?
        {
            Change::Conflict => {}
            Change::Refused(why) => {
                let message = format!("{who}: Tryton refused the amendment: {why}");
                return Err(reject(Code::Refused, message));
            }
            Change::Done(_) => {
                let sale = again(client, rows::id(&sale), &who).await?;
                let (sale, _) = advance(client, order, currency, sale, &who).await?;
                return Ok(ack(event, &sale, true));
            }
        }
    }
    Err(busy(&who))
}

/// The order itself has not come yet, or is not in the ERP for another reason.
pub(super) fn too_early(who: &str) -> Fault {
    let message = format!("{who}: the order is not in Tryton; redrive the order, then this");
    Fault::retry(Stage::Write, Code::TooEarly, message)
}
