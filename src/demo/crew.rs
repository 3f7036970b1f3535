//! The tasks of a landscape, and how they are stepped: systems tell, processors come to rest, systems
//! hear. What is decided follows from what is told and from the clock, on any log, however long a
//! broker takes.

use super::clock::DrivenClock;
use super::day::ROUND;
use super::ground::{Ground, setup};
use super::invariants::Books;
use super::tally::Tally;
use crate::codec::Codec;
use crate::contract::Catalogue;
use crate::contract::event::Event;
use crate::domain::Timestamp;
use crate::log::{Log, Reader};
use crate::pipeline::{Clock, Fault, Origin, Record, Verdict};
use crate::runtime::{ProcessorTask, Progress, SinkTask, SourceTask};
use crate::telemetry::Telemetry;
use crate::verify;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Steps after which a task that never rests is a defect.
const STEPS_MAX: usize = 1_000_000;
/// Longest wait for groups to form, and for a fault to pass.
const PATIENCE: Duration = Duration::from_secs(30);
/// Wait for a group, at a time.
const WAIT: Duration = Duration::from_millis(10);
/// Faults in a row that may pass.
const TRIES_MAX: u32 = 100;

/// Hears every event that is judged, as it is written.
pub(super) type Ear = Box<dyn FnMut(&Event) + Send>;

/// The tasks.
pub(super) struct Crew {
    pub clock: Arc<DrivenClock>,
    /// Real time to wait after a fault: none where nothing takes any.
    pub pace: Option<Duration>,
    pub tally: Tally,
    pub telemetry: Arc<Telemetry>,
    pub codec: Arc<Codec>,
    pub books: Books,
    pub sources: Vec<SourceTask>,
    pub processors: Vec<ProcessorTask>,
    pub sinks: Vec<SinkTask>,
    /// Records that the sources have told.
    pub told: u64,
    /// Who settles which topic.
    pub settles: Vec<(String, String)>,
    log: Arc<dyn Log>,
    reader: Box<dyn Reader>,
    ear: Ear,
    /// Until when each processor and sink is idle.
    due: BTreeMap<String, Option<Timestamp>>,
}

impl Crew {
    /// Nobody yet; `settles` says who settles which topic.
    pub fn new(ground: &Ground, settles: Vec<(String, String)>, ear: Ear) -> Result<Crew, Fault> {
        Ok(Crew {
            clock: ground.clock.clone(),
            pace: ground.pace,
            tally: ground.tally.clone(),
            telemetry: ground.telemetry.clone(),
            codec: ground.codec.clone(),
            books: Books::default(),
            sources: Vec::new(),
            processors: Vec::new(),
            sinks: Vec::new(),
            told: 0,
            settles,
            log: ground.bare.clone(),
            reader: ground.reader()?,
            ear,
            due: BTreeMap::new(),
        })
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The books as `crossdock verify` finds them.
    pub fn ledger(&self) -> Result<verify::Ledger, Fault> {
        let application = Ground::application();
        let catalogue = Catalogue::compiled();
        verify::ledger(
            &self.log,
            &self.codec,
            catalogue,
            &application,
            &self.settles,
        )
    }

    /// Which sink settles which topic.
    pub fn sinks_settle(&self) -> Vec<(String, String)> {
        let is_sink = |reader: &str| self.sinks.iter().any(|s| s.name() == reader);
        self.settles
            .iter()
            .filter(|(r, _)| is_sink(r))
            .cloned()
            .collect()
    }

    /// Every committed record of these topics.
    pub fn records<'a>(
        &self,
        topics: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<Record>, Fault> {
        let mut all = Vec::new();
        verify::read_topics(self.log.as_ref(), topics, |record| all.push(record.clone()))?;
        // Of different topics they come as they can be had.
        all.sort_by(|a, b| a.origin.cmp(&b.origin));
        Ok(all)
    }

    /// The first place anywhere in the log where these bytes stand.
    pub fn find(&self, needle: &[u8]) -> Result<Option<String>, Fault> {
        let first = needle.first().copied().unwrap_or_default();
        let holds =
            |part: &[u8]| part.contains(&first) && part.windows(needle.len()).any(|w| w == needle);
        let mut found: Option<Origin> = None;
        let topics = self.log.admin().topics()?;
        let names = topics.iter().map(|t| t.name.as_str());
        verify::read_topics(self.log.as_ref(), names, |record| {
            let parts = [
                record.key.as_deref(),
                record.value.as_deref(),
                Some(&**record.headers.packed()),
            ];
            if parts.into_iter().flatten().any(holds) {
                let found = found.get_or_insert_with(|| record.origin.clone());
                *found = record.origin.clone().min(found.clone());
            }
        })?;
        Ok(found.map(|origin| origin.to_string()))
    }

    /// When something that waits for nothing but time goes on, as of the last steps.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.values().flatten().min().copied()
    }

    /// Lets every system tell, the processors rest and every system hear, until nothing is under way
    /// but what waits for more than `soon`.
    pub async fn settle(&mut self, soon: Duration) -> Result<(), Fault> {
        for _ in 0..STEPS_MAX {
            let before = self.tally.total();
            for index in 0..self.sources.len() {
                while self.tell(index).await? > 0 {}
            }
            self.rest().await?;
            self.serve().await?;
            if self.tally.total() != before {
                continue;
            }
            match self.next_due() {
                Some(due) if due <= self.now().plus(soon) => self.clock.advance_to(due),
                _ => return Ok(()),
            }
        }
        Err(setup("the systems never came to rest"))
    }

    /// Until every task has its partitions.
    pub async fn gather(&mut self) -> Result<(), Fault> {
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

    /// Lets one system tell what is new with it; how many events it told.
    pub async fn tell(&mut self, index: usize) -> Result<usize, Fault> {
        let mut faults = Faults::default();
        loop {
            match self.sources[index].step().await {
                Ok(Progress::Worked(count)) => {
                    self.told += count as u64;
                    return Ok(count);
                }
                Ok(_) => return Ok(0),
                Err(fault) => self.bear(fault, &mut faults).await?,
            }
        }
    }

    /// Steps the processors until they have settled all there is and wait for nothing but time, and
    /// reads what they wrote.
    pub async fn rest(&mut self) -> Result<(), Fault> {
        let mut faults = Faults::default();
        for _ in 0..STEPS_MAX {
            let mut busy = false;
            for index in 0..self.processors.len() {
                let now = self.clock.now();
                match self.processors[index].step(Duration::ZERO) {
                    Ok(Progress::Idle { until }) => {
                        self.due
                            .insert(self.processors[index].name().to_owned(), until);
                        busy |= until.is_some_and(|at| at <= now);
                    }
                    Ok(Progress::Worked(_) | Progress::Restoring { .. }) => busy = true,
                    Ok(Progress::Unassigned | Progress::Joining) => {}
                    Err(fault) => {
                        self.bear(fault, &mut faults).await?;
                        busy = true;
                    }
                }
            }
            self.read()?;
            if !busy {
                return Ok(());
            }
        }
        Err(setup("the processors never came to rest"))
    }

    /// Lets every system hear what is new.
    pub async fn serve(&mut self) -> Result<(), Fault> {
        for index in 0..self.sinks.len() {
            let (mut faults, mut idle) = (Faults::default(), 0);
            for _ in 0..STEPS_MAX {
                match self.sinks[index].step(Duration::ZERO).await {
                    Ok(
                        rests @ (Progress::Idle { .. } | Progress::Unassigned | Progress::Joining),
                    ) => {
                        if let Progress::Idle { until } = rests {
                            self.due.insert(self.sinks[index].name().to_owned(), until);
                        }
                        idle += 1;
                        if idle > 3 {
                            break;
                        }
                    }
                    Ok(_) => idle = 0,
                    Err(fault) => self.bear(fault, &mut faults).await?,
                }
                // How long an answer takes must not decide what is read meanwhile.
                while self.sinks[index].is_calling() {
                    if let Err(fault) = self.sinks[index].finish_calls(Duration::ZERO).await {
                        self.bear(fault, &mut faults).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a reader has settled everything that was written for it.
    fn is_settled(&self, reader: &str) -> bool {
        let topics = self.settles.iter().filter(|(r, _)| r == reader);
        let written = self.tally.written(topics.map(|(_, topic)| topic.as_str()));
        self.telemetry.settled(reader) >= written
    }

    pub fn all_settled(&self) -> bool {
        self.settles.iter().all(|(r, _)| self.is_settled(r))
    }

    /// Takes into the books what is there.
    fn read(&mut self) -> Result<(), Fault> {
        let mut records = Vec::new();
        loop {
            self.reader.poll(100_000, Duration::ZERO, &mut records)?;
            if records.is_empty() {
                return Ok(());
            }
            for record in records.drain(..) {
                let event = self.codec.decode(&record)?;
                (self.ear)(&event);
                self.books.read(&record, event);
            }
        }
    }

    /// Bears a fault that may pass, as long as it does pass.
    async fn bear(&self, fault: Fault, faults: &mut Faults) -> Result<(), Fault> {
        faults.count += 1;
        let since = *faults.since.get_or_insert_with(Instant::now);
        let passes = matches!(fault.verdict, Verdict::Retry { .. });
        if !passes || faults.count > TRIES_MAX || since.elapsed() > PATIENCE {
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
}

/// Faults met while one thing was tried.
#[derive(Default)]
struct Faults {
    count: u32,
    since: Option<Instant>,
}

/// Whether a task has yet to get its partitions, or their state.
fn is_starting(progress: Progress) -> bool {
    matches!(
        progress,
        Progress::Joining | Progress::Unassigned | Progress::Restoring { .. }
    )
}
