//! What the storefront sinks share: which availability to send, and which not.

use crate::contract::event::{Event, SinkOutcome};
use crate::domain::Decimal;
use crate::pipeline::{Ack, Code, Delivery, Fault, Inbound, Stage, rehearsal};

/// A quantity to publish.
pub struct Publish {
    /// Place of the delivery in the batch.
    pub index: usize,
    /// SKU.
    pub sku: String,
    /// Units, whole and not less than 0.
    pub quantity: i64,
    /// Version of the availability.
    pub version: i64,
    /// Whether the same quantity was sent before, or may have been: it needs to be sent again only if the
    /// storefront shows another, because its own orders or people changed it since.
    pub unchanged: bool,
}

/// Stock-outs go first, then what comes back, then the rest; what products are called can wait.
pub fn urgency(inbound: &Inbound) -> u8 {
    match &inbound.event {
        Event::AvailabilityChanged(e) if e.ats.is_zero() => 0,
        Event::AvailabilityChanged(e) if e.previous_ats.is_none_or(Decimal::is_zero) => 1,
        Event::ProductChanged(_) => 3,
        _ => 2,
    }
}

/// Splits a batch into what is to be published and what is settled without a call: a version that
/// was sent before, or an older one.
pub fn plan(batch: &[&Delivery]) -> (Vec<Option<Result<Ack, Fault>>>, Vec<Publish>) {
    let mut results = Vec::with_capacity(batch.len());
    let mut publish = Vec::new();
    for (index, delivery) in batch.iter().enumerate() {
        let Event::AvailabilityChanged(event) = &delivery.inbound.event else {
            let message = format!(
                "a storefront takes availability, not {}",
                delivery.inbound.event.contract()
            );
            results.push(Some(Err(Fault::reject(
                Stage::Write,
                Code::WrongContract,
                message,
            ))));
            continue;
        };
        let quantity = event.ats.or_zero().floor_to(Decimal::ONE).units() / Decimal::ONE.units();
        let sent = delivery.sent.as_ref();
        if let Some(sent) = sent.filter(|s| s.version >= event.ats_version) {
            results.push(Some(Ok(Ack {
                outcome: SinkOutcome::StaleSkipped,
                version: event.ats_version,
                external_id: sent.external_id.clone(),
                digest: Some(quantity.to_string()),
                status: None,
            })));
            continue;
        }
        results.push(None);
        publish.push(Publish {
            index,
            sku: event.sku.to_string(),
            quantity,
            version: event.ats_version,
            unchanged: delivery.in_doubt
                || sent.is_some_and(|s| s.digest.as_deref() == Some(&*quantity.to_string())),
        });
    }
    (results, publish)
}

impl Publish {
    /// Says that the storefront, which shows `shown`, is about to show this.
    pub fn tell(&self, shown: i64) {
        rehearsal::tell(|| format!("stock of {}: {shown} → {}", self.sku, self.quantity));
    }

    /// The acknowledgement of a quantity that the storefront took.
    pub fn acked(&self, external_id: &str, status: u16) -> Ack {
        Ack {
            outcome: SinkOutcome::Acked,
            version: self.version,
            external_id: Some(external_id.to_owned()),
            digest: Some(self.quantity.to_string()),
            status: Some(i32::from(status)),
        }
    }

    /// The acknowledgement of a quantity that the storefront shows already.
    pub fn found(&self, external_id: &str) -> Ack {
        Ack {
            outcome: SinkOutcome::DuplicateAcked,
            version: self.version,
            external_id: Some(external_id.to_owned()),
            digest: Some(self.quantity.to_string()),
            status: None,
        }
    }
}

/// The same fault for another record: verdict, code and words.
pub fn repeated(fault: &Fault) -> Fault {
    Fault {
        verdict: fault.verdict,
        stage: fault.stage,
        code: fault.code,
        message: fault.message.clone(),
        source: None,
    }
}

/// One result for each delivery: what is known of it, else how the call as a whole ended.
pub fn complete(
    results: Vec<Option<Result<Ack, Fault>>>,
    outcome: Result<(), Fault>,
) -> Vec<Result<Ack, Fault>> {
    let unanswered = || match &outcome {
        Err(fault) => Err(repeated(fault)),
        Ok(()) => Err(Fault::retry(
            Stage::Write,
            Code::OutcomeUnknown,
            "the storefront did not say what became of it",
        )),
    };
    results
        .into_iter()
        .map(|r| r.unwrap_or_else(unanswered))
        .collect()
}
