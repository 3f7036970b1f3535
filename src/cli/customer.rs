//! `crossdock customer`: what is done about a person.

use super::{connect, shared};
use crate::customers::{self, Erasure};
use crate::pipeline::{Clock as _, SystemClock};
use std::process::ExitCode;

/// Works on what is known of a customer.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Erase(Erase),
}

/// Erases a person for good: destroys its key, so that nobody can read any more who it is, in the log or
/// in a copy of it; and tells systems to forget it. Orders and their money stay, under the id. The channel
/// itself is not changed: delete the account there too.
#[derive(clap::Args)]
struct Erase {
    /// The customer, as its channel names it: `customerId` of its orders.
    #[arg(value_name = "ID")]
    customer: String,
    /// The channel whose customer it is.
    #[arg(long, value_name = "NAME")]
    channel: String,
    /// Why; for the audit.
    #[arg(long)]
    reason: Option<String>,
    /// Who does it; for the audit. By default the user of this process.
    #[arg(long, env = "CROSSDOCK_ACTOR", value_name = "NAME")]
    actor: Option<String>,
    #[command(flatten)]
    bootstrap: connect::Bootstrap,
    #[command(flatten)]
    registry: connect::RegistryUrl,
}

/// Exit code 0 once the key is destroyed and that is told and audited; also where it had been before.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Command::Erase(args) = &args.command;
    let configuration = args.bootstrap.configuration()?;
    let log = connect::configured_log(&args.bootstrap, &configuration)?;
    let registry = connect::configured_registry(&args.registry, &configuration, &log)?;
    let codec = shared::codec(registry);
    let erasure = Erasure {
        channel: args.channel.clone(),
        customer: args.customer.clone(),
        actor: args.actor.clone().unwrap_or_else(shared::user),
        reason: args.reason.clone(),
    };
    let forgotten = customers::erase(&log, &codec, &erasure, SystemClock.now())?;
    let (channel, customer) = (&erasure.channel, &erasure.customer);
    match (forgotten.keys, forgotten.before) {
        (0, true) => anstream::println!("customer {customer} of {channel} had been erased before"),
        (0, false) => anstream::println!(
            "customer {customer} of {channel} had no key: nothing was known; nothing will be"
        ),
        (keys, _) => anstream::println!(
            "customer {customer} of {channel} is erased: {keys} keys destroyed; systems are told"
        ),
    }
    Ok(ExitCode::SUCCESS)
}
