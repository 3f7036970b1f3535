//! Money: arithmetic, the books, the gate for refunds and the comparison of returns, through their
//! processors: records in, events and outcomes out.
//!
//! What is expected is worked out by hand, in whole cents, by code that shares nothing with the rules.

mod arithmetic;
mod books;
#[path = "../support/driven.rs"]
mod driven;
mod gate;
mod gate_random;
mod returns;
mod settlement;
#[path = "../support/money.rs"]
mod support;

use crossdock::contract::event::*;
use crossdock::pipeline::Code;
use crossdock::pipeline::Processor;
use driven::{Driven, Entries};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::*;
use uuid::Uuid;

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// A processor of the order that all tests are about.
pub(crate) fn of_order<P: Processor>(processor: P) -> Driven<P> {
    Driven::at(processor, ORDER, at(0))
}

/// A processor of another key.
pub(crate) fn of_key<P: Processor>(processor: P, key: &str) -> Driven<P> {
    Driven::at(processor, key, at(0))
}
