//! Sales and what follows from them. What a connector does over the API and what people do at their desks
//! are the same steps.

use super::super::rows;
use super::acts::{CUSTOMER, Goods, LINE, MOVE, PICKING, Shop};
use super::store::{self, Refused};
use crate::connectors::erp::{Stored, Transaction};
use crate::domain::Decimal;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) const SALE: &str = "sale.order";
const SALE_LINE: &str = "sale.order.line";
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

/// Whether a method changes something.
pub(super) fn changes(method: &str) -> bool {
    matches!(method, "load" | "write") || STEPS.iter().any(|(name, _, _)| *name == method)
}

fn decimal(number: f64) -> Decimal {
    rows::number(&json!(number)).unwrap_or_default()
}

/// Rounded to cents, halves away from zero, as Odoo rounds.
fn cents(amount: f64) -> f64 {
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
            _ => {
                for id in ids {
                    self.press(t, id, method)?;
                }
                Ok(json!(true))
            }
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
                match name.split_once('/') {
                    Some(("order_line", field)) => {
                        let (field, value) = imported(SALE_LINE, field, cell)?;
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
                lines.push(Value::Object(line));
            }
        }
        let id = match model {
            SALE => self.sale(t, values, &lines)?,
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

    fn press(&mut self, t: &mut Transaction, id: i64, method: &str) -> Result<(), Refused> {
        let Some(row) = t.get(SALE, id).cloned() else {
            return Err(Refused(
                404,
                "odoo.exceptions.MissingError",
                format!("no sale {id}"),
            ));
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
        let order = action[verb].as_str().unwrap_or_default();
        let found = {
            let mut of_order = t.rows(SALE).filter(|(_, row)| row.text("origin") == order);
            of_order.next().map(|(id, row)| (id, row.clone()))
        };
        let (id, sale) = found.ok_or_else(|| format!("there is no sale of {order}"))?;
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
            Ok(number) if matches!(name, "product_uom_qty" | "price_unit") => json!(number),
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

fn lines_of(t: &Transaction, sale: i64) -> BTreeMap<i64, Stored> {
    let of = t.rows(SALE_LINE).filter(|(_, l)| l.id("order_id") == sale);
    of.map(|(id, row)| (id, row.clone())).collect()
}

fn moves_of(t: &Transaction, picking: i64) -> Vec<(i64, Stored)> {
    let of = t.rows(MOVE).filter(|(_, m)| m.id("picking_id") == picking);
    of.map(|(id, row)| (id, row.clone())).collect()
}

fn lines_of_move(t: &Transaction, moved: i64) -> Vec<i64> {
    let of = t.rows(LINE).filter(|(_, l)| l.id("move_id") == moved);
    of.map(|(id, _)| id).collect()
}
