//! The processors: one pure file each, and the list by which they are named.

mod ats_aggregate;
mod cases;
mod checks;
mod emitter;
mod exception_context;
mod exception_enricher;
mod feed_watch;
mod finance;
mod keyed;
mod ledger;
mod manifest_split;
mod order_lifecycle;
mod order_recon;
mod prices;
mod refund_gate;
mod reservation_saga;
mod return_refund_recon;
mod settlement_match;
mod settlement_recon;
mod shelf;
mod shipment_propagation;
mod sla_monitor;
mod statuses;
mod stock_ledger;
mod stock_recon;

pub use ats_aggregate::AtsAggregate;
pub use exception_context::ExceptionContext;
pub use exception_enricher::ExceptionEnricher;
pub use feed_watch::FeedWatch;
pub use ledger::Ledger;
pub use manifest_split::ManifestSplit;
pub use order_lifecycle::OrderLifecycle;
pub use order_recon::OrderRecon;
pub use refund_gate::RefundGate;
pub use reservation_saga::ReservationSaga;
pub use return_refund_recon::ReturnRefundRecon;
pub use settlement_match::SettlementMatch;
pub use settlement_recon::SettlementRecon;
pub use shipment_propagation::ShipmentPropagation;
pub use sla_monitor::SlaMonitor;
pub use stock_ledger::StockLedger;
pub use stock_recon::StockRecon;

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
    Registered {
        descriptor: &order_lifecycle::DESCRIPTOR,
        make: || Box::new(OrderLifecycle::new()),
    },
    Registered {
        descriptor: &reservation_saga::DESCRIPTOR,
        make: || Box::new(ReservationSaga::new()),
    },
    Registered {
        descriptor: &shipment_propagation::DESCRIPTOR,
        make: || Box::new(ShipmentPropagation::new()),
    },
    Registered {
        descriptor: &refund_gate::DESCRIPTOR,
        make: || Box::new(RefundGate::new()),
    },
    Registered {
        descriptor: &return_refund_recon::DESCRIPTOR,
        make: || Box::new(ReturnRefundRecon::new()),
    },
    Registered {
        descriptor: &ledger::DESCRIPTOR,
        make: || Box::new(Ledger::new()),
    },
    Registered {
        descriptor: &settlement_match::DESCRIPTOR,
        make: || Box::new(SettlementMatch::new()),
    },
    Registered {
        descriptor: &settlement_recon::DESCRIPTOR,
        make: || Box::new(SettlementRecon::new()),
    },
    Registered {
        descriptor: &stock_recon::DESCRIPTOR,
        make: || Box::new(StockRecon::new()),
    },
    Registered {
        descriptor: &manifest_split::DESCRIPTOR,
        make: || Box::new(ManifestSplit::new()),
    },
    Registered {
        descriptor: &order_recon::DESCRIPTOR,
        make: || Box::new(OrderRecon::new()),
    },
    Registered {
        descriptor: &exception_context::DESCRIPTOR,
        make: || Box::new(ExceptionContext::new()),
    },
    Registered {
        descriptor: &exception_enricher::DESCRIPTOR,
        make: || Box::new(ExceptionEnricher::new()),
    },
    Registered {
        descriptor: &sla_monitor::DESCRIPTOR,
        make: || Box::new(SlaMonitor::new()),
    },
    Registered {
        descriptor: &feed_watch::DESCRIPTOR,
        make: || Box::new(FeedWatch::new()),
    },
];

/// The processor with this name.
pub fn find(name: &str) -> Option<&'static Registered> {
    ALL.iter().find(|p| p.descriptor.name == name)
}
