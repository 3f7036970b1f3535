//! Pickings: what is reserved, taken, left for another one, and brought back.

use super::super::rows;
use super::acts::{CUSTOMER, Goods, LINE, MOVE, PICKING, Shop};
use super::sales::{SALE, SALE_LINE};
use super::store::Refused;
use crate::connectors::erp::{Stored, Transaction};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) fn moves_of(t: &Transaction, picking: i64) -> Vec<(i64, Stored)> {
    let of = t.rows(MOVE).filter(|(_, m)| m.id("picking_id") == picking);
    of.map(|(id, row)| (id, row.clone())).collect()
}

pub(super) fn lines_of_move(t: &Transaction, moved: i64) -> Vec<i64> {
    let of = t.rows(LINE).filter(|(_, l)| l.id("move_id") == moved);
    of.map(|(id, _)| id).collect()
}

impl Shop {
    /// A picking that is a draft, with its moves.
    pub fn draft_picking(
        &mut self,
        t: &mut Transaction,
        values: Map<String, Value>,
        moves: Vec<Map<String, Value>>,
    ) -> Result<i64, Refused> {
        let kind = values.get("picking_type_id").and_then(Value::as_i64);
        let kind = kind.ok_or_else(|| {
            Refused::user("Missing required value for the field 'Operation Type'")
        })?;
        let picking = self.picking(t, kind, "draft");
        let _ = t.write(PICKING, picking, Value::Object(values));
        for mut moved in moves {
            let units = moved.get("product_uom_qty").cloned().unwrap_or_default();
            let line = moved.get("sale_line_id").and_then(Value::as_i64);
            let usage = moved.get("location_id").and_then(Value::as_i64);
            moved.insert(
                "location_usage".into(),
                json!(usage_of(t, usage.unwrap_or_default())),
            );
            moved.extend([
                ("product_qty".to_owned(), units),
                ("quantity".to_owned(), json!(0.0)),
                ("picked".to_owned(), json!(false)),
                ("state".to_owned(), json!("draft")),
                ("picking_id".to_owned(), json!(picking)),
                ("company_id".to_owned(), json!(1)),
                ("is_inventory".to_owned(), json!(false)),
            ]);
            self.books.create(t, MOVE, Value::Object(moved));
            let sale = line
                .and_then(|id| t.get(SALE_LINE, id))
                .map(|l| l.id("order_id"));
            if let Some(sale) = sale {
                note_picking(t, sale, picking);
            }
        }
        Ok(picking)
    }

    /// Confirms a picking: what it moves is there for it.
    pub fn confirm_picking(&mut self, t: &mut Transaction, picking: i64) -> Result<(), Refused> {
        let state = t.get(PICKING, picking).map(|p| p.text("state").to_owned());
        match state.as_deref() {
            None => return Err(Refused::missing(PICKING, picking)),
            Some("draft") => {}
            Some(_) => return Ok(()),
        }
        for (moved, row) in moves_of(t, picking) {
            let units = row.number("product_uom_qty");
            let _ = t.write(MOVE, moved, json!({"state": "assigned", "quantity": units}));
        }
        let _ = t.write(PICKING, picking, json!({"state": "assigned"}));
        Ok(())
    }

    /// Ends a picking. What was left out goes into another one, unless that has to be asked first.
    pub fn validate(
        &mut self,
        t: &mut Transaction,
        picking: i64,
        skips: bool,
    ) -> Result<Value, Refused> {
        let Some(row) = t.get(PICKING, picking).cloned() else {
            return Err(Refused::missing(PICKING, picking));
        };
        match row.text("state") {
            "done" => return Ok(json!(true)),
            "cancel" => return Err(Refused::user("You cannot validate a cancelled transfer.")),
            _ => {}
        }
        let moves = moves_of(t, picking);
        let some = moves.iter().any(|(_, m)| m.values["picked"] == true);
        let done = |m: &Stored| {
            let counts = !some || m.values["picked"] == true;
            if counts { m.number("quantity") } else { 0.0 }
        };
        if moves.iter().all(|(_, m)| done(m) == 0.0) {
            return Err(Refused::user(
                "You cannot validate a transfer if no quantities are reserved.",
            ));
        }
        let rest: Vec<(Stored, f64)> = moves
            .iter()
            .map(|(_, m)| (m.clone(), m.number("product_uom_qty") - done(m)))
            .filter(|(_, rest)| *rest > 0.0)
            .collect();
        if !rest.is_empty() && !skips {
            return Ok(
                json!({"type": "ir.actions.act_window", "res_model": "stock.backorder.confirmation"}),
            );
        }
        let date = rows::stamp_text(t.started_at.0);
        for (moved, m) in &moves {
            let units = done(m);
            if units == 0.0 {
                // All of it is of the other one now.
                t.delete(MOVE, *moved);
                for line in lines_of_move(t, *moved) {
                    t.delete(LINE, line);
                }
                continue;
            }
            if lines_of_move(t, *moved).is_empty() {
                let goods = Goods {
                    product: m.id("product_id"),
                    from: m.id("location_id"),
                    to: m.id("location_dest_id"),
                    quantity: units,
                    done: false,
                    picking: Some(picking),
                    more: json!({}),
                };
                self.line(t, *moved, &goods);
            }
            let values = json!({
                "state": "done", "picked": true, "quantity": units, "product_uom_qty": units, "product_qty": units,
            });
            let _ = t.write(MOVE, *moved, values);
            for line in lines_of_move(t, *moved) {
                let values = json!({
                    "state": "done", "date": date, "quantity": units, "quantity_product_uom": units,
                });
                let _ = t.write(LINE, line, values);
            }
        }
        let _ = t.write(PICKING, picking, json!({"state": "done"}));
        if !rest.is_empty() {
            self.leave(t, &row, &rest);
        }
        Ok(json!(true))
    }

    /// Another picking for what one has left out, under the same source document.
    fn leave(&mut self, t: &mut Transaction, of: &Stored, rest: &[(Stored, f64)]) {
        let other = self.picking(t, of.id("picking_type_id"), "confirmed");
        let values =
            json!({"origin": of.values.get("origin"), "location_id": of.id("location_id")});
        let _ = t.write(PICKING, other, values);
        for (m, units) in rest {
            let mut values = m.values.clone();
            values.extend([
                ("picking_id".to_owned(), json!(other)),
                ("product_uom_qty".to_owned(), json!(units)),
                ("product_qty".to_owned(), json!(units)),
                ("quantity".to_owned(), json!(0.0)),
                ("picked".to_owned(), json!(false)),
                ("state".to_owned(), json!("confirmed")),
            ]);
            self.books.create(t, MOVE, Value::Object(values));
            if let Some(sale) = t
                .get(SALE_LINE, m.id("sale_line_id"))
                .map(|l| l.id("order_id"))
            {
                note_picking(t, sale, other);
            }
        }
    }

    /// Units of a sale's lines that customers have.
    pub fn delivered(&self, t: &Transaction, sale: i64) -> BTreeMap<i64, f64> {
        let of_sale = |line: i64| {
            let line = t.get(SALE_LINE, line);
            line.is_some_and(|l| l.id("order_id") == sale)
        };
        sent(
            t.rows(MOVE)
                .map(|(_, m)| m)
                .filter(|m| of_sale(m.id("sale_line_id"))),
        )
    }

    /// Lines of sales, with what was delivered of each.
    pub fn lines_with_delivered(&self) -> BTreeMap<i64, Stored> {
        let tables = &self.books.tables;
        let moves = tables.get(MOVE).into_iter().flat_map(BTreeMap::values);
        let sums = sent(moves);
        let mut lines = tables.get(SALE_LINE).cloned().unwrap_or_default();
        for (id, line) in &mut lines {
            let units = sums.get(id).copied().unwrap_or_default();
            line.values.insert("qty_delivered".into(), json!(units));
        }
        lines
    }

    /// The line of a sale is of so many units now: what is still to be delivered of it becomes less.
    pub fn deliver_less(&mut self, t: &mut Transaction, line: i64, units: f64) {
        let moves: Vec<(i64, Stored)> = t
            .rows(MOVE)
            .filter(|(_, m)| m.id("sale_line_id") == line && m.text("state") != "cancel")
            .map(|(id, m)| (id, m.clone()))
            .collect();
        let wanted = |m: &Stored| m.number("product_uom_qty");
        let mut over = moves.iter().map(|(_, m)| wanted(m)).sum::<f64>() - units;
        for (moved, m) in moves.iter().filter(|(_, m)| m.text("state") != "done") {
            let less = wanted(m).min(over).max(0.0);
            let rest = wanted(m) - less;
            over -= less;
            let mut values = json!({"product_uom_qty": rest, "product_qty": rest, "quantity": m.number("quantity").min(rest)});
            if rest == 0.0 {
                values["state"] = json!("cancel");
            }
            let _ = t.write(MOVE, *moved, values);
        }
    }

    /// People open a return of a line: what the wizard of a delivery makes.
    pub fn open_return(
        &mut self,
        t: &mut Transaction,
        sale: i64,
        action: &Value,
    ) -> Result<Value, String> {
        let named = action["line"].as_str().unwrap_or_default();
        let ending = format!("\n#{named}");
        let mut lines = t
            .rows(SALE_LINE)
            .filter(|(_, l)| l.id("order_id") == sale && l.text("name").ends_with(&ending));
        let (line, row) = lines
            .next()
            .map(|(id, l)| (id, l.clone()))
            .ok_or("there is no such line")?;
        drop(lines);
        let wanted = t.get(SALE, sale).map_or(0, |s| s.id("warehouse_id"));
        let w = self.warehouses.values().find(|w| w.row == wanted).copied();
        let w = w.ok_or("there is no warehouse")?;
        let values = json!({
            "picking_type_id": w.receipts, "location_id": CUSTOMER, "origin": "Return of a delivery",
        });
        let moved = json!({
            "product_id": row.id("product_id"), "product_uom_qty": action["quantity"].as_f64(), "location_id": CUSTOMER,
            "location_dest_id": w.stock, "sale_line_id": line, "to_refund": true,
        });
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        let made = self.draft_picking(t, object(values), vec![object(moved)]);
        let picking = made.map_err(|r| r.2)?;
        self.confirm_picking(t, picking).map_err(|r| r.2)?;
        Ok(json!([picking]))
    }

    /// People take goods of a return in: `receive` says that they are there, `do` puts them away.
    pub fn take_back(
        &mut self,
        t: &mut Transaction,
        picking: i64,
        buttons: &Value,
    ) -> Result<Value, String> {
        for button in buttons.as_array().into_iter().flatten() {
            if button == "receive" {
                for (moved, _) in moves_of(t, picking) {
                    t.write(MOVE, moved, json!({"picked": true}))?;
                }
            } else {
                self.validate(t, picking, true).map_err(|r| r.2)?;
            }
        }
        Ok(json!([picking]))
    }
}

/// Units that customers have, by line of a sale.
fn sent<'a>(moves: impl Iterator<Item = &'a Stored>) -> BTreeMap<i64, f64> {
    let mut sums: BTreeMap<i64, f64> = BTreeMap::new();
    for m in moves.filter(|m| m.text("state") == "done") {
        let sign = if m.id("location_dest_id") == CUSTOMER {
            1.0
        } else {
            -1.0
        };
        *sums.entry(m.id("sale_line_id")).or_default() += sign * m.number("quantity");
    }
    sums
}

/// What a location is for.
pub(super) fn usage_of(t: &Transaction, location: i64) -> Option<String> {
    let row = t.get("stock.location", location);
    row.map(|row| row.text("usage").to_owned())
}

fn note_picking(t: &mut Transaction, sale: i64, picking: i64) {
    let mut all = t
        .get(SALE, sale)
        .map(|s| s.ids("picking_ids"))
        .unwrap_or_default();
    if !all.contains(&picking) {
        all.push(picking);
        let _ = t.write(SALE, sale, json!({"picking_ids": all}));
    }
}
