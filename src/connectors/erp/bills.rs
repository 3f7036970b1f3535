//! Invoices and credit notes of an ERP as facts of the orders that they belong to.

use super::documents::Document;
use super::events::{meta, object_meta};
use super::moves::OfOrder;
use crate::contract::event::{
    InvoiceEvent, InvoiceKind, InvoiceLine, InvoiceStatus, Money as WireMoney, PositionKind,
    RefundAllocation, RefundRequest, RefundType, Text,
};
use crate::contract::topic;
use crate::domain::money::{Currency, Money};
use crate::domain::{Date, Decimal, event_id, refund_id};
use crate::pipeline::SourceRecord;
use std::collections::BTreeMap;

/// An invoice or a credit note; its amounts are positive in both.
pub struct Bill<'a> {
    /// What people call it.
    pub number: Option<&'a str>,
    /// Whether it gives back.
    pub credit: bool,
    /// How far it is.
    pub status: InvoiceStatus,
    /// Its currency.
    pub currency: Currency,
    /// Without tax.
    pub net: Decimal,
    /// Its tax.
    pub tax: Decimal,
    /// When its tax is due.
    pub date: Date,
    /// All lines that cost something.
    pub lines: Vec<BillLine>,
}

/// A line of a bill.
pub struct BillLine {
    /// Where it belongs; `None` where it belongs to no order.
    pub of: Option<OfOrder>,
    /// The bill that it gives back, as events name it.
    pub gives_back: Option<Text>,
    /// How much of it.
    pub quantity: Decimal,
    /// Without tax.
    pub net: Decimal,
    /// Its tax.
    pub tax: Decimal,
}

/// The tax of a document as the share of each of its lines: by `weights`, which are zero where a line is not
/// taxed.
pub fn taxes_of_lines(tax: Money, weights: &[Decimal]) -> Vec<Money> {
    let shares = match weights.iter().any(|w| w.is_positive()) {
        true => tax.apportion(weights).ok(),
        false => None,
    };
    shares.unwrap_or_else(|| vec![Money::zero(tax.currency()); weights.len()])
}

impl Document<'_> {
    /// A bill, once for each order that is in it. `asks` says whether a credit note asks for its amount to be
    /// paid back.
    pub fn bill(&self, bill: &Bill<'_>, asks: bool) -> Vec<SourceRecord> {
        let mut parts: BTreeMap<&Text, Vec<&BillLine>> = BTreeMap::new();
        for line in &bill.lines {
            if let Some(of) = &line.of {
                parts.entry(&of.order).or_default().push(line);
            }
        }
        let alone = parts.len() == 1 && parts.values().all(|p| p.len() == bill.lines.len());
        let mut records = Vec::with_capacity(parts.len());
        for (order, lines) in parts {
            let sum = |of: fn(&BillLine) -> Decimal| lines.iter().map(|l| of(l)).sum::<Decimal>();
            let (net, tax) = match alone {
                true => (bill.net, bill.tax),
                false => (sum(|l| l.net), sum(|l| l.tax)),
            };
            let mut meta = object_meta(
                self.instance,
                "InvoiceEvent",
                self.record_id,
                order,
                self.at,
                self.version,
            );
            if let Some(number) = bill.number {
                meta.ext.insert("number".into(), number.into());
            }
            let returned = |l: &&BillLine| l.of.as_ref().and_then(|of| of.returned_by.clone());
            let event = InvoiceEvent {
                meta,
                order_id: order.clone(),
                invoice_id: self.id(),
                invoice_version: self.version,
                kind: match bill.credit {
                    true => InvoiceKind::CreditNote,
                    false => InvoiceKind::Invoice,
                },
                status: bill.status,
                original_invoice_id: lines.iter().find_map(|l| l.gives_back.clone()),
                return_id: lines.iter().find_map(returned),
                lines: lines.iter().map(|l| invoice_line(l)).collect(),
                net: WireMoney {
                    amount: net,
                    currency: bill.currency.code().into(),
                },
                tax,
                gross: net + tax,
                tax_date: bill.date,
                ..InvoiceEvent::default()
            };
            let asks = asks && bill.credit && bill.status == InvoiceStatus::Posted;
            let request = asks.then(|| self.refund_request(bill, &event));
            records.push(SourceRecord {
                topic: topic::INVOICE_EVENT,
                key: order.clone(),
                event: event.into(),
            });
            records.extend(request);
        }
        records
    }

    /// That what a credit note gives back is paid back. One request for each credit note, however often
    /// it changes.
    fn refund_request(&self, bill: &Bill<'_>, note: &InvoiceEvent) -> SourceRecord {
        let order = &note.order_id;
        let allocations: Vec<RefundAllocation> = note
            .lines
            .iter()
            .map(|line| RefundAllocation {
                order_line_id: line.order_line_id.clone(),
                qty: line.qty,
                net: line.net,
                tax: line.tax,
                r#type: match &line.order_line_id {
                    _ if line.net.is_negative() => RefundType::Fee,
                    Some(_) => RefundType::Item,
                    None => RefundType::Shipping,
                },
            })
            .collect();
        let id = event_id(self.instance, 0, self.record_id, order, "RefundRequest");
        let mut meta = meta(self.instance, "RefundRequest", id, 1, self.at);
        meta.position_kind = PositionKind::Version;
        let event = RefundRequest {
            meta,
            order_id: order.clone(),
            request_id: id,
            refund_id: refund_id(order, "credit note", &note.invoice_id, 0),
            return_id: note.return_id.clone(),
            amount: WireMoney {
                amount: allocations.iter().map(|a| a.net + a.tax).sum(),
                currency: note.net.currency.clone(),
            },
            allocations,
            requested_by: self.instance.into(),
            reason: bill.number.map(|n| format!("credit note {n}").into()),
            ..RefundRequest::default()
        };
        SourceRecord {
            topic: topic::REFUND_REQUEST,
            key: order.clone(),
            event: event.into(),
        }
    }
}

fn invoice_line(line: &BillLine) -> InvoiceLine {
    let name = line.of.as_ref().map(|of| of.line.clone());
    InvoiceLine {
        // A charge is no line of the order.
        order_line_id: name.filter(|l| !l.is_empty()),
        qty: line.quantity,
        net: line.net,
        tax: line.tax,
        ..InvoiceLine::default()
    }
}
