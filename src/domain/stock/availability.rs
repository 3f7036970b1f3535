//! What can be sold: the level of a position and what it offers to channels.
//!
//! `pool = sellable − active − safety − Σ unused hard quotas`, and for a channel c
//! `ATS_c = max(0, min(pool + unused hard quota of c, share of c × (sellable − safety) − active of c))`;
//! the share applies only to a channel that has one. The channel's buffer is not part of it: grants
//! go by `ATS_c`, and who publishes availability subtracts the buffer once.

use super::encoding::{Read, Reader, Write};
use super::ledger::Ledger;
use super::movement::Effect;
use crate::domain::{Decimal, Timestamp};
use compact_str::CompactString as Text;

/// A position as others see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Physical quantities. Goods on the way are never less than nothing: an arrival may be heard
    /// of before its announcement.
    pub totals: Effect,
    /// Claimed.
    pub reserved: Decimal,
    /// Accepted without stock.
    pub backordered: Decimal,
    /// Never promised.
    pub safety: Decimal,
    /// Available to sell over all channels: what is neither claimed nor safety stock.
    pub ats: Decimal,
    /// Claims beyond the physical stock.
    pub overcommitted: Decimal,
    /// Latest business time of the facts behind it.
    pub as_of: Timestamp,
    /// Whether all facts heard are in it; none waits for a snapshot.
    pub complete: bool,
    /// Whether the authority is not heard of.
    pub stale: bool,
}

/// What a position offers to a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Offered {
    /// Available to sell, rounded down to the channel's unit.
    pub ats: Decimal,
    /// The channel's buffer here.
    pub buffer: Decimal,
    /// Whether more may be sold than is there.
    pub backorderable: bool,
    /// Whether all facts are in it, as far as anybody knows.
    pub complete: bool,
}

impl Offered {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.quantity(self.ats);
        out.quantity(self.buffer);
        out.byte(u8::from(self.backorderable) | u8::from(self.complete) << 1);
    }
    pub(super) fn read(input: &mut Reader<'_>) -> Read<Self> {
        let (ats, buffer, flags) = (input.quantity()?, input.quantity()?, input.byte()?);
        Ok(Offered {
            ats,
            buffer,
            backorderable: flags & 1 != 0,
            complete: flags & 2 != 0,
        })
    }
}

/// What a channel asks of every location that serves it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    /// Quantities are offered in multiples of this.
    pub unit: Option<Decimal>,
    /// Buffer where the policy of a position sets none.
    pub buffer: Decimal,
}

impl Ledger {
    /// Claimed units, over all channels.
    pub fn reserved(&self) -> Decimal {
        self.active.iter().map(|(_, quantity)| *quantity).sum()
    }

    /// Units accepted without stock.
    pub fn backordered(&self) -> Decimal {
        self.backordered
    }

    /// Units that neither stand under a claim nor are missing; less than nothing when claims exceed
    /// what is there.
    pub(super) fn free(&self) -> Decimal {
        self.totals.sellable - self.reserved()
    }

    /// The level as it is now.
    pub fn level(&self) -> Level {
        let reserved = self.reserved();
        Level {
            totals: Effect {
                incoming: self.totals.incoming.or_zero(),
                ..self.totals
            },
            reserved,
            backordered: self.backordered,
            safety: self.policy().safety,
            ats: (self.totals.sellable - reserved - self.policy().safety).or_zero(),
            overcommitted: (reserved - self.totals.sellable.or_zero()).or_zero(),
            as_of: self.as_of,
            complete: !self.is_waiting(),
            stale: self.stale,
        }
    }

    /// Available to sell to `channel`; what grants go by.
    pub fn ats(&self, channel: &str) -> Decimal {
        let allocations = &self.policy().allocations;
        let pool = self.free() - self.policy().safety;
        if allocations.is_empty() {
            return pool.or_zero();
        }
        let unused = |channel: &str, hard: Option<Decimal>| {
            hard.map_or(Decimal::ZERO, |hard| {
                (hard - self.claimed_by(channel)).or_zero()
            })
        };
        let kept: Decimal = allocations.iter().map(|a| unused(&a.channel, a.hard)).sum();
        let Some(own) = self.policy().allocation(channel) else {
            return (pool - kept).or_zero();
        };
        let mut ats = pool - kept + unused(channel, own.hard);
        if let Some(percent) = own.share_percent {
            let share = (self.totals.sellable - self.policy().safety)
                .or_zero()
                .percent(percent);
            ats = ats.min(share - self.claimed_by(channel));
        }
        ats.or_zero()
    }

    /// Whether a channel may sell more than is there.
    pub fn is_backorderable(&self) -> bool {
        let least = Decimal::from_units(1);
        self.policy().may_backorder(self.backordered, least)
    }

    fn claimed_by(&self, channel: &str) -> Decimal {
        let found = self.active.iter().find(|(c, _)| c == channel);
        found.map_or(Decimal::ZERO, |(_, quantity)| *quantity)
    }

    /// What has to be told to channels since it was last asked: new offers to the channels given,
    /// and `None` to those that are no longer among them. Counts a version when there is any.
    pub fn offer<'a>(
        &mut self,
        channels: impl Iterator<Item = (&'a Text, &'a Terms)> + Clone,
    ) -> Vec<(Text, Option<Offered>)> {
        let mut changes: Vec<(Text, Option<Offered>)> = Vec::new();
        self.offered.retain(|(known, _)| {
            let served = channels.clone().any(|(channel, _)| channel == known);
            if !served {
                changes.push((known.clone(), None));
            }
            served
        });
        let complete = !self.is_waiting() && !self.stale;
        let backorderable = self.is_backorderable();
        for (channel, terms) in channels {
            let ats = self.ats(channel);
            let buffer = self.policy().allocation(channel).and_then(|a| a.buffer);
            let offer = Offered {
                ats: terms.unit.map_or(ats, |unit| ats.floor_to(unit)),
                buffer: buffer.unwrap_or(terms.buffer),
                backorderable,
                complete,
            };
            match self.offered.iter_mut().find(|(c, _)| c == channel) {
                Some((_, known)) if *known == offer => continue,
                Some((_, known)) => *known = offer,
                None => self.offered.push((channel.clone(), offer)),
            }
            changes.push((channel.clone(), Some(offer)));
        }
        self.offer_version += i64::from(!changes.is_empty());
        changes
    }

    /// The channels that were offered something when last asked.
    pub fn offered_channels(&self) -> impl Iterator<Item = &Text> {
        self.offered.iter().map(|(channel, _)| channel)
    }

    /// Version of the offers last made.
    pub fn offer_version(&self) -> i64 {
        self.offer_version
    }
}
