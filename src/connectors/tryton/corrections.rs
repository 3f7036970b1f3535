//! Corrects stock that Tryton repeats after another system: by a count, as its people would, so that it
//! stands in Tryton's books and is told back as a count that agrees.
//!
//! Tryton keeps in a count's line what it expected when the line was made, and moves the difference: so
//! what is sold between looking and confirming stays sold. A count that was made and not confirmed, since
//! its answer was lost, is found again by what it counts.

use super::client::{Change, Client, Search};
use super::references::{busy, create};
use super::rows;
use super::tree;
use crate::connectors::erp::{SetStock, reject};
use crate::contract::event::{Correction, SinkOutcome};
use crate::domain::Decimal;
use crate::pipeline::{Ack, Code, Fault};
use serde_json::{Value, json};

const INVENTORY: &str = "stock.inventory";
const LINE: &str = "stock.inventory.line";
/// Drafts that are looked through for one that was made before.
const DRAFTS_MAX: usize = 1_000;

/// Sets the stock of a position, if Tryton still has there what it was told to have.
///
/// # Errors
/// As the calls; a reject when a name means nothing here, or the goods lie in too many places.
pub(super) async fn take(client: &Client, e: &Correction) -> Result<Ack, Fault> {
    let set = SetStock::of(e)?;
    let (location, who) = (set.location, &set.who);
    let product = product(client, set.sku, who).await?;
    let (tree, _) = tree::load(client).await?;
    let owner = tree.row_of(location).ok_or_else(|| {
        let message =
            format!("{who}: Tryton has no location {location}; mend `locations`, then redrive");
        reject(Code::UnknownReference, message)
    })?;
    let places = tree.sellable_below(owner);
    let now = stock(client, product, &places).await?;
    if let Some(ack) = set.ended(now) {
        return Ok(ack);
    }
    let should = set.should;
    let (place, there) = place_for(client, product, owner, &places, should - now, who).await?;
    let counted = there + should - now;
    let (inventory, expected) = match drafted(client, product, place, counted).await? {
        Some(found) => found,
        None => {
            let lines = json!([{"product": product, "quantity": counted.to_f64()}]);
            let count = json!([{"location": place, "empty_quantity": "keep", "lines": [["create", lines]]}]);
            let made = create(client, INVENTORY, count, who).await?;
            (made, expected(client, made).await?)
        }
    };
    let step = match expected == Some(there) {
        true => "confirm",
        // Something moved between looking and counting: the count is given up, and made anew.
        false => "cancel",
    };
    let done = client.change(INVENTORY, step, vec![json!([inventory])], json!({}));
    match done.await? {
        Change::Done(_) if step == "confirm" => Ok(Ack {
            external_id: Some(format!("{INVENTORY},{inventory}")),
            ..set.ack(SinkOutcome::Acked)
        }),
        Change::Done(_) | Change::Conflict => Err(busy(who)),
        Change::Refused(why) => {
            let message = format!(
                "{who}: Tryton refused to {step} the count {inventory}: {why}; settle it there by hand"
            );
            Err(reject(Code::Refused, message))
        }
    }
}

async fn product(client: &Client, sku: &str, who: &str) -> Result<i64, Fault> {
    let found = client.search(Search {
        model: "product.product",
        domain: json!([["code", "=", sku], ["active", "=", true]]),
        order: json!([["id", "ASC"]]),
        limit: 2,
        fields: &["code"],
    });
    match &*found.await? {
        [one] => Ok(rows::id(one)),
        found => {
            let message = match found.is_empty() {
                true => format!(
                    "{who}: Tryton has no product with code {sku}; give one that code, then redrive"
                ),
                false => format!(
                    "{who}: several products of Tryton have code {sku}; make it one, then redrive"
                ),
            };
            Err(reject(Code::UnknownReference, message))
        }
    }
}

/// What Tryton reports for a product in these locations together.
async fn stock(client: &Client, product: i64, places: &[i64]) -> Result<Decimal, Fault> {
    let context = json!({"locations": places, "with_childs": false});
    let read = client
        .read("product.product", &[product], &["quantity"], context)
        .await?;
    let quantity = read.first().and_then(|row| row.get("quantity"));
    Ok(quantity.and_then(rows::quantity).unwrap_or_default())
}

/// The storage location at which the difference is booked, and what is there now: where a warehouse
/// stores, or else where most of it is.
async fn place_for(
    client: &Client,
    product: i64,
    owner: i64,
    places: &[i64],
    change: Decimal,
    who: &str,
) -> Result<(i64, Decimal), Fault> {
    let fields = ["storage_location"];
    let warehouse = client
        .read("stock.location", &[owner], &fields, json!({}))
        .await?;
    let store = warehouse
        .first()
        .and_then(|row| rows::integer(row, fields[0]));
    let store = store.unwrap_or(owner);
    let mut best: Option<(i64, Decimal)> = None;
    for place in places {
        let there = stock(client, product, &[*place]).await?;
        if *place == store && !(there + change).is_negative() {
            return Ok((*place, there));
        }
        if best.is_none_or(|(_, most)| there > most) {
            best = Some((*place, there));
        }
    }
    best.filter(|(_, there)| !(*there + change).is_negative())
        .ok_or_else(|| {
            let message = format!(
                "{who}: no single place there has {} units to take off; count them by hand",
                -change
            );
            reject(Code::Refused, message)
        })
}

/// A draft at this place that counts this and nothing else, with what it expects.
async fn drafted(
    client: &Client,
    product: i64,
    place: i64,
    counted: Decimal,
) -> Result<Option<(i64, Option<Decimal>)>, Fault> {
    let drafts = client.search(Search {
        model: INVENTORY,
        domain: json!([["location", "=", place], ["state", "=", "draft"]]),
        order: json!([["id", "DESC"]]),
        limit: DRAFTS_MAX,
        fields: &["state"],
    });
    let drafts: Vec<i64> = drafts.await?.iter().map(rows::id).collect();
    if drafts.is_empty() {
        return Ok(None);
    }
    let lines = client.search(Search {
        model: LINE,
        domain: json!([["inventory", "in", drafts], ["product", "=", product]]),
        order: json!([["id", "DESC"]]),
        limit: DRAFTS_MAX,
        fields: &["inventory", "quantity"],
    });
    for line in lines.await? {
        let same = line.get("quantity").and_then(rows::quantity) == Some(counted);
        let Some(inventory) = rows::integer(&line, "inventory").filter(|_| same) else {
            continue;
        };
        if client
            .count(LINE, json!([["inventory", "=", inventory]]))
            .await?
            == 1
        {
            return Ok(Some((inventory, expected(client, inventory).await?)));
        }
    }
    Ok(None)
}

/// What the only line of a count expects.
async fn expected(client: &Client, inventory: i64) -> Result<Option<Decimal>, Fault> {
    let lines = client.search(Search {
        model: LINE,
        domain: json!([["inventory", "=", inventory]]),
        order: json!([["id", "ASC"]]),
        limit: 1,
        fields: &["expected_quantity"],
    });
    let lines = lines.await?;
    let expected = lines.first().and_then(|l| l.get("expected_quantity"));
    Ok(expected.and_then(|q: &Value| rows::quantity(q)))
}
