//! A sink on the embedded log, with everything that goes wrong between a record and its effect.

use crate::stock::settled;
use crate::world::{FAULTS, SINK, World, meta};
use crossdock::contract::event::*;
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::{Decimal, compound_key};
use crossdock::log::embedded::Injected;
use crossdock::pipeline::{Ack, Capabilities, Code, Delivery, Fault, Idempotency, Sink, Stage};
use crossdock::runtime::{Progress, SinkTask, TaskSettings};
use futures::executor::block_on;
use rand::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A storefront: what it shows, and what it does to its callers.
struct Storefront {
    shown: Mutex<BTreeMap<Text, Decimal>>,
    random: Mutex<StdRng>,
}

/// The storefront as one instance of the sink sees it.
struct Caller {
    storefront: Arc<Storefront>,
    under_way: Mutex<BTreeSet<Text>>,
}

/// Units that the storefront refuses for good.
const REFUSED: i32 = 13;

struct Pending(u32);

impl Future for Pending {
    type Output = ();
    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<()> {
        if self.0 == 0 {
            return std::task::Poll::Ready(());
        }
        self.0 -= 1;
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    }
}

#[async_trait::async_trait]
impl Sink for Caller {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            idempotency: Idempotency::AbsoluteValue,
            compare_and_set: false,
            batch_records_max: 1,
            calls_max: 4,
        }
    }

    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        let delivery = &batch[0];
        let Event::AvailabilityChanged(event) = &delivery.inbound.event else {
            panic!("not availability")
        };
        let first = self
            .under_way
            .lock()
            .expect("whole")
            .insert(delivery.key.clone());
        assert!(first, "two calls for {} at a time", delivery.key);
        let (turns, before, answer) = {
            let mut random = self.storefront.random.lock().expect("whole");
            let answer = random.random_range(0..10);
            (random.random_range(0..6), random.random_bool(0.5), answer)
        };
        let apply = || {
            let mut shown = self.storefront.shown.lock().expect("whole");
            shown.insert(delivery.key.clone(), event.ats);
        };
        let refused = event.ats == Decimal::from(REFUSED);
        if before && !refused {
            apply();
        }
        Pending(turns).await;
        if !before && !refused && answer != 0 {
            apply();
        }
        self.under_way.lock().expect("whole").remove(&delivery.key);
        let fault = |code, words| Fault::retry(Stage::Write, code, words);
        vec![match answer {
            _ if refused => Err(Fault::reject(Stage::Write, Code::Refused, "never")),
            0 => Err(fault(Code::Unavailable, "nothing was done")),
            1 => Err(fault(Code::OutcomeUnknown, "done, and not answered")),
            _ => Ok(Ack {
                outcome: SinkOutcome::Acked,
                version: event.ats_version,
                external_id: None,
                digest: Some(event.ats.to_string()),
                status: Some(200),
            }),
        }]
    }
}

fn task(world: &World, storefront: &Arc<Storefront>, slot: &str) -> SinkTask {
    let mut settings = TaskSettings::new(slot, 0);
    settings.static_membership = false;
    task_with(world, storefront, settings)
}

fn task_with(world: &World, storefront: &Arc<Storefront>, settings: TaskSettings) -> SinkTask {
    let caller = Caller {
        storefront: storefront.clone(),
        under_way: Mutex::default(),
    };
    SinkTask::new(
        SINK,
        &[topic::STOCK_ATS],
        Arc::new(caller),
        world.port(),
        world.clock.clone(),
        world.cold_codec(),
        Catalogue::compiled(),
        world.telemetry.clone(),
        settings,
    )
    .expect("a task")
}

fn availability(sku: &str, version: i64, units: i32) -> AvailabilityChanged {
    AvailabilityChanged {
        meta: meta(
            "AvailabilityChanged",
            "ats",
            &format!("{sku}@{version}"),
            version,
        ),
        sku: sku.into(),
        channel_id: "web".into(),
        ats_version: version,
        ats: Decimal::from(units),
        ..AvailabilityChanged::default()
    }
}

/// Steps until everything is committed and stays so for a few rounds: while a group forms, a round may
/// pass in which every member only waits for the others.
fn settle(world: &World, tasks: &mut [SinkTask], seed: u64) {
    let mut rounds = 0;
    for _ in 0..20_000 {
        world.advance(Duration::from_millis(50));
        let mut quiet = true;
        for task in tasks.iter_mut() {
            let progress = block_on(task.step(Duration::ZERO));
            let idle = matches!(progress, Ok(Progress::Idle { .. } | Progress::Unassigned));
            quiet &= idle && task.is_quiet() && !task.is_calling();
        }
        rounds = if quiet { rounds + 1 } else { 0 };
        if rounds == 5 {
            return;
        }
    }
    panic!("seed {seed}: the sink never came to rest");
}

#[test]
fn whatever_fails_at_whatever_moment_no_effect_is_lost_and_every_record_is_settled_once() {
    for seed in 0..60 {
        let world = World::new();
        let mut random = StdRng::seed_from_u64(seed);
        let storefront = Arc::new(Storefront {
            shown: Mutex::default(),
            random: Mutex::new(StdRng::seed_from_u64(seed + 1_000)),
        });
        let mut tasks = vec![task(&world, &storefront, "slot-0")];
        let (mut sent, mut poison, mut next) = (0, 0, 1);
        let mut last: BTreeMap<Text, (i64, i32)> = BTreeMap::new();
        for _ in 0..12 {
            for _ in 0..random.random_range(5..40) {
                let sku = format!("S{}", random.random_range(0..25));
                let key = compound_key(&[&sku, "web"]);
                if random.random_bool(0.03) {
                    world.send_raw(topic::STOCK_ATS, Some(key.as_bytes()), Some(b"\x07junk"));
                    poison += 1;
                } else {
                    let (version, units) = last.entry(key.clone()).or_default();
                    (*version, *units) = (*version + 1, random.random_range(0..40));
                    world.send(topic::STOCK_ATS, &key, availability(&sku, *version, *units));
                }
                sent += 1;
            }
            for _ in 0..random.random_range(5..60) {
                match random.random_range(0..20) {
                    0..5 => world
                        .log
                        .inject(*FAULTS.choose(&mut random).expect("a fault")),
                    5 => {
                        let down = random.random_bool(0.4);
                        world.registry.0.store(down, Ordering::SeqCst);
                    }
                    6 => world.log.expire("crossdock.shop", "member-"),
                    7 => world.advance(Duration::from_secs(31)),
                    8 if tasks.len() < 3 => {
                        tasks.push(task(&world, &storefront, &format!("slot-{next}")));
                        next += 1;
                    }
                    9 => {
                        // A crash, with calls under way.
                        let chosen = random.random_range(0..tasks.len());
                        drop(tasks.swap_remove(chosen));
                        if tasks.is_empty() {
                            tasks.push(task(&world, &storefront, &format!("slot-{next}")));
                            next += 1;
                        }
                    }
                    10 if tasks.len() > 1 => {
                        let chosen = random.random_range(0..tasks.len());
                        block_on(tasks.swap_remove(chosen).close(Duration::from_secs(5)));
                    }
                    _ => {}
                }
                let chosen = random.random_range(0..tasks.len());
                let _ = block_on(tasks[chosen].step(Duration::ZERO));
            }
        }
        world.registry.0.store(false, Ordering::SeqCst);
        settle(&world, &mut tasks, seed);
        let shown = storefront.shown.lock().expect("whole").clone();
        let mut refused = 0;
        for (key, (_, units)) in &last {
            if *units == REFUSED {
                refused += 1;
            } else {
                assert_eq!(
                    shown.get(key),
                    Some(&Decimal::from(*units)),
                    "seed {seed}: {key}"
                );
            }
        }
        let (count, outcomes) = settled(&world, SINK);
        assert_eq!(count, sent, "seed {seed}: every record is settled once");
        let letters = world.events("retail.rt.shop.dlq.v1");
        let mut places = BTreeSet::new();
        let mut bad = 0;
        for letter in letters {
            let Event::DeadLetter(letter) = letter else {
                panic!("not a dead letter")
            };
            bad += usize::from(*letter.code == *"BAD_MAGIC");
            let place = letter.original.expect("a place");
            assert!(
                places.insert((place.partition, place.offset)),
                "seed {seed}: {place:?} is dead-lettered twice"
            );
        }
        assert_eq!(
            bad, poison,
            "seed {seed}: each poisoned record has one dead letter"
        );
        assert_eq!(
            outcomes
                .get(&Outcome::DeadLettered)
                .copied()
                .unwrap_or_default(),
            places.len() as i64,
            "seed {seed}"
        );
        assert!(places.len() >= poison + refused, "seed {seed}");
    }
}

#[test]
fn a_record_whose_schema_cannot_be_looked_up_now_holds_back_nothing_but_its_partition() {
    let world = World::new();
    let storefront = Arc::new(Storefront {
        shown: Mutex::default(),
        random: Mutex::new(StdRng::seed_from_u64(1)),
    });
    let mut tasks = vec![task(&world, &storefront, "one")];
    world.send(topic::STOCK_ATS, "A|web", availability("A", 1, 1));
    settle(&world, &mut tasks, 0);
    // The schema of availability is known by now; another id is not, and the registry is away.
    world.registry.0.store(true, Ordering::SeqCst);
    let partition = |key: &str| crossdock::log::partition_for(key.as_bytes(), partitions(&world));
    world.send_raw(topic::STOCK_ATS, Some(b"A|web"), Some(&[0, 0, 0, 0, 99, 1]));
    let others: Vec<String> = (0..30)
        .map(|n| format!("B{n}"))
        .filter(|sku| partition(&format!("{sku}|web")) != partition("A|web"))
        .collect();
    for sku in &others {
        world.send(
            topic::STOCK_ATS,
            &format!("{sku}|web"),
            availability(sku, 1, 2),
        );
    }
    for _ in 0..2_000 {
        world.advance(Duration::from_millis(50));
        let _ = block_on(tasks[0].step(Duration::ZERO));
    }
    assert!(!others.is_empty());
    assert_eq!(
        storefront.shown.lock().expect("whole").len(),
        others.len() + 1
    );
    world.registry.0.store(false, Ordering::SeqCst);
    settle(&world, &mut tasks, 0);
    assert_eq!(
        world.events("retail.rt.shop.dlq.v1").len(),
        1,
        "now it is known to be unknown"
    );
}

fn partitions(world: &World) -> i32 {
    use crossdock::log::Admin;
    let topics = world.log.topics().expect("topics");
    let ats = topics.iter().find(|t| t.name == topic::STOCK_ATS);
    ats.expect("the topic").partitions
}

/// In a run of chaos a sink whose place in its group was taken during an outage told of the outage alone, step
/// after step, and was never made anew.
#[test]
fn a_sink_whose_place_is_taken_says_so_whatever_else_it_meets() {
    let world = World::new();
    let storefront = Arc::new(Storefront {
        shown: Mutex::default(),
        random: Mutex::new(StdRng::seed_from_u64(3)),
    });
    let make = || task_with(&world, &storefront, TaskSettings::new("one", 0));
    let mut former = make();
    world.send(topic::STOCK_ATS, "A|web", availability("A", 1, 1));
    world.log.inject(Injected::CommitLost);
    let failed = (0..200).any(|_| {
        world.advance(Duration::from_millis(50));
        block_on(former.step(Duration::ZERO)).is_err()
    });
    assert!(failed, "the commit was lost");
    let mut present = make();
    let _ = block_on(present.step(Duration::ZERO));
    let told: Vec<Code> = (0..3)
        .filter_map(|_| {
            // It cannot get what it needs to go on either.
            world.log.inject(Injected::Producer);
            block_on(former.step(Duration::ZERO)).err()
        })
        .map(|fault| fault.code)
        .collect();
    assert_eq!(told, [Code::Log, Code::NameTaken, Code::NameTaken]);
}

/// A storefront that takes fulfilments and refunds, and a refund only after the order was sent.
#[derive(Default)]
struct Counter {
    /// What was taken: topic, key and version.
    taken: Mutex<Vec<(String, Text, i64)>>,
    /// Versions that were last sent, as the calls were told.
    told: Mutex<Vec<(String, Option<i64>)>>,
}

#[async_trait::async_trait]
impl Sink for Counter {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            idempotency: Idempotency::NaturalKey,
            compare_and_set: false,
            batch_records_max: 1,
            calls_max: 4,
        }
    }

    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        let delivery = &batch[0];
        let version = match &delivery.inbound.event {
            Event::ShipmentState(e) => e.state_version,
            Event::RefundEvent(e) => e.refund_version,
            other => panic!("not for this sink: {}", other.contract()),
        };
        let of = delivery.inbound.record.origin.topic.to_string();
        let sent = delivery.sent.as_ref().map(|s| s.version);
        self.told.lock().expect("whole").push((of.clone(), sent));
        let mut taken = self.taken.lock().expect("whole");
        if of == topic::REFUND_EVENT && !taken.iter().any(|(t, ..)| t == topic::SHIPMENT_STATE) {
            let words = "the order has not been sent";
            return vec![Err(Fault::retry(Stage::Write, Code::Unavailable, words))];
        }
        taken.push((of, delivery.key.clone(), version));
        vec![Ok(Ack {
            outcome: SinkOutcome::Acked,
            version,
            external_id: None,
            digest: Some("sent".into()),
            status: None,
        })]
    }
}

#[test]
fn one_key_of_several_topics_has_a_line_and_a_receipt_in_each() {
    let world = World::new();
    let counter = Arc::new(Counter::default());
    let start = |slot: &str| {
        let mut settings = TaskSettings::new(slot, 0);
        settings.static_membership = false;
        let topics = &[topic::SHIPMENT_STATE, topic::REFUND_EVENT];
        let (sink, port, clock) = (counter.clone(), world.port(), world.clock.clone());
        let (codec, telemetry) = (world.cold_codec(), world.telemetry.clone());
        let catalogue = Catalogue::compiled();
        SinkTask::new(
            SINK, topics, sink, port, clock, codec, catalogue, telemetry, settings,
        )
        .expect("a task")
    };
    let refund = |version| RefundEvent {
        meta: meta("RefundEvent", "refund", &format!("r@{version}"), version),
        order_id: "o".into(),
        refund_version: version,
        ..RefundEvent::default()
    };
    let shipments = |version| ShipmentState {
        meta: meta("ShipmentState", "sent", &format!("s@{version}"), version),
        order_id: "o".into(),
        state_version: version,
        ..ShipmentState::default()
    };
    let mut tasks = vec![start("slot-0")];
    // What the refund waits for comes behind it, under the same key of another topic.
    world.send(topic::REFUND_EVENT, "o", refund(1));
    for _ in 0..50 {
        world.advance(Duration::from_millis(50));
        let _ = block_on(tasks[0].step(Duration::ZERO));
    }
    world.send(topic::SHIPMENT_STATE, "o", shipments(7));
    world.send(topic::REFUND_EVENT, "o", refund(2));
    settle(&world, &mut tasks, 0);
    let [refunds, states] =
        [topic::REFUND_EVENT, topic::SHIPMENT_STATE].map(|t| (t.to_owned(), Text::from("o")));
    let entry = |(t, key): &(String, Text), version| (t.clone(), key.clone(), version);
    assert_eq!(
        *counter.taken.lock().expect("whole"),
        [entry(&states, 7), entry(&refunds, 1), entry(&refunds, 2)],
        "no topic's record waits for one that waits for it, and each topic keeps its order"
    );
    // Whoever comes next knows what was sent of each.
    block_on(tasks.remove(0).close(Duration::from_secs(5)));
    counter.told.lock().expect("whole").clear();
    let mut tasks = vec![start("slot-1")];
    world.send(topic::SHIPMENT_STATE, "o", shipments(8));
    world.send(topic::REFUND_EVENT, "o", refund(3));
    settle(&world, &mut tasks, 0);
    let mut told = counter.told.lock().expect("whole").clone();
    told.sort();
    assert_eq!(told, [(refunds.0, Some(2)), (states.0, Some(7))]);
    let (count, _) = settled(&world, SINK);
    assert_eq!(count, 5);
}
