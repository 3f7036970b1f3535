//! What all locations together can promise to a channel, and when to say so.

use super::encoding::{Corrupt, Reader, VERSION, Write};
use crate::domain::{Decimal, Timestamp};
use compact_str::CompactString as Text;
use std::time::Duration;

/// Least time between two publications of one SKU and channel, except to and from nothing.
pub const PUBLISH_INTERVAL: Duration = Duration::from_millis(50);

/// What one location can promise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Offer {
    /// Version of the location's offers; older ones are superseded.
    pub version: i64,
    /// Available there.
    pub ats: Decimal,
    /// The channel's buffer there.
    pub buffer: Decimal,
    /// Whether more may be sold than is there.
    pub backorderable: bool,
    /// Whether the location serves the channel.
    pub active: bool,
    /// Whether the location's stock is known for certain.
    pub complete: bool,
    /// Business time of the offer.
    pub as_of: Timestamp,
}

/// What is told to the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Quantity: the sum over locations less the buffer.
    pub ats: Decimal,
    /// Whether more may be sold than is there.
    pub backorderable: bool,
    /// Whether the stock of all locations is known for certain.
    pub complete: bool,
}

/// The availability of one SKU in one channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// By location, in ascending order.
    offers: Vec<(Text, Offer)>,
    version: i64,
    published: Option<Published>,
    published_at: Timestamp,
    due: Option<Timestamp>,
}

/// A publication.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Publication {
    /// Counts publications.
    pub version: i64,
    /// What to say.
    pub now: Published,
    /// What was said before.
    pub before: Option<Published>,
    /// Latest business time of the offers behind it.
    pub as_of: Timestamp,
}

impl Network {
    /// Takes a location's offer. Returns how its version compares with the one known: greater is
    /// news, equal is a repetition, less is superseded.
    pub fn offer(&mut self, location: &str, offer: Offer) -> std::cmp::Ordering {
        match self
            .offers
            .binary_search_by(|(known, _)| known.as_str().cmp(location))
        {
            Ok(index) => {
                let known = &mut self.offers[index].1;
                let order = offer.version.cmp(&known.version);
                if order.is_gt() {
                    *known = offer;
                }
                order
            }
            Err(index) => {
                self.offers.insert(index, (location.into(), offer));
                std::cmp::Ordering::Greater
            }
        }
    }

    /// What can be promised: the sum over the locations that serve the channel, less the channel's
    /// buffer once (the largest that any of them asks for), rounded down to `unit`.
    pub fn availability(&self, unit: Option<Decimal>) -> Published {
        let offers = || self.offers.iter().map(|(_, o)| o).filter(|o| o.active);
        let sum: Decimal = offers().map(|o| o.ats).sum();
        let buffer = offers().map(|o| o.buffer).max().unwrap_or_default();
        let ats = (sum - buffer).or_zero();
        Published {
            ats: unit.map_or(ats, |unit| ats.floor_to(unit)),
            backorderable: offers().any(|o| o.backorderable),
            complete: offers().all(|o| o.complete),
        }
    }

    /// What to publish at `now`, if anything: the first change at once, then at most one in
    /// [`PUBLISH_INTERVAL`]; a change between nothing and something never waits. A change that must
    /// wait leaves its time in [`Network::due`].
    pub fn publish(&mut self, unit: Option<Decimal>, now: Timestamp) -> Option<Publication> {
        let current = self.availability(unit);
        self.due = None;
        let before = self.published;
        if before == Some(current) {
            return None;
        }
        let crosses = before.is_none_or(|before| {
            before.ats.is_zero() != current.ats.is_zero()
                || before.backorderable != current.backorderable
        });
        let earliest = self.published_at.plus(PUBLISH_INTERVAL);
        if !crosses && now < earliest {
            self.due = Some(earliest);
            return None;
        }
        self.version += 1;
        self.published = Some(current);
        self.published_at = now;
        Some(Publication {
            version: self.version,
            now: current,
            before,
            as_of: self
                .offers
                .iter()
                .map(|(_, o)| o.as_of)
                .max()
                .unwrap_or_default(),
        })
    }

    /// When a change that waits is to be published.
    pub fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Writes the form kept in state into `out`, replacing what it holds.
    pub fn to_state(&self, out: &mut Vec<u8>) {
        out.clear();
        out.byte(VERSION);
        out.optional(self.due, |out, due| out.time(due));
        out.signed(self.version);
        out.time(self.published_at);
        out.optional(self.published, |out, p| {
            out.quantity(p.ats);
            out.byte(flags(&[p.backorderable, p.complete]));
        });
        out.unsigned(self.offers.len() as u64);
        for (location, offer) in &self.offers {
            out.text(location);
            out.signed(offer.version);
            out.byte(flags(&[offer.backorderable, offer.active, offer.complete]));
            out.quantity(offer.ats);
            out.quantity(offer.buffer);
            out.signed(offer.as_of.0.wrapping_sub(self.published_at.0));
        }
    }

    /// Reads the form kept in state.
    ///
    /// # Errors
    /// When the bytes are not of this build's form.
    pub fn from_state(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut input = Reader::new(bytes)?;
        let mut network = Network {
            due: input.optional(Reader::time)?,
            version: input.signed()?,
            published_at: input.time()?,
            published: input.optional(|input| {
                let ats = input.quantity()?;
                let bits = input.byte()?;
                Ok(Published {
                    ats,
                    backorderable: bits & 1 != 0,
                    complete: bits & 2 != 0,
                })
            })?,
            offers: Vec::new(),
        };
        let count = input.count()?;
        network.offers.reserve(count);
        for _ in 0..count {
            let location = input.text()?;
            let version = input.signed()?;
            let bits = input.byte()?;
            let offer = Offer {
                version,
                ats: input.quantity()?,
                buffer: input.quantity()?,
                backorderable: bits & 1 != 0,
                active: bits & 2 != 0,
                complete: bits & 4 != 0,
                as_of: Timestamp(network.published_at.0.wrapping_add(input.signed()?)),
            };
            network.offers.push((location, offer));
        }
        input.end()?;
        Ok(network)
    }

    /// The time of a change that waits, read without the rest.
    ///
    /// # Errors
    /// As [`Network::from_state`].
    pub fn due_of(bytes: &[u8]) -> Result<Option<Timestamp>, Corrupt> {
        Reader::new(bytes)?.optional(Reader::time)
    }
}

fn flags(bits: &[bool]) -> u8 {
    let bit = |(index, bit): (usize, &bool)| u8::from(*bit) << index;
    bits.iter().enumerate().map(bit).sum()
}
