//! The topic catalogue of `topics.yaml`: which contract a topic carries, its key, its partitions,
//! who reads it.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Every sink, as a reader of a topic.
pub const SINKS: &str = "sinks";

/// The catalogue that this build knows, parsed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    defaults: Defaults,
    families: BTreeMap<String, Family>,
    topics: Vec<Topic>,
    per_reader: BTreeMap<String, PerReader>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    max_message_bytes: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    key: String,
    partitions: BTreeMap<Tier, i32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PerReader {
    name: String,
    contract: Option<String>,
    #[allow(dead_code, reason = "checked when the catalogue is linted")]
    status: Status,
    cleanup: String,
    retention: Retention,
    size_factor: usize,
}

/// A size of deployment.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Tier {
    /// About ten stores.
    S,
    /// About five hundred stores.
    M,
    /// Thousands of stores and marketplaces.
    L,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Class of service: which work goes first.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Class {
    P0,
    P1,
    P2,
    P3,
}

/// Whether a contract may still change.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// May change.
    Draft,
    /// Frozen: only new versions are added.
    Published,
}

/// What a rejected record does to later records of its key.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    /// The key goes on.
    Continue,
    /// Later records of the key wait; a newer whole state replaces them.
    BlockKey,
}

/// How long records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention(pub Option<Duration>);

impl<'de> Deserialize<'de> for Retention {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        if text == "forever" {
            return Ok(Retention(None));
        }
        let days = text.strip_suffix('d').and_then(|n| n.parse::<u64>().ok());
        days.map(|d| Retention(Some(Duration::from_secs(d * 86_400))))
            .ok_or_else(|| {
                serde::de::Error::custom(format!(
                    "retention {text:?}: write a number of days such as 7d, or forever"
                ))
            })
    }
}

/// Who consumes a topic and settles its records.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ReaderOf {
    /// Processor name, or `sinks` for every sink whose connector accepts the topic.
    pub reader: String,
    /// What a rejected record does to its key.
    pub on_reject: OnReject,
}

/// A fixed topic.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Topic name.
    pub name: String,
    /// Full name of its contract.
    pub contract: String,
    /// Whether the contract may still change.
    pub status: Status,
    /// Family: key template and partition count.
    pub family: String,
    /// Kafka's `cleanup.policy`.
    pub cleanup: String,
    /// How long records are kept.
    pub retention: Retention,
    /// Hours after which what a newer record of its key replaced is gone, where that must not take as
    /// long as a broker likes.
    #[serde(default)]
    pub compaction_hours_max: Option<u32>,
    /// Team that answers for it.
    pub owner: String,
    /// Class of service.
    pub class: Class,
    /// Highest tag of personal data in it.
    pub pii: String,
    /// Who consumes it.
    pub readers: Vec<ReaderOf>,
}

/// A topic as it should exist on a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhysicalTopic {
    /// Topic name.
    pub name: String,
    /// Partitions.
    pub partitions: i32,
    /// Full name of its contract; `None` for raw bytes.
    pub contract: Option<String>,
    /// Settings by Kafka's names.
    pub settings: BTreeMap<String, String>,
}

const TEXT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/topics.yaml"));

impl Catalogue {
    /// The catalogue compiled into this build.
    ///
    /// # Panics
    /// Never in a build that passed its tests: a test parses it.
    pub fn compiled() -> &'static Catalogue {
        static CATALOGUE: std::sync::OnceLock<Catalogue> = std::sync::OnceLock::new();
        CATALOGUE.get_or_init(|| match Catalogue::parse(TEXT) {
            Ok(catalogue) => catalogue,
            Err(error) => panic!("topics.yaml of this build: {error}"),
        })
    }

    /// Reads a catalogue.
    ///
    /// # Errors
    /// With line and column of the first mistake in form.
    pub fn parse(text: &str) -> Result<Catalogue, String> {
        serde_norway::from_str(text).map_err(|e| e.to_string())
    }

    /// The fixed topics.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// A fixed topic.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().find(|t| t.name == name)
    }

    /// Full name of the contract of a fixed or per-reader topic.
    pub fn contract(&self, topic: &str) -> Option<&str> {
        if let Some(topic) = self.topic(topic) {
            return Some(&topic.contract);
        }
        self.per_reader
            .values()
            .find(|p| matches(&p.name, topic))
            .and_then(|p| p.contract.as_deref())
    }

    /// Names of the parts of a topic's key, such as `sku` and `locationId`.
    pub fn key_parts(&self, topic: &str) -> Vec<&str> {
        let family = self.topic(topic).and_then(|t| self.families.get(&t.family));
        family.map_or_else(Vec::new, |f| {
            f.key
                .split('|')
                .map(|part| part.trim_matches(['{', '}']))
                .collect()
        })
    }

    /// Whether the topic keeps the last value of each key.
    pub fn is_compacted(&self, topic: &str) -> bool {
        self.topic(topic)
            .is_some_and(|t| t.cleanup.starts_with("compact"))
    }

    /// Largest record of an ordinary topic in bytes.
    pub fn default_message_bytes(&self) -> usize {
        self.defaults.max_message_bytes
    }

    /// Largest record of `topic` in bytes.
    pub fn max_message_bytes(&self, topic: &str) -> usize {
        let factor = self
            .per_reader
            .values()
            .find(|p| matches(&p.name, topic))
            .map_or(1, |p| p.size_factor);
        self.defaults.max_message_bytes * factor
    }

    /// Dead-letter topic of a reader.
    pub fn dead_letter_topic(&self, reader: &str) -> String {
        self.of_reader("dead_letter", reader)
    }

    /// Topic in which a connector keeps what was delivered to it.
    pub fn inbox_topic(&self, connector: &str) -> String {
        self.of_reader("inbox", connector)
    }

    /// Changelog topic of a processor.
    pub fn state_topic(&self, reader: &str) -> String {
        self.of_reader("state", reader)
    }

    /// The sink whose receipts a topic holds.
    pub fn sink_of_receipt_topic<'a>(&self, topic: &'a str) -> Option<&'a str> {
        self.reader_of("receipt", topic)
    }

    /// The reader whose dead letters a topic holds.
    pub fn reader_of_dead_letter_topic<'a>(&self, topic: &'a str) -> Option<&'a str> {
        self.reader_of("dead_letter", topic)
    }

    fn reader_of<'a>(&self, kind: &str, topic: &'a str) -> Option<&'a str> {
        let (before, after) = self.per_reader.get(kind)?.name.split_once("{reader}")?;
        topic.strip_prefix(before)?.strip_suffix(after)
    }

    /// Receipt topic of a sink.
    pub fn receipt_topic(&self, reader: &str) -> String {
        self.of_reader("receipt", reader)
    }

    /// Topic in which a reader keeps what is parked.
    pub fn park_topic(&self, reader: &str) -> String {
        self.of_reader("park", reader)
    }

    /// The reader whose parked records a topic holds.
    pub fn reader_of_park_topic<'a>(&self, topic: &'a str) -> Option<&'a str> {
        self.reader_of("park", topic)
    }

    /// Whether a record that `reader` (a processor, or [`SINKS`]) has rejected holds up later records of its
    /// key. In a sink, a newer state of a topic of states goes on without it.
    pub fn blocks_key(&self, topic: &str, reader: &str) -> bool {
        if reader == SINKS && self.is_compacted(topic) {
            return false;
        }
        let readers = self.topic(topic).map(|t| t.readers.iter());
        let mut readers = readers.into_iter().flatten();
        readers.any(|r| r.reader == reader && r.on_reject == OnReject::BlockKey)
    }

    fn of_reader(&self, kind: &str, reader: &str) -> String {
        self.per_reader
            .get(kind)
            .map_or_else(String::new, |p| p.name.replace("{reader}", reader))
    }

    /// Partitions of a fixed topic in a tier.
    pub fn partitions(&self, topic: &str, tier: Tier) -> Option<i32> {
        let family = self.families.get(&self.topic(topic)?.family)?;
        family.partitions.get(&tier).copied()
    }

    /// Every topic as it should exist for the given processors and sinks, each with one of its
    /// input topics.
    pub fn physical(
        &self,
        tier: Tier,
        processors: &[(&str, &str)],
        sinks: &[(&str, &str)],
    ) -> Vec<PhysicalTopic> {
        let size = |factor: usize| (self.defaults.max_message_bytes * factor).to_string();
        let mut all: Vec<PhysicalTopic> = self
            .topics
            .iter()
            .map(|t| PhysicalTopic {
                name: t.name.clone(),
                partitions: self.partitions(&t.name, tier).unwrap_or(1),
                contract: Some(t.contract.clone()),
                settings: {
                    let mut settings = settings(&t.cleanup, t.retention, size(1));
                    if let Some(hours) = t.compaction_hours_max {
                        let lag = (u64::from(hours) * 3_600_000).to_string();
                        settings.insert("max.compaction.lag.ms".to_owned(), lag);
                    }
                    settings
                },
            })
            .collect();
        let kinds_of =
            |kinds: &'static [&'static str], readers: &[(&str, &str)]| -> Vec<PhysicalTopic> {
                let each = |(reader, input): &(&str, &str)| {
                    let partitions = self.partitions(input, tier).unwrap_or(1);
                    let of_kind = |kind: &&str| self.physical_of_reader(kind, reader, partitions);
                    kinds.iter().filter_map(of_kind).collect::<Vec<_>>()
                };
                readers.iter().flat_map(each).collect()
            };
        all.extend(kinds_of(&["dead_letter", "park", "state"], processors));
        all.extend(kinds_of(&["dead_letter", "park", "receipt"], sinks));
        all
    }

    /// The topics that sources have of their own, each given with one topic it writes: dead
    /// letters for what cannot become an event.
    pub fn physical_of_sources(&self, tier: Tier, sources: &[(&str, &str)]) -> Vec<PhysicalTopic> {
        let of_source = |(source, output): &(&str, &str)| {
            let partitions = self.partitions(output, tier).unwrap_or(1);
            self.physical_of_reader("dead_letter", source, partitions)
        };
        sources.iter().filter_map(of_source).collect()
    }

    /// The topics in which these connectors keep what was delivered to them. One partition each:
    /// its order is the order of arrival.
    pub fn physical_of_inboxes(&self, connectors: &[&str]) -> Vec<PhysicalTopic> {
        let of_connector = |name: &&str| self.physical_of_reader("inbox", name, 1);
        connectors.iter().filter_map(of_connector).collect()
    }

    fn physical_of_reader(
        &self,
        kind: &str,
        reader: &str,
        partitions: i32,
    ) -> Option<PhysicalTopic> {
        let p = self.per_reader.get(kind)?;
        let size = self.defaults.max_message_bytes * p.size_factor;
        Some(PhysicalTopic {
            name: self.of_reader(kind, reader),
            partitions,
            contract: p.contract.clone(),
            settings: settings(&p.cleanup, p.retention, size.to_string()),
        })
    }
}

/// Whether `name` is `template` with some reader in it.
fn matches(template: &str, name: &str) -> bool {
    template
        .split_once("{reader}")
        .is_some_and(|(before, after)| {
            name.len() > before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
        })
}

fn settings(
    cleanup: &str,
    retention: Retention,
    max_message_bytes: String,
) -> BTreeMap<String, String> {
    let milliseconds = retention
        .0
        .map_or_else(|| "-1".to_owned(), |d| d.as_millis().to_string());
    BTreeMap::from([
        ("cleanup.policy".to_owned(), cleanup.to_owned()),
        ("retention.ms".to_owned(), milliseconds),
        ("max.message.bytes".to_owned(), max_message_bytes),
    ])
}

/// Key of the receipt for what was sent of `key` of the topic `input`: one key can stand in several
/// topics that a sink reads.
pub fn receipt_key(input: &str, key: &str) -> super::event::Text {
    compact_str::format_compact!("{input}|{key}")
}

/// Key under which the record of `key` at `offset` of the topic `input` stands in a reader's park topic.
pub fn park_key(input: &str, key: &str, offset: i64) -> super::event::Text {
    compact_str::format_compact!("{input}|{key}|{offset}")
}

/// Topic, key and offset of a [`park_key`].
pub fn parked_place(park_key: &str) -> Option<(&str, &str, i64)> {
    let (input, rest) = park_key.split_once('|')?;
    let (key, offset) = rest.rsplit_once('|')?;
    Some((input, key, offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{event::Event, topic};

    #[test]
    fn every_topic_has_a_contract_and_a_family_that_exist() {
        let catalogue = Catalogue::compiled();
        for t in catalogue.topics() {
            assert!(
                Event::CONTRACTS.iter().any(|(name, _)| *name == t.contract),
                "{}: {}",
                t.name,
                t.contract
            );
            assert!(
                catalogue.partitions(&t.name, Tier::S).is_some(),
                "{}",
                t.name
            );
        }
        assert_eq!(
            catalogue.key_parts(topic::STOCK_CHANGE),
            ["sku", "locationId"]
        );
    }

    #[test]
    fn a_readers_topics_have_the_partitions_of_its_input() {
        let catalogue = Catalogue::compiled();
        let all = catalogue.physical(
            Tier::M,
            &[("stock-ledger", topic::STOCK_CHANGE)],
            &[("webshop", topic::STOCK_ATS)],
        );
        let find = |name: &str| {
            all.iter()
                .find(|t| t.name == name)
                .unwrap_or_else(|| panic!("{name} is missing"))
        };
        assert_eq!(find("retail.rt.stock-ledger.state.v1").partitions, 24);
        assert_eq!(
            find("retail.rt.webshop.receipt.v1").settings["cleanup.policy"],
            "compact"
        );
        assert_eq!(
            find("retail.rt.webshop.dlq.v1").settings["max.message.bytes"],
            "2097152"
        );
        assert_eq!(
            catalogue.contract("retail.rt.webshop.dlq.v1"),
            Some("retail.ops.v1.DeadLetter")
        );
    }
}
