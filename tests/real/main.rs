//! Real systems: what the connectors make of an ERP and of storefronts that nobody here wrote, and the
//! binary between them. Each test has the systems to itself.

mod catalogue;
mod desk;
mod erp;
#[path = "../support/inbox.rs"]
#[allow(dead_code, reason = "these tests do not need all of it")]
mod inbox;
#[path = "../support/kafka.rs"]
mod kafka;
mod life;
mod odoo;
mod orders;
mod proxy;
mod sales;
mod shop_erp;
mod shops;
mod stock;
mod support;
mod systems;
#[path = "../support/trade.rs"]
mod trade;
mod tryton;
mod whole;
#[path = "../e2e/worker.rs"]
#[allow(dead_code, reason = "these tests do not need all of it")]
mod worker;
#[path = "../it/world.rs"]
#[allow(dead_code, reason = "these tests do not need all of it")]
mod world;
