//! Random schedules of facts and commands: what must hold after every step, and replay.

use crate::{Store, at, hold, received, units};
use crossdock::domain::stock::*;
use crossdock::domain::{Decimal, Timestamp};
use rand::prelude::*;
use std::collections::BTreeMap;

const CHANNELS: [&str; 3] = ["web", "app", "shop"];

fn policy(random: &mut StdRng, version: i64) -> Policy {
    let mut allocations = Vec::new();
    for channel in CHANNELS {
        if random.random_bool(0.4) {
            let (hard, share) = (random.random_range(0..6), random.random_range(0..=100));
            allocations.push(Allocation {
                channel: channel.into(),
                hard: random.random_bool(0.5).then(|| units(hard)),
                share_percent: random.random_bool(0.5).then(|| f64::from(share)),
                buffer: None,
            });
        }
    }
    Policy {
        version,
        safety: units(random.random_range(0..3)),
        allocations,
        oversell: *[Oversell::Block, Oversell::BackorderToLimit, Oversell::Allow]
            .choose(random)
            .expect("one"),
        backorder_limit: Some(units(random.random_range(0..8))),
    }
}

/// What must hold of a position and of everything decided on it so far.
fn check(store: &Store, decisions: &[Decision], seed: u64) {
    let mut claims: BTreeMap<u128, &Claim> = BTreeMap::new();
    let mut granted: BTreeMap<u128, Decimal> = BTreeMap::new();
    for (index, d) in decisions.iter().enumerate() {
        assert_eq!(d.sequence, index as i64 + 1, "seed {seed}: no gap");
        if d.claim.mode == Mode::Strict {
            assert!(d.granted <= d.ats_before, "seed {seed}: {d:?}");
        }
        if let Some(before) = claims.insert(d.id, &d.claim) {
            assert_eq!(d.claim.version, before.version + 1, "seed {seed}");
            assert!(
                !before.status.is_terminal(),
                "seed {seed}: over is over: {d:?}"
            );
        }
        *granted.entry(d.id).or_default() += d.granted;
    }
    let mut active: BTreeMap<&str, Decimal> = BTreeMap::new();
    let mut backordered = Decimal::ZERO;
    for (id, claim) in &claims {
        assert_eq!(store.claim(*id), **claim, "seed {seed}");
        // held = consumed + released + expired + active
        let rest = claim.held - claim.consumed;
        assert!(!rest.is_negative(), "seed {seed}: {claim:?}");
        if claim.status.is_terminal() {
            assert_eq!(claim.active(), Decimal::ZERO);
        } else {
            assert_eq!(claim.active(), rest, "seed {seed}: {claim:?}");
        }
        assert!(claim.held + claim.backordered <= claim.requested.max(claim.consumed));
        *active.entry(&claim.channel).or_default() += claim.active();
        backordered += claim.backordered;
    }
    let reserved: Decimal = active.values().copied().sum();
    assert_eq!(store.ledger.reserved(), reserved, "seed {seed}");
    assert_eq!(store.ledger.backordered(), backordered, "seed {seed}");
    // Stock that is free to a backordered claim is never left lying.
    for claim in claims.values().filter(|c| c.backordered.is_positive()) {
        let free = store.sellable() - reserved;
        match claim.mode {
            Mode::Forced => assert!(!free.is_positive(), "seed {seed}"),
            Mode::Strict => assert!(
                !free.is_positive() || store.ledger.ats(&claim.channel) < claim.backordered,
                "seed {seed}: {claim:?}"
            ),
        }
    }
}

struct Run {
    store: Store,
    decisions: Vec<Decision>,
    facts: Vec<Movement>,
    policies: Vec<Policy>,
}

fn run(seed: u64, steps: usize) -> Run {
    let mut random = StdRng::seed_from_u64(seed);
    let mut store = Store::default();
    let (mut decisions, mut facts, mut policies) = (Vec::new(), Vec::new(), Vec::new());
    let (mut commands, mut now) = (Vec::<(Action, Command)>::new(), 0);
    for step in 0..steps {
        now += random.random_range(0..30);
        let claim = random.random_range(0..(steps as u128 / 4).max(4));
        match random.random_range(0..20) {
            0..=5 => {
                let mut movement = received(step as i64, random.random_range(-4..8));
                if movement.effect.sellable.is_negative() && random.random_bool(0.8) {
                    movement.consumes = Some((claim, -movement.effect.sellable));
                }
                store.movement(&movement).expect("moved");
                facts.push(movement);
            }
            6 => {
                let new = policy(&mut random, step as i64);
                store.policy(new.clone());
                policies.push(new);
            }
            7 => store.expire(at(now)),
            // The same record again.
            8 if !commands.is_empty() => {
                let (action, command) = commands.choose(&mut random).expect("one").clone();
                let before = store.journal.decisions.len();
                let verdict = store.command(action, &command);
                if verdict == Verdict::Duplicate || verdict == Verdict::Superseded {
                    assert_eq!(store.journal.decisions.len(), before, "seed {seed}");
                }
            }
            kind => {
                let action = match kind {
                    9..=14 => Action::Hold,
                    15..=16 => Action::Confirm,
                    17..=18 => Action::Release,
                    _ => Action::Reassign,
                };
                let command = Command {
                    channel: CHANNELS[claim as usize % 3].into(),
                    mode: if random.random_bool(0.25) {
                        Mode::Forced
                    } else {
                        Mode::Strict
                    },
                    expires_at: random.random_bool(0.5).then(|| at(now + 60)),
                    promise_at: random
                        .random_bool(0.5)
                        .then(|| at(random.random_range(0..999))),
                    recorded_at: at(now),
                    ..hold(claim, random.random_range(1..5))
                };
                store.command(action, &command);
                commands.push((action, command));
            }
        }
        if random.random_bool(0.3) {
            store.commit();
        }
        decisions.append(&mut store.journal.decisions);
        check(&store, &decisions, seed);
    }
    store.commit();
    Run {
        store,
        decisions,
        facts,
        policies,
    }
}

#[test]
fn grants_stay_within_stock_and_books_balance_after_every_step() {
    for seed in 0..300 {
        run(seed, 120);
    }
}

#[test]
fn recorded_decisions_replayed_give_the_same_claims() {
    for seed in 0..200 {
        let live = run(seed, 80);
        let mut random = StdRng::seed_from_u64(seed + 1_000_000);
        let mut rebuilt = Store::default();
        // Facts in any order and without their effect on claims, which the decisions tell of.
        let mut facts = live.facts.clone();
        facts.shuffle(&mut random);
        for fact in &facts {
            let goods_only = Movement {
                consumes: None,
                ..*fact
            };
            rebuilt.movement(&goods_only).expect("moved");
        }
        for decision in &live.decisions {
            rebuilt
                .ledger
                .replay(decision, &mut rebuilt.shelf)
                .expect("replayed");
        }
        if let Some(policy) = live.policies.last() {
            rebuilt.policy(policy.clone());
        }
        assert!(
            rebuilt.journal.decisions.is_empty(),
            "seed {seed}: nothing is decided again"
        );
        rebuilt.commit();
        for decision in &live.decisions {
            let id = decision.id;
            assert_eq!(rebuilt.claim(id), live.store.claim(id), "seed {seed}");
        }
        assert_eq!(
            rebuilt.ledger.level(),
            live.store.ledger.level(),
            "seed {seed}"
        );
        for channel in CHANNELS {
            let (again, first) = (rebuilt.ledger.ats(channel), live.store.ledger.ats(channel));
            assert_eq!(again, first, "seed {seed} {channel}");
        }
        // What is decided next is decided alike.
        let mut stores = [rebuilt, live.store];
        let next = stores.each_mut().map(|store| {
            store.journal.clear();
            store.expire(Timestamp(i64::MAX));
            store.command(Action::Hold, &hold(99_999, 2));
            std::mem::take(&mut store.journal.decisions)
        });
        assert_eq!(next[0], next[1], "seed {seed}");
    }
}
