//! `crossdock schemas`: lints the contracts, and registers them.

use super::connect::{self, Bootstrap, Connectors, RegistryUrl};
use crate::contract::{self, Catalogue};
use crate::processors;
use crate::registry::Registry;
use crate::registry::register::{Plan, Step};
use crate::topics::{Readers, subjects};
use anyhow::Context;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Lints event contracts, and registers them in a schema registry.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Judges `schemas/` and `topics.yaml` of a project, and tells every mistake at once.
    ///
    /// A line for each: file, line, field, cause, remedy. Exits with 0 when there is none, else 1.
    Lint(LintOptions),
    /// Registers the published contracts of this build, after judging them.
    ///
    /// Prints a line for each subject: `+` registered, `=` there already, `!` refused with the
    /// reasons. When one is refused nothing is registered. Exits with 0, or with 1 after a refusal
    /// or an error.
    Register(RegisterOptions),
}

#[derive(clap::Args)]
struct LintOptions {
    /// Folder that holds `schemas/` and `topics.yaml`.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    project: PathBuf,
}

#[derive(clap::Args)]
struct RegisterOptions {
    #[command(flatten)]
    registry: RegistryUrl,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    connectors: Connectors,
    /// Only prints what would be registered.
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
///
/// # Errors
/// When the registry cannot be reached or refuses a schema.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let out = &mut std::io::stdout().lock();
    let code = match args.command {
        Command::Lint(options) => lint(&options.project, out)?,
        Command::Register(options) => {
            let registry = connect::registry(&options.registry, &options.bootstrap)?;
            let readers = options
                .connectors
                .readers(&options.bootstrap.configuration()?)?;
            register(&*registry, &readers, options.dry_run, out)?
        }
    };
    Ok(ExitCode::from(code))
}

fn lint(project: &Path, out: &mut dyn Write) -> anyhow::Result<u8> {
    let sources = contract::lint::Sources::read(project)
        .context("cannot read the contracts; name the project's folder with --project")?;
    let readers: Vec<&str> = processors::ALL.iter().map(|p| p.descriptor.name).collect();
    let found = contract::lint::lint(&sources, &readers);
    for finding in &found {
        writeln!(out, "{finding}")?;
    }
    let mistakes = match found.len() {
        0 => "no mistake".to_owned(),
        1 => "1 mistake".to_owned(),
        many => format!("{many} mistakes"),
    };
    writeln!(
        out,
        "{} schemas, 1 catalogue: {mistakes}",
        sources.schemas.len()
    )?;
    Ok(u8::from(!found.is_empty()))
}

fn register(
    registry: &dyn Registry,
    readers: &Readers,
    dry_run: bool,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    let wanted = subjects(Catalogue::compiled(), readers);
    let plan = Plan::make(registry, &wanted)?;
    write!(out, "{plan}")?;
    let count = |is: fn(&Step) -> bool| plan.steps().iter().filter(|s| is(s)).count();
    writeln!(
        out,
        "{}: {} to register, {} unchanged, {} refused",
        registry.address(),
        count(|s| matches!(s, Step::Register { .. })),
        count(|s| matches!(s, Step::Unchanged { .. })),
        count(|s| matches!(s, Step::Refused { .. })),
    )?;
    if plan.refusals().next().is_some() {
        writeln!(
            out,
            "nothing was registered: a contract changes only in ways that old and new readers bear; otherwise give it a new topic"
        )?;
        return Ok(1);
    }
    if plan.is_pending() && !dry_run {
        plan.apply(registry)?;
        writeln!(out, "done")?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::connect::memory;
    use crate::registry::EmbeddedRegistry;

    #[test]
    fn registering_is_idempotent_and_prints_what_it_does() {
        let registry = EmbeddedRegistry::open(memory()).unwrap_or_else(|e| panic!("{e}"));
        let register = |dry_run| {
            let mut out = Vec::new();
            let code = register(&registry, &Readers::processors(), dry_run, &mut out);
            assert_eq!(code.unwrap_or_else(|e| panic!("{e:#}")), 0);
            String::from_utf8_lossy(&out).into_owned()
        };
        let line = "+ retail.stock.change.v1-value new subject\n";
        assert!(register(true).contains(line));
        let text = register(false);
        assert!(text.contains(line) && text.ends_with("done\n"), "{text}");
        let text = register(false);
        assert!(
            text.contains("= retail.stock.change.v1-value version=1 id="),
            "{text}"
        );
        assert!(
            text.contains(" 0 to register,") && !text.contains("done"),
            "{text}"
        );
    }

    #[test]
    fn a_break_registers_nothing() {
        let registry = EmbeddedRegistry::open(memory()).unwrap_or_else(|e| panic!("{e}"));
        let other = r#"{"type":"record","name":"Other","fields":[]}"#;
        let subject = "retail.stock.change.v1-value";
        assert!(registry.register(subject, other).is_ok());
        let mut out = Vec::new();
        let code = register(&registry, &Readers::processors(), false, &mut out);
        assert_eq!(code.unwrap_or_else(|e| panic!("{e:#}")), 1);
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(text.contains("! retail.stock.change.v1-value\n"), "{text}");
        assert_eq!(registry.subjects(), Ok(vec![subject.to_owned()]));
    }

    #[test]
    fn the_projects_own_contracts_pass() {
        let mut out = Vec::new();
        let code = lint(Path::new(env!("CARGO_MANIFEST_DIR")), &mut out);
        assert_eq!(code.unwrap_or_else(|e| panic!("{e:#}")), 0);
        assert!(lint(Path::new("/nowhere"), &mut out).is_err());
    }
}
