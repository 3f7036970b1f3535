//! Framing and Avro: any bytes, in a record of any topic. What is read is written again and reads the same.
#![no_main]

use crossdock::codec;
use crossdock::contract::event::Event;
use crossdock::pipeline::{Headers, Origin, Record};
use crossdock_fuzz::{CODEC, TOPICS, framed};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|data: &[u8]| -> Corpus {
    let &[topic, version, ref body @ ..] = data else {
        return Corpus::Reject;
    };
    let (topic, contract) = &TOPICS[usize::from(topic) % TOPICS.len()];
    // Every fourth is framed by chance alone.
    let value = match version % 4 {
        3 => body.to_vec(),
        version => framed(*contract, version, body),
    };
    let record = |value: Vec<u8>| Record {
        origin: Origin {
            topic: topic.clone(),
            partition: 0,
            offset: 0,
        },
        timestamp_ms: 0,
        key: None,
        value: Some(value.into()),
        headers: Headers::default(),
    };
    let _ = CODEC.decode_receipt(&value);
    let Ok(event) = CODEC.decode(&record(value)) else {
        return Corpus::Keep;
    };
    let mut again = Vec::new();
    CODEC
        .encode(topic, &event, &mut again)
        .expect("an event of the topic");
    let same = CODEC.decode(&record(again)).expect("what was written");
    assert_eq!(event, same, "written and read");
    let json = serde_json::to_value(&event).expect("an event as JSON");
    match Event::from_json(event.contract(), json).expect("a contract") {
        Ok(same) => assert_eq!(event, same, "by JSON"),
        // Of the fields that hold bytes, none is one that anybody edits.
        Err(error) => assert!(
            error.to_string().contains("bytes that are no text"),
            "{error}"
        ),
    }
    let parent = std::str::from_utf8(body).ok();
    let _ = codec::headers(topic, &event, parent.unwrap_or_default(), parent);
    Corpus::Keep
});
