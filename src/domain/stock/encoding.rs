//! How positions, segments, claims and networks are kept in state: a version byte, then fields in
//! order, numbers as zigzag varints. Private to this build's state; not a contract.

use super::claims::{Claim, ClaimStatus, Mode};
use super::ledger::{Effect, Entry, EntryKind, Ledger, Level, Segment};
use super::network::{Network, Offer};
use super::{Allocation, Oversell, Policy};
use crate::domain::{Decimal, Position, Timestamp};
use compact_str::CompactString as Text;
use std::collections::{BTreeMap, BTreeSet};

const VERSION: u8 = 1;

/// State bytes that this build did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state bytes are damaged or of another version")]
pub struct Corrupt;

type Read<T> = Result<T, Corrupt>;

/// A value with a place in state.
trait Stored: Sized {
    fn write(&self, out: &mut Vec<u8>);
    fn read(input: &mut &[u8]) -> Read<Self>;
}

impl Stored for i64 {
    fn write(&self, out: &mut Vec<u8>) {
        let mut rest = ((self << 1) ^ (self >> 63)) as u64;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
    fn read(input: &mut &[u8]) -> Read<Self> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = input.split_first().ok_or(Corrupt)?;
            *input = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(Corrupt)
    }
}

macro_rules! stored_as {
    ($($type:ty: $to:expr, $from:expr;)+) => {$(
        impl Stored for $type {
            fn write(&self, out: &mut Vec<u8>) { ($to)(self).write(out) }
            fn read(input: &mut &[u8]) -> Read<Self> { Stored::read(input).and_then($from) }
        }
    )+};
}

stored_as! {
    i32: |v: &i32| i64::from(*v), |v: i64| i32::try_from(v).map_err(|_| Corrupt);
    u32: |v: &u32| i64::from(*v), |v: i64| u32::try_from(v).map_err(|_| Corrupt);
    bool: |v: &bool| i64::from(*v), |v: i64| Ok(v != 0);
    Decimal: |v: &Decimal| v.units(), |v: i64| Ok(Decimal::from_units(v));
    Timestamp: |v: &Timestamp| v.0, |v: i64| Ok(Timestamp(v));
    f64: |v: &f64| v.to_bits() as i64, |v: i64| Ok(f64::from_bits(v as u64));
    EntryKind: |v: &EntryKind| *v as i64, |v: i64| pick(v, &[EntryKind::Counted, EntryKind::Included, EntryKind::Waiting, EntryKind::Claim]);
    Mode: |v: &Mode| *v as i64, |v: i64| pick(v, &[Mode::Strict, Mode::Forced]);
    Oversell: |v: &Oversell| *v as i64, |v: i64| pick(v, &[Oversell::Block, Oversell::BackorderToLimit, Oversell::Allow]);
    ClaimStatus: |v: &ClaimStatus| *v as i64, |v: i64| pick(v, &[
        ClaimStatus::Unseen, ClaimStatus::Held, ClaimStatus::Confirmed, ClaimStatus::Rejected, ClaimStatus::Backordered,
        ClaimStatus::PartiallyConsumed, ClaimStatus::Consumed, ClaimStatus::Released, ClaimStatus::Expired,
    ]);
}

fn pick<T: Copy>(index: i64, all: &[T]) -> Read<T> {
    usize::try_from(index)
        .ok()
        .and_then(|i| all.get(i).copied())
        .ok_or(Corrupt)
}

impl Stored for u128 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn read(input: &mut &[u8]) -> Read<Self> {
        let (front, rest) = input.split_first_chunk().ok_or(Corrupt)?;
        *input = rest;
        Ok(u128::from_be_bytes(*front))
    }
}

impl Stored for Text {
    fn write(&self, out: &mut Vec<u8>) {
        (self.len() as i64).write(out);
        out.extend_from_slice(self.as_bytes());
    }
    fn read(input: &mut &[u8]) -> Read<Self> {
        let length = count(input)?;
        let (front, rest) = input.split_at_checked(length).ok_or(Corrupt)?;
        *input = rest;
        Text::from_utf8(front).map_err(|_| Corrupt)
    }
}

fn count(input: &mut &[u8]) -> Read<usize> {
    usize::try_from(i64::read(input)?)
        .ok()
        .filter(|n| *n <= input.len())
        .ok_or(Corrupt)
}

impl<T: Stored> Stored for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        if let Some(value) = self {
            value.write(out);
        }
    }
    fn read(input: &mut &[u8]) -> Read<Self> {
        if bool::read(input)? {
            T::read(input).map(Some)
        } else {
            Ok(None)
        }
    }
}

impl<T: Stored> Stored for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        (self.len() as i64).write(out);
        self.iter().for_each(|item| item.write(out));
    }
    fn read(input: &mut &[u8]) -> Read<Self> {
        (0..count(input)?).map(|_| T::read(input)).collect()
    }
}

impl<K: Stored + Ord, V: Stored> Stored for BTreeMap<K, V> {
    fn write(&self, out: &mut Vec<u8>) {
        (self.len() as i64).write(out);
        for (key, value) in self {
            key.write(out);
            value.write(out);
        }
    }
    fn read(input: &mut &[u8]) -> Read<Self> {
        (0..count(input)?)
            .map(|_| Ok((K::read(input)?, V::read(input)?)))
            .collect()
    }
}

impl<T: Stored + Ord> Stored for BTreeSet<T> {
    fn write(&self, out: &mut Vec<u8>) {
        (self.len() as i64).write(out);
        self.iter().for_each(|item| item.write(out));
    }
    fn read(input: &mut &[u8]) -> Read<Self> {
        (0..count(input)?).map(|_| T::read(input)).collect()
    }
}

macro_rules! stored_tuple {
    ($($name:ident: $index:tt),+) => {
        impl<$($name: Stored),+> Stored for ($($name,)+) {
            fn write(&self, out: &mut Vec<u8>) { $(self.$index.write(out);)+ }
            fn read(input: &mut &[u8]) -> Read<Self> { Ok(($($name::read(input)?,)+)) }
        }
    };
}
stored_tuple!(A: 0, B: 1);
stored_tuple!(A: 0, B: 1, C: 2);

macro_rules! stored_struct {
    ($type:ident: $($field:ident),+) => {
        impl Stored for $type {
            fn write(&self, out: &mut Vec<u8>) { $(self.$field.write(out);)+ }
            fn read(input: &mut &[u8]) -> Read<Self> { Ok($type { $($field: Stored::read(input)?),+ }) }
        }
    };
}

stored_struct!(Position: epoch, sequence);
stored_struct!(Effect: sellable, damaged, held, incoming);
stored_struct!(Entry: id, position, recorded_at, effect, kind);
stored_struct!(Segment: number, lowest, highest, newest, count);
stored_struct!(Allocation: hard, share_percent, buffer);
stored_struct!(Policy: version, safety, allocations, oversell, backorder_limit);
stored_struct!(Level: totals, reserved, backordered, safety, ats, overcommitted);
stored_struct!(Claim: id, order, line, channel, mode, status, requested, held, consumed, backordered, expires_at, confirmed, version, sequence, ats_before, early_confirm);
stored_struct!(Ledger: authority, policy, level_version, offer_version, sequence, emitted, offered, as_of, totals, base, folded_through, newest, inline, segments, next_segment, waiting, active, backordered, backorders, expiring, overcommitted_raised);
stored_struct!(Offer: version, ats, buffer, backorderable, active);
stored_struct!(Network: offers, version, published, published_at, due);

fn to_bytes<T: Stored>(value: &T, out: &mut Vec<u8>) {
    out.clear();
    out.push(VERSION);
    value.write(out);
}

fn from_bytes<T: Stored>(bytes: &[u8]) -> Read<T> {
    let mut input = match bytes.split_first() {
        Some((&VERSION, rest)) => rest,
        _ => return Err(Corrupt),
    };
    let value = T::read(&mut input)?;
    if input.is_empty() {
        Ok(value)
    } else {
        Err(Corrupt)
    }
}

macro_rules! state_form {
    ($($type:ident),+) => {$(
        impl $type {
            /// Writes the form kept in state into `out`, replacing what it holds.
            pub fn to_state(&self, out: &mut Vec<u8>) { to_bytes(self, out) }
            /// Reads the form kept in state.
            ///
            /// # Errors
            /// When the bytes are not of this build's form.
            pub fn from_state(bytes: &[u8]) -> Result<Self, Corrupt> { from_bytes(bytes) }
        }
    )+};
}
state_form!(Ledger, Claim, Network);

impl Entry {
    /// Writes a segment in the form kept in state.
    pub fn segment_to_state(entries: &[Entry], out: &mut Vec<u8>) {
        out.clear();
        out.push(VERSION);
        (entries.len() as i64).write(out);
        entries.iter().for_each(|e| e.write(out));
    }
    /// Reads a segment.
    ///
    /// # Errors
    /// When the bytes are not of this build's form.
    pub fn segment_from_state(bytes: &[u8]) -> Result<Vec<Entry>, Corrupt> {
        from_bytes(bytes)
    }
}
