//! What all locations together can promise to a channel, and when to say so.

use super::encoding::{Corrupt, Read, Reader, Stored as _, VERSION, Write};
use super::shelf::{Shelf, Slot};
use crate::domain::{Decimal, Timestamp};
use compact_str::CompactString as Text;
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::time::Duration;

/// Least time between two publications of one SKU and channel, except to and from nothing.
pub const PUBLISH_INTERVAL: Duration = Duration::from_millis(50);

/// Locations whose offers are kept together; those of more are spread over pages.
const INLINE_MAX: usize = 64;
/// Pages, once there are any.
const PAGES: u32 = 64;

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

/// The availability of one SKU in one channel. Sums are kept, so an offer costs the same however many
/// locations there are; the offers of many locations stand on pages of a shelf.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// What the locations that serve the channel can promise together.
    sum: Decimal,
    /// Of these, how many ask for each buffer.
    buffers: Vec<(Decimal, u32)>,
    backorderable: u32,
    incomplete: u32,
    /// Latest business time of any offer.
    as_of: Timestamp,
    /// Offers by location, as long as they are few.
    inline: Vec<(Text, Offer)>,
    /// Number of pages; none as long as the offers are few.
    pages: u32,
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
    ///
    /// # Errors
    /// When state is damaged.
    pub fn offer(
        &mut self,
        location: &str,
        offer: Offer,
        shelf: &mut dyn Shelf,
    ) -> Result<Ordering, Corrupt> {
        let slot = Slot::Offers(page_of(location, self.pages));
        let mut page = match self.pages {
            0 => std::mem::take(&mut self.inline),
            _ => read_page(slot, shelf)?,
        };
        let known = page.iter_mut().find(|(known, _)| known == location);
        let before = known.as_ref().map(|(_, offer)| *offer);
        let order = before.map_or(Ordering::Greater, |b| offer.version.cmp(&b.version));
        if order.is_gt() {
            match known {
                Some((_, known)) => *known = offer,
                None => page.push((location.into(), offer)),
            }
            if let Some(before) = before {
                self.count(&before, false);
            }
            self.count(&offer, true);
            self.as_of = self.as_of.max(offer.as_of);
        }
        if self.pages > 0 {
            if order.is_gt() {
                write_page(slot, &page, shelf);
            }
        } else if page.len() <= INLINE_MAX {
            self.inline = page;
        } else {
            self.pages = PAGES;
            for number in 0..PAGES {
                let on_page = |(l, _): &&(Text, Offer)| page_of(l, PAGES) == number;
                let offers: Vec<_> = page.iter().filter(on_page).cloned().collect();
                write_page(Slot::Offers(number), &offers, shelf);
            }
        }
        Ok(order)
    }

    /// Adds an offer to the sums, or takes it out again.
    fn count(&mut self, offer: &Offer, add: bool) {
        if !offer.active {
            return;
        }
        let step = |count: &mut u32| *count = if add { *count + 1 } else { *count - 1 };
        if add {
            self.sum += offer.ats;
        } else {
            self.sum -= offer.ats;
        }
        if offer.backorderable {
            step(&mut self.backorderable);
        }
        if !offer.complete {
            step(&mut self.incomplete);
        }
        match self.buffers.iter_mut().find(|(b, _)| *b == offer.buffer) {
            Some((_, count)) => step(count),
            None => self.buffers.push((offer.buffer, 1)),
        }
        self.buffers.retain(|(_, count)| *count > 0);
    }

    /// What can be promised: the sum over the locations that serve the channel, less the channel's
    /// buffer once (the largest that any of them asks for), rounded down to `unit`.
    pub fn availability(&self, unit: Option<Decimal>) -> Published {
        let buffer = self.buffers.iter().map(|(buffer, _)| *buffer).max();
        let ats = (self.sum - buffer.unwrap_or_default()).or_zero();
        Published {
            ats: unit.map_or(ats, |unit| ats.floor_to(unit)),
            backorderable: self.backorderable > 0,
            complete: self.incomplete == 0,
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
            as_of: self.as_of,
        })
    }

    /// When a change that waits is to be published.
    pub fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Writes the form kept in state into `out`, replacing what it holds. Pages are kept apart.
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
        out.quantity(self.sum);
        out.unsigned(u64::from(self.backorderable));
        out.unsigned(u64::from(self.incomplete));
        out.time(self.as_of);
        out.unsigned(self.buffers.len() as u64);
        for (buffer, count) in &self.buffers {
            out.quantity(*buffer);
            out.unsigned(u64::from(*count));
        }
        out.unsigned(u64::from(self.pages));
        write_offers(&self.inline, out);
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
                let (ats, bits) = (input.quantity()?, input.byte()?);
                Ok(Published {
                    ats,
                    backorderable: bits & 1 != 0,
                    complete: bits & 2 != 0,
                })
            })?,
            sum: input.quantity()?,
            backorderable: input.number()?,
            incomplete: input.number()?,
            as_of: input.time()?,
            ..Network::default()
        };
        for _ in 0..input.count()? {
            network.buffers.push((input.quantity()?, input.number()?));
        }
        network.pages = input.number()?;
        network.inline = read_offers(&mut input)?;
        input.end()?;
        Ok(network)
    }

    /// What it says, for people.
    pub fn tell(&self) -> Value {
        let offers = self.inline.iter().map(|(location, o)| {
            let offer = json!({"ats": o.ats.tell(), "buffer": o.buffer.tell(), "active": o.active, "version": o.version});
            (location.to_string(), offer)
        });
        let published = self.published.map(|p| {
            json!({"ats": p.ats.tell(), "backorderable": p.backorderable, "complete": p.complete})
        });
        json!({
            "sum": self.sum.tell(),
            "offers": Value::Object(offers.collect()),
            "pages": self.pages,
            "published": published,
            "publishedAt": self.published_at.tell(),
            "version": self.version,
            "asOf": self.as_of.tell(),
            "due": self.due.tell(),
        })
    }

    /// Takes over from `other` what was published, and when: whoever looks at it next publishes what
    /// differs.
    pub fn adopt(&mut self, other: &Network) {
        self.version = other.version;
        self.published = other.published;
        self.published_at.adopt_told(&other.published_at);
        self.due.adopt_told(&other.due);
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

/// The page of a location, by FNV-1a: the same in every build.
fn page_of(location: &str, pages: u32) -> u32 {
    let hash = location.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash.checked_rem(pages).unwrap_or_default()
}

fn read_page(slot: Slot, shelf: &dyn Shelf) -> Read<Vec<(Text, Offer)>> {
    let mut input = Reader::new(shelf.get(slot).ok_or(Corrupt)?)?;
    let offers = read_offers(&mut input)?;
    input.end()?;
    Ok(offers)
}

fn write_page(slot: Slot, offers: &[(Text, Offer)], shelf: &mut dyn Shelf) {
    let mut bytes = vec![VERSION];
    write_offers(offers, &mut bytes);
    shelf.put(slot, &bytes);
}

fn write_offers(offers: &[(Text, Offer)], out: &mut Vec<u8>) {
    out.unsigned(offers.len() as u64);
    let mut as_of = 0i64;
    for (location, offer) in offers {
        out.text(location);
        out.signed(offer.version);
        out.byte(flags(&[offer.backorderable, offer.active, offer.complete]));
        out.quantity(offer.ats);
        out.quantity(offer.buffer);
        out.signed(offer.as_of.0.wrapping_sub(as_of));
        as_of = offer.as_of.0;
    }
}

fn read_offers(input: &mut Reader<'_>) -> Read<Vec<(Text, Offer)>> {
    let count = input.count()?;
    let mut offers = Vec::with_capacity(count + 1);
    let mut as_of = 0i64;
    for _ in 0..count {
        let (location, version, bits) = (input.text()?, input.signed()?, input.byte()?);
        let (ats, buffer) = (input.quantity()?, input.quantity()?);
        as_of = as_of.wrapping_add(input.signed()?);
        let offer = Offer {
            version,
            ats,
            buffer,
            backorderable: bits & 1 != 0,
            active: bits & 2 != 0,
            complete: bits & 4 != 0,
            as_of: Timestamp(as_of),
        };
        offers.push((location, offer));
    }
    Ok(offers)
}
