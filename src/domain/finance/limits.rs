//! What a refund needs, and what about the refunds of an order does not agree.

use super::facts::{PaymentKind, ReturnFact};
use super::gate::Gate;
use super::refund::{ATTEMPTS_MAX, Refund};
use super::{AllocationKind, HORIZON, RefundStatus};
use crate::domain::cases::{Finding, Severity};
use crate::domain::money::{Currency, Money};
use crate::domain::{Decimal, Timestamp};
use compact_str::CompactString as Text;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// How long a provider may leave an attempt unanswered before somebody should ask.
const ANSWER_MAX: Duration = Duration::from_secs(24 * 3_600);

/// What is decided about a refund.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is granted, out of this payment.
    Grant(Text),
    /// Something that it needs is not there, and may still come.
    Wait(Waiting),
    /// It breaks a rule that nothing can mend.
    Refuse(Text),
}

/// What a refund waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing was captured in its currency.
    Capture,
    /// Less is left of what was captured than it asks for.
    Funds,
    /// Units have neither been accepted in a return nor cancelled.
    Goods,
    /// Its goods, or its amount, have been refunded by another refund.
    Other,
}

impl Waiting {
    /// The code of the exception that it becomes.
    pub const fn code(self) -> &'static str {
        match self {
            Waiting::Capture | Waiting::Funds => "REFUND_EXCEEDS_CAPTURE",
            Waiting::Goods => "REFUND_WITHOUT_RETURN",
            Waiting::Other => "DUPLICATE_REFUND",
        }
    }
}

impl Gate {
    /// What the facts known now say about a refund that is asked for: amount ≤ captured − refunded −
    /// in flight − chargebacks, of one payment and of the order; units of each line ≤ accepted +
    /// cancelled; appeasement needs a reason.
    pub fn verdict(&self, id: u128, refund: &Refund) -> Verdict {
        let goodwill = |kind| kind == AllocationKind::Appeasement;
        if refund.allocations.iter().any(|a| goodwill(a.kind))
            && refund.reason.as_deref().is_none_or(|r| r.trim().is_empty())
        {
            return Verdict::Refuse("APPEASEMENT_WITHOUT_REASON".into());
        }
        if let Some(waiting) = self.goods_missing(id, refund) {
            return Verdict::Wait(waiting);
        }
        if self.captured(refund.money.currency()).is_zero() {
            return Verdict::Wait(Waiting::Capture);
        }
        match self.covering(id, refund) {
            Some(payment) => Verdict::Grant(payment),
            None => Verdict::Wait(Waiting::Funds),
        }
    }

    /// Whether a failed attempt may be followed by another.
    pub(super) fn may_try_again(&self, id: u128, refund: &Refund) -> bool {
        let paid_already = self.refunds.values().any(|r| r.twin == Some(id));
        refund.attempt < ATTEMPTS_MAX && !paid_already && self.covering(id, refund).is_some()
    }

    /// What the lines of the refund lack.
    fn goods_missing(&self, id: u128, refund: &Refund) -> Option<Waiting> {
        for (line, quantity) in refund.lines() {
            let allowed = self.allowed(&line);
            let used = self.granted_of_line(&line, Some(id));
            if quantity > allowed - used {
                return Some(match quantity <= allowed {
                    true => Waiting::Other,
                    false => Waiting::Goods,
                });
            }
        }
        // Somebody has paid this very amount, and did not say what for.
        let paid = |r: &Refund| r.is_unexplained() && r.status.is_granted();
        let mut others = self.refunds.iter().filter(|(other, _)| **other != id);
        others
            .any(|(_, r)| paid(r) && r.money == refund.money)
            .then_some(Waiting::Other)
    }

    /// Units of a line that may be refunded: accepted in returns, or cancelled.
    fn allowed(&self, line: &str) -> Decimal {
        let accepted = |r: &ReturnFact| r.accepted(line);
        let returned: Decimal = self.returns.facts().map(accepted).sum();
        returned + self.cancelled.get(line).copied().unwrap_or_default()
    }

    /// Units of a line that refunds other than `but` give money for.
    fn granted_of_line(&self, line: &str, but: Option<u128>) -> Decimal {
        let granted = self.refunds.iter();
        granted
            .filter(|(id, r)| Some(**id) != but && r.status.is_granted())
            .filter_map(|(_, r)| r.lines().get(line).copied())
            .sum()
    }

    fn captured(&self, currency: Currency) -> Decimal {
        let captures = self.payments.facts();
        captures
            .filter(|p| p.kind == PaymentKind::Captured && p.money.currency() == currency)
            .map(|p| p.money.amount())
            .sum()
    }

    /// Captured less what customers' banks took back, of one payment or of all.
    fn received(&self, currency: Currency, payment: Option<&str>) -> Decimal {
        let of = self
            .payments
            .facts()
            .filter(|p| p.money.currency() == currency && payment.is_none_or(|id| p.payment == id));
        of.map(|p| match p.kind {
            PaymentKind::Captured | PaymentKind::ChargebackReversed => p.money.amount(),
            PaymentKind::Chargeback => -p.money.amount(),
        })
        .sum()
    }

    /// Refunded or on its way, of one payment or of all, by refunds other than `but`.
    fn granted(&self, currency: Currency, payment: Option<&str>, but: Option<u128>) -> Decimal {
        let refunds = self.refunds.iter();
        refunds
            .filter(|(id, r)| {
                Some(**id) != but
                    && r.status.is_granted()
                    && r.money.currency() == currency
                    && payment.is_none_or(|id| r.payment.as_deref() == Some(id))
            })
            .map(|(_, r)| r.money.amount())
            .sum()
    }

    /// A payment that has enough left, the one asked for or else the first by id; none when the
    /// order as a whole has not.
    fn covering(&self, id: u128, refund: &Refund) -> Option<Text> {
        let (currency, amount) = (refund.money.currency(), refund.money.amount());
        let left = |payment: Option<&str>| {
            self.received(currency, payment) - self.granted(currency, payment, Some(id))
        };
        if left(None) < amount {
            return None;
        }
        let known: BTreeSet<&Text> = self.payments.facts().map(|p| &p.payment).collect();
        let mut candidates = known
            .into_iter()
            .filter(|p| refund.payment.as_ref().is_none_or(|asked| asked == *p));
        candidates.find(|p| left(Some(p)) >= amount).cloned()
    }

    /// All that does not agree now.
    pub(super) fn findings(&self, now: Timestamp) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (id, refund) in &self.refunds {
            findings.extend(self.of_refund(*id, refund, now));
        }
        self.beyond_capture(now, &mut findings);
        self.beyond_returns(&mut findings);
        findings
    }

    fn of_refund(&self, id: u128, refund: &Refund, now: Timestamp) -> Option<Finding> {
        let money = refund.money;
        let (code, severity, actual, actions): (_, _, _, &'static [&'static str]) =
            match refund.status {
                RefundStatus::Requested => match self.verdict(id, refund) {
                    Verdict::Wait(waiting @ (Waiting::Funds | Waiting::Other)) => (
                        waiting.code(),
                        Severity::High,
                        format!("{money} is asked for; {}", self.lacks(id, refund, waiting)),
                        &["block", "check what was paid"],
                    ),
                    _ => return None,
                },
                RefundStatus::Rejected => (
                    known_code(refund.reason.as_deref()),
                    Severity::High,
                    format!("{money} was asked for and refused"),
                    &["ask again once the fact is there", "tell the customer"],
                ),
                RefundStatus::Failed if refund.until.is_none_or(|until| until <= now) => (
                    "REFUND_FAILED",
                    Severity::High,
                    format!(
                        "{money} failed in attempt {} and is not tried again",
                        refund.attempt
                    ),
                    &["pay in another way", "ask the provider"],
                ),
                RefundStatus::Submitted | RefundStatus::OutcomeUnknown
                    if refund.since.plus(ANSWER_MAX) <= now =>
                {
                    (
                        "REFUND_OUTCOME_UNKNOWN",
                        Severity::High,
                        format!("attempt {} of {money} has no answer", refund.attempt),
                        &["look it up at the provider by its key"],
                    )
                }
                RefundStatus::Reversed => (
                    "REFUND_REVERSED",
                    Severity::High,
                    format!("{money} was paid and came back"),
                    &["pay in another way"],
                ),
                RefundStatus::Completed if refund.twin.is_some() => (
                    "DUPLICATE_REFUND",
                    Severity::Critical,
                    format!("{money} was paid a second time for one refund"),
                    &["claw back", "ask the provider"],
                ),
                _ => return None,
            };
        Some(Finding {
            code,
            cause: compact_str::format_compact!("refund:{}", Uuid::from_u128(id)),
            severity,
            patience: Duration::ZERO,
            expected: "each refund granted within what was captured, and paid once".into(),
            actual,
            delta: Some(money.amount()),
            at_risk: Some(money),
            actions,
        })
    }

    fn lacks(&self, id: u128, refund: &Refund, waiting: Waiting) -> String {
        let currency = refund.money.currency();
        match waiting {
            Waiting::Other => "its goods or its amount were refunded already".into(),
            _ => format!(
                "captured less chargebacks is {} {currency}, refunded or in flight {} {currency}",
                self.received(currency, None),
                self.granted(currency, None, Some(id))
            ),
        }
    }

    /// Facts can go beyond what was captured: refunds that others made, chargebacks after refunds.
    fn beyond_capture(&self, now: Timestamp, findings: &mut Vec<Finding>) {
        let refunds = self.refunds.values().filter(|r| r.status.is_granted());
        let mut oldest: BTreeMap<Currency, Timestamp> = BTreeMap::new();
        for refund in refunds {
            let at = oldest
                .entry(refund.money.currency())
                .or_insert(refund.asked_at);
            *at = refund.asked_at.min(*at);
        }
        for (currency, asked_at) in oldest {
            let (received, granted) = (
                self.received(currency, None),
                self.granted(currency, None, None),
            );
            // A capture that is not known at all may be late.
            let late = self.captured(currency).is_zero() && now < asked_at.plus(HORIZON);
            if granted <= received || late {
                continue;
            }
            let disputed = received < self.captured(currency);
            let code = match disputed {
                true => "CHARGEBACK_AFTER_REFUND",
                false => "REFUND_EXCEEDS_CAPTURE",
            };
            findings.push(Finding {
                code,
                cause: currency.code().into(),
                severity: Severity::Critical,
                patience: Duration::ZERO,
                expected: format!("refunds of at most {received} {currency}"),
                actual: format!("refunds of {granted} {currency}"),
                delta: Some(granted - received),
                at_risk: Money::new(granted - received, currency).ok(),
                actions: match disputed {
                    true => &["answer the dispute with the refund as evidence"],
                    false => &["block", "claw back"],
                },
            });
        }
    }

    /// Goods or amounts that were refunded more than once.
    fn beyond_returns(&self, findings: &mut Vec<Finding>) {
        let granted = || self.refunds.iter().filter(|(_, r)| r.status.is_granted());
        let mut by_line: BTreeMap<Text, usize> = BTreeMap::new();
        for (line, _) in granted().flat_map(|(_, r)| r.lines()) {
            *by_line.entry(line).or_default() += 1;
        }
        let twice = |cause: Text, actual: String, money: Option<Money>| Finding {
            code: "DUPLICATE_REFUND",
            cause,
            severity: Severity::Critical,
            patience: Duration::ZERO,
            expected: "goods are refunded once".into(),
            actual,
            delta: money.map(Money::amount),
            at_risk: money,
            actions: &["claw back", "check what was paid"],
        };
        for (line, refunds) in by_line {
            let (allowed, used) = (self.allowed(&line), self.granted_of_line(&line, None));
            if refunds > 1 && allowed.is_positive() && used > allowed {
                let cause = compact_str::format_compact!("line:{line}");
                let actual = format!(
                    "{used} units of line {line} in {refunds} refunds, {allowed} came back or were cancelled"
                );
                findings.push(twice(cause, actual, None));
            }
        }
        for (id, refund) in granted().filter(|(_, r)| r.is_unexplained() && r.twin.is_none()) {
            let same = |(other, r): (&u128, &Refund)| {
                other != id && !r.is_unexplained() && r.money == refund.money
            };
            if granted().any(same) {
                let cause = compact_str::format_compact!("refund:{}", Uuid::from_u128(*id));
                let actual = format!(
                    "{} was paid twice, once without saying what for",
                    refund.money
                );
                findings.push(twice(cause, actual, Some(refund.money)));
            }
        }
    }
}

/// The code of a rejection's reason.
fn known_code(reason: Option<&str>) -> &'static str {
    let codes = [
        Waiting::Funds.code(),
        Waiting::Goods.code(),
        Waiting::Other.code(),
    ];
    codes
        .into_iter()
        .find(|code| reason == Some(code))
        .unwrap_or("APPEASEMENT_WITHOUT_REASON")
}

impl Refund {
    /// Units by order line that it gives money for.
    pub fn lines(&self) -> BTreeMap<Text, Decimal> {
        let mut lines: BTreeMap<Text, Decimal> = BTreeMap::new();
        for allocation in self.allocations.iter().filter(|a| a.is_for_goods()) {
            if let Some(line) = &allocation.line {
                *lines.entry(line.clone()).or_default() += allocation.quantity;
            }
        }
        lines
    }

    /// When time alone changes something about it.
    pub(super) fn next_look(&self, now: Timestamp) -> Option<Timestamp> {
        let answer_by = match self.status {
            RefundStatus::Submitted | RefundStatus::OutcomeUnknown => {
                Some(self.since.plus(ANSWER_MAX))
            }
            // A capture that nobody has told of is missed only then.
            RefundStatus::Completed => Some(self.asked_at.plus(HORIZON)),
            _ => None,
        };
        let after_now = |at: &Timestamp| *at > now;
        [self.until.filter(after_now), answer_by.filter(after_now)]
            .into_iter()
            .flatten()
            .min()
    }
}
