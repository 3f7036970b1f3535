//! What Crossdock does to orders in Vendure: fulfilments, cancellations, refunds.
//!
//! Vendure has no keys for what is done twice, so each is looked for first, by a mark in a text that
//! people read: a fulfilment's method ends with the shipment's id, a refund's reason names the refund
//! and its attempt, and a cancellation cancels only what the history does not hold yet.

use super::client::Client;
use super::orders::{self, Places, list, text};
use crate::connectors::storefront::{Done, mark, marked};
use crate::contract::event::{
    Fulfilment, MilestoneKind, OrderState, OrderStatus, RefundEvent, ShipmentState,
};
use crate::domain::Decimal;
use crate::pipeline::{Code, Fault, Stage};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const FULFIL: &str = "mutation($input:FulfillOrderInput!){addFulfillmentToOrder(input:$input){__typename ... on Fulfillment{id state} ... on ErrorResult{errorCode message}}}";
const MOVE: &str = "mutation($id:ID!,$state:String!){transitionFulfillmentToState(id:$id,state:$state){__typename ... on Fulfillment{id state} ... on FulfillmentStateTransitionError{errorCode message transitionError}}}";
const CANCEL: &str = "mutation($input:CancelOrderInput!){cancelOrder(input:$input){__typename ... on Order{id state} ... on ErrorResult{errorCode message}}}";
const REFUND: &str = "mutation($input:RefundOrderInput!){refundOrder(input:$input){__typename ... on Refund{id state total} ... on ErrorResult{errorCode message}}}";

fn refused(code: Code, message: String) -> Fault {
    Fault::reject(Stage::Write, code, message)
}

/// Whole units, which is what Vendure counts.
fn whole(line: &str, quantity: Decimal) -> Result<i64, Fault> {
    if quantity.units() % Decimal::ONE.units() != 0 {
        let message = format!("{quantity} units of line {line} are no whole number");
        return Err(refused(Code::DataQuality, message));
    }
    Ok(quantity.units() / Decimal::ONE.units())
}

fn units(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn lines(units: &BTreeMap<String, i64>) -> Vec<Value> {
    let of = |(line, quantity): (&String, &i64)| json!({"orderLineId": line, "quantity": quantity});
    units.iter().map(of).collect()
}

impl Client {
    async fn order_with(&self, number: &str) -> Result<Value, Fault> {
        let found = self.orders(json!({"code": {"eq": number}})).await?;
        found.into_iter().next().ok_or_else(|| {
            let message = self.says(&format!(
                "has no order {number}; it was deleted there, or `channel` names another shop"
            ));
            refused(Code::UnknownReference, message)
        })
    }

    /// The result of a mutation, or why the shop refused it.
    fn outcome(&self, data: &Value, name: &str, remedy: &str) -> Result<Value, Fault> {
        let result = &data[name];
        if result["errorCode"].is_string() {
            let detail = result["transitionError"].as_str().unwrap_or_default();
            let message = self.says(&format!(
                "answered {name}: {} {} {detail}; {remedy}",
                text(&result["errorCode"]),
                text(&result["message"])
            ));
            return Err(refused(Code::Refused, message));
        }
        Ok(result.clone())
    }

    pub(super) async fn fulfil(&self, state: &ShipmentState) -> Result<Done, Fault> {
        let mut order = self.order_with(&state.channel_order_id).await?;
        let mut done = Done::found(Some(text(&order["id"])));
        for fulfilment in &state.fulfilments {
            let reached = |kind| fulfilment.milestones.iter().any(|m| m.kind == kind);
            let delivered = reached(MilestoneKind::Delivered);
            if !delivered && !reached(MilestoneKind::Shipped) {
                continue;
            }
            let missing = self.unshown(&order, fulfilment)?;
            if !missing.is_empty() {
                self.add_fulfilment(&order, fulfilment, &missing).await?;
                order = self.order_with(&state.channel_order_id).await?;
                done.changed = true;
            }
            for shown in list(&order["fulfillments"]) {
                if !is_of(shown, &fulfilment.shipment_id) {
                    continue;
                }
                let moves: &[&str] = match (shown["state"].as_str(), delivered) {
                    (Some("Pending"), true) => &["Shipped", "Delivered"],
                    (Some("Pending"), false) => &["Shipped"],
                    (Some("Shipped"), true) => &["Delivered"],
                    _ => &[],
                };
                for to in moves {
                    let variables = json!({"id": shown["id"], "state": to});
                    let data = self.call(MOVE, variables).await?;
                    let remedy =
                        "settle the order's payment there, or mend its state, then redrive";
                    let moved = self.outcome(&data, "transitionFulfillmentToState", remedy);
                    // The payment may be settled in a moment.
                    moved.map_err(|f| Fault::retry(Stage::Write, Code::TooEarly, f.message))?;
                    done.changed = true;
                }
            }
        }
        Ok(done)
    }

    /// Units of a fulfilment that the shop does not show yet, by line.
    fn unshown(
        &self,
        order: &Value,
        fulfilment: &Fulfilment,
    ) -> Result<BTreeMap<String, i64>, Fault> {
        let mut missing: BTreeMap<String, i64> = BTreeMap::new();
        for line in &fulfilment.lines {
            let sent = whole(&line.line_id, line.shipped.max(line.delivered))?;
            *missing.entry(line.line_id.to_string()).or_default() += sent;
        }
        let shown = list(&order["fulfillments"]).iter();
        for shown in shown.filter(|f| is_of(f, &fulfilment.shipment_id)) {
            for line in list(&shown["lines"]) {
                if let Some(units_left) = missing.get_mut(&text(&line["orderLineId"])) {
                    *units_left -= units(&line["quantity"]);
                }
            }
        }
        missing.retain(|_, units| *units > 0);
        let known = |id: &String| list(&order["lines"]).iter().any(|l| l["id"] == **id);
        if let Some(line) = missing.keys().find(|line| !known(line)) {
            let message = self.says(&format!(
                "has no line {line} in order {}; the node must name lines as the shop does",
                text(&order["code"])
            ));
            return Err(refused(Code::UnknownReference, message));
        }
        Ok(missing)
    }

    async fn add_fulfilment(
        &self,
        order: &Value,
        fulfilment: &Fulfilment,
        missing: &BTreeMap<String, i64>,
    ) -> Result<(), Fault> {
        let parcels = &fulfilment.packages;
        let carrier = parcels.iter().find_map(|p| p.carrier.as_deref());
        let tracking: Vec<&str> = parcels
            .iter()
            .filter_map(|p| p.tracking_number.as_deref())
            .collect();
        let argument = |name: &str, value: String| json!({"name": name, "value": value});
        let method = format!(
            "{} {}",
            carrier.unwrap_or("Parcel"),
            named(&fulfilment.shipment_id)
        );
        let handler = json!({
            "code": self.settings.fulfilment_handler,
            "arguments": [argument("method", method), argument("trackingCode", tracking.join(", "))],
        });
        let input = json!({"lines": lines(missing), "handler": handler});
        let data = self.call(FULFIL, json!({"input": input})).await?;
        let remedy = format!(
            "look whether somebody has fulfilled order {} there by hand, or its stock is short, then redrive",
            text(&order["code"])
        );
        self.outcome(&data, "addFulfillmentToOrder", &remedy)?;
        Ok(())
    }

    pub(super) async fn cancel(&self, state: &OrderState) -> Result<Done, Fault> {
        let order = self.order_with(&state.channel_order_id).await?;
        let id = Some(text(&order["id"]));
        let told = orders::cancellations(list(&order["history"]["items"]))?;
        let told = orders::cancelled_units(&told);
        let mut fulfilled: BTreeMap<String, i64> = BTreeMap::new();
        let fulfilments = list(&order["fulfillments"]).iter();
        for line in fulfilments
            .filter(|f| f["state"] != "Cancelled")
            .flat_map(|f| list(&f["lines"]))
        {
            *fulfilled.entry(text(&line["orderLineId"])).or_default() += units(&line["quantity"]);
        }
        let (mut to_cancel, mut left) = (BTreeMap::new(), 0);
        for row in list(&order["lines"]) {
            let line = text(&row["id"]);
            let free = units(&row["quantity"]) - fulfilled.get(&line).copied().unwrap_or_default();
            let known = state.lines.iter().find(|l| *l.line_id == *line);
            let wanted = match (state.status, known) {
                (OrderStatus::Rejected, _) => free,
                (_, Some(l)) => {
                    let before = told.get(&line).copied().unwrap_or_default();
                    whole(&line, (l.cancelled - before).or_zero())?.min(free)
                }
                (_, None) => 0,
            };
            left += units(&row["quantity"]) - wanted.max(0);
            if wanted > 0 {
                to_cancel.insert(line, wanted);
            }
        }
        if to_cancel.is_empty() {
            return Ok(Done::found(id));
        }
        let key = format!("{}@{}", state.order_id, state.state_version);
        let input = json!({
            "orderId": order["id"],
            "lines": lines(&to_cancel),
            "reason": mark(&key),
            "cancelShipping": left == 0,
        });
        let data = self.call(CANCEL, json!({"input": input})).await?;
        let remedy = "cancel there by hand what is left";
        self.outcome(&data, "cancelOrder", remedy)?;
        Ok(Done::now(id))
    }

    pub(super) async fn refund(
        &self,
        refund: &RefundEvent,
        method: &str,
        key: &str,
    ) -> Result<Done, Fault> {
        let (order, payment) = self.paid_with(refund, method).await?;
        let payments = list(&order["payments"]).iter();
        let mut refunds = payments.flat_map(|p| list(&p["refunds"]));
        let is_it = |r: &&Value| r["reason"].as_str().and_then(marked) == Some(key);
        if let Some(found) = refunds.find(is_it) {
            return Ok(Done::found(Some(text(&found["id"]))));
        }
        let places = Places(self.settings.money_places);
        let amount = places.units(refund.amount.amount).filter(|a| *a > 0);
        let Some(amount) = amount.filter(|_| order["currencyCode"] == *refund.amount.currency)
        else {
            let message = self.says(&format!(
                "cannot pay back {} {} in {}",
                refund.amount.amount,
                refund.amount.currency,
                text(&order["currencyCode"])
            ));
            return Err(refused(Code::DataQuality, message));
        };
        let words = refund.reason.as_deref().unwrap_or("refund");
        let input = json!({
            "paymentId": payment["id"],
            "amount": amount,
            "reason": format!("{words} {}", mark(key)),
            "lines": [],
            "shipping": 0,
            "adjustment": 0,
        });
        let data = self.call(REFUND, json!({"input": input})).await?;
        let remedy = "see there what was paid back already, and close the refund or ask for less";
        let result = self.outcome(&data, "refundOrder", remedy)?;
        Ok(Done::now(Some(text(&result["id"]))))
    }

    /// The order and the payment that a refund is to be taken from.
    async fn paid_with(&self, refund: &RefundEvent, method: &str) -> Result<(Value, Value), Fault> {
        for reference in &refund.capture_references {
            let filter = match reference.split_once("/payment/") {
                Some((code, _)) => json!({"code": {"eq": code}}),
                None => json!({"transactionId": {"eq": reference}}),
            };
            for order in self.orders(filter).await? {
                let payments = list(&order["payments"]).iter();
                let is_it = |p: &&Value| {
                    p["method"] == method && orders::payment_reference(&order, p) == **reference
                };
                let payment = { payments }.find(is_it).cloned();
                if let Some(payment) = payment {
                    return Ok((order, payment));
                }
            }
        }
        let message = self.says(&format!(
            "has no payment by {method} with reference {}; pay the refund by hand",
            refund.capture_references.join(", ")
        ));
        Err(refused(Code::UnknownReference, message))
    }
}

/// How a fulfilment's method ends in the shop.
fn named(shipment: &str) -> String {
    format!("({shipment})")
}

fn is_of(shown: &Value, shipment: &str) -> bool {
    let method = shown["method"].as_str().unwrap_or_default();
    shown["state"] != "Cancelled" && method.ends_with(&named(shipment))
}
