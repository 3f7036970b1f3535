//! Whether what came back, what was paid back, what was put back on the shelf and what was credited
//! agree (DOMAIN.md §5, `return-refund-recon`).
//!
//! Everything is derived from the set of facts, so a fact that comes late closes what its absence had
//! opened. A return is judged once the horizon after its acceptance is over, a refund likewise; each
//! return has at most one open case, the first of this order: DUPLICATE_REFUND, REFUND_WITHOUT_RETURN,
//! RETURN_WITHOUT_REFUND, NOT_RESTOCKED, CREDIT_NOTE_MISSING, TAX_MISMATCH.

use super::facts::{
    AllocationKind, Disposition, Invoice, InvoiceKind, OrderTerms, RefundFact, Restock, ReturnFact,
};
use super::{HORIZON, RETENTION};
use crate::domain::cases::{CaseChange, Cases, Finding, Severity};
use crate::domain::encoding::kept;
use crate::domain::money::{Currency, Money, Rounding};
use crate::domain::{Decimal, Latest, Taken, Timestamp};
use compact_str::CompactString as Text;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// Least time between hearing of a return or refund and judging it: in a replay of old facts the
/// others are on their way.
const GRACE: Duration = Duration::from_secs(15 * 60);
/// The key of the one thing of its kind.
const ONLY: &str = "";

/// The returns of one order and what should answer to them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reconciliation {
    // First, so that it is read without the rest.
    due: Option<Timestamp>,
    heard_at: Timestamp,
    terms: Latest<OrderTerms>,
    returns: Latest<ReturnFact>,
    refunds: Latest<RefundFact>,
    notes: Latest<Invoice>,
    restocks: Latest<Restock>,
    /// From when each return (`return:…`) and refund (`refund:…`) is judged.
    judged_from: BTreeMap<Text, Timestamp>,
    cases: Cases,
}
kept!(Reconciliation {
    due,
    heard_at,
    terms,
    returns,
    refunds,
    notes,
    restocks,
    judged_from: told,
    cases
});

/// Sums of the refunds of a return.
#[derive(Default)]
struct Refunded {
    ids: Vec<Text>,
    /// For goods, before a fee was kept back.
    goods: Decimal,
    tax: Decimal,
    fee: Decimal,
    fee_tax: Decimal,
    /// Whether every refund says how much of it is tax.
    itemised: bool,
}

/// What a return should give back.
struct Expected {
    gross: Decimal,
    tax: Decimal,
    tolerance: Decimal,
    currency: Currency,
}

impl Reconciliation {
    /// What was agreed for the order.
    pub fn agreed(&mut self, version: i64, id: u128, terms: OrderTerms) -> Taken {
        self.terms.take(ONLY, version, id, terms)
    }
    /// A return, told at `now`; `at` is when it came to be so.
    pub fn returned(
        &mut self,
        key: &str,
        version: i64,
        id: u128,
        fact: ReturnFact,
        (at, now): (Timestamp, Timestamp),
    ) -> Taken {
        if fact.accepted_in_all().is_positive() {
            self.watch("return", key, at, now);
        }
        self.returns.take(key, version, id, fact)
    }
    /// A refund, told at `now`; `at` is when it came to be so.
    pub fn refunded(
        &mut self,
        key: &str,
        version: i64,
        id: u128,
        fact: RefundFact,
        (at, now): (Timestamp, Timestamp),
    ) -> Taken {
        if fact.status.is_granted() {
            self.watch("refund", key, at, now);
        }
        self.refunds.take(key, version, id, fact)
    }
    /// A credit note.
    pub fn credited(&mut self, key: &str, version: i64, id: u128, note: Invoice) -> Taken {
        self.notes.take(key, version, id, note)
    }
    /// Goods of a return that were put on the shelf; less than zero: taken off it again.
    pub fn restocked(&mut self, key: &str, id: u128, restock: Restock) -> Taken {
        self.restocks.take(key, 0, id, restock)
    }

    fn watch(&mut self, kind: &str, key: &str, at: Timestamp, now: Timestamp) {
        let from = at.plus(HORIZON).max(now.plus(GRACE));
        self.judged_from.entry(named(kind, key)).or_insert(from);
    }

    /// What became of the order's cases. Sets the next timer. `None` when the order is over for good
    /// and may be forgotten.
    pub fn settle(&mut self, now: Timestamp) -> Option<Vec<CaseChange>> {
        let forgotten_at = self.heard_at.plus(RETENTION);
        if forgotten_at <= now {
            return None;
        }
        let findings = self.findings(now);
        let cases = self.cases.follow(findings, now);
        let judging = self.judged_from.values().filter(|from| **from > now);
        self.due = judging.copied().chain([forgotten_at]).min();
        Some(cases)
    }

    fn is_judged(&self, cause: &str, now: Timestamp) -> bool {
        self.judged_from.get(cause).is_some_and(|from| *from <= now)
    }

    fn findings(&self, now: Timestamp) -> Vec<Finding> {
        let (of_returns, without) = self.attribute();
        let mut findings = Vec::new();
        for (id, fact) in self.accepted() {
            let cause = named("return", id);
            if self.is_judged(&cause, now) {
                let refunded = of_returns.get(id);
                findings.extend(self.judge(id, fact, refunded, &cause));
            }
        }
        for id in without {
            let cause = named("refund", id);
            let Some(refund) = self.refunds.get(id).filter(|_| self.is_judged(&cause, now)) else {
                continue;
            };
            let again = self.accepted().any(|(_, fact)| {
                let mut lines = refund.allocations.iter().filter_map(|a| a.line.as_ref());
                lines.any(|line| fact.accepted(line).is_positive())
            });
            let code = match again {
                true => "DUPLICATE_REFUND",
                false => "REFUND_WITHOUT_RETURN",
            };
            let actual = format!("{} was refunded for goods", refund.money);
            let expected = match again {
                true => "one refund for goods that came back",
                false => "an accepted return for what was refunded",
            };
            let mut finding = finding(code, cause, expected.into(), actual);
            finding.at_risk = Some(refund.money);
            finding.delta = Some(refund.money.amount());
            findings.push(finding);
        }
        findings
    }

    /// Returns of which something was accepted.
    fn accepted(&self) -> impl Iterator<Item = (&Text, &ReturnFact)> {
        let all = self.returns.iter();
        all.filter(|(_, fact)| fact.accepted_in_all().is_positive())
    }

    /// Which return each refund for goods answers to, and the refunds that answer to none. A refund
    /// that names no return answers to the first that has its lines (or, when it names no lines, its
    /// amount) and lacks a refund still.
    fn attribute(&self) -> (BTreeMap<&Text, Refunded>, Vec<&Text>) {
        let mut of_returns: BTreeMap<&Text, Refunded> = BTreeMap::new();
        let mut without = Vec::new();
        let mut unnamed = Vec::new();
        let granted = self.refunds.iter().filter(|(_, r)| r.status.is_granted());
        for (id, refund) in granted.filter(|(_, r)| r.is_for_returned_goods()) {
            let named = refund.return_id.as_ref();
            match named.and_then(|r| self.accepted().find(|(known, _)| *known == r)) {
                Some((known, _)) => of_returns.entry(known).or_default().add(id, refund),
                None if named.is_some() => without.push(id),
                None => unnamed.push((id, refund)),
            }
        }
        for (id, refund) in unnamed {
            let fits = self.accepted().find(|(known, fact)| {
                let Some(expected) = self.expected(fact) else {
                    return false;
                };
                let before = of_returns.get(known).map_or(Decimal::ZERO, |r| r.goods);
                let lacking = expected.gross - before;
                let lines = || refund.allocations.iter().filter_map(|a| a.line.as_ref());
                match refund.allocations.is_empty() {
                    true => {
                        (refund.money.amount() - lacking).units().abs()
                            <= expected.tolerance.units()
                    }
                    false => {
                        lacking > expected.tolerance
                            && lines().any(|line| fact.accepted(line).is_positive())
                    }
                }
            });
            match fits {
                Some((known, _)) => of_returns.entry(known).or_default().add(id, refund),
                None => without.push(id),
            }
        }
        (of_returns, without)
    }

    /// What the customer paid for what was accepted; `None` while the order's lines are not known.
    fn expected(&self, fact: &ReturnFact) -> Option<Expected> {
        let terms = self.terms.get(ONLY)?;
        let (mut gross, mut tax, mut lines) = (Decimal::ZERO, Decimal::ZERO, 0);
        let mut currency = None;
        for line in fact.lines.iter().filter(|l| l.accepted.is_positive()) {
            let sold = terms.lines.iter().find(|known| known.line == line.line)?;
            let share = |money: Money| {
                let part = line.accepted.min(sold.quantity);
                money.share(part, sold.quantity, Rounding::HalfUp).ok()
            };
            gross += share(sold.total)?.amount();
            tax += share(sold.tax)?.amount();
            currency = Some(sold.total.currency());
            lines += 1;
        }
        let currency = currency?;
        let minor = currency.minor_unit().units();
        Some(Expected {
            gross,
            tax,
            tolerance: Decimal::from_units(minor.saturating_mul(lines)),
            currency,
        })
    }

    fn judge(
        &self,
        id: &Text,
        fact: &ReturnFact,
        refunded: Option<&Refunded>,
        cause: &Text,
    ) -> Option<Finding> {
        let Some(expected) = self.expected(fact) else {
            return Some(finding(
                "ORPHAN",
                cause.clone(),
                "the order that the goods were sold by".into(),
                "a return of an order, or of a line, that nobody has told of".into(),
            ));
        };
        let none = Refunded::default();
        let refunded = refunded.unwrap_or(&none);
        let (currency, tolerance) = (expected.currency, expected.tolerance);
        let money = |amount: Decimal| format!("{amount} {currency}");
        let differing = |code, what: &str, should: Decimal, is: Decimal| {
            let mut found = finding(
                code,
                cause.clone(),
                format!("{what} {}", money(should)),
                format!("{what} {}", money(is)),
            );
            found.delta = Some(is - should);
            let at_risk = Decimal::from_units((is - should).units().abs());
            found.at_risk = Money::new(at_risk, currency).ok();
            Some(found)
        };
        if refunded.goods - expected.gross > tolerance {
            let code = match refunded.ids.len() {
                1 => "REFUND_WITHOUT_RETURN",
                _ => "DUPLICATE_REFUND",
            };
            return differing(code, "refunded", expected.gross, refunded.goods);
        }
        if expected.gross - refunded.goods > tolerance {
            let code = "RETURN_WITHOUT_REFUND";
            return differing(code, "refunded", expected.gross, refunded.goods);
        }
        let (should, is) = self.shelved(id, fact);
        if is < should {
            let mut found = finding(
                "NOT_RESTOCKED",
                cause.clone(),
                format!("{should} units put back"),
                format!("{is} units put back"),
            );
            found.delta = Some(is - should);
            return Some(found);
        }
        let (credited, credited_tax) = self.credited_for(id, refunded, currency);
        if expected.gross + refunded.fee - credited > tolerance {
            let should = expected.gross + refunded.fee;
            return differing("CREDIT_NOTE_MISSING", "credited", should, credited);
        }
        let apart = |one: Decimal, other: Decimal| (one - other).units().abs() > tolerance.units();
        if refunded.itemised && apart(refunded.tax, expected.tax) {
            return differing("TAX_MISMATCH", "tax refunded", expected.tax, refunded.tax);
        }
        // A credit note may be of what was paid back, or of everything beside an invoice of the fee.
        let after_fee = expected.tax + refunded.fee_tax;
        if apart(credited_tax, expected.tax) && apart(credited_tax, after_fee) {
            return differing("TAX_MISMATCH", "tax credited", after_fee, credited_tax);
        }
        None
    }

    /// Units that should be on the shelf again, and that are.
    fn shelved(&self, id: &Text, fact: &ReturnFact) -> (Decimal, Decimal) {
        let kept = fact.lines.iter();
        let should = kept
            .filter(|l| l.disposition == Disposition::Restock)
            .map(|l| l.accepted.or_zero())
            .sum();
        let of_this = |restock: &&Restock| match (&restock.return_id, &restock.line) {
            (Some(named), _) => named == id,
            (None, Some(line)) => {
                let mut with_line = self
                    .accepted()
                    .filter(|(_, f)| f.accepted(line).is_positive());
                with_line.next().is_some_and(|(first, _)| first == id)
            }
            (None, None) => self.accepted().count() == 1,
        };
        let moved = self.restocks.facts().filter(of_this);
        (should, moved.map(|r| r.quantity).sum())
    }

    /// Gross and tax of the credit notes for a return.
    fn credited_for(
        &self,
        id: &Text,
        refunded: &Refunded,
        currency: Currency,
    ) -> (Decimal, Decimal) {
        let alone = self.accepted().count() == 1;
        let of_this = |note: &&Invoice| {
            let refund = note.refund.map(|id| Uuid::from_u128(id).to_string());
            match (&note.return_id, refund) {
                (Some(named), _) => named == id,
                (None, Some(refund)) => refunded.ids.iter().any(|known| *known == refund),
                (None, None) => alone,
            }
        };
        let live = |note: &&Invoice| {
            note.live && note.kind == InvoiceKind::CreditNote && note.net.currency() == currency
        };
        let (mut gross, mut tax) = (Decimal::ZERO, Decimal::ZERO);
        for note in self.notes.facts().filter(live).filter(of_this) {
            gross += note.net.amount() + note.tax.amount();
            tax += note.tax.amount();
        }
        (gross, tax)
    }
}

impl RefundFact {
    /// Whether any of it is for goods that came back, as far as is known.
    fn is_for_returned_goods(&self) -> bool {
        self.allocations.is_empty()
            || self
                .allocations
                .iter()
                .any(|a| a.kind == AllocationKind::Item)
    }
}

impl Refunded {
    fn add(&mut self, id: &Text, refund: &RefundFact) {
        self.itemised = !refund.allocations.is_empty() && (self.itemised || self.ids.is_empty());
        self.ids.push(id.clone());
        if refund.allocations.is_empty() {
            self.goods += refund.money.amount();
        }
        for allocation in &refund.allocations {
            match allocation.kind {
                AllocationKind::Item | AllocationKind::TaxAdjustment => {
                    self.goods += allocation.gross();
                    self.tax += allocation.tax;
                }
                AllocationKind::Fee => {
                    self.fee += allocation.gross();
                    self.fee_tax += allocation.tax;
                }
                _ => {}
            }
        }
    }
}

fn named(kind: &str, key: &str) -> Text {
    compact_str::format_compact!("{kind}:{key}")
}

fn finding(code: &'static str, cause: Text, expected: String, actual: String) -> Finding {
    Finding {
        code,
        cause,
        severity: match code {
            "DUPLICATE_REFUND" => Severity::Critical,
            "NOT_RESTOCKED" | "CREDIT_NOTE_MISSING" | "TAX_MISMATCH" => Severity::Medium,
            _ => Severity::High,
        },
        patience: Duration::ZERO,
        expected,
        actual,
        delta: None,
        at_risk: None,
        actions: match code {
            "RETURN_WITHOUT_REFUND" => &["approve the refund"],
            "REFUND_WITHOUT_RETURN" | "DUPLICATE_REFUND" => &["check what was paid", "claw back"],
            "NOT_RESTOCKED" => &["look for the goods", "restock"],
            "CREDIT_NOTE_MISSING" => &["credit note"],
            "TAX_MISMATCH" => &["compare the tax line by line"],
            _ => &["import the order"],
        },
    }
}
