//! A real Kafka for tests.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A cluster started for a test process and stopped with it, or one that the environment names.
pub struct Kafka {
    pub bootstrap: String,
    data: Option<tempfile::TempDir>,
}

impl Kafka {
    /// The cluster at `CROSSDOCK_TEST_BOOTSTRAP`, or one started by `landscape/kafka.sh`. `None`,
    /// with a line that says why, where neither is possible; never `None` in continuous integration.
    pub fn find(brokers: u32) -> Option<Kafka> {
        if let Ok(bootstrap) = std::env::var("CROSSDOCK_TEST_BOOTSTRAP") {
            return Some(Kafka {
                bootstrap,
                data: None,
            });
        }
        match Self::start(brokers) {
            Ok(kafka) => Some(kafka),
            Err(why) if std::env::var("CI").is_ok_and(|v| v == "true") => {
                panic!("no real Kafka: {why}")
            }
            Err(why) => {
                println!("SKIPPED: no real Kafka: {why}");
                None
            }
        }
    }

    fn start(brokers: u32) -> Result<Kafka, String> {
        let data = tempfile::tempdir().map_err(|e| e.to_string())?;
        let output = script(data.path(), &["up", "--brokers", &brokers.to_string()])?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let bootstrap = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Kafka {
            bootstrap,
            data: Some(data),
        })
    }

    /// Runs `landscape/kafka.sh` with these arguments on this cluster.
    #[allow(dead_code, reason = "not every test binary disturbs its brokers")]
    pub fn control(&self, arguments: &[&str]) {
        let data = self.data.as_ref().expect("a cluster of the test's own");
        let output = script(data.path(), arguments).expect("the script runs");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Whether the cluster was started for this test and may be disturbed.
    #[allow(dead_code, reason = "not every test binary disturbs its brokers")]
    pub fn is_own(&self) -> bool {
        self.data.is_some()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Some(data) = &self.data {
            let _ = script(data.path(), &["down"]);
        }
    }
}

fn script(data: &Path, arguments: &[&str]) -> Result<Output, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("landscape/kafka.sh");
    Command::new(script)
        .args(arguments)
        .env("KAFKA_DATA_DIR", data)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("landscape/kafka.sh cannot be run: {e}"))
}
