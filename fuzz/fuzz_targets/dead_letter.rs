//! Dead letters: any letter, or a letter of any record, is shown, judged by its reader, and changed.
#![no_main]

use crossdock::codec;
use crossdock::contract::Catalogue;
use crossdock::contract::event::{Contract, DeadLetter, Event};
use crossdock::dlq::{self, Change, Judge, Letter, Letters};
use crossdock::domain::Timestamp;
use crossdock::log::embedded::{EmbeddedLog, Options};
use crossdock::pipeline::{HeadersBuilder, Origin, Record};
use crossdock::processors;
use crossdock_fuzz::{CODEC, TOPICS, cut, framed};
use libfuzzer_sys::{Corpus, fuzz_target};
use std::sync::{Arc, LazyLock};

static LOG: LazyLock<EmbeddedLog> = LazyLock::new(|| EmbeddedLog::new(Options::system()));
const TOPIC: &str = "retail.rt.stock-ledger.dlq.v1";
const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fuzz_target!(|data: &[u8]| -> Corpus {
    let &[kind, reader, topic, ref data @ ..] = data else {
        return Corpus::Reject;
    };
    let dead = match kind & 1 {
        0 => match DeadLetter::decode(&mut &data[..]) {
            Ok(dead) => dead,
            Err(_) => return Corpus::Reject,
        },
        _ => of_record(kind, reader, topic, data),
    };
    // It survives its own topic.
    let mut framed = Vec::new();
    let event = Event::DeadLetter(dead.clone());
    CODEC.encode(TOPIC, &event, &mut framed).expect("a letter");
    let at = Origin {
        topic: Arc::from(TOPIC),
        partition: 0,
        offset: 0,
    };
    let kept = Record {
        origin: at.clone(),
        timestamp_ms: 0,
        key: None,
        value: Some(framed.into()),
        headers: Default::default(),
    };
    assert_eq!(CODEC.decode(&kept).expect("a letter"), event);
    let letter = Letter {
        at,
        written_at: NOW,
        dead,
    };
    let letters = Letters {
        log: &*LOG,
        codec: &CODEC,
        catalogue: Catalogue::compiled(),
        application: "fuzz",
    };
    let judge = Judge::new(&letters, 3);
    let _ = judge.blocks_key(&letter);
    let Some(record) = letter.record() else {
        return Corpus::Keep;
    };
    let event = CODEC.decode(&record).ok();
    let _ = letter.context(letters.catalogue, event.as_ref());
    let judged = judge
        .reads(&letter.dead.processor, &record, NOW)
        .expect("the registry is there");
    if let Err(refusal) = judged {
        assert!(!refusal.why.is_empty());
    }
    let (path, value) = cut(data, b'=');
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let change = Change {
        fields: vec![(text(path), text(value))],
        event: event
            .as_ref()
            .filter(|_| kind & 4 != 0)
            .and_then(|e| serde_json::to_value(e).ok()),
        key: Some("A|dc".to_owned()),
    };
    let mended =
        dlq::mended(&letter, &change, &CODEC, letters.catalogue).expect("the registry is there");
    if let Ok(mended) = mended {
        CODEC
            .decode(&mended.record)
            .expect("what was mended can be read");
    }
    Corpus::Keep
});

/// A letter of a record with this content, which some reader could not take.
fn of_record(kind: u8, reader: u8, topic: u8, data: &[u8]) -> DeadLetter {
    let (topic, contract) = &TOPICS[usize::from(topic) % TOPICS.len()];
    let (key, body) = cut(data, 0);
    let mut headers = HeadersBuilder::default();
    headers
        .push("first", Some(key))
        .push("first", None)
        .push("second", Some(body));
    let record = Record {
        origin: Origin {
            topic: topic.clone(),
            partition: 1,
            offset: 2,
        },
        timestamp_ms: 3,
        key: Some(key.to_vec().into()),
        value: (kind & 8 == 0).then(|| framed(*contract, kind >> 5, body).into()),
        headers: headers.build(),
    };
    let mut dead = codec::letter_of(&record);
    let kept = codec::original(&dead).expect("a record out of its letter");
    assert_eq!(kept.origin, record.origin);
    assert_eq!((kept.key, kept.value), (record.key, record.value));
    assert_eq!(kept.headers, record.headers);
    let all = processors::ALL;
    dead.processor = all[usize::from(reader) % all.len()].descriptor.name.into();
    dead
}
