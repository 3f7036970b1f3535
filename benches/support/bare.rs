//! The least that any program could do on Kafka: a bare rdkafka loop that copies each record to one
//! output in transactions and waits for its commits.

use super::kafka::{Deployment, client};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::time::{Duration, Instant};

/// What a transaction gathers at most: as the runtime of Crossdock.
const COMMIT_RECORDS_MAX: usize = 50_000;
const COMMIT_INTERVAL_MAX: Duration = Duration::from_millis(100);
/// Output of the loop.
const COPY: &str = "bench.copy";

/// Makes the topic that the loop writes to.
pub fn make_output(deployment: &Deployment, partitions: i32) {
    let copy = crossdock::log::TopicSpec {
        name: COPY.into(),
        partitions,
        replication: 1,
        settings: [("retention.bytes".to_owned(), "268435456".to_owned())].into(),
    };
    deployment.log.admin().create(&copy).expect("a new topic");
}

/// Runs the loop until the process is ended: each thread has a consumer and a transactional producer.
pub fn run(bootstrap: &str, group: &str, threads: usize, topics: &[&str]) {
    let config = client(bootstrap);
    let all: Vec<_> = (0..threads)
        .map(|thread| {
            let (config, group) = (config.clone(), group.to_owned());
            let topics: Vec<String> = topics.iter().map(|t| (*t).to_owned()).collect();
            std::thread::spawn(move || copy(config, &group, thread, &topics))
        })
        .collect();
    for thread in all {
        thread.join().expect("a thread of the loop");
    }
}

fn copy(config: ClientConfig, group: &str, thread: usize, topics: &[String]) {
    let consumer: BaseConsumer = config
        .clone()
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "range")
        .create()
        .expect("a consumer");
    let producer: BaseProducer = config
        .clone()
        .set("transactional.id", format!("{group}-{thread}"))
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("retry.backoff.ms", "20")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "1048576")
        .create()
        .expect("a producer");
    let patience = Duration::from_secs(30);
    producer.init_transactions(patience).expect("initialised");
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).expect("subscribed");
    loop {
        let Some(first) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        producer.begin_transaction().expect("begun");
        let started = Instant::now();
        let (mut next, mut count) = (Some(first), 0);
        while let Some(message) = next.take() {
            let message = message.expect("a message");
            let mut record: BaseRecord<'_, [u8], [u8]> =
                BaseRecord::to(COPY).partition(message.partition());
            record.key = message.key();
            record.payload = message.payload();
            while let Err((_, back)) = producer.send(record) {
                producer.poll(Duration::from_millis(1));
                record = back;
            }
            count += 1;
            if count % 512 == 0 {
                producer.poll(Duration::ZERO);
            }
            if count < COMMIT_RECORDS_MAX && started.elapsed() < COMMIT_INTERVAL_MAX {
                next = consumer.poll(Duration::ZERO);
            }
        }
        let offsets = consumer.position().expect("positions");
        let generation = consumer.group_metadata().expect("a group");
        // The client's own flush waits in steps of 100 ms.
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(1));
        }
        producer
            .send_offsets_to_transaction(&offsets, &generation, patience)
            .expect("offsets");
        producer.commit_transaction(patience).expect("committed");
    }
}
