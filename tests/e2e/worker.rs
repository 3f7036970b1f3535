//! A `crossdock` process of the test's own.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The binary under test.
pub fn crossdock(bootstrap: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crossdock"));
    command
        .env("CROSSDOCK_BOOTSTRAP", bootstrap)
        .env_remove("CROSSDOCK_REGISTRY")
        .stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(bootstrap: &str, arguments: &[&str]) -> Output {
    crossdock(bootstrap)
        .args(arguments)
        .output()
        .expect("the binary runs")
}

/// As [`run`], and it must succeed.
pub fn succeed(bootstrap: &str, arguments: &[&str]) -> String {
    let output = run(bootstrap, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A running instance; killed when dropped.
pub struct Worker {
    child: Child,
}

impl Worker {
    pub fn start(bootstrap: &str, folder: &Path, instance: &str, arguments: &[&str]) -> Worker {
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join(format!("{instance}.log")))
            .expect("a log file");
        let child = crossdock(bootstrap)
            .args(arguments)
            .args(["--instance", instance, "--state"])
            .arg(folder.join("state"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary runs");
        Worker { child }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; gives the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().expect("it ends").code()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(sent.is_ok_and(|s| s.success()), "kill -{name}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}
