//! The books of a transaction: which records were settled, and how.

use super::outbox::{Failed, Outbox};
use crate::contract::event::{DispositionRecord, Outcome, Settled, Text};
use crate::contract::topic;
use crate::domain::Timestamp;
use crate::log::{Producer, TopicPartition};
use crate::pipeline::Origin;
use std::collections::BTreeMap;

/// Entries in one disposition record; more are written as several records.
const ENTRIES_MAX: usize = 5_000;

/// Dispositions of one reader in one transaction, by input partition.
#[derive(Default)]
pub(super) struct Accounts {
    partitions: Vec<(TopicPartition, Account)>,
    /// Place of the partition booked last: the next record is most often of the same.
    recent: usize,
}

#[derive(Default)]
struct Account {
    first: i64,
    last: i64,
    count: i64,
    applied: i64,
    others: Vec<Settled>,
}

impl Accounts {
    /// Books the main outcome of the record at `origin`.
    pub fn settle(&mut self, origin: &Origin, outcome: Outcome, reason: Option<&str>) {
        let account = self.account(origin);
        if account.count == 0 {
            (account.first, account.last) = (origin.offset, origin.offset);
        }
        account.first = account.first.min(origin.offset);
        account.last = account.last.max(origin.offset);
        account.count += 1;
        if outcome == Outcome::Applied {
            account.applied += 1;
        } else {
            account.others.push(entry(origin, "", outcome, reason));
        }
    }

    /// Books a further effect of a record, or the later outcome of one booked in an earlier
    /// transaction; neither counts as a settled record of this one.
    pub fn note(&mut self, origin: &Origin, effect: &str, outcome: Outcome, reason: Option<&str>) {
        self.account(origin)
            .others
            .push(entry(origin, effect, outcome, reason));
    }

    /// Outcomes booked so far, for metrics: to be counted once the transaction has committed.
    pub fn tally(&self) -> BTreeMap<&'static str, u64> {
        let mut tally = BTreeMap::new();
        for (_, account) in &self.partitions {
            if account.applied > 0 {
                *tally.entry(Outcome::Applied.symbol()).or_default() += account.applied as u64;
            }
            for other in account.others.iter().filter(|o| o.effect.is_empty()) {
                *tally.entry(other.outcome.symbol()).or_default() += 1;
            }
        }
        tally
    }

    /// Writes the books into the open transaction and forgets them.
    pub fn write(
        &mut self,
        reader: &str,
        outbox: &mut Outbox,
        producer: &mut dyn Producer,
        now: Timestamp,
    ) -> Result<(), Failed> {
        let mut partitions = std::mem::take(&mut self.partitions);
        partitions.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (partition, account) in partitions {
            let mut others = account.others;
            let mut whole = Some((account.count, account.applied));
            while whole.is_some() || !others.is_empty() {
                let rest = others.split_off(others.len().min(ENTRIES_MAX));
                let (count, applied) = whole.take().unwrap_or_default();
                let record = DispositionRecord {
                    meta: outbox.meta("DispositionRecord", reader, account.last, now),
                    reader: reader.into(),
                    topic: Text::from(&*partition.topic),
                    partition: partition.partition,
                    first_offset: account.first,
                    last_offset: account.last,
                    count,
                    applied,
                    others: std::mem::replace(&mut others, rest),
                };
                let key = crate::domain::compound_key(&[
                    reader,
                    &partition.topic,
                    itoa(partition.partition).as_str(),
                ]);
                outbox.send(
                    producer,
                    topic::OPS_DISPOSITION,
                    &key,
                    &record.into(),
                    None,
                    now,
                )?;
            }
        }
        Ok(())
    }

    /// Forgets the books of a transaction that is not to be.
    pub fn clear(&mut self) {
        self.partitions.clear();
    }

    fn account(&mut self, origin: &Origin) -> &mut Account {
        let same = |(at, _): &(TopicPartition, Account)| {
            at.partition == origin.partition && at.topic == origin.topic
        };
        if !self.partitions.get(self.recent).is_some_and(same) {
            let found = self.partitions.iter().position(same);
            self.recent = found.unwrap_or(self.partitions.len());
            if found.is_none() {
                let partition = TopicPartition {
                    topic: origin.topic.clone(),
                    partition: origin.partition,
                };
                self.partitions.push((partition, Account::default()));
            }
        }
        &mut self.partitions[self.recent].1
    }
}

fn itoa(number: i32) -> Text {
    compact_str::format_compact!("{number}")
}

fn entry(origin: &Origin, effect: &str, outcome: Outcome, reason: Option<&str>) -> Settled {
    Settled {
        offset: origin.offset,
        effect: effect.into(),
        outcome,
        reason: reason.map(Text::from),
    }
}
