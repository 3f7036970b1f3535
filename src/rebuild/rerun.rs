//! Running a processor again over what it has read, as the runtime did.

use super::inputs::{Beat, Inputs, Portions, Step};
use super::{Subject, entity};
use crate::contract::event::Text;
use crate::domain::Timestamp;
use crate::log::scan::{Stretch, scan};
use crate::log::{Offsets, TopicPartition};
use crate::pipeline::{Context, Fault, Inbound, Output, Processor, Record, Verdict};
use crate::state::Shard;
use indexmap::IndexMap;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

/// A timer that was due for so long had fired by itself before anything else came.
const PROMPT: Duration = Duration::from_secs(1);

/// A processor that has read everything again, and the state that came of it.
pub(super) struct Rerun {
    pub processor: Box<dyn Processor>,
    pub shard: Shard,
    /// Records that it was run on.
    pub records: u64,
    /// Of these, records whose transaction is not known any more.
    pub without_transaction: u64,
}

struct Running<'a> {
    subject: &'a Subject<'a>,
    rerun: Rerun,
    timers: BTreeSet<(Timestamp, Text)>,
    due: BTreeMap<Text, Timestamp>,
    /// What tables told later, the oldest first.
    tables: VecDeque<Record>,
}

impl Rerun {
    /// Runs the processor on everything below `cut`, and lets its timers fire up to `until`.
    pub fn new(
        subject: &Subject<'_>,
        number: i32,
        cut: &Offsets,
        until: Timestamp,
        beat: &mut Beat<'_>,
    ) -> Result<Rerun, Fault> {
        let mut running = Running {
            subject,
            rerun: Rerun {
                processor: (subject.processor.make)(),
                shard: Shard::new(),
                records: 0,
                without_transaction: 0,
            },
            timers: BTreeSet::new(),
            due: BTreeMap::new(),
            tables: VecDeque::new(),
        };
        running.recall(number, beat)?;
        running.open_tables()?;
        let mut inputs = Inputs::open(subject, number, cut)?;
        while let Some(step) = inputs.next(beat)? {
            running.look_at_tables(step.now)?;
            running.fire_before(step.now)?;
            running.take(&step)?;
        }
        running.look_at_tables(until)?;
        running.fire_before(until.plus(PROMPT))?;
        Ok(running.rerun)
    }
}

impl Running<'_> {
    /// Hands the processor what it decided.
    fn recall(&mut self, number: i32, beat: &mut Beat<'_>) -> Result<(), Fault> {
        let Some(topic) = self.rerun.processor.record() else {
            return Ok(());
        };
        let at = TopicPartition::new(topic, number);
        let (_, end) = self.subject.log.admin().watermarks(&at)?;
        let mut decisions = Portions::open(self.subject.log, at, end)?;
        loop {
            let records = decisions.next(beat)?;
            if records.is_empty() {
                return Ok(());
            }
            for record in &records {
                let Some(Ok(key)) = record.key.as_deref().map(std::str::from_utf8) else {
                    continue;
                };
                match self.subject.codec.decode(record) {
                    Ok(event) => self.rerun.processor.recall(key, &event),
                    // Somebody else's: nothing that this processor said.
                    Err(fault) if fault.verdict == Verdict::Reject => {}
                    Err(fault) => return Err(fault),
                }
            }
        }
    }

    /// Reads the tables. What stands first of a key counts from the beginning: compaction keeps only the
    /// newest of it, and nobody knows since when something stood there.
    fn open_tables(&mut self) -> Result<(), Fault> {
        let subject = self.subject;
        let (mut seen, mut later) = (HashSet::<(String, Vec<u8>)>::new(), Vec::new());
        for table in subject.processor.descriptor.tables {
            let partitions = subject.log.admin().partitions(table)?.unwrap_or(0);
            scan(subject.log, &Stretch::whole(table, partitions), |record| {
                let key = record.key.as_deref().unwrap_or_default().to_vec();
                match seen.insert(((*table).to_owned(), key)) {
                    true => self.follow(record).map(drop),
                    false => {
                        later.push(record.detached());
                        Ok(())
                    }
                }
            })?;
        }
        later.sort_by_key(|r| r.timestamp_ms);
        self.tables = later.into();
        Ok(())
    }

    /// As the runtime follows a table. Returns whether entities must be looked at again.
    fn follow(&mut self, record: &Record) -> Result<bool, Fault> {
        let Some(Ok(key)) = record.key.as_deref().map(std::str::from_utf8) else {
            return Ok(false);
        };
        let (topic, processor) = (&record.origin.topic, &mut self.rerun.processor);
        if record.value.is_none() {
            return Ok(processor.table(topic, key, None));
        }
        match self.subject.codec.decode(record) {
            Ok(event) => Ok(processor.table(topic, key, Some(&event))),
            Err(fault) if fault.verdict == Verdict::Reject => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    fn look_at_tables(&mut self, now: Timestamp) -> Result<(), Fault> {
        let mut revisit = false;
        let is_due = |r: &mut Record| Timestamp::from_millis(r.timestamp_ms) <= now;
        while let Some(record) = self.tables.pop_front_if(is_due) {
            revisit |= self.follow(&record)?;
        }
        if !revisit {
            return Ok(());
        }
        let processor = &self.rerun.processor;
        let all = self.rerun.shard.iter();
        let entities = all.filter(|(key, _)| processor.is_entity(key));
        let entities: BTreeSet<Vec<u8>> = entities.map(|(key, _)| entity(key).to_vec()).collect();
        for key in entities {
            if let Ok(key) = std::str::from_utf8(&key) {
                self.call(key, &[], None, now)?;
            }
        }
        Ok(())
    }

    /// Lets the timers fire that had done so by themselves before `now`, each at its time.
    fn fire_before(&mut self, now: Timestamp) -> Result<(), Fault> {
        while let Some((due, key)) = self.timers.first().cloned() {
            if due.plus(PROMPT) > now {
                return Ok(());
            }
            self.set_timer(&key, None);
            self.call(&key, &[], Some(due), due)?;
        }
        Ok(())
    }

    /// One transaction: its records by key, then what is due and not among them.
    fn take(&mut self, step: &Step) -> Result<(), Fault> {
        let mut groups: IndexMap<String, Vec<Inbound>> = IndexMap::new();
        self.rerun.records += step.records.len() as u64;
        if !step.known {
            self.rerun.without_transaction += step.records.len() as u64;
        }
        let bytes_max = self.subject.catalogue.default_message_bytes();
        for record in &step.records {
            let Some(Ok(key)) = record.key.as_deref().map(std::str::from_utf8) else {
                continue;
            };
            let bytes = key.len() + record.value.as_ref().map_or(0, |v| v.len());
            // Dead-lettered then, as it would be now.
            if key.is_empty() || bytes + record.headers.packed().len() > bytes_max {
                continue;
            }
            match self.subject.codec.decode(record) {
                Ok(event) => groups.entry(key.to_owned()).or_default().push(Inbound {
                    record: record.clone(),
                    event,
                }),
                Err(fault) if fault.verdict == Verdict::Reject => {}
                Err(fault) => return Err(fault),
            }
        }
        for (key, inbound) in &groups {
            self.call(key, inbound, None, step.now)?;
        }
        let due = self.timers.iter().take_while(|(at, _)| *at <= step.now);
        let due = due.filter(|(_, key)| !groups.contains_key(key.as_str()));
        let due: Vec<(Timestamp, Text)> = due.cloned().collect();
        for (at, key) in due {
            self.set_timer(&key, None);
            self.call(&key, &[], Some(at), step.now)?;
        }
        Ok(())
    }

    fn call(
        &mut self,
        key: &str,
        inbound: &[Inbound],
        due: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let mut output = Output::default();
        let rerun = &mut self.rerun;
        let mut context = Context::new(&mut rerun.shard, &mut output, now);
        match due {
            None => rerun.processor.process(key, inbound, &mut context)?,
            Some(due) => rerun.processor.timer(key, due, &mut context)?,
        }
        rerun.shard.commit();
        for (key, due) in output.timers {
            self.set_timer(&key, due);
        }
        Ok(())
    }

    fn set_timer(&mut self, key: &Text, due: Option<Timestamp>) {
        let before = match due {
            Some(at) => self.due.insert(key.clone(), at),
            None => self.due.remove(key),
        };
        if let Some(at) = before {
            self.timers.remove(&(at, key.clone()));
        }
        if let Some(at) = due {
            self.timers.insert((at, key.clone()));
        }
    }
}
