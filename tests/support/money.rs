//! Facts of one order's money, as tests tell them.

// Each suite uses its part.
#![allow(dead_code)]

use crossdock::contract::event::*;
use crossdock::domain::{Decimal, Timestamp, event_id};
use uuid::Uuid;

pub(crate) const ORDER: &str = "7d0b6a52-0000-5000-8000-000000000001";

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp((1_700_000_000 + seconds) * 1_000_000)
}

pub(crate) fn decimal(text: &str) -> Decimal {
    text.parse().expect("a decimal")
}

pub(crate) fn cents(cents: i64) -> Decimal {
    Decimal::from_units(cents * 100)
}

pub(crate) fn money(cents_of: i64, currency: &str) -> Money {
    Money {
        amount: cents(cents_of),
        currency: currency.into(),
    }
}

pub(crate) fn meta(event_type: &str, record: &str, version: i64) -> EventMeta {
    EventMeta {
        event_id: event_id("test", 0, &format!("{record}#{version}"), "", event_type),
        event_type: event_type.into(),
        source: "test".into(),
        source_position: version,
        occurred_at: at(version),
        recorded_at: at(version),
        tenant_id: "default".into(),
        correlation_id: record.into(),
        ..EventMeta::default()
    }
}

pub(crate) fn payment(
    kind: PaymentKind,
    payment: &str,
    reference: &str,
    sum: Money,
) -> PaymentEvent {
    PaymentEvent {
        meta: meta("PaymentEvent", &format!("{kind}/{reference}"), 1),
        order_id: ORDER.into(),
        payment_id: payment.into(),
        payment_version: 1,
        kind,
        amount: sum,
        psp: "psp".into(),
        psp_reference: reference.into(),
        ..PaymentEvent::default()
    }
}

pub(crate) fn captured(name: &str, reference: &str, sum: i64) -> PaymentEvent {
    payment(PaymentKind::Captured, name, reference, money(sum, "EUR"))
}

pub(crate) fn item(line: &str, quantity: i32, gross: i64, tax: i64) -> RefundAllocation {
    RefundAllocation {
        order_line_id: Some(line.into()),
        qty: Decimal::from(quantity),
        net: cents(gross - tax),
        tax: cents(tax),
        r#type: RefundType::Item,
    }
}

pub(crate) fn id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

pub(crate) fn returned(name: &str, version: i64, lines: &[(&str, i32)]) -> ReturnEvent {
    ReturnEvent {
        meta: meta("ReturnEvent", name, version),
        order_id: ORDER.into(),
        return_id: name.into(),
        return_version: version,
        status: ReturnStatus::Inspected,
        method: ReturnMethod::Mail,
        lines: lines
            .iter()
            .map(|(line, accepted)| ReturnLine {
                return_line_id: (*line).into(),
                order_line_id: (*line).into(),
                sku: "A".into(),
                requested: Decimal::from(*accepted),
                received: Decimal::from(*accepted),
                accepted: Decimal::from(*accepted),
                disposition: Disposition::Restock,
                ..ReturnLine::default()
            })
            .collect(),
        ..ReturnEvent::default()
    }
}

pub(crate) fn invoice(kind: InvoiceKind, name: &str, gross: i64, tax: i64) -> InvoiceEvent {
    InvoiceEvent {
        meta: meta("InvoiceEvent", name, 1),
        order_id: ORDER.into(),
        invoice_id: name.into(),
        invoice_version: 1,
        kind,
        status: InvoiceStatus::Posted,
        net: money(gross - tax, "EUR"),
        tax: cents(tax),
        gross: cents(gross),
        ..InvoiceEvent::default()
    }
}

pub(crate) fn refund(
    name: &str,
    version: i64,
    status: RefundStatus,
    allocations: Vec<RefundAllocation>,
) -> RefundEvent {
    let sum: Decimal = allocations.iter().map(|a| a.net + a.tax).sum();
    RefundEvent {
        meta: meta("RefundEvent", name, version),
        order_id: ORDER.into(),
        refund_id: id(name),
        refund_version: version,
        status,
        amount: Money {
            amount: sum,
            currency: "EUR".into(),
        },
        allocations,
        ..RefundEvent::default()
    }
}

pub(crate) fn order_state(
    version: i64,
    status: OrderStatus,
    cancelled: &[(&str, i32)],
) -> OrderState {
    OrderState {
        meta: meta("OrderState", ORDER, version),
        order_id: ORDER.into(),
        state_version: version,
        status,
        currency: "EUR".into(),
        lines: cancelled
            .iter()
            .map(|(line, units)| LineState {
                line_id: (*line).into(),
                cancelled: Decimal::from(*units),
                ..LineState::default()
            })
            .collect(),
        ..OrderState::default()
    }
}

/// The order's books are closed.
pub(crate) fn closed(version: i64) -> OrderState {
    OrderState {
        closed: true,
        ..order_state(version, OrderStatus::Completed, &[])
    }
}

pub(crate) fn request(name: &str, allocations: Vec<RefundAllocation>) -> RefundRequest {
    let sum: Decimal = allocations.iter().map(|a| a.net + a.tax).sum();
    RefundRequest {
        meta: meta("RefundRequest", name, 1),
        order_id: ORDER.into(),
        request_id: id(&format!("request {name}")),
        refund_id: id(name),
        amount: Money {
            amount: sum,
            currency: "EUR".into(),
        },
        allocations,
        requested_by: "service".into(),
        ..RefundRequest::default()
    }
}

/// The provider tells what became of an attempt.
pub(crate) fn answer(
    kind: PaymentKind,
    key: Option<(&str, u32)>,
    reference: &str,
    sum: i64,
    version: i64,
) -> PaymentEvent {
    PaymentEvent {
        meta: meta("PaymentEvent", &format!("{kind}/{reference}"), version),
        payment_version: version,
        refund_key: key.map(|(name, attempt)| format!("{}|{attempt}", id(name)).into()),
        ..payment(kind, "p", reference, money(sum, "EUR"))
    }
}

/// Three lines: two units at 59.50 with 9.50 tax each, one unit at 30 with 4.79, one at 10 without.
pub(crate) fn order_placed() -> OrderEvent {
    let line = |id: &str, quantity: i32, total: i64, tax: i64| OrderLine {
        line_id: id.into(),
        sku: "A".into(),
        qty: Decimal::from(quantity),
        unit_price: Decimal::from_units(total * 100 / i64::from(quantity)),
        tax: cents(tax),
        line_total: cents(total),
        delivery_group_id: "g".into(),
        ..OrderLine::default()
    };
    OrderEvent {
        meta: meta("OrderEvent", "order", 1),
        order_id: ORDER.into(),
        r#type: OrderEventType::Placed,
        entity_version: 1,
        order: Some(OrderSnapshot {
            channel_id: "web".into(),
            currency: "EUR".into(),
            prices_include_tax: true,
            lines: vec![
                line("1", 2, 11_900, 1_900),
                line("2", 1, 3_000, 479),
                line("3", 1, 1_000, 0),
            ],
            grand_total: cents(15_900),
            ..OrderSnapshot::default()
        }),
        ..OrderEvent::default()
    }
}

pub(crate) fn moved(return_id: &str, line: &str, units: i32) -> StockChanged {
    StockChanged {
        meta: meta("StockChanged", &format!("{return_id}/{line}"), 1),
        movement_id: "m".into(),
        sku: "A".into(),
        location_id: "dc".into(),
        from_state: StockState::Customer,
        to_state: StockState::Sellable,
        qty: Decimal::from(units),
        reason: StockReason::Return,
        order_id: Some(ORDER.into()),
        order_line_id: Some(line.into()),
        return_id: Some(return_id.into()),
        ..StockChanged::default()
    }
}

pub(crate) fn credit(name: &str, return_id: &str, gross: i64, tax: i64) -> InvoiceEvent {
    InvoiceEvent {
        return_id: Some(return_id.into()),
        ..invoice(InvoiceKind::CreditNote, name, gross, tax)
    }
}

pub(crate) fn paid(
    name: &str,
    return_id: Option<&str>,
    allocations: Vec<RefundAllocation>,
) -> RefundEvent {
    RefundEvent {
        return_id: return_id.map(Text::from),
        ..refund(name, 4, RefundStatus::Completed, allocations)
    }
}
