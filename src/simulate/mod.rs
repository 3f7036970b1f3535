//! Simulation: the real runtime, processors and sinks on the embedded log, under a scheduler and a clock
//! that follow from a seed.
//!
//! A run is planned beforehand (`plan`): what is done outside, and what goes wrong. Every call of
//! the log that an instance makes can fail, lose its answer, be the instance's last, or be the one at
//! which it is stopped while the others go on (`port`); so can every call of a system (`target`).
//! At the end nothing goes wrong any more, everything comes to rest, and `judges`, which share nothing
//! with what they judge, look at the log and at what the systems have written down. A run that fails is
//! played again with parts of its plan left out, until what is left is the shortest story (`shrink`).
//!
//! The same seed gives the same run, byte for byte. Judges that see nothing prove nothing: `defects`
//! sows mistakes at the ports between the runtime and the rest, to see in how many runs each is found.

mod agenda;
mod baskets;
mod cast;
mod deeds;
mod defects;
mod judges;
mod plan;
mod port;
mod schemas;
mod shrink;
mod story;
mod target;
mod time;
mod watched;
mod world;

pub use cast::Trade;
pub use defects::Defect;
pub use schemas::Schemas;
pub use shrink::Story;

use crate::demo::systems::open;
use crate::pipeline::Fault;
use plan::{OPENING, Plan};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use time::BEGIN;
use world::World;

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Simulated hours of trade.
    pub hours: f64,
    /// What is traded; `None` leaves it to the seed.
    pub trade: Option<Trade>,
    /// A defect to sow.
    pub defect: Option<Defect>,
}

/// What became of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What was traded.
    pub trade: Trade,
    /// Rule and counter-example of each rule that does not hold.
    pub broken: Vec<(String, String)>,
    /// Of everything that stands in the log: equal for equal runs.
    pub digest: String,
    /// Committed records.
    pub records: u64,
    /// Steps of instances.
    pub steps: u64,
    /// Transactions that committed.
    pub commits: u64,
    /// Starts of instances.
    pub lives: u64,
    /// Faults that struck, by kind.
    pub struck: BTreeMap<&'static str, u64>,
    /// What instances came through because of them.
    pub met: BTreeMap<&'static str, u64>,
}

/// Runs a seed.
///
/// # Errors
/// When the world cannot be set up or read.
pub fn run(seed: u64, options: &Options) -> Result<Outcome, Fault> {
    let plan = planned(seed, options);
    play(plan, options.defect, false).map(|(outcome, _)| outcome)
}

/// The shortest story that leads to what is broken in the run of a seed.
///
/// # Errors
/// As [`run`].
pub fn explain(seed: u64, options: &Options) -> Result<Story, Fault> {
    shrink::shortest(&planned(seed, options), options.defect)
}

fn planned(seed: u64, options: &Options) -> Plan {
    let trade = options.trade.unwrap_or_else(|| Trade::of(seed));
    Plan::of(seed, trade, options.hours)
}

/// A folder for checkpoints that goes when the run ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        use std::sync::atomic::{AtomicU64, Ordering};
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("crossdock-simulate-{}-{number}", std::process::id());
        // In memory where there is such a folder: nothing has to outlive the run.
        let memory = PathBuf::from("/dev/shm");
        let folder = match memory.is_dir() {
            true => memory,
            false => std::env::temp_dir(),
        };
        Folder(folder.join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Plays a plan to its end and judges it. A task that panics has broken a rule as well.
fn play(plan: Plan, defect: Option<Defect>, tell: bool) -> Result<(Outcome, Vec<String>), Fault> {
    let (seed, trade) = (plan.seed, plan.trade);
    let played = std::panic::AssertUnwindSafe(|| play_soundly(plan, defect, tell));
    std::panic::catch_unwind(played).unwrap_or_else(|cause| {
        let words = cause.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| cause.downcast_ref::<&str>().copied());
        let outcome = Outcome {
            seed,
            trade,
            broken: vec![("nobody panics".into(), words.unwrap_or("?").into())],
            digest: String::new(),
            records: 0,
            steps: 0,
            commits: 0,
            lives: 0,
            struck: BTreeMap::new(),
            met: BTreeMap::new(),
        };
        Ok((outcome, Vec::new()))
    })
}

fn play_soundly(
    plan: Plan,
    defect: Option<Defect>,
    tell: bool,
) -> Result<(Outcome, Vec<String>), Fault> {
    let folder = plan.checkpoints.then(Folder::new);
    let path = folder.as_ref().map(|f| f.0.clone());
    let (seed, trade, length) = (plan.seed, plan.trade, plan.length);
    let kinds: Vec<&'static str> = plan.faults.iter().map(|(_, f)| f.kind()).collect();
    let world = World::new(plan, defect, tell, path)?;
    world.open_shop();
    world.plan_ahead();
    world.run_until(BEGIN.plus(OPENING / 2));
    deeds::open_shop(&world);
    world.poke_sources(None);
    world.run_until(BEGIN.plus(length));
    world.mend();
    let ended = wind_up(&world);
    let mut judgement = judges::judged(&world).unwrap_or_else(judges::unreadable);
    if let Err(restless) = ended {
        judgement
            .broken
            .insert(0, ("everything comes to rest".into(), restless));
    }
    if let Some(halted) = world.halted() {
        judgement.broken.push(("nobody halts".into(), halted));
    }
    let counts = *open(&world.counts);
    let mut struck = BTreeMap::new();
    for number in open(&world.struck).iter() {
        *struck.entry(kinds[*number]).or_default() += 1;
    }
    let outcome = Outcome {
        seed,
        trade,
        broken: judgement.broken,
        digest: judgement.digest,
        records: judgement.records,
        steps: counts.steps,
        commits: counts.commits,
        lives: counts.lives,
        struck,
        met: BTreeMap::from([
            ("keys parked", counts.parked),
            ("keys left parked to the next instance", counts.left_parked),
            ("circuits opened", counts.circuits),
        ]),
    };
    Ok((outcome, world.story.lines()))
}

/// Days until facts are no longer late, and one more.
const DAYS: u32 = 4;
const DAY: Duration = Duration::from_secs(86_400);
/// Rounds in which the market comes to its end, at most; and without anything new.
const ROUNDS_MAX: usize = 80;
const QUIET_ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_secs(20);

/// Lets everything come to its end.
fn wind_up(world: &std::sync::Arc<World>) -> Result<(), String> {
    world.settle()?;
    match world.plan.trade {
        Trade::Stock => {
            deeds::hand_out(world);
            world.poke_sources(None);
            world.settle()?;
            for _ in 0..DAYS {
                world.pass(DAY)?;
            }
            // What nobody needs to remember any more is forgotten when something happens.
            deeds::receive_everywhere(world);
            world.poke_sources(None);
            world.settle()?;
        }
        Trade::Orders => {
            let rounds = world.plan.deeds.iter().map(|(_, deed)| match deed {
                plan::Deed::Round(n) => *n,
                _ => 0,
            });
            let first = rounds.max().unwrap_or_default() + 1;
            let mut quiet = 0;
            for round in first..first + ROUNDS_MAX {
                let before = world.cast.entries();
                deeds::act(world, &plan::Deed::Round(round));
                world.poke_sources(None);
                world.settle()?;
                world.run_until(world.time.now().plus(ROUND));
                let over = world.cast.entries() == before && open(&world.cast.market).is_over();
                quiet = if over { quiet + 1 } else { 0 };
                if quiet == QUIET_ROUNDS {
                    break;
                }
            }
            for _ in 0..DAYS {
                world.pass(DAY)?;
            }
            open(&world.cast.market).wind_up(&world.cast.estate);
            world.poke_sources(None);
            world.settle()?;
            world.pass(DAY)?;
        }
    }
    // What is left open by whoever ended is over by now.
    world.run_until(world.time.now().plus(ROUND));
    world.settle()
}
