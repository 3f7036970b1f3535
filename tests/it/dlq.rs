//! Dead letters: what is shown of them, what is refused, and that each is redriven once and in order.

use crate::stock::sale;
use crate::world::{World, meta};
use crossdock::contract::event::*;
use crossdock::contract::{Catalogue, topic};
use crossdock::dlq::{self, Act, Actor, Change, Filter, Judge, Letter, Letters, Limits, Report};
use crossdock::domain::{Decimal, Timestamp};
use crossdock::pipeline::{Fault, Origin};
use crossdock::verify;
use std::cell::Cell;

const DEAD: &str = "retail.rt.stock-ledger.dlq.v1";

fn letters(world: &World) -> Letters<'_> {
    Letters {
        log: &world.log,
        codec: &world.codec,
        catalogue: Catalogue::compiled(),
        application: "crossdock",
    }
}

fn actor() -> Actor {
    Actor {
        name: "ann".into(),
        reason: Some("the scanner was set to returns".into()),
    }
}

fn open(world: &World, filter: &Filter) -> Vec<Letter> {
    let mut found = Vec::new();
    let listed = letters(world).list(filter, |listed| {
        found.push(listed.letter.clone());
        Ok::<(), Fault>(())
    });
    listed.expect("a list");
    found
}

/// Redrives, stopping once `stop` letters were told of.
fn redrive(world: &World, filter: &Filter, stop: usize, dry_run: bool) -> (Report, Vec<Act>) {
    let told = Cell::new(0);
    let mut acts = Vec::new();
    let limits = Limits {
        records_per_second: None,
        redrives_max: 3,
        dry_run,
        stop: &|| told.get() >= stop,
    };
    let report = dlq::redrive(&letters(world), filter, &actor(), limits, &mut |act| {
        told.set(told.get() + 1);
        acts.push(act.clone());
        Ok(())
    });
    (report.expect("a run"), acts)
}

fn refusal(act: &Act) -> (&'static str, &str) {
    let refused = act.refused.as_ref().expect("refused");
    (refused.code, &refused.why)
}

fn at(letter: &Letter) -> Filter {
    Filter {
        at: Some(letter.at.clone()),
        done: true,
        ..Filter::default()
    }
}

/// A dead letter that nobody had to die for.
fn write(world: &World, sku: &str, number: i64, redrives: i32) {
    let key = &*format!("{sku}|dc");
    let mut value = Vec::new();
    let event = sale(sku, "dc", number, 1).into();
    let encoded = world.codec.encode(topic::STOCK_CHANGE, &event, &mut value);
    encoded.expect("encoded");
    let letter = DeadLetter {
        meta: meta("DeadLetter", "test", &number.to_string(), number),
        original: Some(EventRef {
            topic: topic::STOCK_CHANGE.into(),
            partition: 0,
            offset: 1_000_000 + number,
            event_id: None,
        }),
        original_timestamp: Timestamp(1),
        key: Some(Blob::from(key.as_bytes())),
        value: Some(Blob::from(&value[..])),
        headers: [("trace".into(), Blob::from(&b"\x00\xff"[..]))].into(),
        processor: "stock-ledger".into(),
        code: "UNAVAILABLE".into(),
        redrive_count: redrives,
        ..DeadLetter::default()
    };
    world.send(DEAD, key, letter);
}

#[test]
fn a_letter_is_mended_redriven_once_and_accounted_for() {
    let world = World::new();
    let mut ledger = world.task("stock-ledger", "a");
    let mut broken = sale("A", "dc", 1, 1);
    broken.qty = Decimal::from(-1);
    world.send(topic::STOCK_CHANGE, "A|dc", broken);
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 2, 1));
    world.settle(&mut [&mut ledger]);
    let letter = open(&world, &Filter::default()).pop().expect("a letter");

    let (_, shown) = dlq::show(&letters(&world), &letter.at, 3)
        .expect("answered")
        .expect("found");
    assert_eq!(shown.line.code, "DATA_QUALITY");
    assert_eq!(shown.line.context["sku"], "A");
    assert_eq!(shown.event.as_ref().expect("an event")["qty"], "-1");
    assert_eq!(shown.records_behind, 1, "the sale behind it");
    assert!(shown.redrive_refused.is_some());

    // As it is it would fail again.
    let (report, acts) = redrive(&world, &at(&letter), usize::MAX, false);
    assert_eq!((report.done, report.refused), (0, 1));
    let (code, why) = refusal(&acts[0]);
    assert_eq!(code, "DATA_QUALITY");
    assert!(why.contains("crossdock dlq edit"), "{why}");

    // An edit that is none of the contract, or as bad as before, is refused.
    let change = |path: &str, value: &str| Change {
        fields: vec![(path.into(), value.into())],
        ..Change::default()
    };
    let catalogue = Catalogue::compiled();
    let mended =
        |change: &Change| dlq::mended(&letter, change, &world.codec, catalogue).expect("answered");
    for (path, value, words) in [
        ("quantity", "1", "there is no field quantity"),
        (
            "qty",
            "many",
            "it is no retail.stock.v1.StockChanged any more",
        ),
        ("reason", "GIFT", "unknown variant `GIFT`"),
    ] {
        let why = mended(&change(path, value)).expect_err("refused");
        assert!(why.contains(words), "{why}");
    }
    let as_bad = mended(&change("qty", "-2")).expect("of the contract");
    let all = letters(&world);
    let judge = Judge::new(&all, 3);
    let judged = judge.reads("stock-ledger", &as_bad.record, Timestamp(i64::MAX / 2));
    assert_eq!(
        judged.expect("answered").expect_err("refused").code,
        "DATA_QUALITY"
    );

    let good = mended(&change("qty", "1")).expect("of the contract");
    dlq::edit(&all, &letter, &good, &actor()).expect("edited");
    let (_, acts) = redrive(&world, &at(&letter), usize::MAX, false);
    assert_eq!(refusal(&acts[0]).0, "DONE");
    let successor = open(&world, &Filter::default())
        .pop()
        .expect("the mended letter");
    assert_ne!(successor.at, letter.at);

    // A dry run says what would happen, and nothing does.
    let before = world.records(topic::STOCK_CHANGE).len();
    let (report, acts) = redrive(&world, &Filter::default(), usize::MAX, true);
    assert_eq!(report.done, 1);
    assert_eq!(acts[0].to.as_deref(), Some(topic::STOCK_CHANGE));
    assert_eq!(world.records(topic::STOCK_CHANGE).len(), before);

    let (report, _) = redrive(&world, &Filter::default(), usize::MAX, false);
    assert_eq!((report.done, report.refused), (1, 0));
    world.settle(&mut [&mut ledger]);
    assert!(
        open(&world, &Filter::default()).is_empty(),
        "nothing is open any more"
    );
    let (_, acts) = redrive(&world, &at(&successor), usize::MAX, false);
    let (code, why) = refusal(&acts[0]);
    assert_eq!(code, "DONE");
    assert!(why.starts_with("ann has redriven it"), "{why}");

    // Every record has one outcome: of the original, that a later one stands for it.
    let readers = [("stock-ledger".to_owned(), topic::STOCK_CHANGE.to_owned())];
    let ledger = verify::ledger(
        &world.port(),
        &world.codec,
        catalogue,
        "crossdock",
        &readers,
    );
    let ledger = ledger.expect("the books");
    assert!(ledger.balances(), "{ledger:?}");
    let counts = (
        ledger.produced,
        ledger.applied,
        ledger.compensated,
        ledger.dead_lettered,
    );
    assert_eq!(counts, (3, 2, 1, 0));
    let audits: Vec<(String, String)> = world
        .events(topic::OPS_AUDIT)
        .into_iter()
        .map(|event| match event {
            Event::Audit(a) => (a.actor.into(), a.action.into()),
            other => panic!("{other:?} among the audits"),
        })
        .collect();
    let ann = |action: &str| ("ann".to_owned(), action.to_owned());
    assert_eq!(audits, [ann("dlq.edit"), ann("dlq.redrive")]);
}

#[test]
fn a_run_that_is_interrupted_goes_on_where_it_ended_and_keeps_the_order_of_each_key() {
    let world = World::new();
    for number in 1..=1_000 {
        write(&world, &format!("S{}", number % 7), number, 0);
    }
    let mut stops = 0;
    loop {
        let (report, _) = redrive(&world, &Filter::default(), 150, false);
        if !report.stopped {
            break;
        }
        stops += 1;
        assert!(stops < 100, "no run ever ends");
    }
    assert!(stops >= 2, "{stops} interruptions");
    let mut last = std::collections::BTreeMap::new();
    let mut count = 0;
    for record in world.records(topic::STOCK_CHANGE) {
        assert_eq!(record.headers.text("crossdock-redrives"), Some("1"));
        let kept = record.headers.iter().find(|(name, _)| *name == "trace");
        assert_eq!(kept, Some(("trace", Some(&b"\x00\xff"[..]))));
        let Ok(Event::StockChanged(e)) = world.codec.decode(&record) else {
            panic!("not a change")
        };
        let before = last.insert(record.key.clone(), e.meta.source_position);
        assert!(
            before.is_none_or(|b| b < e.meta.source_position),
            "out of order"
        );
        count += 1;
    }
    assert_eq!(count, 1_000, "each once");
    assert!(open(&world, &Filter::default()).is_empty());
}

#[test]
fn what_cannot_be_redriven_is_refused_with_its_remedy_and_its_neighbours_go() {
    let world = World::new();
    write(&world, "A", 1, 3);
    // Written with a schema that no registry has any more.
    let mut ledger = world.task("stock-ledger", "a");
    let unknown = [&[0][..], &999_999u32.to_be_bytes(), b"x"].concat();
    world.send_raw(topic::STOCK_CHANGE, Some(b"B|dc"), Some(&unknown));
    world.settle(&mut [&mut ledger]);
    let from_source = DeadLetter {
        meta: meta("DeadLetter", "till", "file", 1),
        source_origin: Some(SourceOrigin {
            system: "till".into(),
            container: "sales.csv".into(),
            item: "7".into(),
        }),
        value: Some(Blob::from(&b"a;b"[..])),
        processor: "till".into(),
        code: "MALFORMED".into(),
        ..DeadLetter::default()
    };
    world.send("retail.rt.till.dlq.v1", "sales.csv:7", from_source);
    write(&world, "A", 2, 0);
    let (report, acts) = redrive(&world, &Filter::default(), usize::MAX, false);
    assert_eq!((report.done, report.refused), (1, 3));
    let refused: Vec<(&str, &str)> = acts
        .iter()
        .filter(|a| a.refused.is_some())
        .map(refusal)
        .collect();
    for (code, remedy) in [
        ("LOOP", "--redrives-max"),
        ("UNKNOWN_SCHEMA_ID", "registry"),
        ("FROM_SOURCE", "till sales.csv:7"),
    ] {
        let found = refused.iter().find(|(c, _)| *c == code);
        assert!(
            found.is_some_and(|(_, why)| why.contains(remedy)),
            "{refused:?}"
        );
    }
    // What a source could not read is shown as it stood there.
    let filter = Filter {
        code: Some("MALFORMED".into()),
        ..Filter::default()
    };
    let letter = open(&world, &filter).pop().expect("a letter");
    let (_, shown) = dlq::show(&letters(&world), &letter.at, 3)
        .expect("answered")
        .expect("found");
    assert_eq!(shown.line.original, "till sales.csv:7");
    assert_eq!(shown.source_text.as_deref(), Some("a;b"));
    // Put aside, they are open no more.
    let limits = Limits {
        records_per_second: None,
        redrives_max: 3,
        dry_run: false,
        stop: &|| false,
    };
    let done = dlq::discard(&letters(&world), &filter, &actor(), limits, &mut |_| Ok(()));
    assert_eq!(done.expect("done").done, 1);
    assert_eq!(open(&world, &Filter::default()).len(), 2);
}

#[test]
fn an_older_state_is_not_sent_over_a_newer_one() {
    let world = World::new();
    let state = |version: i64| AvailabilityChanged {
        meta: meta("AvailabilityChanged", "ats", &version.to_string(), version),
        sku: "A".into(),
        channel_id: "web".into(),
        ats_version: version,
        ..AvailabilityChanged::default()
    };
    for version in [1, 2] {
        world.send(topic::STOCK_ATS, "A|web", state(version));
    }
    let states = world.records(topic::STOCK_ATS);
    for (record, redrives) in [(&states[0], 0), (&states[1], 3), (&states[1], 0)] {
        let letter = DeadLetter {
            meta: meta("DeadLetter", "shop", &record.origin.to_string(), 1),
            original: Some(EventRef {
                topic: topic::STOCK_ATS.into(),
                partition: record.origin.partition,
                offset: record.origin.offset,
                event_id: None,
            }),
            key: record.key.as_deref().map(Blob::from),
            value: record.value.as_deref().map(Blob::from),
            processor: crate::world::SINK.into(),
            code: "REFUSED".into(),
            redrive_count: redrives,
            ..DeadLetter::default()
        };
        world.send("retail.rt.shop.dlq.v1", "A|web", letter);
    }
    let all = open(&world, &Filter::default());
    let judge = |letter: &Letter| {
        let of = letters(&world);
        Judge::new(&of, 3)
            .redriven(letter, Timestamp(0))
            .expect("answered")
    };
    assert_eq!(judge(&all[0]).expect_err("refused").code, "SUPERSEDED");
    assert!(judge(&all[2]).is_ok(), "the newest may be tried again");
    // Of states the newest goes on without those that are left, as it does in the sink.
    let (report, acts) = redrive(&world, &Filter::default(), usize::MAX, false);
    assert_eq!((report.done, report.refused), (1, 2));
    let codes: Vec<&str> = acts[..2].iter().map(|a| refusal(a).0).collect();
    assert_eq!(codes, ["SUPERSEDED", "LOOP"]);
}

#[test]
fn a_sinks_letter_waits_for_an_earlier_one_of_its_key_that_is_left() {
    let world = World::new();
    for version in [1, 2] {
        crate::door::send_refund(&world, "o", version);
    }
    for (record, redrives) in world.records(topic::REFUND_EVENT).iter().zip([3, 0]) {
        let letter = DeadLetter {
            meta: meta("DeadLetter", "shop", &record.origin.to_string(), 1),
            processor: crate::world::SINK.into(),
            code: "REFUSED".into(),
            redrive_count: redrives,
            ..crossdock::codec::letter_of(record)
        };
        world.send("retail.rt.shop.dlq.v1", "o", letter);
    }
    let (report, acts) = redrive(&world, &Filter::default(), usize::MAX, false);
    assert_eq!((report.done, report.refused), (0, 2));
    let codes: Vec<&str> = acts.iter().map(|a| refusal(a).0).collect();
    assert_eq!(codes, ["LOOP", "BEHIND"]);
    let second = open(&world, &Filter::default()).remove(1);
    let (report, _) = redrive(&world, &at(&second), usize::MAX, false);
    assert_eq!(report.done, 1, "chosen by its place");
}

#[test]
fn places_are_read_as_they_are_printed() {
    let origin = Origin {
        topic: DEAD.into(),
        partition: 3,
        offset: 17,
    };
    assert_eq!(dlq::place(&origin.to_string()), Ok(origin));
    assert!(
        dlq::place("17")
            .expect_err("none")
            .contains("topic[partition]@offset")
    );
}
