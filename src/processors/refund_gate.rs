//! `refund-gate`: the single writer of refunds.
//!
//! Requests, and what providers and storefronts have paid already, come in; each change of a refund
//! goes out as a `RefundEvent`, which is the decision recorded and, when it says SUBMITTED or
//! OUTCOME_UNKNOWN, the order to a sink to pay or to ask under the key `refundId|attempt`. The rules
//! are in [`crate::domain::finance::Gate`].

use super::cases::{self, About};
use super::checks::{check_key, check_times, no_use, quality};
use super::emitter::Emitter;
use super::finance::facts;
use super::keyed::{Call, Fate, Heard, Keyed, Rules};
use crate::contract::event::{
    Event, Money as WireMoney, Outcome, PaymentEvent, PaymentKind, RefundAllocation, RefundEvent,
    RefundRequest, RefundStatus as WireStatus, RefundType, Text,
};
use crate::contract::topic;
use crate::domain::finance::{
    AllocationKind, Answer, AnswerKind, Change, Gate, RefundStatus, Request, Ruling, Rulings,
};
use crate::domain::{Taken, refund_id, split_key};
use crate::pipeline::{Code, Fault, Inbound, Origin, ProcessorDescriptor, Stage};
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

/// The processor.
pub type RefundGate = Keyed<Gating>;

/// Its rules.
#[derive(Default)]
pub struct Gating {
    /// Decisions that are followed instead of being made anew, by order; none but in a rebuild.
    recorded: BTreeMap<Text, Rulings>,
}

/// What one call has gathered.
#[derive(Default)]
pub struct Work {
    changes: Vec<Change>,
    /// Records that asked for a refund and were taken in: index, refund, place.
    asked: Vec<(usize, u128, (i32, i64))>,
}

impl Rules for Gating {
    const DESCRIPTOR: &'static ProcessorDescriptor = &DESCRIPTOR;
    const SOURCE: &'static str = "crossdock/refund-gate";
    type Known = Gate;
    type Gathered = Work;
    const RECORD: Option<&'static str> = Some(topic::REFUND_EVENT);

    fn recall(&mut self, key: &str, event: &Event) {
        let Event::RefundEvent(e) = event else {
            return;
        };
        if let Ok(status) = facts::refund_status(e.status) {
            let ruling = Ruling {
                status,
                payment: e.payment_id.clone(),
                reason: e.reason.clone(),
            };
            let recorded = self.recorded.entry(key.into()).or_default();
            recorded.add(e.refund_id.as_u128(), e.refund_version, ruling);
        }
    }

    fn take(
        &self,
        index: usize,
        gate: &mut Gate,
        work: &mut Work,
        call: &mut Call<'_, '_>,
    ) -> Result<Heard, Fault> {
        let heard = take(index, &call.inbound[index], call.key, gate, work);
        // A duplicate may still say what a refund was for.
        call.news |= !work.changes.is_empty();
        heard
    }

    fn finish(
        &self,
        gate: &mut Gate,
        mut work: Work,
        call: &mut Call<'_, '_>,
    ) -> Result<Fate, Fault> {
        let mut decided = Vec::new();
        let recorded = self.recorded.get(call.key);
        let cases = gate.settle(call.now(), recorded, &mut work.changes, &mut decided);
        for (index, refund, place) in work.asked {
            if gate.waits(refund) {
                let reason = "waits for the capture, the return or the cancellation";
                call.context.settle(index, Outcome::Buffered, Some(reason));
            } else {
                call.context.settle(index, Outcome::Applied, None);
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
            call.context.resolve(origin, "", Outcome::Applied);
        }
        let emitter = call.emitter();
        for change in &work.changes {
            let event = told(call.key, change, gate, &emitter);
            call.context.emit(topic::REFUND_EVENT, call.key, event);
        }
        let Some(changes) = cases else {
            return Ok(Fate::Forgotten);
        };
        cases::emit(&About::order(call.key), changes, &emitter, call.context);
        Ok(Fate::Kept)
    }
}

fn take(
    index: usize,
    inbound: &Inbound,
    key: &str,
    gate: &mut Gate,
    work: &mut Work,
) -> Result<Heard, Fault> {
    check_times(inbound.event.meta())?;
    Ok(Heard::Taken(match &inbound.event {
        Event::RefundRequest(e) => {
            check_key(key, &e.order_id)?;
            let request = request(e, inbound, gate)?;
            let (refund, place) = (request.refund, request.place);
            match gate.request(request, &mut work.changes) {
                Taken::Applied => {
                    work.asked.push((index, refund, place));
                    return Ok(Heard::Later);
                }
                taken => taken,
            }
        }
        Event::PaymentEvent(e) => {
            check_key(key, &e.order_id)?;
            match facts::payment(e)? {
                facts::Told::Fact(name, fact) => {
                    let id = e.meta.event_id.as_u128();
                    gate.payment(&name, e.payment_version, id, fact)
                }
                facts::Told::Refund => {
                    let answer = answer(e)?;
                    let kind = answer.kind;
                    let taken = gate.answer(answer, &mut work.changes);
                    taken.map_err(|illegal| {
                        let message = format!(
                            "{kind:?} of refund {} at {}: {illegal}; ask the provider what became of it",
                            e.psp_reference, e.psp
                        );
                        Fault::reject(Stage::Process, Code::IllegalTransition, message)
                    })?
                }
                facts::Told::Nothing => return Ok(Heard::Nothing("says nothing about refunds")),
            }
        }
        Event::ReturnEvent(e) => {
            check_key(key, &e.order_id)?;
            let (fact, id) = (facts::returned(e)?, e.meta.event_id.as_u128());
            gate.returned(&e.return_id, e.return_version, id, fact)
        }
        Event::OrderState(e) => {
            check_key(key, &e.order_id)?;
            let cancelled = e.lines.iter().filter(|l| l.cancelled.is_positive());
            let cancelled: BTreeMap<Text, _> = cancelled
                .map(|l| (l.line_id.clone(), l.cancelled))
                .collect();
            gate.cancelled(e.state_version, cancelled)
        }
        other => return Err(no_use(DESCRIPTOR.name, other)),
    }))
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
