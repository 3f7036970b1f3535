//! Invariant 1: every record has, for each of its readers, exactly one outcome, and none still waits.

use super::{Books, Judged};
use crate::contract::Catalogue;
use crate::contract::event::{DispositionRecord, Outcome, Text};
use crate::domain::Timestamp;
use crate::pipeline::Origin;
use crate::verify::Ledger;
use std::collections::BTreeMap;

/// Offsets written, and what was booked of them.
#[derive(Default)]
pub(super) struct Outcomes {
    /// By topic and partition.
    offsets: BTreeMap<(Text, i32), Vec<i64>>,
    booked: BTreeMap<(Text, Text, i32), Booked>,
}

/// What one reader booked of one partition.
#[derive(Default)]
struct Booked {
    /// First and last offset, count, and where it was booked; as they were booked.
    ranges: Vec<(i64, i64, i64, Origin)>,
    /// When each of the ranges was.
    times: Vec<Timestamp>,
    /// The latest word on records that were not simply applied.
    others: BTreeMap<i64, Outcome>,
}

impl Outcomes {
    pub fn written(&mut self, origin: &Origin) {
        let partition = (Text::from(&*origin.topic), origin.partition);
        self.offsets
            .entry(partition)
            .or_default()
            .push(origin.offset);
    }

    pub fn booked(&mut self, e: &DispositionRecord, origin: &Origin) {
        let of = (e.reader.clone(), e.topic.clone(), e.partition);
        let booked = self.booked.entry(of).or_default();
        if e.count > 0 {
            let range = (e.first_offset, e.last_offset, e.count, origin.clone());
            booked.ranges.push(range);
            booked.times.push(e.meta.recorded_at);
        }
        for other in e.others.iter().filter(|o| o.effect.is_empty()) {
            booked.others.insert(other.offset, other.outcome);
        }
    }

    /// Whether stock-ledger could not take the record in.
    pub fn is_dead(&self, topic: &str, partition: i32, offset: i64) -> bool {
        self.is_dead_for("stock-ledger", topic, partition, offset)
    }

    /// Whether a reader could not take the record in.
    pub fn is_dead_for(&self, reader: &str, topic: &str, partition: i32, offset: i64) -> bool {
        let of = (Text::from(reader), Text::from(topic), partition);
        let outcome = self.booked.get(&of).and_then(|b| b.others.get(&offset));
        outcome == Some(&Outcome::DeadLettered)
    }

    /// When stock-ledger took the record in.
    pub fn taken_in(&self, topic: &str, partition: i32, offset: i64) -> Option<Timestamp> {
        let of = (Text::from("stock-ledger"), Text::from(topic), partition);
        let booked = self.booked.get(&of)?;
        let range = booked
            .ranges
            .partition_point(|(_, last, _, _)| *last < offset);
        booked.times.get(range).copied()
    }

    fn of_reader(&self, reader: &str, topic: &str) -> Judged {
        let nothing = Booked::default();
        let partitions = self.offsets.iter().filter(|((t, _), _)| t == topic);
        for ((_, partition), offsets) in partitions {
            let of = (Text::from(reader), Text::from(topic), *partition);
            let booked = self.booked.get(&of).unwrap_or(&nothing);
            let at = |offset: i64| format!("{topic}[{partition}]@{offset}");
            let compacted = Catalogue::compiled().is_compacted(topic);
            booked.once(reader, offsets, compacted, at)?;
        }
        Ok(())
    }
}

impl Booked {
    /// Of a compacted topic a reader that was held up may never see what was replaced meanwhile; that all
    /// which is left has an outcome is for `verify` to say.
    fn once(
        &self,
        reader: &str,
        offsets: &[i64],
        compacted: bool,
        at: impl Fn(i64) -> String,
    ) -> Judged {
        let mut ranges: Vec<_> = self.ranges.iter().collect();
        ranges.sort_by_key(|(first, last, _, _)| (*first, *last));
        let mut next = 0;
        for (first, last, count, booked_at) in ranges {
            let from = offsets.partition_point(|o| o < first);
            let to = offsets.partition_point(|o| o <= last);
            if from > next && !compacted {
                return Err(format!("{reader} passed over {}", at(offsets[next])));
            }
            if from < next {
                return Err(format!(
                    "{reader} settled {} twice: {booked_at}",
                    at(offsets[from])
                ));
            }
            let written = (to - from) as i64;
            if *count > written || (*count < written && !compacted) {
                return Err(format!(
                    "{reader} booked {count} outcomes for {written} records from {} on: {booked_at}",
                    at(*first)
                ));
            }
            next = to;
        }
        if let Some(offset) = offsets.get(next) {
            return Err(format!("{reader} has not settled {}", at(*offset)));
        }
        match self.others.iter().find(|(_, o)| **o == Outcome::Buffered) {
            Some((offset, _)) => Err(format!("{reader} still buffers {}", at(*offset))),
            None => Ok(()),
        }
    }
}

/// Counted here from what was read, and by `verify` from the log as it is. Who must settle what is
/// said by the catalogue; of sinks, by what each of them reads.
pub(super) fn judge(books: &Books, ledger: &Ledger, sinks: &[(String, String)]) -> Judged {
    for (sink, topic) in sinks {
        books.outcomes.of_reader(sink, topic)?;
    }
    for topic in Catalogue::compiled().topics() {
        for reader in &topic.readers {
            match reader.reader.as_str() {
                "sinks" => {}
                absent if !ledger.readers.contains_key(absent) => {}
                processor => books.outcomes.of_reader(processor, &topic.name)?,
            }
        }
    }
    if let Some(fault) = ledger.faults.first() {
        return Err(fault.clone());
    }
    match ledger.balances() {
        true => Ok(()),
        false => Err("the ledger does not balance".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a judge says of records at 0, 1, 2 and 5 for which these ranges are booked: first, last and count.
    fn judged(compacted: bool, ranges: &[(i64, i64, i64)]) -> Judged {
        let mut booked = Booked::default();
        for (first, last, count) in ranges {
            let booked_at = Origin {
                topic: "d".into(),
                partition: 0,
                offset: 7,
            };
            booked.ranges.push((*first, *last, *count, booked_at));
        }
        booked.once("shop", &[0, 1, 2, 5], compacted, |at| format!("t[0]@{at}"))
    }

    #[test]
    fn of_a_compacted_topic_a_reader_may_miss_what_was_replaced_and_nothing_else() {
        for compacted in [false, true] {
            assert_eq!(judged(compacted, &[(0, 2, 3), (5, 5, 1)]), Ok(()));
        }
        let missed: [(&[_], &str); 2] = [
            (&[(0, 1, 2), (5, 5, 1)], "passed over t[0]@2"),
            (&[(0, 5, 3)], "booked 3 outcomes for 4"),
        ];
        for (ranges, words) in missed {
            assert_eq!(judged(true, ranges), Ok(()));
            let fault = judged(false, ranges).expect_err("nothing is replaced there");
            assert!(fault.contains(words), "{fault}");
        }
        let wrong: [(&[_], &str); 3] = [
            (&[(0, 5, 5)], "booked 5 outcomes for 4"),
            (&[(0, 2, 3), (2, 5, 2)], "settled t[0]@2 twice: d[0]@7"),
            (&[(0, 2, 3)], "has not settled t[0]@5"),
        ];
        for (ranges, words) in wrong {
            for compacted in [false, true] {
                let fault = judged(compacted, ranges).expect_err("it is wrong");
                assert!(fault.contains(words), "{fault}");
            }
        }
    }
}
