//! Orders as the real data has them: its invoices, and what came back of them (its C-invoices).

use super::super::ground::setup;
use crate::domain::Decimal;
use crate::pipeline::Fault;
use flate2::read::MultiGzDecoder;
use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

/// Invoices between one that becomes an order and the next.
const STEP: usize = 7;
/// Orders in all.
const ORDERS_MAX: usize = 90;
/// Lines of an order.
const LINES_MAX: usize = 5;

/// A line of an invoice.
#[derive(Clone, Debug)]
pub(crate) struct Sold {
    pub sku: String,
    pub quantity: Decimal,
    pub price: Decimal,
    /// Units that the customer gave back later.
    pub returned: Decimal,
}

/// An invoice.
#[derive(Clone, Debug)]
pub(crate) struct Invoice {
    pub number: String,
    pub lines: Vec<Sold>,
}

/// Some invoices of the data, in its order: those of which something came back, and others.
pub(crate) fn invoices(path: &Path) -> Result<Vec<Invoice>, Fault> {
    let mut returned: BTreeMap<(String, String), Decimal> = BTreeMap::new();
    read(path, |row| {
        if row.number.starts_with('C') {
            *returned.entry((row.customer, row.sku)).or_default() += -row.quantity;
        }
        true
    })?;
    let mut chosen: Vec<Invoice> = Vec::new();
    let mut current: Option<Invoice> = None;
    let mut seen = 0;
    let mut keep = |invoice: Invoice, chosen: &mut Vec<Invoice>| {
        seen += 1;
        let comes_back = invoice.lines.iter().any(|l| l.returned.is_positive());
        if !invoice.lines.is_empty() && (comes_back || seen % STEP == 1) {
            chosen.push(invoice);
        }
    };
    read(path, |row| {
        if row.number.starts_with('C') {
            return true;
        }
        if current.as_ref().is_none_or(|i| i.number != row.number) {
            if let Some(invoice) = current.take() {
                keep(invoice, &mut chosen);
            }
            current = Some(Invoice {
                number: row.number,
                lines: Vec::new(),
            });
        }
        let Some(invoice) = &mut current else {
            return true;
        };
        let known = invoice.lines.iter().any(|l| l.sku == row.sku);
        let sound = row.quantity.is_positive() && row.price.is_positive();
        if sound && !known && invoice.lines.len() < LINES_MAX {
            let back = returned.get_mut(&(row.customer, row.sku.clone()));
            let units = back.map_or(Decimal::ZERO, |back| {
                let units = (*back).min(row.quantity).or_zero();
                *back -= units;
                units
            });
            invoice.lines.push(Sold {
                sku: row.sku,
                quantity: row.quantity,
                price: row.price,
                returned: units,
            });
        }
        chosen.len() < ORDERS_MAX
    })?;
    if let Some(invoice) = current.filter(|_| chosen.len() < ORDERS_MAX) {
        keep(invoice, &mut chosen);
    }
    Ok(chosen)
}

/// A line of the data.
struct Row {
    number: String,
    customer: String,
    sku: String,
    quantity: Decimal,
    /// In whole pence.
    price: Decimal,
}

/// Reads the lines that are of goods, as long as `each` wants more.
fn read(path: &Path, mut each: impl FnMut(Row) -> bool) -> Result<(), Fault> {
    let broken = |e: String| setup(format!("{} cannot be read: {e}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| broken(e.to_string()))?;
    let mut file = BufReader::new(file);
    let packed = std::io::BufRead::fill_buf(&mut file).is_ok_and(|b| b.starts_with(&[0x1f, 0x8b]));
    let text: Box<dyn Read> = match packed {
        true => Box::new(MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    let mut rows = csv::ReaderBuilder::new().flexible(true).from_reader(text);
    let header = rows
        .byte_headers()
        .map_err(|e| broken(e.to_string()))?
        .clone();
    let place = |name: &str| header.iter().position(|h| h == name.as_bytes());
    let columns = [
        "InvoiceNo",
        "StockCode",
        "Quantity",
        "UnitPrice",
        "CustomerID",
    ]
    .map(place);
    // Without prices or customers there is nothing to order by.
    let [
        Some(number),
        Some(sku),
        Some(quantity),
        Some(price),
        Some(customer),
    ] = columns
    else {
        return Ok(());
    };
    let mut row = csv::ByteRecord::new();
    while rows
        .read_byte_record(&mut row)
        .map_err(|e| broken(e.to_string()))?
    {
        let text = |column: usize| {
            let bytes = row.get(column).unwrap_or_default();
            String::from_utf8_lossy(bytes).trim().to_owned()
        };
        let decimal = |column| text(column).parse::<Decimal>().unwrap_or_default();
        let of_goods = text(sku).bytes().any(|b| b.is_ascii_digit());
        let row = Row {
            number: text(number),
            customer: text(customer),
            sku: text(sku),
            quantity: decimal(quantity),
            price: Decimal::from_units(decimal(price).units() / 100 * 100),
        };
        if of_goods && !each(row) {
            break;
        }
    }
    Ok(())
}
