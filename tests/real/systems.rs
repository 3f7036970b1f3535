//! The real systems of `landscape/`, for one test at a time on the whole machine.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

const NAMES: [&str; 4] = ["tryton", "odoo", "vendure", "medusa"];

/// The systems, as long as this lives.
///
/// `landscape.sh hold` keeps them from all other processes until this process ends, however it ends, and
/// then stops those that it started; within the process one test has them at a time.
pub struct Systems {
    _turn: MutexGuard<'static, Option<Result<Child, String>>>,
}

static HELD: Mutex<Option<Result<Child, String>>> = Mutex::new(None);

impl Systems {
    /// All of them, running. `None`, with a line that says why, where they cannot be started; never
    /// `None` in continuous integration.
    pub fn find() -> Option<Systems> {
        let mut turn = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = turn.get_or_insert_with(hold).as_ref().map(|_| ());
        match outcome.map_err(Clone::clone) {
            Ok(()) => {
                // A test that failed may have left one of them stopped.
                std::thread::scope(|scope| {
                    for name in NAMES {
                        scope.spawn(move || control(name, "up"));
                    }
                });
                Some(Systems { _turn: turn })
            }
            Err(why) if std::env::var("CI").is_ok_and(|v| v == "true") => {
                panic!("no real systems: {why}")
            }
            Err(why) => {
                println!("SKIPPED: no real systems: {why}");
                None
            }
        }
    }

    /// Stops a system, as its operator would.
    pub fn stop(&self, name: &str) {
        control(name, "down");
    }

    /// Starts a system again, with the data it had.
    pub fn start(&self, name: &str) {
        control(name, "up");
    }

    /// Starts a system with these settings in its environment; it must be stopped.
    pub fn start_with(&self, name: &str, settings: &[(&str, &str)]) {
        run(script(&format!("{name}/{name}.sh"))
            .arg("up")
            .envs(settings.iter().copied()));
    }

    /// A credential or another file that the landscape has left in its cache.
    pub fn file(&self, name: &str) -> PathBuf {
        let variable = |name| std::env::var_os(name).filter(|v: &std::ffi::OsString| !v.is_empty());
        let cache = variable("CROSSDOCK_CACHE").map(PathBuf::from);
        let user = || variable("XDG_CACHE_HOME").map(|v| PathBuf::from(v).join("crossdock"));
        let home = || variable("HOME").map(|v| PathBuf::from(v).join(".cache/crossdock"));
        let cache = cache.or_else(user).or_else(home).expect("a cache folder");
        cache.join("landscape").join(name)
    }
}

/// Base URL of a system.
pub fn url(name: &str) -> String {
    let (variable, port) = match name {
        "tryton" => ("LANDSCAPE_TRYTON_PORT", "8300"),
        "odoo" => ("LANDSCAPE_ODOO_PORT", "8340"),
        "vendure" => ("LANDSCAPE_VENDURE_PORT", "8310"),
        _ => ("LANDSCAPE_MEDUSA_PORT", "8330"),
    };
    let port = std::env::var(variable).unwrap_or_else(|_| port.to_owned());
    format!("http://127.0.0.1:{port}")
}

fn script(name: &str) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("landscape");
    Command::new(folder.join(name))
}

fn hold() -> Result<Child, String> {
    let mut child = script("landscape.sh")
        .arg("hold")
        .args(NAMES)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A Ctrl-C is for the tests; the script ends when they have.
        .process_group(0)
        .spawn()
        .map_err(|e| format!("landscape/landscape.sh cannot be run: {e}"))?;
    let output = child.stdout.take().expect("piped");
    let mut line = String::new();
    match BufReader::new(output).read_line(&mut line) {
        Ok(_) if line.trim() == "ready" => Ok(child),
        _ => Err("landscape/landscape.sh did not start them; it says why above".to_owned()),
    }
}

fn control(name: &str, verb: &str) {
    run(script(&format!("{name}/{name}.sh")).arg(verb));
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.expect("the script runs");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
