//! Configuration: what a deployment says about itself, and secrets by reference.

mod secret;

pub use secret::Secret;
