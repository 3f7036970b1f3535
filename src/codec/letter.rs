//! Records within letters: as they were, at the place where they stood.
//!
//! A letter's headers are a map, where everybody can read them; a record's are a list, in which a name can stand
//! twice and a value be null. What the map does not tell stands in it under a name of its own ([`LIST`]).

use crate::contract::event::{Blob, DeadLetter, EventRef, Text};
use crate::domain::Timestamp;
use crate::pipeline::{Headers, HeadersBuilder, Origin, REDRIVES_HEADER, Record};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A letter that holds `record`, and says nothing else yet.
pub fn letter_of(record: &Record) -> DeadLetter {
    let origin = &record.origin;
    let value = record.value.as_deref();
    let redrives = record.headers.text(REDRIVES_HEADER);
    DeadLetter {
        original: Some(EventRef {
            topic: Text::from(&*origin.topic),
            partition: origin.partition,
            offset: origin.offset,
            event_id: None,
        }),
        original_timestamp: Timestamp::from_millis(record.timestamp_ms),
        key: record.key.as_deref().map(Blob::from),
        value: value.map(Blob::from),
        headers: to_map(&record.headers),
        schema_id: value
            .filter(|v| v.len() >= 5 && v[0] == 0)
            .map(|v| i32::from_be_bytes([v[1], v[2], v[3], v[4]])),
        traceparent: record.headers.text("traceparent").map(Text::from),
        redrive_count: redrives
            .and_then(|count| count.parse().ok())
            .unwrap_or_default(),
        ..DeadLetter::default()
    }
}

/// The record in a letter, at its place; `None` when it never was one.
pub fn original(letter: &DeadLetter) -> Option<Record> {
    let original = letter.original.as_ref()?;
    Some(Record {
        origin: Origin {
            topic: Arc::from(&*original.topic),
            partition: original.partition,
            offset: original.offset,
        },
        timestamp_ms: letter.original_timestamp.as_millis(),
        key: letter.key.as_ref().map(|k| k.0.clone()),
        value: letter.value.as_ref().map(|v| v.0.clone()),
        headers: to_list(&letter.headers),
    })
}

/// Name in the map under which stands how the list was: one byte for each header, its place in the map; or,
/// where a name is repeated or a value null, a zero byte and the whole list, packed.
const LIST: &str = "crossdock-headers";
/// First byte of a list that is given by places in the map; they follow.
const BY_PLACE: u8 = 1;
/// First byte of a packed list.
const PACKED: u8 = 0;

type Map = BTreeMap<Text, Blob>;

fn to_map(list: &Headers) -> Map {
    let mut map: Map = list
        .iter()
        .map(|(name, value)| (Text::from(name), Blob::from(value.unwrap_or_default())))
        .collect();
    // A record that has a header of this name must not be taken at its word.
    let is_free = !map.contains_key(LIST);
    if is_free && as_sorted(&map) == *list {
        return map;
    }
    let names: Vec<&Text> = map.keys().collect();
    let places = list
        .iter()
        .map(|(name, _)| names.binary_search_by(|n| (**n).as_str().cmp(name)));
    let places = places.map(|place| u8::try_from(place.ok()?).ok());
    let by_place: Option<Vec<u8>> = [Some(BY_PLACE)].into_iter().chain(places).collect();
    // Places tell the order, and nothing else.
    let told =
        by_place.filter(|told| is_free && by_places(&map, &told[1..]).as_ref() == Some(list));
    let told = told.unwrap_or_else(|| [&[PACKED], &list.packed()[..]].concat());
    map.insert(LIST.into(), Blob(told.into()));
    map
}

/// What is not one of ours is taken as it stands.
fn to_list(map: &Map) -> Headers {
    let told = map.get(LIST).and_then(|told| match told.0.split_first()? {
        (&BY_PLACE, places) => {
            let mut others = map.clone();
            others.remove(LIST);
            by_places(&others, places)
        }
        (&PACKED, _) => Some(Headers::from_packed(told.0.slice(1..))),
        _ => None,
    });
    told.unwrap_or_else(|| as_sorted(map))
}

fn as_sorted(map: &Map) -> Headers {
    map.iter()
        .map(|(name, value)| (name.as_str(), Some(&*value.0)))
        .collect()
}

fn by_places(map: &Map, places: &[u8]) -> Option<Headers> {
    let entries: Vec<(&Text, &Blob)> = map.iter().collect();
    let mut headers = HeadersBuilder::default();
    for place in places {
        let (name, value) = entries.get(usize::from(*place))?;
        headers.push(name, Some(&value.0));
    }
    Some(headers.build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::event::Contract;
    use proptest::prelude::*;

    fn record(headers: Headers) -> Record {
        Record {
            origin: Origin {
                topic: Arc::from("t"),
                partition: 1,
                offset: 2,
            },
            timestamp_ms: 3,
            key: None,
            value: None,
            headers,
        }
    }

    fn back(headers: &Headers) -> Headers {
        let letter = letter_of(&record(headers.clone()));
        let mut bytes = Vec::new();
        letter.encode(&mut bytes);
        let letter = DeadLetter::decode(&mut &bytes[..]).expect("a letter");
        original(&letter).expect("a record").headers
    }

    proptest! {
        #[test]
        fn headers_come_back_byte_for_byte(
            list in prop::collection::vec(
                (prop::sample::select(vec!["a", "b", "traceparent", "", LIST]), prop::option::of(prop::collection::vec(any::<u8>(), 0..4))),
                0..8,
            )
        ) {
            let headers: Headers = list.iter().map(|(name, value)| (*name, value.as_deref())).collect();
            prop_assert_eq!(back(&headers), headers);
        }
    }

    #[test]
    fn the_order_of_headers_takes_a_byte_each() {
        let headers: Headers = [("b", Some(&b"1"[..])), ("a", Some(&b"2"[..]))]
            .into_iter()
            .collect();
        let letter = letter_of(&record(headers.clone()));
        assert_eq!(
            letter.headers.get(LIST).map(|told| &told.0[..]),
            Some(&[BY_PLACE, 1, 0][..])
        );
        assert_eq!(&*letter.headers["a"].0, b"2", "everybody can read it");
        assert_eq!(back(&headers), headers);
    }

    #[test]
    fn what_claims_to_be_a_list_and_is_none_is_a_header() {
        let map = BTreeMap::from([(Text::from(LIST), Blob::from(&[BY_PLACE, 9][..]))]);
        assert_eq!(to_list(&map), as_sorted(&map));
    }
}
