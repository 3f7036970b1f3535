//! Orders as Vendure's admin API gives them, and what they say.
//!
//! What became of payments, refunds and cancellations, and when, is in an order's history: states alone
//! would tell only the last of it.

use crate::connectors::storefront::{
    Cancellation, Charge, Content, Line, Movement, ShopOrder, marked,
};
use crate::contract::event::{PaymentKind, RefundAllocation, RefundType};
use crate::domain::{Decimal, Timestamp};
use crate::pipeline::{Code, Fault, Stage};
use serde_json::Value;
use std::collections::BTreeMap;

/// What is read of an order: nothing that says who the customer is but an id.
pub const FIELDS: &str = "id code state orderPlacedAt currencyCode customer{id} totalWithTax
lines{id quantity orderPlacedQuantity productVariant{sku} unitPrice unitPriceWithTax linePrice linePriceWithTax proratedUnitPrice proratedUnitPriceWithTax proratedLinePrice proratedLinePriceWithTax taxRate}
shippingLines{id price priceWithTax discountedPrice discountedPriceWithTax shippingMethod{code}}
surcharges{id price priceWithTax}
payments{id createdAt method amount state transactionId refunds{id updatedAt total state transactionId reason lines{orderLineId quantity}}}
fulfillments{id state method trackingCode lines{orderLineId quantity}}
history(options:{take:1000,sort:{createdAt:ASC,id:ASC}}){items{id type createdAt data}}";

/// Amounts are whole numbers of this many decimal places.
#[derive(Clone, Copy, Debug)]
pub struct Places(pub u32);

impl Places {
    /// An amount of the API.
    pub fn amount(self, value: &Value) -> Result<Decimal, Fault> {
        let units = 10i64.checked_pow(Decimal::SCALE.saturating_sub(self.0));
        let amount = value
            .as_i64()
            .zip(units)
            .and_then(|(a, u)| a.checked_mul(u));
        amount
            .map(Decimal::from_units)
            .ok_or_else(|| wrong(format!("{value} is no amount")))
    }

    /// An amount for the API; `None` when it has parts of its smallest unit.
    pub fn units(self, amount: Decimal) -> Option<i64> {
        let units = 10i64.checked_pow(Decimal::SCALE.saturating_sub(self.0))?;
        (amount.units() % units == 0).then_some(amount.units() / units)
    }
}

fn wrong(what: String) -> Fault {
    Fault::reject(Stage::Decode, Code::Malformed, what)
}

/// A text or a number as a text: ids stand as numbers in the history.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// A time of the API.
pub fn time(value: &Value) -> Option<Timestamp> {
    let time: jiff::Timestamp = value.as_str()?.parse().ok()?;
    Some(Timestamp(time.as_microsecond()))
}

fn needed_time(value: &Value) -> Result<Timestamp, Fault> {
    time(value).ok_or_else(|| wrong(format!("{value} is no time")))
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn units(value: &Value) -> Decimal {
    let whole = value.as_i64().and_then(|q| i32::try_from(q).ok());
    whole.map_or(Decimal::ZERO, Decimal::from)
}

/// What an order says; `None` when it has not been placed.
pub fn read(order: &Value, places: Places) -> Result<Option<ShopOrder>, Fault> {
    if order["orderPlacedAt"].is_null() {
        return Ok(None);
    }
    let history = list(&order["history"]["items"]);
    let cancellations = cancellations(history)?;
    let cancelled = cancelled_units(&cancellations);
    let content = |which| content(order, which, &cancelled, places);
    let modified = history.iter().rfind(|h| h["type"] == "ORDER_MODIFIED");
    let amended = modified.map(|entry| {
        let id = format!("modification/{}", text(&entry["id"]));
        let at = needed_time(&entry["createdAt"])?;
        Ok::<_, Fault>((id, at, content(Which::Amended)?))
    });
    Ok(Some(ShopOrder {
        number: text(&order["code"]),
        customer: order["customer"]["id"].as_str().map(str::to_owned),
        placed_at: needed_time(&order["orderPlacedAt"])?,
        currency: text(&order["currencyCode"]),
        shipping_method: order["shippingLines"][0]["shippingMethod"]["code"]
            .as_str()
            .map(str::to_owned),
        placed: content(Which::Placed)?,
        amended: amended.transpose()?,
        movements: movements(order, history, places)?,
        cancellations,
    }))
}

/// Units of each line that were cancelled.
pub fn cancelled_units(cancellations: &[Cancellation]) -> BTreeMap<String, Decimal> {
    let mut sums: BTreeMap<String, Decimal> = BTreeMap::new();
    for (line, quantity) in cancellations.iter().flat_map(|c| &c.lines) {
        *sums.entry(line.clone()).or_default() += *quantity;
    }
    sums
}

/// The cancellations of an order's history.
pub fn cancellations(history: &[Value]) -> Result<Vec<Cancellation>, Fault> {
    let entries = history.iter().filter(|h| h["type"] == "ORDER_CANCELLATION");
    entries
        .map(|entry| {
            let data = &entry["data"];
            let reason = data["reason"].as_str().filter(|r| !r.is_empty());
            let of = |l: &Value| (text(&l["orderLineId"]), units(&l["quantity"]));
            Ok(Cancellation {
                id: format!("cancellation/{}", text(&entry["id"])),
                at: needed_time(&entry["createdAt"])?,
                lines: list(&data["lines"]).iter().map(of).collect(),
                reason: reason.map(str::to_owned),
                ours: reason.is_some_and(|r| marked(r).is_some()),
            })
        })
        .collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Which {
    Placed,
    Amended,
}

fn content(
    order: &Value,
    which: Which,
    cancelled: &BTreeMap<String, Decimal>,
    places: Places,
) -> Result<Content, Fault> {
    let rows = list(&order["lines"]);
    // Vendure rounds a line once: from the net price or from the price with tax, whichever the channel
    // keeps. The other does not multiply to the line.
    let fits = |price: &str, line: &str| {
        rows.iter().all(|r| {
            let product = r[price].as_i64().zip(r["quantity"].as_i64());
            product.map(|(p, q)| p * q) == r[line].as_i64()
        })
    };
    let inclusive = !fits("unitPrice", "linePrice") && fits("unitPriceWithTax", "linePriceWithTax");
    let mut whole = true;
    let mut lines = Vec::new();
    for row in rows {
        let now = units(&row["quantity"]);
        let quantity = match which {
            Which::Placed => units(&row["orderPlacedQuantity"]),
            Which::Amended => {
                now + cancelled
                    .get(&text(&row["id"]))
                    .copied()
                    .unwrap_or_default()
            }
        };
        whole &= quantity == now;
        if quantity.is_positive() {
            lines.push(line(row, quantity, quantity == now, inclusive, places)?);
        }
    }
    let (charges, unchanged) = charges(order, places)?;
    let grand_total = match whole && unchanged {
        true => places.amount(&order["totalWithTax"])?,
        false => {
            let lines = lines.iter().map(|l| l.total).sum::<Decimal>();
            lines + charges.iter().map(|c| c.net + c.tax).sum::<Decimal>()
        }
    };
    Ok(Content {
        prices_include_tax: inclusive,
        lines,
        charges,
        grand_total,
    })
}

fn line(
    row: &Value,
    quantity: Decimal,
    as_is: bool,
    inclusive: bool,
    places: Places,
) -> Result<Line, Fault> {
    let amount = |name: &str| places.amount(&row[name]);
    let (price, prorated) = match inclusive {
        true => ("unitPriceWithTax", "proratedUnitPriceWithTax"),
        false => ("unitPrice", "proratedUnitPrice"),
    };
    let unit_price = amount(price)?;
    let (before, net, total) = match (as_is, inclusive) {
        (true, false) => ("linePrice", "proratedLinePrice", "proratedLinePriceWithTax"),
        (true, true) => (
            "linePriceWithTax",
            "proratedLinePrice",
            "proratedLinePriceWithTax",
        ),
        // The shop keeps no sums of what was cancelled since.
        (false, _) => {
            let sold = quantity.times(amount(prorated)?);
            let rate = rate(&row["taxRate"])?;
            let tax = tax(sold, rate, inclusive, places);
            let total = match inclusive {
                true => sold,
                false => sold + tax,
            };
            return Ok(Line {
                id: text(&row["id"]),
                sku: text(&row["productVariant"]["sku"]),
                quantity,
                unit_price,
                discount: quantity.times(unit_price) - sold,
                tax,
                total,
            });
        }
    };
    let (before, net, total) = (amount(before)?, amount(net)?, amount(total)?);
    let after = if inclusive { total } else { net };
    Ok(Line {
        id: text(&row["id"]),
        sku: text(&row["productVariant"]["sku"]),
        quantity,
        unit_price,
        discount: before - after,
        tax: total - net,
        total,
    })
}

/// Percent, exactly as written.
fn rate(value: &Value) -> Result<Decimal, Fault> {
    let rate = value
        .as_number()
        .map(ToString::to_string)
        .unwrap_or_default();
    rate.parse()
        .map_err(|_| wrong(format!("{value} is no tax rate")))
}

/// The tax on an amount, or contained in it, in whole units of the shop, halves away from zero.
fn tax(amount: Decimal, rate: Decimal, contained: bool, places: Places) -> Decimal {
    let unit = 10i128.pow(Decimal::SCALE.saturating_sub(places.0));
    let hundred = 1_000_000i128;
    let base = match contained {
        true => hundred + i128::from(rate.units()),
        false => hundred,
    };
    let numerator = i128::from(amount.units()) * i128::from(rate.units());
    let divisor = base * unit;
    let half = if numerator < 0 {
        -divisor / 2
    } else {
        divisor / 2
    };
    let units = (numerator + half) / divisor * unit;
    Decimal::from_units(i64::try_from(units).unwrap_or(i64::MAX))
}

/// Shipping and surcharges, and whether they are as they were when the order was placed.
fn charges(order: &Value, places: Places) -> Result<(Vec<Charge>, bool), Fault> {
    let mut charges = Vec::new();
    let history = list(&order["history"]["items"]).iter();
    let cancelled = history
        .filter(|h| h["type"] == "ORDER_CANCELLATION")
        .any(|h| h["data"]["shippingCancelled"] == true);
    let (net, gross) = match cancelled {
        true => ("price", "priceWithTax"),
        false => ("discountedPrice", "discountedPriceWithTax"),
    };
    for row in list(&order["shippingLines"]) {
        let net = places.amount(&row[net])?;
        charges.push(Charge {
            id: format!("shipping/{}", text(&row["id"])),
            kind: "SHIPPING",
            net,
            tax: places.amount(&row[gross])? - net,
        });
    }
    for row in list(&order["surcharges"]) {
        let net = places.amount(&row["price"])?;
        charges.push(Charge {
            id: format!("surcharge/{}", text(&row["id"])),
            kind: "SURCHARGE",
            net,
            tax: places.amount(&row["priceWithTax"])? - net,
        });
    }
    Ok((charges, !cancelled))
}

/// The provider's name of a payment or refund; where it gave none, or gave one twice, the shop's own.
pub fn reference<'a>(
    order: &Value,
    kind: &str,
    row: &Value,
    all: impl Iterator<Item = &'a Value>,
) -> String {
    let given = row["transactionId"].as_str().filter(|t| !t.is_empty());
    let is_it = |other: &&Value| other["transactionId"].as_str() == given;
    match given.filter(|_| all.filter(is_it).count() == 1) {
        Some(given) => given.to_owned(),
        None => format!("{}/{kind}/{}", text(&order["code"]), text(&row["id"])),
    }
}

/// The reference of a payment.
pub fn payment_reference(order: &Value, payment: &Value) -> String {
    reference(order, "payment", payment, list(&order["payments"]).iter())
}

fn movements(order: &Value, history: &[Value], places: Places) -> Result<Vec<Movement>, Fault> {
    let payments = list(&order["payments"]);
    let all_refunds = || payments.iter().flat_map(|p| list(&p["refunds"]));
    let mut movements = Vec::new();
    for payment in payments {
        let base = Movement {
            payment: text(&payment["id"]),
            method: text(&payment["method"]),
            kind: PaymentKind::Unknown,
            amount: places.amount(&payment["amount"])?,
            reference: payment_reference(order, payment),
            at: needed_time(&payment["createdAt"])?,
            refund_key: None,
            allocations: Vec::new(),
            reason: None,
        };
        let id = text(&payment["id"]);
        let of_payment = history.iter().filter(|h| {
            h["type"] == "ORDER_PAYMENT_TRANSITION" && text(&h["data"]["paymentId"]) == id
        });
        for entry in of_payment {
            let Some(kind) = entry["data"]["to"].as_str().and_then(payment_kind) else {
                continue;
            };
            movements.push(Movement {
                kind,
                at: needed_time(&entry["createdAt"])?,
                ..base.clone()
            });
        }
        for refund in list(&payment["refunds"]) {
            let kind = match refund["state"].as_str() {
                Some("Settled") => PaymentKind::Refunded,
                Some("Failed") => PaymentKind::RefundFailed,
                // Somebody must still pay it.
                _ => continue,
            };
            let id = text(&refund["id"]);
            let entry = history.iter().rfind(|h| {
                h["type"] == "ORDER_REFUND_TRANSITION" && text(&h["data"]["refundId"]) == id
            });
            let at = entry.map_or(&refund["updatedAt"], |entry| &entry["createdAt"]);
            let reason = refund["reason"].as_str().filter(|r| !r.is_empty());
            let amount = places.amount(&refund["total"])?;
            movements.push(Movement {
                kind,
                amount,
                reference: reference(order, "refund", refund, all_refunds()),
                at: needed_time(at)?,
                refund_key: reason.and_then(marked).map(str::to_owned),
                allocations: allocations(order, refund, amount, places)?,
                reason: reason.map(str::to_owned),
                ..base.clone()
            });
        }
    }
    Ok(movements)
}

fn payment_kind(state: &str) -> Option<PaymentKind> {
    Some(match state {
        "Authorized" => PaymentKind::Authorised,
        "Settled" => PaymentKind::Captured,
        "Declined" | "Error" => PaymentKind::AuthFailed,
        "Cancelled" => PaymentKind::Voided,
        _ => return None,
    })
}

/// What a refund is for, where its lines make its amount exactly; else nobody can say.
fn allocations(
    order: &Value,
    refund: &Value,
    total: Decimal,
    places: Places,
) -> Result<Vec<RefundAllocation>, Fault> {
    let mut allocations = Vec::new();
    for refunded in list(&refund["lines"]) {
        let id = text(&refunded["orderLineId"]);
        let Some(row) = list(&order["lines"]).iter().find(|l| l["id"] == *id) else {
            return Ok(Vec::new());
        };
        let quantity = units(&refunded["quantity"]);
        let net = quantity.times(places.amount(&row["proratedUnitPrice"])?);
        let gross = quantity.times(places.amount(&row["proratedUnitPriceWithTax"])?);
        allocations.push(RefundAllocation {
            order_line_id: Some(id.into()),
            qty: quantity,
            net,
            tax: gross - net,
            r#type: RefundType::Item,
        });
    }
    let sum: Decimal = allocations.iter().map(|a| a.net + a.tax).sum();
    if sum != total {
        allocations.clear();
    }
    Ok(allocations)
}
