//! `crossdock replay`

use super::connect::{self, Bootstrap, RegistryUrl};
use super::shared;
use crate::config::{Configuration, ConnectorEntry};
use crate::contract::Catalogue;
use crate::dlq::Actor;
use crate::domain::Timestamp;
use crate::pipeline::{Clock, SystemClock};
use crate::replay::{Ask, Candidate, Ended, Found, Judged, Sender, Target, Verdict, WAITING_MAX};
use crate::topics;
use anyhow::bail;
use serde::Serialize;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Exit code of a run that was told to stop.
const STOPPED: u8 = 130;
/// Records put into lines in one transaction.
const BATCH_RECORDS_MAX: usize = 100;
/// How long is listened for news at a time.
const HEAR_WAIT: Duration = Duration::from_millis(100);
/// Of the requests that a target allows, looking may take this part.
const LOOKING_PART: f64 = 0.25;

/// Gives records to one sink once more: only what is asked for, and of that only what its target does not
/// have.
///
/// Says of each record what it would change there, and puts those that change something into the lines of
/// their keys in the running sink, which sends them in order and within the target's budget; nobody else
/// hears of them. It can be interrupted, and goes on with --run.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["order", "sku", "store", "since"]))]
pub struct Args {
    /// Only of this order.
    #[arg(long, value_name = "ID", conflicts_with_all = ["sku", "store"])]
    order: Option<String>,
    /// Only about this SKU.
    #[arg(long)]
    sku: Option<String>,
    /// Of the SKU only at this stock location.
    #[arg(long, requires = "sku", conflicts_with = "store")]
    location: Option<String>,
    /// Only about this store: its stock, and what is sent from or returned to it.
    #[arg(long, conflicts_with = "sku")]
    store: Option<String>,
    /// Only written at this day or time or later.
    #[arg(long, value_name = "TIME", value_parser = shared::time)]
    since: Option<Timestamp>,
    /// Only written before this day or time.
    #[arg(long, value_name = "TIME", value_parser = shared::time)]
    until: Option<Timestamp>,
    /// The connector of the configuration whose sink gets them.
    #[arg(long, value_name = "TARGET")]
    to: String,
    /// Say what would change, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Where the target cannot be asked what it has: send also what its receipts say it has taken.
    #[arg(long)]
    again: bool,
    /// Go on with the replay of this name, which was interrupted: what it has sent is not sent again.
    #[arg(long, value_name = "NAME")]
    run: Option<String>,
    /// How many seconds to wait for what becomes of the last records.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// Who does it, for the audit; by default the user of this machine.
    #[arg(long, env = "CROSSDOCK_ACTOR")]
    actor: Option<String>,
    /// Why, for the audit.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    registry: RegistryUrl,
    /// First part of the group and transactional ids of the deployment.
    #[arg(long, env = "CROSSDOCK_APPLICATION", default_value = "crossdock")]
    application: String,
    /// Print JSON: one object a line.
    #[arg(long)]
    json: bool,
}

/// What a replay came to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Records that change something, or may.
    differ: u64,
    /// Records of which the target has what they say.
    unchanged: u64,
    /// Records that were not sent for another reason.
    left: u64,
    /// Of these, those that somebody has to look at.
    failed: u64,
    /// Records that were sent.
    sent: u64,
    /// Of these, those that the sink is done with.
    done: u64,
    /// Of these, those that the target has refused.
    refused: u64,
    /// Of these, those that wait.
    waiting: u64,
    /// Whether it was told to stop.
    stopped: bool,
}

/// Runs the command. Exit code 1 where something was refused, cannot be told or still waits, 130 where it
/// was told to stop.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    shared::log_output(shared::ONE_SHOT);
    let configuration = args.bootstrap.configuration()?;
    let entry = target_of(&args.to, &configuration)?;
    let (descriptor, connector) = shared::build(entry)?;
    let Some(sink) = connector.sink() else {
        bail!(
            "{} is a connector of kind {}, which only reads its system and takes no records; name one of {}",
            entry.name,
            entry.kind,
            sinks(&configuration)
        );
    };
    let log = connect::configured_log(&args.bootstrap, &configuration)?;
    let catalogue = Catalogue::compiled();
    let needs = topics::needs_of_connector(&entry.name, descriptor, catalogue);
    topics::verify(log.as_ref(), &needs)?.map_err(|missing| anyhow::anyhow!("{missing}"))?;
    let registry = connect::configured_registry(&args.registry, &configuration, &log)?;
    let codec = shared::codec(registry);
    let named = std::iter::once((&*entry.name, &connector));
    connect::entrust(named, &configuration, &log, &codec)?;
    let target = Target {
        log,
        codec,
        catalogue,
        application: args.application.clone(),
        name: entry.name.clone(),
        topics: descriptor.accepts.iter().map(|t| (*t).to_owned()).collect(),
        sink,
        writer: "replay".to_owned(),
    };
    let budget = entry.budget.map(|b| b.calls_per_second * LOOKING_PART);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    runtime.spawn(async move {
        if shared::told_to_stop().await.is_ok() {
            told.store(true, Ordering::SeqCst);
        }
    });
    runtime.block_on(Replay::begin(args, target, budget, stop)?.go())
}

fn target_of<'c>(
    name: &str,
    configuration: &'c Configuration,
) -> anyhow::Result<&'c ConnectorEntry> {
    let found = configuration.connectors.iter().find(|c| c.name == name);
    match found {
        Some(entry) => Ok(entry),
        None => bail!(
            "{name} is no connector of the configuration; name one of {}, or give the file that has it with --config",
            sinks(configuration)
        ),
    }
}

/// The connectors that take records, for people.
fn sinks(configuration: &Configuration) -> String {
    let entries = configuration.connectors.iter();
    let takes =
        |c: &&ConnectorEntry| crate::connectors::find(&c.kind).is_some_and(|d| d.sink.is_some());
    let names: Vec<&str> = entries.filter(takes).map(|c| &*c.name).collect();
    match names.is_empty() {
        true => "(there is none)".to_owned(),
        false => names.join(", "),
    }
}

/// One run.
struct Replay<'a> {
    args: &'a Args,
    run: String,
    sender: Sender,
    /// Requests a second that looking may take.
    looks_per_second: Option<f64>,
    began: Instant,
    stop: Arc<AtomicBool>,
    report: Report,
    /// Records of which it was told that they wait.
    told_waiting: std::collections::HashSet<String>,
}

impl<'a> Replay<'a> {
    fn begin(
        args: &'a Args,
        target: Target,
        looks_per_second: Option<f64>,
        stop: Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let now = SystemClock.now();
        let ask = Ask {
            order: args.order.clone(),
            sku: args.sku.clone(),
            location: args.location.clone().or_else(|| args.store.clone()),
            since: args.since,
            until: args.until,
        };
        let actor = Actor {
            name: args.actor.clone().unwrap_or_else(shared::user),
            reason: args.reason.clone(),
        };
        let run = args.run.clone().unwrap_or_else(|| format!("r{:x}", now.0));
        let sender = Sender::new(target, &ask, actor, &run, args.again, now)?;
        Ok(Replay {
            args,
            run,
            sender: sender?,
            looks_per_second,
            began: Instant::now(),
            stop,
            report: Report::default(),
            told_waiting: Default::default(),
        })
    }

    fn is_told_to_stop(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    async fn go(mut self) -> anyhow::Result<ExitCode> {
        self.tell_found()?;
        let mut batch: Vec<(Judged, Candidate)> = Vec::new();
        while !self.is_told_to_stop() {
            let Some((judged, candidate)) = self.sender.next().await? else {
                break;
            };
            self.tell(&judged)?;
            if judged.verdict.is_sent() && !self.args.dry_run {
                batch.push((judged, candidate));
            }
            if batch.len() >= BATCH_RECORDS_MAX {
                self.send(&mut batch)?;
            }
            self.keep_pace().await;
        }
        self.report.stopped = self.is_told_to_stop();
        if !self.report.stopped {
            self.send(&mut batch)?;
        }
        let since = Instant::now();
        let wait = Duration::from_secs(self.args.wait);
        while self.sender.waiting() > 0 && since.elapsed() < wait && !self.is_told_to_stop() {
            self.hear()?;
        }
        self.report.stopped |= self.is_told_to_stop();
        self.report.waiting = self.sender.waiting() as u64;
        self.end()
    }

    /// Sends what is staged once there is room for it in the lines.
    fn send(&mut self, batch: &mut Vec<(Judged, Candidate)>) -> anyhow::Result<()> {
        let mut silent = Instant::now();
        while self.sender.waiting() + batch.len() > WAITING_MAX {
            if self.is_told_to_stop() {
                return Ok(());
            }
            if self.hear()? {
                silent = Instant::now();
            }
            if silent.elapsed() > Duration::from_secs(self.args.wait.max(1)) {
                silent = Instant::now();
                eprintln!(
                    "{} has taken nothing for {} s: is an instance of it running (`crossdock run {}`)?",
                    self.args.to, self.args.wait, self.args.to
                );
            }
        }
        self.sender.send(batch, SystemClock.now())?;
        self.report.sent += batch.len() as u64;
        batch.clear();
        self.hear()?;
        Ok(())
    }

    fn hear(&mut self) -> anyhow::Result<bool> {
        let news = self.sender.hear(HEAR_WAIT)?;
        for ended in &news {
            match ended {
                Ended::Done { .. } => self.report.done += 1,
                Ended::Refused { .. } => self.report.refused += 1,
                Ended::Waits { record, .. } if !self.told_waiting.insert(record.clone()) => {
                    continue;
                }
                Ended::Waits { .. } => {}
            }
            let out = &mut std::io::stdout().lock();
            if self.args.json {
                writeln!(out, "{}", json!({"record": ended}))?;
                continue;
            }
            match ended {
                Ended::Done { record } => writeln!(out, "{record}  done")?,
                Ended::Waits { record, why } => {
                    writeln!(out, "{record}  waits, and is tried again: {why}")?;
                }
                Ended::Refused {
                    record,
                    why,
                    letter,
                } => writeln!(out, "{record}  refused: {why} (dead letter {letter})")?,
            }
        }
        Ok(!news.is_empty())
    }

    fn tell_found(&self) -> anyhow::Result<()> {
        let Found {
            candidates, gaps, ..
        } = self.sender.found();
        if self.args.json {
            let found = json!({"found": candidates.len(), "gaps": gaps, "run": self.run, "dryRun": self.args.dry_run});
            writeln!(std::io::stdout().lock(), "{found}")?;
            return Ok(());
        }
        for gap in gaps {
            eprintln!("{gap}; what was before that is past its retention");
        }
        if !self.args.dry_run {
            eprintln!(
                "replay {}: where it is interrupted, the same with --run {} goes on",
                self.run, self.run
            );
        }
        Ok(())
    }

    fn tell(&mut self, judged: &Judged) -> anyhow::Result<()> {
        match &judged.verdict {
            Verdict::Changes { .. } | Verdict::Unknown { .. } => self.report.differ += 1,
            Verdict::Unchanged { .. } => self.report.unchanged += 1,
            Verdict::Left { code, .. } => {
                self.report.left += 1;
                self.report.failed += u64::from(needs_somebody(code));
            }
        }
        let out = &mut std::io::stdout().lock();
        if self.args.json {
            writeln!(out, "{}", serde_json::to_string(judged)?)?;
            return Ok(());
        }
        let Judged { record, key, .. } = judged;
        let would = if self.args.dry_run { "would be " } else { "" };
        match &judged.verdict {
            Verdict::Changes { what } => writeln!(out, "{record}  {key}  {would}sent: {what}"),
            Verdict::Unknown { why } => {
                writeln!(
                    out,
                    "{record}  {key}  {would}sent, cannot tell what changes: {why}"
                )
            }
            Verdict::Unchanged { why } => writeln!(out, "{record}  {key}  unchanged: {why}"),
            Verdict::Left { code, why } => {
                writeln!(out, "{record}  {key}  {would}left: {code}: {why}")
            }
        }?;
        Ok(())
    }

    /// Waits as long as the requests so far should have taken.
    async fn keep_pace(&self) {
        let Some(rate) = self.looks_per_second.filter(|r| *r > 0.0) else {
            return;
        };
        let due = Duration::from_secs_f64(self.sender.requests() as f64 / rate);
        while self.began.elapsed() < due && !self.is_told_to_stop() {
            let left = due.saturating_sub(self.began.elapsed());
            tokio::time::sleep(left.min(HEAR_WAIT)).await;
        }
    }

    fn end(&self) -> anyhow::Result<ExitCode> {
        let report = &self.report;
        let out = &mut std::io::stdout().lock();
        if self.args.json {
            writeln!(out, "{}", json!({"report": report, "run": self.run}))?;
        } else if self.args.dry_run {
            writeln!(
                out,
                "{} would be sent, {} unchanged, {} would be left as they are",
                report.differ, report.unchanged, report.left
            )?;
        } else {
            writeln!(
                out,
                "{} sent ({} done, {} refused, {} waiting), {} unchanged, {} left as they are",
                report.sent,
                report.done,
                report.refused,
                report.waiting,
                report.unchanged,
                report.left
            )?;
        }
        if report.stopped {
            eprintln!(
                "told to stop: what was sent goes on by itself; the same with --run {} goes on",
                self.run
            );
            return Ok(ExitCode::from(STOPPED));
        }
        if report.waiting > 0 {
            eprintln!(
                "{} records wait in {}, and go on by themselves once an instance of it runs and its target takes them: `crossdock parked list --sink {}`",
                report.waiting, self.args.to, self.args.to
            );
        }
        let is_well = report.refused + report.waiting + report.failed == 0;
        Ok(ExitCode::from(u8::from(!is_well)))
    }
}

/// Whether a record that was left needs somebody to look at it.
fn needs_somebody(code: &str) -> bool {
    matches!(
        code,
        "REFUSED" | "CANNOT_TELL" | "TOO_EARLY" | "UNREADABLE" | "DEAD_LETTERED"
    )
}
