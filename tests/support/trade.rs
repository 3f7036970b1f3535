//! A storefront's connector and the processors that orders pass through, on the embedded log.

use crate::world::{SINK, World, meta};
use crossdock::contract::event::*;
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::{Decimal, Timestamp, compound_key, order_id};
use crossdock::pipeline::{Clock, Connector, ConnectorDescriptor};
use crossdock::runtime::{ProcessorTask, Progress, SinkTask, SourceTask, TaskSettings};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Rounds in which nothing happens, after which nothing will: lists that are read again rest between.
const QUIET_ROUNDS: usize = 30;
const PROCESSORS: [&str; 7] = [
    "stock-ledger",
    "reservation-saga",
    "order-lifecycle",
    "shipment-propagation",
    "refund-gate",
    "return-refund-recon",
    "ledger",
];

pub struct Trade {
    pub world: World,
    pub now: Timestamp,
    source: SourceTask,
    sink: SinkTask,
    processors: Vec<ProcessorTask>,
}

impl Trade {
    /// With 50 of each SKU at the one location that serves the channel `web`.
    pub fn open(
        descriptor: &ConnectorDescriptor,
        connector: &dyn Connector,
        skus: &[&str],
        now: Timestamp,
    ) -> Trade {
        let world = World::new();
        world.clock.0.store(now.0, Ordering::SeqCst);
        let settings = || {
            let mut settings = TaskSettings::new("slot-0", 0);
            settings.static_membership = false;
            settings
        };
        let source = SourceTask::new(
            SINK,
            connector.source().expect("a source"),
            world.port(),
            world.clock.clone(),
            world.cold_codec(),
            Catalogue::compiled(),
            world.telemetry.clone(),
            settings(),
        );
        let sink = SinkTask::new(
            SINK,
            descriptor.accepts,
            connector.sink().expect("a sink"),
            world.port(),
            world.clock.clone(),
            world.cold_codec(),
            Catalogue::compiled(),
            world.telemetry.clone(),
            settings(),
        );
        let processors = PROCESSORS.map(|name| world.task(name, "slot-0")).into();
        let channel = Channel {
            meta: meta("Channel", "config", "web", 1),
            channel_id: "web".into(),
            channel_version: 1,
            status: ChannelStatus::Active,
            eligible_locations: vec!["dc".into()],
            ..Channel::default()
        };
        world.send(topic::CHANNEL_CHANGE, "web", channel);
        for sku in skus {
            let fact = StockChanged {
                meta: meta("StockChanged", "wms", &format!("in/{sku}"), 1),
                movement_id: "in".into(),
                sku: (*sku).into(),
                location_id: "dc".into(),
                from_state: StockState::Supplier,
                to_state: StockState::Sellable,
                qty: Decimal::from(50),
                reason: StockReason::Receipt,
                ..StockChanged::default()
            };
            world.send(topic::STOCK_CHANGE, &compound_key(&[sku, "dc"]), fact);
        }
        Trade {
            source: source.expect("a source task"),
            sink: sink.expect("a sink task"),
            processors,
            world,
            now,
        }
    }

    /// Lets everybody work until nobody has anything to do.
    pub async fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..5_000 {
            let mut busy = false;
            self.world.advance(Duration::from_millis(100));
            let read = self.source.step().await.unwrap_or_else(|f| panic!("{f}"));
            busy |= matches!(
                read,
                Progress::Worked(_) | Progress::Restoring { .. } | Progress::Joining
            );
            for task in &mut self.processors {
                let name = task.name().to_owned();
                let done = task
                    .step(Duration::ZERO)
                    .unwrap_or_else(|f| panic!("{name}: {f}"));
                busy |= match done {
                    Progress::Idle { until: Some(due) } => {
                        due <= self.world.clock.now().plus(Duration::from_secs(1))
                    }
                    Progress::Idle { until: None } | Progress::Unassigned => false,
                    _ => true,
                };
            }
            let sent = self.sink.step(Duration::ZERO).await;
            busy |= matches!(sent.unwrap_or_else(|f| panic!("{f}")), Progress::Worked(n) if n > 0);
            busy |= !self.sink.is_quiet();
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet == QUIET_ROUNDS {
                return;
            }
        }
        panic!("it never came to rest");
    }

    /// What nobody could take in: there must be nothing.
    pub fn dead_letters(&self) -> Vec<String> {
        let mut letters = Vec::new();
        for reader in PROCESSORS.iter().chain([&SINK]) {
            for event in self.world.events(&format!("retail.rt.{reader}.dlq.v1")) {
                if let Event::DeadLetter(letter) = event {
                    letters.push(format!("{reader}: {} {:?}", letter.code, letter.message));
                }
            }
        }
        letters
    }

    pub fn state(&self, order: &str) -> OrderState {
        let states = self.world.events(topic::ORDER_STATE).into_iter();
        let of_order = states.filter_map(|e| match e {
            Event::OrderState(state) if *state.order_id == *order => Some(state),
            _ => None,
        });
        of_order.max_by_key(|s| s.state_version).expect("a state")
    }

    pub fn refunds(&self, order: &str) -> Vec<RefundEvent> {
        let events = self.world.events(topic::REFUND_EVENT).into_iter();
        let of_order = events.filter_map(|e| match e {
            Event::RefundEvent(refund) if *refund.order_id == *order => Some(refund),
            _ => None,
        });
        of_order.collect()
    }

    /// A fact of another system.
    pub fn meta(&self, event_type: &str, record: &str) -> EventMeta {
        EventMeta {
            occurred_at: self.now,
            recorded_at: self.now,
            ..meta(event_type, "test", record, 1)
        }
    }

    /// Tells that a node has shipped these units (line, SKU, units) in one parcel.
    pub fn ship(&self, order: &str, shipment: &str, lines: &[(&str, &str, i32)], tracking: &str) {
        let line = |(id, sku, units): &(&str, &str, i32)| ShipmentLine {
            line_id: (*id).into(),
            sku: (*sku).into(),
            allocated: Decimal::from(*units),
            picked: Decimal::from(*units),
            shipped: Decimal::from(*units),
            ..ShipmentLine::default()
        };
        let event = ShipmentEvent {
            meta: self.meta("ShipmentEvent", shipment),
            order_id: order.into(),
            shipment_id: shipment.into(),
            shipment_version: 1,
            node_id: "dc".into(),
            status: ShipmentStatus::Shipped,
            lines: lines.iter().map(line).collect(),
            packages: vec![Package {
                package_id: "p".into(),
                carrier: Some("DHL".into()),
                tracking_number: Some(tracking.into()),
                ..Package::default()
            }],
            ..ShipmentEvent::default()
        };
        self.world.send(topic::SHIPMENT_EVENT, order, event);
    }

    /// One unit of a line comes back, is accepted, and its money is asked for, twice.
    pub fn give_back(&self, order: &str, line: &str, sku: &str, net: Decimal, tax: Decimal) {
        let goods = crossdock::domain::return_id(order, "service", line).to_string();
        let returned = ReturnEvent {
            meta: self.meta("ReturnEvent", &goods),
            order_id: order.into(),
            return_id: goods.as_str().into(),
            return_version: 1,
            status: ReturnStatus::Inspected,
            lines: vec![ReturnLine {
                return_line_id: "1".into(),
                order_line_id: line.into(),
                sku: sku.into(),
                requested: Decimal::ONE,
                received: Decimal::ONE,
                accepted: Decimal::ONE,
                disposition: Disposition::Restock,
                ..ReturnLine::default()
            }],
            ..ReturnEvent::default()
        };
        let meta = self.meta("RefundRequest", &goods);
        let request = RefundRequest {
            request_id: meta.event_id,
            refund_id: meta.event_id,
            meta,
            order_id: order.into(),
            return_id: Some(goods.as_str().into()),
            amount: Money {
                amount: net + tax,
                currency: "EUR".into(),
            },
            allocations: vec![RefundAllocation {
                order_line_id: Some(line.into()),
                qty: Decimal::ONE,
                net,
                tax,
                r#type: RefundType::Item,
            }],
            requested_by: "service".into(),
            ..RefundRequest::default()
        };
        self.world.send(topic::RETURN_EVENT, order, returned);
        self.world
            .send(topic::REFUND_REQUEST, order, request.clone());
        self.world.send(topic::REFUND_REQUEST, order, request);
    }

    /// Customer service asks for a unit of a line to be cancelled.
    pub fn ask_to_cancel(&self, order: &str, line: &str) {
        let request = OrderEvent {
            meta: self.meta("OrderEvent", &format!("cancel/{line}")),
            order_id: order.into(),
            r#type: OrderEventType::CancelRequested,
            entity_version: 1,
            affected: vec![LineQty {
                line_id: line.into(),
                qty: Decimal::ONE,
            }],
            ..OrderEvent::default()
        };
        self.world.send(topic::ORDER_LIFECYCLE, order, request);
    }
}

/// The id of an order of channel `web`.
pub fn key(number: &str) -> String {
    order_id("default", "web", number).to_string()
}
