//! Every processor in one process on a real Kafka, over a data set of real sales:
//! `cargo bench --bench whole -- [FILE]`.
//!
//! The file (or `CROSSDOCK_BENCH_DATA`; without either, the slice that ships with the project) is the UCI
//! "Online Retail" CSV, plain or gzip: 541,909 lines in all. `crossdock run` reads it with the `file`
//! connector as a deployment does, and is done when no processor has settled anything for a while.

mod support;

use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use support::announce;
use support::kafka::Kafka;
use support::process::{Running, crossdock, usage};

/// Nothing is settled for so long: everything is.
const QUIET: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(3_600);
const LOOK: Duration = Duration::from_millis(250);

fn main() {
    announce("every processor in one process, over real sales");
    let given = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    let given = given.or_else(|| std::env::var("CROSSDOCK_BENCH_DATA").ok());
    let data = given.unwrap_or_else(|| "data/online_retail_slice.csv.gz".into());
    let folder = tempfile::tempdir().expect("a folder");
    let kafka = Kafka::find(1).expect("a real Kafka");
    let config = configuration(Path::new(&data), folder.path());
    let bootstrap = &kafka.bootstrap;
    let program = || {
        let mut command = crossdock(bootstrap, folder.path());
        command.env("CROSSDOCK_CONFIG", &config);
        command
    };
    let applied = program()
        .args(["topics", "apply", "--replication", "1"])
        .status();
    assert!(applied.is_ok_and(|s| s.success()), "topics apply");
    let registered = program().args(["schemas", "register"]).status();
    assert!(registered.is_ok_and(|s| s.success()), "schemas register");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = free.local_addr().expect("an address").to_string();
    drop(free);
    let mut command = program();
    command.args(["run", "reference", "tills"]);
    command.args(crossdock::processors::ALL.iter().map(|p| p.descriptor.name));
    command.args(["--instance", "bench", "--listen", &listen, "--state"]);
    command.arg(folder.path().join("state"));
    let mut running = Running::start(&mut command);
    let broker = || kafka.broker().map(usage).unwrap_or_default().cpu;
    let (began, mut first, mut last) = (Instant::now(), None, (0, Instant::now()));
    let (mut cpu, mut broker_cpu) = (Duration::ZERO, Duration::ZERO);
    loop {
        running.must_run();
        assert!(began.elapsed() < PATIENCE, "not done within {PATIENCE:?}");
        std::thread::sleep(LOOK);
        let (read, settled) = counts(&listen);
        if first.is_none() && read > 0 {
            first = Some(last.1.max(began));
            (cpu, broker_cpu) = (running.usage().cpu, broker());
        }
        if read + settled > last.0 {
            last = (read + settled, Instant::now());
        } else if first.is_some() && last.1.elapsed() > QUIET {
            let started = first.unwrap_or(began);
            let seconds = last.1.duration_since(started).as_secs_f64();
            let used = running.usage();
            let each = |time: Duration| time.as_secs_f64() * 1e6 / settled.max(1) as f64;
            println!(
                "{read} events read from {data}, {settled} records settled in {seconds:.1} s: {:.0} and {:.0} a second",
                read as f64 / seconds,
                settled as f64 / seconds
            );
            println!(
                "for each record settled {:.2} µs of CPU, of the broker {:.2} µs; {:.0} MiB at most",
                each(used.cpu.saturating_sub(cpu)),
                each(broker().saturating_sub(broker_cpu)),
                used.resident_mib_max
            );
            break;
        }
    }
    running.stop();
}

/// Events that the file has told, and records that the processors have settled.
fn counts(listen: &str) -> (u64, u64) {
    let Some(metrics) = get(listen, "/metrics") else {
        return (0, 0);
    };
    let (mut read, mut settled) = (0, 0);
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix("crossdock_records_total{reader=\"") else {
            continue;
        };
        let Some((reader, count)) = rest.split_once("\"} ") else {
            continue;
        };
        let count = count.parse::<f64>().unwrap_or(0.0) as u64;
        match reader {
            "tills" => read += count,
            "reference" => {}
            _ => settled += count,
        }
    }
    (read, settled)
}

fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
}

/// The example's tills with this file, and channels that sell what they have.
fn configuration(data: &Path, folder: &Path) -> std::path::PathBuf {
    let data = std::fs::canonicalize(data).expect("the data file is there");
    let example = std::fs::read_to_string("config/online-retail.yaml").expect("the example");
    let mut config: serde_json::Value = serde_norway::from_str(&example).expect("YAML");
    config["connectors"][0]["settings"]["path"] = data.display().to_string().into();
    let reference = json!({
        "name": "reference",
        "kind": "reference",
        "settings": {
            "locations": {"store-uk": {"kind": "store"}, "store-eu": {"kind": "store"}},
            "channels": {"uk": {"locations": ["store-uk"]}, "eu": {"locations": ["store-eu", "store-uk"]}},
        },
    });
    let connectors = config["connectors"].as_array_mut().expect("a list");
    connectors.truncate(1);
    connectors.push(reference);
    let path = folder.join("config.yaml");
    std::fs::write(&path, config.to_string()).expect("written");
    path
}
