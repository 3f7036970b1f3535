//! `crossdock explain`

use super::connect::{self, Bootstrap, RegistryUrl};
use super::shared;
use crate::contract::Catalogue;
use crate::explain::{self, OrderQuestion, Sources, StockQuestion};
use serde::Serialize;
use std::fmt::Display;
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
    /// Where an order stands: its lines and money, and every fact, claim, decision, drift, posting and
    /// message to a system that brought it there.
    Order(Order),
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
    #[command(flatten)]
    asking: Asking,
}

#[derive(clap::Args)]
struct Order {
    /// Id of the order, or with --channel its number there.
    order: String,
    /// The channel that numbers it so.
    #[arg(long)]
    channel: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

/// What every question is told alike.
#[derive(clap::Args)]
struct Asking {
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
    match args.question {
        Question::Stock(args) => {
            let question = StockQuestion {
                sku: args.sku,
                location: args.location,
                channel: args.channel,
            };
            args.asking.answer(|sources| {
                let answer = explain::stock(sources, &question)?;
                Ok((answer.records_read, answer.story.is_empty(), answer))
            })
        }
        Question::Order(args) => {
            let question = OrderQuestion {
                order: args.order,
                channel: args.channel,
            };
            args.asking.answer(|sources| {
                let answer = explain::order(sources, &question)?;
                Ok((answer.records_read, answer.story.is_empty(), answer))
            })
        }
    }
}

impl Asking {
    /// Prints the answer: records read, whether it is empty, and what it says.
    fn answer<A: Serialize + Display>(
        &self,
        ask: impl FnOnce(&Sources<'_>) -> anyhow::Result<(u64, bool, A)>,
    ) -> anyhow::Result<ExitCode> {
        let started = Instant::now();
        let configuration = self.bootstrap.configuration()?;
        let log = connect::configured_log(&self.bootstrap, &configuration)?;
        let registry = connect::configured_registry(&self.registry, &configuration, &log)?;
        let codec = shared::codec(registry);
        let (read, is_empty, answer) = ask(&Sources {
            log: log.as_ref(),
            codec: &codec,
            catalogue: Catalogue::compiled(),
            application: &self.application,
            records_max: self.limit,
        })?;
        let out = &mut std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&answer)?)?;
        } else {
            let took = started.elapsed().as_secs_f64();
            writeln!(out, "{answer}\n{read} records read in {took:.1} s")?;
        }
        Ok(match is_empty {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        })
    }
}
