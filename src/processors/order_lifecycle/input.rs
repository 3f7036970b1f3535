//! From events to facts: checks of data quality, then translation.

use super::DESCRIPTOR;
use crate::contract::event::{
    DeliveryMethod, Event, InvoiceEvent, InvoiceKind, InvoiceStatus, LineQty, OrderEvent,
    OrderEventType, OrderSnapshot, PaymentEvent, PaymentKind as WirePayment, RefundEvent,
    RefundStatus, RefundType, ReservationEvent, ReservationStatus, ReturnEvent, ReturnStatus,
    ShipmentEvent, Text,
};
use crate::domain::money::Currency;
use crate::domain::money::rules::{self, TaxMode};
use crate::domain::order::{
    Fact, Handover, Invoice, Line, Payment, PaymentKind, Progress, Quantities, Refund, Reservation,
    Return, Shipment, ShipmentLine, Snapshot, Statement,
};
use crate::domain::{Decimal, natural_id};
use crate::pipeline::{Code, Fault, Stage};
use crate::processors::checks::{self, quality, unknown};
use crate::processors::statuses::domain_status;
use std::collections::{BTreeMap, BTreeSet};

/// Largest quantity or amount of one fact; keeps sums far from the end of numbers.
const NUMBER_MAX: i64 = 10_000_000_000 * 10_000;

/// What holds for every input: it is of this key and not stamped in the future.
pub(super) fn check(key: &str, event: &Event) -> Result<(), Fault> {
    let order = match event {
        Event::OrderEvent(e) => &e.order_id,
        Event::PaymentEvent(e) => &e.order_id,
        Event::ReservationEvent(e) => &e.order_id,
        Event::ShipmentEvent(e) => &e.order_id,
        Event::ReturnEvent(e) => &e.order_id,
        Event::RefundEvent(e) => &e.order_id,
        Event::InvoiceEvent(e) => &e.order_id,
        other => return Err(checks::no_use(DESCRIPTOR.name, other)),
    };
    checks::check_key(key, order)?;
    checks::check_times(event.meta())
}

/// The fact that an event tells, and its version.
pub(super) fn fact(event: &Event) -> Result<(Fact, i64), Fault> {
    match event {
        Event::OrderEvent(e) => Ok((order(e)?, e.entity_version)),
        Event::PaymentEvent(e) => Ok((payment(e)?, e.payment_version)),
        Event::ReservationEvent(e) => Ok((reservation(e)?, e.reservation_version)),
        Event::ShipmentEvent(e) => Ok((shipment(e)?, e.shipment_version)),
        Event::ReturnEvent(e) => Ok((returned(e)?, e.return_version)),
        Event::RefundEvent(e) => Ok((refund(e)?, e.refund_version)),
        Event::InvoiceEvent(e) => Ok((invoice(e)?, e.invoice_version)),
        other => Err(checks::no_use(DESCRIPTOR.name, other)),
    }
}

fn order(e: &OrderEvent) -> Result<Fact, Fault> {
    let given = || e.order.as_ref().map(snapshot).transpose();
    let needed = || given()?.ok_or_else(|| quality(format!("{} needs the order itself", e.r#type)));
    let statement = match e.r#type {
        OrderEventType::Placed => Statement::Placed(needed()?),
        // After it has accepted an order, the ERP amends it; before, the channel does.
        OrderEventType::Amended if e.erp_order_id.is_some() => Statement::Accepted(Some(needed()?)),
        OrderEventType::Amended => Statement::Placed(needed()?),
        OrderEventType::Accepted => Statement::Accepted(given()?),
        OrderEventType::Rejected => Statement::Rejected,
        OrderEventType::Held => Statement::Held(true),
        OrderEventType::HoldReleased => Statement::Held(false),
        OrderEventType::Closed => Statement::Closed,
        OrderEventType::Unknown
        | OrderEventType::CancelRequested
        | OrderEventType::CancelDecided => {
            return Err(unknown("type"));
        }
    };
    Ok(Fact::Order {
        source: e.meta.source.clone(),
        erp_order: e.erp_order_id.clone(),
        statement,
    })
}

fn snapshot(o: &OrderSnapshot) -> Result<Snapshot, Fault> {
    check_totals(o)?;
    let mut names = BTreeSet::new();
    for line in &o.lines {
        if line.line_id.is_empty() || !names.insert(&line.line_id) {
            return Err(quality(format!(
                "two lines are called {:?}, or one has no name",
                line.line_id
            )));
        }
        if !line.qty.is_positive() {
            return Err(quality(format!(
                "qty of line {} is {}, but must be more than 0",
                line.line_id, line.qty
            )));
        }
        check_number("qty", line.qty)?;
    }
    if o.lines.is_empty() {
        return Err(quality("the order has no lines"));
    }
    let handover = |group: &Text| {
        let group = o.delivery_groups.iter().find(|g| g.group_id == *group);
        match group.map(|g| g.method) {
            Some(DeliveryMethod::PickupInStore | DeliveryMethod::Curbside) => Handover::Pickup,
            Some(DeliveryMethod::CarryOut) => Handover::CarryOut,
            _ => Handover::Ship,
        }
    };
    Ok(Snapshot {
        channel: o.channel_id.clone(),
        channel_order: o.channel_order_id.clone(),
        currency: o.currency.clone(),
        grand_total: o.grand_total,
        placed_at: o.placed_at,
        promise: o.delivery_groups.iter().filter_map(|g| g.promise_by).min(),
        lines: o
            .lines
            .iter()
            .map(|line| Line {
                id: line.line_id.clone(),
                sku: line.sku.clone(),
                quantity: line.qty,
                handover: handover(&line.delivery_group_id),
            })
            .collect(),
    })
}

/// Lines make their totals, and lines and charges make the order's.
fn check_totals(o: &OrderSnapshot) -> Result<(), Fault> {
    let currency = Currency::parse(&o.currency).map_err(|cause| {
        Fault::reject(
            Stage::Validate,
            Code::UnknownReference,
            format!("currency: {cause}"),
        )
    })?;
    let lines: Vec<rules::Line<'_>> = o
        .lines
        .iter()
        .map(|line| rules::Line {
            id: &line.line_id,
            quantity: line.qty,
            unit_price: line.unit_price,
            discount: line.discount,
            tax: line.tax,
            total: line.line_total,
        })
        .collect();
    let charges: Vec<_> = o.charges.iter().map(|c| (c.net, c.tax)).collect();
    let mode = match o.prices_include_tax {
        true => TaxMode::Inclusive,
        false => TaxMode::Exclusive,
    };
    rules::check_order(&lines, &charges, o.grand_total, mode, currency)
        .map_err(|broken| quality(broken.to_string()))
}

fn payment(e: &PaymentEvent) -> Result<Fact, Fault> {
    let kind = match e.kind {
        WirePayment::Unknown => return Err(unknown("kind")),
        WirePayment::Authorised => PaymentKind::Authorised,
        WirePayment::Captured => PaymentKind::Captured,
        WirePayment::Voided => PaymentKind::Voided,
        WirePayment::Chargeback => PaymentKind::Chargeback,
        WirePayment::ChargebackReversed => PaymentKind::ChargebackReversed,
        _ => PaymentKind::Other,
    };
    check_not_negative("amount", e.amount.amount)?;
    let payment = Payment {
        kind,
        amount: e.amount.amount,
        currency: e.amount.currency.clone(),
    };
    // The provider's references are not for everybody who reads the state.
    let parts = [&*e.payment_id, &*e.psp, &*e.psp_reference, e.kind.symbol()];
    let movement = natural_id(&parts);
    Ok(Fact::Payment(text(movement), payment))
}

fn reservation(e: &ReservationEvent) -> Result<Fact, Fault> {
    let over = |consumed| (consumed, Decimal::ZERO, false);
    let (granted, backordered, open) = match e.status {
        ReservationStatus::Unknown => return Err(unknown("status")),
        // What was held and has not left was given back.
        ReservationStatus::Rejected
        | ReservationStatus::Released
        | ReservationStatus::Expired
        | ReservationStatus::Consumed => over(e.qty_consumed),
        _ => (e.qty_held, e.qty_backordered, true),
    };
    let reservation = Reservation {
        line: e.order_line_id.clone(),
        granted,
        backordered,
        open,
    };
    Ok(Fact::Reservation(text(e.reservation_id), reservation))
}

fn shipment(e: &ShipmentEvent) -> Result<Fact, Fault> {
    let status = domain_status(e.status).ok_or_else(|| unknown("status"))?;
    let mut lines = Vec::with_capacity(e.lines.len());
    for line in &e.lines {
        let counters = [
            ("allocated", line.allocated),
            ("picked", line.picked),
            ("short", line.short),
            ("shipped", line.shipped),
            ("delivered", line.delivered),
            ("cancelled", line.cancelled),
        ];
        for (name, quantity) in counters {
            check_not_negative(name, quantity)?;
        }
        lines.push(ShipmentLine {
            line: line.line_id.clone(),
            reservation: line.reservation_id.map(text),
            allocated: line.allocated,
            picked: line.picked,
            short: line.short,
            shipped: line.shipped,
            delivered: line.delivered,
            cancelled: line.cancelled,
        });
    }
    Ok(Fact::Shipment(
        e.shipment_id.clone(),
        Shipment { status, lines },
    ))
}

fn returned(e: &ReturnEvent) -> Result<Fact, Fault> {
    if e.status == ReturnStatus::Unknown {
        return Err(unknown("status"));
    }
    let mut sums: BTreeMap<Text, Decimal> = BTreeMap::new();
    for line in &e.lines {
        for (name, quantity) in [
            ("received", line.received),
            ("accepted", line.accepted),
            ("rejected", line.rejected),
        ] {
            check_not_negative(name, quantity)?;
        }
        // What was accepted without having been received is what the customer may keep.
        let back = line.accepted.max(line.received - line.rejected);
        if back.is_positive() {
            *sums.entry(line.order_line_id.clone()).or_default() += back;
        }
    }
    let returned = sums.into_iter().collect();
    Ok(Fact::Return(e.return_id.clone(), Return { returned }))
}

fn refund(e: &RefundEvent) -> Result<Fact, Fault> {
    let progress = match e.status {
        RefundStatus::Unknown => return Err(unknown("status")),
        RefundStatus::Approved | RefundStatus::Submitted | RefundStatus::OutcomeUnknown => {
            Progress::InFlight
        }
        RefundStatus::Completed => Progress::Done,
        RefundStatus::Requested
        | RefundStatus::Failed
        | RefundStatus::Rejected
        | RefundStatus::Reversed => Progress::Idle,
    };
    check_not_negative("amount", e.amount.amount)?;
    let mut units: BTreeMap<Text, Decimal> = BTreeMap::new();
    let paid_for = |t| matches!(t, RefundType::Item | RefundType::Cancellation);
    for allocation in e.allocations.iter().filter(|a| paid_for(a.r#type)) {
        check_not_negative("qty", allocation.qty)?;
        if let Some(line) = &allocation.order_line_id {
            *units.entry(line.clone()).or_default() += allocation.qty;
        }
    }
    let refund = Refund {
        progress,
        amount: e.amount.amount,
        currency: e.amount.currency.clone(),
        units: units.into_iter().collect(),
    };
    Ok(Fact::Refund(text(e.refund_id), refund))
}

fn invoice(e: &InvoiceEvent) -> Result<Fact, Fault> {
    let credit = match e.kind {
        InvoiceKind::Unknown => return Err(unknown("kind")),
        InvoiceKind::CreditNote => true,
        InvoiceKind::Invoice | InvoiceKind::DebitNote => false,
    };
    if e.status == InvoiceStatus::Unknown {
        return Err(unknown("status"));
    }
    check_not_negative("gross", e.gross)?;
    let invoice = Invoice {
        valid: e.status != InvoiceStatus::Cancelled,
        credit,
        gross: e.gross,
        currency: e.net.currency.clone(),
    };
    Ok(Fact::Invoice(e.invoice_id.clone(), invoice))
}

/// The quantities of a cancellation, by line.
pub(super) fn quantities(affected: &[LineQty]) -> Result<Quantities, Fault> {
    let mut sums: BTreeMap<Text, Decimal> = BTreeMap::new();
    for line in affected {
        check_not_negative("qty", line.qty)?;
        *sums.entry(line.line_id.clone()).or_default() += line.qty;
    }
    Ok(sums.into_iter().collect())
}

fn text(id: uuid::Uuid) -> Text {
    compact_str::format_compact!("{id}")
}

fn check_number(name: &str, number: Decimal) -> Result<(), Fault> {
    if number.units().abs() > NUMBER_MAX {
        return Err(quality(format!("{name} {number} is beyond any order")));
    }
    Ok(())
}

fn check_not_negative(name: &str, number: Decimal) -> Result<(), Fault> {
    if number.is_negative() {
        return Err(quality(format!("{name} {number} is less than 0")));
    }
    check_number(name, number)
}
