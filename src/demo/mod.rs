//! The whole landscape in one process: real sales change stock, stock becomes availability, and
//! availability reaches two storefronts over HTTP, with faults injected and the books balanced at
//! the end.
//!
//! Everything is driven step by step by one clock and one seed. On the embedded log a run therefore
//! repeats itself: the same events, the same ledger, the same verdicts. On Kafka the events are the
//! same; how many records a task takes at a time, and so what is published in between, is not.

mod clock;
mod crew;
mod day;
pub(crate) mod facts;
pub(crate) mod ground;
pub(crate) mod invariants;
mod landscape;
mod prompt;
mod report;
pub mod scenario;
pub(crate) mod systems;
mod tally;
#[cfg(test)]
mod tests;
pub(crate) mod traders;

pub use day::{Front, Observer, Phase, Picture};
pub use invariants::Verdicts;
pub use report::{LeftOut, Report};

use crate::log::Log;
use crate::pipeline::Fault;
use crate::registry::Registry;
use std::path::PathBuf;
use std::sync::Arc;

/// A log of the demo's own on a cluster.
#[derive(Clone)]
pub struct Cluster {
    /// It must not hold any topics yet.
    pub log: Arc<dyn Log>,
    /// A schema registry, where it is not to be kept in the log.
    pub registry: Option<Arc<dyn Registry>>,
}

/// What a demo runs on.
#[derive(Clone)]
pub struct Options {
    /// Seed of everything that is chosen.
    pub seed: u64,
    /// Sales to read instead of the slice that ships with the project.
    pub data: Option<PathBuf>,
    /// A folder for what the systems around have written down, as JSON lines.
    pub ledgers: Option<PathBuf>,
    /// Where its log is: on a cluster, or else in this process.
    pub cluster: Option<Cluster>,
}

/// The slice of real sales that ships with the project.
pub(crate) const SLICE: &[u8] = include_bytes!("../../data/online_retail_slice.csv.gz");

/// Runs the demo; `observer` sees it trade.
///
/// # Errors
/// When the landscape cannot be set up (a port, the data file) or a part of it halts.
pub async fn run(options: &Options, observer: &mut dyn Observer) -> Result<Report, Fault> {
    let mut landscape = landscape::Landscape::start(options).await?;
    landscape.live(observer).await?;
    if let Some(folder) = &options.ledgers {
        landscape.write_ledgers(folder)?;
    }
    landscape.report(options)
}
