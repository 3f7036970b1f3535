//! Identity and order of facts: deterministic ids, compound keys, source positions.

use std::fmt::Write as _;
use uuid::Uuid;

/// The namespace of every id that Crossdock derives. One constant for ever: changing it would make
/// every replayed fact a new one.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_3c52_0b7e_5a44_9c1e_7d20_c055_d0c8);

/// The id of a fact: `uuid5(NAMESPACE, source|epoch|recordId|leg|eventType)`.
///
/// `record_id` is the source's own identity of the fact (a movement line, an object and its
/// version), never a time stamp: two lines with one stamp stay two, and a re-read or a second way
/// of hearing of the same fact makes the same id. `leg` tells apart the facts that one source
/// record makes, for example the two sides of a transfer; empty where there is one.
pub fn event_id(source: &str, epoch: i32, record_id: &str, leg: &str, event_type: &str) -> Uuid {
    let mut name =
        String::with_capacity(source.len() + record_id.len() + leg.len() + event_type.len() + 16);
    let _ = write!(name, "{source}|{epoch}|{record_id}|{leg}|{event_type}");
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

/// The natural id of a business object: `uuid5(NAMESPACE, part|part|…)`, for example
/// `tenant|channel|channelOrderId` for an order or `code|entityKey|causeKey` for an exception.
pub fn natural_id(parts: &[&str]) -> Uuid {
    Uuid::new_v5(&NAMESPACE, parts.join("|").as_bytes())
}

/// A record key made of several parts, such as `sku|locationId`. `|` and `%` inside a part are
/// percent-encoded, so the key splits back without doubt.
pub fn compound_key(parts: &[&str]) -> compact_str::CompactString {
    let mut key = compact_str::CompactString::default();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            key.push('|');
        }
        for c in part.chars() {
            match c {
                '|' => key.push_str("%7C"),
                '%' => key.push_str("%25"),
                c => key.push(c),
            }
        }
    }
    key
}

/// The parts of a key made by [`compound_key`].
pub fn split_key(key: &str) -> Vec<String> {
    key.split('|')
        .map(|part| part.replace("%7C", "|").replace("%25", "%"))
        .collect()
}

/// Where a fact stands in its source's own order. A later epoch is always later: it begins when a
/// source's numbering restarts (restore, failover, reset).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Generation of the numbering.
    pub epoch: i32,
    /// Number within the generation.
    pub sequence: i64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.epoch, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_split_back_whatever_the_parts_hold() {
        for parts in [["A|B", "x"], ["50%", "y|%7C"], ["", "z"]] {
            assert_eq!(split_key(&compound_key(&parts)), parts);
        }
        assert_eq!(compound_key(&["SKU-1", "dc"]), "SKU-1|dc");
    }

    #[test]
    fn a_fact_read_twice_has_one_id_and_its_legs_have_two() {
        let id = |leg| event_id("tryton/main", 0, "stock.move,7", leg, "StockChanged");
        assert_eq!(id("out"), id("out"));
        assert_ne!(id("out"), id("in"));
    }
}
