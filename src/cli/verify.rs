//! `crossdock verify`

use super::connect::{self, Bootstrap, RegistryUrl};
use super::shared;
use crate::contract::{Catalogue, topic};
use crate::{processors, verify};
use std::collections::BTreeSet;
use std::process::ExitCode;

/// Arguments of `crossdock verify`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    registry: RegistryUrl,
    /// First part of the group ids of the deployment.
    #[arg(long, env = "CROSSDOCK_APPLICATION", default_value = "crossdock")]
    application: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command. Exit code 1 when the ledger does not balance.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    shared::log_output("error");
    let configuration = args.bootstrap.configuration()?;
    let log = connect::configured_log(&args.bootstrap, &configuration)?;
    let codec = shared::codec(connect::configured_registry(
        &args.registry,
        &configuration,
        &log,
    )?);
    let catalogue = Catalogue::compiled();
    let existing: BTreeSet<String> = log.admin().topics()?.into_iter().map(|t| t.name).collect();
    let mut readers: Vec<(String, String)> = Vec::new();
    for p in processors::ALL
        .iter()
        .filter(|p| existing.contains(&catalogue.state_topic(p.descriptor.name)))
    {
        readers.extend(
            p.descriptor
                .inputs
                .iter()
                .map(|t| (p.descriptor.name.to_owned(), (*t).to_owned())),
        );
    }
    // A sink exists where it has a topic for its receipts.
    let sinks = existing
        .iter()
        .filter_map(|t| catalogue.sink_of_receipt_topic(t));
    readers.extend(sinks.map(|sink| (sink.to_owned(), topic::STOCK_ATS.to_owned())));
    let ledger = verify::ledger(&log, &codec, catalogue, &args.application, &readers)?;
    if args.json {
        println!("{}", serde_json::to_string(&ledger)?);
    } else {
        let mut rows: Vec<(&str, &verify::Ledger)> = ledger
            .readers
            .iter()
            .map(|(name, l)| (name.as_str(), l))
            .collect();
        rows.push(("all", &ledger));
        println!(
            "{:<16} {:>10} {:>10} {:>10} {:>10} {:>11} {:>9} {:>7} {:>13} {:>9}",
            "reader",
            "produced",
            "applied",
            "duplicate",
            "superseded",
            "compensated",
            "buffered",
            "parked",
            "dead-lettered",
            "in flight"
        );
        for (name, l) in rows {
            println!(
                "{name:<16} {:>10} {:>10} {:>10} {:>10} {:>11} {:>9} {:>7} {:>13} {:>9}",
                l.produced,
                l.applied,
                l.duplicate,
                l.superseded,
                l.compensated,
                l.buffered,
                l.parked,
                l.dead_lettered,
                l.in_flight
            );
        }
        ledger.faults.iter().for_each(|fault| println!("  {fault}"));
        println!(
            "{}",
            if ledger.balances() {
                "balanced"
            } else {
                "DOES NOT BALANCE"
            }
        );
    }
    Ok(if ledger.balances() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
