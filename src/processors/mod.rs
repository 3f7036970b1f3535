//! The processors: one pure file each, and the list by which they are named.

mod ats_aggregate;
mod shelf;
mod stock_ledger;

pub use ats_aggregate::AtsAggregate;
pub use stock_ledger::StockLedger;

use crate::pipeline::{Processor, ProcessorDescriptor};

/// A processor that can be run by name.
pub struct Registered {
    /// What it is.
    pub descriptor: &'static ProcessorDescriptor,
    /// Makes one for a task.
    pub make: fn() -> Box<dyn Processor>,
}

/// Every processor.
pub const ALL: &[Registered] = &[
    Registered {
        descriptor: &stock_ledger::DESCRIPTOR,
        make: || Box::new(StockLedger::new()),
    },
    Registered {
        descriptor: &ats_aggregate::DESCRIPTOR,
        make: || Box::new(AtsAggregate::new()),
    },
];

/// The processor with this name.
pub fn find(name: &str) -> Option<&'static Registered> {
    ALL.iter().find(|p| p.descriptor.name == name)
}
