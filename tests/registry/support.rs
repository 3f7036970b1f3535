//! Registries to test against.

use crossdock::log::embedded::{EmbeddedLog, Options};
use crossdock::registry::{ClientSettings, EmbeddedRegistry, RegistryClient, ServedRegistry};
use std::path::Path;
use std::process::{Command, Output, Stdio};
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

/// A real registry, started for the tests and ended with them.
pub struct RealRegistry {
    pub url: String,
    data: Option<tempfile::TempDir>,
}

impl RealRegistry {
    /// The one at `CROSSDOCK_TEST_REGISTRY`, or one started by `landscape/registry.sh`. `None`, with
    /// a line that says why, where neither is possible; never `None` in continuous integration.
    pub fn find() -> Option<RealRegistry> {
        if let Ok(url) = std::env::var("CROSSDOCK_TEST_REGISTRY") {
            return Some(RealRegistry { url, data: None });
        }
        match Self::start() {
            Ok(registry) => Some(registry),
            Err(why) => {
                assert!(
                    std::env::var("CI").as_deref() != Ok("true"),
                    "a real schema registry is needed: {why}"
                );
                println!("SKIPPED: no real schema registry: {why}");
                None
            }
        }
    }

    fn start() -> Result<RealRegistry, String> {
        let data = tempfile::tempdir().map_err(|e| e.to_string())?;
        let output = script(data.path(), "up")?;
        // Made before the outcome is looked at: what did not become ready is stopped too.
        let mut registry = RealRegistry {
            url: String::new(),
            data: Some(data),
        };
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        registry.url = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(registry)
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        if let Some(data) = &self.data {
            let down = script(data.path(), "down");
            if !down.is_ok_and(|o| o.status.success()) {
                eprintln!("the registry in {} was not stopped", data.path().display());
            }
        }
    }
}

/// Runs `landscape/registry.sh` with this verb on the registry whose data are in this folder.
fn script(data: &Path, verb: &str) -> Result<Output, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("landscape/registry.sh");
    Command::new(script)
        .arg(verb)
        .env("REGISTRY_DATA_DIR", data)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("landscape/registry.sh cannot be run: {e}"))
}
