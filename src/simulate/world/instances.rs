//! Instances of readers and writers: they start, are stepped, end in order or are killed, and come back.

use super::super::agenda::Item;
use super::super::cast::{Duty, Trade};
use super::super::defects;
use super::super::plan::SESSION;
use super::super::port::{Gate, Port};
use super::super::target::{Caller, Reader};
use super::schedule::{NEVER, SOON};
use super::trouble::Hand;
use super::{SLOTS, World, codec, mixed, telemetry};
use crate::codec::Codec;
use crate::connectors;
use crate::contract::Catalogue;
use crate::demo::systems::{Teller, open};
use crate::pipeline::{Clock, Fault as Failure, Source, Verdict};
use crate::runtime::{ProcessorTask, Progress, SinkTask, SourceTask, TaskSettings};
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Records of a transaction at most: several in a burst.
const COMMIT_RECORDS_MAX: usize = 20;
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(20);
/// How long an instance that has ended is away.
const AWAY_MAX_MS: u64 = 25_000;
/// An idle instance looks again after this.
const IDLE: Duration = Duration::from_secs(30);
/// The same while nothing happens but time.
const IDLE_LONG: Duration = Duration::from_secs(6 * 3_600);

/// A task of whatever kind.
pub(super) enum Task {
    Processor(Box<ProcessorTask>),
    Sink(Box<SinkTask>),
    Source(Box<SourceTask>),
}

type Stepping = BoxFuture<'static, (Task, Result<Progress, Failure>)>;

#[derive(Default)]
pub(super) enum State {
    /// Ended, and perhaps to start again.
    #[default]
    Down,
    Resting(Task),
    /// Waits within a step.
    Stepping(Stepping),
    /// Being stepped, or stopped within a call.
    Out,
}

/// An instance of a role.
#[derive(Default)]
pub(super) struct Staff {
    pub state: State,
    /// Counts its starts.
    pub life: u32,
    pub steps: u64,
    /// Steps in a row that failed, or in which it owned nothing.
    pub failures: u32,
    pub spare: u32,
    pub gate: Option<Arc<Gate>>,
    pub halted: Option<String>,
    /// Keys that its sink has parked, and whether it takes its target for down.
    pub health: (usize, bool),
}

impl World {
    pub(super) fn reader(&self, instance: usize) -> String {
        let role = &self.roles[instance / SLOTS];
        match role.duty {
            Duty::Reads(_) | Duty::Refers => format!("{}.source", role.name),
            _ => role.name.clone(),
        }
    }

    pub(super) fn settings(&self, instance: usize) -> TaskSettings {
        let slot = format!("slot-{}", instance % SLOTS);
        TaskSettings {
            commit_records_max: COMMIT_RECORDS_MAX,
            session_timeout: SESSION,
            state_folder: self.folder.as_ref().map(|f| f.join(&slot)),
            checkpoint_interval: CHECKPOINT_INTERVAL,
            ..TaskSettings::new(slot, 0)
        }
    }

    /// Group and member id.
    pub(super) fn membership(&self, instance: usize) -> (String, String) {
        let (settings, reader) = (self.settings(instance), self.reader(instance));
        let member = settings.member(&reader).unwrap_or_default();
        (settings.group(&reader), member)
    }

    pub(super) fn come_back(&self, instance: usize) {
        let life = open(&self.staff[instance]).life;
        let away = mixed(self.plan.seed, instance as u64, u64::from(life) ^ 0xaa) % AWAY_MAX_MS;
        let away = match self.mended.load(Ordering::Relaxed) {
            true => 100,
            false => away,
        };
        let at = self.time.now().plus(Duration::from_millis(away));
        self.agenda.add(at, Item::Start(instance));
    }

    pub(super) fn start(self: &Arc<Self>, instance: usize) {
        if !matches!(open(&self.staff[instance]).state, State::Down) {
            return;
        }
        let gate = Arc::new(Gate {
            fate: Arc::new(Hand(Arc::downgrade(self))),
            instance,
            dead: AtomicBool::new(false),
        });
        let made = self.make(instance, &gate);
        let mut staff = open(&self.staff[instance]);
        staff.life += 1;
        match made {
            Ok(task) => {
                staff.state = State::Resting(task);
                (staff.failures, staff.spare) = (0, 0);
                staff.gate = Some(gate);
                drop(staff);
                open(&self.counts).lives += 1;
                self.tell(|| format!("{} starts", self.name(instance)));
                self.wake_group(&self.membership(instance).0);
            }
            Err(fault) => {
                drop(staff);
                self.tell(|| format!("{} cannot start: {fault}", self.name(instance)));
                self.come_back(instance);
            }
        }
    }

    pub(super) fn make(&self, instance: usize, gate: &Arc<Gate>) -> Result<Task, Failure> {
        let role = &self.roles[instance / SLOTS];
        let port = Port::new(self.bare.clone(), gate.clone());
        let port = defects::log(self.defect, Arc::new(port));
        // Whoever starts while the registry is away knows no schema yet.
        let codec = match self.registry.0.load(Ordering::SeqCst) {
            true => Arc::new(Codec::new(self.registry.clone(), Catalogue::compiled())),
            false => codec(),
        };
        let clock: Arc<dyn Clock> = self.clocks[instance].clone();
        let (catalogue, settings) = (Catalogue::compiled(), self.settings(instance));
        let name = role.name.as_str();
        Ok(match role.duty {
            Duty::Processes(p) => {
                let processor = defects::processor(self.defect, (p.make)());
                let task = ProcessorTask::new(
                    processor,
                    port,
                    clock,
                    codec,
                    catalogue,
                    telemetry(),
                    settings,
                )?;
                Task::Processor(Box::new(task))
            }
            Duty::Tells(system) => {
                let caller = Arc::new(Caller {
                    wire: self.wires[system].clone(),
                    instance: self.name(instance),
                    under_way: Mutex::default(),
                });
                let sink = defects::sink(self.defect, caller);
                let topics: Vec<&str> = self.reads[instance / SLOTS]
                    .iter()
                    .map(String::as_str)
                    .collect();
                let task = SinkTask::new(
                    name,
                    &topics,
                    sink,
                    port,
                    clock,
                    codec,
                    catalogue,
                    telemetry(),
                    settings,
                )?;
                Task::Sink(Box::new(task))
            }
            Duty::Reads(_) | Duty::Refers => {
                let source = match role.duty {
                    Duty::Reads(system) => defects::source(
                        self.defect,
                        Box::new(Reader {
                            wire: self.wires[system].clone(),
                            teller: Teller(self.cast.systems[system].clone()),
                        }),
                    ),
                    _ => reference(self.plan.trade)?,
                };
                let task = SourceTask::new(
                    name,
                    source,
                    port,
                    clock,
                    codec,
                    catalogue,
                    telemetry(),
                    settings,
                )?;
                Task::Source(Box::new(task))
            }
        })
    }

    /// An instance ends: in order, or as one that is killed.
    pub(super) fn end(&self, instance: usize, in_order: bool) {
        let mut staff = open(&self.staff[instance]);
        // One that is stopped within a call ends when it wakes.
        if matches!(staff.state, State::Out) {
            if let Some(gate) = &staff.gate {
                gate.dead.store(true, Ordering::Relaxed);
            }
            return;
        }
        let state = std::mem::replace(&mut staff.state, State::Down);
        let gate = staff.gate.take();
        self.gone(&mut staff);
        drop(staff);
        if let State::Down = state {
            return;
        }
        match state {
            State::Resting(Task::Processor(task)) if in_order => task.close(),
            State::Resting(Task::Sink(task)) if in_order => {
                let closing = task.close(Duration::ZERO);
                let mut closing = std::pin::pin!(closing);
                let _ = closing
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()));
            }
            killed => {
                if let Some(gate) = gate {
                    gate.dead.store(true, Ordering::Relaxed);
                }
                drop(killed);
            }
        }
        open(&self.board.due)[instance] = NEVER;
        open(&self.board.busy)[instance] = false;
        self.wake_group(&self.membership(instance).0);
    }

    /// One step of an instance, or a part of one.
    pub(super) fn step(&self, instance: usize) {
        let mut staff = open(&self.staff[instance]);
        let state = std::mem::replace(&mut staff.state, State::Out);
        open(&self.board.due)[instance] = NEVER;
        let mut stepping = match state {
            State::Resting(task) => step_of(task),
            State::Stepping(stepping) => stepping,
            other => {
                staff.state = other;
                return;
            }
        };
        staff.steps += 1;
        let steps = staff.steps;
        drop(staff);
        open(&self.counts).steps += 1;
        self.woken[instance].flag.store(false, Ordering::Relaxed);
        let waker = Waker::from(self.woken[instance].clone());
        let polled = stepping.as_mut().poll(&mut Context::from_waker(&waker));
        let mut staff = open(&self.staff[instance]);
        let dead = |gate: &Arc<Gate>| gate.dead.load(Ordering::Relaxed);
        if staff.gate.as_ref().is_none_or(dead) {
            staff.state = State::Down;
            staff.gate = None;
            self.gone(&mut staff);
            drop(staff);
            drop((polled, stepping));
            open(&self.board.due)[instance] = NEVER;
            open(&self.board.busy)[instance] = false;
            self.wake_group(&self.membership(instance).0);
            if instance % SLOTS < self.plan.slots {
                self.come_back(instance);
            }
            return;
        }
        let (task, result) = match polled {
            Poll::Ready(done) => done,
            Poll::Pending => {
                staff.state = State::Stepping(stepping);
                drop(staff);
                open(&self.board.busy)[instance] = true;
                if self.woken[instance].flag.load(Ordering::Relaxed) {
                    open(&self.board.due)[instance] = self.time.now();
                }
                return;
            }
        };
        let after = self.look_again(instance, steps, &mut staff, &task, result);
        self.look_after(&mut staff, &task);
        staff.state = State::Resting(task);
        drop(staff);
        let mut at = self.time.now().plus(after.0);
        if self.woken[instance].flag.load(Ordering::Relaxed) {
            at = self.time.now();
        }
        if let Duty::Tells(system) = self.roles[instance / SLOTS].duty {
            self.poke_if_news(system);
        }
        open(&self.board.due)[instance] = at;
        open(&self.board.busy)[instance] = after.1;
    }

    /// Counts what a sink has come through.
    fn look_after(&self, staff: &mut Staff, task: &Task) {
        let Task::Sink(sink) = task else {
            return;
        };
        let (keys, down) = staff.health;
        staff.health = (sink.parked_keys(), sink.is_target_down());
        let mut counts = open(&self.counts);
        counts.parked += staff.health.0.saturating_sub(keys) as u64;
        counts.circuits += u64::from(staff.health.1 && !down);
    }

    /// Counts what an instance that has ended leaves to whoever comes next.
    fn gone(&self, staff: &mut Staff) {
        let (keys, _) = std::mem::take(&mut staff.health);
        open(&self.counts).left_parked += keys as u64;
    }

    /// A system that was told something may have something to tell.
    pub(super) fn poke_if_news(&self, system: usize) {
        if open(&self.cast.systems[system]).desk().has_news() {
            self.poke_sources(Some(system));
        }
    }

    /// When an instance is stepped again, and whether something is under way there.
    pub(super) fn look_again(
        &self,
        instance: usize,
        steps: u64,
        staff: &mut Staff,
        task: &Task,
        result: Result<Progress, Failure>,
    ) -> (Duration, bool) {
        let ms = Duration::from_millis;
        let jitter = mixed(self.plan.seed, instance as u64, steps);
        let idle = match self.patient.load(Ordering::Relaxed) {
            true => IDLE_LONG,
            false => IDLE + ms(jitter % 5_000),
        };
        if result.is_ok() {
            staff.failures = 0;
            staff.halted = None;
        }
        if !matches!(result, Ok(Progress::Unassigned)) {
            staff.spare = 0;
        }
        match result {
            Ok(Progress::Worked(0)) => (ms(200), true),
            Ok(Progress::Worked(_)) => (ms(1 + jitter % 25), true),
            Ok(Progress::Restoring { .. }) => (ms(1 + jitter % 10), true),
            Ok(Progress::Joining) => (ms(150 + jitter % 300), true),
            Ok(Progress::Unassigned) => {
                staff.spare += 1;
                match staff.spare {
                    0..5 => (ms(100 + jitter % 200), true),
                    _ => (idle, false),
                }
            }
            Ok(Progress::Idle { until }) => {
                let now = self.time.now();
                let due = until.map(|at| self.clocks[instance].truly(at).since(now));
                let wait = due.map_or(idle, |due| due.min(idle)).max(ms(1));
                let under_way = match task {
                    Task::Sink(sink) => !sink.is_quiet() || sink.is_calling(),
                    Task::Source(_) => {
                        let held = self.cast.estate.next_due();
                        let held = held.map(|at| at.since(now).max(ms(1)));
                        return (held.map_or(wait, |h| h.min(wait)), false);
                    }
                    Task::Processor(_) => due.is_some_and(|due| due < SOON),
                };
                (wait, under_way)
            }
            Err(fault) => {
                staff.failures += 1;
                let wait = ms(100 + jitter % 100) * 2u32.pow(staff.failures.min(6));
                if fault.verdict == Verdict::Halt {
                    staff.halted = Some(fault.to_string());
                }
                self.tell(|| format!("{}: {fault}", self.name(instance)));
                (wait, true)
            }
        }
    }

    /// Tasks that wait for somebody to mend something.
    pub fn halted(&self) -> Option<String> {
        let all = self.staff.iter().enumerate();
        all.filter_map(|(n, staff)| Some((n, open(staff).halted.clone()?)))
            .map(|(n, why)| format!("{} has halted: {why}", self.name(n)))
            .next()
    }

    /// Keys and bytes in the state of each processor, its instances together.
    pub fn live_state(&self) -> BTreeMap<&'static str, (usize, usize)> {
        let mut live: BTreeMap<&'static str, (usize, usize)> = BTreeMap::new();
        for staff in &self.staff {
            if let State::Resting(Task::Processor(task)) = &open(staff).state {
                let (keys, bytes) = task.state_size();
                let sums = live.entry(task.name()).or_default();
                *sums = (sums.0 + keys, sums.1 + bytes);
            }
        }
        live
    }
}

/// A step of a task, as something that may wait.
fn step_of(task: Task) -> Stepping {
    Box::pin(async move {
        match task {
            Task::Processor(mut task) => {
                let result = task.step(Duration::ZERO);
                (Task::Processor(task), result)
            }
            Task::Sink(mut task) => {
                let result = task.step(Duration::ZERO).await;
                (Task::Sink(task), result)
            }
            Task::Source(mut task) => {
                let result = task.step().await;
                (Task::Source(task), result)
            }
        }
    })
}

fn reference(trade: Trade) -> Result<Box<dyn Source>, Failure> {
    let missing = || crate::demo::ground::setup("there is no connector of reference data");
    let kind = connectors::find("reference").ok_or_else(missing)?;
    let connector = (kind.build)("reference", trade.reference())?;
    connector.source().ok_or_else(missing)
}
