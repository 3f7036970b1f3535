//! A processor of one key, driven by hand: records in, events, outcomes and timers out.

use crossdock::contract::event::*;
use crossdock::contract::topic;
use crossdock::domain::Timestamp;
use crossdock::pipeline::{
    Code, Context, Headers, Inbound, Origin as Place, Output, Processor, Record, Resolution, State,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Clone, Default)]
pub(crate) struct Entries(pub BTreeMap<Vec<u8>, Vec<u8>>);

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

/// A processor of one key, its state, and all that it has said.
pub(crate) struct Driven<P> {
    processor: P,
    key: String,
    pub state: Entries,
    pub now: Timestamp,
    timer: Option<Timestamp>,
    next_offset: i64,
    pub said: Vec<Event>,
    pub outcomes: Vec<Outcome>,
    pub refused: Vec<Code>,
    pub resolved: Vec<Resolution>,
}

impl<P: Processor> Driven<P> {
    pub fn at(processor: P, key: &str, start: Timestamp) -> Self {
        Driven {
            processor,
            key: key.into(),
            state: Entries::default(),
            now: start,
            timer: None,
            next_offset: 0,
            said: Vec::new(),
            outcomes: Vec::new(),
            refused: Vec::new(),
            resolved: Vec::new(),
        }
    }

    /// One transaction's records.
    pub fn send(&mut self, events: Vec<Event>) {
        let inbound: Vec<Inbound> = events.into_iter().map(|e| self.inbound(e)).collect();
        let mut output = Output::default();
        let mut context = Context::new(&mut self.state, &mut output, self.now);
        let done = self.processor.process(&self.key, &inbound, &mut context);
        done.expect("processed");
        assert_eq!(
            output.settlements.len() + output.rejections.len(),
            inbound.len(),
            "each record is settled once"
        );
        self.hear(output);
    }

    pub fn one(&mut self, event: impl Into<Event>) -> Outcome {
        self.send(vec![event.into()]);
        self.outcomes.last().copied().unwrap_or_default()
    }

    /// A record of a table that the processor follows; none is one that is gone.
    #[allow(dead_code)]
    pub fn table(&mut self, key: &str, event: Option<&Event>) {
        self.processor.table("", key, event);
    }

    fn inbound(&mut self, event: Event) -> Inbound {
        self.next_offset += 1;
        let topic = match &event {
            Event::RefundRequest(_) => topic::REFUND_REQUEST,
            Event::PaymentEvent(_) => topic::PAYMENT_EVENT,
            Event::BusinessException(_) => topic::OPS_EXCEPTION,
            _ => topic::ORDER_STATE,
        };
        let origin = Place {
            topic: topic.into(),
            partition: 3,
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

    fn hear(&mut self, output: Output) {
        self.said
            .extend(output.emissions.into_iter().map(|e| e.event));
        self.outcomes
            .extend(output.settlements.iter().map(|s| s.outcome));
        for (_, fault) in output.rejections {
            self.outcomes.push(Outcome::DeadLettered);
            self.refused.push(fault.code);
        }
        self.resolved.extend(output.resolutions);
        if let Some((_, due)) = output.timers.last() {
            self.timer = *due;
        }
        let restored = self
            .state
            .get(self.key.as_bytes())
            .and_then(|value| self.processor.restored_timer(self.key.as_bytes(), value));
        assert_eq!(
            restored.map(|(_, due)| due),
            self.timer,
            "a restart finds the timer that is set"
        );
    }

    /// Lets time pass, firing what comes due on the way.
    pub fn pass(&mut self, by: Duration) {
        let end = self.now.plus(by);
        while let Some(due) = self.timer.filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let mut output = Output::default();
            let mut context = Context::new(&mut self.state, &mut output, self.now);
            let done = self.processor.timer(&self.key, due, &mut context);
            done.expect("fired");
            self.hear(output);
        }
        self.now = end;
    }

    /// Codes and causes of the exceptions that are open now.
    pub fn open(&self) -> BTreeSet<(String, String)> {
        let mut open = BTreeMap::new();
        for event in &self.said {
            if let Event::BusinessException(e) = event {
                let key = (e.code.to_string(), e.cause_key.to_string());
                let before = open.insert(key, e.clone());
                let version = before.map_or(0, |b| b.exception_version);
                assert_eq!(e.exception_version, version + 1, "versions count");
            }
        }
        open.retain(|_, e| e.status != ExceptionStatus::Resolved);
        open.into_keys().collect()
    }

    pub fn codes(&self) -> Vec<String> {
        self.open().into_iter().map(|(code, _)| code).collect()
    }
}
