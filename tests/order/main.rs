//! The life of an order as `order-lifecycle` sees it: records in, state, decisions and exceptions out.

mod cancel;
mod disorder;
mod life;
mod saga;
mod shipments;
mod units;

use crossdock::contract::event::*;
use crossdock::contract::topic;
use crossdock::domain::{Decimal, Timestamp, event_id, order_id};
use crossdock::pipeline::{
    Code, Context, Headers, Inbound, Origin as Place, Output, Processor, Record, Resolution, State,
};
use crossdock::processors::OrderLifecycle;
use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) fn key() -> String {
    order_id("default", "web", "1001").to_string()
}

#[derive(Default)]
pub(crate) struct Entries(BTreeMap<Vec<u8>, Vec<u8>>);

impl State for Entries {
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.get(key).map(Vec::as_slice)
    }
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.insert(key.into(), value.into());
    }
    fn delete(&mut self, key: &[u8]) {
        self.0.remove(key);
    }
    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (key, value) in self.0.iter().filter(|(k, _)| k.starts_with(prefix)) {
            visit(key, value);
        }
    }
}

/// The processor with one order's state, time, and all that it has said.
#[derive(Default)]
pub(crate) struct Driven {
    processor: OrderLifecycle,
    state: Entries,
    next_offset: i64,
    pub(crate) now: Timestamp,
    timer: Option<Timestamp>,
    pub(crate) states: Vec<OrderState>,
    pub(crate) decisions: Vec<OrderEvent>,
    pub(crate) cases: Vec<BusinessException>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) codes: Vec<Code>,
    pub(crate) resolutions: Vec<Resolution>,
}

impl Driven {
    pub(crate) fn new() -> Self {
        Driven {
            now: at(0),
            ..Driven::default()
        }
    }

    /// One transaction's records. Decisions are read again, as from the log.
    pub(crate) fn send(&mut self, events: Vec<Event>) {
        let told = self.decisions.len();
        let inbound: Vec<Inbound> = events
            .into_iter()
            .map(|event| self.inbound(event))
            .collect();
        let mut output = Output::default();
        let mut context = Context::new(&mut self.state, &mut output, self.now);
        self.processor
            .process(&key(), &inbound, &mut context)
            .expect("processed");
        let settled = output.settlements.len() + output.rejections.len();
        assert_eq!(settled, inbound.len(), "each record is settled once");
        self.hear(output);
        let echo: Vec<Event> = self.decisions[told..]
            .iter()
            .cloned()
            .map(Event::from)
            .collect();
        if !echo.is_empty() {
            let before = (self.states.len(), self.decisions.len());
            self.send(echo);
            let duplicates = self
                .outcomes
                .iter()
                .rev()
                .take_while(|o| **o == Outcome::Duplicate);
            assert!(duplicates.count() > 0, "a decision read again is known");
            assert_eq!(
                (self.states.len(), self.decisions.len()),
                before,
                "and changes nothing"
            );
        }
    }

    fn inbound(&mut self, event: Event) -> Inbound {
        self.next_offset += 1;
        let topic = match &event {
            Event::PaymentEvent(_) => topic::PAYMENT_EVENT,
            Event::ReservationEvent(_) => topic::RESERVATION_EVENT,
            Event::ShipmentEvent(_) => topic::SHIPMENT_EVENT,
            Event::ReturnEvent(_) => topic::RETURN_EVENT,
            Event::RefundEvent(_) => topic::REFUND_EVENT,
            Event::InvoiceEvent(_) => topic::INVOICE_EVENT,
            _ => topic::ORDER_LIFECYCLE,
        };
        let origin = Place {
            topic: topic.into(),
            partition: 4,
            offset: self.next_offset,
        };
        let record = Record {
            origin,
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: Headers::default(),
        };
        Inbound { record, event }
    }

    /// Lets time pass, and the timers that come due fire.
    pub(crate) fn pass(&mut self, by: Duration) {
        let end = self.now.plus(by);
        while let Some(due) = self.timer.filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let mut output = Output::default();
            let mut context = Context::new(&mut self.state, &mut output, self.now);
            self.processor
                .timer(&key(), due, &mut context)
                .expect("fired");
            assert!(
                !output.timers.is_empty(),
                "a timer that has fired is set again or cleared"
            );
            self.hear(output);
        }
        self.now = end;
    }

    fn hear(&mut self, output: Output) {
        for emission in output.emissions {
            match emission.event {
                Event::OrderState(e) => self.states.push(e),
                Event::OrderEvent(e) => self.decisions.push(e),
                Event::BusinessException(e) => self.cases.push(e),
                other => panic!("nobody asked for {}", other.contract()),
            }
        }
        self.outcomes
            .extend(output.settlements.iter().map(|s| s.outcome));
        self.codes
            .extend(output.rejections.iter().map(|(_, fault)| fault.code));
        self.resolutions.extend(output.resolutions);
        for (_, due) in output.timers {
            self.timer = due;
        }
        // A restart finds the same timer.
        let stored = self.state.get(key().as_bytes());
        let restored = stored.and_then(|v| self.processor.restored_timer(key().as_bytes(), v));
        assert_eq!(
            restored.map(|(_, due)| due),
            self.timer,
            "the timer stands in the state"
        );
    }

    pub(crate) fn last(&self) -> &OrderState {
        self.states.last().expect("a state")
    }

    pub(crate) fn is_forgotten(&self) -> bool {
        self.state.0.is_empty()
    }

    pub(crate) fn state_bytes(&self) -> usize {
        self.state.0.values().map(Vec::len).sum()
    }

    /// Codes of the exceptions that are open.
    pub(crate) fn open(&self) -> Vec<String> {
        let mut newest: BTreeMap<uuid::Uuid, &BusinessException> = BTreeMap::new();
        for case in &self.cases {
            let before = newest.insert(case.exception_id, case);
            assert_eq!(
                case.exception_version,
                before.map_or(0, |b| b.exception_version) + 1
            );
        }
        let open = newest
            .values()
            .filter(|c| c.status != ExceptionStatus::Resolved);
        let mut codes: Vec<_> = open.map(|c| c.code.to_string()).collect();
        codes.sort();
        codes
    }

    /// What holds of all that was emitted: invariants 6 and 7.
    pub(crate) fn check(&self) {
        for (n, state) in self.states.iter().enumerate() {
            assert_eq!(
                state.state_version,
                n as i64 + 1,
                "versions count what is emitted"
            );
            for line in &state.lines {
                assert_eq!(
                    line.ordered,
                    sum(line),
                    "line {} of version {}",
                    line.line_id,
                    n + 1
                );
            }
        }
        for pair in self.states.windows(2) {
            for (object, version) in &pair[0].source_versions {
                let now = pair[1].source_versions.get(object);
                assert!(now.is_some_and(|now| now >= version), "{object} fell");
            }
        }
    }
}

fn sum(line: &LineState) -> Decimal {
    let buckets = [
        line.open,
        line.reserved,
        line.backordered,
        line.released,
        line.picked,
        line.shipped,
        line.delivered,
        line.cancelled,
    ];
    buckets.into_iter().sum()
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp((1_700_000_000 + seconds) * 1_000_000)
}

pub(crate) fn q(units: i32) -> Decimal {
    Decimal::from(units)
}

pub(crate) fn eur(units: i32) -> Money {
    Money {
        amount: q(units),
        currency: "EUR".into(),
    }
}

pub(crate) fn meta(event_type: &str, source: &str, record: &str, version: i64) -> EventMeta {
    EventMeta {
        event_id: event_id(source, 0, &format!("{record}#{version}"), "", event_type),
        event_type: event_type.into(),
        source: source.into(),
        source_position: version,
        position_kind: PositionKind::Version,
        occurred_at: at(version),
        recorded_at: at(version),
        correlation_id: record.into(),
        ..EventMeta::default()
    }
}

/// An event about the order from `source`, without the order itself.
pub(crate) fn says(source: &str, kind: OrderEventType, version: i64) -> OrderEvent {
    OrderEvent {
        meta: meta("OrderEvent", source, kind.symbol(), version),
        order_id: key().into(),
        r#type: kind,
        entity_version: version,
        ..OrderEvent::default()
    }
}

/// An order of these lines, each unit at 10 EUR, all to be handed over by `method`.
pub(crate) fn snapshot(lines: &[(&str, i32)], method: DeliveryMethod) -> OrderSnapshot {
    let total = |quantity: i32| q(10 * quantity);
    let group = DeliveryGroup {
        group_id: "g".into(),
        method,
        promise_by: Some(at(86_400)),
        ..DeliveryGroup::default()
    };
    OrderSnapshot {
        channel_id: "web".into(),
        channel_type: ChannelType::Web,
        channel_order_id: "1001".into(),
        placed_at: at(0),
        currency: "EUR".into(),
        prices_include_tax: true,
        lines: lines
            .iter()
            .map(|(id, quantity)| OrderLine {
                line_id: (*id).into(),
                sku: format!("SKU-{id}").into(),
                qty: q(*quantity),
                uom: "EA".into(),
                unit_price: q(10),
                line_total: total(*quantity),
                delivery_group_id: "g".into(),
                ..OrderLine::default()
            })
            .collect(),
        delivery_groups: vec![group],
        grand_total: lines.iter().map(|(_, quantity)| total(*quantity)).sum(),
        ..OrderSnapshot::default()
    }
}

pub(crate) fn placed(lines: &[(&str, i32)]) -> Event {
    OrderEvent {
        order: Some(snapshot(lines, DeliveryMethod::ShipToHome)),
        ..says("shop", OrderEventType::Placed, 1)
    }
    .into()
}

pub(crate) fn accepted(version: i64) -> Event {
    OrderEvent {
        erp_order_id: Some("SO-7".into()),
        ..says("erp", OrderEventType::Accepted, version)
    }
    .into()
}

pub(crate) fn held(id: u128, line: &str, quantity: i32, version: i64) -> Event {
    ReservationEvent {
        meta: meta(
            "ReservationEvent",
            "crossdock/stock-ledger",
            &format!("r{id}"),
            version,
        ),
        reservation_id: uuid::Uuid::from_u128(id),
        reservation_version: version,
        status: ReservationStatus::Held,
        order_id: key().into(),
        order_line_id: line.into(),
        qty_requested: q(quantity),
        qty_held: q(quantity),
        ..ReservationEvent::default()
    }
    .into()
}

/// A fulfilment of one line; counters: allocated, picked, shipped, delivered.
pub(crate) fn shipment(
    id: &str,
    version: i64,
    status: ShipmentStatus,
    line: &str,
    counters: [i32; 4],
) -> Event {
    ShipmentEvent {
        meta: meta("ShipmentEvent", "wms", id, version),
        order_id: key().into(),
        shipment_id: id.into(),
        shipment_version: version,
        node_id: "dc".into(),
        status,
        lines: vec![ShipmentLine {
            line_id: line.into(),
            sku: format!("SKU-{line}").into(),
            allocated: q(counters[0]),
            picked: q(counters[1]),
            shipped: q(counters[2]),
            delivered: q(counters[3]),
            ..ShipmentLine::default()
        }],
        ..ShipmentEvent::default()
    }
    .into()
}

pub(crate) fn paid(kind: PaymentKind, amount: i32, version: i64) -> Event {
    PaymentEvent {
        meta: meta("PaymentEvent", "psp", "pay-1", version),
        order_id: key().into(),
        payment_id: "pay-1".into(),
        payment_version: 1,
        psp: "psp".into(),
        psp_reference: format!("m{version}").into(),
        kind,
        amount: eur(amount),
        ..PaymentEvent::default()
    }
    .into()
}

pub(crate) fn returned(version: i64, line: &str, received: i32, accepted: i32) -> Event {
    ReturnEvent {
        meta: meta("ReturnEvent", "store", "ret-1", version),
        order_id: key().into(),
        return_id: "ret-1".into(),
        return_version: version,
        status: ReturnStatus::Received,
        lines: vec![ReturnLine {
            order_line_id: line.into(),
            received: q(received),
            accepted: q(accepted),
            ..ReturnLine::default()
        }],
        ..ReturnEvent::default()
    }
    .into()
}

pub(crate) fn refund(status: RefundStatus, version: i64, line: &str, units: i32) -> Event {
    RefundEvent {
        meta: meta("RefundEvent", "crossdock/refund-gate", "ref-1", version),
        order_id: key().into(),
        refund_id: uuid::Uuid::from_u128(99),
        refund_version: version,
        status,
        amount: eur(10 * units),
        allocations: vec![RefundAllocation {
            order_line_id: Some(line.into()),
            qty: q(units),
            net: q(10 * units),
            r#type: RefundType::Item,
            ..RefundAllocation::default()
        }],
        ..RefundEvent::default()
    }
    .into()
}
