//! `return-refund-recon`: whether each return was refunded, put back on the shelf and credited.
//!
//! It decides nothing and moves nothing: it opens and closes exceptions. The rules are in
//! [`crate::domain::finance::Reconciliation`].

use super::cases::{self, About};
use super::checks::{check_key, check_times, no_use, unknown};
use super::finance::facts;
use super::keyed::{Call, Fate, Heard, Keyed, Rules};
use crate::contract::event::{Event, OrderEventType};
use crate::contract::topic;
use crate::domain::Timestamp;
use crate::domain::finance::{InvoiceKind, Reconciliation};
use crate::pipeline::{Fault, ProcessorDescriptor};

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

/// The processor.
pub type ReturnRefundRecon = Keyed<Comparison>;

/// Its rules.
#[derive(Default)]
pub struct Comparison;

impl Rules for Comparison {
    const DESCRIPTOR: &'static ProcessorDescriptor = &DESCRIPTOR;
    const SOURCE: &'static str = "crossdock/return-refund-recon";
    type Known = Reconciliation;
    type Gathered = ();

    fn take(
        &self,
        index: usize,
        recon: &mut Reconciliation,
        _: &mut (),
        call: &mut Call<'_, '_>,
    ) -> Result<Heard, Fault> {
        take(call.key, &call.inbound[index].event, recon, call.now())
    }

    fn finish(
        &self,
        recon: &mut Reconciliation,
        (): (),
        call: &mut Call<'_, '_>,
    ) -> Result<Fate, Fault> {
        let Some(changes) = recon.settle(call.now()) else {
            return Ok(Fate::Forgotten);
        };
        let about = About::order(call.key);
        cases::emit(&about, changes, &call.emitter(), call.context);
        Ok(Fate::Kept)
    }
}

fn take(
    key: &str,
    event: &Event,
    recon: &mut Reconciliation,
    now: Timestamp,
) -> Result<Heard, Fault> {
    const NOTHING: Heard = Heard::Nothing("says nothing about returns");
    let meta = event.meta();
    check_times(meta)?;
    let (id, times) = (meta.event_id.as_u128(), (meta.occurred_at, now));
    Ok(Heard::Taken(match event {
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
                None => return Ok(NOTHING),
            }
        }
        Event::InvoiceEvent(e) => {
            check_key(key, &e.order_id)?;
            let note = facts::invoice(e)?;
            if note.kind != InvoiceKind::CreditNote {
                return Ok(NOTHING);
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
                None => return Ok(NOTHING),
            }
        }
        other => return Err(no_use(DESCRIPTOR.name, other)),
    }))
}
