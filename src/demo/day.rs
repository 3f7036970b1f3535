//! A day in the landscape: which task steps when, and when what goes wrong.
//!
//! Time moves in rounds. In each the systems tell what happened, one after another, and the
//! processors come to rest after each; so what is decided follows from the seed on any log, however
//! long a broker takes.

use super::landscape::{Landscape, setup};
use super::traders::{Word, street};
use crate::contract::event::{Event, Outcome};
use crate::contract::topic;
use crate::pipeline::{Clock, Fault, Verdict};
use crate::runtime::{ProcessorTask, Progress};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Time that passes between two rounds.
pub(super) const ROUND: Duration = Duration::from_millis(250);
/// Rounds of a day at least: it has an outage in it.
const ROUNDS_MIN: usize = 30;
/// Rounds in which one storefront does not answer.
const OUTAGE: std::ops::Range<usize> = 12..24;
/// Rounds without anything new after which the day is over: holds last eight.
const QUIET_ROUNDS: usize = 16;
/// Rounds after which a landscape that does not come to rest is judged as it is.
const DRAIN_ROUNDS_MAX: usize = 400;
/// Steps after which a task that never rests is a defect.
const STEPS_MAX: usize = 1_000_000;
/// Longest wait for records that are on their way from a broker.
const PATIENCE: Duration = Duration::from_secs(30);
/// Wait for a broker, at a time.
const WAIT: Duration = Duration::from_millis(10);
/// Faults in a row that may pass.
const TRIES_MAX: u32 = 100;

/// Where a demo stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sales are read.
    Trading,
    /// One storefront does not answer.
    Outage,
    /// The day is over; what is under way ends.
    Draining,
}

/// A storefront as an observer sees it.
#[derive(Clone, Debug)]
pub struct Front {
    /// Name.
    pub name: &'static str,
    /// Calls that it has taken.
    pub calls: u64,
    /// Records that wait for it.
    pub waiting: u64,
    /// Age of the oldest of them.
    pub lag: Duration,
}

/// What an observer sees after each round.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Where the demo stands.
    pub phase: Phase,
    /// Facts and commands read from the systems.
    pub events: u64,
    /// Stock levels written.
    pub levels: u64,
    /// Availabilities published.
    pub published: u64,
    /// The storefronts.
    pub fronts: Vec<Front>,
    /// Records settled so far, by outcome.
    pub outcomes: BTreeMap<&'static str, u64>,
}

/// Watches a demo.
pub trait Observer {
    /// Called after each round.
    fn round(&mut self, picture: &Picture);
}

impl Landscape {
    /// Trades until every sale has been read, then lets what is under way come to its end.
    pub async fn live(&mut self, observer: &mut dyn Observer) -> Result<(), Fault> {
        self.gather().await?;
        let mut round = 0;
        loop {
            let outage = OUTAGE.contains(&round);
            self.shops[1].fake.set_down(outage);
            let more = self.round(round % 7 == 3).await?;
            let phase = if outage {
                Phase::Outage
            } else {
                Phase::Trading
            };
            observer.round(&self.picture(phase));
            round += 1;
            if !more && round >= ROUNDS_MIN {
                break;
            }
        }
        street(&self.street).closing = true;
        let mut quiet = 0;
        for _ in 0..DRAIN_ROUNDS_MAX {
            let before = self.events();
            self.round(false).await?;
            observer.round(&self.picture(Phase::Draining));
            let rests = self.events() == before && self.sinks.iter().all(|s| s.is_quiet());
            quiet = if rests { quiet + 1 } else { 0 };
            if quiet > QUIET_ROUNDS && (self.all_settled() || self.ledger()?.in_flight == 0) {
                break;
            }
        }
        // What does not come to rest is for the judges to find.
        Ok(())
    }

    /// Until every task has its partitions.
    async fn gather(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut waiting = false;
            for task in &mut self.processors {
                waiting |= is_starting(task.step(Duration::ZERO)?);
            }
            for sink in &mut self.sinks {
                waiting |= is_starting(sink.step(Duration::ZERO).await?);
            }
            for source in &mut self.sources {
                waiting |= !source.follow()?;
            }
            if !waiting {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(setup(
                    "the consumer groups of the demo did not form within 30 s; look at the brokers' log",
                ));
            }
            self.pause(WAIT).await;
        }
    }

    /// One round: the systems tell, the processors work, the storefronts hear. Returns whether the
    /// tills have more to tell.
    async fn round(&mut self, flaky: bool) -> Result<bool, Fault> {
        let ends = self.pace.map(|pace| Instant::now() + pace);
        self.clock.advance(ROUND);
        // What has become due is decided before anything new is heard.
        self.rest().await?;
        let mut more = false;
        for index in 0..self.sources.len() {
            let told = self.tell(index).await?;
            more |= self.sources[index].name() == "tills" && told > 0;
            self.rest().await?;
        }
        if flaky {
            use crate::pipeline::FakeFault::{AppliedThenCut, Cut, Garbage, Status};
            let faults = vec![AppliedThenCut, Status(503, None), Garbage];
            self.shops[0].fake.inject(faults);
            // The next time it is asked.
            self.erp.inject(vec![Cut, Status(503, None)]);
        }
        self.serve().await?;
        if let Some(ends) = ends {
            tokio::time::sleep_until(ends.into()).await;
        }
        Ok(more)
    }

    /// Lets one system tell what is new with it; how many events it told.
    async fn tell(&mut self, index: usize) -> Result<usize, Fault> {
        let mut tries = 0;
        loop {
            match self.sources[index].step().await {
                Ok(Progress::Worked(count)) => return Ok(count),
                Ok(_) => return Ok(0),
                Err(fault) => self.bear(fault, &mut tries).await?,
            }
        }
    }

    /// Steps the processors until they have settled all there is and wait for nothing but time, and
    /// reads what they wrote.
    async fn rest(&mut self) -> Result<(), Fault> {
        let (mut tries, mut idle_since) = (0, None);
        for _ in 0..STEPS_MAX {
            let mut busy = false;
            for index in 0..self.processors.len() {
                let wait = match self.pace {
                    Some(_) if !self.is_settled(self.processors[index].name()) => WAIT,
                    _ => Duration::ZERO,
                };
                let now = self.clock.now();
                match self.processors[index].step(wait) {
                    Ok(Progress::Idle { until }) => busy |= until.is_some_and(|at| at <= now),
                    Ok(Progress::Worked(_) | Progress::Restoring { .. }) => busy = true,
                    Ok(Progress::Unassigned | Progress::Joining) => {}
                    Err(fault) => {
                        self.bear(fault, &mut tries).await?;
                        busy = true;
                    }
                }
            }
            self.read()?;
            if busy {
                idle_since = None;
                continue;
            }
            let settled = self
                .processors
                .iter()
                .map(ProcessorTask::name)
                .all(|name| self.is_settled(name));
            // On a log in this process everything that is there is there at once.
            if settled || self.pace.is_none() {
                return self.read_all().await;
            }
            let since = *idle_since.get_or_insert_with(Instant::now);
            if since.elapsed() > PATIENCE {
                return self.read_all().await;
            }
        }
        Err(setup("the processors never came to rest"))
    }

    /// Lets the storefronts hear what is new.
    async fn serve(&mut self) -> Result<(), Fault> {
        for index in 0..self.sinks.len() {
            let (mut tries, mut idle) = (0, 0);
            for _ in 0..STEPS_MAX {
                match self.sinks[index].step(Duration::ZERO).await {
                    Ok(Progress::Idle { .. } | Progress::Unassigned | Progress::Joining) => {
                        idle += 1;
                        if idle > 3 {
                            break;
                        }
                        if self.pace.is_some() && !self.is_settled(self.sinks[index].name()) {
                            self.pause(WAIT).await;
                        }
                    }
                    Ok(_) => idle = 0,
                    Err(fault) => self.bear(fault, &mut tries).await?,
                }
                // How long an answer takes must not decide what is read meanwhile.
                while self.sinks[index].is_calling() {
                    if let Err(fault) = self.sinks[index].finish_calls(Duration::ZERO).await {
                        self.bear(fault, &mut tries).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a reader has settled everything that was written for it.
    fn is_settled(&self, reader: &str) -> bool {
        let settles = self.settles();
        let topics = settles.iter().filter(|(r, _)| r == reader);
        let written = self.tally.written(topics.map(|(_, topic)| topic.as_str()));
        self.telemetry.settled(reader) >= written
    }

    fn all_settled(&self) -> bool {
        self.settles().iter().all(|(r, _)| self.is_settled(r))
    }

    /// Takes into the books what is there.
    fn read(&mut self) -> Result<usize, Fault> {
        let mut records = Vec::new();
        self.reader.poll(100_000, Duration::ZERO, &mut records)?;
        let mut words = Vec::new();
        for record in &records {
            let event = self.codec.decode(record)?;
            if let Event::ReservationEvent(e) = &event {
                words.push(Word {
                    reservation: e.reservation_id,
                    order: e.order_id.clone(),
                    version: e.reservation_version,
                    status: e.status,
                });
            }
            self.books.read(record, event);
        }
        self.heard.tell(words);
        Ok(records.len())
    }

    /// As [`Landscape::read`], until everything that was written has come.
    async fn read_all(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let read = self.read()?;
            let missing = self.books.count() < self.tally.written(super::invariants::TOPICS);
            if read == 0 && (!missing || self.pace.is_none() || Instant::now() > deadline) {
                return Ok(());
            }
            if read == 0 {
                self.pause(WAIT).await;
            }
        }
    }

    /// Bears a fault that may pass, as long as it does pass.
    async fn bear(&self, fault: Fault, tries: &mut u32) -> Result<(), Fault> {
        *tries += 1;
        let passes = matches!(fault.verdict, Verdict::Retry { .. });
        if !passes || *tries > TRIES_MAX {
            return Err(fault);
        }
        self.pause(ROUND).await;
        Ok(())
    }

    async fn pause(&self, wait: Duration) {
        if self.pace.is_some() {
            tokio::time::sleep(wait).await;
        }
    }

    fn picture(&self, phase: Phase) -> Picture {
        let now = self.clock.now();
        let fronts = self
            .shops
            .iter()
            .zip(&self.sinks)
            .map(|(shop, sink)| Front {
                name: shop.name,
                calls: shop.fake.calls_taken(),
                waiting: sink.waiting() as u64,
                lag: sink
                    .oldest_waiting()
                    .map_or(Duration::ZERO, |at| now.since(at)),
            });
        let readers: BTreeSet<String> = self.settles().into_iter().map(|(r, _)| r).collect();
        let mut outcomes = BTreeMap::new();
        for outcome in [
            Outcome::Applied,
            Outcome::Duplicate,
            Outcome::Superseded,
            Outcome::DeadLettered,
        ] {
            let count = readers
                .iter()
                .map(|r| self.telemetry.settled_as(r, outcome))
                .sum();
            outcomes.insert(outcome.symbol(), count);
        }
        Picture {
            phase,
            events: self.events(),
            levels: self.tally.written([topic::STOCK_LEVEL]),
            published: self.tally.written([topic::STOCK_ATS]),
            fronts: fronts.collect(),
            outcomes,
        }
    }
}

/// Whether a task has yet to get its partitions, or their state.
fn is_starting(progress: Progress) -> bool {
    matches!(
        progress,
        Progress::Joining | Progress::Unassigned | Progress::Restoring { .. }
    )
}
