//! A period of the books.

use crate::domain::Timestamp;
use std::time::Duration;

/// What was booked as of a time may have been written this much before it, by another clock.
const SKEW: Duration = Duration::from_secs(86_400);

/// From a time, to a time, or open on either side. Judged by when the fact happened that was booked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// First moment that belongs to it.
    pub since: Option<Timestamp>,
    /// First moment that does not any more.
    pub until: Option<Timestamp>,
}

impl Period {
    /// Whether it holds this moment.
    pub fn holds(&self, at: Timestamp) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }

    /// Before this time of the log nothing of the period was written, in milliseconds.
    pub(super) fn written_from_ms(&self) -> Option<i64> {
        self.since.map(|since| since.minus(SKEW).as_millis())
    }
}
