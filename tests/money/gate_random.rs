//! `refund-gate` against a provider that pays each key once and enforces what was captured: any
//! order, repetition and doubt ends with the same money moved, and never with too much.

use super::*;
use crossdock::processors::RefundGate;
use rand::prelude::*;

/// A provider: what it captured, and what it has answered to each key. Cents.
#[derive(Default)]
struct Provider {
    captured: i64,
    refunded: i64,
    /// Outcome of each key: paid or definitely not.
    answers: BTreeMap<(Uuid, i32), bool>,
}

impl Provider {
    /// Handles a call; the same key has one effect and one answer.
    fn call(&mut self, refund: &RefundEvent, fails: bool) -> bool {
        let key = (refund.refund_id, refund.attempt);
        let cents = refund.amount.amount.units() / 100;
        *self.answers.entry(key).or_insert_with(|| {
            let pays = !fails && self.refunded + cents <= self.captured;
            if pays {
                self.refunded += cents;
            }
            pays
        })
    }
}

/// A world in which everything that is asked for can be granted in the end.
struct Plan {
    facts: Vec<Event>,
    names: Vec<String>,
    asked: i64,
    captured: i64,
}

fn plan(random: &mut StdRng, enough: bool) -> Plan {
    let (mut facts, mut names) = (Vec::<Event>::new(), Vec::new());
    let units = random.random_range(1..5);
    let price = random.random_range(100..5_000);
    for n in 0..units {
        let name = format!("r{n}");
        facts.push(request(&name, vec![item("1", 1, price, 0)]).into());
        names.push(name);
    }
    let asked = units * price;
    // Captured in parts; of the return, two versions and a second one.
    let captures = random.random_range(1..4);
    let whole = if enough {
        asked
    } else {
        asked - random.random_range(1..=price)
    };
    let mut left = whole;
    for n in 0..captures {
        let part = if n == captures - 1 { left } else { left / 2 };
        if part > 0 {
            facts.push(captured("p", &format!("c{n}"), part).into());
        }
        left -= part;
    }
    let first = random.random_range(0..=units) as i32;
    facts.push(returned("ret", 1, &[("1", 0)]).into());
    facts.push(returned("ret", 2, &[("1", first)]).into());
    facts.push(returned("again", 1, &[("1", units as i32 - first)]).into());
    Plan {
        facts,
        names,
        asked,
        captured: whole,
    }
}

/// Sends the facts shuffled and doubled while a provider answers, and gives what the refunds ended in.
fn run(plan: &Plan, seed: u64) -> (BTreeMap<Uuid, RefundStatus>, Provider, Driven<RefundGate>) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut gate = of_order(RefundGate::new());
    let mut provider = Provider {
        captured: plan.captured,
        ..Provider::default()
    };
    let mut queue = plan.facts.clone();
    let again: Vec<Event> = queue
        .sample(&mut random, queue.len() / 2)
        .cloned()
        .collect();
    queue.extend(again);
    queue.shuffle(&mut random);
    let mut heard = 0;
    loop {
        if queue.is_empty() {
            gate.pass(Duration::from_secs(30 * 60));
        } else {
            let size = random.random_range(1..=queue.len().min(3));
            let batch: Vec<Event> = queue.drain(..size).collect();
            gate.send(batch);
            gate.pass(Duration::from_secs(random.random_range(0..60)));
        }
        let fresh: Vec<RefundEvent> = gate.said[heard..]
            .iter()
            .filter_map(|e| match e {
                Event::RefundEvent(e) => Some(e.clone()),
                _ => None,
            })
            .collect();
        heard = gate.said.len();
        for refund in fresh {
            let called = matches!(
                refund.status,
                RefundStatus::Submitted | RefundStatus::OutcomeUnknown
            );
            if !called {
                continue;
            }
            let fails = refund.attempt < 3 && random.random_bool(0.3);
            let paid = provider.call(&refund, fails);
            let name = plan.names.iter().find(|n| id(n) == refund.refund_id);
            let name = name.expect("a refund that was asked for");
            let reference = format!("{name}-{}", refund.attempt);
            let cents = refund.amount.amount.units() / 100;
            let key = Some((name.as_str(), refund.attempt as u32));
            let mut answers = Vec::new();
            let doubt = refund.status == RefundStatus::Submitted && random.random_bool(0.3);
            if doubt {
                answers.push(answer(
                    PaymentKind::RefundUnknown,
                    key,
                    &reference,
                    cents,
                    1,
                ));
            } else {
                let kind = if paid {
                    PaymentKind::Refunded
                } else {
                    PaymentKind::RefundFailed
                };
                answers.push(answer(kind, key, &reference, cents, 2));
            }
            for mut answer in answers {
                answer.meta.occurred_at = gate.now;
                answer.meta.recorded_at = gate.now;
                // Told twice, in any place of what is still to come.
                for _ in 0..2 {
                    let place = random.random_range(0..=queue.len());
                    queue.insert(place, answer.clone().into());
                }
            }
        }
        if queue.is_empty() && gate.now > at(4 * 24 * 3_600) {
            break;
        }
    }
    let mut ends = BTreeMap::new();
    for event in &gate.said {
        if let Event::RefundEvent(e) = event {
            ends.insert(e.refund_id, e.status);
        }
    }
    (ends, provider, gate)
}

#[test]
fn what_can_be_granted_is_paid_exactly_once_whatever_the_order() {
    for seed in 0..300 {
        let plan = plan(&mut StdRng::seed_from_u64(seed), true);
        let (ends, provider, gate) = run(&plan, seed);
        let expected: BTreeMap<Uuid, RefundStatus> = plan
            .names
            .iter()
            .map(|n| (id(n), RefundStatus::Completed))
            .collect();
        assert_eq!(ends, expected, "seed {seed}");
        assert_eq!(provider.refunded, plan.asked, "seed {seed}");
        let paid = |name: &String| {
            let of_refund = provider
                .answers
                .iter()
                .filter(|((r, _), paid)| *r == id(name) && **paid);
            of_refund.count()
        };
        assert!(
            plan.names.iter().all(|n| paid(n) == 1),
            "seed {seed}: once each"
        );
        assert!(gate.open().is_empty(), "seed {seed}: {:?}", gate.open());
        assert!(gate.refused.is_empty(), "seed {seed}");
    }
}

#[test]
fn what_exceeds_the_capture_is_refused_with_one_exception_and_the_provider_never_has_to_say_no() {
    for seed in 0..300 {
        let plan = plan(&mut StdRng::seed_from_u64(seed), false);
        let (ends, provider, gate) = run(&plan, seed);
        assert!(provider.refunded <= provider.captured, "seed {seed}");
        let refused = ends
            .values()
            .filter(|s| **s == RefundStatus::Rejected)
            .count();
        assert!(refused >= 1, "seed {seed}: {ends:?}");
        assert_eq!(gate.open().len(), refused, "seed {seed}: {:?}", gate.open());
        assert!(
            gate.codes().iter().all(|c| c == "REFUND_EXCEEDS_CAPTURE"),
            "seed {seed}"
        );
        // Every record that waited was decided.
        let waited = gate
            .outcomes
            .iter()
            .filter(|o| **o == Outcome::Buffered)
            .count();
        assert_eq!(gate.resolved.len(), waited, "seed {seed}");
    }
}

#[test]
fn a_replay_of_everything_decides_nothing_again() {
    for seed in 0..50 {
        let plan = plan(&mut StdRng::seed_from_u64(seed), true);
        let (_, _, mut gate) = run(&plan, seed);
        let (before, said) = (gate.state.clone(), gate.said.len());
        for fact in plan.facts {
            gate.send(vec![fact]);
        }
        assert_eq!(gate.said.len(), said, "seed {seed}");
        let sizes = |entries: &Entries| entries.0.values().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(&before), sizes(&gate.state), "seed {seed}");
    }
}
