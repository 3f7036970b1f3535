//! Whether a history of transactions is one that a log may show, after Jepsen's checks of Kafka: nothing
//! that was acknowledged is lost, nothing that was taken back is seen, a transaction is seen whole or
//! not at all, nothing is seen twice, and what one client wrote of a key stays in its order.

use std::collections::{BTreeMap, BTreeSet};

/// What a client wrote: no two writes are alike.
pub type Value = i64;

/// How a transaction ended as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The log has acknowledged that it is committed.
    Committed,
    /// Nobody ever asked to commit it.
    Aborted,
    /// It was to be committed, and nobody has heard whether it is.
    Unknown,
}

/// A transaction, in the order in which its client made them.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub client: usize,
    /// Keys and values, in order.
    pub writes: Vec<(String, Value)>,
    pub ending: Ending,
}

/// What was seen of a key at a place of the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub value: Value,
}

/// What no log may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anomaly {
    /// Committed, and not there at the end.
    LostWrite(Value),
    /// Seen by somebody although its transaction was never to be committed.
    AbortedRead(Value),
    /// Of a transaction some writes are there and some are not.
    TornTransaction { there: Value, missing: Value },
    /// Of a key, what one client wrote later stands before what it wrote earlier.
    OutOfOrder { earlier: Value, later: Value },
    /// There more than once.
    Duplicate(Value),
    /// Seen, and never written.
    Phantom(Value),
    /// Seen by somebody, and not there at the end, or elsewhere.
    Vanished(Value),
}

/// Every anomaly of a history: `readers` saw it while it came about, each in the order of its own
/// reading, and `end` is what is there when nothing happens any more.
pub fn check(transactions: &[Transaction], readers: &[Vec<Seen>], end: &[Seen]) -> Vec<Anomaly> {
    let mut found = Vec::new();
    let mut places: BTreeMap<Value, Vec<&Seen>> = BTreeMap::new();
    for seen in end {
        places.entry(seen.value).or_default().push(seen);
    }
    let mut written: BTreeMap<Value, &Transaction> = BTreeMap::new();
    for transaction in transactions {
        written.extend(transaction.writes.iter().map(|(_, v)| (*v, transaction)));
    }
    for (value, places) in &places {
        if places.len() > 1 {
            found.push(Anomaly::Duplicate(*value));
        }
    }
    let all: BTreeSet<&Seen> = readers.iter().flatten().chain(end).collect();
    let settled: BTreeSet<&Seen> = end.iter().collect();
    for seen in all {
        match written.get(&seen.value) {
            None => found.push(Anomaly::Phantom(seen.value)),
            Some(t) if t.ending == Ending::Aborted => {
                found.push(Anomaly::AbortedRead(seen.value));
            }
            Some(_) if !settled.contains(seen) => found.push(Anomaly::Vanished(seen.value)),
            Some(_) => {}
        }
    }
    for transaction in transactions {
        let is_there = |(_, value): &&(String, Value)| places.contains_key(value);
        let missing = transaction.writes.iter().find(|w| !is_there(w));
        let there = transaction.writes.iter().find(is_there);
        match (transaction.ending, there, missing) {
            (_, Some(there), Some(missing)) => found.push(Anomaly::TornTransaction {
                there: there.1,
                missing: missing.1,
            }),
            (Ending::Committed, None, Some(missing)) => {
                found.push(Anomaly::LostWrite(missing.1));
            }
            _ => {}
        }
    }
    found.extend(disorder(transactions, &places));
    found
}

/// What stands in another order than its client wrote it.
fn disorder(transactions: &[Transaction], places: &BTreeMap<Value, Vec<&Seen>>) -> Vec<Anomaly> {
    let mut last: BTreeMap<(usize, &str), (Value, (i32, i64))> = BTreeMap::new();
    let mut found = Vec::new();
    for transaction in transactions {
        for (key, value) in &transaction.writes {
            let Some(seen) = places.get(value).and_then(|p| p.first()) else {
                continue;
            };
            // A key has one partition, where offsets tell the order.
            let place = (seen.partition, seen.offset);
            let before = last.insert((transaction.client, key), (*value, place));
            if let Some((earlier, at)) = before
                && (at.0 != place.0 || at.1 > place.1)
            {
                let later = *value;
                found.push(Anomaly::OutOfOrder { earlier, later });
            }
        }
    }
    found
}

fn transaction(client: usize, ending: Ending, writes: &[(&str, Value)]) -> Transaction {
    Transaction {
        client,
        writes: writes.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(),
        ending,
    }
}

fn seen(key: &str, offset: i64, value: Value) -> Seen {
    Seen {
        partition: 0,
        offset,
        key: key.to_owned(),
        value,
    }
}

/// Two clients, of whom one is taken back once and one does not hear once: as it may be.
fn good() -> (Vec<Transaction>, Vec<Vec<Seen>>, Vec<Seen>) {
    use Ending::*;
    let transactions = vec![
        transaction(0, Committed, &[("a", 1), ("b", 2)]),
        transaction(1, Committed, &[("a", 10)]),
        transaction(0, Aborted, &[("a", 3), ("b", 4)]),
        transaction(1, Unknown, &[("a", 11), ("b", 12)]),
        transaction(0, Unknown, &[("a", 5), ("b", 6)]),
        transaction(0, Committed, &[("a", 7)]),
    ];
    let end = vec![
        seen("a", 0, 1),
        seen("b", 1, 2),
        seen("a", 3, 10),
        seen("a", 8, 11),
        seen("b", 9, 12),
        seen("a", 11, 7),
    ];
    (transactions, vec![end[..3].to_vec(), end.clone()], end)
}

#[test]
fn a_good_history_has_no_anomaly() {
    let (transactions, readers, end) = good();
    assert_eq!(check(&transactions, &readers, &end), []);
}

/// The anomalies of the good history with something done to what is there.
fn spoilt(spoil: impl FnOnce(&mut Vec<Vec<Seen>>, &mut Vec<Seen>)) -> Vec<Anomaly> {
    let (transactions, mut readers, mut end) = good();
    spoil(&mut readers, &mut end);
    check(&transactions, &readers, &end)
}

#[test]
fn a_lost_write_is_found() {
    let found = spoilt(|readers, end| {
        readers.clear();
        end.retain(|s| s.value != 10);
    });
    assert_eq!(found, [Anomaly::LostWrite(10)]);
}

#[test]
fn a_read_of_what_was_taken_back_is_found_at_the_end_and_in_between() {
    let found = spoilt(|readers, _| readers[0].push(seen("a", 5, 3)));
    assert_eq!(found, [Anomaly::AbortedRead(3)]);
    let found = spoilt(|_, end| end.extend([seen("a", 5, 3), seen("b", 6, 4)]));
    assert_eq!(found, [Anomaly::AbortedRead(3), Anomaly::AbortedRead(4)]);
}

#[test]
fn a_torn_transaction_is_found_whether_its_end_is_known_or_not() {
    let found = spoilt(|readers, end| {
        readers.clear();
        end.retain(|s| s.value != 2);
    });
    assert_eq!(
        found,
        [Anomaly::TornTransaction {
            there: 1,
            missing: 2
        }]
    );
    let found = spoilt(|readers, end| {
        readers.clear();
        end.retain(|s| s.value != 11);
    });
    assert_eq!(
        found,
        [Anomaly::TornTransaction {
            there: 12,
            missing: 11
        }]
    );
}

#[test]
fn another_order_within_a_key_is_found_and_between_keys_and_clients_there_is_none() {
    let found = spoilt(|readers, end| {
        readers.clear();
        for s in end.iter_mut() {
            s.offset = match s.value {
                1 => 11,
                7 => 0,
                _ => s.offset,
            };
        }
    });
    assert_eq!(
        found,
        [Anomaly::OutOfOrder {
            earlier: 1,
            later: 7
        }]
    );
    let found = spoilt(|readers, end| {
        readers.clear();
        for s in end.iter_mut() {
            s.offset = match s.value {
                1 => 2,
                10 => 0,
                _ => s.offset,
            };
        }
    });
    assert_eq!(found, []);
}

#[test]
fn what_is_there_twice_or_was_never_written_or_is_gone_again_is_found() {
    let found = spoilt(|_, end| end.push(seen("a", 12, 7)));
    assert_eq!(found, [Anomaly::Duplicate(7)]);
    let found = spoilt(|_, end| end.push(seen("a", 12, 99)));
    assert_eq!(found, [Anomaly::Phantom(99)]);
    let found = spoilt(|readers, _| readers[1].push(seen("a", 12, 5)));
    assert_eq!(found, [Anomaly::Vanished(5)]);
}
