//! `crossdock explain`

use super::connect::{self, Bootstrap, RegistryUrl};
use super::shared;
use crate::contract::Catalogue;
use crate::explain::{self, StockQuestion};
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

/// Arguments of `crossdock explain`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    question: Question,
}

#[derive(clap::Subcommand)]
enum Question {
    /// Why the stock of a SKU at a location is what it is: the sum, and every fact, claim,
    /// decision and message behind it.
    Stock(Stock),
}

#[derive(clap::Args)]
struct Stock {
    /// SKU.
    sku: String,
    /// Stock location.
    location: String,
    /// Only this channel; by default every channel that the location serves.
    #[arg(long)]
    channel: Option<String>,
    /// Most records told of each topic; the latest.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    registry: RegistryUrl,
    /// First part of the group ids of the deployment.
    #[arg(long, env = "CROSSDOCK_APPLICATION", default_value = "crossdock")]
    application: String,
}

/// Runs the command. Exit code 1 when the log holds nothing of what is asked for.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    shared::log_output(shared::ONE_SHOT);
    let Question::Stock(args) = args.question;
    let started = Instant::now();
    let configuration = args.bootstrap.configuration()?;
    let log = connect::configured_log(&args.bootstrap, &configuration)?;
    let registry = connect::configured_registry(&args.registry, &configuration, &log)?;
    let codec = shared::codec(registry);
    let question = StockQuestion {
        sku: args.sku,
        location: args.location,
        channel: args.channel,
        records_max: args.limit,
    };
    let catalogue = Catalogue::compiled();
    let answer = explain::stock(&log, &codec, catalogue, &args.application, &question)?;
    let out = &mut std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
    } else {
        writeln!(out, "{answer}")?;
        writeln!(
            out,
            "{} records read in {:.1} s",
            answer.records_read,
            started.elapsed().as_secs_f64()
        )?;
    }
    Ok(match answer.story.is_empty() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}
