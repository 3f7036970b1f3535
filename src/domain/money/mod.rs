//! Money: an exact amount with its currency. Two currencies never meet in one sum.
//!
//! An amount that somebody pays is a whole number of the currency's minor units ([`Money::new`]
//! refuses others); what a formula gives is rounded to that first ([`Money::round`]). What must be
//! shared out is shared by [`Money::apportion`], whose parts always sum to the whole. What order
//! lines, refunds and payouts must satisfy stands in [`rules`].
//!
//! Arithmetic is checked: unlike [`Decimal`]'s it never saturates.

mod currency;
pub mod rules;

pub use currency::Currency;

use super::Decimal;
use super::encoding::{Read, Reader, Stored};
use std::cmp::Reverse;
use std::fmt;

/// Why an amount is not money, or a sum cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// No currency in circulation has this code.
    #[error("{0:?} is not a currency of ISO 4217; write its three capital letters")]
    UnknownCurrency(String),
    /// The amount has parts of a minor unit.
    #[error(
        "{amount} {currency} is no whole number of minor units: {currency} has {exponent} decimal places"
    )]
    Precision {
        /// The amount.
        amount: Decimal,
        /// Its currency.
        currency: Currency,
        /// Decimal places of the currency.
        exponent: u32,
    },
    /// Two currencies in one sum.
    #[error("{left} and {right} cannot be added or compared; convert one of them first")]
    Mixed {
        /// Currency of the one.
        left: Currency,
        /// Currency of the other.
        right: Currency,
    },
    /// The result has more than eighteen digits.
    #[error("the amount has more than eighteen digits")]
    Overflow,
    /// Nothing to share by: no weights, all of them zero, or one of them negative.
    #[error(
        "an amount can be shared only by weights of which none is negative and one is positive"
    )]
    Weights,
}

/// How a part of a minor unit is rounded.
///
/// Prices, tax and discounts are rounded half up (away from zero), as invoices and tills do and tax
/// authorities ask for. Half-even is for figures that are summed in masses, such as amounts converted
/// between currencies, where always rounding halves up would add up to a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Halves away from zero.
    HalfUp,
    /// Halves to the even neighbour.
    HalfEven,
}

/// An amount of a currency: a whole number of its minor units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Money {
    // First, so that lists of money are in order of currency.
    currency: Currency,
    amount: Decimal,
}

impl Money {
    /// `amount` of `currency`.
    ///
    /// # Errors
    /// When the amount has parts of a minor unit or more than eighteen digits.
    ///
    /// ```
    /// use crossdock::domain::money::{Currency, Money};
    /// let yen = Currency::parse("JPY")?;
    /// assert!(Money::new("100".parse().unwrap(), yen).is_ok());
    /// assert!(Money::new("100.5".parse().unwrap(), yen).is_err());
    /// # Ok::<(), crossdock::domain::money::MoneyError>(())
    /// ```
    pub fn new(amount: Decimal, currency: Currency) -> Result<Money, MoneyError> {
        if amount.units() % currency.minor_unit().units() != 0 {
            let exponent = currency.exponent();
            return Err(MoneyError::Precision {
                amount,
                currency,
                exponent,
            });
        }
        Money::from_units(i128::from(amount.units()), currency)
    }

    /// Nothing of `currency`.
    pub const fn zero(currency: Currency) -> Money {
        Money {
            currency,
            amount: Decimal::ZERO,
        }
    }

    /// `amount` rounded to whole minor units.
    ///
    /// # Errors
    /// When the result has more than eighteen digits.
    pub fn round(
        amount: Decimal,
        currency: Currency,
        rounding: Rounding,
    ) -> Result<Money, MoneyError> {
        Money::quotient(i128::from(amount.units()), 1, currency, rounding)
    }

    /// `numerator / denominator` ten-thousandths, rounded once.
    fn quotient(
        numerator: i128,
        denominator: i128,
        currency: Currency,
        rounding: Rounding,
    ) -> Result<Money, MoneyError> {
        let unit = i128::from(currency.minor_unit().units());
        let divisor = denominator * unit;
        let (whole, rest) = (numerator.div_euclid(divisor), numerator.rem_euclid(divisor));
        let up = match (2 * rest).cmp(&divisor) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            // Rounding down went away from zero already when the number is negative.
            std::cmp::Ordering::Equal => match rounding {
                Rounding::HalfUp => numerator >= 0,
                Rounding::HalfEven => whole % 2 != 0,
            },
        };
        Money::from_units((whole + i128::from(up)) * unit, currency)
    }

    fn from_units(units: i128, currency: Currency) -> Result<Money, MoneyError> {
        if units.abs() > i128::from(Decimal::LIMIT) {
            return Err(MoneyError::Overflow);
        }
        Ok(Money {
            currency,
            amount: Decimal::from_units(units as i64),
        })
    }

    /// The amount.
    pub const fn amount(self) -> Decimal {
        self.amount
    }
    /// The currency.
    pub const fn currency(self) -> Currency {
        self.currency
    }

    fn same_currency(self, other: Money) -> Result<(), MoneyError> {
        if self.currency == other.currency {
            return Ok(());
        }
        Err(MoneyError::Mixed {
            left: self.currency,
            right: other.currency,
        })
    }

    /// The sum.
    ///
    /// # Errors
    /// Two currencies, or more than eighteen digits.
    pub fn plus(self, other: Money) -> Result<Money, MoneyError> {
        self.same_currency(other)?;
        let sum = i128::from(self.amount.units()) + i128::from(other.amount.units());
        Money::from_units(sum, self.currency)
    }

    /// The difference.
    ///
    /// # Errors
    /// Two currencies, or more than eighteen digits.
    pub fn minus(self, other: Money) -> Result<Money, MoneyError> {
        self.plus(other.negated())
    }

    /// The same amount the other way.
    pub fn negated(self) -> Money {
        Money {
            amount: -self.amount,
            ..self
        }
    }

    /// The price of `quantity` units at this price each, rounded once.
    ///
    /// # Errors
    /// More than eighteen digits.
    pub fn times(self, quantity: Decimal, rounding: Rounding) -> Result<Money, MoneyError> {
        let product = i128::from(self.amount.units()) * i128::from(quantity.units());
        Money::quotient(
            product,
            i128::from(Decimal::ONE.units()),
            self.currency,
            rounding,
        )
    }

    /// The share that `part` of `whole` has of this, rounded once; nothing when `whole` is zero.
    ///
    /// # Errors
    /// More than eighteen digits.
    pub fn share(
        self,
        part: Decimal,
        whole: Decimal,
        rounding: Rounding,
    ) -> Result<Money, MoneyError> {
        if whole.is_zero() {
            return Ok(Money::zero(self.currency));
        }
        let product = i128::from(self.amount.units()) * i128::from(part.units());
        let (product, whole) = match i128::from(whole.units()) {
            whole if whole < 0 => (-product, -whole),
            whole => (product, whole),
        };
        Money::quotient(product, whole, self.currency, rounding)
    }

    /// Shares this out by `weights`: each part is within one minor unit of its exact share, and the
    /// parts sum to the whole. What is left after rounding down goes, one minor unit each, to the
    /// largest remainders; of equal ones to the first.
    ///
    /// # Errors
    /// When a weight is negative or none is positive.
    pub fn apportion(self, weights: &[Decimal]) -> Result<Vec<Money>, MoneyError> {
        let total: i128 = weights.iter().map(|w| i128::from(w.units())).sum();
        if total <= 0 || weights.iter().any(|w| w.is_negative()) {
            return Err(MoneyError::Weights);
        }
        let unit = i128::from(self.currency.minor_unit().units());
        let (sign, whole) = match i128::from(self.amount.units()) / unit {
            minor if minor < 0 => (-1, -minor),
            minor => (1, minor),
        };
        let exact = |weight: &Decimal| whole * i128::from(weight.units());
        let mut parts: Vec<i128> = weights.iter().map(|w| exact(w) / total).collect();
        let left = (whole - parts.iter().sum::<i128>()) as usize;
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by_key(|&i| Reverse(exact(&weights[i]) % total));
        for &index in order.iter().take(left) {
            parts[index] += 1;
        }
        let money = |minor: i128| Money::from_units(sign * minor * unit, self.currency);
        parts.into_iter().map(money).collect()
    }
}

/// An amount as people write it: with the decimal places of its currency, and more where it has more.
pub fn written(amount: Decimal, currency: &str) -> String {
    let mut text = amount.to_string();
    let places = Currency::parse(currency).map_or(0, |c| c.exponent() as usize);
    let given = text
        .split_once('.')
        .map_or(0, |(_, fraction)| fraction.len());
    if given == 0 && places > 0 {
        text.push('.');
    }
    text.extend(std::iter::repeat_n('0', places.saturating_sub(given)));
    text
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.currency.exponent() as usize;
        let units = self.amount.units();
        let (whole, fraction) = (units.unsigned_abs() / 10_000, units.unsigned_abs() % 10_000);
        let sign = if units < 0 { "-" } else { "" };
        let fraction = format!("{fraction:04}");
        match places {
            0 => write!(f, "{sign}{whole} {}", self.currency),
            _ => write!(
                f,
                "{sign}{whole}.{} {}",
                &fraction[..places.min(4)],
                self.currency
            ),
        }
    }
}

impl Stored for Money {
    fn store(&self, out: &mut Vec<u8>) {
        self.currency.store(out);
        self.amount.store(out);
    }
    fn read(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(Money {
            currency: Currency::read(reader)?,
            amount: Decimal::read(reader)?,
        })
    }
    fn tell(&self) -> serde_json::Value {
        self.to_string().into()
    }
}
