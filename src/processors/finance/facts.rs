//! From events to facts of money: checks of data quality, then translation.

use crate::contract::event::{
    Disposition as WireDisposition, InvoiceEvent, InvoiceKind as WireInvoiceKind, InvoiceStatus,
    Money as WireMoney, OrderSnapshot, PaymentEvent, PaymentKind as WirePaymentKind,
    RefundAllocation, RefundEvent, RefundStatus as WireRefundStatus, RefundType, ReturnEvent,
    ReturnStatus, SettlementEvent, SettlementKind, StockChanged, StockReason, StockState, Text,
};
use crate::domain::finance::{
    Allocation, AllocationKind, Control, Disposition, Invoice, InvoiceKind, LineKind, Moved,
    OrderLine, OrderTerms, Payment, PaymentKind, RefundFact, RefundStatus, Restock, ReturnFact,
    ReturnLine, SettledLine,
};
use crate::domain::money::rules::{self, Line, TaxMode};
use crate::domain::money::{Currency, Money, MoneyError};
use crate::domain::{Decimal, compound_key};
use crate::pipeline::{Code, Fault, Stage};
use crate::processors::checks::{quality, unknown};

/// An amount in a currency; `field` names it in the fault.
pub(crate) fn money(field: &str, amount: Decimal, currency: &str) -> Result<Money, Fault> {
    Currency::parse(currency)
        .and_then(|currency| Money::new(amount, currency))
        .map_err(|e| amount_fault(field, e))
}

fn positive(field: &str, wire: &WireMoney) -> Result<Money, Fault> {
    if !wire.amount.is_positive() {
        return Err(quality(format!(
            "{field} is {}, but must be more than 0; the direction is in the kind",
            wire.amount
        )));
    }
    money(field, wire.amount, &wire.currency)
}

fn amount_fault(field: &str, error: MoneyError) -> Fault {
    let code = match error {
        MoneyError::UnknownCurrency(_) => Code::UnknownReference,
        _ => Code::DataQuality,
    };
    Fault::reject(Stage::Validate, code, format!("{field}: {error}"))
}

/// `psp|reference`.
pub(crate) fn reference(psp: &str, reference: &str) -> Text {
    compound_key(&[psp, reference])
}

/// What a payment event says.
pub(crate) enum Told {
    /// Money of the customer came in or was taken back: the fact and its natural key.
    Fact(Text, Payment),
    /// A refund moved; refund-gate's business.
    Refund,
    /// Nothing that moves money.
    Nothing,
}

pub(crate) fn payment(e: &PaymentEvent) -> Result<Told, Fault> {
    let kind = match e.kind {
        WirePaymentKind::Unknown => return Err(unknown("kind")),
        WirePaymentKind::Captured => PaymentKind::Captured,
        WirePaymentKind::Chargeback => PaymentKind::Chargeback,
        WirePaymentKind::ChargebackReversed => PaymentKind::ChargebackReversed,
        WirePaymentKind::Authorised | WirePaymentKind::AuthFailed | WirePaymentKind::Voided => {
            return Ok(Told::Nothing);
        }
        WirePaymentKind::Refunded
        | WirePaymentKind::RefundFailed
        | WirePaymentKind::RefundUnknown
        | WirePaymentKind::RefundReversed => {
            positive("amount", &e.amount)?;
            return Ok(Told::Refund);
        }
    };
    if e.psp_reference.is_empty() {
        return Err(quality(
            "pspReference is empty: without it a payment told twice is two",
        ));
    }
    let fact = Payment {
        kind,
        payment: e.payment_id.clone(),
        money: positive("amount", &e.amount)?,
    };
    let key = compound_key(&[&e.psp, &e.psp_reference, e.kind.symbol()]);
    Ok(Told::Fact(key, fact))
}

/// The movement as a settlement will have it; `None` when none will.
pub(crate) fn movement(e: &PaymentEvent) -> Result<Option<Moved>, Fault> {
    let kind = match e.kind {
        WirePaymentKind::Unknown => return Err(unknown("kind")),
        WirePaymentKind::Captured => LineKind::Capture,
        WirePaymentKind::Refunded => LineKind::Refund,
        WirePaymentKind::RefundReversed => LineKind::RefundReversed,
        WirePaymentKind::Chargeback => LineKind::Chargeback,
        WirePaymentKind::ChargebackReversed => LineKind::ChargebackReversed,
        _ => return Ok(None),
    };
    let amount = positive("amount", &e.amount)?;
    let goes_out = matches!(kind, LineKind::Refund | LineKind::Chargeback);
    Ok(Some(Moved {
        kind,
        order: e.order_id.clone(),
        money: match goes_out {
            true => amount.negated(),
            false => amount,
        },
    }))
}

/// What a settlement event says.
pub(crate) enum Settled {
    Line(SettledLine),
    Control(Control),
    Bank(Money),
}

pub(crate) fn settled(e: &SettlementEvent) -> Result<Settled, Fault> {
    let kind = match e.kind {
        SettlementKind::Unknown => return Err(unknown("kind")),
        SettlementKind::PayoutControl => {
            let Some(net) = e.control_net else {
                return Err(quality("a control row needs controlNet"));
            };
            let net = money("controlNet", net, &e.currency)?;
            let count = e.control_count;
            return Ok(Settled::Control(Control { count, net }));
        }
        SettlementKind::BankCredit => {
            return Ok(Settled::Bank(money("net", e.net, &e.currency)?));
        }
        SettlementKind::Capture => LineKind::Capture,
        SettlementKind::Refund => LineKind::Refund,
        SettlementKind::RefundReversed => LineKind::RefundReversed,
        SettlementKind::Chargeback => LineKind::Chargeback,
        SettlementKind::ChargebackReversed => LineKind::ChargebackReversed,
        SettlementKind::Fee => LineKind::Fee,
        SettlementKind::Adjustment => LineKind::Adjustment,
        SettlementKind::Reserve => LineKind::Reserve,
    };
    let gross = money("gross", e.gross, &e.currency)?;
    let fee = money("fee", e.fee, &e.currency)?;
    let net = money("net", e.net, &e.currency)?;
    let original = e.original.as_ref();
    let original = original
        .map(|o| money("original", o.amount, &o.currency))
        .transpose()?;
    if let Some(original) = original {
        let signs = [original, gross].map(|m| m.amount().units().signum());
        if signs[0] != signs[1] || original.currency() == gross.currency() {
            return Err(quality(format!(
                "original {original} is not gross {gross} in another currency"
            )));
        }
    }
    if gross.minus(fee) != Ok(net) {
        return Err(quality(format!(
            "gross {gross} less fee {fee} is not net {net}"
        )));
    }
    if e.line_id.is_empty() || e.payout_id.is_empty() {
        return Err(quality(
            "payoutId or lineId is empty: without them a line told twice is two",
        ));
    }
    Ok(Settled::Line(SettledLine {
        payout: e.payout_id.clone(),
        line: e.line_id.clone(),
        kind,
        order: e.order_id.clone(),
        gross,
        original,
        fee,
        net,
        value_day: e.value_date.0,
    }))
}

pub(crate) fn invoice(e: &InvoiceEvent) -> Result<Invoice, Fault> {
    let kind = match e.kind {
        WireInvoiceKind::Unknown => return Err(unknown("kind")),
        WireInvoiceKind::Invoice => InvoiceKind::Invoice,
        WireInvoiceKind::CreditNote => InvoiceKind::CreditNote,
        WireInvoiceKind::DebitNote => InvoiceKind::DebitNote,
    };
    let live = match e.status {
        InvoiceStatus::Unknown => return Err(unknown("status")),
        InvoiceStatus::Cancelled => false,
        InvoiceStatus::Issued | InvoiceStatus::Posted | InvoiceStatus::Paid => true,
    };
    let net = money("net", e.net.amount, &e.net.currency)?;
    let tax = money("tax", e.tax, &e.net.currency)?;
    let gross = money("gross", e.gross, &e.net.currency)?;
    if net.amount().is_negative() || tax.amount().is_negative() {
        return Err(quality(
            "net or tax is less than 0; a credit note states what it credits as more than 0",
        ));
    }
    if net.plus(tax) != Ok(gross) {
        return Err(quality(format!(
            "net {net} and tax {tax} do not make gross {gross}"
        )));
    }
    Ok(Invoice {
        kind,
        live,
        refund: e.refund_id.map(|id| id.as_u128()),
        return_id: e.return_id.clone(),
        net,
        tax,
    })
}

pub(crate) fn refund_status(status: WireRefundStatus) -> Result<RefundStatus, Fault> {
    Ok(match status {
        WireRefundStatus::Unknown => return Err(unknown("status")),
        WireRefundStatus::Requested => RefundStatus::Requested,
        WireRefundStatus::Approved => RefundStatus::Approved,
        WireRefundStatus::Submitted => RefundStatus::Submitted,
        WireRefundStatus::OutcomeUnknown => RefundStatus::OutcomeUnknown,
        WireRefundStatus::Completed => RefundStatus::Completed,
        WireRefundStatus::Failed => RefundStatus::Failed,
        WireRefundStatus::Rejected => RefundStatus::Rejected,
        WireRefundStatus::Reversed => RefundStatus::Reversed,
    })
}

pub(crate) fn refund(e: &RefundEvent) -> Result<RefundFact, Fault> {
    let status = refund_status(e.status)?;
    Ok(RefundFact {
        status,
        return_id: e.return_id.clone(),
        money: positive("amount", &e.amount)?,
        allocations: allocations(&e.allocations)?,
    })
}

pub(crate) fn allocations(wire: &[RefundAllocation]) -> Result<Vec<Allocation>, Fault> {
    let allocation = |a: &RefundAllocation| {
        let kind = match a.r#type {
            RefundType::Unknown => return Err(unknown("allocations.type")),
            RefundType::Item => AllocationKind::Item,
            RefundType::Shipping => AllocationKind::Shipping,
            RefundType::Cancellation => AllocationKind::Cancellation,
            RefundType::Appeasement => AllocationKind::Appeasement,
            RefundType::Fee => AllocationKind::Fee,
            RefundType::TaxAdjustment => AllocationKind::TaxAdjustment,
        };
        if a.qty.is_negative() {
            return Err(quality(format!("qty of an allocation is {}", a.qty)));
        }
        let (net, tax) = (a.net.is_negative(), a.tax.is_negative());
        let fee = kind == AllocationKind::Fee;
        let wrong_sign = match kind {
            AllocationKind::TaxAdjustment => false,
            AllocationKind::Fee => a.net.is_positive() || a.tax.is_positive(),
            _ => net || tax,
        };
        if wrong_sign {
            return Err(quality(format!(
                "an allocation of type {} has net {} and tax {}; {}",
                a.r#type,
                a.net,
                a.tax,
                match fee {
                    true => "a fee is kept back: it is less than 0",
                    false => "only a fee is less than 0",
                }
            )));
        }
        Ok(Allocation {
            line: a.order_line_id.clone(),
            quantity: a.qty,
            net: a.net,
            tax: a.tax,
            kind,
        })
    };
    wire.iter().map(allocation).collect()
}

/// What a request says it is for: its amount is the sum of its allocations, and units are of a line.
pub(crate) fn asked_for(
    wire_money: &WireMoney,
    wire: &[RefundAllocation],
    issued: bool,
) -> Result<(Money, Vec<Allocation>), Fault> {
    let amount = positive("amount", wire_money)?;
    let allocations = allocations(wire)?;
    if issued && allocations.is_empty() {
        // It was paid, whatever for.
        return Ok((amount, allocations));
    }
    let parts: Vec<(Decimal, Decimal)> = allocations.iter().map(|a| (a.net, a.tax)).collect();
    rules::check_refund(amount, &parts).map_err(|e| quality(e.to_string()))?;
    let homeless = allocations
        .iter()
        .find(|a| a.is_for_goods() && (a.line.is_none() || !a.quantity.is_positive()));
    match homeless.filter(|_| !issued) {
        Some(a) => Err(quality(format!(
            "an allocation of type {:?} needs orderLineId and a qty of more than 0",
            a.kind
        ))),
        None => Ok((amount, allocations)),
    }
}

pub(crate) fn returned(e: &ReturnEvent) -> Result<ReturnFact, Fault> {
    let live = match e.status {
        ReturnStatus::Unknown => return Err(unknown("status")),
        ReturnStatus::Declined | ReturnStatus::Cancelled => false,
        _ => true,
    };
    let line = |l: &crate::contract::event::ReturnLine| {
        if l.accepted.is_negative() || l.accepted + l.rejected > l.received.max(l.requested) {
            return Err(quality(format!(
                "line {}: accepted {} and rejected {} of {} received",
                l.return_line_id, l.accepted, l.rejected, l.received
            )));
        }
        Ok(ReturnLine {
            line: l.order_line_id.clone(),
            accepted: l.accepted,
            disposition: match l.disposition {
                WireDisposition::Unknown if l.accepted.is_positive() => {
                    return Err(unknown("disposition"));
                }
                WireDisposition::Restock => Disposition::Restock,
                WireDisposition::Keep => Disposition::Keep,
                _ => Disposition::Other,
            },
        })
    };
    let lines = e.lines.iter().map(line).collect::<Result<_, _>>()?;
    Ok(ReturnFact { live, lines })
}

/// What was agreed; the order's amounts must add up.
pub(crate) fn terms(order: &OrderSnapshot) -> Result<OrderTerms, Fault> {
    let currency =
        Currency::parse(&order.currency).map_err(|e| amount_fault("order.currency", e))?;
    let mode = match order.prices_include_tax {
        true => TaxMode::Inclusive,
        false => TaxMode::Exclusive,
    };
    let lines: Vec<Line<'_>> = order
        .lines
        .iter()
        .map(|l| Line {
            id: &l.line_id,
            quantity: l.qty,
            unit_price: l.unit_price,
            discount: l.discount,
            tax: l.tax,
            total: l.line_total,
        })
        .collect();
    let charges: Vec<(Decimal, Decimal)> = order.charges.iter().map(|c| (c.net, c.tax)).collect();
    rules::check_order(&lines, &charges, order.grand_total, mode, currency)
        .map_err(|e| quality(e.to_string()))?;
    let line = |l: &Line<'_>| {
        let amount =
            |field, amount| Money::new(amount, currency).map_err(|e| amount_fault(field, e));
        Ok(OrderLine {
            line: l.id.into(),
            quantity: l.quantity,
            total: amount("lineTotal", l.total)?,
            tax: amount("tax", l.tax)?,
        })
    };
    Ok(OrderTerms {
        lines: lines.iter().map(line).collect::<Result<_, Fault>>()?,
        at: order.placed_at,
    })
}

/// Goods of a return that became sellable, or wait for a look at them; `None` for other movements.
pub(crate) fn restock(e: &StockChanged) -> Option<Restock> {
    if e.return_id.is_none() && e.reason != StockReason::Return {
        return None;
    }
    let shelf = |state| matches!(state, StockState::Sellable | StockState::QualityHold);
    let quantity = match (shelf(e.from_state), shelf(e.to_state)) {
        (false, true) => e.qty,
        (true, false) => -e.qty,
        _ => return None,
    };
    Some(Restock {
        return_id: e.return_id.clone(),
        line: e.order_line_id.clone(),
        quantity,
    })
}
