//! What a position keeps, and what a commit writes, does not grow with its history.

use crate::{Store, at, counted, hold, position, received, units};
use crossdock::domain::stock::*;
use rand::prelude::*;

/// A header holds no more than this, whatever the history.
const HEADER_BYTES_MAX: usize = 3_000;

/// Ids are spread like those of real facts.
fn spread(sequence: i64) -> Movement {
    Movement {
        id: (sequence as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        ..received(sequence, 1)
    }
}

#[test]
fn a_key_with_a_million_movements_stays_bounded_in_state_and_in_what_a_commit_writes() {
    const TOTAL: i64 = 1_000_000;
    const PER_COMMIT: i64 = 25;
    let mut store = Store::default();
    let (mut header_max, mut shelf_max, mut commit_max, mut written) = (0, 0, 0, 0);
    for sequence in 0..TOTAL {
        let mut movement = spread(sequence);
        // Ten a second: no more than a part of 72 hours is in this stream.
        movement.recorded_at = at(sequence / 10);
        store
            .ledger
            .movement(&movement, &mut store.shelf, &mut store.journal)
            .expect("moved");
        if sequence % PER_COMMIT == PER_COMMIT - 1 {
            store.shelf.bytes_written = 0;
            store
                .ledger
                .store(&mut store.shelf, &mut store.journal, &mut store.header)
                .expect("stored");
            store.ledger = Ledger::from_state(&store.header).expect("read back");
            let commit = store.header.len() + store.shelf.bytes_written;
            header_max = header_max.max(store.header.len());
            commit_max = commit_max.max(commit);
            written += commit;
            if sequence % 1_000 == 999 {
                let shelf = store.shelf.slots.values().map(Vec::len).sum::<usize>();
                shelf_max = shelf_max.max(shelf);
            }
        }
    }
    assert_eq!(store.sellable(), units(TOTAL as i32));
    assert!(store.ledger.remembered() <= 65_536 + PER_COMMIT as usize);
    assert!(
        store.shelf.slots.len() < 64,
        "{} entries",
        store.shelf.slots.len()
    );
    assert!(header_max < HEADER_BYTES_MAX, "header {header_max} bytes");
    assert!(shelf_max < 2_000_000, "shelf {shelf_max} bytes");
    assert!(
        commit_max < 160_000,
        "the largest commit writes {commit_max} bytes"
    );
    let per_movement = written / TOTAL as usize;
    assert!(
        per_movement < 200,
        "{per_movement} bytes written a movement"
    );
    // The newest are known, the oldest refused: never dropped, never applied twice.
    assert_eq!(
        store
            .movement(&spread(TOTAL - 60_000))
            .expect("known")
            .physical,
        Applied::Duplicate
    );
    assert_eq!(store.movement(&spread(5)), Err(Refusal::LateBeyondHorizon));
    // A snapshot in the middle of what is remembered.
    let mut snapshot = counted(TOTAL - 10_001, 7);
    snapshot.recorded_at = at(TOTAL / 10);
    store.shelf.bytes_written = 0;
    store.snapshot(&snapshot).expect("taken in");
    assert_eq!(store.sellable(), units(10_007));
    assert_eq!(
        store.shelf.bytes_written, 0,
        "facts are not rewritten for a snapshot"
    );
}

#[test]
fn a_batch_for_a_hot_key_is_stored_in_one_run_and_its_duplicates_are_known() {
    let mut store = Store::default();
    let mut random = StdRng::seed_from_u64(7);
    let mut expected = 0;
    for batch in 0..20 {
        let mut heard: Vec<i64> = (batch * 700..(batch + 1) * 1_000).collect();
        heard.extend(heard.clone());
        heard.shuffle(&mut random);
        let ids = heard.iter().map(|s| spread(*s).id);
        store.ledger.seek(ids, &store.shelf).expect("sought");
        let mut fresh = 0;
        for sequence in heard {
            let moved = store.movement(&spread(sequence)).expect("moved");
            fresh += i32::from(moved.physical == Applied::Applied);
        }
        expected += fresh;
        store.commit();
    }
    assert_eq!(expected, 20_000);
    assert_eq!(store.sellable(), units(20_000));
}

#[test]
fn waiting_movements_outlast_the_horizon_and_are_limited() {
    let mut store = Store::default();
    store.snapshot(&counted(0, 0)).expect("taken in");
    let waiting = |sequence: i64| Movement {
        position: position(1, sequence),
        recorded_at: at(0),
        ..spread(sequence)
    };
    let mut taken = 0;
    while taken < 20_000 && store.movement(&waiting(taken)).is_ok() {
        taken += 1;
        if taken % 500 == 0 {
            store.commit();
        }
    }
    assert_eq!(taken, 16_384);
    assert_eq!(
        store.movement(&waiting(taken)),
        Err(Refusal::TooManyWaiting)
    );
    // A flood of the old epoch, much later: the waiting ones are kept, the flood is not.
    for sequence in 100_000..180_000 {
        let mut movement = spread(sequence);
        movement.recorded_at = at(5 * 86_400 + sequence / 1_000);
        store.movement(&movement).expect("moved");
        if sequence % 500 == 0 {
            store
                .ledger
                .store(&mut store.shelf, &mut store.journal, &mut store.header)
                .expect("stored");
        }
    }
    store.commit();
    assert!(store.ledger.remembered() <= 65_536 + 600);
    assert!(
        store.header.len() < 2 * HEADER_BYTES_MAX,
        "{}",
        store.header.len()
    );
    store.journal.clear();
    let mut snapshot = counted(383, 0);
    snapshot.as_of.epoch = 1;
    store.snapshot(&snapshot).expect("taken in");
    assert_eq!(store.sellable(), units(16_000));
    assert_eq!(
        store.journal.resolved.len(),
        16_384,
        "each is resolved, once"
    );
    let late = store.journal.resolved.iter();
    let applied = late.filter(|r| r.outcome == Applied::Applied).count();
    assert_eq!(applied, 16_000);
}

#[test]
fn a_position_with_many_open_claims_stays_bounded_in_what_a_commit_writes() {
    const CLAIMS: u128 = 20_000;
    let mut store = Store::default();
    store.receive(1, CLAIMS as i32);
    let (mut header_max, mut commit_max, mut written) = (0, 0, 0);
    let mut commit = |store: &mut Store| {
        store.commit();
        header_max = header_max.max(store.header.len());
        commit_max = commit_max.max(store.header.len() + store.shelf.bytes_written);
        written += store.header.len() + store.shelf.bytes_written;
        store.shelf.bytes_written = 0;
        store.journal.clear();
    };
    let order = |id: u128| Command {
        expires_at: Some(at(900 + id as i64 / 100)),
        recorded_at: at(id as i64 / 100),
        ..hold(id, 1)
    };
    for id in 0..CLAIMS {
        store.command(Action::Hold, &order(id));
        if id % 10 == 9 {
            commit(&mut store);
        }
    }
    assert_eq!(store.ledger.reserved(), units(CLAIMS as i32));
    for id in (0..CLAIMS).filter(|id| id % 3 != 0) {
        store.command(Action::Confirm, &order(id));
        if id % 30 < 3 {
            commit(&mut store);
        }
    }
    let mut calls = 0;
    while let Some(due) = store.ledger.next_expiry() {
        store.expire(due.max(at(900 + CLAIMS as i64)));
        commit(&mut store);
        calls += 1;
        assert!(calls < 1_000, "expiry comes to an end");
    }
    let left = (0..CLAIMS).filter(|id| id % 3 != 0).count() as i32;
    assert_eq!(store.ledger.reserved(), units(left));
    for id in (0..CLAIMS).filter(|id| id % 3 != 0) {
        store.command(Action::Release, &order(id));
        if id % 30 < 3 {
            commit(&mut store);
        }
    }
    commit(&mut store);
    assert_eq!(store.ledger.reserved(), units(0));
    let runs = store
        .shelf
        .slots
        .keys()
        .filter(|s| matches!(s, Slot::Agenda(_)));
    assert!(
        runs.count() < 8,
        "what is over leaves no trace in the agenda"
    );
    assert!(header_max < HEADER_BYTES_MAX, "header {header_max} bytes");
    assert!(commit_max < 700_000, "largest commit {commit_max} bytes");
    let per_command = written / (CLAIMS as usize * 2);
    assert!(per_command < 700, "{per_command} bytes written a command");
}
