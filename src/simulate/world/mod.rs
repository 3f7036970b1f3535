//! A world: the log, the systems around it, instances of everything that reads and writes, and a
//! scheduler that lets one of them go on at a time, in an order that follows from the seed.
//!
//! Instances are stepped as production steps them (`instances`). One that is stopped inside a call stays
//! there while the others go on: the scheduler (`schedule`) is called again from within the call. What goes
//! wrong, and when, is in `trouble`.

mod instances;
mod schedule;
mod trouble;

use super::agenda::{Agenda, Item};
use super::cast::{Cast, Duty, Role, Trade};
use super::defects::Defect;
use super::plan::Plan;
use super::schemas::Schemas;
use super::story::Story;
use super::target::{OnWire, Wire, topics_of};
use super::time::{BEGIN, Time, WallClock};
use crate::codec::Codec;
use crate::contract::{Catalogue, Tier, topic};
use crate::demo::systems::open;
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::{Admin, Log, TopicSpec};
use crate::pipeline::{Clock, Fault as Failure};
use crate::runtime::{TaskSettings, group_id};
use crate::telemetry::Telemetry;
use crate::topics::{self, Readers};
use instances::Staff;
use schedule::{Board, Woken};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use trouble::Armed;

/// Instances of a reader at most; the last is one more for a while.
const SLOTS: usize = 3;
/// Partitions of a topic: fewer than in a deployment, so that each has something in it.
pub(super) const PARTITIONS: i32 = 3;

/// What a run counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub steps: u64,
    pub commits: u64,
    pub lives: u64,
    /// Keys that were parked, or found parked by whoever came next.
    pub parked: u64,
    /// Of these, those whose sink ended before they went on.
    pub left_parked: u64,
    /// Targets that were taken for down, by an instance.
    pub circuits: u64,
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
        let board = Arc::new(Board::of(count));
        let skew = |n: usize| match plan.skew_ms {
            0 => 0,
            most => (mixed(plan.seed, 11, n as u64) % (2 * most as u64 + 1)) as i64 - most,
        };
        let stock_only = plan.trade == Trade::Stock;
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
        let woken = (0..count).map(|number| Arc::new(Woken::new(&board, &time, number)));
        Ok(Arc::new(World {
            bare: Arc::new(log.clone()),
            clocks: (0..count)
                .map(|n| WallClock::new(&time, skew(n) * 1_000))
                .collect(),
            staff: (0..count).map(|_| Mutex::default()).collect(),
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
