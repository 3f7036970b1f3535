//! Consumers, readers and producers of the embedded log.

use super::super::{
    Assignment, Consumer, GroupGeneration, GroupSpec, Isolation, LogError, Offset, Offsets,
    Outgoing, Producer, ProducerSpec, Reader, TopicPartition, Wanted, partition_for,
};
use super::group::Group;
use super::{Injected, Inner, Shared, Transaction};
use crate::pipeline::Record;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A group's generation as one member saw it.
struct Generation {
    group: String,
    member: String,
    incarnation: u64,
    generation: u64,
}

pub(super) struct EmbeddedConsumer {
    shared: Arc<Shared>,
    spec: GroupSpec,
    member: String,
    incarnation: u64,
    positions: BTreeMap<TopicPartition, i64>,
    paused: BTreeSet<TopicPartition>,
    /// Where the next poll begins, so that every partition gets its turn.
    turn: usize,
}

impl EmbeddedConsumer {
    pub fn join(shared: Arc<Shared>, spec: &GroupSpec) -> Result<Self, LogError> {
        let now = (shared.options.now)();
        let mut inner = shared.lock();
        if let Some(missing) = spec.topics.iter().find(|t| !inner.topics.contains_key(*t)) {
            return Err(LogError::UnknownTopic {
                topic: missing.to_string(),
            });
        }
        let incarnation = inner.next_member;
        inner.next_member += 1;
        let member = spec
            .member
            .clone()
            .unwrap_or_else(|| format!("member-{incarnation:06}"));
        inner
            .groups
            .entry(spec.group.clone())
            .or_default()
            .join(&member, spec, incarnation, now);
        drop(inner);
        shared.arrived.notify_all();
        Ok(EmbeddedConsumer {
            shared,
            spec: spec.clone(),
            member,
            incarnation,
            positions: BTreeMap::new(),
            paused: BTreeSet::new(),
            turn: 0,
        })
    }

    /// Fills `into` up to `limit` records in all.
    fn poll_now(
        &mut self,
        inner: &mut Inner,
        limit: usize,
        into: &mut Vec<Record>,
    ) -> Result<Vec<Assignment>, LogError> {
        let now = (self.shared.options.now)();
        let partitions: BTreeMap<Arc<str>, i32> = self
            .spec
            .topics
            .iter()
            .filter_map(|t| Some((t.clone(), inner.topics.get(t)?.partitions.len() as i32)))
            .collect();
        let group = inner.groups.entry(self.spec.group.clone()).or_default();
        let Some(changes) = group.poll(&self.member, self.incarnation, now, &partitions) else {
            return self.expelled(inner, now);
        };
        for change in &changes {
            match change {
                Assignment::Gained(gained) => self.start(inner, gained)?,
                Assignment::Revoked(gone) | Assignment::Lost(gone) => self.stop(gone),
            }
        }
        let count = self.positions.len();
        let max = limit.saturating_sub(into.len());
        if count == 0 || max == 0 {
            return Ok(changes);
        }
        let order: Vec<TopicPartition> = self.positions.keys().cloned().collect();
        self.turn = (self.turn + 1) % count;
        // Each partition gets a fair part of the room first, then whoever has more.
        let fair = max.div_ceil(count);
        for part in [fair, max] {
            for at in order.iter().cycle().skip(self.turn).take(count) {
                let room = limit.saturating_sub(into.len()).min(part);
                if room == 0 || self.paused.contains(at) {
                    continue;
                }
                let partition = inner.partition(at)?;
                if let Some(position) = self.positions.get_mut(at) {
                    let from = (*position).max(partition.first());
                    *position = partition.read(from, room, self.spec.isolation, into);
                }
            }
        }
        Ok(changes)
    }

    /// Whether another member has this one's name.
    fn is_replaced(&self, inner: &Inner) -> bool {
        let group = inner.groups.get(&self.spec.group);
        let is_taken =
            |g: &Group| g.has(&self.member) && !g.is_member(&self.member, self.incarnation);
        self.spec.member.is_some() && group.is_some_and(is_taken)
    }

    /// The group went on without this member: it loses what it has and joins again.
    fn expelled(&mut self, inner: &mut Inner, now: Duration) -> Result<Vec<Assignment>, LogError> {
        let lost: Vec<TopicPartition> = self.positions.keys().cloned().collect();
        self.stop(&lost);
        let replaced = self.is_replaced(inner);
        let group = inner.groups.entry(self.spec.group.clone()).or_default();
        if !replaced {
            group.join(&self.member, &self.spec, self.incarnation, now);
        }
        match lost.is_empty() {
            false => Ok(vec![Assignment::Lost(lost)]),
            true if replaced => Err(LogError::Replaced(self.member.clone())),
            true => Ok(Vec::new()),
        }
    }

    fn start(&mut self, inner: &mut Inner, gained: &[TopicPartition]) -> Result<(), LogError> {
        inner.settle_offsets(&self.spec.group, gained);
        for at in gained {
            let committed = inner
                .groups
                .get(&self.spec.group)
                .and_then(|g| g.offsets.get(at).copied());
            let first = inner.partition(at)?.first();
            self.positions
                .insert(at.clone(), committed.unwrap_or(first));
            self.paused.remove(at);
        }
        Ok(())
    }

    fn stop(&mut self, gone: &[TopicPartition]) {
        for at in gone {
            self.positions.remove(at);
            self.paused.remove(at);
        }
    }
}

impl Consumer for EmbeddedConsumer {
    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        into: &mut Vec<Record>,
    ) -> Result<Vec<Assignment>, LogError> {
        let shared = self.shared.clone();
        let mut inner = shared.lock();
        if inner.take_injected(Injected::Poll) {
            return Err(LogError::TimedOut("injected: the poll failed".into()));
        }
        let deadline = (!wait.is_zero()).then(|| Instant::now() + wait);
        let limit = into.len() + max;
        loop {
            let before = into.len();
            let changes = self.poll_now(&mut inner, limit, into)?;
            let left = deadline.map_or(Duration::ZERO, |d| {
                d.saturating_duration_since(Instant::now())
            });
            if into.len() > before || !changes.is_empty() || left.is_zero() {
                return Ok(changes);
            }
            inner = match shared.arrived.wait_timeout(inner, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn generation(&self) -> Result<GroupGeneration, LogError> {
        let inner = self.shared.lock();
        let generation = inner
            .groups
            .get(&self.spec.group)
            .map_or(0, |g| g.generation);
        Ok(GroupGeneration(Arc::new(Generation {
            group: self.spec.group.clone(),
            member: self.member.clone(),
            incarnation: self.incarnation,
            generation,
        })))
    }

    fn is_joined(&self) -> bool {
        let inner = self.shared.lock();
        let group = inner.groups.get(&self.spec.group);
        group.is_some_and(|g| g.has_joined(&self.member, self.incarnation))
    }

    fn owned(&self) -> Vec<TopicPartition> {
        self.positions.keys().cloned().collect()
    }

    fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), LogError> {
        let mut inner = self.shared.lock();
        if inner.take_injected(Injected::Seek) {
            return Err(LogError::TimedOut("injected: the seek failed".into()));
        }
        if let Some(position) = self.positions.get_mut(partition) {
            *position = offset;
            return Ok(());
        }
        Err(match self.is_replaced(&inner) {
            true => LogError::Replaced(self.member.clone()),
            false => LogError::Other(format!("{partition} is not owned")),
        })
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.paused.extend(
            partitions
                .iter()
                .filter(|p| self.positions.contains_key(p))
                .cloned(),
        );
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        partitions.iter().for_each(|p| {
            self.paused.remove(p);
        });
        Ok(())
    }

    fn committed(&self, partitions: &[TopicPartition]) -> Result<Offsets, LogError> {
        let mut inner = self.shared.lock();
        if inner.take_injected(Injected::Committed) {
            return Err(LogError::TimedOut("injected: no answer".into()));
        }
        inner.settle_offsets(&self.spec.group, partitions);
        let Some(group) = inner.groups.get(&self.spec.group) else {
            return Ok(Offsets::new());
        };
        Ok(partitions
            .iter()
            .filter_map(|p| Some((p.clone(), *group.offsets.get(p)?)))
            .collect())
    }

    fn commit(&mut self, offsets: &Offsets) -> Result<(), LogError> {
        let mut inner = self.shared.lock();
        let group = inner.groups.entry(self.spec.group.clone()).or_default();
        let owned = group.owned(&self.member, self.incarnation);
        match offsets
            .keys()
            .find(|p| !owned.is_some_and(|o| o.contains(p)))
        {
            Some(foreign) => Err(LogError::Fenced(format!(
                "{foreign} is not owned by {}",
                self.member
            ))),
            None => {
                group.offsets.extend(offsets.clone());
                Ok(())
            }
        }
    }

    fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), LogError> {
        let mut inner = self.shared.lock();
        let partition = inner.partition(partition)?;
        Ok((partition.first(), partition.stable_end(self.spec.isolation)))
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        let now = (self.shared.options.now)();
        let mut inner = self.shared.lock();
        if let Some(group) = inner.groups.get_mut(&self.spec.group) {
            group.leave(&self.member, self.incarnation, now);
        }
        drop(inner);
        self.shared.arrived.notify_all();
    }
}

pub(super) struct EmbeddedReader {
    shared: Arc<Shared>,
    isolation: Isolation,
    /// Position and the end when the reader was opened.
    at: BTreeMap<TopicPartition, (i64, i64)>,
}

impl EmbeddedReader {
    pub fn open(
        shared: Arc<Shared>,
        from: &[(TopicPartition, Offset)],
        isolation: Isolation,
    ) -> Result<Self, LogError> {
        let mut inner = shared.lock();
        let mut at = BTreeMap::new();
        for (partition, offset) in from {
            let p = inner.partition(partition)?;
            let position = match offset {
                Offset::Beginning => p.first(),
                Offset::End => p.end(),
                Offset::At(offset) => (*offset).max(p.first()),
            };
            at.insert(partition.clone(), (position, p.end()));
        }
        drop(inner);
        Ok(EmbeddedReader {
            shared,
            isolation,
            at,
        })
    }
}

impl Reader for EmbeddedReader {
    fn poll_where(
        &mut self,
        max: usize,
        wait: Duration,
        wanted: &Wanted,
        into: &mut Vec<Record>,
    ) -> Result<usize, LogError> {
        let shared = self.shared.clone();
        let deadline = (!wait.is_zero()).then(|| Instant::now() + wait);
        let limit = into.len() + max;
        let before = into.len();
        let mut inner = shared.lock();
        loop {
            for (partition, (position, _)) in &mut self.at {
                let partition = inner.partition(partition)?;
                let from = (*position).max(partition.first());
                *position = partition.read(from, limit - into.len(), self.isolation, into);
            }
            let left = deadline.map_or(Duration::ZERO, |d| {
                d.saturating_duration_since(Instant::now())
            });
            if into.len() > before || left.is_zero() || self.caught_up() {
                let read = into.len() - before;
                let passed_over = |r: &mut Record| !wanted(r.key.as_deref(), r.value.as_deref());
                into.extract_if(before.., passed_over).for_each(drop);
                return Ok(read);
            }
            inner = match shared.arrived.wait_timeout(inner, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn caught_up(&self) -> bool {
        self.at.values().all(|(position, end)| position >= end)
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.at.get(partition).map(|(position, _)| *position)
    }
}

pub(super) struct EmbeddedProducer {
    shared: Arc<Shared>,
    id: Option<String>,
    epoch: u64,
    timeout: Duration,
    /// Set when the transaction can only be aborted, or the producer only dropped.
    broken: Option<Broken>,
}

#[derive(Clone, Copy, PartialEq)]
enum Broken {
    Abort,
    Fatal,
}

impl EmbeddedProducer {
    pub fn new(shared: Arc<Shared>, spec: &ProducerSpec) -> Self {
        let mut epoch = 0;
        if let Some(id) = &spec.transactional_id {
            let mut inner = shared.lock();
            inner.end_transaction(id, false);
            let transactional = inner.transactions.entry(id.clone()).or_default();
            transactional.epoch += 1;
            epoch = transactional.epoch;
            drop(inner);
            shared.arrived.notify_all();
        }
        EmbeddedProducer {
            shared,
            id: spec.transactional_id.clone(),
            epoch,
            timeout: spec.transaction_timeout,
            broken: None,
        }
    }

    fn check(&self, inner: &Inner) -> Result<(), LogError> {
        if let Some(id) = &self.id
            && inner
                .transactions
                .get(id)
                .is_none_or(|t| t.epoch != self.epoch)
        {
            return Err(LogError::Fenced(format!(
                "transactional id {id} belongs to a newer producer, or its transaction timed out"
            )));
        }
        match self.broken {
            None => Ok(()),
            Some(Broken::Abort) => Err(LogError::Abort(
                "an earlier call of the transaction failed".into(),
            )),
            Some(Broken::Fatal) => Err(LogError::Fatal("an earlier call did not end".into())),
        }
    }

    fn id(&self) -> Result<&str, LogError> {
        self.id
            .as_deref()
            .ok_or_else(|| LogError::Other("the producer has no transactional id".into()))
    }
}

impl Producer for EmbeddedProducer {
    fn begin(&mut self) -> Result<(), LogError> {
        let id = self.id()?.to_owned();
        let now = (self.shared.options.now)();
        let mut inner = self.shared.lock();
        self.check(&inner)?;
        let number = inner.next_transaction;
        inner.next_transaction += 1;
        let transactional = inner.transactions.entry(id).or_default();
        if transactional.open.is_some() {
            return Err(LogError::Other("a transaction is open already".into()));
        }
        transactional.open = Some(Transaction {
            number,
            started: now,
            timeout: self.timeout,
            written: BTreeMap::new(),
            offsets: Vec::new(),
        });
        Ok(())
    }

    fn send(&mut self, record: Outgoing<'_>) -> Result<(), LogError> {
        let now = (self.shared.options.now)();
        let mut inner = self.shared.lock_at(now);
        self.check(&inner)?;
        if self.id.is_some() && inner.take_injected(Injected::Send) {
            self.broken = Some(Broken::Abort);
            return Err(LogError::Abort("injected".into()));
        }
        let number = match &self.id {
            Some(id) => match inner.transactions.get(id).and_then(|t| t.open.as_ref()) {
                Some(open) => open.number,
                None => return Err(LogError::Other("no transaction is open".into())),
            },
            None => 0,
        };
        let Some(topic) = inner.topics.get_mut(record.topic) else {
            return Err(LogError::UnknownTopic {
                topic: record.topic.to_owned(),
            });
        };
        let bytes = record.key.map_or(0, <[u8]>::len)
            + record.value.map_or(0, <[u8]>::len)
            + record.headers.packed().len();
        if bytes > topic.record_bytes_max {
            return Err(LogError::Oversize {
                topic: record.topic.to_owned(),
                bytes,
                limit: Some(topic.record_bytes_max),
            });
        }
        let count = topic.partitions.len();
        let chosen = match (record.partition, record.key) {
            (Some(partition), _) => partition as usize,
            (None, Some(key)) => partition_for(key, count as i32) as usize,
            (None, None) => {
                topic.round_robin = (topic.round_robin + 1) % count;
                topic.round_robin
            }
        };
        let Some(partition) = topic.partitions.get_mut(chosen) else {
            return Err(LogError::Other(format!(
                "{}[{chosen}] does not exist",
                record.topic
            )));
        };
        let is_first = !partition.is_open(number);
        let offset = partition.append(
            record.key,
            record.value,
            record.headers,
            record.timestamp_ms,
            number,
            now,
        );
        if number == 0 {
            topic.tidy(chosen, now);
            drop(inner);
            self.shared.arrived.notify_all();
        } else if is_first
            && let Some(open) = self
                .id
                .as_ref()
                .and_then(|id| inner.transactions.get_mut(id))
                .and_then(|t| t.open.as_mut())
        {
            let at = TopicPartition::new(record.topic, chosen as i32);
            open.written.insert(at, offset);
        }
        Ok(())
    }

    fn poll(&mut self, _wait: Duration) {}

    fn send_offsets(
        &mut self,
        offsets: &Offsets,
        generation: &GroupGeneration,
    ) -> Result<(), LogError> {
        let id = self.id()?.to_owned();
        let mut inner = self.shared.lock();
        self.check(&inner)?;
        let Some(taken) = generation.0.downcast_ref::<Generation>() else {
            return Err(LogError::Other("the generation is of another log".into()));
        };
        let group = inner.groups.entry(taken.group.clone()).or_default();
        if group.generation != taken.generation
            || !group.is_member(&taken.member, taken.incarnation)
        {
            self.broken = Some(Broken::Abort);
            return Err(LogError::Abort(format!(
                "group {} is in generation {}, the batch was read in {}",
                taken.group, group.generation, taken.generation
            )));
        }
        match inner
            .transactions
            .get_mut(&id)
            .and_then(|t| t.open.as_mut())
        {
            Some(open) => {
                open.offsets.push((taken.group.clone(), offsets.clone()));
                Ok(())
            }
            None => Err(LogError::Other("no transaction is open".into())),
        }
    }

    fn commit(&mut self) -> Result<(), LogError> {
        let id = self.id()?.to_owned();
        let now = (self.shared.options.now)();
        let mut inner = self.shared.lock();
        self.check(&inner)?;
        let lost = inner.take_injected(Injected::CommitLost);
        let answer_lost = !lost && inner.take_injected(Injected::CommitAnswerLost);
        if lost || answer_lost {
            self.broken = Some(Broken::Fatal);
        }
        if lost {
            return Err(LogError::Fatal(
                "injected: the commit did not arrive".into(),
            ));
        }
        let written: Vec<TopicPartition> = inner
            .transactions
            .get(&id)
            .and_then(|t| t.open.as_ref())
            .map(|o| o.written.keys().cloned().collect())
            .unwrap_or_default();
        inner.end_transaction(&id, true);
        for at in written {
            if let Some(topic) = inner.topics.get_mut(&at.topic) {
                topic.tidy(at.partition as usize, now);
            }
        }
        drop(inner);
        self.shared.arrived.notify_all();
        if answer_lost {
            Err(LogError::Fatal(
                "injected: the answer to the commit was lost".into(),
            ))
        } else {
            Ok(())
        }
    }

    fn abort(&mut self) -> Result<(), LogError> {
        let id = self.id()?.to_owned();
        let mut inner = self.shared.lock();
        if self.broken == Some(Broken::Abort) {
            self.broken = None;
        }
        self.check(&inner)?;
        inner.end_transaction(&id, false);
        drop(inner);
        self.shared.arrived.notify_all();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LogError> {
        let inner = self.shared.lock();
        self.check(&inner)
    }
}
