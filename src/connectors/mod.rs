//! Connectors: one folder for each system, and the list by which they are named.
//!
//! In a folder `client.rs` talks, `map.rs` translates, `source.rs` and `sink.rs` adapt, `fake.rs` is
//! the stand-in. A new connector is its folder and one line in [`ALL`].

pub(crate) mod erp;
pub mod fake;
mod file;
mod generic;
mod http;
pub(crate) mod manifest;
mod mapping;
mod medusa;
mod odoo;
mod psp;
mod reference;
mod storefront;
mod tryton;
mod vendure;
pub mod webhook;

use crate::pipeline::{Code, ConnectorDescriptor, Fault, Stage};

/// Every kind of connector.
pub const ALL: &[&ConnectorDescriptor] = &[
    &file::DESCRIPTOR,
    &generic::DESCRIPTOR,
    &medusa::DESCRIPTOR,
    &odoo::DESCRIPTOR,
    &psp::DESCRIPTOR,
    &reference::DESCRIPTOR,
    &tryton::DESCRIPTOR,
    &vendure::DESCRIPTOR,
];

/// The kind with this name.
pub fn find(kind: &str) -> Option<&'static ConnectorDescriptor> {
    ALL.iter().copied().find(|d| d.kind == kind)
}

/// Reads the settings of a connector from what its entry in a configuration says.
fn settings<T: serde::de::DeserializeOwned>(
    instance: &str,
    settings: serde_json::Value,
) -> Result<T, Fault> {
    serde_json::from_value(settings).map_err(|e| {
        let message = format!("settings of {instance}: {e}");
        Fault::halt(Stage::Read, Code::Configuration, message)
    })
}
