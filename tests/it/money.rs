//! `refund-gate`, `return-refund-recon` and `ledger` on the embedded log, beside a provider that pays
//! each key once: commits fail before and after their effect, and no money moves twice.

use crate::support::*;
use crate::world::World;
use crossdock::contract::event::*;
use crossdock::contract::topic;
use crossdock::domain::Decimal;
use crossdock::log::embedded::Injected;
use crossdock::runtime::{ProcessorTask, Progress};
use rand::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3_600);
const ORDERS: usize = 8;

/// A provider: what it captured and refunded for each order, in cents, and its answer to each key.
#[derive(Default)]
struct Provider {
    captured: BTreeMap<Text, i64>,
    refunded: BTreeMap<Text, i64>,
    answers: BTreeMap<(Uuid, i32), bool>,
    heard: usize,
}

impl Provider {
    /// Calls for every submission that was committed since the last look, once or twice each.
    fn serve(&mut self, world: &World, random: &mut StdRng) {
        let events = world.events(topic::REFUND_EVENT);
        // Committed records only grow at the end of each partition; all are looked at again, as a
        // sink that was restored would, and a key is answered as before.
        let fresh = events.len() > self.heard;
        self.heard = events.len();
        if !fresh {
            return;
        }
        for event in events {
            let Event::RefundEvent(e) = event else {
                panic!("not a refund")
            };
            if e.status != RefundStatus::Submitted {
                continue;
            }
            let cents = e.amount.amount.units() / 100;
            let limit = self.captured[&e.order_id];
            let refunded = self.refunded.entry(e.order_id.clone()).or_default();
            let fails = e.attempt == 1 && random.random_bool(0.3);
            let paid = *self
                .answers
                .entry((e.refund_id, e.attempt))
                .or_insert_with(|| {
                    let pays = !fails;
                    if pays {
                        *refunded += cents;
                        assert!(*refunded <= limit, "the provider was asked for too much");
                    }
                    pays
                });
            let kind = match paid {
                true => PaymentKind::Refunded,
                false => PaymentKind::RefundFailed,
            };
            let reference = format!("{}-{}", e.refund_id, e.attempt);
            let mut answer = payment(kind, "p", &reference, money(cents, "EUR"));
            answer.order_id = e.order_id.clone();
            answer.refund_key = Some(format!("{}|{}", e.refund_id, e.attempt).into());
            world.send(topic::PAYMENT_EVENT, &e.order_id, answer);
        }
    }
}

/// What an order's facts are, where each goes, and which exception its gap must become.
struct Life {
    order: Text,
    facts: Vec<(&'static str, Event)>,
    gap: Option<&'static str>,
}

fn life(number: usize, random: &mut StdRng) -> Life {
    let order: Text = format!("order-{number}").into();
    let gaps = [
        None,
        None,
        Some("RETURN_WITHOUT_REFUND"),
        Some("NOT_RESTOCKED"),
        Some("CREDIT_NOTE_MISSING"),
    ];
    let gap = gaps[random.random_range(0..gaps.len())];
    let (ret, name) = (format!("ret-{number}"), format!("r-{number}"));
    let mut placed = order_placed();
    placed.order_id = order.clone();
    let mut capture = captured("p", &format!("c-{number}"), 15_900);
    capture.order_id = order.clone();
    let mut sale = invoice(InvoiceKind::Invoice, &format!("i-{number}"), 15_900, 2_379);
    sale.order_id = order.clone();
    let mut back = returned(&ret, 1, &[("1", 1), ("2", 1)]);
    back.order_id = order.clone();
    let mut asked = request(
        &name,
        vec![item("1", 1, 5_950, 950), item("2", 1, 3_000, 479)],
    );
    asked.order_id = order.clone();
    asked.return_id = Some(ret.as_str().into());
    let mut note = credit(&format!("n-{number}"), &ret, 8_950, 1_429);
    note.order_id = order.clone();
    let mut facts: Vec<(&'static str, Event)> = vec![
        (topic::ORDER_LIFECYCLE, placed.into()),
        (topic::PAYMENT_EVENT, capture.into()),
        (topic::INVOICE_EVENT, sale.into()),
        (topic::RETURN_EVENT, back.into()),
    ];
    if gap != Some("RETURN_WITHOUT_REFUND") {
        facts.push((topic::REFUND_REQUEST, asked.into()));
    }
    if gap != Some("CREDIT_NOTE_MISSING") {
        facts.push((topic::INVOICE_EVENT, note.into()));
    }
    for line in ["1", "2"] {
        let mut shelved = moved(&ret, line, 1);
        shelved.order_id = Some(order.clone());
        if gap != Some("NOT_RESTOCKED") || line == "1" {
            facts.push((topic::STOCK_BY_ORDER, shelved.into()));
        }
    }
    Life { order, facts, gap }
}

/// Steps until nothing is left to do now; a step that meets a fault reports it and the next goes on.
fn stir(tasks: &mut [ProcessorTask]) {
    for task in tasks {
        while task
            .step(Duration::ZERO)
            .is_ok_and(|p| !matches!(p, Progress::Idle { .. }))
        {}
    }
}

fn open_cases(world: &World) -> BTreeMap<Text, Vec<String>> {
    let mut cases = BTreeMap::new();
    for event in world.events(topic::OPS_EXCEPTION) {
        let Event::BusinessException(e) = event else {
            panic!("not an exception")
        };
        cases.insert(e.exception_id, e);
    }
    let mut open: BTreeMap<Text, Vec<String>> = BTreeMap::new();
    for case in cases.into_values() {
        if case.status != ExceptionStatus::Resolved {
            let order = case.order_id.expect("an order");
            open.entry(order).or_default().push(case.code.to_string());
        }
    }
    open
}

#[test]
fn commits_that_fail_before_or_after_their_effect_move_no_money_twice() {
    for seed in 0..60 {
        let world = World::new();
        let mut random = StdRng::seed_from_u64(seed);
        let mut tasks =
            ["refund-gate", "return-refund-recon", "ledger"].map(|name| world.task(name, "one"));
        let lives: Vec<Life> = (0..ORDERS).map(|n| life(n, &mut random)).collect();
        let mut provider = Provider::default();
        let mut facts: Vec<(&str, Text, Event)> = Vec::new();
        for life in &lives {
            provider.captured.insert(life.order.clone(), 15_900);
            let with_order = life.facts.iter().cloned();
            facts.extend(with_order.map(|(topic, event)| (topic, life.order.clone(), event)));
        }
        let again: Vec<_> = facts
            .sample(&mut random, facts.len() / 2)
            .cloned()
            .collect();
        facts.extend(again);
        facts.shuffle(&mut random);
        for chunk in facts.chunks(12) {
            for (topic, order, event) in chunk {
                world.send(topic, order, event.clone());
            }
            let fault = [
                Injected::CommitLost,
                Injected::CommitAnswerLost,
                Injected::Send,
            ][random.random_range(0..3)];
            world.log.inject(fault);
            stir(&mut tasks);
            provider.serve(&world, &mut random);
        }
        // Failed attempts are tried again, and everything is judged after the horizon.
        for _ in 0..12 {
            let [gate, recon, ledger] = &mut tasks;
            world.settle(&mut [gate, recon, ledger]);
            provider.serve(&world, &mut random);
            world.advance(HOUR * 8);
        }
        let [gate, recon, ledger] = &mut tasks;
        world.settle(&mut [gate, recon, ledger]);
        check(&world, &lives, &provider, seed);
    }
}

fn check(world: &World, lives: &[Life], provider: &Provider, seed: u64) {
    // One refund paid once for each order that asked (invariant 9).
    let mut paid: BTreeMap<Uuid, usize> = BTreeMap::new();
    for ((refund, _), pays) in &provider.answers {
        *paid.entry(*refund).or_default() += usize::from(*pays);
    }
    let asked = lives
        .iter()
        .filter(|l| l.gap != Some("RETURN_WITHOUT_REFUND"));
    assert_eq!(paid.len(), asked.count(), "seed {seed}");
    assert!(paid.values().all(|n| *n == 1), "seed {seed}: {paid:?}");
    // Each return agrees or has exactly one open exception (invariant 11).
    let open = open_cases(world);
    for life in lives {
        let found = open.get(&life.order).cloned().unwrap_or_default();
        let expected: Vec<String> = life.gap.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "seed {seed} {}", life.order);
    }
    // Every posting balances, is made once, and the books end where the facts say.
    let mut ids = BTreeSet::new();
    let mut sums: BTreeMap<(Text, LedgerAccount), Decimal> = BTreeMap::new();
    for event in world.events(topic::LEDGER_POSTING) {
        let Event::LedgerPosting(p) = event else {
            panic!("not a posting")
        };
        assert!(ids.insert(p.posting_id), "seed {seed}: posted twice");
        let order = p.order_id.expect("an order");
        let mut difference = Decimal::ZERO;
        for e in p.entries {
            let signed = match e.side {
                LedgerSide::Debit => e.amount,
                _ => -e.amount,
            };
            difference += signed;
            *sums.entry((order.clone(), e.account)).or_default() += signed;
        }
        assert!(difference.is_zero(), "seed {seed}");
    }
    for life in lives {
        let balance = |account| {
            let sum = sums.get(&(life.order.clone(), account));
            sum.copied().unwrap_or_default()
        };
        let refunded = life.gap != Some("RETURN_WITHOUT_REFUND");
        let credited = life.gap != Some("CREDIT_NOTE_MISSING");
        let owed = i64::from(refunded) * 8_950 - i64::from(credited) * 8_950;
        assert_eq!(
            balance(LedgerAccount::CustomerDeposits),
            cents(0),
            "seed {seed}"
        );
        assert_eq!(
            balance(LedgerAccount::RefundLiability),
            cents(owed),
            "seed {seed}"
        );
        let held = 15_900 - i64::from(refunded) * 8_950;
        assert_eq!(
            balance(LedgerAccount::PspClearing),
            cents(held),
            "seed {seed}"
        );
    }
}
