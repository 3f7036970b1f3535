//! Invoices and credit notes as facts of the orders that they belong to.
//!
//! Which order a line is of, its sale's line says; a reversal copies that. Odoo shows what each line costs with
//! and without tax; where it rounds the tax for the document as a whole, lines are told with their share of
//! that. A credit note is of the return whose goods it credits exactly, where there is one such return.

use super::documents::{MOVE, PICKING, Page, orders_of};
use super::{give_back, money, rows};
use crate::connectors::erp::{
    Bill, BillLine, OfOrder, Row, Told, Versions, bad, return_name, taxes_of_lines,
};
use crate::contract::event::{InvoiceStatus, Text};
use crate::domain::Decimal;
use crate::domain::money::{Currency, Money, Rounding};
use crate::pipeline::{Code, Fault, SourceRecord};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub(super) const INVOICE_LINE: &str = "account.move.line";

pub(super) const INVOICE_FIELDS: &[&str] = &[
    "name",
    "state",
    "move_type",
    "payment_state",
    "posted_before",
    "currency_id",
    "amount_untaxed",
    "amount_tax",
    "invoice_date",
    "date",
    "ref",
    "reversed_entry_id",
    "company_id",
    "write_date",
];
const INVOICE_LINE_FIELDS: &[&str] = &[
    "move_id",
    "display_type",
    "quantity",
    "price_subtotal",
    "price_total",
    "sale_line_ids",
];

/// What the lines of a document are of: units by the sale's line.
type Content = BTreeMap<i64, Decimal>;

/// What bills of a page need besides their rows.
struct Around {
    /// By the sale's line.
    orders: HashMap<i64, OfOrder>,
    /// Returns that came in here, by what they are of, with their picking.
    returns: Vec<(Content, i64)>,
}

impl Page<'_> {
    /// Invoices and credit notes that are in the books.
    pub async fn invoices<'r>(
        &self,
        found: &'r [Row],
        versions: &mut Versions,
    ) -> Result<Told<'r>, Fault> {
        // What was in the books and was taken out again is told as cancelled; a mere draft is no document,
        // and what a supplier writes is of no order.
        let told = |row: &&Row| {
            matches!(
                rows::text(row, "move_type"),
                Some("out_invoice" | "out_refund")
            ) && (rows::text(row, "state") == Some("posted") || rows::flag(row, "posted_before"))
        };
        let own: Vec<&Row> = self.own(found).filter(told).collect();
        let ids: Vec<i64> = own.iter().map(|row| rows::id(row)).collect();
        let lines = self
            .client
            .all(INVOICE_LINE, "move_id", json!(ids), INVOICE_LINE_FIELDS);
        let mut lines = lines.await?;
        lines.retain(|line| rows::text(line, "display_type") == Some("product"));
        let wanted: BTreeSet<i64> = lines.iter().filter_map(sale_line).collect();
        let orders = orders_of(self.client, &wanted).await?;
        let credits = own
            .iter()
            .any(|row| rows::text(row, "move_type") == Some("out_refund"));
        let returns = match credits {
            true => self.returns_of(&orders.keys().copied().collect()).await?,
            false => Vec::new(),
        };
        let around = Around { orders, returns };
        let mut of_invoice: HashMap<i64, Vec<&Row>> = HashMap::new();
        for line in &lines {
            let invoice = rows::link(line, "move_id").unwrap_or_default();
            of_invoice.entry(invoice).or_default().push(line);
        }
        let mut told = Vec::new();
        for row in own {
            let version = versions.next();
            let lines = of_invoice.remove(&rows::id(row)).unwrap_or_default();
            told.push((row, self.invoice(row, &lines, &around, version)));
        }
        Ok(told)
    }

    fn invoice(
        &self,
        row: &Row,
        lines: &[&Row],
        around: &Around,
        version: i64,
    ) -> Result<Vec<SourceRecord>, Fault> {
        let record_id = format!("{},{}", money::ENTRY, rows::id(row));
        let missing = |what: &str| {
            let message = format!("{what} of {record_id} is missing or no amount");
            bad(Code::DataQuality, message)
        };
        let is_ours = |line: &&Row| sale_line(line).is_some_and(|l| around.orders.contains_key(&l));
        if !lines.iter().any(is_ours) {
            return Ok(Vec::new());
        }
        let code = rows::link_name(row, "currency_id").ok_or_else(|| missing("currency_id"))?;
        let currency = Currency::parse(code).map_err(|cause| {
            bad(
                Code::UnknownReference,
                format!("currency of {record_id}: {cause}"),
            )
        })?;
        let amount = |row: &Row, field: &str| {
            let value = rows::decimal(row, field);
            value
                .and_then(|a| Money::round(a, currency, Rounding::HalfEven).ok())
                .ok_or_else(|| missing(field))
        };
        let (net, tax) = (amount(row, "amount_untaxed")?, amount(row, "amount_tax")?);
        let nets: Vec<Money> = lines
            .iter()
            .map(|line| amount(line, "price_subtotal"))
            .collect::<Result<_, _>>()?;
        let weights = lines
            .iter()
            .zip(&nets)
            .map(|(line, net)| -> Result<Decimal, Fault> {
                let gross = amount(line, "price_total")?;
                let tax = (gross.amount() - net.amount()).units().abs();
                Ok(Decimal::from_units(tax))
            });
        let weights: Vec<Decimal> = weights.collect::<Result<_, Fault>>()?;
        let taxes = taxes_of_lines(tax, &weights);
        let credit = rows::text(row, "move_type") == Some("out_refund");
        let returned = self.return_of(row, lines, around).filter(|_| credit);
        let reversed = rows::link(row, "reversed_entry_id").filter(|_| credit);
        let reversed = reversed.map(|id| self.own_id(&format!("{},{id}", money::ENTRY)));
        let line = |((line, net), tax): ((&&Row, &Money), &Money)| BillLine {
            of: sale_line(line)
                .and_then(|id| around.orders.get(&id))
                .map(|of| OfOrder {
                    returned_by: returned.clone(),
                    ..of.clone()
                }),
            gives_back: reversed.clone(),
            quantity: rows::decimal(line, "quantity").unwrap_or_default(),
            net: net.amount(),
            tax: tax.amount(),
        };
        let date = ["invoice_date", "date"];
        let date = date
            .iter()
            .find_map(|field| row.get(*field).and_then(rows::day));
        let bill = Bill {
            number: rows::text(row, "name"),
            credit,
            status: match (rows::text(row, "state"), rows::text(row, "payment_state")) {
                (Some("posted"), Some("paid")) => InvoiceStatus::Paid,
                // Money that was given back by an entry reverses a credit note, as Odoo puts it.
                (Some("posted"), Some("reversed")) if credit => InvoiceStatus::Paid,
                (Some("posted"), _) => InvoiceStatus::Posted,
                _ => InvoiceStatus::Cancelled,
            },
            currency,
            net: net.amount(),
            tax: tax.amount(),
            date: date.ok_or_else(|| missing("invoice_date"))?,
            lines: lines.iter().zip(&nets).zip(&taxes).map(line).collect(),
        };
        let document = self.document(row, &record_id, version);
        Ok(document.bill(&bill, self.client.settings.credit_notes_request_refunds))
    }

    /// The return that a credit note is of: the one that it names, or the one whose goods are its.
    fn return_of(&self, row: &Row, lines: &[&Row], around: &Around) -> Option<Text> {
        if let Some(id) = rows::text(row, "ref").and_then(give_back::return_of) {
            return Some(id.into());
        }
        let mut content = Content::new();
        for line in lines {
            let units = rows::decimal(line, "quantity").unwrap_or_default();
            *content.entry(sale_line(line)?).or_default() += units;
        }
        let order = &around.orders.get(content.first_key_value()?.0)?.order;
        let mut same = around.returns.iter().filter(|(of, _)| *of == content);
        match (same.next(), same.next()) {
            (Some((_, picking)), None) => Some(return_name(
                order,
                self.instance,
                &format!("{PICKING},{picking}"),
            )),
            _ => None,
        }
    }

    /// What came back of these lines of sales, by pickings that were made here.
    async fn returns_of(&self, lines: &BTreeSet<i64>) -> Result<Vec<(Content, i64)>, Fault> {
        let fields = [
            "picking_id",
            "sale_line_id",
            "product_qty",
            "location_usage",
            "state",
        ];
        let moves = self.client.all(MOVE, "sale_line_id", json!(lines), &fields);
        let mut pickings: BTreeMap<i64, Content> = BTreeMap::new();
        for row in moves.await? {
            let from = rows::text(&row, "location_usage");
            let (Some(picking), Some(line)) = (
                rows::link(&row, "picking_id"),
                rows::link(&row, "sale_line_id"),
            ) else {
                continue;
            };
            if from == Some("customer") && rows::text(&row, "state") != Some("cancel") {
                let units = rows::decimal(&row, "product_qty").unwrap_or_default();
                let content = pickings.entry(picking).or_default();
                *content.entry(line).or_default() += units;
            }
        }
        Ok(pickings
            .into_iter()
            .map(|(id, content)| (content, id))
            .collect())
    }
}

/// The line of a sale that a line of an invoice is of.
fn sale_line(line: &Row) -> Option<i64> {
    rows::links(line, "sale_line_ids").first().copied()
}
