//! `crossdock parked list | show | release`

use super::connect::{self, Bootstrap, RegistryUrl};
use super::shared;
use crate::contract::Catalogue;
use crate::dlq::{self, Actor, Letters};
use crate::parked::{Filter, ParkedKey, ParkedKeys, Waiting};
use anyhow::bail;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

/// Shows which keys are held up in sinks, since when, why, and what waits behind them. Nothing needs to be
/// done: they are tried again by themselves; those that wait for a dead letter go on with it (`crossdock dlq`),
/// or without it where it has expired (`release`).
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Lists parked keys, those that are held up longest first.
    List(List),
    /// Shows a parked key whole: every record of its line, and what it says.
    Show(Show),
    /// Lets go a key that a dead letter holds up, also one that has expired: what waits behind it is sent, in
    /// order and without the record of the letter. An open letter is discarded.
    Release(Release),
}

#[derive(clap::Args)]
struct Place {
    /// Only in this sink.
    #[arg(long)]
    sink: Option<String>,
    /// Only of records of this topic.
    #[arg(long)]
    topic: Option<String>,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    registry: RegistryUrl,
    /// Print JSON: one object a line.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct List {
    /// Only held up with this code.
    #[arg(long)]
    code: Option<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
struct Show {
    /// The key, as `list` prints it.
    key: String,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
struct Release {
    /// The key, as `list` prints it.
    key: String,
    /// Why, for the audit.
    #[arg(long)]
    reason: String,
    /// Who does it, for the audit; by default the user of this machine.
    #[arg(long, env = "CROSSDOCK_ACTOR")]
    actor: Option<String>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// First part of the transactional ids of the deployment.
    #[arg(long, env = "CROSSDOCK_APPLICATION", default_value = "crossdock")]
    application: String,
    #[command(flatten)]
    place: Place,
}

/// Runs the command. Exit code 1 where `show` finds no such key.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    shared::log_output(shared::ONE_SHOT);
    match args.command {
        Command::List(args) => list(&args),
        Command::Show(args) => show(&args),
        Command::Release(args) => release(&args),
    }
}

impl Place {
    fn with<T>(
        &self,
        key: Option<&str>,
        code: Option<&str>,
        act: impl FnOnce(&ParkedKeys<'_>, &Filter) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let configuration = self.bootstrap.configuration()?;
        let log = connect::configured_log(&self.bootstrap, &configuration)?;
        let registry = connect::configured_registry(&self.registry, &configuration, &log)?;
        let codec = shared::codec(registry);
        let parked = ParkedKeys {
            log: log.as_ref(),
            codec: &codec,
            catalogue: Catalogue::compiled(),
        };
        let filter = Filter {
            sink: self.sink.clone(),
            topic: self.topic.clone(),
            key: key.map(str::to_owned),
            code: code.map(str::to_owned),
        };
        act(&parked, &filter)
    }
}

fn list(args: &List) -> anyhow::Result<ExitCode> {
    let place = &args.place;
    place.with(None, args.code.as_deref(), |parked, filter| {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let keys = parked.list(filter)?;
        for key in &keys {
            match place.json {
                true => writeln!(out, "{}", serde_json::to_string(key)?)?,
                false => write_key(&mut out, key)?,
            }
        }
        out.flush()?;
        if !place.json {
            let behind: usize = keys.iter().map(|k| k.behind).sum();
            let letters = keys.iter().filter(|k| k.waits_for_letter()).count();
            eprintln!(
                "{} keys parked, {behind} records behind them; {letters} wait for a dead letter",
                keys.len()
            );
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn write_key(out: &mut dyn Write, key: &ParkedKey) -> std::io::Result<()> {
    let next = match key.next_attempt_at {
        Some(at) => format!("tried {} times, next at {at}", key.attempts),
        None if key.waits_for_letter() => match &key.letter {
            Some(letter) => format!("waits for its dead letter {letter}"),
            None => "its dead letter has expired: `crossdock parked release` lets it go".to_owned(),
        },
        None => "goes on when what it waits for has come".to_owned(),
    };
    writeln!(
        out,
        "{}  {}  in {} since {}, {} behind, {next}\n    {}: {}",
        key.key, key.topic, key.sink, key.since, key.behind, key.code, key.message
    )
}

fn show(args: &Show) -> anyhow::Result<ExitCode> {
    let place = &args.place;
    place.with(Some(&args.key), None, |parked, filter| {
        let keys = parked.list(filter)?;
        if keys.is_empty() {
            bail!(
                "nothing is parked under {}; `crossdock parked list` says what is",
                args.key
            );
        }
        let mut out = std::io::stdout().lock();
        for key in &keys {
            let line = parked.line(key)?;
            if place.json {
                writeln!(out, "{}", json!({"parked": key, "line": line}))?;
                continue;
            }
            write_key(&mut out, key)?;
            for waiting in &line {
                write_waiting(&mut out, waiting)?;
            }
            let name = &key.key;
            match (&key.letter, key.waits_for_letter()) {
                (Some(letter), _) => writeln!(
                    out,
                    "  remedy      `crossdock dlq show '{letter}'`, then edit and redrive the letter, or discard it"
                )?,
                (None, true) => writeln!(
                    out,
                    "  remedy      find out what became of the record, then `crossdock parked release '{name}' --reason …`"
                )?,
                (None, false) => {}
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn release(args: &Release) -> anyhow::Result<ExitCode> {
    let place = &args.place;
    place.with(Some(&args.key), None, |parked, filter| {
        let keys = parked.list(filter)?;
        let key = match &keys[..] {
            [] => bail!(
                "nothing is parked under {}; `crossdock parked list` says what is",
                args.key
            ),
            [key] => key,
            several => {
                let places = several.iter().map(|k| format!("{} of {}", k.topic, k.sink));
                bail!(
                    "{} is parked in several places, {}; choose with --sink and --topic",
                    args.key,
                    places.collect::<Vec<_>>().join(" and ")
                )
            }
        };
        let held = key.place().filter(|_| key.waits_for_letter());
        let Some(held) = held else {
            let next = match key.next_attempt_at {
                Some(at) => format!("it is tried again by itself, next at {at}"),
                None => "it goes on by itself when what it waits for has come".to_owned(),
            };
            bail!("{} is not held up by a dead letter: {next}", args.key);
        };
        let letters = Letters {
            log: parked.log,
            codec: parked.codec,
            catalogue: parked.catalogue,
            application: &args.application,
        };
        let actor = Actor {
            name: args.actor.clone().unwrap_or_else(shared::user),
            reason: Some(args.reason.clone()),
        };
        let released = dlq::release(&letters, &key.sink, &key.key, &held, &actor, args.dry_run)?;
        let letter = match released {
            Ok(letter) => letter.map(|at| at.to_string()),
            Err(refusal) => bail!("{} is left as it is: {}", args.key, refusal.why),
        };
        let mut out = std::io::stdout().lock();
        if place.json {
            let said = json!({
                "released": key, "discarded": letter, "dryRun": args.dry_run,
            });
            writeln!(out, "{said}")?;
            return Ok(ExitCode::SUCCESS);
        }
        let would = if args.dry_run { "would go" } else { "goes" };
        let letter = match letter {
            Some(letter) => format!("; its letter {letter} is discarded"),
            None => String::new(),
        };
        writeln!(
            out,
            "{} {would} on in {} without {}, {} records behind it{letter}",
            key.key, key.sink, key.record, key.behind
        )?;
        Ok(ExitCode::SUCCESS)
    })
}

fn write_waiting(out: &mut dyn Write, waiting: &Waiting) -> std::io::Result<()> {
    let says = match (&waiting.event, &waiting.unreadable) {
        (Some(event), _) => event.to_string(),
        (None, Some(why)) => format!("cannot be read: {why}"),
        (None, None) => "dead-lettered".to_owned(),
    };
    writeln!(
        out,
        "  {}  {}\n      {says}",
        waiting.record, waiting.written_at
    )
}
