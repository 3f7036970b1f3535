//! `crossdock scenario`

use super::{connect, shared};
use crate::demo::scenario::{self, Failed, Played};
use anstyle::{AnsiColor, Style};
use anyhow::{Context, bail};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `crossdock scenario`.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLE)]
pub struct Args {
    /// Files with a scenario each, or folders of such files (*.yaml).
    #[arg(required_unless_present = "sentences", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// List the sentences that a scenario may have, with what each means, and play nothing.
    #[arg(long)]
    sentences: bool,
    /// Play on this Kafka instead of the log in this process: each scenario with topics of its own,
    /// and nothing else touched.
    #[arg(long, value_name = "ADDRESS")]
    kafka: Option<String>,
    /// What the names of the topics begin with, followed by the file's name. By default one that is
    /// new each time.
    #[arg(long, requires = "kafka", value_name = "PREFIX")]
    prefix: Option<String>,
    /// Base URL of a schema registry with Confluent's API; without one it is kept in the log.
    #[arg(long, requires = "kafka", value_name = "URL")]
    registry: Option<String>,
    /// Write what the systems around have done into this folder, a folder for each scenario.
    #[arg(long, value_name = "DIR")]
    ledgers: Option<PathBuf>,
}

const EXAMPLE: &str = "\
A scenario says what there is, what happens, and what must then be so:

  scenario: Nobody collects a pick-up
  locations: {Store: store, Depot: third-party}   # store, warehouse or third-party
  channels: {online: [Depot, Store]}              # which locations each sells from, best first
  stock:
    MUG-1: {Store: 3, Depot: 10}
  steps:
    - customer orders 2 of MUG-1 at 9.90 EUR in online as A, to pick up in Store
    - customer pays for A
    - expect A is IN_FULFILMENT

`currencies: [EUR, GBP]`, `tax: 20 %` and `unknown: {skus: […]}` (names that are wrong on purpose) may
be added. Time is simulated. At the end eight days pass and the invariants of the demo are judged; an
exception or a refused record that no sentence expects fails the scenario.";

/// Runs the command. Exit code 1 when a scenario cannot be read or does not go as it is written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    shared::log_output(shared::ONE_SHOT);
    if args.sentences {
        return sentences();
    }
    let files = files(&args.files)?;
    let given = args.prefix.clone();
    let prefix = given.unwrap_or_else(|| connect::new_prefix("scenario"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut failed = 0;
    for file in &files {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("{name} cannot be read; name a file with a scenario"))?;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        // Mistakes are told before anything is made anywhere.
        let mistakes = scenario::mistakes(&name, &text);
        let played = match (mistakes.is_empty(), &args.kafka) {
            (false, _) => Err(Failed::Written(mistakes)),
            (true, None) => runtime.block_on(scenario::play(&name, &text, None)),
            (true, Some(address)) => {
                let prefix = format!("{prefix}{}.", part(&stem));
                let cluster = connect::cluster(address, &prefix, args.registry.as_deref())?;
                runtime.block_on(scenario::play(&name, &text, Some(&cluster)))
            }
        };
        failed += usize::from(played.is_err());
        tell(&name, &played)?;
        if let (Some(folder), Ok(played)) = (&args.ledgers, &played) {
            write(&folder.join(&*stem), &played.ledgers)?;
        }
    }
    if let Some(address) = &args.kafka {
        let what = "the topics stay, to look at: crossdock verify, explain, ledger";
        let mut out = std::io::stdout();
        writeln!(out, "{what} --bootstrap {address} --prefix {prefix}NAME.")?;
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

fn tell(name: &str, played: &Result<Played, Failed>) -> anyhow::Result<()> {
    let good = Style::new().fg_color(Some(AnsiColor::Green.into()));
    let bad = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
    let mut out = anstream::stdout();
    match played {
        Ok(played) => writeln!(out, "{good}ok  {good:#} {name}: {}", played.title)?,
        Err(why) => writeln!(out, "{bad}FAIL{bad:#} {why}")?,
    }
    Ok(())
}

fn sentences() -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    for (form, means) in scenario::vocabulary() {
        writeln!(out, "{form}\n    {means}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The files that are named, and those of the folders that are.
fn files(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in named {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let mut found = within(path)?;
        if found.is_empty() {
            bail!("{} holds no *.yaml file", path.display());
        }
        found.sort();
        all.extend(found);
    }
    Ok(all)
}

fn within(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let unreadable = || format!("{} cannot be read", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            found.push(path);
        }
    }
    Ok(found)
}

/// A file's name as a part of a topic's.
fn part(stem: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let each = stem.chars().take(40);
    each.map(|c| if allowed(c) { c } else { '-' }).collect()
}

fn write(folder: &Path, ledgers: &[(String, String)]) -> anyhow::Result<()> {
    let broken = |path: &Path| format!("{} cannot be written", path.display());
    std::fs::create_dir_all(folder).with_context(|| broken(folder))?;
    for (system, lines) in ledgers {
        let path = folder.join(format!("{system}.jsonl"));
        std::fs::write(&path, lines).with_context(|| broken(&path))?;
    }
    Ok(())
}
