//! Two instances of the same name: the later takes over, the earlier gives up, and none of the work
//! is done twice. And the oracle that says so is shown to be able to say otherwise.

use crate::facts::{
    SESSION, codec, judge, last_values, oracle, prepare, quiet, send_changes, send_raw,
};
use crate::kafka::Kafka;
use crate::worker::Worker;
use crossdock::contract::event::Event;
use crossdock::contract::topic;
use crossdock::domain::Decimal;
use crossdock::log::Log;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn an_instance_of_the_same_name_on_another_host_takes_over_and_nothing_is_done_twice() {
    const DISTINCT: i64 = 30_000;
    let Some(kafka) = Kafka::find(1) else { return };
    let log = prepare(&kafka);
    let folder = tempfile::tempdir().expect("a folder");
    let start = |host: &str| {
        let arguments = ["run", "stock-ledger", "--session-timeout-ms", SESSION];
        Worker::start_in(&kafka.bootstrap, folder.path(), host, "same", &arguments)
    };
    let mut present = start("host-0");
    send_changes(&log, DISTINCT, 11, |wave, _| {
        if wave % 3 == 2 {
            let mut former = std::mem::replace(&mut present, start(&format!("host-{wave}")));
            assert_eq!(former.wait(Duration::from_secs(30)), Some(1), "it gives up");
            let words = former.logged();
            assert!(words.contains("--instance"), "and says what to do: {words}");
        }
    });
    quiet(&kafka, Duration::from_secs(120));
    judge(&kafka, DISTINCT, 11);
    assert_eq!(present.terminate(), Some(0), "an orderly end");
    defects_are_seen_by_the_oracle(&kafka, &log, DISTINCT);
}

/// Each kind of defect that the oracle looks for, put into the log by hand.
fn defects_are_seen_by_the_oracle(kafka: &Kafka, log: &Arc<dyn Log>, distinct: i64) {
    let said = |words: &str, distinct: i64| {
        let Some(output) = oracle(kafka, distinct) else {
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words}: {text}");
        assert!(text.contains(words), "{words}: {text}");
    };
    said("were sent", distinct + 1);
    let codec = codec(log);
    let levels = last_values(log.as_ref(), topic::STOCK_LEVEL);
    let (key, record) = levels.iter().next().expect("a level");
    let Ok(Event::StockLevel(mut level)) = codec.decode(record) else {
        panic!("not a level")
    };
    // The same transaction's output once more.
    send_raw(
        log,
        topic::STOCK_LEVEL,
        Some(key.as_bytes()),
        record.value.as_deref(),
    );
    said("levelVersion of", distinct);
    // A unit lost.
    level.level_version += 1;
    level.sellable += Decimal::ONE;
    let mut value = Vec::new();
    codec
        .encode(topic::STOCK_LEVEL, &level.into(), &mut value)
        .expect("encoded");
    send_raw(log, topic::STOCK_LEVEL, Some(key.as_bytes()), Some(&value));
    said("its facts give", distinct);
    // A record booked twice.
    let mut booked = None;
    crossdock::verify::read_topic(log.as_ref(), topic::OPS_DISPOSITION, |record| {
        booked.get_or_insert_with(|| record.clone());
    })
    .expect("read");
    let booked = booked.expect("a disposition");
    send_raw(
        log,
        topic::OPS_DISPOSITION,
        booked.key.as_deref(),
        booked.value.as_deref(),
    );
    said("settled a record 2 times", distinct);
}
