//! Orders beside what the channel and the ERP list, and lists beside their totals.

use super::*;
use crossdock::pipeline::Code;
use crossdock::processors::{ManifestSplit, OrderRecon};

const ORDER: &str = "7d0b6a52-0000-5000-8000-000000000001";

fn state(version: i64, status: OrderStatus, erp: &[&str], seconds: i64) -> Event {
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
        channel_id: "web".into(),
        currency: "EUR".into(),
        grand_total: units(50),
        lines: vec![LineState::default(); 2],
        erp_order_ids: erp.iter().map(|e| (*e).into()).collect(),
        ..OrderState::default()
    }
    .into()
}

/// One unit of the first line was cancelled.
fn reduced(state: Event) -> Event {
    let Event::OrderState(mut e) = state else {
        unreachable!()
    };
    e.lines[0].cancelled = units(1);
    e.into()
}

fn entry(role: SystemRole, external: &str, status: &str, amount: Decimal, until: i64) -> Event {
    let source = match role {
        SystemRole::Erp => "erp/main",
        _ => "shop/web",
    };
    ReconManifest {
        meta: meta(
            source,
            "ReconManifest",
            &format!("{external}/{until}"),
            until,
        ),
        manifest_id: until.to_string().into(),
        entity_type: "order".into(),
        role,
        window_end: at(until),
        chunks: 1,
        entries: vec![ManifestEntry {
            entity_key: ORDER.into(),
            external_id: Some(external.into()),
            status: Some(status.into()),
            amount: Some(amount),
            ..ManifestEntry::default()
        }],
        total_count: 1,
        ..ReconManifest::default()
    }
    .into()
}

fn driven() -> Driven<OrderRecon> {
    Driven::at(OrderRecon::new(), ORDER, at(0))
}

fn corrections(driven: &Driven<OrderRecon>) -> Vec<Correction> {
    let of = |e: &Event| match e {
        Event::Correction(c) => Some(c.clone()),
        _ => None,
    };
    driven.said.iter().filter_map(of).collect()
}

/// What is wrong in a world, and its facts, each with the time from which it could be told.
type World = (&'static [&'static str], Vec<(i64, Event)>);

/// Worlds by what is wrong in them: facts, each with the time from which it could be told.
fn worlds() -> Vec<World> {
    use OrderStatus::*;
    let fine = |status, until| entry(SystemRole::Erp, "S1", status, units(50), until);
    let shop = |status, until| entry(SystemRole::Channel, "W1", status, units(50), until);
    vec![
        (
            &[],
            vec![
                (0, state(1, Placed, &[], 0)),
                (60, state(2, Accepted, &["S1"], 60)),
                (HOUR, fine("ACCEPTED", HOUR)),
                (HOUR, shop("PLACED", HOUR)),
            ],
        ),
        // The list knows before the acceptance is told.
        (
            &[],
            vec![
                (0, state(1, Placed, &[], 0)),
                (HOUR, fine("ACCEPTED", HOUR)),
            ],
        ),
        (
            &["MISSING_IN_ERP"],
            vec![(0, state(1, Placed, &[], 0)), (HOUR, shop("PLACED", HOUR))],
        ),
        // Nobody waits for an order that is not to be supplied, or that somebody stopped.
        (
            &[],
            vec![
                (0, state(1, Placed, &[], 0)),
                (60, state(2, Cancelled, &[], 60)),
            ],
        ),
        (&[], vec![(0, state(1, OnHold, &[], 0))]),
        (
            &["DUPLICATE_IN_ERP"],
            vec![
                (0, state(1, Accepted, &["S1"], 0)),
                (HOUR, fine("ACCEPTED", HOUR)),
                (
                    HOUR,
                    entry(SystemRole::Erp, "S2", "ACCEPTED", units(50), HOUR),
                ),
            ],
        ),
        // One of the two is cancelled there.
        (
            &[],
            vec![
                (0, state(1, Accepted, &["S1"], 0)),
                (HOUR, fine("ACCEPTED", HOUR)),
                (
                    HOUR,
                    entry(SystemRole::Erp, "S2", "ACCEPTED", units(50), HOUR),
                ),
                (
                    2 * HOUR,
                    entry(SystemRole::Erp, "S2", "CANCELLED", units(50), 2 * HOUR),
                ),
            ]
            .into_iter()
            .filter(|(_, e)| !matches!(e, Event::OrderState(s) if s.state_version > 9))
            .collect(),
        ),
        (
            &["TOTAL_MISMATCH"],
            vec![
                (0, state(1, Accepted, &["S1"], 0)),
                (
                    HOUR,
                    entry(SystemRole::Erp, "S1", "ACCEPTED", units(49), HOUR),
                ),
            ],
        ),
        // Some systems take what was cancelled off their total; nobody may add to it.
        (
            &[],
            vec![
                (0, reduced(state(1, Accepted, &["S1"], 0))),
                (
                    HOUR,
                    entry(SystemRole::Erp, "S1", "ACCEPTED", units(30), HOUR),
                ),
            ],
        ),
        (
            &["TOTAL_MISMATCH"],
            vec![
                (0, reduced(state(1, Accepted, &["S1"], 0))),
                (
                    HOUR,
                    entry(SystemRole::Erp, "S1", "ACCEPTED", units(51), HOUR),
                ),
            ],
        ),
        // Two lines, two cents.
        (
            &[],
            vec![
                (0, state(1, Accepted, &["S1"], 0)),
                (
                    HOUR,
                    entry(
                        SystemRole::Erp,
                        "S1",
                        "ACCEPTED",
                        Decimal::from_units(499_800),
                        HOUR,
                    ),
                ),
            ],
        ),
        (
            &["STATUS_MISMATCH"],
            vec![
                (0, state(1, Accepted, &["S1"], 0)),
                (60, state(2, Cancelled, &["S1"], 60)),
                (HOUR, fine("ACCEPTED", HOUR)),
            ],
        ),
        // The list is from before the order changed: it cannot know.
        (
            &[],
            vec![
                (0, state(1, Accepted, &["S1"], 0)),
                (HOUR, fine("ACCEPTED", HOUR)),
                (2 * HOUR, state(2, Shipped, &["S1"], 2 * HOUR)),
            ],
        ),
        (&["ORPHAN"], vec![(HOUR, fine("ACCEPTED", HOUR))]),
        (&["MISSING_ORDER"], vec![(HOUR, shop("PLACED", HOUR))]),
    ]
}

#[test]
fn whatever_the_order_repetition_and_lateness_the_same_is_named_in_the_end() {
    for seed in 0..600 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut worlds = worlds();
        let pick = random.random_range(0..worlds.len());
        let (expected, facts) = worlds.swap_remove(pick);
        // Up to a quarter of an hour is usual; up to three days happens; beyond, it still counts.
        let most = *[15 * MINUTE, 72 * HOUR, 200 * HOUR]
            .choose(&mut random)
            .expect("one");
        let mut facts: Vec<(i64, Event)> = facts
            .into_iter()
            .map(|(when, event)| (when + random.random_range(0..most), event))
            .collect();
        let again = twice(&facts, &mut random);
        facts.extend(again);
        let mut recon = driven();
        deliver(&mut recon, facts);
        recon.pass(hours(1));
        assert_eq!(recon.codes(), expected, "seed {seed}, world {pick}");
        assert!(recon.refused.is_empty(), "seed {seed}");
        assert!(!recon.outcomes.contains(&Outcome::Buffered), "seed {seed}");
        let tried = corrections(&recon);
        assert!(
            tried.len() <= 6,
            "seed {seed}: corrections end: {}",
            tried.len()
        );
        for c in tried {
            match c.kind {
                CorrectionKind::ReplayOrder => assert_eq!(c.order_id.as_deref(), Some(ORDER)),
                CorrectionKind::CancelDuplicate => {
                    assert_eq!(
                        c.external_id.as_deref(),
                        Some("S2"),
                        "seed {seed}: the newest"
                    );
                }
                other => panic!("seed {seed}: {other}"),
            }
        }
    }
}

#[test]
fn what_the_erp_does_not_have_is_told_again_three_times_and_found_when_it_comes() {
    let mut recon = driven();
    recon.one(state(1, OrderStatus::Placed, &[], 0));
    recon.pass(Duration::from_secs(14 * 60));
    assert!(recon.codes().is_empty(), "an acceptance may be on its way");
    recon.pass(hours(10));
    assert_eq!(recon.codes(), ["MISSING_IN_ERP"]);
    let attempts: Vec<i32> = corrections(&recon).iter().map(|c| c.attempt).collect();
    assert_eq!(attempts, [1, 2, 3], "then a person looks");
    recon.one(state(2, OrderStatus::Accepted, &["S1"], HOUR));
    assert!(recon.codes().is_empty(), "the late fact closes it");
}

#[test]
fn an_order_that_left_is_not_the_one_to_cancel() {
    let mut recon = driven();
    let facts = vec![
        (0, state(1, OrderStatus::Shipped, &["S1"], 0)),
        (
            HOUR,
            entry(SystemRole::Erp, "S1", "ACCEPTED", units(50), HOUR),
        ),
        (
            HOUR,
            entry(SystemRole::Erp, "S2", "SHIPPED", units(50), HOUR),
        ),
    ];
    deliver(&mut recon, facts);
    recon.pass(hours(1));
    let cancelled: Vec<Option<Text>> = corrections(&recon)
        .into_iter()
        .map(|c| c.external_id)
        .collect();
    assert_eq!(cancelled.first(), Some(&Some("S1".into())));
    assert!(cancelled.iter().all(|c| c.as_deref() == Some("S1")));
}

#[test]
fn what_no_order_can_be_is_refused_with_its_code_and_touches_nothing() {
    let mut recon = driven();
    let bytes = recon.state.0.clone();
    let of = |change: &dyn Fn(&mut OrderState)| {
        let Event::OrderState(mut e) = state(1, OrderStatus::Placed, &[], 0) else {
            unreachable!()
        };
        change(&mut e);
        Event::from(e)
    };
    recon.one(of(&|e| e.order_id = "other".into()));
    recon.one(of(&|e| e.currency = "XYZ".into()));
    recon.one(of(&|e| e.status = OrderStatus::Unknown));
    recon.one(count_of_two());
    assert_eq!(
        recon.refused,
        [
            Code::WrongKey,
            Code::UnknownReference,
            Code::UnknownSymbol,
            Code::DataQuality
        ]
    );
    assert_eq!(recon.state.0, bytes);
}

fn count_of_two() -> Event {
    let Event::ReconManifest(mut e) = entry(SystemRole::Erp, "S1", "ACCEPTED", units(1), 0) else {
        unreachable!()
    };
    e.entries.push(ManifestEntry::default());
    e.into()
}

fn chunk(manifest: &str, chunk: i32, chunks: i32, orders: &[&str], total: i64) -> Event {
    ReconManifest {
        meta: meta(
            "erp/main",
            "ReconManifest",
            &format!("{manifest}/{chunk}"),
            0,
        ),
        manifest_id: manifest.into(),
        entity_type: "order".into(),
        role: SystemRole::Erp,
        chunk,
        chunks,
        entries: orders
            .iter()
            .map(|order| ManifestEntry {
                entity_key: (*order).into(),
                amount: Some(units(10)),
                ..ManifestEntry::default()
            })
            .collect(),
        total_count: total,
        total_amount: Some(units(10 * total)),
        ..ReconManifest::default()
    }
    .into()
}

#[test]
fn each_entry_goes_to_its_order_once_and_a_list_that_is_not_whole_is_named() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut chunks = vec![
            chunk("m1", 0, 3, &["a", "b"], 4),
            chunk("m1", 1, 3, &["c"], 4),
            chunk("m1", 2, 3, &["d"], 4),
            chunk("m2", 0, 1, &["e"], 1),
        ];
        let missing = random
            .random_bool(0.5)
            .then(|| chunks.remove(random.random_range(0..3)));
        let mut facts = chunks.clone();
        facts.extend(chunks.iter().filter(|_| random.random_bool(0.5)).cloned());
        facts.shuffle(&mut random);
        let mut split = Driven::at(ManifestSplit::new(), "erp/main|order", at(0));
        for fact in facts {
            split.one(fact);
            split.pass(Duration::from_secs(random.random_range(0..120)));
        }
        split.pass(hours(1));
        let expected: &[&str] = if missing.is_some() {
            &["MANIFEST_INCOMPLETE"]
        } else {
            &[]
        };
        assert_eq!(split.codes(), expected, "seed {seed}");
        if let Some(late) = missing {
            split.one(late);
            assert!(split.codes().is_empty(), "seed {seed}: whole at last");
        }
        let mut told: Vec<String> = split
            .said
            .iter()
            .filter_map(|e| match e {
                Event::ReconManifest(m) => Some(m.entries[0].entity_key.to_string()),
                _ => None,
            })
            .collect();
        told.sort();
        assert_eq!(told, ["a", "b", "c", "d", "e"], "seed {seed}");
    }
}

/// A system says that it has the order.
fn told(role: SystemRole, external: &str, seconds: i64) -> Event {
    let (source, r#type) = match role {
        SystemRole::Erp => ("erp/main", OrderEventType::Accepted),
        _ => ("shop/web", OrderEventType::Placed),
    };
    OrderEvent {
        meta: meta(source, "OrderEvent", external, seconds),
        r#type,
        order_id: ORDER.into(),
        erp_order_id: (role == SystemRole::Erp).then(|| external.into()),
        order: (role == SystemRole::Channel).then(|| OrderSnapshot {
            channel_order_id: external.into(),
            ..OrderSnapshot::default()
        }),
        ..OrderEvent::default()
    }
    .into()
}

/// The lists of `source` are whole from `since`, the newest from `last`, until `until`.
fn covered(source: &str, (since, last, until): (i64, i64, i64)) -> (String, Event) {
    let event = ListCoverage {
        meta: meta("crossdock/manifest-split", "ListCoverage", "1", until),
        list_source: source.into(),
        entity_type: "order".into(),
        coverage_version: 1,
        covered_since: at(since),
        last_since: at(last),
        covered_until: at(until),
    };
    (format!("{source}|order"), event.into())
}

/// What is wrong, what was told, and for which time the lists of both systems are whole.
type Listed = (&'static [&'static str], Vec<Event>, [(i64, i64, i64); 2]);

/// Worlds by what whole lists leave out, of an order that both systems said they have.
fn left_out() -> Vec<Listed> {
    let erp = |until| entry(SystemRole::Erp, "S1", "ACCEPTED", units(50), until);
    let shop = |until| entry(SystemRole::Channel, "W1", "PLACED", units(50), until);
    let (day, ever) = (24 * HOUR, -1_000 * HOUR);
    let hourly = (-HOUR, 3 * HOUR, 4 * HOUR);
    vec![
        (&[], vec![erp(HOUR), shop(HOUR)], [hourly, hourly]),
        (&["MISSING_IN_ERP"], vec![shop(HOUR)], [hourly, hourly]),
        (&["ORPHAN"], vec![erp(HOUR)], [hourly, hourly]),
        // Lists that begin after the order, or end before it was quiet, cannot know.
        (
            &[],
            vec![],
            [
                (5 * MINUTE, 3 * HOUR, 4 * HOUR),
                (-HOUR, -HOUR, 10 * MINUTE),
            ],
        ),
        // Lists of all that there is leave out what was deleted since.
        (
            &["MISSING_IN_ERP"],
            vec![erp(HOUR), shop(HOUR)],
            [(ever, ever, day), hourly],
        ),
        (
            &[],
            vec![erp(HOUR), erp(day), shop(HOUR)],
            [(ever, ever, day), hourly],
        ),
        // The newest list may be told before those that it follows.
        (&[], vec![erp(5 * HOUR), shop(HOUR)], [hourly, hourly]),
    ]
}

#[test]
fn what_whole_lists_leave_out_is_missing_whatever_comes_first() {
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut worlds = left_out();
        let pick = random.random_range(0..worlds.len());
        let (expected, listed, [erp, shop]) = worlds.swap_remove(pick);
        let mut facts = vec![
            state(1, OrderStatus::Accepted, &["S1"], 60),
            told(SystemRole::Channel, "W1", 0),
            told(SystemRole::Erp, "S1", 60),
        ];
        facts.extend(listed);
        facts.extend(
            facts
                .clone()
                .into_iter()
                .filter(|_| random.random_bool(0.5)),
        );
        facts.shuffle(&mut random);
        let mut tables = vec![covered("erp/main", erp), covered("shop/web", shop)];
        let mut recon = driven();
        let step = [0, 10, 600].choose(&mut random).copied().expect("one");
        while !facts.is_empty() || !tables.is_empty() {
            let of_table = facts.is_empty() || random.random_bool(0.3);
            if let Some((key, event)) = of_table.then(|| tables.pop()).flatten() {
                recon.table(&key, Some(&event));
            } else if let Some(fact) = facts.pop() {
                recon.one(fact);
            }
            recon.pass(Duration::from_secs(random.random_range(0..=step)));
        }
        recon.pass(hours(30));
        assert_eq!(recon.codes(), expected, "seed {seed}, world {pick}");
        assert!(recon.refused.is_empty(), "seed {seed}");
    }
}

#[test]
fn a_list_that_names_the_order_late_closes_what_its_absence_opened() {
    let mut recon = driven();
    recon.one(told(SystemRole::Channel, "W1", 0));
    recon.one(told(SystemRole::Erp, "S1", 60));
    recon.one(state(1, OrderStatus::Accepted, &["S1"], 60));
    let (key, event) = covered("erp/main", (-HOUR, 0, HOUR));
    recon.table(&key, Some(&event));
    recon.pass(hours(2));
    assert_eq!(
        recon.codes(),
        ["MISSING_IN_ERP"],
        "an acceptance alone is no order"
    );
    recon.one(entry(
        SystemRole::Erp,
        "S1",
        "ACCEPTED",
        units(50),
        3 * HOUR,
    ));
    assert!(recon.codes().is_empty(), "it was there, and is listed now");
}

#[test]
fn what_was_deleted_and_told_again_is_one_order_whatever_happens_to_it_later() {
    let mut recon = driven();
    recon.one(told(SystemRole::Channel, "W1", 0));
    recon.one(told(SystemRole::Erp, "S1", 60));
    recon.one(state(1, OrderStatus::Accepted, &["S1"], 60));
    let (key, event) = covered("erp/main", (-HOUR, 0, HOUR));
    recon.table(&key, Some(&event));
    recon.pass(hours(2));
    let asked = corrections(&recon);
    assert!(!asked.is_empty() && asked.iter().all(|c| *c.target == *"erp/main"));
    // It is there again under another name, and leaves after the last list.
    let again = 3 * HOUR;
    recon.one(told(SystemRole::Erp, "S2", again));
    recon.one(state(2, OrderStatus::Accepted, &["S1", "S2"], again));
    assert!(recon.codes().is_empty());
    recon.one(state(3, OrderStatus::Shipped, &["S1", "S2"], again + 60));
    recon.pass(hours(2));
    assert!(recon.codes().is_empty(), "S1 has not come back by that");
    recon.one(entry(
        SystemRole::Erp,
        "S1",
        "ACCEPTED",
        units(50),
        6 * HOUR,
    ));
    recon.pass(hours(1));
    assert_eq!(recon.codes(), ["DUPLICATE_IN_ERP", "STATUS_MISMATCH"]);
}

fn windowed(chunk: Event, since: i64, until: i64) -> Event {
    let Event::ReconManifest(mut e) = chunk else {
        unreachable!()
    };
    e.window_start = at(since);
    e.window_end = at(until);
    e.into()
}

#[test]
fn lists_cover_the_time_since_the_last_gap_in_whatever_order_they_become_whole() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let hour = |n: i64, part, parts| {
            let chunk = chunk(&format!("m{n}"), part, parts, &["a"], parts.into());
            windowed(chunk, n * HOUR, (n + 1) * HOUR)
        };
        let mut chunks: Vec<Event> = (0..6)
            .flat_map(|n| [hour(n, 0, 2), hour(n, 1, 2)])
            .collect();
        let gap = random.random_range(0..5_usize);
        let late = chunks.remove(2 * gap + random.random_range(0..2));
        chunks.shuffle(&mut random);
        let mut split = Driven::at(ManifestSplit::new(), "erp/main|order", at(0));
        let last = |split: &Driven<ManifestSplit>| {
            let told = split.said.iter().filter_map(|e| match e {
                Event::ListCoverage(c) => Some((c.coverage_version, c.clone())),
                _ => None,
            });
            let told: Vec<(i64, ListCoverage)> = told.collect();
            assert!(told.windows(2).all(|w| w[0].0 + 1 == w[1].0), "seed {seed}");
            told.last().expect("some").1.clone()
        };
        for chunk in chunks {
            split.one(chunk);
        }
        let known = last(&split);
        assert_eq!(
            known.covered_since,
            at((gap as i64 + 1) * HOUR),
            "seed {seed}"
        );
        assert_eq!(known.last_since, at(5 * HOUR), "seed {seed}");
        assert_eq!(known.covered_until, at(6 * HOUR), "seed {seed}");
        split.one(late);
        let known = last(&split);
        assert_eq!(known.covered_since, at(0), "seed {seed}: the gap is closed");
        assert_eq!(&*known.list_source, "erp/main");
    }
}
