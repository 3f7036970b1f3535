//! `crossdock ledger`

use super::connect::{self, Bootstrap, RegistryUrl};
use super::shared;
use crate::books::{self, Account, Closing, Line, Period, Subject};
use crate::domain::money::written;
use crate::domain::{Decimal, Timestamp};
use std::io::{BufWriter, Write};
use std::process::ExitCode;

/// Arguments of `crossdock ledger`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct Args {
    /// The books of this order.
    #[arg(long, value_name = "ID", group = "what", conflicts_with = "payout")]
    order: Option<String>,
    /// The books of this payout, with how it settles its orders.
    #[arg(long, value_name = "ID", group = "what")]
    payout: Option<String>,
    /// Print lines of the journal as CSV, and nothing else; without an order or payout, all of them.
    #[arg(long, group = "what", conflicts_with = "json")]
    csv: bool,
    /// Only what was booked as of this day (YYYY-MM-DD, in UTC) or time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = shared::time)]
    since: Option<Timestamp>,
    /// Only what was booked before this day or time.
    #[arg(long, value_name = "TIME", value_parser = shared::time)]
    until: Option<Timestamp>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    registry: RegistryUrl,
}

/// Runs the command. Exit code 1 when nothing was booked, or a record cannot be read.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    shared::log_output(shared::ONE_SHOT);
    let configuration = args.bootstrap.configuration()?;
    let log = connect::configured_log(&args.bootstrap, &configuration)?;
    let registry = connect::configured_registry(&args.registry, &configuration, &log)?;
    let codec = shared::codec(registry);
    let subject = match (&args.order, &args.payout) {
        (Some(order), _) => Subject::Order(order.clone()),
        (_, Some(payout)) => Subject::Payout(payout.clone()),
        _ => Subject::All,
    };
    let period = Period {
        since: args.since,
        until: args.until,
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let closing = if args.csv {
        let mut rows = csv::Writer::from_writer(&mut out);
        // Also where there is no line: a file without its first row is no file.
        rows.write_record(COLUMNS).map_err(unwrapped)?;
        let closing = books::read(log.as_ref(), &codec, &subject, &period, |line| {
            rows.write_record(row(line)).map_err(unwrapped)
        })?;
        rows.flush()?;
        closing
    } else if args.json {
        json(&mut out, |visit| {
            books::read(log.as_ref(), &codec, &subject, &period, visit)
        })?
    } else {
        table(&mut out, |visit| {
            books::read(log.as_ref(), &codec, &subject, &period, visit)
        })?
    };
    out.flush()?;
    for record in &closing.unreadable {
        eprintln!("cannot be read: {record}");
    }
    if closing.lines == 0 {
        let what = match &subject {
            Subject::Order(id) => format!("of order {id}"),
            Subject::Payout(id) => format!("of payout {id}"),
            Subject::All => "in this period".to_owned(),
        };
        eprintln!(
            "nothing was booked {what}; check the name, the period, and that the topics are those of this deployment"
        );
    }
    Ok(match closing.lines > 0 && closing.unreadable.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What takes the lines as they are read.
type Visit<'a> = &'a mut dyn FnMut(&Line) -> anyhow::Result<()>;

const COLUMNS: [&str; 11] = [
    "booked_at",
    "posting",
    "reason",
    "cause",
    "sequence",
    "account",
    "debit",
    "credit",
    "currency",
    "order",
    "payout",
];

fn row(line: &Line) -> [String; 11] {
    [
        line.booked_at.to_string(),
        line.posting.to_string(),
        line.reason.clone(),
        line.cause.clone(),
        line.sequence.to_string(),
        line.account.to_owned(),
        amount(line.debit, &line.currency),
        amount(line.credit, &line.currency),
        line.currency.clone(),
        line.order.clone().unwrap_or_default(),
        line.payout.clone().unwrap_or_default(),
    ]
}

fn amount(amount: Option<Decimal>, currency: &str) -> String {
    amount.map_or_else(String::new, |a| written(a, currency))
}

/// That nobody reads any more must be seen as such.
fn unwrapped(error: csv::Error) -> anyhow::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        other => anyhow::anyhow!("{other:?}"),
    }
}

/// One object, written as its lines come.
fn json(
    out: &mut impl Write,
    read: impl FnOnce(Visit<'_>) -> anyhow::Result<Closing>,
) -> anyhow::Result<Closing> {
    write!(out, "{{\"lines\":[")?;
    let mut comma = "";
    let closing = read(&mut |line| {
        write!(out, "{comma}{}", serde_json::to_string(line)?)?;
        comma = ",";
        Ok(())
    })?;
    writeln!(out, "],\"closing\":{}}}", serde_json::to_string(&closing)?)?;
    Ok(closing)
}

fn table(
    out: &mut impl Write,
    read: impl FnOnce(Visit<'_>) -> anyhow::Result<Closing>,
) -> anyhow::Result<Closing> {
    let mut last = None;
    let closing = read(&mut |line| {
        if last != Some(line.posting) {
            let correction = match line.sequence {
                0 => String::new(),
                sequence => format!(", correction {sequence}"),
            };
            let payout = line.payout.as_ref().map(|p| format!(", payout {p}"));
            let payout = payout.unwrap_or_default();
            writeln!(
                out,
                "{}  {} {}{correction}{payout}",
                line.booked_at, line.reason, line.cause
            )?;
            last = Some(line.posting);
        }
        let order = match (&line.payout, &line.order) {
            (Some(_), Some(order)) => format!("  in the books of order {order}"),
            _ => String::new(),
        };
        writeln!(
            out,
            "    {:<20} {:>16} {:>16} {}{order}",
            line.account,
            amount(line.debit, &line.currency),
            amount(line.credit, &line.currency),
            line.currency
        )?;
        Ok(())
    })?;
    if closing.lines == 0 {
        return Ok(closing);
    }
    writeln!(
        out,
        "\n    {:<20} {:>16} {:>16} {:>16}",
        "account", "debit", "credit", "balance"
    )?;
    for a in &closing.accounts {
        let Account {
            account,
            debit,
            credit,
            balance,
            currency,
        } = a;
        let [debit, credit, balance] = [debit, credit, balance].map(|a| written(*a, currency));
        writeln!(
            out,
            "    {account:<20} {debit:>16} {credit:>16} {balance:>16} {currency}"
        )?;
    }
    for r in &closing.residuals {
        let yet = match closing.closed {
            Some(false) => ", the order is not closed yet",
            _ => "",
        };
        let (account, currency, cause) = (r.account, &r.currency, &r.cause);
        let amount = written(r.amount, currency);
        writeln!(
            out,
            "  residual: {account} {amount} {currency}{yet}: {cause}"
        )?;
    }
    Ok(closing)
}
