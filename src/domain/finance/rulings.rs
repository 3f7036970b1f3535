//! Decisions on refunds that were made before, followed where the records of an order are read again.

use super::RefundStatus;
use compact_str::CompactString as Text;
use std::collections::BTreeMap;

/// A change of a refund as it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Ruling {
    /// Where the refund stood after it.
    pub status: RefundStatus,
    /// The payment that it is taken from.
    pub payment: Option<Text>,
    /// Why it was asked for, or refused.
    pub reason: Option<Text>,
}

/// What was recorded of the refunds of an order, by refund and version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rulings {
    refunds: BTreeMap<u128, BTreeMap<i64, Ruling>>,
}

impl Rulings {
    /// Adds what `version` of a refund says.
    pub fn add(&mut self, refund: u128, version: i64, ruling: Ruling) {
        self.refunds
            .entry(refund)
            .or_default()
            .insert(version, ruling);
    }

    /// Whether anything was recorded of the refund.
    pub fn knows(&self, refund: u128) -> bool {
        self.refunds.contains_key(&refund)
    }

    pub(super) fn of(&self, refund: u128, version: i64) -> Option<&Ruling> {
        self.refunds.get(&refund)?.get(&version)
    }
}
