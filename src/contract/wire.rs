//! Avro's binary encoding, for the generated types: no allocation to encode, no trust to decode.

use super::event::Text;
use crate::domain::{Date, Decimal, Timestamp};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

/// Bytes of a contract; shown as text where they are text, for people who read JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Bytes);

impl serde::Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(&String::from_utf8_lossy(&self.0))
    }
}

impl<'de> serde::Deserialize<'de> for Blob {
    /// Bytes that are no text cannot be read back: their JSON has lost them.
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        match text.contains(char::REPLACEMENT_CHARACTER) {
            true => Err(serde::de::Error::custom(
                "bytes that are no text cannot be given as JSON",
            )),
            false => Ok(Blob(Bytes::copy_from_slice(text.as_bytes()))),
        }
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        Blob(Bytes::copy_from_slice(bytes))
    }
}

/// A `decimal(18,8)` in hundred-millionths: a rate of exchange.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Rate(pub i64);

/// Why bytes are not a value of their schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// The innermost field in which it is wrong; empty before the first.
    pub field: &'static str,
}

/// Kinds of [`DecodeError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeErrorKind {
    /// The bytes end within the value.
    Truncated,
    /// A number has more bytes than a 64-bit number can have, or does not fit its type.
    Number,
    /// An enum has no symbol with this index.
    Symbol(i64),
    /// A union has no branch with this index.
    Branch(i64),
    /// A length or count is negative or larger than the bytes that are left.
    Length(i64),
    /// A string is not UTF-8.
    Utf8,
    /// A uuid is not 36 characters of the canonical form.
    Uuid,
    /// A decimal has more than eighteen digits.
    Decimal,
    /// A boolean is neither 0 nor 1.
    Boolean,
}

impl DecodeError {
    const fn new(kind: DecodeErrorKind) -> Self {
        DecodeError { kind, field: "" }
    }
    /// For generated code: an unknown enum index.
    pub(super) const fn symbol(index: i64) -> Self {
        Self::new(DecodeErrorKind::Symbol(index))
    }
    /// Names the field, unless an inner one is named.
    #[cold]
    pub(super) fn at(mut self, field: &'static str) -> Self {
        if self.field.is_empty() {
            self.field = field;
        }
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DecodeErrorKind::Truncated => write!(f, "the bytes end")?,
            DecodeErrorKind::Number => write!(f, "a number is too long")?,
            DecodeErrorKind::Symbol(i) => write!(f, "no enum symbol has the index {i}")?,
            DecodeErrorKind::Branch(i) => write!(f, "no union branch has the index {i}")?,
            DecodeErrorKind::Length(n) => write!(f, "a length of {n} is not possible")?,
            DecodeErrorKind::Utf8 => write!(f, "a string is not UTF-8")?,
            DecodeErrorKind::Uuid => write!(f, "not a uuid")?,
            DecodeErrorKind::Decimal => write!(f, "a decimal has more than eighteen digits")?,
            DecodeErrorKind::Boolean => write!(f, "a boolean is neither 0 nor 1")?,
        }
        if self.field.is_empty() {
            Ok(())
        } else {
            write!(f, " in field {}", self.field)
        }
    }
}

impl std::error::Error for DecodeError {}

type Result<T> = std::result::Result<T, DecodeError>;

/// A type with an Avro binary form.
pub trait Avro: Sized {
    /// Appends the binary form.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes one value off the front of `input`.
    fn get(input: &mut &[u8]) -> Result<Self>;
}

/// Appends a zigzag variable-length number.
#[inline]
pub fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Takes a zigzag variable-length number.
#[inline]
pub fn get_long(input: &mut &[u8]) -> Result<i64> {
    let mut value = 0u64;
    for (index, byte) in input.iter().enumerate().take(10) {
        if index == 9 && *byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *input = &input[index + 1..];
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    let kind = if input.len() < 10 {
        DecodeErrorKind::Truncated
    } else {
        DecodeErrorKind::Number
    };
    Err(DecodeError::new(kind))
}

#[inline]
fn take<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (front, back) = input
        .split_at_checked(length)
        .ok_or(DecodeError::new(DecodeErrorKind::Truncated))?;
    *input = back;
    Ok(front)
}

#[inline]
fn get_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = get_long(input)?;
    let length =
        usize::try_from(length).map_err(|_| DecodeError::new(DecodeErrorKind::Length(length)))?;
    take(input, length)
}

#[inline]
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

/// Reads the blocks of an array or map. The number of items is held to the bytes that are left, as
/// no item of a contract takes less than one byte.
fn get_blocks(input: &mut &[u8], mut item: impl FnMut(&mut &[u8]) -> Result<()>) -> Result<()> {
    loop {
        let mut count = get_long(input)?;
        if count == 0 {
            return Ok(());
        }
        if count < 0 {
            // A block may say its size in bytes; only readers that skip need it.
            get_long(input)?;
            count = count
                .checked_neg()
                .ok_or(DecodeError::new(DecodeErrorKind::Length(count)))?;
        }
        if usize::try_from(count).map_or(true, |c| c > input.len()) {
            return Err(DecodeError::new(DecodeErrorKind::Length(count)));
        }
        for _ in 0..count {
            item(input)?;
        }
    }
}

fn put_decimal(out: &mut Vec<u8>, units: i64) {
    let bytes = units.to_be_bytes();
    let negative = units < 0;
    let fill = if negative { 0xff } else { 0 };
    // Leading bytes that only repeat the sign are left out.
    let mut skip = 0;
    while skip < 7 && bytes[skip] == fill && (bytes[skip + 1] & 0x80 != 0) == negative {
        skip += 1;
    }
    put_bytes(out, &bytes[skip..]);
}

fn get_decimal(input: &mut &[u8]) -> Result<i64> {
    let bytes = get_bytes(input)?;
    let out_of_range = DecodeError::new(DecodeErrorKind::Decimal);
    let Some(first) = bytes.first() else {
        return Ok(0);
    };
    let sign: i64 = if first & 0x80 != 0 { -1 } else { 0 };
    let (padding, digits) = bytes.split_at(bytes.len().saturating_sub(8));
    if padding.iter().any(|b| *b != sign as u8) {
        return Err(out_of_range);
    }
    let value = digits
        .iter()
        .fold(sign, |value, byte| value << 8 | i64::from(*byte));
    let sign_kept = (value < 0) == (sign < 0);
    if sign_kept && value.unsigned_abs() <= Decimal::LIMIT as u64 {
        Ok(value)
    } else {
        Err(out_of_range)
    }
}

impl Avro for bool {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    #[inline]
    fn get(input: &mut &[u8]) -> Result<Self> {
        match take(input, 1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(DecodeError::new(DecodeErrorKind::Boolean)),
        }
    }
}

impl Avro for i64 {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_long(out, *self);
    }
    #[inline]
    fn get(input: &mut &[u8]) -> Result<Self> {
        get_long(input)
    }
}

impl Avro for i32 {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_long(out, i64::from(*self));
    }
    #[inline]
    fn get(input: &mut &[u8]) -> Result<Self> {
        i32::try_from(get_long(input)?).map_err(|_| DecodeError::new(DecodeErrorKind::Number))
    }
}

impl Avro for f64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
    fn get(input: &mut &[u8]) -> Result<Self> {
        let (front, back) = input
            .split_first_chunk()
            .ok_or(DecodeError::new(DecodeErrorKind::Truncated))?;
        *input = back;
        Ok(f64::from_le_bytes(*front))
    }
}

impl Avro for Text {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.as_bytes());
    }
    #[inline]
    fn get(input: &mut &[u8]) -> Result<Self> {
        Text::from_utf8(get_bytes(input)?).map_err(|_| DecodeError::new(DecodeErrorKind::Utf8))
    }
}

impl Avro for Blob {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, &self.0);
    }
    fn get(input: &mut &[u8]) -> Result<Self> {
        Ok(Blob::from(get_bytes(input)?))
    }
}

impl Avro for Uuid {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        self.hyphenated().encode_lower(&mut text);
        put_bytes(out, &text);
    }
    #[inline]
    fn get(input: &mut &[u8]) -> Result<Self> {
        let text = get_bytes(input)?;
        let canonical =
            (text.len() == uuid::fmt::Hyphenated::LENGTH).then(|| Uuid::try_parse_ascii(text).ok());
        canonical
            .flatten()
            .ok_or(DecodeError::new(DecodeErrorKind::Uuid))
    }
}

impl Avro for Timestamp {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_long(out, self.0);
    }
    #[inline]
    fn get(input: &mut &[u8]) -> Result<Self> {
        get_long(input).map(Timestamp)
    }
}

impl Avro for Date {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn get(input: &mut &[u8]) -> Result<Self> {
        i32::get(input).map(Date)
    }
}

impl Avro for Decimal {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_decimal(out, self.units());
    }
    #[inline]
    fn get(input: &mut &[u8]) -> Result<Self> {
        get_decimal(input).map(Decimal::from_units)
    }
}

impl Avro for Rate {
    fn put(&self, out: &mut Vec<u8>) {
        put_decimal(out, self.0);
    }
    fn get(input: &mut &[u8]) -> Result<Self> {
        get_decimal(input).map(Rate)
    }
}

impl<T: Avro> Avro for Option<T> {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(2);
                value.put(out);
            }
        }
    }
    #[inline]
    fn get(input: &mut &[u8]) -> Result<Self> {
        match get_long(input)? {
            0 => Ok(None),
            1 => T::get(input).map(Some),
            other => Err(DecodeError::new(DecodeErrorKind::Branch(other))),
        }
    }
}

impl<T: Avro> Avro for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        if !self.is_empty() {
            put_long(out, self.len() as i64);
            self.iter().for_each(|item| item.put(out));
        }
        out.push(0);
    }
    fn get(input: &mut &[u8]) -> Result<Self> {
        let mut items = Vec::new();
        get_blocks(input, |input| {
            items.push(T::get(input)?);
            Ok(())
        })?;
        Ok(items)
    }
}

impl<T: Avro> Avro for BTreeMap<Text, T> {
    fn put(&self, out: &mut Vec<u8>) {
        if !self.is_empty() {
            put_long(out, self.len() as i64);
            for (key, value) in self {
                key.put(out);
                value.put(out);
            }
        }
        out.push(0);
    }
    fn get(input: &mut &[u8]) -> Result<Self> {
        let mut map = BTreeMap::new();
        get_blocks(input, |input| {
            let key = Text::get(input)?;
            map.insert(key, T::get(input)?);
            Ok(())
        })?;
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_at_every_length() {
        for shift in 0..63 {
            for value in [
                1i64 << shift,
                -(1i64 << shift),
                (1i64 << shift) - 1,
                i64::MIN,
                i64::MAX,
            ] {
                let mut out = Vec::new();
                put_long(&mut out, value);
                assert_eq!(get_long(&mut &out[..]), Ok(value));
            }
        }
    }

    #[test]
    fn decimals_are_as_short_as_they_can_be_and_read_at_any_length() {
        for (units, length) in [
            (0, 1),
            (127, 1),
            (128, 2),
            (-128, 1),
            (-129, 2),
            (Decimal::LIMIT, 8),
            (-Decimal::LIMIT, 8),
        ] {
            let mut out = Vec::new();
            put_decimal(&mut out, units);
            assert_eq!(out.len(), 1 + length, "{units}");
            assert_eq!(get_decimal(&mut &out[..]), Ok(units));
            let mut wide = vec![32, if units < 0 { 0xff } else { 0 }];
            wide.resize(9, wide[1]);
            wide.extend(units.to_be_bytes());
            assert_eq!(get_decimal(&mut &wide[..]), Ok(units), "sixteen bytes");
        }
        let mut nineteen_digits = Vec::new();
        put_bytes(
            &mut nineteen_digits,
            &1_000_000_000_000_000_000i64.to_be_bytes(),
        );
        assert!(get_decimal(&mut &nineteen_digits[..]).is_err());
    }

    #[test]
    fn a_hostile_count_allocates_nothing() {
        let mut out = Vec::new();
        put_long(&mut out, i64::MAX);
        assert_eq!(
            Vec::<i64>::get(&mut &out[..]).map_err(|e| e.kind),
            Err(DecodeErrorKind::Length(i64::MAX))
        );
        let mut out = Vec::new();
        put_long(&mut out, i64::MIN);
        out.push(0);
        assert!(Vec::<i64>::get(&mut &out[..]).is_err());
    }
}
