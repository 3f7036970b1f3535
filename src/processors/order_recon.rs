//! `order-recon`: whether each order is in every system once, with one total and in one state.
//!
//! The order's state comes in, and what the channel and the ERP list of it; what is missing in the ERP is
//! told again, what is there twice is to be cancelled there, everything else is a case. Who said that it has
//! the order is known from the order's events: what its lists leave out once they are whole is missing there.
//! The rules are in [`crate::domain::recon::Agreement`].

use super::cases::{self, About};
use super::checks::{check_key, check_times, no_use, quality, unknown};
use super::keyed::{Call, Fate, Heard, Keyed, Rules};
use crate::contract::event::{
    Correction, CorrectionKind, Event, ListCoverage, Money as WireMoney, OrderEvent,
    OrderEventType, OrderState, OrderStatus, ReconManifest, SystemRole, Text,
};
use crate::contract::topic;
use crate::domain::money::{Currency, Money};
use crate::domain::recon::{
    Agreement, Coverage, Entry, KnownOrder, OrderRepair, Phase, Role, Told,
};
use crate::domain::{Taken, event_id, exception_id, key_part};
use crate::pipeline::{Code, Fault, ProcessorDescriptor, Stage};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

/// What `order-recon` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "order-recon",
    purpose: "compares orders with what the channel and the ERP list, and puts the ERP right",
    inputs: &[
        topic::MANIFEST_SPLIT_ORDER,
        topic::ORDER_LIFECYCLE,
        topic::ORDER_STATE,
    ],
    tables: &[topic::RECON_COVERAGE],
    outputs: &[topic::RECON_CORRECTION, topic::OPS_EXCEPTION],
};

/// The processor.
pub type OrderRecon = Keyed<OfOrders>;

/// Its rules.
#[derive(Default)]
pub struct OfOrders {
    /// For which time the lists of each system are whole.
    covered: HashMap<Text, Coverage, FxBuildHasher>,
}

impl Rules for OfOrders {
    const DESCRIPTOR: &'static ProcessorDescriptor = &DESCRIPTOR;
    const SOURCE: &'static str = "crossdock/order-recon";
    type Known = Agreement;
    type Gathered = ();

    fn take(
        &self,
        index: usize,
        agreement: &mut Agreement,
        _: &mut (),
        call: &mut Call<'_, '_>,
    ) -> Result<Heard, Fault> {
        let event = &call.inbound[index].event;
        check_times(event.meta())?;
        Ok(Heard::Taken(match event {
            Event::OrderState(e) => {
                check_key(call.key, &e.order_id)?;
                agreement.state(known(e)?)
            }
            Event::OrderEvent(e) => {
                check_key(call.key, &e.order_id)?;
                return told(e, agreement);
            }
            Event::ReconManifest(e) => listed(call.key, e, agreement)?,
            other => return Err(no_use(DESCRIPTOR.name, other)),
        }))
    }

    fn finish(
        &self,
        agreement: &mut Agreement,
        (): (),
        call: &mut Call<'_, '_>,
    ) -> Result<Fate, Fault> {
        let (repairs, cases) =
            agreement.settle(call.now(), |source| self.covered.get(source).copied());
        for repair in repairs {
            let correction = correction(repair, call);
            call.context
                .emit(topic::RECON_CORRECTION, call.key, correction);
        }
        let Some(changes) = cases else {
            return Ok(Fate::Forgotten);
        };
        let order = agreement.known();
        let about = About {
            channel: order.map(|o| o.channel.clone()),
            value: order.map(|o| WireMoney {
                amount: o.total.amount(),
                currency: o.total.currency().code().into(),
            }),
            promise: order.and_then(|o| o.promise),
            ..About::order(call.key)
        };
        cases::emit(&about, changes, &call.emitter(), call.context);
        Ok(Fate::Kept)
    }

    fn table(&mut self, key: &str, event: Option<&Event>) {
        let source = key_part(key, 0);
        match event {
            Some(Event::ListCoverage(e)) if *e.entity_type == *"order" => {
                self.covered.insert(source, coverage(e));
            }
            _ => {
                self.covered.remove(&source);
            }
        }
    }
}

fn coverage(e: &ListCoverage) -> Coverage {
    Coverage {
        since: e.covered_since,
        last_since: e.last_since,
        until: e.covered_until,
    }
}

/// Who says that it has the order.
fn told(e: &OrderEvent, agreement: &mut Agreement) -> Result<Heard, Fault> {
    let (role, external) = match (e.r#type, &e.order, &e.erp_order_id) {
        (OrderEventType::Unknown, ..) => return Err(unknown("type")),
        (OrderEventType::Placed, Some(order), _) => (Role::Channel, &order.channel_order_id),
        (OrderEventType::Accepted, _, Some(name)) => (Role::Erp, name),
        _ => return Ok(Heard::Nothing("it does not say who has the order")),
    };
    let told = Told {
        role,
        source: e.meta.source.clone(),
        external: external.clone(),
        at: e.meta.occurred_at,
        gone: None,
    };
    Ok(Heard::Taken(agreement.told(told)))
}

fn known(e: &OrderState) -> Result<KnownOrder, Fault> {
    let currency = Currency::parse(&e.currency).map_err(|cause| {
        let message = format!("currency: {cause}");
        Fault::reject(Stage::Validate, Code::UnknownReference, message)
    })?;
    let total = Money::new(e.grand_total, currency);
    Ok(KnownOrder {
        version: e.state_version,
        phase: phase(e.status).ok_or_else(|| unknown("status"))?,
        closed: e.closed,
        total: total.map_err(|cause| quality(format!("grandTotal: {cause}")))?,
        lines: e.lines.len() as u32,
        is_reduced: e.lines.iter().any(|l| l.cancelled.is_positive()),
        changed_at: e.meta.occurred_at,
        erp_orders: e.erp_order_ids.clone(),
        channel: e.channel_id.clone(),
        promise: e.earliest_promise,
    })
}

/// A status as coarse as every system has it.
fn phase(status: OrderStatus) -> Option<Phase> {
    Some(match status {
        OrderStatus::Unknown => return None,
        OrderStatus::OnHold => Phase::Held,
        OrderStatus::Cancelled | OrderStatus::Rejected => Phase::Cancelled,
        OrderStatus::Placed
        | OrderStatus::Accepted
        | OrderStatus::Backordered
        | OrderStatus::InFulfilment
        | OrderStatus::ReadyForPickup => Phase::Open,
        OrderStatus::Conflict
        | OrderStatus::PartiallyShipped
        | OrderStatus::Shipped
        | OrderStatus::Completed
        | OrderStatus::PartiallyReturned
        | OrderStatus::Returned => Phase::Sent,
    })
}

fn listed(key: &str, e: &ReconManifest, agreement: &mut Agreement) -> Result<Taken, Fault> {
    let [entry] = e.entries.as_slice() else {
        return Err(quality("one entry is passed on at a time"));
    };
    check_key(key, &entry.entity_key)?;
    let role = match e.role {
        SystemRole::Unknown => return Err(unknown("role")),
        SystemRole::Channel => Role::Channel,
        SystemRole::Erp => Role::Erp,
    };
    let status = entry.status.as_deref();
    let fact = Entry {
        role,
        source: e.meta.source.clone(),
        external: entry.external_id.clone().unwrap_or_else(|| key.into()),
        phase: status.and_then(OrderStatus::from_symbol).and_then(phase),
        amount: entry.amount,
        as_of: e.window_end,
    };
    // What a later list says counts, whatever came first.
    Ok(agreement.listed(e.window_end.0, e.meta.event_id.as_u128(), fact))
}

fn correction(repair: OrderRepair, call: &Call<'_, '_>) -> Correction {
    let (kind, code, external, target, attempt, reason) = match repair {
        OrderRepair::Replay { source, attempt } => (
            CorrectionKind::ReplayOrder,
            "MISSING_IN_ERP",
            None,
            source.clone(),
            attempt,
            match source.is_empty() {
                true => "no ERP has accepted or listed the order",
                false => "the ERP said that it had the order, and its lists do not have it",
            },
        ),
        OrderRepair::Cancel {
            external,
            source,
            attempt,
        } => (
            CorrectionKind::CancelDuplicate,
            "DUPLICATE_IN_ERP",
            Some(external),
            source,
            attempt,
            "the ERP has an older order for the same",
        ),
    };
    // Tries are counted anew for each case, so the moment tells them apart.
    let name = external.as_deref().unwrap_or_default();
    let record_id = format!("{}|{code}|{name}|{}|{attempt}", call.key, call.now().0);
    let emitter = call.emitter();
    Correction {
        meta: emitter.meta("Correction", &record_id, i64::from(attempt)),
        correction_id: event_id(emitter.source, 0, &record_id, "correction", "Correction"),
        kind,
        target,
        entity_key: call.key.into(),
        order_id: Some(call.key.into()),
        external_id: external,
        attempt: attempt as i32,
        exception_id: exception_id(code, call.key, ""),
        reason: Some(reason.into()),
        ..Correction::default()
    }
}
