//! Orders as Medusa's admin API gives them, and what they say.
//!
//! Medusa keeps amounts unrounded (a line of 3 × 5.03 with 20 % tax costs 18.108); people pay whole
//! minor units, so each amount is rounded once, halves up, from the exact decimal that stands beside
//! each number. An order as it was placed is its version 1; what was taken out of it later stands in its
//! changes.

use crate::connectors::storefront::{
    Cancellation, Charge, Content, Line, Movement, ShopOrder, marked,
};
use crate::contract::event::PaymentKind;
use crate::domain::money::{Currency, Money, Rounding};
use crate::domain::{Decimal, Timestamp};
use crate::pipeline::{Code, Fault, Stage};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is read of an order: nothing that says who the customer is but an id.
pub const FIELDS: &str = "id,created_at,updated_at,currency_code,customer_id,sales_channel_id,version,canceled_at,total,metadata,*items,*shipping_methods,fulfillments.id,fulfillments.metadata,fulfillments.canceled_at,fulfillments.shipped_at,fulfillments.delivered_at,*fulfillments.items,payment_collections.id,*payment_collections.payments,*payment_collections.payments.captures,*payment_collections.payments.refunds";
/// Where the key of a cancellation that Crossdock made stands in an order's metadata.
pub const CANCELLATION: &str = "crossdock_cancellation";
/// Where the shipment's id stands in a fulfilment's metadata.
pub const SHIPMENT: &str = "crossdock_shipment";

fn wrong(what: String) -> Fault {
    Fault::reject(Stage::Decode, Code::Malformed, what)
}

/// A decimal as it is written, rounded once to `places`, halves away from zero.
pub fn decimal(text: &str, places: u32) -> Option<Decimal> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let places = places.min(Decimal::SCALE) as usize;
    let kept = &fraction[..fraction.len().min(places)];
    let up = fraction.as_bytes().get(places).is_some_and(|d| *d >= b'5');
    let rounded: Decimal = format!("{whole}.{kept}0").parse().ok()?;
    let step = 10i64.pow(Decimal::SCALE - places as u32);
    let units = rounded.units().checked_add(if up { step } else { 0 })?;
    Some(Decimal::from_units(if negative { -units } else { units }))
}

/// The text of a number: the exact decimal beside it where there is one, else as it is written.
fn number(row: &Value, name: &str) -> Option<String> {
    let raw = &row[format!("raw_{name}").as_str()]["value"];
    match (raw, &row[name]) {
        (Value::String(text), _) => Some(text.clone()),
        (Value::Number(number), _) | (_, Value::Number(number)) => Some(number.to_string()),
        _ => None,
    }
}

fn exact(row: &Value, name: &str) -> Result<Decimal, Fault> {
    let text = number(row, name).and_then(|text| decimal(&text, Decimal::SCALE));
    text.ok_or_else(|| wrong(format!("{name} is {}, which is no number", row[name])))
}

/// An amount in whole minor units.
pub fn amount(row: &Value, name: &str, currency: Currency) -> Result<Decimal, Fault> {
    let text = number(row, name).and_then(|text| decimal(&text, currency.exponent()));
    text.ok_or_else(|| wrong(format!("{name} is {}, which is no amount", row[name])))
}

pub fn currency(order: &Value) -> Result<Currency, Fault> {
    let code = text(&order["currency_code"]).to_uppercase();
    Currency::parse(&code).map_err(|e| wrong(e.to_string()))
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A time of the API.
pub fn time(value: &Value) -> Option<Timestamp> {
    let time: jiff::Timestamp = value.as_str()?.parse().ok()?;
    Some(Timestamp(time.as_microsecond()))
}

fn needed_time(value: &Value) -> Result<Timestamp, Fault> {
    time(value).ok_or_else(|| wrong(format!("{value} is no time")))
}

/// An order with what it takes to tell its history.
pub struct Whole {
    /// As it is.
    pub now: Value,
    /// As it was placed.
    pub placed: Value,
    /// Its changes.
    pub changes: Vec<Value>,
}

impl Whole {
    pub fn to_json(&self) -> Value {
        json!({"now": self.now, "placed": self.placed, "changes": self.changes})
    }
}

/// What an order says.
pub fn read(whole: &Whole) -> Result<Option<ShopOrder>, Fault> {
    let order = &whole.now;
    let currency = currency(order)?;
    let edits: Vec<&Value> = whole.changes.iter().filter(|c| is_edit(c)).collect();
    let cancellations = cancellations(order, &edits)?;
    let added = edits.iter().rfind(|c| list(&c["actions"]).iter().any(adds));
    let amended = added.map(|change| {
        let id = format!("change/{}", text(&change["id"]));
        let at = needed_time(&change["confirmed_at"])?;
        let content = since(whole, &cancelled_units(&cancellations), currency)?;
        Ok::<_, Fault>((id, at, content))
    });
    Ok(Some(ShopOrder {
        number: text(&order["id"]),
        customer: order["customer_id"].as_str().map(str::to_owned),
        placed_at: needed_time(&order["created_at"])?,
        currency: currency.code().to_owned(),
        shipping_method: whole.placed["shipping_methods"][0]["shipping_option_id"]
            .as_str()
            .map(str::to_owned),
        placed: content(&whole.placed, currency)?,
        amended: amended.transpose()?,
        movements: movements(order, currency)?,
        cancellations,
    }))
}

fn is_edit(change: &Value) -> bool {
    change["change_type"] == "edit" && !change["confirmed_at"].is_null()
}

/// Units by which an action changes a line.
fn difference(action: &Value) -> Option<(String, Decimal)> {
    let details = &action["details"];
    let text_of = number(details, "quantity_diff")?;
    let quantity = decimal(&text_of, Decimal::SCALE)?;
    (action["action"] == "ITEM_UPDATE").then(|| (text(&details["reference_id"]), quantity))
}

fn adds(action: &Value) -> bool {
    let more = difference(action).is_some_and(|(_, quantity)| quantity.is_positive());
    let new = ["ITEM_ADD", "SHIPPING_ADD"]
        .iter()
        .any(|a| action["action"] == **a);
    more || new
}

fn cancellations(order: &Value, edits: &[&Value]) -> Result<Vec<Cancellation>, Fault> {
    let mut found = Vec::new();
    for change in edits {
        let taken = list(&change["actions"]).iter().filter_map(difference);
        let taken = taken.filter(|(_, quantity)| quantity.is_negative());
        let lines: Vec<(String, Decimal)> = taken.map(|(line, q)| (line, -q)).collect();
        if lines.is_empty() {
            continue;
        }
        let words = change["description"].as_str().filter(|w| !w.is_empty());
        found.push(Cancellation {
            id: format!("change/{}", text(&change["id"])),
            at: needed_time(&change["confirmed_at"])?,
            lines,
            reason: words.map(str::to_owned),
            ours: words.is_some_and(|w| marked(w).is_some()),
        });
    }
    if !order["canceled_at"].is_null() {
        let of = |row: &Value| Ok((text(&row["id"]), exact(row, "quantity")?));
        let lines = list(&order["items"]).iter().map(of);
        found.push(Cancellation {
            id: "cancelled".into(),
            at: needed_time(&order["canceled_at"])?,
            lines: lines.collect::<Result<_, Fault>>()?,
            reason: None,
            ours: order["metadata"][CANCELLATION].is_string(),
        });
    }
    Ok(found)
}

/// Units of each line that were cancelled.
pub fn cancelled_units(cancellations: &[Cancellation]) -> BTreeMap<String, Decimal> {
    let mut sums: BTreeMap<String, Decimal> = BTreeMap::new();
    for (line, quantity) in cancellations.iter().flat_map(|c| &c.lines) {
        *sums.entry(line.clone()).or_default() += *quantity;
    }
    sums
}

/// Units of each line that were cancelled, whoever did it.
pub fn all_cancelled(whole: &Whole) -> Result<BTreeMap<String, Decimal>, Fault> {
    let edits: Vec<&Value> = whole.changes.iter().filter(|c| is_edit(c)).collect();
    Ok(cancelled_units(&cancellations(&whole.now, &edits)?))
}

fn content(order: &Value, currency: Currency) -> Result<Content, Fault> {
    let rows = list(&order["items"]);
    let inclusive = rows.iter().all(|r| r["is_tax_inclusive"] == true);
    let lines = rows.iter().map(|row| line(row, inclusive, currency));
    let charges = list(&order["shipping_methods"]).iter();
    let charges = charges.map(|row| charge(row, currency));
    // The sum of what is not rounded, rounded once.
    let shipping = list(&order["shipping_methods"]).iter();
    let totals = rows.iter().chain(shipping).map(|row| exact(row, "total"));
    let total: Decimal = totals.collect::<Result<Vec<_>, _>>()?.into_iter().sum();
    Ok(Content {
        prices_include_tax: inclusive,
        lines: lines.collect::<Result<_, _>>()?,
        charges: charges.collect::<Result<_, _>>()?,
        grand_total: round(total, currency)?,
    })
}

/// The amount of a capture or refund, with parts of a minor unit, cut to four places.
pub fn exact_amount(row: &Value) -> Decimal {
    let text = number(row, "amount").unwrap_or_default();
    let cut = text
        .find('.')
        .map_or(text.len(), |dot| text.len().min(dot + 5));
    decimal(&text[..cut], Decimal::SCALE).unwrap_or_default()
}

pub fn round(amount: Decimal, currency: Currency) -> Result<Decimal, Fault> {
    let rounded = Money::round(amount, currency, Rounding::HalfUp);
    rounded.map(Money::amount).map_err(|e| wrong(e.to_string()))
}

fn line(row: &Value, inclusive: bool, currency: Currency) -> Result<Line, Fault> {
    let quantity = exact(row, "quantity")?;
    let (tax, total) = (
        amount(row, "tax_total", currency)?,
        amount(row, "total", currency)?,
    );
    let unit_price = match (row["is_tax_inclusive"] == true, inclusive) {
        (own, mode) if own == mode => exact(row, "unit_price")?,
        // Among lines without tax in their prices, one with it is told without.
        _ => exact(row, "subtotal")?.times(reciprocal(quantity)),
    };
    let added = if inclusive { Decimal::ZERO } else { tax };
    let discounted = !exact(row, "discount_total")?.is_zero();
    let discount = match discounted {
        true => round(quantity.times(unit_price) + added - total, currency)?,
        false => Decimal::ZERO,
    };
    Ok(Line {
        id: text(&row["id"]),
        sku: text(&row["variant_sku"]),
        quantity,
        unit_price,
        discount,
        tax,
        total,
    })
}

/// 1 / quantity, to four places.
fn reciprocal(quantity: Decimal) -> Decimal {
    let one = i128::from(Decimal::ONE.units());
    let divisor = i128::from(quantity.units().max(1));
    Decimal::from_units(i64::try_from((one * one + divisor / 2) / divisor).unwrap_or(i64::MAX))
}

fn charge(row: &Value, currency: Currency) -> Result<Charge, Fault> {
    let (tax, total) = (
        amount(row, "tax_total", currency)?,
        amount(row, "total", currency)?,
    );
    Ok(Charge {
        id: format!("shipping/{}", text(&row["id"])),
        kind: "SHIPPING",
        net: total - tax,
        tax,
    })
}

/// The order since it was changed, with the units that were cancelled.
fn since(
    whole: &Whole,
    cancelled: &BTreeMap<String, Decimal>,
    currency: Currency,
) -> Result<Content, Fault> {
    let mut now = content(&whole.now, currency)?;
    let placed = content(&whole.placed, currency)?;
    let gone = placed
        .lines
        .into_iter()
        .filter(|l| now.lines.iter().all(|n| n.id != l.id));
    let gone: Vec<Line> = gone.collect();
    now.lines.extend(gone.into_iter().map(|line| Line {
        quantity: Decimal::ZERO,
        ..line
    }));
    for line in &mut now.lines {
        let more = cancelled.get(&line.id).copied().unwrap_or_default();
        // Cancelled as a whole, an order keeps its lines.
        let kept = match whole.now["canceled_at"].is_null() {
            true => line.quantity + more,
            false => line.quantity.max(more),
        };
        if kept == line.quantity {
            continue;
        }
        scale(line, kept, now.prices_include_tax, currency)?;
    }
    now.lines.retain(|l| l.quantity.is_positive());
    let lines = now.lines.iter().map(|l| l.total).sum::<Decimal>();
    now.grand_total = lines + now.charges.iter().map(|c| c.net + c.tax).sum::<Decimal>();
    Ok(now)
}

/// The line with another quantity at the price of a unit.
fn scale(
    line: &mut Line,
    quantity: Decimal,
    inclusive: bool,
    currency: Currency,
) -> Result<(), Fault> {
    let before = line.quantity;
    let share = |amount: Decimal| -> Result<Decimal, Fault> {
        if before.is_zero() {
            return Ok(amount);
        }
        let money = Money::new(amount, currency).map_err(|e| wrong(e.to_string()))?;
        let shared = money.share(quantity, before, Rounding::HalfUp);
        shared.map(Money::amount).map_err(|e| wrong(e.to_string()))
    };
    (line.tax, line.discount) = (share(line.tax)?, share(line.discount)?);
    line.quantity = quantity;
    let added = if inclusive { Decimal::ZERO } else { line.tax };
    line.total = round(
        quantity.times(line.unit_price) - line.discount + added,
        currency,
    )?;
    Ok(())
}

/// The provider's name of a movement begins with the payment's: by it the payment is found again.
pub fn reference(payment: &Value, part: &Value) -> String {
    format!("{}/{}", text(&payment["id"]), text(&part["id"]))
}

/// The payment's id in the name of one of its movements.
pub fn payment_of(reference: &str) -> &str {
    reference.split('/').next().unwrap_or_default()
}

fn movements(order: &Value, currency: Currency) -> Result<Vec<Movement>, Fault> {
    let mut movements = Vec::new();
    let collections = list(&order["payment_collections"]).iter();
    for payment in collections.flat_map(|c| list(&c["payments"])) {
        let authorised = Movement {
            payment: text(&payment["id"]),
            method: text(&payment["provider_id"]),
            kind: PaymentKind::Authorised,
            amount: amount(payment, "amount", currency)?,
            reference: text(&payment["id"]),
            at: needed_time(&payment["created_at"])?,
            refund_key: None,
            allocations: Vec::new(),
            reason: None,
        };
        for capture in list(&payment["captures"]) {
            movements.push(Movement {
                kind: PaymentKind::Captured,
                amount: amount(capture, "amount", currency)?,
                reference: reference(payment, capture),
                at: needed_time(&capture["created_at"])?,
                ..authorised.clone()
            });
        }
        if let Some(at) = time(&payment["canceled_at"]) {
            movements.push(Movement {
                kind: PaymentKind::Voided,
                at,
                ..authorised.clone()
            });
        }
        for refund in list(&payment["refunds"]) {
            let note = refund["note"].as_str().filter(|n| !n.is_empty());
            movements.push(Movement {
                kind: PaymentKind::Refunded,
                amount: amount(refund, "amount", currency)?,
                reference: reference(payment, refund),
                at: needed_time(&refund["created_at"])?,
                refund_key: note.and_then(marked).map(str::to_owned),
                reason: note.map(str::to_owned),
                ..authorised.clone()
            });
        }
        movements.push(authorised);
    }
    movements.sort_by_key(|m| m.at);
    Ok(movements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_rounded_once_from_what_is_written() {
        for (text, places, expected) in [
            ("18.108", 2, "18.11"),
            ("18.1", 2, "18.1"),
            ("3.0449999999999999", 2, "3.04"),
            ("0.00499996", 2, "0"),
            ("-0.005", 2, "-0.01"),
            ("9.995", 2, "10"),
            ("2", 0, "2"),
            ("1234567890123.4567", 4, "1234567890123.4567"),
        ] {
            let expected: Decimal = expected.parse().expect("a number");
            assert_eq!(decimal(text, places), Some(expected), "{text}");
        }
        for text in ["", "1e-7", "NaN", "1.2.3", "--1"] {
            assert_eq!(decimal(text, 2), None, "{text}");
        }
    }
}
