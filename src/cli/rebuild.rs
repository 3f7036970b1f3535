//! `crossdock rebuild`

use super::connect::{self, Bootstrap, RegistryUrl};
use super::shared;
use crate::contract::Catalogue;
use crate::dlq::Actor;
use crate::pipeline::{Clock, SystemClock};
use crate::processors;
use crate::rebuild::{self, Comparison, Difference, EXAMPLES_MAX, Subject, Swapped, Wrong};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;

/// Waits of a tenth of a second for the partitions of a swap: longer than a dead instance counts as running.
const ROUNDS_MAX: u32 = 300;

/// Rebuilds a processor's state from the log beside the running one, compares the two key by key, and with
/// --swap puts right what differs.
///
/// Comparing disturbs nobody. A swap needs the partitions: stop the processor's instances, swap, and start
/// them again; each partition is one transaction. Exit code 1 where something differs and was not put right,
/// or could not be looked at.
#[derive(clap::Args)]
pub struct Args {
    /// The processor.
    processor: String,
    /// Only this partition. Can be given several times.
    #[arg(long = "partition", value_name = "NUMBER")]
    partitions: Vec<i32>,
    /// Put right what differs.
    #[arg(long, conflicts_with = "dry_run")]
    swap: bool,
    /// Only compare, which is what happens without --swap.
    #[arg(long)]
    dry_run: bool,
    /// Differences that are shown of each partition; all are counted.
    #[arg(long, value_name = "COUNT", default_value_t = EXAMPLES_MAX)]
    examples: usize,
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
    /// First part of the group ids of the deployment.
    #[arg(long, env = "CROSSDOCK_APPLICATION", default_value = "crossdock")]
    application: String,
    /// Print JSON: one object a line.
    #[arg(long)]
    json: bool,
}

/// What has been said so far.
#[derive(Default)]
struct Tally {
    different: u64,
    swapped: u64,
    refused: u64,
}

/// Runs the command. Exit code 1 where something differs and was not put right, or was refused.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    shared::log_output(shared::ONE_SHOT);
    let processor = processors::find(&args.processor).with_context(|| {
        let known: Vec<&str> = processors::ALL.iter().map(|p| p.descriptor.name).collect();
        format!(
            "there is no processor {}; there are {}",
            args.processor,
            known.join(", ")
        )
    })?;
    let configuration = args.bootstrap.configuration()?;
    let log = connect::configured_log(&args.bootstrap, &configuration)?;
    let registry = connect::configured_registry(&args.registry, &configuration, &log)?;
    let codec = shared::codec(registry);
    let subject = Subject {
        log: log.as_ref(),
        codec: &codec,
        catalogue: Catalogue::compiled(),
        application: &args.application,
        processor,
    };
    let mut tally = Tally::default();
    let numbers = wanted(args, &subject, &mut tally)?;
    match args.swap && !numbers.is_empty() {
        true => swap(args, &subject, &numbers, &mut tally)?,
        false => {
            for number in numbers {
                let comparison = subject.compare(number, args.examples)?;
                tally.different += comparison.different;
                tell(args, &comparison, None)?;
            }
        }
    }
    end(args, &tally)
}

/// The partitions that can be rebuilt. Of the others it is said why, before anything begins.
fn wanted(args: &Args, subject: &Subject<'_>, tally: &mut Tally) -> anyhow::Result<Vec<i32>> {
    let count = subject.partitions()?;
    let mut numbers = match args.partitions.is_empty() {
        true => (0..count).collect(),
        false => args.partitions.clone(),
    };
    numbers.sort_unstable();
    numbers.dedup();
    let mut able = Vec::new();
    for number in numbers {
        ensure!(
            (0..count).contains(&number),
            "the state of {} has no partition {number}, only 0 to {}",
            args.processor,
            count - 1
        );
        match subject.refusal(number)? {
            None => able.push(number),
            Some(refusal) => {
                tally.refused += 1;
                match args.json {
                    true => {
                        let said = json!({"partition": number, "refused": refusal.to_string()});
                        writeln!(std::io::stdout().lock(), "{said}")?;
                    }
                    false => eprintln!("{refusal}"),
                }
            }
        }
    }
    Ok(able)
}

fn swap(
    args: &Args,
    subject: &Subject<'_>,
    numbers: &[i32],
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let actor = Actor {
        name: args.actor.clone().unwrap_or_else(shared::user),
        reason: args.reason.clone(),
    };
    let mut written = Ok(());
    let mut told = |comparison: &Comparison, swapped: &Swapped| {
        tally.different += comparison.different;
        tally.swapped += swapped.entries;
        if written.is_ok() {
            // What is done stays done, whoever reads of it.
            written = tell(args, comparison, Some(swapped));
        }
    };
    let now = || SystemClock.now();
    rebuild::swap(
        subject,
        numbers,
        &actor,
        &now,
        ROUNDS_MAX,
        args.examples,
        &mut told,
    )??;
    written
}

fn end(args: &Args, tally: &Tally) -> anyhow::Result<ExitCode> {
    let Tally {
        different,
        swapped,
        refused,
    } = *tally;
    let left = different - swapped;
    let out = &mut std::io::stdout().lock();
    if args.json {
        let said =
            json!({"different": different, "swapped": swapped, "partitionsRefused": refused});
        writeln!(out, "{said}")?;
    } else {
        let so = match (different, args.swap) {
            (0, _) => "the running state is what the log makes of it".to_owned(),
            (_, true) => format!("{swapped} entries put right"),
            (_, false) => format!("{different} entries differ; --swap puts them right"),
        };
        match refused {
            0 => writeln!(out, "{}: {so}", args.processor)?,
            _ => writeln!(
                out,
                "{}: {so}; {refused} partitions could not be rebuilt",
                args.processor
            )?,
        }
    }
    Ok(ExitCode::from(u8::from(left + refused > 0)))
}

fn tell(args: &Args, c: &Comparison, swapped: Option<&Swapped>) -> anyhow::Result<()> {
    let out = &mut std::io::stdout().lock();
    if args.json {
        let said = json!({
            "comparison": c, "swapped": swapped.map(|s| s.entries),
            "examples": c.examples.iter().map(example).collect::<Vec<_>>(),
        });
        writeln!(out, "{said}")?;
        return Ok(());
    }
    write!(
        out,
        "partition {}: {} records read again, {} entries agree, {} differ",
        c.partition, c.records, c.equal, c.different
    )?;
    if c.moving > 0 {
        write!(out, ", {} keys changed meanwhile", c.moving)?;
    }
    if c.without_transaction > 0 {
        write!(
            out,
            "; of {} records it is not known any more which were taken together",
            c.without_transaction
        )?;
    }
    if let Some(s) = swapped.filter(|s| s.entries > 0) {
        write!(out, "; {} put right", s.entries)?;
    }
    writeln!(out)?;
    for d in &c.examples {
        let name = [d.entity(), d.part()].join(" ");
        match d.wrong() {
            Wrong::Missing => writeln!(out, "  {}: missing", name.trim_end())?,
            Wrong::Extra => writeln!(out, "  {}: should not be there", name.trim_end())?,
            Wrong::Different if d.fields.is_empty() => writeln!(
                out,
                "  {}: should be {}, is {}",
                name.trim_end(),
                bytes(d.expected.as_deref()),
                bytes(d.actual.as_deref())
            )?,
            Wrong::Different => {
                for (field, expected, actual) in &d.fields {
                    let name = name.trim_end();
                    writeln!(out, "  {name}: {field} should be {expected}, is {actual}")?;
                }
            }
        }
    }
    let more = c.different - c.examples.len() as u64;
    if more > 0 {
        writeln!(out, "  and {more} more")?;
    }
    Ok(())
}

fn example(d: &Difference) -> Value {
    let fields = d.fields.iter().map(
        |(field, expected, actual)| json!({"field": field, "expected": expected, "actual": actual}),
    );
    json!({
        "key": d.entity(), "part": d.part(), "wrong": d.wrong(),
        "fields": fields.collect::<Vec<_>>(),
        "expected": d.expected.as_deref().map(hex), "actual": d.actual.as_deref().map(hex),
    })
}

/// The bytes of an entry that nobody can read, as far as they fit on a line.
fn bytes(value: Option<&[u8]>) -> String {
    const SHOWN: usize = 24;
    let value = value.unwrap_or_default();
    let more = if value.len() > SHOWN { "…" } else { "" };
    format!(
        "0x{}{more} ({} bytes)",
        hex(&value[..value.len().min(SHOWN)]),
        value.len()
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
