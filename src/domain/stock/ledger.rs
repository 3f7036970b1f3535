//! One position: its state, and how the state is kept.

use super::agenda::Agenda;
use super::availability::Offered;
use super::claims::{self, Decision, Verdict};
use super::encoding::{Corrupt, Read, Reader, VERSION, Write};
use super::identities::{Entry, Identities, Kind, seconds};
use super::movement::Effect;
use super::policy::{Allocation, Oversell, Policy};
use super::position::{Applied, Rank, Refusal};
use super::recorded::Recorded;
use super::shelf::Shelf;
use super::{HORIZON, Level};
use crate::domain::{Decimal, Position, Timestamp};
use compact_str::CompactString as Text;
use std::sync::Arc;

/// The stock of one SKU at one location.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    pub(super) authority: Option<Text>,
    pub(super) policy: Option<Box<Policy>>,
    pub(super) level_version: i64,
    pub(super) offer_version: i64,
    pub(super) offered: Vec<(Text, Offered)>,
    /// Number of the last decision.
    pub(super) sequence: i64,
    /// Latest business time of any fact heard.
    pub(super) as_of: Timestamp,
    /// Whether the authority is not heard of.
    pub(super) stale: bool,
    /// Latest record time of anything heard: the stream's own clock.
    pub(super) newest: Timestamp,
    pub(super) totals: Effect,
    /// The newest snapshot that states each bucket.
    pub(super) bases: [Option<Rank>; Effect::BUCKETS],
    /// The earliest epoch heard of, while there is no base.
    pub(super) opening: Option<i32>,
    /// Greatest position forgotten: whether an unknown fact up to here is new cannot be known.
    pub(super) folded_through: Option<Position>,
    /// Latest record time, in seconds, of a forgotten claim.
    pub(super) claims_folded_s: Option<i64>,
    /// Remembered movements of epochs whose snapshot has not come.
    pub(super) waiting: u32,
    pub(super) identities: Identities,
    /// Claimed units by channel.
    pub(super) active: Vec<(Text, Decimal)>,
    pub(super) backordered: Decimal,
    pub(super) agenda: Agenda,
    /// Decisions to be followed instead of being made anew. Not kept.
    pub(super) recorded: Option<Arc<Recorded>>,
}

/// Where a record stands in its topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

impl Place {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.signed(i64::from(self.partition));
        out.signed(self.offset);
    }
    pub(super) fn read(input: &mut Reader<'_>) -> Read<Self> {
        Ok(Place {
            partition: i32::try_from(input.signed()?).map_err(|_| Corrupt)?,
            offset: input.signed()?,
        })
    }
}

/// A record that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A movement of an epoch whose snapshot had not come.
    Movement(Place),
    /// A confirmation whose hold had not come.
    Confirm(Place),
}

/// How a record ended that had waited.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The record.
    pub waited: Waited,
    /// Its outcome.
    pub outcome: Applied,
    /// What became of the claim that a movement consumed.
    pub claim: Option<Verdict>,
}

/// What happened besides the outcome of the record at hand, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Journal {
    /// Decisions on claims, by ascending sequence.
    pub decisions: Vec<Decision>,
    /// Records that had waited and have ended now.
    pub resolved: Vec<Resolved>,
}

impl Journal {
    /// Forgets what was written, keeping the room.
    pub fn clear(&mut self) {
        self.decisions.clear();
        self.resolved.clear();
    }
}

impl Ledger {
    /// Whether facts of `source` count here. The `declared` source is a position's authority, or where
    /// none is, the first that is heard; facts of any other are for reconciliation only, for positions
    /// of two sources have no common order. So a position that has an authority keeps it.
    pub fn is_authority(&mut self, source: &str, declared: Option<&str>) -> bool {
        match &self.authority {
            Some(authority) => authority == source,
            None if declared.is_some_and(|declared| declared != source) => false,
            None => {
                self.authority = Some(source.into());
                true
            }
        }
    }

    /// Decisions that were recorded before are followed from here on.
    pub fn follow(&mut self, recorded: Option<Arc<Recorded>>) {
        self.recorded = recorded;
    }

    /// Whether the authority is heard of: what it does not tell is not in here.
    pub fn set_stale(&mut self, stale: bool) {
        self.stale = stale;
    }

    /// The source whose facts count.
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// The rules of this position.
    pub fn policy(&self) -> &Policy {
        static NONE: Policy = Policy::NONE;
        self.policy.as_deref().unwrap_or(&NONE)
    }

    /// Version of the level last emitted; zero when none was.
    pub fn level_version(&self) -> i64 {
        self.level_version
    }

    /// Counts an emission of the level and returns its version.
    pub fn next_level_version(&mut self) -> i64 {
        self.level_version += 1;
        self.level_version
    }

    /// Number of the last decision.
    pub fn sequence(&self) -> i64 {
        self.sequence
    }

    /// Facts remembered, in the header and on the shelf.
    pub fn remembered(&self) -> usize {
        self.identities.len()
    }

    /// Takes a newer policy.
    ///
    /// # Errors
    /// When state is damaged.
    pub fn set_policy(
        &mut self,
        policy: Policy,
        recorded_at: Timestamp,
        shelf: &mut dyn Shelf,
        journal: &mut Journal,
    ) -> Result<Applied, Refusal> {
        if let Some(known) = self
            .policy
            .as_deref()
            .filter(|p| policy.version <= p.version)
        {
            return Ok(if policy == *known {
                Applied::Duplicate
            } else {
                Applied::Superseded
            });
        }
        self.policy = Some(Box::new(policy));
        self.hear(recorded_at);
        self.promote(recorded_at, shelf, journal)?;
        Ok(Applied::Applied)
    }

    /// Finds beforehand which of `ids` are remembered on the shelf. Not needed, but faster than
    /// finding each when it comes.
    ///
    /// # Errors
    /// When state is damaged.
    pub fn seek(
        &mut self,
        ids: impl Iterator<Item = u128> + Clone,
        shelf: &dyn Shelf,
    ) -> Result<(), Refusal> {
        Ok(self.identities.seek(ids, shelf)?)
    }

    /// The stream's clock moves on.
    pub(super) fn hear(&mut self, recorded_at: Timestamp) {
        self.newest = self.newest.max(recorded_at);
    }

    /// The epoch whose movements count, and no later one's.
    pub(super) fn trusted_epoch(&self) -> Option<i32> {
        self.bases[0]
            .as_ref()
            .map(|base| base.as_of.epoch)
            .or(self.opening)
    }

    /// Forgets what is beyond the horizon, moves to the shelf what is too much for the header, and
    /// writes the header into `out`, replacing what it holds.
    ///
    /// # Errors
    /// When state is damaged.
    pub fn store(
        &mut self,
        shelf: &mut dyn Shelf,
        journal: &mut Journal,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let horizon_s = seconds(self.newest.minus(HORIZON));
        let trusted = self.trusted_epoch().unwrap_or(i32::MAX);
        for entry in self.identities.tidy(trusted, horizon_s, shelf)? {
            self.forget(&entry, shelf, journal)?;
        }
        self.agenda.tidy(shelf, claims::is_open)?;
        self.write(out);
        Ok(())
    }

    fn forget(
        &mut self,
        entry: &Entry,
        shelf: &mut dyn Shelf,
        journal: &mut Journal,
    ) -> Result<(), Refusal> {
        match entry.kind {
            Kind::Movement => {
                self.folded_through = self.folded_through.max(Some(entry.position));
            }
            // A snapshot that comes again is older than the base.
            Kind::Snapshot => {}
            Kind::Claim => {
                self.claims_folded_s = self.claims_folded_s.max(Some(entry.recorded_s));
                self.forget_claim(entry.claim_id(), entry.recorded_s, shelf, journal)?;
            }
        }
        Ok(())
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        out.byte(VERSION);
        let has_claims =
            !self.active.is_empty() || !self.backordered.is_zero() || !self.agenda.is_empty();
        let parts = [
            self.authority.is_some(),
            self.policy.is_some(),
            self.opening.is_some(),
            self.folded_through.is_some(),
            self.claims_folded_s.is_some(),
            self.waiting != 0,
            has_claims,
            self.stale,
        ];
        let bit = |(index, part): (usize, &bool)| u8::from(*part) << index;
        out.byte(parts.iter().enumerate().map(bit).sum());
        out.unsigned(self.level_version as u64);
        out.unsigned(self.offer_version as u64);
        out.unsigned(self.sequence as u64);
        out.time(self.as_of);
        out.signed(self.newest.0.wrapping_sub(self.as_of.0));
        for total in self.totals.buckets() {
            out.quantity(total);
        }
        if let Some(authority) = &self.authority {
            out.text(authority);
        }
        if let Some(policy) = &self.policy {
            write_policy(policy, out);
        }
        if let Some(opening) = self.opening {
            out.signed(i64::from(opening));
        }
        if let Some(position) = self.folded_through {
            out.position(position);
        }
        if let Some(folded) = self.claims_folded_s {
            out.signed(folded);
        }
        if self.waiting != 0 {
            out.unsigned(u64::from(self.waiting));
        }
        self.write_bases(out);
        out.unsigned(self.offered.len() as u64);
        for (channel, offered) in &self.offered {
            out.text(channel);
            offered.write(out);
        }
        self.identities.write(out);
        if has_claims {
            out.quantity(self.backordered);
            out.unsigned(self.active.len() as u64);
            for (channel, quantity) in &self.active {
                out.text(channel);
                out.quantity(*quantity);
            }
            self.agenda.write(out);
        }
    }

    /// Usually one snapshot is the base of all buckets that have one.
    fn write_bases(&self, out: &mut Vec<u8>) {
        for (index, base) in self.bases.iter().enumerate() {
            match base {
                None => out.byte(0),
                Some(_) if index > 0 && *base == self.bases[0] => out.byte(1),
                Some(rank) => {
                    out.byte(2);
                    out.position(rank.as_of);
                    out.time(rank.recorded_at);
                    out.id(rank.id);
                }
            }
        }
    }

    /// Reads a header.
    ///
    /// # Errors
    /// When the bytes are not of this build's form.
    pub fn from_state(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut input = Reader::new(bytes)?;
        let input = &mut input;
        let parts = input.byte()?;
        let has = |part: u8| parts & (1 << part) != 0;
        let mut ledger = Ledger {
            level_version: input.number()?,
            offer_version: input.number()?,
            sequence: input.number()?,
            as_of: input.time()?,
            ..Ledger::default()
        };
        ledger.newest = Timestamp(ledger.as_of.0.wrapping_add(input.signed()?));
        let mut totals = [Decimal::ZERO; Effect::BUCKETS];
        for total in &mut totals {
            *total = input.quantity()?;
        }
        ledger.totals = Effect::from_buckets(totals);
        ledger.stale = has(7);
        if has(0) {
            ledger.authority = Some(input.text()?);
        }
        if has(1) {
            ledger.policy = Some(Box::new(read_policy(input)?));
        }
        if has(2) {
            ledger.opening = Some(i32::try_from(input.signed()?).map_err(|_| Corrupt)?);
        }
        if has(3) {
            ledger.folded_through = Some(input.position()?);
        }
        if has(4) {
            ledger.claims_folded_s = Some(input.signed()?);
        }
        if has(5) {
            ledger.waiting = input.number()?;
        }
        for index in 0..ledger.bases.len() {
            ledger.bases[index] = match input.byte()? {
                0 => None,
                1 => ledger.bases[0],
                2 => Some(Rank {
                    as_of: input.position()?,
                    recorded_at: input.time()?,
                    id: input.id()?,
                }),
                _ => return Err(Corrupt),
            };
        }
        for _ in 0..input.count()? {
            ledger.offered.push((input.text()?, Offered::read(input)?));
        }
        ledger.identities = Identities::read(input)?;
        if has(6) {
            ledger.backordered = input.quantity()?;
            for _ in 0..input.count()? {
                ledger.active.push((input.text()?, input.quantity()?));
            }
            ledger.agenda = Agenda::read(input)?;
        }
        input.end()?;
        Ok(ledger)
    }

    /// The due time of the next hold to expire, read from a header without the rest of it.
    ///
    /// # Errors
    /// As [`Ledger::from_state`].
    pub fn timer_of(bytes: &[u8]) -> Result<Option<Timestamp>, Corrupt> {
        // Positions without claims, nearly all of them, are known by one bit.
        match bytes {
            [VERSION, parts, ..] if parts & (1 << 6) == 0 => Ok(None),
            _ => Ok(Ledger::from_state(bytes)?.next_expiry()),
        }
    }

    /// The level that the state in `bytes` stands for; what was emitted last when the version is
    /// not zero.
    pub fn emitted(&self) -> Option<Level> {
        (self.level_version > 0).then(|| self.level())
    }
}

fn write_policy(policy: &Policy, out: &mut Vec<u8>) {
    out.signed(policy.version);
    out.quantity(policy.safety);
    out.byte(policy.oversell as u8);
    out.optional(policy.backorder_limit, |out, q| out.quantity(q));
    out.unsigned(policy.allocations.len() as u64);
    for allocation in &policy.allocations {
        out.text(&allocation.channel);
        out.optional(allocation.hard, |out, q| out.quantity(q));
        out.optional(allocation.share_percent, |out, percent| {
            out.fixed(&percent.to_le_bytes())
        });
        out.optional(allocation.buffer, |out, q| out.quantity(q));
    }
}

fn read_policy(input: &mut Reader<'_>) -> Read<Policy> {
    let mut policy = Policy {
        version: input.signed()?,
        safety: input.quantity()?,
        oversell: input.one_of(&[Oversell::Block, Oversell::BackorderToLimit, Oversell::Allow])?,
        backorder_limit: input.optional(Reader::quantity)?,
        allocations: Vec::new(),
    };
    for _ in 0..input.count()? {
        policy.allocations.push(Allocation {
            channel: input.text()?,
            hard: input.optional(Reader::quantity)?,
            share_percent: input.optional(|input| {
                let bytes = input.fixed(8)?.try_into().map_err(|_| Corrupt)?;
                Ok(f64::from_le_bytes(bytes))
            })?,
            buffer: input.optional(Reader::quantity)?,
        });
    }
    Ok(policy)
}
