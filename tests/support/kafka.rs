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
    #[allow(
        dead_code,
        reason = "some tests need a cluster with settings of its own"
    )]
    pub fn find(brokers: u32) -> Option<Kafka> {
        if let Ok(bootstrap) = std::env::var("CROSSDOCK_TEST_BOOTSTRAP") {
            return Some(Kafka {
                bootstrap,
                data: None,
            });
        }
        Self::or_skip(Self::start(brokers, ""))
    }

    fn or_skip(started: Result<Kafka, String>) -> Option<Kafka> {
        match started {
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

    /// One broker of the test's own with these further settings; otherwise as [`Kafka::find`].
    #[allow(dead_code, reason = "most tests take a broker as it comes")]
    pub fn with_properties(properties: &str) -> Option<Kafka> {
        Self::or_skip(Self::start(1, properties))
    }

    /// As many brokers as there are ports, which tell clients that come by a proxy to come to these
    /// ports; otherwise as [`Kafka::with_properties`].
    #[allow(dead_code, reason = "few tests stand between client and broker")]
    pub fn behind_proxies(ports: &[u16], properties: &str) -> Option<Kafka> {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let options = ["--proxies", &ports.join(",")];
        let count = ports.len() as u32;
        Self::or_skip(Self::start_with(count, &options, properties))
    }

    /// Where the brokers listen for their proxies, in their order.
    #[allow(dead_code, reason = "few tests stand between client and broker")]
    pub fn behind(&self) -> Vec<String> {
        let data = self.data.as_ref().expect("a cluster of the test's own");
        let output = script(data.path(), &["behind"], "").expect("the script runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.trim().split(',').map(str::to_owned).collect()
    }

    fn start(brokers: u32, properties: &str) -> Result<Kafka, String> {
        Self::start_with(brokers, &[], properties)
    }

    fn start_with(brokers: u32, options: &[&str], properties: &str) -> Result<Kafka, String> {
        let data = tempfile::tempdir().map_err(|e| e.to_string())?;
        let count = brokers.to_string();
        let arguments = [&["up", "--brokers", &count], options].concat();
        let output = script(data.path(), &arguments, properties)?;
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
        let output = script(data.path(), arguments, "").expect("the script runs");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Process id of the first broker; `None` where the cluster is somebody else's.
    #[allow(dead_code, reason = "only benches ask what the broker costs")]
    pub fn broker(&self) -> Option<u32> {
        let file = self.data.as_ref()?.path().join("node1.pid");
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
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
            let _ = script(data.path(), &["down"], "");
        }
    }
}

fn script(data: &Path, arguments: &[&str], properties: &str) -> Result<Output, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("landscape/kafka.sh");
    Command::new(script)
        .args(arguments)
        .env("KAFKA_DATA_DIR", data)
        .env("KAFKA_PROPERTIES", properties)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("landscape/kafka.sh cannot be run: {e}"))
}
