//! Who goes on next: whoever is due first, one at a time, in simulated time.

use super::super::agenda::Item;
use super::super::cast::Duty;
use super::super::deeds;
use super::super::time::Time;
use super::instances::State;
use super::{SLOTS, World, mixed};
use crate::demo::systems::open;
use crate::domain::Timestamp;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Wake;
use std::time::Duration;

pub(super) const NEVER: Timestamp = Timestamp(i64::MAX);
/// Steps after which a world that does not come to rest is judged as it is.
const STEPS_MAX: u64 = 200_000;
/// What waits for no longer than this is under way.
pub(super) const SOON: Duration = Duration::from_secs(60);

/// Who is due when, and whether something is under way there.
pub(super) struct Board {
    pub due: Mutex<Vec<Timestamp>>,
    pub busy: Mutex<Vec<bool>>,
}

impl Board {
    /// Of so many instances, none of them due.
    pub fn of(count: usize) -> Board {
        Board {
            due: Mutex::new(vec![NEVER; count]),
            busy: Mutex::new(vec![false; count]),
        }
    }
}

/// Wakes an instance that waits within a step.
pub(super) struct Woken {
    board: Arc<Board>,
    time: Arc<Time>,
    number: usize,
    pub flag: AtomicBool,
}

impl Woken {
    pub fn new(board: &Arc<Board>, time: &Arc<Time>, number: usize) -> Woken {
        Woken {
            board: board.clone(),
            time: time.clone(),
            number,
            flag: AtomicBool::new(false),
        }
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.flag.store(true, Ordering::Relaxed);
        let mut due = open(&self.board.due);
        due[self.number] = due[self.number].min(self.time.now());
    }
}

impl World {
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

    pub(super) fn is_quiet(&self) -> bool {
        let soon = self.time.now().plus(SOON);
        let held = self.cast.estate.next_due().is_none_or(|at| at > soon);
        let nothing_planned = self.agenda.next().is_none_or(|at| at > soon);
        held && nothing_planned && !open(&self.board.busy).iter().any(|b| *b)
    }

    /// One thing happens, if any is due before `end`.
    pub(super) fn advance(self: &Arc<Self>, end: Timestamp) -> bool {
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

    pub(super) fn happen(self: &Arc<Self>, item: Item) {
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
    pub(super) fn nudge(&self, instance: usize, most_ms: u64) {
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

    pub(super) fn wake_group(&self, group: &str) {
        for instance in 0..self.staff.len() {
            if self.membership(instance).0 == group {
                self.nudge(instance, 100);
            }
        }
    }
}
