//! Finding what is asked for in the topics of a sink.

use super::{Ask, Candidate, RECORDS_MAX, Refusal, Target};
use crate::contract::event::{Event, Text};
use crate::domain::{Timestamp, compound_key, split_key};
use crate::log::scan::{Stretch, scan};
use crate::log::{LogError, Offset, TopicPartition, TopicSpec, Wanted, partition_for};
use crate::pipeline::{Fault, Inbound, Record, Verdict};
use memchr::memmem::Finder;
use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What was found.
pub struct Found {
    /// Records, the oldest first; those of a key in its order.
    pub candidates: Vec<Candidate>,
    /// Parts of the topics whose beginning is gone.
    pub gaps: Vec<Gap>,
    /// Records read to find them.
    pub records_read: u64,
}

/// A partition whose first records are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Topic and partition.
    pub partition: String,
    /// Where it begins now.
    pub first_offset: i64,
    /// When its first record was written; nothing where there is none.
    pub first_written_at: Option<Timestamp>,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Gap {
            partition,
            first_offset,
            ..
        } = self;
        match self.first_written_at {
            Some(at) => write!(
                f,
                "{partition} begins at offset {first_offset}, written at {at}"
            ),
            None => write!(f, "{partition} holds nothing before offset {first_offset}"),
        }
    }
}

enum End {
    TooMany,
    Failed(Fault),
}

impl From<LogError> for End {
    fn from(error: LogError) -> End {
        End::Failed(error.into())
    }
}

/// Finds the records that `ask` wants of the target's topics.
///
/// # Errors
/// When the log or the registry does not answer. Within: why there is nothing that could be replayed.
pub fn find(target: &Target, ask: &Ask, now: Timestamp) -> Result<Result<Found, Refusal>, Fault> {
    if let (Some(since), Some(until)) = (ask.since, ask.until)
        && until <= since
    {
        let why = format!("the time ends at {until}, before it begins at {since}; exchange them");
        return Ok(Err(Refusal(why)));
    }
    let existing = target.log.admin().topics()?;
    let read: Vec<&TopicSpec> = existing
        .iter()
        .filter(|t| target.topics.contains(&t.name) && applies(target, ask, &t.name))
        .collect();
    if read.is_empty() {
        return Ok(Err(nothing_to_read(target, ask)));
    }
    let (mut stretches, mut gaps) = (Vec::new(), Vec::new());
    for topic in &read {
        for at in partitions(target, ask, topic) {
            let from = match ask.since {
                Some(since) => Offset::At(target.log.admin().offset_at(&at, since.as_millis())?),
                None => Offset::Beginning,
            };
            if let Some(gap) = gap(target, topic, &at, from)? {
                gaps.push((topic.name.as_str(), gap));
            }
            stretches.push(Stretch {
                wanted: wanted(target, ask, &topic.name),
                at,
                from,
            });
        }
    }
    if let Some(since) = ask.since {
        let kept = |topic: &str| {
            let spec = read.iter().find(|t| t.name == topic);
            let retention = spec.and_then(|t| retention(target, t));
            // What its time has removed is older than that.
            retention.is_some_and(|kept| now.since(since) < kept)
        };
        let mut lost = gaps.iter().filter(|(topic, gap)| {
            !kept(topic) && gap.first_written_at.is_none_or(|at| since < at)
        });
        if let Some((_, gap)) = lost.next() {
            let remedy = match gap.first_written_at {
                Some(at) => format!("ask with --since {at} or later"),
                None => "ask for a later time".to_owned(),
            };
            let more = match lost.count() {
                0 => String::new(),
                more => format!(" (and {more} partitions like it)"),
            };
            let why = format!(
                "a part of what was written since {since} is past its retention: {gap}{more}; {remedy}, or for one order or SKU without a time"
            );
            return Ok(Err(Refusal(why)));
        }
    }
    let gaps: Vec<Gap> = gaps.into_iter().map(|(_, gap)| gap).collect();
    let mut all = Collected::default();
    let mut end = None;
    let read = scan(target.log.as_ref(), &stretches, |record| {
        let taken = all.take(target, ask, record);
        match taken {
            Ok(()) if all.count() > RECORDS_MAX => Err(End::TooMany),
            Ok(()) => Ok(()),
            Err(fault) => Err(End::Failed(fault)),
        }
    })
    .unwrap_or_else(|why| {
        end = Some(why);
        0
    });
    match end {
        Some(End::Failed(fault)) => return Err(fault),
        Some(End::TooMany) => {
            let why = format!(
                "more than {RECORDS_MAX} records are asked for; ask for a shorter time, or for an order or a SKU"
            );
            return Ok(Err(Refusal(why)));
        }
        None => {}
    }
    let candidates = all.finish();
    if !candidates.iter().any(|c| !c.is_later) {
        let mut why = format!(
            "nothing of {} stands in what {} takes ({})",
            ask.words(),
            target.name,
            target.topics.join(", ")
        );
        for gap in gaps.iter().take(3) {
            why += &format!("; {gap}");
        }
        why += match gaps.is_empty() {
            true => "; `crossdock explain` tells what is known of it",
            false => ": what was before that is past its retention",
        };
        return Ok(Err(Refusal(why)));
    }
    Ok(Ok(Found {
        candidates,
        gaps,
        records_read: read,
    }))
}

/// Whether records of a topic can concern what is asked.
fn applies(target: &Target, ask: &Ask, topic: &str) -> bool {
    let parts = target.catalogue.key_parts(topic);
    // Of SKUs are states and facts of SKUs, not every order that has one on a line.
    ask.sku.is_none() || parts.contains(&"sku") || parts.contains(&"entityKey")
}

fn nothing_to_read(target: &Target, ask: &Ask) -> Refusal {
    let takes = target.topics.join(", ");
    Refusal(match ask.sku {
        Some(_) => format!(
            "{} takes nothing that is kept by SKU; it takes {takes}",
            target.name
        ),
        None => format!(
            "the log has none of the topics that {} takes ({takes}); create them with `crossdock topics apply`",
            target.name
        ),
    })
}

/// The partitions of a topic in which what is asked for can stand.
fn partitions(target: &Target, ask: &Ask, topic: &TopicSpec) -> Vec<TopicPartition> {
    let place = |key: &str| {
        let number = partition_for(key.as_bytes(), topic.partitions);
        vec![TopicPartition::new(topic.name.as_str(), number)]
    };
    match (&*target.catalogue.key_parts(&topic.name), ask) {
        (["orderId"], Ask { order: Some(o), .. }) => place(&compound_key(&[o])),
        (["sku"], Ask { sku: Some(s), .. }) => place(&compound_key(&[s])),
        (
            ["sku", "locationId"],
            Ask {
                sku: Some(s),
                location: Some(l),
                ..
            },
        ) => place(&compound_key(&[s, l])),
        _ => (0..topic.partitions)
            .map(|number| TopicPartition::new(topic.name.as_str(), number))
            .collect(),
    }
}

/// Which records of a topic are worth decoding: those that hold every name that is asked for.
fn wanted(target: &Target, ask: &Ask, topic: &str) -> Option<Arc<Wanted>> {
    // A newer state of another content may stand in the place of one that was asked for.
    if target.catalogue.is_compacted(topic) && ask.location.is_some() {
        return None;
    }
    let names = [&ask.order, &ask.sku, &ask.location];
    let finders: Vec<Finder<'static>> = names
        .into_iter()
        .flatten()
        .map(|name| Finder::new(name.as_bytes()).into_owned())
        .collect();
    if finders.is_empty() {
        return None;
    }
    Some(Arc::new(move |key: Option<&[u8]>, value: Option<&[u8]>| {
        let holds =
            |f: &Finder<'_>, bytes: Option<&[u8]>| bytes.is_some_and(|b| f.find(b).is_some());
        finders.iter().all(|f| holds(f, key) || holds(f, value))
    }))
}

fn gap(
    target: &Target,
    topic: &TopicSpec,
    at: &TopicPartition,
    from: Offset,
) -> Result<Option<Gap>, Fault> {
    // Compaction leaves the newest of each key.
    let deletes = target
        .catalogue
        .topic(&topic.name)
        .is_none_or(|t| t.cleanup.contains("delete"));
    let (first, end) = target.log.admin().watermarks(at)?;
    let reaches_back = match from {
        Offset::At(offset) => offset <= first,
        _ => true,
    };
    if first == 0 || !deletes || !reaches_back {
        return Ok(None);
    }
    let mut first_written_at = None;
    if first < end {
        let from = [(at.clone(), Offset::At(first))];
        let mut reader = target
            .log
            .reader(&from, crate::log::Isolation::ReadCommitted)?;
        let mut records = Vec::new();
        while records.is_empty() && !reader.caught_up() {
            reader.poll(1, Duration::from_millis(100), &mut records)?;
        }
        let first = records.first();
        first_written_at = first.map(|r| Timestamp::from_millis(r.timestamp_ms));
    }
    Ok(Some(Gap {
        partition: at.to_string(),
        first_offset: first,
        first_written_at,
    }))
}

/// How long a topic keeps its records for certain; nothing where it may remove them by their size.
fn retention(target: &Target, topic: &TopicSpec) -> Option<Duration> {
    let number = |name: &str| topic.settings.get(name)?.parse::<i64>().ok();
    if number("retention.bytes").is_some_and(|bytes| bytes >= 0) {
        return None;
    }
    match number("retention.ms") {
        Some(ms) => Some(u64::try_from(ms).map_or(Duration::MAX, Duration::from_millis)),
        None => target.catalogue.topic(&topic.name)?.retention.0,
    }
}

/// The records that were found so far.
#[derive(Default)]
struct Collected {
    facts: Vec<Candidate>,
    /// Of topics of states the newest of each key, and whether one of it was asked for.
    states: HashMap<(Arc<str>, Text), (Candidate, bool)>,
}

impl Collected {
    fn count(&self) -> usize {
        self.facts.len() + self.states.len()
    }

    fn take(&mut self, target: &Target, ask: &Ask, record: &Record) -> Result<(), Fault> {
        let Some(Ok(key)) = record.key.as_deref().map(std::str::from_utf8) else {
            return Ok(());
        };
        let key = Text::from(key);
        let topic = record.origin.topic.clone();
        let is_state = target.catalogue.is_compacted(&topic);
        let at = Timestamp::from_millis(record.timestamp_ms);
        let is_later = ask.until.is_some_and(|until| at >= until);
        let (inbound, is_asked) = match target.codec.decode(record) {
            Ok(event) => {
                let is_asked = concerns(target, ask, &key, &topic, &event);
                let record = record.detached();
                (Ok(Inbound { record, event }), is_asked)
            }
            Err(fault) if fault.verdict == Verdict::Reject => {
                let is_asked = ask == &Ask::default() || has_key(target, ask, &key, &topic);
                let why = format!("{}: {}", fault.code, fault.message);
                (Err((record.detached(), why)), is_asked)
            }
            Err(fault) => return Err(fault),
        };
        let is_ours = inbound.as_ref().is_ok_and(|i| target.sink.wants(i));
        if is_state {
            let place = (topic, key.clone());
            let was_asked = self.states.get(&place).is_some_and(|(_, asked)| *asked);
            if is_asked || was_asked {
                let candidate = Candidate {
                    key,
                    inbound,
                    is_later: false,
                };
                let asked = was_asked || (is_asked && is_ours && !is_later);
                self.states.insert(place, (candidate, asked));
            }
            return Ok(());
        }
        if is_asked && (is_ours || inbound.is_err()) {
            self.facts.push(Candidate {
                key,
                inbound,
                is_later,
            });
        }
        Ok(())
    }

    fn finish(self) -> Vec<Candidate> {
        let asked = self.states.into_values().filter(|(_, asked)| *asked);
        let mut all = self.facts;
        all.extend(asked.map(|(candidate, _)| candidate));
        // Across topics by time, within a partition by its order.
        all.sort_by(|a, b| {
            let of = |c: &Candidate| (c.record().timestamp_ms, c.record().origin.clone());
            of(a).cmp(&of(b))
        });
        all
    }
}

/// Whether the parts of the key say that the record is one that is asked for.
fn has_key(target: &Target, ask: &Ask, key: &str, topic: &str) -> bool {
    let parts = split_key(key);
    let names = target.catalogue.key_parts(topic);
    let named = |name: &str| {
        let at = names.iter().position(|n| *n == name)?;
        parts.get(at).map(String::as_str)
    };
    let fits =
        |asked: &Option<String>, name: &str| asked.is_none() || named(name) == asked.as_deref();
    fits(&ask.order, "orderId") && fits(&ask.sku, "sku") && fits(&ask.location, "locationId")
}

/// Whether an event is about what is asked for.
fn concerns(target: &Target, ask: &Ask, key: &str, topic: &str, event: &Event) -> bool {
    if has_key(target, ask, key, topic) {
        return true;
    }
    let Ok(fields) = serde_json::to_value(event) else {
        return false;
    };
    let says = |asked: &Option<String>, names: &[&str], deep: bool| {
        let Some(asked) = asked else { return true };
        let in_key = names.iter().any(|name| {
            let only = Ask {
                order: (*name == "orderId").then(|| asked.clone()),
                sku: (*name == "sku").then(|| asked.clone()),
                location: (*name == "locationId").then(|| asked.clone()),
                ..Ask::default()
            };
            only != Ask::default() && has_key(target, &only, key, topic)
        });
        in_key || mentions(&fields, asked, names, deep)
    };
    says(&ask.order, &["orderId"], true)
        && says(&ask.sku, &["sku"], false)
        && says(&ask.location, &["locationId", "nodeId"], true)
}

/// Whether a field of one of these names holds this text, at any depth or at the top.
fn mentions(value: &Value, text: &str, names: &[&str], deep: bool) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            let is_it = names.contains(&name.as_str()) && value.as_str() == Some(text);
            is_it || (deep && mentions(value, text, names, deep))
        }),
        Value::Array(list) => deep && list.iter().any(|v| mentions(v, text, names, deep)),
        _ => false,
    }
}
