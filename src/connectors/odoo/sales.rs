//! Orders into sales.
//!
//! A sale is made by the import of Odoo (`load`) under an external id that is the order's: the database
//! keeps external ids unique, and what is there already is left as it is, so that a call without an answer, a
//! second delivery, two instances at once, all end with one sale. It is found again by its source document.
//! What is there is looked at before every step, so the steps can be repeated from any point.

use super::client::{Change, Client, Fields, Search};
use super::documents::{self, CANCELLED, SALE, SALE_LINE};
use super::{references, rows};
use crate::connectors::erp::{Row, SaleLine, agrees, check_order, named, reject, sale_lines};
use crate::contract::event::{OrderEvent, OrderSnapshot, SinkOutcome};
use crate::domain::Decimal;
use crate::domain::money::Currency;
use crate::pipeline::{Ack, Code, Fault, Stage};
use serde_json::{Map, Value, json};

/// Steps from a draft to what is wanted, with some to spare for others who write it too.
const STEPS_MAX: usize = 8;
pub(super) const FIELDS: &[&str] = &[
    "state",
    "name",
    "origin",
    "amount_total",
    "currency_id",
    "partner_id",
    "warehouse_id",
    "picking_ids",
    "invoice_ids",
];

/// The sale of an order.
///
/// # Errors
/// As the calls.
pub(super) async fn find(client: &Client, order_id: &str) -> Result<Option<Row>, Fault> {
    let company = client.user().await?.company;
    let cancelled = format!("{order_id}{CANCELLED}");
    let found = client.search(Search {
        model: SALE,
        domain: json!([
            ["origin", "in", [order_id, cancelled]],
            ["company_id", "=", company]
        ]),
        order: "id",
        limit: 1,
        fields: FIELDS,
    });
    Ok(found.await?.into_iter().next())
}

/// Takes an order: makes its sale, and brings it as far as the settings say.
///
/// # Errors
/// A reject that names order and line where Odoo cannot take it.
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
            let (values, lines) = values(client, event, order, currency, &who).await?;
            let key = format!("order_{}", event.order_id);
            let made = client
                .make(SALE, &key, &values, Some(("order_line", &lines)))
                .await?;
            match (find(client, &event.order_id).await?, made) {
                // Also when it was refused because another call had made it just before.
                (Some(sale), _) => sale,
                (None, Change::Refused(why)) => {
                    let message =
                        format!("{who}: Odoo refused a sale: {why}; mend it, then redrive");
                    return Err(reject(Code::Refused, message));
                }
                (None, Change::Done(_)) => {
                    let message = format!("{who}: Odoo made a sale and does not show it");
                    return Err(Fault::retry(Stage::Write, Code::OutcomeUnknown, message));
                }
            }
        }
    };
    let (sale, advanced) = advance(client, order, currency, sale, &who).await?;
    Ok(ack(event, &sale, changed || advanced))
}

pub(super) fn ack(event: &OrderEvent, sale: &Row, changed: bool) -> Ack {
    Ack {
        outcome: match changed {
            true => SinkOutcome::Acked,
            false => SinkOutcome::DuplicateAcked,
        },
        version: event.entity_version,
        external_id: rows::text(sale, "name").map(str::to_owned),
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
) -> Result<(Fields, Vec<Fields>), Fault> {
    let Some(settings) = client.settings.channels.get(&*order.channel_id) else {
        let message = format!("{who}: channel {} is not in `channels`", order.channel_id);
        return Err(reject(Code::UnknownReference, message));
    };
    let price_list = references::price_list(client, currency.code(), who).await?;
    let names = references::names(client, order).await?;
    let places = references::price_places(client).await?;
    let lines = sale_lines(order, currency, &names, places, who)?;
    let lines = lines.iter().map(line).collect();
    let warehouse = references::warehouse(client, order, settings, who).await?;
    let code = match (&order.customer_id, &settings.walk_in_customer) {
        (Some(customer), _) => format!("{}{customer}", settings.customer_prefix),
        (None, Some(customer)) => customer.clone(),
        (None, None) => {
            let message = format!(
                "{who} tells no customer; name the one that buys such orders in `channels.{}.walk_in_customer`, then redrive",
                order.channel_id
            );
            return Err(reject(Code::UnknownReference, message));
        }
    };
    // Last: whatever else is wrong with the order leaves no customer behind.
    let customer = references::customer(client, &code, who).await?;
    let mut values = vec![
        ("origin", json!(event.order_id)),
        ("client_order_ref", json!(order.channel_order_id)),
        ("partner_id", json!(customer)),
        ("warehouse_id", json!(warehouse)),
    ];
    values.extend(price_list.map(|id| ("pricelist_id", json!(id))));
    Ok((values, lines))
}

fn line(line: &SaleLine<'_>) -> Fields {
    vec![
        ("product_id", json!(line.product.id)),
        (
            "name",
            json!(documents::description(&line.product.name, line.line)),
        ),
        ("product_uom_qty", json!(line.quantity.to_f64())),
        ("price_unit", json!(line.price.to_f64())),
        ("tax_ids", json!(line.taxes)),
    ]
}

/// Brings the sale as far as the settings say. Tells whether a step was needed.
async fn advance(
    client: &Client,
    order: &OrderSnapshot,
    currency: Currency,
    mut sale: Row,
    who: &str,
) -> Result<(Row, bool), Fault> {
    let confirms = client.settings.confirm_orders;
    let mut stepped = false;
    for _ in 0..STEPS_MAX {
        let step = match rows::text(&sale, "state") {
            Some("draft") => {
                check_total(order, currency, &sale, who)?;
                // A draft that waits for nothing but people is a quotation that was sent.
                if confirms {
                    "action_confirm"
                } else {
                    "action_quotation_sent"
                }
            }
            Some("sent") if confirms => "action_confirm",
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
    let total = rows::decimal(sale, "amount_total").unwrap_or_default();
    let sold_in = rows::link_name(sale, "currency_id").unwrap_or_default();
    if agrees(order, total, currency) && sold_in == currency.code() {
        return Ok(());
    }
    let taxes: Decimal = order.lines.iter().map(|l| l.tax).sum();
    let message = format!(
        "{who} costs {} {currency}, {taxes} of it taxes of lines, and Odoo reckons {total} {sold_in}; compare the taxes of the draft sale with those of the channel (`taxes`, taxes of products), delete the draft, then redrive",
        order.grand_total,
    );
    Err(reject(Code::DataQuality, message))
}

/// One step of the sale. Gives the sale as it is then.
pub(super) async fn press(
    client: &Client,
    sale: &Row,
    step: &str,
    who: &str,
) -> Result<Row, Fault> {
    let arguments = json!({"ids": [rows::id(sale)], "context": {"disable_cancel_warning": true}});
    let made = client.change(SALE, step, arguments).await?;
    let after = again(client, sale, who).await?;
    match made {
        Change::Refused(why) if after.get("state") == sale.get("state") => {
            let number = rows::text(sale, "name").unwrap_or_default();
            let message = format!(
                "{who}: Odoo refused {step} of sale {number}: {why}; mend it there, then redrive"
            );
            Err(reject(Code::Refused, message))
        }
        // Somebody else was faster; what there is to do follows from what the sale is now.
        _ => Ok(after),
    }
}

/// The sale as it is now.
async fn again(client: &Client, sale: &Row, who: &str) -> Result<Row, Fault> {
    let found = client.all(SALE, "id", json!([rows::id(sale)]), FIELDS);
    found.await?.into_iter().next().ok_or_else(|| {
        let message = format!("{who}: its sale in Odoo was deleted meanwhile");
        Fault::retry(Stage::Write, Code::Unavailable, message)
    })
}

/// The order itself has not come yet, or is not in the ERP for another reason.
pub(super) fn too_early(who: &str) -> Fault {
    let message = format!("{who}: the order is not in Odoo; redrive the order, then this");
    Fault::retry(Stage::Write, Code::TooEarly, message)
}

pub(super) fn busy(who: &str) -> Fault {
    let message = format!("{who}: others were writing the same sale in Odoo");
    Fault::retry(Stage::Write, Code::Unavailable, message)
}

/// Takes an amendment of an order that the ERP has not accepted yet: its draft is written anew.
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
    let Some(mut sale) = find(client, &event.order_id).await? else {
        return place(client, event, order).await;
    };
    if rows::text(&sale, "state") == Some("sent") {
        sale = press(client, &sale, "action_draft", &who).await?;
    }
    if rows::text(&sale, "state") != Some("draft") {
        let message = format!(
            "{who}: sale {} of Odoo is {:?} already, so the amendment has to be made there",
            rows::text(&sale, "name").unwrap_or_default(),
            rows::text(&sale, "state").unwrap_or_default()
        );
        return Err(reject(Code::IllegalTransition, message));
    }
    let (values, lines) = values(client, event, order, currency, &who).await?;
    let old = client.all(SALE_LINE, "order_id", json!([rows::id(&sale)]), &["name"]);
    let old = old.await?;
    let deletions = old.iter().map(|line| json!([2, rows::id(line), 0]));
    let creations = lines.into_iter().map(|line| {
        let mut made: Map<String, Value> = line.into_iter().map(|(n, v)| (n.into(), v)).collect();
        if let Some(taxes) = made.get_mut("tax_ids") {
            *taxes = json!([[6, 0, taxes]]);
        }
        json!([0, 0, made])
    });
    let mut written: Map<String, Value> = values.into_iter().map(|(n, v)| (n.into(), v)).collect();
    written.insert("order_line".into(), deletions.chain(creations).collect());
    let arguments = json!({"ids": [rows::id(&sale)], "vals": written});
    if let Change::Refused(why) = client.change(SALE, "write", arguments).await? {
        let message = format!("{who}: Odoo refused the amendment: {why}");
        return Err(reject(Code::Refused, message));
    }
    let sale = again(client, &sale, &who).await?;
    let (sale, _) = advance(client, order, currency, sale, &who).await?;
    Ok(ack(event, &sale, true))
}
