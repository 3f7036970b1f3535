//! `settlement-match` and `settlement-recon`: lines beside movements, payouts beside lines and bank.

use super::*;
use crossdock::processors::{SettlementMatch, SettlementRecon};
use rand::prelude::*;

const PAYOUT: &str = "po-1";

fn line(
    name: &str,
    kind: SettlementKind,
    reference: Option<&str>,
    gross: i64,
    fee: i64,
) -> SettlementEvent {
    SettlementEvent {
        meta: meta("SettlementEvent", name, 1),
        psp: "psp".into(),
        payout_id: PAYOUT.into(),
        line_id: name.into(),
        kind,
        psp_reference: reference.map(Text::from),
        gross: cents(gross),
        fee: cents(fee),
        net: cents(gross - fee),
        currency: "EUR".into(),
        ..SettlementEvent::default()
    }
}

fn control(count: i64, net: i64) -> SettlementEvent {
    SettlementEvent {
        control_count: Some(count),
        control_net: Some(cents(net)),
        ..line("control", SettlementKind::PayoutControl, None, 0, 0)
    }
}

/// Of a provider that does not count the lines.
fn uncounted(net: i64) -> SettlementEvent {
    SettlementEvent {
        control_count: None,
        ..control(0, net)
    }
}

fn bank(net: i64) -> SettlementEvent {
    line("bank", SettlementKind::BankCredit, None, net, 0)
}

fn of_order(order: &str, line: SettlementEvent) -> SettlementEvent {
    SettlementEvent {
        order_id: Some(order.into()),
        ..line
    }
}

/// The lines passed on to payouts, newest version of each.
fn forwarded(said: &[Event]) -> BTreeMap<String, SettlementEvent> {
    let lines = said.iter().filter_map(|e| match e {
        Event::SettlementEvent(e) => Some((e.line_id.to_string(), e.clone())),
        _ => None,
    });
    lines.collect()
}

#[test]
fn a_line_goes_on_at_once_and_again_with_its_order() {
    let mut matched = of_key(SettlementMatch::new(), "psp|c1");
    matched.one(line("l1", SettlementKind::Capture, Some("c1"), 5_000, 50));
    assert_eq!(forwarded(&matched.said)["l1"].order_id, None);
    matched.one(captured("p", "c1", 5_000));
    let last = &forwarded(&matched.said)["l1"];
    assert_eq!(last.order_id.as_deref(), Some(ORDER));
    assert_eq!((last.net, last.payout_id.as_str()), (cents(4_950), PAYOUT));
    matched.pass(HOUR * 24 * 30);
    assert!(matched.open().is_empty(), "{:?}", matched.open());
}

#[test]
fn lines_and_movements_that_have_no_counterpart_are_told_of_when_it_is_late() {
    let mut lonely = of_key(SettlementMatch::new(), "psp|c1");
    lonely.one(line("l1", SettlementKind::Capture, Some("c1"), 5_000, 50));
    lonely.pass(HOUR * 71);
    assert!(lonely.open().is_empty());
    lonely.pass(HOUR * 2);
    assert_eq!(lonely.codes(), ["SETTLEMENT_UNMATCHED"]);
    lonely.one(captured("p", "c1", 5_000));
    assert!(lonely.open().is_empty());

    let mut unsettled = of_key(SettlementMatch::new(), "psp|c1");
    unsettled.one(captured("p", "c1", 5_000));
    unsettled.pass(HOUR * 24 * 13);
    assert!(unsettled.open().is_empty());
    unsettled.pass(HOUR * 24 * 2);
    assert_eq!(unsettled.codes(), ["PAYMENT_UNSETTLED"]);
    unsettled.one(line("l1", SettlementKind::Capture, Some("c1"), 5_000, 50));
    assert!(unsettled.open().is_empty());
}

#[test]
fn an_amount_that_differs_is_told_of_and_parts_may_sum_to_it() {
    let mut more = of_key(SettlementMatch::new(), "psp|c1");
    more.one(captured("p", "c1", 5_000));
    more.one(line("l1", SettlementKind::Capture, Some("c1"), 5_001, 0));
    assert_eq!(more.codes(), ["SETTLEMENT_AMOUNT_MISMATCH"]);

    let mut parts = of_key(SettlementMatch::new(), "psp|re1");
    let mut refunded = payment(PaymentKind::Refunded, "p", "re1", money(3_000, "EUR"));
    refunded.refund_key = Some(format!("{}|1", id("r")).into());
    parts.one(refunded);
    parts.one(line("l1", SettlementKind::Refund, Some("re1"), -1_000, 0));
    assert!(parts.open().is_empty(), "the rest may come");
    parts.one(line("l2", SettlementKind::Refund, Some("re1"), -2_000, 0));
    parts.pass(HOUR * 100);
    assert!(parts.open().is_empty());
    assert_eq!(forwarded(&parts.said).len(), 2);
}

/// A payout of a capture, a refund, a monthly fee and a reserve: 46.50 in the bank.
fn whole() -> Vec<SettlementEvent> {
    vec![
        of_order(
            "o1",
            line("l1", SettlementKind::Capture, Some("c1"), 10_000, 150),
        ),
        of_order(
            "o2",
            line("l2", SettlementKind::Refund, Some("re1"), -3_000, 0),
        ),
        line("l3", SettlementKind::Fee, None, -1_000, 0),
        line("l4", SettlementKind::Reserve, None, -1_200, 0),
        control(4, 4_650),
        bank(4_650),
    ]
}

/// Balances in cents: of the payout's own books, and of orders' PSPClearing.
fn booked(said: &[Event]) -> (BTreeMap<LedgerAccount, i64>, BTreeMap<String, i64>) {
    let (mut own, mut orders) = (BTreeMap::new(), BTreeMap::new());
    let mut ids = BTreeSet::new();
    for event in said {
        let Event::LedgerPosting(p) = event else {
            continue;
        };
        assert!(ids.insert(p.posting_id), "a posting is made once");
        assert_eq!(p.payout_id.as_deref(), Some(PAYOUT));
        let mut difference = 0;
        for e in &p.entries {
            let units = e.amount.units() / 100;
            let signed = match e.side {
                LedgerSide::Debit => units,
                _ => -units,
            };
            difference += signed;
            match &e.order_id {
                None => *own.entry(e.account).or_default() += signed,
                Some(order) => *orders.entry(order.to_string()).or_default() += signed,
            }
        }
        assert_eq!(difference, 0, "{p:?}");
    }
    own.retain(|_, amount| *amount != 0);
    orders.retain(|_, amount| *amount != 0);
    (own, orders)
}

#[test]
fn a_whole_payout_clears_to_zero() {
    let mut payout = of_key(SettlementRecon::new(), PAYOUT);
    whole().into_iter().for_each(|e| {
        payout.one(e);
    });
    payout.pass(HOUR * 100);
    assert!(payout.open().is_empty(), "{:?}", payout.open());
    let (own, orders) = booked(&payout.said);
    let expected = BTreeMap::from([
        (LedgerAccount::Fees, 1_150),
        (LedgerAccount::PspReserve, 1_200),
        (LedgerAccount::Bank, 4_650),
    ]);
    assert_eq!(own, expected);
    let expected = [("o1".to_owned(), -10_000), ("o2".to_owned(), 3_000)];
    assert_eq!(orders, BTreeMap::from(expected));
}

#[test]
fn a_payment_in_another_currency_than_its_payout_clears_both() {
    let mut crowns = line("l1", SettlementKind::Capture, Some("c1"), 8_700, 100);
    crowns.original = Some(money(100_000, "SEK"));
    let mut matched = of_key(SettlementMatch::new(), "psp|c1");
    matched.one(payment(
        PaymentKind::Captured,
        "p",
        "c1",
        money(100_000, "SEK"),
    ));
    matched.one(crowns);
    matched.pass(HOUR * 24 * 30);
    assert!(matched.open().is_empty(), "{:?}", matched.open());
    let mut payout = of_key(SettlementRecon::new(), PAYOUT);
    for told in forwarded(&matched.said).into_values() {
        payout.one(told);
    }
    payout.one(control(1, 8_600));
    payout.one(bank(8_600));
    payout.pass(HOUR * 100);
    assert!(payout.open().is_empty(), "{:?}", payout.open());
    let mut clearing: BTreeMap<(Option<Text>, Text), i64> = BTreeMap::new();
    for event in &payout.said {
        let Event::LedgerPosting(p) = event else {
            continue;
        };
        let of_clearing = p.entries.iter();
        for e in of_clearing.filter(|e| e.account == LedgerAccount::PspClearing) {
            let sign = if e.side == LedgerSide::Debit { 1 } else { -1 };
            let key = (e.order_id.clone(), p.currency.clone());
            *clearing.entry(key).or_default() += sign * e.amount.units() / 100;
        }
    }
    clearing.retain(|_, amount| *amount != 0);
    let order = (Some(Text::from(ORDER)), Text::from("SEK"));
    assert_eq!(clearing, BTreeMap::from([(order, -100_000)]));
    let mut same = line("l2", SettlementKind::Capture, Some("c1"), 100, 0);
    same.original = Some(money(100, "EUR"));
    matched.one(same);
    assert_eq!(matched.refused, [Code::DataQuality]);
}

#[test]
fn what_a_payout_lacks_is_told_of_with_its_cause() {
    let without = |index: usize| {
        let mut all = whole();
        all.remove(index);
        all
    };
    let instead = |index: usize, other: SettlementEvent| {
        let mut all = whole();
        all[index] = other;
        all
    };
    let homeless = line("l1", SettlementKind::Capture, Some("c1"), 10_000, 150);
    for (events, causes) in [
        (without(0), vec!["lines"]),
        (without(4), vec!["control"]),
        (without(5), vec!["bank"]),
        (instead(4, control(5, 4_650)), vec!["lines"]),
        (instead(4, uncounted(4_650)), vec![]),
        (instead(4, uncounted(4_700)), vec!["bank", "lines"]),
        (instead(4, control(4, 4_700)), vec!["bank", "lines"]),
        (instead(5, bank(4_600)), vec!["bank"]),
        (instead(0, homeless), vec!["orders"]),
    ] {
        let mut payout = of_key(SettlementRecon::new(), PAYOUT);
        for event in events {
            payout.one(event);
        }
        payout.pass(HOUR * 73);
        let open: Vec<_> = payout.open().into_iter().collect();
        let expected: Vec<_> = causes
            .iter()
            .map(|cause| ("PAYOUT_MISMATCH".to_owned(), (*cause).to_owned()))
            .collect();
        assert_eq!(open, expected);
        // The late fact mends it.
        for mut event in whole() {
            event.meta = meta("SettlementEvent", &event.line_id, 2);
            payout.one(event);
        }
        assert!(payout.open().is_empty(), "{causes:?}: {:?}", payout.open());
    }
}

#[test]
fn rows_that_contradict_themselves_are_refused() {
    let mut payout = of_key(SettlementRecon::new(), PAYOUT);
    let mut wrong = line("l1", SettlementKind::Fee, None, -1_000, 0);
    wrong.net = cents(-999);
    payout.one(wrong);
    let mut wrong = control(1, 1);
    wrong.control_net = None;
    payout.one(wrong);
    let mut wrong = bank(100);
    wrong.payout_id = "another".into();
    payout.one(wrong);
    let mut wrong = bank(100);
    wrong.currency = "???".into();
    payout.one(wrong);
    let expected = [
        Code::DataQuality,
        Code::DataQuality,
        Code::WrongKey,
        Code::UnknownReference,
    ];
    assert_eq!(payout.refused, expected);
    let mut matched = of_key(SettlementMatch::new(), "psp|c1");
    matched.one(SettlementEvent {
        psp_reference: Some("c1".into()),
        ..bank(100)
    });
    assert_eq!(matched.refused, [Code::DataQuality]);
}

#[test]
fn any_order_repetition_and_correction_ends_in_the_same_books() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut events = Vec::new();
        let (mut net, mut fees, mut orders) = (0, 0, BTreeMap::new());
        let count = random.random_range(1..40);
        for n in 0..count {
            let name = format!("l{n}");
            let (gross, fee) = (random.random_range(1..9_000), random.random_range(0..90));
            let order = format!("o{}", n % 5);
            // First told without its order, perhaps with another amount.
            let mut early = line(
                &name,
                SettlementKind::Capture,
                Some("c"),
                random.random_range(1..9_000),
                0,
            );
            early.meta = meta("SettlementEvent", &name, 1);
            let mut last = of_order(
                &order,
                line(&name, SettlementKind::Capture, Some("c"), gross, fee),
            );
            last.meta = meta("SettlementEvent", &name, 2);
            events.extend([early, last]);
            net += gross - fee;
            fees += fee;
            *orders.entry(order).or_default() -= gross;
        }
        events.extend([control(count, net), bank(net)]);
        let again: Vec<_> = events
            .sample(&mut random, events.len() / 2)
            .cloned()
            .collect();
        events.extend(again);
        events.shuffle(&mut random);
        let mut payout = of_key(SettlementRecon::new(), PAYOUT);
        while !events.is_empty() {
            let size = random.random_range(1..=events.len().min(5));
            payout.send(events.drain(..size).map(Event::from).collect());
        }
        payout.pass(HOUR * 80);
        assert!(payout.open().is_empty(), "seed {seed}: {:?}", payout.open());
        let (own, of_orders) = booked(&payout.said);
        let mut expected =
            BTreeMap::from([(LedgerAccount::Bank, net), (LedgerAccount::Fees, fees)]);
        expected.retain(|_, amount| *amount != 0);
        assert_eq!(own, expected, "seed {seed}");
        assert_eq!(of_orders, orders, "seed {seed}");
    }
}

#[test]
fn a_payout_is_forgotten_with_all_its_lines() {
    let mut payout = of_key(SettlementRecon::new(), PAYOUT);
    whole().into_iter().for_each(|e| {
        payout.one(e);
    });
    assert_eq!(payout.state.0.len(), 5);
    payout.pass(HOUR * 24 * 401);
    assert!(payout.state.0.is_empty());
}
