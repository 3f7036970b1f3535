//! Checks that every processor makes of what it is told, and how a record that fails one is refused.

use crate::contract::event::{Event, EventMeta};
use crate::domain::Timestamp;
use crate::pipeline::{Code, Fault, Stage};
use std::error::Error;
use std::time::Duration;

/// Facts may be stamped this much later than they were recorded: clocks differ.
pub(super) const CLOCK_SKEW_MAX: Duration = Duration::from_secs(300);

/// A rule of data quality is broken.
pub(super) fn quality(message: impl Into<String>) -> Fault {
    Fault::reject(Stage::Validate, Code::DataQuality, message)
}

/// A field on which a decision hangs holds a symbol that this build does not know.
pub(super) fn unknown(field: &str) -> Fault {
    Fault::reject(
        Stage::Validate,
        Code::UnknownSymbol,
        format!(
            "{field} is UNKNOWN, and what happens depends on it; deploy a build that knows the symbol, then redrive"
        ),
    )
}

/// The record is of a contract that the processor does not read.
pub(super) fn no_use(processor: &str, event: &Event) -> Fault {
    let message = format!("{processor} has no use for {}", event.contract());
    Fault::reject(Stage::Process, Code::WrongContract, message)
}

/// The key is not that of the value.
pub(super) fn check_key(key: &str, own: &str) -> Result<(), Fault> {
    if key == own {
        return Ok(());
    }
    let message = format!("the key is {key}, the value is of {own}");
    Err(Fault::reject(Stage::Validate, Code::WrongKey, message))
}

pub(super) fn check_times(meta: &EventMeta) -> Result<(), Fault> {
    if meta.recorded_at != Timestamp::default()
        && meta.occurred_at > meta.recorded_at.plus(CLOCK_SKEW_MAX)
    {
        return Err(quality(format!(
            "occurredAt {} is more than 5 min after recordedAt {}",
            meta.occurred_at, meta.recorded_at
        )));
    }
    Ok(())
}

/// The state of `key` is not what this build wrote.
pub(super) fn damaged(key: &str, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Fault {
    let message = format!(
        "state of {key} cannot be read; remove the checkpoint and start again, which reads the changelog; where that holds it so, stop the processor's instances and make it anew with `crossdock rebuild PROCESSOR --swap`"
    );
    Fault::halt(Stage::Process, Code::Bug, message).caused_by(cause)
}
