//! `crossdock verify`

use super::connect::{self, Bootstrap, RegistryUrl};
use super::shared;
use crate::config::Configuration;
use crate::contract::{Catalogue, SINKS};
use crate::log::{Log, TopicPartition};
use crate::runtime::group_id;
use crate::{connectors, processors, verify};
use std::collections::BTreeSet;
use std::io::Write;
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

/// What a sink reads: what its kind accepts where the configuration names it, else the topics for sinks
/// in which its group has committed.
fn inputs_of(
    sink: &str,
    configuration: &Configuration,
    log: &dyn Log,
    application: &str,
) -> anyhow::Result<Vec<String>> {
    let configured = configuration.connectors.iter().find(|c| c.name == sink);
    if let Some(kind) = configured.and_then(|c| connectors::find(&c.kind)) {
        return Ok(kind.accepts.iter().map(|t| (*t).to_owned()).collect());
    }
    let existing = log.admin().topics()?;
    let mut all = Vec::new();
    for topic in Catalogue::compiled().topics() {
        let found = existing.iter().find(|t| t.name == topic.name);
        let is_for_sinks = topic.readers.iter().any(|r| r.reader == SINKS);
        if let (true, Some(found)) = (is_for_sinks, found) {
            let partitions = 0..found.partitions;
            all.extend(partitions.map(|p| TopicPartition::new(topic.name.as_str(), p)));
        }
    }
    let group = group_id(application, sink);
    let committed = log.admin().group_offsets(&group, &all)?;
    let inputs: BTreeSet<String> = committed.keys().map(|p| p.topic.to_string()).collect();
    Ok(inputs.into_iter().collect())
}

/// Runs the command. Exit code 1 when the ledger does not balance.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    shared::log_output(shared::ONE_SHOT);
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
    for sink in existing
        .iter()
        .filter_map(|t| catalogue.sink_of_receipt_topic(t))
    {
        let inputs = inputs_of(sink, &configuration, log.as_ref(), &args.application)?;
        readers.extend(inputs.into_iter().map(|input| (sink.to_owned(), input)));
    }
    let ledger = verify::ledger(&log, &codec, catalogue, &args.application, &readers)?;
    let out = &mut std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&ledger)?)?;
    } else {
        let mut rows: Vec<(&str, &verify::Ledger)> = ledger
            .readers
            .iter()
            .map(|(name, l)| (name.as_str(), l))
            .collect();
        rows.push(("all", &ledger));
        writeln!(
            out,
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
        )?;
        for (name, l) in rows {
            writeln!(
                out,
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
            )?;
        }
        for fault in &ledger.faults {
            writeln!(out, "  {fault}")?;
        }
        writeln!(
            out,
            "{}",
            if ledger.balances() {
                "balanced"
            } else {
                "DOES NOT BALANCE"
            }
        )?;
    }
    Ok(if ledger.balances() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
