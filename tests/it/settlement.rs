//! `ledger`, `settlement-match` and `settlement-recon` on the embedded log: payments are keyed by
//! order, lines by reference, payouts by payout, and everything meets whatever fails in between.

use crate::support::*;
use crate::world::World;
use crossdock::contract::event::*;
use crossdock::contract::topic;
use crossdock::domain::{Decimal, compound_key};
use crossdock::log::embedded::Injected;
use crossdock::runtime::Progress;
use rand::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) fn row(
    payout: &str,
    name: &str,
    kind: SettlementKind,
    gross: i64,
    fee: i64,
) -> SettlementEvent {
    SettlementEvent {
        meta: meta("SettlementEvent", &format!("{payout}/{name}"), 1),
        psp: "psp".into(),
        payout_id: payout.into(),
        line_id: name.into(),
        kind,
        gross: cents(gross),
        fee: cents(fee),
        net: cents(gross - fee),
        currency: "EUR".into(),
        ..SettlementEvent::default()
    }
}

/// Payouts and what each should have in the bank, in cents, and in fees.
struct Payouts {
    facts: Vec<(&'static str, Text, Event)>,
    banked: BTreeMap<String, (i64, i64)>,
    /// The payout whose bank credit is a cent short.
    short: Option<String>,
}

fn payouts(random: &mut StdRng) -> Payouts {
    let mut facts: Vec<(&'static str, Text, Event)> = Vec::new();
    let mut banked = BTreeMap::new();
    let short = random.random_bool(0.5).then(|| "po-1".to_owned());
    for number in 0..3 {
        let payout = format!("po-{number}");
        let (mut net, mut fees) = (0, 0);
        let lines = random.random_range(2..8);
        for n in 0..lines {
            let (order, reference) = (format!("order-{number}-{n}"), format!("c-{number}-{n}"));
            let (gross, fee) = (
                random.random_range(1_000..9_000),
                random.random_range(0..90),
            );
            let mut paid = captured("p", &reference, gross);
            paid.order_id = order.as_str().into();
            facts.push((topic::PAYMENT_EVENT, order.into(), paid.into()));
            let mut line = row(
                &payout,
                &format!("l{n}"),
                SettlementKind::Capture,
                gross,
                fee,
            );
            line.psp_reference = Some(reference.as_str().into());
            let key = compound_key(&["psp", &reference]);
            facts.push((topic::SETTLEMENT_EVENT, key, line.into()));
            net += gross - fee;
            fees += fee;
        }
        let fee = row(&payout, "fee", SettlementKind::Fee, -500, 0);
        facts.push((topic::SETTLEMENT_PAYOUT, payout.as_str().into(), fee.into()));
        (net, fees) = (net - 500, fees + 500);
        let mut control = row(&payout, "control", SettlementKind::PayoutControl, 0, 0);
        control.control_count = Some(lines + 1);
        control.control_net = Some(cents(net));
        facts.push((
            topic::SETTLEMENT_PAYOUT,
            payout.as_str().into(),
            control.into(),
        ));
        let came = net - i64::from(short.as_deref() == Some(&payout));
        let bank = row(&payout, "bank", SettlementKind::BankCredit, came, 0);
        facts.push((
            topic::SETTLEMENT_PAYOUT,
            payout.as_str().into(),
            bank.into(),
        ));
        banked.insert(payout, (came, fees));
    }
    Payouts {
        facts,
        banked,
        short,
    }
}

#[test]
fn payouts_are_the_sum_of_their_lines_and_clear_to_zero_whatever_fails() {
    for seed in 0..60 {
        let world = World::new();
        let mut random = StdRng::seed_from_u64(seed);
        let mut tasks =
            ["ledger", "settlement-match", "settlement-recon"].map(|name| world.task(name, "one"));
        let payouts = payouts(&mut random);
        let mut facts = payouts.facts.clone();
        let again: Vec<_> = facts
            .sample(&mut random, facts.len() / 2)
            .cloned()
            .collect();
        facts.extend(again);
        facts.shuffle(&mut random);
        for chunk in facts.chunks(8) {
            for (topic, key, event) in chunk {
                world.send(topic, key, event.clone());
            }
            let fault = [
                Injected::CommitLost,
                Injected::CommitAnswerLost,
                Injected::Send,
            ][random.random_range(0..3)];
            world.log.inject(fault);
            for task in &mut tasks {
                // The step that meets the fault reports it; the next ones go on by themselves.
                while task
                    .step(Duration::ZERO)
                    .is_ok_and(|p| !matches!(p, Progress::Idle { .. }))
                {}
            }
        }
        for _ in 0..4 {
            let [ledger, matching, recon] = &mut tasks;
            world.settle(&mut [ledger, matching, recon]);
            world.advance(HOUR * 24);
        }
        let [ledger, matching, recon] = &mut tasks;
        world.settle(&mut [ledger, matching, recon]);
        check(&world, &payouts, seed);
    }
}

fn check(world: &World, payouts: &Payouts, seed: u64) {
    let mut ids = BTreeSet::new();
    let mut own: BTreeMap<(String, LedgerAccount), Decimal> = BTreeMap::new();
    let mut of_orders: BTreeMap<Text, Decimal> = BTreeMap::new();
    for event in world.events(topic::LEDGER_POSTING) {
        let Event::LedgerPosting(p) = event else {
            panic!("not a posting")
        };
        assert!(ids.insert(p.posting_id), "seed {seed}: posted twice");
        for e in p.entries {
            let signed = match e.side {
                LedgerSide::Debit => e.amount,
                _ => -e.amount,
            };
            let clearing = e.account == LedgerAccount::PspClearing;
            match (&p.payout_id, e.order_id.as_ref().or(p.order_id.as_ref())) {
                (_, Some(order)) if clearing => {
                    *of_orders.entry(order.clone()).or_default() += signed;
                }
                (Some(payout), None) => {
                    *own.entry((payout.to_string(), e.account)).or_default() += signed;
                }
                _ => {}
            }
        }
    }
    // Nothing is left at the provider for any order.
    assert!(
        of_orders.values().all(|sum| sum.is_zero()),
        "seed {seed}: {of_orders:?}"
    );
    for (payout, (banked, fees)) in &payouts.banked {
        let balance = |account| {
            own.get(&(payout.clone(), account))
                .copied()
                .unwrap_or_default()
        };
        let missing = i64::from(payouts.short.as_ref() == Some(payout));
        assert_eq!(
            balance(LedgerAccount::PspClearing),
            cents(missing),
            "seed {seed} {payout}"
        );
        assert_eq!(
            balance(LedgerAccount::Bank),
            cents(*banked),
            "seed {seed} {payout}"
        );
        assert_eq!(
            balance(LedgerAccount::Fees),
            cents(*fees),
            "seed {seed} {payout}"
        );
    }
    let mut open = BTreeMap::new();
    for event in world.events(topic::OPS_EXCEPTION) {
        let Event::BusinessException(e) = event else {
            panic!("not an exception")
        };
        open.insert(e.exception_id, e);
    }
    open.retain(|_, e| e.status != ExceptionStatus::Resolved);
    let found: Vec<String> = open
        .into_values()
        .map(|e| format!("{} {}", e.code, e.cause_key))
        .collect();
    let expected: Vec<String> = payouts
        .short
        .iter()
        .map(|_| "PAYOUT_MISMATCH bank".to_owned())
        .collect();
    assert_eq!(found, expected, "seed {seed}");
}
