//! A sink of several topics: what comes before that on which it depends, the payment before its order,
//! waits for it, in its own order, parked where it takes long, and goes on by itself when it has come.

use crate::stock::settled;
use crate::world::{SINK, World, meta};
use crossdock::contract::event::*;
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::Timestamp;
use crossdock::pipeline::{
    Ack, Capabilities, Clock, Code, Delivery, Fault, Idempotency, Sink, Stage,
};
use crossdock::runtime::{Progress, SinkTask, TaskSettings};
use futures::executor::block_on;
use rand::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What reached a system that takes nothing of an order that it does not know.
#[derive(Default)]
struct Erp(Mutex<BTreeMap<String, Vec<String>>>);

#[async_trait::async_trait]
impl Sink for Erp {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            idempotency: Idempotency::NaturalKey,
            compare_and_set: false,
            batch_records_max: 1,
            calls_max: 4,
        }
    }

    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        let mut known = self.0.lock().expect("whole");
        let delivery = &batch[0];
        let of_order = known.get_mut(&*delivery.key);
        let said = match &delivery.inbound.event {
            Event::OrderEvent(_) => {
                known
                    .entry(delivery.key.to_string())
                    .or_default()
                    .push("order".into());
                Ok(())
            }
            Event::PaymentEvent(e) => match of_order {
                Some(taken) => {
                    taken.push(format!("payment {}", e.payment_version));
                    Ok(())
                }
                None => Err(Fault::retry(Stage::Write, Code::TooEarly, "no order")),
            },
            Event::ReturnEvent(e) => match of_order {
                Some(taken) => {
                    taken.push(format!("return {}", e.return_version));
                    Ok(())
                }
                None => Err(Fault::retry(Stage::Write, Code::TooEarly, "no order")),
            },
            other => panic!("{}", other.contract()),
        };
        vec![said.map(|()| Ack {
            outcome: SinkOutcome::Acked,
            version: 1,
            external_id: None,
            digest: None,
            status: None,
        })]
    }
}

fn task(world: &World, erp: &Arc<Erp>) -> SinkTask {
    let mut settings = TaskSettings::new("slot-0", 0);
    settings.static_membership = false;
    SinkTask::new(
        SINK,
        &[
            topic::ORDER_LIFECYCLE,
            topic::PAYMENT_EVENT,
            topic::RETURN_EVENT,
        ],
        erp.clone(),
        world.port(),
        world.clock.clone(),
        world.cold_codec(),
        Catalogue::compiled(),
        world.telemetry.clone(),
        settings,
    )
    .expect("a task")
}

/// Steps until everything is settled, or `until` the clock says so.
fn run(world: &World, task: &mut SinkTask, step: Duration, until: Timestamp) {
    let mut rounds = 0;
    while rounds < 5 && world.clock.now() < until {
        world.advance(step);
        let progress = block_on(task.step(Duration::ZERO)).expect("stepped");
        let idle = matches!(progress, Progress::Idle { .. });
        rounds = if idle && task.is_quiet() && !task.is_calling() {
            rounds + 1
        } else {
            0
        };
    }
}

#[test]
fn what_comes_too_early_waits_and_keeps_its_order() {
    for seed in 0..20 {
        let world = World::new();
        let mut random = StdRng::seed_from_u64(seed);
        let erp = Arc::new(Erp::default());
        let mut task = task(&world, &erp);
        // Four events of each order, those of a topic in their order, all else as it comes; of one order in
        // seven nobody ever tells.
        let orders: Vec<String> = (0..40).map(|n| format!("order-{n}")).collect();
        let told = |n: usize| !n.is_multiple_of(7);
        let mut lines: Vec<(usize, Vec<u8>)> = Vec::new();
        for n in 0..orders.len() {
            for (kind, count) in [(0_u8, usize::from(told(n))), (1, 2), (2, 2)] {
                lines.push((n, vec![kind; count]));
            }
        }
        let mut sent: BTreeMap<(usize, u8), i64> = BTreeMap::new();
        let mut total = 0;
        while !lines.is_empty() {
            let chosen = random.random_range(0..lines.len());
            let (n, rest) = &mut lines[chosen];
            let (n, Some(kind)) = (*n, rest.pop()) else {
                lines.swap_remove(chosen);
                continue;
            };
            let version = sent.entry((n, kind)).or_default();
            *version += 1;
            let (version, key) = (*version, orders[n].as_str());
            let record = format!("{key}/{kind}/{version}");
            match kind {
                0 => {
                    let event = OrderEvent {
                        meta: meta("OrderEvent", "shop", &record, version),
                        order_id: key.into(),
                        ..OrderEvent::default()
                    };
                    world.send(topic::ORDER_LIFECYCLE, key, event);
                }
                1 => {
                    let event = PaymentEvent {
                        meta: meta("PaymentEvent", "psp", &record, version),
                        order_id: key.into(),
                        payment_version: version,
                        ..PaymentEvent::default()
                    };
                    world.send(topic::PAYMENT_EVENT, key, event);
                }
                _ => {
                    let event = ReturnEvent {
                        meta: meta("ReturnEvent", "wms", &record, version),
                        order_id: key.into(),
                        return_version: version,
                        ..ReturnEvent::default()
                    };
                    world.send(topic::RETURN_EVENT, key, event);
                }
            }
            total += 1;
            if random.random_bool(0.3) {
                let _ = block_on(task.step(Duration::ZERO)).expect("stepped");
            }
        }
        // What can be taken is taken at once, whatever waits for ever.
        let soon = world.clock.now().plus(Duration::from_secs(5 * 60));
        run(&world, &mut task, Duration::from_millis(200), soon);
        for (n, key) in orders.iter().enumerate() {
            let known = erp.0.lock().expect("whole").get(key).cloned();
            if !told(n) {
                assert_eq!(known, None, "seed {seed}: {key}");
                continue;
            }
            let known = known.unwrap_or_else(|| panic!("seed {seed}: {key} never came"));
            assert_eq!(known.len(), 5, "seed {seed}: {key}: {known:?}");
            for kind in ["payment", "return"] {
                let of_kind: Vec<&String> = known.iter().filter(|k| k.starts_with(kind)).collect();
                let in_order = [format!("{kind} 1"), format!("{kind} 2")];
                assert!(
                    of_kind.into_iter().eq(&in_order),
                    "seed {seed}: {key}: {known:?}"
                );
            }
        }
        let late = world.clock.now().plus(Duration::from_secs(3_600));
        run(&world, &mut task, Duration::from_secs(5), late);
        let (count, outcomes) = settled(&world, SINK);
        assert_eq!(count, total, "seed {seed}: every record is settled once");
        let orphans: Vec<&String> = (0..orders.len())
            .filter(|n| !told(*n))
            .map(|n| &orders[n])
            .collect();
        let parked = outcomes.get(&Outcome::Parked).copied();
        assert_eq!(
            parked,
            Some(orphans.len() as i64 * 4),
            "seed {seed}: what waits for its order is named"
        );
        assert!(world.events("retail.rt.shop.dlq.v1").is_empty());
        // It goes on by itself once the order comes, be it to another instance.
        block_on(task.close(Duration::from_secs(5)));
        let mut task = self::task(&world, &erp);
        for key in &orphans {
            let event = OrderEvent {
                meta: meta("OrderEvent", "shop", &format!("{key}/0/1"), 1),
                order_id: key.as_str().into(),
                ..OrderEvent::default()
            };
            world.send(topic::ORDER_LIFECYCLE, key, event);
        }
        let soon = world.clock.now().plus(Duration::from_secs(60));
        while world.clock.now() < soon {
            world.advance(Duration::from_millis(100));
            let _ = block_on(task.step(Duration::ZERO)).expect("stepped");
        }
        let (_, outcomes) = settled(&world, SINK);
        assert_eq!(outcomes.get(&Outcome::Parked), None, "seed {seed}");
        for key in orphans {
            let known = erp.0.lock().expect("whole")[key].clone();
            for kind in ["payment", "return"] {
                let of_kind: Vec<&String> = known.iter().filter(|k| k.starts_with(kind)).collect();
                let in_order = [format!("{kind} 1"), format!("{kind} 2")];
                assert!(of_kind.into_iter().eq(&in_order), "seed {seed}: {known:?}");
            }
        }
    }
}
