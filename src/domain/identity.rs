//! Identity and order of facts: deterministic ids, compound keys, source positions.

use sha1::{Digest, Sha1};
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
    let mut digits = itoa::Buffer::new();
    natural_id(&[source, digits.format(epoch), record_id, leg, event_type])
}

/// The natural id of a business object: `uuid5(NAMESPACE, part|part|…)`, the parts encoded as in a
/// [`compound_key`], so that different parts never make one id. The functions below name the parts for
/// each kind of object.
pub fn natural_id(parts: &[&str]) -> Uuid {
    let mut name = Name {
        hash: Sha1::new_with_prefix(NAMESPACE.as_bytes()),
        held: [0; NAME_HELD],
        length: 0,
    };
    // Hashing does not fail.
    let _ = push_parts(&mut name, parts);
    name.hash.update(&name.held[..name.length]);
    let mut id = [0; 16];
    id.copy_from_slice(&name.hash.finalize()[..16]);
    uuid::Builder::from_sha1_bytes(id).into_uuid()
}

/// Names are seldom longer.
const NAME_HELD: usize = 176;

/// A name on its way into a hash, to which it is handed in one piece: in many it costs twice as much.
struct Name {
    hash: Sha1,
    held: [u8; NAME_HELD],
    length: usize,
}

impl std::fmt::Write for Name {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        if let Some(place) = self.held.get_mut(self.length..end) {
            place.copy_from_slice(text.as_bytes());
            self.length = end;
        } else {
            self.hash.update(&self.held[..self.length]);
            self.hash.update(text);
            self.length = 0;
        }
        Ok(())
    }
}

/// The id of an order: `tenant|channel|channelOrderId`. Whoever reads the order from its channel,
/// again or in another way, makes the same one.
pub fn order_id(tenant: &str, channel: &str, channel_order_id: &str) -> Uuid {
    natural_id(&[tenant, channel, channel_order_id])
}

/// The id of a payment: the order, the provider, and the provider's name for the payment as a whole
/// (not for one of its captures).
pub fn payment_id(order_id: &str, psp: &str, psp_payment: &str) -> Uuid {
    natural_id(&["payment", order_id, psp, psp_payment])
}

/// The id of a return: the order, the system that opened the return, and its name for it.
pub fn return_id(order_id: &str, source: &str, source_return_id: &str) -> Uuid {
    natural_id(&["return", order_id, source, source_return_id])
}

/// The id of a refund: the order, what kind of thing is the cause (`return`, `cancellation`,
/// `appeasement`, `psp`), which one, and a number that counts refunds of one cause from 0.
pub fn refund_id(order_id: &str, cause: &str, cause_id: &str, sequence: u32) -> Uuid {
    let sequence = sequence.to_string();
    natural_id(&["refund", order_id, cause, cause_id, &sequence])
}

/// The id of a reservation: the order, its line, the location, and a number that counts the tries for
/// the line from 1.
pub fn reservation_id(order_id: &str, line: &str, location: &str, attempt: u32) -> Uuid {
    let attempt = attempt.to_string();
    natural_id(&[order_id, line, location, &attempt])
}

/// The id of an exception: `code|entityKey|causeKey`, so that what recurs updates one case.
pub fn exception_id(code: &str, entity_key: &str, cause_key: &str) -> Uuid {
    natural_id(&[code, entity_key, cause_key])
}

/// A record key made of several parts, such as `sku|locationId`. `|` and `%` inside a part are
/// percent-encoded, so the key splits back without doubt.
pub fn compound_key(parts: &[&str]) -> compact_str::CompactString {
    let mut key = compact_str::CompactString::default();
    // Writing to a text in memory does not fail.
    let _ = push_parts(&mut key, parts);
    key
}

fn push_parts(key: &mut impl std::fmt::Write, parts: &[&str]) -> std::fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            key.write_str("|")?;
        }
        push_part(key, part)?;
    }
    Ok(())
}

/// Appends a part with `|` and `%` percent-encoded.
fn push_part(key: &mut impl std::fmt::Write, part: &str) -> std::fmt::Result {
    let mut rest = part;
    while let Some(at) = memchr::memchr2(b'|', b'%', rest.as_bytes()) {
        key.write_str(&rest[..at])?;
        key.write_str(if rest[at..].starts_with('|') {
            "%7C"
        } else {
            "%25"
        })?;
        rest = &rest[at + 1..];
    }
    key.write_str(rest)
}

/// The parts of a key made by [`compound_key`].
pub fn split_key(key: &str) -> Vec<String> {
    key.split('|')
        .map(|part| match part.contains('%') {
            true => part.replace("%7C", "|").replace("%25", "%"),
            false => part.to_owned(),
        })
        .collect()
}

/// Part `number` of a key made by [`compound_key`]; empty where there are fewer.
pub fn key_part(key: &str, number: usize) -> compact_str::CompactString {
    let part = key.split('|').nth(number).unwrap_or_default();
    match part.contains('%') {
        true => part.replace("%7C", "|").replace("%25", "%").into(),
        false => part.into(),
    }
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
            let key = compound_key(&parts);
            assert_eq!(split_key(&key), parts);
            assert_eq!([key_part(&key, 0), key_part(&key, 1)], parts);
            assert_eq!(key_part(&key, 2), "");
        }
        assert_eq!(compound_key(&["SKU-1", "dc"]), "SKU-1|dc");
    }

    #[test]
    fn the_id_of_a_name_of_any_length_is_that_of_its_text() {
        for length in [0, 1, NAME_HELD - 2, NAME_HELD - 1, NAME_HELD, 3 * NAME_HELD] {
            let parts = ["x", &"y".repeat(length), "50%|"];
            let expected = Uuid::new_v5(&NAMESPACE, compound_key(&parts).as_bytes());
            assert_eq!(natural_id(&parts), expected, "{length}");
        }
    }

    #[test]
    fn parts_that_hold_a_separator_do_not_make_two_objects_one() {
        assert_ne!(order_id("t", "a|b", "c"), order_id("t", "a", "b|c"));
        assert_ne!(payment_id("o", "p", "1"), return_id("o", "p", "1"));
        assert_ne!(
            refund_id("o", "return", "r", 0),
            refund_id("o", "return", "r", 1)
        );
        assert_ne!(
            event_id("s", 0, "7|out", "", "StockChanged"),
            event_id("s", 0, "7", "out|", "StockChanged")
        );
    }

    #[test]
    fn a_fact_read_twice_has_one_id_and_its_legs_have_two() {
        let id = |leg| event_id("tryton/main", 0, "stock.move,7", leg, "StockChanged");
        assert_eq!(id("out"), id("out"));
        assert_ne!(id("out"), id("in"));
    }
}
