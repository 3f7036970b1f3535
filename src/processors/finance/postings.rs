//! From postings to events.

use crate::contract::event::{LedgerAccount, LedgerEntry, LedgerPosting, LedgerSide, Text};
use crate::domain::finance::{Account, Entry, Posting};
use crate::domain::{Decimal, event_id};
use crate::processors::emitter::Emitter;

/// Whose books a posting is in.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Books {
    /// Those of the order that is the emitter's entity.
    Order,
    /// Those of the payout that is.
    Payout,
}

/// The event of a posting.
pub(crate) fn event(books: Books, posting: &Posting, emitter: &Emitter<'_>) -> LedgerPosting {
    let entity = emitter.entity;
    let record_id = format!("{entity}|{}#{}", posting.cause, posting.sequence);
    let sequence = i64::from(posting.sequence);
    let of = |whose| (books == whose).then(|| Text::from(entity));
    LedgerPosting {
        meta: emitter.meta("LedgerPosting", &record_id, sequence),
        posting_id: event_id(emitter.source, 0, &record_id, "posting", "LedgerPosting"),
        order_id: of(Books::Order),
        payout_id: of(Books::Payout),
        reason: posting.reason.into(),
        cause: posting.cause.clone(),
        sequence: posting.sequence as i32,
        currency: posting.currency.code().into(),
        entries: posting.entries.iter().map(entry).collect(),
        booked_at: emitter.at,
    }
}

fn entry(entry: &Entry) -> LedgerEntry {
    LedgerEntry {
        account: match entry.account {
            Account::PspClearing => LedgerAccount::PspClearing,
            Account::CustomerDeposits => LedgerAccount::CustomerDeposits,
            Account::Revenue => LedgerAccount::Revenue,
            Account::TaxPayable => LedgerAccount::TaxPayable,
            Account::RefundLiability => LedgerAccount::RefundLiability,
            Account::Returns => LedgerAccount::Returns,
            Account::Appeasements => LedgerAccount::Appeasements,
            Account::Disputes => LedgerAccount::Disputes,
            Account::Receivables => LedgerAccount::Receivables,
            Account::Fees => LedgerAccount::Fees,
            Account::PspReserve => LedgerAccount::PspReserve,
            Account::Adjustments => LedgerAccount::Adjustments,
            Account::Bank => LedgerAccount::Bank,
            Account::CurrencyExchange => LedgerAccount::CurrencyExchange,
        },
        side: match entry.amount.is_negative() {
            true => LedgerSide::Credit,
            false => LedgerSide::Debit,
        },
        amount: Decimal::from_units(entry.amount.units().abs()),
        order_id: Some(entry.order.clone()).filter(|order| !order.is_empty()),
    }
}
