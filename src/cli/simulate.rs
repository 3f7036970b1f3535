//! `crossdock simulate`

use crate::simulate::{self, Defect, Options, Outcome, Trade};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Failing seeds that are told of in full.
const STORIES_MAX: usize = 3;

/// Arguments of `crossdock simulate`.
#[derive(clap::Args)]
pub struct Args {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, from the first on.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Simulated hours of trade of each seed.
    #[arg(long, default_value_t = 1.0)]
    hours: f64,
    /// What is traded: stock, or orders and money as well. By default the seed says.
    #[arg(long, value_parser = trade)]
    trade: Option<Trade>,
    /// Seeds at a time; each has one thread.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Sow a defect and see whether the judges find it: one of those that --defects lists.
    #[arg(long, value_parser = defect)]
    defect: Option<Defect>,
    /// Sow one defect after the other; exit code 1 when one is found in no seed.
    #[arg(long, conflicts_with_all = ["defect", "json"])]
    defects: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn defect(name: &str) -> Result<Defect, String> {
    Defect::named(name).ok_or_else(|| {
        let names: Vec<&str> = Defect::ALL.iter().map(|d| d.name()).collect();
        format!("takes one of {}", names.join(", "))
    })
}

fn trade(text: &str) -> Result<Trade, String> {
    match text {
        "stock" => Ok(Trade::Stock),
        "orders" => Ok(Trade::Orders),
        _ => Err("takes stock or orders".into()),
    }
}

/// Runs the command. Exit code 1 when a rule does not hold in the run of some seed.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if !(args.hours > 0.0 && args.hours <= 10_000.0) {
        bail!("--hours takes more than 0 and at most 10000");
    }
    let options = Options {
        hours: args.hours,
        trade: args.trade,
        defect: args.defect,
    };
    if args.defects {
        return sow(args, &options);
    }
    let began = Instant::now();
    let outcomes = all(args, &options)?;
    let mut out = std::io::stdout().lock();
    let failed: Vec<&Outcome> = outcomes.iter().filter(|o| !o.broken.is_empty()).collect();
    if args.json {
        let report = serde_json::json!({"seeds": outcomes, "failed": failed.len()});
        writeln!(out, "{report}")?;
        return Ok(ExitCode::from(u8::from(!failed.is_empty())));
    }
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let took = began.elapsed();
    writeln!(
        out,
        "{} seeds of {} simulated hours in {:.1} s ({:.0} ms a seed and job): {} records, {} transactions, {} steps, {} starts",
        outcomes.len(),
        args.hours,
        took.as_secs_f64(),
        took.as_secs_f64() * 1_000.0 * args.jobs as f64 / outcomes.len().max(1) as f64,
        sum(|o| o.records),
        sum(|o| o.commits),
        sum(|o| o.steps),
        sum(|o| o.lives),
    )?;
    let count = |of: fn(&Outcome) -> &BTreeMap<&'static str, u64>| {
        let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
        for (kind, count) in outcomes.iter().flat_map(of) {
            *kinds.entry(kind).or_default() += count;
        }
        kinds
    };
    writeln!(out, "faults that struck:")?;
    for (kind, count) in count(|o| &o.struck) {
        writeln!(out, "  {count:>7}  {kind}")?;
    }
    writeln!(out, "which led to:")?;
    for (kind, count) in count(|o| &o.met) {
        writeln!(out, "  {count:>7}  {kind}")?;
    }
    if let [only] = outcomes.as_slice() {
        writeln!(out, "  {}  of everything in the log", only.digest)?;
    }
    if failed.is_empty() {
        writeln!(out, "every rule holds in every run")?;
        return Ok(ExitCode::SUCCESS);
    }
    for outcome in &failed {
        let (rule, why) = &outcome.broken[0];
        writeln!(out, "seed {}: not so: {rule}: {why}", outcome.seed)?;
    }
    for outcome in failed.iter().take(STORIES_MAX) {
        tell(&mut out, outcome.seed, &options)?;
    }
    Ok(ExitCode::from(1))
}

/// Sows each defect in turn and says in how many of the seeds it is found, and by which rule first.
fn sow(args: &Args, options: &Options) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let mut hidden = Vec::new();
    for defect in Defect::ALL {
        let options = Options {
            defect: Some(*defect),
            ..options.clone()
        };
        let outcomes = all(args, &options)?;
        let mut rules: BTreeMap<&str, usize> = BTreeMap::new();
        for (rule, _) in outcomes.iter().filter_map(|o| o.broken.first()) {
            *rules.entry(rule).or_default() += 1;
        }
        let found: usize = rules.values().sum();
        let most = rules.iter().max_by_key(|(_, count)| **count);
        let by = most.map_or("no rule", |(rule, _)| rule);
        writeln!(
            out,
            "{found:>5} of {}  {}: {} (most often: {by})",
            outcomes.len(),
            defect.name(),
            defect.words()
        )?;
        out.flush()?;
        if found == 0 {
            hidden.push(defect.name());
        }
    }
    if hidden.is_empty() {
        writeln!(out, "all {} defects are found", Defect::ALL.len())?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "not found: {}", hidden.join(", "))?;
    Ok(ExitCode::from(1))
}

/// Runs the seeds, several at a time; outcomes in the order of the seeds.
fn all(args: &Args, options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let next = AtomicU64::new(0);
    let done: Mutex<BTreeMap<u64, anyhow::Result<Outcome>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.clamp(1, 256) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= args.seeds {
                        return;
                    }
                    let seed = args.seed.wrapping_add(number);
                    let outcome = simulate::run(seed, options);
                    let outcome = outcome.with_context(|| format!("seed {seed}"));
                    if let (Ok(outcome), None) = (&outcome, options.defect)
                        && let Some((rule, why)) = outcome.broken.first()
                    {
                        // Told at once: the rest may take long.
                        eprintln!("seed {seed}: not so: {rule}: {why}");
                    }
                    let mut done = done.lock().unwrap_or_else(|e| e.into_inner());
                    done.insert(number, outcome);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    done.into_values().collect()
}

/// Tells the shortest story that leads to what is broken.
fn tell(out: &mut impl Write, seed: u64, options: &Options) -> anyhow::Result<()> {
    let story = simulate::explain(seed, options)?;
    writeln!(
        out,
        "\nseed {seed}, the shortest of {} stories: {} of {} deeds, {} of {} faults",
        story.tries, story.left.0, story.planned.0, story.left.1, story.planned.1
    )?;
    for line in &story.lines {
        writeln!(out, "  {line}")?;
    }
    for (rule, why) in &story.outcome.broken {
        writeln!(out, "  not so: {rule}: {why}")?;
    }
    Ok(())
}
