//! Simulated time: it moves when the world says so, and wakes what waited for it. Clocks of instances
//! may be wrong.

use crate::domain::Timestamp;
use crate::pipeline::Clock;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// 2026-10-01T00:00:00Z: every run begins then.
pub(super) const BEGIN: Timestamp = Timestamp(1_790_812_800_000_000);

/// The time of a world, in microseconds since the epoch.
pub(super) struct Time {
    now: AtomicI64,
    sleepers: Mutex<Vec<(i64, Waker)>>,
}

impl Time {
    pub fn new() -> Arc<Time> {
        Arc::new(Time {
            now: AtomicI64::new(BEGIN.0),
            sleepers: Mutex::default(),
        })
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::Relaxed))
    }

    /// When the next sleeper wakes.
    pub fn next(&self) -> Option<Timestamp> {
        let sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        sleepers.iter().map(|(at, _)| Timestamp(*at)).min()
    }

    /// Moves on, never back, and wakes those whose time has come.
    pub fn advance_to(&self, at: Timestamp) {
        let now = self.now.fetch_max(at.0, Ordering::Relaxed).max(at.0);
        let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        let woken: Vec<_> = sleepers.extract_if(.., |(due, _)| *due <= now).collect();
        drop(sleepers);
        woken.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Ends at `at`.
    pub fn until(self: &Arc<Self>, at: Timestamp) -> Until {
        Until {
            time: self.clone(),
            at,
        }
    }

    /// Ends so much later.
    pub fn after(self: &Arc<Self>, wait: Duration) -> Until {
        self.until(self.now().plus(wait))
    }
}

/// Waits for a moment of simulated time.
pub(super) struct Until {
    time: Arc<Time>,
    at: Timestamp,
}

impl Future for Until {
    type Output = ();
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.time.now() >= self.at {
            return Poll::Ready(());
        }
        let sleepers = self.time.sleepers.lock();
        let mut sleepers = sleepers.unwrap_or_else(PoisonError::into_inner);
        sleepers.push((self.at.0, context.waker().clone()));
        Poll::Pending
    }
}

/// The clock on an instance's wall.
pub(super) struct WallClock {
    time: Arc<Time>,
    /// Microseconds that it is ahead.
    ahead: AtomicI64,
}

impl WallClock {
    pub fn new(time: &Arc<Time>, ahead: i64) -> Arc<WallClock> {
        Arc::new(WallClock {
            time: time.clone(),
            ahead: AtomicI64::new(ahead),
        })
    }

    /// Somebody sets it.
    pub fn set(&self, ahead: i64) {
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    /// The true time at which this clock shows `at`.
    pub fn truly(&self, at: Timestamp) -> Timestamp {
        Timestamp(at.0.saturating_sub(self.ahead.load(Ordering::Relaxed)))
    }
}

#[async_trait::async_trait]
impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.time.now().0 + self.ahead.load(Ordering::Relaxed))
    }
    async fn sleep(&self, wait: Duration) {
        self.time.after(wait).await;
    }
}
