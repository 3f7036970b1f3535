//! Whether a payout is the sum of its lines and reached the bank, and its books.
//!
//! A payout's lines say what it is made of, its control row what the provider counts, the bank what
//! came in. In the books each line moves what a provider holds from the order's PSPClearing to the
//! payout's; fees, reserves and corrections take their part, and the bank's credit brings it to zero.
//! What is left is the exception.

use super::matching::{LineKind, SettledLine};
use super::postings::{
    Account, Balances, Journal, Posted, Posting, Targets, named, post, transfer,
};
use super::{HORIZON, RETENTION};
use crate::domain::cases::{CaseChange, Cases, Finding, Severity};
use crate::domain::encoding::{kept, stored};
use crate::domain::money::rules;
use crate::domain::money::{Currency, Money};
use crate::domain::{Decimal, Latest, Taken, Timestamp};
use compact_str::CompactString as Text;
use std::collections::BTreeMap;
use std::time::Duration;

/// What the provider says about a payout as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// How many lines it has, where the provider counts them.
    pub count: Option<i64>,
    /// What they sum to.
    pub net: Money,
}
stored!(Control { count, net });

/// A line of a payout as it is kept: apart from the payout, which may have very many.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptLine {
    version: i64,
    id: u128,
    line: SettledLine,
    posted: Posted,
    /// The line that was kept before this one, by which all are found again.
    before: Option<Text>,
}
stored!(KeptLine {
    version,
    id,
    line,
    posted,
    before
});

impl KeptLine {
    /// The line that was kept before this one.
    pub fn before(&self) -> Option<&Text> {
        self.before.as_ref()
    }
}

/// How many, and their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    count: i64,
    net: Decimal,
}
stored!(Sum { count, net });

/// One payout: sums over its lines, whose number is without limit, and what the provider and the bank
/// say of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Payout {
    // First, so that it is read without the rest.
    due: Option<Timestamp>,
    heard_at: Timestamp,
    judged_from: Option<Timestamp>,
    lines: BTreeMap<Currency, Sum>,
    /// Lines of orders that are not known.
    homeless: BTreeMap<Currency, Sum>,
    /// What its PSPClearing holds.
    clearing: BTreeMap<Currency, Decimal>,
    last_line: Option<Text>,
    controls: Latest<Control>,
    credits: Latest<Money>,
    posted: Journal,
    cases: Cases,
}
kept!(Payout {
    due,
    heard_at,
    judged_from: told,
    lines,
    homeless,
    clearing,
    last_line,
    controls,
    credits,
    posted,
    cases
});

impl Payout {
    /// The line that was kept last; each names the one before it.
    pub fn last_line(&self) -> Option<&Text> {
        self.last_line.as_ref()
    }

    /// Takes a line in, of which `known` is kept. Gives what to keep in its place and what to post.
    pub fn line(
        &mut self,
        known: Option<KeptLine>,
        version: i64,
        id: u128,
        line: SettledLine,
    ) -> (Taken, Option<(KeptLine, Vec<Posting>)>) {
        let kept = match known {
            None => KeptLine {
                version,
                id,
                posted: Posted::default(),
                before: self.last_line.replace(line.line.clone()),
                line,
            },
            Some(kept) if kept.id == id || (kept.version == version && kept.line == line) => {
                return (Taken::Duplicate, None);
            }
            Some(kept) if (kept.version, kept.id) > (version, id) => {
                return (Taken::Superseded, None);
            }
            Some(kept) => {
                self.count(&kept.line, -1);
                KeptLine {
                    version,
                    id,
                    line,
                    ..kept
                }
            }
        };
        self.count(&kept.line, 1);
        let cause = named("line", &kept.line.line);
        let mut journal = Journal::from([(cause.clone(), kept.posted)]);
        let reason = kept.line.kind.name();
        let targets = Targets::from([((cause.clone(), reason), of_line(&kept.line))]);
        let postings = post(&mut journal, targets);
        self.book(&postings);
        let posted = journal.remove(&cause).unwrap_or_default();
        (
            Taken::Applied,
            Some((KeptLine { posted, ..kept }, postings)),
        )
    }

    fn count(&mut self, line: &SettledLine, by: i64) {
        let net = Decimal::from_units(line.net.amount().units() * by);
        let homeless = line.kind.is_of_order() && line.order.is_none();
        let sums = [
            Some(&mut self.lines),
            homeless.then_some(&mut self.homeless),
        ];
        for sums in sums.into_iter().flatten() {
            let sum = sums.entry(line.net.currency()).or_default();
            sum.count += by;
            sum.net += net;
            if sum.count == 0 {
                sums.remove(&line.net.currency());
            }
        }
    }

    fn book(&mut self, postings: &[Posting]) {
        for posting in postings {
            let own = posting.entries.iter();
            for entry in own.filter(|e| e.account == Account::PspClearing && e.order.is_empty()) {
                *self.clearing.entry(posting.currency).or_default() += entry.amount;
            }
        }
        self.clearing.retain(|_, amount| !amount.is_zero());
    }

    /// The control row.
    pub fn control(&mut self, key: &str, version: i64, id: u128, control: Control) -> Taken {
        self.controls.take(key, version, id, control)
    }
    /// What the bank booked.
    pub fn credit(&mut self, key: &str, version: i64, id: u128, money: Money) -> Taken {
        self.credits.take(key, version, id, money)
    }

    /// What has to be posted for the bank's credits, and what became of the payout's cases. Sets the
    /// next timer. `None` in place of the cases when it is over for good and may be forgotten.
    pub fn settle(&mut self, now: Timestamp) -> (Vec<Posting>, Option<Vec<CaseChange>>) {
        // The first fact starts the horizon.
        let heard_at = self.heard_at;
        self.judged_from.get_or_insert(heard_at.plus(HORIZON));
        let forgotten_at = heard_at.plus(RETENTION);
        if forgotten_at <= now {
            return (Vec::new(), None);
        }
        let mut targets = Targets::new();
        for (key, money) in self.credits.iter() {
            let mut balances = Balances::new();
            let (debit, credit) = (Account::Bank, Account::PspClearing);
            transfer(
                &mut balances,
                money.currency(),
                debit,
                credit,
                money.amount(),
            );
            targets.insert((named("bank", key), "BANK_CREDIT"), balances);
        }
        let postings = post(&mut self.posted, targets);
        self.book(&postings);
        let over = self.judged_from.is_some_and(|from| from <= now);
        let findings = self.findings(over);
        let cases = self.cases.follow(findings, now);
        let judging = self.judged_from.filter(|from| *from > now);
        self.due = [judging, Some(forgotten_at)].into_iter().flatten().min();
        (postings, Some(cases))
    }

    /// What does not agree. Until the horizon is `over` only what no late fact can mend.
    fn findings(&self, over: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        let control = self.controls.facts().next();
        match control {
            Some(control) => findings.extend(self.beside(control, over)),
            None if over => findings.push(Finding {
                expected: "a control row".into(),
                ..mismatch_of("control", "the payout has no control row".into(), None)
            }),
            None => {}
        }
        if let Some(control) = control
            && (over || !self.credits.is_empty())
        {
            let start = Money::zero(control.net.currency());
            let came = self
                .credits
                .facts()
                .try_fold(start, |sum, money| sum.plus(*money));
            if came != Ok(control.net) {
                let actual = match &came {
                    Ok(came) => format!("the bank has {came}"),
                    Err(error) => format!("the bank has another currency: {error}"),
                };
                let short = came.ok().and_then(|came| came.minus(control.net).ok());
                findings.push(mismatch("bank", control.net, actual, short));
            }
        }
        for (currency, sum) in self.homeless.iter().filter(|_| over) {
            let actual = format!("{} lines belong to no order that is known", sum.count);
            let short = Money::new(sum.net, *currency).ok();
            findings.push(mismatch("orders", Money::zero(*currency), actual, short));
        }
        if over && findings.is_empty() {
            // Nothing else explains what is left.
            findings.extend(self.clearing.iter().map(|(currency, amount)| {
                let actual = format!("PSPClearing {amount} {currency}");
                let short = Money::new(*amount, *currency).ok();
                mismatch("residual", Money::zero(*currency), actual, short)
            }));
        }
        findings
    }

    /// The lines beside the control row.
    fn beside(&self, control: &Control, over: bool) -> Option<Finding> {
        let currency = control.net.currency();
        let count: i64 = self.lines.values().map(|sum| sum.count).sum();
        let net = self.lines.get(&currency).copied().unwrap_or_default().net;
        let lines = Money::new(net, currency).ok()?;
        let is_whole = match control.count {
            Some(all) => all <= count,
            None => lines == control.net,
        };
        if !over && !is_whole {
            return None;
        }
        let others: Vec<String> = self
            .lines
            .keys()
            .filter(|other| **other != currency)
            .map(ToString::to_string)
            .collect();
        let actual =
            match rules::check_payout(count, lines, control.count.unwrap_or(count), control.net) {
                Ok(()) if others.is_empty() => return None,
                Ok(()) => format!("lines are in {} too", others.join(", ")),
                Err(broken) => broken.to_string(),
            };
        let short = lines.minus(control.net).ok();
        Some(mismatch("lines", control.net, actual, short))
    }
}

fn mismatch(cause: &str, promised: Money, actual: String, short: Option<Money>) -> Finding {
    Finding {
        expected: promised.to_string(),
        ..mismatch_of(cause, actual, short)
    }
}

fn mismatch_of(cause: &str, actual: String, short: Option<Money>) -> Finding {
    Finding {
        code: "PAYOUT_MISMATCH",
        cause: cause.into(),
        severity: Severity::High,
        patience: Duration::ZERO,
        expected: String::new(),
        actual,
        delta: short.map(Money::amount),
        at_risk: short,
        actions: &["open a dispute", "import what is missing"],
    }
}

/// What a line has in the books. One whose order is not known has its fee alone: the rest cannot be
/// taken from any order, and is left in the payout's PSPClearing.
fn of_line(line: &SettledLine) -> Balances {
    let mut balances = Balances::new();
    let currency = line.net.currency();
    let clearing = Account::PspClearing;
    let mut against = |account: Account, amount: Decimal| {
        transfer(&mut balances, currency, account, clearing, amount);
    };
    match line.kind {
        LineKind::Fee => against(Account::Fees, -line.net.amount()),
        LineKind::Adjustment => against(Account::Adjustments, -line.net.amount()),
        LineKind::Reserve => against(Account::PspReserve, -line.net.amount()),
        _ => {
            against(Account::Fees, line.fee.amount());
            if let Some(order) = &line.order {
                let taken = line.original.unwrap_or(line.gross);
                let mut add = |account, order: &Text, money: Money, sign: i64| {
                    let signed = Decimal::from_units(money.amount().units() * sign);
                    let key = (account, order.clone(), money.currency());
                    *balances.entry(key).or_default() += signed;
                };
                let own = Text::default();
                add(clearing, &own, line.gross, 1);
                add(clearing, order, taken, -1);
                if taken.currency() != currency {
                    add(Account::CurrencyExchange, &own, line.gross, -1);
                    add(Account::CurrencyExchange, &own, taken, 1);
                }
            }
        }
    }
    balances
}
