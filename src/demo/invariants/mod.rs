//! The invariants that can be judged of the demo, from the log and the storefronts' own books alone.
//!
//! [`Books`] keeps what the log says as it is read; each invariant is judged of that, with rules
//! written here a second time. No rule of `domain::stock` and no processor is used: what both got
//! wrong in the same way would show nowhere. A verdict that is not `ok` names the record that shows it.

mod books;
mod claims;
mod levels;
mod money;
mod orders;
mod outcomes;
#[cfg(test)]
mod tests;

pub(crate) use books::{Books, TOPICS};

use super::systems::Entry;
use crate::contract::event::Text;
use crate::domain::{Decimal, Timestamp, compound_key, split_key};
use crate::verify::Ledger;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Number of each invariant → `ok`, or why it does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Verdicts(pub BTreeMap<u32, String>);

/// What each invariant says, for people.
pub(crate) const WORDING: [(u32, &str); 16] = [
    (1, "every record has one outcome, and none still waits"),
    (2, "stock equals an independent fold of the facts"),
    (3, "out on transfer = arrived + on the way + lost"),
    (4, "no strict grant beyond what was available"),
    (5, "held = consumed + released + expired + active"),
    (6, "what was ordered is the sum of where it is"),
    (7, "versions rise by one"),
    (8, "one sale in the ERP for each accepted order"),
    (9, "no refund beyond what was paid, none twice"),
    (10, "every order of a storefront has a state"),
    (11, "each return is answered, or has an exception"),
    (12, "a cold rebuild from the log gives the live state"),
    (13, "storefronts show what is published"),
    (14, "exceptions where they must be, and only there"),
    (15, "each payout is the sum of its lines"),
    (16, "no customer stands in the log in plain text"),
];

impl Verdicts {
    /// Whether all hold.
    pub fn all_hold(&self) -> bool {
        self.0.values().all(|v| v == "ok")
    }
}

/// A judgement: `Err` holds the counter-example.
type Judged = Result<(), String>;

/// What a storefront shows.
pub(crate) struct Shown {
    pub name: String,
    pub channel: String,
    /// By SKU.
    pub quantities: BTreeMap<String, i64>,
}

/// An exception that what was done must lead to.
#[derive(Clone)]
pub(crate) struct Expected {
    pub code: Text,
    /// The order; empty for a payout.
    pub order: Text,
}

/// What the systems around say, and what is known of the run.
#[derive(Default)]
pub(crate) struct Around<'a> {
    /// The ledger of each system, by its name.
    pub systems: Vec<(String, Vec<Entry>)>,
    pub faults: &'a [Expected],
    /// Which sink settles which topic.
    pub sinks: Vec<(String, String)>,
    /// Where a customer's name or address was found in the log.
    pub leak: Option<String>,
    /// How far clocks may be apart.
    pub skew: Duration,
}

impl Around<'_> {
    fn all_of(&self, system: &str) -> impl Iterator<Item = &Entry> {
        let all = self.systems.iter();
        all.filter(move |(name, _)| name == system)
            .flat_map(|(_, entries)| entries)
    }
    fn of(&self, system: &str, kind: &'static str) -> impl Iterator<Item = &Entry> {
        self.all_of(system).filter(move |e| e.kind == kind)
    }
    fn everywhere(&self, kind: &'static str) -> impl Iterator<Item = (&str, &Entry)> {
        let all = self.systems.iter();
        all.flat_map(|(name, entries)| entries.iter().map(move |e| (name.as_str(), e)))
            .filter(move |(_, e)| e.kind == kind)
    }
}

/// Judges a landscape at rest, at the time `end` of its clock.
pub(crate) fn judge(
    books: &Books,
    ledger: &Ledger,
    shown: &[Shown],
    around: &Around<'_>,
    end: Timestamp,
) -> Verdicts {
    let judged = [
        (1, outcomes::judge(books, ledger, &around.sinks)),
        (2, levels::conservation(books)),
        (3, levels::transfers(books)),
        (4, claims::grants(books, around.skew)),
        (5, claims::balance(books, end.minus(around.skew))),
        (6, orders::buckets(books)),
        (7, books.versions()),
        (8, orders::in_erp(books, around)),
        (9, money::refunds(books, around)),
        (10, orders::in_state(books, around)),
        (11, money::returns(books, around, end)),
        (12, rebuild(books)),
        (13, storefronts(books, shown)),
        (14, money::exceptions(books, around)),
        (15, money::payouts(books)),
        (16, money::secrets(around)),
    ];
    let verdict = |r: Judged| r.map_or_else(|why| why, |()| "ok".to_owned());
    let each = judged.into_iter();
    Verdicts(each.map(|(n, result)| (n, verdict(result))).collect())
}

/// Whether what the facts and the recorded decisions give is what is live: levels, claims and
/// availability, in all fields but versions, times of recording and causes.
fn rebuild(books: &Books) -> Judged {
    claims::replayed(books)?;
    levels::levels(books)?;
    levels::availability(books)
}

fn storefronts(books: &Books, shown: &[Shown]) -> Judged {
    for shop in shown {
        for (key, published) in &books.availability {
            let parts = split_key(key);
            let [sku, channel] = parts.as_slice() else {
                return Err(format!(
                    "{key} is not a SKU and a channel: {}",
                    published.origin
                ));
            };
            if *channel != shop.channel {
                continue;
            }
            let (quantity, ats) = (shop.quantity(sku), published.event.ats);
            if quantity != ats {
                return Err(format!(
                    "{} shows {quantity} of {sku}, {ats} is published: {}",
                    shop.name, published.origin
                ));
            }
        }
        let of_nothing = shop.quantities.iter().find(|(sku, quantity)| {
            let key = compound_key(&[sku, &shop.channel]);
            **quantity != 0 && !books.availability.contains_key(&key)
        });
        if let Some((sku, quantity)) = of_nothing {
            return Err(format!(
                "{} shows {quantity} of {sku}, nothing is published for {}",
                shop.name, shop.channel
            ));
        }
    }
    Ok(())
}

impl Shown {
    fn quantity(&self, sku: &str) -> Decimal {
        super::facts::whole(self.quantities.get(sku).copied().unwrap_or_default())
    }
}
