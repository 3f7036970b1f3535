//! `ledger`: the books of each order, in double entry.
//!
//! It is a processor of its own, apart from refund-gate, because the books must not stop when
//! decisions do: a gate that is halted, or rebuilt from its decisions, leaves what is booked alone,
//! and its single-writer state does not grow with every invoice. What only a payout knows (fees,
//! reserves, the bank's credit) is booked under the payout's key by settlement-recon, the one place
//! that sees it. What a settlement will have a line for is passed on under the provider's reference, by
//! which settlement-match finds it. The rules are in [`crate::domain::finance`].

use super::checks::{check_key, check_times, damaged, no_use};
use super::finance::{Emitter, cases, facts, forget, keep, postings, settle};
use crate::contract::event::{Event, EventMeta, Outcome, PaymentEvent, Text};
use crate::contract::topic;
use crate::domain::Timestamp;
use crate::domain::finance::{Books, Taken};
use crate::pipeline::{Context, Fault, Inbound, Processor, ProcessorDescriptor};

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

const SOURCE: &str = "crossdock/ledger";

/// The processor.
#[derive(Default)]
pub struct Ledger {
    bytes: Vec<u8>,
}

impl Ledger {
    /// Without any order; state brings them.
    pub fn new() -> Self {
        Self::default()
    }

    fn finish(
        &mut self,
        key: &str,
        mut books: Books,
        timer: Option<Timestamp>,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) {
        let now = context.now();
        let (made, cases) = books.settle(now);
        let newest = inbound.iter().map(|i| i.event.meta());
        let cause = newest.max_by_key(|m| m.occurred_at);
        let emitter = Emitter {
            processor: DESCRIPTOR.name,
            source: SOURCE,
            entity: key,
            cause,
            at: cause.map_or(now, |m| m.occurred_at),
        };
        for posting in made {
            let event = postings::event(postings::Books::Order, &posting, &emitter);
            context.emit(topic::LEDGER_POSTING, key, event);
        }
        let Some(changes) = cases else {
            return forget(key, context);
        };
        cases::emit(Some(key), changes, inbound, &emitter, context);
        books.to_state(&mut self.bytes);
        keep(key, &self.bytes, (timer, books.due()), context);
    }
}

impl Processor for Ledger {
    fn descriptor(&self) -> &'static ProcessorDescriptor {
        &DESCRIPTOR
    }

    fn process(
        &mut self,
        key: &str,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut books = load(key, context)?;
        let timer = books.due();
        let mut news = false;
        for (index, i) in inbound.iter().enumerate() {
            if let Some((reference, payment)) = to_be_settled(key, &i.event) {
                context.emit(topic::LEDGER_PAYMENT, reference, payment.clone());
            }
            match take(key, &i.event, &mut books) {
                Ok(Some(taken)) => {
                    news |= taken == Taken::Applied;
                    settle(index, taken, context);
                }
                Ok(None) => {
                    let reason = "has no part in the books";
                    context.settle(index, Outcome::Applied, Some(reason));
                }
                Err(fault) => context.reject(index, fault),
            }
        }
        if news {
            books.heard(context.now());
            self.finish(key, books, timer, inbound, context);
        }
        Ok(())
    }

    fn timer(
        &mut self,
        key: &str,
        _due: Timestamp,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let books = load(key, context)?;
        // It has fired: whatever follows sets it again.
        context.set_timer(key, None);
        self.finish(key, books, None, &[], context);
        Ok(())
    }

    fn restored_timer(&self, key: &[u8], value: &[u8]) -> Option<(Text, Timestamp)> {
        let due = Books::due_of(value).ok()??;
        Some((std::str::from_utf8(key).ok()?.into(), due))
    }
}

/// Takes one event in; `None` when it has no part in the books.
fn take(key: &str, event: &Event, books: &mut Books) -> Result<Option<Taken>, Fault> {
    let check = |meta: &EventMeta, order: &str| {
        check_key(key, order)?;
        check_times(meta)
    };
    Ok(Some(match event {
        Event::PaymentEvent(e) => {
            check(&e.meta, &e.order_id)?;
            match facts::payment(e)? {
                facts::Told::Fact(name, fact) => {
                    books.payment(&name, e.payment_version, e.meta.event_id.as_u128(), fact)
                }
                _ => return Ok(None),
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

fn load(key: &str, context: &mut Context<'_>) -> Result<Books, Fault> {
    match context.state().get(key.as_bytes()) {
        Some(bytes) => Books::from_state(bytes).map_err(|e| damaged(key, e)),
        None => Ok(Books::default()),
    }
}
