//! Reconciliation of stock and orders, and the cases that operations work, through their processors:
//! records in, events and outcomes out.
//!
//! What is expected follows from the world that a test makes up, by code that shares nothing with the
//! rules.

mod clocks;
#[path = "../support/driven.rs"]
mod driven;
mod exceptions;
mod feeds;
mod orders;
mod pages;
mod stock;

use crossdock::contract::event::*;
use crossdock::domain::{Decimal, Timestamp, event_id};
use driven::Driven;
use rand::prelude::*;
use std::time::Duration;

pub(crate) const MINUTE: i64 = 60;
pub(crate) const HOUR: i64 = 3_600;

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp((1_700_000_000 + seconds) * 1_000_000)
}

pub(crate) fn units(units: i64) -> Decimal {
    Decimal::from_units(units * 10_000)
}

pub(crate) fn meta(source: &str, event_type: &str, record: &str, seconds: i64) -> EventMeta {
    EventMeta {
        event_id: event_id(source, 0, record, "", event_type),
        event_type: event_type.into(),
        source: source.into(),
        source_position: seconds,
        occurred_at: at(seconds),
        recorded_at: at(seconds),
        tenant_id: "default".into(),
        correlation_id: record.into(),
        ..EventMeta::default()
    }
}

/// Delivers each event at its time, in order of time; of one time in the order given.
pub(crate) fn deliver<P: crossdock::pipeline::Processor>(
    driven: &mut Driven<P>,
    mut events: Vec<(i64, Event)>,
) {
    events.sort_by_key(|(when, _)| *when);
    for (when, event) in events {
        driven.pass(at(when).since(driven.now));
        driven.send(vec![event]);
    }
}

/// Some of the events a second time, up to an hour later.
pub(crate) fn twice(events: &[(i64, Event)], random: &mut StdRng) -> Vec<(i64, Event)> {
    let again = events.iter().filter(|_| random.random_bool(0.4));
    let again: Vec<(i64, Event)> = again.cloned().collect();
    again
        .into_iter()
        .map(|(when, event)| (when + random.random_range(0..HOUR), event))
        .collect()
}

pub(crate) fn hours(hours: i64) -> Duration {
    Duration::from_secs((hours * HOUR) as u64)
}
