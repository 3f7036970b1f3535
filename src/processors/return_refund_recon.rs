//! `return-refund-recon`: whether each return was refunded, put back on the shelf and credited.
//!
//! It decides nothing and moves nothing: it opens and closes exceptions. The rules are in
//! [`crate::domain::finance::Reconciliation`].

use super::checks::{check_key, check_times, damaged, no_use, unknown};
use super::finance::{Emitter, cases, facts, forget, keep, settle};
use crate::contract::event::{Event, OrderEventType, Outcome, Text};
use crate::contract::topic;
use crate::domain::Timestamp;
use crate::domain::finance::{InvoiceKind, Reconciliation, Taken};
use crate::pipeline::{Context, Fault, Inbound, Processor, ProcessorDescriptor};

/// What `return-refund-recon` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "return-refund-recon",
    purpose: "compares returns with refunds, restocked goods and credit notes",
    inputs: &[
        topic::RETURN_EVENT,
        topic::REFUND_EVENT,
        topic::STOCK_BY_ORDER,
        topic::INVOICE_EVENT,
        topic::ORDER_LIFECYCLE,
    ],
    tables: &[],
    outputs: &[topic::OPS_EXCEPTION],
};

const SOURCE: &str = "crossdock/return-refund-recon";

/// The processor.
#[derive(Default)]
pub struct ReturnRefundRecon {
    bytes: Vec<u8>,
}

impl ReturnRefundRecon {
    /// Without any order; state brings them.
    pub fn new() -> Self {
        Self::default()
    }

    fn finish(
        &mut self,
        key: &str,
        mut recon: Reconciliation,
        timer: Option<Timestamp>,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) {
        let Some(changes) = recon.settle(context.now()) else {
            return forget(key, context);
        };
        let emitter = Emitter {
            processor: DESCRIPTOR.name,
            source: SOURCE,
            entity: key,
            cause: inbound.last().map(|i| i.event.meta()),
            at: context.now(),
        };
        cases::emit(Some(key), changes, inbound, &emitter, context);
        recon.to_state(&mut self.bytes);
        keep(key, &self.bytes, (timer, recon.due()), context);
    }
}

impl Processor for ReturnRefundRecon {
    fn descriptor(&self) -> &'static ProcessorDescriptor {
        &DESCRIPTOR
    }

    fn process(
        &mut self,
        key: &str,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut recon = load(key, context)?;
        let (timer, now) = (recon.due(), context.now());
        let mut news = false;
        for (index, i) in inbound.iter().enumerate() {
            match take(key, &i.event, &mut recon, now) {
                Ok(Some(taken)) => {
                    news |= taken == Taken::Applied;
                    settle(index, taken, context);
                }
                Ok(None) => {
                    let reason = "says nothing about returns";
                    context.settle(index, Outcome::Applied, Some(reason));
                }
                Err(fault) => context.reject(index, fault),
            }
        }
        if news {
            recon.heard(now);
            self.finish(key, recon, timer, inbound, context);
        }
        Ok(())
    }

    fn timer(
        &mut self,
        key: &str,
        _due: Timestamp,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let recon = load(key, context)?;
        // It has fired: whatever follows sets it again.
        context.set_timer(key, None);
        self.finish(key, recon, None, &[], context);
        Ok(())
    }

    fn restored_timer(&self, key: &[u8], value: &[u8]) -> Option<(Text, Timestamp)> {
        let due = Reconciliation::due_of(value).ok()??;
        Some((std::str::from_utf8(key).ok()?.into(), due))
    }
}

/// Takes one event in; `None` when it says nothing about returns.
fn take(
    key: &str,
    event: &Event,
    recon: &mut Reconciliation,
    now: Timestamp,
) -> Result<Option<Taken>, Fault> {
    let meta = event.meta();
    check_times(meta)?;
    let (id, times) = (meta.event_id.as_u128(), (meta.occurred_at, now));
    Ok(Some(match event {
        Event::ReturnEvent(e) => {
            check_key(key, &e.order_id)?;
            let fact = facts::returned(e)?;
            recon.returned(&e.return_id, e.return_version, id, fact, times)
        }
        Event::RefundEvent(e) => {
            check_key(key, &e.order_id)?;
            let fact = facts::refund(e)?;
            let name = e.refund_id.to_string();
            recon.refunded(&name, e.refund_version, id, fact, times)
        }
        Event::StockChanged(e) => {
            check_key(key, e.order_id.as_deref().unwrap_or_default())?;
            match facts::restock(e) {
                Some(restock) => recon.restocked(&meta.event_id.to_string(), id, restock),
                None => return Ok(None),
            }
        }
        Event::InvoiceEvent(e) => {
            check_key(key, &e.order_id)?;
            let note = facts::invoice(e)?;
            if note.kind != InvoiceKind::CreditNote {
                return Ok(None);
            }
            recon.credited(&e.invoice_id, e.invoice_version, id, note)
        }
        Event::OrderEvent(e) => {
            check_key(key, &e.order_id)?;
            if e.r#type == OrderEventType::Unknown {
                return Err(unknown("type"));
            }
            match &e.order {
                Some(order) => recon.agreed(e.entity_version, id, facts::terms(order)?),
                None => return Ok(None),
            }
        }
        other => return Err(no_use(DESCRIPTOR.name, other)),
    }))
}

fn load(key: &str, context: &mut Context<'_>) -> Result<Reconciliation, Fault> {
    match context.state().get(key.as_bytes()) {
        Some(bytes) => Reconciliation::from_state(bytes).map_err(|e| damaged(key, e)),
        None => Ok(Reconciliation::default()),
    }
}
