//! From the provider's objects to movements of money. Pure: what has to be looked up is given.

use super::client::{integer, text};
use crate::contract::event::{
    EventMeta, Money, Origin, PaymentEvent, PaymentKind, PositionKind, SettlementEvent,
    SettlementKind, Text,
};
use crate::contract::topic;
use crate::domain::money::Currency;
use crate::domain::{Date, Decimal, Timestamp, compound_key, event_id, order_id, payment_id};
use crate::pipeline::{Code, Fault, SourceRecord, Stage};
use serde_json::Value;

/// Metadata of a refund that holds the key it was asked for under.
pub const REFUND_KEY: &str = "crossdock_refund_key";

/// Types of events that tell of movements.
pub const EVENT_TYPES: [&str; 10] = [
    "charge.succeeded",
    "charge.captured",
    "charge.failed",
    "charge.expired",
    "payment_intent.canceled",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
];

/// Whom a payment is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Paid {
    /// The order, by its natural id.
    pub order_id: String,
    /// The payment as a whole.
    pub payment_id: String,
    /// Last digits of the card.
    pub last4: Option<String>,
    /// How it was paid, as in `card`.
    pub tender: Option<String>,
}

/// How the provider is named, and how orders are found.
pub struct Names<'a> {
    /// Name of the connector instance.
    pub instance: &'a str,
    /// `psp` of events.
    pub psp: &'a str,
    /// The channel where a payment names none.
    pub channel: &'a str,
    /// Metadata with the channel.
    pub channel_metadata: Option<&'a str>,
    /// Metadata with the order's number.
    pub order_metadata: &'a str,
}

impl Names<'_> {
    /// Whom a charge or a payment intent is of.
    ///
    /// # Errors
    /// A rejection when it names no order.
    pub fn paid(&self, object: &Value) -> Result<Paid, Fault> {
        let metadata = &object["metadata"];
        let number = metadata[self.order_metadata].as_str().unwrap_or_default();
        if number.is_empty() {
            let message = format!(
                "{} {} names no order: metadata has no {}; have the channel write the order's number there, or name another with `order_metadata`",
                object["object"].as_str().unwrap_or("object"),
                object["id"].as_str().unwrap_or_default(),
                self.order_metadata
            );
            return Err(Fault::reject(Stage::Read, Code::UnknownReference, message));
        }
        let named = self.channel_metadata.and_then(|m| metadata[m].as_str());
        let channel = named.unwrap_or(self.channel);
        let order_id = order_id("default", channel, number).to_string();
        let payment = match object["payment_intent"].as_str() {
            Some(intent) => intent,
            None => text(object, "id")?,
        };
        let details = &object["payment_method_details"];
        Ok(Paid {
            payment_id: payment_id(&order_id, self.psp, payment).to_string(),
            order_id,
            last4: details["card"]["last4"].as_str().map(str::to_owned),
            tender: details["type"].as_str().map(str::to_owned),
        })
    }

    /// The movements that an event tells of. Each is told alike by every event and list that has it.
    ///
    /// # Errors
    /// A rejection when the object lacks what the API promises.
    pub fn movements(&self, event: &Value, paid: &Paid) -> Result<Vec<PaymentEvent>, Fault> {
        let object = &event["data"]["object"];
        let created = integer(event, "created")?;
        let one = |kind, field, version| {
            let movement = self.movement(object, paid, (kind, field, version), created);
            movement.map(|m| vec![m])
        };
        match text(event, "type")? {
            "charge.succeeded" if object["captured"] != true => {
                one(PaymentKind::Authorised, "amount", 1)
            }
            "charge.succeeded" | "charge.captured" => {
                one(PaymentKind::Captured, "amount_captured", 1)
            }
            "charge.failed" => one(PaymentKind::AuthFailed, "amount", 1),
            "charge.expired" | "payment_intent.canceled" => one(PaymentKind::Voided, "amount", 1),
            "refund.created" | "refund.updated" | "refund.failed" => {
                self.refund(object, paid, created)
            }
            "charge.dispute.funds_withdrawn" => one(PaymentKind::Chargeback, "amount", 1),
            "charge.dispute.funds_reinstated" => one(PaymentKind::ChargebackReversed, "amount", 1),
            _ => Ok(Vec::new()),
        }
    }

    /// A refund that succeeded has moved money; one that failed afterwards has moved it back; one
    /// that failed at once has not. One that is pending is told of when it has ended.
    fn refund(
        &self,
        object: &Value,
        paid: &Paid,
        created: i64,
    ) -> Result<Vec<PaymentEvent>, Fault> {
        let has_moved = object["balance_transaction"].is_string();
        let came_back = object["failure_balance_transaction"].is_string();
        let kinds: &[PaymentKind] = match text(object, "status")? {
            "succeeded" => &[PaymentKind::Refunded],
            "failed" | "canceled" if has_moved && came_back => {
                &[PaymentKind::Refunded, PaymentKind::RefundReversed]
            }
            "failed" | "canceled" => &[PaymentKind::RefundFailed],
            _ => &[],
        };
        let each = kinds
            .iter()
            .map(|kind| self.movement(object, paid, (*kind, "amount", 1), created));
        let mut told: Vec<PaymentEvent> = each.collect::<Result<_, _>>()?;
        for movement in &mut told {
            // When it was paid is the refund's own time, whichever event tells of it.
            if movement.kind == PaymentKind::Refunded {
                movement.meta.occurred_at = seconds(integer(object, "created")?);
            }
        }
        Ok(told)
    }

    fn movement(
        &self,
        object: &Value,
        paid: &Paid,
        (kind, amount, version): (PaymentKind, &str, i64),
        at: i64,
    ) -> Result<PaymentEvent, Fault> {
        let reference = text(object, "id")?;
        let record_id = compound_key(&[reference, kind.symbol()]);
        let sum = money(integer(object, amount)?, text(object, "currency")?)?;
        Ok(PaymentEvent {
            meta: self.meta("PaymentEvent", &record_id, &paid.order_id, seconds(at)),
            order_id: paid.order_id.as_str().into(),
            payment_id: paid.payment_id.as_str().into(),
            payment_version: version,
            kind,
            amount: sum,
            tender: paid.tender.as_deref().map(Text::from),
            psp: self.psp.into(),
            psp_reference: reference.into(),
            refund_key: object["metadata"][REFUND_KEY].as_str().map(Text::from),
            pan_last4: paid.last4.as_deref().map(Text::from),
        })
    }

    /// A line of a payout, with the object that it is about, where the list was asked to name it.
    ///
    /// # Errors
    /// A rejection when the object lacks what the API promises.
    pub fn line(
        &self,
        payout: &str,
        transaction: &Value,
        paid: Option<&Paid>,
    ) -> Result<SourceRecord, Fault> {
        let id = text(transaction, "id")?;
        let source = &transaction["source"];
        let reference = source["id"].as_str().or(source.as_str());
        let kind = kind_of(transaction)?;
        let is_of_order = !matches!(
            kind,
            SettlementKind::Fee | SettlementKind::Adjustment | SettlementKind::Reserve
        );
        let reference = reference.filter(|_| is_of_order);
        let code = text(transaction, "currency")?;
        let gross = money(integer(transaction, "amount")?, code)?;
        let fee = money(integer(transaction, "fee")?, code)?;
        let net = money(integer(transaction, "net")?, code)?;
        let original = match (source["amount"].as_i64(), source["currency"].as_str()) {
            (Some(amount), Some(other)) if other != code => {
                let sign = if gross.amount.is_negative() { -1 } else { 1 };
                Some(money(amount * sign, other)?)
            }
            _ => None,
        };
        let event = SettlementEvent {
            kind,
            order_id: paid.map(|p| p.order_id.as_str().into()),
            psp_reference: reference.map(Text::from),
            gross: gross.amount,
            fee: fee.amount,
            net: net.amount,
            currency: gross.currency,
            original,
            value_date: day(integer(transaction, "available_on")?),
            ..self.settlement(payout, id, integer(transaction, "created")?)
        };
        Ok(self.settled(event))
    }

    /// The control row of a payout: how many lines it has, and what they sum to.
    ///
    /// # Errors
    /// As [`Names::line`].
    pub fn control(&self, payout: &Value, lines: usize) -> Result<SourceRecord, Fault> {
        let id = text(payout, "id")?;
        let net = money(integer(payout, "amount")?, text(payout, "currency")?)?;
        let event = SettlementEvent {
            kind: SettlementKind::PayoutControl,
            currency: net.currency,
            value_date: day(integer(payout, "arrival_date")?),
            control_count: Some(lines as i64),
            control_net: Some(net.amount),
            ..self.settlement(id, "control", integer(payout, "created")?)
        };
        Ok(self.settled(event))
    }

    fn settlement(&self, payout: &str, line: &str, created: i64) -> SettlementEvent {
        let record_id = compound_key(&[payout, line]);
        SettlementEvent {
            meta: self.meta("SettlementEvent", &record_id, payout, seconds(created)),
            psp: self.psp.into(),
            payout_id: payout.into(),
            line_id: line.into(),
            ..SettlementEvent::default()
        }
    }

    /// Lines with a reference go to where the movement is known, all others to their payout.
    fn settled(&self, event: SettlementEvent) -> SourceRecord {
        let (topic, key) = match &event.psp_reference {
            Some(reference) => (
                topic::SETTLEMENT_EVENT,
                compound_key(&[self.psp, reference]),
            ),
            None => (topic::SETTLEMENT_PAYOUT, event.payout_id.clone()),
        };
        SourceRecord {
            topic,
            key,
            event: event.into(),
        }
    }

    /// The beginning of an event; its position is given when it is read.
    pub fn meta(
        &self,
        event_type: &str,
        record_id: &str,
        correlation: &str,
        at: Timestamp,
    ) -> EventMeta {
        EventMeta {
            event_id: event_id(self.psp, 0, record_id, "", event_type),
            event_type: event_type.into(),
            source: self.instance.into(),
            position_kind: PositionKind::Sequence,
            occurred_at: at,
            tenant_id: "default".into(),
            correlation_id: correlation.into(),
            origin: Origin::Source,
            ..EventMeta::default()
        }
    }
}

fn kind_of(transaction: &Value) -> Result<SettlementKind, Fault> {
    let category = transaction["reporting_category"].as_str();
    Ok(match text(transaction, "type")? {
        "charge" | "payment" => SettlementKind::Capture,
        "refund" | "payment_refund" => SettlementKind::Refund,
        "refund_failure" | "payment_failure_refund" => SettlementKind::RefundReversed,
        "adjustment" => match category.unwrap_or_default() {
            "dispute" => SettlementKind::Chargeback,
            "dispute_reversal" => SettlementKind::ChargebackReversed,
            "fee" => SettlementKind::Fee,
            _ => SettlementKind::Adjustment,
        },
        "stripe_fee" | "stripe_fx_fee" | "tax_fee" | "application_fee" => SettlementKind::Fee,
        "reserve_transaction"
        | "reserved_funds"
        | "payout_minimum_balance_hold"
        | "payout_minimum_balance_release" => SettlementKind::Reserve,
        _ => SettlementKind::Adjustment,
    })
}

/// An amount of the API in the contracts' form.
///
/// # Errors
/// A rejection for a currency that ISO 4217 does not know.
pub fn money(minor: i64, currency: &str) -> Result<Money, Fault> {
    let code = currency.to_ascii_uppercase();
    let unit = unit(&code)?;
    Ok(Money {
        amount: Decimal::from_units(minor.saturating_mul(unit)),
        currency: code.as_str().into(),
    })
}

/// An amount of the contracts as the API counts it.
///
/// # Errors
/// A rejection when the amount has parts of a minor unit.
pub fn minor(money: &Money) -> Result<i64, Fault> {
    let unit = unit(&money.currency)?;
    let units = money.amount.units();
    if units % unit != 0 {
        let message = format!(
            "{} {} is no whole number of minor units",
            money.amount, money.currency
        );
        return Err(Fault::reject(Stage::Write, Code::DataQuality, message));
    }
    Ok(units / unit)
}

/// Ten-thousandths in one unit that the API counts.
fn unit(code: &str) -> Result<i64, Fault> {
    if matches!(code, "ISK" | "UGX") {
        return Ok(100);
    }
    let currency = Currency::parse(code)
        .map_err(|e| Fault::reject(Stage::Read, Code::UnknownReference, e.to_string()))?;
    Ok(currency.minor_unit().units())
}

fn seconds(s: i64) -> Timestamp {
    Timestamp(s.saturating_mul(1_000_000))
}

fn day(s: i64) -> Date {
    Date(s.div_euclid(86_400) as i32)
}
