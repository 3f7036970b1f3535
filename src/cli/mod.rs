//! The command line: one file for each subcommand, and what they are told alike.
//!
//! Subcommands are thin: what they do is in the library, over its ports.

mod connect;
mod connectors;
mod customer;
mod demo;
mod dlq;
mod exceptions;
mod explain;
mod ledger;
mod parked;
mod rebuild;
mod registry;
mod replay;
mod run;
mod scenario;
mod schemas;
mod shared;
mod simulate;
mod topics;
mod verify;

use clap::Parser;
use std::process::ExitCode;

/// Keeps a retailer's systems in agreement.
#[derive(Parser)]
#[command(name = "crossdock", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Shows the whole landscape in one process, on real sales, and balances the books.
    Demo(demo::Args),
    /// Plays thousands of days that go wrong, each from a seed, and judges them; exit code 1 when a
    /// rule does not hold.
    Simulate(simulate::Args),
    /// Plays scenarios: stories of retail in files that anybody can write, and judges how they went.
    Scenario(scenario::Args),
    /// Runs connectors and processors by name: the form in which they are deployed.
    Run(run::Args),
    /// Balances the ledger from the log; exit code 1 when it does not balance.
    Verify(verify::Args),
    /// Tells why a number is what it is, from the log alone.
    Explain(explain::Args),
    Exceptions(exceptions::Args),
    /// Prints the books as finance reads them: of an order, of a payout, or of a period.
    Ledger(ledger::Args),
    Dlq(dlq::Args),
    Parked(parked::Args),
    Replay(replay::Args),
    Rebuild(rebuild::Args),
    Customer(customer::Args),
    /// Lists, describes and checks connectors.
    Connectors(connectors::Args),
    Topics(topics::Args),
    Schemas(schemas::Args),
    Registry(registry::Args),
}

/// Runs the command that the arguments of this process name.
///
/// Exits with 1 on an error, a mistake in the arguments included; 2 is left to commands that give
/// it a meaning. Ends quietly where nobody reads its output any more.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to tell where even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let result = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Scenario(args) => scenario::run(&args),
        Command::Run(args) => run::run(args),
        Command::Verify(args) => verify::run(&args),
        Command::Explain(args) => explain::run(args),
        Command::Exceptions(args) => exceptions::run(&args),
        Command::Ledger(args) => ledger::run(&args),
        Command::Dlq(args) => dlq::run(args),
        Command::Parked(args) => parked::run(args),
        Command::Replay(args) => replay::run(&args),
        Command::Rebuild(args) => rebuild::run(&args),
        Command::Customer(args) => customer::run(&args),
        Command::Connectors(args) => connectors::run(&args),
        Command::Topics(args) => topics::run(args),
        Command::Schemas(args) => schemas::run(args),
        Command::Registry(args) => registry::run(args),
    };
    result.unwrap_or_else(|error| {
        if is_reader_gone(&error) {
            return ExitCode::from(READER_GONE);
        }
        eprintln!("error: {error:#}");
        ExitCode::from(1)
    })
}

/// Exit code where whoever read the output has left before its end, as `head` does: that of a process
/// which the signal for it has ended. Not 0, for a verdict may have gone untold.
const READER_GONE: u8 = 141;

fn is_reader_gone(error: &anyhow::Error) -> bool {
    let causes = error
        .chain()
        .filter_map(|e| e.downcast_ref::<std::io::Error>());
    causes
        .into_iter()
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
