//! Mirrors of the stock beside the authority's level.

use super::*;
use crossdock::processors::StockRecon;

const KEY: &str = "mug|store";
const MIRROR: &str = "old-erp";

fn level(version: i64, sellable: i64, seconds: i64) -> Event {
    StockLevel {
        meta: meta(
            "crossdock/stock-ledger",
            "StockLevel",
            &version.to_string(),
            seconds,
        ),
        sku: "mug".into(),
        location_id: "store".into(),
        level_version: version,
        sellable: units(sellable),
        as_of: at(seconds),
        confidence: Confidence::High,
        ..StockLevel::default()
    }
    .into()
}

fn count(sellable: i64, seconds: i64) -> Event {
    StockSnapshot {
        meta: meta(MIRROR, "StockSnapshot", &seconds.to_string(), seconds),
        snapshot_id: seconds.to_string().into(),
        sku: "mug".into(),
        location_id: "store".into(),
        basis: SnapshotBasis::OnHand,
        sellable: units(sellable),
        as_of_position: seconds,
        as_of: at(seconds),
        ..StockSnapshot::default()
    }
    .into()
}

fn driven() -> Driven<StockRecon> {
    Driven::at(StockRecon::new(), KEY, at(0))
}

fn corrections(driven: &Driven<StockRecon>) -> Vec<Correction> {
    let of = |e: &Event| match e {
        Event::Correction(c) => Some(c.clone()),
        _ => None,
    };
    driven.said.iter().filter_map(of).collect()
}

/// A day of trade: what was there from when on.
struct Trade(Vec<(i64, i64)>);

impl Trade {
    fn new(random: &mut StdRng) -> Trade {
        let (mut now, mut stock) = (0, random.random_range(80..400));
        let mut history = vec![(0, stock)];
        while now < 7 * HOUR {
            now += random.random_range(60..12 * MINUTE);
            stock += random.random_range(-3..=3);
            history.push((now, stock));
        }
        Trade(history)
    }
    fn at(&self, seconds: i64) -> i64 {
        let before = self.0.iter().rev().find(|(when, _)| *when <= seconds);
        before.unwrap_or(&self.0[0]).1
    }
    fn levels(&self) -> Vec<(i64, Event)> {
        let told = |(index, (when, stock)): (usize, &(i64, i64))| {
            (*when, level(index as i64 + 1, *stock, *when))
        };
        self.0.iter().enumerate().map(told).collect()
    }
}

#[test]
fn whatever_the_order_and_the_skew_only_a_drift_is_named_and_only_the_mirror_corrected() {
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let trade = Trade::new(&mut random);
        // Off in the last counts, in the first, in all, in the last alone, or never.
        let off: [bool; 4] = *[
            [false; 4],
            [true; 4],
            [false, false, true, true],
            [true, true, false, false],
            [true, true, true, false],
            [false, false, false, true],
        ]
        .choose(&mut random)
        .expect("one");
        let by = *[-30, 25, 60].choose(&mut random).expect("one");
        let mut events = trade.levels();
        let late = random.random_range(0..15 * MINUTE);
        for event in &mut events {
            // One writer, one partition: levels stay in order among themselves.
            event.0 += late;
        }
        for (number, off) in off.into_iter().enumerate() {
            let cut = (number as i64 + 1) * 90 * MINUTE;
            let skewed = cut + random.random_range(-5 * MINUTE..=5 * MINUTE);
            let said = trade.at(skewed) + if off { by } else { 0 };
            let told = cut + random.random_range(0..15 * MINUTE);
            events.push((told, count(said, cut)));
        }
        let again = twice(&events, &mut random);
        events.extend(again);
        let mut recon = driven();
        deliver(&mut recon, events);
        recon.pass(hours(1));
        let expected: &[&str] = match off[2] && off[3] {
            true => &["STOCK_DRIFT"],
            false => &[],
        };
        assert_eq!(recon.codes(), expected, "seed {seed}: {off:?} by {by}");
        assert!(recon.refused.is_empty(), "seed {seed}");
        let corrected = corrections(&recon);
        let twice_off = off.windows(2).any(|w| w == [true, true]);
        assert_eq!(!corrected.is_empty(), twice_off, "seed {seed}: {off:?}");
        assert!(corrected.len() <= 3, "seed {seed}: they end");
        for c in corrected {
            assert_eq!(c.target, MIRROR, "seed {seed}: never the authority");
            assert_eq!(c.kind, CorrectionKind::SetStock);
            let known: Vec<i64> = trade.0.iter().map(|(_, stock)| *stock).collect();
            let should = c.should.expect("a number").units() / 10_000;
            assert!(known.contains(&should), "seed {seed}: a level that was");
        }
    }
}

#[test]
fn a_correction_is_tried_three_times_an_hour_apart_and_then_a_person_looks() {
    let mut recon = driven();
    let mut events = vec![(0, level(1, 100, 0))];
    for hour in 0..12 {
        let cut = hour * HOUR + MINUTE;
        events.push((cut, count(140, cut)));
    }
    deliver(&mut recon, events);
    recon.pass(hours(1));
    let tried = corrections(&recon);
    let attempts: Vec<i32> = tried.iter().map(|c| c.attempt).collect();
    assert_eq!(attempts, [1, 2, 3]);
    assert_eq!(tried[0].shows, Some(units(140)));
    assert_eq!(tried[0].should, Some(units(100)));
    assert_eq!(recon.codes(), ["STOCK_DRIFT"]);
    deliver(&mut recon, vec![(14 * HOUR, count(100, 14 * HOUR))]);
    recon.pass(hours(1));
    assert!(recon.codes().is_empty(), "the mirror is right");
}

#[test]
fn a_mirror_that_is_far_off_is_not_corrected_by_itself() {
    let mut recon = driven();
    let events = vec![
        (0, level(1, 100, 0)),
        (HOUR, count(1_000, HOUR)),
        (2 * HOUR, count(1_000, 2 * HOUR)),
    ];
    deliver(&mut recon, events);
    recon.pass(hours(1));
    assert_eq!(recon.codes(), ["STOCK_DRIFT"]);
    assert!(corrections(&recon).is_empty());
}

#[test]
fn a_late_movement_closes_the_drift_that_its_absence_had_opened() {
    let mut recon = driven();
    let events = vec![
        (0, level(1, 100, 0)),
        // Thirty were sold at noon, which the mirror knows and the authority's till has not told.
        (HOUR, count(70, HOUR)),
        (2 * HOUR, level(2, 99, 2 * HOUR)),
        (3 * HOUR, count(69, 3 * HOUR)),
    ];
    deliver(&mut recon, events);
    recon.pass(hours(1));
    assert_eq!(recon.codes(), ["STOCK_DRIFT"]);
    // The level changes without a newer fact: what came in is older.
    deliver(&mut recon, vec![(5 * HOUR, level(3, 69, 2 * HOUR))]);
    assert!(recon.codes().is_empty());
}

#[test]
fn what_cannot_be_brought_to_one_cut_is_not_compared() {
    let mut recon = driven();
    let day = 24 * HOUR;
    let mut events = vec![(0, level(1, 100, 0)), (MINUTE, count(100, MINUTE))];
    for hour in 1..60 {
        let now = hour * HOUR;
        events.push((now, level(hour + 1, 100 - hour, now)));
    }
    deliver(&mut recon, events);
    // Told two days late: what was there then is not known any more.
    deliver(
        &mut recon,
        vec![
            (60 * HOUR, count(500, day - HOUR)),
            (60 * HOUR, count(500, day)),
        ],
    );
    recon.pass(hours(2));
    assert!(recon.codes().is_empty());
    assert!(recon.refused.is_empty() && !recon.outcomes.contains(&Outcome::Buffered));
    let net = StockSnapshot {
        basis: SnapshotBasis::AvailableNet,
        ..match count(1, 61 * HOUR) {
            Event::StockSnapshot(e) => e,
            _ => unreachable!(),
        }
    };
    assert_eq!(recon.one(net), Outcome::Applied, "nothing to compare");
}
