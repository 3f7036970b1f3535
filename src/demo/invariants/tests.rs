//! Each invariant can fail: a defect is put into the records of a sound run, and the verdict names it.

use super::{Around, Books, Expected, Shown, TOPICS, Verdicts, judge};
use crate::codec::Codec;
use crate::contract::event::{
    Event, Outcome, ReservationAction, ReservationMode, ReservationStatus, StockChanged,
    StockReason, StockState,
};
use crate::demo::Options;
use crate::demo::landscape::{Landscape, Shop};
use crate::demo::systems::Entry;
use crate::demo::tests::{Blind, block_on, few_sales};
use crate::domain::{Decimal, Timestamp};
use crate::pipeline::Record;
use crate::verify::Ledger;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A run at rest.
struct Sound {
    records: Vec<Record>,
    codec: Arc<Codec>,
    ledger: Ledger,
    shown: Vec<(String, String, std::collections::BTreeMap<String, i64>)>,
    systems: Vec<(String, Vec<Entry>)>,
    faults: Vec<Expected>,
    sinks: Vec<(String, String)>,
    end: Timestamp,
}

fn sound() -> &'static Sound {
    static SOUND: OnceLock<Sound> = OnceLock::new();
    SOUND.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options {
            seed: 11,
            data: Some(few_sales(folder.path())),
            ledgers: None,
            cluster: None,
        };
        block_on(async {
            let mut landscape = Landscape::start(&options).await.expect("a landscape");
            landscape.live(&mut Blind).await.expect("a day");
            Sound {
                records: landscape.crew.records(TOPICS).expect("the log"),
                codec: landscape.crew.codec.clone(),
                ledger: landscape.crew.ledger().expect("books"),
                shown: landscape
                    .shops
                    .iter()
                    .map(Shop::shown)
                    .chain(landscape.estate.shown())
                    .map(|s| (s.name, s.channel, s.quantities))
                    .collect(),
                systems: landscape.estate.entries(),
                faults: landscape.market.faults().to_vec(),
                sinks: landscape.crew.sinks_settle(),
                end: landscape.crew.now(),
            }
        })
    })
}

/// Judges the run after `change` was made to its events: `false` leaves a record out.
fn judged(change: impl FnMut(&Record, &mut Event) -> bool) -> Verdicts {
    judged_with(change, |_, _| {})
}

/// As [`judged`], after `around` was made to what shops show and what the systems say.
fn judged_with(
    mut change: impl FnMut(&Record, &mut Event) -> bool,
    around: impl FnOnce(&mut Vec<Shown>, &mut Around<'_>),
) -> Verdicts {
    let sound = sound();
    let mut books = Books::default();
    for record in &sound.records {
        let mut event = sound.codec.decode(record).expect("decoded");
        if change(record, &mut event) {
            books.read(record, event);
        }
    }
    let shops = sound.shown.iter().cloned();
    let mut shown: Vec<Shown> = shops
        .map(|(name, channel, quantities)| Shown {
            name,
            channel,
            quantities,
        })
        .collect();
    let mut said = Around {
        systems: sound.systems.clone(),
        faults: &sound.faults,
        sinks: sound.sinks.clone(),
        leak: None,
        skew: Duration::ZERO,
    };
    around(&mut shown, &mut said);
    judge(&books, &sound.ledger, &shown, &said, sound.end)
}

/// Judges the run after the first entry of this kind in a system's ledger was changed; none when it is
/// to be left out.
fn judged_entry(system: &str, kind: &str, change: impl Fn(&Entry) -> Vec<Entry>) -> Verdicts {
    judged_with(
        |_, _| true,
        |_, around| {
            let found = around.systems.iter_mut().find(|(name, _)| name == system);
            let (_, entries) = found.expect("the system");
            let at = entries
                .iter()
                .position(|e| e.kind == kind)
                .expect("an entry");
            let entry = entries.remove(at);
            for (n, entry) in change(&entry).into_iter().enumerate() {
                entries.insert(at + n, entry);
            }
        },
    )
}

fn with(entry: &Entry, field: &str, value: &str) -> Entry {
    let mut entry = entry.clone();
    entry.fields.insert(field.to_owned(), value.into());
    entry
}

/// Changes the last event that `which` picks, and tells where it stands.
fn judged_but_last(
    which: impl Fn(&Event) -> bool,
    change: impl Fn(&mut Event) -> bool,
) -> (Verdicts, String) {
    let sound = sound();
    let mut last = None;
    for record in &sound.records {
        if which(&sound.codec.decode(record).expect("decoded")) {
            last = Some(record.origin.clone());
        }
    }
    let last = last.expect("such an event is in the run");
    let place = last.to_string();
    let verdicts = judged(|record, event| record.origin != last || change(event));
    (verdicts, place)
}

fn assert_fails(verdicts: &Verdicts, number: u32, words: &str, place: &str) {
    let verdict = &verdicts.0[&number];
    assert!(
        verdict.contains(words) && verdict.contains(place),
        "invariant {number} should say {words:?} and {place}: {verdict}"
    );
}

fn one() -> Decimal {
    Decimal::ONE
}

#[test]
fn a_sound_run_holds() {
    let verdicts = judged(|_, _| true);
    assert!(verdicts.all_hold(), "{verdicts:?}");
}

#[test]
fn invariant_1_finds_records_without_an_outcome_with_two_and_waiting_ones() {
    let counted = |e: &Event| matches!(e, Event::DispositionRecord(d) if d.count > 0);
    let (verdicts, _) = judged_but_last(counted, |_| false);
    assert_fails(&verdicts, 1, "not settled retail.", "]@");

    let (verdicts, place) = judged_but_last(
        |e| matches!(e, Event::DispositionRecord(d) if d.count > 0 && d.first_offset > 0),
        |e| {
            if let Event::DispositionRecord(d) = e {
                (d.first_offset, d.count) = (0, d.count + 1);
            }
            true
        },
    );
    assert_fails(&verdicts, 1, "twice", &place);

    let (verdicts, _) = judged_but_last(
        |e| matches!(e, Event::DispositionRecord(d) if !d.others.is_empty()),
        |e| {
            if let Event::DispositionRecord(d) = e {
                d.others[0].outcome = Outcome::Buffered;
                d.others[0].effect = "".into();
            }
            true
        },
    );
    assert_fails(&verdicts, 1, "still buffers retail.", "]@");
}

#[test]
fn invariants_2_and_12_find_a_level_that_the_facts_do_not_give() {
    let (verdicts, place) = judged_but_last(
        |e| matches!(e, Event::StockLevel(_)),
        |e| {
            if let Event::StockLevel(level) = e {
                level.sellable += one();
            }
            true
        },
    );
    assert_fails(&verdicts, 2, "the facts give", &place);
    assert_fails(&verdicts, 12, "rebuilding gives", &place);
}

#[test]
fn invariant_2_finds_a_fact_that_was_left_out() {
    let mut lost = false;
    let verdicts = judged(|_, e| {
        let sale = matches!(e, Event::StockChanged(c) if c.reason == StockReason::Sale);
        let first = sale && !lost;
        if first && let Event::StockChanged(c) = e {
            lost = true;
            c.qty += one();
        }
        true
    });
    assert!(lost);
    assert_fails(&verdicts, 2, "the facts give", "retail.stock.level.v1[");
}

/// Judges the run without any copy of the last movement that `which` picks.
fn judged_without_last(which: impl Fn(&StockChanged) -> bool) -> Verdicts {
    let mut last = None;
    judged(|_, e| {
        if let Event::StockChanged(c) = e
            && which(c)
        {
            last = Some(c.meta.event_id);
        }
        true
    });
    assert!(last.is_some(), "such a movement is in the run");
    judged(|_, e| !matches!(e, Event::StockChanged(c) if Some(c.meta.event_id) == last))
}

#[test]
fn invariant_3_finds_goods_that_left_and_never_arrived() {
    let verdicts = judged_without_last(|c| {
        c.from_state == StockState::Supplier && c.to_state == StockState::InTransit
    });
    assert_fails(&verdicts, 3, "were announced", "retail.stock.change.v1[");
    let verdicts = judged_without_last(|c| c.from_state == StockState::InTransit);
    assert_fails(&verdicts, 3, "on the way", "retail.stock.level.v1[");
}

fn is_grant(e: &Event) -> bool {
    matches!(e, Event::ReservationDecision(d) if d.action == ReservationAction::Hold
        && d.mode == ReservationMode::Strict && d.qty_held.is_positive())
}

#[test]
fn invariant_4_finds_a_grant_beyond_what_was_available() {
    let more = Decimal::from(1_000);
    let (verdicts, place) = judged_but_last(is_grant, |e| {
        if let Event::ReservationDecision(d) = e {
            d.qty_held = d.ats_before + one();
        }
        true
    });
    assert_fails(&verdicts, 4, "was granted", &place);
    let (verdicts, place) = judged_but_last(is_grant, |e| {
        if let Event::ReservationDecision(d) = e {
            d.ats_before += more;
        }
        true
    });
    assert_fails(&verdicts, 4, "as available to", &place);
    let (verdicts, place) = judged_but_last(is_grant, |e| {
        if let Event::ReservationDecision(d) = e {
            (d.sellable_before, d.ats_before) = (d.sellable_before + more, d.ats_before + more);
        }
        true
    });
    assert_fails(&verdicts, 4, "as sellable", &place);
    let (verdicts, place) = judged_but_last(is_grant, |e| {
        if let Event::ReservationDecision(d) = e {
            d.reserved_before -= one();
        }
        true
    });
    assert_fails(&verdicts, 4, "as claimed", &place);
}

#[test]
fn invariant_5_finds_claims_that_do_not_add_up() {
    let told =
        |status| move |e: &Event| matches!(e, Event::ReservationEvent(r) if r.status == status);
    let change = |change: fn(&mut crate::contract::event::ReservationEvent)| {
        move |e: &mut Event| {
            if let Event::ReservationEvent(r) = e {
                change(r);
            }
            true
        }
    };
    let consumed = told(ReservationStatus::Consumed);
    let (verdicts, place) = judged_but_last(consumed, change(|r| r.qty_held += one()));
    assert_fails(&verdicts, 5, "consumed", &place);
    let (verdicts, place) = judged_but_last(
        consumed,
        change(|r| (r.qty_held, r.qty_consumed) = (r.qty_held + one(), r.qty_consumed + one())),
    );
    assert_fails(&verdicts, 5, "left for it", &place);
    let expired = told(ReservationStatus::Expired);
    let (verdicts, place) = judged_but_last(
        expired,
        change(|r| r.meta.recorded_at = r.meta.recorded_at.minus(Duration::from_secs(60))),
    );
    assert_fails(&verdicts, 5, "expired before its time", &place);
    let (verdicts, place) =
        judged_but_last(expired, change(|r| r.status = ReservationStatus::Held));
    assert_fails(&verdicts, 5, "beyond its time", &place);
    let (verdicts, place) =
        judged_but_last(expired, change(|r| r.status = ReservationStatus::Released));
    assert_fails(&verdicts, 5, "nobody asked", &place);
    let (verdicts, place) = judged_but_last(
        |e| matches!(e, Event::StockLevel(l) if l.location_id == "dc"),
        |e| {
            if let Event::StockLevel(l) = e {
                l.reserved += one();
            }
            true
        },
    );
    assert_fails(&verdicts, 5, "the claims bind", &place);
}

#[test]
fn invariant_7_finds_versions_that_are_missing() {
    for which in [
        |e: &Event| matches!(e, Event::StockLevel(l) if l.level_version == 2),
        |e: &Event| matches!(e, Event::AvailabilityChanged(a) if a.ats_version == 2),
        |e: &Event| matches!(e, Event::ReservationEvent(r) if r.reservation_version == 1),
        |e: &Event| matches!(e, Event::ReservationDecision(d) if d.ledger_sequence == 2),
    ] {
        let (verdicts, _) = judged_but_last(which, |e| {
            match e {
                Event::StockLevel(l) => l.level_version += 1,
                Event::AvailabilityChanged(a) => a.ats_version += 1,
                Event::ReservationEvent(r) => r.reservation_version += 1,
                Event::ReservationDecision(d) => d.ledger_sequence += 1,
                _ => {}
            }
            true
        });
        assert_fails(&verdicts, 7, "was due", "]@");
    }
}

#[test]
fn invariant_12_finds_live_state_that_the_log_does_not_give() {
    let (verdicts, place) = judged_but_last(
        |e| matches!(e, Event::StockLevel(l) if l.location_id == "dc"),
        |e| {
            if let Event::StockLevel(l) = e {
                let first = l.ats_by_channel.values_mut().next();
                *first.expect("the warehouse serves channels") += one();
            }
            true
        },
    );
    assert_fails(&verdicts, 12, "atsByChannel", &place);
    let (verdicts, place) = judged_but_last(
        |e| matches!(e, Event::AvailabilityChanged(_)),
        |e| {
            if let Event::AvailabilityChanged(a) = e {
                a.ats += one();
            }
            true
        },
    );
    assert_fails(&verdicts, 12, "rebuilding gives", &place);
    let (verdicts, place) = judged_but_last(is_grant, |_| false);
    assert_fails(
        &verdicts,
        12,
        "without a decision",
        "retail.reservation.event.v1[",
    );
    assert!(!place.is_empty());
}

#[test]
fn invariant_13_finds_a_storefront_that_shows_something_else() {
    let published = |e: &Event| matches!(e, Event::AvailabilityChanged(a) if a.channel_id == "web");
    let (sku, place) = {
        let sound = sound();
        let last = sound.records.iter().rev().find_map(|record| {
            let event = sound.codec.decode(record).expect("decoded");
            match event {
                Event::AvailabilityChanged(a) if published(&a.clone().into()) => {
                    Some((a.sku.to_string(), record.origin.to_string()))
                }
                _ => None,
            }
        });
        last.expect("something is published")
    };
    let verdicts = judged_with(
        |_, _| true,
        |shown, _| *shown[0].quantities.entry(sku.clone()).or_default() += 1,
    );
    assert_fails(&verdicts, 13, &sku, &place);
    let verdicts = judged_with(
        |_, _| true,
        |shown, _| {
            shown[1].quantities.insert("NOBODY-SELLS-THIS".into(), 5);
        },
    );
    assert_fails(&verdicts, 13, "nothing is published", "NOBODY-SELLS-THIS");
}

#[test]
fn invariants_6_and_10_find_an_order_that_does_not_add_up_or_has_no_state() {
    let (verdicts, place) = judged_but_last(
        |e| matches!(e, Event::OrderState(_)),
        |e| {
            if let Event::OrderState(state) = e {
                state.lines[0].open += one();
            }
            true
        },
    );
    assert_fails(&verdicts, 6, "were ordered", &place);
    let verdicts = judged(|_, e| !matches!(e, Event::OrderState(_)));
    assert_fails(&verdicts, 10, "there is no state", "storefront-shop");
}

#[test]
fn invariant_8_finds_a_sale_too_many_one_too_few_and_one_of_nobody() {
    let twice = |e: &Entry| vec![e.clone(), with(e, "id", "SO-again")];
    let verdicts = judged_entry("erp", "order", twice);
    assert_fails(&verdicts, 8, "SO-again", "for order");
    let verdicts = judged_entry("erp", "order", |_| Vec::new());
    assert_fails(
        &verdicts,
        8,
        "the ERP has nothing",
        "retail.order.lifecycle.v1[",
    );
    let verdicts = judged_entry("erp", "order", |e| vec![with(e, "order", "nobody's")]);
    assert_fails(&verdicts, 8, "nobody has placed", "nobody's");
}

#[test]
fn invariant_9_finds_money_that_was_paid_back_twice_too_much_or_unheard_of() {
    let verdicts = judged_entry("psp", "refund", |e| vec![e.clone(), e.clone()]);
    assert_ne!(verdicts.0[&9], "ok");
    let verdicts = judged_entry("psp", "refund", |e| vec![with(e, "amount", "999999")]);
    assert_fails(&verdicts, 9, "too much", "was paid back");
    let verdicts = judged_entry("psp", "refund", |e| vec![with(e, "reference", "re_other")]);
    assert_fails(&verdicts, 9, "no refund says so", "re_other");
    let verdicts = judged_entry("psp", "refund", |_| Vec::new());
    assert_fails(
        &verdicts,
        9,
        "the provider knows no",
        "retail.refund.event.v1[",
    );
}

#[test]
fn invariant_11_finds_a_return_that_nobody_answers() {
    let verdicts = judged_entry("erp", "credit-note", |_| Vec::new());
    assert_fails(&verdicts, 11, "was to be credited", "return");
    let paid = |e: &Event| matches!(e, Event::RefundEvent(r) if r.return_id.is_some());
    let verdicts = judged(|_, e| !paid(e));
    assert_fails(&verdicts, 11, "was due", "no exception is open");
}

#[test]
fn invariant_14_finds_an_exception_too_few_and_one_too_many() {
    let verdicts = judged(|_, e| !matches!(e, Event::BusinessException(_)));
    assert_fails(&verdicts, 14, "was to be expected", "never was");
    let verdicts = judged_with(|_, _| true, |_, around| around.faults = &[]);
    assert_fails(
        &verdicts,
        14,
        "which nothing was done to",
        "retail.ops.exception.v1[",
    );
}

#[test]
fn invariant_15_finds_a_payout_that_is_not_the_sum_of_its_lines() {
    let line = |e: &Event| matches!(e, Event::SettlementEvent(s) if s.psp_reference.is_some());
    let mut lost = None;
    let verdicts = judged(|_, e| match e {
        Event::SettlementEvent(s) if line(&s.clone().into()) => {
            let first = lost.get_or_insert((s.payout_id.clone(), s.line_id.clone()));
            *first != (s.payout_id.clone(), s.line_id.clone())
        }
        _ => true,
    });
    assert_fails(
        &verdicts,
        15,
        "its control row says",
        "retail.settlement.payout.v1[",
    );
}

#[test]
fn invariant_16_tells_where_a_customer_was_found() {
    let verdicts = judged_with(
        |_, _| true,
        |_, around| around.leak = Some("retail.order.lifecycle.v1[0]@7".into()),
    );
    assert_fails(&verdicts, 16, "retail.order.lifecycle.v1[0]@7", "@");
}
