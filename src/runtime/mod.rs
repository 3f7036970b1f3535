//! Drives sources, processors and sinks.
//!
//! A task never owns its time or schedule: [`ProcessorTask::step`], [`SourceTask::step`] and
//! [`SinkTask::step`] do one bounded piece of work and say what they did. Production gives each
//! task a thread ([`service`]); a simulator calls steps in the order it likes. Time comes from the
//! [`Clock`](crate::pipeline::Clock) given to the task.
//!
//! What is absent: no thread, system clock, random number or randomly seeded hasher is named in
//! this folder outside of [`service`].

mod accounts;
mod backoff;
mod batch;
mod holdings;
mod inbox;
mod lane;
mod outbox;
pub mod parking;
mod partition;
mod processor_task;
mod queue;
pub mod service;
mod settings;
mod sink_task;
mod source_task;
mod tables;
mod target;
use crate::domain::Timestamp;
pub use backoff::Backoff;
pub use inbox::LogInbox;
pub use processor_task::ProcessorTask;
pub use settings::{Membership, TaskSettings, group_id};
pub use sink_task::SinkTask;
pub use source_task::SourceTask;
pub use target::Budget;

/// What a step of a task did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Worked on this many records or timers; there may be more at once.
    Worked(usize),
    /// Nothing to do; `until` is when a timer comes due, if one is set.
    Idle {
        /// The next timer.
        until: Option<Timestamp>,
    },
    /// Reading state back: changelog records read and to be read by this task.
    Restoring {
        /// Read so far.
        read: u64,
        /// In all.
        total: u64,
    },
    /// Owns no partition: the group has more members than partitions.
    Unassigned,
    /// Owns no partition yet: the group is still forming, or went on without this member.
    Joining,
}
