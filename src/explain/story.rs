//! The answer: the sum as it stands, and the story behind it.

use super::words;
use crate::contract::event::{ChannelLevel, Event, Outcome, StockLevel};
use crate::domain::{Decimal, Timestamp};
use crate::pipeline::{Fault, Record};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// One record of the log, told.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// When the log took it.
    pub recorded_at: Timestamp,
    /// When it happened, as its source says.
    pub occurred_at: Timestamp,
    /// Who said it.
    pub source: String,
    /// What it says.
    pub words: String,
    /// Its effect on sellable stock; absent where it had none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<Decimal>,
    /// How it ended for the processor that must settle it; absent where nobody must, or has not yet.
    #[serde(serialize_with = "outcome")]
    pub outcome: Option<Outcome>,
    /// Why it ended so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it stands.
    pub topic: String,
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Order among records of one moment: causes before what comes of them.
    #[serde(skip)]
    rank: usize,
}

fn outcome<S: serde::Serializer>(outcome: &Option<Outcome>, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(outcome.map_or("", Outcome::symbol))
}

impl Entry {
    pub(super) fn of(record: &Record, event: &Event, rank: usize) -> Self {
        let meta = event.meta();
        Entry {
            recorded_at: Timestamp::from_millis(record.timestamp_ms),
            occurred_at: meta.occurred_at,
            source: meta.source.to_string(),
            words: words::of(event),
            quantity: None,
            outcome: None,
            reason: None,
            topic: record.origin.topic.to_string(),
            partition: record.origin.partition,
            offset: record.origin.offset,
            rank,
        }
    }

    /// A record that says nothing that this build can read.
    pub(super) fn unreadable(record: &Record, fault: &Fault) -> Self {
        let at = Timestamp::from_millis(record.timestamp_ms);
        Entry {
            recorded_at: at,
            occurred_at: at,
            source: String::new(),
            words: format!("cannot be read: {}", fault.message),
            quantity: None,
            outcome: None,
            reason: Some(fault.code.to_string()),
            topic: record.origin.topic.to_string(),
            partition: record.origin.partition,
            offset: record.origin.offset,
            rank: 0,
        }
    }
}

/// What a system was told last.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// Version of the availability.
    pub version: i64,
    /// Its quantity, where that version is still in the log.
    pub quantity: Option<Decimal>,
    /// The system's answer.
    pub outcome: &'static str,
    /// When the receipt was written.
    pub at: Timestamp,
}

/// How a channel's published availability comes about.
#[derive(Clone, Debug, Serialize)]
pub struct Sum {
    /// The channel.
    pub channel: String,
    /// What each location offers it.
    pub offers: BTreeMap<String, Decimal>,
    /// Held back by the channel's buffer, once.
    pub buffer: Decimal,
    /// Quantity and version published last.
    pub published: Option<(Decimal, i64)>,
    /// What each system was told last.
    pub told: BTreeMap<String, Told>,
    #[serde(skip)]
    buffers: BTreeMap<String, Decimal>,
}

impl Sum {
    pub(super) fn new(channel: &str) -> Self {
        Sum {
            channel: channel.to_owned(),
            offers: BTreeMap::new(),
            buffer: Decimal::default(),
            published: None,
            told: BTreeMap::new(),
            buffers: BTreeMap::new(),
        }
    }

    /// Takes in the newest offer of a location. The largest buffer that any location asks for is
    /// held back once.
    pub(super) fn offer(&mut self, offer: &ChannelLevel) {
        let location = offer.location_id.to_string();
        if offer.active {
            self.offers.insert(location.clone(), offer.ats);
            self.buffers.insert(location, offer.buffer);
        } else {
            self.offers.remove(&location);
            self.buffers.remove(&location);
        }
        self.buffer = self.buffers.values().max().copied().unwrap_or_default();
    }
}

/// The level as it stands.
#[derive(Clone, Debug, Serialize)]
pub struct Now {
    /// Version of the level.
    pub version: i64,
    /// Undamaged, not held, here.
    pub sellable: Decimal,
    /// Claimed by orders.
    pub reserved: Decimal,
    /// Never sold, by policy.
    pub safety_stock: Decimal,
    /// Accepted without stock.
    pub backordered: Decimal,
    /// Claims beyond stock.
    pub overcommitted: Decimal,
    /// What can be promised here.
    pub available: Decimal,
    /// The same for each channel.
    pub by_channel: BTreeMap<String, Decimal>,
    /// Whether every fact behind it is known.
    pub confidence: &'static str,
    /// Latest business time of any fact in it.
    pub as_of: Timestamp,
}

/// Why the stock of a SKU at a location is what it is.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// SKU.
    pub sku: String,
    /// Location.
    pub location: String,
    /// The level now; absent when none was ever written.
    pub now: Option<Now>,
    /// The policy in force, in words.
    pub policy: Option<String>,
    /// Open claims, in words.
    pub claims: Vec<String>,
    /// Open exceptions by id, in words.
    pub cases: BTreeMap<String, String>,
    /// How each channel's availability comes about.
    pub sums: Vec<Sum>,
    /// Every record behind it, in order.
    pub story: Vec<Entry>,
    /// What the answer cannot tell.
    pub gaps: Vec<String>,
    /// Records read to find it.
    pub records_read: u64,
}

impl Answer {
    pub(super) fn new(sku: &str, location: &str) -> Self {
        Answer {
            sku: sku.to_owned(),
            location: location.to_owned(),
            now: None,
            policy: None,
            claims: Vec::new(),
            cases: BTreeMap::new(),
            sums: Vec::new(),
            story: Vec::new(),
            gaps: Vec::new(),
            records_read: 0,
        }
    }

    pub(super) fn level(&mut self, level: &StockLevel) {
        self.now = Some(Now {
            version: level.level_version,
            sellable: level.sellable,
            reserved: level.reserved,
            safety_stock: level.safety_stock,
            backordered: level.backordered,
            overcommitted: level.overcommitted,
            available: level.ats,
            by_channel: level
                .ats_by_channel
                .iter()
                .map(|(channel, ats)| (channel.to_string(), *ats))
                .collect(),
            confidence: level.confidence.symbol(),
            as_of: level.as_of,
        });
    }

    /// Channels that the location serves now.
    pub(super) fn channels(&self) -> impl Iterator<Item = &str> {
        self.now
            .iter()
            .flat_map(|now| now.by_channel.keys().map(String::as_str))
    }

    /// In the order in which it happened in the log.
    pub(super) fn finish(mut self) -> Self {
        self.story.sort_by(|a, b| {
            (a.recorded_at, a.rank, a.offset).cmp(&(b.recorded_at, b.rank, b.offset))
        });
        self.gaps.sort();
        self.gaps.dedup();
        self
    }

    fn write_now(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(now) = &self.now else {
            return writeln!(
                f,
                "{} at {}: no level was ever written",
                self.sku, self.location
            );
        };
        writeln!(
            f,
            "{} at {}: {} available (level {}, as of {}, confidence {})\n",
            self.sku,
            self.location,
            now.available,
            now.version,
            words::time(now.as_of),
            now.confidence
        )?;
        writeln!(f, "  {:>12}  sellable", now.sellable.to_string())?;
        writeln!(f, "- {:>12}  claimed by orders", now.reserved.to_string())?;
        writeln!(f, "- {:>12}  safety stock", now.safety_stock.to_string())?;
        writeln!(
            f,
            "= {:>12}  available here, never less than 0",
            now.available.to_string()
        )?;
        if now.backordered.is_positive() {
            writeln!(f, "  {:>12}  on backorder", now.backordered.to_string())?;
        }
        if now.overcommitted.is_positive() {
            writeln!(
                f,
                "  {:>12}  claimed beyond stock",
                now.overcommitted.to_string()
            )?;
        }
        if let Some(policy) = &self.policy {
            writeln!(f, "  policy: {policy}")?;
        }
        self.claims
            .iter()
            .try_for_each(|claim| writeln!(f, "  claim: {claim}"))?;
        self.cases
            .values()
            .try_for_each(|case| writeln!(f, "  open: {case}"))
    }

    fn write_sum(&self, sum: &Sum, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (published, version) = match &sum.published {
            Some((quantity, version)) => (quantity.to_string(), format!(" (version {version})")),
            None => ("nothing".to_owned(), String::new()),
        };
        writeln!(
            f,
            "\nChannel {}: {published} published{version}\n",
            sum.channel
        )?;
        for (location, quantity) in &sum.offers {
            writeln!(f, "  {:>12}  from {location}", quantity.to_string())?;
        }
        writeln!(f, "- {:>12}  buffer of the channel", sum.buffer.to_string())?;
        writeln!(
            f,
            "= {published:>12}  never less than 0, in whole units of the channel"
        )?;
        for (sink, told) in &sum.told {
            let quantity = told.quantity.map_or_else(
                || "a quantity no longer in the log".to_owned(),
                |q| q.to_string(),
            );
            writeln!(
                f,
                "  {sink} was told {quantity} (version {}) at {}: {}",
                told.version,
                words::time(told.at),
                told.outcome
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_now(f)?;
        self.sums
            .iter()
            .try_for_each(|sum| self.write_sum(sum, f))?;
        if !self.story.is_empty() {
            writeln!(f, "\nWhat made it so\n")?;
        }
        for e in &self.story {
            let quantity = e
                .quantity
                .map_or_else(String::new, |q| match q.is_positive() {
                    true => format!("+{q}"),
                    false => q.to_string(),
                });
            let outcome = match (e.outcome, &e.reason) {
                (None | Some(Outcome::Applied), None) => String::new(),
                (outcome, Some(reason)) => {
                    format!("  {}: {reason}", outcome.map_or("", Outcome::symbol))
                }
                (Some(outcome), None) => format!("  {}", outcome.symbol()),
            };
            writeln!(
                f,
                "{}  {quantity:>8}  {}{outcome}\n{:>32}{}, {}[{}]@{}",
                words::time(e.recorded_at),
                e.words,
                "",
                match e.source.is_empty() {
                    true => "source unknown".to_owned(),
                    false => format!("{} at {}", e.source, words::time(e.occurred_at)),
                },
                e.topic,
                e.partition,
                e.offset
            )?;
        }
        if !self.gaps.is_empty() {
            writeln!(f, "\nNot told")?;
        }
        self.gaps.iter().try_for_each(|gap| writeln!(f, "  {gap}"))
    }
}
