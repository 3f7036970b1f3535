//! The life of an order: what every system says of it, made into one state.
//!
//! [`Order`] keeps the newest of each object (order, payment, reservation, fulfilment, return, refund,
//! invoice) and the decisions on cancellations ([`Order::hear`], [`Order::decide`]). What follows from
//! them is computed, never stored: [`Order::project`] puts the units of each line into buckets that
//! sum to what was ordered, derives the status, sums the money and names what contradicts.
//! [`Cases`](super::cases::Cases) turn contradictions that stay into exceptions.
//!
//! [`Saga`] sees to it that the lines of an order get their stock, [`Shipments`] is what its channel
//! must know of its fulfilments.
//!
//! The state machines stand as data in `machine`; the rules of the projection in `projection`.
//! What is absent: Avro, Kafka, clocks. Rules: DOMAIN.md §0, §4.

mod book;
mod cancel;
mod facts;
mod machine;
mod projection;
mod saga;
mod shipments;

pub use book::{Fact, Heard, Order, RETENTION, WAITING_MAX, WEIGHT_MAX, Waiting};
pub use cancel::Decision;
pub use facts::{
    Handover, Invoice, Line, Payment, PaymentKind, Progress, Quantities, Refund, Reservation,
    Return, Said, Shipment, ShipmentLine, Snapshot, Statement,
};
pub use machine::{
    Bucket, LINE, Machine, Move, OrderStatus, SHIPMENT, ShipmentStatus, can_be_cancelled,
};
pub use projection::{Buckets, LineState, PATIENCE, View};
pub use saga::{ATTEMPTS_MAX, Answer, HOLD, Held, Plan, SAGA_RETENTION, Saga, Step, Want};
pub use shipments::{
    Fulfilment, MILESTONES, Milestone, Parcel, Report, SHIPMENTS_RETENTION, Shipments,
};
