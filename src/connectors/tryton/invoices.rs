//! Invoices and credit notes as facts of the orders that they belong to.
//!
//! Tryton reckons the tax of a document as a whole; each line is told with its share of it. A credit note
//! that was made from an invoice is traced to the lines of that invoice, and so to the order.

use super::client::Row;
use super::documents::{OfOrder, Page, SALE_LINE, orders_of, origin, return_name};
use super::rows;
use super::sales::SALE;
use crate::connectors::erp::{self, Bill, BillLine, Told, bad, taxes_of_lines};
use crate::contract::event::{InvoiceStatus, Text};
use crate::domain::Decimal;
use crate::domain::money::{Currency, Money, Rounding};
use crate::pipeline::{Code, Fault, SourceRecord};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub(super) const INVOICE: &str = "account.invoice";
const INVOICE_LINE: &str = "account.invoice.line";
/// A credit note of a credit note of an invoice, and no further.
const ORIGINS_MAX: usize = 4;

pub(super) const INVOICE_FIELDS: &[&str] = &[
    "number",
    "state",
    "type",
    "currency.code",
    "untaxed_amount",
    "tax_amount",
    "total_amount",
    "invoice_date",
    "accounting_date",
    "company",
    "last_modified_at",
];
const INVOICE_LINE_FIELDS: &[&str] = &["invoice", "origin", "quantity", "amount", "taxes"];

impl Page<'_> {
    /// Invoices and credit notes that are in the books.
    pub async fn invoices<'r>(
        &self,
        found: &'r [Row],
        next: &mut impl FnMut() -> i64,
    ) -> Result<Told<'r>, Fault> {
        // A draft is no document, and what a supplier writes is of no order.
        let told = |row: &&Row| {
            rows::text(row, "type") == Some("out")
                && rows::text(row, "number").is_some()
                && matches!(
                    rows::text(row, "state"),
                    Some("posted" | "paid" | "cancelled")
                )
        };
        let own: Vec<&Row> = self.own(found).filter(told).collect();
        let ids: Vec<i64> = own.iter().map(|row| rows::id(row)).collect();
        let lines = self
            .all(INVOICE_LINE, "invoice", json!(ids), INVOICE_LINE_FIELDS)
            .await?;
        let orders = self.orders_of_invoices(&lines).await?;
        let returns = self.returns_of(orders.values().map(|(of, _)| of)).await?;
        let mut of_invoice: HashMap<i64, Vec<&Row>> = HashMap::new();
        for line in &lines {
            let invoice = rows::integer(line, "invoice").unwrap_or_default();
            of_invoice.entry(invoice).or_default().push(line);
        }
        let mut told = Vec::new();
        for row in own {
            let version = next();
            let none = Vec::new();
            let lines = of_invoice.get(&rows::id(row)).unwrap_or(&none);
            let records = self.invoice(row, lines, &orders, &returns, version);
            told.push((row, records));
        }
        Ok(told)
    }

    fn invoice(
        &self,
        row: &Row,
        lines: &[&Row],
        orders: &HashMap<i64, (OfOrder, Option<i64>)>,
        returns: &HashMap<i64, Text>,
        version: i64,
    ) -> Result<Vec<SourceRecord>, Fault> {
        let id = rows::id(row);
        let missing = |what: &str| {
            let message = format!("{what} of {INVOICE} {id} is missing or no amount");
            bad(Code::DataQuality, message)
        };
        let code = rows::related(row, "currency").and_then(|c| rows::text(c, "code"));
        let code = code.ok_or_else(|| missing("currency"))?;
        let currency = Currency::parse(code).map_err(|cause| {
            bad(
                Code::UnknownReference,
                format!("currency of {INVOICE} {id}: {cause}"),
            )
        })?;
        let amount = |row: &Row, field: &str| {
            let value = row.get(field).and_then(rows::amount);
            value
                .and_then(|a| Money::round(a, currency, Rounding::HalfEven).ok())
                .ok_or_else(|| missing(field))
        };
        let (net, tax) = (amount(row, "untaxed_amount")?, amount(row, "tax_amount")?);
        let total = net.amount() + tax.amount();
        let credit = total.is_negative();
        let sign = |m: Money| match credit {
            true => -m.amount(),
            false => m.amount(),
        };
        // Tryton reckons tax for the document: each line has its share of it, by what it costs, where it
        // is taxed at all.
        let nets: Vec<Money> = lines
            .iter()
            .map(|line| amount(line, "amount"))
            .collect::<Result<_, _>>()?;
        let weights: Vec<Decimal> = lines
            .iter()
            .zip(&nets)
            .map(
                |(line, net)| match rows::integers(line, "taxes").is_empty() {
                    true => Decimal::ZERO,
                    false => Decimal::from_units(net.amount().units().abs()),
                },
            )
            .collect();
        let taxes = taxes_of_lines(tax, &weights);
        let line = |((line, net), tax): ((&&Row, &Money), &Money)| {
            let of = orders.get(&rows::id(line));
            let quantity = line.get("quantity").and_then(rows::quantity);
            let quantity = quantity.unwrap_or_default();
            BillLine {
                of: of.map(|(of, _)| self.of_line(of, returns)),
                gives_back: of
                    .and_then(|(_, original)| *original)
                    .map(|id| self.own_id(&format!("{INVOICE},{id}"))),
                quantity: match credit {
                    true => -quantity,
                    false => quantity,
                },
                net: sign(*net),
                tax: sign(*tax),
            }
        };
        let date = ["accounting_date", "invoice_date"]
            .iter()
            .find_map(|field| row.get(*field).and_then(rows::date));
        let bill = Bill {
            number: rows::text(row, "number"),
            credit,
            status: match rows::text(row, "state") {
                Some("paid") => InvoiceStatus::Paid,
                Some("cancelled") => InvoiceStatus::Cancelled,
                _ => InvoiceStatus::Posted,
            },
            currency,
            net: sign(net),
            tax: sign(tax),
            date: date.ok_or_else(|| missing("invoice_date"))?,
            lines: lines.iter().zip(&nets).zip(&taxes).map(line).collect(),
        };
        let record_id = format!("{INVOICE},{id}");
        let document = self.document(row, &record_id, version);
        Ok(document.bill(&bill, self.client.settings.credit_notes_request_refunds))
    }

    /// Where a line belongs, with the return that its sale is of.
    fn of_line(&self, of: &OfOrder, returns: &HashMap<i64, Text>) -> erp::OfOrder {
        let returned = || {
            let elsewhere = of.told_by.clone();
            elsewhere.or_else(|| returns.get(&of.back?).cloned())
        };
        erp::OfOrder {
            order: of.order.clone(),
            line: of.line.clone(),
            returned_by: of.back.and_then(|_| returned()),
        }
    }

    /// Where lines of invoices belong, by their ids, and the invoice that each gives back.
    async fn orders_of_invoices(
        &self,
        lines: &[Row],
    ) -> Result<HashMap<i64, (OfOrder, Option<i64>)>, Fault> {
        // From each line to the one of a sale: id, the line that it is traced to, invoice given back.
        let mut sale_lines: HashMap<i64, (i64, Option<i64>)> = HashMap::new();
        let mut traced: Vec<(i64, i64, Option<i64>)> = Vec::new();
        for line in lines {
            let id = rows::id(line);
            if let Some(of) = origin(line, SALE_LINE) {
                sale_lines.insert(id, (of, None));
            } else if let Some(of) = origin(line, INVOICE_LINE) {
                traced.push((id, of, None));
            }
        }
        for _ in 0..ORIGINS_MAX {
            if traced.is_empty() {
                break;
            }
            let wanted: BTreeSet<i64> = traced.iter().map(|(_, of, _)| *of).collect();
            let found = self.all(INVOICE_LINE, "id", json!(wanted), INVOICE_LINE_FIELDS);
            let found: HashMap<i64, Row> = found
                .await?
                .into_iter()
                .map(|r| (rows::id(&r), r))
                .collect();
            let mut further = Vec::new();
            for (id, of, original) in traced {
                let Some(row) = found.get(&of) else { continue };
                let original = original.or(rows::integer(row, "invoice"));
                if let Some(of) = origin(row, SALE_LINE) {
                    sale_lines.insert(id, (of, original));
                } else if let Some(of) = origin(row, INVOICE_LINE) {
                    further.push((id, of, original));
                }
            }
            traced = further;
        }
        let wanted: BTreeSet<i64> = sale_lines.values().map(|(of, _)| *of).collect();
        let orders = orders_of(self.client, &wanted).await?;
        let of = |(id, (line, original)): (i64, (i64, Option<i64>))| {
            Some((id, (orders.get(&line)?.clone(), original)))
        };
        Ok(sale_lines.into_iter().filter_map(of).collect())
    }

    /// The returns of sales that take goods back, by the sale: where there is exactly one.
    async fn returns_of<'r>(
        &self,
        orders: impl Iterator<Item = &'r OfOrder>,
    ) -> Result<HashMap<i64, Text>, Fault> {
        let backs: BTreeMap<i64, Text> = orders
            .filter_map(|of| Some((of.back?, of.order.clone())))
            .collect();
        let wanted: Vec<i64> = backs.keys().copied().collect();
        let found = self
            .all(SALE, "id", json!(wanted), &["shipment_returns"])
            .await?;
        let named = found.iter().filter_map(|row| {
            let id = rows::id(row);
            match rows::integers(row, "shipment_returns")[..] {
                [one] => Some((id, return_name(backs.get(&id)?, self.instance, one))),
                _ => None,
            }
        });
        Ok(named.collect())
    }
}
