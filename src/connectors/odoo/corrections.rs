//! Corrects stock that Odoo repeats after another system: by a count, as its people would, so that it
//! stands in Odoo's books and is told back as a count that agrees.
//!
//! A count is set and applied by one import under an external id that is the correction's, so it is made once.
//! What is sold in the moment between looking and counting is counted over; the next comparison names it.

use super::client::{Change, Client};
use super::rows;
use super::stock::QUANT;
use super::tree::Places;
use crate::connectors::erp::{Row, SetStock, reject};
use crate::contract::event::{Correction, SinkOutcome};
use crate::domain::Decimal;
use crate::pipeline::{Ack, Code, Fault};
use serde_json::json;
use std::collections::BTreeMap;

/// Sets the stock of a position, if Odoo still has there what it was told to have.
///
/// # Errors
/// As the calls; a reject when a name means nothing here, or the goods lie in too many places.
pub(super) async fn take(client: &Client, e: &Correction) -> Result<Ack, Fault> {
    let set = SetStock::of(e)?;
    let (location, who) = (set.location, &set.who);
    let product = product(client, set.sku, who).await?;
    let places = Places::load(client).await?;
    let owner = places.tree.row_of(location).ok_or_else(|| {
        let message =
            format!("{who}: Odoo has no location {location}; mend `locations`, then redrive");
        reject(Code::UnknownReference, message)
    })?;
    let below = places.tree.sellable_below(owner);
    let there = stock(client, product, &below).await?;
    let now: Decimal = there.values().copied().sum();
    if let Some(ack) = set.ended(now) {
        return Ok(ack);
    }
    let change = set.should - now;
    let main = places.warehouses.get(&owner).map_or(owner, |w| w.stock);
    let Some(place) = place_for(&there, main, change) else {
        let message = format!(
            "{who}: no single place there has {} units to take off; count them by hand",
            -change
        );
        return Err(reject(Code::Refused, message));
    };
    let counted = there.get(&place).copied().unwrap_or_default() + change;
    let values = [
        ("product_id", json!(product)),
        ("location_id", json!(place)),
        ("inventory_quantity_auto_apply", json!(counted.to_f64())),
    ];
    let key = format!("correction_{}_{}", e.correction_id.simple(), e.attempt);
    match client.make(QUANT, &key, &values, None).await? {
        Change::Done(_) => Ok(set.ack(SinkOutcome::Acked)),
        Change::Refused(why) => {
            let message = format!("{who}: Odoo refused the count: {why}; settle it there by hand");
            Err(reject(Code::Refused, message))
        }
    }
}

async fn product(client: &Client, sku: &str, who: &str) -> Result<i64, Fault> {
    let fields = ["default_code", "active"];
    let found = client.all("product.product", "default_code", json!([sku]), &fields);
    let mut found: Vec<Row> = found.await?;
    found.retain(|row| rows::flag(row, "active"));
    match &*found {
        [one] => Ok(rows::id(one)),
        found => {
            let message = match found.is_empty() {
                true => format!(
                    "{who}: Odoo has no product with internal reference {sku}; give one that, then redrive"
                ),
                false => format!(
                    "{who}: several products of Odoo have internal reference {sku}; make it one, then redrive"
                ),
            };
            Err(reject(Code::UnknownReference, message))
        }
    }
}

/// What there is of a product, by place: several rows of one place add up.
async fn stock(
    client: &Client,
    product: i64,
    places: &[i64],
) -> Result<BTreeMap<i64, Decimal>, Fault> {
    let fields = ["location_id", "quantity"];
    let mut there: BTreeMap<i64, Decimal> = BTreeMap::new();
    for row in client
        .all(QUANT, "product_id", json!([product]), &fields)
        .await?
    {
        let at = rows::link(&row, "location_id").unwrap_or_default();
        if places.contains(&at) {
            *there.entry(at).or_default() += rows::decimal(&row, "quantity").unwrap_or_default();
        }
    }
    Ok(there)
}

/// The place at which a difference is booked: where the warehouse stores, or else where most of it is.
fn place_for(there: &BTreeMap<i64, Decimal>, main: i64, change: Decimal) -> Option<i64> {
    let can = |units: Decimal| !(units + change).is_negative();
    if can(there.get(&main).copied().unwrap_or_default()) {
        return Some(main);
    }
    let most = there.iter().max_by_key(|(_, units)| **units);
    most.filter(|(_, units)| can(**units)).map(|(at, _)| *at)
}
