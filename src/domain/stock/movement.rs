//! What a movement of goods changes at a position.

use crate::domain::Decimal;
use std::ops::{AddAssign, SubAssign};

/// Where goods are, or are not, before and after a movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StockState {
    /// Here, undamaged, not held.
    Sellable,
    /// Here, damaged.
    Damaged,
    /// Here, held for quality.
    QualityHold,
    /// On the way.
    InTransit,
    /// At the supplier.
    Supplier,
    /// With a customer.
    Customer,
    /// Lost, or found again: the virtual counterpart of a count.
    Loss,
}

/// Quantities by state of the goods, or changes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Physical, undamaged, not held.
    pub sellable: Decimal,
    /// Damaged.
    pub damaged: Decimal,
    /// Held for quality.
    pub held: Decimal,
    /// Announced and on the way here.
    pub incoming: Decimal,
}

impl Effect {
    /// Number of buckets.
    pub(super) const BUCKETS: usize = 4;

    /// What moving `quantity` between two states changes at the position whose fact it is.
    ///
    /// Goods on the way here are counted by an announcement (`SUPPLIER → IN_TRANSIT`) and come off
    /// when they arrive (`IN_TRANSIT → …`). Goods that leave for another location
    /// (`SELLABLE → IN_TRANSIT`) are not on the way *here*: the destination has its own announcement.
    pub fn of(from: StockState, to: StockState, quantity: Decimal) -> Self {
        let mut effect = Effect::default();
        if let Some(bucket) = effect.bucket_of(from) {
            *bucket -= quantity;
        }
        let leaves = to == StockState::InTransit && from != StockState::Supplier;
        if let Some(bucket) = effect.bucket_of(to).filter(|_| !leaves) {
            *bucket += quantity;
        }
        effect
    }

    fn bucket_of(&mut self, state: StockState) -> Option<&mut Decimal> {
        match state {
            StockState::Sellable => Some(&mut self.sellable),
            StockState::Damaged => Some(&mut self.damaged),
            StockState::QualityHold => Some(&mut self.held),
            StockState::InTransit => Some(&mut self.incoming),
            StockState::Supplier | StockState::Customer | StockState::Loss => None,
        }
    }

    pub(super) fn buckets(&self) -> [Decimal; Self::BUCKETS] {
        [self.sellable, self.damaged, self.held, self.incoming]
    }

    pub(super) fn from_buckets(buckets: [Decimal; Self::BUCKETS]) -> Self {
        let [sellable, damaged, held, incoming] = buckets;
        Effect {
            sellable,
            damaged,
            held,
            incoming,
        }
    }
}

impl AddAssign for Effect {
    fn add_assign(&mut self, other: Effect) {
        self.sellable += other.sellable;
        self.damaged += other.damaged;
        self.held += other.held;
        self.incoming += other.incoming;
    }
}

impl SubAssign for Effect {
    fn sub_assign(&mut self, other: Effect) {
        self.sellable -= other.sellable;
        self.damaged -= other.damaged;
        self.held -= other.held;
        self.incoming -= other.incoming;
    }
}
