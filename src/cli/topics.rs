//! `crossdock topics`: makes a log's topics as the catalogue wants them.

use super::connect::{self, Bootstrap, Connectors};
use crate::contract::{Catalogue, Tier};
use crate::log::Log;
use crate::topics::{Plan, Readers, Step, tier_of, wanted};
use std::io::Write;
use std::process::ExitCode;

/// Compares the topics of a log with the catalogue, or makes them agree.
///
/// Nothing is ever deleted, shrunk or repartitioned.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Prints what `apply` would do.
    ///
    /// A line for each topic: `+` create, `~` change a setting, `=` unchanged, `!` refused. Exits
    /// with 0 when there is nothing to do, 2 when there is, 1 after a refusal or an error.
    Plan(Options),
    /// Prints the plan, then creates topics and widens settings.
    ///
    /// Exits with 0, or with 1 after a refusal or an error; what was not refused is done.
    Apply(Options),
}

#[derive(clap::Args)]
struct Options {
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    connectors: Connectors,
    /// Size of the deployment, which decides partition counts: S (ten stores), M (five hundred)
    /// or L (thousands). By default as the log is laid out, S for a new one.
    #[arg(long, ignore_case = true)]
    tier: Option<Tier>,
    /// Copies of each partition of new topics. By default three, or as many as there are brokers.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=32))]
    replication: Option<i32>,
}

/// Runs the command.
///
/// # Errors
/// When the log cannot be reached, or refuses a step.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (options, is_apply) = match &args.command {
        Command::Plan(options) => (options, false),
        Command::Apply(options) => (options, true),
    };
    let configuration = options.bootstrap.configuration()?;
    let log = connect::configured_log(&options.bootstrap, &configuration)?;
    let readers = options.connectors.readers(&configuration)?;
    let code = execute(
        &*log,
        options,
        &readers,
        is_apply,
        &mut std::io::stdout().lock(),
    )?;
    Ok(ExitCode::from(code))
}

fn execute(
    log: &dyn Log,
    options: &Options,
    readers: &Readers,
    is_apply: bool,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    let catalogue = Catalogue::compiled();
    let tier = match options.tier {
        Some(tier) => tier,
        None => tier_of(&log.admin().topics()?, catalogue).unwrap_or(Tier::S),
    };
    let plan = Plan::make(log, wanted(catalogue, tier, readers), options.replication)?;
    write!(out, "{plan}")?;
    let count = |is: fn(&Step) -> bool| plan.steps().iter().filter(|s| is(s)).count();
    writeln!(
        out,
        "tier {tier}: {} to create, {} to change, {} unchanged, {} refused",
        count(|s| matches!(s, Step::Create(_))),
        count(|s| matches!(s, Step::Change { .. })),
        count(|s| matches!(s, Step::Unchanged(_))),
        count(|s| matches!(s, Step::Refused { .. })),
    )?;
    if is_apply && plan.is_pending() {
        plan.apply(log)?;
        writeln!(out, "done")?;
    }
    let is_refused = plan.refusals().next().is_some();
    Ok(match (is_refused, is_apply, plan.is_pending()) {
        (true, ..) => 1,
        (false, false, true) => 2,
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Configuration;
    use crate::log::embedded::{EmbeddedLog, Options as LogOptions};
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// Exit code and output of `crossdock topics …`.
    fn topics(log: &EmbeddedLog, line: &str) -> (u8, String) {
        let words = std::iter::once("topics").chain(line.split_whitespace());
        let args = Line::try_parse_from(words)
            .unwrap_or_else(|e| panic!("{e}"))
            .args;
        let (options, is_apply) = match &args.command {
            Command::Plan(options) => (options, false),
            Command::Apply(options) => (options, true),
        };
        let mut out = Vec::new();
        let readers = options
            .connectors
            .readers(&Configuration::default())
            .expect("known kinds");
        let code =
            execute(log, options, &readers, is_apply, &mut out).unwrap_or_else(|e| panic!("{e:#}"));
        (code, String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn plan_apply_plan() {
        let log = EmbeddedLog::new(LogOptions::system());
        let (code, text) = topics(&log, "plan --tier m");
        assert_eq!(code, 2, "{text}");
        assert!(
            text.contains("+ retail.stock.change.v1 partitions=24"),
            "{text}"
        );
        assert_eq!(topics(&log, "plan --tier m").0, 2, "a plan changes nothing");
        let (code, text) = topics(&log, "apply --tier m");
        assert_eq!(code, 0, "{text}");
        assert!(text.ends_with("0 refused\ndone\n"), "{text}");
        // The tier is that of the log from now on.
        let (code, text) = topics(&log, "plan");
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("tier M: 0 to create, 0 to change"), "{text}");
        let (code, text) = topics(&log, "apply --tier L");
        assert_eq!(code, 1);
        assert!(
            text.contains("! retail.stock.change.v1: has 24 partitions"),
            "{text}"
        );
    }

    #[test]
    fn connectors_get_topics_of_their_own() {
        let log = EmbeddedLog::new(LogOptions::system());
        let (_, text) = topics(&log, "apply --connector shop-de=vendure");
        assert!(text.contains("+ retail.rt.shop-de.receipt.v1"), "{text}");
        assert!(!text.contains("retail.rt.vendure."), "{text}");
        let (code, text) = topics(&log, "plan --connector shop-at=vendure");
        assert_eq!(code, 2, "{text}");
    }
}
