//! Currencies of ISO 4217 and how far each is divided.

use super::MoneyError;
use crate::domain::Decimal;
use crate::domain::encoding::{Corrupt, Read, Reader, Stored, Write};
use std::fmt;

/// A currency in which something can be paid: its ISO-4217 code, known to exist and to have a
/// smallest unit. Metals, funds and test codes (`XAU`, `XXX`) have none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency {
    code: [u8; 3],
    exponent: u8,
}

impl Currency {
    /// The currency with this alphabetic code, in capital letters as contracts write it.
    ///
    /// # Errors
    /// When there is none, or none that can be paid in.
    pub fn parse(code: &str) -> Result<Currency, MoneyError> {
        let unknown = || MoneyError::UnknownCurrency(code.chars().take(12).collect());
        let letters: [u8; 3] = code.as_bytes().try_into().map_err(|_| unknown())?;
        let exponent = iso_currency::Currency::from_code(code)
            .and_then(|c| c.exponent())
            .and_then(|exponent| u8::try_from(exponent).ok())
            .filter(|exponent| u32::from(*exponent) <= Decimal::SCALE)
            .ok_or_else(unknown)?;
        Ok(Currency {
            code: letters,
            exponent,
        })
    }

    /// The code.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.code).unwrap_or("???")
    }

    /// Decimal places: 2 for most, 0 for the yen, 3 for the Kuwaiti dinar.
    pub const fn exponent(self) -> u32 {
        self.exponent as u32
    }

    /// The smallest amount of it.
    pub const fn minor_unit(self) -> Decimal {
        Decimal::from_units(10i64.pow(Decimal::SCALE - self.exponent as u32))
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Stored for Currency {
    fn store(&self, out: &mut Vec<u8>) {
        // With its exponent: what was paid stays readable when ISO withdraws a code.
        out.fixed(&self.code);
        out.byte(self.exponent);
    }
    fn read(reader: &mut Reader<'_>) -> Read<Self> {
        let code = reader.fixed(3)?.try_into().map_err(|_| Corrupt)?;
        let exponent = reader.byte()?;
        if u32::from(exponent) > Decimal::SCALE {
            return Err(Corrupt);
        }
        Ok(Currency { code, exponent })
    }
    fn tell(&self) -> serde_json::Value {
        self.code().into()
    }
}
