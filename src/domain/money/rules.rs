//! What the amounts of an order, a refund and a payout must satisfy (DOMAIN.md §2, data quality).
//!
//! Every rule is a function that gives the first thing it finds broken, in words that name the line,
//! what was expected and what stands there.

use super::{Currency, Money, MoneyError, Rounding};
use crate::domain::Decimal;

/// Whether the prices of an order's lines contain the tax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaxMode {
    /// The unit price contains the tax: a till's price.
    Inclusive,
    /// Tax is added to the price: an invoice between businesses.
    Exclusive,
}

/// A line of an order as its channel tells it. The total is what the customer pays for it, tax
/// included in both modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Which line.
    pub id: &'a str,
    /// Units ordered.
    pub quantity: Decimal,
    /// Price of one, which may have parts of a minor unit.
    pub unit_price: Decimal,
    /// Taken off the line as a whole.
    pub discount: Decimal,
    /// Tax on the line as a whole.
    pub tax: Decimal,
    /// What the channel says the line costs.
    pub total: Decimal,
}

/// A rule that amounts break.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An amount that is none.
    #[error("{field}: {cause}")]
    Amount {
        /// Where it stands.
        field: String,
        /// What is wrong with it.
        cause: MoneyError,
    },
    /// A line's total does not follow from its price.
    #[error(
        "line {line}: quantity, price, discount and tax make {expected}, the total says {stated}"
    )]
    LineTotal {
        /// Which line.
        line: String,
        /// What its parts make.
        expected: Money,
        /// What it says.
        stated: Money,
    },
    /// An order's total is not the sum of its lines and charges.
    #[error("lines and charges make {expected}, grandTotal says {stated}")]
    GrandTotal {
        /// What lines and charges make.
        expected: Money,
        /// What the order says.
        stated: Money,
    },
    /// A refund is not the sum of its allocations.
    #[error("the allocations make {expected}, the amount says {stated}")]
    RefundAmount {
        /// What the allocations make.
        expected: Money,
        /// What the refund says.
        stated: Money,
    },
    /// A payout's control row and its lines disagree.
    #[error("the {lines} lines make {expected}, the control row says {stated} in {count} lines")]
    Payout {
        /// Lines that came.
        lines: i64,
        /// What they make.
        expected: Money,
        /// What the control row says.
        stated: Money,
        /// Lines that it counts.
        count: i64,
    },
}

/// What a line costs the customer: quantity × unit price − discount, and the tax where the price
/// does not contain it, rounded once.
///
/// # Errors
/// When the result has more than eighteen digits.
pub fn line_total(line: &Line<'_>, mode: TaxMode, currency: Currency) -> Result<Money, MoneyError> {
    let price = i128::from(line.quantity.units()) * i128::from(line.unit_price.units());
    let added = match mode {
        TaxMode::Inclusive => Decimal::ZERO,
        TaxMode::Exclusive => line.tax,
    };
    let one = i128::from(Decimal::ONE.units());
    let rest = (i128::from(added.units()) - i128::from(line.discount.units())) * one;
    Money::quotient(price + rest, one, currency, Rounding::HalfUp)
}

/// The tax contained in `gross` at `rate` (0.19 for 19 %), rounded once.
///
/// # Errors
/// When `rate` is −1 or less, or the result has more than eighteen digits.
pub fn tax_contained(gross: Money, rate: Decimal) -> Result<Money, MoneyError> {
    let whole = Decimal::ONE + rate;
    if !whole.is_positive() {
        return Err(MoneyError::Weights);
    }
    gross.share(rate, whole, Rounding::HalfUp)
}

/// |quantity × price − discount (+ tax where exclusive) − total| ≤ 1 minor unit for each line, and
/// |Σ lines + Σ charges − grand total| ≤ max(1, lines) minor units.
///
/// # Errors
/// The first rule found broken. An amount with parts of a minor unit breaks one as well, except in a
/// unit price.
pub fn check_order(
    lines: &[Line<'_>],
    charges: &[(Decimal, Decimal)],
    grand_total: Decimal,
    mode: TaxMode,
    currency: Currency,
) -> Result<(), Broken> {
    let mut sum = Money::zero(currency);
    for line in lines {
        let field = |name| format!("line {}: {name}", line.id);
        let stated = amount(line.total, currency, || field("lineTotal"))?;
        amount(line.tax, currency, || field("tax"))?;
        amount(line.discount, currency, || field("discount"))?;
        let expected =
            line_total(line, mode, currency).map_err(|cause| broken(field("lineTotal"), cause))?;
        if !within(expected, stated, 1) {
            return Err(Broken::LineTotal {
                line: line.id.into(),
                expected,
                stated,
            });
        }
        sum = sum
            .plus(stated)
            .map_err(|cause| broken("grandTotal".into(), cause))?;
    }
    for (net, tax) in charges {
        for part in [net, tax] {
            let part = amount(*part, currency, || "charge".into())?;
            sum = sum
                .plus(part)
                .map_err(|cause| broken("grandTotal".into(), cause))?;
        }
    }
    let stated = amount(grand_total, currency, || "grandTotal".into())?;
    match within(sum, stated, lines.len().max(1)) {
        true => Ok(()),
        false => Err(Broken::GrandTotal {
            expected: sum,
            stated,
        }),
    }
}

/// The amount of a refund is the exact sum of its allocations, each with its net and tax.
///
/// # Errors
/// The first rule found broken.
pub fn check_refund(stated: Money, allocations: &[(Decimal, Decimal)]) -> Result<(), Broken> {
    let currency = stated.currency();
    let mut expected = Money::zero(currency);
    for part in allocations.iter().flat_map(|(net, tax)| [net, tax]) {
        let part = amount(*part, currency, || "allocation".into())?;
        expected = expected
            .plus(part)
            .map_err(|cause| broken("amount".into(), cause))?;
    }
    match expected == stated {
        true => Ok(()),
        false => Err(Broken::RefundAmount { expected, stated }),
    }
}

/// The control row of a payout counts its `lines` and states their `sum`, exactly.
///
/// # Errors
/// When it does not.
pub fn check_payout(lines: i64, sum: Money, count: i64, stated: Money) -> Result<(), Broken> {
    match sum == stated && count == lines {
        true => Ok(()),
        false => Err(Broken::Payout {
            lines,
            expected: sum,
            stated,
            count,
        }),
    }
}

/// Whether two amounts of one currency differ by at most `minor_units`.
pub fn within(left: Money, right: Money, minor_units: usize) -> bool {
    let tolerance = i128::from(left.currency().minor_unit().units()) * minor_units as i128;
    left.minus(right)
        .is_ok_and(|d| i128::from(d.amount().units()).abs() <= tolerance)
}

fn amount(
    amount: Decimal,
    currency: Currency,
    field: impl Fn() -> String,
) -> Result<Money, Broken> {
    Money::new(amount, currency).map_err(|cause| broken(field(), cause))
}

fn broken(field: String, cause: MoneyError) -> Broken {
    Broken::Amount { field, cause }
}
