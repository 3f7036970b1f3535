//! `crossdock demo`

use super::{connect, shared};
use crate::demo::{self, Observer, Options, Phase, Picture, Report};
use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Exit code of a run that was told to stop, as shells have it for Ctrl-C.
const STOPPED: u8 = 130;
/// Lines of the live picture.
const LINES: usize = 7;

/// Arguments of `crossdock demo`.
#[derive(clap::Args)]
pub struct Args {
    /// Seed of everything that is chosen; the same seed gives the same events, ledger and verdicts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Sales to read: the UCI "Online Retail" CSV, plain or gzip. Without it, the slice that ships
    /// with Crossdock.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Run on this Kafka instead of the log in this process: with topics of its own, and nothing
    /// else touched.
    #[arg(long, value_name = "ADDRESS")]
    kafka: Option<String>,
    /// What the names of the run's topics, groups and transactions begin with. By default one that
    /// is new each time.
    #[arg(long, requires = "kafka", value_name = "PREFIX")]
    prefix: Option<String>,
    /// Base URL of a schema registry with Confluent's API; without one the registry is kept in the
    /// log. Credentials as for the other commands.
    #[arg(long, requires = "kafka", value_name = "URL")]
    registry: Option<String>,
    /// Write what the systems around have done into this folder, one file of JSON lines each.
    #[arg(long, value_name = "DIR")]
    ledgers: Option<PathBuf>,
    /// Print one JSON object at the end and nothing else.
    #[arg(long)]
    json: bool,
}

/// Runs the command. Exit code 1 when the books do not balance or an invariant does not hold, or on
/// an error; 130 when it is told to stop.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    shared::log_output(shared::ONE_SHOT);
    let place = args.kafka.as_deref().map(|address| Place {
        address,
        prefix: match &args.prefix {
            Some(prefix) => prefix.clone(),
            None => connect::new_prefix("demo"),
        },
    });
    let options = Options {
        seed: args.seed,
        data: args.data.clone(),
        ledgers: args.ledgers.clone(),
        cluster: match &place {
            Some(Place { address, prefix }) => {
                Some(connect::cluster(address, prefix, args.registry.as_deref())?)
            }
            None => None,
        },
    };
    if !args.json {
        writeln!(std::io::stdout(), "{}", introduction(place.as_ref()))?;
    }
    let mut screen = Screen::new(!args.json);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(async {
        tokio::select! {
            report = demo::run(&options, &mut screen) => Some(report),
            _ = shared::told_to_stop() => None,
        }
    });
    screen.close();
    let Some(report) = report else {
        eprintln!("stopped before the end: nothing was judged");
        return Ok(ExitCode::from(STOPPED));
    };
    let report = report.map_err(told)?;
    if args.json {
        writeln!(std::io::stdout(), "{}", report.json())?;
    } else {
        let words = format!("{}{}", painted(&report), next(args, place.as_ref()));
        writeln!(anstream::stdout(), "{words}")?;
    }
    Ok(ExitCode::from(code(&report)))
}

/// 1 when the books do not balance or an invariant does not hold.
fn code(report: &Report) -> u8 {
    u8::from(!report.is_good())
}

/// A part of a cluster that is the run's own.
struct Place<'a> {
    address: &'a str,
    prefix: String,
}

/// A fault in words for people: what went wrong, and what is beneath.
fn told(fault: crate::pipeline::Fault) -> anyhow::Error {
    match fault.source {
        Some(source) => anyhow::anyhow!("{}: {source}", fault.message),
        None => anyhow::anyhow!(fault.message),
    }
}

fn introduction(place: Option<&Place<'_>>) -> String {
    let on = match place {
        None => String::new(),
        Some(place) => format!("On Kafka at {}, topics {}*\n", place.address, place.prefix),
    };
    format!(
        "Real sales of a gift shop: an ERP, tills and shoppers on one side, two\n\
         storefronts on the other, over HTTP; and some of its invoices as orders: paid,\n\
         shipped or picked up, returned, refunded, booked. Facts arrive twice and out of\n\
         order, some are late, a count comes in mid-trade, a storefront and the ERP go\n\
         down, calls are cut after they had their effect.\n{on}"
    )
}

/// What to try next.
fn next(args: &Args, place: Option<&Place<'_>>) -> String {
    let mut lines = vec![(
        "the same with other faults",
        format!("crossdock demo --seed {}", args.seed.wrapping_add(1)),
    )];
    match place {
        None => {
            let data = "crossdock demo --data online_retail.csv.gz".to_owned();
            lines.push(("all of the data set", data));
            let kafka = "crossdock demo --kafka 127.0.0.1:9092".to_owned();
            lines.push(("the same on a real Kafka", kafka));
        }
        Some(Place { address, prefix }) => {
            let verify = format!("crossdock verify --bootstrap {address} --prefix {prefix}");
            lines.push(("its books, from the log", verify));
            let delete = format!(
                "kafka-topics.sh --bootstrap-server {address} --delete --topic '{}.*'",
                prefix.replace('.', "\\.")
            );
            lines.push(("its topics stay; to delete them", delete));
        }
    }
    let connectors = "crossdock connectors list".to_owned();
    lines.push(("what can be connected", connectors));
    let mut text = String::from("\nNext");
    for (what, command) in lines {
        text.push_str(&format!("\n  {what}\n    {command}"));
    }
    text
}

/// With marks in colour. Colours go where nobody could see them, or wants to.
fn painted(report: &Report) -> String {
    let good = Style::new().fg_color(Some(AnsiColor::Green.into()));
    let bad = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
    let mut text = String::new();
    for line in report.to_string().lines() {
        let mark = ["ok  ", "FAIL", "balanced", "DOES NOT BALANCE"]
            .into_iter()
            .find(|mark| line.trim_start().starts_with(mark));
        match mark {
            Some(mark) => {
                let style = if mark.starts_with(char::is_uppercase) {
                    bad
                } else {
                    good
                };
                text.push_str(&line.replacen(mark, &format!("{style}{mark}{style:#}"), 1));
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// The live picture: calm, a few lines that stay where they are. Where it cannot be drawn, a line
/// for each phase.
struct Screen {
    lines: Vec<ProgressBar>,
    /// Told last, where nothing is drawn.
    phase: Option<Phase>,
    wanted: bool,
    began: Instant,
}

impl Screen {
    fn new(wanted: bool) -> Self {
        let mut lines = Vec::new();
        if wanted && std::io::stderr().is_terminal() {
            let all = MultiProgress::new();
            for _ in 0..LINES {
                let line = all.add(ProgressBar::new_spinner());
                if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                    line.set_style(style);
                }
                lines.push(line);
            }
        }
        Screen {
            lines,
            phase: None,
            wanted,
            began: Instant::now(),
        }
    }

    fn close(&self) {
        self.lines.iter().for_each(ProgressBar::finish_and_clear);
    }
}

impl Observer for Screen {
    fn round(&mut self, p: &Picture) {
        if self.lines.is_empty() {
            if self.wanted && self.phase.replace(p.phase) != Some(p.phase) {
                eprintln!("{} s: {}", seconds(self.began.elapsed()), words(p.phase));
            }
            return;
        }
        for (line, text) in self.lines.iter().zip(drawn(p, self.began.elapsed())) {
            line.set_message(text);
        }
    }
}

fn words(phase: Phase) -> &'static str {
    match phase {
        Phase::Trading => "trading",
        Phase::Outage => "trading, one storefront down",
        Phase::Draining => "closing the day",
    }
}

/// The lines of the picture. What matters most comes first in each: a narrow terminal cuts the rest.
fn drawn(p: &Picture, took: Duration) -> Vec<String> {
    let row = |name: &str, rest: String| format!("  {name:<13}{rest}");
    let mut lines = vec![
        format!("{} ({} s)", words(p.phase), seconds(took)),
        row("events in", grouped(p.events)),
        row("levels", grouped(p.levels)),
        row("availability", grouped(p.published)),
    ];
    for front in &p.fronts {
        let lag = match front.waiting {
            0 => "lag 0 s".to_owned(),
            waiting => format!("lag {} s, {} wait", seconds(front.lag), grouped(waiting)),
        };
        let calls = grouped(front.calls);
        lines.push(row(front.name, format!("{lag}, {calls} calls")));
    }
    let outcomes = p.outcomes.iter().filter(|(_, count)| **count > 0);
    let outcomes: Vec<String> = outcomes
        .map(|(name, count)| {
            format!(
                "{} {}",
                name.to_lowercase().replace('_', "-"),
                grouped(*count)
            )
        })
        .collect();
    lines.push(row("outcomes", outcomes.join(", ")));
    lines
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64())
}

/// `12,345`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{Front, LeftOut, Verdicts};
    use crate::verify::Ledger;
    use std::collections::BTreeMap;

    fn report(verdict: &str, in_flight: i64) -> Report {
        Report {
            seed: 1,
            events: 3,
            ledger: Ledger {
                produced: 3,
                applied: 3,
                in_flight,
                ..Ledger::default()
            },
            invariants: Verdicts(BTreeMap::from([(1, "ok".to_owned()), (4, verdict.into())])),
            left_out: LeftOut::default(),
            took: Duration::ZERO,
        }
    }

    #[test]
    fn a_verdict_that_fails_or_books_that_do_not_balance_give_exit_code_1() {
        assert_eq!(code(&report("ok", 0)), 0);
        let why = "a|b: granted 3 where 2 was available: retail.reservation.decision.v1[0]@7";
        assert_eq!(code(&report(why, 0)), 1);
        assert_eq!(code(&report("ok", 1)), 1);
        assert_eq!(report(why, 0).json()["invariants"]["4"], why);
        let text = anstream::adapter::strip_str(&painted(&report(why, 0))).to_string();
        assert!(text.contains("FAIL  4") && text.contains(why), "{text}");
        assert!(text.contains("not judged"), "{text}");
        let text = painted(&report("ok", 1));
        assert!(text.contains("DOES NOT BALANCE"), "{text}");
    }

    #[test]
    fn the_picture_says_what_matters_within_forty_columns() {
        let picture = Picture {
            phase: Phase::Outage,
            events: 1_234_567,
            levels: 999,
            published: 1_000,
            fronts: vec![
                Front {
                    name: "vendure",
                    calls: 12,
                    waiting: 0,
                    lag: Duration::ZERO,
                },
                Front {
                    name: "medusa",
                    calls: 3,
                    waiting: 4_321,
                    lag: Duration::from_millis(2_750),
                },
            ],
            outcomes: BTreeMap::from([("APPLIED", 5), ("DEAD_LETTERED", 0)]),
        };
        let lines = drawn(&picture, Duration::from_millis(1_500));
        assert_eq!(
            lines,
            [
                "trading, one storefront down (1.5 s)",
                "  events in    1,234,567",
                "  levels       999",
                "  availability 1,000",
                "  vendure      lag 0 s, 12 calls",
                "  medusa       lag 2.8 s, 4,321 wait, 3 calls",
                "  outcomes     applied 5",
            ]
        );
        assert_eq!(lines.len(), LINES);
    }
}
