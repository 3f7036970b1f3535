//! Sales and what follows from them. What a connector does over the API and what people do at their desks
//! are the same steps.

use super::super::rows;
use super::acts::{CUSTOMER, Goods, LINE, MOVE, PICKING, Shop};
use super::ledger::{self, ENTRY, ENTRY_LINE};
use super::pickings::{lines_of_move, moves_of};
use super::store::{self, Refused};
use crate::connectors::erp::{Stored, Transaction};
use crate::domain::Decimal;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) const SALE: &str = "sale.order";
pub(super) const SALE_LINE: &str = "sale.order.line";
const PARTNER: &str = "res.partner";
/// Where external ids are kept, one for each name.
const EXTERNAL: &str = "ir.model.data";

/// Methods of a sale: their name, the states that they are allowed in, and where they lead.
const STEPS: &[(&str, &[&str], &str)] = &[
    ("action_quotation_sent", &["draft"], "sent"),
    ("action_confirm", &["draft", "sent"], "sale"),
    ("action_draft", &["sent", "cancel"], "draft"),
    ("action_cancel", &["draft", "sent", "sale"], "cancel"),
];

/// Lines that are imported with their row: its model, their field there and their model.
const IMPORTED_LINES: &[(&str, &str, &str)] = &[
    (SALE, "order_line", SALE_LINE),
    (PICKING, "move_ids", MOVE),
    (ENTRY, "line_ids", ENTRY_LINE),
    (ENTRY, "invoice_line_ids", ENTRY_LINE),
];
/// Fields that are numbers.
const NUMBERS: &[&str] = &[
    "product_uom_qty",
    "price_unit",
    "quantity",
    "discount",
    "debit",
    "credit",
    "inventory_quantity_auto_apply",
];

/// Whether a method changes something.
pub(super) fn changes(method: &str) -> bool {
    let others = [
        "load",
        "write",
        "button_validate",
        "action_post",
        "reconcile",
    ];
    others.contains(&method) || STEPS.iter().any(|(name, _, _)| *name == method)
}

pub(super) fn decimal(number: f64) -> Decimal {
    rows::number(&json!(number)).unwrap_or_default()
}

/// Rounded to cents, halves away from zero, as Odoo rounds.
pub(super) fn cents(amount: f64) -> f64 {
    // What a double lacks of a half is noise.
    (amount * 100.0 + amount.signum() * 1e-6).round() / 100.0
}

impl Shop {
    /// A call that changes something, as one transaction.
    pub fn change(
        &mut self,
        model: &'static str,
        method: &str,
        arguments: &Value,
    ) -> Result<Value, Refused> {
        let mut t = self.books.at_once();
        let done = self.change_in(&mut t, model, method, arguments);
        // Nothing is written before all is checked, so a refusal has left nothing.
        self.books.put_back(t);
        done
    }

    fn change_in(
        &mut self,
        t: &mut Transaction,
        model: &'static str,
        method: &str,
        arguments: &Value,
    ) -> Result<Value, Refused> {
        let ids = arguments["ids"].as_array().into_iter().flatten();
        let ids: Vec<i64> = ids.filter_map(Value::as_i64).collect();
        match method {
            "load" => self.load(t, model, arguments),
            "write" => {
                for id in ids {
                    self.rewrite(t, model, id, &arguments["vals"])?;
                }
                Ok(json!(true))
            }
            "action_confirm" if model == PICKING => {
                for id in ids {
                    self.confirm_picking(t, id)?;
                }
                Ok(json!(true))
            }
            "button_validate" if model == PICKING => {
                let skips = arguments["context"]["skip_backorder"] == true;
                let id = ids.first().copied().unwrap_or_default();
                self.validate(t, id, skips)
            }
            "action_post" if model == ENTRY => {
                for id in ids {
                    self.post(t, id)?;
                }
                Ok(json!(false))
            }
            "reconcile" if model == ENTRY_LINE => {
                self.reconcile(t, &ids)?;
                Ok(Value::Null)
            }
            _ if model == SALE => {
                for id in ids {
                    self.press(t, id, method)?;
                }
                Ok(json!(true))
            }
            _ => Err(Refused::not_found(format!(
                "the method '{model}.{method}' does not exist"
            ))),
        }
    }

    /// An import of one row and its lines; what has an external id already stays as it is.
    fn load(
        &mut self,
        t: &mut Transaction,
        model: &'static str,
        arguments: &Value,
    ) -> Result<Value, Refused> {
        let context = &arguments["context"];
        if context["mode"] != "update" || context["noupdate"] != true {
            return Err(Refused::user(
                "the stand-in imports nothing over what is there",
            ));
        }
        let names = arguments["fields"].as_array().into_iter().flatten();
        let names: Vec<&str> = names.filter_map(Value::as_str).collect();
        let table = arguments["data"].as_array().cloned().unwrap_or_default();
        let key = format!(
            "{}.{}",
            context["module"].as_str().unwrap_or_default(),
            table[0][0].as_str().unwrap_or_default()
        );
        let mut known = t.rows(EXTERNAL).filter(|(_, row)| row.text("name") == key);
        if let Some((_, row)) = known.next() {
            return Ok(json!({"ids": [row.id("res_id")], "messages": []}));
        }
        drop(known);
        let (mut values, mut lines) = (Map::new(), Vec::new());
        for (at, cells) in table.iter().enumerate() {
            let mut line = Map::new();
            for (name, cell) in names
                .iter()
                .zip(cells.as_array().into_iter().flatten())
                .skip(1)
            {
                let child = name.split_once('/').and_then(|(of, field)| {
                    let mut known = IMPORTED_LINES.iter();
                    let found = known.find(|(m, name, _)| *m == model && *name == of);
                    found.map(|(_, _, lines)| (*lines, field))
                });
                match child {
                    Some((lines, field)) => {
                        let (field, value) = imported(lines, field, cell)?;
                        line.insert(field, value);
                    }
                    _ if at == 0 => {
                        let (field, value) = imported(model, name, cell)?;
                        values.insert(field, value);
                    }
                    _ => {}
                }
            }
            if !line.is_empty() {
                lines.push(line);
            }
        }
        let id = match model {
            SALE => {
                let lines: Vec<Value> = lines.into_iter().map(Value::Object).collect();
                self.sale(t, values, &lines)?
            }
            PICKING => self.draft_picking(t, values, lines)?,
            ENTRY => self.entry(t, values, lines),
            "stock.quant" if context["inventory_mode"] != true => {
                return Err(Refused::user("the stand-in makes no second row of a place"));
            }
            "stock.quant" => {
                let id = |name: &str| values.get(name).and_then(Value::as_i64).unwrap_or_default();
                let units = values
                    .get("inventory_quantity_auto_apply")
                    .and_then(Value::as_f64);
                self.count(
                    t,
                    id("product_id"),
                    id("location_id"),
                    units.unwrap_or_default(),
                )
            }
            _ => {
                values.insert("active".into(), json!(true));
                self.books.create(t, model, Value::Object(values))
            }
        };
        self.books
            .create(t, EXTERNAL, json!({"name": key, "res_id": id}));
        Ok(json!({"ids": [id], "messages": []}))
    }

    fn sale(
        &mut self,
        t: &mut Transaction,
        values: Map<String, Value>,
        lines: &[Value],
    ) -> Result<i64, Refused> {
        if t.get(
            PARTNER,
            values
                .get("partner_id")
                .and_then(Value::as_i64)
                .unwrap_or_default(),
        )
        .is_none()
        {
            return Err(Refused::user(
                "Missing required value for the field 'Customer'",
            ));
        }
        let number = self.books.next_id("number of a sale");
        let mut sale = values;
        sale.insert("name".into(), json!(format!("S{number:05}")));
        sale.insert("state".into(), json!("draft"));
        sale.insert("company_id".into(), json!(1));
        sale.insert("currency_id".into(), json!(1));
        let id = self.books.create(t, SALE, Value::Object(sale));
        self.set_lines(t, id, lines);
        Ok(id)
    }

    fn set_lines(&mut self, t: &mut Transaction, sale: i64, lines: &[Value]) {
        for line in lines {
            let mut line = line.clone();
            line["order_id"] = json!(sale);
            line["product_uom_id"] = json!(1);
            self.books.create(t, SALE_LINE, line);
        }
        let (mut net, mut tax) = (0.0, 0.0);
        for (_, line) in lines_of(t, sale) {
            let part = cents(line.number("product_uom_qty") * line.number("price_unit"));
            net += part;
            for id in line.ids("tax_ids") {
                tax += part * t.get("account.tax", id).map_or(0.0, |t| t.number("amount")) / 100.0;
            }
        }
        let (net, tax) = (cents(net), cents(tax));
        let values =
            json!({"amount_untaxed": net, "amount_tax": tax, "amount_total": cents(net + tax)});
        // The row is there.
        let _ = t.write(SALE, sale, values);
    }

    fn rewrite(
        &mut self,
        t: &mut Transaction,
        model: &'static str,
        id: i64,
        values: &Value,
    ) -> Result<(), Refused> {
        let mut values = values.as_object().cloned().unwrap_or_default();
        let lines = values.remove("order_line");
        let moves = values.remove("move_ids").unwrap_or_default();
        for command in moves.as_array().into_iter().flatten() {
            let moved = command[1].as_i64().unwrap_or_default();
            self.rewrite(t, MOVE, moved, &command[2])?;
        }
        for name in values.keys() {
            store::field(model, name)?;
        }
        t.write(model, id, Value::Object(values))
            .map_err(Refused::user)?;
        let Some(commands) = lines else {
            return Ok(());
        };
        let mut made = Vec::new();
        for command in commands.as_array().into_iter().flatten() {
            match command[0].as_i64() {
                Some(1) => {
                    let line = command[1].as_i64().unwrap_or_default();
                    self.rewrite_line(t, id, line, &command[2])?;
                }
                Some(2) => t.delete(SALE_LINE, command[1].as_i64().unwrap_or_default()),
                _ => {
                    let mut line = command[2].clone();
                    line["tax_ids"] = line["tax_ids"][0][2].clone();
                    made.push(line);
                }
            }
        }
        self.set_lines(t, id, &made);
        Ok(())
    }

    fn rewrite_line(
        &mut self,
        t: &mut Transaction,
        sale: i64,
        line: i64,
        values: &Value,
    ) -> Result<(), Refused> {
        let units = values["product_uom_qty"].as_f64();
        let delivered = self.delivered(t, sale);
        if units.is_some_and(|u| delivered.get(&line).is_some_and(|d| u < *d)) {
            return Err(Refused::user(
                "The ordered quantity of a sale order line cannot be decreased below the amount already delivered.",
            ));
        }
        let mut values = values.clone();
        if let (Some(_), Value::Null) = (units, &values["price_unit"]) {
            // The list price of its product, whatever was agreed.
            let product = t.get(SALE_LINE, line).map_or(0, |l| l.id("product_id"));
            let list = t
                .get("product.product", product)
                .map(|p| p.number("lst_price"));
            values["price_unit"] = json!(list);
        }
        self.rewrite(t, SALE_LINE, line, &values)?;
        if let Some(units) = units {
            self.deliver_less(t, line, units);
        }
        Ok(())
    }

    fn press(&mut self, t: &mut Transaction, id: i64, method: &str) -> Result<(), Refused> {
        let Some(row) = t.get(SALE, id).cloned() else {
            return Err(Refused::missing(SALE, id));
        };
        let step = STEPS.iter().find(|(name, _, _)| *name == method);
        let Some((_, from, to)) = step else {
            return Err(Refused::not_found(format!(
                "the method 'sale.order.{method}' does not exist"
            )));
        };
        if !from.contains(&row.text("state")) {
            return Err(Refused::user(
                "Some orders are not in a state requiring that.",
            ));
        }
        let _ = t.write(SALE, id, json!({"state": to}));
        match *to {
            "sale" => self.deliver(t, id, &row),
            "cancel" => {
                for picking in row.ids("picking_ids") {
                    let _ = t.write(PICKING, picking, json!({"state": "cancel"}));
                    for (moved, _) in moves_of(t, picking) {
                        let _ = t.write(MOVE, moved, json!({"state": "cancel"}));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The delivery of a sale that was confirmed; nothing is reserved yet.
    fn deliver(&mut self, t: &mut Transaction, sale: i64, row: &Stored) {
        let wanted = row.id("warehouse_id");
        let Some(w) = self.warehouses.values().find(|w| w.row == wanted).copied() else {
            return;
        };
        let picking = self.picking(t, w.deliveries, "confirmed");
        let _ = t.write(PICKING, picking, json!({"location_id": w.stock}));
        for (line, row) in lines_of(t, sale) {
            let service = t.get("product.product", row.id("product_id"));
            if service.is_some_and(|p| p.text("type") == "service") {
                continue;
            }
            let quantity = row.number("product_uom_qty");
            let moved = json!({
                "product_id": row.id("product_id"), "product_uom": 1, "product_uom_qty": quantity, "product_qty": quantity,
                "quantity": 0.0, "picked": false, "state": "confirmed", "location_id": w.stock, "location_dest_id": CUSTOMER,
                "picking_id": picking, "sale_line_id": line, "company_id": 1, "is_inventory": false,
                "location_usage": "internal",
            });
            self.books.create(t, MOVE, moved);
        }
        let _ = t.write(SALE, sale, json!({"picking_ids": [picking]}));
    }

    /// Acts of people on the sale of an order; see the stand-in's documentation.
    pub fn act_on_sale(
        &mut self,
        t: &mut Transaction,
        verb: &str,
        action: &Value,
    ) -> Result<Value, String> {
        if verb == "sales" {
            let of = |row: &Stored| row.values.get("client_order_ref") == Some(&action["sales"]);
            let found = t.rows(SALE).filter(|(_, row)| of(row));
            return Ok(found.map(|(id, row)| shown(t, id, row)).collect());
        }
        if verb == "entries" {
            return Ok(ledger::entries(t));
        }
        if verb == "credited" {
            return Ok(ledger::credited(t, &action["credited"]));
        }
        if verb == "take_back" {
            return self.take_back(
                t,
                action[verb].as_i64().unwrap_or_default(),
                &action["buttons"],
            );
        }
        if let ("bill", Some(picking)) = (verb, action[verb].as_i64()) {
            let line = moves_of(t, picking)
                .first()
                .map(|(_, m)| m.id("sale_line_id"));
            let sale = line
                .and_then(|id| t.get(SALE_LINE, id))
                .map(|l| l.id("order_id"));
            return self.bill(t, sale.unwrap_or_default());
        }
        let order = action[verb].as_str().unwrap_or_default();
        let found = {
            let mut of_order = t.rows(SALE).filter(|(_, row)| row.text("origin") == order);
            of_order.next().map(|(id, row)| (id, row.clone()))
        };
        let (id, sale) = found.ok_or_else(|| format!("there is no sale of {order}"))?;
        match verb {
            "bill" => return self.bill(t, id),
            "credit" => return self.reverse(t, id),
            "return_of" => return self.open_return(t, id, action),
            _ => {}
        }
        if verb == "press" {
            let button = action["button"].as_str().unwrap_or_default();
            let pressed = self.press(t, id, &format!("action_{button}"));
            pressed.map_err(|r| r.2)?;
            return Ok(json!([id]));
        }
        for picking in sale.ids("picking_ids") {
            if !action["reference"].is_null() {
                t.write(
                    PICKING,
                    picking,
                    json!({"carrier_tracking_ref": action["reference"]}),
                )?;
            }
            for button in action["buttons"].as_array().into_iter().flatten() {
                self.step(t, picking, button.as_str().unwrap_or_default())?;
            }
        }
        Ok(json!([id]))
    }

    /// A step of a delivery: goods are reserved, picked, packed, and leave.
    fn step(&mut self, t: &mut Transaction, picking: i64, button: &str) -> Result<(), String> {
        let state = t.get(PICKING, picking).map(|p| p.text("state").to_owned());
        let expected = if button == "assign_force" {
            "confirmed"
        } else {
            "assigned"
        };
        if state.as_deref() != Some(expected) {
            return Err(format!("{button}: picking {picking} is {state:?}"));
        }
        let date = rows::stamp_text(t.started_at.0);
        for (moved, row) in moves_of(t, picking) {
            match button {
                "assign_force" => {
                    t.write(
                        MOVE,
                        moved,
                        json!({"state": "assigned", "quantity": row.number("product_uom_qty")}),
                    )?;
                    let goods = Goods {
                        product: row.id("product_id"),
                        from: row.id("location_id"),
                        to: CUSTOMER,
                        quantity: row.number("product_uom_qty"),
                        done: false,
                        picking: Some(picking),
                        more: json!({}),
                    };
                    self.line(t, moved, &goods);
                }
                "pick" => t.write(MOVE, moved, json!({"picked": true}))?,
                "pack" => {
                    let package = self
                        .books
                        .create(t, "stock.package", json!({"name": "PACK1"}));
                    for line in lines_of_move(t, moved) {
                        t.write(LINE, line, json!({"result_package_id": package}))?;
                    }
                }
                _ => {
                    t.write(MOVE, moved, json!({"state": "done", "picked": true}))?;
                    for line in lines_of_move(t, moved) {
                        t.write(LINE, line, json!({"state": "done", "date": date}))?;
                    }
                }
            }
        }
        match button {
            "assign_force" => t.write(PICKING, picking, json!({"state": "assigned"})),
            "do" => t.write(PICKING, picking, json!({"state": "done"})),
            _ => Ok(()),
        }
    }
}

/// A cell of an import: related rows by id, numbers as text, nothing as `false`.
fn imported(model: &str, name: &str, cell: &Value) -> Result<(String, Value), Refused> {
    let name = name.strip_suffix("/.id").unwrap_or(name);
    let field = store::field(model, name)?;
    let text = cell.as_str().unwrap_or_default();
    let value = match field {
        store::Field::Many => text
            .split(',')
            .filter_map(|id| id.parse::<i64>().ok())
            .collect(),
        store::Field::To(_) => json!(text.parse::<i64>().ok()),
        store::Field::Plain => match text.parse::<f64>() {
            Ok(number) if NUMBERS.contains(&name) => json!(number),
            _ if text.is_empty() => Value::Null,
            _ => json!(text),
        },
    };
    Ok((name.to_owned(), value))
}

/// A sale in the words that the suites of orders have for all ERPs.
fn shown(t: &Transaction, id: i64, row: &Stored) -> Value {
    let state = match row.text("state") {
        "sent" => "quotation",
        "sale" => "processing",
        "cancel" => "cancelled",
        other => other,
    };
    let amount = |field: &str| json!({"decimal": decimal(row.number(field)).to_string()});
    let lines: Vec<_> = lines_of(t, id).into_values().map(|l| l.values).collect();
    let sale = json!({
        "state": state, "shipments": row.ids("picking_ids"), "untaxed_amount": amount("amount_untaxed"),
        "tax_amount": amount("amount_tax"), "total_amount": amount("amount_total"),
    });
    json!({"id": id, "sale": sale, "lines": lines})
}

pub(super) fn lines_of(t: &Transaction, sale: i64) -> BTreeMap<i64, Stored> {
    let of = t.rows(SALE_LINE).filter(|(_, l)| l.id("order_id") == sale);
    of.map(|(id, row)| (id, row.clone())).collect()
}
