//! What is said of orders, their goods and their money.

use super::{amount, money, named, time, units};
use crate::books::account_name;
use crate::contract::event::{
    InvoiceEvent, LedgerEntry, LedgerPosting, LedgerSide, OrderEvent, OrderEventType, OrderState,
    PaymentEvent, PaymentKind, RefundAllocation, RefundEvent, RefundRequest, ReservationEvent,
    ReturnEvent, SettlementEvent, ShipmentEvent, ShipmentState,
};
use crate::domain::Decimal;
use std::fmt::Write as _;

pub(super) fn order(e: &OrderEvent) -> String {
    let what = match e.r#type {
        OrderEventType::Placed => "placed",
        OrderEventType::Amended => "amended",
        OrderEventType::CancelRequested => "cancellation asked for",
        OrderEventType::CancelDecided => "cancellation decided",
        OrderEventType::Accepted => "accepted",
        OrderEventType::Rejected => "rejected",
        OrderEventType::Held => "put on hold",
        OrderEventType::HoldReleased => "hold released",
        OrderEventType::Closed => "closed",
        OrderEventType::Unknown => "something unknown happened to it",
    };
    let mut words = format!("{what} (version {})", e.entity_version);
    if let Some(o) = &e.order {
        let _ = write!(
            words,
            ": {} of {}, {}, {}",
            o.channel_order_id,
            o.channel_id,
            match o.lines.len() {
                1 => "1 line".to_owned(),
                lines => format!("{lines} lines"),
            },
            amount(o.grand_total, &o.currency)
        );
    }
    for line in &e.affected {
        let _ = write!(words, ", {} of line {}", units(line.qty), line.line_id);
    }
    words
        + &named("ERP order", e.erp_order_id.as_ref())
        + &named("by", e.actor.as_ref())
        + &named("because", e.reason.as_ref())
}

pub(super) fn state(e: &OrderState) -> String {
    let mut words = format!("state {}: {}", e.state_version, e.status);
    if e.closed {
        words.push_str(", closed");
    }
    for (what, sum) in [
        ("captured", e.captured),
        ("refunded", e.refunded),
        ("invoiced", e.invoiced),
        ("credited", e.credited),
    ] {
        if !sum.is_zero() {
            let _ = write!(words, ", {what} {}", amount(sum, &e.currency));
        }
    }
    for case in &e.open_exceptions {
        let _ = write!(words, ", open {case}");
    }
    words
}

pub(super) fn payment(e: &PaymentEvent) -> String {
    let what = match e.kind {
        PaymentKind::Authorised => "authorised",
        PaymentKind::AuthFailed => "authorisation failed",
        PaymentKind::Captured => "captured",
        PaymentKind::Voided => "authorisation given up",
        PaymentKind::Chargeback => "taken back by the customer's bank",
        PaymentKind::ChargebackReversed => "given back by the customer's bank",
        PaymentKind::Refunded => "refunded",
        PaymentKind::RefundFailed => "refund failed",
        PaymentKind::RefundUnknown => "refund without a known outcome",
        PaymentKind::RefundReversed => "refund came back",
        PaymentKind::Unknown => "moved in an unknown way",
    };
    let sum = money(&e.amount);
    format!("{sum} {what} at {} ({})", e.psp, e.psp_reference)
}

pub(super) fn reservation(e: &ReservationEvent) -> String {
    let mut words = format!(
        "claim {}: {} of {} at {} asked for by line {}, {}",
        e.status,
        units(e.qty_requested),
        e.sku,
        e.location_id,
        e.order_line_id,
        held(e.qty_held, e.qty_requested)
    );
    for (what, quantity) in [
        ("consumed", e.qty_consumed),
        ("on backorder", e.qty_backordered),
    ] {
        if quantity.is_positive() {
            let _ = write!(words, ", {} {what}", units(quantity));
        }
    }
    let _ = write!(words, "; {} available before", units(e.ats_before));
    let until = e.expires_at.map(time);
    words + &named("until", until.as_ref()) + &named("because", e.reason.as_ref())
}

pub(super) fn shipment(e: &ShipmentEvent) -> String {
    let mut words = format!(
        "fulfilment {} at {}: {}",
        e.shipment_id, e.node_id, e.status
    );
    for line in &e.lines {
        let parts = [
            ("picked", line.picked),
            ("short", line.short),
            ("shipped", line.shipped),
            ("delivered", line.delivered),
            ("cancelled", line.cancelled),
        ];
        let _ = write!(words, "; line {}{}", line.line_id, quantities(&parts));
    }
    for package in &e.packages {
        let carrier = named("", package.carrier.as_ref());
        words += &carrier.replacen(",  ", ", ", 1);
        words += &named("tracking", package.tracking_number.as_ref());
    }
    words + &named("because", e.reason.as_ref())
}

pub(super) fn fulfilments(e: &ShipmentState) -> String {
    let all = e.fulfilments.iter();
    let all: Vec<String> = all
        .map(|f| format!("{} {}", f.shipment_id, f.status))
        .collect();
    let all = all.join(", ");
    format!(
        "to be told to {} (version {}): {all}",
        e.channel_id, e.state_version
    )
}

pub(super) fn returned(e: &ReturnEvent) -> String {
    let mut words = format!("return {}: {}", e.return_id, e.status);
    for line in &e.lines {
        let parts = [
            ("asked for", line.requested),
            ("received", line.received),
            ("accepted", line.accepted),
            ("rejected", line.rejected),
        ];
        let parts = quantities(&parts);
        let _ = write!(words, "; line {}{parts}", line.order_line_id);
    }
    words + &named("at", e.return_location_id.as_ref())
}

pub(super) fn refund_request(e: &RefundRequest) -> String {
    let what = match e.already_issued {
        true => "says that it has refunded",
        false => "asks to refund",
    };
    format!(
        "{} {what} {}{}",
        e.requested_by,
        money(&e.amount),
        allocations(&e.allocations, &e.amount.currency)
    ) + &named("for return", e.return_id.as_ref())
        + &named("because", e.reason.as_ref())
}

pub(super) fn refund(e: &RefundEvent) -> String {
    let sum = money(&e.amount);
    let elsewhere = match e.issued_elsewhere {
        true => ", issued elsewhere",
        false => "",
    };
    let attempt = match e.attempt {
        0 | 1 => String::new(),
        attempt => format!(", attempt {attempt}"),
    };
    let what = allocations(&e.allocations, &e.amount.currency);
    format!(
        "refund {} of {sum}: {}{what}{elsewhere}{attempt}",
        e.refund_id, e.status
    ) + &named("at", e.psp.as_ref())
        + &named("because", e.reason.as_ref())
}

pub(super) fn invoice(e: &InvoiceEvent) -> String {
    let (net, currency) = (e.net.amount, &e.net.currency);
    format!(
        "{} {} {}: {} (net {}, tax {})",
        e.kind,
        e.invoice_id,
        e.status,
        amount(e.gross, currency),
        amount(net, currency),
        amount(e.tax, currency)
    ) + &named("for", e.original_invoice_id.as_ref())
        + &named("return", e.return_id.as_ref())
}

pub(super) fn settlement(e: &SettlementEvent) -> String {
    let sum = |part| amount(part, &e.currency);
    format!(
        "{} in payout {} of {}, line {}: gross {}, fee {}, net {}",
        e.kind,
        e.payout_id,
        e.psp,
        e.line_id,
        sum(e.gross),
        sum(e.fee),
        sum(e.net)
    )
}

pub(super) fn posting(e: &LedgerPosting) -> String {
    let side = |wanted: LedgerSide| {
        let of_side = e.entries.iter().filter(|entry| entry.side == wanted);
        let entry = |entry: &LedgerEntry| {
            format!("{} {}", account(entry), amount(entry.amount, &e.currency))
        };
        of_side.map(entry).collect::<Vec<_>>().join(" + ")
    };
    let correction = match e.sequence {
        0 => "",
        _ => ", a correction",
    };
    format!(
        "booked {}: {} to {}{correction}",
        e.reason,
        side(LedgerSide::Debit),
        side(LedgerSide::Credit)
    ) + &named("in payout", e.payout_id.as_ref())
}

fn account(entry: &LedgerEntry) -> &'static str {
    account_name(entry.account)
}

fn allocations(allocations: &[RefundAllocation], currency: &str) -> String {
    let mut words = String::new();
    for a in allocations {
        let _ = write!(words, "; {} {}", amount(a.net + a.tax, currency), a.r#type);
        words += &named("line", a.order_line_id.as_ref()).replacen(',', "", 1);
    }
    words
}

/// How much of a claim is held.
pub(super) fn held(held: Decimal, asked: Decimal) -> String {
    match (held.is_zero(), held == asked) {
        (true, _) => "none held".to_owned(),
        (_, true) => "all held".to_owned(),
        _ => format!("{} held", units(held)),
    }
}

/// Those that are not zero, each with its name.
fn quantities(parts: &[(&str, Decimal)]) -> String {
    let mut words = String::new();
    for (name, quantity) in parts.iter().filter(|(_, q)| !q.is_zero()) {
        let _ = write!(words, " {quantity} {name}");
    }
    words
}
