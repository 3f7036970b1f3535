//! Pays refunds.
//!
//! A refund is asked for under the key `refundId|attempt`. Before that it is looked for by the same
//! key, which stands in its metadata: after a doubt, after a crash and after the provider has
//! forgotten the key, one refund stays one. A definite refusal is told as a fact, so that whoever
//! decided can decide anew.

use super::client::{Client, Slice, integer, text};
use super::map::{self, REFUND_KEY};
use super::source::names;
use crate::contract::event::{
    Event, PaymentEvent, PaymentKind, RefundEvent, RefundStatus, SinkOutcome, Text,
};
use crate::contract::topic;
use crate::domain::compound_key;
use crate::pipeline::{
    Ack, Capabilities, Code, Delivery, Fault, Inbound, Sink, SourceRecord, Stage,
};
use serde_json::Value;
use std::sync::Arc;

/// The sink.
pub struct PspSink {
    client: Arc<Client>,
}

impl PspSink {
    /// The sink of an account.
    pub fn new(client: Arc<Client>) -> Self {
        PspSink { client }
    }

    async fn pay(&self, delivery: &Delivery) -> Result<Ack, Fault> {
        let Event::RefundEvent(refund) = &delivery.inbound.event else {
            let message = format!("{} is no refund", delivery.inbound.record.origin);
            return Err(Fault::reject(Stage::Write, Code::WrongContract, message));
        };
        let key = refund_key(refund);
        let amount = map::minor(&refund.amount)?;
        let mut chosen = None;
        for charge in &refund.capture_references {
            if let Some(found) = self.find(charge, &key).await? {
                return ack(refund, &found, SinkOutcome::DuplicateAcked);
            }
            if chosen.is_none() && self.refundable(charge).await? >= amount {
                chosen = Some(charge);
            }
        }
        // In doubt what is missing may be this very refund, not shown yet: the provider says so, by the key.
        let asked_first = refund.capture_references.first();
        let chosen = chosen.or(asked_first.filter(|_| delivery.in_doubt));
        let Some(charge) = chosen else {
            let message = format!(
                "refund {}: none of its captures ({}) has {} {} left to be refunded",
                refund.refund_id,
                refund.capture_references.join(", "),
                refund.amount.amount,
                refund.amount.currency
            );
            return Err(Fault::reject(Stage::Write, Code::Refused, message));
        };
        let form = vec![
            ("charge".to_owned(), charge.to_string()),
            ("amount".to_owned(), amount.to_string()),
            (format!("metadata[{REFUND_KEY}]"), key.clone()),
            (
                "metadata[crossdock_order]".into(),
                refund.order_id.to_string(),
            ),
        ];
        let made = self.client.post("/v1/refunds", &form, &key).await?;
        ack(refund, &made, SinkOutcome::Acked)
    }

    /// The refund of a charge that was asked for under this key.
    async fn find(&self, charge: &str, key: &str) -> Result<Option<Value>, Fault> {
        let query = vec![("charge".to_owned(), charge.to_owned())];
        match self.client.pages("/v1/refunds", query).await? {
            Slice::Whole(refunds) => Ok(refunds
                .into_iter()
                .find(|r| r["metadata"][REFUND_KEY].as_str() == Some(key))),
            Slice::TooMany => {
                let message =
                    format!("charge {charge} has more refunds than can be looked through");
                Err(Fault::reject(Stage::Write, Code::Refused, message))
            }
        }
    }

    async fn refundable(&self, charge: &str) -> Result<i64, Fault> {
        let path = format!("/v1/charges/{charge}");
        let charge = self.client.get(&path, &[]).await?;
        Ok(integer(&charge, "amount_captured")? - integer(&charge, "amount_refunded")?)
    }
}

fn refund_key(refund: &RefundEvent) -> String {
    format!("{}|{}", refund.refund_id, refund.attempt)
}

fn ack(refund: &RefundEvent, made: &Value, outcome: SinkOutcome) -> Result<Ack, Fault> {
    // An answer without an id is none: it is looked for when it is tried again.
    let id = text(made, "id")
        .map_err(|fault| Fault::retry(Stage::Write, Code::OutcomeUnknown, fault.message))?;
    Ok(Ack {
        outcome,
        version: refund.refund_version,
        external_id: Some(id.to_owned()),
        digest: None,
        status: Some(200),
    })
}

#[async_trait::async_trait]
impl Sink for PspSink {
    fn capabilities(&self) -> Capabilities {
        super::CAPABILITIES
    }

    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        let mut results = Vec::with_capacity(batch.len());
        for delivery in batch {
            results.push(self.pay(delivery).await);
        }
        results
    }

    /// Refunds that this provider is to pay, or to be asked about.
    fn wants(&self, inbound: &Inbound) -> bool {
        let Event::RefundEvent(refund) = &inbound.event else {
            return false;
        };
        let is_order = matches!(
            refund.status,
            RefundStatus::Submitted | RefundStatus::OutcomeUnknown
        );
        is_order
            && !refund.issued_elsewhere
            && refund.psp.as_deref() == Some(&self.client.settings.name)
    }

    fn looks_first(&self, _: &Inbound) -> bool {
        true
    }

    /// Money that has left does not come back.
    fn is_meant_first(&self, _: &Inbound) -> bool {
        true
    }

    /// The attempt has failed for good: the next one has a key of its own.
    fn refused(&self, inbound: &Inbound, fault: &Fault) -> Vec<SourceRecord> {
        match fault.code {
            Code::Refused => self.told(inbound, PaymentKind::RefundFailed, 1),
            _ => Vec::new(),
        }
    }

    /// Until the provider is heard, nobody knows: whatever it says then is newer.
    fn doubted(&self, inbound: &Inbound) -> Vec<SourceRecord> {
        match &inbound.event {
            Event::RefundEvent(e) if e.status == RefundStatus::Submitted => {
                self.told(inbound, PaymentKind::RefundUnknown, 0)
            }
            _ => Vec::new(),
        }
    }
}

impl PspSink {
    /// The fact of what is known of an attempt to pay a refund.
    fn told(&self, inbound: &Inbound, kind: PaymentKind, version: i64) -> Vec<SourceRecord> {
        let Event::RefundEvent(refund) = &inbound.event else {
            return Vec::new();
        };
        let key = refund_key(refund);
        let names = names(&self.client);
        let record_id = compound_key(&[&key, kind.symbol()]);
        let at = inbound.event.meta().occurred_at;
        let mut event = PaymentEvent {
            meta: names.meta("PaymentEvent", &record_id, &refund.order_id, at),
            order_id: refund.order_id.clone(),
            payment_id: refund.payment_id.clone().unwrap_or_default(),
            payment_version: version,
            kind,
            amount: refund.amount.clone(),
            psp: self.client.settings.name.as_str().into(),
            psp_reference: Text::from(key.as_str()),
            refund_key: Some(key.into()),
            ..PaymentEvent::default()
        };
        event.meta.causation_id = Some(inbound.event.meta().event_id);
        vec![SourceRecord {
            topic: topic::PAYMENT_EVENT,
            key: refund.order_id.clone(),
            event: event.into(),
        }]
    }
}
