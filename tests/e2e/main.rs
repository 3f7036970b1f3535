//! The real binary on a real Kafka, disturbed; judged by a program that shares no code with it.

#[path = "../support/kafka.rs"]
mod kafka;
mod kill;
mod worker;
