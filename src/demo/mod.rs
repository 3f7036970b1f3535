//! The whole landscape in one process: real sales change stock, stock becomes availability, and
//! availability reaches two storefronts over HTTP, with faults injected and the books balanced at
//! the end.
//!
//! On the embedded log everything is driven step by step by one clock and one seed, so a run
//! repeats itself: the same events, the same ledger, the same verdicts.

mod clock;
mod facts;
mod invariants;
mod landscape;
mod report;
mod traders;

pub use invariants::Verdicts;
pub use landscape::{Observer, Phase, Picture};
pub use report::Report;

use crate::pipeline::Fault;
use std::path::PathBuf;

/// What a demo runs on.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of everything that is chosen.
    pub seed: u64,
    /// Sales to read instead of the slice that ships with the project.
    pub data: Option<PathBuf>,
}

/// The slice of real sales that ships with the project.
pub(crate) const SLICE: &[u8] = include_bytes!("../../data/online_retail_slice.csv.gz");

/// Runs the demo; `observer` sees it trade.
///
/// # Errors
/// When the landscape cannot be set up (a port, the data file) or a part of it halts.
pub async fn run(options: &Options, observer: &mut dyn Observer) -> Result<Report, Fault> {
    let mut landscape = landscape::Landscape::start(options).await?;
    landscape.trade(observer).await?;
    landscape.drain(observer).await?;
    landscape.report(options)
}
