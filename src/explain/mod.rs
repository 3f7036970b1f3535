//! Why a number is what it is: everything in the log that made it so, in order, in retail words.
//!
//! Nothing is kept for this: the answer is read from the topics alone. A key lives in one partition
//! of each topic of its family, so only those partitions are read, keys are compared
//! as bytes, and only records of the key are decoded. What a record meant for its readers comes from
//! their dispositions and dead letters, what a system was told from the receipts of its sink.
//!
//! What retention or compaction has removed cannot be told; the answer says from where on it knows.

mod search;
mod story;
mod words;

pub use story::{Answer, Entry, Sum, Told};

use crate::codec::Codec;
use crate::contract::event::{
    Event, ExceptionStatus, Outcome, ReservationStatus, StockState, Text,
};
use crate::contract::{Catalogue, topic};
use crate::domain::{Decimal, Timestamp, compound_key};
use crate::log::{Log, TopicPartition, partition_for};
use crate::pipeline::{Fault, Record};
use crate::processors;
use crate::runtime::group_id;
use search::{Found, Wanted};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

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
    /// Most records told of each topic; the latest are kept.
    pub records_max: usize,
}

/// Explains the stock of one SKU at one location: what it is now, and what made it so.
///
/// # Errors
/// When the log or the registry does not answer, or a topic is missing.
pub fn stock(
    log: &Arc<dyn Log>,
    codec: &Codec,
    catalogue: &Catalogue,
    application: &str,
    question: &StockQuestion,
) -> Result<Answer, Fault> {
    let key = compound_key(&[&question.sku, &question.location]);
    let existing: BTreeMap<String, i32> = log
        .admin()
        .topics()?
        .into_iter()
        .map(|t| (t.name, t.partitions))
        .collect();
    let mut inquiry = Inquiry {
        log,
        codec,
        catalogue,
        application,
        records_max: question.records_max,
        existing,
        answer: Answer::new(&question.sku, &question.location),
    };
    let mut wanted: Vec<Wanted> = POSITION.iter().map(|t| Wanted::keyed(t, &key)).collect();
    wanted.push(Wanted::keyed(
        &catalogue.dead_letter_topic("stock-ledger"),
        &key,
    ));
    let found = inquiry.search(&wanted)?;
    let (sku, location) = (question.sku.clone(), question.location.clone());
    inquiry.position(&found, &location)?;
    inquiry.exceptions(&sku, &location)?;
    let mut channels: BTreeSet<String> = inquiry.answer.channels().map(str::to_owned).collect();
    if let Some(one) = &question.channel {
        channels = BTreeSet::from([one.clone()]);
    }
    for channel in &channels {
        inquiry.channel(&sku, &location, channel)?;
    }
    Ok(inquiry.answer.finish())
}

/// An answer in the making.
struct Inquiry<'a> {
    log: &'a Arc<dyn Log>,
    codec: &'a Codec,
    catalogue: &'a Catalogue,
    application: &'a str,
    records_max: usize,
    /// Partitions of the topics that there are.
    existing: BTreeMap<String, i32>,
    answer: Answer,
}

/// What one reader made of one record, where it was not simply applied.
struct Verdict {
    outcome: Outcome,
    reason: Option<Text>,
}

impl Inquiry<'_> {
    /// Searches for what is wanted in those topics that exist.
    fn search(&mut self, wanted: &[Wanted]) -> Result<Found, Fault> {
        let found = search::search(self.log.as_ref(), &self.existing, wanted, self.records_max)?;
        self.answer.records_read += found.records_read;
        for (topic, left_out) in &found.left_out {
            self.answer
                .gaps
                .push(format!("{left_out} older records of {topic} are not shown"));
        }
        for (partition, first) in &found.cut_off {
            self.answer.gaps.push(format!(
                "{partition}: records before offset {first} are past their retention"
            ));
        }
        Ok(found)
    }

    fn position(&mut self, found: &Found, location: &str) -> Result<(), Fault> {
        let verdicts = self.verdicts("stock-ledger", &found.records)?;
        let mut letters: HashMap<(Text, i64), String> = HashMap::new();
        let mut claims: BTreeMap<uuid::Uuid, (ReservationStatus, Decimal, String)> =
            BTreeMap::new();
        for record in &found.records {
            let event = match self.codec.decode(record) {
                Ok(event) => event,
                Err(fault) => {
                    let entry = Entry::unreadable(record, &fault);
                    self.answer.story.push(entry);
                    continue;
                }
            };
            if let Event::DeadLetter(letter) = &event {
                if let Some(original) = &letter.original {
                    let place = (original.topic.clone(), original.offset);
                    letters.insert(place, format!("{}: {}", letter.code, letter.message));
                }
                continue;
            }
            match &event {
                Event::StockLevel(level) => self.answer.level(level),
                Event::ReservationDecision(d) => {
                    let words = format!("order {} of {}", d.order_id, d.channel_id);
                    claims.insert(d.reservation_id, (d.status, d.qty_held, words));
                }
                _ => {}
            }
            let rank = POSITION.iter().position(|t| *t == &*record.origin.topic);
            let mut entry = Entry::of(record, &event, rank.unwrap_or_default());
            entry.quantity = match &event {
                Event::StockChanged(e) => Some(sellable_effect(e.from_state, e.to_state, e.qty)),
                _ => None,
            };
            let place = (record.origin.topic.clone(), record.origin.offset);
            if let Some(verdict) = verdicts.get(&place) {
                entry.outcome = Some(verdict.outcome);
                entry.reason = verdict.reason.as_ref().map(ToString::to_string);
            }
            let applied = entry.outcome == Some(Outcome::Applied);
            if !applied {
                entry.quantity = None;
            }
            if let Event::StockPolicy(policy) = &event
                && applied
            {
                self.answer.policy = Some(words::policy(policy));
            }
            self.answer.story.push(entry);
        }
        for entry in &mut self.answer.story {
            let place = (Text::from(entry.topic.as_str()), entry.offset);
            if let Some(why) = letters.remove(&place) {
                entry.reason = Some(why);
            }
        }
        let open = |status: &ReservationStatus| {
            matches!(
                status,
                ReservationStatus::Held
                    | ReservationStatus::Confirmed
                    | ReservationStatus::PartiallyConsumed
                    | ReservationStatus::Backordered
            )
        };
        self.answer.claims = claims
            .into_iter()
            .filter(|(_, (status, _, _))| open(status))
            .map(|(id, (status, held, words))| {
                format!("{} {held} for {words} ({id})", status.symbol())
            })
            .collect();
        if self.answer.story.is_empty() {
            self.answer.gaps.push(format!(
                "the log holds nothing of this SKU at {location}; check both names, and that the topics are those of this deployment"
            ));
        }
        Ok(())
    }

    /// What the reader said of these records: its words on those that it did not simply apply, and
    /// APPLIED for all others that its group has passed.
    fn verdicts(
        &mut self,
        reader: &str,
        records: &[Record],
    ) -> Result<HashMap<(Arc<str>, i64), Verdict>, Fault> {
        let inputs: &[&str] = processors::find(reader).map_or(&[], |p| p.descriptor.inputs);
        let mut partitions: BTreeSet<TopicPartition> = BTreeSet::new();
        for record in records
            .iter()
            .filter(|r| inputs.contains(&&*r.origin.topic))
        {
            partitions.insert(TopicPartition {
                topic: record.origin.topic.clone(),
                partition: record.origin.partition,
            });
        }
        let mut verdicts = HashMap::new();
        if partitions.is_empty() {
            return Ok(verdicts);
        }
        let partitions: Vec<TopicPartition> = partitions.into_iter().collect();
        let group = group_id(self.application, reader);
        let passed = self.log.admin().group_offsets(&group, &partitions)?;
        if passed.is_empty() {
            self.answer.gaps.push(format!(
                "how these records ended for {reader}: its group {group} has read nothing yet; where the deployment has another name, give it with --application"
            ));
        }
        for record in records {
            let partition = TopicPartition {
                topic: record.origin.topic.clone(),
                partition: record.origin.partition,
            };
            if passed
                .get(&partition)
                .is_some_and(|offset| record.origin.offset < *offset)
            {
                let applied = Verdict {
                    outcome: Outcome::Applied,
                    reason: None,
                };
                verdicts.insert((record.origin.topic.clone(), record.origin.offset), applied);
            }
        }
        let wanted: Vec<Wanted> = partitions
            .iter()
            .map(|p| {
                let number = p.partition.to_string();
                let key = compound_key(&[reader, &p.topic, &number]);
                Wanted::keyed(topic::OPS_DISPOSITION, &key)
            })
            .collect();
        let found = search::each(self.log.as_ref(), &self.existing, &wanted, |record| {
            let Ok(Event::DispositionRecord(said)) = self.codec.decode(record) else {
                return;
            };
            for other in said.others.iter().filter(|o| o.effect.is_empty()) {
                if let Some(verdict) = verdicts.get_mut(&(Arc::from(&*said.topic), other.offset)) {
                    verdict.outcome = other.outcome;
                    verdict.reason.clone_from(&other.reason);
                }
            }
        })?;
        self.answer.records_read += found;
        Ok(verdicts)
    }

    /// Exceptions about this position. They are keyed by case, so the whole topic is read.
    fn exceptions(&mut self, sku: &str, location: &str) -> Result<(), Fault> {
        let codec = self.codec;
        let answer = &mut self.answer;
        let wanted = [Wanted::whole(topic::OPS_EXCEPTION)];
        let read = search::each(self.log.as_ref(), &self.existing, &wanted, |record| {
            if let Ok(event) = codec.decode(record)
                && let Event::BusinessException(case) = &event
                && case.sku.as_deref() == Some(sku)
                && case.location_id.as_deref() == Some(location)
            {
                let entry = Entry::of(record, &event, POSITION.len());
                answer.story.push(entry);
                if matches!(
                    case.status,
                    ExceptionStatus::Open | ExceptionStatus::AutoHealing
                ) {
                    answer.cases.insert(
                        case.exception_id.to_string(),
                        format!(
                            "{}: expected {}, found {}",
                            case.code,
                            case.expected.as_deref().unwrap_or("?"),
                            case.actual.as_deref().unwrap_or("?")
                        ),
                    );
                } else {
                    answer.cases.remove(&case.exception_id.to_string());
                }
            }
        })?;
        self.answer.records_read += read;
        Ok(())
    }

    /// What the channel is offered by every location, what was published, and who was told.
    fn channel(&mut self, sku: &str, location: &str, channel: &str) -> Result<(), Fault> {
        let key = compound_key(&[sku, channel]);
        let receipts: Vec<String> = self
            .existing
            .keys()
            .filter(|t| self.catalogue.sink_of_receipt_topic(t).is_some())
            .cloned()
            .collect();
        let mut wanted = vec![
            Wanted::keyed(topic::STOCK_LEDGER_CHANNEL_LEVEL, &key),
            Wanted::keyed(topic::STOCK_ATS, &key),
        ];
        wanted.extend(
            receipts
                .iter()
                .map(|t| Wanted::receipts(t, topic::STOCK_ATS, &key)),
        );
        let found = self.search(&wanted)?;
        let mut sum = Sum::new(channel);
        let mut quantities: HashMap<i64, Decimal> = HashMap::new();
        for record in &found.records {
            let event = match self.codec.decode(record) {
                Ok(event) => event,
                Err(fault) => {
                    self.answer.story.push(Entry::unreadable(record, &fault));
                    continue;
                }
            };
            match &event {
                Event::ChannelLevel(offer) => {
                    sum.offer(offer);
                    if *offer.location_id != *location {
                        continue;
                    }
                }
                Event::AvailabilityChanged(e) => {
                    quantities.insert(e.ats_version, e.ats);
                    sum.published = Some((e.ats, e.ats_version));
                }
                Event::SinkReceipt(receipt) => {
                    let quantity = quantities.get(&receipt.sent_version).copied();
                    let at: Timestamp = Timestamp::from_millis(record.timestamp_ms);
                    sum.told.insert(
                        receipt.sink.to_string(),
                        Told {
                            version: receipt.sent_version,
                            quantity,
                            outcome: receipt.outcome.symbol(),
                            at,
                        },
                    );
                }
                _ => {}
            }
            let rank = POSITION.len()
                + 1
                + wanted
                    .iter()
                    .position(|w| *w.topic == *record.origin.topic)
                    .unwrap_or_default();
            self.answer.story.push(Entry::of(record, &event, rank));
        }
        self.answer.sums.push(sum);
        Ok(())
    }
}

/// What a movement does to sellable stock.
fn sellable_effect(from: StockState, to: StockState, quantity: Decimal) -> Decimal {
    match (from == StockState::Sellable, to == StockState::Sellable) {
        (true, false) => -quantity,
        (false, true) => quantity,
        _ => Decimal::default(),
    }
}

/// The one partition in which a key's records are.
fn partition_of(key: &str, partitions: i32) -> i32 {
    partition_for(key.as_bytes(), partitions)
}
