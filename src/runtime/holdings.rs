//! What a processor task holds: its membership in the group, the partitions that this gives it,
//! where each is read from, and their state.
//!
//! Changes of assignment are only noted; what they call for (asking for committed offsets, reading
//! state back, going back to a committed position) is done by [`Holdings::align`], which looks at
//! what is missing and can be called again after a fault at any point of it. A partition is read
//! only once it is aligned.

use super::partition::{Kept, Partition};
use super::settings::TaskSettings;
use crate::domain::Timestamp;
use crate::log::{Assignment, Consumer, Log, LogError, Offsets, TopicPartition};
use crate::pipeline::{Processor, Record};
use crate::state::checkpoint;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a partition that is being restored waits for records of its changelog in one step.
const RESTORE_WAIT: Duration = Duration::from_millis(5);

pub(super) struct Holdings {
    pub consumer: Box<dyn Consumer>,
    log: Arc<dyn Log>,
    name: &'static str,
    changelog: String,
    /// Topics that a partition number must be owned of before it can be worked on.
    inputs: usize,
    state_folder: Option<PathBuf>,
    owned: BTreeSet<TopicPartition>,
    /// Up to where the group has committed each owned partition.
    positions: Offsets,
    partitions: BTreeMap<i32, Partition>,
    /// State of partitions given up in a rebalance under way, which often brings them back.
    retained: BTreeMap<i32, Partition>,
    /// The consumer has read, or may have read, what was not committed.
    astray: bool,
    /// Nothing is missing, until something is noted.
    aligned: bool,
}

impl Holdings {
    pub fn new(
        consumer: Box<dyn Consumer>,
        log: Arc<dyn Log>,
        processor: &dyn Processor,
        changelog: String,
        settings: &TaskSettings,
    ) -> Self {
        let descriptor = processor.descriptor();
        Holdings {
            consumer,
            log,
            name: descriptor.name,
            changelog,
            inputs: descriptor.inputs.len(),
            state_folder: settings.state_folder.clone(),
            owned: BTreeSet::new(),
            positions: Offsets::new(),
            partitions: BTreeMap::new(),
            retained: BTreeMap::new(),
            astray: false,
            aligned: false,
        }
    }

    pub fn partition_mut(&mut self, number: i32) -> Option<&mut Partition> {
        self.partitions.get_mut(&number)
    }

    /// Partition numbers held, with their state.
    pub fn iter(&self) -> impl Iterator<Item = (i32, &Partition)> {
        self.partitions.iter().map(|(number, p)| (*number, p))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (i32, &mut Partition)> {
        self.partitions.iter_mut().map(|(number, p)| (*number, p))
    }

    /// Whether nothing is held, and that is how the group has shared things out.
    pub fn is_spare(&self) -> bool {
        self.owned.is_empty() && self.consumer.is_joined()
    }

    /// Committed positions of the partitions with this number.
    pub fn positions_of(&self, number: i32) -> impl Iterator<Item = (&TopicPartition, i64)> {
        let of_number = self
            .positions
            .iter()
            .filter(move |(p, _)| p.partition == number);
        of_number.map(|(p, offset)| (p, *offset))
    }

    /// These offsets have been committed.
    pub fn committed(&mut self, offsets: Offsets) {
        self.positions.extend(offsets);
    }

    /// What was read since the last commit is to be read again.
    pub fn go_back(&mut self) {
        self.aligned = false;
        self.astray = true;
    }

    /// Where the group and the state stand is no longer known: both are read back from the log.
    pub fn forget(&mut self) {
        self.aligned = false;
        self.astray = true;
        self.positions.clear();
        self.retained.append(&mut self.partitions);
    }

    /// Takes note of changes of assignment.
    pub fn note(&mut self, changes: Vec<Assignment>) {
        self.aligned &= changes.is_empty();
        for change in changes {
            match change {
                Assignment::Gained(gained) => {
                    tracing::info!(processor = self.name, partitions = %list(&gained), "partitions gained");
                    // A partition that cannot be paused gives records early, which go back.
                    if let Err(error) = self.consumer.pause(&gained) {
                        tracing::warn!(processor = self.name, %error, "partitions not paused");
                        self.astray = true;
                    }
                    self.owned.extend(gained);
                }
                Assignment::Revoked(gone) => {
                    tracing::info!(processor = self.name, partitions = %list(&gone), "partitions given up");
                    for partition in &gone {
                        self.owned.remove(partition);
                        self.positions.remove(partition);
                        if let Some(state) = self.partitions.remove(&partition.partition) {
                            self.retained.insert(partition.partition, state);
                        }
                    }
                }
                Assignment::Lost(gone) => {
                    tracing::warn!(processor = self.name, partitions = %list(&gone), "partitions lost: the group went on without this member");
                    for partition in &gone {
                        self.owned.remove(partition);
                        self.positions.remove(partition);
                        self.partitions.remove(&partition.partition);
                    }
                }
            }
        }
    }

    /// Whether a record may be worked on.
    pub fn is_ready(&self, record: &Record) -> bool {
        self.partitions
            .get(&record.origin.partition)
            .is_some_and(Partition::ready)
    }

    /// Does a bounded part of what is missing before everything owned can be worked on.
    ///
    /// # Errors
    /// Nothing is lost: call again.
    pub fn align(
        &mut self,
        processor: &dyn Processor,
        scratch: &mut Vec<Record>,
        now: Timestamp,
    ) -> Result<(), LogError> {
        if self.aligned {
            return Ok(());
        }
        self.find_positions()?;
        if self.astray {
            for (partition, offset) in &self.positions {
                self.consumer.seek(partition, *offset)?;
            }
            self.astray = false;
        }
        let mut numbers: BTreeMap<i32, usize> = BTreeMap::new();
        for partition in &self.owned {
            *numbers.entry(partition.partition).or_default() += 1;
        }
        for (number, held) in numbers {
            if held == self.inputs && !self.partitions.contains_key(&number) {
                self.begin_restore(number, now)?;
            }
        }
        if !self.owned.is_empty() {
            // The rebalance has settled: what did not come back is somebody else's.
            self.retained.clear();
        }
        self.restore(processor, scratch, now)?;
        self.aligned = self.partitions.values().all(Partition::ready);
        Ok(())
    }

    /// Where the group stands: its committed offset, else the first record kept.
    fn find_positions(&mut self) -> Result<(), LogError> {
        let unknown: Vec<TopicPartition> = self
            .owned
            .iter()
            .filter(|p| !self.positions.contains_key(p))
            .cloned()
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let committed = self.consumer.committed(&unknown)?;
        for partition in unknown {
            let position = match committed.get(&partition) {
                Some(offset) => *offset,
                None => self.consumer.watermarks(&partition)?.0,
            };
            self.positions.insert(partition, position);
        }
        Ok(())
    }

    /// Restores from what was kept in memory at a hand-over, else from the checkpoint; both go on
    /// with the changelog.
    fn begin_restore(&mut self, number: i32, now: Timestamp) -> Result<(), LogError> {
        // Not to be read until it is whole, also where it was before.
        let inputs: Vec<_> = self.owned_of(number).cloned().collect();
        self.consumer.pause(&inputs)?;
        let path = self.checkpoint_path(number);
        let kept = match self.retained.remove(&number).filter(Partition::ready) {
            Some(partition) => Kept::InMemory(Box::new(partition)),
            None => path.map_or(Kept::Nowhere, Kept::At),
        };
        let changelog = self.changelog_of(number);
        let partition = Partition::restoring(self.log.as_ref(), changelog, kept, now)?;
        self.partitions.insert(number, partition);
        Ok(())
    }

    /// Takes in a part of the changelogs, of all partitions in turn while their readers fetch.
    /// Partitions whose state is whole begin to be read.
    fn restore(
        &mut self,
        processor: &dyn Processor,
        scratch: &mut Vec<Record>,
        now: Timestamp,
    ) -> Result<(), LogError> {
        let mut done = Vec::new();
        // What is whole is resumed, whatever becomes of the others: nobody looks at it again.
        let mut outcome = Ok(());
        for (number, partition) in self.partitions.iter_mut().filter(|(_, p)| !p.ready()) {
            match partition.restore_step(processor, RESTORE_WAIT, scratch, now) {
                Ok(true) => done.push(*number),
                Ok(false) => {}
                Err(error) => outcome = Err(error),
            }
        }
        for number in done {
            let inputs: Vec<_> = self.owned_of(number).cloned().collect();
            if let Err(error) = self.consumer.resume(&inputs) {
                // Restored again, and resumed then.
                self.partitions.remove(&number);
                outcome = Err(error);
            }
        }
        outcome
    }

    fn owned_of(&self, number: i32) -> impl Iterator<Item = &TopicPartition> {
        self.owned.iter().filter(move |p| p.partition == number)
    }

    /// Changelog records read and to be read, while any partition is not ready.
    pub fn restore_progress(&self) -> Option<(u64, u64)> {
        let restoring = self
            .partitions
            .values()
            .filter_map(Partition::restore_progress);
        restoring.reduce(|(read, total), (r, t)| (read + r, total + t))
    }

    /// The changelog partition of a partition number.
    pub fn changelog_of(&self, number: i32) -> TopicPartition {
        TopicPartition::new(self.changelog.as_str(), number)
    }

    fn checkpoint_path(&self, number: i32) -> Option<PathBuf> {
        let folder = self.state_folder.as_deref()?;
        Some(checkpoint::path(folder, self.name, number))
    }

    /// Writes the checkpoints that are older than `interval`.
    pub fn checkpoint(&mut self, interval: Duration, now: Timestamp) {
        let due: Vec<i32> = self
            .partitions
            .iter_mut()
            .filter_map(|(number, p)| p.checkpoint_due(interval, now).then_some(*number))
            .collect();
        for number in due {
            let changelog = self.changelog_of(number);
            let path = self.checkpoint_path(number);
            if let (Some(path), Some(partition)) = (path, self.partitions.get_mut(&number)) {
                partition.checkpoint(&path, self.log.as_ref(), &changelog, now);
            }
        }
    }
}

fn list(partitions: &[TopicPartition]) -> String {
    partitions
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}
