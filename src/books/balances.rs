//! What postings leave in the accounts.

use super::{Subject, account_name};
use crate::contract::event::{LedgerAccount, LedgerEntry, LedgerPosting, LedgerSide};
use crate::domain::Decimal;
use serde::Serialize;
use std::collections::BTreeMap;

/// What an account has seen in one currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Its name.
    pub account: &'static str,
    /// ISO-4217 code.
    pub currency: String,
    /// Sum of what it was debited with.
    pub debit: Decimal,
    /// Sum of what it was credited with.
    pub credit: Decimal,
    /// Debit less credit.
    pub balance: Decimal,
}

/// What is left in an account that must come to zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Residual {
    /// Its name.
    pub account: &'static str,
    /// ISO-4217 code.
    pub currency: String,
    /// Debit less credit.
    pub amount: Decimal,
    /// What became of the facts behind it; and the open case, where there is one.
    pub cause: String,
}

/// Sums by account, currency and reason.
#[derive(Clone, Debug, Default)]
pub struct Balances {
    sums: BTreeMap<(LedgerAccount, String, String), (Decimal, Decimal)>,
}

impl Balances {
    /// Takes in those entries of a posting that belong here.
    pub fn add(&mut self, posting: &LedgerPosting, belongs: impl Fn(&LedgerEntry) -> bool) {
        for entry in posting.entries.iter().filter(|e| belongs(e)) {
            let (currency, reason) = (posting.currency.to_string(), posting.reason.to_string());
            let sum = self.sums.entry((entry.account, currency, reason));
            let (debit, credit) = sum.or_default();
            match entry.side {
                LedgerSide::Debit => *debit += entry.amount,
                LedgerSide::Credit => *credit += entry.amount,
                LedgerSide::Unknown => {}
            }
        }
    }

    /// Every account that was touched.
    pub fn all(&self) -> Vec<Account> {
        let mut accounts: BTreeMap<(LedgerAccount, &str), (Decimal, Decimal)> = BTreeMap::new();
        for ((account, currency, _), (debit, credit)) in &self.sums {
            let sum = accounts.entry((*account, currency)).or_default();
            sum.0 += *debit;
            sum.1 += *credit;
        }
        let all = accounts.into_iter();
        all.map(|((account, currency), (debit, credit))| Account {
            account: account_name(account),
            currency: currency.to_owned(),
            debit,
            credit,
            balance: debit - credit,
        })
        .collect()
    }

    /// Accounts that hold something.
    pub fn left(&self) -> Vec<Account> {
        let mut all = self.all();
        all.retain(|a| !a.balance.is_zero());
        all
    }

    /// What is left where nothing may be in the end, with its cause: `cases` says what the open case of
    /// an account and currency has found.
    pub fn residuals(&self, subject: &Subject, cases: &BTreeMap<String, String>) -> Vec<Residual> {
        let must_be_zero: &[LedgerAccount] = match subject {
            Subject::Order(_) => &[
                LedgerAccount::CustomerDeposits,
                LedgerAccount::RefundLiability,
            ],
            Subject::Payout(_) => &[LedgerAccount::PspClearing],
            Subject::All => &[],
        };
        let names: Vec<&str> = must_be_zero.iter().map(|a| account_name(*a)).collect();
        let left = self.left().into_iter();
        left.filter(|a| names.contains(&a.account))
            .map(|a| Residual {
                cause: self.cause(&a, subject, cases),
                account: a.account,
                currency: a.currency,
                amount: a.balance,
            })
            .collect()
    }

    fn cause(&self, a: &Account, subject: &Subject, cases: &BTreeMap<String, String>) -> String {
        let of_account = self.sums.iter().filter(|((account, currency, _), _)| {
            account_name(*account) == a.account && *currency == a.currency
        });
        let parts: Vec<String> = of_account
            .filter(|(_, (debit, credit))| debit != credit)
            .map(|((_, _, reason), (debit, credit))| format!("{reason} {}", *debit - *credit))
            .collect();
        let parts = parts.join(", ");
        // An order's case names the account; those of a payout are all about its one.
        let case = match subject {
            Subject::Order(_) => cases.get(&format!("{}|{}", a.account, a.currency)).cloned(),
            _ if cases.is_empty() => None,
            _ => Some(cases.values().cloned().collect::<Vec<_>>().join("; ")),
        };
        match case {
            Some(case) => format!("{case} ({parts})"),
            None => parts,
        }
    }
}
