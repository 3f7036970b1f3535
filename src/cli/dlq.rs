//! `crossdock dlq list | show | edit | redrive | discard`

use super::connect::{self, Bootstrap, RegistryUrl};
use super::shared;
use crate::contract::Catalogue;
use crate::dlq::{
    self, Act, Actor, Change, Filter, Judge, Letters, Limits, Listed, Mended, Report, Shown,
};
use crate::domain::Timestamp;
use crate::pipeline::{Clock, Fault, Origin, SystemClock};
use anyhow::{Context, bail};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code of a run that was told to stop.
const STOPPED: u8 = 130;

/// Finds, mends, redrives and puts aside dead letters.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Lists dead letters that are open, by topic and partition, the oldest first.
    List(List),
    /// Shows a dead letter whole: the record's bytes and what they say, the fault, what it is about,
    /// what waits behind it, and whether a redrive would be done.
    Show(Show),
    /// Puts a letter with a changed record in the place of this one, once the change is found to be
    /// right; it goes on with `redrive`.
    Edit(Edit),
    /// Sends the records of dead letters to their topics once more, in order, each once. Can be
    /// interrupted, and goes on where it ended.
    Redrive(Redrive),
    /// Puts dead letters aside: nothing will come of them.
    Discard(Discard),
}

#[derive(clap::Args)]
struct Place {
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    registry: RegistryUrl,
    /// First part of the transactional ids of the deployment.
    #[arg(long, env = "CROSSDOCK_APPLICATION", default_value = "crossdock")]
    application: String,
    /// Print JSON: one object a line.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Chosen {
    /// Only this letter, as `list` prints its place: topic[partition]@offset.
    #[arg(value_parser = dlq::place)]
    letter: Option<Origin>,
    /// Only of this reader, in this dead-letter topic, or of records of this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only with this code.
    #[arg(long)]
    code: Option<String>,
    /// Only with this key.
    #[arg(long)]
    key: Option<String>,
    /// Only of the order with this id.
    #[arg(long)]
    order: Option<String>,
    /// Only written at this day or time or later.
    #[arg(long, value_name = "TIME", value_parser = shared::time)]
    since: Option<Timestamp>,
    /// Only written before this day or time.
    #[arg(long, value_name = "TIME", value_parser = shared::time)]
    until: Option<Timestamp>,
}

impl Chosen {
    fn filter(&self, done: bool) -> Filter {
        Filter {
            topic: self.topic.clone(),
            code: self.code.clone(),
            key: self.key.clone(),
            order: self.order.clone(),
            since: self.since,
            until: self.until,
            at: self.letter.clone(),
            done: done || self.letter.is_some(),
        }
    }

    fn is_everything(&self) -> bool {
        let filter = self.filter(false);
        let texts = [&filter.topic, &filter.code, &filter.key, &filter.order];
        let times = filter.since.is_none() && filter.until.is_none();
        filter.at.is_none() && times && texts.into_iter().all(Option::is_none)
    }
}

#[derive(clap::Args)]
struct List {
    #[command(flatten)]
    chosen: Chosen,
    /// Those that are redriven, edited or discarded, too.
    #[arg(long)]
    done: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
struct Show {
    /// Its place, as `list` prints it.
    #[arg(value_parser = dlq::place)]
    letter: Origin,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
struct Acting {
    /// Who does it, for the audit; by default the user of this machine.
    #[arg(long, env = "CROSSDOCK_ACTOR")]
    actor: Option<String>,
    /// Say what would be done about each letter, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args)]
struct Edit {
    /// Its place, as `list` prints it.
    #[arg(value_parser = dlq::place)]
    letter: Origin,
    /// Sets a field of the event, as in qty=3 or lines.0.qty=3. Can be given several times.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    fields: Vec<String>,
    /// A file with the whole event as JSON, as `show --json` gives it.
    #[arg(long, value_name = "FILE")]
    event: Option<PathBuf>,
    /// Sets the key.
    #[arg(long)]
    key: Option<String>,
    /// Why, for the audit.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    acting: Acting,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
struct Redrive {
    #[command(flatten)]
    chosen: Chosen,
    /// Every open letter, where nothing else is chosen.
    #[arg(long)]
    all: bool,
    /// Why, for the audit.
    #[arg(long)]
    reason: Option<String>,
    /// Records a second, at most; 0 for as many as there are.
    #[arg(long, value_name = "RECORDS", default_value_t = 1_000)]
    rate: u32,
    /// Redrives of one record, at most.
    #[arg(long, value_name = "COUNT", default_value_t = REDRIVES_MAX)]
    redrives_max: i32,
    #[command(flatten)]
    acting: Acting,
    #[command(flatten)]
    place: Place,
}

/// A record that comes back so often will come back again.
const REDRIVES_MAX: i32 = 3;

#[derive(clap::Args)]
struct Discard {
    #[command(flatten)]
    chosen: Chosen,
    /// Every open letter, where nothing else is chosen.
    #[arg(long)]
    all: bool,
    /// Why, for the audit.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    acting: Acting,
    #[command(flatten)]
    place: Place,
}

/// Runs the command. Exit code 1 where a letter was refused or there was none, 130 where it was told to
/// stop.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    shared::log_output(shared::ONE_SHOT);
    match args.command {
        Command::List(args) => list(&args),
        Command::Show(args) => show(&args),
        Command::Edit(args) => edit(&args),
        Command::Redrive(args) => {
            everything_is_meant(&args.chosen, args.all)?;
            let budget = Some(args.rate).filter(|rate| *rate > 0);
            let run = Runs {
                chosen: &args.chosen,
                acting: &args.acting,
                place: &args.place,
                reason: args.reason.clone(),
                budget,
                redrives_max: args.redrives_max,
            };
            run.go(dlq::redrive)
        }
        Command::Discard(args) => {
            everything_is_meant(&args.chosen, args.all)?;
            let run = Runs {
                chosen: &args.chosen,
                acting: &args.acting,
                place: &args.place,
                reason: Some(args.reason.clone()),
                budget: None,
                redrives_max: REDRIVES_MAX,
            };
            run.go(dlq::discard)
        }
    }
}

fn everything_is_meant(chosen: &Chosen, all: bool) -> anyhow::Result<()> {
    if chosen.is_everything() && !all {
        bail!("choose letters by place, --topic, --code, --key, --order or time, or say --all");
    }
    Ok(())
}

impl Place {
    fn with<T>(&self, act: impl FnOnce(&Letters<'_>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let configuration = self.bootstrap.configuration()?;
        let log = connect::configured_log(&self.bootstrap, &configuration)?;
        let registry = connect::configured_registry(&self.registry, &configuration, &log)?;
        let codec = shared::codec(registry);
        act(&Letters {
            log: log.as_ref(),
            codec: &codec,
            catalogue: Catalogue::compiled(),
            application: &self.application,
        })
    }
}

impl Acting {
    fn actor(&self, reason: Option<String>) -> Actor {
        Actor {
            name: self.actor.clone().unwrap_or_else(shared::user),
            reason,
        }
    }
}

fn list(args: &List) -> anyhow::Result<ExitCode> {
    args.place.with(|letters| {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let mut count = 0u64;
        letters.list(&args.chosen.filter(args.done), |listed: &Listed<'_>| {
            count += 1;
            let line = listed.line();
            if args.place.json {
                writeln!(out, "{}", serde_json::to_string(&line)?)?;
                return Ok(());
            }
            let done = listed
                .done
                .map(|d| format!(", {} by {}", d.deed.as_str(), d.by));
            // What a source could not read has no key, and is found where it stands.
            let about = match line.key.is_empty() {
                true => &line.original,
                false => &line.key,
            };
            writeln!(
                out,
                "{}  {}  {about}{}\n    {}: {}",
                line.letter,
                line.written_at,
                done.unwrap_or_default(),
                line.code,
                line.message
            )?;
            anyhow::Ok(())
        })?;
        out.flush()?;
        if !args.place.json {
            eprintln!("{count} dead letters");
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn show(args: &Show) -> anyhow::Result<ExitCode> {
    args.place.with(|letters| {
        let found = dlq::show(letters, &args.letter, REDRIVES_MAX)?;
        let (_, shown) = found.with_context(|| missing(&args.letter))?;
        let out = &mut std::io::stdout().lock();
        match args.place.json {
            true => writeln!(out, "{}", serde_json::to_string(&shown)?)?,
            false => write_shown(out, &shown)?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn missing(at: &Origin) -> String {
    format!(
        "there is no dead letter at {at}, or none any more: they live for 30 days; `crossdock dlq list` says which there are, `crossdock parked list` which keys wait for one that is gone"
    )
}

fn write_shown(out: &mut dyn Write, shown: &Shown) -> std::io::Result<()> {
    let line = &shown.line;
    writeln!(out, "{}  {}", line.letter, line.written_at)?;
    writeln!(out, "  record      {}", line.original)?;
    if !line.key.is_empty() {
        writeln!(out, "  key         {}", line.key)?;
    }
    writeln!(
        out,
        "  reader      {} {}",
        line.reader, shown.reader_version
    )?;
    writeln!(
        out,
        "  fault       {} ({}): {}",
        line.code, shown.class, line.message
    )?;
    writeln!(out, "  read more   docs/faults/{}.md", line.code)?;
    let (attempts, redrives) = (line.attempts, line.redrives);
    writeln!(
        out,
        "  attempts    {attempts}, redriven {redrives} times before"
    )?;
    for (name, value) in &line.context {
        writeln!(out, "  {name:<11} {value}")?;
    }
    if let Some(trace) = &shown.traceparent {
        writeln!(out, "  trace       {trace}")?;
    }
    for (name, value) in &shown.headers {
        let value = value.as_deref().unwrap_or("null");
        writeln!(out, "  header      {name}: {value}")?;
    }
    match (&shown.event, &shown.unreadable) {
        (Some(event), _) => writeln!(out, "  event       {event:#}")?,
        (None, Some(why)) => writeln!(out, "  event       cannot be read: {why}")?,
        (None, None) => {}
    }
    for (name, bytes) in [("key", &shown.key_bytes), ("value", &shown.value_bytes)] {
        if let Some(bytes) = bytes {
            writeln!(out, "  {name:<11} 0x{bytes}")?;
        }
    }
    if let Some(text) = &shown.source_text {
        writeln!(out, "  as text     {text:?}")?;
    }
    writeln!(
        out,
        "  behind it   {} records of its key in its topic",
        shown.records_behind
    )?;
    for letter in &shown.letters_behind {
        writeln!(out, "  behind it   {letter}")?;
    }
    match (&line.done, &shown.redrive_refused) {
        (Some(d), _) => writeln!(
            out,
            "  done        {} by {} at {}",
            d.deed.as_str(),
            d.by,
            d.at
        ),
        (None, Some(r)) => writeln!(out, "  redrive     would be refused: {}: {}", r.code, r.why),
        (None, None) => writeln!(out, "  redrive     would be done"),
    }
}

fn edit(args: &Edit) -> anyhow::Result<ExitCode> {
    let mut change = Change {
        key: args.key.clone(),
        ..Change::default()
    };
    for field in &args.fields {
        let (path, value) = field
            .split_once('=')
            .with_context(|| format!("{field} sets nothing; write FIELD=VALUE"))?;
        change.fields.push((path.to_owned(), value.to_owned()));
    }
    if let Some(path) = &args.event {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let event = serde_json::from_str(&text)
            .with_context(|| format!("{} is not JSON", path.display()))?;
        change.event = Some(event);
    }
    if change.fields.is_empty() && change.event.is_none() && change.key.is_none() {
        bail!("nothing is changed; give --set FIELD=VALUE, --event FILE or --key KEY");
    }
    args.place.with(|letters| {
        let found = dlq::show(letters, &args.letter, i32::MAX)?;
        let (letter, shown) = found.with_context(|| missing(&args.letter))?;
        if let Some(done) = &shown.line.done {
            let (by, deed, at) = (&done.by, done.deed.as_str(), done.at);
            bail!("{} is done: {by} has {deed} it at {at}", args.letter);
        }
        let mended = dlq::mended(&letter, &change, letters.codec, letters.catalogue)?;
        let mended: Mended = match mended {
            Ok(mended) => mended,
            Err(why) => bail!("the edit is refused: {why}"),
        };
        let judge = Judge::new(letters, i32::MAX);
        let judged = judge.reads(&letter.dead.processor, &mended.record, SystemClock.now())?;
        if let Err(refusal) = judged {
            bail!("the edit is refused: {}: {}", refusal.code, refusal.why);
        }
        if !args.acting.dry_run {
            let actor = args.acting.actor(Some(args.reason.clone()));
            dlq::edit(letters, &letter, &mended, &actor)?;
        }
        let out = &mut std::io::stdout().lock();
        let (before, after) = (&mended.before, &mended.after);
        if args.place.json {
            let said = serde_json::json!({
                "letter": args.letter.to_string(), "before": before, "after": after,
                "dryRun": args.acting.dry_run,
            });
            writeln!(out, "{said}")?;
        } else {
            let would = if args.acting.dry_run { "would be " } else { "" };
            writeln!(out, "{} {would}edited: {before} is {after}", args.letter)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// A redrive or a discard.
struct Runs<'a> {
    chosen: &'a Chosen,
    acting: &'a Acting,
    place: &'a Place,
    reason: Option<String>,
    budget: Option<u32>,
    redrives_max: i32,
}

type Doing = fn(
    &Letters<'_>,
    &Filter,
    &Actor,
    Limits<'_>,
    &mut dyn FnMut(&Act) -> Result<(), Fault>,
) -> Result<Report, Fault>;

impl Runs<'_> {
    fn go(&self, doing: Doing) -> anyhow::Result<ExitCode> {
        let told = Arc::new(AtomicBool::new(false));
        let hears = told.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.spawn(async move {
            if shared::told_to_stop().await.is_ok() {
                hears.store(true, Ordering::SeqCst);
            }
        });
        let (dry_run, json) = (self.acting.dry_run, self.place.json);
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let mut broken: Option<std::io::Error> = None;
        let report = self.place.with(|letters| {
            let reader_gone = AtomicBool::new(false);
            let stop = || told.load(Ordering::SeqCst) || reader_gone.load(Ordering::SeqCst);
            let limits = Limits {
                records_per_second: self.budget,
                redrives_max: self.redrives_max,
                dry_run,
                stop: &stop,
            };
            let actor = self.acting.actor(self.reason.clone());
            let filter = self.chosen.filter(false);
            let report = doing(letters, &filter, &actor, limits, &mut |act| {
                if let Err(error) = write_act(&mut out, act, dry_run, json) {
                    // What is done stays done; nobody hears of more.
                    reader_gone.store(true, Ordering::SeqCst);
                    broken.get_or_insert(error);
                }
                Ok(())
            })?;
            Ok(report)
        })?;
        if let Some(error) = broken {
            return Err(error.into());
        }
        if json {
            writeln!(
                out,
                "{}",
                serde_json::json!({"report": report, "dryRun": dry_run})
            )?;
        } else {
            let would = if dry_run { "would be " } else { "" };
            let (done, refused) = (report.done, report.refused);
            writeln!(out, "{done} {would}done, {refused} {would}left as they are")?;
        }
        out.flush()?;
        if let (0, 0, false) = (report.done, report.refused, report.stopped) {
            match &self.chosen.letter {
                Some(at) => eprintln!("{}", missing(at)),
                None => eprintln!(
                    "no open dead letter is chosen; `crossdock dlq list` says which there are"
                ),
            }
        }
        Ok(match report {
            Report { stopped: true, .. } => {
                eprintln!("told to stop; run it again to go on");
                ExitCode::from(STOPPED)
            }
            Report {
                refused: 0, done, ..
            } if done > 0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        })
    }
}

fn write_act(out: &mut impl Write, act: &Act, dry_run: bool, json: bool) -> std::io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::to_string(act)?);
    }
    let would = if dry_run { "would be " } else { "" };
    match (&act.refused, &act.to) {
        (Some(r), _) => writeln!(
            out,
            "{}  {}  {would}left: {}: {}",
            act.letter, act.key, r.code, r.why
        ),
        (None, Some(topic)) => {
            writeln!(out, "{}  {}  {would}sent to {topic}", act.letter, act.key)
        }
        (None, None) => writeln!(out, "{}  {}  {would}put aside", act.letter, act.key),
    }
}
