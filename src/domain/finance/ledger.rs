//! The books of one order: double entry, one currency at a time (DOMAIN.md §5 and §0).
//!
//! What each fact should have in the books is a function of the set of facts ([`Books::targets`]);
//! what is posted is the difference to what was posted for it before. So a corrected invoice posts its
//! correction, a fact that comes twice posts nothing, and the balances are the same whatever came
//! first. Amounts here are signed: a debit is more than zero, a credit less.

use super::facts::{AllocationKind, Invoice, InvoiceKind, Payment, PaymentKind, RefundFact};
use super::postings::{
    Account, Balances, Journal, Posted, Posting, Targets, named, post, transfer,
};
use super::{RETENTION, RefundStatus};
use crate::domain::cases::{CaseChange, Cases, Finding, Severity};
use crate::domain::encoding::kept;
use crate::domain::money::{Currency, Money};
use crate::domain::{Decimal, Latest, Taken, Timestamp};
use compact_str::CompactString as Text;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long after an order's closing its books are judged: facts of the last minutes may be late.
const CLOSING_GRACE: Duration = Duration::from_secs(15 * 60);

/// The books of one order, with the facts they follow from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Books {
    // First, so that it is read without the rest.
    due: Option<Timestamp>,
    heard_at: Timestamp,
    closed: Option<(i64, bool)>,
    judged_from: Option<Timestamp>,
    payments: Latest<Payment>,
    invoices: Latest<Invoice>,
    refunds: Latest<RefundFact>,
    posted: Journal,
    cases: Cases,
}
kept!(Books {
    due,
    heard_at,
    closed,
    judged_from: told,
    payments,
    invoices,
    refunds,
    posted,
    cases
});

impl Books {
    /// A movement of the customer's money; `key` names it whatever system tells of it.
    pub fn payment(&mut self, key: &str, version: i64, id: u128, payment: Payment) -> Taken {
        self.payments.take(key, version, id, payment)
    }
    /// A document of the ERP.
    pub fn invoice(&mut self, key: &str, version: i64, id: u128, invoice: Invoice) -> Taken {
        self.invoices.take(key, version, id, invoice)
    }
    /// A refund.
    pub fn refund(&mut self, key: &str, version: i64, id: u128, refund: RefundFact) -> Taken {
        self.refunds.take(key, version, id, refund)
    }
    /// Whether the order is closed, as of a version of its state.
    pub fn order(&mut self, version: i64, closed: bool) -> Taken {
        match self.closed {
            Some((known, _)) if known == version => Taken::Duplicate,
            Some((known, _)) if known > version => Taken::Superseded,
            _ => {
                self.closed = Some((version, closed));
                Taken::Applied
            }
        }
    }

    /// What has to be posted now, in order of causes, and what became of the order's cases. Sets the
    /// next timer. Returns `None` in place of the cases when the order is over for good and may be
    /// forgotten.
    pub fn settle(&mut self, now: Timestamp) -> (Vec<Posting>, Option<Vec<CaseChange>>) {
        let forgotten_at = self.heard_at.plus(RETENTION);
        if forgotten_at <= now {
            return (Vec::new(), None);
        }
        let targets = self.targets();
        let postings = post(&mut self.posted, targets);
        match self.closed {
            Some((_, true)) => {
                self.judged_from = self.judged_from.or(Some(now.plus(CLOSING_GRACE)))
            }
            _ => self.judged_from = None,
        }
        let judged = self.judged_from.is_some_and(|from| from <= now);
        let findings = if judged { self.residuals() } else { Vec::new() };
        let cases = self.cases.follow(findings, now);
        let judging = self.judged_from.filter(|from| *from > now);
        self.due = Some(judging.map_or(forgotten_at, |at| at.min(forgotten_at)));
        (postings, Some(cases))
    }

    /// What each fact should have in the books, by its name and the reason of its postings.
    fn targets(&self) -> Targets {
        let mut targets = Targets::new();
        for (key, payment) in self.payments.iter() {
            let reason = match payment.kind {
                PaymentKind::Captured => "CAPTURED",
                PaymentKind::Chargeback => "CHARGEBACK",
                PaymentKind::ChargebackReversed => "CHARGEBACK_REVERSED",
            };
            targets.insert((named("payment", key), reason), of_payment(payment));
        }
        for (key, invoice) in self.invoices.iter() {
            let reason = match invoice.kind {
                InvoiceKind::Invoice => "INVOICE",
                InvoiceKind::CreditNote => "CREDIT_NOTE",
                InvoiceKind::DebitNote => "DEBIT_NOTE",
            };
            targets.insert((named("invoice", key), reason), of_invoice(invoice));
        }
        for (key, refund) in self.refunds.iter() {
            let owed = self.owed_by(key, refund);
            targets.insert((named("owed", key), "REFUND_APPROVED"), owed);
            targets.insert((named("refund", key), "REFUND_COMPLETED"), paid_by(refund));
        }
        targets
    }

    /// What a refund makes us owe by itself: goodwill, and what was cancelled before an invoice. For
    /// everything else, and for cancellations that have one, the credit note does.
    fn owed_by(&self, key: &str, refund: &RefundFact) -> Balances {
        let mut owed = Balances::new();
        if !refund.status.is_granted() && refund.status != RefundStatus::Reversed {
            return owed;
        }
        let id = uuid::Uuid::parse_str(key).ok().map(|id| id.as_u128());
        let credited = self.invoices.facts().any(|invoice| {
            invoice.live
                && invoice.kind == InvoiceKind::CreditNote
                && invoice.refund.is_some()
                && invoice.refund == id
        });
        let currency = refund.money.currency();
        for allocation in &refund.allocations {
            let from = match allocation.kind {
                AllocationKind::Appeasement if !credited => Account::Appeasements,
                AllocationKind::Cancellation if !credited => Account::CustomerDeposits,
                _ => continue,
            };
            transfer(
                &mut owed,
                currency,
                from,
                Account::RefundLiability,
                allocation.gross(),
            );
        }
        owed
    }

    /// The balance of every account and currency of this order.
    pub fn balances(&self) -> BTreeMap<(Account, Currency), Decimal> {
        let mut sums: BTreeMap<(Account, Currency), Decimal> = BTreeMap::new();
        for (account, _, money) in self.posted.values().flat_map(Posted::balances) {
            *sums.entry((account, money.currency())).or_default() += money.amount();
        }
        sums.retain(|_, amount| !amount.is_zero());
        sums
    }

    /// What a closed order must not have left, with its cause.
    fn residuals(&self) -> Vec<Finding> {
        let must_be_zero = [Account::CustomerDeposits, Account::RefundLiability];
        let left = self.balances().into_iter();
        left.filter(|((account, _), _)| must_be_zero.contains(account))
            .map(|((account, currency), amount)| Finding {
                code: "LEDGER_RESIDUAL",
                cause: format!("{}|{currency}", account.name()).into(),
                severity: Severity::High,
                patience: Duration::ZERO,
                expected: format!("{} 0 {currency} once the order is closed", account.name()),
                actual: format!(
                    "{} {amount} {currency}: {}",
                    account.name(),
                    self.why(account, currency, amount)
                ),
                delta: Some(amount),
                at_risk: Money::new(Decimal::from_units(amount.units().abs()), currency).ok(),
                actions: match account {
                    Account::CustomerDeposits => &["invoice", "refund", "match the capture"],
                    _ => &["refund", "credit note", "match the refund"],
                },
            })
            .collect()
    }

    /// Which facts lack their counterpart.
    fn why(&self, account: Account, currency: Currency, amount: Decimal) -> String {
        let sum = |reasons: &[&str]| -> Decimal {
            let of = |(cause, reason): &(Text, &str)| {
                reasons.contains(reason).then(|| self.posted.get(cause))
            };
            self.targets()
                .keys()
                .filter_map(of)
                .flatten()
                .flat_map(Posted::balances)
                .filter(|(a, _, money)| *a == account && money.currency() == currency)
                .map(|(_, _, money)| money.amount())
                .sum()
        };
        match account {
            Account::CustomerDeposits => {
                let cause = match amount.is_negative() {
                    true => "captured, but neither invoiced nor cancelled",
                    false => "invoiced or cancelled, but not captured",
                };
                format!(
                    "{cause} (captured {}, invoiced {}, cancelled {})",
                    -sum(&["CAPTURED"]),
                    sum(&["INVOICE"]),
                    sum(&["REFUND_APPROVED"])
                )
            }
            _ => {
                let cause = match amount.is_negative() {
                    true => "owed to the customer, but not refunded",
                    false => "refunded without a credit note, cancellation or appeasement",
                };
                format!(
                    "{cause} (credited {}, approved {}, refunded {})",
                    -sum(&["CREDIT_NOTE"]),
                    -sum(&["REFUND_APPROVED"]),
                    sum(&["REFUND_COMPLETED"])
                )
            }
        }
    }
}

fn of_payment(payment: &Payment) -> Balances {
    let (debit, credit) = match payment.kind {
        PaymentKind::Captured => (Account::PspClearing, Account::CustomerDeposits),
        PaymentKind::Chargeback => (Account::Disputes, Account::PspClearing),
        PaymentKind::ChargebackReversed => (Account::PspClearing, Account::Disputes),
    };
    let mut balances = Balances::new();
    let (currency, amount) = (payment.money.currency(), payment.money.amount());
    transfer(&mut balances, currency, debit, credit, amount);
    balances
}

fn of_invoice(invoice: &Invoice) -> Balances {
    let mut balances = Balances::new();
    if !invoice.live {
        return balances;
    }
    let currency = invoice.net.currency();
    let (net, tax) = (invoice.net.amount(), invoice.tax.amount());
    let mut move_both = |from: Account, net_to: Account| {
        transfer(&mut balances, currency, from, net_to, net);
        transfer(&mut balances, currency, from, Account::TaxPayable, tax);
    };
    match invoice.kind {
        InvoiceKind::Invoice => move_both(Account::CustomerDeposits, Account::Revenue),
        InvoiceKind::DebitNote => move_both(Account::Receivables, Account::Revenue),
        InvoiceKind::CreditNote => {
            let owed = Account::RefundLiability;
            transfer(&mut balances, currency, Account::Returns, owed, net);
            transfer(&mut balances, currency, Account::TaxPayable, owed, tax);
        }
    }
    balances
}

/// A refund that was paid, unless the money has come back.
fn paid_by(refund: &RefundFact) -> Balances {
    let mut balances = Balances::new();
    if refund.status == RefundStatus::Completed {
        let (currency, amount) = (refund.money.currency(), refund.money.amount());
        let (debit, credit) = (Account::RefundLiability, Account::PspClearing);
        transfer(&mut balances, currency, debit, credit, amount);
    }
    balances
}
