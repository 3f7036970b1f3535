//! How things go wrong: one error type whose verdict is decided where the cause is known and
//! matched once, in the runtime.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// What the runtime does about a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The other side is unwell: keep the offset and try again, not before `after` when it said so.
    Retry {
        /// The wait that the other side asked for (`Retry-After`); `None` leaves it to the back-off.
        after: Option<Duration>,
    },
    /// This record can never succeed: dead-letter it and go on.
    Reject,
    /// No record can succeed (credentials, configuration, a missing topic): pause and alarm.
    Halt,
}

/// Where in the pipeline a fault arose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Stage {
    Read,
    Decode,
    Validate,
    Process,
    Encode,
    Write,
    Commit,
}

impl Stage {
    /// Lower-case name, as in messages and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Read => "read",
            Stage::Decode => "decode",
            Stage::Validate => "validate",
            Stage::Process => "process",
            Stage::Encode => "encode",
            Stage::Write => "write",
            Stage::Commit => "commit",
        }
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+) => {
        /// The stable code of a fault: in dead letters, metrics and the operators' pages.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $($(#[doc = $doc])+ $variant,)+ }
        impl Code {
            /// Every code, in order of declaration.
            pub const ALL: &'static [Code] = &[$(Code::$variant),+];
            /// The code as it is written in dead letters and on its page.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text),+ }
            }
        }
    };
}

codes! {
    /// The value is missing or has no bytes where an event must stand.
    EmptyValue = "EMPTY_VALUE",
    /// The first byte is not the magic byte of the Confluent framing.
    BadMagic = "BAD_MAGIC",
    /// The registry knows no schema under the id of the frame.
    UnknownSchemaId = "UNKNOWN_SCHEMA_ID",
    /// The body ends before the record does.
    Truncated = "TRUNCATED",
    /// Bytes are left behind the record.
    TrailingBytes = "TRAILING_BYTES",
    /// The body is not a value of its schema.
    Malformed = "MALFORMED",
    /// The schema is that of another contract than the topic's.
    WrongContract = "WRONG_CONTRACT",
    /// The writer's schema cannot be resolved to the compiled one.
    IncompatibleSchema = "INCOMPATIBLE_SCHEMA",
    /// Another instance with this one's name has taken its place.
    NameTaken = "NAME_TAKEN",
    /// The registry did not answer.
    RegistryUnavailable = "REGISTRY_UNAVAILABLE",
    /// The record has no key.
    NullKey = "NULL_KEY",
    /// The key does not belong to the value.
    WrongKey = "WRONG_KEY",
    /// The record is larger than its topic allows.
    Oversize = "OVERSIZE",
    /// A data quality rule of the contract is broken.
    DataQuality = "DATA_QUALITY",
    /// A decision field holds a symbol that this version does not know.
    UnknownSymbol = "UNKNOWN_SYMBOL",
    /// A name that no reference data knows: SKU, location, channel, currency.
    UnknownReference = "UNKNOWN_REFERENCE",
    /// The state machine has no such transition.
    IllegalTransition = "ILLEGAL_TRANSITION",
    /// The fact is older than the horizon within which duplicates are known.
    LateBeyondHorizon = "LATE_BEYOND_HORIZON",
    /// The facts of a source's new epoch wait for its snapshot, and no more of them can wait.
    EpochUntrusted = "EPOCH_UNTRUSTED",
    /// The configuration is wrong.
    Configuration = "CONFIGURATION",
    /// The other side refused the credentials.
    Unauthorised = "UNAUTHORISED",
    /// The other side did not answer, or said that it cannot now.
    Unavailable = "UNAVAILABLE",
    /// The other side asked for fewer calls.
    Throttled = "THROTTLED",
    /// Something else has to reach the other side first: the order before its return. A sink parks the key
    /// until it has.
    TooEarly = "TOO_EARLY",
    /// The other side refused this record.
    Refused = "REFUSED",
    /// The call may or may not have had its effect.
    OutcomeUnknown = "OUTCOME_UNKNOWN",
    /// The log or its broker failed.
    Log = "LOG",
    /// A contradiction inside Crossdock itself: a defect.
    Bug = "BUG",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that kept a record, or all of them, from going on.
///
/// The message says what is wrong with which value and, where it is not plain, what to do; it
/// holds no secrets and no personal data.
#[derive(Debug, thiserror::Error)]
#[error("{code} while in {}: {message}", stage.as_str())]
pub struct Fault {
    /// What to do about it.
    pub verdict: Verdict,
    /// Where it arose.
    pub stage: Stage,
    /// Its stable code.
    pub code: Code,
    /// Cause and remedy in words.
    pub message: String,
    /// The error beneath, if any.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl Fault {
    /// As a fault of a source: its client, which serves a sink too, says of every call that it writes.
    pub fn of_source(self) -> Self {
        let stage = match self.stage {
            Stage::Write => Stage::Read,
            other => other,
        };
        Fault { stage, ..self }
    }
    /// A record that can never succeed.
    pub fn reject(stage: Stage, code: Code, message: impl Into<String>) -> Self {
        Fault {
            verdict: Verdict::Reject,
            stage,
            code,
            message: message.into(),
            source: None,
        }
    }
    /// The other side is unwell; try again.
    pub fn retry(stage: Stage, code: Code, message: impl Into<String>) -> Self {
        Fault {
            verdict: Verdict::Retry { after: None },
            stage,
            code,
            message: message.into(),
            source: None,
        }
    }
    /// No record can succeed until somebody mends something.
    pub fn halt(stage: Stage, code: Code, message: impl Into<String>) -> Self {
        Fault {
            verdict: Verdict::Halt,
            stage,
            code,
            message: message.into(),
            source: None,
        }
    }
    /// With the wait the other side asked for; only for a retry.
    pub fn after(mut self, wait: Duration) -> Self {
        if let Verdict::Retry { after } = &mut self.verdict {
            *after = Some(wait);
        }
        self
    }
    /// With the error beneath.
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_source_from_reading_is_not_said_to_be_written() {
        let fault = Fault::retry(Stage::Write, Code::Unavailable, "away").of_source();
        assert_eq!(fault.to_string(), "UNAVAILABLE while in read: away");
        let fault = Fault::reject(Stage::Validate, Code::DataQuality, "six").of_source();
        assert_eq!(fault.stage, Stage::Validate);
    }
}
