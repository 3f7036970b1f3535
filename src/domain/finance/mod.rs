//! The money of one order: what was paid, invoiced, returned and refunded, what follows from it in
//! the books, and whether it agrees.
//!
//! What is heard is kept as a *set* of facts ([`Latest`](super::Latest)): of each payment, invoice, return and
//! refund the newest version, so that order and repetition of arrival change nothing. [`Books`]
//! derive postings from the set; [`Gate`] decides refunds, once each, and remembers what it decided;
//! [`Reconciliation`] compares returns with refunds, stock and credit notes. What does not agree is a
//! [`Finding`](super::cases::Finding); [`Cases`](super::cases::Cases) tell which findings are new, changed or gone.

mod facts;
mod gate;
mod ledger;
mod limits;
mod machine;
mod matching;
mod payout;
mod postings;
mod refund;
mod returns;
mod rulings;

pub use facts::{
    Allocation, AllocationKind, Disposition, Invoice, InvoiceKind, OrderLine, OrderTerms, Payment,
    PaymentKind, RefundFact, Restock, ReturnFact, ReturnLine,
};
pub use gate::Gate;
pub use ledger::Books;
pub use limits::{Verdict, Waiting};
pub use machine::{Illegal, RefundMove, RefundStatus, TRANSITIONS};
pub use matching::{Forward, LineKind, Matching, Moved, SettledLine};
pub use payout::{Control, KeptLine, Payout};
pub use postings::{Account, Entry, Posting};
pub use refund::{Answer, AnswerKind, Change, Refund, Request};
pub use returns::Reconciliation;
pub use rulings::{Ruling, Rulings};

use std::time::Duration;

/// How long a fact may be late: what waits for one is given up after this, and what does not agree
/// is judged after it.
pub const HORIZON: Duration = Duration::from_secs(72 * 3_600);
/// How long an order's money is kept after the last fact of it.
pub const RETENTION: Duration = Duration::from_secs(400 * 24 * 3_600);
