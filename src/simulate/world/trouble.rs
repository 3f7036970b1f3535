//! What goes wrong: faults as they are planned, and strikes that wait for their call.

use super::super::agenda::Item;
use super::super::cast::Duty;
use super::super::plan::{Fault, SESSION};
use super::super::port::{Call, Fate, Strike};
use super::{SLOTS, World};
use crate::contract::{Catalogue, topic};
use crate::demo::systems::open;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A strike that waits for its call.
pub(super) struct Armed {
    number: usize,
    instance: usize,
    call: Call,
    skip: u32,
    what: Strike,
}

impl World {
    pub(super) fn go_wrong(self: &Arc<Self>, number: usize) {
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
            Fault::Stubborn { system, lasts } => {
                self.tell(|| {
                    format!(
                        "#{number} {} fails at its next key for {lasts:?}",
                        self.wires[system].name
                    )
                });
                open(&self.wires[system].state).stubborn = Some((now.plus(lasts), None));
            }
            Fault::Repeats { system, records } => {
                self.tell(|| {
                    format!(
                        "#{number} {} tells its last {records} facts again",
                        self.wires[system].name
                    )
                });
                open(&self.wires[system].state).repeats = records;
                self.poke_sources(Some(system));
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
            state.stubborn = None;
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
pub(super) struct Hand(pub Weak<World>);

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
                Strike::Outlived(wait) => {
                    format!("#{number} {name} is expelled, and hears of it {wait:?} later, when it {call}")
                }
            }
        });
        Some(what)
    }

    fn expel(&self, instance: usize) {
        if let Some(world) = self.0.upgrade() {
            let (group, member) = world.membership(instance);
            world.happen(Item::Expel(group, member));
        }
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
