//! Shipments that another system made (a warehouse, a carrier's platform, a supplier who ships), as the
//! shipments of the order's sale.
//!
//! A shipment that is done bears the other system's id as its reference: by that it is found again. Goods
//! leave here when the other system says that they have left; what it says before is its own business.

use super::client::{Change, Client, Row, Search};
use super::documents::{SALE_LINE, SHIPMENT, origin};
use super::references::busy;
use super::rows;
use super::sales::{self, SALE, stamp};
use super::tree;
use crate::connectors::erp::{self, reject};
use crate::contract::event::{ShipmentEvent, SinkOutcome};
use crate::pipeline::{Ack, Code, Fault};
use serde_json::json;
use std::collections::HashMap;

const MOVE: &str = "stock.move";
const ROWS_MAX: usize = 1_000;
/// Steps of a shipment, with some to spare for others who write it too.
const STEPS_MAX: usize = 12;
const FIELDS: &[&str] = &["state", "number", "reference", "warehouse", "_timestamp"];

/// Whether goods have left a house where another system ships.
pub(super) fn wants(client: &Client, event: &ShipmentEvent) -> bool {
    client.settings.ships_elsewhere(&event.node_id) && erp::has_left(event)
}

/// Takes goods out of the ERP's stock for the order's sale.
///
/// # Errors
/// `TOO_EARLY` while the order is not there; a reject that names order and line where the ERP has not
/// that much to send, or nothing at that place.
pub(super) async fn take(client: &Client, event: &ShipmentEvent) -> Result<Ack, Fault> {
    let who = format!("shipment {} of order {}", event.shipment_id, event.order_id);
    let Some(sale) = sales::find(client, &event.order_id).await? else {
        return Err(sales::too_early(&who));
    };
    let mut changed = false;
    for _ in 0..STEPS_MAX {
        let shipment = match own(client, &sale, &event.shipment_id).await? {
            Some(shipment) => shipment,
            None => {
                claim(client, event, &sale, &who).await?;
                changed = true;
                continue;
            }
        };
        let step = match rows::text(&shipment, "state") {
            Some("waiting") => "assign_force",
            Some("assigned") => "pick",
            Some("picked") => "pack",
            Some("packed" | "shipped") => "do",
            Some("done") => return Ok(ack(event, &shipment, changed)),
            other => {
                let message = format!(
                    "{who}: goods have left, and its shipment in Tryton is {}; mend it there, then redrive",
                    other.unwrap_or_default()
                );
                return Err(reject(Code::IllegalTransition, message));
            }
        };
        let id = json!([rows::id(&shipment)]);
        match client
            .change(SHIPMENT, step, vec![id], stamp(SHIPMENT, &shipment))
            .await?
        {
            Change::Done(_) => changed = true,
            Change::Conflict => {}
            Change::Refused(why) => {
                let now = own(client, &sale, &event.shipment_id).await?;
                if now.as_ref().and_then(|now| now.get("state")) == shipment.get("state") {
                    let message = format!(
                        "{who}: Tryton refused to {step} it: {why}; mend it there, then redrive"
                    );
                    return Err(reject(Code::Refused, message));
                }
            }
        }
    }
    Err(busy(&who))
}

fn ack(event: &ShipmentEvent, shipment: &Row, changed: bool) -> Ack {
    Ack {
        outcome: match changed {
            true => SinkOutcome::Acked,
            false => SinkOutcome::DuplicateAcked,
        },
        version: event.shipment_version,
        external_id: rows::text(shipment, "number").map(str::to_owned),
        digest: None,
        status: None,
    }
}

async fn shipments(client: &Client, sale: &Row) -> Result<Vec<Row>, Fault> {
    // Read anew: Tryton makes another shipment for what one has left out.
    let now = client.search(Search {
        model: SALE,
        domain: json!([["id", "=", rows::id(sale)]]),
        order: json!([["id", "ASC"]]),
        limit: 1,
        fields: &["shipments"],
    });
    let now = now.await?.into_iter().next().unwrap_or_default();
    let ids = rows::integers(&now, "shipments");
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    client
        .search(Search {
            model: SHIPMENT,
            domain: json!([["id", "in", ids]]),
            order: json!([["id", "ASC"]]),
            limit: ROWS_MAX,
            fields: FIELDS,
        })
        .await
}

/// The shipment that bears the other system's id.
async fn own(client: &Client, sale: &Row, shipment_id: &str) -> Result<Option<Row>, Fault> {
    let found = shipments(client, sale).await?;
    let own = |row: &Row| rows::text(row, "reference") == Some(shipment_id);
    Ok(found.into_iter().find(own))
}

/// Makes a shipment that waits the one that has left: with its quantities, and its name last, so that
/// whatever fails before is done again.
async fn claim(client: &Client, event: &ShipmentEvent, sale: &Row, who: &str) -> Result<(), Fault> {
    let (tree, _) = tree::load(client).await?;
    let node = tree.row_of(&event.node_id);
    let free = |row: &Row| {
        rows::text(row, "state") == Some("waiting")
            && rows::text(row, "reference").is_none()
            && rows::integer(row, "warehouse") == node
    };
    let Some(shipment) = shipments(client, sale).await?.into_iter().find(free) else {
        let lines: Vec<&str> = event.lines.iter().map(|l| &*l.line_id).collect();
        let message = format!(
            "{who}, line {}: the sale has no shipment that waits at {}; mend it in Tryton, then redrive",
            lines.join(", "),
            event.node_id
        );
        return Err(reject(Code::UnknownReference, message));
    };
    set_quantities(client, event, &shipment, who).await?;
    // The moves inside the house follow; also when the quantities were set in a call before.
    let id = json!([rows::id(&shipment)]);
    let waits = client.change(SHIPMENT, "wait", vec![id], json!({})).await?;
    settled(waits, who)?;
    let id = json!([rows::id(&shipment)]);
    let name = json!({"reference": event.shipment_id});
    // Not if somebody else has given it a name since: then the next look finds another.
    let again = own(client, sale, &event.shipment_id).await?;
    if again.is_none() {
        settled(
            client
                .change(SHIPMENT, "write", vec![id, name], json!({}))
                .await?,
            who,
        )?;
    }
    Ok(())
}

fn settled(change: Change, who: &str) -> Result<(), Fault> {
    match change {
        Change::Done(_) => Ok(()),
        Change::Conflict => Err(busy(who)),
        Change::Refused(why) => {
            let message = format!("{who}: Tryton refused it: {why}; mend it there, then redrive");
            Err(reject(Code::Refused, message))
        }
    }
}

/// Sets the moves of a shipment to what has left.
async fn set_quantities(
    client: &Client,
    event: &ShipmentEvent,
    shipment: &Row,
    who: &str,
) -> Result<(), Fault> {
    let moves = client.search(Search {
        model: MOVE,
        domain: json!([[
            "shipment",
            "=",
            format!("{SHIPMENT},{}", rows::id(shipment))
        ]]),
        order: json!([["id", "ASC"]]),
        limit: ROWS_MAX,
        fields: &["origin", "quantity"],
    });
    let moves = moves.await?;
    let lines: Vec<i64> = moves.iter().filter_map(|m| origin(m, SALE_LINE)).collect();
    let names = client.search(Search {
        model: SALE_LINE,
        domain: json!([["id", "in", lines]]),
        order: json!([["id", "ASC"]]),
        limit: ROWS_MAX,
        fields: &["note"],
    });
    let names = names.await?;
    let names: HashMap<i64, &str> = names
        .iter()
        .filter_map(|row| Some((rows::id(row), rows::text(row, "note")?)))
        .collect();
    let planned = |moved: &Row| {
        let planned = moved.get("quantity").and_then(rows::quantity);
        planned.unwrap_or_default()
    };
    let name = |moved: &Row| names.get(&origin(moved, SALE_LINE)?).copied();
    let rows_of = moves.iter().map(|m| (name(m), planned(m)));
    let (shares, over) = erp::share_out(erp::left(event), rows_of);
    if let Some((line, more)) = over.first_key_value() {
        let message = format!(
            "{who}, line {line}: {more} more have left than the shipment of the sale in Tryton has; mend it there, then redrive"
        );
        return Err(reject(Code::UnknownReference, message));
    }
    let less = moves.iter().zip(&shares);
    let less = less.filter(|(moved, sent)| name(moved).is_some() && **sent != planned(moved));
    for (moved, sent) in less {
        let (id, quantity) = (rows::id(moved), sent);
        let values = json!({"quantity": quantity.to_f64()});
        settled(
            client
                .change(MOVE, "write", vec![json!([id]), values], json!({}))
                .await?,
            who,
        )?;
    }
    Ok(())
}
