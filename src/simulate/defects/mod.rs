//! Mistakes that the runtime or a processor could make, sown at the ports between them: what the judges
//! do not find in any run they could not prove the absence of.
//!
//! A defect is a wrapper around one port (the log, a processor, a sink, a source) that does what the
//! code behind the port would do if it were wrong. Nothing of it is in the way of a sound run.

mod log;
mod ports;

use crate::log::Log;
use crate::pipeline::{Processor, Sink, Source};
use std::sync::Arc;

macro_rules! defects {
    ($($variant:ident = $name:literal: $words:literal,)+) => {
        /// A defect that can be sown.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Defect {
            $(#[doc = $words] $variant,)+
        }
        impl Defect {
            /// Every defect.
            pub const ALL: &'static [Defect] = &[$(Defect::$variant),+];
            /// Its name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Defect::$variant => $name),+ }
            }
            /// What is wrong with it.
            pub const fn words(self) -> &'static str {
                match self { $(Defect::$variant => $words),+ }
            }
        }
    };
}

defects! {
    OffsetsFirst = "offsets-first": "offsets are committed before the outputs are",
    OutputsAtOnce = "outputs-at-once": "outputs are written outside of the transaction",
    ReadUncommitted = "read-uncommitted": "records are read before they are committed",
    RestoreUncommitted = "restore-uncommitted": "state is restored with what was aborted",
    ZombieCommits = "zombie-commits": "what an expelled member has worked on is committed all the same",
    NoSeek = "no-seek": "nobody goes back to what was read and not committed",
    AbortCommits = "abort-commits": "a transaction that failed is committed as far as it came",
    TrustsCommit = "trusts-commit": "a commit without an answer counts as done",
    UnknownIsAborted = "unknown-is-aborted": "a commit without an answer counts as failed, without a look at the log",
    SkipsDifference = "skips-difference": "state that was kept is used without what others have written since",
    DropsDisposition = "drops-disposition": "now and then an outcome is not booked",
    LosesTombstones = "loses-tombstones": "what is removed from state is not removed from its changelog",
    ForgetsChangelog = "forgets-changelog": "now and then a change of state is not written",
    LosesOutputs = "loses-outputs": "now and then an output is not written",
    PastGap = "past-gap": "offsets are committed past records that are not settled",
    HalfRestored = "half-restored": "state is used before all of it is there",
    CheckpointTooNew = "checkpoint-too-new": "kept state is taken for newer than it is",
    OldOffsets = "old-offsets": "reading begins before what is committed",
    CursorLater = "cursor-later": "a source's cursor is written after its records",
    WrongPartition = "wrong-partition": "now and then an output goes to another partition than its key's",
    Reversed = "reversed": "records are handed out in reverse",
    AcksErrors = "acks-errors": "a call that failed counts as done",
    TrustsDigest = "trusts-digest": "what was sent is believed to have arrived, though nobody answered",
    ResendsAsNew = "resends-as-new": "what was not answered is sent again as new, without a look whether it is there",
    BuriesOutages = "buries-outages": "what only has to wait is dead-lettered",
    ForgetsIdentities = "forgets-identities": "a fact that comes again is applied again",
    LeavesClaims = "leaves-claims": "goods that leave do not consume what was reserved for them",
    TakesOlder = "takes-older": "of several records of a key the last is passed over",
    ForgetsTimers = "forgets-timers": "timers do not outlive a restart",
    NoUndo = "no-undo": "state is not taken back after an abort",
    AcknowledgesEarly = "acknowledges-early": "a system is told that its facts are durable when they are read",
}

impl Defect {
    /// The defect of this name.
    pub fn named(name: &str) -> Option<Defect> {
        Self::ALL.iter().copied().find(|d| d.name() == name)
    }
}

/// The log as a task with the defect uses it.
pub(super) fn log(defect: Option<Defect>, inner: Arc<dyn Log>) -> Arc<dyn Log> {
    match defect {
        Some(defect) => Arc::new(log::Flawed::new(inner, defect)),
        None => inner,
    }
}

/// A processor with the defect.
pub(super) fn processor(defect: Option<Defect>, inner: Box<dyn Processor>) -> Box<dyn Processor> {
    use Defect::{ForgetsIdentities, ForgetsTimers, LeavesClaims, NoUndo, TakesOlder};
    match defect {
        Some(defect @ (ForgetsIdentities | ForgetsTimers | LeavesClaims | NoUndo | TakesOlder)) => {
            Box::new(ports::FlawedProcessor::new(inner, defect))
        }
        _ => inner,
    }
}

/// A sink that is called by a runtime with the defect.
pub(super) fn sink(defect: Option<Defect>, inner: Arc<dyn Sink>) -> Arc<dyn Sink> {
    use Defect::{AcksErrors, BuriesOutages, ResendsAsNew, TrustsDigest};
    match defect {
        Some(defect @ (AcksErrors | BuriesOutages | ResendsAsNew | TrustsDigest)) => {
            Arc::new(ports::FlawedSink::new(inner, defect))
        }
        _ => inner,
    }
}

/// A source that is driven by a runtime with the defect.
pub(super) fn source(defect: Option<Defect>, inner: Box<dyn Source>) -> Box<dyn Source> {
    match defect {
        Some(Defect::AcknowledgesEarly) => Box::new(ports::Hasty(inner)),
        _ => inner,
    }
}
