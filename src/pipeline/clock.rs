//! Time as a port: production reads the system's clock, a simulator moves its own.

use crate::domain::Timestamp;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where tasks take the time from, and how the asynchronous ones wait.
#[async_trait::async_trait]
pub trait Clock: Send + Sync {
    /// The present time. May step; never use differences of it as a timer's truth across restarts.
    fn now(&self) -> Timestamp;
    /// Waits for `wait` of this clock's time. Cancel-safe: dropping the future ends the wait.
    async fn sleep(&self, wait: Duration);
}

/// The clock of the machine, and tokio's timer.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait::async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}
