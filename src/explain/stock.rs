//! Why the stock of a SKU at a location is what it is: the sum as it stands, and what made it so.

use super::search::Wanted;
use super::story::{self, Entry};
use super::{Inquiry, Sources, letter, settle, words};
use crate::contract::event::{
    ChannelLevel, Event, Outcome, ReservationStatus, StockLevel, StockState,
};
use crate::contract::topic;
use crate::domain::{Decimal, Timestamp, compound_key};
use crate::pipeline::{Fault, Record};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// The processor that settles what is said of a position.
const LEDGER: &str = "stock-ledger";

/// Topics whose records of `sku|locationId` tell the story of a stock position, with what comes of
/// what: the order in which records of one moment are told.
const POSITION: [&str; 6] = [
    topic::STOCK_POLICY,
    topic::STOCK_SNAPSHOT,
    topic::STOCK_CHANGE,
    topic::RESERVATION_COMMAND,
    topic::RESERVATION_DECISION,
    topic::STOCK_LEVEL,
];

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockQuestion {
    /// SKU.
    pub sku: String,
    /// Stock location.
    pub location: String,
    /// Only this channel; `None` tells of every channel that the location serves.
    pub channel: Option<String>,
}

/// Explains the stock of one SKU at one location: what it is now, and what made it so.
///
/// # Errors
/// When the log or the registry does not answer.
pub fn stock(sources: &Sources<'_>, question: &StockQuestion) -> Result<StockAnswer, Fault> {
    let (sku, location) = (&*question.sku, &*question.location);
    let key = compound_key(&[sku, location]);
    let mut inquiry = Inquiry::new(sources)?;
    let mut answer = StockAnswer::new(sku, location);
    let mut wanted: Vec<Wanted> = POSITION.iter().map(|t| Wanted::keyed(t, &key)).collect();
    let letters = sources.catalogue.dead_letter_topic(LEDGER);
    wanted.push(Wanted::keyed(&letters, &key));
    wanted.push(Wanted::mentioning(topic::OPS_EXCEPTION, sku));
    let found = inquiry.search(&wanted)?;
    position(&mut inquiry, &mut answer, found)?;
    let channels: BTreeSet<String> = match &question.channel {
        Some(one) => BTreeSet::from([one.clone()]),
        None => answer.channels().map(str::to_owned).collect(),
    };
    self::channels(&mut inquiry, &mut answer, &channels)?;
    if answer.story.is_empty() {
        inquiry.gaps.insert(format!(
            "the log holds nothing of this SKU at {location}; check both names, and that the topics are those of this deployment"
        ));
    }
    story::order(&mut answer.story);
    answer.gaps = inquiry.gaps;
    answer.cases = inquiry.cases;
    answer.records_read = inquiry.records_read;
    Ok(answer)
}

/// What is said of the position itself, and its cases.
fn position(
    inquiry: &mut Inquiry<'_>,
    answer: &mut StockAnswer,
    found: Vec<Record>,
) -> Result<(), Fault> {
    let outcomes = inquiry.outcomes(&[LEDGER], &found)?;
    let mut letters = HashMap::new();
    let mut claims: BTreeMap<uuid::Uuid, (ReservationStatus, Decimal, String)> = BTreeMap::new();
    let mut policies = Vec::new();
    for record in &found {
        let event = match inquiry.decode(record) {
            Ok(event) => event,
            Err(entry) => {
                answer.story.push(*entry);
                continue;
            }
        };
        let rank = POSITION.iter().position(|t| *t == &*record.origin.topic);
        let mut entry = Entry::of(record, &event, rank.unwrap_or(POSITION.len()));
        match &event {
            Event::DeadLetter(_) => {
                letters.extend(letter(&event));
                continue;
            }
            Event::BusinessException(case) => {
                let is_of = |of: &Option<_>, name: &str| of.as_deref() == Some(name);
                if !is_of(&case.sku, &answer.sku) || !is_of(&case.location_id, &answer.location) {
                    continue;
                }
                inquiry.case(case);
            }
            Event::StockLevel(level) => answer.now = Some(Now::of(level)),
            Event::ReservationDecision(d) => {
                let words = format!("order {} of {}", d.order_id, d.channel_id);
                claims.insert(d.reservation_id, (d.status, d.qty_held, words));
            }
            Event::StockChanged(e) => {
                entry.quantity = Some(sellable_effect(e.from_state, e.to_state, e.qty));
            }
            Event::StockPolicy(policy) => {
                policies.push((record.origin.clone(), words::policy(policy)));
            }
            _ => {}
        }
        answer.story.push(entry);
    }
    let is_applied = |origin: &crate::pipeline::Origin| {
        let verdicts = outcomes.get(origin).map(Vec::as_slice).unwrap_or_default();
        verdicts.iter().any(|v| v.outcome == Outcome::Applied)
    };
    let in_force = policies.iter().rev().find(|(origin, _)| is_applied(origin));
    answer.policy = in_force.map(|(_, words)| words.clone());
    settle(&mut answer.story, outcomes, &letters);
    for entry in &mut answer.story {
        let verdict = entry.outcome_for(LEDGER);
        if verdict.is_none_or(|v| v.outcome != Outcome::Applied) {
            entry.quantity = None;
        }
    }
    let open = |status: ReservationStatus| {
        matches!(
            status,
            ReservationStatus::Held
                | ReservationStatus::Confirmed
                | ReservationStatus::PartiallyConsumed
                | ReservationStatus::Backordered
        )
    };
    let claims = claims.into_iter().filter(|(_, (status, ..))| open(*status));
    answer.claims = claims
        .map(|(id, (status, held, of))| format!("{status} {} for {of} ({id})", words::units(held)))
        .collect();
    Ok(())
}

/// What each channel is offered by every location, what was published, and who was told.
fn channels(
    inquiry: &mut Inquiry<'_>,
    answer: &mut StockAnswer,
    channels: &BTreeSet<String>,
) -> Result<(), Fault> {
    let catalogue = inquiry.sources.catalogue;
    let mut topics = vec![topic::STOCK_LEDGER_CHANNEL_LEVEL, topic::STOCK_ATS];
    topics.extend(inquiry.topics_of_readers(|t| catalogue.sink_of_receipt_topic(t)));
    let topics: Vec<String> = topics.into_iter().map(str::to_owned).collect();
    let mut wanted = Vec::new();
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for channel in channels {
        let key = compound_key(&[&answer.sku, channel]);
        wanted.extend(topics.iter().map(|t| match &**t {
            topic::STOCK_LEDGER_CHANNEL_LEVEL | topic::STOCK_ATS => Wanted::keyed(t, &key),
            receipts => Wanted::receipts(receipts, topic::STOCK_ATS, &key),
        }));
        sums.insert(key.into(), Sum::new(channel));
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let mut quantities: HashMap<(String, i64), Decimal> = HashMap::new();
    for record in &inquiry.search(&wanted)? {
        let event = match inquiry.decode(record) {
            Ok(event) => event,
            Err(entry) => {
                answer.story.push(*entry);
                continue;
            }
        };
        let key = match &event {
            Event::SinkReceipt(receipt) => receipt.entity_key.to_string(),
            _ => String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned(),
        };
        let Some(sum) = sums.get_mut(&key) else {
            continue;
        };
        match &event {
            Event::ChannelLevel(offer) => {
                sum.offer(offer);
                if *offer.location_id != *answer.location {
                    continue;
                }
            }
            Event::AvailabilityChanged(e) => {
                quantities.insert((key, e.ats_version), e.ats);
                sum.published = Some((e.ats, e.ats_version));
            }
            Event::SinkReceipt(receipt) => {
                let version = receipt.sent_version;
                let told = Told {
                    version,
                    quantity: quantities.get(&(key, version)).copied(),
                    outcome: receipt.outcome.symbol(),
                    at: Timestamp::from_millis(record.timestamp_ms),
                };
                sum.told.insert(receipt.sink.to_string(), told);
            }
            _ => {}
        }
        let place = topics.iter().position(|t| **t == *record.origin.topic);
        let rank = POSITION.len() + 1 + place.unwrap_or_default();
        answer.story.push(Entry::of(record, &event, rank));
    }
    answer.sums = sums.into_values().collect();
    Ok(())
}

/// What a movement does to sellable stock.
fn sellable_effect(from: StockState, to: StockState, quantity: Decimal) -> Decimal {
    match (from == StockState::Sellable, to == StockState::Sellable) {
        (true, false) => -quantity,
        (false, true) => quantity,
        _ => Decimal::default(),
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
    fn new(channel: &str) -> Self {
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
    fn offer(&mut self, offer: &ChannelLevel) {
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

impl Now {
    fn of(level: &StockLevel) -> Now {
        Now {
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
        }
    }
}

/// Why the stock of a SKU at a location is what it is.
#[derive(Clone, Debug, Serialize)]
pub struct StockAnswer {
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
    pub gaps: BTreeSet<String>,
    /// Records read to find it.
    pub records_read: u64,
}

impl StockAnswer {
    fn new(sku: &str, location: &str) -> Self {
        StockAnswer {
            sku: sku.to_owned(),
            location: location.to_owned(),
            now: None,
            policy: None,
            claims: Vec::new(),
            cases: BTreeMap::new(),
            sums: Vec::new(),
            story: Vec::new(),
            gaps: BTreeSet::new(),
            records_read: 0,
        }
    }

    /// Channels that the location serves now.
    fn channels(&self) -> impl Iterator<Item = &str> {
        self.now
            .iter()
            .flat_map(|now| now.by_channel.keys().map(String::as_str))
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
            words::units(now.available),
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
                words::units,
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

impl fmt::Display for StockAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_now(f)?;
        self.sums
            .iter()
            .try_for_each(|sum| self.write_sum(sum, f))?;
        story::write(&self.story, &self.gaps, f)
    }
}
