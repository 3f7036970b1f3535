//! From the lines of an order to those of a sale: pure.
//!
//! Tryton's prices are without tax and have four places; what a line costs is quantity × price,
//! rounded to the currency. An order tells what a line costs with its tax, so the price without tax
//! follows from that. Where four places are too few to give the line's amount again, which needs more
//! than a hundred units, one of its units becomes a line of its own that takes the difference.

use super::rows;
use crate::contract::event::{OrderCharge, OrderLine, OrderSnapshot};
use crate::domain::Decimal;
use crate::domain::money::Currency;
use crate::domain::money::rules::{self, TaxMode};
use crate::pipeline::{Code, Fault, Stage};
use serde_json::{Value, json};
use std::collections::HashMap;

/// A product of Tryton, as far as a sale needs it.
#[derive(Clone, Debug)]
pub(super) struct Product {
    pub id: i64,
    pub unit: i64,
    /// Taxes that a customer pays on it.
    pub taxes: Vec<i64>,
}

/// What the names in an order are in Tryton.
#[derive(Default)]
pub(super) struct Names {
    /// Products by SKU.
    pub products: HashMap<String, Result<Product, String>>,
    /// Products that stand for charges, by type of charge.
    pub charges: HashMap<String, Result<Product, String>>,
    /// Taxes by tax code.
    pub taxes: HashMap<String, Result<i64, String>>,
}

/// An order whose amounts add up; `who` names it in faults.
///
/// # Errors
/// A reject that names the order, and the line where it is about one.
pub(super) fn check(order: &OrderSnapshot, who: &str) -> Result<Currency, Fault> {
    let currency = Currency::parse(&order.currency).map_err(|cause| {
        reject(
            Code::UnknownReference,
            format!("{who}: currency: {cause}; mend it in the channel, then redrive"),
        )
    })?;
    let mode = match order.prices_include_tax {
        true => TaxMode::Inclusive,
        false => TaxMode::Exclusive,
    };
    let lines: Vec<rules::Line<'_>> = order
        .lines
        .iter()
        .map(|l| rules::Line {
            id: &l.line_id,
            quantity: l.qty,
            unit_price: l.unit_price,
            discount: l.discount,
            tax: l.tax,
            total: l.line_total,
        })
        .collect();
    let charges: Vec<_> = order.charges.iter().map(|c| (c.net, c.tax)).collect();
    rules::check_order(&lines, &charges, order.grand_total, mode, currency)
        .map_err(|broken| reject(Code::DataQuality, format!("{who}: {broken}")))?;
    match order.lines.iter().find(|l| !l.qty.is_positive()) {
        Some(line) => Err(reject(
            Code::DataQuality,
            format!("{who}, line {}: qty is {}", line.line_id, line.qty),
        )),
        None => Ok(currency),
    }
}

/// The lines of the sale.
///
/// # Errors
/// A reject that names the line and what Tryton lacks.
pub(super) fn sale_lines(
    order: &OrderSnapshot,
    currency: Currency,
    names: &Names,
    who: &str,
) -> Result<Vec<Value>, Fault> {
    let mut made = Vec::with_capacity(order.lines.len() + order.charges.len());
    for line in &order.lines {
        let product = known(&names.products, &line.sku, || {
            format!("{who}, line {}", line.line_id)
        })?;
        let taxes = taxes_of(line, product, names, who)?;
        let net = line.line_total - line.tax;
        for (quantity, price) in prices(line.qty, net, currency) {
            made.push(value(&Part {
                sequence: made.len() + 1,
                product,
                quantity,
                price,
                taxes: &taxes,
                note: Some(&line.line_id),
            }));
        }
    }
    for charge in order.charges.iter().filter(|c| !is_nothing(c)) {
        let product = known(&names.charges, &charge.r#type, || {
            format!("{who}, charge {}", charge.charge_id)
        })?;
        let taxes = match charge.tax.is_zero() {
            true => &[][..],
            false => &product.taxes,
        };
        made.push(value(&Part {
            sequence: made.len() + 1,
            product,
            quantity: Decimal::ONE,
            price: charge.net,
            taxes,
            note: None,
        }));
    }
    Ok(made)
}

fn is_nothing(charge: &OrderCharge) -> bool {
    charge.net.is_zero() && charge.tax.is_zero()
}

fn taxes_of(
    line: &OrderLine,
    product: &Product,
    names: &Names,
    who: &str,
) -> Result<Vec<i64>, Fault> {
    match &line.tax_code {
        Some(code) => {
            let tax = known(&names.taxes, code, || {
                format!("{who}, line {}", line.line_id)
            })?;
            Ok(vec![*tax])
        }
        None if line.tax.is_zero() => Ok(Vec::new()),
        None => Ok(product.taxes.clone()),
    }
}

fn known<'a, T>(
    names: &'a HashMap<String, Result<T, String>>,
    name: &str,
    place: impl Fn() -> String,
) -> Result<&'a T, Fault> {
    let why = match names.get(name) {
        Some(Ok(found)) => return Ok(found),
        Some(Err(why)) => why.clone(),
        None => format!("{name:?} was not looked up"),
    };
    Err(reject(
        Code::UnknownReference,
        format!("{}: {why}; then redrive", place()),
    ))
}

/// Quantities and prices without tax that make `net` when each is rounded to the currency.
pub(super) fn prices(
    quantity: Decimal,
    net: Decimal,
    currency: Currency,
) -> Vec<(Decimal, Decimal)> {
    let price = divided(net, quantity);
    let amount = |quantity: Decimal, price: Decimal| {
        let exact = i128::from(quantity.units()) * i128::from(price.units());
        rounded(exact, currency)
    };
    if amount(quantity, price) == Some(net) || quantity <= Decimal::ONE {
        return vec![(quantity, price)];
    }
    let rest = quantity - Decimal::ONE;
    match amount(rest, price) {
        Some(most) => vec![(rest, price), (Decimal::ONE, net - most)],
        None => vec![(quantity, price)],
    }
}

/// `net / quantity` to four places, halves to even as Tryton rounds.
fn divided(net: Decimal, quantity: Decimal) -> Decimal {
    let (n, d) = (
        i128::from(net.units()) * i128::from(Decimal::ONE.units()),
        i128::from(quantity.units()).max(1),
    );
    Decimal::from_units(half_even(n, d) as i64)
}

/// Hundred-millionths, rounded to the currency's minor unit as Tryton rounds amounts.
fn rounded(exact: i128, currency: Currency) -> Option<Decimal> {
    let one = i128::from(Decimal::ONE.units());
    let minor = i128::from(currency.minor_unit().units());
    let units = half_even(exact, one * minor) * minor;
    i64::try_from(units).ok().map(Decimal::from_units)
}

fn half_even(n: i128, d: i128) -> i128 {
    let (quotient, twice) = (n.div_euclid(d), n.rem_euclid(d) * 2);
    quotient + i128::from(twice > d || (twice == d && quotient % 2 != 0))
}

struct Part<'a> {
    sequence: usize,
    product: &'a Product,
    quantity: Decimal,
    price: Decimal,
    taxes: &'a [i64],
    note: Option<&'a str>,
}

fn value(part: &Part<'_>) -> Value {
    json!({
        "type": "line",
        "sequence": part.sequence,
        "product": part.product.id,
        "unit": part.product.unit,
        "quantity": part.quantity.to_f64(),
        "unit_price": rows::amount_value(part.price),
        "taxes": [["add", part.taxes]],
        "note": part.note,
    })
}

/// Whether what the sale costs is what the customer was told, within a minor unit for each line.
pub(super) fn agrees(order: &OrderSnapshot, total: Decimal, currency: Currency) -> bool {
    let minor = currency.minor_unit().units();
    let allowed = minor.saturating_mul(order.lines.len().max(1) as i64);
    (total - order.grand_total).units().abs() <= allowed
}

pub(super) fn reject(code: Code, message: String) -> Fault {
    Fault::reject(Stage::Write, code, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prices_give_the_amount_of_the_line_again(
            units in 1_i64..5_000, fraction in 0_i64..2, net in -1_000_000_i64..1_000_000,
            code in prop::sample::select(vec!["EUR", "JPY", "KWD"]),
        ) {
            let currency = Currency::parse(code).expect("a currency");
            let minor = currency.minor_unit().units();
            let net = Decimal::from_units(net * minor);
            let quantity = Decimal::from_units(units * 10_000 + fraction * 5_000);
            let parts = prices(quantity, net, currency);
            let all: Decimal = parts.iter().map(|(q, _)| *q).sum();
            prop_assert_eq!(all, quantity);
            let made: Decimal = parts
                .iter()
                .map(|(q, p)| {
                    let exact = i128::from(q.units()) * i128::from(p.units());
                    rounded(exact, currency).expect("an amount")
                })
                .sum();
            prop_assert_eq!(made, net, "{:?}", parts);
        }
    }

    #[test]
    fn a_line_is_split_only_where_it_must_be() {
        let euro = Currency::parse("EUR").expect("a currency");
        let of = |quantity: &str, net: &str| {
            let parts = prices(
                quantity.parse().expect("a quantity"),
                net.parse().expect("an amount"),
                euro,
            );
            let text = |(q, p): &(Decimal, Decimal)| format!("{q} x {p}");
            parts.iter().map(text).collect::<Vec<_>>().join(" + ")
        };
        assert_eq!(of("3", "10"), "3 x 3.3333");
        assert_eq!(of("2", "24.3"), "2 x 12.15");
        assert_eq!(of("700", "100"), "699 x 0.1429 + 1 x 0.11");
    }
}
