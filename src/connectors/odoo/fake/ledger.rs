//! Invoices, credit notes and entries of the ledger, and what they leave open.

use super::super::rows;
use super::acts::Shop;
use super::sales::{SALE, SALE_LINE, cents, decimal, lines_of};
use super::store::Refused;
use crate::connectors::erp::{Stored, Transaction};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) const ENTRY: &str = "account.move";
pub(super) const ENTRY_LINE: &str = "account.move.line";
const ACCOUNT: &str = "account.account";
/// The account of what customers owe.
const RECEIVABLE: &str = "121000";

/// A line of an invoice that is to be.
struct Charged {
    sale_line: i64,
    quantity: f64,
}

impl Shop {
    /// An entry, or an invoice or credit note with the lines that it names.
    pub fn entry(
        &mut self,
        t: &mut Transaction,
        mut values: Map<String, Value>,
        lines: Vec<Map<String, Value>>,
    ) -> i64 {
        let kind = values.get("move_type").cloned().unwrap_or(json!("entry"));
        values.insert("state".into(), json!("draft"));
        values.insert("company_id".into(), json!(1));
        values.entry("currency_id").or_insert(json!(1));
        values.insert("payment_state".into(), json!("not_paid"));
        values.insert("move_type".into(), kind.clone());
        let id = self.books.create(t, ENTRY, Value::Object(values));
        let (mut net, mut tax) = (0.0, 0.0);
        for mut line in lines {
            line.insert("move_id".into(), json!(id));
            line.insert("parent_state".into(), json!("draft"));
            let number = |name: &str| line.get(name).and_then(Value::as_f64).unwrap_or_default();
            if kind == "entry" {
                let residual = number("debit") - number("credit");
                let account = line.get("account_id").and_then(Value::as_i64);
                self.open_line(t, &mut line, account.unwrap_or_default(), residual);
                continue;
            }
            let part = cents(
                number("quantity") * number("price_unit") * (1.0 - number("discount") / 100.0),
            );
            let ids = line.get("tax_ids").and_then(Value::as_array).cloned();
            let rate = |id: &Value| {
                let row = t.get("account.tax", id.as_i64().unwrap_or_default());
                row.map_or(0.0, |row| row.number("amount"))
            };
            let due: f64 = ids.unwrap_or_default().iter().map(rate).sum::<f64>() * part / 100.0;
            net += part;
            tax += due;
            line.insert("display_type".into(), json!("product"));
            line.insert("price_subtotal".into(), json!(part));
            line.insert("price_total".into(), json!(cents(part + due)));
            self.books.create(t, ENTRY_LINE, Value::Object(line));
        }
        if kind != "entry" {
            let (net, tax) = (cents(net), cents(tax));
            let total = cents(net + tax);
            let values = json!({"amount_untaxed": net, "amount_tax": tax, "amount_total": total});
            let _ = t.write(ENTRY, id, values);
            let sign = if kind == "out_refund" { -1.0 } else { 1.0 };
            let mut line = Map::new();
            line.insert("move_id".into(), json!(id));
            line.insert("parent_state".into(), json!("draft"));
            line.insert("display_type".into(), json!("payment_term"));
            let account = t.rows(ACCOUNT).find(|(_, a)| a.text("code") == RECEIVABLE);
            let account = account.map_or(0, |(id, _)| id);
            self.open_line(t, &mut line, account, sign * total);
            self.note_invoiced(t, id);
        }
        id
    }

    /// A line that something can be matched with, if its account is that of customers.
    fn open_line(
        &mut self,
        t: &mut Transaction,
        line: &mut Map<String, Value>,
        account: i64,
        residual: f64,
    ) {
        let kind = t
            .get(ACCOUNT, account)
            .map(|a| a.text("account_type").to_owned());
        let owed = kind.as_deref() == Some("asset_receivable");
        line.insert("account_id".into(), json!(account));
        line.insert("account_id.account_type".into(), json!(kind));
        line.insert(
            "amount_residual".into(),
            json!(if owed { residual } else { 0.0 }),
        );
        line.insert("reconciled".into(), json!(false));
        self.books
            .create(t, ENTRY_LINE, Value::Object(line.clone()));
    }

    /// What of sales is invoiced, also by drafts, and by which documents.
    fn note_invoiced(&mut self, t: &mut Transaction, document: i64) {
        let mut sums: BTreeMap<i64, f64> = BTreeMap::new();
        for (_, line) in t.rows(ENTRY_LINE) {
            let kind = t
                .get(ENTRY, line.id("move_id"))
                .map(|m| m.text("move_type").to_owned());
            let sign = if kind.as_deref() == Some("out_refund") {
                -1.0
            } else {
                1.0
            };
            for of in line.ids("sale_line_ids") {
                *sums.entry(of).or_default() += sign * line.number("quantity");
            }
        }
        for (line, quantity) in sums {
            let _ = t.write(SALE_LINE, line, json!({"qty_invoiced": quantity}));
        }
        let of_document = t
            .rows(ENTRY_LINE)
            .filter(|(_, l)| l.id("move_id") == document);
        let of_document = of_document.flat_map(|(_, l)| l.ids("sale_line_ids"));
        let sale = of_document
            .last()
            .and_then(|id| t.get(SALE_LINE, id))
            .map(|l| l.id("order_id"));
        if let Some((sale, row)) = sale.and_then(|id| Some((id, t.get(SALE, id)?.clone()))) {
            let mut all = row.ids("invoice_ids");
            all.push(document);
            let _ = t.write(SALE, sale, json!({"invoice_ids": all}));
        }
    }

    pub fn post(&mut self, t: &mut Transaction, id: i64) -> Result<(), Refused> {
        let Some(row) = t.get(ENTRY, id).cloned() else {
            return Err(Refused::missing(ENTRY, id));
        };
        if row.text("state") != "draft" {
            return Err(Refused::user("The entry must be in draft."));
        }
        let prefix = match row.text("move_type") {
            "out_invoice" => "INV",
            "out_refund" => "RINV",
            _ => "MISC",
        };
        let number = self.books.next_id("number of an entry");
        let name = format!("{prefix}/2026/{number:05}");
        let day = rows::day_text(t.started_at);
        let values = json!({
            "state": "posted", "posted_before": true, "name": name, "date": day,
            "invoice_date": match row.text("invoice_date") { "" => json!(day), own => json!(own) },
        });
        let _ = t.write(ENTRY, id, values);
        for line in entry_lines(t, id) {
            let _ = t.write(ENTRY_LINE, line, json!({"parent_state": "posted"}));
        }
        Ok(())
    }

    /// Matches what lines leave open: what is owed with what was paid.
    pub fn reconcile(&mut self, t: &mut Transaction, ids: &[i64]) -> Result<(), Refused> {
        if ids.iter().all(|id| cents(open(t, *id)) == 0.0) {
            return Err(Refused::user(
                "You are trying to reconcile some entries that are already reconciled.",
            ));
        }
        for one in ids {
            for other in ids {
                let (a, b) = (open(t, *one), open(t, *other));
                if a > 0.0 && b < 0.0 {
                    let both = a.min(-b);
                    for (id, rest) in [(*one, a - both), (*other, b + both)] {
                        let rest = cents(rest);
                        let values = json!({"amount_residual": rest, "reconciled": rest == 0.0});
                        let _ = t.write(ENTRY_LINE, id, values);
                    }
                }
            }
        }
        for id in ids {
            let entry = t.get(ENTRY_LINE, *id).map_or(0, |l| l.id("move_id"));
            let paid = cents(open(t, *id)) == 0.0;
            let kind = |line: i64| {
                let entry = t.get(ENTRY_LINE, line).map_or(0, |l| l.id("move_id"));
                t.get(ENTRY, entry).map(|e| e.text("move_type").to_owned())
            };
            // A credit note that is settled by entries alone counts as reversed by them.
            let mut others = ids.iter().filter(|other| *other != id);
            let by_entries = others.all(|other| kind(*other).as_deref() == Some("entry"));
            let state = match kind(*id).as_deref() {
                _ if !paid => "partial",
                Some("out_refund") if by_entries => "reversed",
                _ => "paid",
            };
            let _ = t.write(ENTRY, entry, json!({"payment_state": state}));
        }
        Ok(())
    }

    /// People bill what a sale has delivered and not invoiced, or credit what came back; it is posted.
    pub fn bill(&mut self, t: &mut Transaction, sale: i64) -> Result<Value, String> {
        let delivered = self.delivered(t, sale);
        let charged = lines_of(t, sale).into_iter().map(|(id, line)| {
            // What is not delivered by goods is invoiced as it was ordered.
            let service = t.get("product.product", line.id("product_id"));
            let service = service.is_some_and(|p| p.text("type") == "service");
            let units = match service {
                true => line.number("product_uom_qty"),
                false => delivered.get(&id).copied().unwrap_or_default(),
            };
            Charged {
                sale_line: id,
                quantity: units - line.number("qty_invoiced"),
            }
        });
        let charged: Vec<Charged> = charged.filter(|c| c.quantity != 0.0).collect();
        if charged.is_empty() {
            return Err("Cannot create an invoice. No items are available to invoice.".into());
        }
        let credit = charged.iter().map(|c| c.quantity).sum::<f64>() < 0.0;
        self.invoice(t, sale, charged, credit, None)
    }

    /// People reverse the invoice of a sale as a whole; the credit note is posted.
    pub fn reverse(&mut self, t: &mut Transaction, sale: i64) -> Result<Value, String> {
        let ids = t
            .get(SALE, sale)
            .map(|s| s.ids("invoice_ids"))
            .unwrap_or_default();
        let mut invoices = ids.into_iter().filter(|id| {
            t.get(ENTRY, *id)
                .is_some_and(|m| m.text("move_type") == "out_invoice")
        });
        let invoice = invoices.next().ok_or("there is no invoice")?;
        let lines = entry_lines(t, invoice);
        let lines = lines.iter().filter_map(|id| t.get(ENTRY_LINE, *id));
        let charged = lines.filter_map(|line| {
            Some(Charged {
                sale_line: *line.ids("sale_line_ids").first()?,
                quantity: -line.number("quantity"),
            })
        });
        let charged = charged.collect();
        self.invoice(t, sale, charged, true, Some(invoice))
    }

    fn invoice(
        &mut self,
        t: &mut Transaction,
        sale: i64,
        charged: Vec<Charged>,
        credit: bool,
        reversed: Option<i64>,
    ) -> Result<Value, String> {
        let line = |c: Charged| {
            let row = t.get(SALE_LINE, c.sale_line)?;
            let line = json!({
                "product_id": row.id("product_id"), "name": row.text("name"), "price_unit": row.number("price_unit"),
                "quantity": if credit { -c.quantity } else { c.quantity }, "tax_ids": row.ids("tax_ids"),
                "sale_line_ids": [c.sale_line],
            });
            line.as_object().cloned()
        };
        let lines: Vec<Map<String, Value>> = charged.into_iter().filter_map(line).collect();
        let values = json!({
            "move_type": if credit { "out_refund" } else { "out_invoice" }, "reversed_entry_id": reversed,
            "partner_id": t.get(SALE, sale).map(|s| s.id("partner_id")),
        });
        let id = self.entry(t, values.as_object().cloned().unwrap_or_default(), lines);
        self.post(t, id).map_err(|r| r.2)?;
        Ok(json!([id]))
    }
}

/// What a line leaves open.
fn open(t: &Transaction, line: i64) -> f64 {
    let line = t.get(ENTRY_LINE, line);
    line.map_or(0.0, |line| line.number("amount_residual"))
}

fn entry_lines(t: &Transaction, entry: i64) -> Vec<i64> {
    let lines = t.rows(ENTRY_LINE).filter(|(_, l)| l.id("move_id") == entry);
    lines.map(|(id, _)| id).collect()
}

/// Entries that are no invoices, in the words that the suites of orders have for all ERPs.
pub(super) fn entries(t: &Transaction) -> Value {
    let amount =
        |row: &Stored, field: &str| json!({"decimal": decimal(row.number(field)).to_string()});
    let shown = |(id, row): (i64, &Stored)| {
        let lines = entry_lines(t, id);
        let lines = lines.iter().filter_map(|id| t.get(ENTRY_LINE, *id));
        let lines: Vec<Value> = lines
            .map(|l| json!({"debit": amount(l, "debit"), "credit": amount(l, "credit")}))
            .collect();
        json!({"state": row.text("state"), "lines": [["create", lines]]})
    };
    let entries = t
        .rows(ENTRY)
        .filter(|(_, row)| row.text("move_type") == "entry");
    entries.map(shown).collect()
}

/// What credit notes of the sales of this number come to, one by one.
pub(super) fn credited(t: &Transaction, number: &Value) -> Value {
    let sales = t
        .rows(SALE)
        .filter(|(_, s)| s.values.get("client_order_ref") == Some(number));
    let documents: Vec<i64> = sales.flat_map(|(_, s)| s.ids("invoice_ids")).collect();
    let notes = t
        .rows(ENTRY)
        .filter(|(id, row)| documents.contains(id) && row.text("move_type") == "out_refund");
    notes
        .map(|(_, row)| json!(decimal(row.number("amount_total")).to_string()))
        .collect()
}
