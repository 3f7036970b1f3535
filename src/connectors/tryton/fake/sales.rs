//! Sales and what follows from them: shipments, returns, invoices. What a connector does over the API and
//! what people do at their desks are the same steps.

use super::acts::{CUSTOMER, Goods, MOVE, Shop, Transaction};
use super::counts::INVENTORY;
use super::store::{Refused, Stored};
use crate::domain::Decimal;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) const SALE: &str = "sale.sale";
pub(super) const LINE: &str = "sale.line";
pub(super) const SHIPMENT: &str = "stock.shipment.out";
pub(super) const RETURN: &str = "stock.shipment.out.return";
pub(super) const INVOICE: &str = "account.invoice";
pub(super) const INVOICE_LINE: &str = "account.invoice.line";
const ENTRY: &str = "account.move";

/// The states of a sale, and the buttons that lead from them.
const SALE_STEPS: &[(&str, &str, &str)] = &[
    ("quote", "draft", "quotation"),
    ("confirm", "quotation", "processing"),
    ("draft", "quotation", "draft"),
    ("draft", "cancelled", "draft"),
    ("cancel", "draft", "cancelled"),
    ("cancel", "quotation", "cancelled"),
];

const SHIPMENT_STEPS: &[(&str, &str, &str)] = &[
    ("wait", "waiting", "waiting"),
    ("assign_force", "waiting", "assigned"),
    ("pick", "assigned", "picked"),
    ("pack", "picked", "packed"),
    ("ship", "packed", "shipped"),
    ("do", "packed", "done"),
    ("do", "shipped", "done"),
    ("cancel", "waiting", "cancelled"),
    ("cancel", "assigned", "cancelled"),
    ("cancel", "picked", "cancelled"),
    ("cancel", "packed", "cancelled"),
];

const RETURN_STEPS: &[(&str, &str, &str)] = &[
    ("receive", "draft", "received"),
    ("do", "received", "done"),
    ("cancel", "draft", "cancelled"),
];

const INVOICE_STEPS: &[(&str, &str, &str)] = &[
    ("post", "draft", "posted"),
    ("cancel", "draft", "cancelled"),
];

fn steps(model: &str) -> &'static [(&'static str, &'static str, &'static str)] {
    match model {
        SALE => SALE_STEPS,
        SHIPMENT => SHIPMENT_STEPS,
        RETURN => RETURN_STEPS,
        INVOICE => INVOICE_STEPS,
        INVENTORY => &[
            ("confirm", "draft", "done"),
            ("cancel", "draft", "cancelled"),
        ],
        ENTRY => &[("post", "draft", "posted")],
        _ => &[],
    }
}

/// Whether a method changes something.
pub(super) fn changes(model: &str, method: &str) -> bool {
    matches!(method, "create" | "write" | "delete")
        || steps(model).iter().any(|(name, _, _)| *name == method)
}

fn user_error(text: String) -> Refused {
    Refused::Error("UserError".into(), json!([text, "", null]))
}

pub(super) fn text<'a>(row: &'a Stored, field: &str) -> &'a str {
    row.values
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn number(row: &Stored, field: &str) -> f64 {
    row.values
        .get(field)
        .and_then(Value::as_f64)
        .unwrap_or_default()
}

fn amount(value: &Value) -> Decimal {
    let text = value["decimal"].as_str().unwrap_or("0");
    text.parse().unwrap_or_default()
}

fn amount_value(amount: Decimal) -> Value {
    json!({"__class__": "Decimal", "decimal": amount.to_string()})
}

/// Rounded to cents, halves to even.
fn cents(exact: i128, per_cent: i128) -> Decimal {
    let (whole, twice) = (exact.div_euclid(per_cent), exact.rem_euclid(per_cent) * 2);
    let up = twice > per_cent || (twice == per_cent && whole % 2 != 0);
    Decimal::from_units((whole + i128::from(up)) as i64 * 100)
}

/// Quantity × price, as a line of a document costs.
fn line_amount(quantity: f64, price: Decimal) -> Decimal {
    let quantity = (quantity * 10_000.0).round() as i128;
    cents(quantity * i128::from(price.units()), 1_000_000)
}

impl Shop {
    /// A call that changes something, as one transaction.
    pub fn change(
        &mut self,
        model: &str,
        method: &str,
        params: &[Value],
        context: &Value,
    ) -> Result<Value, Refused> {
        let model = super::acts::model(&json!(model)).map_err(|_| Refused::Method)?;
        let mut t = self.at_once();
        let done = self.change_in(&mut t, model, method, params, context);
        // Nothing is written before all is checked, so a refusal has left nothing.
        self.store = t.store;
        done
    }

    fn change_in(
        &mut self,
        t: &mut Transaction,
        model: &'static str,
        method: &str,
        params: &[Value],
        context: &Value,
    ) -> Result<Value, Refused> {
        let ids = || -> Vec<i64> {
            let ids = params.first().and_then(Value::as_array);
            ids.into_iter()
                .flatten()
                .filter_map(Value::as_i64)
                .collect()
        };
        match (method, params) {
            ("create", [Value::Array(all)]) => {
                let mut made = Vec::new();
                for values in all {
                    made.push(self.make(t, model, values)?);
                }
                Ok(json!(made))
            }
            ("write", [_, values]) => {
                for id in ids() {
                    check_stamp(t, model, id, context)?;
                    self.rewrite(t, model, id, values)?;
                }
                Ok(Value::Null)
            }
            ("delete", [_]) => {
                for id in ids() {
                    if t.store
                        .get(model, id)
                        .is_some_and(|r| text(r, "state") == "posted")
                    {
                        return Err(user_error(format!("{model} {id} cannot be deleted.")));
                    }
                    t.store
                        .tables
                        .get_mut(model)
                        .and_then(|rows| rows.remove(&id));
                }
                Ok(Value::Null)
            }
            (_, [_]) => {
                for id in ids() {
                    check_stamp(t, model, id, context)?;
                    self.press(t, model, id, method)?;
                }
                Ok(Value::Null)
            }
            _ => Err(Refused::error("wrong number of arguments")),
        }
    }

    /// Checks values as the server does: fields that there are, rows that there are.
    fn check_values(
        &self,
        t: &Transaction,
        model: &'static str,
        values: &Value,
    ) -> Result<(), Refused> {
        for (name, value) in values.as_object().into_iter().flatten() {
            let field = t.store.field(model, name)?;
            if let (super::store::Field::To(target), Some(id)) = (field, value.as_i64())
                && t.store.get(target, id).is_none()
            {
                return Err(user_error(format!(
                    "The value \"{id}\" for field \"{name}\" in \"{model}\" does not exist."
                )));
            }
        }
        Ok(())
    }

    pub fn make(
        &mut self,
        t: &mut Transaction,
        model: &'static str,
        values: &Value,
    ) -> Result<i64, Refused> {
        self.check_values(t, model, values)?;
        let rows = |t: &Transaction, field: &str, value: &Value| {
            let table = t.store.tables.get(model).into_iter().flatten();
            let mut same = table.filter(|(_, r)| r.values.get(field) == Some(value));
            same.next().is_some()
        };
        match model {
            "party.party" => {
                if rows(t, "code", &values["code"]) {
                    return Err(user_error("The code on party must be unique.".into()));
                }
                let party = json!({"name": values["name"], "code": values["code"], "active": true, "addresses": []});
                let party = self.create(t, model, party);
                let many = values["addresses"][0][1].as_array().map_or(0, Vec::len);
                let addresses: Vec<i64> = (0..many)
                    .map(|_| self.create(t, "party.address", json!({"party": party, "street_unstructured": null, "postal_code": null, "city": null, "country": null})))
                    .collect();
                self.set(t, model, party, json!({"addresses": addresses}));
                Ok(party)
            }
            SALE => {
                if values["party"].is_null() {
                    let why = "A value is required for field \"Party\" in \"Sale\".";
                    return Err(user_error(why.into()));
                }
                if rows(t, "web_id", &values["web_id"]) && !values["web_id"].is_null() {
                    let why = "The web ID on the sale must be unique per shop.";
                    return Err(user_error(why.into()));
                }
                let lines = values["lines"].as_array().cloned().unwrap_or_default();
                check_lines(&lines)?;
                let mut sale = json!({
                    "state": "draft", "company": 1, "number": null, "reference": null, "web_id": null,
                    "web_shop": null, "origin": null, "description": null, "comment": null, "shipment_cost_method": "order",
                    "shipments": [], "shipment_returns": [], "invoices": [],
                });
                if let (Some(sale), Some(values)) = (sale.as_object_mut(), values.as_object()) {
                    sale.extend(values.clone());
                    sale.insert("lines".into(), json!([]));
                }
                let sale = self.create(t, model, sale);
                self.set_lines(t, sale, &lines);
                Ok(sale)
            }
            ENTRY => {
                let mut entry = values.clone();
                entry["state"] = json!("draft");
                entry["company"] = json!(1);
                Ok(self.create(t, model, entry))
            }
            INVENTORY => Ok(self.draft_count(t, values)),
            _ => Ok(self.create(t, model, values.clone())),
        }
    }

    fn rewrite(
        &mut self,
        t: &mut Transaction,
        model: &'static str,
        id: i64,
        values: &Value,
    ) -> Result<(), Refused> {
        self.check_values(t, model, values)?;
        let mut values = values.clone();
        if model == MOVE && values["quantity"].is_number() {
            values["internal_quantity"] = values["quantity"].clone();
        }
        if model == SALE
            && let Some(lines) = values.as_object_mut().and_then(|v| v.remove("lines"))
        {
            let lines = lines.as_array().cloned().unwrap_or_default();
            check_lines(&lines)?;
            self.set_lines(t, id, &lines);
        }
        self.set(t, model, id, values);
        Ok(())
    }

    pub fn set(&mut self, t: &mut Transaction, model: &'static str, id: i64, values: Value) {
        // The row was looked at before.
        let _ = self.change_row(t, model, id, values);
    }

    /// `create`, `write` and `delete` of a sale's lines.
    fn set_lines(&mut self, t: &mut Transaction, sale: i64, commands: &[Value]) {
        for command in commands {
            let rows = command[1].as_array().cloned().unwrap_or_default();
            for row in rows {
                if command[0] == "delete" {
                    let id = row.as_i64().unwrap_or_default();
                    t.store.tables.get_mut(LINE).and_then(|l| l.remove(&id));
                    continue;
                }
                if command[0] == "write" {
                    self.change_line(t, row.as_i64().unwrap_or_default(), &command[2]);
                    continue;
                }
                let taxes = row["taxes"][0][1].clone();
                let line_amount = line_amount(
                    row["quantity"].as_f64().unwrap_or_default(),
                    amount(&row["unit_price"]),
                );
                let mut line = row.clone();
                line["sale"] = json!(sale);
                line["taxes"] = if taxes.is_null() { json!([]) } else { taxes };
                line["amount"] = amount_value(line_amount);
                self.create(t, LINE, line);
            }
        }
        let lines = lines_of(t, sale);
        let (net, tax) = totals(t, lines.values());
        let values = json!({
            "lines": lines.keys().collect::<Vec<_>>(), "untaxed_amount": amount_value(net),
            "tax_amount": amount_value(tax), "total_amount": amount_value(net + tax),
        });
        self.set(t, SALE, sale, values);
    }

    fn change_line(&mut self, t: &mut Transaction, line: i64, values: &Value) {
        let mut values = values.clone();
        if let (Some(quantity), Some(row)) = (values["quantity"].as_f64(), t.store.get(LINE, line))
        {
            values["amount"] =
                amount_value(line_amount(quantity, amount(&row.values["unit_price"])));
        }
        self.set(t, LINE, line, values);
    }

    /// Presses a button.
    pub fn press(
        &mut self,
        t: &mut Transaction,
        model: &'static str,
        id: i64,
        button: &str,
    ) -> Result<(), Refused> {
        let Some(row) = t.store.get(model, id).cloned() else {
            return Err(user_error(format!("{model} {id} does not exist.")));
        };
        let step = steps(model)
            .iter()
            .find(|(name, from, _)| *name == button && *from == text(&row, "state"));
        let Some((_, _, to)) = step else {
            return Err(user_error(format!(
                "You can not call \"{button}\" on \"{id}\" of \"{model}\"."
            )));
        };
        if model == SALE && *to == "quotation" && !row.values["shipment_cost_method"].is_null() {
            let why = "The value \"On Order\" for field \"Shipment Cost Method\" is not valid according to its domain.";
            return Err(user_error(why.into()));
        }
        self.set(t, model, id, json!({"state": to}));
        match (model, *to) {
            (SALE, "quotation") if row.values["number"].is_null() => {
                let next = self.next_id("number of a sale").to_string();
                self.set(t, SALE, id, json!({"number": next}));
            }
            (SALE, "processing") => self.process(t, id, &row),
            (SHIPMENT, "picked") => self.finish_moves(t, &format!("{SHIPMENT},{id}"), true, "done"),
            (SHIPMENT, "waiting") => self.replan(t, id, &row),
            (SHIPMENT, "done") => {
                self.finish_moves(t, &format!("{SHIPMENT},{id}"), false, "done");
                self.ship_rest(t, id);
            }
            (SHIPMENT | RETURN, "cancelled") => {
                for inside in [true, false] {
                    self.finish_moves(t, &format!("{model},{id}"), inside, "cancelled");
                }
            }
            (RETURN, "received") => {
                self.finish_moves(t, &format!("{RETURN},{id}"), false, "done");
                self.put_back(t, id, &row);
            }
            (INVENTORY, "done") => {
                self.book_count(t, id);
            }
            (RETURN, "done") => self.finish_moves(t, &format!("{RETURN},{id}"), true, "done"),
            (INVOICE, "posted") => {
                let next = self.next_id("number of an invoice").to_string();
                let today = self.today();
                self.set(
                    t,
                    INVOICE,
                    id,
                    json!({"number": next, "invoice_date": today}),
                );
            }
            _ => {}
        }
        Ok(())
    }

    /// Shipment or return, and invoice, of a sale that was confirmed.
    fn process(&mut self, t: &mut Transaction, id: i64, sale: &Stored) {
        let warehouse = sale.values["warehouse"].as_i64().unwrap_or_default();
        let lines = lines_of(t, id);
        let (out, back): (Vec<_>, Vec<_>) =
            lines.iter().partition(|(_, l)| number(l, "quantity") > 0.0);
        for (model, field, lines) in [
            (SHIPMENT, "shipments", out),
            (RETURN, "shipment_returns", back),
        ] {
            if lines.is_empty() || sale.values.get("shipment_method") == Some(&json!("manual")) {
                continue;
            }
            let next = self.next_id("number of a shipment").to_string();
            let state = if model == SHIPMENT {
                "waiting"
            } else {
                "draft"
            };
            let shipment = json!({"number": next, "reference": null, "state": state, "company": 1, "warehouse": warehouse, "customer": sale.values["party"]});
            let shipment = self.create(t, model, shipment);
            let reference = json!(format!("{model},{shipment}"));
            for (line, row) in lines {
                self.plan_goods(t, warehouse, *line, row, &reference);
            }
            self.set(t, SALE, id, json!({field: [shipment]}));
        }
        let invoice = self.draft_invoice(t, sale, &lines, LINE, 1.0);
        self.set(t, SALE, id, json!({"invoices": [invoice]}));
    }

    fn plan_goods(
        &mut self,
        t: &mut Transaction,
        warehouse: i64,
        line: i64,
        row: &Stored,
        shipment: &Value,
    ) {
        let zones = self.zones(warehouse);
        let quantity = number(row, "quantity");
        let goods = |from, to, origin: String| Goods {
            product: row.values["product"].as_i64().unwrap_or_default(),
            from,
            to,
            quantity: quantity.abs(),
            state: "draft",
            origin: json!(origin),
            shipment: shipment.clone(),
        };
        let of_line = format!("{LINE},{line}");
        if quantity < 0.0 {
            self.write_move(t, goods(CUSTOMER, zones.input, of_line));
            return;
        }
        let leaves = self.write_move(t, goods(zones.output, CUSTOMER, of_line));
        self.write_move(
            t,
            goods(zones.storage, zones.output, format!("{MOVE},{leaves}")),
        );
    }

    /// The moves inside the house follow those out of it.
    fn replan(&mut self, t: &mut Transaction, id: i64, shipment: &Stored) {
        let zones = self.zones(shipment.values["warehouse"].as_i64().unwrap_or_default());
        let reference = format!("{SHIPMENT},{id}");
        for (id, row) in moves_of(t, &reference) {
            if text(&row, "origin").starts_with(MOVE) {
                t.store
                    .tables
                    .get_mut(MOVE)
                    .and_then(|rows| rows.remove(&id));
            } else if number(&row, "quantity") > 0.0 {
                let goods = Goods {
                    product: row.values["product"].as_i64().unwrap_or_default(),
                    from: zones.storage,
                    to: zones.output,
                    quantity: number(&row, "quantity"),
                    state: "draft",
                    origin: json!(format!("{MOVE},{id}")),
                    shipment: json!(reference),
                };
                self.write_move(t, goods);
            }
        }
    }

    /// What a shipment has left out of a sale goes into another.
    fn ship_rest(&mut self, t: &mut Transaction, id: i64) {
        let table = t.store.tables.get(SALE).into_iter().flatten();
        let has = |row: &Stored| {
            let shipments = row.values["shipments"].as_array();
            shipments.is_some_and(|s| s.contains(&json!(id)))
        };
        let mut sales = table.filter(|(_, row)| has(row));
        let Some((sale, row)) = sales.next().map(|(id, row)| (*id, row.clone())) else {
            return;
        };
        let mut rest: Vec<(i64, Stored)> = Vec::new();
        for (line, mut of) in lines_of(t, sale) {
            let table = t.store.tables.get(MOVE).into_iter().flatten();
            let name = format!("{LINE},{line}");
            let of_line = table.filter(|(_, m)| text(m, "origin") == name);
            let sent: f64 = of_line.map(|(_, m)| number(m, "quantity")).sum();
            let open = number(&of, "quantity") - sent;
            if open > 0.0 {
                of.values.insert("quantity".into(), json!(open));
                rest.push((line, of));
            }
        }
        if rest.is_empty() {
            return;
        }
        let warehouse = row.values["warehouse"].as_i64().unwrap_or_default();
        let next = self.next_id("number of a shipment").to_string();
        let shipment = json!({"number": next, "reference": null, "state": "waiting", "company": 1, "warehouse": warehouse, "customer": row.values["party"]});
        let shipment = self.create(t, SHIPMENT, shipment);
        for (line, of) in &rest {
            let reference = json!(format!("{SHIPMENT},{shipment}"));
            self.plan_goods(t, warehouse, *line, of, &reference);
        }
        let mut shipments = row.values["shipments"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        shipments.push(json!(shipment));
        self.set(t, SALE, sale, json!({"shipments": shipments}));
    }

    /// What came back goes from the input zone to the shelf.
    fn put_back(&mut self, t: &mut Transaction, id: i64, row: &Stored) {
        let zones = self.zones(row.values["warehouse"].as_i64().unwrap_or_default());
        let reference = format!("{RETURN},{id}");
        let came: Vec<(i64, Stored)> = moves_of(t, &reference);
        for (incoming, row) in came {
            let goods = Goods {
                product: row.values["product"].as_i64().unwrap_or_default(),
                from: zones.input,
                to: zones.storage,
                quantity: number(&row, "quantity"),
                state: "draft",
                origin: json!(format!("{MOVE},{incoming}")),
                shipment: json!(reference),
            };
            self.write_move(t, goods);
        }
    }

    /// Ends the moves of a shipment that stay in the house, or those that do not.
    fn finish_moves(&mut self, t: &mut Transaction, shipment: &str, inside: bool, state: &str) {
        let today = self.today();
        for (id, row) in moves_of(t, shipment) {
            let open = matches!(text(&row, "state"), "draft" | "assigned");
            if open && text(&row, "origin").starts_with(MOVE) == inside {
                let date = if state == "done" {
                    today.clone()
                } else {
                    Value::Null
                };
                self.set(t, MOVE, id, json!({"state": state, "effective_date": date}));
            }
        }
    }

    pub fn draft_invoice(
        &mut self,
        t: &mut Transaction,
        sale: &Stored,
        lines: &BTreeMap<i64, Stored>,
        origin: &'static str,
        sign: f64,
    ) -> i64 {
        let (net, tax) = totals(t, lines.values());
        let signed = |a: Decimal| amount_value(if sign < 0.0 { -a } else { a });
        let invoice = json!({
            "state": "draft", "type": "out", "company": 1, "number": null, "party": sale.values["party"],
            "currency": sale.values["currency"], "invoice_date": null, "accounting_date": null,
            "untaxed_amount": signed(net), "tax_amount": signed(tax), "total_amount": signed(net + tax),
        });
        let invoice = self.create(t, INVOICE, invoice);
        for (line, row) in lines {
            let part = json!({
                "invoice": invoice, "type": "line", "origin": format!("{origin},{line}"),
                "quantity": number(row, "quantity") * sign, "amount": signed(amount(&row.values["amount"])),
                "taxes": row.values["taxes"],
            });
            self.create(t, INVOICE_LINE, part);
        }
        invoice
    }
}

/// Refuses to change what the caller has not seen.
fn check_stamp(t: &Transaction, model: &str, id: i64, context: &Value) -> Result<(), Refused> {
    let seen = context["_timestamp"][format!("{model},{id}")].as_str();
    let row = t.store.get(model, id);
    match (seen, row) {
        (Some(seen), Some(row)) if row.timestamp() != seen => Err(Refused::Error(
            "ConcurrencyException".into(),
            json!("Records were modified in the meanwhile"),
        )),
        _ => Ok(()),
    }
}

/// Prices have four places, quantities those of their unit.
fn check_lines(commands: &[Value]) -> Result<(), Refused> {
    let created = commands.iter().filter(|c| c[0] == "create");
    for line in created.flat_map(|c| c[1].as_array().into_iter().flatten()) {
        let price = line["unit_price"]["decimal"].as_str().unwrap_or_default();
        let too_long = price.split_once('.').is_some_and(|(_, f)| f.len() > 4);
        if too_long || price.parse::<Decimal>().is_err() {
            return Err(user_error(format!(
                "The number of digits in the value \"'{price}'\" for field \"Unit Price\" exceeds the limit."
            )));
        }
        let quantity = line["quantity"].as_f64().unwrap_or_default();
        if quantity.fract() != 0.0 {
            return Err(user_error(format!(
                "The number of digits in the value \"'{quantity}'\" for field \"Quantity\" exceeds the limit of \"(None, 0)\"."
            )));
        }
    }
    Ok(())
}

pub(super) fn lines_of(t: &Transaction, sale: i64) -> BTreeMap<i64, Stored> {
    let table = t.store.tables.get(LINE).into_iter().flatten();
    let of_sale = table.filter(|(_, row)| row.values["sale"] == sale);
    of_sale.map(|(id, row)| (*id, row.clone())).collect()
}

fn moves_of(t: &Transaction, shipment: &str) -> Vec<(i64, Stored)> {
    let table = t.store.tables.get(MOVE).into_iter().flatten();
    let of_shipment = table.filter(|(_, row)| text(row, "shipment") == shipment);
    of_shipment.map(|(id, row)| (*id, row.clone())).collect()
}

/// Net and tax of lines; each tax is rounded once for the document.
fn totals<'a>(t: &Transaction, lines: impl Iterator<Item = &'a Stored>) -> (Decimal, Decimal) {
    let (mut net, mut bases) = (Decimal::ZERO, BTreeMap::<i64, Decimal>::new());
    for line in lines {
        let part = amount(&line.values["amount"]);
        net += part;
        let taxes = line.values["taxes"].as_array().into_iter().flatten();
        for tax in taxes.filter_map(Value::as_i64) {
            *bases.entry(tax).or_default() += part;
        }
    }
    let tax = bases.into_iter().map(|(tax, base)| {
        let rate = t
            .store
            .get("account.tax", tax)
            .map(|row| amount(&row.values["rate"]))
            .unwrap_or_default();
        cents(
            i128::from(base.units()) * i128::from(rate.units()),
            1_000_000,
        )
    });
    (net, tax.sum())
}
