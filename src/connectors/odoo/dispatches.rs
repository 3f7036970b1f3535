//! Shipments that another system made (a warehouse, a carrier's platform, a supplier who ships), as the
//! deliveries of the order's sale.
//!
//! A delivery that waits is claimed by one write that gives it the other system's name and what has left; then
//! it is done. Odoo makes another one for the rest, under the same name: the first one of a name is the one.
//! Goods leave here when the other system says that they have left; what it says before is its own business.

use super::client::{Change, Client};
use super::documents::{MOVE, PICKING, SALE_LINE, line_name};
use super::tree::Places;
use super::{rows, sales};
use crate::connectors::erp::{self, Row, reject};
use crate::contract::event::{ShipmentEvent, SinkOutcome};
use crate::domain::Decimal;
use crate::pipeline::{Ack, Code, Fault, Stage};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};

/// What stands before the other system's name of a shipment.
const MARK: &str = "shipment/";
/// Steps of a delivery, with some to spare for others who write it too.
const STEPS_MAX: usize = 8;
const FIELDS: &[&str] = &[
    "state",
    "name",
    "origin",
    "location_id",
    "picking_type_code",
];
const MOVE_FIELDS: &[&str] = &["picking_id", "sale_line_id", "product_uom_qty", "state"];

/// Takes goods out of the ERP's stock for the order's sale.
///
/// # Errors
/// `TOO_EARLY` while the order is not there; a reject that names order and line where the ERP has not
/// that much to send, or nothing at that place.
pub(super) async fn take(client: &Client, event: &ShipmentEvent) -> Result<Ack, Fault> {
    let who = format!("shipment {} of order {}", event.shipment_id, event.order_id);
    let mark = format!("{MARK}{}", event.shipment_id);
    let mut changed = false;
    for _ in 0..STEPS_MAX {
        // Read anew: there is another delivery for what one has left out.
        let Some(sale) = sales::find(client, &event.order_id).await? else {
            return Err(sales::too_early(&who));
        };
        let ids = rows::links(&sale, "picking_ids");
        let deliveries = client.all(PICKING, "id", json!(ids), FIELDS).await?;
        let named = |row: &&Row| rows::text(row, "origin") == Some(&mark);
        let Some(own) = deliveries.iter().find(named) else {
            claim(client, event, &deliveries, &mark, &who).await?;
            changed = true;
            continue;
        };
        match rows::text(own, "state").unwrap_or_default() {
            "done" => return Ok(ack(event, own, changed)),
            "cancel" => {
                let message = format!(
                    "{who}: goods have left, and its delivery {} in Odoo is cancelled; mend it there, then redrive",
                    rows::text(own, "name").unwrap_or_default()
                );
                return Err(reject(Code::IllegalTransition, message));
            }
            _ => {
                validate(client, own, &who).await?;
                changed = true;
            }
        }
    }
    let message = format!("{who}: others were writing the same delivery in Odoo");
    Err(Fault::retry(Stage::Write, Code::Unavailable, message))
}

fn ack(event: &ShipmentEvent, delivery: &Row, changed: bool) -> Ack {
    Ack {
        outcome: match changed {
            true => SinkOutcome::Acked,
            false => SinkOutcome::DuplicateAcked,
        },
        version: event.shipment_version,
        external_id: rows::text(delivery, "name").map(str::to_owned),
        digest: None,
        status: None,
    }
}

/// Ends a picking with the quantities that its moves have. What is left out goes into another one.
///
/// # Errors
/// As the calls; a reject when Odoo will not have it.
pub(super) async fn validate(client: &Client, picking: &Row, who: &str) -> Result<(), Fault> {
    let id = rows::id(picking);
    let arguments = json!({"ids": [id], "context": {"skip_backorder": true}});
    let why = match client.change(PICKING, "button_validate", arguments).await? {
        Change::Refused(why) => why,
        Change::Done(Value::Bool(true)) => return Ok(()),
        // It asks something; then nothing has happened.
        Change::Done(_) => "it asks a question first".to_owned(),
    };
    let now = client.all(PICKING, "id", json!([id]), &["state"]).await?;
    if now.first().and_then(|row| rows::text(row, "state")) == Some("done") {
        return Ok(());
    }
    let name = rows::text(picking, "name").unwrap_or_default();
    let message = format!("{who}: Odoo refused to end {name}: {why}; mend it there, then redrive");
    Err(reject(Code::Refused, message))
}

/// A delivery at this place that no other system has given its name.
fn waiting(deliveries: &[Row], is_here: impl Fn(&Row) -> bool) -> Option<&Row> {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    deliveries.iter().find(|&row| {
        // The first one of a name is the other system's, those after it are for what it left out.
        let is_taken = match rows::text(row, "origin") {
            Some(name) if name.starts_with(MARK) => names.insert(name),
            _ => false,
        };
        let open = !matches!(rows::text(row, "state"), Some("done" | "cancel"));
        let leaves = rows::text(row, "picking_type_code") == Some("outgoing");
        !is_taken && open && leaves && is_here(row)
    })
}

/// Makes a delivery that waits the one that has left.
async fn claim(
    client: &Client,
    event: &ShipmentEvent,
    deliveries: &[Row],
    mark: &str,
    who: &str,
) -> Result<(), Fault> {
    let places = Places::load(client).await?;
    let leaves =
        |row: &Row| rows::link(row, "location_id").and_then(|id| places.tree.place(id).ok());
    let is_here = |row: &Row| matches!(leaves(row), Some(erp::Place::Stock { location, .. }) if location == event.node_id);
    let Some(delivery) = waiting(deliveries, is_here) else {
        let lines: Vec<&str> = event.lines.iter().map(|l| &*l.line_id).collect();
        let message = format!(
            "{who}, line {}: the sale has no delivery that waits at {}; mend it in Odoo, then redrive",
            lines.join(", "),
            event.node_id
        );
        return Err(reject(Code::UnknownReference, message));
    };
    let id = rows::id(delivery);
    let moves = client.all(MOVE, "picking_id", json!([id]), MOVE_FIELDS);
    let mut moves = moves.await?;
    moves.retain(|m| !matches!(rows::text(m, "state"), Some("done" | "cancel")));
    let lines: BTreeSet<i64> = moves
        .iter()
        .filter_map(|m| rows::link(m, "sale_line_id"))
        .collect();
    let lines = client.all(SALE_LINE, "id", json!(lines), &["name"]).await?;
    let lines: HashMap<i64, &str> = lines
        .iter()
        .filter_map(|l| Some((rows::id(l), line_name(l)?)))
        .collect();
    let planned = |m: &Row| rows::decimal(m, "product_uom_qty").unwrap_or_default();
    let name = |m: &Row| lines.get(&rows::link(m, "sale_line_id")?).copied();
    let rows_of = moves.iter().map(|m| (name(m), planned(m)));
    let (shares, over) = erp::share_out(erp::left(event), rows_of);
    if let Some((line, more)) = over.first_key_value() {
        let message = format!(
            "{who}, line {line}: {more} more have left than the delivery of the sale in Odoo has; mend it there, then redrive"
        );
        return Err(reject(Code::UnknownReference, message));
    }
    let gone = |(m, sent): (&Row, &Decimal)| {
        let values = json!({"quantity": sent.to_f64(), "picked": sent.is_positive()});
        json!([1, rows::id(m), values])
    };
    let gone: Vec<Value> = moves.iter().zip(&shares).map(gone).collect();
    let mut values = json!({"origin": mark, "move_ids": gone});
    let tracking = event
        .packages
        .iter()
        .filter_map(|p| p.tracking_number.as_deref());
    let tracking: BTreeSet<&str> = tracking.collect();
    if !tracking.is_empty() {
        let numbers: Vec<&str> = tracking.into_iter().collect();
        values["carrier_tracking_ref"] = json!(numbers.join(", "));
    }
    let arguments = json!({"ids": [id], "vals": values});
    match client.change(PICKING, "write", arguments).await? {
        Change::Done(_) => Ok(()),
        Change::Refused(why) => {
            let message = format!("{who}: Odoo refused it: {why}; mend it there, then redrive");
            Err(reject(Code::Refused, message))
        }
    }
}
