//! A day in the landscape: which task steps when, and when what goes wrong.
//!
//! Time moves in rounds. In each the systems tell what happened, one after another, and the
//! processors come to rest after each; so what is decided follows from the seed on any log, however
//! long a broker takes.

use super::landscape::Landscape;
use super::traders::street;
use crate::contract::event::Outcome;
use crate::contract::topic;
use crate::pipeline::Fault;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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
/// Days until facts are no longer late, and one more.
const DAYS: u32 = 4;
const DAY: Duration = Duration::from_secs(86_400);
/// What waits for no longer than this is under way.
const SOON: Duration = Duration::from_secs(1);

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
        self.crew.gather().await?;
        self.market.open(&self.estate);
        let mut round = 0;
        loop {
            let outage = OUTAGE.contains(&round);
            self.shops[1].fake.set_down(outage);
            self.market.work(&self.estate, round);
            let more = self.round(round % 7 == 3).await?;
            let phase = if outage {
                Phase::Outage
            } else {
                Phase::Trading
            };
            observer.round(&self.picture(phase));
            round += 1;
            if !more && self.market.is_over() && round >= ROUNDS_MIN {
                break;
            }
        }
        street(&self.street).closing = true;
        let mut quiet = 0;
        for _ in 0..DRAIN_ROUNDS_MAX {
            let before = self.events();
            self.market.work(&self.estate, round);
            round += 1;
            self.round(false).await?;
            observer.round(&self.picture(Phase::Draining));
            let rests = self.events() == before && self.crew.sinks.iter().all(|s| s.is_quiet());
            quiet = if rests { quiet + 1 } else { 0 };
            if quiet > QUIET_ROUNDS
                && (self.crew.all_settled() || self.crew.ledger()?.in_flight == 0)
            {
                break;
            }
        }
        // What does not come to rest is for the judges to find.
        self.days_after().await
    }

    /// Days pass until what is late is judged; then the provider settles and the ERP closes its orders.
    async fn days_after(&mut self) -> Result<(), Fault> {
        for _ in 0..DAYS {
            self.crew.clock.advance(DAY);
            self.crew.settle(SOON).await?;
        }
        self.market.wind_up(&self.estate);
        self.crew.settle(SOON).await?;
        self.crew.clock.advance(DAY);
        self.crew.settle(SOON).await?;
        // What sinks have heard is committed in their own time.
        self.crew.clock.advance(ROUND);
        self.crew.settle(SOON).await
    }

    /// One round: the systems tell, the processors work, the storefronts hear. Returns whether the
    /// tills have more to tell.
    async fn round(&mut self, flaky: bool) -> Result<bool, Fault> {
        self.crew.clock.advance(ROUND);
        // What has become due is decided before anything new is heard.
        self.crew.rest().await?;
        let mut more = false;
        for index in 0..self.crew.sources.len() {
            let told = self.crew.tell(index).await?;
            more |= self.crew.sources[index].name() == "tills" && told > 0;
            self.crew.rest().await?;
        }
        if flaky {
            use crate::pipeline::FakeFault::{AppliedThenCut, Cut, Garbage, Status};
            let faults = vec![AppliedThenCut, Status(503, None), Garbage];
            self.shops[0].fake.inject(faults);
            // The next time it is asked.
            self.erp.inject(vec![Cut, Status(503, None)]);
        }
        self.crew.serve().await?;
        Ok(more)
    }

    fn picture(&self, phase: Phase) -> Picture {
        let now = self.crew.now();
        let fronts = self
            .shops
            .iter()
            .zip(&self.crew.sinks)
            .map(|(shop, sink)| Front {
                name: shop.name,
                calls: shop.fake.calls_taken(),
                waiting: sink.waiting() as u64,
                lag: sink
                    .oldest_waiting()
                    .map_or(Duration::ZERO, |at| now.since(at)),
            });
        let readers: BTreeSet<&String> = self.crew.settles.iter().map(|(r, _)| r).collect();
        let mut outcomes = BTreeMap::new();
        for outcome in [
            Outcome::Applied,
            Outcome::Duplicate,
            Outcome::Superseded,
            Outcome::DeadLettered,
        ] {
            let count = readers
                .iter()
                .map(|r| self.crew.telemetry.settled_as(r, outcome))
                .sum();
            outcomes.insert(outcome.symbol(), count);
        }
        Picture {
            phase,
            events: self.events(),
            levels: self.crew.tally.written([topic::STOCK_LEVEL]),
            published: self.crew.tally.written([topic::STOCK_ATS]),
            fronts: fronts.collect(),
            outcomes,
        }
    }
}
