//! Money that a provider took or gave back, as what an ERP books for it: pure.
//!
//! A capture is `clearing / receivable` with the order's customer, a refund or a chargeback the other way
//! round. ERPs keep no key for such entries, so each is called by the natural key of its fact.

use super::orders::reject;
use crate::contract::event::{
    Money, PaymentEvent, PaymentKind, RefundEvent, RefundStatus, SinkOutcome,
};
use crate::domain::{Timestamp, compound_key};
use crate::pipeline::{Ack, Code, Fault};
use schemars::JsonSchema;
use serde::Deserialize;

/// Where money is booked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentSettings {
    /// Code of the journal.
    pub journal: String,
    /// Code of the account for what the provider owes.
    pub clearing_account: String,
    /// Code of the account for what customers owe.
    pub receivable_account: String,
}

/// What is to be in the books.
pub struct Booking<'a> {
    /// The order that it is of.
    pub order: &'a str,
    /// What the entry is called.
    pub key: String,
    /// How much.
    pub amount: &'a Money,
    /// Whether the customer paid, or was paid.
    pub comes_in: bool,
    /// When.
    pub at: Timestamp,
    /// In words for people.
    pub who: String,
    version: i64,
}

/// Whether a payment moves money between the customer and the provider and is told by nothing else.
pub fn wants_payment(event: &PaymentEvent) -> bool {
    matches!(
        event.kind,
        PaymentKind::Captured | PaymentKind::Chargeback | PaymentKind::ChargebackReversed
    )
}

/// Whether a refund was paid, or what was paid came back.
pub fn wants_refund(event: &RefundEvent) -> bool {
    matches!(
        event.status,
        RefundStatus::Completed | RefundStatus::Reversed
    )
}

impl<'a> Booking<'a> {
    /// Of a payment that [`wants_payment`].
    pub fn of_payment(event: &'a PaymentEvent) -> Booking<'a> {
        let key = compound_key(&[event.kind.symbol(), &event.psp, &event.psp_reference]);
        Booking {
            order: &event.order_id,
            who: format!("{} of order {}", event.kind, event.order_id),
            key: key.to_string(),
            amount: &event.amount,
            comes_in: event.kind != PaymentKind::Chargeback,
            at: event.meta.occurred_at,
            version: event.payment_version,
        }
    }

    /// Of a refund that [`wants_refund`].
    pub fn of_refund(event: &'a RefundEvent) -> Booking<'a> {
        let id = event.refund_id.to_string();
        let key = compound_key(&[event.status.symbol(), "refund", &id]);
        Booking {
            order: &event.order_id,
            who: format!("refund {id} of order {}", event.order_id),
            key: key.to_string(),
            amount: &event.amount,
            comes_in: event.status == RefundStatus::Reversed,
            at: event.meta.occurred_at,
            version: event.refund_version,
        }
    }

    /// Whether it can be booked in the `system`, whose books are kept in `currency`.
    ///
    /// # Errors
    /// A reject that names it.
    pub fn check(&self, system: &str, currency: &str) -> Result<(), Fault> {
        let (who, amount) = (&self.who, self.amount);
        if *amount.currency != *currency {
            let message = format!(
                "{who} is {} {}, and the books are kept in {currency}; book it in {system} by hand",
                amount.amount, amount.currency
            );
            return Err(reject(Code::UnknownReference, message));
        }
        if !amount.amount.is_positive() {
            let message = format!("{who}: the amount is {}", amount.amount);
            return Err(reject(Code::DataQuality, message));
        }
        Ok(())
    }

    /// That it is in the books.
    pub fn ack(&self, changed: bool, external_id: String) -> Ack {
        Ack {
            outcome: match changed {
                true => SinkOutcome::Acked,
                false => SinkOutcome::DuplicateAcked,
            },
            version: self.version,
            external_id: Some(external_id),
            digest: None,
            status: None,
        }
    }
}
