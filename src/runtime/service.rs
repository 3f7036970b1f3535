//! Production's way of driving tasks: a thread each, retries after faults, an orderly end.
//!
//! This is the only place of the runtime that knows threads.

use super::backoff::Backoff;
use super::{ProcessorTask, Progress, SinkTask, SourceTask};
use crate::pipeline::{Clock, Fault, SystemClock, Verdict};
use crate::telemetry::Telemetry;
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
}

/// Conditions of all tasks of a process.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, Condition>>>);

impl Health {
    fn set(&self, task: &str, condition: Condition) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(task.to_owned(), condition);
    }

    /// The condition of each task.
    pub fn conditions(&self) -> BTreeMap<String, Condition> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether every task works.
    pub fn is_ready(&self) -> bool {
        self.conditions().values().all(|c| *c == Condition::Working)
    }

    /// Whether no task has halted for good.
    pub fn is_live(&self) -> bool {
        !self
            .conditions()
            .values()
            .any(|c| matches!(c, Condition::Halted(_)))
    }
}

/// Tells all tasks to come to an end.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks for the end. Tasks finish or abort what they have in hand.
    pub fn now(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
    fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
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
        name: String,
        make: impl Fn() -> Result<ProcessorTask, Fault> + Send + 'static,
    ) -> std::io::Result<()> {
        let watch = self.watch(&name);
        self.spawn(name, move || {
            let Some(mut task) = watch.until_made(&make) else {
                return;
            };
            while !watch.stop.asked() {
                let result = task.step(POLL_WAIT);
                if watch.note(&result) {
                    continue;
                }
                watch.pause(result.err());
            }
            task.close();
        })
    }

    /// Runs a sink task.
    ///
    /// # Errors
    /// As [`Service::processor`].
    pub fn sink(
        &mut self,
        name: String,
        make: impl Fn() -> Result<SinkTask, Fault> + Send + 'static,
    ) -> std::io::Result<()> {
        let watch = self.watch(&name);
        self.spawn(name, move || {
            block_on(async move {
                let Some(mut task) = watch.until_made(&make) else {
                    return;
                };
                while !watch.stop.asked() {
                    let result = task.step(SINK_WAIT).await;
                    if !watch.note(&result) {
                        watch.pause(result.err());
                    }
                }
                // What is under way is given the time to be answered and receipted.
                let deadline = Instant::now() + Duration::from_secs(5);
                while !task.is_quiet() && Instant::now() < deadline {
                    if task.finish_calls(SINK_WAIT).await.is_err() {
                        break;
                    }
                }
            });
        })
    }

    /// Runs a source task.
    ///
    /// # Errors
    /// As [`Service::processor`].
    pub fn source(
        &mut self,
        name: String,
        make: impl Fn() -> Result<SourceTask, Fault> + Send + 'static,
    ) -> std::io::Result<()> {
        let watch = self.watch(&name);
        self.spawn(name, move || {
            block_on(async move {
                let Some(mut task) = watch.until_made(&make) else {
                    return;
                };
                while !watch.stop.asked() {
                    let result = task.step().await;
                    let idle = matches!(result, Ok(Progress::Idle { .. } | Progress::Unassigned));
                    if !watch.note(&result) {
                        watch.pause(result.err());
                    } else if idle {
                        watch.wait(SOURCE_WAIT);
                    }
                }
            });
        })
    }

    /// Waits until every task has ended, at most `limit`. Returns whether all have.
    pub fn join(self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut all = true;
        for thread in self.threads {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            all &= thread.is_finished() && thread.join().is_ok();
        }
        all
    }

    fn watch(&self, name: &str) -> Watch {
        self.health.set(name, Condition::Starting);
        Watch {
            name: name.to_owned(),
            health: self.health.clone(),
            telemetry: self.telemetry.clone(),
            stop: self.stop.clone(),
            tries: std::cell::Cell::new(0),
        }
    }

    fn spawn(&mut self, name: String, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        self.threads
            .push(std::thread::Builder::new().name(name).spawn(work)?);
        Ok(())
    }
}

/// One task's health and its patience.
struct Watch {
    name: String,
    health: Health,
    telemetry: Arc<Telemetry>,
    stop: Stop,
    tries: std::cell::Cell<u32>,
}

impl Watch {
    fn until_made<T>(&self, make: &impl Fn() -> Result<T, Fault>) -> Option<T> {
        while !self.stop.asked() {
            match make() {
                Ok(task) => return Some(task),
                Err(fault) => self.pause(Some(fault)),
            }
        }
        None
    }

    /// Takes in what a step came to. Returns whether it went well.
    fn note(&self, result: &Result<Progress, Fault>) -> bool {
        let Ok(progress) = result else { return false };
        self.tries.set(0);
        let working = !matches!(progress, Progress::Restoring { .. });
        if let Progress::Restoring { read, total } = progress {
            tracing::debug!(task = self.name, read, total, "reading state back");
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

    /// Waits after a fault, as long as it says or longer each time.
    fn pause(&self, fault: Option<Fault>) {
        let Some(fault) = fault else { return };
        self.tries.set(self.tries.get() + 1);
        self.telemetry.fault(&self.name, fault.code);
        self.telemetry.ready(&self.name, false);
        let backoff = Backoff::default();
        let words = fault.to_string();
        let wait = match fault.verdict {
            Verdict::Halt => {
                tracing::error!(task = self.name, code = %fault.code, cause = words, source = source_of(&fault), "halted until somebody mends this; will look again in 30 s");
                self.health.set(&self.name, Condition::Halted(words));
                backoff.longest
            }
            Verdict::Retry { after } => {
                tracing::warn!(task = self.name, code = %fault.code, cause = words, source = source_of(&fault), tries = self.tries.get(), "will try again");
                self.health.set(&self.name, Condition::Retrying(words));
                after.unwrap_or_else(|| {
                    backoff
                        .wait(self.name.as_bytes(), self.tries.get())
                        .min(Duration::from_secs(5))
                })
            }
            Verdict::Reject => Duration::ZERO,
        };
        self.wait(wait);
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
        Err(error) => tracing::error!(%error, "no runtime for a connector's task"),
    }
}

/// The machine's clock, for tasks of a service.
pub fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}
