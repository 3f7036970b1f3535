//! A real schema registry for tests.

use std::path::Path;
use std::process::{Command, Output, Stdio};

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
