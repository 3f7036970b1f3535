//! Crossdock keeps a retailer's systems in agreement: source connectors turn what happens in ERP,
//! storefronts and tills into Avro events, stream processors join and reconcile them, sink
//! connectors push the result back out.
//!
//! Read the modules in the order in which they build on one another:
//! [`domain`] → [`contract`] → [`pipeline`] → [`codec`], [`log`], [`state`] → [`runtime`];
//! then [`processors`] and [`connectors`], which see only the first three and [`config`].
//! `ARCHITECTURE.md` is the map.

pub mod books;
pub mod cases;
pub mod cli;
pub mod codec;
pub mod config;
pub mod connectors;
pub mod contract;
pub mod customers;
pub mod demo;
mod desk;
pub mod dlq;
pub mod domain;
pub mod explain;
pub mod log;
pub mod parked;
pub mod pipeline;
pub mod processors;
pub mod rebuild;
pub mod registry;
pub mod replay;
pub mod runtime;
pub mod simulate;
pub mod state;
pub mod telemetry;
pub mod topics;
pub mod verify;
