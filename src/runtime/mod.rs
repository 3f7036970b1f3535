//! runtime
mod accounts;
mod backoff;
mod batch;
mod outbox;
mod partition;
mod processor_task;
mod settings;
mod tables;
use crate::domain::Timestamp;
pub use backoff::Backoff;
pub use processor_task::ProcessorTask;
pub use settings::{TaskSettings, group_id};

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
    /// Owns no partition: the group has more members than partitions, or is still forming.
    Unassigned,
}
