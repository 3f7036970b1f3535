//! An order's life through the binary on Kafka and the real ERP: it claims its stock, becomes one sale
//! although it is told twice, is accepted, sent, billed and partly taken back there, and every state of it
//! is seen on the log.

use crate::erp::Erp;
use crate::kafka::Kafka;
use crate::sales::{SHOP, id_of, numbers, placed};
use crate::stock::{configure, quiet};
use crate::support::records;
use crate::systems::Systems;
use crate::worker::{Worker, succeed};
use crossdock::codec::Codec;
use crossdock::contract::event::{Event, OrderStatus, ReservationStatus, ShipmentStatus};
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::Timestamp;
use crossdock::log::kafka::{KafkaLog, KafkaSettings};
use crossdock::log::{Log, Outgoing, ProducerSpec, TopicPartition, partition_for};
use crossdock::pipeline::Headers;
use crossdock::registry::EmbeddedRegistry;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub const PATIENCE: Duration = Duration::from_secs(120);

/// A log under test.
pub struct Watch {
    log: Arc<dyn Log>,
    codec: Codec,
}

impl Watch {
    pub fn open(kafka: &Kafka) -> Watch {
        let settings = KafkaSettings::plain(&kafka.bootstrap);
        let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(settings).expect("connected"));
        let registry = EmbeddedRegistry::open(log.clone()).expect("a registry");
        Watch {
            codec: Codec::new(Arc::new(registry), Catalogue::compiled()),
            log,
        }
    }

    /// Events of a key, the oldest first.
    fn events(&self, topic: &str, key: &str) -> Vec<Event> {
        let topics = self.log.admin().topics().expect("topics");
        let found = topics.iter().find(|t| t.name == topic).expect("the topic");
        let partition = TopicPartition {
            topic: topic.into(),
            partition: partition_for(key.as_bytes(), found.partitions),
        };
        let of_key = records(&self.log, &partition).into_iter();
        let of_key = of_key.filter(|r| r.key.as_deref() == Some(key.as_bytes()));
        of_key
            .map(|r| self.codec.decode(&r).expect("decoded"))
            .collect()
    }

    /// Waits until something is true of the events of a key.
    pub fn until<T>(
        &self,
        what: &str,
        topic: &str,
        key: &str,
        of: impl Fn(&Event) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let events = self.events(topic, key);
            if let Some(found) = events.iter().rev().find_map(&of) {
                return found;
            }
            let last = events.last();
            assert!(Instant::now() < deadline, "{what}: {last:?}");
        }
    }

    /// Waits until the stock of the warehouse is known.
    pub fn stock(&self, skus: &[&str]) {
        for sku in skus {
            let key = format!("{sku}|WH");
            self.until("stock", topic::STOCK_LEVEL, &key, |e| match e {
                Event::StockLevel(e) => e.sellable.is_positive().then_some(()),
                _ => None,
            });
        }
    }

    /// Waits until the state of an order is this.
    pub fn status(&self, order: &str, wanted: OrderStatus) {
        self.until(
            &format!("{wanted}"),
            topic::ORDER_STATE,
            order,
            |e| match e {
                Event::OrderState(e) => (e.status == wanted).then_some(()),
                _ => None,
            },
        );
    }
}

#[test]
fn an_order_lives_in_the_erp_and_every_state_of_it_is_told() {
    let Some(systems) = Systems::find() else {
        return;
    };
    let Some(kafka) = Kafka::find(1) else { return };
    let erp = Erp::log_in(&systems);
    erp.web_shop(SHOP);
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = erp.settings();
    settings["channels"] = json!({"web": {"shop": SHOP}});
    let channels = json!({"channels": {"web": {"locations": ["WH"]}}});
    let configuration = configure(
        folder.path(),
        &[
            ("erp", "tryton", settings),
            ("channels", "reference", channels),
        ],
    );
    let connectors = ["erp=tryton", "channels=reference"];
    let connectors = connectors.map(|c| ["--connector", c]).concat();
    let prepare = |command: &[&str]| succeed(&kafka.bootstrap, &[command, &connectors].concat());
    prepare(&["topics", "apply", "--replication", "1"]);
    prepare(&["schemas", "register"]);
    let processors = [
        "stock-ledger",
        "order-lifecycle",
        "reservation-saga",
        "shipment-propagation",
        "return-refund-recon",
        "ledger",
    ];
    let start = |instance: &str, names: &[&str]| {
        let arguments = [&["run"], names, &["--config", &configuration]].concat();
        Worker::start(&kafka.bootstrap, folder.path(), instance, &arguments)
    };
    let workers = [
        start("erp", &["erp", "channels"]),
        start("processors", &processors),
    ];
    let watch = Watch::open(&kafka);
    watch.stock(&["SKU-0260", "SKU-0261"]);

    // Placed, and told twice.
    let number = numbers()();
    let id = id_of(&number);
    let mut order = placed(&number, "C004");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("now");
    let now = Timestamp(now.as_micros() as i64);
    order.meta.event_id = crossdock::domain::event_id("web-shop", 0, &number, "", "OrderEvent");
    (order.meta.occurred_at, order.meta.recorded_at) = (now, now);
    order.order.as_mut().expect("an order").placed_at = now;
    let mut value = Vec::new();
    watch
        .codec
        .encode(topic::ORDER_LIFECYCLE, &order.into(), &mut value)
        .expect("encoded");
    let mut producer = watch
        .log
        .producer(&ProducerSpec::default())
        .expect("a producer");
    for _ in 0..2 {
        let record = Outgoing {
            topic: topic::ORDER_LIFECYCLE,
            partition: None,
            key: Some(id.as_bytes()),
            value: Some(&value),
            headers: &Headers::default(),
            timestamp_ms: now.as_millis(),
        };
        producer.send(record).expect("sent");
    }
    producer.flush().expect("flushed");
    watch.until("accepted", topic::ORDER_STATE, &id, |e| match e {
        Event::OrderState(e) => (!e.erp_order_ids.is_empty()).then_some(()),
        _ => None,
    });
    let claims = |status: ReservationStatus, lines: usize| {
        let told = move |watch: &Watch, id: &str| {
            let events = watch.events(topic::RESERVATION_EVENT, id);
            let of_status = events.iter().filter(|e| match e {
                Event::ReservationEvent(e) => e.status == status,
                _ => false,
            });
            of_status.count() >= lines
        };
        let deadline = Instant::now() + PATIENCE;
        while !told(&watch, &id) {
            assert!(Instant::now() < deadline, "{status} never came");
        }
    };
    claims(ReservationStatus::Confirmed, 2);

    // The ERP makes the shipment a moment after it has accepted.
    watch.until("released", topic::SHIPMENT_EVENT, &id, |e| match e {
        Event::ShipmentEvent(e) => (e.status == ShipmentStatus::Released).then_some(()),
        _ => None,
    });

    // Sent from the ERP, with a tracking number; the claims are used up by goods that name their order.
    erp.fulfil(&id, "1Z-LIFE");
    let tracking = watch.until("sent", topic::SHIPMENT_STATE, &id, |e| match e {
        Event::ShipmentState(e) => {
            let package = e.fulfilments.first()?.packages.first()?;
            package.tracking_number.clone()
        }
        _ => None,
    });
    assert_eq!(tracking, "1Z-LIFE");
    watch.status(&id, OrderStatus::Shipped);
    claims(ReservationStatus::Consumed, 2);

    // Billed, and one unit taken back and credited.
    erp.bill(&id);
    erp.take_back_of(&id, 1);
    watch.status(&id, OrderStatus::PartiallyReturned);
    let money = |e: &Event| match e {
        Event::OrderState(e) => {
            let credited = e.credited.is_positive();
            credited.then(|| (e.invoiced.to_string(), e.credited.to_string()))
        }
        _ => None,
    };
    let money = watch.until("credited", topic::ORDER_STATE, &id, money);
    assert_eq!(money, ("28.98".to_owned(), "11.99".to_owned()));

    assert_eq!(erp.sales_of(&id).len(), 1, "one sale");
    for reader in [
        "erp",
        "order-lifecycle",
        "stock-ledger",
        "shipment-propagation",
    ] {
        let books = quiet(&kafka, reader, PATIENCE);
        assert_eq!(books["dead_lettered"], json!(0), "{reader}: {books}");
    }
    for worker in workers {
        assert_eq!(worker.terminate(), Some(0), "an orderly end");
    }
}
