//! The real binary on a real Kafka, disturbed; judged by a program that shares no code with it.

mod connectors;
mod demo;
mod dlq;
mod exceptions;
mod facts;
#[path = "../support/kafka.rs"]
mod kafka;
mod kill;
#[path = "../support/oracle.rs"]
mod oracle;
mod orders;
mod outage;
mod poison;
#[path = "../support/registry.rs"]
mod registry;
mod replay;
mod takeover;
mod webhooks;
mod worker;
