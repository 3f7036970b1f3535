//! A world: the log, the systems around it, instances of everything that reads and writes, and a
//! scheduler that lets one of them go on at a time, in an order that follows from the seed.
//!
//! Instances are stepped as production steps them. One that is stopped inside a call stays there while
//! the others go on: the scheduler is called again from within the call.

use super::agenda::{Agenda, Item};
use super::cast::{Cast, Duty, Role};
use super::defects::Defect;
use super::plan::{Fault, Plan, SESSION};
use super::port::{Call, Fate, Gate, Port, Strike};
use super::schemas::Schemas;
use super::story::Story;
use super::target::{Caller, OnWire, Reader, Wire, topics_of};
use super::time::{BEGIN, Time, WallClock};
use super::{deeds, defects};
use crate::codec::Codec;
use crate::connectors;
use crate::contract::{Catalogue, Tier, topic};
use crate::demo::systems::{Teller, open};
use crate::domain::Timestamp;
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::{Admin, Log, TopicSpec};
use crate::pipeline::{Clock, Fault as Failure, Verdict};
use crate::runtime::{ProcessorTask, Progress, SinkTask, SourceTask, TaskSettings, group_id};
use crate::telemetry::Telemetry;
use crate::topics::{self, Readers};
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Instances of a reader at most; the last is one more for a while.
const SLOTS: usize = 3;
/// Partitions of a topic: fewer than in a deployment, so that each has something in it.
pub(super) const PARTITIONS: i32 = 3;
/// Records of a transaction at most: several in a burst.
const COMMIT_RECORDS_MAX: usize = 20;
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(20);
/// How long an instance that has ended is away.
const AWAY_MAX_MS: u64 = 25_000;
/// An idle instance looks again after this.
const IDLE: Duration = Duration::from_secs(30);
/// The same while nothing happens but time.
const IDLE_LONG: Duration = Duration::from_secs(6 * 3_600);
const NEVER: Timestamp = Timestamp(i64::MAX);
/// Steps after which a world that does not come to rest is judged as it is.
const STEPS_MAX: u64 = 200_000;
/// What waits for no longer than this is under way.
const SOON: Duration = Duration::from_secs(60);

/// A task of whatever kind.
pub(super) enum Task {
    Processor(Box<ProcessorTask>),
    Sink(Box<SinkTask>),
    Source(Box<SourceTask>),
}

type Stepping = BoxFuture<'static, (Task, Result<Progress, Failure>)>;

enum State {
    /// Ended, and perhaps to start again.
    Down,
    Resting(Task),
    /// Waits within a step.
    Stepping(Stepping),
    /// Being stepped, or stopped within a call.
    Out,
}

/// An instance of a role.
struct Staff {
    state: State,
    /// Counts its starts.
    life: u32,
    steps: u64,
    /// Steps in a row that failed, or in which it owned nothing.
    failures: u32,
    spare: u32,
    gate: Option<Arc<Gate>>,
    halted: Option<String>,
}

/// Who is due when, and whether something is under way there.
struct Board {
    due: Mutex<Vec<Timestamp>>,
    busy: Mutex<Vec<bool>>,
}

struct Woken {
    board: Arc<Board>,
    time: Arc<Time>,
    number: usize,
    flag: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.flag.store(true, Ordering::Relaxed);
        let mut due = open(&self.board.due);
        due[self.number] = due[self.number].min(self.time.now());
    }
}

/// A strike that waits for its call.
struct Armed {
    number: usize,
    instance: usize,
    call: Call,
    skip: u32,
    what: Strike,
}

/// What a run counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub steps: u64,
    pub commits: u64,
    pub lives: u64,
}

pub(super) struct World {
    pub plan: Plan,
    pub time: Arc<Time>,
    pub log: EmbeddedLog,
    /// As judges have it.
    pub bare: Arc<dyn Log>,
    pub cast: Cast,
    pub wires: Vec<Arc<Wire>>,
    pub roles: Vec<Role>,
    pub story: Arc<Story>,
    pub agenda: Arc<Agenda>,
    pub counts: Mutex<Counts>,
    /// Faults that struck, by number.
    pub struck: Mutex<BTreeSet<usize>>,
    defect: Option<Defect>,
    registry: Arc<Schemas>,
    board: Arc<Board>,
    woken: Vec<Arc<Woken>>,
    staff: Vec<Mutex<Staff>>,
    clocks: Vec<Arc<WallClock>>,
    /// Topics of each role, tables included.
    reads: Vec<Vec<String>>,
    armed: Mutex<Vec<Armed>>,
    stopped: AtomicBool,
    patient: AtomicBool,
    /// Whether whoever ends comes back at once and stays.
    mended: AtomicBool,
    folder: Option<PathBuf>,
}

/// Shared by all worlds of the process: it knows the compiled contracts and nothing else.
pub(super) fn codec() -> Arc<Codec> {
    static CODEC: OnceLock<Arc<Codec>> = OnceLock::new();
    let made = || {
        Arc::new(Codec::new(
            Arc::new(Schemas::default()),
            Catalogue::compiled(),
        ))
    };
    CODEC.get_or_init(made).clone()
}

fn telemetry() -> Arc<Telemetry> {
    static TELEMETRY: OnceLock<Arc<Telemetry>> = OnceLock::new();
    TELEMETRY.get_or_init(|| Arc::new(Telemetry::new())).clone()
}

/// A number that follows from these and looks like chance.
pub(super) fn mixed(seed: u64, a: u64, b: u64) -> u64 {
    let mut x =
        seed ^ a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_mul(0xd1b5_4a32_d192_ed03);
    for _ in 0..2 {
        x ^= x >> 32;
        x = x.wrapping_mul(0xe703_7ed1_a0b4_28db);
    }
    x ^ (x >> 29)
}

impl World {
    pub fn new(
        plan: Plan,
        defect: Option<Defect>,
        tell: bool,
        folder: Option<PathBuf>,
    ) -> Result<Arc<World>, Failure> {
        let time = Time::new();
        let of_log = time.clone();
        let log = EmbeddedLog::new(Options {
            now: Arc::new(move || Duration::from_micros(of_log.now().0.unsigned_abs())),
            ..Options::system()
        });
        let roles = plan.trade.roles();
        lay_out(&log, &roles)?;
        let story = Arc::new(Story::new(tell));
        let agenda = Arc::new(Agenda::default());
        let outside: Arc<dyn Clock> = WallClock::new(&time, 0);
        let cast = Cast::new(plan.trade, plan.seed, outside);
        let named = plan.trade.systems().into_iter().zip(&cast.systems);
        let wires = named.enumerate().map(|(number, ((name, _), system))| {
            Arc::new(Wire {
                name: name.into(),
                number,
                system: system.clone(),
                time: time.clone(),
                agenda: agenda.clone(),
                story: story.clone(),
                seed: mixed(plan.seed, 7, number as u64),
                state: Mutex::new(OnWire::default()),
            })
        });
        let wires: Vec<Arc<Wire>> = wires.collect();
        let count = roles.len() * SLOTS;
        let board = Arc::new(Board {
            due: Mutex::new(vec![NEVER; count]),
            busy: Mutex::new(vec![false; count]),
        });
        let skew = |n: usize| match plan.skew_ms {
            0 => 0,
            most => (mixed(plan.seed, 11, n as u64) % (2 * most as u64 + 1)) as i64 - most,
        };
        let stock_only = plan.trade == super::cast::Trade::Stock;
        let reads = roles.iter().map(|role| match role.duty {
            Duty::Processes(p) => {
                let all = p.descriptor.inputs.iter().chain(p.descriptor.tables);
                all.map(|t| (*t).to_owned()).collect()
            }
            Duty::Tells(system) => {
                let topics = topics_of(&*open(&cast.systems[system]), stock_only);
                topics.into_iter().map(str::to_owned).collect()
            }
            Duty::Reads(_) | Duty::Refers => Vec::new(),
        });
        let reads: Vec<Vec<String>> = reads.collect();
        let staff = (0..count).map(|_| {
            Mutex::new(Staff {
                state: State::Down,
                life: 0,
                steps: 0,
                failures: 0,
                spare: 0,
                gate: None,
                halted: None,
            })
        });
        let woken = (0..count).map(|number| {
            Arc::new(Woken {
                board: board.clone(),
                time: time.clone(),
                number,
                flag: AtomicBool::new(false),
            })
        });
        Ok(Arc::new(World {
            bare: Arc::new(log.clone()),
            clocks: (0..count)
                .map(|n| WallClock::new(&time, skew(n) * 1_000))
                .collect(),
            staff: staff.collect(),
            woken: woken.collect(),
            reads,
            board,
            log,
            cast,
            wires,
            roles,
            story,
            agenda,
            time,
            defect,
            folder,
            registry: Arc::default(),
            armed: Mutex::default(),
            struck: Mutex::default(),
            counts: Mutex::default(),
            stopped: AtomicBool::new(false),
            patient: AtomicBool::new(false),
            mended: AtomicBool::new(false),
            plan,
        }))
    }

    /// The place of an instance.
    pub fn place(&self, role: usize, slot: usize) -> usize {
        role * SLOTS + slot % SLOTS
    }

    /// What an instance is called.
    pub fn name(&self, instance: usize) -> String {
        let role = &self.roles[instance / SLOTS];
        let kind = match role.duty {
            Duty::Processes(_) => "",
            Duty::Tells(_) => "sink ",
            Duty::Reads(_) | Duty::Refers => "source ",
        };
        format!("{kind}{}/{}", role.name, instance % SLOTS)
    }

    pub fn tell(&self, line: impl FnOnce() -> String) {
        self.story.tell(self.time.now(), line);
    }

    /// Starts everybody, a moment apart.
    pub fn open_shop(&self) {
        for role in 0..self.roles.len() {
            for slot in 0..self.plan.slots {
                let instance = self.place(role, slot);
                let late = mixed(self.plan.seed, 3, instance as u64) % 1_500;
                let at = self.time.now().plus(Duration::from_millis(late));
                self.agenda.add(at, Item::Start(instance));
            }
        }
    }

    /// Puts what is planned on the agenda.
    pub fn plan_ahead(&self) {
        for (number, (at, _)) in self.plan.deeds.iter().enumerate() {
            self.agenda.add(BEGIN.plus(*at), Item::Deed(number));
        }
        for (number, (at, _)) in self.plan.faults.iter().enumerate() {
            self.agenda.add(BEGIN.plus(*at), Item::Fault(number));
        }
    }

    /// Lets the world go on until then.
    pub fn run_until(self: &Arc<Self>, end: Timestamp) {
        while self.advance(end) {}
        self.time.advance_to(end);
    }

    /// Lets the world go on until nothing is under way any more. Whether it came to that.
    pub fn settle(self: &Arc<Self>) -> Result<(), String> {
        let limit = self.time.now().plus(Duration::from_secs(3 * 3_600));
        let mut quiet_since = None;
        while self.time.now() < limit && open(&self.counts).steps < STEPS_MAX {
            if self.is_quiet() {
                let since = *quiet_since.get_or_insert(self.time.now());
                // While a group forms a moment may pass in which every member waits for the others.
                if self.time.now().since(since) > Duration::from_secs(2) {
                    return Ok(());
                }
            } else {
                quiet_since = None;
            }
            let step = self.time.now().plus(Duration::from_millis(500));
            if !self.advance(step) {
                self.time.advance_to(step);
            }
        }
        let busy = open(&self.board.busy).clone();
        let busy = busy.iter().enumerate().filter(|(_, b)| **b);
        let names: Vec<String> = busy.map(|(n, _)| self.name(n)).collect();
        Err(format!("never at rest: {}", names.join(", ")))
    }

    /// Time passes in which everybody waits for nothing else.
    pub fn pass(self: &Arc<Self>, time: Duration) -> Result<(), String> {
        self.patient.store(true, Ordering::Relaxed);
        let end = self.time.now().plus(time);
        self.run_until(end);
        self.patient.store(false, Ordering::Relaxed);
        for instance in 0..self.staff.len() {
            self.nudge(instance, 0);
        }
        self.settle()
    }

    fn is_quiet(&self) -> bool {
        let soon = self.time.now().plus(SOON);
        let held = self.cast.estate.next_due().is_none_or(|at| at > soon);
        let nothing_planned = self.agenda.next().is_none_or(|at| at > soon);
        held && nothing_planned && !open(&self.board.busy).iter().any(|b| *b)
    }

    /// One thing happens, if any is due before `end`.
    fn advance(self: &Arc<Self>, end: Timestamp) -> bool {
        let (instance, due) = {
            let due = open(&self.board.due);
            let first = due.iter().enumerate().min_by_key(|(_, at)| **at);
            first.map_or((0, NEVER), |(n, at)| (n, *at))
        };
        let planned = self.agenda.next().unwrap_or(NEVER);
        let sleeper = self.time.next().unwrap_or(NEVER);
        let at = due.min(planned).min(sleeper);
        if at > end {
            return false;
        }
        self.time.advance_to(at);
        if planned <= due && planned <= sleeper {
            if let Some(item) = self.agenda.take(self.time.now()) {
                self.happen(item);
            }
        } else if due <= sleeper {
            self.step(instance);
        }
        true
    }

    fn happen(self: &Arc<Self>, item: Item) {
        match item {
            Item::Deed(number) => {
                let deed = self.plan.deeds[number].1.clone();
                self.tell(|| format!("{deed}"));
                deeds::act(self, &deed);
                self.poke_sources(None);
            }
            Item::Fault(number) => self.go_wrong(number),
            Item::Start(instance) => self.start(instance),
            Item::End(instance) => self.end(instance, true),
            Item::Expel(group, member) => {
                self.log.expire(&group, &member);
                self.tell(|| format!("{group} goes on without {member}"));
                self.wake_group(&group);
            }
            Item::Registry => {
                self.registry.0.store(false, Ordering::SeqCst);
                self.tell(|| "the registry answers again".into());
            }
            Item::Up(system) => {
                open(&self.cast.systems[system]).desk_mut().set_down(false);
                self.tell(|| format!("{} is back", self.wires[system].name));
                self.poke_sources(Some(system));
            }
            Item::Prompt(system) => {
                let mut system = open(&self.cast.systems[system]);
                system.desk_mut().set_delay(Duration::ZERO);
            }
            Item::Arrive(system, topic, key, event) => {
                self.tell(|| {
                    format!(
                        "a late call for {key} arrives at {}",
                        self.wires[system].name
                    )
                });
                self.wires[system].arrive(&topic, &key, &event);
                self.poke_sources(Some(system));
            }
        }
    }

    fn go_wrong(self: &Arc<Self>, number: usize) {
        let fault = self.plan.faults[number].1.clone();
        let now = self.time.now();
        let mut strikes = true;
        match fault {
            Fault::Strike {
                role,
                slot,
                call,
                skip,
                what,
            } => {
                strikes = false;
                let instance = self.place(role, slot % self.plan.slots);
                open(&self.armed).push(Armed {
                    number,
                    instance,
                    call,
                    skip,
                    what,
                });
            }
            Fault::Crash { role, slot } => {
                let instance = self.place(role, slot % self.plan.slots);
                self.tell(|| format!("#{number} {} crashes", self.name(instance)));
                self.end(instance, false);
                self.come_back(instance);
            }
            Fault::Leave { role, slot } => {
                let instance = self.place(role, slot % self.plan.slots);
                self.tell(|| format!("#{number} {} ends in order", self.name(instance)));
                self.end(instance, true);
                self.come_back(instance);
            }
            Fault::Expel { role, slot } => {
                let instance = self.place(role, slot % self.plan.slots);
                let (group, member) = self.membership(instance);
                self.tell(|| format!("#{number} {} is expelled", self.name(instance)));
                self.agenda.add(now, Item::Expel(group, member));
            }
            Fault::Join { role, stays } => {
                let instance = self.place(role, self.plan.slots);
                self.tell(|| format!("#{number} {} joins", self.name(instance)));
                self.start(instance);
                self.agenda.add(now.plus(stays), Item::End(instance));
            }
            Fault::Clock {
                role,
                slot,
                ahead_ms,
            } => {
                let instance = self.place(role, slot % self.plan.slots);
                self.tell(|| {
                    format!(
                        "#{number} the clock of {} is set {ahead_ms:+} ms",
                        self.name(instance)
                    )
                });
                self.clocks[instance].set(ahead_ms * 1_000);
            }
            Fault::Registry { lasts } => {
                self.tell(|| format!("#{number} the registry is away for {lasts:?}"));
                self.registry.0.store(true, Ordering::SeqCst);
                self.agenda.add(now.plus(lasts), Item::Registry);
            }
            Fault::Answers { system, answers } => {
                open(&self.wires[system].state).answers.extend(answers);
            }
            Fault::Down { system, lasts } => {
                self.tell(|| {
                    format!(
                        "#{number} {} is away for {lasts:?}",
                        self.wires[system].name
                    )
                });
                open(&self.cast.systems[system]).desk_mut().set_down(true);
                self.agenda.add(now.plus(lasts), Item::Up(system));
            }
            Fault::Reading {
                system,
                reads,
                takes,
                fails,
            } => {
                self.tell(|| {
                    let how = if fails { "fail" } else { "end" };
                    format!(
                        "#{number} {reads} reads of {} {how} after {takes:?}",
                        self.wires[system].name
                    )
                });
                let mut state = open(&self.wires[system].state);
                (0..reads).for_each(|_| state.reads.push_back((takes, fails)));
            }
            Fault::Delay { system, by, lasts } => {
                self.tell(|| format!("#{number} {} tells {by:?} late", self.wires[system].name));
                open(&self.cast.systems[system]).desk_mut().set_delay(by);
                self.agenda.add(now.plus(lasts), Item::Prompt(system));
            }
            Fault::Compact => {
                self.tell(|| format!("#{number} the log compacts state"));
                for role in &self.roles {
                    if let Duty::Processes(p) = role.duty {
                        let changelog = Catalogue::compiled().state_topic(p.descriptor.name);
                        self.log.compact(&changelog);
                    }
                }
                self.log.compact(topic::SOURCE_CURSOR);
            }
        }
        if strikes {
            open(&self.struck).insert(number);
        }
    }

    /// Nothing goes wrong any more: whoever is away comes back.
    pub fn mend(&self) {
        self.tell(|| "nothing goes wrong any more".into());
        self.mended.store(true, Ordering::Relaxed);
        open(&self.armed).clear();
        self.registry.0.store(false, Ordering::SeqCst);
        for (wire, system) in self.wires.iter().zip(&self.cast.systems) {
            let mut state = open(&wire.state);
            state.answers.clear();
            state.reads.clear();
            let mut system = open(system);
            system.desk_mut().set_down(false);
            system.desk_mut().set_delay(Duration::ZERO);
        }
        for role in 0..self.roles.len() {
            for slot in 0..SLOTS {
                let instance = self.place(role, slot);
                match slot < self.plan.slots {
                    true => self.agenda.add(self.time.now(), Item::Start(instance)),
                    false => self.agenda.add(self.time.now(), Item::End(instance)),
                }
            }
        }
        self.poke_sources(None);
    }

    /// Sources of a system, or of all, look now.
    pub fn poke_sources(&self, system: Option<usize>) {
        for (number, role) in self.roles.iter().enumerate() {
            if let Duty::Reads(of) = role.duty
                && system.is_none_or(|s| s == of)
            {
                (0..SLOTS).for_each(|slot| self.nudge(self.place(number, slot), 30));
            }
        }
    }

    /// Whoever reads these topics looks soon.
    pub fn readable(&self, topics: &BTreeSet<String>) {
        for (role, reads) in self.reads.iter().enumerate() {
            if reads.iter().any(|t| topics.contains(t)) {
                (0..SLOTS).for_each(|slot| self.nudge(self.place(role, slot), 40));
            }
        }
    }

    /// Whoever is due later is due within `most_ms`.
    fn nudge(&self, instance: usize, most_ms: u64) {
        let staff = open(&self.staff[instance]);
        if matches!(staff.state, State::Down) {
            return;
        }
        let late = mixed(self.plan.seed, instance as u64, staff.steps ^ 0x55) % (most_ms + 1);
        drop(staff);
        let at = self.time.now().plus(Duration::from_millis(late));
        let mut due = open(&self.board.due);
        due[instance] = due[instance].min(at);
        open(&self.board.busy)[instance] = true;
    }

    fn wake_group(&self, group: &str) {
        for instance in 0..self.staff.len() {
            if self.membership(instance).0 == group {
                self.nudge(instance, 100);
            }
        }
    }

    fn reader(&self, instance: usize) -> String {
        let role = &self.roles[instance / SLOTS];
        match role.duty {
            Duty::Reads(_) | Duty::Refers => format!("{}.source", role.name),
            _ => role.name.clone(),
        }
    }

    fn settings(&self, instance: usize) -> TaskSettings {
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
    fn membership(&self, instance: usize) -> (String, String) {
        let (settings, reader) = (self.settings(instance), self.reader(instance));
        let member = settings.member(&reader).unwrap_or_default();
        (settings.group(&reader), member)
    }

    fn come_back(&self, instance: usize) {
        let life = open(&self.staff[instance]).life;
        let away = mixed(self.plan.seed, instance as u64, u64::from(life) ^ 0xaa) % AWAY_MAX_MS;
        let away = match self.mended.load(Ordering::Relaxed) {
            true => 100,
            false => away,
        };
        let at = self.time.now().plus(Duration::from_millis(away));
        self.agenda.add(at, Item::Start(instance));
    }

    fn start(self: &Arc<Self>, instance: usize) {
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

    fn make(&self, instance: usize, gate: &Arc<Gate>) -> Result<Task, Failure> {
        let role = &self.roles[instance / SLOTS];
        let port = Port {
            inner: self.bare.clone(),
            gate: gate.clone(),
        };
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
    fn end(&self, instance: usize, in_order: bool) {
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
    fn step(&self, instance: usize) {
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

    /// A system that was told something may have something to tell.
    fn poke_if_news(&self, system: usize) {
        if open(&self.cast.systems[system]).desk().has_news() {
            self.poke_sources(Some(system));
        }
    }

    /// When an instance is stepped again, and whether something is under way there.
    fn look_again(
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

    /// Who settles which topic.
    pub fn settles(&self) -> Vec<(String, String)> {
        let inputs = |(role, reads): (&Role, &Vec<String>)| {
            let topics = match role.duty {
                Duty::Processes(p) => p
                    .descriptor
                    .inputs
                    .iter()
                    .map(|t| (*t).to_owned())
                    .collect(),
                _ => reads.clone(),
            };
            let name = role.name.clone();
            let pairs = topics.into_iter().map(move |t| (name.clone(), t));
            pairs.collect::<Vec<_>>()
        };
        self.roles
            .iter()
            .zip(&self.reads)
            .flat_map(inputs)
            .collect()
    }

    /// The application that the tasks belong to.
    pub fn application() -> String {
        let group = group_id(&TaskSettings::new("", 0).application, "");
        group.trim_end_matches('.').to_owned()
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

fn reference(trade: super::cast::Trade) -> Result<Box<dyn crate::pipeline::Source>, Failure> {
    let missing = || crate::demo::ground::setup("there is no connector of reference data");
    let kind = connectors::find("reference").ok_or_else(missing)?;
    let connector = (kind.build)("reference", trade.reference())?;
    connector.source().ok_or_else(missing)
}

fn lay_out(log: &EmbeddedLog, roles: &[Role]) -> Result<(), Failure> {
    let mut readers = Readers::processors();
    let ours = |name: &String| roles.iter().any(|r| r.name == *name);
    readers.processors.retain(|(name, _)| ours(name));
    for role in roles {
        let entry = (role.name.clone(), topic::STOCK_CHANGE.to_owned());
        match role.duty {
            Duty::Processes(_) => {}
            Duty::Tells(_) => readers.sinks.push(entry),
            Duty::Reads(_) | Duty::Refers => readers.sources.push(entry),
        }
    }
    for spec in topics::wanted(Catalogue::compiled(), Tier::S, &readers) {
        let partitions = spec.partitions.min(PARTITIONS);
        log.create(&TopicSpec { partitions, ..spec })?;
    }
    Ok(())
}

/// A topic as stories name it; none for what the runtime writes beside it.
fn worth_telling(topic: &str) -> Option<&str> {
    let beside = [
        topic::OPS_DISPOSITION,
        topic::OPS_HEARTBEAT,
        topic::SOURCE_CURSOR,
    ];
    if beside.contains(&topic) {
        return None;
    }
    let name = topic.strip_prefix("retail.").unwrap_or(topic);
    Some(name.strip_suffix(".v1").unwrap_or(name))
}

/// What an instance's port has of the world.
struct Hand(std::sync::Weak<World>);

impl Fate for Hand {
    fn strike(&self, instance: usize, call: Call) -> Option<Strike> {
        let world = self.0.upgrade()?;
        let mut armed = open(&world.armed);
        let hits = |a: &&mut Armed| a.instance == instance && a.call == call;
        let hit = armed.iter_mut().find(hits)?;
        if hit.skip > 0 {
            hit.skip -= 1;
            return None;
        }
        let (number, what) = (hit.number, hit.what);
        armed.retain(|a| a.number != number);
        drop(armed);
        open(&world.struck).insert(number);
        world.tell(|| {
            let name = world.name(instance);
            match what {
                Strike::Fail => format!("#{number} {name} {call}, which fails"),
                Strike::AnswerLost => format!("#{number} {name} {call}, and hears nothing of it"),
                Strike::CrashBefore => format!("#{number} {name} crashes before it {call}"),
                Strike::CrashAfter => format!("#{number} {name} {call} and crashes"),
                Strike::StopBefore(wait) => {
                    format!("#{number} {name} is stopped for {wait:?} before it {call}")
                }
                Strike::StopAfter(wait) => {
                    format!("#{number} {name} {call} and is stopped for {wait:?}")
                }
            }
        });
        Some(what)
    }

    fn stop(&self, instance: usize, wait: Duration) {
        let Some(world) = self.0.upgrade() else {
            return;
        };
        // Whoever is stopped while another is has to wait its turn.
        if world.stopped.swap(true, Ordering::Relaxed) {
            return;
        }
        let now = world.time.now();
        if wait > SESSION {
            let (group, member) = world.membership(instance);
            let item = Item::Expel(group, member);
            world.agenda.add(now.plus(SESSION), item);
        }
        world.run_until(now.plus(wait));
        world.tell(|| format!("{} goes on", world.name(instance)));
        world.stopped.store(false, Ordering::Relaxed);
    }

    fn written(&self, instance: usize, topics: &BTreeSet<String>) {
        let Some(world) = self.0.upgrade() else {
            return;
        };
        open(&world.counts).commits += 1;
        let told: Vec<&str> = topics.iter().filter_map(|t| worth_telling(t)).collect();
        if !told.is_empty() {
            world.tell(|| format!("{} commits {}", world.name(instance), told.join(", ")));
        }
        world.readable(topics);
    }
}
