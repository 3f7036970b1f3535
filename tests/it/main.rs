//! Tests at the seams, without a broker: the runtime, the processors and the embedded log together.

mod house;
mod sink;
mod source;
mod stock;
mod world;
