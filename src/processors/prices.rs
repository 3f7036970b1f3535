//! What products cost: prices of all lists, as a processor follows them.
//!
//! It holds what somebody pays who buys one piece and knows no code: promotions and prices for larger
//! quantities are left out.

use crate::contract::event::{Event, Money, Text};
use crate::domain::{Decimal, Timestamp, key_part};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

/// Base prices by SKU.
#[derive(Default)]
pub struct Prices {
    by_sku: HashMap<Text, Vec<Listed>, FxBuildHasher>,
}

struct Listed {
    list: Text,
    price: Money,
    until: Option<Timestamp>,
}

impl Prices {
    /// Takes a record of the prices' topic in, whose key is SKU and list; none is a price that is gone.
    pub fn follow(&mut self, key: &str, event: Option<&Event>) {
        let (sku, list) = (key_part(key, 0), key_part(key, 1));
        let listed = self.by_sku.entry(sku.clone()).or_default();
        listed.retain(|known| known.list != list);
        if let Some(Event::PriceChanged(e)) = event
            && e.promotion_id.is_none()
            && e.min_qty.is_none_or(|least| least <= Decimal::ONE)
        {
            listed.push(Listed {
                list,
                price: e.price.clone(),
                until: e.effective_to,
            });
        }
        if listed.is_empty() {
            self.by_sku.remove(&sku);
        }
    }

    /// The highest price of a piece at `now`, by amount and then currency, so that the order in which
    /// lists were heard of does not matter.
    pub fn highest(&self, sku: &str, now: Timestamp) -> Option<&Money> {
        let listed = self.by_sku.get(sku)?.iter();
        let valid = listed.filter(|l| l.until.is_none_or(|until| now < until));
        let prices = valid.map(|l| &l.price);
        prices.max_by(|a, b| (a.amount, &b.currency).cmp(&(b.amount, &a.currency)))
    }
}
