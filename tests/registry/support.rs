//! Registries to test against.

use crossdock::log::embedded::{EmbeddedLog, Options};
use crossdock::registry::{ClientSettings, EmbeddedRegistry, RegistryClient, ServedRegistry};
use std::path::Path;
use std::process::{Command, Stdio};
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
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("landscape/registry.sh");
        let data = tempfile::tempdir().map_err(|e| e.to_string())?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .map_err(|e| e.to_string())?
            .port();
        let output = Command::new(&script)
            .arg(port.to_string())
            .env("REGISTRY_DATA_DIR", data.path())
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("{}: {e}", script.display()))?;
        let url = String::from_utf8_lossy(&output.stdout);
        match url.lines().rev().find(|l| l.starts_with("http")) {
            Some(url) if output.status.success() => Ok(RealRegistry {
                url: url.to_owned(),
                data: Some(data),
            }),
            _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let pid = self
            .data
            .as_ref()
            .and_then(|d| std::fs::read_to_string(d.path().join("registry.pid")).ok());
        if let Some(pid) = pid {
            // It may have ended by itself, which is as good.
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
    }
}
