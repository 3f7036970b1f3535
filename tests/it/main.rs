//! Tests at the seams, without a broker: the runtime, the processors and the embedded log together.

mod answers;
mod cases;
mod customers;
mod delivery;
mod demo;
mod dlq;
mod door;
mod early;
mod explain;
mod house;
mod inbox;
mod money;
mod order;
mod parking;
mod rebuild;
mod replay;
mod restore;
mod settlement;
mod simulate;
mod sink;
mod source;
mod stock;
mod storefront;
#[path = "../support/money.rs"]
mod support;
#[path = "../support/trade.rs"]
mod trade;
mod waiting;
mod world;
