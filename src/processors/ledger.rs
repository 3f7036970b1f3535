//! `ledger`: the books of each order, in double entry.
//!
//! It is a processor of its own, apart from refund-gate, because the books must not stop when
//! decisions do: a gate that is halted, or rebuilt from its decisions, leaves what is booked alone,
//! and its single-writer state does not grow with every invoice. What only a payout knows (fees,
//! reserves, the bank's credit) is booked under the payout's key by settlement-recon, the one place
//! that sees it. What a settlement will have a line for is passed on under the provider's reference, by
//! which settlement-match finds it. The rules are in [`crate::domain::finance`].

use super::cases::{self, About};
use super::checks::{check_key, check_times, no_use};
use super::emitter::Emitter;
use super::finance::{facts, postings};
use super::keyed::{Call, Fate, Heard, Keyed, Rules};
use crate::contract::event::{Event, EventMeta, PaymentEvent, Text};
use crate::contract::topic;
use crate::domain::finance::Books;
use crate::pipeline::{Fault, ProcessorDescriptor};

/// What `ledger` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "ledger",
    purpose: "books payments, invoices and refunds of each order in double entry",
    inputs: &[
        topic::PAYMENT_EVENT,
        topic::INVOICE_EVENT,
        topic::REFUND_EVENT,
        topic::ORDER_STATE,
    ],
    tables: &[],
    outputs: &[
        topic::LEDGER_POSTING,
        topic::LEDGER_PAYMENT,
        topic::OPS_EXCEPTION,
    ],
};

/// The processor.
pub type Ledger = Keyed<Booking>;

/// Its rules.
#[derive(Default)]
pub struct Booking;

impl Rules for Booking {
    const DESCRIPTOR: &'static ProcessorDescriptor = &DESCRIPTOR;
    const SOURCE: &'static str = "crossdock/ledger";
    type Known = Books;
    type Gathered = ();

    fn take(
        &self,
        index: usize,
        books: &mut Books,
        _: &mut (),
        call: &mut Call<'_, '_>,
    ) -> Result<Heard, Fault> {
        let event = &call.inbound[index].event;
        if let Some((reference, payment)) = to_be_settled(call.key, event) {
            let payment = payment.clone();
            call.context.emit(topic::LEDGER_PAYMENT, reference, payment);
        }
        take(call.key, event, books)
    }

    fn finish(&self, books: &mut Books, (): (), call: &mut Call<'_, '_>) -> Result<Fate, Fault> {
        let (made, cases) = books.settle(call.now());
        // Booked when the newest of the facts happened.
        let newest = call
            .inbound
            .iter()
            .max_by_key(|i| i.event.meta().occurred_at);
        let emitter = Emitter {
            cause: newest,
            at: newest.map_or(call.now(), |i| i.event.meta().occurred_at),
            ..call.emitter()
        };
        for posting in made {
            let event = postings::event(postings::Books::Order, &posting, &emitter);
            call.context.emit(topic::LEDGER_POSTING, call.key, event);
        }
        let Some(changes) = cases else {
            return Ok(Fate::Forgotten);
        };
        cases::emit(&About::order(call.key), changes, &emitter, call.context);
        Ok(Fate::Kept)
    }
}

fn take(key: &str, event: &Event, books: &mut Books) -> Result<Heard, Fault> {
    let check = |meta: &EventMeta, order: &str| {
        check_key(key, order)?;
        check_times(meta)
    };
    Ok(Heard::Taken(match event {
        Event::PaymentEvent(e) => {
            check(&e.meta, &e.order_id)?;
            match facts::payment(e)? {
                facts::Told::Fact(name, fact) => {
                    books.payment(&name, e.payment_version, e.meta.event_id.as_u128(), fact)
                }
                _ => return Ok(Heard::Nothing("has no part in the books")),
            }
        }
        Event::InvoiceEvent(e) => {
            check(&e.meta, &e.order_id)?;
            let fact = facts::invoice(e)?;
            let id = e.meta.event_id.as_u128();
            books.invoice(&e.invoice_id, e.invoice_version, id, fact)
        }
        Event::RefundEvent(e) => {
            check(&e.meta, &e.order_id)?;
            let (fact, id) = (facts::refund(e)?, e.meta.event_id.as_u128());
            books.refund(&e.refund_id.to_string(), e.refund_version, id, fact)
        }
        Event::OrderState(e) => {
            check(&e.meta, &e.order_id)?;
            books.order(e.state_version, e.closed)
        }
        other => return Err(no_use(DESCRIPTOR.name, other)),
    }))
}

/// A movement that a settlement will have a line for, with the key under which the two meet.
fn to_be_settled<'e>(key: &str, event: &'e Event) -> Option<(Text, &'e PaymentEvent)> {
    let Event::PaymentEvent(e) = event else {
        return None;
    };
    let moves = facts::movement(e).ok().flatten().is_some();
    let sound = check_key(key, &e.order_id).and_then(|()| check_times(&e.meta));
    (moves && sound.is_ok()).then(|| (facts::reference(&e.psp, &e.psp_reference), e))
}
