//! `crossdock connectors list | describe | check`

use super::shared;
use crate::config::schema::View;
use crate::connectors;
use crate::pipeline::ConnectorDescriptor;
use anyhow::{Context, bail};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `crossdock connectors`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Every kind of connector, with what it does and how far it was tried.
    List,
    /// What a kind does and every setting it has.
    Describe {
        /// Kind, as `connectors list` names it.
        kind: String,
    },
    /// Tries whether a configured connector can do its job against the live system; changes nothing.
    Check {
        /// Name of the connector in the configuration.
        name: String,
        /// Configuration file.
        #[arg(long, env = "CROSSDOCK_CONFIG", default_value = "crossdock.yaml")]
        config: PathBuf,
    },
}

/// Runs the command. `check` exits with 1 when a check fails.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let out = &mut std::io::stdout().lock();
    match &args.command {
        Command::List => {
            let width = |of: fn(&ConnectorDescriptor) -> &str| {
                connectors::ALL
                    .iter()
                    .map(|d| of(d).len())
                    .max()
                    .unwrap_or_default()
            };
            let (kind, purpose) = (width(|d| d.kind), width(|d| d.purpose));
            for d in connectors::ALL {
                let evidence = d.evidence.as_str();
                writeln!(
                    out,
                    "{:<kind$}  {:<purpose$}  {evidence}",
                    d.kind, d.purpose
                )?;
            }
        }
        Command::Describe { kind } => describe(find(kind)?, out)?,
        Command::Check { name, config } => return check(name, config, out),
    }
    Ok(ExitCode::SUCCESS)
}

fn find(kind: &str) -> anyhow::Result<&'static ConnectorDescriptor> {
    let known: Vec<&str> = connectors::ALL.iter().map(|d| d.kind).collect();
    connectors::find(kind).with_context(|| {
        format!(
            "there is no connector {kind:?}; there are {}",
            known.join(", ")
        )
    })
}

fn describe(d: &ConnectorDescriptor, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{}: {}\n{}", d.kind, d.purpose, d.evidence.as_str())?;
    for (title, topics) in [("writes", d.emits), ("reads", d.accepts)] {
        if !topics.is_empty() {
            writeln!(out, "{title} {}", topics.join(", "))?;
        }
    }
    if let Some(c) = d.sink {
        let compares = if c.compare_and_set {
            ", compares before it sets"
        } else {
            ""
        };
        writeln!(
            out,
            "one effect for repeated calls by {}; up to {} records a call, {} calls at a time{compares}",
            c.idempotency.as_str(),
            c.batch_records_max,
            c.calls_max
        )?;
    }
    writeln!(out, "\nsettings:")?;
    let schema = (d.settings)().to_value();
    describe_settings(View::root(&schema), 1, &mut Vec::new(), out)
}

/// Prints each setting with what it is, whether it must be given, and its documentation; settings
/// within settings are indented, each type of them once.
fn describe_settings<'s>(
    settings: View<'s>,
    depth: usize,
    told: &mut Vec<View<'s>>,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let (indent, inner) = ("  ".repeat(depth), "  ".repeat(depth + 2));
    for (name, setting) in settings.settings() {
        let need = match (settings.requires(name), setting.default()) {
            (true, _) => "required".to_owned(),
            (false, Some(default)) => format!("default {default}"),
            (false, None) => "optional".to_owned(),
        };
        writeln!(out, "{indent}{name} ({}, {need})", setting.words_for_kind())?;
        let text = setting.documentation();
        if !text.is_empty() {
            writeln!(out, "{inner}{text}")?;
        }
        let element = setting.element().or(setting.value()).unwrap_or(setting);
        if told.iter().any(|known| known.is_same(&element)) {
            writeln!(out, "{inner}As above.")?;
        } else if element.settings().next().is_some() {
            told.push(element);
            describe_settings(element, depth + 2, told, out)?;
        }
    }
    Ok(())
}

fn check(name: &str, config: &Path, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let configuration = shared::configuration(Some(config))?;
    let Some(entry) = configuration.connectors.iter().find(|c| c.name == name) else {
        let names: Vec<&str> = configuration
            .connectors
            .iter()
            .map(|c| c.name.as_str())
            .collect();
        bail!(
            "{} has no connector {name:?}; it has {}",
            config.display(),
            names.join(", ")
        );
    };
    let (_, connector) = shared::build(entry)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut failed = false;
    for check in runtime.block_on(connector.check()) {
        match check.result {
            Ok(found) => writeln!(out, "ok    {}: {found}", check.what)?,
            Err(why) => {
                failed = true;
                writeln!(out, "FAIL  {}: {why}", check.what)?;
            }
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
