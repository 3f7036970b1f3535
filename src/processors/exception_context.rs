//! `exception-context`: what an exception's order is worth and what its customer was told.
//!
//! exception-enricher keys by exception, an order's state by order: here the two meet under the order,
//! and what is known of it goes back to each of its exceptions, whenever it changes while they are open.

use super::checks::{check_key, check_times, no_use};
use super::keyed::{Call, Fate, Heard, Keyed, Rules};
use crate::contract::event::{
    BusinessException, Event, ExceptionContext as Wire, ExceptionStatus, Money, OrderState,
};
use crate::contract::topic;
use crate::domain::exceptions::{Attached, OrderContext};
use crate::pipeline::{Fault, ProcessorDescriptor};
use uuid::Uuid;

/// What `exception-context` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "exception-context",
    purpose: "tells exceptions what their order is worth and what its customer was told",
    inputs: &[topic::EXCEPTION_ENRICHER_BY_ORDER, topic::ORDER_STATE],
    tables: &[],
    outputs: &[topic::EXCEPTION_CONTEXT_ORDER],
};

/// The processor.
pub type ExceptionContext = Keyed<OfOrder>;

/// Its rules.
#[derive(Default)]
pub struct OfOrder;

impl Rules for OfOrder {
    const DESCRIPTOR: &'static ProcessorDescriptor = &DESCRIPTOR;
    const SOURCE: &'static str = "crossdock/exception-context";
    type Known = Attached;
    type Gathered = ();

    fn take(
        &self,
        index: usize,
        attached: &mut Attached,
        _: &mut (),
        call: &mut Call<'_, '_>,
    ) -> Result<Heard, Fault> {
        let event = &call.inbound[index].event;
        check_times(event.meta())?;
        Ok(Heard::Taken(match event {
            Event::BusinessException(e) => {
                check_key(call.key, e.order_id.as_deref().unwrap_or_default())?;
                attached.exception(e.exception_id.as_u128(), e.exception_version, is_open(e))
            }
            Event::OrderState(e) => {
                check_key(call.key, &e.order_id)?;
                attached.order(context(e))
            }
            other => return Err(no_use(DESCRIPTOR.name, other)),
        }))
    }

    fn finish(
        &self,
        attached: &mut Attached,
        (): (),
        call: &mut Call<'_, '_>,
    ) -> Result<Fate, Fault> {
        let Some(told) = attached.settle(call.now()) else {
            return Ok(Fate::Forgotten);
        };
        for (exception, context) in told {
            let id = Uuid::from_u128(exception);
            let record_id = format!("{id}#{}", context.version);
            let emitter = call.emitter();
            let event = Wire {
                meta: emitter.meta("ExceptionContext", &record_id, context.version),
                exception_id: id,
                order_id: call.key.into(),
                state_version: context.version,
                status: context.status,
                channel_id: context.channel,
                order_value: Money {
                    amount: context.value,
                    currency: context.currency,
                },
                customer_promise_at: context.promise,
            };
            let key = compact_str::format_compact!("{id}");
            call.context
                .emit(topic::EXCEPTION_CONTEXT_ORDER, key, event);
        }
        Ok(Fate::Kept)
    }
}

fn is_open(e: &BusinessException) -> bool {
    !matches!(
        e.status,
        ExceptionStatus::Resolved | ExceptionStatus::Compensated | ExceptionStatus::Accepted
    )
}

fn context(e: &OrderState) -> OrderContext {
    OrderContext {
        version: e.state_version,
        status: e.status.symbol().into(),
        channel: e.channel_id.clone(),
        value: e.grand_total,
        currency: e.currency.clone(),
        promise: e.earliest_promise,
    }
}
