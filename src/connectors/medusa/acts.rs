//! What Crossdock does to orders in Medusa: fulfilments, cancellations, refunds.
//!
//! Medusa has no keys for what is done twice, so each is looked for first: a fulfilment by the
//! shipment's id in its metadata, a refund by a mark in its note, and a cancellation cancels only what
//! the order's changes do not hold yet.

use super::client::Client;
use super::orders::{self, CANCELLATION, SHIPMENT, Whole, list, text};
use crate::connectors::storefront::{Done, mark, marked};
use crate::contract::event::{
    Fulfilment, MilestoneKind, OrderState, OrderStatus, RefundEvent, ShipmentState,
};
use crate::domain::Decimal;
use crate::pipeline::{Code, Fault, Stage};
use serde_json::{Value, json};
use std::collections::BTreeMap;

type Units = BTreeMap<String, Decimal>;

fn refused(code: Code, message: String) -> Fault {
    Fault::reject(Stage::Write, code, message)
}

/// A number for the API, as it is written.
fn json_number(number: Decimal) -> Value {
    serde_json::from_str(&number.to_string()).unwrap_or(Value::Null)
}

fn units(value: &Value) -> Decimal {
    let number = value.as_number().map(ToString::to_string);
    let number = number.and_then(|n| orders::decimal(&n, Decimal::SCALE));
    number.unwrap_or_default()
}

fn items(units: &Units) -> Vec<Value> {
    let of =
        |(id, quantity): (&String, &Decimal)| json!({"id": id, "quantity": json_number(*quantity)});
    units.iter().map(of).collect()
}

fn is_of(shown: &Value, shipment: &str) -> bool {
    shown["canceled_at"].is_null() && shown["metadata"][SHIPMENT] == *shipment
}

impl Client {
    async fn order_with(&self, number: &str) -> Result<Whole, Fault> {
        let found = self.orders(&[number]).await?;
        found.into_iter().next().ok_or_else(|| {
            let message = self.says(&format!(
                "has no order {number}; it was deleted there, or `channel` names another shop"
            ));
            refused(Code::UnknownReference, message)
        })
    }

    pub(super) async fn fulfil(&self, state: &ShipmentState) -> Result<Done, Fault> {
        let number = &state.channel_order_id;
        let mut order = self.order_with(number).await?.now;
        let mut done = Done::found(Some(number.to_string()));
        for fulfilment in &state.fulfilments {
            let reached = |kind| fulfilment.milestones.iter().any(|m| m.kind == kind);
            let delivered = reached(MilestoneKind::Delivered);
            if !delivered && !reached(MilestoneKind::Shipped) {
                continue;
            }
            let missing = self.unshown(&order, fulfilment)?;
            if !missing.is_empty() {
                let location = self.places().await?.location;
                let body = json!({
                    "items": items(&missing),
                    "location_id": location,
                    "metadata": {SHIPMENT: fulfilment.shipment_id},
                });
                let path = format!("/admin/orders/{number}/fulfillments");
                self.post(&path, &body).await?;
                order = self.order_with(number).await?.now;
                done.changed = true;
            }
            for shown in list(&order["fulfillments"]) {
                if !is_of(shown, &fulfilment.shipment_id) {
                    continue;
                }
                let path = format!("/admin/orders/{number}/fulfillments/{}", text(&shown["id"]));
                if shown["shipped_at"].is_null() {
                    let body = shipment(shown, fulfilment);
                    self.post(&format!("{path}/shipments"), &body).await?;
                    done.changed = true;
                }
                if delivered && shown["delivered_at"].is_null() {
                    let path = format!("{path}/mark-as-delivered");
                    self.post(&path, &json!({})).await?;
                    done.changed = true;
                }
            }
        }
        Ok(done)
    }

    /// Units of a fulfilment that the shop does not show yet, by line.
    fn unshown(&self, order: &Value, fulfilment: &Fulfilment) -> Result<Units, Fault> {
        let mut missing = Units::new();
        for line in &fulfilment.lines {
            let sent = line.shipped.max(line.delivered);
            *missing.entry(line.line_id.to_string()).or_default() += sent;
        }
        let shown = list(&order["fulfillments"]).iter();
        for shown in shown.filter(|f| is_of(f, &fulfilment.shipment_id)) {
            for item in list(&shown["items"]) {
                if let Some(left) = missing.get_mut(&text(&item["line_item_id"])) {
                    *left -= units(&item["quantity"]);
                }
            }
        }
        missing.retain(|_, left| left.is_positive());
        let known = |id: &String| list(&order["items"]).iter().any(|i| i["id"] == **id);
        if let Some(line) = missing.keys().find(|line| !known(line)) {
            let message = self.says(&format!(
                "has no line {line} in order {}; the node must name lines as the shop does",
                text(&order["id"])
            ));
            return Err(refused(Code::UnknownReference, message));
        }
        Ok(missing)
    }

    pub(super) async fn cancel(&self, state: &OrderState) -> Result<Done, Fault> {
        let number = &state.channel_order_id;
        let whole = self.order_with(number).await?;
        let id = Some(number.to_string());
        if !whole.now["canceled_at"].is_null() {
            return Ok(Done::found(id));
        }
        let before = orders::all_cancelled(&whole)?;
        let mut fulfilled = Units::new();
        let live = list(&whole.now["fulfillments"]).iter();
        for item in live
            .filter(|f| f["canceled_at"].is_null())
            .flat_map(|f| list(&f["items"]))
        {
            *fulfilled.entry(text(&item["line_item_id"])).or_default() += units(&item["quantity"]);
        }
        // What is to be left of each line that loses units.
        let (mut left, mut whole_order) = (Units::new(), fulfilled.is_empty());
        for row in list(&whole.now["items"]) {
            let line = text(&row["id"]);
            let now = units(&row["quantity"]);
            let free = now - fulfilled.get(&line).copied().unwrap_or_default();
            let known = state.lines.iter().find(|l| *l.line_id == *line);
            let wanted = match (state.status, known) {
                (OrderStatus::Rejected, _) => free,
                (_, Some(l)) => {
                    let before = before.get(&line).copied().unwrap_or_default();
                    (l.cancelled - before).or_zero().min(free)
                }
                (_, None) => Decimal::ZERO,
            };
            whole_order &= wanted == now;
            if wanted.is_positive() {
                left.insert(line, now - wanted);
            }
        }
        if left.is_empty() {
            return Ok(Done::found(id));
        }
        let key = format!("{}@{}", state.order_id, state.state_version);
        if whole_order {
            let body = json!({"metadata": {CANCELLATION: key}});
            self.post(&format!("/admin/orders/{number}"), &body).await?;
            let path = format!("/admin/orders/{number}/cancel");
            self.post(&path, &json!({})).await?;
            return Ok(Done::now(id));
        }
        self.take_out(&whole.now, &left, &mark(&key)).await?;
        Ok(Done::now(id))
    }

    /// Edits an order so that `left` is left of its lines.
    async fn take_out(&self, order: &Value, left: &Units, words: &str) -> Result<(), Fault> {
        let number = text(&order["id"]);
        let payments = || {
            let collections = list(&order["payment_collections"]).iter();
            collections.flat_map(|c| list(&c["payments"]))
        };
        let open = |p: &Value| p["captured_at"].is_null() && p["canceled_at"].is_null();
        if payments().any(open) {
            let message = self.says(&format!(
                "would give up the authorised payment of order {number} if a part of it was cancelled; capture the payment there, then redrive"
            ));
            return Err(refused(Code::Refused, message));
        }
        // One edit of an order can be open at a time. One of ours was left behind by a call that broke off.
        let changes = self.changes(&number).await?;
        let active = changes.iter().find(|c| {
            c["change_type"] == "edit"
                && ["pending", "requested"].iter().any(|s| c["status"] == **s)
        });
        if let Some(active) = active {
            let ours = active["description"].as_str().and_then(marked).is_some();
            if !ours {
                let message = self.says(&format!(
                    "has an edit of order {number} that somebody has begun; confirm or drop it there, then redrive"
                ));
                return Err(refused(Code::Refused, message));
            }
            self.delete(&format!("/admin/order-edits/{number}")).await?;
        }
        let body = json!({"order_id": number, "description": words});
        self.post("/admin/order-edits", &body).await?;
        for (line, quantity) in left {
            let path = format!("/admin/order-edits/{number}/items/item/{line}");
            let body = json!({"quantity": json_number(*quantity)});
            self.post(&path, &body).await?;
        }
        let path = format!("/admin/order-edits/{number}/confirm");
        self.post(&path, &json!({})).await?;
        Ok(())
    }

    pub(super) async fn refund(
        &self,
        refund: &RefundEvent,
        method: &str,
        key: &str,
    ) -> Result<Done, Fault> {
        let mut references = refund.capture_references.iter();
        let id = references.next().map(|r| orders::payment_of(r));
        let payment = match id {
            Some(id) => self.payment(id).await?,
            None => None,
        };
        let Some(payment) = payment.filter(|p| p["provider_id"] == method) else {
            let message = self.says(&format!(
                "has no payment by {method} with reference {}; pay the refund by hand",
                refund.capture_references.join(", ")
            ));
            return Err(refused(Code::UnknownReference, message));
        };
        let refunds = list(&payment["refunds"]);
        let is_it = |r: &&Value| r["note"].as_str().and_then(marked) == Some(key);
        if let Some(found) = refunds.iter().find(is_it) {
            return Ok(Done::found(Some(text(&found["id"]))));
        }
        let currency = orders::currency(&payment)?;
        if currency.code() != refund.amount.currency {
            let message = self.says(&format!(
                "took {currency}, and cannot pay back {}",
                refund.amount.currency
            ));
            return Err(refused(Code::DataQuality, message));
        }
        // What was captured may have parts of a minor unit: all of it goes back as it came.
        let sum = |rows: &[Value]| -> Decimal { rows.iter().map(orders::exact_amount).sum() };
        let rest = sum(list(&payment["captures"])) - sum(refunds);
        let rounded = orders::round(rest, currency)?;
        let amount = match rounded == refund.amount.amount {
            true => rest,
            false => refund.amount.amount,
        };
        let words = refund.reason.as_deref().unwrap_or("refund");
        let body = json!({"amount": json_number(amount), "note": format!("{words} {}", mark(key))});
        let path = format!("/admin/payments/{}/refund", text(&payment["id"]));
        let answer = self.post(&path, &body).await?;
        let made = list(&answer["payment"]["refunds"]).iter().find(is_it);
        Ok(Done::now(made.map(|r| text(&r["id"]))))
    }
}

/// A shipment of all that a fulfilment holds, with the tracking of its parcels.
fn shipment(shown: &Value, fulfilment: &Fulfilment) -> Value {
    let of = |i: &Value| json!({"id": i["line_item_id"], "quantity": i["quantity"]});
    let items: Vec<Value> = list(&shown["items"]).iter().map(of).collect();
    let label = |p: &crate::contract::event::Package| {
        let url = p.tracking_url.as_deref().unwrap_or("#");
        let number = p.tracking_number.as_deref()?;
        Some(json!({"tracking_number": number, "tracking_url": url, "label_url": url}))
    };
    let labels: Vec<Value> = fulfilment.packages.iter().filter_map(label).collect();
    json!({"items": items, "labels": labels})
}
