//! The schema registry: one suite for the embedded registry and for a real one, and what only the
//! embedded one promises.

mod api;
mod client;
mod embedded;
mod evolution;
mod real;
#[path = "../support/registry.rs"]
mod real_registry;
mod register;
mod robust;
mod support;
