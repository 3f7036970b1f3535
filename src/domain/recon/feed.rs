//! Whether a source is still heard of.
//!
//! A source that answers says so every minute, whether or not it has anything to tell; silence for five
//! minutes is the event.

use crate::domain::cases::{CaseChange, Cases, Finding, Severity};
use crate::domain::encoding::kept;
use crate::domain::{Taken, Timestamp};
use compact_str::CompactString as Text;
use std::time::Duration;

/// How long a source may be silent.
pub const STALE_AFTER: Duration = Duration::from_secs(5 * 60);
/// Whoever was away himself gives heartbeats that wait in the log this much time to be read.
const AWAY: Duration = Duration::from_secs(60);

/// One part of one source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Feed {
    // First, so that it is read without the rest.
    due: Option<Timestamp>,
    heard_at: Timestamp,
    /// When it said so last, by its own clock, and until when it was read.
    beat_at: Option<Timestamp>,
    watermark_at: Timestamp,
    stale: bool,
    away_until: Option<Timestamp>,
    version: i64,
    cases: Cases,
}
kept!(Feed {
    due,
    heard_at,
    beat_at,
    watermark_at,
    stale,
    away_until: told,
    version: told,
    cases
});

/// What is told of a feed when it changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeedChange {
    /// Whether it is not heard of.
    pub stale: bool,
    /// Until when it was read.
    pub watermark_at: Timestamp,
    /// Counts what was told, from 1.
    pub version: i64,
}

impl Feed {
    /// The source has answered at `at`, and was read until `watermark`.
    pub fn beat(&mut self, at: Timestamp, watermark: Timestamp) -> Taken {
        match self.beat_at {
            Some(known) if known == at => return Taken::Duplicate,
            Some(known) if known > at => return Taken::Superseded,
            _ => self.beat_at = Some(at),
        }
        self.watermark_at = self.watermark_at.max(watermark);
        Taken::Applied
    }

    /// What has changed, and what became of the case. `name` is the source. Sets the next timer.
    pub fn settle(&mut self, name: &str, now: Timestamp) -> (Option<FeedChange>, Vec<CaseChange>) {
        let overdue = self.heard_at.plus(STALE_AFTER);
        let stale = match (now >= overdue, self.stale, self.away_until) {
            (false, ..) => false,
            (true, true, _) => true,
            (true, false, None) if now >= overdue.plus(AWAY) => {
                self.away_until = Some(now.plus(AWAY));
                false
            }
            (true, false, until) => until.is_none_or(|until| until <= now),
        };
        if now < overdue || stale {
            self.away_until = None;
        }
        self.due = match (stale, self.away_until) {
            (true, _) => None,
            (false, Some(until)) => Some(until),
            (false, None) => Some(overdue),
        };
        let change = (self.version == 0 || stale != self.stale).then(|| {
            self.version += 1;
            FeedChange {
                stale,
                watermark_at: self.watermark_at,
                version: self.version,
            }
        });
        self.stale = stale;
        let finding = stale.then(|| Finding {
            code: "FEED_STALE",
            cause: Text::default(),
            severity: Severity::High,
            patience: Duration::ZERO,
            expected: format!("{name} is heard of every minute"),
            actual: format!("nothing since {}", self.heard_at),
            delta: None,
            at_risk: None,
            actions: &[
                "restart the connector",
                "look at the system",
                "raise buffers",
            ],
        });
        let changes = self.cases.follow(finding.into_iter().collect(), now);
        (change, changes)
    }
}
