//! The demo's clock: moved by the driver, so that what is decided does not depend on how fast the
//! machine is, or the broker.

use crate::domain::Timestamp;
use crate::pipeline::Clock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// 2026-10-01T00:00:00Z: every run on the embedded log begins then.
pub(super) const FIRST_DAY: Timestamp = Timestamp(1_790_812_800_000_000);

/// A clock that stands until it is moved.
pub(super) struct DrivenClock(AtomicI64);

impl DrivenClock {
    pub fn new(start: Timestamp) -> Self {
        DrivenClock(AtomicI64::new(start.0))
    }
    /// To this time, unless it is past it.
    pub fn advance_to(&self, at: Timestamp) {
        self.0.fetch_max(at.0, Ordering::SeqCst);
    }
    pub fn advance(&self, by: Duration) {
        self.0
            .fetch_add(i64::try_from(by.as_micros()).unwrap_or(0), Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Clock for DrivenClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
    /// Lets others go on; time itself passes only when the driver says so.
    async fn sleep(&self, _wait: Duration) {
        tokio::task::yield_now().await;
    }
}
