//! How a task behaves.

use super::target::Budget;
use crate::log::{GroupProtocol, Log, LogError};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Settings of one task. [`TaskSettings::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct TaskSettings {
    /// First part of group and transactional ids; one for a deployment.
    pub application: String,
    /// The instance's slot: stable over restarts, unique among the instances that run.
    pub slot: String,
    /// Number of the task within the instance, from 0.
    pub task: u32,
    /// Most records in a transaction.
    pub commit_records_max: usize,
    /// Longest time that a transaction gathers records while more keep coming. When nothing more
    /// is there, it commits at once.
    pub commit_interval_max: Duration,
    /// Folder for checkpoints; `None` keeps none.
    pub state_folder: Option<PathBuf>,
    /// How often a checkpoint is written while running, by the runtime's clock.
    pub checkpoint_interval: Duration,
    /// Group session timeout: a dead instance's partitions move after this long.
    pub session_timeout: Duration,
    /// A transaction left open by a dead instance is aborted after this long.
    pub transaction_timeout: Duration,
    /// How partitions are shared.
    pub protocol: GroupProtocol,
    /// Whether instances are static members, whose partitions wait for their return.
    pub static_membership: bool,
    /// Most records waiting in a sink.
    pub queue_records_max: usize,
    /// Most calls of a sink at a time, where that is fewer than its connector allows. One makes the
    /// order of calls that of the records, so that a run repeats itself.
    pub calls_max: usize,
    /// Calls a second that a sink's target allows to the whole group; `None` where it says so itself.
    pub budget: Option<Budget>,
    /// Tries of a record in place before its key is parked, while the target answers others.
    pub tries_in_place_max: u32,
    /// What is parked in a sink, at most; it reads nothing more beyond.
    pub parked_bytes_max: usize,
}

impl TaskSettings {
    /// The defaults for task `task` of the instance in `slot`.
    pub fn new(slot: impl Into<String>, task: u32) -> Self {
        TaskSettings {
            application: "crossdock".to_owned(),
            slot: slot.into(),
            task,
            commit_records_max: 50_000,
            commit_interval_max: Duration::from_millis(100),
            state_folder: None,
            checkpoint_interval: Duration::from_secs(300),
            session_timeout: Duration::from_secs(10),
            transaction_timeout: Duration::from_secs(10),
            protocol: GroupProtocol::Range,
            static_membership: true,
            queue_records_max: 20_000,
            calls_max: usize::MAX,
            budget: None,
            tries_in_place_max: 5,
            parked_bytes_max: 256 << 20,
        }
    }

    /// The name of this task of `reader` in metrics and health.
    pub fn label(&self, reader: &str) -> String {
        format!("{reader}/{}", self.task)
    }

    /// The place of this task in the group of `reader`.
    pub fn membership(&self, log: &Arc<dyn Log>, reader: &str) -> Membership {
        Membership {
            log: log.clone(),
            group: self.group(reader),
            member: self.member(reader).unwrap_or_default(),
            session_timeout: self.session_timeout,
        }
    }

    /// The consumer group of `reader`.
    pub fn group(&self, reader: &str) -> String {
        group_id(&self.application, reader)
    }

    /// The static member id of this task in the group of `reader`.
    pub fn member(&self, reader: &str) -> Option<String> {
        self.static_membership
            .then(|| format!("{}-{reader}-{}-{}", self.application, self.slot, self.task))
    }

    /// The transactional id of one of the task's producers, `lane` being `a` or `b`.
    pub fn transactional_id(&self, reader: &str, lane: char) -> String {
        format!(
            "{}-{reader}-{}-{}-{lane}",
            self.application, self.slot, self.task
        )
    }
}

/// A task's place in its consumer group.
pub struct Membership {
    log: Arc<dyn Log>,
    group: String,
    member: String,
    /// A member that is not heard of for so long is none any more.
    pub session_timeout: Duration,
}

impl Membership {
    /// Whether somebody has this place. Asked when the task itself has had none for longer than a
    /// session, it tells whether another instance of the same name runs.
    ///
    /// # Errors
    /// When the log does not answer.
    pub fn is_taken(&self) -> Result<bool, LogError> {
        self.log.admin().has_member(&self.group, &self.member)
    }
}

/// The consumer group of `reader` in `application`.
pub fn group_id(application: &str, reader: &str) -> String {
    format!("{application}.{reader}")
}
