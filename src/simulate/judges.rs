//! Judges what a run has left: the log, and what the systems around have written down. Shares nothing
//! with what is judged: the demo's invariants fold facts anew, and so do the rules here.

use super::target::{KNOWN, ONE_CALL, Told, Wire};
use super::world::{PARTITIONS, World, codec};
use crate::contract::event::{Event, Outcome, Settled};
use crate::contract::{Catalogue, Tier, topic};
use crate::demo::invariants::{Around, Books, TOPICS, WORDING, judge};
use crate::demo::systems::{CANARY, open};
use crate::domain::{Decimal, compound_key};
use crate::log::{Admin, Isolation, Log, Offset, TopicPartition, partition_for};
use crate::pipeline::{Fault, Record, Verdict};
use crate::verify;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// What a judge has found.
pub(super) struct Judgement {
    /// Rule and counter-example of each rule that does not hold.
    pub broken: Vec<(String, String)>,
    /// Of everything that stands in the log.
    pub digest: String,
    /// Committed records of all topics.
    pub records: u64,
}

/// Everything committed, in order of topic, partition and offset.
fn read_all(world: &World) -> Result<BTreeMap<String, Vec<Record>>, Fault> {
    let mut all = BTreeMap::new();
    for spec in world.log.topics()? {
        let from: Vec<_> = (0..spec.partitions)
            .map(|p| {
                (
                    TopicPartition::new(spec.name.as_str(), p),
                    Offset::Beginning,
                )
            })
            .collect();
        let mut records = Vec::new();
        for at in from {
            let mut reader = world.log.reader(&[at], Isolation::ReadCommitted)?;
            reader.poll(usize::MAX >> 1, Duration::ZERO, &mut records)?;
        }
        all.insert(spec.name, records);
    }
    Ok(all)
}

/// What cannot be read cannot be right.
pub(super) fn unreadable(fault: Fault) -> Judgement {
    Judgement {
        broken: vec![("the log can be read".into(), fault.to_string())],
        digest: String::new(),
        records: 0,
    }
}

/// Judges a world at rest.
pub(super) fn judged(world: &Arc<World>) -> Result<Judgement, Fault> {
    let all = read_all(world)?;
    let codec = codec();
    let mut broken = Vec::new();
    let mut books = Books::default();
    for name in TOPICS {
        for record in all.get(name).into_iter().flatten() {
            match codec.decode(record) {
                Ok(event) => books.read(record, event),
                Err(_) => books.unreadable(record),
            }
        }
    }
    let ledger = verify::ledger(
        &world.bare,
        &codec,
        Catalogue::compiled(),
        &World::application(),
        &world.settles(),
    )?;
    let market = open(&world.cast.market);
    let sinks = world.settles().into_iter();
    let sinks =
        sinks.filter(|(reader, _)| world.plan.trade.systems().iter().any(|(n, _)| n == reader));
    let around = Around {
        systems: world.cast.estate.entries(),
        faults: market.faults(),
        sinks: sinks.collect(),
        leak: leak(&all),
        skew: Duration::from_secs(10),
    };
    let shown = world.cast.estate.shown();
    let verdicts = judge(&books, &ledger, &shown, &around, world.time.now());
    for (number, words) in WORDING {
        match verdicts.0.get(&number) {
            Some(verdict) if verdict != "ok" => {
                broken.push((words.to_owned(), verdict.clone()));
            }
            _ => {}
        }
    }
    if !ledger.balances() {
        let why = ledger.faults.first().cloned();
        let why = why.unwrap_or_else(|| format!("{} in flight", ledger.in_flight));
        broken.push(("the ledger balances".into(), why));
    }
    let rules: [(&str, Option<String>); 10] = [
        ("what can be read is not dead-lettered", buried(&all)?),
        ("a key stays in its partition", astray(&all)),
        (
            "only what is committed reaches a system",
            uncommitted(world, &all),
        ),
        ("what a source tells is written once", retold(world, &all)?),
        (
            "what is known already stands in the log twice",
            originals(&all)?,
        ),
        ("no key stays parked", parked(&all)),
        (ONE_CALL, on_wires(world, ONE_CALL)),
        (KNOWN, on_wires(world, KNOWN)),
        (
            "live state is what its changelog holds",
            rebuilt(world, &all),
        ),
        (
            "the level is what lies on the shelf",
            shelves(world, &books),
        ),
    ];
    for (rule, found) in rules {
        broken.extend(found.map(|why| (rule.to_owned(), why)));
    }
    Ok(Judgement {
        broken,
        digest: digest(&all),
        records: all.values().map(|r| r.len() as u64).sum(),
    })
}

fn digest(all: &BTreeMap<String, Vec<Record>>) -> String {
    let mut hash = Sha256::new();
    for record in all.values().flatten() {
        hash.update(record.origin.to_string());
        hash.update(record.timestamp_ms.to_le_bytes());
        for part in [record.key.as_deref(), record.value.as_deref()] {
            hash.update(part.map_or(-1, |p| p.len() as i64).to_le_bytes());
            hash.update(part.unwrap_or_default());
        }
        hash.update(record.headers.packed());
    }
    hash.finalize()[..8]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn leak(all: &BTreeMap<String, Vec<Record>>) -> Option<String> {
    let needle = CANARY.as_bytes();
    let finder = memchr::memmem::Finder::new(needle);
    let holds = |r: &&Record| {
        let parts = [
            r.key.as_deref(),
            r.value.as_deref(),
            Some(&**r.headers.packed()),
        ];
        parts
            .into_iter()
            .flatten()
            .any(|part| finder.find(part).is_some())
    };
    let found = all.values().flatten().find(holds);
    found.map(|r| r.origin.to_string())
}

/// Nothing in a run is refused for good but what nobody can read.
fn buried(all: &BTreeMap<String, Vec<Record>>) -> Result<Option<String>, Fault> {
    let letters = all.iter().filter(|(topic, _)| topic.ends_with(".dlq.v1"));
    for record in letters.flat_map(|(_, records)| records) {
        if let Event::DeadLetter(letter) = codec().decode(record)?
            && letter.value.as_ref().is_none_or(|v| *v.0 != *b"junk")
        {
            return Ok(Some(format!(
                "{} has refused a record as {}: {}: {}",
                letter.processor, letter.code, letter.message, record.origin
            )));
        }
    }
    Ok(None)
}

/// Topics that the runtime keeps for itself have partitions of its own choice.
fn is_of_runtime(topic: &str) -> bool {
    topic.starts_with("retail.rt.") || topic == crate::registry::TOPIC
}

fn astray(all: &BTreeMap<String, Vec<Record>>) -> Option<String> {
    for (topic, records) in all.iter().filter(|(t, _)| !is_of_runtime(t)) {
        let known = Catalogue::compiled().partitions(topic, Tier::S)?;
        let count = known.min(PARTITIONS);
        let wrong = records.iter().find(|r| {
            let key = r.key.as_deref().unwrap_or_default();
            partition_for(key, count) != r.origin.partition
        });
        if let Some(record) = wrong {
            let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default());
            return Some(format!("{key} stands at {}", record.origin));
        }
    }
    None
}

fn uncommitted(world: &World, all: &BTreeMap<String, Vec<Record>>) -> Option<String> {
    for wire in &world.wires {
        let state = open(&wire.state);
        let mut committed: BTreeMap<(&str, i32), BTreeSet<i64>> = BTreeMap::new();
        for (topic, partition, offset) in &state.heard {
            let offsets = committed.entry((topic, *partition)).or_insert_with(|| {
                let records = all.get(topic.as_str()).into_iter().flatten();
                let here = records.filter(|r| r.origin.partition == *partition);
                here.map(|r| r.origin.offset).collect()
            });
            if !offsets.contains(offset) {
                return Some(format!(
                    "{} was told of {topic}[{partition}]@{offset}, which is not committed",
                    wire.name
                ));
            }
        }
    }
    None
}

fn on_wires(world: &World, rule: &str) -> Option<String> {
    let wrong = |w: &Arc<Wire>| open(&w.state).wrong.clone();
    let mut all = world.wires.iter().filter_map(wrong);
    all.find(|(r, _)| *r == rule).map(|(_, why)| why)
}

/// Identities of the events in a topic, with how often each stands there.
fn identities(records: &[Record]) -> Result<BTreeMap<Uuid, usize>, Fault> {
    let mut count: BTreeMap<Uuid, usize> = BTreeMap::new();
    for record in records {
        match codec().decode(record) {
            Ok(event) => *count.entry(event.meta().event_id).or_default() += 1,
            // Junk has none.
            Err(fault) if fault.verdict == Verdict::Reject => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(count)
}

/// Facts and the source's place in its system's order are written together or not at all: each fact stands
/// in the log as often as its system has told it. Systems whose messages come twice are left out.
fn retold(world: &World, all: &BTreeMap<String, Vec<Record>>) -> Result<Option<String>, Fault> {
    if world.plan.twice > 0.0 {
        return Ok(None);
    }
    let mut topics: BTreeMap<&str, BTreeMap<Uuid, usize>> = BTreeMap::new();
    for wire in &world.wires {
        let state = open(&wire.state);
        let mut told: BTreeMap<Told, usize> = BTreeMap::new();
        for fact in state.told.values() {
            *told.entry(*fact).or_default() += 1;
        }
        for ((topic, id), times) in told {
            if !topics.contains_key(topic) {
                let records = all.get(topic).map_or(&[][..], Vec::as_slice);
                topics.insert(topic, identities(records)?);
            }
            let stands = topics[topic].get(&id).copied().unwrap_or_default();
            let again = state.again.get(&(topic, id)).copied().unwrap_or_default();
            if !(times..=times + again).contains(&stands) {
                return Ok(Some(format!(
                    "{} has told {id} {times} times, it stands in {topic} {stands} times",
                    wire.name
                )));
            }
        }
    }
    Ok(None)
}

/// A movement counts as known only where the same one stands elsewhere in the log.
fn originals(all: &BTreeMap<String, Vec<Record>>) -> Result<Option<String>, Fault> {
    let movements = all.get(topic::STOCK_CHANGE).map_or(&[][..], Vec::as_slice);
    let count = identities(movements)?;
    let mut ids = BTreeMap::new();
    for record in movements {
        if let Ok(event) = codec().decode(record) {
            let at = (record.origin.partition, record.origin.offset);
            ids.insert(at, event.meta().event_id);
        }
    }
    for record in all.get(topic::OPS_DISPOSITION).into_iter().flatten() {
        let Event::DispositionRecord(e) = codec().decode(record)? else {
            continue;
        };
        let known = |o: &&Settled| o.outcome == Outcome::Duplicate && o.effect.is_empty();
        if e.topic != topic::STOCK_CHANGE || e.reader != "stock-ledger" {
            continue;
        }
        for offset in e.others.iter().filter(known).map(|o| o.offset) {
            let id = ids.get(&(e.partition, offset));
            if id.and_then(|id| count.get(id)).is_some_and(|n| *n == 1) {
                return Ok(Some(format!(
                    "{}[{}]@{offset} counts as known, and stands nowhere else",
                    e.topic, e.partition
                )));
            }
        }
    }
    Ok(None)
}

/// What is parked goes on, and leaves nothing behind.
fn parked(all: &BTreeMap<String, Vec<Record>>) -> Option<String> {
    for (_, records) in all.iter().filter(|(topic, _)| topic.ends_with(".park.v1")) {
        let mut open: BTreeMap<(i32, &[u8]), &Record> = BTreeMap::new();
        for record in records {
            let key = record.key.as_deref().unwrap_or_default();
            let at = (record.origin.partition, key);
            match record.value {
                Some(_) => open.insert(at, record),
                None => open.remove(&at),
            };
        }
        if let Some(((_, key), record)) = open.first_key_value() {
            let key = String::from_utf8_lossy(key);
            return Some(format!("{key} is parked still: {}", record.origin));
        }
    }
    None
}

/// What a restart would read, against what the instances hold.
fn rebuilt(world: &World, all: &BTreeMap<String, Vec<Record>>) -> Option<String> {
    for (name, live) in world.live_state() {
        let changelog = Catalogue::compiled().state_topic(name);
        let mut kept: BTreeMap<(i32, &[u8]), &[u8]> = BTreeMap::new();
        for record in all.get(&changelog).into_iter().flatten() {
            let at = (
                record.origin.partition,
                record.key.as_deref().unwrap_or_default(),
            );
            match record.value.as_deref() {
                Some(value) => kept.insert(at, value),
                None => kept.remove(&at),
            };
        }
        let bytes = kept.iter().map(|((_, key), value)| key.len() + value.len());
        let cold = (kept.len(), bytes.sum::<usize>());
        if cold != live {
            return Some(format!(
                "{name} holds {} keys of {} bytes, its changelog {} of {}",
                live.0, live.1, cold.0, cold.1
            ));
        }
    }
    None
}

/// Nodes know what lies with them without having heard of any event.
fn shelves(world: &World, books: &Books) -> Option<String> {
    for (location, node) in &world.cast.estate.nodes {
        for (sku, there) in open(node).shelf() {
            let key = compound_key(&[sku, location]);
            let level = books.sellable(&key).unwrap_or(Decimal::ZERO);
            if level != *there {
                return Some(format!(
                    "{there} of {sku} lie in {location}, the level says {level}"
                ));
            }
        }
    }
    None
}
