//! Registries to test against.

use crossdock::log::embedded::{EmbeddedLog, Options};
use crossdock::registry::{ClientSettings, EmbeddedRegistry, RegistryClient, ServedRegistry};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

pub fn log() -> EmbeddedLog {
    EmbeddedLog::new(Options::system())
}

pub fn open(log: &EmbeddedLog) -> Arc<EmbeddedRegistry> {
    Arc::new(EmbeddedRegistry::open(Arc::new(log.clone())).expect("the embedded log answers"))
}

pub fn served() -> ServedRegistry {
    serve(open(&log()))
}

pub fn serve(registry: Arc<EmbeddedRegistry>) -> ServedRegistry {
    let loopback = ([127, 0, 0, 1], 0).into();
    ServedRegistry::start(registry, loopback).expect("loopback can be listened on")
}

pub fn client(url: &str) -> RegistryClient {
    RegistryClient::new(&ClientSettings::new(url)).expect("a usable URL")
}

/// A subject that no other run used: a real registry keeps what earlier runs registered.
pub fn subject(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_micros());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("test.{name}.{now}.{count}-value")
}

/// A record with these fields, `name:type` or `name:type=default`; `named` keeps records of
/// different tests apart.
pub fn record(named: &str, fields: &[&str]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|field| {
            let (name, kind) = field.split_once(':').expect("name:type");
            let (kind, default) = match kind.split_once('=') {
                Some((kind, default)) => (kind, format!(r#","default":{default}"#)),
                None => (kind, String::new()),
            };
            let kind = if kind.starts_with(['{', '[']) {
                kind.to_owned()
            } else {
                format!("\"{kind}\"")
            };
            format!(r#"{{"name":"{name}","type":{kind}{default}}}"#)
        })
        .collect();
    format!(
        r#"{{"type":"record","name":"{named}","namespace":"test","fields":[{}]}}"#,
        fields.join(",")
    )
}
