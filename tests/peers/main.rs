//! The tests of others, written anew: Kafka Connect's `test_bounce` and Jepsen's check of histories.

mod bounce;
#[path = "../e2e/facts.rs"]
#[allow(dead_code, reason = "it does more than is needed here")]
mod facts;
mod history;
#[path = "../support/kafka.rs"]
#[allow(dead_code, reason = "it does more than is needed here")]
mod kafka;
#[path = "../support/oracle.rs"]
#[allow(dead_code, reason = "it does more than is needed here")]
mod oracle;
#[path = "../support/proxy.rs"]
#[allow(dead_code, reason = "chaos does more with it")]
mod proxy;
#[path = "../e2e/worker.rs"]
#[allow(dead_code, reason = "it does more than is needed here")]
mod worker;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tests with brokers of their own go one after the other: two clusters at a time would be slow, not thorough.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
