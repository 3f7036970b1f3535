//! What a process costs, from `/proc`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Clock ticks a second of `/proc/PID/stat`: 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Resident now, in MiB.
    pub resident_mib: f64,
    /// Resident at most, in MiB.
    pub resident_mib_max: f64,
}

/// What the process `id` has used until now.
pub fn usage(id: u32) -> Usage {
    let read = |file: &str| fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default();
    let stat = read("stat");
    // The name in parentheses may hold anything; times are the 12th and 13th field after it.
    let after = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<u64> = after
        .split_whitespace()
        .map(|f| f.parse().unwrap_or(0))
        .collect();
    let ticks = |at: usize| fields.get(at).copied().unwrap_or(0);
    let status = read("status");
    let mib = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name));
        let number = line.and_then(|l| l.split_whitespace().nth(1));
        number.and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1_024.0
    };
    Usage {
        cpu: Duration::from_millis((ticks(11) + ticks(12)) * 1_000 / TICKS_PER_SECOND),
        resident_mib: mib("VmRSS:"),
        resident_mib_max: mib("VmHWM:"),
    }
}

/// CPU time of this thread.
pub fn thread_cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|f| f.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Memory that is resident in this process now, in MiB.
pub fn resident_mib() -> f64 {
    usage(std::process::id()).resident_mib
}

/// A child that is killed when it is dropped.
pub struct Running {
    child: Child,
    /// Where its log output goes.
    log: PathBuf,
}

/// Lines of its log that are shown of a child that ended by itself.
const LAST_LINES: usize = 20;

impl Running {
    /// Starts it.
    pub fn start(command: &mut Command) -> Running {
        let child = command.spawn().expect("the process starts");
        let log = fs::read_link(format!("/proc/{}/fd/2", child.id())).unwrap_or_default();
        Running { child, log }
    }
    /// What it has used.
    pub fn usage(&self) -> Usage {
        usage(self.child.id())
    }
    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
    /// Holds that it runs.
    ///
    /// # Panics
    /// With the end of its log, when it does not.
    pub fn must_run(&mut self) {
        assert!(
            !self.has_ended(),
            "the program ended by itself:\n{}",
            self.last_words()
        );
    }
    /// Waits for its end.
    ///
    /// # Panics
    /// With the end of its log, when it failed.
    pub fn wait(mut self) {
        let status = self.child.wait().expect("the process ends");
        assert!(
            status.success(),
            "a process of the bench failed: {status}\n{}",
            self.last_words()
        );
    }
    /// Asks it to end and waits until it has.
    pub fn stop(mut self) {
        let asked = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(asked.is_ok_and(|s| s.success()), "kill");
        let _ = self.child.wait();
    }

    fn last_words(&self) -> String {
        // A terminal has no end that could be read.
        let is_file = self.log.is_file();
        let text = is_file.then(|| fs::read_to_string(&self.log).unwrap_or_default());
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `crossdock` (or the `CROSSDOCK_BENCH_PROGRAM` to compare with it) as it is deployed, on this Kafka, with its log output in `folder`.
pub fn crossdock(bootstrap: &str, folder: &Path) -> Command {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("crossdock.log"))
        .expect("a log file");
    let program = std::env::var_os("CROSSDOCK_BENCH_PROGRAM");
    let mut command = Command::new(program.unwrap_or(env!("CARGO_BIN_EXE_crossdock").into()));
    command
        .env("CROSSDOCK_BOOTSTRAP", bootstrap)
        .env_remove("CROSSDOCK_REGISTRY")
        .stdout(log.try_clone().expect("a log file"))
        .stderr(log);
    command
}

/// Looks every few milliseconds until `done`.
///
/// # Panics
/// After `patience`, with what was waited for.
pub fn wait_until(what: &str, patience: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
