//! What people do at their desks with the sale of an order.

use super::acts::{Shop, Transaction};
use super::sales::{INVOICE, INVOICE_LINE, RETURN, SALE, SHIPMENT, lines_of, text};
use super::store::{Refused, Stored};
use serde_json::{Value, json};
use std::collections::BTreeMap;

impl Shop {
    /// Acts of people on the sale of an order; see the stand-in's documentation.
    pub fn act_on_sale(
        &mut self,
        t: &mut Transaction,
        verb: &str,
        action: &Value,
    ) -> Result<Value, String> {
        let refused = |r: Refused| match r {
            Refused::Method => "no such method".to_owned(),
            Refused::Error(kind, detail) => format!("{kind}: {}", detail[0]),
        };
        if verb == "sales" {
            let of = |row: &Stored| row.values.get("reference") == Some(&action["sales"]);
            let found = t.store.tables.get(SALE).into_iter().flatten();
            let found = found.filter(|(_, row)| of(row));
            let shown = found.map(|(id, row)| {
                let lines: Vec<_> = lines_of(t, *id).into_values().map(|l| l.values).collect();
                json!({"id": id, "sale": row.values, "lines": lines})
            });
            return Ok(shown.collect());
        }
        if verb == "credited" {
            // Each sale that takes goods back has a credit note of its own.
            let back = |row: &Stored| {
                row.values.get("reference") == Some(&action["credited"])
                    && !text(row, "origin").is_empty()
            };
            let found = t.store.tables.get(SALE).into_iter().flatten();
            let total = |(_, row): (&i64, &Stored)| {
                let total = row.values["total_amount"]["decimal"].as_str();
                json!(total.unwrap_or_default().trim_start_matches('-'))
            };
            return Ok(found.filter(|(_, row)| back(row)).map(total).collect());
        }
        let id = match &action[verb] {
            Value::String(order) => {
                let found = t.store.tables.get(SALE).into_iter().flatten();
                let mut found = found.filter(|(_, r)| text(r, "web_id") == *order);
                found.next().map(|(id, _)| *id)
            }
            other => other.as_i64(),
        };
        let sale = id.and_then(|id| Some((id, t.store.get(SALE, id)?.clone())));
        let (id, sale) = sale.ok_or_else(|| format!("there is no sale {}", action[verb]))?;
        let ids = |field: &str| -> Vec<i64> {
            let list = sale.values[field].as_array().map_or(&[][..], Vec::as_slice);
            list.iter().filter_map(Value::as_i64).collect()
        };
        match verb {
            "press" => {
                let button = action["button"].as_str().unwrap_or_default();
                self.press(t, SALE, id, button).map_err(refused)?;
            }
            "fulfil" => {
                for shipment in ids("shipments") {
                    if !action["reference"].is_null() {
                        let values = json!({"reference": action["reference"]});
                        self.set(t, SHIPMENT, shipment, values);
                    }
                    for button in action["buttons"].as_array().into_iter().flatten() {
                        let button = button.as_str().unwrap_or_default();
                        self.press(t, SHIPMENT, shipment, button).map_err(refused)?;
                    }
                }
            }
            "take_back" => {
                for shipment in ids("shipment_returns") {
                    for button in action["buttons"].as_array().into_iter().flatten() {
                        let button = button.as_str().unwrap_or_default();
                        self.press(t, RETURN, shipment, button).map_err(refused)?;
                    }
                }
            }
            "bill" => {
                for invoice in ids("invoices") {
                    self.press(t, INVOICE, invoice, "post").map_err(refused)?;
                }
            }
            "credit" => {
                // As the wizard of an invoice does: lines whose origin are those of the invoice.
                for invoice in ids("invoices") {
                    let table = t.store.tables.get(INVOICE_LINE).into_iter().flatten();
                    let lines = table.filter(|(_, l)| l.values["invoice"] == invoice);
                    let lines: BTreeMap<i64, Stored> =
                        lines.map(|(id, l)| (*id, l.clone())).collect();
                    let credit = self.draft_invoice(t, &sale, &lines, INVOICE_LINE, -1.0);
                    self.press(t, INVOICE, credit, "post").map_err(refused)?;
                }
            }
            _ => {
                // `return_of`: as the wizard of a sale does: a copy with the quantities turned round.
                let wanted = |row: &Stored| row.values.get("note") == Some(&action["line"]);
                let lines: Vec<Value> = lines_of(t, id)
                    .into_values()
                    .filter(|row| wanted(row))
                    .map(|row| {
                        let mut line = row.values;
                        let back = action["quantity"].as_f64().unwrap_or(1.0);
                        line.insert("quantity".into(), json!(-back));
                        let taxes = line["taxes"].clone();
                        line.insert("taxes".into(), json!([["add", taxes]]));
                        Value::Object(line)
                    })
                    .collect();
                let mut copy = sale.values.clone();
                for field in ["web_id", "web_shop", "number", "reference", "state"] {
                    copy.remove(field);
                }
                for field in ["shipments", "shipment_returns", "invoices"] {
                    copy.insert(field.into(), json!([]));
                }
                copy.insert("origin".into(), json!(format!("{SALE},{id}")));
                copy.insert("lines".into(), json!([["create", lines]]));
                copy.insert("state".into(), json!("draft"));
                let back = self.make(t, SALE, &Value::Object(copy)).map_err(refused)?;
                for button in ["quote", "confirm"] {
                    self.press(t, SALE, back, button).map_err(refused)?;
                }
                return Ok(json!([back]));
            }
        }
        Ok(json!([id]))
    }
}
