//! Postings: what a fact should have in the books less what it has.

use crate::domain::Decimal;
use crate::domain::encoding::{stored, stored_enum};
use crate::domain::money::{Currency, Money};
use compact_str::CompactString as Text;
use std::collections::BTreeMap;

/// An account of the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// Money that providers hold for us.
    PspClearing,
    /// Money of customers for which nothing has been delivered.
    CustomerDeposits,
    /// Sales, without tax.
    Revenue,
    /// Tax owed to the state.
    TaxPayable,
    /// Money owed to customers who returned or cancelled.
    RefundLiability,
    /// Sales taken back, without tax.
    Returns,
    /// Goodwill.
    Appeasements,
    /// Money that customers' banks took back.
    Disputes,
    /// Money that customers owe.
    Receivables,
    /// What providers charge.
    Fees,
    /// What providers hold back for a time.
    PspReserve,
    /// What providers corrected.
    Adjustments,
    /// Our account at the bank.
    Bank,
    /// What was changed from one currency into another: what it holds is worth nothing, but for gains
    /// and losses.
    CurrencyExchange,
}
stored_enum!(Account [
    PspClearing, CustomerDeposits, Revenue, TaxPayable, RefundLiability, Returns, Appeasements,
    Disputes, Receivables, Fees, PspReserve, Adjustments, Bank, CurrencyExchange
]);

impl Account {
    /// The name as finance writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Account::PspClearing => "PSPClearing",
            Account::CustomerDeposits => "CustomerDeposits",
            Account::Revenue => "Revenue",
            Account::TaxPayable => "TaxPayable",
            Account::RefundLiability => "RefundLiability",
            Account::Returns => "Returns",
            Account::Appeasements => "Appeasements",
            Account::Disputes => "Disputes",
            Account::Receivables => "Receivables",
            Account::Fees => "Fees",
            Account::PspReserve => "PSPReserve",
            Account::Adjustments => "Adjustments",
            Account::Bank => "Bank",
            Account::CurrencyExchange => "CurrencyExchange",
        }
    }
}

/// A side of a posting.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The account.
    pub account: Account,
    /// The order in whose books this side is, where that is not the posting's own entity; else empty.
    pub order: Text,
    /// Debit when more than zero, credit when less. Never zero.
    pub amount: Decimal,
}

/// Entries of one currency that sum to zero, and why they were made.
#[derive(Clone, Debug, PartialEq)]
pub struct Posting {
    /// What it follows from, for example `CAPTURED`.
    pub reason: &'static str,
    /// Names the fact within the order or payout.
    pub cause: Text,
    /// How many postings the cause had before.
    pub sequence: u32,
    /// The currency of every entry.
    pub currency: Currency,
    /// The entries, by account.
    pub entries: Vec<Entry>,
}

/// Signed amounts by account, by the order of the side (empty: the books' own entity) and by currency.
pub(super) type Balances = BTreeMap<(Account, Text, Currency), Decimal>;
/// What each fact should have in the books, by its name and the reason of its postings.
pub(super) type Targets = BTreeMap<(Text, &'static str), Balances>;

/// What a cause has in the books.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Posted {
    count: u32,
    balances: Vec<((Account, Text), Money)>,
}
stored!(Posted {
    count: told,
    balances
});

/// What was posted so far, by cause.
pub(super) type Journal = BTreeMap<Text, Posted>;

impl Posted {
    pub(super) fn balances(&self) -> impl Iterator<Item = (Account, &Text, Money)> {
        let all = self.balances.iter();
        all.map(|((account, order), money)| (*account, order, *money))
    }
}

/// Debits `debit` and credits `credit`, both in the books' own entity.
pub(super) fn transfer(
    balances: &mut Balances,
    currency: Currency,
    debit: Account,
    credit: Account,
    amount: Decimal,
) {
    *balances
        .entry((debit, Text::default(), currency))
        .or_default() += amount;
    *balances
        .entry((credit, Text::default(), currency))
        .or_default() -= amount;
}

/// Names a fact among those of other kinds.
pub(super) fn named(kind: &str, key: &str) -> Text {
    compact_str::format_compact!("{kind}:{key}")
}

/// Posts what `targets` have beyond `journal`, in order of causes.
pub(super) fn post(journal: &mut Journal, targets: Targets) -> Vec<Posting> {
    let mut postings = Vec::new();
    for ((cause, reason), target) in targets {
        let known = journal.get(&cause);
        let mut missing = target.clone();
        for (account, order, money) in known.iter().flat_map(|p| p.balances()) {
            let key = (account, order.clone(), money.currency());
            *missing.entry(key).or_default() -= money.amount();
        }
        missing.retain(|_, amount| !amount.is_zero());
        if missing.is_empty() {
            continue;
        }
        let posted = journal.entry(cause.clone()).or_default();
        let mut currencies: Vec<Currency> = missing.keys().map(|(_, _, c)| *c).collect();
        currencies.sort_unstable();
        currencies.dedup();
        for currency in currencies {
            let of_currency = missing.iter().filter(|((_, _, c), _)| *c == currency);
            postings.push(Posting {
                reason,
                cause: cause.clone(),
                sequence: posted.count,
                currency,
                entries: of_currency
                    .map(|((account, order, _), amount)| Entry {
                        account: *account,
                        order: order.clone(),
                        amount: *amount,
                    })
                    .collect(),
            });
            posted.count += 1;
        }
        let whole = target
            .into_iter()
            .filter_map(|((account, order, currency), amount)| {
                // Sums of whole minor units are whole minor units.
                Some(((account, order), Money::new(amount, currency).ok()?))
            });
        posted.balances = whole.collect();
    }
    postings
}
