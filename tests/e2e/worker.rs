//! A `crossdock` process of the test's own.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How often what must come about by itself is looked for.
pub const POLL: Duration = Duration::from_millis(50);

/// An instance that does not answer within this time stands still.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

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
    log: PathBuf,
    /// Length of the log file when the instance began.
    began: u64,
}

impl Worker {
    pub fn start(bootstrap: &str, folder: &Path, instance: &str, arguments: &[&str]) -> Worker {
        Worker::start_in(bootstrap, folder, "state", instance, arguments)
    }

    /// As [`Worker::start`], with a state folder of this name: another host's, as it were.
    pub fn start_in(
        bootstrap: &str,
        folder: &Path,
        state: &str,
        instance: &str,
        arguments: &[&str],
    ) -> Worker {
        let path = folder.join(format!("{state}-{instance}.log"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .expect("a log file");
        let began = log.metadata().expect("a log file").len();
        let child = crossdock(bootstrap)
            .args(arguments)
            .args(["--instance", instance, "--state"])
            .arg(folder.join(state))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary runs");
        Worker {
            child,
            log: path,
            began,
        }
    }

    /// What the instance has logged so far.
    pub fn logged(&self) -> String {
        let mut file = File::open(&self.log).expect("a log file");
        file.seek(SeekFrom::Start(self.began)).expect("sought");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("UTF-8");
        text
    }

    /// Status and body of a GET to the instance. `None` while it cannot be reached.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let logged = self.logged();
        let (_, rest) = logged.split_once("\"listen\":\"")?;
        let (address, _) = rest.split_once('"')?;
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX)).ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer))
    }

    /// Waits until a GET of `path` is answered with `status`; gives what it says.
    pub fn wait_for(&mut self, path: &str, status: u16) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.get(path) {
                Some((found, words)) if found == status => return words,
                other => {
                    let ended = self.child.try_wait().expect("a child");
                    assert!(ended.is_none(), "{ended:?}: {}", self.logged());
                    assert!(Instant::now() < deadline, "{path}: {other:?}");
                }
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits until the instance ends by itself; gives the exit code.
    pub fn wait(&mut self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(
                Instant::now() < deadline,
                "it did not end: {}",
                self.logged()
            );
            std::thread::sleep(POLL);
        }
    }

    /// The exit code of an instance that has ended by itself, a signal's being `None`.
    #[allow(dead_code, reason = "most tests know when one ends")]
    pub fn ended(&mut self) -> Option<Option<i32>> {
        let status = self.child.try_wait().expect("a child");
        status.map(|s| s.code())
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
