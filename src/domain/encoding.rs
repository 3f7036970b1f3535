//! How rules keep what they know in state: a version byte, then fields in order, numbers as varints.
//! Private to Crossdock's state; not a contract.
//!
//! A type whose fields are all [`Stored`] is stored by naming them: `stored!(Claim { id, quantity })`. A
//! field marked `told` counts what was said of the rest, or notes when it was: it depends on how records
//! were gathered and on the clock, so two states that differ in it alone say the same.

use crate::domain::{Decimal, Position, Timestamp};
use compact_str::CompactString as Text;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// Times of the same step in two runs, at most this far apart, are taken for one.
const STEP_SKEW: Duration = Duration::from_secs(86_400);

/// First byte of what is in state, where its layout has never changed.
pub(crate) const VERSION: u8 = 1;

/// State bytes that this build did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state bytes are damaged or of another version")]
pub struct Corrupt;

/// What was read, or that it is not there.
pub type Read<T> = Result<T, Corrupt>;

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends fields to a buffer.
pub(crate) trait Write {
    fn byte(&mut self, value: u8);
    fn fixed(&mut self, bytes: &[u8]);

    fn unsigned(&mut self, value: u64) {
        let mut rest = value;
        while rest >= 0x80 {
            self.byte(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.byte(rest as u8);
    }
    fn signed(&mut self, value: i64) {
        self.unsigned(zigzag(value));
    }
    /// Whole numbers, the usual case, take four digits less.
    fn quantity(&mut self, value: Decimal) {
        let units = value.units();
        if units % Decimal::ONE.units() == 0 {
            self.unsigned(zigzag(units / Decimal::ONE.units()) << 1);
        } else {
            // The mark takes the place of the top bit, which goes apart.
            let bits = zigzag(units);
            self.unsigned((bits << 1) | 1);
            self.byte((bits >> 63) as u8);
        }
    }
    fn id(&mut self, value: u128) {
        self.fixed(&value.to_be_bytes());
    }
    fn text(&mut self, value: &str) {
        self.unsigned(value.len() as u64);
        self.fixed(value.as_bytes());
    }
    fn time(&mut self, value: Timestamp) {
        self.signed(value.0);
    }
    fn position(&mut self, value: Position) {
        self.signed(i64::from(value.epoch));
        self.signed(value.sequence);
    }
    fn optional<T: Copy>(&mut self, value: Option<T>, mut write: impl FnMut(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }
}

impl Write for Vec<u8> {
    fn byte(&mut self, value: u8) {
        self.push(value);
    }
    fn fixed(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Reads fields from the front of a slice.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Behind the version byte.
    pub(crate) fn new(bytes: &'a [u8]) -> Read<Self> {
        Self::of_version(bytes, VERSION)
    }
    /// Behind the byte of this version.
    pub(crate) fn of_version(bytes: &'a [u8], version: u8) -> Read<Self> {
        match bytes.split_first() {
            Some((first, rest)) if *first == version => Ok(Reader { rest }),
            _ => Err(Corrupt),
        }
    }
    pub(crate) fn end(&self) -> Read<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Corrupt)
        }
    }
    pub(crate) fn byte(&mut self) -> Read<u8> {
        let (byte, rest) = self.rest.split_first().ok_or(Corrupt)?;
        self.rest = rest;
        Ok(*byte)
    }
    pub(crate) fn fixed(&mut self, length: usize) -> Read<&'a [u8]> {
        let (front, rest) = self.rest.split_at_checked(length).ok_or(Corrupt)?;
        self.rest = rest;
        Ok(front)
    }
    pub(crate) fn unsigned(&mut self) -> Read<u64> {
        let mut value = 0u64;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(Corrupt)
    }
    pub(crate) fn signed(&mut self) -> Read<i64> {
        Ok(unzigzag(self.unsigned()?))
    }
    pub(crate) fn quantity(&mut self) -> Read<Decimal> {
        let value = self.unsigned()?;
        if value & 1 == 0 {
            return unzigzag(value >> 1)
                .checked_mul(Decimal::ONE.units())
                .map(Decimal::from_units)
                .ok_or(Corrupt);
        }
        let top = u64::from(self.byte()?);
        Ok(Decimal::from_units(unzigzag((value >> 1) | (top << 63))))
    }
    pub(crate) fn id(&mut self) -> Read<u128> {
        let bytes = self.fixed(16)?;
        bytes
            .try_into()
            .map(u128::from_be_bytes)
            .map_err(|_| Corrupt)
    }
    pub(crate) fn text(&mut self) -> Read<Text> {
        let length = self.count()?;
        Text::from_utf8(self.fixed(length)?).map_err(|_| Corrupt)
    }
    pub(crate) fn time(&mut self) -> Read<Timestamp> {
        Ok(Timestamp(self.signed()?))
    }
    pub(crate) fn position(&mut self) -> Read<Position> {
        Ok(Position {
            epoch: i32::try_from(self.signed()?).map_err(|_| Corrupt)?,
            sequence: self.signed()?,
        })
    }
    pub(crate) fn number<T: TryFrom<u64>>(&mut self) -> Read<T> {
        T::try_from(self.unsigned()?).map_err(|_| Corrupt)
    }
    /// A length, never more than what is left to read: a damaged one must not allocate.
    pub(crate) fn count(&mut self) -> Read<usize> {
        self.number::<usize>().and_then(|count| {
            if count <= self.rest.len() {
                Ok(count)
            } else {
                Err(Corrupt)
            }
        })
    }
    pub(crate) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Read<T>,
    ) -> Read<Option<T>> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Corrupt),
        }
    }
    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> Read<T> {
        let index = usize::from(self.byte()?);
        all.get(index).copied().ok_or(Corrupt)
    }
}

/// What can be kept in state, by itself or as part of something larger.
pub trait Stored: Sized {
    /// Version of its layout, where it stands in state by itself.
    const VERSION: u8 = VERSION;

    /// Appends it to `out`.
    fn store(&self, out: &mut Vec<u8>);
    /// Reads what [`Stored::store`] wrote.
    ///
    /// # Errors
    /// When it is not what stands there.
    fn read(reader: &mut Reader<'_>) -> Read<Self>;
    /// What it says, for people.
    fn tell(&self) -> Value;
    /// Takes over from `other` what is marked `told` within both.
    fn adopt(&mut self, _other: &Self) {}
    /// Takes over `other`, which is marked `told`: where both are there, and of times that can be of one
    /// step.
    fn adopt_told(&mut self, _other: &Self) {}

    /// Writes it into `out` behind the version byte, in place of what `out` holds.
    fn to_state(&self, out: &mut Vec<u8>) {
        out.clear();
        out.push(Self::VERSION);
        self.store(out);
    }
    /// Reads what [`Stored::to_state`] wrote, all of it.
    ///
    /// # Errors
    /// When the bytes are damaged or of another version.
    fn from_state(bytes: &[u8]) -> Read<Self> {
        let mut reader = Reader::of_version(bytes, Self::VERSION)?;
        let value = Self::read(&mut reader)?;
        reader.end()?;
        Ok(value)
    }
}

/// What the state bytes of a `T` say, for people; `None` where they cannot be read.
pub fn tell_state<T: Stored>(bytes: &[u8]) -> Option<Value> {
    Some(T::from_state(bytes).ok()?.tell())
}

/// The state bytes `own` of a `T`, with what is marked `told` taken over from `other`; `None` where one of
/// them cannot be read.
pub fn adopt_state<T: Stored>(own: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let mut own = T::from_state(own).ok()?;
    own.adopt(&T::from_state(other).ok()?);
    let mut out = Vec::new();
    own.to_state(&mut out);
    Some(out)
}

/// The whole of what a processor knows of one key: with the time at which it wants to be called though
/// nothing has come, which is stored first and so read without the rest.
pub trait Kept: Stored + Default {
    /// The timer that is set.
    fn due(&self) -> Option<Timestamp>;
    /// Something was heard at this time.
    fn heard(&mut self, _at: Timestamp) {}
    /// The timer that stands in what [`Stored::to_state`] wrote.
    ///
    /// # Errors
    /// As [`Stored::from_state`].
    fn due_of(bytes: &[u8]) -> Read<Option<Timestamp>> {
        Option::read(&mut Reader::of_version(bytes, Self::VERSION)?)
    }
}

/// Stores a struct as its fields in the order named; `Name as 2 { … }` where its layout has changed since
/// version 1.
macro_rules! stored {
    (@adopt $own:expr, $other:expr) => {
        crate::domain::encoding::Stored::adopt($own, $other)
    };
    (@adopt $own:expr, $other:expr, told) => {
        crate::domain::encoding::Stored::adopt_told($own, $other)
    };
    ($name:ident { $($field:ident $(: $mark:ident)?),+ $(,)? }) => {
        crate::domain::encoding::stored!($name as 1 { $($field $(: $mark)?),+ });
    };
    ($name:ident as $version:literal { $($field:ident $(: $mark:ident)?),+ $(,)? }) => {
        impl crate::domain::encoding::Stored for $name {
            const VERSION: u8 = $version;
            fn store(&self, out: &mut Vec<u8>) {
                $(crate::domain::encoding::Stored::store(&self.$field, out);)+
            }
            fn read(
                reader: &mut crate::domain::encoding::Reader<'_>,
            ) -> Result<Self, crate::domain::encoding::Corrupt> {
                Ok($name { $($field: crate::domain::encoding::Stored::read(reader)?),+ })
            }
            fn tell(&self) -> serde_json::Value {
                let mut fields = serde_json::Map::new();
                $(fields.insert(
                    stringify!($field).to_owned(),
                    crate::domain::encoding::Stored::tell(&self.$field),
                );)+
                fields.into()
            }
            fn adopt(&mut self, other: &Self) {
                $(crate::domain::encoding::stored!(@adopt &mut self.$field, &other.$field $(, $mark)?);)+
            }
        }
    };
}

/// Stores an enum without fields as the place of its variant in the list named, which therefore
/// only grows at its end. Makes the list `ALL`.
macro_rules! stored_enum {
    ($name:ident [ $($variant:ident),+ $(,)? ]) => {
        impl $name {
            /// Every variant.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
        }
        impl crate::domain::encoding::Stored for $name {
            fn store(&self, out: &mut Vec<u8>) {
                out.push(Self::ALL.iter().position(|v| v == self).unwrap_or(0) as u8);
            }
            fn read(
                reader: &mut crate::domain::encoding::Reader<'_>,
            ) -> Result<Self, crate::domain::encoding::Corrupt> {
                reader.one_of(Self::ALL)
            }
            fn tell(&self) -> serde_json::Value {
                match self {
                    $($name::$variant => stringify!($variant).into(),)+
                }
            }
        }
    };
}

/// As [`stored`], for the whole of what is known of a key: `due` first, then when something was heard
/// last, where that is kept.
macro_rules! kept {
    ($name:ident { $($field:ident $(: $mark:ident)?),+ $(,)? }) => {
        crate::domain::encoding::kept!($name as 1 { $($field $(: $mark)?),+ });
    };
    ($name:ident as $version:literal { due, heard_at, $($field:ident $(: $mark:ident)?),+ $(,)? }) => {
        crate::domain::encoding::stored!($name as $version { due: told, heard_at: told, $($field $(: $mark)?),+ });
        impl crate::domain::encoding::Kept for $name {
            fn due(&self) -> Option<crate::domain::Timestamp> {
                self.due
            }
            fn heard(&mut self, at: crate::domain::Timestamp) {
                self.heard_at = self.heard_at.max(at);
            }
        }
    };
    ($name:ident as $version:literal { due, $($field:ident $(: $mark:ident)?),+ $(,)? }) => {
        crate::domain::encoding::stored!($name as $version { due: told, $($field $(: $mark)?),+ });
        impl crate::domain::encoding::Kept for $name {
            fn due(&self) -> Option<crate::domain::Timestamp> {
                self.due
            }
        }
    };
}

pub(crate) use {kept, stored, stored_enum};

macro_rules! stored_as {
    ($($kind:ty: $value:ident, $out:ident => $write:expr, $reader:ident => $read:expr, $said:expr;)+) => {$(
        impl Stored for $kind {
            fn store(&self, $out: &mut Vec<u8>) {
                let $value = self;
                $write;
            }
            fn read($reader: &mut Reader<'_>) -> Read<Self> {
                $read
            }
            fn tell(&self) -> Value {
                let $value = self;
                $said
            }
            fn adopt_told(&mut self, other: &Self) {
                if self.is_told_as(other) {
                    *self = other.clone();
                }
            }
        }
    )+};
}

/// Whether two values of what is marked `told` can be of one step.
trait ToldAs {
    fn is_told_as(&self, _other: &Self) -> bool {
        true
    }
}
impl ToldAs for bool {}
impl ToldAs for u8 {}
impl ToldAs for i64 {}
impl ToldAs for u32 {}
impl ToldAs for i32 {}
impl ToldAs for u128 {}
impl ToldAs for Decimal {}
impl ToldAs for Text {}
impl ToldAs for Timestamp {
    fn is_told_as(&self, other: &Self) -> bool {
        self.since(*other) <= STEP_SKEW && other.since(*self) <= STEP_SKEW
    }
}

stored_as! {
    bool: v, out => out.push(u8::from(*v)), r => r.one_of(&[false, true]), (*v).into();
    u8: v, out => out.push(*v), r => r.byte(), (*v).into();
    i64: v, out => out.signed(*v), r => r.signed(), (*v).into();
    u32: v, out => out.unsigned(u64::from(*v)), r => r.number(), (*v).into();
    i32: v, out => out.signed(i64::from(*v)), r => i32::try_from(r.signed()?).map_err(|_| Corrupt), (*v).into();
    u128: v, out => out.id(*v), r => r.id(), Uuid::from_u128(*v).to_string().into();
    Decimal: v, out => out.quantity(*v), r => r.quantity(), v.to_string().into();
    Timestamp: v, out => out.time(*v), r => r.time(), v.to_string().into();
    Text: v, out => out.text(v), r => r.text(), v.as_str().into();
}

impl<T: Stored> Stored for Option<T> {
    fn store(&self, out: &mut Vec<u8>) {
        self.is_some().store(out);
        if let Some(value) = self {
            value.store(out);
        }
    }
    fn read(reader: &mut Reader<'_>) -> Read<Self> {
        reader.optional(T::read)
    }
    fn tell(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::tell)
    }
    fn adopt(&mut self, other: &Self) {
        if let (Some(own), Some(other)) = (self, other) {
            own.adopt(other);
        }
    }
    fn adopt_told(&mut self, other: &Self) {
        if let (Some(own), Some(other)) = (self, other) {
            own.adopt_told(other);
        }
    }
}

impl<T: Stored> Stored for Vec<T> {
    fn store(&self, out: &mut Vec<u8>) {
        out.unsigned(self.len() as u64);
        self.iter().for_each(|value| value.store(out));
    }
    fn read(reader: &mut Reader<'_>) -> Read<Self> {
        (0..reader.count()?).map(|_| T::read(reader)).collect()
    }
    fn tell(&self) -> Value {
        self.iter().map(T::tell).collect()
    }
    fn adopt(&mut self, other: &Self) {
        for (own, other) in self.iter_mut().zip(other) {
            own.adopt(other);
        }
    }
}

impl<K: Stored + Ord, V: Stored> Stored for BTreeMap<K, V> {
    fn store(&self, out: &mut Vec<u8>) {
        out.unsigned(self.len() as u64);
        for (key, value) in self {
            key.store(out);
            value.store(out);
        }
    }
    fn read(reader: &mut Reader<'_>) -> Read<Self> {
        let count = reader.count()?;
        (0..count)
            .map(|_| Ok((K::read(reader)?, V::read(reader)?)))
            .collect()
    }
    fn tell(&self) -> Value {
        let name = |key: &K| match key.tell() {
            Value::String(name) => name,
            other => other.to_string(),
        };
        let fields = self.iter().map(|(key, value)| (name(key), value.tell()));
        Value::Object(fields.collect())
    }
    fn adopt(&mut self, other: &Self) {
        for (key, own) in self {
            if let Some(other) = other.get(key) {
                own.adopt(other);
            }
        }
    }
    fn adopt_told(&mut self, other: &Self) {
        for (key, own) in self {
            if let Some(other) = other.get(key) {
                own.adopt_told(other);
            }
        }
    }
}

impl<A: Stored, B: Stored> Stored for (A, B) {
    fn store(&self, out: &mut Vec<u8>) {
        self.0.store(out);
        self.1.store(out);
    }
    fn read(reader: &mut Reader<'_>) -> Read<Self> {
        Ok((A::read(reader)?, B::read(reader)?))
    }
    fn tell(&self) -> Value {
        Value::Array(vec![self.0.tell(), self.1.tell()])
    }
    fn adopt(&mut self, other: &Self) {
        self.0.adopt(&other.0);
        self.1.adopt(&other.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(signed in any::<i64>(), units in any::<i64>(), id in any::<u128>()) {
            let mut out = vec![VERSION];
            out.signed(signed);
            out.quantity(Decimal::from_units(units));
            out.quantity(Decimal::from_units(units / 10_000 * 10_000));
            out.id(id);
            let mut reader = Reader::new(&out).expect("version");
            prop_assert_eq!(reader.signed(), Ok(signed));
            prop_assert_eq!(reader.quantity(), Ok(Decimal::from_units(units)));
            prop_assert_eq!(reader.quantity(), Ok(Decimal::from_units(units / 10_000 * 10_000)));
            prop_assert_eq!(reader.id(), Ok(id));
            prop_assert!(reader.end().is_ok());
        }
    }

    #[test]
    fn a_damaged_length_is_an_error_and_allocates_nothing() {
        let mut reader = Reader::new(&[VERSION, 0xff, 0xff, 0x03]).expect("version");
        assert_eq!(reader.text(), Err(Corrupt));
        assert!(Reader::new(&[9]).is_err());
        assert!(Reader::new(&[]).is_err());
    }
}
