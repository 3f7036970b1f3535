//! `settlement-match`: each line of a settlement beside the movement that it settles.
//!
//! Lines and movements meet under `psp|pspReference`, the only thing that both carry. A line goes on to
//! its payout at once, so that sums do not wait for a match, and again when its order is known. The
//! rules are in [`crate::domain::finance::Matching`].

use super::checks::{check_key, check_times, damaged, no_use, quality};
use super::finance::{Emitter, cases, facts, forget, keep, settle};
use crate::contract::event::{
    Event, Money as WireMoney, Outcome, SettlementEvent, SettlementKind, Text,
};
use crate::contract::topic;
use crate::domain::finance::{Forward, LineKind, Matching, Taken};
use crate::domain::{Date, Timestamp, compound_key, split_key};
use crate::pipeline::{Context, Fault, Inbound, Processor, ProcessorDescriptor};

/// What `settlement-match` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "settlement-match",
    purpose: "compares settlement lines with the payments and refunds they settle",
    inputs: &[topic::SETTLEMENT_EVENT, topic::LEDGER_PAYMENT],
    tables: &[],
    outputs: &[topic::SETTLEMENT_PAYOUT, topic::OPS_EXCEPTION],
};

const SOURCE: &str = "crossdock/settlement-match";

/// The processor.
#[derive(Default)]
pub struct SettlementMatch {
    bytes: Vec<u8>,
}

impl SettlementMatch {
    /// Without any reference; state brings them.
    pub fn new() -> Self {
        Self::default()
    }

    fn finish(
        &mut self,
        key: &str,
        mut matching: Matching,
        timer: Option<Timestamp>,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) {
        let (forwards, cases) = matching.settle(context.now());
        let emitter = Emitter {
            processor: DESCRIPTOR.name,
            source: SOURCE,
            entity: key,
            cause: inbound.last().map(|i| i.event.meta()),
            at: context.now(),
        };
        for forward in forwards {
            let payout = forward.line.payout.clone();
            context.emit(
                topic::SETTLEMENT_PAYOUT,
                payout,
                told(key, forward, &emitter),
            );
        }
        let Some(changes) = cases else {
            return forget(key, context);
        };
        let order = matching.order().cloned();
        cases::emit(order.as_deref(), changes, inbound, &emitter, context);
        matching.to_state(&mut self.bytes);
        keep(key, &self.bytes, (timer, matching.due()), context);
    }
}

impl Processor for SettlementMatch {
    fn descriptor(&self) -> &'static ProcessorDescriptor {
        &DESCRIPTOR
    }

    fn process(
        &mut self,
        key: &str,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut matching = load(key, context)?;
        let (timer, now) = (matching.due(), context.now());
        let mut news = false;
        for (index, i) in inbound.iter().enumerate() {
            match take(key, &i.event, &mut matching, now) {
                Ok(Some(taken)) => {
                    news |= taken == Taken::Applied;
                    settle(index, taken, context);
                }
                Ok(None) => {
                    let reason = "no settlement has a line for it";
                    context.settle(index, Outcome::Applied, Some(reason));
                }
                Err(fault) => context.reject(index, fault),
            }
        }
        if news {
            matching.heard(now);
            self.finish(key, matching, timer, inbound, context);
        }
        Ok(())
    }

    fn timer(
        &mut self,
        key: &str,
        _due: Timestamp,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let matching = load(key, context)?;
        // It has fired: whatever follows sets it again.
        context.set_timer(key, None);
        self.finish(key, matching, None, &[], context);
        Ok(())
    }

    fn restored_timer(&self, key: &[u8], value: &[u8]) -> Option<(Text, Timestamp)> {
        let due = Matching::due_of(value).ok()??;
        Some((std::str::from_utf8(key).ok()?.into(), due))
    }
}

/// Takes one event in; `None` when no settlement will have a line for it.
fn take(
    key: &str,
    event: &Event,
    matching: &mut Matching,
    now: Timestamp,
) -> Result<Option<Taken>, Fault> {
    let meta = event.meta();
    check_times(meta)?;
    let id = meta.event_id.as_u128();
    Ok(Some(match event {
        Event::PaymentEvent(e) => {
            check_key(key, &facts::reference(&e.psp, &e.psp_reference))?;
            match facts::movement(e)? {
                Some(moved) => matching.moved(e.payment_version, id, moved, now),
                None => return Ok(None),
            }
        }
        Event::SettlementEvent(e) => {
            let reference = e.psp_reference.as_deref().unwrap_or_default();
            check_key(key, &facts::reference(&e.psp, reference))?;
            match facts::settled(e)? {
                facts::Settled::Line(line) => matching.line(meta.source_position, id, line, now),
                _ => {
                    return Err(quality(format!(
                        "{} belongs on {} under the payoutId",
                        e.kind,
                        topic::SETTLEMENT_PAYOUT
                    )));
                }
            }
        }
        other => return Err(no_use(DESCRIPTOR.name, other)),
    }))
}

fn load(key: &str, context: &mut Context<'_>) -> Result<Matching, Fault> {
    match context.state().get(key.as_bytes()) {
        Some(bytes) => Matching::from_state(bytes).map_err(|e| damaged(key, e)),
        None => Ok(Matching::default()),
    }
}

fn told(key: &str, forward: Forward, emitter: &Emitter<'_>) -> SettlementEvent {
    let line = forward.line;
    let mut parts = split_key(key).into_iter();
    let (psp, reference) = (parts.next().unwrap_or_default(), parts.next());
    let name = compound_key(&[&psp, &line.payout, &line.line]);
    let record_id = format!("{name}#{}", forward.version);
    SettlementEvent {
        meta: emitter.meta("SettlementEvent", &record_id, forward.version),
        psp: psp.into(),
        payout_id: line.payout,
        line_id: line.line,
        kind: kind_of(line.kind),
        order_id: line.order,
        psp_reference: reference.map(Text::from),
        gross: line.gross.amount(),
        original: line.original.map(|m| WireMoney {
            amount: m.amount(),
            currency: m.currency().code().into(),
        }),
        fee: line.fee.amount(),
        net: line.net.amount(),
        currency: line.net.currency().code().into(),
        value_date: Date(line.value_day),
        ..SettlementEvent::default()
    }
}

fn kind_of(kind: LineKind) -> SettlementKind {
    match kind {
        LineKind::Capture => SettlementKind::Capture,
        LineKind::Refund => SettlementKind::Refund,
        LineKind::RefundReversed => SettlementKind::RefundReversed,
        LineKind::Chargeback => SettlementKind::Chargeback,
        LineKind::ChargebackReversed => SettlementKind::ChargebackReversed,
        LineKind::Fee => SettlementKind::Fee,
        LineKind::Adjustment => SettlementKind::Adjustment,
        LineKind::Reserve => SettlementKind::Reserve,
    }
}
