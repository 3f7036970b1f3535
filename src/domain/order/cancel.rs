//! Cancellations: asked for, decided in turn, and kept as they were decided.
//!
//! What can still be cancelled depends on what was known when it was asked, so a decision is made once
//! and recorded; one that is read again from the record stands, whatever is known by then.

use super::book::{Heard, Order, WEIGHT_MAX};
use super::facts::Quantities;
use super::machine::{Bucket, can_be_cancelled};
use super::projection::LineState;
use crate::domain::encoding::stored;
use crate::domain::{Decimal, Timestamp};
use std::collections::BTreeMap;

/// A cancellation that was asked for, or that somebody decided unasked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cancel {
    /// What is wanted; nothing named means everything. `None`: decided unasked, or before the request
    /// was heard of.
    pub wanted: Option<Quantities>,
    /// What was granted, once it was decided.
    pub granted: Option<Quantities>,
    /// Version under which the decision is told.
    pub version: i64,
}

stored!(Cancel {
    wanted,
    granted,
    version
});

/// A decision on a cancellation, to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The request: identity of the event that asked.
    pub request: u128,
    /// What is cancelled, by line; none, when it was too late for all of it.
    pub granted: Quantities,
    /// Whether less is cancelled than was wanted.
    pub partial: bool,
    /// Counts the decisions on this order, from 1.
    pub version: i64,
}

impl Order {
    /// Asks for a cancellation. Decided by [`Order::decide`]; one that was asked for or decided before
    /// is a duplicate.
    pub fn request_cancel(&mut self, request: u128, wanted: Quantities, now: Timestamp) -> Heard {
        if self.weight() + 1 + wanted.len() > WEIGHT_MAX {
            return Heard::TooMuch;
        }
        let cancel = self.cancels.entry(request).or_default();
        if cancel.wanted.is_some() {
            return Heard::Duplicate;
        }
        cancel.wanted = Some(wanted);
        self.changed_at = now;
        match cancel.granted.is_some() {
            true => Heard::Duplicate,
            false => Heard::Applied,
        }
    }

    /// Takes in a decision that was recorded, or made by another system. It stands as it is.
    pub fn cancel_decided(
        &mut self,
        request: u128,
        granted: Quantities,
        version: i64,
        now: Timestamp,
    ) -> Heard {
        if self.weight() + 1 + granted.len() > WEIGHT_MAX {
            return Heard::TooMuch;
        }
        let cancel = self.cancels.entry(request).or_default();
        if cancel.granted.as_ref() == Some(&granted) {
            return Heard::Duplicate;
        }
        cancel.granted = Some(granted);
        cancel.version = version;
        self.decisions = self.decisions.max(version);
        self.changed_at = now;
        Heard::Applied
    }

    /// Decides what was asked for and can be decided now, each against what the ones before left.
    pub fn decide(&mut self) -> Vec<Decision> {
        let mut made = Vec::new();
        if !self.is_known() {
            return made;
        }
        let open = |c: &Cancel| c.granted.is_none();
        let asked: Vec<u128> = self
            .cancels
            .iter()
            .filter(|(_, c)| open(c))
            .map(|(id, _)| *id)
            .collect();
        for request in asked {
            let lines = self.line_states();
            let possible: BTreeMap<&str, Decimal> = lines
                .iter()
                .map(|line| {
                    let can = Bucket::ALL.into_iter().filter(|b| can_be_cancelled(*b));
                    (&*line.id, can.map(|b| line.buckets.of(b)).sum())
                })
                .collect();
            self.decisions += 1;
            let version = self.decisions;
            let Some(cancel) = self.cancels.get_mut(&request) else {
                continue;
            };
            let named = cancel.wanted.clone().filter(|w| !w.is_empty());
            let wanted = named.unwrap_or_else(|| {
                let rest = |l: &LineState| l.ordered - l.buckets.of(Bucket::Cancelled);
                let rest = lines.iter().map(|l| (l.id.clone(), rest(l)));
                rest.filter(|(_, quantity)| quantity.is_positive())
                    .collect()
            });
            let mut partial = false;
            let mut granted = Quantities::new();
            for (line, quantity) in wanted {
                let given = possible
                    .get(&*line)
                    .copied()
                    .unwrap_or_default()
                    .min(quantity)
                    .or_zero();
                partial |= given < quantity;
                if given.is_positive() {
                    granted.push((line, given));
                }
            }
            cancel.granted = Some(granted.clone());
            cancel.version = version;
            made.push(Decision {
                request,
                granted,
                partial,
                version,
            });
        }
        made
    }

    /// Units of a line that were decided to be cancelled.
    pub(super) fn cancelled(&self) -> BTreeMap<&str, Decimal> {
        let mut sums: BTreeMap<&str, Decimal> = BTreeMap::new();
        for (line, quantity) in self
            .cancels
            .values()
            .flat_map(|c| c.granted.iter().flatten())
        {
            *sums.entry(line).or_default() += *quantity;
        }
        sums
    }
}
