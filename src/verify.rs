//! The ledger: every record read, for each reader, against the outcomes that were booked.
//!
//! Counts come from the log alone: records as a committed read sees them, dispositions, and the
//! groups' offsets. `produced = applied + duplicate + superseded + compensated + buffered + parked +
//! dead-lettered + in flight`, or somebody has lost or repeated something, and the places are named.

use crate::codec::Codec;
use crate::contract::event::{Event, Outcome};
use crate::contract::{Catalogue, topic};
use crate::log::scan::{Stretch, scan};
use crate::log::{Log, LogError, TopicPartition};
use crate::pipeline::{Fault, Record};
use crate::runtime::group_id;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The books of a deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Records times the readers that must settle them.
    pub produced: i64,
    /// Took effect.
    pub applied: i64,
    /// Had been settled before.
    pub duplicate: i64,
    /// Overtaken by a newer truth.
    pub superseded: i64,
    /// Undone by a later record.
    pub compensated: i64,
    /// Wait for another fact.
    pub buffered: i64,
    /// Wait behind a blocked key or for a target.
    pub parked: i64,
    /// Can never succeed.
    pub dead_lettered: i64,
    /// Not settled yet.
    pub in_flight: i64,
    /// What does not add up, with topic, partition and offsets; empty when the books balance.
    pub faults: Vec<String>,
    /// The same by reader.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub readers: BTreeMap<String, Ledger>,
}

impl Ledger {
    /// Whether everything produced is accounted for, once.
    pub fn balances(&self) -> bool {
        let accounted = self.applied
            + self.duplicate
            + self.superseded
            + self.compensated
            + self.buffered
            + self.parked
            + self.dead_lettered
            + self.in_flight;
        self.faults.is_empty()
            && accounted == self.produced
            && self.readers.values().all(Ledger::balances)
    }

    fn add(&mut self, outcome: Outcome, count: i64) {
        match outcome {
            Outcome::Applied => self.applied += count,
            Outcome::Duplicate => self.duplicate += count,
            Outcome::Superseded => self.superseded += count,
            Outcome::Compensated => self.compensated += count,
            Outcome::Buffered => self.buffered += count,
            Outcome::Parked => self.parked += count,
            Outcome::DeadLettered => self.dead_lettered += count,
            Outcome::Unknown => self
                .faults
                .push("a disposition has an outcome that this build does not know".into()),
        }
    }

    fn take(&mut self, other: &Ledger) {
        self.produced += other.produced;
        self.applied += other.applied;
        self.duplicate += other.duplicate;
        self.superseded += other.superseded;
        self.compensated += other.compensated;
        self.buffered += other.buffered;
        self.parked += other.parked;
        self.dead_lettered += other.dead_lettered;
        self.in_flight += other.in_flight;
        self.faults.extend(other.faults.iter().cloned());
    }
}

/// What one reader said of one partition.
#[derive(Default)]
struct Said {
    /// First offset, last offset and count of each transaction.
    ranges: Vec<(i64, i64, i64)>,
    /// The latest word on each record whose outcome was not APPLIED at first.
    others: HashMap<i64, Outcome>,
}

/// Reads a topic whole and hands each committed record to `each`.
///
/// # Errors
/// When the log does not answer, or has no such topic.
pub fn read_topic(log: &dyn Log, topic: &str, each: impl FnMut(&Record)) -> Result<(), Fault> {
    read_topics(log, [topic], each)
}

/// As [`read_topic`], of several topics at the same time: records of different topics come mixed.
///
/// # Errors
/// As [`read_topic`].
pub fn read_topics<'a>(
    log: &dyn Log,
    topics: impl IntoIterator<Item = &'a str>,
    mut each: impl FnMut(&Record),
) -> Result<(), Fault> {
    let mut stretches = Vec::new();
    for topic in topics {
        let unknown = || LogError::UnknownTopic {
            topic: topic.to_owned(),
        };
        let partitions = log.admin().partitions(topic)?.ok_or_else(unknown)?;
        stretches.extend(Stretch::whole(topic, partitions));
    }
    scan(log, &stretches, |record| {
        each(record);
        Ok(())
    })
    .map(drop)
}

/// The next offset of each reader's group in a partition.
type Committed = HashMap<(String, TopicPartition), i64>;

/// Balances the books. `readers` are those that must settle a topic's records: reader and topic.
///
/// # Errors
/// When the log or the registry does not answer.
pub fn ledger(
    log: &Arc<dyn Log>,
    codec: &Codec,
    catalogue: &Catalogue,
    application: &str,
    readers: &[(String, String)],
) -> Result<Ledger, Fault> {
    // First what the groups say they have done, then what was booked, then what there is: whatever
    // is committed or written meanwhile then looks unfinished, not lost.
    let committed = committed(log.as_ref(), application, readers)?;
    balanced(log, codec, catalogue, readers, &committed)
}

/// Records that the readers have not settled, by reader: what the books say alone, without what groups have
/// committed, so that it can be asked for while their coordinators are away.
///
/// # Errors
/// When the log or the registry does not answer.
pub fn in_flight(
    log: &Arc<dyn Log>,
    codec: &Codec,
    catalogue: &Catalogue,
    readers: &[(String, String)],
) -> Result<BTreeMap<String, i64>, Fault> {
    let books = balanced(log, codec, catalogue, readers, &HashMap::new())?;
    let readers = books.readers.into_iter();
    Ok(readers.map(|(name, l)| (name, l.in_flight)).collect())
}

/// Where the groups of the readers stand.
fn committed(
    log: &dyn Log,
    application: &str,
    readers: &[(String, String)],
) -> Result<Committed, Fault> {
    let mut committed = Committed::new();
    let existing = log.admin().topics()?;
    // A group is asked once for all that it reads: to find who coordinates it takes most of the time.
    let mut inputs: BTreeMap<&str, Vec<TopicPartition>> = BTreeMap::new();
    for (reader, topic) in readers {
        let found = existing.iter().find(|t| t.name == *topic);
        let partitions = 0..found.map_or(0, |t| t.partitions);
        let of_topic = partitions.map(|p| TopicPartition::new(topic.as_str(), p));
        inputs.entry(reader).or_default().extend(of_topic);
    }
    for (reader, partitions) in inputs.iter().filter(|(_, p)| !p.is_empty()) {
        let group = group_id(application, reader);
        let offsets = log.admin().group_offsets(&group, partitions)?.into_iter();
        committed.extend(offsets.map(|(p, offset)| (((*reader).to_owned(), p), offset)));
    }
    Ok(committed)
}

fn balanced(
    log: &Arc<dyn Log>,
    codec: &Codec,
    catalogue: &Catalogue,
    readers: &[(String, String)],
    committed: &Committed,
) -> Result<Ledger, Fault> {
    let mut said: HashMap<(String, TopicPartition), Said> = HashMap::new();
    let mut broken = Vec::new();
    read_topic(log.as_ref(), topic::OPS_DISPOSITION, |record| {
        match codec.decode(record) {
            Ok(Event::DispositionRecord(d)) => {
                let partition = TopicPartition::new(&*d.topic, d.partition);
                let said = said.entry((d.reader.to_string(), partition)).or_default();
                if d.count > 0 {
                    said.ranges.push((d.first_offset, d.last_offset, d.count));
                }
                for other in d.others.iter().filter(|o| o.effect.is_empty()) {
                    said.others.insert(other.offset, other.outcome);
                }
            }
            Ok(other) => broken.push(format!(
                "{}: {} among the dispositions",
                record.origin,
                other.contract()
            )),
            Err(fault) => broken.push(format!("{}: {fault}", record.origin)),
        }
    })?;
    let mut offsets: BTreeMap<TopicPartition, Vec<i64>> = BTreeMap::new();
    let topics: BTreeSet<&str> = readers.iter().map(|(_, topic)| topic.as_str()).collect();
    read_topics(log.as_ref(), topics, |record| {
        let partition = TopicPartition {
            topic: record.origin.topic.clone(),
            partition: record.origin.partition,
        };
        offsets
            .entry(partition)
            .or_default()
            .push(record.origin.offset);
    })?;
    let mut whole = Ledger {
        faults: broken,
        ..Ledger::default()
    };
    for (reader, topic) in readers {
        let mut books = Ledger::default();
        for (partition, offsets) in offsets.iter().filter(|(p, _)| *p.topic == **topic) {
            let committed = committed
                .get(&(reader.clone(), partition.clone()))
                .copied()
                .unwrap_or(0);
            let nothing = Said::default();
            let said = said
                .get(&(reader.clone(), partition.clone()))
                .unwrap_or(&nothing);
            balance(
                reader,
                partition,
                offsets,
                committed,
                said,
                catalogue.is_compacted(topic),
                &mut books,
            );
        }
        whole.take(&books);
        let of_reader = whole.readers.entry(reader.clone()).or_default();
        of_reader.take(&books);
    }
    Ok(whole)
}

fn balance(
    reader: &str,
    partition: &TopicPartition,
    offsets: &[i64],
    committed: i64,
    said: &Said,
    compacted: bool,
    books: &mut Ledger,
) {
    let mut ranges = said.ranges.clone();
    ranges.sort_unstable();
    for pair in ranges.windows(2).filter(|pair| pair[1].0 <= pair[0].1) {
        books.faults.push(format!(
            "{reader}: {partition} offsets {} to {} were settled twice",
            pair[1].0,
            pair[0].1.min(pair[1].1)
        ));
    }
    let settled = offsets.partition_point(|o| *o < committed);
    books.produced += offsets.len() as i64;
    let mut at = 0;
    let mut visible = 0;
    for (first, last, count) in &ranges {
        let from = offsets.partition_point(|o| o < first);
        let to = offsets.partition_point(|o| o <= last);
        if let Some(lost) = offsets.get(at..from).and_then(|gap| gap.first()) {
            books.faults.push(format!(
                "{reader}: {partition} offset {lost} was passed over without an outcome"
            ));
        }
        let inside = (to - from) as i64;
        // Compaction removes records that were settled; it never adds any.
        if inside != *count
            && !(compacted && inside < *count)
            && !(inside < *count && offsets.first().is_some_and(|o| o > first))
        {
            books.faults.push(format!("{reader}: {partition} offsets {first} to {last} hold {inside} records, but {count} outcomes were booked"));
        }
        visible += inside;
        at = at.max(to);
    }
    if at < settled {
        books.faults.push(format!(
            "{reader}: {partition} offset {} was committed without an outcome",
            offsets[at]
        ));
    }
    books.in_flight += offsets.len() as i64 - visible;
    let mut applied = visible;
    for (offset, outcome) in &said.others {
        if *outcome != Outcome::Applied && offsets.binary_search(offset).is_ok() {
            applied -= 1;
            books.add(*outcome, 1);
        }
    }
    books.applied += applied;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(
        offsets: &[i64],
        committed: i64,
        ranges: &[(i64, i64, i64)],
        others: &[(i64, Outcome)],
    ) -> Ledger {
        let said = Said {
            ranges: ranges.to_vec(),
            others: others.iter().copied().collect(),
        };
        let mut books = Ledger::default();
        balance(
            "reader",
            &TopicPartition::new("topic", 0),
            offsets,
            committed,
            &said,
            false,
            &mut books,
        );
        books
    }

    #[test]
    fn markers_between_records_do_not_disturb_the_balance() {
        let ledger = books(
            &[0, 1, 3, 4, 6],
            5,
            &[(0, 1, 2), (3, 4, 2)],
            &[(1, Outcome::Duplicate)],
        );
        assert!(ledger.balances(), "{ledger:?}");
        assert_eq!(
            (ledger.applied, ledger.duplicate, ledger.in_flight),
            (3, 1, 1)
        );
    }

    #[test]
    fn a_lost_a_repeated_and_an_unbooked_record_are_each_named() {
        for (ranges, words) in [
            (&[(0, 1, 2), (3, 3, 1)][..], "passed over"),
            (&[(0, 2, 3), (2, 3, 2)][..], "settled twice"),
            (&[(0, 2, 3)][..], "committed without an outcome"),
            (&[(0, 3, 3)][..], "hold 4 records"),
        ] {
            let ledger = books(&[0, 1, 2, 3], 4, ranges, &[]);
            assert!(
                !ledger.balances() && ledger.faults[0].contains(words),
                "{words}: {ledger:?}"
            );
        }
    }
}
