//! The systems around Crossdock, in process: a storefront with its orders, an ERP, nodes that fulfil
//! and keep stock, a payment provider, customer service.
//!
//! Each acts when whoever drives it says so, tells what it did as the published contracts have it
//! ([`Teller`] is its source), hears what its connector's sink would hear ([`Listener`]) and keeps a
//! ledger of its own: what it was told, and what it did. A ledger shares nothing with what Crossdock
//! says of it; judges compare the two. The ledgers' lines are described in `tests/oracle/LEDGERS.md`.

mod desk;
mod erp;
mod estate;
mod node;
mod psp;
mod service;
mod storefront;

pub(crate) use desk::{Desk, Entry, Listener, System, Teller, Tricks};
pub(crate) use erp::{Erp, Terms};
pub(crate) use estate::{Estate, Plan};
pub(crate) use node::{Node, ReturnedLine};
pub(crate) use psp::Psp;
pub(crate) use service::{Allocation, Service};
pub(crate) use storefront::{CANARY, Issued, Storefront};

use crate::contract::event::{Money, OrderSnapshot, Text};
use crate::domain::money::{Currency, Money as Exact, Rounding};
use crate::domain::{Decimal, order_id};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The provider that all payments go through.
pub(crate) const PSP: &str = "psp";

/// A system that its source, its sink and its driver share.
pub(crate) type Shared<S> = Arc<Mutex<S>>;

pub(crate) fn open<S: ?Sized>(shared: &Mutex<S>) -> MutexGuard<'_, S> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The id of an order of a channel.
pub(crate) fn id_of(order: &OrderSnapshot) -> Text {
    let id = order_id("default", &order.channel_id, &order.channel_order_id);
    compact_str::format_compact!("{id}")
}

fn amount(amount: Decimal, currency: &str) -> Money {
    Money {
        amount,
        currency: currency.into(),
    }
}

/// What `units` of a line cost: net and tax. Shares of one line add up to its total whatever parts it
/// is taken in: `before` units were charged already.
pub(crate) fn share(
    order: &OrderSnapshot,
    line: &str,
    before: Decimal,
    units: Decimal,
) -> Option<(Decimal, Decimal)> {
    let sold = order.lines.iter().find(|l| l.line_id == line)?;
    let currency = Currency::parse(&order.currency).ok()?;
    let up_to = |amount: Decimal, part: Decimal| {
        let whole = Exact::round(amount, currency, Rounding::HalfUp).ok()?;
        Some(whole.share(part, sold.qty, Rounding::HalfUp).ok()?.amount())
    };
    let of = |amount| Some(up_to(amount, before + units)? - up_to(amount, before)?);
    let (gross, tax) = (of(sold.line_total)?, of(sold.tax)?);
    Some((gross - tax, tax))
}
