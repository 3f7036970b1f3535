//! Quantities and amounts: Avro's `decimal(18,4)` as one machine word.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

/// A decimal number with four places and at most eighteen digits: a quantity, or the amount of a
/// sum of money whose currency stands beside it. Held in ten-thousandths.
///
/// Arithmetic saturates at the limits of `i64`. Values taken from outside are held to
/// [`Decimal::LIMIT`] where they enter, so a sum would need millions of the largest quantities to
/// get there.
///
/// ```
/// use crossdock::domain::Decimal;
/// let q: Decimal = "2.5".parse()?;
/// assert_eq!((q + Decimal::from(1)).to_string(), "3.5");
/// # Ok::<(), crossdock::domain::DecimalError>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(i64);

/// Why a text or a number is not a `decimal(18,4)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Not of the form `-123.4567`.
    #[error("not a decimal number")]
    Malformed,
    /// More than four digits after the point that are not zero.
    #[error("more than four decimal places")]
    Scale,
    /// More than eighteen digits.
    #[error("more than eighteen digits")]
    Range,
}

impl Decimal {
    /// Digits after the point.
    pub const SCALE: u32 = 4;
    /// Zero.
    pub const ZERO: Decimal = Decimal(0);
    /// One.
    pub const ONE: Decimal = Decimal(10_000);
    /// The largest magnitude a contract can carry, in ten-thousandths (eighteen nines).
    pub const LIMIT: i64 = 999_999_999_999_999_999;

    /// The number that is `units` ten-thousandths.
    pub const fn from_units(units: i64) -> Self {
        Decimal(units)
    }
    /// This number in ten-thousandths.
    pub const fn units(self) -> i64 {
        self.0
    }
    /// Whether this is zero.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
    /// Whether this is greater than zero.
    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }
    /// Whether this is less than zero.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }
    /// This number, or zero when it is negative.
    pub fn or_zero(self) -> Self {
        Decimal(self.0.max(0))
    }
    /// The product with `percent` hundredths, rounded down.
    pub fn percent(self, percent: f64) -> Self {
        // A share is a policy setting, not money: six digits of it are more than anybody sets.
        let millionths = (percent.clamp(0.0, 100.0) * 10_000.0).round() as i128;
        Decimal((i128::from(self.0) * millionths).div_euclid(1_000_000) as i64)
    }
    /// The exact product, rounded half away from zero to four places; saturates.
    pub fn times(self, other: Decimal) -> Self {
        let product = i128::from(self.0) * i128::from(other.0);
        let half = if product < 0 { -5_000 } else { 5_000 };
        Decimal(
            i64::try_from((product + half) / 10_000).unwrap_or(if product < 0 {
                i64::MIN
            } else {
                i64::MAX
            }),
        )
    }
    /// Rounded down to a whole multiple of `unit`; unchanged when `unit` is not positive.
    pub fn floor_to(self, unit: Decimal) -> Self {
        if unit.0 <= 0 {
            self
        } else {
            Decimal(self.0.div_euclid(unit.0) * unit.0)
        }
    }
    /// For display and measurement only, never for arithmetic on money.
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / 10_000.0
    }
}

impl From<i32> for Decimal {
    fn from(whole: i32) -> Self {
        Decimal(i64::from(whole) * 10_000)
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;
    fn from_str(text: &str) -> Result<Self, DecimalError> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction)
        {
            return Err(DecimalError::Malformed);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 4 {
            return Err(DecimalError::Scale);
        }
        let mut units: i64 = 0;
        for digit in whole
            .bytes()
            .chain(fraction.bytes())
            .chain(std::iter::repeat_n(b'0', 4 - fraction.len()))
        {
            units = units
                .checked_mul(10)
                .and_then(|u| u.checked_add(i64::from(digit - b'0')))
                .filter(|u| *u <= Self::LIMIT)
                .ok_or(DecimalError::Range)?;
        }
        Ok(Decimal(if negative { -units } else { units }))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, fraction) = (magnitude / 10_000, magnitude % 10_000);
        if fraction == 0 {
            return f.pad(&format!("{sign}{whole}"));
        }
        f.pad(format!("{sign}{whole}.{fraction:04}").trim_end_matches('0'))
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Add for Decimal {
    type Output = Decimal;
    fn add(self, other: Decimal) -> Decimal {
        Decimal(self.0.saturating_add(other.0))
    }
}
impl Sub for Decimal {
    type Output = Decimal;
    fn sub(self, other: Decimal) -> Decimal {
        Decimal(self.0.saturating_sub(other.0))
    }
}
impl Neg for Decimal {
    type Output = Decimal;
    fn neg(self) -> Decimal {
        Decimal(self.0.saturating_neg())
    }
}
impl AddAssign for Decimal {
    fn add_assign(&mut self, other: Decimal) {
        *self = *self + other;
    }
}
impl SubAssign for Decimal {
    fn sub_assign(&mut self, other: Decimal) {
        *self = *self - other;
    }
}
impl Sum for Decimal {
    fn sum<I: Iterator<Item = Decimal>>(iter: I) -> Decimal {
        iter.fold(Decimal::ZERO, Add::add)
    }
}

impl serde::Serialize for Decimal {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> serde::Deserialize<'de> for Decimal {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip() {
        for (text, units) in [
            ("0", 0),
            ("1", 10_000),
            ("-2.5", -25_000),
            ("0.0001", 1),
            ("12.34", 123_400),
        ] {
            let d: Decimal = text.parse().expect(text);
            assert_eq!(d.units(), units, "{text}");
            assert_eq!(d.to_string(), text);
        }
        assert_eq!("1.50000".parse::<Decimal>().map(Decimal::units), Ok(15_000));
    }

    #[test]
    fn what_is_not_a_decimal_18_4_says_why() {
        assert_eq!("".parse::<Decimal>(), Err(DecimalError::Malformed));
        assert_eq!("1e3".parse::<Decimal>(), Err(DecimalError::Malformed));
        assert_eq!("1.23456".parse::<Decimal>(), Err(DecimalError::Scale));
        assert_eq!(
            "999999999999999".parse::<Decimal>(),
            Err(DecimalError::Range)
        );
    }

    #[test]
    fn shares_round_down() {
        assert_eq!(Decimal::from(10).percent(33.3).to_string(), "3.33");
        assert_eq!(
            Decimal::from(7)
                .percent(50.0)
                .floor_to(Decimal::ONE)
                .to_string(),
            "3"
        );
    }
}
