//! What all eligible locations together can promise to a channel.

use crate::domain::{Decimal, Timestamp};
use compact_str::CompactString as Text;
use std::collections::BTreeMap;

/// What one location can promise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Offer {
    /// Version of the location's level; older ones are superseded.
    pub version: i64,
    /// Available there.
    pub ats: Decimal,
    /// The channel's buffer there.
    pub buffer: Decimal,
    /// Whether more may be sold than is there.
    pub backorderable: bool,
    /// Whether the location serves the channel.
    pub active: bool,
}

/// The availability of one SKU in one channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// By location.
    pub offers: BTreeMap<Text, Offer>,
    /// Version last published.
    pub version: i64,
    /// Quantity and backorder last published.
    pub published: Option<(Decimal, bool)>,
    /// When it was published.
    pub published_at: Timestamp,
    /// A change that waits to be published.
    pub due: Option<Timestamp>,
}

impl Network {
    /// Takes a location's offer. Returns whether it was newer than the one known.
    pub fn offer(&mut self, location: &str, offer: Offer) -> bool {
        let newer = self
            .offers
            .get(location)
            .is_none_or(|known| known.version < offer.version);
        if newer {
            self.offers.insert(location.into(), offer);
        }
        newer
    }

    /// The quantity to publish: the sum over locations, less the channel's buffer once, rounded
    /// down to `unit`; and whether more may be sold.
    pub fn availability(
        &self,
        eligible: impl Fn(&str) -> bool,
        unit: Option<Decimal>,
        default_buffer: Decimal,
    ) -> (Decimal, bool) {
        let offers = || {
            self.offers
                .iter()
                .filter(|(location, o)| o.active && eligible(location))
                .map(|(_, o)| o)
        };
        let sum: Decimal = offers().map(|o| o.ats).sum();
        let buffer = offers()
            .map(|o| o.buffer)
            .max()
            .unwrap_or_default()
            .max(default_buffer);
        let quantity = (sum - buffer).or_zero();
        (
            unit.map_or(quantity, |unit| quantity.floor_to(unit)),
            offers().any(|o| o.backorderable),
        )
    }
}
