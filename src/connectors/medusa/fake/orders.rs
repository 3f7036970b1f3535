//! The stand-in's orders, as Medusa would show them: amounts unrounded, each change a version.

use crate::connectors::fake::{FakeAnswer, FakeRequest};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// First stamp, in milliseconds since 1970.
const EPOCH_MS: i64 = 1_790_000_000_000;

/// Orders, oldest first.
#[derive(Default)]
pub(super) struct Book {
    orders: Vec<Order>,
    /// Milliseconds since the first stamp.
    clock_ms: i64,
    /// Whether time stands still: what happens then shares a stamp.
    pub frozen: bool,
    ids: i64,
}

struct Order {
    now: Value,
    placed: Value,
    changes: Vec<Value>,
    /// The edit that is open: words, and lines with what is left.
    edit: Option<(Value, BTreeMap<String, i64>)>,
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn push(list: &mut Value, item: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

fn refused(message: &str) -> FakeAnswer {
    FakeAnswer::new(400, json!({"type": "not_allowed", "message": message}))
}

fn missing() -> FakeAnswer {
    FakeAnswer::new(404, json!({"type": "not_found", "message": "not found"}))
}

/// An amount of thousandths, as a number and as the exact decimal beside it.
fn put(row: &mut Value, name: &str, thousandths: i64) {
    let text = format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
    let text = text.trim_end_matches('0').trim_end_matches('.').to_owned();
    row[name] = serde_json::from_str(&text).unwrap_or_default();
    row[format!("raw_{name}").as_str()] = json!({"value": text, "precision": 20});
}

fn thousandths(row: &Value, name: &str) -> i64 {
    let text = row[format!("raw_{name}").as_str()]["value"]
        .as_str()
        .unwrap_or_default();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{fraction:0<3}").parse().unwrap_or_default()
}

/// Thousandths of an amount in a body.
fn asked(value: &Value) -> i64 {
    let text = value
        .as_number()
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut row = json!({"raw_amount": {"value": text}});
    let amount = thousandths(&row, "amount");
    row.take();
    amount
}

fn price(line: &mut Value, quantity: i64) {
    let net = thousandths(line, "unit_price") * quantity;
    line["quantity"] = quantity.into();
    put(line, "subtotal", net);
    put(line, "tax_total", net / 5);
    put(line, "total", net + net / 5);
    put(line, "discount_total", 0);
}

impl Book {
    fn id(&mut self, kind: &str) -> String {
        self.ids += 1;
        format!("{kind}_{:05}", self.ids)
    }

    pub fn now(&mut self) -> String {
        if !self.frozen {
            self.clock_ms += 250;
        }
        let now = jiff::Timestamp::from_millisecond(EPOCH_MS + self.clock_ms);
        format!("{:.3}", now.unwrap_or_default())
    }

    fn find(&mut self, id: &Value) -> Option<&mut Order> {
        self.orders.iter_mut().find(|o| o.now["id"] == *id)
    }

    /// A customer orders: SKUs with net prices in thousandths and quantities.
    pub fn place(&mut self, wanted: &[(String, i64, i64)], captured: bool) -> Value {
        let (id, now) = (self.id("order"), self.now());
        let lines = wanted.iter().map(|(sku, unit, quantity)| {
            let mut line =
                json!({"id": self.id("ordli"), "variant_sku": sku, "is_tax_inclusive": false});
            put(&mut line, "unit_price", *unit);
            price(&mut line, *quantity);
            line
        });
        let lines: Vec<Value> = lines.collect();
        let mut shipping = json!({"id": self.id("ordsm"), "shipping_option_id": "so_standard"});
        for (name, amount) in [("subtotal", 5_000), ("tax_total", 1_000), ("total", 6_000)] {
            put(&mut shipping, name, amount);
        }
        let total: i64 = lines.iter().map(|l| thousandths(l, "total")).sum::<i64>() + 6_000;
        let mut payment = json!({
            "id": self.id("pay"), "provider_id": "pp_card", "currency_code": "eur", "created_at": now,
            "updated_at": now, "canceled_at": null, "captured_at": null, "captures": [], "refunds": [],
        });
        put(&mut payment, "amount", total);
        let order = json!({
            "id": id, "created_at": now, "updated_at": now, "currency_code": "eur",
            "customer_id": "cus_7", "sales_channel_id": "sc_1", "version": 1, "canceled_at": null,
            "metadata": null, "items": lines, "shipping_methods": [shipping], "fulfillments": [],
            "payment_collections": [{"id": self.id("pay_col"), "payments": [payment]}],
        });
        let pay = order["payment_collections"][0]["payments"][0]["id"].clone();
        self.orders.push(Order {
            placed: order.clone(),
            now: order,
            changes: Vec::new(),
            edit: None,
        });
        if captured {
            self.capture(&pay);
        }
        id.into()
    }

    fn is_paid_by(order: &Order, payment: &Value) -> bool {
        order.now["payment_collections"][0]["payments"][0]["id"] == *payment
    }

    fn payment(order: &mut Order) -> &mut Value {
        &mut order.now["payment_collections"][0]["payments"][0]
    }

    /// Moves the stamp of the payment only.
    pub fn capture(&mut self, payment: &Value) -> Option<()> {
        let (id, now) = (self.id("capt"), self.now());
        let mut orders = self.orders.iter_mut();
        let order = orders.find(|o| Self::is_paid_by(o, payment))?;
        let payment = Self::payment(order);
        let mut capture = json!({"id": id, "created_at": now});
        put(&mut capture, "amount", thousandths(payment, "amount"));
        push(&mut payment["captures"], capture);
        payment["captured_at"] = now.clone().into();
        payment["updated_at"] = now.into();
        Some(())
    }

    /// The next version of an order.
    fn version(order: &mut Order, now: &str) -> i64 {
        let version = order.now["version"].as_i64().unwrap_or_default() + 1;
        order.now["version"] = version.into();
        order.now["updated_at"] = now.into();
        version
    }

    pub fn answer(&mut self, request: &FakeRequest) -> Option<FakeAnswer> {
        let path = request.path.strip_prefix("/admin/")?;
        let parts: Vec<&str> = path.split('/').collect();
        let body = &request.body;
        Some(match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["orders"]) => self.list(request, "orders"),
            ("GET", ["payments"]) => self.list(request, "payments"),
            ("GET", ["orders", id]) => match self.find(&json!(id)) {
                Some(order) => FakeAnswer::new(200, json!({"order": order.placed})),
                None => missing(),
            },
            ("GET", ["orders", id, "changes"]) => match self.find(&json!(id)) {
                Some(order) => FakeAnswer::new(200, json!({"order_changes": order.changes})),
                None => missing(),
            },
            ("POST", ["orders", id]) => self.describe(&json!(id), body),
            ("POST", ["orders", id, "cancel"]) => self.cancel(&json!(id)),
            ("POST", ["orders", id, "fulfillments"]) => self.fulfil(&json!(id), body),
            ("POST", ["orders", id, "fulfillments", f, what]) => {
                self.move_on(&json!(id), &json!(f), what, body)
            }
            ("POST", ["order-edits"]) => self.begin(body),
            ("POST", ["order-edits", id, "items", "item", line]) => {
                let quantity = body["quantity"].as_i64().unwrap_or(-1);
                match self.find(&json!(id)).and_then(|o| o.edit.as_mut()) {
                    Some((_, left)) if quantity >= 0 => {
                        left.insert((*line).to_owned(), quantity);
                        FakeAnswer::new(200, json!({"order_preview": {}}))
                    }
                    _ => refused("no edit is open"),
                }
            }
            ("POST", ["order-edits", id, "confirm"]) => self.confirm(&json!(id)),
            ("DELETE", ["order-edits", id]) => match self.find(&json!(id)) {
                Some(order) => {
                    order.edit = None;
                    order.changes.retain(|c| c["status"] != "pending");
                    FakeAnswer::new(200, json!({"deleted": true}))
                }
                None => missing(),
            },
            ("POST", ["payments", id, "refund"]) => self.refund(&json!(id), body),
            _ => return None,
        })
    }

    fn list(&self, request: &FakeRequest, what: &str) -> FakeAnswer {
        let one = |name: &str| {
            request
                .query
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v)
        };
        let ids: Vec<&String> = request
            .query
            .iter()
            .filter(|(n, _)| n == "id[]")
            .map(|(_, v)| v)
            .collect();
        let from = one("updated_at[$gte]").and_then(|t| t.parse::<jiff::Timestamp>().ok());
        let number = |name, default| one(name).and_then(|n| n.parse().ok()).unwrap_or(default);
        let mut rows: Vec<Value> = match what {
            "orders" => self.orders.iter().map(|o| o.now.clone()).collect(),
            _ => self
                .orders
                .iter()
                .map(|o| {
                    let mut row = o.now["payment_collections"][0]["payments"][0].clone();
                    row["payment_collection"] = json!({"order": {"id": o.now["id"]}});
                    row
                })
                .collect(),
        };
        rows.retain(|r| {
            let stamp = r["updated_at"]
                .as_str()
                .and_then(|t| t.parse::<jiff::Timestamp>().ok());
            let wanted = ids.is_empty() || ids.iter().any(|id| r["id"] == **id);
            wanted && from.is_none_or(|from| stamp >= Some(from))
        });
        rows.sort_by_key(|r| r["updated_at"].as_str().unwrap_or_default().to_owned());
        let page = rows
            .into_iter()
            .skip(number("offset", 0))
            .take(number("limit", 15));
        FakeAnswer::new(200, json!({what: page.collect::<Vec<_>>()}))
    }

    fn describe(&mut self, id: &Value, body: &Value) -> FakeAnswer {
        let now = self.now();
        let Some(order) = self.find(id) else {
            return missing();
        };
        order.now["metadata"] = body["metadata"].clone();
        order.now["updated_at"] = now.into();
        FakeAnswer::new(200, json!({"order": order.now}))
    }

    pub fn cancel(&mut self, id: &Value) -> FakeAnswer {
        let now = self.now();
        let Some(order) = self.find(id) else {
            return missing();
        };
        if !order.now["canceled_at"].is_null() {
            return refused("Order has been canceled.");
        }
        if !items(&order.now["fulfillments"]).is_empty() {
            return refused("All fulfillments must be canceled before canceling an order");
        }
        Self::version(order, &now);
        order.now["canceled_at"] = now.clone().into();
        let payment = Self::payment(order);
        if payment["captured_at"].is_null() {
            payment["canceled_at"] = now.clone().into();
            payment["updated_at"] = now.into();
        }
        FakeAnswer::new(200, json!({"order": order.now}))
    }

    fn open(order: &Order, line: &Value) -> i64 {
        let has = items(&order.now["items"]).iter().find(|i| i["id"] == *line);
        let has = has.and_then(|i| i["quantity"].as_i64()).unwrap_or_default();
        let sent = items(&order.now["fulfillments"])
            .iter()
            .flat_map(|f| items(&f["items"]));
        let sent = sent.filter(|i| i["line_item_id"] == *line);
        has - sent.filter_map(|i| i["quantity"].as_i64()).sum::<i64>()
    }

    fn fulfil(&mut self, id: &Value, body: &Value) -> FakeAnswer {
        let (fulfilment, now) = (self.id("ful"), self.now());
        let Some(order) = self.find(id) else {
            return missing();
        };
        let lines = items(&body["items"]);
        for line in lines {
            let open = Self::open(order, &line["id"]);
            if line["quantity"].as_i64().is_none_or(|q| q < 1 || q > open) {
                return refused("Quantity to fulfill exceeds the reserved quantity for the item");
            }
        }
        let held = lines
            .iter()
            .map(|l| json!({"line_item_id": l["id"], "quantity": l["quantity"]}));
        let made = json!({
            "id": fulfilment, "metadata": body["metadata"], "location_id": body["location_id"],
            "canceled_at": null, "shipped_at": null, "delivered_at": null, "labels": [],
            "items": held.collect::<Vec<_>>(),
        });
        Self::version(order, &now);
        push(&mut order.now["fulfillments"], made);
        FakeAnswer::new(200, json!({"order": order.now}))
    }

    fn move_on(&mut self, id: &Value, fulfilment: &Value, what: &str, body: &Value) -> FakeAnswer {
        let now = self.now();
        let Some(order) = self.find(id) else {
            return missing();
        };
        let list = order.now["fulfillments"]
            .as_array_mut()
            .into_iter()
            .flatten();
        let Some(found) = { list }.find(|f| f["id"] == *fulfilment) else {
            return missing();
        };
        let stamp = match what {
            "shipments" => "shipped_at",
            _ => "delivered_at",
        };
        if !found[stamp].is_null() {
            return refused("Shipment has already been created");
        }
        found[stamp] = now.clone().into();
        if what == "shipments" {
            found["labels"] = body["labels"].clone();
        }
        Self::version(order, &now);
        FakeAnswer::new(200, json!({"order": order.now}))
    }

    pub fn begin(&mut self, body: &Value) -> FakeAnswer {
        let change = self.id("ordch");
        let Some(order) = self.find(&body["order_id"]) else {
            return missing();
        };
        if order.edit.is_some() {
            return refused("Order already has an existing active order change");
        }
        order.edit = Some((body["description"].clone(), BTreeMap::new()));
        let version = order.now["version"].as_i64().unwrap_or_default() + 1;
        order.changes.push(json!({
            "id": change, "change_type": "edit", "status": "pending", "version": version,
            "description": body["description"], "confirmed_at": null, "actions": [],
        }));
        FakeAnswer::new(200, json!({"order_change": {"id": change}}))
    }

    pub fn confirm(&mut self, id: &Value) -> FakeAnswer {
        let now = self.now();
        let Some(order) = self.find(id) else {
            return missing();
        };
        let Some((_, left)) = order.edit.take() else {
            return refused("no edit is open");
        };
        let mut actions = Vec::new();
        for row in order.now["items"].as_array_mut().into_iter().flatten() {
            let line = row["id"].as_str().unwrap_or_default().to_owned();
            let Some(quantity) = left.get(&line) else {
                continue;
            };
            let difference = quantity - row["quantity"].as_i64().unwrap_or_default();
            price(row, *quantity);
            let details =
                json!({"quantity": quantity, "reference_id": line, "quantity_diff": difference});
            actions.push(json!({"action": "ITEM_UPDATE", "details": details}));
        }
        if let Some(rows) = order.now["items"].as_array_mut() {
            rows.retain(|row| row["quantity"] != 0);
        }
        if let Some(change) = order.changes.iter_mut().find(|c| c["status"] == "pending") {
            change["status"] = "confirmed".into();
            change["confirmed_at"] = now.clone().into();
            change["actions"] = actions.into();
        }
        Self::version(order, &now);
        FakeAnswer::new(200, json!({"order_preview": {}}))
    }

    pub fn refund(&mut self, payment: &Value, body: &Value) -> FakeAnswer {
        let (id, now) = (self.id("ref"), self.now());
        let mut orders = self.orders.iter_mut();
        let Some(order) = orders.find(|o| Self::is_paid_by(o, payment)) else {
            return missing();
        };
        let found = Self::payment(order);
        let sum =
            |rows: &Value| -> i64 { items(rows).iter().map(|r| thousandths(r, "amount")).sum() };
        let rest = sum(&found["captures"]) - sum(&found["refunds"]);
        let amount = asked(&body["amount"]);
        if amount < 1 || amount > rest {
            return refused("You are not allowed to refund more than the captured amount");
        }
        let mut refund = json!({"id": id, "created_at": now, "note": body["note"]});
        put(&mut refund, "amount", amount);
        push(&mut found["refunds"], refund);
        let answer = found.clone();
        Self::version(order, &now);
        FakeAnswer::new(200, json!({"payment": answer}))
    }

    /// `None` when it is nothing about orders; `Some(None)` when it cannot be done.
    pub fn act(&mut self, action: &Value, skus: &[String]) -> Option<Option<Value>> {
        let done = |answer: FakeAnswer| (answer.status == 200).then_some(answer.body);
        if let Some(wanted) = action["place"].as_object() {
            let price = |sku: &str| {
                skus.iter()
                    .position(|s| s == sku)
                    .map(|i| 5_030 + 10 * i as i64)
            };
            let wanted = wanted
                .iter()
                .map(|(sku, n)| Some((sku.clone(), price(sku)?, n.as_i64()?)));
            let wanted: Option<Vec<_>> = wanted.collect();
            let captured = action["captured"] == true;
            return Some(wanted.map(|w| self.place(&w, captured)));
        }
        if let Some(frozen) = action["freeze"].as_bool() {
            self.frozen = frozen;
            return Some(Some(Value::Null));
        }
        let names = ["show", "capture", "refund", "take_out", "cancel_order"];
        let (what, id) = names.iter().find_map(|n| Some((*n, action.get(*n)?)))?;
        let Some(order) = self.find(id) else {
            return Some(None);
        };
        let payment = Self::payment(order)["id"].clone();
        Some(match what {
            "show" => Some(show(order)),
            "capture" => self.capture(&payment).map(|()| Value::Null),
            "refund" => {
                let amount = action["amount"].as_str().unwrap_or_default();
                let amount: Value = serde_json::from_str(amount).unwrap_or_default();
                done(self.refund(&payment, &json!({"amount": amount, "note": "goodwill"})))
            }
            "cancel_order" => done(self.cancel(id)),
            _ => {
                let rows = items(&order.now["items"]).iter();
                let row = { rows }
                    .find(|r| r["variant_sku"] == action["sku"])
                    .cloned();
                row.and_then(|row| {
                    let left = row["quantity"].as_i64()? - action["quantity"].as_i64()?;
                    done(self.begin(&json!({"order_id": id, "description": "asked for"})))?;
                    let (_, lines) = self.find(id)?.edit.as_mut()?;
                    lines.insert(row["id"].as_str()?.to_owned(), left);
                    done(self.confirm(id))
                })
            }
        })
    }
}

/// An order in the words that all stand-ins of storefronts use.
fn show(order: &Order) -> Value {
    let cancelled = !order.now["canceled_at"].is_null();
    let lines = items(&order.placed["items"]).iter().map(|l| {
        let row = items(&order.now["items"])
            .iter()
            .find(|n| n["id"] == l["id"]);
        let now = row
            .filter(|_| !cancelled)
            .and_then(|n| n["quantity"].as_i64())
            .unwrap_or_default();
        let gone = l["quantity"].as_i64().unwrap_or_default() - now;
        json!({"line": l["id"], "sku": l["variant_sku"], "quantity": now, "cancelled": gone})
    });
    let shipments = items(&order.now["fulfillments"]).iter().map(|f| {
        let held = items(&f["items"]).iter();
        let held = held.map(|i| json!({"line": i["line_item_id"], "quantity": i["quantity"]}));
        let state = match (f["shipped_at"].is_null(), f["delivered_at"].is_null()) {
            (_, false) => "DELIVERED",
            (false, _) => "SHIPPED",
            _ => "PENDING",
        };
        let tracking = items(&f["labels"])
            .iter()
            .filter_map(|l| l["tracking_number"].as_str());
        let tracking = tracking.collect::<Vec<_>>().join(", ");
        json!({"state": state, "tracking": tracking, "lines": held.collect::<Vec<_>>()})
    });
    let refunds = items(&order.now["payment_collections"][0]["payments"][0]["refunds"]).iter();
    let refunds = refunds.map(|r| r["raw_amount"]["value"].clone());
    json!({
        "id": order.now["id"],
        "lines": lines.collect::<Vec<_>>(),
        "shipments": shipments.collect::<Vec<_>>(),
        "refunds": refunds.collect::<Vec<_>>(),
        "cancelled": cancelled,
    })
}
