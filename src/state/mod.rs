//! State of a processor, one [`Shard`] for each partition: a hash map in memory whose changes go to
//! a changelog topic in the transaction that made them, and whose whole is written to a local
//! [`checkpoint`] from time to time so that a restart reads only the rest of the changelog.
//!
//! A shard never decides anything about time or I/O; the runtime does.

pub mod checkpoint;
mod shard;

pub use shard::Shard;
