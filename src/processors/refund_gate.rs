//! `refund-gate`: the single writer of refunds.
//!
//! Requests, and what providers and storefronts have paid already, come in; each change of a refund
//! goes out as a `RefundEvent`, which is the decision recorded and, when it says SUBMITTED or
//! OUTCOME_UNKNOWN, the order to a sink to pay or to ask under the key `refundId|attempt`. The rules
//! are in [`crate::domain::finance::Gate`].

use super::checks::{check_key, check_times, damaged, no_use, quality};
use super::finance::{Emitter, cases, facts, forget, keep, settle};
use crate::contract::event::{
    Event, Money as WireMoney, Outcome, PaymentEvent, PaymentKind, RefundAllocation, RefundEvent,
    RefundRequest, RefundStatus as WireStatus, RefundType, Text,
};
use crate::contract::topic;
use crate::domain::finance::{
    AllocationKind, Answer, AnswerKind, Change, Gate, RefundStatus, Request, Taken,
};
use crate::domain::{Timestamp, refund_id, split_key};
use crate::pipeline::{
    Code, Context, Fault, Inbound, Origin, Processor, ProcessorDescriptor, Stage,
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What `refund-gate` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "refund-gate",
    purpose: "decides refunds, once each and within what was captured and returned",
    inputs: &[
        topic::REFUND_REQUEST,
        topic::PAYMENT_EVENT,
        topic::RETURN_EVENT,
        topic::ORDER_STATE,
    ],
    tables: &[],
    outputs: &[topic::REFUND_EVENT, topic::OPS_EXCEPTION],
};

const SOURCE: &str = "crossdock/refund-gate";

/// The processor.
#[derive(Default)]
pub struct RefundGate {
    bytes: Vec<u8>,
}

/// What one call has gathered.
#[derive(Default)]
struct Work {
    changes: Vec<Change>,
    /// Records that asked for a refund and were taken in: index, refund, place.
    asked: Vec<(usize, u128, (i32, i64))>,
}

impl RefundGate {
    /// Without any order; state brings them.
    pub fn new() -> Self {
        Self::default()
    }

    fn finish(
        &mut self,
        key: &str,
        mut gate: Gate,
        timer: Option<Timestamp>,
        (inbound, mut work): (&[Inbound], Work),
        context: &mut Context<'_>,
    ) {
        let mut decided = Vec::new();
        let cases = gate.settle(context.now(), &mut work.changes, &mut decided);
        for (index, refund, place) in work.asked {
            if gate.waits(refund) {
                let reason = "waits for the capture, the return or the cancellation";
                context.settle(index, Outcome::Buffered, Some(reason));
            } else {
                context.settle(index, Outcome::Applied, None);
            }
            decided.retain(|known| *known != place);
        }
        for (partition, offset) in decided {
            let topic = topic::REFUND_REQUEST.into();
            let origin = Origin {
                topic,
                partition,
                offset,
            };
            context.resolve(origin, "", Outcome::Applied);
        }
        let cause = inbound.last().map(|i| i.event.meta());
        let emitter = Emitter {
            processor: DESCRIPTOR.name,
            source: SOURCE,
            entity: key,
            cause,
            at: context.now(),
        };
        for change in &work.changes {
            context.emit(topic::REFUND_EVENT, key, told(key, change, &gate, &emitter));
        }
        let Some(changes) = cases else {
            return forget(key, context);
        };
        cases::emit(Some(key), changes, inbound, &emitter, context);
        gate.to_state(&mut self.bytes);
        keep(key, &self.bytes, (timer, gate.due()), context);
    }
}

impl Processor for RefundGate {
    fn descriptor(&self) -> &'static ProcessorDescriptor {
        &DESCRIPTOR
    }

    fn process(
        &mut self,
        key: &str,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut gate = load(key, context)?;
        let timer = gate.due();
        let (mut work, mut news) = (Work::default(), false);
        for (index, i) in inbound.iter().enumerate() {
            match take(key, i, &mut gate, &mut work.changes) {
                Ok(Heard::Fact(taken)) => {
                    news |= taken == Taken::Applied;
                    settle(index, taken, context);
                }
                Ok(Heard::Request(refund, Taken::Applied)) => {
                    news = true;
                    let origin = &i.record.origin;
                    let place = (origin.partition, origin.offset);
                    work.asked.push((index, refund, place));
                }
                Ok(Heard::Request(_, taken)) => settle(index, taken, context),
                Ok(Heard::Nothing) => {
                    let reason = "says nothing about refunds";
                    context.settle(index, Outcome::Applied, Some(reason));
                }
                Err(fault) => context.reject(index, fault),
            }
        }
        // A duplicate may still say what a refund was for.
        if news || !work.changes.is_empty() {
            gate.heard(context.now());
            self.finish(key, gate, timer, (inbound, work), context);
        }
        Ok(())
    }

    fn timer(
        &mut self,
        key: &str,
        _due: Timestamp,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let gate = load(key, context)?;
        // It has fired: whatever follows sets it again.
        context.set_timer(key, None);
        self.finish(key, gate, None, (&[], Work::default()), context);
        Ok(())
    }

    fn restored_timer(&self, key: &[u8], value: &[u8]) -> Option<(Text, Timestamp)> {
        let due = Gate::due_of(value).ok()??;
        Some((std::str::from_utf8(key).ok()?.into(), due))
    }
}

/// What a record turned out to be.
enum Heard {
    Fact(Taken),
    Request(u128, Taken),
    Nothing,
}

fn take(
    key: &str,
    inbound: &Inbound,
    gate: &mut Gate,
    changes: &mut Vec<Change>,
) -> Result<Heard, Fault> {
    check_times(inbound.event.meta())?;
    Ok(match &inbound.event {
        Event::RefundRequest(e) => {
            check_key(key, &e.order_id)?;
            let request = request(e, inbound, gate)?;
            let refund = request.refund;
            Heard::Request(refund, gate.request(request, changes))
        }
        Event::PaymentEvent(e) => {
            check_key(key, &e.order_id)?;
            match facts::payment(e)? {
                facts::Told::Fact(name, fact) => {
                    let id = e.meta.event_id.as_u128();
                    Heard::Fact(gate.payment(&name, e.payment_version, id, fact))
                }
                facts::Told::Refund => {
                    let answer = answer(e)?;
                    let kind = answer.kind;
                    let taken = gate.answer(answer, changes).map_err(|illegal| {
                        let message = format!(
                            "{kind:?} of refund {} at {}: {illegal}; ask the provider what became of it",
                            e.psp_reference, e.psp
                        );
                        Fault::reject(Stage::Process, Code::IllegalTransition, message)
                    })?;
                    Heard::Fact(taken)
                }
                facts::Told::Nothing => Heard::Nothing,
            }
        }
        Event::ReturnEvent(e) => {
            check_key(key, &e.order_id)?;
            let (fact, id) = (facts::returned(e)?, e.meta.event_id.as_u128());
            Heard::Fact(gate.returned(&e.return_id, e.return_version, id, fact))
        }
        Event::OrderState(e) => {
            check_key(key, &e.order_id)?;
            let cancelled = e.lines.iter().filter(|l| l.cancelled.is_positive());
            let cancelled: BTreeMap<Text, _> = cancelled
                .map(|l| (l.line_id.clone(), l.cancelled))
                .collect();
            Heard::Fact(gate.cancelled(e.state_version, cancelled))
        }
        other => return Err(no_use(DESCRIPTOR.name, other)),
    })
}

fn request(e: &RefundRequest, inbound: &Inbound, gate: &Gate) -> Result<Request, Fault> {
    let (money, allocations) = facts::asked_for(&e.amount, &e.allocations, e.already_issued)?;
    let refund = e.refund_id.as_u128();
    if let Some(known) = gate.refunds().get(&refund).filter(|r| r.money != money) {
        return Err(quality(format!(
            "refund {} was asked for with {}, now with {money}; a further refund of one cause needs an id of its own",
            e.refund_id, known.money
        )));
    }
    if e.psp_reference.is_some() && e.psp.is_none() {
        return Err(quality(
            "pspReference needs psp: each provider counts its own",
        ));
    }
    let origin = &inbound.record.origin;
    Ok(Request {
        refund,
        return_id: e.return_id.clone(),
        payment: e.payment_id.clone(),
        money,
        allocations,
        reason: e.reason.clone(),
        reference: e
            .psp_reference
            .as_ref()
            .map(|r| facts::reference(e.psp.as_deref().unwrap_or_default(), r)),
        issued: e.already_issued,
        at: e.meta.occurred_at,
        place: (origin.partition, origin.offset),
    })
}

fn answer(e: &PaymentEvent) -> Result<Answer, Fault> {
    let kind = match e.kind {
        PaymentKind::Refunded => AnswerKind::Completed,
        PaymentKind::RefundFailed => AnswerKind::Failed,
        PaymentKind::RefundReversed => AnswerKind::Reversed,
        _ => AnswerKind::Unknown,
    };
    let key = match &e.refund_key {
        None => None,
        Some(key) => Some(split_refund_key(key).ok_or_else(|| {
            quality(format!(
                "refundKey {key} is not of the form refundId|attempt"
            ))
        })?),
    };
    let reference = facts::reference(&e.psp, &e.psp_reference);
    Ok(Answer {
        kind,
        key,
        fresh: refund_id(&e.order_id, "psp", &reference, 0).as_u128(),
        reference,
        payment: e.payment_id.clone(),
        money: facts::money("amount", e.amount.amount, &e.amount.currency)?,
        version: e.payment_version,
        at: e.meta.occurred_at,
    })
}

fn split_refund_key(key: &str) -> Option<(u128, u32)> {
    let (id, attempt) = key.split_once('|')?;
    Some((Uuid::parse_str(id).ok()?.as_u128(), attempt.parse().ok()?))
}

fn load(key: &str, context: &mut Context<'_>) -> Result<Gate, Fault> {
    match context.state().get(key.as_bytes()) {
        Some(bytes) => Gate::from_state(bytes).map_err(|e| damaged(key, e)),
        None => Ok(Gate::default()),
    }
}

fn told(key: &str, change: &Change, gate: &Gate, emitter: &Emitter<'_>) -> RefundEvent {
    let refund = &change.refund;
    let id = Uuid::from_u128(change.id);
    let record_id = format!("{id}#{}", refund.version);
    let mut meta = emitter.meta("RefundEvent", &record_id, refund.version);
    meta.occurred_at = refund.since;
    let reference = refund.reference.as_deref().map(split_key);
    let mut parts = reference.into_iter().flatten();
    let (paid_by, psp_reference) = (parts.next(), parts.next());
    let payment = refund.payment.as_deref().unwrap_or_default();
    let captures: Vec<Vec<String>> = gate.captures(payment).map(|k| split_key(k)).collect();
    let psp = paid_by.or_else(|| captures.first()?.first().cloned());
    RefundEvent {
        meta,
        order_id: key.into(),
        refund_id: id,
        refund_version: refund.version,
        status: status_of(refund.status),
        attempt: refund.attempt as i32,
        issued_elsewhere: refund.issued,
        return_id: refund.return_id.clone(),
        payment_id: refund.payment.clone(),
        amount: WireMoney {
            amount: refund.money.amount(),
            currency: refund.money.currency().code().into(),
        },
        allocations: refund
            .allocations
            .iter()
            .map(|a| RefundAllocation {
                order_line_id: a.line.clone(),
                qty: a.quantity,
                net: a.net,
                tax: a.tax,
                r#type: type_of(a.kind),
            })
            .collect(),
        psp: psp.map(Text::from),
        capture_references: captures
            .iter()
            .filter_map(|parts| parts.get(1).map(Text::from))
            .collect(),
        psp_reference: psp_reference.map(Text::from),
        reason: refund.reason.clone(),
    }
}

fn status_of(status: RefundStatus) -> WireStatus {
    match status {
        RefundStatus::Requested => WireStatus::Requested,
        RefundStatus::Approved => WireStatus::Approved,
        RefundStatus::Submitted => WireStatus::Submitted,
        RefundStatus::OutcomeUnknown => WireStatus::OutcomeUnknown,
        RefundStatus::Completed => WireStatus::Completed,
        RefundStatus::Failed => WireStatus::Failed,
        RefundStatus::Rejected => WireStatus::Rejected,
        RefundStatus::Reversed => WireStatus::Reversed,
    }
}

fn type_of(kind: AllocationKind) -> RefundType {
    match kind {
        AllocationKind::Item => RefundType::Item,
        AllocationKind::Shipping => RefundType::Shipping,
        AllocationKind::Cancellation => RefundType::Cancellation,
        AllocationKind::Appeasement => RefundType::Appeasement,
        AllocationKind::Fee => RefundType::Fee,
        AllocationKind::TaxAdjustment => RefundType::TaxAdjustment,
    }
}
