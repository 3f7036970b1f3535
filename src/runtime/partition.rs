//! One partition number of a processor: its state, its timers, and the way it gets them back.

use crate::contract::event::Text;
use crate::domain::Timestamp;
use crate::log::{Isolation, Log, LogError, Offset, Reader, TopicPartition};
use crate::pipeline::{Processor, Record};
use crate::state::Shard;
use crate::state::checkpoint::{self, Mark};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An older checkpoint is not used: compaction may drop tombstones after a day (Kafka's
/// `delete.retention.ms`), and what they removed would come back.
const CHECKPOINT_AGE_MAX: Duration = Duration::from_secs(12 * 3_600);
/// Changelog records taken in by one step, so that a restore leaves room for live partitions.
const RESTORE_RECORDS_PER_STEP: usize = 50_000;

/// State and timers of one partition number.
#[derive(Default)]
pub(super) struct Partition {
    pub shard: Shard,
    timers: BTreeSet<(Timestamp, Text)>,
    due: HashMap<Text, Timestamp, FxBuildHasher>,
    restore: Option<Restore>,
    /// Entities still to be looked at again because a table changed, last first.
    revisit: Vec<Text>,
    /// Everything below this changelog offset is in the shard.
    confirmed: i64,
    confirmed_at: Timestamp,
    checkpointed_at: Timestamp,
}

struct Restore {
    changelog: TopicPartition,
    reader: Box<dyn Reader>,
    first: i64,
    end: i64,
    /// Where the state was found to begin with.
    source: &'static str,
    began_at: Timestamp,
    /// Keys that are taken in begin with this.
    prefix: Text,
}

/// What a restore begins with.
pub(super) enum Kept {
    /// State given up a moment ago.
    InMemory(Box<Partition>),
    /// Perhaps a checkpoint in this file.
    At(PathBuf),
    /// Nothing.
    Nowhere,
}

/// The checkpoint, when it is one of this changelog and not too old.
fn read_checkpoint(
    path: &Path,
    log: &dyn Log,
    changelog: &TopicPartition,
    now: Timestamp,
) -> Option<(Shard, i64)> {
    let (shard, mark) = checkpoint::read(path).ok()?;
    if mark.changelog != identity(log, changelog) {
        tracing::info!(path = %path.display(), of = mark.changelog, "a checkpoint of another log is left alone");
        return None;
    }
    let fresh = now.since(mark.at) <= CHECKPOINT_AGE_MAX;
    fresh.then_some((shard, mark.offset))
}

fn identity(log: &dyn Log, changelog: &TopicPartition) -> String {
    format!("{}/{changelog}", log.id())
}

impl Partition {
    /// Begins to restore the state kept in `changelog`: what is still in memory or else in the local
    /// checkpoint, then the changelog behind it.
    pub fn restoring(
        log: &dyn Log,
        changelog: TopicPartition,
        kept: Kept,
        now: Timestamp,
    ) -> Result<Self, LogError> {
        let (first_kept, end) = log.admin().watermarks(&changelog)?;
        let (saved, source) = match kept {
            Kept::InMemory(kept) => (Some((kept.shard, kept.confirmed)), "memory"),
            Kept::At(path) => (read_checkpoint(&path, log, &changelog, now), "checkpoint"),
            Kept::Nowhere => (None, ""),
        };
        // One that retention has overtaken would leave out records.
        let saved = saved.filter(|(_, offset)| (first_kept..=end).contains(offset));
        let source = if saved.is_some() { source } else { "changelog" };
        let (shard, first) = saved.unwrap_or_else(|| (Shard::new(), first_kept));
        let reader = log.reader(
            &[(changelog.clone(), Offset::At(first))],
            Isolation::ReadCommitted,
        )?;
        let restore = Restore {
            changelog,
            reader,
            first,
            end,
            source,
            began_at: now,
            prefix: Text::default(),
        };
        Ok(Partition {
            shard,
            confirmed: first,
            confirmed_at: now,
            restore: Some(restore),
            ..Partition::default()
        })
    }

    /// Takes in only keys that begin with `prefix`: the changelog is shared.
    pub fn only(mut self, prefix: Text) -> Self {
        if let Some(restore) = &mut self.restore {
            restore.prefix = prefix;
        }
        self
    }

    /// Whether the state is whole.
    pub fn ready(&self) -> bool {
        self.restore.is_none()
    }

    /// Everything below this changelog offset is in the shard.
    pub fn confirmed(&self) -> i64 {
        self.confirmed
    }

    /// Changelog records read and to be read; nothing when ready.
    pub fn restore_progress(&self) -> Option<(u64, u64)> {
        let restore = self.restore.as_ref()?;
        let at = restore
            .reader
            .position(&restore.changelog)
            .unwrap_or(restore.first);
        let count = |to: i64| u64::try_from(to - restore.first).unwrap_or(0);
        Some((count(at.min(restore.end)), count(restore.end)))
    }

    /// Takes in a bounded part of the changelog. Returns whether the state is whole now.
    pub fn take_in(
        &mut self,
        wait: Duration,
        scratch: &mut Vec<Record>,
        now: Timestamp,
    ) -> Result<bool, LogError> {
        let Some(restore) = &mut self.restore else {
            return Ok(true);
        };
        scratch.clear();
        let polled = restore.reader.poll(RESTORE_RECORDS_PER_STEP, wait, scratch);
        for record in scratch.drain(..) {
            if let Some(key) = &record.key
                && key.starts_with(restore.prefix.as_bytes())
            {
                self.shard.load(key, record.value.as_deref());
            }
        }
        polled?;
        if !restore.reader.caught_up() {
            return Ok(false);
        }
        let took = now.since(restore.began_at);
        let read = restore.end - restore.first;
        tracing::info!(partition = %restore.changelog, keys = self.shard.len(), from = restore.source, changelog_records = read, took_ms = took.as_millis() as u64, "state restored");
        self.confirmed_at = restore.began_at;
        self.confirmed = restore
            .reader
            .position(&restore.changelog)
            .unwrap_or(restore.first);
        self.restore = None;
        Ok(true)
    }

    /// As [`Partition::take_in`], and sets the timers that the state tells of once it is whole. Who had
    /// the partition before may not have looked at every entity since a table changed: all are looked
    /// at again.
    pub fn restore_step(
        &mut self,
        processor: &dyn Processor,
        wait: Duration,
        scratch: &mut Vec<Record>,
        now: Timestamp,
    ) -> Result<bool, LogError> {
        if !self.take_in(wait, scratch, now)? {
            return Ok(false);
        }
        let timers: Vec<_> = self
            .shard
            .iter()
            .filter_map(|(key, value)| processor.restored_timer(key, value))
            .collect();
        for (key, due) in timers {
            self.set_timer(key, Some(due));
        }
        if !processor.descriptor().tables.is_empty() {
            self.revisit_all(processor);
        }
        Ok(true)
    }

    /// Sets or clears the timer of `key`.
    pub fn set_timer(&mut self, key: Text, due: Option<Timestamp>) {
        if let Some(before) = self.due.remove(&key) {
            self.timers.remove(&(before, key.clone()));
        }
        if let Some(due) = due {
            self.due.insert(key.clone(), due);
            self.timers.insert((due, key));
        }
    }

    /// The earliest timer.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// The keys whose timers are due at `now`, earliest first, at most `max`.
    pub fn due_timers(&self, now: Timestamp, max: usize) -> Vec<(Timestamp, Text)> {
        self.timers
            .iter()
            .take_while(|(due, _)| *due <= now)
            .take(max)
            .cloned()
            .collect()
    }

    /// Puts every entity on the list of those to look at again.
    pub fn revisit_all(&mut self, processor: &dyn Processor) {
        let entities = self
            .shard
            .iter()
            .filter(|(key, _)| processor.is_entity(key));
        self.revisit = entities
            .filter_map(|(key, _)| std::str::from_utf8(key).ok().map(Text::from))
            .collect();
        self.revisit.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// Whether entities wait to be looked at again.
    pub fn has_revisits(&self) -> bool {
        !self.revisit.is_empty()
    }

    /// The next entities to look at again.
    pub fn revisits(&self, max: usize) -> impl Iterator<Item = &Text> {
        self.revisit.iter().rev().take(max)
    }

    /// Takes the next entity, which must be `key`, off the list.
    pub fn revisited(&mut self, key: &str) {
        let last = self.revisit.pop();
        debug_assert_eq!(
            last.as_deref(),
            Some(key),
            "entities are looked at in order"
        );
    }

    /// Whether it is time to note how far the changelog goes.
    pub fn confirmation_due(&self, now: Timestamp, interval: Duration) -> bool {
        self.ready() && (now.since(self.confirmed_at) >= interval || now < self.confirmed_at)
    }

    /// Notes that everything below `offset` of the changelog is in the shard.
    pub fn confirm(&mut self, offset: i64, now: Timestamp) {
        self.confirmed = offset;
        self.confirmed_at = now;
    }

    /// Whether the last checkpoint is older than `interval`.
    pub fn checkpoint_due(&mut self, interval: Duration, now: Timestamp) -> bool {
        if self.checkpointed_at == Timestamp::default() {
            self.checkpointed_at = now;
        }
        now.since(self.checkpointed_at) >= interval
    }

    /// Writes a checkpoint of the state as committed. Called between transactions only.
    pub fn checkpoint(
        &mut self,
        path: &Path,
        log: &dyn Log,
        changelog: &TopicPartition,
        now: Timestamp,
    ) {
        if !self.ready() {
            return;
        }
        self.checkpointed_at = now;
        let mark = Mark {
            changelog: identity(log, changelog),
            offset: self.confirmed,
            at: self.confirmed_at,
        };
        if let Err(error) = checkpoint::write(path, &self.shard, &mark) {
            tracing::warn!(path = %path.display(), %error, "checkpoint not written; a restart will read the changelog instead");
        }
    }
}
