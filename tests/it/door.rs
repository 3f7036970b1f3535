//! A target in memory: it answers as the test says, and writes down what was asked of it and what it did.

use crate::world::{SINK, TestClock, World, meta};
use crossdock::contract::event::*;
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::{Decimal, Timestamp};
use crossdock::log::{Admin, TopicSpec};
use crossdock::pipeline::{
    Ack, Capabilities, Clock, Code, Delivery, Fault, Idempotency, Inbound, Sink, SourceRecord,
    Stage,
};
use crossdock::runtime::{SinkTask, TaskSettings};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the target does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Yes,
    /// Does nothing, and is not reached.
    Away,
    /// Does nothing, and asks for a pause.
    Busy(Duration),
    /// Does it, and its answer is lost.
    Lost,
    /// Does nothing, and its answer is lost.
    Cut,
    /// Refuses it for good.
    Never,
}

/// A record as the target knows it: topic, key and version.
pub type Known = (String, Text, i64);

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    pub at: Timestamp,
    pub of: Known,
    pub in_doubt: bool,
    pub attempt: u32,
}

type Script = dyn FnMut(&Known) -> Says + Send;

pub struct Door {
    clock: Arc<TestClock>,
    script: Mutex<Box<Script>>,
    /// How long a call takes.
    pub takes: Mutex<Duration>,
    pub calls_max: usize,
    /// What it did, each once, in order.
    done: Mutex<(Vec<Known>, BTreeSet<Known>)>,
    pub calls: Mutex<Vec<Call>>,
    /// Calls under way, by key, and the most there were.
    pub under_way: Mutex<BTreeSet<Text>>,
    /// Whether calls are to be known of first.
    pub is_careful: bool,
    /// Facts are told of what was refused.
    pub tells_refusals: bool,
}

impl Door {
    pub fn new(world: &World, script: impl FnMut(&Known) -> Says + Send + 'static) -> Door {
        Door {
            clock: world.clock.clone(),
            script: Mutex::new(Box::new(script)),
            takes: Mutex::default(),
            calls_max: 8,
            done: Mutex::default(),
            calls: Mutex::default(),
            under_way: Mutex::default(),
            is_careful: false,
            tells_refusals: false,
        }
    }

    pub fn now_says(&self, script: impl FnMut(&Known) -> Says + Send + 'static) {
        *self.script.lock().expect("whole") = Box::new(script);
    }

    pub fn done(&self) -> Vec<Known> {
        self.done.lock().expect("whole").0.clone()
    }

    /// How many of what it did are such.
    pub fn count(&self, is: impl Fn(&Known) -> bool) -> usize {
        let done = self.done.lock().expect("whole");
        done.0.iter().filter(|known| is(known)).count()
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("whole").clone()
    }

    /// Versions that were done of each key of a topic, in order.
    pub fn by_key(&self, topic: &str) -> BTreeMap<Text, Vec<i64>> {
        let mut by_key: BTreeMap<Text, Vec<i64>> = BTreeMap::new();
        for (of, key, version) in self.done() {
            if of == topic {
                by_key.entry(key).or_default().push(version);
            }
        }
        by_key
    }
}

pub fn known(inbound: &Inbound) -> Known {
    let record = &inbound.record;
    let key = std::str::from_utf8(record.key.as_deref().expect("a key")).expect("text");
    let version = match &inbound.event {
        Event::AvailabilityChanged(e) => e.ats_version,
        Event::RefundEvent(e) => e.refund_version,
        Event::ProductChanged(e) => e.product_version,
        other => panic!("not for this sink: {}", other.contract()),
    };
    (record.origin.topic.to_string(), key.into(), version)
}

/// The door as one instance of the sink sees it.
pub struct Visitor(pub Arc<Door>);

#[async_trait::async_trait]
impl Sink for Visitor {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            idempotency: Idempotency::Key,
            compare_and_set: false,
            batch_records_max: 1,
            calls_max: self.0.calls_max,
        }
    }

    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        let door = &self.0;
        let delivery = &batch[0];
        let of = known(&delivery.inbound);
        door.calls.lock().expect("whole").push(Call {
            at: door.clock.now(),
            of: of.clone(),
            in_doubt: delivery.in_doubt,
            attempt: delivery.attempt,
        });
        door.under_way.lock().expect("whole").insert(of.1.clone());
        let takes = *door.takes.lock().expect("whole");
        door.clock.reached(door.clock.now().plus(takes)).await;
        door.under_way.lock().expect("whole").remove(&of.1);
        let says = (door.script.lock().expect("whole"))(&of);
        let mut done = door.done.lock().expect("whole");
        assert!(
            !door.is_careful || delivery.in_doubt || !done.1.contains(&of),
            "{of:?} is called for again as if it never had been"
        );
        let mut apply = || match done.1.insert(of.clone()) {
            false => SinkOutcome::DuplicateAcked,
            true => {
                done.0.push(of.clone());
                SinkOutcome::Acked
            }
        };
        let retry = |code, words| Err(Fault::retry(Stage::Write, code, words));
        vec![match says {
            Says::Yes => Ok(Ack {
                outcome: apply(),
                version: of.2,
                external_id: None,
                digest: None,
                status: Some(200),
            }),
            Says::Away => retry(Code::Unavailable, "it cannot be reached"),
            Says::Busy(wait) => {
                Err(Fault::retry(Stage::Write, Code::Throttled, "too many").after(wait))
            }
            Says::Lost => {
                apply();
                retry(Code::OutcomeUnknown, "done, and not answered")
            }
            Says::Cut => retry(Code::OutcomeUnknown, "not answered"),
            Says::Never => Err(Fault::reject(Stage::Write, Code::Refused, "never")),
        }]
    }

    fn is_meant_first(&self, _: &Inbound) -> bool {
        self.0.is_careful
    }

    fn refused(&self, inbound: &Inbound, _: &Fault) -> Vec<SourceRecord> {
        match self.0.tells_refusals {
            true => vec![told(inbound, PaymentKind::RefundFailed, 1)],
            false => Vec::new(),
        }
    }

    fn doubted(&self, inbound: &Inbound) -> Vec<SourceRecord> {
        match self.0.tells_refusals {
            true => vec![told(inbound, PaymentKind::RefundUnknown, 0)],
            false => Vec::new(),
        }
    }
}

fn told(inbound: &Inbound, kind: PaymentKind, version: i64) -> SourceRecord {
    let (_, key, number) = known(inbound);
    let id = format!("{key}/{number}/{}", kind.symbol());
    SourceRecord {
        topic: topic::PAYMENT_EVENT,
        key: key.clone(),
        event: PaymentEvent {
            meta: meta("PaymentEvent", "psp", &id, version),
            order_id: key,
            payment_version: version,
            kind,
            ..PaymentEvent::default()
        }
        .into(),
    }
}

pub fn settings(slot: &str) -> TaskSettings {
    let mut settings = TaskSettings::new(slot, 0);
    settings.static_membership = false;
    settings
}

pub fn visit(world: &World, door: &Arc<Door>, topics: &[&str], settings: TaskSettings) -> SinkTask {
    visit_as(SINK, world, door, topics, settings)
}

pub fn visit_as(
    name: &str,
    world: &World,
    door: &Arc<Door>,
    topics: &[&str],
    settings: TaskSettings,
) -> SinkTask {
    SinkTask::new(
        name,
        topics,
        Arc::new(Visitor(door.clone())),
        world.port(),
        world.clock.clone(),
        world.cold_codec(),
        Catalogue::compiled(),
        world.telemetry.clone(),
        settings,
    )
    .expect("a task")
}

/// Creates the topics of another sink.
pub fn create_sink(world: &World, name: &str) {
    let catalogue = Catalogue::compiled();
    let sinks = [(name, topic::STOCK_ATS)];
    let own = catalogue.physical(crossdock::contract::Tier::S, &[], &sinks);
    for topic in own
        .into_iter()
        .filter(|t| t.name.contains(&format!(".{name}.")))
    {
        let spec = TopicSpec {
            name: topic.name,
            partitions: topic.partitions,
            replication: 1,
            settings: topic.settings,
        };
        world.log.create(&spec).expect("a new topic");
    }
}

pub fn send_refund(world: &World, order: &str, version: i64) {
    let id = format!("{order}/{version}");
    let event = RefundEvent {
        meta: meta("RefundEvent", "gate", &id, version),
        order_id: order.into(),
        refund_version: version,
        ..RefundEvent::default()
    };
    world.send(topic::REFUND_EVENT, order, event);
}

pub fn send_level(world: &World, sku: &str, version: i64) {
    let event = AvailabilityChanged {
        meta: meta(
            "AvailabilityChanged",
            "ats",
            &format!("{sku}@{version}"),
            version,
        ),
        sku: sku.into(),
        channel_id: "web".into(),
        ats_version: version,
        ats: Decimal::from(1),
        ..AvailabilityChanged::default()
    };
    world.send(topic::STOCK_ATS, &format!("{sku}|web"), event);
}

pub fn send_product(world: &World, sku: &str, version: i64) {
    let event = ProductChanged {
        meta: meta(
            "ProductChanged",
            "pim",
            &format!("{sku}@{version}"),
            version,
        ),
        sku: sku.into(),
        product_version: version,
        ..ProductChanged::default()
    };
    world.send(topic::PRODUCT_CHANGE, sku, event);
}
