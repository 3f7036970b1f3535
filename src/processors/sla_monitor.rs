//! `sla-monitor`: whether what is to happen to an order happens in time.
//!
//! Clocks start and stop with facts and alarm by themselves; each change of a clock goes out, and a
//! promise to a customer that may not be held is a case. The rules are in [`crate::domain::sla`].

use super::cases::{self, About};
use super::checks::{check_key, check_times, no_use, unknown};
use super::keyed::{Call, Fate, Heard, Keyed, Rules};
use crate::contract::event::{
    ChannelType, Event, Money, OrderEvent, OrderEventType, OrderState, OrderStatus, RefundEvent,
    RefundStatus, ReturnEvent, ReturnStatus, SlaEvent, SlaState as WireState,
};
use crate::contract::topic;
use crate::domain::cases::{Finding, Severity};
use crate::domain::sla::{CALENDAR, Clocks, Sla, SlaState, Told, business_days_after};
use crate::domain::{Decimal, Taken, Timestamp};
use crate::pipeline::{Fault, ProcessorDescriptor};
use std::time::Duration;

/// What `sla-monitor` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "sla-monitor",
    purpose: "watches that orders are acknowledged, sent and refunded in time",
    inputs: &[
        topic::ORDER_LIFECYCLE,
        topic::ORDER_STATE,
        topic::RETURN_EVENT,
        topic::REFUND_EVENT,
    ],
    tables: &[],
    outputs: &[topic::OPS_SLA, topic::OPS_EXCEPTION],
};

/// How soon an ERP answers an order.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5 * 60);
/// The same for a marketplace, which gives more time.
const MARKETPLACE_WITHIN: Duration = Duration::from_secs(15 * 60);
/// How soon the refund of an inspected return is submitted.
const SUBMITTED_WITHIN: Duration = Duration::from_secs(3_600);
/// Business days within which a provider pays a refund.
const PAID_WITHIN_DAYS: u32 = 5;

const NOTHING: Heard = Heard::Nothing("no clock starts or stops by it");

/// The processor.
pub type SlaMonitor = Keyed<Watching>;

/// Its rules.
#[derive(Default)]
pub struct Watching;

/// The order as its state has it, when it came in this call.
#[derive(Default)]
pub struct Seen(Option<(Money, crate::contract::event::Text)>);

impl Rules for Watching {
    const DESCRIPTOR: &'static ProcessorDescriptor = &DESCRIPTOR;
    const SOURCE: &'static str = "crossdock/sla-monitor";
    type Known = Clocks;
    type Gathered = Seen;

    fn take(
        &self,
        index: usize,
        clocks: &mut Clocks,
        seen: &mut Seen,
        call: &mut Call<'_, '_>,
    ) -> Result<Heard, Fault> {
        let (event, now) = (&call.inbound[index].event, call.now());
        check_times(event.meta())?;
        match event {
            Event::OrderEvent(e) => {
                check_key(call.key, &e.order_id)?;
                order(e, clocks, now)
            }
            Event::OrderState(e) => {
                check_key(call.key, &e.order_id)?;
                let value = Money {
                    amount: e.grand_total,
                    currency: e.currency.clone(),
                };
                seen.0 = Some((value, e.channel_id.clone()));
                Ok(Heard::Taken(state(e, clocks, now)?))
            }
            Event::ReturnEvent(e) => {
                check_key(call.key, &e.order_id)?;
                returned(e, clocks, now)
            }
            Event::RefundEvent(e) => {
                check_key(call.key, &e.order_id)?;
                refund(e, clocks, now)
            }
            other => Err(no_use(DESCRIPTOR.name, other)),
        }
    }

    fn finish(
        &self,
        clocks: &mut Clocks,
        seen: Seen,
        call: &mut Call<'_, '_>,
    ) -> Result<Fate, Fault> {
        let Some(told) = clocks.settle(call.now()) else {
            return Ok(Fate::Forgotten);
        };
        let (value, channel) = seen.0.unzip();
        for told in told {
            let mut event = event(&told, call);
            event.order_value = value.clone();
            event.channel_id = channel.clone();
            call.context.emit(topic::OPS_SLA, call.key, event);
        }
        let findings = clocks.promise_state().and_then(at_risk);
        let now = call.now();
        let changes = clocks.cases().follow(findings.into_iter().collect(), now);
        let about = About {
            value,
            channel,
            promise: clocks.promise_state().map(|(_, due)| due),
            ..About::order(call.key)
        };
        cases::emit(&about, changes, &call.emitter(), call.context);
        Ok(Fate::Kept)
    }
}

fn order(e: &OrderEvent, clocks: &mut Clocks, now: Timestamp) -> Result<Heard, Fault> {
    let (clock, at) = ((Sla::Acknowledgement, ""), e.meta.occurred_at);
    Ok(Heard::Taken(match e.r#type {
        OrderEventType::Unknown => return Err(unknown("type")),
        OrderEventType::Placed => {
            let kind = e.order.as_ref().map(|o| o.channel_type);
            let within = match kind {
                // A till hands out what it sells: nobody waits for an answer.
                Some(ChannelType::Pos) => return Ok(NOTHING),
                Some(ChannelType::Marketplace) => MARKETPLACE_WITHIN,
                _ => ACKNOWLEDGED_WITHIN,
            };
            clocks.start(clock, at, at.plus(within), now)
        }
        OrderEventType::Accepted | OrderEventType::Rejected => clocks.stop(clock, at),
        _ => return Ok(NOTHING),
    }))
}

fn state(e: &OrderState, clocks: &mut Clocks, now: Timestamp) -> Result<Taken, Fault> {
    let at = e.meta.occurred_at;
    let promised = clocks.promise(e.state_version, e.placed_at, e.earliest_promise, now);
    let ended = match e.status {
        OrderStatus::Unknown => return Err(unknown("status")),
        OrderStatus::Cancelled | OrderStatus::Rejected => {
            clocks.cancel((Sla::Acknowledgement, ""), at);
            clocks.cancel((Sla::Promise, ""), at)
        }
        // What is promised for pick-up has to be ready; everything else has to leave.
        OrderStatus::Shipped
        | OrderStatus::Completed
        | OrderStatus::ReadyForPickup
        | OrderStatus::PartiallyReturned
        | OrderStatus::Returned => clocks.stop((Sla::Promise, ""), at),
        _ => Taken::Duplicate,
    };
    Ok(match (promised, ended) {
        (_, Taken::Applied) => Taken::Applied,
        (promised, _) => promised,
    })
}

fn returned(e: &ReturnEvent, clocks: &mut Clocks, now: Timestamp) -> Result<Heard, Fault> {
    let (clock, at) = ((Sla::RefundSubmission, &*e.return_id), e.meta.occurred_at);
    let accepted: Decimal = e.lines.iter().map(|line| line.accepted).sum();
    Ok(match e.status {
        ReturnStatus::Unknown => return Err(unknown("status")),
        ReturnStatus::Inspected | ReturnStatus::Closed if accepted.is_positive() => {
            Heard::Taken(clocks.start(clock, at, at.plus(SUBMITTED_WITHIN), now))
        }
        _ => NOTHING,
    })
}

fn refund(e: &RefundEvent, clocks: &mut Clocks, now: Timestamp) -> Result<Heard, Fault> {
    let (id, at) = (e.refund_id.to_string(), e.meta.occurred_at);
    let mut taken = Vec::new();
    let (submitted, paid) = match e.status {
        RefundStatus::Unknown => return Err(unknown("status")),
        RefundStatus::Submitted | RefundStatus::OutcomeUnknown | RefundStatus::Failed => {
            (true, false)
        }
        RefundStatus::Completed | RefundStatus::Reversed => (true, true),
        RefundStatus::Requested | RefundStatus::Approved => (false, false),
        RefundStatus::Rejected => {
            if let Some(of) = &e.return_id {
                taken.push(clocks.cancel((Sla::RefundSubmission, of), at));
            }
            (false, false)
        }
    };
    if submitted {
        if let Some(of) = &e.return_id {
            taken.push(clocks.stop((Sla::RefundSubmission, of), at));
        }
        let due = business_days_after(at, PAID_WITHIN_DAYS);
        taken.push(clocks.start((Sla::RefundCompletion, &id), at, due, now));
    }
    if paid {
        taken.push(clocks.stop((Sla::RefundCompletion, &id), at));
    }
    let is = |what: Taken| taken.contains(&what);
    Ok(
        match (is(Taken::TooMany), is(Taken::Applied), taken.is_empty()) {
            (true, ..) => Heard::Taken(Taken::TooMany),
            (_, true, _) => Heard::Taken(Taken::Applied),
            (.., true) => NOTHING,
            _ => Heard::Taken(Taken::Duplicate),
        },
    )
}

fn at_risk((state, due): (SlaState, Timestamp)) -> Option<Finding> {
    let (severity, actual) = match state {
        SlaState::AtRisk => (Severity::Medium, "most of the time is over"),
        SlaState::Breached => (Severity::High, "the time is over"),
        _ => return None,
    };
    Some(Finding {
        code: "PROMISE_AT_RISK",
        cause: "".into(),
        severity,
        patience: Duration::ZERO,
        expected: format!("sent, or ready for pick-up, by {due}"),
        actual: format!("not yet, and {actual}"),
        delta: None,
        at_risk: None,
        actions: &["upgrade carrier", "re-source", "tell the customer"],
    })
}

fn event(told: &Told, call: &Call<'_, '_>) -> SlaEvent {
    let name = told.sla.name();
    let record_id = format!("{}|{name}|{}#{}", call.key, told.of, told.version);
    SlaEvent {
        meta: call.emitter().meta("SlaEvent", &record_id, told.version),
        sla: name.into(),
        entity_key: call.key.into(),
        state: match told.state {
            SlaState::Started => WireState::Started,
            SlaState::AtRisk => WireState::AtRisk,
            SlaState::Breached => WireState::Breached,
            SlaState::Met => WireState::Met,
            SlaState::Recovered => WireState::Recovered,
            SlaState::Cancelled => WireState::Cancelled,
        },
        started_at: told.started,
        due_at: told.due,
        stopped_at: told.stopped,
        stage: Some(told.of.clone()).filter(|of| !of.is_empty()),
        share_elapsed: Some(told.share),
        calendar_version: Some(CALENDAR),
        ..SlaEvent::default()
    }
}
