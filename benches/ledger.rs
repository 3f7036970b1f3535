//! What the rules of stock cost by themselves, without a log: `cargo bench --bench ledger`.
//!
//! Each line is one way of hearing of movements; for each movement it says the time of reading the
//! position, applying the movement and writing the position back, and the bytes that a commit writes.

use crossdock::domain::stock::{Effect, Journal, Ledger, Movement, Shelf, Slot};
use crossdock::domain::{Decimal, Position, Timestamp};
use rand::prelude::*;
use rustc_hash::FxHashMap;
use std::hint::black_box;
use std::time::Instant;

/// Headers and shelves of all positions, as a processor's state holds them.
#[derive(Default)]
struct World {
    headers: FxHashMap<u32, Vec<u8>>,
    slots: FxHashMap<(u32, Slot), Vec<u8>>,
    key: u32,
    written: usize,
}

impl Shelf for World {
    fn get(&self, slot: Slot) -> Option<&[u8]> {
        self.slots.get(&(self.key, slot)).map(Vec::as_slice)
    }
    fn put(&mut self, slot: Slot, bytes: &[u8]) {
        self.written += bytes.len();
        self.slots.insert((self.key, slot), bytes.to_vec());
    }
    fn delete(&mut self, slot: Slot) {
        self.slots.remove(&(self.key, slot));
    }
}

impl World {
    /// One transaction's movements of one position.
    fn apply(&mut self, key: u32, movements: &[Movement], bytes: &mut Vec<u8>) {
        self.key = key;
        let mut journal = Journal::default();
        let mut ledger = match self.headers.get(&key) {
            Some(header) => Ledger::from_state(header).expect("a header"),
            None => Ledger::default(),
        };
        let before = ledger.emitted();
        if movements.len() > 1 {
            let ids = movements.iter().map(|m| m.id);
            ledger.seek(ids, self).expect("sought");
        }
        for movement in movements {
            let moved = ledger.movement(movement, self, &mut journal);
            black_box(moved.expect("moved"));
        }
        if before != Some(ledger.level()) {
            black_box(ledger.next_level_version());
        }
        ledger.store(self, &mut journal, bytes).expect("stored");
        self.written += bytes.len();
        match self.headers.get_mut(&key) {
            Some(header) => {
                header.clear();
                header.extend_from_slice(bytes);
            }
            None => {
                self.headers.insert(key, bytes.clone());
            }
        }
    }
}

fn movement(random: &mut SmallRng, number: i64) -> Movement {
    let time = Timestamp(1_700_000_000_000_000 + number * 200);
    Movement {
        id: random.random(),
        position: Position {
            epoch: 0,
            sequence: number,
        },
        occurred_at: time,
        recorded_at: time,
        effect: Effect {
            sellable: Decimal::from(random.random_range(-3..4)),
            ..Effect::default()
        },
        ..Movement::default()
    }
}

fn report(name: &str, world: &World, movements: usize, started: Instant) {
    let each = started.elapsed().as_nanos() as f64 / movements as f64 / 1_000.0;
    let kept: usize = world.headers.values().map(Vec::len).sum::<usize>()
        + world.slots.values().map(Vec::len).sum::<usize>();
    println!(
        "{name:44} {each:7.3} µs/movement  {:5} bytes written/movement  {:4} MB kept, {} positions",
        world.written / movements,
        kept / 1_000_000,
        world.headers.len(),
    );
}

/// Positions with a little history, one movement each.
fn small(history: usize) {
    const KEYS: u32 = 20_000;
    let mut random = SmallRng::seed_from_u64(1);
    let (mut world, mut bytes) = (World::default(), Vec::new());
    let mut number = 0;
    for _ in 0..history {
        for key in 0..KEYS {
            number += 1;
            world.apply(key, &[movement(&mut random, number)], &mut bytes);
        }
    }
    let fresh: Vec<_> = (0..KEYS)
        .map(|_| {
            number += 1;
            movement(&mut random, number)
        })
        .collect();
    world.written = 0;
    let started = Instant::now();
    for (key, movement) in fresh.iter().enumerate() {
        world.apply(key as u32, std::slice::from_ref(movement), &mut bytes);
    }
    let name = format!("{history} movements of history, one more");
    report(&name, &world, KEYS as usize, started);
}

/// One position that everything happens at.
fn hot(per_commit: usize) {
    const TOTAL: usize = 500_000;
    let mut random = SmallRng::seed_from_u64(2);
    let movements: Vec<_> = (0..TOTAL as i64)
        .map(|number| movement(&mut random, number))
        .collect();
    let (mut world, mut bytes) = (World::default(), Vec::new());
    let started = Instant::now();
    for batch in movements.chunks(per_commit) {
        world.apply(0, batch, &mut bytes);
    }
    let name = format!("one hot position, {per_commit} a commit");
    report(&name, &world, TOTAL, started);
}

/// Three million movements over a million positions, Zipf-distributed, grouped by position within a
/// transaction.
fn zipf(per_commit: usize) {
    const TOTAL: usize = 3_000_000;
    const KEYS: f64 = 1_000_000.0;
    let mut random = SmallRng::seed_from_u64(3);
    let (mut world, mut bytes) = (World::default(), Vec::new());
    let (mut elapsed, mut number) = (std::time::Duration::ZERO, 0);
    for _ in 0..TOTAL / per_commit {
        let mut batch: Vec<(u32, Movement)> = (0..per_commit)
            .map(|_| {
                number += 1;
                let rank = KEYS.powf(random.random::<f64>()) as u32;
                (
                    rank.wrapping_mul(2_654_435_761) >> 8,
                    movement(&mut random, number),
                )
            })
            .collect();
        batch.sort_by_key(|(key, _)| *key);
        let movements: Vec<Movement> = batch.iter().map(|(_, m)| *m).collect();
        let started = Instant::now();
        let mut first = 0;
        for same in batch.chunk_by(|a, b| a.0 == b.0) {
            world.apply(same[0].0, &movements[first..first + same.len()], &mut bytes);
            first += same.len();
        }
        elapsed += started.elapsed();
    }
    let name = format!("3 M over 1 M positions, {per_commit} a commit");
    report(&name, &world, TOTAL, Instant::now() - elapsed);
}

fn main() {
    for history in [0, 4, 12, 40, 400] {
        small(history);
    }
    for per_commit in [1, 25, 1_000] {
        hot(per_commit);
    }
    for per_commit in [2_000, 25_000] {
        zipf(per_commit);
    }
}
