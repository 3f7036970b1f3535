//! The stand-in's orders, as Vendure would show them.

use crate::connectors::fake::FakeAnswer;
use serde_json::{Value, json};

/// First stamp, in seconds since 1970.
const EPOCH: i64 = 1_790_000_000;
const SHIPPING: (i64, i64) = (500, 600);

/// Orders, oldest first.
#[derive(Default)]
pub(super) struct Book {
    pub orders: Vec<Value>,
    /// Seconds since the first stamp.
    clock: i64,
    /// Whether time stands still: what happens then shares a stamp.
    pub frozen: bool,
    ids: i64,
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn push(list: &mut Value, item: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

fn ok(name: &str, value: Value) -> FakeAnswer {
    FakeAnswer::new(200, json!({"data": {name: value}}))
}

fn refusal(name: &str, kind: &str, code: &str) -> FakeAnswer {
    let message = format!("{kind} of the stand-in");
    ok(
        name,
        json!({"__typename": kind, "errorCode": code, "message": message}),
    )
}

/// With 20 % tax, halves up.
fn gross(net: i64) -> i64 {
    (net * 12 + 5).div_euclid(10)
}

fn price(line: &mut Value) {
    let (unit, quantity) = (
        line["unitPrice"].as_i64().unwrap_or_default(),
        line["quantity"].as_i64().unwrap_or_default(),
    );
    let net = unit * quantity;
    for name in ["linePrice", "proratedLinePrice"] {
        line[name] = net.into();
    }
    for name in ["linePriceWithTax", "proratedLinePriceWithTax"] {
        line[name] = gross(net).into();
    }
}

fn total(order: &mut Value) {
    let lines = items(&order["lines"]).iter();
    let lines: i64 = lines.filter_map(|l| l["linePriceWithTax"].as_i64()).sum();
    let shipping = order["shippingLines"][0]["discountedPriceWithTax"].as_i64();
    order["totalWithTax"] = (lines + shipping.unwrap_or_default()).into();
}

impl Book {
    fn id(&mut self) -> String {
        self.ids += 1;
        self.ids.to_string()
    }

    pub fn now(&mut self) -> String {
        if !self.frozen {
            self.clock += 1;
        }
        let now = jiff::Timestamp::from_second(EPOCH + self.clock).unwrap_or_default();
        format!("{now:.3}")
    }

    fn find(&self, name: &str, value: &Value) -> Option<usize> {
        self.orders.iter().position(|o| o[name] == *value)
    }

    fn note(&mut self, at: usize, kind: &str, data: Value) {
        let (id, now) = (self.id(), self.now());
        let entry = json!({"id": id, "type": kind, "createdAt": now, "data": data});
        push(&mut self.orders[at]["history"]["items"], entry);
    }

    fn touch(&mut self, at: usize) {
        self.orders[at]["updatedAt"] = self.now().into();
    }

    /// A customer orders: SKUs with net prices and quantities.
    pub fn place(&mut self, wanted: &[(String, i64, i64)], captured: bool) -> Value {
        let (id, payment) = (self.id(), self.id());
        let now = self.now();
        let lines: Vec<Value> = wanted
            .iter()
            .map(|(sku, unit, quantity)| {
                let mut line = json!({
                    "id": self.id(), "quantity": quantity, "orderPlacedQuantity": quantity,
                    "productVariant": {"sku": sku}, "taxRate": 20,
                    "unitPrice": unit, "unitPriceWithTax": gross(*unit),
                    "proratedUnitPrice": unit, "proratedUnitPriceWithTax": gross(*unit),
                });
                price(&mut line);
                line
            })
            .collect();
        let mut order = json!({
            "id": id, "code": format!("V{id:0>5}"), "state": "PaymentAuthorized", "active": false,
            "updatedAt": now, "orderPlacedAt": now, "currencyCode": "EUR", "customer": {"id": "7"},
            "lines": lines, "surcharges": [], "fulfillments": [], "history": {"items": []},
            "shippingLines": [{"id": self.id(), "price": SHIPPING.0, "priceWithTax": SHIPPING.1,
                "discountedPrice": SHIPPING.0, "discountedPriceWithTax": SHIPPING.1,
                "shippingMethod": {"code": "standard"}}],
        });
        total(&mut order);
        order["payments"] = json!([{
            "id": payment, "createdAt": now, "method": "card", "amount": order["totalWithTax"],
            "state": "Created", "transactionId": format!("tx-{payment}"), "refunds": [],
        }]);
        let code = order["code"].clone();
        self.orders.push(order);
        let at = self.orders.len() - 1;
        self.pay(at, "Created", "Authorized");
        if captured {
            self.capture(&code);
        }
        code
    }

    fn pay(&mut self, at: usize, from: &str, to: &str) {
        let id = self.orders[at]["payments"][0]["id"].clone();
        self.orders[at]["payments"][0]["state"] = to.into();
        let data = json!({"paymentId": id, "from": from, "to": to});
        self.note(at, "ORDER_PAYMENT_TRANSITION", data);
        self.touch(at);
    }

    pub fn capture(&mut self, code: &Value) -> Option<()> {
        let at = self.find("code", code)?;
        self.orders[at]["state"] = "PaymentSettled".into();
        self.pay(at, "Authorized", "Settled");
        Some(())
    }

    pub fn list(&self, options: &Value) -> Value {
        let filter = &options["filter"];
        let passes = |order: &&Value| {
            let is_in = |name: &str| {
                let wanted = items(&filter[name]["in"]);
                wanted.is_empty() || wanted.contains(&order[name])
            };
            let is = |name: &str| {
                let wanted = &filter[name]["eq"];
                wanted.is_null() || *wanted == order[name]
            };
            let after = |name: &str| match filter[name]["after"].as_str() {
                None => true,
                Some(after) => {
                    let [after, stamp] = [Some(after), order[name].as_str()]
                        .map(|t| t.and_then(|t| t.parse::<jiff::Timestamp>().ok()));
                    stamp > after
                }
            };
            let paid = &filter["transactionId"]["eq"];
            let mut payments = items(&order["payments"]).iter();
            is_in("id")
                && is("code")
                && is("active")
                && after("updatedAt")
                && after("orderPlacedAt")
                && (paid.is_null() || payments.any(|p| p["transactionId"] == *paid))
        };
        let mut found: Vec<&Value> = self.orders.iter().filter(passes).collect();
        let by = ["updatedAt", "orderPlacedAt"];
        if let Some(by) = by.iter().find(|by| !options["sort"][**by].is_null()) {
            found.sort_by_key(|o| o[*by].as_str().unwrap_or_default().to_owned());
        }
        let number = |name: &str, default| options[name].as_u64().unwrap_or(default) as usize;
        let (skip, take) = (number("skip", 0), number("take", 100));
        let found = found.into_iter().skip(skip).take(take);
        json!({"items": found.cloned().collect::<Vec<_>>()})
    }

    pub fn fulfil(&mut self, input: &Value) -> FakeAnswer {
        const NAME: &str = "addFulfillmentToOrder";
        let lines = items(&input["lines"]);
        let has = |order: &Value| {
            let known = items(&order["lines"]).iter();
            known
                .clone()
                .any(|l| lines.first().is_some_and(|w| w["orderLineId"] == l["id"]))
        };
        let Some(at) = self.orders.iter().position(has) else {
            return refusal(
                NAME,
                "EmptyOrderLineSelectionError",
                "EMPTY_ORDER_LINE_SELECTION_ERROR",
            );
        };
        for line in lines {
            let open = self.open(at, &line["orderLineId"]);
            if line["quantity"].as_i64().is_none_or(|q| q < 1 || q > open) {
                return refusal(
                    NAME,
                    "ItemsAlreadyFulfilledError",
                    "ITEMS_ALREADY_FULFILLED_ERROR",
                );
            }
        }
        let argument = |name: &str| {
            let all = items(&input["handler"]["arguments"]).iter();
            { all }
                .find(|a| a["name"] == name)
                .map_or(Value::Null, |a| a["value"].clone())
        };
        let fulfilment = json!({
            "id": self.id(), "state": "Pending", "method": argument("method"),
            "trackingCode": argument("trackingCode"), "lines": lines,
        });
        push(&mut self.orders[at]["fulfillments"], fulfilment.clone());
        self.touch(at);
        ok(NAME, fulfilment)
    }

    /// Units of a line that are neither fulfilled nor cancelled.
    fn open(&self, at: usize, line: &Value) -> i64 {
        let order = &self.orders[at];
        let has = items(&order["lines"]).iter().find(|l| l["id"] == *line);
        let has = has.and_then(|l| l["quantity"].as_i64()).unwrap_or_default();
        let fulfilled = items(&order["fulfillments"]).iter();
        let fulfilled = fulfilled.flat_map(|f| items(&f["lines"]));
        let fulfilled = fulfilled.filter(|l| l["orderLineId"] == *line);
        has - fulfilled
            .filter_map(|l| l["quantity"].as_i64())
            .sum::<i64>()
    }

    pub fn step(&mut self, id: &Value, to: &Value) -> FakeAnswer {
        const NAME: &str = "transitionFulfillmentToState";
        let error = || {
            refusal(
                NAME,
                "FulfillmentStateTransitionError",
                "FULFILLMENT_STATE_TRANSITION_ERROR",
            )
        };
        for at in 0..self.orders.len() {
            let paid = self.orders[at]["state"] != "PaymentAuthorized";
            let Some(list) = self.orders[at]["fulfillments"].as_array_mut() else {
                continue;
            };
            let Some(found) = list.iter_mut().find(|f| f["id"] == *id) else {
                continue;
            };
            let from = found["state"].as_str().unwrap_or_default();
            let legal = [("Pending", "Shipped"), ("Shipped", "Delivered")];
            if !paid || !legal.iter().any(|(f, t)| from == *f && *to == **t) {
                return error();
            }
            found["state"] = to.clone();
            let answer = found.clone();
            self.touch(at);
            return ok(NAME, answer);
        }
        error()
    }

    pub fn cancel(&mut self, input: &Value) -> FakeAnswer {
        const NAME: &str = "cancelOrder";
        let Some(at) = self.find("id", &input["orderId"]) else {
            return refusal(NAME, "MultipleOrderError", "MULTIPLE_ORDER_ERROR");
        };
        let lines = items(&input["lines"]);
        for line in lines {
            let open = self.open(at, &line["orderLineId"]);
            if line["quantity"].as_i64().is_none_or(|q| q < 1 || q > open) {
                return refusal(NAME, "QuantityTooGreatError", "QUANTITY_TOO_GREAT_ERROR");
            }
        }
        let order = &mut self.orders[at];
        for line in lines {
            let rows = order["lines"].as_array_mut().into_iter().flatten();
            for row in rows.filter(|r| r["id"] == line["orderLineId"]) {
                let left = row["quantity"].as_i64().zip(line["quantity"].as_i64());
                row["quantity"] = left.map_or(0, |(had, gone)| had - gone).into();
                price(row);
            }
        }
        let shipping = input["cancelShipping"] == true;
        if shipping {
            for name in ["discountedPrice", "discountedPriceWithTax"] {
                order["shippingLines"][0][name] = 0.into();
            }
        }
        if items(&order["lines"]).iter().all(|l| l["quantity"] == 0) {
            order["state"] = "Cancelled".into();
        }
        total(order);
        let data =
            json!({"lines": lines, "reason": input["reason"], "shippingCancelled": shipping});
        self.note(at, "ORDER_CANCELLATION", data);
        self.touch(at);
        ok(NAME, self.orders[at].clone())
    }

    /// Moves no stamp of the order. The stand-in's payment method pays at once.
    pub fn refund(&mut self, input: &Value) -> FakeAnswer {
        const NAME: &str = "refundOrder";
        let is_paid = |o: &Value| o["payments"][0]["id"] == input["paymentId"];
        let Some(at) = self.orders.iter().position(is_paid) else {
            return refusal(
                NAME,
                "PaymentOrderMismatchError",
                "PAYMENT_ORDER_MISMATCH_ERROR",
            );
        };
        let payment = &self.orders[at]["payments"][0];
        let refunded = items(&payment["refunds"]).iter();
        let refunded: i64 = refunded.filter_map(|r| r["total"].as_i64()).sum();
        let rest = payment["amount"].as_i64().unwrap_or_default() - refunded;
        let amount = input["amount"].as_i64().unwrap_or_default();
        if amount < 1 || amount > rest {
            return refusal(NAME, "RefundAmountError", "REFUND_AMOUNT_ERROR");
        }
        let (id, now) = (self.id(), self.now());
        let refund = json!({
            "id": id, "updatedAt": now, "total": amount, "state": "Settled",
            "transactionId": format!("re-{id}"), "reason": input["reason"], "lines": input["lines"],
        });
        push(
            &mut self.orders[at]["payments"][0]["refunds"],
            refund.clone(),
        );
        let data = json!({"refundId": id, "from": "Pending", "to": "Settled"});
        self.note(at, "ORDER_REFUND_TRANSITION", data);
        ok(NAME, refund)
    }

    /// Line ids with their SKUs.
    pub fn line(&self, code: &Value, sku: &Value) -> Option<Value> {
        let order = &self.orders[self.find("code", code)?];
        let lines = items(&order["lines"]).iter();
        let line = { lines }.find(|l| l["productVariant"]["sku"] == *sku)?;
        Some(line["id"].clone())
    }

    pub fn order_of(&self, code: &Value) -> Option<&Value> {
        self.orders.get(self.find("code", code)?)
    }

    /// An order in the words that all stand-ins of storefronts use.
    pub fn show(&self, code: &Value) -> Option<Value> {
        let order = self.order_of(code)?;
        let lines = items(&order["lines"]).iter();
        let lines = lines.map(|l| {
            let now = l["quantity"].as_i64().unwrap_or_default();
            let cancelled = l["orderPlacedQuantity"].as_i64().unwrap_or_default() - now;
            json!({"line": l["id"], "sku": l["productVariant"]["sku"], "quantity": now, "cancelled": cancelled})
        });
        let shipments = items(&order["fulfillments"]).iter().map(|f| {
            let lines = items(&f["lines"]).iter();
            let lines = lines.map(|l| json!({"line": l["orderLineId"], "quantity": l["quantity"]}));
            let state = f["state"].as_str().unwrap_or_default().to_uppercase();
            json!({"state": state, "tracking": f["trackingCode"], "lines": lines.collect::<Vec<_>>()})
        });
        let refunds = items(&order["payments"][0]["refunds"]).iter();
        let refunds = refunds.filter_map(|r| r["total"].as_i64());
        let refunds: Vec<String> = refunds
            .map(|c| format!("{}.{:02}", c / 100, c % 100))
            .collect();
        Some(json!({
            "id": order["id"],
            "lines": lines.collect::<Vec<_>>(),
            "shipments": shipments.collect::<Vec<_>>(),
            "refunds": refunds,
            "cancelled": order["state"] == "Cancelled",
        }))
    }
}
