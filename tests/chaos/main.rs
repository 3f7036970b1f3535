//! Crossdock on three brokers while everything around it goes wrong; at the end the books must balance
//! and the oracle must find nothing.
//!
//!     cargo test --test chaos                          ten minutes
//!     cargo test --test chaos -- --hours 8             a soak
//!     cargo test --test chaos -- --seed 7 --faults kill,end-txn-late
//!
//! A run lasts until each kind of fault was made. One that fails says its seed and what was done until then, and keeps the logs of workers and brokers. The plan of
//! faults follows from the seed; what the workers are doing when a fault meets them does not, so the
//! same seed makes a failure likely to return, not certain.

mod deeds;
#[path = "../e2e/facts.rs"]
#[allow(dead_code, reason = "it does more than is needed here")]
mod facts;
mod judge;
#[path = "../support/kafka.rs"]
mod kafka;
mod load;
#[path = "../support/oracle.rs"]
mod oracle;
mod plan;
#[path = "../support/proxy.rs"]
mod proxy;
mod stage;
#[path = "../e2e/worker.rs"]
#[allow(dead_code, reason = "it does more than is needed here")]
mod worker;

use clap::{Parser, ValueEnum};
use plan::{Hand, Kind, Plan};
use stage::Stage;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Minutes of a run where nobody says otherwise, and in continuous integration.
const MINUTES: (f64, f64) = (10.0, 2.0);

/// Crossdock on three brokers while everything around it goes wrong.
#[derive(Parser)]
#[command(name = "chaos")]
struct Options {
    /// How long faults are made, or longer until each kind was made once. By default ten minutes, in continuous
    /// integration (CI=true) two.
    #[arg(long, env = "CROSSDOCK_CHAOS_MINUTES", conflicts_with = "hours")]
    minutes: Option<f64>,
    /// The same in hours.
    #[arg(long)]
    hours: Option<f64>,
    /// Seed of the plan and of what is sent. By default one that is new.
    #[arg(long)]
    seed: Option<u64>,
    /// Only faults of these kinds.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Kind>,
    /// As tests take it; says nothing here.
    #[arg(long, hide = true)]
    nocapture: bool,
    /// Names of tests, where only some are asked for.
    #[arg(hide = true)]
    tests: Vec<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.tests.is_empty() && !options.tests.iter().any(|name| "chaos".contains(&**name)) {
        return ExitCode::SUCCESS;
    }
    let is_ci = std::env::var("CI").is_ok_and(|v| v == "true");
    let minutes = options.hours.map(|hours| hours * 60.0);
    let minutes = minutes.or(options.minutes);
    let minutes = minutes.unwrap_or(if is_ci { MINUTES.1 } else { MINUTES.0 });
    let seed = options.seed.unwrap_or_else(rand::random);
    let mut chosen = options.faults;
    if chosen.is_empty() {
        chosen = Kind::value_variants().to_vec();
    }
    println!("seed {seed}: {minutes} minutes of faults on three brokers");
    let Some(stage) = Stage::start(seed, chosen.clone()) else {
        return ExitCode::SUCCESS;
    };
    let played = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let duration = Duration::from_secs_f64(minutes * 60.0);
        play(&stage, &chosen, duration);
        judge::judge(&stage);
    }));
    stage.network.open();
    print!("{}", stage.report());
    // In continuous integration nothing may be left out; elsewhere what cannot be made is told.
    let is_whole = stage.missing().is_empty() && (!is_ci || stage.not_made().is_empty());
    if played.is_ok() && is_whole {
        println!("chaos: passed (seed {seed})");
        return ExitCode::SUCCESS;
    }
    println!("{}", stage.story());
    // What was passed over or settled twice is named, with partition and offset.
    let books = worker::run(&stage.kafka.bootstrap, &["verify"]);
    println!("{}", String::from_utf8_lossy(&books.stdout));
    let folder = stage.keep().display().to_string();
    println!("chaos: FAILED (seed {seed}); the workers' and the brokers' logs are in {folder}");
    ExitCode::FAILURE
}

/// Load and faults side by side, until the time is over; then everything is made whole.
fn play(stage: &Stage, chosen: &[Kind], duration: Duration) {
    // Made of what is in the log, which may not answer once brokers are killed.
    let (codec, waves) = (&load::codec(stage), load::retailer(stage));
    stage.begin(Instant::now() + duration);
    std::thread::scope(|scope| {
        // Whoever fails ends the others.
        let guarded = |work: Box<dyn FnOnce() + Send + '_>| {
            if std::panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
                stage.fail();
            }
        };
        scope.spawn(move || guarded(Box::new(|| load::facts(stage, codec, waves))));
        scope.spawn(move || guarded(Box::new(|| load::deliveries(stage))));
        scope.spawn(move || guarded(Box::new(|| stage.keep_running())));
        for hand in Hand::ALL {
            let plan = Plan::new(stage.seed, hand, chosen);
            scope.spawn(move || guarded(Box::new(|| deeds::play(stage, plan))));
        }
    });
    assert!(!stage.has_failed(), "a fault brought down more than it may");
}
