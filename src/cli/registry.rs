//! `crossdock registry`: serves the embedded schema registry.

use super::connect::{self, Bootstrap};
use crate::registry::{self, EmbeddedRegistry, Registry};
use anyhow::Context;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

/// Serves a schema registry with Confluent's REST API, kept in a topic.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Serves until it is interrupted. Any number of instances may serve one Kafka.
    ///
    /// It asks nobody for credentials: listen on loopback, or behind something that does.
    Serve(Options),
}

#[derive(clap::Args)]
struct Options {
    #[command(flatten)]
    bootstrap: Bootstrap,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "CROSSDOCK_LISTEN", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
}

/// Runs the command.
///
/// # Errors
/// When the log cannot be reached or the address cannot be listened on.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Command::Serve(options) = args.command;
    let configuration = options.bootstrap.configuration()?;
    let has_log = options.bootstrap.names_log(&configuration);
    let log = match has_log {
        true => connect::configured_log(&options.bootstrap, &configuration)?,
        false => {
            eprintln!("no --bootstrap: schemas are kept in memory and end with this process");
            connect::memory()
        }
    };
    let registry = Arc::new(EmbeddedRegistry::open(log)?);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("cannot listen on {}", options.listen))?;
        let address = listener.local_addr()?;
        writeln!(std::io::stdout(), "http://{address}")?;
        tracing::info!(%address, log = registry.address(), "serving the schema registry");
        registry::serve(listener, registry, interrupted()).await?;
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Ends at SIGINT or SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "only an interrupt ends this process, not SIGTERM");
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
