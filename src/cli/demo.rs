//! `crossdock demo`

use super::shared;
use crate::demo::{self, Observer, Options, Phase, Picture};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `crossdock demo`.
#[derive(clap::Args)]
pub struct Args {
    /// Seed of everything that is chosen; the same seed gives the same events, ledger and verdicts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Sales to read: the UCI "Online Retail" CSV, plain or gzip. Without it, the slice that ships
    /// with Crossdock.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Print one JSON object at the end and nothing else.
    #[arg(long)]
    json: bool,
}

/// Runs the command. Exit code 1 when the books do not balance or an invariant does not hold.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    shared::log_output("error");
    let options = Options {
        seed: args.seed,
        data: args.data.clone(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let live = std::io::stderr().is_terminal() && !args.json;
    if !args.json {
        println!(
            "Real sales of a gift shop: tills, a warehouse and shoppers on one side, two storefronts over HTTP on"
        );
        println!(
            "the other. Facts arrive twice and out of order, a count comes in mid-trade, a storefront goes down.\n"
        );
    }
    let report = runtime.block_on(async {
        let mut screen = Screen::new(live);
        let report = demo::run(&options, &mut screen).await;
        screen.close();
        report
    })?;
    match args.json {
        true => println!("{}", report.json()),
        false => println!("{report}"),
    }
    Ok(if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The live picture: calm, one block of lines.
struct Screen(Option<ProgressBar>);

impl Screen {
    fn new(live: bool) -> Self {
        if !live {
            return Screen(None);
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4}  {msg}") {
            bar.set_style(style);
        }
        Screen(Some(bar))
    }
    fn close(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Screen {
    fn round(&mut self, p: &Picture) {
        let Some(bar) = &self.0 else { return };
        let phase = match p.phase {
            Phase::Trading => "trading",
            Phase::Outage => "trading, one storefront is down",
            Phase::Draining => "closing the day",
        };
        bar.tick();
        bar.set_message(format!(
            "{phase}\n      events {:>8}   levels {:>8}   availability {:>8}   storefront calls {:>6}   waiting {:>6}",
            p.events, p.levels, p.published, p.calls, p.waiting
        ));
    }
}
