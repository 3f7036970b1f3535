//! Production's way of driving tasks: a thread each, retries after faults, an orderly end.
//!
//! This is the only place of the runtime that knows threads.
//!
//! What health says is meant for an orchestrator. *Ready* means that every task works: broker,
//! registry and target answer, state is whole. *Live* means that a restart would not help: a task
//! that waits for an outage to end, or for somebody to mend credentials or a topic, is live, looks
//! again by itself, and is not ready; a task that has panicked or has not come back from a step for
//! minutes is not live.

use super::backoff::Backoff;
use super::{Membership, ProcessorTask, Progress, SinkTask, SourceTask};
use crate::pipeline::{Clock, Code, Fault, SystemClock, Verdict};
use crate::telemetry::Telemetry;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait of a processor for records; also how soon it hears of the end.
const POLL_WAIT: Duration = Duration::from_millis(50);
/// Longest wait of a sink while nothing is under way: what it adds to the latency of a record.
const SINK_WAIT: Duration = Duration::from_millis(2);
/// Wait of a source that had nothing more to read.
const SOURCE_WAIT: Duration = Duration::from_millis(500);

/// A source's poll and a sink's calls are given this long when the end comes.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);
/// A step that takes longer hangs: every call in it has a limit that is shorter.
const STEP_TIME_MAX: Duration = Duration::from_secs(240);
/// How often the progress of a restore is told.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest wait before somebody else is looked for.
const RETRY_WAIT_MIN: Duration = Duration::from_secs(1);
/// Longest wait before a step that failed is tried again.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// State of a task, for health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Reads its state back, or waits for its first partitions.
    Starting,
    /// Works.
    Working,
    /// Cannot work now and tries again; the reason.
    Retrying(String),
    /// Cannot work until somebody mends something; the reason.
    Halted(String),
    /// Another instance of the same name runs; this one has given up.
    Replaced(String),
    /// Its thread has ended, though nobody asked for it.
    Dead,
    /// Has not come back from its work for too long.
    Hanging,
    /// Has ended as it was asked to.
    Ended,
}

/// Conditions of all tasks of a process.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, Report>>>);

struct Report {
    condition: Condition,
    heard_at: Instant,
}

impl Health {
    fn set(&self, task: &str, condition: Condition) {
        let report = Report {
            condition,
            heard_at: Instant::now(),
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(task.to_owned(), report);
    }

    /// The condition of each task.
    pub fn conditions(&self) -> BTreeMap<String, Condition> {
        let reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let condition = |r: &Report| match &r.condition {
            ended @ (Condition::Dead | Condition::Ended | Condition::Replaced(_)) => ended.clone(),
            _ if r.heard_at.elapsed() > STEP_TIME_MAX => Condition::Hanging,
            other => other.clone(),
        };
        reports
            .iter()
            .map(|(task, r)| (task.clone(), condition(r)))
            .collect()
    }

    /// Whether every task works.
    pub fn is_ready(&self) -> bool {
        self.conditions().values().all(|c| *c == Condition::Working)
    }

    /// Whether a restart would not help.
    pub fn is_live(&self) -> bool {
        !self.conditions().values().any(|c| {
            matches!(
                c,
                Condition::Dead | Condition::Hanging | Condition::Replaced(_)
            )
        })
    }

    /// Why the process must end: a task whose instance name another process has taken, or that is
    /// dead. Nothing that this process could do would bring it back.
    pub fn lost_cause(&self) -> Option<String> {
        self.conditions()
            .into_iter()
            .find_map(|(task, condition)| match condition {
                Condition::Replaced(why) => Some(format!(
                    "{task} gives up: {why}; give each instance a name of its own with --instance"
                )),
                Condition::Dead => Some(format!(
                    "{task} has ended unexpectedly; see the log for the defect"
                )),
                _ => None,
            })
    }
}

/// Tells all tasks to come to an end.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

/// What a processor's, sink's or source's thread works on.
pub struct Job<'a> {
    /// Name of the task, as in its metrics.
    pub label: String,
    /// The processor or connector instance.
    pub reader: &'a str,
}

impl Stop {
    /// Asks for the end. Tasks finish or abort what they have in hand.
    pub fn now(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
    fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// How the tasks of a process have ended.
#[derive(Debug, Default)]
pub struct End {
    /// Tasks that are still in a call which does not come back. Nothing is lost with them: what they
    /// had in hand was not committed, and whoever comes next does it.
    pub left_behind: Vec<String>,
    /// Tasks that ended by a defect.
    pub panicked: Vec<String>,
}

/// The running tasks of a process.
pub struct Service {
    telemetry: Arc<Telemetry>,
    health: Health,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

impl Service {
    /// Without any task yet.
    pub fn new(telemetry: Arc<Telemetry>) -> Self {
        Service {
            telemetry,
            health: Health::default(),
            stop: Stop::default(),
            threads: Vec::new(),
        }
    }

    /// What the tasks' condition is.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// The way to end them.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Runs a processor task that `make` joins to its group; `make` is called again after a fault
    /// while joining.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn processor(
        &mut self,
        job: Job<'_>,
        make: impl Fn() -> Result<ProcessorTask, Fault> + Send + 'static,
    ) -> std::io::Result<()> {
        self.spawn(&job, move |watch| block_on(watch.drive(make)))
    }

    /// Runs a sink task.
    ///
    /// # Errors
    /// As [`Service::processor`].
    pub fn sink(
        &mut self,
        job: Job<'_>,
        make: impl Fn() -> Result<SinkTask, Fault> + Send + 'static,
    ) -> std::io::Result<()> {
        self.spawn(&job, move |watch| block_on(watch.drive(make)))
    }

    /// Runs a source task.
    ///
    /// # Errors
    /// As [`Service::processor`].
    pub fn source(
        &mut self,
        job: Job<'_>,
        make: impl Fn() -> Result<SourceTask, Fault> + Send + 'static,
    ) -> std::io::Result<()> {
        self.spawn(&job, move |watch| block_on(watch.drive(make)))
    }

    /// Waits until every task has ended, at most `limit`.
    pub fn join(self, limit: Duration) -> End {
        let deadline = Instant::now() + limit;
        let mut end = End::default();
        for thread in self.threads {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if !thread.is_finished() {
                end.left_behind.push(name);
            } else if thread.join().is_err() {
                end.panicked.push(name);
            }
        }
        end
    }

    fn spawn(
        &mut self,
        job: &Job<'_>,
        work: impl FnOnce(&Watch) + Send + 'static,
    ) -> std::io::Result<()> {
        self.telemetry.declare_task(&job.label);
        self.health.set(&job.label, Condition::Starting);
        let watch = Watch {
            name: job.label.clone(),
            reader: job.reader.to_owned(),
            health: self.health.clone(),
            telemetry: self.telemetry.clone(),
            stop: self.stop.clone(),
            tries: Cell::new(0),
            replaced: RefCell::new(None),
            told_at: Cell::new(None),
        };
        let thread = std::thread::Builder::new()
            .name(job.label.clone())
            .spawn(move || work(&watch))?;
        self.threads.push(thread);
        Ok(())
    }
}

/// A task as its thread drives it.
trait Driven {
    /// One step; `None` when it was given up because the end was asked for.
    async fn turn(&mut self, watch: &Watch) -> Option<Result<Progress, Fault>>;
    /// Waits after a step that found nothing to do; a task that waits within does not.
    async fn rest(&mut self, _watch: &Watch) {}
    fn membership(&self) -> Membership;
    /// Finishes or aborts what is in hand.
    async fn end(self);
}

impl Driven for ProcessorTask {
    async fn turn(&mut self, _: &Watch) -> Option<Result<Progress, Fault>> {
        Some(self.step(POLL_WAIT))
    }
    fn membership(&self) -> Membership {
        ProcessorTask::membership(self)
    }
    async fn end(self) {
        self.close();
    }
}

impl Driven for SinkTask {
    async fn turn(&mut self, _: &Watch) -> Option<Result<Progress, Fault>> {
        Some(self.step(SINK_WAIT).await)
    }
    fn membership(&self) -> Membership {
        SinkTask::membership(self)
    }
    async fn end(self) {
        self.close(CLOSE_TIME_MAX).await;
    }
}

impl Driven for SourceTask {
    async fn turn(&mut self, watch: &Watch) -> Option<Result<Progress, Fault>> {
        // Given up at the end: the cursor has not moved.
        tokio::select! {
            biased;
            result = self.step() => Some(result),
            () = watch.stopped() => None,
        }
    }
    async fn rest(&mut self, watch: &Watch) {
        tokio::select! {
            () = watch.stopped() => {}
            () = self.woken() => {}
            () = tokio::time::sleep(SOURCE_WAIT) => {}
        }
    }
    fn membership(&self) -> Membership {
        SourceTask::membership(self)
    }
    async fn end(self) {}
}

/// One task's health and its patience.
struct Watch {
    name: String,
    reader: String,
    health: Health,
    telemetry: Arc<Telemetry>,
    stop: Stop,
    tries: Cell<u32>,
    /// Another instance has this one's name.
    replaced: RefCell<Option<String>>,
    /// When progress was told last.
    told_at: Cell<Option<Instant>>,
}

impl Drop for Watch {
    /// The thread ends: as it was asked to, or by a panic.
    fn drop(&mut self) {
        self.telemetry.ready(&self.name, false);
        let condition = match self.replaced.take() {
            _ if std::thread::panicking() => Condition::Dead,
            Some(why) => Condition::Replaced(why),
            None if self.stop.asked() => Condition::Ended,
            None => Condition::Dead,
        };
        self.health.set(&self.name, condition);
    }
}

impl Watch {
    fn goes_on(&self) -> bool {
        !self.stop.asked() && self.replaced.borrow().is_none()
    }

    /// Makes a task and drives it until the end is asked for.
    async fn drive<T: Driven>(&self, make: impl Fn() -> Result<T, Fault>) {
        while let Some(mut task) = self.until_made(&make) {
            let mut is_useless = false;
            while self.goes_on() && !is_useless {
                let Some(result) = task.turn(self).await else {
                    break;
                };
                match self.note(&result) {
                    true if matches!(result, Ok(Progress::Idle { .. } | Progress::Unassigned)) => {
                        task.rest(self).await;
                    }
                    true => {}
                    false => is_useless = self.pause(result.err(), || task.membership()),
                }
            }
            if !is_useless {
                return task.end().await;
            }
        }
    }

    fn until_made<T>(&self, make: &impl Fn() -> Result<T, Fault>) -> Option<T> {
        while self.goes_on() {
            match make() {
                Ok(task) => return Some(task),
                Err(fault) => self.retry(&fault),
            }
        }
        None
    }

    /// Takes in what a step came to. Returns whether it went well.
    fn note(&self, result: &Result<Progress, Fault>) -> bool {
        let Ok(progress) = result else { return false };
        self.tries.set(0);
        let working = match progress {
            Progress::Restoring { read, total } => {
                self.tell_progress(*read, *total);
                false
            }
            Progress::Joining => false,
            _ => true,
        };
        if working && self.told_at.take().is_some() {
            self.telemetry.restoring(&self.name, 0);
        }
        self.health.set(
            &self.name,
            if working {
                Condition::Working
            } else {
                Condition::Starting
            },
        );
        self.telemetry.ready(&self.name, working);
        true
    }

    /// Says how far a restore has come: in the metrics at once, in the log now and then.
    fn tell_progress(&self, read: u64, total: u64) {
        self.telemetry
            .restoring(&self.name, total.saturating_sub(read));
        let told = self.told_at.get();
        if told.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) {
            self.told_at.set(Some(Instant::now()));
            tracing::info!(
                task = self.name,
                read,
                total,
                percent = (read * 100).checked_div(total).unwrap_or(0),
                "reading state back"
            );
        }
    }

    /// Waits after a fault, as long as it says or longer each time. Returns whether the task is of no
    /// more use and must be made anew.
    fn pause(&self, fault: Option<Fault>, membership: impl Fn() -> Membership) -> bool {
        let Some(fault) = fault else { return false };
        if fault.code == Code::NameTaken {
            return self.has_name(&fault, &membership());
        }
        self.retry(&fault);
        false
    }

    /// The group has somebody else for this task's name. Whoever that is keeps the name beyond a
    /// session; what this task itself left behind in an outage does not.
    fn has_name(&self, fault: &Fault, membership: &Membership) -> bool {
        self.telemetry.fault(&self.reader, fault.code);
        self.telemetry.ready(&self.name, false);
        let words = fault.to_string();
        tracing::warn!(
            task = self.name,
            cause = words,
            "will look whether another instance of this name runs"
        );
        self.health
            .set(&self.name, Condition::Retrying(words.clone()));
        while self.goes_on() {
            self.wait(2 * membership.session_timeout + RETRY_WAIT_MIN);
            match membership.is_taken() {
                Ok(true) => {
                    self.replaced.replace(Some(words.clone()));
                }
                Ok(false) => return self.goes_on(),
                Err(error) => self
                    .health
                    .set(&self.name, Condition::Retrying(error.to_string())),
            }
        }
        false
    }

    fn retry(&self, fault: &Fault) {
        self.tries.set(self.tries.get() + 1);
        self.telemetry.fault(&self.reader, fault.code);
        self.telemetry.ready(&self.name, false);
        let backoff = Backoff::default();
        let words = fault.to_string();
        let wait = match fault.verdict {
            Verdict::Halt => {
                tracing::error!(task = self.name, code = %fault.code, cause = words, source = source_of(fault), "halted until somebody mends this; will look again in 30 s");
                self.health.set(&self.name, Condition::Halted(words));
                backoff.longest
            }
            // A reject that reaches this place would come again at once.
            Verdict::Retry { .. } | Verdict::Reject => {
                let after = match fault.verdict {
                    Verdict::Retry { after } => after,
                    _ => None,
                };
                tracing::warn!(task = self.name, code = %fault.code, cause = words, source = source_of(fault), tries = self.tries.get(), "will try again");
                self.health.set(&self.name, Condition::Retrying(words));
                after.unwrap_or_else(|| {
                    backoff
                        .wait(self.name.as_bytes(), self.tries.get())
                        .min(RETRY_WAIT_MAX)
                })
            }
        };
        self.wait(wait);
    }

    async fn stopped(&self) {
        while !self.stop.asked() {
            tokio::time::sleep(POLL_WAIT).await;
        }
    }

    fn wait(&self, wait: Duration) {
        let deadline = Instant::now() + wait;
        while !self.stop.asked() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20).min(wait));
        }
    }
}

fn source_of(fault: &Fault) -> Option<String> {
    fault.source.as_ref().map(ToString::to_string)
}

fn block_on(work: impl Future<Output = ()>) {
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => tracing::error!(%error, "no runtime for a task"),
    }
}

/// The machine's clock, for tasks of a service.
pub fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}
