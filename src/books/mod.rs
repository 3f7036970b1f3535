//! The books as finance reads them: postings in accounts, debit and credit, and what they leave.
//!
//! Read from the topic of postings alone, record by record: memory does not grow with the period or
//! with the size of a payout. An entry stands in the books of one order or one payout, whichever it
//! names; the postings of a payout also hold entries in the books of the orders that it settles, so all
//! of the topic is looked through for an order, and only what names it is unpacked.

mod balances;
mod period;

pub use balances::{Account, Balances, Residual};
pub use period::Period;

use crate::codec::Codec;
use crate::contract::event::{
    Event, ExceptionStatus, LedgerAccount, LedgerEntry, LedgerPosting, LedgerSide,
};
use crate::contract::topic;
use crate::domain::finance::Account as Name;
use crate::domain::{Decimal, Timestamp, exception_id};
use crate::log::scan::{Stretch, scan};
use crate::log::{Log, LogError, Offset, TopicPartition, Wanted, partition_for};
use crate::pipeline::{Fault, Record, Verdict};
use memchr::memmem::Finder;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Whose books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Those of this order.
    Order(String),
    /// Those of this payout.
    Payout(String),
    /// All of them.
    All,
}

/// One side of a posting: a line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When the fact happened that made it so.
    pub booked_at: Timestamp,
    /// The posting that it is a side of.
    pub posting: uuid::Uuid,
    /// The kind of fact that it follows from.
    pub reason: String,
    /// Names the fact within the order or payout.
    pub cause: String,
    /// More than 0 for a correction of the same cause.
    pub sequence: i32,
    /// The account.
    pub account: &'static str,
    /// What it is debited with.
    pub debit: Option<Decimal>,
    /// What it is credited with.
    pub credit: Option<Decimal>,
    /// ISO-4217 code.
    pub currency: String,
    /// The order in whose books it stands.
    pub order: Option<String>,
    /// The payout in whose books it stands, or whose posting it is a side of.
    pub payout: Option<String>,
}

/// What the postings of a subject come to.
#[derive(Clone, Debug, Serialize)]
pub struct Closing {
    /// Every account that was touched.
    pub accounts: Vec<Account>,
    /// Accounts that must come to zero and have not.
    pub residuals: Vec<Residual>,
    /// Whether the order is closed; `None` for a payout, and for an order without a state.
    pub closed: Option<bool>,
    /// Lines that were told.
    pub lines: u64,
    /// Records that cannot be read, with the reason.
    pub unreadable: Vec<String>,
    /// Records read to find them.
    pub records_read: u64,
}

/// The name of an account as finance writes it.
pub fn account_name(account: LedgerAccount) -> &'static str {
    match account {
        LedgerAccount::Unknown => "UNKNOWN",
        LedgerAccount::PspClearing => Name::PspClearing.name(),
        LedgerAccount::CustomerDeposits => Name::CustomerDeposits.name(),
        LedgerAccount::Revenue => Name::Revenue.name(),
        LedgerAccount::TaxPayable => Name::TaxPayable.name(),
        LedgerAccount::RefundLiability => Name::RefundLiability.name(),
        LedgerAccount::Returns => Name::Returns.name(),
        LedgerAccount::Appeasements => Name::Appeasements.name(),
        LedgerAccount::Disputes => Name::Disputes.name(),
        LedgerAccount::Receivables => Name::Receivables.name(),
        LedgerAccount::Fees => Name::Fees.name(),
        LedgerAccount::PspReserve => Name::PspReserve.name(),
        LedgerAccount::Adjustments => Name::Adjustments.name(),
        LedgerAccount::Bank => Name::Bank.name(),
        LedgerAccount::CurrencyExchange => Name::CurrencyExchange.name(),
    }
}

/// Whether an entry of a posting stands in the books of this subject.
pub fn is_in(subject: &Subject, posting: &LedgerPosting, entry: &LedgerEntry) -> bool {
    match (subject, &entry.order_id) {
        (Subject::All, _) => true,
        (Subject::Order(id), Some(order)) => **order == *id.as_str(),
        (Subject::Order(id), None) => {
            posting.payout_id.is_none() && posting.order_id.as_deref() == Some(id)
        }
        (Subject::Payout(id), None) => posting.payout_id.as_deref() == Some(id),
        (Subject::Payout(_), Some(_)) => false,
    }
}

/// Hands the lines of a subject's books in a period to `visit`, those of one order or payout in the
/// order in which they were booked, and gives what they come to.
///
/// # Errors
/// When the log or the registry does not answer, or there is no topic of postings; and what `visit`
/// fails with, which ends the reading.
pub fn read<E: From<LogError> + From<Fault>>(
    log: &dyn Log,
    codec: &Codec,
    subject: &Subject,
    period: &Period,
    mut visit: impl FnMut(&Line) -> Result<(), E>,
) -> Result<Closing, E> {
    let mut balances = Balances::default();
    let (mut unreadable, mut lines) = (Vec::new(), 0);
    let mut read = scan(log, &stretches(log, subject, period)?, |record| {
        let posting = match posting(codec, record) {
            Ok(Some(posting)) => posting,
            Ok(None) => return Ok(()),
            Err(fault) if fault.verdict == Verdict::Reject => {
                if unreadable.len() < UNREADABLE_MAX {
                    unreadable.push(format!("{}: {}", record.origin, fault.message));
                }
                return Ok(());
            }
            Err(fault) => return Err(fault.into()),
        };
        if !period.holds(posting.booked_at) {
            return Ok(());
        }
        balances.add(&posting, |entry| is_in(subject, &posting, entry));
        let told = |entry: &&LedgerEntry| match subject {
            // How a payout settles its orders is a part of its story.
            Subject::Payout(id) => posting.payout_id.as_deref() == Some(id),
            _ => is_in(subject, &posting, entry),
        };
        for entry in posting.entries.iter().filter(told) {
            lines += 1;
            visit(&line(&posting, entry))?;
        }
        Ok::<(), E>(())
    })?;
    let mut closing = Closing {
        accounts: Vec::new(),
        residuals: Vec::new(),
        closed: None,
        lines,
        unreadable,
        records_read: 0,
    };
    if *subject != Subject::All {
        let about = About::read(log, codec, subject)?;
        read += about.records_read;
        closing.closed = about.closed;
        closing.residuals = balances.residuals(subject, &about.causes);
    }
    closing.accounts = balances.all();
    closing.records_read = read;
    Ok(closing)
}

/// Records named that cannot be read, at most.
const UNREADABLE_MAX: usize = 100;

/// The posting that a record holds; `None` for a tombstone of somebody's making.
fn posting(codec: &Codec, record: &Record) -> Result<Option<LedgerPosting>, Fault> {
    Ok(match codec.decode(record)? {
        Event::LedgerPosting(posting) => Some(posting),
        _ => None,
    })
}

fn line(posting: &LedgerPosting, entry: &LedgerEntry) -> Line {
    let side = |side: LedgerSide| (entry.side == side).then_some(entry.amount);
    let order = entry.order_id.as_ref().or(posting.order_id.as_ref());
    Line {
        booked_at: posting.booked_at,
        posting: posting.posting_id,
        reason: posting.reason.to_string(),
        cause: posting.cause.to_string(),
        sequence: posting.sequence,
        account: account_name(entry.account),
        debit: side(LedgerSide::Debit),
        credit: side(LedgerSide::Credit),
        currency: posting.currency.to_string(),
        order: order.map(ToString::to_string),
        payout: posting.payout_id.as_ref().map(ToString::to_string),
    }
}

/// Where the postings of a subject can be.
fn stretches(log: &dyn Log, subject: &Subject, period: &Period) -> Result<Vec<Stretch>, LogError> {
    let mut all = Stretch::whole(
        topic::LEDGER_POSTING,
        partitions(log, topic::LEDGER_POSTING)?,
    );
    match subject {
        Subject::All => {}
        Subject::Order(id) => {
            let wanted = naming(id);
            all.iter_mut().for_each(|s| s.wanted = Some(wanted.clone()));
        }
        Subject::Payout(id) => {
            let number = partition_for(id.as_bytes(), all.len() as i32);
            let keys = HashSet::from([id.as_bytes().to_vec()]);
            let at = TopicPartition::new(topic::LEDGER_POSTING, number);
            all = vec![Stretch::of_keys(at, Offset::Beginning, keys)];
        }
    }
    for stretch in &mut all {
        if let Some(begin) = period.written_from_ms() {
            stretch.from = Offset::At(log.admin().offset_at(&stretch.at, begin)?);
        }
    }
    Ok(all)
}

/// Wants records whose value names this.
fn naming(id: &str) -> Arc<Wanted> {
    let finder = Finder::new(id.as_bytes()).into_owned();
    Arc::new(move |_: Option<&[u8]>, value: Option<&[u8]>| {
        value.is_some_and(|v| finder.find(v).is_some())
    })
}

fn partitions(log: &dyn Log, topic: &str) -> Result<i32, LogError> {
    let topics = log.admin().topics()?;
    let found = topics.iter().find(|t| t.name == topic);
    found
        .map(|t| t.partitions)
        .ok_or_else(|| LogError::UnknownTopic {
            topic: topic.to_owned(),
        })
}

/// What else is known of a subject: whether it is closed, and the causes of what is left.
struct About {
    closed: Option<bool>,
    /// By `account|currency`: what the open case says.
    causes: BTreeMap<String, String>,
    records_read: u64,
}

impl About {
    fn read(log: &dyn Log, codec: &Codec, subject: &Subject) -> Result<About, Fault> {
        let (Subject::Order(id) | Subject::Payout(id)) = subject else {
            return Ok(About {
                closed: None,
                causes: BTreeMap::new(),
                records_read: 0,
            });
        };
        let exists: BTreeMap<String, i32> = log
            .admin()
            .topics()?
            .into_iter()
            .map(|t| (t.name, t.partitions))
            .collect();
        let count = |topic: &str| exists.get(topic).copied().unwrap_or_default();
        let mut all = Stretch::whole(topic::OPS_EXCEPTION, count(topic::OPS_EXCEPTION));
        // A case does not name its payout, but who found it.
        let wanted = match subject {
            Subject::Payout(_) => naming("settlement-recon"),
            _ => naming(id),
        };
        all.iter_mut().for_each(|s| s.wanted = Some(wanted.clone()));
        let states = count(topic::ORDER_STATE);
        if matches!(subject, Subject::Order(_)) && states > 0 {
            let at = TopicPartition::new(topic::ORDER_STATE, partition_for(id.as_bytes(), states));
            let keys = HashSet::from([id.as_bytes().to_vec()]);
            all.push(Stretch::of_keys(at, Offset::Beginning, keys));
        }
        let mut closed = None;
        let mut open: BTreeMap<uuid::Uuid, (String, String)> = BTreeMap::new();
        let records_read = scan(log, &all, |record| {
            match codec.decode(record) {
                Ok(Event::OrderState(state)) => closed = Some(state.closed),
                Ok(Event::BusinessException(case)) => {
                    let is_over = matches!(
                        case.status,
                        ExceptionStatus::Resolved
                            | ExceptionStatus::Compensated
                            | ExceptionStatus::Accepted
                    );
                    // Only a case of these very books makes this id.
                    let own = exception_id(&case.code, id, &case.cause_key) == case.exception_id;
                    match is_over || !own {
                        true => open.remove(&case.exception_id),
                        false => {
                            let found = case.actual.as_deref().unwrap_or(&case.code);
                            let words = format!("{}: {found}", case.code);
                            open.insert(case.exception_id, (case.cause_key.to_string(), words))
                        }
                    };
                }
                _ => {}
            }
            Ok::<(), Fault>(())
        })?;
        Ok(About {
            closed,
            causes: open.into_values().collect(),
            records_read,
        })
    }
}
