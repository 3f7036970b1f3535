//! What a task writes: encoded, checked for size, sent in the open transaction.

use super::parking::Entry;
use crate::codec::{self, Codec};
use crate::contract::event::{
    Blob, DeadLetter, Event, EventMeta, Origin as MetaOrigin, PositionKind, SourceOrigin, Text,
};
use crate::contract::{Catalogue, event::ErrorClass};
use crate::domain::{Timestamp, event_id};
use crate::log::{LogError, Outgoing, Producer, TopicPartition};
use crate::pipeline::{Code, Emission, Fault, Headers, Record, SourceReject, Stage};
use crate::state::Shard;
use std::sync::Arc;
use std::time::Duration;

/// Tries to hand a record to a producer whose queue is full, each after waiting for room.
const SEND_TRIES: u32 = 30_000;
const SEND_WAIT: Duration = Duration::from_millis(1);

/// What a dead letter says besides the record, at most; and room for headers and the batch.
const LETTER_OVERHEAD: usize = 64 << 10;
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// A step that failed, and whether its producer may abort and go on.
#[derive(Debug)]
pub(super) struct Failed {
    pub fault: Fault,
    pub producer_usable: bool,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Failed {
            fault,
            producer_usable: true,
        }
    }
}

impl From<LogError> for Failed {
    fn from(error: LogError) -> Self {
        let producer_usable = !matches!(
            error,
            LogError::Fenced(_)
                | LogError::Fatal(_)
                | LogError::TimedOut(_)
                | LogError::Unauthorised { .. }
        );
        Failed {
            fault: error.into(),
            producer_usable,
        }
    }
}

impl From<LogError> for Fault {
    fn from(error: LogError) -> Self {
        let (halt, code) = match &error {
            LogError::Unauthorised { .. } => (true, Code::Unauthorised),
            // A broker that has just come back may not know its topics yet; one that is missing is made by
            // somebody, and looked for until then.
            LogError::UnknownTopic { .. } => (false, Code::Configuration),
            LogError::Replaced(_) => (true, Code::NameTaken),
            // What is sent has been held against topics.yaml: the topic itself takes less.
            LogError::Oversize { .. } => (true, Code::Oversize),
            _ => (false, Code::Log),
        };
        let message = match &error {
            LogError::Oversize { .. } => {
                format!("{error}; raise the topic's limit with `crossdock topics apply`")
            }
            _ => error.to_string(),
        };
        let fault = match halt {
            true => Fault::halt(Stage::Commit, code, message),
            false => Fault::retry(Stage::Commit, code, message),
        };
        match error {
            // Commands tell it apart: another run has begun.
            LogError::Fenced(_) => fault.caused_by(error),
            _ => fault,
        }
    }
}

/// Encodes and sends on behalf of one reader.
pub(super) struct Outbox {
    codec: Arc<Codec>,
    catalogue: Catalogue,
    input_bytes_max: usize,
    reader: String,
    dead_letters: String,
    encoded: Vec<Encoded>,
    bytes: Vec<u8>,
}

struct Encoded {
    topic: &'static str,
    key: Text,
    headers: Headers,
    /// Range in the buffer.
    value: (usize, usize),
}

impl Outbox {
    pub fn new(codec: Arc<Codec>, catalogue: &Catalogue, reader: &str) -> Self {
        Outbox {
            codec,
            input_bytes_max: catalogue.default_message_bytes(),
            catalogue: catalogue.clone(),
            reader: reader.to_owned(),
            dead_letters: catalogue.dead_letter_topic(reader),
            encoded: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// The reader's dead-letter topic.
    pub fn dead_letter_topic(&self) -> &str {
        &self.dead_letters
    }

    /// What encodes.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// The beginning of a record that the runtime itself writes. `position` numbers what the same
    /// reader writes of the same type.
    pub fn meta(&self, event_type: &str, about: &str, position: i64, now: Timestamp) -> EventMeta {
        let source = compact_str::format_compact!("crossdock/{}", self.reader);
        let record_id = format!("{about}@{position}");
        EventMeta {
            event_id: event_id(&source, 0, &record_id, "", event_type),
            event_type: event_type.into(),
            source,
            source_position: position,
            position_kind: PositionKind::Sequence,
            occurred_at: now,
            recorded_at: now,
            tenant_id: "default".into(),
            correlation_id: about.into(),
            origin: MetaOrigin::Source,
            ..EventMeta::default()
        }
    }

    /// Encodes all outputs of one call, so that none is sent when one of them cannot be.
    pub fn encode_all(
        &mut self,
        emissions: &mut Vec<Emission>,
        trace: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        self.encoded.clear();
        self.bytes.clear();
        for emission in emissions.iter_mut() {
            stamp(&mut emission.event, now);
            let from = self.bytes.len();
            self.codec
                .encode(emission.topic, &emission.event, &mut self.bytes)?;
            self.check_size(emission.topic, self.bytes.len() - from + emission.key.len())?;
            let headers = codec::headers(emission.topic, &emission.event, &emission.key, trace);
            let value = (from, self.bytes.len());
            self.encoded.push(Encoded {
                topic: emission.topic,
                key: std::mem::take(&mut emission.key),
                headers,
                value,
            });
        }
        emissions.clear();
        Ok(())
    }

    /// Sends what was encoded last.
    pub fn send_encoded(
        &mut self,
        producer: &mut dyn Producer,
        now: Timestamp,
    ) -> Result<(), Failed> {
        for e in &self.encoded {
            let record = Outgoing {
                topic: e.topic,
                partition: None,
                key: Some(e.key.as_bytes()),
                value: Some(&self.bytes[e.value.0..e.value.1]),
                headers: &e.headers,
                timestamp_ms: now.as_millis(),
            };
            send(producer, record)?;
        }
        Ok(())
    }

    /// Encodes and sends one event.
    pub fn send(
        &mut self,
        producer: &mut dyn Producer,
        topic: &str,
        key: &str,
        event: &Event,
        trace: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Failed> {
        self.send_to(producer, topic, None, key, event, trace, now)
    }

    /// As [`Outbox::send`], with the time of recording stamped where it is missing.
    pub fn send_stamped(
        &mut self,
        producer: &mut dyn Producer,
        topic: &str,
        key: &str,
        event: &Event,
        now: Timestamp,
    ) -> Result<(), Failed> {
        if event.meta().recorded_at != Timestamp::default() {
            return self.send(producer, topic, key, event, None, now);
        }
        let mut stamped = event.clone();
        stamp(&mut stamped, now);
        self.send(producer, topic, key, &stamped, None, now)
    }

    /// As [`Outbox::send`], to a given partition.
    #[allow(
        clippy::too_many_arguments,
        reason = "each says something of its own about one record"
    )]
    pub fn send_to(
        &mut self,
        producer: &mut dyn Producer,
        topic: &str,
        partition: Option<i32>,
        key: &str,
        event: &Event,
        trace: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Failed> {
        self.bytes.clear();
        self.codec.encode(topic, event, &mut self.bytes)?;
        self.check_size(topic, self.bytes.len() + key.len())?;
        let headers = codec::headers(topic, event, key, trace);
        let record = Outgoing {
            topic,
            partition,
            key: Some(key.as_bytes()),
            value: Some(&self.bytes),
            headers: &headers,
            timestamp_ms: now.as_millis(),
        };
        send(producer, record)
    }

    /// Writes a record to the reader's dead-letter topic, in the partition number it came from;
    /// `blocks_key` tells whether later records of its key wait until something is done about it.
    pub fn dead_letter(
        &mut self,
        producer: &mut dyn Producer,
        record: &Record,
        (fault, attempts): (&Fault, i32),
        blocks_key: bool,
        now: Timestamp,
    ) -> Result<(), Failed> {
        let origin = &record.origin;
        let place = origin.to_string();
        let letter = DeadLetter {
            meta: self.meta("DeadLetter", &place, origin.offset, now),
            key_blocked: blocks_key,
            ..self.letter(codec::letter_of(record), fault, attempts, now)
        };
        let key = record.key.as_deref().map_or_else(
            || place.clone(),
            |k| String::from_utf8_lossy(k).into_owned(),
        );
        self.send_letter(producer, Some(origin.partition), &key, letter, now)
    }

    /// Writes a parked record to the sink's park topic, in the partition number it came from.
    pub fn park(
        &mut self,
        producer: &mut dyn Producer,
        topic: &str,
        entry: &Entry<'_>,
        now: Timestamp,
    ) -> Result<(), Failed> {
        let parked = entry.parked;
        let origin = &parked.record.origin;
        let code = Code::ALL.iter().find(|c| *c.as_str() == *parked.code);
        let letter = DeadLetter {
            meta: self.meta("DeadLetter", &origin.to_string(), now.0, now),
            processor: self.reader.as_str().into(),
            processor_version: env!("CARGO_PKG_VERSION").into(),
            error_class: code.map_or(ErrorClass::Unknown, |c| class_of(*c)),
            code: parked.code.clone(),
            message: clipped(&parked.message).into(),
            attempts: i32::try_from(parked.attempts).unwrap_or(i32::MAX),
            first_failed_at: parked.since,
            next_retry_at: entry.next_at,
            key_blocked: true,
            keys_behind: i32::try_from(entry.behind).unwrap_or(i32::MAX),
            ..codec::letter_of(&parked.record)
        };
        let partition = Some(origin.partition);
        self.send_to(
            producer,
            topic,
            partition,
            &entry.park_key,
            &letter.into(),
            None,
            now,
        )
    }

    /// Writes a record that waits for what has not come to a processor's park topic, in the partition
    /// number it came from. It is not tried again: it goes on when that comes.
    pub fn keep_waiting(
        &mut self,
        producer: &mut dyn Producer,
        (topic, park_key): (&str, &str),
        record: &Record,
        fault: &Fault,
        now: Timestamp,
    ) -> Result<(), Failed> {
        let origin = &record.origin;
        let letter = DeadLetter {
            meta: self.meta("DeadLetter", &origin.to_string(), now.0, now),
            ..self.letter(codec::letter_of(record), fault, 0, now)
        };
        let partition = Some(origin.partition);
        self.send_to(
            producer,
            topic,
            partition,
            park_key,
            &letter.into(),
            None,
            now,
        )
    }

    /// Takes a record out of the park topic.
    pub fn unpark(
        &mut self,
        producer: &mut dyn Producer,
        topic: &str,
        partition: i32,
        park_key: &str,
        now: Timestamp,
    ) -> Result<(), Failed> {
        let record = Outgoing {
            topic,
            partition: Some(partition),
            key: Some(park_key.as_bytes()),
            value: None,
            headers: &Headers::default(),
            timestamp_ms: now.as_millis(),
        };
        send(producer, record)
    }

    /// A letter that is too large for its topic, which takes twice what its input should hold, goes
    /// without what makes it so: the record still stands where it came from.
    fn send_letter(
        &mut self,
        producer: &mut dyn Producer,
        partition: Option<i32>,
        key: &str,
        mut letter: DeadLetter,
        now: Timestamp,
    ) -> Result<(), Failed> {
        let bytes = letter.value.as_ref().map_or(0, |v| v.0.len());
        let others = letter.key.as_ref().map_or(0, |k| k.0.len())
            + letter.headers.values().map(|v| v.0.len()).sum::<usize>()
            + key.len();
        let mut key = key;
        let topic = std::mem::take(&mut self.dead_letters);
        let limit = self.catalogue.max_message_bytes(&topic) - LETTER_OVERHEAD;
        if bytes + others > limit {
            letter.message = compact_str::format_compact!(
                "{}; its value of {bytes} bytes is too large for this topic and is left where it came from",
                letter.message
            );
            letter.value = None;
        }
        if others > limit {
            (letter.key, key) = (None, "");
            letter.headers.clear();
        }
        let sent = self.send_to(producer, &topic, partition, key, &letter.into(), None, now);
        self.dead_letters = topic;
        sent
    }

    /// Writes what a source could not turn into an event to the source's dead-letter topic.
    pub fn dead_letter_of_source(
        &mut self,
        producer: &mut dyn Producer,
        reject: &SourceReject,
        now: Timestamp,
    ) -> Result<(), Failed> {
        let place = format!("{}:{}", reject.origin.container, reject.origin.item);
        let letter = DeadLetter {
            meta: self.meta("DeadLetter", &place, 0, now),
            source_origin: Some(SourceOrigin {
                system: Text::from(self.reader.as_str()),
                container: reject.origin.container.as_str().into(),
                item: reject.origin.item.as_str().into(),
            }),
            original_timestamp: now,
            value: Some(Blob(reject.raw.clone())),
            ..self.letter(DeadLetter::default(), &reject.fault, 1, now)
        };
        self.send_letter(producer, None, &place, letter, now)
    }

    /// What became of what `held` holds.
    fn letter(&self, held: DeadLetter, fault: &Fault, attempts: i32, now: Timestamp) -> DeadLetter {
        DeadLetter {
            processor: self.reader.as_str().into(),
            processor_version: env!("CARGO_PKG_VERSION").into(),
            error_class: class_of(fault.code),
            code: fault.code.as_str().into(),
            message: clipped(&fault.message).into(),
            attempts,
            first_failed_at: now,
            ..held
        }
    }

    /// Writes the changes of a shard to its changelog.
    pub fn changelog(
        &mut self,
        producer: &mut dyn Producer,
        changelog: &TopicPartition,
        shard: &Shard,
        now: Timestamp,
    ) -> Result<(), Failed> {
        let headers = Headers::default();
        shard.changes(|key, value| {
            let record = Outgoing {
                topic: &changelog.topic,
                partition: Some(changelog.partition),
                key: Some(key),
                value,
                headers: &headers,
                timestamp_ms: now.as_millis(),
            };
            send(producer, record)
        })
    }

    /// Judges a record that was read: the broker weighs what it is sent compressed, so a topic can
    /// hold records larger than it should, whose outputs and dead letters would fit nowhere.
    pub fn check_input(&self, record: &Record) -> Result<(), Fault> {
        let bytes = record.key.as_ref().map_or(0, |k| k.len())
            + record.value.as_ref().map_or(0, |v| v.len())
            + record.headers.packed().len();
        if bytes <= self.input_bytes_max {
            return Ok(());
        }
        let message = format!(
            "the record has {bytes} bytes, {} takes at most {}; its producer must send less",
            record.origin.topic, self.input_bytes_max
        );
        Err(Fault::reject(Stage::Decode, Code::Oversize, message))
    }

    fn check_size(&self, topic: &str, bytes: usize) -> Result<(), Fault> {
        // Room for headers and the batch around the record.
        const OVERHEAD: usize = 2_048;
        if bytes + OVERHEAD <= self.catalogue.default_message_bytes() {
            return Ok(());
        }
        let limit = self.catalogue.max_message_bytes(topic);
        if bytes + OVERHEAD <= limit {
            return Ok(());
        }
        let message = format!(
            "an output of {bytes} bytes for {topic} is larger than the {limit} bytes that the topic takes"
        );
        Err(Fault::reject(Stage::Encode, Code::Oversize, message))
    }
}

fn send(producer: &mut dyn Producer, record: Outgoing<'_>) -> Result<(), Failed> {
    for _ in 0..SEND_TRIES {
        match producer.send(record) {
            Err(LogError::QueueFull) => producer.poll(SEND_WAIT),
            other => return other.map_err(Failed::from),
        }
    }
    Err(LogError::TimedOut(format!(
        "no room to send to {} for {:?}",
        record.topic,
        SEND_WAIT * SEND_TRIES
    ))
    .into())
}

/// A message may repeat what was wrong with a record; a letter holds that anyway.
fn clipped(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)]
}

fn stamp(event: &mut Event, now: Timestamp) {
    let meta = event.meta_mut();
    if meta.recorded_at == Timestamp::default() {
        meta.recorded_at = now;
    }
}

fn class_of(code: Code) -> ErrorClass {
    match code {
        Code::EmptyValue
        | Code::BadMagic
        | Code::Truncated
        | Code::TrailingBytes
        | Code::Malformed => ErrorClass::Deserialization,
        Code::UnknownSchemaId | Code::WrongContract | Code::IncompatibleSchema => {
            ErrorClass::Schema
        }
        Code::NullKey
        | Code::WrongKey
        | Code::Oversize
        | Code::DataQuality
        | Code::UnknownSymbol => ErrorClass::DataQuality,
        Code::UnknownReference | Code::TooEarly => ErrorClass::UnknownReference,
        Code::IllegalTransition | Code::EpochUntrusted => ErrorClass::IllegalTransition,
        Code::LateBeyondHorizon => ErrorClass::LateBeyondHorizon,
        Code::Refused => ErrorClass::SinkRejected,
        Code::Unavailable | Code::Throttled | Code::Unauthorised => ErrorClass::SinkUnavailable,
        Code::OutcomeUnknown => ErrorClass::OutcomeUnknown,
        Code::RegistryUnavailable
        | Code::Configuration
        | Code::Log
        | Code::NameTaken
        | Code::Bug => ErrorClass::Bug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Verdict;

    /// A broker that was killed and came back said of the topics that it leads that it did not know
    /// them: tasks halted for half a minute and asked for somebody to create topics that were there.
    #[test]
    fn a_topic_that_a_broker_does_not_know_is_asked_for_again_and_named() {
        let topic = "retail.stock.change.v1".to_owned();
        let fault = Fault::from(LogError::UnknownTopic { topic });
        assert!(matches!(fault.verdict, Verdict::Retry { .. }), "{fault}");
        let words = fault.to_string();
        assert!(
            words.contains("retail.stock.change.v1") && words.contains("topics apply"),
            "{words}"
        );
    }
}
