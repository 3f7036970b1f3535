//! Exponential back-off with jitter that needs no random numbers: the jitter comes from the key of
//! what is tried again, so keys spread out and a run repeats itself.

use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

/// How long to wait before the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Wait before the second try.
    pub first: Duration,
    /// Longest wait.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(30),
        }
    }
}

impl Backoff {
    /// The wait after `attempt` tries (1 or more) of `key`: doubling, up to `longest`, of which a
    /// half is fixed and a half depends on key and attempt.
    pub fn wait(&self, key: &[u8], attempt: u32) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1u32 << attempt.saturating_sub(1).min(20));
        let whole = doubled.min(self.longest);
        let mut hasher = FxHasher::default();
        (key, attempt).hash(&mut hasher);
        let share = (hasher.finish() >> 40) as f64 / (1u64 << 24) as f64;
        whole / 2 + whole.mul_f64(share / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_differ_between_keys() {
        let backoff = Backoff::default();
        for attempt in 1..40 {
            let wait = backoff.wait(b"key", attempt);
            assert!(
                wait <= backoff.longest && wait >= backoff.first / 2,
                "{attempt}: {wait:?}"
            );
        }
        assert_eq!(backoff.wait(b"a", 3), backoff.wait(b"a", 3));
        assert_ne!(backoff.wait(b"a", 3), backoff.wait(b"b", 3));
    }
}
