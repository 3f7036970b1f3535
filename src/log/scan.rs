//! Reading what there is: partitions from a place to where they end when asked, many at a time.
//!
//! Each topic has a reader and a thread of its own, so that what takes time (connecting, fetching,
//! unpacking) overlaps; what is found is handed over on the caller's thread, and a full hand holds
//! the readers up: memory stays bounded whatever the topics hold.

use super::{Isolation, Log, LogError, Offset, TopicPartition, Wanted};
use crate::pipeline::Record;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// Records taken from the log at a time.
const POLL_RECORDS: usize = 2_000;
const POLL_WAIT: Duration = Duration::from_millis(100);
/// A log that gives nothing for so long is not going to.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Topics read at a time.
const READERS_MAX: usize = 12;
/// Portions that wait to be looked at.
const PORTIONS_MAX: usize = 8;

/// A part of a topic that is to be read.
#[derive(Clone)]
pub struct Stretch {
    /// The partition.
    pub at: TopicPartition,
    /// Where to begin.
    pub from: Offset,
    /// Only these records; `None` for every one.
    pub wanted: Option<Arc<Wanted>>,
}

impl Stretch {
    /// Every partition of a topic, from its beginning; none where there is no such topic.
    pub fn whole(topic: &str, partitions: i32) -> Vec<Stretch> {
        let all = 0..partitions;
        all.map(|number| Stretch {
            at: TopicPartition::new(topic, number),
            from: Offset::Beginning,
            wanted: None,
        })
        .collect()
    }

    /// Records of a partition that have one of these keys.
    pub fn of_keys(at: TopicPartition, from: Offset, keys: HashSet<Vec<u8>>) -> Stretch {
        let wanted =
            move |key: Option<&[u8]>, _: Option<&[u8]>| key.is_some_and(|k| keys.contains(k));
        Stretch {
            at,
            from,
            wanted: Some(Arc::new(wanted)),
        }
    }
}

/// Hands the committed records of these stretches to `visit`: those of one partition in order, those
/// of different topics as they come. Returns how many were read, those passed over included.
/// Stretches of one topic are told apart by their partitions: what one of them wants must not stand in
/// the partition of another.
///
/// # Errors
/// When the log does not answer for a minute, or has no such topic or partition; and what `visit`
/// fails with, which ends the reading.
pub fn scan<E: From<LogError>>(
    log: &dyn Log,
    stretches: &[Stretch],
    mut visit: impl FnMut(&Record) -> Result<(), E>,
) -> Result<u64, E> {
    let mut jobs: BTreeMap<&str, Vec<&Stretch>> = BTreeMap::new();
    for stretch in stretches {
        jobs.entry(&stretch.at.topic).or_default().push(stretch);
    }
    let jobs: Vec<Vec<&Stretch>> = jobs.into_values().collect();
    let (read, next) = (AtomicU64::new(0), AtomicUsize::new(0));
    let (send, receive) = sync_channel::<Result<Vec<Record>, LogError>>(PORTIONS_MAX);
    std::thread::scope(|scope| {
        for _ in 0..jobs.len().min(READERS_MAX) {
            let send = send.clone();
            scope.spawn(|| work(log, &jobs, &next, &read, send));
        }
        drop(send);
        // Owned here, so that an early end lets the readers go.
        let receive = receive;
        for portion in &receive {
            for record in portion? {
                visit(&record)?;
            }
        }
        Ok(())
    })
    .map(|()| read.into_inner())
}

/// Reads one topic after the other, until none is left or nobody listens any more.
fn work(
    log: &dyn Log,
    jobs: &[Vec<&Stretch>],
    next: &AtomicUsize,
    read: &AtomicU64,
    send: SyncSender<Result<Vec<Record>, LogError>>,
) {
    while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
        match read_topic(log, job, read, &send) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                // Whoever listens ends at the first error.
                let _ = send.send(Err(error));
                return;
            }
        }
    }
}

/// Reads stretches of one topic. `false` when nobody listens any more.
fn read_topic(
    log: &dyn Log,
    job: &[&Stretch],
    read: &AtomicU64,
    send: &SyncSender<Result<Vec<Record>, LogError>>,
) -> Result<bool, LogError> {
    let mut from = Vec::new();
    let mut filters: Vec<Option<Arc<Wanted>>> = Vec::new();
    for stretch in job {
        // A partition with nothing in it is not worth a reader, which has to connect.
        let (first, end) = log.admin().watermarks(&stretch.at)?;
        let begin = match stretch.from {
            Offset::Beginning => first,
            Offset::At(offset) => offset.max(first),
            Offset::End => end,
        };
        if begin < end {
            from.push((stretch.at.clone(), Offset::At(begin)));
            filters.push(stretch.wanted.clone());
        }
    }
    if from.is_empty() {
        return Ok(true);
    }
    let mut reader = log.reader(&from, Isolation::ReadCommitted)?;
    let wanted = move |key: Option<&[u8]>, value: Option<&[u8]>| {
        let by = |filter: &Option<Arc<Wanted>>| filter.as_ref().is_none_or(|f| f(key, value));
        filters.iter().any(by)
    };
    let mut silent = Duration::ZERO;
    while !reader.caught_up() {
        let mut records = Vec::new();
        let count = reader.poll_where(POLL_RECORDS, POLL_WAIT, &wanted, &mut records)?;
        read.fetch_add(count as u64, Ordering::Relaxed);
        silent = match count {
            0 => silent + POLL_WAIT,
            _ => Duration::ZERO,
        };
        if silent > SILENCE_MAX {
            let topic = &job[0].at.topic;
            return Err(LogError::TimedOut(format!(
                "{topic} was not read to its end within {SILENCE_MAX:?}; is a broker down, or a transaction open?"
            )));
        }
        if !records.is_empty() && send.send(Ok(records)).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}
