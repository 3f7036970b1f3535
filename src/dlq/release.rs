//! Letting go a key that a dead letter holds up, also when the letter is no longer there.
//!
//! A letter lives for thirty days, the place that it holds in the line of its key for ever: what waits behind it
//! is never sent past it by time alone. Somebody who knows what became of the record lets the key go.

use super::act::{Actor, audit_of, producer};
use super::history::{Deed, Done, History};
use super::judge::Refusal;
use super::{Letters, Part};
use crate::contract::park_key;
use crate::desk;
use crate::log::{Outgoing, TopicPartition};
use crate::pipeline::{Clock, Fault, Headers, Origin, SystemClock};
use std::collections::{HashMap, HashSet};

/// Action in the audit.
const ACTION: &str = "parked.release";

/// The letter of a record, and what was done about it.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The letter.
    pub letter: Origin,
    /// What was done about it; `None` while it is open.
    pub done: Option<Done>,
}

/// The latest dead letters of `reader` about the records at these places. A place without one has none any
/// more.
///
/// # Errors
/// When the log or the registry does not answer.
pub fn holders(
    letters: &Letters<'_>,
    reader: &str,
    places: &HashSet<Origin>,
) -> Result<HashMap<Origin, Holder>, Fault> {
    let topic = letters.catalogue.dead_letter_topic(reader);
    let known = letters.log.admin().partitions(&topic)?;
    let partitions: HashSet<i32> = places.iter().map(|p| p.partition).collect();
    let mut found = HashMap::new();
    for number in partitions
        .into_iter()
        .filter(|n| known.is_some_and(|all| *n < all))
    {
        let part = Part {
            reader: reader.to_owned(),
            at: TopicPartition::new(topic.as_str(), number),
        };
        let history = History::read(letters, &part.at)?;
        let filter = super::Filter {
            done: true,
            ..super::Filter::default()
        };
        letters.visit(&part, &history, &filter, |letter, done| {
            if let Some(place) = letter.record().map(|r| r.origin)
                && places.contains(&place)
            {
                let holder = Holder {
                    letter: letter.at.clone(),
                    done: done.cloned(),
                };
                found.insert(place, holder);
            }
            Ok::<(), Fault>(())
        })?;
    }
    Ok(found)
}

/// Lets `key` go, which the dead letter of the record at `place` holds up in the sink `reader`: what waits
/// behind it goes on in order. An open letter is discarded with it. With `dry_run` nothing is written.
///
/// # Errors
/// The inner one when it is in hand already. The outer one when the log or the registry does not answer, or
/// another run on the sink's dead letters has begun.
pub fn release(
    letters: &Letters<'_>,
    reader: &str,
    key: &str,
    place: &Origin,
    actor: &Actor,
    dry_run: bool,
) -> Result<Result<Option<Origin>, Refusal>, Fault> {
    // From here on no other run can do something about the letter.
    let mut producer = match dry_run {
        true => None,
        false => Some(producer(letters, reader)?),
    };
    let holder = holders(letters, reader, &HashSet::from([place.clone()]))?.remove(place);
    let open = match holder {
        Some(Holder {
            done: Some(done), ..
        }) if done.deed == Deed::Redriven => {
            return Ok(Err(Refusal {
                code: "REDRIVEN",
                why: format!(
                    "{} has redriven its letter at {}; the key goes on by itself once {reader} runs and has read the record",
                    done.by, done.at
                ),
            }));
        }
        Some(Holder { letter, done: None }) => Some(letter),
        _ => None,
    };
    let Some(producer) = producer.as_mut() else {
        return Ok(Ok(open));
    };
    let now = SystemClock.now();
    let park_topic = letters.catalogue.park_topic(reader);
    producer.begin()?;
    let park_key = park_key(&place.topic, key, place.offset);
    let tombstone = Outgoing {
        topic: &park_topic,
        partition: Some(place.partition),
        key: Some(park_key.as_bytes()),
        value: None,
        headers: &Headers::default(),
        timestamp_ms: now.as_millis(),
    };
    desk::send(producer.as_mut(), tombstone)?;
    if let Some(letter) = &open {
        audit_of(
            letters,
            producer.as_mut(),
            letter,
            Deed::Discarded.action(),
            actor,
            (None, None),
            now,
        )?;
    }
    let parked = Origin {
        topic: park_topic.as_str().into(),
        ..place.clone()
    };
    let before = format!("{key} held up by {place}");
    let change = (Some(before), Some("goes on without it".to_owned()));
    audit_of(
        letters,
        producer.as_mut(),
        &parked,
        ACTION,
        actor,
        change,
        now,
    )?;
    producer.commit()?;
    Ok(Ok(open))
}
