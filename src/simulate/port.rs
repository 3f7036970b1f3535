//! The log as one instance has it: each call can fail, be the last one of the instance, or be the one
//! at which it is stopped for a while, before or after its effect.

use super::watched::Watched;
use crate::log::{
    Admin, Assignment, Consumer, GroupGeneration, GroupSpec, Isolation, Log, LogError, Offset,
    Offsets, Outgoing, Producer, ProducerSpec, Reader, TopicPartition, Wanted,
};
use crate::pipeline::Record;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A call of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Joining a group.
    Join,
    Poll,
    Committed,
    Watermarks,
    Seek,
    Pause,
    Resume,
    OpenReader,
    Read,
    OpenProducer,
    Begin,
    Send,
    Flush,
    SendOffsets,
    Commit,
    Abort,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Call::Join => "joins its group",
            Call::Poll => "polls",
            Call::Committed => "asks for committed offsets",
            Call::Watermarks => "asks for watermarks",
            Call::Seek => "seeks",
            Call::Pause => "pauses partitions",
            Call::Resume => "resumes partitions",
            Call::OpenReader => "opens a reader",
            Call::Read => "reads state",
            Call::OpenProducer => "makes a producer",
            Call::Begin => "begins a transaction",
            Call::Send => "sends a record",
            Call::Flush => "flushes",
            Call::SendOffsets => "sends offsets",
            Call::Commit => "commits",
            Call::Abort => "aborts",
        };
        f.write_str(words)
    }
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strike {
    /// It has no effect and fails.
    Fail,
    /// It has its effect, and its answer is lost.
    AnswerLost,
    /// The instance ends before it.
    CrashBefore,
    /// The instance ends once it has had its effect.
    CrashAfter,
    /// The instance is stopped before it for so long, and goes on as if nothing had been.
    StopBefore(Duration),
    /// The instance is stopped once it has had its effect.
    StopAfter(Duration),
    /// The group goes on without the instance, which is stopped before the call for so long and then goes on
    /// as a zombie.
    Outlived(Duration),
}

/// Who decides what happens to a call.
pub(super) trait Fate: Send + Sync {
    /// What happens to this call of the instance, if anything.
    fn strike(&self, instance: usize, call: Call) -> Option<Strike>;
    /// The group goes on without the instance.
    fn expel(&self, instance: usize);
    /// The instance is stopped while the world goes on.
    fn stop(&self, instance: usize, wait: Duration);
    /// Records of these topics can be read from now on.
    fn written(&self, instance: usize, topics: &BTreeSet<String>);
}

/// What the ports of one life of an instance share.
pub(super) struct Gate {
    pub fate: Arc<dyn Fate>,
    pub instance: usize,
    pub dead: AtomicBool,
}

impl Gate {
    /// Makes a call, unless something happens to it. `failed` is the error that a call fails with.
    fn pass<T>(
        &self,
        call: Call,
        failed: impl FnOnce(&'static str) -> LogError,
        make: impl FnOnce() -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let over = || LogError::Fatal("the instance has ended".into());
        if self.dead.load(Ordering::Relaxed) {
            return Err(over());
        }
        let crash = || {
            self.dead.store(true, Ordering::Relaxed);
            Err(over())
        };
        match self.fate.strike(self.instance, call) {
            None => make(),
            Some(Strike::Fail) => Err(failed("it did not arrive")),
            Some(Strike::AnswerLost) => make().and(Err(failed("its answer was lost"))),
            Some(Strike::CrashBefore) => crash(),
            Some(Strike::CrashAfter) => {
                let _ = make();
                crash()
            }
            Some(Strike::StopBefore(wait)) => {
                self.fate.stop(self.instance, wait);
                make()
            }
            Some(Strike::Outlived(wait)) => {
                self.fate.expel(self.instance);
                self.fate.stop(self.instance, wait);
                make()
            }
            Some(Strike::StopAfter(wait)) => {
                let made = make();
                self.fate.stop(self.instance, wait);
                made
            }
        }
    }

    /// A call that fails without harm.
    fn harmless<T>(
        &self,
        call: Call,
        make: impl FnOnce() -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        self.pass(call, |why| LogError::TimedOut(why.into()), make)
    }
}

/// The log as an instance has it. Nothing waits for real time.
pub(super) struct Port {
    inner: Arc<dyn Log>,
    gate: Arc<Gate>,
    admin: Watched,
}

impl Port {
    pub fn new(inner: Arc<dyn Log>, gate: Arc<Gate>) -> Self {
        let watched = gate.clone();
        let admin = Watched::new(inner.clone(), move |admin, partition| {
            watched.harmless(Call::Watermarks, || admin.watermarks(partition))
        });
        Port { inner, gate, admin }
    }
}

impl Log for Port {
    fn consumer(&self, spec: &GroupSpec) -> Result<Box<dyn Consumer>, LogError> {
        let make = || self.inner.consumer(spec);
        Ok(Box::new(PortConsumer {
            inner: self.gate.harmless(Call::Join, make)?,
            gate: self.gate.clone(),
        }))
    }
    fn reader(
        &self,
        from: &[(TopicPartition, Offset)],
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        let make = || self.inner.reader(from, isolation);
        Ok(Box::new(PortReader {
            inner: self.gate.harmless(Call::OpenReader, make)?,
            gate: self.gate.clone(),
        }))
    }
    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>, LogError> {
        let make = || self.inner.producer(spec);
        Ok(Box::new(PortProducer {
            inner: self.gate.harmless(Call::OpenProducer, make)?,
            gate: self.gate.clone(),
            topics: BTreeSet::new(),
            broken: None,
        }))
    }
    fn admin(&self) -> &dyn Admin {
        &self.admin
    }
    fn address(&self) -> &str {
        self.inner.address()
    }
    fn id(&self) -> &str {
        self.inner.id()
    }
}

struct PortConsumer {
    inner: Box<dyn Consumer>,
    gate: Arc<Gate>,
}

impl Consumer for PortConsumer {
    fn poll(
        &mut self,
        max: usize,
        _wait: Duration,
        into: &mut Vec<Record>,
    ) -> Result<Vec<Assignment>, LogError> {
        // An answer that is lost would take changes of assignment with it, which the client keeps.
        let failed = |why: &str| LogError::TimedOut(why.into());
        let inner = &mut self.inner;
        let (mut changes, before) = (Vec::new(), into.len());
        let polled = self.gate.pass(Call::Poll, failed, || {
            changes = inner.poll(max, Duration::ZERO, into)?;
            Ok(())
        });
        match polled {
            Ok(()) => Ok(changes),
            // What the client has fetched it hands out before it tells of an error.
            Err(LogError::TimedOut(_)) if into.len() > before || !changes.is_empty() => Ok(changes),
            Err(error) => Err(error),
        }
    }
    fn generation(&self) -> Result<GroupGeneration, LogError> {
        self.inner.generation()
    }
    fn is_joined(&self) -> bool {
        self.inner.is_joined()
    }
    fn owned(&self) -> Vec<TopicPartition> {
        self.inner.owned()
    }
    fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), LogError> {
        let inner = &mut self.inner;
        self.gate
            .harmless(Call::Seek, || inner.seek(partition, offset))
    }
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let inner = &mut self.inner;
        self.gate.harmless(Call::Pause, || inner.pause(partitions))
    }
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let inner = &mut self.inner;
        self.gate
            .harmless(Call::Resume, || inner.resume(partitions))
    }
    fn committed(&self, partitions: &[TopicPartition]) -> Result<Offsets, LogError> {
        let make = || self.inner.committed(partitions);
        self.gate.harmless(Call::Committed, make)
    }
    fn commit(&mut self, offsets: &Offsets) -> Result<(), LogError> {
        let inner = &mut self.inner;
        self.gate.harmless(Call::Commit, || inner.commit(offsets))
    }
    fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), LogError> {
        let make = || self.inner.watermarks(partition);
        self.gate.harmless(Call::Watermarks, make)
    }
}

struct PortReader {
    inner: Box<dyn Reader>,
    gate: Arc<Gate>,
}

impl Reader for PortReader {
    fn poll_where(
        &mut self,
        max: usize,
        _wait: Duration,
        wanted: &Wanted,
        into: &mut Vec<Record>,
    ) -> Result<usize, LogError> {
        let inner = &mut self.inner;
        let before = into.len();
        let polled = self.gate.harmless(Call::Read, || {
            inner.poll_where(max, Duration::ZERO, wanted, into)
        });
        match polled {
            Err(LogError::TimedOut(_)) if into.len() > before => Ok(into.len() - before),
            other => other,
        }
    }
    fn caught_up(&self) -> bool {
        self.inner.caught_up()
    }
    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.position(partition)
    }
}

/// Why a producer takes no calls.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    /// Until the transaction is aborted.
    Abort,
    /// For good.
    Fatal,
}

struct PortProducer {
    inner: Box<dyn Producer>,
    gate: Arc<Gate>,
    /// Topics written in the open transaction.
    topics: BTreeSet<String>,
    broken: Option<Broken>,
}

impl PortProducer {
    fn make(
        &mut self,
        call: Call,
        breaks: Broken,
        make: impl FnOnce(&mut dyn Producer) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        match self.broken {
            Some(Broken::Fatal) => {
                return Err(LogError::Fatal("an earlier call did not end".into()));
            }
            Some(Broken::Abort) if call != Call::Abort => {
                return Err(LogError::Abort("an earlier call failed".into()));
            }
            _ => self.broken = None,
        }
        let inner = self.inner.as_mut();
        let mut struck = false;
        let failed = |why: &str| {
            struck = true;
            match breaks {
                Broken::Abort => LogError::Abort(why.into()),
                Broken::Fatal => LogError::Fatal(why.into()),
            }
        };
        let made = self.gate.pass(call, failed, || make(inner));
        if struck {
            self.broken = Some(breaks);
        }
        made
    }
}

impl Producer for PortProducer {
    fn begin(&mut self) -> Result<(), LogError> {
        self.topics.clear();
        self.make(Call::Begin, Broken::Fatal, |inner| inner.begin())
    }
    fn send(&mut self, record: Outgoing<'_>) -> Result<(), LogError> {
        if !self.topics.contains(record.topic) {
            self.topics.insert(record.topic.to_owned());
        }
        self.make(Call::Send, Broken::Abort, |inner| inner.send(record))
    }
    fn poll(&mut self, _wait: Duration) {}
    fn send_offsets(
        &mut self,
        offsets: &Offsets,
        generation: &GroupGeneration,
    ) -> Result<(), LogError> {
        self.make(Call::SendOffsets, Broken::Fatal, |inner| {
            inner.send_offsets(offsets, generation)
        })
    }
    fn commit(&mut self) -> Result<(), LogError> {
        let gate = self.gate.clone();
        let topics = std::mem::take(&mut self.topics);
        self.make(Call::Commit, Broken::Fatal, |inner| {
            inner.commit()?;
            gate.fate.written(gate.instance, &topics);
            Ok(())
        })
    }
    fn abort(&mut self) -> Result<(), LogError> {
        self.make(Call::Abort, Broken::Fatal, |inner| inner.abort())
    }
    fn flush(&mut self) -> Result<(), LogError> {
        self.make(Call::Flush, Broken::Abort, |inner| inner.flush())
    }
}
