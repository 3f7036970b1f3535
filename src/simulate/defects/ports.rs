//! Defects at the ports of processors, sinks and sources.

use super::super::target::digest;
use super::Defect;
use crate::contract::event::{Event, OrderEventType, Outcome, SinkOutcome, StockState, Text};
use crate::demo::systems::open;
use crate::domain::{Timestamp, natural_id};
use crate::pipeline::{
    Ack, Capabilities, Code, Context, Cursor, Delivery, Fault, Inbound, Output, Processor,
    ProcessorDescriptor, Sent, Sink, Source, SourceBatch, SourceRecord, State, Verdict,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A processor that does something wrong.
pub(super) struct FlawedProcessor {
    inner: Box<dyn Processor>,
    defect: Defect,
    /// State as it would be if nothing were ever taken back.
    written: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl FlawedProcessor {
    pub fn new(inner: Box<dyn Processor>, defect: Defect) -> Self {
        FlawedProcessor {
            inner,
            defect,
            written: BTreeMap::new(),
        }
    }
}

/// State with the writes of transactions that were aborted still in it.
struct Stubborn<'a> {
    inner: &'a mut dyn State,
    written: &'a mut BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl State for Stubborn<'_> {
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        match self.written.get(key) {
            Some(value) => value.as_deref(),
            None => self.inner.get(key),
        }
    }
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.written.insert(key.to_vec(), Some(value.to_vec()));
        self.inner.put(key, value);
    }
    fn delete(&mut self, key: &[u8]) {
        self.written.insert(key.to_vec(), None);
        self.inner.delete(key);
    }
    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.inner.scan(prefix, visit);
    }
}

/// Says in one context what was said in another.
fn hand_on(output: Output, context: &mut Context<'_>) {
    for e in output.emissions {
        context.emit(e.topic, e.key, e.event);
    }
    for s in output.settlements {
        match s.effect {
            "" => context.settle(s.index, s.outcome, s.reason),
            effect => context.settle_effect(s.index, effect, s.outcome, s.reason),
        }
    }
    for (index, fault) in output.rejections {
        context.reject(index, fault);
    }
    for r in output.resolutions {
        context.resolve(r.origin, r.effect, r.outcome);
    }
    for (key, due) in output.timers {
        context.set_timer(key, due);
    }
}

impl Processor for FlawedProcessor {
    fn descriptor(&self) -> &'static ProcessorDescriptor {
        self.inner.descriptor()
    }

    fn process(
        &mut self,
        key: &str,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        match self.defect {
            Defect::ForgetsIdentities => {
                let mut all = inbound.to_vec();
                for i in &mut all {
                    let place = i.record.origin.to_string();
                    i.event.meta_mut().event_id = natural_id(&["again", &place]);
                }
                self.inner.process(key, &all, context)
            }
            Defect::LeavesClaims => {
                let mut all = inbound.to_vec();
                for i in &mut all {
                    if let Event::StockChanged(e) = &mut i.event
                        && e.from_state == StockState::Sellable
                    {
                        (e.reservation_id, e.order_id) = (None, None);
                    }
                }
                self.inner.process(key, &all, context)
            }
            Defect::TakesOlder if inbound.len() > 1 => {
                let last = inbound.len() - 1;
                context.settle(last, Outcome::Superseded, None);
                self.inner.process(key, &inbound[..last], context)
            }
            Defect::NoUndo => {
                let (mut output, now) = (Output::default(), context.now());
                let mut state = Stubborn {
                    inner: context.state(),
                    written: &mut self.written,
                };
                let mut stubborn = Context::new(&mut state, &mut output, now);
                let done = self.inner.process(key, inbound, &mut stubborn);
                hand_on(output, context);
                done
            }
            _ => self.inner.process(key, inbound, context),
        }
    }

    fn timer(&mut self, key: &str, due: Timestamp, context: &mut Context<'_>) -> Result<(), Fault> {
        self.inner.timer(key, due, context)
    }
    fn table(&mut self, topic: &str, key: &str, event: Option<&Event>) -> bool {
        self.inner.table(topic, key, event)
    }
    fn restored_timer(&self, key: &[u8], value: &[u8]) -> Option<(Text, Timestamp)> {
        match self.defect {
            Defect::ForgetsTimers => None,
            _ => self.inner.restored_timer(key, value),
        }
    }
    fn is_entity(&self, state_key: &[u8]) -> bool {
        self.inner.is_entity(state_key)
    }
}

/// A sink whose runtime does something wrong.
pub(super) struct FlawedSink {
    inner: Arc<dyn Sink>,
    defect: Defect,
    /// What was last sent for each key of a topic.
    sent: Mutex<BTreeMap<(Text, Text), String>>,
}

impl FlawedSink {
    pub fn new(inner: Arc<dyn Sink>, defect: Defect) -> Self {
        FlawedSink {
            inner,
            defect,
            sent: Mutex::default(),
        }
    }

    fn changed(&self, delivery: &Delivery) -> Delivery {
        let mut delivery = delivery.clone();
        match (self.defect, &mut delivery.inbound.event) {
            (Defect::ResendsAsNew, Event::RefundEvent(e)) if delivery.attempt > 1 => {
                e.attempt += delivery.attempt as i32;
            }
            (Defect::ResendsAsNew, Event::OrderEvent(e))
                if delivery.attempt > 1 && e.r#type == OrderEventType::Placed =>
            {
                e.order_id = compact_str::format_compact!("{}-{}", e.order_id, delivery.attempt);
            }
            (Defect::TrustsDigest, event) => {
                let topic = Text::from(&*delivery.inbound.record.origin.topic);
                let of = (topic, delivery.key.clone());
                let mut sent = open(&self.sent);
                let before = match digest(event) {
                    Some(digest) => sent.insert(of, digest),
                    None => None,
                };
                delivery.sent = Some(Sent {
                    digest: before,
                    ..delivery.sent.take().unwrap_or_default()
                });
            }
            _ => {}
        }
        delivery
    }
}

#[async_trait::async_trait]
impl Sink for FlawedSink {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn wants(&self, inbound: &Inbound) -> bool {
        self.inner.wants(inbound)
    }
    fn refused(&self, inbound: &Inbound, fault: &Fault) -> Vec<SourceRecord> {
        self.inner.refused(inbound, fault)
    }
    fn is_meant_first(&self, inbound: &Inbound) -> bool {
        self.inner.is_meant_first(inbound)
    }
    fn doubted(&self, inbound: &Inbound) -> Vec<SourceRecord> {
        self.inner.doubted(inbound)
    }
    fn urgency(&self, inbound: &Inbound) -> u8 {
        self.inner.urgency(inbound)
    }

    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        let batch: Vec<Delivery> = batch.iter().map(|d| self.changed(d)).collect();
        let results = self.inner.write(&batch).await.into_iter();
        let wrong = |result| match (self.defect, result) {
            (Defect::AcksErrors, Err(_)) => Ok(Ack {
                outcome: SinkOutcome::Acked,
                version: 0,
                external_id: None,
                digest: None,
                status: None,
            }),
            (Defect::BuriesOutages, Err(fault)) => Err(Fault {
                verdict: Verdict::Reject,
                code: Code::Refused,
                ..fault
            }),
            (_, result) => result,
        };
        results.map(wrong).collect()
    }
}

/// A source that hears of durability when it is read.
pub(super) struct Hasty(pub Box<dyn Source>);

#[async_trait::async_trait]
impl Source for Hasty {
    fn shards(&self) -> Vec<String> {
        self.0.shards()
    }
    async fn poll(&mut self, shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let batch = self.0.poll(shard, cursor).await?;
        self.0.committed(shard, &batch.cursor).await?;
        Ok(batch)
    }
}
