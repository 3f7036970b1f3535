//! Two brokers coordinate a transaction and the group whose offsets it holds, and a client can lose one
//! of them alone.

use crate::kafka::Kafka;
use crate::proxy::{Network, Proxy, Way};
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use crossdock::log::{
    Consumer, GivenUp, GroupProtocol, GroupSpec, Isolation, Log, LogError, Offsets, Producer,
    ProducerSpec, TopicPartition, TopicSpec,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const TOPIC: &str = "retail.test.coordinators.v1";
/// Longer than any call may take, and shorter than anybody would wait for this test.
const PATIENCE: Duration = Duration::from_secs(90);

/// A group's member, a transactional producer, and who coordinates them.
struct Pair {
    member: Box<dyn Consumer>,
    id: String,
    producer: Box<dyn Producer>,
}

impl Pair {
    fn new(direct: &dyn Log, log: &dyn Log, number: usize) -> Pair {
        let mut member = direct
            .consumer(&GroupSpec {
                group: format!("coordinators-{number}"),
                member: None,
                topics: vec![Arc::from(TOPIC)],
                protocol: GroupProtocol::Range,
                session_timeout: Duration::from_secs(6),
                max_poll_interval: Duration::from_secs(300),
                isolation: Isolation::ReadCommitted,
            })
            .expect("a member");
        while member.owned().is_empty() {
            member
                .poll(1, Duration::from_millis(50), &mut Vec::new())
                .expect("polled");
        }
        let id = format!("coordinators-{number}");
        let producer = producer(log, &id);
        Pair {
            member,
            id,
            producer,
        }
    }

    fn send_offsets(&mut self) -> Result<(), LogError> {
        let offsets = Offsets::from([(TopicPartition::new(TOPIC, 0), 0)]);
        let generation = self.member.generation()?;
        self.producer.begin()?;
        self.producer.send_offsets(&offsets, &generation)
    }

    fn transact(&mut self) -> Result<(), LogError> {
        self.send_offsets()?;
        self.producer.commit()
    }
}

fn producer(log: &dyn Log, id: &str) -> Box<dyn Producer> {
    let spec = ProducerSpec {
        transactional_id: Some(id.to_owned()),
        ..ProducerSpec::default()
    };
    log.producer(&spec).expect("a producer")
}

/// In a run of chaos an instance waited in this call for as long as anybody looked: librdkafka does not
/// keep to the time it is given (<https://github.com/confluentinc/librdkafka/issues/5456>).
#[test]
fn a_producer_whose_groups_coordinator_cannot_be_reached_is_given_up_and_the_next_one_goes_on() {
    let network = Network::new(2);
    let ports: Vec<u16> = network.proxies.iter().map(|p| p.port).collect();
    let Some(kafka) = Kafka::behind_proxies(&ports, "") else {
        return;
    };
    network.lead_to(&kafka.behind());
    let connect = |to: &str| KafkaLog::connect(KafkaSettings::plain(to)).expect("connected");
    let direct = connect(&kafka.bootstrap);
    let log = connect(&network.bootstrap());
    let topic = TopicSpec {
        name: TOPIC.to_owned(),
        partitions: 1,
        replication: 1,
        settings: BTreeMap::new(),
    };
    direct.admin().create(&topic).expect("created");

    // Names decide who coordinates: until it is not the same broker.
    let apart = (0..).find_map(|number| {
        let before = seen(&network);
        let mut pair = Pair::new(&direct, &log, number);
        pair.transact().expect("committed");
        let after = seen(&network);
        let ends = (0..2).find(|broker| after[*broker].0 > before[*broker].0);
        let commits = (0..2).find(|broker| after[*broker].1 > before[*broker].1);
        (ends != commits).then(|| (pair, commits.expect("a coordinator")))
    });
    let (mut pair, broker) = apart.expect("names without end");
    network.proxies[broker].set(Way::HalfOpen);
    network.proxies[broker].cut();

    let (answer, answered) = mpsc::channel();
    std::thread::spawn(move || {
        let sent = pair.send_offsets();
        let _ = answer.send((sent, pair));
    });
    let (sent, mut pair) = answered
        .recv_timeout(PATIENCE)
        .expect("the call comes back");
    let error = sent.expect_err("nobody took the offsets");
    assert!(matches!(error, LogError::Fatal(_)), "{error}");
    assert!(error.to_string().contains("coordinator"), "{error}");
    assert_eq!(
        log.given_up(),
        GivenUp {
            ever: 1,
            hanging: 1
        }
    );

    network.open();
    pair.producer = producer(&log, &pair.id);
    pair.transact().expect("committed");
    // The call that was given up finds the coordinator too, and comes to its end.
    let deadline = Instant::now() + PATIENCE;
    while log.given_up().hanging > 0 {
        assert!(Instant::now() < deadline, "it hangs for ever");
        std::thread::yield_now();
    }
    assert_eq!(log.given_up().ever, 1);
}

/// Transactions ended, and offsets told of, at each broker.
fn seen(network: &Network) -> Vec<(u64, u64)> {
    let of = |proxy: &Proxy| (proxy.ends(), proxy.offset_commits());
    network.proxies.iter().map(of).collect()
}
