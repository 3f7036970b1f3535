//! `order-lifecycle`: the one state of each order, joined from all that is said of it.
//!
//! Orders, payments, reservations, fulfilments, returns, refunds and invoices of one order come in, in
//! any order and any number of times; its state, its decisions on cancellations and its exceptions go
//! out. A full outer join without a window: what comes before the order waits under the order's key
//! and is openly parked after 15 minutes; an order is kept until 400 days after the last thing that
//! happened to it once it was final. The rules are in [`crate::domain::order`]; `input` turns events
//! into facts and checks them, `output` turns results into events.

mod input;
mod output;

use crate::contract::event::{Event, EventMeta, OrderEvent, OrderEventType, Outcome, Text};
use crate::contract::topic;
use crate::domain::order::{Fact, Heard, Order, Said};
use crate::domain::{Kept, Position, Stored, Timestamp, adopt_state, tell_state};
use crate::pipeline::{
    Code, Context, Fault, Inbound, Origin, Processor, ProcessorDescriptor, Stage,
};
use crate::processors::cases;
use crate::processors::keyed::load;

/// What `order-lifecycle` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "order-lifecycle",
    purpose: "joins all that is said of an order into its one state, and decides cancellations",
    inputs: &[
        topic::ORDER_LIFECYCLE,
        topic::PAYMENT_EVENT,
        topic::RESERVATION_EVENT,
        topic::SHIPMENT_EVENT,
        topic::RETURN_EVENT,
        topic::REFUND_EVENT,
        topic::INVOICE_EVENT,
    ],
    tables: &[],
    outputs: &[
        topic::ORDER_STATE,
        topic::ORDER_LIFECYCLE,
        topic::OPS_EXCEPTION,
    ],
};

/// The processor.
#[derive(Default)]
pub struct OrderLifecycle {
    bytes: Vec<u8>,
}

impl OrderLifecycle {
    /// Without state of its own.
    pub fn new() -> Self {
        Self::default()
    }
}

/// One order under work.
struct Work<'k> {
    key: &'k str,
    order: Order,
    /// Whether something is known now that was not before.
    changed: bool,
    /// Event time of the newest fact taken in.
    newest: Timestamp,
    /// The fact taken in last.
    cause: Option<&'k Inbound>,
}

impl Processor for OrderLifecycle {
    fn descriptor(&self) -> &'static ProcessorDescriptor {
        &DESCRIPTOR
    }

    fn process(
        &mut self,
        key: &str,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut work = Work::load(key, context)?;
        for (index, i) in inbound.iter().enumerate() {
            if let Err(fault) = work.take_in(index, i, context) {
                context.reject(index, fault);
            }
        }
        self.finish(work, context);
        Ok(())
    }

    fn timer(
        &mut self,
        key: &str,
        _due: Timestamp,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut work = Work::load(key, context)?;
        // It has fired: whatever follows sets it again.
        context.set_timer(key, None);
        work.order.set_fired();
        self.finish(work, context);
        Ok(())
    }

    fn restored_timer(&self, key: &[u8], value: &[u8]) -> Option<(Text, Timestamp)> {
        let due = Order::due_of(value).ok()??;
        Some((std::str::from_utf8(key).ok()?.into(), due))
    }

    // Its decisions on cancellations stand in an input, and are taken from there.

    fn describe(&self, _key: &[u8], value: &[u8]) -> Option<serde_json::Value> {
        tell_state::<Order>(value)
    }

    fn adopt(&self, _key: &[u8], own: &[u8], other: &[u8]) -> Option<Vec<u8>> {
        adopt_state::<Order>(own, other)
    }
}

impl OrderLifecycle {
    /// Emits what changed and writes the order back, or forgets it.
    fn finish(&mut self, mut work: Work<'_>, context: &mut Context<'_>) {
        let now = context.now();
        let (view, contradictions) = work.order.project();
        let turns = work.order.cases.follow(contradictions, now);
        for turn in &turns {
            if turn.code == "ORPHAN" && turn.is_opened() {
                work.park(context);
            }
        }
        if let Some(view) = &view {
            work.resolve_waiting(context);
            if work.changed || !turns.is_empty() {
                work.emit_state(view, context);
            }
        }
        let about = work.about(view.as_ref());
        cases::emit(&about, turns, &work.emitter(context), context);
        let before = work.order.due();
        let is_final = view.is_some_and(|v| v.closed || v.status.is_final());
        if work.order.is_over(is_final, now) {
            context.state().delete(work.key.as_bytes());
            context.set_timer(work.key, None);
            return;
        }
        let due = work.order.set_due(is_final);
        if due != before {
            context.set_timer(work.key, due);
        }
        work.order.to_state(&mut self.bytes);
        if context.state().get(work.key.as_bytes()) != Some(&self.bytes) {
            context.state().put(work.key.as_bytes(), &self.bytes);
        }
    }
}

impl<'k> Work<'k> {
    fn load(key: &'k str, context: &mut Context<'_>) -> Result<Self, Fault> {
        Ok(Work {
            key,
            order: load(key, context)?,
            changed: false,
            newest: Timestamp::default(),
            cause: None,
        })
    }

    /// Takes in one record and settles it.
    fn take_in(
        &mut self,
        index: usize,
        inbound: &'k Inbound,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let event = &inbound.event;
        input::check(self.key, event)?;
        if !self.order.is_known() && !self.order.can_wait() {
            return Err(crowded(self.key));
        }
        match event {
            Event::OrderEvent(e) if e.r#type == OrderEventType::CancelRequested => {
                let wanted = input::quantities(&e.affected)?;
                let request = e.meta.event_id.as_u128();
                let heard = self.order.request_cancel(request, wanted, context.now());
                self.settle(
                    index,
                    heard,
                    "cancel",
                    said(&e.meta, e.entity_version),
                    inbound,
                    context,
                )?;
                self.decide(e, context);
                Ok(())
            }
            Event::OrderEvent(e) if e.r#type == OrderEventType::CancelDecided => {
                let granted = input::quantities(&e.affected)?;
                let own = *e.meta.source == *output::SOURCE;
                let request = e.request_id.unwrap_or(e.meta.event_id).as_u128();
                let version = if own { e.entity_version } else { 0 };
                let heard = self
                    .order
                    .cancel_decided(request, granted, version, context.now());
                self.settle(
                    index,
                    heard,
                    "cancel",
                    said(&e.meta, e.entity_version),
                    inbound,
                    context,
                )
            }
            _ => {
                let (fact, version) = input::fact(event)?;
                let said = said(event.meta(), version);
                let placed = matches!(&fact, Fact::Order { .. });
                let entity = fact.entity();
                let heard = self.order.hear(said, fact, context.now());
                self.settle(index, heard, &entity, said, inbound, context)?;
                if let (true, Event::OrderEvent(e)) = (placed, event) {
                    self.decide(e, context);
                }
                Ok(())
            }
        }
    }

    fn settle(
        &mut self,
        index: usize,
        heard: Heard,
        entity: &str,
        said: Said,
        inbound: &'k Inbound,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let origin = &inbound.record.origin;
        let (outcome, reason) = match heard {
            Heard::Applied => (Outcome::Applied, None),
            Heard::Duplicate => (Outcome::Duplicate, None),
            Heard::Superseded => (Outcome::Superseded, Some("a newer version is known")),
            Heard::Conflicting { taken: true } => (
                Outcome::Applied,
                Some("another fact of the same version was known"),
            ),
            Heard::Conflicting { taken: false } => (
                Outcome::Superseded,
                Some("another fact of the same version is known"),
            ),
            Heard::TooMuch => return Err(too_much(self.key)),
        };
        if heard != Heard::Duplicate && heard != Heard::Superseded {
            self.hear(inbound);
        }
        if outcome != Outcome::Applied || self.order.is_known() {
            context.settle(index, outcome, reason);
            return Ok(());
        }
        let overdue = self.order.cases.open().any(|(code, _)| code == "ORPHAN");
        self.order.wait(
            &origin.topic,
            origin.partition,
            origin.offset,
            entity,
            said.at,
            overdue,
        );
        match overdue {
            true => context.settle(index, Outcome::Parked, Some("nobody has told of the order")),
            false => context.settle(index, Outcome::Buffered, Some("waits for the order")),
        }
        Ok(())
    }

    fn hear(&mut self, inbound: &'k Inbound) {
        self.changed = true;
        self.newest = self.newest.max(inbound.event.meta().occurred_at);
        self.cause = Some(inbound);
    }

    /// Decides the cancellations that can be decided now, before anything later is taken in.
    fn decide(&mut self, cause: &OrderEvent, context: &mut Context<'_>) {
        for decision in self.order.decide() {
            self.changed = true;
            self.emit_decision(&decision, cause, context);
        }
    }

    /// The order has become known: what waited for it is settled.
    fn resolve_waiting(&mut self, context: &mut Context<'_>) {
        for waiting in self.order.take_waiting() {
            let outcome = match waiting.superseded {
                true => Outcome::Superseded,
                false => Outcome::Applied,
            };
            let origin = place(&waiting.topic, waiting.partition, waiting.offset);
            if waiting.parked {
                context.unpark(origin.clone());
            }
            context.resolve(origin, "", outcome);
        }
    }

    /// The order has not become known in time: what waits for it is openly parked.
    fn park(&mut self, context: &mut Context<'_>) {
        for waiting in self.order.park_waiting() {
            let origin = place(&waiting.topic, waiting.partition, waiting.offset);
            context.resolve(origin, "", Outcome::Parked);
        }
    }
}

fn said(meta: &EventMeta, version: i64) -> Said {
    Said {
        at: Position {
            epoch: meta.source_epoch,
            sequence: version,
        },
        event: meta.event_id.as_u128(),
    }
}

fn place(topic: &str, partition: i32, offset: i64) -> Origin {
    Origin {
        topic: topic.into(),
        partition,
        offset,
    }
}

fn crowded(key: &str) -> Fault {
    let message = format!(
        "nothing is known of order {key}, and no more facts can wait for it; read the order again from its channel, then redrive"
    );
    Fault::reject(Stage::Process, Code::UnknownReference, message)
}

fn too_much(key: &str) -> Fault {
    let message = format!(
        "order {key} would have more than {} lines, payments and documents; no order has: look for a source that makes new ones of the same",
        crate::domain::order::WEIGHT_MAX
    );
    Fault::reject(Stage::Process, Code::DataQuality, message)
}
