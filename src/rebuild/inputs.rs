//! What a processor has read of one partition number, once more: by the transactions in which it was taken.
//!
//! Dispositions say which offsets each transaction settled, and when. Records whose transaction is past its
//! retention are each taken for one of its own, at the time at which it was written. Everything is streamed:
//! what is held is a portion of each input, and one transaction.

use super::Subject;
use crate::codec::Codec;
use crate::contract::event::Event;
use crate::contract::topic;
use crate::domain::{Timestamp, compound_key};
use crate::log::{
    Isolation, Log, LogError, Offset, Offsets, Reader, TopicPartition, partition_for,
};
use crate::pipeline::{Fault, Record};
use std::collections::VecDeque;
use std::time::Duration;

/// Records taken from a partition at a time.
const POLL_RECORDS: usize = 2_000;
const POLL_WAIT: Duration = Duration::from_millis(100);
/// Polls without a record after which a log is not going to give one: a minute.
const SILENT_POLLS_MAX: u32 = 600;

/// Called every now and then in long work: keeps a group member alive, and can end it.
pub(super) type Beat<'b> = dyn FnMut() -> Result<(), Fault> + 'b;

/// What one transaction took.
pub(super) struct Step {
    pub now: Timestamp,
    pub records: Vec<Record>,
    /// Whether its transaction is known.
    pub known: bool,
}

/// When a record was taken.
#[derive(Clone, Copy, PartialEq)]
struct Taken {
    now: Timestamp,
    /// First offset of what its transaction took of the partition, where that is known.
    from: Option<i64>,
}

/// The inputs of one partition number.
pub(super) struct Inputs<'a> {
    inputs: Vec<Input<'a>>,
}

impl<'a> Inputs<'a> {
    /// Everything below `cut`.
    pub fn open(subject: &Subject<'a>, number: i32, cut: &Offsets) -> Result<Self, Fault> {
        let mut inputs = Vec::new();
        for at in subject.inputs(number) {
            let end = cut.get(&at).copied().unwrap_or(0);
            inputs.push(Input {
                records: Portions::open(subject.log, at.clone(), end)?,
                times: Times::open(subject, &at)?,
                waiting: VecDeque::new(),
            });
        }
        Ok(Inputs { inputs })
    }

    /// The next transaction, by time; those of one input in their order.
    pub fn next(&mut self, beat: &mut Beat<'_>) -> Result<Option<Step>, Fault> {
        let mut first: Option<(Taken, usize)> = None;
        for (index, input) in self.inputs.iter_mut().enumerate() {
            if let Some(head) = input.head(beat)?
                && first.is_none_or(|(earliest, _)| head.now < earliest.now)
            {
                first = Some((head, index));
            }
        }
        let Some((Taken { now, from }, index)) = first else {
            return Ok(None);
        };
        let (known, mut records) = (from.is_some(), Vec::new());
        if known {
            for input in &mut self.inputs {
                let head = input.head(beat)?;
                // Two transactions of one moment are told apart by their ranges.
                let of_step = head.filter(|head| head.now == now && head.from.is_some());
                while of_step.is_some() && input.head(beat)? == of_step {
                    records.extend(input.waiting.pop_front());
                }
            }
            // Of one input they are in order already, and stay so.
            records.sort_by_key(|r| r.timestamp_ms);
        } else {
            records.extend(self.inputs[index].waiting.pop_front());
        }
        Ok(Some(Step {
            now,
            records,
            known,
        }))
    }
}

struct Input<'a> {
    records: Portions,
    times: Times<'a>,
    waiting: VecDeque<Record>,
}

impl Input<'_> {
    /// When the first record was taken.
    fn head(&mut self, beat: &mut Beat<'_>) -> Result<Option<Taken>, Fault> {
        if self.waiting.is_empty() {
            self.waiting.extend(self.records.next(beat)?);
        }
        let Some(record) = self.waiting.front() else {
            return Ok(None);
        };
        let taken = self.times.of(record.origin.offset, beat)?;
        Ok(Some(taken.unwrap_or_else(|| Taken {
            now: Timestamp::from_millis(record.timestamp_ms),
            from: None,
        })))
    }
}

/// A partition up to an offset, a portion at a time.
pub(super) struct Portions {
    at: TopicPartition,
    end: i64,
    reader: Option<Box<dyn Reader>>,
    /// Only records with this key.
    key: Option<Vec<u8>>,
}

impl Portions {
    /// Everything that is kept below `end`.
    pub fn open(log: &dyn Log, at: TopicPartition, end: i64) -> Result<Self, LogError> {
        let (first, _) = log.admin().watermarks(&at)?;
        let reader = match first < end {
            true => {
                let from = [(at.clone(), Offset::At(first))];
                Some(log.reader(&from, Isolation::ReadCommitted)?)
            }
            false => None,
        };
        Ok(Portions {
            at,
            end,
            reader,
            key: None,
        })
    }

    fn of_key(mut self, key: Vec<u8>) -> Self {
        self.key = Some(key);
        self
    }

    /// The next records; none at the end.
    pub fn next(&mut self, beat: &mut Beat<'_>) -> Result<Vec<Record>, Fault> {
        let (mut records, mut silent) = (Vec::new(), 0);
        while let Some(reader) = &mut self.reader {
            beat()?;
            let position = reader.position(&self.at).unwrap_or(0);
            if position >= self.end || reader.caught_up() {
                self.reader = None;
                break;
            }
            let key = self.key.clone();
            let wanted = move |k: Option<&[u8]>, _: Option<&[u8]>| match &key {
                Some(key) => k == Some(key),
                None => true,
            };
            let read = reader.poll_where(POLL_RECORDS, POLL_WAIT, &wanted, &mut records)?;
            silent = if read == 0 { silent + 1 } else { 0 };
            if silent > SILENT_POLLS_MAX {
                let words = format!(
                    "{} was not read to its end within a minute; is a broker down, or a transaction open?",
                    self.at
                );
                return Err(LogError::TimedOut(words).into());
            }
            records.retain(|r| r.origin.offset < self.end);
            if !records.is_empty() {
                break;
            }
        }
        Ok(records)
    }
}

/// When the records of an input were taken: first and last offset, and the time of the transaction.
struct Times<'a> {
    codec: &'a Codec,
    input: TopicPartition,
    dispositions: Portions,
    ranges: VecDeque<(i64, i64, Timestamp)>,
}

impl<'a> Times<'a> {
    fn open(subject: &Subject<'a>, input: &TopicPartition) -> Result<Self, Fault> {
        let admin = subject.log.admin();
        let topic = topic::OPS_DISPOSITION;
        let unknown = || LogError::UnknownTopic {
            topic: topic.to_owned(),
        };
        let partitions = admin.partitions(topic)?.ok_or_else(unknown)?;
        let number = input.partition.to_string();
        let key = compound_key(&[subject.name(), &input.topic, &number]);
        let key = key.as_bytes().to_vec();
        let at = TopicPartition::new(topic, partition_for(&key, partitions));
        let (_, end) = admin.watermarks(&at)?;
        Ok(Times {
            codec: subject.codec,
            input: input.clone(),
            dispositions: Portions::open(subject.log, at, end)?.of_key(key),
            ranges: VecDeque::new(),
        })
    }

    /// The transaction that took the record at `offset`; asked for in ascending order.
    fn of(&mut self, offset: i64, beat: &mut Beat<'_>) -> Result<Option<Taken>, Fault> {
        loop {
            while self
                .ranges
                .front()
                .is_some_and(|(_, last, _)| *last < offset)
            {
                self.ranges.pop_front();
            }
            if let Some((first, _, now)) = self.ranges.front() {
                let (now, from) = (*now, Some(*first));
                return Ok((*first <= offset).then_some(Taken { now, from }));
            }
            let records = self.dispositions.next(beat)?;
            if records.is_empty() {
                return Ok(None);
            }
            for record in &records {
                if let Event::DispositionRecord(d) = self.codec.decode(record)?
                    && d.count > 0
                    && *d.topic == *self.input.topic
                {
                    let range = (d.first_offset, d.last_offset, d.meta.occurred_at);
                    self.ranges.push_back(range);
                }
            }
        }
    }
}
