//! The vocabulary of the platform: what flows ([`Record`]), who makes it flow ([`Source`],
//! [`Processor`], [`Sink`]), what they may remember ([`State`]), and how things go wrong
//! ([`Fault`]). Nothing here does I/O.

mod fault;
mod record;

pub use fault::{Code, Fault, Stage, Verdict};
pub use record::{Headers, HeadersBuilder, Origin, Record};
