//! Whether what a provider settles is what it told of (DOMAIN.md §5, `settlement-recon`).
//!
//! One [`Matching`] holds all that carries one reference of one provider: the movements that it told
//! of as events, and the lines that its settlement files have. They agree when the lines of each kind
//! sum to the movement.

use super::{HORIZON, RETENTION};
use crate::domain::cases::{CaseChange, Cases, Finding, Severity};
use crate::domain::encoding::{kept, stored, stored_enum};
use crate::domain::money::Money;
use crate::domain::{Decimal, Latest, Taken, Timestamp};
use compact_str::CompactString as Text;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a movement may wait to be settled. Providers settle within days; reserves and disputes
/// have kinds of their own.
const SETTLED_WITHIN: Duration = Duration::from_secs(14 * 24 * 3_600);

/// What a line of a settlement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum LineKind {
    Capture,
    Refund,
    RefundReversed,
    Chargeback,
    ChargebackReversed,
    Fee,
    Adjustment,
    Reserve,
}
stored_enum!(LineKind [
    Capture, Refund, RefundReversed, Chargeback, ChargebackReversed, Fee, Adjustment, Reserve
]);

impl LineKind {
    /// The name, as in contracts.
    pub const fn name(self) -> &'static str {
        match self {
            LineKind::Capture => "CAPTURE",
            LineKind::Refund => "REFUND",
            LineKind::RefundReversed => "REFUND_REVERSED",
            LineKind::Chargeback => "CHARGEBACK",
            LineKind::ChargebackReversed => "CHARGEBACK_REVERSED",
            LineKind::Fee => "FEE",
            LineKind::Adjustment => "ADJUSTMENT",
            LineKind::Reserve => "RESERVE",
        }
    }
    /// Whether it settles a movement of a customer's money.
    pub const fn is_of_order(self) -> bool {
        !matches!(
            self,
            LineKind::Fee | LineKind::Adjustment | LineKind::Reserve
        )
    }
}

/// A movement of a customer's money, signed as a settlement has it: what we get is more than zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// What it is.
    pub kind: LineKind,
    /// The order.
    pub order: Text,
    /// How much, signed.
    pub money: Money,
}
stored!(Moved { kind, order, money });

/// A line of a settlement: net = gross − fee, signed by what we get.
#[derive(Clone, Debug, PartialEq)]
pub struct SettledLine {
    /// The payout that it is part of.
    pub payout: Text,
    /// Its name within the payout.
    pub line: Text,
    /// What it is for.
    pub kind: LineKind,
    /// The order, once it is known.
    pub order: Option<Text>,
    /// Before the provider's fee.
    pub gross: Money,
    /// The same in the currency of the payment, where the payout is in another.
    pub original: Option<Money>,
    /// The provider's fee: more than zero when it is charged.
    pub fee: Money,
    /// What it adds to the payout.
    pub net: Money,
    /// Day of value, in days since 1970-01-01.
    pub value_day: i32,
}
stored!(SettledLine {
    payout,
    line,
    kind,
    order,
    gross,
    original,
    fee,
    net,
    value_day
});

/// A line to be told to its payout.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// The line, with its order where that is known.
    pub line: SettledLine,
    /// Counts what was told of the line.
    pub version: i64,
}

/// All that carries one reference of one provider.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matching {
    // First, so that it is read without the rest.
    due: Option<Timestamp>,
    heard_at: Timestamp,
    moved: Latest<Moved>,
    lines: Latest<SettledLine>,
    /// When each kind was first heard of, as a movement (`moved:…`) or a line (`line:…`).
    since: BTreeMap<Text, Timestamp>,
    told: BTreeMap<Text, (i64, SettledLine)>,
    cases: Cases,
}
kept!(Matching {
    due,
    heard_at,
    moved,
    lines,
    since: told,
    told,
    cases
});

impl Matching {
    /// The order, once a movement has told of it.
    pub fn order(&self) -> Option<&Text> {
        self.moved.facts().map(|m| &m.order).next()
    }

    /// A movement that the provider told of, heard at `now`.
    pub fn moved(&mut self, version: i64, id: u128, moved: Moved, now: Timestamp) -> Taken {
        let kind = moved.kind.name();
        let since = compact_str::format_compact!("moved:{kind}");
        self.since.entry(since).or_insert(now);
        self.moved.take(kind, version, id, moved)
    }

    /// A line of a settlement, heard at `now`.
    pub fn line(&mut self, version: i64, id: u128, line: SettledLine, now: Timestamp) -> Taken {
        let since = compact_str::format_compact!("line:{}", line.kind.name());
        self.since.entry(since).or_insert(now);
        let key = crate::domain::compound_key(&[&line.payout, &line.line]);
        self.lines.take(&key, version, id, line)
    }

    /// Lines that their payouts have to be told of, and what became of the cases. Sets the next timer.
    /// `None` in place of the cases when it is over for good and may be forgotten.
    pub fn settle(&mut self, now: Timestamp) -> (Vec<Forward>, Option<Vec<CaseChange>>) {
        let forgotten_at = self.heard_at.plus(RETENTION);
        if forgotten_at <= now {
            return (Vec::new(), None);
        }
        let mut forwards = Vec::new();
        for (key, line) in self.lines.iter() {
            let mut line = line.clone();
            let of_kind = self.moved.get(line.kind.name()).map(|m| m.order.clone());
            line.order = line.order.or(of_kind).or_else(|| self.order().cloned());
            let told = self.told.get(key);
            if told.is_some_and(|(_, known)| *known == line) {
                continue;
            }
            let version = told.map_or(0, |(version, _)| *version) + 1;
            self.told.insert(key.clone(), (version, line.clone()));
            forwards.push(Forward { line, version });
        }
        let findings = self.findings(now);
        let cases = self.cases.follow(findings, now);
        let judged = self.since.iter().map(|(what, since)| {
            since.plus(match what.starts_with("moved:") {
                true => SETTLED_WITHIN,
                false => HORIZON,
            })
        });
        let later = judged.filter(|at| *at > now);
        self.due = later.chain([forgotten_at]).min();
        (forwards, Some(cases))
    }

    fn findings(&self, now: Timestamp) -> Vec<Finding> {
        let over = |what: &str, kind: LineKind, wait| {
            let key = compact_str::format_compact!("{what}:{}", kind.name());
            self.since.get(&key).is_some_and(|at| at.plus(wait) <= now)
        };
        let kinds = LineKind::ALL.iter().filter(|kind| kind.is_of_order());
        let mut findings = Vec::new();
        for kind in kinds.copied() {
            let moved = self.moved.get(kind.name()).map(|m| m.money);
            let lines: Vec<Money> = self
                .lines
                .facts()
                .filter(|l| l.kind == kind)
                .map(|l| l.original.unwrap_or(l.gross))
                .collect();
            let settled = lines
                .split_first()
                .map(|(first, rest)| rest.iter().try_fold(*first, |sum, line| sum.plus(*line)));
            let (code, actions): (_, &'static [&'static str]) = match (moved, &settled) {
                (None, None) => continue,
                (Some(moved), Some(Ok(settled))) if moved == *settled => continue,
                (Some(_), None) if !over("moved", kind, SETTLED_WITHIN) => continue,
                (Some(_), None) => ("PAYMENT_UNSETTLED", &["ask the provider when it settles"]),
                (None, Some(_)) if !over("line", kind, HORIZON) => continue,
                (None, Some(_)) => (
                    "SETTLEMENT_UNMATCHED",
                    &["import the payment", "ask the provider"],
                ),
                // The rest of a movement settled in parts may come; too much never goes away.
                (Some(moved), Some(Ok(settled)))
                    if is_part(*settled, moved) && !over("line", kind, HORIZON) =>
                {
                    continue;
                }
                (Some(_), Some(_)) => ("SETTLEMENT_AMOUNT_MISMATCH", &["open a dispute"]),
            };
            let text =
                |money: Option<Money>| money.map_or_else(|| "nothing".into(), |m| m.to_string());
            let settled = settled.and_then(Result::ok);
            findings.push(Finding {
                code,
                cause: kind.name().into(),
                severity: Severity::High,
                patience: Duration::ZERO,
                expected: format!("settled {}", text(moved)),
                actual: format!("settled {}", text(settled)),
                delta: Some(
                    settled.map_or(Decimal::ZERO, Money::amount)
                        - moved.map_or(Decimal::ZERO, Money::amount),
                ),
                at_risk: moved.or(settled),
                actions,
            });
        }
        findings
    }
}

/// Whether `part` goes the way of `whole`, but not as far.
fn is_part(part: Money, whole: Money) -> bool {
    let (p, w) = (part.amount().units(), whole.amount().units());
    part.currency() == whole.currency() && p.signum() == w.signum() && p.abs() < w.abs()
}
