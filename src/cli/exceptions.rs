//! `crossdock exceptions`: the queue of cases, ranked by money and promise.

use super::connect::{self, Bootstrap, RegistryUrl};
use super::shared;
use crate::cases::{self, Act, Case};
use crate::codec::Codec;
use crate::contract::event::{BusinessException, EventRef, Money, NoteAction};
use crate::domain::Timestamp;
use crate::log::Log;
use crate::pipeline::{Clock, SystemClock};
use anyhow::{Context, bail};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Works the queue of cases: what does not agree, ranked by revenue at risk, urgency of the customer's
/// promise and severity.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    registry: RegistryUrl,
}

#[derive(clap::Subcommand)]
enum What {
    /// Lists cases, the highest rank first.
    List(List),
    /// Shows a case: what was expected and is, evidence, what to do, and its history.
    Show {
        /// The case's id, or the beginning of it.
        id: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Gives a case to somebody.
    Assign {
        #[command(flatten)]
        on: On,
        /// To whom; by default to who asks.
        #[arg(long, value_name = "NAME")]
        to: Option<String>,
    },
    /// Leaves a case out of the list for some time.
    Snooze {
        #[command(flatten)]
        on: On,
        /// For how many hours.
        #[arg(long, default_value_t = 24)]
        hours: u64,
    },
    /// Writes a note to a case.
    Note {
        #[command(flatten)]
        on: On,
        /// The note.
        text: String,
    },
    /// Takes one of the actions that a case suggests: Crossdock does what it can do itself, everything
    /// else is recorded as done by you.
    Act {
        #[command(flatten)]
        on: On,
        /// The action, as `show` names it.
        action: String,
    },
    /// Closes a case as mended.
    Resolve {
        #[command(flatten)]
        on: On,
        /// How.
        #[arg(long)]
        reason: String,
    },
    /// Closes a case as one to live with: what raised it does not open it again.
    Accept {
        #[command(flatten)]
        on: On,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Opens a case again.
    Reopen {
        #[command(flatten)]
        on: On,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

#[derive(clap::Args)]
struct List {
    /// Only this code.
    #[arg(long)]
    code: Option<String>,
    /// Only cases about this order.
    #[arg(long, value_name = "ID")]
    order: Option<String>,
    /// Only cases about this SKU.
    #[arg(long)]
    sku: Option<String>,
    /// Only cases of this person.
    #[arg(long, value_name = "NAME")]
    assignee: Option<String>,
    /// Those that are over or snoozed, too.
    #[arg(long)]
    all: bool,
    /// Most cases shown.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Print one JSON object for each case, one a line.
    #[arg(long)]
    json: bool,
}

/// Which case, and who.
#[derive(clap::Args)]
struct On {
    /// The case's id, or the beginning of it.
    id: String,
    /// Who does it, as the audit names them.
    #[arg(long = "as", env = "CROSSDOCK_ACTOR", value_name = "NAME")]
    actor: String,
}

/// Runs the command. Exit code 1 when there is no such case, or the act was refused or not answered.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    shared::log_output("error");
    let configuration = args.bootstrap.configuration()?;
    let log = connect::configured_log(&args.bootstrap, &configuration)?;
    let registry = connect::configured_registry(&args.registry, &configuration, &log)?;
    let codec = shared::codec(registry);
    let now = SystemClock.now();
    match &args.what {
        What::List(wanted) => {
            let cases = cases::all(&log, &codec, now)?;
            list(&cases, wanted, now);
            Ok(ExitCode::SUCCESS)
        }
        What::Show { id, json } => show(&log, &codec, id, *json, now),
        What::Assign { on, to } => {
            let assignee = to.clone().unwrap_or_else(|| on.actor.clone());
            let act = Act {
                assignee: Some(assignee),
                ..act_of(on, NoteAction::Assign, None)
            };
            ask(&log, &codec, on, act, now)
        }
        What::Snooze { on, hours } => {
            let act = Act {
                snoozed_until: Some(now.plus(Duration::from_secs(hours.saturating_mul(3_600)))),
                ..act_of(on, NoteAction::Snooze, None)
            };
            ask(&log, &codec, on, act, now)
        }
        What::Note { on, text } => {
            let act = act_of(on, NoteAction::Note, Some(text));
            ask(&log, &codec, on, act, now)
        }
        What::Act { on, action } => {
            let act = act_of(on, NoteAction::Act, Some(action));
            ask(&log, &codec, on, act, now)
        }
        What::Resolve { on, reason } => {
            let act = act_of(on, NoteAction::Resolve, Some(reason));
            ask(&log, &codec, on, act, now)
        }
        What::Accept { on, reason } => {
            let act = act_of(on, NoteAction::Accept, Some(reason));
            ask(&log, &codec, on, act, now)
        }
        What::Reopen { on, reason } => {
            let act = act_of(on, NoteAction::Reopen, Some(reason));
            ask(&log, &codec, on, act, now)
        }
    }
}

fn act_of(on: &On, action: NoteAction, text: Option<&String>) -> Act {
    Act {
        action,
        actor: on.actor.clone(),
        text: text.cloned(),
        ..Act::default()
    }
}

fn list(cases: &[Case], wanted: &List, now: Timestamp) {
    let is = |asked: &Option<String>, has: Option<&str>| {
        asked.as_deref().is_none_or(|asked| has == Some(asked))
    };
    let found: Vec<&Case> = cases
        .iter()
        .filter(|case| {
            let e = &case.exception;
            let awake = e.snoozed_until.is_none_or(|until| until <= now);
            (wanted.all || (case.is_live() && awake))
                && is(&wanted.code, Some(&e.code))
                && is(&wanted.order, e.order_id.as_deref())
                && is(&wanted.sku, e.sku.as_deref())
                && is(&wanted.assignee, e.assignee.as_deref())
        })
        .collect();
    if wanted.json {
        for case in found.iter().take(wanted.limit) {
            println!("{}", json(case, now));
        }
        return;
    }
    if found.is_empty() {
        println!("nothing is open");
        return;
    }
    println!(
        "{:<8} {:>9} {:<24} {:<12} {:>14} {:<20} about",
        "id", "rank", "code", "status", "at risk", "promise"
    );
    for case in found.iter().take(wanted.limit) {
        let e = &case.exception;
        let id = e.exception_id.to_string();
        println!(
            "{:<8} {:>9.0} {:<24} {:<12} {:>14} {:<20} {}",
            &id[..8],
            case.rank(now),
            e.code,
            e.status,
            e.revenue_at_risk.as_ref().map_or("-".into(), money),
            promise(e, now),
            about(e),
        );
    }
    if found.len() > wanted.limit {
        println!(
            "… and {} more; --limit shows them",
            found.len() - wanted.limit
        );
    }
}

fn show(
    log: &Arc<dyn Log>,
    codec: &Codec,
    id: &str,
    as_json: bool,
    now: Timestamp,
) -> anyhow::Result<ExitCode> {
    let cases = cases::all(log, codec, now)?;
    let case = find(&cases, id)?;
    let e = &case.exception;
    let history = cases::history(log, codec, e.exception_id)?;
    if as_json {
        let mut object = json(case, now);
        object["acts"] = serde_json::to_value(&history.acts)?;
        println!("{object}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}  {}  {}  {}", e.exception_id, e.code, e.status, about(e));
    let line = |name: &str, text: &str| println!("  {name:<12} {text}");
    line("found by", &e.processor);
    line("expected", e.expected.as_deref().unwrap_or("-"));
    line("actual", e.actual.as_deref().unwrap_or("-"));
    if let Some(delta) = e.delta {
        line("delta", &delta.to_string());
    }
    if let Some(at_risk) = &e.revenue_at_risk {
        line("at risk", &money(at_risk));
    }
    line("promise", &promise(e, now));
    let factors: Vec<String> = e
        .rank_factors
        .iter()
        .map(|f| format!("{} {}", f.name, f.value))
        .collect();
    line("ranked by", &factors.join(", "));
    line(
        "seen",
        &format!(
            "{} times, first {}, last {}",
            e.occurrences, e.first_seen_at, e.last_seen_at
        ),
    );
    if let Some(assignee) = &e.assignee {
        line("assigned to", assignee);
    }
    if let Some(until) = e.snoozed_until {
        line("snoozed to", &until.to_string());
    }
    if let Some(event) = e.healed_by {
        line("healed by", &event.to_string());
    }
    for action in &e.suggested_actions {
        line("do", action);
    }
    for evidence in &e.evidence {
        line("evidence", &place(evidence));
    }
    line("read more", &format!("docs/exceptions/{}.md", e.code));
    for version in &history.versions {
        println!(
            "  {}  {}  {}",
            version.meta.recorded_at,
            version.status,
            version.actual.as_deref().unwrap_or("")
        );
    }
    for act in &history.acts {
        println!(
            "  {}  {} by {}: {}{}",
            act.meta.recorded_at,
            act.action,
            act.actor,
            act.outcome,
            act.reason
                .as_ref()
                .map(|r| format!(" ({r})"))
                .unwrap_or_default()
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(
    log: &Arc<dyn Log>,
    codec: &Codec,
    on: &On,
    act: Act,
    now: Timestamp,
) -> anyhow::Result<ExitCode> {
    if on.actor.trim().is_empty() {
        bail!("say who does it: --as NAME, or CROSSDOCK_ACTOR");
    }
    let cases = cases::all(log, codec, now)?;
    let case = &find(&cases, &on.id)?.exception;
    if act.action == NoteAction::Act {
        let known = |a: &compact_str::CompactString| Some(a.as_str()) == act.text.as_deref();
        if !case.suggested_actions.iter().any(known) {
            bail!(
                "{} suggests: {}; for everything else write a note",
                case.code,
                case.suggested_actions.join(", ")
            );
        }
    }
    let answer = cases::act(log, codec, case, &act, now)?;
    Ok(match answer {
        None => {
            println!(
                "asked; nobody has answered: it is carried out once exception-enricher runs (`crossdock run exception-enricher`)"
            );
            ExitCode::FAILURE
        }
        Some(audit) => {
            println!("{} {}: {}", audit.action, audit.target, audit.outcome);
            match &*audit.outcome == "DONE" {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
    })
}

/// The one case whose id begins like this.
fn find<'c>(cases: &'c [Case], id: &str) -> anyhow::Result<&'c Case> {
    let mut found = cases
        .iter()
        .filter(|case| case.exception.exception_id.to_string().starts_with(id));
    let case = found.next().with_context(|| {
        format!("there is no case {id}; `crossdock exceptions list --all` names them")
    })?;
    if found.next().is_some() {
        bail!("several cases begin with {id}; write more of the id");
    }
    Ok(case)
}

fn json(case: &Case, now: Timestamp) -> serde_json::Value {
    serde_json::json!({
        "rank": case.rank(now),
        "case": case.exception,
        "topic": &*case.place.topic,
        "partition": case.place.partition,
        "offset": case.place.offset,
    })
}

fn about(e: &BusinessException) -> String {
    let parts = [
        ("order", e.order_id.as_deref()),
        ("sku", e.sku.as_deref()),
        ("at", e.location_id.as_deref()),
        ("in", e.channel_id.as_deref()),
    ];
    let told = parts
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name} {value}")));
    let told: Vec<String> = told.collect();
    match told.is_empty() {
        true => e.cause_key.to_string(),
        false => told.join(" "),
    }
}

fn money(money: &Money) -> String {
    format!("{} {}", money.amount, money.currency)
}

/// The customer's promise, as people say it.
fn promise(e: &BusinessException, now: Timestamp) -> String {
    let Some(promise) = e.customer_promise_at else {
        return "-".into();
    };
    let hours = (promise.0 - now.0) / 3_600_000_000;
    match promise <= now {
        true => format!("over by {} h", -hours),
        false => format!("in {hours} h"),
    }
}

fn place(at: &EventRef) -> String {
    format!(
        "{} partition {} offset {}",
        at.topic, at.partition, at.offset
    )
}
