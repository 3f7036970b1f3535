//! What happens at the provider though nobody called its API.
//!
//! | act | what happens |
//! |-|-|
//! | `{"pay": NUMBER, "amount": MINOR, "currency": "eur", "capture": true}` | a customer pays an order |
//! | `{"decline": NUMBER, "amount": MINOR}` | a payment fails |
//! | `{"capture": CHARGE, "amount": MINOR}` | promised money is taken |
//! | `{"expire": CHARGE}` | a promise runs out |
//! | `{"refund": CHARGE, "amount": MINOR}` | somebody pays back by hand |
//! | `{"slow_refunds": true}` | refunds stay pending |
//! | `{"end_refund": REFUND, "good": true}` | a pending refund ends, or one comes back |
//! | `{"dispute": CHARGE}`, `{"win": DISPUTE}` | a chargeback, and its reversal |
//! | `{"fee": MINOR}` | the provider charges for something |
//! | `{"payout": "eur", "reconciled": true}`, `{"reconcile": PAYOUT}` | a payout |
//! | `{"arrive": PAYOUT}` | the bank has it |
//! | `{"report": "lines"}` or `"payouts"` or `"statement"` | the provider's reports or the bank's statement, as CSV |
//! | `{"live": true}` | from now on time is the machine's; before, it is some weeks ago, a second each act |
//! | `{"webhooks": URL, "shuffle": SEED, "repeat": TIMES, "lose": SHARE}` | events that were not sent yet are sent |

use super::store::{Refused, Store};
use super::{Api, SECRET, reports};
use crate::connectors::fake::FakeServer;
use crate::connectors::webhook::sign;
use crate::pipeline::{Clock, SystemClock};
use rand::prelude::*;
use serde_json::{Value, json};

/// Does what an act says, and gives what came of it.
///
/// # Errors
/// Why it cannot be done.
pub fn act(server: &FakeServer<Api>, action: &Value) -> Result<Value, String> {
    if let Some(url) = action["webhooks"].as_str() {
        return deliver(server, url, action);
    }
    apply(&mut server.api().store, action).map_err(|r| r.message)
}

fn apply(store: &mut Store, action: &Value) -> Result<Value, Refused> {
    let text = |name: &str| action[name].as_str();
    let amount = action["amount"].as_i64();
    let currency = text("currency").unwrap_or("eur");
    if let Some(number) = text("pay") {
        let is_captured = action["capture"].as_bool().unwrap_or(true);
        return Ok(store.pay(number, amount.unwrap_or(10_000), currency, is_captured));
    }
    if let Some(number) = text("decline") {
        store.decline(number, amount.unwrap_or(10_000), currency);
        return Ok(Value::Null);
    }
    if let Some(charge) = text("capture") {
        return store.capture(charge, amount);
    }
    if let Some(charge) = text("expire") {
        return store.expire(charge).map(|()| Value::Null);
    }
    if let Some(charge) = text("refund") {
        return store.refund(charge, amount, json!({}));
    }
    if let Some(refund) = text("end_refund") {
        return store.end_refund(refund, action["good"].as_bool().unwrap_or(true));
    }
    if let Some(charge) = text("dispute") {
        return store.dispute(charge);
    }
    if let Some(dispute) = text("win") {
        return store.win(dispute).map(|()| Value::Null);
    }
    if let Some(fee) = action["fee"].as_i64() {
        store.charge_fee(fee, currency);
        return Ok(Value::Null);
    }
    if let Some(currency) = text("payout") {
        return Ok(store.payout(currency, action["reconciled"].as_bool().unwrap_or(true)));
    }
    if let Some(payout) = text("reconcile") {
        if let Some(object) = store.payouts.get_mut(payout) {
            object["reconciliation_status"] = "completed".into();
        }
        return Ok(Value::Null);
    }
    if let Some(payout) = text("arrive") {
        return store.arrive(payout);
    }
    if let Some(report) = text("report") {
        let csv = match report {
            "lines" => reports::lines(store),
            "payouts" => reports::payouts(store),
            _ => reports::statement(store),
        };
        return Ok(csv.into());
    }
    if let Some(is_live) = action["live"].as_bool() {
        store.is_live = is_live;
        return Ok(Value::Null);
    }
    if let Some(is_slow) = action["slow_refunds"].as_bool() {
        store.is_slow = is_slow;
        return Ok(Value::Null);
    }
    Err(super::refused("act", format!("there is no act {action}")))
}

/// Sends what was not sent yet; gives the statuses that were answered.
fn deliver(server: &FakeServer<Api>, url: &str, action: &Value) -> Result<Value, String> {
    let mut events: Vec<Value> = {
        let store = &mut server.api().store;
        let ids = std::mem::take(&mut store.undelivered);
        let known = ids.iter().filter_map(|id| store.events.get(id));
        known.cloned().collect()
    };
    if let Some(seed) = action["shuffle"].as_u64() {
        let mut random = StdRng::seed_from_u64(seed);
        let lost = action["lose"].as_f64().unwrap_or(0.0);
        events.retain(|_| !random.random_bool(lost));
        let repeated = action["repeat"].as_u64().unwrap_or(1) as usize;
        let once = events.clone();
        events = std::iter::repeat_n(once, repeated).flatten().collect();
        events.shuffle(&mut random);
    }
    let url = url.to_owned();
    // On a thread of its own: an act may be called where a runtime runs.
    let sender = std::thread::spawn(move || send(&url, &events));
    let statuses = sender.join().map_err(|_| "the sender failed".to_owned())?;
    statuses.map(Value::from).map_err(|e| e.to_string())
}

fn send(url: &str, events: &[Value]) -> Result<Vec<u16>, reqwest::Error> {
    let client = reqwest::blocking::Client::new();
    let mut statuses = Vec::new();
    for event in events {
        let body = event.to_string();
        let now = SystemClock.now().0 / 1_000_000;
        let signature = sign(SECRET, format!("{now}.{body}").as_bytes());
        let request = client
            .post(url)
            .header("stripe-signature", format!("t={now},v1={signature}"))
            .header("content-type", "application/json");
        statuses.push(request.body(body).send()?.status().as_u16());
    }
    Ok(statuses)
}
