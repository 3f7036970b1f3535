//! `settlement-match`: each line of a settlement beside the movement that it settles.
//!
//! Lines and movements meet under `psp|pspReference`, the only thing that both carry. A line goes on to
//! its payout at once, so that sums do not wait for a match, and again when its order is known. The
//! rules are in [`crate::domain::finance::Matching`].

use super::cases::{self, About};
use super::checks::{check_key, check_times, no_use, quality};
use super::emitter::Emitter;
use super::finance::facts;
use super::keyed::{Call, Fate, Heard, Keyed, Rules};
use crate::contract::event::{Event, Money as WireMoney, SettlementEvent, SettlementKind, Text};
use crate::contract::topic;
use crate::domain::finance::{Forward, LineKind, Matching};
use crate::domain::{Date, Timestamp, compound_key, split_key};
use crate::pipeline::{Fault, ProcessorDescriptor};

/// What `settlement-match` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "settlement-match",
    purpose: "compares settlement lines with the payments and refunds they settle",
    inputs: &[topic::SETTLEMENT_EVENT, topic::LEDGER_PAYMENT],
    tables: &[],
    outputs: &[topic::SETTLEMENT_PAYOUT, topic::OPS_EXCEPTION],
};

/// The processor.
pub type SettlementMatch = Keyed<ByReference>;

/// Its rules.
#[derive(Default)]
pub struct ByReference;

impl Rules for ByReference {
    const DESCRIPTOR: &'static ProcessorDescriptor = &DESCRIPTOR;
    const SOURCE: &'static str = "crossdock/settlement-match";
    type Known = Matching;
    type Gathered = ();

    fn take(
        &self,
        index: usize,
        matching: &mut Matching,
        _: &mut (),
        call: &mut Call<'_, '_>,
    ) -> Result<Heard, Fault> {
        take(call.key, &call.inbound[index].event, matching, call.now())
    }

    fn finish(
        &self,
        matching: &mut Matching,
        (): (),
        call: &mut Call<'_, '_>,
    ) -> Result<Fate, Fault> {
        let (forwards, cases) = matching.settle(call.now());
        let emitter = call.emitter();
        for forward in forwards {
            let payout = forward.line.payout.clone();
            let event = told(call.key, forward, &emitter);
            call.context.emit(topic::SETTLEMENT_PAYOUT, payout, event);
        }
        let Some(changes) = cases else {
            return Ok(Fate::Forgotten);
        };
        let about = About {
            order: matching.order().cloned(),
            ..About::default()
        };
        cases::emit(&about, changes, &emitter, call.context);
        Ok(Fate::Kept)
    }
}

fn take(key: &str, event: &Event, matching: &mut Matching, now: Timestamp) -> Result<Heard, Fault> {
    let meta = event.meta();
    check_times(meta)?;
    let id = meta.event_id.as_u128();
    Ok(Heard::Taken(match event {
        Event::PaymentEvent(e) => {
            check_key(key, &facts::reference(&e.psp, &e.psp_reference))?;
            match facts::movement(e)? {
                Some(moved) => matching.moved(e.payment_version, id, moved, now),
                None => return Ok(Heard::Nothing("no settlement has a line for it")),
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
