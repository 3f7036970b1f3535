//! One event in one line of retail words.

mod order;
mod stock;

pub(super) use stock::policy;

use crate::contract::event::{BusinessException, Event, Money, SinkReceipt};
use crate::domain::money::{Currency, Money as Amount};
use crate::domain::{Decimal, Timestamp};

/// What an event says.
pub(super) fn of(event: &Event) -> String {
    match event {
        Event::StockChanged(e) => stock::movement(e),
        Event::StockSnapshot(e) => stock::snapshot(e),
        Event::StockPolicy(e) => format!("policy {}: {}", e.policy_version, policy(e)),
        Event::ReservationCommand(e) => stock::command(e),
        Event::ReservationDecision(e) => stock::decision(e),
        Event::ReservationEvent(e) => order::reservation(e),
        Event::StockLevel(e) => stock::level(e),
        Event::ChannelLevel(e) if !e.active => {
            format!("no longer offered to {}", e.channel_id)
        }
        Event::ChannelLevel(e) => format!("{} offered to {}", units(e.ats), e.channel_id),
        Event::AvailabilityChanged(e) => {
            let before = e.previous_ats.map(|p| format!(", before {p}"));
            let before = before.unwrap_or_default();
            format!("published for {}: {}{before}", e.channel_id, units(e.ats))
        }
        Event::OrderEvent(e) => order::order(e),
        Event::OrderState(e) => order::state(e),
        Event::PaymentEvent(e) => order::payment(e),
        Event::ShipmentEvent(e) => order::shipment(e),
        Event::ShipmentState(e) => order::fulfilments(e),
        Event::ReturnEvent(e) => order::returned(e),
        Event::RefundRequest(e) => order::refund_request(e),
        Event::RefundEvent(e) => order::refund(e),
        Event::InvoiceEvent(e) => order::invoice(e),
        Event::SettlementEvent(e) => order::settlement(e),
        Event::LedgerPosting(e) => order::posting(e),
        Event::SinkReceipt(e) => receipt(e),
        Event::BusinessException(e) => case(e),
        other => other.meta().event_type.to_string(),
    }
}

fn receipt(e: &SinkReceipt) -> String {
    let status = e.status_code.map(|s| format!(", status {s}"));
    format!(
        "{} was told version {}: {}{}",
        e.sink,
        e.sent_version,
        e.outcome.symbol(),
        status.unwrap_or_default()
    )
}

fn case(e: &BusinessException) -> String {
    let or_nothing = |text: &Option<_>| {
        text.as_ref()
            .map_or_else(|| "nothing".to_owned(), ToString::to_string)
    };
    format!(
        "{} {}: expected {}, found {}",
        e.code,
        e.status.symbol(),
        or_nothing(&e.expected),
        or_nothing(&e.actual)
    )
}

/// A time to the millisecond, for people.
pub(super) fn time(at: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(at.as_millis()) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => at.to_string(),
    }
}

/// An amount with its currency.
pub(super) fn money(money: &Money) -> String {
    amount(money.amount, &money.currency)
}

/// An amount with all places of its currency, as in `27.90 GBP`; as it came where it has more of them.
pub(super) fn amount(amount: Decimal, currency: &str) -> String {
    let known = Currency::parse(currency).ok();
    let exact = known.and_then(|c| Amount::new(amount, c).ok());
    exact.map_or_else(|| format!("{amount} {currency}"), |m| m.to_string())
}

/// A quantity of goods.
pub(super) fn units(quantity: Decimal) -> String {
    match quantity == Decimal::ONE {
        true => "1 unit".to_owned(),
        false => format!("{quantity} units"),
    }
}

/// `, name value` where there is a value.
pub(super) fn named(name: &str, value: Option<&impl std::fmt::Display>) -> String {
    value.map_or_else(String::new, |value| format!(", {name} {value}"))
}
