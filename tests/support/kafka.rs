//! A real Kafka for tests.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Of brokers that are killed and begun again: they live for minutes at most, and what it takes to compile
/// them well is not earned back.
const SHORT_LIVED: &str = "-XX:TieredStopAtLevel=1";

/// A cluster started for a test process and stopped with it, or one that the environment names.
pub struct Kafka {
    pub bootstrap: String,
    data: Option<tempfile::TempDir>,
    /// Options of the brokers' Java machines.
    jvm: &'static str,
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
                jvm: "",
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
        Self::or_skip(Self::start_with(count, &options, properties, SHORT_LIVED))
    }

    /// Where the brokers listen for their proxies, in their order.
    #[allow(dead_code, reason = "few tests stand between client and broker")]
    pub fn behind(&self) -> Vec<String> {
        let data = self.data.as_ref().expect("a cluster of the test's own");
        let output = script(data.path(), &["behind"], "", self.jvm).expect("the script runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.trim().split(',').map(str::to_owned).collect()
    }

    fn start(brokers: u32, properties: &str) -> Result<Kafka, String> {
        Self::start_with(brokers, &[], properties, "")
    }

    fn start_with(
        brokers: u32,
        options: &[&str],
        properties: &str,
        jvm: &'static str,
    ) -> Result<Kafka, String> {
        let data = tempfile::tempdir().map_err(|e| e.to_string())?;
        let count = brokers.to_string();
        let arguments = [&["up", "--brokers", &count], options].concat();
        let output = script(data.path(), &arguments, properties, jvm)?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let bootstrap = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Kafka {
            bootstrap,
            data: Some(data),
            jvm,
        })
    }

    /// Runs `landscape/kafka.sh` with these arguments on this cluster.
    #[allow(dead_code, reason = "not every test binary disturbs its brokers")]
    pub fn control(&self, arguments: &[&str]) {
        let data = self.data.as_ref().expect("a cluster of the test's own");
        let output = script(data.path(), arguments, "", self.jvm).expect("the script runs");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Copies the brokers' logs into a folder: the cluster's own is gone when it ends.
    #[allow(dead_code, reason = "only long runs need them when they fail")]
    pub fn keep_logs(&self, folder: &Path) -> std::io::Result<()> {
        let data = self.data.as_ref().expect("a cluster of the test's own");
        for entry in std::fs::read_dir(data.path())? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().contains(".log") {
                std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
            }
        }
        Ok(())
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
            let _ = script(data.path(), &["down"], "", self.jvm);
        }
    }
}

fn script(data: &Path, arguments: &[&str], properties: &str, jvm: &str) -> Result<Output, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("landscape/kafka.sh");
    Command::new(script)
        .args(arguments)
        .env("KAFKA_DATA_DIR", data)
        .env("KAFKA_PROPERTIES", properties)
        .env("KAFKA_JVM", jvm)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("landscape/kafka.sh cannot be run: {e}"))
}
