//! From the lines of an order to those of an ERP's sale: pure.
//!
//! An ERP's prices are without tax and have few places; what a line costs is quantity × price, rounded to
//! the currency. An order tells what a line costs with its tax, so the price without tax follows from
//! that. Where the places are too few to give the line's amount again, one of its units becomes a line of its
//! own that takes the difference.

use crate::contract::event::{
    DeliveryMethod, OrderCharge, OrderEvent, OrderEventType, OrderLine, OrderSnapshot,
};
use crate::domain::Decimal;
use crate::domain::money::Currency;
use crate::domain::money::rules::{self, TaxMode};
use crate::pipeline::{Code, Fault, Stage};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A product of the ERP, as far as a sale needs it.
#[derive(Clone, Debug)]
pub struct SoldProduct {
    /// Its row.
    pub id: i64,
    /// Row of the unit that it is counted in.
    pub unit: i64,
    /// What it is called.
    pub name: String,
    /// Taxes that a customer pays on it.
    pub taxes: Vec<i64>,
}

/// What the names in an order are in the ERP.
#[derive(Default)]
pub struct Names {
    /// Products by SKU.
    products: HashMap<String, Result<SoldProduct, String>>,
    /// Products that stand for charges, by type of charge.
    charges: HashMap<String, Result<SoldProduct, String>>,
    /// Taxes by tax code.
    taxes: HashMap<String, Result<i64, String>>,
}

/// Codes of all products that an order names, those that stand for its charges among them.
pub fn codes_of<'a>(
    order: &'a OrderSnapshot,
    charges: &'a BTreeMap<String, String>,
) -> BTreeSet<&'a str> {
    let lines = order.lines.iter().map(|l| &*l.sku);
    let stand_for = |c: &'a OrderCharge| charges.get(&*c.r#type).map(String::as_str);
    lines
        .chain(order.charges.iter().filter_map(stand_for))
        .collect()
}

/// Names of the ERP's taxes that stand for the tax codes of an order.
pub fn taxes_named<'a>(
    order: &'a OrderSnapshot,
    taxes: &'a BTreeMap<String, String>,
) -> BTreeSet<&'a str> {
    let codes = order.lines.iter().filter_map(|l| l.tax_code.as_deref());
    let named = codes.filter_map(|code| taxes.get(code));
    named.map(String::as_str).collect()
}

impl Names {
    /// What was found: products by code, taxes by name. `charges` and `taxes` are those of the settings.
    pub fn of(
        system: &str,
        order: &OrderSnapshot,
        (charges, products): (
            &BTreeMap<String, String>,
            &HashMap<String, Vec<SoldProduct>>,
        ),
        (taxes, found): (&BTreeMap<String, String>, &HashMap<String, i64>),
    ) -> Names {
        let product = |code: &str| match products.get(code).map(Vec::as_slice) {
            Some([one]) => Ok(one.clone()),
            None | Some([]) => Err(format!(
                "{system} has no product with code {code}; give one that code"
            )),
            Some(many) => Err(format!(
                "{} products of {system} have code {code}; make it one",
                many.len()
            )),
        };
        let mut names = Names::default();
        for line in &order.lines {
            let sku = line.sku.to_string();
            names.products.insert(sku, product(&line.sku));
        }
        for charge in &order.charges {
            let kind = &*charge.r#type;
            let known = charges.get(kind).ok_or_else(|| {
                format!("no product stands for charges of type {kind}; name one in `charges`")
            });
            let known = known.and_then(|code| product(code));
            names.charges.insert(kind.to_owned(), known);
        }
        for code in order.lines.iter().filter_map(|l| l.tax_code.as_deref()) {
            let tax = match taxes.get(code) {
                Some(name) => found.get(name).copied().ok_or_else(|| {
                    format!("{system} has no tax {name:?}, which `taxes` has for tax code {code}; mend one of both")
                }),
                None => Err(format!(
                    "no tax of {system} stands for tax code {code}; name one in `taxes`"
                )),
            };
            names.taxes.insert(code.to_owned(), tax);
        }
        names
    }
}

/// A line of a sale.
pub struct SaleLine<'a> {
    /// What is sold.
    pub product: &'a SoldProduct,
    /// How much of it.
    pub quantity: Decimal,
    /// The price of one, without tax.
    pub price: Decimal,
    /// Rows of its taxes.
    pub taxes: Vec<i64>,
    /// The channel's name of the line; `None` of a charge.
    pub line: Option<&'a str>,
}

/// An order whose amounts add up; `who` names it in faults.
///
/// # Errors
/// A reject that names the order, and the line where it is about one.
pub fn check_order(order: &OrderSnapshot, who: &str) -> Result<Currency, Fault> {
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

/// The lines of the sale; prices have so many places.
///
/// # Errors
/// A reject that names the line and what the ERP lacks.
pub fn sale_lines<'a>(
    order: &'a OrderSnapshot,
    currency: Currency,
    names: &'a Names,
    places: u32,
    who: &str,
) -> Result<Vec<SaleLine<'a>>, Fault> {
    let mut made = Vec::with_capacity(order.lines.len() + order.charges.len());
    for line in &order.lines {
        let product = known(&names.products, &line.sku, || {
            format!("{who}, line {}", line.line_id)
        })?;
        let taxes = taxes_of(line, product, names, who)?;
        let net = line.line_total - line.tax;
        for (quantity, price) in prices(line.qty, net, currency, places) {
            made.push(SaleLine {
                product,
                quantity,
                price,
                taxes: taxes.clone(),
                line: Some(&line.line_id),
            });
        }
    }
    for charge in order.charges.iter().filter(|c| !is_nothing(c)) {
        let product = known(&names.charges, &charge.r#type, || {
            format!("{who}, charge {}", charge.charge_id)
        })?;
        made.push(SaleLine {
            product,
            quantity: Decimal::ONE,
            price: charge.net,
            taxes: match charge.tax.is_zero() {
                true => Vec::new(),
                false => product.taxes.clone(),
            },
            line: None,
        });
    }
    Ok(made)
}

fn is_nothing(charge: &OrderCharge) -> bool {
    charge.net.is_zero() && charge.tax.is_zero()
}

fn taxes_of(
    line: &OrderLine,
    product: &SoldProduct,
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
fn prices(
    quantity: Decimal,
    net: Decimal,
    currency: Currency,
    places: u32,
) -> Vec<(Decimal, Decimal)> {
    let price = divided(net, quantity, places);
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

/// `net / quantity` to so many places, at most four, halves to even.
fn divided(net: Decimal, quantity: Decimal, places: u32) -> Decimal {
    let step = 10_i128.pow(4_u32.saturating_sub(places));
    let (n, d) = (
        i128::from(net.units()) * i128::from(Decimal::ONE.units()),
        i128::from(quantity.units()).max(1) * step,
    );
    Decimal::from_units((half_even(n, d) * step) as i64)
}

/// Hundred-millionths, rounded to the currency's minor unit halves to even.
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

/// Whether an order event is for the ERP: what a channel or order-lifecycle says, of a channel that
/// the ERP keeps.
pub fn wants_order(event: &OrderEvent, is_kept: impl Fn(&str) -> bool) -> bool {
    let kept = |order: &OrderSnapshot| is_kept(&order.channel_id);
    match event.r#type {
        OrderEventType::Placed => event.order.as_ref().is_none_or(kept),
        OrderEventType::Amended => {
            event.erp_order_id.is_none() && event.order.as_ref().is_none_or(kept)
        }
        OrderEventType::CancelDecided => true,
        _ => false,
    }
}

/// The order in words: what people in the channel call it, and its id.
pub fn named(order: &OrderSnapshot, id: &str) -> String {
    format!(
        "order {} of {} ({id})",
        order.channel_order_id, order.channel_id
    )
}

/// The place where an order is picked up, as `find` knows it; `None` when it is not picked up.
///
/// # Errors
/// A reject when that is no place of the ERP, or there are several.
pub fn pickup<T>(
    system: &str,
    order: &OrderSnapshot,
    who: &str,
    find: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Fault> {
    let mut wanted: BTreeMap<&str, T> = BTreeMap::new();
    let used: BTreeSet<_> = order.lines.iter().map(|l| &l.delivery_group_id).collect();
    for group in order.delivery_groups.iter() {
        let picked_up = matches!(
            group.method,
            DeliveryMethod::PickupInStore
                | DeliveryMethod::Curbside
                | DeliveryMethod::ShipToStore
                | DeliveryMethod::CarryOut
        );
        let place = group.pickup_location_id.as_deref();
        if let Some(location) = place.filter(|_| picked_up && used.contains(&group.group_id)) {
            let found = find(location).ok_or_else(|| {
                let lines: Vec<&str> = order
                    .lines
                    .iter()
                    .filter(|l| l.delivery_group_id == group.group_id)
                    .map(|l| &*l.line_id)
                    .collect();
                let message = format!(
                    "{who}, line {}: {system} has no location {location}; mend `locations`, or the order in its channel, then redrive",
                    lines.join(", ")
                );
                reject(Code::UnknownReference, message)
            })?;
            wanted.insert(location, found);
        }
    }
    if wanted.len() > 1 {
        let places: Vec<&str> = wanted.into_keys().collect();
        let message = format!(
            "{who} is picked up in {}: a sale of {system} has one warehouse; split the order in its channel",
            places.join(" and ")
        );
        return Err(reject(Code::Refused, message));
    }
    Ok(wanted.into_values().next())
}

/// Whether these quantities of lines are all that the sale has of them.
pub fn covers(sold: &BTreeMap<String, Decimal>, affected: &BTreeMap<&str, Decimal>) -> bool {
    let covered = |(line, quantity): (&String, &Decimal)| {
        affected.get(&**line).is_some_and(|q| q >= quantity)
    };
    !sold.is_empty() && sold.iter().all(covered)
}

/// The lines of which a cancellation takes something, and how much.
pub fn affected(event: &OrderEvent) -> BTreeMap<&str, Decimal> {
    let affected = event.affected.iter().filter(|a| a.qty.is_positive());
    affected.map(|a| (&*a.line_id, a.qty)).collect()
}

/// Whether what the sale costs is what the customer was told, within a minor unit for each line.
pub fn agrees(order: &OrderSnapshot, total: Decimal, currency: Currency) -> bool {
    let minor = currency.minor_unit().units();
    let allowed = minor.saturating_mul(order.lines.len().max(1) as i64);
    (total - order.grand_total).units().abs() <= allowed
}

/// A record that the ERP cannot take.
pub fn reject(code: Code, message: String) -> Fault {
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
            code in prop::sample::select(vec!["EUR", "JPY", "KWD"]), places in 3_u32..5,
        ) {
            let currency = Currency::parse(code).expect("a currency");
            let minor = currency.minor_unit().units();
            let net = Decimal::from_units(net * minor);
            let quantity = Decimal::from_units(units * 10_000 + fraction * 5_000);
            let parts = prices(quantity, net, currency, places);
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
                4,
            );
            let text = |(q, p): &(Decimal, Decimal)| format!("{q} x {p}");
            parts.iter().map(text).collect::<Vec<_>>().join(" + ")
        };
        assert_eq!(of("3", "10"), "3 x 3.3333");
        assert_eq!(of("2", "24.3"), "2 x 12.15");
        assert_eq!(of("700", "100"), "699 x 0.1429 + 1 x 0.11");
    }
}
