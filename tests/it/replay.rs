//! Replay: only what was asked for, only what differs, through the one that owns the key, whatever goes wrong.

use crate::door::{Door, Says, Visitor, send_level, send_refund, settings, visit};
use crate::world::{FAULTS, SINK, World};
use crossdock::contract::event::*;
use crossdock::contract::{Catalogue, topic};
use crossdock::dlq::Actor;
use crossdock::log::{Admin, Log};
use crossdock::pipeline::{
    Ack, Capabilities, Clock, Code, Delivery, Fault, Idempotency, Inbound, Sink, Stage, rehearsal,
};
use crossdock::replay::{Ask, Candidate, Ended, Judged, Refusal, Sender, Target, Verdict};
use crossdock::runtime::SinkTask;
use crossdock::verify;
use futures::executor::block_on;
use rand::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LEVELS: &[&str] = &[topic::STOCK_ATS];
/// The longest that a transaction may stay open.
const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(61);
const REFUNDS: &[&str] = &[topic::REFUND_EVENT];

/// A shop that shows a level for each key, and is looked at before it is changed.
#[derive(Default)]
struct Shelf {
    shows: Mutex<BTreeMap<Text, i64>>,
    /// What was set, in order.
    set: Mutex<Vec<(Text, i64)>>,
    away: Mutex<bool>,
    refuses: Mutex<Option<Text>>,
}

struct Shop(Arc<Shelf>);

impl Shop {
    fn put(&self, delivery: &Delivery) -> Result<Ack, Fault> {
        let shelf = &self.0;
        let Event::AvailabilityChanged(e) = &delivery.inbound.event else {
            panic!("not for a shop");
        };
        if *shelf.away.lock().expect("whole") {
            let words = "it cannot be reached";
            return Err(Fault::retry(Stage::Write, Code::Unavailable, words));
        }
        let ack = |outcome| Ack {
            outcome,
            version: e.ats_version,
            external_id: None,
            digest: None,
            status: None,
        };
        let shown = shelf
            .shows
            .lock()
            .expect("whole")
            .get(&delivery.key)
            .copied();
        if shown == Some(e.ats_version) {
            return Ok(ack(SinkOutcome::DuplicateAcked));
        }
        rehearsal::tell(|| {
            format!(
                "{}: {} → {}",
                delivery.key,
                shown.unwrap_or(0),
                e.ats_version
            )
        });
        rehearsal::hold(|| "set".to_owned())?;
        if shelf.refuses.lock().expect("whole").as_ref() == Some(&delivery.key) {
            return Err(Fault::reject(
                Stage::Write,
                Code::Refused,
                "sold out for good",
            ));
        }
        let mut shows = shelf.shows.lock().expect("whole");
        shows.insert(delivery.key.clone(), e.ats_version);
        let mut set = shelf.set.lock().expect("whole");
        set.push((delivery.key.clone(), e.ats_version));
        Ok(ack(SinkOutcome::Acked))
    }
}

#[async_trait::async_trait]
impl Sink for Shop {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            idempotency: Idempotency::AbsoluteValue,
            compare_and_set: false,
            batch_records_max: 1,
            calls_max: 8,
        }
    }
    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        batch.iter().map(|delivery| self.put(delivery)).collect()
    }
    fn looks_first(&self, _: &Inbound) -> bool {
        true
    }
}

fn shop(world: &World, shelf: &Arc<Shelf>, slot: &str) -> SinkTask {
    SinkTask::new(
        SINK,
        LEVELS,
        Arc::new(Shop(shelf.clone())),
        world.port(),
        world.clock.clone(),
        world.cold_codec(),
        Catalogue::compiled(),
        world.telemetry.clone(),
        settings(slot),
    )
    .expect("a task")
}

fn run(world: &World, tasks: &mut [SinkTask], rounds: usize) {
    for _ in 0..rounds {
        world.advance(Duration::from_millis(200));
        for task in tasks.iter_mut() {
            let _ = block_on(task.step(Duration::ZERO));
        }
    }
}

fn sku(name: &str) -> Ask {
    Ask {
        sku: Some(name.to_owned()),
        ..Ask::default()
    }
}

fn target(world: &World, sink: &Arc<dyn Sink>, topics: &[&str]) -> Target {
    Target {
        log: world.port(),
        codec: world.codec.clone(),
        catalogue: Catalogue::compiled(),
        application: "crossdock".to_owned(),
        name: SINK.to_owned(),
        topics: topics.iter().map(|t| (*t).to_owned()).collect(),
        sink: sink.clone(),
        writer: "replay".to_owned(),
    }
}

fn open(
    world: &World,
    sink: &Arc<dyn Sink>,
    topics: &[&str],
    ask: &Ask,
    run: &str,
    again: bool,
) -> Result<Result<Sender, Refusal>, Fault> {
    let actor = Actor {
        name: "ann".into(),
        reason: Some("somebody counted in the shop".into()),
    };
    let target = target(world, sink, topics);
    Sender::new(target, ask, actor, run, again, world.clock.now())
}

fn judged(sender: &mut Sender) -> Vec<(Judged, Candidate)> {
    std::iter::from_fn(|| block_on(sender.next()).expect("judged")).collect()
}

/// What each record would do, in the words that the operator reads.
fn words(all: &[(Judged, Candidate)]) -> Vec<String> {
    let of = |verdict: &Verdict| match verdict {
        Verdict::Changes { what } => what.clone(),
        Verdict::Unchanged { .. } => "unchanged".into(),
        Verdict::Unknown { .. } => "unknown".into(),
        Verdict::Left { code, .. } => (*code).to_owned(),
    };
    all.iter()
        .map(|(judged, _)| format!("{} {}", judged.key, of(&judged.verdict)))
        .collect()
}

fn balance(world: &World, topic: &str) {
    let log: Arc<dyn Log> = world.port();
    let readers = [(SINK.to_owned(), topic.to_owned())];
    let catalogue = Catalogue::compiled();
    let books = verify::ledger(&log, &world.codec, catalogue, "crossdock", &readers);
    let books = books.expect("books");
    assert!(books.balances(), "{books:?}");
    assert_eq!((books.in_flight, books.parked), (0, 0), "{books:?}");
}

#[test]
fn what_a_dry_run_says_is_what_happens_and_nothing_else_does() {
    let world = World::new();
    let shelf = Arc::new(Shelf::default());
    let mut tasks = vec![shop(&world, &shelf, "one")];
    for name in ["A", "B", "C"] {
        send_level(&world, name, 1);
        send_level(&world, name, 7);
    }
    run(&world, &mut tasks, 30);
    let before = world.records(topic::STOCK_ATS).len();
    // Somebody has changed the shop behind our back.
    shelf.shows.lock().expect("whole").insert("A|web".into(), 5);
    shelf.shows.lock().expect("whole").remove("B|web");
    shelf.set.lock().expect("whole").clear();
    let sink: Arc<dyn Sink> = Arc::new(Shop(shelf.clone()));
    let since = Ask {
        since: Some(crossdock::domain::Timestamp(0)),
        ..Ask::default()
    };
    let mut sender = open(&world, &sink, LEVELS, &since, "r1", false)
        .expect("answered")
        .expect("found");
    let all = judged(&mut sender);
    let mut said = words(&all);
    said.sort();
    assert_eq!(
        said,
        [
            "A|web A|web: 5 → 7",
            "B|web B|web: 0 → 7",
            "C|web unchanged"
        ]
    );
    assert_eq!(shelf.set.lock().expect("whole").len(), 0, "only looked at");
    // Only what was asked for.
    let mut of_a = open(&world, &sink, LEVELS, &sku("A"), "r1", false)
        .expect("answered")
        .expect("found");
    assert_eq!(words(&judged(&mut of_a)), ["A|web A|web: 5 → 7"]);

    let sent: Vec<_> = all
        .into_iter()
        .filter(|(j, _)| j.verdict.is_sent())
        .collect();
    sender.send(&sent, world.clock.now()).expect("sent");
    assert_eq!(sender.waiting(), 2);
    run(&world, &mut tasks, 30);
    let done = sender.hear(Duration::ZERO).expect("heard");
    assert_eq!(done.len(), 2, "{done:?}");
    assert!(
        done.iter().all(|d| matches!(d, Ended::Done { .. })),
        "{done:?}"
    );
    let mut set = shelf.set.lock().expect("whole").clone();
    set.sort();
    assert_eq!(set, [("A|web".into(), 7), ("B|web".into(), 7)]);
    // Nobody else heard of it, and the books are as before.
    assert_eq!(world.records(topic::STOCK_ATS).len(), before);
    balance(&world, topic::STOCK_ATS);
    let audits = world.events(topic::OPS_AUDIT);
    assert_eq!(audits.len(), 2);
    for audit in audits {
        let Event::Audit(a) = audit else {
            panic!("{audit:?} among the audits")
        };
        assert_eq!((&*a.actor, &*a.action), ("ann", "replay.send"));
        assert!(a.target.starts_with(topic::STOCK_ATS), "{a:?}");
    }
    let mut again = open(&world, &sink, LEVELS, &sku("A"), "r2", false)
        .expect("answered")
        .expect("found");
    assert_eq!(words(&judged(&mut again)), ["A|web unchanged"]);
}

#[test]
fn what_comes_meanwhile_waits_behind_it_and_an_older_state_never_wins() {
    let world = World::new();
    let shelf = Arc::new(Shelf::default());
    let mut tasks = vec![shop(&world, &shelf, "one")];
    send_level(&world, "A", 1);
    run(&world, &mut tasks, 30);
    shelf.shows.lock().expect("whole").clear();
    let sink: Arc<dyn Sink> = Arc::new(Shop(shelf.clone()));
    let mut sender = open(&world, &sink, LEVELS, &sku("A"), "r1", false)
        .expect("answered")
        .expect("found");
    let all = judged(&mut sender);
    assert_eq!(words(&all), ["A|web A|web: 0 → 1"]);
    // A newer level is read by the sink, and not taken yet, when the replay comes.
    *shelf.away.lock().expect("whole") = true;
    send_level(&world, "A", 2);
    run(&world, &mut tasks, 10);
    sender.send(&all, world.clock.now()).expect("sent");
    run(&world, &mut tasks, 20);
    *shelf.away.lock().expect("whole") = false;
    run(&world, &mut tasks, 2_000);
    assert_eq!(shelf.shows.lock().expect("whole")["A|web"], 2);
    sender.hear(Duration::ZERO).expect("heard");
    assert_eq!(sender.waiting(), 0);
    balance(&world, topic::STOCK_ATS);
    // What the sink has yet to come to is not sent twice.
    drop(tasks);
    send_level(&world, "A", 3);
    let mut late = open(&world, &sink, LEVELS, &sku("A"), "r2", false)
        .expect("answered")
        .expect("found");
    assert_eq!(words(&judged(&mut late)), ["A|web NOT_READ"]);
}

#[test]
fn an_older_state_never_goes_after_a_call_for_a_newer_one_that_is_under_way() {
    // Whether the newer one's first call is answered, or fails.
    for answers in [Says::Yes, Says::Away, Says::Lost] {
        let world = World::new();
        let door = Arc::new(Door::new(&world, |_| Says::Yes));
        let mut tasks = vec![visit(&world, &door, LEVELS, settings("one"))];
        send_level(&world, "A", 1);
        run(&world, &mut tasks, 30);
        let sink: Arc<dyn Sink> = Arc::new(Visitor(door.clone()));
        let mut sender = open(&world, &sink, LEVELS, &sku("A"), "r1", true)
            .expect("answered")
            .expect("found");
        let all = judged(&mut sender);
        assert_eq!(words(&all), ["A|web unknown"]);
        let mut first = Some(answers);
        door.now_says(move |(_, _, version)| match version {
            2 => first.take().unwrap_or(Says::Yes),
            _ => Says::Yes,
        });
        *door.takes.lock().expect("whole") = Duration::from_secs(5);
        send_level(&world, "A", 2);
        run(&world, &mut tasks, 5);
        assert!(tasks[0].is_calling());
        sender.send(&all, world.clock.now()).expect("sent");
        run(&world, &mut tasks, 200);
        let called: Vec<i64> = door.calls().iter().map(|call| call.of.2).collect();
        let twos = called.len() - 1;
        assert_eq!(called, [vec![1], vec![2; twos]].concat(), "{answers:?}");
        assert_eq!(
            door.by_key(topic::STOCK_ATS)["A|web"],
            [1, 2],
            "{answers:?}"
        );
        sender.hear(Duration::ZERO).expect("heard");
        assert_eq!(sender.waiting(), 0, "{answers:?}");
        balance(&world, topic::STOCK_ATS);
    }
}

#[test]
fn a_refusal_is_a_dead_letter_that_holds_nothing_up() {
    let world = World::new();
    let shelf = Arc::new(Shelf::default());
    let mut tasks = vec![shop(&world, &shelf, "one")];
    send_level(&world, "A", 1);
    run(&world, &mut tasks, 30);
    shelf.shows.lock().expect("whole").clear();
    *shelf.refuses.lock().expect("whole") = Some("A|web".into());
    let sink: Arc<dyn Sink> = Arc::new(Shop(shelf.clone()));
    let mut sender = open(&world, &sink, LEVELS, &sku("A"), "r1", false)
        .expect("answered")
        .expect("found");
    let all = judged(&mut sender);
    sender.send(&all, world.clock.now()).expect("sent");
    run(&world, &mut tasks, 30);
    let ended = sender.hear(Duration::ZERO).expect("heard");
    let [Ended::Refused { why, letter, .. }] = &*ended else {
        panic!("{ended:?}");
    };
    assert!(why.contains("sold out for good"), "{why}");
    assert!(letter.starts_with("retail.rt.shop.dlq.v1["), "{letter}");
    *shelf.refuses.lock().expect("whole") = None;
    send_level(&world, "A", 2);
    run(&world, &mut tasks, 30);
    assert_eq!(shelf.shows.lock().expect("whole")["A|web"], 2);
    balance(&world, topic::STOCK_ATS);
}

#[test]
fn what_cannot_be_replayed_is_refused_with_its_remedy() {
    let world = World::new();
    let shelf = Arc::new(Shelf::default());
    let sink: Arc<dyn Sink> = Arc::new(Shop(shelf.clone()));
    let refused = |ask: &Ask, topics: &[&str]| {
        let sender = open(&world, &sink, topics, ask, "r1", false).expect("answered");
        sender.err().expect("refused").to_string()
    };
    let now = world.clock.now();
    let backwards = Ask {
        since: Some(now),
        until: Some(now.plus(Duration::ZERO)),
        ..Ask::default()
    };
    let why = refused(&backwards, LEVELS);
    assert!(why.contains("before it begins"), "{why}");
    let order = Ask {
        order: Some("1001".into()),
        ..Ask::default()
    };
    let why = refused(&order, REFUNDS);
    assert!(why.contains("nothing of order 1001 stands in"), "{why}");
    let why = refused(&sku("A"), REFUNDS);
    assert!(why.contains("takes nothing that is kept by SKU"), "{why}");
    // Retention has removed what was written first.
    let small = BTreeMap::from([("retention.bytes".to_owned(), "2000".to_owned())]);
    world
        .log
        .alter(topic::REFUND_EVENT, &small)
        .expect("altered");
    for version in 1..200 {
        world.advance(Duration::from_secs(60));
        send_refund(&world, "1001", version);
    }
    let ask = Ask {
        since: Some(now),
        ..Ask::default()
    };
    let why = refused(&ask, REFUNDS);
    assert!(why.contains("past its retention"), "{why}");
    assert!(why.contains("begins at offset"), "{why}");
    assert!(why.contains("ask with --since"), "{why}");
    // What is left can be asked for.
    let late = Ask {
        since: Some(world.clock.now().minus(Duration::from_secs(61))),
        ..Ask::default()
    };
    let sender = open(&world, &sink, REFUNDS, &late, "r1", false).expect("answered");
    assert!(sender.is_ok());
}

#[test]
fn money_that_has_gone_on_is_not_asked_for_again() {
    let world = World::new();
    let door = Arc::new(Door::new(&world, |_| Says::Yes));
    let mut tasks = vec![visit(&world, &door, REFUNDS, settings("one"))];
    for version in 1..=3 {
        send_refund(&world, "order-1", version);
    }
    run(&world, &mut tasks, 30);
    let sink: Arc<dyn Sink> = Arc::new(Visitor(door.clone()));
    let ask = Ask {
        order: Some("order-1".into()),
        ..Ask::default()
    };
    let mut sender = open(&world, &sink, REFUNDS, &ask, "r1", true)
        .expect("answered")
        .expect("found");
    let said = words(&judged(&mut sender));
    assert_eq!(
        said,
        [
            "order-1 SUPERSEDED",
            "order-1 SUPERSEDED",
            "order-1 unknown"
        ]
    );
}

#[test]
fn whatever_goes_wrong_the_target_ends_up_right_and_each_record_is_sent_once() {
    for seed in 0..40 {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let world = World::new();
        let shelf = Arc::new(Shelf::default());
        let mut slots = 1;
        let mut tasks = vec![shop(&world, &shelf, "s0")];
        for number in 0..20 {
            send_level(&world, &format!("S{number}"), 1);
        }
        run(&world, &mut tasks, 60);
        shelf.shows.lock().expect("whole").clear();
        let sink: Arc<dyn Sink> = Arc::new(Shop(shelf.clone()));
        let ask = Ask {
            since: Some(crossdock::domain::Timestamp(0)),
            ..Ask::default()
        };
        // Replays of one name, each ended by a fault or in the middle, until one has nothing left to do.
        let mut version = 1;
        let mut said = Vec::new();
        for round in 0..60 {
            assert!(round < 59, "seed {seed}: no replay ever ends: {said:?}");
            // Then nothing more goes wrong than what was to come already, what waits has time to be tried, and
            // all that differs is sent.
            let is_calm = round > 30;
            if is_calm {
                run(&world, &mut tasks, 300);
            }
            if !is_calm && random.random_bool(0.5) {
                world
                    .log
                    .inject(*FAULTS.choose(&mut random).expect("a fault"));
            }
            match random.random_range(0..12) + 12 * i32::from(is_calm) {
                0 => world.log.expire("crossdock.shop", "member-"),
                1 => {
                    tasks = vec![shop(&world, &shelf, &format!("s{slots}"))];
                    slots += 1;
                }
                2 => {
                    *shelf.away.lock().expect("whole") = true;
                    run(&world, &mut tasks, 10);
                    *shelf.away.lock().expect("whole") = false;
                }
                3 if round < 20 => {
                    version += 1;
                    send_level(&world, &format!("S{}", random.random_range(0..20)), version);
                }
                _ => {}
            }
            run(&world, &mut tasks, random.random_range(0..10));
            // What was left open in the log by one that ended is over, or nobody reads past it.
            world.advance(TRANSACTION_TIME_MAX);
            let opened = open(&world, &sink, LEVELS, &ask, &format!("r{round}"), false);
            let Ok(Ok(mut sender)) = opened else { continue };
            let all = judged(&mut sender);
            said = words(&all);
            if is_calm && said.iter().all(|words| words.ends_with("unchanged")) {
                break;
            }
            let some = match is_calm {
                true => all.len(),
                false => random.random_range(0..=all.len()),
            };
            let sent = all.into_iter().take(some);
            let sent: Vec<_> = sent.filter(|(j, _)| j.verdict.is_sent()).collect();
            let _ = sender.send(&sent, world.clock.now());
        }
        run(&world, &mut tasks, 3_000);
        let newest: BTreeMap<Text, i64> = world
            .events(topic::STOCK_ATS)
            .into_iter()
            .map(|event| match event {
                Event::AvailabilityChanged(e) => (format!("{}|web", e.sku).into(), e.ats_version),
                other => panic!("{other:?}"),
            })
            .collect();
        let shows = shelf.shows.lock().expect("whole").clone();
        assert_eq!(shows, newest, "seed {seed}");
        assert_eq!(
            tasks.iter().map(SinkTask::parked_keys).sum::<usize>(),
            0,
            "seed {seed}"
        );
        balance(&world, topic::STOCK_ATS);
    }
}

#[test]
fn one_that_cannot_look_goes_by_its_receipts_and_a_replay_goes_on_under_its_name() {
    let world = World::new();
    let door = Arc::new(Door::new(&world, |_| Says::Yes));
    let mut tasks = vec![visit(&world, &door, LEVELS, settings("one"))];
    for name in ["A", "B"] {
        send_level(&world, name, 1);
    }
    run(&world, &mut tasks, 30);
    let sink: Arc<dyn Sink> = Arc::new(Visitor(door.clone()));
    let since = Ask {
        since: Some(crossdock::domain::Timestamp(0)),
        ..Ask::default()
    };
    let open = |run: &str, again: bool| {
        let sender = open(&world, &sink, LEVELS, &since, run, again);
        sender.expect("answered").expect("found")
    };
    let mut said = words(&judged(&mut open("r0", false)));
    said.sort();
    assert_eq!(said, ["A|web unchanged", "B|web unchanged"]);
    let mut first = open("r1", true);
    let one = block_on(first.next()).expect("judged").expect("one");
    first.send(&[one], world.clock.now()).expect("sent");
    drop(first);
    let mut rest = open("r1", true);
    let all = judged(&mut rest);
    let mut said: Vec<&str> = all
        .iter()
        .map(|(j, _)| match &j.verdict {
            Verdict::Left { code, .. } => code,
            _ => "sent",
        })
        .collect();
    said.sort_unstable();
    // The first has not been taken yet, or is done already: it is not sent twice.
    assert_eq!(said, ["DONE", "sent"]);
    let sent: Vec<_> = all
        .into_iter()
        .filter(|(j, _)| j.verdict.is_sent())
        .collect();
    rest.send(&sent, world.clock.now()).expect("sent");
    let calls = door.calls().len();
    run(&world, &mut tasks, 60);
    let later: Vec<_> = door.calls().split_off(calls);
    assert_eq!(later.len(), 2, "{later:?}");
    assert!(later.iter().all(|call| call.in_doubt), "{later:?}");
    balance(&world, topic::STOCK_ATS);
}
