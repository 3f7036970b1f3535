//! What is to happen to an order in time.

use super::*;
use crossdock::processors::SlaMonitor;
use std::collections::BTreeMap;
use uuid::Uuid;

const ORDER: &str = "7d0b6a52-0000-5000-8000-000000000001";

fn told(kind: OrderEventType, seconds: i64, channel: ChannelType) -> Event {
    OrderEvent {
        meta: meta("shop/web", "OrderEvent", &format!("{kind}"), seconds),
        order_id: ORDER.into(),
        r#type: kind,
        entity_version: 1,
        order: (kind == OrderEventType::Placed).then(|| OrderSnapshot {
            channel_type: channel,
            ..OrderSnapshot::default()
        }),
        ..OrderEvent::default()
    }
    .into()
}

fn state(version: i64, status: OrderStatus, promise: Option<i64>, seconds: i64) -> Event {
    OrderState {
        meta: meta(
            "crossdock/order-lifecycle",
            "OrderState",
            &version.to_string(),
            seconds,
        ),
        order_id: ORDER.into(),
        state_version: version,
        status,
        placed_at: at(0),
        currency: "EUR".into(),
        grand_total: units(50),
        earliest_promise: promise.map(at),
        ..OrderState::default()
    }
    .into()
}

fn inspected(seconds: i64) -> Event {
    ReturnEvent {
        meta: meta("wms", "ReturnEvent", "ret", seconds),
        order_id: ORDER.into(),
        return_id: "ret".into(),
        return_version: 1,
        status: ReturnStatus::Inspected,
        lines: vec![ReturnLine {
            accepted: units(1),
            ..ReturnLine::default()
        }],
        ..ReturnEvent::default()
    }
    .into()
}

fn refund(version: i64, status: RefundStatus, seconds: i64) -> Event {
    RefundEvent {
        meta: meta(
            "crossdock/refund-gate",
            "RefundEvent",
            &version.to_string(),
            seconds,
        ),
        order_id: ORDER.into(),
        refund_id: Uuid::from_u128(7),
        refund_version: version,
        status,
        return_id: Some("ret".into()),
        ..RefundEvent::default()
    }
    .into()
}

fn driven() -> Driven<SlaMonitor> {
    Driven::at(SlaMonitor::new(), ORDER, at(0))
}

/// How each clock stands, as it was told last.
fn stands(driven: &Driven<SlaMonitor>) -> BTreeMap<String, String> {
    let mut last = BTreeMap::new();
    for event in &driven.said {
        if let Event::SlaEvent(e) = event {
            last.insert(e.sla.to_string(), e.state.to_string());
        }
    }
    last
}

fn expect(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect()
}

#[test]
fn whatever_the_order_repetition_and_lateness_the_verdicts_are_those_of_the_facts() {
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        // When things happened decides, not when they were told.
        let accepted = random.random_range(1..10 * MINUTE);
        let marketplace = random.random_bool(0.5);
        let limit = if marketplace { 15 } else { 5 } * MINUTE;
        let left = random.random_range(HOUR..96 * HOUR);
        let promise = 48 * HOUR;
        let submitted = random.random_range(1..3 * HOUR);
        let paid = random.random_range(1..14 * 24) * HOUR;
        let came = 100 * HOUR;
        let channel = if marketplace {
            ChannelType::Marketplace
        } else {
            ChannelType::Web
        };
        let facts = [
            told(OrderEventType::Placed, 0, channel),
            told(OrderEventType::Accepted, accepted, channel),
            state(1, OrderStatus::Placed, Some(promise), 0),
            state(2, OrderStatus::Shipped, Some(promise), left),
            inspected(came),
            refund(1, RefundStatus::Submitted, came + submitted),
            refund(2, RefundStatus::Completed, came + submitted + paid),
        ];
        let mut facts: Vec<(i64, Event)> = facts
            .into_iter()
            .map(|fact| (random.random_range(0..600 * HOUR), fact))
            .collect();
        let again = twice(&facts, &mut random);
        facts.extend(again);
        let mut monitor = driven();
        deliver(&mut monitor, facts);
        monitor.pass(hours(24));
        let verdict = |in_time: bool| if in_time { "MET" } else { "RECOVERED" };
        // 1,700,000,000 s is a Tuesday evening: four days and some hours later it is a Sunday. Count
        // business days by hand, a day at a time.
        let start = came + submitted;
        let (mut due, mut days) = (start, 0);
        while days < 5 {
            due += 24 * HOUR;
            let weekday = ((1_700_000_000 + due).div_euclid(86_400) + 4) % 7;
            if weekday != 0 && weekday != 6 {
                days += 1;
            }
        }
        let expected = expect(&[
            ("order-acknowledgement", verdict(accepted <= limit)),
            ("promise", verdict(left <= promise)),
            ("refund-submission", verdict(submitted <= HOUR)),
            ("refund-completion", verdict(start + paid <= due)),
        ]);
        assert_eq!(stands(&monitor), expected, "seed {seed}");
        assert!(monitor.codes().is_empty(), "seed {seed}: all is over");
        assert!(monitor.refused.is_empty(), "seed {seed}");
    }
}

#[test]
fn a_clock_alarms_by_itself_and_is_over_when_the_fact_comes() {
    let mut monitor = driven();
    monitor.send(vec![
        told(OrderEventType::Placed, 0, ChannelType::Web),
        state(1, OrderStatus::Placed, Some(100 * HOUR), 0),
    ]);
    let acknowledged = |m: &Driven<SlaMonitor>| stands(m)["order-acknowledgement"].clone();
    assert_eq!(acknowledged(&monitor), "STARTED");
    monitor.pass(Duration::from_secs(4 * 60));
    assert_eq!(acknowledged(&monitor), "AT_RISK", "70 % are over");
    monitor.pass(Duration::from_secs(2 * 60));
    assert_eq!(acknowledged(&monitor), "BREACHED");
    monitor.one(told(OrderEventType::Accepted, 290, ChannelType::Web));
    assert_eq!(acknowledged(&monitor), "MET", "told late, but in time");
    monitor.pass(hours(71));
    assert_eq!(monitor.codes(), ["PROMISE_AT_RISK"]);
    monitor.pass(hours(40));
    assert_eq!(stands(&monitor)["promise"], "BREACHED");
    assert_eq!(monitor.codes(), ["PROMISE_AT_RISK"], "one case");
    monitor.one(state(2, OrderStatus::Shipped, Some(100 * HOUR), 111 * HOUR));
    assert_eq!(stands(&monitor)["promise"], "RECOVERED");
    assert!(monitor.codes().is_empty());
}

#[test]
fn an_order_that_is_cancelled_has_nothing_to_wait_for_and_is_forgotten() {
    let mut monitor = driven();
    monitor.send(vec![
        told(OrderEventType::Placed, 0, ChannelType::Web),
        state(1, OrderStatus::Placed, Some(HOUR), 0),
    ]);
    monitor.one(state(2, OrderStatus::Cancelled, Some(HOUR), 60));
    let over = expect(&[
        ("order-acknowledgement", "CANCELLED"),
        ("promise", "CANCELLED"),
    ]);
    assert_eq!(stands(&monitor), over);
    monitor.pass(hours(24 * 31));
    assert!(monitor.state.0.is_empty(), "nothing is kept for ever");
}
